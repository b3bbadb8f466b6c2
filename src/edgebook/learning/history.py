"""Edge history of a slice: what its statistics row said at the end of each day on which it changed (mission 2;
learning.md 3), for a look at how an edge decays.

Not stored: it follows from the observations, so that a million snapshots need not be kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edgebook.domain.decay import DAY
from edgebook.domain.errors import LearningError
from edgebook.domain.evidence import Observation
from edgebook.domain.scope import ScopeItems, contains
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.edge import baseline, edge_raw


class Snapshot(NamedTuple):
    """A slice at the end of a day: day of closing (days since 1970), count, edge, mean rr in R."""

    day: int
    n: int
    edge_raw: float
    avg_rr: float


def edge_history(
    observations: Iterable[Observation], scope_items: ScopeItems, config: LearningConfig = DEFAULT
) -> tuple[Snapshot, ...]:
    """One snapshot per day on which the slice of ``scope_items`` changed, days ascending.

    Args:
        observations: all of one family, in the order of their table, which is that of the log.
        scope_items: the slice; ``()`` is the root.

    ``edge_raw`` compares with the baseline of the family as it was when the slice last changed on that day, as the
    row does. A pm row that was aggregated by the end of each day said exactly this. What came later is counted on the
    day it closed, as known now: a late trade, a corrected one, and a dm decision under all its positions that have
    closed since, on the day of the last.

    Raises:
        LearningError: observations of more than one family.

    >>> def closed(day, rr, **dims):
    ...     return Observation("pm", "k", "entry", f"{day}{rr}", day * DAY, 0, rr, 0, 0, 1, "", 0, dims, 1, 1)
    >>> trades = [closed(1, 1.0, bucket="mid"), closed(1, 2.0, bucket="micro"), closed(3, 3.0, bucket="mid")]
    >>> [(s.day, s.n, s.avg_rr) for s in edge_history(trades, (("bucket", "mid"),))]
    [(1, 1, 1.0), (3, 2, 2.0)]
    """
    rule, found = dict(scope_items), {}
    family = ""
    count = n = 0
    family_rr = total = total2 = efficiency = 0.0
    for seen in sorted(observations, key=lambda o: o.ts // DAY):
        if family not in ("", seen.family):
            raise LearningError(f"an edge history is of one family, was given {family} and {seen.family}")
        family = seen.family
        count, family_rr = count + 1, family_rr + seen.y
        if not contains(seen.scope, rule):
            continue
        n, total, total2 = n + 1, total + seen.y, total2 + seen.y**2
        efficiency += seen.time_efficiency
        mean, base = total / n, baseline(family_rr, count, config.baseline_pseudo_trades)
        variance = max(0.0, total2 / n - mean * mean)
        edge = edge_raw(mean, variance, n, base, efficiency / n)
        found[seen.ts // DAY] = Snapshot(seen.ts // DAY, n, edge, mean)
    return tuple(found.values())
