"""Less of the same: a buy shrinks where the book holds much of its kind already (trading.md 3.6; off by default).

Holdings are compared in masks, sets of the dimensions chain, timeframe, book and state. Of each mask counts the cost of
what is held with the same values, and once more, at half weight, that of the same pattern, as shares of NAV.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from edgebook.domain.book import Position
from edgebook.domain.strands import TradeAction
from edgebook.trading.rules import SkewRules

#: Dimensions that masks are made of.
DIMS = ("chain", "timeframe", "book", "state")


@dataclass(frozen=True, slots=True)
class Lot:
    """A kind of thing to hold: where, and under which pattern it is bought.

    Attributes:
        dims: value of each dimension of `DIMS`.
        pattern_key: pattern of the buy; its state is the dimension ``state``.
        cost_usd: cost of what is held of it, 0 for what is only about to be bought.
    """

    dims: Mapping[str, str]
    pattern_key: str
    cost_usd: float = 0.0


def lot_of(position: Position, pattern_key: str, cost_usd: float = 0.0) -> Lot:
    """A lot of a position, bought under ``pattern_key``."""
    dims = {
        "chain": position.chain,
        "timeframe": position.timeframe,
        "book": position.book,
        "state": state_of(pattern_key),
    }
    return Lot(dims, pattern_key, cost_usd)


def state_of(pattern_key: str) -> str:
    """The engine state that a pattern belongs to; "" where its key names none.

    >>> state_of("module=pm|pattern_key=uptrend.S3.dx"), state_of("dust")
    ('S3', '')
    """
    parts = pattern_key.rpartition("=")[2].split(".")
    return parts[1] if len(parts) > 1 else ""


def lots_of(position: Position) -> tuple[Lot, ...]:
    """What a position holds, by the patterns it was bought under: its cost, split as the USD of its buys were; USD."""
    spent: dict[str, float] = {}
    for action in position.actions:
        if _buys(action):
            spent[action.pattern_key] = spent.get(action.pattern_key, 0.0) + float(action.quantity) * action.price
    total, cost = sum(spent.values()), float(position.ledger.cost)
    if not position.holding or total <= 0:
        return ()
    return tuple(lot_of(position, pattern, cost * usd / total) for pattern, usd in spent.items())


def _buys(action: TradeAction) -> bool:
    return action.action_category in ("entry", "add")


def mask_weights(rules: SkewRules) -> tuple[float, ...]:
    """Weight of each mask: ``(its dimension weights / all dimension weights) ** alpha``, scaled to a sum of 1; all 0
    where no dimension weighs anything.

    >>> [round(w, 3) for w in mask_weights(SkewRules(alpha=1.0))]
    [0.4, 0.3, 0.2, 0.1]
    """
    each = {dim: rules.dim_weights.get(dim, 1.0) for dim in DIMS}
    total = sum(each.values())
    if total <= 0:
        return (0.0,) * len(rules.masks)
    raw = [(sum(each[dim] for dim in mask) / total) ** rules.alpha for mask in rules.masks]
    scale = sum(raw)
    return tuple(weight / scale for weight in raw) if scale > 0 else (0.0,) * len(raw)


def concentration(wanted: Lot, held: Iterable[Lot], nav_usd: Decimal, rules: SkewRules) -> float:
    """How much of the book is like ``wanted``, in [0, 1]: ``sum_m w_m (scope * share_m + pattern * share_m,pattern)``.

    A share is cost under the mask over NAV, in [0, 1]; 1 where something is held and the book is worth nothing.

    >>> where = {"chain": "sol", "timeframe": "1h", "book": "main", "state": "S1"}
    >>> lot, held = Lot(where, "uptrend.S1.buy_flag"), [Lot(where, "uptrend.S1.other", 200.0)]
    >>> round(concentration(lot, held, Decimal(1000), SkewRules()), 3)
    0.2
    """
    nav, pieces = float(nav_usd), list(held)
    found = 0.0
    for mask, weight in zip(rules.masks, mask_weights(rules), strict=True):
        like = [lot for lot in pieces if all(lot.dims[dim] == wanted.dims[dim] for dim in mask)]
        same = [lot for lot in like if lot.pattern_key == wanted.pattern_key]
        found += weight * (rules.scope_weight * _share(like, nav) + rules.pattern_weight * _share(same, nav))
    return _within(found, 0.0, 1.0)


def skew_of(wanted: Lot, held: Iterable[Lot], nav_usd: Decimal, rules: SkewRules) -> float:
    """Factor of a buy's size, in [floor, ceiling]: ``clip(1.33 - concentration)``; 1 where nothing alike is held.

    >>> where = {"chain": "sol", "timeframe": "1h", "book": "main", "state": "S1"}
    >>> lot, held = Lot(where, "uptrend.S1.buy_flag"), [Lot(where, "uptrend.S1.buy_flag", 400.0)]
    >>> round(skew_of(lot, held, Decimal(1000), SkewRules()), 3), skew_of(lot, [], Decimal(1000), SkewRules())
    (0.73, 1.0)
    """
    return _within(rules.neutral - concentration(wanted, held, nav_usd, rules), rules.floor, rules.ceiling)


def _share(lots: Iterable[Lot], nav: float) -> float:
    cost = math.fsum(lot.cost_usd for lot in lots)
    if cost <= 0:
        return 0.0
    return min(1.0, cost / nav) if nav > 0 else 1.0


def _within(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))
