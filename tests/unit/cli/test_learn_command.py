"""``edgebook learn``, ``advise`` and ``import freqtrade`` as commands: files in, files and lines out."""

from __future__ import annotations

import json
import sqlite3

import duckdb
import numpy as np
import pytest
from tests.tables import trades

import edgebook
from edgebook.adapters.frames import write_table


@pytest.fixture
def book(tmp_path):
    """A file of 400 trades, whose longs are worth 1.2 R more, and one of three contexts."""
    given = trades(400)
    arrays = {n: np.array(v, dtype=object if n in ("trade_id", "side", "bucket") else None) for n, v in given.items()}
    write_table(tmp_path / "trades.parquet", arrays)
    (tmp_path / "contexts.csv").write_text("context_id,side,bucket\n1,long,mid\n2,short,mid\n3,,\n")
    return given


def learn(cli, *more):
    """Run ``edgebook learn`` on the file."""
    return cli("learn", "trades.parquet", "--dims", "side, bucket", "--out", "o.json", *more)


def test_learn_prints_lessons_and_writes_the_file(cli, book, tmp_path):
    """A table of what acts, a line per family, and what was read."""
    code, out, err = learn(cli)

    assert (code, err) == (0, "")
    assert "side=long" in out
    assert "user.trade.entry/entry: 400 trades" in out
    assert "400 trades closed by 2024-04-09T21:00:00Z, 0 later ones not looked at" in out
    assert edgebook.Overrides.load(tmp_path / "o.json").to_json() == edgebook.learn(book, ("side", "bucket")).to_json()


def test_learn_json_is_one_object_of_lesson_rows(cli, book):
    """As other people's scripts rely on it."""
    code, out, _ = learn(cli, "--json", "--at", "2024-03-01")
    found = json.loads(out)

    assert code == 0
    assert found["trades"] == {"used": 240, "later": 160, "duplicates": 0}
    assert {"id", "scope", "levers", "stats", "status", "reason"} <= set(found["lessons"][0])
    assert found["families"][0]["n"] == 240
    assert found["version"] == 1


def test_a_silent_family_has_a_line_with_its_reason(cli, tmp_path):
    """Noise is told to be noise; no table of nothing."""
    given = trades(200, effect=0.0, seed=5)
    arrays = {n: np.array(v, dtype=object if n in ("trade_id", "side", "bucket") else None) for n, v in given.items()}
    write_table(tmp_path / "trades.parquet", arrays)

    code, out, _ = learn(cli)

    assert code == 0
    assert out.splitlines()[0].startswith("user.trade.entry/entry: 200 trades, baseline ")
    assert "silent, no dim moves the outcome beyond what chance does" in out


def test_previous_goes_on_with_the_history(cli, book, tmp_path):
    """The second file has both versions."""
    learn(cli, "--at", "2024-03-01")
    code, out, _ = learn(cli, "--previous", "o.json", "--json")

    assert code == 0
    assert json.loads(out)["version"] == 2
    assert len(edgebook.Overrides.load(tmp_path / "o.json").learnt.versions) == 2


def test_advise_writes_and_prints_levers(cli, book, tmp_path):
    """The file has one row per context in order; the lines say why."""
    learn(cli)
    code, out, err = cli("advise", "o.json", "contexts.csv", "--out", "levers.parquet")

    assert (code, err) == (0, "")
    rows = duckdb.sql(f"SELECT context_id, multiplier, because FROM '{tmp_path / 'levers.parquet'}'").fetchall()
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][1] > 1 > rows[1][1]
    assert out.splitlines()[0] == f"1: x{rows[0][1]:.3f}  {rows[0][2]}"
    assert out.splitlines()[-1].startswith("3 contexts, ")


def test_advise_json_is_a_list_of_rows(cli, book):
    """With the holdout, and at another moment."""
    learn(cli)
    _, out, _ = cli("advise", "o.json", "contexts.csv", "--json", "--holdout", "--at", "2024-05-01")
    rows = json.loads(out)

    assert [set(row) for row in rows] == [{"context_id", "side", "bucket", "multiplier", "because", "holdout"}] * 3
    assert rows[2]["side"] is None


