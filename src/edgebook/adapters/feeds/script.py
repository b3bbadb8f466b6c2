"""A written market: the one seam of flow tests (mission 6; decisions 37). ``--feed script:FILE`` replaces what the
engine measures, states and scores, before any gate is asked. Bars, gates, decisions, orders, episodes and learning stay
real.

The file holds JSON lines, in any order after the first; times are ISO 8601 in UTC, closes of bars:

- ``{"script": 1, "start": "2024-01-01T00:00:00Z", "end": "2024-01-03T00:00:00Z", "base": "1m"}`` comes first.
  ``history_days`` (70, whole days) of bars lie before the start, so that every timeframe has seen its 333.
- ``{"token": "AAAUSDT", "price": 100, "volume": 1000000}`` is a token: its first price and its units traded per base
  bar; ``ticker``, ``chain`` (``exchange``), ``contract``, ``mcap_usd`` and ``first`` (its first bar opens then) may
  stand beside.
- ``{"dominance": "USDT.D", "price": 5}`` (or ``BTC.D``; with ``first`` as above) is a series of percentages: no token,
  a regime driver.
- ``{"symbol": "AAAUSDT", "ts": "2024-01-01T01:00:00Z", "price": 101}`` moves the price: the base bar that closes then
  ends at 101, and it stays there; ``volume`` likewise.
- ``{"symbol": "AAAUSDT", "missing": ["2024-01-01T02:00:00Z", "2024-01-01T03:00:00Z"]}`` takes away the base bars that
  open in that span.
- ``{"symbol": "AAAUSDT", "timeframe": "1h", "ts": "2024-01-01T01:00:00Z", "state": "S1", "ts_score": 0.7}`` is what
  the engine is to say of one bar: any score, average or flag of `domain.reading.MarketReading`. A state stays until the
  next one; scores are of that bar only, other bars are calm. A regime driver is scripted under its name (``btc``,
  ``alt``, ``bucket:micro``, ``btcd``, ``usdtd``) and the timeframe of its horizon. Whatever has no such line at all is
  read by the engine.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError, MarketDataError
from edgebook.domain.reading import MarketReading
from edgebook.domain.timeframe import TIMEFRAMES, micros
from edgebook.market.bars import BarSeries
from edgebook.ports import TokenInfo

STATES = ("S0", "S1", "S2", "S3", "S4")
DOMINANCES = ("BTC.D", "USDT.D")
#: Names of the regime drivers, and the timeframes on which one may be read (the finest of a run up to 15m, 1h, 1d).
CLASSES = ("nano", "micro", "mid", "big", "large", "xl")
DRIVERS = ("btc", "alt", *(f"bucket:{name}" for name in CLASSES), "btcd", "usdtd")
HORIZONS = (*(name for name in TIMEFRAMES if micros(name) <= micros("15m")), "1h", "1d")
_OWN = {"open", "high", "low", "price", "volume"}
_KINDS: dict[str, str] = {f.name: str(f.type) for f in dataclasses.fields(MarketReading)}
#: Scores, averages and flags that a line may set, by kind.
SCORES = frozenset(name for name, kind in _KINDS.items() if kind == "float") - _OWN
FLAGS = frozenset(name for name, kind in _KINDS.items() if kind == "bool")


@dataclass(frozen=True, slots=True)
class ScriptedReading:
    """What the engine is to say of one bar; ``state`` "" keeps the one before, ``values`` are scores and flags."""

    symbol: str
    timeframe: str
    ts: int
    state: str
    values: Mapping[str, float | bool]


@dataclass(slots=True)
class _Token:
    info: TokenInfo
    price: float
    volume: float
    first: int | None
    dominance: bool = False
    moves: dict[int, tuple[float | None, float | None]] = field(default_factory=dict)
    missing: list[tuple[int, int]] = field(default_factory=list)


class ScriptSource:
    """Bars and tokens of a script; implements `edgebook.ports.BarSource`.

    Attributes:
        start: first moment at which anything is decided, microseconds UTC.
        readings: what the engine is to say, in the order of the file.

    Raises:
        InputError: the file cannot be read, or a line is none of the above; names file, line and field.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.start = self._end = 0
        self._history = 70 * DAY
        self.base_timeframe = "1m"
        self._dominance = False
        self._tokens: dict[str, _Token] = {}
        self.readings: list[ScriptedReading] = []
        rows = _rows(path)
        self._read_header(*rows[0])
        rest = sorted(rows[1:], key=lambda row: "token" not in row[1] and "dominance" not in row[1])
        for where, row in rest:
            try:
                self._read(where, row)
            except (TypeError, ValueError, OverflowError) as error:
                raise InputError(f"{where}: {error}") from error
        if not self.symbols:
            raise InputError(f"{path}: a script needs at least one line with a token")

    @property
    def symbols(self) -> tuple[str, ...]:
        """All tokens, ascending; of `dominances` those."""
        return tuple(sorted(symbol for symbol, one in self._tokens.items() if one.dominance == self._dominance))

    @property
    def dominances(self) -> ScriptSource | None:
        """The dominances, as a source of their own; None where there are none."""
        twin = copy.copy(self)
        twin._dominance = True
        return twin if twin.symbols else None

    @property
    def span(self) -> tuple[int, int | None]:
        """First open of the history and the end, microseconds UTC."""
        return self.start - self._history, self._end

    def bars(self, symbol: str, start: int, end: int) -> BarSeries:
        """Base bars that open at or after ``start`` and close at or before ``end``.

        Raises:
            MarketDataError: an unknown symbol.
        """
        token = self._tokens.get(symbol)
        if token is None:
            raise MarketDataError(f"{self._path}: no token {symbol}", stage="feed")
        step = micros(self.base_timeframe)
        first = max(self.span[0], token.first or 0)
        opens = np.arange(-(-first // step) * step, self._end, step, dtype=np.int64)
        price, volume = _path(opens + step, token)
        before = np.r_[token.price, price[:-1]]
        kept = (opens >= start) & (opens + step <= end)
        for begin, until in token.missing:
            kept &= ~((opens >= begin) & (opens < until))
        columns = (before, np.maximum(before, price), np.minimum(before, price), price, volume)
        return BarSeries(symbol, self.base_timeframe, opens[kept], *(column[kept] for column in columns))

    def signals(self, start: int, end: int) -> Sequence[str]:
        """None: packets come in through the ingress."""
        return ()

    def tokens(self) -> dict[str, TokenInfo]:
        """The token table."""
        return {symbol: self._tokens[symbol].info for symbol in self.symbols}

    def _read_header(self, where: str, row: Mapping[str, Any]) -> None:
        _only(where, row, {"script", "start", "end", "base", "history_days"})
        if row.get("script") != 1:
            raise InputError(f'{where}: the first line of a script is {{"script": 1, "start": ..., "end": ...}}')
        base = row.get("base", "1m")
        if base not in TIMEFRAMES:
            raise InputError(f"{where}: base was {base!r}; it must be one of {', '.join(TIMEFRAMES)}")
        self.base_timeframe = base
        self.start, self._end = _when(where, row, "start"), _when(where, row, "end")
        for name, at in (("start", self.start), ("end", self._end)):
            if at % micros(base):
                raise InputError(f"{where}: {name} is no close of a {base} bar")
        if self._end <= self.start:
            raise InputError(f"{where}: end must be after start")
        days = _number(where, row, "history_days", 70.0)
        if days < 0 or days != int(days):
            raise InputError(f"{where}: history_days was {days:g}; it must be a whole number of days, not below 0")
        self._history = int(days) * DAY

    def _read(self, where: str, row: Mapping[str, Any]) -> None:
        if "token" in row:
            return self._read_token(where, row)
        if "dominance" in row:
            return self._read_dominance(where, row)
        symbol = row.get("symbol")
        if not isinstance(symbol, str) or not symbol:
            raise InputError(f"{where}: symbol is missing; a line is of a token or has a symbol")
        if "missing" in row:
            _only(where, row, {"symbol", "missing"})
            span = row["missing"]
            if not isinstance(span, list) or len(span) != 2:
                raise InputError(f"{where}: missing takes two times, was {span!r}")
            edges = [_when(where, {"missing": one}, "missing") for one in span]
            if edges[0] >= edges[1]:
                raise InputError(f"{where}: missing takes the earlier time first, were {span[0]} and {span[1]}")
            self._token(where, symbol).missing.append((edges[0], edges[1]))
            return None
        ts, timeframe = _when(where, row, "ts"), row.get("timeframe")
        if not self.start < ts <= self._end:
            raise InputError(f"{where}: ts must be after start and not after end")
        if "price" in row or "volume" in row:
            self._move(where, row, symbol, ts)
        if timeframe is None:
            return _only(where, row, {"symbol", "ts", "price", "volume"})
        reading = _reading(where, row, symbol, ts)
        self._check_series(where, reading)
        self.readings.append(reading)
        return None

    def _check_series(self, where: str, reading: ScriptedReading) -> None:
        """Refuse what nothing would ever read."""
        symbol, timeframe = reading.symbol, reading.timeframe
        if micros(timeframe) < micros(self.base_timeframe):
            raise InputError(f"{where}: timeframe {timeframe} is finer than the bars of this script")
        token = self._tokens.get(symbol)
        if token is not None and not token.dominance:
            return
        if symbol not in DRIVERS:
            raise InputError(
                f'{where}: symbol {symbol!r} has no line {{"token": "{symbol}"}}, and is no regime driver'
                f" ({', '.join(DRIVERS)})"
            )
        if timeframe not in HORIZONS:
            raise InputError(f"{where}: a regime driver is read on {', '.join(HORIZONS)}, was {timeframe}")

    def _read_token(self, where: str, row: Mapping[str, Any]) -> None:
        _only(where, row, {"token", "ticker", "chain", "contract", "mcap_usd", "price", "volume", "first"})
        symbol = row["token"]
        if not isinstance(symbol, str) or not symbol or symbol in self._tokens:
            raise InputError(f"{where}: token {symbol!r} must be a new name")
        cap = _number(where, row, "mcap_usd", math.nan) if "mcap_usd" in row else None
        ticker, chain = str(row.get("ticker", symbol)), str(row.get("chain", "exchange"))
        info = TokenInfo(symbol, ticker, chain, cap, str(row.get("contract", "")))
        first = _when(where, row, "first") if "first" in row else None
        price, volume = _number(where, row, "price", 100.0), _number(where, row, "volume", 1e6)
        if price <= 0 or volume < 0:
            raise InputError(f"{where}: price must be above 0 and volume not below, were {price:g} and {volume:g}")
        self._tokens[symbol] = _Token(info, price, volume, first)

    def _read_dominance(self, where: str, row: Mapping[str, Any]) -> None:
        _only(where, row, {"dominance", "price", "first"})
        symbol, price = row["dominance"], _number(where, row, "price", 50.0)
        if symbol not in DOMINANCES or symbol in self._tokens:
            raise InputError(f"{where}: dominance {symbol!r} must be one of {', '.join(DOMINANCES)}, once")
        if not 0 < price < 100:
            raise InputError(f"{where}: a dominance is a percentage above 0 and below 100, was {price:g}")
        first = _when(where, row, "first") if "first" in row else None
        self._tokens[symbol] = _Token(TokenInfo(symbol, symbol, ""), price, 1.0, first, dominance=True)

    def _move(self, where: str, row: Mapping[str, Any], symbol: str, ts: int) -> None:
        token = self._token(where, symbol)
        price = _number(where, row, "price", 0.0) if "price" in row else None
        volume = _number(where, row, "volume", 0.0) if "volume" in row else None
        if price is not None and price <= 0:
            raise InputError(f"{where}: price must be above 0, was {price:g}")
        if ts % micros(self.base_timeframe):
            raise InputError(f"{where}: ts is no close of a {self.base_timeframe} bar, so no price can move there")
        known = token.moves.get(ts, (None, None))
        if price is not None and known[0] not in (None, price):
            raise InputError(f"{where}: {symbol} has two prices at this time, {known[0]:g} and {price:g}")
        if volume is not None and known[1] not in (None, volume):
            raise InputError(f"{where}: {symbol} has two volumes at this time, {known[1]:g} and {volume:g}")
        token.moves[ts] = (known[0] if price is None else price, known[1] if volume is None else volume)

    def _token(self, where: str, symbol: str) -> _Token:
        if symbol not in self._tokens:
            raise InputError(f'{where}: symbol {symbol!r} has no line {{"token": "{symbol}"}}')
        return self._tokens[symbol]


def _path(closes: Any, token: _Token) -> tuple[Any, Any]:
    """Price and volume of the bars that close at these times."""
    columns = []
    for part, initial in enumerate((token.price, token.volume)):
        moved = sorted((ts, move[part]) for ts, move in token.moves.items() if move[part] is not None)
        levels = np.array([initial, *(value for _, value in moved)], dtype=np.float64)
        at = np.array([ts for ts, _ in moved], dtype=np.int64)
        columns.append(levels[at.searchsorted(closes, side="right")])
    return columns[0], columns[1]


def _rows(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a script: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); a script is JSON lines") from error
    found: list[tuple[str, Mapping[str, Any]]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not JSON ({error}); one JSON object per line is needed") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: {line.strip()[:40]} is no JSON object")
        found.append((f"{path}:{number}", row))
    if not found:
        raise InputError(f"{path}: the script is empty")
    return found


def _reading(where: str, row: Mapping[str, Any], symbol: str, ts: int) -> ScriptedReading:
    timeframe, state = row["timeframe"], row.get("state", "")
    if timeframe not in TIMEFRAMES or ts % micros(timeframe):
        raise InputError(f"{where}: ts must be the close of a bar of timeframe {timeframe!r} ({', '.join(TIMEFRAMES)})")
    if state not in ("", *STATES):
        raise InputError(f"{where}: state was {state!r}; it must be one of {', '.join(STATES)}")
    values: dict[str, float | bool] = {}
    for name, value in row.items():
        if name in ("symbol", "timeframe", "ts", "state", "price", "volume"):
            continue
        if name in FLAGS and isinstance(value, bool):
            values[name] = value
        elif name in SCORES:
            values[name] = _number(where, row, name, 0.0)
        elif name in FLAGS:
            raise InputError(f"{where}: {name} was {value!r}; it must be true or false")
        else:
            raise InputError(f"{where}: {name!r} is no score, average or flag that the engine measures")
    return ScriptedReading(symbol, timeframe, ts, state, values)


def _only(where: str, row: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(row) - known)
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; this line takes {', '.join(sorted(known))}")


def _number(where: str, row: Mapping[str, Any], name: str, other: float) -> float:
    value = row.get(name, other)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (name not in row or math.isfinite(value)):
        raise InputError(f"{where}: {name} was {value!r}; it must be a finite number")
    return float(value)


def _when(where: str, row: Mapping[str, Any], name: str) -> int:
    """A time of a line, microseconds UTC."""
    text = row.get(name)
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InputError(f"{where}: {name} was {text!r}; a time such as 2024-01-01T00:00:00Z is needed")
    passed = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return round(passed.total_seconds()) * 1_000_000
