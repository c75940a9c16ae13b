"Windows, indices, matrices, time, attention and several outputs, in all protocols"
import math
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from minimlp.check.engines import Engine
from minimlp.module import Module

from . import right, wrong


def normal(*shapes):
    "A tensor of normal numbers for each shape, the same ones every time"
    gen = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=gen) for shape in shapes]


def arrays(*shapes):
    "The same for NumPy"
    return [t.numpy() for t in normal(*shapes)]


# Convolution

def conv1d_forward(x, w, b):
    n, out = x.shape[2]-w.shape[2]+1, b[:, None]
    for k in range(w.shape[2]):
        out = out + torch.einsum('ncl,oc->nol', x[:, :, k:k+n], w[:, :, k])
    return out, (x, w)


@right(*normal((2, 3, 6), (4, 3, 3), (4,)), forward=conv1d_forward)
def conv1d_back(dout, cache):
    x, w = cache
    n, dx, dw = dout.shape[2], torch.zeros_like(x), torch.zeros_like(w)
    for k in range(w.shape[2]):
        dx[:, :, k:k+n] += torch.einsum('nol,oc->ncl', dout, w[:, :, k])
        dw[:, :, k] = torch.einsum('nol,ncl->oc', dout, x[:, :, k:k+n])
    return dx, dw, dout.sum((0, 2))

@wrong(of=conv1d_back, says='indices_overwritten tied_overwritten')
def conv1d_windows_overwritten(dout, cache):
    x, w = cache
    n, dx = dout.shape[2], torch.zeros_like(x)
    for k in range(w.shape[2]):
        dx[:, :, k:k+n] = torch.einsum('nol,oc->ncl', dout, w[:, :, k])
    return dx, *conv1d_back(dout, cache)[1:]

@wrong(of=conv1d_back, says='flipped')
def conv1d_kernel_flipped(dout, cache):
    dx, dw, db = conv1d_back(dout, cache)
    return dx, dw.flip(2), db

@wrong(of=conv1d_back, says='flipped operand_flipped')
def conv1d_input_by_flipped_kernel(dout, cache):
    x, w = cache
    return conv1d_back(dout, (x, w.flip(2)))[0], *conv1d_back(dout, cache)[1:]

@wrong(of=conv1d_back, says='not_summed')
def conv1d_bias_sums_rows_only(dout, cache):
    dx, dw, _ = conv1d_back(dout, cache)
    return dx, dw, dout.sum(0)

@wrong(of=conv1d_back, says='mean_for_sum')
def conv1d_bias_averages(dout, cache):
    dx, dw, _ = conv1d_back(dout, cache)
    return dx, dw, dout.mean(0).sum(1)


@right(normal((2, 2, 5, 5))[0], init=normal((3, 2, 3, 3), (3,)))
class Conv2d:
    "As a matrix product over unfolded windows: `backward(dout) → dx`, `self.dW`, `self.db`"
    def __init__(self, W, b, stride=1, pad=0): self.W, self.b, self.stride, self.pad = W, b, stride, pad

    def forward(self, x):
        n, _, h, w = x.shape
        kh, kw = self.W.shape[2:]
        self.size, self.kernel = (h, w), (kh, kw)
        self.cols = F.unfold(x, (kh, kw), stride=self.stride, padding=self.pad)
        out = self.W.flatten(1) @ self.cols + self.b[:, None]
        high, wide = [(s+2*self.pad-k)//self.stride+1 for s, k in zip(self.size, self.kernel)]
        return out.reshape(n, -1, high, wide)

    def weights(self, dout):
        "The gradients of weights and bias"
        d = dout.flatten(2)
        self.dW = (d @ self.cols.mT).sum(0).reshape(self.W.shape)
        self.db = d.sum((0, 2))

    def backward(self, dout):
        self.weights(dout)
        cols = self.W.flatten(1).T @ dout.flatten(2)
        return F.fold(cols, self.size, self.kernel, stride=self.stride, padding=self.pad)


@right(*normal((2, 2, 6, 5)), init=(*normal((3, 2, 3, 3), (3,)), 2, 1))
class Conv2dStrided(Conv2d): pass


@wrong(of=Conv2dStrided, says='shifted')
class Conv2dCrops(Conv2dStrided):
    def backward(self, dout):
        self.weights(dout)
        cols = self.W.flatten(1).T @ dout.flatten(2)
        h, w = [s+2*self.pad for s in self.size]
        return F.fold(cols, (h, w), self.kernel, stride=self.stride)[:, :, :-2*self.pad, :-2*self.pad]


@wrong(of=Conv2d, says='rows_missing')
class Conv2dFirstRow(Conv2d):
    def weights(self, dout):
        super().weights(dout)
        self.dW = (dout.flatten(2) @ self.cols.mT)[0].reshape(self.W.shape)


@wrong(of=Conv2d, says='accumulated')
class Conv2dAddsUp(Conv2d):
    def weights(self, dout):
        super().weights(dout)
        self.total = getattr(self, 'total', 0)*.5 + self.dW
        self.dW = self.total


@wrong(of=Conv2d, says='transposed')
class Conv2dTransposed(Conv2d):
    def weights(self, dout):
        super().weights(dout)
        self.dW = self.dW.mT


@wrong(of=Conv2d, says='never_written')
class Conv2dNoBias(Conv2d):
    def weights(self, dout):
        super().weights(dout)
        self.db = None


@right(*normal((2, 4, 5, 5), (6, 2, 3, 3)), 2)
class GroupedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, groups):
        ctx.save_for_backward(x, w)
        ctx.groups = groups
        return F.conv2d(x, w, stride=2, groups=groups)

    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx = torch.nn.grad.conv2d_input(x.shape, w, dout, stride=2, groups=ctx.groups)
        dw = torch.nn.grad.conv2d_weight(x, w.shape, dout, stride=2, groups=ctx.groups)
        return dx, dw, None

@wrong(of=GroupedConv, says='permuted')
class GroupsExchanged(GroupedConv):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx, dw, _ = GroupedConv.backward(ctx, dout)
        other = x.reshape(len(x), ctx.groups, -1, *x.shape[2:]).flip(1).reshape(x.shape)
        return dx, torch.nn.grad.conv2d_weight(other, w.shape, dout, stride=2, groups=ctx.groups), None

@wrong(of=GroupedConv, says='')
class StrideForgotten(GroupedConv):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx = F.conv_transpose2d(dout, w, groups=ctx.groups)
        return F.interpolate(dx, x.shape[2:]), *GroupedConv.backward(ctx, dout)[1:]


def depthwise_forward(x, w):
    n, out = x.shape[2]-w.shape[1]+1, 0
    for k in range(w.shape[1]):
        out = out + x[:, :, k:k+n]*w[:, k, None]
    return out, (x, w)


@right(*normal((2, 3, 6), (3, 3)), forward=depthwise_forward)
def depthwise_back(dout, cache):
    x, w = cache
    n, dx, dw = dout.shape[2], torch.zeros_like(x), torch.zeros_like(w)
    for k in range(w.shape[1]):
        dx[:, :, k:k+n] += dout*w[:, k, None]
        dw[:, k] = (dout*x[:, :, k:k+n]).sum((0, 2))
    return dx, dw

@wrong(of=depthwise_back, says='class_mean_extra size_mean_extra mean_for_sum')
def conv1d_depthwise_mean_over_positions(dout, cache):
    dx, dw = depthwise_back(dout, cache)
    return dx, dw/dout.shape[2]

@wrong(of=depthwise_back, says='path_missing some_columns')
def conv1d_depthwise_last_tap_forgotten(dout, cache):
    dx, dw = depthwise_back(dout, cache)
    dw[:, -1] = 0
    return dx, dw


def transposed_forward(x, w, stride):
    n, (_, o, k) = x.shape[2], w.shape
    out = x.new_zeros(len(x), o, (n-1)*stride+k)
    for i in range(k):
        out[:, :, i:i+(n-1)*stride+1:stride] += torch.einsum('ncl,co->nol', x, w[:, :, i])
    return out, (x, w, stride)


def transposed_back(dout, cache):
    x, w, stride = cache
    dx, dw = torch.zeros_like(x), torch.zeros_like(w)
    for i in range(w.shape[2]):
        d = dout[:, :, i:i+(x.shape[2]-1)*stride+1:stride]
        dx += torch.einsum('nol,co->ncl', d, w[:, :, i])
        dw[:, :, i] = torch.einsum('nol,ncl->co', d, x)
    return dx, dw


@right(*normal((2, 3, 4), (3, 2, 3)), 2, forward=transposed_forward)
def conv1d_transposed(dout, cache): return (*transposed_back(dout, cache), None)

@wrong(of=conv1d_transposed, says='path_missing tied_overwritten')
def conv1d_transposed_first_tap_only(dout, cache):
    x, w, stride = cache
    d = dout[:, :, :(x.shape[2]-1)*stride+1:stride]
    return torch.einsum('nol,co->ncl', d, w[:, :, 0]), transposed_back(dout, cache)[1], None

@wrong(of=conv1d_transposed, says='flipped')
def conv1d_transposed_kernel_flipped(dout, cache):
    dx, dw = transposed_back(dout, cache)
    return dx, dw.flip(2), None


def dilated(x, w, dilation=2):
    n, out = x.shape[1]-dilation*(len(w)-1), 0
    for k in range(len(w)):
        out = out + x[:, k*dilation:k*dilation+n]*w[k]
    return out, (x, w)


@right(*normal((3, 8), (3,)), forward=dilated)
def dilated_back(dout, cache, dilation=2, apart=2):
    x, w = cache
    n, dx, dw = dout.shape[1], torch.zeros_like(x), torch.zeros_like(w)
    for k in range(len(w)):
        dx[:, k*dilation:k*dilation+n] += dout*w[k]
        dw[k] = (dout*x[:, k*apart:k*apart+n]).sum()
    return dx, dw

@wrong(of=dilated_back, says='')
def conv1d_dilation_forgotten(dout, cache): return dilated_back(dout, cache, apart=1)


def causal(x, w):
    k = w.shape[2]
    return F.conv1d(F.pad(x, (k-1, 0)), w), (x, w)


@right(*normal((2, 2, 5), (3, 2, 3)), forward=causal)
def causal_back(dout, cache, first=None):
    x, w = cache
    k = w.shape[2]
    dx = F.conv_transpose1d(dout, w)
    start = k-1 if first is None else first
    dw = torch.nn.grad.conv1d_weight(F.pad(x, (k-1, 0)), w.shape, dout)
    return dx[:, :, start:start+x.shape[2]], dw

@wrong(of=causal_back, says='shifted')
def conv1d_causal_looks_back(dout, cache): return causal_back(dout, cache, first=0)


def pointwise(x, w):
    return np.einsum('nchw,oc->nohw', x, w), (x, w)


@right(*arrays((2, 3, 2, 2), (3, 3)), forward=pointwise)
def pointwise_back(dout, cache):
    x, w = cache
    return np.einsum('nohw,oc->nchw', dout, w), np.einsum('nohw,nchw->oc', dout, x)

@wrong(of=pointwise_back, says='w_not_transposed')
def conv1x1_numpy_weights_transposed(dout, cache):
    x, w = cache
    return np.einsum('nohw,co->nchw', dout, w), pointwise_back(dout, cache)[1]

@wrong(of=pointwise_back, says='transposed')
def conv1x1_numpy_gradient_transposed(dout, cache):
    dx, dw = pointwise_back(dout, cache)
    return dx, dw.T


# Pooling

