"""Laws of the running loop: no look-ahead, once means once, the same run is the same log (architecture laws 3, 4 and
5)."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from itertools import pairwise
from unittest import mock

import pytest
from tests.flow import world

from edgebook.adapters.feeds.sim import SimSource
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.evidence import ConfigRow, ConfigVersion
from edgebook.domain.levers import LEVERS
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY
from edgebook.jobs import JOBS
from edgebook.overrides.record import Override, dump_documents
from edgebook.runtime import bootstrap
from edgebook.runtime import system as system_module
from edgebook.runtime.scheduler import run_simulated
from edgebook.runtime.timetable import start_pm_jobs

# ------------------------------------------------------------------ no look-ahead


def whole(at, *, end_days=3.0, chunk_days=None):
    """The small market with another future after ``at``, by default read whole: the tape has the future in its
    hands."""
    source = SimSource(2, world.TOKENS, prehistory=world.PREHISTORY)
    bent = world.BentSource(source, source.start + int(end_days * DAY), at)
    return bootstrap.Feed(bent, start=source.start, chunk_days=chunk_days)


@pytest.fixture(scope="module")
def unbent():
    """The run on the market as it is, read whole."""
    store = MemoryStore()
    world.run_days(store, 2.5, feed=whole(None))
    return store


@pytest.mark.parametrize("days", [0.75, 1.5, 2.0 + 17 / 1440])
def test_another_future_changes_nothing_recorded_before_it(unbent, days):
    """Whatever prices do after T, all that was recorded up to T is the same, ids and hashes; afterwards it is not."""
    start = whole(None).start
    at = start + int(days * DAY)
    store = MemoryStore()
    world.run_days(store, 2.5, feed=whole(at))

    with unbent.reader() as a, store.reader() as b:
        known = world.known_at(a, at)
        assert len(known) > 50
        assert known == world.known_at(b, at)
        assert a.log.head != b.log.head


def test_a_cut_future_changes_nothing_recorded_before_it(unbent):
    """A run whose bars end at T writes the same log up to T as the run that goes on."""
    start = whole(None).start
    store = MemoryStore()
    world.run_days(store, 2.5, feed=whole(None, end_days=1.25))

    with unbent.reader() as a, store.reader() as b:
        cut = world.known_at(b, start + int(1.25 * DAY) - 1)
        assert len(cut) > 50
        assert cut == world.known_at(a, start + int(1.25 * DAY) - 1)


def test_nothing_is_recorded_before_it_happened(unbent):
    """ts_event never lies after ts_recorded, and ts_recorded never goes back along the log, jobs included."""
    with unbent.reader() as uow:
        strands = list(uow.log.read(0))

    assert [s.seq for s in strands if s.ts_event > s.ts_recorded] == []
    assert [b.seq for a, b in pairwise(strands) if b.ts_recorded < a.ts_recorded] == []


# ------------------------------------------------------------------ determinism


@pytest.mark.parametrize("change", [{"commit_every_strands": 7}], ids=str)
def test_how_often_it_commits_does_not_matter(short_run, tmp_path, change):
    """commit_every_strands is a fact of the machine: log and tables are the same, on a database."""
    url = f"sqlite:///{tmp_path}/book.db"
    head = world.run_days(SqlStore(url), 2.0, settings=world.settings_for(url, **change))

    with SqlStore(url).reader() as uow:
        assert head == uow.log.head[1] == short_run.head
        assert world.facts(uow)["stats"] == short_run.facts["stats"]
        assert world.facts(uow)["lessons"] == short_run.facts["lessons"]


@pytest.mark.parametrize("chunk_days", [2])
def test_how_far_ahead_the_feed_is_read_does_not_matter(short_run, chunk_days):
    """One day at a time, two, or far beyond the end: the same log."""
    assert world.run_days(MemoryStore(), 2.0, feed=world.sim_feed(chunk_days=chunk_days)) == short_run.head


def test_what_ends_over_a_day_break_ends_in_every_chunking():
    """A window that closes on the first bar of a day closes there, even where the feed is read day by day."""
    settings = world.settings_for("memory", seed=7, timeframes="15m,1h")
    heads = {
        world.run_days(MemoryStore(), 5.0, settings=settings, feed=world.sim_feed(7, tokens=12, chunk_days=chunk))
        for chunk in (1, 5)
    }
    assert len(heads) == 1


def test_a_feed_read_whole_is_the_same_too(short_run):
    """A finite feed in one chunk gives what an endless one gives day by day."""
    assert world.run_days(MemoryStore(), 2.0, feed=whole(None)) == short_run.head


def test_another_seed_is_another_log(short_run):
    """The comparison can fail."""
    settings = world.settings_for("memory", seed=3)
    assert world.run_days(MemoryStore(), 0.5, feed=world.sim_feed(3), settings=settings) != short_run.head


@pytest.mark.postgres
def test_postgres_holds_the_same_log(short_run, pg_url):
    """The same run on PostgreSQL: the same head, the same rows."""
    head = world.run_days(SqlStore(pg_url), 2.0, settings=world.settings_for(pg_url, commit_every_strands=200))

    with SqlStore(pg_url).reader() as uow:
        assert head == short_run.head
        assert world.facts(uow) == short_run.facts


def test_walking_in_pieces_is_walking_at_once(short_run):
    """Stopping and starting the driver at odd moments changes nothing: no slot is lost, none runs twice."""
    store = MemoryStore()
    with world.opened(store, world.settings_for("memory"), world.sim_feed()) as system:
        for share in (0.1, 0.101, 0.4, 0.77, 1.0):
            run_simulated(system, system.tape.start + int(share * 2 * DAY))
        assert system.desk.uow.log.head[1] == short_run.head


def test_reopening_at_odd_moments_is_walking_at_once(short_run):
    """The same, with the whole system put away and assembled again each time."""
    store = MemoryStore()
    for days in (0.31, 0.9, 1.2501, 2.0):
        head = world.run_days(store, days)

    with store.reader() as uow:
        assert head == short_run.head
        for name, rows in world.facts(uow).items():
            assert rows == short_run.facts[name], name


# ------------------------------------------------------------------ once


def on_jobs(jobs):
    """The driver started on another table of jobs."""
    return mock.patch("edgebook.runtime.scheduler.start_pm_jobs", lambda at: start_pm_jobs(at, jobs))


def twice(work):
    """The work, done a second time at once; the first answer counts."""

    def doubled(*args):
        found = work(*args)
        work(*args)
        return found

    return doubled


def test_every_job_run_twice_changes_nothing(short_run):
    """Ticks, decisions, fills and learning jobs, each run twice at every slot: the same log and the same tables."""
    store = MemoryStore()
    with ExitStack() as stack:
        for name in ("ingest_signal", "decision_maker", "pm_core_tick", "settle_orders"):
            stack.enter_context(mock.patch.object(system_module, name, twice(getattr(system_module, name))))
        stack.enter_context(on_jobs(tuple(dataclasses.replace(job, run=twice(job.run)) for job in JOBS)))
        head = world.run_days(store, 2.0)

    with store.reader() as uow:
        found = world.facts(uow)
        assert uow.log.counts() == short_run.kinds
        assert head == short_run.head
        for name, rows in found.items():
            assert rows == short_run.facts[name], name


def test_learning_jobs_at_slots_without_news_change_nothing(short_run):
    """Each learning job run at every one of its slots, whether it has something to read or not: the same log."""
    store = MemoryStore()
    jobs = tuple(dataclasses.replace(job, ready=lambda desk: True) for job in JOBS)
    with on_jobs(jobs):
        head = world.run_days(store, 2.0)

    assert head == short_run.head


def test_a_signal_delivered_twice_is_one_signal_and_one_decision(short_run):
    """At-least-once delivery: again at once and a day later it is known; the same id with other words is a dead letter,
    and what was said first stays."""
    store = MemoryStore()
    with world.opened(store, world.settings_for("memory"), world.sim_feed()) as system:
        run_simulated(system, system.tape.start + DAY)
        known = [s.payload for s in system.desk.uow.log.read(0, ["social_lowcap"])]
        symbol = known[0].symbol
        line = world.signal_line("again", "2024-01-01T00:00:00Z", symbol)
        first = system.take([line, line])
        other = system.take([world.signal_line("again", "2024-01-01T00:00:00Z", symbol, text="changed")])
        run_simulated(system, system.tape.start + 2 * DAY)
        late = system.take([line])
        log = system.desk.uow.log
        (dead,) = system.desk.uow.dead_letters.values()
        signals = [s for s in log.read(0, ["social_lowcap"]) if s.payload.signal_id == "again"]
        decided = [s for s in log.read(0, ["decision_lowcap"]) if s.correlation_id == signals[0].id]

    assert [r.status for r in first] == ["accepted", "known"]
    assert [r.status for r in other] == ["refused"]
    assert [r.status for r in late] == ["known"]
    assert (len(signals), len(decided)) == (1, 1)
    assert signals[0].payload.text == ""
    assert (dead.stage, dead.correlation_id, dead.reason) == ("ingest", signals[0].id, other[0].reason)
    assert "text was '', is 'changed'" in dead.reason


# ------------------------------------------------------------------ recorded signals


def recorded(lines, tmp_path, name="signals.jsonl"):
    """A feed of recorded bars with these signal lines."""
    bars = tmp_path / "bars"
    if not bars.exists():
        world.write_bars(bars, 1)
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return bootstrap.parquet_feed(bars, path)


def test_order_of_lines_at_one_moment_is_by_id(tmp_path):
    """Signals of one moment are taken by id, however the file has them (decisions 34)."""
    symbols = [s for s in SimSource(2, world.TOKENS).symbols if s not in ("BTCUSDT", "ETHUSDT", "SOLUSDT")]
    lines = [world.signal_line(f"s{i}", "2024-01-01T00:30:00Z", symbol) for i, symbol in enumerate(symbols)]
    feeds = [recorded(lines, tmp_path), recorded(lines[::-1], tmp_path, "other.jsonl")]
    start = SimSource(2, world.TOKENS, prehistory=world.PREHISTORY).start

    orders = [[json.loads(text)["id"] for _, text in feed.signals] for feed in feeds]
    assert start  # the moment lies inside the recorded bars or the feed would be empty
    assert orders[0] == orders[1] == sorted(orders[0])


# ------------------------------------------------------------------ learning acts through configs only


def lesson(kind, pattern, targets, ident, scope=()):
    """An override that never decays."""
    return Override(ident, kind, *pattern, scope, targets, 1e12, 0)


def version(number, at, *overrides, poison=None):
    """A config version of these overrides."""
    dm, pm = dump_documents(overrides, version=number, updated_at=at)
    dm, pm = (dm, pm) if poison is None else poison
    return ConfigVersion(number, at, dm, pm, f"planted-{number}")


PLANTED = (
    lesson("dm_alloc", DM_ALLOCATION, {"alloc_mult": 1.3}, "more"),
    lesson("pm_strength", S1_ENTRY, {"size_mult": 1.5}, "larger"),
    lesson("pm_tuning", S1_ENTRY, {"ts_min": 0.45}, "looser"),
)


def planted_run(days, *versions, until_first=0.75, learning_enabled=True, storable=True):
    """The small market on which ``versions`` come into force mid-run, without a restart; learning writes none of its
    own."""
    store = MemoryStore()
    settings = world.settings_for("memory", learning_enabled=learning_enabled)
    jobs = tuple(dataclasses.replace(job, run=_nothing) if job.name == "override_materializer" else job for job in JOBS)
    with world.opened(store, settings, world.sim_feed()) as system, on_jobs(jobs):
        run_simulated(system, system.tape.start + int(until_first * DAY))
        for made in versions:
            if storable:
                system.desk.install(made)
            else:
                system.desk.history = system.desk.history.append(made)
        run_simulated(system, system.tape.start + int(days * DAY))
    return store


def _nothing(desk, slot):
    return {"read": 0}


def start_of_time():
    """Start of the small market, microseconds."""
    return world.sim_feed().start


def test_a_config_installed_mid_run_governs_the_next_decisions_without_restart():
    """Before the version: base. After it: decisions and buys carry its number, and allocations and sizes move by the
    step."""
    at = start_of_time() + int(0.75 * DAY)
    store = planted_run(3.0, version(1, at, *PLANTED))
    with store.reader() as uow:
        before = [s for s in uow.log.read(0, ["decision_lowcap", "pm_action"]) if s.ts_recorded <= at]
        after = [s for s in uow.log.read(0, ["decision_lowcap", "pm_action"]) if s.ts_recorded > at]
    after = [s for s in after if getattr(s.payload, "side", "buy") == "buy"]  # sells keep the version of their trade

    assert {s.config_version for s in before} == {0}
    assert {s.config_version for s in after} == {1}
    assert not any(s.payload.nudges for s in before)
    moved = [s for s in after if s.kind == "decision_lowcap" and s.payload.action == "approve" and "dm" not in s.arm]
    assert moved
    for strand in moved:
        epochs = (strand.ts_event // HOUR) - at // HOUR
        assert strand.payload.alloc_mult == pytest.approx(min(1.3, 1.02**epochs))
    sized = [n for s in after for n in s.payload.nudges if n.lever == "size_mult"]
    assert sized
    assert all(1 <= n.applied <= 1.5 for n in sized)  # still base within the first hour
    assert any(n.applied > 1 for n in sized)


def test_a_learned_gate_flips_flags_and_says_so():
    """With ts_min at its lower bound windows carry the gate, and some bar's flag differs from its base flag."""
    at = start_of_time() + int(0.75 * DAY)
    store = planted_run(3.0, version(1, at, *PLANTED))
    with store.reader() as uow:
        windows = [s for s in uow.log.read(0, ["uptrend_buy_window"]) if s.payload.episode_type == "s1_entry"]

    late = [w for w in windows if w.payload.started_at > at + 4 * HOUR and "tuning" not in w.arm]
    assert late
    assert all(w.payload.thresholds_effective["ts_min"] == pytest.approx(0.45) for w in late)
    assert any(s.flag_on != s.flag_base for w in late for s in w.payload.samples)


