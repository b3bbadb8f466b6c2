"""The engine one bar at a time: a bar in, a reading out, for programs that hand bars over themselves.

The same compiled step as `edgebook.engine.columns.advance`, which the running system calls for all bars that have just
closed; here on buffers that are changed in place, so that a bar costs microseconds and a position about a quarter of a
megabyte. `EngineStream.memory` is a value to store or to go back to.
"""

from __future__ import annotations

import math

import numpy as np

from edgebook.domain.errors import EngineError
from edgebook.domain.reading import MarketReading
from edgebook.domain.timeframe import micros
from edgebook.engine import machine as mc
from edgebook.engine.columns import EngineConfig, EngineMemory, blank_memory, reading_of
from edgebook.market import indicators as ta
from edgebook.market.bars import Bar

#: Rows written before the last 20 are moved back to the front.
_ROOM = 256


class EngineStream:
    """The engine of one symbol and timeframe.

    Args:
        symbol, timeframe: whose bars are taken.
        memory: where to go on from (it is not changed); None before the first bar.
        config: switches of the engine; the same ones as before a restart.

    Raises:
        EngineError: a memory of another series.
    """

    def __init__(
        self, symbol: str, timeframe: str, memory: EngineMemory | None = None, config: EngineConfig | None = None
    ) -> None:
        memory = memory or blank_memory(symbol, timeframe)
        if (memory.symbol, memory.timeframe) != (symbol, timeframe):
            raise EngineError(
                f"a memory of {memory.symbol} {memory.timeframe} given to a stream of {symbol} {timeframe}; "
                "each symbol and timeframe has its own",
                stage="engine",
            )
        self.symbol, self.timeframe = symbol, timeframe
        self._step = micros(timeframe)
        self._switches = (config or EngineConfig()).switches
        self._last, self._count = memory.last_ts_open, memory.count
        self._rows = np.empty((ta.HISTORY + _ROOM, mc.WIDTH))
        self._rows[: ta.HISTORY, : len(ta.COLUMNS)] = memory.rows
        self._next = ta.HISTORY
        self._carried = memory.carried.copy().with_room(_ROOM)
        self._counters = np.zeros((1, len(mc.COUNTERS)), dtype=np.int64)
        self._flags = np.zeros((1, len(mc.FLAGS)), dtype=np.bool_)

    @property
    def count(self) -> int:
        """Bars taken, those before ``memory`` included."""
        return self._count

    @property
    def last_ts_open(self) -> int:
        """Open time of the last bar taken, -1 before the first."""
        return self._last

    def push(self, bar: Bar) -> MarketReading:
        """Take the next closed bar and say what it means.

        Raises:
            EngineError: a bar of another series, not after the last one, off the grid, or with an impossible value.
        """
        self._check(bar)
        if self._next == len(self._rows):
            self._rows[: ta.HISTORY] = self._rows[-ta.HISTORY :]
            self._next = ta.HISTORY
            self._carried = self._carried.with_room(_ROOM)
        i, counters = self._next, self._counters[0]
        row = self._rows[i]
        row[ta.OPEN], row[ta.HIGH], row[ta.LOW], row[ta.CLOSE] = bar.open, bar.high, bar.low, bar.close
        row[ta.VOLUME] = bar.volume
        counters[mc.INDEX], counters[mc.TS] = self._count, bar.ts_open + self._step
        counters[mc.GAP] = (bar.ts_open - self._last) // self._step - 1 if self._last >= 0 else 0
        mc.run(self._rows, i, i + 1, self._counters, self._flags, self._carried, self._switches)
        self._next, self._last, self._count = i + 1, bar.ts_open, self._count + 1
        return reading_of(self.symbol, self.timeframe, counters.tolist(), row.tolist(), self._flags[0].tolist())

    def memory(self) -> EngineMemory:
        """Everything later bars need, as a value of its own: what `advance` would have returned."""
        rows = self._rows[self._next - ta.HISTORY : self._next, : len(ta.COLUMNS)].copy()
        return EngineMemory(self.symbol, self.timeframe, self._last, self._count, rows, self._carried.copy())

    def _check(self, bar: Bar) -> None:
        if (bar.symbol, bar.timeframe) != (self.symbol, self.timeframe):
            raise self._refused(bar, f"it is a bar of {bar.symbol} {bar.timeframe}")
        if bar.ts_open <= self._last:
            raise self._refused(bar, f"bars up to the one that opened at {self._last} have been taken")
        if bar.ts_open % self._step:
            raise self._refused(bar, f"its open time must be a multiple of {self._step} us")
        sound = 0.0 < bar.low <= bar.open <= bar.high < math.inf and bar.low <= bar.close <= bar.high
        if not (sound and 0.0 <= bar.volume < math.inf):
            raise self._refused(
                bar, "prices must be positive and finite, low <= open, close <= high, and volume not negative"
            )

    def _refused(self, bar: Bar, why: str) -> EngineError:
        return EngineError(f"{self.symbol} {self.timeframe}: bar that opens at {bar.ts_open}: {why}", stage="engine")
