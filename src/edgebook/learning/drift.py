"""How fast each effect forgets: half-lives chosen by how well they foretold the next day (learning.md 9.8, 9.11).

For each column (a level of a dim, or a cell) and each half-life H the effect is followed day by day: evidence so far
counts ``2^(-age/H)``, the prior is ``N(0, tau^2)``, and each day's own value is judged by the density it was given the
day before. Columns share a prior over half-lives, fitted by EM and leaning to "never"; an effect is then the mean over
half-lives, so one that has gone is forgotten and one that stands keeps its whole history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebook.kernels import kernel
from edgebook.learning.config import DEFAULT, LearningConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: From the floor of 72 h to never.
HALF_LIVES_DAYS = np.array([3.0, 7.0, 14.0, 30.0, 60.0, 120.0, np.inf])


@dataclass(frozen=True, slots=True)
class Drift:
    """Per column: shift of its effect from the stationary one (R), ratio of its standard deviation to the stationary
    one, and its likeliest half-life in days (inf: stationary)."""

    shift: Floats
    ratio: Floats
    half_life_days: Floats


def follow(
    days: Ints, info: Floats, total: Floats, tau2: Floats, sigma2: float, weight: Floats,
    config: LearningConfig = DEFAULT,
) -> Drift:  # fmt: skip
    """Follow every column through its days.

    Args:
        days: days since 1970, ascending.
        info: information per (column, day): trades, less what they share with their day and week.
        total: information times the day's own estimate of the effect, R.
        tau2: prior variance per column, R squared. A column that forgets has at least ``drift_min_variance_ratio``
            times the variance of one trade: where an effect has turned round, the whole history says that there is
            none.
        sigma2: variance of one trade, R squared.
        weight: how much each column counts in the shared prior, 0 to 1.
    """
    shape = (len(info), len(HALF_LIVES_DAYS))
    mean, variance, score = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    least = config.drift_min_variance_ratio * sigma2
    _follow(days.astype(float), info, total, HALF_LIVES_DAYS, tau2, least, sigma2, mean, variance, score)
    prior = np.full(shape[1], config.drift_pseudo_columns)
    prior[-1] = config.stationary_pseudo_columns
    p = half_life_chances(score, prior, weight)
    overall = np.sum(p * mean, axis=1)
    spread = np.sum(p * (variance + mean**2), axis=1) - overall**2
    ratio = np.sqrt(np.maximum(spread, 1e-18) / np.maximum(variance[:, -1], 1e-18))
    return Drift(overall - mean[:, -1], ratio, HALF_LIVES_DAYS[np.argmax(p, axis=1)])


def half_life_chances(score: Floats, prior: Floats, weight: Floats) -> Floats:
    """Probability of each half-life per column: its likelihood times a prior the columns share, fitted by EM.

    Args:
        score: log predictive likelihood per (column, half-life).
        prior: pseudo-columns per half-life.
        weight: per column, 0 to 1.

    >>> half_life_chances(np.array([[0.0, 0.0]]), np.array([1.0, 3.0]), np.array([0.0])).tolist()
    [[0.25, 0.75]]
    """
    like = np.exp(score - score.max(axis=1, keepdims=True))
    share = prior / prior.sum()
    for _ in range(30):
        p = like * share
        p /= p.sum(axis=1, keepdims=True)
        share = prior + (p * weight[:, None]).sum(axis=0)
        share /= share.sum()
    p = like * share
    out: Floats = p / p.sum(axis=1, keepdims=True)
    return out


@kernel
def _follow(
    days: Floats,
    info: Floats,
    total: Floats,
    half_lives: Floats,
    tau2: Floats,
    least: float,
    sigma2: float,
    mean: Floats,
    variance: Floats,
    score: Floats,
) -> None:
    """Per column and half-life: posterior after the column's last day, and its one-step predictive log likelihood."""
    for j in range(info.shape[0]):
        for h in range(len(half_lives)):
            precision, weighted, last, fit = 0.0, 0.0, -1, 0.0
            prior = tau2[j] if np.isinf(half_lives[h]) else max(tau2[j], least)
            for d in range(info.shape[1]):
                q = info[j, d] / sigma2
                if q <= 0.0:
                    continue
                if last >= 0:
                    kept = 2.0 ** (-(days[d] - days[last]) / half_lives[h])
                    precision *= kept
                    weighted *= kept
                last = d
                v = 1.0 / (precision + 1.0 / prior)
                x = total[j, d] / info[j, d]
                miss, spread = x - weighted * v, v + 1.0 / q
                fit -= 0.5 * (np.log(spread) + miss * miss / spread)
                precision += q
                weighted += q * x
            v = 1.0 / (precision + 1.0 / prior)
            mean[j, h] = weighted * v
            variance[j, h] = v
            score[j, h] = fit
