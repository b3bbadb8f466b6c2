"""Which groups of dims a family may act on: evidence that their variance is above zero (decisions 16, 52, 53)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.design import Component, Design, Floats, Ints
from edgebook.learning.model import T_MAX
from edgebook.learning.shocks import Shocks, column_sums, whitened

#: Variance ratios tried for a block: effects of 2 % to 150 % of the residual standard deviation.
T_GRID = np.concatenate(([0.0], np.geomspace(4e-4, T_MAX, 24)))
#: Those an average is taken over: effects of 5 % to 40 % of the residual standard deviation.
AVERAGED = (T_GRID >= 0.0025) & (T_GRID <= 0.16)
#: Evidence of a dim, nats, below which nobody asks what shocks of its levels would leave of it.
_NEGLIGIBLE = 0.5
DIM_GROUPS = ("dims", "market_dims")
GROUPS = (*DIM_GROUPS, "cells")


def group_blocks(design: Design) -> dict[str, tuple[Component, ...]]:
    """The dims of each group that has any."""
    groups = {
        "dims": tuple(c for c in design.components if not c.market),
        "market_dims": tuple(c for c in design.components if c.market),
    }
    return {name: blocks for name, blocks in groups.items() if blocks}


def admitted(
    design: Design,
    ratios: tuple[float, float],
    acting: tuple[str, ...],
    config: LearningConfig = DEFAULT,
) -> tuple[dict[str, float], dict[str, str]]:
    """Evidence in nats of every group of dims, and ``acts`` or the reason why not.

    A group acts above its gate and until it falls below its lower one (``acting``: those that acted last). Where a
    group that acts is beyond doubt (``strong_nats``) the family has structure, and the other needs less to act beside
    it.
    """
    blocks = group_blocks(design)
    nats = {group: group_evidence(design, members, ratios) for group, members in blocks.items()}

    def judged(strong: bool) -> dict[str, str]:
        return {g: _reason(g, nats[g], design.n, members, acting, strong, config) for g, members in blocks.items()}

    reasons = judged(False)
    strong = any(reasons[group] == "acts" and nats[group] >= config.strong_nats for group in blocks)
    return nats, judged(strong) if strong else reasons


def _reason(
    group: str,
    nats: float,
    n: int,
    blocks: Sequence[Component],
    acting: Sequence[str],
    strong: bool,
    config: LearningConfig,
) -> str:
    market = group == "market_dims"
    on, off = config.gate_on_nats, config.gate_off_nats
    beside = config.gate_beside_nats
    if market:
        on, off = config.market_gate_on_nats, config.market_gate_off_nats
        beside = config.market_gate_beside_nats
    needed = off if group in acting else on
    if nats < (min(beside, needed) if strong else needed):
        return "no_variance"
    few = n < config.market_min_trades or max(block.episodes for block in blocks) < config.market_min_episodes
    return "market_wide_too_few" if market and few else "acts"


def why_silent(reasons: Mapping[str, str]) -> str:
    """The reason of a family none of whose groups acts."""
    return "market_wide_too_few" if "market_wide_too_few" in reasons.values() else "no_variance"


def profile(a_matrix: Floats, b: Floats, y_p_y: float, n: int) -> Floats:
    """Restricted log likelihood over T_GRID, minus that at t = 0, of one block with ``A = Z'PZ``, ``b = Z'Py``."""
    values, vectors = np.linalg.eigh(a_matrix)
    squares = (vectors.T @ b) ** 2
    scale = 1.0 + T_GRID[:, None] * np.maximum(values, 0.0)[None, :]
    rss = y_p_y - np.sum(T_GRID[:, None] * squares[None, :] / scale, axis=1)
    out: Floats = -0.5 * ((n - 1) * np.log(np.maximum(rss, 1e-12 * y_p_y) / y_p_y) + np.sum(np.log(scale), axis=1))
    return out


def averaged(found: Floats) -> float:
    """Log of the likelihood ratio averaged over the effect sizes of ``AVERAGED``: an e-value, unlike the best one."""
    return _log_mean_exp(found[AVERAGED].tolist())


def _log_mean_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values) / len(values))


def group_evidence(design: Design, blocks: Sequence[Component], ratios: tuple[float, float]) -> float:
    """Log of the average likelihood ratio of two readings: one tau for all dims of the group, or one dim alone (any
    equally likely).

    Averaging over dims is the multiplicity correction: a lone dim among D needs ln(2D) nats more. A market-wide dim
    counts only alone, and only with the lesser of its evidence under day and week shocks and under shocks of its own
    episodes (decisions 52). A dim that differs between tokens counts with the lesser of its evidence as it is and where
    each of its levels has shocks of its own by day (long and short on one bad day); the group loses what its dims lose.
    Where trades of a cluster go together, evidence counts by as much less (quasi-likelihood: Wedderburn 1974).
    """
    sums = column_sums(design, tuple(blocks))
    gram, _ = whitened(sums, *ratios)
    projected = gram[1:, 1:] - np.outer(gram[1:, 0], gram[0, 1:]) / gram[0, 0]
    a_matrix, b, y_p_y = projected[:-1, :-1], projected[:-1, -1], float(projected[-1, -1])
    if y_p_y <= 1e-12:
        return 0.0
    own = Shocks.of(sums, *ratios).whiten(design.y - float(gram[0, -1] / gram[0, 0]), design.day)
    alone, start, lost = [], 0, 0.0
    for block in blocks:
        part = slice(start, start + len(block.levels))
        nats = float(np.max(profile(a_matrix[part, part], b[part], y_p_y, design.n)))
        start = part.stop
        if block.market:
            nats = min(nats, _clustered_evidence(design.y, block.codes, len(block.levels)))
        elif nats > _NEGLIGIBLE:
            order = np.lexsort((block.codes, design.day))
            within = _clustered_evidence(own[order], block.codes[order], len(block.levels), design.day[order])
            lost += max(0.0, nats - within)
            nats = min(nats, within)
        alone.append(nats)
    alone = [nats / design.together for nats in alone]
    if blocks[0].market or len(blocks) == 1:
        return _log_mean_exp(alone)
    shared = max(0.0, float(np.max(profile(a_matrix, b, y_p_y, design.n))) - lost) / design.together
    return _log_mean_exp([shared, _log_mean_exp(alone)])


def _clustered_evidence(y: Floats, codes: Ints, levels: int, day: Ints | None = None) -> float:
    """Evidence for a dim when each run of one label has a shock of its own: a test on run means.

    A run ends where the label changes, or the day where days are given.
    """
    known = codes >= 0
    y, codes = y[known], codes[known]
    turn = codes[1:] != codes[:-1]
    if day is not None:
        turn |= day[known][1:] != day[known][:-1]
    starts = np.flatnonzero(np.concatenate(([True], turn)))
    if len(starts) < 4:
        return 0.0
    count = np.diff(np.append(starts, len(y))).astype(float)
    mean, label = np.add.reduceat(y, starts) / count, codes[starts]
    best: tuple[float, Floats] | None = None
    for shock in (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.3, 2.6):
        weight = 1.0 / (1.0 / count + shock)
        rss = float(weight @ mean**2 - (weight @ mean) ** 2 / weight.sum())
        score = -0.5 * (
            (len(mean) - 1) * math.log(max(rss, 1e-300)) - float(np.sum(np.log(weight))) + math.log(weight.sum())
        )
        if best is None or score > best[0]:
            best = (score, weight)
    assert best is not None
    weight = best[1]
    share = np.bincount(label, weights=weight, minlength=levels)
    value = np.bincount(label, weights=weight * mean, minlength=levels)
    total, level_mean = weight.sum(), float(weight @ mean) / weight.sum()
    a_matrix, b = np.diag(share) - np.outer(share, share) / total, value - share * level_mean
    rss = float(weight @ mean**2 - total * level_mean**2)
    return float(np.max(profile(a_matrix, b, rss, len(mean)))) if rss > 1e-12 else 0.0
