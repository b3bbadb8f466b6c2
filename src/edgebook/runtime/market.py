"""The tape: a `MarketReader` over a source of bars, loaded in chunks of whole days and revealed moment by moment.

Engine columns are computed once per chunk for every (symbol, timeframe): thresholds cannot touch them, so a learned
gate costs
nothing here. A recorded source is one chunk; a simulator is read a day ahead. Whatever is returned for ``now`` uses
only bars that closed at or before ``now`` (and, for a quote, the open of the bar that opens then).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError, PortError
from edgebook.domain.reading import AFTER, MarketReading
from edgebook.domain.regime import Regime
from edgebook.domain.timeframe import TIMEFRAMES, micros
from edgebook.engine.columns import MAX_GAP_BARS, EngineColumns, EngineConfig, EngineMemory, advance, events, reading
from edgebook.engine.gates import BASE_GATES, flags_over
from edgebook.market.bars import BarSeries, resample
from edgebook.market.composite import (
    MIN_BUCKET_POPULATION,
    CompositeMemory,
    cap_class,
    dominance_of,
    driver_members,
    extend_composite,
)
from edgebook.market.regime import DriverTrack, RegimeTimeline
from edgebook.ports import BarSource, Quote, TokenInfo
from edgebook.runtime.scripted import NOT_SCRIPTED, Script

BACKFILL_BARS = 1_000
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(slots=True)
class _Line:
    """Bars of one (symbol, timeframe) so far, and the engine (or a script in its place) over the newest chunks."""

    script: Script = NOT_SCRIPTED
    bars: list[BarSeries] = field(default_factory=list)
    memory: EngineMemory | None = None
    chunks: list[EngineColumns] = field(default_factory=list)
    before: int = 0
    eventful: bool = False
    holes: list[tuple[int, int, int]] = field(default_factory=list)
    found: tuple[int, MarketReading | None] = (-1, None)
    """The bar that was looked at last; several positions and all shadows look at the same one."""

    def extend(self, bars: BarSeries, config: EngineConfig) -> list[tuple[int, int]]:
        """Take the next bars; returns (close time, events) of those that anything can follow from."""
        if not len(bars):
            return []
        self.found = (-1, None)
        measured, self.memory = advance(self.memory, bars, config=config)
        columns = self.script.over(measured)
        total = self.before + sum(len(chunk) for chunk in self.chunks)
        gaps = np.asarray(columns["gap_bars"])
        for i in np.flatnonzero(gaps > MAX_GAP_BARS).tolist():
            self.holes.append((int(columns.ts[i]), total + i, int(gaps[i])))
        self.bars.append(bars)
        self.chunks.append(columns)
        if len(self.chunks) > 2:
            self.before += len(self.chunks.pop(0))
        found = events(columns, after=self.eventful)
        self.eventful = bool(found[-1] & ~np.uint8(AFTER))
        at = np.flatnonzero(found)
        return list(zip(columns.ts[at].tolist(), found[at].tolist(), strict=True))

    def find(self, now: int) -> MarketReading | None:
        if self.found[0] != now:
            self.found = (now, self._read(now))
        return self.found[1]

    def _read(self, now: int) -> MarketReading | None:
        for columns in reversed(self.chunks):
            ts = columns.ts
            if ts[0] <= now:
                i = int(ts.searchsorted(now))
                return reading(columns, i) if i < len(ts) and ts[i] == now else None
        return None

    def count(self, now: int) -> int:
        return self.before + sum(int(columns.ts.searchsorted(now, side="right")) for columns in self.chunks)

    def contiguous(self, now: int, max_hole: int) -> int:
        first = next((at for ts, at, gap in reversed(self.holes) if ts <= now and gap > max_hole), 0)
        return self.count(now) - first


@dataclass(slots=True)
class _Prices:
    """Base bars of one symbol as plain growing arrays."""

    ts_open: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    open: Floats = field(default_factory=lambda: np.zeros(0))
    close: Floats = field(default_factory=lambda: np.zeros(0))
    spent: Floats = field(default_factory=lambda: np.zeros(0))

    def extend(self, bars: BarSeries) -> None:
        self.ts_open = np.concatenate((self.ts_open, bars.ts_open))
        self.open = np.concatenate((self.open, bars.open))
        self.close = np.concatenate((self.close, bars.close))
        self.spent = np.concatenate((self.spent, bars.close * bars.volume))


class Tape:
    """Market reader over one source of traded tokens and, optionally, one of regime drivers.

    Args:
        source: bars of the tokens that may be traded (and of drivers, when they come from the same place).
        timeframes: timeframes to build; those finer than the source's bars are dropped (see `dropped`).
        drivers: bars used for the regime only.
        start: first moment at which anything is decided; bars before it are history (up to 1,000 per timeframe).
        chunk_days: days read ahead at a time; None reads a finite source whole.
        config: switches of the engine for the traded tokens; regime drivers have their own.
        normalise_h: scale the horizon weights of appetite to the same sum on every timeframe (trading.md 3.2).
        appetite_model: ``driver``, ``flags`` or ``phases`` (`market.appetite_models`).
        script: what is said in the engine's place; nothing as a rule.
    """

    live = False

    def __init__(
        self,
        source: BarSource,
        timeframes: Sequence[str],
        *,
        drivers: BarSource | None = None,
        start: int | None = None,
        chunk_days: int | None = None,
        config: EngineConfig | None = None,
        normalise_h: bool = False,
        appetite_model: str = "driver",
        script: Script = NOT_SCRIPTED,
    ) -> None:
        self._config = config or EngineConfig()
        self.source, self.base = source, source.base_timeframe
        self._step = micros(self.base)
        self.timeframes = tuple(tf for tf in timeframes if micros(tf) >= self._step and micros(tf) % self._step == 0)
        self.dropped = tuple(tf for tf in timeframes if tf not in self.timeframes)
        if not self.timeframes:
            raise InputError(
                f"none of the timeframes {', '.join(timeframes)} can be built from {self.base} bars", stage="market"
            )
        first, last = source.span
        if last is None and chunk_days is None:
            raise PortError("an endless source needs chunk_days", stage="market")
        self.start = max(first, start if start is not None else first)
        self.end = last
        self.tokens: Mapping[str, TokenInfo] = source.tokens()
        self.symbols = tuple(s for s in source.symbols if not self.tokens or s in self.tokens)
        self._chunk = DAY * chunk_days if chunk_days else None
        self._loaded = first
        self._prices = {symbol: _Prices() for symbol in self.symbols}
        self._lines = {(symbol, tf): _Line(script) for symbol in self.symbols for tf in self.timeframes}
        self._due: dict[str, dict[int, list[tuple[str, int]]]] = {tf: {} for tf in self.timeframes}
        self._drivers = Drivers(
            source,
            drivers,
            self.symbols,
            self.tokens,
            self.timeframes,
            normalise_h=normalise_h,
            appetite_model=appetite_model,
            script=script,
        )

    @property
    def loaded_until(self) -> int:
        """Bars that close up to here are loaded (not yet all revealed)."""
        return self._loaded

    def load(self, now: int) -> None:
        """Make sure that bars up to and including the one that opens at ``now`` are loaded."""
        while self._loaded < now + self._step and (self.end is None or self._loaded < self.end):
            if self._chunk is None:
                until = self.end if self.end is not None else now
            else:
                ahead = self.start if self._loaded < self.start else self._loaded
                until = ahead // DAY * DAY + self._chunk
                until = until if self.end is None else min(until, self.end)
            self._read(self._loaded, until, now)
            self._loaded = until

    def due(self, timeframe: str, now: int) -> Sequence[tuple[str, int]]:
        """Symbols with a bar of ``timeframe`` closing at ``now`` that anything can follow from, and that bar's
        events."""
        return self._due[timeframe].get(now, ())

    def reading(self, symbol: str, timeframe: str, now: int) -> MarketReading | None:
        """The engine's reading of the bar closing at ``now``, None when there is no such bar."""
        line = self._lines.get((symbol, timeframe))
        return line.find(now) if line else None

    def bars_count(self, symbol: str, timeframe: str, now: int) -> int:
        """Closed bars at ``now``."""
        line = self._lines.get((symbol, timeframe))
        return line.count(now) if line else 0

    def contiguous_bars(self, symbol: str, timeframe: str, now: int, max_hole: int) -> int:
        """Closed bars at ``now`` since the last hole of more than ``max_hole`` missing bars."""
        line = self._lines.get((symbol, timeframe))
        return line.contiguous(now, max_hole) if line else 0

    def mark(self, symbol: str, now: int) -> float | None:
        """Close of the latest closed base bar."""
        prices = self._prices.get(symbol)
        i = int(prices.ts_open.searchsorted(now - self._step, side="right")) if prices else 0
        return float(prices.close[i - 1]) if prices and i else None

    def mark_at(self, symbol: str, now: int) -> int | None:
        """When the latest closed base bar closed, microseconds UTC."""
        prices = self._prices.get(symbol)
        i = int(prices.ts_open.searchsorted(now - self._step, side="right")) if prices else 0
        return int(prices.ts_open[i - 1]) + self._step if prices and i else None

    def quote(self, symbol: str, planned: int, now: int) -> Quote | None:
        """Open of the first base bar with ``planned <= ts_open <= now``."""
        prices = self._prices[symbol]
        i = int(prices.ts_open.searchsorted(planned))
        if i < len(prices.ts_open) and prices.ts_open[i] <= now:
            return Quote(int(prices.ts_open[i]), float(prices.open[i]))
        return None

    def volume_24h_usd(self, symbol: str, now: int) -> float:
        """USD traded over the base bars that closed in the last 24 hours."""
        prices = self._prices.get(symbol)
        if prices is None:
            return 0.0
        first, last = prices.ts_open.searchsorted([now - DAY, now - self._step + 1])
        return float(prices.spent[first:last].sum())

    def path(self, symbol: str, timeframe: str, start: int, end: int) -> BarSeries:
        """Bars that open at or after ``start`` and close at or before ``end``."""
        step = micros(timeframe)
        near = (part for part in self._lines[symbol, timeframe].bars if part.ts_open[-1] >= start)
        kept = [part for part in (part.slice(start, end - step + 1) for part in near) if len(part)]
        if len(kept) == 1:
            return kept[0]
        if not kept:
            return BarSeries(symbol, timeframe, np.zeros(0, dtype=np.int64), *(np.zeros(0) for _ in range(5)))
        names = ("open", "high", "low", "close", "volume")
        columns = (np.concatenate([getattr(p, name) for p in kept]) for name in names)
        return BarSeries(symbol, timeframe, np.concatenate([p.ts_open for p in kept]), *columns)

    def regime(self, timeframe: str, cap_class: str, now: int) -> Regime:
        """Appetite and scope values at ``now``."""
        return self._drivers.timeline.at(now, timeframe, cap_class)

    def closes(self, after: int, until: int) -> Ints:
        """Moments in ``(after, until]`` at which a base bar can close: the grid of the base timeframe."""
        first = after // self._step * self._step + self._step
        return np.arange(first, until + 1, self._step, dtype=np.int64)

    def _read(self, begin: int, until: int, now: int) -> None:
        for timeframe in self.timeframes:
            self._due[timeframe] = {t: s for t, s in self._due[timeframe].items() if t >= now}
        chunk: dict[str, BarSeries] = {}
        for symbol in self.symbols:
            bars = self.source.bars(symbol, begin, until)
            chunk[symbol] = bars
            self._prices[symbol].extend(bars)
            for timeframe in self.timeframes:
                self._extend(symbol, timeframe, bars, until)
        self._drivers.extend(chunk, begin, until)

    def _extend(self, symbol: str, timeframe: str, base: BarSeries, until: int) -> None:
        oldest = self.start - BACKFILL_BARS * micros(timeframe)
        bars, _ = resample(base.slice(oldest, 1 << 62), timeframe, until=until)
        due = self._due[timeframe]
        for ts, bits in self._lines[symbol, timeframe].extend(bars, self._config):
            due.setdefault(ts, []).append((symbol, bits))


