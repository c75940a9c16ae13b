"Activations, losses, normalisation, dropout, linear maps and embeddings"
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


@wrong(of=Sigmoid, says='factor_missing derivative_missing')
class SigmoidHalf(Sigmoid):
    def backward(self, dout): return dout*(1-self.out)


def softplus(x): return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0), x

@right(array(4, 3), forward=softplus)
def softplus_back(dout, x): return dout/(1+np.exp(-x))

@wrong(of=softplus_back, says='sign')
def softplus_minus(dout, x): return -dout/(1+np.exp(-x))


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
