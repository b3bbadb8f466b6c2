"""Bars: validated price series that cannot show the future.

A `BarSeries` is one symbol on one timeframe: read-only arrays, strictly increasing, on the grid of its timeframe. Gaps
stay gaps. Bars are stored by OPEN time (``ts_open``); everything decided on a bar happens at its CLOSE time
(``close_ts = ts_open + timeframe``), and `BarSeries.window_before` is the only view a decision needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgebook.domain.errors import MarketDataError
from edgebook.domain.timeframe import micros

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: A resampled bar needs at least this share of its source bars (trading.md 2); below, it does not exist.
MIN_COVERAGE = 0.5

_PRICES = ("open", "high", "low", "close")
_FIELDS = (*_PRICES, "volume")


@dataclass(frozen=True, slots=True)
class Bar:
    """One closed bar. Prices in quote currency per unit, volume as the feed counts it, times in microseconds UTC."""

    symbol: str
    timeframe: str
    ts_open: int
    open: float
    high: float
    low: float
    close: float
    volume: float

    @property
    def ts(self) -> int:
        """Close time: the moment this bar may first be acted upon."""
        return self.ts_open + micros(self.timeframe)


@dataclass(frozen=True, slots=True, eq=False)
class BarSeries:
    """Closed bars of one symbol and timeframe, oldest first, as read-only arrays of equal length.

    Args:
        symbol: the instrument.
        timeframe: one of `edgebook.domain.timeframe.TIMEFRAMES`.
        ts_open: open times, int64 microseconds UTC, strictly increasing multiples of the timeframe.
        open, high, low, close: positive finite prices with ``low <= min(open, close)`` and ``high >= max(open,
        close)``.
        volume: finite and not negative.

    Raises:
        MarketDataError: names the symbol, the first bad row and field, and what would be right.
    """

    symbol: str
    timeframe: str
    ts_open: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "ts_open", _frozen(self.ts_open, np.int64))
        for name in _FIELDS:
            object.__setattr__(self, name, _frozen(getattr(self, name), np.float64))
        _validate(self)

    def __len__(self) -> int:
        return len(self.ts_open)

    def __iter__(self) -> Iterator[Bar]:
        return (self.bar(i) for i in range(len(self)))

    @property
    def step(self) -> int:
        """Length of one bar in microseconds."""
        return micros(self.timeframe)

    @property
    def close_ts(self) -> Ints:
        """Close time of every bar, int64 microseconds UTC."""
        return self.ts_open + self.step

    def bar(self, index: int) -> Bar:
        """The bar at ``index`` (negative counts from the end)."""
        values = [float(getattr(self, name)[index]) for name in _FIELDS]
        return Bar(self.symbol, self.timeframe, int(self.ts_open[index]), *values)

    def rows(self, start: int, stop: int) -> BarSeries:
        """Bars ``start`` to ``stop`` (exclusive) by position, sharing memory with this series."""
        part = object.__new__(BarSeries)
        object.__setattr__(part, "symbol", self.symbol)
        object.__setattr__(part, "timeframe", self.timeframe)
        for name in ("ts_open", *_FIELDS):
            object.__setattr__(part, name, getattr(self, name)[start:stop])
        return part

    def slice(self, start_ts: int, end_ts: int) -> BarSeries:
        """Bars that open at or after ``start_ts`` and before ``end_ts`` (microseconds UTC)."""
        first, last = np.searchsorted(self.ts_open, [start_ts, end_ts], side="left")
        return self.rows(int(first), max(int(first), int(last)))

    def window_before(self, ts: int, count: int) -> BarSeries:
        """The last ``count`` bars whose CLOSE time is at or before ``ts``: all a decision at ``ts`` may see."""
        stop = int(np.searchsorted(self.ts_open, ts - self.step, side="right"))
        return self.rows(max(0, stop - max(0, count)), stop)

    def gaps(self) -> Ints:
        """Number of missing bars before each bar; 0 for the first."""
        missing = np.zeros(len(self), dtype=np.int64)
        if len(self) > 1:
            missing[1:] = np.diff(self.ts_open) // self.step - 1
        return missing


def from_bars(symbol: str, timeframe: str, bars: Sequence[Bar]) -> BarSeries:
    """A series from single bars in time order.

    Raises:
        MarketDataError: a bar belongs to another symbol or timeframe, or breaks a rule of `BarSeries`.
    """
    for row, bar in enumerate(bars):
        if (bar.symbol, bar.timeframe) != (symbol, timeframe):
            raise MarketDataError(
                f"{symbol} {timeframe}: row {row} is a bar of {bar.symbol} {bar.timeframe}; "
                "a series holds one symbol and timeframe",
                stage="market",
            )
    columns = [np.array([getattr(bar, name) for bar in bars], dtype=np.float64) for name in _FIELDS]
    return BarSeries(symbol, timeframe, np.array([bar.ts_open for bar in bars], dtype=np.int64), *columns)


def resample(
    series: BarSeries, timeframe: str, min_coverage: float = MIN_COVERAGE, *, until: int | None = None
) -> tuple[BarSeries, Floats]:
    """Bars of a coarser timeframe, and the share of source bars each one was built from.

    A bucket exists if it holds at least one source bar and ``min_coverage`` of them. Gaps stay gaps. The last bucket is
    dropped unless it is known to have ended, so a bar never changes once it exists.

    Args:
        series: the finer bars.
        timeframe: a multiple of the source's timeframe.
        min_coverage: in [0, 1] (trading.md 2: 0.5).
        until: moment up to which the source is complete, microseconds UTC: a last bucket that closes by then has ended,
            whether or not its last bar exists. None: it has ended only if its last bar is there.

    Raises:
        MarketDataError: the target is finer than, or no multiple of, the source.
    """
    step, target = series.step, micros(timeframe)
    if target % step:
        raise MarketDataError(
            f"{series.symbol}: cannot build {timeframe} from {series.timeframe}; "
            f"the target must be a whole multiple of {series.timeframe}",
            stage="market",
        )
    if target == step or not len(series):
        return _with_timeframe(series, timeframe), np.ones(len(series))
    bucket = series.ts_open // target * target
    starts = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    coverage = np.diff(np.r_[starts, len(series)]) * (step / target)
    keep = coverage >= min_coverage
    known = int(series.ts_open[-1]) + step if until is None else until
    keep[-1] &= known >= bucket[-1] + target
    ends = np.r_[starts[1:], len(series)] - 1
    built = BarSeries(
        series.symbol,
        timeframe,
        bucket[starts][keep],
        series.open[starts][keep],
        np.maximum.reduceat(series.high, starts)[keep],
        np.minimum.reduceat(series.low, starts)[keep],
        series.close[ends][keep],
        np.add.reduceat(series.volume, starts)[keep],
    )
    return built, coverage[keep]


def _with_timeframe(series: BarSeries, timeframe: str) -> BarSeries:
    if series.timeframe == timeframe:
        return series
    values = [getattr(series, name) for name in _FIELDS]
    return BarSeries(series.symbol, timeframe, series.ts_open, *values)


def _frozen(values: ArrayLike, dtype: type[np.generic]) -> NDArray[Any]:
    """A read-only contiguous array; a caller's own writable array is copied, so nobody can change bars afterwards."""
    if isinstance(values, np.ndarray) and values.dtype == dtype and not values.flags.writeable:
        return np.ascontiguousarray(values)
    array = np.array(values, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def _validate(series: BarSeries) -> None:
    where = f"{series.symbol} {series.timeframe}"
    step = series.step
    for name in _FIELDS:
        if getattr(series, name).shape != series.ts_open.shape or series.ts_open.ndim != 1:
            raise MarketDataError(
                f"{where}: {name} has shape {getattr(series, name).shape}, ts_open {series.ts_open.shape}; "
                "all columns must be one-dimensional and of equal length",
                stage="market",
            )
    _reject(where, series.ts_open, "ts_open", series.ts_open % step != 0, f"a multiple of {step} us (its open time)")
    later = np.r_[False, np.diff(series.ts_open) <= 0] if len(series) else np.zeros(0, dtype=bool)
    _reject(where, series.ts_open, "ts_open", later, "later than the row before it")
    for name in _PRICES:
        values = getattr(series, name)
        _reject(where, values, name, ~(np.isfinite(values) & (values > 0)), "a positive finite price")
    top = np.maximum(series.open, series.close)
    bottom = np.minimum(series.open, series.close)
    _reject(where, series.high, "high", series.high < top, "at least the open and the close")
    _reject(where, series.low, "low", series.low > bottom, "at most the open and the close")
    bad_volume = ~(np.isfinite(series.volume) & (series.volume >= 0))
    _reject(where, series.volume, "volume", bad_volume, "finite and not negative")


def _reject(where: str, values: Floats | Ints, name: str, bad: NDArray[np.bool_], right: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise MarketDataError(f"{where}: row {row}: {name} is {values[row]}; it must be {right}", stage="market")
