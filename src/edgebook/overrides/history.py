"""The version history of the learning configs: which overrides were in force when.

The slew of ``combine`` walks this history, so applied values move at most one step per epoch whatever a new version
brings, and a past decision can be computed again exactly. Histories are immutable; a longer one shares everything with
the shorter.

A lesson that is muted counts from then on as if it had never acted, in every version walked: a mute acts at once, as a
kill switch does (decisions 15). Once it is unmuted it comes in by the slew, like a new one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgebook.domain.decay import HOUR
from edgebook.domain.errors import OverrideError
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.scope import SCHEMAS, ScopeItems, ScopeSchema
from edgebook.overrides.match import MatchIndex, group
from edgebook.overrides.record import CHANNELS, DEFAULT_FLAGS, Family, Known, Override, Problem, parse_with

Blend = Literal["incremental", "average"]
StepMode = Literal["epoch", "displacement"]
EMPTY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Mode:
    """How overrides combine (decisions 1, 13, 14) and which dims a scope may have; fixed for a history."""

    blend: Blend = "incremental"
    step_mode: StepMode = "epoch"
    schemas: Mapping[str, ScopeSchema] = field(default_factory=lambda: SCHEMAS)


class FamilyVersion:
    """The overrides of one family while they stayed the same, and the version of the family before them.

    Attributes:
        epoch: hour since 1970 from which it is in force.
        entered, matched: memos of ``combine`` (displacement at ``epoch`` by scope; matched positions by scope).
        derived: memo of ``combine`` (per-override numbers).
    """

    __slots__ = (
        "_index",
        "_origin",
        "_previous",
        "_twins",
        "blend",
        "derived",
        "entered",
        "epoch",
        "family",
        "matched",
        "overrides",
    )

    def __init__(
        self, family: Family, overrides: tuple[Override, ...], epoch: int, previous: FamilyVersion | None, blend: Blend
    ) -> None:
        self.family = family
        self.overrides = overrides
        self.epoch = epoch
        self.blend: Blend = blend
        self._previous = previous
        self._origin: tuple[FamilyVersion, frozenset[str]] | None = None
        self._twins: dict[frozenset[str], FamilyVersion] = {}
        self._index: MatchIndex | None = None
        self.entered: dict[ScopeItems, tuple[float, ...]] = {}
        self.matched: dict[ScopeItems, tuple[int, ...]] = {}
        self.derived: Any = None

    @property
    def index(self) -> MatchIndex:
        """The match index, built when first asked for."""
        if self._index is None:
            self._index = MatchIndex(self.overrides)
        return self._index

    @property
    def previous(self) -> FamilyVersion | None:
        """The family's version before; None when it began at base."""
        if self._origin is not None:
            version, lessons = self._origin
            self._previous = version.previous.without(lessons) if version.previous is not None else None
            self._origin = None
        return self._previous

    def without(self, lessons: frozenset[str]) -> FamilyVersion:
        """This version, and each one before it, as if ``lessons`` had been muted in it; made as far back as asked."""
        if not lessons:
            return self
        twin = self._twins.get(lessons)
        if twin is None:
            twin = FamilyVersion(self.family, _muted(self.overrides, lessons), self.epoch, None, self.blend)
            twin._origin = self, lessons
            self._twins[lessons] = twin
        return twin


@dataclass(frozen=True, slots=True)
class Flags:
    """Switches in the documents; they act at once. A flag that cannot be read switches its module off (P5)."""

    dm: bool = True
    pm: bool = True
    regimes: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()

    def allow(self, module: str, scope: ScopeItems) -> bool:
        """Whether overrides of ``module`` may act in ``scope``; an empty list allows all (learning.md 7)."""
        if not (self.dm if module == "dm" else self.pm):
            return False
        if module == "dm" or not (self.regimes or self.buckets):
            return True
        current = dict(scope)
        in_regime = not self.regimes or current.get("macro_phase") in self.regimes
        return in_regime and (not self.buckets or current.get("bucket") in self.buckets)


