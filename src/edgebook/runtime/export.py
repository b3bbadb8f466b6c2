"""The export of a book: which days, into which folder, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgebook.adapters.export_log import MANIFEST, export_log
from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError


def export_book(url: str, out: Path, start: int | None = None, end: int | None = None) -> dict[str, Any]:
    """Write log and units of evidence of a database as Parquet files, one a day, into the folder ``out``.

    Args:
        start, end: microseconds UTC, each the beginning of a day; the day of ``end`` is left out. None is open.

    Returns:
        ``datasets``: per dataset ``rows`` and ``days`` written, ``removed`` days, and ``total`` rows in the folder;
        ``seq`` and ``log_head`` of the newest strand, ``covered`` spans of days (``from``, ``to``, and the ``seq`` they
        are complete as of), and the path of the manifest.

    Raises:
        InputError: a time within a day, an empty period, no such database, a folder that is not an export of this book.
        PortError: the database cannot be reached.
    """
    done = export_log(url, out, _day(start, "--from"), _day(end, "--to"))
    manifest = done.manifest
    datasets = {
        name: {"rows": rows, "days": done.days[name], "removed": done.removed[name],
               "total": manifest["datasets"][name]["rows"]}
        for name, rows in done.rows.items()
    }  # fmt: skip
    told = {name: manifest[name] for name in ("seq", "log_head", "schema", "covered")}
    return {"out": str(out), "manifest": str(out / MANIFEST), "datasets": datasets, **told}


def _day(moment: int | None, option: str) -> int | None:
    """Days since 1970 of a moment that begins one."""
    if moment is None:
        return None
    day, within = divmod(moment, DAY)
    if within:
        raise InputError(f"{option} must be a day such as 2021-06-01, since whole days (UTC) are written")
    return day
