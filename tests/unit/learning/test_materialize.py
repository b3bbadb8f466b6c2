"""Lessons become documents: what is written, what is kept, what is refused, and when a new version is due."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from tests.lessons import DM, NOW, SIZE

from edgebook.domain.decay import HOUR
from edgebook.domain.errors import LearningError
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.levers import LEGACY_NEUTRAL
from edgebook.domain.pattern import DM_ALLOCATION
from edgebook.learning.materialize import materialize
from edgebook.overrides import (
    ConfigHistory,
    apply_allocation_overrides,
    apply_pattern_execution_overrides,
    parse_documents,
)

DM_LESSON = replace(DM, stats={"n": 40, "effect": 0.1, "effect_total": 0.12, "variance": 1.1})
SIZE_LESSON = replace(
    SIZE,
    stats=DM_LESSON.stats,
    effect={"capital_levers": {"size_mult": 0.9, "entry_aggression_mult": 0.96, "exit_aggression_mult": 1.0}},
    status="active",
)
GATE_LESSON = replace(
    SIZE_LESSON,
    id="pm-2",
    lesson_type="pm_tuning",
    scope_values={},
    effect={"execution_levers": {"signal_thresholds": {"ts_min": 0.65}}},
)
ALL = [DM_LESSON, SIZE_LESSON, GATE_LESSON]
NOTHING = ({}, {})


def test_candidates_and_active_lessons_arrive_with_everything_the_runtime_needs():
    """Every field of a lesson that acts reaches its override."""
    made = materialize(ALL, NOTHING, NOW)
    overrides, problems = parse_documents(made.dm, made.pm)
    assert problems == ()
    assert made.changed
    alloc, size, gate = overrides
    assert (alloc.lesson_id, alloc.scope, alloc.targets, alloc.status) == (
        "dm-1",
        (("curator", "early"),),
        {"alloc_mult": 1.2},
        "candidate",
    )
    assert (alloc.half_life_hours, alloc.evidence_at, alloc.created_at, alloc.stats) == (
        1440.0,
        NOW - 9,
        NOW - 5,
        DM_LESSON.stats,
    )
    assert (size.targets, size.status) == ({"size_mult": 0.9, "entry_aggression_mult": 0.96}, "active")
    assert (gate.targets, gate.base_at_fit) == ({"ts_min": 0.65}, {"ts_min": 0.6})
    assert made.counts == {
        "alloc_overrides": 1,
        "pattern_strength_overrides": 1,
        "pattern_overrides": 1,
        "inactive": 0,
        "neutral": 0,
        "refused": 0,
    }
    assert (made.dm["config_version"], made.pm["config_version"], made.version) == (1, 1, 1)


def test_a_materialised_lesson_visibly_acts():
    """From lesson to applied number: the planted multiplier and gate are what the runtime calls return (P: no dead
    lever).
    """
    made = materialize(ALL, NOTHING, NOW)
    history = ConfigHistory.from_versions([ConfigVersion(made.version, NOW, made.dm, made.pm, made.content_hash)])
    at = NOW + 20 * HOUR
    assert apply_allocation_overrides(history, (("curator", "early"),), at).alloc_mult == pytest.approx(1.2, rel=0.01)
    assert apply_pattern_execution_overrides(history, "S1", (), at, "1h").signal_thresholds["ts_min"] == pytest.approx(
        0.65, rel=0.01
    )


def test_only_lessons_that_act_are_written():
    """Deprecated lessons and lessons that want nothing leave empty lists, not stale ones."""
    before = materialize(ALL, NOTHING, NOW)
    gone = [
        replace(DM_LESSON, status="deprecated"),
        replace(SIZE_LESSON, effect={"capital_levers": {"size_mult": 1.0}}),
        replace(GATE_LESSON, effect={"execution_levers": {"signal_thresholds": {"ts_min": 0.6}}}),
    ]
    after = materialize(gone, (before.dm, before.pm), NOW + 1)
    assert (after.dm["alloc_overrides"], after.pm["pattern_strength_overrides"], after.pm["pattern_overrides"]) == (
        [],
        [],
        [],
    )
    assert (after.changed, after.version) == (True, 2)
    assert (after.counts["inactive"], after.counts["neutral"]) == (1, 2)


def test_unchanged_content_makes_no_new_version():
    """Same lessons in any order, later: not changed, the very documents, the same hash and version."""
    first = materialize(ALL, NOTHING, NOW)
    again = materialize(ALL[::-1], (first.dm, first.pm), NOW + 5 * HOUR)
    assert (again.changed, again.version, again.content_hash) == (False, 1, first.content_hash)
    assert (again.dm, again.pm) == (first.dm, first.pm)
    other = materialize([*ALL[1:], replace(DM_LESSON, evidence_at=NOW)], (first.dm, first.pm), NOW + 5 * HOUR)
    assert (other.changed, other.version) == (True, 2)
    assert other.content_hash != first.content_hash


def test_no_lessons_at_the_start_make_no_version():
    """An empty system has empty lists and version 0."""
    made = materialize([], NOTHING, NOW)
    assert (made.changed, made.version) == (False, 0)
    assert (made.dm["alloc_overrides"], made.pm["pattern_overrides"]) == ([], [])
    assert made.pm["feature_flags"]["learning_overrides_enabled"] is True


def test_read_modify_write_keeps_what_belongs_to_others():
    """Unrelated keys and feature flags survive; the inputs are not touched."""
    flags = {"learning_overrides_enabled": False, "learning_overrides_enabled_regimes": ["Good"]}
    previous = ({"mine": {"a": 1}}, {"feature_flags": flags, "yours": 2})
    untouched = copy.deepcopy(previous)
    made = materialize(ALL, previous, NOW)
    assert previous == untouched
    assert (made.dm["mine"], made.pm["yours"], made.pm["feature_flags"]) == ({"a": 1}, 2, flags)


def test_a_muted_lesson_stays_muted():
    """``enabled`` false in the document survives the next materialisation of the same lesson."""
    first = materialize(ALL, NOTHING, NOW)
    dm = copy.deepcopy(dict(first.dm))
    dm["alloc_overrides"][0]["lesson"]["enabled"] = False
    again = materialize([replace(DM_LESSON, evidence_at=NOW), *ALL[1:]], (dm, first.pm), NOW + 1)
    assert again.dm["alloc_overrides"][0]["lesson"]["enabled"] is False
    assert again.pm["pattern_overrides"][0]["lesson"]["enabled"] is True


def test_the_alias_list_does_not_stay_in_force():
    """A stale ``pattern_tuning_overrides`` is replaced by the real list."""
    first = materialize(ALL, NOTHING, NOW)
    old = {"pattern_tuning_overrides": first.pm["pattern_overrides"]}
    made = materialize([], ({}, old), NOW)
    assert made.changed
    assert made.pm["pattern_overrides"] == []
    assert "pattern_tuning_overrides" not in made.pm


def test_targets_are_clamped_to_the_lever_table():
    """P4: a lesson cannot ask for more than the bounds."""
    made = materialize([replace(DM_LESSON, effect={"capital_levers": {"alloc_mult": 5.0}})], NOTHING, NOW)
    assert made.dm["alloc_overrides"][0]["levers"] == {"alloc_mult": 1.3}


def test_alloc_mult_may_stand_alone_in_the_effect():
    """The mission's form ``effect.alloc_mult`` is read too."""
    made = materialize([replace(DM_LESSON, effect={"alloc_mult": 1.1})], NOTHING, NOW)
    assert made.dm["alloc_overrides"][0]["levers"] == {"alloc_mult": 1.1}


