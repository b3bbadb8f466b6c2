"""Closed trades of a freqtrade bot, from the SQLite file it keeps, whatever version wrote it (learning.md 1, rr).

``rr = clip(close_profit / risk, -3, 10)``. The risk is the initial stop's distance where there is a sane one, else the
drawdown the trade went through down to its ``min_rate`` (a short: up to its ``max_rate``), at least 1 %, else that 1 %
alone. All three are shares of the stake, leverage included, as ``close_profit`` is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.errors import InputError

RR_MIN, RR_MAX = -3.0, 10.0
RISK_FLOOR = 0.01
#: A stop nearer than this is a rounding error, one further away is a switch that says "no stop" (-99 % is common).
STOP_SANE = (0.001, 0.5)
DIMS = ("base", "quote", "timeframe", "strategy", "enter_tag", "side")
#: What we call it -> what versions of freqtrade have called it, the newest first.
_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "pair": ("pair",),
    "is_open": ("is_open",),
    "open_date": ("open_date",),
    "close_date": ("close_date",),
    "open_rate": ("open_rate",),
    "close_profit": ("close_profit",),
    "close_profit_abs": ("close_profit_abs",),
    "stop_pct": ("initial_stop_loss_pct",),
    "stop": ("initial_stop_loss",),
    "min_rate": ("min_rate",),
    "max_rate": ("max_rate",),
    "enter_tag": ("enter_tag", "buy_tag"),
    "exit_reason": ("exit_reason", "sell_reason"),
    "timeframe": ("timeframe", "ticker_interval"),
    "strategy": ("strategy",),
    "is_short": ("is_short",),
    "leverage": ("leverage",),
}
_NEEDED = ("id", "pair", "is_open", "open_date", "close_date", "open_rate", "close_profit")


class FreqtradeTrades(NamedTuple):
    """TRADES columns, and what was done: trades read, still open, unusable (closed without a profit), and how many took
    their risk from which source."""

    columns: dict[str, NDArray[Any]]
    closed: int
    still_open: int
    unusable: int
    risk: dict[str, int]


def read_freqtrade(path: Path) -> FreqtradeTrades:
    """The closed trades of the table ``trades``, in order of id; the file is opened read-only.

    Raises:
        InputError: no such file, no SQLite file, no freqtrade ``trades`` table, or a row that cannot be.
    """
    rows = _rows(path)
    made: dict[str, list[Any]] = {name: [] for name in (*_COLUMNS, *DIMS)}
    risk = dict.fromkeys(("stop", "drawdown", "floor"), 0)
    still_open = unusable = 0
    for row in rows:
        if row["is_open"] or row["close_date"] is None:
            still_open += 1
        elif row["close_profit"] is None:
            unusable += 1
        else:
            for name, value in _trade(row, path).items():
                made[name].append(value)
            risk[made["risk_source"][-1]] += 1
    columns = {name: _array(name, values) for name, values in made.items()}
    return FreqtradeTrades(columns, len(made["rr"]), still_open, unusable, risk)


_COLUMNS = ("trade_id", "opened_at", "closed_at", "rr", "roi", "pnl", "token", "exit_reason", "risk", "risk_source")
_NUMBERS = ("rr", "roi", "pnl", "risk")


def _array(name: str, values: list[Any]) -> NDArray[Any]:
    if name in _NUMBERS:
        return np.array([np.nan if value is None else value for value in values], dtype=float)
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made.astype("datetime64[us]") if name in ("opened_at", "closed_at") else made


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the SQLite file of a freqtrade bot")
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
        try:
            known = {row[1] for row in connection.execute("PRAGMA table_info(trades)")}
            chosen = {ours: next((n for n in names if n in known), None) for ours, names in _NAMES.items()}
            absent = [ours for ours in _NEEDED if chosen[ours] is None]
            if absent:
                told = f"it lacks column {absent[0]}" if known else "there is no table trades"
                raise InputError(f"{path}: not the database of a freqtrade bot: {told}")
            parts = ", ".join(f"{theirs or 'NULL'} AS {ours}" for ours, theirs in chosen.items())
            fetched = connection.execute(f"SELECT {parts} FROM trades ORDER BY id")
            return [dict(zip(_NAMES, row, strict=True)) for row in fetched]
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InputError(f"{path}: not a readable SQLite file: {error}") from error


def _trade(row: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if row["id"] is None:
        raise InputError(f"{path}: a trade of {row['pair']} opened {row['open_date']} has no id; every trade needs one")
    where = f"{path}: trade {row['id']}"
    profit, entry = _number(row, "close_profit", where), _number(row, "open_rate", where)
    if entry is None or profit is None or entry <= 0:
        raise InputError(f"{where}: open_rate is {row['open_rate']!r}; it must be positive")
    risk, source = _risk(row, entry, where)
    base, quote_currency = split_pair(str(row["pair"]))
    opened, closed = (_time(row, name, where) for name in ("open_date", "close_date"))
    if closed < opened:
        raise InputError(f"{where}: close_date {row['close_date']} is before open_date {row['open_date']}")
    return {
        "trade_id": str(row["id"]),
        "opened_at": opened,
        "closed_at": closed,
        "rr": min(RR_MAX, max(RR_MIN, profit / risk)),
        "roi": profit,
        "pnl": _number(row, "close_profit_abs", where),
        "token": str(row["pair"]),
        "exit_reason": row["exit_reason"],
        "risk": risk,
        "risk_source": source,
        "base": base,
        "quote": quote_currency,
        "timeframe": _timeframe(row["timeframe"]),
        "strategy": row["strategy"],
        "enter_tag": row["enter_tag"],
        "side": "short" if row["is_short"] else "long",
    }


def _risk(row: Mapping[str, Any], entry: float, where: str) -> tuple[float, str]:
    """Share of the stake that was at risk, and where it comes from: ``stop``, ``drawdown`` or ``floor``."""
    leverage = _number(row, "leverage", where) or 1.0
    percent, stop = _number(row, "stop_pct", where), _number(row, "stop", where)
    distance = abs(percent) if percent else abs(entry - stop) / entry * leverage if stop else 0.0
    if STOP_SANE[0] <= distance <= STOP_SANE[1]:
        return distance, "stop"
    worst = _number(row, "max_rate" if row["is_short"] else "min_rate", where)
    if not worst:
        return RISK_FLOOR, "floor"
    drawdown = (worst - entry if row["is_short"] else entry - worst) / entry * leverage
    return max(RISK_FLOOR, drawdown), "drawdown"


def split_pair(pair: str) -> tuple[str, str]:
    """Base and quote of a pair in freqtrade's writing.

    >>> split_pair("ETH/USDT"), split_pair("BTC/USDT:USDT"), split_pair("odd")
    (('ETH', 'USDT'), ('BTC', 'USDT'), ('odd', ''))
    """
    base, _, rest = pair.partition("/")
    return base, rest.partition(":")[0]


def _timeframe(value: Any) -> str | None:
    """Minutes as a label such as ``4h``; text stays."""
    if not isinstance(value, int) or value <= 0:
        return None if value is None else str(value)
    for minutes, unit in ((1440, "d"), (60, "h")):
        if value % minutes == 0:
            return f"{value // minutes}{unit}"
    return f"{value}m"


def _number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    value = row[name]
    if value is None:
        return None
    if isinstance(value, str | bytes) or not np.isfinite(value):
        raise InputError(f"{where}: {name} is {value!r}; it must be a finite number")
    return float(value)


def _time(row: Mapping[str, Any], name: str, where: str) -> np.datetime64:
    """A date as freqtrade writes it: ISO text, UTC where it names no other zone."""
    date, _, rest = str(row[name]).strip().replace(" ", "T", 1).partition("T")
    try:
        when = datetime.fromisoformat(f"{date}T{rest.replace(' ', '')}" if rest else date)
        return np.datetime64((when.astimezone(UTC) if when.tzinfo else when).replace(tzinfo=None), "us")
    except ValueError:
        right = "a date such as 2024-01-31 12:00:00"
        raise InputError(f"{where}: {name} is {row[name]!r}; it must be {right}") from None
