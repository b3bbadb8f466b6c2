"""Every formula from edge and effect to lever, once (learning.md 3 and 5; decisions 12, 21, 51)."""

from __future__ import annotations

import math

from edgebook.domain.errors import LearningError
from edgebook.domain.levers import LEVERS
from edgebook.learning.config import DEFAULT, LearningConfig


def baseline(sum_rr: float, n: int, pseudo_trades: float = DEFAULT.baseline_pseudo_trades) -> float:
    """Intercept of a family in R: mean rr shrunk to break-even with ``pseudo_trades`` (learning.md 9.7; decisions 19).

    Never per timeframe or bucket: a baseline over a scope dim would make that dim unlearnable.

    >>> baseline(6.0, 20)
    0.2
    """
    return sum_rr / (n + pseudo_trades)


def edge_raw(
    avg_rr: float,
    variance: float,
    n: int,
    base: float,
    time_efficiency: float | None = None,
    field_coherence: float | None = None,
    recurrence: float | None = None,
) -> float:
    """The seed's edge of a slice, kept for audit; levers are driven by the posterior instead (learning.md 3, 9.3).

    ``delta / (1+var) * ln(1+n) * (t+f+r)/3 / (1+var)`` with ``delta = avg_rr - base``, ``t = .5 + .5*time_efficiency``,
    ``f = .5 + .5*field_coherence`` (1 where absent), ``r = .5 + .5*tanh(recurrence)`` (.5 where absent). 0 for n = 0.

    >>> round(edge_raw(1.0, 1.0, 9, 0.0), 6) == round(1.0 * 0.5 * math.log(10) * 2.5 / 3 * 0.5, 6)
    True
    """
    if n <= 0:
        return 0.0
    t = 1.0 if time_efficiency is None else 0.5 + 0.5 * time_efficiency
    f = 1.0 if field_coherence is None else 0.5 + 0.5 * field_coherence
    r = 0.5 if recurrence is None else 0.5 + 0.5 * math.tanh(recurrence)
    calm = 1.0 / (1.0 + variance)
    return (avg_rr - base) * calm * calm * math.log1p(n) * (t + f + r) / 3.0


def log_target(theta: float, lever: str, kappa: float) -> float:
    """``clip(kappa * theta, ln bounds)``: what an effect of ``theta`` R asks of a multiplier, in logs (decisions 12,
    51).

    >>> round(math.exp(log_target(0.2, "alloc_mult", 1.0)), 4)
    1.2214
    >>> round(math.exp(log_target(9.0, "alloc_mult", 1.0)), 4)
    1.3
    """
    row = LEVERS[lever]
    return min(math.log(row.hi), max(math.log(row.lo), kappa * theta))


def capital_levers(category: str, theta: float, kappa: float, config: LearningConfig = DEFAULT) -> dict[str, float]:
    """The multipliers an effect of ``theta`` R asks for, by category (decisions 21, 51).

    allocation: all of it to ``alloc_mult``. entry, add: three quarters of the log to ``size_mult``, a quarter to
    ``entry_aggression_mult``, so that their product is the total. trim: ``exit_aggression_mult``. exit: no lever.

    Raises:
        LearningError: a category without levers.

    >>> levers = capital_levers("entry", 0.1, 1.0)
    >>> round(levers["size_mult"] * levers["entry_aggression_mult"], 6) == round(math.exp(0.1), 6)
    True
    """
    if category == "allocation":
        return {"alloc_mult": math.exp(log_target(theta, "alloc_mult", kappa))}
    if category in ("entry", "add"):
        total = log_target(theta, "size_mult", kappa)
        aggression = min(
            math.log(LEVERS["entry_aggression_mult"].hi),
            max(math.log(LEVERS["entry_aggression_mult"].lo), (1.0 - config.size_log_share) * total),
        )
        size = math.exp(config.size_log_share * total)
        return {"size_mult": size, "entry_aggression_mult": math.exp(aggression), "exit_aggression_mult": 1.0}
    if category == "trim":
        value = math.exp(log_target(theta, "exit_aggression_mult", kappa))
        return {"size_mult": 1.0, "entry_aggression_mult": 1.0, "exit_aggression_mult": value}
    raise LearningError(f"category {category!r} has no lever; lessons are for allocation, entry, add and trim")


def total_log(levers: dict[str, float]) -> float:
    """Log of the total multiplier one trade receives from these levers (decisions 51).

    >>> total_log({"alloc_mult": 1.0})
    0.0
    """
    return sum(math.log(value) for value in levers.values())
