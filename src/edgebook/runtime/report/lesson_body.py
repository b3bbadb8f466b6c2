"""What a row of the lessons page unfolds to: the edge day by day, and every fact of one lesson."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from edgebook.runtime.lesson_words import lever_name, standing_words
from edgebook.runtime.report.lessons_svg import colour, history_chart
from edgebook.runtime.report.text import MISSING, number, percent, spread

Json = Any
_LAST = -1e9
_VERDICTS = {"above zero": "above", "below zero": "below", "cannot be told from zero": "untold"}


def body(row: Mapping[str, Json]) -> str:
    """The unfolded part of a lesson."""
    chart = (
        history_chart(row["history"]) if row["history"] else '<p class="soft">No day-by-day evidence is kept here.</p>'
    )
    facts = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in _facts(row))
    return f'<div class="body"><div><p class="why">{text(why(row))}</p>{chart}</div><dl>{facts}</dl></div>'


def why(row: Mapping[str, Json]) -> str:
    """Why the lesson stands where it does: its reason, and what the evidence lacks where it is no finding.

    >>> row = {"reason_words": "too little", "standing": "silent", "effect": 0.1, "interval": (-0.1, 0.3)}
    >>> why(row | {"e_value": 0.04, "stats": {"confirmed": False}})
    'Too little. Its 90 % interval holds zero, its e-value is 0.04, later trades do not confirm it so far.'
    """
    told = f"{row['reason_words'][:1].upper()}{row['reason_words'][1:]}."
    if row["standing"] not in ("acts", "silent") or row["interval"] is None:
        return told
    lacks = []
    if row["interval"][0] <= 0 <= row["interval"][1]:
        lacks.append("its 90 % interval holds zero")
    if row["e_value"] is not None:
        lacks.append(f"its e-value is {_e_value(row['e_value'])}")
    if row["stats"].get("confirmed") is not None:
        lacks.append(f"later trades {'confirm it' if row['stats']['confirmed'] else 'do not confirm it so far'}")
    more = ", ".join(lacks)
    return f"{told} {more[:1].upper()}{more[1:]}." if more else told


def _facts(row: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    yield "where", f"{text(row['scope_words'])} <span class='soft'>· {text(row['pattern_words'])}</span>"
    if row["effect"] is not None:
        yield "effect", f"{signed(row['effect'], 3, 'R')} {soft(spread(row['interval'], 3))}"
    if row["effect_total"] is not None:
        yield "total with parents", signed(row["effect_total"], 3, "R")
    yield "evidence", _amount(row)
    if row["lfsr"] is not None:
        yield "wrong sign", f"{percent(row['lfsr'])} {soft('lfsr')}"
    if row["log_e"] is not None:
        yield "e-value", f"{_e_value(row['e_value'])} {soft('log ' + number(row['log_e'], 2, signed=True))}"
    if row["stats"].get("confirmed") is not None:
        yield "later trades", "confirm it" if row["stats"]["confirmed"] else "do not confirm it so far"
    if row["stats"].get("kappa") is not None:
        yield "force", f"{number(row['stats']['kappa'], 2)} {soft('log multiplier per R')}"
    if row["stats"].get("conviction", 1.0) > 1.0:
        yield "held by its bound", f"wants {number(row['stats']['conviction'], 2)} times as far {soft('in logs')}"
    for lever in row["levers"]:
        yield lever_name(lever["name"]), _lever(lever)
    yield "status", f"{pill(row)} {soft('' if row['in_force'] else 'not in force')}"
    if row["cluster"]:
        yield "overlap cluster", f"<code>{text(row['cluster'])}</code>"
    yield from _raw(row["stats"])
    yield from _money(row)
    yield "half-life", f"{number(row['half_life_hours'] / 24, 0)} days"
    yield "made", row["created_at"][:16] or MISSING
    yield "last evidence", row["evidence_at"][:16] or MISSING
    yield "last looked at", row["changed_at"][:16] or MISSING
    yield "id", f"<code>{text(row['id'])}</code>"


def _amount(row: Mapping[str, Json]) -> str:
    if row["type"] == "pm_tuning":
        outcomes = row["stats"].get("outcomes", {})
        told = ", ".join(f"{text(name.replace('_', ' '))} {n:,}" for name, n in outcomes.items())
        return f"{number(row['stats'].get('tuning_n'), 0)} windows {soft(told)}"
    effective = f"effective {number(row['n_eff'], 1)}" if row["n_eff"] else ""
    return f"{number(row['n'], 0)} {'decisions' if row['channel'] == 'dm' else 'trades'} {soft(effective)}"


def _e_value(value: float) -> str:
    if value >= 1e6:
        return "above a million"
    return number(value, 0 if value >= 100 else 1 if value >= 10 else 2)


def _lever(lever: Mapping[str, Json]) -> str:
    bounds = f"from {lever['base']:.4g}, bounds {lever['lo']:.4g} to {lever['hi']:.4g}"
    return f"<b>{lever['target']:.4g}</b> {soft(bounds)}".replace("-", "−")


def _raw(stats: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    told = []
    if stats.get("avg_rr") is not None:
        told.append(f"mean rr {number(stats['avg_rr'], 3, signed=True, unit='R')}")
    if stats.get("baseline") is not None:
        told.append(f"family {number(stats['baseline'], 3, signed=True, unit='R')}")
    if (stats.get("variance") or 0.0) > 0.0:
        told.append(f"sd {number(stats['variance'] ** 0.5, 2)}")
    if stats.get("win_rate") is not None:
        told.append(f"wins {percent(stats['win_rate'], 0)}")
    if stats.get("time_efficiency") is not None:
        told.append(f"time efficiency {number(stats['time_efficiency'], 2)}")
    if stats.get("edge_raw") is not None:
        told.append(f"edge_raw {number(stats['edge_raw'], 4, signed=True)}")
    if told:
        yield "raw statistics", ", ".join(told)


def _money(row: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    moved, uplift = row["moved"], row["uplift"]
    if moved is None:
        return
    if not moved["nudged"]:
        yield "nudged", "nothing yet" if row["standing"] in ("finding", "acts") else "nothing"
        return
    what = "decisions" if row["channel"] == "dm" else "actions"
    if row["channel"] == "tuning":
        yield "nudged", f"{moved['nudged']:,} {what}"
    else:
        mean = f"×{number(moved['mean_multiplier'], 3)} on average"
        alone = soft(f"×{number(moved['own_multiplier'], 3)} by itself")
        yield "nudged", f"{moved['nudged']:,} {what}, {mean} {alone}"
        whole = soft(f"{number(moved['turned_usd'], 0)} USD in all")
        yield "moved", f"{signed(moved['moved_usd'], 0, 'USD')} net {whole}"
    if uplift is None:
        return
    if uplift["rr"]["ci90"] is None:
        held = soft(f"{uplift['holdout_trades']:,} holdout trades, {uplift['trades']:,} others")
        yield "against holdout", f"too few to say {held}"
        return
    for name, key, digits, unit in (
        ("rr, against holdout", "rr", 3, "R"),
        ("pnl per 100 USD", "pnl_per_100", 2, "USD"),
    ):
        one = uplift[key]
        yield name, f"{signed(one['difference'], digits, unit)} {soft(spread(one['ci90'], digits))}"
    yield (
        "compared",
        soft(f"{uplift['trades']:,} trades with {uplift['holdout_trades']:,} of the holdout, by {uplift['clusters']}"),
    )


def evidence(row: Mapping[str, Json]) -> float:
    """How far a lesson stands out: its log e-value, else its effect over its error; last where neither is known.

    >>> evidence({"log_e": None, "effect": -0.2, "se": 0.1}), evidence({"log_e": 1.5, "effect": 0.2, "se": 0.1})
    (2.0, 1.5)
    >>> evidence({"log_e": None, "effect": -0.2, "se": None})
    -1000000000.0
    """
    if row["log_e"] is not None:
        return float(row["log_e"])
    return abs(row["effect"]) / row["se"] if row["effect"] is not None and row["se"] else _LAST


def lever_text(row: Mapping[str, Json]) -> str:
    """The levers a lesson moves, on one line."""
    return ", ".join(f"{text(lever_name(one['name']))} {one['target']:.4g}" for one in row["levers"])


def pill(row: Mapping[str, Json]) -> str:
    """Where a lesson stands, and what an operator has done to it."""
    told = f'<span class="pill {row["standing"]}">{standing_words(row["standing"])}</span>'
    steered = [("muted", row["muted"]), ("pinned", row["pinned_at"]), ("held by a revert", row["held"])]
    return told + "".join(f' <span class="pill steered">{name}</span>' for name, on in steered if on)


def verdict_pill(verdict: str) -> str:
    """Where an interval lies."""
    return f'<span class="pill {_VERDICTS.get(verdict, "none")}">{text(verdict)}</span>'


def signed(value: float | None, digits: int, unit: str = "") -> str:
    """A number in the colour of its sign."""
    return f'<span class="{colour(value)}">{number(value, digits, signed=True, unit=unit)}</span>'


def soft(words: str) -> str:
    """Words that stand back; nothing for none."""
    return f'<span class="soft">{text(words)}</span>' if words else ""


def text(words: object) -> str:
    """Words as they may stand in the page."""
    return html.escape(str(words), quote=True)
