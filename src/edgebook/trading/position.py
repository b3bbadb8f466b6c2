"""Positions and accounts, folded from strands: ``evolve`` is the only thing that changes them.

Memory of a rule changes when its order fills, never when it is planned: a plan that does not fill leaves no trace but
the strand.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from edgebook.domain.book import ZERO, Account, Emergency, Ledger, Pending, Planned, Pool, Position, Unsold
from edgebook.domain.errors import TradingError
from edgebook.domain.ids import stable_id
from edgebook.domain.strands import (
    OrderExpired,
    OrderFilled,
    OrderRejected,
    PmAction,
    PositionClosed,
    PositionStatus,
    StageTransition,
    Strand,
    TradeAction,
)
from edgebook.domain.values import replace
from edgebook.trading.rules import DUST_SHARE, DUST_USD, WRITE_OFF_MOST_USD
from edgebook.trading.terms import attempt_ended, terms_of, trade_counted

#: Reason of the status strand that gives up what a partial fill left to order.
LAPSED = "completion_lapsed"
#: Reason of the status strand that gives up a rest which the venue takes no order for.
WRITTEN_OFF = "rest_written_off"

_USD = Decimal("0.000001")
#: Smallest part of a token the book counts.
QUANTITY_GRAIN = Decimal("0.000000001")


#: What a position remembers of its attempt, before the first bar of one.
_UNTOUCHED: dict[str, Any] = {
    "s1_used": False,
    "armed_s2": False,
    "armed_s3": False,
    "first_dip_used": False,
    "last_trim_ts": 0,
    "last_trim_level": None,
    "pool": Pool(),
    "emergency": Emergency(),
}


def position_id(chain: str, contract: str, timeframe: str, book: str) -> str:
    """Id of the one position per (contract, chain, timeframe, book)."""
    return stable_id("position", chain, contract, timeframe, book)


def attempt_id(position: str, start_ts: int) -> str:
    """Id of the attempt that began with the S0->S1 bar closing at ``start_ts``."""
    return stable_id("attempt", position, start_ts)


# ---------------------------------------------------------------- ledger


def usd(value: Decimal) -> Decimal:
    """``value`` rounded to 1e-6 USD, the ledger's grain; halves to the even side, whatever the thread's habit is.

    >>> usd(Decimal("2319.9537185"))
    Decimal('2319.953718')
    """
    return value.quantize(_USD, rounding=ROUND_HALF_EVEN)


def gross(quantity: Decimal, price: float) -> Decimal:
    """``quantity * price`` in USD to 1e-6.

    >>> gross(Decimal(40), 1.5)
    Decimal('60.000000')
    """
    return usd(quantity * Decimal(repr(price)))


def apply_buy(ledger: Ledger, quantity: Decimal, price: float, fee: Decimal) -> Ledger:
    """Ledger after buying: ``cost`` and ``invested`` grow by ``q*p + fee`` (trading.md 4.3).

    Raises:
        TradingError: quantity or price is not positive, or the fee is negative.
    """
    _check(quantity, price, fee)
    paid = gross(quantity, price) + usd(fee)
    return Ledger(
        quantity=ledger.quantity + quantity.quantize(QUANTITY_GRAIN, rounding=ROUND_HALF_EVEN),
        cost=ledger.cost + paid,
        invested=ledger.invested + paid,
        extracted=ledger.extracted,
        realised=ledger.realised,
        fees=ledger.fees + usd(fee),
        bought=ledger.bought + quantity.quantize(QUANTITY_GRAIN, rounding=ROUND_HALF_EVEN),
    )


def apply_sell(ledger: Ledger, quantity: Decimal, price: float, fee: Decimal) -> Ledger:
    """Ledger after selling: proceeds are ``q*p - fee``, the sold share leaves at average cost (trading.md 4.3).

    Raises:
        TradingError: more is sold than held, or a number is impossible.
    """
    _check(quantity, price, fee)
    sold = quantity.quantize(QUANTITY_GRAIN, rounding=ROUND_HALF_EVEN)
    if sold > ledger.quantity:
        raise TradingError(f"cannot sell {sold}, only {ledger.quantity} are held", stage="ledger")
    proceeds = gross(sold, price) - usd(fee)
    share = ledger.cost if sold == ledger.quantity else usd(ledger.cost * sold / ledger.quantity)
    return Ledger(
        quantity=ledger.quantity - sold,
        cost=ledger.cost - share,
        invested=ledger.invested,
        extracted=ledger.extracted + proceeds,
        realised=ledger.realised + proceeds - share,
        fees=ledger.fees + usd(fee),
        bought=ledger.bought,
    )


def is_dust(ledger: Ledger, price: float) -> bool:
    """Whether the rest is not worth selling: under 1 USD, or under 0.1 % of what was bought and worth no more than
    20 USD (trading.md 4.3).

    >>> is_dust(Ledger(quantity=Decimal(9), bought=Decimal(10_000)), 2.0)
    True
    >>> is_dust(Ledger(quantity=Decimal(9), bought=Decimal(10_000)), 3.0)
    False
    """
    if ledger.quantity <= 0:
        return False
    worth = gross(ledger.quantity, price)
    return worth < DUST_USD or (ledger.quantity < ledger.bought * DUST_SHARE and worth <= WRITE_OFF_MOST_USD)


def write_off(ledger: Ledger) -> Ledger:
    """The rest given up: its cost is a realised loss, the quantity 0."""
    return replace(ledger, quantity=ZERO, cost=ZERO, realised=ledger.realised - ledger.cost)


def unrealised(ledger: Ledger, mark: float) -> Decimal:
    """``quantity * mark - cost`` in USD."""
    return gross(ledger.quantity, mark) - ledger.cost


def _check(quantity: Decimal, price: float, fee: Decimal) -> None:
    if not (quantity > 0 and price > 0 and fee >= 0):
        raise TradingError(
            f"a fill needs quantity > 0, price > 0 and fee >= 0, was {quantity} at {price} with fee {fee}",
            stage="ledger",
        )


# ---------------------------------------------------------------- fold


def evolve(position: Position | None, strand: Strand) -> Position:
    """The position after ``strand``; strands that are no business of a position change nothing but ``last_seq``.

    Raises:
        TradingError: the strand belongs to another position, or contradicts this one (a fill nobody planned, a first
            strand that does not create it).
    """
    if isinstance(strand.payload, PositionStatus):
        return _status(position, strand, strand.payload)
    if position is None or position.id != strand.position_id:
        raise TradingError(
            f"strand {strand.id} of kind {strand.kind} belongs to position {strand.position_id or 'none'}",
            stage="position",
        )
    fold = _FOLDS.get(type(strand.payload))
    return fold(position, strand) if fold else _seen(position, strand)


def _seen(position: Position, strand: Strand) -> Position:
    return replace(position, last_seq=strand.seq) if strand.seq else position


def _status(position: Position | None, strand: Strand, status: PositionStatus) -> Position:
    before = position.status if position is not None else ""
    if position is None:
        position = Position(
            id=strand.position_id,
            symbol=strand.symbol,
            chain=status.chain,
            contract=status.contract,
            timeframe=strand.timeframe,
            book=status.book,
            status=status.status,
            created_at=strand.ts_event,
        )
    taken_up = status.decision_id != position.decision_id
    waits = status.pending_decision_id
    given = replace(
        position,
        status=status.status,
        cap_class=status.cap_class,
        decision_id=status.decision_id,
        decision_used=False if taken_up else position.decision_used,
        pending_decision_id=waits,
        pending_since=(position.pending_since if waits == position.pending_decision_id else strand.ts_event)
        if waits
        else 0,
        allocation_pct=status.allocation_pct,
        pending=None if status.reason == LAPSED else position.pending,
        status_since=strand.ts_event if status.status != before else position.status_since,
        last_seq=strand.seq,
    )
    if status.reason == WRITTEN_OFF:
        given = _given_up(given, strand.ts_event)
    return _forgetful(given) if status.status == "archived" else given


def _given_up(position: Position, now: int) -> Position:
    """The position after its rest was written off; what it was worth at the refused sale's price is remembered."""
    unsold, ledger = position.unsold, position.ledger
    if unsold is not None:
        unsold = replace(unsold, usd=unsold.usd + gross(ledger.quantity, unsold.price), ts=now)
    return replace(position, ledger=write_off(ledger), unsold=unsold)


