"""Style and script of the chart page: hover read-out, zoom and pan, written by hand and carried inside the page.

The script moves the groups the page was drawn with (strokes keep their width), puts labels and markers back in place,
and draws the axes of the visible part. Without it the page still shows the whole span with its axes.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 2200px; padding: 10px 16px; background: #fff; color: #1d2939;
  font: 14px/1.4 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 18px; }
h1 { margin: 0; font-size: 20px; }
header p { margin: 0; color: #475467; }
.notes { margin: 4px 0 0; padding: 4px 10px; background: #fff6e5; border-left: 3px solid #e8a317; font-size: 13px; }
.notes p { margin: 0; }
#read { margin: 6px 0 4px; padding: 4px 10px; min-height: 56px; background: #f4f6f9; border-radius: 4px;
  font-variant-numeric: tabular-nums; white-space: nowrap; overflow: hidden; font-size: 13px; }
#read b { font-weight: 600; }
#read span { margin-right: 14px; }
#read .name { padding: 0 7px; border-radius: 3px; margin-right: 14px; }
svg { display: block; width: 100%; height: auto; user-select: none; cursor: crosshair; touch-action: pan-y;
  font: 11px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
svg path, svg rect, svg line { vector-effect: non-scaling-stroke; }
svg text { fill: #475467; }
.grid { stroke: #1d2939; stroke-opacity: .09; fill: none; }
.hair { stroke: #475467; stroke-dasharray: 2 3; fill: none; }
#marks { stroke: #fff; stroke-width: .8px; }
footer { color: #667085; font-size: 12px; margin-top: 4px; }
"""

