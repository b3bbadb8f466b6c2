"""Drawings of the report page as inline SVG: the account over time, and intervals on a common scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.runtime.report.text import number, percent

Json = Any
Floats = NDArray[np.float64]

_WIDE, _LEFT, _RIGHT = 1120, 74, 22
_PANELS = (("account, USD", 22, 250), ("drawdown", 300, 92), ("invested share", 420, 70))  # title, top, height
_FOOT = 512
_BAR = 190  # width of an interval's scale, px
_MAX_TICKS = 13


def account_chart(daily: Mapping[str, Json], start_usd: float) -> str:
    """Value of the account, its drawdown and its invested share, day by day."""
    ts = np.array([datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in daily["at"]])
    usd, invested = np.array(daily["equity_usd"]), np.array(daily["invested_usd"])
    x = _LEFT + (ts - ts[0]) / (ts[-1] - ts[0]) * (_WIDE - _LEFT - _RIGHT)
    below = usd / np.maximum.accumulate(usd) - 1.0
    share = np.divide(invested, usd, out=np.zeros_like(usd), where=usd > 0)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDE} {_FOOT + 16}" role="img" aria-label="account day by day">',
        *_calendar(ts, x),
        *_account(x, usd, start_usd),
        *_area(x, below, _PANELS[1], (min(float(below.min()), -0.01), 0.0), "fall"),
        *_area(x, share, _PANELS[2], (0.0, max(float(share.max()), 0.01)), "share"),
        "</svg>",
    ]
    return "".join(parts)


def _account(x: Floats, usd: Floats, start_usd: float) -> Iterator[str]:
    title, top, height = _PANELS[0]
    low, high = min(float(usd.min()), start_usd), max(float(usd.max()), start_usd)
    pad = 0.06 * max(high - low, 1e-4 * high)
    low, high = low - pad, high + pad
    yield _title(title, top)
    for tick in ticks(low, high, 5):
        yield _rule(top + (high - tick) / (high - low) * height, number(tick, 0))
    base = top + (high - start_usd) / (high - low) * height
    yield f'<line class="start" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{base:.1f}" y2="{base:.1f}"/>'
    yield f'<path class="line" d="{_path(x, top + (high - usd) / (high - low) * height)}"/>'


def _area(
    x: Floats, values: Floats, panel: tuple[str, int, int], span: tuple[float, float], name: str
) -> Iterator[str]:
    """A filled panel of shares of 1; the zero line is where the area begins."""
    title, top, height = panel
    low, high = span
    down = top + (high - values) / (high - low) * height
    zero = top + high / (high - low) * height
    yield _title(title, top)
    for tick in ticks(low, high, 3):
        yield _rule(top + (high - tick) / (high - low) * height, percent(tick, 0 if high - low > 0.04 else 1))
    yield f'<path class="{name}" d="{_path(x, down)}L{x[-1]:.1f} {zero:.1f}L{x[0]:.1f} {zero:.1f}z"/>'


def _title(text: str, top: int) -> str:
    return f'<text class="title" x="{_LEFT}" y="{top - 7}">{text}</text>'


def _rule(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="y" x="{_LEFT - 8}" y="{y + 3.5:.1f}">{label}</text>'


def _calendar(ts: Floats, x: Floats) -> Iterator[str]:
    """Rules at round dates, about a dozen of them; the first of January has the year."""
    bottom = _PANELS[-1][1] + _PANELS[-1][2]
    for moment in calendar(*(datetime.fromtimestamp(float(t), UTC) for t in (ts[0], ts[-1]))):
        at = float(np.interp(moment.timestamp(), ts, x))
        year = moment.month == moment.day == 1
        label = f"{moment:%Y}" if year else f"{moment:%b}" if moment.day == 1 else f"{moment.day} {moment:%b}"
        yield f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_PANELS[0][1]}" y2="{bottom}"/>'
        yield f'<text class="x{" year" if year else ""}" x="{at:.1f}" y="{_FOOT}">{label}</text>'


def calendar(first: datetime, last: datetime) -> list[datetime]:
    """Midnights (UTC) in ``[first, last]`` at round dates, at most fourteen: days, or months of a longer span.

    >>> [f"{day:%m-%d}" for day in calendar(datetime(2024, 1, 30, 9, tzinfo=UTC), datetime(2024, 2, 2, tzinfo=UTC))]
    ['01-31', '02-01', '02-02']
    >>> [f"{day:%y-%m}" for day in calendar(datetime(2021, 4, 4, tzinfo=UTC), datetime(2022, 6, 1, tzinfo=UTC))]
    ['21-05', '21-07', '21-09', '21-11', '22-01', '22-03', '22-05']
    """
    days = (last - first) / timedelta(days=1)
    midnight = datetime(first.year, first.month, first.day, tzinfo=UTC)
    if days < 60:
        every = next(n for n in (1, 2, 5) if days / n <= _MAX_TICKS)
        found = [midnight + timedelta(days=n) for n in range(int(days) + 2) if n % every == 0]
    else:
        every = next((n for n in (1, 2, 3, 6) if days / 30.4 / n <= _MAX_TICKS), 12)
        months = range(first.year * 12, last.year * 12 + 12, every)
        found = [datetime(n // 12, n % 12 + 1, 1, tzinfo=UTC) for n in months]
    return [moment for moment in found if first <= moment <= last]


def _path(x: Floats, y: Floats) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in ``[low, high]``, at most ``most + 1`` of them: steps of 1, 2 or 5 times a power of ten.

    None where the span is nothing or no number.

    >>> ticks(96_000.0, 104_500.0, 5)
    [96000.0, 98000.0, 100000.0, 102000.0, 104000.0]
    """
    rough = high / most - low / most
    if not 1e-300 < rough < math.inf:
        return []
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def interval_scale(rows: Sequence[Mapping[str, Json]]) -> tuple[float, float]:
    """A scale for the intervals of several rows: zero is on it, and the widest few may run over its ends."""
    ends = [end for row in rows if row["rr_ci90"] for end in row["rr_ci90"]]
    if not ends:
        return -1.0, 1.0
    low, high = np.quantile(ends, [0.03, 0.97]).tolist()
    low, high = min(low, -0.05), max(high, 0.05)
    pad = 0.08 * (high - low)
    return low - pad, high + pad


