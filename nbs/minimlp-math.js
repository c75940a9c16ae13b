// The arithmetic of the widgets, as in chapters 1 and 2 and without any drawing: one neuron, a network of 2, 3 and 1 units one operation at a
// time, and the broadcast. tests/test_widgets.py holds it against the library. A tensor is a list of rows.
var minimlpMath = minimlpMath || (() => { // a page with two widgets loads this file twice
  const add = values => values.reduce((a, b) => a + b, 0);

  // One neuron: p = w x, z = p + b, a = relu(z), e = a - t, L = e^2, and the way back. `nudge` adds a little to the quantities that it names
  function neuron({x, w, b, t}, nudge = {}) {
    const more = name => nudge[name] || 0;
    const [nx, nw, nb, nt] = [x + more('x'), w + more('w'), b + more('b'), t + more('t')];
    const p = nw * nx + more('p');
    const z = p + nb + more('z');
    const a = Math.max(z, 0) + more('a');
    const e = a - nt + more('e');
    const L = e * e;
    const de = 2 * e;
    const dz = z > 0 ? de : 0;
    return {p, z, a, e, L, g: {L: 1, e: de, t: -de, a: de, z: dz, b: dz, p: dz, w: dz * nx, x: dz * nw}};
  }

  // How far L moves, divided by the nudge
  function difference(values, name, by = 1e-5) {
    return (neuron(values, {[name]: by}).L - neuron(values).L) / by;
  }

  // The network: one row of x for each of two examples, weights (n_in, n_out). Its third hidden unit is dead
  const NUMBERS = {
    x: [[1, 2], [3, -1]], w1: [[1, -1, -1], [.5, 1, -.5]], b1: [[0, .5, -.5]],
    w2: [[1], [-1], [2]], b2: [[.5]], targ: [[2], [2.5]],
  };

  const transpose = m => m[0].map((_, j) => m.map(row => row[j]));
  const fill = (like, entry) => like.map((row, i) => row.map((_, j) => entry(i, j)));

  // A tensor by its expression: `w2`, `w2.t()` or `ones_like(out)`
  function read(tensors, expression) {
    const ones = expression.match(/^ones_like\((.+)\)$/);
    if (ones) return fill(tensors[ones[1]], () => 1);
    return expression.endsWith('.t()') ? transpose(tensors[expression.slice(0, -4)]) : tensors[expression];
  }

  // Each kind of operation says what it reads, and of which terms an entry of its result is the sum: a term is a list of factors
  function product(to, left, right, plus) {
    const terms = (v, i, j) => {
      const a = read(v, left), b = read(v, right);
      return a[i].map((f, k) => [f, b[k][j]]).concat(plus ? [[v[plus][0][j]]] : []);
    };
    const shape = v => read(v, left).map(() => read(v, right)[0]);
    return {to, terms, shape, formula: `${to} = ${left} @ ${right}${plus ? ` + ${plus}` : ''}`, reads: [left, right, plus].filter(Boolean)};
  }

  function sumOfRows(to, of, how = 'sum') {
    const terms = (v, i, j) => v[of].map(row => how === 'mean' ? [row[j], 1 / v[of].length] : [row[j]]);
    return {to, terms, shape: v => [v[of][0]], formula: `${to} = ${of}.${how}(0)`, reads: [of]};
  }

  function elementwise(to, formula, reads, factors) {
    return {to, formula, reads, terms: (v, i, j) => [factors(v, i, j)], shape: v => v[reads[0].replace('.t()', '')]};
  }

  const masked = (to, formula, passes) => elementwise(to, formula, ['l2.g', 'l1'], (v, i, j) => [passes(v, i, j) ? 1 : 0, v['l2.g'][i][j]]);

  function lossGrad(formula, factor) {
    return elementwise('out.g', formula, ['out', 'targ'], (v, i) => [factor(v.out.length), v.out[i][0] - v.targ[i][0]]);
  }

  // The operations in the order in which they run. What the way back reads from the forward pass is `kept`
  const step = (op, kept, how) => ({op, kept, ...how});
  const STEPS = [
    step('lin', [], product('l1', 'x', 'w1', 'b1')),
    step('relu', [], elementwise('l2', 'l2 = max(l1, 0)', ['l1'], (v, i, j) => [v.l1[i][j] > 0 ? v.l1[i][j] : 0])),
    step('lin', [], product('out', 'l2', 'w2', 'b2')),
    step('mse', [], {to: 'loss', formula: 'loss = ((out − targ)²).mean()', reads: ['out', 'targ'], shape: () => [[0]],
      terms: v => v.out.map((row, i) => [row[0] - v.targ[i][0], row[0] - v.targ[i][0], 1 / v.out.length])}),
    step('mse_grad', ['out', 'targ'], lossGrad('out.g = 2 * (out − targ) / n', n => 2 / n)),
    step('lin_grad', ['l2'], product('w2.g', 'l2.t()', 'out.g')),
    step('lin_grad', [], sumOfRows('b2.g', 'out.g')),
    step('lin_grad', ['w2'], product('l2.g', 'out.g', 'w2.t()')),
    step('relu_grad', ['l1'], masked('l1.g', 'l1.g = (l1 > 0) * l2.g', (v, i, j) => v.l1[i][j] > 0)),
    step('lin_grad', ['x'], product('w1.g', 'x.t()', 'l1.g')),
    step('lin_grad', [], sumOfRows('b1.g', 'l1.g')),
    step('lin_grad', ['w1'], product('x.g', 'l1.g', 'w1.t()')),
  ];

  // Mistakes of the catalogue in chapter 9, under its names. A mistake in `lin_grad` is in both layers
  const layers = [['x', 'w1', 'b1', 'l1'], ['l2', 'w2', 'b2', 'out']];
  const inBoth = make => Object.fromEntries(layers.map(names => make(...names)).map(how => [how.to, how]));

  function inputForgotten(w, out) {
    const terms = (v, i, j) => v[`${out}.g`].map(row => [row[j]]);
    return {to: `${w}.g`, terms, shape: v => v[w], formula: `${w}.g = ${out}.g.sum(0).expand_as(${w})`, reads: [`${out}.g`]};
  }

  function lastRowForgotten(inp, w, out) {
    const right = product(`${inp}.g`, `${out}.g`, `${w}.t()`);
    const terms = (v, i, j) => i === v[inp].length - 1 ? [[0]] : right.terms(v, i, j);
    return {...right, terms, formula: `${right.formula}; ${inp}.g[-1] = 0`};
  }

  const BUGS = {
    sign: {'out.g': lossGrad('out.g = −2 * (out − targ) / n', n => -2 / n)},
    mean_missing: {'out.g': lossGrad('out.g = 2 * (out − targ)', () => 2)},
    factor_two_missing: {'out.g': lossGrad('out.g = (out − targ) / n', n => 1 / n)},
    mask_missing: {'l1.g': masked('l1.g', 'l1.g = l2.g', () => true)},
    mask_inverted: {'l1.g': masked('l1.g', 'l1.g = (l1 < 0) * l2.g', (v, i, j) => v.l1[i][j] < 0)},
    mask_upstream: {'l1.g': masked('l1.g', 'l1.g = (l2.g > 0) * l2.g', (v, i, j) => v['l2.g'][i][j] > 0)},
    mean_for_sum: inBoth((inp, w, b, out) => sumOfRows(`${b}.g`, `${out}.g`, 'mean')),
    upstream_ignored: inBoth((inp, w, b, out) => product(`${w}.g`, `${inp}.t()`, `ones_like(${out})`)),
    input_forgotten: inBoth((inp, w, b, out) => inputForgotten(w, out)),
    some_rows: inBoth((inp, w, b, out) => lastRowForgotten(inp, w, out)),
  };

  // All steps, with a mistake planted if its name is given
  const steps = bug => STEPS.map(s => ({...s, ...((BUGS[bug] || {})[s.to] || {})}));

  // Run them: every tensor by its name
  function network(numbers = NUMBERS, bug = '') {
    const tensors = {...numbers};
    for (const s of steps(bug)) {
      tensors[s.to] = fill(s.shape(tensors), (i, j) => add(s.terms(tensors, i, j).map(factors => factors.reduce((a, b) => a * b, 1))));
    }
    return tensors;
  }

  // A column minus a row: what broadcasting makes of it, and what was meant
  function broadcast(out, targ) {
    const mean = values => add(values) / values.length;
    const grid = out.map(o => targ.map(t => o - t));
    const meant = out.map((o, i) => o - targ[i]);
    return {grid, meant, gridLoss: mean(grid.flat().map(d => d * d)), meantLoss: mean(meant.map(d => d * d))};
  }

  return {neuron, difference, network, steps, broadcast, NUMBERS, BUGS: Object.keys(BUGS)};
})();
