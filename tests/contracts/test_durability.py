"""What is committed stays, and nothing else does: killed writers, a crashed server."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.contracts.examples import strand

from edgebook.adapters.log import verify
from edgebook.adapters.sql import SqlStore
from edgebook.domain.errors import PortError
from edgebook.domain.evidence import Watermark

PROGRAM = Path(__file__).with_name("writer_process.py")


@contextmanager
def running_writer(url, size):
    command = [sys.executable, str(PROGRAM), url, str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def writer_after_death(store):
    """The writer, as soon as the server has noticed that the former one is gone."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with store.writer() as uow:
                yield uow
                return
        except PortError as error:
            if "already has a writer" not in error.message or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize(("groups", "delay_ms", "size"), [(1, 0, 1), (2, 3, 1), (3, 1, 40), (2, 7, 400), (5, 11, 40)])
def test_a_killed_writer_leaves_whole_groups(url, groups, delay_ms, size):
    """SIGKILL at any moment: what was acknowledged is there, the last group is there wholly or not, the chain holds."""
    store = SqlStore(url)
    with running_writer(url, size) as process:
        for _ in range(groups):
            acknowledged = int(process.stdout.readline() or pytest.fail(process.stderr.read()))
        time.sleep(delay_ms / 1000)
        process.kill()
        process.wait()
        acknowledged = int((process.stdout.read().split() or [acknowledged])[-1])
    report = verify(store)
    assert report.problems == ()
    assert report.count >= acknowledged
    assert report.count % size == 0
    with store.reader() as uow:
        assert uow.watermarks.get("killed").seq == uow.log.head[0] == report.count
        assert [row.n for row in uow.stats.values()] == list(range(size, report.count + 1, size))
    with writer_after_death(store) as uow:
        assert uow.log.append([strand(report.count + 1)])[0].seq == report.count + 1
        uow.commit()
    assert verify(store).ok


def test_a_reader_in_another_process_sees_whole_groups_while_the_writer_writes(url):
    """Readers work beside the running writer; whenever they look, log, watermark and rows belong together."""
    store = SqlStore(url)
    seen = []
    with running_writer(url, 10) as process:
        process.stdout.readline()
        for _ in range(20):
            with store.reader() as uow:
                head = uow.log.head[0]
                time.sleep(0.002)
                assert uow.watermarks.get("killed").seq == head
                assert len(uow.stats) == head // 10
                assert len(list(uow.log.read(0))) == head
                seen.append(head)
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_the_second_writer_is_told_which_process_is_in_its_way(url):
    """The refusal names the process of the writer that is there, in one line."""
    with running_writer(url, 1) as process:
        process.stdout.readline()
        with pytest.raises(PortError, match=rf"process {process.pid}\b") as caught, SqlStore(url).writer():
            pass
        assert "\n" not in caught.value.message
        if url.startswith("sqlite"):
            assert "PostgreSQL" in caught.value.message


@pytest.mark.postgres
def test_a_server_crash_loses_nothing_committed(pg_server):
    """The server dies as in a power cut: the commit is there, the writer finds out, and must not write on unlocked."""
    store = SqlStore(pg_server.new_database())
    with store.writer() as uow:
        uow.log.append([strand(1), strand(2)])
        uow.watermarks.put(Watermark("a", 2))
        uow.commit()
        pg_server.crash()
        uow.log.append([strand(3)])
        for _ in range(2):
            with pytest.raises(PortError):
                uow.commit()
    assert verify(store).ok
    with store.writer() as uow:
        assert (uow.log.head[0], uow.watermarks.get("a")) == (2, Watermark("a", 2))
