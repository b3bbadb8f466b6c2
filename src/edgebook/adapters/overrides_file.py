"""overrides.json: what was learnt from anyone's trades, as one file of canonical JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebook.domain.codec import from_json, to_json
from edgebook.domain.errors import EdgebookError, InputError
from edgebook.domain.evidence import ConfigVersion, FamilyFit, Lesson
from edgebook.overrides.record import content_hash

FORMAT = "edgebook.overrides"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Learnt:
    """Everything that overrides.json holds.

    Attributes:
        at: moment of the last learning, microseconds UTC.
        learnt_at: that of the first; nothing may be asked about earlier moments.
        dims: the user's scope dims.
        trades: counts of the last learning: ``used``, ``later`` (closed after ``at``), ``duplicates``.
        versions: config versions, ascending.
        lessons: current lesson rows, deprecated ones included.
        fits: last fit of each family.
        refused: (lesson id, reason) of lessons the materializer would not write.
    """

    at: int
    learnt_at: int
    dims: tuple[str, ...]
    trades: Mapping[str, int]
    versions: tuple[ConfigVersion, ...]
    lessons: tuple[Lesson, ...]
    fits: tuple[FamilyFit, ...]
    refused: tuple[tuple[str, str], ...] = ()


def canonical(learnt: Learnt) -> str:
    """The text of the file: keys sorted, no spaces, one newline at the end; equal contents are equal bytes."""
    body = {"format": FORMAT, "format_version": FORMAT_VERSION, **to_json(learnt)}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def write_learnt(path: Path, learnt: Learnt) -> None:
    """Write the file whole or not at all.

    Raises:
        InputError: the folder does not exist.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    part = path.with_name(path.name + ".part")
    part.write_text(canonical(learnt), encoding="utf-8")
    part.replace(path)


def read_learnt(path: Path) -> Learnt:
    """Read the file and check it.

    Raises:
        InputError: no such file, not JSON, of another kind or a newer format, a field that is missing or wrong, or a
            version whose content is not that of its hash.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); give a file that edgebook learn wrote") from error
    if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
        raise InputError(f"{path}: not an overrides file; its format must be {FORMAT!r}")
    version = body.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise InputError(f"{path}: format_version is {version!r}; this edgebook reads {FORMAT_VERSION}")
    refused = body.pop("refused", [])
    try:
        learnt = from_json(_Body, body)
        pairs = tuple((str(ident), str(reason)) for ident, reason in refused)
        _check_versions(learnt.versions, path)
    except (EdgebookError, TypeError, ValueError) as error:
        told = error.message if isinstance(error, EdgebookError) else str(error)
        raise InputError(told if told.startswith(str(path)) else f"{path}: damaged: {told}") from error
    return Learnt(
        learnt.at, learnt.learnt_at, learnt.dims, learnt.trades, learnt.versions, learnt.lessons, learnt.fits, pairs
    )


@dataclass(frozen=True, slots=True)
class _Body:
    """:class:`Learnt` without the pairs that the codec cannot read."""

    at: int
    learnt_at: int
    dims: tuple[str, ...]
    trades: Mapping[str, int]
    versions: tuple[ConfigVersion, ...]
    lessons: tuple[Lesson, ...]
    fits: tuple[FamilyFit, ...]


def _check_versions(versions: Sequence[ConfigVersion], path: Path) -> None:
    if not versions:
        raise InputError(f"{path}: damaged: it holds no version")
    for version in versions:
        found = content_hash(version.dm, version.pm)
        if found != version.content_hash:
            raise InputError(
                f"{path}: damaged: version {version.version} hashes to {found[:12]}, not {version.content_hash[:12]}"
            )


def lesson_row(lesson: Lesson) -> dict[str, Any]:
    """A lesson in the shape of ``lessons --json`` (decisions, Interfaces)."""
    return {
        "id": lesson.id,
        "lesson_type": lesson.lesson_type,
        "module": lesson.module,
        "pattern_key": lesson.pattern_key,
        "action_category": lesson.action_category,
        "scope": dict(lesson.scope_values),
        "levers": dict(lesson.effect.get("capital_levers", {})),
        "stats": to_json(lesson.stats),
        "status": lesson.status,
        "reason": lesson.reason,
    }
