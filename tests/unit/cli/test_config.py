"""``edgebook config``: what it prints of versions, does at rest, posts, and refuses in one line."""

from __future__ import annotations

import getpass
import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import pytest
from tests import lessons as samples
from tests.lessons import NOW

from edgebook import jobs
from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.adapters.sql import SqlStore
from edgebook.desk import Desk
from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import Watermark
from edgebook.learning.config import LearningConfig
from edgebook.ports import MarketReader
from edgebook.runtime import ingress
from edgebook.trading.rules import TradingRules

URL = "sqlite:///edgebook.db"
DM, SIZE = replace(samples.DM, id="dm-lesson"), replace(samples.SIZE, id="pm-lesson")


@pytest.fixture
def config(cli):
    """Runs ``edgebook config`` in a directory with a book of two versions: DM alone, then both, DM weaker."""
    with SqlStore(URL).writer() as uow:
        desk = Desk(uow, cast(MarketReader, None), PaperBroker(), {}, TradingRules(), LearningConfig())
        weaker = replace(DM, effect={"capital_levers": {"alloc_mult": 1.1}}, evidence_at=NOW, lesson_version=2)
        for number, lessons in enumerate(([DM], [weaker, SIZE])):
            for lesson in lessons:
                uow.lessons.put(lesson)
            jobs.run_materializer(desk, NOW + number * HOUR)
        uow.watermarks.put(Watermark("clock", uow.log.head[0], NOW + HOUR))
        uow.commit()
    return lambda *arguments: cli("config", *arguments)


@contextmanager
def answering(**answer):
    """A running system that answers every act so; yields what it was asked for."""
    asked = []
    with ingress.listening(URL, 0) as (inbox, _):

        def listen():
            while (act := inbox.get()) is not None:
                asked.append((act.act, act.target, act.who, act.why))
                for name, value in answer.items():
                    setattr(act, name, value)
                act.done.set()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield asked
        finally:
            inbox.put(None)
            thread.join(10)


@pytest.mark.parametrize("words", ["[/bold] x", "[low]", "[red]noise[/red]", ":bell: [link=x]y"])
def test_words_of_an_operator_are_printed_as_they_are(config, words):
    """What looks like markup is neither obeyed, nor swallowed, nor an error."""
    assert config("mute", "pm", "--who", "[/ann]", "--why", words)[0] == 0

    code, out, err = config("history")

    assert (code, err) == (0, "")
    assert words in out
    assert "[/ann]" in out


def test_history_lists_versions_the_newest_first(config):
    """Who, when, how many, what changed; an act with its reason."""
    assert config("mute", "pm", "--who", "ann", "--why", "looks like noise")[0] == 0
    code, out, err = config("history", "--json")
    assert (code, err) == (0, "")
    mute, second, first = json.loads(out)
    assert mute == {
        "version": 3,
        "at": "2015-08-19 17:00:00",
        "who": "ann",
        "act": "mute",
        "target": "pm-lesson",
        "why": "looks like noise",
        "overrides": {"dm_alloc": 1, "pm_strength": 1, "pm_tuning": 0},
        "muted": 1,
        "pinned": 0,
        "added": [],
        "removed": [],
        "changed": ["pm-lesson"],
    }
    assert (second["who"], second["added"], second["changed"]) == ("learning_system", ["pm-lesson"], ["dm-lesson"])
    assert (first["version"], first["added"], first["act"]) == (1, ["dm-lesson"], "")
    assert [row["version"] for row in json.loads(config("history", "--limit", "2", "--json")[1])] == [3, 2]

    _, out, _ = config("history")
    lines = out.splitlines()
    assert lines[0].strip() == "3 config versions"
    assert lines[2].split()[:5] == ["3", "2015-08-19", "17:00:00", "ann", "mute"]
    assert lines[2].rstrip().endswith("looks like noise")


def test_diff_shows_levers_before_and_after_with_their_scope(config):
    """Added, removed, changed, and how many are the same; backwards it is the mirror image."""
    found = json.loads(config("diff", "1", "2", "--json")[1])
    assert (found["from"], found["to"], found["removed"], found["unchanged"]) == (1, 2, [], 0)
    (added,), (changed,) = found["added"], found["changed"]
    assert (added["lesson_id"], added["scope"], added["before"]) == ("pm-lesson", {"macro_phase": "Good"}, None)
    assert added["after"] == {"size_mult": 0.9}
    assert (changed["before"], changed["after"]) == ({"alloc_mult": 1.2}, {"alloc_mult": 1.1})
    assert changed["what"] == ["levers", "evidence"]

    _, out, _ = config("diff", "2", "1")
    assert "config version 2 to 1: 0 added, 1 removed, 1 changed, 0 the same" in out
    assert "curator=early" in out
    assert "size_mult 0.9 (candidate)" in out


