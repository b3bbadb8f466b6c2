"""What the three runtime calls return: numbers, explanations, and neutrality when switched off."""

from __future__ import annotations

import math

import pytest

from edgebook.domain.codec import to_json
from edgebook.domain.decay import HOUR
from edgebook.domain.errors import OverrideError
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.levers import LEGACY_NEUTRAL, LEVERS
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY, S3_RETEST, Pattern
from edgebook.domain.scope import DM_SCHEMA, PM_SCHEMA, ScopeSchema, make_scope
from edgebook.overrides import (
    ConfigHistory,
    Override,
    apply_allocation_overrides,
    apply_pattern_execution_overrides,
    apply_pattern_strength_overrides,
    dump_documents,
)

T0 = 400_000 * HOUR
FOREVER = 1e15  # hours
TRIM = Pattern("module=pm|pattern_key=uptrend.S3.trim", "trim")
EXIT = Pattern("module=pm|pattern_key=uptrend.S3.exit", "exit")
DM_SCOPE = make_scope(DM_SCHEMA, {"curator": "early", "chain": "base", "macro_phase": "Good"})
PM_SCOPE = make_scope(PM_SCHEMA, {"macro_phase": "Good", "bucket_rank_position": 2, "timeframe": "4h"})


def alloc(target, scope=(), *, lesson_id="d", half_life=FOREVER, evidence_at=T0, **fields):
    return Override(
        lesson_id, "dm_alloc", *DM_ALLOCATION, scope, {"alloc_mult": target}, half_life, evidence_at, **fields
    )


def strength(pattern, targets, scope=(), *, lesson_id="s", **fields):
    return Override(lesson_id, "pm_strength", *pattern, scope, targets, FOREVER, T0, **fields)


def tuning(pattern, targets, scope=(), *, lesson_id="t", **fields):
    return Override(lesson_id, "pm_tuning", *pattern, scope, targets, FOREVER, T0, **fields)


def history(*versions, **modes):
    """Versions as ``(epochs after T0, overrides...)``."""
    rows = []
    for number, (epoch, *overrides) in enumerate(versions, 1):
        dm, pm = dump_documents(overrides)
        rows.append(ConfigVersion(number, T0 + epoch * HOUR, dm, pm, ""))
    return ConfigHistory.from_versions(rows, **modes)


def alloc_at(past, epoch, scope=DM_SCOPE):
    return apply_allocation_overrides(past, scope, T0 + epoch * HOUR).alloc_mult


def test_a_lone_lesson_reaches_its_target_in_the_right_number_of_epochs():
    """ln 1.3 / ln 1.02 = 13.25: on the way after 13 hours, there after 14, never beyond."""
    past = history((0, alloc(1.3)))
    assert [alloc_at(past, k) for k in (0, 1, 13)] == pytest.approx([1.0, 1.02, 1.02**13], rel=1e-12)
    assert [alloc_at(past, k) for k in (14, 15, 56, 5000)] == pytest.approx([1.3] * 4, rel=1e-9)
    assert alloc_at(past, 13) < 1.3


def test_a_deprecated_lesson_relaxes_to_base():
    """When its override is gone the lever walks back one step an hour and is then exactly neutral; the walk is
    explained.
    """
    past = history((0, alloc(1.3)), (100,))
    values = [alloc_at(past, 100 + k) for k in (0, 1, 13, 14, 60)]
    assert values[:3] == pytest.approx([1.3, 1.3 / 1.02, 1.3 / 1.02**13], rel=1e-9)
    assert values[3:] == [1.0, 1.0]
    on_the_way = apply_allocation_overrides(past, DM_SCOPE, T0 + 105 * HOUR).nudges
    assert [(n.lever, n.blend, n.matched) for n in on_the_way] == [("alloc_mult", 1.0, ())]
    assert apply_allocation_overrides(past, DM_SCOPE, T0 + 160 * HOUR).nudges == ()


def test_decay_acts_on_a_lone_match():
    """After one half-life a lone lesson pulls half its log: 1.21 becomes 1.1; after many it is gone."""
    past = history((0, alloc(1.21, half_life=100.0)))
    assert alloc_at(past, 100) == pytest.approx(1.1, rel=1e-12)
    assert alloc_at(past, 5000) == pytest.approx(1.0, abs=1e-12)


