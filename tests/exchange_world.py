"""A local exchange, a venue connected to it, and a clock that only the test moves: what tests of brokers start from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from tests.exchange import Exchange, Rules

from edgebook.adapters.brokers.exchange import ExchangeBroker
from edgebook.adapters.venue import Venue, connect
from edgebook.domain.book import Order
from edgebook.domain.ids import stable_id
from edgebook.ports import Execution, Quote

SECOND = 1_000_000
START = 1_750_000_000 * SECOND
KEY, SECRET = "key-that-nobody-may-see", "secret-that-nobody-may-see"
SECRETS = {"key": KEY, "secret": SECRET}
GRACE = 30
DEEP_BIDS, DEEP_ASKS = "99.99:500 99.95:5000", "100.01:500 100.05:5000"


class World:
    """A market XUSDT around 100 and a time that starts at `START`; ``broker`` is this process's, until `restart`."""

    def __init__(self, exchange: Exchange, **venue: Any) -> None:
        self.exchange, self.own, self._venue = exchange, 0.0, venue
        exchange.list("XUSDT", Rules("X"), DEEP_BIDS, DEEP_ASKS)
        exchange.balances.update(USDT=Decimal(100_000), X=Decimal(1_000))
        self.now = self.planned = START
        self.venue = self.connect()
        self.broker = self.live()
        self.reconcile_empty()
        self.wait(60)
        self.planned = self.now

    def connect(self, **venue: Any) -> Venue:
        """A venue as one process would have it."""
        given: dict[str, Any] = {"secrets": SECRETS.get, "url": self.exchange.url, "clock": lambda: self.own}
        return connect("binance", **given | self._venue | venue)

    def live(self, **given: Any) -> ExchangeBroker:
        """A live broker on a venue of this world."""
        defaults: dict[str, Any] = {"book": "main", "mode": "live", "live_books": {"main"}, "grace_seconds": GRACE}
        return ExchangeBroker(self.venue, **defaults | {"clock": lambda: self.own} | given)

    def restart(self, *planned: Order) -> None:
        """The process ends; another one starts, which knows nothing but the planned orders."""
        self.venue = self.connect()
        self.broker = self.live()
        self.broker.reconcile(planned, self.now)

    def reconcile_empty(self) -> None:
        """Start with nothing planned."""
        self.broker.reconcile((), self.now)

    def wait(self, seconds: float) -> None:
        """Time passes, for everyone."""
        self.now += int(seconds * SECOND)
        self.own += seconds
        self.exchange.now = self.now

    def execute(self, order: Order, quote: Quote | None = None) -> Execution:
        """Ask the broker now."""
        return self.broker.execute(order, quote, self.now)

    def settle(self, order: Order, seconds: float = 60, most: int = 20) -> Execution:
        """Ask again and again until the order is not open any more."""
        for _ in range(most):
            done = self.execute(order)
            if done.status != "open":
                return done
            self.wait(seconds)
        raise AssertionError(f"still open after {most} calls: {done.reason}")

    def buy(self, usd: str = "1000", *, ttl: float = 600, name: str = "1", **changes: Any) -> Order:
        """A buy planned now."""
        return self._order(name, "buy", int(ttl * SECOND), notional_usd=Decimal(usd), quantity=None, **changes)

    def sell(self, tokens: str = "10", *, name: str = "1", **changes: Any) -> Order:
        """A sale planned now."""
        return self._order(name, "sell", 60 * SECOND, notional_usd=None, quantity=Decimal(tokens), **changes)

    def _order(self, name: str, side: str, ttl: int, **changes: Any) -> Order:
        given: dict[str, Any] = {
            "client_id": stable_id("order", side, name), "action_id": f"action-{name}", "position_id": "p",
            "symbol": "XUSDT", "timeframe": "1h", "side": side, "rule": 5 if side == "buy" else 1,
            "decision_type": "entry" if side == "buy" else "exit", "planned_ts": self.now,
            "expires_ts": self.now + ttl, "decision_price": 100.0, "bar_volume_usd": 1e9, "liquidity_usd": 1e9,
        }  # fmt: skip
        return Order(**given | changes)

    def traded(self) -> tuple[Decimal, Decimal]:
        """Base units and quote units that the exchange has filled in all, bought and sold together."""
        return sum((o.filled for o in self.exchange.orders), Decimal(0)), sum(
            (o.spent for o in self.exchange.orders), Decimal(0)
        )


@contextmanager
def world(**venue: Any) -> Iterator[World]:
    """A world with its exchange, stopped at the end."""
    exchange = Exchange().start()
    try:
        yield World(exchange, **venue)
    finally:
        exchange.stop()
