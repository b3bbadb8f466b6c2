"""Outcome of a trade: rr with its floor and clip, the path it is measured on, classes (trading.md 4.5; decisions
56)."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from edgebook.adapters.export import ExportColumn, write_parquet
from edgebook.domain.codec import to_json
from edgebook.domain.errors import TradingError
from edgebook.domain.strands import PositionClosed, TradeAction, TradeSummary
from edgebook.domain.timeframe import micros
from edgebook.market.bars import BarSeries
from edgebook.trading.outcome import average_entry, close_trade, hindsight, reward_to_risk
from edgebook.trading.rules import OutcomeRules

RULES = OutcomeRules()


@pytest.fixture
def sold(w, world):
    """Bought at 100 (ATR 1), sold at 110 four bars later: the position just before its closure."""
    closed = []
    world.close = lambda reason: closed.append(world.position)
    world.s1_buy()
    world.bar("S2", 104.0)
    world.bar("S3", 108.0)
    world.over("S3", 110.0)
    world.bar("S0", 110.0)
    return closed[0]


@pytest.fixture
def left(w, world):
    """Bought for 5.20 USD at 100 and not sold at 95, for the venue takes no order of so little: the world, closed."""
    world.s1_buy()
    world.order = replace(world.order, notional_usd=Decimal("5.20"))
    world.bar("S1", 100.0)
    world.over("S1", 95.0)
    order, world.order, world.now = world.order, None, world.now + w.HOUR
    refused = w.Report("rejected", Decimal(0), 0.0, Decimal(0), world.now, too_small=True)
    settled = w.fill(world.position, order, refused, now=world.now)
    world.append(settled.strands)
    world.close(settled.close_reason)
    return world


def test_a_rest_no_venue_takes_is_judged_at_its_price_and_lost_in_money(left):
    """The token fell by 5 %: so did the trade, at a drawdown of 5 %; the 5.20 USD are gone from the account."""
    found = left.kinds("position_closed")[0].payload.summary
    assert found.roi == pytest.approx(-0.05)
    assert (found.rr, found.outcome_class) == (pytest.approx(-1.0), "small_loss")
    assert (found.max_drawdown, found.price_return) == (pytest.approx(0.05), pytest.approx(-0.05))
    assert found.exit_price == 95.0
    assert found.exit_ts == left.kinds("order_rejected")[0].ts_event
    assert (found.pnl_usd, found.extracted_usd) == (Decimal("-5.200000"), 0)


def test_dust_is_lost_in_the_outcome_too(world):
    """30 tokens bought, 29.997 sold: the rest is worth .33 USD, and counts as nothing in money and in the outcome."""
    world.s1_buy()
    world.bar("S3", 108.0)
    world.over("S3", 110.0)
    world.share = 0.9999
    world.bar("S0", 110.0)
    found = world.kinds("position_closed")[0].payload.summary
    assert found.extracted_usd == Decimal("29.997") * 110
    assert found.roi == float(found.pnl_usd / found.invested_usd)


def test_the_recomputation_agrees_on_a_rest_that_was_given_up(left, repo, tmp_path, w):
    """From the log and the bars alone, to 1e-9; without the rest it would differ."""
    bars, n = left.bars, 30
    low, high = [99.8] * n + [b.low for b in bars], [100.2] * n + [b.high for b in bars]
    close, first = [100.0] * n + [b.price for b in bars], bars[0].ts - w.HOUR * (n + 1)
    columns = {"timestamp": ExportColumn("time", [first + w.HOUR * i for i in range(len(close))])}
    columns |= {
        name: ExportColumn("float", values) for name, values in (("high", high), ("low", low), ("close", close))
    }
    write_parquet(tmp_path / "TOKUSDT-1h.parquet", columns)
    database = tmp_path / "book.db"
    with sqlite3.connect(database) as connection:
        names = ("id", "seq", "kind", "causation_id", "trade_id", "symbol", "timeframe", "ts_event")
        connection.execute(f"CREATE TABLE ad_strands ({', '.join(names)}, content)")
        for strand in left.log:
            row = [getattr(strand, name) for name in names] + [json.dumps(to_json(strand.payload))]
            connection.execute(f"INSERT INTO ad_strands VALUES ({', '.join('?' * len(row))})", row)
    connection.close()
    command = [sys.executable, str(repo / "tools" / "recompute_trades.py"), str(database), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 closed trades" in done.stdout

    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM ad_strands WHERE kind = 'position_status'")
    connection.close()
    assert subprocess.run(command, capture_output=True, text=True, timeout=120).returncode == 1


def path(w, first, lows, highs, start):
    """Hourly bars from ``start`` on with these lows and highs."""
    n = len(lows)
    opened = start + w.HOUR * np.arange(n)
    middle = (np.array(lows) + np.array(highs)) / 2
    return BarSeries("TOKUSDT", "1h", opened, middle, np.array(highs), np.array(lows), middle, np.ones(n))


def test_a_hand_checked_trade(w, sold):
    """Entry 100, exit 110 (roi 10 %), lowest low 96 after the entry bar: drawdown 4 %, rr 2.5."""
    bars = path(w, None, [90.0, 99.0, 96.0, 105.0, 80.0], [101.0, 104.0, 112.0, 111.0, 200.0], sold.entry_ts)
    s = close_trade(sold, bars, RULES)
    assert s.roi == pytest.approx(0.10)
    assert (s.entry_price, s.exit_price, s.price_return) == (100.0, 110.0, pytest.approx(0.10))
    assert s.max_drawdown == pytest.approx(0.04)
    assert s.max_gain == pytest.approx(0.12)
    assert (s.rr, s.rr_raw, s.rr_clipped) == (pytest.approx(2.5), pytest.approx(2.5), False)
    assert (s.r_floor, s.outcome_class, s.hold_class) == (pytest.approx(0.01), "big_win", "short")
    assert s.hold_bars == 3
    assert s.pnl_usd == s.extracted_usd - s.invested_usd == Decimal("300")


def test_the_entry_bar_and_later_bars_do_not_count(w, sold):
    """The entry bar's low may precede the fill, bars after the last fill are the future: neither is in the drawdown."""
    inside = close_trade(sold, path(w, None, [50.0, 99.5, 99.5, 10.0], [101.0] * 4, sold.entry_ts), RULES)
    assert inside.max_drawdown == pytest.approx(0.005)


