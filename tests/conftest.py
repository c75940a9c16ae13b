"""What all tests share: the data they run on, and the last line, `N passed, N failed`.

Tests run on the package's sample, or on full MNIST where MINIMLP_DATA names it. Those marked `full` need the latter, the one marked
`origin` the text of the walk-through, those marked `browser` Chromium, npm and smalldocs, and those marked `jax` JAX; where these aren't there, pytest counts
them as deselected.
"""
import os, shutil, threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
os.environ['MINIMLP_DATA'] = str(Path(os.environ.get('MINIMLP_DATA') or TOP/'minimlp'/'mnist').resolve())
os.environ['CI'] = 'true'  # no progress bars
os.environ.setdefault('OMP_NUM_THREADS', '1')  # tests run side by side, one on each core

from minimlp.data import load_mnist  # after MINIMLP_DATA is set

FULL = len(load_mnist()[0][0])==50_000
ORIGIN = TOP.parent/'shared'/'origin'  # the walk-through that this project grew from, where it lies beside the checkout
NBS = sorted(p for p in (TOP/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


TOGETHER = {f'test_{f}.py' for f in ('bench', 'collection', 'docs', 'package', 'parallel', 'train', 'widgets')}  # files whose tests share what is dear to make, or would slow each other down


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Tests of a file that is named above run one after the other; pytest-xdist 3.8's own groups do nothing under pytest 9.2"
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid): return file if (file := nodeid.split('::')[0]).split('/')[-1] in TOGETHER else nodeid
    return ByFile(config, log)


def pytest_report_header():
    return (f"data: {'full MNIST' if FULL else 'the sample (MINIMLP_DATA=FOLDER runs the rest on full MNIST)'}; "
            f"browser: {CHROMIUM or 'none (with chromium installed, the site is tested as well)'}")


def runs_twice(item):
    "On full MNIST a page of a folder runs in Jupyter alone; a chapter runs on the sample as well"
    return FULL and item.name.startswith('test_runs[') and '/' in item.name


def pytest_collection_modifyitems(config, items):
    here = dict(full=FULL, origin=ORIGIN.is_dir(), quarto=shutil.which('quarto'), jax=find_spec('jax'),
                browser=CHROMIUM and shutil.which('npm') and find_spec('smalldocs'))
    left_out = [i for i in items if runs_twice(i) or any(i.get_closest_marker(m) and not there for m, there in here.items())]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [i for i in items if i not in left_out]


def pytest_terminal_summary(terminalreporter):
    terminalreporter.stats_line = {k: len(terminalreporter.stats.get(k, [])) for k in ('passed', 'failed', 'error')}


def pytest_unconfigure(config):
    tr = config.pluginmanager.get_plugin('terminalreporter')
    if n := getattr(tr, 'stats_line', None): print(f"{n['passed']} passed, {n['failed']+n['error']} failed")


@contextmanager
def served(folder):
    "The address under which the files of a folder can be read, on this machine alone"
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


@pytest.fixture(scope='session')
def browser():
    "One Chromium for all tests of a process; Playwright can't be started twice in one"
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
                                                             '--disable-component-update', '--disable-sync'])
        yield b
        b.close()
