"""One episode as an HTML page: its windows, samples, buys and shadows over time, with the scores and the gates below.

One file, inline SVG, no script, no network. The database holds no bars: prices and averages are those of the windows'
samples, unless bars are given.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgebook.domain.errors import InputError
from edgebook.domain.levers import GATE_LEVERS
from edgebook.domain.strands import WindowSample
from edgebook.domain.timeframe import micros
from edgebook.learning.margins import INDIRECT
from edgebook.market.bars import BarSeries
from edgebook.runtime.chart import layout as lay
from edgebook.runtime.chart.facts import PERIODS, Chart, gather, moment_text
from edgebook.runtime.chart.script import STYLE
from edgebook.runtime.episodes import Chance, Episode, chance_group

_WIDE, _LEFT, _WIDTH = 1600, 132, 1388  # page, left edge and width of the panels, px
_STRIP, _ROWS, _ROW = 18, 3, 13  # strip of windows; lanes for what their shadows brought
_TOP, _HEIGHT = 66, 420  # price panel
_SCORES, _SCORES_TALL = 512, 130
_GATES, _GATES_TALL = 668, 150
_BOTTOM = 818
_REACH = 2.0  # margins beyond this many caps are drawn at the edge

_GROUP_COLOURS = {"entered": "#15803d", "skipped": "#2563eb", "blocked": "#98a2b3"}
_GROUP_WORDS = {"entered": "bought", "skipped": "skipped", "blocked": "a rule forbade it"}
_EMAS = {"ema60": 60, "ema144": 144, "ema333": 333}
_EMA_COLOURS = dict(zip(PERIODS, lay.EMA_COLOURS, strict=True))
_GOOD, _BAD, _INK = "#12826a", "#c03a36", "#1d2939"
#: Lines of the score panel: name in a sample or of a threshold, words, colour, whether dashed.
_SCORE_LINES = (
    ("ts_with_boost", "TS with boost", "#15803d", False),
    ("ts_min", "TS needed", "#15803d", True),
    ("dx_score", "DX", "#c026d3", False),
    ("dx_required", "DX needed", "#c026d3", True),
    ("edx_score", "EDX", "#667085", False),
)
_GATE_COLOURS = ("#15803d", "#ea7317", "#2563eb", "#c026d3")  # by place of a gate in its episode type
_MORE_STYLE = """
table { border-collapse: collapse; margin-top: 8px; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 2px 12px 2px 0; vertical-align: top; } th { color: #475467; }
svg { cursor: default; }
"""
_WORDS = (
    "Prices are logarithmic. A dot is a sample of a window: full where the flag was up. The number above each window "
    "is its place in the table, the one below that the rr of its shadow. A shadow is bought on paper where its window "
    "was decided (small triangle) and sold for the last time where the square is; what it trimmed before counts in its "
    "rr. The lowest panel shows how far each gate was from its threshold in severity caps: above the line it passed."
)


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is drawn, and where: times in microseconds from ``begin`` to ``end``, prices from ``bottom`` to ``top``."""

    episode: Episode
    chances: Sequence[Chance]
    chart: Chart | None
    begin: int
    end: int
    bottom: float
    top: float

    def x(self, ts: int) -> float:
        """A time in px."""
        return _LEFT + (ts - self.begin) / (self.end - self.begin) * _WIDTH

    def y(self, price: float) -> float:
        """A price in px."""
        return _TOP + math.log(self.top / price) / math.log(self.top / self.bottom) * _HEIGHT


def episode_page(episode: Episode, chances: Sequence[Chance], bars: BarSeries | None = None) -> str:
    """The page of one episode as text.

    Args:
        chances: its windows, as `runtime.episodes.chances` gives them.
        bars: bars of its symbol and timeframe; None draws what the samples hold.

    Raises:
        InputError: the bars are of another symbol or another time, or there is nothing to draw.
    """
    scene = _scene(episode, chances, bars)
    name = f"{html.escape(episode.symbol)} {episode.timeframe} {episode.episode_type}"
    end = moment_text(episode.ended_at) if episode.ended_at else "still open"
    source = "prices of the bars given" if scene.chart is not None else "prices of the windows' samples alone"
    return "\n".join(
        (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name} · edgebook episode</title>',
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}{_MORE_STYLE}</style></head><body>',
            f"<header><h1>{name}</h1><p>{moment_text(episode.started_at)} to {end} UTC</p>",
            f"<p>{episode.outcome} · {len(chances)} windows · {source} · {episode.id}</p></header>",
            f'<svg viewBox="0 0 {_WIDE} {_BOTTOM + 22}" role="img" aria-label="episode {episode.id}">',
            *_drawing(scene),
            f"</svg><footer>{_WORDS}</footer>",
            *_table(scene),
            "</body></html>\n",
        )
    )


