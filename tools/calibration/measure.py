"""The engine over folders of recorded bars, kept as flat columns of all symbols together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.adapters.feeds.parquet import ParquetSource
from edgebook.domain.errors import EngineError
from edgebook.domain.reading import RETEST, WARM_BARS, WINDOW
from edgebook.domain.timeframe import TIMEFRAMES
from edgebook.engine.columns import EngineColumns, EngineConfig, advance, events, reading
from edgebook.engine.gates import BASE_GATES, Gates, evaluate, flags_over
from edgebook.engine.states import S1, S2, S3
from edgebook.market.bars import resample

Array = NDArray[Any]
Say = Callable[[str], None]

#: What is known of the recorded sets: short name, timeframes to run, what volume counts. A folder that is not listed
#: runs under its own name on the timeframe of its files.
KNOWN: dict[str, tuple[str, tuple[str, ...], str]] = {
    "binance_spot_1h_2021_2023": ("coins 2021-23", ("1h", "4h"), "base"),
    "binance_spot_5m_2025q1": ("coins 2025q1", ("5m", "15m", "1h"), "base"),
    "binance_spot_1h_majors": ("majors 2020-25", ("1h", "4h"), "base"),
    "binance_spot_15m_short_lived": ("short-lived", ("15m",), "base"),
    "binance_spot_30m_2023_2025q1": ("memes 2023-25", ("30m",), "base"),
    "solana_dex_1h": ("solana pools", ("1h",), "quote"),
    "solana_dex_5m": ("solana pools", ("5m",), "quote"),
    "solana_dex_1m": ("solana pools", ("1m",), "quote"),
    "bittrex_btcpairs_1m_2021": ("bittrex 2021", ("1m",), "base"),
    "ftx_perp_1m_2022": ("ftx perp 2022", ("1m",), "quote"),
}
#: Names a failed check can have, in the order of the bits of the column ``failed``.
GATES: tuple[str, ...] = (
    *("halo", "zone", "slope_min", "slow_slope_min", "ts_min", "dx_min"),
    *("emergency", "hallway_inverted", "missing_input"),
)
_BIT = {name: 1 << i for i, name in enumerate(GATES)}
_FLOATS = (
    *("ts_score", "sr_strength_anchor", "ox", "dx", "edx", "ti", "edx_suppression"),
    *("price", "atr", "ema60", "ema144", "ema333"),
)
_OTHERS = (
    *("state", "prev_state", "exit_reason", "bars_since_s3", "bars_in_state", "gap_bars", "ts"),
    *("emergency_exit", "prev_emergency", "reclaimed_ema333", "fakeout_recovery", "exit_position"),
    *("trim_flag", "first_dip"),
)
_EXITS = ("state", "prev_state", "exit_reason", "emergency_exit")
_NAME = re.compile(r".+-(\d+[a-z]+)\.parquet")


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One data set on one timeframe: every bar after the warm-up of every symbol, one symbol after the other.

    Attributes:
        folder, name, timeframe: which set, its short name, and the timeframe.
        symbols: names, as the column ``symbol`` counts them; warm_symbols: how many reach the end of the warm-up.
        bars: bars read, warm-up included; after it there are ``len(self)``.
        columns: by name, arrays of equal length: `_FLOATS` and `_OTHERS` as the engine gives them; ``symbol`` (index),
            ``sr_boost``, ``ts_with_boost``, ``buy_signal``, ``buy_flag``, ``unsuppressed`` (the buy flag if EDX
            suppressed nothing), ``window`` (the bar may open an entry window or a retest); ``failed`` (bits, see
            `GATES`) and ``margin`` (one column per gate, NaN where it is not asked).
        global_exit: the same engine with its global exit on: state, prev_state, exit_reason, emergency_exit by name.
    """

    folder: str
    name: str
    timeframe: str
    symbols: tuple[str, ...]
    warm_symbols: int
    bars: int
    columns: Mapping[str, Array]
    global_exit: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.columns["state"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    @property
    def label(self) -> str:
        """Short name and timeframe."""
        return f"{self.name} {self.timeframe}"

    def failed(self, gate: str) -> Array:
        """Where ``gate`` was asked and failed."""
        return np.asarray(self.columns["failed"] & _BIT[gate] != 0)

    def fails_alone(self, gate: str) -> Array:
        """Where ``gate`` failed and nothing else did."""
        return np.asarray(self.columns["failed"] == _BIT[gate])

    def margin(self, gate: str) -> Array:
        """Margin of ``gate`` (negative: failed), NaN where it was not asked."""
        return np.asarray(self.columns["margin"][:, GATES.index(gate)])


def bar_folders(data: Path) -> Iterator[tuple[Path, str]]:
    """Folders of ``data`` that hold bar files, the known sets first, each with the timeframe of its files."""
    found = {}
    for folder in sorted(p for p in data.iterdir() if p.is_dir()):
        names = [_NAME.fullmatch(path.name) for path in sorted(folder.glob("*.parquet"))]
        frames = {match[1] for match in names if match and match[1] in TIMEFRAMES}
        if len(frames) == 1 and all(names):
            found[folder.name] = (folder, frames.pop())
    ordered = [name for name in KNOWN if name in found] + [name for name in found if name not in KNOWN]
    yield from (found[name] for name in ordered)


def measure_all(data: Path, say: Say, most_symbols: int | None = None) -> list[Measured]:
    """Run the engine over every set below ``data`` on its timeframes.

    Args:
        say: is told what was done.
        most_symbols: only the first so many symbols of a set (None: all).

    Raises:
        EdgebookError: a folder or file cannot be read, or the engine contradicts itself.
    """
    done = []
    for folder, own in bar_folders(data):
        name, frames, unit = KNOWN.get(folder.name, (folder.name, (own,), "base"))
        source = ParquetSource(folder, volume_unit=unit)
        symbols = source.symbols[:most_symbols]
        for timeframe in frames:
            done.append(_measure(source, folder.name, name, symbols, timeframe))
            say(f"{done[-1].label}: {done[-1].bars:,} bars")
    return done


def _measure(source: ParquetSource, folder: str, name: str, symbols: tuple[str, ...], timeframe: str) -> Measured:
    parts: list[dict[str, Array]] = []
    ended: list[dict[str, Array]] = []
    warm, total = 0, 0
    first, last = source.span
    for index, symbol in enumerate(symbols):
        bars, _ = resample(source.bars(symbol, first, last or 0), timeframe)
        columns, _ = advance(None, bars)
        total, warm = total + len(bars), warm + (len(bars) > WARM_BARS)
        parts.append(_flat(columns, index))
        columns, _ = advance(None, bars, config=EngineConfig(global_exit=True))
        start = min(WARM_BARS, len(columns))
        ended.append({key: np.array(columns[key][start:]) for key in _EXITS})
    return Measured(folder, name, timeframe, symbols, warm, total, _joined(parts), _joined(ended))


def _flat(columns: EngineColumns, index: int) -> dict[str, Array]:
    """The wanted columns of one symbol, from the first bar after the warm-up on."""
    signal, flag = flags_over(columns, BASE_GATES)
    _, unsuppressed = flags_over(columns, Gates(edx_supp_mult=0.0))
    window = events(columns) & (WINDOW | RETEST) != 0
    start = min(WARM_BARS, len(columns))
    found = {name: np.array(columns[name][start:]) for name in (*_FLOATS, *_OTHERS)}
    found |= {"buy_signal": signal[start:], "buy_flag": flag[start:], "unsuppressed": unsuppressed[start:]}
    found["window"] = window[start:]
    found["symbol"] = np.full(len(columns) - start, index, dtype=np.int16)
    boost = found["sr_strength_anchor"] * BASE_GATES.sr_boost
    found["sr_boost"], found["ts_with_boost"] = boost, np.minimum(1.0, found["ts_score"] + boost)
    found["failed"], found["margin"] = _asked(columns, start, signal, flag)
    return found


def _asked(columns: EngineColumns, start: int, signal: Array, flag: Array) -> tuple[Array, Array]:
    """Which checks failed on each bar of S1, S2 and S3 after the warm-up, and every margin."""
    failed = np.zeros(len(columns) - start, dtype=np.uint16)
    margin = np.full((len(failed), len(GATES)), np.nan, dtype=np.float32)
    state = columns.state
    for i in (np.flatnonzero(np.isin(state[start:], (S1, S2, S3))) + start).tolist():
        report = evaluate(reading(columns, i), BASE_GATES)
        for name in report.blocked_by:
            failed[i - start] |= _BIT[name]
        for check in report.checks:
            margin[i - start, GATES.index(check.name)] = check.margin
        if report.flags != (signal[i], flag[i]):
            raise EngineError(
                f"{columns.symbol} {columns.timeframe} bar {i}: evaluate says {report.flags}, flags_over says "
                f"{(signal[i], flag[i])}; the two must agree",
                stage="engine",
            )
    return failed, margin


def _joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
