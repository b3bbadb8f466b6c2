"""Coefficients of an allocation: what closed trades say of one value of one dimension, and how a decision used it
(trading.md 1.6; decisions 42)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Coefficient:
    """Evidence on one value of one dimension, e.g. ``curator`` = ``ann``; folded from closed first trades
    (``trading.coefficients.evolve_coefficients``).

    ``n`` is how many closed decisions it rests on and ``sum_r`` the sum of their rr, both decayed to ``anchor_ts``
    (microseconds UTC, the newest close in it). For ``timeframe`` a closed first trade counts, not a decision.
    """

    dim: str
    value: str
    n: float = 0.0
    sum_r: float = 0.0
    anchor_ts: int = 0

    @property
    def key(self) -> str:
        """Row key."""
        return coefficient_key(self.dim, self.value)


@dataclass(frozen=True, slots=True)
class CoefficientPart:
    """What one dimension of a decision's scope did to its allocation.

    Attributes:
        n: closed decisions behind it, decayed to the decision.
        effect_r: their mean rr over that of all, shrunk, in R; of a pair what it adds to its two dimensions.
        learned: its factor of ``coefficient_mult``; of a timeframe the weight of its share of the split.
        static: its factor of ``static_mult``.
    """

    dim: str
    value: str
    n: float
    effect_r: float
    learned: float
    static: float = 1.0


def coefficient_key(dim: str, value: str) -> str:
    """Row key of one value of one dimension.

    >>> coefficient_key("curator", "ann")
    'curator|ann'
    """
    return f"{dim}|{value}"
