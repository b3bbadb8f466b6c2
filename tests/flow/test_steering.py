"""An operator's hand on what was learnt, in the real system: what acts then, and that log, restart, rebuild agree."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from unittest import mock

import pytest
from tests.flow import world
from tests.flow.test_protections import running

from edgebook.adapters.log import verify
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import InputError, PortError
from edgebook.domain.pattern import Pattern
from edgebook.domain.protection import BOOK
from edgebook.overrides import apply_pattern_strength_overrides
from edgebook.overrides.record import parse_documents
from edgebook.runtime import ingress, views
from edgebook.runtime.bootstrap import trading_rules
from edgebook.runtime.config_views import diff_view, history_view
from edgebook.runtime.replay import rebuild
from edgebook.runtime.scheduler import run_paced, run_simulated
from edgebook.runtime.steering import steer_at_rest, steer_config

#: Days of the small market at which the operator acts, and what is done then; the last walk ends at ``DAYS``.
STORY = (
    (2.5, "mute", "loud"),
    (2.6, "pin", "fast"),
    (3.2, "revert", "3"),
    (3.5, "unmute", "loud"),
    (3.7, "unpin", "fast"),
)
DAYS = 4.0


def in_force(uow):
    """Overrides in force, by lesson."""
    rows = {row.module_id: row.config_data for row in uow.configs.values()}
    return {o.lesson_id: o for o in parse_documents(rows.get("dm", {}), rows.get("pm", {}))[0]}


def chosen(uow):
    """Two lessons the operator has an eye on: the first that moves sizes, and the first that moves allocations."""
    ids = {}
    for override in in_force(uow).values():
        ids.setdefault({"pm_strength": "loud", "dm_alloc": "fast"}.get(override.lesson_type, ""), override.lesson_id)
    return ids


def told(system, act, target):
    """The operator's act; the ids are looked up when the story begins, and kept in the log afterwards."""
    acts = [s.payload for s in system.desk.uow.log.read(0, ["config_steered"])]
    known = {"loud": next((p.target for p in acts if p.act == "mute"), "")}
    known["fast"] = next((p.target for p in acts if p.act == "pin"), "")
    ident = known.get(target) or chosen(system.desk.uow).get(target) or target
    return system.steer(act, ident, "ann", f"day for {act}")


def chapter(system, walker, days, *act):
    """Walk so far, then act."""
    walker(system, system.tape.start + int(days * DAY))
    if act:
        assert told(system, *act).result is not None
    system.commit()


def walk(store, *, walker=run_simulated, restart=True, cut=False):
    """The story on the small market; with ``restart`` each chapter is a process of its own, with ``cut`` each is first
    told without a commit, and lost. Returns the head of the log."""
    settings = world.settings_for("memory", commit_every_strands=50)
    chapters = (*STORY, (DAYS,))
    for span in [[one] for one in chapters] if restart else [chapters]:
        if cut:
            with world.opened(store, settings, world.sim_feed()) as system, mock.patch.object(type(system), "commit"):
                chapter(system, walker, *span[0])
        with world.opened(store, settings, world.sim_feed()) as system:
            for one in span:
                chapter(system, walker, *one)
            head = system.desk.uow.log.head[1]
    return head


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """The whole story, in a database file."""
    path = tmp_path_factory.mktemp("steered") / "book.db"
    url = f"sqlite:///{path}"
    head = walk(SqlStore(url), restart=False)
    with SqlStore(url).reader() as uow:
        acts = list(uow.log.read(0, ["config_steered"]))
        yield SimpleNamespace(
            path=path, url=url, head=head, uow=uow, acts=acts, ids={a.payload.act: a.payload.target for a in acts}
        )


def versions(uow):
    """(number, in force from, overrides by lesson) of every version."""
    return [
        (v.version, v.in_force_from, {o.lesson_id: o for o in parse_documents(v.dm, v.pm)[0]})
        for v in sorted(uow.config_versions.values(), key=lambda v: v.version)
    ]


# ------------------------------------------------------------------ the log


