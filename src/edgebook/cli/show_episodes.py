"""Tables of ``edgebook episodes`` for people. The command's JSON has the same facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from edgebook.cli.show import console, number, scope_text, short, table

Json = Any
#: Columns of the table of samples beside the margins: name in the sample, heading.
_SHOWN = (
    *(("ts_with_boost", "TS"), ("sr_boost", "SR"), ("halo_distance", "halo"), ("slope", "slope")),
    *(("dx_score", "DX"), ("dx_required", "DX needed"), ("edx_score", "EDX")),
)
_GROUPS = ("entered", "skipped", "blocked")


def show_episodes(found: Mapping[str, Json]) -> None:
    """A line per episode; counts and shadows at the foot."""
    columns = (
        *("id", "start", "end", "symbol", "tf", "type", "outcome", "entered"),
        *("windows", "near misses", "blocked", "best shadow"),
    )
    body = [
        (
            row["id"][:8],
            row["started_at"][:16],
            row["ended_at"][:16] or "-",
            row["symbol"],
            row["timeframe"],
            row["episode_type"],
            row["outcome"] + (" (partial)" if row["partial"] else ""),
            "yes" if row["entered"] else "no",
            row["windows"],
            row["near_misses"],
            row["blocked_windows"],
            number(row["best_shadow_rr"], "+.2f"),
        )
        for row in found["episodes"]
    ]
    out, told = console(), len(body)
    of = f" of {found['total']}" if told < found["total"] else ""
    out.print(table(f"{told}{of} episodes", columns, body))
    for episode_type, counts in found["counts"].items():
        out.print(f"{episode_type}: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    out.print(_shadow_line(found["shadows"]))


def _shadow_line(shadows: Mapping[str, Json]) -> str:
    """How many shadows, and what each kind of chance brought on the mean.

    >>> none = {"n": 0, "mean_rr": None}
    >>> _shadow_line({"n": 2, "running": 1, "entered": {"n": 2, "mean_rr": 0.5}, "skipped": none, "blocked": none})
    'shadows: 2 ended, 1 running; mean rr entered +0.50 (2), skipped - (0), blocked - (0)'
    """
    groups = (f"{name} {number(shadows[name]['mean_rr'], '+.2f')} ({shadows[name]['n']})" for name in _GROUPS)
    return f"shadows: {shadows['n']} ended, {shadows['running']} running; mean rr " + ", ".join(groups)


def show_episode(found: Mapping[str, Json]) -> None:
    """One episode, window by window."""
    out = console()
    end = found["ended_at"] or "still open"
    out.print(f"episode {found['id']}: {found['symbol']} {found['timeframe']} {found['episode_type']}")
    partial = ", partial: its beginning was not seen" if found["partial"] else ""
    out.print(f"{found['started_at']} to {end}, {found['bars']} bars: {found['outcome']}{partial}")
    for i, window in enumerate(found["windows"]):
        out.print()
        _show_window(i, window)


def _show_window(i: int, window: Mapping[str, Json]) -> None:
    out = console()
    blocked = f", blocked by {', '.join(window['blocked_by'])}" if window["blocked_by"] else ""
    entered = "not entered"
    if window["entered"]:
        fill = window["fill"]
        entered = f"entered at {fill['price']:.6g} on {fill['ts'][:16]}" if fill else "entered"
    span = f"{window['started_at'][:16]} to {window['ended_at'][:16] or 'now'}"
    out.print(
        Text(f"window {i}", style="bold"),
        f"{window['kind']}, {span}: {entered}, {window['outcome'] or 'open'}{blocked}",
    )
    out.print(f"scope: {scope_text(window['scope'])}")
    gates = [lever for lever in window["thresholds"] if any(lever in s["margins"] for s in window["samples"])]
    out.print("thresholds: " + ", ".join(f"{name} {window['thresholds'][name]:.4g}" for name in gates))
    if window["samples"]:
        out.print(_samples_table(window["samples"]))
    if window["levers"]:
        out.print(_levers_table(window["levers"]))
    out.print(_shadow_text(window))


def _samples_table(samples: Sequence[Mapping[str, Json]]) -> Table:
    names = [(name, head) for name, head in _SHOWN if any(s["values"].get(name) is not None for s in samples)]
    gates = list(samples[0]["margins"])
    columns = ("time", "price", "flag", *(head for _, head in names), *(f"u {g}" for g in gates), "failed")
    body = [
        (
            s["ts"][:16],
            f"{s['price']:.6g}",
            "up" if s["flag_on"] else "-",
            *(number(s["values"].get(name), ".4g") for name, _ in names),
            *(number(s["margins"].get(gate), "+.2f") for gate in gates),
            ", ".join(s["blocked_by"]) or "-",
        )
        for s in samples
    ]
    return table("", columns, body)


def _levers_table(levers: Sequence[Mapping[str, Json]]) -> Table:
    columns = ("gate", "u", "value", "threshold", "severity", "confidence", "direction", "vote")
    body = [
        (
            one["lever"],
            f"{one['margin']:+.2f}",
            f"{one['value']:.4g}",
            f"{one['threshold']:.4g}",
            f"{one['severity']:.2f}",
            f"{one['confidence']:.2f}",
            one["direction"] or "-",
            f"{one['vote']:.3f}" if one["vote"] is not None else f"none: {one['no_vote']}",
        )
        for one in levers
    ]
    return table("", columns, body)


def _shadow_text(window: Mapping[str, Json]) -> str:
    """What the shadow of a window did, on one line.

    >>> _shadow_text({"shadow": None, "no_shadow": "the window is open"})
    'shadow: none, the window is open'
    >>> _shadow_text({"shadow": {"running": True, "entry_at": "2021-06-01 00:00:00"}})
    'shadow: bought on 2021-06-01 00:00, still running'
    """
    shadow = window["shadow"]
    if shadow is None:
        return f"shadow: none, {window['no_shadow']}"
    bought = f"shadow: bought on {shadow['entry_at'][:16]}"
    if shadow["running"]:
        return f"{bought}, still running"
    values = ", ".join(f"{name} {value:+.2f}" for name, value in shadow["values"].items()) or "no gate"
    path = f"at {shadow['entry_price']:.6g}, left on {shadow['exit_at'][:16]} at {shadow['exit_price']:.6g}"
    return f"{bought} {path}: rr {shadow['rr']:+.2f}; value in R for {values}"


def show_gates(found: Mapping[str, Json]) -> None:
    """Per key its gates with their bands, then what is in force where."""
    out = console()
    for key in found["keys"]:
        _show_bands(key)
        for lever in key["levers"]:
            move = f"move {lever['move']:+d} bands to {lever['target']:.4g}" if lever["move"] else "stays"
            gain = f", gain {lever['gain_r']:+.2f} R" if lever["move"] else f": {lever['why_not']}"
            out.print(f"{lever['lever']}: {move}{gain}")
        for shift in key["shifts"]:
            where = scope_text(shift["scope"])
            out.print(f"asked for {where}: {shift['lever']} {shift['shift']:+.4g}, to {shift['target']:.4g}")
        for row in key["in_force"]:
            values = ", ".join(f"{name} {value:.4g}" for name, value in row["gates"].items())
            out.print(f"in force {scope_text(row['scope'])}: {values}" + (" (base)" if not row["moved"] else ""))
        out.print()
    out.print(f"config version {found['config_version']}; one gate of a key moves per build")


def _show_bands(key: Mapping[str, Json]) -> None:
    """One row per gate, one column per band: chances, mean value and standard error."""
    bands = key["levers"][0]["bands"]
    columns = ("gate", "base", "cap", *(f"{b['from']:+.1f}..{b['to']:+.1f}" for b in bands))
    body = [
        (
            lever["lever"],
            f"{lever['base']:.4g}",
            f"{lever['cap']:.4g}",
            *(f"{b['n']}: {b['mean_r']:+.2f}±{b['se_r']:.2f}" if b["n"] else "-" for b in lever["bands"]),
        )
        for lever in key["levers"]
    ]
    outcomes = ", ".join(f"{name} {n}" for name, n in key["outcomes"].items()) or "no episode yet"
    title = f"{short(key['pattern_key'])}/{key['action_category']} ({key['episode_type']}): {outcomes}; "
    console().print(table(f"{title}chances: mean value in R ± its error, by u from the base", columns, body))
