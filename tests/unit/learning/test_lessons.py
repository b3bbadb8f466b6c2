"""From fits to rows: what becomes a lesson, with which status, and what a person sees where nothing does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgebook.domain.errors import LearningError
from edgebook.domain.evidence import FamilyFit, StatRow, family_key
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY
from edgebook.domain.scope import scope_hash
from edgebook.learning.config import LearningConfig
from edgebook.learning.edge import total_log
from edgebook.learning.lessons import FamilyInput, build_lessons, claimed, due, lesson_id
from edgebook.learning.posterior import Effect

FAMILY = family_key("pm", S1_ENTRY.key, "entry")


def _build(observations, schema, *, lessons=(), fits=None, now=1000, category="entry", stat=lambda key: None, **config):
    key = family_key("pm", S1_ENTRY.key, category)
    family = FamilyInput("pm", S1_ENTRY.key, category, observations, stat)
    return build_lessons(
        "pm", {key: family}, fits or {}, lessons, now, LearningConfig(**config), schemas={"pm": schema, "dm": schema}
    )


def _at(built, **scope):
    return next((x for x in built.lessons if dict(x.scope_values) == scope), None)


def test_planted_edge_becomes_lessons_on_both_sides(make):
    """+1 R: the slice's multiplier is above 1, its siblings' below; all of the strength type with the seed's fields."""
    built = _build(*make.planted(1, effect=1.0))
    lesson = _at(built, d0="v0")

    assert total_log(lesson.effect["capital_levers"]) > 0.05
    assert (lesson.lesson_type, lesson.module, lesson.status, lesson.reason) == (
        "pm_strength",
        "pm",
        "active",
        "claimed",
    )
    assert set(lesson.effect["capital_levers"]) == {"size_mult", "entry_aggression_mult", "exit_aggression_mult"}
    assert {"edge_raw", "n", "avg_rr", "variance", "time_efficiency", "effect", "effect_total", "se", "lfsr", "n_eff",
    "lr",
            "half_life_hours"} <= set(lesson.stats)  # fmt: skip
    assert any(total_log(x.effect["capital_levers"]) < 0 for x in built.lessons)
    assert lesson.stats["n"] == 100
    assert lesson.decay_halflife_hours == 720.0
    assert built.fits[0].acts
    assert built.fits[0].n == 600
    assert built.counts["acting"] == 1
    assert all(abs(x.stats["log_target"]) >= 0.002 for x in built.lessons)


def test_a_silent_family_shows_one_row_that_says_why(make):
    """Noise: a single neutral candidate at the root with the reason and the evidence."""
    built = _build(*make.planted(2, size=0))
    (row,) = built.lessons

    assert (row.status, row.reason, dict(row.scope_values)) == ("candidate", "no_variance", {})
    assert total_log(row.effect["capital_levers"]) == 0.0
    assert row.stats["lr"]
    assert max(row.stats["lr"].values()) < 2.0


def test_upserts_keep_created_at_and_bump_the_version(make):
    """The same slice at the next build is the same row: same id, older created_at, higher version."""
    observations, schema = make.planted(1, effect=1.0)
    first = _build(observations[:500], schema, now=10)
    second = _build(observations, schema, now=20, lessons=first.lessons, fits={FAMILY: first.fits[0]})
    a, b = _at(first, d0="v0"), _at(second, d0="v0")

    assert a.id == b.id == lesson_id("pm_strength", "pm", S1_ENTRY.key, "entry", (("d0", "v0"),))
    assert (b.created_at, b.lesson_version, b.last_validated) == (10, a.lesson_version + 1, 20)
    assert b.evidence_at == max(o.ts for o in observations if o.scope["d0"] == "v0") > a.evidence_at


def test_lessons_that_no_longer_hold_are_deprecated(make):
    """When the family falls silent its rows stay, deprecated, with the reason."""
    observations, schema = make.planted(1, effect=1.0)
    first = _build(observations, schema)
    noise, _ = make.planted(2, size=0)
    second = _build(noise, schema, lessons=first.lessons)
    gone = {x.id: x for x in second.lessons if x.status == "deprecated"}

    assert set(gone) == {x.id for x in first.lessons}
    assert {x.reason for x in gone.values()} == {"no_variance"}
    again = _build(noise, schema, lessons=second.lessons)
    assert [x.status for x in again.lessons] == ["candidate"], "deprecated rows are left alone"


def test_the_silent_row_goes_once_the_family_acts(make):
    """The root row that explained the silence is deprecated, not left to contradict."""
    noise, schema = make.planted(2, size=0)
    silent = _build(noise, schema)
    loud = _build(make.planted(1, effect=1.0)[0], schema, lessons=silent.lessons)
    root = _at(loud)

    assert (root.status, root.reason) == ("deprecated", "family_acts")


def test_a_sign_that_flips_loses_its_claim(make):
    """A claimed slice that turns around is a candidate again, even with strong evidence."""
    observations, schema = make.planted(1, effect=1.0)
    first = _build(observations, schema)
    turned = [replace(o, y=-o.y) for o in observations]
    second = _build(turned, schema, lessons=first.lessons)
    lesson = _at(second, d0="v0")

    assert (lesson.status, lesson.reason) == ("candidate", "sign_flipped")
    assert total_log(lesson.effect["capital_levers"]) == pytest.approx(
        max(-0.6931, lesson.stats["effect"] * 1.0), abs=1e-3
    )


