"""Style of the report page: one column, quiet colours, figures in columns; prints as it looks."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; --ink: #1d2939; --soft: #667085; --line: #e4e7ec; --wash: #f7f8fa;
  --up: #12826a; --down: #c03a36; --blue: #1f5fa8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 28px 32px 40px; background: #fff; color: var(--ink);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { margin: 0; font-size: 25px; letter-spacing: -.01em; }
h2 { margin: 34px 0 10px; font-size: 17px; padding-bottom: 5px; border-bottom: 1px solid var(--line); }
h3 { margin: 20px 0 6px; font-size: 14px; }
p { margin: 0 0 6px; }
.soft, .sub { color: var(--soft); }
.sub { margin: 3px 0 0; }
.told { margin: 18px 0 20px; padding: 12px 16px; background: #fff8ea; border-left: 4px solid #e0a021;
  border-radius: 0 4px 4px 0; }
.told.above { background: #eef7f4; border-color: var(--up); }
.told.below { background: #fdf1f0; border-color: var(--down); }
.told p:last-child { margin: 0; }
.told strong { font-weight: 650; }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; background: var(--line);
  border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
.card { background: #fff; padding: 11px 14px 10px; min-height: 92px; }
.card .name { color: var(--soft); font-size: 12.5px; }
.card .value { font-size: 21px; font-weight: 600; letter-spacing: -.01em; margin: 1px 0 2px; white-space: nowrap; }
.card .note { color: var(--soft); font-size: 12px; line-height: 1.35; }
.pill { display: inline-block; font-size: 11.5px; padding: 0 7px; border-radius: 9px; background: #fdf0d3;
  color: #7a5200;
  white-space: nowrap; }
.pill.above { background: #dcf1ea; color: #0b5d4b; }
.pill.below { background: #fbe3e1; color: #8f2420; }
.pill.none { background: #eef0f3; color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { text-align: right; font-weight: 600; color: var(--soft); font-size: 12px; padding: 4px 10px;
  border-bottom: 1px solid var(--line);
  vertical-align: bottom; }
td { text-align: right; padding: 4px 10px; border-bottom: 1px solid #f0f2f5; white-space: nowrap; }
th:first-child, td:first-child, th.left, td.left { text-align: left; padding-left: 0; }
td.left, th.left { padding-left: 10px; }
tbody tr:hover { background: var(--wash); }
td .ci { color: var(--soft); font-size: 12px; margin-left: 5px; }
td.plot, th.plot { padding: 0 10px; }
.groups { table-layout: fixed; margin-top: 18px; }
.groups th:nth-child(1) { color: var(--ink); font-size: 14px; width: 222px; }
.groups th:nth-child(2), .groups th:nth-child(3) { width: 56px; } .groups th:nth-child(4) { width: 136px; }
.groups th:nth-child(5) { width: 156px; } .groups th:nth-child(6) { width: 212px; }
.groups th:nth-child(7) { width: 160px; } .groups th:nth-child(8) { width: 76px; }
.groups td:first-child { overflow: hidden; text-overflow: ellipsis; }
.up { color: var(--up); } .down { color: var(--down); }
.months { table-layout: fixed; }
.months td, .months th { text-align: center; padding: 5px 2px; border: 2px solid #fff; }
.months td:first-child, .months th:first-child { text-align: left; font-weight: 600; color: var(--ink); }
.months tbody tr:hover { background: none; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 36px; align-items: start; }
svg { display: block; }
.chart { width: 100%; height: auto; font-size: 11.5px; }
.chart text { fill: var(--soft); }
.chart .title { font-weight: 600; fill: var(--ink); font-size: 12.5px; }
.chart .y { text-anchor: end; } .chart .x { text-anchor: middle; } .chart .year { font-weight: 600;
  fill: var(--ink); }
.chart .grid { stroke: #1d2939; stroke-opacity: .08; }
.chart .start { stroke: #98a2b3; stroke-dasharray: 5 4; }
.chart .line { fill: none; stroke: var(--blue); stroke-width: 1.6; stroke-linejoin: round; }
.chart .fall { fill: var(--down); fill-opacity: .45; } .chart .share { fill: var(--blue); fill-opacity: .28; }
.bar { width: 198px; height: 20px; overflow: visible; }
.bar .zero { stroke: #98a2b3; stroke-dasharray: 2 2; }
.bar line, .bar path { stroke-width: 1.8; fill: none; }
.bar .untold { stroke: #b98413; } .bar circle.untold { fill: #b98413; }
.bar .above { stroke: var(--up); } .bar circle.above { fill: var(--up); }
.bar .below { stroke: var(--down); } .bar circle.below { fill: var(--down); }
.bar text { font-size: 11px; fill: var(--soft); text-anchor: middle; font-weight: 400; }
.bar circle.none { fill: none; stroke: #98a2b3; }
details { margin-top: 14px; } summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 0; font-size: 13px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 12.5px ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
footer { margin-top: 34px; padding-top: 12px; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 12.5px; }
@media (max-width: 900px) { .cards { grid-template-columns: repeat(2, 1fr);
  } .pair { grid-template-columns: 1fr; } }
@media print { body { padding: 0; } h2 { break-after: avoid; } table, .cards, .chart { break-inside: avoid; } }
"""
