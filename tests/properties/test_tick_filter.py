"""Law: ticking only the bars that can mean something gives the same log as ticking every bar."""

from __future__ import annotations

import pytest

from edgebook import desk as desk_module
from edgebook.adapters.feeds.sim import SimSource
from edgebook.adapters.memory import MemoryStore
from edgebook.domain.decay import DAY
from edgebook.domain.reading import MOVE
from edgebook.runtime import bootstrap
from edgebook.runtime.market import Tape
from edgebook.runtime.scheduler import run_simulated
from edgebook.runtime.settings import load_settings

DAYS = 2


def walk() -> tuple[int, str, int]:
    """Log length, head and closed trades of a short simulated run."""
    settings = load_settings(timeframes=("1m", "15m"), sim_tokens=4, seed=7, db="sqlite:///unused.db")
    sim = SimSource(7, 4)
    feed = bootstrap.Feed(sim, start=sim.start, chunk_days=1)
    with bootstrap.system(MemoryStore(), settings, feed, end=sim.start + DAYS * DAY, strict=True) as system:
        run_simulated(system, sim.start + DAYS * DAY)
        seq, head = system.desk.uow.log.head
        return seq, head, len(system.desk.uow.trades)


def test_the_filter_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every symbol on every bar, nobody asleep: the same strands, in the same order, with the same hashes."""
    filtered = walk()

    def every_bar(self: Tape, timeframe: str, now: int) -> list[tuple[str, int]]:
        return [(symbol, MOVE) for symbol in self.symbols]

    monkeypatch.setattr(Tape, "due", every_bar)
    monkeypatch.setattr(desk_module, "awake", lambda *_: True)
    assert walk() == filtered
    assert filtered[2] > 10
