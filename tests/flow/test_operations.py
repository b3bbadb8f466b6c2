"""The system in the hands of an operator: checks, failing jobs, boot, ingress."""

from __future__ import annotations

import dataclasses
import http.client
import json
import queue
import shutil
import socket
import sqlite3
import sys
import threading
import time
from unittest import mock

import pytest
from tests.flow import world

from edgebook import jobs
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.cli import main
from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError, PortError, TradingError
from edgebook.domain.evidence import Observation, Watermark
from edgebook.jobs import JOBS, REQUIRED_JOBS
from edgebook.runtime import checks, ingress, views
from edgebook.runtime.bootstrap import trading_rules
from edgebook.runtime.replay import rebuild
from edgebook.runtime.scheduler import run_paced, run_simulated
from edgebook.runtime.timetable import start_pm_jobs

LEARNERS = ["pattern_scope_aggregator", "lesson_builder_pm", "lesson_builder_dm", "override_materializer"]

# ------------------------------------------------------------------ the checks of a database


@pytest.fixture
def copy(flow, tmp_path):
    """A copy of the flow run's database, to be spoilt."""
    path = tmp_path / "copy.db"
    shutil.copy(flow.path, path)
    return path


def spoil(path, *statements):
    """Change the database behind the system's back: triggers dropped, then these statements."""
    with sqlite3.connect(path) as connection:
        for name in ("ad_strands_no_update", "ad_strands_no_delete", "ad_strands_at_end"):
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            assert connection.execute(statement).rowcount == 1
    connection.close()


def test_an_honest_database_verifies(flow):
    """The chain of the flow run is intact, and its head is the one the run ended with."""
    found = checks.check_chain(flow.url)

    assert found["intact"]
    assert found["log_head"] == flow.head


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ad_strands SET content = replace(content, 'approve', 'reject') WHERE seq = 60",
        "UPDATE ad_strands SET ts_event = ts_event + 1 WHERE seq = 60",
        "UPDATE ad_strands SET config_version = config_version + 1 WHERE seq = 60",
        "UPDATE ad_strands SET hash = CASE WHEN hash LIKE 'f%' THEN 'e' ELSE 'f' END || substr(hash, 2) WHERE seq = 60",
        "DELETE FROM ad_strands WHERE seq = 60",
    ],
)
def test_a_changed_strand_is_found_and_named(copy, change):
    """One byte, one microsecond, one row: verify names seq 60 (or the one after it, which no longer follows)."""
    content = world.ask(copy, "SELECT content FROM ad_strands WHERE seq = 60")[0][0]
    if "approve" in change and "approve" not in content:
        change = "UPDATE ad_strands SET content = replace(content, '\"', '\"x') WHERE seq = 60"
    spoil(copy, change)

    found = checks.check_chain(f"sqlite:///{copy}")

    assert not found["intact"]
    assert any("seq 60" in text or "seq 61" in text for text in found["problems"]), found["problems"]
    assert len(found["problems"]) <= 2


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("trades", "UPDATE trades SET content = json_set(content, '$.rr', 9.5) WHERE row_no = 3"),
        ("positions", "DELETE FROM positions WHERE row_no = 1"),
        ("stats", "UPDATE pattern_scope_stats SET content = json_set(content, '$.n', 77) WHERE row_no = 1"),
        ("lessons", "DELETE FROM learning_lessons WHERE row_no = (SELECT min(row_no) FROM learning_lessons)"),
        (
            "configs",
            "UPDATE learning_configs SET content = json_set(content, '$.config_version', 1) WHERE module_id = 'pm'",
        ),
    ],
)
def test_a_changed_projection_is_found_and_named(copy, table, change):
    """A row changed or deleted behind the log's back is the one difference rebuild reports."""
    with sqlite3.connect(copy) as connection:
        assert connection.execute(change).rowcount == 1
    connection.close()
    with SqlStore(f"sqlite:///{copy}").reader() as uow:
        found = rebuild(uow, trading_rules(world.settings_for("x"), ["1m"]), world.EAGER)

    assert len(found.differences) == 1
    assert found.differences[0].startswith(f"{table}: ")