def tiles(x):
    "Squares of four, with the four as last axis"
    n, c, h, w = x.shape
    return x.reshape(n, c, h//2, 2, w//2, 2).transpose(3, 4).flatten(4)


def untiled(t):
    "The way back from `tiles`"
    n, c, h, w, _ = t.shape
    return t.reshape(n, c, h, w, 2, 2).transpose(3, 4).reshape(n, c, 2*h, 2*w)


@right(*normal((2, 2, 4, 4)))
class MaxPool(Module):
    def forward(self, x):
        best = tiles(x).max(-1)
        self.where = F.one_hot(best.indices, 4)
        return best.values

    def bwd(self, out, x): x.g = untiled(self.where*out.g[..., None])

@wrong(of=MaxPool, says='mask_missing')
class MaxPoolEverywhere(MaxPool):
    def bwd(self, out, x): x.g = untiled(out.g[..., None].expand(*out.shape, 4))

@wrong(of=MaxPool, says='constant_factor')
class MaxPoolMeans(MaxPool):
    def bwd(self, out, x): x.g = untiled(self.where*out.g[..., None])/4

@wrong(of=MaxPool, says='reshaped')
class MaxPoolReshaped(MaxPool):
    def bwd(self, out, x): x.g = (self.where*out.g[..., None]).reshape(x.shape)

@wrong(of=MaxPool, says='permuted mask_wrong')
class MinForMax(MaxPool):
    def bwd(self, out, x): x.g = untiled(F.one_hot(tiles(x).argmin(-1), 4)*out.g[..., None])


def sliding_max(x):
    out, i = F.max_pool1d(x, 3, stride=1, return_indices=True)
    return out, (x, i)


@right(*normal((2, 2, 7)), forward=sliding_max)
def sliding_max_back(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter_add_(2, i, dout)

def after_relu(shape):
    "Normal numbers, those below zero cut off: windows that overlap, and ties in most of them"
    return [t.clamp(min=0) for t in normal(shape)]


def sliding_amax(x): return x.unfold(1, 3, 1).amax(2), x


def sliding_first(x): return x.unfold(1, 3, 1).max(2)[0], x


@right(*after_relu((4, 9)), forward=sliding_amax)
def sliding_amax_to_the_first(dout, x):
    places = x.unfold(1, 3, 1).max(2)[1] + torch.arange(x.shape[1]-2)
    return torch.zeros_like(x).scatter_add(1, places, dout)


@wrong(*after_relu((4, 9)), of=sliding_amax_to_the_first, forward=sliding_first, says='ties')
def sliding_max_to_all_ties(dout, x):
    dx, out = torch.zeros_like(x), x.unfold(1, 3, 1).amax(2)
    for k in range(3):
        here = slice(k, k+out.shape[1])
        dx[:, here] += dout*(x[:, here]==out)
    return dx


@wrong(of=sliding_max_back, says='indices_overwritten')
def max_pool_sliding_overwritten(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter_(2, i, dout)


@right(*normal((2, 2, 4, 6)), init=(2,))
class AvgPool:
    "`backward(dout) → dx`"
    def __init__(self, size): self.size = size
    def forward(self, x):
        n, c, h, w = x.shape
        k = self.size
        return x.reshape(n, c, h//k, k, w//k, k).mean((3, 5))

    def backward(self, dout):
        k = self.size
        return dout.repeat_interleave(k, 2).repeat_interleave(k, 3)/k**2

@wrong(of=AvgPool, says='constant_factor')
class SumPoolBack(AvgPool):
    def backward(self, dout): return super().backward(dout)*self.size**2

@wrong(of=AvgPool, says='factor_two constant_factor')
class AvgPoolOneSide(AvgPool):
    def backward(self, dout): return super().backward(dout)*self.size

@wrong(of=AvgPool, says='permuted reshaped')
class AvgPoolTiled(AvgPool):
    def backward(self, dout): return dout.repeat(1, 1, self.size, self.size)/self.size**2


def bins(n, m):
    "Start and end of `m` bins over `n` places, as adaptive pooling has them"
    return [(i*n//m, -(-(i+1)*n//m)) for i in range(m)]


def adaptive(x, m):
    means = [x[..., a:b].mean(-1) for a, b in bins(x.shape[-1], m)]
    return torch.stack(means, -1), (x.shape, m)


@right(*normal((2, 3, 7)), 3, forward=adaptive)
def adaptive_back(dout, cache):
    shape, m = cache
    dx = dout.new_zeros(shape)
    for i, (a, b) in enumerate(bins(shape[-1], m)):
        dx[..., a:b] += dout[..., i:i+1]/(b-a)
    return dx, None

@wrong(of=adaptive_back, says='indices_overwritten tied_overwritten')
def adaptive_bins_overwritten(dout, cache):
    shape, m = cache
    dx = dout.new_zeros(shape)
    for i, (a, b) in enumerate(bins(shape[-1], m)):
        dx[..., a:b] = dout[..., i:i+1]/(b-a)
    return dx, None

@wrong(of=adaptive_back, says='constant_factor')
def adaptive_bins_taken_for_equal(dout, cache):
    shape, m = cache
    dx = dout.new_zeros(shape)
    for i, (a, b) in enumerate(bins(shape[-1], m)):
        dx[..., a:b] += dout[..., i:i+1]*m/shape[-1]
    return dx, None


@right(*normal((2, 3, 4, 5)))
class GlobalMean(Module):
    def forward(self, x): return x.mean((2, 3))
    def bwd(self, out, x): x.g = out.g[:, :, None, None].expand_as(x)/(x.shape[2]*x.shape[3])

@wrong(of=GlobalMean, says='size_mean_missing')
class GlobalSum(GlobalMean):
    def bwd(self, out, x): x.g = out.g[:, :, None, None].expand_as(x)/x.shape[3]

@wrong(of=GlobalMean, says='squeezed')
class GlobalFlat(GlobalMean):
    def bwd(self, out, x): x.g = out.g/(x.shape[2]*x.shape[3])


@right(*normal((2, 3, 3, 3)))
class GlobalMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        out, i = x.flatten(2).max(-1)
        ctx.save_for_backward(i)
        ctx.shape = x.shape
        return out

    @staticmethod
    def backward(ctx, dout):
        i, = ctx.saved_tensors
        dx = dout.new_zeros(ctx.shape).flatten(2)
        return dx.scatter_(2, i[..., None], dout[..., None]).reshape(ctx.shape)

@wrong(of=GlobalMax, says='transposed')
class GlobalMaxOff(GlobalMax):
    @staticmethod
    def backward(ctx, dout): return GlobalMax.backward(ctx, dout).mT


def padded_mean(x):
    "Average pooling of three, at the edges over those that are there"
    count = F.conv1d(torch.ones_like(x), torch.ones(1, 1, 3, dtype=x.dtype), padding=1)
    return F.conv1d(x, torch.ones(1, 1, 3, dtype=x.dtype), padding=1)/count, count


@right(*normal((3, 1, 6)), forward=padded_mean)
def padded_mean_back(dout, count):
    return F.conv1d(dout/count, torch.ones(1, 1, 3, dtype=dout.dtype), padding=1)

@wrong(of=padded_mean_back, says='factor_missing some_columns')
def average_pool_counts_the_padding(dout, count): return padded_mean_back(dout*count/3, count)


# Upsampling and padding

def nearest(x): return x.repeat_interleave(2, 2).repeat_interleave(2, 3), x.shape


@right(*normal((2, 2, 3, 2)), forward=nearest)
def nearest_back(dout, shape):
    n, c, h, w = shape
    return dout.reshape(n, c, h, 2, w, 2).sum((3, 5))

@wrong(of=nearest_back, says='constant_factor mean_for_sum')
def upsample_nearest_averages(dout, shape): return nearest_back(dout, shape)/4

@wrong(of=nearest_back, says='not_summed path_missing indices_overwritten')
def upsample_nearest_first_of_four(dout, shape): return dout[:, :, ::2, ::2]

@wrong(of=nearest_back, says='reshaped permuted')
def upsample_nearest_other_tiling(dout, shape):
    n, c, h, w = shape
    return dout.reshape(n, c, 2, h, 2, w).sum((2, 4))


def linear_steps(n, m, like):
    "Left neighbours of `m` places over `n`, corners on corners, and how far they are from them"
    at = torch.linspace(0, n-1, m, dtype=like.dtype)
    left = at.floor().long().clamp(max=n-2).clamp(min=0)
    return left, at-left


def interpolate(x, m):
    left, part = linear_steps(x.shape[1], m, x)
    return x[:, left]*(1-part)+x[:, left+1]*part, (x, m)


@right(*normal((3, 4)), 7, forward=interpolate)
def interpolate_back(dout, cache):
    x, m = cache
    left, part = linear_steps(x.shape[1], m, x)
    dx = torch.zeros_like(x).index_add_(1, left, dout*(1-part))
    return dx.index_add_(1, left+1, dout*part), None

@wrong(of=interpolate_back, says='operands_swapped path_exchanged')
def upsample_linear_neighbours_exchanged(dout, cache):
    x, m = cache
    left, part = linear_steps(x.shape[1], m, x)
    dx = torch.zeros_like(x).index_add_(1, left, dout*part)
    return dx.index_add_(1, left+1, dout*(1-part)), None

@wrong(of=interpolate_back, says='indices_overwritten')
def upsample_linear_overwritten(dout, cache):
    x, m = cache
    left, part = linear_steps(x.shape[1], m, x)
    dx = torch.zeros_like(x)
    dx[:, left] += dout*(1-part)
    dx[:, left+1] += dout*part
    return dx, None


@right(*normal((2, 4, 2, 3)))
class PixelShuffle(Module):
    def forward(self, x): return F.pixel_shuffle(x, 2)
    def bwd(self, out, x): x.g = F.pixel_unshuffle(out.g, 2)

@wrong(of=PixelShuffle, says='reshaped permuted')
class PixelReshape(PixelShuffle):
    def bwd(self, out, x): x.g = out.g.reshape(x.shape)


@right(*normal((3, 4)), init=(1, 2,))
class ZeroPad:
    def __init__(self, left, right): self.left, self.right = left, right
    def forward(self, x): return F.pad(x, (self.left, self.right))
    def backward(self, dout): return dout[..., self.left:dout.shape[-1]-self.right]

@wrong(of=ZeroPad, says='shifted')
class ZeroPadSides(ZeroPad):
    def backward(self, dout): return dout[..., self.right:dout.shape[-1]-self.left]

@wrong(of=ZeroPad, says='derivative_missing upstream_passed')
class ZeroPadKept(ZeroPad):
    def backward(self, dout): return dout


def reflect(x): return torch.cat([x[:, 1:3].flip(1), x, x[:, -3:-1].flip(1)], 1), None


@right(*normal((3, 5)), forward=reflect)
def reflect_back(dout, cache):
    dx = dout[:, 2:-2].clone()
    dx[:, 1:3] += dout[:, :2].flip(1)
    dx[:, -3:-1] += dout[:, -2:].flip(1)
    return dx

@wrong(of=reflect_back, says='path_missing')
def reflect_pad_mirrors_forgotten(dout, cache): return dout[:, 2:-2]

@wrong(of=reflect_back, says='derivative_missing not_reversed')
def reflect_pad_not_turned(dout, cache):
    dx = reflect_back(dout, cache)
    dx[:, 1:3] += dout[:, :2]-dout[:, :2].flip(1)
    return dx


def edge_pad(x): return np.pad(x, ((0, 0), (2, 1)), mode='edge'), None


@right(*arrays((3, 4)), forward=edge_pad)
def edge_pad_back(dout, cache):
    dx = dout[:, 2:-1].copy()
    dx[:, 0] += dout[:, :2].sum(1)
    dx[:, -1] += dout[:, -1]
    return dx

@wrong(of=edge_pad_back, says='path_missing some_columns')
def edge_pad_one_copy_forgotten(dout, cache):
    dx = edge_pad_back(dout, cache)
    dx[:, 0] -= dout[:, 0]
    return dx

@wrong(of=edge_pad_back, says='upstream_overwritten')
def edge_pad_written_into_the_upstream(dout, cache):
    dx = dout[:, 2:-1]
    dx[:, 0] += dout[:, :2].sum(1)
    dx[:, -1] += dout[:, -1]
    return dx


def circular(x): return torch.cat([x[:, -1:], x, x[:, :2]], 1), None


@right(*normal((3, 4)), forward=circular)
def circular_back(dout, cache):
    dx = dout[:, 1:-2].clone()
    dx[:, -1] += dout[:, 0]
    dx[:, :2] += dout[:, -2:]
    return dx

@wrong(of=circular_back, says='')
def circular_pad_ends_exchanged(dout, cache):
    dx = dout[:, 1:-2].clone()
    dx[:, 0] += dout[:, 0]
    dx[:, -2:] += dout[:, -2:]
    return dx


@right(*normal((3, 5)), init=(1,))
class Roll(Module):
    def __init__(self, by): self.by = by
    def forward(self, x): return x.roll(self.by, 1)
    def bwd(self, out, x): x.g = out.g.roll(-self.by, 1)

@wrong(of=Roll, says='not_reversed')
class RollOn(Roll):
    def bwd(self, out, x): x.g = out.g.roll(self.by, 1)


# Residual connections, written on `.g` as this book does it

@right(*normal((4, 3)), init=(*normal((3, 3)),))
class Residual(Module):
    "x + tanh(x @ w)"
    def __init__(self, w): self.w = w
    def forward(self, x):
        self.h = torch.tanh(x@self.w)
        return x+self.h

    def bwd(self, out, x):
        d = out.g*(1-self.h**2)
        self.w.g = x.t()@d
        x.g = out.g + d@self.w.t()

@wrong(of=Residual, says='skip_missing')
class ResidualSkipLost(Residual):
    def bwd(self, out, x):
        super().bwd(out, x)
        x.g = x.g-out.g

@wrong(of=Residual, says='path_missing')
class ResidualBranchLost(Residual):
    def bwd(self, out, x):
        super().bwd(out, x)
        x.g = out.g

@wrong(of=Residual, says='skip_doubled')
class ResidualTwice(Residual):
    def bwd(self, out, x):
        super().bwd(out, x)
        x.g = x.g+out.g


def gated(x, w, v):
    "Highway: a gate decides between a change and the input as it is"
    t, h = torch.sigmoid(x@w), torch.tanh(x@v)
    return t*h+(1-t)*x, (x, w, v, t, h)


@right(*normal((4, 3), (3, 3), (3, 3)), forward=gated)
def gated_back(dout, cache, carry=True):
    x, w, v, t, h = cache
    dt = dout*(h-x*carry)*t*(1-t)
    dh = dout*t*(1-h*h)
    return dout*(1-t)+dt@w.t()+dh@v.t(), x.t()@dt, x.t()@dh

@wrong(of=gated_back, says='path_missing')
def highway_carry_gate_forgotten(dout, cache): return gated_back(dout, cache, carry=False)

@wrong(of=gated_back, says='path_missing')
def highway_carried_input_forgotten(dout, cache):
    dx, dw, dv = gated_back(dout, cache)
    return dx-dout*(1-cache[3]), dw, dv

@wrong(of=gated_back, says='wrong_tensor')
def highway_weights_exchanged(dout, cache):
    dx, dw, dv = gated_back(dout, cache)
    return dx, dv, dw


def scaled_branch(x, w, alpha): return x+alpha*torch.relu(x@w), (x, w, alpha)


@right(*normal((4, 3), (3, 3), (3,)), forward=scaled_branch)
def scaled_branch_back(dout, cache):
    x, w, alpha = cache
    h = torch.relu(x@w)
    d = alpha*dout*(h>0)
    return dout+d@w.t(), x.t()@d, (dout*h).sum(0)

@wrong(of=scaled_branch_back, says='factor_missing')
def residual_scale_forgotten(dout, cache):
    x, w, alpha = cache
    d = dout*(x@w>0)
    return dout+d@w.t(), x.t()@d, scaled_branch_back(dout, cache)[2]

@wrong(of=scaled_branch_back, says='not_summed')
def residual_scale_gradient_by_row(dout, cache):
    x, w, alpha = cache
    dx, dw, _ = scaled_branch_back(dout, cache)
    return dx, dw, dout*torch.relu(x@w)


# Indices

SOME = torch.tensor([[0, 0, 2], [1, 3, 1], [2, 2, 2]])


def gather(x, i): return x.gather(1, i), (x, i)


@right(*normal((3, 4)), SOME, forward=gather)
def gather_back(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter_add_(1, i, dout), None


@wrong(of=gather_back, says='indices_overwritten')
def gathered_overwritten(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter_(1, i, dout), None


def take_rows(w, i): return w[i], (w, i)


@right(*arrays((4, 3)), np.array([2, 0, 2, 2, 3]), forward=take_rows)
def take_rows_back(dout, cache):
    w, i = cache
    dw = np.zeros_like(w)
    np.add.at(dw, i, dout)
    return dw, None

@wrong(of=take_rows_back, says='indices_overwritten')
def lookup_numpy_plus_equals(dout, cache):
    w, i = cache
    dw = np.zeros_like(w)
    dw[i] += dout
    return dw, None


def add_at(base, src, i): return base.index_add(0, i, src, alpha=.5), i


@right(*normal((3, 2), (5, 2)), torch.tensor([0, 2, 0, 2, 2]), forward=add_at)
def index_added(dout, i): return (dout.clone(), .5*dout[i], None)

@wrong(of=index_added, says='factor_two constant_factor')
def index_added_alpha_forgotten(dout, i): return (dout.clone(), dout[i], None)

@wrong(of=index_added, says='some_rows mask_wrong')
def index_added_base_stopped(dout, i):
    dbase = dout.clone()
    dbase[i] = 0
    return dbase, .5*dout[i], None


def put_at(base, src, i): return base.scatter(1, i, src), i


PLACES = torch.tensor([[0, 2], [3, 1], [1, 2]])


@right(*normal((3, 4), (3, 2)), PLACES, forward=put_at)
def scattered(dout, i): return (dout.scatter(1, i, 0.), dout.gather(1, i), None)

@wrong(of=scattered, says='mask_missing')
def scattered_base_not_stopped(dout, i): return (dout.clone(), dout.gather(1, i), None)

@wrong(of=scattered, says='permuted flipped')
def scattered_source_turned(dout, i): return (dout.scatter(1, i, 0.), dout.gather(1, i.flip(1)), None)


@right(torch.tensor([[0, 1, 1], [4, 0, 4]]), init=(*normal((5, 3)),))
class Bag(Module):
    "The mean of some rows of a table"
    def __init__(self, w): self.w = w
    def forward(self, i): return self.w[i].mean(1)
    def bwd(self, out, i):
        share = out.g[:, None].expand(*i.shape, -1)/i.shape[1]
        self.w.g = torch.zeros_like(self.w).index_add_(0, i.flatten(), share.flatten(0, 1))

@wrong(of=Bag, says='size_mean_missing')
class BagSums(Bag):
    def bwd(self, out, i):
        super().bwd(out, i)
        self.w.g = self.w.g*i.shape[1]

@wrong(of=Bag, says='indices_overwritten')
class BagOverwrites(Bag):
    def bwd(self, out, i):
        self.w.g = torch.zeros_like(self.w)
        for column in i.t():
            self.w.g[column] += out.g/i.shape[1]


ABOUT_HALF = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 0, 1]]).bool()


def pick(x, mask): return x[mask], (x, mask)


@right(*normal((3, 4)), ABOUT_HALF, forward=pick)
def pick_back(dout, cache):
    x, mask = cache
    dx = torch.zeros_like(x)
    dx[mask] = dout
    return dx, None


@wrong(of=pick_back, says='permuted')
def boolean_mask_by_columns(dout, cache):
    x, mask = cache
    dx = torch.zeros_like(x)
    dx.T[mask.T] = dout
    return dx, None


def segment_mean(x, seg):
    n = int(seg.max())+1
    count = torch.bincount(seg, minlength=n).clamp_min(1)[:, None]
    return x.new_zeros(n, x.shape[1]).index_add(0, seg, x)/count, (seg, count)


@right(*normal((6, 2)), torch.tensor([0, 0, 1, 2, 2, 2]), forward=segment_mean)
def segment_mean_back(dout, cache):
    seg, count = cache
    return (dout/count)[seg], None

@wrong(of=segment_mean_back, says='factor_missing')
def mean_by_segment_not_divided(dout, cache):
    seg, _ = cache
    return dout[seg], None

@wrong(of=segment_mean_back, says='factor_missing path_scaled')
def mean_by_segment_divided_by_all(dout, cache):
    seg, count = cache
    return dout[seg]/len(seg), None


def first_row_held(i, w): return torch.cat([w[:1].detach(), w[1:]])[i]


def padded_lookup(i, w): return w[i], (i, w)


@right(torch.tensor([0, 2, 0, 3, 2]), *normal((4, 3)), forward=padded_lookup, intended=first_row_held)
def padded_lookup_back(dout, cache):
    i, w = cache
    dw = torch.zeros_like(w).index_add_(0, i, dout)
    dw[0] = 0
    return None, dw


@wrong(of=padded_lookup_back, says='some_rows mask_missing')
def padding_index_trained(dout, cache):
    i, w = cache
    return None, torch.zeros_like(w).index_add_(0, i, dout)

@wrong(of=padded_lookup_back, says='some_rows')
def padding_index_last_row_held(dout, cache):
    i, w = cache
    dw = torch.zeros_like(w).index_add_(0, i, dout)
    dw[-1] = dw[0] = 0
    return None, dw


def in_order(x):
    out, i = x.sort(1)
    return out, i


@right(*normal((3, 5)), forward=in_order)
def sorted_rows(dout, i): return torch.zeros_like(dout).scatter(1, i, dout)

@wrong(of=sorted_rows, says='permuted')
def sorted_rows_order_applied_again(dout, i): return dout.gather(1, i)

@wrong(of=sorted_rows, says='wrong_tensor derivative_missing permuted upstream_passed')
def sorted_rows_left_in_order(dout, i): return dout.clone()


def largest(x, k):
    best = x.topk(k, dim=1)
    return best.values, (x, best.indices)


@right(*normal((3, 5)), 2, forward=largest)
def largest_back(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter(1, i, dout), None

@wrong(of=largest_back, says='permuted flipped')
def top_k_smallest_first(dout, cache): return largest_back(dout.flip(1), cache)


def middle(x):
    best = x.median(1)
    return best.values, (x, best.indices)


@right(*normal((3, 5)), forward=middle)
def median(dout, c): return F.one_hot(c[1], c[0].shape[1])*dout[:, None]

@wrong(of=median, says='mask_missing')
def median_spread_over_the_row(dout, c): return (dout[:, None]/c[0].shape[1]).expand_as(c[0])


# Running sums

@right(*normal((3, 5)))
class CumSum(Module):
    def forward(self, x): return x.cumsum(1)
    def bwd(self, out, x): x.g = out.g.flip(1).cumsum(1).flip(1)

@wrong(of=CumSum, says='not_reversed')
class CumSumForward(CumSum):
    def bwd(self, out, x): x.g = out.g.cumsum(1)

@wrong(of=CumSum, says='shifted path_missing')
class CumSumShort(CumSum):
    def bwd(self, out, x):
        super().bwd(out, x)
        x.g = x.g-out.g

@wrong(of=CumSum, says='wrong_axis')
class CumSumOtherAxis(CumSum):
    def bwd(self, out, x): x.g = out.g.flip(0).cumsum(0).flip(0)


def running_product(x):
    out = x.cumprod(1)
    return out, (x, out)


@right(*normal((3, 4)), forward=running_product)
def running_product_back(dout, cache):
    x, out = cache
    return (dout*out).flip(1).cumsum(1).flip(1)/x

@wrong(of=running_product_back, says='diagonal_only')
def cumprod_last_factor_only(dout, cache):
    x, out = cache
    return dout*out/x

@wrong(of=running_product_back, says='not_reversed')
def cumprod_not_reversed(dout, cache):
    x, out = cache
    return (dout*out).cumsum(1)/x


def running_max(x):
    best = x.cummax(1)
    return best.values, (x, best.indices)


@right(*normal((3, 5)), forward=running_max)
def cummax(dout, c): return torch.zeros_like(c[0]).scatter_add(1, c[1], dout)

@wrong(of=cummax, says='indices_overwritten')
def cummax_overwritten(dout, c): return torch.zeros_like(c[0]).scatter(1, c[1], dout)


def steps(x): return x[:, 1:]-x[:, :-1], x.shape


@right(*normal((3, 5)), forward=steps)
def steps_back(dout, shape):
    dx = dout.new_zeros(shape)
    dx[:, 1:] += dout
    dx[:, :-1] -= dout
    return dx

@wrong(of=steps_back, says='sign')
def differences_sign(dout, shape): return -steps_back(dout, shape)

@wrong(of=steps_back, says='path_missing')
def differences_one_side_only(dout, shape): return F.pad(dout, (1, 0))


def decayed(x, a):
    "h[t] = a[t]*h[t-1] + x[t]"
    h, hs = torch.zeros_like(x[0]), []
    for xt, at in zip(x, a):
        h = at*h+xt
        hs.append(h)
    return torch.stack(hs), (a, torch.stack(hs))


@right(*normal((4, 3), (4, 3)), forward=decayed)
def decayed_back(dout, cache):
    a, hs = cache
    dh, dx, da = torch.zeros_like(hs[0]), torch.zeros_like(hs), torch.zeros_like(a)
    for t in reversed(range(len(a))):
        dh = dh+dout[t]
        dx[t] = dh
        da[t] = dh*hs[t-1] if t else torch.zeros_like(dh)
        dh = dh*a[t]
    return dx, da

@wrong(of=decayed_back, says='shifted')
def linear_scan_decay_of_the_step_before(dout, cache):
    a, hs = cache
    return decayed_back(dout, (a.roll(1, 0), hs))

@wrong(of=decayed_back, says='shifted')
def linear_scan_state_of_the_same_step(dout, cache):
    a, hs = cache
    dx, _ = decayed_back(dout, cache)
    return dx, dx*hs


# Matrices

def regular(n):
    "A matrix that is far from singular, and not symmetric"
    return normal((n, n))[0]*.3+torch.eye(n)*2


def positive(n):
    "A symmetric matrix with positive eigenvalues"
    a = regular(n)
    return a@a.t()


def batched(a, b): return a@b, (a, b)


@right(*normal((2, 3, 4), (2, 4, 2)), forward=batched)
def batched_back(dout, cache):
    a, b = cache
    return dout@b.mT, a.mT@dout

@wrong(*normal((2, 3, 3), (2, 3, 3)), of=batched_back, says='w_not_transposed')
def matmul_batched_square_not_transposed(dout, c): return dout@c[1], c[0].mT@dout

@wrong(of=batched_back, says='reshaped')
def matmul_batched_result_transposed(dout, c): return (dout@c[1].mT, (dout.mT@c[0]).reshape(c[1].shape))


@right(*normal((2, 3, 4), (4, 2)), forward=batched)
def shared_weights_back(dout, cache):
    a, b = cache
    return dout@b.t(), torch.einsum('nij,nik->jk', a, dout)

@wrong(of=shared_weights_back, says='not_summed')
def matmul_shared_not_summed(dout, cache): return batched_back(dout, cache)

@wrong(of=shared_weights_back, says='mean_for_sum')
def matmul_shared_averages(dout, c): return (dout@c[1].t(), (c[0].mT@dout).mean(0))


def bilinear(x, w, y): return torch.einsum('ni,oij,nj->no', x, w, y), (x, w, y)


@right(*normal((4, 3), (2, 3, 3), (4, 3)), forward=bilinear)
def bilinear_back(dout, cache):
    x, w, y = cache
    dx = torch.einsum('no,oij,nj->ni', dout, w, y)
    dw = torch.einsum('no,ni,nj->oij', dout, x, y)
    return dx, dw, torch.einsum('no,oij,ni->nj', dout, w, x)

@wrong(of=bilinear_back, says='transposed')
def bilinear_form_sides_exchanged(dout, cache):
    dx, dw, dy = bilinear_back(dout, cache)
    return dx, dw.mT, dy

@wrong(of=bilinear_back, says='wrong_tensor')
def bilinear_form_inputs_exchanged(dout, cache):
    dx, dw, dy = bilinear_back(dout, cache)
    return dy, dw, dx


@right(regular(3))
class Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        out = torch.linalg.inv(a)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, dout):
        inv, = ctx.saved_tensors
        return -inv.mT@dout@inv.mT


@wrong(of=Inverse, says='sign')
class InverseSign(Inverse):
    @staticmethod
    def backward(ctx, dout): return -Inverse.backward(ctx, dout)

@wrong(of=Inverse, says='w_not_transposed transposed')
class InverseNotTransposed(Inverse):
    @staticmethod
    def backward(ctx, dout):
        inv, = ctx.saved_tensors
        return -inv@dout@inv


def det(a):
    out = torch.linalg.det(a)
    return out, (a, out)


@right(torch.stack([regular(3), regular(3).t()+.1]), forward=det)
def determinant(dout, c): return (dout*c[1])[:, None, None]*torch.linalg.inv(c[0]).mT

@wrong(of=determinant, says='transposed w_not_transposed')
def determinant_inverse_not_transposed(dout, c): return (dout*c[1])[:, None, None]*torch.linalg.inv(c[0])

@wrong(of=determinant, says='factor_missing path_scaled')
def determinant_forgotten(dout, c):
    "The gradient of its logarithm"
    return dout[:, None, None]*torch.linalg.inv(c[0]).mT


def solve(a, b):
    x = torch.linalg.solve(a, b)
    return x, (a, x)


@right(regular(3), *normal((3, 2)), forward=solve)
def solve_back(dout, cache):
    a, x = cache
    db = torch.linalg.solve(a.mT, dout)
    return -db@x.mT, db

@wrong(of=solve_back, says='w_not_transposed')
def linear_solve_not_transposed(dout, cache):
    a, x = cache
    db = torch.linalg.solve(a, dout)
    return -db@x.mT, db

@wrong(of=solve_back, says='sign')
def linear_solve_sign(dout, cache):
    da, db = solve_back(dout, cache)
    return -da, db


def cholesky_solve(spd, b):
    low = torch.linalg.cholesky(spd)
    x = torch.cholesky_solve(b, low)
    return x, (low, x)


def symmetric_part(a): return (a+a.mT)/2


@right(positive(3), *normal((3, 2)), forward=cholesky_solve)
def cholesky_solve_back(dout, cache):
    "As `cholesky` reads a symmetric matrix: its gradient is symmetric, too"
    low, x = cache
    db = torch.cholesky_solve(dout, low)
    return -symmetric_part(db@x.mT), db

@wrong(of=cholesky_solve_back, says='factor_two')
def solve_by_cholesky_twice(dout, cache):
    da, db = cholesky_solve_back(dout, cache)
    return 2*da, db


def trace(a): return torch.einsum('nii->n', a), a


@right(*normal((2, 3, 3)), forward=trace)
def traces(dout, a): return dout[:, None, None]*torch.eye(a.shape[1], dtype=a.dtype)

@wrong(of=traces, says='mask_missing')
def traces_everywhere(dout, a): return dout[:, None, None].expand_as(a).clone()


def outer(x, y): return x[:, None]*y, (x, y)


@right(*arrays((3,), (4,)), forward=outer)
def outer_product(dout, c): return (dout@c[1], dout.T@c[0])

@wrong(*arrays((3,), (3,)), of=outer_product, says='w_not_transposed operands_swapped transposed')
def outer_product_of_equals_exchanged(dout, c): return (dout.T@c[1], dout@c[0])

@wrong(of=outer_product, says='factor_missing')
def outer_product_factor_forgotten(dout, c): return (dout.sum(1), dout.T@c[0])


def quadratic(x, a): return ((x@a)*x).sum(1), (x, a)


@right(*normal((4, 3), (3, 3)), forward=quadratic)
def quadratic_back(dout, cache):
    x, a = cache
    return dout[:, None]*(x@(a+a.t())), x.t()@(dout[:, None]*x)

@wrong(of=quadratic_back, says='w_not_transposed path_missing')
def quadratic_form_taken_for_symmetric(dout, cache):
    x, a = cache
    return 2*dout[:, None]*(x@a), quadratic_back(dout, cache)[1]

@wrong(of=quadratic_back, says='path_missing')
def quadratic_form_one_side_only(dout, cache):
    x, a = cache
    return dout[:, None]*(x@a), quadratic_back(dout, cache)[1]


def lower_solve(low, b):
    x = torch.linalg.solve_triangular(low, b, upper=False)
    return x, (low, x)


@right(regular(3).tril(), *normal((3, 2)), forward=lower_solve)
def lower_solve_back(dout, cache):
    low, x = cache
    db = torch.linalg.solve_triangular(low.mT, dout, upper=True)
    return -(db@x.mT).tril(), db

@wrong(of=lower_solve_back, says='mask_missing')
def triangular_solve_whole_matrix(dout, cache):
    low, x = cache
    db = lower_solve_back(dout, cache)[1]
    return -db@x.mT, db

@wrong(of=lower_solve_back, says='mask_wrong')
def triangular_solve_diagonal_forgotten(dout, cache):
    da, db = lower_solve_back(dout, cache)
    return da.tril(-1), db


def gram(x): return x@x.t(), x


@right(*normal((4, 3)), forward=gram)
def gram_matrix(dout, x): return (dout+dout.t())@x

@wrong(of=gram_matrix, says='w_not_transposed')
def gram_matrix_upstream_taken_for_symmetric(dout, x): return 2*dout@x

@wrong(of=gram_matrix, says='path_missing')
def gram_matrix_one_side_only(dout, x): return dout@x


def squared_distances(x, y): return (x[:, None]-y).square().sum(-1), (x, y)


@right(*normal((4, 3), (2, 3)), forward=squared_distances)
def squared_distances_back(dout, cache):
    x, y = cache
    d = 2*dout[..., None]*(x[:, None]-y)
    return d.sum(1), -d.sum(0)

@wrong(of=squared_distances_back, says='sign')
def distances_sign_of_the_second(dout, cache):
    dx, dy = squared_distances_back(dout, cache)
    return dx, -dy

@wrong(of=squared_distances_back, says='factor_two_missing')
def distances_two_forgotten(dout, cache):
    dx, dy = squared_distances_back(dout, cache)
    return dx/2, dy/2


def covariance(x):
    z = x-x.mean(0)
    return z.t()@z/(len(x)-1), z


@right(*normal((5, 3)), forward=covariance)
def covariances(dout, z): return z@(dout+dout.t())/(len(z)-1)

@wrong(of=covariances, says='n_minus_one')
def covariances_divided_by_n(dout, z): return z@(dout+dout.t())/len(z)


# Recurrent cells

@right(*normal((3, 2, 2)), init=normal((2, 3), (3, 3), (3,)))
class RNN:
    "tanh(x[t] @ Wx + h @ Wh + b) for all steps; `backward(dout) → dx` leaves dWx, dWh, db"
    def __init__(self, Wx, Wh, b): self.Wx, self.Wh, self.b = Wx, Wh, b

    def forward(self, x):
        self.x, self.hs = x, [x.new_zeros(x.shape[1], len(self.b))]
        for xt in x:
            self.hs.append(torch.tanh(xt@self.Wx+self.hs[-1]@self.Wh+self.b))
        return torch.stack(self.hs[1:])

    def backward(self, dout):
        dh, dx = torch.zeros_like(self.hs[0]), torch.zeros_like(self.x)
        self.dWx, self.dWh, self.db = map(torch.zeros_like, (self.Wx, self.Wh, self.b))
        for t in reversed(range(len(dout))):
            da = (dout[t]+dh)*self.slope(t)
            self.step(da, t)
            dx[t], dh = da@self.Wx.T, self.carry(da)
        return dx

    def slope(self, t): return 1-self.hs[t+1]**2
    def carry(self, da): return da@self.Wh.T
    def step(self, da, t):
        "Add one step's shares"
        self.dWx += self.x[t].T@da
        self.dWh += self.hs[t].T@da
        self.db += da.sum(0)


@wrong(of=RNN, says='path_missing')
class RNNTruncated(RNN):
    def carry(self, da): return 0*da

@wrong(of=RNN, says='shifted')
class RNNWrongState(RNN):
    def step(self, da, t):
        super().step(da, t)
        self.dWh += (self.hs[t+1]-self.hs[t]).T@da

@wrong(of=RNN, says='w_not_transposed')
class RNNNotTransposed(RNN):
    def carry(self, da): return da@self.Wh

@wrong(of=RNN, says='zero tied_overwritten path_missing')
class RNNLastStepOnly(RNN):
    def step(self, da, t):
        self.dWx, self.dWh, self.db = self.x[t].T@da, self.hs[t].T@da, da.sum(0)

@wrong(of=RNN, says='derivative_wrong')
class RNNNoSlope(RNN):
    def slope(self, t): return 1-self.hs[t+1]

@wrong(of=RNN, says='path_doubled')
class RNNCarriesTwice(RNN):
    def carry(self, da): return 2*da@self.Wh.T


def lstm_cell(x, h, c, w):
    "Gates: in, forget, out, and the candidate"
    a = torch.cat([x, h], 1)@w
    i, f, o, g = a.chunk(4, 1)
    i, f, o, g = i.sigmoid(), f.sigmoid(), o.sigmoid(), g.tanh()
    new = f*c+i*g
    return (o*new.tanh(), new), (x, h, c, w, i, f, o, g, new)


@right(*normal((3, 2), (3, 2), (3, 2), (4, 8)), forward=lstm_cell)
def lstm_cell_back(dout, cache, slope=True, from_h=True):
    x, h, c, w, i, f, o, g, new = cache
    dh, dnew = dout
    dnew = dnew+dh*o*(1-new.tanh()**2 if slope else 1)*from_h
    gates = [dnew*g*i*(1-i), dnew*c*f*(1-f), dh*new.tanh()*o*(1-o), dnew*i*(1-g*g)]
    da = torch.cat(gates, 1)
    dx, dh = (da@w.t()).split([x.shape[1], h.shape[1]], 1)
    return dx, dh, dnew*f, torch.cat([x, h], 1).t()@da

@wrong(of=lstm_cell_back, says='derivative_missing')
def lstm_slope_of_the_cell_forgotten(dout, cache): return lstm_cell_back(dout, cache, slope=False)

@wrong(of=lstm_cell_back, says='path_missing')
def lstm_no_way_from_output_to_cell(dout, cache): return lstm_cell_back(dout, cache, from_h=False)

@wrong(of=lstm_cell_back, says='output_ignored path_missing')
def lstm_upstream_of_the_cell_forgotten(dout, cache): return lstm_cell_back((dout[0], 0), cache)

@wrong(of=lstm_cell_back, says='factor_missing')
def lstm_forget_gate_not_applied(dout, cache):
    dx, dh, dc, dw = lstm_cell_back(dout, cache)
    return dx, dh, dc/cache[5], dw

@wrong(of=lstm_cell_back, says='permuted')
def lstm_gates_in_another_order(dout, cache):
    dx, dh, dc, dw = lstm_cell_back(dout, cache)
    i, f, o, g = dw.chunk(4, 1)
    return dx, dh, dc, torch.cat([i, g, f, o], 1)

@wrong(of=lstm_cell_back, says='wrong_tensor')
def lstm_input_and_state_exchanged(dout, cache):
    dx, dh, dc, dw = lstm_cell_back(dout, cache)
    return dh, dx, dc, dw


def lstm_all(xs, w):
    "All steps: the outputs alone"
    h = c = xs.new_zeros(xs.shape[1], w.shape[1]//4)
    hs, caches = [], []
    for x in xs:
        (h, c), cache = lstm_cell(x, h, c, w)
        hs.append(h)
        caches.append(cache)
    return torch.stack(hs), caches


@right(*normal((3, 2, 2), (4, 8)), forward=lstm_all)
def lstm_all_back(dout, caches, carries=True):
    dh, dc, dw, dxs = 0, 0, 0, []
    for d, cache in zip(dout.flip(0), caches[::-1]):
        dx, dh, dc, share = lstm_cell_back((d+dh, dc*carries), cache)
        dw = dw+share
        dxs.append(dx)
    return torch.stack(dxs[::-1]), dw

@wrong(of=lstm_all_back, says='path_missing')
def lstm_over_time_cell_not_carried(dout, caches): return lstm_all_back(dout, caches, carries=False)

@wrong(of=lstm_all_back, says='flipped')
def lstm_over_time_steps_in_reverse(dout, caches):
    dx, dw = lstm_all_back(dout, caches)
    return dx.flip(0), dw


def gru_cell(x, h, w, v):
    "Reset and update gate from `w`, candidate from `v`"
    r, z = (torch.cat([x, h], 1)@w).sigmoid().chunk(2, 1)
    n = (torch.cat([x, r*h], 1)@v).tanh()
    return (1-z)*n+z*h, (x, h, w, v, r, z, n)


@right(*normal((3, 2), (3, 2), (4, 4), (4, 2)), forward=gru_cell)
def gru_cell_back(dout, cache, reset=True, update=True, mixed=False):
    x, h, w, v, r, z, n = cache
    dn = dout*(z if mixed else 1-z)*(1-n*n)
    dx, drh = (dn@v.t()).split([x.shape[1], h.shape[1]], 1)
    dz = dout*(h-n)*z*(1-z)*update
    dr = drh*h*r*(1-r)*reset
    gates = torch.cat([dr, dz], 1)
    dx2, dh2 = (gates@w.t()).split([x.shape[1], h.shape[1]], 1)
    dw, dv = torch.cat([x, h], 1).t()@gates, torch.cat([x, r*h], 1).t()@dn
    return dx+dx2, dout*z+drh*r+dh2, dw, dv

@wrong(of=gru_cell_back, says='path_missing')
def gru_reset_gate_taken_for_constant(dout, cache): return gru_cell_back(dout, cache, reset=False)

@wrong(of=gru_cell_back, says='path_missing')
def gru_update_gate_taken_for_constant(dout, cache): return gru_cell_back(dout, cache, update=False)

@wrong(of=gru_cell_back, says='term_missing')
def gru_update_gate_exchanged(dout, cache): return gru_cell_back(dout, cache, mixed=True)

@wrong(of=gru_cell_back, says='path_missing')
def gru_old_state_not_kept(dout, cache):
    dx, dh, dw, dv = gru_cell_back(dout, cache)
    return dx, dh-dout*cache[5], dw, dv


# Attention

def attend(q, k, v):
    p = (q@k.mT/math.sqrt(q.shape[-1])).softmax(-1)
    return p@v, (q, k, v, p)


@right(*normal((2, 4, 3), (2, 5, 3), (2, 5, 2)), forward=attend)
def attend_back(dout, cache):
    q, k, v, p = cache
    dp = dout@v.mT
    ds = p*(dp-(dp*p).sum(-1, keepdim=True))/math.sqrt(q.shape[-1])
    return ds@k, ds.mT@q, p.mT@dout

@wrong(of=attend_back, says='scale_missing factor_missing')
def attention_keys_not_scaled(dout, cache):
    dq, dk, dv = attend_back(dout, cache)
    return dq, dk*math.sqrt(dq.shape[-1]), dv

@wrong(of=attend_back, says='denominator_path_missing')
def attention_denominator_taken_for_constant(dout, cache):
    q, k, v, p = cache
    ds = p*(dout@v.mT)/math.sqrt(q.shape[-1])
    return ds@k, ds.mT@q, p.mT@dout

@wrong(of=attend_back, says='wrong_axis')
def attention_softmax_over_the_wrong_axis(dout, cache):
    q, k, v, p = cache
    dp = dout@v.mT
    ds = p*(dp-(dp*p).sum(-2, keepdim=True))/math.sqrt(q.shape[-1])
    return ds@k, ds.mT@q, p.mT@dout

@wrong(of=attend_back, says='at_input')
def attention_values_by_scores(dout, cache):
    "The scores before the softmax, where its result belongs"
    q, k, v, p = cache
    scores = q@k.mT/math.sqrt(q.shape[-1])
    return *attend_back(dout, cache)[:2], scores.mT@dout

@wrong(*normal((2, 4, 3), (2, 4, 3), (2, 4, 3)), of=attend_back, says='w_not_transposed')
def attention_values_not_transposed(dout, cache):
    return *attend_back(dout, cache)[:2], cache[3]@dout


def not_later(scores):
    "Scores, with minus infinity for positions that come later"
    n = scores.shape[-1]
    return scores.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf)


def attend_causally(q, k, v):
    p = not_later(q@k.mT/math.sqrt(q.shape[-1])).softmax(-1)
    return p@v, (q, k, v, p)


@right(*normal((2, 4, 3), (2, 4, 3), (2, 4, 3)), forward=attend_causally)
def attention_causal(dout, cache): return attend_back(dout, cache)

@wrong(of=attention_causal, says='mask_missing')
def attention_causal_computed_again_without_mask(dout, cache):
    "Who saves memory computes the scores again on the way back, and needs the mask there, too"
    q, k, v, _ = cache
    p = (q@k.mT/math.sqrt(q.shape[-1])).softmax(-1)
    return attend_back(dout, (q, k, v, p))

@wrong(of=attention_causal, says='mask_wrong')
def attention_causal_own_position_masked(dout, cache):
    q, k, v, p = cache
    return attend_back(dout, (q, k, v, p.tril(-1)))


def heads(t, n):
    "(batch, time, channels) → (batch, heads, time, channels of one)"
    return t.reshape(*t.shape[:2], n, -1).transpose(1, 2)


def merged(t): return t.transpose(1, 2).flatten(2)


@right(*normal((2, 3, 4)), init=(*normal((4, 4), (4, 4), (4, 4), (4, 4)), 2))
class SelfAttention(Module):
    "Several heads; queries, keys and values of the same input"
    def __init__(self, wq, wk, wv, wo, n): self.wq, self.wk, self.wv, self.wo, self.n = wq, wk, wv, wo, n

    def forward(self, x):
        q, k, v = [heads(x@w, self.n) for w in (self.wq, self.wk, self.wv)]
        out, self.cache = attend(q, k, v)
        self.z = merged(out)
        return self.z@self.wo

    def bwd(self, out, x):
        self.wo.g = (self.z.mT@out.g).sum(0)
        grads = attend_back(self.upstream(out.g@self.wo.t()), self.cache)
        dq, dk, dv = map(merged, grads)
        self.wq.g, self.wk.g, self.wv.g = [(x.mT@d).sum(0) for d in (dq, dk, dv)]
        x.g = self.joined(dq@self.wq.t(), dk@self.wk.t(), dv@self.wv.t())

    def upstream(self, d): return heads(d, self.n)
    def joined(self, *shares): return sum(shares)


@wrong(of=SelfAttention, says='reshaped')
class HeadsReshaped(SelfAttention):
    def upstream(self, d): return d.reshape(len(d), self.n, d.shape[1], -1)

@wrong(of=SelfAttention, says='path_missing')
class ShareOfValuesOnly(SelfAttention):
    def joined(self, *shares): return shares[-1]

@wrong(of=SelfAttention, says='path_missing')
class ShareOfKeysLost(SelfAttention):
    def joined(self, q, k, v): return q+v

@wrong(of=SelfAttention, says='wrong_tensor')
class QueriesForKeys(SelfAttention):
    def bwd(self, out, x):
        super().bwd(out, x)
        self.wq.g, self.wk.g = self.wk.g, self.wq.g


def angles(x):
    "Sine and cosine by position and pair of channels"
    t, k = x.shape[-2], x.shape[-1]//2
    rate = 10.**-torch.arange(k, dtype=x.dtype)
    a = torch.arange(t, dtype=x.dtype)[:, None]*rate
    return a.sin(), a.cos()


def turned(x, sin, cos):
    "Each pair of channels, turned"
    a, b = x.chunk(2, -1)
    return torch.cat([a*cos-b*sin, b*cos+a*sin], -1)


@right(*normal((2, 3, 4)))
class Rotary(Module):
    def forward(self, x): return turned(x, *angles(x))
    def bwd(self, out, x):
        sin, cos = angles(x)
        x.g = turned(out.g, -sin, cos)

@wrong(of=Rotary, says='sign path_sign')
class RotaryOn(Rotary):
    def bwd(self, out, x): x.g = turned(out.g, *angles(x))

@wrong(of=Rotary, says='permuted')
class RotaryPairs(Rotary):
    "Pairs side by side on the way back, halves on the way forward"
    def bwd(self, out, x):
        sin, cos = angles(x)
        a, b = out.g[..., ::2], out.g[..., 1::2]
        x.g = torch.stack([a*cos+b*sin, b*cos-a*sin], -1).flatten(-2)


def biased(q, k, bias):
    p = (q@k.mT+bias).softmax(-1)
    return p, (q, k, p)


@right(*normal((2, 3, 4), (2, 3, 4), (3, 3)), forward=biased)
def biased_back(dout, cache):
    q, k, p = cache
    ds = p*(dout-(dout*p).sum(-1, keepdim=True))
    return ds@k, ds.mT@q, ds.sum(0)

@wrong(of=biased_back, says='not_summed')
def attention_bias_not_summed(dout, cache):
    dq, dk, _ = biased_back(dout, cache)
    q, k, p = cache
    return dq, dk, p*(dout-(dout*p).sum(-1, keepdim=True))

@wrong(of=biased_back, says='mean_for_sum')
def attention_bias_averaged(dout, cache):
    dq, dk, db = biased_back(dout, cache)
    return dq, dk, db/len(dq)


def grouped(q, k, v):
    "Four heads of queries share two of keys and values"
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    return attend(q, k, v)


@right(*normal((1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)), forward=grouped)
def grouped_back(dout, cache):
    dq, dk, dv = attend_back(dout, cache)
    return dq, *[d.unflatten(1, (-1, 2)).sum(2) for d in (dk, dv)]

@wrong(of=grouped_back, says='permuted reshaped')
def attention_grouped_by_other_heads(dout, cache):
    dq, dk, dv = attend_back(dout, cache)
    return dq, *[d.unflatten(1, (2, -1)).sum(1) for d in (dk, dv)]

@wrong(of=grouped_back, says='factor_two_missing mean_for_sum constant_factor')
def attention_grouped_averages(dout, cache):
    dq, dk, dv = grouped_back(dout, cache)
    return dq, dk/2, dv/2


# Joining and parting

def join(xs): return torch.cat(xs, 1), [x.shape[1] for x in xs]


@right(normal((3, 2), (3, 1), (3, 4)), forward=join)
def concatenation(dout, sizes): return (list(dout.split(sizes, 1)),)

@wrong(normal((3, 2), (3, 1), (3, 4)), of=concatenation, says='shifted')
def concatenation_in_reverse(dout, sizes): return (list(dout.split(sizes[::-1], 1))[::-1],)

@wrong(normal((3, 2), (3, 2)), of=concatenation, says='wrong_tensor')
def concatenation_of_equals_exchanged(dout, sizes): return (list(dout.split(sizes, 1))[::-1],)


def pile(x, y): return torch.stack([x, y], 1), None


@right(*normal((2, 3), (2, 3)), forward=pile)
def stack(dout, _): return dout.unbind(1)

@wrong(of=stack, says='wrong_axis transposed permuted path_exchanged')
def stack_taken_apart_along_the_rows(dout, _): return dout.unbind(0)

@wrong(of=stack, says='wrong_tensor')
def stack_exchanged(dout, _): return dout.unbind(1)[::-1]


Halves = namedtuple('Halves', 'left right')


def halve(x): return Halves(*x.chunk(2, 1)), x.shape


@right(*normal((3, 4)), forward=halve)
def split_into_two(dout, shape): return torch.cat([dout.left, dout.right], 1)

@wrong(of=split_into_two, says='path_missing output_ignored some_columns')
def split_second_half_forgotten(dout, shape): return torch.cat([dout.left, torch.zeros_like(dout.left)], 1)


@right(*normal((3, 6)))
class GLU(Module):
    "One half gates the other"
    def forward(self, x):
        self.a, self.s = x.chunk(2, -1)[0], x.chunk(2, -1)[1].sigmoid()
        return self.a*self.s

    def bwd(self, out, x): x.g = torch.cat([out.g*self.s, out.g*self.a*self.s*(1-self.s)], -1)

@wrong(of=GLU, says='permuted shifted halves_swapped')
class GLUExchanged(GLU):
    def bwd(self, out, x):
        super().bwd(out, x)
        x.g = torch.cat(x.g.chunk(2, -1)[::-1], -1)

@wrong(of=GLU, says='derivative_missing')
class GLUNoSlope(GLU):
    def bwd(self, out, x): x.g = torch.cat([out.g*self.s, out.g*self.a], -1)


# Reductions

def mean_of(x): return x.mean((1, 2)), x.shape


@right(*arrays((3, 2, 4)), forward=mean_of)
def mean_of_back(dout, shape): return np.broadcast_to(dout[:, None, None], shape)/(shape[1]*shape[2])

@wrong(of=mean_of_back, says='size_mean_missing')
def mean_over_one_of_two(dout, shape): return mean_of_back(dout, shape)*shape[1]

@wrong(of=mean_of_back, says='mean_for_sum size_mean_extra')
def mean_over_all(dout, shape): return mean_of_back(dout, shape)/shape[0]


def variance(x): return x.var(1), x


@right(*normal((3, 5)), forward=variance)
def variance_back(dout, x, less=1):
    return 2*dout[:, None]*(x-x.mean(1, keepdim=True))/(x.shape[1]-less)

@wrong(of=variance_back, says='n_minus_one')
def variance_divided_by_n(dout, x): return variance_back(dout, x, less=0)

@wrong(of=variance_back, says='factor_two_missing')
def variance_two_forgotten(dout, x): return variance_back(dout, x)/2

@wrong(of=variance_back, says='mean_path_missing')
def variance_not_centred(dout, x): return 2*dout[:, None]*x/(x.shape[1]-1)


@right(*normal((5, 3)))
class Deviation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        out = x.std(0, unbiased=False)
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx, dout):
        x, out = ctx.saved_tensors
        return dout*(x-x.mean(0))/(len(x)*out)

@wrong(of=Deviation, says='factor_missing variance_path_scaled')
class DeviationNotDivided(Deviation):
    @staticmethod
    def backward(ctx, dout): return Deviation.backward(ctx, dout)*ctx.saved_tensors[1]

@wrong(of=Deviation, says='size_mean_missing sum_for_mean mean_missing')
class DeviationSum(Deviation):
    @staticmethod
    def backward(ctx, dout): return Deviation.backward(ctx, dout)*len(ctx.saved_tensors[0])


def lengths(x):
    out = x.norm(dim=1)
    return out, (x, out)


@right(*normal((3, 4)), forward=lengths)
def norms(dout, c): return dout[:, None]*c[0]/c[1][:, None]

@wrong(of=norms, says='factor_missing norm_path_scaled')
def norm_not_divided(dout, c): return dout[:, None]*c[0]

@wrong(of=norms, says='factor_two')
def norm_of_squares(dout, c): return 2*dout[:, None]*c[0]/c[1][:, None]

@wrong(of=norms, says='wrong_axis norm_path_scaled')
def norm_of_everything(dout, c): return dout[:, None]*c[0]/c[0].norm()


def unit(x):
    out = x/x.norm(dim=-1, keepdim=True)
    return out, (x, out)


@right(*normal((3, 4)), forward=unit)
def unit_back(dout, cache, along=True):
    x, out = cache
    part = out*(dout*out).sum(-1, keepdim=True)*along
    return (dout-part)/x.norm(dim=-1, keepdim=True)

@wrong(of=unit_back, says='norm_path_missing')
def normalised_length_taken_for_constant(dout, c): return unit_back(dout, c, along=False)

@wrong(of=unit_back, says='at_output factor_missing')
def normalised_not_divided(dout, c): return unit_back(dout, c)*c[0].norm(dim=-1, keepdim=True)

@wrong(of=unit_back, says='wrong_axis')
def normalised_sum_over_the_rows(dout, cache):
    x, out = cache
    return (dout-out*(dout*out).sum(0, keepdim=True))/x.norm(dim=-1, keepdim=True)


@right(*normal((3, 4)))
class LogSumExp(Module):
    def forward(self, x): return x.logsumexp(1)
    def bwd(self, out, x): x.g = (x-out[:, None]).exp()*out.g[:, None]

@wrong(of=LogSumExp, says='factor_missing denominator_path_missing derivative_missing')
class LogSumExpNotDivided(LogSumExp):
    def bwd(self, out, x): x.g = x.exp()*out.g[:, None]

@wrong(of=LogSumExp, says='overflow')
class LogSumExpOverflows(LogSumExp):
    def bwd(self, out, x): x.g = x.exp()/x.exp().sum(1, keepdim=True)*out.g[:, None]


def product(x):
    out = x.prod(1)
    return out, (x, out)


@right(*normal((3, 4)), forward=product)
def products_by_row(dout, c): return dout[:, None]*c[1][:, None]/c[0]

@wrong(of=products_by_row, says='factor_missing factor_twice')
def product_not_divided(dout, c): return (dout*c[1])[:, None].expand_as(c[0])


def spread(x): return x.amax(1)-x.amin(1), x


@right(*normal((3, 5)), forward=spread)
def spread_back(dout, x):
    mine = lambda i: F.one_hot(i, x.shape[1])
    return dout[:, None]*(mine(x.argmax(1))-mine(x.argmin(1)))

@wrong(of=spread_back, says='path_missing')
def range_minimum_forgotten(dout, x): return dout[:, None]*F.one_hot(x.argmax(1), x.shape[1])

@wrong(of=spread_back, says='path_sign')
def range_minimum_added(dout, x): return spread_back(dout, x).abs()*dout[:, None].sign()


# Broadcasting

def column_plus_row(a, b): return a[:, None]+b, None


@right(*normal((3,), (4,)), forward=column_plus_row)
def column_and_row(dout, _): return (dout.sum(1), dout.sum(0))

@wrong(*normal((3,), (3,)), of=column_and_row, says='wrong_tensor wrong_axis')
def column_and_row_sums_exchanged(dout, _): return (dout.sum(0), dout.sum(1))

@wrong(of=column_and_row, says='not_summed')
def column_and_row_not_summed(dout, _): return (dout.sum(1), dout)

@wrong(of=column_and_row, says='extra_axis')
def column_and_row_axis_kept(dout, _): return (dout.sum(1, keepdim=True), dout.sum(0))


@right(*normal((2, 3, 4, 3)), init=normal((3,), (3,)))
class ChannelScale(Module):
    def __init__(self, gain, bias): self.gain, self.bias = gain, bias
    def forward(self, x): return x*self.gain[:, None, None]+self.bias[:, None, None]
    def bwd(self, out, x):
        x.g = out.g*self.gain[:, None, None]
        self.gain.g, self.bias.g = (out.g*x).sum((0, 2, 3)), out.g.sum((0, 2, 3))


@wrong(of=ChannelScale, says='wrong_axis')
class ChannelScaleOtherAxes(ChannelScale):
    def bwd(self, out, x):
        super().bwd(out, x)
        self.bias.g = out.g.sum((0, 1, 2))

@wrong(of=ChannelScale, says='wrong_tensor factor_missing input_forgotten')
class ChannelScaleInput(ChannelScale):
    def bwd(self, out, x):
        super().bwd(out, x)
        self.gain.g = out.g.sum((0, 2, 3))

@wrong(of=ChannelScale, says='mean_for_sum')
class ChannelScaleMean(ChannelScale):
    def bwd(self, out, x):
        super().bwd(out, x)
        self.gain.g, self.bias.g = self.gain.g/len(x), self.bias.g/len(x)

@wrong(of=ChannelScale, says='factor_missing')
class ChannelScaleForgotten(ChannelScale):
    def bwd(self, out, x):
        super().bwd(out, x)
        x.g = out.g


def temper(x, t): return x/t, (x, t)


@right(*normal((3, 4)), torch.tensor(1.7), forward=temper)
def temperature(dout, c): return (dout/c[1], -(dout*c[0]).sum()/c[1]**2)

@wrong(of=temperature, says='square_missing factor_missing factor_twice')
def temperature_not_squared(dout, c): return (dout/c[1], -(dout*c[0]).sum()/c[1])

@wrong(of=temperature, says='not_summed')
def temperature_not_summed(dout, c): return (dout/c[1], -dout*c[0]/c[1]**2)

@wrong(of=temperature, says='sign')
def temperature_sign(dout, c): return (dout/c[1], (dout*c[0]).sum()/c[1]**2)


# Weight norm, as an `nn.Module` whose gradients are written into `.grad` by hand

@right(*normal((4, 3)), init=normal((3, 2), (2,)))
class WeightNorm(torch.nn.Module):
    "x @ (gain * v/|v|), a length and a direction for each column"
    def __init__(self, v, gain):
        super().__init__()
        self.v, self.gain = torch.nn.Parameter(v), torch.nn.Parameter(gain)

    def forward(self, x):
        self.x, self.size = x, self.v.norm(dim=0)
        return x@(self.gain*self.v/self.size)

    def backward(self, dout):
        dw = self.x.t()@dout
        u = self.v/self.size
        self.gain.grad = (dw*u).sum(0)
        self.v.grad = self.gain/self.size*(dw-u*(dw*u).sum(0))
        return dout@(self.gain*u).t()


@wrong(of=WeightNorm, says='norm_path_missing')
class WeightNormConstant(WeightNorm):
    def backward(self, dout):
        dx = super().backward(dout)
        self.v.grad = self.gain/self.size*(self.x.t()@dout)
        return dx

@wrong(of=WeightNorm, says='factor_missing')
class WeightNormNoGain(WeightNorm):
    def backward(self, dout):
        dx = super().backward(dout)
        self.v.grad = self.v.grad/self.gain
        return dx

@wrong(of=WeightNorm, says='wrong_axis')
class WeightNormByRow(WeightNorm):
    def backward(self, dout):
        dx = super().backward(dout)
        dw, u = self.x.t()@dout, self.v/self.size
        self.v.grad = self.gain/self.size*(dw-u*(dw*u).sum(1, keepdim=True))
        return dx

@wrong(of=WeightNorm, says='zero')
class WeightNormNoInput(WeightNorm):
    def backward(self, dout): return super().backward(dout).detach()*0


# Gradients that are meant to differ

@right(*normal((3, 4)), intended=lambda x: x)
class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return (4*x).round()/4
    @staticmethod
    def backward(ctx, dout): return dout

@wrong(of=RoundThrough, says='constant_factor')
class RoundDivided(RoundThrough):
    @staticmethod
    def backward(ctx, dout): return dout/4


@right(*normal((3, 4)), intended=lambda x: x.clamp(-1, 1))
class SignThrough(torch.autograd.Function):
    "Passes where the input is between -1 and 1"
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx, dout):
        x, = ctx.saved_tensors
        return dout*(x.abs()<=1)

@wrong(of=SignThrough, says='mask_missing')
class SignNotClipped(SignThrough):
    @staticmethod
    def backward(ctx, dout): return dout

@wrong(of=SignThrough, says='mask_upstream mask_wrong')
class SignClippedByOutput(SignThrough):
    @staticmethod
    def backward(ctx, dout): return dout*(dout.abs()<=1)


def as_it_is(x, strength): return x.clone(), strength


@right(*normal((3, 4)), .5, forward=as_it_is, intended=lambda x, strength: -strength*x)
def reversed_back(dout, strength): return -strength*dout, None

@wrong(of=reversed_back, says='sign')
def gradient_reversal_not_reversed(dout, strength): return (strength*dout, None)

@wrong(of=reversed_back, says='factor_two constant_factor')
def gradient_reversal_strength_forgotten(dout, strength): return (-dout, None)


# Several outputs, dicts, keyword arguments

def polar(x, y):
    r, angle = (x*x+y*y).sqrt(), torch.atan2(y, x)
    return (r, angle), (x, y, r)


@right(*normal((5,), (5,)), forward=polar)
def polar_back(dr, dangle, cache):
    x, y, r = cache
    return dr*x/r-dangle*y/r**2, dr*y/r+dangle*x/r**2

@wrong(of=polar_back, says='path_missing output_ignored')
def two_outputs_second_forgotten(dr, dangle, cache):
    return polar_back(dr, 0*dangle, cache)

@wrong(of=polar_back, says='upstreams_exchanged path_exchanged')
def two_outputs_upstreams_exchanged(dr, dangle, cache): return polar_back(dangle, dr, cache)

@wrong(of=polar_back, says='path_sign')
def two_outputs_sign_of_the_angle(dr, dangle, cache): return polar_back(dr, -dangle, cache)


def moments(x):
    mean = x.mean(0)
    return dict(mean=mean, var=(x-mean).square().mean(0)), x


@right(*normal((5, 3)), forward=moments)
def moments_back(dout, x):
    return (dout['mean']+2*dout['var']*(x-x.mean(0)))/len(x)

@wrong(of=moments_back, says='path_missing output_ignored')
def outputs_in_a_dict_variance_forgotten(dout, x): return (dout['mean']/len(x)).expand_as(x)

@wrong(of=moments_back, says='path_scaled size_mean_missing')
def outputs_in_a_dict_variance_not_averaged(dout, x): return dout['mean']/len(x)+2*dout['var']*(x-x.mean(0))


def two_layers(x, params):
    h = torch.tanh(x@params['w1'])
    return h@params['w2'], (x, params, h)


@right(*normal((4, 3)), dict(zip(('w1', 'w2'), normal((3, 3), (3, 3)))), forward=two_layers)
def two_layers_back(dout, cache):
    x, params, h = cache
    d = dout@params['w2'].t()*(1-h*h)
    return d@params['w1'].t(), dict(w1=x.t()@d, w2=h.t()@dout)


@wrong(of=two_layers_back, says='wrong_tensor')
def parameters_in_a_dict_exchanged(dout, cache):
    dx, grads = two_layers_back(dout, cache)
    return dx, dict(w1=grads['w2'], w2=grads['w1'])

@wrong(of=two_layers_back, says='derivative_missing')
def parameters_in_a_dict_slope_forgotten(dout, cache):
    x, params, h = cache
    d = dout@params['w2'].t()
    return d@params['w1'].t(), dict(w1=x.t()@d, w2=h.t()@dout)


def affine(x, *, gain, shift=0.): return x*gain+shift, (x, gain)


@right(*normal((4, 3)), forward=affine, **dict(zip(('gain', 'shift'), normal((3,), (3,)))))
def affine_back(dout, cache):
    x, gain = cache
    return dict(x=dout*gain, gain=(dout*x).sum(0), shift=dout.sum(0))

@wrong(of=affine_back, says='never_written')
def keyword_arguments_shift_forgotten(dout, cache):
    grads = affine_back(dout, cache)
    del grads['shift']
    return grads

@wrong(of=affine_back, says='wrong_tensor')
def keyword_arguments_exchanged(dout, cache):
    grads = affine_back(dout, cache)
    return {**grads, 'gain': grads['shift'], 'shift': grads['gain']}


# Engines with a tensor class of their own

class Array:
    "An array that knows what it was made of: `parts` are `(array, way back)`"
    def __init__(self, data, parts=()):
        self.data, self.grad, self.parts = np.asarray(data, dtype=float), 0., parts
    def new(self, data, *parts): return type(self)(data, parts)
    def __matmul__(self, o):
        return self.new(self.data@o.data, (self, lambda g: g@o.data.T), (o, lambda g: self.data.T@g))

    def __mul__(self, o):
        return self.new(self.data*o.data, (self, lambda g: g*o.data), (o, lambda g: g*self.data))

    def __add__(self, o): return self.new(self.data+o.data, (self, self.fit), (o, o.fit))
    def tanh(self):
        out = np.tanh(self.data)
        return self.new(out, (self, lambda g: g*(1-out*out)))

    def fit(self, g):
        "Sum over the axes along which it was stretched"
        return g.sum(tuple(range(g.ndim-self.data.ndim)))

    def take(self, g): self.grad = self.grad+g
    def push(self, g):
        self.take(g)
        for part, back in self.parts:
            part.push(back(g))

def at_arrays(f, cls):
    "The adapter for a function on such arrays"
    grad = lambda a: np.broadcast_to(a.grad, a.data.shape)
    return Engine(f, cls, lambda a: a.data, grad, lambda out, up: out.push(up))


@right(*arrays((3, 2), (2, 4), (4,)))
class LayerOfArrays(Engine):
    kind = Array
    def __init__(self): vars(self).update(vars(at_arrays(lambda x, w, b: (x@w+b).tanh(), self.kind)))


@right(*arrays((3, 2), (2, 2)))
class SquareOfArrays(Engine):
    kind = Array
    def __init__(self): vars(self).update(vars(at_arrays(lambda x, w: (x@w)*(x@w)+x, self.kind)))


class Overwriting(Array):
    def take(self, g): self.grad = g

@wrong(of=SquareOfArrays, says='tied_overwritten factor_two_missing')
class SquareOverwrites(SquareOfArrays): kind = Overwriting


class Averaging(Array):
    def fit(self, g): return g.mean(tuple(range(g.ndim-self.data.ndim)))

@wrong(of=LayerOfArrays, says='mean_for_sum')
class LayerAverages(LayerOfArrays): kind = Averaging


class Untransposed(Array):
    def __matmul__(self, o):
        return self.new(self.data@o.data, (self, lambda g: g@o.data), (o, lambda g: self.data.T@g))

@wrong(of=SquareOfArrays, says='w_not_transposed')
class SquareNotTransposed(SquareOfArrays): kind = Untransposed


class Node:
    "One number, as in micrograd"
    def __init__(self, data, parts=()): self.data, self.grad, self.parts = float(data), 0., parts
    def __mul__(self, o): return type(self)(self.data*o.data, ((self, o.data), (o, self.data)))
    def __add__(self, o): return type(self)(self.data+o.data, ((self, 1.), (o, 1.)))
    def exp(self): return type(self)(math.exp(self.data), ((self, math.exp(self.data)),))
    def push(self, g):
        self.grad += g
        for part, slope in self.parts:
            part.push(g*slope)

def at_numbers(f, cls):
    "The adapter for a function on arrays of such numbers"
    read = lambda key: lambda a: np.vectorize(lambda v: getattr(v, key), otypes=[float])(a)
    def back(out, up):
        for o, u in zip(np.ravel(out), np.ravel(up)):
            o.push(u)
    return Engine(f, np.vectorize(cls, otypes=[object]), read('data'), read('grad'), back)


def growth(a, b): return np.vectorize(lambda v: v.exp(), otypes=[object])(a*b)+a


@right(*arrays((3,), (3,)))
class GrowthOfNumbers(Engine):
    kind = Node
    def __init__(self): vars(self).update(vars(at_numbers(growth, self.kind)))


class NodeExp(Node):
    def exp(self): return type(self)(math.exp(self.data), ((self, self.data),))

@wrong(of=GrowthOfNumbers, says='at_input')
class GrowthSlopeOfExp(GrowthOfNumbers): kind = NodeExp


class NodeLossy(Node):
    def __add__(self, o): return type(self)(self.data+o.data, ((self, 1.),))

@wrong(of=GrowthOfNumbers, says='path_missing')
class GrowthShareLost(GrowthOfNumbers): kind = NodeLossy


# Ways of handing in

@right(*arrays((5, 3)), init=arrays((3, 4), (4, 2), (4,)))
class TwoLayerNet:
    "Parameters and gradients in dicts"
    def __init__(self, W1, W2, b1): self.params, self.grads = dict(W1=W1, W2=W2, b1=b1), {}

    def forward(self, x):
        self.x, self.h = x, np.maximum(x@self.params['W1']+self.params['b1'], 0)
        return self.h@self.params['W2']

    def backward(self, dout):
        dh = dout@self.params['W2'].T*(self.h>0)
        self.grads.update(W2=self.h.T@dout, W1=self.x.T@dh, b1=dh.sum(0))
        return dh@self.params['W1'].T


@wrong(of=TwoLayerNet, says='mask_missing derivative_missing')
class TwoLayerNetOpen(TwoLayerNet):
    def backward(self, dout):
        dh = dout@self.params['W2'].T
        self.grads.update(W2=self.h.T@dout, W1=self.x.T@dh, b1=dh.sum(0))
        return dh@self.params['W1'].T

@wrong(of=TwoLayerNet, says='never_written')
class TwoLayerNetLost(TwoLayerNet):
    def backward(self, dout):
        dx = super().backward(dout)
        del self.grads['b1']
        return dx


@right(*arrays((4, 3)), init=(*arrays((2, 3), (2,)),))
class Dense:
    "`weight` with `grad_weight`, as Torch7 had it"
    def __init__(self, weight, bias): self.weight, self.bias = weight, bias

    def forward(self, inp):
        self.inp = inp
        return inp@self.weight.T+self.bias

    def backward(self, grad_output):
        self.grad_weight, self.grad_bias = grad_output.T@self.inp, grad_output.sum(0)
        return grad_output@self.weight

@wrong(of=Dense, says='low_precision')
class DenseHalf(Dense):
    def backward(self, grad_output):
        dx = super().backward(grad_output)
        self.grad_weight = (self.grad_weight.astype(np.float16)).astype(dx.dtype)
        return dx


class Chain:
    "Layers one after the other, each with `backward(dout)`"
    def __init__(self, *layers): self.layers = layers

    def forward(self, x):
        for l in self.layers:
            x = l.forward(x)
        return x

    def backward(self, dout):
        for l in reversed(self.layers):
            dout = l.backward(dout)
        return dout


@right(*normal((2, 1, 4, 4)), init=normal((2, 1, 3, 3), (2,)))
class ConvNet(Chain):
    "A convolution and average pooling"
    conv, pool = Conv2d, AvgPool
    def __init__(self, w, b): super().__init__(self.conv(w, b, pad=1), self.pool(2))

@wrong(of=ConvNet, says='constant_factor')
class ConvNetSums(ConvNet): pool = SumPoolBack

@wrong(of=ConvNet, says='shifted')
class ConvNetCrops(ConvNet): conv = Conv2dCrops


@right(*normal((3, 4)))
class MaxWithPlaces(torch.autograd.Function):
    "The values and where they are; the latter are integers"
    @staticmethod
    def forward(ctx, x):
        best = x.max(1)
        ctx.save_for_backward(best.indices)
        ctx.mark_non_differentiable(best.indices)
        ctx.columns = x.shape[1]
        return best.values, best.indices

    @staticmethod
    def backward(ctx, dout, _):
        i, = ctx.saved_tensors
        return dout[:, None]*F.one_hot(i, ctx.columns)

@wrong(of=MaxWithPlaces, says='sign')
class MaxOfNegative(MaxWithPlaces):
    @staticmethod
    def backward(ctx, dout, _): return -MaxWithPlaces.backward(ctx, dout, _)


@right(*normal((4, 3), (3,)))
class Swish(torch.autograd.Function):
    "With `setup_context`, and nothing computed that isn't asked for"
    @staticmethod
    def forward(x, beta): return x*torch.sigmoid(beta*x)

    @staticmethod
    def setup_context(ctx, inputs, output): ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, dout):
        x, beta = ctx.saved_tensors
        s, dx, dbeta = torch.sigmoid(beta*x), None, None
        if ctx.needs_input_grad[0]: dx = dout*(s+beta*x*s*(1-s))
        if ctx.needs_input_grad[1]: dbeta = (dout*x*x*s*(1-s)).sum(0)
        return dx, dbeta

@wrong(of=Swish, says='path_missing')
class SwishForgets(Swish):
    @staticmethod
    def backward(ctx, dout):
        x, beta = ctx.saved_tensors
        return dout*torch.sigmoid(beta*x), Swish.backward(ctx, dout)[1]

@wrong(of=Swish, says='squeezed')
class SwishBeta(Swish):
    @staticmethod
    def backward(ctx, dout):
        dx, dbeta = Swish.backward(ctx, dout)
        return dx, dbeta.sum()


class GlobalCube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, dout):
        x, = ctx.saved_tensors
        return 3*dout*x**2


@right(*normal((4, 3)), init=normal((3, 3), (4, 3)))
class ThroughFunction(torch.nn.Module):
    "A Function of our own inside a PyTorch module; the table of positions isn't trained"
    function = GlobalCube
    def __init__(self, w, table):
        super().__init__()
        self.w = torch.nn.Parameter(w)
        self.register_buffer('table', table)

    def forward(self, x): return self.function.apply((x+self.table)@self.w)


class CubeTwice(GlobalCube):
    @staticmethod
    def backward(ctx, dout):
        x, = ctx.saved_tensors
        return 2*dout*x**2


@wrong(of=ThroughFunction, says='constant_factor')
class ThroughWrongPower(ThroughFunction): function = CubeTwice


@right(*normal((4, 3), (4, 3)), init=(*normal((3,)),))
class Merge:
    "Two inputs, one weight: `backward(dout)` returns both gradients"
    def __init__(self, w): self.w = w

    def forward(self, a, b):
        self.a, self.b = a, b
        return a*self.w+b

    def backward(self, dout):
        self.dw = (dout*self.a).sum(0)
        return dout*self.w, dout.clone()

@wrong(of=Merge, says='wrong_input operands_swapped')
class MergeShared(Merge):
    def backward(self, dout):
        self.dw = (dout*self.b).sum(0)
        return dout*self.w, dout.clone()


# What needs no gradient, and inputs that have to stay what they are

def masked_mean(x, lengths):
    "The mean over the first steps of each sequence"
    mask = (torch.arange(x.shape[1])<lengths[:, None])[..., None].to(x.dtype)
    return (x*mask).sum(1)/lengths[:, None], (mask, lengths)


@right(*normal((3, 4, 2)), torch.tensor([4, 1, 3]), forward=masked_mean)
def masked_mean_back(dout, cache):
    mask, lengths = cache
    return mask*(dout/lengths[:, None])[:, None], None

@wrong(of=masked_mean_back, says='mask_missing factor_missing')
def mean_of_sequences_mask_forgotten(dout, cache):
    mask, lengths = cache
    return (dout/lengths[:, None])[:, None].repeat(1, mask.shape[1], 1), None

@wrong(of=masked_mean_back, says='factor_missing')
def mean_of_sequences_divided_by_the_longest(dout, cache):
    mask, _ = cache
    return mask*dout[:, None]/mask.shape[1], None


def attend_masked(q, k, v, mask):
    p = (q@k.mT/math.sqrt(q.shape[-1])+mask).softmax(-1)
    return p@v, (q, k, v, p)


LATER = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), -math.inf)


