"""overrides.json: what was learnt from anyone's trades, as one file of canonical JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebook.adapters.frames import replacing
from edgebook.domain.codec import from_json, to_json
from edgebook.domain.errors import EdgebookError, InputError
from edgebook.domain.evidence import ConfigVersion, FamilyFit, Lesson
from edgebook.overrides.record import content_hash

FORMAT = "edgebook.overrides"
FORMAT_VERSION = 2


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
    return _text({**body, "sha256": _digest(body)}) + "\n"


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(body: Mapping[str, Any]) -> str:
    """SHA-256 of everything the file says but this itself."""
    return hashlib.sha256(_text(body).encode("utf-8")).hexdigest()


def write_learnt(path: Path, learnt: Learnt) -> None:
    """Write the file whole or not at all.

    Raises:
        InputError: the folder does not exist, or the name is that of a folder.
    """
    text = canonical(learnt)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def read_learnt(path: Path) -> Learnt:
    """Read the file and check it.

    Raises:
        InputError: no such file, not JSON, of another kind or format, a field that is missing or wrong, or content that
            is not that of its hash.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); give a file that edgebook learn wrote") from error
    whole = dict(body) if isinstance(body, dict) else {}
    if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
        raise InputError(f"{path}: not an overrides file; its format must be {FORMAT!r}")
    version = body.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise InputError(f"{path}: format_version is {version!r}; this edgebook reads {FORMAT_VERSION}; learn again")
    told_hash = body.pop("sha256", None)
    refused = body.pop("refused", [])
    try:
        learnt = from_json(_Body, body)
        pairs = tuple((str(ident), str(reason)) for ident, reason in refused)
        _check_versions(learnt.versions, path)
        _check_rows(learnt, path)
        whole.pop("sha256", None)
        if told_hash != _digest(whole):
            raise InputError(f"{path}: damaged: its content is not that of its hash; it was changed by hand or cut")
    except (EdgebookError, TypeError, ValueError) as error:
        told = error.message if isinstance(error, EdgebookError) else str(error)
        told = told.replace("_Body.", "").replace("_Body ", "the file ")
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


def _check_rows(learnt: _Body, path: Path) -> None:
    """What answers and reports read of lessons and fits, but the codec knows as mappings only."""
    for lesson in learnt.lessons:
        where = f"{path}: damaged: lesson {lesson.id}"
        for name in ("log_target", "effect", "n", "conviction"):
            _number(lesson.stats.get(name), f"{where}: stats.{name}")
        levers = lesson.effect.get("capital_levers")
        if not isinstance(levers, Mapping):
            raise InputError(f"{where}: effect.capital_levers is {levers!r}; it must be an object")
        for name, value in levers.items():
            _number(value, f"{where}: lever {name}")
    for fit in learnt.fits:
        where = f"{path}: damaged: fit {fit.family}"
        if not isinstance(fit.detail.get("reason"), str):
            raise InputError(f"{where}: detail.reason is {fit.detail.get('reason')!r}; it must be text")
        if not isinstance(fit.detail.get("lr"), Mapping):
            raise InputError(f"{where}: detail.lr is {fit.detail.get('lr')!r}; it must be an object")
        for name, value in fit.detail["lr"].items():
            _number(value, f"{where}: detail.lr.{name}")


def _number(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where} is {value!r}; it must be a number")


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
