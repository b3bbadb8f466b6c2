"""Policies of the whole system, each switched alone and compared week by week with the defaults."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from calibration.measure import Array, Say
from calibration.text import Section, count, listed, number, table
from edgebook.domain.book import Trade
from edgebook.domain.decay import DAY
from edgebook.runtime import backtest as runner
from edgebook.runtime import bootstrap
from edgebook.runtime.settings import load_settings

#: Bars, the timeframes traded on them, and the folder of the regime's drivers.
WALKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("coins 2021-23", "binance_spot_1h_2021_2023", ("1h", "4h")),
    ("coins 2025q1", "binance_spot_5m_2025q1", ("5m", "15m", "1h")),
)
DRIVERS = "binance_spot_1h_majors"
#: What is switched, by name; everything else stays at its default.
POLICIES: dict[str, dict[str, Any]] = {
    "global exit on": {"global_exit": True},
    "first dip off": {"first_dip": False},
    "S1 after breakout": {"s1_policy": "after_breakout"},
    "learning off": {"learning_enabled": False},
}
BASE = "defaults"
#: Differences beyond this many standard errors are set in bold.
BEYOND = 2.0
EXPLAINED = (
    "Each run is a backtest of the whole system over the set's recorded signals, from the same cash, with one switch "
    "away from the defaults (learning on, first dip on, global exit off, S1 on primer). The differences are to the run "
    "with all defaults, paired by the calendar week in which a trade closed, ± one standard error clustered by week; "
    f"**bold** beyond {BEYOND:g} of them. *Of cash*: pnl over the whole span in percent of the starting cash. *Of "
    "invested*: pnl per USD invested in percent, that is at equal capital. *rr*: mean reward to risk per trade. Trades "
    "still open at the end are not counted."
)
_MONDAY = 3 * DAY  # 1970-01-01 was a Thursday


@dataclass(frozen=True, slots=True)
class Run:
    """One backtest: its closed trades, positions still open at the end, cash at the start in USD, seconds it took."""

    trades: tuple[Trade, ...]
    holding: int
    cash: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between two runs and its standard error, clustered by calendar week."""

    value: float
    error: float

    @property
    def beyond(self) -> bool:
        """Whether it is larger than `BEYOND` standard errors."""
        return bool(self.error > 0 and abs(self.value) > BEYOND * self.error)

    def shown(self, digits: int = 2) -> str:
        """``+0.12 ± 0.05``, bold when `beyond`."""
        if self.value != self.value:
            return ""
        text = f"{self.value:+.{digits}f} ± {self.error:.{digits}f}"
        return f"**{text}**" if self.beyond else text


@dataclass(frozen=True, slots=True)
class Comparison:
    """One policy against the defaults on one set and timeframe (``all``: every timeframe of the run).

    Attributes:
        trades, pnl: of the policy's run; pnl in USD.
        cash: difference in pnl over the whole span, percent of the cash both runs started with.
        invested: difference in pnl per USD invested, percent: pnl at equal capital.
        rr: difference in mean rr per trade.
    """

    walk: str
    policy: str
    timeframe: str
    trades: int
    pnl: float
    cash: Difference
    invested: Difference
    rr: Difference