@right(*normal((4, 3), (4, 3), (4, 3)), LATER, forward=attend_masked)
def attention_additive_mask(dout, cache):
    "The mask is a float of zeros and minus infinities, and gets no gradient"
    return *attend_back(dout, cache), None

@wrong(of=attention_additive_mask, says='scale_missing')
def attention_additive_mask_not_scaled(dout, cache):
    dq, dk, dv = attend_back(dout, cache)
    return dq*math.sqrt(dq.shape[-1]), dk*math.sqrt(dq.shape[-1]), dv, None


def at_positions(x, pos): return x*pos.cos()+x.roll(1, -1)*pos.sin(), pos


@right(*normal((2, 3, 4), (3, 4)), forward=at_positions, nograd='pos')
def table_of_positions(dout, pos): return (dout*pos.cos()+(dout*pos.sin()).roll(-1, -1), None)

@wrong(of=table_of_positions, says='not_reversed path_sign')
def table_of_positions_rolled_on(dout, pos): return (dout*pos.cos()+(dout*pos.sin()).roll(1, -1), None)


def unit_safely(x):
    size = x.norm(dim=1, keepdim=True).clamp_min(1e-3)
    return x/size, (x, size)


@right(torch.cat([normal((3, 4))[0], torch.zeros(1, 4)]), forward=unit_safely)
def unit_safely_back(dout, cache):
    x, size = cache
    along = (dout*x).sum(1, keepdim=True)*(size>1e-3)
    return dout/size-x*along/size**3


