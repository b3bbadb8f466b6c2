"""What is done about bad input and about everything that goes wrong between us and a venue: one named behaviour each.

Money is never spent twice, and nothing is booked that was not filled.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs
from tests.scripted import HOUR, NONSENSE, T0, Fate, ModelVenue, ScriptedMarket, signal_line

from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.adapters.memory import MemoryStore
from edgebook.desk import Desk
from edgebook.domain.book import Ledger
from edgebook.domain.errors import EdgebookError, InputError, StrandError, TradingError
from edgebook.domain.ids import stable_id
from edgebook.jobs import count_bars, decision_maker, ingest_signal, pm_core_tick, settle_orders
from edgebook.learning.config import LearningConfig
from edgebook.ports import Execution
from edgebook.runtime.replay import rebuild
from edgebook.runtime.settings import load_settings
from edgebook.runtime.system import System
from edgebook.trading.position import evolve, position_id
from edgebook.trading.risk import with_fee
from edgebook.trading.rules import PmRules, RiskRules, SizeRules, TradingRules, timeframe_splits
from edgebook.trading.settle import fill

D = Decimal
RULES = TradingRules(holdout=0.0, timeframes=("1h",), starting_cash_usd=D(100_000))
CASH = RULES.starting_cash_usd
ALL_IN = (1.0, 1.0, 1.0)
#: What a system asks of its tape where no bar is walked.
TAPE = SimpleNamespace(start=T0, end=None, loaded_until=T0, live=False, load=lambda now: None)


class Book:
    """A book in memory with its market and its venue: signals in, bars in, orders out, all through the real jobs."""

    def __init__(self, store=None, rules=RULES, tokens=("AUSDT",), barless=(), broker=None):
        self.rules, self.market = rules, ScriptedMarket(tokens, barless)
        self.venue = ModelVenue(self.market)
        self.store, self.broker = store or MemoryStore(), broker or self.venue
        self.open()

    def open(self):
        """A process starts on what the store holds."""
        self._writer = self.store.writer()
        self.uow = self._writer.__enter__()
        self.desk = Desk(self.uow, self.market, self.broker, {}, self.rules, LearningConfig())

    def crash(self):
        """The process ends without a commit, and another one starts."""
        self._writer.__exit__(None, None, None)
        self.open()

    def signal(self, *tokens, **change):
        """A buy signal for each token, ingested and decided."""
        for token in tokens:
            line = signal_line(f"{token} {self.market.now}", token, self.market.now, **change)
            assert ingest_signal(self.desk, line, self.market.now).status == "accepted"
        decision_maker(self.desk, self.market.now)

    def bar(self, **bars):
        """An hour with these bars (move, price, flavour); tokens that are not named stand still at 100."""
        for token in self.market.symbols:
            self.market.bar(token, *bars.get(token, ("same", 100.0, "plain")))
        self.market.pass_hour()
        return pm_core_tick(self.desk, "1h", self.market.now)

    def settle(self, *fates):
        """Ask the venue about every open order, as the system runs the job: a failure undoes what it wrote."""
        self.venue.coming.extend(fates)
        self.uow.savepoint()
        try:
            settle_orders(self.desk, self.market.now)
        except (EdgebookError, ArithmeticError):
            self.uow.undo()
            self.desk.reset()

    def position(self, token="AUSDT"):
        return self.uow.positions.get(position_id("exchange", token, "1h", self.rules.book))

    @property
    def cash(self):
        account = self.uow.accounts.get(self.rules.book)
        return account.cash_usd if account else CASH

    @property
    def orders(self):
        return self.desk.open_orders()

    def told(self, *kinds):
        """Strands of these kinds, in order."""
        return list(self.uow.log.read(0, kinds))


def bought(token="AUSDT", **how):
    """A book with one open buy of about 2,000 USD."""
    book = Book(tokens=(token,), **how)
    book.signal(token)
    book.bar(**{token: ("on", 100.0, "buy")})
    assert [order.side for order in book.orders] == ["buy"]
    return book


def leaving(**how):
    """A book that holds tokens, with the exit order open: the attempt is over."""
    book = bought(**how)
    book.settle()
    book.bar(AUSDT=("back", 99.0, "plain"))
    assert [order.rule for order in book.orders] == [1]
    return book


# ------------------------------------------------------------------ settings


def test_an_unknown_setting_is_refused_by_its_name(tmp_path):
    """A word nobody knows in the settings file is an error, never a setting that silently does nothing."""
    file = tmp_path / "settings.toml"
    file.write_text("starting_cash = 5\n")
    with pytest.raises(InputError, match=r"^setting starting_cash: .*was 5\)$"):
        load_settings(file)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"loss_streak": 3}, ("loss_streak is 3", "loss_streak_hours is 0")),
        ({"loss_streak_hours": 5.0}, ("loss_streak is 0", "loss_streak_hours is 5")),
        ({"daily_loss_stop": 0.2, "drawdown_stop": 0.1}, ("daily_loss_stop is 0.2", "drawdown_stop is 0.1")),
    ],
    ids=["a streak without a pause", "a pause without a streak", "a daily stop that never comes first"],
)
def test_settings_that_contradict_each_other_are_refused_and_both_are_named(given, named):
    """One line with both numbers; nothing starts, so nothing is traded under half a rule."""
    with pytest.raises(InputError) as refused:
        load_settings(**given)
    assert all(part in refused.value.message for part in named)
    assert "\n" not in refused.value.message


def test_rules_that_cannot_be_are_refused_when_they_are_made():
    """An S1 policy nobody knows, or an allocation that no timeframe has a share of."""
    with pytest.raises(TradingError, match="on_primer or after_breakout"):
        PmRules(s1_policy="whenever")
    with pytest.raises(TradingError, match="at least one timeframe"):
        timeframe_splits(["1h"], {"1h": 0.0})


# ------------------------------------------------------------------ a venue that answers nonsense


@pytest.mark.parametrize("name", sorted(NONSENSE))
@pytest.mark.parametrize("make", [bought, leaving], ids=["buy", "exit"])
def test_an_answer_that_makes_no_sense_books_nothing_and_the_order_goes_on_waiting(make, name):
    """No strand, no cash, no tokens; the true answer, when it comes, is booked once."""
    book = make()
    order, position, cash, head = book.orders[0], book.position(), book.cash, book.uow.log.head
    book.settle(Fate(nonsense=(name,)))
    assert (book.uow.log.head, book.position(), book.cash, book.orders) == (head, position, cash, [order])
    book.settle()
    book.settle()
    assert [s.payload.client_id for s in book.told("order_filled")].count(order.client_id) == 1
    assert book.cash == cash + book.venue.done[order.client_id].cash


def test_an_answer_that_sells_more_than_is_held_books_nothing():
    """Tokens that are not there cannot have been sold."""
    book = leaving()
    held, cash = book.position().ledger, book.cash
    too_much = Execution("filled", held.quantity + D("0.000000001"), 99.0, D(0), 0.0, book.market.now)
    with pytest.raises(TradingError):
        fill(book.position(), book.orders[0], too_much, now=book.market.now)
    assert (book.position().ledger, book.cash) == (held, cash)


def test_an_answer_that_makes_no_sense_keeps_no_other_order_back():
    """At a venue each order is a transaction: the one that cannot be booked waits, with its reason in the dead letters,
    and the one behind it is filled."""
    book = Book(tokens=("AUSDT", "BUSDT"))
    book.signal("AUSDT", "BUSDT")
    book.bar(AUSDT=("on", 100.0, "buy"), BUSDT=("on", 100.0, "buy"))
    first = book.orders[0]
    book.venue.coming.append(Fate(nonsense=("price 0",)))
    system = System(book.desk, TAPE, at_venue=True)
    with capture_logs():
        system.settle(book.market.now)
    assert (book.orders, book.position("BUSDT").holding) == ([first], True)
    assert [(x.stage, x.content) for x in book.uow.dead_letters.values()] == [("settle_orders", first.client_id)]
    system.settle(book.market.now)
    assert (book.orders, book.position("AUSDT").holding, len(book.venue.done)) == ([], True, 2)


# ------------------------------------------------------------------ a partial fill, then silence


def test_a_buy_that_filled_in_part_is_booked_in_part_and_its_rest_is_ordered_once_more():
    """Four tenths are held and paid for, and nothing is reserved; on the next bar, the signal still there, the rest is
    ordered, and what that leaves is given up: in all never more than was wanted first."""
    book = bought()
    wanted = book.orders[0].notional_usd
    book.settle(Fate(share=D("0.4"), fee_bps=0))
    assert book.position().ledger.invested == pytest.approx(wanted * D("0.4"), abs=D("0.001"))
    assert book.cash == CASH - book.position().ledger.invested
    assert (book.orders, book.position().planned, book.position().s1_used) == ([], None, True)
    book.bar(AUSDT=("same", 100.0, "buy"))
    assert [order.notional_usd for order in book.orders] == [wanted - book.position().ledger.invested]
    book.settle(Fate(share=D("0.5"), fee_bps=0))
    for _ in range(3):
        book.bar(AUSDT=("same", 100.0, "buy"))
        assert book.orders == []
    assert book.position().ledger.invested == pytest.approx(wanted * D("0.7"), abs=D("0.001"))
    assert [s.payload.partial for s in book.told("order_filled")] == [True, True]


def test_a_buy_that_filled_in_part_and_whose_signal_is_gone_is_over():
    """The entry is used; the rest is not bought on a later bar, whatever that looks like."""
    book = bought()
    book.settle(Fate(share=D("0.4")))
    ledger = book.position().ledger
    book.bar()
    for _ in range(2):
        book.bar(AUSDT=("same", 100.0, "buy"))
    assert (book.position().ledger, book.orders) == (ledger, [])


def test_an_exit_that_filled_in_part_goes_on_bar_by_bar_until_nothing_is_left():
    """The rest is sold by orders of its own, one at a time, and the trade closes with all of them."""
    book = leaving()
    held = book.position().ledger.quantity
    book.settle(Fate(share=D("0.5")))
    assert (book.position().status, book.orders) == ("closing", [])
    book.bar()
    assert [order.quantity for order in book.orders] == [held - book.venue.done[sales(book)[0]].quantity]
    book.settle()
    closed = book.told("position_closed")
    assert [action.decision_type for action in closed[0].payload.actions] == ["entry", "exit", "exit"]
    assert book.venue.hold("AUSDT") == 0
    assert book.cash == CASH + closed[0].payload.summary.pnl_usd


def test_an_emergency_exit_that_filled_in_part_is_tried_again_while_the_emergency_lasts():
    """Half got out; on the next bar below the line the other half is ordered, and the trade stays open until S0."""
    book = bought()
    book.settle()
    for _ in range(2):
        book.bar(AUSDT=("on", 100.0, "plain"))
    book.bar(AUSDT=("same", 94.0, "emergency"))
    book.settle(Fate(share=D("0.5")))
    rest = book.position().ledger.quantity
    assert rest > 0
    book.bar(AUSDT=("same", 94.0, "emergency"))
    assert [(order.rule, order.quantity) for order in book.orders] == [(2, rest)]
    book.settle()
    assert (book.position().holding, book.position().trade_id != "", book.venue.hold("AUSDT")) == (False, True, 0)


@pytest.mark.parametrize(("share", "given_up"), [("0.007", True), ("1", False)], ids=["14 USD", "2,000 USD"])
def test_what_the_venue_calls_too_little_to_sell_is_given_up_only_where_it_is_little(share, given_up):
    """A rest that would be refused for ever is written off, and the trade closes; a whole position never is, whatever
    the venue says: it is offered again on every bar."""
    book = bought()
    book.settle(Fate(share=D(share)))
    book.venue.least = D(10_000)
    book.bar(AUSDT=("back", 99.0, "plain"))
    book.settle()
    assert (book.position().trade_id == "", book.position().holding) == (given_up, not given_up)
    book.bar()
    assert [order.rule for order in book.orders] == ([] if given_up else [1])
    assert book.cash == CASH + sum(done.cash for done in book.venue.done.values())


def sales(book):
    """Client ids of filled sales."""
    return [s.payload.client_id for s in book.told("order_filled") if s.payload.side == "sell"]


def test_while_an_exit_is_not_answered_no_second_one_is_sent():
    """Five silent hours: the one order waits, and when it is answered the tokens have been sold once."""
    book = leaving()
    order = book.orders[0]
    book.settle(Fate(waits=5))
    for _ in range(5):
        assert book.bar()["applied"] == 0
        assert book.orders == [order]
        book.settle()
    assert (book.position().trade_id, book.venue.hold("AUSDT"), len(book.venue.done)) == ("", 0, 2)


def test_a_buy_that_is_not_answered_keeps_its_money_reserved():
    """As long as it may still fill nobody else can spend it."""
    rules = replace(RULES, sizes=SizeRules(s1=ALL_IN))
    book = Book(rules=rules, tokens=("AUSDT", "BUSDT"))
    book.signal("AUSDT", "BUSDT")
    book.bar(AUSDT=("on", 100.0, "buy"))
    book.settle(Fate(waits=9))
    waiting = book.orders[0]
    view = book.desk.book_view(book.position("BUSDT"), book.market.now)
    assert view.free_cash == CASH - with_fee(waiting.notional_usd, rules.risk)
    assert view.open_cost_total == waiting.notional_usd


# ------------------------------------------------------------------ a fill that is told twice


def test_a_fill_that_is_told_twice_is_booked_once():
    """The job run again finds no open order; after a crash the same answer is booked as if it were the first time."""
    book = bought()
    book.uow.commit()
    book.settle()
    once = (book.position().ledger, book.cash)
    book.settle()
    assert (book.position().ledger, book.cash) == once
    book.crash()
    assert book.position().ledger == Ledger()
    book.settle()
    assert (book.position().ledger, book.cash) == once
    assert len(book.told("order_filled")) == len(book.venue.done) == 1


def test_a_second_report_of_a_booked_order_is_refused():
    """By name of the order, and with it everything it says."""
    book = bought()
    order = book.orders[0]
    book.settle()
    again = Execution("filled", D(5), 100.0, D(0), 0.0, book.market.now)
    with pytest.raises(TradingError, match=f"order {order.client_id} is not what position"):
        fill(book.position(), order, again, now=book.market.now)


def test_the_log_takes_one_fill_per_order():
    """The strand of an order's fill has the order's id: the same one again is no news, another one an error."""
    book = bought()
    book.settle()
    told, head = book.told("order_filled")[0], book.uow.log.head
    assert told.id == stable_id("order_filled", told.payload.client_id)
    before = (book.position(), book.cash)
    book.desk.record([replace(told, seq=0, hash="")])
    assert (book.uow.log.head, book.position(), book.cash) == (head, *before)
    other = replace(told, payload=replace(told.payload, quantity=D(7)), seq=0, hash="")
    with pytest.raises(StrandError, match=told.id):
        book.desk.record([other])
    assert (book.uow.log.head, book.position(), book.cash) == (head, *before)


# ------------------------------------------------------------------ a fill after the order was to be over


def test_a_fill_that_comes_after_the_expiry_is_booked_as_what_it_is():
    """While the venue says open nothing is over, however late: what it has bought is held and paid for."""
    book = bought()
    order = book.orders[0]
    book.settle(Fate(waits=2))
    for _ in range(2):
        book.bar()
        assert book.market.now > order.expires_ts
        book.settle()
    told = book.told("order_filled")
    assert [(s.payload.client_id, s.ts_event) for s in told] == [(order.client_id, book.market.now)]
    assert book.position().ledger.quantity == book.venue.hold("AUSDT") > 0


def test_a_fill_of_an_order_that_has_ended_is_refused_and_never_asked_for():
    """Expired is final: the broker is not asked again, a report is refused by name, and the fold takes no such
    strand."""
    book = bought()
    order = book.orders[0]
    book.settle(Fate(status="expired"))
    assert (book.told("order_expired")[0].payload.client_id, book.orders) == (order.client_id, [])
    book.broker.execute = None
    book.settle()
    late = Execution("filled", D(5), 100.0, D(0), 0.0, book.market.now)
    with pytest.raises(TradingError, match="is not what position"):
        fill(book.position(), order, late, now=book.market.now)
    booked = leaving().told("order_filled")[0]
    stray = replace(booked, payload=replace(booked.payload, action_id=order.action_id), position_id=book.position().id)
    with pytest.raises(TradingError, match="did not plan"):
        evolve(book.position(), stray)
    assert (book.position().ledger, book.cash) == (Ledger(), CASH)


# ------------------------------------------------------------------ a clock that goes backwards


def test_a_bar_that_is_over_is_not_acted_on_again():
    """Ticks at earlier times than the last one change nothing, with orders open or without."""
    book = leaving()
    book.bar()
    head = book.uow.log.head
    for hours in range(4):
        assert pm_core_tick(book.desk, "1h", book.market.now - hours * HOUR)["applied"] == 0
    book.settle()
    for hours in range(4):
        assert pm_core_tick(book.desk, "1h", book.market.now - hours * HOUR)["applied"] == 0
    assert [s.kind for s in book.uow.log.read(head[0])] == ["order_filled", "position_closed", "position_status"]


def test_an_order_is_not_filled_before_it_was_planned():
    """Asked at an earlier time the market has no bar that opened since, so that paper leaves the order open."""
    book = bought(broker=PaperBroker())
    order, head = book.orders[0], book.uow.log.head
    settle_orders(book.desk, order.planned_ts - HOUR)
    assert (book.uow.log.head, book.orders) == (head, [order])
    settle_orders(book.desk, order.planned_ts)
    assert book.told("order_filled")[0].ts_event == order.planned_ts


def test_a_message_dated_ahead_is_decided_when_it_was_heard():
    """The decision and the position are of the time of the clock, whatever time the message gives itself."""
    book = Book()
    line = signal_line("ahead", "AUSDT", T0 + 24 * HOUR)
    assert ingest_signal(book.desk, line, T0).status == "accepted"
    decision_maker(book.desk, T0)
    assert [(s.ts_event, s.ts_recorded) for s in book.told("decision_lowcap", "position_status")] == [(T0, T0)] * 2
    assert book.position().created_at == T0


def test_a_message_dated_years_ahead_bars_nobody():
    """It counts as of when it was heard; the true message an hour later is decided and taken up."""
    book = Book()
    ingest_signal(book.desk, signal_line("typo", "AUSDT", T0 + 200_000 * HOUR), T0)
    decision_maker(book.desk, T0)
    book.bar()
    book.signal("AUSDT")
    assert book.position().decision_id == book.told("decision_lowcap")[1].id


def test_a_message_dated_ahead_gives_way_to_what_is_heard_later():
    """Twenty hours ahead is taken, and counts as of when it was heard: one heard an hour later is the newer."""
    book = Book()
    ingest_signal(book.desk, signal_line("ahead", "AUSDT", T0 + 20 * HOUR), T0)
    decision_maker(book.desk, T0)
    ingest_signal(book.desk, signal_line("true", "AUSDT", T0 + HOUR), T0 + HOUR)
    decision_maker(book.desk, T0 + HOUR)
    first, second = book.told("decision_lowcap")
    assert first.id != second.id == book.position().decision_id


def in_flight():
    """A book whose first buy is on the way when a second curator speaks of the token: (book, first, second)."""
    book = bought()
    book.signal("AUSDT", id="second", curator="bob")
    first, second = (strand.id for strand in book.told("decision_lowcap"))
    assert (book.position().decision_id, book.position().pending_decision_id) == (first, second)
    return book, first, second


def test_a_trade_belongs_to_the_decision_its_order_was_planned_under():
    """Whoever speaks while the order is on the way waits; fill and action are of one packet."""
    book, first, second = in_flight()
    book.settle()
    assert book.position().trade_id
    assert (book.position().decision_id, book.position().pending_decision_id) == (first, second)
    (action,), (filled,) = book.told("pm_action"), book.told("order_filled")
    assert filled.correlation_id == action.correlation_id


def test_a_buy_that_comes_to_nothing_makes_room_for_the_decision_that_waits():
    """In the same transaction, with what it came to; folding the log again gives the same position."""
    book, _, second = in_flight()
    book.settle(Fate("rejected"))
    assert book.position().decision_id == second
    assert book.position().pending_decision_id == ""
    (refused,), told = book.told("order_rejected"), book.told("position_status")
    assert (told[-1].payload.reason, told[-1].causation_id) == ("decision_taken_up", refused.id)
    assert rebuild(book.uow, book.rules, LearningConfig()).equal


def test_the_system_walks_forwards_only():
    """Asked to walk to a time that is over it has no moment to walk."""
    book = Book()
    system = System(book.desk, TAPE)
    assert list(system.moments(T0 - HOUR)) == []
    assert list(system.moments(T0)) == []


# ------------------------------------------------------------------ a mark that is missing


def test_what_has_no_mark_counts_at_cost():
    """Neither as nothing nor as a profit: the value of the book is cash plus cost, and what it may spend follows."""
    book = bought()
    book.settle()
    cost, quantity = book.position().ledger.cost, book.position().ledger.quantity
    book.market.hide("AUSDT", 1)
    book.bar(AUSDT=("same", 110.0, "plain"))
    view = book.desk.book_view(book.position(), book.market.now)
    assert book.desk.nav(book.market.now) == book.cash + cost
    assert (view.nav, view.open_cost_position, view.open_cost_total) == (book.cash + cost, cost, cost)
    book.bar(AUSDT=("same", 110.0, "plain"))
    assert book.desk.nav(book.market.now) == (book.cash + quantity * 110).quantize(D("0.000001"))


def test_an_exit_needs_no_mark():
    """What is held is sold though nobody can say what it is worth; the outcome is of the fill."""
    book = bought()
    book.settle()
    book.market.hide("AUSDT", 1)
    book.bar(AUSDT=("back", 99.0, "plain"))
    book.settle()
    assert book.position().trade_id == ""
    assert book.told("position_closed")[0].payload.summary.pnl_usd == book.cash - CASH


# ------------------------------------------------------------------ more allocated than there is


def test_more_allocated_than_there_is_cash_buys_what_there_is_cash_for():
    """Ten tokens want a fifth of the book each, at once: four get it, the fifth what is left above the reserve and the
    fees of all, and says so; the others buy for what the fees came to less, and cash never falls below the reserve."""
    tokens = tuple(f"T{number}USDT" for number in range(10))
    dm = replace(RULES.dm, score_knots=((0.0, 20.0),))
    rules = replace(RULES, dm=dm, sizes=SizeRules(s1=ALL_IN))
    book = Book(rules=rules, tokens=tokens)
    book.signal(*tokens)
    book.bar(**dict.fromkeys(tokens, ("on", 100.0, "buy")))
    assert [order.notional_usd for order in book.orders] == [D(20_000)] * 4 + [D("14715.852442")]
    assert [s.payload.caps for s in book.told("pm_action")] == [()] * 4 + [("cash_reserve",)]
    book.settle()
    spent = sum(p.ledger.invested for p in book.uow.positions.values())
    assert book.cash == CASH - spent >= D(5_000)
    for _ in range(3):
        book.bar(**dict.fromkeys(tokens, ("same", 100.0, "buy")))
        assert sum(order.notional_usd for order in book.orders) < D(200)
        book.settle()
        assert book.cash >= book.desk.nav(book.market.now) * D("0.05") - D(1)


def test_one_decision_over_the_whole_book_is_clamped():
    """A base of 500 % is the largest allocation there is, and its token's cap holds whatever the allocation."""
    dm = replace(RULES.dm, score_knots=((0.0, 500.0),))
    rules = replace(RULES, dm=dm, sizes=SizeRules(s1=ALL_IN))
    book = Book(rules=rules)
    book.signal("AUSDT")
    assert book.position().allocation_pct == RULES.dm.max_pct == 20.0
    book.bar(AUSDT=("on", 100.0, "buy"))
    assert book.orders[0].notional_usd == CASH * D("0.20")


