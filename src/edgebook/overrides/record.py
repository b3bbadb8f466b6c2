"""Override records: what learning wants changed, and the JSON documents of ``learning_configs`` they travel in
(learning.md 6).

One lesson becomes one override: under this pattern key, action category and scope, these levers should go to these
targets. Reading is forgiving and never crashes: an item that cannot be believed is skipped and reported, so a corrupt
config is a neutral config. Writing is canonical: the same overrides make the same bytes whatever order they come in.

Targets of scaled levers (``slope_min``, ``slow_slope_min``) are stored at the 1h scale; ``combine`` scales them by
sqrt(timeframe / 1h) when they are applied.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

from edgebook.domain.codec import to_json
from edgebook.domain.errors import OverrideError, StrandError
from edgebook.domain.levers import LEGACY_NEUTRAL, LESSON_TYPES, LEVERS, LessonType, Lever
from edgebook.domain.pattern import CATEGORIES
from edgebook.domain.scope import SCHEMAS, ScopeItems, ScopeSchema, make_scope

#: Kill-switch channel -> the lesson type it silences (decisions 39).
CHANNELS: dict[str, LessonType] = {"dm": "dm_alloc", "strength": "pm_strength", "tuning": "pm_tuning"}
#: Lesson type -> (module, name of its list in the module's document).
LISTS: dict[LessonType, tuple[str, str]] = {
    "dm_alloc": ("dm", "alloc_overrides"),
    "pm_strength": ("pm", "pattern_strength_overrides"),
    "pm_tuning": ("pm", "pattern_overrides"),
}
#: Read when ``pattern_overrides`` is absent; never written (learning.md 6).
TUNING_ALIAS = "pattern_tuning_overrides"
#: Statuses that act (decisions 16).
ACTING = ("candidate", "active")
DEFAULT_FLAGS: dict[str, Any] = {
    "learning_overrides_enabled": True,
    "learning_overrides_enabled_regimes": [],
    "learning_overrides_enabled_buckets": [],
}
_VOLATILE = ("override_updated_at", "config_version")


class Family(NamedTuple):
    """What overrides must share to meet in one blend."""

    lesson_type: str
    pattern_key: str
    action_category: str


@dataclass(frozen=True, slots=True)
class Override:
    """One lesson in force.

    Attributes:
        targets: lever -> target. Multipliers are factors; gates are absolute values in their natural unit, scaled ones
            at 1h.
        stats: the lesson's statistics as stored (``n``, ``variance``, ``effect``, ``effect_total``, ``edge_raw`` ...).
        status: ``candidate`` or ``active``; both act (decisions 16).
        enabled: False mutes this override: it is listed and does not act.
        half_life_hours: its evidence counts half after this long (> 0).
        evidence_at: time of its newest evidence, microseconds UTC; decay counts from here.
        base_at_fit: base of each gate when the lesson was fitted; a base that has changed since shifts the target with
            it.
        pinned_at: when an operator pinned it, microseconds UTC: its decay stands still from then on. None: not pinned.
    """

    lesson_id: str
    lesson_type: LessonType
    pattern_key: str
    action_category: str
    scope: ScopeItems
    targets: Mapping[str, float]
    half_life_hours: float
    evidence_at: int
    created_at: int = 0
    status: str = "candidate"
    enabled: bool = True
    strength: float = 0.0
    stats: Mapping[str, Any] = field(default_factory=dict)
    base_at_fit: Mapping[str, float] = field(default_factory=dict)
    latent_factor_id: str = ""
    pinned_at: int | None = None

    @property
    def family(self) -> Family:
        """(lesson type, pattern key, action category)."""
        return Family(self.lesson_type, self.pattern_key, self.action_category)

    @property
    def order(self) -> tuple[str, ...]:
        """Canonical sort key: independent of the order in which lessons were made."""
        return (self.lesson_type, self.pattern_key, self.action_category, self.lesson_id)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a document that was not believed.

    ``kind``: ``leak`` (a dimension or key of the other module), ``lever`` (unknown, or not of this list or category),
    ``legacy`` (a retired knob; only the knob is ignored), ``bounds`` (clamped, the item still acts), ``duplicate``,
    ``flags`` or ``item``.
    """

    where: str
    kind: str
    detail: str
    lesson_id: str = ""


class _RefusedError(OverrideError):
    """An item that is skipped; ``stage`` holds the problem's kind."""