def test_the_floor_is_one_atr(w, sold):
    """Without a deeper drawdown the risk is ATR / entry: 3 % -> rr 10 / 3."""
    s = close_trade(replace(sold, entry_atr=3.0), path(w, None, [100.0] * 4, [101.0] * 4, sold.entry_ts), RULES)
    assert s.rr == pytest.approx(10 / 3)


def test_no_bars_means_no_drawdown_not_an_error(w, sold):
    """Missing bars never block a closure."""
    nothing = path(w, None, [100.0], [101.0], sold.entry_ts + 1000 * w.HOUR)
    assert close_trade(sold, nothing, RULES).max_drawdown == 0.0


def test_best_entry_looks_ten_bars_around(w, sold):
    """A low of 97 before the entry: 3 floors of 1 % better."""
    lows = [80.0, 97.0, *[99.0] * 13]
    s = close_trade(sold, path(w, None, lows, [101.0] * 15, sold.entry_ts - 11 * w.HOUR), RULES)
    assert (s.best_entry_price, s.missed_entry_r, s.cf_entry_bucket) == (97.0, pytest.approx(3.0), "large")


def test_best_exit_is_the_highest_high_of_the_trade(w, sold):
    s = close_trade(sold, path(w, None, [99.0] * 4, [111.5] * 4, sold.entry_ts), RULES)
    assert (s.best_exit_price, s.missed_exit_r, s.cf_exit_bucket) == (111.5, pytest.approx(1.5), "medium")


