"""A market that says what a test wrote down, and a venue that keeps its own books: the two ends of the order path.

`ScriptedMarket` stands behind ``ports.MarketReader``: readings are scripted before the gates, never flags (decisions
37). `ModelVenue` stands behind ``ports.Broker``: what it does with an order is scripted, and what it has really filled
it writes down by client id, in plain Decimal, knowing nothing of positions, trades or ledgers. So its books are an
independent witness of what ours must say.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Any

import numpy as np

from edgebook.domain.book import Order
from edgebook.domain.reading import AFTER, DIP, EMERGENCY, MOVE, RETEST, TRIM, WARM_BARS, WINDOW, MarketReading
from edgebook.domain.regime import Regime
from edgebook.domain.timeframe import micros
from edgebook.market.bars import BarSeries
from edgebook.ports import Execution, Quote

HOUR = 3_600_000_000
T0 = 500_000 * HOUR
TIMEFRAMES = ("1h", "4h")
D = Decimal
ZERO, ONE = Decimal(0), Decimal(1)
GRAIN, BILL = Decimal("1e-9"), Decimal("1e-6")
NAN = float("nan")
_ON = {"S0": "S1", "S1": "S2", "S2": "S3", "S3": "S3"}
_BACK = {"S0": "S0", "S1": "S0", "S2": "S1", "S3": "S0"}
_REASON = {"S1": "s1_to_s0_bearish_order", "S3": "all_emas_below_333"}
_CALM: dict[str, Any] = {
    "atr": 1.0, "ema20": 100.0, "ema30": 100.0, "ema60": 100.0, "ema144": 98.0, "ema250": 96.0, "ema333": 95.0,
    "ema60_slope": 0.001, "ema144_slope": 0.001, "ema250_slope": 0.0005, "ema333_slope": 0.0005, "ts_score": 0.5,
    "ox": 0.4, "dx": 0.5, "edx": 0.5, "edx_suppression": 0.0, "volume": 1e6,
}  # fmt: skip
#: What else a bar may show: scores that open the base gates, or a flag of the engine.
FLAVOURS = ("plain", "buy", "trim", "emergency", "dip", "reclaim")


# ------------------------------------------------------------------ the market


class ScriptedMarket:
    """Bars, marks and quotes as the test writes them, hour by hour; what has been written stays written.

    A 4h bar closes with every fourth hour and has a trend of its own. ``hide`` takes mark and quote away for some hours
    to come. ``barless`` symbols are known but have no bars at all.
    """

    def __init__(self, symbols: Sequence[str], barless: Sequence[str] = ()) -> None:
        self.symbols, self.barless = tuple(symbols), tuple(barless)
        self._hidden: set[tuple[str, int]] = set()
        self.now = T0
        self._state = {(symbol, tf): "S0" for symbol in symbols for tf in TIMEFRAMES}
        self._readings: dict[tuple[str, str], dict[int, MarketReading]] = {key: {} for key in self._state}

    def bar(self, symbol: str, move: str = "same", price: float = 100.0, flavour: str = "plain") -> None:
        """The bar of ``symbol`` that closes an hour from now; ``move`` is same, on, back, or gone for no bar at all."""
        ts = self.now + HOUR
        for timeframe in TIMEFRAMES:
            if ts % micros(timeframe) == 0 and move != "gone":
                self._add(symbol, timeframe, ts, move, price, flavour)

    def hide(self, symbol: str, hours: int) -> None:
        """No mark and no quote of ``symbol`` at the ends of the next ``hours`` hours."""
        self._hidden |= {(symbol, self.now + hour * HOUR) for hour in range(1, hours + 1)}

    def pass_hour(self) -> None:
        """Let the hour pass whose bars were written."""
        self.now += HOUR

    def state(self, symbol: str, timeframe: str = "1h") -> str:
        """Where the trend stands."""
        return self._state[symbol, timeframe]

    def _add(self, symbol: str, timeframe: str, ts: int, move: str, price: float, flavour: str) -> None:
        before = self._state[symbol, timeframe]
        state = {"same": before, "on": _ON[before], "back": _BACK[before]}[move]
        self._state[symbol, timeframe] = state
        over = state == "S0" and before in _REASON
        kw: dict[str, Any] = {**_CALM, "open": price, "high": price + 0.5, "low": price - 0.5, "price": price}
        kw |= {"transition": f"{before}->{state}" if before != state else "", "prev_state": before}
        kw |= {"exit_position": over, "exit_reason": _REASON[before] if over else ""}
        kw |= {"bar_index": WARM_BARS + (ts - T0) // micros(timeframe), **_flavour(flavour, state, price)}
        self._readings[symbol, timeframe][ts] = MarketReading(symbol, timeframe, state, ts, **kw)

    # -- ports.MarketReader

    def due(self, timeframe: str, now: int) -> Sequence[tuple[str, int]]:
        found = []
        for symbol in self.symbols:
            bars = self._readings[symbol, timeframe]
            if now in bars:
                before = bars.get(now - micros(timeframe))
                found.append((symbol, _events(bars[now]) | (AFTER if before is None or _events(before) else 0)))
        return [(symbol, bits) for symbol, bits in found if bits]

    def reading(self, symbol: str, timeframe: str, now: int) -> MarketReading | None:
        return self._readings.get((symbol, timeframe), {}).get(now)

    def bars_count(self, symbol: str, timeframe: str, now: int) -> int:
        return 0 if symbol in self.barless else WARM_BARS

    def contiguous_bars(self, symbol: str, timeframe: str, now: int, max_hole: int) -> int:
        return self.bars_count(symbol, timeframe, now)

    def mark(self, symbol: str, now: int) -> float | None:
        if (symbol, now) in self._hidden:
            return None
        closes = [r.price for ts, r in self._readings.get((symbol, "1h"), {}).items() if ts <= now]
        return closes[-1] if closes else None

    def mark_at(self, symbol: str, now: int) -> int | None:
        closes = [ts for ts in self._readings.get((symbol, "1h"), {}) if ts <= now]
        return closes[-1] if closes and (symbol, now) not in self._hidden else None

    def quote(self, symbol: str, planned: int, now: int) -> Quote | None:
        if now < planned or (price := self.mark(symbol, planned)) is None:
            return None
        return Quote(planned, price)

    def volume_24h_usd(self, symbol: str, now: int) -> float:
        return 1e8

    def path(self, symbol: str, timeframe: str, start: int, end: int) -> BarSeries:
        step = micros(timeframe)
        bars = [r for ts, r in self._readings[symbol, timeframe].items() if start <= ts - step and ts <= end]
        opens = np.array([r.ts - step for r in bars], dtype=np.int64)
        names = ("open", "high", "low", "price", "volume")
        return BarSeries(symbol, timeframe, opens, *(np.array([float(getattr(r, n)) for r in bars]) for n in names))

    def regime(self, timeframe: str, cap_class: str, now: int) -> Regime:
        scope = (("macro_phase", "Good"), ("A_mode", "normal"), ("E_mode", "normal"))
        return Regime(now, 0.5, 0.5, scope, f"snapshot-{now}", {})


def _flavour(name: str, state: str, price: float) -> dict[str, Any]:
    """What a bar of this flavour shows in this state; the base gates do the rest."""
    if name == "buy":
        return {"ts_score": 0.7, "dx": 0.9, "ema60": price, "ema144": price + 2.0, "ema333": price - 0.2}
    if name == "trim" and state in ("S2", "S3"):
        return {"trim_flag": True, "ox": 0.8, "nearest_level_price": price, "nearest_level_distance_atr": 0.0}
    if name == "emergency" and state == "S3":
        return {"emergency_exit": True}
    if name == "dip" and state == "S3":
        return {"first_dip": True}
    if name == "reclaim" and state == "S3":
        return {"reclaimed_ema333": True, "prev_emergency": True}
    return {}


def _events(bar: MarketReading) -> int:
    """What may follow from a bar, as the engine marks it; a bar with scores for a buy is inside every zone."""
    marks = {
        MOVE: bar.transition or bar.exit_position or bar.reclaimed_ema333,
        WINDOW | RETEST: bar.ts_score > 0.6,
        TRIM: bar.trim_flag,
        EMERGENCY: bar.emergency_exit,
        DIP: bar.first_dip,
    }
    return sum(bits for bits, is_on in marks.items() if is_on)


def signal_line(ident: str, symbol: str, ts: int = T0, **change: Any) -> str:
    """One social signal that asks for a buy, as JSONL."""
    said = {
        "id": ident,
        "ts": datetime.fromtimestamp(ts / 1e6, UTC).isoformat(),
        "curator": "ann",
        "token": {"symbol": symbol, "chain": "exchange"},
        "intent": "new_discovery",
        "mapping_confidence": 0.95,
    }
    return json.dumps(said | change)


# ------------------------------------------------------------------ the venue


@dataclass(frozen=True)
class Fate:
    """What the venue is going to do with one order, and what it says until then.

    Attributes:
        status: how it ends: ``filled`` (partial if ``share`` is below 1), ``rejected`` or ``expired``.
        share: of the order that fills.
        drift: price of the fill over the mark, less 1.
        fee_bps: fee on what was filled.
        nonsense: answers that make no sense, given first, each once; names of `NONSENSE`.
        waits: how often it then says ``open``.
        cut: the power fails when the order has ended, before anybody has heard of it.
    """

    status: str = "filled"
    share: Decimal = ONE
    drift: Decimal = ZERO
    fee_bps: int = 10
    nonsense: tuple[str, ...] = ()
    waits: int = 0
    cut: bool = False


class PowerCutError(BaseException):
    """The machine is gone: nobody handles this."""


@dataclass(frozen=True)
class Done:
    """One fill in the venue's books; money in millionths of USD, as on its bills."""

    client_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    fee: Decimal

    @property
    def worth(self) -> Decimal:
        """Price of the tokens, without the fee."""
        return (self.quantity * self.price).quantize(BILL, ROUND_HALF_EVEN)

    @property
    def tokens(self) -> Decimal:
        """What the fill adds to the account's tokens."""
        return self.quantity if self.side == "buy" else -self.quantity

    @property
    def cash(self) -> Decimal:
        """What the fill adds to the account's USD."""
        return -(self.worth + self.fee) if self.side == "buy" else self.worth - self.fee


