"""Recompute every closed trade of a finished run from its fills and the bars, and compare with what the system booked.

    python tools/recompute_trades.py RUN BARS

RUN is a SQLite database, or a folder written by ``edgebook backtest --out``; BARS the folder of
``SYMBOL-<timeframe>.parquet`` it was run on. Nothing of edgebook is imported: money, bars, ATR, drawdown and rr are
worked out anew from their definitions, with SQL and plain loops. Exit code 1 when a number differs by more than 1e-9 of
itself, 2 for bad input.

Definitions: a fill is worth quantity * price, to 1e-6 USD, the fee on top of a buy and off a sale; ``pnl`` = sales -
buys, ``roi`` = pnl / buys. A rest that a venue took no sale of (``rest_written_off``; only databases tell of it, a
folder holds a run on paper) counts in ``roi`` at the decision price of that sale, and ends the trade. The entry is the
average price of all buys without fees. ``max_drawdown`` = (entry - lowest low) / entry, not below 0, over bars of the
trade's timeframe that open after the first fill and close by the end of the trade, its last fill or rest. ``r_floor``
= max(1 %, ATR / entry), .5 % below 15m, with Wilder's ATR(14) of the last bar closed at the first fill. ``rr`` = roi /
max(max_drawdown, r_floor), between -3 and 10.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

TOLERANCE = 1e-9
USD = Decimal("0.000001")
MINUTE = 60_000_000
MICROS = {"m": MINUTE, "h": 60 * MINUTE, "d": 1440 * MINUTE}
COMPARED = ("pnl_usd", "fees_usd", "roi", "max_drawdown", "r_floor", "rr")


class Fill(NamedTuple):
    """One fill as recorded; time in microseconds UTC."""

    trade_id: str
    ts: int
    side: str
    quantity: Decimal
    price: Decimal
    fee: Decimal


class Rest(NamedTuple):
    """A rest that was given up: when (microseconds UTC), what was left to sell, at which price."""

    ts: int
    quantity: Decimal
    price: Decimal


class Candles(NamedTuple):
    """Bars of one symbol and timeframe: open times, lows, and the ATR known at each bar's close."""

    ts_open: Any
    low: Any
    atr: Any


def main(given: Sequence[str]) -> int:
    """Compare and print; 0 when all agree, 1 when not, 2 for bad input."""
    if len(given) != 2 or not all(Path(name).exists() for name in given):
        print("usage: python tools/recompute_trades.py DATABASE.db|FOLDER BARS_FOLDER", file=sys.stderr)
        return 2
    run, bars = map(Path, given)
    try:
        fills, booked = from_folder(run) if run.is_dir() else from_database(run)
        found = recompute(fills, booked, bars, {} if run.is_dir() else given_up(run))
    except (sqlite3.Error, duckdb.Error, ValueError) as error:
        print(f"cannot recompute {run} with {bars}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    theirs = sum(fill.trade_id in booked for fill in fills)
    print(f"{len(booked)} closed trades, {theirs} fills of theirs, {len(fills) - theirs} of trades still open")
    return report(found, booked)


def from_database(path: Path) -> tuple[list[Fill], dict[str, dict[str, Any]]]:
    """Fills and closed trades from the strands of the log."""
    query = "SELECT trade_id, symbol, timeframe, ts_event, content FROM ad_strands WHERE kind = ? ORDER BY seq"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        filled, closed = (connection.execute(query, [k]).fetchall() for k in ("order_filled", "position_closed"))
    connection.close()
    fills = []
    for trade_id, _, _, ts, text in filled:
        row = json.loads(text, parse_float=Decimal)
        numbers = (Decimal(row[name]) for name in ("quantity", "price", "fee_usd"))
        fills.append(Fill(trade_id, ts, row["side"], *numbers))
    booked = {
        trade_id: {"symbol": symbol, "timeframe": timeframe, **json.loads(text)["summary"]}
        for trade_id, symbol, timeframe, _, text in closed
    }
    return fills, booked


def given_up(path: Path) -> dict[str, list[Rest]]:
    """Rests that were given up, by trade id: each follows from a refusal, and that from the sale that was planned."""
    query = """
        SELECT refused.trade_id, status.ts_event, sale.content
        FROM ad_strands status JOIN ad_strands refused ON refused.id = status.causation_id
        JOIN ad_strands sale ON sale.id = refused.causation_id
        WHERE status.kind = 'position_status' AND json_extract(status.content, '$.reason') = 'rest_written_off'
        ORDER BY status.seq"""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        rows = connection.execute(query).fetchall()
    connection.close()
    rests: dict[str, list[Rest]] = {}
    for trade_id, ts, text in rows:
        sale = json.loads(text, parse_float=Decimal)
        rests.setdefault(trade_id, []).append(Rest(ts, Decimal(sale["quantity"]), Decimal(sale["price"])))
    return rests


def from_folder(path: Path) -> tuple[list[Fill], dict[str, dict[str, Any]]]:
    """Fills and closed trades from ``fills.parquet`` and ``trades.parquet``."""
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT trade_id, epoch_us(ts), side, quantity, price, fee_usd FROM read_parquet(?)",
            [str(path / "fills.parquet")],
        ).fetchall()
        fills = [Fill(t, ts, side, q, Decimal(repr(price)), fee) for t, ts, side, q, price, fee in rows]
        names = ("trade_id", "symbol", "timeframe", *COMPARED)
        query = f"SELECT {', '.join(names)} FROM read_parquet(?)"
        closed = connection.execute(query, [str(path / "trades.parquet")]).fetchall()
    return fills, {row[0]: dict(zip(names, row, strict=True)) for row in closed}