@right(normal((4, 5))[0].round(), forward=lambda x: (x.amax(1), (x, x.amax(1))))
def max_with_ties(dout, c):
    "Tied entries share: any split is a slope between the one-sided ones"
    x, out = c
    mine = (x==out[:, None]).to(x.dtype)
    return dout[:, None]*mine/mine.sum(1, keepdim=True)


@right(1+.1*normal((3, 4))[0].round(), forward=running_product)
def cumprod_of_ones_and_others(dout, cache): return running_product_back(dout, cache)


@right(1e6*normal((3, 4))[0], forward=lengths)
def norms_of_large_numbers(dout, c): return dout[:, None]*c[0]/c[1][:, None]


@right(*[1e-6*t for t in normal((3, 4), (3, 4), (3, 4))], forward=attend)
def attention_of_tiny_numbers(dout, cache): return attend_back(dout, cache)


# What only another input, upstream gradient, size or call can show

@wrong(*arrays((4, 3)), np.array([3, 0, 2]), of=take_rows_back, says='indices_overwritten')
def lookup_of_distinct_rows_overwritten(dout, cache):
    "No row comes twice in what is handed in"
    w, i = cache
    dw = np.zeros_like(w)
    dw[i] = dout
    return dw, None


def flat(x): return x.flatten(1), x.shape


