"""Prices of a market that nobody scripted: seeded walks that trend up, down and sideways for a while each."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from edgebook.domain.timeframe import micros
from edgebook.flow.story import Story, iso


@dataclass(frozen=True, slots=True)
class Mood:
    """How a walk goes: drift per bar of a stretch, bars of a stretch at least and at most, standard deviation of one
    bar's log return."""

    drifts: tuple[float, ...] = (0.004, 0.002, 0.0, -0.001, -0.003)
    stretch: tuple[int, int] = (30, 110)
    noise: float = 0.006


USUAL = Mood()


def walk(rng: random.Random, bars: int, mood: Mood = USUAL) -> Iterator[float]:
    """Closes of so many bars, from a price of 100 on.

    >>> found = list(walk(random.Random(1), 200))
    >>> len(found), found == list(walk(random.Random(1), 200)), min(found) > 0
    (200, True, True)
    """
    left, drift, level = 0, 0.0, math.log(100.0)
    for _ in range(bars):
        if not left:
            left, drift = rng.randint(*mood.stretch), rng.choice(mood.drifts)
        left -= 1
        level += drift + rng.gauss(0.0, mood.noise)
        yield round(math.exp(level), 4)


def unscripted(story: Story, symbol: str, seed: int, bends_at: int | None = None) -> dict[int, float]:
    """A token that the engine reads by itself, and its closes by time: its price walks over the whole story.

    Args:
        bends_at: moment, microseconds UTC, after which it goes another way than the same walk without a bend.
    """
    step = micros(story.base)
    story.line(token=symbol, price=100.0)
    closes = {}
    for i, close in enumerate(walk(random.Random(f"{symbol}/{seed}"), (story.end - story.start) // step), start=1):
        at = story.start + i * step
        closes[at] = close if bends_at is None or at <= bends_at else round(close * (1.03 if i % 3 else 0.98), 4)
        story.line(symbol=symbol, ts=iso(at), price=closes[at])
    return closes
