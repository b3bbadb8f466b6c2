"""Charts from the command line: which form, whether it can be written, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgebook.domain.errors import InputError
from edgebook.runtime.chart.facts import Chart, counts, gather, moment_text, read_bars
from edgebook.runtime.chart.layout import reading_notes


def draw(bars: Path, out: Path, span: tuple[int | None, int | None], timeframe: str | None) -> dict[str, Any]:
    """Draw the bars of one file into ``out`` (.html or .png); returns the figures of the chart and the path.

    Raises:
        InputError: nothing can be drawn or written; then nothing has been.
    """
    begin, end = span
    check_out(out, "--out", (".html", ".png"))
    if begin is not None and end is not None and begin >= end:
        raise InputError(f"--from {moment_text(begin)} must be before --to {moment_text(end)}")
    series, own = read_bars(bars, timeframe), bars.stem.rpartition("-")[2]
    chart = gather(series, begin, end, base=own)
    write_whole(out, _rendered(chart, out.suffix.lower()), "--out")
    found = counts(chart)
    return {**found, "notes": [*found["notes"], *reading_notes(chart)], "out": str(out)}


def chart_lines(found: dict[str, Any]) -> list[str]:
    """The figures of a chart as lines to print."""
    states = ", ".join(f"{name} {n:,}" for name, n in found["states"].items() if n)
    flags = ", ".join(f"{name} {n:,}" for name, n in found["flags"].items() if n) or "none"
    windows = ", ".join(f"{name} {w['n']:,} ({w['bought']:,} with the flag up)" for name, w in found["windows"].items())
    levels = ", ".join(f"{name} {n:,}" for name, n in found["levels"].items())
    span = f"{found['from']} to {found['to']} UTC"
    return [
        f"{found['symbol']} {found['timeframe']}, {span}: {found['bars']:,} bars after {found['history']:,} of history",
        f"bars by state: {states}",
        f"bars by flag:  {flags}",
        f"buy windows:   {windows}",
        f"levels:        {levels}",
        *(f"note: {note}" for note in found["notes"]),
        found["out"],
    ]


def check_out(out: Path, option: str, endings: tuple[str, ...]) -> None:
    """Refuse a file that cannot be written, before anything is drawn.

    Raises:
        InputError: another ending, no folder for it, or a folder of that name.
    """
    if out.suffix.lower() not in endings:
        raise InputError(f"{option} was {out}; its name must end in {' or '.join(endings)}")
    if not out.parent.is_dir():
        raise InputError(f"{option} was {out}, but there is no folder {out.parent}; make it first")
    if out.is_dir():
        raise InputError(f"{option} was {out}, which is a folder; give the name of a file")


def _rendered(chart: Chart, suffix: str) -> bytes:
    if suffix == ".png":
        from edgebook.runtime.chart.picture import picture

        return picture(chart)
    from edgebook.runtime.chart.page import page

    return page(chart).encode()


def write_whole(out: Path, content: bytes, option: str) -> None:
    """Write beside ``out`` and move into place, so that a reader never meets half a file.

    Raises:
        InputError: it cannot be written; the message names ``option``.
    """
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{option}: cannot write {out}: {error.strerror}") from error
