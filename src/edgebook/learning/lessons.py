"""Fits to lessons: one row per slice that moves a lever, and rows that say why where a family is silent (decisions
4, 16-18, 51)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgebook.domain.decay import HOUR
from edgebook.domain.errors import LearningError
from edgebook.domain.evidence import FamilyFit, Lesson, StatRow
from edgebook.domain.ids import stable_id
from edgebook.domain.scope import SCHEMAS, ScopeItems, ScopeSchema, scope_hash
from edgebook.domain.values import replace
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.edge import baseline, capital_levers, edge_raw, total_log
from edgebook.learning.effects import Effect, claimed
from edgebook.learning.posterior import Fit, fit_family, silent
from edgebook.learning.table import TradeTable

EDGE_SCALE = 20.0
LESSON_TYPE = {"dm": "dm_alloc", "pm": "pm_strength"}


def _no_row(key: str) -> StatRow | None:
    return None


@dataclass(frozen=True, slots=True)
class FamilyInput:
    """One family to build: its trades, and a lookup of its ``pattern_scope_stats`` rows by key. A slice without a row
    is counted from the trades."""

    module: str
    pattern_key: str
    action_category: str
    trades: TradeTable
    stat: Callable[[str], StatRow | None] = _no_row


@dataclass(frozen=True, slots=True)
class Built:
    """Rows to write: lessons that are new or changed (deprecated ones included), one fit per family, counts by
    status."""

    lessons: tuple[Lesson, ...]
    fits: tuple[FamilyFit, ...]
    counts: dict[str, int]


def due(fit: FamilyFit | None, n: int, config: LearningConfig = DEFAULT) -> bool:
    """Whether a family has enough new observations for a refit: at least 5 and at least 5 % (decisions 18).

    >>> due(None, 4), due(None, 5), due(FamilyFit("f", 0, 200, False, 0.0, {}), 209)
    (False, True, False)
    """
    seen = fit.n if fit else 0
    return n - seen >= config.refit_min_new and n - seen >= config.refit_min_new_share * seen


def lesson_id(lesson_type: str, module: str, pattern_key: str, category: str, scope: ScopeItems) -> str:
    """Id of the lesson of a slice: a function of what it is about, so that a rebuild updates the row it made before."""
    return stable_id("lesson", lesson_type, module, pattern_key, category, scope_hash(scope))


def build_lessons(
    module: str,
    families: Mapping[str, FamilyInput],
    fits: Mapping[str, FamilyFit],
    lessons: Iterable[Lesson],
    now: int,
    config: LearningConfig = DEFAULT,
    schemas: Mapping[str, ScopeSchema] = SCHEMAS,
) -> Built:
    """Refit the given families and make their lessons: ``dm_alloc`` for module dm, ``pm_strength`` for module pm.

    Args:
        module: ``"dm"`` or ``"pm"``; a family of another module is an error (no leaks, mission 5.3).
        families: by family key; pass those that are :func:`due`.
        fits: stored fits by family key (hysteresis; their tuning notes are kept).
        lessons: stored lessons of these families; other lesson types among them are ignored.
        now: moment of the build, microseconds.

    Every slice with ``|ln target| >= .002`` becomes a lesson, positive or negative, at most 500 a family by size.
    Status ``active`` (claimed) needs its prior-weighted e-value within e-BH at ``claim_alpha`` and the confirmation of
    later trades; else ``candidate``. Kappa is 2 once claimed; before, in a family with clear evidence, it grows to 2
    with the certainty of the sign.
    What the lessons together take from the family's mean is given back by one lesson at the root (reason ``centre``).
    A family that does not act, or has nothing left to ask for, has a ``candidate`` row at the root with neutral levers
    and the reason, and such rows for the slices that stood out most. Lessons that no longer hold become ``deprecated``.

    Raises:
        LearningError: a family of another module.
    """
    existing: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        if lesson.lesson_type == LESSON_TYPE[module]:
            existing.setdefault(lesson.family, []).append(lesson)
    made: list[Lesson] = []
    new_fits: list[FamilyFit] = []
    for key, family in families.items():
        if family.module != module:
            raise LearningError(f"family {key} is of module {family.module}; this build is for {module}")
        previous = fits.get(key)
        fit = _fit(family, previous, schemas[module], config)
        new_fits.append(_fit_row(key, family, fit, previous, now))
        if family.action_category != "exit":
            made += _family_lessons(key, family, fit, existing.get(key, []), now, config)
    counts = {"families": len(new_fits), "acting": sum(f.acts for f in new_fits)}
    for lesson in made:
        counts[lesson.status] = counts.get(lesson.status, 0) + 1
    return Built(tuple(made), tuple(new_fits), counts)


def _fit(family: FamilyInput, previous: FamilyFit | None, schema: ScopeSchema, config: LearningConfig) -> Fit:
    trades = family.trades
    if family.action_category == "exit":
        return silent(len(trades), "no_lever")
    if family.action_category != "trim":
        return fit_family(trades, schema, previous, config)
    if trades.exit_y is None:
        return silent(len(trades), "no_exit_outcome")
    known = np.isfinite(trades.exit_y)
    if np.count_nonzero(known) < config.exit_min_observations:
        return silent(len(trades), "no_exit_outcome")
    return fit_family(trades.take(known), schema, previous, config, trades.exit_y[known])


def _fit_row(key: str, family: FamilyInput, fit: Fit, previous: FamilyFit | None, now: int) -> FamilyFit:
    kept = {k: v for k, v in (previous.detail if previous else {}).items() if k.startswith("tuning_")}
    detail = {
        **kept,
        "groups": list(fit.groups),
        "lr": finite(fit.lr),
        "taus": dict(fit.taus),
        "sigma": fit.sigma,
        "day_ratio": fit.day_ratio,
        "week_ratio": fit.week_ratio,
        "reason": fit.reason,
        "calibration": dict(fit.calibration),
    }
    return FamilyFit(key, now, len(family.trades), fit.acts, fit.mean, detail)


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The finite ones: JSON has no infinity.

    >>> finite({"dims": 1.5, "cells": -math.inf})
    {'dims': 1.5}
    """
    return {name: value for name, value in values.items() if math.isfinite(value)}


