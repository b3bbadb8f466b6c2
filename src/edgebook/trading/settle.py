"""After the order: what a fill, a refusal or an expiry does, and the closing of a finished trade (trading.md
4.4-4.6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Protocol

from edgebook.domain.book import Decision, Order, Position
from edgebook.domain.decay import DAY
from edgebook.domain.errors import TradingError
from edgebook.domain.ids import stable_id
from edgebook.domain.reading import MarketReading
from edgebook.domain.strands import OrderExpired, OrderFilled, OrderRejected, Payload, PositionClosed, Strand
from edgebook.market.bars import BarSeries
from edgebook.trading.envelope import about
from edgebook.trading.outcome import close_trade
from edgebook.trading.position import QUANTITY_GRAIN, WRITTEN_OFF, evolve, gross
from edgebook.trading.rules import WRITE_OFF_MOST_USD, TradingRules
from edgebook.trading.status import status_strand
from edgebook.trading.terms import attempt_runs, timed_out

#: Reason of the status strand with which a decision that waited is taken up.
TAKEN_UP = "decision_taken_up"
#: What rounding may add to a buy: a venue counts its money less finely than the book.
_ROUNDING_USD = Decimal("0.01")
#: No venue takes a larger share of a fill than this: its fee is at most a few tenths of a percent.
_MOST_FEE = Decimal("0.1")
#: A buy lives for a minute and has a limit near the price it is measured against: no fill is better by half.
_MOST_BETTER_BPS = 5_000.0
#: An exit waits as long as it must, so its price may have moved far; a hundredfold is a misplaced comma.
_MOST_TIMES = 100.0


class ExecutionLike(Protocol):
    """What a broker says became of an order."""

    @property
    def status(self) -> str:
        """``filled``, ``partial``, ``rejected``, ``expired`` or ``open``."""
        ...

    @property
    def quantity(self) -> Decimal:
        """Tokens filled."""
        ...

    @property
    def price(self) -> float:
        """Average price of the fill."""
        ...

    @property
    def fee_usd(self) -> Decimal:
        """Fee in USD."""
        ...

    @property
    def slippage_bps(self) -> float:
        """Against the quote, basis points."""
        ...

    @property
    def ts(self) -> int:
        """When it was filled, microseconds UTC."""
        ...

    @property
    def reason(self) -> str:
        """Why it was refused, "" otherwise."""
        ...

    @property
    def too_small(self) -> bool:
        """Whether it was refused because the venue takes no order of so little."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    """What an execution led to.

    Attributes:
        strands: ``order_filled``, ``order_rejected`` or ``order_expired``, and ``position_status`` where a rest too
            small to be sold is given up, or a decision that waited is taken up; empty while the order is still open.
        position: the position after them.
        close_reason: not empty when the fill finished the trade: `closure` is due, in the same transaction.
    """

    strands: tuple[Strand, ...]
    position: Position
    close_reason: str


def fill(
    position: Position,
    order: Order,
    execution: ExecutionLike,
    *,
    now: int,
    correlation_id: str = "",
    config_version: int = 0,
    regime_snapshot_id: str = "",
    pending: Decision | None = None,
) -> Settled:
    """Book what the broker reported about ``order``. A trade closes on the fill of its rule 1 exit (decisions 59).

    Args:
        config_version: version in force now; the first fill of a trade pins its trims to it.
        pending: the decision that waits; taken up at once if a first buy came to nothing, however long it waited
            (decisions 41).

    Raises:
        TradingError: the order is not the one this position waits for, or the report makes no sense.
    """
    planned = position.planned
    if planned is None or planned.action.strand_id != order.action_id:
        raise TradingError(
            f"order {order.client_id} is not what position {position.id} waits for",
            stage="settle",
            correlation_id=correlation_id,
        )
    if execution.status == "open":
        return Settled((), position, "")
    at = min(max(execution.ts, order.planned_ts), now)  # a venue's clock may be off; a fill lies between plan and now
    payload = _result(order, execution, at)
    filled = isinstance(payload, OrderFilled)
    trade_id = position.trade_id or (stable_id("trade", order.action_id) if filled else "")
    strand = about(
        position,
        payload,
        stable_id(payload.kind, order.client_id),
        at if filled else now,
        now,
        trade_id=trade_id,
        correlation_id=correlation_id,
        causation_id=order.action_id,
        config_version=config_version,
        arm=planned.action.arm,
        scope=planned.action.scope,
        regime_snapshot_id=regime_snapshot_id,
        tags=(payload.kind, order.decision_type),
    )
    strands: tuple[Strand, ...] = (strand,)
    after = evolve(position, strand)
    given_up = _unsellable(position, order, execution)
    if given_up:
        written_off = status_strand(
            after, status=after.status, reason=WRITTEN_OFF, cause=strand, pending_id=after.pending_decision_id
        )
        strands, after = (strand, written_off), evolve(after, written_off)
    if pending is not None and not after.trade_id:
        taken = status_strand(after, status=after.status, reason=TAKEN_UP, cause=strand, decision=pending)
        strands, after = (strand, taken), evolve(after, taken)
    closes = (filled or given_up) and order.rule == 1 and not after.holding
    return Settled(strands, after, (after.exit_reason or "attempt_over") if closes else "")


def _refuse_impossible(order: Order, execution: ExecutionLike) -> None:
    """A fill that cannot be true is no fill: it must not be booked.

    Raises:
        TradingError: names the order and what does not fit.
    """
    said = _unreal(execution)
    try:
        said = said or _misfit(order, execution) or _mispriced(order, execution)
    except ArithmeticError:
        said = f"{execution.quantity} tokens at {execution.price}, more than can be reckoned"
    if said:
        raise TradingError(f"order {order.client_id} came back filled with {said}", stage="settle")


def _unreal(execution: ExecutionLike) -> str:
    """What of a fill is no number, or none that a fill can have; "" if nothing is."""
    if not execution.quantity.is_finite() or not execution.fee_usd.is_finite() or execution.fee_usd < 0:
        return f"{execution.quantity} tokens and a fee of {execution.fee_usd} USD, which are no amounts"
    if not math.isfinite(execution.price) or not math.isfinite(execution.slippage_bps):
        return f"a price of {execution.price} and a slippage of {execution.slippage_bps} bps, which are no numbers"
    return ""


def _misfit(order: Order, execution: ExecutionLike) -> str:
    """How the amounts of a fill go beyond its order or the book's grain, "" if they do not."""
    if order.quantity is not None and execution.quantity > order.quantity:
        return f"{execution.quantity} tokens, more than the {order.quantity} it was for"
    worth = gross(execution.quantity, execution.price)
    if order.notional_usd is not None and worth > order.notional_usd + _ROUNDING_USD:
        return f"{worth} USD, more than the {order.notional_usd} it was for"
    if execution.quantity.quantize(QUANTITY_GRAIN, rounding=ROUND_HALF_EVEN) <= 0 or worth <= 0:
        return f"{execution.quantity} tokens at {execution.price}, less than the book can hold"
    if execution.fee_usd > worth * _MOST_FEE + _ROUNDING_USD:
        return f"a fee of {execution.fee_usd} USD on {worth} USD, more than {_MOST_FEE:.0%}"
    return ""


