"""Lessons to documents: what ``learning_configs`` should say now (learning.md 6; decisions 16, 33).

Every lesson that is a candidate or active and wants something is written; lists without lessons are written empty, so
nothing stale stays in force. Decay is not applied here but at run time, once. What an operator has muted, pinned or
reverted (`learning.steering`) stands whatever the lessons say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from edgebook.domain.errors import EdgebookError, LearningError, OverrideError
from edgebook.domain.evidence import Lesson
from edgebook.domain.levers import LEVERS, LessonType
from edgebook.domain.pattern import CATEGORIES
from edgebook.domain.scope import SCHEMAS, ScopeSchema, make_scope
from edgebook.learning.steering import Documents, Steering, read_steering, write_steering
from edgebook.overrides.record import (
    ACTING,
    LISTS,
    Override,
    content_hash,
    dump_documents,
    legal_targets,
    parse_documents,
)


@dataclass(frozen=True, slots=True)
class Materialized:
    """The documents that should be in force.

    Attributes:
        dm, pm: ``config_data`` of the two rows; the previous ones, untouched, when nothing changed.
        changed: whether the content differs from the previous documents'; only then a new version is due.
        version: the version number in the documents: one more than before when changed.
        counts: overrides per list, and lessons that were ``inactive`` (neither candidate nor active), ``neutral`` (want
            nothing) or ``refused``; those that an operator's act fixes are in neither of these.
        content_hash: SHA-256 of the content, without time of writing and version.
        refused: (lesson id, reason) of lessons that contradict the lever table or their module.
    """

    dm: Mapping[str, Any]
    pm: Mapping[str, Any]
    changed: bool
    version: int
    counts: Mapping[str, int]
    content_hash: str
    refused: tuple[tuple[str, str], ...] = ()


def materialize(
    lessons: Iterable[Lesson],
    previous: Documents,
    now: int,
    *,
    schemas: Mapping[str, ScopeSchema] = SCHEMAS,
    after: int = 0,
    previous_hash: str = "",
    documents_of: Callable[[int], Documents | None] | None = None,
    steering: Steering | None = None,
) -> Materialized:
    """The documents of ``lessons``, by read-modify-write on ``previous``.

    Unrelated keys, feature flags, mutes, pins and what stands of a revert are kept. Targets are clamped to
    the lever table; a lesson with an unknown, retired or foreign lever or a dimension of the other module is refused
    and reported.

    Args:
        lessons: all lessons of both modules, any order and status.
        previous: ``(dm, pm)`` documents now in force, ``({}, {})`` at first.
        now: time of writing, microseconds UTC.
        schemas: scope schema per module.
        previous_hash: content hash of ``previous`` where it is known.
        after: newest version known; the next one is higher, whatever a damaged document says of itself.
        documents_of: documents of a config version, for what a revert holds; without it nothing is held.
        steering: what an operator's act has just made of it; None: as ``previous`` says.

    Raises:
        LearningError: two lessons with one id.

    >>> nothing = materialize([], ({}, {}), 0)
    >>> nothing.changed, nothing.version, nothing.dm["alloc_overrides"]
    (False, 0, [])
    """
    previous = (_readable(previous[0]), _readable(previous[1]))
    counts = dict.fromkeys([*(name for _, name in LISTS.values()), "inactive", "neutral", "refused"], 0)
    refused: list[tuple[str, str]] = []
    overrides: dict[str, Override] = {}
    lessons = list(lessons)
    steering = steering if steering is not None else read_steering(previous, schemas)
    old = _reverted(steering, documents_of, schemas)
    steering = steering.released(lessons, old) if documents_of is not None else replace(steering, held={})
    fixed = steering.fixed(old)
    for lesson in lessons:
        if lesson.id in fixed:
            continue
        if lesson.status not in ACTING:
            counts["inactive"] += 1
            continue
        if lesson.id in overrides:
            raise LearningError(
                f"two lessons have the id {lesson.id}; ids must be unique", stage="override_materializer"
            )
        try:
            override = _override(lesson, schemas, enabled=lesson.id not in steering.muted)
        except EdgebookError as error:
            counts["refused"] += 1
            refused.append((lesson.id, error.message))
            continue
        if all(value == LEVERS[name].base for name, value in override.targets.items()):
            counts["neutral"] += 1
            continue
        overrides[lesson.id] = override
    for lesson_id, stands in fixed.items():
        if stands is not None:
            overrides[lesson_id] = replace(stands, enabled=lesson_id not in steering.muted)
    for override in overrides.values():
        counts[LISTS[override.lesson_type][1]] += 1
    steered = previous[0], write_steering(previous[1], steering)
    return _written(overrides, (previous, steered), now, counts, tuple(sorted(refused)), after, previous_hash)


def _reverted(
    steering: Steering, documents_of: Callable[[int], Documents | None] | None, schemas: Mapping[str, ScopeSchema]
) -> dict[str, Override]:
    """Overrides of the version reverted to, by lesson; none where nothing is held any more."""
    documents = documents_of(steering.reverted_to) if documents_of is not None and steering.held else None
    return {o.lesson_id: o for o in parse_documents(*documents, schemas=schemas)[0]} if documents is not None else {}


def _written(
    overrides: Mapping[str, Override],
    before: tuple[Documents, Documents],
    now: int,
    counts: dict[str, int],
    refused: tuple[tuple[str, str], ...],
    after: int,
    previous_hash: str,
) -> Materialized:
    previous, steered = before
    version = max(after, *(_version(document) for document in previous))
    dm, pm = dump_documents(overrides.values(), previous=steered, updated_at=now, version=version + 1)
    digest = content_hash(dm, pm)
    if digest == (previous_hash or content_hash(*previous)):
        return Materialized(
            _complete(previous[0], dm), _complete(previous[1], pm), False, version, counts, digest, refused
        )
    return Materialized(dm, pm, True, version + 1, counts, digest, refused)


def _complete(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The previous document with what it lacked (empty lists, default flags); its time and version stay."""
    volatile = ("override_updated_at", "config_version")
    return {**{name: value for name, value in after.items() if name not in volatile}, **before}


