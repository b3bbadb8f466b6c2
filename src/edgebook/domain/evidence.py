"""Rows of the learning side and of operations: observations, statistics, lessons, configs, job runs, dead letters.

All but job runs and dead letters are projections of the log: replaying the learning jobs at their ``job_completed``
strands makes them again, equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgebook.domain.scope import ScopeValue

ScopeDict = Mapping[str, ScopeValue]


def family_key(module: str, pattern_key: str, action_category: str) -> str:
    """Key of a family: all slices of one (module, pattern key, category)."""
    return f"{module}|{pattern_key}|{action_category}"


def split_family(key: str) -> tuple[str, str, str]:
    """Module, pattern key and category of a family key (the pattern key itself holds a ``|``).

    >>> split_family("pm|module=pm|pattern_key=uptrend.S1.buy_flag|entry")
    ('pm', 'module=pm|pattern_key=uptrend.S1.buy_flag', 'entry')
    """
    module, _, rest = key.partition("|")
    pattern_key, _, category = rest.rpartition("|")
    return module, pattern_key, category


@dataclass(frozen=True, slots=True)
class Observation:
    """One unit of evidence: a trade under one (pattern key, category), or a decision for dm (decisions 5, 41).

    ``y`` is rr; ``day`` is the entry day (days since 1970); ``exit_y`` is the trim's own outcome where known;
    ``weight`` is 1 for pm and the share of the allocation that has closed for dm.
    """

    module: str
    pattern_key: str
    action_category: str
    unit_id: str
    ts: int
    opened_at: int
    y: float
    roi: float
    pnl_usd: float
    weight: float
    token: str
    day: int
    scope: ScopeDict
    hold_days: float
    time_efficiency: float
    n_actions: int = 1
    holdout: bool = False
    exit_y: float | None = None
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """Family key."""
        return family_key(self.module, self.pattern_key, self.action_category)

    @property
    def key(self) -> str:
        """Row key: one observation per family and unit."""
        return f"{self.family}|{self.unit_id}"


@dataclass(frozen=True, slots=True)
class StatRow:
    """One row of ``pattern_scope_stats``: a slice of a family (learning.md 3)."""

    module: str
    pattern_key: str
    action_category: str
    scope_mask: int
    scope_hash: str
    scope_values: ScopeDict
    n: int
    stats: Mapping[str, Any]
    created_at: int
    updated_at: int

    @property
    def family(self) -> str:
        """Family key."""
        return family_key(self.module, self.pattern_key, self.action_category)

    @property
    def key(self) -> str:
        """Row key."""
        return f"{self.family}|{self.scope_hash}"


@dataclass(frozen=True, slots=True)
class FamilyFit:
    """Last fit of a family: variance components, evidence for them, and whether it acts (decisions 16, 18, 53)."""

    family: str
    fitted_at: int
    n: int
    acts: bool
    mean: float
    detail: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Row key."""
        return self.family


@dataclass(frozen=True, slots=True)
class Lesson:
    """One row of ``learning_lessons`` (learning.md 5). ``reason`` says why it does or does not act."""

    id: str
    module: str
    lesson_type: str
    pattern_key: str
    action_category: str
    scope_values: ScopeDict
    effect: Mapping[str, Any]
    stats: Mapping[str, Any]
    lesson_strength: float
    decay_halflife_hours: float
    status: str
    reason: str
    created_at: int
    last_validated: int
    evidence_at: int
    lesson_version: int = 1
    latent_factor_id: str = ""

    @property
    def key(self) -> str:
        """Row key."""
        return self.id

    @property
    def family(self) -> str:
        """Family key."""
        return family_key(self.module, self.pattern_key, self.action_category)


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """The current document of one module in ``learning_configs``."""

    module_id: str
    config_data: Mapping[str, Any]
    config_version: int
    updated_at: int
    updated_by: str = "learning_system"

    @property
    def key(self) -> str:
        """Row key."""
        return self.module_id


@dataclass(frozen=True, slots=True)
class ConfigVersion:
    """One version of both documents, append-only in ``learning_config_versions``; in force from ``in_force_from``."""

    version: int
    in_force_from: int
    dm: Mapping[str, Any]
    pm: Mapping[str, Any]
    content_hash: str

    @property
    def key(self) -> str:
        """Row key, sortable."""
        return f"{self.version:010d}"


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a consumer has read the log; saved in the same transaction as what it made of it."""

    consumer: str
    seq: int
    at: int = 0

    @property
    def key(self) -> str:
        """Row key."""
        return self.consumer


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job; ``idle_slots`` counts later slots that found nothing to read (decisions 35)."""

    name: str
    slot: int
    status: str
    counts: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    idle_slots: int = 0
    last_slot: int = 0

    @property
    def key(self) -> str:
        """Row key."""
        return f"{self.name}|{self.slot}"


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about the database itself, e.g. the hash of the settings it was written under."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Something that could not be processed, kept with the reason (architecture law 7)."""

    id: str
    stage: str
    reason: str
    content: str
    ts: int
    correlation_id: str = ""

    @property
    def key(self) -> str:
        """Row key."""
        return self.id