#: Answers that cannot be true of any order, by name: they name a fill, or nothing known.
NONSENSE: dict[str, Execution] = {
    "no quantity": Execution("filled", ZERO, 100.0, ZERO, 0.0, T0),
    "negative quantity": Execution("partial", D(-5), 100.0, ZERO, 0.0, T0),
    "quantity is no number": Execution("filled", D("NaN"), 100.0, ZERO, 0.0, T0),
    "price 0": Execution("filled", D(5), 0.0, ZERO, 0.0, T0),
    "price is no number": Execution("filled", D(5), NAN, ZERO, 0.0, T0),
    "price without end": Execution("filled", D(5), float("inf"), ZERO, 0.0, T0),
    "negative fee": Execution("filled", D(5), 100.0, D(-1), 0.0, T0),
    "fee is no number": Execution("filled", D(5), 100.0, D("NaN"), 0.0, T0),
    "fee without end": Execution("filled", D(5), 100.0, D("Infinity"), 0.0, T0),
    "fee above a tenth": Execution("filled", D(5), 100.0, D(51), 0.0, T0),
    "quantity without end": Execution("filled", D("Infinity"), 100.0, ZERO, 0.0, T0),
    "quantity beyond reckoning": Execution("filled", D("1e30"), 1e-25, ZERO, 0.0, T0),
    "price a thousandfold": Execution("partial", D("0.01"), 100_000.0, ZERO, 0.0, T0),
    "price beyond reckoning": Execution("partial", D("0.01"), 1e308, ZERO, 0.0, T0),
    "slippage is no number": Execution("filled", D(5), 100.0, ZERO, NAN, T0),
    "no such status": Execution("maybe", D(5), 100.0, ZERO, 0.0, T0),
    "no status": Execution("", ZERO, 0.0, ZERO, 0.0, T0),
}


