"`check_backward` catches and names every bug of the catalogue, and accuses no right layer, at any size, dtype or seed"
import json, math

import numpy as np
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from minimlp import layers, module
from minimlp.bugs import BUGS, CrossEntropy, MseWide, Sigmoid, Softmax, suspect, verdict
from minimlp.forward import init_params
from minimlp.gradcheck import assert_backward, check_backward
from minimlp.runs.bugs import CATALOGUE
from minimlp.module import Module

SHAPES = [(5, 3, 4), (2, 4, 3), (8, 6, 6), (16, 10, 7)]
NAMED = {}


@pytest.mark.parametrize('name', CATALOGUE)
def test_bug_is_caught(name):
    results = [verdict(name, n=n, n_in=i, n_out=o, seed=seed)[:2] for seed, (n, i, o) in enumerate(SHAPES)]
    assert all(caught for caught, _ in results)
    NAMED[name] = sum(named for _, named in results)/len(results)


def test_bugs_are_named():
    "Nine in ten are named right by the first two guesses"
    if len(NAMED)<len(CATALOGUE): NAMED.update({k: verdict(k)[1] for k in CATALOGUE if k not in NAMED}) # run alone
    assert sum(NAMED.values()) >= .9*len(CATALOGUE), NAMED


# Right layers: those of the library, and more than twenty of torch.nn with a backward pass by hand

class Hand(Module):
    "`forward` by PyTorch, `bwd` by hand: a function of output and inputs that returns the gradients"
    def __init__(self, f, g, **params):
        self.f, self.g = f, g
        vars(self).update(params)
    def forward(self, *args): return self.f(*args)
    def bwd(self, out, *args):
        grads = self.g(out, *args)
        for t, g in zip(args, grads if isinstance(grads, tuple) else (grads,)): t.g = g


class LayerNorm(Module):
    def __init__(self, k): self.w, self.b = torch.randn(k), torch.randn(k)
    def forward(self, x): return F.layer_norm(x, x.shape[-1:], self.w, self.b)
    def bwd(self, out, x):
        r = (x.var(-1, unbiased=False, keepdim=True)+1e-5).rsqrt()
        h, d = (x-x.mean(-1, keepdim=True))*r, out.g*self.w
        self.w.g, self.b.g = (out.g*h).sum(0), out.g.sum(0)
        x.g = r*(d - d.mean(-1, keepdim=True) - h*(d*h).mean(-1, keepdim=True))


class BatchNorm(Module):
    def __init__(self, k): self.w, self.b, self.mean = torch.randn(k), torch.randn(k), torch.zeros(k)
    def forward(self, x):
        self.mean.mul_(.9).add_(.1*x.detach().mean(0))
        self.r = (x.var(0, unbiased=False)+1e-5).rsqrt()
        self.h = (x-x.mean(0))*self.r
        return self.h*self.w + self.b
    def bwd(self, out, x):
        self.w.g, self.b.g, d = (out.g*self.h).sum(0), out.g.sum(0), out.g*self.w
        x.g = self.r*(d - d.mean(0) - self.h*(d*self.h).mean(0))


class Dropout(Module):
    def forward(self, x): self.mask = (torch.rand_like(x)>.3).to(x)/.7; return x*self.mask
    def bwd(self, out, x): x.g = out.g*self.mask


class Embedding(Module):
    def __init__(self, k): self.w = torch.randn(k, 4)
    def forward(self, i): return self.w[i]
    def bwd(self, out, i): self.w.g = torch.zeros_like(self.w).index_add_(0, i, out.g)


class Fixed(Module):
    "Keeps its sizes in attributes"
    def __init__(self, w): self.w, self.n_in, self.n_out = w, *w.shape
    def forward(self, x): return x@self.w/self.n_in
    def bwd(self, out, x): x.g, self.w.g = out.g@self.w.t()/self.n_in, x.t()@out.g/self.n_in


class Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, scale): ctx.save_for_backward(x, w); ctx.scale = scale; return x@w*scale
    @staticmethod
    def backward(ctx, g): x, w = ctx.saved_tensors; return g@w.t()*ctx.scale, x.t()@g*ctx.scale, None


