"""What an operator does to what was learnt is durable, whole or not at all, on every store."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import cast
from unittest import mock

import pytest
from tests.contracts.test_durability import writer_after_death
from tests.lessons import NOW, SIZE

from edgebook import jobs
from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.adapters.log import verify
from edgebook.adapters.sql import SqlStore
from edgebook.adapters.workspace import Workspace
from edgebook.desk import Desk
from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import Watermark
from edgebook.learning.config import LearningConfig
from edgebook.overrides.record import parse_documents
from edgebook.ports import MarketReader
from edgebook.runtime.steering import steer_at_rest
from edgebook.trading.rules import TradingRules

PROGRAM = Path(__file__).with_name("steering_process.py")
LESSON = replace(SIZE, id="lesson-1", effect={"capital_levers": {"size_mult": 1.25}})


def learn(store, *lessons):
    """Lessons as a builder would put them, and the hourly job after it."""
    with store.writer() as uow:
        clock = uow.watermarks.get("clock")
        now = (clock.at if clock else NOW) + HOUR
        desk = Desk(uow, cast(MarketReader, None), PaperBroker(), {}, TradingRules(), LearningConfig())
        for lesson in lessons:
            uow.lessons.put(lesson)
        jobs.run_materializer(desk, now)
        uow.watermarks.put(Watermark("clock", uow.log.head[0], now))
        uow.commit()


def stored(store):
    """(overrides in force by lesson, newest version, acts told)."""
    with store.reader() as uow:
        rows = {row.module_id: row for row in uow.configs.values()}
        listed = {o.lesson_id: o for o in parse_documents(rows["dm"].config_data, rows["pm"].config_data)[0]}
        newest = max(uow.config_versions.values(), key=lambda v: v.version)
        assert (rows["pm"].config_data, rows["pm"].config_version) == (newest.pm, newest.version)
        return listed, newest.version, [s.payload.act for s in uow.log.read(0, ["config_steered"])]


def test_acts_outlast_the_process_and_new_versions(store):
    """Muted, pinned, reverted, each in a process of its own, with learning between them: what was done is still so."""
    other = replace(LESSON, id="lesson-2", scope_values={})
    learn(store, LESSON, other)
    for act, target in (("mute", "lesson-1"), ("pin", "lesson-2")):
        assert steer_at_rest(store, act, target, "ann", "")["changed"]
    learn(store, replace(LESSON, evidence_at=NOW), replace(other, status="deprecated", lesson_version=2))
    listed, _, _ = stored(store)
    assert [(o.enabled, o.pinned_at) for o in listed.values()] == [(False, None), (True, NOW + HOUR)]

    assert steer_at_rest(store, "revert", "1", "ann", "")["changed"]
    learn(store, replace(LESSON, evidence_at=NOW, effect={"capital_levers": {"size_mult": 0.8}}, lesson_version=3))
    listed, version, acts = stored(store)
    assert listed["lesson-1"].targets == {"size_mult": 1.25}
    assert listed["lesson-1"].evidence_at == LESSON.evidence_at
    assert (listed["lesson-1"].enabled, listed["lesson-2"].pinned_at) == (False, NOW + HOUR)
    assert (version, acts) == (5, ["mute", "pin", "revert"])

    learn(store, replace(LESSON, evidence_at=NOW + 1, effect={"capital_levers": {"size_mult": 0.8}}))
    assert stored(store)[0]["lesson-1"].targets == {"size_mult": 0.8}


def test_an_act_that_could_not_be_committed_has_not_been_done(store):
    """Power fails at the commit: no strand, no version, and it can be done again."""
    learn(store, LESSON)
    before = stored(store)
    with mock.patch.object(Workspace, "commit", side_effect=RuntimeError("power")), pytest.raises(RuntimeError):
        steer_at_rest(store, "mute", "lesson-1", "ann", "")
    assert stored(store) == before
    assert steer_at_rest(store, "mute", "lesson-1", "ann", "")["changed"]


@pytest.mark.parametrize(("acts", "delay_ms"), [(1, 0), (2, 9), (3, 23), (4, 41)])
def test_an_operator_killed_at_any_moment_has_acted_wholly_or_not(url, acts, delay_ms):
    """SIGKILL: every act that was acknowledged is there; strand, version and document say the same; it goes on."""
    store = SqlStore(url)
    learn(store, LESSON)
    command = [sys.executable, str(PROGRAM), url, "lesson-1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(acts):
            acknowledged = int(process.stdout.readline() or pytest.fail(process.stderr.read()))
        time.sleep(delay_ms / 1000)
        process.kill()
        process.wait()
        acknowledged = int((process.stdout.read().split() or [acknowledged])[-1])

    listed, version, told = stored(store)
    assert version == 1 + len(told)
    assert acknowledged <= version <= acknowledged + 1
    assert told == ["mute", "unmute"] * (len(told) // 2) + ["mute"] * (len(told) % 2)
    assert listed["lesson-1"].enabled == (told[-1] == "unmute")
    assert verify(store).problems == ()
    with writer_after_death(store):
        """The dead writer's lock is free again."""
    assert steer_at_rest(store, "pin", "lesson-1", "ann", "")["config_version"] == version + 1
