"""The engine's speed and memory against named peers: one run, the same bars, the same core.

    python bench/engine.py [BARS_DIR] [--rounds 5] [--symbols N] [--json]

``array``: bars per second of the whole engine over arrays (indicators, levels, states, scores, flags, events), and of
its indicators alone. ``stream``: microseconds for one more bar, the reading included, without and with the gates.
``memory``: resident memory that 100 streams add after 3,000 bars each, in a fresh process. Time is CPU time, the median
of rounds taken by turns after a first one that is not counted (it compiles). What each peer does, and what it leaves
out, stands at its function: none of them does what the engine does, so every row says what is compared with what.

BARS_DIR: a folder of ``SYMBOL-<timeframe>.parquet``. Peers: ``pip install -r bench/requirements.txt``; one that is
missing is left out.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from edgebook.adapters.feeds.parquet import ParquetSource
from edgebook.domain.errors import EdgebookError
from edgebook.engine import columns
from edgebook.engine.gates import BASE_GATES, Gates, evaluate, flags_over
from edgebook.engine.stream import EngineStream
from edgebook.market import indicators
from edgebook.market.bars import BarSeries

EMAS = (20, 30, 60, 144, 250, 333)
STREAMS, STREAM_BARS = 100, 3_000
STREAM_TARGET_US, MEMORY_TARGET_MB = 40.0, 100.0
TALIPP_KEEPS = 400
#: Gates that differ from the base, so that both are asked: the dearer case.
LEARNED_GATES = Gates(ts_min=0.58)

Every = Sequence[BarSeries]
#: One pass over all bars; returns its CPU seconds, without preparing inputs.
Pass = Callable[[], float]
#: Makes something, feeds it the inputs of one series one by one, and returns it.
Feed = Callable[[BarSeries, Iterable[Any]], object]
#: The inputs that one takes.
Inputs = Callable[[BarSeries], Iterable[Any]]


def cpu_seconds(work: Callable[..., object], *arguments: object) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    work(*arguments)
    return time.process_time() - began


# ---------------------------------------------------------------- over arrays


def engine_arrays(every: Every) -> Pass:
    """Ours: all of the engine over each series, both flags under the base gates, and the events."""

    def one(series: BarSeries) -> None:
        found, _ = columns.advance(None, series)
        flags_over(found, BASE_GATES)
        columns.events(found)

    return lambda: sum(cpu_seconds(one, series) for series in every)


def indicator_arrays(every: Every) -> Pass:
    """Ours: `edgebook.market.indicators` alone, which computes 23 columns."""
    return lambda: sum(cpu_seconds(indicators.advance, None, series) for series in every)


def talib_arrays(every: Every) -> Pass:
    """TA-Lib: C loops over arrays, 16 of them: six EMAs, ATR, ADX, RSI, and the slopes of five EMAs, RSI and ADX.

    No ATR mean, volume surprise, separations, changes of slopes; no levels, states, scores, flags. Its sums cannot be
    kept, so a new bar means the whole array again.
    """
    import talib

    def one(series: BarSeries) -> None:
        means = [talib.EMA(series.close, timeperiod=period) for period in EMAS]
        talib.ATR(series.high, series.low, series.close, timeperiod=14)
        adx = talib.ADX(series.high, series.low, series.close, timeperiod=14)
        rsi = talib.RSI(series.close, timeperiod=14)
        for values in (means[0], *means[2:], rsi, adx):
            talib.LINEARREG_SLOPE(values, timeperiod=10)

    return lambda: sum(cpu_seconds(one, series) for series in every)


def backtesting_arrays(every: Every) -> Pass:
    """backtesting: an EMA 20/60 cross, two indicators computed as arrays, one Python call a bar, fills and statistics.

    Frames and ``Backtest`` objects are made beforehand; only ``run`` is timed. No levels, states, scores.
    """
    import pandas as pd
    from backtesting import Backtest, Strategy

    def ema(values: Any, length: int) -> Any:
        return pd.Series(values).ewm(span=length, adjust=False).mean()

    class EmaCross(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            self.fast, self.slow = self.I(ema, self.data.Close, 20), self.I(ema, self.data.Close, 60)
            self.up = False

        def next(self) -> None:
            up = self.fast[-1] >= self.slow[-1]  # a tenth faster than `backtesting.lib.crossover`
            if up == self.up:
                return
            self.up = up
            if up:
                self.buy(size=0.5)
            else:
                self.position.close()

    tests = []
    for s in every:
        names = {"Open": s.open, "High": s.high, "Low": s.low, "Close": s.close, "Volume": s.volume}
        frame = pd.DataFrame(names, index=pd.to_datetime(s.ts_open, unit="us"))
        tests.append(Backtest(frame, EmaCross, cash=1e9, commission=0.0015, finalize_trades=True))

    def run() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sum(cpu_seconds(test.run) for test in tests)

    return run


def nautilus_arrays(every: Every) -> Pass:
    """NautilusTrader: an EMA 20/60 cross with market orders, one ``BacktestEngine`` for each series.

    Driven by bars and as cheap as it goes: no log, no risk checks, no analysis; bars are made and added beforehand, and
    only ``run`` is timed. It does far more per bar than the peers above on the side of execution (a message bus, an
    exchange that plays each bar as four trades, an account), and no levels, states, scores.
    """
    engines = [_nautilus_engine(series) for series in every]

    def run() -> float:
        total = 0.0
        for engine in engines:
            total += cpu_seconds(engine.run)
            engine.reset()
        return total

    return run


def _nautilus_engine(series: BarSeries) -> Any:
    """An engine with the bars of ``series`` and the strategy on them."""
    import pandas as pd
    from nautilus_trader.backtest.config import BacktestEngineConfig
    from nautilus_trader.backtest.engine import BacktestEngine
    from nautilus_trader.config import LoggingConfig, RiskEngineConfig
    from nautilus_trader.model import BarType, InstrumentId, Money, Price, Quantity, Symbol, Venue
    from nautilus_trader.model.currencies import USDT
    from nautilus_trader.model.enums import AccountType, CurrencyType, OmsType
    from nautilus_trader.model.instruments import CurrencyPair
    from nautilus_trader.model.objects import Currency
    from nautilus_trader.persistence.wranglers import BarDataWrangler

    venue, symbol = Venue("SIM"), Symbol(series.symbol)
    token = Currency("TOKEN", precision=8, iso4217=0, name="TOKEN", currency_type=CurrencyType.CRYPTO)
    steps = (Price(1e-9, precision=9), Quantity(0.001, precision=3))
    pair = CurrencyPair(InstrumentId(symbol, venue), symbol, token, USDT, 9, 3, *steps, ts_event=0, ts_init=0)
    unit = {"m": "MINUTE", "h": "HOUR", "d": "DAY"}[series.timeframe[-1]]
    kind = BarType.from_str(f"{pair.id}-{series.timeframe[:-1]}-{unit}-LAST-EXTERNAL")
    prices = {name: getattr(series, name) for name in ("open", "high", "low", "close")}
    names = prices | {"volume": series.volume.clip(max=1e9)}  # builds with 64-bit numbers take no more than 1.8e10
    frame = pd.DataFrame(names, index=pd.to_datetime(series.close_ts, unit="us", utc=True))
    quiet = BacktestEngineConfig(
        logging=LoggingConfig(bypass_logging=True), risk_engine=RiskEngineConfig(bypass=True), run_analysis=False
    )
    engine = BacktestEngine(quiet)
    engine.add_venue(venue, OmsType.NETTING, AccountType.MARGIN, [Money(1e9, USDT)], base_currency=USDT)
    engine.add_instrument(pair)
    engine.add_data(BarDataWrangler(kind, pair).process(frame))
    engine.add_strategy(_nautilus_cross(pair, kind, Quantity(1_000.0 / series.close[0], precision=3)))
    return engine


def _nautilus_cross(pair: Any, kind: Any, quantity: Any) -> Any:
    """The strategy of its own examples (EMA cross, long only) without their log line for every bar."""
    from nautilus_trader.config import StrategyConfig
    from nautilus_trader.indicators import ExponentialMovingAverage
    from nautilus_trader.model.enums import OrderSide
    from nautilus_trader.trading.strategy import Strategy

    class EmaCross(Strategy):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(StrategyConfig())
            self.fast, self.slow, self.up = ExponentialMovingAverage(20), ExponentialMovingAverage(60), False

        def on_start(self) -> None:
            self.register_indicator_for_bars(kind, self.fast)
            self.register_indicator_for_bars(kind, self.slow)
            self.subscribe_bars(kind)

        def on_bar(self, bar: Any) -> None:
            up = self.fast.value >= self.slow.value
            if up != self.up and self.slow.initialized:
                self.up = up
                side = OrderSide.BUY if up else OrderSide.SELL
                self.submit_order(self.order_factory.market(pair.id, side, quantity))

        def on_reset(self) -> None:
            self.fast.reset()
            self.slow.reset()
            self.up = False

    return EmaCross()


# ---------------------------------------------------------------- bar by bar


def engine_stream(series: BarSeries, bars: Iterable[Any]) -> object:
    """Ours: one reading for every bar."""
    stream = EngineStream(series.symbol, series.timeframe)
    push = stream.push
    for bar in bars:
        push(bar)
    return stream


def gated_stream(series: BarSeries, bars: Iterable[Any]) -> object:
    """Ours: one reading for every bar, asked under learned gates and under the base gates."""
    stream = EngineStream(series.symbol, series.timeframe)
    push = stream.push
    for bar in bars:
        evaluate(push(bar), LEARNED_GATES)
    return stream


def talipp_stream(series: BarSeries, bars: Iterable[Any]) -> object:
    """talipp: six EMAs, ATR, ADX and RSI, in Python; keeps every value it has seen, as it comes.

    No slopes, levels, states, scores.
    """
    of_close, of_range = _talipp_indicators()
    add_close, add_range = [each.add for each in of_close], [each.add for each in of_range]
    for bar in bars:
        close = bar.close
        for add in add_close:
            add(close)
        for add in add_range:
            add(bar)
    return of_close, of_range


def talipp_purged_stream(series: BarSeries, bars: Iterable[Any]) -> object:
    """The same, but old values are thrown away with ``purge_oldest``: EMA 333 needs more than 333, so 400 stay."""
    of_close, of_range = _talipp_indicators()
    for count, bar in enumerate(bars, start=1):
        for each in of_close:
            each.add(bar.close)
        for each in of_range:
            each.add(bar)
        if count > TALIPP_KEEPS:
            for each in (*of_close, *of_range):
                each.purge_oldest(1)
    return of_close, of_range


def _talipp_indicators() -> tuple[list[Any], list[Any]]:
    """Those of the close, and those of the whole bar."""
    from talipp.indicators import ADX, ATR, EMA, RSI

    return [*map(EMA, EMAS), RSI(14)], [ATR(14), ADX(14, 14)]


def nautilus_stream(series: BarSeries, bars: Iterable[Any]) -> object:
    """NautilusTrader's compiled indicators: six EMAs, ATR, +DM and -DM (it has no ADX), RSI.

    Fed numbers, which is faster than its bars. No slopes, levels, states, scores; keeps running sums only.
    """
    from nautilus_trader.indicators import (
        AverageTrueRange,
        DirectionalMovement,
        ExponentialMovingAverage,
        MovingAverageType,
        RelativeStrengthIndex,
    )

    wilder = MovingAverageType.WILDER
    closes = [*map(ExponentialMovingAverage, EMAS), RelativeStrengthIndex(14, wilder)]
    atr, movement = AverageTrueRange(14, wilder), DirectionalMovement(14, wilder)
    of_close, of_range, of_movement = [each.update_raw for each in closes], atr.update_raw, movement.update_raw
    for high, low, close in bars:
        for update in of_close:
            update(close)
        of_range(high, low, close)
        of_movement(high, low)
    return closes, atr, movement


def talipp_bars(series: BarSeries) -> Iterable[Any]:
    """The bars as talipp takes them."""
    from talipp.ohlcv import OHLCV

    return (OHLCV(bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in series)


def nautilus_numbers(series: BarSeries) -> Iterable[Any]:
    """(high, low, close) of every bar."""
    return ((bar.high, bar.low, bar.close) for bar in series)


def streamed(every: Every, feed: Feed, inputs: Inputs) -> Pass:
    """A pass that feeds each series bar by bar; inputs are made before the clock runs."""

    def run() -> float:
        total = 0.0
        for series in every:
            bars = list(inputs(series))
            total += cpu_seconds(feed, series, bars)
        return total

    return run


# ---------------------------------------------------------------- contenders

OURS = "ours"
#: Peer: the module it needs.
MODULES = {"TA-Lib": "talib", "backtesting": "backtesting", "NautilusTrader": "nautilus_trader", "talipp": "talipp"}
ARRAYS: dict[str, Callable[[Every], Pass]] = {
    OURS: engine_arrays,
    "TA-Lib": talib_arrays,
    "backtesting": backtesting_arrays,
    "NautilusTrader": nautilus_arrays,
}
INDICATORS: dict[str, Callable[[Every], Pass]] = {OURS: indicator_arrays, "TA-Lib": talib_arrays}
STREAMED: dict[str, tuple[Feed, Inputs]] = {
    OURS: (engine_stream, iter),
    "talipp": (talipp_stream, talipp_bars),
    "NautilusTrader": (nautilus_stream, nautilus_numbers),
}
KEPT = STREAMED | {"talipp, purged": (talipp_purged_stream, talipp_bars)}


def present(contenders: Iterable[str]) -> list[str]:
    """Those that can run here."""
    return [name for name in contenders if name == OURS or importlib.util.find_spec(MODULES[name.split(",")[0]])]


def medians(passes: dict[str, Pass], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, by turns, after one turn that is not counted; no garbage is collected meanwhile."""
    taken: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(rounds + 1):
        for name, run in passes.items():
            gc.collect()
            gc.disable()
            seconds = run()
            gc.enable()
            if turn:
                taken[name].append(seconds)
    for name, found in taken.items():
        print(f"  {name}: {min(found):.3f} to {max(found):.3f} s of CPU a round", file=sys.stderr)
    return {name: statistics.median(found) for name, found in taken.items()}


