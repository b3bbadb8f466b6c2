"""Metrics against formulas written down a second time: the statistics module, scipy, brute force, numbers by hand."""

from __future__ import annotations

import json
import math
import random
import statistics
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgebook.domain.book import Trade
from edgebook.domain.decay import DAY
from edgebook.runtime.report import metrics as m

WEEK = 7 * DAY
MONDAY = 4 * DAY  # 1970-01-05


def trade(number=0, *, rr=0.0, pnl="0", closed=0, opened=0, fees="0", **more):
    """A closed trade of which only what a test is about differs from its neighbours."""
    given_ = {"symbol": "AAA", "timeframe": "1h", "curator_id": "ann", "exit_reason": "s1_to_s0_bearish_order", **more}
    return Trade(
        trade_id=f"trade-{number}", position_id="position", chain="exchange", decision_id="", opened_at=opened,
        closed_at=closed, pnl_usd=Decimal(pnl), invested_usd=Decimal(100), fees_usd=Decimal(fees), roi=0.0, rr=rr,
        actions=2, strand_id="", **given_,
    )  # fmt: skip


def walk(days, seed=1, drift=0.0005):
    """An account of so many days, as plain numbers."""
    chance = random.Random(seed)
    values = [100_000.0]
    for _ in range(days):
        values.append(values[-1] * (1 + chance.gauss(drift, 0.01)))
    return values


def moments(values):
    return np.arange(len(values), dtype=np.int64) * DAY


# ------------------------------------------------------------------ the account


def test_volatility_sharpe_and_sortino_are_those_of_the_statistics_module():
    """Mean, sample deviation and downside deviation worked out by plain loops over the same account."""
    values = walk(400)
    returns = [b / a - 1 for a, b in pairwise(values)]
    deviation = statistics.stdev(returns)
    downside = math.sqrt(sum(r * r for r in returns if r < 0) / len(returns))

    found = m.daily_returns(moments(values), np.array(values))

    assert found.tolist() == pytest.approx(returns, rel=1e-12)
    assert m.volatility(found) == pytest.approx(deviation * math.sqrt(365), rel=1e-12)
    assert m.sharpe(found) == pytest.approx(statistics.fmean(returns) / deviation * math.sqrt(365), rel=1e-12)
    assert m.sortino(found) == pytest.approx(statistics.fmean(returns) / downside * math.sqrt(365), rel=1e-12)


def test_a_doubling_in_two_years_grows_by_the_square_root_of_two():
    """CAGR by hand, and Calmar as its quotient."""
    assert m.cagr(50_000.0, 100_000.0, 730.0) == pytest.approx(math.sqrt(2) - 1, rel=1e-12)
    assert m.calmar(math.sqrt(2) - 1, 0.2) == pytest.approx((math.sqrt(2) - 1) / 0.2, rel=1e-12)


@pytest.mark.parametrize("days", [0, 1, 29])
def test_too_few_days_give_none_and_never_a_number(days):
    """Ratios of under thirty days, growth per year of under ninety: absent, not extrapolated."""
    returns = np.full(days, 0.01) + np.arange(days) * 1e-4

    assert m.volatility(returns) is None
    assert m.sharpe(returns) is None
    assert m.sortino(returns) is None
    assert m.sharpe_interval(returns, np.arange(days, dtype=np.int64) * DAY, np.random.default_rng(0)) is None
    assert m.cagr(100.0, 101.0, float(days)) is None
    assert m.cagr(100.0, 101.0, 89.9) is None


def test_an_account_that_stands_still_has_no_ratios():
    """No movement is no risk-free miracle: Sharpe and Sortino are absent, and there is no drawdown."""
    still = np.full(60, 100.0)
    returns = m.daily_returns(moments(still), still)

    assert (m.volatility(returns), m.sharpe(returns), m.sortino(returns)) == (0.0, None, None)
    assert m.max_drawdown(moments(still), still) is None
    assert m.calmar(0.1, 0.0) is None


