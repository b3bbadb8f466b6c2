"""The whole order path against a venue that keeps its own books: signals, bars, orders, fills, nonsense, silence,
crashes and restarts in any order, and after each of them inventory, cash and ledger agree with the venue."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from structlog.testing import capture_logs
from tests.scripted import (
    FLAVOURS,
    HOUR,
    NONSENSE,
    T0,
    TIMEFRAMES,
    Done,
    Fate,
    ModelVenue,
    PowerCutError,
    ScriptedMarket,
    signal_line,
)

from edgebook.adapters.log import verify
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.desk import Desk
from edgebook.domain.book import Ledger, Order, Position
from edgebook.domain.errors import EdgebookError, InputError
from edgebook.domain.strands import OrderFilled, PositionClosed, PositionStatus
from edgebook.jobs import (
    build_lessons_from_pattern_scope_stats,
    complete_counterfactuals,
    count_bars,
    decision_maker,
    ingest_signal,
    pm_core_tick,
    run_aggregator,
    run_materializer,
    settle_orders,
    turn_position,
)
from edgebook.learning.config import LearningConfig
from edgebook.runtime.replay import rebuild
from edgebook.runtime.system import System
from edgebook.trading.lifecycle import WISHES
from edgebook.trading.projections import evolve_order
from edgebook.trading.risk import with_fee
from edgebook.trading.rules import DecisionRules, PmRules, RiskRules, SizeRules, TradingRules

D = Decimal
ZERO, ONE, NOTHING = Decimal(0), Decimal(1), Fraction(0)
SYMBOLS, BARLESS = ("AUSDT", "BUSDT"), "NUSDT"
CASH = D(10_000)
PLAIN = TradingRules(starting_cash_usd=CASH, holdout=0.0, timeframes=TIMEFRAMES, pm=PmRules(reclaim_enabled=True))
#: Each token may have nine tenths of the book, at once, and all of it may be spent: only cash is a limit.
ALL_IN = (1.0, 1.0, 1.0)
GREEDY = TradingRules(
    starting_cash_usd=CASH, holdout=0.0, timeframes=TIMEFRAMES, pm=PmRules(reclaim_enabled=True),
    dm=DecisionRules(score_knots=((0.0, 90.0),), max_pct=100.0), sizes=SizeRules(s1=ALL_IN, add=ALL_IN, reclaim=ALL_IN),
    risk=RiskRules(cash_reserve=ZERO, per_token=ONE, max_exposure=ONE),
)  # fmt: skip
ENDS = ("order_filled", "order_rejected", "order_expired")

MOVES = ("same", "same", "same", "on", "on", "on", "back", "gone")
PRICES = (100.0, 101.25, 96.5, 94.0, 110.1)
LOOKS = ("buy", "buy", "emergency", "reclaim", *FLAVOURS)
STATUSES = ("filled", "filled", "filled", "filled", "rejected", "expired")
SHARES = (ONE, ONE, ONE, D("0.5"), D("0.9995"), D("0.005"), D("0.005"))
DRIFTS = (ZERO, D("0.004"), D("-0.02"), D("0.03"))
FEES, WAITS = (0, 10, 30), (0, 0, 1, 3)
#: Smallest quantity, and worth of the smallest order in USD.
GRAINS = (("1e-9", 0), ("0.01", 15))
Script = tuple[tuple[str, float, str], ...]

nonsense = st.one_of(st.just(()), st.tuples(st.sampled_from(sorted(NONSENSE))))
fates = st.builds(
    Fate,
    *map(st.sampled_from, (STATUSES, SHARES, DRIFTS, FEES)),
    nonsense=nonsense,
    waits=st.sampled_from(WAITS),
    cut=st.sampled_from([False] * 9 + [True]),
)
bars = st.tuples(*map(st.sampled_from, (MOVES, PRICES, LOOKS)))
scripts = st.tuples(bars, bars)


@dataclass
class Held:
    """What fills come to, in plain arithmetic.

    Attributes:
        tokens: held now.
        cost: of these, at the average cost of everything held, fees included.
        bought: tokens bought in the open trade.
        dust: tokens given up: after a sale a rest under 1 USD, or under a thousandth of what the trade has bought.
    """

    tokens: Decimal = ZERO
    cost: Fraction = NOTHING
    bought: Decimal = ZERO
    dust: Decimal = ZERO

    def take(self, done: Done) -> None:
        """The next fill."""
        if done.side == "buy":
            self.cost -= Fraction(done.cash)
            self.bought += done.tokens
            self.tokens += done.tokens
            return
        self.cost *= 1 - Fraction(done.quantity) / Fraction(self.tokens)
        self.tokens -= done.quantity
        if self.tokens * done.price < 1 or self.tokens * 1000 < self.bought:
            self.give_up()

    def give_up(self) -> None:
        """The rest is no longer counted."""
        self.tokens, self.cost, self.dust = ZERO, NOTHING, self.dust + self.tokens


class BookMachine(RuleBasedStateMachine):
    """One book on a store, a scripted market before it, and behind it a venue.

    The world's time is the market's; the book's ``clock`` is committed with everything else, so that after a crash it
    is behind and the hours in between are walked again. A live venue (``live``) has a memory of its own: what it was
    sent stays sent. A paper venue forgets with the book.

    Attributes:
        reached: what has happened over all runs, counted, so that a test can say that its laws are not empty.
        safe: fills the venue had told of at the last commit.
    """

    reached: ClassVar[Counter[str]] = Counter()

    @initialize(sql=st.booleans(), live=st.booleans(), greedy=st.booleans(), grain=st.sampled_from(GRAINS))
    def begin(self, sql: bool, live: bool, greedy: bool, grain: tuple[str, int]) -> None:
        self.closing, self.session = ExitStack(), ExitStack()
        folder = self.closing.enter_context(tempfile.TemporaryDirectory()) if sql else ""
        self.store: Any = SqlStore(f"sqlite:///{folder}/book.db", durable=False) if sql else MemoryStore()
        self.live, self.rules = live, GREEDY if greedy else PLAIN
        self.market = ScriptedMarket(SYMBOLS, barless=(BARLESS,))
        self.venue = ModelVenue(self.market, D(grain[0]), D(grain[1]))
        self.safe: list[str] = []
        self.lines: list[str] = []
        self.slots = 0
        self.open()
        for symbol in SYMBOLS:
            self.signal(symbol, twice=False)
        self.commit()

    def open(self) -> None:
        """A new process on the same store."""
        uow = self.session.enter_context(self.store.writer())
        self.desk = Desk(uow, self.market, self.venue, {}, self.rules, LearningConfig())
        tape: Any = SimpleNamespace(start=T0, live=False)
        self.system = System(self.desk, tape, at_venue=self.live)

    @property
    def clock(self) -> int:
        """The book's time."""
        return self.system.clock

    # -- what may happen

    @rule(symbol=st.sampled_from([*SYMBOLS, BARLESS]), twice=st.booleans())
    def signal(self, symbol: str, twice: bool) -> None:
        """Somebody speaks of a token; the line may be delivered twice."""
        self.lines.append(signal_line(f"s{len(self.lines)}", symbol, self.clock))
        self.deliver(-1, twice)

    @rule(which=st.integers(0, 9), twice=st.booleans())
    def deliver(self, which: int, twice: bool) -> None:
        """A line comes, for the first time or again, after a crash perhaps; decided twice, it is decided once."""
        desk, line = self.desk, self.lines[which % len(self.lines)]
        for _ in range(1 + twice):
            assert ingest_signal(desk, line, self.clock).status != "refused"
        decision_maker(desk, self.clock)
        head = desk.uow.log.head
        decision_maker(desk, self.clock)
        assert desk.uow.log.head == head
        said = [strand.payload.signal_id for strand in self.strands("social_lowcap")]
        assert len(set(said)) == len(said) == desk.uow.log.counts()["decision_lowcap"]

    @rule(script=scripts, twice=st.booleans())
    def bar(self, script: Script, twice: bool) -> None:
        """The next hour of the book: a new one of the world, or one that is walked again."""
        if self.clock == self.market.now:
            for symbol, (move, price, look) in zip(SYMBOLS, script, strict=True):
                self.market.bar(symbol, move, price, look)
            self.market.pass_hour()
        self.system.clock += HOUR
        self.tick(self.clock)
        if twice:
            head = self.desk.uow.log.head
            self.tick(self.clock)
            assert self.desk.uow.log.head == head, "the same bars were acted on twice"

    @rule(coming=st.lists(fates, max_size=3), twice=st.booleans())
    def settle(self, coming: Sequence[Fate], twice: bool) -> None:
        """The venue is asked what became of the open orders, perhaps twice; the power may fail while it is."""
        self.venue.coming.extend(coming)
        for _ in range(1 + twice):
            self.ask(self.clock)
        self.venue.coming.clear()

    def ask(self, now: int) -> None:
        try:
            with capture_logs():
                (self.ask_live if self.live else self.ask_paper)(now)
        except PowerCutError:
            self.crash()

    def ask_live(self, now: int) -> None:
        """As the system does it: what became of an order is committed before the next one is asked about."""
        try:
            self.system.settle(now)
        finally:
            self.safe = list(self.venue.told)

    def ask_paper(self, now: int) -> None:
        """All orders in one transaction; what a failed job wrote is undone."""
        told, seq = list(self.venue.told), self.desk.uow.log.head[0]
        self.desk.uow.savepoint()
        try:
            settle_orders(self.desk, now)
        except (EdgebookError, ArithmeticError):
            self.reached["undone"] += self.desk.uow.log.head[0] > seq
            self.desk.uow.undo()
            self.desk.reset()
            self.venue.told = told

    @rule(script=st.lists(scripts, min_size=2, max_size=6), coming=st.lists(fates, max_size=4))
    def walk(self, script: Sequence[Script], coming: Sequence[Fate]) -> None:
        """Some hours as the system walks them: bars, then the fills of what they led to."""
        for number, one in enumerate(script):
            self.bar(one, twice=False)
            self.settle(coming[number : number + 1], twice=False)

    @rule(hours=st.integers(1, 5))
    def clock_goes_back(self, hours: int) -> None:
        """The jobs of bars and orders are run for a moment that is over: whatever they make of it, the books agree."""
        old = self.clock - hours * HOUR
        self.tick(old)
        self.ask(old)

    @rule(which=st.integers(0, 9), wish=st.sampled_from(WISHES))
    def turn(self, which: int, wish: str) -> None:
        """An operator pauses, resumes or archives a position, where that can be."""
        positions = list(self.desk.uow.positions.values())
        with suppress(InputError):
            turn_position(self.desk, positions[which % len(positions)].id, wish, self.clock)

    @rule(symbol=st.sampled_from(SYMBOLS), hours=st.integers(1, 6))
    def hide(self, symbol: str, hours: int) -> None:
        """Nobody can say what a token is worth for some hours."""
        self.market.hide(symbol, hours)

    @rule()
    def learn(self) -> None:
        """The slower jobs, each twice in a slot of their own: the second time there is nothing left to do."""
        self.slots += 1
        desk, slot = self.desk, self.clock + self.slots
        jobs: list[Callable[[], Any]] = [
            lambda: count_bars(desk, slot),
            lambda: complete_counterfactuals(desk, slot),
            lambda: run_aggregator(desk, slot),
            lambda: build_lessons_from_pattern_scope_stats(desk, slot, "pm"),
            lambda: build_lessons_from_pattern_scope_stats(desk, slot, "dm"),
            lambda: run_materializer(desk, slot),
        ]
        for job in jobs:
            job()
            head = desk.uow.log.head
            job()
            assert desk.uow.log.head == head

    @rule()
    def commit(self) -> None:
        """Everything so far is durable, the clock with it."""
        self.system.commit()
        self.safe = list(self.venue.told)

    @precondition(lambda self: self.clock > T0)
    @rule()
    def crash(self) -> None:
        """The process dies without a commit; another one opens the store."""
        self.reached["fill lost in a crash"] += len(self.venue.done) > len(self.safe)
        self.session.close()
        self.venue.told = list(self.safe)
        if not self.live:
            self.venue.forget(self.safe)
        self.open()

    # -- how

    def tick(self, now: int) -> None:
        for timeframe in TIMEFRAMES:
            counts = pm_core_tick(self.desk, timeframe, now)
            assert counts["failed"] == 0, [letter.reason for letter in self.desk.uow.dead_letters.values()]

    # -- what holds after every step

    @invariant()
    def the_book_is_the_venues(self) -> None:
        for check in (
            self.each_fill_is_booked_once_and_nothing_else,
            self.inventory_is_the_venues,
            self.cash_is_the_venues,
            self.ledgers_add_up,
            self.one_order_waits_at_most,
            self.reservations_are_covered,
            self.trades_close_once_and_whole,
            self.the_value_of_the_book_is_the_sum_of_its_parts,
            self.nothing_is_sent_that_is_not_written,
            self.a_rest_is_no_more_than_was_left,
        ):
            check()

    def each_fill_is_booked_once_and_nothing_else(self) -> None:
        """The book has exactly the fills that the venue has told it of, as they were; an order ends once."""
        ended = [strand.payload.client_id for strand in self.strands(*ENDS)]
        assert len(set(ended)) == len(ended)
        booked = {strand.payload.client_id: strand.payload for strand in self.strands("order_filled")}
        assert sorted(booked) == sorted(self.venue.told)
        for ident, said in booked.items():
            real = self.venue.done[ident]
            assert (said.side, said.quantity, D(repr(said.price)), said.fee_usd) == (
                real.side, real.quantity, real.price, real.fee,
            )  # fmt: skip

    def inventory_is_the_venues(self) -> None:
        """Per position: what it holds, and what dust it has given up, is what was bought less what was sold; it costs
        what it cost on average."""
        for position in self.desk.uow.positions.values():
            held = self.replayed(position)
            orders = (ident for ident in self.venue.told if self.venue.seen[ident].position_id == position.id)
            assert position.ledger.quantity == held.tokens
            assert abs(Fraction(position.ledger.cost) - held.cost) <= Fraction("1e-5")
            assert held.tokens + held.dust == sum((self.venue.done[ident].tokens for ident in orders), ZERO)

    def cash_is_the_venues(self) -> None:
        """Cash is what there was at the start, plus sales, less purchases and fees."""
        assert self.cash() == CASH + sum((self.venue.done[ident].cash for ident in self.venue.told), ZERO)

    def ledgers_add_up(self) -> None:
        """The open trade's money is the venue's, and realised + (quantity * mark - cost) == quantity * mark + extracted
        - invested to the last digit."""
        for position in self.desk.uow.positions.values():
            ledger, trade = position.ledger, self.open_trade(position)
            assert ledger.invested == -sum((done.cash for done in trade if done.side == "buy"), ZERO)
            assert ledger.extracted == sum((done.cash for done in trade if done.side == "sell"), ZERO)
            assert ledger.fees == sum((done.fee for done in trade), ZERO)
            for mark in (self.market.mark(position.symbol, self.clock) or 1.0, 0.0, 1e-7):
                with localcontext(prec=80):
                    value = ledger.quantity * D(repr(mark))
                    assert ledger.realised + (value - ledger.cost) == value + ledger.extracted - ledger.invested

    def one_order_waits_at_most(self) -> None:
        """Per position, and it is the one the position knows of; the desk's index says the same."""
        waiting = self.waiting()
        by_position = {order.position_id: order.action_id for order in waiting}
        assert len(by_position) == len(waiting)
        for position in self.desk.uow.positions.values():
            planned = position.planned.action.strand_id if position.planned else None
            assert by_position.get(position.id) == planned
        assert set(self.desk.orders) == {order.client_id for order in waiting}

    def reservations_are_covered(self) -> None:
        """What open buys may still spend is there, their fees too: cash is never below 0."""
        owed = (with_fee(order.notional_usd or ZERO, self.rules.risk) for order in self.waiting())
        assert 0 <= sum(owed, ZERO) <= self.cash()

    def trades_close_once_and_whole(self) -> None:
        """One position_closed per trade, with every fill of it in order, the exit included; its money is the
        venue's."""
        trades: dict[str, list[OrderFilled]] = {}
        for strand in self.strands("order_filled"):
            trades.setdefault(strand.trade_id, []).append(strand.payload)
        closed = {strand.trade_id: strand.payload for strand in self.strands("position_closed")}
        assert len(closed) == self.desk.uow.log.counts().get("position_closed", 0)
        open_trades = {p.trade_id for p in self.desk.uow.positions.values() if p.trade_id}
        assert set(trades) == {*closed, *open_trades}
        assert not open_trades & set(closed)
        assert self.desk.active_positions == len(open_trades)
        for trade_id, payload in closed.items():
            fills = trades[trade_id]
            assert [action.strand_id for action in payload.actions] == [one.action_id for one in fills]
            assert fills[-1].side == "sell" or trade_id in self.given_up()
            money = sum((self.venue.done[one.client_id].cash for one in fills), ZERO)
            assert payload.summary.pnl_usd == money

    def the_value_of_the_book_is_the_sum_of_its_parts(self) -> None:
        """Cash, and what is held at mark, or at cost where there is none."""
        value = self.cash()
        for position in self.desk.uow.positions.values():
            mark, ledger = self.market.mark(position.symbol, self.clock), position.ledger
            value += ledger.cost if mark is None else ledger.quantity * D(repr(mark))
        assert abs(self.desk.nav(self.clock) - value) <= D("1e-6")

    def nothing_is_sent_that_is_not_written(self) -> None:
        """Whatever a live venue has seen, the store knows: no crash can leave tokens that nobody has booked."""
        if self.live:
            assert set(self.venue.seen) <= {order.client_id for order in self.desk.uow.orders.values()}

    def a_rest_is_no_more_than_was_left(self) -> None:
        """What completes a partial fill asks for what that left at most, and for each once."""
        actions = {strand.id: strand.payload for strand in self.strands("pm_action")}
        rests = {
            ident: action.reasons["completes"] for ident, action in actions.items() if "completes" in action.reasons
        }
        assert len(set(rests.values())) == len(rests)
        for ident, first in rests.items():
            rest, whole = actions[ident], actions[first]
            filled = self.venue.done[whole.client_id]
            if rest.side == "buy":
                assert rest.notional_usd + filled.worth <= whole.notional_usd
            else:
                assert rest.quantity + filled.quantity <= whole.quantity

    # -- the end

    def teardown(self) -> None:
        if not hasattr(self, "desk"):
            return
        try:
            self.finish()
            self.the_book_is_the_venues()
            self.compare()
            self.count()
        finally:
            self.session.close()
            self.closing.close()

    def finish(self) -> None:
        """The market falls, the venue works: every trade ends, nothing waits, and nothing was left behind."""
        quiet = ("back", 99.0, "plain")
        hours = (self.market.now - self.clock) // HOUR + 20
        for _ in range(hours):
            if self.clock == self.market.now and not self.unfinished():
                break
            self.bar((quiet, quiet), twice=False)
            for _ in range(5):
                self.settle([], twice=False)
        assert self.unfinished() == []
        assert set(self.venue.done) == set(self.venue.told)
        self.commit()

    def compare(self) -> None:
        """The log alone gives every row again, orders too, and its chain is whole."""
        with self.store.reader() as uow:
            assert rebuild(uow, self.rules, LearningConfig()).differences == ()
            orders: dict[str, Order] = {}
            for strand in uow.log.read(0, ["pm_action", *ENDS]):
                ident = strand.payload.client_id
                orders[ident] = evolve_order(orders.get(ident), strand)
            assert {order.client_id: order for order in uow.orders.values()} == orders
        assert verify(self.store).problems == ()

    def count(self) -> None:
        """What this run has reached."""
        orders = {order.client_id: order for order in self.desk.uow.orders.values()}
        for strand in self.strands(*ENDS):
            fill, order = strand.payload, orders[strand.payload.client_id]
            self.reached[strand.kind] += 1
            if isinstance(fill, OrderFilled):
                self.reached[f"rule {fill.rule}"] += 1
                self.reached["partial"] += fill.partial
                late = fill.side == "buy" and strand.ts_event > order.expires_ts
                self.reached["bought after it should have expired"] += late
        for strand in self.strands("pm_action", "position_closed"):
            self.reached[strand.kind] += 1
            self.reached["cut by cash"] += "cash_reserve" in getattr(strand.payload, "caps", ())
            self.reached["rest"] += "completes" in getattr(strand.payload, "reasons", ())
        for name, count in (("asked again", self.venue.repeats), ("nonsense", self.venue.odd)):
            self.reached[name] += count
        self.reached["given up"] += len(self.given_up())

    # -- looking

    def strands(self, *kinds: str) -> Iterator[Any]:
        return self.desk.uow.log.read(0, kinds)

    def cash(self) -> Decimal:
        account = self.desk.uow.accounts.get(self.rules.book)
        return account.cash_usd if account else CASH

    def waiting(self) -> list[Order]:
        return [order for order in self.desk.uow.orders.values() if order.status == "planned"]

    def unfinished(self) -> list[Position]:
        return [p for p in self.desk.uow.positions.values() if p.trade_id or p.planned or p.ledger != Ledger()]

    def open_trade(self, position: Position) -> list[Done]:
        """The venue's fills of a position since its last close, in the order they were booked."""
        found: list[Done] = []
        for strand in self.desk.uow.log.find(position_id=position.id):
            if isinstance(strand.payload, OrderFilled):
                found.append(self.venue.done[strand.payload.client_id])
            elif isinstance(strand.payload, PositionClosed):
                found = []
        return found

    def replayed(self, position: Position) -> Held:
        """What a position holds by the venue's fills, in the order they were booked."""
        held = Held()
        for strand in self.desk.uow.log.find(position_id=position.id):
            if isinstance(strand.payload, PositionClosed):
                assert held.tokens == 0
                held.bought = ZERO
            elif isinstance(strand.payload, OrderFilled):
                held.take(self.venue.done[strand.payload.client_id])
            elif isinstance(strand.payload, PositionStatus) and strand.payload.reason == "rest_written_off":
                order = self.desk.uow.orders.get(self.desk.uow.log.get(strand.causation_id).payload.client_id)
                assert order.client_id in self.venue.too_small
                assert held.tokens * D(repr(order.decision_price)) <= 20
                held.give_up()
        return held

    def given_up(self) -> set[str]:
        """Trades whose rest was written off because the venue takes no order of so little."""
        refused = (s.causation_id for s in self.strands("position_status") if s.payload.reason == "rest_written_off")
        return {self.desk.uow.log.get(ident).trade_id for ident in refused}


