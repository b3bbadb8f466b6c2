"""Facts and page of what was learnt, on rows written by hand: trees, histories, arms, words, missing keys."""

from __future__ import annotations

import math
import re
import statistics
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import InputError
from edgebook.domain.evidence import FamilyFit, Lesson, Observation
from edgebook.domain.values import replace
from edgebook.overrides.record import Override, dump_documents
from edgebook.runtime.lesson_money import Closed, Money, Moved, against_holdout, difference, shares
from edgebook.runtime.lesson_views import Source, _half_widths, facts, history
from edgebook.runtime.report.lessons import SHOWN, page, write_page
from edgebook.runtime.report.lessons_svg import history_chart
from edgebook.runtime.report.metrics import student_quantile

T0 = 20_000 * DAY
KEY = "module=pm|pattern_key=uptrend.S1.buy_flag"
FAMILY = f"pm|{KEY}|entry"
STATS = {
    "effect": 0.2, "effect_total": 0.3, "se": 0.1, "lfsr": 0.02, "n": 40, "n_eff": 30.0, "log_e": 1.5,
    "confirmed": True, "log_target": 0.2, "kappa": 1.0, "edge_raw": 0.05, "avg_rr": 0.4, "variance": 1.0,
    "win_rate": 0.5, "time_efficiency": 0.4, "baseline": 0.1, "lr": {"dims": 3.0},
}  # fmt: skip


def lesson(ident, scope, *, status="candidate", reason="not_claimed", size=1.1, stats=None, **how):
    """A pm_strength lesson."""
    levers = {"size_mult": size, "entry_aggression_mult": 1.0, "exit_aggression_mult": 1.0}
    row = Lesson(
        id=ident, module="pm", lesson_type="pm_strength", pattern_key=KEY, action_category="entry", scope_values=scope,
        effect={"capital_levers": levers}, stats=STATS | (stats or {}), lesson_strength=0.1, decay_halflife_hours=720.0,
        status=status, reason=reason, created_at=T0, last_validated=T0 + DAY, evidence_at=T0 + HOUR,
    )  # fmt: skip
    return replace(row, **how)


def source(lessons, *, acts=True, documents=({}, {}), reason="acts", **how):
    """A source of one family."""
    fits = [FamilyFit(FAMILY, T0, 100, acts, 0.1, {"reason": reason, "lr": {"dims": 3.0}})]
    return Source("sqlite:///book.db", T0 + 2 * DAY, 7, 100, lessons, fits, documents, **how)


def tree(text):
    """The page as parsed XML."""
    return ElementTree.fromstring(text.partition("\n")[2])


def rows_of(text):
    """Row elements of the page by lesson id."""
    return {row.get("data-id"): row for row in tree(text).iter("details") if row.get("data-id")}


# ------------------------------------------------------------------ facts


def test_the_head_counts_what_stands_where():
    """Findings, candidates that act, silent families."""
    found = facts(
        source(
            [
                lesson("a", {"bucket": "micro"}, status="active", reason="claimed"),
                lesson("b", {"bucket": "big"}),
                lesson("c", {"bucket": "mid"}, status="deprecated", reason="below_min_effect"),
            ]
        )
    )

    assert found["head"]["sentence"] == "1 finding, 1 candidate acts, no family is silent."
    assert found["head"]["standing"] == {"acts": 1, "deprecated": 1, "finding": 1}
    assert found["head"]["counts"]["pm_strength"] == {"acts": 1, "deprecated": 1, "finding": 1}
    assert found["families"][0]["acting"] == ["a", "b"]
    assert found["families"][0]["given_up"] == ["c"]