def test_acts_at_rest_are_done_told_and_listed(config, cli):
    """One line each; done again it says so; the overrides show what is muted and pinned."""
    assert config("mute", "dm-lesson") == (
        0,
        "lesson dm-lesson does not act any more; config version 3 is in force\n",
        "",
    )
    _, out, _ = config("mute", "dm")
    assert out == "lesson dm-lesson does not act any more (it was so already); config version 3 is in force\n"
    assert config("pin", "pm", "--who", "ann")[1].startswith(
        "lesson pm-lesson is pinned as it stands; config version 4"
    )
    _, out, _ = cli("overrides")
    assert [line.split()[-2:] for line in out.splitlines()[2:]] == [["dm-lesso", "muted"], ["pm-lesso", "pinned"]]

    assert (
        config("revert", "1", "--json")[1]
        == json.dumps({"act": "revert", "changed": True, "config_version": 5, "target": "1"}, sort_keys=True) + "\n"
    )
    assert config("unmute", "dm")[1].startswith(
        "lesson dm-lesson acts again, at most one step an hour; config version 6"
    )
    assert config("unpin", "pm")[1].startswith("lesson pm-lesson follows learning again; config version 7")
    _, out, _ = config("revert", "1")
    assert out == "the overrides are those of config version 1 (it was so already); config version 7 is in force\n"
    rows = json.loads(config("history", "--json")[1])
    assert [(row["who"], row["act"]) for row in rows[:5]] == [
        (getpass.getuser(), "unpin"),
        (getpass.getuser(), "unmute"),
        (getpass.getuser(), "revert"),
        ("ann", "pin"),
        (getpass.getuser(), "mute"),
    ]


@pytest.mark.parametrize("act", ["mute", "unmute", "pin", "unpin", "revert"])
def test_an_act_reaches_the_running_system(config, act):
    """It is posted, not done beside it; the answer is printed."""
    with answering(changed=True, target="7", version=9) as asked:
        code, out, err = config(act, "7", "--who", "ann", "--why", "so", "--json")
    assert asked == [(act, "7", "ann", "so")]
    assert (code, err) == (0, "")
    assert json.loads(out) == {"act": act, "changed": True, "config_version": 9, "target": "7"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mute", "nobody"), "no lesson 'nobody'; 'edgebook lessons' lists them"),
        (("pin", ""), "no lesson ''"),
        (("revert", "3"), "no config version 3; the newest is 2, and 0 is none learnt"),
        (("diff", "1", "7"), "no config version 7; the newest is 2, and 0 is none learnt"),
        (("mute", "dm-lesson", "--who", ""), "needs a name: give --who"),
        (
            ("mute", "dm-lesson", "--why", "a\nb"),
            "why must be one line of at most 500 printable characters, was 'a\\nb'",
        ),
        (("history", "--db", "sqlite:///missing.db"), "missing.db: there is no such database"),
        (("mute", "a", "--db", "sqlite:///missing.db"), "missing.db: there is no such database"),
    ],
)
def test_refusals_are_one_line_and_exit_2(config, arguments, said):
    """Nothing on standard output, nothing done."""
    code, out, err = config(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert len(json.loads(config("history", "--json")[1])) == 2


def test_a_refusal_of_the_running_system_is_one_line(config):
    """Exit code 2 with its reason."""
    with answering(refused="no lesson 'x'"):
        code, out, err = config("mute", "x")
    assert (code, out) == (2, "")
    assert err == "error: the running system refused it: no lesson 'x'\n"


def test_a_user_without_a_name_is_asked_for_one(config, monkeypatch):
    """An act without a name is no act."""

    def nameless():
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(getpass, "getuser", nameless)
    code, _, err = config("mute", "dm-lesson")
    assert code == 2
    assert err == "error: this user has no name here; give --who\n"
    assert config("mute", "dm-lesson", "--who", "ann")[0] == 0
