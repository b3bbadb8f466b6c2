"""What a campaign leaves for its readers."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from edgebook.domain.errors import InputError
from edgebook.flow.campaign import Outcome
from edgebook.flow.check import Finding, Moved
from edgebook.flow.transcript import checklist, summary, transcript, write


def finding(stage, passed=True, found=(("entry", Decimal("1.5")),), query="SELECT a FROM b"):
    """One stage asked."""
    return Finding(stage, "p-1", query, "an entry | of 1.5", found, len(found), passed)


def outcome(name="F1", db="sqlite", died_at="", findings=None, moved=()):
    """What became of a scenario."""
    asked = findings if findings is not None else [finding("ingest"), finding("DM", not died_at)]
    why = f"packet p-1 died at stage {died_at}: expected an entry, found no row: SELECT a FROM b" if died_at else ""
    verdict = "died" if died_at else "arrived"
    last = next((f.stage for f in reversed(asked) if f.passed), "")
    return Outcome(
        name, "one | signal", db, ["p-1"], last, verdict, died_at, why, 1.234, asked, list(moved), ["edgebook run"],
        "2024-01-01 to 2024-01-02", [("lesson_builder_pm", 3, 0)],
    )  # fmt: skip


MOVE = Moved("ts_min", "id-1", 0.6, "id-2", 0.58, "loosened")


def cells(line):
    """Cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]


def test_every_file_of_a_campaign_is_written_and_named(tmp_path):
    """One transcript per scenario and database, one checklist per scenario, a table, JSON."""
    paths = write([outcome(), outcome(db="postgresql"), outcome("F2", died_at="DM")], tmp_path / "new" / "folder")

    assert sorted(path.name for path in paths) == [
        "F1.checklist.md", "F1.postgresql.md", "F1.sqlite.md", "F2.checklist.md", "F2.sqlite.md", "README.md",
        "flow.json",
    ]  # fmt: skip
    assert all(path.is_file() for path in paths)


def test_the_json_holds_every_finding_and_can_be_read_back(tmp_path):
    """Decimals as text."""
    write([outcome(moved=[MOVE])], tmp_path)
    (one,) = json.loads((tmp_path / "flow.json").read_text())

    assert (one["scenario"], one["verdict"], one["wall_s"]) == ("F1", "arrived", 1.23)
    assert [f["stage"] for f in one["findings"]] == ["ingest", "DM"]
    assert one["findings"][0]["found"] == [["entry", "1.5"]]
    assert one["moved"][0]["before"] == 0.6


def test_a_transcript_shows_each_stage_with_its_number_and_its_query():
    """The number leads from the table to the query."""
    text = transcript(outcome(died_at="DM", moved=[MOVE]))
    table = [cells(line) for line in text.splitlines() if line.startswith(("| 1 ", "| 2 "))]

    assert [row[:3] for row in table] == [["1 ok", "ingest", "p-1"], ["2 DIED", "DM", "p-1"]]
    assert all(len(row) == 5 for row in table)
    assert "1. `SELECT a FROM b`" in text
    assert "Verdict: **died** at DM." in text
    assert "packet p-1 died at stage DM" in text
    assert "| lesson_builder_pm | 3 | 0 |" in text
    assert "| ts_min | `id-1` | 0.6 | `id-2` | 0.58 | loosened |" in text


def test_a_checklist_ticks_what_has_passed_on_every_database():
    """A stage that one database did not reach is not ticked."""
    text = checklist([outcome(), outcome(db="postgresql", died_at="DM")])

    assert "- [x] **ingest** (p-1)" in text
    assert "- [ ] **DM** (p-1)" in text
    assert "sqlite: arrived" in text
    assert "postgresql: died at DM" in text


def test_the_summary_has_a_row_per_outcome_and_one_per_move():
    """Of the same width as its head, whatever stands in a title."""
    text = summary([outcome(moved=[MOVE]), outcome("F2", died_at="DM")])
    rows = [cells(line) for line in text.splitlines() if line.startswith("| [")]

    assert [row[0] for row in rows] == ["[F1](F1.sqlite.md)", "[F2](F2.sqlite.md)"]
    assert {len(row) for row in rows} == {7}
    assert rows[1][5] == "**died at DM**"
    assert "| F1 sqlite | ts_min |" in text


def test_an_outcome_without_findings_is_still_told():
    """A system that never came up."""
    text = transcript(outcome(findings=[], died_at="system"))
    assert "died at stage system" in text
    assert "none" not in text.split("Packets:")[0]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """The option and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out was .*file.*: cannot be written"):
        write([outcome()], tmp_path / "file")