def test_a_lesson_stands_below_the_parent_that_says_most():
    """Root, one dim, two dims: the parent with the most dims, then the largest effect; in the tree's order."""
    both = {"bucket": "micro", "timeframe": "1h"}
    found = facts(
        source(
            [
                lesson("pair", both),
                lesson("small", {"timeframe": "1h"}, stats={"effect": 0.1}),
                lesson("large", {"bucket": "micro"}, stats={"effect": -0.4}),
                lesson("root", {}, reason="centre", stats={"effect": -0.01, "se": None}),
                lesson("apart", {"bucket": "big"}, stats={"effect": 0.05}),
            ]
        )
    )

    rows = found["lessons"]
    assert found["families"][0]["acting"] == ["root", "large", "pair", "small", "apart"]
    assert [rows[ident]["parent"] for ident in ("root", "large", "pair", "small")] == [None, "root", "large", "root"]
    assert sorted(rows["pair"]["parents"]) == ["large", "root", "small"]
    assert [rows[ident]["level"] for ident in ("root", "large", "pair")] == [0, 1, 2]
    assert rows["pair"]["inherited"] == pytest.approx(0.1)


def test_the_interval_is_the_posterior_of_ninety_percent():
    """effect ± 1.645 se; e-value and multiplier are the exponentials of what is stored."""
    row = facts(source([lesson("a", {"bucket": "micro"})]))["lessons"]["a"]

    assert row["interval"] == pytest.approx([0.2 - 1.645 * 0.1, 0.2 + 1.645 * 0.1])
    assert row["e_value"] == pytest.approx(math.exp(1.5))
    assert row["multiplier"] == pytest.approx(math.exp(0.2))
    assert row["levers"] == [{"name": "size_mult", "target": 1.1, "base": 1.0, "lo": 0.5, "hi": 1.5}]


def test_what_an_operator_did_is_told():
    """Muted and pinned overrides, on the facts and as pills on the page."""
    rows = [lesson("quiet", {"bucket": "micro"}), lesson("fixed", {"bucket": "big"})]
    overrides = [
        Override(
            row.id, "pm_strength", KEY, "entry", tuple(row.scope_values.items()), {"size_mult": 1.1}, 720.0, T0,
            enabled=row.id != "quiet", pinned_at=T0 + HOUR if row.id == "fixed" else None,
        )
        for row in rows
    ]  # fmt: skip
    found = facts(source(rows, documents=dump_documents(overrides, updated_at=T0, version=1)))

    quiet, fixed = found["lessons"]["quiet"], found["lessons"]["fixed"]
    assert (quiet["muted"], quiet["in_force"], quiet["pinned_at"]) == (True, False, "")
    assert (fixed["muted"], fixed["in_force"], fixed["pinned_at"]) == (False, True, "2024-10-04 01:00:00")
    shown = rows_of(page(found))
    assert "muted" in "".join(shown["quiet"].itertext())
    assert "pinned" in "".join(shown["fixed"].itertext())


def test_a_silent_family_shows_what_it_did_not_believe():
    """The root says why; the slices that stood out most come first, by e-value."""
    neutral = {"size": 1.0, "reason": "no_variance"}
    found = facts(
        source(
            [
                lesson("note", {}, stats={"effect": 0.0, "se": None, "lfsr": None, "log_e": None}, **neutral),
                lesson("weak", {"bucket": "big"}, stats={"log_e": -2.0}, **neutral),
                lesson("strong", {"bucket": "micro"}, stats={"log_e": 0.5}, **neutral),
            ],
            acts=False,
            reason="no_variance",
        )
    )

    family = found["families"][0]
    assert (family["slices"], family["notes"], family["acting"]) == (["strong", "weak"], ["note"], [])
    assert found["head"]["silent_families"] == 1
    text = page(found)
    assert text.index('data-id="strong"') < text.index('data-id="weak"')
    assert "no circumstance moves the outcome more than chance does" in text


# ------------------------------------------------------------------ the edge, day by day


def seen(day, rr, bucket):
    """A trade of the family that closed on a day."""
    return Observation(
        "pm", KEY, "entry", "t", T0 + day * DAY, T0, rr, 0.0, 0.0, 1.0, "", 0, {"bucket": bucket}, 1.0, 0.5
    )


TRADES = st.lists(
    st.tuples(st.integers(0, 12), st.floats(-3, 10, width=32), st.sampled_from(["micro", "big"])), max_size=60
)


