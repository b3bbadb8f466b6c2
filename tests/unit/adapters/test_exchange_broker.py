"""ExchangeBroker against everything a venue can do to an order: money is spent once, and what filled is what is booked.

The market is XUSDT, 100.00 in the middle (see `tests.exchange_world`); grace is 30 s. A fault named "carried out" is
one where the exchange did what it was asked and only its answer was lost.
"""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from decimal import Decimal, getcontext
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.exchange import DEPTH, HANG_SECONDS, ORDER, TRADES, Exchange, Rules
from tests.exchange_world import KEY, SECRET, SECRETS, World, world

from edgebook.adapters.brokers.exchange import ExchangeBroker, attempt_id
from edgebook.adapters.venue import NoAnswerError, connect, environment_secrets
from edgebook.domain.errors import EdgebookError, InputError, TradingError
from edgebook.domain.ids import stable_id
from edgebook.ports import Quote
from edgebook.runtime.logs import plain_log

PACKAGE = Path(__file__).resolve().parents[3] / "src" / "edgebook"
BUY_ID = stable_id("order", "buy", "1")

#: Answers after which nobody knows whether the order was taken.
LOST = {
    "connection dropped": "drop",
    "503": (503, "<html>Service Unavailable</html>"),
    "500 with a code": (500, {"code": -1001, "msg": "Internal error; unable to process your request."}),
    "execution status unknown": (400, {"code": -1006, "msg": "Execution status unknown."}),
    "backend timeout": (400, {"code": -1007, "msg": "Timeout waiting for response from backend server."}),
    "html": "<html>It works!</html>",
    "empty": "",
    "json of another kind": "[1, 2, 3]",
    "empty object": "{}",
    "another order": '{"symbol": "XUSDT", "orderId": 99, "clientOrderId": "other", "origQty": "1", "status": "NEW"}',
    "numbers that are none": '{"symbol": "XUSDT", "orderId": "", "origQty": "NaN", "executedQty": "x", "status": "?"}',
    "endless brackets": "[" * 100_000,
    "redirect": (302, ""),
}  # fmt: skip


@pytest.fixture
def here():
    """A world with a live broker."""
    with world() as made:
        yield made


def posts(here: World) -> list[str]:
    """Client ids of the orders that were sent, whether or not they arrived."""
    return [p["newClientOrderId"] for m, path, p in here.exchange.requests if (m, path) == ("POST", ORDER)]


def bought(here: World) -> Decimal:
    """Tokens that have come into the account."""
    return here.exchange.balances["X"] - 1_000


# ------------------------------------------------------------------ answers that get lost


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST)
def test_an_order_whose_answer_was_lost_but_that_filled_is_found_and_booked_once(here, answer):
    """The exchange carried it out: the next call finds it by its client id, and nothing is sent again."""
    here.exchange.fail(ORDER, answer, method="POST", carried_out=True)
    order = here.buy()
    assert here.execute(order).status == "open"
    here.wait(1)
    done = here.execute(order)
    assert done.status == "filled"
    assert done.quantity == bought(here)
    assert posts(here) == [BUY_ID]


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST)
def test_an_order_that_never_arrived_is_sent_again_only_after_two_look_ups_a_grace_apart(here, answer):
    """Look-ups at 1 s and 30 s prove nothing, the one at 31 s does: a second attempt under its own id."""
    here.exchange.fail(ORDER, answer, method="POST")
    order = here.buy()
    first = here.execute(order)
    assert first.status == "open"
    assert first.reason
    for seconds in (1, 29):
        here.wait(seconds)
        assert here.execute(order).status == "open"
    assert posts(here) == [BUY_ID]
    here.wait(1)
    done = here.execute(order)
    assert (done.status, done.quantity) == ("filled", bought(here))
    assert posts(here) == [BUY_ID, attempt_id(BUY_ID, 1, 36)]


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_real_time_out_is_waited_for_once_and_leaves_the_order_open(carried_out):
    """The client gives up after .5 s; what then happens is as for any lost answer."""
    with world(timeout_seconds=0.5) as here:
        here.exchange.fail(ORDER, "hang", method="POST", carried_out=carried_out)
        began = time.monotonic()
        lost = here.execute(here.buy())
        assert time.monotonic() - began < HANG_SECONDS
        assert lost.status == "open"
        assert "no answer in time" in lost.reason
        assert here.broker.troubles["timeout"] >= 1
        done = here.settle(here.buy(ttl=6_000))
        assert (done.status, done.quantity) == ("filled", bought(here))
        assert len(posts(here)) == (1 if carried_out else 2)


def test_an_order_that_is_listed_late_is_waited_for(here):
    """The answer is lost and the first look-up says there is none; within the grace it turns up."""
    here.exchange.behave(hidden=1)
    here.exchange.fail(ORDER, "drop", method="POST", carried_out=True)
    order = here.buy()
    for _ in range(2):
        assert here.execute(order).status == "open"
        here.wait(10)
    assert here.execute(order).quantity == bought(here)
    assert len(posts(here)) == 1


