// Texts that are too pale for what lies behind them: 4.5 to 1 at least, 7 for running text; links and code count as 4.5
() => {
  const rgba = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length<4 ? [...m, 1] : m };
  const over = (a, b) => { const k = a[3]; return [0, 1, 2].map(i => a[i]*k + b[i]*(1-k)).concat(1) };
  const lum = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v<=.03928 ? v/12.92 : ((v+.055)/1.055)**2.4 }); return .2126*r + .7152*g + .0722*b };
  const seen = new Map([[null, {back: [255, 255, 255, 1], opacity: 1}]]);
  const look = e => { // what lies behind an element's text, and how solid the text is
    if (!seen.has(e)) {
      const {back, opacity} = look(e.parentElement), s = getComputedStyle(e);
      seen.set(e, {back: over(rgba(s.backgroundColor), back), opacity: opacity*s.opacity});
    }
    return seen.get(e);
  };
  const low = {};
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = walk.nextNode();) {
    const e = n.parentElement;
    if (!n.data.trim() || e.closest('script, style, noscript, .katex-mathml, canvas, [hidden], :disabled') || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const {back, opacity} = look(e), front = over(rgba(getComputedStyle(e).color), back);
    const [a, b] = [lum(over([...front.slice(0, 3), opacity], back)), lum(back)].sort((x, y) => y-x), ratio = (a+.05)/(b+.05);
    const need = e.matches('main p, main li, main td') ? 7 : 4.5;
    if (ratio<need) low[`${ratio.toFixed(2)} ${e.tagName}.${e.className} ${n.data.trim().slice(0, 30)}`] = 1;
  }
  return Object.keys(low);
}
