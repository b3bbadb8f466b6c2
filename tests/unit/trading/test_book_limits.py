"""Limits of the whole book as the desk keeps them: trades open, cash for fees, tokens on the list, old prices, likeness
of what is held."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest
from tests.scripted import T0
from tests.unit.trading.test_faults import ALL_IN, RULES, Book

from edgebook.adapters.memory import MemoryStore
from edgebook.runtime.system import System
from edgebook.runtime.views import open_positions_view, status_view
from edgebook.trading.position import usd
from edgebook.trading.rules import DecisionRules, RiskRules, SizeRules, SkewRules

D = Decimal
TWO = ("AUSDT", "BUSDT")


def capacity(book):
    """What the newest decision says of the number of positions."""
    (gate,) = (g for g in book.told("decision_lowcap")[-1].payload.gates if g.name == "portfolio_capacity")
    return gate.passed, gate.detail


# ---------------------------------------------------------------- positions with an open trade


def test_a_decision_counts_the_positions_that_have_a_trade_open():
    """None before a fill, one after it, none after the close; an order alone is no trade."""
    book = Book(tokens=TWO)
    book.signal("AUSDT")
    assert capacity(book) == (True, "0 active positions")
    book.bar(AUSDT=("on", 100.0, "buy"))
    book.signal("BUSDT")
    assert capacity(book) == (True, "0 active positions")
    book.settle()
    book.signal("AUSDT")
    assert capacity(book) == (True, "1 active positions")
    book.bar(AUSDT=("back", 99.0, "plain"))
    book.settle()
    book.bar(AUSDT=("same", 99.0, "plain"))
    assert len(book.told("position_closed")) == 1
    book.signal("BUSDT")
    assert capacity(book) == (True, "0 active positions")


@pytest.mark.parametrize(("most", "warns"), [(1, True), (2, False)])
def test_from_the_set_number_on_a_decision_warns_and_still_approves(most, warns):
    """One trade is open: 1 warns, 2 does not."""
    book = Book(rules=replace(RULES, dm=DecisionRules(warn_positions=most)), tokens=TWO)
    book.signal("AUSDT")
    book.bar(AUSDT=("on", 100.0, "buy"))
    book.settle()
    book.signal("BUSDT")
    passed, detail = capacity(book)
    assert (passed, "warning" in detail) == (True, warns)
    assert book.told("decision_lowcap")[-1].payload.action == "approve"


def test_a_restart_and_an_undone_job_count_the_same():
    """The number follows from the table of positions."""
    book = Book(store=MemoryStore(), tokens=TWO)
    book.signal(*TWO)
    book.bar(**dict.fromkeys(TWO, ("on", 100.0, "buy")))
    book.uow.commit()
    book.uow.savepoint()
    book.settle()
    assert book.desk.active_positions == 2
    book.desk.reset()
    assert book.desk.active_positions == 2
    book.uow.commit()
    book.crash()
    assert book.desk.active_positions == 2


# ---------------------------------------------------------------- cash


def test_with_nothing_held_back_all_cash_can_be_spent_and_no_more():
    """Six tokens want a fifth of the book each, at once: the fifth buys for what its fee leaves, and says why."""
    tokens = tuple(f"T{number}USDT" for number in range(6))
    risk = RiskRules(cash_reserve=D(0), per_token=D(1))
    rules = replace(RULES, dm=replace(RULES.dm, score_knots=((0.0, 20.0),)), sizes=SizeRules(s1=ALL_IN), risk=risk)
    book = Book(rules=rules, tokens=tokens)
    book.signal(*tokens)
    book.bar(**dict.fromkeys(tokens, ("on", 100.0, "buy")))
    assert [order.notional_usd for order in book.orders][:4] == [D(20_000)] * 4
    assert [s.payload.caps for s in book.told("pm_action")] == [()] * 4 + [("cash_reserve",)]
    assert book.orders[4].notional_usd == D("19700.897308")
    book.settle()
    assert book.cash >= 0


# ---------------------------------------------------------------- tokens on the list


def bars(book, *flavours):
    """Bars of both tokens alike."""
    for move, price, flavour in flavours:
        book.bar(**dict.fromkeys(TWO, (move, price, flavour)))
        book.settle()


def test_only_listed_tokens_are_bought_and_the_others_say_why():
    """Both are decided; the bar and the window of the other one name the list."""
    book = Book(rules=replace(RULES, risk=RiskRules(canary=frozenset({"AUSDT"}))), tokens=TWO)
    book.signal(*TWO)
    bars(book, ("on", 100.0, "buy"), ("same", 100.0, "plain"), ("back", 99.0, "plain"))
    assert [s.payload.action for s in book.told("decision_lowcap")] == ["approve", "approve"]
    assert {s.symbol for s in book.told("pm_action")} == {"AUSDT"}
    assert [(s.symbol, s.payload.reasons) for s in book.told("pm_skipped")] == [("BUSDT", ("canary",))]
    windows = {s.symbol: s.payload.blocked_by for s in book.told("uptrend_buy_window")}
    assert "canary" in windows["BUSDT"]
    assert "canary" not in windows["AUSDT"]


def test_a_token_taken_off_the_list_is_still_sold():
    """The list is asked by buys alone."""
    book = Book(tokens=TWO)
    book.signal(*TWO)
    bars(book, ("on", 100.0, "buy"))
    assert book.position("BUSDT").holding
    book.desk.rules = replace(RULES, risk=RiskRules(canary=frozenset({"AUSDT"})))
    bars(book, ("back", 99.0, "plain"), ("same", 99.0, "plain"))
    assert not book.position("BUSDT").holding
    assert {s.symbol for s in book.told("position_closed")} == set(TWO)


# ---------------------------------------------------------------- old prices


@pytest.fixture
def aged():
    """``aged(hours)``: a book that bought AUSDT, which then has no bar for so many hours."""

    def build(hours):
        book = Book(tokens=TWO)
        book.signal("AUSDT")
        book.bar(AUSDT=("on", 100.0, "buy"))
        book.settle()
        book.bar(AUSDT=("same", 110.0, "plain"))
        for _ in range(hours):
            book.bar(AUSDT=("gone", 0.0, "plain"))
        return book

    return build


@pytest.mark.parametrize(("hours", "stale"), [(0, False), (3, False), (4, True)])
def test_a_price_more_than_three_bars_old_is_flagged_and_kept(aged, hours, stale):
    """Three missing bars are not told, four are; the value stays that of the last price and never falls to 0."""
    book = aged(hours)
    system = System(book.desk, SimpleNamespace(start=T0, live=False))
    system.clock = book.market.now
    system.commit()
    (row,) = open_positions_view(book.uow)
    assert (row["symbol"], row["stale_mark"]) == ("AUSDT", stale)
    assert status_view(book.uow)["open_positions"] == [row]
    quantity = book.position().ledger.quantity
    assert book.desk.nav(book.market.now) == usd(book.cash + quantity * 110)


def test_a_flag_is_gone_with_the_next_bar_and_with_the_holding(aged):
    """Nothing stays flagged that is valued at a new price, or sold."""
    book = aged(4)
    book.desk.note_stale_marks(book.market.now)
    assert open_positions_view(book.uow)[0]["stale_mark"]
    book.bar(AUSDT=("same", 110.0, "plain"))
    book.desk.note_stale_marks(book.market.now)
    assert not open_positions_view(book.uow)[0]["stale_mark"]


def test_a_book_without_trades_lists_none():
    """Watched positions are no open positions."""
    book = Book()
    book.signal("AUSDT")
    book.desk.note_stale_marks(book.market.now)
    assert open_positions_view(book.uow) == []


# ---------------------------------------------------------------- likeness


def test_the_second_of_two_alike_is_bought_smaller_where_the_setting_says_so():
    """F11: the first fills half of the book; the second is skewed by it, above a third, and only with the switch."""
    sizes, dm = SizeRules(s1=ALL_IN), DecisionRules(score_knots=((0.0, 50.0),), max_pct=50.0)
    wanted = {}
    for on in (True, False):
        rules = replace(RULES, dm=dm, sizes=sizes, risk=RiskRules(per_token=D(1)), skew=SkewRules(enabled=on))
        book = Book(rules=rules, tokens=TWO)
        book.signal(*TWO)
        book.bar(AUSDT=("on", 100.0, "buy"))
        book.settle()
        book.bar(BUSDT=("on", 100.0, "buy"))
        first, second = (s.payload for s in book.told("pm_action"))
        wanted[on] = second.size_frac
        assert ("exposure_skew" in second.reasons) is on
        assert first.size_frac == 1.0
    assert 0.33 <= wanted[True] < wanted[False] == 1.0