def _mispriced(order: Order, execution: ExecutionLike) -> str:
    """How the price of a fill is one the order cannot have had, "" if it is not. Nothing below bounds a sale that
    waited while the price fell: it must be booked."""
    if order.side == "buy" and execution.slippage_bps < -_MOST_BETTER_BPS:
        return f"a price of {execution.price}, {-execution.slippage_bps:.0f} bps better than when it was sent"
    above, below = execution.price > order.decision_price * _MOST_TIMES, order.decision_price / _MOST_TIMES
    if order.decision_price > 0 and (above or (order.side == "buy" and execution.price < below)):
        return f"a price of {execution.price}, when it was decided at {order.decision_price}"
    return ""


def _result(order: Order, execution: ExecutionLike, at: int) -> Payload:
    if execution.status in ("filled", "partial"):
        _refuse_impossible(order, execution)
        return OrderFilled(
            client_id=order.client_id,
            action_id=order.action_id,
            side=order.side,
            decision_type=order.decision_type,
            rule=order.rule,
            quantity=execution.quantity,
            price=execution.price,
            fee_usd=execution.fee_usd,
            slippage_bps=execution.slippage_bps,
            partial=execution.status == "partial",
            bar_ts_open=at,
        )
    if execution.status == "rejected":
        return OrderRejected(order.client_id, order.action_id, order.side, order.decision_type, execution.reason)
    if execution.status == "expired":
        return OrderExpired(order.client_id, order.action_id, order.side, order.decision_type, execution.reason)
    raise TradingError(
        f"order {order.client_id} came back {execution.status!r}; known are filled, partial, rejected, expired, open",
        stage="settle",
    )


