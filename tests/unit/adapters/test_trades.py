"""TRADES and CONTEXTS: every form they come in reads the same, and every bad row is named."""

from __future__ import annotations

import datetime as dt

import duckdb
import numpy as np
import pytest
from tests.tables import ArrowOnly, decoded, trades

from edgebook.adapters.frames import arrow_stream, open_table, write_table
from edgebook.adapters.trades import check_dims, read_contexts, read_trades
from edgebook.domain.errors import InputError

JAN_1 = 1_704_067_200_000_000
HOUR = 3_600_000_000
HEAD = "trade_id,opened_at,closed_at,rr,side\n"


def small(**change):
    """Three closed trades, as a dict of columns."""
    return {
        "trade_id": ["a", "b", "c"],
        "opened_at": ["2024-01-01", "2024-01-01T01:00:00Z", "2024-01-01 04:00:00+02:00"],
        "closed_at": ["2024-01-02", "2024-01-02", "2024-01-02"],
        "rr": [1.0, -1.0, 2.5],
        "side": ["long", None, "Unknown"],
        **change,
    }


# ------------------------------------------------------------------ one table, many forms


def files(tmp_path, columns):
    """The columns as a Parquet and a CSV file."""
    arrays = {name: np.array(values, dtype=object if name in ("trade_id", "side", "bucket") else None)
              for name, values in columns.items()}  # fmt: skip
    return [write_table(tmp_path / name, arrays) for name in ("trades.parquet", "trades.csv")]


def same(one, other):
    """Whether two reads hold the same trades."""
    return all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(one[:4], other[:4], strict=True)
    ) and {n: decoded(c) for n, c in one.dims.items()} == {n: decoded(c) for n, c in other.dims.items()}


def test_dict_files_and_arrow_read_the_same(tmp_path):
    """Parquet, CSV, a dict, DuckDB's relation and any Arrow stream give equal columns."""
    given = trades(40)
    plain = read_trades(given, ["side", "bucket"])
    parquet, csv = files(tmp_path, given)

    for source in (parquet, str(csv), ArrowOnly(given), duckdb.read_parquet(str(parquet))):
        assert same(read_trades(source, ["side", "bucket"]), plain)
    assert decoded(plain.dims["side"]) == given["side"]
    assert plain.rr.tolist() == given["rr"].tolist()


@pytest.mark.parametrize("library", ["polars", "pandas", "pyarrow"])
def test_frames_of_other_libraries_read_the_same(library, tmp_path):
    """A frame of whatever library is installed is a table, and levers go back into it."""
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    given = small()
    frame = module.table(given) if library == "pyarrow" else module.DataFrame(given)

    assert same(read_trades(frame, ["side"]), read_trades(given, ["side"]))


def test_times_may_be_timestamps_text_or_unix_times():
    """One moment in eight writings; text and naive timestamps are UTC."""
    moment = dt.datetime(2024, 1, 1, 3, tzinfo=dt.UTC)
    seconds = int(moment.timestamp())
    for opened in (
        np.array([moment.replace(tzinfo=None)], dtype="datetime64[s]"),
        np.array([moment.replace(tzinfo=None)], dtype="datetime64[ns]"),
        ["2024-01-01T03:00:00Z"],
        ["2024-01-01 05:00:00+02:00"],
        [seconds],
        [float(seconds) * 1e3],
        [seconds * 10**6],
        np.array([seconds * 10**9]),
        [str(seconds)],
    ):
        read = read_trades(
            {"trade_id": [1], "opened_at": opened, "closed_at": ["2024-02-01"], "rr": [1], "d": ["x"]}, ["d"]
        )
        assert read.opened_at.tolist() == [JAN_1 + 3 * HOUR], opened


def test_dims_are_text_whatever_type_holds_them():
    """Whole numbers read alike as int, float with gaps and text; True is ``true``; blank and Unknown are absent."""
    read = read_trades(
        small(
            whole=[1, 2, 3], gaps=[1.0, np.nan, 3.0], text=["1", "", "3"], flag=[True, False, True],
            nothing=[None, None, None], shout=["UNKNOWN", "unknown", "x"],
        ),
        ["whole", "gaps", "text", "flag", "nothing", "shout"],
    )  # fmt: skip

    assert {name: decoded(coded) for name, coded in read.dims.items()} == {
        "whole": ["1", "2", "3"],
        "gaps": ["1", None, "3"],
        "text": ["1", None, "3"],
        "flag": ["true", "false", "true"],
        "nothing": [None, None, None],
        "shout": [None, None, "x"],
    }


