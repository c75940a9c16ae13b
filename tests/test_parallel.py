"Ranks as real processes that meet over 127.0.0.1: the same weights as one process, beside DDP, killed, restarted, refused, and at a port that is taken"
import json, os, signal, socket, subprocess, sys, time

import pytest, torch
from safetensors.torch import load_file

from forks import Fork, start_rank
from minimlp.ranks import launch
from minimlp.runs.checkpoint import load_run

TRAIN = [f'{sys.prefix}/bin/minimlp_train', '--data', 'sample', '--sizes', '784,20,10', '--bs', '150', '--kernel', 'mm'] # of 5,000 rows 50 are left over; one kernel, so that bits can be compared
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}

@pytest.fixture(scope='module', autouse=True)
def forked():
    "The ranks of `launch` are forks here; chapter 12 and its pages start Python anew"
    with pytest.MonkeyPatch.context() as m:
        m.setattr('minimlp.ranks._start', start_rank)
        yield


# Same weights

CASES = '''
import gc, json, zlib, torch
from torch import nn
from minimlp import autograd, layers, module
from minimlp.data import load_mnist
from minimlp.fast import FastModel
from minimlp.parallel import Parallel
from minimlp.ranks import join
from minimlp.softmax import CrossEntropy
from minimlp.train import SGD, Adam, cosine, dead_units, evaluate, fit, kaiming

class AllInOne(module.Model):
    "Goes back in its own way"
    def backward(self):
        for l in (self.loss, *reversed(self.layers)): l.backward()

def autograd_model(*params):
    model = autograd.Model(784, 20, 1).to(params[0].dtype)
    with torch.no_grad():
        for p, q in zip(model.parameters(), params): p.copy_(q)
    return model

class AsOurs:
    "Autograd's model with the interface of the others, to train it in one process"
    def __init__(self, model): self.model = model
    def __call__(self, x, y):
        self.loss = self.model(x, y)
        return self.loss.detach()
    def backward(self):
        self.model.zero_grad()
        self.loss.backward()
        for p in self.model.parameters(): p.g = p.grad.clone()
class Quiet(SGD):
    def step(self):
        with torch.no_grad(): super().step()

ce = lambda cls: lambda *params: cls(*params, loss=CrossEntropy())
# name → sizes, what makes the model, optimizer, rows, batch size
CASES = dict(module=((784, 20, 15, 10), ce(module.Model), SGD, 1000, 130), adam=((784, 20, 10), ce(module.Model), Adam, 1000, 130),
             layers=((784, 20, 1), layers.Model, SGD, 1000, 130), one=((784, 20, 10), ce(AllInOne), SGD, 1000, 130),
             fast=((784, 20, 15, 10), ce(lambda *ps, **kw: FastModel(*ps, kernel='mm', **kw)), SGD, 1000, 130), tiny=((784, 20, 10), ce(module.Model), SGD, 41, 2), autograd=((784, 20, 1), autograd_model, Quiet, 500, 130))

def train(case, dtype, rank, world, parallel):
    sizes, make, Opt, n, bs = CASES[case]
    (x, y), (xv, yv) = load_mnist(sample=True)[:2]
    x, y, xv, yv = x[:n].to(dtype), y[:n], xv[:101].to(dtype), yv[:101]
    if sizes[-1]==1: y, yv = y.to(dtype), None
    model = make(*(p.to(dtype) for p in kaiming(*sizes)))
    params = list(model.parameters()) if isinstance(model, nn.Module) else [p for l in model.layers[::2] for p in (l.w, l.b)]
    opt, bits = Opt(params, .001 if Opt is Adam or sizes[-1]==1 else .05), []
    mine = lambda t: None if t is None else t[rank::world].clone()
    each = lambda h: bits.append([zlib.crc32(p.detach().contiguous().numpy()) for p in params])
    wrapped = Parallel(model) if parallel else AsOurs(model) if isinstance(model, nn.Module) else model
    valid = None if yv is None else (mine(xv), mine(yv))
    h = fit(wrapped, opt, (mine(x), mine(y)), valid, epochs=2, bs=bs, schedule=cosine, each=each, n=n)
    return dict(bits=bits, params=[p.tolist() for p in params], losses=[e['loss'] for e in h], valid=h[-1].get('valid'))

def all_cases(rank, world, parallel):
    return {f'{c} {d}': train(c, getattr(torch, d), rank, world, parallel) for c in CASES for d in ('float64', 'float32') if d=='float64' or c in ('module', 'tiny')}
'''
PARALLEL = CASES + '''
with join() as ranks: res = all_cases(ranks.rank, ranks.world, True)
if ranks.rank: res = {k: dict(bits=v['bits']) for k, v in res.items()}
print(json.dumps(res))
'''
ALONE = CASES + "print(json.dumps(all_cases(0, 1, False)))"


