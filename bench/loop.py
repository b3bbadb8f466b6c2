"""The whole loop over recorded bars, against an EMA cross in the `backtesting` package over the same bars, in one run.

Ours does everything: engine, decisions, positions on two timeframes, paper fills, episodes, statistics, lessons,
overrides, and every row written to a database. The peer runs one rule on one timeframe in memory. Bars per second, each
over the bars it walked; with ``--rounds`` the median of several rounds, by turns, so that a noisy machine meets both.

Run: ``python bench/loop.py [BARS_DIR] [--signals FILE] [--regime-bars DIR] [--rounds 3] [--json]``. Needs
``pip install -r bench/requirements.txt``; nothing of edgebook depends on it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from edgebook.adapters.feeds.parquet import ParquetSource
from edgebook.runtime import backtest as engine
from edgebook.runtime import bootstrap
from edgebook.runtime.settings import load_settings

os.environ.setdefault("TQDM_DISABLE", "1")  # the peer draws a progress bar where tqdm is installed


def ours(arguments: argparse.Namespace) -> tuple[int, float]:
    """Bars walked and seconds of one full backtest, database included."""
    with tempfile.TemporaryDirectory(prefix="edgebook-") as scratch:
        settings = load_settings(timeframes="1h,4h", db=f"sqlite:///{scratch}/b.db", feed=f"parquet:{arguments.bars}")
        began = time.perf_counter()
        feed = bootstrap.parquet_feed(arguments.bars, arguments.signals, arguments.regime_bars)
        found = engine.backtest(bootstrap.open_store(settings.db), settings, feed, engine.Span())
        return int(found["bars"]), time.perf_counter() - began


def peer(arguments: argparse.Namespace) -> tuple[int, float]:
    """Bars walked and seconds of an EMA 20/60 cross over the same files."""
    import pandas as pd
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover

    def ema(values: Any, length: int) -> Any:
        return pd.Series(values).ewm(span=length, adjust=False).mean()

    class EmaCross(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            self.fast, self.slow = self.I(ema, self.data.Close, 20), self.I(ema, self.data.Close, 60)

        def next(self) -> None:
            if crossover(self.fast, self.slow):
                self.buy(size=0.5)
            elif crossover(self.slow, self.fast):
                self.position.close()

    source = ParquetSource(arguments.bars)
    began, bars = time.perf_counter(), 0
    for symbol in source.symbols:
        first, last = source.span
        part = source.bars(symbol, first, last or 0)
        if len(part) < 400:
            continue
        names = {"Open": part.open, "High": part.high, "Low": part.low, "Close": part.close, "Volume": part.volume}
        frame = pd.DataFrame(names, index=pd.to_datetime(part.ts_open, unit="us"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Backtest(frame, EmaCross, cash=1e9, commission=0.0015, finalize_trades=True).run()
        bars += len(part)
    return bars, time.perf_counter() - began


def _recorded(arguments: argparse.Namespace) -> bool:
    """Fill in the recorded set of hourly bars with its signals and drivers, where it can be found."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("EDGEBOOK_DATA", beside))
    name = "binance_spot_1h_2021_2023"
    arguments.bars, arguments.regime_bars = data / name, data / "binance_spot_1h_majors"
    arguments.signals = data / "signals" / name / "signals.jsonl"
    return arguments.bars.is_dir()


def main() -> None:
    """Time both by turns and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bars", type=Path, nargs="?")
    parser.add_argument("--signals", type=Path)
    parser.add_argument("--regime-bars", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.bars is None and not _recorded(arguments):
        print("loop: skipped, no bars: name a directory, or point EDGEBOOK_DATA at the recorded data", file=sys.stderr)
        return
    if importlib.util.find_spec("backtesting") is None:
        print("loop: skipped, the peer is missing: pip install -r bench/requirements.txt", file=sys.stderr)
        return
    rates: dict[str, list[float]] = {"ours": [], "backtesting": []}
    for _ in range(arguments.rounds):
        for name, run in (("ours", ours), ("backtesting", peer)):
            bars, seconds = run(arguments)
            rates[name].append(bars / seconds)
            print(f"{name}: {bars:,} bars in {seconds:.1f} s, {bars / seconds:,.0f} bars/s", file=sys.stderr)
    mine, theirs = (round(statistics.median(rates[name])) for name in ("ours", "backtesting"))
    found = {
        "name": "loop",
        "work": "full loop with learning and database, against an EMA cross in memory",
        "unit": "bars/s",
        "ours": mine,
        "peer": {"backtesting": theirs},
        "times_better": {"backtesting": round(mine / theirs, 3)},
    }
    print(
        json.dumps(found) if arguments.json else f"ours {mine:,} bars/s, backtesting {theirs:,}: {mine / theirs:.2f}x"
    )


if __name__ == "__main__":
    main()