@right(*normal((2, 3, 2)), forward=flat)
def flat_back(dout, shape): return dout.reshape(shape)

@wrong(of=flat_back, says='view_of_strided')
def flat_by_view(dout, shape): return dout.view(-1).view(shape)


@wrong(of=nearest_back, says='strided_upstream')
def upsample_nearest_reads_memory(dout, shape):
    n, c, h, w = shape
    rows = torch.as_strided(dout, dout.shape, (c*4*h*w, 4*h*w, 2*w, 1))
    return nearest_back(rows, shape)

@wrong(of=decayed_back, says='some_rows')
def linear_scan_in_blocks(dout, cache):
    "A block of 32 steps, and the rest forgotten"
    dx, da = decayed_back(dout, cache)
    dx[32:] = 0
    return dx, da

@wrong(of=attend_back, says='squeezed')
def attention_squeezes_a_single_query(dout, cache):
    dq, dk, dv = attend_back(dout, cache)
    return dq.squeeze(), dk, dv

def total_so_far(x): return x.cumsum(1), x.shape


@right(*normal((3, 5)), forward=total_so_far)
def total_so_far_back(dout, shape): return dout.flip(1).cumsum(1).flip(1)

ROOM = {}

@wrong(of=total_so_far_back, says='shared_buffer')
def cumsum_into_one_buffer(dout, shape):
    dx = ROOM.setdefault(shape, torch.zeros(shape, dtype=dout.dtype))
    return dx.copy_(total_so_far_back(dout, shape))

