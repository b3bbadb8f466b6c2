"""Bars as a live source gives them: again and again, the newest one still open, some late, some corrected.

`BarIntake` takes the bars of one symbol in any order and says what is news: a bar after all others ("new"), one that
fills a hole ("late"), or one whose values have changed ("corrected"), on the timeframe of the source and on the coarser
ones that are built from it. It has no clock: the time is an argument of every call.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgebook.domain.errors import MarketDataError
from edgebook.domain.timeframe import micros
from edgebook.market.bars import Bar, BarSeries, resample

Kind = Literal["new", "late", "corrected"]

#: Bars kept unless told otherwise: two days of 1m; more where three bars of the coarsest timeframe need more.
KEEP_BARS = 2880
_KEEP_COARSEST = 3
_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A closed bar that is news: "new" after all told before it, "late" between or before them, "corrected" if told."""

    kind: Kind
    bar: Bar


class BarBuffer:
    """Closed bars of one series in time order, to be added to and changed anywhere; 48 bytes a bar."""

    def __init__(self, symbol: str, timeframe: str) -> None:
        self.symbol, self.timeframe = symbol, timeframe
        self._opens: array[int] = array("q")
        self._values: array[float] = array("d")

    def __len__(self) -> int:
        return len(self._opens)

    def __contains__(self, ts_open: int) -> bool:
        return self.get(ts_open) is not None

    def ts_open(self, index: int) -> int:
        """Open time of the bar at ``index`` (negative counts from the end), microseconds UTC."""
        return self._opens[index]

    def get(self, ts_open: int) -> Bar | None:
        """The bar that opens at ``ts_open``, or None."""
        i = bisect_left(self._opens, ts_open)
        if i == len(self._opens) or self._opens[i] != ts_open:
            return None
        return Bar(self.symbol, self.timeframe, ts_open, *self._values[5 * i : 5 * i + 5])

    def put(self, bar: Bar) -> None:
        """Add ``bar`` at its place, or replace the one that opens at the same time; its values are not checked."""
        i = bisect_left(self._opens, bar.ts_open)
        known = i < len(self._opens) and self._opens[i] == bar.ts_open
        if not known:
            self._opens.insert(i, bar.ts_open)
        values = array("d", (bar.open, bar.high, bar.low, bar.close, bar.volume))
        self._values[5 * i : 5 * (i + known)] = values

    def since(self, start_ts: int, end_ts: int | None = None) -> BarSeries:
        """The bars that open at or after ``start_ts`` and before ``end_ts`` (None: all of them)."""
        first = bisect_left(self._opens, start_ts)
        stop = len(self._opens) if end_ts is None else bisect_left(self._opens, end_ts)
        columns = np.array(self._values[5 * first : 5 * stop]).reshape(-1, 5).T
        return BarSeries(self.symbol, self.timeframe, np.array(self._opens[first:stop]), *columns)

    def drop_before(self, ts_open: int) -> None:
        """Forget the bars that open before ``ts_open``."""
        first = bisect_left(self._opens, ts_open)
        del self._opens[:first]
        del self._values[: 5 * first]


