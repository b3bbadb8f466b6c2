"""A chart as one HTML page: inline SVG, the facts as JSON, a small script; no network, no other file.

Shapes are drawn in slots (across) and in thousandths of the price panel (down), and placed by one transform per group,
so that the script can zoom by changing transforms only.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.engine.gates import BASE_GATES
from edgebook.engine.signals import OX_TRIM
from edgebook.engine.states import S3, STATE_NAMES
from edgebook.runtime.chart import layout as lay
from edgebook.runtime.chart.facts import FLAGS, PERIODS, SCORES, WINDOW_FLAGS, Chart, moment_text, notes
from edgebook.runtime.chart.script import SCRIPT, STYLE

Floats = NDArray[np.float64]

_WIDE, _LEFT, _WIDTH = 1600, 132, 1388  # page, left edge and width of the panels, px
_STRIP = 18  # height of the strip of states
_TOP, _HEIGHT = 20, 490  # price panel
_LANES, _LANE = 516, 13  # flag lanes
_SCORES, _SCORES_HEIGHT = 628, 136
_FLOOR, _TALL = 838, 62  # foot and height of the volume panel
_BOTTOM = 840
_DASHED = ' stroke-dasharray="4 3"'
_KEYS = "Wheel, + or −: zoom. Drag, ← or →: move. Double click or 0: everything."
_ROOM = (18, 95)  # px a short and a long name of a state need
_INK, _UP, _DOWN = "#1d2939", "#12826a", "#c03a36"

_SHAPES = {
    "up": '<path d="M0 -6L5.5 5H-5.5z"/>',
    "down": '<path d="M0 6L5.5 -5H-5.5z"/>',
    "diamond": '<path d="M0 -6.5L5.5 0L0 6.5L-5.5 0z"/>',
    "square": '<path d="M-5 -5h10v10h-10z"/>',
    "cross": '<path d="M-5 -3L-3 -5L0 -2L3 -5L5 -3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0z"/>',
    "ring": '<path fill-rule="evenodd" d="M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0M-2.6 0a2.6 2.6 0 1 1 5.2 0'
    'a2.6 2.6 0 1 1 -5.2 0"/>',
}


def page(chart: Chart) -> str:
    """The whole page as text."""
    place = lay.slots(chart)
    drawn = lay.candles(chart, place)
    frame = _Frame(chart, place, drawn)
    bars = chart.bars
    name = f"{html.escape(bars.symbol)} {bars.timeframe}"
    span = f"{moment_text(int(bars.ts_open[0]))} to {moment_text(int(bars.close_ts[-1]))} UTC"
    told = [*notes(chart), *lay.reading_notes(chart)]
    facts = json.dumps(_facts(chart, frame), separators=(",", ":")).replace("</", "<\\/")
    return "\n".join(
        (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name} · edgebook chart</title>',
            '<meta name="viewport" content="width=device-width">',
            f"<style>{STYLE}</style></head><body>",
            f"<header><h1>{name}</h1><p>{span} · {lay.size_text(chart)}</p><p>{_summary(chart)}</p></header>",
            '<div class="notes">' + "".join(f"<p>{html.escape(text)}</p>" for text in told) + "</div>" if told else "",
            '<div id="read">Move the pointer over a bar to read it.</div>',
            *_drawing(frame),
            f"<footer>{_KEYS} {lay.EXPLANATION}</footer>",
            f'<script type="application/json" id="facts">{facts}</script>',
            f"<script>{SCRIPT}</script></body></html>\n",
        )
    )


class _Frame:
    """Where things stand: slots across, and price to thousandths of the panel."""

    def __init__(self, chart: Chart, place: lay.Slots, drawn: lay.Candles) -> None:
        self.chart, self.place, self.drawn = chart, place, drawn
        self.emas = chart.emas[drawn.last]
        self.bottom, self.top = lay.price_range(drawn.low, drawn.high, self.emas)
        self.across = _WIDTH / place.total

    def down(self, price: Floats | float) -> Floats:
        """Prices as thousandths from the top of the price panel."""
        top, bottom = math.log(self.top), math.log(self.bottom)
        return np.asarray((top - np.log(price)) / (top - bottom) * 1000.0)

    def x(self, slot: float) -> float:
        """A slot in px."""
        return _LEFT + slot * self.across

    def y(self, thousandths: float) -> float:
        """Thousandths of the price panel in px."""
        return _TOP + thousandths / 1000.0 * _HEIGHT

    def edges(self, first: int, last: int) -> tuple[int, int]:
        """Left and right edge of bars ``first`` to ``last``, in slots."""
        return int(self.place.left[first]), int(self.place.left[last]) + 1


def _n(value: float) -> str:
    """A coordinate, short."""
    text = f"{value:.2f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _summary(chart: Chart) -> str:
    parts = [(int((chart.state == code).sum()), name) for code, name in enumerate(STATE_NAMES)]
    states = " · ".join(f"{name} {n:,}" for n, name in parts if n)
    bought = sum(window.bought for window in chart.windows)
    return f"bars by state: {states} · {len(chart.windows):,} buy windows, {bought:,} with the flag up"


def _drawing(frame: _Frame) -> Iterator[str]:
    """The SVG element, back to front."""
    name = f"chart of {len(frame.chart)} bars"
    yield f'<svg id="chart" viewBox="0 0 {_WIDE} {_BOTTOM + 22}" role="img" aria-label="{name}">'
    yield from _definitions(frame)
    yield '<g clip-path="url(#panels)">'
    yield from _bands(frame)
    yield "</g>"
    yield from _axes(frame)
    yield from _legends(frame)
    yield '<g clip-path="url(#panel)">' + f'<g id="price" transform="{_price_transform(frame)}">'
    yield from _prices(frame)
    yield "</g></g>"
    yield '<g clip-path="url(#panels)">'
    yield from _lanes(frame)
    yield from _score_lines(frame)
    yield from _volume(frame)
    yield from _holes(frame)
    yield "</g>"
    yield f'<g clip-path="url(#panel)">{"".join(_markers(frame))}</g>'
    yield f'<g clip-path="url(#panels)">{"".join(_tags(frame))}</g>'
    yield '<g id="crosshair" visibility="hidden" pointer-events="none"></g></svg>'


def _definitions(frame: _Frame) -> Iterator[str]:
    yield "<defs>"
    yield f'<clipPath id="panels"><rect x="{_LEFT}" y="0" width="{_WIDTH}" height="{_BOTTOM}"/></clipPath>'
    yield f'<clipPath id="panel"><rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/></clipPath>'
    yield (
        '<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" '
        f'patternTransform="scale({1 / frame.across:.6g} 1) rotate(45)">'
        '<rect width="7" height="7" fill="#f8f9fb"/><rect width="2" height="7" fill="#c3c9d4"/></pattern>'
    )
    yield from (f'<g id="shape-{name}">{path}</g>' for name, path in _SHAPES.items())
    yield "</defs>"


def _across(frame: _Frame) -> str:
    return f'class="across" transform="matrix({frame.across:.9g} 0 0 1 {_LEFT} 0)"'


def _price_transform(frame: _Frame) -> str:
    return f"matrix({frame.across:.9g} 0 0 {_HEIGHT / 1000} {_LEFT} {_TOP})"


def _bands(frame: _Frame) -> Iterator[str]:
    """Background by state, with the full colour in a strip above."""
    yield f"<g {_across(frame)}>"
    for code, first, last in lay.state_runs(frame.chart):
        left, right = frame.edges(first, last)
        name = STATE_NAMES[code]
        rect = f'<rect x="{left}" width="{right - left}" fill="{lay.STATE_COLOURS[name]}"'
        yield f'{rect} y="0" height="{_STRIP}"/>{rect} y="{_TOP}" height="{_BOTTOM - _TOP}" fill-opacity=".5"/>'
    yield "</g>"


def _axes(frame: _Frame) -> Iterator[str]:
    """Grid and labels; the script redraws those of prices and times."""
    right = _LEFT + _WIDTH
    yield '<g id="prices">'
    for price in lay.price_ticks(frame.bottom, frame.top):
        y = frame.y(float(frame.down(price)))
        yield f'<path class="grid" d="M{_LEFT} {_n(y)}h{_WIDTH}"/>'
        yield f'<text x="{right + 6}" y="{_n(y + 4)}">{lay.tick_text(price)}</text>'
    yield '</g><g id="times">'
    opens, middle = frame.chart.bars.ts_open[frame.drawn.first], frame.drawn.middle
    for i, text in lay.time_ticks(opens, middle, frame.place.total):
        x = frame.x(float(middle[i]))
        yield f'<path class="grid" d="M{_n(x)} {_TOP}V{_BOTTOM}"/>'
        yield f'<text x="{_n(x)}" y="{_BOTTOM + 15}" text-anchor="middle">{text}</text>'
    yield "</g>"
    for value, note in ((0.0, ""), (BASE_GATES.ts_min, "buy: TS"), (OX_TRIM, "trim: OX"), (1.0, "")):
        y = _SCORES + (1 - value) * _SCORES_HEIGHT
        dash = _DASHED + ' style="stroke-opacity:.35"' if note else ""
        yield f'<path class="grid"{dash} d="M{_LEFT} {_n(y)}h{_WIDTH}"/>'
        shift = 9 if value == BASE_GATES.ts_min else 2 if note else 4
        yield f'<text x="{right + 6}" y="{_n(y + shift)}">{value:.2f} {note}</text>'
    feet = f"M{_LEFT} {_TOP + _HEIGHT}h{_WIDTH}M{_LEFT} {_BOTTOM}h{_WIDTH}"
    yield f'<path class="grid" style="stroke-opacity:.3" d="{feet}"/>'


def _legends(frame: _Frame) -> Iterator[str]:
    """Left of each panel what its colours mean; right of each lane how many bars carry the flag."""
    y = 14.0
    yield f'<text x="8" y="{y}" style="font-weight:600">state</text>'
    for name in STATE_NAMES:
        y += 19
        yield f'<rect x="8" y="{y - 11}" width="22" height="14" rx="2" fill="{lay.STATE_COLOURS[name]}"/>'
        yield f'<text x="12" y="{y}" style="fill:{lay.STATE_INKS[name]};font-weight:600">{name}</text>'
        yield f'<text x="36" y="{y}">{lay.STATE_WORDS[name]}</text>'
    y += 12
    for stroke, text in _line_legend():
        y += 17
        yield f'<path d="M8 {y - 4}h22" fill="none" {stroke}/><text x="36" y="{y}">{text}</text>'
    y += 12
    for state, text in lay.WINDOW_WORDS.items():
        y += 19
        ink = lay.STATE_INKS[state]
        yield f'<rect x="8" y="{y - 11}" width="22" height="13" fill="{ink}" fill-opacity=".14" stroke="{ink}"/>'
        yield f'<text x="36" y="{y}">{text}</text>'
    yield from _lane_legend(frame)
    y = _SCORES + 8.0
    for label, colour, dash in lay.SCORE_LOOKS.values():
        y += 17
        style = f'stroke="{colour}" stroke-width="1.6"' + (_DASHED if dash else "")
        yield f'<path d="M8 {y - 4}h22" {style}/><text x="36" y="{y}">{label}</text>'
    yield f'<text x="8" y="{_FLOOR - _TALL / 2}">volume</text>'


def _line_legend() -> Iterator[tuple[str, str]]:
    """(attributes of a stroke, name) of each kind of line in the price panel."""
    for period, colour, width in zip(PERIODS, lay.EMA_COLOURS, lay.EMA_WIDTHS, strict=True):
        yield f'stroke="{colour}" stroke-width="{width}"', f"EMA {period}"
    yield f'stroke="{lay.EMA_COLOURS[-1]}" stroke-width="10" stroke-opacity=".13"', "hallway of S3"
    yield f'stroke="{lay.LEVEL_COLOUR}" stroke-width="1.4"', "S/R level"
    yield f'stroke="{lay.LEVEL_COLOUR}"{_DASHED}', "range high, low"


def _lane_legend(frame: _Frame) -> Iterator[str]:
    for k, name in enumerate(FLAGS):
        look, y = lay.FLAG_LOOKS[name], _LANES + (k + 0.5) * _LANE
        count = int(frame.chart.flags[name].sum())
        ink = _INK if count else "#98a2b3"
        yield f'<use href="#shape-{look.shape}" fill="{look.colour}" transform="translate(14 {y}) scale(.85)"/>'
        yield f'<text x="26" y="{y + 4}" style="fill:{ink}">{look.label}</text>'
        bars = f"{count:,} bar{'' if count == 1 else 's'}"
        yield f'<text x="{_LEFT + _WIDTH + 6}" y="{y + 4}" style="fill:{ink}">{bars}</text>'


def _prices(frame: _Frame) -> Iterator[str]:
    """Hallway, windows, levels, EMAs and candles, in slots and thousandths."""
    yield from _hallway(frame)
    yield from _window_boxes(frame)
    yield from _level_lines(frame)
    down = frame.down(frame.emas)
    for k in range(len(PERIODS)):
        line = _line(frame.drawn.middle, down[:, k])
        style = f'stroke="{lay.EMA_COLOURS[k]}" stroke-width="{lay.EMA_WIDTHS[k]}"'
        yield f'<path fill="none" stroke-linejoin="round" {style} d="{line}"/>'
    yield from _candles(frame)


def _hallway(frame: _Frame) -> Iterator[str]:
    """The zone between EMA144 and EMA333 while in S3."""
    fast, slow = PERIODS.index(144), PERIODS.index(333)
    middle, down = frame.drawn.middle, frame.down(frame.emas)
    for first, last in lay.runs(frame.chart.state[frame.drawn.last] == S3):
        part = slice(first, last + 1)
        there = _line(middle[part], down[part, fast])
        back = _line(middle[part][::-1], down[part, slow][::-1])
        yield f'<path fill="{lay.EMA_COLOURS[slow]}" fill-opacity=".1" d="{there}L{back[1:]}z"/>'


def _window_boxes(frame: _Frame) -> Iterator[str]:
    bars = frame.chart.bars
    for state in WINDOW_FLAGS:
        for bought in (False, True):
            shapes = []
            for window in frame.chart.windows:
                if (window.state, window.bought) == (state, bought):
                    part = slice(window.first, window.last + 1)
                    left, right = frame.edges(window.first, window.last)
                    high, low = frame.down(bars.high[part].max()) - 6, frame.down(bars.low[part].min()) + 6
                    shapes.append(f"M{left} {_n(float(high))}H{right}V{_n(float(low))}H{left}z")
            ink = lay.STATE_INKS[state]
            stroke = 'stroke-width="1.3"' if bought else 'stroke-dasharray="2 2" stroke-opacity=".7"'
            fill = f'fill="{ink}" fill-opacity="{0.2 if bought else 0.1}"'
            yield f'<path {fill} stroke="{ink}" {stroke} d="{"".join(shapes)}"/>'


def _level_lines(frame: _Frame) -> Iterator[str]:
    """One path per strength and kind; a level stands on the bars on which it exists."""
    groups: dict[tuple[float, bool], list[str]] = {}
    for piece in frame.chart.levels:
        left, right = frame.edges(piece.first, piece.last)
        key = (round(piece.strength, 2), piece.source != "swing")
        groups.setdefault(key, []).append(f"M{left} {_n(float(frame.down(piece.price)))}H{right}")
    for (strength, is_range), shapes in sorted(groups.items()):
        dash = _DASHED if is_range else ""
        style = f'stroke="{lay.LEVEL_COLOUR}" stroke-opacity="{lay.level_opacity(strength):.2f}"{dash}'
        yield f'<path fill="none" {style} d="{"".join(shapes)}"/>'


def _candles(frame: _Frame) -> Iterator[str]:
    d, place = frame.drawn, frame.place
    wide = (place.left[d.last] + 1 - place.left[d.first]) * 0.7
    up = d.close >= d.open
    high, low = frame.down(d.high), frame.down(d.low)
    top, foot = frame.down(np.maximum(d.open, d.close)), frame.down(np.minimum(d.open, d.close))
    for chosen, colour in ((up, _UP), (~up, _DOWN)):
        at = np.flatnonzero(chosen)
        wicks = "".join(f"M{_n(d.middle[i])} {_n(high[i])}V{_n(low[i])}" for i in at)
        bodies = "".join(
            f"M{_n(d.middle[i] - wide[i] / 2)} {_n(top[i])}h{_n(wide[i])}V{_n(foot[i])}h{_n(-wide[i])}z" for i in at
        )
        yield f'<path stroke="{colour}" fill="none" d="{wicks}"/>'
        yield f'<path stroke="{colour}" stroke-width=".6" fill="{colour}" d="{bodies}"/>'


def _markers(frame: _Frame) -> Iterator[str]:
    """Flags on the bars, hidden while there are too many to tell apart."""
    bars, found = frame.chart.bars, lay.marks(frame.chart)
    display = "none" if len(found) > lay.MAX_MARKERS else "inline"
    yield f'<g id="marks" display="{display}">'
    for mark in found:
        look = lay.FLAG_LOOKS[mark.flag]
        shift = (10 + 13 * mark.rank) * (-1 if look.above else 1)
        u = float(frame.down(bars.high[mark.bar] if look.above else bars.low[mark.bar]))
        x = float(frame.place.left[mark.bar]) + 0.5
        where = f'transform="translate({_n(frame.x(x))} {_n(frame.y(u) + shift)})"'
        data = f'data-x="{_n(x)}" data-u="{_n(u)}" data-d="{shift}"'
        yield f'<use class="pin" href="#shape-{look.shape}" fill="{look.colour}" {data} {where}/>'
    yield "</g>"


def _lanes(frame: _Frame) -> Iterator[str]:
    """One lane per flag, a mark on every bar that carries it."""
    yield f"<g {_across(frame)}>"
    for k, name in enumerate(FLAGS):
        y, look = _LANES + k * _LANE, lay.FLAG_LOOKS[name]
        yield f'<rect x="0" width="{frame.place.total}" y="{y}" height="{_LANE - 1}" fill="#fff" fill-opacity=".55"/>'
        shapes = []
        for first, last in lay.runs(frame.chart.flags[name]):
            left, right = frame.edges(first, last)
            shapes.append(f"M{left} {y + 2}H{right}v{_LANE - 5}H{left}z")
        yield f'<path fill="{look.colour}" stroke="{look.colour}" stroke-width=".8" d="{"".join(shapes)}"/>'
    yield "</g>"


def _score_lines(frame: _Frame) -> Iterator[str]:
    yield f"<g {_across(frame)}>"
    width = 1.3 if frame.drawn.bars_each == 1 else 0.7
    for name, (_, colour, dash) in lay.SCORE_LOOKS.items():
        values = _SCORES + (1 - frame.chart.scores[name][frame.drawn.last]) * _SCORES_HEIGHT
        style = f'stroke="{colour}" stroke-width="{width}"' + (_DASHED if dash else "")
        yield f'<path fill="none" {style} d="{_line(frame.drawn.middle, values)}"/>'
    yield "</g>"


def _volume(frame: _Frame) -> Iterator[str]:
    """Volumes as shares of the largest, upwards from the foot of the panel."""
    d, place = frame.drawn, frame.place
    share = -d.volume / (d.volume.max() or 1.0)
    wide = (place.left[d.last] + 1 - place.left[d.first]) * 0.7
    up = d.close >= d.open
    yield f'<g id="volume" transform="matrix({frame.across:.9g} 0 0 {_TALL} {_LEFT} {_FLOOR})">'
    for chosen, colour in ((up, _UP), (~up, _DOWN)):
        shapes = "".join(
            f"M{_n(d.middle[i] - wide[i] / 2)} 0v{share[i]:.4f}h{_n(wide[i])}V0z" for i in np.flatnonzero(chosen)
        )
        yield f'<path fill="{colour}" fill-opacity=".75" d="{shapes}"/>'
    yield "</g>"


def _holes(frame: _Frame) -> Iterator[str]:
    yield f"<g {_across(frame)}>"
    for left, width, _ in frame.place.holes(frame.chart):
        yield f'<rect x="{left}" width="{width}" y="0" height="{_BOTTOM}" fill="url(#hatch)" stroke="#98a2b3"/>'
    yield "</g>"


def _tags(frame: _Frame) -> Iterator[str]:
    """Names of states in the strip and words in holes, shown where there is room."""
    for code, first, last in lay.state_runs(frame.chart):
        name = STATE_NAMES[code]
        words = (name, f"{name} {lay.STATE_WORDS[name]}")
        yield _tag(frame, frame.edges(first, last), 13, words, lay.STATE_INKS[name])
    for left, width, missing in frame.place.holes(frame.chart):
        text = lay.hole_text(missing, frame.chart.bars.timeframe)
        yield _tag(frame, (left, left + width), _TOP + _HEIGHT // 2, (text, text), _INK, turn=True)


def _tag(frame: _Frame, edges: tuple[int, int], y: int, words: tuple[str, str], ink: str, *, turn: bool = False) -> str:
    """Words centred between two slots: short, or long from 90 px on, hidden below 18 px; upright they need no more."""
    left, right = (frame.x(edge) for edge in edges)
    data = f'data-x="{edges[0]}" data-to="{edges[1]}" data-y="{y}" data-short="{words[0]}" data-long="{words[1]}"'
    data += ' data-turn="1"' if turn else ""
    where = f"translate({_n((left + right) / 2)} {y})" + (" rotate(-90)" if turn else "")
    shown = "visible" if right - left > _ROOM[0] else "hidden"
    style = f"fill:{ink};font-weight:600" + (";paint-order:stroke;stroke:#fff;stroke-width:4px" if turn else "")
    return (
        f'<text class="tag" {data} visibility="{shown}" transform="{where}" text-anchor="middle" style="{style}">'
        f"{words[right - left > _ROOM[1]]}</text>"
    )


def _line(x: Floats, y: Floats) -> str:
    """A polyline through the points that are numbers, broken where they are not."""
    parts: list[str] = []
    pen = "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if b != b:
            pen = "M"
            continue
        parts.append(f"{pen}{_n(a)} {_n(b)}")
        pen = "L"
    return "".join(parts)


def _geometry(frame: _Frame) -> dict[str, Any]:
    """Where the panels stand, and which ticks there are to choose from."""
    return {
        "wide": _WIDE,
        "left": _LEFT,
        "width": _WIDTH,
        "top": _TOP,
        "height": _HEIGHT,
        "bottom": _BOTTOM,
        "floor": _FLOOR,
        "tall": _TALL,
        "room": _ROOM,
        "total": frame.place.total,
        "most": float(frame.drawn.volume.max() or 1.0),
        "ln_top": math.log(frame.top),
        "ln_bottom": math.log(frame.bottom),
        "steps": lay.TIME_STEPS,
        "months": lay.MONTH_STEPS,
        "parts": lay.DECADE_PARTS,
        "most_marks": lay.MAX_MARKERS,
    }


def _facts(chart: Chart, frame: _Frame) -> dict[str, Any]:
    """What the script needs: geometry, and the columns of the read-out, one entry per candle."""
    d, last = frame.drawn, frame.drawn.last
    reasons = sorted(set(chart.blocked_by))
    up = sum(np.maximum.reduceat(chart.flags[name].astype(np.int64), d.first) << k for k, name in enumerate(FLAGS))
    return {
        **_geometry(frame),
        "ts": (chart.bars.ts_open[d.first] // 1_000_000).tolist(),
        "until": (chart.bars.close_ts[last] // 1_000_000).tolist(),
        "middle": d.middle.tolist(),
        **{name: _short(getattr(d, name)) for name in ("open", "high", "low", "close", "volume")},
        "periods": PERIODS,
        "colours": lay.EMA_COLOURS,
        "emas": [_short(frame.emas[:, k]) for k in range(len(PERIODS))],
        "state": chart.state[last].tolist(),
        "names": STATE_NAMES,
        "words": [lay.STATE_WORDS[name] for name in STATE_NAMES],
        "fills": [lay.STATE_COLOURS[name] for name in STATE_NAMES],
        "inks": [lay.STATE_INKS[name] for name in STATE_NAMES],
        "scores": {name: _short(chart.scores[name][last], 4) for name in SCORES},
        "flags": [lay.FLAG_LOOKS[name].label for name in FLAGS],
        "up": np.asarray(up).tolist(),
        "blocked": reasons,
        "why": [reasons.index(chart.blocked_by[i]) for i in last.tolist()],
    }


def _short(values: Floats | Sequence[float] | Iterable[float], digits: int = 7) -> list[float | None]:
    """Numbers with few digits; None for what is not known."""
    return [None if v != v else float(f"{v:.{digits}g}") for v in np.asarray(values).tolist()]
