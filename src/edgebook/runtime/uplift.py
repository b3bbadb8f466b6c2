"""Learning on against learning off, over the same bars (decisions 54: in rr and in money)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgebook.domain.book import Trade
from edgebook.domain.decay import DAY

WEEK = 7 * DAY
BOOTSTRAP_DRAWS = 2_000


def compare(
    on: tuple[dict[str, Any], tuple[Trade, ...]], off: tuple[dict[str, Any], tuple[Trade, ...]]
) -> dict[str, Any]:
    """Learning on against off: both reports and the uplift, in money and in rr, with a 90 % interval over calendar
    weeks."""
    return {"on": on[0], "off": off[0], "uplift": uplift(on[1], off[1])}


def uplift(on: tuple[Trade, ...], off: tuple[Trade, ...]) -> dict[str, Any]:
    """Difference in pnl (USD) and in capital-weighted rr per trade, each with a 90 % interval from a bootstrap of whole
    weeks.

    rr is weighted by what was invested: learning moves capital, it does not change which bars pay.
    """
    weeks = sorted({t.closed_at // WEEK for t in (*on, *off)})
    if not weeks:
        return {"pnl": 0.0, "pnl_ci90": [0.0, 0.0], "rr_per_trade": None, "ci90": [None, None]}
    row = {w: i for i, w in enumerate(weeks)}
    sums, money = np.zeros((len(weeks), 4)), np.zeros(len(weeks))
    for column, trades in ((0, on), (2, off)):
        for trade in trades:
            weight = float(trade.invested_usd)
            money[row[trade.closed_at // WEEK]] += (1 - column) * float(trade.pnl_usd)
            sums[row[trade.closed_at // WEEK], column : column + 2] += (weight * trade.rr, weight)
    draws = np.random.default_rng(0).integers(0, len(weeks), (BOOTSTRAP_DRAWS, len(weeks)))
    totals = sums[draws].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        gains = totals[:, 0] / totals[:, 1] - totals[:, 2] / totals[:, 3]
    all_weeks = sums.sum(axis=0)
    gain = all_weeks[0] / all_weeks[1] - all_weeks[2] / all_weeks[3] if all_weeks[1] and all_weeks[3] else None
    low, high = np.nanquantile(gains, [0.05, 0.95]).tolist()
    pnl = math.fsum(float(t.pnl_usd) for t in on) - math.fsum(float(t.pnl_usd) for t in off)
    pnl_ci90 = [round(x, 2) for x in np.quantile(money[draws].sum(axis=1), [0.05, 0.95]).tolist()]
    return {"pnl": round(pnl, 2), "pnl_ci90": pnl_ci90, "rr_per_trade": gain, "ci90": [low, high]}
