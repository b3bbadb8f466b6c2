"""A seeded market with something to find: many attempts whose end depends on what learning may look at.

An attempt is one trend on one timeframe. It offers a chance in S1 at a random distance ``u`` from one gate (in severity
caps from its base, positive inside), and if that succeeds may offer a dip in S3 at another distance from another gate.
How often a chance succeeds is for the scenario to say, from the distance and the moment; what it says is the truth that
the system has to find out. Everything follows from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.levers import LEVERS
from edgebook.domain.timeframe import micros
from edgebook.flow.story import Story, Tale, signal

#: Rise of a chance that succeeds and fall of one that fails, fractions of its price.
RISE, FALL = 0.025, 0.02
PRICE = 100.0

Odds = Callable[[int, float], float]
"""(moment, distance from the gate in caps) -> probability that the chance succeeds."""


@dataclass(frozen=True, slots=True)
class Told:
    """One chance as it was written: when its last bar closes, in which state, how far inside its gate, how it ends."""

    symbol: str
    timeframe: str
    at: int
    state: str
    u: float
    good: bool


@dataclass(slots=True)
class Life:
    """One token's attempts on one timeframe, one after the other.

    Attributes:
        odds: of the chances in S1; dips: of those in S3, None for attempts without a dip.
        lever: the gate that the chances in S1 stand near; those in S3 stand near ``dx_min``.
        rest: bars of calm between two attempts, at least and at most.
    """

    tale: Tale
    rng: random.Random
    odds: Odds
    dips: Odds | None = None
    lever: str = "ts_min"
    rest: tuple[int, int] = (2, 6)
    reach: float = 1.5

    def until(self, end: int) -> list[Told]:
        """Live until ``end``: every attempt that begins before it, whole if the story lasts so long."""
        told: list[Told] = []
        step = micros(self.tale.timeframe)
        while True:
            self.tale.calm(self.rng.randint(*self.rest))
            if self.tale.at + 12 * step >= end:
                return told
            told += self._attempt()

    def _attempt(self) -> list[Told]:
        tale, rng = self.tale, self.rng
        u = rng.uniform(-self.reach, self.reach)
        good = rng.random() < self.odds(tale.at, u)
        up, down = (PRICE * (1 + move + rng.gauss(0, 0.001)) for move in (RISE, -FALL))
        tale.state("S1", PRICE)
        for _ in range(2):
            tale.bar(**_s1_scores(self.lever, u))
        told = [Told(tale.symbol, tale.timeframe, tale.last, "S1", u, good)]
        if not good:
            tale.bar(price=down).state("S0", down)
            return self._over(told)
        tale.bar(price=up - 1).state("S2", up).state("S3", up)
        if self.dips is None:
            tale.state("S0", up)
            return self._over(told)
        u = rng.uniform(-self.reach, self.reach)
        good = rng.random() < self.dips(tale.at, u)
        for _ in range(2):
            tale.bar(price=up, **_s3_scores(u, up))
        told.append(Told(tale.symbol, tale.timeframe, tale.last, "S3", u, good))
        if good:
            top = up * (1 + RISE)
            tale.bar(price=top).trim(top).state("S0", top)
        else:
            low = up * (1 - FALL)
            tale.emergency(low).state("S0", low)
        return self._over(told)

    def _over(self, told: list[Told]) -> list[Told]:
        self.tale.bar(price=PRICE)
        return told


def _s1_scores(lever: str, u: float) -> dict[str, float]:
    """Scores of an S1 bar ``u`` caps inside one gate and well inside all others."""
    row = LEVERS[lever]
    at = row.base + row.polarity * u * row.cap
    if lever == "halo":
        return {"ts_score": 0.9, "ema60": PRICE * (1 - 0.01 * at)}
    return {"ts_score": at, "ema60": PRICE}


def _s3_scores(u: float, price: float) -> dict[str, float]:
    """Scores of an S3 bar ``u`` caps inside ``dx_min``; a third of the way down the hallway there is no boost."""
    row = LEVERS["dx_min"]
    return {"ts_score": 0.9, "dx": row.base + u * row.cap, "ema144": price * 1.003, "ema333": price * 0.994}


def regimes(story: Story, rng: random.Random, days: int) -> list[str]:
    """A market at large that is good or bad for a day at a time; the regime of each day.

    BTC and ALT stand in S3 on their daily and hourly bars on a good day and in S0 on a bad one, which is what makes the
    add appetite ``aggressive`` or ``patient``.
    """
    found = [rng.choice(("good", "bad")) for _ in range(days + 1)]
    state = {"good": "S3", "bad": "S0"}
    before = ""
    for day, regime in enumerate(found):
        at = story.start + day * DAY
        if regime == before or at >= story.end:
            continue
        for driver in ("btc", "alt"):
            _turn(story, driver, "1h", max(at, story.start + HOUR), before, state[regime])
            if day:
                story.driver(driver, "1d", at, state[regime])
        before = regime
    return found
