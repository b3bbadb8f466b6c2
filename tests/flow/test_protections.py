"""Protections in the real system: what they bar, what they let through, who can turn them, and that the log tells."""

from __future__ import annotations

import dataclasses
import queue
import shutil
import sqlite3
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from tests.flow import world

from edgebook import desk as desk_module
from edgebook import projections
from edgebook.adapters.feeds.sim import SimSource
from edgebook.adapters.log import verify
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import InputError
from edgebook.domain.protection import BOOK, channel_scope, pattern_scope, token_scope
from edgebook.learning.episodes import blocked_by_rule
from edgebook.runtime import bootstrap, ingress, views
from edgebook.runtime.bootstrap import trading_rules
from edgebook.runtime.replay import rebuild
from edgebook.runtime.scheduler import run_paced, run_simulated
from edgebook.trading.protections import OPEN

DAYS = 4.0
#: Tight enough that each of them goes on within four simulated days of small trades.
TIGHT = {
    "daily_loss_stop": 0.0001,
    "drawdown_stop": 0.0006,
    "cooldown_hours": 1.0,
    "loss_streak": 2,
    "loss_streak_hours": 3.0,
}
AUTOMATIC = {"daily_loss", "drawdown", "cooldown", "loss_streak"}


def settings(url: str, **change):
    """The small world under tight protections."""
    return world.settings_for(url, **{**TIGHT, **change})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Four days under tight protections, in a database file."""
    path = tmp_path_factory.mktemp("guarded") / "book.db"
    url = f"sqlite:///{path}"
    head = world.run_days(SqlStore(url), DAYS, settings=settings(url))
    with SqlStore(url).reader() as uow:
        yield SimpleNamespace(path=path, url=url, head=head, uow=uow, strands=list(uow.log.read(0)))


def in_force(strands):
    """Walk the log; yields each strand with the (reason, scope) that are on when it is written."""
    on: set[tuple[str, str]] = set()
    for strand in strands:
        if strand.kind == "protection_changed":
            what = strand.payload.reason, strand.payload.scope
            (on.add if strand.payload.on else on.discard)(what)
        yield strand, frozenset(on)


def scopes_of_buy(strand, uow):
    """Every scope that a planned buy lies in."""
    position = uow.positions.get(strand.position_id)
    return {BOOK, token_scope(position.chain, position.contract), pattern_scope(strand.payload.pattern_key)}


# ------------------------------------------------------------------ off by default


def test_by_default_there_is_no_protection_and_none_is_told(flow, short_run):
    """No strand of either kind, nothing in force, and the log of the run with every protection taken out of the code
    is the same to the byte."""
    assert world.ask(
        flow.path, "SELECT count(*) FROM ad_strands WHERE kind IN ('protection_changed', 'nav_marked')"
    ) == [(0,)]
    with flow.store.reader() as uow:
        assert views.protections_view(uow) == []
        assert views.status_view(uow)["kill_switch"] == "off"
    with (
        mock.patch.object(desk_module.Desk, "unsettled", False),
        mock.patch.object(desk_module.Desk, "guard", return_value=OPEN),
        mock.patch.object(desk_module.Desk, "_mind"),
        mock.patch.object(projections, "_protect"),
    ):
        assert world.run_days(MemoryStore(), 2.0) == short_run.head


# ------------------------------------------------------------------ on


def test_each_protection_goes_on_and_off(guarded):
    """All four that follow from the book go on; each that may lift does, and is on at most once at a time per scope."""
    told = [s.payload for s in guarded.strands if s.kind == "protection_changed"]

    assert {p.reason for p in told if p.on} == AUTOMATIC
    assert {p.reason for p in told if not p.on} >= {"daily_loss", "cooldown", "loss_streak"}
    for _, on in in_force(guarded.strands):
        assert len(on) == len(set(on))
    for name in ("daily_loss", "drawdown"):
        for p in (p for p in told if p.on and p.reason == name):
            share = TIGHT[f"{name}_stop"]
            assert float(p.nav_usd) <= float(p.against_usd) * (1 - share) * (1 + 1e-12)


def test_nothing_is_bought_under_a_protection_and_exits_go_on(guarded):
    """No buy is planned while its book, token or pattern is barred; sells are, under each of them."""
    sold_under: set[str] = set()
    bought = 0
    for strand, on in in_force(guarded.strands):
        if strand.kind != "pm_action":
            continue
        scopes = scopes_of_buy(strand, guarded.uow)
        barring = {reason for reason, scope in on if scope in scopes}
        if strand.payload.side == "buy":
            assert not barring, (strand.id, barring)
            bought += 1
        else:
            sold_under |= barring
    assert bought > 0
    assert sold_under >= {"daily_loss", "drawdown"}


def test_a_daily_stop_lifts_at_midnight_and_a_cooldown_at_its_hour(guarded):
    """Every ``until`` is kept to the bar: the strand that lifts it is of the first moment that is not before it, unless
    the book had changed (a win ends a streak)."""
    until: dict[tuple[str, str], int] = {}
    lifted = 0
    for strand in guarded.strands:
        if strand.kind != "protection_changed":
            continue
        p, key = strand.payload, (strand.payload.reason, strand.payload.scope)
        if p.on:
            until[key] = p.until
        elif p.reason in ("daily_loss", "cooldown"):
            assert 0 <= strand.ts_event - until[key] < 60_000_000, p
            lifted += 1
        if p.on and p.reason == "daily_loss":
            assert p.until == (strand.ts_event // DAY + 1) * DAY
        if p.on and p.reason == "cooldown":
            assert p.until == strand.ts_event + HOUR
    assert lifted > 2


def test_windows_a_protection_stood_before_have_no_vote(guarded):
    """They say which one, learning finds them barred by a rule, and no vote of theirs is counted."""
    windows = [
        w
        for s in guarded.strands
        if s.kind == "uptrend_episode_summary"
        for w in s.payload.windows
        if any(name.startswith("protection.") for name in w.blocked_by)
    ]

    assert {name for w in windows for name in w.blocked_by} >= {"protection.daily_loss", "protection.drawdown"}
    assert all(blocked_by_rule(w) and not w.entered for w in windows)


def test_a_guarded_log_refolds_to_the_same_rows(guarded):
    """rebuild --check: equal, with what is in force, the streaks and the marks among the rows it compares."""
    found = rebuild(guarded.uow, trading_rules(settings(guarded.url), ["1m"]), world.EAGER)

    assert found.differences == ()
    assert found.rows["protections"] > 3
    assert verify(SqlStore(guarded.url)).problems == ()


def test_the_same_rows_follow_under_other_settings(guarded):
    """The fold does not ask the settings: what was on was on, whoever reads the log."""
    found = rebuild(guarded.uow, trading_rules(world.settings_for("x"), ["1m"]), world.EAGER)

    assert found.differences == ()


def test_live_backtest_and_a_run_cut_in_pieces_write_the_same_log(guarded, tmp_path):
    """Paced, simulated, and stopped without a commit here and there: one head."""
    with world.opened(MemoryStore(), settings("memory"), world.sim_feed()) as system:
        run_paced(system, 1e9, system.tape.start + int(DAYS * DAY), queue.SimpleQueue())
        assert system.desk.uow.log.head[1] == guarded.head

    url = f"sqlite:///{tmp_path}/cut.db"
    for days in (0.7, 1.3, 2.01, 3.4, DAYS):
        with world.opened(SqlStore(url), settings(url, commit_every_strands=30), world.sim_feed()) as system:
            stop = system.tape.start + int(days * DAY)
            if days == DAYS:
                run_simulated(system, stop)
                assert system.desk.uow.log.head[1] == guarded.head
                continue
            with mock.patch.object(type(system), "commit"):
                run_simulated(system, stop)


def test_a_trace_shows_what_a_losing_trade_put_on(guarded):
    """The packet whose trade lost tells of the cooldown that followed, on and off; the status tells what is on."""
    cause = next(s for s in guarded.strands if s.kind == "protection_changed" and s.payload.reason == "cooldown")

    lines = [line["text"] for line in views.trace(guarded.uow, cause.correlation_id)["strands"]]
    assert any(text.startswith("cooldown on for token|exchange|") for text in lines)
    assert any(text.startswith("cooldown off for token|exchange|") for text in lines)
    now = set(list(in_force(guarded.strands))[-1][1])
    assert {(p["reason"], p["scope"]) for p in views.status_view(guarded.uow)["protections"]} == now


def test_protections_may_change_between_two_runs_of_one_book(tmp_path):
    """An operator stops buying by a restart, and starts again by another; other settings stay refused."""
    url = f"sqlite:///{tmp_path}/book.db"
    buys = []
    for days, change in ((2.0, {}), (3.0, {"stop_buy": True}), (4.0, {})):
        with world.opened(SqlStore(url), world.settings_for(url, **change), world.sim_feed()) as system:
            before = system.desk.uow.log.head[0]
            run_simulated(system, system.tape.start + int(days * DAY))
            planned = system.desk.uow.log.read(before, ["pm_action"])
            buys.append(sum(s.payload.side == "buy" for s in planned))
            if change:
                assert ("stop_buy", "book") in {
                    (p["reason"], p["scope"]) for p in views.protections_view(system.desk.uow)
                }
    assert buys[0] > 0
    assert buys[1] == 0
    assert buys[2] > 0
    with (
        pytest.raises(InputError, match="other settings"),
        world.opened(SqlStore(url), world.settings_for(url, fill_on="close"), world.sim_feed()),
    ):
        pass
    with SqlStore(url).reader() as uow:
        assert views.protections_view(uow) == []
        assert rebuild(uow, trading_rules(world.settings_for(url), ["1m"]), world.EAGER).differences == ()


def test_a_limit_that_is_new_counts_the_losses_from_before_it():
    """Set at a restart, it bars at the first moment every token and pattern whose last trade lost."""
    store, change = MemoryStore(), {"loss_streak": 1, "loss_streak_hours": 8_000}
    world.run_days(store, 2.0)
    with world.opened(store, world.settings_for("memory", **change), world.sim_feed()) as system:
        uow = system.desk.uow
        losers = {row.scope for row in uow.protections.values() if row.losses.in_a_row}
        run_simulated(system, system.clock + world.MINUTE)

        assert losers
        assert {row.scope for row in uow.protections.values() if row.block("loss_streak")} >= losers


def test_a_database_from_before_there_were_protections_gets_its_rows(flow, tmp_path):
    """Its losses in a row are folded from the log when a writer opens it, and then equal what a rebuild finds."""
    path = tmp_path / "old.db"
    shutil.copy(flow.path, path)
    url = f"sqlite:///{path}"
    with sqlite3.connect(path) as connection:
        assert connection.execute("DELETE FROM protections").rowcount > 0
    connection.close()
    with world.opened(SqlStore(url), world.settings_for(url), world.sim_feed()) as system:
        system.commit()

    with SqlStore(url).reader() as uow, flow.store.reader() as before:
        assert list(uow.protections.values()) == list(before.protections.values())


# ------------------------------------------------------------------ the kill switch


@contextmanager
def running(url, speed=2.0 * 86_400):
    """A paced system in a thread of its own, at so many simulated seconds a second."""
    stop, ready, crash = threading.Event(), threading.Event(), []

    def live():
        try:
            with (
                world.opened(SqlStore(url), world.settings_for(url), world.sim_feed(), strict=False) as system,
                ingress.listening(url, 0) as (inbox, _),
            ):

                def watch(*_):
                    ready.set()
                    return not stop.is_set()

                run_paced(system, speed, None, inbox, watch)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            crash.append(error)
            ready.set()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not crash, crash


def wait_for(path, query, *values, least=1):
    """Ask the database until there are so many rows."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        rows = world.ask(path, query, *values)
        if len(rows) >= least:
            return rows
        time.sleep(0.05)
    raise AssertionError(f"nothing after a minute: {query}")


