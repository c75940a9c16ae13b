"""The house: what a line, a cell, a function and a module may be, and who may import whom (DESIGN of the project, in CONTRIBUTING.md)"""
import ast, re
from graphlib import CycleError, TopologicalSorter

import nbformat, pytest

from conftest import NBS, TOP

PAGE, LIBRARY = 90, 100  # characters: what a page shows without wrapping, and what an editor shows beside another window
CELL, MODULE = 15, 200   # lines, and of a module without blank ones and nbdev's marks
LIB = sorted(p for p in (TOP/'minimlp').rglob('*.py') if p.name not in ('_modidx.py', '__init__.py'))
EXPORTS = [re.search(r'default_exp ([\w.]+)', p.read_text(encoding='utf-8')) for p in NBS if p.name[0].isdigit()]
CHAPTERS = [found[1] for found in EXPORTS if found] # chapter 10's layers are in a room of their own
CHAPTERS.insert(CHAPTERS.index('fast'), 'speed') # chapter 11 has a room of its own below it
GROUND, UPPER = ['idx', 'fetch', 'draw', 'show', 'image', 'ranks', 'check'], ['zoo', 'runs', 'bench', 'cli', 'docs']


def exported(nb):
    "`(directive, source)` for each cell that goes into the library"
    for c in nbformat.read(nb, as_version=4).cells:
        m = re.search(r'^#\|\s*(exports?i?)\b', c.source, re.M)
        if c.cell_type=='code' and m: yield m[1], c.source


def body_lines(src):
    "How many lines a cell has, without imports, signatures, docstrings, decorators, comments and blank lines"
    lines = {i for i, l in enumerate(src.splitlines(), 1) if l.strip() and not l.strip().startswith('#')}
    for n in ast.walk(ast.parse(src)):
        if isinstance(n, (ast.Import, ast.ImportFrom)): lines -= set(range(n.lineno, n.end_lineno+1))
        if not isinstance(n, (ast.FunctionDef, ast.ClassDef)): continue
        first = min([n.lineno, *(d.lineno for d in n.decorator_list)])
        lines -= set(range(first, n.body[0].lineno))
        if ast.get_docstring(n) is not None: lines -= set(range(n.body[0].lineno, n.body[0].end_lineno+1))
    return len(lines)


def undocumented(src):
    "Functions without a docstring; methods of one line and `__names__` are told by their class, inner functions by the outer one"
    found = []
    for top in ast.parse(src).body:
        inside = top.body if isinstance(top, ast.ClassDef) else [top]
        for f in (n for n in inside if isinstance(n, ast.FunctionDef)):
            told_by_class = isinstance(top, ast.ClassDef) and (f.name.startswith('__') or f.end_lineno-f.body[0].lineno==0)
            if not told_by_class and ast.get_docstring(f) is None: found.append(f.name)
    return found


def crowded(src):
    "Lines on which the body of a loop, or of a condition that raises, follows its head, and comprehensions with several loops"
    for n in ast.walk(ast.parse(src)):
        if isinstance(n, (ast.For, ast.While, ast.With, ast.Try)) and n.body[0].lineno==n.lineno: yield n.lineno
        if isinstance(n, ast.If) and n.body[0].lineno==n.lineno and isinstance(n.body[0], (ast.Raise, ast.For)): yield n.lineno
        if isinstance(n, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)) and len(n.generators)>1: yield n.lineno


def imports(path):
    "The modules of this library that a module imports, by their names below `minimlp`"
    here = path.relative_to(TOP/'minimlp').with_suffix('').parts
    for n in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(n, ast.ImportFrom) or not n.level: continue
        base = [*here[:len(here)-n.level], *(n.module.split('.') if n.module else [])]
        for a in n.names:
            if (n.module or a.name).startswith('_'): continue # the version, and nbdev's index
            whole = '.'.join([*base, a.name])
            yield whole if (TOP/'minimlp'/whole.replace('.', '/')).with_suffix('.py').exists() else '.'.join(base)


def floor(name):
    "How high a module lies: ground rooms 0, then a floor for each chapter, then one for each upper room"
    room = name.split('.')[0]
    order = [GROUND, *([c] for c in CHAPTERS), *([u] for u in UPPER)]
    return next(i for i, names in enumerate(order) if room in names)


each = pytest.mark.parametrize('nb', NBS, ids=lambda p: str(p.relative_to(TOP/'nbs')))


@each
def test_cells(nb):
    "Exported cells are short, their lines don't wrap, their functions say what they are for"
    wrong = []
    for how, src in exported(nb):
        name, limit = src.strip().splitlines()[1][:60], PAGE if how=='exports' else LIBRARY
        if (n := body_lines(src))>CELL: wrong.append(f'{name}: {n} lines')
        wrong += [f'{len(l)} characters: {l[:60]}' for l in src.splitlines() if len(l)>limit]
        wrong += [f'{f} has no docstring' for f in undocumented(src)]
        wrong += [f'crowded: {src.splitlines()[i-1].strip()[:70]}' for i in crowded(src)]
    assert wrong==[], '\n'.join(wrong)


@pytest.mark.parametrize('path', LIB, ids=lambda p: str(p.relative_to(TOP/'minimlp')))
def test_modules(path):
    "One concern, told by the first line, in about two hundred lines; imports go down"
    text = path.read_text(encoding='utf-8')
    me = '.'.join(path.relative_to(TOP/'minimlp').with_suffix('').parts)
    lines = [l for l in text.splitlines() if l.strip() and not l.startswith('# %%')]
    assert text.startswith('"""') and len(lines)<=MODULE, f'{len(lines)} lines'
    up = [n for n in imports(path) if n and (floor(n)>floor(me) or floor(n)==floor(me) and '.' not in me and floor(me))]
    assert up==[], f'{me} imports upwards: {up}'
    assert 'import_module(' not in text or me.startswith('cli.'), 'an import that hides from this test'


def test_no_circle():
    graph = {'.'.join(p.relative_to(TOP/'minimlp').with_suffix('').parts): set(filter(None, imports(p))) for p in LIB}
    assert sum(map(len, graph.values()))>20 and list(TopologicalSorter(graph).static_order())
    with pytest.raises(CycleError): list(TopologicalSorter(graph | dict(forward={'backward'})).static_order())


def test_these_checks_can_fail():
    long = 'def f(x):\n    "Says what"\n' + '    x += 1\n'*16
    assert body_lines(long)==16 and body_lines('@d\ndef f(x, # A comment\n      y): # Another\n    "Says what"\n\n    # why\n    return x')==1
    assert undocumented('def _f(x):\n    y = x\n    return y')==['_f'] and undocumented('class A:\n    "Says what"\n    def f(self): return 1')==[]
    assert list(crowded('for x in y: x()'))==[1] and list(crowded('if x: raise y'))==[1] and list(crowded('[a for b in c for a in b]'))==[1]
    assert list(crowded('if x: return y'))==[] and floor('check.suspects')==0<floor('forward')<floor('backward')<floor('runs.run')<floor('cli.train')