# ------------------------------------------------------------------ a token without bars


def test_a_signal_for_a_token_without_bars_sleeps_until_there_are_bars():
    """It is decided like any other; its position is dormant, is not ticked, reserves nothing, and wakes with its
    bars."""
    book = Book(tokens=("AUSDT", "NUSDT"), barless=("NUSDT",))
    book.signal("NUSDT")
    assert (book.position("NUSDT").status, len(book.uow.dead_letters)) == ("dormant", 0)
    for _ in range(3):
        book.market.bar("AUSDT", "on")
        book.market.pass_hour()
        assert pm_core_tick(book.desk, "1h", book.market.now)["read"] == 0
        assert count_bars(book.desk, book.market.now)["applied"] == 0
    assert (book.orders, book.desk.nav(book.market.now)) == ([], CASH)
    book.market.barless = ()
    assert count_bars(book.desk, book.market.now)["applied"] == 1
    book.bar(NUSDT=("on", 100.0, "buy"))
    assert [order.symbol for order in book.orders] == ["NUSDT"]


# ------------------------------------------------------------------ what can never be


@pytest.mark.parametrize("status", ["filled", "partial"])
def test_a_buy_that_cost_more_than_was_ordered_is_not_booked(status):
    """5,000 tokens for an order of 2,000 USD cannot be: refused by name, and the book is as it was."""
    book = bought()
    order = book.orders[0]
    much = Execution(status, D(5_000), 100.0, D(0), 0.0, book.market.now)
    with pytest.raises(TradingError, match="more than"):
        fill(book.position(), order, much, now=book.market.now)