def test_optional_columns_and_others():
    """pnl and roi may have gaps; a column nobody asked for is not looked at."""
    read = read_trades(small(pnl=[1.0, None, np.nan], token=["A", "B", "A"], junk=[[1], [2], [3]]), ["side"])

    assert read.pnl is not None
    assert np.array_equal(read.pnl, [1.0, np.nan, np.nan], equal_nan=True)
    assert read.roi is None
    assert decoded(read.token) == ["A", "B", "A"]
    assert decoded(read.action_category) == [None, None, None]


SIDES = [
    ([1, 2, 3], ["1", "2", "3"]),
    ([1.0, 2.0, 3.0], ["1", "2", "3"]),
    (["1", "2.0", "3.00"], ["1", "2", "3"]),
    ([1, None, 2], ["1", None, "2"]),
    ([1.0, None, 2.0], ["1", None, "2"]),
    (np.array([1.0, None, "b"], dtype=object), ["1", None, "b"]),
    ([-0.0, 0.0, 10.0], ["0", "0", "10"]),
    (["-0.0", "0", "-10.0"], ["0", "0", "-10"]),
    ([True, False, True], ["true", "false", "true"]),
    ([True, None, False], ["true", None, "false"]),
    (["TRUE", "False", "true"], ["true", "false", "true"]),
    (["007", "v1.0", "1.0.0"], ["007", "v1.0", "1.0.0"]),
    (["a", float("nan"), None], ["a", None, None]),
    (np.ma.masked_array(["a", "b", "c"], [False, True, False]), ["a", None, "c"]),
]


@pytest.mark.parametrize(("given", "right"), SIDES)
def test_whole_numbers_and_truth_have_one_text(given, right, tmp_path):
    """As a column, and as a CSV file that holds what ``str`` makes of it, as pandas and the csv module write."""
    path = tmp_path / "t.csv"
    rows = [f"{i},2024-01-01,2024-01-02,1,{'' if v is None else v}" for i, v in enumerate(np.ma.getdata(given))]
    path.write_text("trade_id,opened_at,closed_at,rr,side\n" + "\n".join(rows).replace(",nan", ",") + "\n")

    assert decoded(read_trades(small(side=given), ["side"]).dims["side"]) == right
    if not np.ma.isMaskedArray(given):
        assert decoded(read_trades(path, ["side"]).dims["side"]) == right


def test_measurements_in_a_file_are_refused_as_in_a_frame(tmp_path):
    """A CSV column of numbers with fractions is no dim; one context of that text is merely one that matches nothing."""
    path = tmp_path / "t.csv"
    path.write_text("trade_id,opened_at,closed_at,rr,x\na,2024-01-01,2024-01-02,1,0.25\n")

    with pytest.raises(InputError, match=r"row 1: x is '0\.25'.*bins"):
        read_trades(path, ["x"])
    assert decoded(read_contexts({"x": ["0.25"]}, ["x"]).dims["x"]) == ["0.25"]


@pytest.mark.parametrize(
    "form",
    [
        lambda v: np.repeat(v, 2)[::2],
        lambda v: np.asarray(v[::-1].copy())[::-1],
        lambda v: v.astype(v.dtype.newbyteorder(">")) if v.dtype.kind in "fiM" else v,
    ],
    ids=["strided", "reversed", "big-endian"],
)
def test_arrays_of_any_layout_read_the_same(form):
    """What lies backwards, with gaps or in the other byte order in memory."""
    given = {name: np.asarray(values) for name, values in trades(40).items()}

    assert same(read_trades({n: form(v) for n, v in given.items()}, ["side"]), read_trades(given, ["side"]))


def test_days_and_other_units_are_times():
    """datetime64 of a unit DuckDB does not know."""
    read = read_trades(small(opened_at=np.array(["2024-01-01"] * 3, dtype="datetime64[D]")), ["side"])

    assert read.opened_at.tolist() == [JAN_1] * 3


