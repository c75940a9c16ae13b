"""The layers of the zoo that look at pictures, or at tables, against torch.nn in float64: shared use (embedding, convolution) and routing
(pooling, shapes, residual connections); their refusals in words; their bugs, each of which the checker catches."""
import itertools, time

import pytest, torch, torch.nn as nn, torch.nn.functional as F

from minimlp.bugs import BUGS
from minimlp.gradcheck import check_backward
from minimlp.module import Lin, Relu
from minimlp.zoo.routing import AvgPool2d, Flatten, MaxPool2d, Residual, Unflatten
from minimlp.zoo.shared import Conv2d, Embedding
from minimlp.zoo.windows import patches, patches_grad

LAYERS = [Embedding, Conv2d, MaxPool2d, AvgPool2d, Flatten, Unflatten, Residual]
NAMES = [name for name, b in BUGS.items() if b.family in ('shared', 'routing')]
HOW = ['as it is', 'transposed', 'expanded']  # how a tensor lies in memory


def rand(seed, *shape, how='as it is'):
    "Random numbers in float64, in this shape, and with other strides if wanted"
    t = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if how=='transposed': return t.transpose(0, -1).contiguous().transpose(0, -1)
    return t[:1].expand(shape) if how=='expanded' else t


def same(layer, theirs, inp, params=(), seed=7, how='as it is'):
    "The layer's output and gradients are those of autograd through `theirs(inp, *params)`, on fresh tensors whose `.g` is NaN"
    watched = [t.clone().requires_grad_() if t.is_floating_point() else t for t in (inp, *params)]
    floats = [t for t in watched if t.requires_grad]
    for t in (inp, *params):
        if t.is_floating_point(): t.g = torch.full_like(t, torch.nan)
    out, want = layer(inp), theirs(*watched)
    out.g = rand(seed, *out.shape, how=how)
    before = out.g.clone()
    grads = torch.autograd.grad(want, floats, before)
    layer.backward()
    torch.testing.assert_close(out, want.detach(), rtol=1e-12, atol=1e-12)
    ours = [t.g for t in (inp, *params) if t.is_floating_point()]
    for ours_g, theirs_g in zip(ours, grads, strict=True):
        torch.testing.assert_close(ours_g, theirs_g, rtol=1e-11, atol=1e-11)
    assert torch.equal(out.g, before), 'the upstream gradient was changed'


def differs(*args, **kwargs):
    "The comparison fails"
    with pytest.raises(AssertionError): same(*args, **kwargs)
    return True


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('shape', [(1,), (9,), (4, 6), (2, 3, 4)])
def test_embedding(shape, how):
    for seed, rows in itertools.product(range(3), (1, 5, 40)):
        inp = torch.randint(rows, shape, generator=torch.Generator().manual_seed(seed))
        w = rand(seed, rows, 3)
        same(Embedding(w), lambda i, w: F.embedding(i, w), inp, (w,), how=how)


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('k, stride, padding', [(1, 1, 0), (3, 1, 1), (3, 2, 1), (2, 3, 0), (5, 1, 4), (4, 2, 1)])
def test_conv(k, stride, padding, how):
    for seed, n, (n_in, n_out), (h, w) in itertools.product(range(2), (1, 3), ((1, 1), (2, 3)), ((6, 6), (8, 5))):
        ps = rand(seed, n_out, n_in, k, k), rand(seed+1, n_out)
        layer = Conv2d(*ps, stride=stride, padding=padding)
        same(layer, lambda i, w, b: F.conv2d(i, w, b, stride, padding), rand(seed+2, n, n_in, h, w, how=how), ps, how=how)
    ps = rand(0, 2, 2, k, k), rand(1, 2)
    assert differs(Conv2d(*ps, stride=stride, padding=padding), lambda i, w, b: F.conv2d(i, 1.001*w, b, stride, padding), rand(2, 3, 2, 6, 6), ps)


def test_same_padding():
    for k in (1, 3, 5):
        ps = rand(0, 3, 2, k, k), rand(1, 3)
        same(Conv2d(*ps, padding='same'), nn_conv(padding='same'), rand(2, 4, 2, 7, 6), ps)


def nn_conv(**settings):
    "PyTorch's convolution with these settings"
    return lambda i, w, b: F.conv2d(i, w, b, **settings)