def test_check_rebuild_reports_a_log_that_learning_does_not_lead_to(flow):
    """The flow run was written by an eager learner: under the settled constants the check says so, it does not
    crash."""
    found = checks.check_rebuild(world.settings_for(flow.url))

    assert not found["equal"]
    assert found["differences"]


# ------------------------------------------------------------------ boot


@pytest.mark.parametrize("name", LEARNERS)
def test_the_system_does_not_start_without_a_learning_job(name):
    """Boot fails, naming the job, if any of the four learning jobs is missing from the table (mission 5.1)."""
    assert name in REQUIRED_JOBS
    with pytest.raises(PortError, match=name):
        start_pm_jobs(0, tuple(job for job in JOBS if job.name != name))


def test_all_learning_jobs_are_launched_and_run(flow):
    """Every required job has runs, the first within its cadence of the start."""
    runs = dict(world.ask(flow.path, "SELECT name, min(slot) FROM job_runs GROUP BY name"))
    start = world.sim_feed().start
    cadence = {job.name: job.every_seconds * 1_000_000 for job in JOBS}

    assert set(REQUIRED_JOBS) <= set(runs)
    assert all(0 < runs[name] - start <= cadence[name] for name in REQUIRED_JOBS)


def test_every_slot_is_accounted_for(flow):
    """Runs and idle slots of a job add up to its slots; none was lost, none counted twice."""
    start, end = world.sim_feed().start, world.ask(flow.path, "SELECT at FROM watermarks WHERE key = 'clock'")[0][0]
    for job in JOBS:
        slots, slot = 0, job.next_slot(start)
        while slot <= end:
            slots, slot = slots + 1, job.next_slot(slot)
        (runs, idle) = world.ask(flow.path, "SELECT count(*), sum(idle_slots) FROM job_runs WHERE name = ?", job.name)[
            0
        ]
        assert runs + idle == slots, job.name


def test_another_seed_on_the_same_database_is_refused(flow):
    """A database knows the settings it was made under; other ones are refused in one line before anything is
    written."""
    with (
        pytest.raises(InputError, match="other settings"),
        world.opened(flow.store, world.settings_for(flow.url, seed=3), world.sim_feed(3)),
    ):
        pass
    with flow.store.reader() as uow:
        assert uow.log.head[1] == flow.head


def test_a_second_writer_is_refused_in_one_line(tmp_path):
    """Two systems on one database: the second says who is there, and changes nothing."""
    url = f"sqlite:///{tmp_path}/book.db"
    with (
        world.opened(SqlStore(url), world.settings_for(url), world.sim_feed()),
        pytest.raises(PortError) as refused,
        world.opened(SqlStore(url), world.settings_for(url), world.sim_feed()),
    ):
        pass
    assert "\n" not in refused.value.message
    assert "book.db" in refused.value.message


# ------------------------------------------------------------------ the registry of curators


def registered(store, path, text):
    """What the log says of curators after a start with this registry (None: without one)."""
    if text is not None:
        path.write_text(text)
    settings = world.settings_for("memory", curators=str(path) if text is not None else "")
    with world.opened(store, settings, world.sim_feed()) as system:
        system.commit()
        return [(s.payload.curator, s.payload.base_weight) for s in system.desk.uow.log.read(0, ["curator_registered"])]


def test_a_start_writes_only_what_is_new_in_the_registry(tmp_path):
    """New entries once; the same file again nothing; a changed entry one strand; no file, or an entry gone: nothing."""
    store, path = MemoryStore(), tmp_path / "curators.toml"
    ann, bob = '[[curators]]\nid = "ann"\nbase_weight = 0.7\n', '[[curators]]\nid = "bob"\n'

    assert registered(store, path, bob + ann) == [("ann", 0.7), ("bob", 0.6)]
    assert registered(store, path, ann + bob) == [("ann", 0.7), ("bob", 0.6)]
    changed = [("ann", 0.7), ("bob", 0.6), ("ann", 0.9)]
    assert registered(store, path, ann.replace("0.7", "0.9") + bob) == changed
    assert registered(store, path, None) == changed
    assert registered(store, path, bob) == changed
    assert registered(store, path, ann + bob) == [*changed, ("ann", 0.7)]
    with store.reader() as uow:
        found = rebuild(uow, trading_rules(world.settings_for("x"), ["1m"]), world.EAGER)
        assert found.equal
        assert found.rows["curators"] == 2


