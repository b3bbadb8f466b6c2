"""One act of an operator on what was learnt: what it is about, and the documents it makes (decisions 39).

An act changes the steering (`learning.steering`) and lets the materializer write the documents from it, so that the
next run of the materializer finds them as they should be. An act that changes nothing makes no version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from edgebook.domain.errors import InputError
from edgebook.domain.evidence import Lesson
from edgebook.domain.scope import SCHEMAS, ScopeSchema
from edgebook.domain.steering import ACTS
from edgebook.learning.materialize import Materialized, materialize
from edgebook.learning.steering import Documents, Steering, read_steering
from edgebook.overrides.record import Override, parse_documents


@dataclass(frozen=True, slots=True)
class Steered:
    """What came of an act.

    Attributes:
        target: the whole id of the lesson, or the number of the version.
        result: the documents that are due; None where it was so already.
    """

    target: str
    result: Materialized | None


def steer(
    act: str,
    target: str,
    lessons: Sequence[Lesson],
    previous: Documents,
    now: int,
    *,
    documents_of: Callable[[int], Documents | None],
    after: int = 0,
    previous_hash: str = "",
    schemas: Mapping[str, ScopeSchema] = SCHEMAS,
) -> Steered:
    """The act ``act`` on ``target``.

    Args:
        act: one of ``domain.steering.ACTS``.
        target: a lesson's id, or the beginning of it where no other lesson begins so; the number of a version.
        lessons, previous, now, after, previous_hash, schemas: as for the materializer.
        documents_of: documents of a config version; None where there is no such version.

    Raises:
        InputError: no such act, lesson or version, more than one lesson meant, or a pin of what is not in force.
    """
    if act not in ACTS:
        raise InputError(f"an act is one of {', '.join(ACTS)}, was {act!r}", stage="steering")
    listed = {o.lesson_id: o for o in parse_documents(*previous, schemas=schemas)[0]}
    state = read_steering(previous, schemas)
    if act == "revert":
        number, documents = _version(target, after, documents_of)
        target = str(number)
        wanted = _reverted(state, number, parse_documents(*documents, schemas=schemas)[0], lessons)
    else:
        known = {lesson.id for lesson in lessons} | listed.keys() | state.muted | state.held.keys()
        target = find_lesson(target, known)
        wanted = _one_lesson(act, target, state, listed.get(target), now)
    if wanted == state:
        return Steered(target, None)
    result = materialize(
        lessons,
        previous,
        now,
        schemas=schemas,
        after=after,
        previous_hash=previous_hash,
        documents_of=documents_of,
        steering=wanted,
    )
    made = {o.lesson_id: o for o in parse_documents(result.dm, result.pm, schemas=schemas)[0]}
    if not result.changed or (act == "revert" and made == listed):
        return Steered(target, None)
    return Steered(target, result)


def find_lesson(target: str, known: Collection[str]) -> str:
    """The lesson that ``target`` is the id of, or the beginning of its id.

    Raises:
        InputError: none, or more than one.

    >>> find_lesson("ab", ["abc", "xyz"])
    'abc'
    """
    if target in known:
        return target
    found = sorted(lesson_id for lesson_id in known if target and lesson_id.startswith(target))
    if len(found) == 1:
        return found[0]
    if found:
        few = ", ".join(found[:3]) + (" ..." if len(found) > 3 else "")
        raise InputError(f"{len(found)} lessons begin with {target!r}: {few}; give more of the id", stage="steering")
    raise InputError(f"no lesson {target!r}; 'edgebook lessons' lists them", stage="steering")


def _version(target: str, newest: int, documents_of: Callable[[int], Documents | None]) -> tuple[int, Documents]:
    if not (target.isascii() and target.isdecimal()):
        raise InputError(f"revert takes the number of a config version, was {target!r}", stage="steering")
    number = int(target)
    documents: Documents | None = ({}, {}) if number == 0 else documents_of(number)
    if documents is None or number > newest:
        raise InputError(f"no config version {number}; the newest is {newest}, and 0 is none learnt", stage="steering")
    return number, documents


def _reverted(state: Steering, number: int, old: Sequence[Override], lessons: Sequence[Lesson]) -> Steering:
    """Every lesson there is, or was in ``old``, is held; mutes and pins of now stand, those of then do not return."""
    held = {o.lesson_id: (o.evidence_at, 0) for o in old}
    held |= {lesson.id: (lesson.evidence_at, lesson.lesson_version) for lesson in lessons}
    return replace(state, reverted_to=number, held=held)


def _one_lesson(act: str, lesson_id: str, state: Steering, listed: Override | None, now: int) -> Steering:
    if act == "mute":
        return replace(state, muted=state.muted | {lesson_id})
    if act == "unmute":
        return replace(state, muted=state.muted - {lesson_id})
    if act == "unpin":
        return replace(state, pinned={name: o for name, o in state.pinned.items() if name != lesson_id})
    if lesson_id in state.pinned:
        return state
    if listed is None:
        raise InputError(
            f"lesson {lesson_id} has no override in force that could be pinned; 'edgebook overrides' lists those",
            stage="steering",
        )
    return replace(state, pinned={**state.pinned, lesson_id: replace(listed, pinned_at=now)})
