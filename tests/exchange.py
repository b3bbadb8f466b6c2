"""A small spot exchange on 127.0.0.1 that speaks Binance's REST dialect, so that ccxt can be tested without a network.

It matches limit and market orders against a book that the test sets, keeps balances, trades and candles, and does to
its clients what real venues do, on demand: `Exchange.fail` scripts what happens to the next request of a path (no
answer before or after it was carried out, 5xx, garbage, 429 ...), `Exchange.behave` how the next order turns out
(partial fill then silence, a fill after the cancel ...). Every request is kept in ``requests``.

Trades and candles happen by its own clock ``now`` (microseconds, set by the test); it tells that time once it has
candles. Time stamps of signed requests are held against the machine's clock, as ccxt takes them from there.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

STEPS = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "4h": 14400, "1d": 86400}
FEE = Decimal("0.001")
API = "/api/v3/"
ORDER, TRADES, DEPTH, KLINES = "order", "myTrades", "depth", "klines"
#: Longest time a request is left hanging; the client's time-out must be shorter.
HANG_SECONDS = 3.0

Levels = list[tuple[Decimal, Decimal]]
Reply = tuple[int, Any]


@dataclass
class Rules:
    """Filters of one symbol, as exchangeInfo states them."""

    base: str
    quote: str = "USDT"
    tick: str = "0.01"
    step: str = "0.001"
    min_quantity: str = "0.001"
    max_quantity: str = "9000000"
    min_notional: str = "5"
    status: str = "TRADING"


@dataclass
class Behaviour:
    """How one order turns out.

    Attributes:
        share: share of what the book would give that is filled at once.
        silent: stays PARTIALLY_FILLED instead of expiring what is left.
        hidden: this many look-ups say that there is no such order.
        late: this many look-ups after the cancel still show nothing filled; then ``share`` has been.
    """

    share: Decimal = Decimal(1)
    silent: bool = False
    hidden: int = 0
    late: int = 0


@dataclass
class Fault:
    """What happens to one request: carried out first or not, then how it is answered.

    ``answer`` is ``drop`` (connection closed), ``hang`` (no answer within the client's time-out), ``ok``, a body to
    send as it is (text), or (status, body or JSON).
    """

    answer: str | Reply
    carried_out: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Placed:
    """One order at the exchange."""

    number: int
    client_id: str
    symbol: str
    side: str
    kind: str
    quantity: Decimal
    limit: Decimal | None
    behaviour: Behaviour
    status: str = "NEW"
    trades: list[dict[str, Any]] = field(default_factory=list)

    @property
    def filled(self) -> Decimal:
        """Base units filled."""
        return sum((Decimal(t["qty"]) for t in self.trades), Decimal(0))

    @property
    def spent(self) -> Decimal:
        """Quote units they cost."""
        return sum((Decimal(t["quoteQty"]) for t in self.trades), Decimal(0))


class RefusedError(Exception):
    """The exchange says no, with its code."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.reply: Reply = (status, {"code": code, "msg": message})


class Exchange:
    """The venue: `start` it, point ccxt's ``urls`` at ``url``, `stop` it."""

    def __init__(self) -> None:
        self.rules: dict[str, Rules] = {}
        self.books: dict[str, tuple[Levels, Levels]] = {}
        self.tickers: dict[str, str] = {}
        self.candles: dict[tuple[str, str], dict[int, list[Any]]] = {}
        self.hidden_candles: dict[tuple[str, int], int] = {}
        self.page = 1000
        self.balances: dict[str, Decimal] = {}
        self.orders: list[Placed] = []
        self.fee_asset: str | None = None
        self.skew_ms = 0
        self.duplicate_trades = self.late_trades = 0
        self.now = 0
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self._faults: dict[tuple[str, str], deque[Fault]] = {}
        self._behaviours: deque[Behaviour] = deque()
        self._trade_number = 1000
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    # -- for the test

    @property
    def url(self) -> str:
        """Root of the API, http://127.0.0.1:port."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> Exchange:
        """Serve from a thread."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop serving; whoever hangs is let go."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def list(self, symbol: str, rules: Rules, bids: str = "", asks: str = "") -> None:
        """Open a market; a side of the book reads ``"99:5 98:10"``, price:quantity, best first."""
        self.rules[symbol] = rules
        self.books[symbol] = (_levels(bids), _levels(asks))

    def fail(self, path: str, answer: str | Reply, *, method: str = "GET", carried_out: bool = False, **headers: str):
        """Script a fault for the next request of this method and path that has none yet."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._faults.setdefault((method, path), deque()).append(Fault(answer, carried_out, named))

    def behave(self, **behaviour: Any) -> None:
        """Script how the next order turns out."""
        self._behaviours.append(Behaviour(**behaviour))

    def count(self, method: str, path: str) -> int:
        """How many such requests came in."""
        return sum((m, p) == (method, path) for m, p, _ in self.requests)

    def forget_faults(self) -> None:
        """Everything works again."""
        self._faults.clear()
        self._behaviours.clear()

    # -- the API

    def handle(self, method: str, target: str, body: str, headers: dict[str, str]) -> tuple[Fault | None, Reply]:
        """Carry out one request, unless a fault says otherwise."""
        parts = urlsplit(target)
        path = parts.path.removeprefix(API)
        params = dict(parse_qsl(parts.query)) | dict(parse_qsl(body))
        with self._lock:
            self.requests.append((method, path, params))
            self.headers.append(headers)
            waiting = self._faults.get((method, path))
            fault = waiting.popleft() if waiting else None
            if fault is not None and not fault.carried_out:
                return fault, (200, {})
            try:
                reply = 200, self._answer(method, path, params, headers)
            except RefusedError as no:
                reply = no.reply
            return fault, reply

    def _answer(self, method: str, path: str, params: dict[str, str], headers: dict[str, str]) -> Any:
        public = {"exchangeInfo": self._info, "depth": self._depth, "ticker/24hr": self._ticker}
        public |= {"klines": self._klines, "time": self._time}
        if method == "GET" and path in public:
            return public[path](params)
        signed = {
            ("POST", ORDER): self._new_order,
            ("GET", ORDER): self._get_order,
            ("DELETE", ORDER): self._cancel,
            ("GET", "openOrders"): self._open_orders,
            ("GET", TRADES): self._trades,
            ("GET", "account"): self._account,
        }
        if (method, path) not in signed:
            raise RefusedError(-1100, f"no such endpoint: {method} {path}", 404)
        self._check_signature(params, headers)
        return signed[method, path](params)

    def _check_signature(self, params: dict[str, str], headers: dict[str, str]) -> None:
        if not headers.get("x-mbx-apikey") or not params.get("signature"):
            raise RefusedError(-2014, "API-key format invalid.", 401)
        if self.candles:  # its time is then the test's, which leaps
            return
        ours, theirs = int(time.time() * 1000) + self.skew_ms, int(params["timestamp"])
        if not ours - int(params.get("recvWindow", 5000)) <= theirs <= ours + 1000:
            raise RefusedError(-1021, "Timestamp for this request is outside of the recvWindow.")

    def _time(self, params: dict[str, str]) -> Any:
        return {"serverTime": int(time.time() * 1000) + self.skew_ms if not self.candles else self.now // 1000}

    def _info(self, params: dict[str, str]) -> Any:
        return {"timezone": "UTC", "symbols": [_symbol_info(name, rules) for name, rules in self.rules.items()]}

    def _known(self, params: dict[str, str]) -> str:
        if params.get("symbol") not in self.rules:
            raise RefusedError(-1121, "Invalid symbol.")
        return params["symbol"]

    def _depth(self, params: dict[str, str]) -> Any:
        bids, asks = self.books[self._known(params)]
        sides = {"bids": bids, "asks": asks}
        return {"lastUpdateId": 1} | {side: [[str(p), str(q)] for p, q in levels] for side, levels in sides.items()}

    def _ticker(self, params: dict[str, str]) -> Any:
        symbol = self._known(params)
        if symbol not in self.tickers:
            raise RefusedError(-1000, "An unknown error occured while processing the request.", 500)
        return {"symbol": symbol, "lastPrice": self.tickers[symbol], "closeTime": self.now // 1000}

    def _klines(self, params: dict[str, str]) -> Any:
        symbol, tf = self._known(params), params["interval"]
        step, rows = STEPS[tf] * 1000, self.candles.get((symbol, tf), {})
        start, end = int(params.get("startTime", 0)), int(params.get("endTime", 1 << 62))
        found = []
        for opened in sorted(rows):
            if not start <= opened <= end or opened > self.now // 1000:
                continue
            if self.hidden_candles.get((symbol, opened), 0) > 0:
                self.hidden_candles[symbol, opened] -= 1
                continue
            o, h, low, c, v = rows[opened]
            found.append([opened, o, h, low, c, v, opened + step - 1, "0", 1, "0", "0", "0"])
            if len(found) == min(self.page, int(params.get("limit", 500))):
                break
        return found

    def _new_order(self, params: dict[str, str]) -> Any:
        symbol, client_id = self._known(params), params["newClientOrderId"]
        if any(o.client_id == client_id and o.status in ("NEW", "PARTIALLY_FILLED") for o in self.orders):
            raise RefusedError(-2010, "Duplicate order sent.")
        limit = Decimal(params["price"]) if "price" in params else None
        quantity = self._quantity(symbol, params, limit)
        self._check_filters(self.rules[symbol], quantity, limit)
        behaviour = self._behaviours.popleft() if self._behaviours else Behaviour()
        order = Placed(
            len(self.orders) + 1, client_id, symbol, params["side"], params["type"], quantity, limit, behaviour
        )
        self._check_funds(order)
        self.orders.append(order)
        if not behaviour.late:
            self._match(order, behaviour.share)
        self._finish(order, params.get("timeInForce", "IOC"))
        return self._shown(order)

    def _quantity(self, symbol: str, params: dict[str, str], limit: Decimal | None) -> Decimal:
        if "quantity" in params:
            return Decimal(params["quantity"])
        asks = self.books[symbol][1]
        if not asks:
            raise RefusedError(-2010, "No orders on book for symbol.")
        step = Decimal(self.rules[symbol].step)
        return Decimal(params["quoteOrderQty"]) / asks[0][0] // step * step

    def _check_filters(self, rules: Rules, quantity: Decimal, limit: Decimal | None) -> None:
        if rules.status != "TRADING":
            raise RefusedError(-1013, "Market is closed.")
        if quantity % Decimal(rules.step) or not (
            Decimal(rules.min_quantity) <= quantity <= Decimal(rules.max_quantity)
        ):
            raise RefusedError(-1013, "Filter failure: LOT_SIZE")
        if limit is not None and limit % Decimal(rules.tick):
            raise RefusedError(-1013, "Filter failure: PRICE_FILTER")
        if limit is not None and quantity * limit < Decimal(rules.min_notional):
            raise RefusedError(-1013, "Filter failure: NOTIONAL")

    def _check_funds(self, order: Placed) -> None:
        rules = self.rules[order.symbol]
        asset = rules.quote if order.side == "BUY" else rules.base
        needed = order.quantity * (order.limit or Decimal(1)) if order.side == "BUY" else order.quantity
        if self.balances.get(asset, Decimal(0)) < needed:
            raise RefusedError(-2010, "Account has insufficient balance for requested action.")

    def _match(self, order: Placed, share: Decimal) -> None:
        """Fill against the book, best level first; what is taken is gone."""
        levels = self.books[order.symbol][order.side == "BUY"]
        left = order.quantity * share
        while levels and left > 0:
            price, offered = levels[0]
            if order.limit is not None and (price > order.limit if order.side == "BUY" else price < order.limit):
                return
            taken = min(left, offered)
            self._trade(order, price, taken)
            left -= taken
            levels[:1] = [(price, offered - taken)] if taken < offered else []

    def _trade(self, order: Placed, price: Decimal, quantity: Decimal) -> None:
        rules, cost, buys = self.rules[order.symbol], price * quantity, order.side == "BUY"
        asset = self.fee_asset or (rules.base if buys else rules.quote)
        fee = {rules.base: quantity, rules.quote: cost}.get(asset, cost / 100) * FEE
        for name, change in (
            (rules.base, quantity if buys else -quantity), (rules.quote, -cost if buys else cost), (asset, -fee),
        ):  # fmt: skip
            self.balances[name] = self.balances.get(name, Decimal(0)) + change
        self._trade_number += 1
        order.trades.append({
            "symbol": order.symbol, "id": self._trade_number, "orderId": order.number, "price": str(price),
            "qty": str(quantity), "quoteQty": str(cost), "commission": str(fee), "commissionAsset": asset,
            "time": self.now // 1000, "isBuyer": buys, "isMaker": False, "isBestMatch": True,
        })  # fmt: skip

    def _finish(self, order: Placed, in_force: str) -> None:
        if order.filled == order.quantity:
            order.status = "FILLED"
        elif order.behaviour.silent or order.behaviour.late or in_force == "GTC":
            order.status = "PARTIALLY_FILLED" if order.trades else "NEW"
        else:
            order.status = "EXPIRED"

    def _find(self, params: dict[str, str], code: int, message: str) -> Placed:
        client_id, number = params.get("origClientOrderId"), params.get("orderId")
        for order in reversed(self.orders):
            if order.symbol == params["symbol"] and (order.client_id == client_id or str(order.number) == number):
                if order.behaviour.hidden > 0:
                    order.behaviour.hidden -= 1
                    break
                return order
        raise RefusedError(code, message)

    def _get_order(self, params: dict[str, str]) -> Any:
        order = self._find(params, -2013, "Order does not exist.")
        if order.status == "CANCELED" and order.behaviour.late > 0:
            order.behaviour.late -= 1
            if order.behaviour.late == 0:
                self._match(order, order.behaviour.share)
        return self._shown(order)

    def _cancel(self, params: dict[str, str]) -> Any:
        order = self._find(params, -2011, "Unknown order sent.")
        if order.status not in ("NEW", "PARTIALLY_FILLED"):
            raise RefusedError(-2011, "Unknown order sent.")
        order.status = "CANCELED"
        return self._shown(order)

    def _open_orders(self, params: dict[str, str]) -> Any:
        return [self._shown(o) for o in self.orders if o.status in ("NEW", "PARTIALLY_FILLED")]

    def _trades(self, params: dict[str, str]) -> Any:
        if self.late_trades > 0:
            self.late_trades -= 1
            return []
        found = [t for o in self.orders if str(o.number) == params.get("orderId") for t in o.trades]
        found = [t for t in found if t["id"] >= int(params.get("fromId", 0))]
        return (found * 2 if self.duplicate_trades else found)[: int(params.get("limit", 500))]

    def _account(self, params: dict[str, str]) -> Any:
        rows = [{"asset": a, "free": str(v), "locked": "0"} for a, v in self.balances.items()]
        return {"canTrade": True, "balances": rows, "updateTime": self.now // 1000}

    def _shown(self, order: Placed) -> Any:
        return {
            "symbol": order.symbol, "orderId": order.number, "clientOrderId": order.client_id,
            "price": str(order.limit or 0), "origQty": str(order.quantity), "executedQty": str(order.filled),
            "cummulativeQuoteQty": str(order.spent), "status": order.status, "timeInForce": "IOC", "type": order.kind,
            "side": order.side, "time": self.now // 1000, "updateTime": self.now // 1000, "isWorking": True,
        }  # fmt: skip


def _levels(text: str) -> Levels:
    return [(Decimal(p), Decimal(q)) for p, q in (level.split(":") for level in text.split())]


def _symbol_info(name: str, rules: Rules) -> dict[str, Any]:
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": rules.tick, "maxPrice": "1000000", "tickSize": rules.tick},
        {"filterType": "LOT_SIZE", "minQty": rules.min_quantity, "maxQty": rules.max_quantity, "stepSize": rules.step},
        {"filterType": "NOTIONAL", "minNotional": rules.min_notional, "applyMinToMarket": True},
    ]
    return {
        "symbol": name, "status": rules.status, "baseAsset": rules.base, "quoteAsset": rules.quote,
        "baseAssetPrecision": 8, "quotePrecision": 8, "quoteAssetPrecision": 8, "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True, "permissions": ["SPOT"], "filters": filters,
    }  # fmt: skip


def _handler(exchange: Exchange) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet per answer, or the client's kernel waits 40 ms for the second
        disable_nagle_algorithm = True

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            fault, reply = exchange.handle(self.command, self.path, body, headers)
            if fault is None or fault.answer == "ok":
                self._send(*reply, {})
            elif fault.answer in ("drop", "hang"):
                if fault.answer == "hang":
                    exchange._stopped.wait(HANG_SECONDS)
                self.close_connection = True
            elif isinstance(fault.answer, str):
                self._send(200, fault.answer, fault.headers)
            else:
                self._send(*fault.answer, fault.headers)

        def _send(self, status: int, content: Any, headers: dict[str, str]) -> None:
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            every = {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers}
            for name, value in every.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    return Handler