@pytest.mark.parametrize(
    ("quantity", "price", "fee", "slippage"),
    [(10, 100.0, "100.02", 0.0), (10, 0.9, "0", 0.0), (10, 100.0, "0", -5001.0)],
    ids=["fee above a tenth", "a hundredth of the price", "better by half than when it was sent"],
)
def test_a_buy_that_cost_what_it_cannot_have_cost_is_not_booked(quantity, price, fee, slippage):
    """A fee that no venue takes, a price that no minute brings."""
    book = bought()
    odd = Execution("partial", D(quantity), price, D(fee), slippage, book.market.now)
    with pytest.raises(TradingError, match=book.orders[0].client_id):
        fill(book.position(), book.orders[0], odd, now=book.market.now)


@pytest.mark.parametrize(
    ("quantity", "price", "fee", "slippage"), [(10, 100.0, "100", 0.0), (10, 1.1, "0", 0.0), (10, 100.0, "0", -4999.0)]
)
def test_a_buy_that_is_strange_and_can_be_is_booked(quantity, price, fee, slippage):
    """Just inside each bound."""
    book = bought()
    odd = Execution("partial", D(quantity), price, D(fee), slippage, book.market.now)
    assert len(fill(book.position(), book.orders[0], odd, now=book.market.now).strands) == 1