def interval_axis(scale: tuple[float, float]) -> str:
    """The numbers over a column of `interval_bar`."""
    found = ticks(*scale, 6)
    digits = 0 if all(tick == round(tick) for tick in found) else 1 if scale[1] - scale[0] > 0.5 else 2
    marks = (
        f'<text x="{_along(tick, scale):.1f}" y="11">{number(tick, digits, signed=True)}</text>'
        f'<line class="zero" x1="{_along(tick, scale):.1f}" x2="{_along(tick, scale):.1f}" y1="15" y2="19"/>'
        for tick in found
    )
    return f'<svg class="bar" viewBox="-4 0 {_BAR + 8} 20" aria-hidden="true">{"".join(marks)}</svg>'


def interval_bar(row: Mapping[str, Json], scale: tuple[float, float]) -> str:
    """One row's mean and interval against the zero line; an interval that runs over the scale ends in an arrow."""
    zero = _along(0.0, scale)
    parts = [f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="20"/>']
    if row["rr_ci90"]:
        kind = {"above zero": "above", "below zero": "below"}.get(row["verdict"], "untold")
        first, last = (_along(end, scale) for end in row["rr_ci90"])
        parts.append(f'<line class="{kind}" x1="{first:.1f}" x2="{last:.1f}" y1="10" y2="10"/>')
        for end, sign in zip(row["rr_ci90"], (-1, 1), strict=True):
            over = not scale[0] <= end <= scale[1]
            tip = f"m{-5 * sign} -4l{5 * sign} 4l{-5 * sign} 4" if over else "m0 -4v8"
            parts.append(f'<path class="{kind}" d="M{_along(end, scale):.1f} 10{tip}"/>')
        parts.append(f'<circle class="{kind}" cx="{_along(row["mean_rr"], scale):.1f}" cy="10" r="3.4"/>')
    elif row["mean_rr"] is not None:
        parts.append(f'<circle class="none" cx="{_along(row["mean_rr"], scale):.1f}" cy="10" r="3"/>')
    return f'<svg class="bar" viewBox="-4 0 {_BAR + 8} 20" aria-hidden="true">{"".join(parts)}</svg>'


def _along(value: float, scale: tuple[float, float]) -> float:
    """Where a value stands along a bar, in px; values off the scale stand at its ends."""
    low, high = scale
    return (min(max(value, low), high) - low) / (high - low) * _BAR