@pytest.mark.parametrize("last", [0.0, -20.0])
def test_an_account_that_has_lost_everything_still_has_figures(last):
    """A total loss a year, a drawdown of all of it or more, no return on nothing; every figure is a plain number."""
    curve = np.r_[np.linspace(100.0, 1.0, 90), last, last, last]
    ts = moments(curve)
    returns = m.daily_returns(ts, curve)

    assert m.cagr(100.0, last, 92.0) == -1.0
    assert returns[-2:].tolist() == [0.0, 0.0]
    assert m.max_drawdown(ts, curve).depth == 1.0 - last / 100.0
    told = [m.volatility(returns), m.sharpe(returns), m.sortino(returns), m.monthly_returns(ts, curve)]
    json.dumps([*told, m.sharpe_interval(returns, ts[1:], np.random.default_rng(0))], allow_nan=False)
    assert m.monthly_returns(np.array([0, 31, 59]) * DAY, np.array([1.0, last, last]))["1970-02"] == 0.0


def test_growth_that_never_varies_has_no_ratios():
    """What differs between its days is rounding; a spread of a millionth of the mean is one."""
    for growth in (0.001, 0.00001, -0.002):
        steady = 100.0 * (1.0 + growth) ** np.arange(120)
        returns, ends = m.daily_returns(moments(steady), steady), moments(steady)[1:]
        assert m.volatility(returns) > 0
        assert m.sharpe(returns) is None
        assert m.sharpe_interval(returns, ends, np.random.default_rng(0)) is None
        assert m.sortino(returns) == (None if growth > 0 else pytest.approx(-math.sqrt(365)))

    nearly = 0.001 + np.tile([1e-9, -1e-9], 60)
    assert m.sharpe(nearly) == pytest.approx(1e6 * math.sqrt(365 * 119 / 120), rel=1e-6)
    low, high = m.sharpe_interval(nearly, ends[:1] + np.arange(120) * DAY, np.random.default_rng(0))
    assert low == pytest.approx(1e6 * math.sqrt(365), rel=0.01)
    assert high == pytest.approx(1e6 * math.sqrt(365), rel=0.01)


def test_the_shorter_first_and_last_stretch_are_no_daily_returns():
    """A run from 21:00 to 15:00 has whole days only between its midnights."""
    ts = np.array([21 * DAY // 24, DAY, 2 * DAY, 3 * DAY, 3 * DAY + 15 * DAY // 24])

    assert m.daily_returns(ts, np.array([1.0, 2.0, 3.0, 4.5, 9.0])).tolist() == [0.5, 0.5]


@given(st.lists(st.integers(50, 150), min_size=2, max_size=30))
def test_the_deepest_drawdown_is_that_of_all_pairs(values):
    """Against the definition: the largest (earlier - later) / earlier over all pairs of moments, and when it was."""
    curve = [float(value) for value in values]
    deepest = max((a - b) / a for i, a in enumerate(curve) for b in curve[i:])

    found = m.max_drawdown(moments(curve), np.array(curve))

    if deepest <= 0:
        assert found is None
        return
    peak, trough = found.peak_at // DAY, found.trough_at // DAY
    assert found.depth == pytest.approx(deepest, rel=1e-12)
    assert (curve[peak] - curve[trough]) / curve[peak] == pytest.approx(deepest, rel=1e-12)
    back = next((i for i in range(trough, len(curve)) if curve[i] >= curve[peak]), None)
    assert found.recovered_at == (None if back is None else back * DAY)
    assert found.days == (len(curve) - 1 if back is None else back) - peak


def test_monthly_returns_multiply_to_the_whole():
    """Each month by the calendar, and the product over months is the total return."""
    values = walk(500, seed=3)
    ts = moments(values) + int(datetime(2023, 1, 10, tzinfo=UTC).timestamp()) * 1_000_000

    found = m.monthly_returns(ts, np.array(values))

    assert list(found)[:2] == ["2023-01", "2023-02"]
    assert math.prod(1 + r for r in found.values()) == pytest.approx(values[-1] / values[0], rel=1e-12)
    first, second = (
        next(v for t, v in zip(ts.tolist(), values, strict=True) if datetime.fromtimestamp(t / 1e6, UTC) == day)
        for day in (datetime(2023, 2, 1, tzinfo=UTC), datetime(2023, 3, 1, tzinfo=UTC))
    )
    assert found["2023-01"] == pytest.approx(first / values[0] - 1, rel=1e-12)
    assert found["2023-02"] == pytest.approx(second / first - 1, rel=1e-12)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=8))