def test_increments_of_nested_scopes_add_in_log_space():
    """1.1 for the curator and 1.05 for the curator on this chain make 1.155; elsewhere only the first acts."""
    both = history(
        (
            0,
            alloc(1.1, (("curator", "early"),), lesson_id="a"),
            alloc(1.05, (("curator", "early"), ("chain", "base")), lesson_id="b"),
        )
    )
    assert alloc_at(both, 56) == pytest.approx(1.155, rel=1e-9)
    assert alloc_at(both, 56, (("curator", "early"),)) == pytest.approx(1.1, rel=1e-9)
    assert alloc_at(both, 56, (("chain", "base"),)) == 1.0


def test_the_sum_of_many_lessons_is_clamped_to_the_table():
    """Ten lessons of 1.2 are still 1.3, ten of .8 are .7."""
    up = history((0, *(alloc(1.2, lesson_id=str(i)) for i in range(10))))
    down = history((0, *(alloc(0.8, lesson_id=str(i)) for i in range(10))))
    assert (alloc_at(up, 99), alloc_at(down, 99)) == (1.3, 0.7)


def test_average_mode_weighs_by_evidence():
    """Decisions 14: w = .4 and .1 on ln 1.2 and ln .9 give their weighted mean; a lone lesson keeps its full target."""

    def voiced(target, lesson_id, n):
        return alloc(target, lesson_id=lesson_id, stats={"effect_total": 0.5, "n": n, "variance": 0.0})

    strong, weak = 1 - math.exp(-4), 1 - math.exp(-1)
    past = history((0, voiced(1.2, "a", 100), voiced(0.9, "b", 25)), blend="average")
    expected = math.exp((strong * math.log(1.2) + weak * math.log(0.9)) / (strong + weak))
    assert alloc_at(past, 56) == pytest.approx(expected, rel=1e-9)
    assert alloc_at(history((0, voiced(1.2, "a", 100)), blend="average"), 56) == pytest.approx(1.2, rel=1e-9)


def test_a_lesson_beyond_its_bound_is_not_outvoted():
    """-2 R at its bound of .7 counts for what it asks: with conviction 5 it stays at .7 beside x1.3; without, they
    nearly cancel. Alone it ends at the same bound and moves by the same step."""
    far = alloc(0.7, lesson_id="far", stats={"conviction": 5.0})
    near, other = alloc(0.7, lesson_id="far"), alloc(1.3, lesson_id="other")
    assert alloc_at(history((0, far, other)), 99) == pytest.approx(0.7, rel=1e-9)
    assert alloc_at(history((0, near, other)), 99) == pytest.approx(0.7 * 1.3, rel=1e-9)
    for epoch in (0, 1, 5, 18, 99):
        assert alloc_at(history((0, far)), epoch) == pytest.approx(alloc_at(history((0, near)), epoch), rel=1e-12)
    weak = alloc(0.9, lesson_id="far", stats={"conviction": 1.5})
    assert alloc_at(history((0, weak, other)), 99) == pytest.approx(0.9**1.5 * 1.3, rel=1e-9)


def test_conviction_fades_with_the_evidence():
    """Two half-lives on, a lesson of conviction 2 pulls with half of its target's log."""
    rule = alloc(0.8, half_life=100.0, stats={"conviction": 2.0})
    assert alloc_at(history((0, rule)), 200) == pytest.approx(math.sqrt(0.8), rel=1e-9)


def test_conviction_is_explained():
    """It stands beside decay: log of the blend is the sum of decay * conviction * ln target, clamped."""
    rules = [alloc(1.3, lesson_id="a", stats={"conviction": 4.0}), alloc(0.8, lesson_id="b", half_life=50.0)]
    (nudge,) = apply_allocation_overrides(history((0, *rules)), DM_SCOPE, T0 + 100 * HOUR).nudges
    told = {m.lesson_id: (m.decay, m.conviction) for m in nudge.matched}
    assert told == {"a": (pytest.approx(1.0), 4.0), "b": (0.25, 1.0)}
    total = sum(m.decay * m.conviction * math.log(m.targets["alloc_mult"]) for m in nudge.matched)
    assert nudge.blend == pytest.approx(min(1.3, math.exp(total)))


