"""Warm-up: how many bars an engine that starts later needs until it says what the engine with all history says.

Each traded series is started anew at several offsets and compared bar by bar with the run over its whole history. What
counts is agreement for good: the bars until the last one on which the two differ.

Free of state are the averages, the order of the averages, trend strength and its inputs, and the support at EMA333:
they forget their start. Bound to state are the state itself, the scores a state defines, and the flags: a series that
starts later begins in S4 and gets its first state at the next downtrend (engine.md 2), so these take as long as the
market takes to have one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.engine.columns import EngineColumns, EngineConfig
from edgebook.engine.gates import BASE_GATES, flags_over
from edgebook.engine.states import S4
from edgebook.runtime.lookahead.cut import spread
from edgebook.runtime.lookahead.engine import Line, run

Json = Any
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

OFFSET_SHARES = (0.05, 0.2, 0.35, 0.5, 0.65)
#: Runs shorter than this are not started: they could not tell what share had agreed by then.
LEAST_BARS = 1_001
MARKS = (333, 1_000)
SCORE_TOLERANCE, EMA_TOLERANCE_ATR, INDICATOR_TOLERANCE = 0.01, 0.1, 0.01
TOLERANCES: Mapping[str, str] = {
    "emas": f"each within {EMA_TOLERANCE_ATR} ATR",
    "orders": "fast_up, s0_order, s3_order, all_below_333, fast_bottom equal",
    "trend_strength": f"within {SCORE_TOLERANCE}, on every bar whatever its state",
    "indicators": f"rsi, adx, vo_z within {INDICATOR_TOLERANCE} of their range, atr within {INDICATOR_TOLERANCE} of it",
    "support": f"sr_raw_e333 within {SCORE_TOLERANCE}",
    "state": "equal",
    "scores": f"ts, ox, dx, edx, ti, EDX suppression, anchor's support within {SCORE_TOLERANCE} or missing in both",
    "flags": "buy_signal, buy_flag, trims, exits, emergencies, reclaims, first dips equal",
}
FREE = ("emas", "orders", "trend_strength", "indicators", "support")

_EMAS = ("ema20", "ema30", "ema60", "ema144", "ema250", "ema333")
_ORDERS = ("fast_up", "s0_order", "s3_order", "all_below_333", "fast_bottom")
_RANGES = {"rsi": 100.0, "adx": 100.0, "vo_z": 10.0}
_SCORES = ("ts_score", "ox", "dx", "edx", "ti", "edx_suppression", "sr_strength_anchor")
_FLAGS = (
    *("emergency_exit", "prev_emergency", "reclaimed_ema333", "fakeout_recovery", "exit_position"),
    *("trim_flag", "first_dip", "first_dip_taken"),
)


@dataclass(frozen=True, slots=True)
class Start:
    """One later start.

    Attributes:
        timeframe: of the series.
        bars: how many it had.
        until: per quantity, bars until it agreed for good; None where the last bar still differed.
        left_s4: bars until it had a state, None if it never did.
        state_share: share of the bars from the 1,001st on with an equal state.
    """

    timeframe: str
    bars: int
    until: Mapping[str, int | None]
    left_s4: int | None
    state_share: float


def starts_of(line: Line, config: EngineConfig) -> list[Start]:
    """Start a line at each offset that leaves enough bars."""
    offsets = [i for i in spread(len(line.bars), OFFSET_SHARES) if i and len(line.bars) - i >= LEAST_BARS]
    return [_start(line, offset, config) for offset in offsets]


def _start(line: Line, offset: int, config: EngineConfig) -> Start:
    late = run(line.bars.rows(offset, len(line.bars)), config)
    known = line.columns.rows(offset, len(line.bars))
    state = known.state == late.state
    left = np.flatnonzero(late.state != S4)
    return Start(
        line.timeframe,
        len(late),
        {name: settled(agrees(known, late)) for name, agrees in _AGREEMENTS.items()},
        int(left[0]) if len(left) else None,
        float(state[MARKS[-1] :].mean()),
    )


def settled(agree: Bools) -> int | None:
    """Bars before the stretch of agreement that reaches to the end; None if the last bar differs.

    >>> settled(np.array([False, True, False, True])), settled(np.array([True])), settled(np.array([True, False]))
    (3, 0, None)
    """
    wrong = np.flatnonzero(~agree)
    last = int(wrong[-1]) if len(wrong) else -1
    return last + 1 if last < len(agree) - 1 else None


def trend_strength(columns: EngineColumns) -> Floats:
    """TS of every bar, whatever its state: half a clamped RSI slope, half a clamped ADX slope (engine.md 3.1)."""
    rsi, adx = columns.floats("rsi_slope_10"), columns.floats("adx_slope_10")
    return np.asarray(np.clip((rsi + 5.0) / 10.0, 0.0, 1.0) / 2.0 + np.clip((adx + 2.0) / 4.0, 0.0, 1.0) / 2.0)


def _near(a: Floats, b: Floats, within: float | Floats) -> Bools:
    """Within a distance, or missing in both."""
    return np.asarray((np.abs(a - b) <= within) | (np.isnan(a) & np.isnan(b)))


def _all(parts: Iterable[Bools]) -> Bools:
    return np.asarray(np.logical_and.reduce(list(parts)))


def _emas(a: EngineColumns, b: EngineColumns) -> Bools:
    reach = EMA_TOLERANCE_ATR * a.floats("atr")
    return _all(_near(a.floats(name), b.floats(name), reach) for name in _EMAS)


def _indicators(a: EngineColumns, b: EngineColumns) -> Bools:
    atr = a.floats("atr")
    parts = [_near(a.floats(n), b.floats(n), INDICATOR_TOLERANCE * width) for n, width in _RANGES.items()]
    return _all([*parts, _near(atr, b.floats("atr"), INDICATOR_TOLERANCE * atr)])


def _scores(*names: str) -> Callable[[EngineColumns, EngineColumns], Bools]:
    return lambda a, b: _all(_near(a.floats(name), b.floats(name), SCORE_TOLERANCE) for name in names)


def _flags(a: EngineColumns, b: EngineColumns) -> Bools:
    gates = zip(flags_over(a, BASE_GATES), flags_over(b, BASE_GATES), strict=True)
    return _all([*(x == y for x, y in gates), *(np.asarray(a[name] == b[name]) for name in _FLAGS)])


_AGREEMENTS: Mapping[str, Callable[[EngineColumns, EngineColumns], Bools]] = {
    "emas": _emas,
    "orders": lambda a, b: _all(np.asarray(a[name] == b[name]) for name in _ORDERS),
    "trend_strength": lambda a, b: _near(trend_strength(a), trend_strength(b), SCORE_TOLERANCE),
    "indicators": _indicators,
    "support": _scores("sr_raw_e333"),
    "state": lambda a, b: np.asarray(a.state == b.state),
    "scores": _scores(*_SCORES),
    "flags": _flags,
}


def summary(starts: Iterable[Start], timeframes: Iterable[str]) -> dict[str, Json]:
    """Per timeframe: how many starts, how long they took by quantity, and how long the state made them wait."""
    found = list(starts)
    return {tf: _of_timeframe([s for s in found if s.timeframe == tf]) for tf in timeframes}


def _of_timeframe(starts: list[Start]) -> dict[str, Json]:
    if not starts:
        return {"starts": 0}
    return {
        "starts": len(starts),
        "bars": {"least": min(s.bars for s in starts), "most": max(s.bars for s in starts)},
        "left_s4": _quantiles([s.left_s4 for s in starts]),
        "state_equal_after_1000": round(float(np.mean([s.state_share for s in starts])), 4),
        "free_of_state": {name: _quantiles([s.until[name] for s in starts]) for name in FREE},
        "bound_to_state": {n: _quantiles([s.until[n] for s in starts]) for n in _AGREEMENTS if n not in FREE},
    }


def _quantiles(counts: list[int | None]) -> dict[str, Json]:
    """Median, 90th percentile and maximum in bars, shares by 333 and 1,000 bars, and how many never came to rest.

    A start that never did counts as the longest; a quantile that falls on one is None.
    """
    bars = np.array([np.inf if count is None else count for count in counts])
    rest = bars[np.isfinite(bars)]
    middle, late = np.quantile(bars, [0.5, 0.9], method="higher").tolist()
    return {
        "median": int(middle) if np.isfinite(middle) else None,
        "p90": int(late) if np.isfinite(late) else None,
        "max": int(rest.max()) if len(rest) else None,
        **{f"by_{mark}": round(float((bars <= mark).mean()), 4) for mark in MARKS},
        "never": len(bars) - len(rest),
    }