def test_every_act_is_told_with_who_when_and_why(steered):
    """One strand each, at the book's time, naming the version it made; the version names it as its cause."""
    start = world.sim_feed().start
    by_version = {s.payload.version: s for s in steered.uow.log.read(0, ["config_changed"])}
    assert [(a.payload.act, (a.ts_event - start) / DAY) for a in steered.acts] == [
        (act, pytest.approx(days)) for days, act, _ in STORY
    ]
    for act in steered.acts:
        change = by_version[act.payload.version]
        assert (act.payload.who, act.payload.why) == ("ann", f"day for {act.payload.act}")
        assert (change.causation_id, change.payload.updated_by) == (act.id, "operator")
    assert steered.ids["mute"] == steered.ids["unmute"] != steered.ids["pin"] == steered.ids["unpin"]


def test_a_steered_log_refolds_to_the_same_configs(steered):
    """rebuild --check: equal, all versions among the rows compared; the chain holds."""
    found = rebuild(steered.uow, trading_rules(world.settings_for(steered.url), ["1m"]), world.EAGER)

    assert found.differences == ()
    assert found.rows["config_versions"] == len(versions(steered.uow)) > len(STORY)
    assert verify(SqlStore(steered.url)).problems == ()


@pytest.mark.parametrize("how", ["restarted", "power cut", "paced"])
def test_restarts_power_cuts_and_pace_write_the_same_log(steered, tmp_path, how):
    """Each chapter in a process of its own; the last walk before a restart lost and walked again; by another driver."""
    store = SqlStore(f"sqlite:///{tmp_path}/book.db") if how != "paced" else MemoryStore()
    if how == "paced":
        head = walk(store, walker=lambda system, stop: run_paced(system, 1e9, stop, queue.SimpleQueue()))
    else:
        head = walk(store, cut=how == "power cut")
    assert head == steered.head


def test_a_run_nobody_steered_has_no_trace_of_steering(flow):
    """No strand, and no key in any document."""
    with flow.store.reader() as uow:
        assert "config_steered" not in uow.log.counts()
        assert all("steering" not in v.pm and "steering" not in v.dm for v in uow.config_versions.values())
        assert {s.payload.updated_by for s in uow.log.read(0, ["config_changed"])} == {"learning_system"}


# ------------------------------------------------------------------ what acts


def test_what_is_muted_takes_part_in_nothing_from_the_next_decision_on(steered):
    """Its lesson stands behind nudges before the mute, and behind none until it is unmuted."""
    mute, unmute = (a.seq for a in steered.acts if a.payload.act in ("mute", "unmute"))
    behind = [
        s.seq
        for s in steered.uow.log.read(0, ["decision_lowcap", "pm_action"])
        for nudge in s.payload.nudges
        if any(m.lesson_id == steered.ids["mute"] for m in nudge.matched)
    ]
    assert [seq for seq in behind if seq < mute]
    assert [seq for seq in behind if mute < seq < unmute] == []
    for number, _, listed in versions(steered.uow):
        override = listed.get(steered.ids["mute"])
        within = steered.acts[0].payload.version <= number < steered.acts[3].payload.version
        assert override is None or override.enabled != within


def test_what_is_pinned_stays_as_it_was_in_every_version_until_it_is_unpinned(steered):
    """Targets and evidence time are those of the pin, through hourly versions and a revert."""
    first, last = (a.payload.version for a in steered.acts if a.payload.act in ("pin", "unpin"))
    listed = {number: overrides.get(steered.ids["pin"]) for number, _, overrides in versions(steered.uow)}
    assert last > first + 1
    assert all(listed[number] == listed[first] for number in range(first, last))
    assert listed[first].pinned_at == steered.acts[1].ts_event
    assert listed[last] is None or listed[last].pinned_at is None


def test_a_revert_brings_an_old_version_back_and_learning_takes_over_lesson_by_lesson(steered):
    """Overrides of version 3 but for what is muted or pinned; later each changes only with newer evidence."""
    revert = steered.acts[2].payload
    by_number = {number: overrides for number, _, overrides in versions(steered.uow)}
    known = steered.uow.config_versions.get(f"{revert.version:010d}").pm["steering"]["reverted"]["known"]
    fixed = {steered.ids["mute"], steered.ids["pin"]}
    old, new = ({i: o for i, o in by_number[n].items() if i not in fixed} for n in (3, revert.version))
    assert new == old
    assert by_number[revert.version - 1].keys() != by_number[revert.version].keys()
    released = 0
    for number in range(revert.version + 1, max(by_number) + 1):
        for ident, override in by_number[number].items():
            if ident not in fixed and override != old.get(ident):
                assert ident not in known or override.evidence_at > known[ident][0]
                released += 1
    assert released > 0


