"""What a closed trade was worth: return, drawdown, reward to risk, and what better timing would have brought
(trading.md 4.5)."""

from __future__ import annotations

from collections.abc import Sequence

from edgebook.domain.book import ZERO, Position
from edgebook.domain.decay import DAY
from edgebook.domain.errors import TradingError
from edgebook.domain.strands import PositionClosed, TradeAction, TradeCounterfactual, TradeSummary
from edgebook.domain.timeframe import micros, seconds
from edgebook.market.bars import BarSeries
from edgebook.trading.rules import OutcomeRules

#: How far around the first fill the best entry is looked for, and how long after the exit the best exit (bars).
NEAR_ENTRY_BARS, HINDSIGHT_BARS = 10, 20


def close_trade(position: Position, path: BarSeries, rules: OutcomeRules) -> TradeSummary:
    """Summary of the open trade of ``position``, whose last tokens have just been sold or written off.

    ``roi`` = realised / invested, net of fees. A rest that was given up because no sale of it was taken
    (``rest_written_off``) counts in ``roi`` and ``rr`` at the decision price of that sale, and when it was given up is
    the exit: the call is judged, not the size of the rest. In money it is a realised loss: ``pnl_usd`` and
    ``extracted_usd`` count it as nothing. Dust counts as nothing in both.

    ``max_drawdown`` = (entry - lowest low) / entry, not below 0, over bars that open after the first fill's bar and
    close by the exit; entry is the average price of everything bought:
    from the first fill alone, adds on the way up would look free of risk. ``rr`` as in `reward_to_risk`.

    Args:
        path: bars of the position's timeframe around the trade; bars before the entry (up to 10) only serve the best
            entry. Without bars inside the trade, drawdown and gain are 0.

    Raises:
        TradingError: no trade is open, or tokens are still held.
    """
    ledger, actions = position.ledger, position.actions
    if not position.trade_id or position.holding or not actions:
        raise TradingError(f"position {position.id} has no finished trade to close", stage="closure")
    step = micros(position.timeframe)
    entry, (exit_price, exit_ts) = average_entry(actions), _exit(position)
    inside = path.slice(position.entry_ts + 1, max(position.entry_ts + 1, exit_ts - step + 1))
    low, high = (float(inside.low.min()), float(inside.high.max())) if len(inside) else (entry, entry)
    drawdown, gain = max(0.0, (entry - low) / entry), max(0.0, (high - entry) / entry)
    floor = r_floor(position.entry_atr, entry, position.timeframe, rules)
    pnl = ledger.extracted - ledger.invested
    given_up = position.unsold.usd if position.unsold is not None else ZERO
    roi = float((pnl + given_up) / ledger.invested)
    rr_raw, rr = reward_to_risk(roi, drawdown, floor, rules)
    around = rules.entry_neighbourhood_bars * step
    near = path.slice(position.entry_ts - around, min(position.entry_ts + around, exit_ts - step) + 1)
    best_entry = min(entry, float(near.low.min())) if len(near) else entry
    best_exit = max(exit_price, high)
    missed_entry, missed_exit = (entry - best_entry) / (floor * entry), (best_exit - exit_price) / (floor * entry)
    hold_days = (exit_ts - position.entry_ts) / DAY
    to_s3 = (position.s3_reached_ts - position.entry_ts) / DAY if position.s3_reached_ts else None
    return TradeSummary(
        entry_ts=position.entry_ts,
        exit_ts=exit_ts,
        entry_price=entry,
        exit_price=exit_price,
        invested_usd=ledger.invested,
        extracted_usd=ledger.extracted,
        pnl_usd=pnl,
        fees_usd=ledger.fees,
        roi=roi,
        rr=rr,
        rr_raw=rr_raw,
        rr_clipped=rr != rr_raw,
        r_floor=floor,
        price_return=(exit_price - entry) / entry,
        max_drawdown=drawdown,
        max_gain=gain,
        outcome_class=outcome_class(rr),
        hold_bars=(exit_ts - position.entry_ts) // step,
        hold_days=hold_days,
        hold_class="short" if hold_days < 7 else "medium" if hold_days <= 30 else "long",
        time_to_s3_days=to_s3,
        time_efficiency=1.0 / (1.0 + (hold_days if to_s3 is None else to_s3)),
        best_entry_price=best_entry,
        best_exit_price=best_exit,
        missed_entry_r=missed_entry,
        missed_exit_r=missed_exit,
        cf_entry_bucket=improvement_bucket(missed_entry),
        cf_exit_bucket=improvement_bucket(missed_exit),
    )