@pytest.mark.parametrize('window', [(1, 1, 0), (2, 2, 0), (3, 1, 2), (3, 2, 1), (2, 4, 0)])
def test_patches(window):
    k, stride, padding = window
    inp = rand(0, 3, 2, 7, 8)
    ours = patches(inp, *window)
    assert torch.equal(ours.flatten(2).transpose(0, 1), F.unfold(inp, k, padding=padding, stride=stride))
    g = rand(1, *ours.shape)
    torch.testing.assert_close(patches_grad(g, inp, *window), F.fold(g.flatten(2).transpose(0, 1), (7, 8), k, padding=padding, stride=stride))


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('k, stride', [(1, None), (2, None), (3, None), (3, 1), (3, 2), (2, 3), (5, 4)])
@pytest.mark.parametrize('cls, theirs', [(MaxPool2d, F.max_pool2d), (AvgPool2d, F.avg_pool2d)])
def test_pool(cls, theirs, k, stride, how):
    for seed, n, size in itertools.product(range(3), (1, 4), ((5, 5), (7, 6))):
        inp = rand(seed, n, 2, *size, how=how)
        for pixels in (inp, inp.round(), torch.zeros_like(inp)): # without ties, with some, nothing but ties
            same(cls(k, stride), lambda i: theirs(i, k, stride), pixels, how=how)


def test_pool_can_fail():
    inp = rand(0, 2, 1, 6, 6).round()
    last = lambda i: F.max_pool2d(i.flip(2, 3), 2).flip(2, 3) # gives ties to the last
    assert differs(MaxPool2d(2), last, inp) and differs(AvgPool2d(2), lambda i: F.max_pool2d(i, 2), inp)


def test_modules_of_torch():
    "The settings mean what they mean in torch.nn"
    inp = rand(0, 2, 3, 9, 9)
    for ours, theirs in [(MaxPool2d(3, 2), nn.MaxPool2d(3, 2)), (AvgPool2d(2), nn.AvgPool2d(2)), (Flatten(), nn.Flatten())]:
        same(ours, theirs, inp.clone())
    same(Unflatten(1, (3, 3, 2)), nn.Unflatten(1, (3, 3, 2)), rand(1, 4, 18))
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, dtype=torch.float64)
    ps = conv.weight.detach().clone(), conv.bias.detach().clone()
    same(Conv2d(*ps, stride=2, padding=1), lambda i, w, b: torch.func.functional_call(conv, dict(weight=w, bias=b), i), inp.clone(), ps)
    table = nn.Embedding(6, 3, dtype=torch.float64)
    w = table.weight.detach().clone()
    same(Embedding(w), lambda i, w: torch.func.functional_call(table, dict(weight=w), i), torch.tensor([[0, 5, 0], [5, 5, 1]]), (w,))


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('n', [1, 5])
def test_residual(n, how):
    w, b, v, c = ps = rand(0, 4, 4), rand(1, 4), rand(2, 4, 4), rand(3, 4)
    inner = Residual(Lin(w, b), Relu(), Residual(Lin(v, c)))
    def theirs(x, w, b, v, c):
        h = F.relu(x@w + b)
        return x + h + (h@v + c)
    same(inner, theirs, rand(4, n, 4, how=how), ps, how=how)
    ks = rand(5, 2, 2, 3, 3), rand(6, 2)
    conv = Residual(Conv2d(*ks, padding='same'), Relu())
    same(conv, lambda x, w, b: x + F.relu(F.conv2d(x, w, b, padding=1)), rand(7, n, 2, 5, 5), ks)
    assert differs(inner, lambda *ts: theirs(*ts)-.001*ts[0], rand(4, n, 4), ps)
    assert [type(l) for l in inner.layers]==[Lin, Relu, Residual]


def test_lenet():
    "A network of them, in float32, too: images in, logits out"
    w1, b1, w2, b2, w3, b3 = ps = [.3*rand(i, *s) for i, s in enumerate([(4, 1, 5, 5), (4,), (6, 4, 5, 5), (6,), (96, 10), (10,)])]
    layers = [Unflatten(1, (1, 28, 28)), Conv2d(w1, b1), Relu(), MaxPool2d(2), Conv2d(w2, b2), Relu(), MaxPool2d(2), Flatten(), Lin(w3, b3)]
    x = rand(9, 3, 784)
    def theirs(x, w1, b1, w2, b2, w3, b3):
        h = F.max_pool2d(F.relu(F.conv2d(x.reshape(-1, 1, 28, 28), w1, b1)), 2)
        return F.max_pool2d(F.relu(F.conv2d(h, w2, b2)), 2).flatten(1)@w3 + b3
    watched = [t.clone().requires_grad_() for t in (x, *ps)]
    want = theirs(*watched)
    up = rand(10, *want.shape)
    grads = torch.autograd.grad(want, watched, up)
    h = x
    for l in layers: h = l(h)
    h.g = up
    for l in reversed(layers): l.backward()
    torch.testing.assert_close(h, want.detach())
    for t, g in zip((x, *ps), grads): torch.testing.assert_close(t.g, g)
    for l in layers:
        for name in ('w', 'b'):
            if hasattr(l, name): setattr(l, name, getattr(l, name).float())
    h = x.float()
    for l in layers: h = l(h)
    assert h.dtype==torch.float32 and torch.allclose(h.double(), want.detach(), atol=1e-3)