@given(TRADES)
def test_the_history_is_that_of_the_trades_so_far(drawn):
    """Mean and clustered half-width of every day, recomputed from the trades up to that day."""
    trades = [seen(day, rr, bucket) for day, rr, bucket in sorted(drawn, key=lambda one: one[0])]
    found = history(trades, {"bucket": "micro"})

    mine = [o for o in trades if o.scope["bucket"] == "micro"]
    if not mine:
        assert found is None
        return
    assert found is not None
    days = sorted({o.ts for o in mine})
    assert len(found["day"]) == len(days)
    for i, day in enumerate(days):
        so_far = [o for o in mine if o.ts <= day]
        mean = statistics.fmean(o.y for o in so_far)
        assert found["n"][i] == len(so_far)
        assert found["mean"][i] == pytest.approx(mean, abs=1e-9)
        if i + 1 < 5:
            assert found["half"][i] is None
            continue
        sums = [sum(o.y - mean for o in so_far if o.ts == one) for one in days[: i + 1]]
        variance = (i + 1) / i * sum(s * s for s in sums) / len(so_far) ** 2
        assert found["half"][i] == pytest.approx(student_quantile(0.95, i) * math.sqrt(variance), abs=1e-5)


def test_a_long_history_is_thinned_and_ends_on_its_last_day():
    """At most 150 days are told."""
    found = history([seen(day, 1.0, "micro") for day in range(400)], {})

    assert found is not None
    assert len(found["day"]) <= 150
    assert (found["n"][-1], found["n"][-2]) == (400, 397)


# ------------------------------------------------------------------ against the holdout

ARMS = st.lists(
    st.tuples(st.floats(-3, 10, width=32), st.floats(1, 1000, width=32), st.booleans(), st.integers(0, 6)),
    min_size=2, max_size=40,
)  # fmt: skip


def naive_difference(drawn):
    """The formula, trade by trade."""
    means, totals = {}, {}
    for arm in (False, True):
        rows = [(y, w) for y, w, held, _ in drawn if held is arm]
        totals[arm] = sum(w for _, w in rows)
        means[arm] = sum(y * w for y, w in rows) / totals[arm]
    blocks = {block for *_, block in drawn}
    few = len({block for _, _, held, block in drawn if held})
    squares = 0.0
    for block in blocks:
        rows = [(y, w, held) for y, w, held, b in drawn if b == block]
        squares += sum((-1 if held else 1) * w * (y - means[held]) / totals[held] for y, w, held in rows) ** 2
    half = student_quantile(0.95, few - 1) * math.sqrt(few / (few - 1) * squares)
    return means[False] - means[True], half


@given(ARMS)
def test_the_difference_of_the_arms_follows_its_formula(drawn):
    """None where the holdout is empty, everything, or in one block."""
    y, w, held, block = (np.array(column) for column in zip(*drawn, strict=True))
    found = difference(y, w, held, block)

    if held.all() or not held.any() or len(set(block[held].tolist())) < 2:
        assert found is None
        return
    assert found is not None
    gap, half = naive_difference(drawn)
    assert found[0] == pytest.approx(gap, abs=1e-9)
    assert found[2] - found[0] == pytest.approx(half, abs=1e-6)
    assert found[0] - found[1] == pytest.approx(half, abs=1e-6)


def trade(day, rr, *, held=False, usd=100.0):
    """A closed trade."""
    arms = frozenset({"strength"} if held else ())
    return Closed(T0, T0 + day * DAY, usd, rr * 10.0, rr, arms, {FAMILY: {"bucket": "micro"}})


def test_arms_weigh_capital_and_say_both_rr_and_pnl():
    """Twice the capital counts twice; pnl is per 100 USD invested."""
    nudged = [trade(day, 1.0) for day in range(10)] + [trade(day, 2.5, usd=200.0) for day in range(10)]
    found = against_holdout([*nudged, *(trade(day, 0.5, held=True) for day in range(10))], "strength")

    assert found["rr"]["nudged"] == pytest.approx(2.0)
    assert found["rr"]["difference"] == pytest.approx(1.5)
    assert found["pnl_per_100"]["nudged"] == pytest.approx(100 * (100 + 250) / 3000)
    assert found["clusters"] == "day"
    assert found["rr"]["verdict"] == "above zero"
    assert found["earned_usd"] == pytest.approx(found["pnl_per_100"]["difference"] * 30)