def test_an_order_that_was_accepted_is_never_taken_for_dead(here):
    """The exchange said yes and lists nothing for an hour: nothing is sent again."""
    here.exchange.behave(hidden=20)
    order = here.sell()
    for _ in range(20):
        done = here.execute(order)
        assert done.status == "open"
        assert "does not list it yet" in done.reason
        here.wait(180)
    assert here.execute(order).status == "filled"
    assert len(posts(here)) == 1


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST)
@pytest.mark.parametrize(("method", "path"), [("GET", ORDER), ("GET", DEPTH), ("GET", TRADES)])
def test_a_question_that_is_not_answered_leaves_the_order_open(here, method, path, answer):
    """Neither look-up, order book nor fills: the order stays open with a reason, is counted, and is filled later."""
    here.exchange.fail(path, answer, method=method)
    order = here.buy()
    done = here.execute(order)
    assert done.status == "open"
    assert done.reason
    assert here.broker.troubles.total() == 1
    assert here.settle(order, 1).quantity == bought(here)
    assert len(posts(here)) == 1


def test_the_list_of_markets_may_be_lost_too(here):
    """A process whose first questions are not answered asks them again; no order is rejected for it."""
    here.exchange.fail("exchangeInfo", "drop")
    here.restart()
    here.wait(1)
    for answer in ("{}", (401, {"code": -2014, "msg": "API-key format invalid."})):
        here.exchange.fail("exchangeInfo", answer)
        assert here.execute(here.buy()).status == "open"
    assert here.execute(here.buy()).status == "filled"


def test_a_venue_that_keeps_its_promise_badly_is_booked_as_it_is(here):
    """An order resurfaces after it was proven dead (the venue broke its receive window): both fills are booked."""
    here.exchange.behave(hidden=2)
    here.exchange.fail(ORDER, "drop", method="POST", carried_out=True)
    done = here.settle(here.buy(), 31)
    assert len(posts(here)) == 2
    assert done.quantity == bought(here) > 19


# ------------------------------------------------------------------ limits, clocks


@pytest.mark.parametrize("answer", [(429, {"code": -1003, "msg": "Too many requests."}), (418, "banned")])
def test_a_rate_limit_is_obeyed_without_sleeping(here, answer):
    """No question is asked for as long as the venue says; then the order goes its way."""
    here.exchange.fail(ORDER, answer, Retry_After="7")
    order = here.buy()
    assert "too many questions" in here.execute(order).reason
    asked = len(here.exchange.requests)
    here.wait(6)
    assert "wants no questions for 1 s" in here.execute(order).reason
    assert len(here.exchange.requests) == asked
    here.wait(1)
    assert here.execute(order).status == "filled"
    assert here.broker.troubles == {"rate_limit": 2}


def test_an_order_that_met_the_rate_limit_was_not_taken(here):
    """It is sent again under the same id, with no proof needed."""
    here.exchange.fail(ORDER, (429, ""), method="POST")
    order = here.buy()
    assert here.execute(order).status == "open"
    here.wait(10)
    assert here.execute(order).status == "filled"
    assert posts(here) == [BUY_ID, BUY_ID]


@pytest.mark.parametrize("skew", [-3_600_000, 3_600_000])
def test_a_clock_that_is_off_is_put_in_step_with_the_venue(here, skew):
    """An hour off from the start, and again in between: one call is lost, no order."""
    here.exchange.skew_ms = skew
    here.restart()
    here.wait(1)
    assert here.execute(here.buy()).status == "filled"
    here.exchange.skew_ms = -skew
    order = here.sell()
    lost = here.execute(order)
    assert lost.status == "open"
    assert "clock is off" in lost.reason
    assert here.broker.troubles == {"clock": 1}
    assert here.execute(order).status == "filled"


def test_a_clock_that_goes_backwards_proves_nothing_and_sends_nothing_twice(here):
    """``now`` falls by an hour after an attempt was lost: the grace starts anew."""
    here.exchange.fail(ORDER, "drop", method="POST")
    order = here.buy(ttl=100_000)
    here.execute(order)
    here.execute(order)
    here.wait(25)
    here.now -= 3_600_000_000
    for _ in range(3):
        assert here.execute(order).status == "open"
        here.wait(14)
    assert len(posts(here)) == 1
    assert here.settle(order).quantity == bought(here)
    assert len(posts(here)) == 2


@pytest.mark.parametrize("clock", ["now", "own"])
def test_grace_by_one_clock_alone_is_no_grace(here, clock):
    """A backlog of moments is worked off in no time, so that ``now`` jumps and our own clock does not; or ``now``
    stands still: nothing is proven."""
    here.exchange.fail(ORDER, "drop", method="POST")
    order = here.buy(ttl=100_000)
    for _ in range(5):
        assert here.execute(order).status == "open"
        setattr(here, clock, getattr(here, clock) + {"now": 60_000_000, "own": 60}[clock])
    assert len(posts(here)) == 1


# ------------------------------------------------------------------ orders that turn out badly


def test_a_duplicate_client_id_is_looked_up_not_replaced(here):
    """The venue says that this id is in use: the order there is ours, and is booked."""
    duplicate = (400, {"code": -2010, "msg": "Duplicate order sent."})
    here.exchange.fail(ORDER, duplicate, method="POST", carried_out=True)
    order = here.buy()
    assert here.execute(order).status == "open"
    assert here.broker.troubles == {"duplicate": 1}
    assert here.execute(order).quantity == bought(here)
    assert posts(here) == [BUY_ID]