@dataclass(frozen=True, slots=True)
class _Draft:
    """A lesson before it is compared with the one it replaces. ``theta`` is what it asks for, R; ``half_life`` in
    hours."""

    items: ScopeItems
    effect: Effect | None
    theta: float
    kappa: float
    claim: bool
    reason: str
    half_life: float


def _drafts(fit: Fit, now: int, standing: float, config: LearningConfig) -> list[_Draft]:
    """What the slices of an acting family ask for, the largest first, and after them what the root gives back.

    Slices whose last trade is three half-lives old ask for nothing. The root takes ``-sum share_i kappa_i theta_i``
    over the lessons that are made: the average log multiplier of the family's trades stays at 0, to ``min_log_target``.
    """
    found = claimed(fit.effects, config.claim_alpha)
    known = max(fit.lr.values(), default=0.0) >= config.kappa_family_nats
    drafts = []
    for items, effect in fit.effects.items():
        half_life = _half_life(effect, standing)
        if not items or now - effect.last_ts > config.stale_half_lives * half_life * HOUR:
            continue
        claim = items in found
        kappa = config.kappa(claim, effect.lfsr if known else 1.0)
        if abs(kappa * effect.theta) >= config.min_log_target:
            reason = "claimed" if claim else "not_claimed"
            drafts.append(_Draft(items, effect, effect.theta, kappa, claim, reason, half_life))
    drafts.sort(key=lambda draft: (-abs(draft.kappa * draft.theta), draft.items))
    drafts = drafts[: config.max_lessons_per_family - 1]
    mean = sum(d.kappa * d.theta * d.effect.n for d in drafts if d.effect) / max(fit.n, 1)
    if abs(mean) >= config.min_log_target:
        root = fit.effects.get(())
        drafts.append(_Draft((), root, -mean, 1.0, False, "centre", _half_life(root, standing)))
    return drafts


def _family_lessons(
    key: str, family: FamilyInput, fit: Fit, existing: Sequence[Lesson], now: int, config: LearningConfig
) -> list[Lesson]:
    old = {lesson.id: lesson for lesson in existing}
    standing = _standing(family.trades, config.half_life_hours(LESSON_TYPE[family.module]))
    drafts = _drafts(fit, now, standing, config)
    if not drafts:
        reason = fit.reason if not fit.acts else "nothing_left"
        rows = {(): None, **fit.rejected}
        drafts = [_Draft(items, effect, 0.0, 1.0, False, reason, standing) for items, effect in rows.items()]
    lessons = []
    for draft in drafts:
        levers = capital_levers(family.action_category, draft.theta, draft.kappa, config)
        lessons.append(_lesson(key, family, fit, draft, levers, old, now, config))
    alive = {lesson.id for lesson in lessons}
    lessons += [
        _deprecated(lesson, fit, now) for lesson in existing if lesson.id not in alive and lesson.status != "deprecated"
    ]
    return lessons


