"""Sizes: from appetite (A) and assertiveness (E), through what learning says, to a fraction (trading.md 3.3, 3.5).

Order: ``A' = clip(A * aggression)`` -> fraction -> payback multiplier -> ``* size_mult`` -> ``* skew`` -> clip. Full
exits read no lever.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from edgebook.domain.book import ZERO, Ledger, Position
from edgebook.domain.errors import TradingError
from edgebook.overrides.combine import Strength
from edgebook.trading.rules import SizeRules

_QTY = Decimal("0.000000001")
KINDS = ("s1", "add", "pool", "dx", "reclaim", "trim", "exit")


@dataclass(frozen=True, slots=True)
class Size:
    """The size of one action before risk limits.

    Attributes:
        fraction: of the kind's basis, after learning, in [0, 1].
        base_fraction: the same without learning.
        a_value, e_value: A and E as used (after the aggression multiplier that applies to the kind).
        basis: what the fraction is of: USD for buys, tokens for sells.
    """

    fraction: float
    base_fraction: float
    a_value: float
    e_value: float
    basis: Decimal

    @property
    def amount(self) -> Decimal:
        """``fraction * basis``: USD for buys, tokens for sells; all of the basis at fraction 1."""
        if self.fraction >= 1.0:
            return self.basis
        return (self.basis * Decimal(repr(self.fraction))).quantize(_QTY, rounding=ROUND_DOWN)


def size_fraction(kind: str, appetite: float, rules: SizeRules) -> float:
    """Fraction of its basis an action of ``kind`` takes at ``appetite`` (A for buys, E for trims), linear between the
    knots.

    Raises:
        TradingError: unknown kind.

    >>> rules = SizeRules()
    >>> [round(size_fraction("s1", a, rules), 4) for a in (0.0, 0.15, 0.325, 0.5, 0.85, 1.0)]
    [0.1, 0.1, 0.2, 0.3, 0.5, 0.5]
    >>> size_fraction("exit", 0.0, rules)
    1.0
    """
    if kind == "exit":
        return 1.0
    if kind not in KINDS:
        raise TradingError(f"size kind must be one of {', '.join(KINDS)}, was {kind!r}", stage="plan")
    lo, mid, hi = getattr(rules, kind)
    x0, x1, x2 = rules.knots
    if appetite <= x0:
        return float(lo)
    if appetite >= x2:
        return float(hi)
    if appetite <= x1:
        return float(lo + (mid - lo) * (appetite - x0) / (x1 - x0))
    return float(mid + (hi - mid) * (appetite - x1) / (x2 - x1))


def payback(ledger: Ledger) -> float:
    """Extracted over invested USD of the open trade; 0 before the first buy."""
    return float(ledger.extracted / ledger.invested) if ledger.invested > 0 else 0.0


def payback_multiplier(kind: str, ratio: float, rules: SizeRules) -> float:
    """How much less a trade adds, and trims, once it has paid for itself (trading.md 3.3).

    Adds: 0.3 from a payback of 1 on, else 1. Trims: 1.5 below .5, 1 below 1, .3 below 3, then .1. Other kinds: 1.

    >>> rules = SizeRules()
    >>> [payback_multiplier("trim", r, rules) for r in (0.0, 0.5, 1.0, 3.0)], payback_multiplier("add", 1.0, rules)
    ([1.5, 1.0, 0.3, 0.1], 0.3)
    """
    if kind == "add":
        return rules.entry_mult_after_payback if ratio >= 1.0 else 1.0
    if kind == "trim":
        return next((mult for below, mult in rules.trim_mult_steps if ratio < below), rules.trim_mult_beyond)
    return 1.0


def basis_of(kind: str, position: Position, allowance: Decimal) -> Decimal:
    """What a fraction of ``kind`` is taken of: the allowance, the pool, the emergency's proceeds, or the tokens
    held."""
    if kind in ("trim", "exit"):
        return position.ledger.quantity
    if kind in ("pool", "dx"):
        return position.pool.basis
    return position.emergency.exit_value if kind == "reclaim" else allowance


def size_of(
    kind: str,
    position: Position,
    a_base: float,
    e_base: float,
    strength: Strength,
    rules: SizeRules,
    allowance: Decimal = ZERO,
    skew: float = 1.0,
) -> Size:
    """Size of an action of ``kind``, with and without learning.

    Args:
        a_base, e_base: A and E of the regime, in [0, 1], before overrides.
        strength: the multipliers that apply to the action's pattern; neutral leaves fraction == base_fraction.
        allowance: USD the position may still spend (buys).
        skew: factor of a buy for what the book holds already (`trading.skew`), in [0, 1]; with and without learning.
    """
    basis = basis_of(kind, position, allowance)
    if kind == "exit":
        return Size(1.0, 1.0, a_base, e_base, basis)
    multiplier = payback_multiplier(kind, payback(position.ledger), rules)
    if kind == "trim":
        e_value = _unit(e_base * strength.exit_aggression_mult)
        base = min(rules.max_trim, size_fraction(kind, e_base, rules) * multiplier)
        return Size(min(rules.max_trim, size_fraction(kind, e_value, rules) * multiplier), base, a_base, e_value, basis)
    a_value = _unit(a_base * strength.entry_aggression_mult)
    base = _unit(size_fraction(kind, a_base, rules) * multiplier * skew)
    fraction = _unit(size_fraction(kind, a_value, rules) * multiplier * strength.size_mult * skew)
    return Size(fraction, base, a_value, e_base, basis)


def _unit(x: float) -> float:
    return min(1.0, max(0.0, x))