SIDE = "SELECT seq FROM ad_strands WHERE kind = 'pm_action' AND json_extract(content, '$.side') = ? AND seq > ?"
SWITCHED = "SELECT seq FROM ad_strands WHERE kind = 'protection_changed' ORDER BY seq DESC LIMIT 1"
BARRED = "SELECT seq FROM ad_strands WHERE kind = 'uptrend_buy_window' AND content LIKE '%protection.kill_switch%'"
LATER = "SELECT l.seq FROM ad_strands l JOIN ad_strands s ON s.seq = ? WHERE l.ts_event > s.ts_event + ? LIMIT 1"


def walk_until_holding(url):
    """A book that holds something and waits for no order."""
    with world.opened(SqlStore(url), world.settings_for(url), world.sim_feed()) as system:
        uow = system.desk.uow

        def flat(*_):
            return bool(system.desk.orders) or not any(p.holding for p in uow.positions.values())

        run_simulated(system, system.tape.start + 3 * DAY, flat)
        assert not flat(), "three days without a holding"


def test_the_kill_switch_stops_a_running_system_from_buying_and_survives_a_restart(tmp_path):
    """Over HTTP: on, and after a restart it sells what it holds and buys nothing; off, and it buys; on again while it
    runs, and no moment after that buys."""
    path = tmp_path / "book.db"
    url = f"sqlite:///{path}"
    walk_until_holding(url)
    with running(url, speed=1.0):
        found = ingress.post_turn(url, True)
        assert found["changed"]
        assert [(p["reason"], p["scope"], p["until"]) for p in found["in_force"]] == [("kill_switch", "book", "")]
        assert not ingress.post_turn(url, True)["changed"]
    ((on,),) = wait_for(path, SWITCHED)
    with SqlStore(url).reader() as uow:
        assert views.status_view(uow)["kill_switch"] == "on"

    with running(url):
        wait_for(path, SIDE, "sell", on)
        wait_for(path, BARRED)
        assert world.ask(path, SIDE, "buy", on) == []
        assert ingress.post_turn(url, False) == {"changed": True, "in_force": []}
        ((off,),) = wait_for(path, SWITCHED)
        wait_for(path, SIDE, "buy", off)
        assert ingress.post_turn(url, True)["changed"]
        ((again,),) = wait_for(path, SWITCHED)
        wait_for(path, LATER, again, DAY)
        assert world.ask(path, SIDE, "buy", again) == []

    with SqlStore(url).reader() as uow:
        switched = [(s.payload.reason, s.payload.on) for s in uow.log.read(0, ["protection_changed"])]
        assert switched == [("kill_switch", True), ("kill_switch", False), ("kill_switch", True)]
        assert rebuild(uow, trading_rules(world.settings_for(url), ["1m"]), world.EAGER).differences == ()
    with pytest.raises(InputError, match="no running system"):
        ingress.post_turn(url, True)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"on": 1}',
        b'{"channel": "dm"}',
        b'{"on": true, "channel": "sizes"}',
        b"\xff",
        b'{"on": true, "channel": []}',
    ],
)
def test_a_turn_that_is_none_is_refused_and_changes_nothing(tmp_path, body):
    """400 with what would be right; no strand."""
    path = tmp_path / "book.db"
    url = f"sqlite:///{path}"
    with running(url), pytest.raises(InputError, match="refused it: "):
        ingress._send(ingress.address_file(url), "/kill-switch", body)
    assert world.ask(path, SWITCHED) == []