@pytest.mark.parametrize("price", [0.01, 1.0, 9_800.0])
def test_an_exit_is_booked_at_whatever_the_price_has_become(price):
    """It may have waited for days: a token that fell to a ten-thousandth is sold at that."""
    book = leaving()
    order = book.orders[0]
    late = Execution("filled", order.quantity, price, D(0), -9_000.0, book.market.now)
    assert fill(book.position(), order, late, now=book.market.now).strands[0].payload.price == price


@pytest.mark.parametrize("hours", [-1000, -1, 1, 1000])
def test_a_fill_is_of_the_time_between_plan_and_now(hours):
    """A venue whose clock is off: the fill is booked, at the nearest time that can be."""
    book = bought()
    order = book.orders[0]
    book.market.now += HOUR
    odd = Execution("filled", D(5), 100.0, D(0), 0.0, book.market.now + hours * HOUR)
    (told,) = fill(book.position(), order, odd, now=book.market.now).strands
    assert order.planned_ts <= told.ts_event <= book.market.now


@pytest.mark.parametrize(("quantity", "price"), [("0.0000000001", 100.0), ("0.000000001", 0.00001)])
def test_a_fill_that_is_worth_nothing_books_nothing(quantity, price):
    """Less than the book's grain is no fill: no trade is opened that could never be closed."""
    book = bought()
    dust = Execution("partial", D(quantity), price, D(0), 0.0, book.market.now)
    with pytest.raises(TradingError):
        fill(book.position(), book.orders[0], dust, now=book.market.now)