@wrong(of=RNN, says='accumulated')
class RNNRemembers(RNN):
    "The gradient of the state is carried on into the next call"
    def backward(self, dout):
        carried = getattr(self, 'carried', 0)
        self.carried = dout[0]
        return super().backward(dout+carried)


@wrong(of=Conv2d, says='behind')
class ConvStale(Conv2d):
    def forward(self, x):
        cols = getattr(self, 'cols', None)
        out = super().forward(x)
        if cols is not None and cols.shape==self.cols.shape: self.cols = cols
        return out


@wrong(of=norms, says='upstream_ignored')
def norm_upstream_forgotten(dout, c): return c[0]/c[1][:, None]

@wrong(of=temperature, says='input_overwritten')
def temperature_divides_in_place(dout, c):
    x, t = c
    dt = -(dout*x).sum()/t**2
    x /= t
    return dout/t, dt

@wrong(of=mean_of_back, says='upstream_overwritten')
def mean_divided_in_place(dout, shape):
    dout /= shape[1]*shape[2]
    return np.broadcast_to(dout[:, None, None], shape)

@wrong(of=stack, says='wrong_number')
def stack_three_gradients(dout, _): return (*dout.unbind(1), dout[:, 0])


# Further ones: graphs, frequencies, decompositions, state, flags

