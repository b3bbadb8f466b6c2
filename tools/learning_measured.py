"""The page about what learning does, from the figures that four scripts measured.

    mkdir -p /tmp/found /tmp/books
    python bench/null_campaign.py --json > /tmp/found/null_campaign.jsonl
    python -m tools.uplift_on_real_bars --books /tmp/books --plot docs/img/learning/alloc_by_curator.png \\
        --json > /tmp/found/uplift_on_real_bars.jsonl
    python -m tools.random_labels /tmp/books/coins-2021-23-on.db /tmp/books/coins-2025q1-on.db --json \\
        > /tmp/found/random_labels.jsonl
    python -m tools.random_labels /tmp/books/coins-2021-23-on.db --pm 1 --neighbour-hours 2 --constant-for "6 h" \\
        --json > /tmp/found/random_labels_2h.jsonl
    python bench/lessons.py --book /tmp/books/coins-2021-23-on.db --json > /tmp/found/lessons.jsonl
    python -m tools.learning_measured /tmp/found --date YYYY-MM-DD --commit COMMIT --out docs/learning_measured.md

Sentences that judge are built from the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebook.learning.config import DEFAULT

Row = Mapping[str, Any]
PLOT = Path("img/learning/alloc_by_curator.png")


def found(folder: Path, name: str) -> list[dict[str, Any]]:
    """The figures of one script; its parts may stand in several files."""
    files = sorted(folder.glob(f"{name}*.jsonl"))
    if not files:
        raise SystemExit(f"learning_measured: no {name}*.jsonl in {folder}; see the head of this script")
    return [json.loads(line) for file in files for line in file.read_text().splitlines() if line]


def share(row: Row) -> str:
    """Hits of tries, the share, its interval; blanks where there is nothing.

    >>> share({"hits": 1, "of": 200, "share": 0.005, "ci95": [0.0001, 0.0275]})
    '1 of 200 = .5 % [.0, 2.8]'
    """
    low, high = row["ci95"]
    return f"{row['hits']} of {row['of']} = {percent(row['share'])} % [{percent(low)}, {percent(high)}]"


def percent(x: float) -> str:
    """A share in per cent, one decimal.

    >>> percent(0.005), percent(0.125)
    ('.5', '12.5')
    """
    text = f"{100 * x:.1f}"
    return text[1:] if text.startswith("0.") else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table with its first column to the left."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --- |" * (len(head) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


# ---- noise, planted


def null_part(rows: Sequence[Row]) -> Iterator[str]:
    """Section 1."""
    yield "## 1. Noise, and what is planted"
    yield ""
    null = [row for row in rows if row["work"].startswith("null")]
    active, acts, moved = null
    yield (
        f"{active['of']} histories of 1,500 trades without any effect, twelve kinds in turn (t-distributed or skewed "
        f"outcomes; with or without day and week shocks; dims independent, correlated, or with market-wide ones), each "
        f"learnt anew through `edgebook.learn` after every 100 trades. Intervals are exact binomial, 95 %."
    )
    yield ""
    yield from table(
        ["on noise", "share [95 %]", "line"],
        [
            ["a lesson is ever claimed (`active`)", share(active), "at most 10 %"],
            ["a family ever acts, in 15 looks", share(acts), "-"],
            ["looks at which a family acts", share(acts["looks"]), "-"],
        ],
    )
    met = active["share"] <= active["limit"]
    yield (
        f"Ever claimed {'is within' if met else 'exceeds'} the line of 10 %. Advice on noise moves sizes by mean "
        f"abs(ln m) = {moved['ours']:.4f}; in the worst history {moved['worst_history']:.3f}. Groups that acted: "
        f"{', '.join(f'{name} in {count}' for name, count in acts['groups'].items()) or 'none'}."
    )
    yield ""
    kinds = [
        [kind, share(row["active"]), share(row["acts"]), f"{row['abs_ln']:.4f}"]
        for kind, row in active["per_kind"].items()
    ]
    yield from table(["histories with", "ever claimed", "ever acts", "mean abs(ln m)"], kinds)
    planted = [row for row in rows if row["work"].startswith("planted")]
    yield from table(
        ["planted +.5 R, sd 1.3, one look", "share [95 %]", "line"],
        [[_planted(row), share(row), _at_least(row)] for row in planted],
    )
    yield (
        "*Acts* is advice above 1 for a context of the slice, by whatever lesson; *row* and *claimed* ask for a lesson "
        "on the very slice. Advice for a pair "
        "comes mostly from other rows than its own."
    )
    yield ""
    flipped = [row for row in rows if row["work"].startswith("flipped")]
    yield from table(
        ["+.6 R, then -.6 R on a fifth of the trades", "right within two half-lives",
         "not wrong any more within two", "trades until right: median, p90",
         "half-lives: median, p90", "trades until not wrong: median"],
        [
            [row["work"].split(", ", 2)[2].partition(": ")[0], share(row), share(row["not_wrong"]),
             f"{_or_never(row['trades_median'])}, {_or_never(row['trades_p90'])}",
             f"{_or_never(row['half_lives_median'])}, {_or_never(row['half_lives_p90'])}",
             _or_never(row["neutral_trades_median"])]
            for row in flipped
        ],
    )  # fmt: skip
    slow = [row for row in flipped if row["share"] < 0.5]
    yield (
        f"Right within two half-lives was wanted. It is missed in {sum(row['of'] - row['hits'] for row in flipped)} of "
        f"{sum(row['of'] for row in flipped)} histories"
        + (
            f", in most of those with {slow[0]['work'].split(', ')[3].replace('one each', 'a trade each')}. "
            if slow
            else ". "
        )
        + "A half-life is the 720 hours of channel 2; *never* is beyond the end of the history. *Not wrong* is advice "
        "of 1 or less: the family may fall silent before it turns round."
    )
    yield ""


def _planted(row: Row) -> str:
    return str(row["work"]).split(", ", 1)[1].removeprefix("+.5 R on ").replace(", 100 seeds", "")


def _at_least(row: Row) -> str:
    if "at_least" not in row:
        return "-"
    return f"at least {percent(row['at_least'])} %: {'met' if row['share'] >= row['at_least'] else 'MISSED'}"


def _or_never(x: float | None) -> str:
    return "never" if x is None else f"{x:,.1f}".rstrip("0").rstrip(".") if x < 100 else f"{x:,.0f}"


# ---- random labels


def labels_part(found_rows: Sequence[Row]) -> Iterator[str]:
    """Section 2."""
    rows = [row for row in found_rows if row["neighbour_hours"] == DEFAULT.market_neighbour_hours]
    yield "## 2. Random labels on real trades"
    yield ""
    yield (
        "Closed trades of the two backtests; each gets a random label of four levels that all tokens share for 6 "
        "hours, a day or a week, 200 draws. *Alone*: the label is the whole schema, and the family acts. *Beside*: the "
        "real dims stay, and the label's group is admitted; where it is admitted without any label, too, that "
        "says nothing, so the last column tells how often a lesson about the label moves a size by 5 % or more. "
        "The line is 7 %."
    )
    yield ""
    alone = [row for row in rows if row["schema"] == "alone"]
    yield from table(
        ["alone: set", "family", "trades", "constant for", "admitted, one look", "at any of ten looks"],
        [
            [row["book"].removesuffix("-on"), row["family"], f"{row['trades']:,}", row["constant_for"],
             share(row["admitted"]) + _over(row["admitted"]),
             share(row["ever_admitted"]) if "ever_admitted" in row else "-"]
            for row in alone
        ],
    )  # fmt: skip
    beside = [row for row in rows if row["schema"] == "beside"]
    yield from table(
        ["beside: set", "family", "constant for", "its group is admitted", "acts without it", "the label moves 5 %"],
        [
            [row["book"].removesuffix("-on"), row["family"], row["constant_for"],
             share(row["admitted"]) + _over(row["admitted_where_it_was_not_without"]),
             ", ".join(row["groups_without_label"]) or "nothing",
             share(row["label_moves_5_percent"]) + _over(row["label_moves_5_percent"])]
            for row in beside
        ],
    )  # fmt: skip
    yield from _labels_said(alone, beside)
    yield from _what_if([row for row in found_rows if row["neighbour_hours"] != DEFAULT.market_neighbour_hours])


def _over(row: Row) -> str:
    """A mark where a share is above the line of 7 %; two where its interval is as well."""
    return "" if row["share"] <= 0.07 else " !" if row["ci95"][0] <= 0.07 else " !!"


def _labels_said(alone: Sequence[Row], beside: Sequence[Row]) -> Iterator[str]:
    for what, rows, key in (
        ("Alone", alone, "admitted"),
        ("Beside, a group that was not admitted without the label", beside, "admitted_where_it_was_not_without"),
        ("Beside, a lesson about the label that moves 5 %", beside, "label_moves_5_percent"),
    ):
        over = [row for row in rows if row[key]["share"] > 0.07]
        sure = [row for row in over if row[key]["ci95"][0] > 0.07]
        hits, of = (sum(row[key][part] for row in rows) for part in ("hits", "of"))
        worst = max(rows, key=lambda row: row[key]["share"])
        yield (
            f"- {what}: {len(over)} of {len(rows)} rows exceed 7 % (marked !), {len(sure)} beyond doubt (!!); "
            f"{percent(hits / of)} % over all; the worst is {worst['book'].removesuffix('-on')}, "
            f"{worst['family']}, {worst['constant_for']}, with "
            f"{percent(worst[key]['share'])} %."
        )
    unseen = [row for row in (*alone, *beside) if row["seen_as_market_wide"] < 0.5]
    if unseen:
        names = sorted({f"{row['book'].removesuffix('-on')}, {row['constant_for']}" for row in unseen})
        yield (
            f"- A label is not recognised as market-wide in most draws of: {'; '.join(names)}. There it is judged as "
            f"a dim that differs between tokens, with that group's lower gate."
        )
    near = [row for row in beside if not row["groups_without_label"] and row["nats_without_label"].get("dims", 0) > 1]
    for name, family, nats in sorted({(r["book"], r["family"], r["nats_without_label"]["dims"]) for r in near}):
        yield (
            f"- {name.removesuffix('-on')}, {family}: its real dims stand at {nats:.2f} nats, just below the gate of "
            f"1.35 of a first fit, so a label needs to add little; the walk itself acts there, as a family that has "
            f"acted may go on down to .5."
        )
    inside = [row for row in beside if row["label_moves_5_percent"]["share"] > 0.07 and row["groups_without_label"]]
    if inside:
        yield (
            "- Where a family acts anyway, a label comes in without its group: as part of a slice of two or three dims "
            "(a value of the label with a real value), whose gate is open once any dim acts."
        )
    looks = [row["ever_admitted"]["share"] for row in alone if "ever_admitted" in row]
    if looks:
        yield (
            f"- Ten looks as trades come in admit a label at some look in {percent(min(looks))} to "
            f"{percent(max(looks))} % of draws: the line is for one look, a running system looks often."
        )
    yield ""


def _what_if(rows: Sequence[Row]) -> Iterator[str]:
    """What comparing only nearer neighbours in time would change."""
    if not rows:
        return
    yield (
        f"What if entries count as neighbours only within {rows[0]['neighbour_hours']:g} hours instead of "
        f"{DEFAULT.market_neighbour_hours:g} (not the setting of the learner):"
    )
    yield ""
    yield from table(
        ["set", "family", "schema", "constant for", "seen as market-wide", "admitted", "the label moves 5 %"],
        [
            [row["book"].removesuffix("-on"), row["family"], row["schema"], row["constant_for"],
             f"{percent(row['seen_as_market_wide'])} %", share(row["admitted"]),
             share(row["label_moves_5_percent"]) if "label_moves_5_percent" in row else "-"]
            for row in rows
        ],
    )  # fmt: skip


# ---- uplift


def uplift_part(rows: Sequence[Row]) -> Iterator[str]:
    """Section 3."""
    yield "## 3. Uplift on recorded bars"
    yield ""
    yield (
        "Walk-forward: what is learnt at a bar moves later bars only. *Twin*: the same walk with this channel neutral. "
        "*Holdout*: the tenth of the same walk that runs without it. rr is weighted by what was invested, pnl is per "
        "100 USD invested; 90 % intervals, bootstrap of whole weeks."
    )
    yield ""
    for told in rows:
        yield f"### {told['set']}, {told['trades']:,} trades"
        yield ""
        lines = [["all channels", "-", "learning off", *_gap(told["all"])]]
        for channel, row in told["channels"].items():
            moved = f"{row['nudged']:,} of {row['asked']:,}"
            if not row["nudged"]:
                lines.append([channel, moved, "-", "moved nothing", "-"])
                continue
            lines += [[channel, moved, other, *_gap(row[other])] for other in ("twin", "holdout")]
        yield from table(["channel", "moved", "against", "rr [90 %]", "pnl per 100 USD [90 %]"], lines)
        on, off = told["pnl_usd"]
        yield (
            f"Money in all: {on:+,.0f} USD with learning, {off:+,.0f} without, not at equal capital. {_expected(told)}"
        )
        yield ""
        yield from _curators(told)


def _gap(row: Row | None) -> tuple[str, str]:
    if row is None or row["rr"] is None:
        return "nothing to compare", "-"
    (a, b), (c, d) = row["rr_ci90"], row["pnl_per_100_ci90"]
    return f"{row['rr']:+.4f} [{a:+.4f}, {b:+.4f}]", f"{row['pnl_per_100']:+.3f} [{c:+.3f}, {d:+.3f}]"


def _expected(told: Row) -> str:
    twin, wanted = told["channels"]["dm"]["twin"], told["dm"]["expected_rr"]
    if twin is None:
        return f"Channel 1 moved nothing; {wanted:+.3f} R were expected of it."
    low, high = twin["rr_ci90"]
    where = "inside" if low <= wanted <= high else "below" if wanted < low else "above"
    zero = "holds zero" if low <= 0 <= high else "is clear of zero"
    return (
        f"Channel 1 was expected to bring about {wanted:+.3f} R per trade (decisions 50), which is {where} its "
        f"interval against the twin; the interval {zero}."
    )


def _curators(told: Row) -> Iterator[str]:
    dm, truth = told["dm"], told["dm"]["truth"]
    good, bad = ({name.split()[0] for name in truth[kind] if " " not in name} for kind in ("good", "bad"))
    rows = []
    for name, row in dm["curators"].items():
        is_ = "good" if name in good else "bad" if name in bad else "neutral" if name in truth["neutral"] else "depends"
        if row["first_at"] is None:
            rows.append([name, is_, "no lesson of its own", "-", "-", "-", "-", "-"])
            continue
        mean, claimed = row["mean_multiplier"], ", claimed" if row["ever_active"] else ""
        rows.append(
            [
                *(name, is_, f"{row['first_trades']:,}, {row['first_at']}", _steady(row)),
                *(f"{row[key]:+.3f}" for key in ("first_effect", "last_effect")),
                f"{percent(row['above_1'])} %{claimed}",
                "-" if mean is None else f"{mean:.3f} ({row['decisions']})",
            ]
        )
    yield from table(
        ["curator", "truth", "first lesson: closed trades, date", "without a break since", "effect then, R",
         "effect last, R", "versions that favour it", "mean multiplier given (decisions)"],
        rows,
    )  # fmt: skip
    early, fader = (dm["curators"].get(name, {}).get("last_effect") for name in ("early", "fader"))
    if dm["admitted_after_trades"] is None:
        yield "The DM family never acted."
    else:
        right = early is not None and fader is not None and early > 0 > fader
        yield (
            f"The DM family first acts after {dm['admitted_after_trades']:,} closed trades ({dm['admitted_at']}; "
            f"expected within about {dm['expected_trades']:,}). early > 0 > fader "
            f"{'holds' if right else 'does NOT hold'} at the end. {_given_up(dm)}"
        )
    yield ""


def _steady(row: Row) -> str:
    return "not at the end" if row["steady_at"] is None else f"{row['steady_trades']:,}, {row['steady_at']}"


def _given_up(dm: Row) -> str:
    """Whether lessons about curators, once there, stayed."""
    early = dm["curators"].get("early")
    if early is None or early["first_at"] is None:
        return "There was no lesson about early."
    if early["steady_trades"] == early["first_trades"]:
        return "Lessons about curators stay from the first one on."
    late = early["steady_trades"] is None or early["steady_trades"] > dm["expected_trades"]
    since = "never for good" if early["steady_trades"] is None else f"for good after {early['steady_trades']:,} trades"
    return (
        f"But the lesson about early is given up in between and there {since}, "
        f"{'LATER than' if late else 'within what was'} expected; it is there {percent(early['told_share'])} % of the "
        f"time since the first."
    )


# ---- speed


def speed_part(rows: Sequence[Row]) -> Iterator[str]:
    """Section 4."""
    yield "## 4. How long it takes"
    yield ""
    build = [row for row in rows if row["unit"] == "s"]
    yield from table(
        ["build of lessons", "seconds", "target", "peak memory, MB (before)", "lessons", "claimed"],
        [
            [row["work"], f"{row['ours']:.2f}", _target(row), f"{row['peak_rss_mb']:,} ({row['rss_before_mb']:,})",
             f"{row['lessons']:,}", str(row["claimed"])]
            for row in build
        ],
    )  # fmt: skip
    growth = [row for row in rows if row["unit"] == "exponent"]
    over = [row for row in growth if row["ours"] > row["target"]]
    told = "; ".join(f"{row['work'].removeprefix('growth ')} {row['ours']:.2f}" for row in growth)
    yield (
        f"Growth, as the exponent of seconds in trades (1 is linear): {told}. No faster than linear was wanted: "
        f"{f'MISSED in {len(over)} of {len(growth)}' if over else 'met'}."
    )
    yield ""
    trade = [row for row in rows if row["unit"] == "ms per trade"]
    yield from table(
        ["closed trades into a live SQLite book", "ms per trade, mean", "median", "of it the commit", "target",
         "rows changed by the last run"],
        [
            [row["work"], f"{row['ours']:.1f}", f"{row['median_ms']:.1f}", f"{row['commit_ms']:.1f}", _target(row),
             f"{row['rows_changed_by_last_run']:,}"]
            for row in trade
        ],
    )  # fmt: skip
    late = [row for row in trade if row["ours"] > row.get("target", float("inf"))]
    if late:
        commit = sum(row["commit_ms"] for row in late) / sum(row["ours"] for row in late)
        yield (
            f"The target of {late[0]['target']:g} ms per trade is missed in {len(late)} of {len(trade)} rows. The "
            f"commit takes {percent(commit)} % of the time: a trade belongs to several hundred slices of "
            f"up to three dims, and each one's row is written."
        )
        yield ""


def _target(row: Row) -> str:
    if "target" not in row:
        return "-"
    return f"{row['target']:g}: {'met' if row['ours'] <= row['target'] else 'MISSED'}"


# ---- the page


def page(folder: Path, date: str, commit: str) -> str:
    """The page."""
    null, labels = found(folder, "null_campaign"), found(folder, "random_labels")
    uplift, lessons = found(folder, "uplift_on_real_bars"), found(folder, "lessons")
    commands = [line[4:] for line in (__doc__ or "").splitlines() if line.startswith("    ")]
    lines = [
        "# Learning, measured",
        "",
        (
            f"What the learner believes on noise, what it finds of what is there, what it earned on recorded bars, and "
            f"what it costs. Measured on {date} with the learner of commit {commit}, two shared cores; figures were "
            f"written by scripts, and the sentences that judge are built from them."
        ),
        "",
        "```",
        *commands,
        "```",
        "",
        *null_part(null),
        *labels_part(labels),
        *uplift_part(uplift),
        f"![What the lesson about each curator asks for, over time]({PLOT.as_posix()})",
        "",
        *speed_part(lessons),
        *not_found(uplift),
    ]
    return "\n".join(lines).rstrip() + "\n"


def not_found(uplift: Sequence[Row]) -> Iterator[str]:
    """Section 5."""
    yield "## 5. What is clear of zero, and what was not found"
    yield ""
    for told in uplift:
        for channel, row in told["channels"].items():
            for other in ("twin", "holdout"):
                one = row[other]
                if one is None or one["rr"] is None:
                    continue
                for name, key in (("rr", "rr"), ("money at equal capital", "pnl_per_100")):
                    low, high = one[f"{key}_ci90"]
                    if low > 0 or high < 0:
                        side = "above" if low > 0 else "BELOW"
                        yield (
                            f"- {told['set']}, {channel} against its {other}: {name} is {side} zero, "
                            f"{one[key]:+.4f} [{low:+.4f}, {high:+.4f}]."
                        )
    yield (
        "- Every other uplift of a channel has an interval that holds zero. A holdout is a tenth of the trades: its "
        "intervals are several times as wide as any uplift that was expected, so on sets of this size it "
        "shows great harm or nothing."
    )
    yield (
        "- coins 2025q1 is thirteen weeks of a falling market. Bootstraps of so few weeks are too narrow: read them a "
        "third wider. A channel that makes whatever loses more smaller earns there without knowing anything that lasts."
    )
    yield (
        "- Not measured: looks under real refits for PM families (ten looks were tried for DM alone); live books on "
        "PostgreSQL; other seeds of the signals; any set but these two."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--date", required=True)
    parser.add_argument("--commit", required=True, help="the code that was measured")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = page(given.folder, given.date, given.commit)
    if given.out is not None:
        given.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
