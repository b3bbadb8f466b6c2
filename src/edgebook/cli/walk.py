"""Backtests from the command line: settings, feed, temporary database, progress bar."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgebook.domain.book import Trade
from edgebook.domain.errors import InputError
from edgebook.runtime import backtest as engine
from edgebook.runtime import bootstrap
from edgebook.runtime.settings import load_settings


def walk(
    bars: Path,
    signals: Path | None,
    regime_bars: Path | None,
    given: Mapping[str, Any],
    spans: tuple[int | None, int | None],
    db: str | None,
    out: Path | None,
    settings_file: Path | None,
    *,
    quiet: bool,
) -> tuple[dict[str, Any], tuple[Trade, ...]]:
    """Run one backtest; without ``db`` in a temporary embedded database."""
    if out is not None:
        _make(out)
    with tempfile.TemporaryDirectory(prefix="edgebook-") as scratch:
        url = db or f"sqlite:///{scratch}/backtest.db"
        settings = load_settings(settings_file, **given, db=url, feed=f"parquet:{bars}")
        feed = bootstrap.parquet_feed(bars, signals, regime_bars)
        store = bootstrap.open_store(url, durable=db is not None)
        bar = Progress(
            *(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%")),
            *(TimeElapsedColumn(), TimeRemainingColumn()),
            console=Console(stderr=True), disable=quiet, transient=True,
        )  # fmt: skip
        with bar:
            task = bar.add_task("backtest", total=1.0)
            found = engine.backtest(
                store, settings, feed, engine.Span(*spans), lambda share: bar.update(task, completed=share)
            )
        with store.reader() as uow:
            trades = tuple(uow.trades.values())
            if out is not None:
                files = engine.write_files(uow, found, out, settings.starting_cash_usd)
                found = {**found, "files": [str(f) for f in files]}
        return found, trades


def _make(folder: Path) -> None:
    """The folder of the report, made before the walk: a name that cannot be is said at once, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out was {folder}, which cannot be made a folder: {error.strerror}") from error
