"""Gates: measured scores against thresholds (engine.md 4, 8). Learning moves thresholds, and only here do they act.

`evaluate` asks one reading whether it is a buy under the gates in force and, always, under the base gates, and keeps
every comparison as (observed, threshold, margin), so that a near miss can be seen. `flags_over` gives the same two
flags for a whole series. A comparison with a missing input (NaN) fails with ``missing_input``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.reading import MarketReading
from edgebook.engine.columns import S2_HALO, EngineColumns
from edgebook.engine.states import S1, S2, S3

_NAN = float("nan")
_INF = float("inf")


@dataclass(frozen=True, slots=True)
class Gates:
    """The thresholds in force, in natural units (engine.md 8); base values as defaults.

    Attributes:
        ts_min: TS with S/R boost must reach this (S1, S2, S3 DX).
        sr_boost: largest boost of TS by a level at the anchor.
        halo: S1: distance of the price from EMA60, in ATR.
        slope_min: S1: EMA60 slope above or EMA144 slope at least this, fraction per bar.
        slow_slope_min: S2, S3: EMA250 slope above or EMA333 slope at least this, fraction per bar.
        dx_min: S3: base of the DX threshold.
        edx_supp_mult: S3: how much of the EDX suppression is added to the DX threshold.
    """

    ts_min: float = 0.60
    sr_boost: float = 0.25
    halo: float = 1.0
    slope_min: float = 0.0
    slow_slope_min: float = 0.0
    dx_min: float = 0.60
    edx_supp_mult: float = 1.0

    def to_dict(self) -> dict[str, float]:
        """The values in force, by lever name."""
        return {name: getattr(self, name) for name in LEVERS} | {"s2_halo": S2_HALO}


#: Lever names of `Gates`, in the order of its fields.
LEVERS: tuple[str, ...] = ("ts_min", "sr_boost", "halo", "slope_min", "slow_slope_min", "dx_min", "edx_supp_mult")

BASE_GATES = Gates()


class Flags(NamedTuple):
    """The two flags that depend on gates: ``buy_signal`` in S1, ``buy_flag`` in S2 (retest) and S3 (DX)."""

    buy_signal: bool
    buy_flag: bool


NO_FLAGS = Flags(False, False)
_SIGNAL, _FLAG = Flags(True, False), Flags(False, True)


class Check(NamedTuple):
    """One comparison. ``margin`` is positive (or zero) when passed, in the unit of ``observed``."""

    name: str
    observed: float
    threshold: float
    passed: bool
    margin: float


@dataclass(slots=True)
class GateReport:
    """What the gates said about one reading.

    Attributes:
        flags, flags_base: the flags under the gates in force and under the base gates.
        checks: the comparisons of the state under the gates in force; empty in S0 and S4.
        blocked_by: names of failed checks: a lever (``ts_min, halo, slope_min, slow_slope_min, dx_min``) or ``zone``,
            ``emergency``, ``hallway_inverted``, ``missing_input``.
        sr_boost, ts_with_boost: boost from the anchor's level, and min(1, TS + boost).
        dx_threshold_final, edx_suppression, price_pos: S3 only, else NaN; price_pos is 0 at EMA144 and 1 at EMA333.
        halo_distance_atr: distance of the price from the anchor in ATR (S1: EMA60; S2, S3: EMA333).
    """

    state: str
    gates: Gates
    flags: Flags
    flags_base: Flags
    checks: tuple[Check, ...] = ()
    blocked_by: tuple[str, ...] = ()
    sr_boost: float = _NAN
    ts_with_boost: float = _NAN
    dx_threshold_final: float = _NAN
    edx_suppression: float = _NAN
    price_pos: float = _NAN
    halo_distance_atr: float = _NAN

    @property
    def margins(self) -> dict[str, float]:
        """Margin per check, by name."""
        return {check.name: check.margin for check in self.checks}


def evaluate(reading: MarketReading, gates: Gates, base: Gates = BASE_GATES) -> GateReport:
    """Ask a reading whether it is a buy, under ``gates`` and under ``base`` (engine.md 4).

    S1 ``buy_signal``: within ``halo`` ATR of EMA60, a rising EMA60 or EMA144, TS with boost at least ``ts_min``.
    S2 ``buy_flag``: within half an ATR of EMA333, a rising EMA250 or EMA333, TS with boost. S3 ``buy_flag``: price at
    or below EMA144, no emergency, slopes and TS as in S2, DX at least its threshold, EMA144 above EMA333.

    >>> from dataclasses import replace
    >>> r = MarketReading("X", "1h", "S1", ts=0, price=101.0, atr=2.0, ema60=100.0, ema60_slope=0.001,
    ...                   ema144_slope=0.0, ts_score=0.55, sr_strength_anchor=0.375)
    >>> report = evaluate(r, Gates())
    >>> report.flags.buy_signal, report.ts_with_boost, report.halo_distance_atr
    (True, 0.64375, 0.5)
    >>> evaluate(replace(r, ts_score=0.5), Gates()).blocked_by
    ('ts_min',)
    """
    judge = _JUDGES.get(reading.state)
    if judge is None:
        return GateReport(reading.state, gates, NO_FLAGS, NO_FLAGS)
    yes = _SIGNAL if reading.state == "S1" else _FLAG
    boost = reading.sr_strength_anchor * gates.sr_boost
    boosted = _boosted(reading.ts_score, boost)
    checks, (anchor, threshold, suppression, position) = judge(reading, gates, boosted)
    blocked = _blocked_by(checks)
    flags = NO_FLAGS if blocked else yes
    if gates == base:
        flags_base = flags
    else:
        plain = _boosted(reading.ts_score, reading.sr_strength_anchor * base.sr_boost)
        flags_base = NO_FLAGS if _blocked_by(judge(reading, base, plain)[0]) else yes
    return GateReport(
        reading.state,
        gates,
        flags,
        flags_base,
        checks,
        blocked,
        boost,
        boosted,
        threshold,
        suppression,
        position,
        anchor,
    )


def _boosted(ts_score: float, boost: float) -> float:
    """min(1, TS + boost); NaN where either is missing (Python's min would make 1 of it)."""
    total = ts_score + boost
    return 1.0 if total > 1.0 else total


def _blocked_by(checks: tuple[Check, ...]) -> tuple[str, ...]:
    """Names of the failed checks; a margin of NaN means an input was missing."""
    names: list[str] = []
    for name, _, _, passed, margin in checks:
        if not passed:
            name = name if margin == margin else "missing_input"
            if name not in names:
                names.append(name)
    return tuple(names)


_Judged = tuple[tuple[Check, ...], tuple[float, float, float, float]]


def _least(name: str, observed: float, threshold: float) -> Check:
    margin = observed - threshold
    return Check(name, observed, threshold, margin >= 0.0, margin)


def _within(name: str, distance: float, reach: float) -> Check:
    margin = reach - distance
    return Check(name, distance, reach, margin >= 0.0, margin)


def _slopes(name: str, strict: float, weak: float, minimum: float) -> Check:
    """strict > minimum or weak >= minimum; missing if either slope is."""
    known = strict == strict and weak == weak
    best = (strict if strict > weak else weak) if known else _NAN
    return Check(name, best, minimum, known and (strict > minimum or weak >= minimum), best - minimum)


def _distance(price: float, anchor: float, atr: float) -> float:
    """Distance in ATR; infinite when the ATR is not positive, so that every zone test fails."""
    return abs(price - anchor) / atr if atr > 0.0 else (_INF if atr <= 0.0 else _NAN)


def _judge_s1(r: MarketReading, gates: Gates, boosted: float) -> _Judged:
    away = _distance(r.price, r.ema60, r.atr)
    checks = (
        _within("halo", away, gates.halo),
        _slopes("slope_min", r.ema60_slope, r.ema144_slope, gates.slope_min),
        _least("ts_min", boosted, gates.ts_min),
    )
    return checks, (away, _NAN, _NAN, _NAN)


def _judge_s2(r: MarketReading, gates: Gates, boosted: float) -> _Judged:
    away = _distance(r.price, r.ema333, r.atr)
    checks = (
        _within("zone", away, S2_HALO),
        _slopes("slow_slope_min", r.ema250_slope, r.ema333_slope, gates.slow_slope_min),
        _least("ts_min", boosted, gates.ts_min),
    )
    return checks, (away, _NAN, _NAN, _NAN)


def _judge_s3(r: MarketReading, gates: Gates, boosted: float) -> _Judged:
    width = r.ema144 - r.ema333
    threshold, position = dx_threshold(r.edx_suppression, r.price, r.ema144, r.ema333, gates)
    depth = (r.ema144 - r.price) / r.atr if r.atr > 0.0 else (-_INF if r.atr <= 0.0 else _NAN)
    emergency = 1.0 if r.emergency_exit else 0.0
    checks = (
        _least("zone", depth, 0.0),
        Check("emergency", emergency, 0.0, not r.emergency_exit, -emergency),
        _slopes("slow_slope_min", r.ema250_slope, r.ema333_slope, gates.slow_slope_min),
        _least("ts_min", boosted, gates.ts_min),
        _least("dx_min", r.dx, threshold),
        Check("hallway_inverted", width, 0.0, width > 0.0, width),
    )
    return checks, (_distance(r.price, r.ema333, r.atr), threshold, r.edx_suppression, position)


_JUDGES = {"S1": _judge_s1, "S2": _judge_s2, "S3": _judge_s3}


def dx_threshold(suppression: float, price: float, e144: float, e333: float, gates: Gates) -> tuple[float, float]:
    """(dx_threshold_final, price_pos) (engine.md 3.6).

    threshold = max(0, dx_min + edx_supp_mult*suppression - (.15*pos - .05)), pos = clamp01((e144-p)/(e144-e333)),
    0 in an inverted hallway.

    >>> threshold, pos = dx_threshold(0.075, 105.0, 110.0, 100.0, Gates())
    >>> round(threshold, 12), pos
    (0.65, 0.5)
    """
    width = e144 - e333
    position = (e144 - price) / width if width > 0.0 else (0.0 if width <= 0.0 else _NAN)
    position = 0.0 if position < 0.0 else (1.0 if position > 1.0 else position)
    threshold = gates.dx_min + gates.edx_supp_mult * suppression - (0.15 * position - 0.05)
    return (0.0 if threshold < 0.0 else threshold), position


def flags_over(columns: EngineColumns, gates: Gates) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(buy_signal, buy_flag) of every bar under ``gates``: the same answers as `evaluate`, for whole series."""
    state = columns.state
    f = columns.floats
    price, atr, e144, e333 = f("price"), f("atr"), f("ema144"), f("ema333")
    with np.errstate(divide="ignore", invalid="ignore"):
        known_atr = atr > 0.0
        far60 = np.where(known_atr, np.abs(price - f("ema60")) / atr, _INF)
        far333 = np.where(known_atr, np.abs(price - e333) / atr, _INF)
        width = e144 - e333
        position = np.clip(np.where(width > 0.0, (e144 - price) / width, 0.0), 0.0, 1.0)
        strong = np.minimum(1.0, f("ts_score") + f("sr_strength_anchor") * gates.sr_boost) - gates.ts_min >= 0.0
        limit = gates.dx_min + gates.edx_supp_mult * f("edx_suppression") - (0.15 * position - 0.05)
        cheap = f("dx") - np.maximum(0.0, limit) >= 0.0
        rising = _any_slope(f("ema60_slope"), f("ema144_slope"), gates.slope_min)
        slow = _any_slope(f("ema250_slope"), f("ema333_slope"), gates.slow_slope_min)
    signal = (state == S1) & (far60 <= gates.halo) & rising & strong
    retest = (state == S2) & (far333 <= S2_HALO)
    hallway = (
        (state == S3)
        & (price <= e144)
        & known_atr
        & ~np.asarray(columns["emergency_exit"], dtype=bool)
        & (width > 0.0)
        & cheap
    )
    return np.asarray(signal), np.asarray((retest | hallway) & slow & strong)


def _any_slope(strict: NDArray[np.float64], weak: NDArray[np.float64], minimum: float) -> NDArray[np.bool_]:
    known = ~(np.isnan(strict) | np.isnan(weak))
    return np.asarray(known & ((strict > minimum) | (weak >= minimum)))