def test_the_average_does_not_count_conviction():
    """It weighs by evidence; targets stay within their bounds."""
    stats = {"effect_total": 0.25, "n": 100, "variance": 0.0}
    plain = history((0, alloc(1.3, lesson_id="a", stats=stats), alloc(0.9, lesson_id="b", stats=stats)),
                    blend="average")  # fmt: skip
    sure = history((0, alloc(1.3, lesson_id="a", stats={**stats, "conviction": 6.0}),
                    alloc(0.9, lesson_id="b", stats=stats)), blend="average")  # fmt: skip
    assert alloc_at(plain, 99) == alloc_at(sure, 99)


def test_displacement_mode_is_one_step_from_base_for_ever():
    """The literal reading of the seed, kept for comparison: never more than 2 %, without memory."""
    past = history((0, alloc(1.3)), step_mode="displacement")
    assert [alloc_at(past, k) for k in (0, 1, 500)] == pytest.approx([1.02] * 3, rel=1e-12)


def test_levers_by_category():
    """Entry moves size and entry aggression, trim only exit aggression, exit nothing (decisions 21)."""
    past = history(
        (
            0,
            strength(S1_ENTRY, {"size_mult": 1.2, "entry_aggression_mult": 1.1}, lesson_id="a"),
            strength(TRIM, {"exit_aggression_mult": 0.9}, lesson_id="b"),
        )
    )
    entry, trim, leave = (
        apply_pattern_strength_overrides(past, p, PM_SCOPE, T0 + 99 * HOUR) for p in (S1_ENTRY, TRIM, EXIT)
    )
    values = [(r.size_mult, r.entry_aggression_mult, r.exit_aggression_mult) for r in (entry, trim, leave)]
    assert values[0] == pytest.approx((1.2, 1.1, 1.0), rel=1e-9)
    assert values[1] == pytest.approx((1.0, 1.0, 0.9), rel=1e-9)
    assert values[2] == (1.0, 1.0, 1.0)
    assert [n.lever for n in entry.nudges] == ["size_mult", "entry_aggression_mult"]


def test_gates_per_state():
    """S1 reads the S1 entry key, S3 the S3 retest key, S2 and the rest are at base; all gates are always there
    (decisions 26).
    """
    past = history(
        (
            0,
            tuning(S1_ENTRY, {"ts_min": 0.7, "sr_boost": 0.2}, lesson_id="a"),
            tuning(S3_RETEST, {"dx_min": 0.5, "sr_boost": 0.3}, lesson_id="b"),
        )
    )
    base = {name: LEVERS[name].base for name in LEVERS if LEVERS[name].lesson_type == "pm_tuning"}
    gates = {
        s: apply_pattern_execution_overrides(past, s, PM_SCOPE, T0 + 99 * HOUR, "1h")
        for s in ("S0", "S1", "S2", "S3", "S4")
    }
    assert dict(gates["S1"].signal_thresholds) == pytest.approx({**base, "ts_min": 0.7, "sr_boost": 0.2})
    assert dict(gates["S3"].signal_thresholds) == pytest.approx({**base, "dx_min": 0.5, "sr_boost": 0.3})
    for state in ("S0", "S2", "S4"):
        assert dict(gates[state].signal_thresholds) == base
    assert all(dict(g.legacy) == LEGACY_NEUTRAL for g in gates.values())


def test_thresholds_move_five_hundredths_an_hour_and_edx_two():
    """ts_min steps .05; edx_supp_mult blends additively with .02 steps."""
    past = history(
        (0, tuning(S1_ENTRY, {"ts_min": 0.75}, lesson_id="a"), tuning(S3_RETEST, {"edx_supp_mult": 1.1}, lesson_id="b"))
    )

    def gate(state, name, epoch):
        return apply_pattern_execution_overrides(past, state, (), T0 + epoch * HOUR, "1h").signal_thresholds[name]

    assert [gate("S1", "ts_min", k) for k in range(5)] == pytest.approx([0.6, 0.65, 0.7, 0.75, 0.75])
    assert [gate("S3", "edx_supp_mult", k) for k in range(7)] == pytest.approx([1.0, 1.02, 1.04, 1.06, 1.08, 1.1, 1.1])


