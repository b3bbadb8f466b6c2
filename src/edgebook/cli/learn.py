"""``edgebook learn``, ``advise`` and ``import``: lessons from anyone's closed trades, without the running system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebook.cli.times import moment

if TYPE_CHECKING:
    from edgebook.api import Levers, Overrides

importing = typer.Typer(name="import", help="Closed trades of another bot as TRADES.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_SHOWN = 20  # contexts printed


def learn(
    trades: Annotated[Path, typer.Argument(help="Closed trades, Parquet or CSV.")],
    dims: Annotated[str, typer.Option(help="Columns lessons may be about, comma-separated.")],
    out: Annotated[Path, typer.Option(help="File to write, e.g. overrides.json.")],
    at: Annotated[str | None, typer.Option(help="Only trades closed by then count, ISO; default the newest.")] = None,
    previous: Annotated[Path | None, typer.Option(help="Earlier overrides.json whose history goes on.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML page of what was learnt to write beside it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Learn lessons from anyone's closed trades."""
    from edgebook.api import Overrides, refuse_same
    from edgebook.api import learn as learn_from

    refuse_same(out, trades)
    if report is not None:
        refuse_same(report, trades, out, *([previous] if previous is not None else []))
    before = Overrides.load(previous) if previous is not None else None
    names = [name.strip() for name in dims.split(",") if name.strip()]
    made = learn_from(trades, names, moment(at, "--at"), before)
    made.save(out)
    if report is not None:
        from edgebook.runtime.lesson_views import learnt_facts
        from edgebook.runtime.report.lessons import write_page

        write_page(learnt_facts(made.learnt, str(out)), report)
    _tell_lessons(made, out, as_json)


def _tell_lessons(made: Overrides, out: Path, as_json: bool) -> None:
    from edgebook.api import iso

    facts: dict[str, Any] = {
        "out": str(out),
        "at": iso(made.at),
        "dims": list(made.dims),
        "trades": dict(made.learnt.trades),
        "version": made.learnt.versions[-1].version,
        "families": made.families(),
        "lessons": made.lessons(),
        "refused": [{"id": ident, "reason": reason} for ident, reason in made.learnt.refused],
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    from edgebook.cli.show import show_lessons

    acting = [row for row in facts["lessons"] if row["stats"]["log_target"]]
    if acting:
        show_lessons(acting)
    for family in facts["families"]:
        typer.echo(family_line(family))
    counts = made.learnt.trades
    typer.echo(
        f"{counts['used']:,} trades closed by {facts['at']}, {counts['later']:,} later ones not looked at, "
        f"{counts['duplicates']:,} equal rows left out; version {facts['version']} in {out}"
    )


def family_line(family: dict[str, Any]) -> str:
    """One line on a family: that it acts, or why it is silent.

    >>> row = {"pattern_key": "module=pm|pattern_key=a.b", "action_category": "entry", "n": 7, "baseline_r": 0.5}
    >>> family_line(row | {"acts": False, "reason": "too_few", "nats": {}})
    'a.b/entry: 7 trades, baseline +0.500 R: silent, too few trades (20 are needed)'
    """
    from edgebook.cli.show import short

    head = f"{short(family['pattern_key'])}/{family['action_category']}: {family['n']:,} trades, "
    head += f"baseline {family['baseline_r']:+.3f} R: "
    nats = ", ".join(f"{group} {value:.2f}" for group, value in family["nats"].items())
    if family["acts"]:
        return f"{head}acts (evidence in nats: {nats})"
    reasons = {
        "too_few": "too few trades (20 are needed)",
        "no_variance": f"no dim moves the outcome beyond what chance does (evidence in nats: {nats})",
        "market_wide_too_few": f"a market-wide dim, too few trades or episodes to tell (evidence in nats: {nats})",
        "no_lever": "exits have no size",
        "no_exit_outcome": "trims are judged by what trimming was worth, which TRADES do not say",
    }
    return f"{head}silent, {reasons.get(family['reason'], family['reason'])}"


def advise(
    overrides: Annotated[Path, typer.Argument(help="File of edgebook learn.")],
    contexts: Annotated[Path, typer.Argument(help="Contexts, Parquet or CSV: one column per dim.")],
    out: Annotated[Path | None, typer.Option(help="File to write, .parquet or .csv.")] = None,
    at: Annotated[str | None, typer.Option(help="Moment of the decision, ISO; default that of the learning.")] = None,
    pattern_key: Annotated[str | None, typer.Option("--pattern-key", help="Family asked about.")] = None,
    category: Annotated[str | None, typer.Option(help="entry (default) or add.")] = None,
    holdout: Annotated[bool, typer.Option("--holdout", help="Leave a stable tenth by context_id neutral.")] = False,
    as_json: AsJson = False,
) -> None:
    """A size multiplier for each context, with its because."""
    from edgebook.api import Overrides, refuse_same

    if out is not None:
        refuse_same(out, overrides, contexts)
    found = Overrides.load(overrides).advise(contexts, moment(at, "--at"), pattern_key, category, holdout)
    if out is not None:
        found.write(out)
    _tell_levers(found, out, as_json)


def _tell_levers(found: Levers, out: Path | None, as_json: bool) -> None:
    columns = {name: values.tolist() for name, values in found.columns().items()}
    if as_json:
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        typer.echo(json.dumps(rows))
        return
    shown = list(zip(columns["multiplier"], columns["because"], strict=True))[:_SHOWN]
    for number, (multiplier, because) in enumerate(shown, 1):
        typer.echo(f"{number}: x{multiplier:.3f}  {because}")
    if len(found) > _SHOWN:
        typer.echo(f"{len(found) - _SHOWN:,} more rows")
    moved = int((found.multiplier != 1.0).sum())
    typer.echo(f"{len(found):,} contexts, {moved:,} moved" + (f"; {out}" if out is not None else ""))


@importing.command()
def freqtrade(
    file: Annotated[Path, typer.Argument(help="SQLite file of a freqtrade bot, e.g. tradesv3.sqlite.")],
    out: Annotated[Path, typer.Option(help="TRADES to write, .parquet or .csv.")],
    as_json: AsJson = False,
) -> None:
    """Closed trades of a freqtrade bot as TRADES."""
    from edgebook.api import import_freqtrade

    found = import_freqtrade(file, out)
    facts = {
        "out": str(out),
        "trades": found.closed,
        "still_open": found.still_open,
        "unusable": found.unusable,
        "risk": found.risk,
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo(
        f"{found.closed:,} closed trades in {out}; {found.still_open:,} still open, "
        f"{found.unusable:,} closed without a profit left out"
    )
    typer.echo(
        f"risk of a trade from: initial stop {found.risk['stop']:,}, drawdown {found.risk['drawdown']:,}, "
        f"neither known so 1 % {found.risk['floor']:,}"
    )
    typer.echo("dims to learn from: base, quote, timeframe, strategy, enter_tag, side")


@importing.callback()
def importing_root() -> None:
    """Closed trades of another bot as TRADES."""
