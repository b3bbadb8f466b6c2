"""Documents of ``learning_configs``: shapes, leaks, and what is not believed."""

from __future__ import annotations

import copy
import json

import pytest

from edgebook.domain.errors import OverrideError
from edgebook.overrides.record import (
    Override,
    content_hash,
    dump_documents,
    legal_targets,
    parse_documents,
)

ALLOCATION = "module=dm|pattern_key=dm_pattern.allocation.allocation"
S1 = "module=pm|pattern_key=uptrend.S1.buy_flag"
DM = {
    "alloc_overrides": [
        {
            "pattern_key": ALLOCATION,
            "action_category": "allocation",
            "scope": {"curator": "x", "chain": "base"},
            "scope_dims": ["chain", "curator"],
            "levers": {"alloc_mult": 1.06},
            "stats": {"edge_raw": 1.4, "n": 37, "variance": 0.45, "effect": 0.21},
            "lesson": {
                "id": "a",
                "strength": 0.07,
                "decay_halflife_hours": 1440.0,
                "enabled": True,
                "created_at": 1_000,
                "evidence_at": 2_000,
                "latent_factor_id": None,
            },
            "lesson_type": "dm_alloc",
            "status": "candidate",
        }
    ],
    "override_updated_at": 5,
    "config_version": 12,
}
LESSON = {"strength": 0.0, "decay_halflife_hours": 720.0, "enabled": True, "created_at": 0, "evidence_at": 0}
PM = {
    "pattern_strength_overrides": [
        {
            "pattern_key": S1,
            "action_category": "entry",
            "scope": {"macro_phase": "Good", "bucket_rank_position": 2},
            "levers": {"size_mult": 1.04, "entry_aggression_mult": 1.04, "exit_aggression_mult": 1.0},
            "stats": {},
            "lesson": {**LESSON, "id": "b"},
            "lesson_type": "pm_strength",
            "status": "active",
        }
    ],
    "pattern_overrides": [
        {
            "pattern_key": S1,
            "action_category": "entry",
            "scope": {},
            "levers": {"signal_thresholds": {"ts_min": 0.63, "halo": 0.9}},
            "stats": {},
            "lesson": {**LESSON, "id": "c"},
            "lesson_type": "pm_tuning",
            "base_at_fit": {"ts_min": 0.6, "halo": 1.0},
        }
    ],
    "feature_flags": {"learning_overrides_enabled": True},
}


def changed(document, list_name, **fields):
    """``document`` with fields of the first item of a list replaced."""
    new = copy.deepcopy(document)
    new[list_name][0].update(fields)
    return new


def kinds(dm, pm):
    return [problem.kind for problem in parse_documents(dm, pm)[1]]


def test_reads_the_documented_shapes():
    """Each list of learning.md 6 becomes its lesson type with canonical scope and targets."""
    overrides, problems = parse_documents(DM, PM)
    alloc, strength, tuning = overrides
    assert problems == ()
    assert (alloc.lesson_id, alloc.scope, alloc.targets) == (
        "a",
        (("curator", "x"), ("chain", "base")),
        {"alloc_mult": 1.06},
    )
    assert (alloc.status, alloc.half_life_hours, alloc.evidence_at, alloc.stats["n"]) == (
        "candidate",
        1440.0,
        2_000,
        37,
    )
    assert strength.targets == {"size_mult": 1.04, "entry_aggression_mult": 1.04}
    assert strength.scope == (("macro_phase", "Good"), ("bucket_rank_position", 2))
    assert (tuning.targets, tuning.base_at_fit) == ({"ts_min": 0.63, "halo": 0.9}, {"ts_min": 0.6, "halo": 1.0})


def test_writes_the_documented_shape():
    """A dumped item is the documented one, key for key."""
    dm, _ = dump_documents(parse_documents(DM, {})[0], previous=(DM, {}), updated_at=5, version=12)
    assert dm == DM


def test_tuning_alias_is_read_only_when_the_real_list_is_absent():
    """``pattern_tuning_overrides`` is a read alias, second to ``pattern_overrides``, and is not written."""
    alias = {"pattern_tuning_overrides": PM["pattern_overrides"]}
    both = {"pattern_overrides": [], **alias}
    assert [o.lesson_id for o in parse_documents({}, alias)[0]] == ["c"]
    assert parse_documents({}, both)[0] == ()
    assert "pattern_tuning_overrides" not in dump_documents([], previous=({}, alias))[1]


def test_lists_without_lessons_are_written_empty_and_unrelated_keys_stay():
    """Nothing stale stays in force; what belongs to others is not touched."""
    dm, pm = dump_documents([], previous=({**DM, "mine": 1}, {**PM, "yours": [2]}), updated_at=9, version=13)
    assert dm == {"alloc_overrides": [], "mine": 1, "override_updated_at": 9, "config_version": 13}
    assert (pm["pattern_strength_overrides"], pm["pattern_overrides"], pm["yours"]) == ([], [], [2])
    assert pm["feature_flags"] == {"learning_overrides_enabled": True}


