"""Backtest: the JOBS table under a simulated clock over recorded bars, with a report at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebook.domain.errors import InputError
from edgebook.ports import Store, UnitOfWork
from edgebook.runtime import bootstrap
from edgebook.runtime.report import Tally, report
from edgebook.runtime.scheduler import run_simulated
from edgebook.runtime.settings import Settings
from edgebook.runtime.system import System

Progress = Callable[[float], None]
#: A backtest that dies is run again, so it commits in large groups: a row that changes often is written once a group.
GROUP_STRANDS = 20_000


@dataclass(frozen=True, slots=True)
class Span:
    """The part of the bars to walk, microseconds UTC; None means all there is."""

    start: int | None = None
    end: int | None = None


def backtest(
    store: Store, settings: Settings, feed: bootstrap.Feed, span: Span, progress: Progress | None = None
) -> dict[str, Any]:
    """Walk the feed from start to end and report.

    Args:
        progress: called with the share done, about a hundred times.

    Raises:
        InputError: a span without bars, or a database that has already been walked.
    """
    began = time.perf_counter()
    settings = settings.model_copy(update={"commit_every_strands": max(GROUP_STRANDS, settings.commit_every_strands)})
    with bootstrap.system(store, settings, feed, start=span.start, end=span.end, strict=True) as system:
        if system.tape.end is None:
            raise InputError("an endless feed has no backtest; use 'edgebook run --feed sim --until'", stage="backtest")
        if system.clock > system.tape.start:
            raise InputError(
                f"database {settings.db} already holds a run; give another --db, or none for a temporary one",
                stage="backtest",
            )
        if system.tape.end <= system.tape.start:
            raise InputError("no bars between --from and --to", stage="backtest")
        tally = Tally()
        system.desk.listener = tally.add
        run_simulated(system, system.tape.end, _watch(system, progress) if progress else None)
        wall = time.perf_counter() - began
        bars = sum(
            system.tape.bars_count(s, tf, system.clock) for s in system.tape.symbols for tf in system.tape.timeframes
        )
        found = report(system.desk.uow, bars=bars, wall_s=wall, starting_cash=settings.starting_cash_usd, tally=tally)
        return {**found, "dropped_timeframes": list(system.tape.dropped)}


def _watch(system: System, progress: Progress) -> Callable[[System, int], bool]:
    start, end = system.tape.start, system.tape.end or 0
    step = max(1, (end - start) // 100)
    state = {"next": start + step}

    def watch(_: System, now: int) -> bool:
        if now >= state["next"]:
            state["next"] = now + step
            progress((now - start) / (end - start))
        return True

    return watch


def write_files(uow: UnitOfWork, found: dict[str, Any], directory: Path, starting_cash: float) -> list[Path]:
    """Write ``report.json``, ``trades.csv`` and ``equity.png`` into ``directory``; returns what was written."""
    import csv
    import json

    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / name for name in ("report.json", "trades.csv", "equity.png")]
    files[0].write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    trades = sorted(uow.trades.values(), key=lambda t: (t.closed_at, t.trade_id))
    names = (
        "trade_id",
        "symbol",
        "timeframe",
        "curator_id",
        "opened_at",
        "closed_at",
        "invested_usd",
        "pnl_usd",
        "fees_usd",
        "roi",
        "rr",
        "exit_reason",
        "actions",
    )
    with files[1].open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(names)
        writer.writerows([getattr(t, name) for name in names] for t in trades)
    _plot(files[2], [t.closed_at for t in trades], [float(t.pnl_usd) for t in trades], starting_cash)
    return files


def _plot(path: Path, closed: list[int], pnl: list[float], starting_cash: float) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import numpy as np
    from matplotlib.figure import Figure

    equity = starting_cash + np.cumsum(pnl)
    peak = np.maximum.accumulate(np.r_[starting_cash, equity])[1:]
    times = np.array(closed, dtype="datetime64[us]")
    figure = Figure(figsize=(9, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.step(times, equity, where="post", color="#1f5fa8", lw=1.2)
    top.axhline(starting_cash, color="#999", lw=0.7)
    top.set_ylabel("realised equity, USD")
    top.set_title(f"{len(pnl)} closed trades")
    bottom.fill_between(
        times, 100 * (equity / peak - 1) if len(equity) else [], 0, step="post", color="#b5483a", alpha=0.6, lw=0
    )
    bottom.set_ylabel("drawdown, %")
    figure.savefig(path, dpi=120)
