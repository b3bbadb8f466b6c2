"""What an operator has decided about lessons, and how the documents of ``learning_configs`` say it (decisions 39).

A pin lies in the override itself (``lesson.pinned_at``), a mute too (``lesson.enabled`` false). The key ``steering`` of
the pm document, which like the feature flags there is for both modules, holds what must outlast an override: which
lessons are muted, and which are held where a revert has put them::

    {"muted": [id, ...], "reverted": {"to": 7, "known": {id: [evidence_at, lesson_version]}}}

A document that was never steered has no such key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgebook.domain.evidence import Lesson
from edgebook.domain.scope import SCHEMAS, ScopeSchema
from edgebook.overrides.record import ACTING, Override, parse_documents

Documents = tuple[Mapping[str, Any], Mapping[str, Any]]
KEY = "steering"


@dataclass(frozen=True, slots=True)
class Steering:
    """All that stands of an operator's acts.

    Attributes:
        muted: lessons whose overrides do not act.
        pinned: lesson -> its override, as it was pinned.
        reverted_to: config version of the last revert, 0 for the time before the first.
        held: lessons that stand as in that version, with ``(evidence_at, lesson_version)`` as known at the revert.
    """

    muted: frozenset[str] = frozenset()
    pinned: Mapping[str, Override] = field(default_factory=dict)
    reverted_to: int = 0
    held: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def released(self, lessons: Iterable[Lesson], old: Mapping[str, Override]) -> Steering:
        """Without what learning has new evidence for: a lesson with newer evidence, or one that stood in the version
        reverted to (``old``) and that a later fit has given up. A lesson born after the revert was never held."""
        if not self.held:
            return self
        held = dict(self.held)
        for lesson in lessons:
            if lesson.id in held:
                evidence_at, version = held[lesson.id]
                given_up = lesson.status not in ACTING and lesson.lesson_version > version and lesson.id in old
                if lesson.evidence_at > evidence_at or given_up:
                    del held[lesson.id]
        return replace(self, held=held)

    def fixed(self, old: Mapping[str, Override]) -> dict[str, Override | None]:
        """Lesson -> the override that stands whatever learning says of it (None: none does)."""
        found: dict[str, Override | None] = {}
        for lesson_id in self.held:
            before = old.get(lesson_id)
            found[lesson_id] = replace(before, pinned_at=None) if before is not None else None
        found.update(self.pinned)
        return found


def read_steering(documents: Documents, schemas: Mapping[str, ScopeSchema] = SCHEMAS) -> Steering:
    """What the documents say; what cannot be read is left out, as overrides that cannot be are.

    >>> read_steering(({}, {"steering": {"muted": ["a"], "reverted": {"to": 2, "known": {"b": [5, 1]}}}}))
    Steering(muted=frozenset({'a'}), pinned={}, reverted_to=2, held={'b': (5, 1)})
    """
    listed = parse_documents(*documents, schemas=schemas)[0]
    said = _mapping(documents[1], KEY)
    names = said.get("muted", ())
    muted = {name for name in names if isinstance(name, str)} if isinstance(names, list | tuple) else set()
    reverted = _mapping(said, "reverted")
    to = reverted.get("to")
    known = _mapping(reverted, "known") if _is_number(to) else {}
    held = {name: (mark[0], mark[1]) for name, mark in known.items() if _is_mark(mark)}
    return Steering(
        frozenset(muted | {o.lesson_id for o in listed if not o.enabled}),
        {o.lesson_id: o for o in listed if o.pinned_at is not None},
        int(to) if held and to is not None else 0,
        held,
    )


def write_steering(pm: Mapping[str, Any], steering: Steering) -> dict[str, Any]:
    """The pm document with what must outlast an override; without the key where there is nothing to say."""
    said: dict[str, Any] = {}
    if steering.muted:
        said["muted"] = sorted(steering.muted)
    if steering.held:
        known = {lesson_id: list(mark) for lesson_id, mark in sorted(steering.held.items())}
        said["reverted"] = {"to": steering.reverted_to, "known": known}
    kept = {name: value for name, value in pm.items() if name != KEY}
    return {**kept, KEY: said} if said else kept


def _mapping(document: Any, name: str) -> Mapping[str, Any]:
    found = document.get(name) if isinstance(document, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _is_mark(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
