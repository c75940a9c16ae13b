"""Processes that needn't wait for PyTorch: forks of one that has imported the large libraries, and nothing of ours.

A page runs in one as `nbdev_test` runs it, or by Jupyter's kernel; a command or a program as by `subprocess.Popen`.
"""
import io, os, runpy, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from configparser import ConfigParser
from contextlib import redirect_stderr
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile

TOP = Path(__file__).resolve().parent.parent
context = get_context('forkserver')
context.set_forkserver_preload(['pytest', 'torch', 'torch.distributed', 'matplotlib.pyplot', 'sympy', 'nbdev.test', 'jupyter_client'])  # not ipykernel, by which
# programs tell whether they run in a notebook


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
    from minimlp import ranks
    os.environ['MINIMLP_DATA'] = str(data)
    ranks._start = start_rank
    with redirect_stderr(io.StringIO()) as said:
        right, _ = test_nb(path, skip_flags=[*flags(), *skip], basepath=TOP)
    return None if right else said.getvalue() or 'it failed without a word'


def _serve(args, cwd, env):
    "Become a kernel of Jupyter"
    from ipykernel.kernelapp import IPKernelApp
    os.setsid()  # it is stopped by a signal to its group, which mustn't be ours
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    app = IPKernelApp.instance()
    app.initialize(args)
    app.shell.enable_matplotlib('inline')  # as in a kernel that imports matplotlib itself
    app.start()


def kernel(cmd, cwd, env, **kw):
    "In place of Jupyter's `launch_kernel`: the same kernel, as a fork"
    fork = context.Process(target=_serve, args=(cmd[cmd.index('-f'):], cwd, env))
    fork.start()
    while os.getpgid(fork.pid)!=fork.pid: time.sleep(.001)
    fork.poll, fork.wait, fork.send_signal = lambda: fork.exitcode, fork.join, lambda sig: os.kill(fork.pid, sig)
    fork.stdin = fork.stdout = fork.stderr = None
    return fork


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


def start_rank(code, shared, rank):
    "In place of `ranks._start`: a fork"
    return Fork([sys.executable, '-c', code], env={**shared, 'RANK': str(rank), 'LOCAL_RANK': str(rank)})


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