def test_a_reversed_pandas_frame_reads_the_same():
    """``df[::-1]``, with zones and categories."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(trades(40))
    frame = frame.assign(opened_at=frame.opened_at.dt.tz_localize("UTC"), bucket=frame.bucket.astype("category"))

    assert same(read_trades(frame[::-1], ["side", "bucket"]), read_trades(frame, ["side", "bucket"]))


# ------------------------------------------------------------------ what is refused

BAD = [
    ({"rr": [1.0, np.nan, 2.0]}, "row 2: rr is .*finite number"),
    ({"rr": [1.0, 2.0, np.inf]}, "row 3: rr is 'inf'.*finite number"),
    ({"rr": ["1", "2", "much"]}, "row 3: rr is 'much'"),
    ({"rr": [dt.date(2024, 1, 1)] * 3}, "column rr is of type .*finite number|row 1: rr"),
    ({"trade_id": ["a", "", "c"]}, "row 2: trade_id is empty"),
    ({"closed_at": ["2024-01-02", "2023-12-31", "2024-01-02"]}, "row 2: closed_at is '2023-12-31'.*after opened_at"),
    ({"opened_at": ["2024-01-01", "soon", "2024-01-01"]}, "row 2: opened_at is 'soon'.*ISO text"),
    ({"opened_at": ["2024-01-01", None, "2024-01-01"]}, "row 2: opened_at is empty"),
    ({"opened_at": [1.0, 2.0, 3.0]}, "row 1: opened_at is '1.0'.*hours or days"),
    ({"action_category": ["entry", "buy", "add"]}, "row 2: action_category is 'buy'.*entry, add, trim, exit"),
    ({"action_category": ["allocation"] * 3}, "row 1: action_category is 'allocation'"),
    ({"side": [0.5, 1.0, 2.0]}, "row 1: side is '0.5'.*bins"),
    ({"side": [[1], [2], [3]]}, "column side.*one value per row"),
    ({"side": "long"}, "column side must be a sequence"),
    ({"rr": [1.0]}, "differ in length.*rr 1"),
    ({"trade_id": ["a", "b", "a"]}, "row 3: trade_id 'a' stands in row 1 already with other content"),
    ({"opened_at": [1e300, 1.7e9, 1.7e9]}, r"row 1: opened_at is '1e\+300'.*in seconds like most"),
    ({"opened_at": [1.6e9, 1.6e9, 1.6e12]}, "row 3: opened_at is '1600000000000.0'.*in seconds like most"),
    ({"opened_at": ["1600000000000", "1600000000", "1600000000000"]}, "row 2: opened_at.*in milliseconds like most"),
    ({"opened_at": [20240101120000] * 3}, "row 1: opened_at is '20240101120000'.*not a date written as one number"),
    ({"opened_at": [202401011200] * 3}, "row 1: opened_at is '202401011200'.*not a date written as one number"),
    ({"opened_at": ["2024010112"] * 3}, "row 1: opened_at is '2024010112'.*not a date written as one number"),
    ({"opened_at": [20240101] * 3}, "row 1: opened_at is '20240101'.*hours or days"),
    ({"opened_at": ["1963-11-22", "2024-01-01", "2024-01-01"]}, "row 1: opened_at is '1963.*years 1970 to 2200"),
    ({"opened_at": [-1.7e9] * 3}, "row 1: opened_at is '-17.*years 1970 to 2200"),
    ({"closed_at": ["2024-01-02", "2201-01-01", "2024-01-02"]}, "row 2: closed_at is '2201.*years 1970 to 2200"),
    ({"closed_at": np.array(["9999-12-31"] * 3, dtype="datetime64[us]")}, "row 1: closed_at is '9999.*1970 to 2200"),
    ({"rr": [1.0, 2.0, 1e6]}, "row 3: rr is '1000000.0'.*R multiple.*smaller than 1,000,000"),
    ({"rr": [1.0, -1e300, 1e6]}, "row 2: rr is .*R multiple"),
    ({"side": ["2", "0.5", "Unknown"]}, "row 2: side is '0.5'.*bins"),
    ({"side": [None, 1.5, 2.0]}, "row 2: side is '1.5'.*bins"),
    ({"side": [1e300, 1.0, 2.0]}, "cannot be read: Conversion Error"),
    ({"pnl": ["1", "2", "lots"]}, "row 3: pnl is 'lots'.*number or empty"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "complaint"), BAD, ids=[next(iter(c)) + str(i) for i, (c, _) in enumerate(BAD)])
def test_a_bad_row_is_named(change, complaint):
    """The first bad row, its column, its value and what would be right."""
    with pytest.raises(InputError, match=complaint):
        read_trades(small(**change), ["side"])


def test_a_missing_column_is_named_with_those_there():
    """And for a file, the file."""
    given = small()
    del given["rr"]
    with pytest.raises(InputError, match="trades: column rr is missing; it has trade_id, opened_at, closed_at, side"):
        read_trades(given, ["side"])
    with pytest.raises(InputError, match="column where is missing"):
        read_trades(small(), ["where"])
    with pytest.raises(InputError, match=r"it has x0, .*, x19 and 5 more$"):
        read_trades({f"x{i}": [1] for i in range(25)}, ["where"])


@pytest.mark.parametrize(
    ("dims", "complaint"),
    [
        ([], "dims were empty"),
        ("side", "must be a list"),
        (None, "must be a list"),
        ({"side"}, "must be a list"),
        (["side", "side"], "stands twice"),
        (["rr"], "name of a fixed column"),
        (["because"], "name of a fixed column"),
        ([7], "name of a column, was 7"),
        (["side", "Side"], "'Side' differs from column 'side' in case alone"),
        (["RR"], "'RR' differs from column 'rr' in case alone"),
    ],
)
def test_dims_are_checked(dims, complaint):
    """Names of columns, once each, and none that means something else already."""
    with pytest.raises(InputError, match=complaint):
        check_dims(dims)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("none.parquet", None, "no such file"),
        ("bad.parquet", b"not parquet", "cannot be read"),
        ("bad.xlsx", b"x", "not a table; give .parquet"),
        ("latin.csv", HEAD.encode() + "a,2024-01-01,2024-01-02,1,caf\u00e9\n".encode("latin-1"), "line 2 is not UTF-8"),
        ("wide.csv", (HEAD + "a,2024-01-01,2024-01-02,1,x\n").encode("utf-16"), "encoded as UTF-16; save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_named(name, content, complaint, tmp_path):
    """Path and reason, on one line."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        read_trades(path, ["side"])
    assert caught.value.message.startswith(str(path))
    assert "\n" not in caught.value.message


