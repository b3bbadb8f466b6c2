"""The shrunken effects of a family: which slices move the outcome, by how much, and how sure that is (decisions 13, 16,
52, 53).

Model: ``y = mu + day shock + week shock + sum_d alpha_d[x_d] + sum_c beta_c [x in c] + eps`` with normal effects: the
levels of a dim share one variance, so do the cells of a pair of dims, and a single slice of up to three dims has its
own. Variances are fitted by restricted marginal likelihood on winsorised rr. Dims come in two groups, those that differ
between tokens at one time and market-wide ones; a group acts when its evidence clears its gate, the multiplicity of its
members included (``admission``). Slices and pairs are found one effect at a time (``candidates``, ``pairs``), and each
effect forgets at its own half-life (``drift``).

An effect is told as a contrast: a level against the mean of its dim, so the family's mean is nobody's finding. What the
cells take from that mean is given back at the root, so that the average multiplier of a family stays at 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgebook.domain.evidence import FamilyFit
from edgebook.domain.scope import ScopeItems, ScopeSchema
from edgebook.learning.admission import GROUPS, admitted, group_blocks, why_silent
from edgebook.learning.candidates import Candidates, inside, log_bayes_factor
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.design import Design, Floats, Ints, make_design
from edgebook.learning.effects import Effect, Halves, calibration, effects_of, rejected_effects
from edgebook.learning.model import Model, fit_blocks, residual, solve, widened
from edgebook.learning.pairs import PairBlocks
from edgebook.learning.shocks import Shocks, column_sums, design_effect, null_shocks
from edgebook.learning.table import TradeTable

#: Slices with a market-wide dim that are judged by their own runs in one look.
_MARKET_CELLS = 24


@dataclass(frozen=True, slots=True)
class Fit:
    """What a family's trades say.

    Attributes:
        n, mean, sigma: trades, their mean outcome and residual standard deviation, R.
        day_ratio, week_ratio: variance of the shared shocks over that of one trade.
        taus: fitted standard deviation of each block's effects, R.
        lr: evidence of each group, nats.
        groups: those that act; ``acts`` whether any does, ``reason`` why none does.
        effects: slices of an acting family. ``rejected``: what stood out most in a silent one.
        calibration: ``slope``, ``se`` and ``n`` of later outcomes on earlier predictions; empty where too few.
    """

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
    rejected: Mapping[ScopeItems, Effect] = field(default_factory=dict)
    calibration: Mapping[str, float] = field(default_factory=dict)


def silent(n: int, reason: str, mean: float = 0.0) -> Fit:
    """The fit of a family that is not looked at."""
    return Fit(n, mean, 0.0, 0.0, 0.0, {}, {}, (), False, reason)


def fit_family(
    table: TradeTable,
    schema: ScopeSchema,
    previous: FamilyFit | None = None,
    config: LearningConfig = DEFAULT,
    outcome: Floats | None = None,
) -> Fit:
    """Fit one family.

    Args:
        table: all its trades, in any order.
        schema: dims, and which of them are the same for all tokens at a time (others are recognised from the data).
        previous: last stored fit; only its acting groups matter (hysteresis).
        outcome: replaces ``y`` one to one, R (the exit outcome of trims).

    Fewer than ``fit_min_observations`` give a fit that does not act, reason ``too_few``.
    """
    if len(table) < config.fit_min_observations:
        return silent(len(table), "too_few", float(np.mean(table.y)) if len(table) else 0.0)
    design = make_design(table, schema, config, outcome)
    return fit_design(design, tuple(previous.detail.get("groups", ())) if previous else (), config)


def fit_design(design: Design, acting: tuple[str, ...] = (), config: LearningConfig = DEFAULT) -> Fit:
    """Fit prepared arrays; ``acting`` are the groups that acted after the last fit."""
    ratios = null_shocks(design)
    design = replace(design, together=_together(design, ratios))
    lr, reasons = admitted(design, ratios, acting, config)
    chosen = tuple(c for group, members in group_blocks(design).items() if reasons[group] == "acts" for c in members)
    model = fit_blocks(design, chosen, ratios, config.tau_prior_levels)
    known = Candidates.of(design, model.shocks, config)
    if design.n >= config.cell_min_family_trades:
        model, lr["cells"] = _add_effects(design, model, known, bool(chosen), "cells" in acting, config)
        reasons["cells"] = "acts" if len(model.blocks) > len(chosen) else "no_variance"
    groups = tuple(group for group in GROUPS if reasons.get(group) == "acts")
    taus = {
        block.name: float(math.sqrt(t) * model.sigma)
        for block, t in zip(model.blocks, model.t.tolist(), strict=True)
        if t > 0
    }
    mean = float(design.y.mean())
    if not groups:
        rejected = rejected_effects(design, model, known, config)
        return Fit(
            design.n, mean, model.sigma, *model.ratios, taus, lr, (), False, why_silent(reasons),
            rejected=rejected,
        )  # fmt: skip
    halves = Halves.of(design, model)
    slope = calibration(design, halves)
    effects = _calibrated(effects_of(design, model, known, halves, config), slope, config)
    return Fit(design.n, mean, model.sigma, *model.ratios, taus, lr, groups, True, "acts", effects, calibration=slope)


def _together(design: Design, ratios: tuple[float, float]) -> float:
    """The design effect of clusters beyond shared days and weeks: parts or copies of one position, one token on several
    timeframes."""
    if design.cluster is None:
        return 1.0
    shocks = Shocks.of(column_sums(design, ()), *ratios)
    return design_effect(shocks.whiten(design.y - design.y.mean(), design.day), design.cluster)


def _calibrated(
    effects: dict[ScopeItems, Effect], slope: Mapping[str, float], config: LearningConfig
) -> dict[ScopeItems, Effect]:
    """Effects made smaller where many later trades prove them too large; never larger (9.5; facts 2)."""
    if not slope or slope["n"] < config.calibrate_min_trades:
        return effects
    most = slope["slope"] + 1.645 * slope["se"]
    if most >= 1.0:
        return effects
    share = max(0.0, most)
    return {items: replace(e, theta=e.theta * share, total=e.total * share) for items, e in effects.items()}


def _add_effects(
    design: Design, model: Model, known: Candidates, open_gate: bool, acted: bool, config: LearningConfig
) -> tuple[Model, float]:
    """Add single slices and pairs of dims to the model, an effect at a time, while their evidence lasts; also the
    evidence of the first, nats.

    Where no dim acts (``open_gate`` false) the first effect must clear the gate of cells and each further one
    ``cell_next_nats``; where one does, effects count by the chance that they are real. Slices with a market-wide dim
    must clear the gate of such dims together, whatever acts beside them (decisions 52, 53).
    """
    pairs = PairBlocks.of(design, config)
    share_of_pairs = config.pair_prior_share if pairs.blocks else 0.0
    log_prior = np.concatenate(
        (
            known.log_prior + math.log1p(-share_of_pairs),
            np.full(len(pairs.blocks), math.log(share_of_pairs / len(pairs.blocks)) if pairs.blocks else 0.0),
        )
    )
    gate = config.cell_gate_off_nats if acted else config.cell_gate_on_nats
    no_pair = np.zeros(len(pairs.blocks), dtype=bool)
    market = np.concatenate((known.market, no_pair))
    barred = np.concatenate((known.market & (known.single | (design.n < config.market_min_trades)), no_pair))
    first = -math.inf
    for step in range(config.cell_effects_max):
        nats, t = _evidence(design, model, known, pairs if step < config.pair_looks else None, len(log_prior))
        score = np.where(barred, -np.inf, log_prior + nats)
        if total_of(score[market]) < config.market_gate_on_nats:
            score[market] = -np.inf
        total = total_of(score)
        if total == -np.inf:
            break
        first = total if step == 0 else first
        if not open_gate and total < (gate if step == 0 else config.cell_next_nats):
            break
        odds = config.cell_prior_odds * math.exp(min(total, 50.0))
        chance = odds / (1.0 + odds) * np.exp(score - total)
        best = np.argsort(-chance, kind="stable")[: config.cells_per_effect]
        best = best[chance[best] >= config.cell_min_share]
        if len(best) == 0:
            break
        barred[best] = True
        cells = len(known.log_prior)
        chance[best] *= _independent(design, model, known, best, nats)
        chosen = (known.component(i) if i < cells else pairs.blocks[i - cells] for i in best.tolist())
        blocks = (*model.blocks, *chosen)
        variances = np.concatenate((model.t, chance[best] * t[best]))
        model = solve(column_sums(design, blocks), blocks, variances, model.ratios)
    return model, first


def _independent(design: Design, model: Model, known: Candidates, chosen: Ints, nats: Floats) -> Floats:
    """What is left of the chance of each chosen cell when trades of one day count by how far they go together."""
    kept, e = np.ones(len(chosen)), residual(design, model)
    for k, cell in enumerate(chosen.tolist()):
        if cell >= len(known.log_prior):
            continue
        hit = inside(known.components, known.items(cell))
        effect = design_effect(e[hit], design.day[hit])
        if effect > design.together:
            s, q = np.array([e[hit].sum()]), known.q[cell : cell + 1]
            less, _ = log_bayes_factor(s, q, model.sigma * math.sqrt(effect))
            kept[k] = math.exp(min(0.0, float(less[0] - nats[cell])))
    return kept


def total_of(score: Floats) -> float:
    """Log of the sum of what the scores are logs of; -inf of nothing.

    >>> round(total_of(np.log([2.0, 6.0])), 6) == round(math.log(8.0), 6), total_of(np.empty(0))
    (True, -inf)
    """
    top = float(np.max(score, initial=-np.inf))
    return top if top == -np.inf else top + float(np.log(np.sum(np.exp(score - top))))


def _evidence(
    design: Design, model: Model, known: Candidates, pairs: PairBlocks | None, size: int
) -> tuple[Floats, Floats]:
    """Evidence in nats of all cells and then of all pairs, and the variance each would have."""
    nats, t = np.full(size, -np.inf), np.zeros(size)
    cells = len(known.log_prior)
    nats[:cells], t[:cells] = _cell_evidence(design, model, known)
    if pairs is not None and pairs.blocks:
        found, t[cells:] = pairs.evidence(design, model)
        nats[cells:] = found / design.together
    return nats, t


def _cell_evidence(design: Design, model: Model, known: Candidates) -> tuple[Floats, Floats]:
    """Log Bayes factors and variances of all cells on top of ``model``.

    A cell with a market-wide dim counts only what is left when every market-wide dim is in the model, so that it cannot
    pass on the strength of a phase of the market, and only what its own runs of that phase agree on, so that it cannot
    pass on one lucky day that all tokens share (decisions 52). Only the strongest such cells are looked at.
    """
    e, spread = residual(design, model), math.sqrt(design.together)
    s = known.sums(e)
    nats, t = log_bayes_factor(s, known.q, model.sigma * spread)
    if not known.market.any():
        return nats, t
    names = {block.name for block in model.blocks}
    missing = tuple(c for c in known.components if c.market and c.name not in names)
    if missing:
        wider = widened(design, model, missing)
        strict, _ = log_bayes_factor(known.sums(residual(design, wider)), known.q, wider.sigma * spread)
        nats = np.where(known.market, np.minimum(nats, strict), nats)
    best = np.argsort(-np.where(known.market, known.log_prior + nats, -np.inf), kind="stable")[:_MARKET_CELLS]
    judged = np.where(known.market, -np.inf, nats)
    for cell in best[known.market[best]].tolist():
        agreed = known.agreement(cell, e, s[cell], model.sigma * spread)
        one = slice(cell, cell + 1)
        again, _ = log_bayes_factor(s[one] * math.sqrt(agreed), known.q[one], model.sigma * spread)
        judged[cell] = min(nats[cell], again[0]) if agreed > 0 else -np.inf
    return judged, t
