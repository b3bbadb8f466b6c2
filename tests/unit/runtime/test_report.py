"""The trade report: the account day by day by hand, the files of a small backtest, and an independent recomputation."""

from __future__ import annotations

import copy
import csv
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from decimal import Decimal
from html.parser import HTMLParser

import duckdb
import numpy as np
import pytest
from tests.flow import world
from tests.unit.runtime.test_metrics import trade

from edgebook.cli.show import show_report
from edgebook.cli.walk import walk
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import InputError, PortError
from edgebook.runtime.backtest import write_files
from edgebook.runtime.bootstrap import open_store
from edgebook.runtime.report.equity import Close, Equity, Fill, Journal, daily_equity
from edgebook.runtime.report.page import page
from edgebook.runtime.report.text import findings, headlines
from edgebook.runtime.report.trades import account_figures, exposure_figures, trade_report

FILES = {"report.html", "report.json", "trades.csv", "trades.parquet", "fills.parquet", "equity.png"}


# ------------------------------------------------------------------ the account by hand


def fill(ts, side, quantity, price, fee="0", *, position="p1", symbol="AAA", trade_id="t1", slippage=0.0):
    """One fill of a position."""
    return Fill(
        ts, trade_id, position, symbol, "1h", side, "entry", 5, Decimal(quantity), price, Decimal(fee), slippage, False,
        f"strand-{ts}-{side}",
    )  # fmt: skip


