"""The shrunken effects of a family: which dims move the outcome, by how much, and how sure that is (decisions 13, 16,
52, 53).

Model: ``y = mu + day shock + week shock + sum_d alpha_d[x_d] + sum_(d,e) beta_de[x_d, x_e] + eps`` with normal effects
of variance ``tau^2 = t * sigma^2`` per block, fitted by restricted marginal likelihood on winsorised rr. Every
observation counts the same: decay enters at run time only. Blocks come in groups (dims, market-wide dims, pairs, pairs
with a market-wide dim); a group acts when its evidence clears its gate, the multiplicity of its members included.
Order 3 is not modelled here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations

import numpy as np
from scipy.special import ndtr

from edgebook.domain.evidence import FamilyFit, Observation
from edgebook.domain.scope import ScopeItems, ScopeSchema
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.design import Component, Design, Floats, make_design, pair
from edgebook.learning.shocks import Shocks, Sums, column_sums, maximise, null_shocks, whitened

#: Variance ratios tried for a block: effects of 2 % to 150 % of the residual standard deviation.
T_GRID = np.concatenate(([0.0], np.geomspace(4e-4, 2.25, 24)))
GROUPS = ("dims", "market_dims", "pairs", "market_pairs")


@dataclass(frozen=True, slots=True)
class Effect:
    """Posterior of one slice. ``theta`` is the increment over its sub-scopes in R, ``total`` the slice's mean over the
    family's."""

    theta: float
    se: float
    n: int
    n_eff: float
    lfsr: float
    total: float
    confirmed: bool
    last_ts: int


@dataclass(frozen=True, slots=True)
class Fit:
    """What a family's observations say. ``lr`` is the evidence of each group in nats, ``groups`` those that act."""

    n: int
    mean: float
    sigma: float
    day_ratio: float
    week_ratio: float
    taus: Mapping[str, float]
    lr: Mapping[str, float]
    groups: tuple[str, ...]
    acts: bool
    reason: str
    effects: Mapping[ScopeItems, Effect] = field(default_factory=dict)


def fit_family(
    observations: Sequence[Observation],
    schema: ScopeSchema,
    previous: FamilyFit | None = None,
    config: LearningConfig = DEFAULT,
    outcome: Sequence[float] | None = None,
) -> Fit:
    """Fit one family.

    Args:
        observations: all of the family, in any order.
        schema: dims, and which of them are the same for all tokens at a time (others are recognised from the data).
        previous: last stored fit; only its acting groups matter (hysteresis).
        outcome: replaces ``y`` one to one (the exit outcome of trims).

    Fewer than ``fit_min_observations`` give a fit that does not act, reason ``too_few``.
    """
    if len(observations) < config.fit_min_observations:
        mean = float(np.mean([o.y for o in observations])) if observations else 0.0
        return Fit(len(observations), mean, 0.0, 0.0, 0.0, {}, {}, (), False, "too_few")
    design = make_design(observations, schema, config, outcome)
    return fit_design(design, tuple(previous.detail.get("groups", ())) if previous else (), config)


def fit_design(design: Design, acting: tuple[str, ...] = (), config: LearningConfig = DEFAULT) -> Fit:
    """Fit prepared arrays; ``acting`` are the groups that acted after the last fit."""
    ratios = null_shocks(design)
    lr: dict[str, float] = {}
    reasons: dict[str, str] = {}
    dims = {
        "dims": [c for c in design.components if not c.market],
        "market_dims": [c for c in design.components if c.market],
    }
    chosen: list[Component] = []
    for group, blocks in dims.items():
        if not blocks:
            continue
        lr[group] = _group_evidence(design, blocks, ratios)
        reasons[group] = _gate(group, lr[group], design.n, max((c.episodes for c in blocks), default=0), acting, config)
        if reasons[group] == "acts":
            chosen += blocks
    model, ratios = _fit_blocks(design, tuple(chosen), ratios, config.tau_prior_levels)
    added = _pairs(design, model, lr, reasons, acting, config)
    groups = tuple(g for g in GROUPS if reasons.get(g) == "acts")
    if added:
        blocks_t = tuple(chosen) + tuple(c for c, _ in added)
        model = _solve(column_sums(design, blocks_t), blocks_t, np.array([*model.t, *(t for _, t in added)]), ratios)
    effects = _effects(design, model) if groups else {}
    reason = (
        "acts" if groups else ("market_wide_too_few" if "market_wide_too_few" in reasons.values() else "no_variance")
    )
    taus = {
        b.name: float(math.sqrt(t) * model.sigma) for b, t in zip(model.blocks, model.t.tolist(), strict=True) if t > 0
    }
    return Fit(design.n, model.mean, model.sigma, *ratios, taus, lr, groups, bool(groups), reason, effects)


