"""Protections: each goes on and off when it should, says so once, and bars what it names and nothing else."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from edgebook.domain.errors import TradingError
from edgebook.domain.protection import (
    BOOK,
    Losses,
    NavMarked,
    NavMarks,
    Protection,
    ProtectionChanged,
    channel_scope,
    pattern_scope,
    token_scope,
)
from edgebook.domain.strands import PositionClosed, Strand
from edgebook.trading.protections import OPEN, evolve_protection, guard_of, review, scopes_of, switch
from edgebook.trading.rules import ProtectionRules

D = Decimal
HOUR = 3_600_000_000
DAY = 24 * HOUR
MIDNIGHT = 20_000 * DAY
NOON = MIDNIGHT + 12 * HOUR
TOKEN = token_scope("exchange", "TOKUSDT")
S1_KEY, DX_KEY = "module=pm|pattern_key=uptrend.S1.buy_flag", "module=pm|pattern_key=uptrend.S3.dx"
S1 = pattern_scope(S1_KEY)
OFF = ProtectionRules()


class Book:
    """Rows of protections, folded from what is told, as the desk does it."""

    def __init__(self, rules: ProtectionRules) -> None:
        self.rules, self.rows, self.log = rules, {}, []

    def row(self, scope: str = BOOK) -> Protection:
        return self.rows.get(scope) or Protection(scope)

    def append(self, *strands: Strand) -> None:
        for strand in strands:
            self.log.append(strand)
            for scope in scopes_of(strand):
                self.rows[scope] = evolve_protection(self.rows.get(scope), strand, scope)

    def at(self, now: int, nav: str | None = None) -> list[tuple[str, str, bool]]:
        """Review everything; what was told, without the marks."""
        rows = [self.row(scope) for scope in sorted({BOOK, *self.rows})]
        told = review(rows, self.rules, now, D(nav) if nav is not None else None)
        self.append(*told)
        assert review([self.row(r.scope) for r in rows], self.rules, now, D(nav) if nav else None) == ()
        return [(s.payload.reason, s.payload.scope, s.payload.on) for s in told if s.kind == "protection_changed"]

    def guard(self, contract: str = "TOKUSDT"):
        patterns = [row for row in self.rows.values() if row.scope.startswith("pattern|")]
        return guard_of(self.row(), self.row(token_scope("exchange", contract)), patterns)


@pytest.fixture
def closed(w):
    """``position_closed`` of a trade of TOKUSDT: ``closed(ts, pnl)``."""
    world = w.World()
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    world.bar("S0", 95.0)
    (strand,) = world.kinds("position_closed")
    assert isinstance(strand.payload, PositionClosed)
    assert strand.payload.actions[0].pattern_key == S1_KEY

    def close(ts: int, pnl: str, contract: str = "TOKUSDT", key: str = S1_KEY) -> Strand:
        old = strand.payload
        entry = replace(old.actions[0], pattern_key=key)
        payload = replace(
            old, contract=contract, summary=replace(old.summary, pnl_usd=D(pnl)), actions=(entry, *old.actions[1:])
        )
        return replace(strand, id=f"closed-{contract}-{ts}", payload=payload, ts_event=ts, ts_recorded=ts)

    return close


# ------------------------------------------------------------------ the book


def test_nothing_is_told_while_everything_is_off(closed):
    """Default settings: losses are counted, nothing goes on, no value of the book is written down."""
    book = Book(OFF)
    for hour in range(9):
        book.append(closed(NOON + hour * HOUR, "-5"))
        assert book.at(NOON + hour * HOUR) == []
    assert book.row(TOKEN).losses.in_a_row == 9
    assert book.guard() is OPEN
    assert {s.kind for s in book.log} == {"position_closed"}


def test_the_daily_loss_stop_is_measured_from_the_days_start_and_lasts_until_midnight():
    """5 % of what the book was worth at 00:00 UTC: 95,001 may buy, 95,000 may not, nor 99,000 later that day."""
    book = Book(ProtectionRules(daily_loss=D("0.05")))
    assert book.at(MIDNIGHT, "100000") == []
    assert book.at(NOON, "95001") == []
    assert book.guard() is OPEN
    assert book.at(NOON + 1, "95000") == [("daily_loss", BOOK, True)]
    told = book.log[-1].payload
    assert (told.until, told.nav_usd, told.against_usd) == (MIDNIGHT + DAY, D(95000), D(100000))
    assert told.detail == "5.00 % below the day's start"
    assert book.at(NOON + HOUR, "99000") == []
    assert book.guard().against(S1_KEY) == ("protection.daily_loss",)
    assert book.at(MIDNIGHT + DAY - 1, "99000") == []
    assert book.at(MIDNIGHT + DAY, "90000") == [("daily_loss", BOOK, False)]
    assert book.guard() is OPEN
    assert book.row().nav == NavMarks(20_001, D(90000), D(100000), MIDNIGHT + DAY)


def test_a_bar_of_yesterday_that_comes_late_does_not_lift_todays_stop():
    """The market gave a bar of 23:45 an hour after midnight: the stop of today holds until tonight."""
    book = Book(ProtectionRules(daily_loss=D("0.05")))
    book.at(MIDNIGHT, "100000")
    book.at(MIDNIGHT + HOUR, "94000")
    book.at(MIDNIGHT - HOUR // 4, "94000")
    assert book.at(MIDNIGHT + 2 * HOUR, "96000") == []
    assert book.guard().against(S1_KEY) == ("protection.daily_loss",)


def test_a_day_that_starts_with_a_loss_stops_again():
    """The next day is measured from its own start: lifted at midnight, on again after five more per cent."""
    book = Book(ProtectionRules(daily_loss=D("0.05")))
    book.at(MIDNIGHT, "100000")
    book.at(NOON, "90000")
    assert book.at(MIDNIGHT + DAY, "90000") == [("daily_loss", BOOK, False)]
    assert book.at(NOON + DAY, "85501") == []
    assert book.at(NOON + DAY, "85500") == [("daily_loss", BOOK, True)]


def test_a_book_worth_nothing_has_no_share_to_lose():
    """No division by zero at the bottom."""
    book = Book(ProtectionRules(daily_loss=D("0.05"), drawdown=D("0.2")))
    book.at(MIDNIGHT, "100")
    assert book.at(MIDNIGHT + DAY, "0") == [("drawdown", BOOK, True)]
    assert book.at(MIDNIGHT + 2 * DAY, "0") == []


def test_the_drawdown_stop_is_measured_from_the_peak_and_lifts_half_way_back():
    """20 % below a peak of 110,000 is 88,000; it lifts above 99,000, so that it does not flutter at its line."""
    book = Book(ProtectionRules(drawdown=D("0.2")))
    book.at(MIDNIGHT, "100000")
    book.at(MIDNIGHT + HOUR, "110000")
    assert book.at(NOON, "88001") == []
    assert book.at(NOON, "88000") == [("drawdown", BOOK, True)]
    told = book.log[-1].payload
    assert (told.until, told.nav_usd, told.against_usd) == (0, D(88000), D(110000))
    for nav in ("80000", "89000", "99000"):
        assert book.at(NOON + DAY, nav) == []
    assert book.guard().against(DX_KEY) == ("protection.drawdown",)
    assert book.at(NOON + DAY, "99001") == [("drawdown", BOOK, False)]
    assert book.guard() is OPEN


def test_the_books_value_is_written_down_once_a_day_and_at_new_peaks_once_an_hour():
    """So a rebuild knows what losses were measured against, and the log does not fill with marks."""
    book = Book(ProtectionRules(drawdown=D("0.2")))
    for minute in range(0, 120, 10):
        book.at(MIDNIGHT + minute * 60_000_000, str(100_000 + minute))
    marks = [(s.ts_event - MIDNIGHT, s.payload.nav_usd) for s in book.log if s.kind == "nav_marked"]
    assert marks == [(0, D(100_000)), (HOUR, D(100_060))]
    book.at(MIDNIGHT + DAY, "50000")
    assert book.row().nav == NavMarks(20_001, D(50_000), D(100_060), MIDNIGHT + DAY)


def test_stop_buy_is_the_setting_itself():
    """On at the first look, off at the first look without the setting: a restart is enough."""
    book = Book(ProtectionRules(stop_buy=True))
    assert book.at(NOON) == [("stop_buy", BOOK, True)]
    assert book.guard().against(S1_KEY) == ("protection.stop_buy",)
    book.rules = OFF
    assert book.at(NOON + 1) == [("stop_buy", BOOK, False)]
    assert book.guard() is OPEN


@pytest.mark.parametrize("rules", [{"daily_loss": D("0.05")}, {"drawdown": D("0.05")}])
def test_a_setting_that_is_switched_off_lifts_what_it_had_put_on(rules):
    """Without the setting nobody watches the book's value, and what was on goes off at the next look."""
    book = Book(ProtectionRules(**rules))
    book.at(MIDNIGHT, "100000")
    ((reason, _, _),) = book.at(NOON, "90000")
    book.rules = OFF
    assert book.at(NOON + 1) == [(reason, BOOK, False)]


