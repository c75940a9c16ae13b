"Activations, softmax layers, losses, normalisation, dropout, linear maps and embeddings"
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from . import array, ints, rand, right, wrong


# Activations

@right(array(4, 3))
class Sigmoid:
    def forward(self, x):
        self.out = 1/(1+np.exp(-x))
        return self.out
    def backward(self, dout): return dout*self.out*(1-self.out)


@wrong(of=Sigmoid, says='at_output')
class SigmoidTwice(Sigmoid):
    def backward(self, dout):
        s = 1/(1+np.exp(-self.out))
        return dout*s*(1-s)


@wrong(of=Sigmoid, says='upstream_ignored')
class SigmoidAlone(Sigmoid):
    def backward(self, dout): return self.out*(1-self.out)


@right(rand(4, 3))
class Tanh(Function):
    @staticmethod
    def forward(ctx, x):
        out = x.tanh()
        ctx.save_for_backward(x, out)
        return out
    @staticmethod
    def backward(ctx, dout): return dout*(1-ctx.saved_tensors[1]**2)


@wrong(of=Tanh, says='at_input')
class TanhOfInput(Tanh):
    @staticmethod
    def backward(ctx, dout): return dout*(1-ctx.saved_tensors[0]**2)


@wrong(of=Tanh, says='derivative_missing upstream_passed')
class TanhPassed(Tanh):
    @staticmethod
    def backward(ctx, dout): return dout.clone()


@wrong(of=Tanh, says='sign')
class TanhSign(Tanh):
    @staticmethod
    def backward(ctx, dout): return dout*(ctx.saved_tensors[1]**2-1)


@right(rand(5, 3))
class LeakyRelu(Function):
    @staticmethod
    def forward(ctx, x, slope=.1):
        ctx.save_for_backward(x)
        ctx.slope = slope
        return torch.where(x>0, x, slope*x)
    @staticmethod
    def backward(ctx, dout):
        x, = ctx.saved_tensors
        return torch.where(x>0, dout, ctx.slope*dout), None


@wrong(of=LeakyRelu, says='path_missing')
class LeakyReluDead(LeakyRelu):
    @staticmethod
    def backward(ctx, dout): return dout*(ctx.saved_tensors[0]>0), None


@wrong(of=LeakyRelu, says='mask_missing factor_missing derivative_missing')
class LeakyReluPassed(LeakyRelu):
    @staticmethod
    def backward(ctx, dout): return dout.clone(), None


@wrong(of=LeakyRelu, says='mask_inverted')
class LeakyReluInverted(LeakyRelu):
    @staticmethod
    def backward(ctx, dout):
        x, = ctx.saved_tensors
        return torch.where(x<0, dout, ctx.slope*dout), None


@right(rand(4, 3))
class Relu:
    def __call__(self, inp):
        self.inp, self.out = inp, inp.clamp_min(0.)
        return self.out
    def backward(self): self.inp.g = (self.inp>0).to(self.inp)*self.out.g


@wrong(of=Relu, says='mask_missing')
class ReluPassed(Relu):
    def backward(self): self.inp.g = self.out.g.clone()


@wrong(of=Relu, says='mask_upstream')
class ReluOfUpstream(Relu):
    def backward(self): self.inp.g = (self.out.g>0).to(self.inp)*self.out.g


@wrong(of=Relu, says='mask_inverted')
class ReluInverted(Relu):
    def backward(self): self.inp.g = (self.inp<=0).to(self.inp)*self.out.g


@right(rand(6, 3), init=(rand(3),))
class PRelu:
    "A slope for each channel, which is learnt"
    def __init__(self, a): self.a = a
    def forward(self, x):
        self.x = x
        return torch.where(x>0, x, self.a*x)
    def backward(self, dout):
        self.da = (dout*self.x.clamp_max(0.)).sum(0)
        return torch.where(self.x>0, dout, self.a*dout)


@wrong(of=PRelu, says='mask_missing path_extra')
class PReluEverywhere(PRelu):
    def backward(self, dout):
        dx = super().backward(dout)
        self.da = (dout*self.x).sum(0)
        return dx


@wrong(of=PRelu, says='not_summed')
class PReluNotSummed(PRelu):
    def backward(self, dout):
        dx = super().backward(dout)
        self.da = dout*self.x.clamp_max(0.)
        return dx


@wrong(of=PRelu, says='upstream_ignored')
class PReluAlone(PRelu):
    def backward(self, dout):
        dx = super().backward(dout)
        self.da = self.x.clamp_max(0.).sum(0)
        return dx


def gelu_tanh(x):
    t = torch.tanh(math.sqrt(2/math.pi)*(x+.044715*x**3))
    return .5*x*(1+t), (x, t)

@right(rand(4, 3), forward=gelu_tanh)
def gelu_tanh_back(dout, cache):
    x, t = cache
    inner = math.sqrt(2/math.pi)*(1+3*.044715*x**2)
    return dout*(.5*(1+t) + .5*x*(1-t**2)*inner)

@wrong(of=gelu_tanh_back, says='path_missing')
def gelu_tanh_gate_only(dout, cache):
    x, t = cache
    return dout*.5*(1+t)

@wrong(of=gelu_tanh_back, says='path_missing')
def gelu_tanh_no_cube(dout, cache):
    x, t = cache
    return dout*(.5*(1+t) + .5*x*(1-t**2)*math.sqrt(2/math.pi))

@wrong(of=gelu_tanh_back, says='path_scaled constant_factor')
def gelu_tanh_three_missing(dout, cache):
    x, t = cache
    inner = math.sqrt(2/math.pi)*(1+.044715*x**2)
    return dout*(.5*(1+t) + .5*x*(1-t**2)*inner)


@right(rand(4, 3))
class Gelu(Function):
    @staticmethod
    def forward(ctx, x):
        phi = .5*(1+torch.erf(x/math.sqrt(2)))
        ctx.save_for_backward(x, phi)
        return x*phi
    @staticmethod
    def backward(ctx, dout):
        x, phi = ctx.saved_tensors
        density = torch.exp(-.5*x*x)/math.sqrt(2*math.pi)
        return dout*(phi+x*density)


@wrong(of=Gelu, says='path_missing')
class GeluDensityMissing(Gelu):
    @staticmethod
    def backward(ctx, dout): return dout*ctx.saved_tensors[1]


@wrong(of=Gelu, says='factor_missing')
class GeluDensityAlone(Gelu):
    @staticmethod
    def backward(ctx, dout):
        x, phi = ctx.saved_tensors
        return dout*(phi+torch.exp(-.5*x*x)/math.sqrt(2*math.pi))


@wrong(of=Gelu, says='path_scaled')
class GeluNotNormalised(Gelu):
    @staticmethod
    def backward(ctx, dout):
        x, phi = ctx.saved_tensors
        return dout*(phi+x*torch.exp(-.5*x*x))


@right(rand(4, 3))
class Silu:
    def __call__(self, x):
        self.x, self.s = x, torch.sigmoid(x)
        self.out = x*self.s
        return self.out
    def backward(self):
        x, s = self.x, self.s
        self.x.g = self.out.g*(s+x*s*(1-s))


@wrong(of=Silu, says='path_missing')
class SiluGateOnly(Silu):
    def backward(self): self.x.g = self.out.g*self.s


@wrong(of=Silu, says='path_missing')
class SiluInputOnly(Silu):
    def backward(self): self.x.g = self.out.g*self.x*self.s*(1-self.s)


@wrong(of=Silu, says='derivative_missing')
class SiluSlopeMissing(Silu):
    def backward(self): self.x.g = self.out.g*(self.s+self.x)


def softplus(x): return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0), x

@right(array(4, 3), forward=softplus)
def softplus_back(dout, x): return dout/(1+np.exp(-x))

@wrong(of=softplus_back, says='sign')
def softplus_minus(dout, x): return -dout/(1+np.exp(-x))

@wrong(of=softplus_back, says='overflow')
def softplus_overflows(dout, x): return dout*np.exp(x)/(1+np.exp(x))


def elu(x, alpha): return torch.where(x>0, x, alpha*(x.exp()-1)), (x, alpha)

@right(rand(4, 3), .7, forward=elu)
def elu_back(dout, cache):
    x, alpha = cache
    return dout*torch.where(x>0, torch.ones_like(x), alpha*x.exp()), None

@wrong(of=elu_back, says='path_scaled factor_missing constant_factor')
def elu_alpha_missing(dout, cache):
    x, alpha = cache
    return dout*torch.where(x>0, torch.ones_like(x), x.exp()), None

@wrong(of=elu_back, says='mask_inverted')
def elu_inverted(dout, cache):
    x, alpha = cache
    return dout*torch.where(x<0, torch.ones_like(x), alpha*x.exp()), None


def hardswish(x): return x*(x+3).clamp(0, 6)/6, x

@right(4*rand(5, 3), forward=hardswish)
def hardswish_back(dout, x):
    middle = dout*(2*x+3)/6
    return torch.where(x<=-3, 0.*dout, torch.where(x>=3, dout, middle))

@wrong(of=hardswish_back, says='path_missing')
def hardswish_gate_only(dout, x): return dout*(x+3).clamp(0, 6)/6

