"""Learned numbers in the tick: gates flip flags, strength moves sizes, trims are pinned, holdouts and limits hold (F5,
decisions 11, 46)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.pattern import S1_ENTRY, S3_RETEST, Pattern
from edgebook.overrides.history import ConfigHistory
from edgebook.overrides.record import Override, dump_documents

TRIM = Pattern("module=pm|pattern_key=uptrend.S3.trim", "trim")
BEFORE = 400_000 * HOUR


def history(*versions):
    """``(in force from, overrides...)`` each."""
    rows = []
    for number, (start, *overrides) in enumerate(versions, 1):
        dm, pm = dump_documents(overrides)
        rows.append(ConfigVersion(number, start, dm, pm, ""))
    return ConfigHistory.from_versions(rows)


def lesson(kind, pattern, targets, ident="lesson-1"):
    return Override(ident, kind, *pattern, (("timeframe", "1h"),), targets, 1e12, 0)


def gates(pattern=S1_ENTRY, **targets):
    return history((BEFORE, lesson("pm_tuning", pattern, targets)))


def test_a_higher_ts_min_takes_an_entry_away_and_leaves_a_trace(w):
    """F5: TS .62 enters at base; with ts_min .65 no action, flags_base still true, and the window shows both."""
    base = w.World()
    base.bar("S1", 100.0, ts_score=0.62)
    assert base.actions == [(5, "entry")]
    world = w.World(history=gates(ts_min=0.65))
    world.bar("S1", 100.0, ts_score=0.62)
    assert world.actions == []
    world.bar("S1", 105.0)
    (sample,) = world.kinds("uptrend_buy_window")[0].payload.samples
    assert (sample.flag_on, sample.flag_base) == (False, True)
    assert sample.margins["ts_min"] == pytest.approx(-0.3)
    assert world.kinds("uptrend_buy_window")[0].payload.thresholds_effective["ts_min"] == pytest.approx(0.65)


def test_a_lower_ts_min_makes_an_entry_and_names_its_lesson(w):
    """F5: TS .58 enters under ts_min .50; the action says which lesson moved the gate."""
    world = w.World(history=gates(ts_min=0.50))
    world.bar("S1", 100.0, ts_score=0.58)
    action = world.kinds("pm_action")[0].payload
    assert action.thresholds_effective["ts_min"] == pytest.approx(0.50)
    assert action.reasons["flag_base"] is False
    assert [(n.lever, m.lesson_id) for n in action.nudges for m in n.matched] == [("ts_min", "lesson-1")]


@pytest.mark.parametrize(("dx_min", "rules"), [(0.65, []), (0.55, [(8, "entry")])])
def test_dx_min_moves_the_s3_gate(w, dx_min, rules):
    """F5: S3 reads the tuning of (uptrend.S3.dx, add) for every S3 rule with a buy flag."""
    world = w.World(history=gates(S3_RETEST, dx_min=dx_min))
    for bar in (("S1", 105.0), ("S2", 106.0), ("S3", 107.0)):
        world.bar(*bar)
    world.bar("S3", 97.0, ts_score=0.7, dx=0.60)
    assert world.actions == rules


def test_a_holdout_attempt_runs_at_base(w):
    """Decisions 46: the arm makes gates and sizes exactly neutral."""
    learned = history(
        (BEFORE, lesson("pm_tuning", S1_ENTRY, {"ts_min": 0.50}), lesson("pm_strength", S1_ENTRY, {"size_mult": 1.5}))
    )
    world = w.World(rules=replace(w.PLAIN, holdout=1.0), history=learned)
    world.bar("S1", 100.0, ts_score=0.58)
    assert world.actions == []
    world.s1_buy()
    action = world.kinds("pm_action")[0].payload
    assert action.size_frac == action.base_size_frac
    assert action.nudges == ()


def test_strength_moves_the_size_within_the_limits(w):
    """size_mult 1.5 on 30 %: 45 % of the allowance; a limit still cuts it to what it cuts a neutral order to."""
    learned = history((BEFORE, lesson("pm_strength", S1_ENTRY, {"size_mult": 1.5})))
    world = w.World(history=learned)
    world.s1_buy()
    action = world.kinds("pm_action")[0].payload
    assert action.size_frac == pytest.approx(0.45)
    assert action.notional_usd == pytest.approx(Decimal(4500))
    for past in (learned, ConfigHistory()):
        thin = w.World(history=past, volume_usd=10_000.0)
        thin.s1_buy()
        cut = thin.kinds("pm_action")[0].payload
        assert (cut.notional_usd, cut.caps) == (Decimal(500), ("participation",))


def test_size_multipliers_travel_with_the_executed_action(w):
    """position_closed tells learning what size and aggression each action really had."""
    world = w.World(
        history=history((BEFORE, lesson("pm_strength", S1_ENTRY, {"size_mult": 1.5, "entry_aggression_mult": 1.2})))
    )
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    world.bar("S0", 95.0)
    entry, leave = world.kinds("position_closed")[0].payload.actions
    assert (entry.size_mult, entry.aggression_mult) == pytest.approx((1.5, 1.2))
    assert (leave.size_mult, leave.aggression_mult) == (1.0, 1.0)


def test_trims_use_the_version_of_the_first_fill_buys_the_current_one(w):
    """Decisions 11, 46: a lesson that came after the entry does not move this trade's trims."""
    late = lesson("pm_strength", TRIM, {"exit_aggression_mult": 1.2})
    world = w.World(
        history=history((BEFORE, lesson("pm_strength", S1_ENTRY, {"size_mult": 1.5})), (w.T0 + 2 * HOUR + 1, late))
    )
    world.s1_buy()
    world.bar("S2", 101.0)
    assert world.position.pinned_config == 1
    world.bar("S3", 103.0)
    for _ in range(70):
        world.bar("S3", 103.0)
    world.trim(110.0)
    trim = world.kinds("pm_action")[-1]
    assert (trim.payload.rule, trim.config_version, trim.payload.nudges) == (3, 1, ())
    assert trim.payload.e_value == 0.5
    world.position = replace(world.position, pinned_config=2, planned=None)
    world.order = None
    world.trim(120.0)
    again = world.kinds("pm_action")[-1]
    assert (again.config_version, again.payload.e_value) == (2, pytest.approx(0.6))


def test_full_exits_read_no_lever(w):
    """Whatever is learned, an exit sells everything and names no lesson."""
    leave = Pattern("module=pm|pattern_key=uptrend.S1.exit", "exit")
    world = w.World(history=history((BEFORE, lesson("pm_strength", S1_ENTRY, {"size_mult": 0.5}))))
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    action = world.kinds("pm_action")[-1].payload
    assert (action.pattern_key, action.quantity, action.nudges) == (leave.key, world.position.ledger.quantity, ())
