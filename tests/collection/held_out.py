"Held out: layers, losses and kernels of every kind; nobody looks at them while the checker is being changed"
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from minimlp.check.engines import Engine

from . import array, ints, rand, right, wrong


# Activations

def celu(x, alpha): return torch.where(x>0, x, alpha*torch.expm1(x.clamp_max(0.)/alpha)), (x, alpha)

@right(rand(4, 3), 1.7, forward=celu)
def celu_back(dout, cache):
    x, alpha = cache
    return dout*(x.clamp_max(0.)/alpha).exp(), None

@wrong(of=celu_back, says='factor_missing path_scaled constant_factor')
def celu_like_elu(dout, cache):
    x, alpha = cache
    return dout*torch.where(x>0, torch.ones_like(x), alpha*(x/alpha).exp()), None

@wrong(of=celu_back, says='factor_missing path_missing')
def celu_alpha_forgotten(dout, cache): return dout*cache[0].clamp_max(0.).exp(), None


@right(rand(5, 3))
class TanhShrink(Function):
    @staticmethod
    def forward(ctx, x):
        t = x.tanh()
        ctx.save_for_backward(t)
        return x-t
    @staticmethod
    def backward(ctx, dout): return dout*ctx.saved_tensors[0]**2


@wrong(of=TanhShrink, says='path_missing')
class TanhShrinkPassed(TanhShrink):
    @staticmethod
    def backward(ctx, dout): return dout.clone()


@wrong(of=TanhShrink, says='path_sign')
class TanhShrinkPlus(TanhShrink):
    @staticmethod
    def backward(ctx, dout): return dout*(2-ctx.saved_tensors[0]**2)


@right(array(4, 3))
class BentIdentity:
    def forward(self, x):
        self.x, self.root = x, np.sqrt(x*x+1)
        return (self.root-1)/2 + x
    def backward(self, dout): return dout*(self.x/(2*self.root)+1)


@wrong(of=BentIdentity, says='path_scaled factor_two factor_missing')
class BentIdentityHalfForgotten(BentIdentity):
    def backward(self, dout): return dout*(self.x/self.root+1)


@wrong(of=BentIdentity, says='skip_missing path_missing')
class BentIdentityBentOnly(BentIdentity):
    def backward(self, dout): return dout*self.x/(2*self.root)


@right(rand(5, 3))
class CRelu:
    "Both signs, side by side"
    def forward(self, x):
        self.x = x
        return torch.cat([x.clamp_min(0.), (-x).clamp_min(0.)], 1)
    def backward(self, dout):
        plus, minus = dout.chunk(2, 1)
        return plus*(self.x>0) - minus*(self.x<0)


@wrong(of=CRelu, says='path_sign')
class CReluBothPlus(CRelu):
    def backward(self, dout):
        plus, minus = dout.chunk(2, 1)
        return plus*(self.x>0) + minus*(self.x<0)


@wrong(of=CRelu, says='path_missing')
class CReluFirstHalf(CRelu):
    def backward(self, dout): return dout[:, :self.x.shape[1]]*(self.x>0)


@right(rand(5, 4))
class Sparsemax(Function):
    "The nearest distribution to each row; most of its entries are zero"
    @staticmethod
    def forward(ctx, x):
        z = x.sort(-1, descending=True).values
        over = z.cumsum(-1)-1
        count = (z*torch.arange(1, x.shape[-1]+1)>over).sum(-1, keepdim=True)
        p = (x-over.gather(-1, count-1)/count).clamp_min(0.)
        ctx.save_for_backward(p)
        return p
    @staticmethod
    def backward(ctx, dout):
        on = (ctx.saved_tensors[0]>0).to(dout)
        return on*(dout-(on*dout).sum(-1, keepdim=True)/on.sum(-1, keepdim=True))


@wrong(of=Sparsemax, says='path_scaled')
class SparsemaxMeanOfAll(Sparsemax):
    @staticmethod
    def backward(ctx, dout):
        on = (ctx.saved_tensors[0]>0).to(dout)
        return on*(dout-(on*dout).mean(-1, keepdim=True))


@wrong(of=Sparsemax, says='mask_missing')
class SparsemaxEverywhere(Sparsemax):
    @staticmethod
    def backward(ctx, dout):
        on = (ctx.saved_tensors[0]>0).to(dout)
        return dout-(on*dout).sum(-1, keepdim=True)/on.sum(-1, keepdim=True)


@right(rand(6, 3), init=(rand(3).abs()/2,))
class SoftThreshold:
    "Shrinks towards zero by a threshold that is learnt for each column"
    def __init__(self, lam): self.lam = lam
    def __call__(self, x):
        self.x, self.on = x, x.abs()>self.lam
        self.out = x.sign()*(x.abs()-self.lam).clamp_min(0.)
        return self.out
    def backward(self):
        self.x.g = self.out.g*self.on
        self.lam.g = -(self.out.g*self.x.sign()*self.on).sum(0)


@wrong(of=SoftThreshold, says='sign path_sign')
class SoftThresholdGrows(SoftThreshold):
    def backward(self):
        super().backward()
        self.lam.g = -self.lam.g


@wrong(of=SoftThreshold, says='mask_wrong')
class SoftThresholdOneSided(SoftThreshold):
    def backward(self):
        super().backward()
        self.x.g = self.out.g*(self.x>self.lam)


@wrong(of=SoftThreshold, says='factor_missing derivative_missing path_missing')
class SoftThresholdSideForgotten(SoftThreshold):
    def backward(self):
        super().backward()
        self.lam.g = -(self.out.g*self.on).sum(0)


@right(2*rand(5, 3), .5, intended=lambda x, step: x.clamp(-4*step, 3*step))
class FakeQuantise(Function):
    "Rounds to a grid; the gradient is meant to pass straight through, where nothing is cut off"
    @staticmethod
    def forward(ctx, x, step):
        ctx.inside = (x>=-4*step)&(x<=3*step)
        return (x.clamp(-4*step, 3*step)/step).round()*step
    @staticmethod
    def backward(ctx, dout): return dout*ctx.inside, None


@wrong(of=FakeQuantise, says='mask_missing')
class FakeQuantiseEverywhere(FakeQuantise):
    @staticmethod
    def backward(ctx, dout): return dout.clone(), None


def signed_root(x): return x.sign()*x.abs().sqrt(), x

@right(rand(4, 3), forward=signed_root)
def signed_root_back(dout, x): return dout/(2*x.abs().sqrt())

@wrong(of=signed_root_back, says='factor_missing derivative_missing mask_missing')
def signed_root_sign_kept(dout, x): return dout*x.sign()/(2*x.abs().sqrt())

@wrong(of=signed_root_back, says='derivative_missing factor_missing at_input')
def signed_root_linear(dout, x): return dout/(2*x.abs())


# Losses

@right(array(4, 3), array(4, 3, seed=1))
class Charbonnier:
    def forward(self, pred, targ):
        self.diff = pred-targ
        self.root = np.sqrt(self.diff**2+.01)
        return self.root.mean()
    def backward(self): return self.diff/self.root/self.diff.size


@wrong(of=Charbonnier, says='factor_missing derivative_missing')
class CharbonnierRootForgotten(Charbonnier):
    def backward(self): return self.diff/self.diff.size


@wrong(of=Charbonnier, says='class_mean_missing')
class CharbonnierMeanOfRows(Charbonnier):
    def backward(self): return self.diff/self.root/len(self.diff)


def poisson(x, targ): return (np.exp(x)-targ*x).mean(), (x, targ)

@right(array(4, 3), ints(6, 4, 3).double().numpy(), forward=poisson)
def poisson_back(dout, cache):
    x, targ = cache
    return dout*(np.exp(x)-targ)/x.size, None

@wrong(of=poisson_back, says='path_missing')
def poisson_rate_only(dout, cache): return dout*np.exp(cache[0])/cache[0].size, None

@wrong(of=poisson_back, says='derivative_missing factor_missing at_input')
def poisson_exp_forgotten(dout, cache):
    x, targ = cache
    return dout*(x-targ)/x.size, None

@wrong(of=poisson_back, says='upstream_ignored')
def poisson_alone(dout, cache):
    x, targ = cache
    return (np.exp(x)-targ)/x.size, None


@right(rand(4, 3).abs(), rand(4, 3, seed=1).abs())
class LogError:
    "The mean square of the difference of logarithms"
    def __call__(self, pred, targ):
        self.pred, self.diff = pred, torch.log1p(pred)-torch.log1p(targ)
        self.out = self.diff.square().mean()
        return self.out
    def backward(self): self.pred.g = 2*self.diff/(1+self.pred)/self.pred.numel()


@wrong(of=LogError, says='derivative_missing factor_missing')
class LogErrorLogForgotten(LogError):
    def backward(self): self.pred.g = 2*self.diff/self.pred.numel()


@wrong(of=LogError, says='at_output')
class LogErrorOfLog(LogError):
    def backward(self): self.pred.g = 2*self.diff/(1+torch.log1p(self.pred))/self.pred.numel()


def contrastive(a, b, y):
    dist = (a-b).norm(dim=1)
    gap = (2-dist).clamp_min(0.)
    return (y*dist**2+(1-y)*gap**2).mean(), (a, b, y, dist, gap)

@right(rand(5, 3), rand(5, 3, seed=1), torch.tensor([1., 0, 1, 0, 0]), forward=contrastive)
def contrastive_back(dout, cache):
    a, b, y, dist, gap = cache
    da = dout*(2*y-2*(1-y)*gap/dist)[:, None]*(a-b)/len(a)
    return da, -da, None

@wrong(of=contrastive_back, says='sign')
def contrastive_together(dout, cache):
    da, db, _ = contrastive_back(dout, cache)
    return da, -db, None

@wrong(of=contrastive_back, says='mask_missing derivative_missing')
def contrastive_no_margin(dout, cache):
    a, b, y, dist, gap = cache
    return contrastive_back(dout, (a, b, y, dist, 2-dist))

@wrong(of=contrastive_back, says='path_missing')
def contrastive_pairs_only(dout, cache):
    a, b, y, dist, gap = cache
    return contrastive_back(dout, (a, b, y, dist, 0.*gap))


@right(rand(4, 3), rand(3, 3))
class LogPartition(Function):
    "The sum over all paths through a chain of states, as in a conditional random field"
    @staticmethod
    def forward(ctx, scores, steps):
        alphas = [scores[0]]
        for s in scores[1:]:
            alphas.append((alphas[-1][:, None]+steps).logsumexp(0)+s)
        ctx.save_for_backward(scores, steps, torch.stack(alphas))
        return alphas[-1].logsumexp(0)
    @staticmethod
    def backward(ctx, dout):
        scores, steps, alphas = ctx.saved_tensors
        dscores, dsteps = torch.zeros_like(scores), torch.zeros_like(steps)
        dscores[-1] = dout*alphas[-1].softmax(0)
        for t in range(len(scores)-1, 0, -1):
            p = (alphas[t-1][:, None]+steps).softmax(0)*dscores[t]
            dsteps += p
            dscores[t-1] = p.sum(1)
        return dscores, dsteps


@wrong(of=LogPartition, says='wrong_axis')
class LogPartitionOtherAxis(LogPartition):
    @staticmethod
    def backward(ctx, dout):
        scores, steps, alphas = ctx.saved_tensors
        dscores, _ = LogPartition.backward(ctx, dout)
        ps = (alphas[:-1, :, None]+steps).softmax(2)
        return dscores, (ps*dscores[1:, None]).sum(0)


@wrong(of=LogPartition, says='tied_overwritten path_missing')
class LogPartitionOneStep(LogPartition):
    @staticmethod
    def backward(ctx, dout):
        scores, steps, alphas = ctx.saved_tensors
        dscores, _ = LogPartition.backward(ctx, dout)
        return dscores, (alphas[0][:, None]+steps).softmax(0)*dscores[1]


def cox(x):
    "The partial likelihood of events, the latest first"
    risk = np.logaddexp.accumulate(x)
    return (risk-x).mean(), (x, risk)

