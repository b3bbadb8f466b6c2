"""Look-ahead in the engine: every column of every bar, with and without the bars after a cut.

For each traded series the engine runs over all bars and again, from nothing, over the base bars that closed by each
cut: at quantiles of the series, where a coarser bar may be half-made; at the close of a coarser bar whose last base bar
is missing, which must exist by then or never; and on the last bar before a state change, where a column that knows the
next bar has most to tell. From each cut it goes on for 100 bars one at a time, as a live
process would: none of these has anything after it, so a flag that changes seldom is caught as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.reading import MarketReading, finite_or_none
from edgebook.domain.timeframe import micros
from edgebook.engine import columns as engine
from edgebook.engine.columns import EngineColumns, EngineConfig
from edgebook.engine.gates import BASE_GATES, flags_over
from edgebook.market.bars import BarSeries, resample
from edgebook.runtime.lookahead.cut import Difference, Findings, bars_until, spread, unequal
from edgebook.runtime.market import BACKFILL_BARS, Tape

CUT_SHARES = (0.2, 0.4, 0.6, 0.8)
CHANGE_SHARES = (0.1, 0.35, 0.65, 0.9)
HOLE_SHARES = (0.3, 0.7)
#: Bars after each cut that are given to the engine one at a time.
STREAMED = 100
#: Every column there is: the fields of a reading, but for those that only name it or are made of two columns.
COLUMNS = tuple(f.name for f in fields(MarketReading) if f.name not in ("symbol", "timeframe", "transition"))

Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Line:
    """One traded series: its base bars, its own bars, and the engine over all of them."""

    symbol: str
    timeframe: str
    base: BarSeries
    bars: BarSeries
    columns: EngineColumns


def lines(tape: Tape, config: EngineConfig) -> Iterator[Line]:
    """Every series of the tape as the tape itself reads it: up to 1,000 bars before its start, then all to its end."""
    end = tape.loaded_until
    for symbol in tape.symbols:
        base = tape.source.bars(symbol, tape.source.span[0], end)
        for timeframe in tape.timeframes:
            kept = base.slice(tape.start - BACKFILL_BARS * micros(timeframe), 1 << 62)
            bars = resample(kept, timeframe, until=end)[0]
            if len(bars):
                yield Line(symbol, timeframe, kept, bars, run(bars, config))


def run(bars: BarSeries, config: EngineConfig) -> EngineColumns:
    """The engine over ``bars`` from nothing."""
    return engine.advance(None, bars, config=config)[0]


def cuts_of(line: Line) -> list[int]:
    """Moments to cut a line at, ascending: closes of base bars at quantiles, of bars that end in a hole, and of bars
    before a state change."""
    closes = line.base.close_ts
    found = {int(closes[i]) for i in spread(len(closes), CUT_SHARES)}
    ragged = np.flatnonzero(~np.isin(line.columns.ts, closes)).tolist()
    found |= {int(line.columns.ts[ragged[i]]) for i in spread(len(ragged), HOLE_SHARES)}
    changes = np.flatnonzero(np.diff(line.columns.state)).tolist()
    found |= {int(line.columns.ts[changes[i]]) for i in spread(len(changes), CHANGE_SHARES)}
    return sorted(found)


def compare_line(line: Line, config: EngineConfig, findings: Findings) -> None:
    """Run one line cut at each of its moments and note every bar and column that is not what it was."""
    for cut in cuts_of(line):
        findings.cuts += 1
        known = int(line.columns.ts.searchsorted(cut, side="right"))
        bars = resample(bars_until(line.base, cut), line.timeframe, until=cut)[0]
        if len(bars) != known:
            findings.differ(Difference(line.symbol, line.timeframe, cut, "bars", known, len(bars), cut))
            continue
        short = _grown(bars, line.bars.rows(known, known + STREAMED), config)
        _compare_columns(line.columns.rows(0, len(short)), short, cut, findings)


def _grown(bars: BarSeries, later: BarSeries, config: EngineConfig) -> EngineColumns:
    """The engine over ``bars`` at once and over ``later`` bar by bar."""
    columns, memory = engine.advance(None, bars, config=config)
    parts = [columns]
    for ts in later.close_ts.tolist():
        columns, memory = engine.advance(memory, bars_until(later.slice(ts - later.step, ts), ts), config=config)
        parts.append(columns)
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "counters", "flags"))
    return EngineColumns(bars.symbol, bars.timeframe, *joined)


def _compare_columns(whole: EngineColumns, short: EngineColumns, cut: int, findings: Findings) -> None:
    all_bars, up_to_cut = _columns(whole), _columns(short)
    for name, values in all_bars.items():
        findings.comparisons += len(values)
        differs = np.flatnonzero(unequal(values, up_to_cut[name]))
        if len(differs):
            i, ts = int(differs[0]), int(whole.ts[differs[0]])
            a, b = (finite_or_none(column[name][i].item()) for column in (all_bars, up_to_cut))
            where = (whole.symbol, whole.timeframe, ts, name)
            findings.differ(Difference(*where, a, b, max(cut, ts)), len(differs))


def _columns(columns: EngineColumns) -> Columns:
    """All columns of the engine, the two gate flags under base gates, and the events of every bar."""
    signal, flag = flags_over(columns, BASE_GATES)
    found: Sequence[tuple[str, NDArray[np.generic]]] = [(name, columns[name]) for name in COLUMNS]
    return dict(found) | {"buy_signal": signal, "buy_flag": flag, "events": engine.events(columns)}
