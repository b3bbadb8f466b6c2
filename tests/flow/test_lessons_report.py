"""``edgebook lessons --report`` on a real small run: its facts and its page say what the database says."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from xml.etree import ElementTree

import pytest

from edgebook.cli import main
from edgebook.domain.decay import DAY
from edgebook.domain.scope import contains
from edgebook.runtime.lesson_views import database_facts
from edgebook.runtime.report.lessons import page

LISTS = {"dm": "alloc_overrides", "strength": "pattern_strength_overrides", "tuning": "pattern_overrides"}


@pytest.fixture(scope="module")
def told(flow):
    """The facts of the run."""
    with flow.store.reader() as uow:
        return database_facts(uow, flow.url)


@pytest.fixture
def uow(flow):
    """A reader of the run."""
    with flow.store.reader() as reading:
        yield reading


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs a command line; returns (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgebook", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_every_lesson_is_told_with_its_numbers(told, uow):
    """Status, effect, counts and levers are those of the row."""
    stored = {lesson.id: lesson for lesson in uow.lessons.values()}

    assert told["lessons"].keys() == stored.keys()
    assert any(row["standing"] in ("finding", "acts") for row in told["lessons"].values())
    for ident, row in told["lessons"].items():
        lesson = stored[ident]
        assert (row["status"], row["reason"], row["scope"]) == (
            lesson.status,
            lesson.reason,
            dict(lesson.scope_values),
        )
        assert row["n"] == lesson.stats["n"]
        if row["se"] is not None:
            assert row["effect"] == lesson.stats["effect"]


def test_what_is_in_force_is_what_the_configs_say(told, uow):
    """By lesson id, in the lists of both documents."""
    documents = {row.module_id: row.config_data for row in uow.configs.values()}
    listed = {
        item["lesson"]["id"] for row in documents.values() for name in LISTS.values() for item in row.get(name, ())
    }

    assert listed
    assert {row["id"] for row in told["lessons"].values() if row["in_force"]} == listed


def test_the_head_counts_the_database(told, uow):
    """Trades, families with a lever, silent ones, version."""
    fits = [fit for fit in uow.fits.values() if fit.detail.get("reason", "no_lever") != "no_lever"]

    assert told["head"]["trades"] == len(uow.trades)
    assert told["head"]["families"] == len(fits)
    assert told["head"]["silent_families"] == sum(not fit.acts for fit in fits)
    assert told["head"]["config_version"] == max(row.config_version for row in uow.configs.values())
    assert sum(told["head"]["standing"].values()) == len(uow.lessons)


def test_histories_end_where_the_observations_do(told, uow):
    """The last day of a lesson's history has all its trades, and their mean."""
    checked = 0
    for row in told["lessons"].values():
        if row["history"] is None:
            continue
        mine = [o for o in uow.observations.values(row["family"] + "|") if contains(o.scope, row["scope"])]
        assert row["history"]["n"][-1] == len(mine)
        assert row["history"]["mean"][-1] == pytest.approx(math.fsum(o.y for o in mine) / len(mine))
        assert len(row["history"]["day"]) == len({o.ts // DAY for o in mine})
        checked += 1
    assert checked > 5


def test_nudges_are_counted_from_the_log(told, uow):
    """Per channel, and what fills would have been without them."""
    sized = {"size_mult", "entry_aggression_mult", "exit_aggression_mult"}
    fills, moved, nudged = Counter(), [], Counter()
    for strand in uow.log.read(0, ["order_filled"]):
        fills[strand.payload.action_id] += float(strand.payload.quantity) * strand.payload.price
    for strand in uow.log.read(0, ["pm_action"]):
        made = strand.payload
        if any(n.lever in sized and n.applied != n.base for n in made.nudges):
            nudged["strength"] += 1
            moved.append(fills[strand.id] * (made.size_frac - made.base_size_frac) / made.size_frac)
        nudged["tuning"] += any(n.lever not in sized and n.applied != n.base for n in made.nudges)
    for strand in uow.log.read(0, ["decision_lowcap"]):
        nudged["dm"] += strand.payload.action == "approve" and strand.payload.alloc_mult != 1.0

    channels = {row["channel"]: row for row in told["channels"]}
    assert sum(nudged.values()) > 10
    assert {name: row["nudged"] for name, row in channels.items()} == {n: nudged[n] for n in LISTS}
    assert channels["strength"]["moved_usd"] == pytest.approx(math.fsum(moved))
    assert channels["strength"]["turned_usd"] == pytest.approx(math.fsum(map(abs, moved)))


def test_lessons_answer_for_what_their_channel_moved(told):
    """None of it is made up: parts do not add up to more than the channel turned over, counts not above its own."""
    for channel in told["channels"]:
        rows = [r for r in told["lessons"].values() if r["channel"] == channel["channel"]]
        assert all(row["moved"]["nudged"] <= channel["nudged"] for row in rows)
        assert abs(sum(row["moved"]["moved_usd"] for row in rows)) <= channel["turned_usd"] + 1e-6


def test_arms_are_those_of_the_trades(told, uow):
    """Capital-weighted rr of trades opened since the channel first had an override, in and out of the holdout."""
    decided = {s.id: s.arm for s in uow.log.read(0, ["decision_lowcap"])}
    since = {}
    for version in uow.config_versions.values():
        for channel, name in LISTS.items():
            if (version.dm if channel == "dm" else version.pm).get(name):
                since.setdefault(channel, version.in_force_from)
    for row in told["channels"]:
        channel = row["channel"]
        arms = {True: [0.0, 0.0, 0], False: [0.0, 0.0, 0]}
        for strand in uow.log.read(0, ["position_closed"]):
            made = strand.payload.summary
            if channel not in since or made.entry_ts < since[channel]:
                continue
            arm = decided[strand.payload.decision_id] if channel == "dm" else strand.arm
            sums = arms[channel in arm.split(",")]
            sums[0] += float(made.invested_usd) * made.rr
            sums[1] += float(made.invested_usd)
            sums[2] += 1
        found = row["uplift"]
        assert (found["trades"], found["holdout_trades"]) == (arms[False][2], arms[True][2])
        for held, name in ((False, "nudged"), (True, "holdout")):
            if arms[held][2]:
                assert found["rr"][name] == pytest.approx(arms[held][0] / arms[held][1])


def test_the_page_shows_the_rows_of_the_database(told, uow):
    """Well-formed, with every acting lesson's effect as stored."""
    shown = {
        row.get("data-id"): row
        for row in ElementTree.fromstring(page(told).partition("\n")[2]).iter("details")
        if row.get("data-id")
    }
    acting = [row for row in told["lessons"].values() if row["standing"] in ("finding", "acts")]

    assert acting
    for row in acting:
        assert float(shown[row["id"]].get("data-effect")) == (row["effect"] or 0.0)
        assert uow.lessons.get(row["id"]).stats.get("effect", 0.0) == (row["effect"] or 0.0)


def test_the_command_writes_the_page_and_says_what_was_learnt(flow, told, cli, tmp_path):
    """One sentence; with --json all the facts, with --type only some."""
    code, out, err = cli("lessons", "--db", flow.url, "--report", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert told["head"]["sentence"] in out
    assert (tmp_path / "page.html").read_text() == page(told)

    code, out, _ = cli("lessons", "--db", flow.url, "--report", tmp_path / "page.html", "--json", "--type", "dm_alloc")
    found = json.loads(out)
    assert code == 0
    assert {row["type"] for row in found["lessons"].values()} == {"dm_alloc"}
    assert {family["type"] for family in found["families"]} == {"dm_alloc"}


def test_a_page_in_no_folder_ends_with_one_line(flow, cli, tmp_path):
    """Exit code 2; so does a type that is none."""
    code, _, err = cli("lessons", "--db", flow.url, "--report", tmp_path / "nowhere" / "page.html")
    assert code == 2
    assert "give a file in a folder that can be written to" in err

    code, _, err = cli("lessons", "--db", flow.url, "--report", tmp_path / "page.html", "--type", "dm")
    assert code == 2
    assert "--type must be one of dm_alloc, pm_strength, pm_tuning, was 'dm'" in err