def test_one_position_that_cannot_be_ticked_keeps_none_of_the_others_back():
    """Whatever is wrong with it goes to the dead letters."""
    book = Book(tokens=("AUSDT", "BUSDT"))
    book.signal("AUSDT", "BUSDT")
    book.bar(AUSDT=("on", 100.0, "buy"), BUSDT=("on", 100.0, "buy"))
    book.settle()
    broken = book.position()
    book.uow.positions.put(replace(broken, ledger=Ledger(), actions=broken.actions))
    book.bar(AUSDT=("back", 99.0, "plain"), BUSDT=("back", 99.0, "plain"))
    assert [order.symbol for order in book.orders] == ["BUSDT"]


def test_a_position_whose_bar_fails_half_way_has_not_seen_the_bar(monkeypatch):
    """Its strands are in the log, then storing its memory fails: the strands are undone, the other's are not, and the
    bar can be walked again."""
    book = Book(tokens=("AUSDT", "BUSDT"))
    book.signal("AUSDT", "BUSDT")
    put = book.uow.memory.put

    def failing(row):
        if row.position_id == book.position("AUSDT").id:
            raise TradingError("no room", stage="pm_core_tick")
        put(row)

    monkeypatch.setattr(book.uow.memory, "put", failing)
    counts = book.bar(AUSDT=("on", 100.0, "buy"), BUSDT=("on", 100.0, "buy"))
    assert (counts["failed"], [order.symbol for order in book.orders]) == (1, ["BUSDT"])
    assert {s.symbol for s in book.told("pm_action", "uptrend_stage_transition")} == {"BUSDT"}
    assert [d.stage for d in book.uow.dead_letters.values()] == ["pm_core_tick"]
    monkeypatch.undo()
    pm_core_tick(book.desk, "1h", book.market.now)
    assert sorted(order.symbol for order in book.orders) == ["AUSDT", "BUSDT"]