def test_the_share_of_time_with_an_open_trade_is_counted_hour_by_hour(spans):
    """Against a walk over every unit of time: covered by any span or not."""
    placed = [(start, start + length) for start, length in spans]
    covered = sum(any(a <= t < b for a, b in placed) for t in range(10, 50))

    assert m.open_share(placed, 10, 50) == pytest.approx(covered / 40)


# ------------------------------------------------------------------ trades


@pytest.mark.parametrize(("wins", "n"), [(0, 5), (5, 5), (1, 7), (675, 1765), (50, 100)])
def test_wilson_is_scipys_wilson(wins, n):
    """An independent implementation of the same interval."""
    oracle = stats.binomtest(wins, n).proportion_ci(0.95, method="wilson")

    assert m.wilson(wins, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_wilson_of_nothing_is_none():
    """No trades, no share."""
    assert m.wilson(0, 0) is None


@pytest.mark.parametrize("p", [0.9, 0.95, 0.975])
@pytest.mark.parametrize("df", [4, 5, 8, 12, 30, 200])
def test_student_quantiles_are_scipys(p, df):
    """The series is good to a few thousandths wherever it is used."""
    assert m.student_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=2e-3)


def test_weeks_are_calendar_weeks():
    """Every day of three years against the calendar of the standard library."""
    days = [datetime.fromtimestamp(86_400 * n, UTC) for n in range(19_000, 20_000)]
    ours = m.week_of(np.array([int(day.timestamp()) * 1_000_000 for day in days], dtype=np.int64)).tolist()
    theirs = [day.isocalendar()[:2] for day in days]

    assert [a == b for a, b in pairwise(ours)] == [a == b for a, b in pairwise(theirs)]


def test_profit_factor_by_hand():
    """Gains 45 over losses 20; without a loss there is no quotient."""
    assert m.profit_factor([40.0, 5.0, -15.0, -5.0, 0.0]) == 2.25
    assert m.profit_factor([40.0, 0.0]) is None
    assert m.profit_factor([]) is None


def test_figures_of_a_group_are_what_a_loop_over_its_trades_says():
    """Number, wins, mean rr, exact sums of money, per label and in order of the labels."""
    chance = random.Random(7)
    trades = [
        trade(n, rr=chance.gauss(0, 1), pnl=f"{chance.gauss(0, 50):.6f}", fees="0.100001", closed=MONDAY + n * DAY,
              curator_id=chance.choice(["ann", "bob"]))
        for n in range(200)
    ]  # fmt: skip

    rows = m.group_figures(trades, lambda t: t.curator_id, np.random.default_rng(0))

    assert [row["group"] for row in rows] == ["ann", "bob"]
    for row in rows:
        own = [t for t in trades if t.curator_id == row["group"]]
        assert row["n"] == len(own)
        assert row["wins"] == sum(t.pnl_usd > 0 for t in own)
        assert row["win_rate"] == row["wins"] / len(own)
        assert row["mean_rr"] == pytest.approx(statistics.fmean(t.rr for t in own), rel=1e-12)
        assert row["pnl_usd"] == float(sum(t.pnl_usd for t in own))
        assert row["fees_usd"] == float(len(own) * Decimal("0.100001"))
        assert row["weeks"] == len({datetime.fromtimestamp(t.closed_at / 1e6, UTC).isocalendar()[:2] for t in own})


def test_no_trades_are_no_figures():
    """Counts of zero, everything else absent."""
    found = m.figures([], np.random.default_rng(0))

    assert (found["n"], found["wins"], found["pnl_usd"]) == (0, 0, 0.0)
    assert found["win_rate"] is found["win_rate_ci95"] is found["mean_rr"] is found["rr_ci90"] is None
    assert found["verdict"] == "too little to say"


