"""Support and resistance levels by ATR-scaled pivots (engine.md 5), causal and evaluated on every bar.

Of the last 1000 closes: a pivot is the strict extreme of its 11-bar window and stands at least 2 ATR away from the
opposite extreme of that window (so it is known 5 bars later). Pivots sorted by price are joined while they lie within
0.5 ATR of the running mean of their cluster; clusters of 3 or more are levels of strength min(1, touches/6). The
highest and the lowest close of the window are levels of strength 1, unless a level at least that strong lies within 0.5
ATR. The 8 strongest stay (ties: nearer to price, then higher), sorted by price descending.

`step` adds one close and writes the levels of that bar; what it needs of earlier closes are the `LevelBuffers`, which
have a fixed size. `levels_over` does so for a whole series.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebook.kernels import inlined, kernel

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]
Ints = NDArray[np.int64]

#: Closes a level may come from.
WINDOW = 1000
#: Fewer closes than this: no levels.
MIN_CLOSES = 50
#: Levels kept per bar.
SLOTS = 8
#: Names of the codes in `LevelTable.source`.
SOURCES: tuple[str, ...] = ("", "swing", "range_high", "range_low")
_SWING, _HIGH, _LOW = 1, 2, 3

#: Columns of the levels that `step` writes.
PRICE, STRENGTH, TOUCHES, SOURCE, LEVEL_COLUMNS = 0, 1, 2, 3, 4

_SIDE = 5  # bars on each side of a pivot
_PROMINENCE = 2.0  # ATR
_JOIN = 0.5  # ATR
_MIN_TOUCHES = 3
_FULL_TOUCHES = 6.0

# Closes held before the oldest are dropped at once, and pivots a window can hold: of one kind they are 6 bars apart.
_ROOM = 2 * WINDOW
_MAX_PIVOTS = 2 * (WINDOW // (_SIDE + 1) + 2)
# Positions in `LevelBuffers.marks`: closes held, pivots held, first of each queue, end of each queue.
_HELD, _PIVOTS, _FIRST, _END = 0, 1, 2, 4


@dataclass(frozen=True, slots=True)
class Level:
    """One level: price, strength in [0, 1], pivots in it (0 for a range level), source and a stable short id."""

    price: float
    strength: float
    touches: int
    source: str
    id: str


@dataclass(frozen=True, slots=True, eq=False)
class LevelTable:
    """Levels of consecutive bars: arrays of shape (bars, 8), price descending, NaN (and 0) where there is none."""

    price: Floats
    strength: Floats
    touches: Codes
    source: Codes
    count: Codes


class LevelBuffers(NamedTuple):
    """What `step` keeps between bars, and its work space; about 80 kB, changed in place.

    Attributes:
        closes: closes so far (at most 2000), and of each the prominence of its pivot, 0 where there is none.
        queues: positions of falling maxima and of rising minima of the last 1000 closes.
        pivots: price and prominence of the pivots of the last 1000 closes, sorted by price.
        marks: how many of each are held.
        found: candidates of the newest bar.
    """

    closes: Floats
    queues: Ints
    pivots: Floats
    marks: Ints
    found: Floats

    def copy(self) -> LevelBuffers:
        """Independent buffers with the same content."""
        closes, queues, pivots, marks, found = self
        return LevelBuffers(closes.copy(), queues.copy(), pivots.copy(), marks.copy(), found.copy())


def blank_buffers() -> LevelBuffers:
    """Buffers before the first close."""
    return LevelBuffers(
        np.zeros((_ROOM, 2)),
        np.zeros((2, _ROOM), dtype=np.int64),
        np.zeros((_MAX_PIVOTS, 2)),
        np.zeros(6, dtype=np.int64),
        np.zeros((_MAX_PIVOTS + 2, LEVEL_COLUMNS)),
    )


def levels_over(close: Floats, atr: Floats, first: int = 0) -> LevelTable:
    """Levels at every bar from ``first`` on.

    Args:
        close: closes, oldest first; for exact levels at ``first`` it must hold the 999 closes before it (or all there
        are).
        atr: current ATR of every bar, same length; NaN or not positive: no levels at that bar.
        first: position of the first bar wanted; earlier closes are only looked back on.
    """
    n = len(close) - first
    table = LevelTable(
        np.full((n, SLOTS), np.nan),
        np.full((n, SLOTS), np.nan),
        np.zeros((n, SLOTS), dtype=np.int8),
        np.zeros((n, SLOTS), dtype=np.int8),
        np.zeros(n, dtype=np.int8),
    )
    closes, ranges = np.array(close, dtype=np.float64), np.array(atr, dtype=np.float64)  # writable: one compiled form
    columns = (table.price, table.strength, table.touches, table.source, table.count)
    _fill(closes, ranges, first, blank_buffers(), *columns)
    return table


def levels_at(table: LevelTable, index: int, symbol: str, timeframe: str) -> tuple[Level, ...]:
    """The levels of one bar as values, price descending; ids hash symbol, timeframe, source and the rounded price."""
    found = []
    for k in range(int(table.count[index])):
        price, source = float(table.price[index, k]), SOURCES[table.source[index, k]]
        digest = hashlib.sha256(f"{symbol}|{timeframe}|{source}|{price:.6g}".encode()).hexdigest()[:12]
        strength, touches = float(table.strength[index, k]), int(table.touches[index, k])
        found.append(Level(price, strength, touches, source, digest))
    return tuple(found)


@kernel
def anchor_strength(levels: Floats, count: int, anchor: float, atr: float) -> float:
    """S/R support of an anchor price: max of strength * (1 - distance/ATR) over levels within 1 ATR, else 0 (engine.md
    3.2).

    Args:
        levels: rows of price, strength and whatever follows; the first ``count`` are levels.

    Times the gate ``sr_boost`` this is the boost of TS: strength .5 at .25 ATR and gate .25 give .09375.

    >>> 0.25 * anchor_strength(np.array([[100.5, 0.5]]), 1, 100.0, 2.0)
    0.09375
    """
    best = 0.0
    if atr > 0.0:
        for k in range(count):
            reach = 1.0 - abs(levels[k, PRICE] - anchor) / atr
            if reach >= 0.0:
                best = max(best, levels[k, STRENGTH] * reach)
    return best


@inlined
def step(
    closes: Floats,
    queues: Ints,
    pivots: Floats,
    marks: Ints,
    found: Floats,
    close: float,
    atr: float,
    levels: Floats,
) -> int:
    """Add one close; write its levels, price descending, into the first rows of ``levels`` and return their number.

    Args:
        closes, queues, pivots, marks, found: the parts of `LevelBuffers`; move on by one close.
        atr: current ATR; NaN or not positive: no levels at this bar.
        levels: shape (8, 4): price, strength, touches, source; rows beyond the number returned are left as they were.
    """
    if marks[_HELD] == _ROOM:
        _drop_oldest(closes, queues, marks)
    t = marks[_HELD]
    closes[t, 0], closes[t, 1] = close, 0.0
    marks[_HELD] = t + 1
    start = max(0, t - WINDOW + 1)
    for side in range(2):
        _queue(closes, queues[side], marks, side, start)
    _renew_pivots(closes, pivots, marks, start)
    if t + 1 < MIN_CLOSES or not atr > 0.0:
        return 0
    top, bottom = closes[queues[0, marks[_FIRST]], 0], closes[queues[1, marks[_FIRST + 1]], 0]
    return _choose(found, _clusters(pivots, marks[_PIVOTS], atr, found), top, bottom, close, atr, levels)


@kernel
def _fill(
    close: Floats,
    atr: Floats,
    first: int,
    buffers: LevelBuffers,
    price: Floats,
    strength: Floats,
    touches: Codes,
    source: Codes,
    counts: Codes,
) -> None:
    closes, queues, pivots, marks, found = buffers
    levels = np.empty((SLOTS, LEVEL_COLUMNS))
    for t in range(len(close)):
        count = step(closes, queues, pivots, marks, found, close[t], atr[t], levels)
        if t >= first:
            counts[t - first] = count
            for k in range(count):
                price[t - first, k], strength[t - first, k] = levels[k, PRICE], levels[k, STRENGTH]
                touches[t - first, k], source[t - first, k] = min(127, levels[k, TOUCHES]), levels[k, SOURCE]


@inlined
def _queue(closes: Floats, queue: Ints, marks: Ints, side: int, start: int) -> None:
    """Add the newest close to the queue of falling maxima (``side`` 0) or rising minima (1); forget what is before
    ``start``."""
    t, first, end = marks[_HELD] - 1, marks[_FIRST + side], marks[_END + side]
    sign = 1.0 - 2.0 * side
    now = sign * closes[t, 0]
    while end > first and sign * closes[queue[end - 1], 0] <= now:
        end -= 1
    queue[end] = t
    marks[_END + side] = end + 1
    marks[_FIRST + side] = first + 1 if queue[first] < start else first


@inlined
def _renew_pivots(closes: Floats, pivots: Floats, marks: Ints, start: int) -> None:
    """Drop the pivot whose 11-bar window has just left the last 1000 closes, add the one that is just known."""
    t, gone = marks[_HELD] - 1, start + _SIDE - 1
    if start > 0 and closes[gone, 1] > 0.0:
        marks[_PIVOTS] = _remove(pivots, marks[_PIVOTS], closes[gone, 0], closes[gone, 1])
    if t >= 2 * _SIDE:
        prominence = _pivot(closes, t - _SIDE)
        if prominence > 0.0:
            closes[t - _SIDE, 1] = prominence
            marks[_PIVOTS] = _insert(pivots, marks[_PIVOTS], closes[t - _SIDE, 0], prominence)


@kernel
def _drop_oldest(closes: Floats, queues: Ints, marks: Ints) -> None:
    """Keep the last 1000 closes, moved to the front."""
    gone = marks[_HELD] - WINDOW
    for k in range(WINDOW):
        closes[k, 0], closes[k, 1] = closes[k + gone, 0], closes[k + gone, 1]
    marks[_HELD] = WINDOW
    for side in range(2):
        first, end = marks[_FIRST + side], marks[_END + side]
        for k in range(first, end):
            queues[side, k - first] = queues[side, k] - gone
        marks[_FIRST + side], marks[_END + side] = 0, end - first


@kernel
def _pivot(closes: Floats, i: int) -> float:
    """Distance of a strict extreme of the 11 closes around ``i`` to their opposite extreme; 0 if it is none."""
    here: float = closes[i, 0]
    above, below = 0, 0
    top: float = here
    bottom: float = here
    for k in range(i - _SIDE, i + _SIDE + 1):
        above += 1 if closes[k, 0] > here else 0
        below += 1 if closes[k, 0] < here else 0
        top = max(top, closes[k, 0])
        bottom = min(bottom, closes[k, 0])
    if below == 2 * _SIDE:
        return here - bottom
    if above == 2 * _SIDE:
        return top - here
    return 0.0


@kernel
def _insert(pivots: Floats, held: int, price: float, prominence: float) -> int:
    k = held
    while k > 0 and pivots[k - 1, 0] > price:
        pivots[k, 0], pivots[k, 1] = pivots[k - 1, 0], pivots[k - 1, 1]
        k -= 1
    pivots[k, 0], pivots[k, 1] = price, prominence
    return held + 1


@kernel
def _remove(pivots: Floats, held: int, price: float, prominence: float) -> int:
    k = 0
    while pivots[k, 0] != price or pivots[k, 1] != prominence:
        k += 1
    for j in range(k, held - 1):
        pivots[j, 0], pivots[j, 1] = pivots[j + 1, 0], pivots[j + 1, 1]
    return held - 1


@inlined
def _clusters(pivots: Floats, held: int, atr: float, found: Floats) -> int:
    """Sweep the sorted pivots into clusters and write those of 3 and more as candidates from row 1 on, price ascending;
    returns the row after the last.

    ``(x - join) * members <= total`` is ``x - mean <= join`` without a division.
    """
    least, join = _PROMINENCE * atr, _JOIN * atr
    end, total, members = 1, 0.0, 0
    for i in range(held):
        if pivots[i, 1] < least:
            continue
        x = pivots[i, 0]
        if members > 0 and (x - join) * members <= total:
            total += x
            members += 1
            continue
        if members >= _MIN_TOUCHES:
            _put(found, end, total / members, min(1.0, members / _FULL_TOUCHES), members, _SWING)
            end += 1
        total, members = x, 1
    if members >= _MIN_TOUCHES:
        _put(found, end, total / members, min(1.0, members / _FULL_TOUCHES), members, _SWING)
        end += 1
    return end


@kernel
def _put(found: Floats, at: int, price: float, strength: float, touches: int, source: int) -> None:
    found[at, PRICE], found[at, STRENGTH], found[at, TOUCHES], found[at, SOURCE] = price, strength, touches, source


@inlined
def _choose(found: Floats, end: int, top: float, bottom: float, now: float, atr: float, levels: Floats) -> int:
    """Of the candidates in rows 1 to ``end`` and the two ends of the range, the 8 best, price descending."""
    first, end = 1, _cut(found, 1, end, now)
    if not _is_taken(found, first, end, top, atr):
        _put(found, end, top, 1.0, 0, _HIGH)
        end = _cut(found, first, end + 1, now)
    if not _is_taken(found, first, end, bottom, atr):
        first = 0
        _put(found, first, bottom, 1.0, 0, _LOW)
        end = _cut(found, first, end, now)
    for k in range(end - first):
        for column in range(LEVEL_COLUMNS):
            levels[k, column] = found[end - 1 - k, column]
    return end - first


@kernel
def _is_taken(found: Floats, first: int, end: int, price: float, atr: float) -> bool:
    """Whether a level of full strength lies within half an ATR of ``price``."""
    taken = False
    for k in range(first, end):
        taken = taken or (found[k, STRENGTH] >= 1.0 and abs(found[k, PRICE] - price) <= _JOIN * atr)
    return taken


@kernel
def _cut(found: Floats, first: int, end: int, now: float) -> int:
    """Drop the weakest candidates (ties: the farther from ``now``, then the lower) until 8 are left; price stays
    ascending. Returns the row after the last."""
    while end - first > SLOTS:
        worst, least, far = first, found[first, STRENGTH], abs(found[first, PRICE] - now)
        for k in range(first + 1, end):
            held, away = found[k, STRENGTH], abs(found[k, PRICE] - now)
            if held < least or (held == least and away > far):
                worst, least, far = k, held, away
        end -= 1
        for k in range(worst, end):
            for column in range(LEVEL_COLUMNS):
                found[k, column] = found[k + 1, column]
    return end
