"""Fills, refusals, closures, and the decision that waits (trading.md 4.4-4.6; decisions 41, 59)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from edgebook.domain.book import Unsold
from edgebook.domain.decay import DAY
from edgebook.domain.errors import TradingError
from edgebook.trading.position import evolve
from edgebook.trading.projections import evolve_order, order_of, trade_of
from edgebook.trading.settle import closure, fill, over, restless

D = Decimal


@pytest.fixture
def finished(w, world):
    """A position whose trade has just been sold out, with the path of its bars."""
    caught = []
    world.close = lambda reason: caught.append((world.position, world.path(), reason))
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    world.bar("S0", 95.0)
    return caught[0]


def test_an_open_order_books_nothing(w, world):
    """No price yet: no strand, nothing changed, the position keeps waiting."""
    world.s1_buy()
    report = w.Report("open", D(0), 0.0, D(0), 0)
    settled = fill(world.position, world.order, report, now=world.now)
    assert (settled.strands, settled.position, settled.close_reason) == ((), world.position, "")


@pytest.mark.parametrize(("status", "kind"), [("rejected", "order_rejected"), ("expired", "order_expired")])
def test_a_refusal_is_recorded_with_its_reason(w, world, status, kind):
    world.s1_buy()
    report = w.Report(status, D(0), 0.0, D(0), 0, reason="too thin")
    settled = fill(world.position, world.order, report, now=world.now)
    assert (settled.strands[0].kind, settled.strands[0].payload.reason) == (kind, "too thin")
    assert settled.position.planned is None
    assert not settled.position.holding
    assert evolve_order(world.order, settled.strands[0]).status == status


def test_an_unknown_report_is_an_error(w, world):
    world.s1_buy()
    with pytest.raises(TradingError, match="came back 'maybe'"):
        fill(world.position, world.order, w.Report("maybe", D(1), 1.0, D(0), 0), now=world.now)


def test_the_first_fill_opens_the_trade(w, world):
    """Trade id, entry price, ATR and config version are those of the first fill; a second report is refused."""
    world.s1_buy(atr=1.5)
    order = world.order
    report = w.Report("filled", D(29), 101.0, D("0.3"), world.now, slippage_bps=100.0)
    settled = fill(world.position, order, report, now=world.now, config_version=7)
    p = settled.position
    assert (p.entry_price, p.entry_atr, p.pinned_config, p.entry_ts, p.status) == (101.0, 1.5, 7, world.now, "active")
    assert settled.strands[0].trade_id == p.trade_id != ""
    assert settled.strands[0].causation_id == order.action_id
    with pytest.raises(TradingError, match="waits for"):
        fill(p, order, report, now=world.now)


def test_orders_are_folded_from_strands(world):
    """The order row is a function of its action; its status of what became of it."""
    world.s1_buy()
    action = world.kinds("pm_action")[0]
    order = order_of(action)
    assert order == world.order
    assert (order.side, order.notional_usd, order.bar_volume_usd, order.liquidity_usd) == (
        "buy",
        D("3000.000000"),
        1e9,
        1e7,
    )
    assert order.expires_ts == order.planned_ts + 60_000_000
    world.bar("S1", 100.0)
    assert evolve_order(evolve_order(None, action), world.kinds("order_filled")[0]).status == "filled"
    with pytest.raises(TradingError, match="no order to change"):
        evolve_order(None, world.kinds("order_filled")[0])


def test_a_closure_writes_the_close_and_the_status(w, finished):
    """position_closed by the trade's id, then watchlist; the trade row is a function of the strand."""
    position, path, reason = finished
    closed, status = closure(position, path, reason=reason, now=w.T0, decision=w.decision(), rules=w.PLAIN)
    assert closed.payload.curator_id == "ann"
    assert closed.payload.entry_context == {"curator": "ann"}
    assert (status.payload.status, status.payload.reason, status.causation_id) == (
        "watchlist",
        "trade_closed",
        closed.id,
    )
    again = closure(position, path, reason=reason, now=w.T0 + 9, decision=w.decision(), rules=w.PLAIN)
    assert again[0].id == closed.id
    trade = trade_of(closed)
    assert (trade.trade_id, trade.curator_id, trade.actions, trade.exit_reason) == (
        position.trade_id, "ann", 2, "s1_to_s0_bearish_order",
    )  # fmt: skip
    after = evolve(evolve(position, closed), status)
    assert (after.decision_id, after.decision_used, after.actions, after.trade_id) == ("decision-1", True, (), "")


