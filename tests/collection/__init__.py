"""Backward passes as people write them, right ones and wrong ones, for the checker to be tried on

An entry is a class that has its forward and backward pass, a `torch.autograd.Function`, or the backward function of a pair.
`@right(*inputs)` puts a right one down together with what it is called with, `@wrong(of=…, says=…)` one that differs from it by a bug;
`says` are the names that tell this bug. All are public layers and kernels, written anew and small.
"""
from dataclasses import dataclass, field

import torch

from minimlp.gradcheck import check_backward

RIGHT, WRONG = {}, {}  # name → Entry
DESCRIBES = {'unknown', 'raises', 'partly_written', 'permuted', 'factor_per_row', 'factor_per_column'}  # what is seen, and no cause


@dataclass
class Entry:
    "A backward pass, what it is called with, and the names that tell its bug"
    made: object            # a class, a Function, or the backward function of a pair
    inputs: tuple
    forward: object = None  # the forward function of a pair
    init: tuple = ()        # what a class is made from
    options: dict = field(default_factory=dict)  # of `check_backward`
    says: tuple = ()

    def target(self):
        "What is handed in"
        if self.forward: return self.forward, self.made
        if issubclass(self.made, torch.autograd.Function): return self.made
        return self.made(*self.init)

    def report(self):
        "What the check says"
        return check_backward(self.target(), *self.inputs, **self.options)


def name_of(made):
    "The file and the name of an entry"
    return f"{made.__module__.split('.')[-1]}.{made.__name__}"


def right(*inputs, forward=None, init=(), **options):
    "A right backward pass; `forward` is given for a pair, `init` for a class, `options` for `check_backward`"
    def put(made):
        RIGHT[name_of(made)] = Entry(made, inputs, forward, init, options)
        return made
    return put


def wrong(*inputs, of, says, forward=None, init=None, **options):
    "`of`, a right one, with a bug; `says`: names that tell it, divided by blanks. What isn't given is as it is there"
    def put(made):
        r = RIGHT[name_of(of)]
        init_ = r.init if init is None else init
        WRONG[name_of(made)] = Entry(made, inputs or r.inputs, forward or r.forward, init_, {**r.options, **options}, tuple(says.split()))
        return made
    return put


def heard(entry, report):
    "How a report speaks of a wrong entry: 'named', 'unknown' or 'misleading'"
    guesses = [b for r in report.rows if not r.ok for b in r.bugs[:2]]
    if any(set(b.name.split('+'))<=set(entry.says) for b in guesses): return 'named'
    sure = {b.name for b in guesses if b.sure and not b.name.startswith('some_')} - DESCRIBES
    return 'misleading' if sure else 'unknown'


def rand(*shape, seed=0):
    "Random numbers; the same for the same shape and seed"
    gen = torch.Generator().manual_seed(hash((shape, seed)) % 2**31)
    return torch.randn(*shape, generator=gen)


def ints(high, *shape, seed=0):
    "Random whole numbers below `high`"
    gen = torch.Generator().manual_seed(hash((high, shape, seed)) % 2**31)
    return torch.randint(high, shape, generator=gen)


def array(*shape, seed=0):
    "As `rand`, for NumPy"
    return rand(*shape, seed=seed).double().numpy()
