"""What all tests share: the data they run on, and the last line, `N passed, N failed`.

Tests run on the package's sample, or on full MNIST where MINIMLP_DATA names it. Those marked `full` need the latter, and the one marked
`origin` the text of the walk-through; where these aren't there, pytest counts them as deselected.
"""
import os
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
os.environ['MINIMLP_DATA'] = str(Path(os.environ.get('MINIMLP_DATA') or TOP/'minimlp'/'mnist').resolve())
os.environ['CI'] = 'true'  # no progress bars

from minimlp.data import load_mnist  # after MINIMLP_DATA is set

FULL = len(load_mnist()[0][0])==50_000
ORIGIN = TOP.parent/'shared'/'origin'  # the walk-through that this project grew from, where it lies beside the checkout


def pytest_report_header():
    return f"data: {'full MNIST' if FULL else 'the sample (MINIMLP_DATA=FOLDER runs the rest on full MNIST)'}"


def pytest_collection_modifyitems(config, items):
    here = dict(full=FULL, origin=ORIGIN.is_dir())
    left_out = [i for i in items if any(i.get_closest_marker(m) and not there for m, there in here.items())]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [i for i in items if i not in left_out]


def pytest_terminal_summary(terminalreporter):
    terminalreporter.stats_line = {k: len(terminalreporter.stats.get(k, [])) for k in ('passed', 'failed', 'error')}


def pytest_unconfigure(config):
    tr = config.pluginmanager.get_plugin('terminalreporter')
    if n := getattr(tr, 'stats_line', None): print(f"{n['passed']} passed, {n['failed']+n['error']} failed")
