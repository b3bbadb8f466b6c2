"""Broker for a real exchange: dry (fills on paper against the venue's order book) and live (trading.md 4.1).

Live, money is spent once or not at all, by four rules:

1. On every call the venue is asked for every client id that may exist and for the one that may be sent next.
2. Every attempt is an IOC limit order with a client id that follows from the order's (`attempt_id`), so that a process
   that knows nothing any more finds it again.
3. An attempt whose fate is unknown (no answer, or sent by a process that has ended) is dead only when the venue has
   said twice that there is no such order, ``grace_seconds`` apart by ``now`` and by this process's own clock. The venue
   refuses requests that are older than its receive window, which is shorter: what is not there then does not come.
4. What filled is what the venue lists as fills, over all attempts; the request is never booked.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from edgebook.adapters.brokers.fills import FAR_BPS, Sized, Unfit, booked, on_paper, size
from edgebook.adapters.venue import Market, NoAnswerError, NoMarketError, RefusedError, Venue, VenueOrder, VenueTrade
from edgebook.domain.book import ZERO, Order
from edgebook.domain.errors import InputError
from edgebook.ports import MAX_SLIPPAGE_BPS, Execution, Quote

MODES = ("dry", "live")
_MICROS = 1_000_000
#: ccxt hands on quantities as floats: their sum may differ from the venue's by this share.
_ROUNDING = Decimal("1e-12")


def attempt_id(client_id: str, attempt: int, length: int) -> str:
    """Client id of an attempt at the venue: that of the order, then with its number; shortened where it is too long.

    >>> attempt_id("1b4e28ba-2fa1-51d2-883f-0016d3cca427", 0, 36)
    '1b4e28ba-2fa1-51d2-883f-0016d3cca427'
    >>> attempt_id("1b4e28ba-2fa1-51d2-883f-0016d3cca427", 2, 36)
    '1b4e28ba2fa151d2883f0016d3cca427-2'
    """
    text = f"{client_id}-{attempt}" if attempt else client_id
    for candidate in (text, f"{client_id.replace('-', '')}-{attempt}"):
        if len(candidate) <= length and candidate.replace("-", "").isalnum() and candidate.isascii():
            return candidate
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True, slots=True)
class Known:
    """What the venue knows of one planned order: ``none``, ``open``, ``done`` (see ``filled``) or ``unknown``."""

    client_id: str
    state: str
    filled: Decimal = ZERO
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found at the start.

    Attributes:
        orders: what the venue knows of every planned order.
        strangers: client ids of open orders in the same markets that belong to none of them.
        balances: what the account holds by currency.
        reason: why strangers and balances could not be read, "" if they were.
    """

    orders: tuple[Known, ...]
    strangers: tuple[str, ...] = ()
    balances: Mapping[str, Decimal] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Moment:
    """A time by the caller's clock and by our own."""

    now: int
    own: float


@dataclass(slots=True)
class _Track:
    """What this process knows of one order's attempts; kept as long as it lives, and built to be lost with it.

    Attributes:
        sent: client ids of attempts 0 to ``sent - 1`` may exist at the venue.
        unsure: the fate of some of them is unknown.
        inherited: they may have been sent by a process that has ended.
        acked: the venue accepted the newest, so that it exists even when it is not listed yet.
        absent: when the venue first said that there is none.
        resting: when it was first seen open.  cancelled: when we cancelled it.
        arrival: price that slippage of the newest is measured against.  rung: fruitless tries so far.
        middle: price in the middle of the book when it was sent; None where its limit may be very far from it.
    """

    sent: int = 0
    unsure: bool = False
    inherited: bool = False
    acked: bool = False
    absent: _Moment | None = None
    resting: _Moment | None = None
    cancelled: _Moment | None = None
    arrival: float | None = None
    middle: float | None = None
    rung: int = 0


