"""The tests of the chapters notice when a line of a backward pass is spoilt.

Every statement of every `*_grad`, `backward`, `bwd` and `_upstream` of chapters 2 to 4, of the right layers of chapter 9, of the optimizers,
and of the fast step of chapter 11, is replaced by mutants (dropped, its sign changed, a sum for a mean, a transposition or a factor left out,
a comparison turned round). The notebook's own cells are run with each mutant, but for its pictures.
A mutant that lives on is a hole in the tests.
"""
import ast, itertools, os, re, sys

import nbformat, pytest
from execnb.shell import CaptureShell

from conftest import TOP
from forks import flags, pool
from minimlp.data import SAMPLE

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
                mutant = '\n'.join([*lines[:row], lines[row][:col] + new + lines[end][ecol:], *lines[end+1:]])
                if is_python(mutant): yield f'{fn.name}: {old} → {new}', mutant


def is_python(src):
    "Some swaps make none"
    try: ast.parse(src)
    except SyntaxError: return False
    return True


def cells(chapter):
    "The sources of the cells that are run: pictures prove nothing, nor do chapter 11's timings, which take long"
    skip = '|'.join([*flags(), *['timing']*(chapter=='11_speed')])
    code = [c.source for c in nbformat.read(TOP/'nbs'/f'{chapter}.ipynb', as_version=4).cells if c.cell_type=='code']
    proved = itertools.takewhile(lambda src: chapter not in PROVED or PROVED[chapter] not in src, code)
    return [src for src in proved if not re.search(rf'^#\s*\|\s*(fig-alt|{skip})\b|nbdev_export\(', src, re.M)]


def runs(shell, sources):
    "Whether all cells run"
    for src in sources:
        shell.run(src)
        if shell.exc: return False
    return True


def runs_apart(shell, sources):
    "The same in a fork, which leaves the shell as it is"
    pid = os.fork()
    if not pid: os._exit(not runs(shell, sources))
    return os.waitpid(pid, 0)[1]==0


def lives(chapter):
    "Mutant → does it live on? The cells before it are run once for all mutants of a cell; 'as it is' has to live"
    path = TOP/'nbs'/f'{chapter}.ipynb'
    os.environ.update(MINIMLP_DATA=str(SAMPLE), IN_TEST='1')
    os.chdir(path.parent)
    sys.path.insert(0, str(TOP))
    shell, sources, alive = CaptureShell(path), cells(chapter), {}
    shell.showtraceback = lambda *args, **kw: None # nobody reads it, and it takes longer than many a mutant
    for i, src in enumerate(sources):
        if re.search(r'^#\| export', src) and '@bug(' not in src: # those are wrong already
            trials = dict(mutants(src))
            if trials and not alive: trials['as it is'] = src
            for what, trial in trials.items(): alive[what] = runs_apart(shell, [trial, *sources[i+1:]])
        assert runs(shell, [src]), f'{src}\n{shell.exc!r}'
    return alive


@pytest.mark.parametrize('chapter', ['02_backward', '03_layers', '04_module', '05_autograd', '06_softmax', '07_train', '09_bugs', '11_speed', 'speed/losses',
                                     *(f'zoo/{page.stem}' for page in sorted((TOP/'nbs'/'zoo').glob('*.ipynb')) if page.stem not in ('network', 'attention_bugs'))]) # no way back of its own, or all of them wrong
def test_every_mutant_is_killed(chapter):
    with pool(1) as one: said = one.submit(lives, chapter).result()
    assert said.pop('as it is') and len(said)>=(1 if chapter.startswith('zoo/') else 5)
    alive = sorted(what for what, yes in said.items() if yes)
    assert alive==sorted(s for c, s in SURVIVORS if c==chapter), f'{len(alive)} of {len(said)} mutants live on'
