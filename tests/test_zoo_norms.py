"""Softmax, log-softmax and the norms are PyTorch's in float64, refuse what they can't do, and their bugs are caught"""
import pytest, torch
import torch.nn.functional as F

import minimlp.zoo.batchnorm, minimlp.zoo.norms, minimlp.zoo.softmax  # the bugs join the catalogue on import
from minimlp.backward import rel_err
from minimlp.bugs import BUGS
from minimlp.gradcheck import check_backward
from minimlp.zoo.batchnorm import BatchNorm1d, BatchNorm2d
from minimlp.zoo.norms import LayerNorm, RMSNorm
from minimlp.zoo.softmax import LogSoftmax, Softmax

ROWS = [(5, 4), (1, 7), (4, 1), (2, 3, 6), (2, 1, 3, 5), (4,)]
SHAPES = {Softmax: ROWS, LogSoftmax: ROWS, RMSNorm: ROWS, LayerNorm: ROWS,
          BatchNorm1d: [(5, 4), (2, 1), (3, 4, 6), (1, 2, 7)], BatchNorm2d: [(5, 3, 2, 4), (1, 1, 3, 3), (2, 4, 1, 1)]}
PARAMS = {Softmax: 0, LogSoftmax: 0, RMSNorm: 1}  # all others have w and b
EPS = [{}, dict(eps=1e-2)]
SETTINGS = {Softmax: [{}], LogSoftmax: [{}], RMSNorm: EPS, LayerNorm: EPS,
            BatchNorm1d: [*EPS, dict(momentum=.3)], BatchNorm2d: [*EPS, dict(momentum=.3)]}
MINE = [name for name, b in BUGS.items() if b.cls.__module__.startswith('minimlp.zoo.') and issubclass(b.cls, tuple(SHAPES))]


