"""Downloading bars: which venue, which files, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebook.adapters.feeds.exchange import download
from edgebook.adapters.venue import connect


def download_bars(
    venue: str,
    symbols: Sequence[str],
    timeframe: str,
    start: int,
    end: int | None,
    out: Path,
    *,
    url: str | None = None,
) -> dict[str, Any]:
    """Write bars of ``symbols`` from ``venue`` into the folder ``out``; no credentials are needed.

    Args:
        start, end: microseconds UTC; without ``end`` up to the last closed candle.
        url: another address of the venue's API.

    Returns:
        ``files``: per symbol its path, bars, bars added, candles missing, and candles refused with their reasons.

    Raises:
        InputError: an unknown venue or symbol, ccxt is not installed, an empty span, a folder that cannot be written.
        PortError: the venue did not answer; what was read is kept, run it again.
    """
    asked = connect(venue, url=url)
    done = download(asked, symbols, timeframe, start, end if end is not None else asked.time(), out)
    files = [
        {"symbol": d.symbol, "path": str(d.path), "bars": d.bars, "added": d.added, "missing": d.missing,
         "refused": list(d.faults)}
        for d in done
    ]  # fmt: skip
    return {"venue": venue, "timeframe": timeframe, "files": files}