sig, phi = torch.sigmoid, lambda x: (1+torch.erf(x/2**.5))/2
x1, x2 = lambda n, k: [torch.randn(n, k)], lambda n, k: [torch.randn(n, k), torch.randn(n, k)]
HAND = dict(
    Sigmoid=(sig, lambda o, x: o*(1-o)*o.g, x1), Tanh=(torch.tanh, lambda o, x: (1-o*o)*o.g, x1),
    LeakyReLU=(lambda x: F.leaky_relu(x, .1), lambda o, x: torch.where(x>0, o.g, .1*o.g), x1),
    ReLU_on_the_kink=(F.relu, lambda o, x: (x>=0)*o.g, lambda n, k: [torch.randn(n, k).round()]),
    ReLU6=(F.relu6, lambda o, x: ((x>0)&(x<6))*o.g, lambda n, k: [4*torch.randn(n, k)]),
    ELU=(F.elu, lambda o, x: torch.where(x>0, o.g, x.exp()*o.g), x1), Softplus=(F.softplus, lambda o, x: sig(x)*o.g, x1),
    GELU=(F.gelu, lambda o, x: (phi(x)+x*torch.exp(-x*x/2)/math.sqrt(2*math.pi))*o.g, x1),
    SiLU=(F.silu, lambda o, x: sig(x)*(1+x*(1-sig(x)))*o.g, x1), Hardtanh=(F.hardtanh, lambda o, x: (x.abs()<1)*o.g, x1),
    Softsign=(F.softsign, lambda o, x: o.g/(1+x.abs())**2, x1), LogSigmoid=(F.logsigmoid, lambda o, x: sig(-x)*o.g, x1),
    Softmax=(lambda x: x.softmax(-1), lambda o, x: o*(o.g-(o*o.g).sum(-1, keepdim=True)), x1),
    LogSoftmax=(lambda x: x.log_softmax(-1), lambda o, x: o.g-o.exp()*o.g.sum(-1, keepdim=True), x1),
    L1Loss=(F.l1_loss, lambda o, x, t: (x-t).sign()/x.numel(), x2), HuberLoss=(F.huber_loss, lambda o, x, t: (x-t).clamp(-1, 1)/x.numel(), x2),
    BCEWithLogits=(F.binary_cross_entropy_with_logits, lambda o, x, t: (sig(x)-t)/x.numel(), lambda n, k: [torch.randn(n, k), torch.rand(n, k)]),
    CrossEntropy=(F.cross_entropy, lambda o, x, t: (x.softmax(1)-F.one_hot(t, x.shape[1]))/len(t), lambda n, k: [torch.randn(n, k), torch.randint(k, (n,))]),
    Add=(torch.add, lambda o, a, b: (o.g, o.g), x2), Mul=(torch.mul, lambda o, a, b: (o.g*b, o.g*a), x2),
    MatMul=(torch.matmul, lambda o, a, b: (o.g@b.t(), a.t()@o.g), lambda n, k: [torch.randn(n, k), torch.randn(k, n+1)]),
    Mean=(lambda x: x.mean(1), lambda o, x: (o.g[:,None]/x.shape[1]).expand_as(x), x1),
    MaxPool=(lambda x: x.max(1).values, lambda o, x: F.one_hot(x.argmax(1), x.shape[1])*o.g[:,None], x1),
    Flatten=(lambda x: x.reshape(-1), lambda o, x: o.g.reshape(x.shape), x1),
    Conv1d=(F.conv1d, lambda o, x, w: (torch.nn.grad.conv1d_input(x.shape, w, o.g), torch.nn.grad.conv1d_weight(x, w.shape, o.g)),
            lambda n, k: [torch.randn(n, 2, k+3), torch.randn(3, 2, 2)]),
)
MADE = dict(
    LayerNorm=lambda n, k: (LayerNorm(k), torch.randn(n, k)), BatchNorm=lambda n, k: (BatchNorm(k), torch.randn(n, k)),
    Dropout=lambda n, k: (Dropout(), torch.randn(n, k)), Embedding=lambda n, k: (Embedding(k), torch.randint(k, (n,))),
    Fixed=lambda n, k: (Fixed(torch.randn(k, 3)), torch.randn(n, k)), Function=lambda n, k: (Bilinear, torch.randn(n, k), torch.randn(k, 3), 2.),
    Pair=lambda n, k: ((lambda x, w, b: (x@w+b, (x, w)), lambda d, c: (d@c[1].t(), c[0].t()@d, d.sum(0))), torch.randn(n, k), torch.randn(k, 3), torch.randn(3)),
    **{f'ours_{c.__name__}': lambda n, k, c=c: suspect(c, n, k, k+1)[0] for c in (MseWide, Sigmoid, Softmax, CrossEntropy)},
    **{f'{L.__name__[8:]}_Lin': lambda n, k, L=L: (L.Lin(torch.randn(k, 3), torch.randn(3)), torch.randn(n, k)) for L in (layers, module)},
    **{f'{L.__name__[8:]}_Relu': lambda n, k, L=L: (L.Relu(), torch.randn(n, k)) for L in (layers, module)},
    **{f'{L.__name__[8:]}_Mse': lambda n, k, L=L: (L.Mse(), torch.randn(n, 1), torch.randn(n)) for L in (layers, module)},
    **{f'{L.__name__[8:]}_Model': lambda n, k, L=L: (L.Model(*init_params(k, 4, k, 1)), torch.randn(n, k), torch.randn(n)) for L in (layers, module)},
    **{k: lambda n, i, f=f, g=g, mk=mk: (Hand(f, g), *mk(n, i)) for k, (f, g, mk) in HAND.items()},
)


