"Every notebook: it runs, it is clean, the library and the README were made from it, and its stored outputs are what it prints"
import json, math, re, shutil, subprocess, sys
from configparser import ConfigParser

import nbformat, pytest
from nbclient import NotebookClient

from conftest import NBS, TOP
from minimlp.data import SAMPLE
from forks import failure, kernel, pool
from readme import readme

each = pytest.mark.parametrize('nb', NBS, ids=lambda p: str(p.relative_to(TOP/'nbs')))


def nbdev_in(folder, command, *args):
    "Run one of nbdev's commands in a folder, which has to work"
    r = subprocess.run([f'{sys.prefix}/bin/{command}', *args], cwd=folder, capture_output=True, text=True)
    assert r.returncode==0, r.stdout + r.stderr


@each
def test_runs(nb):
    "As `nbdev_test` runs it, on the package's sample, in a process of its own; `test_in_jupyter` runs it on full MNIST"
    with pool(1) as one: assert not (said := one.submit(failure, nb, SAMPLE).result()), said


@pytest.fixture
def copy(tmp_path):
    "The parts of the project that nbdev reads and writes, somewhere else"
    for d in ('nbs', 'minimlp'): shutil.copytree(TOP/d, tmp_path/d, symlinks=True, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for f in ('settings.ini', '_quarto.yml', 'pyproject.toml'): shutil.copy(TOP/f, tmp_path)
    return tmp_path


def same_files(a, b, pattern):
    names = lambda top: sorted(str(p.relative_to(top)) for p in top.rglob(pattern) if '.ipynb_checkpoints' not in p.parts)
    assert names(a)==names(b)
    return [n for n in names(a) if (a/n).read_bytes()!=(b/n).read_bytes()]


def test_library_is_exported(copy):
    nbdev_in(copy, 'nbdev_export')
    assert same_files(TOP/'minimlp', copy/'minimlp', '*.py')==[], 'run `make prepare`'
    (copy/'minimlp'/'forward.py').write_text('edited by hand')
    assert same_files(TOP/'minimlp', copy/'minimlp', '*.py')==['forward.py']


def test_notebooks_are_clean(copy):
    nbdev_in(copy, 'nbdev_clean')
    assert same_files(TOP/'nbs', copy/'nbs', '*.ipynb')==[], 'run `make prepare`'


def test_clean_check_can_fail(copy):
    f = copy/'nbs'/'index.ipynb'
    nb = json.loads(f.read_text(encoding='utf-8'))
    nb['metadata']['somebody'] = 'was here'
    f.write_text(json.dumps(nb), encoding='utf-8')
    dirty = f.read_bytes()
    nbdev_in(copy, 'nbdev_clean')
    assert f.read_bytes()!=dirty


def test_readme_is_current():
    assert (TOP/'README.md').read_text(encoding='utf-8')==readme(), 'run `make readme`'


@each
def test_colab_link(nb):
    "Each chapter opens itself in Colab, from the repository that settings.ini names"
    ini = ConfigParser()
    ini.read(TOP/'settings.ini')
    cfg, text = ini['DEFAULT'], nb.read_text(encoding='utf-8')
    want = f"https://colab.research.google.com/github/{cfg['user']}/{cfg['repo']}/blob/{cfg['branch']}/{nb.relative_to(TOP)}"
    assert nb.name=='index.ipynb' or want in text


def test_links_lead_somewhere():
    "Every link and picture of a page that isn't an address"
    pages = {TOP/'README.md': (TOP/'README.md').read_text(encoding='utf-8'), TOP/'CONTRIBUTING.md': (TOP/'CONTRIBUTING.md').read_text(encoding='utf-8')}
    for nb in NBS: pages[nb] = '\n'.join(c.source for c in nbformat.read(nb, as_version=4).cells if c.cell_type=='markdown')
    links = [(page, link) for page, text in pages.items() for link in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', text)]
    assert len(links)>20
    assert [(page.name, link) for page, link in links if not (page.parent/link).is_file()]==[]


def test_site_can_be_made(copy):
    "nbdev's own half of the docs build: every page is processed, and the figures of the pages come along"
    (copy/'proc.py').write_text('if __name__=="__main__":\n    from nbdev.serve import proc_nbs\n    proc_nbs()')
    r = subprocess.run([sys.executable, 'proc.py'], cwd=copy, capture_output=True, text=True)
    assert r.returncode==0, r.stdout + r.stderr
    assert {p.relative_to(TOP/'nbs') for p in NBS} <= {p.relative_to(copy/'_proc') for p in (copy/'_proc').rglob('*.ipynb')}
    assert (copy/'_proc'/'images'/'verify.png').is_file()
    assert 'colab.research' in (copy/'_proc'/'01_forward.ipynb').read_text(encoding='utf-8')


def test_new_chapters_join_the_menu(copy):
    before = (copy/'_quarto.yml').read_text(encoding='utf-8')
    prepare = lambda: subprocess.run([sys.executable, TOP/'tests'/'docs.py', '--menu', str(copy)], check=True)
    prepare()
    assert (copy/'_quarto.yml').read_text(encoding='utf-8')==before, 'run `make prepare`'
    for name in ('97_new.ipynb', '98_newer.ipynb'):
        shutil.copy(copy/'nbs'/'01_forward.ipynb', copy/'nbs'/name)
        prepare()
    after = (copy/'_quarto.yml').read_text(encoding='utf-8')
    assert re.search(r'- section: Speed and scale\n        contents: \[.*97_new\.ipynb, 98_newer\.ipynb\]\n      - section: Appendices', after)


# Stored outputs

def parts(text):
    "Text with its numbers taken out, and the numbers"
    num = r'(?<![\w.])[-+−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?'
    return re.sub(r'\s+', ' ', re.sub(num, '#', text)), [t.replace(',', '').replace('−', '-') for t in re.findall(num, text)]


def same(stored, fresh):
    "The same words, the same whole numbers, and decimals that differ by rounding alone"
    (a, na), (b, nb) = parts(stored), parts(fresh)
    close = lambda x, y: x==y or (not (x.lstrip('-').isdigit() and y.lstrip('-').isdigit())
                                  and math.isclose(float(x), float(y), rel_tol=1e-3, abs_tol=.011))
    return a==b and len(na)==len(nb) and all(map(close, na, nb))


def printed(cell):
    "What a cell shows: its text, and the kinds of its pictures"
    outs = [o.get('text') or o.get('data', {}).get('text/markdown') or o.get('data', {}).get('text/plain', '') for o in cell.outputs]
    kinds = sorted(k for o in cell.outputs for k in o.get('data', {}) if k.startswith('image/'))
    return ''.join(outs), kinds


@pytest.mark.full
@each
def test_in_jupyter(nb, monkeypatch):
    "A run from top to bottom on full MNIST, in JupyterLab's own kernel, prints what is stored"
    monkeypatch.setattr('jupyter_client.provisioning.local_provisioner.launch_kernel', kernel)
    stored = nbformat.read(nb, as_version=4)
    fresh = nbformat.read(nb, as_version=4)
    for cells in (stored, fresh): cells.cells = [c for c in cells.cells if 'nbdev_export()' not in c.source and not re.search(r'^#\| slow', c.source, re.M)]
    NotebookClient(fresh, timeout=600, resources={'metadata': {'path': str(nb.parent)}}).execute()
    wrong = []
    for s, f in zip(stored.cells, fresh.cells):
        if s.cell_type!='code' or re.search(r'^#\s*\|\s*timing\b', s.source, re.M): continue
        (a, ka), (b, kb) = printed(s), printed(f)
        if ka!=kb or not same(a, b): wrong.append(f'{s.source}\n--- stored {ka}\n{a}\n--- now {kb}\n{b}')
    assert not wrong, 'run `make outputs`\n' + '\n\n'.join(wrong)


def test_output_check_can_fail():
    assert same('loss 4308.76, 3.1e-07', 'loss 4308.75, 4.0e-07') and same('tensor([1.00,\n  2.50])', 'tensor([1.00, 2.50])')
    for other in ('loss 4401.76', 'loss 4308.76 ok', 'lost 4308.76', 'loss', ''): assert not same('loss 4308.76', other)
    assert not same('(50000, 784)', '(5000, 784)') and not same('9', '10') and not same('1.5', '-1.5')