@wrong(of=hardswish_back, says='mask_missing derivative_missing')
def hardswish_unclamped(dout, x): return dout*((x+3).clamp(0, 6)+x)/6


@right(3*array(5, 3))
class HardTanh:
    def forward(self, x):
        self.inside = (x>-1)&(x<1)
        return np.clip(x, -1, 1)
    def backward(self, dout): return dout*self.inside


@wrong(of=HardTanh, says='mask_wrong')
class HardTanhOneSided(HardTanh):
    def forward(self, x):
        self.inside = x<1
        return np.clip(x, -1, 1)


@wrong(of=HardTanh, says='mask_missing')
class HardTanhPassed(HardTanh):
    def backward(self, dout): return dout*1.


def maxout(x):
    pieces = x.reshape(len(x), -1, 2)
    out, which = pieces.max(-1)
    return out, (x.shape, which)

@right(rand(4, 6), forward=maxout)
def maxout_back(dout, cache):
    shape, which = cache
    return (F.one_hot(which, 2)*dout[..., None]).reshape(shape)

@wrong(of=maxout_back, says='mask_inverted mask_wrong flipped shifted')
def maxout_minimum(dout, cache):
    shape, which = cache
    return (F.one_hot(1-which, 2)*dout[..., None]).reshape(shape)

@wrong(of=maxout_back, says='mask_missing')
def maxout_both(dout, cache):
    shape, which = cache
    return dout[..., None].expand(*dout.shape, 2).reshape(shape)


def glu(x):
    a, b = x.chunk(2, -1)
    s = b.sigmoid()
    return a*s, (a, s)

@right(rand(4, 6), forward=glu)
def glu_back(dout, cache):
    a, s = cache
    return torch.cat([dout*s, dout*a*s*(1-s)], -1)

@wrong(of=glu_back, says='shifted permuted reshaped halves_swapped')
def glu_halves_swapped(dout, cache):
    a, s = cache
    return torch.cat([dout*a*s*(1-s), dout*s], -1)

@wrong(of=glu_back, says='derivative_missing')
def glu_slope_missing(dout, cache):
    a, s = cache
    return torch.cat([dout*s, dout*a], -1)

@wrong(of=glu_back, says='path_missing')
def glu_gate_untouched(dout, cache):
    a, s = cache
    return torch.cat([dout*s, torch.zeros_like(a)], -1)


@right(rand(4, 3), init=(rand(3, 5), rand(3, 5, seed=1)))
class SwiGlu:
    def __init__(self, w, v): self.w, self.v = w, v
    def forward(self, x):
        self.x, self.a, self.b = x, x@self.w, x@self.v
        self.s = self.a.sigmoid()
        return self.a*self.s*self.b
    def backward(self, dout):
        da = dout*self.b*self.s*(1+self.a*(1-self.s))
        db = dout*self.a*self.s
        self.dw, self.dv = self.x.T@da, self.x.T@db
        return da@self.w.T + db@self.v.T


@wrong(of=SwiGlu, says='path_missing')
class SwiGluOneWay(SwiGlu):
    def backward(self, dout):
        super().backward(dout)
        return dout*self.a*self.s@self.v.T


@wrong(of=SwiGlu, says='wrong_tensor')
class SwiGluSwapped(SwiGlu):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dw, self.dv = self.dv, self.dw
        return dx


@right(rand(4, 3))
class SquaredRelu(Function):
    @staticmethod
    def forward(ctx, x):
        r = x.clamp_min(0.)
        ctx.save_for_backward(r)
        return r**2
    @staticmethod
    def backward(ctx, dout): return 2*dout*ctx.saved_tensors[0]


@wrong(of=SquaredRelu, says='factor_two_missing')
class SquaredReluOnce(SquaredRelu):
    @staticmethod
    def backward(ctx, dout): return dout*ctx.saved_tensors[0]


@wrong(of=SquaredRelu, says='derivative_missing factor_missing')
class SquaredReluMaskOnly(SquaredRelu):
    @staticmethod
    def backward(ctx, dout): return dout*(ctx.saved_tensors[0]>0)


def snake(x, a):
    s = torch.sin(a*x)
    return x + s**2/a, (x, a)

@right(rand(5, 3), rand(3).abs()+.5, forward=snake)
def snake_back(dout, cache):
    x, a = cache
    s, wave = torch.sin(a*x), torch.sin(2*a*x)
    return dout*(1+wave), (dout*(x*wave/a - s**2/a**2)).sum(0)

@wrong(of=snake_back, says='path_missing')
def snake_divisor_forgotten(dout, cache):
    x, a = cache
    wave = torch.sin(2*a*x)
    return dout*(1+wave), (dout*x*wave/a).sum(0)

@wrong(of=snake_back, says='skip_missing path_missing')
def snake_straight_part_forgotten(dout, cache):
    x, a = cache
    dx, da = snake_back(dout, cache)
    return dx-dout, da


def mish(x):
    t = torch.tanh(F.softplus(x))
    return x*t, (x, t)

@right(rand(4, 3), forward=mish)
def mish_back(dout, cache):
    x, t = cache
    return dout*(t + x*(1-t**2)*x.sigmoid())

@wrong(of=mish_back, says='derivative_missing')
def mish_sigmoid_missing(dout, cache):
    x, t = cache
    return dout*(t + x*(1-t**2))


def softsign(x): return x/(1+np.abs(x)), x

@right(array(4, 3), forward=softsign)
def softsign_back(dout, x): return dout/(1+np.abs(x))**2

@wrong(of=softsign_back, says='path_missing square_missing')
def softsign_once(dout, x): return dout/(1+np.abs(x))


@right(rand(4, 3), torch.tensor(1.3))
class Swish(Function):
    "With a slope that is learnt"
    @staticmethod
    def forward(ctx, x, beta):
        s = torch.sigmoid(beta*x)
        ctx.save_for_backward(x, beta, s)
        return x*s
    @staticmethod
    def backward(ctx, dout):
        x, beta, s = ctx.saved_tensors
        slope = x*s*(1-s)
        return dout*(s+beta*slope), (dout*slope*x).sum()


@wrong(of=Swish, says='factor_missing')
class SwishBetaMissing(Swish):
    @staticmethod
    def backward(ctx, dout):
        x, beta, s = ctx.saved_tensors
        slope = x*s*(1-s)
        return dout*(s+slope), (dout*slope*x).sum()


@wrong(of=Swish, says='not_summed broadcast')
class SwishBetaNotSummed(Swish):
    @staticmethod
    def backward(ctx, dout):
        x, beta, s = ctx.saved_tensors
        slope = x*s*(1-s)
        return dout*(s+beta*slope), dout*slope*x


def log_sigmoid(x): return F.logsigmoid(x), x

@right(rand(4, 3), forward=log_sigmoid)
def log_sigmoid_back(dout, x): return dout*torch.sigmoid(-x)


# Softmax layers

@right(array(4, 3))
class Softmax:
    def forward(self, x):
        e = np.exp(x-x.max(-1, keepdims=True))
        self.p = e/e.sum(-1, keepdims=True)
        return self.p
    def backward(self, dout):
        inner = (dout*self.p).sum(-1, keepdims=True)
        return self.p*(dout-inner)


@wrong(of=Softmax, says='diagonal_only')
class SoftmaxDiagonal(Softmax):
    def backward(self, dout): return dout*self.p*(1-self.p)


@right(rand(4, 3))
class SoftmaxRows:
    def __call__(self, x):
        self.x, self.out = x, torch.softmax(x, -1)
        return self.out
    def backward(self):
        p, d = self.out, self.out.g
        self.x.g = p*(d-(p*d).sum(-1, keepdim=True))


@wrong(of=SoftmaxRows, says='denominator_path_missing')
class SoftmaxNoDenominator(SoftmaxRows):
    def backward(self): self.x.g = self.out*self.out.g


@wrong(of=SoftmaxRows, says='wrong_axis')
class SoftmaxColumns(SoftmaxRows):
    def backward(self):
        p, d = self.out, self.out.g
        self.x.g = p*(d-(p*d).sum(0, keepdim=True))


@wrong(of=SoftmaxRows, says='denominator_path_scaled path_scaled')
class SoftmaxMean(SoftmaxRows):
    def backward(self):
        p, d = self.out, self.out.g
        self.x.g = p*(d-(p*d).mean(-1, keepdim=True))


@right(rand(4, 3))
class LogSoftmax(Function):
    @staticmethod
    def forward(ctx, x):
        out = x.log_softmax(-1)
        ctx.save_for_backward(out)
        return out
    @staticmethod
    def backward(ctx, dout):
        out, = ctx.saved_tensors
        return dout - out.exp()*dout.sum(-1, keepdim=True)


@wrong(of=LogSoftmax, says='denominator_path_missing')
class LogSoftmaxPassed(LogSoftmax):
    @staticmethod
    def backward(ctx, dout): return dout.clone()


@wrong(of=LogSoftmax, says='denominator_path_sign path_sign')
class LogSoftmaxPlus(LogSoftmax):
    @staticmethod
    def backward(ctx, dout):
        out, = ctx.saved_tensors
        return dout + out.exp()*dout.sum(-1, keepdim=True)