def test_learning_off_is_no_nudge_at_all_but_statistics_still_grow(short_run):
    """learning_enabled=False: nothing is moved by anything, and the evidence is gathered all the same."""
    store = MemoryStore()
    world.run_days(store, 2.0, settings=world.settings_for("memory", learning_enabled=False))
    with store.reader() as uow:
        strands = list(uow.log.read(0))
        assert not any(getattr(s.payload, "nudges", ()) for s in strands)
        assert {s.payload.alloc_mult for s in strands if s.kind == "decision_lowcap"} == {1.0}
        gates = [s.payload.thresholds_effective for s in strands if s.kind in ("pm_action", "uptrend_buy_window")]
        assert gates
        assert {
            name for g in gates for name, value in g.items() if name in LEVERS and value != LEVERS[name].base
        } == set()
        assert len(uow.stats) > 100
        assert len(uow.lessons) > 0
        assert len(uow.config_versions) > 0


def test_holdout_arms_are_never_nudged():
    """A decision, action or window that is a holdout of a channel has no nudge of that channel; the others have."""
    at = start_of_time() + int(0.25 * DAY)
    many = planted_run(5.0, version(1, at, *PLANTED), until_first=0.25)
    gates = {name for name, row in LEVERS.items() if row.lesson_type == "pm_tuning"}
    with many.reader() as uow:
        strands = list(uow.log.read(0, ["decision_lowcap", "pm_action", "uptrend_buy_window"]))

    held = {channel: [s for s in strands if channel in s.arm.split(",")] for channel in ("dm", "strength", "tuning")}
    assert all(held.values()), {channel: len(found) for channel, found in held.items()}
    assert not any(n.applied != n.base for s in held["dm"] for n in getattr(s.payload, "nudges", ()))
    sizes = [n for s in held["strength"] for n in getattr(s.payload, "nudges", ()) if n.lever not in gates]
    assert not any(n.applied != n.base for n in sizes)
    windows = [s.payload for s in held["tuning"] if s.kind == "uptrend_buy_window"]
    assert not any(abs(w.thresholds_effective.get("ts_min", 0.6) - 0.6) > 1e-12 for w in windows)