@pytest.mark.parametrize("channel", ["dm", "strength"])
def test_a_channels_kill_switch_makes_its_overrides_neutral_at_once_and_no_other(channel):
    """After some days of nudges: none of that channel from the next decision on, unslewed; the others go on; a restart
    keeps it so; off, and they are back."""

    def nudged(strands, levers):
        return sum(n.lever in levers and n.applied != n.base for s in strands for n in getattr(s.payload, "nudges", ()))

    mine = {"dm": ("alloc_mult",), "strength": ("size_mult", "entry_aggression_mult", "exit_aggression_mult")}
    other = "strength" if channel == "dm" else "dm"
    store, seq, days = MemoryStore(), 0, 4.0
    found = []
    for on in (None, True, False):
        with world.opened(store, world.settings_for("memory"), world.sim_feed()) as system:
            if on is not None:
                assert system.turn(channel_scope(channel), on)
                assert not system.turn(channel_scope(channel), on)
                system.commit()
        with world.opened(store, world.settings_for("memory"), world.sim_feed()) as system:
            assert system.desk.history.neutral_channels == ({channel} if on else frozenset())
            seq = system.desk.uow.log.head[0]
            run_simulated(system, system.tape.start + int(days * DAY))
            strands = list(system.desk.uow.log.read(seq))
            found.append((nudged(strands, mine[channel]), nudged(strands, mine[other])))
            days += 2.0
            if on:
                assert views.status_view(system.desk.uow)["kill_switch"] == f"on for channel {channel}"
                assert any(s.kind == "pm_action" and s.payload.side == "buy" for s in strands)

    assert [own > 0 for own, _ in found] == [True, False, True], found
    assert all(others > 0 for _, others in found), found


