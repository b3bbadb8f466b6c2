"""What was learnt, as one HTML page: inline style and drawings, nothing from elsewhere, well-formed as XML.

Everything on it comes from the facts of `runtime.lesson_views`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebook.domain.errors import InputError
from edgebook.runtime.lesson_words import CHANNEL_NAMES, CHANNEL_NOTES, count, lever_name, scope_words
from edgebook.runtime.report.lesson_body import body, evidence, lever_text, pill, signed, text, verdict_pill
from edgebook.runtime.report.lessons_style import SCRIPT, STYLE
from edgebook.runtime.report.lessons_svg import Scale, axis, colour, forest, gate, scale_of, waterfall, wide
from edgebook.runtime.report.text import MISSING, number, spread

Json = Any
SHOWN = 40  # lessons of a family shown at once
PAST = 12  # given-up lessons of a family shown
_GROUPS = {
    "dims": "single circumstances",
    "market_dims": "market-wide circumstances",
    "cells": "combinations",
    "pairs": "pairs",
    "market_pairs": "pairs with market-wide ones",
}
_COLOURS = {"above zero": "up", "below zero": "down"}


def write_page(found: Mapping[str, Json], path: Path) -> None:
    """Write the page of ``found`` to a file.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--report {path}: {error.strerror}; give a file in a folder that can be written to"
        ) from error


def page(found: Mapping[str, Json]) -> str:
    """The whole page."""
    families, rows = found["families"], found["lessons"]
    acting = [family for family in families if family["acting"]]
    silent = [f for f in families if not f["acting"] and f["reason"] != "no_lever"]
    parts = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>What was learnt · edgebook</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<style>{STYLE}</style></head><body>",
        *_header(found),
        *_channels(found["channels"]),
        *_index(families, rows),
        *_acting(acting, rows),
        *_silent(silent, rows),
        *_words(),
        f"<script>{SCRIPT}</script></body></html>\n",
    )
    return "\n".join(parts)


# ------------------------------------------------------------------ the whole


def _header(found: Mapping[str, Json]) -> Iterator[str]:
    head, standing = found["head"], found["head"]["standing"]
    yield '<header><h1>What was learnt, and whether to believe it</h1><p class="sub">'
    at = f"{head['at'][:16]} UTC" if head["at"] else "no time yet"
    yield f"{text(head['source'])} · {at} · config version {head['config_version']:,}</p>"
    yield f'</header><div class="told"><p class="first">{text(head["sentence"])}</p>'
    yield from (f"<p>{text(line)}</p>" for line in _earned(found["channels"]))
    yield '</div><div class="cards">'
    speaking = head["families"] - head["silent_families"]
    cards = (
        ("Closed trades", f"{head['trades']:,}", "learnt from"),
        ("Families", f"{speaking:,} of {head['families']:,}", "speak"),
        ("Findings", f"{standing.get('finding', 0):,}", "clear of chance"),
        ("Candidates", f"{standing.get('acts', 0):,}", "act with less force"),
        ("Given up", f"{standing.get('deprecated', 0):,}", "no longer hold"),
        ("Config version", f"{head['config_version']:,}", "in force now"),
    )
    for name, value, note in cards:
        yield (
            f'<div class="card"><div class="name">{name}</div><div class="value">{value}</div>'
            f'<div class="note">{note}</div></div>'
        )
    yield "</div>"