BAD = [
    (("learn", "none.csv", "--dims", "a", "--out", "o.json"), "none.csv: no such file"),
    (("learn", "trades.parquet", "--dims", "where", "--out", "o.json"), "trades.parquet: column where is missing"),
    (("learn", "trades.parquet", "--dims", ",", "--out", "o.json"), "dims were empty"),
    (("learn", "trades.parquet", "--dims", "side", "--out", "no/o.json"), "the folder no does not exist"),
    (("learn", "trades.parquet", "--dims", "side", "--out", "o.json", "--at", "x"), "--at must be a time"),
    (("advise", "contexts.csv", "contexts.csv"), "contexts.csv: not JSON"),
    (("learn", "trades.parquet", "--dims", "side", "--out", "trades.parquet"), "would be overwritten"),
    (("learn", "trades.parquet", "--dims", "side", "--out", "./trades.parquet"), "would be overwritten"),
    (("learn", "trades.parquet", "--dims", "side", "--out", "o.json", "--report", "o.json"), "would be overwritten"),
    (("learn", "trades.parquet", "--dims", "side", "--out", "."), "it is a folder"),
    (("advise", "o.json", "contexts.csv", "--out", "contexts.csv"), "contexts.csv: it is read here"),
    (("advise", "o.json", "contexts.csv", "--out", "o.json"), "o.json: it is read here"),
    (("import", "freqtrade", "trades.parquet", "--out", "trades.parquet"), "would be overwritten"),
    (("import", "freqtrade", "contexts.csv", "--out", "t.parquet"), "contexts.csv: not a readable SQLite file"),
]


@pytest.mark.parametrize(("arguments", "complaint"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(arguments, complaint, cli, book, tmp_path):
    """It names the file and what would be right."""
    before = (tmp_path / "trades.parquet").read_bytes()
    code, out, err = cli(*arguments)

    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1
    assert (tmp_path / "trades.parquet").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_import_freqtrade_says_what_it_did(cli, tmp_path):
    """Counts, and where the risk came from."""
    connection = sqlite3.connect(tmp_path / "bot.sqlite")
    connection.execute(
        "CREATE TABLE trades (id INTEGER, pair TEXT, is_open INTEGER, open_rate REAL, close_profit REAL, "
        "open_date TEXT, close_date TEXT, initial_stop_loss_pct REAL)"
    )
    rows = [
        (1, "A/B", 0, 1.0, 0.1, "2024-01-01", "2024-01-02", -0.1),
        (2, "A/B", 1, 1.0, None, "2024-01-01", None, -0.1),
    ]
    connection.executemany("INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()

    code, out, _ = cli("import", "freqtrade", "bot.sqlite", "--out", "t.csv")
    _, as_json, _ = cli("import", "freqtrade", "bot.sqlite", "--out", "t.csv", "--json")

    assert code == 0
    assert "1 closed trades in t.csv; 1 still open, 0 closed without a profit left out" in out
    assert "initial stop 1, drawdown 0" in out
    assert json.loads(as_json)["risk"] == {"stop": 1, "drawdown": 0, "floor": 0}


def test_learn_report_is_a_page_of_what_was_learnt(cli, book, tmp_path):
    """Beside the file, with every lesson that acts; a file keeps no trades, so there is no history and no holdout."""
    code, out, err = learn(cli, "--report", "page.html", "--json")
    page = (tmp_path / "page.html").read_text()

    assert (code, err) == (0, "")
    for row in json.loads(out)["lessons"]:
        if row["stats"]["log_target"]:
            assert f'data-id="{row["id"]}"' in page
    assert "side long" in page
    assert "No day-by-day evidence is kept here." in page
    assert "holdout" not in page.partition("What the words mean")[0]
