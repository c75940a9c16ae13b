// "Draw a digit": the network of chapter 7, forward and backward, by hand once more. The weights are those that `minimlp_export` wrote to
// play-weights.js; formulas and shapes are those of the chapters: w1 (784, 50), w2 (50, 10), rows first. A page embeds it by
// <div class="minimlp-play"> and the two scripts, or calls minimlp.mount(element).
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
    [[w1, g.w1], [b1, g.b1], [w2, g.w2], [b2, g.b2]].forEach(([p, d]) => p.forEach((_, i) => { p[i] -= lr * d[i]; }));
    steps++;
    return [g.loss, backward(x, label).loss];
  }

  function reset() { [w1, b1, w2, b2] = fresh(); steps = 0; }

  // Where the ink is: [top, left, bottom, right], or null if nothing is drawn
  function bounds(ink, size) {
    let [t, l, b, r] = [size, size, -1, -1];
    ink.forEach((v, i) => {
      if (v <= .2) return;
      const y = Math.floor(i / size), x = i % size;
      [t, l, b, r] = [Math.min(t, y), Math.min(l, x), Math.max(b, y), Math.max(r, x)];
    });
    return b < 0 ? null : [t, l, b, r];
  }

  // Shrink what is inside the bounds to w x h cells: each pixel goes to the cells that it overlaps
  function shrink(ink, size, [t, l, b, r], w, h) {
    const sy = (b - t + 1) / h, sx = (r - l + 1) / w, small = new Float64Array(h * w);
    const overlap = (cell, scale, pixel) => Math.min((cell + 1) * scale, pixel + 1) - Math.max(cell * scale, pixel);
    for (let y = t; y <= b; y++) for (let x = l; x <= r; x++) {
      for (let i = Math.floor((y - t) / sy); i < h && i * sy < y - t + 1; i++) for (let j = Math.floor((x - l) / sx); j < w && j * sx < x - l + 1; j++) {
        small[i * w + j] += ink[y * size + x] * overlap(i, sy, y - t) * overlap(j, sx, x - l) / (sy * sx);
      }
    }
    return small;
  }

  // As MNIST has them: 20 pixels at the longer side, the centre of mass at (14, 14) of 28 x 28; null if nothing is drawn
  function centre(ink, size) {
    const box = bounds(ink, size);
    if (!box) return null;
    const [t, l, b, r] = box, side = Math.max(b - t + 1, r - l + 1);
    const h = Math.max(1, Math.round(20 * (b - t + 1) / side)), w = Math.max(1, Math.round(20 * (r - l + 1) / side));
    const small = shrink(ink, size, box, w, h);
    let m = 0, my = 0, mx = 0;
    small.forEach((v, i) => { m += v; my += v * Math.floor(i / w); mx += v * (i % w); });
    const top = Math.round(14 - my / m), left = Math.round(14 - mx / m), out = new Float64Array(784);
    small.forEach((v, i) => {
      const y = top + Math.floor(i / w), x = left + i % w;
      if (y >= 0 && y < 28 && x >= 0 && x < 28) out[y * 28 + x] = v * 255 / 256;
    });
    return out;
  }

  // Numbers as pixels: gray from 0 to 1, or blue, white and red around zero
  function paint(canvas, v, signed) {
    const ctx = canvas.getContext('2d'), img = ctx.createImageData(28, 28), top = signed ? Math.max(1e-12, ...Array.from(v, Math.abs)) : 1;
    for (let i = 0; i < 784; i++) {
      const s = v[i] / top, fade = 255 * (1 - Math.min(1, Math.abs(s))), full = 200 + fade * 55 / 255;
      const signedColor = s > 0 ? [full, fade, fade, 255] : [fade, fade, full, 255];
      img.data.set(signed ? signedColor : [255 * s, 255 * s, 255 * s, 255], 4 * i);
    }
    ctx.putImageData(img, 0, 0);
  }

  const PAGE = `
    <div class="play-row">
      <div>
        <div class="play-pad"><canvas data-play="pad" width="280" height="280" tabindex="0" role="img" aria-label="Drawing area. Arrow keys move the pen, space puts it down or lifts it, delete clears."></canvas><span data-play="cursor" class="play-cursor" aria-hidden="true"></span></div>
        <p><button type="button" data-play="clear">Clear</button> <button type="button" data-play="example">A test digit</button></p>
      </div>
      <div class="play-bars" data-play="bars" role="group" aria-label="Probabilities; choose the right answer"></div>
      <div class="play-small">
        <figure><canvas data-play="seen" width="28" height="28" role="img" aria-label="The digit as the network sees it"></canvas><figcaption>what it sees</figcaption></figure>
        <figure><canvas data-play="grad" width="28" height="28" role="img" aria-label="The gradient of the loss with respect to each pixel"></canvas><figcaption>gradient on the pixels</figcaption></figure>
      </div>
    </div>
    <p data-play="say" role="status"></p>
    <p><span data-play="loss" role="status"></span> <button type="button" data-play="step" disabled>One step of descent</button> <button type="button" data-play="reset" disabled>Forget the steps</button></p>
    <p data-play="told"></p>
    <div class="play-units" data-play="units"></div>`;
  const UNITS = 'The fifty hidden units, each by its weights: red is where it looks for ink, blue where it wants none. Those that answer to your digit light up.';
  const FLOW = 'The gradient flows back: first to the outputs (the numbers beside the bars), then to the units that are lit (the strips below them), then to the pixels. Units that aren’t lit pass nothing on.';

  // Put the pad into an element, in place of its still picture
  function mount(root) {
    if (root.classList.contains('live')) return;
    for (const still of root.children) still.classList.add('play-still');
    root.classList.add('live');
    root.insertAdjacentHTML('beforeend', PAGE);
    const $ = name => root.querySelector(`[data-play=${name}]`), size = 280, pad = $('pad'), pen = pad.getContext('2d', {willReadFrequently: true});
    let x = null, label = null, cursor = [140, 70], down = false, last = null, turn = 0;

    const bars = Array.from({length: nOut}, (_, k) => {
      const b = $('bars').appendChild(document.createElement('button'));
      b.type = 'button';
      b.innerHTML = `<b>${k}</b><i><u></u></i><span></span><em></em>`;
      b.onclick = () => { label = label === k ? null : k; show(); flow(); };
      return b;
    });
    const units = Array.from({length: nh}, (_, j) => {
      const place = $('units').appendChild(document.createElement('div'));
      place.innerHTML = `<canvas width="28" height="28" role="img" aria-label="weights of hidden unit ${j}"></canvas><i></i>`;
      return {canvas: place.firstChild, strip: place.lastChild};
    });

    // The animation of the gradient starts anew
    function flow() {
      root.classList.remove('flow');
      void root.offsetWidth;
      root.classList.toggle('flow', label !== null);
    }

    function showBars(p, g, best) {
      bars.forEach((b, k) => {
        const percent = x ? `${(100 * p[k]).toFixed(1)}%` : '', slope = g ? g.b2[k] : 0, told = b.querySelector('em');
        b.querySelector('u').style.width = `${100 * p[k]}%`;
        b.querySelector('span').textContent = percent;
        told.textContent = g ? `${slope < 0 ? '−' : '+'}${Math.abs(slope).toFixed(2)}` : '';
        told.className = slope < 0 ? 'minus' : 'plus';
        b.classList.toggle('best', !!x && k === best);
        b.setAttribute('aria-pressed', label === k);
        b.setAttribute('aria-label', `${k}${x ? `: ${percent}` : ''}; choose as the right answer`);
      });
    }

    function showUnits(h, g) {
      const top = Math.max(1e-9, ...h), most = g ? Math.max(1e-9, ...g.b1.map(Math.abs)) : 1;
      units.forEach(({canvas, strip}, j) => {
        paint(canvas, Float64Array.from({length: nIn}, (_, i) => w1[i * nh + j]), true);
        canvas.style.opacity = .12 + .88 * h[j] / top;
        canvas.title = `unit ${j}: ${h[j].toFixed(2)}${g ? `, gradient ${g.b1[j].toFixed(3)}` : ''}`;
        strip.style.width = g ? `${100 * Math.abs(g.b1[j]) / most}%` : 0;
        strip.className = g && g.b1[j] < 0 ? 'minus' : 'plus';
      });
    }

    function show() {
      const {h, p} = x ? forward(x) : {h: new Float64Array(nh), p: new Float64Array(nOut)}, best = p.indexOf(Math.max(...p));
      const g = x && label !== null ? backward(x, label) : null, after = steps ? `, after ${steps} step${steps > 1 ? 's' : ''}` : '';
      showBars(p, g, best);
      showUnits(h, g);
      paint($('seen'), x || new Float64Array(784), false);
      paint($('grad'), g ? g.x : new Float64Array(784), true);
      $('say').textContent = x ? `It reads a ${best}, and is ${(100 * p[best]).toFixed(1)}% sure.` : 'Draw a digit.';
      $('loss').textContent = g ? `Loss, if it is a ${label}: ${g.loss.toFixed(3)}${after}` : 'Choose the right answer among the bars.';
      $('told').textContent = g ? FLOW : UNITS;
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
      pen.beginPath();
      pen.moveTo(...from);
      pen.lineTo(to[0] + .01, to[1]);
      pen.stroke();
    }
    const at = e => { const r = pad.getBoundingClientRect(); return [(e.clientX - r.left) * size / r.width, (e.clientY - r.top) * size / r.height]; };
    pad.onpointerdown = e => { pad.setPointerCapture(e.pointerId); last = at(e); line(last, last); e.preventDefault(); };
    pad.onpointermove = e => { if (last) { const to = at(e); line(last, to); last = to; } };
    pad.onpointerup = pad.onpointercancel = () => { if (last) { cursor = last; last = null; read(); } };

    // By keyboard: arrows move the pen, space puts it down or lifts it
    function mark() { $('cursor').style.cssText = `left:${100 * cursor[0] / size}%;top:${100 * cursor[1] / size}%`; $('cursor').classList.toggle('down', down); }
    function move(by) {
      const to = cursor.map((v, i) => Math.min(size - 15, Math.max(15, v + by[i])));
      if (down) line(cursor, to);
      cursor = to;
      if (down) read();
    }
    pad.onkeydown = e => {
      const by = {ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10]}[e.key];
      if (by) move(by);
      else if (e.key === ' ') { down = !down; if (down) { line(cursor, cursor); read(); } }
      else if (e.key === 'Delete' || e.key === 'Backspace') { down = false; clear(); }
      else return;
      e.preventDefault();
      mark();
    };
    pad.onblur = () => { down = false; mark(); };

    $('clear').onclick = () => { label = null; clear(); };
    $('example').onclick = () => {
      clear();
      x = examples[turn++ % examples.length];
      const img = document.createElement('canvas');
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
  }

  window.minimlp = {forward, backward, step, reset, centre, examples, mount};
  const looks = new URL('widgets.css', document.currentScript.src).href;
  if (!document.querySelector(`link[href="${looks}"]`)) document.head.insertAdjacentHTML('beforeend', `<link rel="stylesheet" href="${looks}">`);
  const start = () => document.querySelectorAll('.minimlp-play').forEach(mount);
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', start); else start();
})();
