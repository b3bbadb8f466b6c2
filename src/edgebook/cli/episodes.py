"""``edgebook episodes``: which episodes there were, one of them in full, and what the chances say about each gate."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebook.domain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgebook.ports import UnitOfWork

Json = Any


def episodes(
    ident: Annotated[str | None, typer.Argument(help="Id of one episode, or its beginning: show that one.")] = None,
    episode_type: Annotated[str | None, typer.Option("--type", help="s1_entry or s3_retest.")] = None,
    outcome: Annotated[str | None, typer.Option(help="success, failure, missed, correct_skip, void or open.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only of this symbol.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Only of this timeframe.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many, the newest.")] = None,
    gates: Annotated[bool, typer.Option("--gates", help="What the chances say about each gate instead.")] = False,
    chart: Annotated[Path | None, typer.Option("--chart", help="Draw the episode into this .html file.")] = None,
    bars: Annotated[Path | None, typer.Option("--bars", help="SYMBOL-<tf>.parquet: its prices for the chart.")] = None,
    db: Annotated[
        str | None, typer.Option("--db", help="Database URL; default sqlite:///edgebook.db or EDGEBOOK_DB.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Episodes: how each ended, its windows, what their shadows brought, and what that says about the gates."""
    from edgebook.cli.show_episodes import show_episode, show_episodes, show_gates
    from edgebook.runtime.episode_views import episode_view, episodes_view
    from edgebook.runtime.gate_views import gates_view

    filters = {"episode_type": episode_type, "outcome": outcome, "symbol": symbol, "timeframe": timeframe}
    _check(ident, gates, chart, bars, limit is not None or any(value is not None for value in filters.values()))
    with _reading(db) as uow:
        if chart is not None and ident is not None:
            found: dict[str, Json] = _draw(uow, ident, chart, bars)
        elif ident is not None:
            found = episode_view(uow, ident)
        else:
            found = gates_view(uow) if gates else episodes_view(uow, **filters, limit=limit)
    if as_json:
        typer.echo(json.dumps(found))
    elif chart is not None:
        typer.echo(f"{found['windows']} windows, {found['shadows']} shadows\n{found['out']}")
    elif ident is not None:
        show_episode(found)
    else:
        (show_gates if gates else show_episodes)(found)


def _check(ident: str | None, gates: bool, chart: Path | None, bars: Path | None, filtered: bool) -> None:
    """Options that contradict each other are refused."""
    if ident is not None and (gates or filtered):
        raise InputError(f"one episode was asked for, {ident!r}; leave --gates and the filters out")
    if gates and filtered:
        raise InputError("--gates is about all episodes; leave the filters out")
    if chart is not None and ident is None:
        raise InputError(f"--chart was {chart}, but no episode was named; give its id")
    if bars is not None and chart is None:
        raise InputError(f"--bars was {bars}; bars are for the chart alone, give --chart as well")


@contextmanager
def _reading(db: str | None) -> Iterator[UnitOfWork]:
    """A read-only view of the database."""
    from edgebook.runtime.bootstrap import open_store
    from edgebook.runtime.settings import load_settings

    with open_store(load_settings(None, db=db).db).reader() as uow:
        yield uow


def _draw(uow: UnitOfWork, ident: str, out: Path, bars: Path | None) -> dict[str, Json]:
    from edgebook.cli.chart import check_out, write_whole
    from edgebook.runtime.chart.episode import episode_page
    from edgebook.runtime.chart.facts import read_bars
    from edgebook.runtime.episodes import chances, find_episode

    check_out(out, "--chart", (".html",))
    episode = find_episode(uow, ident)
    known = chances(uow, episode)
    series = read_bars(bars, episode.timeframe) if bars is not None else None
    write_whole(out, episode_page(episode, known, series).encode(), "--chart")
    shadows = sum(chance.shadow is not None for chance in known)
    return {"id": episode.id, "windows": len(known), "shadows": shadows, "out": str(out)}