def _gate(group: str, nats: float, n: int, episodes: int, acting: tuple[str, ...], config: LearningConfig) -> str:
    """``acts``, or why not. On above the gate, off again only below the lower one (decisions 16, 53)."""
    market = group.startswith("market")
    on, off = config.gate_on_nats, config.gate_off_nats
    if market:
        on, off = config.market_gate_on_nats, config.market_gate_off_nats
    elif group == "pairs":
        on, off = config.pair_gate_on_nats, config.pair_gate_off_nats
    if nats < (off if group in acting else on):
        return "no_variance"
    few = n < config.market_min_trades or (group == "market_dims" and episodes < config.market_min_episodes)
    return "market_wide_too_few" if market and few else "acts"


# ---------------------------------------------------------------- evidence of a group
def _profile(a_matrix: Floats, b: Floats, y_p_y: float, n: int) -> Floats:
    """Restricted log likelihood over T_GRID, minus that at t = 0, of one block with ``A = Z'PZ``, ``b = Z'Py``."""
    values, vectors = np.linalg.eigh(a_matrix)
    squares = (vectors.T @ b) ** 2
    scale = 1.0 + T_GRID[:, None] * np.maximum(values, 0.0)[None, :]
    rss = y_p_y - np.sum(T_GRID[:, None] * squares[None, :] / scale, axis=1)
    out: Floats = -0.5 * ((n - 1) * np.log(np.maximum(rss, 1e-12 * y_p_y) / y_p_y) + np.sum(np.log(scale), axis=1))
    return out


def _log_mean_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values) / len(values))


def _group_evidence(design: Design, blocks: Sequence[Component], ratios: tuple[float, float]) -> float:
    """Log of the average likelihood ratio of two readings: one tau for all dims of the group, or one dim alone (any
    equally likely).

    Averaging over dims is the multiplicity correction: a lone dim among D needs ln(2D) nats more. A market-wide dim
    counts only alone, and only with the lesser of its evidence under day and week shocks and under shocks of its own
    episodes (decisions 52).
    """
    sums = column_sums(design, tuple(blocks))
    gram, _ = whitened(sums, *ratios)
    projected = gram[1:, 1:] - np.outer(gram[1:, 0], gram[0, 1:]) / gram[0, 0]
    a_matrix, b, y_p_y = projected[:-1, :-1], projected[:-1, -1], float(projected[-1, -1])
    if y_p_y <= 1e-12:
        return 0.0
    alone, start = [], 0
    for block in blocks:
        part = slice(start, start + len(block.levels))
        nats = float(np.max(_profile(a_matrix[part, part], b[part], y_p_y, design.n)))
        alone.append(min(nats, _episode_evidence(design.y, block.codes, len(block.levels))) if block.market else nats)
        start = part.stop
    if blocks[0].market or len(blocks) == 1:
        return _log_mean_exp(alone)
    shared = float(np.max(_profile(a_matrix, b, y_p_y, design.n)))
    return _log_mean_exp([shared, _log_mean_exp(alone)])


def _episode_evidence(y: Floats, codes: np.ndarray, levels: int) -> float:
    """Evidence for a market-wide dim when each of its episodes (a run of one label) has a shock of its own: a test on
    run means."""
    known = codes >= 0
    y, codes = y[known], codes[known]
    starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
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
    return float(np.max(_profile(a_matrix, b, rss, len(mean)))) if rss > 1e-12 else 0.0


# ---------------------------------------------------------------- the joint model
@dataclass(frozen=True, slots=True)
class _Model:
    """Solution at given variances: ``h`` is the posterior covariance of [mu, effects] over sigma squared."""

    blocks: tuple[Component, ...]
    t: Floats
    mean: float
    alpha: Floats
    sigma: float
    h: Floats
    loglik: float
    sums: Sums
    ratios: tuple[float, float]
    rhs: Floats


def _widths(blocks: Sequence[Component]) -> list[int]:
    return [len(block.levels) for block in blocks]


def _solve(
    sums: Sums, blocks: tuple[Component, ...], t: Floats, ratios: tuple[float, float], sigma: float | None = None
) -> _Model:
    """Posterior mean and covariance for variance ratios ``t`` (per block) and shocks; one inverse in the column
    space."""
    gram, log_det = whitened(sums, *ratios)
    root = np.concatenate(([1.0], np.sqrt(np.repeat(t, _widths(blocks))))) if blocks else np.ones(1)
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
    return _Model(blocks, t, float(beta[0]), beta[1:], spread, h, loglik, sums, ratios, rhs)