def _exit(position: Position) -> tuple[float, int]:
    """Price and time of what ended the trade: its last fill, or the giving up of a rest after it."""
    last, unsold = position.actions[-1], position.unsold
    if unsold is not None and unsold.ts > last.ts:
        return unsold.price, unsold.ts
    return last.price, last.ts


def average_entry(actions: Sequence[TradeAction]) -> float:
    """Average price of all buys of a trade, without fees: ``sum(q * p) / sum(q)``."""
    buys = [(float(action.quantity), action.price) for action in actions if action.decision_type in ("entry", "add")]
    return sum(quantity * price for quantity, price in buys) / sum(quantity for quantity, _ in buys)


def hindsight(closed: PositionClosed, timeframe: str, path: BarSeries) -> TradeCounterfactual:
    """What the bars around a closed trade showed once they were known (trading.md 4.5).

    The best entry is the lowest low within 10 bars of the first fill, the best exit the highest high from there to 20
    bars after the exit; both missed amounts are in R = ``r_floor * entry``.

    Args:
        path: bars of the position's timeframe from 10 bars before the entry to 20 after the exit; gaps may be missing.
    """
    trade, step = closed.summary, micros(timeframe)
    near = path.slice(trade.entry_ts - NEAR_ENTRY_BARS * step, trade.entry_ts + NEAR_ENTRY_BARS * step + 1)
    later = path.slice(trade.entry_ts + 1, trade.exit_ts + HINDSIGHT_BARS * step)
    best_entry = min(trade.entry_price, float(near.low.min())) if len(near) else trade.entry_price
    best_exit = max(trade.exit_price, float(later.high.max())) if len(later) else trade.exit_price
    unit = trade.r_floor * trade.entry_price
    missed_entry, missed_exit = (trade.entry_price - best_entry) / unit, (best_exit - trade.exit_price) / unit
    return TradeCounterfactual(
        best_entry_price=best_entry,
        best_exit_price=best_exit,
        missed_entry_r=missed_entry,
        missed_exit_r=missed_exit,
        cf_entry_bucket=improvement_bucket(missed_entry),
        cf_exit_bucket=improvement_bucket(missed_exit),
    )


def reward_to_risk(roi: float, max_drawdown: float, floor: float, rules: OutcomeRules) -> tuple[float, float]:
    """``(rr_raw, rr)``: ``roi / max(max_drawdown, floor)``, and the same clipped to [-3, 10]; never infinite (decisions
    56).

    >>> reward_to_risk(0.05, 0.02, 0.01, OutcomeRules())
    (2.5, 2.5)
    >>> reward_to_risk(0.30, 0.0, 0.01, OutcomeRules())[1]
    10.0
    """
    raw = roi / max(max_drawdown, floor)
    return raw, min(rules.rr_hi, max(rules.rr_lo, raw))


def r_floor(entry_atr: float, entry_price: float, timeframe: str, rules: OutcomeRules) -> float:
    """Smallest risk of a trade as a fraction of its entry: max(1 %, ATR / entry), .5 % below 15m bars (decisions 56).

    >>> r_floor(3.0, 100.0, "1h", OutcomeRules()), r_floor(0.1, 100.0, "1h", OutcomeRules())
    (0.03, 0.01)
    >>> r_floor(0.1, 100.0, "5m", OutcomeRules())
    0.005
    """
    least = rules.r_floor_fine if seconds(timeframe) < seconds(rules.fine_below) else rules.r_floor
    return max(least, entry_atr / entry_price) if entry_atr > 0 else least


def outcome_class(rr: float) -> str:
    """Class of an rr (learning.md 1).

    >>> [outcome_class(x) for x in (2.1, 2.0, 0.5, 0.0, -1.0, -1.1)]
    ['big_win', 'small_win', 'breakeven', 'breakeven', 'small_loss', 'big_loss']
    """
    if rr > 2:
        return "big_win"
    if rr > 0.5:
        return "small_win"
    if rr >= 0:
        return "breakeven"
    return "small_loss" if rr >= -1 else "big_loss"


def improvement_bucket(missed_r: float) -> str:
    """Bucket of an improvement in units of ``r_floor * entry``.

    >>> [improvement_bucket(x) for x in (0.0, 0.5, 1.0, 2.0)]
    ['none', 'small', 'medium', 'large']
    """
    return "none" if missed_r < 0.5 else "small" if missed_r < 1 else "medium" if missed_r < 2 else "large"