SCRIPT = r"""
(() => {
  const D = JSON.parse(document.getElementById('facts').textContent), $ = id => document.getElementById(id);
  const svg = $('chart'), L = D.left, W = D.width, T = D.top, H = D.height, N = D.middle.length, DAY = 86400;
  const [pins, tags] = ['.pin', '.tag'].map(kind => [...svg.querySelectorAll(kind)].map(e => [e, e.dataset]));
  let a = 0, b = D.total, u0 = 0, u1 = 1000, queued = false, grip = null;
  const X = x => L + (x - a) / (b - a) * W, Y = u => T + (u - u0) / (u1 - u0) * H;
  const slot = px => a + (px - L) / W * (b - a), tall = D.ln_top - D.ln_bottom;
  const U = ln => (D.ln_top - ln) / tall * 1000, price = u => Math.exp(D.ln_top - u / 1000 * tall);
  const put = (e, text) => e.setAttribute('transform', text), two = v => v == null ? '–' : v.toFixed(2);
  const money = p => {
    const digits = Math.max(0, Math.min(18, 4 - Math.floor(Math.log10(p))));
    return p.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };
  const round = p => money(p).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');

  function at(x) { // the candle nearest to a slot
    let low = 0, high = N - 1;
    while (low < high) { const k = (low + high) >> 1; if (D.middle[k] < x) low = k + 1; else high = k; }
    return low > 0 && x - D.middle[low - 1] < D.middle[low] - x ? low - 1 : low;
  }
  function fit() { // the price range of what is visible, by the rule the page was drawn with; its share of volume
    let low = Infinity, high = -Infinity, under = Infinity, over = -Infinity, most = 0;
    for (let i = at(a), to = at(b); i <= to; i++) {
      low = Math.min(low, D.low[i]); high = Math.max(high, D.high[i]); most = Math.max(most, D.volume[i]);
      for (const e of D.emas) { under = Math.min(under, e[i]); over = Math.max(over, e[i]); }
    }
    const d = Math.log(low), t = Math.log(high), room = 0.6 * Math.max(t - d, 0.01);
    const foot = Math.max(d - room, Math.min(d, Math.log(under)));
    const top = Math.min(t + room, Math.max(t, Math.log(over))), margin = 0.06 * Math.max(top - foot, 0.01);
    u0 = U(top + margin); u1 = U(foot - margin);
    return most / D.most || 1;
  }
  function priceTicks(low, high) {
    let found = [];
    if (high / low < 3) {
      const raw = (high - low) / 9, unit = 10 ** Math.floor(Math.log10(raw));
      const step = unit * [1, 2, 5, 10].find(m => m * unit >= raw * 0.999);
      for (let k = Math.ceil(low / step); k <= high / step; k++) found.push(+(k * step).toPrecision(12));
      return found;
    }
    for (const parts of D.parts) {
      found = [];
      for (let d = Math.floor(Math.log10(low)); d <= Math.log10(high); d++)
        found.push(...parts.map(m => +(m + 'e' + d)).filter(p => p >= low && p <= high));
      if (found.length <= 9) break;
    }
    return found.filter((_, k) => k % Math.max(1, Math.ceil(found.length / 9)) === 0);
  }
  const month = t => { const w = new Date(t * 1000); return w.getUTCFullYear() * 12 + w.getUTCMonth(); };
  const buckets = [...D.steps.map(s => [s, t => Math.floor(t / s)]),
    ...D.months.map(k => [30 * DAY, t => Math.floor(month(t) / k)])];
  function label(t, before, step) { // the moment as far as the tick before does not say it already
    const [, day, mon, year, clock] = new Date(t * 1000).toUTCString().match(/(\d+) (\w+) (\d+) (\d+:\d+)/);
    if (step >= 30 * DAY) return mon + ' ' + year;
    const date = +day + ' ' + mon + (before && Math.floor(month(before) / 12) == year ? '' : ' ' + year);
    if (step >= DAY || clock === '00:00') return date;
    return before && Math.floor(before / DAY) === Math.floor(t / DAY) ? clock : date + ' ' + clock;
  }
  function timeTicks() {
    for (const [step, bucket] of buckets) {
      const found = [];
      for (let i = Math.max(1, at(a)), to = at(b); i <= to && found.length <= 12; i++)
        if (D.middle[i] >= a && D.middle[i] <= b && bucket(D.ts[i]) !== bucket(D.ts[i - 1])) found.push(i);
      if (found.length > 12) continue;
      if (!found.length) found.push(at(a));
      let last = -Infinity, before = 0;
      return found.filter(i => D.middle[i] - last >= (b - a) / 24 && (last = D.middle[i], true)).map(i => {
        const text = label(D.ts[i], before, step);
        before = D.ts[i];
        return [X(D.middle[i]), text];
      });
    }
    return [];
  }
  function view() {
    queued = false;
    const share = fit(), sx = W / (b - a), tx = L - a * sx, sy = H / (u1 - u0);
    svg.querySelectorAll('.across').forEach(g => put(g, `matrix(${sx} 0 0 1 ${tx} 0)`));
    put($('price'), `matrix(${sx} 0 0 ${sy} ${tx} ${T - u0 * sy})`);
    put($('volume'), `matrix(${sx} 0 0 ${D.tall / share} ${tx} ${D.floor})`);
    $('hatch').setAttribute('patternTransform', `scale(${1 / sx} 1) rotate(45)`);
    const many = pins.filter(([, d]) => d.x >= a && d.x <= b).length > D.most_marks;
    $('marks').setAttribute('display', many ? 'none' : 'inline');
    for (const [e, d] of pins) put(e, `translate(${X(+d.x)} ${Y(+d.u) + +d.d})`);
    for (const [e, d] of tags) {
      const from = Math.max(L, X(+d.x)), to = Math.min(L + W, X(+d.to));
      put(e, `translate(${(from + to) / 2} ${d.y})` + (d.turn ? ' rotate(-90)' : ''));
      e.setAttribute('visibility', to - from > D.room[0] ? 'visible' : 'hidden');
      e.textContent = to - from > D.room[1] ? d.long : d.short;
    }
    $('prices').innerHTML = priceTicks(price(u1), price(u0)).map(p => {
      const y = Y(U(Math.log(p)));
      return `<path class="grid" d="M${L} ${y}h${W}"/><text x="${L + W + 6}" y="${y + 4}">${round(p)}</text>`;
    }).join('');
    $('times').innerHTML = timeTicks().map(([x, text]) => `<path class="grid" d="M${x} ${T}V${D.bottom}"/>` +
      `<text x="${x}" y="${D.bottom + 15}" text-anchor="middle">${text}</text>`).join('');
  }
  function show(from, to) { // the visible part, kept inside the span
    const width = Math.min(D.total, Math.max(20, to - from));
    a = Math.max(0, Math.min(D.total - width, from + (to - from - width) / 2)); b = a + width;
    if (!queued) { queued = true; requestAnimationFrame(view); }
  }
  const zoom = (factor, x) => show(x - (x - a) * factor, x + (b - x) * factor);
  function read(i) {
    const s = D.state[i], sc = D.scores, text = t => new Date(t * 1000).toISOString().slice(0, 16).replace('T', ' ');
    const flags = D.flags.filter((_, k) => D.up[i] >> k & 1).join(', '), blocked = D.blocked[D.why[i]];
    const change = (D.close[i] / D.open[i] - 1) * 100, item = (name, value) => `<span>${name} <b>${value}</b></span>`;
    $('read').innerHTML = `<span><b>${text(D.ts[i])} – ${text(D.until[i]).slice(11)} UTC</b></span>` +
      `<span>O ${money(D.open[i])}</span><span>H ${money(D.high[i])}</span><span>L ${money(D.low[i])}</span>` +
      `<span>C <b>${money(D.close[i])}</b> (${change >= 0 ? '+' : ''}${two(change)} %)</span>` +
      `<span>volume ${D.volume[i].toLocaleString('en-US', { maximumSignificantDigits: 4 })}</span><br>` +
      `<b class="name" style="background:${D.fills[s]};color:${D.inks[s]}">${D.names[s]} ${D.words[s]}</b>` +
      item('TS with boost', two(sc.ts[i])) + item('OX', two(sc.ox[i])) + item('DX', two(sc.dx[i])) +
      item('DX a buy needs', two(sc.dx_threshold[i])) + item('EDX', two(sc.edx[i])) +
      (flags ? item('flags:', flags) : '') + (blocked ? item('buy blocked by:', blocked.replace(/ /g, ', ')) : '') +
      '<br>' + D.periods.map((p, k) =>
        `<span style="color:${D.colours[k]}">EMA ${p}: ${money(D.emas[k][i])}</span>`).join('');
  }
  function spot(e) { // the pointer in the units of the drawing
    const box = svg.getBoundingClientRect(), scale = D.wide / box.width;
    return [(e.clientX - box.left) * scale, (e.clientY - box.top) * scale];
  }
  function hover(e) {
    const [px, py] = spot(e), inside = px >= L && px <= L + W, level = py >= T && py <= T + H;
    if (grip) { const shift = (grip.px - px) / W * (b - a); show(grip.a + shift, grip.b + shift); }
    $('crosshair').setAttribute('visibility', inside ? 'visible' : 'hidden');
    if (!inside) return;
    const i = at(slot(px)), x = X(D.middle[i]);
    const side = L + W, here = level ? money(price(u0 + (py - T) / H * (u1 - u0))) : '';
    $('crosshair').innerHTML = `<path class="hair" d="M${x} 0V${D.bottom}M${L} ${level ? py : 0}h${W}"/>` + (level ?
      `<rect x="${side + 1}" y="${py - 8}" width="${D.wide - side - 1}" height="16" fill="#1d2939"/>` +
      `<text x="${side + 6}" y="${py + 4}" style="fill:#fff">${here}</text>` : '');
    read(i);
  }
  svg.addEventListener('wheel', e => { e.preventDefault(); zoom(Math.exp(e.deltaY / 700), slot(spot(e)[0])); },
    { passive: false });
  svg.addEventListener('pointerdown', e => { grip = { px: spot(e)[0], a, b }; svg.setPointerCapture(e.pointerId); });
  svg.addEventListener('pointermove', hover);
  for (const name of ['pointerup', 'pointercancel']) svg.addEventListener(name, () => { grip = null; });
  svg.addEventListener('dblclick', () => show(0, D.total));
  addEventListener('keydown', e => {
    const step = (b - a) / 10, moves = { ArrowLeft: -step, ArrowRight: step };
    if (e.key in moves) show(a + moves[e.key], b + moves[e.key]);
    if (e.key === '+' || e.key === '-') zoom(e.key === '+' ? 0.7 : 1.4, (a + b) / 2);
    if (e.key === '0') show(0, D.total);
  });
  view(); read(N - 1);
})();
"""
