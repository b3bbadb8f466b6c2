"""Optional rules that end a trade early or bar the next entry (trading.md 3.4, 4.4): each acts, each is silent, and
all of them are folded from strands."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import pytest

from edgebook.domain.book import Account, Ledger, Position, Tally, Terms
from edgebook.domain.codec import from_json, to_json
from edgebook.domain.errors import TradingError
from edgebook.trading.actions import wants_exit
from edgebook.trading.position import evolve
from edgebook.trading.rules import PmRules
from edgebook.trading.settle import over, restless
from edgebook.trading.terms import stop_price
from edgebook.trading.tick import awake

D = Decimal


@pytest.fixture
def under(w):
    """``under(switch=value, ...)``: a world whose book runs under these switches."""

    def build(**pm):
        return w.World(rules=replace(w.PLAIN, pm=PmRules(**pm)))

    return build


def held(world):
    """Bought in S1 at 100, with an ATR of 1."""
    world.s1_buy()
    world.bar("S1", 100.0)
    assert world.position.holding


def closes(world):
    """Reason of each closed trade, in order."""
    return [strand.payload.exit_reason for strand in world.kinds("position_closed")]


def refolded(world) -> Position:
    """The position as its strands alone make it."""
    position = None
    for strand in world.log:
        position = evolve(position, strand)
    return position


# ---------------------------------------------------------------- disaster stop


def test_the_disaster_stop_sells_all_and_closes_the_trade_while_the_attempt_goes_on(under):
    """Rule 1 with the exit key of the state it is in; the fill closes the trade, the attempt keeps its name."""
    world = under(disaster_stop_atr=2.0)
    held(world)
    world.bar("S1", 97.99)
    action = world.kinds("pm_action")[-1].payload
    assert (action.rule, action.decision_type, action.pattern_key) == (
        1,
        "exit",
        "module=pm|pattern_key=uptrend.S1.exit",
    )
    assert action.reasons["exit_reason"] == "disaster_stop"
    world.bar("S1", 97.0)
    assert closes(world) == ["disaster_stop"]
    assert (world.position.status, world.position.trade_id, world.position.terms) == ("watchlist", "", None)
    assert world.position.attempt_id


def test_the_disaster_stop_reads_the_average_cost_and_closes_only(under):
    """An add at 104 lifts the average to about 101, and the stop with it; a low below it without a close does not
    count."""
    world = under(disaster_stop_atr=2.0)
    held(world)
    world.bar("S2", 104.0)
    world.bar("S3", 104.0, first_dip=True)
    world.bar("S3", 104.0)
    stop = stop_price(world.position)
    assert 98.0 < stop < 102.0
    world.bar("S3", stop + 0.01, low=90.0)
    assert world.actions[-1] == (9, "add")
    world.bar("S3", stop - 0.01)
    assert world.actions[-1] == (1, "exit")


def test_the_disaster_stop_comes_before_an_emergency_exit_and_after_the_end_of_the_attempt(under):
    """Below both, the trade is closed, not kept open for a rebuy; at S0 the engine's own reason is told."""
    world = under(disaster_stop_atr=2.0)
    held(world)
    world.bar("S2", 104.0)
    world.bar("S3", 105.0)
    world.emergency(94.0)
    assert world.actions[-1] == (1, "exit")
    world.bar("S3", 94.0)
    ended = under(disaster_stop_atr=2.0)
    held(ended)
    ended.over("S1", 90.0)
    ended.bar("S0", 90.0)
    assert (closes(world), closes(ended)) == (["disaster_stop"], ["s1_to_s0_bearish_order"])


