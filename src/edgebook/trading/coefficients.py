"""Coefficients of an allocation: exponentially weighted evidence per value of each DM dimension, and the static
multipliers that stand in until there is some (trading.md 1.6; decisions 41, 42).

Folded from closed trades, the first one of each position under a decision: a decision counts one, shared among its
positions as its allocation was, so that its rr is the allocation-weighted mean of theirs. A later trade counts for
nothing here. Per value, with ``n`` and ``mean`` decayed to the decision::

    effect  = n / (n + 20) * (mean - mean of all)         of the pair: less the effects of its two dimensions
    learned = exp(clip(.4 * effect, +-ln 2))
    part    = learned^l * static^(1 - l)                  l = n / (n + 30) where there is a static multiplier, else 1

A row ends at the moment of the decision, so nothing later is in it, and without evidence every weight is exactly 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from edgebook.domain.coefficient import Coefficient, CoefficientPart, coefficient_key
from edgebook.domain.decay import HOUR, decay
from edgebook.domain.errors import TradingError
from edgebook.domain.scope import ScopeItems, ScopeValue
from edgebook.domain.strands import PositionClosed, SocialLowcap, Strand
from edgebook.domain.values import replace
from edgebook.trading.rules import COEFFICIENTS, CoefficientRules

Lookup = Callable[[str], Coefficient | None]
#: What all other rows are compared with, the pair of dimensions, and the split over timeframes.
ALL, PAIR, TIMEFRAME = "all", "pair", "timeframe"
_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Weighing:
    """What multiplies the base of an allocation and the default split, and why.

    ``coefficient_mult`` is in [1/2, 2], ``static_mult`` above 0, their product at most 2; ``timeframes`` weighs the
    shares of the split.
    """

    coefficient_mult: float = 1.0
    static_mult: float = 1.0
    timeframes: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    parts: tuple[CoefficientPart, ...] = ()


NEUTRAL = Weighing()


# ---------------------------------------------------------------- folded from closed trades


def evolve_coefficients(row: Lookup, strand: Strand) -> list[Coefficient]:
    """The rows that a ``position_closed`` strand changes; none for a later trade under its decision.

    The same trades give the same rows in whatever order they come, up to rounding: each counts from its own close.

    Args:
        row: the present row by key, None where there is none.

    Raises:
        TradingError: a strand of another kind.
    """
    closed = strand.payload
    if not isinstance(closed, PositionClosed):
        raise TradingError(f"strand {strand.id} of kind {strand.kind} closes no trade", stage="coefficients")
    share = _share(closed)
    if share <= 0.0:
        return []
    slices = [(dim, value, share) for dim, value in _slices(closed.entry_context)]
    slices.append((TIMEFRAME, strand.timeframe, 1.0))
    return [_with(row, dim, value, weight, closed.summary.rr, strand.ts_event) for dim, value, weight in slices]


def _share(closed: PositionClosed) -> float:
    """Share of its decision's allocation that the position had; 0 for a trade that does not count."""
    total = closed.entry_context.get("allocation_pct")
    if not closed.first_under_decision or not isinstance(total, int | float) or total <= 0.0:
        return 0.0
    return min(1.0, closed.allocation_pct / total)


def _slices(
    known: Mapping[str, ScopeValue | float | None], rules: CoefficientRules = COEFFICIENTS
) -> Iterator[tuple[str, str]]:
    """(dim, value) of every row that a decision with these values belongs to: all, each dimension, the pair."""
    yield ALL, ""
    for dim in rules.dims:
        if known.get(dim) is not None:
            yield dim, str(known[dim])
    if all(known.get(dim) is not None for dim in rules.pair):
        yield PAIR, "|".join(f"{dim}={known[dim]}" for dim in sorted(rules.pair))


def _with(row: Lookup, dim: str, value: str, weight: float, rr: float, ts: int) -> Coefficient:
    old = row(coefficient_key(dim, value)) or Coefficient(dim, value, anchor_ts=ts)
    anchor = max(old.anchor_ts, ts)
    kept, added = _decayed(old.anchor_ts, anchor), weight * _decayed(ts, anchor)
    return replace(old, n=old.n * kept + added, sum_r=old.sum_r * kept + added * rr, anchor_ts=anchor)


def _decayed(ts: int, now: int) -> float:
    return decay((now - ts) / HOUR, COEFFICIENTS.half_life_hours)


# ---------------------------------------------------------------- asked by a decision


def no_coefficient(key: str) -> Coefficient | None:
    """The `Lookup` of a book without a closed trade."""
    return None


