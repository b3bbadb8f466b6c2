"""A seeded market with something to find: many attempts whose end depends on what learning may look at.

An attempt is one trend of one token on one timeframe. It offers a chance in S1 at a random distance ``u`` from a gate
(in severity caps from the gate's base, positive inside), and where that succeeds it may offer a dip in S3 at another
distance from a gate of its own. How often a chance succeeds is said by the scenario, from token, moment and distance:
that is the truth the system has to find. Everything follows from a seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.levers import LEVERS
from edgebook.domain.timeframe import micros
from edgebook.flow.story import Story, iso, signal

PRICE = 100.0
#: Rise of a chance that succeeds and fall of one that fails, in logs of the price.
RISE, FALL = 0.025, 0.02
#: What EDX asks more of DX where a dip lies near ``edx_supp_mult``.
SUPPRESSION = 0.1
#: One market cap per cap class, USD.
CAPS: Mapping[str, float] = {"micro": 2e6, "mid": 2e7, "big": 2e8, "large": 7e8}
#: State of the drivers on a good and on a bad day.
_DRIVERS = {"good": "S1", "bad": "S0"}

Scores = Callable[[float], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Chance:
    """One chance: its first bar closes at ``at``, in ``state``, ``u`` caps inside its gate."""

    symbol: str
    timeframe: str
    at: int
    state: str
    u: float


Odds = Callable[[Chance], float]
"""Probability that a chance succeeds."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How tokens live.

    Attributes:
        rest: bars of calm between two attempts, at least and at most.
        entries, dips: how many caps inside its gate a chance in S1, a dip in S3 lies, at least and at most; no dips
            where that is None.
        lever, dip_lever: the gate that chances in S1 lie near, and that of dips in S3.
    """

    rest: tuple[int, int] = (1, 3)
    entries: tuple[float, float] = (-1.4, 1.4)
    dips: tuple[float, float] | None = (-1.4, 1.4)
    lever: str = "ts_min"
    dip_lever: str = "dx_min"


@dataclass(slots=True)
class _Bar:
    at: int
    state: str
    level: float | None
    scores: Scores


@dataclass(slots=True)
class Market:
    """A story that fills itself: give it tokens and let them live.

    Attributes:
        days: regime of each day; empty where there are none (`turns`).
        until: when the last attempt has to be over, microseconds UTC; 0 is the story's end.
    """

    story: Story
    seed: int
    days: Sequence[str] = ()
    until: int = 0

    @property
    def last_day(self) -> int:
        """Number of the story's last day, counted from 0."""
        return (self.story.end - self.story.start - 1) // DAY

    def day_of(self, at: int) -> int:
        """Number of the day that a bar closing at ``at`` belongs to; the last one for what comes after the end."""
        return min((at - self.story.start - 1) // DAY, self.last_day)

    def live(
        self, symbol: str, timeframes: Sequence[str], odds: Odds, habits: Mapping[str, Habits] | None = None
    ) -> None:
        """Tell of a token from the start to the end on some timeframes; each adds its own moves to the price."""
        told = {tf: self._life(symbol, tf, odds, (habits or {}).get(tf, Habits())) for tf in timeframes}
        levels = dict.fromkeys(timeframes, 0.0)
        moves: dict[int, list[tuple[str, float]]] = {}
        for timeframe, bars in told.items():
            for bar in bars:
                if bar.level is not None:
                    moves.setdefault(bar.at, []).append((timeframe, bar.level))
        price: dict[int, float] = {}
        for at in sorted({bar.at for bars in told.values() for bar in bars}):
            levels.update(moves.get(at, ()))
            price[at] = PRICE * math.exp(math.fsum(levels.values()))
            if at in moves:
                self.story.line(symbol=symbol, ts=iso(at), price=price[at])
        for timeframe, bars in told.items():
            for bar in bars:
                said = {"state": bar.state, **bar.scores(price[bar.at])}
                self.story.line(symbol=symbol, timeframe=timeframe, ts=iso(bar.at), **said)

    def _life(self, symbol: str, timeframe: str, odds: Odds, habits: Habits) -> list[_Bar]:
        rng, step = random.Random(f"{self.seed} {symbol} {timeframe}"), micros(timeframe)
        bars: list[_Bar] = []
        at = self.story.start + 2 * step
        while True:
            at += rng.randint(*habits.rest) * step
            attempt = self._attempt(Chance(symbol, timeframe, at, "S1", 0.0), rng, odds, habits)
            if attempt[-1].at > (self.until or self.story.end):
                return bars
            bars += attempt
            at = attempt[-1].at + step

    def _attempt(self, first: Chance, rng: random.Random, odds: Odds, habits: Habits) -> list[_Bar]:
        bars, step = [_Bar(first.at, "S1", None, _far)], micros(first.timeframe)

        def then(state: str, level: float | None = None, scores: Scores = _far) -> None:
            bars.append(_Bar(bars[-1].at + step, state, level, scores))

        def offer(state: str, span: tuple[float, float]) -> tuple[float, bool]:
            u = rng.uniform(*span)
            chance = Chance(first.symbol, first.timeframe, bars[-1].at + step, state, u)
            return u, rng.random() < odds(chance)

        u, good = offer("S1", habits.entries)
        for _ in range(2):
            then("S1", None, _near_s1(habits.lever, u))
        if not good:
            then("S1", -FALL)
            then("S0")
            then("S0", 0.0)
            return bars
        up = RISE + rng.gauss(0.0, 0.001)
        for state, level in (("S1", up / 2), ("S2", up), ("S3", None)):
            then(state, level)
        if habits.dips is not None:
            u, good = offer("S3", habits.dips)
            for _ in range(2):
                then("S3", None, _near_s3(habits.dip_lever, u))
            if good:
                up += RISE + rng.gauss(0.0, 0.001)
                then("S3", up)
                then("S3", None, _top)
            else:
                up -= FALL
                then("S3", up, _emergency)
        then("S0")
        then("S0", 0.0)
        return bars


def _far(price: float) -> dict[str, Any]:
    """A bar far from every zone."""
    return {}


def _near_s1(lever: str, u: float) -> Scores:
    """An S1 bar ``u`` caps inside one gate and well inside the others."""
    row = LEVERS[lever]
    at = row.base + row.polarity * u * row.cap
    if lever == "halo":
        return lambda price: {"ts_score": 0.9, "ema60": price * (1 - 0.01 * at)}
    if lever == "slope_min":
        return lambda price: {"ts_score": 0.9, "ema60": price, "ema60_slope": at, "ema144_slope": at}
    return lambda price: {"ts_score": at, "ema60": price}


def _near_s3(lever: str, u: float) -> Scores:
    """An S3 bar ``u`` caps inside one gate and well inside the others, a third of the way down the hallway: nothing is
    added to DX there. Under ``edx_supp_mult`` EDX asks `SUPPRESSION` more of DX; u is in caps of ``dx_min``."""
    dx = LEVERS["dx_min"]

    def bar(price: float) -> dict[str, Any]:
        scores = {"ts_score": 0.9, "ema144": price * 1.003, "ema333": price * 0.994}
        if lever == "slow_slope_min":
            slope = LEVERS[lever].base + u * LEVERS[lever].cap
            return scores | {"dx": 0.95, "ema250_slope": slope, "ema333_slope": slope}
        more = SUPPRESSION if lever == "edx_supp_mult" else 0.0
        return scores | {"dx": dx.base + more + u * dx.cap, "edx_suppression": more}

    return bar


def _top(price: float) -> dict[str, Any]:
    return {"ox": 0.8, "nearest_level_price": price, "nearest_level_distance_atr": 0.0}


def _emergency(price: float) -> dict[str, Any]:
    return {"ema144": price * 1.02, "ema333": price * 1.01}


def shuffled(seed: int, count: int) -> list[str]:
    """Good and bad days, as many of each, in random order."""
    days = [("good", "bad")[day % 2] for day in range(count)]
    random.Random(f"{seed} days").shuffle(days)
    return days


def turns(story: Story, days: Sequence[str], drivers: Sequence[str]) -> None:
    """A market at large of good and bad days: on a good day the drivers stand in S1 on their daily and hourly bars, on
    a bad one in S0, which makes the add appetite ``aggressive`` or ``patient``."""
    for day, regime in enumerate(days):
        if regime == (days[day - 1] if day else "bad"):
            continue
        for driver in drivers:
            for timeframe in ("1h", "1d") if day else ("1h",):
                story.driver(driver, timeframe, max(story.start + day * DAY, story.start + HOUR), _DRIVERS[regime])


@dataclass(frozen=True, slots=True)
class Truth:
    """What is planted: a chance succeeds with ``inside`` where it lies inside the true place of its gate, else with
    ``outside``, and more or less often by cap class and by who called the token that day.

    Attributes:
        places: true place of each gate in caps from its base (positive is tighter), by (regime, state); a market
            without regimes has the regime "".
        classes, curators: what they add to the probability, which stays within .03 to .97.
    """

    places: Mapping[tuple[str, str], float]
    inside: float = 0.75
    outside: float = 0.15
    classes: Mapping[str, float] = field(default_factory=dict)
    curators: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Planted:
    """A market with a truth, and the people who call its tokens, each token once a day.

    Attributes:
        classes: cap class by token.
        callers: who calls a token on a day.
    """

    market: Market
    truth: Truth
    classes: dict[str, str] = field(default_factory=dict)
    callers: dict[tuple[str, int], str] = field(default_factory=dict)

    def odds(self, chance: Chance) -> float:
        """How often a chance succeeds."""
        day = self.market.day_of(chance.at)
        regime = self.market.days[day] if self.market.days else ""
        truth = self.truth
        inside = chance.u > truth.places[regime, chance.state]
        more = truth.classes.get(self.classes[chance.symbol], 0.0)
        more += truth.curators.get(self.callers.get((chance.symbol, day), ""), 0.0)
        return min(0.97, max(0.03, (truth.inside if inside else truth.outside) + more))

    def calls(self, day: int) -> list[str]:
        """The signals of a day, at its beginning."""
        at = self.market.story.start + day * DAY
        found = [(symbol, self.callers[symbol, day]) for symbol in self.classes]
        return [signal(f"{symbol.lower()}-{day}", symbol, at, curator=who) for symbol, who in found]


def planted(
    story: Story,
    seed: int,
    truth: Truth,
    tokens: Mapping[str, str],
    *,
    timeframes: Sequence[str] = ("1h",),
    habits: Mapping[str, Habits] | None = None,
    days: Sequence[str] = (),
    until: int = 0,
) -> Planted:
    """Tokens (name: cap class) that live by a truth, on days of these regimes, until a moment."""
    market = Market(story, seed, days, until)
    found, rng = Planted(market, truth), random.Random(f"{seed} callers")
    for symbol, cap in tokens.items():
        found.classes[story.token(symbol, price=PRICE, mcap_usd=CAPS[cap])] = cap
        for day in range(market.last_day + 1):
            found.callers[symbol, day] = rng.choice(sorted(truth.curators) or ["ann"])
    for symbol in tokens:
        market.live(symbol, timeframes, found.odds, habits)
    return found
