"""The files of ``edgebook backtest --out``: the report as JSON and as a page, trades and fills as tables, a plot."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgebook.adapters.export import ExportColumn, write_parquet
from edgebook.domain.book import Trade
from edgebook.domain.errors import InputError
from edgebook.domain.strands import PositionClosed, Strand
from edgebook.ports import UnitOfWork
from edgebook.runtime.report.equity import Fill, fill_of
from edgebook.runtime.report.page import page

CSV_COLUMNS = (
    *("trade_id", "symbol", "timeframe", "curator_id", "opened_at", "closed_at", "invested_usd", "pnl_usd", "fees_usd"),
    *("roi", "rr", "exit_reason", "actions"),
)
_SUMMARY = (
    *("entry_price", "exit_price", "invested_usd", "extracted_usd", "pnl_usd", "fees_usd", "roi", "rr", "rr_raw"),
    *("r_floor", "max_drawdown", "max_gain", "hold_days"),
)
_FILL_COLUMNS = {
    "ts": "time",
    "trade_id": "text",
    "position_id": "text",
    "symbol": "text",
    "timeframe": "text",
    "side": "text",
    "decision_type": "text",
    "rule": "integer",
    "quantity": "decimal",
    "price": "float",
    "fee_usd": "decimal",
    "slippage_bps": "float",
    "partial": "flag",
    "strand_id": "text",
}


def write_files(uow: UnitOfWork, found: dict[str, Any], directory: Path, starting_cash: float) -> list[Path]:
    """Write a finished run into ``directory``; returns the files.

    ``report.html`` (one page, needs nothing else), ``report.json``, ``trades.csv``, ``trades.parquet``,
    ``fills.parquet``, ``equity.png``.

    Raises:
        InputError: the directory cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        report = directory / "report.json"
        report.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise InputError(f"--out {directory}: {error.strerror}; give a folder that can be written to") from error
    html = directory / "report.html"
    html.write_text(page(found), encoding="utf-8")
    trades = sorted(uow.trades.values(), key=lambda t: (t.closed_at, t.trade_id))
    table = _write_csv(directory / "trades.csv", trades)
    closed = sorted(uow.log.read(0, ["position_closed"]), key=lambda s: (s.ts_event, s.trade_id))
    parquet = write_parquet(directory / "trades.parquet", trade_columns(closed))
    fills = write_parquet(directory / "fills.parquet", fill_columns(map(fill_of, uow.log.read(0, ["order_filled"]))))
    plot = _plot(directory / "equity.png", found, starting_cash)
    return [html, report, table, parquet, fills, plot]


def trade_columns(closed: Sequence[Strand]) -> dict[str, ExportColumn]:
    """``trades.parquet``: one row per closed trade, its outcome, its first pattern, and one column per scope dimension.

    Money is a float here, for arithmetic without ado; ``fills.parquet`` has exact decimals. Dimensions are text.
    """
    payloads = [strand.payload for strand in closed if isinstance(strand.payload, PositionClosed)]
    first = [payload.actions[0] for payload in payloads]
    columns = {
        "trade_id": ExportColumn("text", [s.trade_id for s in closed]),
        "symbol": ExportColumn("text", [s.symbol for s in closed]),
        "timeframe": ExportColumn("text", [s.timeframe for s in closed]),
        "curator_id": ExportColumn("text", [p.curator_id for p in payloads]),
        "rule": ExportColumn("integer", [a.rule for a in first]),
        "pattern_key": ExportColumn("text", [a.pattern_key for a in first]),
        "action_category": ExportColumn("text", [a.action_category for a in first]),
        "opened_at": ExportColumn("time", [p.summary.entry_ts for p in payloads]),
        "closed_at": ExportColumn("time", [s.ts_event for s in closed]),
        **{name: ExportColumn("float", [getattr(p.summary, name) for p in payloads]) for name in _SUMMARY},
        "exit_reason": ExportColumn("text", [p.exit_reason for p in payloads]),
        "actions": ExportColumn("integer", [len(p.actions) for p in payloads]),
        "arm": ExportColumn("text", [s.arm for s in closed]),
        "decision_id": ExportColumn("text", [p.decision_id for p in payloads]),
        "position_id": ExportColumn("text", [s.position_id for s in closed]),
        "strand_id": ExportColumn("text", [s.id for s in closed]),
    }
    dims = sorted({dim for action in first for dim in action.scope} - set(columns))
    return columns | {dim: ExportColumn("text", [a.scope.get(dim) for a in first]) for dim in dims}


def fill_columns(fills: Iterable[Fill]) -> dict[str, ExportColumn]:
    """``fills.parquet``: every fill, in the order of the log; quantity and fee are exact decimals."""
    rows = list(fills)
    return {name: ExportColumn(kind, [getattr(row, name) for row in rows]) for name, kind in _FILL_COLUMNS.items()}


def _write_csv(path: Path, trades: Sequence[Trade]) -> Path:
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(CSV_COLUMNS)
        writer.writerows([getattr(trade, name) for name in CSV_COLUMNS] for trade in trades)
    return path


def _plot(path: Path, found: dict[str, Any], starting_cash: float) -> Path:
    """Value of the account and its drawdown, day by day, as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    daily = found["metrics"]["daily"]
    times, equity = np.array(daily["at"], dtype="datetime64[s]"), np.array(daily["equity_usd"])
    drawdown = 100 * (equity / np.maximum.accumulate(equity) - 1)
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot(times, equity, color="#1f5fa8", lw=1.2)
    top.axhline(starting_cash, color="#98a2b3", lw=0.8, ls="--")
    top.set_ylabel("account, USD")
    top.yaxis.set_major_formatter("{x:,.0f}")
    top.set_title(f"{found['trades']['n']:,} closed trades, account marked to market daily", loc="left", fontsize=11)
    bottom.fill_between(times, drawdown, 0, color="#c03a36", alpha=0.55, lw=0)
    bottom.set_ylabel("drawdown, %")
    for axes in (top, bottom):
        axes.grid(color="#1d2939", alpha=0.08)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    return path
