"""`edgebook backtest --check-lookahead`: what it prints and writes, and its exit code."""

from __future__ import annotations

import json

import pytest
from tests.flow import world

from edgebook.engine import columns as engine_columns
from edgebook.runtime import market as runtime_market


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Arguments of the analysis of three recorded days and one day of signals."""
    directory = tmp_path_factory.mktemp("market")
    lines = world.write_bars(directory / "bars", 1)
    (directory / "signals.jsonl").write_text("\n".join(lines) + "\n")
    options = ("--signals", directory / "signals.jsonl", "--timeframes", "1m")
    return ("backtest", "--bars", directory / "bars", *options, "--check-lookahead")


def test_a_clean_market_ends_in_zero_with_one_object(cli, check, tmp_path):
    """Exit code 0, one line of JSON with the settled keys; --out writes the same facts; no database is left behind."""
    code, out, _ = cli(*check, "--json", "--out", tmp_path / "report")
    found = json.loads(out)

    assert code == 0
    assert out.count("\n") == 1
    assert found["clean"]
    assert {"engine", "tape", "log", "warmup", "tolerances", "seconds", "from", "to", "timeframes"} <= set(found)
    assert set(found["engine"]) == {"cuts", "comparisons", "differences", "first_differences"}
    assert set(found["warmup"]["1m"]["free_of_state"]) | set(found["warmup"]["1m"]["bound_to_state"]) == set(
        found["tolerances"]
    )
    assert json.loads((tmp_path / "report" / "lookahead.json").read_text()) == found
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_without_json_it_prints_tables(cli, check):
    """Comparisons, logs, warm-up by quantity, and the verdict in words."""
    code, out, _ = cli(*check)

    assert code == 0
    for text in (
        "engine: every column",
        "run given its bars in pieces, days each: 1",
        "emas",
        "bound to state",
        "nothing before a cut",
    ):
        assert text in out
    assert "DIFFERENT" not in out


def test_a_cheat_ends_in_one_and_is_named(cli, check, monkeypatch):
    """A column that shows the next bar's value: exit code 1, and the column stands in the report with both values."""
    advance = engine_columns.advance

    def ahead(memory, bars, *, config=None):
        columns, after = advance(memory, bars, config=config)
        adx = columns["adx"]
        adx[:-1] = adx[1:].copy()
        return columns, after

    monkeypatch.setattr(engine_columns, "advance", ahead)
    monkeypatch.setattr(runtime_market, "advance", ahead)

    code, out, _ = cli(*check, "--json")
    found = json.loads(out)
    assert code == 1
    assert not found["clean"]
    assert {one["column"] for one in found["engine"]["first_differences"]} == {"adx"}
    first = found["engine"]["first_differences"][0]
    assert first["whole"] != first["short"]
    assert first["ts"] <= first["cut"]

    code, out, _ = cli(*check)
    assert code == 1
    assert "adx" in out
    assert "SOMETHING before a cut changed" in out


def test_the_span_and_the_timeframes_are_respected(cli, check):
    """--from, --to and --timeframes are those of the backtest."""
    span = ("--from", "2024-01-01T06:00:00", "--to", "2024-01-01T18:00:00", "--timeframes", "15m")
    code, out, _ = cli(*check, "--json", *span)
    found = json.loads(out)

    assert code == 0
    assert (found["from"], found["to"], found["timeframes"]) == ("2024-01-01 06:00:00", "2024-01-01 18:00:00", ["15m"])
    assert set(found["warmup"]) == {"15m"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--db", "sqlite:///x.db"), "--db"),
        (("--learning", "both"), "--learning both"),
        (("--from", "2031-01-01"), "--from"),
    ],
)
def test_what_it_cannot_do_is_one_line_and_exit_code_two(cli, check, more, says):
    """Several runs that are thrown away take no database and no second arm; a span without bars is refused."""
    code, out, err = cli(*check, *more)

    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert says in err
