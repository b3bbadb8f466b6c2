"""The command line: what it prints, what it refuses, and what it leaves behind (issue: bad input)."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from tests.flow import world

from edgebook.adapters.feeds.sim import SimSource
from edgebook.domain.decay import DAY

HOUR_MS = 3_600_000
REPORT = {
    "bars", "bars_per_second", "wall_s", "signals", "decisions", "positions", "actions", "trades", "episodes",
    "strands", "stats_rows", "lessons", "overrides", "nudged", "flags_changed", "dead_letters", "log_head",
    "config_version",
}  # fmt: skip


@pytest.fixture(scope="session")
def market(tmp_path_factory):
    """Two days of recorded 1 m bars of four tokens and three drivers, one day of their signals."""
    directory = tmp_path_factory.mktemp("market")
    lines = world.write_bars(directory / "bars", 2)
    (directory / "signals.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def backtest(market, *more, signals=None, bars=None):
    """Arguments of a small backtest."""
    given = ("--signals", signals or market / "signals.jsonl")
    return ("backtest", "--bars", bars or market / "bars", *given, "--timeframes", "1m", "--json", *more)


@pytest.fixture(scope="session")
def tested(market, tmp_path_factory, repo):
    """The report of one small backtest and its database, made by the command itself, in a process of its own."""
    path = tmp_path_factory.mktemp("tested") / "book.db"
    command = [sys.executable, "-m", "edgebook", *map(str, backtest(market, "--db", f"sqlite:///{path}"))]
    env = {**os.environ, "PYTHONPATH": str(repo / "src")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=path.parent, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), path, done


# ------------------------------------------------------------------ reports


def test_backtest_prints_one_object_with_the_settled_keys(tested):
    """Keys, and keys within, as other people's scripts rely on them (decisions: interfaces)."""
    found, _, done = tested

    assert set(found) >= REPORT
    assert done.stdout.count("\n") == 1
    assert set(found["decisions"]) == {"approve", "reject", "error"}
    assert set(found["actions"]) == {"entry", "add", "trim", "emergency_exit", "exit"}
    assert set(found["trades"]) == {"n", "win_rate", "avg_rr", "pnl_usd", "max_drawdown"}
    assert set(found["episodes"]) <= {"s1_entry", "s3_retest"}
    assert set(found["stats_rows"]) == {"dm", "pm"}
    assert set(found["lessons"]) == set(found["overrides"]) == {"dm_alloc", "pm_strength", "pm_tuning"}
    assert set(found["nudged"]) == {"allocations", "sizes", "gates"}
    assert len(found["log_head"]) == 64


def test_backtest_counts_what_is_in_the_database(tested):
    """Each figure of the report is what a query of the database says."""
    found, path, _ = tested
    kinds = dict(world.ask(path, "SELECT kind, count(*) FROM ad_strands GROUP BY kind"))

    assert found["strands"] == kinds
    assert found["signals"] == kinds["social_lowcap"] > 0
    assert sum(found["decisions"].values()) == kinds["decision_lowcap"]
    assert sum(found["actions"].values()) == kinds["order_filled"]
    assert found["trades"]["n"] == kinds["position_closed"] > 0
    assert found["positions"] == world.ask(path, "SELECT count(*) FROM positions")[0][0]
    assert found["stats_rows"] == dict(
        world.ask(path, "SELECT module, count(*) FROM pattern_scope_stats GROUP BY module")
    )
    assert found["bars"] == 4 * 4 * 1440 + 3 * 4 * 1440
    pnl = sum(float(p) for (p,) in world.ask(path, "SELECT pnl_usd FROM trades"))
    assert found["trades"]["pnl_usd"] == pytest.approx(pnl, abs=0.01)


def test_the_same_backtest_twice_has_the_same_head(cli, market, tested):
    """Without --db it uses a temporary database; the log is the same, and nothing stays in the working directory."""
    code, out, _ = cli(*backtest(market))

    assert code == 0
    assert json.loads(out)["log_head"] == tested[0]["log_head"]


