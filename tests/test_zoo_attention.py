"""Attention and its heads are PyTorch's in float64, refuse what they can't do, and their bugs are caught"""
import pytest, torch
import torch.nn.functional as F

from minimlp.backward import rel_err
from minimlp.bugs import BUGS
from minimlp.gradcheck import check_backward
from minimlp.zoo import attention_bugs # puts them into BUGS
from minimlp.zoo.attention import Attention, MultiheadAttention
from minimlp.zoo.block import Block, EachRow, Place, fresh_block
from minimlp.zoo.network import parameters

MINE = [name for name, b in BUGS.items() if b.family=='attention']
BLOCKS = [name for name, b in BUGS.items() if b.family=='block']
LAYERS = Attention, MultiheadAttention, EachRow, Place, Block


def randn(seed, *shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def strided(t): return torch.stack([t, -t], -1)[...,0]


def pairs(layer, inputs, params, theirs):
    "What should be equal: outputs, and gradients of inputs and parameters"
    watched = [t.clone().requires_grad_() for t in (*inputs, *params)]
    want, out = theirs(*watched), layer(*inputs)
    out.g = randn(9, *out.shape)[..., :1].expand_as(out)
    layer.backward()
    grads = torch.autograd.grad(want, watched, out.g)
    return [(out, want.detach()), *zip([t.g for t in (*inputs, *params)], grads)]


def same(found):
    for got, want in found:  # the gradient of the key's bias is zero up to rounding
        assert got.shape==want.shape and (rel_err(got, want)<1e-9 or (got-want).abs().max()<1e-11)


@pytest.mark.parametrize('shapes,causal', [([(5, 4)]*3, True), ([(1, 2)]*3, False), ([(2, 3, 4, 3)]*3, True), ([(2, 4, 3), (2, 6, 3), (2, 6, 5)], False)])
@pytest.mark.parametrize('view', [torch.clone, strided])
def test_attention_is_pytorchs(shapes, causal, view):
    inputs = [view(randn(i, *s)) for i, s in enumerate(shapes)]
    same(pairs(Attention(causal=causal), inputs, [], lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)))


@pytest.mark.parametrize('shape,heads,causal', [((3, 5, 6), 3, True), ((1, 1, 4), 2, False), ((4, 6), 1, True), ((2, 7, 4), 4, False)])
@pytest.mark.parametrize('view', [torch.clone, strided])
def test_heads_are_pytorchs(shape, heads, causal, view):
    m, t = shape[-1], shape[-2]
    params = [randn(i, *s) for i, s in enumerate([(m, 3*m), (3*m,), (m, m), (m,)])]
    hidden = torch.ones(t, t).bool().triu(1) if causal else None

    def theirs(x, w, b, w_out, b_out):
        x = x if x.ndim==3 else x[None]
        x = x.transpose(0, 1)
        out, _ = F.multi_head_attention_forward(x, x, x, m, heads, w.t(), b, None, None, False, 0., w_out.t(), b_out, attn_mask=hidden, need_weights=False)
        return out.transpose(0, 1).reshape(shape)
    same(pairs(MultiheadAttention(*params, num_heads=heads, causal=causal), [view(randn(7, *shape))], params, theirs))


@pytest.mark.parametrize('shape', [(3, 4), (1, 3, 4), (2, 5, 3, 4)])
@pytest.mark.parametrize('view', [torch.clone, strided])
def test_places_are_a_broadcast(shape, view):
    w = randn(1, 3, 4)
    same(pairs(Place(w), [view(randn(7, *shape))], [w], lambda x, w: x + w))