def recompute(
    fills: Iterable[Fill],
    booked: Mapping[str, Mapping[str, Any]],
    bars: Path,
    rests: Mapping[str, Sequence[Rest]] | None = None,
) -> dict[str, dict[str, float | Decimal]]:
    """Each booked trade's numbers, by trade id, from its fills and the bars."""
    legs: dict[str, list[Fill]] = {trade_id: [] for trade_id in booked}
    for fill in fills:
        if fill.trade_id in legs:
            legs[fill.trade_id].append(fill)
    series: dict[tuple[str, str], Candles] = {}
    found = {}
    for trade_id, trade in booked.items():
        key = (trade["symbol"], trade["timeframe"])
        if key not in series:
            series[key] = candles(bars, *key)
        found[trade_id] = one_trade(legs[trade_id], series[key], length(key[1]), (rests or {}).get(trade_id, ()))
    return found


def one_trade(legs: Sequence[Fill], bars: Candles, step: int, rests: Sequence[Rest] = ()) -> dict[str, float | Decimal]:
    """Numbers of one trade."""
    if not legs:
        raise ValueError("a closed trade has no fills")
    buys = [fill for fill in legs if fill.side == "buy"]
    sales = [fill for fill in legs if fill.side == "sell"]
    paid = sum(((f.quantity * f.price).quantize(USD) + f.fee for f in buys), Decimal(0))
    got = sum(((f.quantity * f.price).quantize(USD) - f.fee for f in sales), Decimal(0))
    entry = float(sum(f.quantity * f.price for f in buys) / sum(f.quantity for f in buys))
    left = sum(((rest.quantity * rest.price).quantize(USD) for rest in rests), Decimal(0))
    first, last = legs[0].ts, max([legs[-1].ts, *(rest.ts for rest in rests)])
    lows = bars.low[(bars.ts_open > first) & (bars.ts_open + step <= last)]
    drawdown = max(0.0, (entry - lows.min()) / entry) if len(lows) else 0.0
    atr = bars.atr[np.flatnonzero(bars.ts_open + step <= first)[-1]]
    floor = max(0.005 if step < 15 * MINUTE else 0.01, atr / entry)
    roi = float((got - paid + left) / paid)
    return {
        "pnl_usd": got - paid,
        "fees_usd": sum((f.fee for f in legs), Decimal(0)),
        "roi": roi,
        "max_drawdown": drawdown,
        "r_floor": floor,
        "rr": min(10.0, max(-3.0, roi / max(drawdown, floor))),
    }


def candles(bars: Path, symbol: str, timeframe: str) -> Candles:
    """Bars of a timeframe from the one recorded file of ``symbol``: buckets at least half full, gaps left as gaps.

    Times are timestamps, or integers since 1970 of which the first sixteen digits are microseconds.
    """
    files = list(bars.glob(f"{symbol}-*.parquet"))
    if len(files) != 1:
        raise ValueError(f"{len(files)} bar files of {symbol}; one {symbol}-<timeframe>.parquet is needed")
    step = length(timeframe)
    full = step // length(files[0].stem.rpartition("-")[2])
    with duckdb.connect() as connection:
        kind = connection.execute("SELECT typeof(timestamp) FROM read_parquet(?) LIMIT 1", [str(files[0])]).fetchone()
        plain = kind is not None and kind[0].startswith("TIMESTAMP")
        time = "epoch_us(timestamp)" if plain else "rpad(left(timestamp::VARCHAR, 16), 16, '0')::BIGINT"
        query = f"""
            WITH bars AS (SELECT {time} AS t, high, low, close FROM read_parquet(?))
            SELECT t // ? * ? AS bucket, max(high), min(low), arg_max(close, t)
            FROM bars GROUP BY bucket HAVING count(*) * 2 >= ? ORDER BY bucket"""
        rows = connection.execute(query, [str(files[0]), step, step, full]).fetchall()
    ts_open, high, low, close = zip(*rows, strict=True)
    return Candles(np.array(ts_open), np.array(low), np.array(wilder_atr(high, low, close)))


def wilder_atr(high: Sequence[float], low: Sequence[float], close: Sequence[float], period: int = 14) -> list[float]:
    """Wilder's average true range: the mean of the first ``period`` ranges, then (13 * before + range) / 14."""
    ranges = [max(h, before) - min(lo, before) for h, lo, before in zip(high[1:], low[1:], close[:-1], strict=True)]
    out = [float("nan")] * min(period, len(high))
    for i, true_range in enumerate(ranges):
        if i == period - 1:
            out.append(sum(ranges[:period]) / period)
        elif i >= period:
            out.append((out[-1] * (period - 1) + true_range) / period)
    return out


def length(timeframe: str) -> int:
    """Microseconds of a timeframe such as ``15m``."""
    return int(timeframe[:-1]) * MICROS[timeframe[-1]]


def report(found: Mapping[str, Mapping[str, Any]], booked: Mapping[str, Mapping[str, Any]]) -> int:
    """Print the largest difference of each number; 1 if one is above the tolerance."""
    worst = 0.0
    print(f"{'number':<14}{'largest difference':>20}{'of itself':>14}   trade")
    for name in COMPARED:
        gaps = [
            (abs(float(numbers[name]) - float(booked[trade][name])), abs(float(booked[trade][name])), trade)
            for trade, numbers in found.items()
        ]
        relative = max((gap / size if size else (0.0 if not gap else float("inf")) for gap, size, _ in gaps), default=0)
        gap, _, trade = max(gaps, default=(0.0, 0.0, "-"))
        print(f"{name:<14}{gap:>20.3g}{relative:>14.3g}   {trade if gap else '-'}")
        worst = max(worst, relative)
    agree = worst <= TOLERANCE
    print(f"{'all agree' if agree else 'DIFFERENT'}: largest relative difference {worst:.3g}, allowed {TOLERANCE:g}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
