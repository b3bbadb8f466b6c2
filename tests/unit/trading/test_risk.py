"""Risk limits: each one binds by itself, and says so (trading.md 3.6)."""

from __future__ import annotations

from decimal import Decimal

import pytest

from edgebook.trading.risk import BookView, limit_buy, usd_remaining
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
        ("cash_reserve", BookView(D(10_000), D(600)), D(1000), 1e9, "100"),
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