# ------------------------------------------------------------------ tokens and patterns


def test_the_cooldown_bars_the_token_after_a_loss_and_no_other(closed):
    """Six hours after a losing trade; a win does not shorten it, another loss prolongs it."""
    book = Book(ProtectionRules(cooldown=6 * HOUR))
    book.append(closed(NOON, "1"))
    assert book.at(NOON) == []
    book.append(closed(NOON + HOUR, "-0.000001"))
    assert book.at(NOON + HOUR) == [("cooldown", TOKEN, True)]
    assert book.log[-1].payload.until == NOON + 7 * HOUR
    assert book.guard().against(S1_KEY) == book.guard().against(DX_KEY) == ("protection.cooldown",)
    assert book.guard("OTHER") is OPEN
    book.append(closed(NOON + 2 * HOUR, "5"))
    assert book.at(NOON + 2 * HOUR) == []
    book.append(closed(NOON + 5 * HOUR, "-1"))
    assert book.at(NOON + 5 * HOUR) == [("cooldown", TOKEN, True)]
    assert book.row(TOKEN).block("cooldown").since == NOON + HOUR
    assert book.at(NOON + 11 * HOUR - 1) == []
    assert book.at(NOON + 11 * HOUR) == [("cooldown", TOKEN, False)]
    assert book.guard() is OPEN