@pytest.mark.parametrize(("timeframe", "factor"), [("1h", 1.0), ("4h", 2.0), ("15m", 0.5)])
def test_slopes_scale_with_the_square_root_of_the_timeframe(timeframe, factor):
    """A 1h target of .001 is .002 at 4h: value, step, bounds, base and what the lesson wanted, all in the bar's
    unit.
    """
    past = history((0, tuning(S1_ENTRY, {"slope_min": 0.001, "ts_min": 0.7})))

    def controls(epoch):
        return apply_pattern_execution_overrides(past, "S1", PM_SCOPE, T0 + epoch * HOUR, timeframe)

    assert controls(1).signal_thresholds["slope_min"] == pytest.approx(0.0005 * factor)
    assert controls(9).signal_thresholds["slope_min"] == pytest.approx(0.001 * factor)
    assert controls(9).signal_thresholds["ts_min"] == pytest.approx(0.7)
    nudge = next(n for n in controls(9).nudges if n.lever == "slope_min")
    assert (nudge.base, nudge.blend, nudge.matched[0].targets) == (
        0.0,
        pytest.approx(0.001 * factor),
        {"slope_min": 0.001 * factor},
    )


def test_one_scope_asked_at_two_timeframes_has_two_answers():
    """A scope that does not name the timeframe is still answered in the unit of the bar that asks."""
    past = history((0, tuning(S1_ENTRY, {"slope_min": 0.001})))
    at = T0 + 9 * HOUR
    slopes = [
        apply_pattern_execution_overrides(past, "S1", (), at, t).signal_thresholds["slope_min"] for t in ("1h", "4h")
    ]
    assert slopes == pytest.approx([0.001, 0.002])


def test_a_changed_base_shifts_the_target():
    """A lesson fitted as .63 over a base of .58 wants .05 more than whatever the base is now."""
    past = history((0, tuning(S1_ENTRY, {"ts_min": 0.63}, base_at_fit={"ts_min": 0.58})))
    gates = apply_pattern_execution_overrides(past, "S1", (), T0 + 9 * HOUR, "1h").signal_thresholds
    assert gates["ts_min"] == pytest.approx(0.65)


def test_a_nudge_explains_itself():
    """Base, applied, blend before the slew, config version, and each match with scope, target, status, decay and
    weight.
    """
    rule = alloc(
        1.21,
        (("curator", "early"),),
        half_life=100.0,
        status="active",
        stats={"effect_total": 0.25, "n": 25, "variance": 1.0},
    )
    elsewhere = alloc(0.8, (("curator", "fader"),), lesson_id="other")
    result = apply_allocation_overrides(history((97, rule, elsewhere)), DM_SCOPE, T0 + 100 * HOUR + 5)
    assert result.config_version == 1
    (nudge,) = result.nudges
    assert (nudge.lever, nudge.base, nudge.applied) == ("alloc_mult", 1.0, result.alloc_mult)
    assert (nudge.applied, nudge.blend) == (pytest.approx(1.02**3), pytest.approx(1.1))
    (match,) = nudge.matched
    assert (match.lesson_id, match.scope, match.status, match.targets) == (
        "d",
        {"curator": "early"},
        "active",
        {"alloc_mult": 1.21},
    )
    assert match.decay == 0.5
    assert match.weight == pytest.approx(math.tanh(1) * (1 - math.exp(-1)) / 2 * math.sqrt(2 / 14))


def test_results_can_be_written_into_strands():
    """Nudges and thresholds are plain JSON material."""
    past = history((0, tuning(S1_ENTRY, {"ts_min": 0.7})))
    controls = apply_pattern_execution_overrides(past, "S1", PM_SCOPE, T0 + 9 * HOUR, "1h")
    written = to_json(controls)
    assert written["signal_thresholds"]["halo"] == 1.0
    assert written["nudges"][0]["matched"][0]["targets"] == {"ts_min": 0.7}


CALLS = {
    "dm": lambda h, at, **k: apply_allocation_overrides(h, DM_SCOPE, at, **k),
    "strength": lambda h, at, **k: apply_pattern_strength_overrides(h, S1_ENTRY, PM_SCOPE, at, **k),
    "tuning": lambda h, at, **k: apply_pattern_execution_overrides(h, "S1", PM_SCOPE, at, "1h", **k),
}


@pytest.mark.parametrize("channel", CALLS)
def test_holdout_and_kill_switch_are_exactly_neutral_at_once(channel):
    """Neither waits for the slew; the other channels go on; switching back on continues where the history is."""
    past = history((0, alloc(1.2), strength(S1_ENTRY, {"size_mult": 1.2}), tuning(S1_ENTRY, {"ts_min": 0.7})))
    empty = history((0,))
    at = T0 + 99 * HOUR
    neutral = CALLS[channel](empty, at)
    assert CALLS[channel](past, at) != neutral
    assert CALLS[channel](past, at, holdout=True) == neutral
    killed = past.with_neutral({channel})
    for name, call in CALLS.items():
        assert call(killed, at) == (neutral if name == channel else call(past, at))
    assert CALLS[channel](killed.with_neutral(()), at) == CALLS[channel](past, at)


