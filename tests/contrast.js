// Texts that are too pale for what lies behind them: 4.5 to 1 at least, 7 for running text; links and code count as 4.5
() => {
  const rgba = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length<4 ? [...m, 1] : m };
  const over = (a, b) => { const k = a[3]; return [0, 1, 2].map(i => a[i]*k + b[i]*(1-k)).concat(1) };
  const lum = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v<=.03928 ? v/12.92 : ((v+.055)/1.055)**2.4 }); return .2126*r + .7152*g + .0722*b };
  const ground = e => { const all = []; for (; e; e = e.parentElement) all.push(rgba(getComputedStyle(e).backgroundColor)); return all.reverse().reduce((b, a) => over(a, b), [255, 255, 255, 1]) };
  const low = {};
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = walk.nextNode();) {
    const e = n.parentElement;
    if (!n.data.trim() || e.closest('script, style, noscript, .katex-mathml, canvas, [hidden], :disabled') || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const s = getComputedStyle(e), back = ground(e), front = over(rgba(s.color), back);
    let o = 1; for (let p = e; p; p = p.parentElement) o *= +getComputedStyle(p).opacity;
    const seen = over([...front.slice(0, 3), o], back), [a, b] = [lum(seen), lum(back)].sort((x, y) => y-x), ratio = (a+.05)/(b+.05);
    const need = e.matches('main p, main li, main td') ? 7 : 4.5;
    if (ratio<need) low[`${ratio.toFixed(2)} ${e.tagName}.${e.className} ${n.data.trim().slice(0, 30)}`] = 1;
  }
  return Object.keys(low);
}
