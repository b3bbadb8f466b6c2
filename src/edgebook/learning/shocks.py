"""The algebra of shared shocks: ``V0 = I + a*(same day) + b*(same week)``, days nested in weeks, inverted in closed
form.

Sherman-Morrison per day: ``(I + a 11')^-1 = I - a/(1 + a n) 11'``; then per week with ``S = sum n_j/(1 + a n_j)``:
subtract ``b/(1 + b S) q q'`` where q weighs each day's rows by ``1/(1 + a n_j)``. So ``X' V0^-1 X`` needs only day
sums of X, and ``log det V0 = sum log(1 + a n_j) + sum log(1 + b S_w)`` (decisions 52).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebook.kernels import kernel
from edgebook.learning.design import Component, Design

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_GRID = np.array([0.0, 0.01, 0.04, 0.16, 0.64, 2.5])


@dataclass(frozen=True, slots=True)
class Sums:
    """Cross products and day sums of the columns ``[1, levels..., y]``; days ascend, so weeks are runs of days."""

    gram: Floats
    by_day: Floats
    day_n: Floats
    week_of_day: Ints
    week_starts: Ints


def column_sums(design: Design, blocks: Sequence[Component], rows: NDArray[np.bool_] | None = None) -> Sums:
    """Sums over ``design`` (or only ``rows`` of it) of the intercept, the blocks' one-hot columns and y."""
    keep = slice(None) if rows is None else rows
    y, day = design.y[keep], design.day[keep]
    present, dense_day = (np.arange(len(design.days)), day) if rows is None else np.unique(day, return_inverse=True)
    index = np.full((len(y), len(blocks) + 1), -1, dtype=np.int64)
    index[:, 0] = 0
    offset = 1
    for k, block in enumerate(blocks):
        codes = block.codes[keep]
        index[:, k + 1] = np.where(codes >= 0, codes + offset, -1)
        offset += len(block.levels)
    gram, by_day = np.zeros((offset + 1, offset + 1)), np.zeros((len(present), offset + 1))
    _add(index, y, dense_day.astype(np.int64), gram, by_day)
    gram += np.triu(gram, 1).T
    week_starts, week = np.unique(design.week_of_day[present], return_index=True, return_inverse=True)[1:]
    return Sums(gram, by_day, by_day[:, 0].copy(), week.astype(np.int64), week_starts.astype(np.int64))


@kernel
def _add(index: Ints, y: Floats, day: Ints, gram: Floats, by_day: Floats) -> None:
    """The upper triangle of ``gram`` and the day sums, from the column numbers of each row (-1 = no column)."""
    last = gram.shape[0] - 1
    width = index.shape[1]
    columns = np.empty(width, np.int64)
    for i in range(len(y)):
        m = 0
        for k in range(width):
            if index[i, k] >= 0:
                columns[m] = index[i, k]
                m += 1
        for a in range(m):
            left = columns[a]
            for b in range(a, m):
                gram[left, columns[b]] += 1.0
            gram[left, last] += y[i]
            by_day[day[i], left] += 1.0
        gram[last, last] += y[i] * y[i]
        by_day[day[i], last] += y[i]


@dataclass(frozen=True, slots=True)
class Shocks:
    """One pair of variance ratios (day, week) over the days of a design, ready to whiten any columns."""

    day_weight: Floats
    day_factor: Floats
    week_factor: Floats
    week_of_day: Ints
    week_starts: Ints
    log_det: float

    @classmethod
    def of(cls, sums: Sums, a: float, b: float) -> Shocks:
        """The factors of ``V0 = I + a*(same day) + b*(same week)``."""
        weight = 1.0 / (1.0 + a * sums.day_n)
        s = np.bincount(sums.week_of_day, weights=sums.day_n * weight, minlength=len(sums.week_starts))
        log_det = float(np.sum(np.log1p(a * sums.day_n)) + np.sum(np.log1p(b * s)))
        return cls(
            weight, a * weight, np.asarray(b / (1.0 + b * s), dtype=float), sums.week_of_day, sums.week_starts, log_det
        )

    def weekly(self, by_day: Floats) -> Floats:
        """Week sums of day sums (days, columns), each day weighed by ``1/(1 + a n_j)``."""
        out: Floats = np.add.reduceat(by_day * self.day_weight[:, None], self.week_starts, axis=0)
        return out

    def cross(self, gram: Floats, left: Floats, right: Floats) -> Floats:
        """``L' V0^-1 R`` from ``gram = L'R`` and the day sums of L and R."""
        out: Floats = gram - (left * self.day_factor[:, None]).T @ right
        out -= (self.weekly(left) * self.week_factor[:, None]).T @ self.weekly(right)
        return out

    def whiten(self, rows: Floats, day: Ints) -> Floats:
        """``V0^-1 rows``: what is left of each row's value when its day's and week's shares are taken out."""
        by_day: Floats = np.bincount(day, weights=rows, minlength=len(self.day_weight)).astype(float)
        weekly = self.weekly(by_day[:, None])[:, 0]
        shared = self.day_factor * by_day + self.day_weight * (self.week_factor * weekly)[self.week_of_day]
        out: Floats = rows - shared[day]
        return out


