"""The running system on an exchange: bars as they come, orders that are sent, and everything that goes wrong there."""

from __future__ import annotations

import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from unittest import mock

import pytest
from structlog.testing import capture_logs
from tests.exchange import KLINES, ORDER
from tests.flow import live_world, world
from tests.flow.live_world import DELAY, SECOND, STEP

from edgebook import jobs
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError, PortError, TradingError
from edgebook.runtime import bootstrap, views
from edgebook.runtime.scheduler import run_simulated

pytest.importorskip("ccxt")
DAYS = 2
VICTIM = Path(__file__).parent / "live_victim.py"


@pytest.fixture
def here():
    """Two days of a market at the exchange."""
    with live_world.market(DAYS) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed():
    """The log's chain of hashes of a paper run on the exchange's bars, nothing having gone wrong."""
    store = MemoryStore()
    with live_world.market(DAYS) as made:
        live_world.run(made, store, made.settings(), last(made))
    return chain(store)


def last(here):
    """A moment after the close of the last bar but one."""
    return here.end - STEP


def strands(store, *kinds):
    """Strands of these kinds, of all where none is named."""
    with store.reader() as uow:
        return list(uow.log.read(0, list(kinds) or None))


def chain(store):
    """Hash of every strand, in order."""
    with store.reader() as uow:
        return [s.hash for s in uow.log.read(0)]


def held(store):
    """Tokens per symbol, as the book has them."""
    found = {}
    with store.reader() as uow:
        for position in uow.positions.values():
            found[position.symbol] = found.get(position.symbol, Decimal(0)) + position.ledger.quantity
    return found


def test_live_on_paper_is_the_walk_over_the_same_bars_recorded(here, undisturbed):
    """Bars polled one by one give the log that the same bars give read from a file, strand for strand."""
    store, settings = MemoryStore(), here.settings()
    feed = bootstrap.Feed(live_world.Recorded(here), start=here.start)
    with bootstrap.system(store, settings, feed, end=last(here)) as system:
        system.take(here.signals())
        run_simulated(system, last(here) - STEP)

    assert len(strands(store, "order_filled")) > 10
    walked = chain(store)
    assert walked[: len(undisturbed)] == undisturbed
    assert len(walked) - len(undisturbed) < 4, "only fills at the open of the bar that has not closed may be missing"


def test_a_dry_run_decides_and_fills_at_the_book_and_sends_nothing(here):
    """Fills lie within the cushion of the exchange's own book; the exchange has seen no order."""
    store = MemoryStore()
    live_world.run(here, store, here.settings(broker="dry"), last(here))

    fills = strands(store, "order_filled")
    assert {s.payload.side for s in fills} == {"buy", "sell"}
    assert len(strands(store, "decision_lowcap")) == len(here.signals())
    for fill in fills:
        bars = here.bars[fill.symbol]
        mid = float(bars.open[int(bars.ts_open.searchsorted(fill.ts_event, side="right")) - 1])
        assert fill.payload.price == pytest.approx(mid, rel=2e-4)
    assert here.exchange.count("POST", ORDER) == 0


def test_a_live_run_buys_and_sells_and_the_book_holds_what_the_exchange_filled(here):
    """Every filled order is one order at the exchange; tokens in the book never exceed those in the account."""
    store = MemoryStore()
    live_world.run(here, store, here.settings(broker="live", live_books="main"), last(here))

    fills = strands(store, "order_filled")
    placed = here.exchange.orders
    assert {o.side for o in placed} == {"BUY", "SELL"}
    assert len({o.client_id for o in placed}) == len(placed) == len(fills)
    assert {o.client_id for o in placed} == {s.payload.client_id for s in fills}
    for symbol, quantity in held(store).items():
        account = here.exchange.balances[symbol.removesuffix("USDT")]
        assert Decimal(0) <= account - quantity < Decimal("0.01")
    with store.reader() as uow:
        status = views.status_view(uow)["venue"]
    assert status["reconciled"]["mode"] == "live"
    assert status["reconciled"]["balances"] == {"USDT": "100000.0"}