@dataclass(frozen=True, slots=True)
class Walks:
    """All runs, by set and policy name."""

    runs: dict[str, dict[str, Run]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Seconds of all backtests together."""
        return math.fsum(run.seconds for found in self.runs.values() for run in found.values())


def walk_all(data: Path, say: Say) -> Walks:
    """Run every policy on every set of `WALKS` that is below ``data``, each in a database of its own that is thrown
    away."""
    walks = Walks()
    for name, folder, timeframes in WALKS:
        signals = data / "signals" / folder / "signals.jsonl"
        if not (data / folder).is_dir() or not signals.is_file():
            continue
        found = walks.runs.setdefault(name, {})
        for policy, switches in {BASE: {}, **POLICIES}.items():
            found[policy] = _walk(data, folder, signals, timeframes, switches)
            say(f"{name}, {policy}: {len(found[policy].trades):,} trades in {found[policy].seconds:.0f} s")
    return walks


def _walk(data: Path, folder: str, signals: Path, timeframes: Sequence[str], switches: dict[str, Any]) -> Run:
    began = time.perf_counter()
    drivers = data / DRIVERS
    with tempfile.TemporaryDirectory(prefix="edgebook-") as scratch:
        url = f"sqlite:///{scratch}/backtest.db"
        settings = load_settings(
            None, timeframes=",".join(timeframes), db=url, feed=f"parquet:{data / folder}", **switches
        )
        feed = bootstrap.parquet_feed(data / folder, signals, drivers if drivers.is_dir() else None)
        store = bootstrap.open_store(url, durable=False)
        runner.backtest(store, settings, feed, runner.Span())
        with store.reader() as uow:
            trades = tuple(sorted(uow.trades.values(), key=lambda t: (t.closed_at, t.trade_id)))
            holding = sum(position.holding for position in uow.positions.values())
    return Run(trades, holding, float(settings.starting_cash_usd), time.perf_counter() - began)


def compare(walks: Walks) -> list[Comparison]:
    """Every policy against the defaults, per set: all timeframes together, then each."""
    found = []
    for walk, runs in walks.runs.items():
        for policy in POLICIES:
            frames = sorted({t.timeframe for t in runs[BASE].trades}, key=_order(walk).index)
            found += [_compared(walk, policy, frame, runs[policy], runs[BASE]) for frame in ("all", *frames)]
    return found


def _order(walk: str) -> tuple[str, ...]:
    return next(frames for name, _, frames in WALKS if name == walk)


def _compared(walk: str, policy: str, timeframe: str, run: Run, base: Run) -> Comparison:
    ours, theirs = (
        [t for t in side.trades if timeframe in ("all", t.timeframe)] for side in (run, base)
    )  # the same selection on both sides
    weeks = week_range((*run.trades, *base.trades))
    a, b = weekly(ours, weeks), weekly(theirs, weeks)
    return Comparison(
        walk,
        policy,
        timeframe,
        len(ours),
        math.fsum(float(t.pnl_usd) for t in ours),
        of_sums(100.0 * a[:, 0] / run.cash, 100.0 * b[:, 0] / base.cash),
        of_ratios(100.0 * a[:, 0], a[:, 1], 100.0 * b[:, 0], b[:, 1]),
        of_ratios(a[:, 2], a[:, 3], b[:, 2], b[:, 3]),
    )


def week_of(ts: int) -> int:
    """Number of the calendar week (from Monday, UTC) of a time in microseconds."""
    return (ts + _MONDAY) // (7 * DAY)


def week_range(trades: Iterable[Trade]) -> tuple[int, int]:
    """First week in which one of the trades closed, and the week after the last; (0, 0) without trades."""
    weeks = {week_of(t.closed_at) for t in trades}
    return (min(weeks), max(weeks) + 1) if weeks else (0, 0)


def weekly(trades: Iterable[Trade], weeks: tuple[int, int]) -> Array:
    """Sums per week of closing, one row per week: pnl, invested (USD), rr, number."""
    first, end = weeks
    sums = np.zeros((end - first, 4))
    for t in trades:
        sums[week_of(t.closed_at) - first] += (float(t.pnl_usd), float(t.invested_usd), t.rr, 1.0)
    return sums


def of_sums(ours: Array, theirs: Array) -> Difference:
    """Difference of two totals over paired weeks."""
    return Difference(float(np.sum(ours) - np.sum(theirs)), _error(ours - theirs))


def of_ratios(ours: Array, our_base: Array, theirs: Array, their_base: Array) -> Difference:
    """Difference of two ratios of totals over paired weeks; error by linearising each ratio."""
    if not np.sum(our_base) or not np.sum(their_base):
        return Difference(math.nan, math.nan)
    a, b = np.sum(ours) / np.sum(our_base), np.sum(theirs) / np.sum(their_base)
    pull = (ours - a * our_base) / np.sum(our_base) - (theirs - b * their_base) / np.sum(their_base)
    return Difference(float(a - b), _error(pull))


def _error(weeks: Array) -> float:
    """Standard error of the sum of independent weekly values."""
    return float(np.sqrt(len(weeks) * np.var(weeks, ddof=1))) if len(weeks) > 1 else math.nan


def section(walks: Walks | None, found: Sequence[Comparison]) -> Section:
    """Whole backtests under each policy; without walks, a line that says they were left out."""
    title = "Policies"
    if walks is None:
        return Section(title, "Left out with `--quick`: this section takes whole backtests.")
    if not walks.runs:
        return Section(title, "Left out: none of the sets with signals is in the data folder.")
    parts = [
        EXPLAINED,
        _base_table(walks),
        _difference_table(found),
        "![Policies against the defaults](img/engine/policies.png)",
        _reading(walks, found),
    ]
    return Section(title, "\n\n".join(parts), _findings(found))


def _base_table(walks: Walks) -> str:
    rows = []
    for walk, runs in walks.runs.items():
        for policy, run in runs.items():
            first, end = week_range(runs[BASE].trades)
            n, invested = len(run.trades), math.fsum(float(t.invested_usd) for t in run.trades)
            pnl = math.fsum(float(t.pnl_usd) for t in run.trades)
            rr = math.fsum(t.rr for t in run.trades) / n if n else math.nan
            share = 100 * pnl / invested if invested else math.nan
            shown = (count(n), count(run.holding), count(pnl), number(share), number(rr, 3))
            rows.append((walk, policy, count(end - first), *shown))
    head = ("set", "run", "weeks", "trades", "open at the end", "pnl, USD", "pnl, % of invested", "rr")
    return table(head, rows, 2)


def _difference_table(found: Sequence[Comparison]) -> str:
    rows = [
        (c.walk, c.policy, c.timeframe, count(c.trades), c.cash.shown(), c.invested.shown(), c.rr.shown(3))
        for c in found
    ]
    head = ("set", "policy", "timeframe", "trades", "pnl, % of cash", "pnl, % of invested", "rr")
    return table(head, rows, 3)


def _reading(walks: Walks, found: Sequence[Comparison]) -> str:
    tests, chance = 0, 0.0
    for c in found:
        first, end = week_range(walks.runs[c.walk][BASE].trades)
        known = sum(d.error > 0 for d in (c.cash, c.invested, c.rr))
        tests, chance = tests + known, chance + known * 2 * float(student_t.sf(BEYOND, max(1, end - first - 1)))
    hits = sum(d.beyond for c in found for d in (c.cash, c.invested, c.rr))
    return (
        f"{hits} of {tests} differences lie beyond {BEYOND:g} standard errors; about {chance:.0f} would if no policy "
        "made any difference. They are not independent: timeframes add up to *all*, and the three measures look at the "
        "same trades.\n\nrr divides a trade's return by its deepest fall below the average price of everything it "
        "bought, and lows before a later buy count too. A buy on the way up can therefore lower rr without "
        "costing a cent: where rr moves and neither money column does, no gain or loss has been shown."
    )


def _findings(found: Sequence[Comparison]) -> tuple[str, ...]:
    """One sentence per policy: where the whole run differs beyond `BEYOND` standard errors, and in what."""
    whole = [c for c in found if c.timeframe == "all"]
    if not whole:
        return ()
    said = []
    for policy in POLICIES:
        hits = [
            f"{d.value:+.{digits}f} ± {d.error:.{digits}f} {measure} ({c.walk})"
            for c in whole
            if c.policy == policy
            for measure, d, digits in _measures(c)
            if d.beyond
        ]
        said.append(f"{policy}: {listed(hits) if hits else 'nothing'}")
    opening = f"What differs from the defaults by more than {BEYOND:g} standard errors over whole runs: "
    return opening + "; ".join(said) + ".", _agreement(whole)


def _measures(c: Comparison) -> tuple[tuple[str, Difference, int], ...]:
    """The three measures of a comparison: name, difference, digits to show."""
    return ("% of cash", c.cash, 2), ("% of invested", c.invested, 2), ("rr", c.rr, 3)


def _agreement(whole: Sequence[Comparison]) -> str:
    """Which policies differ beyond `BEYOND` errors with one sign in every set, in rr and in money."""
    agreed: dict[str, list[str]] = {"rr": [], "% of cash": [], "% of invested": []}
    for policy in POLICIES:
        by_measure = zip(*(_measures(c) for c in whole if c.policy == policy), strict=True)
        for same in by_measure:
            signs = {math.copysign(1.0, d.value) if d.beyond else 0.0 for _, d, _ in same}
            if len(signs) == 1 and 0.0 not in signs:
                agreed[same[0][0]].append(policy)
    money = sorted({*agreed["% of cash"], *agreed["% of invested"]})
    return (
        f"With one sign in every set ({count(len({c.walk for c in whole}))}): in rr {listed(agreed['rr'])}, "
        f"in money {listed(money)}."
    )
