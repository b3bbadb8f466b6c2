"""A lesson of each module, for tests of what is done with lessons."""

from __future__ import annotations

from dataclasses import replace

from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import Lesson
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY

NOW = 400_000 * HOUR
DM = Lesson(
    id="dm-1",
    module="dm",
    lesson_type="dm_alloc",
    pattern_key=DM_ALLOCATION.key,
    action_category="allocation",
    scope_values={"curator": "early"},
    effect={"capital_levers": {"alloc_mult": 1.2}},
    stats={"n": 40},
    lesson_strength=0.1,
    decay_halflife_hours=1440.0,
    status="candidate",
    reason="",
    created_at=NOW - 5,
    last_validated=NOW,
    evidence_at=NOW - 9,
)
SIZE = replace(
    DM,
    id="pm-1",
    module="pm",
    lesson_type="pm_strength",
    pattern_key=S1_ENTRY.key,
    action_category="entry",
    scope_values={"macro_phase": "Good"},
    effect={"capital_levers": {"size_mult": 0.9}},
)