# ------------------------------------------------------------------ poison (P5, P8, P9)

GOOD = dump_documents(PLANTED)


def poisoned(**levers):
    """Documents whose strength and tuning items want these levers."""
    item = json.loads(json.dumps(GOOD[1]["pattern_strength_overrides"][0]))
    tuning = json.loads(json.dumps(GOOD[1]["pattern_overrides"][0]))
    item["levers"] = dict(levers)
    tuning["levers"] = {"signal_thresholds": dict(levers), **levers}
    return {}, {"pattern_strength_overrides": [item], "pattern_overrides": [tuning]}


def scoped(**scope):
    """Documents whose otherwise good overrides have this scope."""
    dm, pm = (json.loads(json.dumps(d)) for d in GOOD)
    for item in (*dm["alloc_overrides"], *pm["pattern_strength_overrides"], *pm["pattern_overrides"]):
        item["scope"] = dict(scope)
    return dm, pm


POISON = {
    "not a document": ([], "pm"),
    "lists of nothing": (
        {"alloc_overrides": [None, 3, "x", {}]},
        {"pattern_strength_overrides": "all", "pattern_overrides": {"a": 1}},
    ),
    "nan": poisoned(size_mult=float("nan"), ts_min=float("nan")),
    "infinite": poisoned(size_mult=float("inf"), ts_min=-float("inf")),
    "text": poisoned(size_mult="1.5", ts_min="0.45"),
    "booleans": poisoned(size_mult=True, ts_min=False),
    "legacy": poisoned(
        entry_delay_bars=9,
        phase1_frac_mult=0.1,
        trim_delay_mult=5.0,
        trail_mult=3.0,
        panic_trigger=0.0,
        wait_n_after_trim=7,
    ),
    "unknown levers": poisoned(leverage=100.0, max_position_pct=100.0),
    "foreign dims": (scoped(bucket="micro", timeframe="1m")[0], scoped(curator="early", chain="exchange")[1]),
    "nested scope": scoped(bucket={"any": True}, curator=["early"]),
    "flags of nonsense": (
        GOOD[0] | {"feature_flags": 7},
        GOOD[1] | {"feature_flags": {"learning_overrides_enabled": "yes", "learning_overrides_enabled_regimes": 3}},
    ),
}


