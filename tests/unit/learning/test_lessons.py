"""From fits to rows: what becomes a lesson, with which status, and what a person sees where nothing does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import LearningError
from edgebook.domain.evidence import FamilyFit, StatRow, family_key
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY
from edgebook.domain.scope import scope_hash
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.edge import total_log
from edgebook.learning.effects import claimed
from edgebook.learning.lessons import FamilyInput, build_lessons, due, lesson_id
from edgebook.learning.materialize import materialize
from edgebook.learning.posterior import fit_family
from edgebook.learning.table import TradeTable
from edgebook.overrides.match import conviction
from edgebook.overrides.record import parse_documents

FAMILY = family_key("pm", S1_ENTRY.key, "entry")


def _build(observations, schema, *, lessons=(), fits=None, now=1000, category="entry", stat=lambda key: None, **config):
    key = family_key("pm", S1_ENTRY.key, category)
    trades = observations if isinstance(observations, TradeTable) else TradeTable.of(observations, schema)
    family = FamilyInput("pm", S1_ENTRY.key, category, trades, stat)
    return build_lessons(
        "pm", {key: family}, fits or {}, lessons, now, LearningConfig(**config), schemas={"pm": schema, "dm": schema}
    )


def _at(built, **scope):
    return next((x for x in built.lessons if dict(x.scope_values) == scope), None)


def _documents(lessons, schema):
    return materialize(lessons, ({}, {}), 0, schemas={"pm": schema, "dm": schema})


def _crossed(make, **options):
    """+1 R where d1 and d2 are v0 and on d0=v0: dims and cells act."""
    table, schema = make.trades(4, effect=1.0, **{"n": 1500, "size": 250, "sd": 1.0, **options})
    return replace(table, y=table.y + 1.5 * table.inside((("d1", "v0"), ("d2", "v0")))), schema


def test_planted_edge_becomes_lessons_on_both_sides(make):
    """+1 R: the slice's multiplier is above 1, its siblings' below; all of the strength type with the seed's fields."""
    trades, schema = make.planted(1, effect=1.0)
    built = _build(trades, schema)
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
            "half_life_hours", "kappa", "conviction", "log_e", "confirmed"} <= set(lesson.stats)  # fmt: skip
    assert any(total_log(x.effect["capital_levers"]) < 0 for x in built.lessons)
    assert lesson.stats["n"] == 100
    span = (max(o.ts for o in trades) - min(o.ts for o in trades)) / HOUR
    assert lesson.decay_halflife_hours == lesson.stats["half_life_hours"] == pytest.approx(span), "it stood that long"
    assert built.fits[0].acts
    assert built.fits[0].n == 600
    assert built.counts["acting"] == 1
    assert all(abs(x.stats["log_target"]) >= 0.002 for x in built.lessons)


def test_a_silent_family_shows_rows_that_say_why(make):
    """Noise: a neutral candidate at the root with the reason and the evidence, and neutral rows for what stood out
    most, each with the effect it would have."""
    table, schema = make.trades(2, size=0)
    built = _build(table, schema)
    root, *rest = built.lessons

    assert (root.status, root.reason, dict(root.scope_values)) == ("candidate", "no_variance", {})
    assert root.stats["lr"]
    assert max(root.stats["lr"].values()) < 2.0
    assert root.stats["n"] == 600
    assert len(rest) == DEFAULT.rejected_rows
    assert {tuple(row.scope_values.items()) for row in rest} == set(fit_family(table, schema).rejected)
    for row in built.lessons:
        assert (row.status, row.reason) == ("candidate", "no_variance")
        assert set(row.effect["capital_levers"].values()) == {1.0}
        assert row.stats["log_target"] == 0.0
        assert row.stats["conviction"] == 1.0
    for row in rest:
        assert row.stats["effect"] != 0.0
        assert 0 < row.stats["lfsr"] < 0.5
        assert row.stats["n"] == table.inside(tuple(row.scope_values.items())).sum()


