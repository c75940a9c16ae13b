"""Runs notebooks as `nbdev_test` does, each in a fresh process.

The processes are forks of one that has imported the large libraries, and nothing of ours, so that a page waits for its own cells only.
"""
import io, os
from concurrent.futures import ProcessPoolExecutor
from configparser import ConfigParser
from contextlib import redirect_stderr
from multiprocessing import get_context
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
_context = get_context('forkserver')
_context.set_forkserver_preload(['torch', 'matplotlib.pyplot', 'sympy', 'nbdev.test'])


def forks(n, tasks=1):
    "`n` processes at a time, each of which ends after so many tasks"
    return ProcessPoolExecutor(n, mp_context=_context, max_tasks_per_child=tasks)


def flags():
    "The flags of cells that plain `nbdev_test` leaves out"
    ini = ConfigParser()
    ini.read(TOP/'settings.ini')
    return ini['DEFAULT']['tst_flags'].split()


def failure(path, data, skip=()):
    "The traceback of the first cell that fails on the digits in `data`, or None"
    from nbdev.test import test_nb
    os.environ['MINIMLP_DATA'] = str(data)
    with redirect_stderr(io.StringIO()) as said:
        right, _ = test_nb(path, skip_flags=[*flags(), *skip], basepath=TOP)
    return None if right else said.getvalue() or 'it failed without a word'