def test_every_channel_has_a_switch_of_its_own_and_each_survives_a_restart():
    """All three on, one off again: the history that decisions ask has exactly the other two neutral, also anew."""
    store = MemoryStore()
    with world.opened(store, world.settings_for("memory"), world.sim_feed()) as system:
        for channel in ("dm", "strength", "tuning"):
            system.turn(channel_scope(channel), True)
        system.turn(channel_scope("strength"), False)
        assert system.desk.history.neutral_channels == {"dm", "tuning"}
        assert views.status_view(system.desk.uow)["kill_switch"] == "on for channel dm, on for channel tuning"
        system.commit()
    with world.opened(store, world.settings_for("memory"), world.sim_feed()) as system:
        assert system.desk.history.neutral_channels == {"dm", "tuning"}
        run_simulated(system, system.tape.start + 2 * DAY)
        assert system.desk.history.current_version > 0
        assert system.desk.history.neutral_channels == {"dm", "tuning"}


def test_switching_buys_on_again_lifts_a_drawdown_stop_of_the_running_book():
    """The operator's way out of a drawdown: the peak is the book's value of that moment, told in the log."""
    tight = {"drawdown_stop": 0.0001}
    with world.opened(MemoryStore(), world.settings_for("memory", **tight), world.sim_feed()) as system:
        uow = system.desk.uow

        def stopped(*_):
            return uow.protections.get(BOOK).block("drawdown") is None

        run_simulated(system, system.tape.start + 6 * DAY, stopped)
        assert not stopped(), "six days without a drawdown"
        assert system.turn(BOOK, False)
        assert stopped()
        *_, off, mark = uow.log.read(0)
        assert (off.payload.reason, off.payload.on, off.payload.detail) == ("drawdown", False, "operator")
        assert mark.payload.restarts
        assert uow.protections.get(BOOK).nav.peak_usd == mark.payload.nav_usd == system.desk.nav(system.clock)
        assert rebuild(uow, trading_rules(world.settings_for("x"), ["1m"]), world.EAGER).differences == ()


