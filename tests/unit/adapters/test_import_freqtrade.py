"""freqtrade's database as TRADES: two generations of its schema, every source of risk, and files that are something
else."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

import edgebook
from edgebook.adapters.importers.freqtrade import DIMS, read_freqtrade
from edgebook.api import import_freqtrade
from edgebook.domain.errors import InputError

# The columns freqtrade made in 2020 and makes since 2022, in part; names differ, some are new.
OLD = """CREATE TABLE trades (id INTEGER PRIMARY KEY, exchange VARCHAR, pair VARCHAR, is_open BOOLEAN, fee_open FLOAT,
    fee_close FLOAT, open_rate FLOAT, close_rate FLOAT, close_profit FLOAT, stake_amount FLOAT, amount FLOAT,
    open_date DATETIME, close_date DATETIME, stop_loss FLOAT, initial_stop_loss FLOAT, max_rate FLOAT, min_rate FLOAT,
    sell_reason VARCHAR, strategy VARCHAR, ticker_interval INTEGER)"""
NEW = """CREATE TABLE trades (id INTEGER PRIMARY KEY, exchange VARCHAR, pair VARCHAR, base_currency VARCHAR,
    stake_currency VARCHAR, is_open BOOLEAN, open_rate FLOAT, close_rate FLOAT, realized_profit FLOAT,
    close_profit FLOAT, close_profit_abs FLOAT, stake_amount FLOAT, max_stake_amount FLOAT, amount FLOAT,
    open_date DATETIME, close_date DATETIME, stop_loss FLOAT, stop_loss_pct FLOAT, initial_stop_loss FLOAT,
    initial_stop_loss_pct FLOAT, max_rate FLOAT, min_rate FLOAT, exit_reason VARCHAR, strategy VARCHAR,
    enter_tag VARCHAR, timeframe INTEGER, leverage FLOAT, is_short BOOLEAN, funding_fees FLOAT)"""
BASE = {
    "pair": "ETH/USDT", "is_open": 0, "open_rate": 100.0, "close_rate": 104.0, "close_profit": 0.04,
    "open_date": "2024-01-01 10:00:00.000000", "close_date": "2024-01-01 12:30:00.250000", "strategy": "S",
}  # fmt: skip


def bot(path, schema, *rows):
    """A database with these trades; each row says what differs from BASE."""
    connection = sqlite3.connect(path)
    connection.execute(schema)
    for change in rows:
        row = {**BASE, **change}
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO trades ({names}) VALUES ({marks})", list(row.values()))
    connection.commit()
    connection.close()
    return path


def column(found, name):
    """One column as a list."""
    return found.columns[name].tolist()


# ------------------------------------------------------------------ both generations


def test_a_database_of_2020(tmp_path):
    """Stop as a price, minutes as ticker_interval, sell_reason; no tag, no side, no profit in money."""
    path = bot(tmp_path / "t.sqlite", OLD, {"initial_stop_loss": 95.0, "ticker_interval": 5, "sell_reason": "roi"})

    found = read_freqtrade(path)

    assert (found.closed, found.risk) == (1, {"stop": 1, "drawdown": 0, "floor": 0})
    got = {name: column(found, name)[0] for name in found.columns}
    assert got["rr"] == pytest.approx(0.04 / 0.05)
    assert got["opened_at"].isoformat() == "2024-01-01T10:00:00"
    assert got["closed_at"].isoformat() == "2024-01-01T12:30:00.250000"
    assert np.isnan(got["pnl"])
    assert {name: got[name] for name in ("trade_id", "token", "exit_reason", *DIMS)} == {
        "trade_id": "1", "token": "ETH/USDT", "exit_reason": "roi", "base": "ETH", "quote": "USDT", "timeframe": "5m",
        "strategy": "S", "enter_tag": None, "side": "long",
    }  # fmt: skip


def test_a_database_of_today(tmp_path):
    """Stop in per cent, tag, side, leverage; a future's pair has its settlement currency cut off."""
    path = bot(
        tmp_path / "t.sqlite", NEW,
        {"pair": "BTC/USDT:USDT", "initial_stop_loss_pct": -0.2, "close_profit_abs": 8.0, "enter_tag": "dip",
         "timeframe": 240, "is_short": 1, "leverage": 3.0, "exit_reason": "exit_signal"},
    )  # fmt: skip

    found = read_freqtrade(path)

    got = {name: column(found, name)[0] for name in found.columns}
    assert got["rr"] == pytest.approx(0.04 / 0.2)
    assert (got["pnl"], got["roi"], got["risk"]) == (8.0, 0.04, 0.2)
    assert [got[name] for name in DIMS] == ["BTC", "USDT", "4h", "S", "dip", "short"]