@right(array(6), forward=cox)
def cox_back(dout, cache):
    x, risk = cache
    shares = np.tril(np.exp(np.minimum(x[None]-risk[:, None], 0)))
    return dout*(shares.sum(0)-1)/len(x)

@wrong(of=cox_back, says='not_reversed transposed wrong_axis')
def cox_over_the_risk(dout, cache):
    x, risk = cache
    shares = np.tril(np.exp(np.minimum(x[None]-risk[:, None], 0)))
    return dout*(shares.sum(1)-1)/len(x)

@wrong(of=cox_back, says='path_missing')
def cox_own_risk_only(dout, cache):
    x, risk = cache
    return dout*(np.exp(x-risk)-1)/len(x)


@right(rand(4, 3).softmax(1), rand(4, 3, seed=1).softmax(1))
class EarthMover:
    "The mean square distance of two cumulative distributions"
    def forward(self, pred, targ):
        self.gap = (pred-targ).cumsum(1)
        return self.gap.square().sum(1).mean()
    def backward(self): return (2*self.gap/len(self.gap)).flip(1).cumsum(1).flip(1)


@wrong(of=EarthMover, says='not_reversed')
class EarthMoverForwards(EarthMover):
    def backward(self): return (2*self.gap/len(self.gap)).cumsum(1)


@wrong(of=EarthMover, says='derivative_missing')
class EarthMoverNoSum(EarthMover):
    def backward(self): return 2*self.gap/len(self.gap)


def barlow(a, b):
    "The columns of two views should agree with each other, and with no other column"
    eye = torch.eye(a.shape[1]).to(a)
    gap, weight = a.t()@b/len(a)-eye, .1+.9*eye
    return (weight*gap**2).sum(), (a, b, gap, weight)

@right(rand(6, 3), rand(6, 3, seed=1), forward=barlow)
def barlow_back(dout, cache):
    a, b, gap, weight = cache
    dc = dout*2*weight*gap/len(a)
    return b@dc.t(), a@dc

@wrong(of=barlow_back, says='w_not_transposed')
def barlow_turned(dout, cache):
    a, b, gap, weight = cache
    dc = dout*2*weight*gap/len(a)
    return b@dc, a@dc

@wrong(of=barlow_back, says='diagonal_only path_missing')
def barlow_diagonal(dout, cache):
    a, b, gap, weight = cache
    return barlow_back(dout, (a, b, gap.diag().diag(), weight))

@wrong(of=barlow_back, says='factor_missing')
def barlow_unweighted(dout, cache):
    a, b, gap, weight = cache
    return barlow_back(dout, (a, b, gap, torch.ones_like(weight)))


@right(rand(4).abs(), rand(4))
class TaskWeights(Function):
    "Losses of several tasks, weighted by uncertainties that are learnt"
    @staticmethod
    def forward(ctx, losses, s):
        ctx.save_for_backward(losses, (-s).exp())
        return (losses*(-s).exp()+s).sum()
    @staticmethod
    def backward(ctx, dout):
        losses, weight = ctx.saved_tensors
        return dout*weight, dout*(1-losses*weight)


@wrong(of=TaskWeights, says='skip_missing path_missing')
class TaskWeightsNoPenalty(TaskWeights):
    @staticmethod
    def backward(ctx, dout):
        losses, weight = ctx.saved_tensors
        return dout*weight, -dout*losses*weight


@wrong(of=TaskWeights, says='path_sign')
class TaskWeightsPlus(TaskWeights):
    @staticmethod
    def backward(ctx, dout):
        losses, weight = ctx.saved_tensors
        return dout*weight, dout*(1+losses*weight)


@right(rand(5, 3), rand(5, 3, seed=1))
class GaussianKl:
    "From a Gaussian to the standard one, as in a variational autoencoder"
    def __call__(self, mu, logvar):
        self.mu, self.logvar = mu, logvar
        self.out = .5*(mu**2+logvar.exp()-1-logvar).sum(1).mean()
        return self.out
    def backward(self):
        n = len(self.mu)
        self.mu.g, self.logvar.g = self.mu/n, .5*(self.logvar.exp()-1)/n


@wrong(of=GaussianKl, says='path_missing')
class GaussianKlLogForgotten(GaussianKl):
    def backward(self):
        super().backward()
        self.logvar.g = .5*self.logvar.exp()/len(self.mu)


@wrong(of=GaussianKl, says='mean_missing sum_for_mean')
class GaussianKlSum(GaussianKl):
    def backward(self):
        super().backward()
        self.mu.g = self.mu.clone()


@right(rand(4, 3), rand(4, 3, seed=1), rand(4, 3, seed=2), nograd=('noise',))
class Reparameterise(Function):
    @staticmethod
    def forward(ctx, mu, logvar, noise):
        ctx.spread = (logvar/2).exp()*noise
        return mu+ctx.spread
    @staticmethod
    def backward(ctx, dout): return dout, dout*ctx.spread/2, None


@wrong(of=Reparameterise, says='factor_two path_scaled')
class ReparameteriseHalfForgotten(Reparameterise):
    @staticmethod
    def backward(ctx, dout): return dout, dout*ctx.spread, None


@wrong(of=Reparameterise, says='wrong_number')
class ReparameteriseOneTooFew(Reparameterise):
    @staticmethod
    def backward(ctx, dout): return dout, dout*ctx.spread/2


def ppo(logp, old, advantage):
    ratio = (logp-old).exp()
    plain, cut = ratio*advantage, ratio.clamp(.8, 1.2)*advantage
    return -torch.minimum(plain, cut).mean(), (ratio, advantage, plain<=cut)

@right(rand(8)/3, rand(8, seed=1)/3, rand(8, seed=2), forward=ppo, nograd=('old', 'advantage'))
def ppo_back(dout, cache):
    ratio, advantage, on = cache
    return -dout*on*ratio*advantage/len(ratio), None, None

@wrong(of=ppo_back, says='mask_missing path_extra')
def ppo_unclipped(dout, cache):
    ratio, advantage, on = cache
    return -dout*ratio*advantage/len(ratio), None, None

@wrong(of=ppo_back, says='mask_wrong mask_missing path_missing')
def ppo_dead_outside(dout, cache):
    ratio, advantage, on = cache
    inside = (ratio>.8)&(ratio<1.2)
    return -dout*inside*ratio*advantage/len(ratio), None, None

@wrong(of=ppo_back, says='derivative_missing factor_missing')
def ppo_ratio_forgotten(dout, cache):
    ratio, advantage, on = cache
    return -dout*on*advantage/len(ratio), None, None


def variation(x):
    down, across = np.diff(x, axis=0), np.diff(x, axis=1)
    return (down**2).sum()+(across**2).sum(), (x, down, across)

@right(array(4, 5), forward=variation)
def variation_back(dout, cache):
    x, down, across = cache
    dx = np.zeros_like(x)
    dx[1:] += 2*down
    dx[:-1] -= 2*down
    dx[:, 1:] += 2*across
    dx[:, :-1] -= 2*across
    return dout*dx

@wrong(of=variation_back, says='path_missing')
def variation_down_only(dout, cache):
    x, down, across = cache
    return variation_back(dout, (x, down, 0.*across))

@wrong(of=variation_back, says='path_missing')
def variation_one_neighbour(dout, cache):
    x, down, across = cache
    dx = np.zeros_like(x)
    dx[1:] += 2*down
    dx[:, 1:] += 2*across
    return dout*dx


def auc(pos, neg):
    gap = neg-pos[:, None]
    return F.softplus(gap).mean(), gap

@right(rand(3), rand(4), forward=auc)
def auc_back(dout, gap):
    slope = dout*gap.sigmoid()/gap.numel()
    return -slope.sum(1), slope.sum(0)

@wrong(of=auc_back, says='sign')
def auc_both_up(dout, gap):
    dpos, dneg = auc_back(dout, gap)
    return -dpos, dneg

@wrong(of=auc_back, says='class_mean_missing size_mean_missing mean_missing sum_for_mean')
def auc_mean_of_one(dout, gap):
    slope = dout*gap.sigmoid()/len(gap)
    return -slope.sum(1), slope.sum(0)


# Normalisation