def test_a_buy_that_fills_in_part_and_falls_silent_is_cancelled_when_it_expires(here):
    """Open until 60 s, cancelled then, and booked as what it filled once the grace is over."""
    here.exchange.behave(share=Decimal("0.25"), silent=True)
    order = here.buy(ttl=60)
    assert "filled so far" in here.execute(order).reason
    here.wait(59)
    assert here.execute(order).status == "open"
    assert here.exchange.count("DELETE", ORDER) == 0
    here.wait(1)
    assert "cancelled" in here.execute(order).reason
    here.wait(29)
    assert here.execute(order).status == "open"
    here.wait(1)
    done = here.execute(order)
    assert (done.status, done.quantity) == ("partial", bought(here))
    assert done.reason.startswith("2.4985 X filled")
    assert here.exchange.count("DELETE", ORDER) == 1


def test_an_exit_that_falls_silent_is_cancelled_after_the_grace_and_goes_on_next_bar(here):
    """What it sold is booked; the rest is the next plan's."""
    here.exchange.behave(share=Decimal("0.3"), silent=True)
    done = here.settle(here.sell(), 10)
    assert (done.status, done.quantity) == ("partial", Decimal(3))
    assert here.exchange.count("DELETE", ORDER) == 1


@pytest.mark.parametrize("share", ["0.5", "1"])
@pytest.mark.parametrize("late", [1, 2])
def test_a_fill_after_the_cancel_is_booked(here, share, late):
    """The cancel was acknowledged with nothing filled; the fill turns up one or two look-ups later."""
    here.exchange.behave(share=Decimal(share), late=late)
    order = here.buy(ttl=60)
    done = here.settle(order, 20)
    assert here.exchange.count("DELETE", ORDER) == 1
    assert done.status == ("filled" if share == "1" else "partial")
    assert done.quantity == bought(here) > 0


def test_a_cancelled_order_that_turns_out_whole_is_booked_at_once(here):
    """Nothing more can come in, so there is nothing to wait for."""
    here.exchange.behave(late=1)
    order = here.buy(ttl=60)
    here.execute(order)
    here.wait(60)
    assert "cancelled" in here.execute(order).reason
    here.wait(1)
    assert here.execute(order).status == "filled"


def test_a_cancel_that_comes_too_late_or_gets_lost_does_no_harm(here):
    """Its answer is lost, then the venue calls the order unknown: the order's own state decides."""
    here.exchange.behave(share=Decimal("0.5"), silent=True)
    here.exchange.fail(ORDER, "drop", method="DELETE")
    here.exchange.fail(ORDER, (400, {"code": -2011, "msg": "Unknown order sent."}), method="DELETE", carried_out=True)
    done = here.settle(here.buy(ttl=60), 20)
    assert (done.status, done.quantity) == ("partial", bought(here))


def test_fills_that_are_listed_twice_are_booked_once(here):
    """By their trade id."""
    here.exchange.duplicate_trades = 1
    assert here.execute(here.buy()).quantity == bought(here)


@pytest.mark.parametrize("twice", [0, 1])
def test_more_fills_than_one_answer_holds_are_all_booked(here, twice):
    """Seven levels taken by one order, three fills an answer (listed twice: fewer new ones in each)."""
    here.venue.dialect = replace(here.venue.dialect, trades=3)
    here.exchange.duplicate_trades = twice
    here.exchange.list("XUSDT", Rules("X"), " ".join(f"99.9{9 - n}:2" for n in range(7)), "100.01:1")
    done = here.execute(here.sell("13"))
    assert (done.status, done.quantity) == ("filled", Decimal(13))
    assert len(here.exchange.orders[0].trades) == 7


def test_fills_whose_floats_do_not_add_up_to_the_last_digit_are_booked(here):
    """Eighteen digits do not fit into a float: sums may differ in the last one, and are still the same fills."""
    rules = Rules("X", tick="0.00000001", step="0.00000001", max_quantity="20000000000")
    here.exchange.list("XUSDT", rules, "0.00001:3333333333.12345671 0.00000999:8333333333", "0.00001001:1")
    here.exchange.balances["X"] = Decimal(20_000_000_000)
    here.restart()
    here.wait(1)
    done = here.execute(here.sell("11111111111.11111111"))
    assert done.status in ("filled", "partial")  # a float cannot ask for the last digits
    assert done.quantity == pytest.approx(here.traded()[0], rel=Decimal("1e-15"))
    assert len(here.exchange.orders[0].trades) == 2


def test_a_market_that_vanishes_under_an_order_does_not_reject_it(here):
    """Seven hours later the list of markets is read again and lacks it: what was sent may have filled, and is booked
    when the market is back."""
    here.exchange.fail(ORDER, "drop", method="POST", carried_out=True)
    order = here.sell()
    here.execute(order)
    rules = here.exchange.rules.pop("XUSDT")
    here.exchange.list("YUSDT", Rules("Y"))
    here.wait(7 * 3600)
    gone = here.execute(order)
    assert gone.status == "open"
    assert "no spot market XUSDT" in gone.reason
    here.exchange.rules["XUSDT"] = rules
    here.wait(7 * 3600)
    assert here.execute(order).quantity == Decimal(10)


def test_fills_that_are_listed_late_are_waited_for(here):
    """The order says 10 filled, the list of fills is empty: nothing is booked before they agree."""
    here.exchange.late_trades = 2
    order = here.sell()
    for _ in range(2):
        done = here.execute(order)
        assert (done.status, done.quantity) == ("open", Decimal(0))
        assert "do not add up" in done.reason
    assert here.execute(order).quantity == Decimal(10)


