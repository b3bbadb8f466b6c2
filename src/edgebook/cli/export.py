"""``edgebook export``: the log and the units of evidence as Parquet files, for Spark or whatever else reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgebook.cli.times import moment


def export(
    out: Annotated[Path, typer.Option("--out", help="Folder: new, empty, or of an earlier export of this book.")],
    begin: Annotated[str | None, typer.Option("--from", help="First day (UTC), e.g. 2026-01-01.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="First day (UTC) left out.")] = None,
    db: Annotated[
        str | None, typer.Option("--db", help="Database URL; default sqlite:///edgebook.db or EDGEBOOK_DB.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the log and the units of evidence as Parquet files by day; run it again to bring them up to date."""
    from edgebook.runtime.export import export_book
    from edgebook.runtime.settings import load_settings

    found = export_book(load_settings(None, db=db).db, out, moment(begin, "--from"), moment(end, "--to"))
    typer.echo(json.dumps(found) if as_json else "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    lines = []
    for name, told in found["datasets"].items():
        gone = f", {told['removed']:,} days removed" if told["removed"] else ""
        lines.append(f"{name}: {told['rows']:,} rows in {told['days']:,} days{gone}; {told['total']:,} in the folder")
    for span in found["covered"]:
        lines.append(f"complete as of strand {span['seq']:,}: {span['from']} to before {span['to']}")
    return [*lines, *([] if found["covered"] else ["no day is complete"]), found["manifest"]]
