"""Bars from an exchange: paging, the candle that is still open, gaps, bad candles, lost answers, and downloads.

The exchange gives 50 candles a page; hours are counted from `EPOCH`. Candle i opens at 100 + i.
"""

from __future__ import annotations

import json
from dataclasses import replace

import duckdb
import numpy as np
import pytest
import typer
from tests.exchange import KLINES, Exchange, Rules
from typer.testing import CliRunner

from edgebook.adapters.feeds import exchange as feed
from edgebook.adapters.feeds.exchange import ExchangeSource, download
from edgebook.adapters.feeds.parquet import ParquetSource
from edgebook.adapters.venue import connect
from edgebook.cli.download import download as download_command
from edgebook.domain.errors import InputError, MarketDataError, PortError

HOUR = 3_600_000_000
EPOCH = 1_750_000_000_000_000 // HOUR * HOUR


def at(hours: float) -> int:
    """Microseconds of an hour of this test."""
    return EPOCH + int(hours * HOUR)


def candle(i: int) -> list[str]:
    """Open, high, low, close, volume of candle ``i``."""
    return [str(100 + i), str(102 + i), str(99 + i), str(101 + i), str(10 + i)]


@pytest.fixture
def exchange():
    """200 closed hours of XUSDT and YUSDT, the 201st half over."""
    venue = Exchange().start()
    venue.page = 50
    for symbol in ("XUSDT", "YUSDT"):
        venue.list(symbol, Rules(symbol[0]))
        venue.candles[symbol, "1h"] = {at(i) // 1000: candle(i) for i in range(201)}
    venue.now = at(200.5)
    yield venue
    venue.stop()


@pytest.fixture
def venue(exchange):
    """A connection without credentials."""
    return connect("binance", url=exchange.url)


@pytest.fixture
def source(venue):
    """Bars of both symbols from hour 0 on."""
    return ExchangeSource(venue, ["YUSDT", "XUSDT"], "1h", start=at(0))


def opens(bars) -> list[int]:
    """Which candles they are."""
    assert bars.open.tolist() == [100.0 + i for i in (bars.ts_open - EPOCH) // HOUR]
    return ((bars.ts_open - EPOCH) // HOUR).tolist()


def hide(exchange: Exchange, hour: int, times: int) -> None:
    """Leave a candle out of the next ``times`` answers that should hold it."""
    exchange.hidden_candles["XUSDT", at(hour) // 1000] = times


# ------------------------------------------------------------------ the source


def test_a_backfill_pages_through_all_closed_candles(source, exchange):
    """200 candles in pages of 50, all numbers as they are."""
    bars = source.bars("XUSDT", at(0), at(200))
    assert opens(bars) == list(range(200))
    assert bars.bar(7).close == 108.0
    assert (bars.bar(7).high, bars.bar(7).low, bars.bar(7).volume) == (109.0, 106.0, 17.0)
    assert exchange.count("GET", KLINES) == 4


def test_the_source_says_what_it_is(source):
    """Symbols in order, an endless span from the start, the base currency as ticker, no signals."""
    assert source.symbols == ("XUSDT", "YUSDT")
    assert (source.base_timeframe, source.span) == ("1h", (at(0), None))
    assert source.tokens()["YUSDT"].ticker == "Y"
    assert source.signals(at(0), at(200)) == ()


def test_the_candle_that_is_still_open_is_left_out(source, exchange):
    """Also when the caller's clock is ahead of the venue's; it is there as soon as it has closed."""
    assert opens(source.bars("XUSDT", at(195), at(300))) == [195, 196, 197, 198, 199]
    assert source.final_until("XUSDT") == at(200)
    exchange.candles["XUSDT", "1h"][at(200) // 1000] = candle(200)
    exchange.now = at(201)
    assert opens(source.bars("XUSDT", at(199), at(201))) == [199, 200]


def test_spans_are_cut_at_closes_and_at_the_start(source):
    """A bar counts if it opens at or after the start and closes at or before the end; nothing lies before hour 0."""
    assert opens(source.bars("XUSDT", at(3.5), at(6.5))) == [4, 5]
    assert opens(source.bars("XUSDT", at(-50), at(2))) == [0, 1]
    assert len(source.bars("XUSDT", at(5), at(5.9))) == 0


def test_what_was_read_is_not_asked_for_again(source, exchange):
    """The same span gives the same bars, without a question, even when the venue has changed its mind."""
    first = source.bars("XUSDT", at(0), at(150))
    asked = len(exchange.requests)
    exchange.candles["XUSDT", "1h"].clear()
    again = source.bars("XUSDT", at(0), at(150))
    assert len(exchange.requests) == asked
    for name in ("ts_open", "open", "high", "low", "close", "volume"):
        assert np.array_equal(getattr(first, name), getattr(again, name))


def test_polling_hour_by_hour_gives_the_bars_of_one_backfill(source, venue, exchange):
    """However the span is cut into questions."""
    for hour in range(1, 201):
        source.bars("XUSDT", at(hour - 1), at(hour))
    polled = source.bars("XUSDT", at(0), at(200))
    whole = ExchangeSource(venue, ["XUSDT"], "1h", start=at(0)).bars("XUSDT", at(0), at(200))
    assert opens(polled) == opens(whole) == list(range(200))


def test_a_gap_is_filled_by_asking_again(source, exchange):
    """One answer left three candles out, the second has them."""
    for hour in (20, 21, 70):
        hide(exchange, hour, 1)
    assert opens(source.bars("XUSDT", at(0), at(200))) == list(range(200))


def test_a_gap_that_is_there_twice_stays_a_gap(source, exchange):
    """The venue has later candles: hour 20 is missing for good, now and when asked again."""
    hide(exchange, 20, 2)
    expected = [*range(20), *range(21, 200)]
    assert opens(source.bars("XUSDT", at(0), at(200))) == expected
    assert opens(source.bars("XUSDT", at(0), at(200))) == expected


def test_a_candle_that_is_late_is_waited_for(source, exchange):
    """It has closed, the venue does not have it yet, and nothing later: it may still come, and it does."""
    hide(exchange, 199, 4)
    assert opens(source.bars("XUSDT", at(197), at(200))) == [197, 198]
    assert source.final_until("XUSDT") == at(199)
    assert opens(source.bars("XUSDT", at(197), at(200))) == [197, 198, 199]


def test_a_symbol_that_was_listed_late_is_found_without_crawling(exchange, venue):
    """10,000 hours of nothing before the first candle: a handful of questions."""
    source = ExchangeSource(venue, ["XUSDT"], "1h", start=at(-10_000))
    assert opens(source.bars("XUSDT", at(-10_000), at(10))) == list(range(10))
    assert exchange.count("GET", KLINES) <= 4


def test_a_symbol_without_candles_is_asked_for_again_and_again(exchange, source):
    """An empty answer proves nothing: no gap is made of it."""
    kept = exchange.candles.pop(("XUSDT", "1h"))
    assert len(source.bars("XUSDT", at(0), at(200))) == 0
    assert source.final_until("XUSDT") == at(0)
    exchange.candles["XUSDT", "1h"] = kept
    assert len(source.bars("XUSDT", at(0), at(200))) == 200


BAD = {
    "high below close": (1, "100", "high 100 and low 119 must enclose open 120 and close 121"),
    "no price": (3, None, "prices 120 122 119 nan; they must be positive"),
    "zero": (0, "0", "prices 0 122 119 121"),
    "not finite": (2, "Infinity", "prices 120 122 inf 121"),
    "negative volume": (4, "-1", "volume -1; it must be finite"),
}


@pytest.mark.parametrize(("field", "value", "reason"), BAD.values(), ids=BAD)
def test_a_bad_candle_is_refused_with_its_reason_and_is_no_crash(source, exchange, field, value, reason):
    """The others are there; the reason names the candle, for the dead letters."""
    row = exchange.candles["XUSDT", "1h"][at(20) // 1000]
    row[field] = value
    assert opens(source.bars("XUSDT", at(0), at(200))) == [*range(20), *range(21, 200)]
    assert list(source.faults) == [("XUSDT", at(20))]
    assert source.faults["XUSDT", at(20)].startswith(reason)


def test_a_bad_candle_that_is_good_the_second_time_is_taken(source, exchange):
    """What was garbled on the way is asked for again."""
    garbled = [[at(i) // 1000, *candle(i), 0, "0", 1, "0", "0", "0"] for i in range(50)]
    garbled[3][4] = "999"
    exchange.fail(KLINES, (200, garbled))
    assert opens(source.bars("XUSDT", at(0), at(50))) == list(range(50))
    assert source.faults == {}


GARBAGE = {
    "dropped": "drop", "503": (503, "<html>"), "html": "<html>", "empty": "", "object": "{}",
    "off the grid": json.dumps([[at(60.5) // 1000, "1", "1", "1", "1", "1"]]),
    "an error": (400, {"code": -1100, "msg": "Illegal characters"}),
}  # fmt: skip


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_a_lost_answer_is_one_clear_error_and_nothing_is_lost(source, exchange, answer):
    """What was read before is kept; the next question goes on from there."""
    source.bars("XUSDT", at(0), at(50))
    exchange.fail(KLINES, answer)
    with pytest.raises(PortError, match="binance") as raised:
        source.bars("XUSDT", at(0), at(200))
    assert "\n" not in str(raised.value)
    assert opens(source.bars("XUSDT", at(0), at(200))) == list(range(200))


@pytest.mark.parametrize("answer", ["[]", "[1, 2]", '[[null, "1", "1", "1", "1", "1"]]'])
def test_an_answer_without_candles_makes_no_gap(source, exchange, answer):
    """Twice in a row: nothing is concluded from it, and the next question gets everything."""
    for _ in range(2):
        exchange.fail(KLINES, answer)
    assert len(source.bars("XUSDT", at(0), at(50))) == 0
    assert opens(source.bars("XUSDT", at(0), at(50))) == list(range(50))


def test_unknown_symbols_and_timeframes_are_named(venue, source):
    """At the start, or when asked."""
    with pytest.raises(InputError, match="binance has no spot market NOPE"):
        ExchangeSource(venue, ["NOPE"], "1h", start=0)
    with pytest.raises(InputError, match="'X/USDT' must be the venue's own id"):
        ExchangeSource(venue, ["X/USDT"], "1h", start=0)
    with pytest.raises(MarketDataError, match="unknown timeframe '7m'"):
        ExchangeSource(venue, ["XUSDT"], "7m", start=0)
    with pytest.raises(InputError, match="NOPE is not among XUSDT, YUSDT"):
        source.bars("NOPE", at(0), at(1))


# ------------------------------------------------------------------ downloads


@pytest.fixture
def fetch(venue, tmp_path):
    """Download both symbols into a folder, without pausing."""
    naps: list[float] = []

    def run(start=0, end=200, symbols=("XUSDT", "YUSDT"), **given):
        given = {"sleep": naps.append, "pause_seconds": 0} | given
        return download(venue, symbols, "1h", at(start), at(end), tmp_path / "bars", **given)

    run.naps = naps
    run.folder = tmp_path / "bars"
    return run


def test_a_download_is_read_by_the_projects_own_source(fetch):
    """One file per symbol, UTC time stamps, the same bars; nothing else in the folder."""
    done = fetch()
    assert [(d.symbol, d.bars, d.added, d.missing, d.faults) for d in done] == [
        ("XUSDT", 200, 200, 0, ()), ("YUSDT", 200, 200, 0, ()),
    ]  # fmt: skip
    read = ParquetSource(fetch.folder)
    assert (read.symbols, read.base_timeframe, read.span) == (("XUSDT", "YUSDT"), "1h", (at(0), at(200)))
    assert opens(read.bars("XUSDT", at(0), at(200))) == list(range(200))
    assert sorted(p.name for p in fetch.folder.iterdir()) == ["XUSDT-1h.parquet", "YUSDT-1h.parquet"]
    kinds = duckdb.sql(f"SELECT DISTINCT typeof(timestamp) FROM '{done[0].path}'").fetchall()
    assert kinds == [("TIMESTAMP WITH TIME ZONE",)]


def test_a_download_goes_on_where_it_was(fetch, exchange):
    """The venue does not answer any more: after growing pauses that is said; the next run asks for the rest only."""
    fetch(end=100, symbols=["XUSDT"])
    for _ in range(6):
        exchange.fail(KLINES, "drop")
    with pytest.raises(PortError, match="the connection broke"):
        fetch(symbols=["XUSDT"])
    assert fetch.naps[-5:] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert len(ParquetSource(fetch.folder).bars("XUSDT", 0, at(200))) == 100
    exchange.requests.clear()
    done = fetch(symbols=["XUSDT"])[0]
    assert (done.bars, done.added) == (200, 100)
    starts = [int(p["startTime"]) * 1000 for _, path, p in exchange.requests if path == KLINES]
    assert min(starts) == at(100)


def test_pages_that_were_read_before_an_interruption_are_kept(fetch, exchange, venue):
    """The user stops it while it waits between pages: what was read so far is a whole file."""
    venue.dialect = replace(venue.dialect, candles=50)

    def stop(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(symbols=["XUSDT"], sleep=stop)
    assert opens(ParquetSource(fetch.folder).bars("XUSDT", 0, at(200))) == list(range(50))
    assert fetch(symbols=["XUSDT"])[0].bars == 200


def test_a_file_grows_at_both_ends(fetch):
    """Earlier and later candles than those that are there."""
    fetch(start=50, end=100, symbols=["XUSDT"])
    done = fetch(start=20, end=150, symbols=["XUSDT"])[0]
    assert (done.bars, done.added) == (130, 80)
    assert opens(ParquetSource(fetch.folder).bars("XUSDT", 0, at(200))) == list(range(20, 150))
    assert fetch(start=20, end=150, symbols=["XUSDT"])[0].added == 0


def test_a_reader_of_the_old_file_is_not_disturbed(fetch):
    """The new file takes the old one's name; whoever has the old one open reads it to its end."""
    path = fetch(end=100, symbols=["XUSDT"])[0].path
    before = path.read_bytes()
    with path.open("rb") as reader:
        fetch(symbols=["XUSDT"])
        assert path.read_bytes() != before
        assert reader.read() == before


def test_a_file_is_replaced_as_a_whole_or_not_at_all(fetch, exchange, monkeypatch):
    """The disk fails while the new file is written: the old one is as it was, and no half one lies beside it."""
    fetch(end=100, symbols=["XUSDT"])
    path = fetch.folder / "XUSDT-1h.parquet"
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feed.os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write bars there: .*No space left"):
        fetch(symbols=["XUSDT"])
    assert path.read_bytes() == before
    assert [p.name for p in fetch.folder.iterdir()] == ["XUSDT-1h.parquet"]


def test_a_download_reports_gaps_and_refused_candles(fetch, exchange):
    """Hour 20 is not there, hour 30 is impossible."""
    del exchange.candles["XUSDT", "1h"][at(20) // 1000]
    exchange.candles["XUSDT", "1h"][at(30) // 1000] = ["1", "1", "2", "1", "1"]
    done = fetch(symbols=["XUSDT"])[0]
    assert (done.bars, done.missing) == (198, 2)
    assert done.faults == (f"XUSDT candle opening at {at(30)} us: high 1 and low 2 must enclose open 1 and close 1",)


def test_a_download_without_candles_leaves_no_file(fetch, exchange):
    """There is nothing to write."""
    exchange.candles["XUSDT", "1h"] = {}
    assert fetch(symbols=["XUSDT"])[0].bars == 0
    assert list(fetch.folder.iterdir()) == []


def test_what_cannot_be_downloaded_is_named(fetch, tmp_path):
    """Unknown symbol, empty span, a file where the folder should be, a broken file in it."""
    with pytest.raises(InputError, match="no spot market NOPE"):
        fetch(symbols=["NOPE"])
    with pytest.raises(InputError, match="no 1h candle fits"):
        fetch(start=1.2, end=1.9)
    fetch.folder.write_text("in the way")
    with pytest.raises(InputError, match="cannot write bars there"):
        fetch()
    fetch.folder.unlink()
    fetch.folder.mkdir()
    (fetch.folder / "XUSDT-1h.parquet").write_text("no parquet")
    with pytest.raises(MarketDataError, match=r"XUSDT-1h\.parquet: cannot be read"):
        fetch()


def test_the_command_writes_files_and_says_so(exchange, tmp_path):
    """In words and as JSON; the second run finds nothing new."""
    app = typer.Typer()
    app.command("download")(download_command)
    options = ["--out", str(tmp_path / "bars"), "--from", "2025-06-15", "--url", exchange.url]
    said = CliRunner().invoke(app, ["--symbols", "XUSDT, YUSDT", *options])
    assert said.exit_code == 0, said.output
    assert "XUSDT-1h.parquet: 200 bars, 200 of them new, 0 missing in between" in said.output
    again = json.loads(CliRunner().invoke(app, ["--symbols", "XUSDT", *options, "--json"]).output)
    assert again["files"][0] | {"path": ""} == {
        "symbol": "XUSDT", "path": "", "bars": 200, "added": 0, "missing": 0, "refused": [],
    }  # fmt: skip
    refused = CliRunner().invoke(app, ["--symbols", " , ", *options])
    assert isinstance(refused.exception, InputError)
