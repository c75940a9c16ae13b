"Trainings as people run them: presets on the sample, stopped by Ctrl-C or by force and taken up again, on a full disk, in a terminal and in Jupyter"
import fcntl, json, os, pty, re, resource, signal, struct, subprocess, sys, termios, time
from dataclasses import replace

import nbformat, pytest, torch
from nbclient import NotebookClient
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from forks import Fork
from minimlp.cli.train import settings_of
from minimlp.data import SAMPLE, load_share, load_test
from minimlp.fast import FastModel
from minimlp.module import Model
from minimlp.runs.checkpoint import load_run
from minimlp.runs.run import run
from minimlp.runs.settings import PRESETS
from minimlp.runs.table import errors
from minimlp.softmax import CrossEntropy
from minimlp.speed.threads import Way
from minimlp.train import Adam, _own, batches, kaiming, train_step

RUN = [f'{sys.prefix}/bin/minimlp_train', '--data', 'sample']
LONG = ['--sizes', '784,80,10', '--epochs', '30', '--opt', 'adam', '--lr', '0.001', '--kernel', 'mm'] # one kernel: the same bits from run to run


def start(out, *args): return Fork([*RUN, *args, '--out', out])


def finish(p):
    out, err = p.communicate(timeout=300)
    return p.returncode, out, err


@pytest.mark.parametrize('preset', PRESETS)
def test_preset_on_the_sample(preset):
    s = replace(PRESETS[preset][0], epochs=3)
    model, history = run(s, load_share(SAMPLE, all_rows=s.all_rows), kind=FastModel)
    assert errors(model, load_test(SAMPLE))[0] < 20 and history[0]['loss'] > history[-1]['loss']


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp('undisturbed')
    code, said, err = finish(start(out, *LONG))
    assert (code, err)==(0, '') and 'of 1,000 wrong' in said
    return load_file(out/'weights.safetensors')


@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGKILL])
def test_stopped_and_taken_up_again(sig, undisturbed, tmp_path):
    "Ctrl-C, and the plug pulled, in the middle of an epoch: the last epoch is kept, and the same command ends at the very same weights"
    path = tmp_path/'weights.safetensors'
    p = start(tmp_path, *LONG)
    epochs = lambda: len(load_run(path)[2]['history']) if path.exists() else 0
    until = time.time()+120
    while epochs()<3 and time.time()<until: time.sleep(.02)
    p.send_signal(sig)
    code, _, err = finish(p)
    done = epochs()
    assert 3<=done<30, 'it was to be stopped in the middle'
    if sig==signal.SIGINT: assert code==130 and f'stopped after epoch {done} of 30' in err and str(path) in err and 'Traceback' not in err, err
    code, said, err = finish(start(tmp_path, *LONG))
    assert (code, err)==(0, '')
    again = load_file(path)
    assert set(again)==set(undisturbed) and all((again[k]==undisturbed[k]).all() for k in again)
    assert [h['epoch'] for h in json.loads((tmp_path/'history.json').read_text())]==list(range(1, 31))


def test_goes_on_with_the_ways_it_had_picked(tmp_path):
    "What a run has picked is stored with its weights, and taken up again, even where a new trial would pick otherwise"
    s, path = replace(PRESETS['quick'][0], epochs=1), tmp_path/'weights.safetensors'
    model, _ = run(s, load_share(SAMPLE), out=tmp_path, kind=FastModel)
    picked = {size: Way(*way) for size, way in load_run(path)[2]['picked'].items()}
    assert picked and picked==model.picked and {way.kernel for way in picked.values()} <= set(model.ways.kernels)
    other = {size: Way(next(n for n in model.ways.kernels if n!=way.kernel), os.cpu_count()) for size, way in picked.items()}
    with safe_open(path, 'pt') as f: tensors, meta = {k: f.get_tensor(k) for k in f.keys()}, f.metadata()
    save_file(tensors, path, meta | dict(picked=json.dumps(other | {'99': ('no-such-kernel', 1), '98': ('mm', 10**6)})))
    again, history = run(replace(s, epochs=1), load_share(SAMPLE), out=tmp_path, kind=FastModel)
    assert again.picked==other and len(history)==1
    save_file(tensors, path, meta | dict(picked=json.dumps({size: way.kernel for size, way in other.items()}))) # of an older file
    assert load_run(path, kind=FastModel)[0].picked=={size: Way(way.kernel) for size, way in other.items()}


def test_plain_and_fast_learn_the_same(tmp_path):
    "`--plain` trains the model of chapter 4; after an epoch its weights are those of `FastModel`, to rounding"
    for name, args in dict(plain=['--plain'], fast=[]).items():
        code, said, err = finish(start(tmp_path/name, '--epochs', '1', '--lr', '0.01', *args))
        assert (code, err)==(0, '') and ('picked by trial' in said)==(name=='fast')
    a, b = [load_file(tmp_path/name/'weights.safetensors') for name in ('plain', 'fast')]
    assert set(a)==set(b) and all((a[k]-b[k]).abs().max() < 1e-5*a[k].abs().max() for k in a)
    code, _, err = finish(start(tmp_path/'new', '--plain', '--kernel', 'mm'))
    assert code==2 and '--plain asks for Model' in err


