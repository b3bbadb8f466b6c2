"""What a script says instead of the engine: states and scores of bars, written over what was measured (decisions 37).

Everything that follows from states and scores by the engine's own rules follows from them here too: transitions, exits,
counters, trim, emergency and reclaim flags. Gates are asked later, by the same code as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.adapters.feeds.script import FLAGS, ScriptedReading
from edgebook.domain.errors import InputError
from edgebook.domain.timeframe import micros
from edgebook.engine.columns import EngineColumns
from edgebook.engine.machine import COUNTERS
from edgebook.engine.machine import FLAGS as FLAG_COLUMNS
from edgebook.engine.signals import OX_TRIM, TRIM_REACH
from edgebook.engine.states import (
    EXIT_ALL_BELOW,
    EXIT_BEARISH_ORDER,
    EXIT_FAST_BOTTOM,
    NO_EXIT,
    S0,
    S1,
    S2,
    S3,
    S4,
    STATE_NAMES,
)

#: Averages of a calm bar over its close: far from every zone in which something might be bought.
CALM_AVERAGES = {"ema20": 1.0, "ema30": 1.0, "ema60": 0.9, "ema144": 0.88, "ema250": 0.86, "ema333": 0.84}
#: Other numbers of a calm bar; ATR is 1 % of the close. What is not named is not known (NaN).
CALM = {
    "ema20_slope": 0.001, "ema60_slope": 0.001, "ema144_slope": 0.001, "ema250_slope": 0.0005, "ema333_slope": 0.0005,
    "rsi": 50.0, "adx": 20.0, "ts_score": 0.3, "ox": 0.4, "dx": 0.1, "edx": 0.4, "edx_suppression": 0.0,
    "sr_strength_anchor": 0.0, "sr_raw_e333": 0.0,
}  # fmt: skip
#: Changes of state that an engine can make, and the exit each one is (engine.md 2).
_CHANGES = {
    (S0, S1): NO_EXIT, (S1, S2): NO_EXIT, (S2, S1): NO_EXIT, (S2, S3): NO_EXIT, (S4, S0): NO_EXIT, (S4, S3): NO_EXIT,
    (S1, S0): EXIT_BEARISH_ORDER, (S3, S0): EXIT_ALL_BELOW, (S2, S0): EXIT_FAST_BOTTOM,
}  # fmt: skip

Ints = NDArray[np.int64]


class Script:
    """Scripted readings by series; ``over`` puts them over the columns of the engine.

    Raises:
        InputError: two lines on one bar, or a change of state that no engine makes.
    """

    def __init__(self, readings: Sequence[ScriptedReading]) -> None:
        self._series: dict[tuple[str, str], dict[int, ScriptedReading]] = {}
        for one in sorted(readings, key=lambda reading: reading.ts):
            series = self._series.setdefault((one.symbol, one.timeframe), {})
            if one.ts in series:
                raise InputError(f"script: {_named(one)} has two lines for one bar", stage="script")
            series[one.ts] = one
        for series in self._series.values():
            _check_changes(series)

    def over(self, columns: EngineColumns) -> EngineColumns:
        """The columns as scripted; themselves where the script says nothing of the series.

        Of a part of a series, the first row does not know whether the bar before it was an emergency.
        """
        series = self._series.get((columns.symbol, columns.timeframe))
        if series is None or not len(columns):
            return columns
        made = EngineColumns(
            columns.symbol, columns.timeframe, columns.values.copy(), columns.counters.copy(), columns.flags.copy()
        )
        _write_scores(made, series)
        _write_states(made, series)
        _write_flags(made, series)
        return made


#: Says nothing: everything is read by the engine.
NOT_SCRIPTED = Script(())


def _check_changes(series: dict[int, ScriptedReading]) -> None:
    state = "S0"
    for one in series.values():
        after = one.state or state
        change = (STATE_NAMES.index(state), STATE_NAMES.index(after))
        if state != after and change not in _CHANGES:
            raise InputError(f"script: {_named(one)}: no engine goes from {state} to {after}", stage="script")
        state = after


def _named(one: ScriptedReading) -> str:
    """A line of the script, by its bar."""
    return f"{one.symbol} {one.timeframe} {datetime.fromtimestamp(one.ts // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _write_scores(made: EngineColumns, series: dict[int, ScriptedReading]) -> None:
    close = made.floats("close").copy()
    bars = {name: made.floats(name).copy() for name in ("open", "high", "low", "close", "volume")}
    made.values[:] = np.nan
    calm = {"atr": 0.01 * close, "atr_mean_20": 0.01 * close}
    calm |= {name: share * close for name, share in CALM_AVERAGES.items()}
    for name, values in (bars | calm).items():
        made.floats(name)[:] = values
    for name, value in CALM.items():
        made.floats(name)[:] = value
    for i, one in _rows(made, series):
        for name, value in one.values.items():
            if name not in FLAGS:
                made.floats(name)[i] = value


def _rows(made: EngineColumns, series: dict[int, ScriptedReading]) -> list[tuple[int, ScriptedReading]]:
    """(row, scripted reading) of the bars that have one."""
    rows = {ts: i for i, ts in enumerate(made.ts.tolist())}
    return [(rows[ts], one) for ts, one in series.items() if ts in rows]


def _write_states(made: EngineColumns, series: dict[int, ScriptedReading]) -> None:
    changes = [(ts, STATE_NAMES.index(one.state)) for ts, one in series.items() if one.state]
    at, to = np.array([ts for ts, _ in changes], dtype=np.int64), np.array([S0, *(s for _, s in changes)])
    new = np.r_[True, np.diff(to) != 0]  # the first state holds since ever
    begun = np.r_[min(made.ts[0], *at[:1]), at][new]
    step, ts = micros(made.timeframe), made.ts
    state = to[at.searchsorted(ts, side="right")]
    last_bar = ts - step * (1 + made.counters[:, COUNTERS.index("gap_bars")])
    before = to[at.searchsorted(last_bar, side="right")]
    since = begun[begun.searchsorted(ts, side="right") - 1]
    first = np.minimum(ts.searchsorted(since), np.arange(len(ts)))  # a change on a missing bar shows on the next one
    seen = since >= ts[0]
    since, bars = np.where(seen, ts[first], since), np.where(seen, np.arange(len(ts)) - first, (ts - since) // step)
    columns: dict[str, Any] = {
        "state": state,
        "prev_state": before,
        "exit_reason": [_CHANGES.get((int(a), int(b)), NO_EXIT) for a, b in zip(before, state, strict=True)],
        "bars_in_state": bars,
        "bars_since_s3": np.where(state == S3, bars, -1),
        "s3_start_ts": np.where(state == S3, since, -1),
        "level_count": np.where(np.isnan(made.floats("nearest_level_price")), 0, 1),
    }
    for name, values in columns.items():
        made[name][:] = values


def _write_flags(made: EngineColumns, series: dict[int, ScriptedReading]) -> None:
    state, close, e333 = made.state, made.floats("close"), made.floats("ema333")
    exited = made["exit_reason"] != NO_EXIT
    emergency = ((state == S3) & (close < e333)) | (made["exit_reason"] == EXIT_BEARISH_ORDER)
    was = np.r_[False, emergency[:-1]]
    near = made.floats("nearest_level_distance_atr") <= TRIM_REACH
    follow = {
        "emergency_exit": emergency,
        "prev_emergency": was,
        "reclaimed_ema333": (state == S3) & was & (close >= e333),
        "exit_position": exited,
        "trim_flag": ((state == S2) | (state == S3)) & (made.floats("ox") >= OX_TRIM) & near,
        "fast_up": (state == S1) | (state == S2) | (state == S3),
    }
    made.flags[:] = False
    for name, values in follow.items():
        made.flags[:, FLAG_COLUMNS.index(name)] = values
    for i, one in _rows(made, series):
        for name, value in one.values.items():
            if name in FLAGS:
                made.flags[i, FLAG_COLUMNS.index(name)] = value