def _scene(episode: Episode, chances: Sequence[Chance], bars: BarSeries | None) -> _Scene:
    begin, end = _span(episode, chances)
    if bars is not None and bars.symbol != episode.symbol:
        raise InputError(f"--bars has {bars.symbol}, the episode is of {episode.symbol}; give the bars of that")
    chart = gather(bars, begin, end) if bars is not None else None
    prices = [s.price for s in _samples(chances)] + [p for ts, p in _marks(chances) if ts <= end]
    averages = [v for s in _samples(chances) for name in _EMAS if (v := s.values.get(name))]
    if chart is not None:
        prices += [*chart.bars.high.tolist(), *chart.bars.low.tolist()]
        averages += chart.emas[:, [PERIODS.index(p) for p in _EMAS.values()]].ravel().tolist()
    if not prices:
        raise InputError(f"episode {episode.id} has no window, so there is no price to draw; give --bars")
    known = np.asarray(prices)
    bottom, top = lay.price_range(known, known, np.asarray(averages or prices))
    return _Scene(episode, chances, chart, begin, end, bottom, top)


def _span(episode: Episode, chances: Sequence[Chance]) -> tuple[int, int]:
    """From before the start to where the last shadow was left, but at most as long again as the episode was."""
    step = micros(episode.timeframe)
    last = episode.ended_at or max((s.ts for s in _samples(chances)), default=episode.started_at)
    long = max(last - episode.started_at, step * 12)
    left = max((c.shadow.exit_ts for c in chances if c.shadow is not None), default=last)
    return episode.started_at - step * 2, min(max(left, last), last + long) + step * 2


def _samples(chances: Sequence[Chance]) -> Iterator[WindowSample]:
    return (sample for chance in chances if chance.told is not None for sample in chance.told.samples)


def _marks(chances: Sequence[Chance]) -> Iterator[tuple[int, float]]:
    """Times and prices of all buys, and of what shadows did."""
    for chance in chances:
        if chance.fill is not None:
            yield chance.fill.ts, chance.fill.price
        if chance.shadow is not None:
            yield chance.shadow.entry_ts, chance.shadow.entry_price
            yield chance.shadow.exit_ts, chance.shadow.exit_price


def _drawing(scene: _Scene) -> Iterator[str]:
    """Back to front."""
    yield f'<defs><clipPath id="all"><rect x="{_LEFT}" y="0" width="{_WIDTH}" height="{_BOTTOM}"/></clipPath>'
    yield f'<clipPath id="panel"><rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/></clipPath></defs>'
    yield from _axes(scene)
    yield from _legends(scene)
    yield '<g clip-path="url(#all)">'
    yield from _windows(scene)
    yield from _score_lines(scene)
    yield from _gate_lines(scene)
    yield '</g><g clip-path="url(#panel)">'
    yield from _bars(scene) if scene.chart is not None else _sampled_prices(scene)
    yield from _shadows(scene)
    yield from _dots(scene)
    yield "</g>"
    yield from _brought(scene)


# ---------------------------------------------------------------- frame


