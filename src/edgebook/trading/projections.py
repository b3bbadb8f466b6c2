"""Rows that are folded from single strands: orders and closed trades."""

from __future__ import annotations

from edgebook.domain.book import Order, Trade
from edgebook.domain.errors import TradingError
from edgebook.domain.strands import OrderExpired, OrderFilled, OrderRejected, PmAction, PositionClosed, Strand
from edgebook.domain.values import replace


def order_of(strand: Strand) -> Order:
    """The order that a ``pm_action`` strand asks for."""
    action = strand.payload
    assert isinstance(action, PmAction)
    reasons = action.reasons
    return Order(
        client_id=action.client_id,
        action_id=strand.id,
        position_id=strand.position_id,
        symbol=strand.symbol,
        timeframe=strand.timeframe,
        side=action.side,
        decision_type=action.decision_type,
        rule=action.rule,
        notional_usd=action.notional_usd,
        quantity=action.quantity,
        planned_ts=strand.ts_event,
        expires_ts=int(reasons.get("expires_ts") or strand.ts_event),
        decision_price=action.price,
        bar_volume_usd=float(reasons.get("bar_volume_usd") or 0.0),
        liquidity_usd=float(reasons.get("liquidity_usd") or 0.0),
    )


def evolve_order(order: Order | None, strand: Strand) -> Order:
    """The order after ``strand``: planned by its action; filled, partial, rejected or expired by its outcome.

    Raises:
        TradingError: an outcome without its order, or a strand that is no business of an order.
    """
    payload = strand.payload
    if isinstance(payload, PmAction):
        return order_of(strand)
    if order is None or not isinstance(payload, OrderFilled | OrderRejected | OrderExpired):
        raise TradingError(f"strand {strand.id} of kind {strand.kind} has no order to change", stage="orders")
    if isinstance(payload, OrderFilled):
        return replace(order, status="partial" if payload.partial else "filled")
    return replace(order, status="rejected" if isinstance(payload, OrderRejected) else "expired")


def trade_of(strand: Strand) -> Trade:
    """The trade row of a ``position_closed`` strand."""
    closed = strand.payload
    assert isinstance(closed, PositionClosed)
    summary = closed.summary
    return Trade(
        trade_id=strand.trade_id,
        position_id=strand.position_id,
        symbol=strand.symbol,
        chain=closed.chain,
        timeframe=strand.timeframe,
        decision_id=closed.decision_id,
        curator_id=closed.curator_id,
        opened_at=summary.entry_ts,
        closed_at=strand.ts_event,
        pnl_usd=summary.pnl_usd,
        invested_usd=summary.invested_usd,
        fees_usd=summary.fees_usd,
        roi=summary.roi,
        rr=summary.rr,
        exit_reason=closed.exit_reason,
        actions=len(closed.actions),
        strand_id=strand.id,
    )