def test_backtest_with_both_arms_reports_the_uplift(cli, market):
    """--learning both: one report each under on and off, and the uplift with its interval."""
    code, out, err = cli(*backtest(market, "--learning", "both"))
    found = json.loads(out)

    assert code == 0, err
    assert set(found) == {"on", "off", "uplift"}
    assert set(found["uplift"]) == {"pnl", "pnl_ci90", "rr_per_trade", "ci90"}
    assert len(found["uplift"]["ci90"]) == len(found["uplift"]["pnl_ci90"]) == 2
    assert found["off"]["nudged"] == {"allocations": 0, "sizes": 0, "gates": 0}


def test_verify_and_rebuild_pass_on_what_backtest_wrote(cli, tested):
    """Exit code 0, intact, equal, and the head of the report."""
    found, path, _ = tested
    url = f"sqlite:///{path}"
    code, out, _ = cli("verify", "--db", url, "--json")
    assert (code, json.loads(out)["intact"], json.loads(out)["log_head"]) == (0, True, found["log_head"])
    code, out, _ = cli("rebuild", "--check", "--db", url, "--json")
    assert (code, json.loads(out)["equal"], json.loads(out)["differences"]) == (0, True, [])


def test_verify_of_a_changed_strand_is_exit_code_1_and_names_it(cli, tested, tmp_path):
    """A tampered log is not bad input: verify ends with 1, and says which seq."""
    copy = tmp_path / "copy.db"
    copy.write_bytes(tested[1].read_bytes())
    with sqlite3.connect(copy) as connection:
        connection.execute("DROP TRIGGER ad_strands_no_update")
        connection.execute("UPDATE ad_strands SET symbol = 'OTHER' WHERE seq = 17")
    connection.close()

    code, out, _ = cli("verify", "--db", f"sqlite:///{copy}")

    assert code == 1
    assert "seq 17" in out


@pytest.mark.parametrize("command", [("lessons",), ("overrides",), ("jobs",), ("status",)], ids=lambda c: c[0])
def test_tables_print_for_people_and_for_scripts(cli, tested, command):
    """Every report has both forms, and writes nothing."""
    before = tested[1].read_bytes()
    url = f"sqlite:///{tested[1]}"

    plain, as_json = cli(*command, "--db", url), cli(*command, "--db", url, "--json")

    assert plain[0] == as_json[0] == 0, plain[2] + as_json[2]
    assert plain[1].strip()
    json.loads(as_json[1])
    assert tested[1].read_bytes() == before


def test_rows_of_lessons_have_the_settled_keys(cli, tested):
    """id, lesson_type, module, pattern_key, action_category, scope, levers, stats, status, reason."""
    _, out, _ = cli("lessons", "--db", f"sqlite:///{tested[1]}", "--json")
    keys = {
        "id",
        "lesson_type",
        "module",
        "pattern_key",
        "action_category",
        "scope",
        "levers",
        "stats",
        "status",
        "reason",
    }

    rows = json.loads(out)
    assert rows
    assert {frozenset(row) for row in rows} == {frozenset(keys)}


def test_trace_and_explain_take_the_signals_own_id(cli, tested):
    """A person knows the id in the JSONL, not the strand's: both work."""
    url = f"sqlite:///{tested[1]}"
    strand, own = world.ask(
        tested[1],
        "SELECT c.correlation_id, json_extract(s.content, '$.signal_id')"
        " FROM ad_strands c JOIN ad_strands s ON s.id = c.correlation_id WHERE c.kind = 'position_closed' LIMIT 1",
    )[0]

    for ident in (strand, own):
        code, out, err = cli("trace", ident, "--db", url, "--json")
        assert (code, json.loads(out)["signal"], json.loads(out)["verdict"]) == (0, strand, "arrived"), err
        code, out, err = cli("explain", ident, "--db", url, "--json")
        assert (code, json.loads(out)["strand"]["kind"]) == (0, "decision_lowcap"), err
    assert cli("trace", strand, "--db", url)[0] == cli("explain", strand, "--db", url)[0] == 0


