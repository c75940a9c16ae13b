"""The site as readers see it, in a real browser: every page opened, wide and narrow, light and dark.

Built without Quarto always, and by `nbdev_docs` if Quarto is on the PATH (marked `quarto`, and counted apart). It needs Chromium (Debian's package
`chromium`, which .ci/run installs), and npm for KaTeX and axe-core. Without these, pytest counts the tests as deselected.
Screenshots are left in the folder `_shots` if there is one.
"""
import base64, json, os, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest, torch
from playwright.sync_api import expect

from conftest import NBS, TOP, served
from docs import plain
from minimlp.data import load_mnist
from minimlp.module import Model
from minimlp.softmax import CrossEntropy, softmax

PAGES = sorted(str(p.relative_to(TOP/'nbs').with_name(plain(p.stem)+'.html')) for p in NBS)
SHOTS = TOP/'_shots'


def shoot(page, name):
    "Leave a picture of the page, for somebody who has made the folder"
    if SHOTS.is_dir(): page.screenshot(path=SHOTS/f'{name}.png', full_page=True)


pytestmark = pytest.mark.browser


@pytest.fixture(scope='module', params=['smalldocs', pytest.param('quarto', marks=pytest.mark.quarto)])
def site(request, tmp_path_factory):
    "The built site, from the files that git knows; what was in the folder before stays as it was"
    top = tmp_path_factory.mktemp(request.param)
    files = subprocess.run(['git', 'ls-files', '--cached', '--others', '--exclude-standard'], cwd=TOP, capture_output=True, text=True, check=True).stdout.split()
    for f in (TOP/f for f in files):
        if not f.is_file(): continue
        to = top/f.relative_to(TOP)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(f, to, follow_symlinks=False) if f.is_symlink() else shutil.copyfile(f, to)
    before = {f: (top/f).read_bytes() for f in files if (top/f).is_file()}
    bin = Path(sys.prefix)/'bin'
    cmd = [sys.executable, 'tests/docs.py', '_docs'] if request.param=='smalldocs' else [bin/'nbdev_docs']
    env = {**os.environ, 'PYTHONPATH': str(top), 'PATH': f"{bin}:{os.environ['PATH']}"}
    r = subprocess.run(cmd, cwd=top, capture_output=True, text=True, env=env)
    assert r.returncode==0, r.stdout + r.stderr
    assert 'warn' not in r.stderr.lower() and 'WARN' not in r.stdout, r.stdout + r.stderr
    assert [f for f, old in before.items() if (top/f).read_bytes()!=old]==[], 'README.md and all else stay as they were'
    return top/'_docs'


@pytest.fixture(scope='module')
def address(site):
    with served(site) as url: yield url


def from_npm(what, folder):
    "Unpack a package of the npm registry"
    subprocess.run(['npm', 'pack', '--silent', what], cwd=folder, check=True, capture_output=True)
    shutil.unpack_archive(next(folder.glob('*.tgz')), folder)
    return folder/'package'


@pytest.fixture(scope='module')
def katex(site, tmp_path_factory):
    "KaTeX of the version that the pages ask for"
    version = re.search(r'npm/katex@([\d.]+|latest)/', (site/'backward.html').read_text(encoding='utf-8'))[1]
    return from_npm(f'katex@{version}', tmp_path_factory.mktemp('katex'))/'dist'


@pytest.fixture(scope='session')
def axe(tmp_path_factory): return (from_npm('axe-core@4', tmp_path_factory.mktemp('axe'))/'axe.min.js').read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def window(browser, address, katex):
    "Open a window of its own, without a page; the console's errors are collected in `page.wrong`"
    def window(width=1280, scheme='light', **kw):
        page = browser.new_context(viewport=dict(width=width, height=900), color_scheme=scheme, reduced_motion='reduce', base_url=address, **kw).new_page()
        page.wrong = []
        page.on('console', lambda m: page.wrong.append(m.text) if m.type=='error' else None)
        page.on('pageerror', lambda e: page.wrong.append(str(e)))
        page.on('response', lambda r: page.wrong.append(f'{r.status} {r.url}') if r.status>=400 else None)
        page.route('**/katex@*/dist/**', lambda route: route.fulfill(path=katex/route.request.url.split('/dist/')[1].split('?')[0]))
        return page
    return window


