"""Fits to lessons: one row per slice that moves a lever, and one row that says why where a family is silent (decisions
4, 16-18, 51)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebook.domain.errors import LearningError
from edgebook.domain.evidence import FamilyFit, Lesson, Observation, StatRow
from edgebook.domain.ids import stable_id
from edgebook.domain.scope import SCHEMAS, ScopeItems, ScopeSchema, contains, scope_hash
from edgebook.domain.values import replace
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.edge import baseline, capital_levers, edge_raw, total_log
from edgebook.learning.posterior import Effect, Fit, fit_family
from edgebook.learning.running import Moments

EDGE_SCALE = 20.0
LESSON_TYPE = {"dm": "dm_alloc", "pm": "pm_strength"}


@dataclass(frozen=True, slots=True)
class FamilyInput:
    """One family to build: its observations and a lookup of its ``pattern_scope_stats`` rows by key."""

    module: str
    pattern_key: str
    action_category: str
    observations: Sequence[Observation]
    stat: Callable[[str], StatRow | None]


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
    Status ``active`` (claimed, kappa 2) needs lfsr within Benjamini-Hochberg at 5 % over the family's slices and the
    same sign in both halves of time; else ``candidate`` (kappa 1). A family that does not act has one ``candidate``
    row at the root with neutral levers and the reason. Lessons that no longer hold become ``deprecated``.

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
    n = len(family.observations)
    if family.action_category == "exit":
        return Fit(n, 0.0, 0.0, 0.0, 0.0, {}, {}, (), False, "no_lever")
    if family.action_category != "trim":
        return fit_family(family.observations, schema, previous, config)
    known = [o for o in family.observations if o.exit_y is not None]
    if len(known) < config.exit_min_observations:
        return Fit(n, 0.0, 0.0, 0.0, 0.0, {}, {}, (), False, "no_exit_outcome")
    return fit_family(known, schema, previous, config, [o.exit_y or 0.0 for o in known])


def _fit_row(key: str, family: FamilyInput, fit: Fit, previous: FamilyFit | None, now: int) -> FamilyFit:
    kept = {k: v for k, v in (previous.detail if previous else {}).items() if k.startswith("tuning_")}
    detail = {
        **kept,
        "groups": list(fit.groups),
        "lr": dict(fit.lr),
        "taus": dict(fit.taus),
        "sigma": fit.sigma,
        "day_ratio": fit.day_ratio,
        "week_ratio": fit.week_ratio,
        "reason": fit.reason,
    }
    return FamilyFit(key, now, len(family.observations), fit.acts, fit.mean, detail)


def claimed(effects: Mapping[ScopeItems, Effect], level: float) -> set[ScopeItems]:
    """Slices that may be called findings: Benjamini-Hochberg on lfsr at ``level``, and one sign in both halves of time.

    Largest i with ``lfsr_(i) <= level * i / m`` over all m slices of the family.
    """
    ranked = sorted(effects.items(), key=lambda item: (item[1].lfsr, item[0]))
    passed = 0
    for i, (_, effect) in enumerate(ranked, 1):
        if effect.lfsr <= level * i / len(ranked):
            passed = i
    return {items for items, effect in ranked[:passed] if effect.confirmed}


def _family_lessons(
    key: str, family: FamilyInput, fit: Fit, existing: Sequence[Lesson], now: int, config: LearningConfig
) -> list[Lesson]:
    old = {lesson.id: lesson for lesson in existing}
    found = claimed(fit.effects, config.claim_lfsr)
    drafts: list[tuple[float, Lesson]] = []
    for items, effect in fit.effects.items():
        levers = capital_levers(family.action_category, effect.theta, config.kappa(items in found), config)
        size = abs(total_log(levers))
        if size >= config.min_log_target:
            drafts.append((size, _lesson(key, family, fit, items, effect, levers, items in found, old, now, config)))
    drafts.sort(key=lambda draft: (-draft[0], draft[1].id))
    made = [lesson for _, lesson in drafts[: config.max_lessons_per_family]]
    if not fit.acts:
        levers = capital_levers(family.action_category, 0.0, 1.0, config)
        made.append(_lesson(key, family, fit, (), None, levers, False, old, now, config))
    alive = {lesson.id for lesson in made}
    made += [
        _deprecated(lesson, fit, now) for lesson in existing if lesson.id not in alive and lesson.status != "deprecated"
    ]
    return made


def _lesson(
    key: str,
    family: FamilyInput,
    fit: Fit,
    items: ScopeItems,
    effect: Effect | None,
    levers: dict[str, float],
    claim: bool,
    old: Mapping[str, Lesson],
    now: int,
    config: LearningConfig,
) -> Lesson:
    lesson_type = LESSON_TYPE[family.module]
    identity = lesson_id(lesson_type, family.module, family.pattern_key, family.action_category, items)
    before = old.get(identity)
    stats = slice_stats(key, family, items, config)
    half_life = config.half_life_hours(lesson_type)
    stats |= {
        "effect": effect.theta if effect else 0.0,
        "effect_total": effect.total if effect else 0.0,
        "se": effect.se if effect else None,
        "lfsr": effect.lfsr if effect else None,
        "n_eff": effect.n_eff if effect else 0.0,
        "lr": dict(fit.lr),
        "half_life_hours": half_life,
        "log_target": total_log(levers),
    }
    reason = fit.reason if effect is None else ("claimed" if claim else "not_claimed")
    if before is not None and effect is not None and before.stats.get("effect", 0.0) * effect.theta < 0:
        claim, reason = False, "sign_flipped"
        levers = capital_levers(family.action_category, effect.theta, config.kappa(False), config)
        stats["log_target"] = total_log(levers)
    newest = effect.last_ts if effect else max((o.ts for o in family.observations), default=now)
    return Lesson(
        id=identity,
        module=family.module,
        lesson_type=lesson_type,
        pattern_key=family.pattern_key,
        action_category=family.action_category,
        scope_values=dict(items),
        effect={"capital_levers": levers},
        stats=stats,
        lesson_strength=min(1.0, abs(stats["edge_raw"]) / EDGE_SCALE),
        decay_halflife_hours=half_life,
        status="active" if claim else "candidate",
        reason=reason,
        created_at=before.created_at if before else now,
        last_validated=now,
        evidence_at=newest,
        lesson_version=before.lesson_version + 1 if before else 1,
    )


def slice_stats(key: str, family: FamilyInput, items: ScopeItems, config: LearningConfig) -> dict[str, Any]:
    """Raw statistics of a slice: from its row where there is one, else counted from the observations."""
    root, row = (family.stat(f"{key}|{scope_hash(part)}") for part in ((), items))
    if root is None or row is None:
        inside = [o for o in family.observations if contains(o.scope, dict(items))]
        total = Moments.of(o.y for o in family.observations)
        part = Moments.of(o.y for o in inside)
        n, mean, variance, wins = part.n, part.mean, part.variance, part.win_rate
        efficiency: float | None = sum(o.time_efficiency for o in inside) / n if n else None
        base = baseline(total.sum_y, total.n, config.baseline_pseudo_trades)
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
    if not items:
        reason = "family_acts"
    elif not fit.acts:
        reason = fit.reason
    else:
        reason = "below_min_effect" if any(dict(k) == dict(items) for k in fit.effects) else "no_variance"
    return replace(
        lesson, status="deprecated", reason=reason, last_validated=now, lesson_version=lesson.lesson_version + 1
    )
