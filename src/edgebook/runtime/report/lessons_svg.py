"""Drawings of the lessons page as inline SVG: effects on a common scale, gates in their bounds, an edge over days."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgebook.runtime.report.svg import ticks
from edgebook.runtime.report.text import number

Json = Any
Scale = tuple[float, float]

_BAR, _TOTAL = 242, 124  # widths of a forest plot and of a total, px
_WIDE, _LEFT, _RIGHT = 620, 50, 64
_MEAN, _EDGE = (22, 132), (182, 52)  # top and height of the panels
_FOOT = 252
_FAR = 1e15  # ends of the widest scale, R


def scale_of(ends: Iterable[float], points: Iterable[float] = (), least: float = 0.05) -> Scale:
    """A scale with zero and all ``points`` on it, on which the widest few of ``ends`` may run over.

    Beyond a thousand million million R everything runs over; what is no number is left out.

    >>> scale_of([], least=0.5)
    (-0.54, 0.54)
    >>> scale_of([float("nan")], [1e200], least=0.5)[1] < 1.1e15
    True
    """
    found, points = _drawable(ends), _drawable(points)
    low, high = np.quantile(found, [0.03, 0.97]).tolist() if found else (0.0, 0.0)
    low, high = min(low, -least, *points), max(high, least, *points)
    pad = 0.04 * (high - low)
    return low - pad, high + pad


def _drawable(values: Iterable[float]) -> list[float]:
    return [min(max(value, -_FAR), _FAR) for value in values if not math.isnan(value)]


def colour(value: float | None) -> str:
    """Class of an effect's colour: ``up``, ``down`` or ``none``.

    >>> colour(0.1), colour(-0.1), colour(None)
    ('up', 'down', 'none')
    """
    return "none" if not value or math.isnan(value) else "up" if value > 0 else "down"


def axis(scale: Scale, total: bool = False) -> str:
    """The numbers over a column of `forest` or `waterfall`."""
    width = _TOTAL if total else _BAR
    found = ticks(*scale, 3 if total else 5)
    digits = 0 if all(tick == round(tick) for tick in found) else 1 if scale[1] - scale[0] > 0.5 else 2
    marks = (
        f'<text x="{_along(tick, scale, width):.1f}" y="13">{number(tick, digits, signed=True)}</text>'
        f'<line class="tick" x1="{_along(tick, scale, width):.1f}" x2="{_along(tick, scale, width):.1f}" y1="17" '
        'y2="21"/>'
        for tick in found
    )
    return _bar(marks, width, "R per trade")


def forest(
    effect: float | None, interval: Sequence[float] | None, scale: Scale, *, sure: bool = False, kind: str = ""
) -> str:
    """An effect with its 90 % interval against zero: filled where it is a finding, else hollow; arrows run off."""
    return _bar(_forest(effect, interval, scale, sure, kind or colour(effect)), _BAR)


def wide(effect: float | None, interval: Sequence[float] | None, scale: Scale, kind: str) -> str:
    """`forest` in a box of any width, the dot filled."""
    return _bar(_forest(effect, interval, scale, True, kind), _BAR, name="bar wide")


def _forest(
    effect: float | None, interval: Sequence[float] | None, scale: Scale, sure: bool, kind: str
) -> Iterator[str]:
    yield _zero(scale, _BAR)
    if effect is None or math.isnan(effect):
        return
    if interval is not None and not any(map(math.isnan, interval)):
        first, last = (_along(end, scale, _BAR) for end in interval)
        yield f'<line class="ci s-{kind}" x1="{first:.1f}" x2="{last:.1f}" y1="11" y2="11"/>'
        for end, at, sign in ((interval[0], first, -1), (interval[1], last, 1)):
            off = not scale[0] <= end <= scale[1]
            tip = f"m{-5 * sign} -4l{5 * sign} 4l{-5 * sign} 4" if off else "m0 -4v8"
            yield f'<path class="ci s-{kind}" d="M{at:.1f} 11{tip}"/>'
    dot = f"f-{kind}" if sure else f"hollow s-{kind}"
    yield f'<circle class="{dot}" cx="{_along(effect, scale, _BAR):.1f}" cy="11" r="4"/>'


def waterfall(inherited: float, total: float, scale: Scale) -> str:
    """What the parents say (grey, from zero), and what the lesson adds to reach its total."""
    if math.isnan(inherited) or math.isnan(total):
        return _bar([_zero(scale, _TOTAL)], _TOTAL)
    start, end = _along(inherited, scale, _TOTAL), _along(total, scale, _TOTAL)
    zero, kind = _along(0.0, scale, _TOTAL), colour(total - inherited)
    parts = (
        f'<line class="from" x1="{zero:.1f}" x2="{start:.1f}" y1="11" y2="11"/>',
        f'<line class="thick s-{kind}" x1="{start:.1f}" x2="{end:.1f}" y1="11" y2="11"/>',
        f'<line class="base" x1="{end:.1f}" x2="{end:.1f}" y1="5" y2="17"/>',
        _zero(scale, _TOTAL),
    )
    return _bar(parts, _TOTAL)


def gate(lever: Mapping[str, Json]) -> str:
    """A gate between its bounds: the mark is its base, the dot its target."""
    scale = (lever["lo"], lever["hi"])
    base, target = (_along(lever[name], scale, _BAR) for name in ("base", "target"))
    parts = (
        f'<line class="rail" x1="0" x2="{_BAR}" y1="11" y2="11"/>',
        f'<line class="ci s-blue" x1="{base:.1f}" x2="{target:.1f}" y1="11" y2="11"/>',
        f'<line class="base" x1="{base:.1f}" x2="{base:.1f}" y1="5" y2="17"/>',
        f'<circle class="f-blue" cx="{target:.1f}" cy="11" r="4"/>',
    )
    return _bar(parts, _BAR)


def _bar(parts: Iterable[str], width: int, label: str = "", name: str = "bar") -> str:
    told = f'role="img" aria-label="{label}"' if label else 'aria-hidden="true"'
    return f'<svg class="{name}" viewBox="-4 0 {width + 8} 22" {told}>{"".join(parts)}</svg>'


def _zero(scale: Scale, width: int) -> str:
    at = _along(0.0, scale, width)
    return f'<line class="zero" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="22"/>'


def _along(value: float, scale: Scale, width: int) -> float:
    low, high = scale
    return (min(max(value, low), high) - low) / (high - low) * width


# ------------------------------------------------------------------ an edge over days


def history_chart(found: Mapping[str, Json]) -> str:
    """Cumulative mean rr with its 90 % interval, and below it edge_raw, day by day."""
    days, mean, half = found["day"], found["mean"], found["half"]
    stamps = np.array([np.datetime64(day, "D").astype(np.int64) for day in days], dtype=float)
    span = max(1.0, float(stamps[-1] - stamps[0]))
    x = [_LEFT + float(s - stamps[0]) / span * (_WIDE - _LEFT - _RIGHT) for s in stamps]
    if len(days) == 1:
        x = [float(_WIDE - _RIGHT)]
    known = [
        (at, m - h, m + h) for at, m, h in zip(x, mean, half, strict=True) if h is not None and math.isfinite(m + h)
    ]
    ends = [*mean, *(low for _, low, _ in known[len(known) // 5 :]), *(high for *_, high in known[len(known) // 5 :])]
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDE} {_FOOT}" role="img" aria-label="edge day by day">',
        *_panel("mean rr so far, R, with 90 % interval", _MEAN, _room(ends)),
        *_band(known, _MEAN, _room(ends)),
        *_line(x, mean, "line", _MEAN, _room(ends)),
        *_panel("edge_raw", _EDGE, _room(found["edge_raw"])),
        *_line(x, found["edge_raw"], "edge", _EDGE, _room(found["edge_raw"])),
        f'<text x="{_LEFT}" y="{_FOOT - 4}">{days[0]}</text>' if len(days) > 1 else "",
        f'<text class="y" x="{_WIDE - _RIGHT}" y="{_FOOT - 4}">{days[-1]}, n {found["n"][-1]:,}</text>',
        "</svg>",
    ]
    return "".join(parts)


def _room(values: Sequence[float]) -> Scale:
    """A scale with zero on it and some room; early days of few trades may run over."""
    found = [0.0, *_drawable(values)]
    low, high = min(found), max(found)
    pad = 0.08 * (high - low) or 0.01
    return low - pad, high + pad


def _down(value: float, panel: tuple[int, int], scale: Scale) -> float:
    top, height = panel
    return top + (scale[1] - min(max(value, scale[0]), scale[1])) / (scale[1] - scale[0]) * height


def _panel(title: str, panel: tuple[int, int], scale: Scale) -> Iterator[str]:
    yield f'<text class="title" x="{_LEFT}" y="{panel[0] - 8}">{title}</text>'
    found = ticks(*scale, 4 if panel[1] > 90 else 2)
    step = found[1] - found[0] if len(found) > 1 else 1.0
    digits = next((n for n in range(6) if abs(step * 10**n - round(step * 10**n)) < 1e-6), 6)
    for tick in found:
        y, kind = _down(tick, panel, scale), "null" if abs(tick) < step / 1e6 else "grid"
        yield f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="y" x="{_LEFT - 7}" y="{y + 4:.1f}">{number(tick, digits, signed=True)}</text>'


def _line(
    x: Sequence[float], values: Sequence[float], name: str, panel: tuple[int, int], scale: Scale
) -> Iterator[str]:
    told = [(at, value) for at, value in zip(x, values, strict=True) if not math.isnan(value)]
    if not told:
        return
    x, values = zip(*told, strict=True)
    y = [_down(value, panel, scale) for value in values]
    yield f'<path class="{name}" d="{_path(x, y)}"/>'
    kind = "f-blue" if name == "line" else "f-untold"
    yield f'<circle class="{kind}" cx="{x[-1]:.1f}" cy="{y[-1]:.1f}" r="3"/>'
    yield f'<text class="last" x="{x[-1] + 7:.1f}" y="{y[-1] + 4:.1f}">{number(values[-1], 3, signed=True)}</text>'


def _band(known: Sequence[tuple[float, float, float]], panel: tuple[int, int], scale: Scale) -> Iterator[str]:
    if len(known) < 2:
        return
    x = [at for at, *_ in known]
    above = _path(x, [_down(high, panel, scale) for *_, high in known])
    below = _path(x[::-1], [_down(low, panel, scale) for _, low, _ in known][::-1])
    yield f'<path class="band" d="{above}L{below[1:]}z"/>'


def _path(x: Sequence[float], y: Sequence[float]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