def _axes(scene: _Scene) -> Iterator[str]:
    right = _LEFT + _WIDTH
    for price in lay.price_ticks(scene.bottom, scene.top):
        yield _rule(scene.y(price), lay.tick_text(price))
    for value in (0.0, 0.5, 1.0):
        yield _rule(_score_y(value), f"{value:.1f}")
    for u in (-2, -1, 0, 1, 2):
        yield _rule(_gate_y(u), f"{u:+d}" if u else "gate")
    yield f'<path d="M{_LEFT} {_gate_y(0):.1f}H{right}" stroke="{_INK}" stroke-width="1.2" stroke-opacity=".5"/>'
    for ts, text in _time_ticks(scene.begin, scene.end):
        x = scene.x(ts)
        yield f'<path class="grid" d="M{x:.1f} {_TOP}V{_BOTTOM}"/>'
        yield f'<text x="{x:.1f}" y="{_BOTTOM + 15}" text-anchor="middle">{text}</text>'
    for ts, text in ((scene.episode.started_at, "begins"), (scene.episode.ended_at, scene.episode.outcome)):
        if ts:
            x = scene.x(ts)
            yield f'<path class="hair" d="M{x:.1f} {_STRIP}V{_BOTTOM}"/>'
            yield f'<text x="{x + 4:.1f}" y="{_TOP + _HEIGHT - 6}" style="font-weight:600">{text}</text>'


def _rule(y: float, text: str) -> str:
    line = f'<path class="grid" d="M{_LEFT} {y:.1f}h{_WIDTH}"/>'
    return f'{line}<text x="{_LEFT + _WIDTH + 6}" y="{y + 4:.1f}">{text}</text>'