def test_a_disabled_curator_is_rejected_however_it_is_written(tmp_path):
    """Capital letters and blanks make no other curator: all of them are ann, who is disabled."""
    path = tmp_path / "curators.toml"
    path.write_text('[[curators]]\nid = "Ann"\nenabled = false\nhandles = { twitter = "ann" }\n')
    settings = world.settings_for("memory", curators=str(path))
    with world.opened(MemoryStore(), settings, world.sim_feed()) as system:
        symbol = next(s for s in system.tape.symbols if not s.startswith(("BTC", "ETH", "SOL")))
        who = ["Ann", "ann", "ANN", " ann ", "twitter:Ann"]
        lines = [world.signal_line(f"s{i}", "2024-01-01T00:00:00Z", symbol, curator=name) for i, name in enumerate(who)]
        system.take(lines)
        decided = [s.payload for s in system.desk.uow.log.read(0, ["decision_lowcap"])]

    assert {(d.curator_id, d.action) for d in decided} == {("Ann", "reject")}
    assert len(decided) == 5


def test_a_curator_is_known_by_handle_on_every_platform_and_a_disabled_one_is_rejected(tmp_path):
    """Two handles and the id are one curator; another, disabled, is rejected by name of the gate; all are kept."""
    path = tmp_path / "curators.toml"
    path.write_text(
        '[[curators]]\nid = "ann"\nhandles = { twitter = "ann", telegram = "ann_tg" }\n'
        '[[curators]]\nid = "bob"\nenabled = false\nhandles = { twitter = "bob" }\n'
    )
    settings = world.settings_for("memory", curators=str(path))
    with world.opened(MemoryStore(), settings, world.sim_feed()) as system:
        symbol = next(s for s in system.tape.symbols if not s.startswith(("BTC", "ETH", "SOL")))
        who = ["ann", "twitter:@Ann", "telegram:ann_tg", "twitter:bob", "twitter:carl"]
        lines = [world.signal_line(f"s{i}", "2024-01-01T00:00:00Z", symbol, curator=name) for i, name in enumerate(who)]
        assert world.counted(system.take(lines))["accepted"] == 5
        uow = system.desk.uow
        decided = [s.payload for s in uow.log.read(0, ["decision_lowcap"])]
        mentions = uow.intents.get(f"exchange|{symbol}").mentions

    assert [d.curator_id for d in decided] == ["ann", "ann", "ann", "bob", "twitter:carl"]
    assert [d.action for d in decided] == ["approve"] * 3 + ["reject", "approve"]
    assert decided[3].reasoning == "curator_score: curator is disabled"
    assert sorted(m.curator for m in mentions) == ["ann", "ann", "ann", "bob", "twitter:carl"]


def test_a_token_on_a_chain_nobody_trades_is_kept_and_rejected():
    """F3: unsupported chain -> the mention is a strand, the decision a reject that names the gate, no position."""
    with world.opened(MemoryStore(), world.settings_for("memory"), world.sim_feed()) as system:
        symbol = next(s for s in system.tape.symbols if not s.startswith(("BTC", "ETH", "SOL")))
        token = {"symbol": symbol, "chain": "tron"}
        (receipt,) = system.take([world.signal_line("t", "2024-01-01T00:00:00Z", symbol, token=token)])
        uow = system.desk.uow
        (signal,) = uow.log.read(0, ["social_lowcap"])
        (decided,) = [s.payload for s in uow.log.read(0, ["decision_lowcap"])]

        assert receipt.status == "accepted"
        assert "dm_candidate" not in signal.tags
        assert (decided.action, decided.chain) == ("reject", "tron")
        assert decided.reasoning.startswith("supported_chain: tron is not one of")
        assert len(uow.positions) == 0