@pytest.mark.parametrize(("days", "clusters"), [(range(0, 35, 7), "week"), (range(5), "day"), (range(4), "")])
def test_weeks_are_counted_where_there_are_five(days, clusters):
    """Else days; with neither, it is too few to say."""
    trades = [trade(day, 1.0 + day % 3) for day in range(35)] + [
        trade(day, 1.0, held=True) for day in days for _ in (1, 2)
    ]
    found = against_holdout(trades, "strength")

    assert found["clusters"] == clusters
    assert (found["rr"]["ci90"] is None) is (clusters == "")


def test_four_holdout_trades_are_too_few_to_say():
    """However clear they look."""
    found = against_holdout([trade(0, 1.0), *(trade(day, -1.0, held=True) for day in range(4))], "strength")

    assert (found["rr"]["verdict"], found["rr"]["ci90"], found["earned_usd"]) == ("too few to say", None, None)


@given(st.dictionaries(st.sampled_from("abcd"), st.floats(-0.4, 0.4), min_size=1), st.floats(-0.4, 0.4))
def test_shares_of_a_change_that_went_the_whole_way_are_all_of_it(pulls, applied):
    """They add up to one where the change is what the pulls wanted; signs of shares are those of the pulls."""
    total = math.fsum(pulls.values())
    if abs(total) > 1e-3:
        assert math.fsum(shares(pulls, total).values()) == pytest.approx(1.0)
    found = shares(pulls, applied)
    assert found.keys() == pulls.keys()
    if abs(applied) > 1e-6:
        assert all(abs(share) <= abs(pulls[ident] / applied) + 1e-9 for ident, share in found.items())


def test_a_lesson_is_compared_within_its_scope_from_its_first_nudge_on():
    """Trades of other scopes, and those opened before, do not count."""
    inside = [trade(day, 1.0, held=day % 2 == 0) for day in range(20)]
    early = [Closed(T0 - DAY, t.closed_at, t.invested_usd, 0.0, 9.0, t.holdout, t.scopes) for t in inside]
    other = [Closed(T0, t.closed_at, t.invested_usd, 0.0, 9.0, t.holdout, {FAMILY: {"bucket": "big"}}) for t in inside]
    moved = Money([*inside, *early, *other], {"a": Moved(3, 0.3, 0.3, 12.0, 12.0, T0)})
    row = facts(source([lesson("a", {"bucket": "micro"})], moved=moved))["lessons"]["a"]

    assert (row["uplift"]["trades"], row["uplift"]["holdout_trades"]) == (10, 10)
    assert row["uplift"]["rr"]["nudged"] == pytest.approx(1.0)
    assert row["moved"]["moved_usd"] == 12.0


# ------------------------------------------------------------------ the page