@pytest.fixture(scope='module')
def alone(): return json.loads(launch(1, ALONE)[0])


def gap(a, b): # largest difference, relative to the largest entry of each tensor
    pairs = [(torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)) for p, q in zip(a['params'], b['params'])]
    return max(((p-q).abs().max()/q.abs().max()).item() for p, q in pairs)


@pytest.mark.parametrize('world', [1, 2, 3, 4])
def test_same_weights(world, alone):
    "On 1 to 4 ranks, for every kind of model: batches that don't divide, and some that leave a rank without a row"
    ran = [json.loads(out) for out in launch(world, PARALLEL)]
    for case, want in alone.items():
        got = ran[0][case]
        for r in ran: assert r[case]['bits']==got['bits'], f'{case}: the ranks hold different bits'
        assert len(got['bits'])==2 and got['bits'][0]!=got['bits'][1]
        if world==1: assert got['bits']==want['bits'], case # bit for bit
        tol = 1e-10 if 'float64' in case else 2e-5 # in float32 rounding errors of 6e-8 each, grown over the steps
        assert gap(got, want)<tol, (case, gap(got, want))
        assert got['losses']==pytest.approx(want['losses'], rel=tol)
        if want['valid']:
            assert got['valid']['loss']==pytest.approx(want['valid']['loss'], rel=tol) and got['valid']['accuracy']==pytest.approx(want['valid']['accuracy'])
            assert got['valid']['dead']==want['valid']['dead']
    assert any(sum(v['valid']['dead']) for v in alone.values() if v['valid']), 'no unit is dead, so counting them proves nothing'


def test_same_as_ddp():
    "DistributedDataParallel over chapter 5's model, and our own gradients, take the same steps"
    outs = launch(2, CASES + '''
from minimlp.train import batches
from minimlp.parallel import local_rows
with join() as ranks:
    x, y = [t[:1000].double() for t in load_mnist(sample=True)[0]]
    params = [p.double() for p in kaiming(784, 20, 1)]
    theirs = nn.parallel.DistributedDataParallel(autograd_model(*params))
    ours, opt, topt = Parallel(module.Model(*params)), SGD(params, .001, .9), torch.optim.SGD(theirs.parameters(), .001, .9)
    x, y, gen, far = x[ranks.rank::2].clone(), y[ranks.rank::2].clone(), torch.Generator().manual_seed(0), []
    for rows in batches(1000, 130, gen):
        ours.train_step(opt, x, y, rows)
        mine = local_rows(rows, ranks.rank, 2)
        topt.zero_grad()
        (theirs(x[mine], y[mine])*2*len(mine)/len(rows)).backward() # DDP divides by the ranks, not by the rows
        topt.step()
        far.append(max(((p-q).abs().max()/q.abs().max()).item() for p, q in zip(params, theirs.parameters())))
    print(json.dumps(far))
    del theirs
    gc.collect() # DDP's cycles; else its threads abort the process at its end, now and then
''')
    for out in outs: assert len(json.loads(out))==8 and max(json.loads(out))<1e-10, out


def test_no_number_stops_all():
    "A pixel that is nan, on one rank: all ranks stop, and the one that has it says so"
    said = launch(2, CASES + '''
with join() as ranks:
    x, y = [t[ranks.rank:1000:2].clone() for t in load_mnist(sample=True)[0]]
    if ranks.rank==1: x[70, 3] = torch.nan
    params = kaiming(784, 20, 10)
    try: fit(Parallel(module.Model(*params, loss=CrossEntropy())), SGD(params, .1), (x, y), n=1000)
    except FloatingPointError as e: print(e)
''')
    assert 'the loss is nan' in said[0] and 'Unless another rank' in said[0] and "this rank's rows hold values that aren't finite" in said[1], said


# From a terminal

def by_hand(*args, world=2, port=None, others=()):
    "The command as ranks without torchrun; `others` are further arguments for the last rank"
    with socket.create_server(('127.0.0.1', 0)) as s: port = port or s.getsockname()[1]
    env = {**ENV, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'WORLD_SIZE': str(world)}
    return [Fork([*TRAIN, *args, *(others if r==world-1 else ())], env={**env, 'RANK': str(r), 'LOCAL_RANK': str(r)}) for r in range(world)]