@pytest.mark.parametrize('name', MADE)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(n=st.integers(1, 9), k=st.integers(1, 7), seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_right_layer_is_not_accused(name, n, k, seed, dtype):
    torch.manual_seed(seed)
    target, *args = MADE[name](n, k)
    check_backward(target, *(a.to(dtype) if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args), seed=seed).raise_if_wrong()


def test_a_faint_kink_is_a_kink():
    "A row whose hidden units are all off sits on the kink of the next layer, where its share of a bias gradient is a thousandth of the whole"
    torch.manual_seed(237484505)
    target, *args = MADE['layers_Model'](8, 2)
    check_backward(target, *args, seed=237484505).raise_if_wrong()


def test_a_model_may_begin_with_whole_numbers():
    "An embedding under a layer that is wrong: the blame goes to the layer"
    class Net:
        def __init__(self): self.layers = [Embedding(5), BUGS['mask_missing'].cls()]
        def __call__(self, x):
            for l in self.layers: x = l(x)
            return x
        def backward(self):
            for l in reversed(self.layers): l.backward()
    torch.manual_seed(0)
    report = check_backward(Net(), torch.randint(5, (6,)))
    assert [b.name for r in report.rows for b in r.bugs[:1]]==['mask_missing']*len(report.rows) and not report.ok


def test_autograd_may_be_blind():
    "A forward pass that hides a part from autograd: nudges decide; where autograd and the layer agree, it is told and may be meant"
    hidden = lambda x: x*x.detach()
    x = torch.randn(4, 3)
    whole, part, neither = [check_backward(Hand(hidden, lambda o, x, k=k: k*x*o.g), x) for k in (2, 1, 3)]
    assert whole.ok and any('nudges decided' in said for said in whole.told), whole
    assert part.ok and any('nudges see a path' in said for said in part.told), part
    assert not neither.ok, neither


# Right and wrong ones in other protocols, each with what the check said of it before, or couldn't take

def attention(q, k, v):
    p = (q@k.mT/q.shape[-1]**.5).softmax(-1)
    return p@v, (q, k, v, p)


def attention_back(d, cache, scaled=True, summed=True):
    q, k, v, p = cache
    dp = d@v.mT
    ds = p*(dp - (dp*p).sum(-1, keepdim=True)*summed)/(q.shape[-1]**.5 if scaled else 1)
    return ds@k, ds.mT@q, p.mT@d


class InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)
    @staticmethod
    def backward(ctx, g): return 2*g


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.view_as(x)
    @staticmethod
    def backward(ctx, g): return -g


