"""The tape of a market that is happening: read again and again, only up to what is final.

A bar is revealed once every symbol's answer is final up to its close. A symbol that keeps the others waiting longer
than `PATIENCE` (a halted one) is left behind, and taken up again where it was left when its bars come: `late` names the
moments of the bars it missed, to be walked then. What lies before the start is history: `BACKFILL_BARS` bars of every
timeframe, asked for on that timeframe.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from edgebook.adapters.feeds.candles import joined
from edgebook.adapters.feeds.exchange import ExchangeSource
from edgebook.domain.decay import DAY
from edgebook.domain.errors import PortError
from edgebook.domain.timeframe import micros
from edgebook.engine.columns import EngineConfig
from edgebook.market.bars import BarSeries, resample
from edgebook.runtime.market import BACKFILL_BARS, Tape

log = structlog.get_logger()

_SECOND = 1_000_000
#: How long the others wait for a symbol whose bar does not come.
PATIENCE = 20 * _SECOND
#: How often a symbol is asked for a bar that should be there; and one that was left behind.
ASK_EVERY, ASK_BEHIND_EVERY = 2 * _SECOND, 15 * _SECOND


def first_bar(start: int, timeframe: str) -> int:
    """From where base bars are asked for when trading starts at ``start``: 1,000 bars and a day, on a whole day, so
    that no coarser bar begins in the middle."""
    return (start - max(BACKFILL_BARS * micros(timeframe), DAY)) // DAY * DAY


class LiveTape(Tape):
    """A `Tape` over an exchange; `poll` asks it, everything else reads what has been polled.

    Args:
        source: bars from `first_bar` on.
        start: first moment at which anything is decided.
    """

    live = True

    def __init__(
        self,
        source: ExchangeSource,
        timeframes: Sequence[str],
        *,
        start: int,
        config: EngineConfig | None = None,
        normalise_h: bool = False,
        appetite_model: str = "driver",
    ) -> None:
        super().__init__(
            source,
            timeframes,
            start=start,
            chunk_days=1,
            config=config,
            normalise_h=normalise_h,
            appetite_model=appetite_model,
        )
        self.exchange = source
        self.failing: dict[str, str] = {}
        """Symbols whose last question was not answered, with the reason."""
        self._horizons = {tf for tf in self._drivers.horizons.values() if micros(tf) % self._step == 0}
        self._past: dict[str, dict[str, BarSeries]] = {}
        self._recent: dict[str, BarSeries] = {}
        self._taken = dict.fromkeys(self.symbols, self._loaded)
        self._built = {(symbol, tf): self._loaded for symbol in self.symbols for tf in self.timeframes}
        self._fed: dict[str, int] = {}
        self._behind: set[str] = set()
        self._late: set[int] = set()
        self._asked: dict[str, int] = {}
        self._opened = -1

    def load(self, now: int) -> None:
        """Nothing: what there is has been polled."""

    def poll(self, now: int) -> None:
        """Ask for what should be there at ``now``, and reveal what is final for all symbols but those left behind.

        To be called once the clock has reached `loaded_until`. A venue that does not answer is asked again later.
        """
        self._opened = now if self._opened < 0 else self._opened
        target = max(now // self._step * self._step, self._loaded)
        if target == self._loaded and not self._behind:
            return
        for symbol in self.symbols:
            self._ask(symbol, target, now)
        until = self._ready(target, now)
        if until > self._loaded:
            self._read(self._loaded, until, now)
            self._loaded = until
        else:
            self._take_up()

    def late(self) -> list[int]:
        """Moments gone by of which bars have been revealed since they were walked, ascending; each is told once.

        `due` knows these bars, and no other ones of those moments, until the next `poll`.
        """
        found, self._late = sorted(self._late), set()
        return found

    @property
    def heard(self) -> bool:
        """Whether the history of every symbol is there."""
        return self._past.keys() >= set(self.symbols)

    def _ask(self, symbol: str, target: int, now: int) -> None:
        pause = ASK_BEHIND_EVERY if symbol in self._behind else ASK_EVERY
        if self._final(symbol) >= target or now - self._asked.get(symbol, -pause) < pause:
            return
        self._asked[symbol] = now
        try:
            if symbol not in self._past:
                self._past[symbol] = self._history(symbol)
            self.exchange.bars(symbol, target, target)
            self.failing.pop(symbol, None)
        except PortError as error:
            if self.failing.get(symbol) != error.message:
                log.warning("no bars", symbol=symbol, reason=error.message)
            self.failing[symbol] = error.message

    def _history(self, symbol: str) -> dict[str, BarSeries]:
        begin = self._taken[symbol]
        coarser = sorted({*self.timeframes, *self._horizons} - {self.base}, key=micros)
        return {tf: self.exchange.history(symbol, tf, self.start - BACKFILL_BARS * micros(tf), begin) for tf in coarser}

    def _final(self, symbol: str) -> int:
        return self.exchange.final_until(symbol) if symbol in self._past else 0

    def _ready(self, target: int, now: int) -> int:
        """Up to where bars can be revealed."""
        final = {symbol: min(self._final(symbol), target) for symbol in self.symbols}
        until = min((final[s] for s in self.symbols if s not in self._behind), default=max(final.values()))
        if now - max(target, self._opened) >= PATIENCE:
            until = max(final.values())
        if until > self._loaded:
            behind = {symbol for symbol in self.symbols if final[symbol] < until}
            if behind - self._behind:
                log.warning("left behind", symbols=sorted(behind - self._behind))
            self._behind = behind
        return until

    def _read(self, begin: int, until: int, now: int) -> None:
        self._drop_walked(begin)
        for symbol in self.symbols:
            if symbol in self._past:
                self._take(symbol, min(self._final(symbol), until), begin)
        self._feed_drivers(begin, until)
        self._forget()

    def _take_up(self) -> None:
        """Take the bars that symbols left behind have missed."""
        self._drop_walked(self._loaded)
        for symbol in sorted(self._behind & self._past.keys()):
            self._take(symbol, min(self._final(symbol), self._loaded), self._loaded)
            if self._final(symbol) >= self._loaded:
                self._behind.discard(symbol)

    def _drop_walked(self, walked: int) -> None:
        for timeframe in self.timeframes:
            self._due[timeframe] = {t: s for t, s in self._due[timeframe].items() if t > walked}

    def _take(self, symbol: str, top: int, walked: int) -> None:
        """Take the symbol's bars up to ``top``, its history first; those up to ``walked`` come late."""
        if symbol not in self._recent:
            for timeframe in self.timeframes:
                if timeframe in self._past[symbol]:
                    self._lines[symbol, timeframe].extend(self._past[symbol][timeframe], self._config)
        part = self.exchange.bars(symbol, self._taken[symbol], top)
        known = [self._recent[symbol]] if symbol in self._recent else []
        oldest = self.start - BACKFILL_BARS * self._step  # prices keep a day more, for the volume of 24 hours
        self._recent[symbol] = joined(symbol, self.base, [*known, part.slice(oldest, 1 << 62)])
        self._taken[symbol] = max(self._taken[symbol], top)
        self._prices[symbol].extend(part)
        for timeframe in self.timeframes:
            bars = self._next(symbol, timeframe, self._built[symbol, timeframe], top)
            ended = top // micros(timeframe) * micros(timeframe)
            self._built[symbol, timeframe] = max(self._built[symbol, timeframe], ended)
            closed = bars.close_ts
            self._late.update(closed[(closed > self.start) & (closed <= walked)].tolist())
            for ts, bits in self._lines[symbol, timeframe].extend(bars, self._config):
                self._due[timeframe].setdefault(ts, []).append((symbol, bits))

    def _next(self, symbol: str, timeframe: str, begin: int, top: int) -> BarSeries:
        """Bars of ``timeframe`` that open at or after ``begin`` and have closed by ``top``."""
        end = top // micros(timeframe) * micros(timeframe)
        return resample(self._recent[symbol].slice(begin, end), timeframe, until=end)[0]

    def _feed_drivers(self, begin: int, until: int) -> None:
        if not self._fed:
            past = {tf: {s: p[tf] for s, p in self._past.items() if tf in p} for tf in self._horizons}
            self._drivers.feed({tf: series for tf, series in past.items() if series}, begin)
            self._fed = dict.fromkeys(self._horizons, begin)
        ended = {tf: until // micros(tf) * micros(tf) for tf in self._horizons}
        series = {
            tf: {symbol: self._next(symbol, tf, self._fed[tf], until) for symbol in self._recent}
            for tf in self._horizons
            if ended[tf] > self._fed[tf]
        }
        self._fed |= {tf: ended[tf] for tf in series}
        self._drivers.feed(series, until)

    def _forget(self) -> None:
        """Keep only base bars of which some coarser bar has still to be built."""
        for symbol, recent in self._recent.items():
            oldest = min([*self._fed.values(), *(self._built[symbol, tf] for tf in self.timeframes)])
            self._recent[symbol] = recent.slice(oldest, 1 << 62)
