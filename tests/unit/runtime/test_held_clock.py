"""A clock that is held: time passes when the ingress is told to let it, and what is told in between happens then."""

from __future__ import annotations

import json
import os
import queue
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from tests.flow import world

from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import InputError
from edgebook.flow.story import START, Story, iso, signal
from edgebook.runtime import bootstrap, ingress
from edgebook.runtime.ingress import Delivery, Pass, Turn
from edgebook.runtime.scheduler import run_held, run_paced, run_simulated
from edgebook.runtime.settings import load_settings

URL = "sqlite:///held.db"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("EDGEBOOK_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def script(tmp_path):
    """A day of one token with a trade in it."""
    story = Story(1.0)
    tale = story.tale(story.token("AAAUSDT"), "1h", 2)
    tale.state("S1").chance().state("S2", 104).state("S3", 106).calm().state("S0", 108)
    return story.write(tmp_path / "script.jsonl")


@contextmanager
def scripted(script, store):
    """The system on a script, ready to run."""
    settings = load_settings(None, feed=f"script:{script}", db=URL)
    with bootstrap.system(store, settings, bootstrap.open_feed(settings)) as system:
        yield system


def head(store):
    """Length of the log and the hash of its last strand."""
    with store.reader() as uow:
        return uow.log.head


def posted(*asked):
    """An inbox with these in it."""
    inbox = queue.SimpleQueue()
    for one in asked:
        inbox.put(one)
    return inbox


def until_all(*asked):
    """A watch that ends the run once these are done."""
    return lambda *_: not all(one.done.is_set() for one in asked)


# ---------------------------------------------------------------- the clock


def test_no_time_passes_until_it_is_told_to(script):
    """However often the driver looks."""
    looks = []
    with scripted(script, MemoryStore()) as system:
        run_held(system, None, posted(), lambda system, clock: looks.append(clock) or len(looks) < 5)

    assert looks == [START] * 5


def test_time_passes_exactly_as_far_as_it_was_told(script):
    """Twice on the way, and once to a moment between two bars: the last close before it is where the clock stands."""
    asked = [Pass(START + 2 * HOUR), Pass(START + 2 * HOUR), Pass(START + 3 * HOUR + 1)]
    with scripted(script, MemoryStore()) as system:
        run_held(system, None, posted(*asked), until_all(*asked))

    assert [one.clock - START for one in asked] == [2 * HOUR, 2 * HOUR, 3 * HOUR]
    assert not any(one.ended or one.refused for one in asked)


def test_the_past_is_not_walked_again(script):
    """A moment gone by lets no time pass."""
    asked = [Pass(START + 5 * HOUR), Pass(START)]
    with scripted(script, MemoryStore()) as system:
        run_held(system, None, posted(*asked), until_all(*asked))
        assert system.moments_done == 5

    assert [one.clock - START for one in asked] == [5 * HOUR, 5 * HOUR]


def test_at_the_end_of_the_feed_the_run_is_over(script):
    """Whoever asked for more is told so."""
    asked = Pass(START + 9 * DAY)
    with scripted(script, MemoryStore()) as system:
        run_held(system, None, posted(asked))

    assert (asked.clock, asked.ended) == (START + DAY, True)


def test_a_run_that_is_to_end_earlier_ends_there(script):
    """``--until`` is a wall for the clock."""
    asked = Pass(START + 9 * DAY)
    with scripted(script, MemoryStore()) as system:
        run_held(system, START + 4 * HOUR, posted(asked))

    assert (asked.clock, asked.ended) == (START + 4 * HOUR, False)


@pytest.mark.parametrize("paced", [False, True])
def test_a_run_that_is_to_end_between_two_bars_ends_at_the_one_before(script, paced):
    """No bar closes there, and none is waited for."""
    looks = []
    with scripted(script, MemoryStore()) as system:
        end, watch = START + 4 * HOUR + HOUR // 2, lambda *_: looks.append(1) or len(looks) < 200
        if paced:
            run_paced(system, 1e9, end, posted(), watch)
        else:
            run_held(system, end, posted(Pass(START + 9 * DAY)), watch)
        assert system.clock == START + 4 * HOUR
    assert len(looks) < 10


def test_what_is_told_in_between_happens_at_the_time_of_the_clock(script):
    """A packet between two passes is decided at the first one's end; a turn of the kill switch likewise."""
    store = MemoryStore()
    first, said = Pass(START + HOUR), Delivery([signal("s-1", "AAAUSDT")])
    turned, last = Turn("book", True, "ann", "lunch"), Pass(START + 2 * HOUR)
    with scripted(script, store) as system:
        run_held(system, None, posted(first, said, turned, last), until_all(last))

    with store.reader() as uow:
        times = {strand.kind: strand.ts_event - START for strand in uow.log.read(0)}
    assert times["decision_lowcap"] == times["protection_changed"] == HOUR
    assert (said.receipts[0].status, turned.changed) == ("accepted", True)


def test_everything_told_is_committed_before_it_is_answered(script, tmp_path):
    """Who reads the database after an answer finds what it says."""
    url = f"sqlite:///{tmp_path}/book.db"
    seen = []
    said, passed = Delivery([signal("s-1", "AAAUSDT")]), Pass(START + 2 * HOUR)

    class Looking(threading.Event):
        def set(self):
            query = "SELECT count(*) FROM ad_strands WHERE kind = 'decision_lowcap'"
            clock = "SELECT at FROM watermarks WHERE key = 'clock'"
            seen.append((world.ask(tmp_path / "book.db", query)[0][0], world.ask(tmp_path / "book.db", clock)[0][0]))
            super().set()

    said.done, passed.done = Looking(), Looking()
    with scripted(script, SqlStore(url)) as system:
        run_held(system, None, posted(said, passed), until_all(passed))

    assert seen == [(1, START), (1, START + 2 * HOUR)]


# ---------------------------------------------------------------- the same as every other driver


def test_a_held_run_writes_the_log_of_a_simulated_one(script):
    """However time is cut into passes."""
    heads = []
    for cuts in ((24,), (1, 2, 3, 7, 8, 24), range(1, 25)):
        store = MemoryStore()
        asked = [Delivery([signal("s-1", "AAAUSDT")]), *(Pass(START + hour * HOUR) for hour in cuts)]
        with scripted(script, store) as system:
            run_held(system, None, posted(*asked))
        heads.append(head(store))
    store = MemoryStore()
    with scripted(script, store) as system:
        system.take([signal("s-1", "AAAUSDT")])
        run_simulated(system, START + DAY)
    heads.append(head(store))

    assert heads[0][0] >= 20
    assert len(set(heads)) == 1


def test_two_runs_that_are_told_the_same_write_the_same_log(script):
    """Turns and packets included."""

    def run():
        store = MemoryStore()
        asked = [
            Pass(START + HOUR), Delivery([signal("s-1", "AAAUSDT")]), Turn("book", True, "ann", "why"),
            Pass(START + 3 * HOUR), Turn("book", False, "ann", "why"),
            Delivery([signal("s-2", "AAAUSDT", curator="bob")]), Pass(START + DAY),
        ]  # fmt: skip
        with scripted(script, store) as system:
            run_held(system, None, posted(*asked))
        return head(store)

    assert run() == run()


# ---------------------------------------------------------------- POST /clock


@contextmanager
def serving(script, run):
    """A system behind an ingress, driven by ``run(system, inbox, watch)`` in a thread; yields the database's URL."""
    stop, ready, crash = threading.Event(), threading.Event(), []

    def live():
        try:
            with scripted(script, MemoryStore()) as system, ingress.listening(URL, 0) as (inbox, _):
                ready.set()
                run(system, inbox, lambda *_: not stop.is_set())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            crash.append(error)
            ready.set()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert ready.wait(60)
        assert not crash, crash
        yield URL
    finally:
        stop.set()
        thread.join()
    assert not crash, crash


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The address of the ingress is written beside the database: here."""
    monkeypatch.chdir(tmp_path)


def held(system, inbox, watch):
    run_held(system, None, inbox, watch)


def sent(body):
    """What POST /clock answers to a body: status, and the answer."""
    place = json.loads(ingress.address_file(URL).read_text())
    request = urllib.request.Request(
        f"http://127.0.0.1:{place['port']}/clock", body, {"X-Edgebook-Token": place["token"]}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_ingress_lets_time_pass_and_says_how_far(script, here):
    """From outside, as the flow campaign does it."""
    with serving(script, held) as url:
        assert ingress.post_clock(url, START + 2 * HOUR) == START + 2 * HOUR
        assert ingress.post(url, [signal("s-1", "AAAUSDT")])["accepted"] == 1
        assert sent(json.dumps({"until": START + 3 * HOUR}).encode()) == (
            200, {"clock": START + 3 * HOUR, "ended": False},
        )  # fmt: skip


def test_between_two_bars_the_clock_stands_at_the_last_one(script, here):
    """Who asks for a moment inside a bar is not kept waiting for it."""
    with serving(script, held) as url:
        assert ingress.post_clock(url, START + 2 * HOUR + 1) == START + 2 * HOUR
        assert ingress.post_clock(url, START + HOUR) == START + 2 * HOUR


def test_past_the_end_of_the_feed_the_clock_says_where_it_ended(script, here):
    """And the run is over."""
    with serving(script, held) as url:
        assert ingress.post_clock(url, START + 9 * DAY) == START + DAY


@pytest.mark.parametrize(
    "body", [b"{}", b'{"until": "noon"}', b'{"until": true}', b'{"until": 1.5}', b"[1]", b"no json"]
)
def test_a_body_without_a_moment_is_refused_with_what_would_be_right(script, here, body):
    """Status 400; no time passes."""
    with serving(script, held):
        status, answer = sent(body)
        assert (status, sent(json.dumps({"until": START}).encode())[1]["clock"]) == (400, START)
    assert 'POST /clock takes {"until": 1704067200000000}' in answer["error"]


def test_a_clock_that_runs_by_itself_is_not_moved(script, here):
    """A paced system says how it would have to be started."""

    def paced(system, inbox, watch):
        run_paced(system, 1e-6, None, inbox, watch)

    with (
        serving(script, paced) as url,
        pytest.raises(InputError, match="its clock runs by itself; start it with --held"),
    ):
        ingress.post_clock(url, START + HOUR)


def test_where_nothing_runs_no_time_passes(here):
    """The error says how to start one."""
    with pytest.raises(InputError, match="no running system"):
        ingress.post_clock(URL, START + HOUR)


def test_times_of_a_script_are_what_the_clock_counts_in():
    """Microseconds since 1970, UTC."""
    assert iso(START) == "2024-01-01T00:00:00Z"
