"The benchmark as people run it, and how much memory the fast step takes"
import json, os, sys
from importlib.util import find_spec

import pytest, torch

from forks import Fork
from minimlp.bench.race import bench, peak_memory
from minimlp.bench.report import grid
from minimlp.data import load_mnist
from minimlp.bench.task import Task
from minimlp.train import kaiming

MIB = 2**20
linux = pytest.mark.skipif(not os.path.exists('/proc/self/clear_refs'), reason='the highest point of memory is read from /proc')


def run(*args, cwd):
    "The command's status, output and errors"
    p = Fork([f'{sys.prefix}/bin/minimlp_bench', '--data', 'sample', *args], cwd)
    out, err = p.communicate()
    return p.returncode, out, err


def test_command(tmp_path):
    code, said, err = run('--rounds', 2, '--work', 'pass', '--peers', 'nn.Module,NumPy,bare products', '--quick', '--out', 'b.json', cwd=tmp_path)
    assert (code, err)==(0, ''), err
    res = json.loads((tmp_path/'b.json').read_text())
    assert list(res['works'])==['pass + inp.g', 'pass', 'pass CE'] and all(len(t)==2 for w in res['works'].values() for t in w.values())
    for name in ('FastModel, ms', 'nn.Module', 'NumPy', 'bare products', 'GFLOP/s', torch.__version__, '5,000 rows', 'standard errors, %', 'a product took'): assert name in said, name
    assert (tmp_path/'b.png').read_bytes()[1:4]==b'PNG'


def test_scale(tmp_path):
    code, said, err = run('--scale', '--rounds', 2, '--out', 's.json', cwd=tmp_path)
    assert (code, err)==(0, ''), err
    lines = json.loads((tmp_path/'s.json').read_text())['lines']
    assert {(l['who'], l['ranks']) for l in lines}=={('ours', 1), ('DDP', 1), ('ours', 2), ('DDP', 2)} and all(l['rows']>0 for l in lines)
    assert all((l['bytes']>0)==(l['ranks']>1) for l in lines) and 'efficiency' in said and 'kB sent per step' in said


def test_to_the_goal(tmp_path):
    code, said, err = run('--to', 80, '--seeds', 1, '--peers', 'nn.Module + DataLoader', '--out', 'g.json', cwd=tmp_path)
    assert (code, err)==(0, ''), err
    runs = json.loads((tmp_path/'g.json').read_text())['runs']
    assert list(runs)==['FastModel', 'nn.Module + DataLoader'] and all(r['shares'][-1]>=.8 and r['total']>r['training']>0 for [r] in runs.values())
    assert abs(runs['FastModel'][0]['shares'][0]-runs['nn.Module + DataLoader'][0]['shares'][0])<.01 and 'getting ready' in said and '1 seed.' in said


@pytest.mark.parametrize('args, words', [(['--to', 101], 'expected percent, more than 0'), (['--peers', 'Theano'], 'expected names out of: FastModel'), (['--work', 'lunch'], 'expected a part of one of: pass + inp.g'),
                                         (['--out', 'no/such/b.json'], 'in a folder that exists'), (['--out', 'b.txt'], 'expected a .json')])
def test_wrong_options(args, words, tmp_path):
    code, said, err = run(*args, cwd=tmp_path)
    assert code==2 and words in err and 'Traceback' not in err


@pytest.mark.skipif(find_spec('tinygrad') is not None, reason='tinygrad is installed here')
def test_a_peer_that_is_not_installed_is_left_out_with_a_word():
    (x, y), *_ = load_mnist(sample=True)
    res = bench(x[:200], y[:200], ['FastModel', 'tinygrad'], rounds=2, only='pass', grow=False)
    assert 'make bench' in res['skipped']['tinygrad'] and [r[0] for r in grid(res)][1:]==['FastModel, ms', 'its kernels', 'tinygrad, left out']


@linux
def test_growth_and_memory(monkeypatch):
    monkeypatch.setattr('minimlp.bench.race.PAUSE', 0)
    (x, y), *_ = load_mnist(sample=True)
    res = bench(x, y, ['FastModel', 'nn.Module', 'walk-through'], rounds=2, only='pass + inp.g')
    assert list(res['growth']['rows'])==[1000, 2000, 5000] and list(res['growth']['width'])[-1]==1600
    assert res['memory']['walk-through'] > 700 > 40 > res['memory']['FastModel'] # MiB on 5,000 rows; all pairs of pixels and gradients are 784 MB


@linux
@pytest.mark.parametrize('name', ['FastModel', 'FastModel (mm)'])
def test_memory_stays_under_three_batches(name):
    gen, nh, bs = torch.Generator().manual_seed(0), 800, 4096
    x, y = torch.rand(2*bs, 784, generator=gen), torch.randint(10, (2*bs,), generator=gen)
    assert 1 < peak_memory(name, Task(x, y, kaiming(784, nh, 10), 'ce', bs)) < 3*4*bs*(784+nh+10)/MIB


@linux
def test_memory_of_a_whole_pass():
    "50,000 rows and the gradient of the input, which alone is 150 MiB; writing all pairs down would take 7.5 GiB"
    x, y = torch.rand(50_000, 784), torch.rand(50_000)
    assert 140 < peak_memory('FastModel', Task(x, y, kaiming(784, 50, 1), inp_grad=True)) < 200
