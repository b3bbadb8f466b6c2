"""The flow campaign names what is broken: a few faults here, all of them with ``python -m tools.flow_mutants``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tools import flow_mutants
from tools.flow_mutants import FAULTS, check, chosen, command_of, judged, table
from tools.wiring_faults import Fault

from edgebook.flow.campaign import Outcome, chosen_scenarios

CHEAP = ("aggregator_unscheduled", "closing_action_missing", "module_label_dropped", "curator_not_passed_on")


def outcome(died_at="", why=""):
    """What became of a scenario."""
    verdict = "died" if died_at else "arrived"
    return Outcome("F1", "one", "sqlite", ["p"], "ingest", verdict, died_at, why, 1.0)


def planted(**change):
    """A fault that breaks nothing."""
    given = {"name": "none", "broken": "nothing", "stages": frozenset({"DM"}), "scenarios": ("F0",)}
    return Fault(**given | {"put_in": lambda: None} | change)


# ---------------------------------------------------------------- the check itself


@pytest.mark.slow
def test_cheap_faults_are_named_rightly_and_without_a_fault_everything_arrives():
    """The real system, started with one place broken."""
    control, verdicts = check([FAULTS[name] for name in CHEAP])

    assert {one.scenario: one.verdict for one in control} == {"F0": "arrived", "F1": "arrived", "F3": "arrived"}
    assert [one.fault for one in verdicts] == list(CHEAP)
    wrong = [f"{one.fault}: {one.sentence}" for one in verdicts if not one.right]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_a_fault_that_breaks_nothing_survives(monkeypatch, capsys):
    """The check can fail: exit code 1, and the table says so."""
    monkeypatch.setattr(flow_mutants, "FAULTS", {"none": planted()})
    monkeypatch.setattr(flow_mutants, "command_of", lambda fault: (sys.executable, "-m", "edgebook"))
    monkeypatch.setattr(flow_mutants, "chosen", lambda names: [planted()])

    with pytest.raises(SystemExit) as end:
        flow_mutants.main(["--json"])

    found = json.loads(capsys.readouterr().out)
    assert end.value.code == 1
    assert [(one["fault"], one["right"], one["named"]) for one in found["faults"]] == [("none", False, "")]
    assert [one["verdict"] for one in found["control"]] == ["arrived"]


@pytest.mark.slow
def test_every_fault_finds_the_place_it_breaks():
    """All of them in one process, which is then thrown away: a place that was renamed is an error."""
    code = "import tools.flow_mutants as m\nfor one in m.FAULTS.values():\n    one.put_in()\nprint(len(m.FAULTS))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=flow_mutants.REPO, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(FAULTS) >= 32


def test_every_fault_says_what_it_breaks_and_who_must_notice():
    """In one sentence of its own; its scenarios are there."""
    known = {one.name for one in chosen_scenarios(())}
    sentences = [one.broken for one in FAULTS.values()]

    assert len(set(sentences)) == len(sentences)
    for one in FAULTS.values():
        assert one.broken, one.name
        assert one.put_in.__doc__, one.name
        assert 1 <= len(one.stages) <= 2, one.name
        assert one.scenarios, one.name
        assert set(one.scenarios) <= known, one.name


# ---------------------------------------------------------------- what is right


@pytest.mark.parametrize(
    ("died_at", "why", "says", "right", "word"),
    [
        ("DM", "packet p died at stage DM: no decision", "", True, "right"),
        ("DM", "packet p died at stage DM: no decision", "no decision", True, "right"),
        ("DM", "packet p died at stage DM: no decision", "scope", False, "WRONG"),
        ("ledger", "packet p died at stage ledger", "", False, "WRONG"),
        ("", "", "", False, "SURVIVED"),
    ],
)
def test_only_the_expected_stage_is_right(died_at, why, says, right, word):
    """And its sentence must hold what the fault asks for."""
    found = judged(planted(says=says), outcome(died_at, why))

    assert (found.right, found.cells[5]) == (right, word)
    assert found.sentence == (why or "everything arrived")


def test_the_table_has_a_row_per_fault_and_says_how_the_control_went():
    """Every cell on one line, long sentences shortened in the middle, no folder of this machine."""
    long = "packet p died at stage DM: sqlite:////tmp/here/book.db " + "x" * 900 + " SELECT a | b\nFROM c"
    text = table([outcome()], [judged(planted(), outcome("DM", long)), judged(planted(), outcome())])
    rows = [line for line in text.splitlines() if line.startswith("| none")]

    assert "1 of 2 named rightly" in text
    assert "- F1: arrived" in text
    assert len(rows) == 2
    assert all(len(row.replace("\\|", "/").strip("| ").split(" | ")) == len(flow_mutants.HEAD) for row in rows)
    assert all(len(row) < 600 for row in rows)
    assert "sqlite:book.db" in rows[0]


def test_faults_are_chosen_by_name_and_all_without_names():
    """A name that is not there is told with those that are."""
    assert [one.name for one in chosen(CHEAP)] == list(CHEAP)
    assert len(chosen([])) == len(FAULTS)
    with pytest.raises(SystemExit, match="no fault 'nosuch'; there are job_missing, "):
        chosen(["nosuch"])


def test_a_fault_is_started_by_the_command_line_of_edgebook():
    """Whatever a scenario asks of the command, the broken system answers."""
    command = [*command_of(FAULTS["closing_action_missing"]), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().count(".") == 2
