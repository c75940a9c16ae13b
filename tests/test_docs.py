"""The site as readers see it, in a real browser: built without Quarto, every page opened, wide and narrow, light and dark.

It needs Chromium (Debian's package `chromium`, which .ci/run installs), and npm for KaTeX, which pages otherwise load from a CDN. Where there is no
Chromium, pytest counts these tests as deselected. Screenshots of each page are left in `_shots`.
"""
import base64, json, os, re, shutil, subprocess, sys, threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest, torch
from playwright.sync_api import expect, sync_playwright

from conftest import CHROMIUM, TOP
from docs import plain
from minimlp.data import load_mnist
from minimlp.module import Model
from minimlp.softmax import CrossEntropy, softmax

pytestmark = pytest.mark.browser
PAGES = sorted(str(p.relative_to(TOP/'nbs').with_name(plain(p.stem)+'.html')) for p in (TOP/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
SHOTS = TOP/'_shots'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The built site, from a copy of the project"
    top = tmp_path_factory.mktemp('docs')
    for d in ('nbs', 'minimlp', 'tests'): shutil.copytree(TOP/d, top/d, symlinks=True, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for f in ('settings.ini', '_quarto.yml', 'pyproject.toml', 'README.md'): shutil.copy(TOP/f, top)
    r = subprocess.run([sys.executable, 'tests/docs.py', 'site'], cwd=top, capture_output=True, text=True)
    assert r.returncode==0, r.stdout + r.stderr
    assert 'warning' not in r.stderr.lower(), r.stderr
    return top/'site'


@pytest.fixture(scope='module')
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


@pytest.fixture(scope='module')
def katex(site, tmp_path_factory):
    "KaTeX of the version that the pages ask for, from the npm registry"
    version = re.search(r'npm/katex@([\d.]+)/', (site/'backward.html').read_text(encoding='utf-8'))[1]
    folder = tmp_path_factory.mktemp('katex')
    subprocess.run(['npm', 'pack', '--silent', f'katex@{version}'], cwd=folder, check=True, capture_output=True)
    shutil.unpack_archive(next(folder.glob('*.tgz')), folder)
    return folder/'package'/'dist'


@pytest.fixture(scope='module')
def browser():
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
                                                             '--disable-component-update', '--disable-sync'])
        yield b
        b.close()


@pytest.fixture
def visit(browser, address, katex):
    "Open a page in a window of its own; the console's errors are collected in `page.wrong`"
    opened = []
    def visit(name, width=1280, scheme='light'):
        page = browser.new_context(viewport=dict(width=width, height=900), color_scheme=scheme).new_page()
        page.wrong = []
        page.on('console', lambda m: page.wrong.append(m.text) if m.type=='error' else None)
        page.on('pageerror', lambda e: page.wrong.append(str(e)))
        page.on('response', lambda r: page.wrong.append(f'{r.status} {r.url}') if r.status>=400 else None)
        page.route('**/katex@*/dist/**', lambda route: route.fulfill(path=katex/route.request.url.split('/dist/')[1].split('?')[0]))
        page.goto(f'{address}/{name}', wait_until='load')
        opened.append(page)
        return page
    yield visit
    for page in opened: page.context.close()


def test_all_pages_are_there(site):
    assert sorted(str(p.relative_to(site)) for p in site.rglob('*.html') if p.name!='404.html')==PAGES
    menu = re.findall(r'<a href="([\w/]+\.html)" class="sidebar-item-text', (site/'index.html').read_text(encoding='utf-8'))
    assert sorted(menu)==PAGES, 'each page stands in the sidebar, once'


@pytest.mark.parametrize('name', PAGES)
def test_page(visit, name):
    "No error, every picture there and described, every formula set, nothing wider than a phone; a screenshot of each look"
    SHOTS.mkdir(exist_ok=True)
    for width, scheme in [(1280, 'light'), (1280, 'dark'), (400, 'light')]:
        page = visit(name, width, scheme)
        page.wait_for_function('!document.querySelector("span.math:not(:has(.katex))")', timeout=10_000)
        assert page.wrong==[]
        bad = page.evaluate('''() => [...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt.trim()).map(i => i.alt + ' ' + i.src.slice(0, 80))''')
        assert bad==[], 'pictures that are missing, or have no alt text'
        assert page.evaluate('document.querySelectorAll(".katex-error").length')==0
        assert '$$' not in page.evaluate('''() => { const m = document.querySelector('main').cloneNode(true); m.querySelectorAll('pre, code, script, annotation').forEach(e => e.remove()); return m.textContent }''')
        wide = page.evaluate('''() => [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('pre, .katex-display, .cell-output, .table-wrap, table')).map(e => e.tagName + ' ' + e.className).slice(0, 5)''')
        assert page.evaluate('document.documentElement.scrollWidth <= innerWidth'), f'{width}: scrolls sideways, for {wide}'
        page.evaluate('scrollTo(0, 0)')
        page.screenshot(path=SHOTS/f'{name[:-5].replace("/", "-")}-{width}-{scheme}.png', full_page=True)


class Links(HTMLParser):
    "The links of a page, and the places that links can lead to"
    def __init__(self, text): super().__init__(); self.hrefs, self.ids = [], set(); self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get('id'): self.ids.add(a['id'])
        if tag=='a' and a.get('href'): self.hrefs.append(a['href'])


def test_links(site):
    pages = {str(p.relative_to(site)): Links(p.read_text(encoding='utf-8')) for p in site.rglob('*.html')}
    lost = []
    for name, page in pages.items():
        for href in page.hrefs:
            u = urlsplit(href)
            if u.scheme or u.netloc: continue
            path, spot = os.path.normpath(Path(name).parent/unquote(u.path)) if u.path else name, unquote(u.fragment)
            if not (site/path).exists() or spot and path.endswith('.html') and spot not in pages[path].ids: lost.append(f'{name}: {href}')
    assert sum(len(p.hrefs) for p in pages.values())>200 and lost==[]


def test_search(visit):
    page = visit('index.html')
    page.get_by_label('Search').fill('broadcasting')
    hit = page.locator('.smalldocs-search-results a').first
    expect(hit).to_be_visible()
    hit.click()
    page.wait_for_load_state()
    assert 'broadcast' in page.content().lower()


def test_for_language_models(site):
    assert 'forward.llms.md' in (site/'llms.txt').read_text(encoding='utf-8') and 'def lin(' in (site/'forward.llms.md').read_text(encoding='utf-8')


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
    page.screenshot(path=SHOTS/'play-used.png', full_page=True)
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