def marks(**prices):
    """A tape on which each symbol has one price per day, from the day's midnight on."""
    return lambda symbol, ts: prices[symbol][min(ts // DAY, len(prices[symbol]) - 1)]


def test_the_account_is_cash_and_tokens_at_their_marks():
    """Bought 10 at 100 with fee 1, sold 4 at 120 with fee 2; the rest is worth its mark at each midnight."""
    journal = Journal(
        [fill(6 * HOUR, "buy", "10", 100.0, "1"), fill(DAY + HOUR, "sell", "4", 120.0, "2")],
    )

    equity = daily_equity(journal, marks(AAA=[100.0, 110.0, 90.0]), 3 * HOUR, 2 * DAY + HOUR, Decimal(5_000))

    assert equity.ts.tolist() == [3 * HOUR, DAY, 2 * DAY, 2 * DAY + HOUR]
    assert equity.usd.tolist() == [5_000.0, 3_999 + 1_100, 3_999 + 478 + 540, 3_999 + 478 + 540]
    assert equity.invested.tolist() == [0.0, 1_100.0, 540.0, 540.0]


def test_what_a_closed_trade_left_unsold_is_given_up():
    """Dust counts while the trade is open; after the close the account is cash, and a new trade begins at nothing."""
    journal = Journal(
        [
            fill(0, "buy", "10", 100.0),
            fill(HOUR, "sell", "9.99", 100.0),
            Close(DAY, "t1", "p1", "rule 5"),
            fill(DAY, "buy", "1", 100.0, trade_id="t2"),
        ]
    )

    equity = daily_equity(journal, marks(AAA=[100.0]), 0, 2 * DAY, Decimal(1_000))
    open_dust = daily_equity(Journal(journal.events[:2]), marks(AAA=[100.0]), 0, DAY, Decimal(1_000))

    assert open_dust.usd[-1] == pytest.approx(1_000.0)
    assert equity.usd[-1] == pytest.approx(999.0)
    assert equity.invested[-1] == pytest.approx(100.0)


def test_positions_of_one_token_do_not_share_their_dust():
    """Two timeframes hold the same token: closing one leaves the other's tokens alone."""
    journal = Journal(
        [
            fill(0, "buy", "1", 100.0),
            fill(0, "buy", "2", 100.0, position="p2", trade_id="t2"),
            Close(HOUR, "t1", "p1", ""),
        ]
    )

    assert daily_equity(journal, marks(AAA=[100.0]), 0, DAY, Decimal(300)).usd[-1] == 200.0


def test_the_account_is_also_looked_at_when_something_is_bought_or_sold():
    """A trade between two midnights: the days see nothing of it, the moments of its fills see what it tied up."""
    journal = Journal(
        [fill(6 * HOUR, "buy", "8", 100.0), fill(12 * HOUR, "sell", "8", 50.0), Close(12 * HOUR, "t1", "p1", "")]
    )
    price = lambda symbol, ts: 100.0 if ts < 12 * HOUR else 50.0  # noqa: E731

    equity = daily_equity(journal, price, 0, 2 * DAY, Decimal(1_000))
    found = exposure_figures([], journal.fills, equity)

    assert equity.ts.tolist() == [0, DAY, 2 * DAY]
    assert equity.closest.ts.tolist() == [0, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY]
    assert equity.invested.tolist() == [0.0, 0.0, 0.0]
    assert (found["max_invested"], found["mean_invested"]) == (0.8, pytest.approx(0.8 * 6 / 48))
    assert account_figures(equity, np.random.default_rng(0))["max_drawdown"] == pytest.approx(0.4)


def test_an_account_that_was_worth_nothing_has_no_share_invested():
    """Nothing can be divided by it: the shares are absent, and the report is JSON all the same."""
    curve = np.r_[np.linspace(100.0, -10.0, 120)]
    equity = Equity(np.arange(120) * DAY, curve, np.zeros(120))

    found = trade_report([], Journal(), equity, [], np.random.default_rng(0))

    assert (found["exposure"]["mean_invested"], found["exposure"]["max_invested"]) == (None, None)
    assert found["account"]["cagr"] == -1.0
    json.dumps(found, allow_nan=False)


def test_a_token_without_a_bar_cannot_be_valued():
    """An error that names it, not a value of zero."""
    with pytest.raises(PortError, match="AAA is held"):
        daily_equity(Journal([fill(0, "buy", "1", 1.0)]), lambda symbol, ts: None, 0, DAY, Decimal(10))


def test_slippage_is_the_distance_to_the_quote():
    """A quote of 100 with 50 bps: bought at 100.50, sold at 99.50, each half a dollar a token."""
    assert fill(0, "buy", "3", 100.5, slippage=50.0).slippage_usd == pytest.approx(1.5)
    assert fill(0, "sell", "3", 99.5, slippage=50.0).slippage_usd == pytest.approx(1.5)


def by_hand():
    """Two closed trades and one still open, on an account of 1,000 USD over 100 days."""
    journal = Journal(
        [
            fill(10 * DAY, "buy", "1", 100.0, "1"),
            fill(20 * DAY, "sell", "1", 150.0, "1"),
            Close(20 * DAY, "t1", "p1", "rule 5 uptrend.S1.buy_flag"),
            fill(30 * DAY, "buy", "1", 100.0, "1", trade_id="t2"),
            fill(40 * DAY, "sell", "1", 80.0, "1", trade_id="t2"),
            Close(40 * DAY, "t2", "p1", "rule 6 uptrend.S2.buy_flag"),
            fill(90 * DAY, "buy", "2", 100.0, "1", trade_id="t3"),
        ]
    )
    closed = [
        trade(1, rr=2.0, pnl="48", opened=10 * DAY, closed=20 * DAY),
        trade(2, rr=-1.0, pnl="-22", opened=30 * DAY, closed=40 * DAY, timeframe="4h"),
    ]
    for row, ident in zip(closed, ("t1", "t2"), strict=True):
        object.__setattr__(row, "trade_id", ident)
    equity = daily_equity(journal, marks(AAA=[100.0]), 0, 100 * DAY, Decimal(1_000))
    return closed, journal, equity


def test_exposure_costs_and_trades_by_hand():
    """Ten days, ten days, and the last ten of the open trade: 30 of 100; every figure from pencil and paper."""
    closed, journal, equity = by_hand()

    found = trade_report(closed, journal, equity, [0.1, -0.5, 0.3], np.random.default_rng(0))

    assert found["account"]["start_usd"] == 1_000.0
    assert found["account"]["end_usd"] == pytest.approx(1_000 + 48 - 22 - 1)
    assert found["market"] == {"tokens": 3, "mean_return": pytest.approx(-0.1 / 3), "median_return": 0.1}
    assert found["exposure"]["time_with_open_trade"] == pytest.approx(0.3)
    assert (found["exposure"]["open_trades"], found["exposure"]["open_value_usd"]) == (1, 200.0)
    held = [100 / (1_000 - 1), 100 / (1_048 - 1), 200 / (1_026 - 1)]
    assert found["exposure"]["mean_invested"] == pytest.approx(sum(held) / 10)
    assert found["exposure"]["max_invested"] == pytest.approx(held[2])
    traded = 100 + 150 + 100 + 80 + 200
    assert found["costs"]["traded_usd"] == traded
    assert found["costs"]["fees_usd"] == 5.0
    assert found["costs"]["turnover_per_year"] == pytest.approx(traded / 2 / equity.usd.mean() * 3.65)
    trades = found["trades"]
    assert (trades["n"], trades["wins"], trades["win_rate"], trades["mean_rr"]) == (2, 1, 0.5, 0.5)
    assert (trades["expectancy_usd"], trades["profit_factor"]) == (13.0, 48 / 22)
    assert (trades["mean_gain_usd"], trades["mean_loss_usd"], trades["mean_hold_days"]) == (48.0, -22.0, 10.0)
    assert (trades["best"]["trade_id"], trades["worst"]["trade_id"]) == ("t1", "t2")
    assert [row["group"] for row in found["groups"]["pattern"]] == [
        "rule 5 uptrend.S1.buy_flag", "rule 6 uptrend.S2.buy_flag",
    ]  # fmt: skip
    assert {row["group"]: row["n"] for row in found["groups"]["timeframe"]} == {"1h": 1, "4h": 1}
    assert {row["group"]: row["pnl_usd"] for row in found["groups"]["month"]} == {"1970-01": 48.0, "1970-02": -22.0}


def test_a_figure_that_is_nothing_is_said_to_be_nothing():
    """Two trades cannot be judged; a hundred around zero cannot be told from zero, in so many words."""
    closed, journal, equity = by_hand()
    few = trade_report(closed, journal, equity, [], np.random.default_rng(0))
    many = [
        trade(n, rr=(-1.0) ** n, pnl=str(5 * (-1) ** n), closed=4 * DAY + n * 7 * DAY, curator_id=f"c{n % 3}")
        for n in range(100)
    ]
    patterns = Journal([Close(t.closed_at, t.trade_id, "p1", "rule 5") for t in many])
    noise = trade_report(many, patterns, equity, [], np.random.default_rng(0))

    assert "too little to say" in findings(few)[0]
    assert findings(noise)[0].endswith("it cannot be told from zero.")
    assert {h.name: h.verdict for h in headlines(noise)}["Mean rr"] == "cannot be told from zero"
    assert findings(trade_report([], Journal(), equity, [], np.random.default_rng(0))) == [
        "No trade closed, so there is nothing to judge."
    ]


# ------------------------------------------------------------------ a whole run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A backtest over three simulated days of recorded 1 m bars, with --db and --out: (report, folder)."""
    folder = tmp_path_factory.mktemp("report")
    lines = world.write_bars(folder / "bars", 3)
    (folder / "signals.jsonl").write_text("\n".join(lines) + "\n")
    found, _ = walk(
        folder / "bars", folder / "signals.jsonl", None, {"timeframes": "1m,5m"}, (None, None),
        f"sqlite:///{folder}/book.db", folder / "out", None, quiet=True,
    )  # fmt: skip
    return found, folder


def test_out_holds_every_file_and_the_report_names_them(run):
    """Page, JSON, tables and plot; report.json is what the command prints, but for the list of files."""
    found, folder = run

    assert {path.name for path in (folder / "out").iterdir()} == FILES
    assert {path.rpartition("/")[2] for path in found["files"]} == FILES
    stored = json.loads((folder / "out" / "report.json").read_text())
    assert stored == json.loads(json.dumps({k: v for k, v in found.items() if k != "files"}))


def test_the_account_ends_at_the_cash_of_the_book_and_its_tokens(run):
    """The curve is made of fills and marks; cash and holdings of the database are another way to the same end."""
    found, folder = run
    (cash,) = world.ask(folder / "book.db", "SELECT cash_usd FROM accounts")[0]
    held = world.ask(
        folder / "book.db", "SELECT symbol, ledger_quantity FROM positions WHERE ledger_quantity NOT IN ('0', '')"
    )
    value = 0.0
    for symbol, quantity in held:
        ((last,),) = duckdb.sql(f"SELECT arg_max(close, timestamp) FROM '{folder}/bars/{symbol}-1m.parquet'").fetchall()
        value += float(quantity) * last

    dust = found["metrics"]["account"]["end_usd"] - float(cash) - value
    assert (
        -1e-6 < dust < 3.0
    )  # what open trades left unsold, under a dollar each, is still there; the ledger gave it up
    assert found["metrics"]["daily"]["equity_usd"][0] == found["settings"]["starting_cash_usd"]


def test_the_report_knows_no_database_address(run):
    """A database URL may hold a password: no file of a report tells it."""
    found, folder = run

    assert "db" not in found["settings"]
    for name in ("report.json", "report.html"):
        assert "sqlite" not in (folder / "out" / name).read_text()


def test_tables_hold_what_the_log_holds(run):
    """Every fill with its exact quantity, every closed trade with its outcome, in Parquet and in CSV."""
    _, folder = run
    out = folder / "out"
    fills = duckdb.sql(f"SELECT strand_id, CAST(quantity AS VARCHAR), fee_usd, epoch_us(ts) FROM '{out}/fills.parquet'")
    logged = world.ask(folder / "book.db", "SELECT id, content, ts_event FROM ad_strands WHERE kind = 'order_filled'")
    expected = {ident: (json.loads(text), ts) for ident, text, ts in logged}
    rows = fills.fetchall()
    assert len(rows) == len(expected) > 0
    for ident, quantity, fee, ts in rows:
        content, at = expected[ident]
        assert (Decimal(quantity), fee, ts) == (Decimal(content["quantity"]), Decimal(content["fee_usd"]), at)

    names = "trade_id, symbol, timeframe, pnl_usd, rr, epoch_us(closed_at)"
    ours = duckdb.sql(f"SELECT {names} FROM '{out}/trades.parquet' ORDER BY closed_at, trade_id").fetchall()
    theirs = world.ask(
        folder / "book.db",
        "SELECT key, symbol, timeframe, CAST(pnl_usd AS REAL), rr, closed_at FROM trades ORDER BY closed_at, key",
    )
    assert ours == theirs
    with (out / "trades.csv").open() as lines:
        assert [row["trade_id"] for row in csv.DictReader(lines)] == [row[0] for row in theirs]
    kinds = dict(duckdb.sql(f"SELECT column_name, column_type FROM (DESCRIBE FROM '{out}/trades.parquet')").fetchall())
    assert kinds["opened_at"] == "TIMESTAMP WITH TIME ZONE"
    assert {"pattern_key", "action_category", "bucket", "macro_phase", "A_mode"} <= set(kinds)


class Balance(HTMLParser):
    """Reads a page and fails on a tag that is closed out of turn; keeps every attribute."""

    VOID = frozenset({"meta", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.attributes.extend(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes.extend(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text):
    """The page's tags, balanced to the end."""
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    return parser


def test_the_page_is_one_file_that_needs_nothing_else(run):
    """Tags are balanced; there is no script, and nothing that a browser would fetch."""
    text = (run[1] / "out" / "report.html").read_text()
    parser = read(text)

    assert "<script" not in text
    assert "@import" not in text
    assert not re.search(r"url\(", text)
    assert not {name for name, _ in parser.attributes} & {"src", "href", "srcset", "xlink:href", "action"}
    assert "http" not in text


def test_the_page_shows_what_the_report_says(run):
    """Headline figures, sentences, each group with its n, lessons, settings, and the head of the log."""
    found, folder = run
    text = (folder / "out" / "report.html").read_text().replace("\u00a0", " ")

    for item in headlines(found["metrics"]):
        assert item.value in text
        assert item.note in text
    for sentence in findings(found["metrics"]):
        assert sentence in re.sub("</?strong>", "", text)
    for name in ("pattern", "curator", "timeframe", "exit_reason"):
        for row in found["metrics"]["groups"][name]:
            assert f"<td>{row['group']}</td><td>{row['n']:,}</td>" in text
    assert found["log_head"] in text
    assert found["settings"]["settings_hash"] in text
    assert f"{found['nudged']['sizes']:,}" in text


def test_names_from_outside_cannot_break_the_page(run):
    """A curator, a symbol or a reason is text, whatever it is made of."""
    found = copy.deepcopy(run[0])
    nasty = '<img src=x onerror="x">&'
    for row in found["metrics"]["groups"]["curator"]:
        row["group"] = nasty
    found["metrics"]["trades"]["best"]["symbol"] = nasty
    found["settings"]["feed"] = f"parquet:{nasty}"
    found["silent_families"] = {nasty: nasty}

    text = page(found)

    assert "<img" not in text
    assert "&lt;img src=x" in text
    read(text)


@pytest.mark.parametrize("days", [0.01, 1, 40, 400, 4000])
def test_a_page_without_trades_is_still_a_page(run, days):
    """Nothing traded, over an hour or ten years: absent figures are dashes, and no figure is made up."""
    start = 19_000 * DAY + 9 * HOUR
    equity = daily_equity(Journal(), marks(), start, start + int(days * DAY), Decimal(1_000))
    empty = trade_report([], Journal(), equity, [], np.random.default_rng(0))

    text = page({**run[0], "metrics": empty})

    read(text)
    assert "No trade closed" in text
    assert not re.search(r"\bnan\b", text.lower())
    assert {h.name: h.value for h in headlines(empty)}["Sharpe"] == "–"


def test_a_curve_that_only_falls_can_be_drawn():
    """A lost account: the deepest drawdown is nearly all, and the page says when it began."""
    ts = np.arange(50, dtype=np.int64) * DAY
    equity = Equity(ts, 1_000.0 * 0.9 ** np.arange(50), np.zeros(50))

    found = trade_report([], Journal(), equity, [], np.random.default_rng(0))

    assert found["account"]["max_drawdown"] == pytest.approx(1 - 0.9**49)
    assert found["account"]["drawdown"]["recovered_at"] is None
    assert found["account"]["sharpe"] is None  # the same fall every day has no spread


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(run, tmp_path):
    """--out below a file: the message names it."""
    (tmp_path / "taken").write_text("a file")
    with open_store(f"sqlite:///{run[1]}/book.db").reader() as uow, pytest.raises(InputError, match=r"--out .*taken"):
        write_files(uow, run[0], tmp_path / "taken" / "out", 100_000)


def test_the_terminal_shows_the_headline_figures(run, capsys):
    """One arm: the table of figures and the sentences; two arms: both, and the uplift."""
    show_report(run[0])
    said = capsys.readouterr().out
    for item in headlines(run[0]["metrics"]):
        assert item.name in said
        assert item.value in said
    assert findings(run[0]["metrics"])[0] in said

    show_report({"on": run[0], "off": run[0], "uplift": {"pnl": 1.0}})
    both = capsys.readouterr().out
    assert "learning on" in both
    assert "learning off" in both
    assert both.count("Profit factor") == 2
    assert "uplift" in both


# ------------------------------------------------------------------ the recomputation


def recompute(repo, run, bars):
    """The tool in a process of its own: (exit code, output)."""
    command = [sys.executable, str(repo / "tools" / "recompute_trades.py"), str(run), str(bars)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("source", ["book.db", "out"])
def test_every_trade_is_recomputed_from_its_fills_and_bars(repo, run, source):
    """PnL, fees, return, drawdown, floor and rr of all trades, from the log and from the exported tables."""
    found, folder = run

    code, said = recompute(repo, folder / source, folder / "bars")

    assert code == 0, said
    assert f"{found['trades']['n']} closed trades" in said
    assert "all agree" in said


def test_the_recomputation_imports_nothing_of_what_it_checks(repo):
    """It shares no code with edgebook."""
    assert not re.search(r"^\s*(from|import) edgebook", (repo / "tools" / "recompute_trades.py").read_text(), re.M)


@pytest.mark.parametrize("field", ["rr", "pnl_usd", "max_drawdown", "r_floor"])
def test_one_trade_booked_wrongly_by_a_millionth_is_found(repo, run, tmp_path, field):
    """A log in which one number of one trade is off: exit code 1, and the trade is named."""
    copied = tmp_path / "book.db"
    shutil.copy(run[1] / "book.db", copied)
    with sqlite3.connect(copied) as connection:
        connection.execute("DROP TRIGGER ad_strands_no_update")
        seq, trade_id, text = connection.execute(
            "SELECT seq, trade_id, content FROM ad_strands WHERE kind = 'position_closed' LIMIT 1"
        ).fetchone()
        content = json.loads(text)
        value = content["summary"][field]
        content["summary"][field] = str(Decimal(value) + Decimal("0.001")) if field == "pnl_usd" else value + 1e-6
        connection.execute("UPDATE ad_strands SET content = ? WHERE seq = ?", (json.dumps(content), seq))
    connection.close()

    code, said = recompute(repo, copied, run[1] / "bars")

    assert code == 1, said
    assert "DIFFERENT" in said
    assert trade_id in said


def test_bad_input_to_the_recomputation_is_one_line(repo, run, tmp_path):
    """No such database, a text file, a folder of no bars: exit code 2."""
    (tmp_path / "text.db").write_text("no database")
    for given in ((tmp_path / "none.db", run[1] / "bars"), (tmp_path / "text.db", run[1] / "bars"),
                  (run[1] / "book.db", tmp_path)):  # fmt: skip
        code, said = recompute(repo, *given)
        assert code == 2, said
        assert len(said.strip().splitlines()) == 1
