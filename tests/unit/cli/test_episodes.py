"""``edgebook episodes``: the table, one episode, the gates and the chart, on a short run of the real system."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from tests.flow import world

from edgebook.adapters.sql import SqlStore
from edgebook.domain.strands import BuyWindow, EpisodeSummary

#: What a rule says when it forbids a buy on every bar of a window, or an order when it comes to nothing.
RULES = {
    *("no_attempt", "order_open", "s1_used", "not_armed", "dx_spacing", "no_pool", "flat_required", "order_failed"),
    *("paused", "not_trading", "caps.participation", "caps.min_notional"),
}


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Two days of the small world in a database file: its URL and its strands."""
    path = tmp_path_factory.mktemp("episodes") / "book.db"
    url = f"sqlite:///{path}"
    world.run_days(SqlStore(url), 2.0, settings=world.settings_for(url))
    with SqlStore(url).reader() as uow:
        return url, list(uow.log.read(0))


@pytest.fixture
def ask(cli, book):
    """Runs ``edgebook episodes`` on that database; returns (exit code, stdout, stderr)."""
    return lambda *arguments: cli("episodes", *arguments, "--db", book[0])


def listed(ask, *arguments):
    """The JSON of a call that must succeed."""
    code, out, err = ask(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def summaries(book):
    """Every summary of an episode, in order."""
    return [s for s in book[1] if isinstance(s.payload, EpisodeSummary)]


def told(book):
    """Outcomes of all shadows."""
    return [one for s in book[1] if s.kind == "shadows_closed" for one in s.payload.windows]


def with_shadow(book):
    """Summary and window of one that was bought and whose shadow has ended."""
    brought = {one.window_id for one in told(book)}
    return next((s, w) for s in summaries(book) for w in s.payload.windows if w.window_id in brought and w.entered)


# ---------------------------------------------------------------- the table


def test_every_closed_episode_is_listed_once_newest_first(ask, book):
    """Ids are those of the summaries; open ones stand beside them and have no end."""
    found = listed(ask)
    closed = [row for row in found["episodes"] if row["outcome"] != "open"]
    assert Counter(row["id"] for row in closed) == Counter(s.episode_id for s in summaries(book))
    starts = [row["started_at"] for row in found["episodes"]]
    assert starts == sorted(starts, reverse=True)
    assert all((row["ended_at"] == "") == (row["outcome"] == "open") for row in found["episodes"])


def test_a_row_sums_up_its_windows(ask, book):
    """How many, of which kind, how many a rule forbade, and the best that a shadow brought, counted from the log."""
    rr = {one.window_id: one.rr for one in told(book)}
    expected = {}
    for s in summaries(book):
        ws = s.payload.windows
        forbidden = [w for w in ws if not w.entered and set(w.blocked_by) & RULES]
        best = max((rr[w.window_id] for w in ws if w.window_id in rr), default=None)
        near = sum(w.window_kind == "near_miss" for w in ws)
        expected[s.episode_id] = (len(ws), near, len(forbidden), best, s.payload.entered)
    names = ("windows", "near_misses", "blocked_windows", "best_shadow_rr", "entered")
    rows = [row for row in listed(ask)["episodes"] if row["outcome"] != "open"]
    assert {row["id"]: tuple(row[name] for name in names) for row in rows} == expected
    assert len({row["best_shadow_rr"] for row in rows}) > 5


def test_counts_and_shadows_are_those_of_the_log(ask, book):
    """Type and outcome, and the mean rr of what was bought, skipped and blocked."""
    found = listed(ask)
    counted = Counter((s.payload.episode_type, s.payload.outcome) for s in summaries(book))
    shown = {(t, o): n for t, row in found["counts"].items() for o, n in row.items() if o != "open"}
    assert shown == dict(counted)
    known = {w.window_id for s in summaries(book) for w in s.payload.windows}
    bought = [one.rr for one in told(book) if one.entered and one.window_id in known]
    assert bought
    assert found["shadows"]["entered"] == {"n": len(bought), "mean_rr": pytest.approx(sum(bought) / len(bought))}
    groups = [found["shadows"][name]["n"] for name in ("entered", "skipped", "blocked")]
    assert sum(groups) == found["shadows"]["n"]


def test_filters_choose_and_the_limit_cuts_the_table_alone(ask):
    """Every row of a filtered table is of the kind asked for; counts at the foot are of all that match."""
    all_of = listed(ask, "--type", "s1_entry", "--outcome", "failure")
    assert all_of["total"] > 1
    assert {(r["episode_type"], r["outcome"]) for r in all_of["episodes"]} == {("s1_entry", "failure")}
    one = listed(ask, "--type", "s1_entry", "--outcome", "failure", "--limit", 1)
    assert one["episodes"] == all_of["episodes"][:1]
    assert one["counts"] == all_of["counts"]
    row = all_of["episodes"][0]
    own = listed(ask, "--symbol", row["symbol"], "--timeframe", row["timeframe"])
    assert {(r["symbol"], r["timeframe"]) for r in own["episodes"]} == {(row["symbol"], row["timeframe"])}
    none = listed(ask, "--symbol", "NOSUCH")
    assert (none["episodes"], none["shadows"]["n"], none["shadows"]["running"]) == ([], 0, 0)
    assert listed(ask)["shadows"]["running"] > 0


def test_people_get_a_line_per_episode_and_the_foot(ask):
    """The table, the counts per type, and the line of shadows."""
    code, out, _ = ask("--limit", 3)
    found = listed(ask, "--limit", 3)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"3 of {found['total']} episodes")
    assert [line[:8] for line in lines[2:5]] == [row["id"][:8] for row in found["episodes"]]
    assert re.search(r"^s1_entry: .*failure \d+", out, flags=re.MULTILINE)
    assert re.search(r"^shadows: \d+ ended, \d+ running; mean rr entered [+-]\d", out, flags=re.MULTILINE)


