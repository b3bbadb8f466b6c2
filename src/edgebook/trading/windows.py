"""Gate windows: bars on which a buy was near, their samples, and what they say about each gate (trading.md 5,
learning.md 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from edgebook.domain.book import ClosedWindow, OpenWindow
from edgebook.domain.levers import GATE_LEVERS, lever
from edgebook.domain.pattern import EPISODE_PATTERN
from edgebook.domain.reading import MarketReading
from edgebook.domain.strands import BuyWindow, LeverEvidence, WindowSample
from edgebook.domain.values import replace
from edgebook.engine.gates import BASE_GATES, Check, GateReport, Gates
from edgebook.trading.rules import EpisodeRules

KNOTS = (0.25, 0.5, 0.75, 1.0)
#: Lever -> (check it is judged by, measured value in the sample, sign of observed - threshold when passed).
_JUDGED: dict[str, tuple[str, str, int]] = {
    "ts_min": ("ts_min", "ts_with_boost", 1),
    "sr_boost": ("ts_min", "ts_with_boost", 1),
    "halo": ("halo", "halo_distance", -1),
    "slope_min": ("slope_min", "slope", 1),
    "slow_slope_min": ("slow_slope_min", "slope", 1),
    "dx_min": ("dx_min", "dx_score", 1),
    "edx_supp_mult": ("dx_min", "dx_score", 1),
}
_SUMMARISED = ("ts_with_boost", "sr_boost", "halo_distance", "slope", "dx_score", "edx_score", "price_pos")


def zone(reading: MarketReading, rules: EpisodeRules) -> str:
    """Episode type whose window is open on this bar, "" for none: the wide trigger on base gates (decisions 28).

    S1: price within (1.0 + 0.5) ATR of EMA60. S3: EMA333 <= price <= EMA144. Learned gates have no say in it.
    """
    if reading.state == "S1":
        reach = (BASE_GATES.halo + rules.s1_halo_extra_atr) * reading.atr
        return "s1_entry" if abs(reading.price - reading.ema60) <= reach and reading.atr > 0 else ""
    if reading.state == "S3" and reading.ema333 <= reading.price <= reading.ema144:
        return "s3_retest"
    return ""


# ---------------------------------------------------------------- samples


def margins_of(episode_type: str, reading: MarketReading, report: GateReport) -> dict[str, float | None]:
    """``u`` of every gate of the episode: distance from the gate in severity caps, 0 or more passed, None if not known.

    ``u = polarity * (observed - threshold in force) / cap``. ``sr_boost`` is judged by TS with boost against
    ``ts_min``, only where there is a boost and TS alone fails; ``edx_supp_mult`` by DX against the required DX, only
    where there is suppression.
    """
    checks = {check.name: check for check in report.checks}
    return {name: _margin(name, checks, reading, report) for name in GATE_LEVERS[episode_type]}


def _margin(name: str, checks: Mapping[str, Check], reading: MarketReading, report: GateReport) -> float | None:
    check = checks.get(judged_by(name))
    if check is None or check.margin != check.margin:
        return None
    if name == "sr_boost" and not (report.sr_boost > 0 and reading.ts_score < check.threshold):
        return None
    if name == "edx_supp_mult" and not report.edx_suppression > 0:
        return None
    return check.margin / _cap(name, reading.timeframe)


def judged_by(name: str) -> str:
    """The check that says whether a gate lever's buy passes: its own, but for the two that work through another."""
    return _JUDGED[name][0]


def _cap(name: str, timeframe: str) -> float:
    return lever(_JUDGED[name][0], timeframe).cap