def test_flags_switch_pm_off_and_leave_dm_alone():
    """``learning_overrides_enabled`` false is neutral for size and gates at once."""
    dm, pm = dump_documents(
        [alloc(1.2), strength(S1_ENTRY, {"size_mult": 1.2}), tuning(S1_ENTRY, {"ts_min": 0.7})],
        {"learning_overrides_enabled": False},
    )
    past = ConfigHistory.from_versions([ConfigVersion(1, T0, dm, pm, "")])
    at = T0 + 99 * HOUR
    assert CALLS["dm"](past, at).alloc_mult == pytest.approx(1.2)
    assert CALLS["strength"](past, at) == CALLS["strength"](history((0,)), at)
    assert CALLS["tuning"](past, at) == CALLS["tuning"](history((0,)), at)


def test_an_open_trade_keeps_the_version_it_was_opened_with():
    """Pinned to version 1, a trade's multiplier goes on toward version 1's target while new trades follow version 2."""
    past = history(
        (0, strength(TRIM, {"exit_aggression_mult": 1.2})), (5, strength(TRIM, {"exit_aggression_mult": 0.8}))
    )
    at = T0 + 99 * HOUR
    pinned = apply_pattern_strength_overrides(past.as_of(1), TRIM, (), at)
    current = apply_pattern_strength_overrides(past, TRIM, (), at)
    assert (pinned.exit_aggression_mult, pinned.config_version) == (pytest.approx(1.2), 1)
    assert (current.exit_aggression_mult, current.config_version) == (pytest.approx(0.8), 2)


def test_a_future_version_is_not_looked_at():
    """The version in force later neither acts nor shows before its time."""
    past = history((0, alloc(1.1)), (50, alloc(0.8)))
    result = apply_allocation_overrides(past, DM_SCOPE, T0 + 40 * HOUR)
    assert (result.alloc_mult, result.config_version) == (pytest.approx(1.1), 1)
    assert apply_allocation_overrides(past, DM_SCOPE, T0 - 1).config_version == 0


def test_a_users_own_dims_can_scope_overrides():
    """``learn`` on anyone's trades uses the same combiner with a schema of its own."""
    mine = ScopeSchema("mine", ("weekday", "setup"))
    rule = strength(Pattern("module=pm|pattern_key=user.trade.entry", "entry"), {"size_mult": 1.3}, (("setup", "gap"),))
    dm, pm = dump_documents([rule])
    past = ConfigHistory.from_versions([ConfigVersion(1, T0, dm, pm, "")], schemas={"pm": mine, "dm": mine})
    pattern = Pattern(rule.pattern_key, "entry")
    at = T0 + 99 * HOUR
    assert apply_pattern_strength_overrides(past, pattern, (("setup", "gap"),), at).size_mult == pytest.approx(1.3)
    assert apply_pattern_strength_overrides(past, pattern, (("setup", "fade"),), at).size_mult == 1.0


def test_a_scope_with_a_foreign_type_is_refused():
    """A float rank would compare equal to an integer one; such a scope never came from make_scope."""
    with pytest.raises(
        OverrideError, match="scope value of bucket_rank_position must be text or a whole number, was 1"
    ):
        apply_pattern_strength_overrides(
            history((0, strength(S1_ENTRY, {"size_mult": 1.2}))), S1_ENTRY, (("bucket_rank_position", 1.0),), T0
        )


def test_memos_are_bounded(monkeypatch):
    """However many scopes are asked about, the caches stay small and the answers right."""
    monkeypatch.setattr("edgebook.overrides.combine._MEMO_LIMIT", 10)
    past = history((0, alloc(1.2)), (3, alloc(1.1)))
    answers = {alloc_at(past, 9, (("curator", f"c{i}"),)) for i in range(100)}
    assert sorted(answers) == pytest.approx([1.1])
    version = next(iter(past.families.values()))
    assert max(len(past.memo), len(version.matched), len(version.entered)) <= 10
