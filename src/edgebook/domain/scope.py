"""Scopes: under which circumstances something happened, as dimension -> value.

A scope belongs to a schema (pm: 10 dims, dm: 13 dims, or a user's own) and cannot hold a dimension of another: DM
facts never leak into PM rows and the other way round (mission 5.3, learning.md 2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from edgebook.domain.errors import StrandError

ScopeValue = str | int
ScopeItems = tuple[tuple[str, ScopeValue], ...]
_ABSENT = {"", "unknown"}


@dataclass(frozen=True, slots=True)
class ScopeSchema:
    """The dimensions a scope may have, in bit order of ``scope_mask``; ``shared`` ones are the same for all tokens at
    a time."""

    name: str
    dims: tuple[str, ...]
    market_wide: frozenset[str] = frozenset()

    def mask(self, dims: Iterable[str]) -> int:
        """Bit mask of ``dims`` (bit i = i-th dimension of the schema)."""
        bits = 0
        for dim in dims:
            bits |= 1 << self.dims.index(dim)
        return bits


_MARKET = ("macro_phase", "meso_phase", "micro_phase", "bucket_leader")
PM_SCHEMA = ScopeSchema(
    "pm",
    (*_MARKET, "bucket_rank_position", "market_family", "bucket", "timeframe", "A_mode", "E_mode"),
    frozenset(_MARKET),
)
DM_SCHEMA = ScopeSchema(
    "dm",
    (
        "curator",
        "chain",
        "mcap_bucket",
        "vol_bucket",
        "age_bucket",
        "intent",
        "mapping_confidence",
        "mcap_vol_ratio_bucket",
        *_MARKET,
        "bucket_rank_position",
    ),
    frozenset(_MARKET),
)
SCHEMAS = {"pm": PM_SCHEMA, "dm": DM_SCHEMA}


def make_scope(schema: ScopeSchema, values: Mapping[str, ScopeValue | None]) -> ScopeItems:
    """The canonical scope of ``values``: schema order, absent values (None, "", "Unknown") left out.

    Raises:
        StrandError: a dimension that is not in the schema (a leak), or a value that is neither text nor whole number.

    >>> make_scope(PM_SCHEMA, {"timeframe": "1h", "bucket": "Unknown", "macro_phase": "Good"})
    (('macro_phase', 'Good'), ('timeframe', '1h'))
    """
    leaked = sorted(set(values) - set(schema.dims))
    if leaked:
        raise StrandError(
            f"dimension {', '.join(leaked)} does not belong to a {schema.name} scope; it has {', '.join(schema.dims)}"
        )
    items: list[tuple[str, ScopeValue]] = []
    for dim in schema.dims:
        value = values.get(dim)
        if value is None or (isinstance(value, str) and value.lower() in _ABSENT):
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise StrandError(f"scope value of {dim} must be text or a whole number, was {value!r}")
        items.append((dim, value))
    return tuple(items)


def contains(current: Mapping[str, ScopeValue], rule: Mapping[str, ScopeValue]) -> bool:
    """Whether ``rule`` is a subset of ``current``: every dim present with an equal value of the same type
    (learning.md 7).

    >>> contains({"a": "x", "b": 1}, {"b": 1}), contains({"b": 1}, {"b": "1"}), contains({}, {})
    (True, False, True)
    """
    missing = object()
    for dim, value in rule.items():
        other = current.get(dim, missing)
        if type(other) is not type(value) or other != value:
            return False
    return True


def subsets(items: ScopeItems, depth: int) -> Iterator[ScopeItems]:
    """Every subset of a scope with at most ``depth`` dims, the empty one (the root) first.

    >>> [len(s) for s in subsets((("a", 1), ("b", 2), ("c", 3)), 2)]
    [0, 1, 1, 1, 2, 2, 2]
    """
    for size in range(min(depth, len(items)) + 1):
        yield from combinations(items, size)


def canonical_json(items: Mapping[str, ScopeValue] | ScopeItems) -> str:
    """Key-sorted compact JSON of a scope: the text that is hashed and stored."""
    return json.dumps(dict(items), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def scope_hash(items: Mapping[str, ScopeValue] | ScopeItems) -> str:
    """First 16 bytes of the SHA-256 of the canonical JSON, as 32 hex digits (decisions 33)."""
    return hashlib.sha256(canonical_json(items).encode()).hexdigest()[:32]


_ROOT = scope_hash(())


def root_key(family: str) -> str:
    """Key of a family's root row: the slice of no dimension."""
    return f"{family}|{_ROOT}"
