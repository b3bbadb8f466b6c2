"""The life of a position through `tick`, `fill` and `closure`, and the edges of trading.md 8 F1 and F4."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from edgebook.domain.errors import TradingError
from edgebook.domain.strands import EpisodeSummary, OrderFilled, PmAction, PositionClosed
from edgebook.trading.protections import OPEN, Guard
from edgebook.trading.rules import PmRules
from edgebook.trading.tick import NOTHING, tick


def happy(world):
    """S0 -> S1 buy -> S2 -> S3 DX add -> trim -> emergency -> S0."""
    world.bar("S0")
    world.s1_buy()
    world.bar("S2", 101.0)
    world.bar("S3", 103.0)
    world.dx_buy()
    world.trim(110.0)
    world.bar("S3", 108.0)
    world.emergency()
    world.bar("S3", 94.5, emergency_exit=True)
    world.over("S3", 93.0)


def test_a_whole_life_leaves_every_strand_once_in_order(world):
    """F1: entry, add, trim, emergency exit, closure at S0, with transitions, windows, summaries and one
    position_closed."""
    happy(world)
    assert world.actions == [(5, "entry"), (8, "add"), (3, "trim"), (2, "emergency_exit")]
    assert [s.tags[1] for s in world.kinds("uptrend_stage_transition")] == ["S0->S1", "S1->S2", "S2->S3", "S3->S0"]
    assert [s.payload.outcome for s in world.kinds("uptrend_episode_summary")] == ["success", "success"]
    assert len(world.kinds("position_closed")) == 1
    assert len(world.kinds("uptrend_buy_window")) == 2
    closed = world.kinds("position_closed")[0].payload
    assert isinstance(closed, PositionClosed)
    assert [a.decision_type for a in closed.actions] == ["entry", "add", "trim", "emergency_exit"]
    assert closed.exit_reason == "all_emas_below_333"
    assert closed.first_under_decision
    assert world.position.status == "watchlist"
    assert (world.position.trade_id, world.position.attempt_id, world.position.trades_closed) == ("", "", 1)


def test_an_emergency_exit_alone_does_not_close_the_trade(world):
    """F1: after the emergency fill the position is flat, still active, and knows what it sold for."""
    for bar in (world.s1_buy, lambda: world.bar("S2", 101.0), lambda: world.bar("S3", 103.0), world.emergency):
        bar()
    world.bar("S3", 94.0, emergency_exit=True)
    p = world.position
    assert (p.status, p.holding, bool(p.trade_id), p.emergency.filled) == ("active", False, True, True)
    assert p.emergency.exit_value > 0


def test_the_exit_fill_closes_the_trade_and_its_action_is_in_it_once(world):
    """Decisions 59: rule 1's fill closes; actions[] holds the closing action exactly once."""
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    assert world.position.status == "closing"
    world.bar("S0", 95.0)
    closed = world.kinds("position_closed")
    assert len(closed) == 1
    assert [a.decision_type for a in closed[0].payload.actions] == ["entry", "exit"]
    assert closed[0].payload.actions[-1].pattern_key == "module=pm|pattern_key=uptrend.S1.exit"
    assert closed[0].payload.exit_reason == "s1_to_s0_bearish_order"
    assert world.position.status == "watchlist"


def test_every_attempt_may_buy_in_s1(world):
    """F4: two attempts in a row give an S1 entry in both, and only one each."""
    for _ in range(2):
        world.s1_buy()
        world.s1_buy()
        world.s1_buy()
        world.over("S1", 99.0)
        world.bar("S0")
    assert [a for a in world.actions if a[1] != "exit"] == [(5, "entry"), (5, "entry")]


def test_a_hold_writes_nothing(world):
    """No strand is written for a bar on which nothing happens, but the bar is remembered."""
    world.bar("S0")
    before = len(world.log)
    assert world.bar("S0").strands == ()
    assert len(world.log) == before
    assert world.memory.last_bar_ts == world.now


def test_a_bar_seen_before_is_nobodys_business(world):
    """Delivering a bar twice changes nothing."""
    world.s1_buy()
    again = world.input(world.bars[-1])
    assert tick(again) is NOTHING


@pytest.mark.parametrize("status", ["dormant", "archived"])
def test_positions_that_are_not_watched_are_left_alone(world, status):
    """Only watchlist, active, closing and paused positions are ticked."""
    world.position = replace(world.position, status=status)
    assert world.s1_buy() is NOTHING


