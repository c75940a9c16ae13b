"""Processes that needn't wait for PyTorch: forks of one that has imported the large libraries, and nothing of ours.

A page runs in one as `nbdev_test` runs it, a command or a program as `subprocess.Popen` does.
"""
import io, os, runpy, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from configparser import ConfigParser
from contextlib import redirect_stderr
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile

TOP = Path(__file__).resolve().parent.parent
context = get_context('forkserver')
context.set_forkserver_preload(['torch', 'torch.distributed', 'matplotlib.pyplot', 'sympy', 'nbdev.test'])


def pool(n, tasks=1):
    "`n` processes at a time, each of which ends after so many tasks"
    return ProcessPoolExecutor(n, mp_context=context, max_tasks_per_child=tasks)


# Pages

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


# Programs

def _become(cmd, cwd, env, files):
    "Run a command of ours, or `python -c program`, with its own output, folder and environment"
    for fd, name in files.items(): os.dup2(os.open(name, os.O_WRONLY), fd)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if cmd[1:2]==['-c']:
        exec(cmd[2], {'__name__': '__main__'})
        return
    sys.argv = cmd
    runpy.run_path(cmd[0], run_name='__main__')


class Fork:
    "Like `subprocess.Popen`, its output as text"
    def __init__(self, cmd, cwd='.', env=os.environ):
        self.cmd, self.files = [str(c) for c in cmd], {fd: NamedTemporaryFile('r', encoding='utf-8') for fd in (1, 2)}
        self.process = context.Process(target=_become, args=(self.cmd, str(Path(cwd).resolve()), dict(env), {fd: f.name for fd, f in self.files.items()}))
        self.process.start()
        self.pid, self.kill = self.process.pid, self.process.kill

    @property
    def returncode(self): return self.process.exitcode

    def poll(self): return self.process.exitcode

    def send_signal(self, sig): os.kill(self.pid, sig)

    def communicate(self, timeout=300):
        self.process.join(timeout)
        if self.returncode is None: raise subprocess.TimeoutExpired(self.cmd, timeout)
        return tuple(f.read() for f in self.files.values())