@pytest.fixture(scope="module")
def neutral():
    """The run without any learning: the same strands but for the number of the config version."""
    return plain(planted_run(1.5))


def plain(store):
    """What was decided and done, without hashes and version numbers."""
    with store.reader() as uow:
        return [
            (s.id, s.kind, s.ts_event, strip(s.payload))
            for s in uow.log.read(0, ["decision_lowcap", "pm_action", "order_filled", "uptrend_buy_window"])
        ]


def strip(payload):
    """The payload without what only tells of the config."""
    return dataclasses.replace(payload, nudges=()) if hasattr(payload, "nudges") else payload


@pytest.mark.parametrize("name", [n for n in POISON if n != "flags of nonsense"])
def test_a_poisoned_config_leaves_behaviour_neutral(neutral, name):
    """Whatever stands in learning_configs, nothing crashes and every decision is the one without learning (P5, P8,
    P9)."""
    at = start_of_time() + int(0.75 * DAY)
    store = planted_run(1.5, version(1, at, poison=POISON[name]), storable=name not in ("nan", "infinite"))

    assert plain(store) == neutral
    with store.reader() as uow:
        assert len(uow.dead_letters) == 0


def test_unreadable_flags_switch_learning_off_rather_than_on(neutral):
    """Overrides under feature flags that cannot be read do not act (P5)."""
    at = start_of_time() + int(0.75 * DAY)

    assert plain(planted_run(1.5, version(1, at, poison=POISON["flags of nonsense"]))) == neutral