@cache
def levers_of(lesson_type: str, action_category: str) -> tuple[Lever, ...]:
    """The levers an override of this type and category may move, in table order (decisions 21, 24).

    >>> [row.name for row in levers_of("pm_strength", "trim")], levers_of("pm_strength", "exit")
    (['exit_aggression_mult'], ())
    """
    return tuple(row for row in LEVERS.values() if row.lesson_type == lesson_type and action_category in row.categories)


def legal_targets(
    lesson_type: str, action_category: str, raw: Mapping[str, Any]
) -> tuple[dict[str, float], tuple[tuple[str, str], ...]]:
    """``raw`` lever targets checked against the lever table and clamped to its bounds.

    A lever of the same lesson type that this category does not read is left out when neutral and refused otherwise.

    Returns:
        Targets in table order, and notes ``(kind, detail)`` for ignored legacy knobs and clamped values.

    Raises:
        OverrideError: unknown lever, wrong list or category, or a target that is no finite (for multipliers: positive)
            number.

    >>> legal_targets("dm_alloc", "allocation", {"alloc_mult": 2})
    ({'alloc_mult': 1.3}, (('bounds', 'alloc_mult 2.0 clamped to 1.3'),))
    """
    notes: list[tuple[str, str]] = []
    values: dict[str, float] = {}
    for name, value in raw.items():
        if name in LEGACY_NEUTRAL:
            notes.append(("legacy", f"{name} is retired and stays neutral"))
            continue
        row = LEVERS.get(name)
        if row is None or row.lesson_type != lesson_type:
            raise _RefusedError(f"{name!r} is not a lever of {lesson_type}", stage="lever")
        number = _finite(value, f"target of {name}")
        if row.log_blend and number <= 0:
            raise _RefusedError(f"target of {name} must be positive, was {number}", stage="item")
        if action_category not in row.categories:
            if number != row.base:
                raise _RefusedError(f"{name} is not read by category {action_category!r}", stage="lever")
            continue
        values[name] = min(max(number, row.lo), row.hi)
        if values[name] != number:
            notes.append(("bounds", f"{name} {number} clamped to {values[name]}"))
    return {row.name: values[row.name] for row in levers_of(lesson_type, action_category) if row.name in values}, tuple(
        notes
    )


# ------------------------------------------------------------------------------------------------------------ reading

Known = Mapping[tuple[str, str], tuple[Any, "Override", tuple[Problem, ...]]]


def parse_documents(
    dm: Mapping[str, Any], pm: Mapping[str, Any], *, schemas: Mapping[str, ScopeSchema] = SCHEMAS
) -> tuple[tuple[Override, ...], tuple[Problem, ...]]:
    """The overrides of both documents in canonical order, and what was not believed (P5, P9; never raises for content).

    Args:
        dm, pm: ``config_data`` of the two rows of ``learning_configs``.
        schemas: scope schema per module; a user's own dims come in here.
    """
    overrides, problems, _ = parse_with(dm, pm, schemas, {})
    return overrides, problems


def parse_with(
    dm: Any, pm: Any, schemas: Mapping[str, ScopeSchema], known: Known
) -> tuple[tuple[Override, ...], tuple[Problem, ...], Known]:
    """``parse_documents`` that reuses the records of items equal to those in ``known`` (the previous version's
    items).
    """
    seen: dict[tuple[str, str], tuple[Any, Override, tuple[Problem, ...]]] = {}
    problems: list[Problem] = []
    for lesson_type, (module, name) in LISTS.items():
        items, listed = _items(dm if module == "dm" else pm, module, name, problems)
        for number, item in enumerate(items):
            where = f"{module}.{listed}[{number}]"
            lesson_id = _lesson_id(item)
            key = (lesson_type, lesson_id)
            if lesson_id and key in seen:
                problems.append(
                    Problem(where, "duplicate", f"lesson {lesson_id} appears twice; the first counts", lesson_id)
                )
                continue
            old = known.get(key)
            if old is not None and (old[0] is item or old[0] == item):
                seen[key] = old
                problems.extend(replace(problem, where=where) for problem in old[2])
                continue
            try:
                override, notes = _read_item(item, lesson_type, schemas[module])
            except (_RefusedError, StrandError) as error:
                kind = error.stage if isinstance(error, _RefusedError) else "leak"
                problems.append(Problem(where, kind, error.message, lesson_id))
                continue
            found = tuple(Problem(where, kind, detail, lesson_id) for kind, detail in notes)
            problems.extend(found)
            seen[key] = (item, override, found)
    ordered = sorted((entry[1] for entry in seen.values()), key=lambda o: o.order)
    return tuple(ordered), tuple(problems), seen


