"""The exchange behind a running system: its clock, its bars, its broker, and what is told of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

import structlog

from edgebook.adapters.brokers.exchange import ExchangeBroker
from edgebook.adapters.feeds.exchange import ExchangeSource
from edgebook.adapters.venue import Secrets, Venue, connect, environment_secrets
from edgebook.domain.errors import InputError, MarketDataError, PortError
from edgebook.domain.evidence import Fact
from edgebook.domain.timeframe import micros
from edgebook.ports import UnitOfWork
from edgebook.runtime.live_tape import LiveTape, first_bar
from edgebook.runtime.settings import Settings
from edgebook.runtime.system import System
from edgebook.runtime.views import RECONCILED, TROUBLES
from edgebook.runtime.wallet import Shortfall, shortfalls

log = structlog.get_logger()

#: Bars of an outage are walked for exits as far back as this; what lies before is history.
CATCH_UP = 7 * 86_400 * 1_000_000
#: A clock that differs from the venue's by more is told of.
CLOCK_OFF_SECONDS = 5.0
#: How often the clocks are compared, and the account with the book.
_HOUR, _DAY = 3_600.0, 86_400.0
#: How long a start waits for the history of a symbol before orders are asked about without it.
_HISTORY_SECONDS = 30.0


def wall_clock() -> int:
    """This machine's time, microseconds UTC."""
    return time.time_ns() // 1_000


@dataclass(slots=True)
class VenueEnd:
    """One exchange as the pacer sees it.

    Attributes:
        source: its bars.
        broker: where orders go; None when they are filled on paper.
        now: what time it is, microseconds UTC.
        venue: who is asked for the time and the account; None where nobody is.
        monotonic: seconds that never run backwards.
    """

    source: ExchangeSource
    broker: ExchangeBroker | None = None
    now: Callable[[], int] = wall_clock
    venue: Venue | None = None
    monotonic: Callable[[], float] = time.monotonic
    _behind: tuple[int, float] | None = None
    _born: float | None = None
    _asked: dict[str, float] = field(default_factory=dict)
    _clock_off: float = 0.0
    _buried: int = 0
    _told: dict[str, str] = field(default_factory=dict)

    def moment(self, clock: int) -> int:
        """What time it is, never before ``clock``, up to where has been walked: where this machine's clock was set
        back, the seconds that have passed since are added to ``clock``."""
        now = self.now()
        if now >= clock:
            self._behind = None
            return now
        if self._behind is None or self._behind[0] != clock:
            self._behind = (clock, self.monotonic())
        return clock + round((self.monotonic() - self._behind[1]) * 1_000_000)

    def poll(self, system: System, now: int) -> Sequence[int]:
        """Ask for new bars once all there were have been walked; moments gone by whose bars have come late."""
        tape = system.tape
        if not isinstance(tape, LiveTape) or system.clock < tape.loaded_until:
            return ()
        tape.poll(now)
        return tape.late()

    def heard(self, system: System) -> bool:
        """Whether the past of every symbol is there, without which no outcome can be told; or was waited for."""
        own = self.monotonic()
        self._born = own if self._born is None else self._born
        return not isinstance(system.tape, LiveTape) or system.tape.heard or own - self._born >= _HISTORY_SECONDS

    def reconcile(self, system: System) -> None:
        """Look up what was planned before this process began, and show what was found.

        Raises:
            InputError: a live book has more than the account.
            PortError: a live account could not be read.
        """
        self._compare_clocks()
        if self.broker is None:
            return
        found = self.broker.reconcile(system.desk.open_orders(), self.now())
        facts = {
            "at": self.now(),
            "orders": [asdict(known) | {"filled": str(known.filled)} for known in found.orders],
            "strangers": list(found.strangers),
            "balances": {name: str(amount) for name, amount in sorted(found.balances.items())},
            "reason": found.reason,
        }
        self._tell(system.desk.uow, RECONCILED, {"mode": self.broker.mode, **facts})
        system.commit()
        log.info("reconciled", mode=self.broker.mode, **facts)
        if self.broker.mode == "live":
            self._require(system, found.balances, found.reason)

    def _require(self, system: System, balances: Mapping[str, Decimal], reason: str) -> None:
        """A live book starts only where the account holds what it says."""
        book = system.desk.rules.book
        if reason:
            raise PortError(
                f"broker is live and the account could not be read ({reason}); start again when it can", stage="boot"
            )
        self._asked["account"] = self.monotonic()
        for lacks in self._shortfalls(system, balances):
            what = (
                f"set starting_cash_usd to {int(lacks.account)} or less, with another --db, or pay in the rest"
                if lacks.cash
                else "give the account its tokens back, or use the account that holds them"
            )
            raise InputError(f"broker is live and book {book} has more than the account: {lacks}; {what}", stage="boot")

    def _shortfalls(self, system: System, balances: Mapping[str, Decimal]) -> list[Shortfall]:
        venue = self.venue
        markets = {symbol: venue.market(symbol) for symbol in self.source.symbols} if venue is not None else {}
        return shortfalls(system.desk, markets, balances)

    def _audit(self, system: System) -> None:
        """Compare account and book once a day, in the log."""
        if self.venue is None or self.broker is None or self.broker.mode != "live" or not self._due("account", _DAY):
            return
        try:
            lacking = self._shortfalls(system, self.venue.balances())
        except PortError as error:
            log.warning("account not read", reason=error.message)
            return
        if lacking:
            log.warning("account lacks", differences=[str(one) for one in lacking])
        else:
            log.info("account holds what the book says")

    def _compare_clocks(self) -> None:
        """Tell of a clock that differs from the venue's, once until it is right again."""
        if self.venue is None or not self._due("clock", _HOUR):
            return
        try:
            before = self.now()
            theirs = self.venue.time()
        except PortError as error:
            log.warning("clocks not compared", reason=error.message)
            return
        off = ((before + self.now()) / 2 - theirs) / 1_000_000
        if abs(off) <= CLOCK_OFF_SECONDS:
            self._clock_off = 0.0
        elif not self._clock_off:
            self._clock_off = round(off, 1)
            log.warning(
                "this machine's clock is off",
                seconds_ahead_of_venue=self._clock_off,
                means="buys may be taken for late and left out; set the clock",
            )

    def _due(self, what: str, every: float) -> bool:
        own = self.monotonic()
        if own - self._asked.get(what, -every) < every:
            return False
        self._asked[what] = own
        return True

    def note(self, system: System, now: int) -> None:
        """Bury candles that were refused, once each, and keep count of what goes wrong with the venue."""
        faults = self.source.faults
        for (symbol, ts), reason in list(faults.items())[self._buried :]:
            text = f"{symbol} candle that opens at {ts} us"
            system.desk.bury(MarketDataError(f"{text}: {reason}"), content=text, stage="feed", now=now)
        self._buried = len(faults)
        troubles: dict[str, Any] = {"orders": dict(sorted(self.broker.troubles.items()))} if self.broker else {}
        self._compare_clocks()
        self._audit(system)
        if self._clock_off:
            troubles["clock_seconds_ahead"] = self._clock_off
        if isinstance(system.tape, LiveTape):
            troubles["bars"] = dict(sorted(system.tape.failing.items()))
        self._tell(system.desk.uow, TROUBLES, troubles)

    def _tell(self, uow: UnitOfWork, name: str, facts: Mapping[str, Any]) -> None:
        text = json.dumps(facts, sort_keys=True)
        if self._told.get(name) != text:
            self._told[name] = text
            uow.meta.put(Fact(name, text))


