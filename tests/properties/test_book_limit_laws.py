"""Laws of the limits of a whole book: a skew only takes away, and no number of buys at once overdraws the cash."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.adapters.brokers.paper import VENUES, PaperBroker, PaperCosts
from edgebook.domain.book import Ledger, Order
from edgebook.ports import Quote
from edgebook.trading.position import apply_buy
from edgebook.trading.risk import BookView, limit_buy, with_fee
from edgebook.trading.rules import RiskRules, SkewRules
from edgebook.trading.skew import DIMS, Lot, concentration, mask_weights, skew_of

D = Decimal
PATTERNS = ("uptrend.S1.buy_flag", "uptrend.S3.dx", "uptrend.S3.buy_flag")
dims = st.fixed_dictionaries(
    {
        "chain": st.sampled_from(("solana", "base")),
        "timeframe": st.sampled_from(("1h", "4h")),
        "book": st.sampled_from(("main", "other")),
        "state": st.sampled_from(("S1", "S3")),
    }
)
lots = st.builds(Lot, dims, st.sampled_from(PATTERNS), st.floats(0.0, 1e9))
masks = st.lists(st.lists(st.sampled_from(DIMS), unique=True).map(tuple), max_size=5).map(tuple)
skews = st.builds(
    SkewRules,
    enabled=st.just(True),
    alpha=st.one_of(st.sampled_from((0.0, 0.5, 5.0, 100.0)), st.floats(0.0, 100.0)),
    scope_weight=st.floats(0.0, 10.0),
    pattern_weight=st.floats(0.0, 10.0),
    masks=st.one_of(st.just(SkewRules().masks), masks),
    dim_weights=st.dictionaries(st.sampled_from(DIMS), st.one_of(st.just(0.0), st.floats(0.0, 1e6))),
)
navs = st.one_of(st.just(D(0)), st.decimals(D("0.01"), D(10) ** 9, places=2))


@given(lots, st.lists(lots, max_size=8), navs, skews)
def test_a_skew_is_always_between_its_floor_and_one(wanted, held, nav, rules):
    """Whatever is held, at any alpha, with zero weights, with empty masks or none, in a book worth nothing."""
    assert 0.33 <= skew_of(wanted, held, nav, rules) <= 1.0
    assert 0.0 <= concentration(wanted, held, nav, rules) <= 1.0
    total = sum(mask_weights(rules))
    assert total == pytest.approx(1.0) or total == 0.0


@given(lots, st.lists(lots, max_size=8), st.lists(lots, min_size=1, max_size=3), navs, skews)
def test_holding_more_never_makes_a_buy_larger(wanted, held, more, nav, rules):
    """Of the same kind or of another."""
    before = skew_of(wanted, held, nav, rules)
    assert skew_of(wanted, [*held, *more], nav, rules) <= before
    assert skew_of(wanted, [*held, replace(wanted, cost_usd=1e9)], nav, rules) <= before


@given(lots, navs, skews)
def test_an_empty_book_skews_nothing(wanted, nav, rules):
    """Exactly 1."""
    assert skew_of(wanted, [], nav, rules) == 1.0


@given(lots, st.lists(lots, max_size=8), st.randoms(), navs, skews)
def test_the_order_of_holdings_does_not_matter(wanted, held, dice, nav, rules):
    """To the last digit: a restart may list them otherwise."""
    shuffled = list(held)
    dice.shuffle(shuffled)
    assert skew_of(wanted, shuffled, nav, rules) == skew_of(wanted, held, nav, rules)


# ---------------------------------------------------------------- cash

ALL_IN = RiskRules(min_notional_usd=D("0.01"), cash_reserve=D(0), max_exposure=D(1), per_token=D(1))
money = st.decimals(D("0.01"), D(100_000), places=6)


@given(
    st.decimals(D("0.01"), D(50_000), places=6),
    st.lists(st.tuples(money, st.floats(1e-6, 1e6)), min_size=1, max_size=12),
    st.sampled_from(("exchange", "solana")),
)
def test_many_buys_at_once_never_overdraw_the_cash(cash, wanted, chain):
    """All planned before any fills, nothing held back, each fee on top: cash stays at 0 or above, and a buy that is cut
    for it names the reserve."""
    broker = PaperBroker(PaperCosts(symbols={"A": chain}))
    planned = []
    for usd, price in wanted:
        owed = sum((with_fee(notional, ALL_IN) for notional, _ in planned), D(0))
        open_cost = sum((notional for notional, _ in planned), D(0))
        book = BookView(cash, cash - owed, open_cost_total=open_cost)
        capped = limit_buy(usd, book, D(10) ** 9, 1e15, ALL_IN)
        assert capped.notional_usd == usd or capped.caps[0] == "cash_reserve"
        if capped.notional_usd:
            planned.append((capped.notional_usd, price))
    for number, (notional, price) in enumerate(planned):
        order = Order(
            f"o{number}", "a", "p", "A", "1h", "buy", "entry", 5, notional, None, 0, 0, price, 1e15, 1e12
        )  # fmt: skip
        done = broker.execute(order, Quote(1, price), 1)
        if done.quantity:
            cash -= apply_buy(Ledger(), done.quantity, done.price, done.fee_usd).invested
    assert cash >= 0


def test_no_paper_venue_charges_more_than_is_kept_free():
    """Else the law above would be of cheap venues only."""
    assert max(venue.fee_bps for venue in VENUES.values()) <= RiskRules().fee_bps