def test_a_losing_streak_bars_token_and_pattern(closed):
    """Three in a row: two do nothing, the third bars the token everywhere and the pattern for every token."""
    book = Book(ProtectionRules(loss_streak=3, loss_streak_pause=24 * HOUR))
    for hour in (0, 1):
        book.append(closed(NOON + hour * HOUR, "-1"))
        assert book.at(NOON + hour * HOUR) == []
    book.append(closed(NOON + 2 * HOUR, "-1"))
    assert book.at(NOON + 2 * HOUR) == [("loss_streak", S1, True), ("loss_streak", TOKEN, True)]
    assert book.log[-1].payload.detail == "3 losing trades in a row"
    assert book.guard().against(S1_KEY) == book.guard().against(DX_KEY) == ("protection.loss_streak",)
    assert book.guard("OTHER").against(S1_KEY) == ("protection.loss_streak",)
    assert book.guard("OTHER").against(DX_KEY) == ()
    assert book.at(NOON + 26 * HOUR - 1) == []
    assert book.at(NOON + 26 * HOUR) == [("loss_streak", S1, False), ("loss_streak", TOKEN, False)]
    book.append(closed(NOON + 30 * HOUR, "-1"))
    assert book.at(NOON + 30 * HOUR) == [("loss_streak", S1, True), ("loss_streak", TOKEN, True)]


def test_a_win_ends_a_losing_streak(closed):
    """A win in between starts the count anew, and lifts what is on."""
    book = Book(ProtectionRules(loss_streak=2, loss_streak_pause=24 * HOUR))
    for hour, pnl in enumerate(("-1", "0", "-1")):
        book.append(closed(NOON + hour * HOUR, pnl))
        assert book.at(NOON + hour * HOUR) == []
    book.append(closed(NOON + 3 * HOUR, "-1"))
    book.at(NOON + 3 * HOUR)
    assert book.guard().all_buys == ("protection.loss_streak",)
    book.append(closed(NOON + 4 * HOUR, "1"))
    assert book.at(NOON + 4 * HOUR) == [("loss_streak", S1, False), ("loss_streak", TOKEN, False)]


def test_a_pattern_is_counted_over_all_tokens_and_a_token_over_all_patterns(closed):
    """Two losses of two tokens under one pattern bar the pattern; two of one token under two bar the token."""
    rules = ProtectionRules(loss_streak=2, loss_streak_pause=HOUR)
    one = Book(rules)
    one.append(closed(NOON, "-1", "AUSDT"), closed(NOON, "-1", "BUSDT"))
    assert one.at(NOON) == [("loss_streak", S1, True)]
    other = Book(rules)
    other.append(closed(NOON, "-1"), replace(closed(NOON, "-1", key=DX_KEY), id="second"))
    assert other.at(NOON) == [("loss_streak", TOKEN, True)]


