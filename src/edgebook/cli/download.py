"""`edgebook download`: bars of an exchange into files that ``backtest --bars`` and ``run --feed parquet:DIR`` read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgebook.cli.times import moment
from edgebook.domain.errors import InputError


def download(
    symbols: Annotated[str, typer.Option("--symbols", help="The venue's ids, comma-separated, e.g. SOLUSDT,WIFUSDT.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for SYMBOL-<tf>.parquet; files there are completed.")],
    begin: Annotated[str, typer.Option("--from", help="First moment, ISO.")],
    end: Annotated[str | None, typer.Option("--to", help="Last moment, ISO; default now.")] = None,
    timeframe: Annotated[str, typer.Option(help="1m, 5m, 15m, 30m, 1h, 4h or 1d.")] = "1h",
    venue: Annotated[str, typer.Option("--exchange", help="binance or binanceus.")] = "binance",
    url: Annotated[str | None, typer.Option(help="Another address of the venue's API.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Download bars of an exchange; run it again to go on after an interruption, or for what is new."""
    from edgebook.runtime.download import download_bars

    wanted = [symbol.strip() for symbol in symbols.split(",") if symbol.strip()]
    if not wanted:
        raise InputError(f"symbols were {symbols!r}; give the venue's ids, comma-separated, e.g. SOLUSDT,WIFUSDT")
    start = moment(begin, "--from")
    assert start is not None
    found = download_bars(venue, wanted, timeframe, start, moment(end, "--to"), out, url=url)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    """What was written, one line a file, and one for every candle that was refused."""
    lines = []
    for file in found["files"]:
        if not file["bars"]:
            lines.append(f"{file['symbol']}: {found['venue']} has no {found['timeframe']} candles in that span")
            continue
        counts = f"{file['bars']:,} bars, {file['added']:,} of them new, {file['missing']:,} missing in between"
        lines.append(f"{file['path']}: {counts}")
        lines += [f"  refused: {reason}" for reason in file["refused"]]
    return lines