def test_a_stop_once_begun_goes_on_whatever_the_price_does(under):
    """Refused at first, then sold above the stop: the reason stays, and nothing is bought in between."""
    world = under(disaster_stop_atr=2.0)
    held(world)
    world.bar("S1", 97.0)
    world.refuse = "rejected"
    world.bar("S2", 104.0)
    world.bar("S2", 95.2, ts_score=0.7)
    world.refuse = ""
    world.bar("S2", 104.0)
    assert world.actions[1:] == [(1, "exit")] * 3
    keys = [s.payload.pattern_key.rpartition("=")[2] for s in world.kinds("pm_action")[1:]]
    assert keys == ["uptrend.S1.exit", "uptrend.S2.exit", "uptrend.S2.exit"]
    assert closes(world) == ["disaster_stop"]


def test_an_entry_without_a_known_atr_has_no_stop(w):
    """Not a number compares with nothing: the trade is left by other rules."""
    position = w.position(
        ledger=Ledger(D(10), D(1000), D(1000)), entry_atr=float("nan"), terms=Terms(stop_atr=2.0), trade_id="t"
    )
    assert math.isnan(stop_price(position))
    assert not wants_exit(position, w.reading("S1", w.T0, price=0.01))


# ---------------------------------------------------------------- time stop


def test_the_time_stop_counts_whole_bars_from_the_first_fill_and_missing_bars_too(under):
    """The fill is at the open of the second bar: with 4 bars the exit is planned at the close of the fourth bar after
    it, or on the first bar after a gap that spans it."""
    world, holed = under(max_bars_in_attempt=4), under(max_bars_in_attempt=4)
    held(world)
    for _ in range(2):
        world.bar("S1", 99.0)
        assert len(world.actions) == 1
    world.bar("S1", 99.0)
    held(holed)
    holed.bar("S1", 99.0, gap=5)
    assert world.actions[1:] == holed.actions[1:] == [(1, "exit")]
    world.bar("S1", 99.0)
    assert closes(world) == ["time_stop"]


def test_a_second_trade_of_an_attempt_has_its_own_time(under):
    """The first trade is left after two bars; a retest in the same attempt is held two bars again."""
    world = under(max_bars_in_attempt=2)
    held(world)
    world.bar("S2", 104.0)
    world.bar("S2", 95.2, ts_score=0.7)
    assert closes(world) == ["time_stop"]
    world.bar("S2", 104.0)
    assert world.position.holding
    world.bar("S2", 104.0)
    world.bar("S2", 104.0)
    assert closes(world) == ["time_stop"] * 2
    assert [rule for rule, _ in world.actions] == [5, 1, 6, 1]


def test_a_flat_trade_that_has_outlived_itself_is_closed(under):
    """After an emergency exit there is nothing to sell: the trade is closed at once, for the same reason."""
    world = under(max_bars_in_attempt=5)
    held(world)
    world.bar("S2", 104.0)
    world.bar("S3", 105.0)
    world.emergency()
    assert closes(world) == []
    world.bar("S3", 94.0)
    assert closes(world) == ["time_stop"]


# ---------------------------------------------------------------- timeout of an emergency exit


def emergency_filled(world):
    """The emergency exit has filled at the open of the last bar: flat, the trade open."""
    held(world)
    world.bar("S2", 104.0)
    world.bar("S3", 105.0)
    world.emergency()
    world.bar("S3", 94.0)
    assert (world.position.holding, bool(world.position.trade_id)) == (False, True)


def test_the_timeout_closes_the_flat_trade_and_the_attempt_goes_on_without_a_rebuy(under):
    """Three bars after the fill the trade is closed; a reclaim is no rebuy then, but another buy opens a new trade."""
    world = under(emergency_timeout_bars=3, reclaim_enabled=True)
    emergency_filled(world)
    world.bar("S3", 94.0)
    assert closes(world) == []
    world.bar("S3", 94.0)
    assert closes(world) == ["emergency"]
    assert world.position.attempt_id
    world.bar("S3", 99.0, reclaimed_ema333=True)
    assert world.actions[-1] == (2, "emergency_exit")
    world.dx_buy()
    assert world.actions[-1] == (8, "entry")