@pytest.mark.parametrize(("days", "taken"), [(7, True), (7.01, False)])
def test_a_waiting_decision_is_taken_up_at_closure_while_fresh(w, finished, days, taken):
    """Decisions 41: 7 days or younger; either way nothing waits any more."""
    position, path, reason = finished
    waiting = replace(position, pending_decision_id="decision-2", pending_since=w.T0)
    now = w.T0 + int(days * DAY)
    pending = w.decision(20.0, "decision-2")
    strands = closure(waiting, path, reason=reason, now=now, decision=w.decision(), rules=w.PLAIN, pending=pending)
    after = waiting
    for strand in strands:
        after = evolve(after, strand)
    assert (after.decision_id, after.decision_used) == (("decision-2", False) if taken else ("decision-1", True))
    assert (after.pending_decision_id, after.pending_since) == ("", 0)
    assert after.allocation_pct == (20.0 if taken else 10.0)


def test_a_flat_trade_closes_at_s0_and_not_before(w, world):
    """After an emergency exit the trade waits for S0; holding, or with an order open, it never closes this way."""
    s0, s3 = w.reading("S0", w.T0, exit_reason="all_emas_below_333"), w.reading("S3", w.T0)
    flat = w.position(trade_id="t", status="active", attempt_id="a")
    assert over(flat, s3) == ""
    assert over(flat, s0) == "all_emas_below_333"
    assert over(replace(flat, attempt_id=""), s3) == "attempt_over"
    assert over(w.position(), s0) == ""
    world.s1_buy()
    assert over(replace(flat, planned=world.position.planned), s0) == ""


def test_unfinished_business_is_restless(w):
    """Closing positions, and open trades whose attempt is over, need every bar."""
    assert restless(w.position(status="closing"))
    assert restless(w.position(trade_id="t", status="active"))
    assert not restless(w.position(trade_id="t", status="active", attempt_id="a"))
    assert not restless(w.position())


def _leaving(world, quantity):
    """A position that holds so little, at about 96, and has its exit planned; and the order."""
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    assert world.order.rule == 1
    ledger = replace(world.position.ledger, quantity=quantity)
    return replace(world.position, ledger=ledger), replace(world.order, quantity=quantity)


@pytest.mark.parametrize(("held", "gone"), [("0.04", True), ("0.9", False)])
def test_a_rest_the_venue_takes_no_order_for_is_written_off_unless_it_is_worth_something(w, world, held, gone):
    """4 USD are given up and the trade closes; 86 USD stay, whatever the venue says of its smallest order."""
    position, order = _leaving(world, D(held))
    refused = w.Report("rejected", D(0), 0.0, D(0), world.now, reason="too small", too_small=True)
    settled = fill(position, order, refused, now=world.now)

    assert [s.kind for s in settled.strands] == ["order_rejected", "position_status"][: 1 + gone]
    assert settled.position.holding is not gone
    assert bool(settled.close_reason) is gone
    assert settled.position.planned is None
    if gone:
        assert settled.position.ledger.realised == position.ledger.realised - position.ledger.cost