def logsumexp(x):
    out = torch.logsumexp(x, 1)
    return out, (x, out)

@right(rand(4, 3), forward=logsumexp)
def logsumexp_back(dout, cache):
    x, out = cache
    return dout[:, None]*(x-out[:, None]).exp()

@wrong(of=logsumexp_back, says='overflow')
def logsumexp_overflows(dout, cache):
    e = cache[0].exp()
    return dout[:, None]*e/e.sum(1, keepdim=True)

@wrong(of=logsumexp_back, says='derivative_missing')
def logsumexp_log_forgotten(dout, cache): return dout[:, None]*cache[0].exp()

@wrong(of=logsumexp_back, says='transposed reshaped wrong_axis')
def logsumexp_by_columns(dout, cache):
    x, out = cache
    return dout[:, None]*x.softmax(0)


@right(rand(5, 4))
class Tempered:
    "Softmax of x/2, over columns"
    def __call__(self, x):
        self.x = x
        self.out = (x/2).softmax(0)
        return self.out
    def backward(self):
        p, d = self.out, self.out.g
        self.x.g = p*(d-(p*d).sum(0))/2


@wrong(of=Tempered, says='factor_two constant_factor')
class TemperedTwice(Tempered):
    def backward(self):
        p, d = self.out, self.out.g
        self.x.g = p*(d-(p*d).sum(0))


# Losses

@right(rand(5, 3), rand(5, 3, seed=1))
class Mse:
    "The mean over rows of the sum over columns"
    def __call__(self, inp, targ):
        self.inp, self.targ = inp, targ
        self.out = (inp-targ).square().sum(1).mean()
        return self.out
    def backward(self): self.inp.g = 2*(self.inp-self.targ)/len(self.inp)


@wrong(of=Mse, says='class_mean_extra')
class MseMeanOfAll(Mse):
    def backward(self): self.inp.g = 2*(self.inp-self.targ)/self.inp.numel()


@wrong(of=Mse, says='sign')
class MseSign(Mse):
    def backward(self): self.inp.g = 2*(self.targ-self.inp)/len(self.inp)


@wrong(of=Mse, says='mean_missing factor_two_missing')
class MseBare(Mse):
    def backward(self): self.inp.g = self.inp-self.targ


def half_mse(x, t): return .5*((x-t)**2).mean(), (x, t)

@right(array(4, 3), array(4, 3, seed=1), forward=half_mse)
def half_mse_back(dout, cache):
    x, t = cache
    dx = dout*(x-t)/x.size
    return dx, -dx

@wrong(of=half_mse_back, says='factor_two')
def half_mse_doubled(dout, cache):
    x, t = cache
    dx = dout*2*(x-t)/x.size
    return dx, -dx

@wrong(of=half_mse_back, says='class_mean_missing')
def half_mse_rows_only(dout, cache):
    x, t = cache
    dx = dout*(x-t)/len(x)
    return dx, -dx

@wrong(of=half_mse_back, says='upstream_ignored')
def half_mse_alone(dout, cache):
    x, t = cache
    dx = (x-t)/x.size
    return dx, -dx


@right(rand(5, 2), rand(5, 2, seed=1))
class Rmse(Function):
    @staticmethod
    def forward(ctx, x, t):
        out = (x-t).square().mean().sqrt()
        ctx.save_for_backward(x, t, out)
        return out
    @staticmethod
    def backward(ctx, dout):
        x, t, out = ctx.saved_tensors
        dx = dout*(x-t)/(out*x.numel())
        return dx, -dx


@wrong(of=Rmse, says='derivative_missing constant_factor')
class RmseRootForgotten(Rmse):
    @staticmethod
    def backward(ctx, dout):
        x, t, out = ctx.saved_tensors
        dx = 2*dout*(x-t)/x.numel()
        return dx, -dx


@wrong(of=Rmse, says='sign')
class RmseBothAlike(Rmse):
    @staticmethod
    def backward(ctx, dout):
        dx, _ = Rmse.backward(ctx, dout)
        return dx, dx


def weighted_mse(x, t, w): return (w[:, None]*(x-t)**2).mean(), (x, t, w)

@right(rand(4, 3), rand(4, 3, seed=1), rand(4).abs(), forward=weighted_mse, nograd=('t', 'w'))
def weighted_mse_back(dout, cache):
    x, t, w = cache
    return dout*2*w[:, None]*(x-t)/x.numel(), None, None

@wrong(of=weighted_mse_back, says='factor_missing')
def weighted_mse_unweighted(dout, cache):
    x, t, w = cache
    return dout*2*(x-t)/x.numel(), None, None

@wrong(of=weighted_mse_back, says='factor_twice')
def weighted_mse_squared_weights(dout, cache):
    x, t, w = cache
    return dout*2*w[:, None]**2*(x-t)/x.numel(), None, None


def huber(x, t, delta=1.):
    e = x-t
    small = e.abs()<=delta
    return torch.where(small, .5*e**2, delta*(e.abs()-.5*delta)).mean(), (e, delta)

@right(2*rand(5, 3), rand(5, 3, seed=1), .7, forward=huber)
def huber_back(dout, cache):
    e, delta = cache
    dx = dout*e.clamp(-delta, delta)/e.numel()
    return dx, -dx, None

@wrong(of=huber_back, says='mask_missing path_extra')
def huber_unclamped(dout, cache):
    e, _ = cache
    return dout*e/e.numel(), -dout*e/e.numel(), None

@wrong(of=huber_back, says='factor_missing path_scaled')
def huber_delta_missing(dout, cache):
    e, delta = cache
    dx = dout*torch.where(e.abs()<=delta, e, e.sign())/e.numel()
    return dx, -dx, None


def log_cosh(x, t): return torch.log(torch.cosh(x-t)).sum(), x-t

@right(rand(3, 4), rand(3, 4, seed=1), forward=log_cosh)
def log_cosh_back(dout, e): return dout*e.tanh(), -dout*e.tanh()

@wrong(of=log_cosh_back, says='mean_twice mean_for_sum')
def log_cosh_mean(dout, e): return dout*e.tanh()/len(e), -dout*e.tanh()/len(e)


def bce(x, t):
    s = 1/(1+np.exp(-x))
    loss = np.mean(np.maximum(x, 0) - x*t + np.log1p(np.exp(-np.abs(x))))
    return loss, (s-t)/len(x)

@right(array(6), (array(6, seed=1)>0).astype(float), forward=bce)
def bce_back(dout, dx): return dout*dx, None

@wrong(of=bce_back, says='sign')
def bce_sign(dout, dx): return -dout*dx, None

@wrong(of=bce_back, says='mean_missing')
def bce_mean_missing(dout, dx): return dout*dx*len(dx), None


def bce_weighted(x, t, pos_weight): return F.binary_cross_entropy_with_logits(x, t, pos_weight=pos_weight), (x, t, pos_weight)

@right(rand(5, 3), ints(2, 5, 3).float(), rand(3).abs()+1, forward=bce_weighted, nograd='t')
def bce_weighted_back(dout, cache):
    x, t, w = cache
    s = x.sigmoid()
    return dout*((1-t)*s - w*t*(1-s))/x.numel(), None, None

@wrong(of=bce_weighted_back, says='factor_missing')
def bce_weighted_unweighted(dout, cache):
    x, t, w = cache
    return dout*(x.sigmoid()-t)/x.numel(), None, None


@right(rand(5, 3).sigmoid(), ints(2, 5, 3).float())
class BceOfProbabilities:
    def __call__(self, p, t):
        self.p, self.t = p, t
        self.out = -(t*p.log()+(1-t)*(1-p).log()).mean()
        return self.out
    def backward(self):
        p, t = self.p, self.t
        p.g = ((1-t)/(1-p)-t/p)/p.numel()


@wrong(of=BceOfProbabilities, says='derivative_missing factor_missing')
class BceOfLogits(BceOfProbabilities):
    def backward(self): self.p.g = (self.p-self.t)/self.p.numel()


@wrong(of=BceOfProbabilities, says='path_missing')
class BcePositivesOnly(BceOfProbabilities):
    def backward(self): self.p.g = -self.t/self.p/self.p.numel()


@right(rand(5, 4), ints(4, 5))
class CrossEntropy:
    def __call__(self, x, y):
        self.x, self.y = x, y
        rows = torch.arange(len(y))
        self.out = -x.log_softmax(1)[rows, y].mean()
        return self.out
    def backward(self):
        p = self.x.softmax(1)
        p[torch.arange(len(self.y)), self.y] -= 1
        self.x.g = p/len(p)


@wrong(of=CrossEntropy, says='mean_missing')
class CrossEntropySum(CrossEntropy):
    def backward(self):
        super().backward()
        self.x.g = self.x.g*len(self.x)


@wrong(of=CrossEntropy, says='path_missing')
class CrossEntropyNoLabel(CrossEntropy):
    def backward(self): self.x.g = self.x.softmax(1)/len(self.x)


@wrong(of=CrossEntropy, says='denominator_path_missing')
class CrossEntropyLabelOnly(CrossEntropy):
    def backward(self): self.x.g = -F.one_hot(self.y, self.x.shape[1]).to(self.x)/len(self.x)