def test_an_order_book_that_is_empty_leaves_a_buy_open_until_it_expires(here):
    """Nothing is sent, and what expires is the order."""
    here.exchange.books["XUSDT"] = ([], [])
    order = here.buy(ttl=60)
    assert here.execute(order).reason == "the order book of XUSDT has no asks"
    here.wait(60)
    assert here.execute(order).status == "expired"
    assert posts(here) == []


def test_an_exit_waits_for_an_empty_book_as_long_as_it_takes(here):
    """A day later somebody bids."""
    here.exchange.books["XUSDT"] = ([], [])
    order = here.sell()
    for _ in range(24):
        assert here.execute(order).status == "open"
        here.wait(3600)
    here.exchange.list("XUSDT", Rules("X"), "50:100", "51:100")
    assert here.execute(order).price == 50.0


def test_prices_far_from_the_middle_are_taken_step_by_step(here):
    """Ask 102 against a middle of 100: 200 bps, beyond the first step of 100, within the second of 300."""
    here.exchange.list("XUSDT", Rules("X"), "98:500", "102:500")
    order = here.buy()
    assert "over 100 bps from the middle" in here.execute(order).reason
    done = here.execute(order)
    assert (done.status, done.price) == ("filled", 102.0)
    assert done.slippage_bps == pytest.approx(200.0)


def test_no_more_is_asked_for_than_the_venue_takes_at_once(here):
    """4 X an order: the rest is for another plan."""
    here.exchange.list("XUSDT", Rules("X", max_quantity="4"), "99.99:500", "100.01:500")
    here.restart()
    here.wait(1)
    done = here.execute(here.sell("10"))
    assert (done.status, done.quantity) == ("partial", Decimal(4))


def test_the_limit_is_the_worst_price_needed_and_a_cushion(here):
    """5 at 100.01 and the rest at 100.05: limit 100.05 + 5 bps = 100.10 (tick .01), 9.990 X for 1000 USD."""
    here.exchange.list("XUSDT", Rules("X"), "99.99:5", "100.01:5 100.05:500 100.20:500")
    done = here.execute(here.buy())
    sent = here.exchange.orders[0]
    assert (sent.limit, sent.quantity) == (Decimal("100.1"), Decimal("9.99"))
    assert done.price == pytest.approx((5 * 100.01 + 4.99 * 100.05) / 9.99)


def test_an_ioc_that_fills_nothing_is_tried_again_until_the_attempts_are_used_up(here):
    """Three attempts under three ids; then the order is rejected, and an exit is planned anew on the next bar."""
    for _ in range(3):
        here.exchange.behave(share=Decimal(0))
    done = here.settle(here.sell(), 1)
    assert (done.status, done.reason) == ("rejected", "nothing filled in 3 attempts")
    assert len(set(posts(here))) == 3


def test_a_second_attempt_that_filled_is_found_again(here):
    """Asked once more, by the same process and by a new one, the broker sends nothing."""
    here.exchange.behave(share=Decimal(0))
    order = here.buy()
    done = here.settle(order, 1)
    assert (done.status, len(posts(here))) == ("filled", 2)
    assert here.execute(order) == done
    here.restart(order)
    assert here.settle(order).quantity == done.quantity
    assert len(posts(here)) == 2


@pytest.mark.parametrize("share", ["0", "1"])
def test_an_attempt_that_somebody_else_sent_is_seen_before_the_next_goes_out(here, share):
    """Two brokers on one order (there should be one): the second sends attempt 1, the first finds it and takes the next
    number, if it has to go on at all."""
    here.exchange.behave(share=Decimal(0))
    here.exchange.behave(share=Decimal(share))
    order = here.buy()
    here.execute(order)
    here.live().execute(replace(order, planned_ts=here.now), None, here.now - 1)
    done = here.settle(order, 1)
    assert (done.status, done.quantity) == ("filled", bought(here))
    assert posts(here) == [attempt_id(BUY_ID, n, 36) for n in range(2 if share == "1" else 3)]