@dataclass
class ModelVenue:
    """A venue behind ``ports.Broker``. It decides about an order once; asked again it says the same again.

    Attributes:
        market: where its prices come from.
        lot: smallest quantity it deals in.
        least: worth of the smallest order it takes, USD.
        coming: fates of the next orders it has not seen yet; an order without one is filled at once.
        done: what it has really filled, by client id.
        told: client ids of the fills it has told the book of, in the order of telling.
        repeats: how often it was asked about an order again that had ended before.
        odd: how often its answer made no sense.
        too_small: client ids of orders it refused as too small for it.
    """

    market: ScriptedMarket
    lot: Decimal = GRAIN
    least: Decimal = ZERO
    coming: deque[Fate] = field(default_factory=deque)
    done: dict[str, Done] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    repeats: int = 0
    odd: int = 0
    too_small: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.seen: dict[str, Order] = {}
        self._fates: dict[str, Fate] = {}
        self._ended: dict[str, Execution] = {}

    def execute(self, order: Order, quote: Quote | None, now: int) -> Execution:
        """The next answer about an order."""
        ident = order.client_id
        self.seen.setdefault(ident, order)
        if ident in self._ended:
            self.repeats += 1
            return self._tell(ident, order, now)
        fate = self._fates.get(ident) or (self.coming.popleft() if self.coming else Fate())
        if fate.nonsense:
            self.odd += 1
            self._fates[ident] = replace(fate, nonsense=fate.nonsense[1:])
            return NONSENSE[fate.nonsense[0]]
        if fate.waits:
            self._fates[ident] = replace(fate, waits=fate.waits - 1)
            return _nothing("open", now)
        self._ended[ident] = self._end(order, fate, now)
        if fate.cut:
            raise PowerCutError
        return self._tell(ident, order, now)

    def forget(self, told: Iterable[str]) -> None:
        """A paper venue has no life of its own: of what it did only ``told`` has happened."""
        keep = set(told)
        self.done = {ident: one for ident, one in self.done.items() if ident in keep}
        self.seen = {ident: one for ident, one in self.seen.items() if ident in keep}
        self._ended = {ident: one for ident, one in self._ended.items() if ident in keep}
        self._fates.clear()

    def hold(self, symbol: str) -> Decimal:
        """Tokens of ``symbol`` in the account."""
        return sum((one.tokens for one in self.done.values() if one.symbol == symbol), ZERO)

    def _tell(self, ident: str, order: Order, now: int) -> Execution:
        if ident in self.done and ident not in self.told:
            self.told.append(ident)
        said = self._ended[ident]
        return replace(said, ts=max(order.planned_ts, min(said.ts, now)))

    def _end(self, order: Order, fate: Fate, now: int) -> Execution:
        if fate.status != "filled":
            return _nothing(fate.status, now)
        mark = self.market.quote(order.symbol, order.planned_ts, now)
        price = ((D(repr(mark.price)) if mark else D(100)) * (1 + fate.drift)).quantize(D("0.01"), ROUND_HALF_EVEN)
        wanted = (order.quantity or ZERO) if order.notional_usd is None else order.notional_usd / price
        if wanted * price < self.least:
            self.too_small.add(order.client_id)
            return replace(_nothing("rejected", now), too_small=True)
        quantity = (wanted * fate.share / self.lot).to_integral_value(ROUND_DOWN) * self.lot
        if quantity <= 0:
            return _nothing("rejected", now)
        fee = (quantity * price * fate.fee_bps / 10_000).quantize(BILL, ROUND_CEILING)
        self.done[order.client_id] = Done(order.client_id, order.symbol, order.side, quantity, price, fee)
        return Execution("filled" if fate.share == 1 else "partial", quantity, float(price), fee, 0.0, now)


def _nothing(status: str, now: int) -> Execution:
    return Execution(status, ZERO, 0.0, ZERO, 0.0, now, "the venue says so")