# ------------------------------------------------------------------ failures


class _SickError(RuntimeError):
    """What a failing job says."""


def failing(name, fails, how=None):
    """The table of jobs with one whose run fails while ``fails(slot)``; ``how`` is done first."""

    def sick(job):
        def run(desk, slot):
            if fails(slot):
                if how is not None:
                    how(desk, slot)
                raise _SickError(f"{name} is ill")
            return job.run(desk, slot)

        return dataclasses.replace(job, run=run)

    return tuple(sick(job) if job.name == name else job for job in JOBS)


def run_with(table, days, store=None):
    """The small market on another table of jobs, going on after failures."""
    store = store or MemoryStore()
    with (
        mock.patch("edgebook.runtime.scheduler.start_pm_jobs", lambda at: start_pm_jobs(at, table)),
        mock.patch("edgebook.runtime.system.log"),  # a traceback drawn for every failure takes longer than the run
        world.opened(store, world.settings_for("memory"), world.sim_feed(), strict=False) as system,
    ):
        run_simulated(system, system.tape.start + int(days * DAY))
    return store


@pytest.mark.parametrize("name", LEARNERS)
def test_a_failing_job_is_recorded_and_the_system_goes_on(name):
    """The run says what went wrong, ``jobs`` shows it, no watermark of the job moved, and trading goes on."""
    with run_with(failing(name, lambda slot: True), 1.0).reader() as uow:
        (row,) = [row for row in views.jobs_view(uow) if row["job"] == name]
        assert row["failed"] == row["runs"] > 0
        assert row["error"] == f"_SickError: {name} is ill"
        assert uow.watermarks.get(name) is None
        assert len(uow.trades) > 0


def test_a_job_that_recovers_catches_up(short_run):
    """The aggregator fails for half a day: afterwards every trade is counted once, as if nothing had been."""
    start = world.sim_feed().start
    sick = failing("pattern_scope_aggregator", lambda slot: slot < start + DAY)
    with run_with(sick, 2.0).reader() as uow:
        counted = {
            key: (row.y, row.scope) for key, row in world.facts(uow)["observations"].items() if key.startswith("pm|")
        }
    expected = {
        key: (row.y, row.scope) for key, row in short_run.facts["observations"].items() if key.startswith("pm|")
    }

    assert counted.keys() == expected.keys()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_failed_job_is_tried_again_at_its_next_slot(name):
    """One failure with work waiting: the next slot runs the job again, though nothing new has stirred it."""
    start = world.sim_feed().start
    tried = []

    def fails(slot):
        tried.append(slot)
        return len(tried) == 2

    table = failing(name, fails)
    run_with(table, 1.0)
    (job,) = [job for job in table if job.name == name]

    assert start < tried[0]
    assert tried[2] == job.next_slot(tried[1])


@pytest.mark.parametrize("name", LEARNERS)
def test_a_job_that_fails_half_way_leaves_nothing_behind(name):
    """What a job wrote before it failed is undone: its writes are one transaction (architecture laws 2 and 4)."""

    def half(desk, slot):
        desk.uow.watermarks.put(Watermark(f"half {slot}", 1, slot))
        desk.uow.observations.put(
            Observation(
                "pm",
                "module=pm|pattern_key=x",
                "entry",
                f"half {slot}",
                slot,
                slot,
                1.0,
                0.0,
                0.0,
                1.0,
                "t",
                1,
                {},
                1.0,
                0.5,
            )
        )

    with run_with(failing(name, lambda slot: True, half), 0.5).reader() as uow:
        assert [row.consumer for row in uow.watermarks.values("half")] == []
        assert [row.unit_id for row in uow.observations.values() if row.unit_id.startswith("half")] == []


