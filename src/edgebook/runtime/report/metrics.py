"""The figures people expect of a backtest, each with its formula; pure functions over arrays and closed trades.

Returns are those of the account's value at one midnight (UTC) after another, marked to market; a year has 365 days,
since these markets never close; the risk-free rate is 0. Where an account is worth nothing or less, nothing can be won
or lost from there on: the return of such a day or month is 0. A figure that its data cannot carry is None, no guess:
spreads and ratios need `MIN_DAYS` days, growth per year `MIN_DAYS_YEARLY`, an interval `MIN_WEEKS` calendar weeks.

Trades share the shocks of their week, so intervals resample whole calendar weeks (Monday to Sunday UTC), not trades.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.book import Trade
from edgebook.domain.decay import DAY

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Interval = tuple[float, float]

DAYS_PER_YEAR = 365
MIN_DAYS, MIN_DAYS_YEARLY, MIN_WEEKS = 30, 90, 5
BOOTSTRAP_DRAWS = 2_000
#: A spread of daily returns no larger than this is what rounding makes of none; so is this part of a mean above 1.
NO_SPREAD = 1e-12
UNTOLD = "cannot be told from zero"
_WEEK, _MONDAY = 7 * DAY, 3 * DAY  # the epoch was a Thursday


# ------------------------------------------------------------------ the account


@dataclass(frozen=True, slots=True)
class Drawdown:
    """The deepest fall of an equity curve below its highest point so far.

    Attributes:
        depth: (peak - trough) / peak, in [0, 1]; more where the account fell below 0.
        peak_at, trough_at: when, microseconds UTC.
        recovered_at: when the peak was reached again, None if it never was.
        days: from the peak to the recovery, or to the end of the curve.
    """

    depth: float
    peak_at: int
    trough_at: int
    recovered_at: int | None
    days: float


def daily_returns(ts: Ints, equity: Floats) -> Floats:
    """``E_k / E_(k-1) - 1`` between moments exactly one day apart; the shorter first and last stretch are left out.

    >>> daily_returns(np.array([5, DAY, 2 * DAY]), np.array([100.0, 100.0, 110.0])).round(6).tolist()
    [0.1]
    """
    whole = np.diff(ts) == DAY
    before, after = equity[:-1][whole], equity[1:][whole]
    return np.asarray(np.divide(after, before, out=np.ones_like(after), where=before > 0) - 1.0)


def cagr(first: float, last: float, days: float) -> float | None:
    """Growth per year, ``(last / first) ** (365 / days) - 1``; -1.0, a total loss, where ``last`` is 0 or less, and
    None below 90 days.

    >>> cagr(100.0, 121.0, 730.0)
    0.10000000000000009
    >>> cagr(100.0, -1.0, 100.0), cagr(100.0, 121.0, 20.0)
    (-1.0, None)
    """
    return max(0.0, last / first) ** (DAYS_PER_YEAR / days) - 1.0 if days >= MIN_DAYS_YEARLY else None


def volatility(returns: Floats) -> float | None:
    """Standard deviation (n - 1) of daily returns times ``sqrt(365)``; None below 30 days.

    >>> volatility(np.tile([0.01, -0.01], 20)) == statistics.stdev([0.01, -0.01] * 20) * math.sqrt(365)
    True
    """
    return float(np.std(returns, ddof=1)) * math.sqrt(DAYS_PER_YEAR) if len(returns) >= MIN_DAYS else None


def sharpe(returns: Floats) -> float | None:
    """``mean / standard deviation * sqrt(365)`` of daily returns; None below 30 days, and where they do not vary.

    >>> round(sharpe(np.tile([0.03, -0.01], 20)), 4) == round(0.01 / (0.02 * math.sqrt(40 / 39)) * math.sqrt(365), 4)
    True
    """
    if len(returns) < MIN_DAYS:
        return None
    spread, mean = float(np.std(returns, ddof=1)), float(np.mean(returns))
    return mean / spread * math.sqrt(DAYS_PER_YEAR) if spread > NO_SPREAD * max(1.0, abs(mean)) else None


def sortino(returns: Floats) -> float | None:
    """``mean / sqrt(mean(min(r, 0)^2)) * sqrt(365)``, the mean of squares over all days; None below 30 days or without
    a losing one.

    >>> round(sortino(np.tile([0.03, -0.01], 20)), 6) == round(0.01 / math.sqrt(0.0001 / 2) * math.sqrt(365), 6)
    True
    """
    if len(returns) < MIN_DAYS:
        return None
    downside, mean = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2))), float(np.mean(returns))
    return mean / downside * math.sqrt(DAYS_PER_YEAR) if downside > NO_SPREAD * max(1.0, abs(mean)) else None


def calmar(yearly: float | None, depth: float) -> float | None:
    """``CAGR / maximum drawdown``; None without either.

    >>> calmar(0.1, 0.05), calmar(None, 0.05), calmar(0.1, 0.0)
    (2.0, None, None)
    """
    return yearly / depth if yearly is not None and depth > 0 else None


def max_drawdown(ts: Ints, equity: Floats) -> Drawdown | None:
    """The deepest drawdown of the curve; None if it never falls.

    >>> fall = max_drawdown(np.arange(5) * DAY, np.array([100.0, 120.0, 90.0, 110.0, 120.0]))
    >>> fall.depth, fall.peak_at // DAY, fall.trough_at // DAY, fall.recovered_at // DAY, fall.days
    (0.25, 1, 2, 4, 3.0)
    """
    peaks = np.maximum.accumulate(equity)
    below = 1.0 - equity / peaks
    trough = int(below.argmax())
    if below[trough] <= 0:
        return None
    peak = int((equity[:trough] == peaks[trough]).argmax())
    later = np.flatnonzero(equity[trough:] >= peaks[trough])
    back = int(ts[trough + later[0]]) if len(later) else None
    until = back if back is not None else int(ts[-1])
    return Drawdown(float(below[trough]), int(ts[peak]), int(ts[trough]), back, (until - int(ts[peak])) / DAY)


def monthly_returns(ts: Ints, equity: Floats) -> dict[str, float]:
    """Return of each calendar month (UTC), ``YYYY-MM``: the last value of the month over the last of the month before.

    A value at midnight of the first belongs to the month that has just ended.

    >>> monthly_returns(np.array([0, 31, 45]) * DAY, np.array([100.0, 125.0, 100.0]))
    {'1970-01': 0.25, '1970-02': -0.19999999999999996}
    """
    last: dict[str, float] = {}
    for moment, value in zip(ts[1:].tolist(), equity[1:].tolist(), strict=True):
        last[month_of(moment - 1)] = value
    before = [float(equity[0]), *last.values()]
    return {
        month: value / start - 1.0 if start > 0 else 0.0
        for (month, value), start in zip(last.items(), before, strict=False)
    }


def open_share(spans: Sequence[tuple[int, int]], start: int, end: int) -> float:
    """Share of ``[start, end]`` covered by at least one of ``spans`` (opened, closed), in [0, 1].

    >>> open_share([(0, 4), (2, 6), (8, 12)], 0, 10)
    0.8
    """
    covered, reached = 0, start
    for opened, closed in sorted(spans):
        covered += max(0, min(closed, end) - max(opened, reached))
        reached = max(reached, min(closed, end))
    return covered / (end - start)


# ------------------------------------------------------------------ trades


def profit_factor(pnl: Sequence[float]) -> float | None:
    """Sum of gains over the absolute sum of losses; None without a losing trade.

    >>> profit_factor([30.0, -10.0, -5.0]), profit_factor([1.0])
    (2.0, None)
    """
    losses = -math.fsum(x for x in pnl if x < 0)
    return math.fsum(x for x in pnl if x > 0) / losses if losses else None


def wilson(wins: int, n: int) -> Interval | None:
    """Wilson's 95 % score interval of a share; None of nothing. It takes trades as independent: shared shocks make it
    too narrow.

    ``(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)``, z = 1.96.

    >>> tuple(round(x, 4) for x in wilson(5, 10))
    (0.2366, 0.7634)
    """
    if not n:
        return None
    z, p = statistics.NormalDist().inv_cdf(0.975), wins / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def total(amounts: Iterable[Decimal]) -> float:
    """Exact sum of money, USD.

    >>> total([Decimal("0.1"), Decimal("0.2")])
    0.3
    """
    return float(sum(amounts, Decimal(0)))


def month_of(ts: int) -> str:
    """Calendar month of a moment, UTC.

    >>> month_of(31 * DAY)
    '1970-02'
    """
    return f"{datetime.fromtimestamp(ts / 1e6, UTC):%Y-%m}"


def week_of(ts: Ints) -> Ints:
    """Number of the calendar week (Monday to Sunday, UTC) of each moment.

    >>> week_of(np.array([0, 3, 4, 10]) * DAY).tolist()  # Thursday, Sunday, Monday, Sunday
    [0, 0, 1, 1]
    """
    return np.asarray((ts + _MONDAY) // _WEEK)


def figures(trades: Sequence[Trade], rng: np.random.Generator) -> dict[str, Any]:
    """Number, wins, rr and pnl of closed trades, with intervals.

    ``win_rate`` = trades with pnl > 0 / n, with Wilson's 95 % interval; ``mean_rr`` is the expectancy in R, with a 90 %
    interval over calendar weeks of closing (`week_interval`); ``verdict`` says where that interval lies.
    """
    n, wins = len(trades), sum(t.pnl_usd > 0 for t in trades)
    rr = np.array([t.rr for t in trades])
    closed = np.array([t.closed_at for t in trades], dtype=np.int64)
    found = mean_interval(rr, closed, rng)
    return {
        "n": n,
        "weeks": len(set(week_of(closed).tolist())),
        "wins": wins,
        "win_rate": wins / n if n else None,
        "win_rate_ci95": wilson(wins, n),
        "mean_rr": math.fsum(rr) / n if n else None,
        "rr_ci90": found,
        "verdict": verdict(found),
        "pnl_usd": total(t.pnl_usd for t in trades),
        "fees_usd": total(t.fees_usd for t in trades),
    }


def group_figures(
    trades: Sequence[Trade], label: Callable[[Trade], str], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """`figures` of each group of trades with the same label, in order of the labels."""
    groups: dict[str, list[Trade]] = {}
    for trade in trades:
        groups.setdefault(label(trade), []).append(trade)
    return [{"group": name, **figures(groups[name], rng)} for name in sorted(groups)]


# ------------------------------------------------------------------ intervals


def mean_interval(values: Floats, ts: Ints, rng: np.random.Generator) -> Interval | None:
    """90 % interval of the mean of ``values``, each of which belongs to the calendar week of its ``ts``."""
    blocks = week_sums(ts, np.column_stack((values, np.ones(len(values)))))
    return week_interval(blocks, lambda sums: sums[:, 0] / sums[:, 1], rng)


def sharpe_interval(returns: Floats, ts: Ints, rng: np.random.Generator) -> Interval | None:
    """90 % interval of `sharpe` over calendar weeks; ``ts`` are the ends of the days. None below 30 days.

    >>> sharpe_interval(np.zeros(5), np.arange(5) * DAY, np.random.default_rng(0)) is None
    True
    """
    if len(returns) < MIN_DAYS:
        return None
    middle = float(np.mean(returns))  # squares are taken around it: a small spread would drown in rounding
    around = returns - middle
    blocks = week_sums(ts - 1, np.column_stack((around, around**2, np.ones(len(returns)))))

    def ratio(sums: Floats) -> Floats:
        plain, squares, n = sums.T
        mean = middle + plain / n
        spread = np.sqrt(np.maximum(squares - plain**2 / n, 0.0) / (n - 1))
        there = spread > NO_SPREAD * np.maximum(1.0, np.abs(mean))
        return np.asarray(mean / np.where(there, spread, np.nan) * math.sqrt(DAYS_PER_YEAR))

    return week_interval(blocks, ratio, rng)


def week_sums(ts: Ints, columns: Floats) -> Floats:
    """Sums of the rows of ``columns`` (n, k) that fall into the same calendar week: (weeks, k)."""
    weeks, row = np.unique(week_of(ts), return_inverse=True)
    sums = np.zeros((len(weeks), columns.shape[1]))
    np.add.at(sums, row, columns)
    return sums


def week_interval(
    blocks: Floats, statistic: Callable[[Floats], Floats], rng: np.random.Generator, level: float = 0.90
) -> Interval | None:
    """Bootstrap interval of a statistic of sums, whole weeks drawn with replacement; None below 5 weeks.

    With few weeks a plain percentile interval is too narrow. Its tails are therefore taken further out, at ``Phi(-
    sqrt(G / (G-1)) t)`` with Student's t on G - 1 degrees of freedom (Hesterberg 2015, expanded percentile interval);
    a mean then lies inside in 88 to 92 % of simulated samples of 5 to 52 weeks.

    Args:
        blocks: sums per week, (G, k).
        statistic: from sums over the drawn weeks, (draws, k), to one value each; NaN where it does not exist.
        level: coverage aimed at.
    """
    count = len(blocks)
    if count < MIN_WEEKS:
        return None
    values = statistic(rng.multinomial(count, np.full(count, 1.0 / count), BOOTSTRAP_DRAWS) @ blocks)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    reach = math.sqrt(count / (count - 1)) * student_quantile(0.5 + level / 2, count - 1)
    tail = statistics.NormalDist().cdf(-reach)
    low, high = np.quantile(values, [tail, 1.0 - tail]).tolist()
    return low, high


def student_quantile(p: float, df: int) -> float:
    """Quantile of Student's t to about .001 from 3 degrees of freedom on (Abramowitz and Stegun 26.7.5).

    >>> round(student_quantile(0.95, 10), 3), round(student_quantile(0.95, 3), 2)
    (1.812, 2.35)
    """
    z = statistics.NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(df) ** power for power, term in enumerate(terms, 1))


def verdict(interval: Interval | None) -> str:
    """Where an interval lies.

    >>> verdict((-0.1, 0.2)), verdict((0.1, 0.2)), verdict((-0.2, -0.1)), verdict(None)
    ('cannot be told from zero', 'above zero', 'below zero', 'too little to say')
    """
    if interval is None:
        return "too little to say"
    if interval[0] <= 0 <= interval[1]:
        return UNTOLD
    return "above zero" if interval[0] > 0 else "below zero"