def sample_of(
    episode_type: str, reading: MarketReading, report: GateReport, a_base: float, e_base: float
) -> WindowSample:
    """One bar of a window: scores, margins and what failed. Values that are not known are None."""
    if episode_type == "s1_entry":
        passed = {check.name: float(check.passed) for check in report.checks}
        values: dict[str, float | None] = {
            "ts_score": _known(reading.ts_score),
            "ts_with_boost": _known(report.ts_with_boost),
            "sr_boost": _known(report.sr_boost),
            "entry_zone_ok": passed.get("halo"),
            "slope_ok": passed.get("slope_min"),
            "ts_ok": passed.get("ts_min"),
            "slope": _larger(reading.ema60_slope, reading.ema144_slope),
            "ema60_slope": _known(reading.ema60_slope),
            "ema144_slope": _known(reading.ema144_slope),
            "halo_distance": _known(report.halo_distance_atr),
            "ema60": _known(reading.ema60),
        }
        flag, base = report.flags.buy_signal, report.flags_base.buy_signal
    else:
        values = {
            "ts_score": _known(reading.ts_score),
            "ts_with_boost": _known(report.ts_with_boost),
            "sr_boost": _known(report.sr_boost),
            "dx_score": _known(reading.dx),
            "dx_required": _known(report.dx_threshold_final),
            "edx_score": _known(reading.edx),
            "edx_suppression": _known(report.edx_suppression),
            "price_pos": _known(report.price_pos),
            "slope": _larger(reading.ema250_slope, reading.ema333_slope),
            "ema250_slope": _known(reading.ema250_slope),
            "ema333_slope": _known(reading.ema333_slope),
            "ema144": _known(reading.ema144),
            "ema333": _known(reading.ema333),
        }
        flag, base = report.flags.buy_flag, report.flags_base.buy_flag
    values["a_base"], values["e_base"], values["atr"] = a_base, e_base, _known(reading.atr)
    margins = margins_of(episode_type, reading, report)
    moved = _moved(report.gates, episode_type)
    return WindowSample(reading.ts, flag, reading.price, values, margins, report.blocked_by, base, moved)


def _moved(gates: Gates, episode_type: str) -> dict[str, float]:
    """Gates of the episode that are not at their base."""
    if gates is BASE_GATES:
        return {}
    return {n: value for n in GATE_LEVERS[episode_type] if (value := getattr(gates, n)) != getattr(BASE_GATES, n)}


