"""Bars from an exchange: a source that backfills and polls, and downloads into the project's own files."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb

from edgebook.adapters.feeds.candles import joined, read_page, series_of
from edgebook.adapters.feeds.parquet import ParquetSource
from edgebook.adapters.venue import Market, NoAnswerError, NoMarketError, Venue
from edgebook.domain.errors import InputError
from edgebook.domain.timeframe import micros
from edgebook.market.bars import BarSeries
from edgebook.ports import TokenInfo

_BLOCK = 1_000
_CHECKPOINT_BARS = 50_000
_ID = re.compile(r"[A-Za-z0-9]+")
A = TypeVar("A")


def _market(venue: Venue, symbol: str) -> Market:
    if not _ID.fullmatch(symbol):
        raise InputError(f"symbol {symbol!r} must be the venue's own id, letters and digits such as SOLUSDT")
    try:
        return venue.market(symbol)
    except NoMarketError as error:
        raise InputError(error.message) from error


@dataclass(slots=True)
class _Line:
    """What has been read of one symbol: blocks in order, complete up to ``until``."""

    market: Market
    until: int
    blocks: list[BarSeries] = field(default_factory=list)

    def add(self, part: BarSeries) -> None:
        if self.blocks and len(self.blocks[-1]) < _BLOCK:
            part = joined(part.symbol, part.timeframe, [self.blocks.pop(), part])
        self.blocks.append(part)


class ExchangeSource:
    """Bars of some symbols of a venue; implements `edgebook.ports.BarSource`.

    What has been read is kept and never asked for again. An answer for a span up to `final_until` never changes; beyond
    it, later answers only add bars.

    Args:
        venue: where to ask.
        symbols: the venue's ids, e.g. SOLUSDT.
        timeframe: the base timeframe.
        start: nothing before this moment (microseconds UTC) is ever asked for.

    Raises:
        InputError: a symbol the venue does not trade in USD.
        MarketDataError: an unknown timeframe.
        PortError: the venue did not answer.
    """

    def __init__(self, venue: Venue, symbols: Sequence[str], timeframe: str, *, start: int) -> None:
        step = micros(timeframe)
        self._venue, self._timeframe = venue, timeframe
        self._start = -(-start // step) * step
        self._lines = {symbol: _Line(_market(venue, symbol), self._start) for symbol in sorted(set(symbols))}
        self._now = 0
        self._faults: dict[tuple[str, int], str] = {}

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols, ascending."""
        return tuple(self._lines)

    @property
    def base_timeframe(self) -> str:
        """The timeframe that is asked for."""
        return self._timeframe

    @property
    def span(self) -> tuple[int, int | None]:
        """The first moment that may be asked for; endless."""
        return self._start, None

    @property
    def faults(self) -> Mapping[tuple[str, int], str]:
        """Candles that were refused, by symbol and open time, with the reason (for the dead letters): gaps so far."""
        return dict(self._faults)

    def final_until(self, symbol: str) -> int:
        """Up to here answers are final: every candle that closed by then has been read, or is a gap for good."""
        return self._line(symbol).until

    def bars(self, symbol: str, start: int, end: int) -> BarSeries:
        """Bars with ``ts_open >= start`` that have closed, by ``end`` and by the venue's clock.

        Raises:
            InputError: a symbol this source was not made for.
            PortError: the venue did not answer; what was read before is kept.
        """
        line, step = self._line(symbol), micros(self._timeframe)
        if line.until + step <= end:
            self._extend(symbol, line, end)
        parts = [block.slice(start, end - step + 1) for block in line.blocks]
        return joined(symbol, self._timeframe, [part for part in parts if len(part)])

    def history(self, symbol: str, timeframe: str, start: int, end: int) -> BarSeries:
        """Bars of a coarser timeframe with ``ts_open >= start`` that close by ``end``, as the venue has them.

        Raises:
            InputError: a symbol this source was not made for.
            PortError: the venue did not answer.
        """
        line, step = self._line(symbol), micros(timeframe)
        at, now, parts = -(-start // step) * step, self._venue.time(), list[BarSeries]()
        while at + step <= min(end, now):
            page = read_page(self._venue, line.market, timeframe, at, end, now)
            if page.rows:
                parts.append(series_of(symbol, timeframe, page.rows))
            self._faults |= {(symbol, ts): reason for ts, reason in page.faults.items()}
            if page.until <= at:
                break
            at = page.until
        return joined(symbol, timeframe, parts)

    def signals(self, start: int, end: int) -> Sequence[str]:
        """None: an exchange sends no social signals."""
        return ()

    def tokens(self) -> dict[str, TokenInfo]:
        """Every symbol with its base currency as ticker, on the chain ``exchange``."""
        return {symbol: TokenInfo(symbol, line.market.base, "exchange") for symbol, line in self._lines.items()}

    def _line(self, symbol: str) -> _Line:
        if symbol not in self._lines:
            raise InputError(f"{self._venue.name}: {symbol} is not among {', '.join(self._lines)}", stage="feed")
        return self._lines[symbol]

    def _extend(self, symbol: str, line: _Line, end: int) -> None:
        step = micros(self._timeframe)
        if self._now < end:
            self._now = self._venue.time()
        while line.until + step <= min(end, self._now):
            page = read_page(self._venue, line.market, self._timeframe, line.until, end, self._now)
            if page.rows:
                line.add(series_of(symbol, self._timeframe, page.rows))
            self._faults |= {(symbol, ts): reason for ts, reason in page.faults.items()}
            if page.until == line.until:
                return
            line.until = page.until


# ------------------------------------------------------------------ downloads


@dataclass(frozen=True, slots=True)
class Downloaded:
    """One file: bars in it, how many of them are new, candles missing between its first and last, and refused ones."""

    symbol: str
    path: Path
    bars: int
    added: int
    missing: int
    faults: tuple[str, ...]


def download(
    venue: Venue,
    symbols: Sequence[str],
    timeframe: str,
    start: int,
    end: int,
    directory: Path,
    *,
    pause_seconds: float = 0.05,
    tries: int = 6,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Downloaded, ...]:
    """Write one ``SYMBOL-<timeframe>.parquet`` per symbol with the closed candles in [start, end) (`ParquetSource`).

    Files that are there are completed, not read anew: run it again after it was interrupted, or later for what is new.
    A file is replaced as a whole, so a reader sees the old or the new one.

    Args:
        pause_seconds: pause after every page.
        tries: how often a page is asked for, with growing pauses, before giving up; what was read is kept.

    Raises:
        InputError: an unknown symbol, nothing between start and end, or a directory that cannot be written.
        MarketDataError: an unknown timeframe, or a file there is no file of bars; names it.
        PortError: the venue did not answer.
    """
    step = micros(timeframe)
    begin = -(-start // step) * step
    if begin + step > end:
        raise InputError(f"no {timeframe} candle fits between start and end; give a later end")
    clerk = _Clerk(venue, timeframe, pause_seconds, tries, sleep)
    markets = {symbol: clerk.patiently(partial(_market, venue, symbol)) for symbol in sorted(set(symbols))}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return tuple(clerk.file(market, begin, end, directory) for market in markets.values())
    except (OSError, duckdb.IOException) as error:
        raise InputError(f"{directory}: cannot write bars there: {str(error).splitlines()[0]}") from error


@dataclass(slots=True)
class _Clerk:
    """Fetches pages patiently and files them."""

    venue: Venue
    timeframe: str
    pause: float
    tries: int
    sleep: Callable[[float], None]

    def patiently(self, ask: Callable[[], A]) -> A:
        """The answer; a venue that does not answer is asked again after 1, 2, 4 ... seconds."""
        for attempt in range(self.tries - 1):
            try:
                return ask()
            except NoAnswerError:
                self.sleep(min(60.0, 2.0**attempt))
        return ask()

    def file(self, market: Market, begin: int, end: int, directory: Path) -> Downloaded:
        """Bring one file up to date."""
        symbol, faults = market.symbol, dict[int, str]()
        path = directory / f"{symbol}-{self.timeframe}.parquet"
        have = ParquetSource(directory, [symbol]).bars(symbol, 0, 1 << 62) if path.exists() else None
        series = have if have is not None else series_of(symbol, self.timeframe, {})
        before = len(series)
        if before and begin < series.ts_open[0]:
            early = list(self._pages(market, begin, int(series.ts_open[0]), faults))
            series = joined(symbol, self.timeframe, [*early, series])
            _write(path, series)
        series = self._append(market, series, begin, end, path, faults)
        told = tuple(f"{symbol} candle opening at {ts} us: {reason}" for ts, reason in sorted(faults.items()))
        return Downloaded(symbol, path, len(series), len(series) - before, int(series.gaps().sum()), told)

    def _append(
        self, market: Market, have: BarSeries, begin: int, end: int, path: Path, faults: dict[int, str]
    ) -> BarSeries:
        """Everything after what is there, written every so often: an interrupted download goes on where it was."""
        parts, unwritten = [have], 0
        at = int(have.ts_open[-1]) + have.step if len(have) else begin
        try:
            for part in self._pages(market, at, end, faults):
                parts.append(part)
                unwritten += len(part)
                if unwritten >= _CHECKPOINT_BARS:
                    parts, unwritten = [joined(market.symbol, self.timeframe, parts)], 0
                    _write(path, parts[0])
        finally:
            series = joined(market.symbol, self.timeframe, parts)
            if unwritten:
                _write(path, series)
        return series

    def _pages(self, market: Market, begin: int, end: int, faults: dict[int, str]) -> Iterator[BarSeries]:
        """Closed candles from ``begin`` on, page by page; what was wrong with others goes to ``faults``."""
        step, at, now = micros(self.timeframe), begin, self.patiently(self.venue.time)
        while at + step <= min(end, now):
            page = self.patiently(partial(read_page, self.venue, market, self.timeframe, at, end, now))
            faults |= page.faults
            if page.rows:
                yield series_of(market.symbol, self.timeframe, page.rows)
            if page.until <= at:
                return
            at = page.until
            self.sleep(self.pause)


def _write(path: Path, series: BarSeries) -> None:
    """Write beside ``path``, then replace it: a reader meets the old file or the new one, never half of one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    columns = {name: getattr(series, name) for name in ("ts_open", "open", "high", "low", "close", "volume")}
    target = str(part).replace("'", "''")
    try:
        with duckdb.connect() as connection:
            connection.register("columns", columns)
            connection.execute(
                "COPY (SELECT to_timestamp(ts_open / 1000000) AS timestamp, open, high, low, close, volume "
                f"FROM columns ORDER BY ts_open) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
            )
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