@right(rand(2, 3, 2, 4), init=(rand(3), rand(3, seed=1)))
class InstanceNorm(nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    def forward(self, x):
        self.r = (x.var((2, 3), unbiased=False, keepdim=True)+1e-5).rsqrt()
        self.h = (x-x.mean((2, 3), keepdim=True))*self.r
        return self.h*self.weight[:, None, None]+self.bias[:, None, None]
    def into_input(self, dout, axes):
        "From the output to the input, with means over `axes`"
        d = dout*self.weight[:, None, None]
        return self.r*(d-d.mean(axes, keepdim=True)-self.h*(d*self.h).mean(axes, keepdim=True))
    def backward(self, dout):
        self.weight.grad, self.bias.grad = (dout*self.h).sum((0, 2, 3)), dout.sum((0, 2, 3))
        return self.into_input(dout, (2, 3))


@wrong(of=InstanceNorm, says='wrong_axis')
class InstanceNormOfBatch(InstanceNorm):
    def backward(self, dout):
        super().backward(dout)
        return self.into_input(dout, (0, 2, 3))


@wrong(of=InstanceNorm, says='size_mean_extra mean_for_sum constant_factor')
class InstanceNormMean(InstanceNorm):
    def backward(self, dout):
        dx = super().backward(dout)
        self.bias.grad = dout.mean((0, 2, 3))
        return dx


@wrong(of=InstanceNorm, says='variance_path_missing')
class InstanceNormVarianceConstant(InstanceNorm):
    def backward(self, dout):
        super().backward(dout)
        d = dout*self.weight[:, None, None]
        return self.r*(d-d.mean((2, 3), keepdim=True))


@right(rand(5, 3), init=(rand(4, 3, seed=1),))
class CosineClassifier:
    def __init__(self, W): self.W = W
    def forward(self, x):
        self.nx, self.nw = x.norm(dim=1, keepdim=True), self.W.norm(dim=1, keepdim=True)
        self.u, self.v = x/self.nx, self.W/self.nw
        return 10*self.u@self.v.T
    def backward(self, dout):
        du, dv = 10*dout@self.v, 10*dout.T@self.u
        self.dW = (dv-self.v*(dv*self.v).sum(1, keepdim=True))/self.nw
        return (du-self.u*(du*self.u).sum(1, keepdim=True))/self.nx


@wrong(of=CosineClassifier, says='norm_path_missing')
class CosineNormConstant(CosineClassifier):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = 10*dout.T@self.u/self.nw
        return dx


@wrong(of=CosineClassifier, says='factor_missing constant_factor')
class CosineScaleForgotten(CosineClassifier):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = self.dW/10
        return dx


@right(rand(5, 3), torch.tensor(1.4))
class ScaleNorm(Function):
    @staticmethod
    def forward(ctx, x, g):
        n = x.norm(dim=-1, keepdim=True)
        ctx.save_for_backward(x/n, n, g)
        return g*x/n
    @staticmethod
    def backward(ctx, dout):
        u, n, g = ctx.saved_tensors
        inner = (dout*u).sum(-1, keepdim=True)
        return g*(dout-u*inner)/n, inner.sum()


@wrong(of=ScaleNorm, says='not_summed')
class ScaleNormNotSummed(ScaleNorm):
    @staticmethod
    def backward(ctx, dout):
        dx, _ = ScaleNorm.backward(ctx, dout)
        return dx, (dout*ctx.saved_tensors[0]).sum(-1)


@wrong(of=ScaleNorm, says='mean_for_sum')
class ScaleNormMean(ScaleNorm):
    @staticmethod
    def backward(ctx, dout):
        dx, dg = ScaleNorm.backward(ctx, dout)
        return dx, dg/len(dx)


def near(t): return F.pad(t, (1, 1)).unfold(-1, 3, 1).sum(-1)

def response_norm(x):
    "Each channel is divided by the strength of its neighbours"
    base = 1+.5*near(x**2)
    return x*base**-.75, (x, base)

@right(rand(4, 6), forward=response_norm)
def response_norm_back(dout, cache):
    x, base = cache
    return dout*base**-.75 - .75*x*near(dout*x*base**-1.75)

@wrong(of=response_norm_back, says='path_missing variance_path_missing')
def response_norm_constant(dout, cache): return dout*cache[1]**-.75

@wrong(of=response_norm_back, says='path_missing derivative_missing diagonal_only')
def response_norm_own_channel(dout, cache):
    x, base = cache
    return dout*base**-.75 - .75*x*dout*x*base**-1.75

@wrong(of=response_norm_back, says='path_scaled variance_path_scaled factor_missing')
def response_norm_power(dout, cache):
    x, base = cache
    return dout*base**-.75 - x*near(dout*x*base**-1.75)


@right(rand(5, 4), init=(rand(3, 4),))
class StandardisedLinear:
    "Its weights are standardised, row by row"
    def __init__(self, w): self.w = w
    def __call__(self, x):
        self.x, self.s = x, self.w.std(1, keepdim=True, unbiased=False)
        self.v = (self.w-self.w.mean(1, keepdim=True))/self.s
        self.out = x@self.v.T
        return self.out
    def backward(self):
        v, dv = self.v, self.out.g.T@self.x
        self.x.g = self.out.g@v
        self.w.g = (dv-dv.mean(1, keepdim=True)-v*(dv*v).mean(1, keepdim=True))/self.s


@wrong(of=StandardisedLinear, says='mean_path_missing variance_path_missing path_missing')
class StandardisedConstant(StandardisedLinear):
    def backward(self):
        super().backward()
        self.w.g = self.out.g.T@self.x/self.s


@wrong(of=StandardisedLinear, says='derivative_missing path_missing')
class StandardisedRawWeight(StandardisedLinear):
    def backward(self):
        super().backward()
        self.x.g = self.out.g@self.w


@right(rand(3, 4), rand(3), rand(4), nograd=('u', 'v'))
class SpectralNorm(Function):
    "Divides a matrix by its largest singular value, as power iteration has found it"
    @staticmethod
    def forward(ctx, w, u, v):
        sigma = u@w@v
        ctx.save_for_backward(w/sigma, u, v, sigma)
        return w/sigma
    @staticmethod
    def backward(ctx, dout):
        out, u, v, sigma = ctx.saved_tensors
        return (dout-(dout*out).sum()*torch.outer(u, v))/sigma, None, None


@wrong(of=SpectralNorm, says='path_missing denominator_path_missing norm_path_missing')
class SpectralNormConstant(SpectralNorm):
    @staticmethod
    def backward(ctx, dout): return dout/ctx.saved_tensors[3], None, None


@wrong(of=SpectralNorm, says='path_scaled square_missing factor_missing')
class SpectralNormOnce(SpectralNorm):
    @staticmethod
    def backward(ctx, dout):
        out, u, v, sigma = ctx.saved_tensors
        return dout/sigma-(dout*out).sum()*torch.outer(u, v), None, None


def min_max(x):
    low, high = x.min(-1, keepdim=True), x.max(-1, keepdim=True)
    size = high.values-low.values
    out = (x-low.values)/size
    return out, (out, size, low.indices, high.indices)

@right(rand(4, 5), forward=min_max)
def min_max_back(dout, cache):
    out, size, low, high = cache
    d = dout/size
    dx = d.scatter_add(-1, high, -(d*out).sum(-1, keepdim=True))
    return dx.scatter_add(-1, low, -(d*(1-out)).sum(-1, keepdim=True))

@wrong(of=min_max_back, says='path_missing maximum_path_missing')
def min_max_constant(dout, cache): return dout/cache[1]

@wrong(of=min_max_back, says='path_missing maximum_path_missing')
def min_max_top_forgotten(dout, cache):
    out, size, low, high = cache
    d = dout/size
    return d.scatter_add(-1, low, -(d*(1-out)).sum(-1, keepdim=True))


def centre(x): return x-x.mean(0), None

@right(array(5, 3), forward=centre)
def centre_back(dout, cache): return dout-dout.mean(0)

@wrong(of=centre_back, says='mean_path_missing path_missing derivative_missing upstream_passed')
def centre_passed(dout, cache): return dout.copy()

@wrong(of=centre_back, says='wrong_axis')
def centre_rows(dout, cache): return dout-dout.mean(1, keepdims=True)


# Linear maps

def factorisation(x, v): return .5*((x@v)**2-x**2@v**2).sum(1), (x, v)

@right(rand(5, 4), rand(4, 2), forward=factorisation)
def factorisation_back(dout, cache):
    "Of all products of two columns of x"
    x, v = cache
    d, s = dout[:, None], x@v
    return d*(s@v.T-x*(v**2).sum(1)), x.T@(d*s)-v*(x**2*d).sum(0)[:, None]

@wrong(of=factorisation_back, says='path_missing')
def factorisation_squares_kept(dout, cache):
    x, v = cache
    dx, _ = factorisation_back(dout, cache)
    return dx, x.T@(dout[:, None]*(x@v))

@wrong(of=factorisation_back, says='path_scaled factor_two factor_missing path_doubled')
def factorisation_half_forgotten(dout, cache):
    x, v = cache
    d, s = dout[:, None], x@v
    _, dv = factorisation_back(dout, cache)
    return d*(2*s@v.T-x*(v**2).sum(1)), dv


def two_sided(x, a, c): return a@x@c.T, (x, a, c)

@right(rand(2, 3, 4), rand(2, 3), rand(5, 4), forward=two_sided)
def two_sided_back(dout, cache):
    x, a, c = cache
    da = torch.einsum('bpq,qn,bmn->pm', dout, c, x)
    dc = torch.einsum('bpq,pm,bmn->qn', dout, a, x)
    return a.T@dout@c, da, dc

@wrong(of=two_sided_back, says='mean_for_sum')
def two_sided_mean(dout, cache):
    dx, da, dc = two_sided_back(dout, cache)
    return dx, da, dc/len(dx)

@wrong(of=two_sided_back, says='not_summed')
def two_sided_not_summed(dout, cache):
    x, a, c = cache
    dx, _, dc = two_sided_back(dout, cache)
    return dx, dout@c@x.mT, dc


@right(rand(4, 5), rand(5))
class Circulant(Function):
    "A convolution on a ring, by Fourier transforms"
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return torch.fft.irfft(torch.fft.rfft(x)*torch.fft.rfft(w), x.shape[-1])
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        d, n = torch.fft.rfft(dout), x.shape[-1]
        dx = torch.fft.irfft(d*torch.fft.rfft(w).conj(), n)
        return dx, torch.fft.irfft(d*torch.fft.rfft(x).conj(), n).sum(0)


@wrong(of=Circulant, says='not_reversed operands_swapped derivative_missing operand_flipped')
class CirculantNotConjugated(Circulant):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        _, dw = Circulant.backward(ctx, dout)
        return torch.fft.irfft(torch.fft.rfft(dout)*torch.fft.rfft(w), x.shape[-1]), dw


@wrong(of=Circulant, says='not_summed')
class CirculantNotSummed(Circulant):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx, _ = Circulant.backward(ctx, dout)
        return dx, torch.fft.irfft(torch.fft.rfft(dout)*torch.fft.rfft(x).conj(), len(w))


def powers(x): return np.concatenate([x, x**2, x**3], 1), x

@right(array(4, 2), forward=powers)
def powers_back(dout, x):
    d1, d2, d3 = np.split(dout, 3, 1)
    return d1+2*x*d2+3*x**2*d3

@wrong(of=powers_back, says='path_scaled factor_missing')
def powers_three_forgotten(dout, x):
    d1, d2, d3 = np.split(dout, 3, 1)
    return d1+2*x*d2+x**2*d3

@wrong(of=powers_back, says='path_missing')
def powers_constant_first(dout, x):
    d1, d2, d3 = np.split(dout, 3, 1)
    return 2*x*d2+3*x**2*d3


@right(rand(5, 3), rand(3))
class Householder(Function):
    "Reflects each row in the plane that v is normal to"
    @staticmethod
    def forward(ctx, x, v):
        ctx.save_for_backward(x, v)
        return x-2*torch.outer(x@v, v)/(v@v)
    @staticmethod
    def backward(ctx, dout):
        x, v = ctx.saved_tensors
        c, e = x@v/(v@v), dout@v/(v@v)
        return dout-2*torch.outer(e, v), -2*(e@x+c@dout-2*v*(c@e))


@wrong(of=Householder, says='denominator_path_missing norm_path_missing path_missing')
class HouseholderLengthConstant(Householder):
    @staticmethod
    def backward(ctx, dout):
        x, v = ctx.saved_tensors
        c, e = x@v/(v@v), dout@v/(v@v)
        return dout-2*torch.outer(e, v), -2*(e@x+c@dout)


@wrong(of=Householder, says='skip_missing path_missing')
class HouseholderMirrorOnly(Householder):
    @staticmethod
    def backward(ctx, dout):
        v = ctx.saved_tensors[1]
        return -2*torch.outer(dout@v/(v@v), v), Householder.backward(ctx, dout)[1]


@right(rand(4, 2, 3), init=(rand(2, 3, 2),))
class GroupedLinear:
    "A matrix for each group of columns"
    def __init__(self, w): self.w = w
    def forward(self, x): return torch.einsum('ngi,gio->ngo', x, self.w)
    def bwd(self, out, x):
        x.g = torch.einsum('ngo,gio->ngi', out.g, self.w)
        self.w.g = torch.einsum('ngi,ngo->gio', x, out.g)
    def __call__(self, x): return self.forward(x)


@wrong(of=GroupedLinear, says='flipped path_exchanged')
class GroupedLinearReversed(GroupedLinear):
    def bwd(self, out, x):
        super().bwd(out, x)
        x.g = torch.einsum('ngo,gio->ngi', out.g, self.w.flip(0))


@wrong(of=GroupedLinear, says='mean_for_sum')
class GroupedLinearMean(GroupedLinear):
    def bwd(self, out, x):
        super().bwd(out, x)
        self.w.g = self.w.g/len(x)


@right(rand(5, 3), init=(rand(4, 3, seed=1), torch.tensor(.6)))
class RadialBasis:
    def __init__(self, centres, gamma): self.centres, self.gamma = centres, gamma
    def forward(self, x):
        self.diff = x[:, None]-self.centres
        self.square = self.diff.square().sum(2)
        self.out = (-self.gamma*self.square).exp()
        return self.out
    def backward(self, dout):
        e = -dout*self.out
        pull = 2*self.gamma*e[..., None]*self.diff
        self.dgamma, self.dcentres = (e*self.square).sum(), -pull.sum(0)
        return pull.sum(1)


@wrong(of=RadialBasis, says='sign')
class RadialBasisSameSign(RadialBasis):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dcentres = -self.dcentres
        return dx


@wrong(of=RadialBasis, says='factor_missing constant_factor')
class RadialBasisGammaForgotten(RadialBasis):
    def backward(self, dout): return super().backward(dout)/self.gamma


@wrong(of=RadialBasis, says='derivative_missing factor_missing')
class RadialBasisExpForgotten(RadialBasis):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dgamma = -(dout*self.square).sum()
        return dx


def distances(a, b):
    diff = a[:, None]-b
    out = diff.square().sum(2).sqrt()
    return out, (diff, out)

@right(rand(4, 3), rand(5, 3), forward=distances)
def distances_back(dout, cache):
    diff, out = cache
    pull = (dout/out)[..., None]*diff
    return pull.sum(1), -pull.sum(0)

@wrong(of=distances_back, says='derivative_missing factor_missing')
def distances_root_forgotten(dout, cache):
    diff, out = cache
    return distances_back(dout, (diff, torch.ones_like(out)))

@wrong(of=distances_back, says='factor_two')
def distances_twice(dout, cache):
    da, db = distances_back(dout, cache)
    return 2*da, 2*db


@right(rand(5, 2), init=(rand(2, 4), rand(4)))
class Siren:
    "A layer with a sine, of frequency 3"
    def __init__(self, w, b): self.w, self.b = w, b
    def forward(self, x): return torch.sin(3*(x@self.w+self.b)), x
    def backward(self, dout, cache):
        dz = 3*dout*torch.cos(3*(cache@self.w+self.b))
        self.dw, self.db = cache.T@dz, dz.sum(0)
        return dz@self.w.T


@wrong(of=Siren, says='constant_factor factor_missing path_scaled')
class SirenFrequencyForgotten(Siren):
    def backward(self, dout, cache):
        dx = super().backward(dout, cache)
        self.dw = self.dw/3
        return dx


@wrong(of=Siren, says='derivative_missing at_output')
class SirenSine(Siren):
    def backward(self, dout, cache):
        dz = 3*dout*torch.sin(3*(cache@self.w+self.b))
        self.dw, self.db = cache.T@dz, dz.sum(0)
        return dz@self.w.T


def two_layers(x, params):
    h = np.tanh(x@params['w1']+params['b1'])
    return h@params['w2'], (x, h, params)

@right(array(5, 3), dict(w1=array(3, 4), b1=array(4), w2=array(4, 2)), forward=two_layers)
def two_layers_back(dout, cache):
    x, h, params = cache
    dz = dout@params['w2'].T*(1-h**2)
    return dz@params['w1'].T, dict(w1=x.T@dz, b1=dz.sum(0), w2=h.T@dout)

@wrong(of=two_layers_back, says='derivative_missing')
def two_layers_linear(dout, cache):
    x, h, params = cache
    dz = dout@params['w2'].T
    return dz@params['w1'].T, dict(w1=x.T@dz, b1=dz.sum(0), w2=h.T@dout)

@wrong(of=two_layers_back, says='mean_for_sum')
def two_layers_bias_mean(dout, cache):
    dx, grads = two_layers_back(dout, cache)
    return dx, {**grads, 'b1': grads['b1']/len(dx)}

@wrong(of=two_layers_back, says='at_output derivative_missing')
def two_layers_twice(dout, cache):
    x, h, params = cache
    dz = dout@params['w2'].T*(1-np.tanh(h)**2)
    return dz@params['w1'].T, dict(w1=x.T@dz, b1=dz.sum(0), w2=h.T@dout)


@right(rand(2, 4, 3, 3), init=(rand(4, 2), rand(2, 4)))
class SqueezeExcite:
    "Scales each channel by what is seen in all of them"
    def __init__(self, w1, w2): self.w1, self.w2 = w1, w2
    def forward(self, x):
        self.x, self.m = x, x.mean((2, 3))
        self.h = (self.m@self.w1).clamp_min(0.)
        self.s = (self.h@self.w2).sigmoid()
        return x*self.s[..., None, None]
    def backward(self, dout):
        dz = (dout*self.x).sum((2, 3))*self.s*(1-self.s)
        dh = dz@self.w2.T*(self.h>0)
        self.dw1, self.dw2 = self.m.T@dh, self.h.T@dz
        dm = dh@self.w1.T/self.x[0, 0].numel()
        return dout*self.s[..., None, None]+dm[..., None, None]


@wrong(of=SqueezeExcite, says='path_missing mean_path_missing')
class SqueezeExciteGateConstant(SqueezeExcite):
    def backward(self, dout):
        super().backward(dout)
        return dout*self.s[..., None, None]


@wrong(of=SqueezeExcite, says='mask_missing derivative_missing')
class SqueezeExciteReluForgotten(SqueezeExcite):
    def backward(self, dout):
        dx = super().backward(dout)
        dz = (dout*self.x).sum((2, 3))*self.s*(1-self.s)
        self.dw1 = self.m.T@(dz@self.w2.T)
        return dx


@wrong(of=SqueezeExcite, says='derivative_missing')
class SqueezeExciteSigmoidForgotten(SqueezeExcite):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dw2 = self.h.T@(dout*self.x).sum((2, 3))
        return dx


@right(rand(5, 3), rand(5, 2), init=(rand(2, 6),))
class Film(nn.Module):
    "A second input decides on scale and shift"
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
    def forward(self, x, z):
        self.x, self.z = x, z
        self.scale, shift = (z@self.weight).chunk(2, 1)
        return x*(1+self.scale)+shift
    def backward(self, dout):
        d = torch.cat([dout*self.x, dout], 1)
        self.weight.grad = self.z.T@d
        return dout*(1+self.scale), d@self.weight.T


@wrong(of=Film, says='skip_missing path_missing term_missing')
class FilmOneForgotten(Film):
    def backward(self, dout):
        _, dz = super().backward(dout)
        return dout*self.scale, dz


@wrong(of=Film, says='path_missing')
class FilmShiftOnly(Film):
    def backward(self, dout):
        dx, _ = super().backward(dout)
        shift = self.weight[:, self.x.shape[1]:]
        return dx, dout@shift.T


class Cubed(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3
    @staticmethod
    def backward(ctx, dout): return 3*ctx.saved_tensors[0]**2*dout


class CubedOnce(Cubed):
    @staticmethod
    def backward(ctx, dout): return 3*ctx.saved_tensors[0]*dout


class CubedByRows(Cubed):
    "Takes its upstream gradient for one that lies in memory row by row"
    @staticmethod
    def backward(ctx, dout):
        x = ctx.saved_tensors[0]
        return 3*x**2*dout.as_strided(x.shape, x.contiguous().stride())


@right(rand(4, 3), init=(rand(3, 2),))
class Polynomial(nn.Module):
    "Its gradients are autograd's, through somebody's Function"
    cubed = Cubed
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
    def forward(self, x): return self.cubed.apply(x@self.weight)+x[:, :1]


@wrong(of=Polynomial, says='factor_missing derivative_missing square_missing')
class PolynomialOnce(Polynomial):
    cubed = CubedOnce


@wrong(rand(4, 3), of=Polynomial, says='strided_upstream')
class PolynomialByRows(Polynomial):
    cubed = CubedByRows


# Looking up and moving

@right(torch.tensor([0, 3, 2, 0, 3]), rand(5, 3), intended=lambda i, w: F.embedding(i, w)*(i>0)[:, None])
class Padded(Function):
    "The first row stands for padding, and is meant to get no gradient"
    @staticmethod
    def forward(ctx, i, w):
        ctx.save_for_backward(i, w)
        return w[i]
    @staticmethod
    def backward(ctx, dout):
        i, w = ctx.saved_tensors
        return None, torch.zeros_like(w).index_add(0, i, dout*(i>0)[:, None])


@wrong(of=Padded, says='some_rows mask_missing factor_missing')
class PaddedLearns(Padded):
    @staticmethod
    def backward(ctx, dout):
        i, w = ctx.saved_tensors
        return None, torch.zeros_like(w).index_add(0, i, dout)


@wrong(of=Padded, says='factor_per_row some_rows')
class PaddedByFrequency(Padded):
    @staticmethod
    def backward(ctx, dout):
        i, w = ctx.saved_tensors
        _, dw = Padded.backward(ctx, dout)
        return None, dw/torch.bincount(i, minlength=len(w)).clamp_min(1)[:, None]


def picked(x, i): return x.gather(1, i), (x, i)

@right(rand(4, 5), ints(5, 4, 5), forward=picked)
def picked_back(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter_add(1, i, dout), None

@wrong(of=picked_back, says='indices_overwritten')
def picked_overwritten(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter(1, i, dout), None

@wrong(of=picked_back, says='not_reversed permuted')
def picked_again(dout, cache): return dout.gather(1, cache[1]), None


@right(ints(12, 7), init=(array(3, 2), array(4, 2)))
class HashedEmbedding:
    "A row of one table for the remainder, and one of another for the quotient"
    def __init__(self, A, B): self.A, self.B = A, B
    def forward(self, i):
        self.i = np.asarray(i)
        return self.A[self.i%3]+self.B[self.i//3]
    def backward(self, dout):
        self.dA, self.dB = np.zeros_like(self.A), np.zeros_like(self.B)
        np.add.at(self.dA, self.i%3, dout)
        np.add.at(self.dB, self.i//3, dout)


@wrong(of=HashedEmbedding, says='indices_swapped wrong_tensor')
class HashedEmbeddingOneIndex(HashedEmbedding):
    def backward(self, dout):
        super().backward(dout)
        self.dB = np.zeros_like(self.B)
        np.add.at(self.dB, self.i%3, dout)


@wrong(of=HashedEmbedding, says='indices_overwritten')
class HashedEmbeddingOverwrites(HashedEmbedding):
    def backward(self, dout):
        super().backward(dout)
        self.dA[self.i%3] = dout


def ring_difference(x): return x-x.roll(1, 1), None

@right(rand(4, 5), forward=ring_difference)
def ring_difference_back(dout, cache): return dout-dout.roll(-1, 1)

@wrong(of=ring_difference_back, says='not_reversed')
def ring_difference_same_way(dout, cache): return dout-dout.roll(1, 1)

@wrong(of=ring_difference_back, says='path_missing derivative_missing upstream_passed')
def ring_difference_own_only(dout, cache): return dout.clone()


@right(array(4, 5))
class EdgePad:
    def forward(self, x): return np.pad(x, ((0, 0), (1, 1)), mode='edge')
    def backward(self, dout):
        dx = dout[:, 1:-1].copy()
        dx[:, 0] += dout[:, 0]
        dx[:, -1] += dout[:, -1]
        return dx


@wrong(of=EdgePad, says='path_missing some_columns')
class EdgePadCut(EdgePad):
    def backward(self, dout): return dout[:, 1:-1].copy()


@wrong(of=EdgePad, says='indices_overwritten some_columns')
class EdgePadOverwrites(EdgePad):
    def backward(self, dout):
        dx = dout[:, 1:-1].copy()
        dx[:, 0], dx[:, -1] = dout[:, 0], dout[:, -1]
        return dx


@right(rand(3, 6))
class Windows(Function):
    "All windows of three along a row"
    @staticmethod
    def forward(ctx, x):
        ctx.size = x.shape
        return x.unfold(-1, 3, 1).clone()
    @staticmethod
    def backward(ctx, dout):
        dx = dout.new_zeros(ctx.size)
        for j in range(3):
            dx[:, j:j+dout.shape[1]] += dout[..., j]
        return dx


@wrong(of=Windows, says='indices_overwritten')
class WindowsOverwrite(Windows):
    @staticmethod
    def backward(ctx, dout):
        dx = dout.new_zeros(ctx.size)
        for j in range(3):
            dx[:, j:j+dout.shape[1]] = dout[..., j]
        return dx


@wrong(of=Windows, says='path_missing')
class WindowsTwoOfThree(Windows):
    @staticmethod
    def backward(ctx, dout):
        last = torch.zeros_like(dout)
        last[..., 2] = dout[..., 2]
        return Windows.backward(ctx, dout-last)


def in_order(x): return x.sort(-1)

@right(rand(4, 5), forward=in_order)
def in_order_back(dout, order): return torch.zeros_like(dout).scatter(-1, order, dout)

@wrong(of=in_order_back, says='not_reversed permuted')
def in_order_again(dout, order): return dout.gather(-1, order)

@wrong(of=in_order_back, says='permuted derivative_missing upstream_passed')
def in_order_passed(dout, order): return dout.clone()


@right(rand(4, 6))
class TopTwo:
    "The mean of the two largest of a row"
    def forward(self, x):
        top, self.i = x.topk(2, -1)
        self.size = x.shape
        return top.mean(-1)
    def backward(self, dout):
        share = (dout/2)[:, None].expand(-1, 2)
        return share.new_zeros(self.size).scatter(-1, self.i, share)


@wrong(of=TopTwo, says='factor_two')
class TopTwoSum(TopTwo):
    def backward(self, dout): return 2*super().backward(dout)


@wrong(of=TopTwo, says='mask_missing class_mean_extra mask_wrong')
class TopTwoAll(TopTwo):
    def backward(self, dout): return (dout/self.size[-1])[:, None].expand(self.size).clone()


def pixel_shuffle(x):
    n, c, h, w = x.shape
    out = x.reshape(n, c//4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
    return out.reshape(n, c//4, 2*h, 2*w), x.shape

@right(rand(2, 4, 2, 3), forward=pixel_shuffle)
def pixel_shuffle_back(dout, shape):
    n, c, h, w = shape
    return dout.reshape(n, c//4, h, 2, w, 2).permute(0, 1, 3, 5, 2, 4).reshape(shape)

@wrong(of=pixel_shuffle_back, says='permuted')
def pixel_shuffle_exchanged(dout, shape):
    n, c, h, w = shape
    return dout.reshape(n, c//4, h, 2, w, 2).permute(0, 1, 5, 3, 2, 4).reshape(shape)

@wrong(of=pixel_shuffle_back, says='reshaped permuted')
def pixel_shuffle_reshaped(dout, shape): return dout.reshape(shape)


def bags(i, offsets, w):
    ends = torch.cat([offsets[1:], torch.tensor([len(i)])])
    bag = torch.arange(len(offsets)).repeat_interleave(ends-offsets)
    return w.new_zeros(len(offsets), w.shape[1]).index_add(0, bag, w[i]), (i, bag, w)

@right(ints(5, 7), torch.tensor([0, 2, 3]), rand(5, 2), forward=bags)
def bags_back(dout, cache):
    i, bag, w = cache
    return None, None, torch.zeros_like(w).index_add(0, i, dout[bag])

@wrong(of=bags_back, says='path_missing some_rows')
def bags_last_lookup_forgotten(dout, cache):
    i, bag, w = cache
    return None, None, torch.zeros_like(w).index_add(0, i[:-1], dout[bag[:-1]])

@wrong(of=bags_back, says='indices_overwritten')
def bags_overwritten(dout, cache):
    i, bag, w = cache
    dw = torch.zeros_like(w)
    dw[i] = dout[bag]
    return None, None, dw


@right(rand(6).abs()*2, rand(5))
class TableLookup(Function):
    "Between the entries of a table the value is interpolated"
    @staticmethod
    def forward(ctx, pos, table):
        assert len(table)>1
        i = pos.floor().long().clamp(0, len(table)-2)
        ctx.save_for_backward(pos-i, i, table)
        return (1-pos+i)*table[i]+(pos-i)*table[i+1]
    @staticmethod
    def backward(ctx, dout):
        part, i, table = ctx.saved_tensors
        dtable = torch.zeros_like(table).index_add(0, i, dout*(1-part))
        return dout*(table[i+1]-table[i]), dtable.index_add(0, i+1, dout*part)


@wrong(of=TableLookup, says='never_written')
class TableLookupPositionsFixed(TableLookup):
    @staticmethod
    def backward(ctx, dout): return None, TableLookup.backward(ctx, dout)[1]


@wrong(of=TableLookup, says='path_exchanged factor_missing indices_swapped')
class TableLookupExchanged(TableLookup):
    @staticmethod
    def backward(ctx, dout):
        part, i, table = ctx.saved_tensors
        dtable = torch.zeros_like(table).index_add(0, i, dout*part)
        return TableLookup.backward(ctx, dout)[0], dtable.index_add(0, i+1, dout*(1-part))


@wrong(of=TableLookup, says='path_missing')
class TableLookupLower(TableLookup):
    @staticmethod
    def backward(ctx, dout):
        part, i, table = ctx.saved_tensors
        dpos, _ = TableLookup.backward(ctx, dout)
        return dpos, torch.zeros_like(table).index_add(0, i, dout*(1-part))


@right(rand(5, 3), torch.tensor([0, 1, 1, 2, 4, 0]), torch.tensor([1, 0, 2, 2, 3, 2]))
class MessagePassing(Function):
    "Each node of a graph gets the mean of what comes in along its edges"
    @staticmethod
    def forward(ctx, x, source, dest):
        count = torch.bincount(dest, minlength=len(x)).clamp_min(1).to(x)
        ctx.save_for_backward(source, dest, count)
        return torch.zeros_like(x).index_add(0, dest, x[source])/count[:, None]
    @staticmethod
    def backward(ctx, dout):
        source, dest, count = ctx.saved_tensors
        d = dout/count[:, None]
        return torch.zeros_like(dout).index_add(0, source, d[dest]), None, None


@wrong(of=MessagePassing, says='indices_swapped not_reversed')
class MessagesForwards(MessagePassing):
    @staticmethod
    def backward(ctx, dout):
        source, dest, count = ctx.saved_tensors
        d = dout/count[:, None]
        return torch.zeros_like(dout).index_add(0, dest, d[source]), None, None


@wrong(of=MessagePassing, says='indices_swapped factor_per_row factor_missing')
class MessagesCountOfSource(MessagePassing):
    @staticmethod
    def backward(ctx, dout):
        source, dest, count = ctx.saved_tensors
        dx = torch.zeros_like(dout).index_add(0, source, dout[dest])
        return dx/count[:, None], None, None


def side_by_side(parts): return np.concatenate(parts, 1), [p.shape[1] for p in parts]

@right([array(4, 3), array(4, 2), array(4, 3, seed=1)], forward=side_by_side)
def side_by_side_back(dout, widths): return np.split(dout, np.cumsum(widths)[:-1], 1)

@wrong(of=side_by_side_back, says='wrong_tensor')
def side_by_side_backwards(dout, widths): return side_by_side_back(dout, widths)[::-1]


# Reductions

@right(rand(5, 3))
class CubicNorm(Function):
    @staticmethod
    def forward(ctx, x):
        out = (x.abs()**3).sum(-1)**(1/3)
        ctx.save_for_backward(x, out)
        return out
    @staticmethod
    def backward(ctx, dout):
        x, out = ctx.saved_tensors
        return (dout/out**2)[:, None]*x*x.abs()


@wrong(of=CubicNorm, says='derivative_missing factor_missing')
class CubicNormSignForgotten(CubicNorm):
    @staticmethod
    def backward(ctx, dout):
        x, out = ctx.saved_tensors
        return (dout/out**2)[:, None]*x*x


@wrong(of=CubicNorm, says='derivative_missing factor_missing square_missing factor_twice')
class CubicNormPower(CubicNorm):
    @staticmethod
    def backward(ctx, dout):
        x, out = ctx.saved_tensors
        return (dout/out)[:, None]*x*x.abs()


def spread(x): return x.var(1, ddof=1), x

@right(array(5, 4), forward=spread)
def spread_back(dout, x): return 2*dout[:, None]*(x-x.mean(1, keepdims=True))/(x.shape[1]-1)

@wrong(of=spread_back, says='factor_missing constant_factor n_minus_one')
def spread_biased(dout, x): return 2*dout[:, None]*(x-x.mean(1, keepdims=True))/x.shape[1]

@wrong(of=spread_back, says='mean_path_missing path_missing factor_missing')
def spread_around_zero(dout, x): return 2*dout[:, None]*x/(x.shape[1]-1)


def row_product(x): return x.prod(1), x

@right(torch.tensor([[.5, -2, 0, 1.5], [1., 3, -.7, 2], [-1.2, .4, .9, 1]]), forward=row_product)
def row_product_back(dout, x):
    every = range(x.shape[1])
    rests = [x[:, [k for k in every if k!=j]].prod(1) for j in every]
    return dout[:, None]*torch.stack(rests, 1)

@wrong(of=row_product_back, says='overflow')
def row_product_divided(dout, x): return (dout*x.prod(1))[:, None]/x


def weighted_mean(x, w): return w@x/w.sum(), (x, w)

@right(rand(5, 3), rand(5).abs(), forward=weighted_mean)
def weighted_mean_back(dout, cache):
    x, w = cache
    return torch.outer(w, dout)/w.sum(), (x-w@x/w.sum())@dout/w.sum()

@wrong(of=weighted_mean_back, says='denominator_path_missing path_missing')
def weighted_mean_total_constant(dout, cache):
    x, w = cache
    return torch.outer(w, dout)/w.sum(), x@dout/w.sum()

@wrong(of=weighted_mean_back, says='factor_missing constant_factor')
def weighted_mean_not_divided(dout, cache):
    dx, dw = weighted_mean_back(dout, cache)
    return dx*cache[1].sum(), dw


@right(rand(4, 5))
class SoftMaximum(Function):
    "The mean of a row, weighted by its own softmax"
    @staticmethod
    def forward(ctx, x):
        p = x.softmax(-1)
        out = (p*x).sum(-1)
        ctx.save_for_backward(x, p, out)
        return out
    @staticmethod
    def backward(ctx, dout):
        x, p, out = ctx.saved_tensors
        return dout[:, None]*p*(1+x-out[:, None])


@wrong(of=SoftMaximum, says='path_missing')
class SoftMaximumWeightsConstant(SoftMaximum):
    @staticmethod
    def backward(ctx, dout): return dout[:, None]*ctx.saved_tensors[1]


@wrong(of=SoftMaximum, says='denominator_path_missing')
class SoftMaximumNoDenominator(SoftMaximum):
    @staticmethod
    def backward(ctx, dout):
        x, p, out = ctx.saved_tensors
        return dout[:, None]*p*(1+x)


def geometric_mean(x):
    out = np.exp(np.log(x).mean(1))
    return out, (x, out)

@right(abs(array(4, 3))+.1, forward=geometric_mean)
def geometric_mean_back(dout, cache):
    x, out = cache
    return (dout*out)[:, None]/x/x.shape[1]

@wrong(of=geometric_mean_back, says='class_mean_missing size_mean_missing')
def geometric_mean_sum(dout, cache):
    x, out = cache
    return (dout*out)[:, None]/x

@wrong(of=geometric_mean_back, says='derivative_missing factor_missing')
def geometric_mean_exp_forgotten(dout, cache):
    x, out = cache
    return dout[:, None]/x/x.shape[1]


def median(x):
    values, i = x.median(-1)
    return values, (x.shape, i)

@right(rand(4, 5), forward=median)
def median_back(dout, cache):
    shape, i = cache
    return dout.new_zeros(shape).scatter(-1, i[:, None], dout[:, None])

@wrong(of=median_back, says='mask_wrong permuted')
def median_middle_column(dout, cache):
    shape, i = cache
    return median_back(dout, (shape, torch.full_like(i, shape[1]//2)))


@right(rand(6, 3), init=(rand(3).sigmoid(),))
class MovingAverage:
    "Down the rows, with a decay for each column that is learnt"
    def __init__(self, a): self.a = a
    def forward(self, x):
        h, before = torch.zeros_like(x[0]), []
        self.x = x
        for t in range(len(x)):
            before.append(h)
            h = self.a*h+(1-self.a)*x[t]
        self.before = torch.stack(before)
        return torch.cat([self.before[1:], h[None]])
    def carried(self, dout):
        "What reaches each row from all that come after it"
        g = [dout[-1]]
        for d in dout[:-1].flip(0):
            g.append(d+self.a*g[-1])
        return torch.stack(g[::-1])
    def backward(self, dout):
        g = self.carried(dout)
        self.da = (g*(self.before-self.x)).sum(0)
        return (1-self.a)*g


@wrong(of=MovingAverage, says='path_missing')
class MovingAverageNotCarried(MovingAverage):
    def carried(self, dout): return dout


@wrong(of=MovingAverage, says='path_missing')
class MovingAverageInputForgotten(MovingAverage):
    def backward(self, dout):
        dx = super().backward(dout)
        self.da = (self.carried(dout)*self.before).sum(0)
        return dx


def moments(x): return dict(mean=x.mean(0), std=x.std(0)), x

@right(rand(5, 3), forward=moments)
def moments_back(dout, x):
    centred = x-x.mean(0)
    return dout['mean']/len(x) + dout['std']*centred/x.std(0)/(len(x)-1)

@wrong(of=moments_back, says='path_missing variance_path_missing output_ignored')
def moments_mean_only(dout, x): return (dout['mean']/len(x)).expand_as(x).clone()

@wrong(of=moments_back, says='mean_path_missing path_missing factor_missing')
def moments_not_centred(dout, x):
    return dout['mean']/len(x) + dout['std']*x/x.std(0)/(len(x)-1)


# Convolution and pooling

@right(rand(2, 2, 7), init=(rand(3, 2, 2), rand(3)))
class CausalConv:
    "Along time, with holes of two steps, and never into the future"
    def __init__(self, w, b): self.w, self.b, self.step = w, b, 2
    def forward(self, x):
        self.x = F.pad(x, (self.step*(self.w.shape[2]-1), 0))
        return F.conv1d(self.x, self.w, self.b, dilation=self.step)
    def backward(self, dout):
        long, t = self.x.shape[2], dout.shape[2]
        self.dw, self.db, dx = torch.zeros_like(self.w), dout.sum((0, 2)), torch.zeros_like(self.x)
        for j in range(self.w.shape[2]):
            s = slice(self.step*j, self.step*j+t)
            self.dw[..., j] = torch.einsum('not,nit->oi', dout, self.x[..., s])
            dx[..., s] += torch.einsum('not,oi->nit', dout, self.w[..., j])
        return dx[..., long-t:]


@wrong(of=CausalConv, says='mean_for_sum')
class CausalConvBiasMean(CausalConv):
    def backward(self, dout):
        dx = super().backward(dout)
        self.db = dout.mean(0).sum(1)
        return dx


@wrong(of=CausalConv, says='flipped path_exchanged')
class CausalConvKernelTurned(CausalConv):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dw = self.dw.flip(2)
        return dx


@wrong(of=CausalConv, says='path_missing shifted derivative_missing')
class CausalConvNoHoles(CausalConv):
    def backward(self, dout):
        super().backward(dout)
        later = dout.roll(-1, 2)
        later[..., -1] = 0
        taps = torch.stack([later, dout], 2)
        return torch.einsum('nojt,oij->nit', taps, self.w)


def filtered(x, w): return np.convolve(x, w), (x, w)

@right(array(7), array(3), forward=filtered)
def filtered_back(dout, cache):
    x, w = cache
    return np.correlate(dout, w, 'valid'), np.correlate(dout, x, 'valid')

@wrong(of=filtered_back, says='not_reversed flipped')
def filtered_convolved(dout, cache):
    x, w = cache
    return np.convolve(dout, w, 'valid'), np.correlate(dout, x, 'valid')

@wrong(of=filtered_back, says='flipped')
def filtered_kernel_turned(dout, cache):
    dx, dw = filtered_back(dout, cache)
    return dx, dw[::-1].copy()


@right(rand(2, 2, 4, 3), init=(rand(3, 2, 3, 3), rand(3)))
class ColumnConv:
    "A convolution as a matrix product with the columns of all windows"
    def __init__(self, weight, bias): self.weight, self.bias = weight, bias
    def __call__(self, x):
        self.x, self.cols = x, F.unfold(x, 3, padding=1)
        out = self.weight.flatten(1)@self.cols+self.bias[:, None]
        self.out = out.reshape(len(x), -1, *x.shape[2:])
        return self.out
    def backward(self):
        d = self.out.g.flatten(2)
        dcols = self.weight.flatten(1).t()@d
        self.x.g = F.fold(dcols, self.x.shape[2:], 3, padding=1)
        self.weight.g = torch.einsum('nol,ncl->oc', d, self.cols).reshape(self.weight.shape)
        self.bias.g = d.sum((0, 2))


@wrong(of=ColumnConv, says='transposed')
class ColumnConvTurned(ColumnConv):
    def backward(self):
        super().backward()
        self.weight.g = self.weight.g.transpose(2, 3)


@wrong(of=ColumnConv, says='size_mean_extra mean_for_sum class_mean_extra')
class ColumnConvMean(ColumnConv):
    def backward(self):
        super().backward()
        self.bias.g = self.out.g.mean((2, 3)).sum(0)


@wrong(of=ColumnConv, says='kernel_not_turned flipped w_not_transposed not_reversed')
class ColumnConvForwards(ColumnConv):
    def backward(self):
        super().backward()
        turned = self.weight.flip(2, 3).flatten(1).t()
        self.x.g = F.fold(turned@self.out.g.flatten(2), self.x.shape[2:], 3, padding=1)


@right(array(2, 2, 3), init=(array(2, 3, 3),))
class TransposedConv:
    "Along time, with stride 2: each input is stretched to three outputs"
    def __init__(self, W): self.W = W
    def forward(self, x):
        self.x = x
        out = np.zeros((len(x), self.W.shape[1], 2*x.shape[2]+1))
        for t in range(x.shape[2]):
            out[:, :, 2*t:2*t+3] += np.einsum('ni,iok->nok', x[:, :, t], self.W)
        return out
    def backward(self, dout):
        at = 2*np.arange(self.x.shape[2])[:, None]+np.arange(3)
        self.dW = np.einsum('nit,notk->iok', self.x, dout[:, :, at])
        return np.einsum('notk,iok->nit', dout[:, :, at], self.W)


@wrong(of=TransposedConv, says='shifted')
class TransposedConvStrideForgotten(TransposedConv):
    def backward(self, dout):
        super().backward(dout)
        at = np.arange(self.x.shape[2])[:, None]+np.arange(3)
        return np.einsum('notk,iok->nit', dout[:, :, at], self.W)


@wrong(of=TransposedConv, says='path_missing some_columns')
class TransposedConvOverlapLost(TransposedConv):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW[:, :, 2] = np.einsum('ni,no->io', self.x[:, :, -1], dout[:, :, -1])
        return dx


@right(rand(2, 3, 6), rand(3, 3))
class DepthwiseConv(Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return torch.einsum('nctk,ck->nct', x.unfold(-1, w.shape[1], 1), w)
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        k, dx = w.shape[1], torch.zeros_like(x)
        for j in range(k):
            dx[..., j:j+dout.shape[2]] += dout*w[:, j, None]
        return dx, torch.einsum('nct,nctk->ck', dout, x.unfold(-1, k, 1))


@wrong(of=DepthwiseConv, says='wrong_axis path_extra')
class DepthwiseMixed(DepthwiseConv):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx, dw = DepthwiseConv.backward(ctx, dout)
        return dx, dw.sum(0).expand_as(w).clone()


@wrong(of=DepthwiseConv, says='flipped not_reversed operand_flipped')
class DepthwiseKernelTurned(DepthwiseConv):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx = torch.zeros_like(x)
        for j in range(w.shape[1]):
            dx[..., j:j+dout.shape[2]] += dout*w[:, -1-j, None]
        return dx, DepthwiseConv.backward(ctx, dout)[1]


@right(rand(2, 3, 4, 4))
class AveragePool:
    "Over fields of 2 by 2"
    def __call__(self, x):
        self.x, (n, c, h, w) = x, x.shape
        self.out = x.reshape(n, c, h//2, 2, w//2, 2).mean((3, 5))
        return self.out
    def backward(self):
        self.x.g = self.out.g.repeat_interleave(2, 2).repeat_interleave(2, 3)/4


@wrong(of=AveragePool, says='constant_factor size_mean_missing')
class AveragePoolSum(AveragePool):
    def backward(self): self.x.g = self.out.g.repeat_interleave(2, 2).repeat_interleave(2, 3)


@wrong(of=AveragePool, says='permuted')
class AveragePoolTiled(AveragePool):
    def backward(self): self.x.g = self.out.g.repeat(1, 1, 2, 2)/4


def sliding_max(x):
    "The largest of each three neighbours; an entry may win more than once"
    out, which = x.unfold(-1, 3, 1).max(-1)
    return out, (x, which+torch.arange(which.shape[-1]))

@right(rand(3, 7), forward=sliding_max)
def sliding_max_back(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter_add(-1, i, dout)

@wrong(of=sliding_max_back, says='indices_overwritten')
def sliding_max_overwritten(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter(-1, i, dout)

@wrong(of=sliding_max_back, says='mask_wrong shifted indices_swapped permuted')
def sliding_max_local_place(dout, cache):
    x, i = cache
    return torch.zeros_like(x).scatter_add(-1, i-torch.arange(i.shape[-1]), dout)


@right(rand(2, 8))
class UnevenPool(Function):
    "The means of three parts, which overlap if the length doesn't go by three"
    @staticmethod
    def forward(ctx, x):
        ctx.long = x.shape[-1]
        return F.adaptive_avg_pool1d(x[:, None], 3)[:, 0]
    @staticmethod
    def backward(ctx, dout):
        t, dx = ctx.long, dout.new_zeros(len(dout), ctx.long)
        for i in range(3):
            part = slice(i*t//3, -(-(i+1)*t//3))
            dx[:, part] += dout[:, i, None]/(part.stop-part.start)
        return dx


@wrong(of=UnevenPool, says='indices_overwritten path_missing')
class UnevenPoolOverwrites(UnevenPool):
    @staticmethod
    def backward(ctx, dout):
        t, dx = ctx.long, dout.new_zeros(len(dout), ctx.long)
        for i in range(3):
            part = slice(i*t//3, -(-(i+1)*t//3))
            dx[:, part] = dout[:, i, None]/(part.stop-part.start)
        return dx


@wrong(of=UnevenPool, says='factor_per_column constant_factor path_scaled')
class UnevenPoolEvenly(UnevenPool):
    @staticmethod
    def backward(ctx, dout):
        t, dx = ctx.long, dout.new_zeros(len(dout), ctx.long)
        for i in range(3):
            dx[:, i*t//3:-(-(i+1)*t//3)] += dout[:, i, None]*3/t
        return dx


def upsampled(x): return x.repeat_interleave(2, 2).repeat_interleave(2, 3), x.shape

@right(rand(2, 1, 2, 3), forward=upsampled)
def upsampled_back(dout, shape):
    n, c, h, w = shape
    return dout.reshape(n, c, h, 2, w, 2).sum((3, 5))

@wrong(of=upsampled_back, says='constant_factor mean_for_sum size_mean_extra')
def upsampled_mean(dout, shape): return upsampled_back(dout, shape)/4

@wrong(of=upsampled_back, says='path_missing indices_overwritten')
def upsampled_corner(dout, shape): return dout[:, :, ::2, ::2].clone()


# Through time

@right(rand(4, 2, 3), init=(rand(3, 4), rand(4, 4)/2, rand(4)))
class Recurrent:
    "A plain recurrent layer, over all steps"
    def __init__(self, w, u, b): self.w, self.u, self.b = w, u, b
    def forward(self, x):
        hs = [torch.zeros_like(x[0]@self.w)]
        for t in range(len(x)):
            hs.append((x[t]@self.w+hs[-1]@self.u+self.b).tanh())
        self.x, self.hs = x, torch.stack(hs)
        return self.hs[1:]
    def through(self, dout):
        "The gradient of each step before its tanh"
        dz, dh = [], torch.zeros_like(dout[0])
        for h, d in zip(self.hs[1:].flip(0), dout.flip(0)):
            dz.append((d+dh)*(1-h**2))
            dh = dz[-1]@self.u.T
        return torch.stack(dz[::-1])
    def backward(self, dout):
        dz = self.through(dout)
        self.dw = torch.einsum('tni,tno->io', self.x, dz)
        self.du = torch.einsum('tnh,tno->ho', self.hs[:-1], dz)
        self.db = dz.sum((0, 1))
        return dz@self.w.T


@wrong(of=Recurrent, says='path_missing')
class RecurrentTruncated(Recurrent):
    def through(self, dout): return dout*(1-self.hs[1:]**2)


@wrong(of=Recurrent, says='shifted stale behind indices_swapped wrong_tensor')
class RecurrentOneStepLate(Recurrent):
    def backward(self, dout):
        dx = super().backward(dout)
        self.du = torch.einsum('tnh,tno->ho', self.hs[1:], self.through(dout))
        return dx


@wrong(of=Recurrent, says='w_not_transposed')
class RecurrentTurned(Recurrent):
    def through(self, dout):
        dz, dh = [], torch.zeros_like(dout[0])
        for h, d in zip(self.hs[1:].flip(0), dout.flip(0)):
            dz.append((d+dh)*(1-h**2))
            dh = dz[-1]@self.u
        return torch.stack(dz[::-1])


@right(rand(4, 3), rand(4, 2), rand(3, 6), rand(2, 6))
class GruCell(Function):
    @staticmethod
    def forward(ctx, x, h, w, u):
        (ar, az, an), (br, bz, bn) = (x@w).chunk(3, 1), (h@u).chunk(3, 1)
        r, z = (ar+br).sigmoid(), (az+bz).sigmoid()
        n = (an+r*bn).tanh()
        ctx.save_for_backward(x, h, w, u, r, z, n, bn)
        return (1-z)*n+z*h
    @staticmethod
    def backward(ctx, dout):
        x, h, w, u, r, z, n, bn = ctx.saved_tensors
        dn, dz = dout*(1-z)*(1-n**2), dout*(h-n)*z*(1-z)
        dr = dn*bn*r*(1-r)
        da, db = torch.cat([dr, dz, dn], 1), torch.cat([dr, dz, dn*r], 1)
        return da@w.T, db@u.T+dout*z, x.T@da, h.T@db


@wrong(of=GruCell, says='skip_missing path_missing')
class GruCarryForgotten(GruCell):
    @staticmethod
    def backward(ctx, dout):
        dx, dh, dw, du = GruCell.backward(ctx, dout)
        return dx, dh-dout*ctx.saved_tensors[5], dw, du


@wrong(of=GruCell, says='factor_missing')
class GruResetOnceForgotten(GruCell):
    @staticmethod
    def backward(ctx, dout):
        x, h, w, u, r, z, n, bn = ctx.saved_tensors
        dn = dout*(1-z)*(1-n**2)
        dx, dh, dw, du = GruCell.backward(ctx, dout)
        size = dn.shape[1]
        return dx, dh, dw, torch.cat([du[:, :2*size], h.T@dn], 1)


@wrong(of=GruCell, says='path_missing')
class GruUpdateOneSided(GruCell):
    @staticmethod
    def backward(ctx, dout):
        x, h, w, u, r, z, n, bn = ctx.saved_tensors
        dx, dh, dw, du = GruCell.backward(ctx, dout)
        size = z.shape[1]
        dw[:, size:2*size] = x.T@(-dout*n*z*(1-z))
        return dx, dh, dw, du


def lstm_step(gates, c):
    "From the four gates before their activations, and the cell"
    i, f, o, g = gates.chunk(4, 1)
    i, f, o, g = i.sigmoid(), f.sigmoid(), o.sigmoid(), g.tanh()
    new = f*c+i*g
    return o*new.tanh(), new, (i, f, o, g, c, new.tanh())

@right(rand(3, 8), rand(3, 2), forward=lstm_step)
def lstm_step_back(dh, dnew, cache):
    i, f, o, g, c, t = cache
    dc = dnew+dh*o*(1-t**2)
    di, df, do, dg = dc*g*i*(1-i), dc*c*f*(1-f), dh*t*o*(1-o), dc*i*(1-g**2)
    return torch.cat([di, df, do, dg], 1), dc*f

@wrong(of=lstm_step_back, says='path_missing upstream_ignored output_ignored')
def lstm_cell_upstream_ignored(dh, dnew, cache): return lstm_step_back(dh, 0*dnew, cache)

@wrong(of=lstm_step_back, says='derivative_missing')
def lstm_tanh_forgotten(dh, dnew, cache):
    i, f, o, g, c, t = cache
    dgates, _ = lstm_step_back(dh, dnew, cache)
    return dgates, (dnew+dh*o)*f

@wrong(of=lstm_step_back, says='path_exchanged permuted wrong_tensor')
def lstm_gates_exchanged(dh, dnew, cache):
    dgates, dc = lstm_step_back(dh, dnew, cache)
    di, df, do, dg = dgates.chunk(4, 1)
    return torch.cat([di, df, dg, do], 1), dc


def scan(a, b):
    assert a.shape==b.shape
    h, hs = torch.zeros_like(b[0]), []
    for t in range(len(a)):
        h = a[t]*h+b[t]
        hs.append(h)
    return torch.stack(hs), (a, torch.stack(hs))

@right(rand(5, 3), rand(5, 3, seed=1), forward=scan)
def scan_back(dout, cache):
    a, hs = cache
    g = [dout[-1]]
    for t in range(len(a)-1, 0, -1):
        g.append(dout[t-1]+a[t]*g[-1])
    db = torch.stack(g[::-1])
    return torch.cat([torch.zeros_like(db[:1]), db[1:]*hs[:-1]]), db

@wrong(of=scan_back, says='shifted factor_missing')
def scan_earlier_factor(dout, cache):
    a, hs = cache
    return scan_back(dout, (torch.cat([a[:1], a[:-1]]), hs))

@wrong(of=scan_back, says='shifted wrong_tensor path_extra')
def scan_later_state(dout, cache):
    da, db = scan_back(dout, cache)
    return db*cache[1], db


@right(rand(4, 3), init=(rand(3, 3),))
class EulerSteps:
    "Three steps along a field, all with the same weights"
    def __init__(self, w): self.w = w
    def forward(self, x):
        self.xs = [x]
        for _ in range(3):
            self.xs.append(self.xs[-1]+.5*(self.xs[-1]@self.w).tanh())
        return self.xs[-1]
    def backward(self, dout):
        self.dw = torch.zeros_like(self.w)
        for x in self.xs[2::-1]:
            dz = .5*dout*(1-(x@self.w).tanh()**2)
            self.dw += x.T@dz
            dout = dout+dz@self.w.T
        return dout


@wrong(of=EulerSteps, says='tied_overwritten path_missing')
class EulerFirstStepOnly(EulerSteps):
    def backward(self, dout):
        for x in self.xs[2::-1]:
            dz = .5*dout*(1-(x@self.w).tanh()**2)
            self.dw = x.T@dz
            dout = dout+dz@self.w.T
        return dout


@wrong(of=EulerSteps, says='upstream_overwritten')
class EulerInPlace(EulerSteps):
    def backward(self, dout):
        self.dw = torch.zeros_like(self.w)
        for x in self.xs[2::-1]:
            dz = .5*dout*(1-(x@self.w).tanh()**2)
            self.dw += x.T@dz
            dout += dz@self.w.T
        return dout


@wrong(of=EulerSteps, says='skip_missing path_missing')
class EulerLastIdentityLost(EulerSteps):
    def backward(self, dout):
        self.dw = torch.zeros_like(self.w)
        for x in self.xs[2::-1]:
            dz = .5*dout*(1-(x@self.w).tanh()**2)
            self.dw += x.T@dz
            dout = dout+dz@self.w.T
        return dz@self.w.T


# Attention

@right(rand(5, 4), rand(5, 4, seed=1), rand(5, 4, seed=2))
class CausalAttention(Function):
    @staticmethod
    def forward(ctx, q, k, v):
        future = torch.ones(len(q), len(k)).triu(1).bool()
        p = (q@k.T/q.shape[1]**.5).masked_fill(future, -torch.inf).softmax(-1)
        ctx.save_for_backward(q, k, v, p)
        return p@v
    @staticmethod
    def backward(ctx, dout):
        q, k, v, p = ctx.saved_tensors
        dp = dout@v.T
        ds = p*(dp-(p*dp).sum(-1, keepdim=True))/q.shape[1]**.5
        return ds@k, ds.T@q, p.T@dout


@wrong(of=CausalAttention, says='scale_missing factor_two constant_factor')
class CausalScaleForgotten(CausalAttention):
    @staticmethod
    def backward(ctx, dout):
        dq, dk, dv = CausalAttention.backward(ctx, dout)
        return dq, dk*dq.shape[1]**.5, dv


@wrong(of=CausalAttention, says='mask_missing path_extra')
class CausalValuesUnmasked(CausalAttention):
    @staticmethod
    def backward(ctx, dout):
        q, k, v, p = ctx.saved_tensors
        dq, dk, _ = CausalAttention.backward(ctx, dout)
        return dq, dk, (q@k.T/q.shape[1]**.5).softmax(-1).T@dout


@wrong(of=CausalAttention, says='w_not_transposed')
class CausalTurned(CausalAttention):
    @staticmethod
    def backward(ctx, dout):
        dq, dk, _ = CausalAttention.backward(ctx, dout)
        return dq, dk, ctx.saved_tensors[3]@dout


@right(rand(3, 4), init=(rand(4, 12),))
class SelfAttention:
    "Two heads, from one matrix for queries, keys and values"
    def __init__(self, w): self.w, self.heads = w, 2
    def split(self, t): return t.reshape(len(t), self.heads, -1).transpose(0, 1)
    def merge(self, t): return t.transpose(0, 1).reshape(t.shape[1], -1)
    def forward(self, x):
        self.x = x
        self.q, self.k, self.v = map(self.split, (x@self.w).chunk(3, 1))
        self.p = (self.q@self.k.mT/self.q.shape[2]**.5).softmax(-1)
        return self.merge(self.p@self.v)
    def parts(self, dout):
        "The gradients of queries, keys and values"
        d = self.split(dout)
        dp = d@self.v.mT
        ds = self.p*(dp-(self.p*dp).sum(-1, keepdim=True))/self.q.shape[2]**.5
        return ds@self.k, ds.mT@self.q, self.p.mT@d
    def backward(self, dout):
        d = torch.cat([self.merge(t) for t in self.parts(dout)], 1)
        self.dw = self.x.T@d
        return d@self.w.T


@wrong(of=SelfAttention, says='path_missing')
class SelfAttentionKeysConstant(SelfAttention):
    def parts(self, dout):
        dq, dk, dv = super().parts(dout)
        return dq, 0*dk, dv


@wrong(of=SelfAttention, says='reshaped permuted')
class SelfAttentionHeadsMixed(SelfAttention):
    def backward(self, dout):
        d = torch.cat([t.reshape(len(dout), -1) for t in self.parts(dout)], 1)
        self.dw = self.x.T@d
        return d@self.w.T


@wrong(of=SelfAttention, says='denominator_path_missing')
class SelfAttentionNoDenominator(SelfAttention):
    def parts(self, dout):
        d = self.split(dout)
        ds = self.p*(d@self.v.mT)/self.q.shape[2]**.5
        return ds@self.k, ds.mT@self.q, self.p.mT@d


def linear_attention(q, k, v):
    a, b = q.exp(), k.exp()
    total = a@b.sum(0)
    return a@(b.t()@v)/total[:, None], (a, b, v, total)

@right(rand(4, 3), rand(5, 3), rand(5, 2), forward=linear_attention)
def linear_attention_back(dout, cache):
    a, b, v, total = cache
    out, d = a@(b.t()@v)/total[:, None], dout/total[:, None]
    dtotal = -(d*out).sum(1)
    da = d@(b.t()@v).t()+torch.outer(dtotal, b.sum(0))
    db = v@(a.t()@d).t()+dtotal@a
    return da*a, db*b, b@(a.t()@d)

@wrong(of=linear_attention_back, says='denominator_path_missing path_missing')
def linear_attention_total_constant(dout, cache):
    a, b, v, total = cache
    d = dout/total[:, None]
    return d@(b.t()@v).t()*a, v@(a.t()@d).t()*b, b@(a.t()@d)

@wrong(of=linear_attention_back, says='derivative_missing factor_missing')
def linear_attention_exp_forgotten(dout, cache):
    dq, dk, dv = linear_attention_back(dout, cache)
    return dq, dk/cache[1], dv


def angles(pos, width):
    a = pos[:, None]/10.**torch.arange(width//2)
    return a.cos(), a.sin()

def rotary(x, pos):
    (cos, sin), (a, b) = angles(pos, x.shape[1]), x.chunk(2, 1)
    return torch.cat([a*cos-b*sin, a*sin+b*cos], 1), pos

@right(rand(4, 6), torch.tensor([0, 1, 2, 5]), forward=rotary)
def rotary_back(dout, pos):
    (cos, sin), (a, b) = angles(pos, dout.shape[1]), dout.chunk(2, 1)
    return torch.cat([a*cos+b*sin, b*cos-a*sin], 1), None

@wrong(of=rotary_back, says='path_sign not_reversed')
def rotary_same_way(dout, pos): return rotary(dout, pos)[0], None

@wrong(of=rotary_back, says='path_missing diagonal_only')
def rotary_cosine_only(dout, pos):
    (cos, sin), (a, b) = angles(pos, dout.shape[1]), dout.chunk(2, 1)
    return torch.cat([a*cos, b*cos], 1), None


@right(rand(4, 4), rand(7))
class RelativeBias(Function):
    "A number for each distance of two places is added to their score"
    @staticmethod
    def forward(ctx, scores, bias):
        assert scores.shape[0]==scores.shape[1]
        n = torch.arange(len(scores))
        ctx.i, ctx.long = n[:, None]-n+len(n)-1, len(bias)
        return scores+bias[ctx.i]
    @staticmethod
    def backward(ctx, dout):
        dbias = dout.new_zeros(ctx.long)
        return dout, dbias.index_add(0, ctx.i.flatten(), dout.flatten())


@wrong(of=RelativeBias, says='flipped')
class RelativeBiasOtherWay(RelativeBias):
    @staticmethod
    def backward(ctx, dout): return dout, RelativeBias.backward(ctx, dout.t())[1]


@wrong(of=RelativeBias, says='indices_overwritten')
class RelativeBiasOverwrites(RelativeBias):
    @staticmethod
    def backward(ctx, dout):
        dbias = dout.new_zeros(ctx.long)
        dbias[ctx.i] = dout
        return dout, dbias


@wrong(of=RelativeBias, says='size_mean_extra mean_for_sum class_mean_extra factor_per_row')
class RelativeBiasMean(RelativeBias):
    @staticmethod
    def backward(ctx, dout):
        _, dbias = RelativeBias.backward(ctx, dout)
        return dout, dbias/ctx.i.flatten().bincount(minlength=ctx.long).clamp_min(1)


@right(rand(3, 4), rand(5, 4), init=(rand(4),))
class AdditiveScores:
    "How well a query goes with a key, by a small network"
    def __init__(self, v): self.v = v
    def forward(self, q, k):
        self.t = (q[:, None]+k).tanh()
        return self.t@self.v
    def backward(self, dout):
        d = dout[..., None]*self.v*(1-self.t**2)
        self.dv = torch.einsum('qk,qkd->d', dout, self.t)
        return d.sum(1), d.sum(0)


@wrong(of=AdditiveScores, says='derivative_missing')
class AdditiveScoresLinear(AdditiveScores):
    def backward(self, dout):
        super().backward(dout)
        d = dout[..., None]*self.v
        return d.sum(1), d.sum(0)


@wrong(of=AdditiveScores, says='upstream_ignored')
class AdditiveScoresAlone(AdditiveScores):
    def backward(self, dout):
        grads = super().backward(dout)
        self.dv = self.t.sum((0, 1))
        return grads


# Matrices

@right(rand(3, 3)+2*torch.eye(3))
class Inverse(Function):
    @staticmethod
    def forward(ctx, a):
        out = torch.linalg.inv(a)
        ctx.save_for_backward(out)
        return out
    @staticmethod
    def backward(ctx, dout):
        out, = ctx.saved_tensors
        return -out.T@dout@out.T


@wrong(of=Inverse, says='sign')
class InversePlus(Inverse):
    @staticmethod
    def backward(ctx, dout): return -Inverse.backward(ctx, dout)


@wrong(of=Inverse, says='w_not_transposed')
class InverseTurned(Inverse):
    @staticmethod
    def backward(ctx, dout):
        out, = ctx.saved_tensors
        return -out@dout@out


def log_volume(a): return torch.linalg.slogdet(a).logabsdet, a

@right(rand(3, 3)+2*torch.eye(3), forward=log_volume)
def log_volume_back(dout, a): return dout*torch.linalg.inv(a).t()

@wrong(of=log_volume_back, says='transposed')
def log_volume_turned(dout, a): return dout*torch.linalg.inv(a)

@wrong(of=log_volume_back, says='factor_missing derivative_missing constant_factor')
def log_volume_of_det(dout, a): return dout*torch.linalg.det(a)*torch.linalg.inv(a).t()


def solved(a, b):
    x = np.linalg.solve(a, b)
    return x, (a, x)

@right(array(3, 3)+2*np.eye(3), array(3, 2), forward=solved)
def solved_back(dout, cache):
    a, x = cache
    db = np.linalg.solve(a.T, dout)
    return -db@x.T, db

@wrong(of=solved_back, says='sign')
def solved_plus(dout, cache):
    da, db = solved_back(dout, cache)
    return -da, db

@wrong(of=solved_back, says='w_not_transposed')
def solved_same_system(dout, cache):
    a, x = cache
    return solved_back(dout, cache)[0], np.linalg.solve(a, dout)


@right(rand(3, 3))
class CholeskyOfProduct(Function):
    "The triangular root of m·mᵀ + 1"
    @staticmethod
    def forward(ctx, m):
        root = torch.linalg.cholesky(m@m.T+torch.eye(len(m)).to(m))
        ctx.save_for_backward(m, root)
        return root
    @staticmethod
    def into_product(root, dout):
        "From the root back to the product"
        inner = (root.T@dout.tril()).tril()
        inner = inner-inner.diag().diag()/2
        inv = torch.linalg.inv(root)
        return inv.T@inner@inv
    @staticmethod
    def backward(ctx, dout):
        m, root = ctx.saved_tensors
        s = CholeskyOfProduct.into_product(root, dout)
        return (s+s.T)@m


@wrong(of=CholeskyOfProduct, says='path_missing')
class CholeskyOneFactor(CholeskyOfProduct):
    @staticmethod
    def backward(ctx, dout):
        m, root = ctx.saved_tensors
        return CholeskyOfProduct.into_product(root, dout)@m


@wrong(of=CholeskyOfProduct, says='path_scaled factor_two diagonal_only')
class CholeskyDiagonalWhole(CholeskyOfProduct):
    @staticmethod
    def backward(ctx, dout):
        m, root = ctx.saved_tensors
        inv = torch.linalg.inv(root)
        s = inv.T@(root.T@dout.tril()).tril()@inv
        return (s+s.T)@m


@right(rand(4, 3), rand(3, 3))
class QuadraticForm(Function):
    @staticmethod
    def forward(ctx, x, a):
        ctx.save_for_backward(x, a)
        return (x@a*x).sum(1)
    @staticmethod
    def backward(ctx, dout):
        x, a = ctx.saved_tensors
        return dout[:, None]*(x@(a+a.T)), x.T@(dout[:, None]*x)


@wrong(of=QuadraticForm, says='w_not_transposed path_missing')
class QuadraticTakenForSymmetric(QuadraticForm):
    @staticmethod
    def backward(ctx, dout):
        x, a = ctx.saved_tensors
        return 2*dout[:, None]*(x@a), x.T@(dout[:, None]*x)


@wrong(of=QuadraticForm, says='path_missing')
class QuadraticOneSide(QuadraticForm):
    @staticmethod
    def backward(ctx, dout):
        x, a = ctx.saved_tensors
        return dout[:, None]*(x@a), x.T@(dout[:, None]*x)


def cross(a, b): return np.cross(a, b), (a, b)

@right(array(4, 3), array(4, 3, seed=1), forward=cross)
def cross_back(dout, cache):
    a, b = cache
    return np.cross(b, dout), np.cross(dout, a)

@wrong(of=cross_back, says='sign')
def cross_order(dout, cache):
    a, b = cache
    return np.cross(b, dout), np.cross(a, dout)


@right(rand(5, 2), init=(torch.tensor(.7),))
class Rotation:
    "By an angle that is learnt"
    def __init__(self, angle): self.angle = angle
    def matrix(self, turn=0.):
        c, s = (self.angle+turn).cos(), (self.angle+turn).sin()
        return torch.stack([torch.stack([c, s]), torch.stack([-s, c])])
    def forward(self, x):
        self.x = x
        return x@self.matrix()
    def backward(self, dout):
        self.dangle = (dout*(self.x@self.matrix(torch.pi/2))).sum()
        return dout@self.matrix().T


@wrong(of=Rotation, says='w_not_transposed')
class RotationSameWay(Rotation):
    def backward(self, dout):
        super().backward(dout)
        return dout@self.matrix()


@wrong(of=Rotation, says='derivative_missing')
class RotationNotTurned(Rotation):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dangle = (dout*(self.x@self.matrix())).sum()
        return dx


@right(rand(4, 4))
class Eigenvalues(Function):
    "Of the symmetric part"
    @staticmethod
    def forward(ctx, m):
        assert m.shape[0]==m.shape[1]
        values, vectors = torch.linalg.eigh((m+m.T)/2)
        ctx.save_for_backward(vectors)
        return values
    @staticmethod
    def backward(ctx, dout):
        v, = ctx.saved_tensors
        return v@dout.diag()@v.T


@wrong(of=Eigenvalues, says='w_not_transposed')
class EigenvaluesTurned(Eigenvalues):
    @staticmethod
    def backward(ctx, dout):
        v, = ctx.saved_tensors
        return v.T@dout.diag()@v


def cube(a): return a@a@a, a

@right(rand(3, 3), forward=cube)
def cube_back(dout, a):
    b = a.t()
    return dout@b@b + b@dout@b + b@b@dout

@wrong(of=cube_back, says='w_not_transposed operands_swapped path_missing')
def cube_as_of_a_number(dout, a): return 3*dout@a.t()@a.t()

@wrong(of=cube_back, says='path_missing')
def cube_middle_forgotten(dout, a):
    b = a.t()
    return dout@b@b + b@b@dout


@right(rand(3, 5))
class GramMatrix:
    "Which rows go together, as in a style loss"
    def forward(self, x):
        self.x = x
        return x@x.T/x.shape[1]
    def backward(self, dout): return (dout+dout.T)@self.x/self.x.shape[1]


@wrong(of=GramMatrix, says='path_missing w_not_transposed')
class GramUpstreamSymmetric(GramMatrix):
    def backward(self, dout): return 2*dout@self.x/self.x.shape[1]


@wrong(of=GramMatrix, says='class_mean_missing size_mean_missing')
class GramNotDivided(GramMatrix):
    def backward(self, dout): return (dout+dout.T)@self.x


# An engine of one's own

class Var:
    "An array that knows what it was made of"
    def __init__(self, data, parents=()): self.data, self.parents, self.grad = np.asarray(data), parents, 0.
    def __add__(self, o):
        return type(self)(self.data+o.data, [(self, lambda g: g), (o, lambda g: g)])
    def __mul__(self, o):
        parents = [(self, lambda g: g*o.data), (o, lambda g: g*self.data)]
        return type(self)(self.data*o.data, parents)
    def tanh(self):
        t = np.tanh(self.data)
        return type(self)(t, [(self, lambda g: g*(1-t*t))])
    def backward(self, g):
        self.grad = self.grad+g
        for parent, back in self.parents:
            parent.backward(back(g))


class VarAssigns(Var):
    def backward(self, g):
        self.grad = g
        for parent, back in self.parents:
            parent.backward(back(g))


class VarPassesAll(Var):
    "Passes on all that has come so far, each time that something comes"
    def backward(self, g):
        self.grad = self.grad+g
        for parent, back in self.parents:
            parent.backward(back(self.grad))


class VarLinear(Var):
    def tanh(self):
        return type(self)(np.tanh(self.data), [(self, lambda g: g)])


@right(array(4), array(4, seed=1))
class Tape(Engine):
    "A formula in the engine, in which everything is used more than once"
    var = Var
    def __init__(self):
        back = lambda out, up: out.backward(up)
        super().__init__(self.formula, self.var, lambda v: v.data, lambda v: v.grad, back)
    @staticmethod
    def formula(a, b):
        h = (a*b+b).tanh()
        return h*h+a*h


@wrong(of=Tape, says='tied_overwritten path_missing used_twice')
class TapeAssigns(Tape):
    var = VarAssigns


@wrong(of=Tape, says='path_extra used_twice path_scaled')
class TapePassesAll(Tape):
    var = VarPassesAll


@wrong(of=Tape, says='derivative_missing')
class TapeLinear(Tape):
    var = VarLinear
