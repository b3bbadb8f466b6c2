"""`edgebook flow --observe`: what an operator is told of the last packets, on a system that ran and on broken ones."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgebook.cli.app import app
from edgebook.domain.errors import InputError
from edgebook.flow.book import Book
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
    copy = fresh_copy(ran, tmp_path)
    with closing(sqlite3.connect(copy)) as connection, connection:
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
    copy = fresh_copy(ran, tmp_path)
    with closing(sqlite3.connect(copy)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return copy


def fresh_copy(ran: Path, tmp_path: Path) -> Path:
    """A copy that no write-ahead log of an earlier one lies beside."""
    for left in tmp_path.glob("broken.db*"):
        left.unlink()
    return Path(shutil.copy(ran, tmp_path / "broken.db"))


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
    with pytest.raises(InputError, match="holds tables of another program"):
        observe(f"sqlite:///{other}")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 20)
    with pytest.raises(InputError, match="no edgebook database to observe: file is not a database"):
        observe(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(InputError, match="no such database"):
        observe(f"sqlite:///{tmp_path / 'nothing.db'}")


def test_a_database_of_another_release_is_refused_and_not_misread(ran, tmp_path):
    older = broken(ran, tmp_path, "UPDATE edgebook_revision SET version_num = '0001'")
    with pytest.raises(InputError, match="has schema revision 0001, this release reads"):
        observe(f"sqlite:///{older}")


def test_an_order_that_a_venue_still_works_on_is_waited_for(ran, tmp_path):
    """Until a day after it had to end."""
    undo = "DROP TRIGGER ad_strands_no_delete"
    unsettled = "DELETE FROM ad_strands WHERE kind = 'order_filled' AND symbol = 'HELDUSDT'"
    planned = "UPDATE orders SET status = 'planned' WHERE symbol = 'HELDUSDT'"
    fate = fates(broken_log(ran, tmp_path, undo, unsettled, planned))["held"]
    assert (fate.verdict, fate.at) == ("waiting", "executor")
    stuck = "UPDATE orders SET expires_ts = expires_ts - 172800000000 WHERE symbol = 'HELDUSDT'"
    fate = fates(broken_log(ran, tmp_path, undo, unsettled, planned, stuck))["held"]
    assert (fate.verdict, fate.at) == ("died", "executor")
    assert "a day after they had to end" in fate.why


def test_a_packet_whose_place_another_has_is_superseded_and_one_about_a_paused_token_too(tmp_path):
    """Nobody has to look for them: nothing is broken."""
    story = Story(1.0)
    for symbol in ("TWICEUSDT", "PAUSEDUSDT"):
        story.token(symbol)
    feed = f"script:{story.write(tmp_path / 'script.jsonl')}"
    database = tmp_path / "book.db"
    with Running(COMMAND, tmp_path, f"sqlite:///{database}", feed) as system:
        system.inject(signal("first", "TWICEUSDT", story.start + HOUR), signal("before", "PAUSEDUSDT"))
        for (key,) in Book(system.db).ask("SELECT key FROM positions WHERE symbol = 'PAUSEDUSDT'"):
            system.move(key, "pause")
        system.pass_until(story.start + 2 * HOUR)
        system.inject(signal("second", "TWICEUSDT", story.start + 2 * HOUR, curator="bob"))
        system.inject(signal("paused", "PAUSEDUSDT", story.start + 2 * HOUR, curator="bob"))
        system.inject(signal("late", "TWICEUSDT", story.start + HOUR, curator="cay"))
        system.stop()
    found = {name: (fate.verdict, fate.at) for name, fate in fates(database).items()}
    assert found == {
        "first": ("superseded", "S0->S1"),
        "second": ("waiting", "S0->S1"),
        "late": ("superseded", "DM fan-out"),
        "before": ("waiting", "S0->S1"),
        "paused": ("superseded", "DM fan-out"),
    }


@pytest.mark.parametrize("more", [["F1"], ["--out", "report"]])
def test_observing_takes_no_scenario_and_writes_nothing(ran, more, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["flow", "--observe", "--db", f"sqlite:///{ran}", *more])
    assert isinstance(told.exception, InputError)
    assert "--observe" in told.exception.message
    assert not list(tmp_path.iterdir())
