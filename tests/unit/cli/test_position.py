"""``edgebook position``: what it posts, what it prints, and what it refuses in one line."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager

import pytest

from edgebook.runtime import ingress

URL = "sqlite:///edgebook.db"


@pytest.fixture
def position(cli):
    """Runs ``edgebook position``."""
    return lambda *arguments: cli("position", *arguments)


@contextmanager
def answering(**answer):
    """A running system that answers every wish so; yields what it was asked for."""
    asked = []
    with ingress.listening(URL, 0) as (inbox, _):

        def listen():
            while (move := inbox.get()) is not None:
                asked.append((move.wish, move.position_id))
                for name, value in answer.items():
                    setattr(move, name, value)
                move.done.set()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield asked
        finally:
            inbox.put(None)
            thread.join(10)


@pytest.mark.parametrize("wish", ["pause", "resume", "archive"])
def test_a_wish_reaches_the_running_system_and_its_answer_is_printed(position, wish):
    """One line for people; JSON on request."""
    with answering(changed=True, status="paused") as asked:
        assert position(wish, "p-1") == (0, "position p-1: paused\n", "")
        code, out, _ = position(wish, "p-1", "--json")
    assert asked == [(wish, "p-1")] * 2
    assert (code, json.loads(out)) == (0, {"position": "p-1", "changed": True, "status": "paused"})


def test_what_was_so_already_is_said(position):
    """No error: it stands as wished."""
    with answering(changed=False, status="archived"):
        assert position("archive", "p-1") == (0, "position p-1: archived (it was so already)\n", "")


def test_refusals_are_one_line_and_exit_2(position):
    """No system, no such wish, and a reason of the system's own."""
    code, out, err = position("pause", "p-1")
    assert (code, out) == (2, "")
    assert "no running system" in err
    with answering(refused="position p-1 has a trade open") as asked:
        code, out, err = position("archive", "p-1")
        assert (code, out) == (2, "")
        assert "has a trade open" in err
        code, _, err = position("sell", "p-1")
        assert code == 2
        assert "position takes pause, resume, archive" in err
    assert asked == [("archive", "p-1")]
