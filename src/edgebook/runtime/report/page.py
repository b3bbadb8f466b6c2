"""The report of a backtest as one HTML page: inline style and drawings, no script, no network, no other file.

Everything on it comes from the report object, so the page of a stored ``report.json`` is the same page.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgebook.runtime.report.metrics import BOOTSTRAP_DRAWS, MIN_DAYS, MIN_DAYS_YEARLY, MIN_WEEKS, UNTOLD
from edgebook.runtime.report.style import STYLE
from edgebook.runtime.report.svg import account_chart, interval_axis, interval_bar, interval_scale
from edgebook.runtime.report.text import MISSING, chance_note, findings, headlines, number, percent

Json = Any
NBSP = "\u00a0"
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CAUSES = {
    "pattern": "By first pattern",
    "curator": "By curator",
    "timeframe": "By timeframe",
}
_PILLS = {"above zero": "above", "below zero": "below", UNTOLD: ""}
_CHANNELS = {
    "dm_alloc": ("allocation", "allocations", "approved decisions whose allocation was nudged"),
    "pm_strength": ("pattern strength", "sizes", "planned actions whose size or aggression was nudged"),
    "pm_tuning": ("gates", "gates", "windows under learned gates"),
}


def page(found: Mapping[str, Json]) -> str:
    """The whole page of a backtest's report object."""
    metrics = found["metrics"]
    title = f"Backtest {metrics['period']['start'][:10]} to {metrics['period']['end'][:10]}"
    parts = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title} · edgebook</title>',
        '<meta name="viewport" content="width=device-width">',
        f"<style>{STYLE}</style></head><body>",
        *_header(found),
        *_told(metrics),
        *_cards(metrics),
        "<h2>The account, day by day</h2>",
        account_chart(metrics["daily"], metrics["account"]["start_usd"]),
        *_months(metrics),
        *(_groups(metrics) if metrics["trades"]["n"] else ()),
        *_learning(found),
        *_run(found),
        *_footer(),
        "</body></html>\n",
    )
    return "\n".join(parts)


def _header(found: Mapping[str, Json]) -> Iterator[str]:
    period, settings = found["metrics"]["period"], found["settings"]
    source = str(settings["feed"]).rstrip("/").rpartition("/")[2]
    learning = "on" if settings["learning_enabled"] else "off"
    yield f"<header><h1>Backtest of {_text(source)}</h1>"
    yield (
        f'<p class="sub">{period["start"][:16]} to {period["end"][:16]} UTC ({number(period["days"], 0)} days) · '
        f"timeframes {_text(', '.join(settings['timeframes']))} · learning {learning} · "
        f"{found['bars']:,} bars · {found['signals']:,} signals</p></header>"
    )


def _told(metrics: Mapping[str, Json]) -> Iterator[str]:
    """What the figures say, in sentences, before anyone reads a figure."""
    told = findings(metrics)
    verdicts = {metrics["trades"]["verdict"], metrics["trades"]["expectancy_verdict"], metrics["account"]["verdict"]}
    kind = _PILLS.get(verdicts.pop(), "") if len(verdicts) == 1 else ""
    yield f'<div class="told {kind}">'
    for sentence in told:
        yield f"<p>{_text(sentence).replace(UNTOLD, f'<strong>{UNTOLD}</strong>')}</p>"
    yield "</div>"


def _cards(metrics: Mapping[str, Json]) -> Iterator[str]:
    yield '<div class="cards">'
    for item in headlines(metrics):
        pill = f"<div>{_pill(item.verdict)}</div>" if item.verdict else ""
        yield (
            f'<div class="card"><div class="name">{item.name}</div><div class="value">{item.value}</div>'
            f'<div class="note">{_text(item.note.replace(" %", NBSP + "%"))}</div>{pill}</div>'
        )
    yield "</div>"