def crowded(n):
    """A family of ``n`` lessons, half of them below another."""
    made = []
    for i in range(n // 2):
        made.append(lesson(f"one{i}", {"bucket_rank_position": i}, stats={"effect": 0.01 * (i + 1)}))
        pair = {"bucket_rank_position": i, "timeframe": "1h"}
        made.append(lesson(f"two{i}", pair, stats={"effect": 2.0 - 0.01 * i}))
    return made


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere():
    """It parses as XML, ids are unique, links lead somewhere, and nothing is loaded."""
    text = page(facts(source(crowded(20), observations=lambda _: [seen(d, 0.5, "micro") for d in range(9)])))
    names = [part.get("id") for part in tree(text).iter() if part.get("id")]

    assert len(names) == len(set(names))
    assert {link.get("href")[1:] for link in tree(text).iter("a")} <= set(names)
    assert not re.search(r"https?:|src=|@import|url\(", text)


def test_numbers_of_the_page_are_those_of_the_rows():
    """Effect, evidence and count of every row, and its interval in words."""
    shown = rows_of(page(facts(source(crowded(30)))))

    for row in crowded(30):
        assert float(shown[row.id].get("data-effect")) == row.stats["effect"]
        assert float(shown[row.id].get("data-evidence")) == row.stats["log_e"]
        assert int(shown[row.id].get("data-n")) == row.stats["n"]
        assert f"{row.stats['effect']:+.3f}" in "".join(shown[row.id].itertext())


def test_a_family_of_many_lessons_shows_the_strongest_and_their_parents():
    """The rest is there, behind a switch."""
    shown = rows_of(page(facts(source(crowded(200)))))
    small = {ident for ident, row in shown.items() if "small" in row.get("class").split()}

    assert len(shown) == 200
    assert SHOWN <= len(shown) - len(small) <= 2 * SHOWN
    assert not {f"two{i}" for i in range(SHOWN // 2)} & small
    assert not {f"one{i}" for i in range(SHOWN // 2)} & small


@pytest.mark.parametrize("missing", sorted(STATS))
def test_a_missing_statistic_does_not_break_the_page(missing):
    """Older rows lack keys."""
    rows = [lesson("a", {"bucket": "micro"}), lesson("b", {}, size=1.0, reason="no_variance")]
    lacking = [replace(r, stats={k: v for k, v in r.stats.items() if k != missing}) for r in rows]

    assert "a" in rows_of(page(facts(source(lacking))))


HUGE = [1e6, 1e200, -1e200, 1.7e308, -1.7e308, math.inf, -math.inf, math.nan, 5e-324, 1e-200]


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize(
    "name", ["effect", "effect_total", "se", "avg_rr", "variance", "log_e", "edge_raw", "baseline"]
)
def test_a_number_beyond_all_scales_does_not_break_the_page(name, value):
    """The page stays well-formed, and no drawing has a place that is no number."""
    made = [lesson("a", {"bucket": "micro"}, stats={name: value}), lesson("b", {"bucket": "mid"}, status="active")]
    text = page(facts(source(made)))

    assert set(rows_of(text)) == {"a", "b"}
    assert not _no_place(text)


@pytest.mark.parametrize("value", HUGE)
def test_a_history_beyond_all_scales_is_drawn(value):
    """So is one of a single huge day."""
    days = {"day": ["2024-01-01", "2024-01-02", "2024-01-03"], "n": [1, 2, 3]}
    told = days | {"mean": [0.1, value, 0.2], "half": [None, abs(value), 0.1], "edge_raw": [value, 0.0, value]}

    assert not _no_place(history_chart(told))


def test_an_interval_beyond_doubles_is_none():
    """Sums of squares of 1e200 R are no number any more."""
    assert _half_widths([(1, 1e200 * (-1) ** day) for day in range(9)]) == [None] * 9


def _no_place(text):
    """Attributes of drawings that hold no number."""
    parts = (part for svg in re.findall(r"<svg.*?</svg>", text) for part in ElementTree.fromstring(svg).iter())
    return [a for part in parts for n, a in part.items() if n in ("d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy")
            and re.search("nan|inf", a)]  # fmt: skip


def test_nothing_at_all_makes_a_page_too():
    """Rows without statistics, and no rows."""
    bare = replace(lesson("a", {"my_dim": "<b>&"}), stats={})

    assert "my dim <b>&" in "".join(rows_of(page(facts(source([bare]))))["a"].itertext())
    empty = Source("new.db", 0, 0, 0, [], [], ({}, {}))
    assert "Nothing was learnt so far" in "".join(tree(page(facts(empty))).itertext())


def test_gates_are_drawn_between_their_bounds():
    """A tuning lesson has thresholds, and votes instead of an effect."""
    gates = {"execution_levers": {"signal_thresholds": {"ts_min": 0.65}}}
    stats = {"n": 9, "tuning_n": 30, "tuning_score": 0.2, "outcomes": {"success": 5}, "edge_raw": 0.0}
    row = lesson("a", {}, status="active", reason="claimed", lesson_type="pm_tuning", effect=gates)
    found = facts(source([replace(row, stats=stats)]))

    assert found["lessons"]["a"]["levers"] == [{"name": "ts_min", "target": 0.65, "base": 0.6, "lo": 0.45, "hi": 0.75}]
    told = "".join(rows_of(page(found))["a"].itertext())
    assert "ts_min 0.65" in told
    assert "30 windows" in told


def test_a_page_that_cannot_be_written_is_an_error_with_its_path(tmp_path):
    """With what would be right."""
    with pytest.raises(InputError, match=r"nowhere/page\.html: .*give a file in a folder that can be written to"):
        write_page(facts(source([])), tmp_path / "nowhere" / "page.html")