@pytest.mark.parametrize("status", ["rejected", "expired"])
def test_a_waiting_decision_is_taken_up_when_the_first_buy_comes_to_nothing(w, world, status):
    """Decisions 41: the position is flat again, so the newest decision is its own at once; nothing waits any more."""
    world.s1_buy()
    waiting = replace(world.position, pending_decision_id="decision-2", pending_since=w.T0, decision_used=True)
    report, pending = w.Report(status, D(0), 0.0, D(0), 0, reason="thin"), w.decision(20.0, "decision-2")

    settled = fill(waiting, world.order, report, now=world.now, correlation_id="signal-1", pending=pending)

    assert [s.kind for s in settled.strands] == [f"order_{status}", "position_status"]
    assert settled.strands[1].payload.reason == "decision_taken_up"
    assert settled.strands[1].causation_id == settled.strands[0].id
    after = settled.position
    assert (after.decision_id, after.allocation_pct, after.decision_used) == ("decision-2", 20.0, False)
    assert (after.pending_decision_id, after.pending_since, after.planned, after.status) == ("", 0, None, "watchlist")
    assert after == evolve(evolve(waiting, settled.strands[0]), settled.strands[1])


def test_a_waiting_decision_goes_on_waiting_when_the_first_buy_fills_or_a_later_one_does_not(w, world):
    """Filled, even in part: the trade is that of the first decision. Refused within a trade: nothing changes."""
    world.s1_buy()
    waiting, pending = replace(world.position, pending_decision_id="decision-2"), w.decision(20.0, "decision-2")
    part = w.Report("partial", D(9), 100.0, D(0), world.now)
    refused = w.Report("rejected", D(0), 0.0, D(0), world.now)
    for position, report in ((waiting, part), (replace(waiting, trade_id="t"), refused)):
        settled = fill(position, world.order, report, now=world.now, pending=pending)
        assert len(settled.strands) == 1
        assert (settled.position.decision_id, settled.position.pending_decision_id) == ("decision-1", "decision-2")


def test_a_paused_position_takes_the_waiting_decision_and_stays_paused(w, world):
    world.s1_buy()
    waiting = replace(world.position, pending_decision_id="decision-2", status="paused")
    report = w.Report("expired", D(0), 0.0, D(0), 0)
    after = fill(waiting, world.order, report, now=world.now, pending=w.decision(20.0, "decision-2")).position
    assert (after.decision_id, after.status) == ("decision-2", "paused")


def test_a_rest_is_given_up_at_the_price_of_its_sale(w, world):
    """0.04 tokens at 96: 3.84 USD of worth, known until the trade closes; the ledger books a loss of their cost."""
    position, order = _leaving(world, D("0.04"))
    refused = w.Report("rejected", D(0), 0.0, D(0), world.now, too_small=True)
    after = fill(position, order, refused, now=world.now).position
    assert after.unsold == Unsold(96.0, D("3.840000"), world.now)
    assert after.ledger.extracted == position.ledger.extracted
    closed, _ = closure(after, world.path(), reason="x", now=world.now, decision=w.decision(), rules=w.PLAIN)
    assert evolve(after, closed).unsold is None


def test_a_refused_sale_that_gives_nothing_up_is_worth_nothing(w, world):
    """A small rest refused for another reason stays held; a large one leaves no trace at all."""
    position, order = _leaving(world, D("0.04"))
    refused = w.Report("rejected", D(0), 0.0, D(0), world.now, reason="too thin")
    small = fill(position, order, refused, now=world.now).position
    assert (small.unsold, small.holding) == (Unsold(96.0), True)
    position, order = replace(position, ledger=replace(position.ledger, quantity=D("0.9"))), order
    assert fill(position, order, refused, now=world.now).position.unsold is None


def test_a_fill_that_a_lot_size_rounded_is_whole_when_the_broker_says_so(w, world):
    """The broker's word counts, not the comparison with what was asked for."""
    position, order = _leaving(world, D("0.9"))
    report = w.Report("filled", D("0.8999"), 100.0, D("0.09"), world.now)
    assert fill(position, order, report, now=world.now).strands[0].payload.partial is False