@pytest.fixture
def visit(window):
    "Open a page in a window of its own"
    opened = []
    def visit(name, *args, **kw):
        opened.append(page := window(*args, **kw))
        page.goto(f'/{name}', wait_until='load')
        return page
    yield visit
    for page in opened: page.context.close()


@pytest.fixture(scope='module')
def page(window):
    "One window for page after page, which keeps what all pages share"
    yield (page := window())
    page.context.close()


def test_all_pages_are_there(site):
    assert sorted(str(p.relative_to(site)) for p in site.rglob('*.html') if p.name!='404.html' and 'site_libs' not in p.parts)==PAGES and (site/'404.html').is_file()
    menu = re.findall(r'<a href="\.?/?([\w/]+\.html)" class="sidebar-item-text', (site/'index.html').read_text(encoding='utf-8'))
    assert sorted(menu)==PAGES, 'each page stands in the sidebar, once'


CONTRAST = (Path(__file__).parent/'contrast.js').read_text(encoding='utf-8')
MISSING = """() => [...document.images].filter(i => !i.alt.trim() || i.loading!='lazy' && !(i.complete && i.naturalWidth)).map(i => i.alt + ' ' + i.src.slice(0, 80))"""
PROSE = """() => { const m = document.querySelector('main').cloneNode(true); m.querySelectorAll('pre, code, script, annotation').forEach(e => e.remove()); return m.textContent }"""
# what is left to CONTRAST and PLAIN, which are quicker, is switched off
SERIOUS = """async () => (await axe.run(document, {runOnly: ['wcag2a', 'wcag2aa'], resultTypes: ['violations'], rules: {'color-contrast': {enabled: false}, 'link-in-text-block': {enabled: false}}})).violations
             .filter(v => ['serious', 'critical'].includes(v.impact)).map(v => `${v.id}: ${v.nodes.slice(0, 3).map(n => n.target.join(' ')).join(' | ')}`)"""
PLAIN = """() => [...document.querySelectorAll('main :is(p, li, td) a:not(:has(img)):not([role]):not(.anchorjs-link):not(.open-in a):not(nav a)')].filter(a => a.checkVisibility() && !getComputedStyle(a).textDecorationLine.includes('underline')).map(a => a.outerHTML.slice(0, 80))"""
WIDE = """() => [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('pre, .katex-display, .cell-output, table'))
          .map(e => e.tagName + ' ' + e.className).slice(0, 5)"""
SCHEME = """() => { const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g), dark = !!document.querySelector('.quarto-dark');
          return (+r + +g + +b < 382)==dark ? ['light', 'dark'][+dark] : 'in between' }"""
CUT = """() => [...document.querySelectorAll('main pre, main .katex-display')].filter(e => e.scrollWidth > e.clientWidth + 2).map(e => e.textContent.trim().slice(0, 60))"""


@pytest.mark.parametrize('name', PAGES)
def test_page(page, axe, name):
    "No error, every picture described, every formula set, nothing cut, nothing wider than a phone, every text to be read by everybody"
    page.wrong.clear()
    page.set_viewport_size(dict(width=1280, height=900))
    page.goto(f'/{name}', wait_until='load')
    page.wait_for_function('!document.querySelector("span.math:not(:has(.katex))")', timeout=10_000)
    for scheme in ('dark', 'light'): # the page follows a preference that changes, there and back
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"({SCHEME})() == '{scheme}'", timeout=10_000)
        assert page.evaluate(CONTRAST)==[], f'{scheme}: hard to read'
        shoot(page, f'{name[:-5].replace("/", "-")}-1280-{scheme}')
    assert page.evaluate(MISSING)==[], 'pictures that are missing, or have no alt text'
    assert page.evaluate('document.querySelectorAll(".katex-error").length')==0 and '$$' not in page.evaluate(PROSE)
    assert page.evaluate(CUT)==[], 'cut behind a scroll'
    assert page.evaluate(PLAIN)==[], 'links in the text that colour alone tells apart'
    page.evaluate(axe)
    assert page.evaluate(SERIOUS)==[]
    page.set_viewport_size(dict(width=400, height=900))
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth'), f'scrolls sideways, for {page.evaluate(WIDE)}'
    assert page.wrong==[]


