"""Support and resistance levels by ATR-scaled pivots (engine.md 5), causal and evaluated on every bar.

Of the last 1000 closes: a pivot is the strict extreme of its 11-bar window and stands at least 2 ATR away from the
opposite extreme of that window (so it is known 5 bars later). Pivots sorted by price are joined while they lie within
0.5 ATR of the running mean of their cluster; clusters of 3 or more are levels of strength min(1, touches/6). The
highest and the lowest close of the window are levels of strength 1, unless a level at least that strong lies within 0.5
ATR. The 8 strongest stay (ties: nearer to price, then higher), sorted by price descending.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]

#: Closes a level may come from.
WINDOW = 1000
#: Fewer closes than this: no levels.
MIN_CLOSES = 50
#: Levels kept per bar.
SLOTS = 8
#: Names of the codes in `LevelTable.source`.
SOURCES: tuple[str, ...] = ("", "swing", "range_high", "range_low")

_SIDE = 5  # bars on each side of a pivot
_PROMINENCE = 2.0  # ATR
_JOIN = 0.5  # ATR
_MIN_TOUCHES = 3
_FULL_TOUCHES = 6.0


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
    _fill(closes, ranges, first, table.price, table.strength, table.touches, table.source)
    np.sum(table.source > 0, axis=1, out=table.count, dtype=np.int8)
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


@njit(cache=True, nogil=True)
def anchor_strength(price: Floats, strength: Floats, anchor: float, atr: float) -> float:
    """S/R support of an anchor price: max of strength * (1 - distance/ATR) over levels within 1 ATR, else 0 (engine.md
    3.2).

    Times the gate ``sr_boost`` this is the boost of TS; strength .5 at .25 ATR and gate .25 give .09375.
    """
    best = 0.0
    if atr > 0.0:
        for k in range(SLOTS):
            reach = 1.0 - abs(price[k] - anchor) / atr
            if reach >= 0.0:
                best = max(best, strength[k] * reach)
    return best


@njit(cache=True, nogil=True)
def _fill(
    close: Floats, atr: Floats, first: int, price: Floats, strength: Floats, touches: Codes, source: Codes
) -> None:
    """Walk the closes once, keeping the pivots of the window sorted by price and its extremes in two queues."""
    n = len(close)
    prominence = np.zeros(n)  # of the pivot at each bar, 0: no pivot
    pivots = np.empty((n // 3 + 2, 2))  # price, prominence; sorted by price
    held = 0
    highs, lows = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    h0, h1, l0, l1 = 0, 0, 0, 0
    for t in range(n):
        start = max(0, t - WINDOW + 1)
        while h1 > h0 and close[highs[h1 - 1]] <= close[t]:
            h1 -= 1
        highs[h1] = t
        h1 += 1
        while l1 > l0 and close[lows[l1 - 1]] >= close[t]:
            l1 -= 1
        lows[l1] = t
        l1 += 1
        h0 += 1 if highs[h0] < start else 0
        l0 += 1 if lows[l0] < start else 0
        gone = start + _SIDE - 1  # its 11-bar window has just left the last 1000 closes
        if start > 0 and prominence[gone] > 0.0:
            held = _remove(pivots, held, close[gone], prominence[gone])
        if t >= 2 * _SIDE:
            prominence[t - _SIDE] = _pivot(close, t - _SIDE)
            if prominence[t - _SIDE] > 0.0:
                held = _insert(pivots, held, close[t - _SIDE], prominence[t - _SIDE])
        if t >= first and t + 1 >= MIN_CLOSES and atr[t] > 0.0:
            k = t - first
            _cluster(pivots, held, close[t], atr[t], price[k], strength[k], touches[k], source[k])
            for end in range(2):
                extreme = close[highs[h0]] if end == 0 else close[lows[l0]]
                _add_range(extreme, end, close[t], atr[t], price[k], strength[k], touches[k], source[k])
            _sort_by_price(price[k], strength[k], touches[k], source[k])


@njit(cache=True, nogil=True)
def _pivot(close: Floats, i: int) -> float:
    """Distance of a strict extreme of the 11 closes around ``i`` to their opposite extreme; 0 if it is none."""
    here: float = close[i]
    above, below = 0, 0
    top: float = here
    bottom: float = here
    for k in range(i - _SIDE, i + _SIDE + 1):
        above += 1 if close[k] > here else 0
        below += 1 if close[k] < here else 0
        top = max(top, close[k])
        bottom = min(bottom, close[k])
    if below == 2 * _SIDE:
        return here - bottom
    if above == 2 * _SIDE:
        return top - here
    return 0.0


@njit(cache=True, nogil=True)
def _insert(pivots: Floats, held: int, price: float, prominence: float) -> int:
    k = held
    while k > 0 and pivots[k - 1, 0] > price:
        pivots[k, 0] = pivots[k - 1, 0]
        pivots[k, 1] = pivots[k - 1, 1]
        k -= 1
    pivots[k, 0] = price
    pivots[k, 1] = prominence
    return held + 1


@njit(cache=True, nogil=True)
def _remove(pivots: Floats, held: int, price: float, prominence: float) -> int:
    k = 0
    while pivots[k, 0] != price or pivots[k, 1] != prominence:
        k += 1
    for j in range(k, held - 1):
        pivots[j, 0] = pivots[j + 1, 0]
        pivots[j, 1] = pivots[j + 1, 1]
    return held - 1


@njit(cache=True, nogil=True)
def _cluster(
    pivots: Floats,
    held: int,
    now: float,
    atr: float,
    price: Floats,
    strength: Floats,
    touches: Codes,
    source: Codes,
) -> None:
    """Sweep the sorted pivots into clusters; ``(x - join) * k <= sum`` is ``x - mean <= join`` without a division."""
    total, members = 0.0, 0
    for i in range(held + 1):
        if i < held and pivots[i, 1] < _PROMINENCE * atr:
            continue
        if i < held and members > 0 and (pivots[i, 0] - _JOIN * atr) * members <= total:
            total += pivots[i, 0]
            members += 1
            continue
        if members >= _MIN_TOUCHES:
            weight = min(1.0, members / _FULL_TOUCHES)
            _offer(total / members, weight, members, now, price, strength, touches, source)
        if i < held:
            total, members = pivots[i, 0], 1


@njit(cache=True, nogil=True)
def _add_range(
    level: float,
    end: int,
    now: float,
    atr: float,
    price: Floats,
    strength: Floats,
    touches: Codes,
    source: Codes,
) -> None:
    """Offer the top (``end`` 0) or bottom (1) of the window unless a level of full strength lies within half an ATR."""
    for k in range(SLOTS):
        if source[k] > 0 and strength[k] >= 1.0 and abs(price[k] - level) <= _JOIN * atr:
            return
    _offer(level, 1.0, -end, now, price, strength, touches, source)


@njit(cache=True, nogil=True)
def _offer(
    level: float,
    weight: float,
    members: int,
    now: float,
    price: Floats,
    strength: Floats,
    touches: Codes,
    source: Codes,
) -> None:
    """Keep the 8 best by (strength, nearness, price); slots stay sorted best first.

    ``members`` is the number of touches of a swing level, 0 for the top of the range and -1 for its bottom.
    """
    code = 1 if members > 0 else 2 - members
    k = SLOTS
    while k > 0:
        if source[k - 1] > 0:
            near, far = abs(price[k - 1] - now), abs(level - now)
            held = strength[k - 1]
            if held > weight or (held == weight and (near < far or (near == far and price[k - 1] > level))):
                break
        k -= 1
    if k == SLOTS:
        return
    for j in range(SLOTS - 1, k, -1):
        price[j], strength[j], touches[j], source[j] = price[j - 1], strength[j - 1], touches[j - 1], source[j - 1]
    price[k], strength[k], touches[k], source[k] = level, weight, max(0, min(members, 127)), code


@njit(cache=True, nogil=True)
def _sort_by_price(price: Floats, strength: Floats, touches: Codes, source: Codes) -> None:
    for i in range(1, SLOTS):
        p, s, m, c = price[i], strength[i], touches[i], source[i]
        if c == 0:
            return
        k = i
        while k > 0 and price[k - 1] < p:
            price[k], strength[k], touches[k], source[k] = price[k - 1], strength[k - 1], touches[k - 1], source[k - 1]
            k -= 1
        price[k], strength[k], touches[k], source[k] = p, s, m, c