def test_a_rebuy_before_the_timeout_keeps_the_trade(under):
    """What is bought back is held, however many bars go by."""
    world = under(emergency_timeout_bars=3, reclaim_enabled=True)
    emergency_filled(world)
    world.bar("S3", 99.0, reclaimed_ema333=True)
    for _ in range(5):
        world.bar("S3", 99.0)
    assert (closes(world), world.position.holding) == ([], True)


def test_an_emergency_exit_does_not_close_a_trade_whose_attempt_was_joined_midway(under):
    """Under `trade_mid_attempt` the attempt has no name, yet only S0 ends it, or the timeout where it is on."""
    for switch, reason, bars in (({}, [], 5), ({"emergency_timeout_bars": 3}, ["emergency"], 3)):
        world = under(trade_mid_attempt=True, **switch)
        world.bar("S3", 105.0)
        world.bar("S3", 101.0, first_dip=True)
        world.bar("S3", 101.0)
        assert (world.position.holding, world.position.attempt_id) == (True, "")
        world.emergency()
        for _ in range(bars):
            assert (closes(world), bool(world.position.trade_id)) == ([], True)
            world.bar("S3", 94.0, emergency_exit=True)
        assert closes(world) == reason
        assert refolded(world) == world.position
        world.over("S3", 93.0)
        assert closes(world) == (reason or ["all_emas_below_333"])


def test_without_the_timeout_the_flat_trade_waits_for_the_end_of_the_attempt(under):
    """Default: never."""
    world = under()
    emergency_filled(world)
    for _ in range(50):
        world.bar("S3", 94.0)
    assert closes(world) == []


# ---------------------------------------------------------------- the block


def attempt(world, price, *, s1=True, s2=False, s3=False):
    """One attempt that buys at 100 in S1, at 95.2 in S2 or both, may reach S3, and is sold at ``price``."""
    world.bar("S0", 100.0)
    world.s1_buy() if s1 else world.bar("S1", 90.0)
    world.bar("S1", 100.0)
    world.bar("S2", 104.0)
    if s2:
        world.bar("S2", 95.2, ts_score=0.7)
        world.bar("S2", 104.0, open_=95.2)
    if s3:
        world.bar("S3", 105.0)
        world.over("S3", price)
    else:
        world.bar("S1", 100.0)
        world.over("S1", price)
    world.bar("S0", price)


def s1_try(world):
    """Why an S1 signal of a new attempt is skipped; empty when it is bought."""
    world.bar("S0", 100.0)
    return world.s1_buy().skipped


def s2_try(world):
    """Why a flat S2 retest of the running attempt is skipped; empty when it is bought."""
    world.bar("S1", 90.0)
    world.bar("S2", 104.0)
    return world.bar("S2", 95.2, ts_score=0.7).skipped


BLOCK = ("episode_block",)


@pytest.mark.parametrize(
    ("made", "in_s1", "in_s2"),
    [
        ({"price": 95.0}, BLOCK, BLOCK),
        ({"price": 95.0, "s3": True}, BLOCK, BLOCK),
        ({"price": 90.0, "s1": False, "s2": True}, (), BLOCK),
        ({"price": 110.0}, (), ()),
        ({"price": 110.0, "s1": False, "s2": True}, (), ()),
        ({"price": 90.0, "s1": False}, (), ()),
    ],
    ids=["s1 lost", "s1 lost after an S3", "s2 lost", "s1 won", "s2 won", "nothing bought"],
)
def test_a_lost_attempt_bars_what_it_was_entered_by(under, made, in_s1, in_s2):
    """Entered in S1 and lost: S1 and S2; entered in S2 alone: S2; a failure with a profit bars nothing."""
    for barred, tried in ((in_s1, s1_try), (in_s2, lambda world: (world.bar("S0"), s2_try(world))[1])):
        world = under(episode_block=True)
        attempt(world, **made)
        assert tried(world) == barred
        off = under()
        attempt(off, **made)
        assert tried(off) == ()
        assert off.position.blocked == ""