def _items(document: Any, module: str, name: str, problems: list[Problem]) -> tuple[list[Any], str]:
    if not isinstance(document, Mapping):
        problems.append(Problem(module, "item", f"the document must be an object, was {type(document).__name__}"))
        return [], name
    if name == "pattern_overrides" and name not in document:
        name = TUNING_ALIAS
    items = document.get(name, [])
    if not isinstance(items, list | tuple):
        problems.append(Problem(f"{module}.{name}", "item", f"must be a list, was {type(items).__name__}"))
        return [], name
    return list(items), name


def _lesson_id(item: Any) -> str:
    lesson = item.get("lesson") if isinstance(item, Mapping) else None
    found = lesson.get("id") if isinstance(lesson, Mapping) else None
    return found if isinstance(found, str) else ""


def _read_item(item: Any, lesson_type: LessonType, schema: ScopeSchema) -> tuple[Override, tuple[tuple[str, str], ...]]:
    module = LISTS[lesson_type][0]
    if not isinstance(item, Mapping):
        raise _RefusedError(f"an override must be an object, was {type(item).__name__}", stage="item")
    lesson = _typed(item, "lesson", Mapping)
    if item.get("lesson_type", lesson_type) != lesson_type:
        raise _RefusedError(f"lesson_type {item['lesson_type']!r} is in the list of {lesson_type}", stage="leak")
    pattern_key, category = _typed(item, "pattern_key", str), _typed(item, "action_category", str)
    if not pattern_key.startswith(f"module={module}|"):
        raise _RefusedError(f"pattern key {pattern_key!r} is not of module {module}", stage="leak")
    if category not in CATEGORIES:
        raise _RefusedError(f"action_category must be one of {', '.join(CATEGORIES)}, was {category!r}", stage="item")
    status = item.get("status", "active")
    if status not in ACTING:
        raise _RefusedError(f"status must be {' or '.join(ACTING)}, was {status!r}", stage="item")
    targets, notes = _read_levers(_typed(item, "levers", Mapping), lesson_type, category)
    half_life = _finite(lesson.get("decay_halflife_hours"), "lesson.decay_halflife_hours")
    if half_life <= 0:
        raise _RefusedError(f"lesson.decay_halflife_hours must be positive, was {half_life}", stage="item")
    override = Override(
        lesson_id=_typed(lesson, "id", str),
        lesson_type=lesson_type,
        pattern_key=pattern_key,
        action_category=category,
        scope=_read_scope(_typed(item, "scope", Mapping), schema),
        targets=targets,
        half_life_hours=half_life,
        evidence_at=_time(lesson, "evidence_at"),
        created_at=_time(lesson, "created_at"),
        status=status,
        enabled=_typed(lesson, "enabled", bool),
        strength=_finite(lesson.get("strength", 0.0), "lesson.strength"),
        stats=_typed(item, "stats", Mapping),
        base_at_fit=_read_bases(item.get("base_at_fit", {}), targets),
        latent_factor_id="" if lesson.get("latent_factor_id") is None else _typed(lesson, "latent_factor_id", str),
        pinned_at=None if lesson.get("pinned_at") is None else _time(lesson, "pinned_at"),
    )
    return override, notes


def _read_levers(
    levers: Mapping[str, Any], lesson_type: LessonType, category: str
) -> tuple[dict[str, float], tuple[tuple[str, str], ...]]:
    flat = dict(levers)
    if lesson_type == "pm_tuning":
        flat.pop("signal_thresholds", None)
        stray = sorted(map(str, set(flat) - set(LEGACY_NEUTRAL)))
        if stray:
            raise _RefusedError(
                f"lever {stray[0]!r} of {lesson_type} must stand under signal_thresholds", stage="lever"
            )
        flat.update(_typed(levers, "signal_thresholds", Mapping))
    targets, notes = legal_targets(lesson_type, category, flat)
    if not targets:
        detail = notes[0] if notes else ("lever", f"no lever for category {category!r}")
        raise _RefusedError(detail[1], stage=detail[0])
    return targets, notes


def _read_scope(values: Mapping[str, Any], schema: ScopeSchema) -> ScopeItems:
    for dim, value in values.items():
        if not isinstance(dim, str):
            raise _RefusedError(f"scope dimensions must be text, was {dim!r}", stage="item")
        if dim in schema.dims and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise _RefusedError(f"scope value of {dim} must be text or a whole number, was {value!r}", stage="item")
    scope = make_scope(schema, values)
    if len(scope) != len(values):
        raise _RefusedError(f"scope {dict(values)} holds an absent value, which would widen it", stage="item")
    return scope