def _time_ticks(begin: int, end: int, most: int = 12) -> list[tuple[int, str]]:
    """Round moments between two times, at most ``most``.

    >>> [text for _, text in _time_ticks(1_622_505_600_000_000, 1_622_516_400_000_000, 4)]
    ['06-01 00:00', '06-01 01:00', '06-01 02:00', '06-01 03:00']
    """
    steps = [seconds * 1_000_000 for seconds in lay.TIME_STEPS]
    step = next((s for s in steps if (end - begin) // s < most), steps[-1])
    return [(ts, moment_text(ts)[5:]) for ts in range(-(-begin // step) * step, end + 1, step)]


def _score_y(value: float) -> float:
    return _SCORES + (1.0 - min(1.0, max(0.0, value))) * _SCORES_TALL


def _gate_y(u: float) -> float:
    return _GATES + (_REACH - min(_REACH, max(-_REACH, u))) / (2 * _REACH) * _GATES_TALL


def _legends(scene: _Scene) -> Iterator[str]:
    y = 14.0
    yield f'<text x="8" y="{y}" style="font-weight:600">windows</text><text x="8" y="46">shadow rr</text>'
    y = _TOP + 4.0
    for group, words in _GROUP_WORDS.items():
        y += 19
        yield f'<rect x="8" y="{y - 11}" width="22" height="13" fill="{_GROUP_COLOURS[group]}" fill-opacity=".3"/>'
        yield f'<text x="36" y="{y}">{words}</text>'
    y += 8
    for period in _EMAS.values():
        y += 17
        yield f'<path d="M8 {y - 4}h22" stroke="{_EMA_COLOURS[period]}" stroke-width="2"/>'
        yield f'<text x="36" y="{y}">EMA {period}</text>'
    for mark, words in (("▲", "bought"), ("△", "shadow bought"), ("■", "shadow sold")):
        y += 17
        yield f'<text x="12" y="{y}" style="fill:{_GOOD}">{mark}</text><text x="36" y="{y}">{words}</text>'
    yield from _line_legend(_SCORES, [(words, colour, dash) for _, words, colour, dash in _scores_of(scene)])
    gates = zip(GATE_LEVERS[scene.episode.episode_type], _GATE_COLOURS, strict=False)
    yield from _line_legend(_GATES, [(name, colour, name in INDIRECT) for name, colour in gates])
    for top, words in ((_SCORES, "scores"), (_GATES, "caps to the gate")):
        yield f'<text x="8" y="{top - 6}" style="font-weight:600">{words}</text>'


def _line_legend(top: float, lines: Sequence[tuple[str, str, bool]]) -> Iterator[str]:
    for i, (words, colour, dash) in enumerate(lines):
        y = top + 12 + 17 * i
        style = ' stroke-dasharray="4 3"' if dash else ""
        yield f'<path d="M8 {y - 4}h22" stroke="{colour}" stroke-width="2"{style}/><text x="36" y="{y}">{words}</text>'


# ---------------------------------------------------------------- layers


def _windows(scene: _Scene) -> Iterator[str]:
    """A full column per window with its number, and what became of it on hover."""
    for i, chance in enumerate(scene.chances):
        w = chance.result
        left, right = scene.x(w.started_at), scene.x(w.ended_at or scene.end)
        width, colour = max(2.0, right - left), _GROUP_COLOURS[chance_group(w.entered, w.blocked_by)]
        title = f"window {i}, {w.window_kind}: {w.outcome or 'open'} {' '.join(w.blocked_by)}"
        yield f"<g><title>{html.escape(title)}</title>"
        yield f'<rect x="{left:.1f}" y="0" width="{width:.1f}" height="{_STRIP}" fill="{colour}"/>'
        yield (
            f'<rect x="{left:.1f}" y="{_TOP}" width="{width:.1f}" height="{_BOTTOM - _TOP}" fill="{colour}" '
            'fill-opacity=".13"/>'
        )
        if width > 7 * len(str(i)):
            x = left + width / 2
            yield f'<text x="{x:.1f}" y="13" text-anchor="middle" style="fill:#fff;font-weight:600">{i}</text>'
        yield "</g>"


def _bars(scene: _Scene) -> Iterator[str]:
    """Wicks, closes and averages of the bars given."""
    assert scene.chart is not None
    bars = scene.chart.bars
    x = [scene.x(int(ts)) for ts in bars.close_ts]
    for up in (True, False):
        chosen = [i for i in range(len(bars)) if (bars.close[i] >= bars.open[i]) == up]
        d = "".join(f"M{x[i]:.1f} {scene.y(bars.high[i]):.1f}V{scene.y(bars.low[i]):.1f}" for i in chosen)
        yield f'<path d="{d}" stroke="{_GOOD if up else _BAD}" stroke-opacity=".7" fill="none"/>'
    yield _path([(a, scene.y(p)) for a, p in zip(x, bars.close.tolist(), strict=True)], _INK, 1.2)
    for period in _EMAS.values():
        column = scene.chart.emas[:, PERIODS.index(period)].tolist()
        points = [(a, scene.y(v)) for a, v in zip(x, column, strict=True) if v == v]
        yield _path(points, _EMA_COLOURS[period], 1.6)


def _sampled_prices(scene: _Scene) -> Iterator[str]:
    """Prices and averages as the samples hold them, window by window; between windows nothing is known."""
    for chance in scene.chances:
        samples = chance.told.samples if chance.told is not None else ()
        yield _path([(scene.x(s.ts), scene.y(s.price)) for s in samples], _INK, 1.2)
        for name, period in _EMAS.items():
            points = [(scene.x(s.ts), scene.y(v)) for s in samples if (v := s.values.get(name))]
            yield _path(points, _EMA_COLOURS[period], 1.6)


def _path(points: Sequence[tuple[float, float]], colour: str, width: float, dash: bool = False) -> str:
    """A line through points; a lone one is a short stroke."""
    if not points:
        return ""
    if len(points) == 1:
        points = [(points[0][0] - 3, points[0][1]), (points[0][0] + 3, points[0][1])]
    d = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    style = ' stroke-dasharray="4 3"' if dash else ""
    return f'<path d="M{d}" fill="none" stroke="{colour}" stroke-width="{width}"{style}/>'


def _scores_of(scene: _Scene) -> list[tuple[str, str, str, bool]]:
    """The lines of the score panel that the episode has."""
    names = (
        ("ts_with_boost", "ts_min") if scene.episode.episode_type == "s1_entry" else tuple(n for n, *_ in _SCORE_LINES)
    )
    return [line for line in _SCORE_LINES if line[0] in names]


def _score_lines(scene: _Scene) -> Iterator[str]:
    for chance in scene.chances:
        if chance.told is None:
            continue
        for name, _, colour, dash in _scores_of(scene):
            fixed = chance.told.thresholds_effective.get(name)
            known = [(s.ts, fixed if fixed is not None else s.values.get(name)) for s in chance.told.samples]
            points = [(scene.x(ts), _score_y(v)) for ts, v in known if v is not None]
            yield _path(points, colour, 1.6, dash)


def _gate_lines(scene: _Scene) -> Iterator[str]:
    """Margins of each gate; dashed those that work through another gate, whose line they share."""
    for name, colour in zip(GATE_LEVERS[scene.episode.episode_type], _GATE_COLOURS, strict=False):
        for chance in scene.chances:
            samples = chance.told.samples if chance.told is not None else ()
            points = [(scene.x(s.ts), _gate_y(u)) for s in samples if (u := s.margins.get(name)) is not None]
            yield _path(points, colour, 1.6, name in INDIRECT)


def _shadows(scene: _Scene) -> Iterator[str]:
    """From where a shadow was bought to where it was left."""
    for i, chance in enumerate(scene.chances):
        done = chance.shadow
        if done is None:
            continue
        colour = _GOOD if done.rr > 0 else _BAD
        x, y, away, down = (
            scene.x(done.entry_ts),
            scene.y(done.entry_price),
            scene.x(done.exit_ts),
            scene.y(done.exit_price),
        )
        yield f"<g><title>shadow of window {i}: rr {done.rr:+.2f}, left {moment_text(done.exit_ts)}</title>"
        yield _path([(x, y), (away, down)], colour, 1.0, dash=True)
        yield f'<path d="M{x:.1f} {y - 6:.1f}l5 10h-10z" fill="#fff" stroke="{colour}" stroke-width="1.4"/>'
        yield f'<rect x="{away - 3.5:.1f}" y="{down - 3.5:.1f}" width="7" height="7" fill="{colour}"/></g>'


def _dots(scene: _Scene) -> Iterator[str]:
    """Samples, and the buys that were real."""
    for s in _samples(scene.chances):
        fill = _INK if s.flag_on else "#fff"
        where = f'cx="{scene.x(s.ts):.1f}" cy="{scene.y(s.price):.1f}"'
        title = f"{moment_text(s.ts)} {s.price:.6g} {'flag up' if s.flag_on else ' '.join(s.blocked_by)}"
        yield f'<circle {where} r="2.6" fill="{fill}" stroke="{_INK}"><title>{html.escape(title)}</title></circle>'
    for chance in scene.chances:
        if chance.fill is not None:
            x, y = scene.x(chance.fill.ts), scene.y(chance.fill.price)
            title = f"bought {moment_text(chance.fill.ts)} at {chance.fill.price:.6g}"
            yield f'<path d="M{x:.1f} {y - 9:.1f}l8 15h-16z" fill="{_GOOD}"><title>{title}</title></path>'


def _brought(scene: _Scene) -> Iterator[str]:
    """The rr of each shadow above its window, in lanes where windows are narrow."""
    free = [float(_LEFT)] * _ROWS
    for chance in scene.chances:
        if chance.shadow is None:
            continue
        w = chance.result
        x = (scene.x(w.started_at) + scene.x(w.ended_at or scene.end)) / 2
        row = next((i for i, edge in enumerate(free) if x - 17 >= edge), None)
        if row is None:
            continue
        free[row] = x + 17
        ink = _GOOD if chance.shadow.rr > 0 else _BAD
        place = f'x="{x:.1f}" y="{_STRIP + _ROW * (row + 1)}" text-anchor="middle"'
        yield f'<text {place} style="fill:{ink}">{chance.shadow.rr:+.2f}</text>'


# ---------------------------------------------------------------- table


def _table(scene: _Scene) -> Iterator[str]:
    """Every window in words: the same facts for those who cannot hover."""
    heads = ("", "from", "to", "kind", "entered", "outcome", "blocked by", "shadow rr", "value in R per gate")
    yield "<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for i, chance in enumerate(scene.chances):
        w, done = chance.result, chance.shadow
        values = ", ".join(f"{name} {value:+.2f}" for name, value in done.values.items()) if done is not None else ""
        ended = moment_text(w.ended_at) if w.ended_at else "now"
        rr = f"{done.rr:+.2f}" if done is not None else "runs" if chance.running is not None else "none"
        cells = (
            *(str(i), moment_text(w.started_at), ended, w.window_kind, "yes" if w.entered else "no"),
            *(w.outcome or "open", ", ".join(w.blocked_by), rr, values),
        )
        yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    yield "</table>"