def _known(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None


def _larger(a: float, b: float) -> float | None:
    return _known(a if a > b else b) if a == a and b == b else None


def keep_samples(samples: Sequence[WindowSample], limit: int, entry_ts: int = 0) -> tuple[WindowSample, ...]:
    """At most ``limit`` samples in order of time: first, last and entry bar, the first the gates let pass, per gate the
    one that decides it, then those that cross a severity knot (|u| = .25, .5, .75, 1), then the earliest others.

    Pruning one bar at a time keeps what pruning at the end would: the deciding sample of a gate stays the deciding one.
    """
    if len(samples) <= limit:
        return tuple(samples)
    wanted = [0, len(samples) - 1, *(i for i, s in enumerate(samples) if entry_ts and s.ts == entry_ts)]
    wanted += [i for i, s in enumerate(samples) if s.flag_on][:1]
    for name in sorted(samples[0].margins):
        best = _deciding(samples, name)
        wanted += [] if best < 0 else [best]
    wanted += [i for name in sorted(samples[0].margins) for i in _crossings(samples, name)]
    order = dict.fromkeys([*wanted, *range(len(samples))])
    return tuple(samples[i] for i in sorted(list(order)[:limit]))


def _crossings(samples: Sequence[WindowSample], name: str) -> list[int]:
    found, before = [], None
    for i, sample in enumerate(samples):
        u = sample.margins.get(name)
        step = None if u is None else sum(abs(u) >= knot for knot in KNOTS)
        if step is not None and before is not None and step != before:
            found.append(i)
        before = step
    return found


def _deciding(samples: Sequence[WindowSample], name: str) -> int:
    """Index of the sample with the smallest |u| of ``name`` where every other gate passes, -1 if none (decisions
    28)."""
    own = judged_by(name)
    best, best_u = -1, math.inf
    for i, sample in enumerate(samples):
        u = sample.margins.get(name)
        if u is None or abs(u) >= best_u or any(blocked != own for blocked in sample.blocked_by):
            continue
        best, best_u = i, abs(u)
    return best


# ---------------------------------------------------------------- evidence


def lever_evidence(
    samples: Sequence[WindowSample], episode_type: str, timeframe: str, entry_ts: int = 0
) -> tuple[LeverEvidence, ...]:
    """What a window says about each gate; gates it says nothing about are left out.

    The deciding sample is the entry bar if entered, else the one of smallest |u| with all other gates passed.
    ``confidence`` is the share of samples on the same side of the gate; the window's share of its episode comes in when
    that closes.
    """
    entry = next((s for s in samples if entry_ts and s.ts == entry_ts), None)
    found: list[LeverEvidence] = []
    for name in GATE_LEVERS[episode_type]:
        best = _deciding(samples, name) if entry is None else -1
        sample = samples[best] if best >= 0 else entry
        u = sample.margins.get(name) if sample else None
        if sample is None or u is None:
            continue
        check, observed, sign = _JUDGED[name]
        sides = [v >= 0 for s in samples if (v := s.margins.get(name)) is not None]
        delta = sign * u * _cap(name, timeframe)
        value = sample.values.get(observed) or 0.0
        found.append(
            LeverEvidence(
                lever=name,
                value=value,
                threshold=value - delta,
                delta=delta,
                margin=u,
                severity=min(1.0, abs(u)),
                confidence=sides.count(u >= 0) / len(sides),
                direction="",
                sole_blocker=sample.blocked_by == (check,),
            )
        )
    return tuple(found)


def direction(outcome: str, u: float) -> str:
    """Which way an outcome pulls a gate: failures just inside tighten, chances missed just outside loosen (learning.md
    4).

    >>> direction("failure", 0.3), direction("missed", -0.3), direction("missed", -1.5), direction("success", 0.1)
    ('tighten', 'loosen', 'hold', 'hold')
    """
    if outcome == "failure" and 0 <= u < 1:
        return "tighten"
    return "loosen" if outcome == "missed" and -1 < u < 0 else "hold"


def with_outcome(levers: Sequence[LeverEvidence], outcome: str, share: float) -> tuple[LeverEvidence, ...]:
    """The evidence once the outcome is known: direction set, confidence times the window's ``share`` of its episode's
    samples."""
    return tuple(replace(e, direction=direction(outcome, e.margin), confidence=e.confidence * share) for e in levers)


# ---------------------------------------------------------------- close


def close_window(window: OpenWindow, episode_type: str, timeframe: str, ended_at: int) -> ClosedWindow:
    """The window as it stands after its last bar, outcome still unknown.

    ``blocked_by`` is empty if entered; else what an order of it failed on, else the rules that stood in the way on
    every bar.
    """
    blocked = () if window.entered else window.failed or (() if window.takeable else window.blocked_by)
    return ClosedWindow(
        id=window.id,
        window_kind="signal" if window.signal else "near_miss",
        index=window.index,
        started_at=window.started_at,
        ended_at=ended_at,
        bars=window.bars,
        entered=window.entered,
        entry_strand_id=window.entry_strand_id,
        trimmed=False,
        blocked_by=blocked,
        outcome="",
        scope=window.scope,
        thresholds=window.thresholds,
        samples=window.samples,
        levers=lever_evidence(window.samples, episode_type, timeframe, window.entry_ts if window.entered else 0),
        config_version=window.config_version,
        entry_ts=window.entry_ts if window.entered else 0,
    )


def window_payload(window: ClosedWindow, episode_type: str) -> BuyWindow:
    """The ``uptrend_buy_window`` payload of a closed window."""
    pattern = EPISODE_PATTERN[episode_type]
    return BuyWindow(
        window_id=window.id,
        episode_type=episode_type,
        window_kind=window.window_kind,
        index=window.index,
        started_at=window.started_at,
        ended_at=window.ended_at,
        bars=window.bars,
        entered=window.entered,
        entry_strand_id=window.entry_strand_id,
        trimmed=window.trimmed,
        blocked_by=window.blocked_by,
        outcome=window.outcome,
        pattern_key=pattern.key,
        action_category=pattern.category,
        thresholds_effective=window.thresholds,
        samples=window.samples,
        summary=summarise(window.samples),
        levers=with_outcome(window.levers, window.outcome, 1.0) if window.outcome else window.levers,
        entry_ts=window.entry_ts,
    )


def summarise(samples: Sequence[WindowSample]) -> dict[str, dict[str, float]]:
    """Minimum, maximum, median and count per metric over the kept samples; metrics that are never known are left
    out."""
    summary: dict[str, dict[str, float]] = {}
    for name in _SUMMARISED:
        known = [v for s in samples if (v := s.values.get(name)) is not None]
        if known:
            summary[name] = {
                "min": min(known),
                "max": max(known),
                "median": median(known),
                "sample_count": float(len(known)),
            }
    return summary