def test_time_efficiency_uses_time_to_s3_where_there_is_one(w, sold):
    """1 / (1 + days to S3): the trade saw S3 3 hours after its fill; without S3 the holding time counts."""
    bars = path(w, None, [99.0] * 4, [101.0] * 4, sold.entry_ts)
    days = (sold.s3_reached_ts - sold.entry_ts) / (24 * w.HOUR)
    assert days == pytest.approx(2 / 24)
    assert close_trade(sold, bars, RULES).time_efficiency == pytest.approx(1 / (1 + days))
    assert close_trade(replace(sold, s3_reached_ts=0), bars, RULES).time_efficiency == pytest.approx(1 / (1 + 3 / 24))


@pytest.mark.parametrize(("roi", "rr"), [(-0.5, -3.0), (5.0, 10.0), (0.02, 2.0), (-0.01, -1.0)])
def test_rr_is_clipped_and_never_infinite(roi, rr):
    assert reward_to_risk(roi, 0.0, 0.01, RULES)[1] == pytest.approx(rr)


def test_an_open_trade_cannot_be_closed(w, sold, world):
    """Tokens held, or no trade at all: refused."""
    bars = path(w, None, [99.0], [101.0], sold.entry_ts)
    with pytest.raises(TradingError, match="no finished trade"):
        close_trade(w.position(), bars, RULES)


def _bars(start, lows, highs):
    step = micros("1h")
    n = len(lows)
    ts = np.array([start + i * step for i in range(n)], dtype=np.int64)
    middle = (np.array(lows) + np.array(highs)) / 2
    return BarSeries("X", "1h", ts, middle, np.array(highs), np.array(lows), middle, np.ones(n))


def _action(kind, quantity, price, ts=0):
    side = Decimal(quantity)
    return TradeAction("a", ts, kind, 5, "k", "entry", {}, "", 0, side, price, Decimal(0), 1.0, 1.0)


def test_the_entry_is_the_average_of_all_buys():
    """100 at 1.0 and 50 at 1.6 are an entry at 1.2; sells do not count."""
    actions = [_action("entry", 100, 1.0), _action("trim", 30, 9.0), _action("add", 50, 1.6), _action("exit", 120, 2.0)]

    assert average_entry(actions) == pytest.approx(1.2)


def test_hindsight_looks_ten_bars_around_the_entry_and_twenty_after_the_exit():
    """The lowest low and the highest high inside those spans count, those one bar outside do not."""
    step = micros("1h")
    lows, highs = [10.0] * 60, [11.0] * 60
    lows[9], lows[25] = 1.0, 8.0  # 11 bars before the entry: too far; 5 bars after it: near enough
    highs[54], highs[55] = 20.0, 99.0  # the last bar closing 20 bars after the exit at bar 35, and the next
    trade = PositionClosed(
        "exchange", "X", "d", "c", True, 1.0, "r", "exit", {}, _summary(20 * step, 35 * step, 10.0, 11.0, 0.05), ()
    )

    found = hindsight(trade, "1h", _bars(0, lows, highs))

    assert (found.best_entry_price, found.best_exit_price) == (8.0, 20.0)
    assert (found.missed_entry_r, found.missed_exit_r) == (pytest.approx(4.0), pytest.approx(18.0))
    assert (found.cf_entry_bucket, found.cf_exit_bucket) == ("large", "large")


def _summary(entry_ts, exit_ts, entry, exit_price, floor):
    numbers = {f.name: 0.0 for f in dataclasses.fields(TradeSummary) if f.type in ("float", "float | None")}
    money = {f.name: Decimal(0) for f in dataclasses.fields(TradeSummary) if f.type == "Decimal"}
    rest = {
        "rr_clipped": False,
        "outcome_class": "",
        "hold_bars": 0,
        "hold_class": "",
        "cf_entry_bucket": "",
        "cf_exit_bucket": "",
    }
    facts = {"entry_ts": entry_ts, "exit_ts": exit_ts, "entry_price": entry, "exit_price": exit_price, "r_floor": floor}
    return TradeSummary(**{**numbers, **money, **rest, **facts})
