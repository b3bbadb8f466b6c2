"""``edgebook backtest --check-lookahead``: run the analysis, write it, print it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from edgebook.cli.show import console, table
from edgebook.runtime import bootstrap
from edgebook.runtime.backtest import Span
from edgebook.runtime.lookahead.check import check_lookahead
from edgebook.runtime.settings import load_settings

Json = Any
PARTS = (
    ("engine", "engine: every column, flag and event of every bar"),
    ("tape", "tape: regime, readings, events, marks, volumes"),
    ("log", "log: ids and hashes of strands"),
)


def check(
    bars: Path,
    signals: Path | None,
    regime_bars: Path | None,
    given: Mapping[str, Any],
    spans: tuple[int | None, int | None],
    out: Path | None,
    settings_file: Path | None,
    *,
    quiet: bool,
) -> dict[str, Json]:
    """Analyse the backtest these options describe, write ``lookahead.json`` into ``out`` if there is one.

    Returns:
        The object of `edgebook.runtime.lookahead.check_lookahead`; ``clean`` says whether nothing before a cut changed.

    Raises:
        InputError: bad files or options, as a backtest of them would raise.
    """
    settings = load_settings(settings_file, **given, feed=f"parquet:{bars}")
    feed = bootstrap.parquet_feed(bars, signals, regime_bars)
    with Console(stderr=True, quiet=quiet).status("look-ahead") as status:
        found = check_lookahead(settings, feed, Span(*spans), lambda text: status.update(f"look-ahead: {text}"))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "lookahead.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    return found


def show_lookahead(found: Mapping[str, Json]) -> None:
    """The analysis as tables: what was compared, what differed, how long the engine warms up."""
    out = console()
    out.print(f"{found['from']} to {found['to']}, {found['symbols']} symbols, {', '.join(found['timeframes'])}")
    columns = ("compared with a feed that ends earlier", "cuts", "compared", "differ")
    body = [(text, *(f"{found[part][k]:,}" for k in ("cuts", "comparisons", "differences"))) for part, text in PARTS]
    out.print(table("look-ahead", columns, body))
    for run in found["log"]["runs"]:
        what = (
            f"run that ends at {run['cut']}"
            if run["cut"]
            else f"run given its bars in pieces, days each: {run['days']}"
        )
        rest = f"; {run['left_out']} at its end wait for the next open" if run["left_out"] else ""
        out.print(f"{what}: {run['strands']:,} strands {'equal' if run['equal'] else 'DIFFERENT'}{rest}")
    _show_differences(found)
    _show_warmup(found)
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in found["seconds"].items())
    out.print(f"seconds: {seconds}")
    out.print(f"{'nothing' if found['clean'] else 'SOMETHING'} before a cut changed")


def _show_differences(found: Mapping[str, Json]) -> None:
    columns = ("part", "symbol", "tf", "time", "column", "with all bars", "with bars to the cut", "cut")
    names = ("symbol", "timeframe", "ts", "column", "whole", "short", "cut")
    body = [(part, *(_fact(one[n]) for n in names)) for part, _ in PARTS for one in found[part]["first_differences"]]
    if body:
        total = sum(found[part]["differences"] for part, _ in PARTS)
        console().print(table(f"differences: {total:,}; the first of each part", columns, body))


def _fact(value: Json) -> str:
    """A value of a difference; of a strand its place, kind, id and hash."""
    if isinstance(value, dict):
        return f"{value['seq']} {value['kind']} {value['ident'][:8]}, hash {value['hash'][:8]}"
    return "-" if value is None else str(value)


def _show_warmup(found: Mapping[str, Json]) -> None:
    columns = ("tf", "group", "what", "agrees if", "median", "p90", "max", "by 333", "by 1000", "never")
    body = []
    for timeframe, warm in found["warmup"].items():
        if not warm["starts"]:
            body.append((timeframe, "-", "no series is long enough", *("-" for _ in columns[3:])))
            continue
        for group in ("free_of_state", "bound_to_state"):
            for name, bars in warm[group].items():
                body.append((timeframe, group.replace("_", " "), name, found["tolerances"][name], *_bars(bars)))
        body.append((timeframe, "", "has a state", "the late start has left S4", *_bars(warm["left_s4"])))
    out = console()
    out.print(table("warm-up: bars until a later start agrees with all history for good", columns, body))
    for timeframe, warm in found["warmup"].items():
        if warm["starts"]:
            share = 100 * warm["state_equal_after_1000"]
            out.print(
                f"{timeframe}: {warm['starts']} starts; after 1,000 bars the state is equal on {share:.1f} % of bars"
            )


def _bars(found: Mapping[str, Json]) -> tuple[str, ...]:
    whole = ("-" if found[name] is None else f"{found[name]:,}" for name in ("median", "p90", "max"))
    return (*whole, *(f"{100 * found[name]:.0f} %" for name in ("by_333", "by_1000")), str(found["never"]))
