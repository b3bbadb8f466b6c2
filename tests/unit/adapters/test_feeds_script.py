"""The written market: what a script says is what the source gives, and a broken line is named."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.adapters.feeds.script import CLASSES, FLAGS, SCORES, ScriptSource
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import InputError, MarketDataError
from edgebook.market.bars import resample
from edgebook.market.composite import CAP_CLASSES

START = round(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
HEADER = {"script": 1, "start": "2024-01-01T00:00:00Z", "end": "2024-01-02T00:00:00Z", "base": "1h", "history_days": 1}
TOKEN = {"token": "AAAUSDT"}
TS = "2024-01-01T05:00:00Z"


def iso(at):
    """A time as text."""
    return datetime.fromtimestamp(at // 1_000_000, UTC).isoformat().replace("+00:00", "Z")


def source_of(folder, *rows, name="script.jsonl"):
    """The source of a script with these lines; text stands for itself."""
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return ScriptSource(path)


# ---------------------------------------------------------------- what it gives


def test_start_end_base_and_tokens_are_what_the_file_says(tmp_path):
    """The span begins with the history; a token's other fields go to the token table."""
    row = {"token": "BBBUSDT", "ticker": "BBB", "chain": "solana", "contract": "0xb", "mcap_usd": 3e6, "price": 2}
    found = source_of(tmp_path, HEADER, TOKEN, row)

    assert (found.start, found.span, found.base_timeframe) == (START, (START - DAY, START + DAY), "1h")
    assert found.symbols == ("AAAUSDT", "BBBUSDT")
    told = found.tokens()["BBBUSDT"]
    assert (told.ticker, told.chain, told.contract, told.mcap_usd) == ("BBB", "solana", "0xb", 3e6)
    assert found.tokens()["AAAUSDT"].chain == "exchange"
    assert list(found.signals(0, 1 << 62)) == []


def test_a_price_moves_on_its_bar_and_stays(tmp_path):
    """Bars join: each opens where the one before has closed."""
    move = {"symbol": "AAAUSDT", "ts": TS, "price": 110, "volume": 7}
    bars = source_of(tmp_path, HEADER, TOKEN, move).bars("AAAUSDT", START, START + DAY)

    assert bars.close.tolist() == [100.0] * 4 + [110.0] * 20
    assert bars.open.tolist() == [100.0] * 5 + [110.0] * 19
    assert bars.volume.tolist() == [1e6] * 4 + [7.0] * 20
    assert bars.high.tolist()[3:6] == [100.0, 110.0, 110.0]
    assert bars.low.tolist()[3:6] == [100.0, 100.0, 110.0]


