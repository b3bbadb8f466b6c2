"""Closed trades as columns: what the statistics read, whether they come from the log or from anyone's table
(decisions 20, 23)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.decay import DAY
from edgebook.domain.evidence import Observation
from edgebook.domain.scope import ScopeItems, ScopeSchema, ScopeValue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Coded = tuple[tuple[ScopeValue, ...], Ints]


@dataclass(frozen=True, slots=True)
class TradeTable:
    """Closed trades (or decisions), one row each; all columns have the same length.

    Attributes:
        unit_id: trade ids, unique.
        opened_at, closed_at: microseconds UTC.
        y: rr.
        token: code of the token, -1 where unknown; such a trade shares no shock with any other token's.
        day: entry day, days since 1970.
        dims: dim -> (levels, code per row), -1 where absent.
        roi, pnl: return on the money invested and profit, where known.
        time_efficiency: in (0, 1]; taken from the holding time where it is not given.
        exit_y: the trim's own outcome, R; NaN where unknown.
    """

    unit_id: NDArray[np.object_]
    opened_at: Ints
    closed_at: Ints
    y: Floats
    token: Ints
    day: Ints
    dims: Mapping[str, Coded]
    roi: Floats | None = None
    pnl: Floats | None = None
    time_efficiency: Floats | None = None
    exit_y: Floats | None = None

    def __len__(self) -> int:
        """Number of trades."""
        return len(self.y)

    @classmethod
    def of(cls, observations: Sequence[Observation], schema: ScopeSchema) -> TradeTable:
        """The observations of one family as columns."""
        return cls(
            unit_id=np.array([o.unit_id for o in observations], dtype=object),
            opened_at=np.array([o.opened_at for o in observations], dtype=np.int64),
            closed_at=np.array([o.ts for o in observations], dtype=np.int64),
            y=np.array([o.y for o in observations], dtype=float),
            token=coded([o.token or None for o in observations])[1],
            day=np.array([o.day for o in observations], dtype=np.int64),
            dims={dim: coded([o.scope.get(dim) for o in observations]) for dim in schema.dims},
            time_efficiency=np.array([o.time_efficiency for o in observations], dtype=float),
            exit_y=np.array([np.nan if o.exit_y is None else o.exit_y for o in observations], dtype=float),
        )

    def take(self, rows: NDArray[np.bool_] | Ints) -> TradeTable:
        """The given rows, in the given order; levels stay."""

        def some(column: Floats | None) -> Floats | None:
            return None if column is None else column[rows]

        return TradeTable(
            self.unit_id[rows],
            self.opened_at[rows],
            self.closed_at[rows],
            self.y[rows],
            self.token[rows],
            self.day[rows],
            {name: (levels, codes[rows]) for name, (levels, codes) in self.dims.items()},
            some(self.roi),
            some(self.pnl),
            some(self.time_efficiency),
            some(self.exit_y),
        )

    def inside(self, items: ScopeItems) -> NDArray[np.bool_]:
        """The trades in a slice; all for the root."""
        hit = np.ones(len(self), dtype=bool)
        for dim, value in items:
            levels, codes = self.dims.get(dim, ((), np.empty(0, dtype=np.int64)))
            hit &= codes == levels.index(value) if value in levels else False
        return hit

    @property
    def efficiency(self) -> Floats:
        """Time efficiency per trade, ``1 / (1 + days held)`` where it is not given (learning.md 3)."""
        if self.time_efficiency is not None:
            return self.time_efficiency
        found: Floats = 1.0 / (1.0 + (self.closed_at - self.opened_at) / DAY)
        return found


def coded(values: Sequence[ScopeValue | None]) -> Coded:
    """Distinct values in order of appearance, and the number of each row's; -1 for None.

    >>> levels, codes = coded(["x", None, "y", "x"])
    >>> levels, codes.tolist()
    (('x', 'y'), [0, -1, 1, 0])
    """
    seen: dict[ScopeValue, int] = {}
    codes = np.array([-1 if v is None else seen.setdefault(v, len(seen)) for v in values], dtype=np.int64)
    return tuple(seen), codes
