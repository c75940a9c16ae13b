"""The tests of the chapters notice when a line of a backward pass is spoilt.

Every statement of every `*_grad`, `backward`, `bwd` and `_upstream` of chapters 2 to 4, of the right layers of chapter 9, of the optimizers,
and of the fast step of chapter 11, is replaced by mutants (dropped, its sign changed, a sum for a mean, a transposition or a factor left out,
a comparison turned round). Each mutant is put into a copy of the notebook, and the notebook's own cells are run, but for its pictures.
A mutant that lives on is a hole in the tests.
"""
import ast, itertools, re
from pathlib import Path

import nbformat, pytest

from conftest import TOP
from minimlp.data import SAMPLE
from forks import failure, pool

TARGETS = re.compile(r'_grad$|backward$|^bwd$|^_upstream$|^step$|^update$|^_block$|^_forward$|^_leave$|^_cross_entropy$|^_one_hot$|^_squares$')
SWAPS = [(r'\.sum\(', '.mean('), (r'\.t\(\)', ''), (r'>', '<'), (r'>', '>='), (r'2\. \* ', ''), (r' / len\(targ\)', ''), (r'reversed\((.*?)\)', r'\1'),
         (r' / inp\.numel\(\)', ''), (r' \+ smooth/c', ''), (r'\(1-smooth\)\*', ''), (r', alpha=[^)]*', ''), (r'smooth-1', '-1'), (r'1/n', '1'), (r'-1, reduce', '1, reduce'), (r'2/m', '1/m'), (r'\+=', '='), (r'\*\*self\.t', ''), (r'addcmul_\(g, g', 'addcmul_(g, m'),
         (r'\(inp > 0\) \* ', ''), (r'inp\.t\(\) @ g', 'g.t() @ inp'), (r'self\.out, ', 'self.out.clone(), ')]
PROVED = {'09_bugs': '@bug(', '07_train': 'def cosine(', '11_speed': '## The benchmark'} # where the part of the chapter ends that is to be proved
SURVIVORS = {} # `chapter: statement → mutant`, and why it makes no difference


def mutants(src):
    "`(what, source)` for each mutant of a cell"
    lines = src.splitlines()
    for fn in (n for n in ast.walk(ast.parse(src)) if isinstance(n, ast.FunctionDef) and TARGETS.search(n.name)):
        for s in (s for s in ast.walk(fn) if isinstance(s, (ast.Assign, ast.AugAssign, ast.Expr, ast.If, ast.For)) and s is not fn):
            if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant): continue # the docstring
            old = ast.get_source_segment(src, s)
            news = {'pass'} | {re.sub(a, b, old, count=1) for a, b in SWAPS}
            if isinstance(s, ast.Assign): news.add(f'{ast.get_source_segment(src, s.targets[0])} = -({ast.get_source_segment(src, s.value)})')
            for new in sorted(news - {old}):
                row, col, end, ecol = s.lineno-1, len(lines[s.lineno-1].encode()[:s.col_offset].decode()), s.end_lineno-1, len(lines[s.end_lineno-1].encode()[:s.end_col_offset].decode())
                yield f'{fn.name}: {old} → {new}', '\n'.join([*lines[:row], lines[row][:col] + new + lines[end][ecol:], *lines[end+1:]])


def lives_on(path): # chapter 11's timings prove nothing and take long
    return not failure(path, SAMPLE, ['timing']*path.name.startswith('11_speed'))


@pytest.mark.parametrize('chapter', ['02_backward', '03_layers', '04_module', '05_autograd', '06_softmax', '07_train', '09_bugs', '11_speed', 'speed/losses'])
def test_every_mutant_is_killed(chapter, tmp_path):
    nb = nbformat.read(TOP/'nbs'/f'{chapter}.ipynb', as_version=4)
    nb.cells = [c for c in itertools.takewhile(lambda c: chapter not in PROVED or PROVED[chapter] not in c.source, nb.cells) if '#| fig-alt' not in c.source] # pictures prove nothing
    files = {'as it is': tmp_path/f'{Path(chapter).name}.ipynb'}
    nbformat.write(nb, files['as it is'])
    for cell in nb.cells:
        if cell.cell_type!='code' or not re.search(r'^#\| export', cell.source): continue
        right = cell.source
        for what, cell.source in mutants(right):
            try: compile(cell.source, what, 'exec')
            except SyntaxError: continue # the swap has made no Python
            files[what] = tmp_path/f'{Path(chapter).name}-{len(files)}.ipynb'
            nbformat.write(nb, files[what])
        cell.source = right
    with pool(2, tasks=24) as both: # a notebook's tensors go with the process
        lives = dict(zip(files, both.map(lives_on, files.values())))
    assert lives.pop('as it is') and len(lives)>=5
    alive = sorted(what for what, yes in lives.items() if yes)
    assert alive==sorted(s for c, s in SURVIVORS if c==chapter), f'{len(alive)} of {len(lives)} mutants live on'