# ---------------------------------------------------------------- memory


def added_memory(every: Every, name: str) -> float:
    """MB that 100 streams of ``name`` add, measured in a fresh process beyond one of them."""
    first = [series.rows(0, STREAM_BARS) for series in every]
    command = [sys.executable, __file__, "--memory-of", name]
    done = subprocess.run(command, input=pickle.dumps(first), stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def _measure_memory(name: str) -> None:
    """In the fresh process: series from standard input, MB to standard output."""
    every: list[BarSeries] = pickle.load(sys.stdin.buffer)
    feed, inputs = KEPT[name]
    feed(every[0], inputs(every[0]))  # compiles, or loads what was compiled; not counted
    gc.collect()
    _give_back()
    before = _resident()
    kept = [feed(series, inputs(series)) for series in islice(cycle(every), STREAMS)]
    gc.collect()
    print((_resident() - before) / 1e6)
    del kept


def _give_back() -> None:
    """Return what the heap holds free (compiling leaves much of it), or the streams would be built in there unseen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _resident() -> int:
    """Bytes resident now; where the system does not tell, the most there ever were."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---------------------------------------------------------------- rows


def row(name: str, work: str, unit: str, figures: dict[str, float], more_wins: bool = False) -> dict[str, Any]:
    """The form every bench prints; ``figures`` holds ours and the peers'."""
    mine = figures[OURS]
    peers = {peer: figure for peer, figure in figures.items() if peer != OURS}
    better = {peer: mine / figure if more_wins else figure / mine for peer, figure in peers.items()}
    return {
        "name": f"engine, {name}",
        "work": work,
        "unit": unit,
        "ours": _digits(mine),
        "peer": {peer: _digits(figure) for peer, figure in peers.items()},
        "times_better": {peer: _digits(times, 3) for peer, times in better.items()},
    }


def _digits(value: float, count: int = 4) -> float:
    rounded = float(f"{value:.{count}g}")
    return int(rounded) if rounded >= 1_000 else rounded


def array_rows(every: Every, rounds: int) -> list[dict[str, Any]]:
    """The whole engine against peers that do less, and indicators against indicators; bars per second."""
    bars = sum(map(len, every))
    rows = []
    for name, contenders, work in (
        ("array", ARRAYS, "whole engine; TA-Lib: indicators only; backtesting, NautilusTrader: an EMA 20/60 cross"),
        ("array, indicators", INDICATORS, "indicators only, 23 columns; TA-Lib: 16 of them"),
    ):
        print(f"engine: {name}", file=sys.stderr)
        seconds = medians({peer: contenders[peer](every) for peer in present(contenders)}, rounds)
        rates = {peer: bars / value for peer, value in seconds.items()}
        rows.append(row(name, f"{work}; {bars} bars", "bars/s", rates, more_wins=True))
    return rows


def stream_rows(every: Every, rounds: int) -> list[dict[str, Any]]:
    """One more bar, reading included, without and with the gates; microseconds."""
    print("engine: stream", file=sys.stderr)
    bars = sum(map(len, every))
    passes = {name: streamed(every, *STREAMED[name]) for name in present(STREAMED)}
    seconds = medians(passes | {"with gates": streamed(every, gated_stream, iter)}, rounds)
    figures = {name: value / bars * 1e6 for name, value in seconds.items()}
    gated = figures.pop("with gates")
    work = f"one more bar (target {STREAM_TARGET_US:g}); peers: some indicators; {bars} bars"
    return [
        row("stream", f"reading of {work}", "us/bar", figures),
        row("stream, gates", f"reading and both gate reports of {work}", "us/bar", figures | {OURS: gated}),
    ]


def memory_row(every: Every) -> dict[str, Any]:
    """Resident memory of 100 streams; MB."""
    bars = min(STREAM_BARS, *map(len, every))
    work = f"added by {STREAMS} streams after {bars} bars each (target {MEMORY_TARGET_MB:g}); peers: some indicators"
    return row("memory", work, "MB", {name: added_memory(every, name) for name in present(KEPT)})


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table for people: one line for each peer."""
    for found in rows:
        print(f"{found['name']}: {found['work']}")
        print(f"  {OURS:16s}{found['ours']:>14,} {found['unit']}")
        for peer, figure in found["peer"].items():
            print(f"  {peer:16s}{figure:>14,} {found['unit']:8s}{found['times_better'][peer]:>8g} times better")
    print("times better: above 1 ours wins, below 1 the peer does")
    targets = (("stream", STREAM_TARGET_US), ("stream, gates", STREAM_TARGET_US), ("memory", MEMORY_TARGET_MB))
    ours = {found["name"]: (found["ours"], found["unit"]) for found in rows}
    for name, target in targets:
        figure, unit = ours[f"engine, {name}"]
        print(f"target {name}, at most {target:g} {unit}: {'met' if figure <= target else 'MISSED'} at {figure:g}")


# ---------------------------------------------------------------- the run


def read(folder: Path, count: int | None) -> list[BarSeries]:
    """Series of the first ``count`` symbols (all if None) that outlast the engine's warm-up."""
    source = ParquetSource(folder)
    every = (source.bars(symbol, 0, sys.maxsize) for symbol in source.symbols)
    return list(islice((series for series in every if len(series) > max(EMAS)), count))


def one_core() -> str:
    """Keep this process and its children on one core, where the system can; returns which."""
    if not hasattr(os, "sched_setaffinity"):
        return "any core"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return f"core {core}"


def _recorded() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("EDGEBOOK_DATA", beside)) / "binance_spot_5m_2025q1"


