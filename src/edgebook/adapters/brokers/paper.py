"""Paper broker: orders filled against the next bar's open with the venue's costs (trading.md 4.2; decisions 43, 55)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

from edgebook.domain.book import ZERO, Order
from edgebook.domain.errors import InputError
from edgebook.domain.ids import hash_share
from edgebook.ports import MAX_SLIPPAGE_BPS, Execution, Quote

_QUANTITY = Decimal("1e-9")
_USD = Decimal("1e-6")
_BPS = 10_000.0
FILL_ON = ("next_open", "close")


@dataclass(frozen=True, slots=True)
class Venue:
    """Costs of one kind of venue.

    Attributes:
        fee_bps: fee on the filled notional, one side.
        slippage_bps: least slippage, one side.
        thin_slippage_bps: least slippage where less than ``thin_volume_usd`` trades in a day.
        thin_volume_usd: that volume, USD a day; 0 switches the rule off.
        impact: slippage per notional over liquidity; a constant-product pool has 2 (both sides counted as liquidity).
    """

    fee_bps: float
    slippage_bps: float
    thin_slippage_bps: float = 0.0
    thin_volume_usd: float = 0.0
    impact: float = 0.0


#: Exchange: fee 10, slippage 5 (10 below 10 M USD a day), no impact beyond the participation limit. DEX: fee 30,
#: slippage 50, impact 2 * notional / pool liquidity (decisions 55).
VENUES: Mapping[str, Venue] = {
    "exchange": Venue(10.0, 5.0, 10.0, 10e6),
    "dex": Venue(30.0, 50.0, impact=2.0),
}


@dataclass(frozen=True, slots=True)
class PaperCosts:
    """What the paper broker charges and allows.

    Attributes:
        venues: costs by venue kind.
        chains: venue kind of each chain; ``default`` for chains that are not listed.
        symbols: chain of each symbol (a symbol that is not listed counts as ``exchange``).
        ticks: price step of each symbol where known; slippage is at least half of it.
        participation: largest share of the decision bar's USD volume one order may take.
        max_slippage_bps: an order that would slip more is rejected.
        fill_on: ``next_open`` (of the first bar that opens after the plan) or ``close`` (of the decision bar, at once).
        failure_probability: share of orders that are rejected for no reason of their own; a hash of the order's client
            id decides, so that a run can be repeated.
    """

    venues: Mapping[str, Venue] = field(default_factory=lambda: VENUES)
    chains: Mapping[str, str] = field(default_factory=lambda: {"exchange": "exchange"})
    default: str = "dex"
    symbols: Mapping[str, str] = field(default_factory=dict)
    ticks: Mapping[str, float] = field(default_factory=dict)
    participation: float = 0.05
    max_slippage_bps: float = MAX_SLIPPAGE_BPS
    fill_on: str = "next_open"
    failure_probability: float = 0.0

    def __post_init__(self) -> None:
        if self.fill_on not in FILL_ON:
            raise InputError(f"fill_on must be {' or '.join(FILL_ON)}, was {self.fill_on!r}")
        if not 0.0 <= self.failure_probability <= 1.0:
            raise InputError(f"failure_probability must be from 0 to 1, was {self.failure_probability}")
        if not 0.0 < self.max_slippage_bps < _BPS:
            raise InputError(f"max_slippage_bps must be between 0 and {_BPS:g}, was {self.max_slippage_bps}")
        kinds = {*self.chains.values(), self.default}
        unknown = sorted(kinds - set(self.venues))
        if unknown:
            raise InputError(f"no costs for venue {unknown[0]!r}; venues are {', '.join(sorted(self.venues))}")

    def venue(self, symbol: str) -> Venue:
        """Costs that apply to ``symbol``."""
        chain = self.symbols.get(symbol, "exchange")
        return self.venues[self.chains.get(chain, self.default)]

    def slippage_bps(self, symbol: str, price: float, notional_usd: float, liquidity_usd: float) -> float:
        """One-side slippage in bps: base (venue, half a tick, thin trading) plus impact (decisions 55).

        Args:
            symbol: decides venue and tick.
            price: price before slippage.
            notional_usd: size of the order.
            liquidity_usd: pool liquidity on a DEX, else USD traded in 24 h; 0 when unknown.

        >>> PaperCosts().slippage_bps("A", 1.0, 1_000.0, 50e6), PaperCosts().slippage_bps("A", 1.0, 1_000.0, 5e6)
        (5.0, 10.0)
        """
        venue = self.venue(symbol)
        base = max(venue.slippage_bps, _BPS * self.ticks.get(symbol, 0.0) / (2.0 * price))
        if liquidity_usd < venue.thin_volume_usd:
            base = max(base, venue.thin_slippage_bps)
        if not venue.impact:
            return base
        return base + _BPS * venue.impact * notional_usd / max(liquidity_usd, 1.0)


class PaperBroker:
    """Fills orders on paper; implements `edgebook.ports.Broker`. Deterministic and without state.

    A buy of ``notional_usd`` fills at ``open (1 + slippage)``, a sale of ``quantity`` at ``open (1 - slippage)``, where
    the open is that of the next bar, or under ``fill_on="close"`` stands for the close of the decision bar; the
    fee is on the filled notional and comes on top (a buy spends notional + fee). At most ``participation`` of the
    decision bar's USD volume is filled, the rest is cancelled. Quantities are rounded down to 1e-9, USD to 1e-6.
    """

    def __init__(self, costs: PaperCosts | None = None) -> None:
        self.costs = costs or PaperCosts()

    def execute(self, order: Order, quote: Quote | None, now: int) -> Execution:
        """The order's execution at ``quote``, or what waiting means: buys expire, exits stay open (trading.md 4.2).

        Status is ``filled``, ``partial``, ``rejected``, ``expired`` or ``open``; ``reason`` says why unless filled.
        """
        if order.side not in ("buy", "sell") or (order.notional_usd is None) == (order.quantity is None):
            return _nothing("rejected", now, f"an order is a buy or a sell of USD or of tokens, this is {order.side!r}")
        if self.costs.fill_on == "close":
            quote = Quote(order.planned_ts, order.decision_price)
        if quote is None or (order.side == "buy" and 0 < order.expires_ts < quote.ts_open):
            if order.side == "buy" and 0 < order.expires_ts <= now:
                return _nothing("expired", now, "no bar opened before the order expired")
            return _nothing("open", now, "no bar has opened yet")
        chance = self.costs.failure_probability
        if chance and hash_share(order.client_id, "paper") < chance:
            return _nothing("rejected", quote.ts_open, f"simulated failure (failure_probability {chance:g})")
        if not quote.price > 0:
            return _nothing("rejected", quote.ts_open, f"quote price was {quote.price}; it must be positive")
        return self._fill(order, quote)

    def _fill(self, order: Order, quote: Quote) -> Execution:
        price = Decimal(repr(quote.price))
        if order.notional_usd is not None:
            wanted = order.notional_usd
        else:
            wanted = _usd((order.quantity or ZERO) * price)
        if wanted <= 0:
            return _nothing("rejected", quote.ts_open, "the order is for nothing")
        limit = _usd(Decimal(repr(self.costs.participation * order.bar_volume_usd)))
        if limit <= 0:
            return _nothing("rejected", quote.ts_open, "no volume traded on the decision bar")
        notional = min(wanted, limit)
        slip = self.costs.slippage_bps(order.symbol, quote.price, float(notional), order.liquidity_usd)
        if slip > self.costs.max_slippage_bps:
            return _nothing(
                "rejected",
                quote.ts_open,
                f"slippage {slip:.0f} bps above the limit of {self.costs.max_slippage_bps:.0f}",
            )
        direction = 1.0 if order.side == "buy" else -1.0
        at = quote.price * (1.0 + direction * slip / _BPS)
        if order.quantity is not None:
            share = order.quantity if notional == wanted else order.quantity * notional / wanted
        else:
            share = notional / Decimal(repr(at))
        quantity = share.quantize(_QUANTITY, rounding=ROUND_DOWN)
        if quantity <= 0:
            return _nothing("rejected", quote.ts_open, "the order is smaller than the least quantity 1e-9")
        fee = _usd(quantity * Decimal(repr(at)) * Decimal(repr(self.costs.venue(order.symbol).fee_bps)) / 10_000)
        partial = notional < wanted
        reason = f"participation limit {self.costs.participation:.0%} of the decision bar" if partial else ""
        return Execution("partial" if partial else "filled", quantity, at, fee, slip, quote.ts_open, reason)


def _usd(value: Decimal) -> Decimal:
    return value.quantize(_USD, rounding=ROUND_HALF_EVEN)


def _nothing(status: str, ts: int, reason: str) -> Execution:
    return Execution(status, ZERO, 0.0, ZERO, 0.0, ts, reason)
