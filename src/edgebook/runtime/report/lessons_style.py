"""Style and script of the lessons page: one column, quiet colours, light and dark, rows that fold on a phone.

The script only puts a family's rows in another order; without it everything is there, as a tree. It holds neither ``<``
nor ``&``, so that the page is well-formed XML.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --bg: #fff; --ink: #1d2939; --soft: #667085; --line: #e4e7ec; --wash: #f7f8fa;
  --faint: #98a2b3; --up: #12826a; --down: #c03a36; --blue: #1f5fa8; --gold: #b98413;
  --up-wash: #dcf1ea; --down-wash: #fbe3e1; --gold-wash: #fdf0d3; --none-wash: #eef0f3; --blue-wash: #e3edf8; }
@media (prefers-color-scheme: dark) { :root { --bg: #11151b; --ink: #e4e8ee; --soft: #97a2b3; --line: #28303b;
  --wash: #181e26; --faint: #5d6878; --up: #45c4a3; --down: #f2817a; --blue: #74b0f0; --gold: #e2b04a;
  --up-wash: #12372e; --down-wash: #43211f; --gold-wash: #3a2e12; --none-wash: #242c36; --blue-wash: #17304c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 28px 32px 48px; background: var(--bg); color: var(--ink);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
h1 { margin: 0; font-size: 25px; letter-spacing: -.01em; }
h2 { margin: 40px 0 4px; font-size: 18px; padding-bottom: 5px; border-bottom: 1px solid var(--line); }
h3 { margin: 0; font-size: 15px; }
h4 { margin: 0 0 6px; font-size: 12.5px; font-weight: 600; color: var(--soft); }
p { margin: 0 0 6px; }
a { color: var(--blue); text-decoration: none; } a:hover { text-decoration: underline; }
.soft, .sub { color: var(--soft); } .sub { margin: 3px 0 0; overflow-wrap: anywhere; }
.up { color: var(--up); } .down { color: var(--down); }
.told { margin: 18px 0 22px; padding: 13px 18px; background: var(--wash); border-left: 4px solid var(--blue);
  border-radius: 0 6px 6px 0; }
.told .first { font-size: 18px; font-weight: 600; letter-spacing: -.01em; margin: 0 0 4px; }
.told p:last-child { margin: 0; }
.cards { display: grid; grid-template-columns: repeat(6, 1fr); gap: 1px; background: var(--line);
  border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.card { background: var(--bg); padding: 11px 14px; }
.card .name, .card .note { color: var(--soft); font-size: 12.5px; line-height: 1.35; }
.card .value { font-size: 22px; font-weight: 600; letter-spacing: -.01em; margin: 1px 0 2px; }
.channels { display: grid; grid-template-columns: repeat(3, 1fr); gap: 16px; margin-top: 14px; }
.channel { border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.channel .note { color: var(--soft); font-size: 12.5px; margin-bottom: 10px; }
.test { margin-top: 10px; padding-top: 10px; border-top: 1px solid var(--line); }
.test .what { display: flex; justify-content: space-between; gap: 8px; align-items: baseline; }
.test .arms { color: var(--soft); font-size: 12.5px; }
.pill { display: inline-block; font-size: 11.5px; line-height: 17px; padding: 0 8px; border-radius: 9px;
  white-space: nowrap; background: var(--none-wash); color: var(--soft); }
.pill.finding, .pill.above { background: var(--up-wash); color: var(--up); }
.pill.acts { background: var(--blue-wash); color: var(--blue); }
.pill.below { background: var(--down-wash); color: var(--down); }
.pill.untold, .pill.steered { background: var(--gold-wash); color: var(--gold); }
.index { width: 100%; border-collapse: collapse; font-size: 13px; margin-top: 10px; }
.index th { text-align: right; font-weight: 600; font-size: 12px; color: var(--soft); padding: 4px 10px;
  border-bottom: 1px solid var(--line); }
.index td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--line); }
.index .left { text-align: left; } .index td:first-child, .index th:first-child { text-align: left; padding-left: 0; }
.family { margin-top: 26px; }
.family .about { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; margin-bottom: 8px; }
.family .about .meta { color: var(--soft); font-size: 12.5px; flex: 1 1 320px; }
.orders { display: none; gap: 2px; font-size: 12px; } .scripted .orders { display: inline-flex; }
.orders button { font: inherit; color: var(--soft); background: none; border: 1px solid var(--line); padding: 2px 9px;
  cursor: pointer; } .orders button:first-child { border-radius: 6px 0 0 6px; }
.orders button:last-child { border-radius: 0 6px 6px 0; }
.orders button[aria-pressed="true"] { background: var(--wash); color: var(--ink); font-weight: 600; }
.rows { border-top: 1px solid var(--line); }
.row { display: grid; gap: 0 12px; align-items: center; padding: 3px 6px;
  grid-template-columns: minmax(190px, 1fr) 250px 176px 132px 50px 84px 118px; }
.head { color: var(--soft); font-size: 11.5px; font-weight: 600; align-items: end; }
.head .n, .head .mult, .row .n, .row .mult { text-align: right; }
.lesson { border-bottom: 1px solid var(--line); }
.lesson summary { cursor: pointer; list-style: none; min-height: 30px; }
.lesson summary::-webkit-details-marker { display: none; }
.lesson summary:hover, .lesson[open] summary { background: var(--wash); }
.lesson summary:focus-visible { outline: 2px solid var(--blue); outline-offset: -2px; }
.scope { overflow-wrap: anywhere; position: relative; padding-left: calc(var(--level, 0) * 18px); line-height: 1.3; }
.deep .scope { border-left: 0; }
.deep .scope::before { content: ""; position: absolute; left: calc(var(--level) * 18px - 12px); top: -6px; width: 7px;
  height: calc(50% + 6px); border-left: 1.5px solid var(--faint); border-bottom: 1.5px solid var(--faint);
  border-radius: 0 0 0 3px; }
.flat .scope { padding-left: 0; } .flat .scope::before { display: none; }
.figure { white-space: nowrap; } .figure b { font-weight: 600; }
.figure span { font-size: 12px; color: var(--soft); margin-left: 5px; }
.row .n { color: var(--soft); } .row .mult { font-weight: 600; }
.muted .scope, .muted .mult { text-decoration: line-through; text-decoration-color: var(--gold); }
.body { display: grid; grid-template-columns: minmax(0, 1.25fr) minmax(0, 1fr); gap: 8px 32px; padding: 14px 8px 20px;
  border-top: 1px dashed var(--line); background: var(--wash); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 14px; margin: 0; font-size: 13px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.why { font-size: 13.5px; margin-bottom: 10px; }
.small { display: none; } .more:checked ~ .rows .small { display: block; }
.more { position: absolute; opacity: 0; }
.label { display: block; padding: 7px 6px; color: var(--blue); cursor: pointer; font-size: 13px; }
.more:focus-visible ~ .label { outline: 2px solid var(--blue); }
.more:checked ~ .label .closed, .label .opened { display: none; } .more:checked ~ .label .opened { display: inline; }
details.fold { margin-top: 8px; } details.fold summary.line { cursor: pointer; padding: 6px 0; font-size: 13.5px; }
.quiet { border-bottom: 1px solid var(--line); } .quiet .line { display: flex; flex-wrap: wrap; gap: 2px 12px; }
.quiet .line b { font-weight: 600; } .quiet .inner { padding: 4px 0 16px; }
.quiet .line::before { content: "+"; color: var(--faint); width: 10px; } .quiet[open] .line::before { content: "−"; }
svg { display: block; overflow: visible; }
.bar { width: 250px; height: 22px; } .total .bar { width: 132px; } .wide.bar { width: 100%; max-width: 300px; }
.bar text { font-size: 11px; fill: var(--soft); text-anchor: middle; font-weight: 400; }
.bar .zero { stroke: var(--faint); stroke-dasharray: 2 2; } .bar .tick { stroke: var(--faint); }
.bar .ci { stroke-width: 1.8; fill: none; } .bar .thick { stroke-width: 7; opacity: .9; }
.bar .from { stroke: var(--faint); stroke-width: 7; opacity: .4; }
.bar .rail { stroke: var(--line); stroke-width: 5; stroke-linecap: round; }
.bar .base { stroke: var(--soft); stroke-width: 1.5; }
.s-up { stroke: var(--up); } .s-down { stroke: var(--down); } .s-none { stroke: var(--faint); }
.s-untold { stroke: var(--gold); } .s-blue { stroke: var(--blue); }
.f-up { fill: var(--up); } .f-down { fill: var(--down); } .f-none { fill: var(--faint); }
.f-untold { fill: var(--gold); } .f-blue { fill: var(--blue); }
.hollow { fill: var(--bg); stroke-width: 1.6; }
.chart { width: 100%; height: auto; font-size: 11.5px; } .chart text { fill: var(--soft); }
.chart .title { font-weight: 600; } .chart .y { text-anchor: end; } .chart .last { font-weight: 600; fill: var(--ink); }
.chart .grid { stroke: var(--line); } .chart .null { stroke: var(--faint); stroke-dasharray: 4 3; }
.chart .line { fill: none; stroke: var(--blue); stroke-width: 1.7; stroke-linejoin: round; }
.chart .band { fill: var(--blue); fill-opacity: .16; } .chart .edge { fill: none; stroke: var(--gold);
  stroke-width: 1.5; }
code { font: 12px ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
.words { columns: 2; column-gap: 40px; margin-top: 10px; } .words p { break-inside: avoid; font-size: 13px; }
footer { margin-top: 34px; padding-top: 12px; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 12.5px; }
@media (max-width: 1120px) { .row { grid-template-columns: minmax(170px, 1fr) 250px 176px 84px 118px; }
  .row .total, .row .n { display: none; } .channels { grid-template-columns: 1fr; }
  .cards { grid-template-columns: repeat(3, 1fr); } }
@media (max-width: 820px) { body { padding: 18px 14px 32px; } .cards { grid-template-columns: repeat(2, 1fr); }
  .head { display: none; } .words { columns: 1; } .body { grid-template-columns: minmax(0, 1fr); }
  .row { grid-template-columns: 1fr auto; gap: 2px 10px; padding: 7px 2px; grid-template-areas:
    "scope state" "plot plot" "figure mult"; }
  .row .scope { grid-area: scope; } .row .plot { grid-area: plot; } .row .figure { grid-area: figure; }
  .row .mult { grid-area: mult; } .row .state { grid-area: state; } .bar { width: 100%; }
  .scope { padding-left: calc(var(--level, 0) * 12px); } .deep .scope::before { left: calc(var(--level) * 12px - 9px); }
  .index .wide { display: none; } .index td, .index th { padding: 4px 6px; } }
@media (max-width: 560px) { .chart { font-size: 17px; } }
@media print { body { padding: 0; } .orders, .label { display: none !important; } .lesson { break-inside: avoid; } }
"""

SCRIPT = """
document.documentElement.classList.add("scripted");
document.querySelectorAll(".orders").forEach(function (bar) {
  const rows = bar.closest(".family").querySelector(".rows");
  bar.addEventListener("click", function (event) {
    const by = event.target.dataset.by;
    if (!by) return;
    bar.querySelectorAll("button").forEach(function (one) {
      one.setAttribute("aria-pressed", String(one.dataset.by === by));
    });
    rows.classList.toggle("flat", by !== "order");
    const sign = by === "order" ? 1 : -1;
    const of = function (row) { return by === "effect" ? Math.abs(row.dataset[by]) : Number(row.dataset[by]); };
    Array.from(rows.querySelectorAll(":scope > .lesson"))
      .sort(function (a, b) { return sign * (of(a) - of(b)); })
      .forEach(function (row) { rows.append(row); });
  });
});
"""