def test_these_checks_can_fail(visit, axe):
    page = visit('layers.html')
    page.evaluate("""document.querySelector('main p').innerHTML = '<span style="color: #aaa">pale</span> <img src="x.png"> <button></button>';
                     document.querySelector('main h2 ~ p').innerHTML = '<a href="#" style="text-decoration: none">bare</a>';
                     document.querySelector('main pre').textContent = 'x'.repeat(999); document.querySelector('main pre').style.whiteSpace = 'pre'""")
    page.evaluate(axe)
    assert 'pale' in page.evaluate(CONTRAST)[0] and page.evaluate(MISSING) and page.evaluate(CUT) and page.evaluate(PLAIN) and 'button-name' in ' '.join(page.evaluate(SERIOUS))


class Links(HTMLParser):
    "The links of a page, and the places that links can lead to"
    def __init__(self, text): super().__init__(); self.hrefs, self.ids = [], []; self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get('id'): self.ids.append(a['id'])
        if tag=='a' and a.get('href'): self.hrefs.append(a['href'])


def test_links(site):
    pages = {str(p.relative_to(site)): Links(p.read_text(encoding='utf-8')) for p in site.rglob('*.html') if 'site_libs' not in p.parts}
    lost = []
    for name, page in pages.items():
        for href in page.hrefs:
            u = urlsplit(href)
            if u.scheme or u.netloc or name=='404.html': continue
            path, spot = os.path.normpath(Path(name).parent/unquote(u.path)) if u.path else name, unquote(u.fragment)
            if not (site/path).exists() or spot and path.endswith('.html') and spot not in pages[path].ids: lost.append(f'{name}: {href}')
    assert sum(len(p.hrefs) for p in pages.values())>200 and lost==[]
    assert [f'{n}#{i}' for n, p in pages.items() for i in set(p.ids) if p.ids.count(i)>1 and not i.startswith('quarto')]==[], 'an anchor that is there twice'


def test_code_is_shown_once(site):
    "A function of a chapter is on its page as its source, under the anchor that links find; the reference has its parameters"
    page = (site/'forward.html').read_text(encoding='utf-8')
    text = re.sub(r'<[^>]*>', '', page)
    assert text.count('def lin(')==1 and page.index('id="minimlp.forward.lin"') < page.index('id="minimlp.forward.relu"')
    assert 'Call self as a function' not in text and not re.search(r'\]\(http| at 0x', text)
    assert 'id="ref-minimlp.forward.lin"' in (site/'reference.html').read_text(encoding='utf-8')


def test_search(visit, site):
    if (site/'search.json').is_file(): # Quarto's
        assert 'broadcast' in (site/'search.json').read_text(encoding='utf-8')
        return
    page = visit('index.html')
    page.get_by_label('Search').fill('broadcasting')
    hit = page.locator('.smalldocs-search-results a').first
    expect(hit).to_be_visible()
    hit.click()
    page.wait_for_load_state()
    assert 'broadcast' in page.content().lower()


def test_for_language_models(site):
    listed = set(re.findall(r'[\w/]+\.llms\.md', (site/'llms.txt').read_text(encoding='utf-8')))
    assert {p[:-5].split('/')[-1] for p in PAGES} <= {l[:-8].split('/')[-1] for l in listed} and 'def lin(' in (site/'forward.llms.md').read_text(encoding='utf-8')


def test_a_fold_hides_what_it_prints(visit):
    page = visit('forward.html')
    fold = page.locator('details.fold').first
    inside = fold.locator('pre, img, .cell-output').first
    assert not inside.is_visible()
    fold.locator('summary').click()
    expect(inside).to_be_visible()


def test_the_way_on(visit):
    page = visit('forward.html')
    page.locator('.nav-page-next a').click()
    page.wait_for_load_state()
    assert page.url.endswith('/backward.html')


# The page that draws

def play(visit, **kw):
    page = visit('play.html', **kw)
    expect(page.locator('[data-play=say]')).to_have_text('Draw a digit.')
    return page


