"""Pairs of dims all of whose combinations may matter: one block of cells with one variance per pair (decisions 13, 16).

A single slice is found sooner alone (``candidates``); where many cells of a pair differ a little, only together do they
stand clear. A pair is judged on top of the model and of every dim in it, so that it cannot pass on the strength of one
of its dims: its evidence is the likelihood ratio of the block's variance against none, averaged over a grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from edgebook.learning.admission import T_GRID, averaged, profile
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.design import Component, Design, Floats
from edgebook.learning.model import Model, widened


@dataclass(frozen=True, slots=True)
class PairBlocks:
    """The pairs of a design with at least two cells of ``cell_min_trades`` trades; none of a short history."""

    blocks: tuple[Component, ...]

    @classmethod
    def of(cls, design: Design, config: LearningConfig = DEFAULT) -> PairBlocks:
        """All pairs of dims that differ between tokens at a time: the cells of a market-wide dim share what moved the
        market then, which a block cannot tell from an effect."""
        if design.n < config.pair_min_family_trades:
            return cls(())
        own = [c for c in design.components if not c.market]
        made = (_pair(c, d, config.cell_min_trades) for c, d in combinations(own, 2))
        return cls(tuple(block for block in made if block))

    def evidence(self, design: Design, model: Model) -> tuple[Floats, Floats]:
        """Evidence of each pair in nats, and the variance ratio it prefers; those in ``model`` have -inf."""
        names = {block.name for block in model.blocks}
        missing = tuple(c for c in design.components if c.name not in names)
        given = _Given.of(design, widened(design, model, missing))
        nats, best = np.full(len(self.blocks), -math.inf), np.zeros(len(self.blocks))
        for i, block in enumerate(self.blocks):
            if block.name not in names:
                found = given.profile(block)
                nats[i] = averaged(found)
                best[i] = T_GRID[int(np.argmax(found))]
        return nats, best


def _pair(first: Component, second: Component, min_cell: int) -> Component | None:
    """The cells of two dims with at least ``min_cell`` trades each; None with fewer than two such cells."""
    width = len(second.levels)
    if len(first.levels) * width > max(4096, 2 * len(first.codes)):
        return None
    both = (first.codes >= 0) & (second.codes >= 0)
    joint = np.where(both, first.codes * width + second.codes, -1)
    count = np.bincount(joint[joint >= 0], minlength=len(first.levels) * width)
    kept = np.flatnonzero(count >= min_cell)
    if len(kept) < 2:
        return None
    dense = np.full(len(count) + 1, -1, dtype=np.int64)
    dense[kept] = np.arange(len(kept))
    levels = tuple((*first.levels[c // width], *second.levels[c % width]) for c in kept.tolist())
    name = f"{first.name}*{second.name}"
    return Component(name, (*first.dims, *second.dims), dense[joint], levels, market=False)


@dataclass(frozen=True, slots=True)
class _Given:
    """What every pair is judged on: a model, y with the shocks taken out, and the model's own columns likewise."""

    design: Design
    model: Model
    y: Floats
    fitted: Floats
    day_columns: Floats
    week_columns: Floats

    @classmethod
    def of(cls, design: Design, model: Model) -> _Given:
        shocks = model.shocks
        columns = model.sums.by_day[:, :-1]
        return cls(
            design,
            model,
            shocks.whiten(design.y, design.day),
            np.concatenate(([model.mean], model.alpha)),
            columns * shocks.day_factor[:, None],
            shocks.weekly(columns) * shocks.week_factor[:, None],
        )

    def profile(self, block: Component) -> Floats:
        """Restricted log likelihood of the block's variance over ``T_GRID``, against none."""
        design, model, shocks = self.design, self.model, self.model.shocks
        width, days = len(block.levels), len(model.sums.day_n)
        keep = block.codes >= 0
        codes = block.codes[keep]
        by_day = np.bincount(design.day[keep] * width + codes, minlength=days * width).reshape(-1, width).astype(float)
        by_week = shocks.weekly(by_day)
        count = np.bincount(codes, minlength=width).astype(float)
        rows = [count[None, :]]
        for other in model.blocks:
            size = len(other.levels)
            joint = np.bincount((other.codes[keep] + 1) * width + codes, minlength=(size + 1) * width)
            rows.append(joint.reshape(size + 1, width)[1:].astype(float))
        across = np.concatenate(rows) - self.day_columns.T @ by_day - self.week_columns.T @ by_week
        own = np.diag(count) - (by_day * shocks.day_factor[:, None]).T @ by_day
        own -= (by_week * shocks.week_factor[:, None]).T @ by_week
        b = np.bincount(codes, weights=self.y[keep], minlength=width) - across.T @ self.fitted
        rss = model.sigma**2 * (design.n - 1)
        return profile(own - across.T @ model.h @ across, b, rss, design.n)