def test_run_stops_at_until_and_takes_its_address_away(cli, tmp_path, monkeypatch):
    """``run --plain --until``: walks that far, exit code 0, no ingress file left; a second run goes on from there."""
    monkeypatch.setenv("EDGEBOOK_SIM_TOKENS", "3")
    given = ("run", "--plain", "--speed", "1e9", "--timeframes", "1m", "--seed", "2")
    code, out, err = cli(*given, "--until", "0.25d")

    assert code == 0, err
    assert "stopped at" in out
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".ingress") == []
    first = world.ask(tmp_path / "edgebook.db", "SELECT at FROM watermarks WHERE key = 'clock'")[0][0]
    assert cli(*given, "--until", "0.5d")[0] == 0
    assert (
        world.ask(tmp_path / "edgebook.db", "SELECT at FROM watermarks WHERE key = 'clock'")[0][0] == first + DAY // 4
    )


# ------------------------------------------------------------------ bad input


def refused(answer, *names):
    """Exit code 2, nothing on stdout, one line on stderr that names file and place."""
    code, out, err = answer
    assert code == 2, (code, out, err)
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert "Traceback" not in err
    for name in names:
        assert name in lines[0], lines[0]


def left(tmp_path):
    """Files in the working directory; an empty lock file is no trace of data."""
    return sorted(p.name for p in tmp_path.iterdir() if p.is_file() and p.suffix != ".lock")


def columns(hours=400):
    """Columns of an honest hourly bar file."""
    price = 100.0 + np.arange(hours) * 0.01
    return {
        "timestamp": 1_704_067_200_000 + HOUR_MS * np.arange(hours), "open": price, "high": price + 1, "low": price - 1,
        "close": price + 0.5, "volume": np.full(hours, 1000.0),
    }  # fmt: skip


def without(data):
    del data["close"]


def swapped(data):
    data["timestamp"][[6, 7]] = data["timestamp"][[7, 6]]


def repeated(data):
    data["timestamp"][7] = data["timestamp"][6]


def not_a_number(data):
    data["close"][6] = np.nan


def negative(data):
    data["low"][6] = -1.0


def off_grid(data):
    data["timestamp"][6] += 60_000


def infinite_volume(data):
    data["volume"][6] = np.inf


BAD_BARS = {
    without: ("column close",), swapped: ("row 8", "timestamp"), repeated: ("row 8", "timestamp"),
    not_a_number: ("row 7", "close"), negative: ("row 7", "low"), off_grid: ("row 7", "timestamp"),
    infinite_volume: ("row 7", "volume"),
}  # fmt: skip