K, B, FOUR = torch.zeros(2, 1, 3, 3), torch.zeros(2), torch.zeros(1, 1, 4, 4)
REFUSED = {
    'index above':     (lambda: Embedding(torch.zeros(5, 2))(torch.tensor([0, 5])), 'indices 0 to 4; got some from 0 to 5'),
    'index below':     (lambda: Embedding(torch.zeros(5, 2))(torch.tensor([-1])), 'got some from -1'),
    'index of floats': (lambda: Embedding(torch.zeros(5, 2))(torch.tensor([1.])), 'whole numbers'),
    'index of bools':  (lambda: Embedding(torch.zeros(5, 2))(torch.tensor([True])), 'got torch.bool'),
    'no index':        (lambda: Embedding(torch.zeros(5, 2))(torch.zeros(0, 3).long()), 'empty batch, (0, 3)'),
    'even and same':   (lambda: Conv2d(torch.zeros(2, 1, 4, 4), B, padding='same'), 'has to be odd; got 4×4. Take 3 or 5'),
    'stride and same': (lambda: Conv2d(K, B, stride=2, padding='same'), "a stride of 2 doesn't. Take padding=1"),
    'channels':        (lambda: Conv2d(K, B)(torch.zeros(2, 3, 4, 4)), 'take 1 channels; got pictures (2, 3, 4, 4) with 3'),
    'no picture':      (lambda: Conv2d(K, B)(torch.zeros(0, 1, 4, 4)), 'empty batch, (0, 1, 4, 4)'),
    'rows':            (lambda: Conv2d(K, B)(torch.zeros(2, 784)), 'Rows (n, 784) become pictures'),
    'too small':       (lambda: Conv2d(K, B)(torch.zeros(1, 1, 2, 4)), "3×3 doesn't fit into pictures of 2×4"),
    'no stride':       (lambda: Conv2d(K, B, stride=0), '1 or more; got 0'),
    'negative zeros':  (lambda: Conv2d(K, B, padding=-1), 'got -1'),
    'oblong kernel':   (lambda: Conv2d(torch.zeros(2, 1, 3, 2), B), 'expected w (n_out, n_in, k, k)'),
    'bias':            (lambda: Conv2d(K, torch.zeros(3)), 'got (2, 1, 3, 3) and (3,)'),
    'no window':       (lambda: MaxPool2d(0), '1 pixel wide or more; got 0'),
    'pool stride':     (lambda: AvgPool2d(2, stride=0), '1 or more; got 0'),
    'pool too large':  (lambda: MaxPool2d(5)(FOUR), "5×5 doesn't fit"),
    'nothing to pool': (lambda: AvgPool2d(2)(torch.zeros(0, 1, 4, 4)), 'empty batch'),
    'pool rows':       (lambda: MaxPool2d(2)(torch.zeros(2, 784)), 'Rows (n, 784)'),
    'no layers':       (lambda: Residual(), 'one layer or more; got none'),
    'other shape':     (lambda: Residual(Lin(torch.zeros(4, 5), torch.zeros(5)))(torch.zeros(2, 4)), 'got (2, 4) and (2, 5)'),
}


@pytest.mark.parametrize('what', REFUSED)
def test_refused(what):
    call, words = REFUSED[what]
    with pytest.raises(ValueError) as e: call()
    assert words in str(e.value)


@pytest.mark.parametrize('cls', LAYERS)
def test_no_upstream(cls):
    layer, inp = cls.example(3, torch.Generator().manual_seed(0))
    layer(inp)
    with pytest.raises(ValueError, match="isn't there"): layer.backward()


@pytest.mark.parametrize('n', [1, 4])
@pytest.mark.parametrize('cls', LAYERS)
def test_checker_says_right(cls, n):
    "And the example is small enough for a verdict in about a second"
    start = time.process_time()
    report = check_backward(*cls.example(n, torch.Generator().manual_seed(n)))
    assert report.ok and report.title==f'{cls.__name__}: every gradient is right' and time.process_time()-start<5


@pytest.mark.parametrize('name', NAMES)
def test_bug_is_caught(name):
    "In the gradient that is spoilt, and in no other one, with other numbers than on its page"
    bug = BUGS[name]
    report = check_backward(*bug.cls.example(2, torch.Generator().manual_seed(1)))
    assert [r.name for r in report.rows if not r.ok]==[SPOILT.get(name, 'inp')]
    assert all(len(words)>5 for words in (bug.do, bug.why, bug.symptom, bug.tell))


SPOILT = dict(indices_overwritten='w', repeats_averaged='w', index_off_by_one='w', bias_rows_only='b', places_averaged='b', kernel_transposed='w')


def test_bugs_are_there():
    assert len(NAMES)==20 and set(SPOILT)<=set(NAMES) and len({BUGS[name].tell for name in NAMES})==20
