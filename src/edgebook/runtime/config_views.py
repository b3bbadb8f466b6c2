"""The config versions as a person asks for them: who made which and what it changed, and how two of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from edgebook.domain.errors import InputError
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.scope import SCHEMAS
from edgebook.domain.steering import ConfigSteered
from edgebook.domain.strands import ConfigChanged
from edgebook.overrides.record import LISTS, Known, Override, parse_with
from edgebook.ports import UnitOfWork
from edgebook.runtime.views import when

Json = Any
#: Field of an override -> what is said to have changed where it differs.
_SAID = {
    "targets": "levers",
    "base_at_fit": "levers",
    "evidence_at": "evidence",
    "half_life_hours": "half-life",
    "status": "status",
    "enabled": "mute",
    "pinned_at": "pin",
}
Listed = Mapping[str, Override]


@dataclass(frozen=True, slots=True)
class Changes:
    """Overrides by lesson id: in the later version only, in the earlier only, and in both but not the same."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


def changes(before: Listed, after: Listed) -> Changes:
    """What ``after`` has changed of ``before``.

    >>> changes({}, {})
    Changes(added=(), removed=(), changed=())
    """
    both = sorted(before.keys() & after.keys())
    return Changes(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        tuple(name for name in both if before[name] != after[name]),
    )


def history_view(uow: UnitOfWork, limit: int | None = None) -> list[dict[str, Json]]:
    """Config versions, the newest first: when, by whom, why, how many overrides, and which ones it changed.

    Args:
        limit: at most so many.
    """
    acts: dict[int, ConfigSteered] = {}
    makers: dict[int, str] = {}
    for strand in uow.log.read(0, ["config_steered", "config_changed"]):
        if isinstance(strand.payload, ConfigSteered):
            acts[strand.payload.version] = strand.payload
        elif isinstance(strand.payload, ConfigChanged):
            makers[strand.payload.version] = strand.payload.updated_by
    versions = sorted(uow.config_versions.values(), key=lambda version: version.version)
    rows: list[dict[str, Json]] = []
    before: Listed = {}
    known: Known = {}
    first = 0 if limit is None else max(0, len(versions) - limit)
    for number, version in enumerate(versions[max(0, first - 1) :], max(0, first - 1)):
        after, known = _listed(version, known)
        if number >= first:
            act, maker = acts.get(version.version), makers.get(version.version, "")
            rows.append(_row(version, before, after, act, maker))
        before = after
    return rows[::-1]


def _row(version: ConfigVersion, before: Listed, after: Listed, act: ConfigSteered | None, by: str) -> dict[str, Json]:
    found = changes(before, after)
    return {
        "version": version.version,
        "at": when(version.in_force_from),
        "who": act.who if act else by,
        "act": act.act if act else "",
        "target": act.target if act else "",
        "why": act.why if act else "",
        "overrides": {kind: sum(o.lesson_type == kind for o in after.values()) for kind in LISTS},
        "muted": sum(not o.enabled for o in after.values()),
        "pinned": sum(o.pinned_at is not None for o in after.values()),
        "added": list(found.added),
        "removed": list(found.removed),
        "changed": list(found.changed),
    }


def diff_view(uow: UnitOfWork, earlier: int, later: int) -> dict[str, Json]:
    """Overrides that version ``later`` adds to, removes from and changes in version ``earlier``; 0 is none learnt.

    Raises:
        InputError: there is no such version.
    """
    before, after = (_of_version(uow, number) for number in (earlier, later))
    found = changes(before, after)
    return {
        "from": earlier,
        "to": later,
        "added": [_difference(None, after[name]) for name in _ordered(found.added, after)],
        "removed": [_difference(before[name], None) for name in _ordered(found.removed, before)],
        "changed": [_difference(before[name], after[name]) for name in _ordered(found.changed, after)],
        "unchanged": len(before.keys() & after.keys()) - len(found.changed),
    }


def _ordered(names: Iterable[str], listed: Listed) -> list[str]:
    return sorted(names, key=lambda name: listed[name].order)


def _difference(before: Override | None, after: Override | None) -> dict[str, Json]:
    """One override: where it holds, its lever targets and state before and after, and what differs."""
    shown = after or before
    assert shown is not None
    what: list[str] = []
    if before is not None and after is not None:
        differing = [f.name for f in fields(Override) if getattr(before, f.name) != getattr(after, f.name)]
        what = list(dict.fromkeys(_SAID.get(name, "statistics") for name in differing))
    return {
        "lesson_id": shown.lesson_id,
        "lesson_type": shown.lesson_type,
        "pattern_key": shown.pattern_key,
        "action_category": shown.action_category,
        "scope": dict(shown.scope),
        "before": dict(before.targets) if before is not None else None,
        "after": dict(after.targets) if after is not None else None,
        "state_before": state_of(before) if before is not None else "",
        "state_after": state_of(after) if after is not None else "",
        "what": what,
    }


def state_of(override: Override) -> str:
    """``candidate`` or ``active``, with what an operator has made of it.

    >>> from edgebook.overrides.record import Override
    >>> state_of(Override("l", "dm_alloc", "module=dm|pattern_key=a", "allocation", (), {}, 1.0, 0, enabled=False))
    'candidate, muted'
    """
    pinned = ["pinned"] if override.pinned_at is not None else []
    return ", ".join([override.status, *pinned, *([] if override.enabled else ["muted"])])


def _of_version(uow: UnitOfWork, number: int) -> Listed:
    if number == 0:
        return {}
    row = uow.config_versions.get(f"{number:010d}")
    if row is None:
        newest = max((version.version for version in uow.config_versions.values()), default=0)
        raise InputError(f"no config version {number}; the newest is {newest}, and 0 is none learnt", stage="views")
    return _listed(row, {})[0]


def _listed(version: ConfigVersion, known: Known) -> tuple[Listed, Known]:
    overrides, _, seen = parse_with(version.dm, version.pm, SCHEMAS, known)
    return {override.lesson_id: override for override in overrides}, seen