def test_play_computes_what_the_library_does(visit):
    text = (TOP/'nbs'/'play-weights.js').read_text(encoding='utf-8')
    data = json.loads(text.removeprefix('const MINIMLP_WEIGHTS = ').rstrip(';\n'))
    shapes = dict(w1=(784, 50), b1=(50,), w2=(50, 10), b2=(10,))
    params = [torch.frombuffer(bytearray(base64.b64decode(data[n])), dtype=torch.float32).double().reshape(s) for n, s in shapes.items()]
    model, page = Model(*params, loss=CrossEntropy()), play(visit)
    x, y = load_mnist(sample=True)[2]
    right = 0
    for row, label in zip(x[:10].double(), y[:10]):
        inp = row[None].clone()
        loss = model(inp, label[None])
        model.backward()
        p = softmax(model.predict(inp.clone()))[0]
        got = page.evaluate('([x, t]) => { const {p} = minimlp.forward(x), g = minimlp.backward(x, t); return {p: [...p], loss: g.loss, x: [...g.x], w1: [...g.w1], b1: [...g.b1], w2: [...g.w2], b2: [...g.b2]} }',
                            [row.tolist(), label.item()])
        want = dict(p=p, loss=loss, x=inp.g, **{n: t.g for n, t in zip(shapes, params)})
        for k, w in want.items(): torch.testing.assert_close(torch.tensor(got[k], dtype=torch.float64).reshape(w.shape), w, rtol=1e-5, atol=1e-7, msg=lambda m: f'{k}: {m}')
        right += p.argmax()==label
    assert right>=9
    got = page.evaluate('([x, t]) => { const a = minimlp.step(x, t, .05), b = minimlp.forward(x).p[t]; minimlp.reset(); return [...a, b, minimlp.forward(x).p[t]] }', [x[0].tolist(), 3])
    assert got[1]<got[0] and got[2]>got[3] # a step towards the wrong answer makes it likelier, and is forgotten again


def stroke(page, *points):
    box = page.locator('[data-play=pad]').bounding_box()
    to = lambda p: (box['x']+p[0]*box['width']/280, box['y']+p[1]*box['height']/280)
    page.mouse.move(*to(points[0]))
    page.mouse.down()
    for p in points[1:]: page.mouse.move(*to(p), steps=8)
    page.mouse.up()


def test_play_by_mouse(visit):
    page = play(visit)
    stroke(page, (150, 50), (140, 230))
    expect(page.locator('[data-play=say]')).to_contain_text('It reads a 1')
    page.locator('[data-play=bars] button').nth(7).click()
    before = float(re.search(r'[\d.]+$', page.locator('[data-play=loss]').inner_text())[0])
    page.get_by_role('button', name='One step of descent').click()
    expect(page.locator('[data-play=loss]')).to_contain_text('after 1 step')
    after = float(re.search(r': ([\d.]+),', page.locator('[data-play=loss]').inner_text())[1])
    assert after<before
    page.evaluate('scrollTo(0, 0)')
    shoot(page, 'play-used')
    page.get_by_role('button', name='Forget the steps').click()
    page.get_by_role('button', name='Clear').click()
    expect(page.locator('[data-play=say]')).to_have_text('Draw a digit.')
    for i in range(15): stroke(page, *[((37*i*k)%280, (91*i+53*k)%280) for k in range(1, 7)]) # scribbles
    expect(page.locator('[data-play=say]')).to_contain_text('% sure')
    assert 'NaN' not in page.content() and page.wrong==[]
    page.get_by_role('button', name='A test digit').click()
    expect(page.locator('[data-play=say]')).to_contain_text('It reads a 0')


def test_play_by_keyboard_on_a_phone(visit):
    page = play(visit, width=400, scheme='dark')
    page.locator('[data-play=pad]').focus()
    for key in ['ArrowUp']*3 + [' '] + ['ArrowDown']*18 + [' ']: page.keyboard.press(key)
    expect(page.locator('[data-play=say]')).to_contain_text('It reads a 1')
    for _ in range(3): page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.getAttribute("aria-label")').startswith('0: ')
    page.keyboard.press('Enter')
    expect(page.locator('[data-play=loss]')).to_contain_text('if it is a 0')
    page.locator('[data-play=pad]').focus()
    page.keyboard.press('Delete')
    expect(page.locator('[data-play=say]')).to_have_text('Draw a digit.')
    assert page.wrong==[]