def test_the_comparison_with_neutral_can_fail(neutral):
    """Good overrides do change behaviour, seen by the same comparison."""
    at = start_of_time() + int(0.75 * DAY)

    assert plain(planted_run(1.5, version(1, at, *PLANTED))) != neutral


def test_a_poisoned_database_opens_and_trades(tmp_path):
    """A config version damaged in the database itself (not only installed) neither stops the start nor moves
    anything."""
    url = f"sqlite:///{tmp_path}/book.db"
    plant(url, *POISON["text"])
    world.run_days(SqlStore(url), 0.5, settings=world.settings_for(url))

    with SqlStore(url).reader() as uow:
        assert uow.log.counts()["pm_action"] > 0
        assert not any(getattr(s.payload, "nudges", ()) for s in uow.log.read(0, ["decision_lowcap", "pm_action"]))


@pytest.mark.parametrize("name", ["text", "lists of nothing", "not a document", "flags of nonsense"])
def test_learning_writes_over_a_damaged_config(name):
    """A damaged document, one without its version number too, does not stop the materializer: the next version is
    whole."""
    store = MemoryStore()
    with world.opened(store, world.settings_for("memory"), world.sim_feed(), strict=False) as system:
        system.desk.install(version(7, system.tape.start, poison=POISON[name]))
        run_simulated(system, system.tape.start + 2 * DAY)
        failed = [run.error for run in system.desk.uow.runs.values() if run.status != "ok"]
        newest = system.desk.history

    assert failed == []
    assert newest.current_version > 7
    assert [p for p in newest.problems if p.kind != "flags"] == []


