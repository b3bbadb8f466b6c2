"""Outcomes of chances as a test writes them, and attempts of them as strands: what learning reads of shadows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgebook.domain.decay import HOUR
from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.pattern import EPISODE_PATTERN
from edgebook.domain.shadow import ShadowOutcome, ShadowsClosed
from edgebook.domain.strands import EpisodeSummary, LeverEvidence, Strand, WindowOutcome

SCOPE: Mapping[str, str | int] = {"macro_phase": "Good", "bucket": "micro", "timeframe": "1h", "A_mode": "normal"}
BASE: Mapping[str, float] = {name: lever.base for name, lever in LEVERS.items() if lever.polarity}


def chance(margins: Mapping[str, float], /, kind: str = "s1_entry", **change: Any) -> ShadowOutcome:
    """A chance with a margin per lever, worth 1 R by each of them unless ``values`` is given in ``change``."""
    assert set(margins) <= set(GATE_LEVERS[kind]), "margins are of gates of the episode"
    given: dict[str, Any] = {
        "window_id": "w",
        "episode_type": kind,
        "window_kind": "signal",
        "entered": False,
        "flag_on": all(u >= 0 for u in margins.values()),
        "blocked_by": (),
        "entry_ts": 0,
        "exit_ts": HOUR,
        "entry_price": 100.0,
        "exit_price": 101.0,
        "roi": 0.01,
        "rr": 1.0,
        "actions": 2,
        "scope": dict(SCOPE),
        "margins": dict(margins),
        "thresholds": dict(BASE),
        "values": dict.fromkeys(margins, 1.0),
    }
    return ShadowOutcome(**(given | change))


def attempt(ident: str, chances: Sequence[ShadowOutcome], ts: int = HOUR, timeframe: str = "1h") -> Strand:
    """A ``shadows_closed`` strand."""
    payload = ShadowsClosed("s1_to_s0_bearish_order", tuple(chances))
    return Strand(ident, payload, ts, ts, "pm", "TOKUSDT", timeframe, position_id="position-1")


def episode(ident: str, outcome: str, margins: Mapping[str, float], kind: str = "s1_entry", ts: int = HOUR) -> Strand:
    """An ``uptrend_episode_summary`` strand of one window, with evidence on each gate at these margins."""
    levers = tuple(
        LeverEvidence(name, 0.6, 0.6, 0.0, u, min(1.0, abs(u)), 1.0, "", True) for name, u in margins.items()
    )
    entered, pattern = outcome in ("success", "failure"), EPISODE_PATTERN[kind]
    rr = {"success": 1.7, "failure": -0.9}.get(outcome)
    window = WindowOutcome("w", "signal", 0, ts, entered, outcome, (), dict(SCOPE), levers, rr)
    payload = EpisodeSummary(kind, outcome, entered, False, 0, ts, 5, *pattern, (window,))
    return Strand(ident, payload, ts, ts, "pm", episode_id=ident, scope=dict(SCOPE))
