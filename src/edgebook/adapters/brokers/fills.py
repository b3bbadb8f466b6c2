"""What to ask of an order book, and what fills were worth. Pure functions; money is Decimal, prices per base unit in
quote units, which count as USD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from edgebook.adapters.venue import USD_LIKE, Book, Level, Market, VenueTrade
from edgebook.domain.book import ZERO, Order
from edgebook.domain.errors import TradingError
from edgebook.ports import Execution

_BPS = Decimal(10_000)
_QUANTITY = Decimal("1e-9")
_USD = Decimal("1e-6")
#: The limit lies this much beyond the worst price needed, so that a book that moves a little still fills.
_CUSHION = Decimal("0.0005")
#: No venue takes a larger share of a fill than this: its fee is at most a few tenths of a percent.
_MOST_FEE = Decimal("0.1")
#: A limit order that fills at once fills near the middle of the book it was sent into.
FAR_BPS = 5_000.0
#: A buy that left less than this share of its USD (and less than one lot) is filled.
_LEFT = Decimal("0.001")


@dataclass(frozen=True, slots=True)
class Sized:
    """An order that the venue would take: base units, limit price, the levels within the limit, best first, and the
    middle of the book."""

    quantity: Decimal
    limit: Decimal
    levels: tuple[Level, ...]
    middle: Decimal


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why nothing can be sent now: ``rejected`` for good, or ``open`` as long as the book is like this."""

    status: str
    reason: str
    too_small: bool = False


def size(order: Order, market: Market, book: Book, cap_bps: float) -> Sized | Unfit:
    """How much to ask of the book, and at which limit.

    The limit is the worst price needed for the whole order plus a cushion of 5 bps, never beyond ``cap_bps`` from the
    middle; a buy never spends more than its USD even if all of it fills at the limit. Where the book holds less than
    that within the cap, the quantity is what it holds.
    """
    buys, mid = order.side == "buy", book.mid
    side = book.asks if buys else book.bids
    if mid is None or not side:
        return Unfit("open", f"the order book of {market.symbol} has no {'asks' if buys else 'bids'}")
    cap = mid * (1 + _signed(buys, Decimal(repr(cap_bps)) / _BPS))
    inside = [level for level in side if (level[0] <= cap if buys else level[0] >= cap)]
    if not inside:
        return Unfit("open", f"{market.symbol} is offered at {side[0][0]}, over {cap_bps:g} bps from the middle")
    limit = _limit(order, market, inside, cap)
    tokens = order.notional_usd / limit if order.notional_usd is not None else order.quantity or ZERO
    wanted = _down(tokens, market.step)
    least = max(market.min_quantity, market.step)
    if wanted < least or wanted * limit < market.min_notional:
        return Unfit(
            "rejected",
            f"{wanted} {market.base} at {limit} is too small: {market.symbol} takes at least {least} {market.base} "
            f"worth {market.min_notional.normalize():f} {market.quote}",
            too_small=True,
        )
    levels = tuple(level for level in inside if (level[0] <= limit if buys else level[0] >= limit))
    quantity = min(wanted, _down(sum((q for _, q in levels), ZERO), market.step), market.max_quantity or wanted)
    if quantity < least or quantity * limit < market.min_notional:
        return Unfit("open", f"the order book of {market.symbol} holds only {quantity} {market.base} within the cap")
    return Sized(quantity, limit, levels, mid)


def _limit(order: Order, market: Market, inside: Sequence[Level], cap: Decimal) -> Decimal:
    """The worst price needed, a cushion beyond it, on the tick grid, within the cap."""
    buys, left = order.side == "buy", order.notional_usd if order.notional_usd is not None else order.quantity or ZERO
    worst = inside[0][0]
    for price, quantity in inside:
        worst = price
        left -= quantity * price if order.notional_usd is not None else quantity
        if left <= 0:
            break
    padded = worst * (1 + _signed(buys, _CUSHION))
    if buys:
        return max(worst, _round(min(padded, cap), market.tick, ROUND_FLOOR))
    return min(worst, _round(max(padded, cap), market.tick, ROUND_CEILING))


