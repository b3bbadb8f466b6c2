"""The engine live over bars that may still change: it can take back, and go on as if it had known better.

`RevisingStream` is an `EngineStream` with the last bars and a few checkpoints. A late or corrected bar sends it back to
the last checkpoint before that bar and through the stored bars again. What has been decided stays decided; the next
reading is the one that a run over the corrected series gives.
"""

from __future__ import annotations

from edgebook.domain.reading import MarketReading
from edgebook.engine.columns import EngineConfig, EngineMemory, advance, blank_memory
from edgebook.engine.stream import EngineStream
from edgebook.market.bars import from_bars
from edgebook.market.intake import Arrival, BarBuffer

#: Bars from one checkpoint to the next.
CHECKPOINT_BARS = 256
#: A bar can be revised at least until this many bars have come after it.
REVISABLE_BARS = 512


class RevisingStream:
    """The engine of one symbol and timeframe, which late and corrected bars may send back.

    It holds about half a megabyte, and 0.2 kB more per bar of an S3 that lasts.

    Args:
        symbol, timeframe: whose bars are taken.
        memory: where to go on from (it is not changed); None before the first bar. Bars up to its last one can no
            longer be revised.
        config: switches of the engine; the same ones as before a restart.

    Raises:
        EngineError: a memory of another series.
    """

    def __init__(
        self, symbol: str, timeframe: str, memory: EngineMemory | None = None, config: EngineConfig | None = None
    ) -> None:
        self.symbol, self.timeframe = symbol, timeframe
        self._config = config
        self._checkpoints = [memory or blank_memory(symbol, timeframe)]
        self._stream = EngineStream(symbol, timeframe, memory, config)
        self._bars = BarBuffer(symbol, timeframe)  # those after the first checkpoint
        self._too_late = 0

    @property
    def too_late(self) -> int:
        """Arrivals that were refused because they are older than what can be revised."""
        return self._too_late

    def take(self, arrival: Arrival) -> MarketReading | None:
        """Take what is news of this series.

        Returns:
            The reading of a new bar. None for a late or corrected one: the next reading accounts for it, or, if the bar
            is older than the first checkpoint, nothing has changed and `too_late` has counted it. A bar called new that
            is not after the last one taken (an intake that started afresh) counts as a late one.

        Raises:
            EngineError, MarketDataError: a bar of another series, off the grid, or with an impossible value.
        """
        bar = arrival.bar
        if arrival.kind == "new" and bar.ts_open > self._stream.last_ts_open:
            made = self._stream.push(bar)
            self._bars.put(bar)
            if self._stream.count - self._checkpoints[-1].count >= CHECKPOINT_BARS:
                self._checkpoints.append(self._stream.memory())
                self._trim()
            return made
        from_bars(self.symbol, self.timeframe, [bar])  # refuses an impossible one before anything has changed
        if bar.ts_open > self._checkpoints[0].last_ts_open:
            self._bars.put(bar)
            self._replay([point for point in self._checkpoints if point.last_ts_open < bar.ts_open])
        else:
            self._too_late += 1
        return None

    def memory(self) -> EngineMemory:
        """Everything later bars need, as a value of its own: what `advance` over the bars as now known returns."""
        return self._stream.memory()

    def _replay(self, checkpoints: list[EngineMemory]) -> None:
        """Go back to the last of ``checkpoints`` and through all stored bars after it, with new checkpoints."""
        memory = checkpoints[-1]
        bars = self._bars.since(memory.last_ts_open + 1)
        for start in range(0, len(bars), CHECKPOINT_BARS):
            _, memory = advance(memory, bars.rows(start, start + CHECKPOINT_BARS), config=self._config)
            if memory.count - checkpoints[-1].count == CHECKPOINT_BARS:
                checkpoints.append(memory)
        self._checkpoints = checkpoints
        self._stream = EngineStream(self.symbol, self.timeframe, memory, self._config)
        self._trim()

    def _trim(self) -> None:
        """Forget the checkpoints, and the bars between them, that only older revisions would need."""
        while len(self._checkpoints) > 1 and self._stream.count - self._checkpoints[1].count >= REVISABLE_BARS:
            del self._checkpoints[0]
        self._bars.drop_before(self._checkpoints[0].last_ts_open + 1)