class ExchangeBroker:
    """Implements `edgebook.ports.Broker` on a `Venue`.

    An order is sent at once, with or without a quote; the quote's price, else the middle of the order book when it was
    sent, is what slippage is measured against. ``execute`` never raises for reasons of the venue: while it gives no
    usable answer the order stays ``open``, with a reason, counted in ``troubles``. It waits for answers, at most the
    venue's time-out each, and never otherwise.

    Args:
        venue: where orders go.
        book: name of the book this broker trades for.
        mode: ``dry`` or ``live``.
        live_books: books that may trade live: the second switch.
        grace_seconds: time between the two look-ups that prove an attempt dead.
        attempts: most attempts per order; then it is rejected, and an exit is planned anew on the next bar.
        ladder_bps: farthest limit from the middle, by fruitless tries so far (the last one goes on).
        max_slippage_bps: no limit is farther than this.
        clock: seconds that never run backwards.

    Raises:
        InputError: live without both switches or without credentials, or a number that makes no sense.
    """

    def __init__(
        self,
        venue: Venue,
        *,
        book: str,
        mode: str = "dry",
        live_books: Collection[str] = (),
        grace_seconds: float = 30.0,
        attempts: int = 3,
        ladder_bps: Sequence[float] = (100.0, 300.0, MAX_SLIPPAGE_BPS),
        max_slippage_bps: float = MAX_SLIPPAGE_BPS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_switches(venue, mode, book, live_books)
        if not grace_seconds >= venue.longest_delay_seconds:
            raise InputError(
                f"grace_seconds was {grace_seconds:g}; it must be at least {venue.longest_delay_seconds:g}, "
                "the longest time an order can be on its way (time-out and receive window)"
            )
        if attempts < 1 or not ladder_bps or not all(0 < bps < 10_000 for bps in ladder_bps):
            raise InputError("attempts must be 1 or more, and ladder_bps hold numbers between 0 and 10000")
        if not max(ladder_bps) <= max_slippage_bps:
            raise InputError(
                f"ladder_bps goes up to {max(ladder_bps):g} and max_slippage_bps is {max_slippage_bps:g}; "
                "no rung may be beyond it"
            )
        self.mode, self.book = mode, book
        self.troubles: Counter[str] = Counter()
        self._venue, self._grace, self._attempts, self._ladder = venue, grace_seconds, attempts, tuple(ladder_bps)
        self._clock = clock
        self._tracks: dict[str, _Track] = {}
        self._since: int | None = None

    def __repr__(self) -> str:
        return f"ExchangeBroker({self._venue.name!r}, book={self.book!r}, mode={self.mode!r})"

    def execute(self, order: Order, quote: Quote | None, now: int) -> Execution:
        """Send the order, or say what became of it; asking again asks the venue again and books nothing twice.

        Status is ``filled``, ``partial``, ``rejected``, ``expired`` or ``open``; ``reason`` says why unless filled.
        """
        self._begin(now)
        impossible = _impossible(order)
        if impossible:
            return _nothing("rejected", now, impossible)
        try:
            market = self._venue.market(order.symbol)
            return (self._dry if self.mode == "dry" else self._live)(order, market, quote, now)
        except NoMarketError as no:
            track = self._track(order)
            return _nothing("open" if track.sent and self.mode == "live" else "rejected", now, no.message)
        except (NoAnswerError, RefusedError) as error:
            return _nothing("open", now, self._counted(error))

    def reconcile(self, orders: Sequence[Order], now: int) -> Reconciliation:
        """Look up every planned order; to be called once, before the first order is executed.

        Sends and cancels nothing. Orders planned up to ``now`` may have been sent by a process that has ended: nothing
        is sent for them until the venue has proven otherwise (whether they are among ``orders`` or not).
        """
        self._begin(now)
        if self.mode == "dry":
            return Reconciliation(tuple(Known(order.client_id, "none") for order in orders))
        for order in orders:
            self._tracks.setdefault(order.client_id, self._inherit())
        found = tuple(self._known_state(order, now) for order in orders)
        try:
            markets = {order.symbol: self._venue.market(order.symbol) for order in orders}
            ours = {i for order in orders for i in self._ids(order, self._attempts)}
            strangers = tuple(i for i in self._venue.open_orders(list(markets.values())) if i not in ours)
            return Reconciliation(found, strangers, self._venue.balances())
        except (NoAnswerError, RefusedError) as error:
            return Reconciliation(found, reason=self._counted(error))

    # -- dry

    def _dry(self, order: Order, market: Market, quote: Quote | None, now: int) -> Execution:
        if _expired(order, now):
            return _nothing("expired", now, "the order expired before it was sent")
        sized = self._sized(order, market, self._tracks.setdefault(order.client_id, _Track()), quote)
        if isinstance(sized, Unfit):
            return _unfit(sized, now)
        fill, arrival = sized
        return on_paper(order, market, fill, arrival, now)

    def _sized(self, order: Order, market: Market, track: _Track, quote: Quote | None) -> tuple[Sized, float] | Unfit:
        """What to send, and the price that slippage is measured against."""
        if not market.active:
            return Unfit("open", f"{market.symbol} is not trading at the moment")
        seen = self._venue.book(market)
        sized = size(order, market, seen, self._ladder[min(track.rung, len(self._ladder) - 1)])
        track.rung += 1
        if isinstance(sized, Unfit):
            return sized
        return sized, _arrival(quote, float(seen.mid or sized.limit))

    # -- live

    def _live(self, order: Order, market: Market, quote: Quote | None, now: int) -> Execution:
        track = self._track(order)
        return self._known(order, market, track, quote, now) or self._send(order, market, track, quote, now)

    def _known(self, order: Order, market: Market, track: _Track, quote: Quote | None, now: int) -> Execution | None:
        """What the venue knows of the order; None when it has proven that nothing filled and nothing will."""
        found = self._find(order, market, track)
        resting = [o for o in found.values() if o.open]
        if resting:
            return self._rest(order, market, track, resting, now)
        unproven = self._unproven(track, found, now)
        if unproven:
            return _nothing("open", now, unproven)
        complete = bool(found) and all(o.filled == o.quantity for o in found.values())
        if track.cancelled is not None and not complete and not self._elapsed(track.cancelled, now):
            return _nothing("open", now, "cancelled; a fill may still come in")
        if any(o.filled for o in found.values()):
            return self._book(order, market, track, found, quote, now)
        if found and found[max(found)].status == "rejected":
            return _nothing("rejected", now, f"{self._venue.name} rejected the order after it was sent")
        if _expired(order, now):
            return _nothing(
                "expired", now, "the order expired" + ("; nothing filled" if found else " before it was sent")
            )
        return None

    def _find(self, order: Order, market: Market, track: _Track) -> dict[int, VenueOrder]:
        """Attempts that the venue knows, by number. Asks for all that may exist and for the one that may come next."""
        ids = self._ids(order, min(track.sent + 1, self._attempts))
        asked = {number: self._venue.order(market, ident) for number, ident in enumerate(ids)}
        found = {number: known for number, known in asked.items() if known is not None}
        track.sent = max(track.sent, max(found, default=-1) + 1)
        return found

    def _unproven(self, track: _Track, found: Mapping[int, VenueOrder], now: int) -> str:
        """Why it is still unknown what became of an attempt, "" when it is known."""
        if not track.unsure:
            return ""
        if track.sent - 1 in found or _whole(found):
            track.unsure = False
            return ""
        if track.acked:
            return f"{self._venue.name} accepted the order and does not list it yet"
        if track.absent is None or now < track.absent.now:
            track.absent = self._moment(now)
        if not self._elapsed(track.absent, now):
            return f"the last attempt was not answered; {self._venue.name} does not know of it so far"
        track.unsure = False
        if track.inherited:
            track.sent, track.inherited = max(found, default=-1) + 1, False
        return ""

    def _rest(self, order: Order, market: Market, track: _Track, resting: Sequence[VenueOrder], now: int) -> Execution:
        """An IOC order that is open has gone silent: buys are cancelled when they expire, exits after the grace."""
        track.resting = track.resting or self._moment(now)
        if order.side == "buy" and order.expires_ts > 0:
            due = _expired(order, now)
        else:
            due = self._elapsed(track.resting, now)
        if not due:
            return _nothing("open", now, f"open at {self._venue.name}, {resting[-1].filled:f} filled so far")
        for one in resting:
            self._venue.cancel(market, one.client_id)
        track.cancelled = self._moment(now)
        return _nothing("open", now, "cancelled; its final state is read next")

    def _send(self, order: Order, market: Market, track: _Track, quote: Quote | None, now: int) -> Execution:
        number = track.sent
        if number >= self._attempts:
            return _nothing("rejected", now, f"nothing filled in {number} attempts")
        sized = self._sized(order, market, track, quote)
        if isinstance(sized, Unfit):
            return _unfit(sized, now)
        fill, track.arrival = sized
        track.middle = float(fill.middle) if max(self._ladder) < FAR_BPS else None
        track.sent, track.unsure, track.acked = number + 1, True, False
        track.absent = track.resting = track.cancelled = None
        ident = self._ids(order, number + 1)[number]
        try:
            self._venue.submit(market, order.side, fill.quantity, fill.limit, ident)
        except RefusedError as no:
            track.sent, track.unsure = number, False
            return _nothing("rejected", now, no.message)
        except NoAnswerError as error:
            if not error.happened:
                track.sent, track.unsure, track.rung = number, False, track.rung - 1
            raise
        track.acked = True
        return self._known(order, market, track, quote, now) or _nothing("open", now, "nothing filled in this attempt")

    def _book(
        self,
        order: Order,
        market: Market,
        track: _Track,
        found: Mapping[int, VenueOrder],
        quote: Quote | None,
        now: int,
    ) -> Execution:
        trades: list[VenueTrade] = []
        for attempt in found.values():
            listed = self._venue.trades(market, attempt.id) if attempt.filled else ()
            if abs(sum((t.quantity for t in listed), ZERO) - attempt.filled) > attempt.filled * _ROUNDING:
                raise NoAnswerError("nonsense", f"{self._venue.name} lists fills that do not add up to what it filled")
            trades += listed
        arrival = _arrival(quote, track.arrival or order.decision_price)
        price_of = partial(self._price, quote=market.quote)
        return booked(order, market, trades, arrival, price_of, now, track.middle)

    def _price(self, currency: str, quote: str) -> Decimal | None:
        try:
            return self._venue.price(currency, quote)
        except (NoAnswerError, RefusedError) as error:
            self._counted(error)
            return None

    # -- what this process knows

    def _begin(self, now: int) -> None:
        """The first call marks the birth of this process: what was planned before it may have been sent."""
        if self._since is None:
            self._since = now

    def _track(self, order: Order) -> _Track:
        track = self._tracks.get(order.client_id)
        if track is None:
            old = self._since is None or order.planned_ts <= self._since
            track = self._tracks[order.client_id] = self._inherit() if old else _Track()
        return track

    def _inherit(self) -> _Track:
        return _Track(sent=self._attempts, unsure=True, inherited=True)

    def _ids(self, order: Order, count: int) -> list[str]:
        length = self._venue.dialect.id_length
        return [attempt_id(order.client_id, number, length) for number in range(count)]

    def _known_state(self, order: Order, now: int) -> Known:
        track = self._tracks[order.client_id]
        try:
            found = self._find(order, self._venue.market(order.symbol), track)
        except (NoAnswerError, RefusedError) as error:
            return Known(order.client_id, "unknown", reason=self._counted(error))
        self._unproven(track, found, now)
        if not found:
            return Known(order.client_id, "none")
        filled = sum((o.filled for o in found.values()), ZERO)
        return Known(order.client_id, "open" if any(o.open for o in found.values()) else "done", filled)

    def _moment(self, now: int) -> _Moment:
        return _Moment(now, self._clock())

    def _elapsed(self, since: _Moment, now: int) -> bool:
        return now - since.now >= self._grace * _MICROS and self._clock() - since.own >= self._grace

    def _counted(self, error: NoAnswerError | RefusedError) -> str:
        self.troubles[error.kind if isinstance(error, NoAnswerError) else "refused"] += 1
        return error.message


def _whole(found: Mapping[int, VenueOrder]) -> bool:
    """Whether the newest attempt that is known has filled wholly: then nothing was sent after it."""
    return bool(found) and found[max(found)].filled == found[max(found)].quantity


def _check_switches(venue: Venue, mode: str, book: str, live_books: Collection[str]) -> None:
    if mode not in MODES:
        raise InputError(f"broker mode was {mode!r}; it must be one of {', '.join(MODES)}")
    if mode == "live" and book not in live_books:
        raise InputError(
            f"broker mode is live, but book {book!r} is not in live_books "
            f"({', '.join(sorted(live_books)) or 'empty'}); add it there too, or use mode dry"
        )
    if mode == "live" and not venue.can_trade:
        raise InputError(
            f"broker mode is live, but {venue.name} was connected without credentials; give key and secret"
        )


def _impossible(order: Order) -> str:
    """Why no venue could carry the order out, "" if one could."""
    if order.side not in ("buy", "sell") or (order.notional_usd is None) == (order.quantity is None):
        return f"an order is a buy or a sell of USD or of tokens, this is {order.side!r}"
    amount = order.notional_usd if order.notional_usd is not None else order.quantity
    return "" if amount is not None and amount.is_finite() and amount > 0 else "the order is for nothing"


def _arrival(quote: Quote | None, otherwise: float) -> float:
    """Price that slippage is measured against: the quote's, where there is a usable one."""
    return quote.price if quote is not None and 0 < quote.price < math.inf else otherwise


def _expired(order: Order, now: int) -> bool:
    return order.side == "buy" and 0 < order.expires_ts <= now


def _nothing(status: str, ts: int, reason: str) -> Execution:
    return Execution(status, ZERO, 0.0, ZERO, 0.0, ts, reason)


def _unfit(why: Unfit, ts: int) -> Execution:
    return Execution(why.status, ZERO, 0.0, ZERO, 0.0, ts, why.reason, why.too_small)
