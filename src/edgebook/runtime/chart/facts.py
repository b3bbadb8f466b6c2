"""One series of bars as the engine saw it: the facts behind a picture, gathered once and drawn by others.

`read_bars` loads one file, `gather` runs the engine over everything up to the end of the wanted span and keeps the span
as a `Chart`: bars, EMAs, states, flags under the base gates, scores, buy windows and levels. Nothing in it depends on a
bar after the span, and everything on the bars before it, so the picture shows what a system that had read the file from
its first bar knew at each close.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.adapters.feeds.parquet import read_bar_file
from edgebook.domain.errors import InputError, MarketDataError
from edgebook.domain.reading import RETEST, WARM_BARS, WINDOW
from edgebook.domain.timeframe import TIMEFRAMES, micros
from edgebook.engine.columns import MAX_GAP_BARS, EngineColumns, advance, events, reading
from edgebook.engine.gates import BASE_GATES, GateReport, evaluate, flags_over
from edgebook.engine.states import S2, S3, STATE_NAMES
from edgebook.market.bars import BarSeries, resample
from edgebook.market.levels import SOURCES, LevelTable, levels_over

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]

#: EMAs drawn, fastest first.
PERIODS: tuple[int, ...] = (20, 60, 144, 250, 333)
#: Flags under the base gates, in the order in which a trade meets them.
FLAGS: tuple[str, ...] = (
    *("buy_signal_s1", "buy_flag_s2", "buy_flag_s3", "first_dip"),
    *("trim", "emergency_exit", "reclaim", "exit"),
)
#: The flag a buy window of each state waits for.
WINDOW_FLAGS: dict[str, str] = {"S1": "buy_signal_s1", "S2": "buy_flag_s2", "S3": "buy_flag_s3"}
#: Lines of the score panel, each in [0, 1] or NaN: TS with S/R boost, OX, DX and the DX a buy needs, EDX.
SCORES: tuple[str, ...] = ("ts", "ox", "dx", "dx_threshold", "edx")

#: A level that moves by at most this many ATR from one bar to the next stays the same level, as for trims.
_SAME_LEVEL = 0.5
_ENDLESS = 1 << 62


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive bars on which a buy was near: positions ``first`` to ``last`` in the span, both included.

    Attributes:
        state: ``S1``, ``S2`` or ``S3``.
        bought: whether the state's buy flag was up on any of its bars.
    """

    state: str
    first: int
    last: int
    bought: bool


@dataclass(frozen=True, slots=True)
class LevelPiece:
    """One level over consecutive bars on which neither its price nor its strength changed.

    Attributes:
        level: number of the level in the span; a level that moves a little has several pieces.
        first, last: positions in the span, both included.
        source: ``swing``, ``range_high`` or ``range_low``.
    """

    level: int
    first: int
    last: int
    price: float
    strength: float
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """What the engine said about each of ``n`` consecutive bars.

    Attributes:
        bars: the bars of the span.
        base_timeframe: timeframe of the file; differs from that of ``bars`` when they were resampled.
        history: bars of the same timeframe the engine had seen before the span.
        gaps: missing bars directly before each bar; for the first, before it in the file.
        emas: shape (n, 5), one column per period of `PERIODS`, in price units.
        state: codes 0..4.
        flags: by name of `FLAGS`, each of shape (n,).
        scores: by name of `SCORES`, each of shape (n,).
        blocked_by: per bar the failed checks, separated by spaces; empty when none failed or none was asked.
        windows: in time order; a window that reaches beyond the span is cut at its edge.
        levels: pieces in order of their first bar.
    """

    bars: BarSeries
    base_timeframe: str
    history: int
    gaps: Ints
    emas: Floats
    state: Codes
    flags: Mapping[str, Bools]
    scores: Mapping[str, Floats]
    blocked_by: tuple[str, ...]
    windows: tuple[Window, ...]
    levels: tuple[LevelPiece, ...]

    def __len__(self) -> int:
        return len(self.bars)


def read_bars(path: Path, timeframe: str | None = None) -> BarSeries:
    """All bars of one ``SYMBOL-<timeframe>.parquet`` file, resampled to ``timeframe`` if one is given.

    Raises:
        InputError: no such file, a name of another form, no Parquet, a bad row, an unknown or finer timeframe.
    """
    if timeframe is not None and timeframe not in TIMEFRAMES:
        raise InputError(f"--timeframe was {timeframe!r}; it must be one of {', '.join(TIMEFRAMES)}")
    try:
        series = read_bar_file(path)
    except MarketDataError as error:
        raise InputError(error.message) from error
    try:
        return resample(series, timeframe or series.timeframe)[0]
    except MarketDataError as error:
        raise InputError(f"--timeframe {timeframe}: {error.message}") from error


