"""ParquetSource: what it gives back, and that every bad file is refused in one line naming file, row and field."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest

from edgebook.adapters.feeds.parquet import ParquetSource
from edgebook.adapters.feeds.signals import read_signals, read_tokens
from edgebook.domain.errors import InputError, MarketDataError
from edgebook.ports import TokenInfo

HOUR = 3_600_000_000
T0 = 1_704_067_200_000_000
GOOD = {
    "timestamp": [0, 1, 2, 4, 5],
    "open": [1.0, 1.1, 1.2, 1.3, 1.4],
    "high": [1.2, 1.3, 1.4, 1.5, 1.6],
    "low": [0.9, 1.0, 1.1, 1.2, 1.3],
    "close": [1.1, 1.2, 1.3, 1.4, 1.5],
    "volume": [10.0, 0.0, 30.0, 40.0, 50.0],
}


def write(path, columns=GOOD, stamp="make_timestamptz({} * 3600000000 + 1704067200000000)::TIMESTAMPTZ"):
    """A Parquet of these columns; ``timestamp`` is in hours after T0 and written by the SQL expression ``stamp``."""
    names = list(columns)
    rows = ", ".join(
        "(" + ", ".join("NULL" if v is None else ("'nan'::DOUBLE" if v != v else repr(v)) for v in row) + ")"
        for row in zip(*columns.values(), strict=True)
    )
    kinds = ", ".join(f"{stamp.format(n)} AS {n}" if n == "timestamp" else f"{n}::DOUBLE AS {n}" for n in names)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT {kinds} FROM (VALUES {rows}) AS t({', '.join(names)})) TO '{path}' (FORMAT parquet)"
        )
    return path


def changed(**columns):
    return GOOD | columns


def test_bars_come_back_as_written_with_their_gap(tmp_path):
    write(tmp_path / "AUSDT-1h.parquet")
    source = ParquetSource(tmp_path)
    bars = source.bars("AUSDT", 0, T0 + 99 * HOUR)
    assert source.symbols == ("AUSDT",)
    assert source.base_timeframe == "1h"
    assert source.span == (T0, T0 + 6 * HOUR)
    assert bars.ts_open.tolist() == [T0 + h * HOUR for h in (0, 1, 2, 4, 5)]
    assert bars.gaps().tolist() == [0, 0, 0, 1, 0]
    for name in ("open", "high", "low", "close", "volume"):
        assert getattr(bars, name).tolist() == GOOD[name]


def test_a_bar_is_given_only_once_it_has_closed(tmp_path):
    """ts_open >= start and close <= end, to the microsecond."""
    write(tmp_path / "A-1h.parquet")
    source = ParquetSource(tmp_path)
    assert len(source.bars("A", T0, T0 + 2 * HOUR)) == 2
    assert len(source.bars("A", T0, T0 + 2 * HOUR - 1)) == 1
    assert len(source.bars("A", T0 + 1, T0 + 2 * HOUR)) == 1
    assert len(source.bars("A", T0 + 2 * HOUR, T0)) == 0


@pytest.mark.parametrize("factor", [3600, 3_600_000, HOUR, HOUR * 1000])
def test_integer_timestamps_in_any_unit(tmp_path, factor):
    write(tmp_path / "A-1h.parquet", stamp=f"({{}} * {factor} + {T0 // HOUR * factor})::BIGINT")
    assert ParquetSource(tmp_path).span[0] == T0


def test_quote_volume_becomes_base_volume(tmp_path):
    write(tmp_path / "A-1h.parquet")
    bars = ParquetSource(tmp_path, volume_unit="quote").bars("A", 0, T0 + 9 * HOUR)
    assert bars.volume == pytest.approx(np.array(GOOD["volume"]) / GOOD["close"])


def test_row_order_is_kept_in_large_files(tmp_path):
    n = 300_000
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT (1704067200 + i * 60)::BIGINT AS timestamp, 1.0 + i AS open, 1.0 + i AS high, "
            f"1.0 + i AS low, 1.0 + i AS close, "
            f"1.0 AS volume FROM range({n}) t(i)) TO '{tmp_path}/A-1m.parquet' (FORMAT parquet)"
        )
    assert ParquetSource(tmp_path).bars("A", 0, 2 * T0).close.tolist() == [1.0 + i for i in range(n)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({n: v for n, v in GOOD.items() if n != "low"}, "column low is missing"),
        (changed(timestamp=[0, 2, 1, 4, 5]), r"row 3: timestamp is \d+; it must be later .* not sorted"),
        (changed(timestamp=[0, 1, 1, 4, 5]), r"row 3: timestamp is \d+; it must be later .* twice"),
        (changed(timestamp=[0, 1, 2, 3.5, 5]), r"row 4: timestamp is \d+; it must be an open time on the 1h grid"),
        (changed(close=[1.1, float("nan"), 1.3, 1.4, 1.5]), "row 2: close is nan; it must be a positive finite price"),
        (changed(open=[1.0, 1.1, -1.2, 1.3, 1.4]), "row 3: open is -1.2; it must be a positive"),
        (changed(low=[0.9, 1.0, 1.1, 1.2, 0.0]), "row 5: low is 0.0; it must be a positive"),
        (changed(close=[1.1, None, 1.3, 1.4, 1.5]), "row 2: close is empty"),
        (changed(volume=[10.0, 1.0, 30.0, -1.0, 50.0]), "row 4: volume is -1.0; it must be finite and not negative"),
        (changed(high=[1.2, 1.15, 1.4, 1.5, 1.6]), "row 2: high is 1.15; it must be at least open and close"),
        (changed(low=[0.9, 1.0, 1.25, 1.2, 1.3]), "row 3: low is 1.25; it must be at most open and close"),
    ],
)
def test_a_bad_row_is_named(tmp_path, columns, message):
    stamp = "make_timestamptz(({} * 3600000000)::BIGINT + 1704067200000000)"
    write(tmp_path / "BAD-1h.parquet", columns, stamp)
    with pytest.raises(MarketDataError, match=message) as caught:
        ParquetSource(tmp_path).bars("BAD", 0, 2 * T0)
    assert "BAD-1h.parquet" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "A-1h.parquet").write_text("timestamp,open\n1,2\n")
    with pytest.raises(MarketDataError, match=r"A-1h\.parquet: cannot be read as a Parquet file"):
        _ = ParquetSource(tmp_path).span


def test_folders_that_hold_no_usable_bars_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        ParquetSource(tmp_path / "absent")
    with pytest.raises(InputError, match="no SYMBOL-<timeframe>"):
        ParquetSource(tmp_path)
    write(tmp_path / "A-1h.parquet")
    with pytest.raises(InputError, match="no bar file of B"):
        ParquetSource(tmp_path, ["A", "B"])
    write(tmp_path / "B-4h.parquet")
    with pytest.raises(InputError, match=r"mixed timeframes, A-1h\.parquet and B-4h\.parquet"):
        ParquetSource(tmp_path)
    assert ParquetSource(tmp_path, ["A"]).symbols == ("A",)
    (tmp_path / "C-7h.parquet").touch()
    with pytest.raises(InputError, match=r"C-7h\.parquet: not SYMBOL"):
        ParquetSource(tmp_path)


def test_token_table_is_read_and_completed(tmp_path):
    write(tmp_path / "A-1h.parquet")
    write(tmp_path / "B-1h.parquet")
    (tmp_path / "tokens.csv").write_text("symbol,ticker,chain,mcap_usd_proxy\nA,AA,base,5e6\n")
    assert ParquetSource(tmp_path).tokens() == {
        "A": TokenInfo("A", "AA", "base", 5e6),
        "B": TokenInfo("B", "B", "exchange"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbol,ticker\nA,A\n", "line 1: column chain is missing"),
        ("symbol,ticker,chain\nA,A,base\nA,A,base\n", "line 3: symbol 'A' is there twice"),
        ("symbol,ticker,chain\n,A,base\n", "line 2: symbol '' is empty"),
        ("symbol,ticker,chain,mcap_usd\nA,A,base,-5\n", "line 2: mcap_usd is '-5'"),
        ("symbol,ticker,chain,mcap_usd\nA,A,base,much\n", "line 2: mcap_usd is 'much'"),
    ],
)
def test_a_bad_token_table_is_refused(tmp_path, text, message):
    path = tmp_path / "tokens.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_tokens(path)


def test_signal_lines_keep_their_numbers_and_text(tmp_path):
    path = tmp_path / "signals.jsonl"
    path.write_text('{"a": 1}\n\n  not json \n')
    assert list(read_signals(path)) == [(1, '{"a": 1}'), (3, "not json")]


def test_signal_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.jsonl: cannot be read"):
        list(read_signals(tmp_path / "absent.jsonl"))
    path = tmp_path / "bytes.jsonl"
    path.write_bytes(b"{}\n\xff\xfe\n")
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        list(read_signals(path))


def test_recorded_bars_are_read(real_data):
    """The files of one recorded set: sizes, gaps kept, and the token table beside the signals."""
    source = ParquetSource(real_data / "binance_spot_1h_2021_2023", ["ANCUSDT", "FTTUSDT", "LUNAUSDT"])
    tokens = read_tokens(real_data / "signals" / "binance_spot_1h_2021_2023" / "tokens.csv")
    bars = {symbol: source.bars(symbol, *source.span) for symbol in source.symbols}
    assert all(len(b) > 5_000 for b in bars.values())
    assert max(int(b.gaps().max()) for b in bars.values()) > 100
    assert set(bars) <= set(tokens)
