"""What both forms of a chart share: colours and names, where a bar stands, which candles are drawn, where ticks go.

The horizontal axis counts bars, because the engine does: its EMAs, ages and slopes know no clock. A bar is one slot
wide. Missing bars keep their true width up to a limit; a longer hole is cut to that limit, hatched and labelled, so
that it stays visible without pushing the bars aside. The vertical axis is logarithmic: equal distances are equal
returns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.timeframe import micros
from edgebook.runtime.chart.facts import FLAGS, SCORES, Chart, duration_text

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Above this many bars several are drawn as one candle.
MAX_CANDLES = 5_000
#: Markers stand on the bars while at most this many are in view; the lanes show every flag at any scale.
MAX_MARKERS = 250

STATE_COLOURS: dict[str, str] = {"S0": "#fbd5d5", "S1": "#fdebb8", "S2": "#cfe3fb", "S3": "#cdeed3", "S4": "#e6e8eb"}
STATE_INKS: dict[str, str] = {"S0": "#b42318", "S1": "#a15c07", "S2": "#1d5fb4", "S3": "#1d7a37", "S4": "#667085"}
STATE_WORDS: dict[str, str] = {
    "S0": "downtrend",
    "S1": "primer",
    "S2": "defensive",
    "S3": "full trend",
    "S4": "no state",
}
#: EMA colours, fastest first: warm for fast, cold for slow.
EMA_COLOURS: tuple[str, ...] = ("#f5a524", "#e2622b", "#2ba6d9", "#3f63d2", "#6b21a8")
EMA_WIDTHS: tuple[float, ...] = (1.0, 1.2, 1.4, 1.4, 2.0)
LEVEL_COLOUR = "#0f766e"
#: What a buy window of each state is near to.
WINDOW_WORDS: dict[str, str] = {"S1": "near EMA 60", "S2": "near EMA 333", "S3": "in the hallway"}

#: What a reader of either form has to be told about its signs.
EXPLANATION = (
    "Prices are logarithmic. Flags are those under the base gates: the lanes show every bar, a marker the first bar of "
    f"a run while at most {MAX_MARKERS} are in view. Boxes: a buy was near; full line: its flag came up, dotted: it "
    "did not. Levels: the darker, the stronger."
)


@dataclass(frozen=True, slots=True)
class Look:
    """How a flag is drawn: its words, its colour, its shape, and whether it stands above or below the bar."""

    label: str
    colour: str
    shape: str
    above: bool


FLAG_LOOKS: dict[str, Look] = dict(
    zip(
        FLAGS,
        (
            Look("S1 buy signal", "#15803d", "up", False),
            Look("S2 retest", "#2563eb", "up", False),
            Look("S3 DX buy", "#c026d3", "up", False),
            Look("first dip", "#0891b2", "diamond", False),
            Look("trim", "#ea7317", "down", True),
            Look("emergency exit", "#dc2626", "cross", True),
            Look("reclaim EMA333", "#16a34a", "ring", False),
            Look("exit", "#111827", "square", True),
        ),
        strict=True,
    )
)
#: Words, colour, and whether dashed, of each score line.
SCORE_LOOKS: dict[str, tuple[str, str, bool]] = dict(
    zip(
        SCORES,
        (
            ("TS with boost", "#2563eb", False),
            ("OX", "#ea7317", False),
            ("DX", "#c026d3", False),
            ("DX a buy needs", "#c026d3", True),
            ("EDX", "#475467", False),
        ),
        strict=True,
    )
)

_DAY = 86_400
_MONTH = 30 * _DAY
#: Seconds, and beyond them months, between time ticks to choose from.
TIME_STEPS: tuple[int, ...] = (
    *(60, 300, 900, 1800, 3600, 7200, 14400, 21600, 43200),
    *(_DAY * days for days in (1, 2, 4, 7, 14)),
)
MONTH_STEPS: tuple[int, ...] = (1, 2, 3, 6, 12, 24, 60)
#: Round prices within a decade, many to few.
DECADE_PARTS: tuple[tuple[float, ...], ...] = ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Where bars stand: ``left[i]`` is the left edge of bar ``i`` in slots, ``total`` the width of the picture.

    ``longest_true`` is the number of missing bars up to which a hole keeps its true width.
    """

    left: Ints
    total: int
    longest_true: int

    def holes(self, chart: Chart) -> Iterator[tuple[int, int, int]]:
        """(left edge, width, missing bars) of every hole in the span."""
        for i in np.flatnonzero(chart.gaps[1:]) + 1:
            width = min(int(chart.gaps[i]), self.longest_true)
            yield int(self.left[i]) - width, width, int(chart.gaps[i])


