"""What the phase model of A and E must know of the book: open trades and cut pressure, hour by hour (trading.md 3.2).

Both follow from when trades opened and closed, so a restart finds the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from edgebook.domain.book import Decision, Position, Trade
from edgebook.domain.decay import HOUR
from edgebook.market.appetite_models import PHASED, cut_pressure
from edgebook.market.appetite_models import Exposure as Exposure

_FOREVER = 1 << 62


class OpenTrades:
    """When the trades of a book were open, as far back as cut pressure looks."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[int, int]] = {}
        self._at = -1
        self._pressure = 0.0

    def clear(self) -> None:
        """Forget everything."""
        self._spans.clear()
        self._at = -1

    def opened(self, position: Position) -> None:
        """A position has a trade open."""
        if position.trade_id:
            self._spans.setdefault(position.trade_id, (position.entry_ts, _FOREVER))

    def closed(self, trade: Trade) -> None:
        """A trade has closed."""
        self._spans[trade.trade_id] = (trade.opened_at, trade.closed_at)

    def count(self, now: int) -> int:
        """Trades open just before ``now``, microseconds UTC."""
        return sum(opened < now <= closed for opened, closed in self._spans.values())

    def pressure(self, now: int, market: Callable[[int], float]) -> float:
        """Cut pressure at the last whole hour; ``market`` says what the market adds at an hour."""
        hour = now // HOUR * HOUR
        if hour != self._at:
            self._at = hour
            first = hour - (PHASED.hours - 1) * HOUR
            self._spans = {ident: span for ident, span in self._spans.items() if span[1] >= first}
            self._pressure = cut_pressure([(market(t), self.count(t)) for t in range(first, hour + 1, HOUR)])
        return self._pressure


def exposure_of(trades: OpenTrades, market: Callable[[int], float], decision: Decision | None, now: int) -> Exposure:
    """The exposure of a position at ``now``: of its book, and of its token as its decision knew it, aged since then."""
    context = decision.entry_context if decision else {}
    age, mcap = context.get("age_at_entry"), context.get("mcap_at_entry")
    return Exposure(
        trades.count(now),
        trades.pressure(now, market),
        float(age) * 24.0 + (now - decision.ts) / HOUR if decision and age is not None else None,
        float(mcap) if mcap is not None else None,
    )