def test_what_is_no_table_at_all_is_refused():
    """Neither path, dict nor Arrow."""
    with pytest.raises(InputError, match=r"trades must be .* was int"):
        read_trades(7, ["side"])


# ------------------------------------------------------------------ duplicates


def test_equal_rows_count_once_and_the_first_place_stays():
    """A trade delivered twice is one trade."""
    given = {name: [*values, values[1], values[0]] for name, values in small().items()}

    read = read_trades(given, ["side"])

    assert read.trade_id.tolist() == ["a", "b", "c"]
    assert read.duplicates == 2


def test_equal_rows_with_gaps_are_equal():
    """An absent dim equals an absent dim."""
    given = small(trade_id=["a", "a", "b"], rr=[1.0, 1.0, 1.0], side=[None, "", "x"], opened_at=["2024-01-01"] * 3)

    assert read_trades(given, ["side"]).trade_id.tolist() == ["a", "b"]


# ------------------------------------------------------------------ contexts


def test_contexts_need_every_dim_and_keep_their_order():
    """A dim without a column is a mistake to be told, not silence."""
    read = read_contexts({"side": ["b", "a", None], "context_id": [1, 2, 3]}, ["side"])

    assert read.n == 3
    assert decoded(read.dims["side"]) == ["b", "a", None]
    assert read.ids is not None
    assert read.ids.tolist() == ["1", "2", "3"]
    with pytest.raises(InputError, match="contexts: column bucket is missing"):
        read_contexts({"side": ["b"]}, ["side", "bucket"])
    with pytest.raises(InputError, match="row 2: context_id is empty"):
        read_contexts({"side": ["b", "c"], "context_id": ["x", None]}, ["side"])


def test_no_contexts_are_no_error():
    """An empty table gives an empty answer."""
    read = read_contexts({"side": []}, ["side"])

    assert read.n == 0
    assert read.ids is None


# ------------------------------------------------------------------ out


def test_written_tables_come_back(tmp_path):
    """Odd names and texts survive Parquet, CSV and the Arrow stream; a refused ending leaves nothing behind."""
    columns = {
        'a "b", c': np.array(["x,y", None, 'q"'], dtype=object),
        "n": np.array([1.5, 2.0, -3.0]),
        "f": np.array([True, False, True]),
    }
    for path in (tmp_path / "t.parquet", tmp_path / "o'brien.csv"):
        write_table(path, columns)
        with open_table(path, "t", ['a "b", c', "n"]) as table:
            rows = table.connection.execute("SELECT c0, CAST(c1 AS DOUBLE) FROM raw ORDER BY n").fetchall()
        assert rows == [("x,y", 1.5), (None, 2.0), ('q"', -3.0)]

    class Stream:
        def __arrow_c_stream__(self, requested_schema=None):
            return arrow_stream(columns, requested_schema)

    connection = duckdb.connect()
    connection.register("back", Stream())
    assert connection.sql("SELECT * FROM back").fetchall() == [
        ("x,y", 1.5, True),
        (None, 2.0, False),
        ('q"', -3.0, True),
    ]
    with pytest.raises(InputError, match=r"ends in \.parquet or \.csv"):
        write_table(tmp_path / "t.txt", columns)
    with pytest.raises(InputError, match="does not exist"):
        write_table(tmp_path / "no" / "t.csv", columns)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv: it is a folder"):
        write_table(tmp_path / "folder.csv", columns)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "o'brien.csv", "t.parquet"]