REFUSALS = {
    "balance": ({}, {"balances": {"USDT": Decimal(5)}}, "insufficient balance"),
    "too small for the market": ({"notional_usd": Decimal(4)}, {}, "XUSDT takes at least 0.001 X worth 5 USDT"),
    "less than a lot": ({"notional_usd": Decimal("0.05")}, {}, "0 X at 100.06 is too small"),
    "unknown market": ({"symbol": "NONEUSDT"}, {}, "binance has no spot market NONEUSDT"),
    "quoted in something else": ({"symbol": "XBTC"}, {"rules": {"XBTC": Rules("X", "BTC")}}, "XBTC is quoted in BTC"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "setup", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_final_and_says_why(here, change, setup, reason):
    """In the venue's words, or by its own rules before it is asked."""
    for name, value in setup.items():
        getattr(here.exchange, name).update(value)
    here.restart()
    here.wait(1)
    done = here.execute(replace(here.buy(), **change))
    assert (done.status, done.quantity) == ("rejected", Decimal(0))
    assert reason in done.reason
    assert bought(here) == 0


def test_a_filter_that_only_the_venue_knows_is_quoted(here):
    """PERCENT_PRICE_BY_SIDE is in no list of markets."""
    here.exchange.fail(ORDER, (400, {"code": -1013, "msg": "Filter failure: PERCENT_PRICE_BY_SIDE"}), method="POST")
    done = here.execute(here.buy())
    assert done.status == "rejected"
    assert "PERCENT_PRICE_BY_SIDE" in done.reason


def test_a_market_that_is_halted_is_waited_for(here):
    """Nothing is sent while it is not trading."""
    here.exchange.rules["XUSDT"].status = "BREAK"
    here.restart()
    here.wait(1)
    assert here.execute(here.sell()).reason == "XUSDT is not trading at the moment"
    assert posts(here) == []


# ------------------------------------------------------------------ money


def test_a_fee_taken_from_the_tokens_bought_lessens_the_quantity(here):
    """9.994 X filled at 100.01, 10 bps of them kept: 9.984006 X held, fee .9995 USD, together what was paid."""
    done = here.execute(here.buy())
    assert done.quantity == Decimal("9.984006")
    assert done.fee_usd == Decimal("0.999500")
    paid = done.quantity * Decimal(repr(done.price)) + done.fee_usd
    assert paid == pytest.approx(100_000 - here.exchange.balances["USDT"], abs=Decimal("1e-6"))


def test_a_fee_in_a_third_currency_is_valued_at_its_price(here):
    """.00999 BNB (1 % of the cost in this exchange's books, 10 bps of that) at 600 USDT."""
    here.exchange.fee_asset = "BNB"
    here.exchange.list("BNBUSDT", Rules("BNB"))
    here.exchange.tickers["BNBUSDT"] = "600"
    here.restart()
    here.wait(1)
    done = here.execute(here.sell())
    charged = Decimal(here.exchange.orders[0].trades[0]["commission"])
    assert done.fee_usd == pytest.approx(charged * 600, abs=Decimal("1e-6"))


def test_a_fee_whose_price_is_not_to_be_had_is_booked_at_the_standard_rate(here):
    """10 bps of 999.90 USD; the fill is not held up by it."""
    here.exchange.fee_asset = "BNB"
    done = here.execute(here.sell())
    assert (done.status, done.fee_usd) == ("filled", Decimal("0.999900"))
    assert here.broker.troubles.total() == 1


def _garbled(here, **change):
    """The exchange lists its fills with these fields changed."""
    real = here.exchange._trades
    here.exchange._trades = lambda params: [row | {k: f(row) for k, f in change.items()} for row in real(params)]


@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize(
    "change",
    [
        {"price": lambda row: str(float(row["price"]) * 1000)},
        {"price": lambda row: str(float(row["price"]) / 1000)},
        {"price": lambda row: str(float(row["price"]) * 1.6)},
        {"price": lambda row: str(float(row["price"]) * 0.4)},
        {"commission": lambda row: "50000000"},
        {"commission": lambda row: "101", "commissionAsset": lambda row: "USDT"},
    ],
    ids=["a thousandfold", "a thousandth", "far above", "far below", "fee of millions", "fee above a tenth"],
)
def test_fills_that_cannot_be_true_are_not_booked(here, side, change):
    """No limit of ours was ever near such a price, and no venue takes such a fee: an error that names the order."""
    order = here.buy() if side == "buy" else here.sell()
    _garbled(here, **change)
    with pytest.raises(TradingError, match=order.client_id):
        here.execute(order)
    here.exchange._trades = type(here.exchange)._trades.__get__(here.exchange)
    assert here.execute(order).status == "filled"


@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_fills_at_odd_prices_and_fees_that_can_be_are_booked(here, factor):
    """A book that leaps by a third while the order is on its way, and a fee of 9 %."""
    _garbled(here, price=lambda row: str(float(row["price"]) * factor), commission=lambda row: str(50 * factor))
    assert here.execute(here.sell()).status == "filled"


def test_slippage_is_against_the_quote_and_else_against_the_middle(here):
    """Bought at 100.01: 1 bp over the middle, 101 bps over a quote of 99.01; a new process, which has seen neither,
    measures against the price of the decision."""
    decided = here.buy(name="a", decision_price=80.0)
    assert here.execute(decided).slippage_bps == pytest.approx(1.0)
    here.restart(decided)
    assert here.settle(decided).slippage_bps == pytest.approx(10_000 * (100.01 / 80 - 1))
    here.wait(1)
    at_quote = here.execute(here.buy(name="b"), Quote(here.now, 99.01))
    assert at_quote.slippage_bps == pytest.approx(10_000 * (100.01 / 99.01 - 1))
    unusable = here.execute(here.buy(name="c"), Quote(here.now, float("nan")))
    assert unusable.slippage_bps == pytest.approx(1.0)


def test_a_fill_is_dated_between_plan_and_now_whatever_the_venues_clock_says(here):
    """An hour ahead, an hour behind."""
    order = here.buy(name="ahead")
    here.wait(1)
    here.exchange.now = here.now + 3_600_000_000
    assert here.execute(order).ts == here.now
    order = here.buy(name="behind")
    here.wait(1)
    here.exchange.now = here.now - 3_600_000_000
    assert here.execute(order).ts == order.planned_ts


FAULTS = st.tuples(st.sampled_from(sorted(LOST)), st.booleans())
BEHAVIOUR = st.fixed_dictionaries({
    "share": st.sampled_from([Decimal(0), Decimal("0.5"), Decimal(1)]),
    "silent": st.booleans(), "hidden": st.integers(0, 1), "late": st.integers(0, 1),
})  # fmt: skip


@settings(max_examples=40)
@given(
    side=st.sampled_from(["buy", "sell"]),
    sending=st.lists(FAULTS, max_size=3),
    asking=st.lists(FAULTS, max_size=4),
    cancelling=st.lists(FAULTS, max_size=2),
    turns=st.lists(BEHAVIOUR, max_size=3),
    waits=st.lists(st.sampled_from([1, 20, 31, 60]), min_size=4, max_size=10),
    restarts=st.sets(st.integers(0, 9), max_size=2),
)
def test_money_is_spent_once_and_booked_as_spent(side, sending, asking, cancelling, turns, waits, restarts):
    """Whatever gets lost, fills late or falls silent, and whenever the process ends: the venue has filled at most the
    order, and what is booked is what it filled."""
    with world() as here:
        order = here.buy(ttl=240) if side == "buy" else here.sell()
        for method, path, faults in (
            ("POST", ORDER, sending), ("GET", ORDER, asking), ("GET", TRADES, asking), ("DELETE", ORDER, cancelling),
        ):  # fmt: skip
            for name, carried_out in faults:
                here.exchange.fail(path, LOST[name], method=method, carried_out=carried_out)
        for turn in turns:
            here.exchange.behave(**turn)
        done = here.execute(order)
        for step, seconds in enumerate(waits):
            if done.status != "open":
                break
            here.wait(seconds)
            if step in restarts:
                here.restart(order)
            done = here.execute(order)
        here.exchange.forget_faults()
        done = here.settle(order)
        amount, cost = here.traded()
        change = here.exchange.balances["X"] - 1_000
        assert cost <= 1_000 if side == "buy" else amount <= 10
        assert abs(abs(change) - done.quantity) < Decimal("1e-9")
        assert (done.status in ("filled", "partial")) == bool(amount)


# ------------------------------------------------------------------ restarts


def test_an_order_sent_by_a_process_that_died_is_found(here):
    """Sent and filled, but the answer died with the process: the next one books it at once, as nothing is sent after an
    attempt that filled wholly."""
    order = here.buy()
    here.execute(order)
    here.restart(order)
    done = here.execute(order)
    assert (done.status, done.quantity, len(posts(here))) == ("filled", bought(here), 1)


def test_an_order_that_filled_in_part_is_booked_once_no_other_attempt_can_come(here):
    """The process that died may have sent another one: the grace passes first."""
    here.exchange.behave(share=Decimal("0.5"))
    order = here.buy()
    here.execute(order)
    here.restart(order)
    assert here.execute(order).status == "open"
    done = here.settle(order)
    assert (done.status, done.quantity, len(posts(here))) == ("partial", bought(here), 1)


def test_a_new_process_goes_on_with_the_next_number(here):
    """Attempt 0 filled nothing before the process died: its id is not used again."""
    here.exchange.behave(share=Decimal(0))
    order = here.buy()
    here.execute(order)
    here.restart(order)
    assert here.settle(order).quantity == bought(here)
    assert posts(here) == [BUY_ID, attempt_id(BUY_ID, 1, 36)]


@pytest.mark.parametrize("reconciled", [True, False])
def test_an_order_that_may_have_been_sent_is_not_sent_again_before_the_proof(here, reconciled):
    """Planned before this process was born, and not at the venue: two look-ups a grace apart come first, whether or
    not the runtime has reconciled."""
    order = here.buy()
    here.venue, here.broker = here.connect(), here.live()
    if reconciled:
        here.broker.reconcile([order], here.now)
    assert here.execute(order).status == "open"
    here.wait(29)
    assert here.execute(order).status == "open"
    assert posts(here) == []
    here.wait(1)
    assert here.execute(order).status == "filled"
    assert posts(here) == [BUY_ID]


def test_an_order_planned_by_a_clock_that_was_ahead_is_not_taken_for_new(here):
    """It is among the planned orders at the start: that is enough."""
    order = replace(here.buy(), planned_ts=here.now + 3_600_000_000)
    here.restart(order)
    assert here.execute(order).status == "open"
    assert posts(here) == []


def test_reconcile_reports_what_the_venue_knows_and_touches_nothing(here):
    """Filled, resting, unknown to the venue; an open order that is not ours; what the account holds."""
    filled, resting, never = here.buy(name="f"), here.buy(name="r"), here.buy(name="n")
    here.execute(filled)
    here.exchange.behave(share=Decimal("0.5"), silent=True)
    here.execute(resting)
    here.exchange.behave(share=Decimal(0), silent=True)
    here.execute(here.sell(name="stranger"))
    before = len(posts(here))
    here.venue, here.broker = here.connect(), here.live()
    found = here.broker.reconcile([filled, resting, never], here.now)
    assert [(k.state, k.filled) for k in found.orders] == [
        ("done", Decimal("9.994")), ("open", Decimal("4.997")), ("none", Decimal(0)),
    ]  # fmt: skip
    assert found.strangers == (stable_id("order", "sell", "stranger"),)
    assert found.balances["X"] == here.exchange.balances["X"]
    assert len(posts(here)) == before
    assert here.exchange.count("DELETE", ORDER) == 0


def test_reconcile_says_so_when_the_venue_does_not_answer(here):
    """Unknown is not none."""
    here.exchange.fail(ORDER, "drop")
    here.exchange.fail("account", "garbage")
    found = here.broker.reconcile([here.buy()], here.now)
    assert found.orders[0].state == "unknown"
    assert found.orders[0].reason
    assert "nonsense" in found.reason


# ------------------------------------------------------------------ switches, dry mode


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"live_books": ()}, r"book 'main' is not in live_books \(empty\)"),
        ({"live_books": {"other"}}, r"book 'main' is not in live_books \(other\)"),
        ({"mode": "Live"}, "broker mode was 'Live'; it must be one of dry, live"),
        ({"grace_seconds": 5.0}, "grace_seconds was 5; it must be at least 11"),
        ({"grace_seconds": float("nan")}, "grace_seconds was nan"),
        ({"attempts": 0}, "attempts must be 1 or more"),
        ({"ladder_bps": ()}, "ladder_bps"),
        ({"ladder_bps": (100.0, 601.0)}, "ladder_bps goes up to 601 and max_slippage_bps is 600"),
        ({"max_slippage_bps": 400.0}, "ladder_bps goes up to 600 and max_slippage_bps is 400"),
        ({"max_slippage_bps": float("nan")}, "max_slippage_bps is nan"),
    ],
)
def test_a_live_broker_needs_both_switches_and_sensible_numbers(here, given_, message):
    """Mode alone does not trade, nor does the allow-list."""
    with pytest.raises(InputError, match=message):
        here.live(**given_)