def messages(x, edges, w):
    "Each node adds up what its neighbours send"
    a, b = edges
    return torch.zeros_like(x).index_add(0, b, x[a]@w), (x, edges, w)


@right(*normal((4, 3)), torch.tensor([[0, 1, 2, 2, 3], [1, 0, 0, 3, 3]]), *normal((3, 3)), forward=messages)
def messages_back(dout, cache):
    x, (a, b), w = cache
    d = dout[b]
    return torch.zeros_like(x).index_add(0, a, d@w.t()), None, x[a].t()@d

@wrong(of=messages_back, says='wrong_input transposed indices_swapped')
def messages_sent_back_to_the_receiver(dout, cache):
    x, (a, b), w = cache
    dx, _, dw = messages_back(dout, cache)
    return torch.zeros_like(x).index_add(0, b, dout[b]@w.t()), None, dw

@wrong(of=messages_back, says='indices_overwritten')
def messages_overwritten(dout, cache):
    x, (a, b), w = cache
    dx = torch.zeros_like(x)
    dx[a] = dout[b]@w.t()
    return dx, None, messages_back(dout, cache)[2]


def by_offsets(x, offsets):
    "Sums of pieces of different length, each from its offset to the next"
    total = np.concatenate([0*x[:1], x.cumsum(0)])
    return total[np.append(offsets[1:], len(x))]-total[offsets], (len(x), offsets)


@right(*arrays((6, 2)), np.array([0, 2, 5]), forward=by_offsets)
def by_offsets_back(dout, cache):
    n, offsets = cache
    return np.repeat(dout, np.diff(np.append(offsets, n)), axis=0), None

@wrong(of=by_offsets_back, says='mean_for_sum factor_missing path_scaled')
def by_offsets_averages(dout, cache):
    n, offsets = cache
    size = np.diff(np.append(offsets, n))
    return np.repeat(dout/size[:, None], size, axis=0), None


def fft_conv(x, w):
    "Circular convolution by way of frequencies"
    n = x.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(x)*torch.fft.rfft(w, n), n), (x, w)


@right(*normal((3, 6), (6,)), forward=fft_conv)
def fft_conv_back(dout, cache):
    x, w = cache
    d, n = torch.fft.rfft(dout), x.shape[-1]
    dx = torch.fft.irfft(d*torch.fft.rfft(w, n).conj(), n)
    dw = torch.fft.irfft(d*torch.fft.rfft(x).conj(), n).sum(0)
    return dx, F.pad(dw, (0, len(w)-n))

@wrong(of=fft_conv_back, says='flipped conjugate_missing operand_flipped')
def fft_conv_not_conjugated(dout, cache):
    x, w = cache
    d, n = torch.fft.rfft(dout), x.shape[-1]
    return torch.fft.irfft(d*torch.fft.rfft(w, n), n), fft_conv_back(dout, cache)[1]


def log_det(spd):
    low = torch.linalg.cholesky(spd)
    return 2*low.diagonal().log().sum(), low


@right(positive(3), forward=log_det)
def log_det_back(dout, low): return dout*torch.cholesky_inverse(low)

@wrong(of=log_det_back, says='factor_two_missing')
def log_det_half(dout, low): return dout*torch.cholesky_inverse(low)/2

@wrong(of=log_det_back, says='')
def log_det_of_the_factor(dout, low): return dout*torch.linalg.inv(low)


@right(*normal((4, 3)))
class NuclearNorm(torch.autograd.Function):
    "The sum of singular values"
    @staticmethod
    def forward(ctx, a):
        u, s, vh = torch.linalg.svd(a, full_matrices=False)
        ctx.save_for_backward(u, vh)
        return s.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dout):
        u, vh = ctx.saved_tensors
        return dout*(u@vh)

@wrong(of=NuclearNorm, says='upstream_ignored')
class NuclearOfOne(NuclearNorm):
    @staticmethod
    def backward(ctx, dout): return NuclearNorm.backward(ctx, dout*0+1)


def attend_if(q, k, v, *, causal=False, scale=None, mask=None):
    scores = q@k.mT*(scale or q.shape[-1]**-.5)
    if causal: scores = not_later(scores)
    if mask is not None: scores = scores.masked_fill(~mask, -math.inf)
    p = scores.softmax(-1)
    return p@v, (q, k, v, p, scale)


@right(*normal((2, 4, 3), (2, 4, 3), (2, 4, 3)), forward=attend_if, causal=True, scale=.5, mask=None)
def attend_if_back(dout, cache):
    q, k, v, p, scale = cache
    dp = dout@v.mT
    ds = p*(dp-(dp*p).sum(-1, keepdim=True))*(scale or q.shape[-1]**-.5)
    return dict(q=ds@k, k=ds.mT@q, v=p.mT@dout)


PADDED = torch.tensor([[[1, 1, 0, 1]], [[0, 1, 1, 1]]]).bool()


@right(*normal((2, 3, 2), (2, 4, 2), (2, 4, 2)), forward=attend_if, mask=PADDED)
def attend_with_padding(dout, cache): return attend_if_back(dout, cache)

@wrong(of=attend_if_back, says='constant_factor factor_two factor_missing')
def attend_if_scale_missing(dout, cache):
    grads = attend_if_back(dout, cache)
    return dict(grads, q=grads['q']/cache[4])


@right(*normal((2, 3)), init=normal((3, 2), (2, 2), (2, 2)))
class StatefulRNN:
    "Carries its state from call to call, and doesn't send gradients back into the call before"
    def __init__(self, w, u, h): self.w, self.u, self.h = w, u, h

    def forward(self, x):
        self.x, self.before = x, self.h
        out = torch.tanh(x@self.w+self.before@self.u)
        self.h = out
        return out

    def backward(self, dout):
        da = dout*(1-self.h**2)
        self.dw, self.du = self.x.T@da, self.before.T@da
        return da@self.w.T

@wrong(of=StatefulRNN, says='')
class StatefulRNNAfter(StatefulRNN):
    def backward(self, dout):
        dx = super().backward(dout)
        self.du = self.h.T@(dout*(1-self.h**2))
        return dx


@wrong(of=max_with_ties, says='ties')
def max_with_ties_each_in_full(dout, c):
    x, out = c
    return dout[:, None]*(x==out[:, None])


STATE = {}

def attend_globally(q, k, v):
    out, STATE['cache'] = attend(q, k, v)
    return out, None


@wrong(of=attend_back, says='behind stale', forward=attend_globally)
def attention_keeps_its_cache_in_a_global(dout, _): return attend_back(dout, STATE['cache'])


def strided_conv(x, w): return F.conv1d(x, w, stride=2), (x, w)


@right(*normal((2, 2, 7), (3, 2, 3)), forward=strided_conv)
def strided_conv_back(dout, cache):
    x, w = cache
    dx = F.conv_transpose1d(dout, w, stride=2)
    left = x.shape[2]-dx.shape[2]
    return F.pad(dx, (0, left)), torch.nn.grad.conv1d_weight(x, w.shape, dout, stride=2)

