"""What the drivers say at one moment: appetite to add, assertiveness to exit, and the scope values of the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgebook.domain.scope import ScopeItems


@dataclass(frozen=True, slots=True)
class Regime:
    """Reading of the regime for one (timeframe, cap class) (trading.md 3.2, 3.8; decisions 45).

    Attributes:
        ts: moment of the reading, microseconds UTC; everything in it was known then.
        a_base: add appetite before overrides, in [0, 1].
        e_base: exit assertiveness before overrides, in [0, 1].
        scope: PM scope dims known here (phases, bucket_leader, bucket_rank_position, A_mode, E_mode), canonical order.
        snapshot_id: id of the immutable snapshot strands refer to.
        snapshot: its content (phases with scores, driver states, bucket rank).
        a_sum, e_sum: the sums of driver terms that became A and E, before clamping; None: not kept, A and E stand in.
        multiplier: of the cap bucket, by which A was multiplied and E divided after clamping.
        pressure: what the market adds to cut pressure; None under a model of A and E that does not ask for the book.
    """

    ts: int
    a_base: float
    e_base: float
    scope: ScopeItems
    snapshot_id: str
    snapshot: Mapping[str, str | int | float | None]
    a_sum: float | None = None
    e_sum: float | None = None
    multiplier: float = 1.0
    pressure: float | None = None