class ConfigHistory:
    """Immutable sequence of config versions (decisions 15, 33, 46).

    >>> history = ConfigHistory.from_versions([])
    >>> history.current_version, history.version_at(10**15), history.overrides
    (0, 0, ())
    """

    __slots__ = (
        "_as_of",
        "_known",
        "_line",
        "_size",
        "_views",
        "current_version",
        "families",
        "flags",
        "in_force_from",
        "memo",
        "mode",
        "neutral_channels",
        "overrides",
        "problems",
    )

    def __init__(self, mode: Mode | None = None, neutral_channels: frozenset[str] = EMPTY) -> None:
        _check_channels(neutral_channels)
        self.mode = mode or Mode()
        self.neutral_channels = neutral_channels
        #: Version number in force at the end of the history; 0 before the first.
        self.current_version = 0
        #: Since when, microseconds UTC.
        self.in_force_from = 0
        self.overrides: tuple[Override, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self.flags = Flags()
        self.families: dict[Family, FamilyVersion] = {}
        #: Results of ``combine`` by question; bounded there.
        self.memo: dict[tuple[Any, ...], Any] = {}
        self._known: Known = {}
        self._size = 0
        self._line: list[ConfigHistory] = [self]
        self._views: dict[int, ConfigHistory] = {}
        self._as_of: dict[int, ConfigHistory] = {}

    @classmethod
    def from_versions(
        cls,
        versions: Sequence[ConfigVersion],
        *,
        neutral_channels: Iterable[str] = (),
        blend: Blend = "incremental",
        step_mode: StepMode = "epoch",
        schemas: Mapping[str, ScopeSchema] = SCHEMAS,
    ) -> ConfigHistory:
        """The history of ``versions``, ascending.

        Args:
            versions: rows of ``learning_config_versions``.
            neutral_channels: kill switches: ``dm``, ``strength``, ``tuning``.
            blend: ``incremental`` (decisions 13) or ``average`` (decisions 14).
            step_mode: ``epoch`` (decisions 15), or ``displacement``: at most one step from base, without memory.
            schemas: scope schema per module.

        Raises:
            OverrideError: versions not ascending, or an unknown channel.
        """
        history = cls(Mode(blend, step_mode, schemas), frozenset(neutral_channels))
        for version in versions:
            history = history.append(version)
        return history

    def append(self, version: ConfigVersion) -> ConfigHistory:
        """This history with one version more; what did not change is shared.

        Raises:
            OverrideError: the version's number or time is not after the last one's.
        """
        if version.version <= self.current_version or version.in_force_from < self.in_force_from:
            raise OverrideError(
                f"config version {version.version} in force from {version.in_force_from} cannot follow version "
                f"{self.current_version} from {self.in_force_from}: both must ascend",
                stage="config",
            )
        longer = ConfigHistory(self.mode, self.neutral_channels)
        longer.current_version, longer.in_force_from = version.version, version.in_force_from
        longer.overrides, problems, longer._known = parse_with(version.dm, version.pm, self.mode.schemas, self._known)
        longer.flags, flaws = _read_flags(version.dm, version.pm)
        longer.problems = problems + flaws
        longer.families = self._next_families(longer.overrides, version.in_force_from // HOUR)
        longer._size = self._size + 1
        line = self._line if len(self._line) == longer._size else self._line[: longer._size]
        line.append(longer)
        longer._line = line
        return longer

    def _next_families(self, overrides: tuple[Override, ...], epoch: int) -> dict[Family, FamilyVersion]:
        members = group(overrides)
        families = dict(self.families)
        for family in sorted({*members, *families}):
            now, before = members.get(family, ()), families.get(family)
            if before is not None and before.overrides == now:
                continue
            # A version replaced within its first epoch never moved anything.
            past = before.previous if before is not None and before.epoch == epoch else before
            if before is not None and past is not None:
                past = past.without(_newly_muted(before.overrides, now))
            families[family] = FamilyVersion(family, now, epoch, past, self.mode.blend)
        return families

    @property
    def versions(self) -> tuple[int, ...]:
        """All version numbers, ascending."""
        return tuple(h.current_version for h in self._line[1 : self._size + 1])

    def version_at(self, ts: int) -> int:
        """The version in force at ``ts`` (microseconds UTC), 0 before the first."""
        return self.until(ts).current_version

    def as_of(self, version: int) -> ConfigHistory:
        """The history as it was when ``version`` was the newest: what an open trade is pinned to (decisions 11, 46).

        Kill switches, flags and mutes stay those of today: they act at once. A number between two versions means the
        lower one.
        """
        if version >= self.current_version:
            return self
        size = bisect_right(self._line, version, 0, self._size + 1, key=lambda h: h.current_version) - 1
        found = self._as_of.get(size)
        if found is None:
            found = self._as_of[size] = self._prefix(size)._without([o for o in self.overrides if not o.enabled])
        return found

    def until(self, ts: int) -> ConfigHistory:
        """The history as it was at ``ts`` (microseconds UTC): nothing that came into force later."""
        if ts >= self.in_force_from:
            return self
        return self._prefix(max(0, bisect_right(self._line, ts, 1, self._size + 1, key=lambda h: h.in_force_from) - 1))

    def with_neutral(self, channels: Iterable[str]) -> ConfigHistory:
        """This history with exactly these kill switches on.

        Raises:
            OverrideError: a channel that is not ``dm``, ``strength`` or ``tuning``.
        """
        return self._view(frozenset(channels), self.flags)

    def _prefix(self, size: int) -> ConfigHistory:
        shorter = self._line[size]
        if shorter.neutral_channels == self.neutral_channels and shorter.flags == self.flags:
            return shorter
        if size not in self._views:
            self._views[size] = shorter._view(self.neutral_channels, self.flags)
        return self._views[size]

    def _without(self, muted: Sequence[Override]) -> ConfigHistory:
        """This history as if the lessons of ``muted`` had never acted in it."""
        touched = {o.family for o in muted} & self.families.keys()
        if not touched:
            return self
        lessons = frozenset(o.lesson_id for o in muted)
        view = self._view(self.neutral_channels, self.flags)
        view.overrides = _muted(self.overrides, lessons)
        view.families = {f: v.without(lessons) if f in touched else v for f, v in self.families.items()}
        return view

    def _view(self, channels: frozenset[str], flags: Flags) -> ConfigHistory:
        view = ConfigHistory(self.mode, channels)
        view.current_version, view.in_force_from = self.current_version, self.in_force_from
        view.overrides, view.problems, view.families, view._known = (
            self.overrides,
            self.problems,
            self.families,
            self._known,
        )
        view.flags, view._line, view._size = flags, self._line, self._size
        return view


def _muted(overrides: tuple[Override, ...], lessons: frozenset[str]) -> tuple[Override, ...]:
    return tuple(replace(o, enabled=False) if o.lesson_id in lessons else o for o in overrides)


def _newly_muted(before: tuple[Override, ...], now: tuple[Override, ...]) -> frozenset[str]:
    """Lessons that acted before and are muted now."""
    muted = {o.lesson_id for o in now if not o.enabled}
    return frozenset(o.lesson_id for o in before if o.enabled and o.lesson_id in muted) if muted else EMPTY


def _check_channels(channels: frozenset[str]) -> None:
    unknown = sorted(channels - set(CHANNELS))
    if unknown:
        raise OverrideError(f"unknown channel {unknown[0]!r}; use one of {', '.join(CHANNELS)}", stage="config")


def _read_flags(dm: Any, pm: Any) -> tuple[Flags, tuple[Problem, ...]]:
    problems: list[Problem] = []
    read: dict[str, tuple[bool, tuple[str, ...], tuple[str, ...]]] = {}
    for module, document in (("dm", dm), ("pm", pm)):
        flags = document.get("feature_flags", {}) if isinstance(document, Mapping) else {}
        merged = {**DEFAULT_FLAGS, **flags} if isinstance(flags, Mapping) else {}
        on, regimes, buckets = (merged.get(name) for name in DEFAULT_FLAGS)
        if isinstance(on, bool) and _texts(regimes) and _texts(buckets):
            read[module] = (on, tuple(regimes or ()), tuple(buckets or ()))
        else:
            problems.append(
                Problem(f"{module}.feature_flags", "flags", f"not readable, so {module} overrides are off: {flags!r}")
            )
            read[module] = (False, (), ())
    return Flags(read["dm"][0], read["pm"][0], read["pm"][1], read["pm"][2]), tuple(problems)


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