def ends(ps, seconds):
    "Status and output of each, which have to end in time"
    until = time.time()+seconds
    try: return [(*p.communicate(timeout=max(until-time.time(), .1)), p.returncode) for p in ps]
    finally:
        for p in ps: p.kill()


def epochs(out):
    path = out/'weights.safetensors'
    return len(load_run(path)[2]['history']) if path.exists() else 0


def wait_for(out, n, ps=()):
    until = time.time()+60
    while epochs(out)<n:
        assert time.time()<until and all(p.poll() is None for p in ps), [p.communicate() for p in ps if p.poll() is not None]
        time.sleep(.1)


@pytest.mark.parametrize('victim', [0, 1]) # the one that hosts the meeting, and one of three that doesn't
def test_killed_in_mid_epoch(victim, tmp_path):
    ps = by_hand('--epochs', '100000', '--out', str(tmp_path), world=2+victim)
    wait_for(tmp_path, 2, ps)
    ps[victim].kill()
    t0 = time.time()
    ended = ends(ps, 40)
    assert time.time()-t0 < 30, 'they heard of it at once, not when the time limit of 60 seconds was over'
    for r, (out, err, code) in enumerate(ended):
        if r==victim: assert code==-signal.SIGKILL
        else: assert code==2 and f'rank {r} of {len(ps)}: another rank has stopped' in err and 'goes on from there' in err and 'Traceback' not in err, (code, err)
        assert r==0 or out=='', 'only rank 0 prints'
    assert epochs(tmp_path)>=2


def test_silent_rank(tmp_path):
    "A rank that neither answers nor dies: the others stop when the time limit is over"
    program = f'''
import os, signal, time
from pathlib import Path
from minimlp.data import SAMPLE, load_share
from minimlp.ranks import join
from minimlp.runs.run import run
from minimlp.runs.settings import Settings
with join(timeout=2) as ranks:
    Path({str(tmp_path)!r}, f'{{ranks.rank}}').write_text(str(os.getpid()))
    if ranks.rank==1: time.sleep(4)
    t0 = time.time()
    try: run(Settings(sizes=(784, 20, 10)), load_share(SAMPLE, ranks.rank, ranks.world), ranks)
    except ConnectionError as e: print(time.time()-t0<5, e)
os._exit(0)
'''
    said = launch(2, program, check=False)
    assert said[0].startswith('True rank 0 of 2: another rank'), said


def test_ctrl_c(tmp_path):
    ps = by_hand('--epochs', '100000', '--out', str(tmp_path))
    wait_for(tmp_path, 2, ps)
    for p in ps: p.send_signal(signal.SIGINT) # as a terminal does
    (_, err, code), (_, err1, _) = ends(ps, 20)
    assert code==130 and 'stopped after epoch' in err and 'The same command goes on' in err and 'Traceback' not in err + err1, (code, err, err1)


def finish(cmd, **kw):
    r = subprocess.run(cmd, capture_output=True, text=True, timeout=100, env=ENV, **kw)
    assert r.returncode==0, r.stdout + r.stderr
    return r.stdout


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    "Twenty epochs on two ranks, in both ways of saying it"
    out = tmp_path_factory.mktemp('undisturbed')
    said = finish([*TORCHRUN, '-m', 'minimlp.cli.train', *TRAIN[1:], '--epochs', '20', '--out', str(out)])
    return out, said


def test_torchrun(undisturbed, tmp_path):
    out, said = undisturbed
    assert said.count('2 ranks on cpu')==1 and said.count('Test digits')==1, said
    assert {p.name for p in out.iterdir()}=={'weights.safetensors', 'history.json', 'curves.png', 'first_layer.png', 'wrong.png'}
    plain = finish([*TRAIN, '--epochs', '20', '--out', str(tmp_path)])
    a, b = load_file(out/'weights.safetensors'), load_file(tmp_path/'weights.safetensors')
    assert 'rank' not in plain and all((a[k]-b[k]).abs().max() < 1e-3*b[k].abs().max() for k in ('w1', 'w2', 'b1', 'b2'))
    assert load_run(out/'weights.safetensors')[2]['data']==load_run(tmp_path/'weights.safetensors')[2]['data']