# ------------------------------------------------------------------ views


def test_history_and_diff_tell_what_each_version_changed(steered):
    """The newest first; adding up what was added and removed gives what is in force; a diff is the sum of the steps."""
    rows = history_view(steered.uow)
    assert [row["version"] for row in rows] == [number for number, _, _ in versions(steered.uow)][::-1]
    assert history_view(steered.uow, 3) == rows[:3]
    assert [(r["act"], r["target"], r["why"]) for r in rows[::-1] if r["act"]] == [
        (a.payload.act, a.payload.target, a.payload.why) for a in steered.acts
    ]
    assert {row["who"] for row in rows} == {"ann", "learning_system"}
    held = set()
    for row in rows[::-1]:
        assert not held & set(row["added"])
        assert set(row["removed"]) <= held
        held = (held | set(row["added"])) - set(row["removed"])
        assert len(held) == sum(row["overrides"].values())
    assert held == in_force(steered.uow).keys()

    newest = rows[0]["version"]
    whole = diff_view(steered.uow, 0, newest)
    assert {one["lesson_id"] for one in whole["added"]} == held
    assert (whole["removed"], whole["changed"], whole["unchanged"]) == ([], [], 0)
    back = diff_view(steered.uow, newest, 0)
    assert [(o["before"], o["after"]) for o in back["removed"]] == [(o["after"], o["before"]) for o in whole["added"]]
    version = steered.acts[0].payload.version
    (muted,) = diff_view(steered.uow, version - 1, version)["changed"]
    assert (muted["lesson_id"], muted["what"], muted["before"]) == (steered.ids["mute"], ["mute"], muted["after"])
    assert muted["state_after"] == muted["state_before"] + ", muted"
    with pytest.raises(InputError, match=f"no config version 999; the newest is {newest}"):
        diff_view(steered.uow, 1, 999)


# ------------------------------------------------------------------ a running system, and one at rest


@pytest.fixture
def rested(tmp_path):
    """A database file of two days, at rest."""
    path = tmp_path / "book.db"
    url = f"sqlite:///{path}"
    world.run_days(SqlStore(url), 2.0, settings=world.settings_for(url))
    return url


def acts_of(url):
    """(act, target, who, why) of every act in the log."""
    with SqlStore(url).reader() as uow:
        return [
            (s.payload.act, s.payload.target, s.payload.who, s.payload.why) for s in uow.log.read(0, ["config_steered"])
        ]


def test_at_rest_and_running_it_is_done_and_told_and_survives(rested):
    """Under the writer's lock, then over HTTP into the running system, then at rest again; each rebuilds."""
    with SqlStore(rested).reader() as uow:
        ident, *others = sorted(in_force(uow))
        newest = max(v.version for v in uow.config_versions.values())
    done = steer_config(rested, "mute", ident[:12], "ann", "noise")
    assert done == {"changed": True, "target": ident, "config_version": newest + 1}
    assert not steer_config(rested, "mute", ident, "bob", "")["changed"]

    with running(rested, speed=60.0):
        assert ingress.is_running(rested)
        assert steer_config(rested, "pin", others[0], "ann", "right so")["changed"]
        assert not steer_config(rested, "pin", others[0], "ann", "right so")["changed"]
        assert steer_config(rested, "unmute", ident, "ann", "")["changed"]
        with pytest.raises(InputError, match="refused it: no lesson 'zzz'"):
            steer_config(rested, "mute", "zzz", "ann", "")
        assert ingress.post_turn(rested, True, who="ann", why="venue is down")["changed"]
    assert not ingress.is_running(rested)
    assert steer_config(rested, "unpin", others[0], "ann", "")["changed"]

    assert acts_of(rested) == [
        ("mute", ident, "ann", "noise"),
        ("pin", others[0], "ann", "right so"),
        ("unmute", ident, "ann", ""),
        ("unpin", others[0], "ann", ""),
    ]
    with SqlStore(rested).reader() as uow:
        assert rebuild(uow, trading_rules(world.settings_for(rested), ["1m"]), world.EAGER).differences == ()
        (switched,) = uow.log.read(0, ["protection_changed"])
        assert (switched.payload.scope, switched.payload.detail) == (BOOK, "operator ann: venue is down")
        (line,) = [views.explain(uow, s.id)["strand"]["text"] for s in uow.log.read(0, ["config_steered"])][:1]
        assert line == f"ann: mute {ident} (noise)"


