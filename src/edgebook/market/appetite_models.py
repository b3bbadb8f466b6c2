"""The two other models of appetite A and assertiveness E (trading.md 3.2, options): flags only, and phases.

The setting ``appetite_model`` chooses: ``driver`` (`market.appetite`, the default), ``flags`` or ``phases``. Each
model's numbers stand in one table here. What the market says is part of the regime; what depends on the book or the
token (cut pressure, open trades, age, cap) is an `Exposure` and joins at the tick: no regime snapshot knows the book.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from edgebook.domain.reading import DriverReading

MODELS = ("driver", "flags", "phases")
Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class FlagTable:
    """Every number of the flag-only model: A starts at .5 and a flag moves it by ``weight * size``, E the other way."""

    weights: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType({"usdtd": 1.0, "bucket": 0.9, "btcd": 0.7, "alt": 0.5, "btc": 0.3})
    )
    start: float = 0.5
    buy: float = 0.15
    trim: float = 0.20
    emergency: float = 0.40
    dominances: frozenset[str] = frozenset({"btcd", "usdtd"})


def _policy() -> Mapping[str, Pair]:
    return MappingProxyType(
        {"Dip": (0.2, 0.8), "Double-Dip": (0.4, 0.7), "Oh-Shit": (0.9, 0.8), "Recover": (1.0, 0.5), "Good": (0.5, 0.3),
         "Euphoria": (0.4, 0.5)}
    )  # fmt: skip


def _macro() -> Mapping[str, Pair]:
    return MappingProxyType(
        {"Dip": (0.6, 1.4), "Double-Dip": (0.8, 1.2), "Oh-Shit": (1.2, 0.8), "Recover": (1.3, 1.0), "Good": (1.1, 1.1),
         "Euphoria": (1.0, 1.4)}
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PhaseTable:
    """Every number of the phase model.

    Attributes:
        policy: (A, E) per meso phase; an unknown phase is ``neutral``.
        macro: factors of (A, E) per macro phase; an unknown phase leaves them.
        cut: share by which full cut pressure lowers A and raises E.
        crowd, crowded, roomy: number of open trades at which nothing happens; exponent per trade above; share per trade
            below.
        age_boost: (hours below which, factor); cap_boost: (USD below which, factor).
        tension, crowding, crowd_mid, crowd_width, dominance: weights of what makes cut pressure.
        alpha, step, hours: its EMA: share of the way per hour, largest step, hours looked back.
        steepness: of the logistic that turns score and curvature into shares.
        tension_weights: of ``s(S)``, ``s(S) s(-C)`` and ``-s(-S) s(C)``.
    """

    policy: Mapping[str, Pair] = field(default_factory=_policy)
    macro: Mapping[str, Pair] = field(default_factory=_macro)
    neutral: Pair = (0.5, 0.5)
    cut: float = 0.33
    crowd: int = 9
    crowded: float = 0.1
    roomy: float = 0.05
    age_boost: tuple[tuple[float, float], ...] = ((6.0, 1.15), (12.0, 1.10), (72.0, 1.05))
    cap_boost: tuple[tuple[float, float], ...] = ((1e5, 1.15), (5e5, 1.10), (1e6, 1.05))
    tension: float = 0.55
    crowding: float = 0.25
    crowd_mid: float = 12.0
    crowd_width: float = 4.0
    dominance: float = 0.10
    alpha: float = 0.15
    step: float = 0.20
    hours: int = 48
    steepness: float = 1.2
    tension_weights: tuple[float, float, float] = (0.6, 0.4, 0.6)


FLAGS = FlagTable()
PHASED = PhaseTable()


@dataclass(frozen=True, slots=True)
class Exposure:
    """What the phase model must know beside the market.

    Attributes:
        active: open trades of the book.
        cut_pressure: in [0, 1].
        age_hours, mcap_usd: of the token; None when unknown, which boosts nothing.
    """

    active: int = PHASED.crowd
    cut_pressure: float = 0.0
    age_hours: float | None = None
    mcap_usd: float | None = None


# ---------------------------------------------------------------- flags


def flag_appetite(readings: Iterable[DriverReading], table: FlagTable = FLAGS) -> Pair:
    """(A, E) before clamping from flags alone; a flag of a driver counts once, on whichever horizon it is up.

    A buy flag is risk-on and a trim flag risk-off, the other way round for dominances; an emergency is always risk-off.

    >>> up = DriverReading("usdtd", "meso", 0, "S3", "S3", True, False, False, False, "")
    >>> flag_appetite([up, up])
    (0.35, 0.65)
    """
    up: dict[str, set[str]] = {}
    for one in readings:
        buys = one.buy_signal if one.state == "S1" else one.buy_flag
        shown = (("buy", buys), ("trim", one.trim_flag), ("emergency", one.emergency))
        up.setdefault(one.driver, set()).update(name for name, on in shown if on)
    lean = 0.0
    for driver, flags in up.items():
        sign = -1.0 if driver in table.dominances else 1.0
        own = sign * (table.buy * ("buy" in flags) - table.trim * ("trim" in flags))
        lean += table.weights[driver] * (own - table.emergency * ("emergency" in flags))
    return table.start + lean, table.start - lean


# ---------------------------------------------------------------- phases


def phase_appetite(meso: str, macro: str, table: PhaseTable = PHASED) -> Pair:
    """(A, E) of the market: the meso phase's policy times the macro phase's factors.

    >>> phase_appetite("Dip", "Unknown"), phase_appetite("Unknown", "Unknown")
    ((0.2, 0.8), (0.5, 0.5))
    """
    a, e = table.policy.get(meso, table.neutral)
    times_a, times_e = table.macro.get(macro, (1.0, 1.0))
    return a * times_a, e * times_e


def exposed(market: Pair, exposure: Exposure, intent: Pair, multiplier: float, table: PhaseTable = PHASED) -> Pair:
    """(A, E) in [0, 1] of one token: cut pressure, open trades, intent, boosts, bucket multiplier, clamp.

    >>> exposed((0.5, 0.3), Exposure(), (0.0, 0.0), 1.0)
    (0.5, 0.3)
    """
    cut = table.cut * exposure.cut_pressure
    times_a, times_e = _room(exposure.active, table)
    a = market[0] * (1.0 - cut) * times_a + intent[0]
    e = market[1] * (1.0 + cut) * times_e + intent[1]
    boost = _step(table.age_boost, exposure.age_hours) * _step(table.cap_boost, exposure.mcap_usd)
    return _unit(a * boost * multiplier), _unit(e * boost / max(multiplier, 0.2))


def _room(active: int, table: PhaseTable) -> Pair:
    over = active - table.crowd
    if over > 0:
        return math.exp(-table.crowded * over), math.exp(table.crowded * over)
    return 1.0 - table.roomy * over, 1.0 + table.roomy * over


def _step(steps: tuple[tuple[float, float], ...], value: float | None) -> float:
    return 1.0 if value is None else next((factor for below, factor in steps if value < below), 1.0)


# ---------------------------------------------------------------- cut pressure


def market_pressure(score: float, curvature: float, dominance: float, table: PhaseTable = PHASED) -> float:
    """What the market adds to cut pressure: tension of the meso score, and what the dominances do.

    Args:
        score, curvature: of the meso phase score; NaN counts as 0.
        dominance: -1 (falling), 0 or 1 (rising).
    """
    s = 0.0 if math.isnan(score) else score
    c = 0.0 if math.isnan(curvature) else curvature
    high, late, low = table.tension_weights
    up, down = (_share(x, table) for x in (s, -s))
    tension = _unit(high * up + late * up * _share(-c, table) - low * down * _share(c, table))
    return table.tension * tension + table.dominance * dominance


def cut_pressure(hours: Sequence[tuple[float, int]], table: PhaseTable = PHASED) -> float:
    """Cut pressure in [0, 1] after some hours, oldest first; 0 without any.

    Args:
        hours: per hour what the market adds (`market_pressure`) and how many trades were open.
    """
    value: float | None = None
    for market, active in hours:
        crowd = table.crowding * (0.5 + 0.5 * math.tanh((active - table.crowd_mid) / table.crowd_width))
        target = _unit(market + crowd)
        if value is None:
            value = target
        else:
            value += max(-table.step, min(table.step, table.alpha * (target - value)))
    return value or 0.0


def _share(x: float, table: PhaseTable) -> float:
    return 1.0 / (1.0 + math.exp(-table.steepness * x))


def _unit(x: float) -> float:
    return min(1.0, max(0.0, x))