@wrong(of=CrossEntropy, says='sign')
class CrossEntropySign(CrossEntropy):
    def backward(self):
        super().backward()
        self.x.g = -self.x.g


def smoothed(x, y, eps=.1):
    lp = x.log_softmax(1)
    nll = -lp.gather(1, y[:, None])[:, 0]
    return ((1-eps)*nll - eps*lp.mean(1)).mean(), (lp, y, eps)

@right(rand(5, 4), ints(4, 5), forward=smoothed)
def smoothed_back(dout, cache):
    lp, y, eps = cache
    n, k = lp.shape
    targ = (1-eps)*F.one_hot(y, k) + eps/k
    return dout*(lp.exp()-targ)/n, None

@wrong(of=smoothed_back, says='path_scaled path_missing')
def smoothed_part_lost(dout, cache):
    lp, y, eps = cache
    n, k = lp.shape
    return dout*(lp.exp()-(1-eps)*F.one_hot(y, k))/n, None


@right(rand(5, 4), rand(5, 4, seed=1).softmax(1))
class SoftCrossEntropy(Function):
    @staticmethod
    def forward(ctx, x, t):
        lp = x.log_softmax(1)
        ctx.save_for_backward(lp, t)
        return -(t*lp).sum(1).mean()
    @staticmethod
    def backward(ctx, dout):
        lp, t = ctx.saved_tensors
        return dout*(lp.exp()-t)/len(t), -dout*lp/len(t)


@wrong(of=SoftCrossEntropy, says='sign')
class SoftCrossEntropyLabelSign(SoftCrossEntropy):
    @staticmethod
    def backward(ctx, dout):
        lp, t = ctx.saved_tensors
        return dout*(lp.exp()-t)/len(t), dout*lp/len(t)


@wrong(of=SoftCrossEntropy, says='class_mean_extra')
class SoftCrossEntropyMeanOfAll(SoftCrossEntropy):
    @staticmethod
    def backward(ctx, dout):
        lp, t = ctx.saved_tensors
        return dout*(lp.exp()-t)/t.numel(), -dout*lp/len(t)


def class_weighted(x, y, w):
    lp, wy = x.log_softmax(1), w[y]
    nll = -lp.gather(1, y[:, None])[:, 0]
    return (wy*nll).sum()/wy.sum(), (lp, y, wy)

@right(rand(6, 3), ints(3, 6), rand(3).abs()+.5, forward=class_weighted, nograd='w')
def class_weighted_back(dout, cache):
    lp, y, wy = cache
    d = lp.exp()-F.one_hot(y, lp.shape[1])
    return dout*d*wy[:, None]/wy.sum(), None, None

@wrong(of=class_weighted_back, says='divisor_wrong constant_factor')
def class_weighted_by_rows(dout, cache):
    lp, y, wy = cache
    d = lp.exp()-F.one_hot(y, lp.shape[1])
    return dout*d*wy[:, None]/len(y), None, None

@wrong(of=class_weighted_back, says='factor_missing factor_per_row')
def class_weighted_weight_lost(dout, cache):
    lp, y, wy = cache
    d = lp.exp()-F.one_hot(y, lp.shape[1])
    return dout*d/wy.sum(), None, None


def ignoring(x, y):
    keep = y>=0
    lp = x.log_softmax(1)
    nll = -lp.gather(1, y.clamp_min(0)[:, None])[:, 0]
    return (nll*keep).sum()/keep.sum(), (lp, y, keep)

@right(rand(6, 3), torch.tensor([0, 2, -1, 1, -1, 2]), forward=ignoring)
def ignoring_back(dout, cache):
    lp, y, keep = cache
    d = lp.exp()-F.one_hot(y.clamp_min(0), lp.shape[1])
    return dout*d*keep[:, None]/keep.sum(), None

@wrong(of=ignoring_back, says='some_rows mask_missing factor_missing')
def ignoring_nobody(dout, cache):
    lp, y, keep = cache
    d = lp.exp()-F.one_hot(y.clamp_min(0), lp.shape[1])
    return dout*d/keep.sum(), None

@wrong(of=ignoring_back, says='divisor_wrong constant_factor')
def ignoring_counts_all(dout, cache):
    lp, y, keep = cache
    d = lp.exp()-F.one_hot(y.clamp_min(0), lp.shape[1])
    return dout*d*keep[:, None]/len(y), None


def kl(p, q): return (p*(p.log()-q.log())).sum(), (p, q)

@right(rand(4, 3).softmax(1), rand(4, 3, seed=1).softmax(1), forward=kl)
def kl_back(dout, cache):
    p, q = cache
    return dout*(p.log()-q.log()+1), -dout*p/q

@wrong(of=kl_back, says='path_missing')
def kl_one_forgotten(dout, cache):
    p, q = cache
    return dout*(p.log()-q.log()), -dout*p/q

@wrong(of=kl_back, says='operands_swapped divided multiplied inverted')
def kl_upside_down(dout, cache):
    p, q = cache
    return dout*(p.log()-q.log()+1), -dout*q/p

@wrong(of=kl_back, says='never_written')
def kl_for_q_only(dout, cache):
    p, q = cache
    return None, -dout*p/q


def hinge(x, y):
    margin = 1-y*x
    return np.maximum(margin, 0).mean(), (margin, y)

@right(array(7), np.sign(array(7, seed=1)), forward=hinge)
def hinge_back(dout, cache):
    margin, y = cache
    return -dout*y*(margin>0)/len(y), None

@wrong(of=hinge_back, says='mask_missing')
def hinge_always(dout, cache):
    margin, y = cache
    return -dout*y/len(y), None

@wrong(of=hinge_back, says='mask_inverted')
def hinge_inverted(dout, cache):
    margin, y = cache
    return -dout*y*(margin<0)/len(y), None


@right(rand(5, 4), ints(4, 5))
class SvmLoss:
    "The hinge over all classes but the right one"
    def __call__(self, scores, y):
        self.scores, self.rows = scores, (torch.arange(len(y)), y)
        gap = scores-scores[self.rows][:, None]+1
        other = torch.ones_like(scores)
        other[self.rows] = 0
        self.active = (gap*other>0).to(scores)
        self.out = (gap*self.active).sum()/len(y)
        return self.out
    def backward(self):
        d = self.active.clone()
        d[self.rows] -= self.active.sum(1)
        self.scores.g = d/len(d)


@wrong(of=SvmLoss, says='path_missing')
class SvmLossOthersOnly(SvmLoss):
    def backward(self): self.scores.g = self.active/len(self.active)


@wrong(of=SvmLoss, says='path_scaled factor_missing')
class SvmLossRightOnce(SvmLoss):
    def backward(self):
        d = self.active.clone()
        d[self.rows] -= 1
        self.scores.g = d/len(d)


def triplet(a, p, n):
    near, far = (a-p).square().sum(1), (a-n).square().sum(1)
    gap = near-far+1
    return gap.clamp_min(0.).mean(), (a, p, n, gap)

@right(rand(5, 3), rand(5, 3, seed=1), rand(5, 3, seed=2), forward=triplet)
def triplet_back(dout, cache):
    a, p, n, gap = cache
    on = 2*dout*(gap>0)[:, None]/len(a)
    return on*(n-p), on*(p-a), on*(a-n)

@wrong(of=triplet_back, says='path_missing')
def triplet_anchor_not_pushed(dout, cache):
    a, p, n, gap = cache
    on = 2*dout*(gap>0)[:, None]/len(a)
    return on*(a-p), on*(p-a), on*(a-n)

@wrong(of=triplet_back, says='never_written')
def triplet_anchor_only(dout, cache): return triplet_back(dout, cache)[0], None, None

@wrong(of=triplet_back, says='mask_missing derivative_missing')
def triplet_always_on(dout, cache):
    a, p, n, gap = cache
    on = 2*dout/len(a)
    return on*(n-p), on*(p-a), on*(a-n)


def cosine(a, b):
    na, nb = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    out = (a*b).sum(1)/(na*nb)[:, 0]
    return out, (a/na, b/nb, na, nb, out[:, None])

@right(rand(4, 3), rand(4, 3, seed=1), forward=cosine)
def cosine_back(dout, cache):
    a, b, na, nb, cos = cache
    d = dout[:, None]
    return d*(b-cos*a)/na, d*(a-cos*b)/nb

@wrong(of=cosine_back, says='norm_path_missing')
def cosine_norms_constant(dout, cache):
    a, b, na, nb, cos = cache
    return dout[:, None]*b/na, dout[:, None]*a/nb

@wrong(of=cosine_back, says='wrong_tensor')
def cosine_exchanged(dout, cache):
    da, db = cosine_back(dout, cache)
    return db, da


def info_nce(a, b, tau=.5):
    p = (a@b.T/tau).softmax(1)
    return -p.diagonal().log().mean(), (a, b, p, tau)

@right(rand(5, 3), rand(5, 3, seed=1), forward=info_nce)
def info_nce_back(dout, cache):
    a, b, p, tau = cache
    d = dout*(p-torch.eye(len(p)).to(p))/len(p)/tau
    return d@b, d.T@a