def plant(url, dm, pm):
    """Version 1 of the configs with these documents, in the database."""
    with SqlStore(url).writer() as uow:
        uow.config_versions.put(ConfigVersion(1, 0, dm, pm, "x"))
        for module, document in (("dm", dm), ("pm", pm)):
            uow.configs.put(ConfigRow(module, document, 1, 0))
        uow.commit()


def test_a_config_swap_is_atomic_to_a_reader(tmp_path):
    """At every moment another process sees dm and pm of one version, whole (mission 5.2: hot reload)."""
    url = f"sqlite:///{tmp_path}/book.db"
    seen = set()
    with world.opened(SqlStore(url), world.settings_for(url), world.sim_feed()) as system:
        desk, at = system.desk, system.tape.start
        desk.uow.commit()
        for number in range(1, 8):
            size = 1 + number / 20
            overrides = [
                lesson("dm_alloc", DM_ALLOCATION, {"alloc_mult": size}, "a"),
                lesson("pm_strength", S1_ENTRY, {"size_mult": size}, "s"),
            ]
            made = version(number, at + number * HOUR, *overrides)
            desk.install(made)
            seen.add(_rows(url))
            system.commit()
            seen.add(_rows(url))

    assert len(seen) == 8
    for rows in seen:
        versions = {v for _, v, _, _ in rows}
        assert len(versions) <= 1, rows
        assert len({size for _, _, _, size in rows}) <= 1, rows
        assert all(v == inner for _, v, inner, _ in rows), rows


def _rows(url):
    """(module, version column, version in the document, the value wanted) as another process sees them."""
    found = world.ask(
        url.removeprefix("sqlite:///"),
        "SELECT module_id, config_version, config_data FROM learning_configs ORDER BY module_id",
    )
    rows = []
    for module, number, text in found:
        document = json.loads(text)
        name = "alloc_overrides" if module == "dm" else "pattern_strength_overrides"
        rows.append((module, number, document["config_version"], next(iter(document[name][0]["levers"].values()))))
    return tuple(rows)