RISKS = [
    # what the row says                                                     risk    source
    ({"initial_stop_loss_pct": -0.10, "min_rate": 50.0}, 0.10, "stop"),
    ({"initial_stop_loss_pct": -0.99, "min_rate": 92.0}, 0.08, "drawdown"),
    ({"initial_stop_loss_pct": -0.99, "min_rate": 99.9}, 0.01, "drawdown"),
    ({"initial_stop_loss_pct": -0.99, "min_rate": 98.0, "leverage": 5.0}, 0.10, "drawdown"),
    ({"min_rate": 100.5}, 0.01, "drawdown"),
    ({"is_short": 1, "max_rate": 106.0, "min_rate": 80.0}, 0.06, "drawdown"),
    ({"initial_stop_loss": 90.0, "leverage": 2.0}, 0.20, "stop"),
    ({"initial_stop_loss": 0.0, "min_rate": 97.0}, 0.03, "drawdown"),
    ({}, 0.01, "floor"),
]


@pytest.mark.parametrize(("row", "risk", "source"), RISKS)
def test_where_the_risk_comes_from(row, risk, source, tmp_path):
    """A sane initial stop, else the drawdown seen and at least 1 %, else that 1 %; shares of the stake."""
    found = read_freqtrade(bot(tmp_path / "t.sqlite", NEW, row))

    assert column(found, "risk")[0] == pytest.approx(risk)
    assert column(found, "risk_source") == [source]
    assert found.risk[source] == 1
    assert column(found, "rr")[0] == pytest.approx(min(10, 0.04 / risk))


def test_rr_is_clipped(tmp_path):
    """At -3 and 10 (learning.md 1)."""
    path = bot(tmp_path / "t.sqlite", NEW, {"close_profit": 0.5}, {"close_profit": -0.5})

    assert column(read_freqtrade(path), "rr") == [10.0, -3.0]


@pytest.mark.parametrize(
    "written",
    ["2024-01-01 12:00:00+02:00", "2024-01-01T12:00:00+02:00", "2024-01-01 12:00:00 +02:00", "2024-01-01 10:00:00Z",
     "2024-01-01 05:00:00.000000-05:00", "2024-01-01 10:00:00+00:00", "2024-01-01 10:00"],
)  # fmt: skip
def test_zones_are_heeded(written, tmp_path):
    """A date with a zone is that moment; without one it is UTC."""
    found = read_freqtrade(bot(tmp_path / "t.sqlite", NEW, {"open_date": written}))

    assert column(found, "opened_at")[0].isoformat() == "2024-01-01T10:00:00"


def test_a_trade_without_an_id_is_refused(tmp_path):
    """It would be called None, and two of them would be one trade."""
    path = bot(tmp_path / "t.sqlite", NEW.replace("id INTEGER PRIMARY KEY", "id INTEGER"), {})

    with pytest.raises(InputError, match=r"a trade of ETH/USDT opened 2024-01-01 10:00:00\.000000 has no id"):
        read_freqtrade(path)


def test_the_database_is_never_written_over(tmp_path):
    """Not under another name either."""
    path = bot(tmp_path / "t.parquet", NEW, {})
    before = path.read_bytes()
    (tmp_path / "link.parquet").symlink_to(path)
    for out in (path, tmp_path / "link.parquet", tmp_path / "x" / ".." / "t.parquet"):
        with pytest.raises(InputError, match="would be overwritten"):
            import_freqtrade(path, out)
    assert path.read_bytes() == before