def randn(seed, *shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def strided(t): return torch.stack([t, -t], -1)[...,0]


def theirs(layer, inp, params, stats):
    "What PyTorch's layer of this kind makes; running statistics are changed in place"
    if isinstance(layer, Softmax): return F.softmax(inp, -1)
    if isinstance(layer, LogSoftmax): return F.log_softmax(inp, -1)
    if isinstance(layer, RMSNorm): return F.rms_norm(inp, inp.shape[-1:], *params, layer.eps)
    if isinstance(layer, LayerNorm): return F.layer_norm(inp, inp.shape[-1:], *params, layer.eps)
    return F.batch_norm(inp, *stats, *params, layer.training, layer.momentum, layer.eps)


def ours_and_theirs(cls, inp, up, training=True, **settings):
    "Pairs of tensors that should be equal: outputs, gradients, running statistics"
    norm_2d = issubclass(cls, BatchNorm1d)
    params = [randn(7+i, inp.shape[1 if norm_2d else -1]) for i in range(PARAMS.get(cls, 2))]
    layer, stats = cls(*params, **settings), []
    layer.training = training
    if norm_2d:
        layer.mean, layer.var = randn(11, len(params[0])), randn(12, len(params[0])).exp()
        stats = [layer.mean.clone(), layer.var.clone()]
    watched = [t.detach().clone().requires_grad_() for t in (inp, *params)]
    want = theirs(layer, watched[0], watched[1:], stats)
    out = layer(inp)
    out.g = up
    layer.backward()
    grads = [t.g for t in (inp, *params)]
    return [*zip(grads, torch.autograd.grad(want, watched, up)), (out, want.detach()), *zip([layer.mean, layer.var] if stats else [], stats)]


CASES = [(cls, shape, settings) for cls in SHAPES for shape in SHAPES[cls] for settings in SETTINGS[cls]]


@pytest.mark.parametrize('cls,shape,settings', CASES, ids=lambda v: getattr(v, '__name__', str(v)))
def test_is_pytorchs(cls, shape, settings):
    for seed in (0, 1):
        inp, up = randn(seed, *shape), randn(seed+100, *shape)
        for x, u in ((inp, up), (100*inp, up), (inp+30, up), (strided(inp), strided(up)), (inp, up[:1].expand_as(up))):
            for training in (True, False)[:1+issubclass(cls, BatchNorm1d)]:
                for got, want in ours_and_theirs(cls, x.detach(), u, training, **settings):
                    # a gradient that is zero, such as that of a row of one, is so up to rounding
                    assert got.shape==want.shape and (rel_err(got, want)<1e-8 or (got-want).abs().max()<1e-9), (x.shape, training)


def test_comparison_can_fail():
    class Off(LayerNorm):
        def normed_grad(self, g): return 1.0001*super().normed_grad(g)
    inp, up = randn(0, 5, 4), randn(1, 5, 4)
    got, want = ours_and_theirs(Off, inp, up)[0]
    assert rel_err(got, want)>5e-5


@pytest.mark.parametrize('cls', SHAPES, ids=lambda c: c.__name__)
def test_the_checker_says_so(cls):
    assert check_backward(*cls.example(5, torch.Generator().manual_seed(3))).ok
    inputs = cls.example(4, torch.Generator().manual_seed(3))[1:]
    assert all(t.dtype==torch.float64 and len(t)==4 for t in inputs)


def test_in_use():
    "Rows don't see each other, statistics stay, and no gradient goes to them"
    layer, inp = BatchNorm1d.example(6, torch.Generator().manual_seed(0))
    for _ in range(3): layer(inp)
    mean, var, layer.training = layer.mean.clone(), layer.var.clone(), False
    assert mean.abs().min()>0 and check_backward(layer, inp, nograd=('mean', 'var')).ok
    whole, alone = layer(inp)[:1], layer(inp[:1])
    assert torch.equal(whole, alone) and torch.equal(layer.mean, mean) and torch.equal(layer.var, var)
    alone.g = torch.ones_like(alone)
    layer.backward()
    assert not any(hasattr(getattr(layer, k), 'g') for k in layer.state) and all(hasattr(getattr(layer, k), 'g') for k in layer.names)


W = torch.ones(3)
REFUSED = [(layer, shape, words) for layer in (Softmax(), LogSoftmax(), RMSNorm(W), LayerNorm(W, W)) for shape, words in
           (((0, 3), 'An empty batch'), ((), 'one row or more'))]
REFUSED += [(RMSNorm(W), (2, 4), 'need the shape (4,); got (3,)'), (LayerNorm(W, W[:2]), (5, 3), 'got (2,)'), (LayerNorm(W[None], W), (5, 3), 'got (1, 3)'),
            (BatchNorm1d(W, W), (5, 4), 'expected (n, c) or (n, c, l)'), (BatchNorm1d(W, W), (5, 3, 2, 2), 'got (5, 3, 2, 2)'),
            (BatchNorm2d(W, W), (5, 3), 'expected (n, c, h, w)'), (BatchNorm2d(W, W[:1]), (5, 3, 2, 2), '(1,)'),
            (BatchNorm1d(W, W), (1, 3), 'set training = False'), (BatchNorm2d(W, W), (0, 3, 2, 2), '0 is too few')]


@pytest.mark.parametrize('layer,shape,words', REFUSED, ids=lambda v: type(v).__name__ if hasattr(v, 'forward') else str(v))
def test_refusals(layer, shape, words):
    with pytest.raises(ValueError) as said: layer(torch.ones(shape))
    assert words in str(said.value)


def test_numbers_that_break_formulas():
    "Huge scores, a row of zeros, a mean far from zero in float32"
    for cls in (Softmax, LogSoftmax):
        layer, inp = cls(), torch.tensor([[1e4, -1e4, 0.], [1e4, 1e4, 1e4]])
        layer(inp).g = torch.tensor([[1., 2., 3.], [1., 2., 3.]])
        layer.backward()
        assert layer.out.isfinite().all() and inp.g.isfinite().all()
    for layer in (RMSNorm(W), LayerNorm(W, W), BatchNorm1d(W, W)):
        inp = torch.zeros(4, 3)
        layer(inp).g = torch.ones(4, 3)
        layer.backward()
        assert layer.out.isfinite().all() and inp.g.isfinite().all()
    far = randn(0, 400, 3).float()+10_000
    for layer in (LayerNorm(torch.ones(400), torch.zeros(400)), BatchNorm1d(W, 0*W)):
        x = far.t().clone() if isinstance(layer, LayerNorm) else far
        exact = type(layer)(layer.w.double(), layer.b.double())(x.double())
        assert (layer(x)-exact).abs().max()<5e-3


@pytest.mark.parametrize('name', MINE)
def test_every_bug_is_caught(name):
    "By the example that it inherits; the right layer passes with the same one"
    cls = BUGS[name].cls
    options = {} if getattr(cls, 'training', True) else dict(nograd=('mean', 'var'))
    report = check_backward(*cls.example(5, torch.Generator().manual_seed(0)), **options)
    right = check_backward(*cls.__mro__[1].example(5, torch.Generator().manual_seed(0)))
    assert not report.ok and right.ok
    b = BUGS[name]
    assert b.family=='normalisation' and all((b.do, b.why, b.symptom, b.tell))


def test_there_are_as_many_as_told():
    assert len(MINE)==21 and len({BUGS[n].tell for n in MINE})==21