LEGACY = [{"signal_thresholds": {"ts_min": 0.7}, name: 2.0} for name in sorted(LEGACY_NEUTRAL)]


@pytest.mark.parametrize(
    "bad",
    [
        replace(DM_LESSON, scope_values={"A_mode": "normal"}),
        replace(DM_LESSON, scope_values={"curator": "Unknown"}),
        replace(DM_LESSON, module="pm"),
        replace(DM_LESSON, lesson_type="dm_size"),
        replace(DM_LESSON, decay_halflife_hours=0.0),
        replace(DM_LESSON, effect={"capital_levers": {"size_mult": 1.2}}),
        replace(DM_LESSON, effect={"capital_levers": {"alloc_mult": float("nan")}}),
        replace(SIZE_LESSON, scope_values={"curator": "early"}),
        replace(SIZE_LESSON, pattern_key=DM_ALLOCATION.key),
        replace(SIZE_LESSON, action_category="hold"),
        replace(SIZE_LESSON, effect={"capital_levers": {"size_mult": 1.2, "exit_aggression_mult": 1.1}}),
        replace(GATE_LESSON, effect={"execution_levers": {"signal_thresholds": {"halo_multiplier": 1.1}}}),
        replace(GATE_LESSON, effect={"execution_levers": {"signal_thresholds": {"dx_min": 0.5}}}),
        *(replace(GATE_LESSON, effect={"execution_levers": levers}) for levers in LEGACY),
    ],
)
def test_a_lesson_outside_its_table_is_refused_and_reported(bad):
    """P8, P9: leaks, unknown, foreign and legacy levers never reach a document; the other lessons do."""
    good = replace(SIZE_LESSON, id="good")
    made = materialize([bad, good], NOTHING, NOW)
    assert [lesson_id for lesson_id, reason in made.refused if reason] == [bad.id]
    assert made.counts["refused"] == 1
    assert [o.lesson_id for o in parse_documents(made.dm, made.pm)[0]] == ["good"]


def test_two_lessons_with_one_id_are_an_error():
    """Ids are the identity of a lesson; the job must fail rather than drop one."""
    with pytest.raises(LearningError, match="two lessons have the id pm-1"):
        materialize([SIZE_LESSON, SIZE_LESSON], NOTHING, NOW)