def test_the_allow_list_alone_stays_dry(here):
    """Dry is the default, whatever books may trade live."""
    assert ExchangeBroker(here.venue, book="main", live_books={"main"}).mode == "dry"


def test_a_live_broker_needs_credentials(here):
    """A venue connected without them may be asked, not traded on."""
    here.venue = here.connect(secrets=None)
    with pytest.raises(InputError, match="without credentials"):
        here.live()
    with pytest.raises(InputError, match=r"no secret; give it .* EDGEBOOK_BINANCE_SECRET"):
        connect("binance", secrets={"key": KEY}.get)


def test_dry_mode_asks_the_book_places_nothing_and_needs_no_credentials(here):
    """The fill is what the book would have given: 5 at 100.01 and 4.994 at 100.05 at 10 bps."""
    here.venue = here.connect(secrets=None)
    here.broker = here.live(mode="dry", live_books=())
    here.exchange.requests.clear()
    here.exchange.list("XUSDT", Rules("X"), "99.99:5", "100.01:5 100.05:500")
    done = here.execute(here.buy())
    assert done.price == pytest.approx((5 * 100.01 + 4.99 * 100.05) / 9.99)
    assert done.fee_usd == pytest.approx(Decimal(repr(done.price * 9.99 * 0.001)), abs=Decimal("1e-6"))
    assert here.broker.reconcile([here.buy()], here.now).orders[0].state == "none"
    assert {path for _, path, _ in here.exchange.requests} == {"exchangeInfo", "depth"}