@wrong(of=info_nce_back, says='factor_two_missing constant_factor')
def info_nce_tau_missing(dout, cache):
    a, b, p, tau = cache
    d = dout*(p-torch.eye(len(p)).to(p))/len(p)
    return d@b, d.T@a

@wrong(of=info_nce_back, says='w_not_transposed')
def info_nce_not_transposed(dout, cache):
    a, b, p, tau = cache
    d = dout*(p-torch.eye(len(p)).to(p))/len(p)/tau
    return d@b, d@a


def focal(x, t):
    p = x.sigmoid()
    right_ = torch.where(t>0, p, 1-p)
    return -((1-right_)**2*right_.log()).mean(), (p, right_, t)

@right(rand(6), ints(2, 6), forward=focal)
def focal_back(dout, cache):
    p, q, t = cache
    dq = 2*(1-q)*q.log() - (1-q)**2/q
    side = torch.where(t>0, 1., -1.).to(p)
    return dout*dq*side*p*(1-p)/len(p), None

@wrong(of=focal_back, says='path_missing')
def focal_weight_constant(dout, cache):
    p, q, t = cache
    side = torch.where(t>0, 1., -1.).to(p)
    return -dout*(1-q)**2/q*side*p*(1-p)/len(p), None

@wrong(of=focal_back, says='derivative_missing')
def focal_sigmoid_missing(dout, cache):
    p, q, t = cache
    dq = 2*(1-q)*q.log() - (1-q)**2/q
    side = torch.where(t>0, 1., -1.).to(p)
    return dout*dq*side/len(p), None


def dice(p, t):
    both, total = 2*(p*t).sum(1, keepdim=True), (p+t).sum(1, keepdim=True)
    return (1-both/total).mean(), (t, both, total)

@right(rand(4, 6).sigmoid(), ints(2, 4, 6).float(), forward=dice)
def dice_back(dout, cache):
    t, both, total = cache
    return -dout*(2*t*total-both)/total**2/len(t), None

@wrong(of=dice_back, says='path_missing denominator_path_missing')
def dice_total_constant(dout, cache):
    t, both, total = cache
    return -dout*2*t/total/len(t), None

@wrong(of=dice_back, says='factor_two_missing path_scaled factor_missing')
def dice_two_missing(dout, cache):
    t, both, total = cache
    return -dout*(t*total-both)/total**2/len(t), None


@right(rand(5), rand(5, seed=1), rand(5, seed=2))
class GaussianNll(Function):
    "The logarithm of the variance is predicted, too"
    @staticmethod
    def forward(ctx, mu, logvar, t):
        ctx.save_for_backward(mu, logvar, t)
        return .5*(logvar+(t-mu)**2*torch.exp(-logvar)).mean()
    @staticmethod
    def backward(ctx, dout):
        mu, logvar, t = ctx.saved_tensors
        d, inv = (mu-t)/len(mu), torch.exp(-logvar)
        dmu = dout*d*inv
        return dmu, dout*.5*(1/len(mu)-d*(mu-t)*inv), -dmu


@wrong(of=GaussianNll, says='path_missing skip_missing')
class GaussianNllLogForgotten(GaussianNll):
    @staticmethod
    def backward(ctx, dout):
        mu, logvar, t = ctx.saved_tensors
        dmu, _, dt = GaussianNll.backward(ctx, dout)
        return dmu, -dout*.5*(mu-t)**2*torch.exp(-logvar)/len(mu), dt


@wrong(of=GaussianNll, says='factor_two')
class GaussianNllHalfMissing(GaussianNll):
    @staticmethod
    def backward(ctx, dout):
        dmu, dlog, dt = GaussianNll.backward(ctx, dout)
        return dmu, 2*dlog, dt


def pinball(x, t, tau=.3):
    e = t-x
    return torch.maximum(tau*e, (tau-1)*e).mean(), (e, tau)

@right(rand(8), rand(8, seed=1), forward=pinball)
def pinball_back(dout, cache):
    e, tau = cache
    dx = dout*torch.where(e>0, -tau, 1-tau).to(e)/len(e)
    return dx, -dx

@wrong(of=pinball_back, says='mask_inverted path_exchanged')
def pinball_mirrored(dout, cache):
    e, tau = cache
    dx = dout*torch.where(e<0, -tau, 1-tau).to(e)/len(e)
    return dx, -dx


def ranking(a, b, y): return (.2-y*(a-b)).clamp_min(0.).mean(), (a, b, y)

@right(rand(8), rand(8, seed=1), rand(8, seed=2).sign(), forward=ranking, nograd='y')
def ranking_back(dout, cache):
    a, b, y = cache
    da = -dout*y*(.2-y*(a-b)>0)/len(a)
    return da, -da, None

@wrong(of=ranking_back, says='sign')
def ranking_both_up(dout, cache):
    da, *_ = ranking_back(dout, cache)
    return da, da, None


@right(rand(5, 3))
class ZLoss:
    "The mean square of the log of the sum of exponentials"
    def __call__(self, x):
        self.x, self.z = x, x.logsumexp(1)
        self.out = self.z.square().mean()
        return self.out
    def backward(self): self.x.g = 2*self.z[:, None]*self.x.softmax(1)/len(self.x)


@wrong(of=ZLoss, says='derivative_missing factor_missing')
class ZLossSquareForgotten(ZLoss):
    def backward(self): self.x.g = self.x.softmax(1)/len(self.x)


# Normalisation

def batchnorm(x, gamma, beta):
    mean, var = x.mean(0), x.var(0)
    r = 1/np.sqrt(var+1e-5)
    h = (x-mean)*r
    return gamma*h+beta, (h, r, gamma)

@right(array(6, 3), array(3), array(3, seed=1), forward=batchnorm)
def batchnorm_back(dout, cache):
    h, r, gamma = cache
    d = dout*gamma
    return r*(d-d.mean(0)-h*(d*h).mean(0)), (dout*h).sum(0), dout.sum(0)

@wrong(of=batchnorm_back, says='mean_for_sum')
def batchnorm_beta_mean(dout, cache):
    dx, dgamma, _ = batchnorm_back(dout, cache)
    return dx, dgamma, dout.mean(0)

@wrong(of=batchnorm_back, says='variance_path_missing path_missing')
def batchnorm_numpy_variance_constant(dout, cache):
    h, r, gamma = cache
    d = dout*gamma
    return r*(d-d.mean(0)), (dout*h).sum(0), dout.sum(0)


class Running:
    "What both modes of the layer below have"
    def __init__(self, w, b, mean, var): self.w, self.b, self.running_mean, self.running_var = w, b, mean, var


@right(rand(6, 3), init=(rand(3), rand(3, seed=1), torch.zeros(3), torch.ones(3)))
class BatchNormTrain(Running):
    "With running statistics, which the forward pass moves"
    def __call__(self, x):
        mean, var = x.mean(0), x.var(0, unbiased=False)
        with torch.no_grad():
            self.running_mean.mul_(.9).add_(.1*mean)
            self.running_var.mul_(.9).add_(.1*var)
        self.x, self.r = x, (var+1e-5).rsqrt()
        self.h = (x-mean)*self.r
        self.out = self.h*self.w+self.b
        return self.out
    def backward(self):
        d = self.out.g*self.w
        self.w.g, self.b.g = (self.out.g*self.h).sum(0), self.out.g.sum(0)
        self.x.g = self.r*(d-d.mean(0)-self.h*(d*self.h).mean(0))


@wrong(of=BatchNormTrain, says='variance_path_missing')
class BatchNormVarianceConstant(BatchNormTrain):
    def backward(self):
        super().backward()
        d = self.out.g*self.w
        self.x.g = self.r*(d-d.mean(0))


@wrong(of=BatchNormTrain, says='mean_path_missing')
class BatchNormMeanConstant(BatchNormTrain):
    def backward(self):
        super().backward()
        d = self.out.g*self.w
        self.x.g = self.r*(d-self.h*(d*self.h).mean(0))


@wrong(of=BatchNormTrain, says='mean_path_missing variance_path_missing')
class BatchNormAllConstant(BatchNormTrain):
    def backward(self):
        super().backward()
        self.x.g = self.r*self.out.g*self.w


@wrong(of=BatchNormTrain, says='factor_missing')
class BatchNormGammaMissing(BatchNormTrain):
    def backward(self):
        super().backward()
        d = self.out.g
        self.x.g = self.r*(d-d.mean(0)-self.h*(d*self.h).mean(0))


@wrong(of=BatchNormTrain, says='term_missing path_missing')
class BatchNormGammaOfInput(BatchNormTrain):
    def backward(self):
        super().backward()
        self.w.g = (self.out.g*self.x*self.r).sum(0)


def batchnorm_eval(x, w, b, mean, var):
    r = (var+1e-5).rsqrt()
    return (x-mean)*r*w+b, (x, w, mean, r)

@right(rand(5, 3), rand(3), rand(3, seed=1), rand(3, seed=2), rand(3, seed=3).abs()+.5, forward=batchnorm_eval, nograd=('mean', 'var'))
def batchnorm_eval_back(dout, cache):
    x, w, mean, r = cache
    return dout*r*w, (dout*(x-mean)*r).sum(0), dout.sum(0), None, None

