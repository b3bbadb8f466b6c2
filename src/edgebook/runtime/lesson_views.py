"""Everything a trader may want to know of what was learnt, as plain values: the facts of the lessons report.

One shape for a database of the system and for an overrides.json of the library; what a source does not have (trades,
nudges, a holdout) is None there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgebook.adapters.overrides_file import Learnt
from edgebook.domain.codec import to_json
from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError
from edgebook.domain.evidence import FamilyFit, Lesson, Observation
from edgebook.domain.levers import LESSON_TYPES, LEVERS
from edgebook.domain.masking import masked
from edgebook.domain.scope import SCHEMAS, ScopeSchema, contains
from edgebook.learning.history import edge_history
from edgebook.learning.steering import Steering, read_steering
from edgebook.overrides.record import Override, parse_documents
from edgebook.ports import UnitOfWork
from edgebook.runtime.lesson_money import Money, Moved, against_holdout, first_in_force, inside, money
from edgebook.runtime.lesson_words import CHANNEL_OF, count, pattern_words, reason_words, scope_words
from edgebook.runtime.report.metrics import student_quantile
from edgebook.runtime.views import levers_of, when

Json = Any
Z90 = 1.645
NO_LEVER = "no_lever"
_HISTORY_POINTS = 150
_MIN_DAYS = 5
_PAST_WITH_HISTORY = 12  # given-up lessons of a family whose history is told
_SLICES = 8  # strongest slices told of a silent family


@dataclass(frozen=True)
class Source:
    """What a report is made of.

    Attributes:
        name: database URL or file.
        at: moment it speaks of, microseconds UTC.
        documents: ``(dm, pm)`` documents in force, of ``version``.
        observations: evidence of a family; None where the source keeps none.
        moved: what was nudged and closed; None where the source does not know.
        since: per channel, since when it has had overrides.
        types: lesson types whose channels are told.
    """

    name: str
    at: int
    version: int
    trades: int
    lessons: Sequence[Lesson]
    fits: Sequence[FamilyFit]
    documents: tuple[Mapping[str, Any], Mapping[str, Any]]
    observations: Callable[[str], Sequence[Observation]] | None = None
    moved: Money | None = None
    since: Mapping[str, int] = field(default_factory=dict)
    schemas: Mapping[str, ScopeSchema] = field(default_factory=lambda: SCHEMAS)
    types: Sequence[str] = LESSON_TYPES


def database_facts(uow: UnitOfWork, name: str, lesson_type: str | None = None) -> dict[str, Json]:
    """Facts of a database of the running system.

    Args:
        name: its URL; a password in it is not told.
        lesson_type: only lessons of this type; None for all.

    Raises:
        InputError: no such lesson type.
    """
    if lesson_type not in (None, *LESSON_TYPES):
        raise InputError(f"--type must be one of {', '.join(LESSON_TYPES)}, was {lesson_type!r}")
    rows = {row.module_id: row for row in uow.configs.values()}
    clock = uow.watermarks.get("clock")
    source = Source(
        masked(name),
        clock.at if clock else 0,
        max((row.config_version for row in rows.values()), default=0),
        len(uow.trades),
        [row for row in uow.lessons.values() if lesson_type in (None, row.lesson_type)],
        [fit for fit in uow.fits.values() if lesson_type in (None, _main_type(fit.family))],
        (rows["dm"].config_data if "dm" in rows else {}, rows["pm"].config_data if "pm" in rows else {}),
        lambda family: list(uow.observations.values(family + "|")),
        money(uow),
        first_in_force(uow),
        types=LESSON_TYPES if lesson_type is None else (lesson_type,),
    )
    return facts(source)


def learnt_facts(learnt: Learnt, name: str) -> dict[str, Json]:
    """Facts of an overrides.json, which keeps neither trades nor what was done with its advice."""
    last = learnt.versions[-1]
    schemas = {"dm": SCHEMAS["dm"], "pm": ScopeSchema("user", learnt.dims)}
    documents = (last.dm, last.pm)
    return facts(
        Source(
            name,
            learnt.at,
            last.version,
            learnt.trades["used"],
            learnt.lessons,
            learnt.fits,
            documents,
            schemas=schemas,
        )
    )


def facts(source: Source) -> dict[str, Json]:
    """``head``, ``channels``, ``families`` and ``lessons``, as plain values (times as text, UTC).

    A family names its lessons by id in the order of its tree: each below the parent with the most dims that is a lesson
    too. Silent families carry their strongest slices that were not believed.
    """
    steering = read_steering(source.documents, source.schemas)
    overrides = {o.lesson_id: o for o in parse_documents(*source.documents, schemas=source.schemas)[0]}
    rows = {lesson.id: _lesson(lesson, overrides.get(lesson.id), steering, source) for lesson in source.lessons}
    families = _families(source, rows)
    for family in families:
        _trees(family, rows)
        _histories(family, rows, source)
    counts = {kind: Counter(row["standing"] for row in rows.values() if row["type"] == kind) for kind in LESSON_TYPES}
    silent = [f for f in families if f["type"] != "pm_tuning" and not f["acts"] and f["reason"] != NO_LEVER]
    with_lever = [f for f in families if f["type"] != "pm_tuning" and f["reason"] != NO_LEVER]
    standing = Counter(row["standing"] for row in rows.values())
    head = {
        "source": source.name,
        "at": when(source.at),
        "config_version": source.version,
        "trades": source.trades,
        "families": len(with_lever),
        "silent_families": len(silent),
        "without_lever": sum(f["reason"] == NO_LEVER for f in families),
        "counts": {kind: dict(sorted(found.items())) for kind, found in counts.items()},
        "standing": dict(sorted(standing.items())),
        "sentence": sentence(standing, len(silent), len(with_lever)),
    }
    return {"head": head, "channels": _channels(source), "families": families, "lessons": rows}


def sentence(standing: Mapping[str, int], silent: int, families: int) -> str:
    """What was learnt, in one sentence.

    >>> sentence({"finding": 3, "acts": 12}, 8, 10)
    '3 findings, 12 candidates act, 8 of 10 families are silent.'
    >>> sentence({"acts": 1}, 0, 1)
    'No finding, 1 candidate acts, no family is silent.'
    >>> sentence({}, 2, 2)
    'Nothing was learnt so far: no finding, no candidate acts, all of 2 families are silent.'
    """
    found, acts = standing.get("finding", 0), standing.get("acts", 0)
    part = "all" if silent == families else f"{silent:,}"
    quiet = f"{part} of {families:,} families are silent" if silent else "no family is silent"
    if families == 1 and silent:
        quiet = "the one family is silent"
    if not found + acts:
        return f"Nothing was learnt so far: no finding, no candidate acts, {quiet}."
    does = "candidate acts" if acts == 1 else "candidates act"
    return f"{count(found, 'finding') if found else 'No finding'}, {acts or 'no'} {does}, {quiet}."


# ------------------------------------------------------------------ one lesson


def _lesson(lesson: Lesson, override: Override | None, steering: Steering, source: Source) -> dict[str, Json]:
    stats: Mapping[str, Any] = lesson.stats
    effect, se, log_e = (stats.get(name) for name in ("effect", "se", "log_e"))
    levers = _levers(lesson)
    pinned = steering.pinned.get(lesson.id)
    moved = source.moved.lessons.get(lesson.id, Moved()) if source.moved is not None else None
    return {
        "id": lesson.id,
        "type": lesson.lesson_type,
        "channel": CHANNEL_OF[lesson.lesson_type],
        "family": lesson.family,
        "pattern_key": lesson.pattern_key,
        "action_category": lesson.action_category,
        "pattern_words": pattern_words(lesson.pattern_key, lesson.action_category),
        "scope": dict(lesson.scope_values),
        "scope_words": scope_words(lesson.scope_values),
        "status": lesson.status,
        "standing": _standing(lesson, levers),
        "reason": lesson.reason,
        "reason_words": reason_words(lesson.reason),
        "stats": to_json(stats),
        "effect": effect if se is not None or effect else None,
        "se": se,
        "interval": [effect - Z90 * se, effect + Z90 * se] if effect is not None and se is not None else None,
        "effect_total": stats.get("effect_total") if se is not None else None,
        "n": stats.get("n"),
        "n_eff": stats.get("n_eff"),
        "lfsr": stats.get("lfsr"),
        "log_e": log_e,
        "e_value": math.exp(min(log_e, 700.0)) if log_e is not None else None,
        "half_life_hours": lesson.decay_halflife_hours,
        "levers": levers,
        "multiplier": math.exp(stats["log_target"]) if stats.get("log_target") is not None else None,
        "in_force": override is not None and override.enabled,
        "muted": lesson.id in steering.muted,
        "pinned_at": when(pinned.pinned_at or 0) if pinned is not None else "",
        "held": lesson.id in steering.held,
        "cluster": lesson.latent_factor_id,
        "created_at": when(lesson.created_at),
        "evidence_at": when(lesson.evidence_at),
        "changed_at": when(lesson.last_validated),
        "moved": moved.facts() if moved is not None else None,
        "uplift": _uplift(lesson, source),
        "inherited": _inherited(stats),
        "parent": None,
        "history": None,
    }


def _inherited(stats: Mapping[str, Any]) -> float | None:
    """What the parents say: the total less the lesson's own effect."""
    effect, total, se = (stats.get(name) for name in ("effect", "effect_total", "se"))
    return None if effect is None or total is None or se is None else float(total - effect)


