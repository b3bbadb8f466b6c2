"""A simulated market played by the local exchange: its candles, its book, and a clock that only the test moves."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from tests.exchange import STEPS, Exchange, RefusedError, Rules
from tests.exchange_world import SECRETS
from tests.flow import world

from edgebook.adapters.feeds.sim import SimSource
from edgebook.domain.decay import DAY
from edgebook.market.bars import BarSeries, resample
from edgebook.ports import Store, TokenInfo
from edgebook.runtime import bootstrap, live
from edgebook.runtime.scheduler import run_live
from edgebook.runtime.settings import Settings
from edgebook.runtime.system import System

SECOND = 1_000_000
TF = "15m"
STEP = STEPS[TF] * SECOND
#: First bars asked for lie so many days before the start: 1,000 bars of 15 minutes, on a whole day.
PREHISTORY = 11
DELAY = 2 * SECOND


class Market:
    """The exchange of a market; ``at`` moves its clock and its order books."""

    def __init__(self, days: int, *, tokens: int = 3, seed: int = 2) -> None:
        self.exchange = Exchange().start()
        self.sim = SimSource(seed, tokens, prehistory=PREHISTORY)
        self.start, self.end = self.sim.start, self.sim.start + days * DAY
        self.bars: dict[str, BarSeries] = {}
        for symbol in self.sim.symbols:
            self.bars[symbol], _ = resample(self.sim.bars(symbol, 0, self.end), TF, until=self.end)
            self.exchange.list(symbol, Rules(symbol.removesuffix("USDT"), tick="0.00000001", step="0.0001"))
            self.exchange.candles[symbol, TF] = _candles(self.bars[symbol])
        self.exchange.balances["USDT"] = Decimal(100_000)
        self.at(self.start)

    def at(self, now: int) -> None:
        """Time is ``now``; books lie 1 bp around the price at which the bar of that moment opened."""
        self.exchange.now = now
        for symbol, bars in self.bars.items():
            i = int(bars.ts_open.searchsorted(now, side="right")) - 1
            mid = Decimal(repr(float(bars.open[i])))
            bid, ask = ((mid * f).quantize(Decimal("1e-8")) for f in (Decimal("0.9999"), Decimal("1.0001")))
            self.exchange.books[symbol] = ([(bid, Decimal(10**9))], [(ask, Decimal(10**9))])

    def settings(self, url: str = "memory", **change: Any) -> Settings:
        """Settings of a run on this market."""
        given = {
            "db": url, "feed": "ccxt:binance", "symbols": self.sim.symbols, "timeframes": TF, "broker": "paper",
            "venue_url": self.exchange.url,
        }  # fmt: skip
        return Settings(**given | change)

    def signals(self) -> list[str]:
        """One call per symbol, at the start."""
        return [
            world.signal_line(f"call-{symbol}", "2024-01-01T00:00:00Z", symbol)
            for symbol in self.sim.symbols
            if not symbol.startswith(("BTC", "ETH", "SOL"))
        ]

    def hold_back(self, begin: int, seconds: float, only: str = "") -> None:
        """For so many seconds from ``begin`` on, candles are not to be had: of one symbol, or of any."""
        real = self.exchange._klines

        def klines(params: dict[str, str]) -> Any:
            if begin <= self.exchange.now < begin + seconds * SECOND and only in ("", params["symbol"]):
                raise RefusedError(-1000, "busy", 503)
            return real(params)

        self.exchange._klines = klines  # type: ignore[method-assign]


def _candles(bars: BarSeries) -> dict[int, list[Any]]:
    rows = zip(bars.ts_open.tolist(), bars.open, bars.high, bars.low, bars.close, bars.volume, strict=True)
    return {ts // 1000: [repr(float(v)) for v in values] for ts, *values in rows}


class Recorded:
    """The bars of a market as a recorder would have kept them: a source for a walk without an exchange."""

    base_timeframe = TF

    def __init__(self, market: Market) -> None:
        self._bars, self.symbols = market.bars, tuple(sorted(market.bars))
        self.span = (min(int(b.ts_open[0]) for b in market.bars.values()), market.end)

    def bars(self, symbol: str, start: int, end: int) -> BarSeries:
        """Those that open at or after ``start`` and close by ``end``."""
        return self._bars[symbol].slice(start, end - STEP + 1)

    def signals(self, start: int, end: int) -> Sequence[str]:
        """None."""
        return ()

    def tokens(self) -> dict[str, TokenInfo]:
        """What the exchange's feed says of them."""
        return {s: TokenInfo(s, s.removesuffix("USDT"), "exchange") for s in self.symbols}


@contextmanager
def market(days: int, **how: Any) -> Iterator[Market]:
    """A market, its exchange stopped at the end."""
    made = Market(days, **how)
    try:
        yield made
    finally:
        made.exchange.stop()


@contextmanager
def opened(
    store: Store, settings: Settings, here: Market, ahead: Callable[[], int] = lambda: 0
) -> Iterator[tuple[System, live.VenueEnd]]:
    """The system on the exchange, as ``edgebook run`` makes it, with the test's clock; ``ahead`` of it by so much."""
    end, start = live.open_venue(
        settings, bootstrap.clock_of(store), secrets=SECRETS.get,
        now=lambda: here.exchange.now + ahead(), monotonic=lambda: here.exchange.now / SECOND,
    )  # fmt: skip
    feed = bootstrap.exchange_feed(settings, end, start)
    with bootstrap.system(store, settings, feed) as system:
        yield system, end


def follow(
    here: Market, until: int, each: Callable[[System], None] | None = None, slow: tuple[int, int] = (0, 0)
) -> Callable[[System, int], bool]:
    """A watcher that posts the signals on the first beat, and moves time on: to just after the next close once the
    clock has come to the last one and no order waits, else by three seconds; always so in the span ``slow``."""
    posted: list[bool] = []

    def watch(system: System, clock: int) -> bool:
        if not posted:
            posted.append(True)
            system.take(here.signals())
        if each is not None:
            each(system)
        now = here.exchange.now
        waits = clock < now // STEP * STEP or (system.at_venue and system.desk.orders) or slow[0] <= now < slow[1]
        following = (now // STEP + 1) * STEP + DELAY
        here.at(min(now + 3 * SECOND, following) if waits else following)
        return here.exchange.now < until

    return watch


def run(
    here: Market,
    store: Store,
    settings: Settings,
    until: int,
    each: Callable[[System], None] | None = None,
    *,
    slow: tuple[int, int] = (0, 0),
    ahead: Callable[[], int] = lambda: 0,
) -> str:
    """Run on the exchange until its clock comes to ``until``; the head of the log."""
    with opened(store, settings, here, ahead) as (system, end):
        run_live(system, end, None, queue.SimpleQueue(), follow(here, until, each, slow), pace_seconds=0.0)
        return system.desk.uow.log.head[1]


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is true.

    Raises:
        AssertionError: it does not become true.
    """
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)
