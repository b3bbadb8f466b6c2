"""``edgebook flow``: the flow campaign, from bring-up to parity, against a really started system."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from edgebook.cli.show import console, table
from edgebook.domain.errors import InputError

if TYPE_CHECKING:
    from edgebook.flow.observe import Fate, Health


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
    watched: Annotated[
        bool,
        typer.Option("--observe", help="Read-only: where the last packets of your own system (--db) are, or died."),
    ] = False,
    last: Annotated[int, typer.Option(min=1, help="How many packets to observe.")] = 10,
    listed: Annotated[bool, typer.Option("--list", help="Say which scenarios there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Start the system, inject packets, only query: each arrives, or died at a stage. Exit code 1 if any died."""
    if watched:
        if scenarios or out is not None:
            raise InputError("--observe looks at your own system: it takes no scenario and no --out")
        _observe(db, last, as_json=as_json)
    elif listed:
        _list(scenarios or (), as_json=as_json)
    else:
        _campaign(scenarios or (), db or ("sqlite",), out, as_json=as_json)


def _list(names: Sequence[str], *, as_json: bool) -> None:
    from edgebook.flow.campaign import chosen_scenarios

    rows = [(one.name, one.title) for one in chosen_scenarios(names)]
    told = [{"scenario": name, "title": title} for name, title in rows]
    typer.echo(json.dumps(told)) if as_json else console().print(table("scenarios", ("name", "what"), rows))


def _campaign(names: Sequence[str], places: Sequence[str], out: Path | None, *, as_json: bool) -> None:
    """Run scenarios on each database; exit code 1 if any packet died."""
    from edgebook import __version__
    from edgebook.flow.campaign import Outcome, run_campaign
    from edgebook.flow.transcript import make_folder, write

    lines = console()

    def tell(one: Outcome) -> None:
        if not as_json:
            end = one.verdict if one.verdict == "arrived" else one.why
            text = f"{one.scenario:4} {one.db:10} {len(one.findings):3} stages {one.wall_s:6.1f} s  {end}"
            lines.print(text, soft_wrap=True, markup=False, highlight=False)

    if out is not None:
        make_folder(out)
    with _ended_by_signals():
        outcomes = [one for place in places for one in run_campaign(names, place, told=tell)]
    head = f"Run on {datetime.now(UTC):%Y-%m-%d} with edgebook {__version__}: "
    files = write(outcomes, out, head) if out is not None else []
    died = sum(one.verdict == "died" for one in outcomes)
    if as_json:
        typer.echo(json.dumps([one.row() for one in outcomes]))
    else:
        written = f"; {len(files)} files in {out}" if files else ""
        text = f"{len(outcomes) - died} of {len(outcomes)} arrived{written}"
        lines.print(text, markup=False, highlight=False)
    if died:
        raise typer.Exit(1)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the campaign as Ctrl-C does: its system is ended, its databases are dropped."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _observe(db: list[str] | None, last: int, *, as_json: bool) -> None:
    """The packets of a running (or stopped) system; exit code 1 if any died."""
    from edgebook.flow.observe import observe
    from edgebook.runtime.settings import load_settings

    if db is not None and len(db) > 1:
        raise InputError(f"--observe looks at one database, was given {len(db)}")
    health, fates = observe(load_settings(None, db=db[0] if db else None).db, last)
    if as_json:
        told = {"clock": health.clock, "failed_jobs": [list(row) for row in health.failed_jobs]}
        dead = {str(stage): int(count) for stage, count in health.dead_letters}
        typer.echo(json.dumps(told | {"dead_letters": dead, "packets": [fate.row() for fate in fates]}))
    else:
        _show_fates(health, fates)
    if any(fate.verdict == "died" for fate in fates):
        raise typer.Exit(1)


def _show_fates(health: Health, fates: list[Fate]) -> None:
    from edgebook.flow.story import iso

    out = console()
    rows = [
        (iso(f.ts), f.packet[:8], f.curator, f.symbol, f.reached, f.verdict + (f" at {f.at}" if f.at else ""), f.why)
        for f in fates
    ]
    out.print(table("packets", ("time", "packet", "curator", "symbol", "reached", "verdict", "why"), rows))
    for fate in fates:
        if fate.verdict == "died":
            text = f"packet {fate.packet} died at {fate.at}: {fate.why}: {fate.query}"
            out.print(text, soft_wrap=True, markup=False, highlight=False)
    letters = ", ".join(f"{count} at {stage}" for stage, count in health.dead_letters) or "none"
    jobs = ", ".join(f"{name} ({error})" for name, error in health.failed_jobs) or "none"
    text = f"clock {iso(health.clock)}; jobs that failed at their last slot: {jobs}; dead letters: {letters}"
    out.print(text, soft_wrap=True, markup=False, highlight=False)