def _months(metrics: Mapping[str, Json]) -> Iterator[str]:
    """Returns of the account by year and month, coloured by size."""
    returns: Mapping[str, float] = metrics["monthly_returns"]
    largest = max((abs(value) for value in returns.values()), default=0.0) or 1.0
    yield "<h2>Monthly returns of the account</h2>"
    head = "".join(f"<th>{name}</th>" for name in ("", *_MONTH_NAMES, "Year"))
    yield f'<table class="months"><thead><tr>{head}</tr></thead><tbody>'
    for year in sorted({month[:4] for month in returns}):
        values = [returns.get(f"{year}-{month:02d}") for month in range(1, 13)]
        whole = 1.0
        for value in values:
            whole *= 1.0 + (value or 0.0)
        cells = "".join(_shade(value, largest) for value in values)
        yield f"<tr><td>{year}</td>{cells}<td><b>{percent(whole - 1.0, signed=True)}</b></td></tr>"
    yield "</tbody></table>"


def _shade(value: float | None, largest: float) -> str:
    if value is None:
        return "<td></td>"
    colour = "18,130,106" if value > 0 else "192,58,54"
    return f'<td style="background:rgba({colour},{0.55 * abs(value) / largest:.2f})">{percent(value, signed=True)}</td>'


def _groups(metrics: Mapping[str, Json]) -> Iterator[str]:
    """Where the trades came from and went to, each group against zero."""
    groups = metrics["groups"]
    yield "<h2>Groups of trades</h2>"
    yield f'<p class="soft">{_text(chance_note(groups, tuple(_CAUSES)))} Money in USD.</p>'
    scale = interval_scale([row for name in _CAUSES for row in groups[name]])
    for name, title in _CAUSES.items():
        yield from _group_table(title, sorted(groups[name], key=lambda row: -row["n"]), scale)
    rows = groups["exit_reason"]
    yield from _group_table("By exit reason", sorted(rows, key=lambda row: -row["n"]), interval_scale(rows))
    yield '<p class="soft">How a trade ends is known at its end only: this table describes, it predicts nothing.</p>'
    yield "<details><summary>By month of closing</summary>"
    yield from _group_table("", groups["month"], interval_scale(groups["month"]))
    yield "</details>"
    yield from _extremes(metrics["trades"])


def _group_table(title: str, rows: Sequence[Mapping[str, Json]], scale: tuple[float, float]) -> Iterator[str]:
    head = (title, "n", "weeks", "win rate, 95 %", "mean rr, 90 %")
    yield f'<table class="groups"><thead><tr>{"".join(f"<th>{name}</th>" for name in head)}'
    yield f'<th class="plot">{interval_axis(scale)}</th><th class="left"></th><th>pnl</th><th>fees</th>'
    yield "</tr></thead><tbody>"
    for row in rows:
        win, rr = row["win_rate_ci95"], row["rr_ci90"]
        wins = f'<span class="ci">{percent(win[0], 0)} to {percent(win[1], 0)}</span>' if win else ""
        span = f'<span class="ci">{" to ".join(number(x, 2, signed=True) for x in rr)}</span>' if rr else ""
        yield (
            f"<tr><td>{_text(row['group'])}</td><td>{row['n']:,}</td><td>{row['weeks']}</td>"
            f"<td>{percent(row['win_rate'], 0)}{wins}</td><td>{number(row['mean_rr'], 2, signed=True)}{span}</td>"
            f'<td class="plot">{interval_bar(row, scale)}</td><td class="left">{_pill(row["verdict"])}</td>'
            f"<td>{_signed(row['pnl_usd'])}</td><td>{number(row['fees_usd'], 0)}</td></tr>"
        )
    yield "</tbody></table>"


def _extremes(trades: Mapping[str, Json]) -> Iterator[str]:
    yield "<h3>Best and worst trade</h3><table><thead><tr><th></th><th class='left'>token</th>"
    yield "<th class='left'>opened</th><th class='left'>closed</th><th>pnl, USD</th><th>rr</th>"
    yield "<th class='left'>id, for edgebook explain</th></tr></thead><tbody>"
    for name in ("best", "worst"):
        row = trades[name]
        yield (
            f'<tr><td>{name}</td><td class="left">{_text(row["symbol"])} {row["timeframe"]}</td>'
            f'<td class="left">{row["opened_at"][:16]}</td><td class="left">{row["closed_at"][:16]}</td>'
            f"<td>{_signed(row['pnl_usd'])}</td><td>{number(row['rr'], 2, signed=True)}</td>"
            f'<td class="left"><code>{row["trade_id"]}</code></td></tr>'
        )
    yield "</tbody></table>"


