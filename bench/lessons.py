"""How long lessons take: the whole build (posterior, tests, lessons) for ten thousand to a million trades, and what a
closed trade costs as it comes in, statistics in the database included.

Build: `learning.lessons.build_lessons` on trades under the ten PM dims over three years, six planted slices so that the
family acts, all in one family and split over twelve. Each in a process of its own, so that the peak of memory is its
own; seconds without making the trades. Growth is the exponent of seconds between two sizes; 1 is linear.

Incremental: the closed trades of a backtest's log are appended to the log of a fresh SQLite book, a batch at a time,
and `jobs.run_aggregator` with its commit (synchronous to disk, as a live book's) is timed; the first half of the trades
fills the tables beforehand. ``trades`` reads closed trades alone, ``all`` also the episodes and shadows between them,
counted per trade. Without ``--book`` a simulated market is walked for a month.

Run: ``python bench/lessons.py [--sizes 10000,100000,1000000] [--book FILE.db] [--only build|incremental] [--json]``
"""

from __future__ import annotations

import edgebook.cli  # noqa: F401  (one thread for small matrices; before numpy)

# isort: split
import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np

from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.desk import AGGREGATED, Desk
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.evidence import family_key
from edgebook.domain.scope import PM_SCHEMA
from edgebook.domain.strands import Strand
from edgebook.jobs import run_aggregator
from edgebook.learning.config import DEFAULT
from edgebook.learning.lessons import FamilyInput, build_lessons
from edgebook.learning.table import TradeTable
from edgebook.ports import MarketReader
from edgebook.runtime import backtest as engine
from edgebook.runtime import bootstrap
from edgebook.runtime.settings import Settings
from edgebook.trading.rules import TradingRules

SIZES = (10_000, 100_000, 1_000_000)
#: Levels of the ten PM dims; the first four are market-wide and hold for weeks, days, hours and days.
LEVELS = (7, 7, 7, 6, 6, 3, 6, 4, 3, 3)
HOLD_HOURS = (400, 90, 12, 60)
YEARS_HOURS, TOKENS, TWELVE = 3 * 365 * 24, 60, 12
TARGET_SECONDS, TARGET_TRADE_MS = {100_000: 20.0}, 2.0
SIM_DAYS = 30
T0 = 450_000 * HOUR
TIMED = 300


# ---- the build


