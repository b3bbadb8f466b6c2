"""`edgebook flow`: choosing scenarios and databases, what is printed and written, exit codes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from edgebook.cli.app import app
from edgebook.domain.errors import InputError
from edgebook.flow.check import Flow, Scenario, exactly

run = CliRunner().invoke


def test_the_list_names_every_scenario_of_the_design():
    told = run(app, ["flow", "--list", "--json"])
    names = [row["scenario"] for row in json.loads(told.stdout)]
    assert {"F0", "F1"} <= set(names)
    assert all(row["title"] for row in json.loads(told.stdout))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["F99"], "no scenario 'F99'; there are F0, F1"),
        (["F0", "--db", "sqlite:///mine.db"], "takes sqlite (files of its own) or postgresql://"),
        (["F0", "--db", "nonsense"], "use sqlite:///FILE or postgresql://"),
        (["--observe", "--db", "sqlite", "--db", "sqlite"], "looks at one database, was given 2"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments, says):
    told = run(app, ["flow", *arguments])
    assert isinstance(told.exception, InputError)
    assert says in str(told.exception)


def dies(flow: Flow) -> None:
    """A scenario that finds a mistake at its second stage."""
    flow.about("packet-1")
    flow.packets.append("packet-1")
    flow.note("first", "asked", "yes", True, "yes")
    flow.note("second", "asked again", "yes", False, "no")


def silent(flow: Flow) -> None:
    """A scenario that asks nothing."""


@pytest.fixture
def scenarios(monkeypatch):
    made = {"DIES": Scenario("DIES", "dies", dies), "SILENT": Scenario("SILENT", "asks nothing", silent)}
    monkeypatch.setattr("edgebook.flow.campaign.SCENARIOS", made)
    return made


def test_a_death_is_one_sentence_and_exit_code_1(scenarios):
    told = run(app, ["flow", "DIES"])
    assert told.exit_code == 1
    assert "packet packet-1 died at stage second: expected yes, found no" in told.stdout
    (row,) = json.loads(run(app, ["flow", "DIES", "--json"]).stdout)
    assert (row["verdict"], row["died_at"], row["last_stage"]) == ("died", "second", "first")
    assert {"scenario", "db", "packets", "last_stage", "verdict", "died_at", "wall_s"} <= set(row)


def test_a_scenario_that_asserts_nothing_has_failed(scenarios):
    (row,) = json.loads(run(app, ["flow", "SILENT", "--json"]).stdout)
    assert (row["verdict"], row["died_at"]) == ("died", "scenario")


def test_transcripts_and_checklists_are_written(scenarios, tmp_path):
    out = tmp_path / "out"
    assert run(app, ["flow", "DIES", "--out", str(out)]).exit_code == 1
    names = {path.name for path in out.iterdir()}
    assert names == {"README.md", "flow.json", "DIES.sqlite.md", "DIES.checklist.md"}
    assert "- [x] **first** (packet-1): yes" in (out / "DIES.checklist.md").read_text()
    assert "- [ ] **second** (packet-1): yes" in (out / "DIES.checklist.md").read_text()
    assert "died at second" in (out / "README.md").read_text()
    assert json.loads((out / "flow.json").read_text())[0]["findings"][1]["passed"] is False


def test_rows_are_compared_as_a_reader_would():
    assert exactly(("S1", 0.1 + 0.2)).holds([("S1", 0.3)])
    assert not exactly(("S1", 0.3)).holds([("S1", None)])
    assert not exactly("a", "b").holds([("b",), ("a",)])
