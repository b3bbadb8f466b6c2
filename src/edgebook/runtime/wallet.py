"""Whether the account at a venue holds what the book says it has.

The account may hold more; what it lacks cannot be spent or sold. Orders that are open may have been filled already, so
what they could have taken is not asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from edgebook.adapters.venue import Market
from edgebook.desk import Desk
from edgebook.domain.book import ZERO
from edgebook.trading.risk import with_fee

#: What a fee withheld or rounding may take; a larger part that is missing is missing.
_TOLERANCE = Decimal("1.01")
#: Tokens that cost no more than this are dust, USD.
_DUST_USD = Decimal(1)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One currency of which the account holds less than the book; ``cash`` is what buys are paid with."""

    currency: str
    book: Decimal
    account: Decimal
    cash: bool = False

    def __str__(self) -> str:
        return f"{_plain(self.book)} {self.currency} in the book, {_plain(self.account)} in the account"


def shortfalls(desk: Desk, markets: Mapping[str, Market], balances: Mapping[str, Decimal]) -> list[Shortfall]:
    """What the account lacks by more than 1 %, cash first, then tokens by name.

    Args:
        markets: those that are traded, by symbol; all their quote currencies together are the account's cash.
        balances: what the account holds by currency, locked amounts included.
    """
    account = desk.uow.accounts.get(desk.rules.book) or desk.opening
    spent = sum((with_fee(o.notional_usd, desk.rules.risk) for o in desk.orders.values() if o.notional_usd), ZERO)
    quotes = sorted({market.quote for market in markets.values()})
    there = sum((balances.get(name, ZERO) for name in quotes), ZERO)
    found = []
    if account.cash_usd - spent > there * _TOLERANCE:
        found.append(Shortfall("+".join(quotes), account.cash_usd, there, cash=True))
    return found + _tokens(desk, markets, balances)


def _tokens(desk: Desk, markets: Mapping[str, Market], balances: Mapping[str, Decimal]) -> list[Shortfall]:
    held: defaultdict[str, Decimal] = defaultdict(Decimal)
    asked: defaultdict[str, Decimal] = defaultdict(Decimal)
    worth: defaultdict[str, Decimal] = defaultdict(Decimal)
    for position in desk.uow.positions.values():
        if position.holding:
            currency = _currency(position.symbol, markets)
            held[currency] += position.ledger.quantity
            worth[currency] += position.ledger.cost
    for order in desk.orders.values():
        asked[_currency(order.symbol, markets)] += order.quantity or ZERO
    lacking = []
    for currency, quantity in sorted(held.items()):
        missing = quantity - asked[currency] - balances.get(currency, ZERO) * _TOLERANCE
        if missing > 0 and missing * worth[currency] > _DUST_USD * quantity:
            lacking.append(Shortfall(currency, quantity, balances.get(currency, ZERO)))
    return lacking


def _currency(symbol: str, markets: Mapping[str, Market]) -> str:
    """What a symbol's tokens are called in the account; a symbol that is traded no more stands for itself."""
    return markets[symbol].base if symbol in markets else symbol


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
