"""Cells: the sums of every scope subset, and what follows from them (learning.md 3, 9.1, 9.8).

All sums add: cells of two sets of trades merge by addition when no cluster has trades in both. Decayed moments are
weights at one moment, ``at``; a later moment is a multiplication away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.decay import DAY
from edgebook.domain.errors import LearningError
from edgebook.domain.scope import ScopeValue
from edgebook.kernels import kernel
from edgebook.learning.coded import Codes, Floats, Ints, Levels, level_order
from edgebook.learning.config import DEFAULT
from edgebook.learning.edge import baseline

#: The first columns of ``Cells.sums``; further sums, decayed moments and cluster sums follow.
N, N_WIN, SUM_Y, SUM_Y2, BASIC = 0, 1, 2, 3, 4


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """One row per cell, in canonical order: mask, then level values dim by dim.

    Args:
        dims, levels: as in `Coded`.
        further: names of the further sums.
        half_lives_days: half-lives of the decayed moments, infinity allowed.
        clusters: whether the cluster sums are there.
        at: the moment the decayed moments are for, microseconds.
        support: cells with fewer trades were left out.
        closed: only closed cells are there: no dim more could be named without losing a trade.
        codes: (m, d), -1 where the dim is not in the cell's mask.
        sums: (m, c): n, n_win, sum of y, sum of y squared, the further sums, W, W2, S1, S2 per half-life, and
            G, sum of A squared, of A times B and of B squared (A = sum of y, B = trades of one cluster in the cell).
    """

    dims: tuple[str, ...]
    levels: Levels
    further: tuple[str, ...]
    half_lives_days: tuple[float, ...]
    clusters: bool
    at: int
    support: int
    codes: Codes
    sums: Floats
    closed: bool = False

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def mask(self) -> Ints:
        """(m) bit i set where the i-th dim is in the cell's scope; 0 is the root."""
        return masks(self.codes)

    @property
    def n(self) -> Ints:
        """(m) trades."""
        return self.sums[:, N].astype(np.int64)

    @property
    def n_win(self) -> Ints:
        """(m) trades with y > 0."""
        return self.sums[:, N_WIN].astype(np.int64)

    @property
    def sum_y(self) -> Floats:
        """(m) sum of y, R."""
        return self.sums[:, SUM_Y]

    @property
    def sum_y2(self) -> Floats:
        """(m) sum of y squared."""
        return self.sums[:, SUM_Y2]

    @property
    def mean(self) -> Floats:
        """(m) mean y, R."""
        return np.asarray(self.sums[:, SUM_Y] / self.sums[:, N])

    @property
    def variance(self) -> Floats:
        """(m) population variance ``max(0, sum_y2/n - mean^2)``, as ``pattern_scope_stats`` has it (learning.md 3)."""
        return np.asarray(np.maximum(0.0, self.sums[:, SUM_Y2] / self.sums[:, N] - self.mean**2))

    def sum_of(self, name: str) -> Floats:
        """(m) a further sum by name; LearningError for a name that was not summed."""
        if name not in self.further:
            raise LearningError(f"{name} was not summed; the further sums are {', '.join(self.further) or 'none'}")
        return self.sums[:, BASIC + self.further.index(name)]

    def decayed(self, half_life_days: float) -> Floats:
        """(m, 4) W, W2, S1, S2 of a half-life: sums of w, w squared, w y, w y squared, ``w = 2^(-age/H)``.

        Raises:
            LearningError: a half-life that was not kept.
        """
        if half_life_days not in self.half_lives_days:
            kept = ", ".join(f"{h:g}" for h in self.half_lives_days)
            raise LearningError(f"half-life {half_life_days:g} days was not kept; kept are {kept or 'none'}")
        first = BASIC + len(self.further) + 4 * self.half_lives_days.index(half_life_days)
        return self.sums[:, first : first + 4]

    def n_eff(self, half_life_days: float) -> Floats:
        """(m) effective trades ``W^2/W2``; 0 where every trade is too old to have a weight."""
        w, w2 = self.decayed(half_life_days)[:, 0], self.decayed(half_life_days)[:, 1]
        return np.asarray(np.where(w2 > 0, (w / np.sqrt(np.where(w2 > 0, w2, 1.0))) ** 2, 0.0))

    def decayed_mean(self, half_life_days: float) -> Floats:
        """(m) ``S1/W``; NaN where every trade is too old to have a weight."""
        w, s1 = self.decayed(half_life_days)[:, 0], self.decayed(half_life_days)[:, 2]
        return np.asarray(np.where(w > 0, s1 / np.where(w > 0, w, 1.0), np.nan))

    @property
    def cluster_sums(self) -> Floats:
        """(m, 4) G, sum of A^2, of A B, of B^2 (learning.md 9.1).

        Raises:
            LearningError: the cells were built without clusters.
        """
        if not self.clusters:
            raise LearningError("these cells have no cluster sums; build them with clusters=True")
        return self.sums[:, -4:]

    def rows(self) -> Iterator[tuple[int, dict[str, ScopeValue], dict[str, float]]]:
        """Plain rows in canonical order: mask, scope, and the sums by column name."""
        names = column_names(self.further, self.half_lives_days, self.clusters)
        for mask, codes, sums in zip(self.mask.tolist(), self.codes.tolist(), self.sums.tolist(), strict=True):
            scope = {dim: self.levels[j][codes[j]] for j, dim in enumerate(self.dims) if codes[j] >= 0}
            yield mask, scope, dict(zip(names, sums, strict=True))

    def at_least(self, support: int) -> Cells:
        """Only the cells with ``support`` trades or more."""
        keep = self.sums[:, N] >= support
        return replace(self, support=max(self.support, support), codes=self.codes[keep], sums=self.sums[keep])

    def decayed_to(self, at: int) -> Cells:
        """The same cells at a later moment: W, S1, S2 times ``f = 2^(-passed/H)``, W2 times ``f^2`` (learning.md 9.8).

        Raises:
            LearningError: an earlier moment; what has decayed away cannot come back.
        """
        if at < self.at:
            raise LearningError(f"cells of moment {self.at} cannot be moved back to {at}")
        if at == self.at:
            return self
        return replace(self, at=at, sums=self.sums * self._fading(at - self.at))

    def _fading(self, passed: int) -> Floats:
        factor = np.ones(self.sums.shape[1])
        for h, half_life in enumerate(self.half_lives_days):
            first = BASIC + len(self.further) + 4 * h
            factor[first : first + 4] = fading(passed, half_life)
        return factor

    def merged(self, other: Cells) -> Cells:
        """Cells of both sets of trades together, at the later of the two moments.

        No cluster may have trades in both: its sums could not be squared together any more.

        Raises:
            LearningError: other dims, sums or half-lives, or cells below a support that were left out.
        """
        kinds = [(c.dims, c.further, c.half_lives_days, c.clusters) for c in (self, other)]
        if kinds[0] != kinds[1]:
            raise LearningError(f"cells of different kinds cannot be merged: {kinds[0]} and {kinds[1]}")
        if self.support > 1 or other.support > 1 or self.closed or other.closed:
            raise LearningError("cells merge only when all are there: support=1, not closed cells only")
        at = max(self.at, other.at)
        parts = [self.decayed_to(at), other.decayed_to(at)]
        both = zip(self.levels, other.levels, strict=True)
        levels = tuple(tuple(sorted({*one, *two}, key=level_order)) for one, two in both)
        codes = np.concatenate([recoded(c.codes, c.levels, levels) for c in parts])
        sums = np.concatenate([c.sums for c in parts])
        order = canonical_order(codes)
        codes, sums = codes[order], sums[order]
        if len(codes):
            first = np.flatnonzero(np.r_[True, (codes[1:] != codes[:-1]).any(1)])
            codes, sums = codes[first], np.add.reduceat(sums, first)
        return replace(self, levels=levels, at=at, codes=codes, sums=sums)