class TooMany(Reversal):
    @staticmethod
    def backward(ctx, g): return g, g


W = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
linear = lambda x, w: (x@w, (x, w))
linear_back = lambda d, c: (d@c[1].T, c[0].T@d)
rand = lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(0))
soft = lambda: rand(4, 3).softmax(1)
OTHERS = dict(
    closed_over_weights=((lambda x: (x@W, x), lambda d, x: d@W.t()), rand(5, 3)),
    in_place=(InPlace, rand(4, 3)), attention=((attention, attention_back), rand(5, 8), rand(5, 8)+1, rand(5, 8)-1),
    huge=((lambda x: (x.tanh(), x.tanh()), lambda d, o: d*(1-o*o)), 1e6*rand(4, 3)),
    tiny=((lambda x: (x*x, x), lambda d, x: 2*d*x), 1e-8*rand(4, 3)),
    aliased=((lambda a, b: (a+b, None), lambda d, c: (d, d)), rand(3, 2), rand(3, 2)),
    float32_inside=((lambda x: (x*(x>0).float(), x), lambda d, x: d*(x>0).float()), rand(3, 2)),
    numpy=((linear, linear_back), rand(5, 3).numpy(), rand(3, 4).numpy()),
    numpy_large=((linear, linear_back), rand(500, 200).numpy(), rand(200, 40).numpy()),
    several_outputs=((lambda x: ((x*2, x*3), x), lambda d, x: 2*d[0]+3*d[1]), rand(3, 2)),
    a_dict=((lambda p: (p['a']*p['b'], p), lambda d, p: {'p.a': d*p['b'], 'p.b': d*p['a']}), dict(a=rand(3), b=rand(3)+1)),
    batch_norm=(torch.nn.BatchNorm1d(3), rand(6, 3)), module=(torch.nn.Linear(3, 2), rand(5, 3)),
    large=((linear, linear_back), rand(16384, 784), rand(784, 50)))
FOUND = dict(
    scale_missing=((attention, lambda d, c: attention_back(d, c, scaled=False)), rand(5, 8), rand(5, 8)+1, rand(5, 8)-1),
    denominator_path_missing=((attention, lambda d, c: attention_back(d, c, summed=False)), rand(5, 8), rand(5, 8)+1, rand(5, 8)-1),
    wrong_number=(TooMany, rand(3, 2)), sign=(Reversal, rand(3, 2)),
    never_written=((lambda p, q: ((p*(p.log()-q.log())).sum(), (p, q)), lambda d, c: (None, -d*c[0]/c[1])), soft(), soft().flip(0)),
    some_rows=((lambda x: (x*2, x), lambda d, x: torch.cat([2*d[:64], d[64:]])), rand(5, 3)),
    upstream_overwritten=((lambda x: (np.maximum(x, 0), x), lambda d, x: np.multiply(d, x>0, out=d)), rand(4, 3).numpy()))


@pytest.mark.parametrize('name', OTHERS)
def test_other_protocols_are_not_accused(name): assert_backward(*OTHERS[name])


@pytest.mark.parametrize('name', FOUND)
def test_other_bugs_are_named(name):
    report = check_backward(*FOUND[name])
    assert name in {b.name for r in report.rows for b in r.bugs[:2]} and not report.ok, report


def test_what_is_meant_is_not_wrong():
    "A reversed gradient, a reference, a type of its own"
    assert_backward(Reversal, rand(3, 2), intended=lambda x: -x)
    assert_backward(Reversal, rand(3, 2), intended='x')
    assert_backward((linear, linear_back), rand(5, 3), rand(3, 4), reference=torch.matmul, dtype=torch.bfloat16)
    report = check_backward((linear, linear_back), rand(5, 3), rand(3, 4), reference=lambda x, w: 2*x@w)
    assert 'the output' in {r.name for r in report.rows if not r.ok}


def test_a_report_is_plain_data():
    "It goes to JSON and keeps the verdict"
    report = check_backward(*FOUND['sign'])
    assert json.loads(json.dumps(report.to_dict()))['rows'][0]['bugs'][0]['name']=='sign'