def test_missing_bars_and_bars_before_the_first_are_not_there(tmp_path):
    """Named by when they open; the end of a span is not of it."""
    token = TOKEN | {"first": "2024-01-01T01:00:00Z"}
    hole = {"symbol": "AAAUSDT", "missing": ["2024-01-01T03:00:00Z", "2024-01-01T05:00:00Z"]}
    opens = source_of(tmp_path, HEADER, token, hole).bars("AAAUSDT", START - DAY, START + 6 * HOUR).ts_open

    assert ((opens - START) // HOUR).tolist() == [1, 2, 5]


def test_a_line_may_move_the_price_and_tell_of_the_trend(tmp_path):
    """Lines may stand in any order after the first, a driver needs no token."""
    bar = {"symbol": "AAAUSDT", "timeframe": "1h", "ts": TS, "state": "S1", "price": 90, "ts_score": 0.7}
    driver = {"symbol": "btc", "timeframe": "1d", "ts": "2024-01-02T00:00:00Z", "state": "S2", "first_dip": True}
    found = source_of(tmp_path, HEADER, bar, driver, TOKEN)

    first, second = found.readings
    assert (first.symbol, first.timeframe, first.ts, first.state) == ("AAAUSDT", "1h", START + 5 * HOUR, "S1")
    assert dict(first.values) == {"ts_score": 0.7}
    assert (second.symbol, dict(second.values)) == ("btc", {"first_dip": True})
    assert found.bars("AAAUSDT", START + 4 * HOUR, START + 5 * HOUR).close.tolist() == [90.0]


@given(
    moves=st.dictionaries(st.integers(-20, 24), st.floats(0.5, 200.0), max_size=8),
    holes=st.lists(st.tuples(st.integers(-20, 20), st.integers(1, 5)), max_size=3),
    cuts=st.lists(st.integers(-24, 24), max_size=4),
)
def test_any_cut_of_a_series_gives_the_same_bars(tmp_path_factory, moves, holes, cuts):
    """And the bars are those of a plain walk over the hours."""
    inside = {hour: price for hour, price in moves.items() if hour > 0}
    lines = [{"symbol": "AAAUSDT", "ts": iso(START + h * HOUR), "price": p} for h, p in inside.items()]
    lines += [{"symbol": "AAAUSDT", "missing": [iso(START + a * HOUR), iso(START + (a + n) * HOUR)]} for a, n in holes]
    found = source_of(tmp_path_factory.mktemp("cut"), HEADER, TOKEN, *lines)
    whole = found.bars("AAAUSDT", START - DAY, START + DAY)
    edges = sorted({-24, 24, *cuts})
    parts = [found.bars("AAAUSDT", START + a * HOUR, START + b * HOUR) for a, b in pairwise(edges)]

    for name in ("ts_open", "open", "high", "low", "close", "volume"):
        assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name)), name
    price, naive = 100.0, []
    for hour in range(-24, 24):
        before, price = price, inside.get(hour + 1, price)
        if not any(a <= hour < a + n for a, n in holes):
            naive.append((START + hour * HOUR, before, max(before, price), min(before, price), price))
    assert list(zip(whole.ts_open, whole.open, whole.high, whole.low, whole.close, strict=True)) == naive