def _loglik(sums: Sums, blocks: tuple[Component, ...], t: Floats, a: float, b: float) -> float:
    """Restricted log likelihood alone: the last pivot of the bordered Cholesky is the residual sum of squares."""
    gram, log_det = whitened(sums, a, b)
    root = np.concatenate(([1.0], np.sqrt(np.repeat(t, _widths(blocks))), [1.0]))
    m = gram * np.outer(root, root)
    m.flat[:: len(m) + 1] += np.concatenate(([0.0], np.ones(len(m) - 2), [1e-12 * gram[-1, -1]]))
    pivots = np.log(np.diag(np.linalg.cholesky(m)))
    n = float(sums.gram[0, 0])
    return float(-0.5 * ((n - 1) * 2.0 * pivots[-1] + log_det + 2.0 * np.sum(pivots[:-1])))


def _update(model: _Model, prior_levels: float) -> Floats:
    """One fixed-point step of each t: ``|alpha|^2 / (sigma^2 * (gamma + nu))``.

    gamma is how many levels of the dim the data determine; nu = ``prior_levels`` counts as that many levels seen at
    zero: a dim with two levels cannot know its own spread, and one lucky trade must not set it.
    """
    out, start = model.t.copy(), 0
    for k, block in enumerate(model.blocks):
        part = slice(start, start + len(block.levels))
        start = part.stop
        if model.t[k] <= 0:
            continue
        spread = np.diag(model.h)[1:][part] / model.t[k]
        gamma = float(np.sum(1.0 - spread))
        value = float(model.alpha[part] @ model.alpha[part]) / model.sigma**2 / (gamma + prior_levels)
        out[k] = min(float(T_GRID[-1]), value) if value > 1e-5 else 0.0
    return out


def _fit_blocks(
    design: Design, blocks: tuple[Component, ...], ratios: tuple[float, float], prior_levels: float
) -> tuple[_Model, tuple[float, float]]:
    """Variances of ``blocks`` and of the shocks, by turns."""
    sums = column_sums(design, blocks)
    model = _solve(sums, blocks, np.full(len(blocks), 0.02), ratios)
    if not blocks:
        return model, ratios
    for turn in range(2):
        for _ in range(12):
            step = _update(model, prior_levels)
            moved = float(np.max(np.abs(step - model.t) / (model.t + 1e-3)))
            model = _solve(sums, blocks, step, ratios)
            if moved < 0.02:
                break
        if turn == 0:
            t = model.t
            ratios = maximise(partial(_loglik, sums, blocks, t), start=ratios)
            model = _solve(sums, blocks, t, ratios)
    return model, ratios


# ---------------------------------------------------------------- pairs
def _mains(design: Design, model: _Model) -> _Model:
    """The model pairs are tested against: every dim is in it, so that a pair cannot pass on the strength of one of its
    dims."""
    fitted = dict(zip((b.name for b in model.blocks), model.t.tolist(), strict=True))
    t = np.array([max(0.1, fitted.get(c.name, 0.0)) for c in design.components])
    return _solve(column_sums(design, design.components), design.components, t, model.ratios)


@dataclass(frozen=True, slots=True)
class _Whitened:
    """What every pair test shares: y and the model's columns, with the shocks taken out."""

    shocks: Shocks
    y: Floats
    fitted: Floats
    day_columns: Floats
    week_columns: Floats

    @classmethod
    def of(cls, design: Design, model: _Model) -> _Whitened:
        shocks = Shocks.of(model.sums, *model.ratios)
        columns = model.sums.by_day[:, :-1]
        return cls(
            shocks,
            _whiten_y(design, model, shocks),
            model.h @ model.rhs,
            columns * shocks.day_factor[:, None],
            shocks.weekly(columns) * shocks.week_factor[:, None],
        )


def _pair_profile(design: Design, model: _Model, block: Component, given: _Whitened) -> Floats:
    """Likelihood of one pair over T_GRID on top of ``model``."""
    width, days = len(block.levels), len(model.sums.day_n)
    keep = block.codes >= 0
    codes = block.codes[keep]
    by_day = np.bincount(design.day[keep] * width + codes, minlength=days * width).reshape(-1, width).astype(float)
    by_week = given.shocks.weekly(by_day)
    count = np.bincount(codes, minlength=width).astype(float)
    rows = [count[None, :]]
    for other in model.blocks:
        size = len(other.levels)
        joint = np.bincount((other.codes[keep] + 1) * width + codes, minlength=(size + 1) * width)
        rows.append(joint.reshape(size + 1, width)[1:].astype(float))
    across = np.concatenate(rows) - given.day_columns.T @ by_day - given.week_columns.T @ by_week
    own = np.diag(count) - (by_day * given.shocks.day_factor[:, None]).T @ by_day
    own -= (by_week * given.shocks.week_factor[:, None]).T @ by_week
    b = np.bincount(codes, weights=given.y[keep], minlength=width) - across.T @ given.fitted
    return _profile(own - across.T @ model.h @ across, b, model.sigma**2 * (design.n - 1), design.n)