def _forgetful(position: Position) -> Position:
    """An archived position is not ticked, so what it knew of its attempt will not be true when it is woken.

    A block stays: only an S3 that was seen lifts it.
    """
    return replace(position, attempt_id="", tally=None, **_UNTOUCHED)


def _planned(position: Position, strand: Strand) -> Position:
    action = strand.payload
    assert isinstance(action, PmAction)
    step, clears = action.reasons.get("dx_step"), action.reasons.get("clears_pool")
    waiting = Planned(
        _as_learnt(position.pending, strand, action),
        action.state,
        action.atr,
        action.level_price,
        float(step or 0.0),
        bool(clears),
        action.notional_usd,
        action.quantity,
        int(action.reasons.get("complete_by") or 0),
        bool(action.reasons.get("completes")),
        terms_of(action.reasons, position.attempt_id) if action.side == "buy" and not position.trade_id else None,
        action.price if action.side == "sell" else 0.0,
    )
    closing = action.rule == 1
    reason = str(action.reasons.get("exit_reason") or position.exit_reason) if closing else position.exit_reason
    return replace(
        position,
        planned=waiting,
        pending=None,
        status="closing" if closing and position.status != "paused" else position.status,
        exit_reason=reason,
        last_seq=strand.seq,
    )


def _as_learnt(pending: Pending | None, strand: Strand, action: PmAction) -> TradeAction:
    """The action as learning will read it; the rest of a partial fill is learnt as what it completes."""
    if pending is not None and action.reasons.get("completes"):
        return replace(pending.action, strand_id=strand.id, ts=strand.ts_event, quantity=ZERO, price=0.0, fee_usd=ZERO)
    applied = {n.lever: n.applied for n in action.nudges}
    buys = action.side == "buy"
    return TradeAction(
        strand_id=strand.id,
        ts=strand.ts_event,
        decision_type=action.decision_type,
        rule=action.rule,
        pattern_key=action.pattern_key,
        action_category=action.action_category,
        scope=strand.scope,
        arm=strand.arm,
        config_version=strand.config_version,
        quantity=ZERO,
        price=0.0,
        fee_usd=ZERO,
        size_mult=applied.get("size_mult", 1.0),
        aggression_mult=applied.get("entry_aggression_mult" if buys else "exit_aggression_mult", 1.0),
    )