def _options() -> argparse.Namespace:
    def positive(text: str) -> int:
        if (value := int(text)) < 1:
            raise argparse.ArgumentTypeError(f"{text} must be at least 1")
        return value

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bars", type=Path, nargs="?", help="folder of SYMBOL-<timeframe>.parquet")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--symbols", type=positive, help="only the first N symbols")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of", choices=list(KEPT), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.memory_of:
        _measure_memory(options.memory_of)
        return
    folder = options.bars or _recorded()
    if options.bars is None and not folder.is_dir():
        print("engine: skipped, no bars: name a folder, or point EDGEBOOK_DATA at the recorded data", file=sys.stderr)
        return
    os.environ["TQDM_DISABLE"] = "1"  # backtesting draws a progress bar where tqdm is installed
    core = one_core()
    try:
        every = read(folder, options.symbols)
    except EdgebookError as problem:
        print(f"engine: {problem}", file=sys.stderr)
        sys.exit(2)
    if not every:
        print(f"engine: {folder}: no symbol has more than {max(EMAS)} bars", file=sys.stderr)
        sys.exit(2)
    missing = sorted(set(MODULES) - set(present(MODULES)))
    if missing:
        print(f"engine: left out: {', '.join(missing)}; pip install -r bench/requirements.txt", file=sys.stderr)
    print(f"engine: {len(every)} symbols, {every[0].timeframe}, {core}, {options.rounds} rounds", file=sys.stderr)
    rows = [*array_rows(every, options.rounds), *stream_rows(every, options.rounds), memory_row(every)]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        show(rows)


if __name__ == "__main__":
    main()