def test_a_position_is_not_traded_on_a_bar_from_before_it_was_there():
    """The clock goes back two hours after the signal came: the bar of then is nobody's business."""
    book = Book()
    book.bar(AUSDT=("on", 100.0, "buy"))
    book.bar(AUSDT=("same", 120.0, "plain"))
    book.signal("AUSDT")
    assert pm_core_tick(book.desk, "1h", book.market.now - HOUR)["applied"] == 0
    assert book.orders == []


def test_two_tokens_of_one_symbol_are_both_traded():
    """Two contracts under one symbol: the first is held, the second is signalled; the first is still sold."""
    book = Book()
    book.signal("AUSDT")
    book.bar(AUSDT=("on", 100.0, "buy"))
    book.settle()
    line = signal_line(
        "other", "AUSDT", book.market.now, token={"symbol": "AUSDT", "contract": "0xother", "chain": "exchange"}
    )
    assert ingest_signal(book.desk, line, book.market.now).status == "accepted"
    decision_maker(book.desk, book.market.now)
    book.bar(AUSDT=("back", 95.0, "plain"))
    assert [order.rule for order in book.orders] == [1]


def test_a_negative_reserve_is_refused():
    """Else more could be spent than there is."""
    with pytest.raises(EdgebookError):
        RiskRules(cash_reserve=D("-0.5"))


