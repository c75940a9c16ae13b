"What surrounds the checker: the table of checkers side by side, reports that people and programs read, and functions of JAX"
import io, json, re
from contextlib import redirect_stderr, redirect_stdout

import nbformat, numpy as np, pytest, torch

from conftest import TOP
from minimlp.bench.checkers import CHECKERS, Owned, Subject, answer
from minimlp.bench.compare import right_ones, table, wrong_ones, as_text
from minimlp.bugs import BUGS, suspect, verdict
from minimlp.check.copies import is_float
from minimlp.cli.check import minimlp_check
from minimlp.gradcheck import check_backward
from minimlp.runs.bugs import CATALOGUE
from minimlp.module import Lin, Model, Mse


def command(*args, **kwargs):
    "Exit status, output and errors of `minimlp_check`"
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try: minimlp_check(*args, **kwargs)
        except SystemExit as e: code = e.code
    return code, out.getvalue(), err.getvalue()


# Side by side

def test_compare_prints_what_each_checker_made_of_some_bugs():
    code, text, err = command(compare=True, only='low_precision', json=True)
    scores = {s['checker']: s for s in json.loads(text)}
    assert (code, err, list(scores))==(0, '', list(CHECKERS))
    ours, *others = scores.values()
    assert (ours['missed'], ours['accused'], ours['named'])==([], [], ['low_precision'])
    assert all(s['missed']==['low_precision'] and s['named']==[] for s in others)
    assert all(s['wrong']==1 and s['right']==5 and s['seconds']>0 for s in scores.values())


@pytest.mark.parametrize('name', ['gradcheck', 'gradcheck, fast mode', 'allclose on a loss’s gradient'])
def test_other_checkers_are_treated_fairly(name):
    "The adapter hands them the right gradients of right layers, and the wrong ones of layers that they can see through"
    for cls in (Lin, Mse, Model): assert answer(name, Subject('right', cls, *suspect(cls)))==(False, set())
    for bug in ('sign', 'never_written', 'wrong_tensor'): assert answer(name, wrong_ones([bug])[0])[0], bug


def test_every_bug_has_a_right_layer_on_every_kind_of_input():
    right = right_ones(CATALOGUE)
    assert len({(s.cls, s.name, s.seed) for s in right})==len(right)==5*9 and {len(s.args[1]) for s in right}=={1, 5}
    assert all(not any(b.cls is s.cls for b in BUGS.values()) for s in right)


def test_the_adapter_gives_what_the_layer_leaves():
    (layer, inp), _ = suspect(Lin)
    own, up = Owned((layer, inp), torch.float64), torch.randn(5, 4, dtype=torch.float64)
    out = layer(inp)
    out.g = up.float()
    layer.backward()
    for got, want in zip(own.grads(own.tensors, up), (inp.g, layer.w.g, layer.b.g)): torch.testing.assert_close(got.float(), want)
    assert own.layer is not layer and own.tensors[1].dtype==torch.float64


# Reports

@pytest.mark.parametrize('bug', ['mean_for_sum', 'some_rows', 'squeezed'])
def test_a_report_is_a_table_with_a_picture(bug):
    report = verdict(bug)[2]
    page, figure = report._repr_html_(), report.side_by_side()
    assert max(map(len, str(report).splitlines()))<=90, report
    assert page.count('<tr')==len(report.rows)+1 and '>WRONG' in page and f'<strong>{bug}</strong>' in page
    assert ('<img alt="The gradient of ' in page)==(figure is not None)==(bug!='squeezed') # another shape can't be drawn
    if figure:
        came, right = (a.images[0] for a in figure.axes[:2])
        assert came.get_clim()==right.get_clim() and not np.array_equal(came.get_array(), right.get_array())


def test_a_right_report_has_no_picture():
    report = check_backward(*suspect(Lin)[0])
    assert report.ok and report.side_by_side() is None and '<img' not in report._repr_html_() and 'WRONG' not in report._repr_html_()


@pytest.mark.parametrize('what, kw, status', [('minimlp.module:Relu', {}, 0), ('minimlp.bugs:_MaskMissing', {}, 1), ('minimlp.forward:init_params', {}, 2)])
def test_json_and_status(what, kw, status):
    code, text, err = command(what, json=True, **kw)
    assert code==status
    if status==2: assert text=='' and 'no backward of its own' in err and 'Traceback' not in err
    else: assert json.loads(text)['ok']==(status==0) and err==''


# JAX

def example():
    "The code of the page about JAX, and what it prints"
    nb = nbformat.read(TOP/'nbs'/'check'/'jax_vjp.ipynb', as_version=4)
    text = '\n'.join(c.source for c in nb.cells if c.cell_type=='markdown')
    return '\n'.join(re.findall(r'```python\n(.*?)```', text, re.S)), re.search(r'```text\n(.*?)```', text, re.S)[1]


def made(f, fwd, bwd):
    import jax
    f = jax.custom_vjp(f)
    f.defvjp(fwd, bwd)
    return f


def judged(f, *args):
    return check_backward(f, *args)


@pytest.mark.jax
def test_the_page_about_jax_prints_what_it_says():
    code, prints = example()
    out = io.StringIO()
    with redirect_stdout(out): exec(code, {})
    assert out.getvalue().split()==prints.split()


@pytest.mark.jax
def test_right_functions_of_jax_are_not_accused():
    import jax, jax.numpy as jnp
    was = jax.config.jax_enable_x64
    logsumexp = made(lambda x: jax.nn.logsumexp(x), lambda x: (jax.nn.logsumexp(x), x), lambda x, up: (up*jax.nn.softmax(x),))
    assert judged(logsumexp, jnp.arange(4.)).ok
    both = made(lambda b, a: (a*b, a+b), lambda b, a: ((a*b, a+b), (b, a)), lambda kept, up: (up[0]*kept[1]+up[1], up[0]*kept[0]+up[1]))
    report = judged(both, np.array([1., 2, 3]), torch.randn(3)) # names that JAX would sort, two outputs
    assert report.ok and [r.name for r in report.rows]==['b', 'a'] and jax.config.jax_enable_x64==was


@pytest.mark.jax
def test_wrong_functions_of_jax_are_named_and_others_refused():
    import jax, jax.numpy as jnp
    double = lambda x: (2*x, None)
    assert 'sign' in {b.name for b in judged(made(lambda x: 2*x, double, lambda _, up: (-2*up,)), np.ones(3)).rows[0].bugs[:2]}
    broken = judged(made(lambda x: 2*x, double, lambda _, up: (2*up, up)), np.ones(3))
    assert not broken.ok and broken.rows[0].bugs[0].name=='raises', broken
    with pytest.raises(ValueError, match='defvjp'): judged(jax.custom_vjp(jnp.sin), np.ones(3))
    with pytest.raises(TypeError, match='custom_vjp'): judged(jnp.sin, np.ones(3))
