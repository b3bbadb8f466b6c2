"""What a run did, as one JSON object with the same keys everywhere (decisions: interfaces)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edgebook.domain.book import Trade
from edgebook.domain.levers import GATE_LEVERS, LESSON_TYPES, LEVERS
from edgebook.domain.strands import BuyWindow, DecisionLowcap, EpisodeSummary, Nudge, OrderFilled, PmAction, Strand
from edgebook.ports import UnitOfWork
from edgebook.runtime.views import override_counts

Json = Any
GATES = frozenset(name for names in GATE_LEVERS.values() for name in names)
CONTENT_KINDS = ("decision_lowcap", "pm_action", "order_filled", "uptrend_buy_window", "uptrend_episode_summary")


def report(
    uow: UnitOfWork, *, bars: int, wall_s: float, starting_cash: float, tally: Tally | None = None
) -> dict[str, Json]:
    """Figures of a whole database.

    Args:
        tally: counts over all strands, when somebody kept them while they were written; else the log is read.
        bars: bars walked, over all traded series.
        wall_s: seconds it took.
        starting_cash: USD at the start; drawdown is measured on realised equity from there.
    """
    if tally is None:
        tally = Tally()
        for strand in uow.log.read(0, CONTENT_KINDS):
            tally.add(strand)
    trades = sorted(uow.trades.values(), key=lambda t: (t.closed_at, t.trade_id))
    kinds = uow.log.counts()
    return {
        "bars": bars,
        "bars_per_second": round(bars / wall_s) if wall_s > 0 else None,
        "wall_s": round(wall_s, 2),
        "signals": kinds.get("social_lowcap", 0),
        "decisions": {name: tally.decisions.get(name, 0) for name in ("approve", "reject", "error")},
        "positions": len(uow.positions),
        "actions": {name: tally.actions.get(name, 0) for name in ("entry", "add", "trim", "emergency_exit", "exit")},
        "trades": trade_figures(trades, starting_cash),
        "episodes": {name: dict(sorted(found.items())) for name, found in sorted(tally.episodes.items())},
        "strands": dict(sorted(kinds.items())),
        "stats_rows": dict(sorted(Counter(row.module for row in uow.stats.values()).items())),
        "lessons": _lessons(uow),
        "silent_families": _silent(uow),
        "overrides": override_counts(uow),
        "nudged": dict(tally.nudged),
        "flags_changed": tally.flags_changed,
        "dead_letters": len(uow.dead_letters),
        "log_head": uow.log.head[1],
        "config_version": max((row.config_version for row in uow.configs.values()), default=0),
    }


def trade_figures(trades: Sequence[Trade], starting_cash: float) -> dict[str, Json]:
    """Number, win rate, mean rr, pnl and drawdown of realised equity (a share of its peak)."""
    equity = starting_cash + np.cumsum([0.0, *(float(t.pnl_usd) for t in trades)])
    peak = np.maximum.accumulate(equity)
    n = len(trades)
    return {
        "n": n,
        "win_rate": round(sum(t.pnl_usd > 0 for t in trades) / n, 4) if n else None,
        "avg_rr": round(math.fsum(t.rr for t in trades) / n, 4) if n else None,
        "pnl_usd": round(float(equity[-1] - starting_cash), 2),
        "max_drawdown": round(float(((peak - equity) / peak).max()), 4),
    }


class Tally:
    """Counts over strands, kept while they are written or made by reading the log."""

    def __init__(self) -> None:
        self.decisions: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()
        self.episodes: dict[str, Counter[str]] = {}
        self.nudged: Counter[str] = Counter({"allocations": 0, "sizes": 0, "gates": 0})
        self.flags_changed = 0

    def add(self, strand: Strand) -> None:
        """Count one strand."""
        payload = strand.payload
        if isinstance(payload, DecisionLowcap):
            self.decisions[payload.action] += 1
            self.nudged["allocations"] += payload.action == "approve" and moved(payload.nudges)
        elif isinstance(payload, OrderFilled):
            self.actions[payload.decision_type] += 1
        elif isinstance(payload, PmAction):
            self.nudged["sizes"] += moved(n for n in payload.nudges if n.lever not in GATES)
        elif isinstance(payload, EpisodeSummary):
            self.episodes.setdefault(payload.episode_type, Counter())[payload.outcome] += 1
        elif isinstance(payload, BuyWindow):
            self._window(payload)

    def _window(self, window: BuyWindow) -> None:
        gates = window.thresholds_effective
        if any(abs(value - LEVERS[name].base) > 1e-12 for name, value in gates.items() if name in LEVERS):
            self.nudged["gates"] += 1
            self.flags_changed += sum(s.flag_on != s.flag_base for s in window.samples)


def moved(nudges: Iterable[Nudge]) -> bool:
    """Whether any of these nudges changed its number."""
    return any(abs(n.applied - n.base) > 1e-12 for n in nudges)


def _lessons(uow: UnitOfWork) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in LESSON_TYPES}
    for lesson in uow.lessons.values():
        counts[lesson.lesson_type][lesson.status] += 1
    return {name: dict(sorted(found.items())) for name, found in counts.items()}


def _silent(uow: UnitOfWork) -> dict[str, str]:
    """Families that do not act, each with its reason."""
    return {
        fit.family: _reason(fit.detail, fit.n)
        for fit in sorted(uow.fits.values(), key=lambda f: f.family)
        if not fit.acts
    }


def _reason(detail: Mapping[str, Any], n: int) -> str:
    return str(detail.get("reason") or "no_variance") + f" (n {n})"