def test_an_s3_that_is_seen_lifts_the_block(under):
    """Barred until the trend gets to S3 without the position, free in the next attempt."""
    world = under(episode_block=True)
    attempt(world, 95.0)
    assert s1_try(world) == BLOCK
    world.bar("S2", 104.0)
    assert world.position.blocked == "S1"
    world.bar("S3", 105.0)
    assert world.position.blocked == ""
    world.over("S3", 99.0)
    assert s1_try(world) == ()


def test_a_lost_s2_entry_does_not_shorten_the_block_of_a_lost_s1_entry(w):
    """The wider block stays."""
    world = w.World(rules=replace(w.PLAIN, pm=PmRules(episode_block=True)))
    attempt(world, 90.0, s1=False, s2=True)
    assert world.position.blocked == "S2"
    attempt(world, 95.0)
    assert world.position.blocked == "S1"


def test_a_barred_window_says_so_and_has_no_vote(under):
    """`blocked_by` the block on every bar; nothing else stands in the way."""
    world = under(episode_block=True)
    attempt(world, 95.0)
    s1_try(world)
    world.over("S1", 99.0)
    (window,) = world.kinds("uptrend_episode_summary")[-1].payload.windows
    assert window.blocked_by == BLOCK
    assert not window.entered


def test_the_block_waits_for_the_end_of_the_attempt_and_adds_up_its_trades(under):
    """A trade stopped out at a loss bars nothing while its attempt runs; a retest of the same attempt that gains more
    makes it a profitable failure."""
    lost, won = (under(episode_block=True, max_bars_in_attempt=2) for _ in range(2))
    for world, price in ((lost, 94.0), (won, 180.0)):
        held(world)
        world.bar("S2", 99.0)
        world.bar("S2", 95.2, open_=99.0, ts_score=0.7)
        assert (closes(world), world.position.blocked) == (["time_stop"], "")
        world.bar("S2", 95.0)
        assert world.position.holding
        world.bar("S2", price)
        world.bar("S1", price)
        assert closes(world) == ["time_stop"] * 2
        world.over("S1", price)
    assert (lost.position.blocked, won.position.blocked) == ("S1", "")


def test_a_sale_that_drags_on_into_the_next_attempt_is_counted_to_its_own(under):
    """The exit of a lost attempt is refused until the next one has begun: the block stands at the close."""
    world = under(episode_block=True)
    held(world)
    world.over("S1", 95.0)
    world.refuse = "rejected"
    world.bar("S0", 95.0)
    world.bar("S1", 95.0)
    assert world.position.blocked == ""
    world.refuse = ""
    world.bar("S1", 95.0)
    world.bar("S1", 95.0)
    assert (len(closes(world)), world.position.blocked) == (1, "S1")


def test_an_archived_position_keeps_its_block_and_forgets_its_running_tally(w):
    """What its attempt came to will not be true when it is woken; only an S3 that was seen lifts the block."""
    lost = w.position(blocked="S1", tally=Tally("attempt-1", D(-5), True))
    gone = evolve(lost, w.status_strand("away", status="archived", reason="archived"))
    assert (gone.blocked, gone.tally) == ("S1", None)


# ---------------------------------------------------------------- memory and waking


def test_an_open_trade_keeps_the_rules_it_was_opened_under(under, w):
    """Decisions 11: switched off afterwards, the trade still ends; switched on afterwards, it does not."""
    strict, loose = under(max_bars_in_attempt=2), under()
    for world in (strict, loose):
        held(world)
        world.rules = loose.rules if world is strict else strict.rules
        for _ in range(3):
            world.bar("S1", 99.0)
    assert closes(strict) == ["time_stop"]
    assert closes(loose) == []