def static_multipliers(
    signal: SocialLowcap, mcap_usd: float | None, rules: CoefficientRules = COEFFICIENTS
) -> dict[str, float]:
    """Static multiplier per dimension, for a token of a chain that they were made for (trading.md 1.6); a dimension
    whose datum is absent has none.

    On an exchange they would be the same factor of about 1.5 for all tokens: more capital, and no evidence for it.
    """
    if signal.chain not in rules.static_chains:
        return {}
    found = {
        "chain": rules.chain_mults.get(signal.chain, 1.0),
        "intent": signal.allocation_multiplier,
        "mcap_bucket": _step(rules.caps, mcap_usd),
        "age_bucket": _step(rules.ages, signal.age_days),
    }
    return {dim: value for dim, value in found.items() if value is not None}


def _step(table: Sequence[tuple[float, float]], value: float | None) -> float | None:
    return None if value is None else next(mult for upper, mult in table if value < upper or upper == math.inf)


def weigh(
    scope: ScopeItems,
    row: Lookup,
    now: int,
    *,
    dims: Collection[str],
    timeframes: Iterable[str] = (),
    static: Mapping[str, float] = _NOTHING,
    rules: CoefficientRules = COEFFICIENTS,
) -> Weighing:
    """The coefficients of a decision at ``now`` (microseconds UTC).

    Args:
        scope: its DM scope.
        row: the row of a coefficient by key; rows hold what closed up to ``now`` and nothing later.
        dims: dimensions whose evidence acts; the pair acts with its two.
        timeframes: those whose share of the split is weighed.
        static: static multiplier of the dimensions that have one; it fades with their evidence, acting or not.
    """
    parts = [*_parts(scope, row, now, dims, static, rules)]
    mean = _evidence(row, ALL, "", now)[1]
    frames = []
    for timeframe in timeframes:
        n, own = _evidence(row, TIMEFRAME, timeframe, now)
        effect = n / (n + rules.prior_n) * (own - mean)
        frames.append(CoefficientPart(TIMEFRAME, timeframe, n, effect, math.exp(_pull(effect, rules))))
    limit = math.log(rules.bound)
    learned = min(limit, max(-limit, math.fsum(math.log(part.learned) for part in parts)))
    stood_in = min(limit - learned, math.fsum(math.log(part.static) for part in parts))
    weights = {part.value: part.learned for part in frames}
    return Weighing(math.exp(learned), math.exp(stood_in), weights, (*parts, *frames))


def _parts(
    scope: ScopeItems,
    row: Lookup,
    now: int,
    dims: Collection[str],
    static: Mapping[str, float],
    rules: CoefficientRules,
) -> Iterator[CoefficientPart]:
    mean, effects = 0.0, dict.fromkeys(rules.pair, 0.0)
    for dim, value in _slices(dict(scope), rules):
        n, own = _evidence(row, dim, value, now)
        if dim == ALL:
            mean = own
            continue
        wider = math.fsum(effects[one] for one in rules.pair) if dim == PAIR else 0.0
        effects[dim] = effect = n / (n + rules.prior_n) * (own - mean - wider)
        acts = dim in dims or (dim == PAIR and all(one in dims for one in rules.pair))
        known = n / (n + rules.static_n) if dim in static else 1.0
        learned = math.exp(known * _pull(effect, rules)) if acts else 1.0
        if acts or dim in static:
            yield CoefficientPart(dim, value, n, effect, learned, static.get(dim, 1.0) ** (1.0 - known))


def _pull(effect: float, rules: CoefficientRules) -> float:
    """Log weight that a shrunk effect in R asks for, within the bounds of one part."""
    limit = math.log(rules.bound)
    return min(limit, max(-limit, rules.kappa * effect))


def _evidence(row: Lookup, dim: str, value: str, now: int) -> tuple[float, float]:
    """Decisions behind a value, decayed to ``now``, and their mean rr; (0, 0) where there are none."""
    found = row(coefficient_key(dim, value))
    if found is None or found.n <= 0.0:
        return 0.0, 0.0
    return found.n * _decayed(found.anchor_ts, now), found.sum_r / found.n


def beside(coefficient: float, alloc_mult: float) -> float:
    """What is left of a coefficient beside ``alloc_mult``: both speak from the same closed trades, so what
    ``alloc_mult`` says already is not said twice (decisions 51).

    Of two of one direction the product is the stronger one alone; two that disagree both stand.

    >>> [round(beside(c, a) * a, 6) for c, a in ((1.2, 1.0), (1.2, 1.1), (1.1, 1.3), (0.8, 0.9))]
    [1.2, 1.2, 1.3, 0.8]
    >>> beside(0.8, 1.1)
    0.8
    """
    own, said = math.log(coefficient), math.log(alloc_mult)
    if own * said <= 0.0:
        return coefficient
    return math.exp(math.copysign(max(0.0, abs(own) - abs(said)), own))