def test_rows_of_a_silent_family_never_reach_the_documents(make):
    """Materialized they are counted as neutral: no override, whatever they would have been."""
    table, schema = make.trades(2, size=0)
    made = _documents(_build(table, schema).lessons, schema)

    assert made.counts["neutral"] == 1 + DEFAULT.rejected_rows
    assert made.refused == ()
    assert [document[name] for document, name in (
        (made.dm, "alloc_overrides"), (made.pm, "pattern_strength_overrides"), (made.pm, "pattern_overrides"))
    ] == [[], [], []]  # fmt: skip
    loud, schema = make.trades(1, effect=1.0)
    lessons = _build(loud, schema).lessons
    assert _documents(lessons, schema).counts["pattern_strength_overrides"] == len(lessons) > 0


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

    shown = {x.id for x in second.lessons if x.status == "candidate"}
    assert set(gone) == {x.id for x in first.lessons} - shown
    assert _at(second, d0="v0").status == "deprecated"
    assert all(set(x.effect["capital_levers"].values()) == {1.0} for x in second.lessons if x.id in shown)
    assert {x.reason for x in gone.values()} == {"no_variance"}
    assert all(x.lesson_version == 2 and x.created_at == 1000 for x in gone.values())
    again = _build(noise, schema, lessons=second.lessons)
    assert {x.status for x in again.lessons} == {"candidate"}, "deprecated rows are left alone"


def test_one_slice_through_its_life(make):
    """candidate, active, deprecated, candidate: one row with one id, created once, its version raised each time."""
    loud, schema = make.trades(1, effect=1.0)
    noise, _ = make.trades(2, size=0)
    stages = [(loud, 1e-12, "candidate"), (loud, 0.1, "active"), (noise, 0.1, "deprecated"), (loud, 1e-12, "candidate")]
    rows = {}
    for at, (table, alpha, status) in enumerate(stages, 1):
        built = _build(table, schema, lessons=rows.values(), now=at, claim_alpha=alpha)
        for row in built.lessons:
            before = rows.get(row.id)
            assert row.lesson_version == (before.lesson_version + 1 if before else 1)
            assert row.created_at == (before.created_at if before else at)
            assert row.last_validated == at
        assert len({row.id for row in built.lessons}) == len(built.lessons)
        rows |= {row.id: row for row in built.lessons}
        (lesson,) = [row for row in rows.values() if dict(row.scope_values) == {"d0": "v0"}]
        assert (lesson.status, lesson.created_at, lesson.lesson_version) == (status, 1, at)


def test_the_silent_rows_go_once_the_family_acts(make):
    """The root row that explained the silence gives the mean back, or is deprecated where there is nothing to give;
    no row is left to contradict."""
    noise, schema = make.planted(2, size=0)
    silent = _build(noise, schema)
    trades = make.planted(1, effect=1.0)[0]
    loud = _build(trades, schema, lessons=silent.lessons)
    even = _build(trades, schema, lessons=silent.lessons, kappa_candidate_per_r=2.0)
    (root,), (gone,) = ([x for x in built.lessons if not x.scope_values] for built in (loud, even))

    assert (root.status, root.reason) == ("candidate", "centre")
    assert (gone.status, gone.reason) == ("deprecated", "family_acts")
    for built in (loud, even):
        assert {x.reason for x in built.lessons} <= {"claimed", "not_claimed", "centre", "family_acts",
                                                     "below_min_effect", "no_variance"}  # fmt: skip
        assert {x.id for x in silent.lessons} <= {x.id for x in built.lessons}
        assert all(x.status == "deprecated" for x in built.lessons if x.reason == "no_variance")


def test_a_sign_that_flips_loses_its_claim(make):
    """A claimed slice that turns around is a candidate again, even with strong evidence, and acts as one."""
    observations, schema = make.planted(1, effect=1.0)
    first = _build(observations, schema)
    turned = [replace(o, y=-o.y) for o in observations]
    second = _build(turned, schema, lessons=first.lessons)
    lesson = _at(second, d0="v0")

    assert (_at(first, d0="v0").status, _at(_build(turned, schema), d0="v0").status) == ("active", "active")
    assert (lesson.status, lesson.reason) == ("candidate", "sign_flipped")
    assert lesson.stats["kappa"] == pytest.approx(DEFAULT.kappa(False, lesson.stats["lfsr"]), abs=1e-3)
    assert lesson.stats["log_target"] == pytest.approx(
        max(math.log(0.5), lesson.stats["effect"] * lesson.stats["kappa"])
    )