def test_zero_is_an_answer(tmp_path):
    "`--momentum 0 --seed 0 --wd 0` are what was asked for, not what wasn't given; `--bs 0` and `--epochs 0` are refused"
    code, said, err = finish(start(tmp_path, *'--preset quick --epochs 1 --momentum 0 --seed 0 --wd 0'.split()))
    s = load_run(tmp_path/'weights.safetensors')[2]['settings']
    assert (code, err, s.momentum, s.seed, s.wd)==(0, '', 0, 0, 0) and 'SGD with momentum 0, ' in said and 'weight decay' not in said
    for name in ('bs', 'epochs'):
        with pytest.raises(ValueError, match=f'{name} 0: expected 1 or more'): settings_of('quick', {name: 0})
    assert settings_of('quick', dict(lr=None, all_rows=False))==PRESETS['quick'][0]


def test_weights_are_plain_safetensors(tmp_path):
    code, *_ = finish(start(tmp_path, '--sizes', '784,20,10', '--epochs', '1', '--wd', '0.01'))
    with safe_open(tmp_path/'weights.safetensors', 'pt') as f:
        assert code==0 and f.get_tensor('w1').shape==(784, 20) and f.get_tensor('b2').shape==(10,)
        assert json.loads(f.metadata()['settings'])['wd']==.01


def test_full_disk_is_told_before_training(tmp_path):
    "Writing fails for real, beyond 10 kB, and no epoch has been trained"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    t0 = time.time()
    cmd = [*RUN, '--epochs', '100000', '--out', str(tmp_path/'new')]
    code, said, err = finish(subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit))
    assert code==2 and "can't be written (File too large)" in err and 'Traceback' not in err and 'epoch ' not in said, err
    assert time.time()-t0<60


def test_bar_in_a_terminal(tmp_path):
    "One line that moves, in a terminal of 60 columns; none in a pipe, which the other tests see by their empty stderr"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 60, 0, 0))
    env = {k: v for k, v in os.environ.items() if k!='CI'} | dict(TERM='xterm')
    p = subprocess.Popen([*RUN, '--epochs', '3', '--out', str(tmp_path)], stdout=subprocess.PIPE, stderr=theirs, env=env)
    os.close(theirs)
    seen = b''
    while True:
        try: part = os.read(ours, 4096)
        except OSError: break # the other end is closed
        if not part: break
        seen += part
    assert p.wait(60)==0
    text = seen.decode()
    assert re.search(r'\d+%\|.*accuracy', text) and '\n' not in text.strip() and text.count('\r')>3, text


def test_bar_in_jupyter(tmp_path, monkeypatch):
    monkeypatch.delenv('CI')
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        "from minimlp.data import SAMPLE, load_share\nfrom minimlp.runs.run import run\nfrom minimlp.runs.settings import Settings\nrun(Settings(epochs=2), load_share(SAMPLE));")])
    NotebookClient(nb, timeout=120, resources={'metadata': {'path': str(tmp_path)}}).execute()
    kinds = [k for o in nb.cells[0].outputs for k in o.get('data', {})]
    assert 'application/vnd.jupyter.widget-view+json' in kinds, nb.cells[0].outputs


class Devices(TorchDispatchMode):
    "Notes each operation whose tensors lie on more than one device"
    def __init__(self):
        super().__init__()
        self.mixed = []

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        on = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.ndim}
        if len(on)>1 and f.name()!='aten::copy_': self.mixed.append(f.name())
        return f(*args, **(kwargs or {}))


@pytest.mark.parametrize('kind', [FastModel, Model])
def test_steps_stay_on_the_device(kind, monkeypatch):
    "PyTorch's 'meta' device, whose tensors have no numbers, stands in for a GPU: nothing but row numbers comes from the CPU"
    monkeypatch.setattr(torch.Tensor, 'item', lambda self: 1.)
    ps = [torch.empty_like(p, device='meta') for p in kaiming(20, 15, 10)]
    x, y = torch.empty(5000, 20, device='meta'), torch.empty(5000, dtype=torch.int64, device='meta')
    with Devices() as d:
        net, opt = kind(*ps, loss=CrossEntropy(.1)), Adam(ps, wd=.1)
        step = _own(net, train_step)
        for rows in batches(5000, 3000, torch.Generator()): step(opt, x, y, rows)
        assert d.mixed==[] and {p.g.device.type for p in ps}=={'meta'}
        x.index_select(0, rows) # of the CPU
        assert d.mixed==['aten::index_select']