def _read_bases(raw: Any, targets: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(raw, Mapping):
        raise _RefusedError(f"base_at_fit must be an object, was {raw!r}", stage="item")
    return {name: _finite(raw[name], f"base_at_fit of {name}") for name in targets if name in raw}


def _typed(item: Mapping[str, Any], name: str, kind: type) -> Any:
    value = item.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or (kind is str and not value):
        raise _RefusedError(f"{name} must be {kind.__name__}, was {value!r}", stage="item")
    return value


def _time(item: Mapping[str, Any], name: str) -> int:
    value: int = _typed(item, name, int)
    if not -(1 << 63) <= value < 1 << 63:
        raise _RefusedError(f"{name} must be microseconds UTC in 64 bits, was {value}", stage="item")
    return value


def _finite(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RefusedError(f"{what} must be a number, was {value!r}", stage="item")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _RefusedError(f"{what} must be finite, was {value!r}", stage="item")
    return number


# ------------------------------------------------------------------------------------------------------------ writing


def dump_documents(
    overrides: Iterable[Override],
    feature_flags: Mapping[str, Any] | None = None,
    *,
    previous: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
    updated_at: int = 0,
    version: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The documents ``(dm, pm)`` of ``overrides``: read-modify-write on ``previous``, whose unrelated keys stay
    (learning.md 6).

    Law: ``parse_documents(*dump_documents(x))`` is ``x`` in canonical order, without problems.

    Args:
        overrides: in any order; every list is written, empty ones too, so nothing stale stays in force.
        feature_flags: replaces the pm flags; None keeps the previous ones, or writes the defaults.
        previous: documents before.
        updated_at: time of writing, microseconds UTC.
        version: config version, one for both documents.
    """
    documents = {"dm": dict(previous[0]), "pm": dict(previous[1])}
    documents["pm"].pop(TUNING_ALIAS, None)
    flags = previous[1].get("feature_flags", DEFAULT_FLAGS) if feature_flags is None else feature_flags
    documents["pm"]["feature_flags"] = to_json(flags)
    for module, name in LISTS.values():
        documents[module][name] = []
    for override in sorted(overrides, key=lambda o: o.order):
        module, name = LISTS[override.lesson_type]
        documents[module][name].append(_dump_item(override))
    for document in documents.values():
        document["override_updated_at"] = updated_at
        document["config_version"] = version
    return documents["dm"], documents["pm"]


def _dump_item(override: Override) -> dict[str, Any]:
    targets = dict(override.targets)
    item: dict[str, Any] = {
        "pattern_key": override.pattern_key,
        "action_category": override.action_category,
        "scope": dict(override.scope),
        "scope_dims": sorted(dim for dim, _ in override.scope),
        "levers": {"signal_thresholds": targets} if override.lesson_type == "pm_tuning" else targets,
        "stats": to_json(override.stats),
        "lesson": {
            "id": override.lesson_id,
            "strength": override.strength,
            "decay_halflife_hours": override.half_life_hours,
            "enabled": override.enabled,
            "created_at": override.created_at,
            "evidence_at": override.evidence_at,
            "latent_factor_id": override.latent_factor_id or None,
        },
        "lesson_type": override.lesson_type,
        "status": override.status,
    }
    if override.pinned_at is not None:
        item["lesson"]["pinned_at"] = override.pinned_at
    if override.base_at_fit:
        item["base_at_fit"] = dict(override.base_at_fit)
    return item


def content_hash(dm: Mapping[str, Any], pm: Mapping[str, Any]) -> str:
    """SHA-256 of what the documents say, without the time of writing and the version number (decisions 33).

    A missing list equals an empty one, missing flags equal the defaults.

    Raises:
        OverrideError: a number that JSON cannot hold (NaN, infinity) or a value that is not plain JSON.
    """
    content = {"dm": dict(dm), "pm": {"feature_flags": DEFAULT_FLAGS, **pm}}
    for lesson_type in LESSON_TYPES:
        module, name = LISTS[lesson_type]
        content[module].setdefault(name, [])
    for document in content.values():
        for name in _VOLATILE:
            document.pop(name, None)
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OverrideError(f"the config cannot be written as JSON: {error}", stage="materialize") from error
    return hashlib.sha256(text.encode()).hexdigest()