def test_bad_answers_and_rate_limits_for_a_while_change_nothing(here, undisturbed):
    """Every few bars the exchange answers garbage, 5xx, 429 or nothing at first; once it recovers, the log is the
    same."""
    troubles = ["<html>", (503, "busy"), "drop", "[[1,2]]", '{"code": 1}', (429, {"code": -1003, "msg": "Too many"})]
    seen = []

    def disturb(system):
        if system.moments_done % 7 == 0 and system.moments_done not in seen:
            seen.append(system.moments_done)
            here.exchange.fail(KLINES, troubles[len(seen) % len(troubles)], retry_after="4")

    store = MemoryStore()
    live_world.run(here, store, here.settings(), last(here), disturb)

    assert len(seen) > 20
    assert chain(store) == undisturbed


def test_a_hole_in_the_feed_is_filled_and_a_refused_candle_is_buried_once(here, undisturbed):
    """A candle that is missing in the first answer is asked for again; an impossible one is a gap with its reason."""
    symbol = here.sim.symbols[0]
    for bar in (10, 40, 70):
        here.exchange.hidden_candles[symbol, (here.start + bar * STEP) // 1000] = 1
    store = MemoryStore()
    live_world.run(here, store, here.settings(), here.start + 90 * STEP)
    assert chain(store) == undisturbed[: len(chain(store))]

    here.at(here.start)
    row = here.exchange.candles[symbol, live_world.TF][(here.start + 12 * STEP) // 1000]
    row[1] = "0.0"
    store = MemoryStore()
    live_world.run(here, store, here.settings(), here.start + 30 * STEP)
    with store.reader() as uow:
        buried = list(uow.dead_letters.values())
    assert [(one.stage, str(here.start + 12 * STEP) in one.content) for one in buried] == [("feed", True)]


def test_a_halted_symbol_does_not_stop_the_others_and_is_taken_up_again(here):
    """From bar 8 to 20 a symbol has no candles: the clock goes on, and its bars count once trading is resumed."""
    symbol, rows = here.sim.symbols[0], here.exchange.candles[here.sim.symbols[0], live_world.TF]
    halted = {ts: rows.pop(ts) for ts in sorted(rows) if ts >= (here.start + 8 * STEP) // 1000}
    behind = []

    def resume(system):
        tape = system.tape
        behind.append((system.clock, tape.bars_count(symbol, live_world.TF, 1 << 62)))
        if system.clock >= here.start + 20 * STEP:
            rows.update(halted)

    live_world.run(here, MemoryStore(), here.settings(), here.start + 30 * STEP, resume)

    counts = dict(behind)
    assert counts[here.start + 19 * STEP] == counts[here.start + 8 * STEP]
    assert behind[-1][0] >= here.start + 28 * STEP
    assert behind[-1][1] - counts[here.start + 8 * STEP] >= 20


def test_after_an_outage_missed_bars_are_walked_and_nothing_is_bought_on_them(here, tmp_path):
    """Stopped for half a day: the clock goes on where it stood, exits may come, buys that are late may not."""
    store, settings = SqlStore(f"sqlite:///{tmp_path}/book.db"), here.settings(f"sqlite:///{tmp_path}/book.db")
    settings = settings.model_copy(update={"broker": "dry"})
    stopped = here.start + 30 * STEP
    live_world.run(here, store, settings, stopped)
    back = here.start + 80 * STEP
    here.at(back + DELAY)
    first = []
    live_world.run(here, store, settings, back + 3 * STEP, lambda system: first.append(system.clock))

    assert back in first
    assert first == sorted(first)
    late = [s for s in strands(store, "pm_action") if stopped + STEP < s.ts_event < back]
    assert all(s.payload.decision_type not in ("entry", "add") for s in late)
    moved = [s for s in strands(store, "uptrend_stage_transition") if stopped + STEP < s.ts_event < back]
    assert moved, "the missed bars were not walked"


def test_an_order_that_cannot_be_booked_is_buried_and_keeps_none_back(here):
    """Booking fails for one symbol: the others are filled, and its order stays planned, with a dead letter."""
    real, victim = jobs.fill, here.sim.symbols[0]

    def fill(position, *args, **kwargs):
        if position.symbol == victim:
            raise TradingError("cannot be booked")
        return real(position, *args, **kwargs)

    store = MemoryStore()
    with mock.patch.object(jobs, "fill", fill):
        live_world.run(here, store, here.settings(broker="dry"), here.start + DAY)

    filled = {s.symbol for s in strands(store, "order_filled")}
    assert filled
    assert victim not in filled
    with store.reader() as uow:
        assert {d.stage for d in uow.dead_letters.values()} <= {"settle_orders"}


def test_killed_between_submit_and_booking_it_books_the_order_once(here, tmp_path):
    """SIGKILL while the exchange has filled an order and not answered: after the restart one order, one booking."""
    url = f"sqlite:///{tmp_path}/book.db"
    (tmp_path / "book.jsonl").write_text("\n".join(here.signals()))
    here.exchange.fail(ORDER, "hang", method="POST", carried_out=True)
    first = _victim(url, here)
    _beats(first, here, lambda: bool(here.exchange.orders))
    live_world.eventually(lambda: bool(here.exchange.orders))
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    sent = [o.client_id for o in here.exchange.orders]
    assert len(sent) == 1
    assert strands(SqlStore(url), "order_filled") == []
    assert [s.payload.client_id for s in strands(SqlStore(url), "pm_action")].count(sent[0]) == 1

    second = _victim(url, here)
    _beats(second, here, lambda: bool(strands(SqlStore(url), "order_filled")), step=5 * SECOND)
    second.communicate(timeout=30)

    assert [o.client_id for o in here.exchange.orders].count(sent[0]) == 1
    booked = strands(SqlStore(url), "order_filled")
    assert [s.payload.client_id for s in booked].count(sent[0]) == 1
    assert sum(s.payload.quantity for s in booked if s.payload.client_id == sent[0]) <= here.exchange.orders[0].filled
    with SqlStore(url).reader() as uow:
        known = views.status_view(uow)["venue"]["reconciled"]["orders"]
    assert [(k["client_id"], k["state"]) for k in known] == [(sent[0], "done")]


def _victim(url, here):
    symbols = ",".join(here.sim.symbols)
    return subprocess.Popen(
        [sys.executable, str(VICTIM), url, here.exchange.url, symbols],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _beats(process, here, done, *, step=None, most=400):
    """Let the process go on beat by beat, time moving on before each, until something is true or it is asked to send
    an order and hangs."""
    for _ in range(most):
        waiting = process.stdout.readline().strip()
        assert waiting, "the process ended"
        if done():
            return
        now = here.exchange.now
        here.at(now + step if step else (now // STEP + 1) * STEP + DELAY)
        process.stdin.write("on\n")
        process.stdin.flush()
        if not step and _hangs(here):
            return
    raise AssertionError("it did not happen")


def _hangs(here):
    """Whether the exchange has just taken the order whose answer it keeps back."""
    try:
        live_world.eventually(lambda: bool(here.exchange.orders), 0.1)
    except AssertionError:
        return False
    return True


# ------------------------------------------------------------------ bars, clocks and processes that are late


LIVE = {"broker": "live", "live_books": "main"}


@pytest.fixture(scope="module")
def traded():
    """Strands of a live run on which nothing has gone wrong."""
    store = MemoryStore()
    with live_world.market(DAYS) as made:
        live_world.run(made, store, made.settings(**LIVE), last(made))
    return strands(store)


def first(log, kind):
    """When the first action of a kind was decided, and of which symbol."""
    found = next(s for s in log if s.kind == "pm_action" and s.payload.decision_type == kind)
    return found.ts_event, found.symbol


def steps(log, symbol, until):
    """What happened to a symbol bar by bar: no times of fills, no sizes."""
    told = []
    for s in log:
        if s.symbol == symbol and s.ts_event <= until and s.kind in ("uptrend_stage_transition", "pm_action"):
            told.append((s.ts_event, s.kind, getattr(s.payload, "decision_type", "") or s.tags[-1]))
    return told


def test_an_exit_is_sent_at_once_though_its_bar_came_late(here, traded):
    """No candles for 70 seconds after the close on which an exit is due: it is sold on as soon as they are there."""
    at, symbol = first(traded, "exit")
    here.hold_back(at, 70)
    store = MemoryStore()
    live_world.run(here, store, here.settings(**LIVE), at + 200 * SECOND, slow=(at, at + STEP))

    sold = [s for s in strands(store, "order_filled") if s.symbol == symbol and s.payload.decision_type == "exit"]
    assert [70 <= (s.ts_recorded - at) / SECOND <= 80 for s in sold] == [True]


def test_on_a_bar_that_came_late_nothing_is_bought(here, traded):
    """The same at the close of the first entry: 70 seconds are longer than a buy lives."""
    at, _ = first(traded, "entry")
    here.hold_back(at, 70)
    store = MemoryStore()
    live_world.run(here, store, here.settings(**LIVE), at + STEP // 2, slow=(at, at + STEP))

    assert strands(store, "uptrend_stage_transition")[-1].ts_event <= at
    assert strands(store, "pm_action") == []


def test_a_clock_that_is_ahead_sells_all_the_same_and_is_told_of_once(here, traded):
    """70 seconds ahead once tokens are held: every exit that is planned is filled; one warning, and the status."""
    at, _ = first(traded, "entry")
    store = MemoryStore()
    with capture_logs() as told:
        live_world.run(
            here, store, here.settings(**LIVE), last(here), ahead=lambda: (here.exchange.now > at + STEP) * 70 * SECOND
        )

    planned = {s.payload.client_id for s in strands(store, "pm_action") if s.payload.side == "sell"}
    assert planned
    assert planned == {s.payload.client_id for s in strands(store, "order_filled") if s.payload.side == "sell"}
    assert [t["seconds_ahead_of_venue"] for t in told if t["event"] == "this machine's clock is off"] == [70.0]
    with store.reader() as uow:
        assert views.status_view(uow)["venue"]["troubles"]["clock_seconds_ahead"] == 70.0


def test_a_clock_that_is_right_is_not_spoken_of(here):
    """Four seconds are within what is tolerated."""
    with capture_logs() as told:
        store = MemoryStore()
        live_world.run(here, store, here.settings(), here.start + 30 * STEP, ahead=lambda: 4 * SECOND)
    assert [t["event"] for t in told if "clock" in t["event"]] == []
    with store.reader() as uow:
        assert "clock_seconds_ahead" not in views.status_view(uow)["venue"]["troubles"]


def test_a_clock_that_is_set_back_keeps_no_order_waiting(here):
    """Back by an hour while the answer to a filled order is missing: it is booked within the minute."""
    here.exchange.fail(ORDER, "drop", method="POST", carried_out=True)
    store, moments = MemoryStore(), []

    def each(system):
        if here.exchange.orders and not moments:
            moments.append(here.exchange.now)
            assert system.desk.orders
        elif moments and not system.desk.orders and len(moments) == 1:
            moments.append(here.exchange.now)

    ahead = lambda: -3600 * SECOND if moments else 0  # noqa: E731
    live_world.run(here, store, here.settings(**LIVE), here.start + DAY, each, ahead=ahead)
    assert moments[1] - moments[0] <= 60 * SECOND


def test_a_clock_that_is_set_back_does_not_stop_the_bars(here, traded):
    """Back by an hour for good: bars go on to be walked, two bars late at most."""
    at, _ = first(traded, "entry")
    store, clocks = MemoryStore(), []
    ahead = lambda: -3600 * SECOND if here.exchange.now > at + STEP else 0  # noqa: E731
    until = at + 12 * STEP
    each = lambda system: clocks.append((here.exchange.now - system.clock) / STEP)  # noqa: E731
    live_world.run(here, store, here.settings(**LIVE), until, each, slow=(at, until), ahead=ahead)
    assert max(clocks[10:]) < 2.5


class DiedError(Exception):
    """The process ends here."""


def test_what_filled_while_the_process_was_away_is_booked_at_the_start(here, tmp_path):
    """It dies with an order filled and not answered, and comes back 70 seconds after the next close: booked before
    time moves on."""
    url = f"sqlite:///{tmp_path}/book.db"
    here.exchange.fail(ORDER, "drop", method="POST", carried_out=True)

    def die(system):
        if here.exchange.orders:
            raise DiedError

    with pytest.raises(DiedError):
        live_world.run(here, SqlStore(url), here.settings(url, **LIVE), last(here), die)
    assert strands(SqlStore(url), "order_filled") == []
    back = (here.exchange.now // STEP + 1) * STEP + 70 * SECOND
    here.at(back)
    live_world.run(here, SqlStore(url), here.settings(url, **LIVE), back + 1)

    booked = strands(SqlStore(url), "order_filled")
    assert [(s.payload.client_id, s.ts_recorded) for s in booked] == [(here.exchange.orders[0].client_id, back)]


def test_an_outcome_is_told_from_bars_even_if_the_first_answers_after_a_start_are_missing(here, traded, tmp_path):
    """It dies with an exit filled and not answered; after the restart candles are out for ten seconds: the trade is
    closed after that, with the drawdown that its bars had."""
    url, (at, symbol) = f"sqlite:///{tmp_path}/book.db", first(traded, "exit")

    def die(system):
        if system.clock == at - STEP and not system.desk.orders:
            here.exchange.forget_faults()
            here.exchange.fail(ORDER, "drop", method="POST", carried_out=True)
        if system.clock == at:
            raise DiedError

    with pytest.raises(DiedError):
        live_world.run(here, SqlStore(url), here.settings(url, **LIVE), last(here), die)
    back = here.exchange.now + 60 * SECOND
    here.hold_back(back, 10)
    here.at(back)
    live_world.run(here, SqlStore(url), here.settings(url, **LIVE), back + 20 * SECOND)

    closed = next(s for s in strands(SqlStore(url), "position_closed") if s.symbol == symbol)
    expected = next(s for s in traded if s.kind == "position_closed" and s.symbol == symbol).payload.summary
    assert 10 <= (closed.ts_recorded - back) / SECOND <= 15
    assert closed.payload.summary.max_drawdown == pytest.approx(expected.max_drawdown)
    assert expected.max_drawdown > 0


@pytest.mark.parametrize("decision", ["entry", "exit"])
def test_a_symbol_whose_bar_is_half_a_minute_late_loses_nothing(here, traded, decision):
    """The bar on which its attempt starts, or ends: transition, actions and reasons are those of a bar on time, and
    what is planned on it is sent as soon as it is there."""
    at, symbol = first(traded, decision)
    if decision == "entry":
        moves = [s for s in traded if s.kind == "uptrend_stage_transition" and s.symbol == symbol]
        late = next(s.ts_event for s in moves if s.payload.from_state == "S0" and s.ts_event <= at)
    else:
        late = at
    here.hold_back(late, 30, symbol)
    store = MemoryStore()
    live_world.run(here, store, here.settings(**LIVE), at + STEP // 2, slow=(late, late + STEP // 2))

    assert steps(strands(store), symbol, at) == steps(traded, symbol, at)
    assert (late, "uptrend_stage_transition") in [told[:2] for told in steps(traded, symbol, at)]
    if decision == "exit":
        sold = strands(store, "position_closed")[-1]
        assert sold.payload.exit_reason == next(s for s in traded if s.kind == "position_closed").payload.exit_reason
        assert 30 <= (sold.ts_recorded - at) / SECOND <= 50


def test_bars_that_are_hours_late_are_walked_in_order_and_not_bought_on(here, traded):
    """A symbol that trades is silent for two hours: its moves come out in order when it speaks again, its sales as
    well; no buy is planned on its old bars. On paper, a sale planned on a late bar is filled before the next."""
    at, symbol = first(traded, "exit")
    entered = next(s.ts_event for s in traded if s.kind == "pm_action" and s.symbol == symbol)
    begin = at - 2 * STEP
    assert entered < begin
    here.hold_back(begin, 8 * STEP / SECOND, symbol)
    store = MemoryStore()
    live_world.run(here, store, here.settings(), at + 12 * STEP)

    log = strands(store)
    moved = [(t, kind, what) for t, kind, what in steps(log, symbol, at + 5 * STEP) if t >= begin]
    assert (at, "pm_action", "exit") in moved
    assert moved == [one for one in steps(traded, symbol, at + 5 * STEP) if one[0] >= begin and one[2] not in BUYS]
    sold = next(s for s in log if s.kind == "order_filled" and s.payload.decision_type == "exit")
    assert (sold.symbol, sold.ts_event) == (symbol, at)
    closed = next(s for s in log if s.kind == "position_closed" and s.symbol == symbol)
    assert closed.payload.exit_reason == next(s for s in traded if s.kind == "position_closed").payload.exit_reason


BUYS = ("entry", "add", "rebuy")


# ------------------------------------------------------------------ book and account


def test_a_live_book_larger_than_its_account_does_not_start(here):
    """100,000 USD in the book, 98,900 in the account: one line with both numbers and what to set; nothing is sent."""
    here.exchange.balances["USDT"] = Decimal(98_900)
    with pytest.raises(InputError) as refused:
        live_world.run(here, MemoryStore(), here.settings(**LIVE), last(here))
    for part in ("100000 USDT", "98900", "starting_cash_usd"):
        assert part in refused.value.message
    assert "\n" not in refused.value.message
    assert here.exchange.count("POST", ORDER) == 0


@pytest.mark.parametrize("given", [{"broker": "dry"}, {"broker": "paper"}, LIVE])
def test_a_book_that_is_not_live_or_lacks_less_than_a_percent_starts(here, given):
    """Within 1 % the account may be short; without real orders it may hold anything."""
    here.exchange.balances["USDT"] = Decimal(99_100) if given is LIVE else Decimal(5)
    live_world.run(here, MemoryStore(), here.settings(**given), here.start + 3 * STEP)


def test_an_account_that_cannot_be_read_refuses_a_live_start(here):
    """Whatever the reason."""
    here.exchange.fail("account", (503, "busy"))
    with pytest.raises(PortError, match="could not be read") as refused:
        live_world.run(here, MemoryStore(), here.settings(**LIVE), last(here))
    assert "\n" not in refused.value.message


def test_tokens_that_left_the_account_refuse_the_next_start_and_are_in_the_log(here, traded, tmp_path):
    """Half of what the book holds is withdrawn: the daily look warns, and the next start is refused by name."""
    at, symbol = first(traded, "entry")
    url = f"sqlite:///{tmp_path}/book.db"
    settings, token = here.settings(url, **LIVE), symbol.removesuffix("USDT")
    live_world.run(here, SqlStore(url), settings, at + STEP // 2)
    here.exchange.balances[token] /= 2

    with pytest.raises(InputError, match=f"{token} in the book"):
        live_world.run(here, SqlStore(url), settings, at + STEP)

    here.exchange.balances[token] *= 2
    taken = []

    def withdraw(system):
        if not taken:
            taken.append(here.exchange.balances.pop("USDT"))

    with capture_logs() as told:
        live_world.run(here, SqlStore(url), settings, at + DAY + 8 * STEP, withdraw)
    lacking = [t["differences"] for t in told if t["event"] == "account lacks"]
    assert len(lacking) == 1
    assert "USDT in the book" in lacking[0][0]


def test_an_account_that_holds_what_the_book_says_is_a_quiet_line_a_day(here):
    """Two days, one look after the start."""
    with capture_logs() as told:
        live_world.run(here, MemoryStore(), here.settings(**LIVE), last(here))
    seen = [(t["event"], t["log_level"]) for t in told if t["event"].startswith("account")]
    assert seen == [("account holds what the book says", "info")]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"speed": 20.0}, "leave speed out"),
        ({"symbols": ()}, "needs symbols"),
        ({"broker": "live"}, "not in live_books"),
        ({"broker": "dry", "venue": "binanceus"}, "need its own bars"),
        ({"broker": "live", "live_books": "main", "feed": "sim", "symbols": ()}, "need its own bars"),
        ({"broker": "live", "live_books": "main"}, "EDGEBOOK_BINANCE_KEY"),
        ({"feed": "ccxt:nowhere"}, "nowhere"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_contradicts_itself_is_refused_in_one_line(here, given, named, monkeypatch, tmp_path):
    """Switches, feed, speed, keys: nothing starts by half."""
    from edgebook.runtime.settings import load_settings

    for part in ("KEY", "SECRET"):
        monkeypatch.delenv(f"EDGEBOOK_BINANCE_{part}", raising=False)
    url = f"sqlite:///{tmp_path}/book.db"
    facts = here.settings(url).model_dump(include={"db", "feed", "symbols", "timeframes", "broker", "venue_url"})
    with pytest.raises(InputError) as refused:
        bootstrap.open_feed(load_settings(**facts | given))
    assert named in refused.value.message
    assert "\n" not in refused.value.message


def test_a_database_from_before_these_settings_opens(tmp_path):
    """At their defaults they are no part of the hash."""
    plain = world.settings_for("memory")
    assert plain.book_hash == plain.model_copy(update={"grace_seconds": 60.0, "live_books": ("x",)}).book_hash
    assert plain.book_hash != plain.model_copy(update={"broker": "dry"}).book_hash