def _unsellable(position: Position, order: Order, execution: ExecutionLike) -> bool:
    """Whether the venue takes no order for all that is held, and that is little: it is dust (trading.md 4.3)."""
    if not execution.too_small or order.quantity is None or order.quantity < position.ledger.quantity:
        return False
    return gross(order.quantity, order.decision_price) <= WRITE_OFF_MOST_USD


def over(position: Position, reading: MarketReading) -> str:
    """Why a flat position with an open trade must close now, "" if it need not: its attempt has ended, or the trade's
    time is up (trading.md 4.4; `trading.terms`)."""
    if not position.trade_id or position.holding or position.planned is not None:
        return ""
    if reading.state != "S0" and attempt_runs(position):
        return timed_out(position, reading.ts)
    return reading.exit_reason or position.exit_reason or "attempt_over"


def restless(position: Position) -> bool:
    """Whether the position must be ticked on every bar, interesting or not: an exit is unfinished, a closure overdue,
    a partial fill left something to order, or the open trade may end on any bar (`trading.terms`)."""
    unfinished = position.exiting or position.pending is not None
    unfinished = unfinished or (position.terms is not None and position.terms.ends_early)
    return unfinished or bool(position.trade_id and not attempt_runs(position))


def closure(
    position: Position,
    path: BarSeries,
    *,
    reason: str,
    now: int,
    decision: Decision | None,
    rules: TradingRules,
    pending: Decision | None = None,
    cause_id: str = "",
    config_version: int = 0,
    regime_snapshot_id: str = "",
) -> tuple[Strand, ...]:
    """Close the finished trade of a flat position: ``position_closed`` with all its actions, then ``position_status``.

    Args:
        path: bars of the position's timeframe from 10 bars before the entry to now.
        reason: exit reason, as the engine named it.
        decision: the decision the trade ran under; its curator and context travel with the close.
        pending: the decision that waits; taken up if it is not older than ``pending_days`` (decisions 41), else
            dropped.
        cause_id: strand that finished the trade.

    The id of ``position_closed`` is that of the trade: a second closing writes nothing new.
    """
    payload = PositionClosed(
        chain=position.chain,
        contract=position.contract,
        decision_id=position.decision_id,
        curator_id=decision.curator_id if decision else "",
        first_under_decision=not position.decision_used,
        allocation_pct=position.allocation_pct,
        exit_reason=reason,
        decision_type=position.actions[-1].decision_type if position.actions else "",
        entry_context=dict(decision.entry_context) if decision else {},
        summary=close_trade(position, path, rules.outcome),
        actions=position.actions,
    )
    closed = about(
        position,
        payload,
        stable_id("position_closed", position.trade_id),
        now,
        now,
        trade_id=position.trade_id,
        correlation_id=decision.signal_id if decision else "",
        causation_id=cause_id or position.actions[-1].strand_id,
        config_version=config_version,
        arm=position.actions[0].arm,
        scope=position.actions[0].scope,
        regime_snapshot_id=regime_snapshot_id,
        tags=("position_closed", reason),
    )
    fresh = pending if pending is not None and now - position.pending_since <= rules.dm.pending_days * DAY else None
    why = TAKEN_UP if fresh else "trade_closed"
    status = "paused" if position.status == "paused" else "watchlist"
    return closed, status_strand(position, status=status, reason=why, cause=closed, decision=fresh)