def test_nothing_is_bought_in_an_attempt_whose_start_was_not_seen(w, world):
    """trade_mid_attempt=false: a position created in S1 waits for the next S0->S1; its episode is partial."""
    world.bars.append(w.reading("S1", w.T0))
    assert world.s1_buy().skipped == ("no_attempt",)
    world.over("S1")
    summary = world.kinds("uptrend_episode_summary")[0].payload
    assert summary.partial
    assert summary.windows[0].blocked_by == ("no_attempt",)
    world.s1_buy()
    assert world.actions == [(5, "entry")]


def test_mid_attempt_trading_is_a_switch(w):
    """With trade_mid_attempt the same bar buys."""
    world = w.World(rules=replace(w.PLAIN, pm=PmRules(trade_mid_attempt=True)))
    world.bars.append(w.reading("S1", w.T0))
    world.s1_buy()
    assert world.actions == [(5, "entry")]


def test_a_failed_entry_changes_nothing_and_is_tried_again(world):
    """F4: entry refused -> quantity, rule memory and status unchanged; retried while the signal lasts."""
    world.refuse = "rejected"
    world.s1_buy()
    before = world.position
    world.s1_buy()
    p = world.position
    assert (p.ledger, p.s1_used, p.status, p.trade_id) == (before.ledger, False, "watchlist", "")
    assert world.actions == [(5, "entry"), (5, "entry")]
    world.refuse = ""
    world.bar("S1", 100.2)
    assert world.position.s1_used
    assert world.position.holding


def test_a_failed_exit_is_retried_on_every_bar_until_it_is_sold(world):
    """F4: exit refused -> still closing; retried next bar even in another state; sold and closed later."""
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    world.refuse = "rejected"
    world.bar("S0", 95.0)
    world.bar("S1", 96.0)
    assert world.position.status == "closing"
    assert world.position.holding
    world.refuse = ""
    world.bar("S1", 96.0)
    assert world.position.status == "watchlist"
    assert [a for a in world.actions if a[0] == 1] == [(1, "exit")] * 3
    assert world.kinds("position_closed")[0].payload.exit_reason == "s1_to_s0_bearish_order"


def test_half_an_exit_fill_leaves_the_rest_to_the_next_bar(world):
    """F4: tokens left at S0 -> closing, then closed; both fills are in the trade."""
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    world.share = 0.5
    world.bar("S0", 95.0)
    assert world.position.status == "closing"
    assert world.position.holding
    world.share = 1.0
    world.bar("S0", 95.0)
    world.bar("S0", 95.0)
    assert world.position.status == "watchlist"
    assert [a.decision_type for a in world.kinds("position_closed")[0].payload.actions] == ["entry", "exit", "exit"]


def test_half_an_entry_fill_is_booked_as_it_filled(world):
    """F4: a 50 % fill books half, marks it partial and uses the one-shot up."""
    world.share = 0.5
    world.s1_buy()
    world.bar("S1", 100.0)
    fill = world.kinds("order_filled")[0].payload
    assert isinstance(fill, OrderFilled)
    assert fill.partial
    assert world.position.s1_used
    assert world.position.ledger.invested == pytest.approx(Decimal("1500"), abs=Decimal("0.01"))


def test_s0_without_a_trade_does_nothing(world):
    """F4: falling to S0 flat and without trade writes the transition and the episode, no action, no close."""
    world.bar("S1", 90.0)
    world.over("S1")
    assert world.actions == []
    assert world.kinds("position_closed") == []


def test_a_trade_without_drawdown_closes_with_a_finite_rr(world):
    """F4: no low below the entry -> the floor is the risk, rr is finite and clipped at 10."""
    world.s1_buy()
    world.bar("S2", 101.0)
    world.bar("S3", 120.0)
    world.over("S3", 130.0)
    world.bar("S0", 130.0)
    summary = world.kinds("position_closed")[0].payload.summary
    assert summary.max_drawdown == 0.0
    assert summary.rr == 10.0
    assert summary.rr_clipped


def test_the_kill_switch_stops_buys_and_lets_exits_through(world):
    """Kill switch: an S1 signal is skipped with its reason; an open position still exits."""
    world.s1_buy()
    world.bar("S1", 99.0)
    world.guard = Guard(("protection.kill_switch",))
    world.over("S1", 96.0)
    assert world.actions[-1] == (1, "exit")
    world.bar("S0")
    assert world.s1_buy().skipped == ("protection.kill_switch",)


