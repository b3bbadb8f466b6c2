"""A spot exchange through ccxt: a few typed, checked questions, and two ways in which they go unanswered.

ccxt hands on what a venue sent without looking at it. Here every answer is checked before anyone acts on it, and every
failure is one of two: `NoAnswerError` (no usable answer; what was asked may have happened) and `RefusedError` (the
venue said no, so it has not). Nothing here waits or asks twice by itself, follows a redirect, or moves money other than
by an order. Credentials go in through `Secrets` and come out nowhere: no text made here quotes an address or an
unchecked answer, and the client's own log is off.

Dialects are those that the contract tests run on; another venue of ccxt is one row of `DIALECTS` and a run of them.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from edgebook.domain.errors import InputError, PortError

Secrets = Callable[[str], str | None]
Level = tuple[Decimal, Decimal]

#: Currencies that count as USD, one for one.
USD_LIKE = ("USD", "USDT", "USDC", "FDUSD", "TUSD", "BUSD")
_MARKETS_FOR_SECONDS = 6 * 3600.0
_QUIET_SECONDS = 10.0
#: A venue takes a request whose time stamp is this far ahead of its own clock.
_AHEAD_SECONDS = 1.0
#: What ccxt's parsers raise when an answer is not what they expect.
_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs from venue to venue.

    Attributes:
        id_length: longest client order id; letters, digits and hyphens are allowed.
        candles, trades: most candles, and most fills, in one answer.
        book_levels: levels of the order book that are asked for.
    """

    id_length: int
    candles: int
    trades: int
    book_levels: int


DIALECTS: Mapping[str, Dialect] = {name: Dialect(36, 1000, 1000, 100) for name in ("binance", "binanceus")}


class NoAnswerError(PortError):
    """No usable answer.

    Attributes:
        kind: ``timeout``, ``network``, ``unavailable``, ``rate_limit``, ``clock``, ``duplicate``,
            ``nonsense`` or ``unexpected``.
        happened: False when it is certain that what was asked has not happened; True when it may have.
    """

    def __init__(self, kind: str, message: str, *, happened: bool = True) -> None:
        super().__init__(message, stage="venue")
        self.kind, self.happened = kind, happened


class RefusedError(PortError):
    """The venue said no; what was asked has not happened."""

    def __init__(self, message: str) -> None:
        super().__init__(message, stage="venue")


class NoMarketError(RefusedError):
    """The venue has no such market, or not one we trade."""


@dataclass(frozen=True, slots=True)
class Market:
    """One spot market: its names and what an order must keep to (base units, quote units per base unit, quote units).

    ``taker`` is the venue's standard fee as a fraction of what is traded.
    """

    symbol: str
    name: str
    base: str
    quote: str
    active: bool
    step: Decimal
    tick: Decimal
    min_quantity: Decimal
    max_quantity: Decimal | None
    min_notional: Decimal
    taker: Decimal


