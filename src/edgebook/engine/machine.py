"""The engine's one step: what a closed bar means, given everything before it (engine.md 0).

`run` takes rows of bars one after the other: indicators, levels, the state, then the scores and flags of the resulting
state. A backtest calls it for a whole history, a live stream for one bar; there is no other way to compute any of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.reading import WARM_BARS
from edgebook.engine import signals as sg
from edgebook.engine.states import EXIT_BEARISH_ORDER, NO_EXIT, S1, S2, S3, S4, next_state, order_flags
from edgebook.kernels import inlined, kernel
from edgebook.market import indicators as ta
from edgebook.market.levels import LEVEL_COLUMNS, PRICE, SLOTS, LevelBuffers, anchor_strength, blank_buffers
from edgebook.market.levels import step as level_step

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counters = NDArray[np.int64]
#: Global exit, bootstrap into S3, EDX knee, EDX full (`EngineConfig` as compiled code takes it).
Switches = tuple[bool, bool, float, float]

#: Integer columns, in the order of the fields of `MarketReading`.
COUNTERS: tuple[str, ...] = (
    *("bar_index", "bars_in_state", "bars_since_s3", "s3_start_ts", "gap_bars", "level_count"),
    *("ts", "state", "prev_state", "exit_reason"),
)
INDEX, _IN_STATE, _SINCE_S3, _S3_START, GAP, LEVELS, TS, STATE, PREV, EXIT = range(len(COUNTERS))

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
EMERGENCY, _WAS_EMERGENCY, RECLAIMED, _FAKEOUT, EXITED, TRIM, FIRST_DIP, _DIP_TAKEN, _ORDER = range(9)

# Carried integers: state, bars in it, emergency on the last bar, first dip taken, S3 bars so far, close time of S3
# entry.
_M_STATE, _M_BARS, _M_EMERGENCY, _M_DIP, _M_S3, _M_S3_TS = range(6)

#: Columns of a row: those of the indicators, then `SCORES`.
WIDTH = len(ta.COLUMNS) + len(SCORES)
_OWN = len(ta.COLUMNS)


class Carried(NamedTuple):
    """What goes from bar to bar, changed in place.

    Attributes:
        sums: running sums of the indicators.
        state: the machine's own integers.
        s3, zigzag, pivots: the record of the current S3; ``s3`` and ``pivots`` need a free row per bar to come.
        levels: what levels keep of earlier closes.
        slots: levels of the newest bar.
    """

    sums: Floats
    state: Counters
    s3: Floats
    zigzag: Floats
    pivots: Floats
    levels: LevelBuffers
    slots: Floats

    def copy(self) -> Carried:
        """Independent arrays with the same content, without the free rows."""
        s3, pivots = self.s3[: self.state[_M_S3]], self.pivots[: int(self.zigzag[sg.ZZ_COUNT])]
        state, zigzag = self.state.copy(), self.zigzag.copy()
        return Carried(self.sums.copy(), state, s3.copy(), zigzag, pivots.copy(), self.levels.copy(), self.slots.copy())

    def with_room(self, bars: int) -> Carried:
        """The same with free rows for that many bars; arrays that have them already are kept."""
        s3 = _with_room(self.s3, int(self.state[_M_S3]), bars)
        pivots = _with_room(self.pivots, int(self.zigzag[sg.ZZ_COUNT]), bars + 1)
        return self._replace(s3=s3, pivots=pivots)


def blank() -> Carried:
    """Before the first bar: no state, nothing seen."""
    return Carried(
        ta.blank_memory().sums,
        np.array([S4, -1, 0, 0, 0, -1], dtype=np.int64),
        np.empty((0, sg.S3_COLUMNS)),
        np.zeros(sg.ZZ_SIZE),
        np.empty((0, sg.PIVOT_COLUMNS)),
        blank_buffers(),
        np.zeros((SLOTS, LEVEL_COLUMNS)),
    )


def _with_room(rows: Floats, used: int, more: int) -> Floats:
    """``rows``, or where it is too short a longer copy of its first ``used`` rows."""
    if len(rows) >= used + more:
        return rows
    longer = np.empty((used + max(more, used), rows.shape[1]))
    longer[:used] = rows[:used]
    return longer


@kernel
def run(
    rows: Floats, start: int, stop: int, counters: Counters, flags: Bools, carried: Carried, switches: Switches
) -> None:
    """Rows ``start`` to ``stop`` (exclusive), one after the other.

    Args:
        rows: `WIDTH` columns; open, high, low, close and volume of these rows are there, and the 20 rows before them
            are complete.
        counters, flags: one row for each of these bars, ``bar_index``, ``ts`` and ``gap_bars`` filled in.
        carried: moves on by these bars.
    """
    sums, memory, s3, zigzag, pivots, buffers, slots = carried
    closes, queues, extremes, marks, found = buffers
    for i in range(start, stop):
        k = i - start
        row, seen, scores = rows[i], counters[k, INDEX], rows[i, _OWN:]
        ta.fill(rows, i, seen, sums)
        scores[:] = np.nan
        flags[k, :] = False
        count = level_step(closes, queues, extremes, marks, found, row[ta.CLOSE], row[ta.ATR], slots)
        counters[k, LEVELS] = count
        _step(row, counters[k], flags[k], memory, zigzag, switches)
        state = counters[k, STATE]
        _read_levels(row, slots, count, state, scores)
        if state in (S1, S2, S3):
            scores[_TS_SCORE] = sg.trend_strength(row[ta.RSI_SLOPE], row[ta.ADX_SLOPE])
        if state == S2:
            scores[_OX] = sg.ox_base(row)
        if state == S3:
            _score_s3(rows, i, scores, flags[k], memory, s3, zigzag, pivots, switches)
        if state in (S2, S3):
            flags[k, TRIM] = scores[_OX] >= sg.OX_TRIM and scores[_NEAREST_ATR] <= sg.TRIM_REACH


@inlined
def _step(row: Floats, counters: Counters, flags: Bools, memory: Counters, zigzag: Floats, switches: Switches) -> None:
    """The state machine on one bar: state, exit and emergency flags, counters; the memory moves on."""
    before = memory[_M_STATE]
    order = _order_of(row)
    for j in range(5):
        flags[_ORDER + j] = order[j]
    state, reason = S4, NO_EXIT
    if counters[INDEX] >= WARM_BARS:
        state, reason = next_state(
            before, row[ta.CLOSE], row[ta.EMA60], row[ta.EMA333], order, switches[0], switches[1]
        )
    memory[_M_BARS] = 0 if state != before else memory[_M_BARS] + 1
    if state == S3 and before != S3:
        memory[_M_S3], memory[_M_DIP], memory[_M_S3_TS] = 0, 0, counters[TS]
        sg.enter_s3(zigzag)
    if state != S3 and before == S3:
        memory[_M_S3], memory[_M_DIP], memory[_M_S3_TS] = 0, 0, -1
        sg.enter_s3(zigzag)
    below = state == S3 and row[ta.CLOSE] < row[ta.EMA333]
    flags[_WAS_EMERGENCY] = memory[_M_EMERGENCY] == 1
    flags[RECLAIMED] = state == S3 and memory[_M_EMERGENCY] == 1 and row[ta.CLOSE] >= row[ta.EMA333]
    flags[EMERGENCY] = below or reason == EXIT_BEARISH_ORDER
    flags[EXITED] = reason != NO_EXIT
    memory[_M_EMERGENCY] = 1 if flags[EMERGENCY] else 0
    memory[_M_STATE] = state
    counters[STATE], counters[PREV], counters[EXIT] = state, before, reason
    counters[_IN_STATE] = memory[_M_BARS]
    counters[_SINCE_S3] = memory[_M_BARS] if state == S3 else -1
    counters[_S3_START] = memory[_M_S3_TS]


@inlined
def _order_of(row: Floats) -> tuple[bool, bool, bool, bool, bool]:
    """`order_flags` of an indicator row."""
    return order_flags(row[ta.EMA20], row[ta.EMA30], row[ta.EMA60], row[ta.EMA144], row[ta.EMA250], row[ta.EMA333])


@inlined
def _read_levels(row: Floats, levels: Floats, count: int, state: int, scores: Floats) -> None:
    """Nearest level to the close, and the S/R support of the anchors."""
    atr = row[ta.ATR]
    scores[_SR_E333] = anchor_strength(levels, count, row[ta.EMA333], atr)
    if state == S1:
        scores[_SR_ANCHOR] = anchor_strength(levels, count, row[ta.EMA60], atr)
    elif state in (S2, S3):
        scores[_SR_ANCHOR] = scores[_SR_E333]
    best = np.inf
    for k in range(count):
        away = abs(levels[k, PRICE] - row[ta.CLOSE])
        if away < best:
            best = away
            scores[_NEAREST] = levels[k, PRICE]
            scores[_NEAREST_ATR] = away / atr


@inlined
def _score_s3(
    rows: Floats,
    i: int,
    scores: Floats,
    flags: Bools,
    memory: Counters,
    s3: Floats,
    zigzag: Floats,
    pivots: Floats,
    switches: Switches,
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
    scores[_SUPPRESSION] = sg.edx_suppression(edx, switches[2], switches[3])
    scores[_TI] = sg.integrity(rows, i)
    trend = scores[_TS_SCORE]
    flags[_FAKEOUT] = flags[RECLAIMED] and scores[_TI] >= 0.5 and trend >= 0.5
    flags[FIRST_DIP] = memory[_M_DIP] == 0 and sg.first_dip(rows[i], k, trend, scores[_SR_E333])
    if flags[FIRST_DIP]:
        memory[_M_DIP] = 1
    flags[_DIP_TAKEN] = memory[_M_DIP] == 1
