"""Killed anywhere, restarted: the same log and the same tables as the run that was never killed (P12)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.flow import world

from edgebook.adapters.log import verify
from edgebook.adapters.sql import SqlStore
from edgebook.domain.decay import DAY
from edgebook.runtime.bootstrap import trading_rules
from edgebook.runtime.replay import rebuild
from edgebook.runtime.scheduler import run_simulated

VICTIM = Path(__file__).parent / "victim.py"


def victim(url, *, commit_every=20, **env):
    """The walking system in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(VICTIM), url, "2.0", str(commit_every)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


def check(url, expected):
    """Log, tables, chain and refolded projections are those of the run that was never killed."""
    with SqlStore(url).reader() as uow:
        assert uow.log.head[1] == expected.head
        found = world.facts(uow)
        for name, rows in found.items():
            if name != "watermarks":
                assert rows == expected.facts[name], name
        assert rebuild(uow, trading_rules(world.settings_for(url), ["1m"]), world.EAGER).differences == ()
    assert verify(SqlStore(url)).problems == ()


def test_killed_with_signal_9_twice_it_arrives_at_the_same_head(short_run, tmp_path):
    """SIGKILL soon and late; each restart goes on where the last commit was."""
    url = f"sqlite:///{tmp_path}/book.db"
    for lines in (2, 25):
        process = victim(url)
        for _ in range(lines):
            said = process.stdout.readline()
            if not said or said.startswith("head") or int(said) > short_run.seq * 0.95:
                break
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    last = victim(url)
    out, _ = last.communicate(timeout=120)

    assert last.returncode == 0
    assert out.splitlines()[-1] == f"head {short_run.head}"
    check(url, short_run)


class _PowerCutError(Exception):
    """The machine is gone: nothing after this is done."""


@pytest.mark.parametrize("every", [1, 60])
def test_cut_off_at_many_moments_without_a_commit_it_arrives_at_the_same_head(short_run, tmp_path, every):
    """Whatever was not committed is lost and walked again, equal: seven cuts, committing each strand or seldom."""
    url = f"sqlite:///{tmp_path}/book.db"
    settings = world.settings_for(url, commit_every_strands=every)
    for days in (0.2, 0.21, 0.6, 0.9, 1.3, 1.6, 1.95):

        def cut(system, now, days=days):
            if now >= system.tape.start + int(days * DAY):
                raise _PowerCutError
            return True

        with pytest.raises(_PowerCutError), world.opened(SqlStore(url), settings, world.sim_feed()) as system:
            run_simulated(system, system.tape.start + 2 * DAY, cut)
    world.run_days(SqlStore(url), 2.0, settings=settings)

    check(url, short_run)


def test_hash_seeds_do_not_matter(short_run, tmp_path):
    """The order of Python's sets and dicts of text is nowhere in the log."""
    process = victim(f"sqlite:///{tmp_path}/book.db", commit_every=4_000, PYTHONHASHSEED="4711")
    out, _ = process.communicate(timeout=120)

    assert out.splitlines()[-1] == f"head {short_run.head}"