# ---------------------------------------------------------------- one episode


def test_an_episode_shows_its_windows_as_the_log_tells_them(ask, book):
    """Samples, thresholds and evidence are those of the strands; a beginning of the id is enough."""
    summary, bought = with_shadow(book)
    found = listed(ask, summary.episode_id)
    assert listed(ask, summary.episode_id[:13]) == found
    assert [w["id"] for w in found["windows"]] == [w.window_id for w in summary.payload.windows]
    strands = {s.payload.window_id: s.payload for s in book[1] if isinstance(s.payload, BuyWindow)}
    for shown, w in zip(found["windows"], summary.payload.windows, strict=True):
        strand = strands[w.window_id]
        assert shown["thresholds"] == dict(strand.thresholds_effective)
        assert [s["margins"] for s in shown["samples"]] == [dict(s.margins) for s in strand.samples]
        assert [one["direction"] for one in shown["levers"]] == [one.direction for one in w.levers]
        assert all((one["vote"] is None) == bool(one["no_vote"]) for one in shown["levers"])
    (shown,) = (w for w in found["windows"] if w["id"] == bought.window_id)
    (outcome,) = (one for one in told(book) if one.window_id == bought.window_id)
    assert shown["shadow"]["rr"] == outcome.rr
    assert shown["shadow"]["values"] == dict(outcome.values)
    fills = {s.payload.price for s in book[1] if s.kind == "order_filled" and s.position_id == summary.position_id}
    assert shown["fill"]["price"] in fills


def test_a_window_without_a_shadow_says_why(ask, book):
    """None is shown as none with its reason, and one that has it gives no reason."""
    windows = [w for s in summaries(book)[:40] for w in listed(ask, s.episode_id)["windows"]]
    assert {bool(w["no_shadow"]) for w in windows} == {True, False}
    assert all((w["shadow"] is None) == bool(w["no_shadow"]) for w in windows)


def test_an_open_episode_can_be_shown(ask):
    """It has no end and no outcome, and its windows cast no vote yet."""
    row = next(r for r in listed(ask, "--outcome", "open")["episodes"] if r["windows"])
    found = listed(ask, row["id"])
    assert (found["outcome"], found["ended_at"]) == ("open", "")
    assert all(one["vote"] is None for w in found["windows"] for one in w["levers"] if not w["outcome"])
    assert ask(row["id"])[0] == 0


def test_people_read_windows_samples_votes_and_the_shadow(ask, book):
    """The same facts as text."""
    summary, bought = with_shadow(book)
    code, out, _ = ask(summary.episode_id)
    assert code == 0
    assert out.splitlines()[0].startswith(f"episode {summary.episode_id}: {summary.symbol}")
    assert "entered at" in out
    assert re.search(r"^thresholds: .*\d", out, flags=re.MULTILINE)
    assert re.search(r"^shadow: bought on .* rr [+-]\d", out, flags=re.MULTILINE)
    for w in summary.payload.windows:
        assert w.window_kind in out
    assert bought.levers[0].lever in out


# ---------------------------------------------------------------- the gates


