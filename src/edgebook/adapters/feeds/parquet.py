"""Recorded bars: a folder of ``SYMBOL-<timeframe>.parquet`` files, read through DuckDB (decisions 34, 43)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from edgebook.adapters.feeds.signals import read_tokens
from edgebook.domain.errors import InputError, MarketDataError
from edgebook.domain.timeframe import TIMEFRAMES, micros
from edgebook.market.bars import BarSeries
from edgebook.ports import TokenInfo

_PRICES = ("open", "high", "low", "close")
_COLUMNS = ("timestamp", *_PRICES, "volume")
_NAME = re.compile(r"(?P<symbol>.+)-(?P<timeframe>\d+[a-z]+)\.parquet")
#: Integer timestamps: below the first bound seconds, below the next milliseconds, then microseconds, else nanoseconds.
_UNITS = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))

Columns = dict[str, NDArray[Any]]


class ParquetSource:
    """Bars of one folder; implements `edgebook.ports.BarSource`. Gaps are kept, nothing is filled.

    Columns: ``timestamp`` (bar OPEN time: a timestamp, or an integer in s, ms, us or ns), ``open, high, low, close``
    (positive) and ``volume``. A ``tokens.csv`` in the folder is the token table; files are read when first asked for.

    Args:
        directory: the folder.
        symbols: only these (all if None).
        volume_unit: ``base`` (units of the token) or ``quote`` (USD; divided by the close, so that bars always hold
            base).
        tokens: a token table from elsewhere; wins over ``tokens.csv``.

    Raises:
        InputError: no such folder, no bar files, an unknown symbol or timeframe, mixed timeframes.
        MarketDataError: (on reading) a file that is no Parquet, or a bad row; names file, row (from 1) and field.
    """

    def __init__(
        self,
        directory: Path | str,
        symbols: Sequence[str] | None = None,
        *,
        volume_unit: str = "base",
        tokens: dict[str, TokenInfo] | None = None,
    ) -> None:
        if volume_unit not in ("base", "quote"):
            raise InputError(f"volume_unit was {volume_unit!r}; it must be base or quote")
        self._directory = Path(directory)
        self._volume_unit = volume_unit
        self._files, self._timeframe = _bar_files(self._directory, symbols)
        self._series: dict[str, BarSeries] = {}
        self._tokens = tokens

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols, ascending."""
        return tuple(self._files)

    @property
    def base_timeframe(self) -> str:
        """Timeframe of the files."""
        return self._timeframe

    @property
    def span(self) -> tuple[int, int | None]:
        """First open and last close over all files, microseconds UTC. Reads every file.

        Raises:
            MarketDataError: a bad file, or no bars in any.
        """
        filled = [series for series in map(self._load, self._files) if len(series)]
        if not filled:
            raise MarketDataError(f"{self._directory}: the bar files hold no rows", stage="feed")
        return min(int(s.ts_open[0]) for s in filled), max(int(s.ts_open[-1]) + s.step for s in filled)

    def bars(self, symbol: str, start: int, end: int) -> BarSeries:
        """Bars with ``ts_open >= start`` that close at or before ``end``.

        Raises:
            MarketDataError: an unknown symbol or a bad file.
        """
        if symbol not in self._files:
            raise MarketDataError(f"{self._directory}: no bars of {symbol}; it has {_some(self._files)}", stage="feed")
        series = self._load(symbol)
        return series.slice(start, end - series.step + 1)

    def signals(self, start: int, end: int) -> Sequence[str]:
        """None: recorded bars bring no signals of their own."""
        return ()

    def tokens(self) -> dict[str, TokenInfo]:
        """The token table given, else that of ``tokens.csv`` in the folder, completed by symbols without a row."""
        if self._tokens is None:
            path = self._directory / "tokens.csv"
            self._tokens = read_tokens(path) if path.exists() else {}
        known = self._tokens
        return {symbol: known.get(symbol) or TokenInfo(symbol, symbol, "exchange") for symbol in self._files}

    def _load(self, symbol: str) -> BarSeries:
        if symbol not in self._series:
            self._series[symbol] = read_bar_file(self._files[symbol], volume_unit=self._volume_unit)
        return self._series[symbol]


def read_bar_file(path: Path, *, volume_unit: str = "base") -> BarSeries:
    """All bars of one ``SYMBOL-<timeframe>.parquet`` file, whatever lies beside it.

    Raises:
        InputError: a name of another form, or no such file.
        MarketDataError: no Parquet, or a bad row; names file, row (from 1) and field.
    """
    match = _NAME.fullmatch(path.name)
    if match is None or match["timeframe"] not in TIMEFRAMES:
        raise InputError(f"{path}: not SYMBOL-<timeframe>.parquet; timeframes are {', '.join(TIMEFRAMES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give one SYMBOL-<timeframe>.parquet")
    columns = _checked(path, _read(path), match["timeframe"])
    volume = columns["volume"] / columns["close"] if volume_unit == "quote" else columns["volume"]
    ts, opened, high, low, close = (columns[name] for name in ("timestamp", *_PRICES))
    return BarSeries(match["symbol"], match["timeframe"], ts, opened, high, low, close, volume)


