"""Which overrides hold in the current scope: all whose scope is a subset of it, found by an index, and how much each
weighs.

The index keeps, per (dimension, value), the set of overrides that would accept this value, wildcards included, as one
Python integer (bit i = i-th override). A lookup is one AND per dimension that any override names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from edgebook.domain.decay import HOUR, decay
from edgebook.domain.scope import ScopeItems, ScopeValue
from edgebook.overrides.record import Family, Override

#: Dims of the module's schema: k_max of the specificity term (learning.md 7).
_K_MAX = {"dm_alloc": 13, "pm_strength": 10, "pm_tuning": 10}
_MOST_CONVICTION = 10.0
_EFFECT_SCALE = 0.25  # R, or tuning score (decisions 14, 30)
_N_SCALE = 25.0  # observations


class MatchIndex:
    """The overrides of one family, indexed by scope. Muted overrides are left out.

    Args:
        overrides: of one family, in any order; kept in canonical order.
    """

    __slots__ = ("_all", "_dims", "overrides")

    def __init__(self, overrides: Iterable[Override]) -> None:
        self.overrides: tuple[Override, ...] = tuple(sorted((o for o in overrides if o.enabled), key=lambda o: o.order))
        named: dict[str, dict[ScopeValue, int]] = {}
        naming: dict[str, int] = {}
        for position, override in enumerate(self.overrides):
            bit = 1 << position
            for dim, value in override.scope:
                table = named.setdefault(dim, {})
                table[value] = table.get(value, 0) | bit
                naming[dim] = naming.get(dim, 0) | bit
        self._all = (1 << len(self.overrides)) - 1
        self._dims: list[tuple[str, dict[ScopeValue, int], int]] = []
        for dim in sorted(named):
            wild = self._all & ~naming[dim]
            self._dims.append((dim, {value: bits | wild for value, bits in named[dim].items()}, wild))

    def __len__(self) -> int:
        """How many overrides can match."""
        return len(self.overrides)

    def positions(self, scope: ScopeItems) -> list[int]:
        """Positions in ``overrides`` of every match, ascending.

        Values are compared with their type: rank 1 does not match rank ``"1"``, nor True.
        """
        current = dict(scope)
        bits = self._all
        for dim, table, wild in self._dims:
            value = current.get(dim)
            bits &= table.get(value, wild) if type(value) is str or type(value) is int else wild
            if not bits:
                return []
        found: list[int] = []
        while bits:
            low = bits & -bits
            found.append(low.bit_length() - 1)
            bits ^= low
        return found

    def matches(self, scope: ScopeItems) -> list[Override]:
        """Every override whose scope is a subset of ``scope``, in canonical order (learning.md 7)."""
        overrides = self.overrides
        return [overrides[position] for position in self.positions(scope)]


def group(overrides: Iterable[Override]) -> dict[Family, tuple[Override, ...]]:
    """Overrides by family, each family in canonical order."""
    found: dict[Family, list[Override]] = {}
    for override in sorted(overrides, key=lambda o: o.order):
        found.setdefault(override.family, []).append(override)
    return {family: tuple(members) for family, members in found.items()}


def weight(override: Override, at: int | None = None) -> float:
    """Match weight in [0, 1] (learning.md 7 with decisions 14 and 30); shown by ``explain``, used by the ``average``
    blend.

    ``w = tanh(|effect_total| / .25) · (1 - e^(-n/25)) · 1/(1 + var) · ((k+1)/(k_max+1))^.5 [· 2^(-age/half_life)]``

    A tuning lesson uses ``tuning_score`` and ``tuning_n``, with variance 0 when ``tuning_standalone``. Missing
    statistics count as 0.

    Args:
        override: the override.
        at: microseconds UTC; with it the weight includes the decay, which stands still from a pin on.

    >>> from edgebook.overrides.record import Override
    >>> stats = {"effect_total": 0.25, "n": 25, "variance": 1.0}
    >>> o = Override("l", "pm_strength", "module=pm|pattern_key=x.y.z", "entry", (), {}, 720.0, 0, stats=stats)
    >>> round(weight(o), 6)  # tanh 1 = .761594, 1 - 1/e = .632121, 1/2, (1/11)^.5 = .301511
    0.072577
    """
    stats = override.stats
    effect, n, variance = (
        _number(stats, "effect_total", _number(stats, "effect")),
        _number(stats, "n"),
        _number(stats, "variance"),
    )
    if override.lesson_type == "pm_tuning":
        effect, n = _number(stats, "tuning_score", effect), _number(stats, "tuning_n", n)
        variance = 0.0 if stats.get("tuning_standalone") else variance
    k_max = max(_K_MAX[override.lesson_type], len(override.scope))
    base = math.tanh(abs(effect) / _EFFECT_SCALE) * -math.expm1(-max(n, 0.0) / _N_SCALE) / (1.0 + max(variance, 0.0))
    base *= math.sqrt((len(override.scope) + 1) / (k_max + 1))
    if at is None:
        return base
    until = at if override.pinned_at is None else min(at, override.pinned_at)
    return base * decay((until - override.evidence_at) / HOUR, override.half_life_hours)


def conviction(override: Override) -> float:
    """How many times over its bound a multiplier lesson would go, in [1, 10]: what it counts beside others.

    A target ends at the lever's bound whatever the effect; ``stats.conviction`` keeps how much more was asked, so that
    a lesson of -2 R is not outvoted by one of +.4 R. Alone it ends at the same bound, and stays there until decay has
    taken what it asked for beyond.
    """
    if override.lesson_type == "pm_tuning":
        return 1.0
    return min(_MOST_CONVICTION, max(1.0, _number(override.stats, "conviction", 1.0)))


def overlap_shares(overrides: Sequence[Override]) -> list[float]:
    """For each override 1 / (sum of its Jaccard overlaps with all, itself included), in (0, 1] (learning.md 9.4).

    The overlap of two is the share of equal slots of their MinHash signatures ``stats["overlap"]``; without signatures
    it is 0.
    """
    signatures = [o.stats.get("overlap") for o in overrides]
    sums = [1.0] * len(overrides)
    for i, left in enumerate(signatures):
        for j in range(i + 1, len(signatures)):
            right = signatures[j]
            if isinstance(left, Sequence) and isinstance(right, Sequence) and left and len(left) == len(right):
                shared = sum(a == b for a, b in zip(left, right, strict=True)) / len(left)
                sums[i] += shared
                sums[j] += shared
    return [1.0 / total for total in sums]


def _number(stats: Any, name: str, default: float = 0.0) -> float:
    value = stats.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
        return default
    return float(value)
