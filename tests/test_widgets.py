"""The widgets of chapters 1 to 4 in a real browser: their arithmetic against the library, and their use by mouse, keyboard and finger.

They run on a page of their own that has nothing but the widgets, so that no site has to be built. The drawing pad is tested in test_docs.py.
"""
import re, shutil
from functools import partial

import pytest, torch
from playwright.sync_api import expect

from conftest import TOP, served
from minimlp.backward import forward_and_backward, lin_grad, mse_grad, relu_grad
from minimlp.bugs import BUGS
from minimlp.forward import lin, mse, relu
from minimlp.module import Model, Mse, Relu

pytestmark = pytest.mark.browser
KINDS = ['neuron', 'steps', 'broadcast']
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    "A page with the three widgets and the drawing pad, served on this machine"
    folder = tmp_path_factory.mktemp('widgets')
    for f in ('minimlp-math.js', 'widgets.js', 'widgets.css', 'play.js', 'play-weights.js'): shutil.copy(TOP/'nbs'/f, folder)
    shutil.copytree(TOP/'nbs'/'images', folder/'images')
    places = [f'<div class="minimlp-widget" data-widget="{k}"><p><img src="images/widget-{k}.png" alt="still"></p></div>' for k in KINDS]
    scripts = [f'<script src="{f}.js" defer></script>' for f in ('minimlp-math', 'widgets', 'minimlp-math', 'widgets', 'play-weights', 'play')]
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Widgets</title><link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"><body>'
    (folder/'page.html').write_text(head + '\n'.join([*places, '<div class="minimlp-play"></div>', *scripts]), encoding='utf-8')

    with served(folder) as url: yield f'{url}/page.html'


@pytest.fixture
def visit(browser, address):
    "Open the page; at the end nothing may have gone wrong on any"
    opened = []
    def visit(width=1280, **kw):
        page = browser.new_context(viewport=dict(width=width, height=900), reduced_motion='reduce', **kw).new_page()
        page.wrong = []
        page.on('console', lambda m: page.wrong.append(m.text) if m.type=='error' else None)
        page.on('pageerror', lambda e: page.wrong.append(str(e)))
        page.on('request', lambda r: None if r.url.startswith(('http://127.0.0.1', 'data:')) else page.wrong.append(r.url))
        page.goto(address, wait_until='load')
        opened.append(page)
        return page
    yield visit
    for page in opened:
        wrong = page.wrong
        page.context.close()
        assert wrong==[]


def widget(page, kind): return page.locator(f'[data-widget={kind}]')


@pytest.mark.parametrize('x, w, b, t', [(2, 2.5, -1, 1), (1.5, -.7, 2, .5), (2, -1, -1, 1)])
def test_the_neuron_computes_what_the_library_does(visit, x, w, b, t):
    inp, weight, bias, targ = (torch.tensor(v, dtype=torch.float64) for v in ([[x]], [[w]], [b], [t]))
    z = lin(inp, weight, bias)
    a = relu(z)
    want = dict(z=z, a=a, L=mse(a, targ))
    mse_grad(a, targ)
    relu_grad(z, a)
    lin_grad(inp, z, weight, bias)
    page = visit()
    got = page.evaluate('v => minimlpMath.neuron(v)', dict(x=x, w=w, b=b, t=t))
    for name, v in want.items(): close(torch.tensor(got[name], dtype=torch.float64), v.reshape(()))
    for name, v in dict(a=a, z=z, w=weight, b=bias, x=inp).items(): close(torch.tensor(got['g'][name], dtype=torch.float64), v.g.reshape(()))
    for name in 'xwbtpzae': # and a nudge agrees
        moved = page.evaluate('([v, n]) => minimlpMath.difference(v, n)', [dict(x=x, w=w, b=b, t=t), name])
        assert abs(moved-got['g'][name])<1e-3


def numbers_of(page):
    given = page.evaluate('minimlpMath.NUMBERS')
    x, w1, b1, w2, b2, targ = (torch.tensor(given[n], dtype=torch.float64) for n in ('x', 'w1', 'b1', 'w2', 'b2', 'targ'))
    return x, targ[:, 0], w1, b1[0], w2, b2[0]


