"""Backtest: the JOBS table under a simulated clock over recorded bars, with a report at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from edgebook.domain.errors import InputError
from edgebook.domain.masking import masked
from edgebook.domain.strands import Strand
from edgebook.ports import Store
from edgebook.runtime import bootstrap
from edgebook.runtime.market import Tape
from edgebook.runtime.report.equity import Journal, daily_equity
from edgebook.runtime.report.files import write_files as write_files
from edgebook.runtime.report.run import Tally, report
from edgebook.runtime.report.trades import trade_report
from edgebook.runtime.scheduler import patient_gc, run_simulated
from edgebook.runtime.settings import MACHINE_FACTS, Settings
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
    opened = bootstrap.system(store, settings, feed, start=span.start, end=span.end, strict=True)
    with patient_gc(), opened as system:
        if system.tape.end is None:
            raise InputError("an endless feed has no backtest; use 'edgebook run --feed sim --until'", stage="backtest")
        if system.clock > system.tape.start:
            raise InputError(
                f"database {masked(settings.db)} already holds a run; give another --db, or none for a temporary one",
                stage="backtest",
            )
        if system.tape.end <= system.tape.start:
            raise InputError("no bars between --from and --to", stage="backtest")
        tally, journal = Tally(), Journal()

        def listen(strand: Strand) -> None:
            tally.add(strand)
            journal.add(strand)

        system.desk.listener = listen
        run_simulated(system, system.tape.end, _watch(system, progress) if progress else None)
        wall = time.perf_counter() - began
        bars = sum(
            system.tape.bars_count(s, tf, system.clock) for s in system.tape.symbols for tf in system.tape.timeframes
        )
        found = report(system.desk.uow, bars=bars, wall_s=wall, starting_cash=settings.starting_cash_usd, tally=tally)
        return {
            **found,
            "dropped_timeframes": list(system.tape.dropped),
            "metrics": _metrics(system, journal, settings),
            "settings": {
                "settings_hash": settings.settings_hash,
                **settings.model_dump(mode="json", exclude=MACHINE_FACTS),
            },
        }


def _metrics(system: System, journal: Journal, settings: Settings) -> dict[str, Any]:
    """The trade report of a finished walk, marked to market on its own tape."""
    tape, end = system.tape, system.clock
    equity = daily_equity(journal, tape.mark, tape.start, end, Decimal(settings.starting_cash_usd))
    trades = list(system.desk.uow.trades.values())
    rng = np.random.default_rng(settings.seed)
    return trade_report(trades, journal, equity, list(_held(tape, end)), rng)


def _held(tape: Tape, end: int) -> Iterator[float]:
    """What each token would have returned, bought at its first price and held to its last, without costs."""
    for symbol in tape.symbols:
        first, last = tape.quote(symbol, tape.start, end), tape.mark(symbol, end)
        if first is not None and last is not None:
            yield last / first.price - 1.0


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