@pytest.mark.parametrize(
    ("switch", "every_bar"),
    [
        ({}, False),
        ({"disaster_stop_atr": 20.0}, True),
        ({"max_bars_in_attempt": 9}, True),
        ({"emergency_timeout_bars": 9}, True),
        ({"episode_block": True}, False),
    ],
    ids=str,
)
def test_a_trade_that_may_end_on_any_bar_looks_at_every_bar(under, switch, every_bar):
    """From its first fill to its close, and nobody else: neither without the rules, nor before, nor after."""
    world = under(**switch)
    asked = lambda: (restless(world.position), awake(world.position, world.memory, 0, world.now, world.rules))  # noqa: E731
    world.bar("S0")
    world.s1_buy()
    world.bar("S1", 99.0)
    assert asked() == (every_bar, every_bar)
    world.bar("S2", 104.0)
    world.bar("S3", 105.0)
    world.emergency()
    world.bar("S3", 94.5)
    assert (world.position.holding, restless(world.position)) == (False, every_bar)
    world.over("S3", 93.0)
    assert asked() == (False, False)


def test_a_flat_trade_whose_time_is_not_up_stays_open(w):
    """Asked on a bar in S3, `over` answers by the terms alone."""
    flat = w.position(trade_id="t", status="active", attempt_id="a", entry_ts=w.T0, terms=Terms(most_bars=3))
    assert over(flat, w.reading("S3", w.T0 + 9 * w.HOUR)) == ""
    sold = replace(flat, actions=_sold_at(w, w.T0))
    assert over(sold, w.reading("S3", w.T0 + 2 * w.HOUR)) == ""
    assert over(sold, w.reading("S3", w.T0 + 3 * w.HOUR)) == "time_stop"


def _sold_at(w, ts):
    world = w.World()
    held(world)
    return (replace(world.position.actions[0], rule=2, ts=ts),)


def test_the_memory_of_these_rules_is_folded_and_survives_json(under):
    """Terms, tally and block of a rebuilt position equal the live ones at every step, and a row without them loads."""
    world = under(episode_block=True, disaster_stop_atr=2.0, max_bars_in_attempt=30, emergency_timeout_bars=5)
    seen = set()

    def check():
        assert refolded(world) == world.position
        row = to_json(world.position)
        assert from_json(Position, row) == world.position
        seen.update(name for name in ("terms", "tally", "blocked") if row[name])

    held(world)
    check()
    for bar in (("S1", 97.0), ("S1", 97.0), ("S0", 97.0), ("S0", 97.0)):
        world.bar(*bar)
        check()
    assert seen == {"terms", "tally", "blocked"}
    old = {name: value for name, value in to_json(world.position).items() if name not in seen}
    assert from_json(Position, old) == replace(world.position, blocked="")
    assert world.account != Account("paper", world.rules.starting_cash_usd)


def test_by_default_the_log_says_nothing_of_these_rules(world):
    """No word of them in any strand's reasons, and no memory."""
    held(world)
    world.over("S1", 95.0)
    world.bar("S0", 95.0)
    names = {"disaster_stop_atr", "max_bars_in_attempt", "emergency_timeout_bars", "episode_block"}
    assert not any(names & set(strand.payload.reasons) for strand in world.kinds("pm_action"))
    assert (world.position.terms, world.position.tally, world.position.blocked) == (None, None, "")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"disaster_stop_atr": -1.0}, "disaster_stop_atr must be 0 (off) or more, was -1.0"),
        ({"disaster_stop_atr": float("nan")}, "disaster_stop_atr must be 0 (off) or more, was nan"),
        ({"max_bars_in_attempt": -1}, "max_bars_in_attempt must be 0 (off) or more, was -1"),
        ({"emergency_timeout_bars": -1}, "emergency_timeout_bars must be 0 (off) or more, was -1"),
        (
            {"emergency_timeout_bars": 9, "max_bars_in_attempt": 9},
            "emergency_timeout_bars is 9 and max_bars_in_attempt is 9; the timeout must be the smaller one",
        ),
    ],
)
def test_numbers_that_make_no_sense_are_refused(given, says):
    """By name, with the value and what would be right."""
    with pytest.raises(TradingError) as refused:
        PmRules(**given)
    assert says in refused.value.message