def _levers(lesson: Lesson) -> list[dict[str, Json]]:
    """Levers the lesson moves, with base and bounds (scaled gates at 1h)."""
    found = []
    for name, target in levers_of(lesson).items():
        row = LEVERS.get(name)
        if row is not None and target != row.base:
            found.append({"name": name, "target": target, "base": row.base, "lo": row.lo, "hi": row.hi})
    return found


def _standing(lesson: Lesson, levers: Sequence[object]) -> str:
    """``finding``, ``acts``, ``silent``; ``deprecated`` where it acted once, ``dropped`` where it was never more than
    noise."""
    if lesson.status == "deprecated":
        return "deprecated" if levers else "dropped"
    if not levers:
        return "silent"
    return "finding" if lesson.status == "active" else "acts"


def _uplift(lesson: Lesson, source: Source) -> Json:
    """The lesson's own scope against the holdout, from its first nudge until it was given up; None before it acts."""
    moved = source.moved.lessons.get(lesson.id) if source.moved is not None else None
    if source.moved is None or moved is None:
        return None
    end = lesson.last_validated if lesson.status == "deprecated" else source.at
    holds = inside(lesson.family, lesson.scope_values, moved.first_at, end)
    return against_holdout(filter(holds, source.moved.closed), CHANNEL_OF[lesson.lesson_type])


