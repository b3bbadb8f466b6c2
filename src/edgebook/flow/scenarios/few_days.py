"""A market from which something is learnt within a few days, for scenarios that need overrides and not their story."""

from __future__ import annotations

from typing import Any

from edgebook.domain.decay import DAY, HOUR
from edgebook.flow.check import Flow
from edgebook.flow.running import Running
from edgebook.flow.scenarios.markets import Planted, Truth, planted
from edgebook.flow.story import Story

#: Small tokens win, big ones lose; so do those that ann and bob call.
TRUTH = Truth(
    {("", "S1"): -1.0, ("", "S3"): -1.0},
    classes={"micro": 0.2, "big": -0.2},
    curators={"ann": 0.2, "bob": -0.2, "cay": 0.0},
)
TOKENS = {f"F{i:02d}USDT": ("micro", "mid", "big")[i % 3] for i in range(24)}
#: Settings of a system that lives through it.
SETTINGS: dict[str, Any] = {"timeframes": "1h", "starting_cash_usd": 10_000_000}


def market_of(days: int) -> Planted:
    """So many days of it."""
    return planted(Story(days, history_days=16), 3, TRUTH, TOKENS)


def live(flow: Flow, system: Running, market: Planted, days: int) -> None:
    """Let the days pass; each begins with its packets, and the last packet is what later checks are about."""
    story = market.market.story
    for day in range(days):
        flow.inject(system, *market.calls(day))
        system.pass_until(story.start + (day + 1) * DAY - HOUR)
    flow.about(f"{next(iter(TOKENS)).lower()}-{days - 1}")