def test_what_a_trade_put_on_tells_its_packet_and_its_cause(closed):
    """On is caused by the close and belongs to its signal, off is caused by on: ``trace`` shows both."""
    book = Book(ProtectionRules(cooldown=HOUR))
    close = closed(NOON, "-1")
    book.append(close)
    book.at(NOON)
    book.at(NOON + HOUR)
    on, off = book.log[1:]
    assert (on.causation_id, on.correlation_id) == (close.id, "signal-1")
    assert (off.causation_id, off.correlation_id) == (on.id, "signal-1")
    assert on.tags == off.tags == ("protection_changed", "cooldown")


# ------------------------------------------------------------------ the kill switch


def test_the_kill_switch_is_on_until_it_is_turned_off():
    """No review touches it; turning it twice tells nothing new; each turn has an id of its own."""
    book = Book(OFF)
    for _ in range(2):
        book.append(*switch(book.row(), True, NOON))
        assert switch(book.row(), True, NOON + 1) == ()
        assert book.at(NOON + 365 * DAY) == []
        assert book.guard().against(DX_KEY) == ("protection.kill_switch",)
        book.append(*switch(book.row(), False, NOON))
        assert switch(book.row(), False, NOON + 1) == ()
        assert book.guard() is OPEN
    assert len({s.id for s in book.log}) == len(book.log) == 4


def test_a_channels_kill_switch_bars_no_buy():
    """It has a scope of its own, and no guard asks for it."""
    book = Book(OFF)
    scope = channel_scope("tuning")
    book.append(*switch(Protection(scope), True, NOON))
    assert book.row(scope).block("kill_switch") is not None
    assert book.at(NOON + 1) == []
    assert book.guard() is OPEN


def test_switching_buys_on_lifts_a_drawdown_stop_and_measures_from_there():
    """Flat after its exits the book cannot recover by itself: the operator's word is a new peak."""
    book = Book(ProtectionRules(drawdown=D("0.2")))
    book.at(MIDNIGHT, "100000")
    book.at(NOON, "70000")
    book.append(*switch(book.row(), False, NOON, D(70000)))
    assert [s.kind for s in book.log[-2:]] == ["protection_changed", "nav_marked"]
    assert book.log[-1].payload == NavMarked(D(70000), restarts=True)
    assert book.row().nav == NavMarks(20_000, D(100000), D(70000), NOON)
    assert book.guard() is OPEN
    assert book.at(NOON + 1, "57000") == []
    assert book.at(NOON + 2, "56000") == [("drawdown", BOOK, True)]


def test_switching_buys_on_leaves_the_days_loss_stop():
    """It lifts at midnight; the kill switch alone goes off."""
    book = Book(ProtectionRules(daily_loss=D("0.05")))
    book.at(MIDNIGHT, "100000")
    book.at(NOON, "90000")
    book.append(*switch(book.row(), True, NOON))
    assert book.guard().all_buys == ("protection.kill_switch", "protection.daily_loss")
    book.append(*switch(book.row(), False, NOON, D(90000)))
    assert book.guard().all_buys == ("protection.daily_loss",)


# ------------------------------------------------------------------ the fold


def test_a_strand_that_says_nothing_of_a_scope_is_refused(closed, w):
    """The fold takes what concerns its row, and names what does not."""
    with pytest.raises(TradingError, match="says nothing of book"):
        evolve_protection(None, closed(NOON, "-1"), BOOK)
    assert scopes_of(w.social()) == ()
    assert scopes_of(closed(NOON, "-1")) == (TOKEN, S1)


def test_several_reasons_stand_side_by_side_in_one_order(closed):
    """One going off leaves the others; names come in the order of the catalogue, however they came."""
    book = Book(ProtectionRules(cooldown=HOUR, loss_streak=1, loss_streak_pause=2 * HOUR))
    book.append(closed(NOON, "-1"))
    book.at(NOON)
    assert book.guard().all_buys == ("protection.cooldown", "protection.loss_streak")
    assert book.at(NOON + HOUR) == [("cooldown", TOKEN, False)]
    assert book.guard().all_buys == ("protection.loss_streak",)
    assert book.row(TOKEN).losses == Losses(1, NOON, f"closed-TOKUSDT-{NOON}", "signal-1")


def test_the_order_of_facts_within_one_moment_does_not_make_two_strands_of_one_id(closed):
    """On, off and on again at one moment are three facts."""
    row, ids = Protection(BOOK), set()
    for on in (True, False, True):
        (strand,) = switch(row, on, NOON)
        assert isinstance(strand.payload, ProtectionChanged)
        row = evolve_protection(row, strand, BOOK)
        ids.add(strand.id)
    assert len(ids) == row.changes == 3