def _override(lesson: Lesson, schemas: Mapping[str, ScopeSchema], *, enabled: bool) -> Override:
    if lesson.lesson_type not in get_args(LessonType):
        raise LearningError(f"lesson type must be one of {', '.join(LISTS)}, was {lesson.lesson_type!r}")
    lesson_type = cast("LessonType", lesson.lesson_type)
    module = LISTS[lesson_type][0]
    if lesson.module != module or not lesson.pattern_key.startswith(f"module={module}|"):
        raise LearningError(
            f"a {lesson_type} lesson belongs to module {module}, was {lesson.module} {lesson.pattern_key!r}"
        )
    if lesson.action_category not in CATEGORIES:
        raise LearningError(f"action category must be one of {', '.join(CATEGORIES)}, was {lesson.action_category!r}")
    if not lesson.decay_halflife_hours > 0:
        raise LearningError(f"half-life must be positive, was {lesson.decay_halflife_hours} h")
    raw = _effect(lesson)
    targets, notes = legal_targets(lesson_type, lesson.action_category, raw)
    for kind, detail in notes:
        if kind == "legacy":
            raise OverrideError(detail)
    scope = make_scope(schemas[module], lesson.scope_values)
    if len(scope) != len(lesson.scope_values):
        raise LearningError(f"scope {dict(lesson.scope_values)} holds an absent value, which would widen it")
    bases = lesson.effect.get("base_at_fit", {})
    return Override(
        lesson_id=lesson.id,
        lesson_type=lesson_type,
        pattern_key=lesson.pattern_key,
        action_category=lesson.action_category,
        scope=scope,
        targets=targets,
        half_life_hours=float(lesson.decay_halflife_hours),
        evidence_at=lesson.evidence_at,
        created_at=lesson.created_at,
        status=lesson.status,
        enabled=enabled,
        strength=float(lesson.lesson_strength),
        stats=lesson.stats,
        base_at_fit={name: bases.get(name, LEVERS[name].base) for name in targets}
        if lesson_type == "pm_tuning"
        else {},
        latent_factor_id=lesson.latent_factor_id,
    )


def _effect(lesson: Lesson) -> dict[str, Any]:
    """Levers of a lesson: ``capital_levers`` (or ``alloc_mult`` alone), or ``execution_levers.signal_thresholds``.

    Execution levers beside ``signal_thresholds`` are passed on, so that the lever check names and refuses them.
    """
    if lesson.lesson_type != "pm_tuning":
        bare = {"alloc_mult": lesson.effect["alloc_mult"]} if "alloc_mult" in lesson.effect else {}
        return {**bare, **lesson.effect.get("capital_levers", {})}
    levers = dict(lesson.effect.get("execution_levers", {}))
    thresholds = levers.pop("signal_thresholds", {})
    return {**levers, **thresholds}


def _readable(document: Any) -> Mapping[str, Any]:
    """The document, or an empty one in place of something that is no document."""
    return document if isinstance(document, Mapping) else {}


def _version(document: Mapping[str, Any]) -> int:
    found = document.get("config_version", 0)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