# ------------------------------------------------------------------ a broker that fails


def test_a_failing_broker_books_nothing_and_exits_are_tried_again(tmp_path):
    """Three orders in ten refused: told with the reason, nothing booked for them, every trade still ends, and the same
    orders are refused in the next run."""
    url = f"sqlite:///{tmp_path}/book.db"
    change = {"failure_probability": 0.3}
    head = world.run_days(SqlStore(url), 3.0, settings=world.settings_for(url, **change))
    with SqlStore(url).reader() as uow:
        strands = list(uow.log.read(0))
        refused = [s.payload for s in strands if s.kind == "order_rejected"]
        filled = {s.payload.client_id for s in strands if s.kind == "order_filled"}

        assert {p.reason for p in refused} == {"simulated failure (failure_probability 0.3)"}
        assert {p.side for p in refused} == {"buy", "sell"}
        assert not filled & {p.client_id for p in refused}
        assert 0.2 < len(refused) / (len(refused) + len(filled)) < 0.4
        assert len(uow.trades) > 5
        assert rebuild(uow, trading_rules(world.settings_for(url), ["1m"]), world.EAGER).differences == ()
    assert world.run_days(MemoryStore(), 3.0, settings=world.settings_for("memory", **change)) == head


class GappySource(SimSource):
    """The simulated market with every bar opening a thousandth above the close before it."""

    def bars(self, symbol, start, end):
        bars = super().bars(symbol, start, end)
        opened = bars.open * 1.001
        return dataclasses.replace(bars, open=opened, high=np.maximum(bars.high, opened))


@pytest.mark.parametrize(("fill_on", "gap"), [("next_open", 1.001), ("close", 1.0)])
def test_paper_fills_are_of_the_next_open_or_of_the_close_they_were_decided_on(fill_on, gap):
    """Where bars open above the close before them, the setting decides which of the two is paid, plus slippage; either
    way the fill is of the moment of the plan."""
    source = GappySource(2, world.TOKENS, prehistory=world.PREHISTORY)
    feed = bootstrap.Feed(source, start=source.start, chunk_days=1)
    store = MemoryStore()
    world.run_days(store, 2.0, feed=feed, settings=world.settings_for("memory", fill_on=fill_on))
    with store.reader() as uow:
        planned = {s.payload.client_id: s for s in uow.log.read(0, ["pm_action"])}
        fills = list(uow.log.read(0, ["order_filled"]))

    assert len(fills) > 20
    for fill in fills:
        plan = planned[fill.payload.client_id]
        slip = fill.payload.slippage_bps / 1e4 * (1 if fill.payload.side == "buy" else -1)
        assert fill.payload.price == pytest.approx(plan.payload.price * gap * (1 + slip), rel=1e-9)
        assert fill.ts_event == plan.ts_event