def _learning(found: Mapping[str, Json]) -> Iterator[str]:
    """What was learned, what of it acts, and who stays silent for which reason."""
    yield "<h2>Learning</h2>"
    if not found["settings"]["learning_enabled"]:
        yield "<p>Learning was off: evidence was gathered, every lever stood at its neutral value.</p>"
    yield "<table><thead><tr><th>channel</th><th class='left'>lessons</th><th>overrides in force</th><th>nudged</th>"
    yield "<th class='left'></th></tr></thead><tbody>"
    for kind, (name, nudged, what) in _CHANNELS.items():
        lessons = ", ".join(f"{n} {status}" for status, n in found["lessons"][kind].items()) or "none"
        yield (
            f'<tr><td>{name}</td><td class="left">{_text(lessons)}</td><td>{found["overrides"][kind]:,}</td>'
            f'<td>{found["nudged"][nudged]:,}</td><td class="left soft">{what}</td></tr>'
        )
    yield "</tbody></table>"
    yield f"<p class='sub'>Flags that learned gates changed: {found['flags_changed']:,}. Config version: "
    yield f"{found['config_version']:,}.</p>"
    silent = found["silent_families"]
    if silent:
        yield f"<details><summary>{len(silent)} families that do not act, and why</summary><dl>"
        yield from (f"<dt>{_family(name)}</dt><dd>{_text(why)}</dd>" for name, why in sorted(silent.items()))
        yield "</dl></details>"


def _run(found: Mapping[str, Json]) -> Iterator[str]:
    """Counts, settings and the head of the log: what it takes to make the same run again."""
    counts = {
        "decisions": _counts(found["decisions"]),
        "positions": f"{found['positions']:,}",
        "fills": _counts(found["actions"]),
        **{f"episodes {name}": _counts(found["episodes"][name]) for name in sorted(found["episodes"])},
        "strands": f"{sum(found['strands'].values()):,}",
        "dead letters": f"{found['dead_letters']:,}",
        "timeframes dropped": ", ".join(found["dropped_timeframes"]) or "none",
        "drawdown of realised pnl": percent(found["trades"]["max_drawdown"]),
        "walked in": f"{number(found['wall_s'], 1)} s",
        "log head": f"<code>{_text(found['log_head'])}</code>",
    }
    yield '<h2>The run</h2><div class="pair"><dl>'
    yield from (f"<dt>{name}</dt><dd>{value}</dd>" for name, value in counts.items())
    yield "</dl><dl>"
    yield from (f"<dt>{_text(name)}</dt><dd>{_setting(value)}</dd>" for name, value in found["settings"].items())
    yield "</dl></div>"


def _footer() -> Iterator[str]:
    yield f"""<footer><p>Figures of the account are those of its value at one midnight (UTC) after another, marked to
market with open trades in it, after fees and slippage; a year has 365 days, the risk-free rate is 0. {MISSING} stands
where the data cannot carry a figure: ratios need {MIN_DAYS} days, growth per year {MIN_DAYS_YEARLY}, an interval
{MIN_WEEKS} calendar weeks. rr is a trade's return over its own worst loss. 90 % intervals resample whole calendar weeks
({BOOTSTRAP_DRAWS:,} draws, tails widened for few weeks), because trades of one week share its shocks; the 95 % interval
of a win rate is Wilson's and takes trades as independent, so it is too narrow. An interval that holds zero means: this
figure cannot be told from zero.</p><p>Past prices, paper fills. This is software, not financial advice.</p></footer>"""


def _pill(verdict: str) -> str:
    return f'<span class="pill {_PILLS.get(verdict, "none")}">{verdict}</span>'


def _signed(value: float) -> str:
    kind = "up" if value > 0 else "down" if value < 0 else ""
    return f'<span class="{kind}">{number(value, 0, signed=True)}</span>'


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_text(name)} {n:,}" for name, n in counts.items()) or "none"


def _family(name: str) -> str:
    module, _, rest = name.partition("|")
    return _text(f"{module} {rest.rpartition('pattern_key=')[2].replace('|', ' ')}")


def _setting(value: Json) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return _text(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _text(text: object) -> str:
    return html.escape(str(text), quote=False)