def _bar_files(directory: Path, symbols: Sequence[str] | None) -> tuple[dict[str, Path], str]:
    """Files by symbol, ascending, and their one timeframe."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder; give a folder of SYMBOL-<timeframe>.parquet files")
    found: dict[str, Path] = {}
    timeframes: dict[str, Path] = {}
    for path in sorted(directory.glob("*.parquet")):
        match = _NAME.fullmatch(path.name)
        if match is None or match["timeframe"] not in TIMEFRAMES:
            raise InputError(f"{path}: not SYMBOL-<timeframe>.parquet; timeframes are {', '.join(TIMEFRAMES)}")
        if symbols is None or match["symbol"] in symbols:
            found[match["symbol"]] = path
            timeframes.setdefault(match["timeframe"], path)
    absent = sorted(set(symbols or ()) - set(found))
    if absent:
        raise InputError(f"{directory}: no bar file of {absent[0]}")
    if not found:
        raise InputError(f"{directory}: no SYMBOL-<timeframe>.parquet files in this folder")
    if len(timeframes) > 1:
        one, other = list(timeframes.items())[:2]
        raise InputError(f"{directory}: mixed timeframes, {one[1].name} and {other[1].name}; keep one per folder")
    return {symbol: found[symbol] for symbol in sorted(found)}, next(iter(timeframes))


def _read(path: Path) -> Columns:
    """The needed columns as numpy arrays, in file order."""
    with duckdb.connect() as connection:
        try:
            described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
            kinds = {row[0]: str(row[1]) for row in described}
            for column in _COLUMNS:
                if column not in kinds:
                    raise MarketDataError(
                        f"{path}: column {column} is missing; bars have {', '.join(_COLUMNS)}", stage="feed"
                    )
            stamp = "epoch_us(timestamp)" if kinds["timestamp"].startswith("TIMESTAMP") else "CAST(timestamp AS BIGINT)"
            numbers = ", ".join(f"CAST({name} AS DOUBLE) AS {name}" for name in _COLUMNS[1:])
            query = f"SELECT {stamp} AS timestamp, {numbers} FROM read_parquet(?, file_row_number = true)"
            connection.execute("SET preserve_insertion_order = true")
            fetched = connection.execute(query, [str(path)]).fetchnumpy()
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise MarketDataError(
                f"{path}: cannot be read as a Parquet file of bars: {reason}", stage="feed"
            ) from error
    columns = {name: _plain(path, name, fetched[name]) for name in _COLUMNS}
    if not kinds["timestamp"].startswith("TIMESTAMP"):
        columns["timestamp"] = _microseconds(columns["timestamp"])
    return columns


def _plain(path: Path, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """The column without its null mask; a null in it is an error."""
    mask = np.ma.getmaskarray(np.ma.asarray(values))
    if mask.any():
        raise MarketDataError(
            f"{path}: row {int(np.argmax(mask)) + 1}: {name} is empty; every row needs a value", stage="feed"
        )
    return np.ascontiguousarray(np.ma.getdata(values))


def _microseconds(stamps: NDArray[Any]) -> NDArray[np.int64]:
    values = stamps.astype(np.int64)
    largest = int(np.abs(values).max(initial=0))
    for bound, factor in _UNITS:
        if largest < bound:
            return values * factor
    return values // 1000


def _checked(path: Path, columns: Columns, timeframe: str) -> Columns:
    """The columns, unless a row breaks a rule of bars: then an error naming file, row (from 1) and field."""
    ts = columns["timestamp"] = columns["timestamp"].astype(np.int64)
    step = np.diff(ts, prepend=ts[:1] - 1) if len(ts) else ts
    _refuse(path, "timestamp", ts, step == 0, "later than the row before it (it is there twice)")
    _refuse(path, "timestamp", ts, step < 0, "later than the row before it (the file is not sorted)")
    _refuse(path, "timestamp", ts, ts % micros(timeframe) != 0, f"an open time on the {timeframe} grid")
    for name in _PRICES:
        values = columns[name]
        _refuse(path, name, values, ~(np.isfinite(values) & (values > 0)), "a positive finite price")
    volume = columns["volume"]
    _refuse(path, "volume", volume, ~(np.isfinite(volume) & (volume >= 0)), "finite and not negative")
    high, low = columns["high"], columns["low"]
    _refuse(path, "high", high, high < np.maximum(columns["open"], columns["close"]), "at least open and close")
    _refuse(path, "low", low, low > np.minimum(columns["open"], columns["close"]), "at most open and close")
    return columns


def _refuse(path: Path, name: str, values: NDArray[Any], bad: NDArray[np.bool_], right: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise MarketDataError(f"{path}: row {row + 1}: {name} is {values[row]}; it must be {right}", stage="feed")


def _some(names: dict[str, Path]) -> str:
    listed = ", ".join(list(names)[:5])
    return listed + (f" and {len(names) - 5} more" if len(names) > 5 else "")
