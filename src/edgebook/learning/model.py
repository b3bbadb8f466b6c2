"""The joint mixed model at given variances, and the variances by restricted likelihood.

``y = mu + Z u + e`` with ``u_k ~ N(0, t_k sigma^2)`` per block k of columns and ``e ~ N(0, sigma^2 V0)``, the shocks of
days and weeks in ``V0``. With ``X = [1, Z]``, ``u = H X' V0^-1 y`` and ``H = (X' V0^-1 X + diag(0, 1/t))^-1``: the
posterior covariance is ``sigma^2 H`` (Henderson 1975; restricted likelihood: Patterson & Thompson 1971).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgebook.learning.design import Component, Design, Floats
from edgebook.learning.shocks import Shocks, Sums, column_sums, maximise, whitened

#: Largest variance ratio of a block: effects of 150 % of the residual standard deviation.
T_MAX = 2.25
#: Variance ratio of a dim that is put into a model unasked.
MAIN_RATIO = 0.1


@dataclass(frozen=True, slots=True)
class Model:
    """Solution at given variances.

    Attributes:
        blocks, t: blocks of columns and their variance over that of one trade.
        mean, alpha: intercept, and the effect of every column of the blocks in order, R.
        sigma: residual standard deviation, R.
        h: posterior covariance of [mean, alpha] over sigma squared.
        loglik: restricted log likelihood, up to a constant.
        sums, ratios: column sums it was solved from, and the variance ratios (day, week) of the shocks.
    """

    blocks: tuple[Component, ...]
    t: Floats
    mean: float
    alpha: Floats
    sigma: float
    h: Floats
    loglik: float
    sums: Sums
    ratios: tuple[float, float]

    @property
    def starts(self) -> list[int]:
        """First column of each block."""
        return [int(start) for start in np.cumsum([0, *widths(self.blocks)])[:-1]]

    @property
    def shocks(self) -> Shocks:
        """The shocks at this model's ratios."""
        return Shocks.of(self.sums, *self.ratios)


def widths(blocks: Sequence[Component]) -> list[int]:
    """Number of columns of each block."""
    return [len(block.levels) for block in blocks]


def solve(
    sums: Sums, blocks: tuple[Component, ...], t: Floats, ratios: tuple[float, float], sigma: float | None = None
) -> Model:
    """Posterior mean and covariance for variance ratios ``t`` (per block) and shocks; one inverse in the column
    space. ``sigma`` is estimated where it is not given."""
    gram, log_det = whitened(sums, *ratios)
    root = np.concatenate(([1.0], np.sqrt(np.repeat(t, widths(blocks))))) if blocks else np.ones(1)
    m = gram[:-1, :-1] * np.outer(root, root)
    m.flat[:: len(m) + 1] += np.concatenate(([0.0], np.ones(len(m) - 1)))
    inverse = np.linalg.inv(m)
    inverse = 0.5 * (inverse + inverse.T)
    rhs = gram[:-1, -1]
    h = inverse * np.outer(root, root)
    beta = h @ rhs
    n = float(sums.gram[0, 0])
    rss = max(float(gram[-1, -1] - rhs @ beta), 1e-12 * float(gram[-1, -1]) + 1e-300)
    loglik = -0.5 * ((n - 1) * math.log(rss) + log_det + float(np.linalg.slogdet(m)[1]))
    spread = math.sqrt(rss / max(n - 1, 1.0)) if sigma is None else sigma
    return Model(blocks, t, float(beta[0]), beta[1:], spread, h, loglik, sums, ratios)


def loglik(sums: Sums, blocks: tuple[Component, ...], t: Floats, a: float, b: float) -> float:
    """Restricted log likelihood alone: the last pivot of the bordered Cholesky is the residual sum of squares."""
    gram, log_det = whitened(sums, a, b)
    root = np.concatenate(([1.0], np.sqrt(np.repeat(t, widths(blocks))), [1.0]))
    m = gram * np.outer(root, root)
    m.flat[:: len(m) + 1] += np.concatenate(([0.0], np.ones(len(m) - 2), [1e-12 * gram[-1, -1]]))
    pivots = np.log(np.diag(np.linalg.cholesky(m)))
    n = float(sums.gram[0, 0])
    return float(-0.5 * ((n - 1) * 2.0 * pivots[-1] + log_det + 2.0 * np.sum(pivots[:-1])))


def fit_blocks(
    design: Design, blocks: tuple[Component, ...], ratios: tuple[float, float], prior_levels: float
) -> Model:
    """Variances of ``blocks`` and of the shocks, by turns."""
    sums = column_sums(design, blocks)
    model = solve(sums, blocks, np.full(len(blocks), 0.02), ratios)
    if not blocks:
        return model
    for turn in range(2):
        for _ in range(12):
            step = _update(model, prior_levels)
            moved = float(np.max(np.abs(step - model.t) / (model.t + 1e-3)))
            model = solve(sums, blocks, step, ratios)
            if moved < 0.02:
                break
        if turn == 0:
            t = model.t
            ratios = maximise(partial(loglik, sums, blocks, t), start=ratios)
            model = solve(sums, blocks, t, ratios)
    return model


def _update(model: Model, prior_levels: float) -> Floats:
    """One fixed-point step of each t: ``|alpha|^2 / (sigma^2 * (gamma + nu))``.

    gamma is how many levels of the dim the data determine; nu = ``prior_levels`` counts as that many levels seen at
    zero: a dim with two levels cannot know its own spread, and one lucky trade must not set it.
    """
    out = model.t.copy()
    for k, (block, start) in enumerate(zip(model.blocks, model.starts, strict=True)):
        part = slice(start, start + len(block.levels))
        if model.t[k] <= 0:
            continue
        spread = np.diag(model.h)[1:][part] / model.t[k]
        gamma = float(np.sum(1.0 - spread))
        value = float(model.alpha[part] @ model.alpha[part]) / model.sigma**2 / (gamma + prior_levels)
        out[k] = min(T_MAX, value) if value > 1e-5 else 0.0
    return out


def widened(design: Design, model: Model, missing: Sequence[Component]) -> Model:
    """``model`` with further dims in it, each as if its effects were a third of the residual: what something is judged
    on top of, so that it cannot pass on the strength of a dim nobody admitted."""
    if not missing:
        return model
    blocks = (*model.blocks, *missing)
    t = np.concatenate((model.t, np.full(len(missing), MAIN_RATIO)))
    return solve(column_sums(design, blocks), blocks, t, model.ratios)


def fitted(design: Design, model: Model, alpha: Floats | None = None) -> Floats:
    """Expected outcome of every trade less the intercept, R."""
    effects = model.alpha if alpha is None else alpha
    out = np.zeros(design.n)
    for block, start in zip(model.blocks, model.starts, strict=True):
        has = block.codes >= 0
        out[has] += effects[start + block.codes[has]]
    return out


def residual(design: Design, model: Model) -> Floats:
    """``V0^-1 (y - mean - fitted)`` of every trade, R."""
    return model.shocks.whiten(design.y - model.mean - fitted(design, model), design.day)