def children(pid):
    "Process ids of the ranks that a torchrun has started"
    found = []
    for p in filter(str.isdigit, os.listdir('/proc')):
        try: stat = open(f'/proc/{p}/stat').read()
        except OSError: continue # it has ended meanwhile
        if stat.rsplit(')', 1)[1].split()[1]==str(pid): found.append(int(p))
    return found


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='finds the ranks in /proc')
def test_restarted(undisturbed, tmp_path):
    "torchrun starts the ranks again after one was killed, and they end at the very numbers of a run that nobody disturbed"
    p = subprocess.Popen([*TORCHRUN, '--max-restarts', '2', '--no-python', *TRAIN, '--epochs', '20', '--out', str(tmp_path)], env=ENV,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path, 3, [p])
    os.kill(max(children(p.pid)), signal.SIGKILL)
    done = epochs(tmp_path)
    [(out, err, code)] = ends([p], 100)
    assert code==0 and done<20 and out.count('2 ranks on cpu')==2, (code, done, out, err)
    a, b = load_file(undisturbed[0]/'weights.safetensors'), load_file(tmp_path/'weights.safetensors')
    assert set(a)==set(b) and all(torch.equal(a[k], b[k]) for k in a)


# Refused

def test_refused():
    "Another version, other data, other settings: each says what differs, on all ranks, before the first step"
    said = launch(3, '''
import json, tempfile
from pathlib import Path
import minimlp.runs.run as runs
from minimlp.data import SAMPLE, load_share
from minimlp.idx import read_idx, write_idx
from minimlp.ranks import join
from minimlp.runs.settings import Settings
with join() as ranks, tempfile.TemporaryDirectory() as d:
    other, said, last, name = Path(d), [], ranks.rank==2, 'train-labels-idx1-ubyte.gz'
    for f in SAMPLE.glob('*.gz'):
        if f.name!=name: (other/f.name).symlink_to(f)
    labels = read_idx(SAMPLE/name).copy()
    labels[4321] = (labels[4321]+1)%10 # a row that isn't rank 2's own
    write_idx(other/name, labels)
    def attempt(s=Settings(sizes=(784, 20, 10)), src=SAMPLE):
        try: runs.run(s, load_share(src, ranks.rank, ranks.world), ranks)
        except ValueError as e: said.append(str(e))
    attempt(Settings(sizes=(784, 30, 10) if last else (784, 20, 10)))
    attempt(Settings(lr=.3 if last else .1, seed=1 if ranks.rank==1 else 42))
    attempt(src=other if last else SAMPLE)
    if last: runs.__version__ = '9.9.9'
    attempt()
    print(json.dumps(said))
''')
    for r, (sizes, two, data, version) in enumerate(map(json.loads, said)):
        assert sizes.startswith(f'rank {r} of 3') and 'sizes is (784, 30, 10) on rank 2 and (784, 20, 10) on rank 0' in sizes and sizes.count(' is ')==1
        assert 'seed is 1 on rank 1' in two and 'lr is 0.3 on rank 2' in two and 'data is 5000 rows' in data and 'minimlp is 9.9.9 on rank 2' in version


def test_refused_in_a_terminal(tmp_path):
    for out, err, code in ends(by_hand('--epochs', '1', '--out', str(tmp_path), others=('--lr', '0.5')), 60):
        assert code==2 and 'lr is 0.5 on rank 1 and 0.1 on rank 0' in err and 'Traceback' not in err, (code, err)
    assert not list(tmp_path.iterdir()), 'nothing was saved'


def test_folder_of_another_run(undisturbed):
    "What rank 0 finds in its folder is told everywhere"
    said = ends(by_hand('--epochs', '21', '--out', str(undisturbed[0])), 60)
    assert [s[2] for s in said]==[2, 2] and 'holds another run: epochs 20, not 21' in said[0][1] and "rank 0 can't begin" in said[1][1], said


def test_port_taken(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        [(_, err, code)] = ends(by_hand('--out', str(tmp_path), world=1, port=port), 60)
        assert code==2 and f'port 127.0.0.1:{port} is taken by another program' in err and '--master-port' in err and 'Traceback' not in err, err
        r = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--master-port', str(port), '--no-python', *TRAIN, '--out', str(tmp_path)],
                           capture_output=True, text=True, timeout=60, env=ENV)
        assert r.returncode and 'EADDRINUSE' in r.stderr and str(port) in r.stderr, r.stderr # torchrun's own words


def test_some_do_not_come():
    said = launch(1, '''
import os
os.environ['WORLD_SIZE'] = '2'
from minimlp.ranks import join
try:
    with join(timeout=2): pass
except ConnectionError as e: print(e)
''')
    assert said[0].startswith('rank 0 of 2 waited at 127.0.0.1:') and 'not all came' in said[0]
