"""The engine over many bars at once: one pass, any chunking, the same numbers.

`advance(memory, bars)` continues where ``memory`` stopped (None: before the first bar) and returns one `EngineColumns`
row per bar plus the next memory. A whole history, a day or a single bar at a time give equal columns, so a backtest and
a live process cannot differ. `reading` turns one row into a `MarketReading`; `events` marks what anything can follow
from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.errors import EngineError
from edgebook.domain.reading import (
    AFTER,
    DIP,
    EMERGENCY,
    EXIT_REASONS,
    MOVE,
    RETEST,
    TRIM,
    WARM_BARS,
    WINDOW,
    MarketReading,
)
from edgebook.domain.timeframe import micros
from edgebook.domain.values import maker
from edgebook.engine import machine as mc
from edgebook.engine.machine import COUNTERS, FLAGS, SCORES
from edgebook.engine.states import S1, S2, S3, STATE_NAMES
from edgebook.market import indicators as ta
from edgebook.market.bars import BarSeries

_reading: Any = maker(MarketReading)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]
Counters = NDArray[np.int64]

# S1 bars within this many ATR of EMA60 can open an entry window: the base halo of 1.0 and half an ATR of near misses.
S1_WINDOW_HALO = 1.5
S2_HALO = 0.5
#: More missing bars than this void an episode.
MAX_GAP_BARS = 3


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Switches and named constants of the engine; none of them is ever learned.

    Attributes:
        global_exit: EMA20 and EMA30 below all slower EMAs force S0 (engine.md 2; off).
        bootstrap_s3: S4 may enter S3 at once (regime drivers only; off).
        edx_knee, edx_full: EDX at which the DX threshold starts and stops rising (decisions.md 57).
    """

    global_exit: bool = False
    bootstrap_s3: bool = False
    edx_knee: float = 0.5
    edx_full: float = 0.62

    def __post_init__(self) -> None:
        if not 0.0 <= self.edx_knee < self.edx_full <= 1.0:
            raise EngineError(
                f"edx_knee {self.edx_knee} and edx_full {self.edx_full} must satisfy 0 <= edx_knee < edx_full <= 1",
                stage="engine",
            )

    @property
    def switches(self) -> mc.Switches:
        """The form that compiled code takes."""
        return (self.global_exit, self.bootstrap_s3, self.edx_knee, self.edx_full)


@dataclass(frozen=True, slots=True, eq=False)
class EngineMemory:
    """Everything later bars need of earlier ones. A value: `advance` never changes the one it was given.

    Attributes:
        last_ts_open: open time of the last bar, -1 before the first.
        count: bars seen.
        rows: the last 20 rows of indicators.
        carried: the rest.
    """

    symbol: str
    timeframe: str
    last_ts_open: int
    count: int
    rows: Floats
    carried: mc.Carried


@dataclass(frozen=True, slots=True, eq=False)
class EngineColumns:
    """Engine results of consecutive bars of one symbol and timeframe; ``columns["ema60"]`` is a column by name.

    Attributes:
        values: floats, one column per name in `indicators.COLUMNS` + `SCORES`.
        counters: int64, one column per name in `COUNTERS` (state and prev_state are codes 0..4, exit_reason 0..3).
        flags: booleans, one column per name in `FLAGS`.
    """

    symbol: str
    timeframe: str
    values: Floats
    counters: Counters
    flags: Bools

    def __len__(self) -> int:
        return len(self.counters)

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        """A column by the name of its `MarketReading` field (``price`` and ``close`` are the same column)."""
        if name in COUNTERS:
            return self.counters[:, COUNTERS.index(name)]
        if name in FLAGS:
            return self.flags[:, FLAGS.index(name)]
        return self.floats(name)

    def floats(self, name: str) -> Floats:
        """A float column by name.

        Raises:
            EngineError: there is no such column.
        """
        try:
            return self.values[:, _FLOAT_INDEX[name]]
        except KeyError:
            raise EngineError(
                f"{self.symbol} {self.timeframe}: no engine column {name!r}; use a field name of MarketReading",
                stage="engine",
            ) from None

    @property
    def ts(self) -> Counters:
        """Close time of every bar, microseconds UTC."""
        return self.counters[:, mc.TS]

    @property
    def state(self) -> Codes:
        """State code 0..4 of every bar."""
        return self.counters[:, mc.STATE].astype(np.int8)

    @property
    def prev_state(self) -> Codes:
        """State code 0..4 of the bar before every bar."""
        return self.counters[:, mc.PREV].astype(np.int8)

    def rows(self, start: int, stop: int) -> EngineColumns:
        """Bars ``start`` to ``stop`` (exclusive) by position, sharing memory."""
        part = slice(start, stop)
        return EngineColumns(self.symbol, self.timeframe, self.values[part], self.counters[part], self.flags[part])


_FLOAT_INDEX = {name: i for i, name in enumerate(ta.COLUMNS + SCORES)} | {"price": ta.CLOSE}


def blank_memory(symbol: str, timeframe: str) -> EngineMemory:
    """The memory before the first bar of a series."""
    return EngineMemory(symbol, timeframe, -1, 0, ta.blank_memory().rows, mc.blank())