def test_an_attempt_that_ended_while_nobody_looked_is_ended_at_the_first_bar_after_a_start():
    """The bar of S1->S0 is never walked (the process was down, or the symbol late), and the S0 bars after it mean
    nothing by themselves: the tokens are sold on the first one all the same, and the trade is judged."""
    book = bought()
    book.settle()
    assert book.position().holding
    book.uow.commit()
    book.market.bar("AUSDT", "back", 97.0, "plain")
    book.market.pass_hour()
    book.crash()
    book.bar()
    assert [(order.side, order.rule) for order in book.orders] == [("sell", 1)]
    (moved,) = [s for s in book.told("uptrend_stage_transition") if s.payload.to_state == "S0"]
    assert (moved.payload.from_state, moved.tags[1]) == ("", "?->S0")
    book.settle()
    assert len(book.told("position_closed")) == 1
    assert (book.position().attempt_id, book.position().trade_id) == ("", "")


def test_a_position_that_has_been_looked_at_after_a_start_is_let_alone():
    """One look, then it is asked again only when a bar means something to it."""
    book = bought()
    book.settle()
    book.uow.commit()
    book.crash()
    assert book.desk.watchful("1h")
    book.bar()
    assert not book.desk.watchful("1h")
    assert book.bar()["read"] == 0