def compare(got, tensors, loss):
    for name, t in tensors.items(): close(torch.tensor(got[f'{name}.g'], dtype=torch.float64).reshape(t.shape), t.g)
    close(torch.tensor(got['loss'][0][0], dtype=torch.float64), loss)


def test_the_network_computes_what_the_library_does(visit):
    page = visit()
    x, targ, w1, b1, w2, b2 = numbers_of(page)
    loss = forward_and_backward(x, targ, w1, b1, w2, b2)
    got = page.evaluate('minimlpMath.network()')
    compare(got, dict(x=x, w1=w1, b1=b1, w2=w2, b2=b2), loss)
    close(torch.tensor(got['l1'], dtype=torch.float64), lin(x, w1, b1))
    got['w1.g'][0][0] += .001
    with pytest.raises(AssertionError): compare(got, dict(w1=w1), loss)


def broken(name):
    "A model with this bug of the catalogue in each layer that it is about"
    cls = BUGS[name].cls
    kind = next((k for k, base in (('Mse', Mse), ('Relu', Relu)) if issubclass(cls, base)), 'Lin')
    return type('Broken', (Model,), {kind: cls})


def test_each_bug_is_the_one_of_the_catalogue(visit):
    page = visit()
    bugs, right = page.evaluate('minimlpMath.BUGS'), page.evaluate('minimlpMath.network()')
    assert len(bugs)>=8 and set(bugs)<=set(BUGS)
    for name in bugs:
        x, targ, *params = numbers_of(page)
        model = broken(name)(*params)
        loss = model(x, targ)
        model.backward()
        got = page.evaluate('bug => minimlpMath.network(minimlpMath.NUMBERS, bug)', name)
        compare(got, dict(zip(('x', 'w1', 'b1', 'w2', 'b2'), (x, *params))), loss)
        assert got!=right, f'{name} changes nothing that one could see'


def test_the_broadcast_computes_what_torch_does(visit):
    out, targ = [7.2, 1.5, 4.6], [7., 1, 5]
    got = visit().evaluate('([o, t]) => minimlpMath.broadcast(o, t)', [out, targ])
    column, row = torch.tensor(out, dtype=torch.float64)[:, None], torch.tensor(targ, dtype=torch.float64)
    close(torch.tensor(got['grid'], dtype=torch.float64), column-row)
    close(torch.tensor(got['meantLoss'], dtype=torch.float64), mse(column, row))
    assert abs(got['gridLoss']-got['meantLoss'])>1


@pytest.mark.parametrize('width, scheme', [(1280, 'light'), (400, 'dark')])
def test_everything_fits_and_the_still_picture_goes(visit, width, scheme):
    page = visit(width=width, color_scheme=scheme)
    for kind in KINDS:
        expect(widget(page, kind).locator('.mw')).to_have_count(1)
        expect(widget(page, kind).locator('img')).to_be_hidden()
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    page.emulate_media(media='print')
    expect(widget(page, 'neuron').locator('img')).to_be_visible()
    expect(widget(page, 'neuron').locator('.mw')).to_be_hidden()


def test_without_javascript_there_is_a_picture(browser, address):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address)
    for kind in KINDS: expect(widget(page, kind).locator('img')).to_be_visible()
    page.context.close()


def test_neuron_by_mouse_and_keyboard(visit):
    page = visit()
    el = widget(page, 'neuron')
    el.get_by_role('button', name='nudge w').click()
    expect(el).to_contain_text('moves L by 0.00012, which is 12 times as far')
    el.get_by_role('button', name='Step downhill').click()
    expect(el).to_contain_text('the loss goes from 9 to 3.24')
    slider = el.get_by_label('weight w')
    slider.focus()
    page.keyboard.press('Home')
    expect(el).to_contain_text('computed backwards, is 0.') # relu is closed
    el.get_by_role('button', name='Start over').click()
    expect(el).to_contain_text('Press a nudge')
    box = el.get_by_role('img', name='The loss as a curve').bounding_box()
    page.mouse.move(box['x'] + box['width']*.5, box['y'] + 50)
    page.mouse.down()
    page.mouse.move(box['x'] + box['width']*4/6, box['y'] + 50, steps=4)
    page.mouse.up()
    assert abs(float(slider.input_value())-1)<.1


