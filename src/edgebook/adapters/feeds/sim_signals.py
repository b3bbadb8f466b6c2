"""Curators of the simulated market: who calls what, and how often they are right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgebook.adapters.feeds.sim_script import DAY_MINUTES, Floats

_BUY_INTENTS = ("new_discovery", "research_positive", "adding_to_position", "comparison_highlighted")
_OTHER_INTENTS = ("mention_only", "mocking_negative")
_CONFIDENCES = (0.95, 0.8, 0.6)


@dataclass(frozen=True, slots=True)
class SimCurator:
    """One curator: chances to call a token while its next attempt is being prepared, by what will come of it.

    Attributes:
        name: as in the signals.
        skill: ``good``, ``bad``, ``good on micro, bad elsewhere`` or ``none``.
        before_run: chance of a call before an attempt that will become a run.
        before_fall: chance of a call before one that will fail.
        on_micro: these two chances on micro caps, if they differ.
        after_start: chance of a call after a run has begun.
        per_day: calls per token and day that mean nothing.
    """

    name: str
    skill: str
    before_run: float = 0.0
    before_fall: float = 0.0
    on_micro: tuple[float, float] | None = None
    after_start: float = 0.0
    per_day: float = 0.0

    def odds(self, bucket: str) -> tuple[float, float]:
        """(before a run, before a fall) in this cap class."""
        return self.on_micro if self.on_micro and bucket == "micro" else (self.before_run, self.before_fall)


#: The cast; `edgebook.adapters.feeds.sim` states the measured effects.
CURATORS: tuple[SimCurator, ...] = (
    SimCurator("early", "good", 0.45, 0.02),
    SimCurator("patient", "good", 0.35, 0.02),
    SimCurator("fader", "bad", 0.005, 0.26),
    SimCurator("micro_scout", "good on micro, bad elsewhere", 0.01, 0.10, on_micro=(0.30, 0.03)),
    SimCurator("late", "none", after_start=0.20),
    SimCurator("noise_a", "none", per_day=0.35),
    SimCurator("noise_b", "none", per_day=0.35),
    SimCurator("noise_c", "none", per_day=0.35),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One mention: who, and how many minutes after the day's start (may lie in the next day)."""

    curator: str
    minute: int
    intent: str
    mapping_confidence: float


def calls_of_day(rng: np.random.Generator, bucket: str, layers: tuple[Floats, ...]) -> list[Call]:
    """All calls on one token that follow from one day's script events, in time order (ties by curator).

    Args:
        rng: of this token and day.
        bucket: cap class of the token.
        layers: events of each script layer, rows of (minute, minutes to the attempt or -1, kind, fate).
    """
    calls = [
        Call(name, minute, _intent(rng), float(rng.choice(_CONFIDENCES, p=(0.7, 0.2, 0.1))))
        for curator in CURATORS
        for name, minute in _moments(rng, curator, bucket, layers)
    ]
    return sorted(calls, key=lambda call: (call.minute, call.curator))


def _moments(
    rng: np.random.Generator, curator: SimCurator, bucket: str, layers: tuple[Floats, ...]
) -> Iterator[tuple[str, int]]:
    before_run, before_fall = curator.odds(bucket)
    for events in layers:
        for minute, ahead, _, fate in events.tolist():
            dice, when = rng.random(2).tolist()
            if ahead < 0:
                if dice < curator.after_start:
                    yield curator.name, int(minute + 15 + 45 * when)
            elif dice < (before_run if fate > 0.5 else before_fall):
                yield curator.name, int(minute + 0.15 * ahead + 0.75 * ahead * when)
    for when in rng.random(rng.poisson(curator.per_day)).tolist():
        yield curator.name, int(when * DAY_MINUTES)


def _intent(rng: np.random.Generator) -> str:
    names = _BUY_INTENTS if rng.random() < 0.92 else _OTHER_INTENTS
    return names[int(rng.integers(len(names)))]