@wrong(of=batchnorm_eval_back, says='factor_missing')
def batchnorm_eval_unscaled(dout, cache):
    x, w, mean, r = cache
    return dout*r, (dout*(x-mean)*r).sum(0), dout.sum(0), None, None

@wrong(of=batchnorm_eval_back, says='term_missing path_missing mean_path_missing')
def batchnorm_eval_uncentred(dout, cache):
    x, w, mean, r = cache
    return dout*r*w, (dout*x*r).sum(0), dout.sum(0), None, None


@right(rand(4, 5), init=(rand(5), rand(5, seed=1)))
class LayerNorm:
    def __init__(self, w, b): self.w, self.b = w, b
    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        self.r = (x.var(-1, unbiased=False, keepdim=True)+1e-5).rsqrt()
        self.h = (x-mean)*self.r
        return self.h*self.w+self.b
    def backward(self, dout):
        self.dw, self.db = (dout*self.h).sum(0), dout.sum(0)
        return self.through(dout*self.w)
    def through(self, d):
        return self.r*(d-d.mean(-1, keepdim=True)-self.h*(d*self.h).mean(-1, keepdim=True))


@wrong(of=LayerNorm, says='variance_path_missing')
class LayerNormVarianceConstant(LayerNorm):
    def through(self, d): return self.r*(d-d.mean(-1, keepdim=True))


@wrong(of=LayerNorm, says='mean_path_missing')
class LayerNormMeanConstant(LayerNorm):
    def through(self, d): return self.r*(d-self.h*(d*self.h).mean(-1, keepdim=True))


@wrong(of=LayerNorm, says='wrong_axis')
class LayerNormOverRows(LayerNorm):
    def through(self, d): return self.r*(d-d.mean(0)-self.h*(d*self.h).mean(0))


@wrong(of=LayerNorm, says='factor_missing')
class LayerNormUnscaled(LayerNorm):
    def backward(self, dout):
        super().backward(dout)
        return self.through(dout)


@wrong(of=LayerNorm, says='wrong_tensor factor_missing path_missing')
class LayerNormWeightOfUpstream(LayerNorm):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dw = dout.sum(0)
        return dx


@right(rand(4, 5), rand(5))
class RmsNorm(Function):
    @staticmethod
    def forward(ctx, x, w):
        r = (x.square().mean(-1, keepdim=True)+1e-6).rsqrt()
        ctx.save_for_backward(x, w, r)
        return x*r*w
    @staticmethod
    def backward(ctx, dout):
        x, w, r = ctx.saved_tensors
        d = dout*w
        return r*d - x*r**3*(d*x).mean(-1, keepdim=True), (dout*x*r).sum(0)


@wrong(of=RmsNorm, says='variance_path_missing')
class RmsNormConstant(RmsNorm):
    @staticmethod
    def backward(ctx, dout):
        x, w, r = ctx.saved_tensors
        return r*dout*w, (dout*x*r).sum(0)


@wrong(of=RmsNorm, says='variance_path_scaled')
class RmsNormSum(RmsNorm):
    @staticmethod
    def backward(ctx, dout):
        x, w, r = ctx.saved_tensors
        d = dout*w
        return r*d - x*r**3*(d*x).sum(-1, keepdim=True), (dout*x*r).sum(0)


@wrong(of=RmsNorm, says='factor_missing')
class RmsNormWeightOfInput(RmsNorm):
    @staticmethod
    def backward(ctx, dout):
        dx, _ = RmsNorm.backward(ctx, dout)
        return dx, (dout*ctx.saved_tensors[0]).sum(0)


def group_norm(x, groups):
    parts = x.reshape(len(x), groups, -1)
    mean = parts.mean(-1, keepdim=True)
    r = (parts.var(-1, unbiased=False, keepdim=True)+1e-5).rsqrt()
    h = (parts-mean)*r
    return h.reshape(x.shape), (h, r)

@right(rand(4, 6), 2, forward=group_norm)
def group_norm_back(dout, cache):
    h, r = cache
    d = dout.reshape(h.shape)
    return (r*(d-d.mean(-1, keepdim=True)-h*(d*h).mean(-1, keepdim=True))).reshape(dout.shape), None

@wrong(of=group_norm_back, says='variance_path_missing')
def group_norm_variance_constant(dout, cache):
    h, r = cache
    d = dout.reshape(h.shape)
    return (r*(d-d.mean(-1, keepdim=True))).reshape(dout.shape), None

@wrong(of=group_norm_back, says='variance_path_sign')
def group_norm_plus(dout, cache):
    h, r = cache
    d = dout.reshape(h.shape)
    return (r*(d-d.mean(-1, keepdim=True)+h*(d*h).mean(-1, keepdim=True))).reshape(dout.shape), None


def unit(x):
    n = x.norm(dim=-1, keepdim=True)
    return x/n, (x/n, n)

@right(rand(4, 3), forward=unit)
def unit_back(dout, cache):
    u, n = cache
    return (dout-u*(dout*u).sum(-1, keepdim=True))/n

@wrong(of=unit_back, says='norm_path_missing variance_path_missing')
def unit_norm_constant(dout, cache):
    u, n = cache
    return dout/n

@wrong(of=unit_back, says='norm_path_scaled path_scaled')
def unit_projection_of_input(dout, cache):
    u, n = cache
    return (dout-u*(dout*u*n).sum(-1, keepdim=True))/n


@right(rand(5, 3), init=(rand(2, 3), rand(2)))
class WeightNormLinear(nn.Module):
    "Rows of the weight have a length of their own, `g`"
    def __init__(self, v, g):
        super().__init__()
        self.v, self.g = nn.Parameter(v), nn.Parameter(g)
    def forward(self, x):
        self.x, self.n = x, self.v.norm(dim=1, keepdim=True)
        self.w = self.g[:, None]*self.v/self.n
        return x@self.w.T
    def backward(self, dout):
        dw, u = dout.T@self.x, self.v/self.n
        self.g.grad = (dw*u).sum(1)
        self.v.grad = self.g[:, None]/self.n*(dw-u*(dw*u).sum(1, keepdim=True))
        return dout@self.w


@wrong(of=WeightNormLinear, says='norm_path_missing variance_path_missing')
class WeightNormConstant(WeightNormLinear):
    def backward(self, dout):
        dx = super().backward(dout)
        self.v.grad = self.g[:, None]/self.n*(dout.T@self.x)
        return dx


@wrong(of=WeightNormLinear, says='factor_missing')
class WeightNormLengthMissing(WeightNormLinear):
    def backward(self, dout):
        dx = super().backward(dout)
        self.g.grad = (dout.T@self.x*self.v).sum(1)
        return dx


@right(rand(5, 3))
class Standardise:
    "By the unbiased deviation"
    def __call__(self, x):
        self.x, self.sd = x, x.std(0)
        self.out = (x-x.mean(0))/self.sd
        return self.out
    def backward(self):
        d, h, n = self.out.g, self.out, len(self.x)
        self.x.g = (d-d.mean(0)-h*(d*h).sum(0)/(n-1))/self.sd


@wrong(of=Standardise, says='variance_path_scaled')
class StandardiseBiased(Standardise):
    def backward(self):
        d, h = self.out.g, self.out
        self.x.g = (d-d.mean(0)-h*(d*h).mean(0))/self.sd


@wrong(of=Standardise, says='variance_path_missing')
class StandardiseConstant(Standardise):
    def backward(self): self.x.g = (self.out.g-self.out.g.mean(0))/self.sd


# Dropout

@right(rand(5, 4))
class Dropout:
    def __call__(self, x):
        self.x = x
        self.mask = (torch.rand(x.shape)>.4).to(x)
        self.out = x*self.mask/.6
        return self.out
    def backward(self): self.x.g = self.out.g*self.mask/.6


@wrong(of=Dropout, says='constant_factor factor_missing')
class DropoutUnscaled(Dropout):
    def backward(self): self.x.g = self.out.g*self.mask


@wrong(of=Dropout, says='mask_wrong')
class DropoutDrawnAgain(Dropout):
    def backward(self): self.x.g = self.out.g*(torch.rand(self.x.shape)>.4).to(self.x)/.6


@wrong(of=Dropout, says='mask_missing')
class DropoutPassed(Dropout):
    def backward(self): self.x.g = self.out.g/.6


def masked(x, mask): return x*mask/.7, mask

@right(array(4, 5), (array(4, 5, seed=1)>-.5).astype(float), forward=masked)
def masked_back(dout, mask): return dout*mask/.7, None

@wrong(of=masked_back, says='mask_missing')
def masked_passed(dout, mask): return dout/.7, None


@right(rand(5, 3), rand(3, 4), ints(2, 3, 4).float(), nograd='mask')
class DropConnect(Function):
    "Weights are left out, not units"
    @staticmethod
    def forward(ctx, x, w, mask):
        ctx.save_for_backward(x, w, mask)
        return x@(w*mask)
    @staticmethod
    def backward(ctx, dout):
        x, w, mask = ctx.saved_tensors
        return dout@(w*mask).T, x.T@dout*mask, None


