"""Does anything look ahead, and how long does it take to warm up: one analysis of a feed and its settings.

Three parts ask whether anything known at a moment depends on what came after it: the engine's columns
(`lookahead.engine`), the tape's regime and readings, and the log of whole runs (`lookahead.system`). The fourth
measures the warm-up of the engine (`lookahead.warmup`). Nothing of it is written to a database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from edgebook.domain.errors import InputError
from edgebook.engine.columns import EngineConfig
from edgebook.runtime.backtest import Span
from edgebook.runtime.bootstrap import Feed
from edgebook.runtime.lookahead import engine as on_engine
from edgebook.runtime.lookahead import system as on_system
from edgebook.runtime.lookahead import warmup
from edgebook.runtime.lookahead.cut import TOLERANCE, Findings, cut_feed
from edgebook.runtime.market import Tape
from edgebook.runtime.settings import Settings
from edgebook.runtime.views import when

Json = Any


def check_lookahead(settings: Settings, feed: Feed, span: Span, note: Callable[[str], None]) -> dict[str, Json]:
    """Analyse a finite feed between the moments of ``span``.

    Args:
        settings: those of the run to be analysed; its database is not touched.
        feed: bars, drivers and signals.
        note: told what is being done, a few dozen times.

    Returns:
        A JSON-safe object: ``clean`` (whether nothing before a cut changed), the span, one object each for ``engine``,
        ``tape`` and ``log`` (cuts, comparisons, differences, the first of them with their values), ``warmup`` by
        timeframe with its ``tolerances``, and the seconds each part took.

    Raises:
        InputError: an endless feed, no bars in the span, or a timeframe that cannot be built.
    """
    last = feed.source.span[1]
    if last is None:
        raise InputError("an endless feed has no end to cut; give recorded bars", stage="lookahead")
    whole = feed if span.end is None or span.end >= last else cut_feed(feed, span.end)
    clock = _Clock()
    tape = on_system.open_tape(settings, whole, span.start)
    engine, starts = _engine(tape, settings, note, clock)
    clock.lap("engine_and_warmup")
    seen = on_system.check_tape(settings, whole, tape, note)
    clock.lap("tape")
    log, rows, head = on_system.check_log(settings, whole, tape, note)
    clock.lap("log")
    return {
        "clean": not (engine.differences or seen.differences or log.differences),
        "from": when(tape.start),
        "to": when(tape.loaded_until),
        "timeframes": list(tape.timeframes),
        "dropped_timeframes": list(tape.dropped),
        "symbols": len(tape.symbols),
        "tolerance": TOLERANCE,
        "engine": _told(engine),
        "tape": _told(seen),
        "log": _told(log) | {"log_head": head, "runs": [asdict(row) | {"cut": when(row.cut)} for row in rows]},
        "warmup": warmup.summary(starts, tape.timeframes),
        "tolerances": dict(warmup.TOLERANCES),
        "seconds": clock.laps,
    }


def _engine(
    tape: Tape, settings: Settings, note: Callable[[str], None], clock: _Clock
) -> tuple[Findings, Sequence[warmup.Start]]:
    """Columns and warm-up of every series, one after the other: one is in memory at a time."""
    config = EngineConfig(global_exit=settings.global_exit)
    findings, starts = Findings(), []
    for line in on_engine.lines(tape, config):
        note(f"engine, {line.symbol} {line.timeframe}")
        on_engine.compare_line(line, config, findings)
        starts += warmup.starts_of(line, config)
    return findings, starts


def _told(findings: Findings) -> dict[str, Json]:
    """Findings as JSON, times as text."""
    first = [asdict(one) | {"ts": when(one.ts), "cut": when(one.cut)} for one in findings.first]
    return {
        "cuts": findings.cuts,
        "comparisons": findings.comparisons,
        "differences": findings.differences,
        "first_differences": first,
    }


class _Clock:
    """Seconds since the last lap, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._at = time.perf_counter()

    def lap(self, name: str) -> None:
        """Write down the seconds since the lap before."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._at, 2)
        self._at = now
