// "Draw a digit": the network of chapter 9, forward and backward, by hand once more. The weights are those that `minimlp_export` wrote to
// play-weights.js; formulas and shapes are those of the chapters: w1 (784, 50), w2 (50, 10), rows first.
(() => {
  const floats = s => Float64Array.from(new Float32Array(Uint8Array.from(atob(s), c => c.charCodeAt(0)).buffer));
  const bytes = s => Float64Array.from(Uint8Array.from(atob(s), c => c.charCodeAt(0)), v => v / 256);
  const [nIn, nh, nOut] = MINIMLP_WEIGHTS.sizes, examples = MINIMLP_WEIGHTS.examples.map(bytes);
  const fresh = () => ['w1', 'b1', 'w2', 'b2'].map(n => floats(MINIMLP_WEIGHTS[n]));
  let [w1, b1, w2, b2] = fresh(), steps = 0;

  // Forward: lin, relu, lin, softmax
  function forward(x) {
    const h = b1.slice(), z = b2.slice();
    for (let i = 0; i < nIn; i++) if (x[i]) for (let j = 0; j < nh; j++) h[j] += x[i] * w1[i * nh + j];
    for (let j = 0; j < nh; j++) h[j] = Math.max(h[j], 0);
    for (let j = 0; j < nh; j++) for (let k = 0; k < nOut; k++) z[k] += h[j] * w2[j * nOut + k];
    const top = Math.max(...z), e = z.map(v => Math.exp(v - top)), sum = e.reduce((a, b) => a + b);
    return {h, p: e.map(v => v / sum)};
  }

  // Backward: softmax minus one-hot, then lin_grad, relu_grad, lin_grad
  function backward(x, label) {
    const {h, p} = forward(x), dz = p.slice(), dh = new Float64Array(nh), dx = new Float64Array(nIn);
    dz[label] -= 1;
    for (let j = 0; j < nh; j++) if (h[j] > 0) for (let k = 0; k < nOut; k++) dh[j] += w2[j * nOut + k] * dz[k];
    for (let i = 0; i < nIn; i++) for (let j = 0; j < nh; j++) dx[i] += w1[i * nh + j] * dh[j];
    const outer = (a, b) => Float64Array.from({length: a.length * b.length}, (_, i) => a[Math.floor(i / b.length)] * b[i % b.length]);
    return {loss: -Math.log(p[label]), x: dx, w1: outer(x, dh), b1: dh, w2: outer(h, dz), b2: dz};
  }

  function step(x, label, lr) {
    const g = backward(x, label);
    [[w1, g.w1], [b1, g.b1], [w2, g.w2], [b2, g.b2]].forEach(([p, d]) => p.forEach((_, i) => p[i] -= lr * d[i]));
    steps++;
    return [g.loss, backward(x, label).loss];
  }

  function reset() { [w1, b1, w2, b2] = fresh(); steps = 0; }

  // As MNIST has them: 20 pixels at the longer side, the centre of mass at (14, 14) of 28 x 28; null where nothing is drawn
  function centre(ink, size) {
    let [t, l, b, r] = [size, size, -1, -1];
    ink.forEach((v, i) => { if (v > .2) { const y = Math.floor(i / size), x = i % size; t = Math.min(t, y); b = Math.max(b, y); l = Math.min(l, x); r = Math.max(r, x); } });
    if (b < 0) return null;
    const side = Math.max(b - t + 1, r - l + 1), h = Math.max(1, Math.round(20 * (b - t + 1) / side)), w = Math.max(1, Math.round(20 * (r - l + 1) / side));
    const sy = (b - t + 1) / h, sx = (r - l + 1) / w, small = new Float64Array(h * w);
    for (let y = t; y <= b; y++) for (let x = l; x <= r; x++) { // each pixel goes to the cells that it overlaps
      for (let i = Math.floor((y - t) / sy); i < h && i * sy < y - t + 1; i++) for (let j = Math.floor((x - l) / sx); j < w && j * sx < x - l + 1; j++) {
        const area = (Math.min((i + 1) * sy, y - t + 1) - Math.max(i * sy, y - t)) * (Math.min((j + 1) * sx, x - l + 1) - Math.max(j * sx, x - l));
        small[i * w + j] += ink[y * size + x] * area / (sy * sx);
      }
    }
    let m = 0, my = 0, mx = 0;
    small.forEach((v, i) => { m += v; my += v * Math.floor(i / w); mx += v * (i % w); });
    const top = Math.round(14 - my / m), left = Math.round(14 - mx / m), out = new Float64Array(784);
    small.forEach((v, i) => { const y = top + Math.floor(i / w), x = left + i % w; if (y >= 0 && y < 28 && x >= 0 && x < 28) out[y * 28 + x] = v * 255 / 256; });
    return out;
  }

  window.minimlp = {forward, backward, step, reset, centre, examples};

  // The page
  const root = document.getElementById('play');
  if (!root) return;
  const $ = name => root.querySelector(`[data-play=${name}]`), size = 280, pad = $('pad'), pen = pad.getContext('2d', {willReadFrequently: true});
  let x = null, label = null, cursor = [140, 70], down = false, last = null;

  // Numbers as pixels: gray from 0 to 1, or blue, white and red around zero
  function paint(canvas, v, signed) {
    const ctx = canvas.getContext('2d'), img = ctx.createImageData(28, 28), top = signed ? Math.max(1e-12, ...Array.from(v, Math.abs)) : 1;
    for (let i = 0; i < 784; i++) {
      const s = v[i] / top, fade = 255 * (1 - Math.min(1, Math.abs(s)));
      img.data.set(signed ? (s > 0 ? [200 + fade * 55 / 255, fade, fade, 255] : [fade, fade, 200 + fade * 55 / 255, 255]) : [255 * s, 255 * s, 255 * s, 255], 4 * i);
    }
    ctx.putImageData(img, 0, 0);
  }

  const bars = Array.from({length: nOut}, (_, k) => {
    const b = $('bars').appendChild(document.createElement('button'));
    b.type = 'button';
    b.innerHTML = `<b>${k}</b><i><u></u></i><span></span>`;
    b.setAttribute('aria-pressed', 'false');
    b.onclick = () => { label = label === k ? null : k; show(); };
    return b;
  });
  const units = Array.from({length: nh}, (_, j) => {
    const c = $('units').appendChild(document.createElement('canvas'));
    c.width = c.height = 28;
    c.setAttribute('role', 'img');
    c.setAttribute('aria-label', `weights of hidden unit ${j}`);
    return c;
  });

  function show() {
    const {h, p} = x ? forward(x) : {h: new Float64Array(nh), p: new Float64Array(nOut)}, best = p.indexOf(Math.max(...p)), top = Math.max(1e-9, ...h);
    bars.forEach((b, k) => {
      b.querySelector('u').style.width = `${100 * p[k]}%`;
      b.querySelector('span').textContent = x ? `${(100 * p[k]).toFixed(1)}%` : '';
      b.classList.toggle('best', !!x && k === best);
      b.setAttribute('aria-pressed', label === k);
      b.setAttribute('aria-label', `${k}${x ? `: ${(100 * p[k]).toFixed(1)}%` : ''}; choose as the right answer`);
    });
    units.forEach((c, j) => {
      paint(c, Float64Array.from({length: nIn}, (_, i) => w1[i * nh + j]), true);
      c.style.opacity = .12 + .88 * h[j] / top;
      c.title = `unit ${j}: ${h[j].toFixed(2)}`;
    });
    paint($('seen'), x || new Float64Array(784), false);
    const g = x && label !== null ? backward(x, label) : null;
    paint($('grad'), g ? g.x : new Float64Array(784), true);
    $('say').textContent = x ? `It reads a ${best}, and is ${(100 * p[best]).toFixed(1)}% sure.` : 'Draw a digit.';
    $('loss').textContent = g ? `Loss, if it is a ${label}: ${g.loss.toFixed(3)}${steps ? `, after ${steps} step${steps > 1 ? 's' : ''}` : ''}` : 'Choose the right answer among the bars.';
    $('step').disabled = !g;
    $('reset').disabled = !steps;
  }

  // What is drawn
  function clear() { pen.fillStyle = 'black'; pen.fillRect(0, 0, size, size); x = null; last = null; show(); }
  function read() {
    const d = pen.getImageData(0, 0, size, size).data;
    x = centre(Float64Array.from({length: size * size}, (_, i) => d[4 * i] / 255), size);
    show();
  }
  function line(from, to) {
    Object.assign(pen, {strokeStyle: 'white', lineWidth: 22, lineCap: 'round', lineJoin: 'round'});
    pen.beginPath(); pen.moveTo(...from); pen.lineTo(to[0] + .01, to[1]); pen.stroke();
  }
  const at = e => { const r = pad.getBoundingClientRect(); return [(e.clientX - r.left) * size / r.width, (e.clientY - r.top) * size / r.height]; };
  pad.onpointerdown = e => { pad.setPointerCapture(e.pointerId); last = at(e); line(last, last); e.preventDefault(); };
  pad.onpointermove = e => { if (last) { const to = at(e); line(last, to); last = to; } };
  pad.onpointerup = pad.onpointercancel = () => { if (last) { cursor = last; last = null; read(); } };

  // By keyboard: arrows move the pen, space puts it down or lifts it
  function mark() { $('cursor').style.cssText = `left:${100 * cursor[0] / size}%;top:${100 * cursor[1] / size}%`; $('cursor').classList.toggle('down', down); }
  pad.onkeydown = e => {
    const move = {ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10]}[e.key];
    if (move) {
      const to = cursor.map((v, i) => Math.min(size - 15, Math.max(15, v + move[i])));
      if (down) line(cursor, to);
      cursor = to;
      if (down) read();
    } else if (e.key === ' ') { down = !down; if (down) { line(cursor, cursor); read(); } }
    else if (e.key === 'Delete' || e.key === 'Backspace') { down = false; clear(); }
    else return;
    e.preventDefault();
    mark();
  };
  pad.onblur = () => { down = false; mark(); };

  $('clear').onclick = () => { label = null; clear(); };
  let turn = 0;
  $('example').onclick = () => {
    clear();
    x = examples[turn++ % examples.length];
    const img = document.createElement("canvas");
    img.width = img.height = 28;
    paint(img, x, false);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(img, 0, 0, size, size);
    show();
  };
  $('step').onclick = () => { step(x, label, .01); show(); };
  $('reset').onclick = () => { reset(); show(); };
  mark();
  clear();
})();