def column_names(further: tuple[str, ...], half_lives_days: tuple[float, ...], clusters: bool) -> tuple[str, ...]:
    """Names of the columns of ``Cells.sums``.

    >>> column_names(("roi",), (10.0,), True)[3:]
    ('sum_y2', 'sum_roi', 'w_10d', 'w2_10d', 's1_10d', 's2_10d', 'clusters', 'sum_aa', 'sum_ab', 'sum_bb')
    """
    decayed = (f"{name}_{h:g}d" for h in half_lives_days for name in ("w", "w2", "s1", "s2"))
    of_clusters = ("clusters", "sum_aa", "sum_ab", "sum_bb") if clusters else ()
    return ("n", "n_win", "sum_y", "sum_y2", *(f"sum_{name}" for name in further), *decayed, *of_clusters)


def fading(passed: int, half_life_days: float) -> tuple[float, float, float, float]:
    """What W, W2, S1, S2 are multiplied by when ``passed`` microseconds go by.

    >>> fading(10 * DAY, 10.0)
    (0.5, 0.25, 0.5, 0.5)
    """
    f = 2.0 ** (-passed / (half_life_days * DAY))
    return f, f * f, f, f


def masks(codes: Codes) -> Ints:
    """(m) masks of cells with these codes."""
    powers = np.left_shift(np.int64(1), np.arange(codes.shape[1], dtype=np.int64))
    return np.asarray((codes >= 0) @ powers)