def test_the_book_agrees_with_the_venue_whatever_happens():
    """Inventory, cash and ledger are the venue's after every step of any story; at its end all trades have closed, and
    the log alone gives the book again."""
    examples = max(1, settings.default.max_examples // 2)
    run_state_machine_as_test(BookMachine, settings=settings(max_examples=examples, stateful_step_count=30))


# ------------------------------------------------------------------ long lives, by dice

#: A trend that stands still where it may be bought.
STEADY = ("same", 100.0, "buy")
#: What happens in a long life, and how often.
HABITS = {
    "bar": 12, "settle": 10, "commit": 3, "crash": 2, "signal": 1, "deliver": 1, "hide": 1, "learn": 1,
    "clock_goes_back": 1, "turn": 0.5,
}  # fmt: skip


def fate(dice: Random) -> Fate:
    """What the venue does with one order."""
    odd = (dice.choice(sorted(NONSENSE)),) if dice.random() < 0.2 else ()
    values = (dice.choice(choices) for choices in (STATUSES, SHARES, DRIFTS, FEES))
    return Fate(*values, odd, dice.choice(WAITS), dice.random() < 0.1)


def live(dice: Random, steps: int, **how: Any) -> None:
    """One long life, with the same checks after each step."""
    book = BookMachine()
    book.begin(**how)
    bar = lambda: STEADY if dice.random() < 0.3 else tuple(dice.choice(v) for v in (MOVES, PRICES, LOOKS))  # noqa: E731
    twice = lambda: dice.random() < 0.2  # noqa: E731
    acts: dict[str, Callable[[], None]] = {
        "bar": lambda: book.bar((bar(), bar()) if dice.random() < 0.5 else (bar(),) * 2, twice()),
        "settle": lambda: book.settle([fate(dice) for _ in range(dice.randint(1, 4))], twice()),
        "commit": book.commit,
        "crash": book.crash,
        "signal": lambda: book.signal(dice.choice([*SYMBOLS, BARLESS]), twice()),
        "deliver": lambda: book.deliver(dice.randrange(10), twice()),
        "hide": lambda: book.hide(dice.choice(SYMBOLS), dice.randint(1, 6)),
        "learn": book.learn,
        "turn": lambda: book.turn(dice.randrange(10), dice.choice(WISHES)),
        "clock_goes_back": lambda: book.clock_goes_back(dice.randint(1, 5)),
    }
    for name in dice.choices(list(HABITS), list(HABITS.values()), k=steps):
        acts[name]()
        book.the_book_is_the_venues()
    book.teardown()


@pytest.mark.slow
def test_long_lives_reach_everything_that_can_happen():
    """Random lives of 120 steps keep the same laws, and the laws are not empty: every rule fills, whole and in part,
    late, after nonsense, and lost in a crash; cash runs short."""
    BookMachine.reached = Counter()
    dice = Random(7)
    for number in range(32):
        kind, fine = divmod(number, 8)
        live(dice, 120, sql=fine == 0, live=kind % 2 == 0, greedy=kind // 2 == 0, grain=GRAINS[fine % 2])
    wanted = {
        *ENDS, *(f"rule {number}" for number in range(1, 10)), "position_closed", "partial", "rest", "given up",
        "nonsense", "undone", "asked again", "bought after it should have expired", "fill lost in a crash",
        "cut by cash",
    }  # fmt: skip
    assert wanted <= {name for name, count in BookMachine.reached.items() if count}, BookMachine.reached