def gather(series: BarSeries, start: int | None = None, end: int | None = None, *, base: str = "") -> Chart:
    """The facts of the bars that open at or after ``start`` and close at or before ``end``.

    Args:
        series: the whole history; what lies before ``start`` warms the engine up, what closes after ``end`` is unseen.
        start, end: microseconds UTC; None: from the first, to the last bar.
        base: timeframe the series was resampled from, if it was.

    Raises:
        InputError: no bar lies in the span; the message says where the bars lie.
    """
    seen = series.slice(-_ENDLESS, _ENDLESS if end is None else end - series.step + 1)
    first = 0 if start is None else int(np.searchsorted(seen.ts_open, start))
    if first >= len(seen):
        raise InputError(f"{series.symbol} {series.timeframe}: no bars in the span; {_extent(series)}")
    everything, _ = advance(None, seen)
    table = levels_over(seen.close, everything.floats("atr"), first)
    columns = everything.rows(first, len(seen))
    reports = [evaluate(reading(columns, i), BASE_GATES) for i in range(len(columns))]
    flags = _flags(columns)
    return Chart(
        bars=seen.rows(first, len(seen)),
        base_timeframe=base or series.timeframe,
        history=first,
        gaps=np.asarray(columns["gap_bars"], dtype=np.int64),
        emas=np.column_stack([columns.floats(f"ema{period}") for period in PERIODS]),
        state=columns.state,
        flags=flags,
        scores=_scores(columns, reports),
        blocked_by=tuple(" ".join(report.blocked_by) for report in reports),
        windows=tuple(_windows(columns, flags)),
        levels=tuple(sorted(_level_pieces(table, columns.floats("atr")), key=lambda p: (p.first, p.level))),
    )


def counts(chart: Chart) -> dict[str, Any]:
    """The figures of a chart as one JSON-safe object: span, bars, states, flags, windows, levels, gaps, notes.

    Flags count bars, windows count runs of bars (and those with the buy flag up), levels count distinct levels.
    """
    windows = {s: [w for w in chart.windows if w.state == s] for s in WINDOW_FLAGS}
    sources = {piece.level: piece.source for piece in chart.levels}
    missing = chart.gaps[1:]
    return {
        "symbol": chart.bars.symbol,
        "timeframe": chart.bars.timeframe,
        "base_timeframe": chart.base_timeframe,
        "from": moment_text(int(chart.bars.ts_open[0])),
        "to": moment_text(int(chart.bars.close_ts[-1])),
        "bars": len(chart),
        "history": chart.history,
        "states": {name: int((chart.state == code).sum()) for code, name in enumerate(STATE_NAMES)},
        "flags": {name: int(chart.flags[name].sum()) for name in FLAGS},
        "windows": {s: {"n": len(found), "bought": sum(w.bought for w in found)} for s, found in windows.items()},
        "levels": {name: sum(source == name for source in sources.values()) for name in SOURCES if name},
        "gaps": {
            "n": int((missing > 0).sum()),
            "bars": int(missing.sum()),
            "longest": int(missing.max(initial=0)),
        },
        "notes": list(notes(chart)),
    }


def notes(chart: Chart) -> Iterator[str]:
    """What a reader has to know before believing the picture, one sentence each."""
    if chart.history < WARM_BARS:
        before = f"{chart.history:,} bars of history before the first bar drawn"
        at = WARM_BARS - chart.history
        when = f" ({moment_text(int(chart.bars.ts_open[at]))})" if at < len(chart) else ", and none is in this span"
        yield f"No state before bar {WARM_BARS}{when}: {before}."
    if chart.base_timeframe != chart.bars.timeframe:
        own, base = chart.bars.timeframe, chart.base_timeframe
        yield f"{own} bars built from {base} bars; one with less than half of its {base} bars does not exist."