def test_another_venue_of_the_same_dialect(here):
    """Binance US speaks it too."""
    here.venue = connect("binanceus", secrets=SECRETS.get, url=here.exchange.url, clock=lambda: here.own)
    here.broker = here.live()
    here.broker.reconcile((), here.now - 1)
    assert here.execute(here.buy()).quantity == bought(here) > 9


# ------------------------------------------------------------------ connecting


def test_venues_addresses_and_missing_packages_are_named(monkeypatch):
    """One line each: what was wrong, and what would be right."""
    with pytest.raises(InputError, match="venue 'mtgox' is not one of binance, binanceus"):
        connect("mtgox")
    for url in ("http://example.org", "ftp://127.0.0.1", "https://user:pass@example.org", "nonsense"):
        with pytest.raises(InputError, match="venue url must be https") as refused:
            connect("binance", url=url)
        assert "pass" not in str(refused.value).replace("password", "")
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(InputError, match=r"pip install 'edgebook\[live\]'"):
        connect("binance")


def test_ccxt_is_not_loaded_before_a_venue_is_connected():
    """It takes half a second and 80 MB: `edgebook --help` must not pay for it."""
    code = (
        "import sys, edgebook.cli.app, edgebook.runtime.bootstrap, edgebook.adapters.brokers.exchange, "
        "edgebook.adapters.feeds.exchange, edgebook.cli.download; sys.exit('ccxt' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_key_is_not_carried_to_another_address(here):
    """A redirect is no answer; the second exchange is never asked."""
    other = Exchange().start()
    try:
        here.exchange.fail(ORDER, (307, ""), Location=f"{other.url}/api/v3/order")
        assert here.execute(here.buy()).status == "open"
        assert other.requests == []
    finally:
        other.stop()


def test_credentials_come_from_the_environment(monkeypatch):
    """Under the venue's name."""
    monkeypatch.setenv("EDGEBOOK_BINANCE_KEY", "k")
    monkeypatch.setenv("EDGEBOOK_BINANCE_SECRET", "s")
    assert connect("binance", secrets=environment_secrets("binance")).can_trade
    monkeypatch.delenv("EDGEBOOK_BINANCE_KEY")
    with pytest.raises(InputError, match="no key"):
        connect("binance", secrets=environment_secrets("binance"))


# ------------------------------------------------------------------ what must never happen


def test_credentials_are_in_no_output(here, caplog, capfd):
    """Logs at their loudest, a venue that sends the key and the secret back in every answer, every repr and reason: the
    request carries the key (or this proves nothing), nothing else does."""
    caplog.set_level(logging.DEBUG)
    echo = f"{KEY} {SECRET}"
    said: list[object] = [here.broker, here.venue]
    for name, (status, text) in {
        "refused": (400, {"code": -2010, "msg": f"Refused for {echo}"}), "unknown": (400, {"code": -7, "msg": echo}),
        "html": (500, echo), "limit": (429, echo), "garbage": (200, echo), "auth": (401, {"code": -2014, "msg": echo}),
    }.items():  # fmt: skip
        for method, path in (("POST", ORDER), ("GET", ORDER), ("GET", DEPTH), ("GET", TRADES)):
            here.exchange.fail(path, (status, text), method=method)
            said.append(here.execute(here.buy(name=name + path)))
            here.wait(11)
            here.exchange.fail("account", (status, text))
            said.append(here.broker.reconcile([here.buy(name=name + path)], here.now))
            here.wait(11)
            here.exchange.forget_faults()
    here.exchange.fail(ORDER, "drop")
    market = here.venue.market("XUSDT")
    for action in (
        lambda: here.venue.market("NONE"), lambda: here.live(live_books=()), lambda: here.venue.order(market, "x"),
    ):  # fmt: skip
        with pytest.raises(EdgebookError) as raised:
            action()
        trace = "".join(traceback.format_exception(raised.value))
        assert "signature" not in trace
        said += [raised.value, trace]
    logged = [record.getMessage() for record in caplog.records]
    output = "".join(map(str, [*map(repr, said), *said, *logged, here.broker.troubles, *capfd.readouterr()]))
    assert any(headers.get("x-mbx-apikey") == KEY for headers in here.exchange.headers)
    assert KEY not in output
    assert SECRET not in output
    assert "***" in output


def test_what_the_client_lets_through_is_no_answer_and_shows_nothing(here, capfd, monkeypatch):
    """An error that is none of the client's own, with the key in its frames: the order stays open, and neither the
    error nor a log with tracebacks shows it. The next question is asked as ever."""
    structlog.reset_defaults()
    plain_log()
    key = here.venue._client.apiKey

    def broken(*args, **kwargs):
        headers = {"X-MBX-APIKEY": key}
        raise OSError(f"no certificates for {len(headers)} header")

    order = here.sell()
    market = here.venue.market("XUSDT")
    with monkeypatch.context() as patch:
        patch.setattr(here.venue._client.session, "request", broken)
        assert here.execute(order).status == "open"
        with pytest.raises(NoAnswerError) as raised:
            here.venue.book(market)
    log = structlog.get_logger()
    log.error("job failed", exc_info=raised.value)
    with pytest.raises(OSError, match="no certificates") as bare:
        broken()
    log.error("job failed", exc_info=bare.value)
    shown = capfd.readouterr().out
    structlog.reset_defaults()
    assert shown.count("Traceback") == 2
    assert KEY not in shown
    assert here.broker.troubles["unexpected"] == 1
    here.wait(60)
    assert here.settle(order).status == "filled"


def test_nothing_in_the_package_can_move_money_out():
    """No call or name in the code is about sending money anywhere but into an order."""
    words = ("withdraw", "transfer", "payout", "sapi")
    for path in sorted(PACKAGE.rglob("*.py")):
        names = {
            getattr(node, field)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for field in ("id", "attr", "name", "arg", "value")
            if isinstance(getattr(node, field, None), str)
        }
        found = [name for name in names for word in words if word in name.lower()]
        assert not found, f"{path.name}: {found}"


def test_only_these_questions_are_ever_asked(here):
    """All requests of a busy life, by method and path."""
    for share in ("1", "0.5", "0"):
        here.exchange.behave(share=Decimal(share), silent=True)
        here.settle(here.buy(name=share, ttl=60), 31)
    here.restart(here.buy())
    assert here.exchange.count("GET", "exchangeInfo") == 2  # spot only, once per process
    assert {(m, p) for m, p, _ in here.exchange.requests} == {
        ("GET", "time"), ("GET", "exchangeInfo"), ("GET", "account"), ("GET", "openOrders"), ("GET", DEPTH),
        ("GET", ORDER), ("POST", ORDER), ("DELETE", ORDER), ("GET", TRADES),
    }  # fmt: skip


def test_the_callers_thread_never_sleeps(here, monkeypatch):
    """Not for a rate limit, not between attempts, not in the client."""

    def refuse(seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s")

    monkeypatch.setattr(time, "sleep", refuse)
    here.exchange.fail(ORDER, (429, ""), method="POST")
    here.exchange.fail(ORDER, "drop", method="POST")
    assert here.settle(here.buy(), 31).status == "filled"


@given(client_id=st.text(min_size=1, max_size=60), length=st.integers(16, 64))
def test_ids_of_attempts_keep_to_the_venues_rules_and_differ(client_id, length):
    """Letters, digits and hyphens, not too long, the same every time, one per attempt."""
    ids = [attempt_id(client_id, n, length) for n in range(4)]
    assert ids == [attempt_id(client_id, n, length) for n in range(4)]
    assert len(set(ids)) == 4
    for ident in ids:
        assert 0 < len(ident) <= length
        assert ident.isascii()
        assert ident.replace("-", "").isalnum()


def test_asking_a_venue_changes_no_rounding_elsewhere(here):
    """The client sets how the thread rounds decimals; after a whole order nothing of that is left."""
    before = getcontext().copy()
    here.settle(here.buy())
    assert (getcontext().rounding, getcontext().traps) == (before.rounding, before.traps)
