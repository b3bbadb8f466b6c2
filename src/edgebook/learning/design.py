"""Observations as arrays: outcomes, shocks they share (day, week) and dimension codes; which dims are market-wide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import Observation
from edgebook.domain.scope import ScopeItems, ScopeSchema, ScopeValue
from edgebook.learning.config import DEFAULT, LearningConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: 1970-01-01 was a Thursday: shifting by three days makes weeks begin on Monday.
_MONDAY_SHIFT_DAYS = 3


@dataclass(frozen=True, slots=True)
class Component:
    """A block of columns that share one variance: the levels of a dim, or the cells of a pair of dims.

    ``codes[i]`` is the level of observation i, -1 where absent (or, for pairs, where the cell is too thin).
    """

    name: str
    dims: tuple[str, ...]
    codes: Ints
    levels: tuple[ScopeItems, ...]
    market: bool
    episodes: int = 0


@dataclass(frozen=True, slots=True)
class Design:
    """One family's observations, sorted by time of entry; ``ts`` is when each closed,
    ``day`` and ``week`` are dense indices of shared shocks."""

    y: Floats
    ts: Ints
    day: Ints
    week_of_day: Ints
    components: tuple[Component, ...]

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
    observations: Sequence[Observation],
    schema: ScopeSchema,
    config: LearningConfig = DEFAULT,
    outcome: Sequence[float] | None = None,
) -> Design:
    """Arrays of a family's observations (``outcome`` replaces rr, e.g. the exit outcome). Order of input does not
    matter.

    Values seen fewer than ``level_min_observations`` times are absent; dims left with a single value are left out: they
    would double every slice without adding anything (learning.md 2).
    """
    values = [o.y for o in observations] if outcome is None else list(outcome)
    order = sorted(
        range(len(observations)),
        key=lambda i: (observations[i].day, observations[i].opened_at, observations[i].unit_id),
    )
    rows = [observations[i] for i in order]
    y = winsorise(np.array([values[i] for i in order], dtype=float), config.winsor_share)
    opened = np.array([o.opened_at for o in rows], dtype=np.int64)
    tokens = _dense([o.token or o.unit_id for o in rows])
    days, day = np.unique(np.array([o.day for o in rows], dtype=np.int64), return_inverse=True)
    week_of_day = np.unique((days + _MONDAY_SHIFT_DAYS) // 7, return_inverse=True)[1]
    components = []
    for dim in schema.dims:
        component = _dim(dim, [o.scope.get(dim) for o in rows], opened, tokens, schema, config)
        if component is not None:
            components.append(component)
    ts = np.array([o.ts for o in rows], dtype=np.int64)
    return Design(y, ts, day.astype(np.int64), week_of_day.astype(np.int64), tuple(components))


def _dense(values: Sequence[Any]) -> Ints:
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(v, len(seen)) for v in values], dtype=np.int64)


def _dim(
    dim: str,
    values: Sequence[ScopeValue | None],
    opened: Ints,
    tokens: Ints,
    schema: ScopeSchema,
    config: LearningConfig,
) -> Component | None:
    levels: dict[ScopeValue, int] = {}
    count = Counter(v for v in values if v is not None)
    thick = [v for v, n in count.items() if n >= config.level_min_observations]
    names = sorted(thick, key=lambda v: (isinstance(v, str), v))
    if len(names) < 2:
        return None
    levels = {name: i for i, name in enumerate(names)}
    codes = np.array([-1 if v is None else levels.get(v, -1) for v in values], dtype=np.int64)
    market = dim in schema.market_wide or is_market_wide(codes, opened, tokens, config)
    known = codes[codes >= 0]
    episodes = int(1 + np.count_nonzero(known[1:] != known[:-1])) if market else 0
    return Component(dim, (dim,), codes, tuple(((dim, name),) for name in names), market, episodes)


def is_market_wide(codes: Ints, opened: Ints, tokens: Ints, config: LearningConfig = DEFAULT) -> bool:
    """Whether a dim says the same of all tokens at a time, judged by neighbours in time (decisions 52).

    Neighbours are consecutive entries of different tokens at most six hours apart. Their agreement beyond chance,
    ``(agree - chance) / (1 - chance)``, at or above .8 means market-wide.
    """
    near = (tokens[1:] != tokens[:-1]) & (opened[1:] - opened[:-1] <= config.market_neighbour_hours * HOUR)
    near &= (codes[1:] >= 0) & (codes[:-1] >= 0)
    if np.count_nonzero(near) < 20:
        return False
    known = codes[codes >= 0]
    share = np.bincount(known) / len(known)
    chance = float(np.sum(share * share))
    agree = float(np.mean((codes[1:] == codes[:-1])[near]))
    return chance < 1.0 and (agree - chance) / (1.0 - chance) >= config.market_agreement


def pair(first: Component, second: Component, min_cell: int) -> Component | None:
    """The cells of two dims with at least ``min_cell`` observations each; None with fewer than two such cells."""
    width = len(second.levels)
    both = (first.codes >= 0) & (second.codes >= 0)
    joint = np.where(both, first.codes * width + second.codes, -1)
    count = np.bincount(joint[joint >= 0], minlength=len(first.levels) * width)
    kept = np.flatnonzero(count >= min_cell)
    if len(kept) < 2:
        return None
    dense = np.full(len(count) + 1, -1, dtype=np.int64)
    dense[kept] = np.arange(len(kept))
    levels = tuple((*first.levels[c // width], *second.levels[c % width]) for c in kept.tolist())
    market = first.market or second.market
    name = f"{first.name}*{second.name}"
    return Component(name, (*first.dims, *second.dims), dense[joint], levels, market)