@wrong(of=DropConnect, says='mask_missing factor_missing')
class DropConnectWeightsUnmasked(DropConnect):
    @staticmethod
    def backward(ctx, dout):
        x, w, mask = ctx.saved_tensors
        return dout@(w*mask).T, x.T@dout, None


@wrong(of=DropConnect, says='mask_missing factor_missing path_extra')
class DropConnectInputUnmasked(DropConnect):
    @staticmethod
    def backward(ctx, dout):
        x, w, mask = ctx.saved_tensors
        return dout@w.T, x.T@dout*mask, None


def deep(x, keep): return x + keep[:, None]*x.tanh(), (x.tanh(), keep)

@right(rand(5, 3), torch.tensor([1., 0., 1., 1., 0.]), forward=deep, nograd='keep')
def deep_back(dout, cache):
    t, keep = cache
    return dout + dout*keep[:, None]*(1-t**2), None

@wrong(of=deep_back, says='skip_missing path_missing')
def deep_skip_lost(dout, cache):
    t, keep = cache
    return dout*keep[:, None]*(1-t**2), None

@wrong(of=deep_back, says='factor_missing mask_missing')
def deep_never_dropped(dout, cache):
    t, keep = cache
    return dout + dout*(1-t**2), None


# Linear maps

def affine(x, w, b): return x.reshape(len(x), -1)@w+b, (x, w)

@right(array(4, 2, 3), array(6, 3), array(3), forward=affine)
def affine_back(dout, cache):
    x, w = cache
    return (dout@w.T).reshape(x.shape), x.reshape(len(x), -1).T@dout, dout.sum(0)

@wrong(of=affine_back, says='squeezed reshape_missing')
def affine_flat(dout, cache):
    x, w = cache
    return dout@w.T, x.reshape(len(x), -1).T@dout, dout.sum(0)

@wrong(of=affine_back, says='mean_for_sum')
def affine_bias_mean(dout, cache):
    dx, dw, _ = affine_back(dout, cache)
    return dx, dw, dout.mean(0)

@wrong(of=affine_back, says='extra_axis')
def affine_bias_keepdims(dout, cache):
    dx, dw, _ = affine_back(dout, cache)
    return dx, dw, dout.sum(0, keepdims=True)


@right(rand(5, 3), init=(rand(3, 3), rand(3)))
class Square:
    "As many units as inputs, so that nothing raises"
    def __init__(self, w, b): self.w, self.b = w, b
    def __call__(self, inp):
        self.inp, self.out = inp, inp@self.w+self.b
        return self.out
    def backward(self):
        d = self.out.g
        self.inp.g, self.w.g, self.b.g = d@self.w.t(), self.inp.t()@d, d.sum(0)


@wrong(of=Square, says='w_not_transposed')
class SquareStraight(Square):
    def backward(self):
        super().backward()
        self.inp.g = self.out.g@self.w


@wrong(of=Square, says='transposed')
class SquareTurned(Square):
    def backward(self):
        super().backward()
        self.w.g = self.out.g.t()@self.inp


@wrong(of=Square, says='never_written')
class SquareNoBias(Square):
    def backward(self):
        d = self.out.g
        self.inp.g, self.w.g = d@self.w.t(), self.inp.t()@d


@wrong(of=Square, says='some_rows')
class SquareLastRowForgotten(Square):
    def backward(self):
        super().backward()
        self.inp.g[-1] = 0.


@wrong(of=Square, says='stale behind')
class SquareRemembers(Square):
    "Keeps the input of its first call"
    def __call__(self, inp):
        self.out = inp@self.w+self.b
        self.now = inp
        if not hasattr(self, 'inp'): self.inp = inp
        return self.out
    def backward(self):
        d = self.out.g
        self.now.g, self.w.g, self.b.g = d@self.w.t(), self.inp.t()@d, d.sum(0)


@right(rand(4, 3), init=(rand(2, 3), rand(2)))
class TorchLinear(nn.Module):
    "The weight lies as PyTorch has it, `(n_out, n_in)`"
    def __init__(self, w, b):
        super().__init__()
        self.weight, self.bias = nn.Parameter(w), nn.Parameter(b)
    def forward(self, x):
        self.x = x
        return x@self.weight.t()+self.bias
    def backward(self, dout):
        self.weight.grad, self.bias.grad = dout.t()@self.x, dout.sum(0)
        return dout@self.weight


@wrong(of=TorchLinear, says='transposed')
class TorchLinearTurned(TorchLinear):
    def backward(self, dout):
        dx = super().backward(dout)
        self.weight.grad = self.x.t()@dout
        return dx


@wrong(of=TorchLinear, says='mean_for_sum')
class TorchLinearMean(TorchLinear):
    def backward(self, dout):
        dx = super().backward(dout)
        self.weight.grad = self.weight.grad/len(self.x)
        return dx


@right(rand(5, 4), rand(3, 4), rand(2, 4), rand(3, 2), 4.)
class LoRA(Function):
    "A frozen weight and a learnt one of low rank"
    @staticmethod
    def forward(ctx, x, w, a, b, alpha):
        ctx.save_for_backward(x, w, a, b)
        ctx.scale = alpha/len(a)
        return x@w.T + ctx.scale*(x@a.T)@b.T
    @staticmethod
    def backward(ctx, dout):
        x, w, a, b = ctx.saved_tensors
        d, down = ctx.scale*dout, ctx.scale*dout@b
        return dout@w + down@a, dout.T@x, down.T@x, d.T@(x@a.T), None


@wrong(of=LoRA, says='path_missing')
class LoRAFrozenOnly(LoRA):
    @staticmethod
    def backward(ctx, dout):
        return dout@ctx.saved_tensors[1], *LoRA.backward(ctx, dout)[1:]


@wrong(of=LoRA, says='factor_missing constant_factor size_mean_missing')
class LoRAScaleMissing(LoRA):
    @staticmethod
    def backward(ctx, dout):
        dx, dw, da, db, _ = LoRA.backward(ctx, dout)
        return dx, dw, da/ctx.scale, db, None


@right(rand(5, 4), init=(rand(4, 3),))
class TiedAutoencoder:
    def __init__(self, w): self.w = w
    def forward(self, x):
        self.x = x
        self.h = (x@self.w).tanh()
        return self.h@self.w.t()
    def backward(self, dout):
        dz = dout@self.w*(1-self.h**2)
        self.dw = self.x.t()@dz + dout.t()@self.h
        return dz@self.w.t()


@wrong(of=TiedAutoencoder, says='tied_overwritten path_missing')
class TiedDecoderOnly(TiedAutoencoder):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dw = dout.t()@self.h
        return dx


@wrong(of=TiedAutoencoder, says='derivative_missing')
class TiedTanhForgotten(TiedAutoencoder):
    def backward(self, dout):
        dz = dout@self.w
        self.dw = self.x.t()@dz + dout.t()@self.h
        return dz@self.w.t()


def bilinear(a, w, b): return torch.einsum('ni,oij,nj->no', a, w, b), (a, w, b)

@right(rand(4, 3), rand(2, 3, 3), rand(4, 3, seed=1), forward=bilinear)
def bilinear_back(dout, cache):
    a, w, b = cache
    da = torch.einsum('no,oij,nj->ni', dout, w, b)
    db = torch.einsum('no,oij,ni->nj', dout, w, a)
    return da, torch.einsum('no,ni,nj->oij', dout, a, b), db

@wrong(of=bilinear_back, says='w_not_transposed')
def bilinear_turned(dout, cache):
    a, w, b = cache
    da, dw, _ = bilinear_back(dout, cache)
    return da, dw, torch.einsum('no,oij,nj->ni', dout, w, a)

@wrong(of=bilinear_back, says='transposed')
def bilinear_weight_turned(dout, cache):
    a, w, b = cache
    da, dw, db = bilinear_back(dout, cache)
    return da, dw.transpose(1, 2), db


def scale_shift(x, scale, shift): return x*scale+shift, (x, scale)

@right(rand(2, 4, 3), rand(3), rand(3, seed=1), forward=scale_shift)
def scale_shift_back(dout, cache):
    x, scale = cache
    return dout*scale, (dout*x).sum((0, 1)), dout.sum((0, 1))

@wrong(of=scale_shift_back, says='not_summed extra_axis')
def scale_shift_over_rows(dout, cache):
    x, scale = cache
    return dout*scale, (dout*x).sum(0), dout.sum((0, 1))

@wrong(of=scale_shift_back, says='multiplied divided')
def scale_shift_divides(dout, cache):
    x, scale = cache
    return dout/scale, (dout*x).sum((0, 1)), dout.sum((0, 1))


@right(rand(5, 3), init=(rand(3, 4), rand(4), rand(4, 3), rand(3)))
class ResidualBlock:
    "With its parameters and gradients in dicts"
    def __init__(self, w1, b1, w2, b2): self.params, self.grads = dict(w1=w1, b1=b1, w2=w2, b2=b2), {}
    def forward(self, x):
        p = self.params
        self.x = x
        self.h = (x@p['w1']+p['b1']).clamp_min(0.)
        return x + self.h@p['w2']+p['b2']
    def backward(self, dout):
        p = self.params
        dz = dout@p['w2'].T*(self.h>0)
        self.grads = dict(w1=self.x.T@dz, b1=dz.sum(0), w2=self.h.T@dout, b2=dout.sum(0))
        return dout + dz@p['w1'].T