def test_bands_hold_every_chance_near_a_gate_once(ask, book):
    """As many chances per gate as shadows that speak about it within one cap of the base."""
    keys = {key["episode_type"]: key for key in listed(ask, "--gates")["keys"]}
    assert set(keys) == {"s1_entry", "s3_retest"}
    seen = Counter()
    for one in told(book):
        for name, u in one.margins.items():
            if name in ("sr_boost", "edx_supp_mult") and abs(u) <= 1:
                seen[one.episode_type, name] += 1
    for (episode_type, name), n in seen.items():
        (lever,) = (x for x in keys[episode_type]["levers"] if x["lever"] == name)
        assert sum(band["n"] for band in lever["bands"]) == n
    assert seen


def test_each_gate_moves_or_says_why_not(ask):
    """A move has a gain and a target, none has a reason; gates in force are given for everywhere."""
    for key in listed(ask, "--gates")["keys"]:
        for lever in key["levers"]:
            assert (lever["move"] is None) == bool(lever["why_not"])
            assert len(lever["bands"]) == 10
        assert key["in_force"][0]["scope"] == {}
        assert set(key["in_force"][0]["gates"]) == {lever["lever"] for lever in key["levers"]}
    code, out, _ = ask("--gates")
    assert code == 0
    assert re.search(r"^ts_min: (stays|move)", out, flags=re.MULTILINE)
    assert "in force everywhere: ts_min" in out


# ---------------------------------------------------------------- the chart


def test_the_chart_is_one_file_that_needs_no_network(ask, book, tmp_path):
    """A column per window, a dot per sample, the rr of each shadow; nothing is loaded from elsewhere."""
    summary, _ = with_shadow(book)
    code, out, err = ask(summary.episode_id, "--chart", tmp_path / "one.html")
    assert code == 0, err
    assert out.splitlines()[-1] == str(tmp_path / "one.html")
    page = (tmp_path / "one.html").read_text(encoding="utf-8")
    shown = listed(ask, summary.episode_id)["windows"]
    assert page.count("<circle") == sum(len(w["samples"]) for w in shown)
    assert page.count("<title>window ") == len(shown)
    for w in shown:
        if w["shadow"] and not w["shadow"]["running"]:
            assert f"rr {w['shadow']['rr']:+.2f}" in page
            assert f">{w['shadow']['rr']:+.2f}</text>" in page
    assert not re.search(r"(src|href)=\"(?!#)|<script|@import|url\((?!#)", page)


def test_bars_fill_the_gaps_between_windows(ask, book, tmp_path):
    """With bars of the symbol the price is drawn whole; bars of another are refused and nothing is written."""
    summary, _ = with_shadow(book)
    world.write_bars(tmp_path / "bars", 2)
    files = {path.stem.removesuffix("-1m"): path for path in (tmp_path / "bars").iterdir()}
    code, _, err = ask(summary.episode_id, "--chart", tmp_path / "a.html", "--bars", files[summary.symbol])
    assert code == 0, err
    assert "prices of the bars given" in (tmp_path / "a.html").read_text(encoding="utf-8")
    other = next(path for symbol, path in files.items() if symbol != summary.symbol)
    code, _, err = ask(summary.episode_id, "--chart", tmp_path / "b.html", "--bars", other)
    assert code == 2
    assert f"the episode is of {summary.symbol}" in err
    assert not (tmp_path / "b.html").exists()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("ffffffff-0000",), "no episode has the id 'ffffffff-0000'"),
        (("ab",), "at least 4 letters"),
        (("--type", "s2_entry"), "--type was 's2_entry'; it must be one of s1_entry, s3_retest"),
        (("--outcome", "won"), "--outcome was 'won'; it must be one of success"),
        (("--limit", 0), "--limit was 0; it must be at least 1"),
        (("abcd", "--gates"), "leave --gates and the filters out"),
        (("abcd", "--limit", 3), "leave --gates and the filters out"),
        (("--gates", "--type", "s1_entry"), "--gates is about all episodes"),
        (("--chart", "x.html"), "no episode was named"),
        (("abcd", "--bars", "x.parquet"), "give --chart as well"),
        (("abcd", "--chart", "x.png"), "--chart was x.png; its name must end in .html"),
        (("abcd", "--chart", "no/such/x.html"), "there is no folder no/such"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_line(ask, arguments, complaint):
    """Exit code 2, one line on stderr that says what would be right."""
    code, out, err = ask(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert complaint in err


def test_reading_changes_nothing(ask, book):
    """The log ends where it did, whatever was asked."""
    for arguments in ((), ("--gates",), (summaries(book)[0].episode_id,)):
        assert ask(*arguments)[0] == 0
    with SqlStore(book[0]).reader() as uow:
        assert uow.log.head[0] == book[1][-1].seq
