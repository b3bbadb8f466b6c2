"""Tables for people. Every command's JSON has the same facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from edgebook.domain.levers import LEVERS

Json = Any
MAX_ROWS = 60


def console() -> Console:
    """Standard output; wide when it is not a terminal, so that pipes and files keep whole lines.

    Text is printed as it is: words of users may hold ``[/bold]`` or ``:bell:``. Style is given with ``style=``.
    """
    out = Console(highlight=False, markup=False, emoji=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, emoji=False, width=200)


def short(key: str) -> str:
    """The readable end of a pattern key.

    >>> short("module=pm|pattern_key=uptrend.S1.buy_flag")
    'uptrend.S1.buy_flag'
    """
    return key.rpartition("pattern_key=")[2]


def scope_text(scope: Mapping[str, Any]) -> str:
    """A scope on one line; ``everywhere`` for the root.

    >>> scope_text({"bucket": "micro", "timeframe": "1h"}), scope_text({})
    ('bucket=micro timeframe=1h', 'everywhere')
    """
    return " ".join(f"{k}={v}" for k, v in scope.items()) or "everywhere"


def levers_text(levers: Mapping[str, float]) -> str:
    """Levers on one line, those at their neutral value left out.

    >>> levers_text({"size_mult": 1.0612, "exit_aggression_mult": 1.0}), levers_text({"alloc_mult": 1.0})
    ('size_mult 1.061', 'neutral')
    """
    moved = {name: value for name, value in levers.items() if name not in LEVERS or value != LEVERS[name].base}
    return ", ".join(f"{name} {value:.4g}" for name, value in moved.items()) or "neutral"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A plain table, its text as it is on any console; more than 60 rows are cut, and said to be."""
    head = Text(title, style="table.title") if title else None
    made = Table(title=head, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(Text(name), overflow="fold")
    for row in rows[:MAX_ROWS]:
        made.add_row(*(Text(str(value)) for value in row))
    if len(rows) > MAX_ROWS:
        made.caption = f"{len(rows) - MAX_ROWS} more; --json prints all"
    return made


def number(value: Any, form: str = "+.3f") -> str:
    """A number in ``form``, a dash where there is none.

    >>> number(0.25), number(None)
    ('+0.250', '-')
    """
    return "-" if value is None else format(value, form)


def show_lessons(rows: Sequence[Mapping[str, Json]]) -> None:
    """Lessons, strongest first within their type."""
    columns = ("type", "status", "pattern", "category", "scope", "levers", "n", "effect", "se", "reason")
    body = [
        (
            row["lesson_type"],
            row["status"],
            short(row["pattern_key"]),
            row["action_category"],
            scope_text(row["scope"]),
            levers_text(row["levers"]),
            row["stats"].get("n", "-"),
            number(row["stats"].get("effect")),
            number(row["stats"].get("se"), ".3f"),
            row["reason"],
        )
        for row in rows
    ]
    console().print(table(f"{len(rows)} lessons", columns, body))


def show_overrides(found: Mapping[str, Json]) -> None:
    """Overrides in force."""
    body = []
    for module, name in (("dm", "alloc_overrides"), ("pm", "pattern_strength_overrides"), ("pm", "pattern_overrides")):
        for item in found.get(module, {}).get(name, ()):
            levers = item["levers"].get("signal_thresholds", item["levers"])
            lesson = item["lesson"]
            body.append(
                (
                    item["lesson_type"],
                    short(item["pattern_key"]),
                    item["action_category"],
                    scope_text(item["scope"]),
                    levers_text(levers),
                    " ".join([lesson["id"][:8], *_steered(lesson)]),
                )
            )
    title = (
        f"{len(body)} overrides in force, config version {found['config_version']}, since {found['updated_at'] or '-'}"
    )
    console().print(table(title, ("type", "pattern", "category", "scope", "targets", "lesson"), body))


def _steered(lesson: Mapping[str, Json]) -> list[str]:
    """What an operator has made of an override."""
    pinned = ["pinned"] if lesson.get("pinned_at") is not None else []
    return [*pinned, *([] if lesson["enabled"] else ["muted"])]


def show_jobs(rows: Sequence[Mapping[str, Json]]) -> None:
    """Jobs and what they did."""
    columns = ("job", "runs", "failed", "idle slots", "last slot", "counts", "last error")
    body = [
        (
            r["job"],
            r["runs"],
            r["failed"],
            r["idle_slots"],
            r["last_slot"],
            ", ".join(f"{k} {v}" for k, v in r["counts"].items()),
            r["error"],
        )
        for r in rows
    ]
    console().print(table("jobs", columns, body))


def show_pairs(found: Mapping[str, Json]) -> None:
    """Any object, a line per fact."""
    body = [(name, _flat(value)) for name, value in found.items()]
    console().print(table("", ("", ""), body))


def show_status(found: Mapping[str, Json]) -> None:
    """One page about a database: a line per fact, then what is held."""
    held = found["open_positions"]
    show_pairs({name: value if name != "open_positions" else len(value) for name, value in found.items()})
    if not held:
        return
    columns = ("symbol", "tf", "status", "quantity", "cost USD", "since", "mark")
    names = ("symbol", "timeframe", "status", "quantity", "cost_usd", "opened_at")
    body = [(*(row[name] for name in names), "stale" if row["stale_mark"] else "") for row in held]
    console().print(table(f"{len(held)} open positions", columns, body))


def show_kill_switch(found: Mapping[str, Json]) -> None:
    """What the kill switch says now, and every protection that is on."""
    where = f" for channel {found['channel']}: its overrides are" if found["channel"] else ":"
    says = {
        ("on", False): "no new buys; exits, trims and emergency exits go on",
        ("off", False): "it no longer stops buys",
        ("on", True): "neutral",
        ("off", True): "in force again",
    }[found["kill_switch"], bool(found["channel"])]
    out, already = console(), "" if found["changed"] else " (it was so already)"
    out.print(f"kill switch {found['kill_switch']}{where} {says}{already}")
    for one in found["in_force"]:
        until = one["until"] or "lifted"
        out.print(f"in force: {one['reason']} for {one['scope']} since {one['since']}, until {until}")


def show_report(found: Mapping[str, Json]) -> None:
    """A backtest's report: counts, then the figures of its trades and what they say; with two arms, both and the
    uplift."""
    from edgebook.runtime.report.text import findings, headlines

    arms = {f"learning {arm}": found[arm] for arm in ("on", "off")} if "uplift" in found else {"": found}
    for name, arm in arms.items():
        if name:
            console().print(name, style="bold")
        show_pairs({key: value for key, value in arm.items() if key not in ("metrics", "settings")})
        metrics = arm["metrics"]
        body = [(item.name, item.value, item.verdict, item.note) for item in headlines(metrics)]
        console().print(table("", ("figure", "value", "against zero", ""), body))
        for sentence in findings(metrics):
            console().print(sentence)
    if "uplift" in found:
        show_pairs({"uplift of learning": found["uplift"]})


def show_trace(found: Mapping[str, Json]) -> None:
    """A packet's way."""
    columns = ("seq", "time", "kind", "symbol", "tf", "what")
    body = [(s["seq"], s["ts"], s["kind"], s["symbol"], s["timeframe"], s["text"]) for s in found["strands"]]
    out = console()
    out.print(table(f"signal {found['signal']}", columns, body))
    verdict = f"packet {found['signal']} {found['verdict']}: last stage {found['stage']}"
    if found["verdict"] == "died":
        verdict = f"packet {found['signal']} died at stage {found['at']}: {found['why']}"
    elif found["verdict"] == "waiting":
        verdict += f", waiting for {found['at']}"
    out.print(verdict)


def show_explained(found: Mapping[str, Json]) -> None:
    """Multiplier, override, lesson, statistics, trades, as a tree."""
    out = console()
    if "actions" in found:
        for action in found["actions"]:
            show_explained(action)
        return
    if "lesson" in found:
        tree = Tree(f"lesson {found['lesson']['id']}")
        _lesson(tree, found["lesson"])
        out.print(tree)
        return
    line = found["strand"]
    tree = Tree(f"{line['kind']} {line['id']} at {line['ts']} {line['symbol']} {line['timeframe']}: {line['text']}")
    tree.add(f"scope: {scope_text(found['scope'])}")
    tree.add(f"config version {found['config_version']}, arm: {found['arm']}")
    numbers = tree.add("numbers")
    for name, value in found["numbers"].items():
        numbers.add(f"{name}: {_flat(value)}")
    if found["coefficients"]:
        own = numbers.add("coefficient_mult: the product of these, bounded, less what alloc_mult says already")
        for part in found["coefficients"]:
            own.add(coefficient_text(part))
    if not found["nudges"]:
        tree.add("no override matched: every number is its base value")
    for nudge in found["nudges"]:
        moved = f"base {nudge['base']:.6g} -> applied {nudge['applied']:.6g}"
        branch = tree.add(f"{nudge['lever']}: {moved} (wanted {nudge['blend']:.6g}; at most one step an hour)")
        for item in nudge["overrides"]:
            wants = f"override {scope_text(item['scope'])} wants {levers_text(item['targets'])}"
            sure = item.get("conviction", 1.0)
            counts = f"weight {item['weight']:.3f}, decay {item['decay']:.3f}"
            counts += f", conviction {sure:.2f}" if sure > 1.0 else ""
            leaf = branch.add(f"{wants}, {counts}, {item['status']}")
            if isinstance(item["lesson"], str):
                leaf.add(f"lesson {item['lesson_id']}: {item['lesson']}")
            else:
                _lesson(leaf.add(f"lesson {item['lesson_id']}"), item["lesson"])
    out.print(tree)


def coefficient_text(part: Mapping[str, Json]) -> str:
    """What one dimension did to an allocation, on one line.

    >>> part = {"dim": "curator", "value": "ann", "n": 31.2, "effect_r": 0.12, "learned": 1.05, "static": 1.0}
    >>> coefficient_text(part)
    'coefficient curator=ann: learned x 1.05, effect +0.12 R, n 31.2'
    """
    where = part["value"].replace("|", " ") if part["dim"] == "pair" else f"{part['dim']}={part['value']}"
    stood_in = f", static x {part['static']:.4g}" if part["static"] != 1.0 else ""
    evidence = f"effect {part['effect_r']:+.3g} R, n {part['n']:.3g}"
    return f"coefficient {where}: learned x {part['learned']:.4g}{stood_in}, {evidence}"


def _lesson(branch: Tree, lesson: Mapping[str, Json]) -> None:
    stats = lesson["stats"]
    slice_ = f"{short(lesson['pattern_key'])}/{lesson['action_category']} where {scope_text(lesson['scope'])}"
    branch.add(f"{lesson['type']} {slice_}: {lesson['status']} ({lesson['reason']})")
    branch.add(f"targets {levers_text(lesson['levers'])}; evidence up to {lesson['evidence_at']}")
    branch.add(
        "effect "
        + ", ".join(f"{k} {_flat(stats[k])}" for k in ("effect", "effect_total", "se", "lfsr", "n_eff") if k in stats)
    )
    branch.add("statistics " + _flat(lesson["statistics"]))
    ids = lesson["evidence_ids"]
    branch.add(f"{len(ids)} {lesson['evidence']}: {', '.join(i[:8] for i in ids[:8])}{' ...' if len(ids) > 8 else ''}")


def _flat(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(_flat(v) for v in value) or "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None or value == "" else str(value)