# ------------------------------------------------------------------ families


def _families(source: Source, rows: Mapping[str, dict[str, Json]]) -> list[dict[str, Json]]:
    """One entry per (lesson type, family); those that act first, then by evidence."""
    fits = {fit.family: fit for fit in source.fits if "reason" in fit.detail}  # others hold notes of tuning only
    types = {(lesson.lesson_type, lesson.family) for lesson in source.lessons}
    types |= {(_main_type(name), name) for name in fits}
    found = [_family(kind, name, fits.get(name), rows) for kind, name in types]
    order = {kind: i for i, kind in enumerate(LESSON_TYPES)}
    return sorted(found, key=lambda f: (order[f["type"]], not f["acts"], -f["n"], f["family"]))


def _main_type(family: str) -> str:
    return "dm_alloc" if family.startswith("dm|") else "pm_strength"


def _family(kind: str, name: str, fit: FamilyFit | None, rows: Mapping[str, dict[str, Json]]) -> dict[str, Json]:
    mine = [row for row in rows.values() if row["family"] == name and row["type"] == kind]
    acting = [row for row in mine if row["standing"] in ("finding", "acts")]
    root = next((row for row in mine if not row["scope"] and row["status"] != "deprecated"), None)
    told: Mapping[str, Any] = fit.detail if fit is not None and kind != "pm_tuning" else {}
    reason = str(told.get("reason") or (root["reason"] if root else "no_evidence"))
    slices = [row for row in mine if row["standing"] == "silent" and row["effect"] is not None]
    slices.sort(key=lambda row: (-_strength(row), row["id"]))
    _, _, rest = name.partition("|")
    pattern_key, _, category = rest.rpartition("|")
    return {
        "family": name,
        "type": kind,
        "channel": CHANNEL_OF[kind],
        "pattern_key": pattern_key,
        "action_category": category,
        "pattern_words": pattern_words(pattern_key, category),
        "n": fit.n if fit is not None and kind != "pm_tuning" else int(root["n"] or 0) if root else 0,
        "mean": fit.mean if fit is not None and kind != "pm_tuning" else None,
        "nats": dict(told.get("lr", {})),
        "calibration": dict(told.get("calibration") or {}),
        "acts": bool(acting) if kind == "pm_tuning" or fit is None else fit.acts,
        "reason": "acts" if kind == "pm_tuning" and acting else reason,
        "reason_words": reason_words(reason),
        "acting": [row["id"] for row in acting],
        "given_up": [
            row["id"] for row in sorted(mine, key=lambda r: (r["changed_at"], r["id"]), reverse=True)
            if row["standing"] == "deprecated"
        ],
        "slices": [row["id"] for row in slices[:_SLICES]],
        "notes": [row["id"] for row in mine if row["standing"] == "silent" and row["effect"] is None],
    }  # fmt: skip