def design_effect(rows: Floats, day: Ints) -> float:
    """How much more the mean of a slice varies than its trades' spread says, because trades of one day go together.

    ``sum_d (sum_i r_di)^2 / sum r^2`` of residuals around their own mean (Kish 1965): 1 where they are independent.
    What could be chance (below 1.4, or fewer than eight days) counts as 1.

    >>> design_effect(np.array([1.0, 1.0, -1.0, -1.0] * 8), np.repeat(np.arange(16), 2))
    2.0
    """
    around = rows - rows.mean()
    total = float(around @ around)
    by_day = np.bincount(day, weights=around)
    if total <= 0 or len(np.unique(day)) < 8:
        return 1.0
    found = float(by_day @ by_day) / total
    return found if found > 1.4 else 1.0


def whitened(sums: Sums, a: float, b: float) -> tuple[Floats, float]:
    """``X' V0^-1 X`` for all columns, and ``log det V0``."""
    shocks = Shocks.of(sums, a, b)
    return shocks.cross(sums.gram, sums.by_day, sums.by_day), shocks.log_det


def null_shocks(design: Design) -> tuple[float, float]:
    """Variance ratios (day, week) to the residual that maximise the restricted likelihood of the model without any
    dim."""
    sums = column_sums(design, ())
    count, total, square = sums.day_n, sums.by_day[:, 1].copy(), float(sums.gram[1, 1])
    return maximise(lambda a, b: float(null_loglik(a, b, count, total, square, sums.week_starts)))


@kernel
def null_loglik(a: float, b: float, count: Floats, total: Floats, square: float, week_starts: Ints) -> float:
    """Restricted log likelihood of the mean alone, from trades and outcomes per day and the sum of squared outcomes."""
    n, ones, cross, rss, logs = 0.0, 0.0, 0.0, square, 0.0
    for w in range(len(week_starts)):
        end = week_starts[w + 1] if w + 1 < len(week_starts) else len(count)
        s, q = 0.0, 0.0
        for d in range(week_starts[w], end):
            weight = 1.0 / (1.0 + a * count[d])
            n += count[d]
            s += count[d] * weight
            q += total[d] * weight
            rss -= a * weight * total[d] * total[d]
            logs += np.log1p(a * count[d])
        tail = b / (1.0 + b * s)
        ones += s - tail * s * s
        cross += q - tail * s * q
        rss -= tail * q * q
        logs += np.log1p(b * s)
    rss -= cross * cross / ones
    return float(-0.5 * ((n - 1.0) * np.log(max(rss, 1e-300)) + logs + np.log(ones)))


def maximise(score: Callable[[float, float], float], start: tuple[float, float] | None = None) -> tuple[float, float]:
    """Coarse grid, then coordinate steps in log space down to 5 %; deterministic. 0 is tried on both axes.

    Scores are compared to six places, ties go to the smaller shocks: rounding must not choose between equal ones.
    """
    tried: dict[tuple[float, float], float] = {}

    def at(point: tuple[float, float]) -> float:
        if point not in tried:
            tried[point] = round(float(score(*point)), 6)
        return tried[point]

    corners = (
        [(a, b) for a in _GRID.tolist() for b in _GRID.tolist()]
        if start is None
        else [(0.0, 0.0), (start[0], 0.0), (0.0, start[1]), start]
    )
    best = max(corners, key=at)
    step = 1.8
    while step > 1.05:
        moves = [(best[0] * f, best[1] * g) for f, g in ((step, 1), (1 / step, 1), (1, step), (1, 1 / step))]
        top = max(moves, key=at)
        if at(top) > at(best):
            best = top
        else:
            step = step**0.5
    return best