def moment_text(ts: int) -> str:
    """``ts`` (microseconds UTC) as a person reads it.

    >>> moment_text(1622505600000000)
    '2021-06-01 00:00'
    """
    return datetime.fromtimestamp(ts / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M")


def duration_text(microseconds: int) -> str:
    """A length of time in its largest fitting unit.

    >>> duration_text(micros("4h") * 3), duration_text(micros("1d") * 311)
    ('12 h', '311 d')
    """
    for unit, length in (("d", micros("1d") * 2), ("h", micros("1h") * 2)):
        if microseconds >= length:
            return f"{round(2 * microseconds / length)} {unit}"
    return f"{round(microseconds / micros('1m'))} min"


def _extent(series: BarSeries) -> str:
    if not len(series):
        return "the file holds none"
    first, last = moment_text(int(series.ts_open[0])), moment_text(int(series.close_ts[-1]))
    return f"the file has {first} to {last} UTC"


def _flags(columns: EngineColumns) -> dict[str, Bools]:
    signal, flag = flags_over(columns, BASE_GATES)
    state = columns.state
    named = ("first_dip", "trim_flag", "emergency_exit", "reclaimed_ema333", "exit_position")
    plain = [np.asarray(columns[name], dtype=np.bool_) for name in named]
    return dict(zip(FLAGS, (signal, flag & (state == S2), flag & (state == S3), *plain), strict=True))


def _scores(columns: EngineColumns, reports: list[GateReport]) -> dict[str, Floats]:
    boosted = np.array([report.ts_with_boost for report in reports])
    threshold = np.array([report.dx_threshold_final for report in reports])
    lines = (boosted, columns.floats("ox"), columns.floats("dx"), threshold, columns.floats("edx"))
    return dict(zip(SCORES, lines, strict=True))


def _windows(columns: EngineColumns, flags: Mapping[str, Bools]) -> Iterator[Window]:
    """Runs of bars in the buy zone of one state; a gap that voids an episode ends a window too."""
    state, near = columns.state, events(columns) & (WINDOW | RETEST) != 0
    new = near.copy()
    new[1:] &= ~near[:-1] | (state[1:] != state[:-1]) | (np.asarray(columns["gap_bars"])[1:] > MAX_GAP_BARS)
    for first in np.flatnonzero(new).tolist():
        stops = np.flatnonzero(~near[first + 1 :] | new[first + 1 :])
        last = first + int(stops[0]) if len(stops) else len(near) - 1
        name = STATE_NAMES[state[first]]
        yield Window(name, first, last, bool(flags[WINDOW_FLAGS[name]][first : last + 1].any()))


@dataclass(slots=True)
class _Live:
    """A level that exists on the current bar, and since when its present piece lasts."""

    level: int
    first: int
    price: float
    strength: float
    source: int

    def piece(self, last: int) -> LevelPiece:
        return LevelPiece(self.level, self.first, last, self.price, self.strength, SOURCES[self.source])


def _level_pieces(table: LevelTable, atr: Floats) -> Iterator[LevelPiece]:
    """Levels followed from bar to bar: the nearest of the same source within half an ATR is the same level."""
    live: list[_Live] = []
    known = 0
    for i in range(len(table.count)):
        k = int(table.count[i])
        rows = [r[i, :k].tolist() for r in (table.price, table.strength, table.source)]
        if rows == [[p.price for p in live], [p.strength for p in live], [p.source for p in live]]:
            continue
        before, live = live, []
        for price, strength, source, old in zip(*rows, _matches(rows, before, _SAME_LEVEL * atr[i]), strict=True):
            if old is None:
                known += 1
                live.append(_Live(known - 1, i, price, strength, source))
                continue
            before.remove(old)
            if (old.price, old.strength) == (price, strength):
                live.append(old)
            else:
                yield old.piece(i - 1)
                live.append(_Live(old.level, i, price, strength, source))
        yield from (old.piece(i - 1) for old in before)
    yield from (old.piece(len(table.count) - 1) for old in live)


def _matches(rows: list[list[Any]], before: list[_Live], reach: float) -> list[_Live | None]:
    """For each level of a bar the one it continues, nearest pairs first, each used once."""
    prices, _, sources = rows
    pairs = sorted(
        (abs(price - old.price), k, j)
        for k, (price, source) in enumerate(zip(prices, sources, strict=True))
        for j, old in enumerate(before)
        if old.source == source and abs(price - old.price) <= reach
    )
    found: list[_Live | None] = [None] * len(prices)
    used: set[int] = set()
    for _, k, j in pairs:
        if found[k] is None and j not in used:
            found[k] = before[j]
            used.add(j)
    return found