def test_a_window_that_a_protection_barred_says_so_and_has_no_vote(world):
    """Barred on every bar, or barred on the bar its flag was on: either way the window names the protection."""
    world.bar("S0")
    world.bar("S1", 100.0)
    world.guard = Guard(("protection.daily_loss",))
    assert world.s1_buy().skipped == ("protection.daily_loss",)
    world.over("S1", 99.0)
    world.s1_buy()
    world.over("S1", 99.0)
    windows = [w for s in world.kinds("uptrend_episode_summary") for w in s.payload.windows]
    assert [w.blocked_by for w in windows] == [("protection.daily_loss",)] * 2
    assert not any(w.entered for w in windows)
    assert not world.kinds("order_filled")


def test_a_window_that_could_be_taken_once_the_protection_was_off_keeps_its_vote(world):
    """Barred at first, free when its flag came on: entered, and nothing stands in its way."""
    world.bar("S0")
    world.guard = Guard(("protection.cooldown",))
    world.bar("S1", 100.0)
    world.guard = OPEN
    world.s1_buy()
    world.bar("S1", 100.0)
    world.over("S1", 99.0)
    (window,) = world.kinds("uptrend_episode_summary")[0].payload.windows
    assert window.entered
    assert window.blocked_by == ()


def test_no_money_left_is_a_skip_with_its_caps_not_an_error(world):
    """F4: remaining 0 -> entry skipped, caps named, the window remembers it."""
    world.position = replace(world.position, allocation_pct=0.0)
    result = world.s1_buy()
    assert result.order is None
    assert result.skipped == ("caps.min_notional",)
    world.bar("S1", 90.0)
    assert world.kinds("uptrend_buy_window")[0].payload.blocked_by == ("caps.min_notional",)


def test_an_action_explains_itself(world):
    """pm_action carries pattern, scope, thresholds in force, sizes with and without learning, price, ATR and its
    order."""
    world.s1_buy()
    strand = world.kinds("pm_action")[0]
    action = strand.payload
    assert isinstance(action, PmAction)
    assert (action.pattern_key, action.action_category) == ("module=pm|pattern_key=uptrend.S1.buy_flag", "entry")
    assert dict(strand.scope) == {
        "macro_phase": "Good", "market_family": "lowcaps", "bucket": "micro", "timeframe": "1h", "A_mode": "normal",
        "E_mode": "normal",
    }  # fmt: skip
    assert action.thresholds_effective["ts_min"] == 0.60
    assert (action.size_frac, action.base_size_frac) == (0.30, 0.30)
    assert action.notional_usd == Decimal("3000.000000")
    assert action.reasons["flag_base"] is True
    assert (strand.correlation_id, strand.causation_id, strand.regime_snapshot_id) == (
        "signal-1",
        "decision-1",
        "snapshot-1",
    )
    assert action.window_id
    assert strand.seq == world.position.last_seq


def test_holdouts_are_stable_per_attempt_and_shown_on_the_strand(w):
    """Decisions 46: with a holdout share of 1 every attempt is in both arms, on every strand of it, the exit
    included."""
    world = w.World(rules=replace(w.PLAIN, holdout=1.0))
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    arms = {s.arm for s in world.log if s.kind in ("pm_action", "uptrend_episode_summary", "uptrend_stage_transition")}
    assert arms == {"strength,tuning"}


def test_fills_go_only_to_the_position_that_planned_them(world):
    """A report for another order is an error, not a booking."""
    world.s1_buy()
    order = replace(world.order, action_id="somebody-else")
    world.order = order
    with pytest.raises(TradingError, match="is not what position"):
        world.bar("S1", 100.0)


def test_episode_summaries_name_the_windows_entered(world):
    """The summary of the entered S1 episode carries the window with its lever evidence and outcome."""
    happy(world)
    summary = world.kinds("uptrend_episode_summary")[0].payload
    assert isinstance(summary, EpisodeSummary)
    assert summary.entered
    assert not summary.partial
    window = summary.windows[0]
    assert window.entered
    assert window.outcome == "success"
    assert window.blocked_by == ()
    assert {e.lever for e in window.levers} == {"ts_min", "halo", "slope_min"}


def with_pool(world):
    """Bought in S1, trimmed in S2: holding, with proceeds in the pool, everything armed."""
    world.s1_buy()
    world.bar("S2", 104.0)
    world.trim(106.0, state="S2")
    world.bar("S2", 104.0)
    assert world.position.pool.basis > 0


def retest(world):
    """An S2 bar at EMA333 whose base gates say buy."""
    return world.bar("S2", 95.2, ts_score=0.7)