def slots(chart: Chart) -> Slots:
    """The place of every bar; a hole longer than a fortieth of the bars is cut to that (never below 6 slots)."""
    most = max(6, len(chart) // 40)
    widths = np.minimum(chart.gaps, most)
    widths[0] = 0
    left = np.arange(len(chart)) + np.cumsum(widths)
    return Slots(left, int(left[-1]) + 1, most)


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """What is drawn of each candle: positions ``first`` to ``last`` of its bars, prices, volume and its middle in
    slots."""

    first: Ints
    last: Ints
    middle: Floats
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    bars_each: int


def candles(chart: Chart, place: Slots) -> Candles:
    """One candle per bar, or of several bars each when there are more than `MAX_CANDLES`; none spans a hole."""
    bars, n = chart.bars, len(chart)
    each = math.ceil(n / MAX_CANDLES)
    first = np.flatnonzero((np.arange(n) % each == 0) | (chart.gaps > 0))
    first = np.union1d(first, [0])
    last = np.r_[first[1:], n] - 1
    return Candles(
        first,
        last,
        (place.left[first] + place.left[last] + 1) / 2,
        bars.open[first],
        np.maximum.reduceat(bars.high, first),
        np.minimum.reduceat(bars.low, first),
        bars.close[last],
        np.add.reduceat(bars.volume, first),
        each,
    )


def price_range(low: Floats, high: Floats, emas: Floats) -> tuple[float, float]:
    """Bottom and top of the price panel: all bars, and the EMAs as far as they do not dwarf the bars.

    EMAs may widen the range by six tenths of the bars' own (in logarithms) on each side, and a margin is added.
    """
    bottom, top = math.log(float(low.min())), math.log(float(high.max()))
    room = 0.6 * max(top - bottom, 0.01)
    bottom, top = (
        max(bottom - room, min(bottom, math.log(float(emas.min())))),
        min(top + room, max(top, math.log(float(emas.max())))),
    )
    margin = 0.06 * max(top - bottom, 0.01)
    return math.exp(bottom - margin), math.exp(top + margin)


def level_opacity(strength: float) -> float:
    """How dark a level of a strength in [0, 1] is drawn.

    >>> round(level_opacity(0.5), 4), round(level_opacity(1.0), 4)
    (0.3125, 0.8)
    """
    return 0.15 + 0.65 * strength * strength


def runs(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First and last position of every run of true values.

    >>> list(runs(np.array([True, True, False, True])))
    [(0, 1), (3, 3)]
    """
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return ((int(a), int(b) - 1) for a, b in edges.reshape(-1, 2))


def state_runs(chart: Chart) -> Iterator[tuple[int, int, int]]:
    """(state code, first, last) of every stay in a state."""
    starts = np.flatnonzero(np.r_[True, chart.state[1:] != chart.state[:-1]])
    for first, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(chart)], strict=True):
        yield int(chart.state[first]), first, stop - 1


def price_ticks(bottom: float, top: float, most: int = 9) -> list[float]:
    """Round prices between ``bottom`` and ``top``: even steps, or round parts of decades where the range is wide.

    >>> price_ticks(0.9, 1.6)
    [0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
    >>> price_ticks(0.8, 300, 5)
    [1.0, 10.0, 100.0]
    """
    if top / bottom < 3.0:
        raw = (top - bottom) / most
        unit = 10.0 ** math.floor(math.log10(raw))
        step = unit * next(m for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
        first, last = math.ceil(bottom / step - 1e-9), math.floor(top / step + 1e-9)
        return [float(f"{k * step:.12g}") for k in range(first, last + 1)]
    decades = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
    found: list[float] = []
    for parts in DECADE_PARTS:
        found = [float(f"{m}e{d}") for d in decades for m in parts if bottom <= m * 10.0**d <= top]
        if len(found) <= most:
            break
    return found[:: max(1, math.ceil(len(found) / most))]


def price_text(price: float) -> str:
    """A price to five significant digits, never in powers of ten.

    >>> price_text(43210.5), price_text(0.0000012345)
    ('43,210', '0.0000012345')
    """
    digits = 4 - math.floor(math.log10(price))
    return f"{price:,.{max(0, digits)}f}"


def tick_text(price: float) -> str:
    """A round price without needless zeros.

    >>> tick_text(1200.0), tick_text(0.05)
    ('1,200', '0.05')
    """
    text = price_text(price)
    return text.rstrip("0").rstrip(".") if "." in text else text


def time_ticks(ts_open: Ints, middle: Floats, total: int, most: int = 12) -> list[tuple[int, str]]:
    """(position of the bar, label) of up to ``most`` time ticks: the first bar at or after each round moment."""
    ts = ts_open // 1_000_000
    months = ts.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    buckets = [(step, ts // step) for step in TIME_STEPS] + [(_MONTH, months // count) for count in MONTH_STEPS]
    for step, bucket in buckets:
        at = np.flatnonzero(np.diff(bucket)) + 1
        if len(at) <= most:
            kept = _spread(at.tolist(), middle, total / most / 2) or [0]
            moments = [datetime.fromtimestamp(int(ts[i]), UTC) for i in kept]
            pairs = zip(moments, [None, *moments[:-1]], strict=True)
            return [(i, _tick_label(when, before, step)) for i, (when, before) in zip(kept, pairs, strict=True)]
    return []


def _spread(at: Sequence[int], x: Floats, least: float) -> list[int]:
    """Positions at least ``least`` slots apart, kept from the left."""
    kept: list[int] = []
    for i in at:
        if not kept or x[i] - x[kept[-1]] >= least:
            kept.append(i)
    return kept


def _tick_label(when: datetime, before: datetime | None, step: int) -> str:
    """The moment as far as the tick before does not say it already."""
    if step >= _MONTH:
        return f"{when:%b %Y}"
    year = "" if before is not None and before.year == when.year else f" {when.year}"
    day = f"{when.day} {when:%b}{year}"
    if step >= _DAY:
        return day
    if before is not None and before.date() == when.date():
        return f"{when:%H:%M}"
    return day if (when.hour, when.minute) == (0, 0) else f"{day} {when:%H:%M}"


def size_text(chart: Chart) -> str:
    """How many bars are drawn, and how many the engine had seen before them."""
    return f"{len(chart):,} bars · {chart.history:,} bars of history before them"


def hole_text(missing: int, timeframe: str) -> str:
    """What is written into a hole.

    >>> hole_text(7467, "1h")
    '7,467 bars missing · 311 d'
    """
    word = "bar" if missing == 1 else "bars"
    return f"{missing:,} {word} missing · {duration_text(missing * micros(timeframe))}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A marker on the first bar of a run of a flag: position of the bar, and its rank among those on the same side."""

    flag: str
    bar: int
    rank: int


def marks(chart: Chart) -> list[Mark]:
    """One marker per run of each flag; several on one side of a bar are ranked outwards."""
    taken: dict[tuple[int, bool], int] = {}
    found = []
    for name in FLAGS:
        for bar, _ in runs(chart.flags[name]):
            side = (bar, FLAG_LOOKS[name].above)
            found.append(Mark(name, bar, taken.get(side, 0)))
            taken[side] = taken.get(side, 0) + 1
    return found


def reading_notes(chart: Chart) -> Iterator[str]:
    """What a reader has to know about the way it is drawn, one sentence each."""
    place = slots(chart)
    each = candles(chart, place).bars_each
    if each > 1:
        yield (
            f"{len(chart):,} bars are too many to draw one by one: each candle stands for {each} bars and "
            "shows the scores of the last; states, windows, levels and flags stay exact to the bar."
        )
    longest = int(chart.gaps[1:].max(initial=0))
    if longest > place.longest_true:
        yield (
            f"The axis counts bars, as the engine does; holes of up to {place.longest_true} bars keep their width, "
            f"longer ones are cut to it and hatched (longest: {hole_text(longest, chart.bars.timeframe)})."
        )
