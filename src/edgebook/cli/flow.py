"""``edgebook flow``: the flow campaign, from bring-up to parity, against a really started system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgebook.cli.show import console, table


def flow(
    scenarios: Annotated[
        list[str] | None, typer.Argument(help="Scenarios such as F1 F7 (see --list); all without any.")
    ] = None,
    db: Annotated[
        list[str] | None,
        typer.Option(
            "--db",
            help="sqlite (files of its own), or postgresql://USER@HOST/NAME where databases may be made. Repeatable.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for transcripts, checklists and what moved.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Say which scenarios there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Start the system, inject packets, only query: each arrives, or died at a stage. Exit code 1 if any died."""
    from edgebook.flow.campaign import Outcome, chosen_scenarios, run_campaign
    from edgebook.flow.transcript import write

    chosen = chosen_scenarios(scenarios or ())
    if listed:
        rows = [(one.name, one.title) for one in chosen]
        names = [{"scenario": name, "title": title} for name, title in rows]
        typer.echo(json.dumps(names)) if as_json else console().print(table("scenarios", ("name", "what"), rows))
        return
    lines = console()

    def tell(one: Outcome) -> None:
        if not as_json:
            end = one.verdict if one.verdict == "arrived" else one.why
            text = f"{one.scenario:4} {one.db:10} {len(one.findings):3} stages {one.wall_s:6.1f} s  {end}"
            lines.print(text, soft_wrap=True, markup=False, highlight=False)

    outcomes = [one for place in db or ("sqlite",) for one in run_campaign([s.name for s in chosen], place, told=tell)]
    files = write(outcomes, out) if out is not None else []
    if as_json:
        typer.echo(json.dumps([one.row() for one in outcomes]))
    else:
        died = sum(one.verdict == "died" for one in outcomes)
        text = f"{len(outcomes) - died} of {len(outcomes)} arrived" + (
            f"; {len(files)} files in {out}" if files else ""
        )
        lines.print(text, markup=False, highlight=False)
    if any(one.verdict == "died" for one in outcomes):
        raise typer.Exit(1)
