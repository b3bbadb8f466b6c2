"""Commands: what they take, which runtime function they call, how the answer is printed."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebook.cli.config import Who, Why, config, operator
from edgebook.cli.download import download
from edgebook.cli.episodes import episodes
from edgebook.cli.export import export
from edgebook.cli.flow import flow
from edgebook.cli.learn import advise, importing, learn
from edgebook.cli.times import moment
from edgebook.domain.errors import InputError

if TYPE_CHECKING:
    from edgebook.ports import UnitOfWork
    from edgebook.runtime.settings import Settings

app = typer.Typer(
    name="edgebook",
    help="A trading system that learns from its own closed trades.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Db = Annotated[str | None, typer.Option("--db", help="Database URL; default sqlite:///edgebook.db or EDGEBOOK_DB.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[Path | None, typer.Option("--settings", help="TOML file of settings.")]
Curators = Annotated[str | None, typer.Option(help="Registry of curators, a TOML or JSON file.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version when asked for."""
    if version:
        from edgebook import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    feed: Annotated[str | None, typer.Option(help="sim, parquet:DIR, script:FILE or ccxt:EXCHANGE.")] = None,
    symbols: Annotated[str | None, typer.Option(help="What a ccxt feed follows, e.g. BTCUSDT,SOLUSDT.")] = None,
    broker: Annotated[str | None, typer.Option(help="paper, dry or live: where orders of a ccxt feed go.")] = None,
    signals: Annotated[Path | None, typer.Option(help="Social signals (JSONL) for a parquet feed.")] = None,
    regime_bars: Annotated[Path | None, typer.Option(help="Bars of regime drivers for a parquet feed.")] = None,
    speed: Annotated[float | None, typer.Option(help="Simulated seconds per second.")] = None,
    until: Annotated[
        str | None, typer.Option(help="Stop at this time: ISO, or days from the start such as 14d.")
    ] = None,
    timeframes: Annotated[str | None, typer.Option(help="Comma-separated, e.g. 1h,4h.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the simulated market.")] = None,
    port: Annotated[int | None, typer.Option(help="Loopback port of the ingress; 0 picks one.")] = None,
    curators: Curators = None,
    db: Db = None,
    settings: Config = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the live screen.")] = False,
    held: Annotated[bool, typer.Option("--held", help="Hold the clock until the ingress lets time pass.")] = False,
) -> None:
    """Turn the system on: trade, close, learn, and show it, until stopped."""
    from edgebook.cli.watch import watch_run
    from edgebook.runtime.settings import load_settings

    given = {"feed": feed, "speed": speed, "timeframes": timeframes, "seed": seed, "port": port, "db": db}
    chosen = load_settings(settings, **given, curators=curators, symbols=symbols, broker=broker)
    plain = plain or not sys.stdout.isatty()
    watch_run(chosen, signals=signals, regime_bars=regime_bars, until=until, plain=plain, held=held)


@app.command()
def backtest(
    bars: Annotated[Path, typer.Option(help="Directory of SYMBOL-<tf>.parquet.")],
    signals: Annotated[Path | None, typer.Option(help="Social signals (JSONL).")] = None,
    regime_bars: Annotated[Path | None, typer.Option(help="Bars of regime drivers.")] = None,
    timeframes: Annotated[str | None, typer.Option(help="Comma-separated, e.g. 1h,4h.")] = None,
    begin: Annotated[str | None, typer.Option("--from", help="First moment, ISO.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last moment, ISO.")] = None,
    learning: Annotated[str, typer.Option(help="on, off or both.")] = "on",
    seed: Annotated[int | None, typer.Option(help="Seed; recorded in the settings.")] = None,
    curators: Curators = None,
    db: Annotated[str | None, typer.Option("--db", help="Database URL; default a temporary one.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for report.html, report.json, tables and plots, or for lookahead.json."),
    ] = None,
    check_lookahead: Annotated[
        bool, typer.Option("--check-lookahead", help="Ask instead whether anything looks ahead; exit code 1 if so.")
    ] = False,
    settings: Config = None,
    as_json: AsJson = False,
) -> None:
    """Walk recorded bars under a simulated clock and report."""
    from edgebook.cli.show import show_report
    from edgebook.cli.walk import walk
    from edgebook.runtime.uplift import compare

    if learning not in ("on", "off", "both"):
        raise InputError(f"--learning must be on, off or both, was {learning!r}")
    if learning == "both" and db is not None:
        raise InputError("--learning both makes two runs and keeps neither; leave --db out")
    given = {"timeframes": timeframes, "seed": seed, "curators": curators}
    spans = (moment(begin, "--from"), moment(end, "--to"))
    arms = {"on": True, "off": False}
    if check_lookahead:
        from edgebook.cli.show_lookahead import check, show_lookahead

        if learning == "both" or db is not None:
            raise InputError("--check-lookahead makes several runs and keeps none; leave --learning both and --db out")
        chosen = given | {"learning_enabled": arms[learning]}
        analysed = check(bars, signals, regime_bars, chosen, spans, out, settings, quiet=as_json)
        typer.echo(json.dumps(analysed, sort_keys=True)) if as_json else show_lookahead(analysed)
        raise typer.Exit(0 if analysed["clean"] else 1)
    results = {
        arm: walk(
            bars,
            signals,
            regime_bars,
            given | {"learning_enabled": arms[arm]},
            spans,
            db,
            out / arm if out is not None and learning == "both" else out,
            settings,
            quiet=as_json,
        )
        for arm in (("on", "off") if learning == "both" else (learning,))
    }
    found: dict[str, Any] = compare(results["on"], results["off"]) if learning == "both" else results[learning][0]
    typer.echo(json.dumps(found, sort_keys=True)) if as_json else show_report(found)