def test_candidates_act_at_half_the_strength_of_claims(make):
    """kappa 1 for candidates in doubt, 2 once claimed, and between with the certainty of the sign, on the same effect
    (decisions 51, amended)."""
    table, schema = make.trades(0, effect=0.5)
    known = {"gate_on_nats": -1.0, "kappa_family_nats": 0.0}
    claim = _build(table, schema, **known, claim_alpha=1e6)
    never = _build(table, schema, **known, claim_alpha=1e-12)
    faint = _build(table, schema, **known | {"kappa_family_nats": 1e6}, claim_alpha=1e-12)
    doubt = _build(table, schema, gate_on_nats=-1.0, claim_alpha=1e-12, kappa_full_lfsr=1e-12)
    active = [x for x in claim.lessons if x.status == "active"]

    assert active
    assert {x.status for x in never.lessons} == {"candidate"}
    for lesson in active:
        one, other = _at(never, **lesson.scope_values), _at(doubt, **lesson.scope_values)
        assert (lesson.stats["kappa"], one.reason) == (2.0, "not_claimed")
        assert one.stats["effect"] == other.stats["effect"] == lesson.stats["effect"]
        assert one.stats["kappa"] == pytest.approx(2.0 - min(1.0, lesson.stats["lfsr"] / 0.05))
        assert other.stats["kappa"] == 1.0
        wanted = 2 * other.stats["log_target"] * other.stats["conviction"]
        assert lesson.stats["log_target"] * lesson.stats["conviction"] == pytest.approx(wanted)
    assert {x.stats["kappa"] for x in faint.lessons} == {1.0}, "a family without clear evidence is in doubt as a whole"
    kappas = {x.stats["kappa"] for x in never.lessons if x.scope_values}
    assert 1.0 <= min(kappas) < 1.5 < max(kappas) <= 2.0


def test_claims_are_those_of_the_guard(make):
    """Active are exactly the slices that e-BH on the fit's evidence passes and later trades confirm."""
    table, schema = _crossed(make)
    found = claimed(fit_family(table, schema).effects, DEFAULT.claim_alpha)
    lessons = _build(table, schema).lessons

    assert {tuple(x.scope_values.items()) for x in lessons if x.status == "active"} == found
    assert 2 <= len(found) < len(lessons)
    assert all(x.stats["confirmed"] for x in lessons if x.status == "active")


def test_the_cap_keeps_the_largest(make):
    """At most so many lessons a family, by size of the move; what gives the mean back is among them."""
    everything = _build(*make.planted(1, effect=1.0))
    few = _build(*make.planted(1, effect=1.0), max_lessons_per_family=3)
    sizes = sorted((abs(x.stats["log_target"]) for x in everything.lessons if x.scope_values), reverse=True)
    kept = sorted((abs(x.stats["log_target"]) for x in few.lessons if x.scope_values), reverse=True)

    assert len(few.lessons) == 3
    assert _at(few).reason == "centre"
    assert kept == pytest.approx(sizes[:2])


# ------------------------------------------------------------------ size of the moves


def _average(lessons, table):
    """Mean over the trades of the log multipliers of all lessons that match, before clamping, conviction counted."""
    total = np.zeros(len(table))
    for lesson in lessons:
        pull = total_log(lesson.effect["capital_levers"]) * lesson.stats["conviction"]
        total += pull * table.inside(tuple(lesson.scope_values.items()))
    return float(total.mean())


WORLDS = {
    "dims": lambda make: make.trades(1, effect=1.0),
    "cells": _crossed,
    "beyond the bounds": lambda make: make.trades(3, effect=-3.0),
    "absent values": lambda make: _holes(*make.trades(6, effect=1.0)),
}


def _holes(table, schema):
    rng = np.random.default_rng(0)
    dims = {dim: (levels, np.where(rng.random(len(table)) < 0.2, -1, codes)) for dim, (levels, codes) in
            table.dims.items()}  # fmt: skip
    return replace(table, dims=dims), schema


@pytest.mark.parametrize("world", WORLDS)
def test_a_family_keeps_its_mean(make, world):
    """The average log multiplier of a family over its own trades is 0, however its lessons were certain, clipped or
    claimed."""
    table, schema = WORLDS[world](make)
    lessons = _build(table, schema).lessons

    assert len(lessons) > 4
    assert {-1.0, 1.0} == {math.copysign(1.0, x.stats["log_target"]) for x in lessons}
    assert _average(lessons, table) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("world", WORLDS)