def test_a_failing_aggregator_never_loses_a_trade(short_run):
    """It fails amid the statistics of its trades, once: afterwards the statistics count every trade (P1)."""
    broken = []

    def torn(desk, slot):
        real = desk.uow.stats.add

        def add(*args):
            if len(broken) == 3:
                raise _SickError("torn")
            broken.append(args)
            return real(*args)

        with mock.patch.object(desk.uow.stats, "add", add):
            return aggregator.run(desk, slot)

    (aggregator,) = [job for job in JOBS if job.name == "pattern_scope_aggregator"]
    store = MemoryStore()

    def run(desk, slot):
        return (
            torn(desk, slot)
            if len(broken) < 3 or not any(r.status == "failed" for r in desk.uow.runs.values())
            else aggregator.run(desk, slot)
        )

    table = tuple(dataclasses.replace(job, run=run) if job is aggregator else job for job in JOBS)
    run_with(table, 2.0, store)
    with store.reader() as uow:
        assert len([r for r in uow.runs.values() if r.status == "failed"]) == 1
        for family in {o.family for o in uow.observations.values() if o.module == "pm"}:
            units = len(list(uow.observations.values(family + "|")))
            root = [row for row in uow.stats.values(family + "|") if row.scope_mask == 0]
            assert [row.n for row in root] == [units], family


# ------------------------------------------------------------------ dead letters


def test_bad_signals_in_a_running_system_are_dead_letters_with_their_reason():
    """Not JSON, no object, an unknown token, a broken field: counted, kept with reason and content, nothing else
    happens."""
    good = "2024-01-01T00:00:00Z"
    lines = [
        "{not json",
        "[]",
        "3",
        '"text"',
        world.signal_line("a", good, "NOSUCHUSDT"),
        world.signal_line("b", good, "BTCUSDT", mapping_confidence="high"),
        world.signal_line("c", "yesterday", "BTCUSDT"),
        world.signal_line("d", good, "BTCUSDT", market={"mcap_usd": -5}),
        world.signal_line("", good, "BTCUSDT"),
        '{"id": "e"}',
    ]
    with world.opened(MemoryStore(), world.settings_for("memory"), world.sim_feed()) as system:
        receipts = system.take(lines)
        uow = system.desk.uow

        assert world.counted(receipts) == {"accepted": 0, "known": 0, "refused": 10}
        assert sorted(r.reason for r in receipts) == sorted(row.reason for row in uow.dead_letters.values())
        assert len(uow.dead_letters) == 10
        assert uow.log.head[0] == 0
        assert {row.content for row in uow.dead_letters.values()} == set(lines)
        assert all(row.reason and row.stage == "ingest" for row in uow.dead_letters.values())
        system.take(lines)
        assert len(uow.dead_letters) == 10, "the same line buried twice"


NASTY = {
    "a NUL character": "\x00",
    "a NUL in a broken line": '{"id": "a\x00',
    "half a surrogate pair in the id": world.signal_line("\ud800", "2024-01-01T00:00:00Z", "SYMBOL"),
    "half a surrogate pair": world.signal_line("n", "2024-01-01T00:00:00Z", "SYMBOL", curator="\ud800"),
    "a number beyond floats": world.signal_line("n", "2024-01-01T00:00:00Z", "SYMBOL", market={"mcap_usd": 10**400}),
    "a confidence beyond floats": world.signal_line("n", "2024-01-01T00:00:00Z", "SYMBOL", mapping_confidence=10**400),
    "ten thousand digits": '{"id": ' + "9" * 10_000 + "}",
    "bottomless nesting": "[" * 200_000,
}


@pytest.mark.parametrize("name", NASTY)
def test_no_line_from_outside_stops_the_system(tmp_path, name):
    """Whatever a sender posts, it is one dead letter; the system commits it, and takes the next signal."""
    url = f"sqlite:///{tmp_path}/book.db"
    with world.opened(SqlStore(url), world.settings_for(url), world.sim_feed(), strict=False) as system:
        symbol = next(s for s in system.tape.symbols if not s.startswith(("BTC", "ETH", "SOL")))
        bad = system.take([NASTY[name].replace("SYMBOL", symbol)])
        system.commit()
        good = system.take([world.signal_line("good", "2024-01-01T00:00:00Z", symbol)])
        system.commit()

    assert world.counted(bad) == {"accepted": 0, "known": 0, "refused": 1}
    assert world.counted(good)["accepted"] == 1
    with SqlStore(url).reader() as uow:
        assert [row.stage for row in uow.dead_letters.values()] == ["ingest"]
        assert [s.payload.signal_id for s in uow.log.read(0, ["social_lowcap"])] == ["good"]