@app.command()
def chart(
    bars: Annotated[Path, typer.Option(help="One file SYMBOL-<tf>.parquet.")],
    out: Annotated[Path, typer.Option(help="File to write: .html (with read-out and zoom) or .png.")],
    begin: Annotated[str | None, typer.Option("--from", help="First moment drawn, ISO; earlier bars warm up.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last moment, ISO; later bars are not seen.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Coarser timeframe to build first, e.g. 4h.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw recorded bars as the engine sees them: states, scores, flags, buy windows, levels."""
    from edgebook.cli.chart import chart_lines, draw

    found = draw(bars, out, (moment(begin, "--from"), moment(end, "--to")), timeframe)
    typer.echo(json.dumps(found) if as_json else "\n".join(chart_lines(found)))


@app.command()
def bar(
    bars: Annotated[Path, typer.Argument(help="One file SYMBOL-<tf>.parquet.")],
    at: Annotated[str, typer.Option("--at", help="Moment, ISO: the last bar that had closed by then.")],
    timeframe: Annotated[str | None, typer.Option(help="Coarser timeframe to build first, e.g. 4h.")] = None,
) -> None:
    """Everything the engine says of one recorded bar, and why each flag is as it is (JSON)."""
    from edgebook.runtime.bar import explain_bar

    when = moment(at, "--at")
    assert when is not None
    typer.echo(json.dumps(explain_bar(bars, when, timeframe), indent=2))


@app.command()
def inject(
    file: Annotated[str, typer.Argument(help="JSONL of social signals, or - for standard input.")],
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Send social signals into the running system; refused lines are named with their reason."""
    from edgebook.runtime.ingress import numbered, post

    try:
        lines = (sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")).split("\n")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text (byte {error.start}); signals are JSON lines") from error
    for number, line in numbered(lines):
        try:
            json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}:{number}: not JSON ({error}); one JSON object per line is needed") from error
    found = post(_settings(db).db, lines if numbered(lines) else ())
    if as_json:
        typer.echo(json.dumps(found, sort_keys=True))
        return
    typer.echo(
        f"{found['read']} signals: {found['accepted']} new, {found['known']} known, "
        f"{found['refused']} refused (dead letters)"
    )
    for one in found["refusals"]:
        typer.echo(f"{file}:{one['line']}: {one['reason']}", err=True)


@app.command("kill-switch")
def kill_switch(
    state: Annotated[str, typer.Argument(help="on: no new buys, exits go on. off: buys again.")],
    channel: Annotated[
        str, typer.Option(help="dm, strength or tuning: that channel's overrides are neutral instead.")
    ] = "",
    who: Who = None,
    why: Why = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Stop new buys of the running system, or the overrides of one learning channel; exits always go on."""
    from edgebook.cli.show import show_kill_switch
    from edgebook.runtime.ingress import post_turn

    if state not in ("on", "off"):
        raise InputError(f"kill-switch takes on or off, was {state!r}")
    told = post_turn(_settings(db).db, state == "on", channel, operator(who), why)
    found = {"kill_switch": state, "channel": channel, **told}
    typer.echo(json.dumps(found, sort_keys=True)) if as_json else show_kill_switch(found)


@app.command()
def position(
    wish: Annotated[str, typer.Argument(help="pause: no new buys, exits go on. archive: not followed. resume: again.")],
    ident: Annotated[str, typer.Argument(help="Id of the position.")],
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Pause, resume or archive one position of the running system."""
    from edgebook.runtime.ingress import post_move

    found = {"position": ident, **post_move(_settings(db).db, ident, wish)}
    already = "" if found["changed"] else " (it was so already)"
    typer.echo(json.dumps(found, sort_keys=True) if as_json else f"position {ident}: {found['status']}{already}")


@app.command()
def trace(signal: str, db: Db = None, as_json: AsJson = False) -> None:
    """One packet's way: every strand a signal caused, and where it died if it did."""
    from edgebook.cli.show import show_trace
    from edgebook.runtime import views

    with _Reading(db) as uow:
        found = views.trace(uow, signal)
    typer.echo(json.dumps(found)) if as_json else show_trace(found)


@app.command()
def explain(ident: str, db: Db = None, as_json: AsJson = False) -> None:
    """Why a decision or action had its numbers: multiplier, override, lesson, statistics, trades."""
    from edgebook.cli.show import show_explained
    from edgebook.runtime import views

    with _Reading(db) as uow:
        found = views.explain(uow, ident)
    typer.echo(json.dumps(found)) if as_json else show_explained(found)


@app.command()
def rebuild(
    check: Annotated[
        bool, typer.Option("--check", help="Compare with what is stored (the only mode: nothing is written).")
    ] = False,
    db: Db = None,
    settings: Config = None,
    as_json: AsJson = False,
) -> None:
    """Refold every projection from the log and compare it with what is stored."""
    from edgebook.runtime.checks import check_rebuild

    if not check:
        raise InputError("rebuild only compares so far; call it as 'edgebook rebuild --check'")
    found = check_rebuild(_settings(db, settings))
    if as_json:
        typer.echo(json.dumps(found, sort_keys=True))
    else:
        rows = ", ".join(f"{n} {name}" for name, n in found["rows"].items())
        typer.echo(f"{found['strands']} strands refolded: {rows}")
        for text in found["differences"][:20]:
            typer.echo(f"differs: {text}")
        typer.echo("equal" if found["equal"] else f"{len(found['differences'])} differences")
    if not found["equal"]:
        raise typer.Exit(1)


@app.command()
def verify(db: Db = None, as_json: AsJson = False) -> None:
    """Check the hash chain of the log."""
    from edgebook.runtime.checks import check_chain

    found = check_chain(_settings(db).db)
    if as_json:
        typer.echo(json.dumps(found, sort_keys=True))
    else:
        for text in found["problems"][:20]:
            typer.echo(text)
        typer.echo(f"{found['strands']} strands, head {found['log_head']}: {'intact' if found['intact'] else 'BROKEN'}")
    if not found["intact"]:
        raise typer.Exit(1)


@app.command()
def lessons(
    db: Db = None,
    as_json: AsJson = False,
    lesson_type: Annotated[str | None, typer.Option("--type", help="dm_alloc, pm_strength or pm_tuning.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="HTML page to write: evidence, history, what each moved and earned.")
    ] = None,
) -> None:
    """Lessons with their evidence, status and reason."""
    from edgebook.cli.show import show_lessons
    from edgebook.runtime import views

    if report is not None:
        from edgebook.cli.lessons import tell_report
        from edgebook.runtime.lesson_views import database_facts

        with _Reading(db) as uow:
            tell_report(database_facts(uow, _settings(db).db, lesson_type), report, as_json)
        return
    with _Reading(db) as uow:
        rows = [row for row in views.lessons_view(uow) if lesson_type in (None, row["lesson_type"])]
    typer.echo(json.dumps(rows)) if as_json else show_lessons(rows)


@app.command()
def overrides(db: Db = None, as_json: AsJson = False) -> None:
    """Overrides in force, with the config version."""
    from edgebook.cli.show import show_overrides
    from edgebook.runtime import views

    with _Reading(db) as uow:
        found = views.overrides_view(uow)
    typer.echo(json.dumps(found)) if as_json else show_overrides(found)


@app.command()
def jobs(db: Db = None, as_json: AsJson = False) -> None:
    """Jobs: runs, failures, last slot, what they did."""
    from edgebook.cli.show import show_jobs
    from edgebook.runtime import views

    with _Reading(db) as uow:
        rows = views.jobs_view(uow)
    typer.echo(json.dumps(rows)) if as_json else show_jobs(rows)


@app.command()
def status(db: Db = None, as_json: AsJson = False) -> None:
    """One page about a database."""
    from edgebook.cli.show import show_status
    from edgebook.runtime import views

    with _Reading(db) as uow:
        found = views.status_view(uow)
    typer.echo(json.dumps(found)) if as_json else show_status(found)


app.command()(download)
app.command()(episodes)
app.command()(export)
app.command()(flow)
app.add_typer(config, name="config")
app.command()(learn)
app.command()(advise)
app.add_typer(importing)


def _settings(db: str | None, file: Path | None = None) -> Settings:
    from edgebook.runtime.settings import load_settings

    return load_settings(file, db=db)


class _Reading:
    """A read-only view of the database, for the length of a block."""

    def __init__(self, db: str | None) -> None:
        self._db, self._stack = db, ExitStack()

    def __enter__(self) -> UnitOfWork:
        from edgebook.runtime.bootstrap import open_store

        return self._stack.enter_context(open_store(_settings(self._db).db).reader())

    def __exit__(self, *_: object) -> None:
        self._stack.close()
