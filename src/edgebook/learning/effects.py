"""From the fitted model to what may be said of a slice: effect now, spread, evidence, confirmation (learning.md 9.2,
9.5, 9.11)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from edgebook.domain.scope import ScopeItems
from edgebook.learning.candidates import Candidates, inside, log_bayes_factor
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.design import Design, Floats
from edgebook.learning.drift import Drift, follow
from edgebook.learning.model import Model, fitted, residual, solve
from edgebook.learning.shocks import column_sums, design_effect

#: Trades whose membership in all slices is held at once.
_CHUNK_TRADES = 1 << 16


@dataclass(frozen=True, slots=True)
class Effect:
    """Posterior of one slice.

    Attributes:
        theta: increment over what the wider slices say, as of the slice's last trade, R.
        se: its posterior standard deviation, R.
        n, n_eff: trades in the slice; trades its evidence is worth.
        lfsr: chance that the sign is wrong.
        total: the slice's expected outcome over the family's mean, R.
        log_e: log e-value of the increment times the slice's prior share: what may be claimed is decided on it.
        confirmed: later trades alone say the same sign (9.5).
        half_life_hours: how fast it forgets; inf where nothing speaks against a standing effect.
        last_ts: closing of the slice's last trade, microseconds UTC.
        factor: slices of one cluster tell of much the same trades; -1 where a slice stands alone (9.4).
    """

    theta: float
    se: float
    n: int
    n_eff: float
    lfsr: float
    total: float
    log_e: float = -math.inf
    confirmed: bool = False
    half_life_hours: float = math.inf
    last_ts: int = 0
    factor: int = -1


@dataclass(frozen=True, slots=True)
class _Contrast:
    """A slice's effect as a combination of the model's columns, its prior variance over sigma squared, its trades."""

    weights: Floats
    prior: float
    hit: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Halves:
    """A model's effects from each side of the middle of the history alone, at its own variances (9.5).

    ``early`` are the trades closed before it, ``late`` those entered after it; a trade open over the middle belongs to
    neither. A side without a trade is None.
    """

    early: Model | None
    late: Model | None
    late_rows: NDArray[np.bool_]

    @classmethod
    def of(cls, design: Design, model: Model) -> Halves:
        """Both sides of ``design``."""
        middle = int(design.opened[design.n // 2])
        late_rows = design.opened > middle

        def side(rows: NDArray[np.bool_]) -> Model | None:
            if not rows.any():
                return None
            return solve(column_sums(design, model.blocks, rows), model.blocks, model.t, model.ratios, model.sigma)

        return cls(side(design.ts <= middle), side(late_rows), late_rows)


def effects_of(
    design: Design, model: Model, known: Candidates, halves: Halves, config: LearningConfig = DEFAULT
) -> dict[ScopeItems, Effect]:
    """Effects of all slices of ``model``, the root's (what keeps the family's mean where it was) included."""
    drift = _drift(design, model, config)
    alpha = model.alpha + drift.shift
    expected, e = fitted(design, model, alpha), residual(design, model)
    spread = model.h[1:, 1:] * np.outer(drift.ratio, drift.ratio)
    contrasts = _contrasts(design, model)
    confirmed = _confirmed(design, halves, {items: c.weights for items, c in contrasts.items()}, config)
    factors = _overlaps({items: c.hit for items, c in contrasts.items() if items}, config)
    found: dict[ScopeItems, Effect] = {}
    for items, contrast in contrasts.items():
        c, hit = contrast.weights, contrast.hit
        theta, v = float(c @ alpha), max(float(c @ spread @ c), 1e-18)
        together = max(design.together, design_effect(e[hit], design.day[hit]) if items else 1.0)
        se = model.sigma * math.sqrt(v * together)
        total = float(expected[hit].mean() - expected.mean())
        if items and _turned_by_clipping(design, hit):
            theta = 0.0
        lives = drift.half_life_days[np.abs(c) > 0.5]
        standing = max(float(c @ model.h[1:, 1:] @ c), 1e-18)
        information = max(0.0, 1.0 / standing - 1.0 / contrast.prior) if contrast.prior > 0 else 0.0
        found[items] = Effect(
            theta=theta,
            se=se,
            n=int(np.count_nonzero(hit)),
            n_eff=min(information, float(np.count_nonzero(hit))),
            lfsr=float(ndtr(-abs(theta) / se)),
            total=total,
            log_e=_log_e(
                known, items, float(c @ model.alpha) / standing / math.sqrt(together), information, model.sigma
            )
            if items
            else -math.inf,
            confirmed=bool(items) and confirmed[items],
            half_life_hours=float(lives.min()) * 24.0 if len(lives) else math.inf,
            last_ts=int(design.ts[hit].max()),
            factor=factors.get(items, -1),
        )
    return found


def _contrasts(design: Design, model: Model) -> dict[ScopeItems, _Contrast]:
    """A level counts against the mean of its dim; a cell, or a level of a dim that some trades lack, as it is, and the
    root takes back its share of the mean."""
    width = len(model.alpha)
    weights: dict[ScopeItems, Floats] = {}
    hits: dict[ScopeItems, NDArray[np.bool_]] = {}
    root = np.zeros(width)
    per_column = np.repeat(model.t, [len(b.levels) for b in model.blocks])
    for k, (block, start) in enumerate(zip(model.blocks, model.starts, strict=True)):
        if model.t[k] <= 0:
            continue
        size = len(block.levels)
        count = np.bincount(block.codes[block.codes >= 0], minlength=size)
        alone = size == 1 or count.sum() < design.n
        for level, items in enumerate(block.levels):
            if count[level] == 0:
                continue
            c = weights.setdefault(items, np.zeros(width))
            c[start + level] += 1.0
            if not alone:
                c[start : start + size] -= count / design.n
            hits[items] = block.codes == level
        if alone:
            root[start : start + size] -= count / design.n
    if root.any():
        weights[()], hits[()] = root, np.ones(design.n, dtype=bool)
    return {items: _Contrast(c, float(c * c @ per_column), hits[items]) for items, c in weights.items()}


def _turned_by_clipping(design: Design, hit: NDArray[np.bool_]) -> bool:
    """Whether clipping turned the slice's difference from the family round: a lottery ticket is not a loser because its
    one prize was cut. Such a slice has no effect either way."""
    if design.raw is None or np.array_equal(design.y[hit], design.raw[hit]):
        return False
    told, paid = (float(y[hit].mean() - y.mean()) for y in (design.y, design.raw))
    return told * paid < 0


def _drift(design: Design, model: Model, config: LearningConfig) -> Drift:
    """Half-lives of all columns, from the daily sums of their own residual."""
    shocks, e = model.shocks, residual(design, model)
    bins, width = len(design.days), len(model.alpha)
    info, total = np.zeros((width, bins)), np.zeros((width, bins))
    for block, start in zip(model.blocks, model.starts, strict=True):
        has = block.codes >= 0
        at = (block.codes[has] * bins + design.day[has]).astype(np.int64)
        size = len(block.levels)
        n = np.bincount(at, minlength=size * bins).reshape(size, bins).astype(float)
        rest = np.bincount(at, weights=e[has], minlength=size * bins).reshape(size, bins)
        weekly = shocks.weekly(n.T)
        counted = n.sum(axis=1)
        q = counted - (n**2 @ shocks.day_factor) - (weekly**2).T @ shocks.week_factor
        own = np.maximum(q / np.maximum(counted, 1.0), 1e-3)
        part = slice(start, start + size)
        info[part] = n * own[:, None]
        total[part] = rest + info[part] * model.alpha[part, None]
    t = np.repeat(np.maximum(model.t, 1e-9), [len(b.levels) for b in model.blocks])
    weight = np.clip(model.alpha**2 / (model.sigma**2 * np.diag(model.h)[1:] + 1e-12), 0.0, 1.0)
    return follow(design.days, info, total, t * model.sigma**2, model.sigma**2, weight, config)


def _log_e(known: Candidates, items: ScopeItems, weighted: float, information: float, sigma: float) -> float:
    """Log of prior share times Bayes factor of a contrast whose estimate is ``weighted / information``."""
    cell = known.cell(items)
    if cell is None or information <= 0:
        return -math.inf
    nats, _ = log_bayes_factor(np.array([weighted]), np.array([information]), sigma)
    return float(nats[0] + known.log_prior[cell])


def claimed(effects: Mapping[ScopeItems, Effect], alpha: float) -> set[ScopeItems]:
    """Slices that may be called findings: e-BH at ``alpha`` on the prior-weighted e-values, and confirmed.

    The largest k such that the k-th largest ``e_i * prior_i`` is at least ``1 / (alpha k)`` (Wang & Ramdas 2022, with
    weights): at most a share alpha of the claims is false in expectation, whatever the overlap of the slices and
    however often it is asked.

    >>> one, two = (Effect(0.3, 0.05, 90, 80.0, 0.0, 0.3, log_e=math.log(e), confirmed=True) for e in (21, 5))
    >>> claimed({(("a", "x"),): one, (("a", "y"),): two}, 0.05)
    {(('a', 'x'),)}
    """
    ranked = sorted(effects.items(), key=lambda item: (-item[1].log_e, item[0]))
    passed = 0
    for k, (_, effect) in enumerate(ranked, 1):
        if effect.log_e >= -math.log(alpha * k):
            passed = k
    return {items for items, effect in ranked[:passed] if effect.confirmed}


def _confirmed(
    design: Design, halves: Halves, contrasts: Mapping[ScopeItems, Floats], config: LearningConfig
) -> dict[ScopeItems, bool]:
    """Whether the later trades alone say the same as the earlier ones: with a chance of the sign of at least
    ``confirm_chance``, on at least ``confirm_min_days`` entry days."""
    early, late = halves.early, halves.late
    if early is None or late is None or len(np.unique(design.day[halves.late_rows])) < config.confirm_min_days:
        return dict.fromkeys(contrasts, False)
    out = {}
    for items, c in contrasts.items():
        first, second = float(c @ early.alpha), float(c @ late.alpha)
        se = late.sigma * math.sqrt(max(float(c @ late.h[1:, 1:] @ c), 1e-18))
        out[items] = first * second > 0 and float(ndtr(abs(second) / se)) >= config.confirm_chance
    return out


def calibration(design: Design, halves: Halves) -> dict[str, float]:
    """Slope of later outcomes on what the earlier half foretold: 1 where predictions are right in size (9.5).

    Which slices are looked at was chosen on the whole history, so the slope flatters a little.
    """
    late = halves.late_rows
    if halves.early is None or np.count_nonzero(late) < 20:
        return {}
    x, y = fitted(design, halves.early)[late], design.y[late]
    x, y = x - x.mean(), y - y.mean()
    sxx = float(x @ x)
    if sxx <= 1e-9:
        return {}
    slope = float(x @ y) / sxx
    noise = y - slope * x
    return {"slope": slope, "se": math.sqrt(float(noise @ noise) / max(len(y) - 2, 1) / sxx), "n": float(len(y))}


def _overlaps(hits: Mapping[ScopeItems, NDArray[np.bool_]], config: LearningConfig) -> dict[ScopeItems, int]:
    """Clusters of slices that share most of their trades: ``|A and B| / |A or B|`` at least ``overlap_same`` (9.4)."""
    names = list(hits)
    if len(names) < 2:
        return {}
    both = np.zeros((len(names), len(names)))
    for start in range(0, len(hits[names[0]]), _CHUNK_TRADES):
        rows = np.stack([hits[name][start : start + _CHUNK_TRADES] for name in names]).astype(np.float32)
        both += rows @ rows.T
    size = np.diag(both)
    near = both / np.maximum(size[:, None] + size[None, :] - both, 1.0) >= config.overlap_same
    factor: dict[ScopeItems, int] = {}
    for i, name in enumerate(names):
        if name not in factor and np.count_nonzero(near[i]) > 1:
            for j in np.flatnonzero(near[i]).tolist():
                factor.setdefault(names[j], i)
    return factor


def rejected_effects(
    design: Design, model: Model, known: Candidates, config: LearningConfig = DEFAULT
) -> dict[ScopeItems, Effect]:
    """The slices of a silent family that stood out most, with the effect they would have if it were real.

    Two thirds of the rows are for single dims, so that the first thing a person asks about is there.
    """
    s = known.sums(residual(design, model))
    nats, t = log_bayes_factor(s, known.q, model.sigma)
    score = np.where(np.isfinite(known.log_prior), known.log_prior + nats, -np.inf)
    rows = config.rejected_rows
    single = np.where(known.single, score, -np.inf)
    deeper = np.where(known.single, -np.inf, score)
    chosen = [
        *np.argsort(-single, kind="stable")[: rows - rows // 3].tolist(),
        *np.argsort(-deeper, kind="stable")[: rows // 3].tolist(),
    ]
    found = {}
    for cell in chosen:
        if not np.isfinite(score[cell]):
            continue
        items = known.items(cell)
        hit = inside(known.components, items)
        q, prior = float(known.q[cell]), float(t[cell])
        v = prior / (1.0 + q * prior)
        theta, se = float(s[cell]) * v, model.sigma * math.sqrt(v)
        found[items] = Effect(
            theta, se, int(known.count[cell]), q, float(ndtr(-abs(theta) / se)), theta,
            log_e=float(score[cell]), last_ts=int(design.ts[hit].max()),
        )  # fmt: skip
    return found
