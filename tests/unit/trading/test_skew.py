"""The skew of a buy by what the book holds already: what counts as alike, how much, and what an action says of it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from edgebook.domain.book import Ledger
from edgebook.domain.errors import TradingError
from edgebook.domain.strands import TradeAction
from edgebook.engine.gates import BASE_GATES, evaluate
from edgebook.overrides.combine import Strength, apply_pattern_execution_overrides
from edgebook.overrides.history import ConfigHistory
from edgebook.trading import actions
from edgebook.trading.actions import PlannedAction, Situation, plan_action
from edgebook.trading.risk import BookView
from edgebook.trading.rules import SkewRules
from edgebook.trading.skew import Lot, concentration, lot_of, lots_of, mask_weights, skew_of

D = Decimal
NAV = D(100_000)
S1, S3 = "module=pm|pattern_key=uptrend.S1.buy_flag", "module=pm|pattern_key=uptrend.S3.dx"
RULES = SkewRules(enabled=True)


def lot(cost=0.0, pattern=S1, **dims):
    """A lot on Solana at 1h, in S1 of the book main, unless said otherwise."""
    return Lot({"chain": "solana", "timeframe": "1h", "book": "main", "state": "S1"} | dims, pattern, cost)


def bought(pattern, quantity, price, category="entry"):
    """One fill of a trade."""
    return TradeAction(
        "strand", 0, category, 5, pattern, category, {}, "", 0, D(quantity), price, D(0), 1.0, 1.0
    )  # fmt: skip


def test_an_empty_book_and_a_book_of_other_chains_leave_a_buy_alone():
    """Nothing held, or nothing alike: 1."""
    assert skew_of(lot(), [], NAV, RULES) == 1.0
    assert skew_of(lot(), [lot(90_000.0, chain="base")], NAV, RULES) == 1.0


def test_peers_shrink_a_buy_the_more_alike_they_are():
    """Two peers of 40 % each: the same pattern in all four masks shrinks it most, the same chain alone least."""
    peers = {
        "same pattern": {}, "same state": {"pattern": "uptrend.S1.other"},
        "same timeframe": {"pattern": S3, "state": "S3"},
        "same chain": {"pattern": S3, "state": "S3", "timeframe": "4h"},
    }  # fmt: skip
    found = [skew_of(lot(), [lot(40_000.0, **how)] * 2, NAV, RULES) for how in peers.values()]
    assert found == sorted(found)
    assert len(set(found)) == 4
    assert 0.33 <= found[0] < found[1] < found[2] < 1.0


def test_the_numbers_of_one_example():
    """alpha 1: masks weigh .4 .3 .2 .1; of a lot of 40 % that is alike but for its state and its pattern count .6."""
    assert mask_weights(replace(RULES, alpha=1.0)) == pytest.approx((0.4, 0.3, 0.2, 0.1))
    other = lot(40_000.0, pattern=S3, state="S3")
    assert concentration(lot(), [other], NAV, replace(RULES, alpha=1.0)) == pytest.approx(0.24)
    assert skew_of(lot(), [lot(80_000.0)], NAV, replace(RULES, alpha=1.0)) == pytest.approx(0.33)


def test_a_share_is_of_the_books_value_not_of_percent():
    """The same holding in a book ten times as large weighs a tenth."""
    held = [lot(50_000.0)]
    assert concentration(lot(), held, NAV * 10, RULES) == pytest.approx(concentration(lot(), held, NAV, RULES) / 10)


def test_what_a_position_holds_is_told_by_the_patterns_it_was_bought_under(w):
    """400 spent in S1 and 100 in S3, half sold since: the cost left is split four to one; a sale is no lot."""
    trade = (bought(S1, 4, 100.0), bought(S3, 1, 100.0, "add"), bought("sold", 2, 150.0, "trim"))
    held = w.position(trade_id="t", actions=trade, ledger=Ledger(D("2.5"), D(250), D(500), bought=D(5)))
    assert [(x.dims["state"], x.pattern_key, x.cost_usd) for x in lots_of(held)] == [
        ("S1", S1, 200.0),
        ("S3", S3, 50.0),
    ]
    assert lots_of(replace(held, ledger=Ledger())) == ()
    assert lots_of(w.position()) == ()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"alpha": -0.1}, "exposure_skew_alpha"), ({"alpha": float("nan")}, "exposure_skew_alpha"),
        ({"dim_weights": {"chain": -1.0}}, "chain"), ({"ceiling": 1.01}, "ceiling"),
        ({"floor": 1.0, "ceiling": 0.9}, "floor"),
    ],
    ids=str,
)  # fmt: skip
def test_numbers_that_could_widen_a_buy_are_refused(wrong, named):
    """A skew only ever takes away."""
    with pytest.raises(TradingError, match=named):
        SkewRules(**wrong)


# ---------------------------------------------------------------- in an action


@pytest.fixture
def planned(w):
    """``planned(rules, lots)``: the S1 entry of a book that holds them."""

    def build(skew, lots):
        reading, history = w.reading("S1", w.T0, ts_score=0.7), ConfigHistory()
        situation = Situation(
            position=w.position(attempt_id="attempt-1"), reading=reading, report=evaluate(reading, BASE_GATES),
            controls=apply_pattern_execution_overrides(history, "S1", (), reading.ts, "1h"), regime=w.regime(),
            scope=(), history=history, rules=replace(w.PLAIN, skew=skew),
            book=lambda: BookView(NAV, NAV, lots=lots), bar_volume_usd=1e9,
        )  # fmt: skip
        plan = plan_action(situation)
        assert isinstance(plan, PlannedAction)
        return plan

    return build


def test_a_buy_is_smaller_by_the_skew_and_says_so(w, planned):
    """The base size shrinks with it: the skew is no learning."""
    peer = lot_of(w.position(), S1, 40_000.0)
    free, skewed = planned(SkewRules(), (peer,)), planned(RULES, (peer,))
    skew = skew_of(lot_of(w.position(), S1), [peer], NAV, RULES)
    assert skew < 1.0
    assert skewed.reasons["exposure_skew"] == skewed.reasons["combined_mult"] == skew
    assert skewed.size.fraction == skewed.size.base_fraction == pytest.approx(free.size.fraction * skew)
    assert skewed.notional_usd < free.notional_usd


def test_off_or_with_an_empty_book_a_buy_is_as_it_was(w, planned):
    """Off: not a word of it. On with nothing held: 1, and the same size."""
    peer = lot_of(w.position(), S1, 20_000.0)
    off, on = planned(SkewRules(), (peer,)), planned(RULES, ())
    assert not {"exposure_skew", "combined_mult"} & set(off.reasons)
    assert on.reasons["exposure_skew"] == 1.0
    assert (on.size, on.notional_usd) == (off.size, off.notional_usd)


@pytest.mark.parametrize(("fraction", "expected"), [(0.3, 0.45), (0.9, 1.0)])
def test_with_a_strength_of_one_and_a_half_the_product_is_told_and_clamped(w, planned, monkeypatch, fraction, expected):
    """F11: skew and strength multiply before the clamp, which is at all of the basis."""
    monkeypatch.setattr(actions, "apply_pattern_strength_overrides", lambda *_, **__: Strength(1.5, 1.0, 1.0))
    sizes = replace(w.PLAIN.sizes, s1=(fraction,) * 3)
    monkeypatch.setattr(w, "PLAIN", replace(w.PLAIN, sizes=sizes))
    assert planned(RULES, ()).size.fraction == pytest.approx(expected)
    plan = planned(RULES, (lot_of(w.position(), S1, 30_000.0),))
    skew = plan.reasons["exposure_skew"]
    assert skew < 1.0
    assert plan.reasons["combined_mult"] == 1.5 * skew
    assert plan.size.fraction == pytest.approx(min(1.0, fraction * 1.5 * skew))
