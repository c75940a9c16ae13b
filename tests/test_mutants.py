"""The tests of the chapters notice when a line of a backward pass is spoilt.

Every statement of every `*_grad`, `backward`, `bwd` and `_upstream` of chapters 2 to 4, and of the right layers of chapter 7, is replaced by mutants (dropped, its sign changed, a sum
for a mean, a transposition or a factor left out, a comparison turned round). Each mutant is put into a copy of the notebook, and the notebook's
own cells are run. A mutant that lives on is a hole in the tests.
"""
import ast, itertools, re

import nbformat, pytest
from nbdev.test import test_nb as run_notebook

from conftest import TOP

run_notebook.__test__ = False
TARGETS = re.compile(r'_grad$|backward$|^bwd$|^_upstream$')
SWAPS = [(r'\.sum\(', '.mean('), (r'\.t\(\)', ''), (r'>', '<'), (r'>', '>='), (r'2\. \* ', ''), (r' / len\(targ\)', ''), (r'reversed\((.*?)\)', r'\1'),
         (r'\(inp > 0\) \* ', ''), (r'inp\.t\(\) @ g', 'g.t() @ inp'), (r'self\.out, ', 'self.out.clone(), ')]
SURVIVORS = {} # `chapter: statement → mutant`, and why it makes no difference


def mutants(src):
    "`(what, source)` for each mutant of a cell"
    lines = src.splitlines()
    for fn in (n for n in ast.walk(ast.parse(src)) if isinstance(n, ast.FunctionDef) and TARGETS.search(n.name)):
        for s in (s for s in ast.walk(fn) if isinstance(s, (ast.Assign, ast.Expr, ast.If, ast.For)) and s is not fn):
            if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant): continue # the docstring
            old = ast.get_source_segment(src, s)
            news = {'pass'} | {re.sub(a, b, old, count=1) for a, b in SWAPS}
            if isinstance(s, ast.Assign): news.add(f'{ast.get_source_segment(src, s.targets[0])} = -({ast.get_source_segment(src, s.value)})')
            for new in sorted(news - {old}):
                row, col, end, ecol = s.lineno-1, len(lines[s.lineno-1].encode()[:s.col_offset].decode()), s.end_lineno-1, len(lines[s.end_lineno-1].encode()[:s.end_col_offset].decode())
                yield f'{fn.name}: {old} → {new}', '\n'.join([*lines[:row], lines[row][:col] + new + lines[end][ecol:], *lines[end+1:]])


@pytest.mark.parametrize('chapter', ['02_backward', '03_layers', '04_module', '07_bugs'])
def test_every_mutant_is_killed(chapter, tmp_path):
    nb = nbformat.read(TOP/'nbs'/f'{chapter}.ipynb', as_version=4)
    nb.cells = list(itertools.takewhile(lambda c: '@bug(' not in c.source, nb.cells)) # below it is wrong on purpose
    where, alive, count = tmp_path/f'{chapter}.ipynb', [], 0
    nbformat.write(nb, where)
    assert run_notebook(where, skip_flags=['full', 'slow'], basepath=TOP)[0], 'as it is, the notebook passes'
    for cell in nb.cells:
        if cell.cell_type!='code' or not re.search(r'^#\| export', cell.source): continue
        right = cell.source
        for what, cell.source in mutants(right):
            try: compile(cell.source, what, 'exec')
            except SyntaxError: continue # the swap has made no Python
            nbformat.write(nb, where)
            lives, _ = run_notebook(where, skip_flags=['full', 'slow'], showerr=False, basepath=TOP)
            count += 1
            if lives: alive.append(what)
        cell.source = right
    assert count>=5
    assert sorted(alive)==sorted(s for c, s in SURVIVORS if c==chapter), f'{len(alive)} of {count} mutants live on'