def test_an_address_that_a_killed_system_left_behind_does_not_stand_in_the_way(rested):
    """Nobody listens there: it is done at rest."""
    ingress.address_file(rested).write_text('{"port": 9, "token": "x", "pid": 1}')
    with SqlStore(rested).reader() as uow:
        ident = min(in_force(uow))
    assert steer_config(rested, "mute", ident, "ann", "")["changed"]


def test_a_writer_that_no_ingress_reaches_is_not_disturbed(rested):
    """A backtest, say, writes to it: refused, and nothing is told."""
    with SqlStore(rested).writer(), pytest.raises(PortError, match="already has a writer"):
        steer_config(rested, "revert", "0", "ann", "")
    assert acts_of(rested) == []


@pytest.mark.parametrize(
    ("who", "why", "said"),
    [
        ("", "", "needs a name"),
        ("ann", "two\nlines", "why must be one line"),
        ("ann\x00", "", "who must be one line"),
        ("ann", "x" * 501, "at most 500"),
        ("\ud800", "", "who must be"),
    ],
)
def test_words_that_cannot_be_kept_are_refused(rested, who, why, said):
    """They would stand in the log for ever."""
    with pytest.raises(InputError, match=said):
        steer_config(rested, "revert", "0", who, why)
    assert acts_of(rested) == []


def test_a_database_that_is_missing_is_not_made(tmp_path):
    """It is said so; one that nothing has run on is left alone, too."""
    with pytest.raises(InputError, match="no such database"):
        steer_config(f"sqlite:///{tmp_path}/none.db", "revert", "0", "ann", "")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="nothing has run"):
        steer_at_rest(MemoryStore(), "revert", "0", "ann", "")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"do": "mute", "target": "a"}',
        b'{"do": "forget", "target": "a", "who": "ann"}',
        b'{"do": "mute", "target": 3, "who": "ann"}',
        b'{"do": ["mute"], "target": "a", "who": "ann"}',
        b'{"do": "mute", "target": "a", "who": 7}',
        b'{"do": "mute", "target": "a", "who": "ann", "why": "\\u0000"}',
        b'{"do": "mute", "target": "a", "who": "ann", "why": "\\ud800"}',
        b'{"do": "revert", "target": "0", "who": "ann", "why": null}',
        b'{"do": "mute", "target": "\\ud800", "who": "ann"}',
    ],
)
def test_an_act_that_is_none_is_refused_and_changes_nothing(tmp_path, body):
    """400 with what would be right; no strand; the system runs on."""
    url = f"sqlite:///{tmp_path}/book.db"
    with running(url, speed=1.0):
        with pytest.raises(InputError, match="refused it: "):
            ingress._send(ingress.address_file(url), "/config", body)
        assert not ingress.post_steer(url, "revert", "0", "ann", "")["changed"]
    assert acts_of(url) == []


def test_a_muted_value_is_back_at_base_within_the_hour_and_a_reverted_one_is_not():
    """On what decisions ask: the mute of all that acts jumps to base; a revert to nothing takes its steps."""
    for act, at_once in (("mute", True), ("revert", False)):
        store = MemoryStore()
        with world.opened(store, world.settings_for("memory"), world.sim_feed()) as system:
            run_simulated(system, system.tape.start + int(2.5 * DAY))
            history, now = system.desk.history, system.clock
            override = next(o for o in history.overrides if o.lesson_type == "pm_strength")
            targets = [o.lesson_id for o in history.overrides] if act == "mute" else ["0"]
            before = _sizes(history, override, now)
            for target in targets:
                assert system.steer(act, target, "ann", "").result is not None
            after = _sizes(system.desk.history, override, now)
            assert before != NEUTRAL
            assert after == (NEUTRAL if at_once else before)
            assert _sizes(system.desk.history, override, now + 60 * HOUR) == NEUTRAL


NEUTRAL = (1.0, 1.0, 1.0)


def _sizes(history, override, now):
    """What an action in the override's own scope is multiplied by."""
    pattern = Pattern(override.pattern_key, override.action_category)
    found = apply_pattern_strength_overrides(history, pattern, override.scope, now)
    return found.size_mult, found.entry_aggression_mult, found.exit_aggression_mult