def canonical_order(codes: Codes) -> NDArray[np.int64]:
    """Positions that sort cells by mask, then by level dim by dim."""
    widths = (codes.max(0) + 2).tolist() if len(codes) else []
    size = math.prod(widths)
    if size * 2 ** codes.shape[1] < 2**62:
        strides = np.array([math.prod(widths[j + 1 :]) for j in range(len(widths))], dtype=np.int64)
        return np.argsort(_numbers(codes, size, strides))
    return np.lexsort((*codes.T[::-1], masks(codes)))


@kernel
def _numbers(codes: Codes, size: int, strides: Ints) -> Ints:
    """(m) ``mask * size + sum of (code + 1) * stride``: the places of cells in canonical order, with gaps."""
    numbers = np.zeros(len(codes), dtype=np.int64)
    for i in range(len(codes)):
        for j in range(len(strides)):
            numbers[i] += (codes[i, j] + 1) * strides[j] + (codes[i, j] >= 0) * (size << j)
    return numbers


def recoded(codes: Codes, old: Levels, new: Levels) -> Codes:
    """``codes`` under the levels ``new``, which contain the levels ``old``."""
    if old == new:
        return codes
    out = np.empty_like(codes)
    for j, (before, after) in enumerate(zip(old, new, strict=True)):
        number = {value: code for code, value in enumerate(after)}
        table = np.array([*(number[value] for value in before), -1], dtype=np.int32)
        out[:, j] = table[codes[:, j]]
    return out


def cluster_variance(cells: Cells) -> tuple[Floats, NDArray[Any]]:
    """Robust variance of each cell's mean, and its degrees of freedom G - 1 (learning.md 9.1).

    ``V = G/(G-1) * [sum A^2 - 2 m sum AB + m^2 sum B^2] / (sum B)^2`` with ``m`` the mean and ``sum B = n``; never
    below 0. NaN for G < 2: one cluster says nothing about the spread between clusters. (The lessons ask for G >= 8.)

    Two clusters of one trade each, y = 0 and y = 2: m = 1, V = 2/1 * [4 - 4 + 2] / 4 = 1.
    """
    g, aa, ab, bb = cells.cluster_sums.T
    mean, n = cells.mean, cells.sums[:, N]
    spread = np.maximum(0.0, aa - 2.0 * mean * ab + mean**2 * bb)
    enough = g >= 2
    v = np.where(enough, g / np.where(enough, g - 1.0, 1.0) * spread / n**2, np.nan)
    return v, g.astype(np.int64) - 1


def edges(cells: Cells, base: float | None = None, pseudo_trades: float = DEFAULT.baseline_pseudo_trades) -> Floats:
    """``edge_raw`` of every cell at once (see there for the formula; learning.md 3).

    Args:
        base: baseline in R; by default that of the root cell among ``cells``. A time efficiency is used when summed.

    Raises:
        LearningError: no baseline given and no root cell to take it from.
    """
    if base is None:
        root = np.flatnonzero((cells.codes < 0).all(1))
        if not len(root):
            raise LearningError("no root cell among these cells; give the baseline")
        base = baseline(float(cells.sum_y[root[0]]), int(cells.n[root[0]]), pseudo_trades)
    n, calm = cells.sums[:, N], 1.0 / (1.0 + cells.variance)
    t = 0.5 + 0.5 * cells.sum_of("time_efficiency") / n if "time_efficiency" in cells.further else 1.0
    return np.asarray((cells.mean - base) * calm * calm * np.log1p(n) * (t + 1.0 + 0.5) / 3.0)
