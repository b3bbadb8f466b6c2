"""Hard limits on new buys, applied after learning: a learned number can shrink an order here, never widen a limit
(trading.md 3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_DOWN, Decimal

from edgebook.domain.book import ZERO
from edgebook.trading.rules import RiskRules
from edgebook.trading.skew import Lot

_USD = Decimal("0.000001")
_BPS = Decimal(10_000)


@dataclass(frozen=True, slots=True)
class BookView:
    """What the risk limits need to know of the book, all in USD.

    Attributes:
        nav: cash plus holdings at mark.
        free_cash: cash less what open buys may still cost, their fees included.
        open_cost_total, open_cost_token, open_cost_position: cost of what is held in the book, of this token on all its
            timeframes, of this position; reservations of other positions' open buys included.
        reserved: reserved by this position's own open buys.
        lots: what is held, by pattern; empty where buys are not skewed.
    """

    nav: Decimal
    free_cash: Decimal
    open_cost_total: Decimal = ZERO
    open_cost_token: Decimal = ZERO
    open_cost_position: Decimal = ZERO
    reserved: Decimal = ZERO
    lots: tuple[Lot, ...] = ()


@dataclass(frozen=True, slots=True)
class Capped:
    """A buy after the limits: its USD (0 when nothing is left) and the names of the limits that cut it, in order."""

    notional_usd: Decimal
    caps: tuple[str, ...]


def usd_remaining(book: BookView, allocation_pct: float) -> Decimal:
    """What a position may still spend: ``max(0, nav * allocation - open cost - reserved)`` (trading.md 3.3).

    >>> usd_remaining(BookView(Decimal(1000), Decimal(1000), open_cost_position=Decimal(30)), 10.0)
    Decimal('70.0')
    """
    share = book.nav * Decimal(repr(allocation_pct)) / 100
    return max(ZERO, share - book.open_cost_position - book.reserved)


def with_fee(notional_usd: Decimal, rules: RiskRules) -> Decimal:
    """What a buy may cost in cash: its USD, and on top the fee, rounded up to 1e-6.

    >>> with_fee(Decimal(1000), RiskRules())
    Decimal('1003.000000')
    """
    return notional_usd + (notional_usd * rules.fee_bps / _BPS).quantize(_USD, rounding=ROUND_CEILING)


def limit_buy(wanted: Decimal, book: BookView, allowance: Decimal, bar_volume_usd: float, rules: RiskRules) -> Capped:
    """Cut a buy of ``wanted`` USD to every limit; below the smallest order nothing is left and ``min_notional`` says
    so.

    Limits in order: ``allocation`` (what the position may still spend), ``cash_reserve`` (what is left of it pays the
    fee too), ``exposure``, ``per_token``, ``participation`` (share of the decision bar's USD volume), ``min_notional``.

    >>> book = BookView(nav=Decimal(1000), free_cash=Decimal("100.15"))
    >>> limit_buy(Decimal(80), book, Decimal(500), 10_000.0, RiskRules())
    Capped(notional_usd=Decimal('50.000000'), caps=('cash_reserve',))
    """
    limits = (
        ("allocation", allowance),
        ("cash_reserve", (book.free_cash - rules.cash_reserve * book.nav) / (1 + rules.fee_bps / _BPS)),
        ("exposure", rules.max_exposure * book.nav - book.open_cost_total),
        ("per_token", rules.per_token * book.nav - book.open_cost_token),
        ("participation", rules.participation * Decimal(repr(bar_volume_usd))),
    )
    left, caps = wanted, []
    for name, limit in limits:
        if left > limit:
            left = max(ZERO, limit)
            caps.append(name)
    left = left.quantize(_USD, rounding=ROUND_DOWN)
    if left < rules.min_notional_usd:
        return Capped(ZERO, (*caps, "min_notional"))
    return Capped(left, tuple(caps))
