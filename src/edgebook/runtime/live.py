"""The exchange behind a running system: its clock, its bars, its broker, and what is told of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from edgebook.adapters.brokers.exchange import ExchangeBroker
from edgebook.adapters.feeds.exchange import ExchangeSource
from edgebook.adapters.venue import Secrets, Venue, connect, environment_secrets
from edgebook.domain.errors import MarketDataError
from edgebook.domain.evidence import Fact
from edgebook.domain.timeframe import micros
from edgebook.ports import UnitOfWork
from edgebook.runtime.live_tape import LiveTape, first_bar
from edgebook.runtime.settings import Settings
from edgebook.runtime.system import System
from edgebook.runtime.views import RECONCILED, TROUBLES

log = structlog.get_logger()

#: Bars of an outage are walked for exits as far back as this; what lies before is history.
CATCH_UP = 7 * 86_400 * 1_000_000


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
    """

    source: ExchangeSource
    broker: ExchangeBroker | None = None
    now: Callable[[], int] = wall_clock
    _buried: int = 0
    _told: dict[str, str] = field(default_factory=dict)

    def poll(self, system: System, now: int) -> None:
        """Ask for new bars once all there were have been walked."""
        tape = system.tape
        if isinstance(tape, LiveTape) and system.clock >= tape.loaded_until:
            tape.poll(now)

    def reconcile(self, system: System) -> None:
        """Look up what was planned before this process began, and show what was found."""
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

    def note(self, system: System, now: int) -> None:
        """Bury candles that were refused, once each, and keep count of what goes wrong with the venue."""
        faults = self.source.faults
        for (symbol, ts), reason in list(faults.items())[self._buried :]:
            text = f"{symbol} candle that opens at {ts} us"
            system.desk.bury(MarketDataError(f"{text}: {reason}"), content=text, stage="feed", now=now)
        self._buried = len(faults)
        troubles: dict[str, Any] = {"orders": dict(sorted(self.broker.troubles.items()))} if self.broker else {}
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
    return VenueEnd(source, broker, now), start


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