def _lesson(
    key: str,
    family: FamilyInput,
    fit: Fit,
    draft: _Draft,
    levers: dict[str, float],
    old: Mapping[str, Lesson],
    now: int,
    config: LearningConfig,
) -> Lesson:
    lesson_type = LESSON_TYPE[family.module]
    identity = lesson_id(lesson_type, family.module, family.pattern_key, family.action_category, draft.items)
    before, effect = old.get(identity), draft.effect
    flipped = before is not None and before.stats.get("effect", 0.0) * draft.theta < 0
    if draft.claim and before is not None and before.status == "active" and flipped:
        draft = replace(draft, claim=False, reason="sign_flipped")
    stats = slice_stats(key, family, draft.items, config) | _told(draft)
    stats |= {
        "kappa": draft.kappa,
        "conviction": _conviction(draft, levers),
        "lr": finite(fit.lr),
        "half_life_hours": draft.half_life,
        "log_target": total_log(levers),
    }
    newest = effect.last_ts if effect and effect.last_ts else int(family.trades.closed_at.max(initial=0)) or now
    return Lesson(
        id=identity,
        module=family.module,
        lesson_type=lesson_type,
        pattern_key=family.pattern_key,
        action_category=family.action_category,
        scope_values=dict(draft.items),
        effect={"capital_levers": levers},
        stats=stats,
        lesson_strength=min(1.0, abs(stats["edge_raw"]) / EDGE_SCALE),
        decay_halflife_hours=draft.half_life,
        status="active" if draft.claim else "candidate",
        reason=draft.reason,
        created_at=before.created_at if before else now,
        last_validated=now,
        evidence_at=newest,
        lesson_version=before.lesson_version + 1 if before else 1,
        latent_factor_id=f"factor_{effect.factor:03d}" if effect and effect.factor >= 0 else "",
    )


def _standing(trades: TradeTable, default: float) -> float:
    """Half-life in hours of an effect that does not drift: the length of the history it stood in, or the lesson type's
    where that is longer."""
    if len(trades) == 0:
        return default
    return max(default, float(trades.closed_at.max() - trades.closed_at.min()) / HOUR)


def _half_life(effect: Effect | None, standing: float) -> float:
    """Hours: the effect's own where it drifts."""
    return effect.half_life_hours if effect and math.isfinite(effect.half_life_hours) else standing


def _conviction(draft: _Draft, levers: dict[str, float]) -> float:
    """How many times over its bound the lesson asks to go; 1 within the bounds."""
    wanted, given = abs(draft.kappa * draft.theta), abs(total_log(levers))
    return wanted / given if wanted > given * (1.0 + 1e-9) > 0 else 1.0


def _told(draft: _Draft) -> dict[str, Any]:
    """What a lesson says of its effect; the root's is what it gives back."""
    effect = draft.effect
    if effect is None or not draft.items:
        return {"effect": draft.theta, "effect_total": 0.0, "se": None, "lfsr": None, "n_eff": 0.0}
    return {
        "effect": effect.theta,
        "effect_total": effect.total,
        "se": effect.se,
        "lfsr": effect.lfsr,
        "n_eff": effect.n_eff,
        "log_e": effect.log_e if math.isfinite(effect.log_e) else None,
        "confirmed": effect.confirmed,
    }


def slice_stats(key: str, family: FamilyInput, items: ScopeItems, config: LearningConfig) -> dict[str, Any]:
    """Raw statistics of a slice: from its row where there is one, else counted from the observations."""
    root, row = (family.stat(f"{key}|{scope_hash(part)}") for part in ((), items))
    if root is None or row is None:
        trades = family.trades
        hit = trades.inside(items)
        part = trades.y[hit]
        n = len(part)
        mean, variance = (float(part.mean()), float(part.var())) if n else (0.0, 0.0)
        wins = float(np.mean(part > 0)) if n else 0.0
        efficiency: float | None = float(trades.efficiency[hit].mean()) if n else None
        base = baseline(float(trades.y.sum()), len(trades), config.baseline_pseudo_trades)
    else:
        stats = row.stats
        n, mean, variance, wins = row.n, stats["avg_rr"], stats["variance"], stats["win_rate"]
        efficiency = stats["time_efficiency"]
        base = baseline(root.stats["sum_rr"], root.n, config.baseline_pseudo_trades)
    edge = edge_raw(mean, variance, n, base, efficiency)
    return {
        "edge_raw": edge,
        "n": n,
        "avg_rr": mean,
        "variance": variance,
        "win_rate": wins,
        "time_efficiency": efficiency,
        "baseline": base,
    }


def _deprecated(lesson: Lesson, fit: Fit, now: int) -> Lesson:
    """The row of a lesson that no longer holds; the materializer leaves it out, so its lever relaxes to neutral."""
    items = tuple(lesson.scope_values.items())
    if not fit.acts:
        reason = fit.reason
    elif not items:
        reason = "family_acts"
    else:
        reason = "below_min_effect" if any(dict(k) == dict(items) for k in fit.effects) else "no_variance"
    return replace(
        lesson, status="deprecated", reason=reason, last_validated=now, lesson_version=lesson.lesson_version + 1
    )