@pytest.mark.parametrize("error", ["edgebook", "other"])
def test_a_signal_that_breaks_the_decision_maker_does_not_block_those_behind_it(error):
    """A bad signal is buried and counted; signals after it are decided (architecture law 7), whatever it raised."""
    real = jobs.decide

    def decide(signal, **given):
        if signal.payload.signal_id == "poison":
            raise TradingError("cannot be decided") if error == "edgebook" else KeyError("surprise")
        return real(signal, **given)

    with (
        mock.patch.object(jobs, "decide", decide),
        world.opened(MemoryStore(), world.settings_for("memory"), world.sim_feed(), strict=False) as system,
    ):
        run_simulated(system, system.tape.start + DAY // 4)
        uow = system.desk.uow
        symbol = next(s for s in system.tape.symbols if not s.startswith(("BTC", "ETH", "SOL")))
        system.take([world.signal_line("poison", "2024-01-01T06:00:00Z", symbol)])
        system.take([world.signal_line("healthy", "2024-01-01T06:00:00Z", symbol)])
        (healthy,) = [s for s in uow.log.read(0, ["social_lowcap"]) if s.payload.signal_id == "healthy"]

        assert [s.kind for s in uow.log.find(correlation_id=healthy.id) if s.kind == "decision_lowcap"] == [
            "decision_lowcap"
        ]
        assert len(uow.dead_letters) == 1


def test_a_tick_that_fails_for_one_position_goes_on_with_the_others():
    """A strand or reading that one position cannot digest is buried; every other position is still looked at."""
    real, victims = jobs.tick, set()

    def tick(given):
        victims.add(given.position.id) if not victims else None
        if given.position.id in victims:
            raise TradingError("cannot be looked at")
        return real(given)

    with (
        mock.patch.object(jobs, "tick", tick),
        world.opened(MemoryStore(), world.settings_for("memory"), world.sim_feed(), strict=False) as system,
    ):
        run_simulated(system, system.tape.start + DAY)
        uow = system.desk.uow
        acted = {s.position_id for s in uow.log.read(0, ["pm_action"])}

        assert len(uow.dead_letters) > 0
        assert acted
        assert not acted & victims
        assert {row.stage for row in uow.dead_letters.values()} == {"pm_core_tick"}


# ------------------------------------------------------------------ ingress


@pytest.fixture
def paced(tmp_path):
    """A paced system running in a thread on a database file; yields (url, stop)."""
    url = f"sqlite:///{tmp_path}/book.db"
    settings = world.settings_for(url)
    stop, ready, crash = threading.Event(), threading.Event(), []

    def live():
        try:
            with (
                world.opened(SqlStore(url), settings, world.sim_feed(), strict=False) as system,
                ingress.listening(url, 0) as (inbox, _),
            ):

                def watch(*_):
                    ready.set()
                    return not stop.is_set()

                run_paced(system, 3_000.0, None, inbox, watch)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            crash.append(error)
            ready.set()

    thread = threading.Thread(target=live)
    thread.start()
    assert ready.wait(30)
    assert not crash, crash
    yield url, stop, thread
    stop.set()
    thread.join(30)
    assert not crash, crash


def test_signals_posted_to_a_running_system_are_ingested_and_decided(paced):
    """The answer counts what was new, known and refused, and names what was refused; another process sees signal and
    decision at once."""
    url, stop, thread = paced
    file = ingress.address_file(url)
    assert file.stat().st_mode & 0o077 == 0, "others may read the token"
    symbol = "CATUSDT" if "CATUSDT" in world.sim_feed().source.symbols else world.sim_feed().source.symbols[0]
    line = world.signal_line("posted", "2024-01-01T00:00:00Z", symbol)

    first = ingress.post(url, [line, "", "nonsense", line])
    again = ingress.post(url, [line])

    (refusal,) = first.pop("refusals")
    assert first == {"read": 3, "accepted": 1, "known": 1, "refused": 1}
    assert again == {"read": 1, "accepted": 0, "known": 1, "refused": 0, "refusals": []}
    assert refusal["line"] == 3
    assert "not JSON" in refusal["reason"]
    with SqlStore(url).reader() as uow:
        signals = [s for s in uow.log.read(0, ["social_lowcap"]) if s.payload.signal_id == "posted"]
        assert len(signals) == 1
        assert sum(s.causation_id == signals[0].id for s in uow.log.read(0, ["decision_lowcap"])) == 1
        assert len(uow.dead_letters) == 1

    stop.set()
    thread.join(30)
    assert not file.exists(), "the address file outlives the system"
    with pytest.raises(InputError, match="no running system"):
        ingress.post(url, [line])


def ask(url, *, token=None, path="/signals", body=b"{}", method="POST", headers=None):
    """A raw request to the ingress; status and answer."""
    address = json.loads(ingress.address_file(url).read_text())
    connection = http.client.HTTPConnection("127.0.0.1", address["port"], timeout=20)
    try:
        given = {"X-Edgebook-Token": address["token"] if token is None else token, **(headers or {})}
        connection.request(method, path, body, given)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_requests_that_are_not_ours_are_refused(paced, capfd):
    """A wrong or missing token is 403, another path or an empty body 400; a request of nonsense gets an answer too."""
    url, _, _ = paced

    assert ask(url, token="wrong")[0] == 403
    assert ask(url, token="")[0] == 403
    assert ask(url, token="ключ".encode().decode("latin-1"))[0] == 403
    assert ask(url, path="/elsewhere")[0] == 400
    assert ask(url, body=b"")[0] == 400
    assert ask(url, headers={"Content-Length": "many"})[0] == 400
    assert ask(url, headers={"Content-Length": "-5"})[0] == 400
    assert ask(url, method="GET")[0] in (404, 405, 501)
    with SqlStore(url).reader() as uow:
        assert len(uow.dead_letters) == 0
    assert "Traceback" not in capfd.readouterr().err


def test_inject_names_every_refused_line_by_file_and_number(paced, tmp_path, monkeypatch, capsys):
    """`edgebook inject` prints the counts, and one line FILE:LINE: REASON for each line the system refused."""
    url, _, _ = paced
    symbol = world.sim_feed().source.symbols[0]
    good = world.signal_line("i1", "2024-01-01T00:00:00Z", symbol)
    path = tmp_path / "signals.jsonl"
    path.write_text("\n".join([good, "", good, world.signal_line("i2", "2024-01-01T00:00:00Z", "NOSUCHUSDT")]))
    monkeypatch.setattr(sys, "argv", ["edgebook", "inject", str(path), "--db", url])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()

    assert not end.value.code
    assert said.out == "3 signals: 1 new, 1 known, 1 refused (dead letters)\n"
    assert said.err == f"{path}:4: signal: token.symbol 'NOSUCHUSDT' is not a known token\n"


def test_several_senders_at_once_each_get_their_own_counts(paced):
    """Eight threads post different signals: each is told about its own, and none is lost."""
    url, _, _ = paced
    symbol = world.sim_feed().source.symbols[0]
    answers = queue.SimpleQueue()

    def send(number):
        lines = [world.signal_line(f"m{number}-{i}", "2024-01-01T00:00:00Z", symbol) for i in range(number + 1)]
        answers.put((number, ingress.post(url, lines)))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    found = dict(answers.get_nowait() for _ in range(8))
    assert {number: counts["accepted"] for number, counts in found.items()} == {n: n + 1 for n in range(8)}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\xff\xfe{}", "no UTF-8 text (byte 0)"),
        (b'{"id": "a\x00"}', "holds a NUL"),
        (b"\n \n", "has no line"),
        (b"x" * (ingress.MAX_BODY_BYTES + 1), f"1 to {ingress.MAX_BODY_BYTES} bytes"),
        (b"y" * 20_000_000, f"1 to {ingress.MAX_BODY_BYTES} bytes"),
    ],
    ids=["not utf-8", "nul", "blank", "one byte too many", "far too large"],
)
def test_a_body_that_is_no_text_or_too_large_is_refused_as_a_whole(paced, body, why):
    """400 with the reason, even to a sender that is still sending; nothing of it is taken, and the next body is."""
    url, _, _ = paced
    status, answer = ask(url, body=body)

    assert (status, set(json.loads(answer))) == (400, {"error"})
    assert why in json.loads(answer)["error"]
    with SqlStore(url).reader() as uow:
        assert len(uow.dead_letters) == 0
    line = world.signal_line("after", "2024-01-01T00:00:00Z", world.sim_feed().source.symbols[0])
    assert json.loads(ask(url, body=line.encode())[1])["accepted"] == 1


