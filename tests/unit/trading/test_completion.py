"""Partial fills: what is left is ordered on the next bar while the signal holds, once, or given up (trading.md 4.3)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from edgebook.domain.book import Emergency, Pool
from edgebook.trading.position import gross
from edgebook.trading.protections import Guard
from edgebook.trading.rules import PmRules
from edgebook.trading.settle import restless

CENT = Decimal("0.01")


def half_entry(world, *, volume_usd=1e9):
    """An S1 entry of which half was filled when the next bar opens; returns its planned USD."""
    world.volume_usd, world.share = volume_usd, 0.5
    world.bar("S0")
    world.s1_buy()
    return world.order.notional_usd


def lapses(world):
    """Status strands that give up a rest."""
    return [s for s in world.kinds("position_status") if s.payload.reason == "completion_lapsed"]


def test_half_an_entry_is_completed_on_the_next_bar_while_its_signal_holds(world):
    """F4: 50 % fill -> half booked, the rest ordered under the same pattern; after it nothing is pending."""
    planned = half_entry(world)
    world.s1_buy()
    assert gross(world.position.ledger.quantity, 100.0) == pytest.approx(planned / 2, abs=CENT)
    assert world.position.s1_used
    first, rest = world.kinds("pm_action")
    assert rest.payload.notional_usd == pytest.approx(planned / 2, abs=CENT)
    assert rest.payload.reasons["completes"] == first.id
    assert (rest.payload.rule, rest.payload.pattern_key, rest.payload.action_category, rest.payload.flag) == (
        5, first.payload.pattern_key, "entry", "pending_completion",
    )  # fmt: skip

    world.share = 1.0
    world.bar("S1")
    assert world.position.ledger.invested == pytest.approx(planned, abs=CENT)
    assert world.position.pending is None
    assert lapses(world) == []
    assert [a.action_category for a in world.position.actions] == ["entry", "entry"]


def test_the_rest_lapses_when_the_signal_is_gone_and_the_log_says_so(world):
    """F4: ... or expired: one strand, nothing more is bought, and the position may sleep again."""
    half_entry(world)
    world.bar("S1", ts_score=0.1)
    (told,) = lapses(world)
    assert (told.payload.status, told.payload.previous) == ("active", "active")
    assert world.position.pending is None
    assert not restless(world.position)
    assert [rule for rule, _ in world.actions] == [5]
    world.s1_buy()
    assert [rule for rule, _ in world.actions] == [5]


def test_until_it_is_settled_the_position_is_looked_at_on_every_bar(world):
    """A rest makes the position restless, a whole fill does not."""
    world.bar("S0")
    world.s1_buy()
    world.settle(100.0, world.now)
    assert not restless(world.position)
    other = type(world)()
    half_entry(other)
    other.settle(100.0, other.now)
    assert restless(other.position)


def test_a_hole_in_the_bars_ends_the_time_for_the_rest(world):
    """The deadline is one bar: the first bar after a hole comes too late, whatever its signal."""
    half_entry(world)
    world.settle(100.0, world.now)
    world.s1_buy(gap=1)
    assert len(lapses(world)) == 1
    assert [rule for rule, _ in world.actions] == [5]


def test_a_rest_that_fills_in_part_again_is_not_tried_a_third_time(world):
    """Deadline of one bar, counted from the action, not from its rest."""
    planned = half_entry(world)
    world.s1_buy()
    world.s1_buy()
    assert [rule for rule, _ in world.actions] == [5, 5]
    assert world.position.ledger.invested == pytest.approx(planned * Decimal("0.75"), abs=CENT)
    assert world.position.pending is None


def test_the_switch_turns_completion_off_and_leaves_no_trace(w):
    """complete_partials off: half is bought, no action names a deadline, nothing lapses."""
    world = w.World(rules=replace(w.PLAIN, pm=PmRules(complete_partials=False)))
    half_entry(world)
    world.s1_buy()
    assert [rule for rule, _ in world.actions] == [5]
    assert "complete_by" not in world.kinds("pm_action")[0].payload.reasons
    assert lapses(world) == []
    assert world.position.pending is None


def test_the_rest_obeys_caps_and_protections_of_its_own_bar(w):
    """A guard that came on, and a rest below the smallest order: neither is ordered, both lapse."""
    world = w.World()
    half_entry(world)
    world.guard = Guard(("protection.stop_buy",))
    assert world.s1_buy().skipped == ("protection.stop_buy",)
    small = w.World()
    half_entry(small)
    small.volume_usd = 10.0
    assert "caps.min_notional" in small.s1_buy().skipped
    assert len(lapses(world)) == len(lapses(small)) == 1


def test_an_exit_goes_before_any_rest(world):
    """The attempt ends on the next bar: everything is sold, the rest is forgotten."""
    half_entry(world)
    world.over("S1")
    assert [rule for rule, _ in world.actions] == [5, 1]
    assert world.position.pending is None
    world.share = 1.0
    world.bar("S0")
    assert len(world.kinds("position_closed")) == 1


# ---------------------------------------------------------------- one-shots, pool and ladder


def holding(world, state="S3", **fields):
    """A trade with tokens in ``state``, and these fields."""
    world.bar("S0")
    world.s1_buy()
    world.bar("S2", 101.0)
    if state == "S3":
        world.bar("S3", 103.0)
    world.share = 0.5
    world.position = replace(world.position, **fields)


def test_half_a_trim_is_completed_and_the_pool_has_what_was_sold(world):
    """The cooldown counts from the first fill; the pool's basis is the proceeds of both."""
    holding(world)
    before = world.position.ledger.quantity
    world.trim()
    planned, ts = world.order.quantity, world.now
    world.trim()
    assert [rule for rule, _ in world.actions][-2:] == [3, 3]
    half = world.position.pool.basis
    assert half == gross(planned * Decimal("0.5"), 110.0)
    world.share = 1.0
    world.bar("S3", 109.0)
    assert world.position.ledger.quantity == before - planned
    assert world.position.pool.basis == pytest.approx(half * 2, abs=CENT)
    assert world.position.last_trim_ts == ts


