"""``stats['tuning']`` to gate lessons: tighten where taken windows near the gate lose, loosen where skipped ones would
have won.

Per lever, with windows weighed by ``prox * confidence`` (learning.md 4) and outcomes by payoff (decisions 29):
value v of a window = ``+2W/(W+L)`` for success or missed, ``-2L/(W+L)`` for failure or correct_skip; v0 = mean v of
taken windows, shrunk to 0 (break-even) by 25 pseudo-windows. ``T = sum over passing near the gate of (min(0, v0) -
v)``, ``L = sum over sole-blocked below the gate of (v - max(0, v0))``, both at least 0: evidence counts only where it
is bad (good) in money AND worse (better) than the key's own mean, so neither a losing market nor an uneven spread of
margins moves a gate (decisions 61). ``score = (T - L)/(N + 5)``, ``target = base + polarity * score * cap * min(1,
N/25)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgebook.domain.evidence import FamilyFit, Lesson, StatRow
from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.pattern import EPISODE_PATTERN
from edgebook.domain.scope import PM_SCHEMA, ScopeItems, make_scope
from edgebook.domain.values import replace
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.lessons import Built, lesson_id
from edgebook.learning.marginal import marginal_shifts
from edgebook.learning.one_gate import beside, one_gate, standing
from edgebook.learning.verdict import Score, Shifts, stands

_NOTHING: Mapping[str, Any] = {"count": 0, "votes": 0, "vote": 0.0, "vote2": 0.0}
LESSON_STRENGTH_SCALE = 10.0


@dataclass(frozen=True, slots=True)
class Payoff:
    """Weights of a win and a loss; they sum to 2."""

    win: float
    loss: float

    @classmethod
    def of(cls, block: Mapping[str, Any], config: LearningConfig = DEFAULT) -> Payoff:
        """From a key's known rr: W mean rr of success, L |mean rr| of failure, shrunk by 10 pseudo-windows to 2 and 1.

        >>> Payoff.of({"payoff": {"win": [0, 0.0], "loss": [0, 0.0]}})
        Payoff(win=1.3333333333333333, loss=0.6666666666666666)
        """
        k = config.payoff_pseudo_windows
        (n_win, sum_win), (n_loss, sum_loss) = block["payoff"]["win"], block["payoff"]["loss"]
        win = max(0.1, (sum_win + k * config.payoff_prior_win_r) / (n_win + k))
        loss = max(0.1, (-sum_loss + k * config.payoff_prior_loss_r) / (n_loss + k))
        return cls(2 * win / (win + loss), 2 * loss / (win + loss))


def score_lever(
    lever: str,
    by_outcome: Mapping[str, Any],
    payoff: Payoff,
    config: LearningConfig = DEFAULT,
    key_mean: float | None = None,
) -> Score:
    """Score of one lever from its sums by outcome (formula on top of this file).

    Args:
        lever: name of a gate.
        by_outcome: ``stats['tuning'][type]['levers'][lever]['by_outcome']``.
        payoff: weights of the key.
        key_mean: for a slice, the mean value of the whole key: the slice must differ from that and from its own mean.

    ``shift`` = target - base in natural units at 1h. ``variance`` is that of the votes if outcomes were drawn at the
    slice's own rates, one draw per episode, times the design effect of a shared market.
    """
    side = {name: by_outcome.get(name, _NOTHING) for name in ("success", "failure", "missed", "correct_skip")}
    taken = side["success"]["count"] + side["failure"]["count"]
    value = payoff.win * side["success"]["count"] - payoff.loss * side["failure"]["count"]
    pseudo = config.tuning_hurdle_pseudo_windows if key_mean is None else 0.0
    own = value / (taken + pseudo) if taken + pseudo > 0 else 0.0
    means = (own,) if key_mean is None else (own, key_mean)
    low, high = min(0.0, *means), max(0.0, *means)
    tighten = side["failure"]["vote"] * (payoff.loss + low) - side["success"]["vote"] * (payoff.win - low)
    loosen = side["missed"]["vote"] * (payoff.win - high) - side["correct_skip"]["vote"] * (payoff.loss + high)
    gap = max(0.0, tighten) - max(0.0, loosen)
    support = sum(part["vote"] for part in side.values())
    score = gap / (support + config.tuning_pseudo_votes)
    variance = config.tuning_design_effect * (
        _spread(side["success"], side["failure"]) + _spread(side["missed"], side["correct_skip"])
    )
    row = LEVERS[lever]
    shift = row.polarity * score * row.cap * min(1.0, support / config.tuning_full_support)
    shift = min(row.hi, max(row.lo, row.base + shift)) - row.base
    return Score(score, support, gap, variance, shift)


def _spread(good: Mapping[str, Any], bad: Mapping[str, Any]) -> float:
    """Variance of a two-point value of range 2 (win + loss weights) at the observed rate, over the squared votes."""
    p = (good["votes"] + 1.0) / (good["votes"] + bad["votes"] + 2.0)
    return float(4.0 * p * (1.0 - p) * (good["vote2"] + bad["vote2"]))


def episodes(row: StatRow | None) -> int:
    """Episodes counted in a slice, all types."""
    tuning = row.stats.get("tuning", {}) if row else {}
    return sum(sum(block["outcomes"].values()) for block in tuning.values())


def tuning_due(fit: FamilyFit | None, root: StatRow | None, config: LearningConfig = DEFAULT) -> bool:
    """Whether a family has at least 5 and at least 5 % new episodes since its gates were last looked at (decisions
    18)."""
    seen = int(fit.detail.get("tuning_episodes", 0)) if fit else 0
    new = episodes(root) - seen
    return new >= config.refit_min_new and new >= config.refit_min_new_share * seen


def build_tuning(
    rows: Iterable[StatRow],
    lessons: Iterable[Lesson],
    now: int,
    config: LearningConfig = DEFAULT,
    fits: Mapping[str, FamilyFit] | None = None,
) -> Built:
    """Gate lessons (``pm_tuning``) of the S1 and S3 keys.

    Args:
        rows: ``pattern_scope_stats`` rows of those keys; rows of other families or deeper than two dims are ignored.
        lessons: stored lessons of these families: tuning ones are updated, strength ones make a tuning lesson their
        companion. now: moment of the build.
        fits: stored fits by family; they come back with the number of episodes seen (see :func:`tuning_due`).

    A slice speaks with at least 10 episodes, ``|score| >= .05``, N >= 5 and a gap that stands clear of noise at every
    look. A lesson of a smaller slice carries only its increment over what its emitted sub-scopes already ask, and only
    if it differs from the rest of the key. Silence is the default: a key whose votes move nothing has one row, for the
    root, without targets, that says so.
    """
    by_family: dict[str, list[StatRow]] = {}
    for row in rows:
        if row.module == "pm" and len(row.scope_values) <= config.tuning_depth_dims and row.stats.get("tuning"):
            by_family.setdefault(row.family, []).append(row)
    known = list(lessons)
    made: list[Lesson] = []
    new_fits: list[FamilyFit] = []
    for episode_type, pattern in EPISODE_PATTERN.items():
        family = f"pm|{pattern.key}|{pattern.category}"
        if family not in by_family:
            continue
        fit = (fits or {}).get(family) or FamilyFit(family, now, 0, False, 0.0, {})
        mine, since = [k for k in known if k.family == family], fit.detail.get("tuning_since", {})
        lessons_made, since = _family(episode_type, by_family[family], mine, now, config, since)
        made += lessons_made
        root = next((r for r in by_family[family] if not r.scope_values), None)
        detail = {**fit.detail, "tuning_episodes": episodes(root), "tuning_at": now}
        new_fits.append(replace(fit, detail=detail | ({"tuning_since": since} if since else {})))
    counts: dict[str, int] = {"families": len(new_fits)}
    for lesson in made:
        counts[lesson.status] = counts.get(lesson.status, 0) + 1
    return Built(tuple(made), tuple(new_fits), counts)


def _family(
    episode_type: str,
    rows: list[StatRow],
    known: list[Lesson],
    now: int,
    config: LearningConfig,
    since: Mapping[str, Mapping[str, Any]],
) -> tuple[list[Lesson], Mapping[str, Mapping[str, Any]]]:
    """Lessons of one key, and which evidence is set aside from now on (`learning.one_gate`)."""
    blocks = {make_scope(PM_SCHEMA, row.scope_values): (row, row.stats["tuning"].get(episode_type)) for row in rows}
    root = blocks[()][1] if () in blocks else None
    old = {lesson.id: lesson for lesson in known if lesson.lesson_type == "pm_tuning"}
    made: list[Lesson] = []
    if root is not None:
        strength = {
            make_scope(PM_SCHEMA, k.scope_values)
            for k in known
            if k.lesson_type == "pm_strength" and k.status != "deprecated"
        }
        known_blocks = {k: b for k, (_, b) in blocks.items() if b is not None}
        if config.tuning_method == "votes":
            shifts: Shifts = _shifts(episode_type, known_blocks, root, config)
        else:
            before = standing(old.values())
            found = marginal_shifts(episode_type, beside(known_blocks, since), config, before, since)
            shifts, since = one_gate(episode_type, found, before, known_blocks, since)
        for items, levers in shifts.items():
            row, block = blocks[items]
            if block is not None:
                made.append(_lesson(row, block, items, levers, items not in strength, old, now, config))
        if not made:
            made.append(_silent(episode_type, blocks[()][0], root, old, now, config))
    alive = {lesson.id for lesson in made}
    for lesson in old.values():
        if lesson.id not in alive and lesson.status != "deprecated":
            version = lesson.lesson_version + 1
            made.append(
                replace(lesson, status="deprecated", reason="no_evidence", last_validated=now, lesson_version=version)
            )
    return made, since


def _silent(
    episode_type: str,
    row: StatRow,
    root: Mapping[str, Any],
    old: Mapping[str, Lesson],
    now: int,
    config: LearningConfig,
) -> Lesson:
    """The one visible row of a key whose gates stay where they are: no target, the votes, and why they move nothing."""
    payoff = Payoff.of(root, config)
    scores = {
        name: score_lever(name, root["levers"][name]["by_outcome"], payoff, config)
        for name in GATE_LEVERS[episode_type]
        if name in root["levers"]
    }
    few = sum(root["outcomes"].values()) < config.tuning_min_episodes
    best = max(scores.values(), key=lambda s: (abs(s.score), s.support), default=Score(0.0, 0.0, 0.0, 0.0, 0.0))
    lesson = _lesson(row, root, (), {"": (0.0, best)}, True, old, now, config)
    stats = {**lesson.stats, "scores": {name: score.score for name, score in scores.items()}, "base_at_fit": {}}
    before = old.get(lesson.id)
    moved = before is not None and bool(before.effect["execution_levers"]["signal_thresholds"])
    return replace(
        lesson,
        effect={"execution_levers": {"signal_thresholds": {}}},
        stats=stats,
        status="deprecated" if moved else "candidate",
        reason="too_few_episodes" if few else "no_evidence" if moved else "no_clear_votes",
    )


def _shifts(
    episode_type: str, blocks: Mapping[ScopeItems, Mapping[str, Any]], root: Mapping[str, Any], config: LearningConfig
) -> dict[ScopeItems, dict[str, tuple[float, Score]]]:
    """Increment per slice and lever, parents first; only what stands."""
    payoff = Payoff.of(root, config)
    out: dict[ScopeItems, dict[str, tuple[float, Score]]] = {}
    per_depth: dict[int, int] = {}
    for items in blocks:
        per_depth[len(items)] = per_depth.get(len(items), 0) + 1
    for items in sorted(blocks, key=lambda k: (len(k), k)):
        block = blocks[items]
        if sum(block["outcomes"].values()) < config.tuning_min_episodes:
            continue
        for lever in GATE_LEVERS[episode_type]:
            if lever not in block["levers"] or lever not in root["levers"]:
                continue
            tests = per_depth[len(items)] if items else 1
            found = _increment(lever, items, block, root, payoff, out, tests, config)
            if found is not None:
                out.setdefault(items, {})[lever] = found
    return out


def _increment(
    lever: str,
    items: ScopeItems,
    block: Mapping[str, Any],
    root: Mapping[str, Any],
    payoff: Payoff,
    out: Mapping[ScopeItems, Mapping[str, tuple[float, Score]]],
    tests: int,
    config: LearningConfig,
) -> tuple[float, Score] | None:
    row, own = LEVERS[lever], block["levers"][lever]["by_outcome"]
    mean = None if not items else _mean_value(root["levers"][lever]["by_outcome"], payoff)
    score = score_lever(lever, own, payoff, config, mean)
    if abs(score.score) < config.tuning_min_score or score.support < config.tuning_min_support:
        return None
    if not stands(score.gap, score.variance, config, tests):
        return None
    implied = sum(
        parts[lever][0]
        for scope, parts in out.items()
        if lever in parts and scope != items and set(scope) <= set(items)
    )
    shift = score.shift - implied
    if items and not _differs(lever, own, root["levers"][lever]["by_outcome"], payoff, tests, config):
        return None
    return (shift, score) if abs(shift) >= config.tuning_min_score * row.cap * 0.5 else None


def _mean_value(by_outcome: Mapping[str, Any], payoff: Payoff) -> float:
    good, bad = (by_outcome.get(o, _NOTHING)["count"] for o in ("success", "failure"))
    return float((payoff.win * good - payoff.loss * bad) / (good + bad)) if good + bad else 0.0


def _differs(
    lever: str, own: Mapping[str, Any], whole: Mapping[str, Any], payoff: Payoff, tests: int, config: LearningConfig
) -> bool:
    """Whether a slice's gap is more than its share of the rest of the key (disjoint windows): z of the difference at
    the boundary."""
    rest = {o: {k: whole[o][k] - own.get(o, _NOTHING)[k] for k in _NOTHING} for o in whole}
    mine, other = score_lever(lever, own, payoff, config), score_lever(lever, rest, payoff, config)
    ratio = mine.support / other.support if other.support > 0 else 0.0
    return stands(mine.gap - ratio * other.gap, mine.variance + ratio * ratio * other.variance, config, tests)


def _lesson(
    row: StatRow,
    block: Mapping[str, Any],
    items: ScopeItems,
    levers: Mapping[str, tuple[float, Score]],
    standalone: bool,
    old: Mapping[str, Lesson],
    now: int,
    config: LearningConfig,
) -> Lesson:
    identity = lesson_id("pm_tuning", row.module, row.pattern_key, row.action_category, items)
    before = old.get(identity)
    targets = {name: LEVERS[name].base + shift for name, (shift, _) in levers.items() if name}
    main = max((score for _, score in levers.values()), key=lambda s: (abs(s.score), s.support))
    traded = row.stats
    stats = {
        "edge_raw": traded.get("edge_raw", 0.0),
        "n": row.n,
        "avg_rr": traded.get("avg_rr", 0.0),
        "variance": 0.0 if standalone else traded.get("variance", 0.0),
        "time_efficiency": traded.get("time_efficiency"),
        "tuning_n": sum(block["outcomes"].values()),
        "tuning_score": main.score,
        "tuning_support": main.support,
        "tuning_standalone": standalone,
        "outcomes": dict(block["outcomes"]),
        "scores": {name: score.score for name, (_, score) in levers.items()},
        "base_at_fit": {name: LEVERS[name].base for name in levers if name},
        "half_life_hours": config.pm_tuning_half_life_hours,
    }
    return Lesson(
        id=identity,
        module=row.module,
        lesson_type="pm_tuning",
        pattern_key=row.pattern_key,
        action_category=row.action_category,
        scope_values=dict(items),
        effect={"execution_levers": {"signal_thresholds": targets}},
        stats=stats,
        lesson_strength=min(1.0, abs(stats["edge_raw"]) / LESSON_STRENGTH_SCALE),
        decay_halflife_hours=config.pm_tuning_half_life_hours,
        status="active",
        reason="claimed",
        created_at=before.created_at if before else now,
        last_validated=now,
        evidence_at=block["last_ts"] or now,
        lesson_version=before.lesson_version + 1 if before else 1,
    )
