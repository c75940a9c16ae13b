"Networks of any layers, trained as people train them: they go on to the same bits and are asked; distortions and max-norm keep their promises (that each preset learns is seen in test_train.py)"
import json
from dataclasses import replace
from functools import partial

import pytest, torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from minimlp.cli.predict import minimlp_export, minimlp_predict
from minimlp.cli.train import minimlp_train
from minimlp.data import SAMPLE, load_share, load_test
from minimlp.fast import FastModel
from minimlp.module import Lin, Model, Relu
from minimlp.ranks import Ranks
from minimlp.runs import run as runs
from minimlp.runs.checkpoint import load_run, named_params
from minimlp.runs.run import run
from minimlp.runs.settings import PRESETS, Settings, build
from minimlp.softmax import CrossEntropy
from minimlp.train import SGD, fit, kaiming
from minimlp.zoo.distort import Constrained, distort, shorten
from minimlp.zoo.network import Network, walk

ZOO = [name for name in ('dropout', 'lenet', 'elastic', 'conv-elastic', 'best-mlp', 'rows') if name in PRESETS]


def seeded(seed=0): return torch.Generator().manual_seed(seed)


@pytest.fixture(scope='module')
def share():
    "Seven hundred digits to train on, in batches that don't divide evenly"
    whole = load_share(SAMPLE)
    return replace(whole, train=tuple(t[:700] for t in whole.train), valid=tuple(t[:200] for t in whole.valid), n=700)


def quick(preset, **kw):
    "A preset, shrunk where its sizes are free"
    s = PRESETS[preset][0]
    if len(s.sizes)>2 and s.sizes!=Settings.sizes: kw = dict(sizes=(784, *[30]*(len(s.sizes)-2), 10)) | kw
    return replace(s, all_rows=False, bs=64, **kw)


class Stop(Exception): "As if somebody had pulled the plug"


@pytest.mark.parametrize('preset', ZOO)
def test_stopped_and_gone_on_with_is_the_same_to_the_bit(preset, share, tmp_path, monkeypatch):
    s = quick(preset, epochs=3)
    whole, history = run(s, share, out=tmp_path/'whole')
    keep = runs.save_run
    def pull_the_plug(path, s, model, opt, history, data):
        keep(path, s, model, opt, history, data)
        if len(history)==1: raise Stop
    monkeypatch.setattr(runs, 'save_run', pull_the_plug)
    with pytest.raises(Stop): run(s, share, out=tmp_path/'parts')
    monkeypatch.setattr(runs, 'save_run', keep)
    parts, rest = run(s, share, out=tmp_path/'parts')
    assert [h['loss'] for h in rest]==[h['loss'] for h in history] and len(rest)==3
    for name, p in named_params(whole).items(): assert torch.equal(p, named_params(parts)[name]), name
    read, _, meta = load_run(tmp_path/'parts'/'weights.safetensors')
    assert meta['settings']==s and torch.equal(read.predict(share.valid[0]), whole.predict(share.valid[0]))
    assert not torch.equal(named_params(build(s)[0])['w1'], named_params(whole)['w1']), 'it has to have learnt something'


def test_from_the_command_line(tmp_path, capsys):
    "Train, ask, refuse what can't be"
    out = tmp_path/'lenet'
    minimlp_train(preset='lenet', epochs=1, data='sample', out=out)
    said = capsys.readouterr().out
    assert said.startswith('LeNet-5 with ReLU and max pooling, ') and 'of 1,000 wrong' in said and (out/'first_layer.png').exists()
    x, y = load_test(SAMPLE)
    Image.fromarray((256*x[0]).reshape(28, 28).to(torch.uint8).numpy()).save(tmp_path/'digit.png')
    minimlp_predict(out/'weights.safetensors', tmp_path/'digit.png', tmp_path/'seen.png')
    assert f'is a {y[0]}' in capsys.readouterr().out
    for f, kw, words in [(minimlp_train, dict(net='lenet', kernel='mm', data='sample'), 'a choice for FastModel, which has linear layers only; lenet'),
                         (minimlp_train, dict(net='lenet', sizes='784,20,10', data='sample'), 'sizes (784, 20, 10) belongs to the net mlp or dropout or noisy, not lenet'),
                         (minimlp_train, dict(net='alexnet', data='sample'), "net 'alexnet': expected mlp"),
                         (minimlp_export, dict(weights=out/'weights.safetensors', out=tmp_path/'w.js'), 'this one is lenet')]:
        with pytest.raises(SystemExit) as stop: f(**kw)
        assert stop.value.code==2 and words in capsys.readouterr().err, words