def trades(n: int, seed: int = 1) -> TradeTable:
    """``n`` trades over three years with six planted slices of one and two dims, day shocks, t-distributed outcomes."""
    rng = np.random.default_rng(seed)
    opened = T0 + np.sort(rng.integers(0, YEARS_HOURS * HOUR, n))
    codes = []
    for j, count in enumerate(LEVELS):
        weight = 1.0 / np.arange(1, count + 1)
        weight /= weight.sum()
        if j < len(HOLD_HOURS):
            run = (opened - T0) // (HOLD_HOURS[j] * HOUR)
            codes.append(rng.choice(count, size=int(run.max()) + 1, p=weight)[run])
        else:
            codes.append(rng.choice(count, size=n, p=weight))
    y = rng.standard_t(4, n) * 0.9 + rng.normal(0.0, 0.4, YEARS_HOURS // 24 + 1)[(opened - T0) // DAY]
    for part, effect in (((4,), 0.4), ((6,), -0.3), ((7,), 0.25), ((4, 8), 0.4), ((6, 9), 0.4), ((2, 7), -0.3)):
        y = y + effect * np.all([codes[j] == 1 for j in part], axis=0)
    return TradeTable(
        unit_id=np.array([f"t{i:07d}" for i in range(n)], dtype=object),
        opened_at=opened,
        closed_at=opened + rng.integers(HOUR, 5 * DAY, n),
        y=y.clip(-3, 10),
        token=rng.integers(0, TOKENS, n),
        day=opened // DAY,
        dims={
            dim: (tuple(f"v{k}" for k in range(LEVELS[j])), codes[j].astype(np.int64))
            for j, dim in enumerate(PM_SCHEMA.dims)
        },
    )


def build_once(n: int, families: int) -> dict[str, Any]:
    """One build in this process: seconds, peak memory of the process in MB, what came of it."""
    table = trades(n)
    made = {}
    for k in range(families):
        name = f"module=pm|pattern_key=bench.family_{k:02d}"
        part = table if families == 1 else table.take(np.arange(k, n, families))
        made[family_key("pm", name, "entry")] = FamilyInput("pm", name, "entry", part)
    small = next(iter(made.values()))
    warm = replace(small, trades=small.trades.take(np.arange(min(2_000, len(small.trades)))))
    build_lessons("pm", {"warm": warm}, {}, (), 0)  # compiled code is loaded before the clock starts
    before = _rss_mb()
    began = time.perf_counter()
    built = build_lessons("pm", made, {}, (), int(table.closed_at.max()))
    seconds = time.perf_counter() - began
    return {
        "seconds": round(seconds, 3),
        "peak_rss_mb": _rss_mb(),
        "rss_before_mb": before,
        "lessons": len(built.lessons),
        "claimed": built.counts.get("active", 0),
        "acting": built.counts["acting"],
    }


def _rss_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def build_results(sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """All sizes, in one family and in twelve; then the growth."""
    for families in (1, TWELVE):
        seconds = {}
        split = "one family" if families == 1 else f"{families} families"
        for n in sizes:
            command = [sys.executable, __file__, "--worker", f"{n},{families}"]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds[n] = found["seconds"]
            target = {"target": TARGET_SECONDS[n]} if n in TARGET_SECONDS else {}
            yield {"name": "lessons", "work": f"{n:,} trades, ten dims, {split}", "unit": "s",
                   "ours": found.pop("seconds"), **found, **target}  # fmt: skip
        for small, large in pairwise(sizes):
            exponent = math.log(seconds[large] / seconds[small]) / math.log(large / small)
            yield {"name": "lessons", "work": f"growth from {small:,} to {large:,} trades, {split}", "unit": "exponent",
                   "ours": round(exponent, 3), "target": 1.0}  # fmt: skip


# ---- as trades come in


def simulated_book(folder: Path) -> Path:
    """The book of a simulated market after a month."""
    path = folder / "sim.db"
    url = f"sqlite:///{path}"
    settings = Settings(db=url, feed="sim", timeframes=("15m", "1h", "4h"))
    feed = bootstrap.open_feed(settings)
    assert feed.start is not None
    engine.backtest(
        bootstrap.open_store(url, durable=False), settings, feed, engine.Span(None, feed.start + SIM_DAYS * DAY)
    )
    return path


def incremental_once(book: Path, kinds: frozenset[str], batch: int, *, durable: bool = True) -> dict[str, Any]:
    """Milliseconds per closed trade of the aggregator with its commit, ``batch`` trades at a time; ``durable`` commits
    wait for the disk."""
    with bootstrap.open_store(f"sqlite:///{book}").reader() as uow:
        decisions = [_fresh(strand) for strand in uow.log.read(0, ["decision_lowcap"])]
        read = [_fresh(strand) for strand in uow.log.read(0, kinds)]
    closes = [i for i, strand in enumerate(read) if strand.kind == "position_closed"]
    timed = min(max(TIMED, batch), len(closes) // 2) // batch * batch
    if timed == 0:
        raise SystemExit(f"lessons: {book} has {len(closes)} closed trades; {2 * batch} are needed")
    cuts = [closes[len(closes) - timed + i - 1] + 1 for i in range(0, timed + 1, batch)]
    with tempfile.TemporaryDirectory(prefix="edgebook-") as folder:
        store = bootstrap.open_store(f"sqlite:///{folder}/book.db", durable=durable)
        with store.writer() as uow:
            desk = Desk(uow, cast(MarketReader, None), PaperBroker(), {}, TradingRules(), DEFAULT)
            uow.log.append(decisions)
            uow.log.append(read[: cuts[0]])
            run_aggregator(desk, read[cuts[0] - 1].ts_event)
            uow.commit()
            rows = len(uow.stats)
            seconds, commits = [], []
            for start, end in pairwise(cuts):
                uow.log.append(read[start:end])
                uow.commit()
                began = time.perf_counter()
                run_aggregator(desk, read[end - 1].ts_event)
                middle = time.perf_counter()
                uow.commit()
                seconds.append(time.perf_counter() - began)
                commits.append(seconds[-1] - (middle - began))
            newest = max(row.updated_at for row in uow.stats.values())
            touched = sum(row.updated_at == newest for row in uow.stats.values())
            return {
                "mean_ms": round(1e3 * sum(seconds) / timed, 3),
                "median_ms": round(1e3 * median(seconds) / batch, 3),
                "commit_ms": round(1e3 * sum(commits) / timed, 3),
                "timed_trades": timed,
                "rows_changed_by_last_run": touched,
                "rows_before": rows,
                "rows_after": len(uow.stats),
            }


def _fresh(strand: Strand) -> Strand:
    return replace(strand, seq=0, hash="")


def incremental_results(book: Path) -> Iterator[dict[str, Any]]:
    """Batches of one, ten, fifty and five hundred trades."""
    for told, kinds in (("trades", frozenset({"position_closed"})), ("all", AGGREGATED)):
        for batch in (1, 10, 50, 500):
            found = incremental_once(book, kinds, batch)
            work = f"aggregator with commit, {told}, {_count(batch)} a run"
            yield {"name": "lessons", "work": work, "unit": "ms per trade", "ours": found.pop("mean_ms"),
                   "target": TARGET_TRADE_MS, **found}  # fmt: skip
    found = incremental_once(book, frozenset({"position_closed"}), 1, durable=False)
    work = f"aggregator with commit, trades, {_count(1)} a run, not waiting for the disk"
    yield {"name": "lessons", "work": work, "unit": "ms per trade", "ours": found.pop("mean_ms"), **found}


def _count(batch: int) -> str:
    return "1 closed trade" if batch == 1 else f"{batch} closed trades"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=list(SIZES))
    parser.add_argument("--book", type=Path, help="database of a backtest")
    parser.add_argument("--only", choices=["build", "incremental"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        n, families = (int(part) for part in given.worker.split(","))
        print(json.dumps(build_once(n, families)))
        return
    if given.only in (None, "build"):
        for told in build_results(given.sizes):
            print(json.dumps(told) if given.json else _line(told), flush=True)
    if given.only in (None, "incremental"):
        with tempfile.TemporaryDirectory(prefix="edgebook-") as folder:
            for told in incremental_results(given.book or simulated_book(Path(folder))):
                print(json.dumps(told) if given.json else _line(told), flush=True)


def _line(told: dict[str, Any]) -> str:
    more = {k: v for k, v in told.items() if k not in ("name", "work", "unit", "ours")}
    return f"{told['work']}: {told['ours']} {told['unit']} {json.dumps(more)}"


if __name__ == "__main__":
    main()