def test_what_is_left_out_is_counted(tmp_path):
    """Open trades, and closed ones without a profit."""
    path = bot(
        tmp_path / "t.sqlite", NEW, {}, {"is_open": 1, "close_date": None, "close_profit": None}, {"close_profit": None}
    )

    found = read_freqtrade(path)

    assert (found.closed, found.still_open, found.unusable) == (1, 1, 1)


# ------------------------------------------------------------------ into learn


@pytest.mark.parametrize("name", ["trades.parquet", "trades.csv"])
def test_what_is_imported_can_be_learnt_from(name, tmp_path):
    """The file is TRADES as learn reads them, lessons about the tag included; the database is as it was."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(200):
        tag = "dip" if rng.random() < 0.5 else "break"
        day, hour = divmod(i * 6, 24)
        when = np.datetime64("2024-01-01T00:00:00") + np.timedelta64(day * 24 + hour, "h")
        dates = {"open_date": str(when).replace("T", " "), "close_date": str(when + np.timedelta64(2, "h"))}
        profit = float(rng.normal(0, 0.05)) + (0.08 if tag == "dip" else 0.0)
        rows.append(
            {"close_profit": profit, "enter_tag": tag, "initial_stop_loss_pct": -0.05, "timeframe": 60, **dates}
        )
    path = bot(tmp_path / "t.sqlite", NEW, *rows)
    before = path.read_bytes()

    import_freqtrade(path, tmp_path / name)

    found = edgebook.learn(tmp_path / name, DIMS)
    dip = dict.fromkeys(DIMS) | {"enter_tag": "dip"}
    assert found.learnt.trades["used"] == 200
    assert found.advise(dip).multiplier[0] > 1.1
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["t.sqlite", name])


def test_a_bot_without_closed_trades_gives_an_empty_table(tmp_path):
    """Columns are there, and learn says that there is nothing to learn from."""
    path = bot(tmp_path / "t.sqlite", NEW)
    import_freqtrade(path, tmp_path / "trades.parquet")

    with pytest.raises(InputError, match="no rows"):
        edgebook.learn(tmp_path / "trades.parquet", DIMS)


# ------------------------------------------------------------------ what is refused


def test_other_files_are_refused(tmp_path):
    """Missing, no SQLite, no trades table, or one that lacks what is needed."""
    with pytest.raises(InputError, match="no such file"):
        read_freqtrade(tmp_path / "no.sqlite")
    text = tmp_path / "text.sqlite"
    text.write_text("hello, this is no database at all" * 50)
    with pytest.raises(InputError, match="not a readable SQLite file"):
        read_freqtrade(text)
    with pytest.raises(InputError, match="there is no table trades"):
        read_freqtrade(bot_of(tmp_path / "other.sqlite", "CREATE TABLE things (id INTEGER)"))
    with pytest.raises(InputError, match="it lacks column open_date"):
        read_freqtrade(bot_of(tmp_path / "less.sqlite", "CREATE TABLE trades (id INTEGER, pair TEXT, is_open INTEGER)"))


def bot_of(path, statement):
    """A database with one table of another kind."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"open_date": "once"}, "trade 1: open_date is 'once'; it must be a date"),
        ({"close_date": "2023-12-31 00:00:00"}, "trade 1: close_date .* before open_date"),
        ({"open_rate": 0.0}, "trade 1: open_rate is 0.0; it must be positive"),
        ({"close_profit": "lots"}, "trade 1: close_profit is 'lots'; it must be a finite number"),
    ],
)
def test_a_row_that_cannot_be_is_named(row, complaint, tmp_path):
    """By the bot's own trade id."""
    with pytest.raises(InputError, match=complaint):
        read_freqtrade(bot(tmp_path / "t.sqlite", NEW, row))
