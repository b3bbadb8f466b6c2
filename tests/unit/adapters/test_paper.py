"""PaperBroker: every cost, limit and rejection against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.adapters.brokers.paper import PaperBroker, PaperCosts, Venue
from edgebook.domain.book import Order
from edgebook.domain.errors import InputError
from edgebook.ports import Quote

BUY = Order(
    client_id="c",
    action_id="a",
    position_id="p",
    symbol="XUSDT",
    timeframe="1h",
    side="buy",
    decision_type="entry",
    rule=5,
    notional_usd=Decimal("1000"),
    quantity=None,
    planned_ts=100,
    expires_ts=200,
    decision_price=2.0,
    bar_volume_usd=1e6,
    liquidity_usd=50e6,
)
SELL = replace(BUY, side="sell", decision_type="exit", rule=1, notional_usd=None, quantity=Decimal("500"))
QUOTE = Quote(100, 2.0)
DEX = PaperCosts(symbols={"XUSDT": "solana"})


def test_exchange_buy():
    """1000 USD at 2.0 + 5 bps = 2.001: 499.750124937 tokens, fee 10 bps of what they cost."""
    done = PaperBroker().execute(BUY, QUOTE, 100)
    assert done.status == "filled"
    assert done.price == pytest.approx(2.001)
    assert done.slippage_bps == 5.0
    assert done.quantity == Decimal("499.750124937")
    assert done.fee_usd == Decimal("1.000000")
    assert done.ts == 100


def test_exchange_sell():
    """500 tokens at 2.0 - 5 bps = 1.999: 999.5 USD, fee .9995."""
    done = PaperBroker().execute(SELL, QUOTE, 100)
    assert (done.status, done.quantity, done.fee_usd) == ("filled", Decimal("500.000000000"), Decimal("0.999500"))
    assert done.price == pytest.approx(1.999)


def test_thin_trading_slips_ten():
    assert PaperBroker().execute(replace(BUY, liquidity_usd=9.9e6), QUOTE, 100).slippage_bps == 10.0
    assert PaperBroker().execute(replace(BUY, liquidity_usd=10e6), QUOTE, 100).slippage_bps == 5.0


def test_half_a_tick_is_the_least_slippage():
    """A tick of .01 at 2.0 is 50 bps: half of it 25."""
    broker = PaperBroker(PaperCosts(ticks={"XUSDT": 0.01}))
    assert broker.execute(BUY, QUOTE, 100).slippage_bps == pytest.approx(25.0)


def test_dex_buy_pays_for_its_impact():
    """50 + 10,000 * 2 * 1000/400,000 = 100 bps: price 2.02, fee 30 bps."""
    done = PaperBroker(DEX).execute(replace(BUY, liquidity_usd=400_000.0), QUOTE, 100)
    assert done.slippage_bps == pytest.approx(100.0)
    assert done.price == pytest.approx(2.02)
    assert done.quantity == Decimal("495.049504950")
    assert done.fee_usd == Decimal("3.000000")


def test_slippage_above_the_limit_is_rejected():
    """Impact 560 with 50 base is 610 bps; the limit is 600. Selling is refused the same way."""
    liquidity = 2e4 * 1000 / 560
    done = PaperBroker(DEX).execute(replace(BUY, liquidity_usd=liquidity), QUOTE, 100)
    assert (done.status, done.quantity) == ("rejected", Decimal(0))
    assert "610 bps above the limit of 600" in done.reason
    assert PaperBroker(DEX).execute(replace(SELL, liquidity_usd=liquidity), QUOTE, 100).status == "rejected"


@pytest.mark.parametrize(("most", "status"), [(99.0, "rejected"), (101.0, "filled")])
def test_the_limit_on_slippage_can_be_set(most, status):
    """An order that slips 100 bps: refused above 99, filled below 101, bought or sold."""
    broker = PaperBroker(replace(DEX, max_slippage_bps=most))
    for order in (BUY, SELL):
        assert broker.execute(replace(order, liquidity_usd=400_000.0), QUOTE, 100).status == status


@pytest.mark.parametrize("wrong", [0.0, -1.0, 10_000.0, float("nan")])
def test_a_limit_on_slippage_that_makes_no_sense_is_refused(wrong):
    """Nothing would fill, or at no price."""
    with pytest.raises(InputError, match="max_slippage_bps"):
        PaperCosts(max_slippage_bps=wrong)


def test_no_liquidity_on_a_dex_is_rejected_not_divided_by():
    assert PaperBroker(DEX).execute(replace(BUY, liquidity_usd=0.0), QUOTE, 100).status == "rejected"


def test_participation_cuts_a_buy():
    """5 % of 10,000 USD is 500 USD: half the order; slippage is that of the filled half."""
    done = PaperBroker().execute(replace(BUY, bar_volume_usd=10_000.0), QUOTE, 100)
    assert done.status == "partial"
    assert done.quantity == Decimal("249.875062468")
    assert done.fee_usd == Decimal("0.500000")
    assert "participation limit 5%" in done.reason
    dex = PaperBroker(DEX).execute(replace(BUY, bar_volume_usd=10_000.0, liquidity_usd=400_000.0), QUOTE, 100)
    assert dex.slippage_bps == pytest.approx(75.0)


def test_participation_cuts_a_sale():
    """500 tokens are worth 1000 USD at the quote; 500 USD may go: 250 tokens."""
    done = PaperBroker().execute(replace(SELL, bar_volume_usd=10_000.0), QUOTE, 100)
    assert (done.status, done.quantity) == ("partial", Decimal("250.000000000"))


def test_no_volume_is_rejected():
    assert PaperBroker().execute(replace(BUY, bar_volume_usd=0.0), QUOTE, 100).status == "rejected"


def test_without_a_bar_buys_expire_and_exits_stay_open():
    broker = PaperBroker()
    assert broker.execute(BUY, None, 199).status == "open"
    assert broker.execute(BUY, None, 200).status == "expired"
    assert broker.execute(SELL, None, 10_000).status == "open"


def test_a_bar_that_opens_after_expiry_does_not_fill_a_buy():
    assert PaperBroker().execute(BUY, Quote(201, 2.0), 300).status == "expired"
    assert PaperBroker().execute(BUY, Quote(200, 2.0), 300).status == "filled"
    assert PaperBroker().execute(SELL, Quote(9_999, 2.0), 10_000).status == "filled"


@pytest.mark.parametrize(
    ("order", "quote"),
    [
        (replace(BUY, side="short"), QUOTE),
        (replace(BUY, quantity=Decimal(1)), QUOTE),
        (replace(BUY, notional_usd=None), QUOTE),
        (replace(BUY, notional_usd=Decimal(0)), QUOTE),
        (replace(SELL, quantity=Decimal(-1)), QUOTE),
        (BUY, Quote(100, float("nan"))),
        (BUY, Quote(100, 0.0)),
    ],
)
def test_impossible_orders_are_rejected_with_a_reason(order, quote):
    """The broker never raises for venue reasons."""
    done = PaperBroker().execute(order, quote, 100)
    assert done.status == "rejected"
    assert done.reason


def test_costs_need_a_venue_for_every_chain():
    with pytest.raises(InputError, match="no costs for venue 'moon'"):
        PaperCosts(venues={"exchange": Venue(10, 5)}, default="moon")


@given(
    notional=st.decimals("0.01", "1e6", places=6),
    price=st.floats(1e-9, 1e5),
    volume=st.floats(1.0, 1e9),
    liquidity=st.floats(1.0, 1e9),
    chain=st.sampled_from(["exchange", "solana"]),
)
def test_a_fill_never_costs_more_or_trades_more_than_allowed(notional, price, volume, liquidity, chain):
    """Spent notional <= wanted and <= 5 % of volume; slippage within [base, 600]; same order, same answer."""
    order = replace(BUY, notional_usd=notional, bar_volume_usd=volume, liquidity_usd=liquidity)
    broker = PaperBroker(PaperCosts(symbols={"XUSDT": chain}))
    done = broker.execute(order, Quote(100, price), 100)
    assert done == broker.execute(order, Quote(100, price), 100)
    if done.status in ("filled", "partial"):
        spent = done.quantity * Decimal(repr(done.price))
        assert spent <= notional
        assert float(spent) <= 0.05 * volume + 1e-6
        assert (5.0 if chain == "exchange" else 50.0) <= done.slippage_bps <= 600.0
        assert done.price > price
        assert done.quantity == done.quantity.quantize(Decimal("1e-9"))


def test_a_fill_at_the_close_needs_no_next_bar():
    """fill_on=close: the price the order was decided on, at the moment of the plan, whatever opens later."""
    broker = PaperBroker(PaperCosts(fill_on="close"))
    for quote in (None, Quote(150, 3.0)):
        done = broker.execute(replace(BUY, decision_price=4.0), quote, 150)
        assert (done.status, done.price, done.ts) == ("filled", pytest.approx(4.0 * 1.0005), BUY.planned_ts)
    assert broker.execute(replace(SELL, decision_price=4.0), None, 150).price == pytest.approx(4.0 * 0.9995)


def test_simulated_failures_are_the_same_orders_in_every_run_and_of_the_given_share():
    """A hash of the client id decides: 0 none, 1 all, .25 a quarter of two thousand within three standard errors."""
    orders = [replace(BUY, client_id=f"order-{n}") for n in range(2_000)]

    def refused(share):
        broker = PaperBroker(PaperCosts(failure_probability=share))
        found = [(order, broker.execute(order, QUOTE, 100)) for order in orders]
        for _, done in found:
            if done.status == "rejected":
                assert done.reason == f"simulated failure (failure_probability {share:g})"
                assert (done.quantity, done.fee_usd) == (0, 0)
        return {order.client_id for order, done in found if done.status == "rejected"}

    assert refused(0.0) == set()
    assert len(refused(1.0)) == 2_000
    quarter = refused(0.25)
    assert quarter == refused(0.25)
    assert abs(len(quarter) - 500) < 3 * (2_000 * 0.25 * 0.75) ** 0.5
    assert quarter < refused(0.5)


def test_an_order_that_waits_does_not_fail_before_it_has_a_price():
    """Without a quote it is open or expires as ever: the venue has not been asked."""
    broker = PaperBroker(PaperCosts(failure_probability=1.0))
    assert broker.execute(BUY, None, 150).status == "open"
    assert broker.execute(BUY, None, 200).status == "expired"
    assert broker.execute(SELL, None, 10_000).status == "open"


@pytest.mark.parametrize("wrong", [{"fill_on": "open"}, {"failure_probability": -0.1}, {"failure_probability": 1.1}])
def test_costs_that_make_no_sense_are_named(wrong):
    """The error says which one and what it may be."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        PaperCosts(**wrong)
