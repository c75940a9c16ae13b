"Layers that treat each number by itself, against PyTorch's in float64; what they refuse; their bugs"
import pytest, torch
from torch import nn

from minimlp.backward import rel_err
from minimlp.bugs import BUGS, Sigmoid
from minimlp.gradcheck import check_backward
from minimlp.module import Relu
from minimlp.zoo.entry import Dropout, LeakyReLU, SiLU, Tanh
from minimlp.zoo.gelu import GELU

PAIRS = dict(
    Sigmoid=(Sigmoid, nn.Sigmoid), Tanh=(Tanh, nn.Tanh), SiLU=(SiLU, nn.SiLU),
    LeakyReLU=(LeakyReLU, nn.LeakyReLU), LeakyReLU_steep=(lambda: LeakyReLU(2.), lambda: nn.LeakyReLU(2.)),
    LeakyReLU_flat=(lambda: LeakyReLU(0.), lambda: nn.LeakyReLU(0.)), LeakyReLU_back=(lambda: LeakyReLU(-1.), lambda: nn.LeakyReLU(-1.)),
    GELU=(GELU, nn.GELU), GELU_tanh=(lambda: GELU('tanh'), lambda: nn.GELU('tanh')))
LAYERS = (Sigmoid, Tanh, LeakyReLU, SiLU, GELU, Dropout)
NEW = [name for name, bug in BUGS.items() if bug.family=='entry by entry']
SHAPES = [(5, 4), (1, 3), (7,), (2, 3, 4), (1, 1)]


def numbers(*shape, seed=0): return 3*torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def example(cls, n=5, seed=0): return cls.example(n, torch.Generator().manual_seed(seed))


def strided(t):
    "The same numbers, not side by side in memory"
    return torch.stack([t, t], -1)[..., 0]


def passes(layer, inp, up):
    "What goes on and what comes back"
    inp.g = torch.full_like(inp, float('nan'))
    out = layer(inp)
    out.g = up
    layer.backward()
    return out, inp.g


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('name', PAIRS)
def test_like_pytorch(name, shape):
    for seed in range(3):
        for lay in (torch.clone, strided):
            ours, theirs = (make() for make in PAIRS[name])
            inp, up = lay(numbers(*shape, seed=seed)), lay(numbers(*shape, seed=seed+10))
            watched = inp.clone().requires_grad_()
            want = theirs(watched)
            want.backward(up)
            out, g = passes(ours, inp, up)
            assert rel_err(out, want.detach())<1e-13 and rel_err(g, watched.grad)<1e-13


def test_comparison_can_fail():
    "GELU's two formulas aren't taken for each other"
    out, _ = passes(GELU('tanh'), numbers(5, 4), numbers(5, 4))
    assert rel_err(out, nn.GELU()(numbers(5, 4)))>1e-6


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('p', [0, .3, .5, .9])
def test_dropout(p, shape):
    "PyTorch goes back through the same mask; outside training the layer does nothing, and its output is no alias"
    layer, inp, up = Dropout(p, seed=3), strided(numbers(*shape)), strided(numbers(*shape, seed=1))
    out, g = passes(layer, inp, up)
    assert torch.equal(layer.mask, Dropout(p, seed=3).draw(inp)) and layer.mask.dtype==torch.bool
    assert rel_err(g, torch.ops.aten.native_dropout_backward(up, layer.mask, 1/(1-p)))<1e-14
    torch.testing.assert_close(out, torch.where(layer.mask, inp/(1-p), 0.), rtol=1e-14, atol=0)
    layer.training = False
    out, g = passes(layer, inp, up)
    assert torch.equal(out, inp) and torch.equal(g, up) and out is not inp and g is not up
    assert Dropout.training # of all other layers


def test_dropout_drops_its_share():
    for p in (.1, .5, .8):
        out = Dropout(p)(torch.ones(400, 500))
        assert abs((out==0).float().mean()-p)<.005 and abs(out.mean()-1)<.02


def test_dropout_draws_anew_and_goes_on():
    "Each call has a mask of its own; a generator's state gives the next one"
    layer, x = Dropout(.5, seed=1), torch.ones(4, 5)
    first, state = layer(x), layer.gen.get_state()
    again = Dropout(.5, seed=2)
    again.gen.set_state(state)
    second = layer(x)
    assert not torch.equal(first, second) and torch.equal(again(x), second)


@pytest.mark.parametrize('cls', LAYERS)
def test_kept_types(cls):
    "float32 stays float32, an empty batch stays empty"
    layer = cls()
    for shape in ((3, 4), (0, 4)):
        out, g = passes(layer, torch.randn(shape), torch.randn(shape))
        assert out.dtype==g.dtype==torch.float32 and out.shape==g.shape==shape


@pytest.mark.parametrize('cls', LAYERS)
def test_right_layer_is_not_accused(cls):
    for n, seed in ((5, 0), (1, 1), (2, 2)): check_backward(*example(cls, n, seed), seed=seed).raise_if_wrong()


@pytest.mark.parametrize('name', NEW)
def test_bug_is_caught(name):
    for n, seed in ((5, 0), (8, 1)): assert not check_backward(*example(BUGS[name].cls, n, seed), seed=seed).ok


def test_at_least_six_new_bugs_with_words():
    assert len(NEW)>=6 and 'at_output' not in NEW
    for name in NEW: assert all((BUGS[name].do, BUGS[name].why, BUGS[name].symptom, BUGS[name].tell))


@pytest.mark.parametrize('make, words', [
    (lambda: GELU('exact'), "got 'exact'"), (lambda: Dropout(1), 'below 1; got 1'),
    (lambda: Dropout(-.1), 'got -0.1'), (lambda: Dropout(float('nan')), 'got nan')])
def test_refused(make, words):
    with pytest.raises(ValueError, match=words): make()


@pytest.mark.parametrize('cls', LAYERS[1:])
@pytest.mark.parametrize('shape', [(4, 1), (3,), (1, 3)])
def test_upstream_of_another_shape_is_refused(cls, shape):
    "It would broadcast without a word"
    layer, inp = cls(), numbers(4, 3)
    with pytest.raises(ValueError, match='a gradient has the shape of its tensor'): passes(layer, inp, numbers(*shape))


def test_relu_is_the_leaky_one_without_a_leak():
    inp, up = numbers(5, 4), numbers(5, 4, seed=1)
    for a, b in zip(passes(Relu(), inp.clone(), up), passes(LeakyReLU(0.), inp.clone(), up)): assert torch.equal(a, b)