class Drivers:
    """Regime drivers: indices of the universe, run through the same engine on each horizon (trading.md 3.2).

    A driver exists on a horizon as far as its own members have bars fine enough for it; what other members lack takes
    nothing from it. Dominances (``BTC.D``, ``USDT.D``) are drivers where there are bars of them; no index and no trade
    sees them.

    Raises:
        InputError: a dominance stands among the symbols to trade.
    """

    def __init__(
        self,
        source: BarSource,
        extra: BarSource | None,
        symbols: Sequence[str],
        tokens: Mapping[str, TokenInfo],
        timeframes: Sequence[str],
        *,
        normalise_h: bool = False,
        appetite_model: str = "driver",
        script: Script = NOT_SCRIPTED,
    ) -> None:
        self._script = script
        self._sources: dict[str, BarSource] = dict.fromkeys(extra.symbols, extra) if extra else {}
        self._sources |= dict.fromkeys(source.symbols, source)
        percentages = [symbol for symbol in symbols if dominance_of(symbol)]
        if percentages:
            raise InputError(
                f"{percentages[0]} is a dominance, no token, and cannot be traded; put its bars among the regime bars",
                stage="market",
            )
        classes = {
            s: cap_class(tokens[s].mcap_usd if s in tokens else None) for s in self._sources if not dominance_of(s)
        }
        finest = min(timeframes, key=TIMEFRAMES.index)
        horizons = {"macro": "1d", "meso": "1h"}
        if micros(finest) <= micros("15m"):
            horizons["micro"] = finest
        self.horizons = horizons
        self.timeline = RegimeTimeline(classes, horizons, normalise_h=normalise_h, model=appetite_model)
        self._members = driver_members(self._sources, classes)
        self._indices: dict[tuple[str, str], CompositeMemory] = {}
        self._memories: dict[tuple[str, str], EngineMemory] = {}
        self._started = False

    def extend(self, chunk: Mapping[str, BarSeries], begin: int, until: int) -> None:
        """Add all bars up to ``until`` (the first time: all history before ``begin`` too)."""
        base = dict(chunk)
        for symbol, source in self._sources.items():
            if symbol not in base:
                first = begin if self._started else min(begin, source.span[0])
                base[symbol] = source.bars(symbol, first, until)
        self._started = True
        self.feed({tf: _resampled(base, tf, until) for tf in self.horizons.values()}, until)

    def feed(self, series: Mapping[str, Mapping[str, BarSeries]], until: int) -> None:
        """Add the next bars by timeframe and symbol: all that have closed by ``until`` on a timeframe that is there."""
        hourly = series.get("1h", {})
        if "1h" in series:
            self.timeline.extend(
                {s: (b.close_ts, b.close) for s, b in hourly.items() if len(b) and not dominance_of(s)},
                until // micros("1h") * micros("1h"),
            )
        for horizon, timeframe in self.horizons.items():
            bars = series.get(timeframe, {})
            for driver, names in self._members.items():
                self._run(driver, horizon, [bars[s] for s in names if s in bars and len(bars[s])])

    def _run(self, driver: str, horizon: str, series: list[BarSeries]) -> None:
        if not series:
            return
        key = (driver, horizon)
        least = MIN_BUCKET_POPULATION if driver.startswith("bucket:") else 1
        memory = self._indices.get(key, CompositeMemory())
        index, self._indices[key] = extend_composite(memory, series, name=driver, min_members=least)
        measured, self._memories[key] = advance(self._memories.get(key), index, config=EngineConfig(bootstrap_s3=True))
        columns = self._script.over(measured)
        buy_signal, buy_flag = flags_over(columns, BASE_GATES)
        track = DriverTrack(
            columns.ts,
            columns.state,
            columns.prev_state,
            buy_flag,
            buy_signal,
            columns["first_dip"].astype(bool),
            columns["trim_flag"].astype(bool),
            columns["emergency_exit"].astype(bool) & (self.timeline.model == "flags"),
        )
        self.timeline.extend_driver(driver, horizon, track)


def _resampled(base: Mapping[str, BarSeries], timeframe: str, until: int) -> dict[str, BarSeries]:
    """The series that have bars fine enough for ``timeframe``, on it."""
    fit = {symbol: bars for symbol, bars in base.items() if micros(timeframe) % bars.step == 0}
    return {symbol: resample(bars, timeframe, until=until)[0] for symbol, bars in fit.items()}
