"""The trade report of a run: account, trades, exposure, costs and groups as one JSON object (see `metrics`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgebook.domain.book import Trade
from edgebook.domain.decay import DAY
from edgebook.runtime.report import metrics as m
from edgebook.runtime.report.equity import Equity, Fill, Journal
from edgebook.runtime.views import when

Json = Any
GROUPS = ("pattern", "curator", "timeframe", "exit_reason", "month")


def trade_report(
    trades: Sequence[Trade],
    journal: Journal,
    equity: Equity,
    market: Sequence[float],
    rng: np.random.Generator,
) -> dict[str, Json]:
    """Everything `report.html` and the terminal show about trades and money.

    Args:
        trades: closed trades, in any order.
        journal: fills and closes of the same run.
        equity: the account day by day.
        market: return of each tradable token, bought at its first price of the run and held to its last.
        rng: draws of the intervals.

    Returns:
        ``period, market, account, trades, exposure, costs, groups, monthly_returns, daily``; times are text in UTC,
        shares and returns fractions of 1, a figure its data cannot carry is None.
    """
    ordered = sorted(trades, key=lambda t: (t.closed_at, t.trade_id))
    patterns = {close.trade_id: close.pattern for close in journal.closes}
    start, end = int(equity.ts[0]), int(equity.ts[-1])
    labels: Mapping[str, Callable[[Trade], str]] = {
        "pattern": lambda t: patterns[t.trade_id],
        "curator": lambda t: t.curator_id or "none",
        "timeframe": lambda t: t.timeframe,
        "exit_reason": lambda t: t.exit_reason,
        "month": lambda t: m.month_of(t.closed_at),
    }
    return {
        "period": {"start": when(start), "end": when(end), "days": (end - start) / DAY},
        "market": {"tokens": len(market), "mean_return": _mean(market), "median_return": _median(market)},
        "account": account_figures(equity, rng),
        "trades": trade_figures(ordered, rng),
        "exposure": exposure_figures(ordered, journal.fills, equity),
        "costs": cost_figures(journal.fills, equity),
        "groups": {name: m.group_figures(ordered, labels[name], rng) for name in GROUPS},
        "monthly_returns": m.monthly_returns(equity.ts, equity.usd),
        "daily": {
            "at": [when(ts) for ts in equity.ts.tolist()],
            "equity_usd": equity.usd.round(2).tolist(),
            "invested_usd": equity.invested.round(2).tolist(),
        },
    }


def account_figures(equity: Equity, rng: np.random.Generator) -> dict[str, Json]:
    """Growth, spread, ratios and drawdown of the account, marked to market daily; the drawdown at fills and closes as
    well."""
    first, last = float(equity.usd[0]), float(equity.usd[-1])
    returns = m.daily_returns(equity.ts, equity.usd)
    ends = equity.ts[1:][np.diff(equity.ts) == DAY]
    yearly = m.cagr(first, last, (int(equity.ts[-1]) - int(equity.ts[0])) / DAY)
    fall = m.max_drawdown(equity.closest.ts, equity.closest.usd)
    found = m.sharpe_interval(returns, ends, rng)
    return {
        "start_usd": first,
        "end_usd": last,
        "total_return": last / first - 1.0,
        "cagr": yearly,
        "volatility": m.volatility(returns),
        "sharpe": m.sharpe(returns),
        "sharpe_ci90": found,
        "verdict": m.verdict(found),
        "sortino": m.sortino(returns),
        "calmar": m.calmar(yearly, fall.depth) if fall else None,
        "max_drawdown": fall.depth if fall else 0.0,
        "drawdown": {
            "peak_at": when(fall.peak_at),
            "trough_at": when(fall.trough_at),
            "recovered_at": when(fall.recovered_at) if fall.recovered_at is not None else None,
            "days": fall.days,
        }
        if fall
        else None,
    }


def trade_figures(trades: Sequence[Trade], rng: np.random.Generator) -> dict[str, Json]:
    """Figures of all closed trades together."""
    pnl = [float(t.pnl_usd) for t in trades]
    gains, losses = [x for x in pnl if x > 0], [x for x in pnl if x < 0]
    hold = [(t.closed_at - t.opened_at) / DAY for t in trades]
    closed = np.array([t.closed_at for t in trades], dtype=np.int64)
    found = m.mean_interval(np.array(pnl), closed, rng)
    return {
        **m.figures(trades, rng),
        "median_rr": _median([t.rr for t in trades]),
        "expectancy_usd": _mean(pnl),
        "expectancy_ci90": found,
        "expectancy_verdict": m.verdict(found),
        "profit_factor": m.profit_factor(pnl),
        "mean_gain_usd": _mean(gains),
        "mean_loss_usd": _mean(losses),
        "mean_hold_days": _mean(hold),
        "median_hold_days": _median(hold),
        "best": _extreme(trades, max),
        "worst": _extreme(trades, min),
    }


def exposure_figures(trades: Sequence[Trade], fills: Sequence[Fill], equity: Equity) -> dict[str, Json]:
    """How much of the time, and how much of the account, was in the market; trades still open at the end count.

    ``max_invested`` and ``mean_invested`` are shares of the account at midnights, fills and closes, the mean weighted
    by the time to the next of them; prices that move in between are not seen. Both are None where the account was
    ever worth nothing or less.
    """
    start, end = int(equity.ts[0]), int(equity.ts[-1])
    done = {t.trade_id for t in trades}
    opened: dict[str, int] = {}
    for fill in fills:
        if fill.trade_id not in done:
            opened.setdefault(fill.trade_id, fill.ts)
    spans = [(t.opened_at, t.closed_at) for t in trades] + [(ts, end) for ts in opened.values()]
    fine = equity.closest
    share = fine.invested / fine.usd if (fine.usd > 0).all() else None
    return {
        "time_with_open_trade": m.open_share(spans, start, end),
        "mean_invested": float(np.average(share[:-1], weights=np.diff(fine.ts))) if share is not None else None,
        "max_invested": float(share.max()) if share is not None else None,
        "open_trades": len(opened),
        "open_value_usd": float(equity.invested[-1]),
    }


def cost_figures(fills: Sequence[Fill], equity: Equity) -> dict[str, Json]:
    """What was traded and what it cost.

    ``turnover_per_year`` = half of all traded USD over the mean account, per 365 days: how often a year the whole
    account is bought and sold once; None below 90 days, and where the mean account is nothing or less.
    """
    days = (int(equity.ts[-1]) - int(equity.ts[0])) / DAY
    traded = m.total(fill.gross_usd for fill in fills)
    mean = float(equity.usd.mean())
    told = days >= m.MIN_DAYS_YEARLY and mean > 0
    return {
        "fills": len(fills),
        "traded_usd": traded,
        "turnover_per_year": traded / 2.0 / mean / days * m.DAYS_PER_YEAR if told else None,
        "fees_usd": m.total(fill.fee_usd for fill in fills),
        "slippage_usd": sum(fill.slippage_usd for fill in fills),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _extreme(trades: Sequence[Trade], choose: Callable[..., Trade]) -> dict[str, Json] | None:
    """The best or worst trade by pnl."""
    if not trades:
        return None
    trade = choose(trades, key=lambda t: t.pnl_usd)
    return {
        "trade_id": trade.trade_id,
        "symbol": trade.symbol,
        "timeframe": trade.timeframe,
        "opened_at": when(trade.opened_at),
        "closed_at": when(trade.closed_at),
        "pnl_usd": float(trade.pnl_usd),
        "rr": trade.rr,
    }