def test_a_body_that_is_cut_off_is_refused_as_a_whole(paced):
    """The sender promised 500 bytes and went away after two lines: 400, and neither of them is taken."""
    url, _, _ = paced
    address = json.loads(ingress.address_file(url).read_text())
    line = world.signal_line("cut", "2024-01-01T00:00:00Z", world.sim_feed().source.symbols[0])
    head = f"POST /signals HTTP/1.0\r\nContent-Length: 5000\r\nX-Edgebook-Token: {address['token']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", address["port"]), timeout=10) as sender:
        sender.sendall(f"{head}{line}\n{line[:40]}".encode())
        sender.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: sender.recv(9_999), b"")).decode()

    assert answer.startswith("HTTP/1.0 400")
    assert f"ended after {len(line) + 41} of 5000 bytes" in answer
    assert json.loads(ask(url, body=line.encode())[1])["accepted"] == 1
    with SqlStore(url).reader() as uow:
        assert len(uow.dead_letters) == 0


def test_a_body_at_the_limit_is_taken(paced):
    """4,000,000 bytes exactly: one line of them is read (and refused for what it is), not turned away at the door."""
    url, _, _ = paced
    status, answer = ask(url, body=b"[" + b" " * (ingress.MAX_BODY_BYTES - 2) + b"]")

    assert status == 200
    assert json.loads(answer)["refusals"] == [
        {"line": 1, "reason": "signal: one JSON object per line is needed, was list"}
    ]