@pytest.mark.parametrize("damage", BAD_BARS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("place", ["bars", "regime"])
def test_bad_bars_are_refused_by_file_row_and_field(cli, tmp_path, damage, place):
    """One clear line, exit code 2, and no database is made, whether the bars are to be traded or drive the regime."""
    good = tmp_path / "good"
    good.mkdir()
    world.write_parquet(good / "AAAUSDT-1h.parquet", columns())
    bad = tmp_path / "bad"
    bad.mkdir()
    data = columns()
    damage(data)
    world.write_parquet(bad / "BTCUSDT-1h.parquet", data)
    given = ("--bars", bad) if place == "bars" else ("--bars", good, "--regime-bars", bad)

    answer = cli("backtest", *given, "--timeframes", "1h", "--db", "sqlite:///book.db", "--json")

    refused(answer, "BTCUSDT-1h.parquet", *BAD_BARS[damage])
    assert left(tmp_path) == []


def test_a_file_that_is_no_parquet_is_refused(cli, tmp_path):
    """Text under the name of a bar file."""
    (tmp_path / "bars").mkdir()
    (tmp_path / "bars" / "AAAUSDT-1h.parquet").write_text("timestamp,open\n")

    refused(cli("backtest", "--bars", "bars", "--db", "sqlite:///book.db"), "AAAUSDT-1h.parquet")
    assert left(tmp_path) == []


def bad_line(**change):
    """A signal line with a fault."""
    token = next(s for s in SimSource(2, world.TOKENS).symbols if not s.startswith(("BTC", "ETH", "SOL")))
    return json.dumps({**json.loads(world.signal_line("x", "2024-01-02T00:00:00Z", token)), **change})


BAD_LINES = {
    "not json": ("{broken", "not JSON"),
    "no object": ("[1, 2]", "object"),
    "unknown token": (world.signal_line("x", "2024-01-02T00:00:00Z", "NOSUCHUSDT"), "NOSUCHUSDT"),
    "negative cap": (bad_line(market={"mcap_usd": -1}), "mcap_usd"),
    "nan cap": (bad_line(market={"mcap_usd": float("nan")}), "mcap_usd"),
    "no confidence": (bad_line(mapping_confidence=None), "mapping_confidence"),
    "confidence of 2": (bad_line(mapping_confidence=2), "mapping_confidence"),
    "time without zone": (bad_line(ts="2024-01-02T00:00:00"), "ts"),
    "time before the common era": (bad_line(ts="-100"), "ts"),
    "no id": (bad_line(id=None), "id"),
    "token of text": (bad_line(token="BTCUSDT"), "token"),
}


def test_backtest_takes_a_registry_of_curators(cli, market, tmp_path):
    """--curators: the registry is in the log; a wrong one is refused by file, entry and field, and nothing is made."""
    path = tmp_path / "curators.json"
    path.write_text('{"curators": [{"id": "early", "status": "suspended"}, {"id": "nobody"}]}')
    code, out, err = cli(*backtest(market, "--curators", path, "--db", "sqlite:///book.db"))

    assert code == 0, err
    assert json.loads(out)["strands"]["curator_registered"] == 2
    rows = world.ask(tmp_path / "book.db", "SELECT key, status FROM curators WHERE key IN ('early', 'nobody')")
    assert dict(rows) == {"early": "suspended", "nobody": "active"}
    assert world.ask(tmp_path / "book.db", "SELECT count(*) FROM decisions WHERE curator_id = 'early'") == [(0,)]
    path.write_text('{"curators": [{"id": "early", "status": "away"}]}')
    refused(
        cli(*backtest(market, "--curators", path, "--db", "sqlite:///other.db")), "curators.json", "early", "status"
    )
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_signal_line_is_refused_by_file_and_line(cli, market, tmp_path, name):
    """The third line is bad: the message names file, line and field, and no database is made."""
    text, field = BAD_LINES[name]
    lines = (market / "signals.jsonl").read_text().splitlines()
    path = tmp_path / "sub" / "signals.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join([*lines[:2], text, *lines[2:]]) + "\n")

    refused(cli(*backtest(market, "--db", "sqlite:///book.db", signals=path)), "signals.jsonl:3", field)
    assert left(tmp_path) == []


def test_a_span_without_bars_is_refused(cli, market, tmp_path):
    """--from after the last bar, --to before the first, --to before --from: one line, and no database is made."""
    db = ("--db", "sqlite:///book.db")
    for span in (("--from", "2031-01-01"), ("--to", "1999-01-01"), ("--from", "2024-01-02", "--to", "2024-01-01")):
        refused(cli(*backtest(market, *db, *span)), "--from")
        assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("backtest", "--bars", "nowhere"), ("nowhere",)),
        (("backtest", "--bars", ".", "--signals", "nowhere.jsonl"), ("SYMBOL-",)),
        (("run", "--feed", "tape:x"), ("tape:x",)),
        (("run", "--feed", "sim:7"), ("sim:7",)),
        (("run", "--feed", "parquet:"), ("parquet:",)),
        (("run", "--speed", "0"), ("speed",)),
        (("run", "--speed", "nan"), ("speed",)),
        (("run", "--port", "70000"), ("port",)),
        (("run", "--timeframes", "1h,7h"), ("7h",)),
        (("run", "--until", "soon"), ("--until",)),
        (("run", "--until", "2001-01-01"), ("--until",)),
        (("run", "--db", "mysql://x/y"), ("mysql",)),
        (("run", "--db", "sqlite:///no/such/dir/book.db"), ("no/such/dir",)),
        (("run", "--curators", "none.toml"), ("none.toml",)),
        (("run", "--curators", "people.toml"), ("people.toml", "curators[1] (ann)", "base_weight")),
        (("inject", "latin.jsonl"), ("latin.jsonl", "UTF-8")),
        (("run", "--settings", "none.toml"), ("none.toml",)),
        (("run", "--settings", "bad.toml"), ("bad.toml",)),
        (("run", "--settings", "unknown.toml"), ("sped",)),
        (("verify", "--db", "sqlite:///missing.db"), ("missing.db",)),
        (("rebuild", "--check", "--db", "sqlite:///missing.db"), ("missing.db",)),
        (("rebuild",), ("--check",)),
        (("lessons", "--db", "sqlite:///missing.db"), ("missing.db",)),
        (("overrides", "--db", "sqlite:///missing.db"), ("missing.db",)),
        (("jobs", "--db", "sqlite:///missing.db"), ("missing.db",)),
        (("status", "--db", "sqlite:///missing.db"), ("missing.db",)),
        (("trace", "x", "--db", "sqlite:///missing.db"), ("missing.db",)),
        (("explain", "x", "--db", "sqlite:///missing.db"), ("missing.db",)),
        (("verify", "--db", "sqlite:///text.db"), ("text.db",)),
        (("status", "--db", "sqlite:///foreign.db"), ("foreign.db",)),
        (("run", "--until", "1d", "--db", "sqlite:///foreign.db"), ("foreign.db",)),
        (("inject", "nowhere.jsonl"), ("nowhere.jsonl",)),
        (("inject", "broken.jsonl"), ("broken.jsonl:2",)),
        (("inject", "fine.jsonl"), ("no running system",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_arguments_are_one_clear_line_and_leave_nothing(cli, tmp_path, arguments, names):
    """Exit code 2, one line naming what was wrong, and the directory as it was."""
    (tmp_path / "bad.toml").write_text("speed = = 3\n")
    (tmp_path / "unknown.toml").write_text("sped = 3\n")
    (tmp_path / "text.db").write_text("this is no database\n" * 50)
    (tmp_path / "people.toml").write_text('[[curators]]\nid = "ann"\nbase_weight = 7\n')
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe4"}\n')
    (tmp_path / "broken.jsonl").write_text('{"id": "a"}\n{oops\n')
    (tmp_path / "fine.jsonl").write_text('{"id": "a"}\n')
    with sqlite3.connect(tmp_path / "foreign.db") as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
    connection.close()
    before = left(tmp_path)

    refused(cli(*arguments), *names)
    assert left(tmp_path) == before


@pytest.mark.parametrize(
    "command", [("status",), ("verify",), ("run", "--until", "1d"), ("rebuild", "--check")], ids=lambda c: c[0]
)
def test_a_database_of_a_newer_release_is_refused_untouched(cli, tested, tmp_path, command):
    """Its schema is named as newer; nothing in it changes."""
    copy = tmp_path / "newer.db"
    copy.write_bytes(tested[1].read_bytes())
    with sqlite3.connect(copy) as connection:
        connection.execute("UPDATE edgebook_revision SET version_num = '9999'")
    connection.close()
    before = world.ask(copy, "SELECT max(seq), count(*) FROM ad_strands")

    refused(cli(*command, "--db", f"sqlite:///{copy}"), "newer.db")
    assert world.ask(copy, "SELECT max(seq), count(*) FROM ad_strands") == before
    assert world.ask(copy, "SELECT version_num FROM edgebook_revision") == [("9999",)]


def test_a_second_walk_into_the_same_database_is_refused(cli, market, tested):
    """backtest on a database that holds a run: one line, and the log is as long as before."""
    before = world.ask(tested[1], "SELECT max(seq) FROM ad_strands")

    refused(cli(*backtest(market, "--db", f"sqlite:///{tested[1]}")), "book.db")
    assert world.ask(tested[1], "SELECT max(seq) FROM ad_strands") == before


def test_unknown_ids_are_refused(cli, tested):
    """trace and explain of an id that is nowhere say so in one line."""
    for command in ("trace", "explain"):
        refused(cli(command, "no-such-id", "--db", f"sqlite:///{tested[1]}"), "no-such-id")


def test_an_environment_variable_that_is_wrong_is_named(cli, monkeypatch, tmp_path):
    """EDGEBOOK_SEED=-1 is refused like an argument."""
    monkeypatch.setenv("EDGEBOOK_SEED", "-1")

    refused(cli("run", "--until", "1d"), "seed")
    assert left(tmp_path) == []
