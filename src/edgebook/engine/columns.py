"""The engine over many bars at once: one pass, any chunking, the same numbers.

`advance(memory, bars)` continues where ``memory`` stopped (None: before the first bar) and returns one `EngineColumns`
row per bar plus the next memory. A whole history, a day or a single bar at a time give equal columns, so a backtest and
a live process cannot differ. `reading` turns one row into a `MarketReading`; `interesting` marks the rows anything can
follow from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, make_dataclass
from typing import Any

import numpy as np
from numba import njit
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
from edgebook.engine import signals as sg
from edgebook.engine.states import EXIT_BEARISH_ORDER, NO_EXIT, S1, S2, S3, S4, STATE_NAMES, next_state, order_flags
from edgebook.market import indicators as ta
from edgebook.market.bars import BarSeries
from edgebook.market.levels import SLOTS, anchor_strength, levels_over
from edgebook.market.levels import WINDOW as LEVEL_WINDOW

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]
Counters = NDArray[np.int64]

#: Integer columns, in the order of the fields of `MarketReading`.
COUNTERS: tuple[str, ...] = (
    *("bar_index", "bars_in_state", "bars_since_s3", "s3_start_ts", "gap_bars", "level_count"),
    *("ts", "state", "prev_state", "exit_reason"),
)
_INDEX, _IN_STATE, _SINCE_S3, _S3_START, _GAP, _LEVELS, _TS, _STATE, _PREV, _EXIT = range(len(COUNTERS))

#: Float columns the engine adds to those of `edgebook.market.indicators.COLUMNS`, in the order of `MarketReading`.
SCORES: tuple[str, ...] = (
    *("ts_score", "ox", "dx", "edx", "ti", "edx_suppression"),
    *("dx_x", "dx_location", "exhaustion", "relief", "curl"),
    *("edx_slow", "edx_struct", "edx_part", "edx_comp"),
    *("sr_strength_anchor", "sr_raw_e333", "nearest_level_price", "nearest_level_distance_atr"),
)
_TS_SCORE, _OX, _DX, _EDX, _TI, _SUPPRESSION, _DX_X, _LOCATION, _EXHAUSTION, _RELIEF, _CURL = range(11)
_SLOW, _STRUCT, _PART, _COMP, _SR_ANCHOR, _SR_E333, _NEAREST, _NEAREST_ATR = range(11, len(SCORES))

#: Boolean columns, in the order of the fields of `MarketReading`.
FLAGS: tuple[str, ...] = (
    *("emergency_exit", "prev_emergency", "reclaimed_ema333", "fakeout_recovery", "exit_position"),
    *("trim_flag", "first_dip", "first_dip_taken"),
    *("fast_up", "s0_order", "s3_order", "all_below_333", "fast_bottom"),
)
_EMERGENCY, _WAS_EMERGENCY, _RECLAIMED, _FAKEOUT, _EXITED, _TRIM, _FIRST_DIP, _DIP_TAKEN, _ORDER = range(9)

# Carried integers: state, bars in it, emergency on the last bar, first dip taken, S3 bars so far, close time of S3
# entry.
_M_STATE, _M_BARS, _M_EMERGENCY, _M_DIP, _M_S3, _M_S3_TS = range(6)

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


@dataclass(frozen=True, slots=True, eq=False)
class EngineMemory:
    """Everything later bars need of earlier ones. A value: `advance` never changes the one it was given."""

    symbol: str
    timeframe: str
    last_ts_open: int
    indicators: ta.IndicatorMemory
    closes: Floats
    state: Counters
    s3: Floats
    zigzag: Floats
    pivots: Floats


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
        return self.counters[:, _TS]

    @property
    def state(self) -> Codes:
        """State code 0..4 of every bar."""
        return self.counters[:, _STATE].astype(np.int8)

    @property
    def prev_state(self) -> Codes:
        """State code 0..4 of the bar before every bar."""
        return self.counters[:, _PREV].astype(np.int8)

    def rows(self, start: int, stop: int) -> EngineColumns:
        """Bars ``start`` to ``stop`` (exclusive) by position, sharing memory."""
        part = slice(start, stop)
        return EngineColumns(self.symbol, self.timeframe, self.values[part], self.counters[part], self.flags[part])

    def take(self, which: Bools | Counters) -> EngineColumns:
        """A compact copy of chosen bars (a mask or positions), e.g. of the `interesting` ones."""
        return EngineColumns(self.symbol, self.timeframe, self.values[which], self.counters[which], self.flags[which])


# A frozen dataclass of 70 fields takes 7 us to build, its unfrozen twin with the same slots under 1 us; `reading` fills
# the twin and then hands it over as the frozen class.
_Draft: Any = make_dataclass("_Draft", [field.name for field in fields(MarketReading)], slots=True)

_FLOAT_INDEX = {name: i for i, name in enumerate(ta.COLUMNS + SCORES)} | {"price": ta.CLOSE}
_WIDTH = len(ta.COLUMNS)


def blank_memory(symbol: str, timeframe: str) -> EngineMemory:
    """The memory before the first bar of a series."""
    state = np.array([S4, -1, 0, 0, 0, -1], dtype=np.int64)
    s3, pivots = np.empty((0, sg.S3_COLUMNS)), np.empty((0, sg.PIVOT_COLUMNS))
    return EngineMemory(symbol, timeframe, -1, ta.blank_memory(), np.empty(0), state, s3, np.zeros(sg.ZZ_SIZE), pivots)


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
    rows, indicator_memory = ta.advance(memory.indicators, bars, _WIDTH + len(SCORES))
    values = rows[ta.HISTORY :]
    values[:, _WIDTH:] = np.nan
    closes = np.concatenate((memory.closes, bars.close))
    first = len(memory.closes)
    atr = np.full(len(closes), np.nan)
    atr[first:] = rows[ta.HISTORY :, ta.ATR]
    table = levels_over(closes, atr, first)
    counters = np.zeros((n, len(COUNTERS)), dtype=np.int64)
    counters[:, _INDEX] = memory.indicators.count + np.arange(n)
    counters[:, _TS] = bars.close_ts
    counters[:, _GAP] = _gaps(memory, bars)
    counters[:, _LEVELS] = table.count
    flags = np.zeros((n, len(FLAGS)), dtype=np.bool_)
    state, zigzag = memory.state.copy(), memory.zigzag.copy()
    s3 = _with_room(memory.s3, n)
    pivots = _with_room(memory.pivots, n + 1)
    switches = (config.global_exit, config.bootstrap_s3)
    knees = (config.edx_knee, config.edx_full)
    scores = values[:, _WIDTH:]
    _run(rows, table.price, table.strength, scores, counters, flags, state, s3, zigzag, pivots, switches, knees)
    s3 = s3[: state[_M_S3]].copy()
    pivots = pivots[: int(zigzag[sg.ZZ_COUNT])].copy()
    last = int(bars.ts_open[-1]) if n else memory.last_ts_open
    tail = closes[-LEVEL_WINDOW:].copy()
    after = EngineMemory(bars.symbol, bars.timeframe, last, indicator_memory, tail, state, s3, zigzag, pivots)
    return EngineColumns(bars.symbol, bars.timeframe, values, counters, flags), after


def reading(columns: EngineColumns, index: int) -> MarketReading:
    """One bar as a `MarketReading`."""
    counts = columns.counters[index].tolist()
    state, previous = STATE_NAMES[counts[_STATE]], STATE_NAMES[counts[_PREV]]
    draft = _Draft(
        columns.symbol,
        columns.timeframe,
        state,
        counts[_TS],
        previous,
        "" if state == previous else f"{previous}->{state}",
        EXIT_REASONS[counts[_EXIT]],
        *counts[:_TS],
        *columns.values[index].tolist(),
        *columns.flags[index].tolist(),
    )
    draft.__class__ = MarketReading
    made: MarketReading = draft
    return made


def events(columns: EngineColumns) -> NDArray[np.uint8]:
    """What may follow from each bar, as bits (see `edgebook.domain.reading`); 0 on bars nothing can follow from.

    MOVE: a state change, exit, reclaim, or more than 3 missing bars. WINDOW: S1 within 1.5 ATR of EMA60, or S3 between
    EMA333 and EMA144. RETEST: S2 within the retest halo of EMA333. TRIM, EMERGENCY, DIP: those flags. AFTER: the bar
    after any of them, on which windows close. Only bars with 333 bars before them.
    """
    state, price, atr = columns.state, columns.floats("price"), columns.floats("atr")
    e333, flags = columns.floats("ema333"), columns.flags
    near = (state == S1) & (np.abs(price - columns.floats("ema60")) <= S1_WINDOW_HALO * atr)
    retest = (state == S2) & (np.abs(price - e333) <= S2_HALO * atr)
    hallway = (state == S3) & (price >= e333) & (price <= columns.floats("ema144"))
    moved = (state != columns.prev_state) | (columns.counters[:, _GAP] > MAX_GAP_BARS)
    moved |= flags[:, _RECLAIMED] | flags[:, _EXITED]
    found = np.zeros(len(columns), dtype=np.uint8)
    for mark, bit in ((moved, MOVE), (near | hallway, WINDOW), (retest, RETEST)):
        found |= mark.astype(np.uint8) * np.uint8(bit)
    for column, bit in ((_TRIM, TRIM), (_EMERGENCY, EMERGENCY), (_FIRST_DIP, DIP)):
        found |= flags[:, column].astype(np.uint8) * np.uint8(bit)
    found[1:] |= (found[:-1] != 0).astype(np.uint8) * np.uint8(AFTER)
    found[columns.counters[:, _INDEX] < WARM_BARS] = 0
    return found


def interesting(columns: EngineColumns) -> Bools:
    """Bars with any event."""
    return np.asarray(events(columns) != 0)


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


def _with_room(rows: Floats, more: int) -> Floats:
    """A copy of ``rows`` with ``more`` uninitialised rows after them."""
    longer = np.empty((len(rows) + more, rows.shape[1]))
    longer[: len(rows)] = rows
    return longer


def _gaps(memory: EngineMemory, bars: BarSeries) -> Counters:
    missing = bars.gaps()
    if len(bars) and memory.last_ts_open >= 0:
        missing[0] = (bars.ts_open[0] - memory.last_ts_open) // micros(bars.timeframe) - 1
    return missing


@njit(cache=True, nogil=True)
def _run(
    rows: Floats,
    price: Floats,
    strength: Floats,
    scores: Floats,
    counters: Counters,
    flags: Bools,
    memory: Counters,
    s3: Floats,
    zigzag: Floats,
    pivots: Floats,
    switches: tuple[bool, bool],
    knees: tuple[float, float],
) -> None:
    """One state test per bar, then levels, scores and flags for the resulting state (engine.md 0)."""
    for k in range(len(counters)):
        i = k + ta.HISTORY
        _step(rows[i], counters[k], flags[k], memory, zigzag, switches)
        _read_levels(rows[i], price[k], strength[k], counters[k, _STATE], scores[k])
        state = counters[k, _STATE]
        if state in (S1, S2, S3):
            scores[k, _TS_SCORE] = sg.trend_strength(rows[i, ta.RSI_SLOPE], rows[i, ta.ADX_SLOPE])
        if state == S2:
            scores[k, _OX] = sg.ox_base(rows[i])
        if state == S3:
            _score_s3(rows, i, scores[k], flags[k], memory, s3, zigzag, pivots, knees)
        if state in (S2, S3):
            flags[k, _TRIM] = scores[k, _OX] >= sg.OX_TRIM and scores[k, _NEAREST_ATR] <= sg.TRIM_REACH


@njit(cache=True, nogil=True)
def _step(
    row: Floats, counters: Counters, flags: Bools, memory: Counters, zigzag: Floats, switches: tuple[bool, bool]
) -> None:
    """The state machine on one bar: state, exit and emergency flags, counters; the memory moves on."""
    before = memory[_M_STATE]
    order = _order_of(row)
    for j in range(5):
        flags[_ORDER + j] = order[j]
    state, reason = S4, NO_EXIT
    if counters[_INDEX] >= WARM_BARS:
        state, reason = next_state(
            before, row[ta.CLOSE], row[ta.EMA60], row[ta.EMA333], order, switches[0], switches[1]
        )
    memory[_M_BARS] = 0 if state != before else memory[_M_BARS] + 1
    if state == S3 and before != S3:
        memory[_M_S3], memory[_M_DIP], memory[_M_S3_TS] = 0, 0, counters[_TS]
        sg.enter_s3(zigzag)
    if state != S3 and before == S3:
        memory[_M_S3], memory[_M_DIP], memory[_M_S3_TS] = 0, 0, -1
        sg.enter_s3(zigzag)
    below = state == S3 and row[ta.CLOSE] < row[ta.EMA333]
    flags[_WAS_EMERGENCY] = memory[_M_EMERGENCY] == 1
    flags[_RECLAIMED] = state == S3 and memory[_M_EMERGENCY] == 1 and row[ta.CLOSE] >= row[ta.EMA333]
    flags[_EMERGENCY] = below or reason == EXIT_BEARISH_ORDER
    flags[_EXITED] = reason != NO_EXIT
    memory[_M_EMERGENCY] = 1 if flags[_EMERGENCY] else 0
    memory[_M_STATE] = state
    counters[_STATE], counters[_PREV], counters[_EXIT] = state, before, reason
    counters[_IN_STATE] = memory[_M_BARS]
    counters[_SINCE_S3] = memory[_M_BARS] if state == S3 else -1
    counters[_S3_START] = memory[_M_S3_TS]


@njit(cache=True, nogil=True)
def _order_of(row: Floats) -> tuple[bool, bool, bool, bool, bool]:
    """`order_flags` of an indicator row."""
    return order_flags(row[ta.EMA20], row[ta.EMA30], row[ta.EMA60], row[ta.EMA144], row[ta.EMA250], row[ta.EMA333])


@njit(cache=True, nogil=True)
def _read_levels(row: Floats, price: Floats, strength: Floats, state: int, scores: Floats) -> None:
    """Nearest level to the close, and the S/R support of the anchors."""
    atr = row[ta.ATR]
    scores[_SR_E333] = anchor_strength(price, strength, row[ta.EMA333], atr)
    if state == S1:
        scores[_SR_ANCHOR] = anchor_strength(price, strength, row[ta.EMA60], atr)
    elif state in (S2, S3):
        scores[_SR_ANCHOR] = scores[_SR_E333]
    best = np.inf
    for k in range(SLOTS):
        away = abs(price[k] - row[ta.CLOSE])
        if away < best:
            best = away
            scores[_NEAREST] = price[k]
            scores[_NEAREST_ATR] = away / atr


@njit(cache=True, nogil=True)
def _score_s3(
    rows: Floats,
    i: int,
    scores: Floats,
    flags: Bools,
    memory: Counters,
    s3: Floats,
    zigzag: Floats,
    pivots: Floats,
    knees: tuple[float, float],
) -> None:
    """EDX, OX, DX, TI, first dip and fakeout recovery of one S3 bar."""
    k = memory[_M_S3]
    memory[_M_S3] = k + 1
    sg.record_s3_bar(rows, i, k, s3, zigzag, pivots)
    edx, slow, struct, part, comp = sg.decay(k, s3, zigzag, pivots)
    scores[_EDX], scores[_SLOW], scores[_STRUCT], scores[_PART], scores[_COMP] = edx, slow, struct, part, comp
    scores[_OX] = sg.ox_in_s3(sg.ox_base(rows[i]), edx)
    dx, x, location, exhaustion, relief, curl = sg.discount(rows[i], edx)
    scores[_DX], scores[_DX_X], scores[_LOCATION] = dx, x, location
    scores[_EXHAUSTION], scores[_RELIEF], scores[_CURL] = exhaustion, relief, curl
    scores[_SUPPRESSION] = sg.edx_suppression(edx, knees[0], knees[1])
    scores[_TI] = sg.integrity(rows, i)
    trend = scores[_TS_SCORE]
    flags[_FAKEOUT] = flags[_RECLAIMED] and scores[_TI] >= 0.5 and trend >= 0.5
    flags[_FIRST_DIP] = memory[_M_DIP] == 0 and sg.first_dip(rows[i], k, trend, scores[_SR_E333])
    if flags[_FIRST_DIP]:
        memory[_M_DIP] = 1
    flags[_DIP_TAKEN] = memory[_M_DIP] == 1