def test_candidates_act_at_half_the_strength_of_claims(make):
    """kappa 1 for candidates, 2 once claimed, on the same effect (decisions 51)."""
    observations, schema = make.planted(5, effect=0.5)
    config = {"gate_on_nats": -1.0}
    claim = _build(observations, schema, claim_lfsr=0.4999, **config)
    never = _build(observations, schema, claim_lfsr=0.0, **config)
    pairs = [
        (x, _at(never, **x.scope_values))
        for x in claim.lessons
        if x.status == "active" and abs(x.stats["log_target"]) > 0.004
    ]

    assert pairs
    for active, candidate in pairs:
        assert (candidate.status, candidate.reason) == ("candidate", "not_claimed")
        assert active.stats["log_target"] == pytest.approx(2 * candidate.stats["log_target"])


def test_claims_correct_for_many_looks_and_need_both_halves():
    """Benjamini-Hochberg over the slices; a slice that one half contradicts is not claimed."""

    def effect(lfsr, confirmed=True):
        return Effect(0.1, 0.05, 10, 10.0, lfsr, 0.1, confirmed, 0)

    made = {(("d", i),): effect(v) for i, v in enumerate((0.001, 0.012, 0.02, 0.9))}
    made[("d", 9),] = effect(0.002, confirmed=False)

    # m = 5, level .05: limits .01 .02 .03 .04 .05 against .001 .002 .012 .02 .9
    assert claimed(made, 0.05) == {(("d", 0),), (("d", 1),), (("d", 2),)}
    assert claimed({(("d", 0),): effect(0.06)}, 0.05) == set()


def test_the_cap_keeps_the_largest(make):
    """At most so many lessons a family, by size of the move."""
    everything = _build(*make.planted(1, effect=1.0))
    few = _build(*make.planted(1, effect=1.0), max_lessons_per_family=2)
    sizes = sorted((abs(x.stats["log_target"]) for x in everything.lessons), reverse=True)

    assert [abs(x.stats["log_target"]) for x in few.lessons] == pytest.approx(sizes[:2])


def test_exit_has_statistics_but_no_lesson(make):
    """Full exits read no lever (decisions 21): a fit is kept so the family is not due again, no row is made."""
    built = _build(*make.planted(1, effect=1.0), category="exit")

    assert built.lessons == ()
    assert built.fits[0].n == 600
    assert not built.fits[0].acts


def test_trims_learn_from_their_own_outcome(make):
    """20 exit outcomes or silence; then exit_aggression_mult alone, from exit_y and not from rr."""
    observations, schema = make.planted(1, effect=0.0)
    own = [
        replace(o, action_category="trim", y=0.0, exit_y=1.0 if o.scope["d1"] == "v1" else 0.0) for o in observations
    ]
    built = _build(own, schema, category="trim")
    few = _build([replace(o, exit_y=None) for o in own[19:]] + own[:19], schema, category="trim")
    levers = _at(built, d1="v1").effect["capital_levers"]

    assert levers["exit_aggression_mult"] > 1.1
    assert levers["size_mult"] == levers["entry_aggression_mult"] == 1.0
    assert [(x.status, x.reason) for x in few.lessons] == [("candidate", "no_exit_outcome")]


def test_modules_do_not_mix(make):
    """dm_alloc only from module dm, pm_strength only from pm."""
    observations, schema = make.planted(1, effect=1.0)
    family = FamilyInput("dm", DM_ALLOCATION.key, "allocation", observations, lambda key: None)
    both = {"pm": schema, "dm": schema}
    key = family_key("dm", DM_ALLOCATION.key, "allocation")
    built = build_lessons("dm", {key: family}, {}, (), 1, schemas=both)

    assert {x.lesson_type for x in built.lessons} == {"dm_alloc"}
    assert all(set(x.effect["capital_levers"]) == {"alloc_mult"} for x in built.lessons)
    assert built.lessons[0].decay_halflife_hours == 1440.0
    with pytest.raises(LearningError, match="is of module dm; this build is for pm"):
        build_lessons("pm", {key: family}, {}, (), 1, schemas=both)


def test_statistics_come_from_the_rows_with_a_fresh_baseline(make):
    """n, mean and variance are the row's; edge_raw uses the root as it is now, not as it was when the row was
    written."""
    observations, schema = make.planted(1, effect=1.0)

    def row(items, n, total):
        stats = {
            "sum_rr": total,
            "avg_rr": total / n,
            "variance": 1.0,
            "win_rate": 0.5,
            "time_efficiency": 1.0,
            "edge_raw": 99.0,
        }
        return StatRow("pm", S1_ENTRY.key, "entry", 0, scope_hash(items), dict(items), n, stats, 0, 0)

    rows = {r.key: r for r in (row((), 90, 9.0), row((("d0", "v0"),), 10, 10.0))}
    stats = _at(_build(observations, schema, stat=rows.get), d0="v0").stats

    assert (stats["n"], stats["avg_rr"], stats["baseline"]) == (10, 1.0, pytest.approx(0.09))
    assert stats["edge_raw"] == pytest.approx(0.91 * 0.25 * 2.3978952727983707 * 2.5 / 3)


def test_refits_need_five_and_five_percent():
    """5 new on nothing; 5 % on many (decisions 18)."""
    fit = FamilyFit(FAMILY, 0, 1000, True, 0.0, {})

    assert [due(None, n) for n in (0, 4, 5)] == [False, False, True]
    assert [due(fit, n) for n in (1005, 1049, 1050)] == [False, False, True]


def test_fits_keep_what_tuning_noted(make):
    """The strength builder does not erase the tuning builder's watermark in the family's row."""
    observations, schema = make.planted(2, size=0)
    old = FamilyFit(FAMILY, 0, 10, False, 0.0, {"tuning_episodes": 7, "groups": []})

    assert _build(observations, schema, fits={FAMILY: old}).fits[0].detail["tuning_episodes"] == 7