def _not_filled(position: Position, strand: Strand) -> Position:
    price = position.planned.price if position.planned is not None else 0.0
    small = price > 0 and gross(position.ledger.quantity, price) <= WRITE_OFF_MOST_USD
    unsold = replace(position.unsold or Unsold(price), price=price) if small else position.unsold
    return replace(position, planned=None, unsold=unsold, last_seq=strand.seq)


def _filled(position: Position, strand: Strand) -> Position:
    fill = strand.payload
    assert isinstance(fill, OrderFilled)
    planned = position.planned
    if planned is None or planned.action.strand_id != fill.action_id:
        raise TradingError(
            f"fill {strand.id} is for action {fill.action_id}, which position {position.id} did not plan",
            stage="position",
        )
    action = replace(planned.action, ts=strand.ts_event, quantity=fill.quantity, price=fill.price, fee_usd=fill.fee_usd)
    booked = replace(
        position,
        planned=None,
        pending=_left(fill, planned, action, strand.ts_event),
        actions=(*position.actions, action),
        last_seq=strand.seq,
    )
    if fill.side == "buy":
        bought = _bought(booked, strand, fill, planned)
        return bought if planned.completes else _RULE_BUYS[fill.rule](bought, fill, planned)
    ledger = apply_sell(position.ledger, fill.quantity, fill.price, fill.fee_usd)
    if is_dust(ledger, fill.price):
        ledger = write_off(ledger)
    proceeds = gross(fill.quantity, fill.price) - usd(fill.fee_usd)
    return _sold(replace(booked, ledger=ledger), fill, planned, proceeds, position.actions[-1:])


def _left(fill: OrderFilled, planned: Planned, action: TradeAction, now: int) -> Pending | None:
    """What a partial fill left to order by the deadline its action named; None where it named none."""
    if not fill.partial or planned.complete_by <= now:
        return None
    spent = gross(fill.quantity, fill.price)
    notional = planned.notional_usd - spent if planned.notional_usd is not None else None
    quantity = planned.quantity - fill.quantity if planned.quantity is not None else None
    if (notional if notional is not None else quantity or ZERO) <= 0:
        return None
    return Pending(action, planned.state, planned.atr, notional, quantity, planned.complete_by)


def _bought(position: Position, strand: Strand, fill: OrderFilled, planned: Planned) -> Position:
    ledger = apply_buy(position.ledger, fill.quantity, fill.price, fill.fee_usd)
    emergency = replace(position.emergency, filled=False) if position.emergency.filled else position.emergency
    if position.trade_id:
        return replace(position, ledger=ledger, emergency=emergency)
    return replace(
        position,
        ledger=ledger,
        emergency=emergency,
        status="paused" if position.status == "paused" else "active",
        trade_id=strand.trade_id,
        entry_ts=strand.ts_event,
        entry_price=fill.price,
        entry_atr=planned.atr,
        pinned_config=strand.config_version,
        terms=planned.terms,
        s3_reached_ts=strand.ts_event if planned.state == "S3" else 0,
    )