# ------------------------------------------------------------------ intervals


def test_weeks_that_are_all_alike_leave_no_doubt():
    """Every draw of identical weeks is the same sample, so the interval is the figure itself: mean and Sharpe."""
    values = np.tile([1.0, -0.5, 0.25], 12)
    closed = MONDAY + np.repeat(np.arange(12), 3) * WEEK
    assert m.mean_interval(values, closed, np.random.default_rng(0)) == pytest.approx((0.25, 0.25))

    returns = np.tile([0.01, -0.02, 0.015, 0.0, 0.003, -0.001, 0.004], 12)
    ends = MONDAY + np.arange(1, 85) * DAY
    assert m.sharpe_interval(returns, ends, np.random.default_rng(0)) == pytest.approx((m.sharpe(returns),) * 2)


def test_more_trades_in_the_same_weeks_teach_nothing_new():
    """Ten copies of each trade in its own week leave the interval where it was; ten times the weeks shrink it."""
    chance = np.random.default_rng(3)
    values, weeks = chance.normal(0.2, 1, 40), np.arange(40)
    once = m.mean_interval(values, MONDAY + weeks * WEEK, np.random.default_rng(1))
    copied = m.mean_interval(np.repeat(values, 10), MONDAY + np.repeat(weeks, 10) * WEEK, np.random.default_rng(1))
    longer = m.mean_interval(np.tile(values, 10), MONDAY + np.arange(400) * WEEK, np.random.default_rng(1))

    assert copied == pytest.approx(once)
    assert longer[1] - longer[0] < 0.45 * (once[1] - once[0])


def test_the_same_generator_gives_the_same_interval():
    """Randomness is an argument."""
    values, closed = np.arange(30.0), MONDAY + np.arange(30) * WEEK

    first, again, other = (m.mean_interval(values, closed, np.random.default_rng(seed)) for seed in (4, 4, 5))

    assert first == again != other


def test_the_interval_of_many_weeks_is_that_of_the_normal_theory():
    """With one trade in each of 300 weeks: mean +- 1.645 standard errors, to a twentieth of its width."""
    values = np.random.default_rng(2).normal(0.1, 1.0, 300)
    error = statistics.stdev(values.tolist()) / math.sqrt(300)

    low, high = m.mean_interval(values, MONDAY + np.arange(300) * WEEK, np.random.default_rng(0))

    assert low == pytest.approx(values.mean() - 1.645 * error, abs=0.16 * error)
    assert high == pytest.approx(values.mean() + 1.645 * error, abs=0.16 * error)


@pytest.mark.parametrize("weeks", [6, 13])
def test_nine_of_ten_intervals_hold_the_truth_even_with_few_weeks(weeks):
    """Weeks with shocks of their own, a true mean of 0, 300 samples: 90 % of them, +- 5, cover it."""
    chance = np.random.default_rng(weeks)
    hits = 0
    for _ in range(300):
        week = np.repeat(np.arange(weeks), chance.poisson(10, weeks) + 1)
        rr = chance.normal(0, 0.5, weeks)[week] + chance.normal(0, 1, len(week))
        low, high = m.mean_interval(rr, MONDAY + week * WEEK, chance)
        hits += low <= 0 <= high

    assert 0.85 <= hits / 300 <= 0.95


@pytest.mark.parametrize("weeks", range(5))
def test_too_few_weeks_have_no_interval(weeks):
    """Under five calendar weeks there is nothing to resample, and the verdict says so."""
    found = m.figures([trade(n, rr=1.0, closed=MONDAY + n * WEEK) for n in range(weeks)], np.random.default_rng(0))

    assert found["rr_ci90"] is None
    assert found["verdict"] == "too little to say"


def test_the_verdict_follows_the_interval():
    """Above, below, or not to be told from zero, the ends included."""
    assert m.verdict((0.0, 1.0)) == m.verdict((-1.0, 0.0)) == m.verdict((-1.0, 1.0)) == "cannot be told from zero"
    assert m.verdict((0.01, 1.0)) == "above zero"
    assert m.verdict((-1.0, -0.01)) == "below zero"
