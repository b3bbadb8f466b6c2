"""Pausing, resuming and archiving positions: what each status lets through, and who may be given it (trading.md 2)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from edgebook.domain.book import TokenIntents
from edgebook.domain.errors import InputError
from edgebook.trading.lifecycle import retire, turn
from edgebook.trading.position import evolve
from edgebook.trading.rules import PmRules

DAY = 86_400_000_000


def wish(world, what, bars=400):
    """An operator's wish about the world's position, recorded; the strand or None."""
    told = turn(world.position, what, bars=bars, now=world.now, rules=world.rules, signal_id="signal-1")
    world.append((told,) if told else ())
    return told


def bought(world):
    """An open trade in S1."""
    world.bar("S0")
    world.s1_buy()
    world.bar("S1")


def test_a_paused_position_buys_nothing_and_its_window_says_why(world):
    """The flag is on, the bar is skipped as paused, the window is blocked and so has no vote; after resume it buys."""
    world.bar("S0")
    assert wish(world, "pause").payload.reason == "operator"
    assert world.s1_buy().skipped == ("paused",)
    assert world.memory.episodes[0].window.blocked_by == ("paused",)
    wish(world, "resume")
    assert world.position.status == "watchlist"
    world.s1_buy()
    assert world.actions == [(5, "entry")]


def test_exits_and_trims_of_a_paused_position_go_on_and_it_stays_paused(world):
    """Trim, emergency and the end of the attempt are carried out; the closed trade leaves it paused."""
    bought(world)
    world.bar("S2", 101.0)
    world.bar("S3", 103.0)
    wish(world, "pause")
    world.trim()
    world.bar("S3", 108.0)
    world.emergency()
    world.bar("S3", 94.5, emergency_exit=True)
    assert [rule for rule, _ in world.actions] == [5, 3, 2]
    world.over("S3", 93.0)
    assert len(world.kinds("position_closed")) == 1
    assert world.position.status == "paused"
    assert wish(world, "resume").payload.status == "watchlist"


def test_an_exit_of_a_paused_position_is_tried_until_nothing_is_left(world):
    """A refused exit order is planned again on the next bar, without any flag."""
    bought(world)
    wish(world, "pause")
    world.refuse = "rejected"
    world.over("S1")
    world.bar("S0")
    assert [rule for rule, _ in world.actions] == [5, 1, 1]
    assert wish(world, "resume").payload.status == "closing"
    world.refuse = ""
    world.bar("S0")
    assert len(world.kinds("position_closed")) == 1
    assert world.position.status == "watchlist"


def test_an_order_under_way_when_it_is_paused_is_booked(world):
    """What the venue filled is true, whatever the status; the trade is then managed."""
    world.bar("S0")
    world.s1_buy()
    wish(world, "pause")
    world.bar("S1")
    assert world.position.holding
    assert world.position.status == "paused"
    assert wish(world, "resume").payload.status == "active"


@pytest.mark.parametrize(("what", "status"), [("pause", "paused"), ("archive", "archived"), ("resume", "watchlist")])
def test_a_wish_that_is_fulfilled_already_changes_nothing(world, what, status):
    """Said twice: one strand at most."""
    wish(world, what)
    assert world.position.status == status
    assert wish(world, what) is None


def test_turning_there_and_back_at_one_moment_is_three_facts(world):
    """Ids differ: nothing is taken for a repetition."""
    told = [wish(world, what) for what in ("pause", "resume", "pause")]
    assert len({s.id for s in told}) == 3
    assert world.position.status == "paused"


def test_only_a_flat_position_can_be_archived(world):
    """An open order or an open trade is refused with a way out, also while nothing is held after an emergency."""
    world.bar("S0")
    world.s1_buy()
    with pytest.raises(InputError, match="has an order open; pause it now"):
        wish(world, "archive")
    world.bar("S1")
    with pytest.raises(InputError, match="has a trade open; pause it now"):
        wish(world, "archive")
    world.over("S1")
    world.bar("S0")
    assert wish(world, "archive").payload.status == "archived"


@pytest.mark.parametrize("status", ["dormant", "archived"])
def test_what_buys_nothing_cannot_be_paused(w, status):
    """Refused in one line that names the status."""
    with pytest.raises(InputError, match=f"is {status}: nothing is bought there"):
        turn(w.position(status=status), "pause", bars=400, now=w.T0, rules=w.PLAIN, signal_id="")


def test_an_archived_position_forgets_its_attempt_and_waits_for_the_next_one(world):
    """Archived in S1, woken in S1: that attempt was not followed, so nothing is bought before the next S0->S1."""
    world.bar("S0")
    world.bar("S1", ts_score=0.1)
    wish(world, "archive")
    assert world.position.attempt_id == ""
    assert world.s1_buy().memory is None
    wish(world, "resume")
    assert world.s1_buy().skipped == ("no_attempt",)
    world.bar("S0")
    world.s1_buy()
    assert world.actions == [(5, "entry")]


def test_an_archived_position_is_dormant_again_while_it_lacks_bars(world):
    """Resumed with 332 bars it gathers, with 333 it is watched."""
    wish(world, "archive")
    assert wish(world, "resume", bars=332).payload.status == "dormant"
    wish(world, "archive")
    assert wish(world, "resume", bars=333).payload.status == "watchlist"


# ---------------------------------------------------------------- for want of signals


def rules(w, days=10):
    """Plain rules that archive after so many days."""
    return replace(w.PLAIN, pm=PmRules(archive_after=days * DAY))


@pytest.mark.parametrize(("quiet_days", "archived"), [(9.999, False), (10, True)])
def test_a_flat_position_nobody_speaks_of_is_archived(w, quiet_days, archived):
    """Counted from the newest of mention, decision and status."""
    now = w.T0 + int(quiet_days * DAY)
    old, new = w.T0 - 50 * DAY, w.T0
    said = TokenIntents("exchange", "TOKUSDT", "TOKUSDT", 3, old)
    cases = [
        (w.position(status_since=old), replace(said, last_at=new), w.decision(ts=old)),
        (w.position(status_since=old), said, w.decision(ts=new)),
        (w.position(status_since=new), None, None),
        (w.position(status="dormant", status_since=new), said, None),
    ]
    for position, mentions, decision in cases:
        told = retire(position, mentions, decision, now, rules(w))
        assert (told is not None) is archived
        if told:
            assert told.payload.reason == "no_signal"
            assert evolve(position, told).status == "archived"


def test_by_default_and_while_it_is_not_flat_nothing_is_archived(w):
    """Setting 0; a trade, tokens or a pause: it stays as it is."""
    later = w.T0 + 4000 * DAY
    assert retire(w.position(), None, None, later, w.PLAIN) is None
    held = replace(w.position().ledger, quantity=Decimal(1))
    for position in (w.position(trade_id="t", status="active"), w.position(ledger=held), w.position(status="paused")):
        assert retire(position, None, None, later, rules(w)) is None
    assert retire(w.position(), None, None, later, rules(w)) is not None
