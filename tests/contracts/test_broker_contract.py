"""One suite for every broker: on paper, on an exchange's order book (dry), and live on the exchange that the tests
start. Numbers are worked out from the market: 100.00 in the middle, 99.99 bid, 100.01 asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

import pytest
from tests.exchange_world import World, world

from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.domain.book import Order
from edgebook.domain.ids import stable_id
from edgebook.ports import Broker, Execution, Quote

BROKERS = ["paper", "dry", "live"]
NOTHING = Decimal(0)


class Desk:
    """One broker and what it needs: the quote a paper broker fills at, the book an exchange fills from."""

    def __init__(self, kind: str, here: World) -> None:
        self.kind, self.world = kind, here
        if kind == "dry":
            here.broker = here.live(mode="dry", live_books=())
        self.broker: Broker = PaperBroker() if kind == "paper" else here.broker

    def execute(self, order: Order) -> Execution:
        """Ask the broker now, with the bar that opened when the order was planned."""
        return self.broker.execute(order, Quote(order.planned_ts, 100.0), self.world.now)

    def thin(self, order: Order) -> Order:
        """Leave 3 X (about 300 USD) to be had of either side, and return the order as planned on that market."""
        self.world.exchange.books["XUSDT"] = ([(Decimal("99.99"), Decimal(3))], [(Decimal("100.01"), Decimal(3))])
        return replace(order, bar_volume_usd=300.0 / 0.05)


@contextmanager
def desk_of(kind: str) -> Iterator[Desk]:
    """A fresh desk."""
    with world() as here:
        yield Desk(kind, here)


@pytest.fixture(params=BROKERS)
def desk(request):
    """A desk with each broker."""
    with desk_of(request.param) as made:
        yield made


def test_a_buy_is_sized_in_usd(desk):
    """1000 USD at 100.00 to 100.06 buy about 9.99 X, and no more USD than that are spent on them."""
    done = desk.execute(desk.world.buy("1000"))
    assert (done.status, done.reason) == ("filled", "")
    assert 100.0 < done.price < 100.1
    assert Decimal("9.97") < done.quantity < Decimal(10)
    assert Decimal(998) < done.quantity * Decimal(repr(done.price)) + done.fee_usd <= Decimal("1001")
    assert done.quantity * Decimal(repr(done.price)) <= Decimal("1000")


def test_a_sale_is_sized_in_tokens(desk):
    """10 X go, at a little under the middle."""
    done = desk.execute(desk.world.sell("10"))
    assert (done.status, done.quantity) == ("filled", Decimal(10))
    assert 99.9 < done.price < 100.0


def test_a_fill_costs_the_fee_and_slips_against_the_trader(desk):
    """10 bps of 1000 USD are 1 USD; the ask of 100.01 is at least 1 bp from the middle, on either side."""
    for order in (desk.world.buy("1000"), desk.world.sell("10")):
        done = desk.execute(order)
        assert done.fee_usd == pytest.approx(Decimal(1), abs=Decimal("0.01"))
        assert 1.0 <= round(done.slippage_bps, 6) <= 10.0


def test_a_fill_is_of_the_time_between_plan_and_now(desk):
    """No fill lies in the future, and none before the order was planned."""
    order = desk.world.buy("1000", ttl=60)
    desk.world.wait(5)
    assert order.planned_ts <= desk.execute(order).ts <= desk.world.now


def test_quantities_and_fees_are_of_the_books_grain(desk):
    """Quantities to 1e-9, USD to 1e-6, exact as Decimal."""
    for order in (desk.world.buy("777.77"), desk.world.sell("3.333")):
        done = desk.execute(order)
        assert done.quantity == done.quantity.quantize(Decimal("1e-9"))
        assert done.fee_usd == done.fee_usd.quantize(Decimal("1e-6"))
        assert done.fee_usd >= 0


def test_a_thin_market_fills_in_part(desk):
    """3 X of the 10 that 1000 USD would buy, 3 of the 10 to sell: partial, with the reason, and nothing more booked."""
    bought = desk.execute(desk.thin(desk.world.buy("1000")))
    assert bought.status == "partial"
    assert Decimal("2.99") < bought.quantity <= Decimal(3)
    assert bought.reason
    sold = desk.execute(desk.thin(desk.world.sell("10")))
    assert (sold.status, sold.quantity) == ("partial", Decimal(3))
    assert sold.reason


def test_a_buy_that_came_to_nothing_expires(desk):
    """At its expiry a buy that has not been filled is over."""
    order = desk.world.buy("1000", ttl=30)
    desk.world.wait(30)
    done = desk.broker.execute(order, None, desk.world.now)
    assert (done.status, done.quantity, done.fee_usd) == ("expired", NOTHING, NOTHING)
    assert done.reason


def test_a_sale_does_not_expire(desk):
    """Exits are carried out however late."""
    order = desk.world.sell("10")
    desk.world.wait(3600)
    assert desk.execute(order).status == "filled"


@pytest.mark.parametrize(
    "change",
    [
        {"side": "short"},
        {"notional_usd": None, "quantity": None},
        {"quantity": Decimal(1)},
        {"notional_usd": Decimal(0)},
        {"notional_usd": Decimal(-5)},
        {"notional_usd": Decimal("0.00000001")},
    ],
    ids=["unknown side", "no size", "two sizes", "nothing", "negative", "dust"],
)
def test_an_impossible_order_is_rejected_with_a_reason(desk, change):
    """It is an answer, no exception, and books nothing."""
    done = desk.execute(replace(desk.world.buy("1000"), **change))
    assert (done.status, done.quantity, done.fee_usd) == ("rejected", NOTHING, NOTHING)
    assert done.reason


def test_asking_again_gives_the_same_answer(desk):
    """A job that is run twice books the same fill; a live broker has sent one order."""
    order = desk.world.buy("1000")
    first = desk.execute(order)
    assert desk.execute(order) == first
    desk.world.wait(3600)
    if desk.kind != "dry":  # a dry broker's fill is of the moment it is asked
        assert desk.execute(order) == first
    assert desk.world.exchange.count("POST", "order") == (1 if desk.kind == "live" else 0)


@pytest.mark.parametrize("kind", BROKERS)
def test_the_same_order_in_the_same_market_has_the_same_answer_and_id(kind):
    """Nothing of a broker depends on the run: ids at the venue follow from the order's."""
    answers, ids = [], []
    for _ in range(2):
        with desk_of(kind) as desk:
            answers.append([desk.execute(desk.world.buy("1000")), desk.execute(desk.world.sell("10"))])
            ids.append([o.client_id for o in desk.world.exchange.orders])
    assert answers[0] == answers[1]
    assert ids[0] == ids[1] == ([stable_id("order", s, "1") for s in ("buy", "sell")] if kind == "live" else [])


@pytest.mark.parametrize("usd", ["6", "49.99", "1000", "25000", "90000"])
def test_never_more_is_booked_than_the_venue_filled(desk, usd):
    """Bought tokens are at most what was filled (less where the fee is taken from them), and USD at most what was
    ordered; on the live venue both follow from its own balances."""
    before = dict(desk.world.exchange.balances)
    done = desk.execute(desk.world.buy(usd))
    spent = done.quantity * Decimal(repr(done.price))
    assert done.status in ("filled", "partial")
    assert spent <= Decimal(usd)
    if desk.kind == "live":
        after = desk.world.exchange.balances
        assert 0 <= after["X"] - before["X"] - done.quantity < Decimal("1e-9")
        assert spent + done.fee_usd == pytest.approx(before["USDT"] - after["USDT"], abs=Decimal("2e-6"))