def test_half_a_trim_lapses_without_the_flag_and_the_pool_keeps_the_filled_part(world):
    """Pool and ledger use the filled amount."""
    holding(world)
    world.trim()
    planned = world.order.quantity
    world.bar("S3", 109.0)
    assert len(lapses(world)) == 1
    assert world.position.pool.basis == gross(planned * Decimal("0.5"), 110.0)


def test_a_completed_rung_is_one_rung(world):
    """Ladder: the count and the next arm are those of the first fill."""
    holding(world, pool=Pool(Decimal(1000)), armed_s3=False)
    world.dx_buy(96.0)
    world.dx_buy(95.5, open_=96.0)
    assert [rule for rule, _ in world.actions][-2:] == [7, 7]
    pool = world.position.pool
    assert (pool.dx_count, pool.next_arm) == (1, 95.5)
    world.share = 1.0
    world.bar("S3", 95.5)
    assert world.position.pool == pool


def test_a_retest_from_the_pool_uses_it_up_and_is_still_completed(world):
    """Rule 6: the pool is cleared by the first fill; the rest is worth what was planned."""
    holding(world, "S2", pool=Pool(Decimal(1000)), armed_s2=False)
    world.bar("S2", 95.2, ts_score=0.7)
    planned = world.order.notional_usd
    world.bar("S2", 95.2, ts_score=0.7)
    assert world.position.pool == Pool()
    assert world.order.notional_usd == pytest.approx(planned / 2, abs=CENT)


@pytest.mark.parametrize(
    ("rule", "fields", "signal", "gone"),
    [
        (8, {"armed_s3": True}, {"price": 96.0, "ts_score": 0.7, "dx": 0.9}, {"price": 96.0, "ts_score": 0.1}),
        (9, {"armed_s3": False}, {"price": 97.0, "first_dip": True}, {"price": 97.0}),
        (
            4,
            {"emergency": Emergency(True, Decimal(900), False), "armed_s3": False},
            {"price": 97.0, "reclaimed_ema333": True},
            {"price": 94.0, "emergency_exit": True},
        ),
    ],
)
def test_every_other_buy_is_completed_while_its_signal_holds_and_not_after(w, rule, fields, signal, gone):
    """Rules 8, 9 and 4: used up by the first fill, completed on the next bar, or given up. A reclaim is a pulse: its
    signal holds until the price is below EMA333 again, where an emergency exit comes first."""
    for after, completed in ((signal, True), (gone, False)):
        world = w.World(rules=replace(w.PLAIN, pm=PmRules(reclaim_enabled=True)))
        holding(world, **fields)
        world.bar("S3", **signal)
        assert world.actions[-1][0] == rule
        count = len(world.actions)
        world.bar("S3", **after)
        assert (world.actions[count:] == [(rule, "add")]) is completed
        assert world.position.pending is None


def test_a_rest_waits_for_a_trim(world):
    """Rules keep their order: a trim on the bar of the rest is carried out, the rest is forgotten."""
    holding(world, armed_s3=True)
    world.dx_buy(96.0)
    world.bar("S3", 96.0, ts_score=0.7, dx=0.9, trim_flag=True, nearest_level_price=96.0)
    assert world.actions[-1] == (3, "trim")
    assert world.position.pending is None


def test_exits_are_tried_again_on_every_bar_until_dust(world):
    """Halves of halves: every bar has its exit order until less than a dollar is left, which is written off."""
    world.bar("S0")
    world.s1_buy()
    world.bar("S1")
    world.share = 0.5
    world.over("S1")
    bars = 0
    while not world.kinds("position_closed"):
        assert restless(world.position)
        assert world.actions[-1] == (1, "exit")
        world.bar("S0")
        bars += 1
    assert 5 < bars < 40
    assert len(world.kinds("pm_action")) == 1 + bars