def test_no_dm_fact_in_pm_and_no_pm_fact_in_dm():
    """P9: a dimension, pattern key or lesson type of the other module is a leak, and the item does not act."""
    strength = "pattern_strength_overrides"
    for dim in ("curator", "chain", "mcap_bucket", "vol_bucket", "age_bucket", "intent", "mapping_confidence"):
        assert kinds(DM, changed(PM, strength, scope={"macro_phase": "Good", dim: "x"})) == ["leak"]
    for dim in ("A_mode", "E_mode", "timeframe", "market_family", "bucket"):
        assert kinds(changed(DM, "alloc_overrides", scope={dim: "x"}), PM) == ["leak"]
    assert kinds(DM, changed(PM, strength, pattern_key=ALLOCATION)) == ["leak"]
    assert kinds(changed(DM, "alloc_overrides", lesson_type="pm_strength"), PM) == ["leak"]
    assert kinds(DM, changed(PM, strength, levers={"alloc_mult": 1.2})) == ["lever"]
    assert [o.lesson_id for o in parse_documents(DM, changed(PM, strength, scope={"chain": "base"}))[0]] == ["a", "c"]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"levers": {"size_mul": 1.1}}, "lever"),
        ({"levers": {"ts_min": 0.6}}, "lever"),
        ({"levers": {"size_mult": 1.1, "exit_aggression_mult": 1.1}}, "lever"),
        ({"levers": {}}, "lever"),
        ({"levers": {"size_mult": "1.1"}}, "item"),
        ({"levers": {"size_mult": True}}, "item"),
        ({"levers": {"size_mult": float("nan")}}, "item"),
        ({"levers": {"size_mult": -1.0}}, "item"),
        ({"levers": {"size_mult": 10**400}}, "item"),
        ({"levers": [1]}, "item"),
        ({"levers": {"trail_mult": 2.0}}, "legacy"),
        ({"scope": {"macro_phase": "Unknown"}}, "item"),
        ({"scope": {"bucket_rank_position": 1.0}}, "item"),
        ({"scope": {"bucket_rank_position": True}}, "item"),
        ({"scope": None}, "item"),
        ({"action_category": "hold"}, "item"),
        ({"action_category": "exit", "levers": {"size_mult": 1.0}}, "lever"),
        ({"status": "deprecated"}, "item"),
        ({"pattern_key": 3}, "item"),
        ({"lesson": None}, "item"),
        ({"lesson": {**LESSON, "id": ""}}, "item"),
        ({"lesson": {**LESSON, "id": "b", "decay_halflife_hours": 0}}, "item"),
        ({"lesson": {**LESSON, "id": "b", "evidence_at": "2026-01-01"}}, "item"),
        ({"lesson": {**LESSON, "id": "b", "evidence_at": 10**30}}, "item"),
        ({"lesson": {**LESSON, "id": "b", "enabled": "yes"}}, "item"),
        ({"lesson": {**LESSON, "id": "b", "pinned_at": "now"}}, "item"),
        ({"stats": 1}, "item"),
        ({"base_at_fit": 1}, "item"),
    ],
)
def test_an_item_that_cannot_be_believed_is_skipped_and_reported(fields, kind):
    """P5: the bad item is reported once and does not act; its neighbours do."""
    overrides, problems = parse_documents(DM, changed(PM, "pattern_strength_overrides", **fields))
    assert [o.lesson_id for o in overrides] == ["a", "c"]
    assert [(p.where, p.kind) for p in problems] == [("pm.pattern_strength_overrides[0]", kind)]
    assert problems[0].detail


@pytest.mark.parametrize("document", [None, [], "x", {"alloc_overrides": {}}, {"alloc_overrides": [None, 1, "x", []]}])
def test_a_document_that_is_no_document_is_empty_and_reported(document):
    """P5: wrong types at the top are problems too, never errors."""
    overrides, problems = parse_documents(document, {})
    assert overrides == ()
    assert problems
    assert {p.kind for p in problems} == {"item"}


def test_a_target_out_of_bounds_acts_at_the_bound():
    """P4: a config cannot ask for more than the table allows; the clamp is reported."""
    overrides, problems = parse_documents(changed(DM, "alloc_overrides", levers={"alloc_mult": 9}), {})
    assert overrides[0].targets == {"alloc_mult": 1.3}
    assert [p.kind for p in problems] == ["bounds"]


def test_a_lesson_listed_twice_counts_once():
    """A duplicated item cannot double its effect."""
    twice = {"alloc_overrides": DM["alloc_overrides"] * 2}
    overrides, problems = parse_documents(twice, {})
    assert [o.lesson_id for o in overrides] == ["a"]
    assert [(p.kind, p.lesson_id) for p in problems] == [("duplicate", "a")]


def test_legal_targets_say_what_would_be_right():
    """The error names the lever and the list."""
    with pytest.raises(OverrideError, match="'halo_multiplier' is not a lever of pm_tuning"):
        legal_targets("pm_tuning", "entry", {"halo_multiplier": 1.0})


def test_content_hash_ignores_time_and_version_only():
    """Equal content has one hash whatever the time and version; any other change has another."""
    same = content_hash({**DM, "override_updated_at": 6, "config_version": 13}, PM)
    assert same == content_hash(DM, PM)
    assert content_hash({}, {}) == content_hash(*dump_documents([]))
    assert content_hash({**DM, "mine": 1}, PM) != same
    assert content_hash(changed(DM, "alloc_overrides", levers={"alloc_mult": 1.07}), PM) != same


def test_content_hash_survives_a_round_trip_through_json():
    """What the database gives back has the hash of what was written."""
    dm, pm = dump_documents(parse_documents(DM, PM)[0], previous=(DM, PM))
    assert content_hash(*json.loads(json.dumps([dm, pm]))) == content_hash(dm, pm)


def test_numbers_json_cannot_hold_are_refused_when_written():
    """NaN never travels."""
    nan = Override(
        "l", "dm_alloc", ALLOCATION, "allocation", (), {"alloc_mult": 1.1}, 1.0, 0, stats={"se": float("nan")}
    )
    with pytest.raises(OverrideError, match="cannot be written as JSON"):
        content_hash(*dump_documents([nan]))