def _earned(channels: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    """What the holdout says of each channel that has nudged anything."""
    for row in channels:
        if not row["nudged"]:
            continue
        rr, name = row["uplift"]["rr"], CHANNEL_NAMES[row["channel"]]
        if rr["ci90"] is None:
            yield f"{name}: too few holdout trades to say whether it earns anything."
            continue
        gap = number(rr["difference"], 3, signed=True, unit="R")
        yield f"{name} against its holdout: {gap} per trade ({spread(rr['ci90'], 3)}), which {_is(rr['verdict'])}."


def _is(verdict: str) -> str:
    return f"is {verdict}" if verdict in _COLOURS else verdict


def _channels(channels: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    if not channels:
        return
    yield "<h2>What it moved, and what that earned</h2>"
    yield '<p class="sub">A stable tenth of decisions and attempts, the holdout, runs without learning. Both arms are '
    yield "weighted by the capital they used, since learning moves capital and not prices.</p>"
    yield '<div class="channels">'
    rr = scale_of([end for row in channels for end in row["uplift"]["rr"]["ci90"] or ()])
    pnl = scale_of([end for row in channels for end in row["uplift"]["pnl_per_100"]["ci90"] or ()])
    for row in channels:
        yield f'<div class="channel" id="channel-{row["channel"]}"><h3>{CHANNEL_NAMES[row["channel"]]}</h3>'
        yield f'<div class="note">{CHANNEL_NOTES[row["channel"]]}</div>'
        yield from _channel(row, rr, pnl)
        yield "</div>"
    yield "</div>"


def _channel(row: Mapping[str, Json], rr: Scale, pnl: Scale) -> Iterator[str]:
    what = {"dm": "decisions", "strength": "actions", "tuning": "buys"}[row["channel"]]
    if not row["nudged"]:
        yield f"<p>Nothing nudged yet, of {row['asked']:,} {what}.</p>"
        return
    told = f"<p><b>{row['nudged']:,}</b> of {row['asked']:,} {what} nudged since {row['since'][:10]}"
    if row["channel"] == "tuning":
        yield f"{told}.</p>"
    else:
        yield f"{told}, on average ×{number(row['mean_multiplier'], 3)}.</p>"
        yield f"<p>{signed(row['moved_usd'], 0, 'USD')} net moved, {number(row['turned_usd'], 0)} USD in all.</p>"
    found = row["uplift"]
    for name, key, digits, scale in (("rr per trade, R", "rr", 3, rr), ("pnl per 100 USD", "pnl_per_100", 2, pnl)):
        one = found[key]
        yield f'<div class="test"><div class="what"><span>{name}</span>{verdict_pill(one["verdict"])}</div>'
        if one["ci90"] is not None:
            kind = _COLOURS.get(one["verdict"], "untold")
            yield f"<div><b>{signed(one['difference'], digits)}</b> "
            yield f'<span class="soft">{spread(one["ci90"], digits)}</span></div>'
            yield wide(one["difference"], one["ci90"], scale, kind)
        arms = [number(one[arm], digits, signed=True) for arm in ("nudged", "holdout")]
        trades = f"{found['trades']:,} trades, holdout {arms[1]} in {found['holdout_trades']:,}"
        over = f"; interval over {found['clusters']}s" if one["ci90"] is not None else ""
        yield f'<div class="arms">{arms[0]} in {trades}{over}</div></div>'


def _index(families: Sequence[Mapping[str, Json]], rows: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    yield "<h2>All families</h2>"
    yield '<table class="index"><thead><tr><th>family</th><th class="left">channel</th><th>trades</th><th>findings</th>'
    yield '<th>candidates</th><th class="wide">given up</th><th class="left wide">strongest, or why it is silent</th>'
    yield "</tr></thead><tbody>"
    for place, family in enumerate(families):
        standing = [rows[ident]["standing"] for ident in family["acting"]]
        findings, candidates = standing.count("finding"), standing.count("acts")
        name = text(family["pattern_words"])
        link = f'<a href="#{anchor(family)}">{name}</a>' if family["reason"] != "no_lever" else name
        yield (
            f'<tr data-place="{place}"><td>{link}</td><td class="left">{CHANNEL_NAMES[family["channel"]]}</td>'
            f"<td>{family['n']:,}</td><td>{findings or MISSING}</td><td>{candidates or MISSING}</td>"
            f'<td class="wide">{len(family["given_up"]) or MISSING}</td>'
            f'<td class="left wide">{_strongest(family, rows)}</td></tr>'
        )
    yield "</tbody></table>"


def _strongest(family: Mapping[str, Json], rows: Mapping[str, Mapping[str, Json]]) -> str:
    acting = [rows[ident] for ident in family["acting"]]
    if not acting:
        return f'<span class="soft">{text(family["reason_words"])}</span>'
    best = max(acting, key=lambda row: (row["standing"] == "finding", evidence(row), row["id"]))
    told = signed(best["effect"], 3, "R") if best["effect"] is not None else lever_text(best)
    return f"{text(best['scope_words'])}: {told}"


def anchor(family: Mapping[str, Json]) -> str:
    """Id of a family's block on the page.

    >>> anchor({"type": "pm_strength", "family": "pm|module=pm|pattern_key=uptrend.S1.buy_flag|entry"})
    'pm_strength-pm-module-pm-pattern_key-uptrend-S1-buy_flag-entry'
    """
    name = f"{family['type']}-{family['family']}"
    return "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in name)


# ------------------------------------------------------------------ families that act


def _acting(families: Sequence[Mapping[str, Json]], rows: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    channel = ""
    for family in families:
        if family["channel"] != channel:
            channel = family["channel"]
            yield f"<h2>{CHANNEL_NAMES[channel]}: {CHANNEL_NOTES[channel]}</h2>"
        yield from _family(family, rows)
    if not families:
        yield "<h2>Lessons</h2><p>No family speaks yet.</p>"


def _family(family: Mapping[str, Json], rows: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    acting = [rows[ident] for ident in family["acting"]]
    gates = family["type"] == "pm_tuning"
    yield f'<section class="family" id="{anchor(family)}"><div class="about"><h3>{text(family["pattern_words"])}</h3>'
    yield f'<span class="meta">{_meta(family)}</span>'
    if len(acting) > 1 and not gates:
        yield '<span class="orders" role="group" aria-label="order of rows">'
        orders = (("order", "tree"), ("effect", "effect"), ("evidence", "evidence"), ("n", "trades"))
        for key, name in orders:
            yield f'<button type="button" data-by="{key}" aria-pressed="{str(key == "order").lower()}">{name}</button>'
        yield "</span>"
    yield "</div>"
    shown = _shown(acting, rows)
    hidden = len(acting) - len(shown)
    if hidden:
        yield f'<input class="more" type="checkbox" id="more-{anchor(family)}"/>'
    yield from _rows(acting, rows, shown, gates=gates)
    if hidden:
        yield f'<label class="label" for="more-{anchor(family)}">'
        yield f'<span class="closed">Show {hidden:,} smaller ones</span>'
        yield '<span class="opened">Show the strongest only</span></label>'
    yield from _given_up(family, rows)
    yield "</section>"


def _meta(family: Mapping[str, Json]) -> str:
    told = [count(family["n"], "decision" if family["channel"] == "dm" else "trade")]
    if family["mean"] is not None:
        what = "trimming against holding on" if family["action_category"] == "trim" else "mean"
        told.append(f"{what} {number(family['mean'], 3, signed=True, unit='R')}")
    nats = [f"{_GROUPS.get(k, k)} {number(v, 2)}" for k, v in family["nats"].items() if v >= 0.005]
    if nats:
        told.append(f"evidence in nats: {', '.join(nats)}")
    slope, se, n = (family["calibration"].get(name) for name in ("slope", "se", "n"))
    if slope is not None and se is not None:
        span = f"{number(slope, 2)} ± {number(se, 2)}"
        told.append(f"{number(n, 0)} later outcomes follow earlier predictions with slope {span}")
    return text(" · ".join(told))


def _shown(acting: Sequence[Mapping[str, Json]], rows: Mapping[str, Mapping[str, Json]]) -> set[str]:
    """Lessons of a family to show at once: findings, the largest effects, and what they stand under in the tree."""
    ranked = sorted(acting, key=lambda row: (row["standing"] != "finding", -abs(row["effect"] or 0.0), row["id"]))
    shown: set[str] = set()
    for row in ranked[:SHOWN]:
        above: Mapping[str, Json] | None = row
        while above is not None:
            shown.add(above["id"])
            above = rows[above["parent"]] if above["parent"] else None
    return shown


def _rows(
    lessons: Sequence[Mapping[str, Json]],
    rows: Mapping[str, Mapping[str, Json]],
    shown: set[str],
    *,
    gates: bool = False,
) -> Iterator[str]:
    effects = [row["effect"] for row in lessons if row["effect"] is not None]
    scale = scale_of([end for row in lessons for end in row["interval"] or ()], effects)
    totals = scale_of([x for row in lessons for x in (row["effect_total"], row["inherited"]) if x is not None])
    plot = "gate in its bounds, base marked" if gates else f"effect beyond its parents, R{axis(scale)}"
    whole = "" if gates else f"with its parents, R{axis(totals, total=True)}"
    yield '<div class="rows"><div class="row head"><span class="scope">where</span>'
    yield f'<span class="plot">{plot}</span><span class="figure">{"score" if gates else "90 % interval"}</span>'
    yield f'<span class="total">{whole}</span><span class="n">n</span>'
    yield f'<span class="mult">{"target" if gates else "asks for"}</span><span class="state">status</span></div>'
    for place, row in enumerate(lessons):
        yield from _row(row, rows, scale, totals, place, small=row["id"] not in shown)
    yield "</div>"


def _row(
    row: Mapping[str, Json],
    rows: Mapping[str, Mapping[str, Json]],
    scale: Scale,
    totals: Scale,
    place: int,
    *,
    small: bool = False,
) -> Iterator[str]:
    level = row.get("level", 0)
    names = [
        "lesson",
        *(["deep"] if level else []),
        *(["small"] if small else []),
        *(["muted"] if row["muted"] else []),
    ]
    yield f'<details class="{" ".join(names)}" style="--level:{level}" data-id="{row["id"]}" data-order="{place}" '
    yield f'data-effect="{row["effect"] or 0.0!r}" data-evidence="{evidence(row)!r}" data-n="{row["n"] or 0}">'
    yield f'<summary class="row"><span class="scope">{_scope(row, rows)}</span>'
    yield f'<span class="plot">{_plot(row, scale)}</span><span class="figure">{_figure(row)}</span>'
    whole = waterfall(row["inherited"], row["effect_total"], totals) if row["inherited"] is not None else ""
    yield f'<span class="total">{whole}</span><span class="n">{number(row["n"], 0)}</span>'
    yield f'<span class="mult">{_asks(row)}</span><span class="state">{pill(row)}</span></summary>'
    yield f"{body(row)}</details>"


def _scope(row: Mapping[str, Json], rows: Mapping[str, Mapping[str, Json]]) -> str:
    """The scope; below a parent, what it adds comes first and what the parent says is quiet."""
    parent = rows[row["parent"]]["scope"] if row["parent"] else {}
    if not parent:
        return text(row["scope_words"])
    own = {dim: value for dim, value in row["scope"].items() if dim not in parent}
    return f'{text(scope_words(own))} <span class="soft">in {text(scope_words(parent))}</span>'


def _plot(row: Mapping[str, Json], scale: Scale) -> str:
    if row["type"] == "pm_tuning":
        return "".join(map(gate, row["levers"]))
    kind = "none" if row["standing"] in ("silent", "deprecated") else ""
    return forest(row["effect"], row["interval"], scale, sure=row["standing"] == "finding", kind=kind)


def _figure(row: Mapping[str, Json]) -> str:
    if row["type"] == "pm_tuning":
        return number(row["stats"].get("tuning_score"), 3, signed=True)
    if row["effect"] is None:
        return MISSING
    told = f'<b class="{colour(row["effect"])}">{number(row["effect"], 3, signed=True)}</b>'
    if row["interval"] is None:
        return told
    low, high = (number(x, 2, signed=True) for x in row["interval"])
    return f"{told}<span>{low} to {high}</span>"


def _asks(row: Mapping[str, Json]) -> str:
    if row["type"] == "pm_tuning":
        return "<br/>".join(f"{text(lever_name(one['name']))} {one['target']:.4g}" for one in row["levers"])
    if row["standing"] in ("silent", "deprecated") or row["multiplier"] is None:
        return MISSING
    return f"×{number(row['multiplier'], 3)}"


def _given_up(family: Mapping[str, Json], rows: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    past = [rows[ident] for ident in family["given_up"]]
    if not past:
        return
    yield f'<details class="fold"><summary class="line">{count(len(past), "lesson")} given up</summary>'
    yield from _rows(past[:PAST], rows, {row["id"] for row in past})
    if len(past) > PAST:
        yield f'<p class="sub">The newest {PAST} are shown; --json has all {len(past):,}.</p>'
    yield "</details>"


# ------------------------------------------------------------------ families that are silent


def _silent(families: Sequence[Mapping[str, Json]], rows: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    if not families:
        return
    yield "<h2>Rejected as noise</h2>"
    yield '<p class="sub">Families in which nothing is believed, with the reason and, where the fit kept them, the '
    yield "slices that stood out most.</p>"
    for family in families:
        name = f"{family['pattern_words']}{' (gates)' if family['type'] == 'pm_tuning' else ''}"
        yield f'<details class="quiet fold" id="{anchor(family)}"><summary class="line"><b>{text(name)}</b>'
        yield f'<span class="soft">{_meta(family)}</span><span>{text(family["reason_words"])}</span></summary>'
        yield '<div class="inner">'
        slices = [rows[ident] for ident in family["slices"]]
        if slices:
            yield "<h4>Strongest slices, not believed</h4>"
            yield from _rows(slices, rows, {row["id"] for row in slices})
        for ident in family["notes"]:
            yield f"<h4>The family as a whole</h4>{body(rows[ident])}"
        yield from _given_up(family, rows)
        yield "</div></details>"


def _words() -> Iterator[str]:
    told = {
        "Effect": "what a circumstance adds to the outcome of a trade beyond its parents (the circumstances it is part "
        "of), in R, after shrinking. The bar is its 90 % posterior interval.",
        "Total": "the effect with all its parents: grey what they say, coloured what this lesson adds.",
        "Filled and hollow dots": "findings are filled; candidates, which act with less force, are hollow.",
        "lfsr": "local false sign rate: the chance that the effect has the other sign.",
        "e-value": "how many times a bet against chance on this slice would have multiplied, times the slice's share "
        "of the bets; above 1 speaks for the slice, and one may look as often as one likes.",
        "n and effective n": "trades in the slice, and how many independent ones they are worth: trades of one day and "
        "token share their shocks.",
        "Slope": "how later outcomes of a family followed what it had predicted: 1 is as predicted, 0 not at all.",
        "Half-life": "after this long without new evidence a lesson pulls half as strongly.",
        "Nats": "how much better the fit with such circumstances explains the family than the fit without (log "
        "likelihood).",
        "edge_raw": "the raw edge score of the slice; it is shown for audit and drives nothing.",
        "Moved": "what fills would have been smaller or larger by without learning; of several lessons each answers in "
        "proportion to its pull.",
        "Against the holdout": "intervals count weeks (days where the holdout has trades in fewer than five weeks: too "
        "narrow where weeks differ). About one in ten lies clear of zero by chance.",
        "Mean rr so far": "intervals count days of closing. They are not corrected for looking every day.",
    }
    yield '<details class="fold"><summary class="line">What the words mean</summary><div class="words">'
    yield from (f"<p><b>{name}</b>: {meaning}</p>" for name, meaning in told.items())
    yield "</div></details><footer>Past prices are no promise. This is software, not financial advice.</footer>"