def _sold(
    position: Position, fill: OrderFilled, planned: Planned, proceeds: Decimal, before: tuple[TradeAction, ...]
) -> Position:
    if fill.rule == 2:
        goes_on = bool(before) and before[0].rule == 2
        value = proceeds + (position.emergency.exit_value if goes_on else ZERO)
        return replace(position, emergency=Emergency(filled=not position.holding, exit_value=value, rebuy_used=False))
    if fill.rule == 3 and planned.completes:
        return replace(position, pool=replace(position.pool, basis=position.pool.basis + proceeds))
    if fill.rule == 3:
        pool = (
            Pool(basis=proceeds)
            if position.pool.recovery
            else replace(position.pool, basis=position.pool.basis + proceeds)
        )
        return replace(
            position,
            pool=pool,
            last_trim_ts=planned.action.ts,
            last_trim_level=planned.level_price,
            armed_s2=True,
            armed_s3=True,
        )
    return position


def _bought_dx(position: Position, fill: OrderFilled, planned: Planned) -> Position:
    if planned.clears_pool:
        return replace(position, pool=Pool())
    pool = replace(
        position.pool, recovery=True, dx_count=position.pool.dx_count + 1, next_arm=fill.price - planned.step
    )
    return replace(position, pool=pool)


def _bought_s2(position: Position, fill: OrderFilled, planned: Planned) -> Position:
    return replace(position, armed_s2=False, pool=Pool() if planned.clears_pool else position.pool)


_RULE_BUYS: dict[int, Callable[[Position, OrderFilled, Planned], Position]] = {
    4: lambda p, fill, planned: replace(p, emergency=replace(p.emergency, rebuy_used=True)),
    5: lambda p, fill, planned: replace(p, s1_used=True),
    6: _bought_s2,
    7: _bought_dx,
    8: lambda p, fill, planned: replace(p, armed_s3=False),
    9: lambda p, fill, planned: replace(p, first_dip_used=True),
}


def _moved(position: Position, strand: Strand) -> Position:
    change = strand.payload
    assert isinstance(change, StageTransition)
    seen = replace(position, last_seq=strand.seq)
    if change.to_state == "S0":
        return replace(attempt_ended(seen), attempt_id="", armed_s2=False, armed_s3=False)
    if change.from_state == "S0":
        return replace(seen, attempt_id=change.attempt_id, **_UNTOUCHED)
    if change.to_state == "S2":
        return replace(seen, armed_s2=True)
    if change.to_state == "S3":
        reached = strand.ts_event if position.trade_id and not position.s3_reached_ts else position.s3_reached_ts
        return replace(seen, armed_s3=True, first_dip_used=False, s3_reached_ts=reached, blocked="")
    return seen


def _closed(position: Position, strand: Strand) -> Position:
    closed = strand.payload
    assert isinstance(closed, PositionClosed)
    return replace(
        trade_counted(position, closed),
        status="paused" if position.status == "paused" else "watchlist",
        status_since=strand.ts_event,
        decision_used=True,
        pool=Pool(),
        emergency=Emergency(),
        trade_id="",
        ledger=Ledger(),
        entry_ts=0,
        entry_price=0.0,
        entry_atr=0.0,
        s3_reached_ts=0,
        pinned_config=0,
        terms=None,
        unsold=None,
        actions=(),
        planned=None,
        pending=None,
        exit_reason="",
        trades_closed=position.trades_closed + 1,
        last_seq=strand.seq,
    )


_FOLDS: dict[type, Callable[[Position, Strand], Position]] = {
    PmAction: _planned,
    OrderFilled: _filled,
    OrderRejected: _not_filled,
    OrderExpired: _not_filled,
    StageTransition: _moved,
    PositionClosed: _closed,
}


def evolve_account(account: Account, strand: Strand) -> Account:
    """Cash after ``strand``: a buy pays ``q*p + fee``, a sell receives ``q*p - fee``, all else changes nothing."""
    fill = strand.payload
    if not isinstance(fill, OrderFilled):
        return account
    amount = gross(fill.quantity, fill.price)
    change = -(amount + usd(fill.fee_usd)) if fill.side == "buy" else amount - usd(fill.fee_usd)
    return replace(account, cash_usd=account.cash_usd + change)
