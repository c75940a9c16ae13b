// The widgets of chapters 1 to 4: <div class="minimlp-widget" data-widget="neuron"> (or "steps", "broadcast"), whose still picture they replace.
// All arithmetic is in minimlp-math.js. By mouse, finger and keyboard; no framework, no network.
(() => {
  const {neuron, difference, network, steps, broadcast, NUMBERS, BUGS} = minimlpMath;

  // Elements: make('p', {class: 'say'}, 'text', child), and drawn ones: make('svg:line', {x1: 0, …})
  function make(tag, attributes = {}, ...children) {
    const drawn = tag.startsWith('svg:');
    const el = drawn ? document.createElementNS('http://www.w3.org/2000/svg', tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith('on')) el.addEventListener(name.slice(2), value);
      else if (value !== false) el.setAttribute(name, value === true ? '' : value);
    }
    el.append(...children);
    return el;
  }
  const draw = (tag, attributes, ...children) => make(`svg:${tag}`, attributes, ...children);
  const picture = (wide, high, label, ...children) => draw('svg', {viewBox: `0 0 ${wide} ${high}`, role: 'img', 'aria-label': label}, ...children);
  const number = (v, digits = 2) => String(Number(v.toFixed(digits)) || 0).replace('-', '−');
  const button = (text, click) => make('button', {type: 'button', onclick: click}, text);
  const path = points => points.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');
  const calm = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

  // One neuron
  function mountNeuron(root, given) {
    const state = {x: 2, w: 2.5, b: -1, t: 1};
    for (const name of Object.keys(state)) if (given[name] !== undefined) state[name] = Number(given[name]);
    const start = {...state};
    let nudged = '', trail = [];
    const LABELS = {x: 'input x', w: 'weight w', b: 'bias b', t: 'target t', p: 'p = w · x', z: 'z = p + b', a: 'a = relu(z)', e: 'e = a − t', L: 'L = e²'};
    const RANGES = {x: [-3, 3], w: [-3, 3], b: [-3, 3], t: [-4, 4]};

    // The graph: operations at places, and on each edge the value (above) and the derivative of L (below, red)
    const PLACES = {x: [14, 45], w: [14, 122], b: [86, 122], '×': [86, 45], '+': [158, 45], relu: [234, 45], t: [238, 122], '−': [310, 45], '²': [380, 45], L: [446, 45]};
    const EDGES = [['x', '×', 'x'], ['w', '×', 'w'], ['×', '+', 'p'], ['b', '+', 'b'], ['+', 'relu', 'z'], ['relu', '−', 'a'], ['t', '−', 't'], ['−', '²', 'e'], ['²', 'L', 'L']];
    const onEdge = {};
    const graph = picture(462, 142, 'The neuron as a graph');
    const radius = name => name === 'relu' ? 20 : 13;
    for (const [from, to, name] of EDGES) {
      const [x1, y1] = PLACES[from], [x2, y2] = PLACES[to];
      const long = Math.hypot(x2 - x1, y2 - y1), [ux, uy] = [(x2 - x1) / long, (y2 - y1) / long];
      const line = draw('path', {class: 'line', 'stroke-width': 1.5, d: path([[x1 + ux * radius(from), y1 + uy * radius(from)], [x2 - ux * radius(to), y2 - uy * radius(to)]])});
      const [mx, my] = uy ? [(x1 + x2) / 2 + 22, (y1 + y2) / 2 + 10] : [(x1 + radius(from) + x2 - radius(to)) / 2, y1];
      const value = draw('text', {x: mx, y: my - 5, 'font-size': 15}), slope = draw('text', {x: mx, y: my + (uy ? 11 : 17), 'font-size': 15, class: 'slope'});
      onEdge[name] = {line, value, slope};
      graph.append(line, value, slope);
    }
    for (const [name, [x, y]] of Object.entries(PLACES)) {
      graph.append(draw('circle', {class: 'node', cx: x, cy: y, r: radius(name)}), draw('text', {x, y: y + 5, 'font-size': 14}, name));
    }

    // A row for each quantity: slider, value, derivative, nudge
    const line = (...parts) => make('div', {class: 'mw-row'}, ...parts);
    const rows = make('div', {class: 'mw-rows'}, line(make('span', {class: 'value'}, 'value'), make('span', {class: 'slope'}, '∂L/∂…')));
    const cells = {};
    for (const name of ['x', 'w', 'b', 't', 'p', 'z', 'a', 'e', 'L']) {
      const slider = RANGES[name] && make('input', {type: 'range', id: `mw-${name}-${count}`, min: RANGES[name][0], max: RANGES[name][1], step: .05,
        oninput: () => { state[name] = Number(slider.value); trail = []; show(); }});
      const press = button('nudge', () => { nudged = name; show(); });
      press.setAttribute('aria-label', `nudge ${name}`);
      cells[name] = {slider, value: make('span', {class: 'value'}), slope: make('span', {class: 'slope'})};
      const title = slider ? make('label', {for: slider.id}, LABELS[name]) : make('span', {class: 'name'}, LABELS[name]);
      rows.append(line(title, ...(slider ? [slider] : []), cells[name].value, cells[name].slope, ...(name === 'L' ? [] : [press])));
    }

    // The curve of L over w; the point can be dragged
    const [wide, high, side] = [300, 190, 3];
    const curve = draw('path', {class: 'line', style: 'stroke: currentColor', 'stroke-width': 2});
    const tangent = draw('path', {class: 'line', style: 'stroke: var(--red)', 'stroke-width': 2, 'stroke-dasharray': '5 4'});
    const point = draw('circle', {r: 7, style: 'fill: #d07c00; stroke: currentColor'}), past = draw('g');
    const highest = draw('text', {x: 4, y: 12, 'font-size': 12, class: 'left'});
    const plot = picture(wide, high, 'The loss as a curve over the weight, and where we are on it',
      draw('path', {class: 'line', d: path([[0, high - 20], [wide, high - 20]])}), draw('path', {class: 'line', d: path([[wide / 2, 0], [wide / 2, high - 20]])}),
      ...[-3, -2, -1, 0, 1, 2].map(v => draw('text', {x: Math.min(wide - 10, Math.max(10, (v / side + 1) * wide / 2)), y: high - 6, 'font-size': 12}, number(v))),
      draw('text', {x: wide - 12, y: high - 6, 'font-size': 12}, 'w →'), highest, past, curve, tangent, point);
    plot.style.overflow = 'hidden';
    const losses = w => neuron({...state, w}).L;
    const drag = e => {
      const box = plot.getBoundingClientRect();
      state.w = Math.min(side, Math.max(-side, ((e.clientX - box.left) / box.width * 2 - 1) * side));
      trail = [];
      show();
    };
    plot.style.touchAction = 'pan-y';
    plot.style.cursor = 'ew-resize';
    plot.addEventListener('pointerdown', e => { plot.setPointerCapture(e.pointerId); drag(e); });
    plot.addEventListener('pointermove', e => { if (plot.hasPointerCapture(e.pointerId)) drag(e); });

    const rate = make('input', {type: 'range', min: .01, max: .3, step: .01, value: .05, oninput: () => show()}), rateSays = make('span', {style: 'min-width: 2.5em'});
    const said = make('p', {class: 'say', role: 'status'}), stepSays = make('p', {class: 'say', role: 'status'});
    const step = button('Step downhill', () => {
      const before = neuron(state), by = Number(rate.value) * before.g.w;
      trail.push(state.w);
      state.w = state.w - by;
      show();
      stepSays.textContent = `w − ${rateSays.textContent} · ${number(before.g.w)} = ${number(state.w)}: the loss goes from ${number(before.L, 4)} to ${number(losses(state.w), 4)}.`;
    });
    const again = button('Start over', () => { Object.assign(state, start); trail = []; nudged = ''; stepSays.textContent = ''; show(); });
    root.append(graph, rows, said, make('div', {class: 'mw-two'}, make('div', {}, plot),
      make('div', {}, make('p', {}, 'The loss L over the weight w; all else stays. The dashed line has the slope ∂L/∂w. A step changes w alone, and goes against the slope.'),
        make('div', {class: 'mw-bar'}, step, again), make('label', {class: 'mw-bar'}, 'learning rate', rate, rateSays), stepSays)));

    function explain(now) {
      if (!nudged) return now.z > 0 ? 'Press a nudge: it moves one quantity by a hair, and looks how far the loss moves.' : 'z isn’t positive, so relu is closed: a is 0, and no gradient flows back through it.';
      const moved = difference(state, nudged), by = 1e-5;
      return `${nudged} + 0.00001 moves L by ${number(moved * by, 8)}, which is ${number(moved, 3)} times as far. The derivative, computed backwards, is ${number(now.g[nudged], 3)}.`;
    }

    function showCurve(now) {
      const span = Array.from({length: 121}, (_, i) => (i / 60 - 1) * side), top = Math.max(2, 1.6 * now.L, ...trail.map(losses));
      const at = (w, L) => [(w / side + 1) * wide / 2, (high - 20) * (1 - Math.min(L / top, 1.5) * .95)];
      const [x, y] = at(state.w, now.L), ends = [-.7, .7].map(d => at(state.w + d, now.L + d * now.g.w));
      curve.setAttribute('d', path(span.map(w => at(w, losses(w)))));
      tangent.setAttribute('d', path(ends));
      point.setAttribute('cx', x);
      point.setAttribute('cy', y);
      past.replaceChildren(...trail.map(w => draw('circle', {cx: at(w, losses(w))[0], cy: at(w, losses(w))[1], r: 4, style: 'fill: none; stroke: #d07c00; stroke-width: 2'})));
      highest.textContent = `L up to ${number(top, 1)}`;
    }

    function show() {
      const now = neuron(state), values = {...state, ...now}, slopes = now.g;
      for (const [name, {slider, value, slope}] of Object.entries(cells)) {
        if (slider) slider.value = state[name];
        value.textContent = number(values[name]);
        slope.textContent = number(slopes[name]);
      }
      for (const [name, {line, value, slope}] of Object.entries(onEdge)) {
        value.textContent = number(values[name]);
        slope.textContent = number(slopes[name]);
        line.style.cssText = slopes[name] ? 'stroke: var(--red); stroke-width: 2.5' : 'stroke-dasharray: 3 3';
      }
      graph.setAttribute('aria-label', `The neuron as a graph: z is ${number(now.z)}, a is ${number(now.a)}, L is ${number(now.L)}; backwards, dL/dw is ${number(now.g.w)}`);
      rateSays.textContent = number(Number(rate.value));
      said.textContent = explain(now);
      showCurve(now);
    }
    show();
  }

  // The way back, step by step
  function mountSteps(root) {
    const CARDS = [['x'], ['w1'], ['b1'], ['l1'], ['l2'], ['w2'], ['b2'], ['out'], ['targ'], ['loss']].flat();
    const awake = {...NUMBERS, b1: [[0, .5, 3.5]]};
    const plan = steps(), total = plan.length;
    let at = 0, bug = '', numbers = NUMBERS, row = 0, entry = [0, 0];

    // The network as units: what went forward in them, what came back below, for one row
    const UNITS = [['x', 0, 40, 58], ['x', 1, 40, 142], ['l2', 0, 140, 38], ['l2', 1, 140, 104], ['l2', 2, 140, 170], ['out', 0, 230, 104], ['loss', 0, 300, 104]];
    const NEXT = {x: ['l2', 'w1', 'l1'], l2: ['out', 'w2', 'out'], out: ['loss', null, 'loss']};
    const net = picture(330, 215, 'The network'), lines = [], units = [];
    net.style.maxWidth = '460px';
    for (const [name, i, x, y] of UNITS) for (const [to, j, x2, y2] of UNITS) if (NEXT[name] && NEXT[name][0] === to) {
      const line = draw('path', {class: 'line', d: path([[x + 18, y], [x2 - 18, y2]])});
      lines.push({name, i, j, line});
      net.append(line);
    }
    for (const [name, i, x, y] of UNITS) {
      const circle = draw('circle', {class: 'node', cx: x, cy: y, r: 18}), value = draw('text', {x, y: y + 4, 'font-size': 12});
      const slope = draw('text', {x, y: y + 31, 'font-size': 12, class: 'slope'});
      units.push({name, i, circle, value, slope});
      net.append(circle, value, slope);
    }
    const heads = [['x', 40, 22], ['l2', 140, 12], ['out', 230, 76], ['loss', 300, 76]].map(([name, x, y]) => {
      const slope = draw('tspan', {class: 'slope'});
      net.append(draw('text', {x, y, 'font-size': 12}, name, slope));
      return {name, slope};
    });

    // A card for each tensor: its numbers, and below them its gradient
    const tables = {};
    function table(name, like) {
      const cells = like.map((r, i) => r.map((_, j) => make('td', {onclick: () => { if (at && plan[at - 1].to === name) { entry = [i, j]; show(); } }})));
      const caption = make('caption', {}, name);
      tables[name] = {cells, el: make('table', name.endsWith('.g') ? {class: 'slope'} : {}, caption, make('tbody', {}, ...cells.map(r => make('tr', {}, ...r))))};
      return tables[name].el;
    }
    const all = network();
    const cards = make('div', {class: 'mw-cards'}, ...CARDS.map(name => make('div', {class: 'mw-card'}, table(name, all[name]), ...(all[`${name}.g`] ? [table(`${name}.g`, all[name])] : []))));

    const go = to => { at = Math.min(total, Math.max(0, to)); entry = [0, 0]; show(); };
    const back = button('◀ Back', () => go(at - 1)), next = button('Step ▶', () => go(at + 1));
    const choose = make('select', {onchange: () => { bug = choose.value; show(); }}, make('option', {value: ''}, 'nothing'), ...BUGS.map(name => make('option', {value: name}, name)));
    const wake = make('input', {type: 'checkbox', onchange: () => { numbers = wake.checked ? awake : NUMBERS; show(); }});
    const rows = make('select', {onchange: () => { row = Number(rows.value); show(); }}, make('option', {value: 0}, 'row 0'), make('option', {value: 1}, 'row 1'));
    const head = make('p', {role: 'status'}), what = make('p'), sum = make('p', {class: 'say'}), verdict = make('p', {role: 'status'});
    root.append(make('div', {class: 'mw-bar'}, back, next, button('Start over', () => go(0)), button('To the end', () => go(total))), head, what, sum,
      make('div', {class: 'mw-bar'}, make('label', {}, 'break it:', choose), make('label', {}, wake, 'wake the third unit'), make('label', {}, 'shown:', rows)), verdict, net, cards);
    root.tabIndex = 0;
    root.setAttribute('role', 'group');
    root.setAttribute('aria-label', 'A network of 2, 3 and 1 units, forward and back one operation at a time; arrow keys left and right step, up and down choose an entry');
    root.addEventListener('keydown', e => {
      if (['SELECT', 'INPUT'].includes(e.target.tagName)) return;
      const move = {ArrowRight: () => go(at + 1), ArrowLeft: () => go(at - 1), Home: () => go(0), End: () => go(total), ArrowDown: () => another(1), ArrowUp: () => another(-1)}[e.key];
      if (!move) return;
      move();
      e.preventDefault();
    });
    function another(by) {
      if (!at) return;
      const cells = tables[plan[at - 1].to].cells, wide = cells[0].length, size = cells.length * wide, i = (entry[0] * wide + entry[1] + by + size) % size;
      entry = [Math.floor(i / wide), i % wide];
      show();
    }

    const differ = (a, b) => Math.abs(a - b) > 1e-9;
    const factor = v => v < 0 ? `(${number(v, 3)})` : number(v, 3);

    // The step in words: formula, what it reads and from where, and one entry term by term
    function tell(s, v, right) {
      const fromAhead = s.reads.map(r => r.replace('.t()', '')).filter(r => s.kept.includes(r)), [i, j] = entry;
      const terms = s.terms(v, i, j).map(t => t.map(factor).join(' · ')), spot = s.to === 'loss' ? 'loss' : `${s.to}[${i}, ${j}]`;
      head.replaceChildren(`Step ${at} of ${total}, ${at <= 4 ? 'forward' : 'back'}: ${s.op}`);
      what.replaceChildren(make('code', {}, s.formula), fromAhead.length ? ` reads ${fromAhead.join(' and ')}, kept from the forward pass${s.reads.some(r => r.endsWith('.g')) ? `, and ${s.reads.find(r => r.endsWith('.g'))}, which has just arrived` : ''}.` : ` reads ${s.reads.join(', ')}.`);
      sum.replaceChildren(make('code', {}, `${spot} = ${terms.join(' + ')} = ${number(v[s.to][i][j], 3)}`), differ(v[s.to][i][j], right[s.to][i][j]) ? ` Right is ${number(right[s.to][i][j], 3)}.` : '', terms.length > 1 ? ` ${terms.length} terms are added.` : '');
    }

    function show() {
      const v = network(numbers, bug), right = network(numbers), done = steps(bug).slice(0, at), last = done[at - 1];
      const known = new Set([...Object.keys(NUMBERS), ...done.map(s => s.to)]), wrong = new Set();
      let count = 0;
      for (const [name, {cells, el}] of Object.entries(tables)) {
        el.classList.toggle('made', !!last && last.to === name);
        el.classList.toggle('reads', !!last && last.reads.some(r => r.replace('.t()', '') === name));
        cells.forEach((r, i) => r.forEach((cell, j) => {
          const bad = known.has(name) && differ(v[name][i][j], right[name][i][j]);
          cell.textContent = known.has(name) ? number(v[name][i][j]) : '·';
          cell.classList.toggle('wrong', bad);
          cell.title = bad ? `right is ${number(right[name][i][j])}` : '';
          cell.classList.toggle('here', !!last && last.to === name && entry[0] === i && entry[1] === j);
          if (bad) { wrong.add(name); count++; }
        }));
      }
      back.disabled = at === 0;
      next.disabled = at === total;
      if (last) tell(last, v, right);
      else {
        head.textContent = 'Two rows of x, their targets, and the parameters are given. Step forward.';
        what.textContent = '';
        sum.textContent = '';
      }
      const dead = v.l1.every(r => r[2] <= 0);
      verdict.textContent = (bug ? wrong.size ? `${bug}: ${count} number${count > 1 ? 's are' : ' is'} wrong, in ${plan.map(s => s.to).filter(name => wrong.has(name)).join(', ')}. ` : known.has('x.g') ? `${bug}: with these numbers nothing is wrong. ` : `${bug}: nothing is wrong yet. ` : '')
        + (known.has('l1.g') && dead && !bug ? 'The third unit is dead: l1 is negative in both rows, so its gradient stops, and w1 and b1 get none from it.' : '');
      showNet(v, known);
    }

    // Which units have a value, which a gradient; a line is red as soon as a gradient has come back along it
    function showNet(v, known) {
      const slopeOf = name => name === 'l2' && known.has('l1.g') ? 'l1.g' : `${name}.g`;
      for (const {name, i, circle, value, slope} of units) {
        const line = name === 'loss' ? 0 : row, there = known.has(name), home = slopeOf(name), off = name === 'l2' && known.has('l1') && v.l1[line][i] <= 0;
        value.textContent = there ? number(v[name][line][i]) : '';
        slope.textContent = known.has(home) ? number(v[home][line][i]) : '';
        circle.style.cssText = there && !off ? '' : 'fill: none; stroke: var(--line); stroke-dasharray: 4 3';
      }
      for (const {name, slope} of heads) slope.textContent = known.has(slopeOf(name)) ? `, ${slopeOf(name)}` : '';
      for (const {name, i, j, line} of lines) {
        const [, w, out] = NEXT[name], home = out === 'loss' ? 'out.g' : `${out}.g`, flows = known.has(home) && v[home][row][w ? j : 0] !== 0;
        const size = w ? Math.abs(v[w][i][j]) : 1;
        line.style.cssText = flows ? `stroke: var(--red); stroke-width: ${1.5 + size}` : known.has(out) ? `stroke-width: ${.7 + size}` : 'stroke-dasharray: 2 4';
      }
      net.setAttribute('aria-label', `The network for row ${row}: ${[...known].filter(n => !(n in NUMBERS)).join(', ') || 'nothing'} computed`);
    }
    show();
  }

  // The broadcast that squares
  function mountBroadcast(root) {
    const OUT = [7.2, 1.5, 4.6, 3.1, 8.4, .3], TARG = [7, 1, 5, 3, 8, 0];
    let n = 4, filled = 0, here = [0, 0], timer = null;
    const size = make('input', {type: 'range', min: 2, max: 6, value: n, oninput: () => { n = Number(size.value); filled = 0; here = [0, 0]; build(); }}), sizeSays = make('span');
    const grid = make('table', {class: 'mw-grid', tabindex: 0, 'aria-label': 'The grid; arrow keys choose a cell'}), meant = make('table', {class: 'mw-grid'});
    const said = make('p', {class: 'say', role: 'status'}), sums = make('p', {role: 'status'});
    let cells = [];
    const stop = () => { clearInterval(timer); timer = null; };
    const one = () => {
      if (filled >= n * n) return stop();
      here = [Math.floor(filled / n), filled % n];
      filled++;
      show();
    };
    const fillAll = () => {
      if (filled === n * n) filled = 0;
      stop();
      if (calm()) { filled = n * n; show(); } else timer = setInterval(one, 90);
    };
    root.append(make('div', {class: 'mw-bar'}, button('Fill a cell', () => { stop(); one(); }), button('Fill the grid', fillAll), button('Empty', () => { stop(); filled = 0; show(); }), make('label', {}, 'rows', size, sizeSays)),
      make('div', {class: 'mw-two'}, make('div', {style: 'overflow-x: auto'}, grid), make('div', {}, meant)), said, sums);
    grid.addEventListener('keydown', e => {
      const by = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]}[e.key];
      if (!by) return;
      here = here.map((v, k) => Math.min(n - 1, Math.max(0, v + by[k])));
      filled = Math.max(filled, here[0] * n + here[1] + 1);
      show();
      e.preventDefault();
    });

    function build() {
      const out = OUT.slice(0, n), targ = TARG.slice(0, n), head = (text, scope) => make('th', {scope}, text);
      cells = out.map((_, i) => targ.map((_, j) => make('td', {onclick: () => { here = [i, j]; filled = Math.max(filled, i * n + j + 1); show(); }})));
      grid.replaceChildren(make('caption', {}, `out (${n}, 1) − targ (${n},)`), make('thead', {}, make('tr', {}, make('td', {}, '−'), ...targ.map(t => head(number(t), 'col')))),
        make('tbody', {}, ...out.map((o, i) => make('tr', {}, head(number(o), 'row'), ...cells[i]))));
      meant.replaceChildren(make('caption', {}, `what was meant: out[:, 0] − targ, (${n},)`),
        make('tbody', {}, ...out.map((o, i) => make('tr', {}, make('td', {}, `${number(o)} − ${number(targ[i])}`), make('td', {class: 'full meant'}, number(o - targ[i]))))));
      show();
    }

    function show() {
      const out = OUT.slice(0, n), targ = TARG.slice(0, n), b = broadcast(out, targ), [r, c] = here;
      cells.forEach((line, i) => line.forEach((cell, j) => {
        const full = i * n + j < filled;
        cell.textContent = full ? number(b.grid[i][j]) : '';
        cell.className = `${full ? 'full' : ''}${i === j ? ' meant' : ''}${filled && i === r && j === c ? ' here' : ''}`;
      }));
      sizeSays.textContent = n;
      said.textContent = filled ? `Row ${r}, column ${c}: ${number(out[r])} − ${number(targ[c])} = ${number(b.grid[r][c])}. ${r === c ? 'This one was meant.' : `The prediction of row ${r} against the target of row ${c}: nobody asked for it.`}`
        : 'The column stretches to the right, the row stretches down, and every prediction meets every target.';
      sums.textContent = `Mean of the squares: ${number(b.meantLoss, 3)} was meant, ${filled === n * n ? `${number(b.gridLoss, 3)} comes out` : 'and the grid isn’t full yet'}. ${n} rows make ${n * n} numbers; 10,000 rows make 100,000,000.`;
    }
    build();
  }

  // Put every widget in its place
  const KINDS = {neuron: mountNeuron, steps: mountSteps, broadcast: mountBroadcast};
  let count = 0;

  function mount(place) {
    if (place.classList.contains('live')) return;
    const root = make('div', {class: 'mw'});
    for (const still of place.children) still.classList.add('mw-still');
    place.classList.add('live');
    place.append(root);
    count++;
    KINDS[place.dataset.widget](root, place.dataset);
  }

  const looks = new URL('widgets.css', document.currentScript.src).href;
  if (!document.querySelector(`link[href="${looks}"]`)) document.head.append(make('link', {rel: 'stylesheet', href: looks}));
  const start = () => document.querySelectorAll('.minimlp-widget[data-widget]').forEach(mount);
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', start); else start();
})();