@wrong(of=ResidualBlock, says='skip_missing path_missing')
class ResidualSkipLost(ResidualBlock):
    def backward(self, dout): return super().backward(dout)-dout


@wrong(of=ResidualBlock, says='derivative_missing mask_missing')
class ResidualReluForgotten(ResidualBlock):
    def backward(self, dout):
        p = self.params
        super().backward(dout)
        dz = dout@p['w2'].T
        self.grads.update(w1=self.x.T@dz, b1=dz.sum(0))
        return dout + dz@p['w1'].T


@right(rand(2, 3, 4), init=(rand(4, 2), rand(2)))
class TokenLinear:
    "A linear map of each token of each text"
    def __init__(self, w, b): self.w, self.b = w, b
    def forward(self, x):
        self.x = x
        return x@self.w+self.b
    def backward(self, dout):
        flat, d = self.x.reshape(-1, self.x.shape[-1]), dout.reshape(-1, dout.shape[-1])
        self.dw, self.db = flat.T@d, d.sum(0)
        return dout@self.w.T


@wrong(of=TokenLinear, says='not_summed extra_axis')
class TokenLinearTexts(TokenLinear):
    def backward(self, dout):
        dx = super().backward(dout)
        self.db = dout.sum(0)
        return dx


@wrong(of=TokenLinear, says='strided_upstream view_of_strided')
class TokenLinearView(TokenLinear):
    def backward(self, dout):
        flat, d = self.x.reshape(-1, self.x.shape[-1]), dout.view(-1, dout.shape[-1])
        self.dw, self.db = flat.T@d, d.sum(0)
        return dout@self.w.T


@right(rand(5, 2), init=(rand(2, 3),))
class FourierFeatures:
    def __init__(self, b): self.b = b
    def __call__(self, x):
        self.x, self.z = x, x@self.b
        self.out = torch.cat([self.z.sin(), self.z.cos()], 1)
        return self.out
    def backward(self):
        ds, dc = self.out.g.chunk(2, 1)
        dz = ds*self.z.cos() - dc*self.z.sin()
        self.x.g, self.b.g = dz@self.b.t(), self.x.t()@dz


@wrong(of=FourierFeatures, says='path_sign')
class FourierPlus(FourierFeatures):
    def backward(self):
        ds, dc = self.out.g.chunk(2, 1)
        dz = ds*self.z.cos() + dc*self.z.sin()
        self.x.g, self.b.g = dz@self.b.t(), self.x.t()@dz


@wrong(of=FourierFeatures, says='path_missing')
class FourierSineOnly(FourierFeatures):
    def backward(self):
        dz = self.out.g.chunk(2, 1)[0]*self.z.cos()
        self.x.g, self.b.g = dz@self.b.t(), self.x.t()@dz


@right(rand(4, 3), init=(rand(3, 3), rand(3, 3, seed=1)))
class Highway:
    "A gate decides how much of the input is carried on"
    def __init__(self, w, v): self.w, self.v = w, v
    def forward(self, x):
        self.x, self.h, self.t = x, (x@self.w).tanh(), (x@self.v).sigmoid()
        return self.t*self.h + (1-self.t)*x
    def backward(self, dout):
        dh, dt = dout*self.t*(1-self.h**2), dout*(self.h-self.x)*self.t*(1-self.t)
        self.dw, self.dv = self.x.T@dh, self.x.T@dt
        return dh@self.w.T + dt@self.v.T + dout*(1-self.t)


@wrong(of=Highway, says='path_missing')
class HighwayCarryForgotten(Highway):
    def backward(self, dout): return super().backward(dout)-dout*(1-self.t)


@wrong(of=Highway, says='path_missing')
class HighwayGateOneSided(Highway):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dv = self.x.T@(dout*self.h*self.t*(1-self.t))
        return dx


@right(rand(4, 3), rand(3, 2), rand(3, 2, 4))
class Mixture(Function):
    "Two experts, weighted by a softmax"
    @staticmethod
    def forward(ctx, x, gate, experts):
        p = (x@gate).softmax(-1)
        outs = torch.einsum('ni,ieo->neo', x, experts)
        ctx.save_for_backward(x, gate, experts, p, outs)
        return (p[..., None]*outs).sum(1)
    @staticmethod
    def backward(ctx, dout):
        x, gate, experts, p, outs = ctx.saved_tensors
        dp, douts = (dout[:, None]*outs).sum(-1), dout[:, None]*p[..., None]
        dz = p*(dp-(p*dp).sum(-1, keepdim=True))
        dx = dz@gate.T + torch.einsum('neo,ieo->ni', douts, experts)
        return dx, x.T@dz, torch.einsum('ni,neo->ieo', x, douts)


@wrong(of=Mixture, says='path_missing denominator_path_missing')
class MixtureGateConstant(Mixture):
    @staticmethod
    def backward(ctx, dout):
        x, gate, experts, p, outs = ctx.saved_tensors
        _, dgate, dexperts = Mixture.backward(ctx, dout)
        return torch.einsum('no,ne,ieo->ni', dout, p, experts), dgate, dexperts


@wrong(of=Mixture, says='wrong_number')
class MixtureOneTooFew(Mixture):
    @staticmethod
    def backward(ctx, dout): return Mixture.backward(ctx, dout)[:2]


# Embeddings

@right(ints(5, 6), init=(array(5, 3),))
class Embedding:
    def __init__(self, W): self.W = W
    def forward(self, i):
        self.i = np.asarray(i)
        return self.W[self.i]
    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        np.add.at(self.dW, self.i, dout)


@wrong(of=Embedding, says='indices_overwritten')
class EmbeddingOverwrites(Embedding):
    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        self.dW[self.i] += dout


def bag(i, w): return w[i].mean(1), (i, w)

@right(ints(6, 4, 3), rand(6, 2), forward=bag)
def bag_back(dout, cache):
    i, w = cache
    share = dout[:, None].expand(-1, i.shape[1], -1)/i.shape[1]
    return None, torch.zeros_like(w).index_put_((i,), share, accumulate=True)

@wrong(of=bag_back, says='size_mean_missing class_mean_missing')
def bag_sum(dout, cache):
    i, w = cache
    return None, bag_back(dout, cache)[1]*i.shape[1]

@wrong(of=bag_back, says='indices_overwritten')
def bag_overwrites(dout, cache):
    i, w = cache
    share = dout[:, None].expand(-1, i.shape[1], -1)/i.shape[1]
    return None, torch.zeros_like(w).index_put_((i,), share)


@right(ints(5, 7), rand(5, 4))
class ScaledEmbedding(Function):
    "Times the root of the width, as transformers do"
    @staticmethod
    def forward(ctx, i, w):
        ctx.save_for_backward(i, w)
        return w[i]*math.sqrt(w.shape[1])
    @staticmethod
    def backward(ctx, dout):
        i, w = ctx.saved_tensors
        return None, torch.zeros_like(w).index_add_(0, i, dout*math.sqrt(w.shape[1]))


@wrong(of=ScaledEmbedding, says='scale_twice scale_missing factor_two_missing constant_factor factor_missing')
class ScaledEmbeddingUnscaled(ScaledEmbedding):
    @staticmethod
    def backward(ctx, dout):
        i, w = ctx.saved_tensors
        return None, torch.zeros_like(w).index_add_(0, i, dout)


@wrong(of=ScaledEmbedding, says='scale_twice class_mean_extra constant_factor divided')
class ScaledEmbeddingDivides(ScaledEmbedding):
    @staticmethod
    def backward(ctx, dout):
        i, w = ctx.saved_tensors
        return None, torch.zeros_like(w).index_add_(0, i, dout/math.sqrt(w.shape[1]))


def segments(x, ids):
    n = int(ids.max())+1
    count = torch.bincount(ids, minlength=n).to(x)
    total = torch.zeros(n, x.shape[1]).to(x).index_add(0, ids, x)
    return total/count[:, None], (ids, count)

@right(rand(6, 2), torch.tensor([0, 0, 1, 1, 1, 2]), forward=segments)
def segments_back(dout, cache):
    ids, count = cache
    return (dout/count[:, None])[ids], None

@wrong(of=segments_back, says='factor_per_row factor_missing')
def segments_undivided(dout, cache):
    ids, count = cache
    return dout[ids], None


def two_tables(i, j, tokens, places): return tokens[i]+places[j], (i, j, tokens, places)

@right(ints(4, 5), torch.arange(5), rand(4, 2), rand(6, 2), forward=two_tables)
def two_tables_back(dout, cache):
    i, j, tokens, places = cache
    return None, None, torch.zeros_like(tokens).index_add(0, i, dout), torch.zeros_like(places).index_add(0, j, dout)

@wrong(of=two_tables_back, says='operands_swapped indices_swapped wrong_tensor')
def two_tables_same_index(dout, cache):
    i, j, tokens, places = cache
    return None, None, torch.zeros_like(tokens).index_add(0, i, dout), torch.zeros_like(places).index_add(0, i, dout)