def test_an_s2_retest_spends_the_pool_once(world):
    """F4: from the pool (quantity up, pool cleared); a second buy in the same S2 without a trim: none."""
    with_pool(world)
    before = world.position.ledger.quantity
    retest(world)
    retest(world)
    assert world.position.ledger.quantity > before
    assert world.position.pool.basis == 0
    retest(world)
    assert [rule for rule, _ in world.actions] == [5, 3, 6]


def test_an_s2_retest_when_flat_is_bought_once_until_a_trim_rearms_it(world):
    """F4: flat and armed buys; flat again it waits for the next arming."""
    world.bar("S1", 90.0)
    world.bar("S2", 104.0)
    retest(world)
    retest(world)
    assert world.position.armed_s2 is False
    retest(world)
    assert world.actions == [(6, "entry")]


def test_the_dx_ladder_has_three_rungs_each_half_an_atr_lower(world):
    """F8: rungs at fill - .5 ATR, at most three, the pool is empty after the third; a new trim starts a fresh one."""
    with_pool(world)
    world.bar("S3", 105.0)
    world.position = replace(world.position, armed_s3=False)
    bought = []
    for price in (98.0, 97.9, 97.6, 97.4, 97.3, 96.9, 96.8, 96.0):
        world.dx_buy(price, atr=1.0)
        bought.append((price, len([r for r, _ in world.actions if r == 7])))
    assert bought == [(98.0, 1), (97.9, 1), (97.6, 1), (97.4, 2), (97.3, 2), (96.9, 3), (96.8, 3), (96.0, 3)]
    assert world.position.pool.basis == 0
    assert world.position.pool.dx_count == 0
    world.trim(112.0)
    world.bar("S3", 108.0)
    assert world.position.pool.basis > 0
    assert not world.position.pool.recovery


def test_a_trim_during_recovery_starts_a_fresh_pool(world):
    """F8: after the first DX rung the old proceeds are spent: a new trim's proceeds are all there is."""
    with_pool(world)
    world.bar("S3", 105.0)
    world.dx_buy(96.0)
    world.bar("S3", 105.0)
    assert world.position.pool.recovery
    world.trim(112.0)
    world.bar("S3", 108.0)
    sold = world.kinds("order_filled")[-1].payload
    assert world.position.pool.basis == (sold.quantity * Decimal("112.0")).quantize(Decimal("0.000001"))


def test_the_reclaim_rebuy_is_one_buy_of_what_the_emergency_sold(w):
    """F1 variant, switch on: one rebuy of 30 % of the emergency's proceeds, then no more until the next emergency."""
    world = w.World(rules=replace(w.PLAIN, pm=PmRules(reclaim_enabled=True)))
    world.s1_buy()
    world.bar("S2", 104.0)
    world.bar("S3", 105.0)
    world.emergency()
    world.bar("S3", 96.0, reclaimed_ema333=True)
    value = world.position.emergency.exit_value
    world.bar("S3", 99.0, reclaimed_ema333=True)
    assert world.actions[-1] == (4, "add")
    assert world.kinds("pm_action")[-1].payload.notional_usd == (value * Decimal("0.3")).quantize(Decimal("0.000001"))
    assert world.position.emergency.rebuy_used
    assert not world.position.emergency.filled
    assert len(world.actions) == 3


def test_a_partial_emergency_exit_goes_on_next_bar_and_adds_up(world):
    """F4: half sold below EMA333, the rest next bar; what was sold adds up to one exit value."""
    world.s1_buy()
    world.bar("S2", 104.0)
    world.bar("S3", 105.0)
    world.emergency(94.0)
    world.share = 0.5
    world.emergency(94.0)
    world.share = 1.0
    assert world.position.holding
    assert not world.position.emergency.filled
    world.bar("S3", 94.0, emergency_exit=True)
    assert not world.position.holding
    assert world.position.emergency.filled
    sold = [s.payload for s in world.kinds("order_filled") if s.payload.rule == 2]
    proceeds = sum((f.quantity * Decimal("94.0") for f in sold), Decimal(0))
    assert world.position.emergency.exit_value == proceeds.quantize(Decimal("0.000001"))


def test_a_first_dip_is_bought_once_per_s3(world):
    """Rule 9: first dip, used by its fill, open again in the next S3."""
    world.bar("S1", 90.0)
    world.bar("S2", 104.0)
    for _ in range(3):
        world.bar("S3", 101.0, first_dip=True)
    assert world.actions == [(9, "entry")]
    assert world.position.first_dip_used


# ------------------------------------------------------------------ intent


