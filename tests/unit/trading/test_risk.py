"""Risk limits: each one binds by itself, and says so (trading.md 3.6)."""

from __future__ import annotations

from decimal import Decimal

import pytest

from edgebook.domain.errors import TradingError
from edgebook.trading.risk import BookView, limit_buy, usd_remaining, with_fee
from edgebook.trading.rules import RiskRules

D = Decimal
RULES = RiskRules()
FREE = BookView(nav=D(10_000), free_cash=D(10_000))


def test_an_order_inside_every_limit_is_untouched():
    """No cut, no name."""
    capped = limit_buy(D(100), FREE, D(1000), 1e9, RULES)
    assert (capped.notional_usd, capped.caps) == (D(100), ())


@pytest.mark.parametrize(
    ("name", "book", "allowance", "volume", "left"),
    [
        ("allocation", FREE, D(70), 1e9, "70"),
        ("cash_reserve", BookView(D(10_000), D("600.3")), D(1000), 1e9, "100"),
        ("exposure", BookView(D(10_000), D(10_000), open_cost_total=D(9_960)), D(1000), 1e9, "40"),
        ("per_token", BookView(D(10_000), D(10_000), open_cost_token=D(1_950)), D(1000), 1e9, "50"),
        ("participation", FREE, D(1000), 1_000.0, "50"),
    ],
)
def test_each_limit_cuts_alone_and_is_named(name, book, allowance, volume, left):
    """Cash reserve 5 %, exposure 100 %, 20 % per token, 5 % of the bar's volume."""
    capped = limit_buy(D(200), book, allowance, volume, RULES)
    assert (capped.notional_usd, capped.caps) == (D(left), (name,))


def test_too_small_an_order_is_no_order():
    """Below the smallest order nothing is left, and every cut on the way is named."""
    capped = limit_buy(D(200), FREE, D(1000), 99.0, RULES)
    assert (capped.notional_usd, capped.caps) == (0, ("participation", "min_notional"))


def test_an_overdrawn_limit_leaves_nothing_not_less_than_nothing():
    """Cash below the reserve gives 0, never a negative order."""
    capped = limit_buy(D(200), BookView(D(10_000), D(-5)), D(1000), 1e9, RULES)
    assert capped.notional_usd == 0


def test_what_a_position_may_still_spend():
    """max(0, nav * allocation - open cost - reserved)."""
    book = BookView(D(10_000), D(10_000), open_cost_position=D(300), reserved=D(50))
    assert usd_remaining(book, 12.5) == D(900)
    assert usd_remaining(book, 3.0) == 0


def test_what_a_buy_leaves_of_the_cash_pays_its_fee_too():
    """With nothing held back and 30 bps a buy of all cash is cut to 1/1.003 of it; one that leaves the fee is whole."""
    rules = RiskRules(cash_reserve=D(0), per_token=D(1))
    book = BookView(D(1_003), D(1_003))
    assert limit_buy(D(1_003), book, D(9_999), 1e9, rules).notional_usd == D(1_000)
    assert limit_buy(D(1_003), book, D(9_999), 1e9, rules).caps == ("cash_reserve",)
    assert limit_buy(D(1_000), book, D(9_999), 1e9, rules).caps == ()


def test_a_fee_is_kept_free_to_the_last_millionth():
    """Rounded up, so that what is booked can never be more."""
    assert with_fee(D("0.000001"), RULES) == D("0.000002")
    assert with_fee(D(100), RiskRules(fee_bps=D(0))) == D(100)


@pytest.mark.parametrize("name", ["cash_reserve", "max_exposure", "per_token", "participation"])
@pytest.mark.parametrize("wrong", ["-0.01", "1.01", "NaN"])
def test_a_share_is_from_0_to_1(name, wrong):
    """Each by its name."""
    with pytest.raises((TradingError, ArithmeticError)):
        RiskRules(**{name: D(wrong)})


@pytest.mark.parametrize("name", ["min_notional_usd", "fee_bps"])
def test_an_amount_is_not_below_0(name):
    """Each by its name."""
    with pytest.raises(TradingError, match=f"{name} must be 0 or more"):
        RiskRules(**{name: D(-1)})


def test_a_listed_token_is_known_by_its_symbol_or_its_contract():
    """Nothing else is bought; an empty list forbids nothing."""
    listed = RiskRules(canary=frozenset({"AUSDT", "0xb"}))
    assert [listed.may_buy(*token) for token in (("AUSDT", "0xa"), ("BUSDT", "0xb"), ("CUSDT", "0xc"))] == [
        True, True, False,
    ]  # fmt: skip
    assert RiskRules().may_buy("CUSDT", "0xc")
