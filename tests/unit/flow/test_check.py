"""What a scenario finds: every stage is asked in words, and the first wrong answer is where the packet died."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sqlalchemy import text

from edgebook.adapters.database import open_engine, parse_address
from edgebook.domain.errors import InputError
from edgebook.flow import campaign, check
from edgebook.flow.book import Book
from edgebook.flow.campaign import run_scenario
from edgebook.flow.check import (
    SHOWN,
    Flow,
    PacketDiedError,
    Scenario,
    every,
    exactly,
    none,
    required,
    rows,
    scenario,
    some,
    that,
)
from edgebook.flow.databases import Files
from edgebook.flow.running import SystemDiedError


@pytest.fixture
def flow(sqlite_url, tmp_path):
    """A scenario that looks at a database with three facts in it."""
    engine = open_engine(parse_address(sqlite_url), read_only=False)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM meta"))
        for i, name in enumerate(("a", "b", "c")):
            row = f"INSERT INTO meta (key, row_no, value, content) VALUES ('{name}', {i}, '{i * 1.5}', '{{}}')"
            connection.execute(text(row))
    engine.dispose()
    found = Flow(lambda: sqlite_url, tmp_path)
    found.book = Book(sqlite_url)
    return found


# ---------------------------------------------------------------- expectations


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        (rows(2), [(1,), (2,)], [(1,)]),
        (some(), [(1,)], []),
        (some(2), [(1,), (2,), (3,)], [(1,)]),
        (none(), [], [(None,)]),
        (exactly("S1", "S2"), [("S1",), ("S2",)], [("S2",), ("S1",)]),
        (exactly(("a", 1)), [("a", 1)], [("a", 1), ("a", 1)]),
        (exactly(0.3), [(0.1 + 0.2,)], [(0.30001,)]),
        (exactly(0.5), [(Decimal("0.5"),)], [(None,)]),
        (exactly(3), [(3,)], [(3, 4)]),
        (exactly(), [], [(1,)]),
        (every("positive", lambda n: n > 0), [(1,), (2,)], [(1,), (0,)]),
        (every("positive", lambda n: n > 0, least=2), [(1,), (2,)], [(1,)]),
        (that("two kinds", lambda found: len({k for (k,) in found}) == 2), [("a",), ("b",)], [("a",), ("a",)]),
    ],
)
def test_an_expectation_holds_for_what_it_says_and_for_nothing_else(expected, right, wrong):
    """And says in words what it wants."""
    assert expected.holds(right)
    assert not expected.holds(wrong)
    assert expected.words


def test_every_is_never_true_of_no_rows():
    """A check without an answer shows nothing."""
    assert not every("anything", lambda *_: True).holds([])


# ---------------------------------------------------------------- asking


def test_a_right_answer_is_kept_with_its_query_as_it_can_be_typed(flow):
    """The rows come back to the scenario."""
    flow.about("p-1")
    found = flow.check("facts", "SELECT value FROM meta WHERE key = :key", exactly("1.5"), key="b")

    (kept,) = flow.findings
    assert found == [("1.5",)]
    assert (kept.stage, kept.packet, kept.passed, kept.told) == ("facts", "p-1", True, "1.5")
    assert kept.query == "SELECT value FROM meta WHERE key = 'b'"


def test_a_wrong_answer_says_packet_stage_expectation_answer_and_query(flow):
    """One sentence; nothing is asked after it."""
    flow.about("p-1")
    with pytest.raises(PacketDiedError) as death:
        flow.check("facts", "SELECT key FROM meta ORDER BY key", exactly("a", "b"))

    assert str(death.value) == (
        "packet p-1 died at stage facts: expected a; b, found 3 rows: a; b; c: SELECT key FROM meta ORDER BY key"
    )
    assert [finding.passed for finding in flow.findings] == [False]


def test_a_query_that_cannot_be_answered_is_a_death_at_its_own_stage(flow):
    """A table that is not there is an answer, too."""
    with pytest.raises(PacketDiedError, match=r"died at stage facts: expected no row, .*no such table.*FROM nowhere"):
        flow.check("facts", "SELECT key FROM nowhere", none())
    assert [(finding.stage, finding.passed) for finding in flow.findings] == [("facts", False)]


@pytest.mark.parametrize(
    "test", [lambda f: f[9][0] > 0, lambda f: f[0][0] + 1, lambda f: int(f[0][0]), lambda f: 1 / 0]
)
def test_an_answer_that_cannot_be_tested_is_a_wrong_answer(flow, test):
    """Too short, of another kind: the packet died there, the campaign did not."""
    with pytest.raises(PacketDiedError, match="died at stage facts"):
        flow.check("facts", "SELECT key FROM meta", that("testable", test))


def test_a_long_answer_is_counted_whole_and_kept_in_part(flow):
    """Transcripts stay readable."""
    wide = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(SHOWN + 3))
    flow.check("wide", wide, rows(SHOWN + 3))

    assert len(flow.findings[0].found) == SHOWN
    assert flow.findings[0].told.startswith(f"{SHOWN + 3} rows: 0; 1;")
    assert flow.findings[0].told.endswith(" ...")


def test_a_note_is_a_stage_seen_otherwise_than_by_a_query(flow):
    """An exit code, an answer of the ingress."""
    flow.note("verify", "edgebook verify", "exit code 0", True, "0")
    with pytest.raises(
        PacketDiedError, match=r"packet - died at stage verify: expected exit code 0, found 1: edgebook"
    ):
        flow.note("verify", "edgebook verify", "exit code 0", False, "1")
    assert [finding.passed for finding in flow.findings] == [True, False]


def test_a_signal_that_is_not_in_the_log_has_no_strand(flow):
    """ "" and not an error: the next check says where it died."""
    assert flow.strand_of("nobody") == ""


def test_what_was_seen_to_move_is_kept_as_numbers(flow):
    """Strand ids and values before and after."""
    flow.saw("ts_min", ("id-1", Decimal("0.6")), ("id-2", 0.58), "loosened")

    assert [(m.before_id, m.before, m.after_id, m.after, m.why) for m in flow.moved] == [
        ("id-1", 0.6, "id-2", 0.58, "loosened")
    ]


# ---------------------------------------------------------------- scenarios


def test_scenarios_are_found_by_name_in_any_case_and_all_without_one():
    """A name that is not there is a KeyError."""
    known = {name: Scenario(name, name, lambda flow: None) for name in ("F0", "F1")}

    assert [one.name for one in required(known, ["f1"])] == ["F1"]
    assert [one.name for one in required(known, [])] == ["F0", "F1"]
    with pytest.raises(KeyError, match="F9"):
        required(known, ["F9"])
    with pytest.raises(InputError, match=r"no scenario 'nosuch'; there are F0, F1, "):
        campaign.chosen_scenarios(["nosuch"])


def test_a_name_is_given_to_one_scenario_only(monkeypatch):
    """Two under one name would hide each other."""
    monkeypatch.setattr(check, "SCENARIOS", {})
    scenario("X", "first")(lambda flow: None)
    with pytest.raises(AssertionError, match="X is there twice"):
        scenario("X", "second")(lambda flow: None)


def _ran(run, folder):
    return run_scenario(Scenario("X", "planted", run), Files(folder))


def test_a_scenario_that_asks_nothing_has_not_arrived(tmp_path):
    """A check without an assertion counts as failed."""
    found = _ran(lambda flow: None, tmp_path)

    assert (found.verdict, found.died_at) == ("died", "scenario")
    assert found.why == "X asked nothing, so it has shown nothing"


def test_a_scenario_whose_notes_hold_has_arrived(tmp_path):
    """With its last stage."""
    found = _ran(lambda flow: flow.note("here", "a look", "a thing", True, "it"), tmp_path)

    assert (found.verdict, found.died_at, found.last_stage, found.why) == ("arrived", "", "here", "")


@pytest.mark.parametrize(
    ("error", "stage"),
    [
        (PacketDiedError("ledger", "p", "no money"), "ledger"),
        (SystemDiedError("it ended with code 3"), "system"),
        (InputError("the story is wrong"), "scenario"),
    ],
)
def test_whatever_ends_a_scenario_names_a_stage(tmp_path, error, stage):
    """The system's death is told from the scenario's own mistake."""

    def run(flow):
        flow.note("before", "a look", "a thing", True, "it")
        raise error

    found = _ran(run, tmp_path)

    assert (found.verdict, found.died_at, found.last_stage) == ("died", stage, "before")
    assert f"died at stage {stage}" in found.why