@pytest.mark.parametrize('shape,heads,causal', [((3, 5, 6), 3, True), ((1, 1, 4), 2, False), ((2, 7, 4), 4, False)])
@pytest.mark.parametrize('view', [torch.clone, strided])
def test_a_block_is_pytorchs_encoder_layer(shape, heads, causal, view):
    block = fresh_block(shape[-1], 7, heads, torch.Generator().manual_seed(0), causal)
    params = list(parameters(block.layers).values())
    for i, p in enumerate(params): p.data = p.double() + .1*randn(i, *p.shape)
    nn = torch.nn.TransformerEncoderLayer(shape[-1], heads, 7, dropout=0., activation='gelu', batch_first=True, norm_first=True, dtype=torch.float64)
    places = [n for n, _ in nn.named_parameters()]
    ours = [2, 3, 4, 5, 8, 9, 10, 11, 0, 1, 6, 7]
    hidden = torch.ones(shape[1], shape[1]).bool().triu(1) if causal else None
    def theirs(x, *ps): return torch.func.functional_call(nn, {n: ps[i].t() if ps[i].ndim==2 else ps[i] for n, i in zip(places, ours)}, (x,), dict(src_mask=hidden))
    same(pairs(block, [view(randn(7, *shape))], params, theirs))


@pytest.mark.parametrize('cls', LAYERS, ids=lambda c: c.__name__)
@pytest.mark.parametrize('n', [1, 3])
def test_the_checker_says_so(cls, n): assert check_backward(*cls.example(n, torch.Generator().manual_seed(3))).ok


SQUARE = {'values_weights_not_transposed', 'keys_scores_not_transposed', 'queries_for_keys'}  # an error if there are more keys than queries


@pytest.mark.parametrize('name', MINE+BLOCKS)
def test_every_bug_is_caught(name):
    "By a wrong number, and by an error only if the table of weights isn't square"
    report = check_backward(*BUGS[name].cls.example(2, torch.Generator().manual_seed(1)))
    wrong = [r for r in report.rows if not r.ok]
    assert wrong and not report.ok
    assert ('raises' in {g[0] for r in wrong for g in r.guesses(1)})==(name in SQUARE)


def test_there_are_as_many_as_told(): assert len(MINE)==11 and len(BLOCKS)==4 and len({BUGS[n].tell for n in MINE})>=10


def test_a_row_that_sees_nothing():
    q, k, v = randn(0, 3, 2, 3, 4)
    layer = Attention(torch.zeros(3, 3).bool())
    layer(q, k, v).g = torch.ones(2, 3, 4).double()
    layer.backward()
    assert all((t==0).all() for t in (layer.out, q.g, k.g, v.g))


HEADS, X = MultiheadAttention.example(2, torch.Generator().manual_seed(0))
NARROW = MultiheadAttention(HEADS.w, HEADS.b, HEADS.w_out[:, :2], HEADS.b_out[:2], num_heads=2)
REFUSED = [(Attention(), [(0, 2), (3, 2), (3, 2)], 'empty batch'), (Attention(), [(3, 1), (3, 2), (3, 2)], 'same length'),
           (Attention(), [(3, 2), (3, 2), (2, 2)], 'same length'), (Attention(torch.ones(2, 3)), [(3, 2)]*3, 'the mask needs'),
           (Attention(torch.ones(5, 3, 3).bool()), [(3, 2)]*3, 'the mask needs'), (NARROW, [(2, 3, 4)], 'w_out mixes'),
           (HEADS, [(0, 3, 4)], 'empty batch'), (HEADS, [(2, 3, 5)], "can't be cut into 2 heads"), (HEADS, [(2, 3, 6)], 'got (4, 12)'),
           (Place(torch.ones(3, 4).double()), [(0, 3, 4)], 'empty batch'), (Place(torch.ones(3, 4).double()), [(2, 1, 4)], 'got (3, 4) and (2, 1, 4)'),
           (EachRow.example(1, torch.Generator())[0], [(0, 3, 4)], 'empty batch')]


@pytest.mark.parametrize('layer,shapes,words', REFUSED, ids=lambda v: type(v).__name__ if hasattr(v, 'forward') else str(v))
def test_refusals(layer, shapes, words):
    with pytest.raises(ValueError) as said: layer(*[torch.ones(s).double() for s in shapes])
    assert words in str(said.value)


def test_no_layers_for_each_row():
    with pytest.raises(ValueError, match='one layer or more'): EachRow()