def advance(
    memory: EngineMemory | None, bars: BarSeries, *, config: EngineConfig | None = None
) -> tuple[EngineColumns, EngineMemory]:
    """Run the engine over ``bars``, continuing from ``memory`` (None: nothing was seen before).

    Returns:
        The columns of exactly these bars, and the memory after the last one. Any cut of a series into chunks gives the
        same columns; no column of a bar depends on a later bar.

    Raises:
        EngineError: the bars belong to another series than the memory, or do not follow it in time.
    """
    config = config or EngineConfig()
    memory = memory or blank_memory(bars.symbol, bars.timeframe)
    _check_follows(memory, bars)
    n = len(bars)
    rows = ta.rows_of(ta.IndicatorMemory(memory.rows, memory.carried.sums, memory.count), bars, mc.WIDTH)
    counters = np.zeros((n, len(COUNTERS)), dtype=np.int64)
    counters[:, mc.INDEX] = memory.count + np.arange(n)
    counters[:, mc.TS] = bars.close_ts
    counters[:, mc.GAP] = _gaps(memory, bars)
    flags = np.empty((n, len(FLAGS)), dtype=np.bool_)
    carried = memory.carried.copy().with_room(n)
    mc.run(rows, ta.HISTORY, len(rows), counters, flags, carried, config.switches)
    last = int(bars.ts_open[-1]) if n else memory.last_ts_open
    tail = rows[-ta.HISTORY :, : len(ta.COLUMNS)].copy()
    after = EngineMemory(bars.symbol, bars.timeframe, last, memory.count + n, tail, carried.copy())
    return EngineColumns(bars.symbol, bars.timeframe, rows[ta.HISTORY :], counters, flags), after


def reading(columns: EngineColumns, index: int) -> MarketReading:
    """One bar as a `MarketReading`."""
    counts, values = columns.counters[index].tolist(), columns.values[index].tolist()
    return reading_of(columns.symbol, columns.timeframe, counts, values, columns.flags[index].tolist())


def reading_of(symbol: str, timeframe: str, counts: list[int], values: list[float], flags: list[bool]) -> MarketReading:
    """A `MarketReading` from one row each of counters, values and flags."""
    state, previous = STATE_NAMES[counts[mc.STATE]], STATE_NAMES[counts[mc.PREV]]
    made: MarketReading = _reading(
        symbol,
        timeframe,
        state,
        counts[mc.TS],
        previous,
        "" if state == previous else f"{previous}->{state}",
        EXIT_REASONS[counts[mc.EXIT]],
        *counts[: mc.TS],
        *values,
        *flags,
    )
    return made


def events(columns: EngineColumns, *, after: bool = False) -> NDArray[np.uint8]:
    """What may follow from each bar, as bits (see `edgebook.domain.reading`); 0 on bars nothing can follow from.

    Args:
        after: whether the bar before the first of these had events of its own, as the last bit of a former call tells:
            ``bool(found[-1] & ~AFTER)``.

    MOVE: a state change, exit, reclaim, or more than 3 missing bars. WINDOW: S1 within 1.5 ATR of EMA60, or S3 between
    EMA333 and EMA144. RETEST: S2 within the retest halo of EMA333. TRIM, EMERGENCY, DIP: those flags. AFTER: the bar
    after any of them, on which windows close. Only bars with 333 bars before them.
    """
    state, price, atr = columns.state, columns.floats("price"), columns.floats("atr")
    e333, flags = columns.floats("ema333"), columns.flags
    near = (state == S1) & (np.abs(price - columns.floats("ema60")) <= S1_WINDOW_HALO * atr)
    retest = (state == S2) & (np.abs(price - e333) <= S2_HALO * atr)
    hallway = (state == S3) & (price >= e333) & (price <= columns.floats("ema144"))
    moved = (state != columns.prev_state) | (columns.counters[:, mc.GAP] > MAX_GAP_BARS)
    moved |= flags[:, mc.RECLAIMED] | flags[:, mc.EXITED]
    found = np.zeros(len(columns), dtype=np.uint8)
    for mark, bit in ((moved, MOVE), (near | hallway, WINDOW), (retest, RETEST)):
        found |= mark.astype(np.uint8) * np.uint8(bit)
    for column, bit in ((mc.TRIM, TRIM), (mc.EMERGENCY, EMERGENCY), (mc.FIRST_DIP, DIP)):
        found |= flags[:, column].astype(np.uint8) * np.uint8(bit)
    found[columns.counters[:, mc.INDEX] < WARM_BARS] = 0
    follows = np.r_[after, found != 0][:-1]
    marked: NDArray[np.uint8] = found | (follows.astype(np.uint8) * np.uint8(AFTER))
    return marked


def _check_follows(memory: EngineMemory, bars: BarSeries) -> None:
    if (memory.symbol, memory.timeframe) != (bars.symbol, bars.timeframe):
        raise EngineError(
            f"bars of {bars.symbol} {bars.timeframe} given to the memory of {memory.symbol} {memory.timeframe}; "
            "each symbol and timeframe has its own memory",
            stage="engine",
        )
    if len(bars) and bars.ts_open[0] <= memory.last_ts_open:
        raise EngineError(
            f"{bars.symbol} {bars.timeframe}: bars start at {bars.ts_open[0]}, but the memory has already seen "
            f"{memory.last_ts_open}; give only later bars",
            stage="engine",
        )


def _gaps(memory: EngineMemory, bars: BarSeries) -> Counters:
    missing = bars.gaps()
    if len(bars) and memory.last_ts_open >= 0:
        missing[0] = (bars.ts_open[0] - memory.last_ts_open) // micros(bars.timeframe) - 1
    return missing