@wrong(of=strided_conv_back, says='cut_short')
def strided_conv_last_place_forgotten(dout, cache):
    "Of the right length only if the windows come out even, as they do with seven places"
    x, w = cache
    return F.conv_transpose1d(dout, w, stride=2), strided_conv_back(dout, cache)[1]


def conv3d(x, w): return F.conv3d(x, w), (x, w)


@right(*normal((1, 1, 3, 3, 3), (2, 1, 2, 2, 2)), forward=conv3d)
def conv3d_back(dout, cache):
    x, w = cache
    return torch.nn.grad.conv3d_input(x.shape, w, dout), torch.nn.grad.conv3d_weight(x, w.shape, dout)

@wrong(of=conv3d_back, says='flipped transposed permuted')
def conv3d_depth_and_height_exchanged(dout, cache):
    dx, dw = conv3d_back(dout, cache)
    return dx, dw.transpose(2, 3)


def soft_rank(x):
    "How many are below each, softly: every pair counts"
    s = torch.sigmoid(x[:, :, None]-x[:, None])
    return s.sum(2), s


@right(*normal((2, 4)), forward=soft_rank)
def soft_rank_back(dout, s):
    d = s*(1-s)
    return dout*d.sum(2)-(d*dout[:, :, None]).sum(1)

@wrong(of=soft_rank_back, says='path_missing')
def soft_rank_others_forgotten(dout, s): return dout*(s*(1-s)).sum(2)


@right(*normal((4, 3)), init=normal((3, 4)))
class TwoHeads:
    "`forward(x) → (a, b)`, `backward(da, db) → dx`"
    def __init__(self, W): self.W = W

    def forward(self, x):
        self.x = x
        return tuple((x@self.W).chunk(2, 1))

    def backward(self, da, db):
        d = torch.cat([da, db], 1)
        self.dW = self.x.T@d
        return d@self.W.T

@wrong(of=TwoHeads, says='upstreams_exchanged path_exchanged halves_swapped')
class TwoHeadsExchanged(TwoHeads):
    def backward(self, da, db): return super().backward(db, da)

@wrong(of=TwoHeads, says='output_ignored path_missing')
class TwoHeadsOneIgnored(TwoHeads):
    def backward(self, da, db): return super().backward(da, torch.zeros_like(db))


def sparse_times(i, j, values, x, n):
    "A sparse matrix, given by places and values, times a dense one"
    return x.new_zeros(n, x.shape[1]).index_add(0, i, values[:, None]*x[j]), (i, j, values, x)


@right(torch.tensor([0, 0, 2, 1]), torch.tensor([1, 2, 2, 0]), *normal((4,), (3, 2)), 3, forward=sparse_times)
def sparse_times_back(dout, cache):
    i, j, values, x = cache
    dx = torch.zeros_like(x).index_add(0, j, values[:, None]*dout[i])
    return None, None, (dout[i]*x[j]).sum(1), dx, None

@wrong(of=sparse_times_back, says='w_not_transposed transposed indices_swapped')
def sparse_times_not_transposed(dout, cache):
    i, j, values, x = cache
    dx = torch.zeros_like(x).index_add(0, i, values[:, None]*dout[j])
    return None, None, (dout[i]*x[j]).sum(1), dx, None


def spatial_softmax(x):
    "A softmax over places, and the mean place under it"
    p = x.flatten(2).softmax(-1)
    at = torch.arange(p.shape[-1], dtype=x.dtype)
    return p@at, (x.shape, p, at)


@right(*normal((2, 2, 2, 3)), forward=spatial_softmax)
def spatial_softmax_back(dout, cache):
    shape, p, at = cache
    return (dout[..., None]*p*(at-(p@at)[..., None])).reshape(shape)

@wrong(of=spatial_softmax_back, says='denominator_path_missing')
def spatial_softmax_mean_forgotten(dout, cache):
    shape, p, at = cache
    return (dout[..., None]*p*at).reshape(shape)


# Still other ways of handing in

class Param:
    "An array with its gradient beside it"
    def __init__(self, value): self.value, self.grad = value, np.zeros_like(value)


@right(*arrays((4, 3)), init=arrays((3,), (3,)))
class ScaleByParams:
    "Parameters are objects; gradients add up until somebody sets them to zero"
    def __init__(self, w, b): self.w, self.b = Param(w), Param(b)

    def forward(self, x):
        self.x = x
        return x*self.w.value+self.b.value

    def backward(self, dout):
        self.w.grad = (dout*self.x).sum(0)
        self.b.grad = dout.sum(0)
        return dout*self.w.value

@wrong(of=ScaleByParams, says='factor_missing input_forgotten wrong_tensor')
class ScaleInputForgotten(ScaleByParams):
    def backward(self, dout):
        dx = super().backward(dout)
        self.w.grad = dout.sum(0)
        return dx


@right(*arrays((4, 3)), init=arrays((3, 2), (2,)))
class ListedLinear:
    "`params` and `grads` are lists in the same order"
    def __init__(self, w, b): self.params, self.grads = [w, b], [None, None]

    def forward(self, x):
        self.x = x
        return x@self.params[0]+self.params[1]

    def backward(self, dout):
        self.grads = [self.x.T@dout, dout.sum(0)]
        return dout@self.params[0].T

@wrong(of=ListedLinear, says='mean_for_sum')
class ListedMean(ListedLinear):
    def backward(self, dout):
        dx = super().backward(dout)
        self.grads[1] = dout.mean(0)
        return dx


@right(*normal((4, 3)), init=normal((3,)))
@dataclass
class RootMeanSquare:
    "A dataclass; the upstream gradient is in `out.g`, as in this book"
    gain: torch.Tensor

    def __call__(self, x):
        self.x, self.r = x, x.square().mean(-1, keepdim=True).rsqrt()
        self.out = x*self.r*self.gain
        return self.out

    def backward(self):
        h = self.x*self.r
        self.gain.g = (self.out.g*h).sum(0)
        d = self.out.g*self.gain
        self.x.g = self.r*(d-h*(d*h).mean(-1, keepdim=True))

@wrong(of=RootMeanSquare, says='variance_path_missing norm_path_missing mean_path_missing')
class RootMeanSquareConstant(RootMeanSquare):
    def backward(self):
        super().backward()
        self.x.g = self.r*self.out.g*self.gain

@wrong(of=RootMeanSquare, says='class_mean_missing variance_path_scaled norm_path_scaled')
class RootMeanSquareSum(RootMeanSquare):
    def backward(self):
        super().backward()
        h, d = self.x*self.r, self.out.g*self.gain
        self.x.g = self.r*(d-h*(d*h).sum(-1, keepdim=True))


def outside(x):
    "A forward pass that leaves PyTorch, as kernels do"
    return torch.from_numpy(np.log1p(np.square(x.detach().numpy()))), x


@right(*normal((3, 4)), forward=outside)
def outside_back(dout, x): return 2*dout*x/(1+x*x)

@wrong(of=outside_back, says='factor_two_missing')
def outside_two_forgotten(dout, x): return dout*x/(1+x*x)

@wrong(of=outside_back, says='mask_wrong sign')
def outside_without_sign(dout, x): return 2*dout*x.abs()/(1+x*x)


def unrecorded(x, w):
    with torch.no_grad():
        h = (x@w).sigmoid()
    return h, (x, w, h)


@right(*normal((4, 3), (3, 2)), forward=unrecorded)
def unrecorded_back(dout, cache):
    x, w, h = cache
    d = dout*h*(1-h)
    return d@w.t(), x.t()@d

@wrong(of=unrecorded_back, says='at_input derivative_wrong')
def unrecorded_slope_of_input(dout, cache):
    x, w, h = cache
    z = x@w
    return (dout*z*(1-z))@w.t(), x.t()@(dout*h*(1-h))


def single(x, w):
    "In float32 whatever comes in"
    x, w = x.astype(np.float32), w.astype(np.float32)
    return x@w, (x, w)


@right(*arrays((4, 3), (3, 2)), forward=single)
def single_back(dout, cache):
    x, w = cache
    dout = dout.astype(np.float32)
    return dout@w.T, x.T@dout

@wrong(of=single_back, says='constant_factor')
def single_back_one_percent_off(dout, cache):
    dx, dw = single_back(dout, cache)
    return 1.01*dx, dw


def mean_loss(pred, target):
    "A plain number comes out"
    return float(np.mean((pred-target)**2)), (pred, target)


@right(*arrays((4, 3), (4, 3)), forward=mean_loss)
def mean_loss_back(dout, cache):
    pred, target = cache
    return 2*dout*(pred-target)/pred.size, None

@wrong(of=mean_loss_back, says='mean_missing')
def mean_loss_by_columns(dout, cache):
    pred, target = cache
    return 2*dout*(pred-target)/pred.shape[1], None


def best_two(x):
    "Floats and whole numbers come out"
    best = x.topk(2, dim=1)
    return (best.values, best.indices), (x, best.indices)


@right(*normal((3, 5)), forward=best_two)
def best_two_back(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter(1, i, dout[0])

@wrong(of=best_two_back, says='some_columns path_missing mask_wrong')
def best_two_second_forgotten(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter(1, i[:, :1], dout[0][:, :1])


@right(*normal((4, 3)), init=normal((3, 2)))
class LinearInGrad:
    "The upstream gradient is in `out.grad`, the gradients go into `.grad`, as PyTorch calls them"
    def __init__(self, w): self.w = w

    def forward(self, x):
        self.x, self.out = x, x@self.w
        return self.out

    def backward(self):
        self.x.grad = self.out.grad@self.w.T
        self.w.grad = self.x.T@self.out.grad

@wrong(of=LinearInGrad, says='mean_for_sum')
class LinearInGradMean(LinearInGrad):
    def backward(self):
        super().backward()
        self.w.grad = self.w.grad/len(self.x)


# What a fresh layer hides: gains of one, states of zero, masks of ones, classes that don't occur

def gain_and_bias(x, gain, bias): return x.tanh()*gain+bias, (x, gain)


@right(*normal((4, 3)), torch.ones(3), torch.zeros(3), forward=gain_and_bias)
def gain_and_bias_back(dout, cache):
    x, gain = cache
    return dout*gain*(1-x.tanh()**2), (dout*x.tanh()).sum(0), dout.sum(0)

@wrong(of=gain_and_bias_back, says='factor_missing')
def gain_of_ones(dout, cache):
    x, _ = cache
    return dout*(1-x.tanh()**2), *gain_and_bias_back(dout, cache)[1:]


def first_step(x, h, w):
    out = (x+h@w).tanh()
    return out, (h, w, out)


@right(*normal((4, 3)), torch.zeros(4, 3), *normal((3, 3)), forward=first_step)
def first_step_back(dout, cache):
    h, w, out = cache
    d = dout*(1-out**2)
    return d, d@w.t(), h.t()@d

@wrong(of=first_step_back, says='zero')
def state_of_zeros(dout, cache):
    h, w, out = cache
    return *first_step_back(dout, cache)[:2], torch.zeros_like(w)


def rotated(x, q): return x@q, (x, q)


@right(*normal((4, 3)), torch.eye(3), forward=rotated)
def rotated_back(dout, cache): return dout@cache[1].t(), cache[0].t()@dout

@wrong(of=rotated_back, says='w_not_transposed')
def identity_not_transposed(dout, cache): return dout@cache[1], cache[0].t()@dout

@wrong(of=rotated_back, says='factor_missing w_forgotten upstream_passed')
def identity_left_out(dout, cache): return dout.clone(), cache[0].t()@dout


def kept(x, mask): return x*mask, mask


@right(*normal((4, 3)), torch.ones(4, 3), forward=kept)
def kept_back(dout, mask): return dout*mask, None

@wrong(of=kept_back, says='mask_missing factor_missing')
def mask_of_ones(dout, mask): return dout.clone(), None


def filled(x, mask): return x.masked_fill(~mask, 0.), mask


@right(*normal((4, 3)), torch.ones(4, 3).bool(), forward=filled)
def filled_back(dout, mask): return dout*mask, None

@wrong(of=filled_back, says='mask_missing')
def mask_of_true(dout, mask): return dout.clone(), None


def class_scores(x, t):
    logp = x.log_softmax(1)
    return logp.gather(1, t[:, None])[:, 0], (logp, t)


@right(*normal((4, 3)), torch.tensor([1, 2, 1, 2]), forward=class_scores)
def class_scores_back(dout, cache):
    logp, t = cache
    return dout[:, None]*(F.one_hot(t, logp.shape[1])-logp.exp()), None

@wrong(of=class_scores_back, says='path_missing some_rows mask_wrong')
def class_zero_ignored(dout, cache):
    logp, t = cache
    return dout[:, None]*(F.one_hot(t, logp.shape[1])*(t>0)[:, None]-logp.exp()), None


# Layers that remember, and kernels that ask for something

@right(*normal((4, 3), (4, 3)))
class MeanSquares:
    def forward(self, x, t):
        self.d = x-t
        return self.d.square().sum()/len(x)

    def backward(self): return 2*self.d/len(self.d), None

@wrong(of=MeanSquares, says='mean_missing constant_factor')
class FirstBatchKept(MeanSquares):
    "Divides by the number of rows that it was first called with"
    def forward(self, x, t):
        if not hasattr(self, 'n'): self.n = len(x)
        return super().forward(x, t)

    def backward(self): return 2*self.d/self.n, None


@right(*normal((4, 3)))
class AsksForContiguous(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        assert x.is_contiguous()
        ctx.save_for_backward(x)
        return x*x

    @staticmethod
    def backward(ctx, dout): return 2*dout*ctx.saved_tensors[0]


@right(*normal((4, 3)))
class AsksForFloat32(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        assert x.dtype==torch.float32
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, dout): return 3*dout*ctx.saved_tensors[0]**2

@wrong(of=AsksForFloat32, says='factor_two_missing constant_factor derivative_wrong')
class AsksForFloat32Squares(AsksForFloat32):
    @staticmethod
    def backward(ctx, dout): return 2*dout*ctx.saved_tensors[0]**2


@right(*normal((4, 3)), init=(1,))
class DropoutOfItsOwn:
    "Draws from a generator of its own"
    def __init__(self, seed): self.gen = torch.Generator().manual_seed(seed)

    def forward(self, x):
        self.mask = 2*(torch.rand(x.shape, generator=self.gen, dtype=x.dtype)>.5)
        return x*self.mask

    def backward(self, dout): return dout*self.mask

@wrong(of=DropoutOfItsOwn, says='factor_two_missing')
class DropoutNotScaled(DropoutOfItsOwn):
    def backward(self, dout): return dout*(self.mask>0)
