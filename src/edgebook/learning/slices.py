"""Slices: which statistics rows a fact belongs to (every scope subset), with hashes computed once per subset."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from edgebook.domain.scope import SCHEMAS, ScopeItems, ScopeSchema, ScopeValue, make_scope, scope_hash, subsets


class Slice(NamedTuple):
    """One subset of a scope: its row key suffix, mask and values."""

    hash: str
    mask: int
    items: ScopeItems
    values: dict[str, ScopeValue]


@lru_cache(maxsize=65_536)
def slice_of(module: str, items: ScopeItems) -> Slice:
    """The slice of canonical ``items`` under the schema of ``module``; the root has mask 0.

    >>> slice_of("pm", ()).mask, slice_of("pm", (("macro_phase", "Good"),)).mask
    (0, 1)
    """
    return Slice(scope_hash(items), SCHEMAS[module].mask(dim for dim, _ in items), items, dict(items))


@lru_cache(maxsize=16_384)
def row_keys(family: str, module: str, items: ScopeItems, depth: int) -> tuple[tuple[str, Slice], ...]:
    """Row keys and slices of every subset of ``items`` with at most ``depth`` dims, the root first.

    >>> len(row_keys("f", "pm", (("macro_phase", "Good"), ("timeframe", "1h")), 3))
    4
    """
    found = (slice_of(module, subset) for subset in subsets(items, depth))
    return tuple((f"{family}|{part.hash}", part) for part in found)


@lru_cache(maxsize=16_384)
def _canonical(schema: ScopeSchema, pairs: tuple[tuple[str, ScopeValue], ...]) -> ScopeItems:
    return make_scope(schema, dict(pairs))


def canonical(module: str, scope: Mapping[str, ScopeValue]) -> ScopeItems:
    """The canonical items of a payload's scope.

    Raises:
        StrandError: the scope holds a dimension of another module.
    """
    return _canonical(SCHEMAS[module], tuple(scope.items()))