def test_more_than_one_body_of_lines_is_sent_in_several(paced, monkeypatch):
    """Lines beyond one body's limit go in batches; the numbers of refused lines are those of the whole."""
    url, _, _ = paced
    symbol = world.sim_feed().source.symbols[0]
    lines = [world.signal_line(f"b{i}", "2024-01-01T00:00:00Z", symbol) for i in range(20)]
    lines[17] = "{oops"
    monkeypatch.setattr(ingress, "MAX_BODY_BYTES", 1_000)
    found = ingress.post(url, lines)

    assert (found["read"], found["accepted"], found["refused"]) == (20, 19, 1)
    assert [one["line"] for one in found["refusals"]] == [18]
    with pytest.raises(InputError, match="line 2 has 5001 bytes; a signal has at most 1000"):
        ingress.post(url, ["{}", "x" * 5_000])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"port": 1}', '{"port": "x", "token": "y"}', '{"port": 1, "token": "y"}']
)
def test_a_stale_or_broken_address_file_is_one_clear_line(tmp_path, content):
    """A system that was killed leaves its address behind: the sender is told, in one line, and not with a traceback."""
    url = f"sqlite:///{tmp_path}/book.db"
    ingress.address_file(url).write_text(content)

    with pytest.raises(InputError) as refused:
        ingress.post(url, ["{}"])
    assert "book.db.ingress" in refused.value.message
    assert "\n" not in refused.value.message


def test_a_paced_run_is_the_simulated_run(short_run):
    """The live driver and the backtest driver write the same log: live and backtest cannot differ (architecture law
    3)."""
    store = MemoryStore()
    with world.opened(store, world.settings_for("memory"), world.sim_feed()) as system:
        began = time.monotonic()
        run_paced(system, 1e9, system.tape.start + 2 * DAY, queue.SimpleQueue())
        assert time.monotonic() - began < 30
        assert system.desk.uow.log.head[1] == short_run.head