class BarIntake:
    """Bars of one symbol from a live source, in any order, on its timeframe and on coarser ones.

    A coarser bar is built by the rule of `edgebook.market.bars.resample`: it exists once it has ended and holds at
    least half of its base bars. It is told when its last base bar comes, or by `close`; from then on every base bar
    that changes it tells it again. Of a batch, offer the oldest bar first, and call `close` at its end: the last base
    bar of an hour, offered before the rest, tells the hour as soon as half of it is there.

    Args:
        symbol: the instrument.
        base_timeframe: the timeframe of the source.
        timeframes: coarser ones to build; the base among them changes nothing.
        keep_bars: base bars that can still be corrected, at least 1; somewhat more are kept, since the oldest bar of
            the coarsest timeframe is kept whole.

    Raises:
        MarketDataError: a timeframe is unknown or finer than the base, or ``keep_bars`` is below 1.
    """

    def __init__(
        self, symbol: str, base_timeframe: str, timeframes: Sequence[str], keep_bars: int | None = None
    ) -> None:
        step = micros(base_timeframe)
        for finer in (each for each in timeframes if micros(each) < step):
            raise MarketDataError(
                f"{symbol}: cannot build {finer} from {base_timeframe}; use {base_timeframe} or a coarser timeframe",
                stage="market",
            )
        coarser = sorted({*timeframes} - {base_timeframe}, key=micros)
        self._coarsest = micros(coarser[-1] if coarser else base_timeframe)
        self._keep = max(KEEP_BARS, _KEEP_COARSEST * self._coarsest // step) if keep_bars is None else keep_bars
        if self._keep < 1:
            raise MarketDataError(f"{symbol}: keep_bars is {keep_bars}; it must be at least 1", stage="market")
        self.symbol, self.timeframe = symbol, base_timeframe
        self._bars = BarBuffer(symbol, base_timeframe)
        self._coarser = [_Coarser(timeframe, self._bars) for timeframe in coarser]
        self._floor = 0
        self._counts = Counter(new=0, late=0, corrected=0, same=0, open=0, too_late=0)

    @property
    def counts(self) -> dict[str, int]:
        """What became of the bars offered: new, late, corrected, same (known already), open, too_late; sums to all."""
        return dict(self._counts)

    def offer(self, bar: Bar, now: int) -> list[Arrival]:
        """Take one bar of the source at time ``now`` (microseconds UTC) and say what is news.

        Returns:
            The bar itself and the coarser bars that it completes or changes, finest first; nothing for a bar that is
            known, still open at ``now``, or older than what is kept.

        Raises:
            MarketDataError: a bar of another series, off the grid, or with an impossible value. Nothing has changed.
        """
        self._check(bar)
        verdict = self._judge(bar, now)
        self._counts[verdict] += 1
        if verdict not in ("new", "late", "corrected"):
            return []
        self._bars.put(bar)
        told = [Arrival(verdict, bar)]
        for coarser in self._coarser:
            told += coarser.touch(bar.ts_open)
        return told + self._trim()

    def close(self, now: int) -> list[Arrival]:
        """The coarser bars that have ended by ``now`` and wait for a last base bar which has not come."""
        return [arrival for coarser in self._coarser for arrival in coarser.settle(now)]

    def _judge(self, bar: Bar, now: int) -> Kind | Literal["same", "open", "too_late"]:
        if bar.ts > now:
            return "open"
        if bar.ts_open < self._floor:
            return "too_late"
        if not len(self._bars) or bar.ts_open > self._bars.ts_open(-1):
            return "new"
        known = self._bars.get(bar.ts_open)
        if known is None:
            return "late"
        return "same" if known == bar else "corrected"

    def _trim(self) -> list[Arrival]:
        """Forget old bars, by whole bars of the coarsest timeframe; what still waits among them is told first."""
        if len(self._bars) <= self._keep:
            return []
        floor = self._bars.ts_open(-self._keep) // self._coarsest * self._coarsest
        if floor <= self._floor:
            return []
        told = self.close(floor)
        self._floor = floor
        self._bars.drop_before(floor)
        for coarser in self._coarser:
            coarser.forget_before(floor)
        return told

    def _check(self, bar: Bar) -> None:
        if (bar.symbol, bar.timeframe) != (self.symbol, self.timeframe):
            raise MarketDataError(
                f"{self.symbol} {self.timeframe}: bar that opens at {bar.ts_open} is of {bar.symbol} {bar.timeframe}; "
                "each symbol and timeframe has its own intake",
                stage="market",
            )
        step = micros(self.timeframe)
        self._require(bar, "ts_open", bar.ts_open % step == 0, f"a multiple of {step} us")
        for name in _PRICES:
            self._require(bar, name, 0 < getattr(bar, name) < math.inf, "a positive finite price")
        self._require(bar, "high", bar.high >= max(bar.open, bar.close), "at least the open and the close")
        self._require(bar, "low", bar.low <= min(bar.open, bar.close), "at most the open and the close")
        self._require(bar, "volume", 0 <= bar.volume < math.inf, "finite and not negative")

    def _require(self, bar: Bar, name: str, sound: bool, right: str) -> None:
        if not sound:
            raise MarketDataError(
                f"{self.symbol} {self.timeframe}: bar that opens at {bar.ts_open}: {name} is {getattr(bar, name)}; "
                f"it must be {right}",
                stage="market",
            )


class _Coarser:
    """The bars of one coarser timeframe: what has been told of each, and whose base bars have changed since."""

    def __init__(self, timeframe: str, base: BarBuffer) -> None:
        self._timeframe, self._length = timeframe, micros(timeframe)
        self._base, self._step = base, micros(base.timeframe)
        self._told: dict[int, Bar] = {}
        self._changed: set[int] = set()
        self._latest = -1

    def touch(self, ts_open: int) -> list[Arrival]:
        """A base bar has come or changed: tell the bar around it if that was told before or has its last base bar."""
        start = ts_open // self._length * self._length
        self._changed.add(start)
        ended = start in self._told or start + self._length - self._step in self._base
        return self._tell(start) if ended else []

    def settle(self, until: int) -> list[Arrival]:
        """Tell every bar that has ended by ``until`` and whose base bars have changed, oldest first."""
        ended = sorted(start for start in self._changed if start + self._length <= until)
        return [arrival for start in ended for arrival in self._tell(start)]

    def forget_before(self, floor: int) -> None:
        """Drop what was told of bars that open before ``floor``."""
        self._told = {start: bar for start, bar in self._told.items() if start >= floor}

    def _tell(self, start: int) -> list[Arrival]:
        self._changed.discard(start)
        before, bar = self._told.get(start), self._build(start)
        if bar is None or bar == before:
            return []
        kind: Kind = "corrected" if before else "late" if start < self._latest else "new"
        self._told[start] = bar
        self._latest = max(self._latest, start)
        return [Arrival(kind, bar)]

    def _build(self, start: int) -> Bar | None:
        """The bar from its base bars; None if too few are known."""
        end = start + self._length
        built, _ = resample(self._base.since(start, end), self._timeframe, until=end)
        return built.bar(0) if len(built) else None
