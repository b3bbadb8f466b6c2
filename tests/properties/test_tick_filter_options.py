"""Law: with every optional rule on, ticking only the bars that can mean something gives the same log as ticking every
bar, and a rebuild finds the same rows."""

from __future__ import annotations

from collections import Counter

import pytest

from edgebook import desk as desk_module
from edgebook.adapters.feeds.sim import SimSource
from edgebook.adapters.memory import MemoryStore
from edgebook.domain.decay import DAY
from edgebook.domain.reading import MOVE
from edgebook.domain.strands import PositionClosed
from edgebook.learning.config import LearningConfig
from edgebook.runtime import bootstrap
from edgebook.runtime.market import Tape
from edgebook.runtime.replay import rebuild
from edgebook.runtime.scheduler import run_simulated
from edgebook.runtime.settings import load_settings
from edgebook.trading.terms import CUTS

DAYS = 2
OPTIONS = {
    "episode_block": True,
    "disaster_stop_atr": 3.0,
    "max_bars_in_attempt": 240,
    "emergency_timeout_bars": 20,
}  # fmt: skip


def walk() -> tuple[str, Counter[str], tuple[str, ...]]:
    """Log head, closed trades by reason, and what a rebuild finds different, of a short simulated run."""
    settings = load_settings(timeframes=("1m", "15m"), sim_tokens=4, seed=7, db="sqlite:///unused.db", **OPTIONS)
    sim = SimSource(7, 4)
    feed = bootstrap.Feed(sim, start=sim.start, chunk_days=1)
    store = MemoryStore()
    with bootstrap.system(store, settings, feed, end=sim.start + DAYS * DAY, strict=True) as system:
        run_simulated(system, sim.start + DAYS * DAY)
        rules = system.desk.rules
    with store.reader() as uow:
        payloads = [strand.payload for strand in uow.log.read(0)]
        closed = Counter(p.exit_reason for p in payloads if isinstance(p, PositionClosed))
        return uow.log.head[1], closed, rebuild(uow, rules, LearningConfig()).differences


def test_the_filter_changes_nothing_under_optional_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody whose trade may end on a quiet bar is asleep on it; and all of it follows from the log."""
    filtered = walk()
    head, closed, differences = filtered
    assert differences == ()
    assert all(closed[reason] for reason in (*CUTS, "emergency"))

    def every_bar(self: Tape, timeframe: str, now: int) -> list[tuple[str, int]]:
        return [(symbol, MOVE) for symbol in self.symbols]

    monkeypatch.setattr(Tape, "due", every_bar)
    monkeypatch.setattr(desk_module, "awake", lambda *_: True)
    assert walk()[:2] == (head, closed)