def _strength(row: Mapping[str, Json]) -> float:
    """How far a slice stood out: its log e-value, else effect over error."""
    if row["log_e"] is not None:
        return float(row["log_e"])
    return abs(row["effect"]) / row["se"] if row["se"] else 0.0


def _trees(family: dict[str, Json], rows: Mapping[str, dict[str, Json]]) -> None:
    """Give each acting lesson its parent, and put the family's lessons in the order of the tree."""
    acting = [rows[ident] for ident in family["acting"]]
    below: dict[str | None, list[dict[str, Json]]] = {}
    for row in acting:
        above = [r for r in acting if len(r["scope"]) < len(row["scope"]) and contains(row["scope"], r["scope"])]
        best = max(above, key=lambda r: (len(r["scope"]), abs(r["effect"] or 0.0), r["id"]), default=None)
        row["parent"] = best["id"] if best else None
        row["parents"] = [r["id"] for r in above]
        below.setdefault(row["parent"], []).append(row)
    ordered: list[dict[str, Json]] = []

    def walk(ident: str | None, depth: int) -> None:
        for row in sorted(below.get(ident, ()), key=lambda r: (-abs(r["effect"] or 0.0), r["id"])):
            row["level"] = depth
            ordered.append(row)
            walk(row["id"], depth + 1)

    walk(None, 0)
    family["acting"] = [row["id"] for row in ordered]


def _histories(family: Mapping[str, Json], rows: Mapping[str, dict[str, Json]], source: Source) -> None:
    told = [*family["acting"], *family["slices"], *family["notes"], *family["given_up"][:_PAST_WITH_HISTORY]]
    if source.observations is None or not told:
        return
    seen = source.observations(family["family"])
    for ident in told:
        rows[ident]["history"] = history(seen, rows[ident]["scope"])


def history(observations: Sequence[Observation], scope: Mapping[str, Any]) -> dict[str, Json] | None:
    """Day by day: the slice's count, cumulative mean rr (R) with the half-width of its 90 % interval, and edge_raw.

    The interval counts days of closing, not trades: ``t * sqrt(G / (G - 1) * sum_g (S_g - n_g * mean)^2) / n`` over the
    G days so far; None below five, and where
    the sums are beyond what doubles hold. At most 150 days are told, the last one always. None without a trade.
    """
    days = edge_history(observations, tuple(scope.items()))
    if not days:
        return None
    sums: dict[int, tuple[int, float]] = {}
    for seen in observations:
        if contains(seen.scope, scope):
            n, total = sums.get(seen.ts // DAY, (0, 0.0))
            sums[seen.ts // DAY] = n + 1, total + seen.y
    halves = _half_widths([sums[day.day] for day in days])
    every = math.ceil(len(days) / _HISTORY_POINTS)
    kept = [i for i in range(len(days)) if (len(days) - 1 - i) % every == 0]
    return {
        "day": [when(days[i].day * DAY)[:10] or "1970-01-01" for i in kept],
        "n": [days[i].n for i in kept],
        "mean": [days[i].avg_rr for i in kept],
        "half": [halves[i] for i in kept],
        "edge_raw": [days[i].edge_raw for i in kept],
    }


def _half_widths(days: Iterable[tuple[int, float]]) -> list[float | None]:
    found: list[float | None] = []
    n = total = squares = cross = counts = 0.0
    for groups, (size, amount) in enumerate(days, 1):
        n, total = n + size, total + amount
        squares, cross, counts = squares + amount * amount, cross + amount * size, counts + size * size
        if groups < _MIN_DAYS:
            found.append(None)
            continue
        mean = total / n
        spread = max(0.0, squares - 2.0 * mean * cross + mean * mean * counts)
        if not math.isfinite(squares) or not math.isfinite(spread):
            found.append(None)
            continue
        t = student_quantile(0.95, groups - 1)
        found.append(t * math.sqrt(groups / (groups - 1) * spread) / n)
    return found


def _channels(source: Source) -> list[dict[str, Json]]:
    """Per channel: what it nudged, and its arm against the holdout since it first had an override."""
    if source.moved is None:
        return []
    found = []
    for kind in source.types:
        channel = CHANNEL_OF[kind]
        since = source.since.get(channel)
        trades = [t for t in source.moved.closed if since is not None and t.opened_at >= since]
        found.append(
            {
                "channel": channel,
                "type": kind,
                "since": when(since or 0),
                "asked": source.moved.asked[channel],
                **source.moved.channels[channel].facts(),
                "uplift": against_holdout(trades, channel),
            }
        )
    return found