def test_a_family_keeps_its_mean_where_nothing_is_left_out(make, world):
    """The same with lessons of every size."""
    table, schema = WORLDS[world](make)

    assert _average(_build(table, schema, min_log_target=0.0).lessons, table) == pytest.approx(0.0, abs=1e-9)


def test_conviction_is_how_far_beyond_the_bound_a_lesson_goes(make):
    """1 within the bounds; beyond them the move times conviction is kappa times effect; and it reaches the override
    that is matched."""
    table, schema = make.trades(3, effect=-3.0)
    lessons = _build(table, schema).lessons
    overrides = {
        o.lesson_id: o
        for o in parse_documents(*[getattr(_documents(lessons, schema), m) for m in ("dm", "pm")],
                                 schemas={"pm": schema, "dm": schema})[0]
    }  # fmt: skip
    assert overrides.keys() == {x.id for x in lessons}
    for lesson in lessons:
        stats = lesson.stats
        kappa = stats["kappa"]
        assert stats["log_target"] * stats["conviction"] == pytest.approx(kappa * stats["effect"], abs=1e-12)
        inside = math.log(0.5) <= kappa * stats["effect"] <= math.log(1.5)
        assert (stats["conviction"] == pytest.approx(1.0)) == inside
        assert conviction(overrides[lesson.id]) == pytest.approx(min(10.0, stats["conviction"]))
    assert max(x.stats["conviction"] for x in lessons) > 2


def test_lessons_that_are_stale_go(make):
    """Three half-lives after its last trade a slice has no lesson, and what the others take from the mean is given
    back without it."""
    table, schema = make.trades(1, effect=1.0)
    newest = int(table.closed_at.max())
    half_life = _at(_build(table, schema, now=newest), d0="v0").decay_halflife_hours
    late = _build(table, schema, now=newest + int(2.9 * half_life * HOUR))
    gone = _build(table, schema, now=newest + int(3.1 * half_life * HOUR) + 10 * DAY, lessons=late.lessons)

    assert _at(late, d0="v0").status == "active"
    assert {x.status for x in gone.lessons if x.scope_values} == {"deprecated"}
    (root,) = (x for x in gone.lessons if not x.scope_values)
    assert (root.status, root.reason, root.stats["log_target"]) == ("candidate", "nothing_left", 0.0)


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
    nothing = _build(replace(TradeTable.of(own, schema), exit_y=None), schema, category="trim")
    levers = _at(built, d1="v1").effect["capital_levers"]

    assert levers["exit_aggression_mult"] > 1.1
    assert levers["size_mult"] == levers["entry_aggression_mult"] == 1.0
    for silent in (few, nothing):
        assert [(x.status, x.reason) for x in silent.lessons] == [("candidate", "no_exit_outcome")]
    some = [replace(o, exit_y=None) if i % 3 == 0 else o for i, o in enumerate(own)]
    part = _build(some, schema, category="trim")
    assert _at(part, d1="v1").effect["capital_levers"]["exit_aggression_mult"] > 1.1
    assert part.fits[0].n == 600
    known = TradeTable.of([o for o in some if o.exit_y is not None], schema)
    wanted = fit_family(replace(known, y=known.exit_y), schema)
    assert _at(part, d1="v1").stats["effect"] == pytest.approx(wanted.effects[("d1", "v1"),].theta)
    mirrored = [replace(o, exit_y=-o.exit_y) for o in own]
    assert _at(_build(mirrored, schema, category="trim"), d1="v1").stats["effect"] < 0


def test_modules_do_not_mix(make):
    """dm_alloc only from module dm, pm_strength only from pm."""
    observations, schema = make.planted(1, effect=1.0)
    family = FamilyInput("dm", DM_ALLOCATION.key, "allocation", TradeTable.of(observations, schema))
    both = {"pm": schema, "dm": schema}
    key = family_key("dm", DM_ALLOCATION.key, "allocation")
    built = build_lessons("dm", {key: family}, {}, (), 1, schemas=both)

    assert {x.lesson_type for x in built.lessons} == {"dm_alloc"}
    assert all(set(x.effect["capital_levers"]) == {"alloc_mult"} for x in built.lessons)
    assert all(x.decay_halflife_hours >= 1440.0 for x in built.lessons)
    assert {x.lesson_type for x in _build(observations, schema).lessons} == {"pm_strength"}
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