def _whiten_y(design: Design, model: _Model, shocks: Shocks) -> Floats:
    by_day = model.sums.by_day[:, -1]
    weekly = shocks.weekly(by_day[:, None])[:, 0]
    per_day = shocks.day_factor * by_day + shocks.day_weight * (shocks.week_factor * weekly)[shocks.week_of_day]
    out: Floats = design.y - per_day[design.day]
    return out


def _pairs(
    design: Design,
    model: _Model,
    lr: dict[str, float],
    reasons: dict[str, str],
    acting: tuple[str, ...],
    config: LearningConfig,
) -> list[tuple[Component, float]]:
    """Pairs worth adding with their variance ratio, weighed by the probability that they are real.

    Each pair has its own likelihood ratio, less the price of fitting its tau; the share of real pairs starts at one in
    all and is fitted (empirical Bayes); a group of pairs acts when the average likelihood ratio over its members
    clears the gate.
    """
    if design.n < config.pair_min_trades:
        return []
    made = [pair(c, d, config.pair_min_cell) for c, d in combinations(design.components, 2)]
    groups: dict[str, list[Component]] = {"pairs": [], "market_pairs": []}
    for block in made:
        if block is not None:
            groups["market_pairs" if block.market else "pairs"].append(block)
    model = _mains(design, model)
    given = _Whitened.of(design, model)
    added: list[tuple[float, Component, float]] = []
    for group, blocks in groups.items():
        if not blocks:
            continue
        profiles = [_pair_profile(design, model, block, given) for block in blocks]
        best = [float(np.max(p)) for p in profiles]
        lr[group] = _log_mean_exp(best)
        reasons[group] = _gate(group, lr[group], design.n, 0, acting, config)
        if reasons[group] == "acts":
            chance = _inclusion([v - config.pair_fit_cost_nats for v in best])
            added += [
                (p, block, p * float(T_GRID[int(np.argmax(profile))]))
                for p, block, profile in zip(chance, blocks, profiles, strict=True)
                if p >= config.pair_min_inclusion and np.argmax(profile) > 0
            ]
    added.sort(key=lambda item: (-item[0], item[1].name))
    return [(block, t) for _, block, t in added[: config.pairs_max]]


def _inclusion(nats: Sequence[float]) -> list[float]:
    """Probability that each member is real, the share of real ones fitted by EM from one in all."""
    share = 1.0 / len(nats)
    odds = [math.exp(min(v, 50.0)) for v in nats]
    for _ in range(20):
        chance = [share * o / (1.0 - share + share * o) for o in odds]
        share = min(0.5, max(1.0 / len(nats), sum(chance) / len(nats)))
    return [share * o / (1.0 - share + share * o) for o in odds]


# ---------------------------------------------------------------- effects
def _effects(design: Design, model: _Model) -> dict[ScopeItems, Effect]:
    """Posterior per slice: increment, spread, evidence, slice mean, and whether both halves of time agree on the
    sign."""
    fitted = np.zeros(design.n)
    ends = np.cumsum([0, *_widths(model.blocks)])
    for block, start in zip(model.blocks, ends.tolist(), strict=False):
        has = block.codes >= 0
        fitted[has] += model.alpha[start + block.codes[has]]
    halves = [_half(design, model, half) for half in _split(design.n)]
    se = model.sigma * np.sqrt(np.maximum(np.diag(model.h)[1:], 0.0))
    effects: dict[ScopeItems, Effect] = {}
    for k, block in enumerate(model.blocks):
        if model.t[k] <= 0:
            continue
        has = block.codes >= 0
        count = np.bincount(block.codes[has], minlength=len(block.levels))
        total = np.bincount(block.codes[has], weights=fitted[has], minlength=len(block.levels)) / np.maximum(count, 1)
        newest = np.zeros(len(block.levels), dtype=np.int64)
        np.maximum.at(newest, block.codes[has], design.ts[has])
        for level, items in enumerate(block.levels):
            if count[level] == 0:
                continue
            i = int(ends[k]) + level
            theta, spread = float(model.alpha[i]), max(float(se[i]), 1e-12)
            prior = float(model.t[k]) * model.sigma**2
            effects[items] = Effect(
                theta,
                spread,
                int(count[level]),
                max(0.0, model.sigma**2 * (1.0 / spread**2 - 1.0 / prior)),
                float(ndtr(-abs(theta) / spread)),
                float(total[level]),
                all(float(half[i]) * theta > 0 for half in halves),
                int(newest[level]),
            )
    return effects


def _split(n: int) -> tuple[np.ndarray, np.ndarray]:
    early = np.arange(n) < n // 2
    return early, ~early


def _half(design: Design, model: _Model, rows: np.ndarray) -> Floats:
    """Effects from one half of time alone, at the variances of the whole."""
    sums = column_sums(design, model.blocks, rows)
    return _solve(sums, model.blocks, model.t, model.ratios, model.sigma).alpha
