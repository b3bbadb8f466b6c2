"""Indicators of closed bars (engine.md 1), computed in one forward pass that can stop and go on anywhere.

`advance` fills one row of `COLUMNS` per bar from the bar itself, the 20 rows before it and a few running sums. Those
are all of `IndicatorMemory`, so a series cut into chunks gives the same numbers as the whole. A value is NaN until
enough bars exist; the reference's back-filling of early bars would look ahead and is not done.

Formulas: EMA alpha 2/(n+1), seed = first close. ATR and ADX: Wilder, period 14, sums seeded with the mean of the first
14 values, ADX seeded with its first DX. RSI: simple means of the last 14 changes. Slopes: least squares over 10 bars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.errors import MarketDataError
from edgebook.kernels import inlined, kernel
from edgebook.market.bars import BarSeries

Floats = NDArray[np.float64]

#: Column names of an indicator row; the constants below are their positions.
COLUMNS: tuple[str, ...] = (
    *("open", "high", "low", "close", "volume", "atr", "atr_mean_20"),
    *("ema20", "ema30", "ema60", "ema144", "ema250", "ema333"),
    *("ema20_slope", "ema60_slope", "ema144_slope", "ema250_slope", "ema333_slope"),
    *("d_ema144_slope", "d_ema250_slope", "d_ema333_slope"),
    *("rsi", "rsi_slope_10", "adx", "adx_slope_10", "vo_z", "dsep_fast_5", "dsep_mid_5"),
)
OPEN, HIGH, LOW, CLOSE, VOLUME, ATR, ATR_MEAN = 0, 1, 2, 3, 4, 5, 6
EMA20, EMA30, EMA60, EMA144, EMA250, EMA333 = 7, 8, 9, 10, 11, 12
SLOPE20, SLOPE60, SLOPE144, SLOPE250, SLOPE333 = 13, 14, 15, 16, 17
D_SLOPE144, D_SLOPE250, D_SLOPE333 = 18, 19, 20
RSI, RSI_SLOPE, ADX, ADX_SLOPE, VO_Z, DSEP_FAST, DSEP_MID = 21, 22, 23, 24, 25, 26, 27

#: Rows of history a new row may look back on.
HISTORY = 20
_PERIODS = (20, 30, 60, 144, 250, 333)
_WILDER = 14
_TIE = 1e-9  # of the price: moves up and down that differ by less are equal (ADX)
_VOLUME_ALPHA = 2.0 / 65.0
# Positions in the running sums: smoothed true range, +DM, -DM, ADX, volume mean, volume variance, volume seen.
_TR, _PLUS, _MINUS, _ADX, _V_MEAN, _V_VAR, _V_SEEN = 0, 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True, eq=False)
class IndicatorMemory:
    """All that later bars need of earlier ones: the last 20 rows, the running sums, and how many bars were seen."""

    rows: Floats
    sums: Floats
    count: int


def blank_memory() -> IndicatorMemory:
    """The memory before the first bar."""
    return IndicatorMemory(np.full((HISTORY, len(COLUMNS)), np.nan), np.zeros(7), 0)


def advance(memory: IndicatorMemory | None, bars: BarSeries, width: int = 0) -> tuple[Floats, IndicatorMemory]:
    """Indicator rows of ``bars``, continuing from ``memory`` (None: these are the first bars).

    Args:
        width: columns to allocate if more than `COLUMNS` has; a caller may use the rest, which is left uninitialised.

    Returns:
        An array of ``20 + len(bars)`` rows and one column per name in `COLUMNS` (the first 20 rows are the history the
        new rows look back on; ``rows[20:]`` belongs to ``bars``), and the memory after the last bar.
    """
    memory = memory or blank_memory()
    rows, sums = rows_of(memory, bars, width), memory.sums.copy()
    _fill_all(rows, sums, memory.count)
    return rows, memory_after(rows, sums, memory.count + len(bars))


def rows_of(memory: IndicatorMemory, bars: BarSeries, width: int = 0) -> Floats:
    """Rows for ``bars`` with their prices and volume filled in, behind the 20 rows of history; the rest is not set."""
    own = len(COLUMNS)
    rows = np.empty((HISTORY + len(bars), max(width, own)))
    rows[:HISTORY, :own] = memory.rows
    for column, values in enumerate((bars.open, bars.high, bars.low, bars.close, bars.volume)):
        rows[HISTORY:, column] = values
    return rows


def memory_after(rows: Floats, sums: Floats, count: int) -> IndicatorMemory:
    """The memory after the last of ``rows``, of which ``count`` bars have been seen."""
    return IndicatorMemory(rows[-HISTORY:, : len(COLUMNS)].copy(), sums, count)


def indicators(bars: BarSeries) -> dict[str, Floats]:
    """Every indicator of a whole series by name (engine.md 1); units: prices, fractions per bar, points per bar.

    >>> hours = np.arange(3, dtype=np.int64) * 3_600_000_000
    >>> flat = np.array([10.0, 10.0, 10.0])
    >>> table = indicators(BarSeries("X", "1h", hours, flat, flat, flat, flat, flat))
    >>> table["ema20"].tolist(), table["rsi"].tolist()
    ([10.0, 10.0, 10.0], [50.0, 50.0, 50.0])
    """
    rows, _ = advance(None, bars)
    return {name: rows[HISTORY:, i].copy() for i, name in enumerate(COLUMNS)}


def ema(values: Floats, period: int) -> Floats:
    """Exponential mean, alpha = 2/(period+1), seeded with the first value (engine.md 1).

    >>> ema(np.array([1.0, 2.0, 3.0]), 3).tolist()
    [1.0, 1.5, 2.25]
    """
    if period < 1:
        raise MarketDataError(f"ema period was {period}; it must be at least 1", stage="market")
    return np.asarray(_ema(np.ascontiguousarray(values, dtype=np.float64), 2.0 / (period + 1.0)))


def ols_slope(values: Floats) -> float:
    """Least-squares slope per step over all of ``values``, x = 0..n-1; 0 for fewer than 3 points (engine.md 1).

    >>> ols_slope(np.array([1.0, 2.0, 4.0]))
    1.5
    """
    n = len(values)
    if n < 3:
        return 0.0
    x = np.arange(n) - (n - 1) / 2.0
    return float(np.dot(x, values) / np.dot(x, x))


def avwap(close: Floats, volume: Floats) -> Floats:
    """Volume-weighted mean price from the first bar on; a bar without volume repeats it (first bar: its price).

    >>> avwap(np.array([10.0, 20.0, 99.0]), np.array([1.0, 1.0, 0.0])).tolist()
    [10.0, 15.0, 15.0]
    """
    volume_sum = np.cumsum(volume)
    empty = volume_sum <= 0
    return np.where(empty, close[:1], np.cumsum(close * volume) / np.where(empty, 1.0, volume_sum))


@kernel
def _ema(values: Floats, alpha: float) -> Floats:
    out = np.empty_like(values)
    for i in range(len(values)):
        out[i] = values[i] if i == 0 else out[i - 1] + alpha * (values[i] - out[i - 1])
    return out


@kernel
def slope10(rows: Floats, i: int, column: int) -> float:
    """Least-squares slope per bar of the last 10 values of ``column`` at row ``i``; exactly 0 for equal values."""
    total = 0.0
    for k in range(5):
        total += (4.5 - k) * (rows[i - k, column] - rows[i - 9 + k, column])
    return total / 82.5


@kernel
def _fill_all(rows: Floats, sums: Floats, count: int) -> None:
    for i in range(HISTORY, rows.shape[0]):
        fill(rows, i, count + i - HISTORY, sums)


@inlined
def fill(rows: Floats, i: int, seen: int, sums: Floats) -> None:
    """Every indicator of row ``i``, whose prices are there, from the 20 rows before it.

    Args:
        seen: bars before it.
        sums: running sums; move on by one bar.
    """
    _fill_means(rows, i, seen)
    _fill_range(rows, i, seen, sums)
    _fill_rsi(rows, i, seen)
    _fill_volume(rows, i, sums)
    for k in range(2):
        rows[i, RSI_SLOPE + 2 * k] = slope10(rows, i, RSI + 2 * k)


@inlined
def _fill_means(rows: Floats, i: int, seen: int) -> None:
    """EMAs, their slopes and separations."""
    close = rows[i, CLOSE]
    for k in range(6):
        alpha = 2.0 / (_PERIODS[k] + 1.0)
        before = rows[i - 1, EMA20 + k]
        rows[i, EMA20 + k] = close if seen == 0 else before + alpha * (close - before)
    for k in range(5):
        mean = EMA20 if k == 0 else EMA30 + k
        rows[i, SLOPE20 + k] = slope10(rows, i, mean) / rows[i, mean]
    for k in range(3):
        rows[i, D_SLOPE144 + k] = rows[i, SLOPE144 + k] - rows[i - 10, SLOPE144 + k]
    for k in range(2):
        fast, slow = (EMA20, EMA60) if k == 0 else (EMA60, EMA144)
        now = (rows[i, fast] - rows[i, slow]) / rows[i, slow]
        then = (rows[i - 5, fast] - rows[i - 5, slow]) / rows[i - 5, slow]
        rows[i, DSEP_FAST + k] = 0.0 if seen < 5 else now - then


@inlined
def _fill_range(rows: Floats, i: int, seen: int, sums: Floats) -> None:
    """True range, ATR, its 20-bar mean and ADX (Wilder, 14)."""
    if seen > 0:
        high, low, last = rows[i, HIGH], rows[i, LOW], rows[i - 1, CLOSE]
        up, down = high - rows[i - 1, HIGH], rows[i - 1, LOW] - low
        true_range = max(high - low, abs(high - last), abs(low - last))
        tie = _TIE * last  # prices on a tick grid often move both ways alike; the last digit of a float must not choose
        plus = up if up - down > tie and up > 0.0 else 0.0
        minus = down if down - up > tie and down > 0.0 else 0.0
        if seen <= _WILDER:
            sums[_TR] += true_range / _WILDER
            sums[_PLUS] += plus / _WILDER
            sums[_MINUS] += minus / _WILDER
        else:
            sums[_TR] = (13.0 * sums[_TR] + true_range) / _WILDER
            sums[_PLUS] = (13.0 * sums[_PLUS] + plus) / _WILDER
            sums[_MINUS] = (13.0 * sums[_MINUS] + minus) / _WILDER
    if seen >= _WILDER:
        both = sums[_PLUS] + sums[_MINUS]
        dx = 100.0 * abs(sums[_PLUS] - sums[_MINUS]) / both if both > 0.0 and sums[_TR] > 0.0 else 0.0
        sums[_ADX] = dx if seen == _WILDER else (13.0 * sums[_ADX] + dx) / _WILDER
    rows[i, ATR] = sums[_TR] if seen >= _WILDER else np.nan
    rows[i, ADX] = sums[_ADX] if seen > _WILDER else np.nan
    total = 0.0
    for k in range(20):
        total += rows[i - k, ATR]
    rows[i, ATR_MEAN] = total / 20.0


@inlined
def _fill_rsi(rows: Floats, i: int, seen: int) -> None:
    """RSI from simple means of the last 14 changes; 50 before 14 changes exist and when nothing moved.

    A mean loss of zero counts as 1e-9 of the price (not of one currency unit: coins at 1e-6 would feel the difference).
    """
    gain, loss = 0.0, 0.0
    if seen >= _WILDER:
        for k in range(_WILDER):
            change = rows[i - k, CLOSE] - rows[i - k - 1, CLOSE]
            gain += max(change, 0.0)
            loss += max(-change, 0.0)
    if gain == 0.0 and loss == 0.0:
        rows[i, RSI] = 50.0
    else:
        floor = _WILDER * 1e-9 * rows[i, CLOSE]
        rows[i, RSI] = 100.0 - 100.0 / (1.0 + gain / (loss if loss > 0.0 else floor))


@inlined
def _fill_volume(rows: Floats, i: int, sums: Floats) -> None:
    """Surprise of ln(1+volume) against its exponential mean and variance, in [-4, 6]; a bar without volume: 0."""
    volume = rows[i, VOLUME]
    rows[i, VO_Z] = 0.0
    if volume <= 0.0:
        return
    y = math.log1p(volume)
    if sums[_V_SEEN] == 0.0:
        sums[_V_MEAN] = y
        sums[_V_SEEN] = 1.0
        return
    before = sums[_V_MEAN]
    sums[_V_MEAN] = _VOLUME_ALPHA * y + (1.0 - _VOLUME_ALPHA) * before
    sums[_V_VAR] = (1.0 - _VOLUME_ALPHA) * (sums[_V_VAR] + _VOLUME_ALPHA * (y - before) ** 2)
    if sums[_V_VAR] > 0.0:
        rows[i, VO_Z] = min(6.0, max(-4.0, (y - sums[_V_MEAN]) / math.sqrt(sums[_V_VAR])))