def test_finer_bars_roll_up_to_the_same_prices(tmp_path):
    """A script of minutes resampled to hours opens, closes and sums as its minutes do."""
    header = HEADER | {"base": "1m"}
    moves = [{"symbol": "AAAUSDT", "ts": iso(START + m * HOUR // 60), "price": 100 + m} for m in (10, 70, 75)]
    found = source_of(tmp_path, header, TOKEN | {"volume": 2}, *moves)
    hours, _ = resample(found.bars("AAAUSDT", START, START + 3 * HOUR), "1h", until=START + 3 * HOUR)

    assert hours.open.tolist() == [100.0, 110.0, 175.0]
    assert hours.close.tolist() == [110.0, 175.0, 175.0]
    assert hours.high.tolist() == [110.0, 175.0, 175.0]
    assert hours.volume.tolist() == [120.0, 120.0, 120.0]


def test_a_token_that_is_not_in_the_script_has_no_bars(tmp_path):
    """The error names the script and the symbol."""
    with pytest.raises(MarketDataError, match=r"script\.jsonl: no token ZZZ"):
        source_of(tmp_path, HEADER, TOKEN).bars("ZZZ", START, START + HOUR)


# ---------------------------------------------------------------- broken lines

BAR = {"symbol": "AAAUSDT", "timeframe": "1h", "ts": TS}
BROKEN = {
    "no JSON": ("{", r"not JSON"),
    "no object": ("[1]", r"\[1\] is no JSON object"),
    "nothing we know": ({"spam": 1}, r"symbol is missing"),
    "no such token": ({"symbol": "ZZZ", "ts": TS, "price": 1}, r"symbol 'ZZZ' has no line \{\"token\": \"ZZZ\"\}"),
    "token twice": (TOKEN, r"token 'AAAUSDT' must be a new name"),
    "token without a name": ({"token": ""}, r"token '' must be a new name"),
    "token with a typo": ({"token": "B", "prise": 1}, r"unknown field 'prise'; this line takes chain, contract"),
    "price of a token": ({"token": "B", "price": 0}, r"price must be above 0"),
    "cap of a token": ({"token": "B", "mcap_usd": "big"}, r"mcap_usd was 'big'; it must be a finite number"),
    "cap that is no number": ('{"token": "B", "mcap_usd": NaN}', r"mcap_usd was nan; it must be a finite number"),
    "dominance": ({"dominance": "ETH.D"}, r"dominance 'ETH.D' must be one of "),
    "dominance of more than all": ({"dominance": "BTC.D", "price": 101}, r"a dominance is a percentage above 0"),
    "dominance with a chain": ({"dominance": "BTC.D", "chain": "x"}, r"unknown field 'chain'"),
    "price": ({"symbol": "AAAUSDT", "ts": TS, "price": -1}, r"price must be above 0, was -1"),
    "price that is true": ({"symbol": "AAAUSDT", "ts": TS, "price": True}, r"price was True; it must be a finite"),
    "time without a zone": ({"symbol": "AAAUSDT", "ts": "2024-01-01T05:00:00", "price": 1}, r"ts was '2024-01-01T05"),
    "time that is none": ({"symbol": "AAAUSDT", "ts": "noon", "price": 1}, r"ts was 'noon'; a time such as"),
    "time before the start": (BAR | {"ts": "2023-12-31T05:00:00Z"}, r"ts must be after start and not after end"),
    "time after the end": (BAR | {"ts": "2024-01-03T05:00:00Z"}, r"ts must be after start and not after end"),
    "price inside a bar": ({"symbol": "AAAUSDT", "ts": "2024-01-01T05:30:00Z", "price": 1}, r"ts is no close of a 1h"),
    "bar inside a bar": (BAR | {"timeframe": "4h"}, r"ts must be the close of a bar of timeframe '4h'"),
    "timeframe": (BAR | {"timeframe": "2h"}, r"timeframe '2h' \(1m, "),
    "state": (BAR | {"state": "S9"}, r"state was 'S9'; it must be one of S0, S1"),
    "score": (BAR | {"ts_scoer": 0.7}, r"'ts_scoer' is no score, average or flag"),
    "score that is text": (BAR | {"ts_score": "high"}, r"ts_score was 'high'; it must be a finite number"),
    "flag": (BAR | {"first_dip": 1}, r"first_dip was 1; it must be true or false"),
    "bar of its own": (BAR | {"high": 1}, r"'high' is no score, average or flag"),
    "span": ({"symbol": "AAAUSDT", "missing": [TS]}, r"missing takes two times"),
    "time of a span": ({"symbol": "AAAUSDT", "missing": [TS, "later"]}, r"missing was 'later'; a time such as"),
    "field of a span": ({"symbol": "AAAUSDT", "missing": [TS, TS], "price": 1}, r"unknown field 'price'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named_by_file_line_and_field(tmp_path, name):
    """Never a traceback, never a guess."""
    row, message = BROKEN[name]
    with pytest.raises(InputError, match=message) as error:
        source_of(tmp_path, HEADER, "", TOKEN, row)
    assert re.match(rf"{re.escape(str(tmp_path))}/script\.jsonl:4: ", error.value.message)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"symbol": "AAAUSD", "timeframe": "1h", "ts": TS, "state": "S1"}, r"symbol 'AAAUSD' has no line .* no regime"),
        ({"symbol": "bucket:tiny", "timeframe": "1h", "ts": TS, "state": "S1"}, r"symbol 'bucket:tiny' has no line"),
        ({"symbol": "AAAUSDT", "timeframe": "1m", "ts": TS, "state": "S1"}, r"timeframe 1m is finer than the bars"),
        (
            {"symbol": "btc", "timeframe": "4h", "ts": "2024-01-01T04:00:00Z", "state": "S1"},
            r"read on 1m, .*1h, 1d, was 4h",
        ),
        ({"symbol": "AAAUSDT", "missing": [TS, "2024-01-01T03:00:00Z"]}, r"missing takes the earlier time first"),
        ({"symbol": "AAAUSDT", "missing": [TS, TS]}, r"missing takes the earlier time first"),
    ],
)
def test_a_line_that_nothing_would_read_is_refused(tmp_path, row, message):
    """A typo must not look like a market in which nothing happens."""
    with pytest.raises(InputError, match=rf":3: .*{message}"):
        source_of(tmp_path, HEADER, TOKEN, row)


def test_a_driver_is_one_that_the_regime_knows():
    """Every cap class has a bucket."""
    assert tuple(name for name, _ in CAP_CLASSES) == CLASSES


HEADERS = {
    "history in part": (HEADER | {"history_days": 1.5}, r"history_days was 1.5; it must be a whole number of days"),
    "history below 0": (HEADER | {"history_days": -1}, r"history_days was -1; it must be a whole number of days"),
    "version": (HEADER | {"script": 2}, r"script"),
    "no header": (TOKEN, r"unknown field 'token'"),
    "typo": (HEADER | {"stop": "x"}, r"unknown field 'stop'"),
    "base": (HEADER | {"base": "2m"}, r"base was '2m'; it must be one of 1m"),
    "start": (HEADER | {"start": "soon"}, r"start was 'soon'"),
    "start inside a bar": (HEADER | {"start": "2024-01-01T00:30:00Z"}, r"start is no close of a 1h bar"),
    "end before the start": (HEADER | {"end": "2023-01-01T00:00:00Z"}, r"end must be after start"),
    "history": (HEADER | {"history_days": "long"}, r"history_days was 'long'"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_broken_first_line_is_named(tmp_path, name):
    """The first line says what the rest is measured by."""
    row, message = HEADERS[name]
    with pytest.raises(InputError, match=rf":1: .*{message}"):
        source_of(tmp_path, row, TOKEN)


def test_two_prices_at_one_time_are_refused_and_the_same_one_twice_is_not(tmp_path):
    """A tale on each timeframe may say the same close."""
    same = {"symbol": "AAAUSDT", "ts": TS, "price": 101}
    assert source_of(tmp_path, HEADER, TOKEN, same, same).bars("AAAUSDT", START, START + DAY).close[-1] == 101
    with pytest.raises(InputError, match=r":4: AAAUSDT has two prices at this time, 101 and 102"):
        source_of(tmp_path, HEADER, TOKEN, same, same | {"price": 102})
    traded = {"symbol": "AAAUSDT", "ts": TS, "volume": 5}
    assert source_of(tmp_path, HEADER, TOKEN, traded, traded).bars("AAAUSDT", START, START + DAY).volume[-1] == 5
    with pytest.raises(InputError, match=r":4: AAAUSDT has two volumes at this time, 5 and 6"):
        source_of(tmp_path, HEADER, TOKEN, traded, traded | {"volume": 6})


def test_a_file_that_is_no_script_is_named(tmp_path):
    """Missing, empty, without a token, not text."""
    with pytest.raises(InputError, match=r"nowhere\.jsonl: cannot be read as a script"):
        ScriptSource(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match=r"the script is empty"):
        source_of(tmp_path, "")
    with pytest.raises(InputError, match=r"at least one line with a token"):
        source_of(tmp_path, HEADER)
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"raw: not UTF-8 text \(byte 0\)"):
        ScriptSource(tmp_path / "raw")


@given(
    line=st.text(max_size=60)
    | st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8)).map(json.dumps)
)
def test_any_line_is_read_or_refused_by_name(tmp_path_factory, line):
    """Whatever stands in the third line."""
    folder = tmp_path_factory.mktemp("any")
    path = folder / "script.jsonl"
    path.write_bytes(
        b"\n".join([json.dumps(HEADER).encode(), json.dumps(TOKEN).encode(), line.encode("utf-8", "replace")])
    )
    refusal = ""
    try:
        assert ScriptSource(path).symbols
    except InputError as error:
        refusal = error.message
    assert not refusal or refusal.startswith(str(path))


def test_scores_and_flags_are_disjoint_and_no_line_can_move_a_bar():
    """What a bar is comes from prices alone."""
    assert not SCORES & FLAGS
    assert not SCORES & {"open", "high", "low", "price", "close", "volume"}
