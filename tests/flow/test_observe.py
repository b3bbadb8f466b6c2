"""`edgebook flow --observe`: what an operator is told of the last packets, on a system that ran and on broken ones."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgebook.cli.app import app
from edgebook.domain.errors import InputError
from edgebook.flow.observe import Fate, observe
from edgebook.flow.running import COMMAND, Running
from edgebook.flow.story import Story, signal

HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A database: one packet whose trade closed, one that holds, one whose trend sleeps, one that was rejected."""
    folder = tmp_path_factory.mktemp("observed")
    story = Story(2.0)
    done = story.tale(story.token("DONEUSDT"), "1h", 3)
    done.state("S1").chance().state("S2", 104).state("S3", 106).state("S0", 108)
    story.tale(story.token("HELDUSDT"), "1h", 3).state("S1").chance()
    story.token("SLEEPUSDT")
    feed = f"script:{story.write(folder / 'script.jsonl')}"
    database = folder / "book.db"
    with Running(COMMAND, folder, f"sqlite:///{database}", feed) as system:
        system.inject(signal("done", "DONEUSDT"), signal("held", "HELDUSDT"), signal("sleeps", "SLEEPUSDT"))
        system.inject(signal("rejected", "SLEEPUSDT", intent="negative"))
        system.pass_until(done.last + 2 * HOUR)
        system.stop()
    return database


def fates(database: Path, last: int = 10) -> dict[str, Fate]:
    return {fate.name: fate for fate in observe(f"sqlite:///{database}", last)[1]}


def broken(ran: Path, tmp_path: Path, *statements: str) -> Path:
    """A copy of the database after some statements."""
    copy = Path(shutil.copy(ran, tmp_path / "broken.db"))
    with sqlite3.connect(copy) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0
    return copy


def test_each_packet_is_where_it_is(ran):
    found = fates(ran)
    assert {name: (fate.verdict, fate.at) for name, fate in found.items()} == {
        "done": ("arrived", ""),
        "held": ("waiting", "closure"),
        "sleeps": ("waiting", "S0->S1"),
        "rejected": ("rejected", "DM gate"),
    }
    assert "intent" in found["rejected"].why
    assert found["done"].reached == "statistics"
    assert found["held"].found["fill"] == 1


def test_newest_first_and_no_more_than_asked_for(ran):
    assert [fate.name for fate in observe(f"sqlite:///{ran}", 2)[1]] == ["rejected", "sleeps"]


@pytest.mark.parametrize(
    ("statement", "stage"),
    [
        ("DELETE FROM positions WHERE symbol = 'DONEUSDT'", "DM fan-out"),
        ("DELETE FROM learning_observations WHERE module = 'pm'", "aggregator"),
        ("DELETE FROM pattern_scope_stats WHERE module = 'pm'", "aggregator"),
    ],
)
def test_what_is_missing_behind_a_packet_is_named_with_its_query(ran, tmp_path, statement, stage):
    fate = fates(broken(ran, tmp_path, statement))["done"]
    assert (fate.verdict, fate.at) == ("died", stage)
    with sqlite3.connect(tmp_path / "broken.db") as connection:
        connection.execute(fate.query)  # it can be pasted as it stands


def test_an_action_without_an_end_of_its_order_died_at_the_executor(ran, tmp_path):
    undo = "DROP TRIGGER ad_strands_no_delete"
    lost = "DELETE FROM ad_strands WHERE kind = 'order_filled' AND symbol = 'HELDUSDT'"
    assert fates(broken_log(ran, tmp_path, undo, lost))["held"].at == "executor"


def broken_log(ran: Path, tmp_path: Path, *statements: str) -> Path:
    copy = Path(shutil.copy(ran, tmp_path / "broken.db"))
    with sqlite3.connect(copy) as connection:
        for statement in statements:
            connection.execute(statement)
    return copy


def test_a_packet_that_was_not_read_waits_until_the_watermark_is_past_it(ran, tmp_path):
    undo = "DROP TRIGGER ad_strands_no_delete"
    lost = "DELETE FROM ad_strands WHERE kind = 'decision_lowcap' AND symbol = 'DONEUSDT'"
    behind = "UPDATE watermarks SET seq = 0 WHERE key = 'decision_maker'"
    assert fates(broken_log(ran, tmp_path, undo, lost))["done"].verdict == "died"
    fate = fates(broken_log(ran, tmp_path, undo, lost, behind))["done"]
    assert (fate.verdict, fate.at) == ("waiting", "DM")


def test_the_command_says_so_and_its_exit_code_too(ran, tmp_path):
    told = CliRunner().invoke(app, ["flow", "--observe", "--db", f"sqlite:///{ran}", "--json"])
    assert told.exit_code == 0
    rows = json.loads(told.stdout)
    assert [row["verdict"] for row in rows["packets"]] == ["rejected", "waiting", "waiting", "arrived"]
    assert rows["failed_jobs"] == []
    copy = broken(ran, tmp_path, "DELETE FROM learning_observations WHERE module = 'pm'")
    told = CliRunner().invoke(app, ["flow", "--observe", "--db", f"sqlite:///{copy}"])
    assert told.exit_code == 1
    assert "died at aggregator" in told.stdout
    assert "SELECT c.trade_id" in told.stdout


def test_no_database_of_ours_is_said_in_one_line(tmp_path):
    other = tmp_path / "other.db"
    sqlite3.connect(other).execute("CREATE TABLE x (y)")
    with pytest.raises(InputError, match="no edgebook database"):
        observe(f"sqlite:///{other}")
    with pytest.raises(InputError, match="no such database"):
        observe(f"sqlite:///{tmp_path / 'nothing.db'}")