def on_paper(order: Order, market: Market, sized: Sized, arrival: float, now: int) -> Execution:
    """The fill that ``sized`` would have had against its levels, at the venue's standard fee."""
    left, cost = sized.quantity, ZERO
    for price, offered in sized.levels:
        taken = min(left, offered)
        cost, left = cost + taken * price, left - taken
    trade = VenueTrade("paper", sized.quantity, cost / sized.quantity, cost * market.taker, market.quote, now)
    return booked(order, market, [trade], arrival, lambda currency: None, now)


def booked(
    order: Order,
    market: Market,
    trades: Sequence[VenueTrade],
    arrival: float,
    price_of: Callable[[str], Decimal | None],
    now: int,
    sent_at: float | None = None,
) -> Execution:
    """What the venue's fills of an order were worth.

    A fee taken from the tokens bought lessens the quantity and counts as a fee of the same value, so that
    ``quantity * price + fee`` is what was paid and the quantity is what is held.

    Args:
        arrival: price when the order was sent; slippage is against it, positive when worse (0 where it is 0: unknown).
        price_of: a currency in the market's quote, for fees in a third one; None when unknown, then the venue's
            standard fee is booked for that fill.
        now: no fill is booked later than this, nor before the order was planned.
        sent_at: price in the middle when the order was sent, by this process; None when it is not known.

    Raises:
        TradingError: the fills cannot be true: a fee above a tenth of their worth, or a price that is more than half
            away from ``sent_at``, where no limit of ours has ever been.
    """
    buys = order.side == "buy"
    amount = sum((t.quantity for t in trades), ZERO)
    cost = sum((t.quantity * t.price for t in trades), ZERO)
    withheld = sum((t.fee for t in trades if t.fee_currency == market.base), ZERO) if buys else ZERO
    fee = sum((_fee(t, market, price_of) for t in trades), ZERO)
    average = cost / amount
    _refuse_absurd(order, cost, fee, average, sent_at)
    ts = min(max(order.planned_ts, max(t.ts for t in trades)), now)
    whole = _whole(order, market, amount, cost)
    return Execution(
        "filled" if whole else "partial",
        (amount - withheld).quantize(_QUANTITY, rounding=ROUND_DOWN),
        float(average),
        fee.quantize(_USD, rounding=ROUND_HALF_EVEN),
        float(_signed(buys, average / Decimal(repr(arrival)) - 1) * _BPS) if arrival > 0 else 0.0,
        ts,
        "" if whole else f"{amount.normalize():f} {market.base} filled, worth {cost:.2f} {market.quote}",
    )


def _refuse_absurd(order: Order, cost: Decimal, fee: Decimal, average: Decimal, sent_at: float | None) -> None:
    said = ""
    if fee > cost * _MOST_FEE + _USD:
        said = f"a fee worth {fee:f} on {cost:f}, more than {_MOST_FEE:.0%}"
    elif sent_at and abs(average / Decimal(repr(sent_at)) - 1) * _BPS > FAR_BPS:
        said = f"a price of {average:f}, when the middle of the book was {sent_at:g}"
    if said:
        raise TradingError(f"order {order.client_id} came back filled with {said}", stage="venue")


def _whole(order: Order, market: Market, amount: Decimal, cost: Decimal) -> bool:
    if order.notional_usd is None:
        return (order.quantity or ZERO) - amount < market.step
    return order.notional_usd - cost <= order.notional_usd * _LEFT + market.step * cost / amount


def _fee(trade: VenueTrade, market: Market, price_of: Callable[[str], Decimal | None]) -> Decimal:
    if trade.fee_currency == market.base:
        return trade.fee * trade.price
    if trade.fee_currency == market.quote or trade.fee_currency in USD_LIKE or not trade.fee:
        return trade.fee
    price = price_of(trade.fee_currency)
    return trade.fee * price if price is not None else trade.quantity * trade.price * market.taker


def _signed(buys: bool, value: Decimal) -> Decimal:
    return value if buys else -value


def _down(value: Decimal, step: Decimal) -> Decimal:
    return value // step * step


def _round(value: Decimal, step: Decimal, rounding: str) -> Decimal:
    return (value / step).to_integral_value(rounding=rounding) * step