def test_steps_by_mouse_and_keyboard(visit):
    page = visit()
    el = widget(page, 'steps')
    for _ in range(6): el.get_by_role('button', name='Step ▶').click()
    expect(el).to_contain_text('Step 6 of 12, back: lin_grad')
    expect(el).to_contain_text('reads l2, kept from the forward pass, and out.g')
    expect(el).to_contain_text('w2.g[0, 0] = 2 · (−1) + 2.5 · 0.5 = −0.75')
    page.keyboard.press('ArrowDown')
    expect(el).to_contain_text('w2.g[1, 0]')
    for _ in range(3): page.keyboard.press('ArrowRight')
    expect(el).to_contain_text('The third unit is dead')
    page.keyboard.press('End')
    expect(el.locator('td.wrong')).to_have_count(0)
    el.get_by_label('break it').select_option('mean_for_sum')
    expect(el).to_contain_text('wrong, in b2.g, b1.g.')
    el.get_by_label('break it').select_option('sign')
    expect(el).to_contain_text('wrong, in out.g, w2.g, b2.g, l2.g, l1.g, w1.g, b1.g, x.g.')
    el.get_by_label('break it').select_option('')
    el.get_by_label('wake the third unit').check()
    expect(el).not_to_contain_text('The third unit is dead')
    el.get_by_role('button', name='◀ Back').click()
    expect(el).to_contain_text('Step 11 of 12')


def test_broadcast_by_mouse_and_keyboard(visit):
    page = visit()
    el = widget(page, 'broadcast')
    el.get_by_role('button', name='Fill a cell').click()
    expect(el).to_contain_text('Row 0, column 0: 7.2 − 7 = 0.2. This one was meant.')
    el.get_by_label('The grid').focus()
    page.keyboard.press('ArrowRight')
    expect(el).to_contain_text('7.2 − 1 = 6.2')
    el.get_by_role('button', name='Fill the grid').click()
    expect(el).to_contain_text('0.115 was meant, 9.415 comes out')
    el.get_by_label('rows').focus()
    page.keyboard.press('End')
    expect(el).to_contain_text('6 rows make 36 numbers')


def test_by_finger(visit):
    page = visit(width=400, has_touch=True, is_mobile=True)
    el = widget(page, 'steps')
    el.get_by_role('button', name='Step ▶').tap()
    expect(el).to_contain_text('Step 1 of 12, forward: lin')
    el.locator('table.made td').nth(4).tap()
    expect(el).to_contain_text('l1[1, 1]')
    widget(page, 'neuron').get_by_role('button', name='nudge b').tap()
    expect(widget(page, 'neuron')).to_contain_text('which is 6 times as far')
    plot = widget(page, 'neuron').get_by_role('img', name='The loss as a curve')
    box = plot.bounding_box()
    plot.tap(position=dict(x=box['width']/2, y=40))
    assert abs(float(widget(page, 'neuron').get_by_label('weight w').input_value()))<.1


def test_the_gradient_flows_back_through_the_pad(visit):
    page = visit()
    pad = page.locator('.minimlp-play')
    pad.get_by_role('button', name='A test digit').click()
    expect(pad.locator('[data-play=bars] em').first).to_have_text('')
    pad.locator('[data-play=bars] button').nth(4).click()
    slopes = pad.locator('[data-play=bars] em').all_inner_texts()
    values = [float(s.replace('−', '-')) for s in slopes]
    assert values[4]<0 and abs(sum(values))<.1 and sum(v<0 for v in values)==1 # p, minus one for the digit that was chosen
    widths = page.evaluate('[...document.querySelectorAll(".play-units i")].map(i => parseFloat(i.style.width) || 0)')
    lit = page.evaluate('[...document.querySelectorAll(".play-units canvas")].map(c => c.style.opacity > .13)')
    assert max(widths)==100 and all(w==0 or on for w, on in zip(widths, lit) if w>20)
