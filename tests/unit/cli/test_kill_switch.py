"""``edgebook kill-switch``: what it posts, what it prints, and what it refuses in one line."""

from __future__ import annotations

import getpass
import json
import threading
from contextlib import contextmanager

import pytest

from edgebook.runtime import ingress


@pytest.fixture
def switch(cli):
    """Runs ``edgebook kill-switch``."""
    return lambda *arguments: cli("kill-switch", *arguments)


@contextmanager
def answering(url, changed, in_force=()):
    """A listener on ``url`` that answers every turn so; yields the turns it was asked for."""
    asked = []
    with ingress.listening(url, 0) as (inbox, _):

        def answer():
            while (turn := inbox.get()) is not None:
                asked.append((turn.scope, turn.on))
                turn.changed, turn.in_force = changed, in_force
                turn.done.set()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield asked
        finally:
            inbox.put(None)
            thread.join(10)


URL = "sqlite:///edgebook.db"
BOOK = {"reason": "kill_switch", "scope": "book", "since": "2024-01-01 06:00:00", "until": ""}
DAY = {"reason": "daily_loss", "scope": "book", "since": "2024-01-01 06:00:00", "until": "2024-01-02 00:00:00"}


def test_without_a_running_system_it_says_so_in_one_line(switch):
    """Exit code 2, nothing on stdout."""
    code, out, err = switch("on")

    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "no running system" in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("maybe",), "kill-switch takes on or off, was 'maybe'"),
        (("on", "--channel", "sizes"), "channel 'sizes' is none of dm, strength, tuning"),
    ],
)
def test_what_it_does_not_know_is_refused_in_one_line(switch, arguments, named):
    """Exit code 2 before anything is posted."""
    with answering(URL, True) as asked:
        code, out, err = switch(*arguments)

    assert (code, out, asked) == (2, "", [])
    assert named in err
    assert len(err.strip().splitlines()) == 1


def test_on_and_off_are_posted_and_told(switch):
    """The scope of the book; what is in force still is named, with its end."""
    with answering(URL, True, (BOOK,)) as asked:
        code, out, err = switch("on")
        assert (code, err, asked) == (0, "", [("book", True)])
    assert out.splitlines() == [
        "kill switch on: no new buys; exits, trims and emergency exits go on",
        "in force: kill_switch for book since 2024-01-01 06:00:00, until lifted",
    ]

    with answering(URL, True, (DAY,)) as asked:
        code, out, _ = switch("off")
        assert (code, asked) == (0, [("book", False)])
    assert out.splitlines() == [
        "kill switch off: it no longer stops buys",
        "in force: daily_loss for book since 2024-01-01 06:00:00, until 2024-01-02 00:00:00",
    ]


def test_a_channel_has_its_own_scope(switch):
    """Its overrides are neutral; turned again it says that it was so already."""
    with answering(URL, False) as asked:
        code, out, _ = switch("on", "--channel", "tuning")
        assert (code, asked) == (0, [("channel|tuning", True)])
    assert out == "kill switch on for channel tuning: its overrides are neutral (it was so already)\n"


def test_who_and_why_are_posted_with_it(switch):
    """The name given, else the user's; the strand keeps both."""
    told = []
    with ingress.listening(URL, 0) as (inbox, _):

        def answer():
            while (turn := inbox.get()) is not None:
                told.append((turn.who, turn.why))
                turn.done.set()

        thread = threading.Thread(target=answer)
        thread.start()
        assert switch("on", "--who", "ann", "--why", "venue is down")[0] == 0
        assert switch("on")[0] == 0
        code, _, err = switch("on", "--why", "a\nb")
        inbox.put(None)
        thread.join(10)

    assert told == [("ann", "venue is down"), (getpass.getuser(), "")]
    assert code == 2
    assert "why must be one line" in err


def test_json_has_the_same_facts(switch):
    """One object: state, channel, whether it changed, what is in force."""
    with answering(URL, True, (BOOK,)):
        code, out, _ = switch("on", "--json")

    assert code == 0
    assert json.loads(out) == {"kill_switch": "on", "channel": "", "changed": True, "in_force": [BOOK]}