def test_many_ranks_are_refused(share):
    for kw in (dict(net='lenet'), dict(distort=34.), dict(max_norm=1.)):
        with pytest.raises(ValueError, match='2 ranks train linear layers'): run(Settings(**kw), share, Ranks(0, 2))


def test_settings_of_older_files(share, tmp_path):
    "Files that were written before there were other architectures are read, and their runs gone on with"
    s, path = Settings(sizes=(784, 9, 10), epochs=2), tmp_path/'weights.safetensors'
    whole, _ = run(s, share, out=tmp_path)
    run(replace(s, epochs=1, seed=1), share, out=tmp_path/'b')
    with safe_open(path, 'pt') as f: tensors, meta = {k: f.get_tensor(k) for k in f.keys()}, f.metadata()
    later = {'net', 'dropout', 'distort', 'max_norm', 'noise'}
    old = {k: v for k, v in json.loads(meta['settings']).items() if k not in later}
    assert set(tensors)=={f'{n}{i}{m}' for n in 'wb' for i in (1, 2) for m in ('', '.0')} and len(old)==14
    save_file(tensors, path, meta | dict(settings=json.dumps(old)))
    model, _, told = load_run(path)
    assert told['settings']==s and torch.equal(model.predict(share.valid[0]), whole.predict(share.valid[0]))
    assert len(run(s, share, out=tmp_path)[1])==2
    with pytest.raises(ValueError, match='net mlp, not lenet'): run(Settings(net='lenet', epochs=2), share, out=tmp_path)


def test_network_is_the_model_to_the_bit(share):
    "The same layers in a `Network` and in a `Model`, with momentum and batches of odd sizes"
    ours, theirs = kaiming(784, 15, 10), kaiming(784, 15, 10)
    net, model = Network(Lin(*ours[:2]), Relu(), Lin(*ours[2:])), Model(*theirs, loss=CrossEntropy())
    for m, ps in ((net, ours), (model, theirs)): fit(m, SGD(ps, .1, .9), share.train, share.valid, epochs=2, bs=97)
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs)) and (ours[0]-kaiming(784, 15, 10)[0]).abs().max() > .01 and torch.equal(net.predict(share.valid[0]), model.predict(share.valid[0]))


@pytest.mark.parametrize('n', [1, 13, 300])
def test_distortion(n):
    "Deterministic, keeps ink and range, is nothing without a field, and doesn't mix rows"
    x = load_test(SAMPLE)[0][:n]
    bent = distort(x, seeded(1))
    assert torch.equal(bent, distort(x, seeded(1))) and not torch.equal(bent, distort(x, seeded(2)))
    assert bent.shape==x.shape and 0<=bent.min() and bent.max()<=x.max()+1e-6
    assert n<100 or .95 < bent.sum()/x.sum() < 1.05
    torch.testing.assert_close(distort(x, seeded(1), reach=0., turn=0., scale=0.), x)
    other = x.clone()
    other[0] = 0
    assert torch.equal(distort(other, seeded(1))[1:], bent[1:]) and (distort(other, seeded(1))[0]==0).all()
    assert torch.equal(distort(x.t().contiguous().t(), seeded(1)), bent)


@pytest.mark.parametrize('kind', [Model, partial(FastModel, kernel='mm')])
@pytest.mark.parametrize('longest', [.5, 1.2])
def test_max_norm_holds(kind, longest, share):
    params = kaiming(784, 20, 20, 10)
    model = Constrained(kind(*params, loss=CrossEntropy()), longest=longest)
    seen = []
    fit(model, SGD(params, .1, .9), share.train, epochs=2, each=lambda h: seen.append(max(w.norm(dim=0).max().item() for w in params[::2])))
    assert max(seen) <= longest*(1+1e-5) and params[1].abs().sum()>0
    w = torch.randn(9, 5)
    short = w.norm(dim=0) < 3
    kept = w.clone()
    shorten(kept, 3.)
    assert torch.equal(kept[:, short], w[:, short]) and (kept.norm(dim=0) <= 3*(1+1e-6)).all()


def test_training_flags_are_back_after_an_epoch(share):
    "On while `fit` trains, off while it looks at the validation rows and afterwards"
    s = Settings(net='dropout', sizes=(784, 20, 10), dropout=.5)
    model, opt = build(s)
    flags = [l for l in walk(model.layers) if hasattr(l, 'training')]
    seen = []
    inner = flags[0].forward
    flags[0].forward = lambda inp: seen.append((flags[0].training, len(inp))) or inner(inp)
    fit(model, opt, share.train, share.valid, epochs=2, bs=350)
    assert seen==2*[(True, 350), (True, 350), (False, 200)] and not any(l.training for l in flags)
