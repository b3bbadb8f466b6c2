"""Observations as arrays: outcomes, shocks they share (day, week) and dimension codes; which dims are market-wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.decay import HOUR
from edgebook.domain.scope import ScopeItems, ScopeSchema, ScopeValue
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.table import TradeTable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: 1970-01-01 was a Thursday: shifting by three days makes weeks begin on Monday.
_MONDAY_SHIFT_DAYS = 3


@dataclass(frozen=True, slots=True)
class Component:
    """A block of columns that share one variance: the levels of a dim, or one cell alone.

    ``codes[i]`` is the level of observation i, -1 where absent (for a cell: 0 inside, -1 outside).
    """

    name: str
    dims: tuple[str, ...]
    codes: Ints
    levels: tuple[ScopeItems, ...]
    market: bool
    episodes: int = 0


@dataclass(frozen=True, slots=True)
class Design:
    """One family's trades, sorted by time of entry.

    Attributes:
        y: winsorised outcome, R.
        ts, opened: times of closing and entry, microseconds UTC.
        day: dense index of the entry day; ``days`` are the days since 1970, ``week_of_day`` dense indices of weeks.
        components: one block per dim.
        raw: outcome as it was, R; None where nothing was clipped.
        cluster: dense index of (token, entry day), the trade alone where its token is unknown (decisions 20); None
            where no trade shares one.
        together: how much more a mean varies because trades of one cluster go together; 1 until it is measured.
    """

    y: Floats
    ts: Ints
    opened: Ints
    day: Ints
    days: Ints
    week_of_day: Ints
    components: tuple[Component, ...]
    raw: Floats | None = None
    cluster: Ints | None = None
    together: float = 1.0

    @property
    def n(self) -> int:
        """Number of observations."""
        return len(self.y)


def winsorise(y: Floats, share: float) -> Floats:
    """``y`` clipped at its ``share`` and ``1 - share`` quantiles (decisions 56)."""
    if len(y) == 0 or share <= 0:
        return y
    low, high = np.quantile(y, (share, 1.0 - share))
    clipped: Floats = np.clip(y, low, high)
    return clipped


def make_design(
    table: TradeTable, schema: ScopeSchema, config: LearningConfig = DEFAULT, outcome: Floats | None = None
) -> Design:
    """Arrays of a family's trades (``outcome`` replaces rr, e.g. the exit outcome). Order of input does not matter.

    Values seen fewer than ``level_min_observations`` times are absent; dims left with a single value are left out: they
    would double every slice without adding anything (learning.md 2).
    """
    order = _in_time(table)
    raw = (table.y if outcome is None else outcome)[order]
    opened, tokens = table.opened_at[order], table.token[order]
    alone = np.flatnonzero(tokens < 0)
    tokens = tokens.copy()
    tokens[alone] = -1 - np.arange(len(alone))
    days, day = np.unique(table.day[order], return_inverse=True)
    week_of_day = np.unique((days + _MONDAY_SHIFT_DAYS) // 7, return_inverse=True)[1]
    components = []
    for dim in schema.dims:
        if dim in table.dims:
            levels, codes = table.dims[dim]
            component = _dim(dim, levels, codes[order], opened, tokens, schema, config)
            if component is not None:
                components.append(component)
    return Design(
        winsorise(raw, config.winsor_share),
        table.closed_at[order],
        opened,
        day.astype(np.int64),
        days.astype(np.int64),
        week_of_day.astype(np.int64),
        tuple(components),
        raw,
        np.unique(np.stack((tokens, day)), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64),
    )


def _in_time(table: TradeTable) -> Ints:
    """Rows by day and time of entry; only trades entered at one moment are compared by id."""
    order = np.lexsort((table.opened_at, table.day)).astype(np.int64)
    day, opened = table.day[order], table.opened_at[order]
    same = (day[1:] == day[:-1]) & (opened[1:] == opened[:-1])
    tied = np.concatenate((same, [False])) | np.concatenate(([False], same))
    rows = order[tied]
    order[tied] = rows[np.lexsort((table.unit_id[rows].astype(str), opened[tied], day[tied]))]
    return order


def _dim(
    dim: str,
    values: Sequence[ScopeValue],
    codes: Ints,
    opened: Ints,
    tokens: Ints,
    schema: ScopeSchema,
    config: LearningConfig,
) -> Component | None:
    count = np.bincount(codes[codes >= 0], minlength=len(values))
    thick = [i for i in range(len(values)) if count[i] >= config.level_min_observations]
    if len(thick) < 2:
        return None
    thick.sort(key=lambda i: (isinstance(values[i], str), values[i]))
    position = np.full(len(values) + 1, -1, dtype=np.int64)
    position[thick] = np.arange(len(thick))
    codes = position[codes]
    market = dim in schema.market_wide or is_market_wide(codes, opened, tokens, config)
    known = codes[codes >= 0]
    episodes = int(1 + np.count_nonzero(known[1:] != known[:-1])) if market else 0
    return Component(dim, (dim,), codes, tuple(((dim, values[i]),) for i in thick), market, episodes)


def is_market_wide(codes: Ints, opened: Ints, tokens: Ints, config: LearningConfig = DEFAULT) -> bool:
    """Whether a dim says the same of all tokens at a time, judged by neighbours in time (decisions 52).

    Neighbours are consecutive entries of different tokens at most two hours apart, or six where fewer than twenty are
    so near. Their agreement beyond chance, ``(agree - chance) / (1 - chance)``, at or above .8 means market-wide.
    """
    apart = opened[1:] - opened[:-1]
    usable = (tokens[1:] != tokens[:-1]) & (codes[1:] >= 0) & (codes[:-1] >= 0)
    near = usable & (apart <= config.market_neighbour_hours * HOUR)
    if np.count_nonzero(near) < 20:
        near = usable & (apart <= config.market_neighbour_hours_at_most * HOUR)
    if np.count_nonzero(near) < 20:
        return False
    known = codes[codes >= 0]
    share = np.bincount(known) / len(known)
    chance = float(np.sum(share * share))
    agree = float(np.mean((codes[1:] == codes[:-1])[near]))
    return chance < 1.0 and (agree - chance) / (1.0 - chance) >= config.market_agreement
