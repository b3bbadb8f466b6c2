"""A small world for trading tests: scripted readings go in, strands come out, orders fill at the next bar's open.

It plays the part of the jobs (load, tick, append, settle, close) with plain values, so a test reads as a bar sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np

from edgebook.domain.book import Account, Decision, Order, PmMemory, Position
from edgebook.domain.reading import MarketReading
from edgebook.domain.regime import Regime
from edgebook.domain.strands import PositionStatus, SocialLowcap, Strand
from edgebook.market.bars import BarSeries
from edgebook.overrides.history import ConfigHistory
from edgebook.trading.position import evolve, evolve_account, gross
from edgebook.trading.protections import OPEN, Guard
from edgebook.trading.risk import BookView
from edgebook.trading.rules import TradingRules
from edgebook.trading.tick import TickInput, TickResult, closure, fill, tick

HOUR = 3_600_000_000
T0 = 500_000 * HOUR
PLAIN = TradingRules(holdout=0.0, timeframes=("1h", "4h"))
SCOPE = (("macro_phase", "Good"), ("A_mode", "normal"), ("E_mode", "normal"))


def regime(a: float = 0.5, e: float = 0.5, scope: Any = SCOPE, ts: int = T0) -> Regime:
    return Regime(ts, a, e, scope, "snapshot-1", {})


def reading(state: str = "S1", ts: int = T0, **kw: Any) -> MarketReading:
    """A reading with ATR 1 and an orderly uptrend: EMA60 100, EMA144 98, EMA333 95."""
    defaults: dict[str, Any] = {
        "prev_state": state, "price": 100.0, "open": 100.0, "high": 100.5, "low": 99.5, "volume": 1e6, "atr": 1.0,
        "ema20": 100.0, "ema30": 100.0, "ema60": 100.0, "ema144": 98.0, "ema250": 96.0, "ema333": 95.0,
        "ema60_slope": 0.001, "ema144_slope": 0.001, "ema250_slope": 0.0005, "ema333_slope": 0.0005,
        "ts_score": 0.5, "sr_strength_anchor": 0.0, "ox": 0.4, "dx": 0.5, "edx": 0.5, "edx_suppression": 0.0,
        "bar_index": ts // HOUR,
    }  # fmt: skip
    return MarketReading("TOKUSDT", "1h", state, **(defaults | {"ts": ts} | kw))


def decision(allocation: float = 10.0, ident: str = "decision-1", ts: int = T0) -> Decision:
    return Decision(
        ident,
        ts,
        "signal-1",
        "TOKUSDT",
        "exchange",
        "TOKUSDT",
        "ann",
        allocation,
        {"1h": 1.0},
        {"curator": "ann"},
        "micro",
    )


def position(**kw: Any) -> Position:
    base: dict[str, Any] = {
        "id": "position-1", "symbol": "TOKUSDT", "chain": "exchange", "contract": "TOKUSDT", "timeframe": "1h",
        "book": "paper", "status": "watchlist", "created_at": T0, "cap_class": "micro", "decision_id": "decision-1",
        "allocation_pct": 10.0,
    }  # fmt: skip
    return Position(**(base | kw))


def status_strand(ident: str = "status-1", **kw: Any) -> Strand:
    payload: dict[str, Any] = {
        "status": "watchlist", "previous": "", "reason": "created", "chain": "exchange", "contract": "TOKUSDT",
        "book": "paper", "decision_id": "decision-1", "pending_decision_id": "", "allocation_pct": 10.0,
        "cap_class": "micro",
    }  # fmt: skip
    return Strand(
        ident, PositionStatus(**(payload | kw)), T0, T0, symbol="TOKUSDT", timeframe="1h", position_id="position-1"
    )


def social(**kw: Any) -> Strand:
    payload: dict[str, Any] = {
        "signal_id": "s1", "platform": "jsonl", "curator": "ann", "symbol": "TOKUSDT", "ticker": "TOK",
        "chain": "exchange", "contract": "TOKUSDT", "intent": "new_discovery", "mapping_confidence": "high",
        "mcap_usd": 3e6, "vol24h_usd": 1.5e6, "age_days": 10.0,
    }  # fmt: skip
    said = SocialLowcap(**(payload | kw))
    return Strand(
        f"signal-{said.signal_id}", said, T0, T0, symbol=said.symbol, correlation_id=f"signal-{said.signal_id}"
    )


@dataclass(frozen=True)
class Report:
    """What a broker says."""

    status: str
    quantity: Decimal
    price: float
    fee_usd: Decimal
    ts: int
    slippage_bps: float = 0.0
    reason: str = ""
    too_small: bool = False


@dataclass
class World:
    """One position and its book, driven bar by bar."""

    rules: TradingRules = PLAIN
    history: ConfigHistory = field(default_factory=ConfigHistory)
    a: float = 0.5
    e: float = 0.5
    share: float = 1.0
    refuse: str = ""
    guard: Guard = OPEN
    volume_usd: float = 1e9
    fee_rate: Decimal = Decimal(0)
    intent: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        self.log: list[Strand] = []
        self.position: Position | None = None
        self.account = Account("paper", self.rules.starting_cash_usd)
        self.memory: PmMemory | None = None
        self.order: Order | None = None
        self.now = T0
        self.price = 100.0
        self.bars: list[MarketReading] = []
        self.last: TickResult | None = None
        self.append((status_strand(),))

    def append(self, strands: tuple[Strand, ...]) -> None:
        for strand in strands:
            kept = replace(strand, seq=len(self.log) + 1)
            self.log.append(kept)
            self.position = evolve(self.position, kept)
            self.account = evolve_account(self.account, kept)

    def bar(
        self, state: str, price: float = 100.0, *, open_: float | None = None, gap: int = 0, **kw: Any
    ) -> TickResult:
        """The next bar: orders fill at its open (default: the last close), then it is ticked at its close."""
        assert self.position is not None
        before = self.bars[-1].state if self.bars else "S0"
        self.now += HOUR * (1 + gap)
        start = self.price if open_ is None else open_
        self.settle(start, self.now - HOUR)
        change = f"{before}->{state}" if before != state else ""
        values = {"open": start, "high": max(start, price), "low": min(start, price), "gap_bars": gap} | kw
        bar = reading(state, self.now, prev_state=before, transition=change, price=price, **values)
        self.bars.append(bar)
        self.price = price
        self.last = tick(self.input(bar))
        if self.last.memory is not None:
            self.memory = self.last.memory
        self.append(self.last.strands)
        self.order = self.last.order or self.order
        if self.last.close_reason:
            self.close(self.last.close_reason)
        return self.last

    def input(self, bar: MarketReading) -> TickInput:
        assert self.position is not None
        return TickInput(
            self.position, self.memory, bar, regime(self.a, self.e), self.history, self.rules, self.book,
            self.volume_usd, lambda: 1e7, "signal-1", self.guard, self.intent,
        )  # fmt: skip

    def book(self) -> BookView:
        assert self.position is not None
        ledger = self.position.ledger
        nav = self.account.cash_usd + gross(ledger.quantity, self.price) if ledger.quantity else self.account.cash_usd
        return BookView(nav, self.account.cash_usd, ledger.cost, ledger.cost, ledger.cost)

    def settle(self, price: float, ts: int) -> None:
        """What the broker makes of the open order at ``price``."""
        order, self.order = self.order, None
        if order is None:
            return
        assert self.position is not None
        wanted = order.quantity
        if wanted is None:
            assert order.notional_usd is not None
            wanted = (order.notional_usd / Decimal(repr(price))).quantize(Decimal("0.000000001"))
        quantity = (wanted * Decimal(repr(self.share))).quantize(Decimal("0.000000001"))
        fee = (gross(quantity, price) * self.fee_rate).quantize(Decimal("0.000001"))
        status = self.refuse or ("filled" if self.share == 1 else "partial")
        report = Report(status, quantity, price, fee, ts, reason="test")
        version = self.history.version_at(ts)
        settled = fill(self.position, order, report, now=ts, correlation_id="signal-1", config_version=version)
        self.append(settled.strands)
        if settled.close_reason:
            self.close(settled.close_reason)

    def close(self, reason: str) -> None:
        assert self.position is not None
        self.append(
            closure(self.position, self.path(), reason=reason, now=self.now, decision=decision(), rules=self.rules)
        )

    def path(self) -> BarSeries:
        column = lambda name: np.array([getattr(b, name) for b in self.bars])  # noqa: E731
        return BarSeries(
            "TOKUSDT", "1h", column("ts") - HOUR, column("open"), column("high"), column("low"), column("price"),
            column("volume"),
        )  # fmt: skip

    def kinds(self, kind: str) -> list[Strand]:
        return [strand for strand in self.log if strand.kind == kind]

    @property
    def actions(self) -> list[tuple[int, str]]:
        """(rule, decision type) of every planned action, in order."""
        return [(s.payload.rule, s.payload.decision_type) for s in self.kinds("pm_action")]  # type: ignore[union-attr]

    # bars that do something --------------------------------------------------------------------------

    def s1_buy(self, **kw: Any) -> TickResult:
        """An S1 bar whose base gates say buy."""
        return self.bar("S1", 100.0, ts_score=0.7, **kw)

    def dx_buy(self, price: float = 96.0, **kw: Any) -> TickResult:
        """An S3 bar in the hallway whose base gates say buy."""
        return self.bar("S3", price, ts_score=0.7, dx=0.9, **kw)

    def trim(self, level: float = 110.0, state: str = "S3", **kw: Any) -> TickResult:
        """A bar with the trim flag at a level."""
        return self.bar(
            state, level, trim_flag=True, ox=0.8, nearest_level_price=level, nearest_level_distance_atr=0.0, **kw
        )

    def emergency(self, price: float = 94.0, **kw: Any) -> TickResult:
        """An S3 bar below EMA333."""
        return self.bar("S3", price, emergency_exit=True, **kw)

    def over(self, before: str, price: float = 95.0) -> TickResult:
        """The bar on which the attempt ends."""
        reason = {"S1": "s1_to_s0_bearish_order", "S3": "all_emas_below_333"}[before]
        return self.bar("S0", price, exit_position=True, exit_reason=reason, emergency_exit=before == "S1")