@dataclass(frozen=True, slots=True)
class Book:
    """Order book: (price, base units) per level, best first."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    @property
    def mid(self) -> Decimal | None:
        """Middle of best bid and best ask; the one there is when a side is empty; None when both are."""
        best = [side[0][0] for side in (self.bids, self.asks) if side]
        return sum(best, Decimal(0)) / len(best) if best else None


@dataclass(frozen=True, slots=True)
class VenueOrder:
    """An order as the venue knows it; ``status`` is open, closed, canceled, expired or rejected."""

    id: str
    client_id: str
    status: str
    quantity: Decimal
    filled: Decimal

    @property
    def open(self) -> bool:
        """Whether it may still fill."""
        return self.status == "open"


@dataclass(frozen=True, slots=True)
class VenueTrade:
    """One fill of an order; ``ts`` in microseconds UTC."""

    id: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    ts: int


def environment_secrets(venue: str) -> Secrets:
    """Credentials from the environment: ``key`` from EDGEBOOK_<VENUE>_KEY, ``secret`` from EDGEBOOK_<VENUE>_SECRET."""
    return lambda name: os.environ.get(f"EDGEBOOK_{venue.upper()}_{name.upper()}") or None


def connect(
    name: str,
    *,
    secrets: Secrets | None = None,
    url: str | None = None,
    timeout_seconds: float = 5.0,
    recv_window_seconds: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Venue:
    """A venue by its ccxt name. Nothing is asked of it yet.

    Args:
        secrets: gives ``key`` and ``secret``; None for public questions only.
        url: root of another address of the same API (a test network, a proxy): https, or this machine.
        timeout_seconds: longest wait for one answer.
        recv_window_seconds: the venue refuses a signed request that reaches it later than this.
        clock: seconds that never run backwards.

    Raises:
        InputError: ccxt is not installed, the venue is not one of `DIALECTS`, the address is not safe, or a credential
            is missing.
    """
    if name not in DIALECTS:
        raise InputError(f"venue {name!r} is not one of {', '.join(DIALECTS)}")
    try:
        import ccxt
    except ImportError:
        raise InputError("venues need ccxt, which is not installed: pip install 'edgebook[live]'") from None
    key, secret = _credentials(name, secrets)
    client = getattr(ccxt, name)({
        "enableRateLimit": False,  # ccxt would sleep on the caller's thread
        "timeout": int(timeout_seconds * 1000),
        "apiKey": key,
        "secret": secret,
        "options": {
            "defaultType": "spot",
            "fetchMarkets": {"types": ["spot"]},
            "fetchMargins": False,
            "recvWindow": int(recv_window_seconds * 1000),
        },
    })  # fmt: skip
    client.has["fetchCurrencies"] = False  # lists the account's wallets, which nobody asked for
    client.session.max_redirects = 0  # a redirect would carry the key to another address
    client.enableLastJsonResponse = True  # see Venue._expect
    client.logger = logging.Logger("ccxt", logging.CRITICAL + 1)  # it writes headers, and so the key
    if url is not None:
        root = _safe(url)
        client.urls["api"] = dict.fromkeys(client.urls["api"], f"{root}/api/v3")
    return Venue(name, client, ccxt, DIALECTS[name], timeout_seconds, recv_window_seconds, clock)


def _credentials(name: str, secrets: Secrets | None) -> tuple[str, str]:
    if secrets is None:
        return "", ""
    found = {part: (secrets(part) or "").strip() for part in ("key", "secret")}
    for part, value in found.items():
        if not value:
            raise InputError(
                f"venue {name}: no {part}; give it by the secret provider, e.g. EDGEBOOK_{name.upper()}_{part.upper()}"
            )
    return found["key"], found["secret"]


def _safe(url: str) -> str:
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.username or not parts.hostname or not (local or parts.scheme == "https"):
        raise InputError("venue url must be https://HOST, or http on this machine; and without user or password")
    return url.rstrip("/")


@dataclass(slots=True, repr=False)
class Venue:
    """One venue. Questions raise `NoAnswerError` or `RefusedError`, nothing else. Made by `connect`."""

    name: str
    _client: Any
    _ccxt: Any
    dialect: Dialect
    _timeout: float
    _recv_window: float
    _clock: Callable[[], float]
    _loaded_at: float | None = None
    _quiet_until: float = -math.inf
    _in_step: bool = False
    _markets: dict[str, Market] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Venue({self.name!r})"

    @property
    def can_trade(self) -> bool:
        """Whether it was given credentials."""
        return bool(self._client.apiKey and self._client.secret)

    @property
    def longest_delay_seconds(self) -> float:
        """After this long, an order that was sent and is not there will not come any more: the venue refuses requests
        older than the receive window (time stamps may be a second ahead)."""
        return self._timeout + self._recv_window + _AHEAD_SECONDS

    # -- public questions

    def market(self, symbol: str) -> Market:
        """The spot market of ``symbol`` (the venue's id such as SOLUSDT, or SOL/USDT).

        Raises:
            NoMarketError: the venue has no such market, or it is not quoted in USD.
        """
        self._load_markets()
        with self._asking("markets"):
            if symbol not in self._markets:
                self._markets[symbol] = self._market(symbol)
            return self._markets[symbol]

    def _load_markets(self) -> None:
        if self._loaded_at is not None and self._clock() - self._loaded_at <= _MARKETS_FOR_SECONDS:
            return
        with self._asking("markets"):
            self._client.load_markets(True)
            self._expect(dict, "symbols")
            self._markets, self._loaded_at = {}, self._clock()

    def _market(self, symbol: str) -> Market:
        listed = [*self._client.markets_by_id.get(symbol, ()), self._client.markets.get(symbol)]
        spot = [row for row in listed if row and row["spot"]]
        if not spot:
            raise NoMarketError(f"{self.name} has no spot market {symbol}")
        row = spot[0]
        if row["quote"] not in USD_LIKE:
            raise NoMarketError(f"{self.name}: {symbol} is quoted in {row['quote']}; only {', '.join(USD_LIKE)} count")
        amount, cost = row["limits"]["amount"], row["limits"]["cost"]
        return Market(
            symbol=symbol,
            name=row["symbol"],
            base=row["base"],
            quote=row["quote"],
            active=row["active"] is not False,
            step=_positive(row["precision"]["amount"]),
            tick=_positive(row["precision"]["price"]),
            min_quantity=_decimal(amount["min"] or 0),
            max_quantity=_positive(amount["max"]) if amount["max"] else None,
            min_notional=_decimal(cost["min"] or 0),
            taker=_decimal(row["taker"]),
        )

    def book(self, market: Market) -> Book:
        """The order book; a side may be empty."""
        with self._asking("the order book"):
            answer = self._client.fetch_order_book(market.name, self.dialect.book_levels)
            self._expect(dict, "bids", "asks")
            bids, asks = (tuple((_positive(p), _positive(q)) for p, q, *_ in answer[s]) for s in ("bids", "asks"))
            prices = [*(p for p, _ in reversed(bids)), *(p for p, _ in asks)]
            if any(low >= high for low, high in pairwise(prices)):
                raise ValueError("book not in order")
            return Book(bids, asks)

    def price(self, base: str, quote: str) -> Decimal:
        """Last price of ``base`` in ``quote``."""
        with self._asking("a price"):
            return _positive(self._client.fetch_ticker(f"{base}/{quote}")["last"])

    def time(self) -> int:
        """The venue's clock, microseconds UTC."""
        with self._asking("the time"):
            return int(_positive(self._client.fetch_time())) * 1000

    def candles(self, market: Market, timeframe: str, start: int, limit: int) -> list[list[Any]]:
        """Rows of (open time ms, open, high, low, close, volume) that open at or after ``start`` (microseconds), as the
        venue sent them: the newest may still be open, and numbers are unchecked."""
        with self._asking("candles"):
            answer = self._client.fetch_ohlcv(market.name, timeframe, start // 1000, min(limit, self.dialect.candles))
            self._expect(list)
            return [list(row) for row in answer]

    # -- questions about the account

    def order(self, market: Market, client_id: str) -> VenueOrder | None:
        """The order of that client id; None when the venue says that there is none."""
        with self._asking("an order", signed=True):
            try:
                answer = self._client.fetch_order("", market.name, {"clientOrderId": client_id})
            except self._ccxt.OrderNotFound:
                return None
            return _order(answer, market, client_id)

    def submit(self, market: Market, side: str, quantity: Decimal, limit: Decimal, client_id: str) -> None:
        """Place a limit order that fills at once or not at all (what is left is cancelled: IOC).

        What became of it is not taken from the answer: ask `order` and `trades`.
        """
        with self._asking("a new order", signed=True):
            params = {"timeInForce": "IOC", "clientOrderId": client_id}
            answer = self._client.create_order(market.name, "limit", side, float(quantity), float(limit), params)
            _order(answer, market, client_id)

    def cancel(self, market: Market, client_id: str) -> None:
        """Cancel an order; one that is not open any more is left as it is."""
        with self._asking("a cancel", signed=True):
            try:
                self._client.cancel_order("", market.name, {"clientOrderId": client_id})
            except self._ccxt.OrderNotFound:
                return

    def trades(self, market: Market, order_id: str) -> tuple[VenueTrade, ...]:
        """Fills of one order in the order of time, each once, however often the venue lists it."""
        found: dict[str, VenueTrade] = {}
        page, asked = self.dialect.trades, {"orderId": order_id}
        with self._asking("fills", signed=True):
            while page >= self.dialect.trades:
                answer = self._client.fetch_my_trades(market.name, None, self.dialect.trades, asked)
                self._expect(list)
                new = {str(row["id"]): _trade(row, order_id) for row in answer}
                page = len(answer) if new.keys() - found.keys() else 0
                found |= new
                asked["fromId"] = str(max(map(int, found), default=0) + 1)
        return tuple(sorted(found.values(), key=lambda t: (t.ts, t.id)))

    def open_orders(self, markets: Sequence[Market]) -> tuple[str, ...]:
        """Client ids of the account's open orders in ``markets``."""
        found: list[str] = []
        for market in markets:
            with self._asking("open orders", signed=True):
                answer = self._client.fetch_open_orders(market.name)
                self._expect(list)
                found += [str(row["clientOrderId"]) for row in answer]
        return tuple(found)

    def balances(self) -> dict[str, Decimal]:
        """What the account holds by currency, free and locked together; zeros left out."""
        self._load_markets()
        with self._asking("balances", signed=True):
            total = self._client.fetch_balance()["total"]
            self._expect(dict, "balances")
            held = {str(name): _decimal(amount) for name, amount in total.items()}
            return {name: amount for name, amount in held.items() if amount}

    # -- what can go wrong

    @contextmanager
    def _asking(self, what: str, *, signed: bool = False) -> Iterator[None]:
        """Ask within this; whatever the client raises leaves as `NoAnswerError` or `RefusedError`.

        The client changes how decimals are rounded for the whole thread; here that ends with the question.
        """
        if self._clock() < self._quiet_until:
            wait = math.ceil(self._quiet_until - self._clock())
            raise NoAnswerError("rate_limit", f"{self.name} wants no questions for {wait} s", happened=False)
        try:
            with localcontext():
                if signed and not self._in_step:
                    self._client.load_time_difference()
                    self._in_step = True
                yield
        except self._ccxt.BaseError as error:
            raise self._translated(error, what) from None
        except _NONSENSE:
            raise NoAnswerError("nonsense", f"{self.name} answered nonsense when asked for {what}") from None
        except PortError:
            raise
        except Exception as error:  # noqa: BLE001 - told without its text and its frames, which may hold the key
            kind = type(error).__name__
            raise NoAnswerError("unexpected", f"{self.name}, asked for {what}: {kind} in the client") from None

    def _expect(self, kind: type, *fields: str) -> None:
        """The last answer must be JSON of this kind with lists in these fields: ccxt makes an empty list of anything.

        Raises:
            ValueError: it is not.
        """
        raw = self._client.last_json_response
        fits = isinstance(raw, kind)
        if not fits or not all(isinstance(raw.get(name), list) for name in fields):
            raise ValueError("not what was asked for")

    def _translated(self, error: Exception, what: str) -> PortError:
        c, asked = self._ccxt, f"{self.name}, asked for {what}"
        if isinstance(error, c.RateLimitExceeded | c.DDoSProtection):
            self._quiet_until = self._clock() + self._retry_after()
            return NoAnswerError("rate_limit", f"{asked}: too many questions", happened=False)
        if isinstance(error, c.InvalidNonce):
            self._in_step = False
            return NoAnswerError("clock", f"{asked}: this machine's clock is off", happened=False)
        said = self._said(error)
        if isinstance(error, c.DuplicateOrderId) or "duplicate" in said.lower():
            return NoAnswerError("duplicate", f"{asked}: this client id is in use")
        if isinstance(error, c.RequestTimeout):
            return NoAnswerError("timeout", f"{asked}: no answer in time")
        if isinstance(error, c.ExchangeNotAvailable):
            return NoAnswerError("unavailable", f"{asked}: not available")
        if isinstance(error, c.NetworkError):
            return NoAnswerError("network", f"{asked}: the connection broke")
        no = (c.AuthenticationError, c.InsufficientFunds, c.InvalidOrder, c.BadRequest, c.OperationRejected)
        if isinstance(error, (*no, c.NotSupported, c.ArgumentsRequired)):
            return RefusedError(f"{self.name} refused {what}: {said or type(error).__name__}")
        return NoAnswerError("nonsense", f"{asked}: an error it does not explain")

    def _said(self, error: Exception) -> str:
        """The venue's own words: the message of its JSON answer, or what ccxt made of it; short, without secrets."""
        text = str(error).removeprefix(self.name).strip()
        begin = text.find("{")
        if begin >= 0:
            try:
                text = str(json.loads(text[begin:])["msg"])
            except (LookupError, TypeError, ValueError):
                return ""
        for secret in (self._client.apiKey, self._client.secret):
            text = text.replace(secret, "***") if secret else text
        text = "" if "://" in text else "".join(c if c.isprintable() else " " for c in text)
        return text[:120]

    def _retry_after(self) -> float:
        headers = self._client.last_response_headers or {}
        text = str(headers.get("Retry-After", ""))
        return min(float(text), 86_400.0) if text.isdigit() else _QUIET_SECONDS


def _decimal(value: object) -> Decimal:
    """A number that is finite and not negative, digit for digit.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite() or number < 0:
        raise ValueError("not finite, or negative")
    return number


def _positive(value: object) -> Decimal:
    number = _decimal(value)
    if not number:
        raise ValueError("not positive")
    return number


_STATUSES = {"canceling": "open"} | {s: s for s in ("open", "closed", "canceled", "expired", "rejected")}


def _order(answer: Any, market: Market, client_id: str) -> VenueOrder:
    if answer["clientOrderId"] != client_id or answer["symbol"] != market.name or not answer["id"]:
        raise ValueError("another order")
    order = VenueOrder(
        str(answer["id"]),
        client_id,
        _STATUSES[answer["status"]],
        _positive(answer["amount"]),
        _decimal(answer["filled"]),
    )
    if order.filled > order.quantity:
        raise ValueError("filled more than ordered")
    return order


def _trade(row: Any, order_id: str) -> VenueTrade:
    if str(row["order"]) != order_id:
        raise ValueError("fill of another order")
    fee = row["fee"] or {"cost": 0, "currency": ""}
    return VenueTrade(
        str(row["id"]),
        _positive(row["amount"]),
        _positive(row["price"]),
        _decimal(fee["cost"] or 0),
        str(fee["currency"] or ""),
        int(_positive(row["timestamp"])) * 1000,
    )
