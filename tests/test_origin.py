"""The walk-through that this project grew from runs on this library, section by section, to its printed digits.

Its text isn't part of the project. Where it lies beside the checkout (see `conftest.ORIGIN`), its own cells run here as they are, with the
definitions of functions and classes that the library provides replaced by imports.
"""
import ast, re

import pytest, torch

from conftest import ORIGIN
from minimlp.data import load_mnist

LIB = {'lin': 'forward', 'relu': 'forward', 'mse': 'forward', 'lin_grad': 'backward'}
CLASSES = {'Relu', 'Lin', 'Mse', 'Model', 'Module', 'Linear'}


def cells():
    "Number, code and the paragraph below the code, for each cell in the order of the page"
    text = next(ORIGIN.glob('*.txt')).read_text(encoding='utf-8')
    for num, body in re.findall(r'^In \[(\d+)\]:\n(.*?)(?=^In \[|^##|\Z)', text, re.S|re.M):
        paras = [p for p in body.split('\n\n') if p.strip()]
        more = [bool(re.match(r' |# |[\w, ]+ = ', p)) for p in paras[1:]] + [False] # a method, a comment or an assignment: still code
        k = 1 + more.index(False)
        yield int(num), '\n\n'.join(paras[:k]), ' '.join(paras[k:k+1])


def ours(code, module):
    "The cell with its definitions replaced by imports from `module`, or None where it defines nothing that the library has"
    names = [n.name for n in ast.parse(code).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    if any(n in LIB for n in names): return '\n'.join(f'from minimlp.{LIB[n]} import {n}' for n in names)
    if any(n in CLASSES for n in names): return '\n'.join(f'from minimlp.{module} import {n}' for n in names)


def run(code, ns):
    "Run a cell; what a notebook would show of its last line"
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, 'cell', 'exec'), ns)
    if last: return repr(eval(compile(ast.Expression(last.value), 'cell', 'eval'), ns))


def stale(ns):
    "Fill every `.g` with NaN, so that no section can live on the gradients of the one before"
    for k in ('w1', 'b1', 'w2', 'b2', 'x_train'): ns[k].g = torch.full_like(ns[k], float('nan'))


@pytest.mark.full
@pytest.mark.origin
def test_origin_runs_on_this_library():
    ns, compared, replaced = {}, [], []
    (x, y), (xv, yv), _ = load_mnist()
    for num, code, printed in cells():
        if num==1: # its imports and settings as they are; the data from our reader
            run(code[:code.index('# Path setup')], ns)
            ns.update(x_train=x, y_train=y, x_valid=xv, y_valid=yv)
            continue
        if num in (37, 45): stale(ns)
        if lib := ours(code, 'autograd' if num>=50 else 'module' if num>=41 else 'layers'):
            code = lib
            replaced.append(num)
        shown = run(code, ns)
        if shown not in (None, 'None'):
            assert shown.split()==printed.split(), f'cell {num} printed\n{printed}\nand now\n{shown}'
            compared.append(num)
    assert replaced==[5, 8, 20, 25, 33, 34, 35, 36, 41, 42, 43, 49, 51, 55]
    assert compared==[2, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 54]
