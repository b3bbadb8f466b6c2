"""Trades as whole numbers: every scope value becomes a code, so that slices can be counted by kernels (learning.md 3).

Codes count a dim's levels from 0 in canonical order: whole numbers ascending, then texts ascending. -1 is an absent
value; by the rule of ``make_scope`` these are None, "" and "Unknown".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgebook.domain.errors import LearningError
from edgebook.domain.scope import ScopeValue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Levels = tuple[tuple[ScopeValue, ...], ...]
Column = Sequence[ScopeValue | None] | NDArray[Any]

_ABSENT = frozenset({"", "unknown"})
_TYPES = frozenset({str, int, type(None)})
#: A mask is a signed 64-bit number.
MAX_DIMS = 62


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """``n`` closed trades under ``d`` dims.

    Args:
        dims: names, in bit order of the masks; at most 62.
        levels: per dim its values in canonical order.
        codes: (n, d) int16 or int32, -1 where absent. Column-major (order F) saves a copy.
        y: (n) outcome of each trade, in R.
        ts: (n) time of closing, microseconds UTC.
        cluster: (n) number of the cluster a trade belongs to, e.g. of (token, entry day); trades of one cluster are
            not independent.
        further: more columns (n) to sum, by name, e.g. roi, pnl_usd, hold_days, time_efficiency.

    Raises:
        LearningError: shapes that differ, a code without a level, levels out of order, a value that is not finite.
    """

    dims: tuple[str, ...]
    levels: Levels
    codes: Codes
    y: Floats
    ts: Ints
    cluster: Ints
    further: Mapping[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, d = len(self.y), len(self.dims)
        if d > MAX_DIMS or len(set(self.dims)) != d:
            raise LearningError(f"dims must be at most {MAX_DIMS} different names, were {', '.join(self.dims)}")
        if len(self.levels) != d or self.codes.shape != (n, d):
            raise LearningError(f"codes must have shape ({n}, {d}) with {d} tuples of levels, had {self.codes.shape}")
        check_columns(self.y, self.ts, self.cluster, self.further)
        lowest, highest = (self.codes.min(0), self.codes.max(0)) if n else (np.zeros(d), np.full(d, -1))
        for j, dim in enumerate(self.dims):
            if lowest[j] < -1 or highest[j] >= len(self.levels[j]):
                raise LearningError(f"codes of {dim} must lie in -1..{len(self.levels[j]) - 1}")
            if list(self.levels[j]) != sorted(set(self.levels[j]), key=level_order):
                raise LearningError(f"levels of {dim} must be in canonical order: numbers, then texts, no level twice")

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: NDArray[Any]) -> Coded:
        """The trades at ``rows`` (positions or a boolean filter), under the same levels."""
        further = {name: column[rows] for name, column in self.further.items()}
        codes = np.asfortranarray(self.codes[rows])
        return Coded(self.dims, self.levels, codes, self.y[rows], self.ts[rows], self.cluster[rows], further)


def check_columns(y: Floats, ts: Ints, cluster: Ints, further: Mapping[str, Floats]) -> None:
    """See that all columns have one value per y, and every value is finite; LearningError names column and row."""
    n = len(y)
    for name, column in (("ts", ts), ("cluster", cluster), *further.items()):
        if column.shape != (n,):
            raise LearningError(f"column {name} must have {n} values, one per y, had shape {column.shape}")
    for name, values in (("y", y), *further.items()):
        finite = np.isfinite(values)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise LearningError(f"row {row}: {name} must be a finite number, was {values[row]}")


def level_order(value: ScopeValue) -> tuple[bool, ScopeValue]:
    """Sort key of a dim's levels: whole numbers ascending, then texts ascending.

    >>> sorted(["b", 2, "10", 1], key=level_order)
    [1, 2, '10', 'b']
    """
    return isinstance(value, str), value


def is_absent(value: ScopeValue | None) -> bool:
    """Whether a scope leaves this value out, as ``make_scope`` does.

    >>> [is_absent(v) for v in (None, "", "UNKNOWN", "Good", 0)]
    [True, True, True, False, False]
    """
    return value is None or (isinstance(value, str) and value.lower() in _ABSENT)


def encode(
    columns: Mapping[str, Column],
    y: ArrayLike,
    ts: ArrayLike,
    cluster: ArrayLike | None = None,
    further: Mapping[str, ArrayLike] | None = None,
) -> Coded:
    """Trades from columns of values, one column per dim in bit order; each trade its own cluster by default.

    Raises:
        LearningError: a value that is neither text, whole number nor None, or what `Coded` refuses.

    >>> coded = encode({"timeframe": ["1h", "4h", "Unknown"], "rank": [2, None, 1]}, [1.0, -1.0, 0.5], [0, 0, 0])
    >>> coded.levels, coded.codes.tolist()
    ((('1h', '4h'), (1, 2)), [[0, 1], [1, -1], [-1, 0]])
    """
    values = np.asarray(y, dtype=np.float64)
    codes = np.empty((len(values), len(columns)), dtype=np.int32, order="F")
    levels = []
    for j, (dim, column) in enumerate(columns.items()):
        cells = plain(dim, column)
        if len(cells) != len(values):
            raise LearningError(f"column {dim} must have {len(values)} values, one per y, had {len(cells)}")
        different = set(cells)
        ordered = sorted((value for value in different if value is not None and not is_absent(value)), key=level_order)
        number = dict.fromkeys(different, -1) | {value: code for code, value in enumerate(ordered)}
        codes[:, j] = np.fromiter(map(number.__getitem__, cells), dtype=np.int32, count=len(cells))
        levels.append(tuple(ordered))
    own = np.arange(len(values), dtype=np.int64) if cluster is None else np.asarray(cluster, dtype=np.int64)
    sums = {name: np.asarray(column, dtype=np.float64) for name, column in (further or {}).items()}
    return Coded(tuple(columns), tuple(levels), codes, values, np.asarray(ts, dtype=np.int64), own, sums)


def plain(dim: str, column: Column) -> Sequence[ScopeValue | None]:
    """``column`` as Python values, every one of them text, whole number or None.

    Raises:
        LearningError: another type; names the row.
    """
    cells: Sequence[ScopeValue | None] = column.tolist() if isinstance(column, np.ndarray) else column
    if not _TYPES.issuperset(map(type, cells)):
        row, value = next((i, v) for i, v in enumerate(cells) if type(v) not in _TYPES)
        raise LearningError(f"row {row}: scope value of {dim} must be text or a whole number, was {value!r}")
    return cells