def planned(w, intent, **kw):
    """The S1 entry of a world where the token's mentions add this to A and E."""
    world = w.World(intent=intent, **kw)
    world.s1_buy()
    return world.kinds("pm_action")[0]


def test_an_action_tells_the_markets_appetite_and_the_tokens_intent_apart(w):
    """a_base and e_base are what the plan starts from, intent included (trading.md 3.2); reasons have the parts."""
    action = planned(w, (0.25, -0.10)).payload
    assert (action.a_base, action.e_base) == pytest.approx((0.75, 0.40))
    assert {name: action.reasons[name] for name in ("a_regime", "e_regime", "intent_a", "intent_e")} == {
        "a_regime": 0.5, "e_regime": 0.5, "intent_a": 0.25, "intent_e": -0.10,
    }  # fmt: skip


def test_intent_moves_the_size_of_an_entry_and_its_scope(w):
    """A .5 takes 30 %, A .75 takes 30 + 20*.25/.35 %; A_mode and E_mode of the scope are those of the same numbers."""
    plain, bought, mocked = (planned(w, intent) for intent in ((0.0, 0.0), (0.25, -0.20), (-0.30, 0.40)))
    assert plain.payload.base_size_frac == pytest.approx(0.30)
    assert bought.payload.base_size_frac == pytest.approx(0.30 + 0.20 * 0.25 / 0.35)
    assert mocked.payload.base_size_frac == pytest.approx(0.10 + 0.20 * 0.05 / 0.35)
    modes = [(s.scope["A_mode"], s.scope["E_mode"]) for s in (plain, bought, mocked)]
    assert modes == [("normal", "normal"), ("aggressive", "patient"), ("patient", "aggressive")]


def test_intent_moves_trims(w):
    """Mocking raises E by .40: a trim of 60 % instead of 30 %, times 1.5 before payback."""
    fractions = []
    for intent in ((0.0, 0.0), (-0.30, 0.40)):
        world = w.World(intent=intent)
        world.s1_buy()
        world.bar("S2", 101.0)
        world.bar("S3", 103.0)
        world.trim(110.0)
        fractions.append(world.kinds("pm_action")[-1].payload.size_frac)
    assert fractions == pytest.approx([0.45, 0.90])


def test_intent_is_no_business_of_the_snapshot_or_of_full_exits(w):
    """The strand refers to the market's own snapshot; an exit sells everything."""
    world = w.World(intent=(0.25, -0.20))
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    assert {s.regime_snapshot_id for s in world.kinds("pm_action")} == {"snapshot-1"}
    assert world.kinds("pm_action")[-1].payload.size_frac == 1.0


# ------------------------------------------------------------------ what could not be done


def skips(world):
    return [(s.payload.rule, s.payload.side, s.payload.reasons) for s in world.kinds("pm_skipped")]


def test_a_rule_that_could_not_be_carried_out_is_told_once_with_its_reasons(world):
    """F4: buys are off on three bars that would buy; one strand says so, and it blames the rule by its number."""
    world.guard = Guard(("stop_buy",))
    for _ in range(3):
        world.s1_buy()
    assert skips(world) == [(5, "buy", ("stop_buy",))]
    assert world.kinds("pm_skipped")[0].correlation_id == "signal-1"
    assert world.actions == []


def test_another_reason_is_told_again_and_so_is_the_old_one_in_the_next_attempt(world):
    """Told anew: when the reasons change, and when another attempt has begun."""
    for reasons in (("stop_buy",), ("drawdown",), ("drawdown",)):
        world.guard = Guard(reasons)
        world.s1_buy()
    world.over("S1")
    world.s1_buy()
    assert skips(world) == [(5, "buy", ("stop_buy",)), (5, "buy", ("drawdown",)), (5, "buy", ("drawdown",))]


def test_an_action_that_was_planned_lets_the_next_skip_be_told(world):
    """Skipped, bought, and skipped for the same reason again: two strands."""
    world.bar("S1", 99.0)
    world.bar("S2", 101.0)
    world.bar("S3", 103.0)
    world.guard = Guard(("stop_buy",))
    world.dx_buy()
    world.guard = OPEN
    world.dx_buy()
    world.trim(110.0)
    world.guard = Guard(("stop_buy",))
    world.bar("S3", 108.0)
    world.dx_buy()
    assert [rule for rule, _ in world.actions] == [8, 3]
    assert [reasons for _, _, reasons in skips(world)] == [("stop_buy",), ("stop_buy",)]


def test_a_bar_on_which_no_rule_matches_tells_nothing(world):
    """A hold is no skip."""
    happy(world)
    assert skips(world) == []