def open_venue(
    settings: Settings,
    clock_at: int | None,
    *,
    secrets: Secrets | None = None,
    now: Callable[[], int] = wall_clock,
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[VenueEnd, int]:
    """The venue that ``feed`` names, with its broker, and the first moment to walk.

    Args:
        clock_at: where the database stands; None for a new one.
        secrets: gives ``key`` and ``secret`` of a live broker; None reads the environment.
        now, monotonic: the time, microseconds UTC; and seconds that never run backwards.

    Raises:
        InputError: an unknown venue or symbol, no ccxt, no credentials.
        PortError: the venue did not answer.
    """
    name = settings.feed.partition(":")[2]
    given = (secrets or environment_secrets(name)) if settings.broker == "live" else None
    venue = connect(name, secrets=given, url=settings.venue_url or None, clock=monotonic)
    broker = _broker(settings, venue, monotonic) if settings.broker != "paper" else None
    start = now() if clock_at is None else max(clock_at, now() - CATCH_UP)
    base = min(settings.timeframes, key=micros)
    source = ExchangeSource(venue, settings.symbols, base, start=first_bar(start, base))
    return VenueEnd(source, broker, now, venue, monotonic), start


def _broker(settings: Settings, venue: Venue, monotonic: Callable[[], float]) -> ExchangeBroker:
    return ExchangeBroker(
        venue,
        book=settings.book,
        mode=settings.broker,
        live_books=settings.live_books,
        grace_seconds=settings.grace_seconds,
        ladder_bps=settings.ladder,
        max_slippage_bps=settings.max_slippage_bps,
        clock=monotonic,
    )
