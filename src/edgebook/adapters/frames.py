"""Tables of others, in and out: Parquet and CSV files, dicts of columns, and whatever speaks the Arrow C stream
(polars, pandas, pyarrow). Read and written through DuckDB; none of those libraries is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from edgebook.domain.errors import InputError

#: Numbers as times: unit, the size from which on they are of it, and microseconds in it.
_UNITS = (
    ("seconds", 0, "1000000"),
    ("milliseconds", 10**11, "1000"),
    ("microseconds", 10**14, "1"),
    ("nanoseconds", 10**17, "0.001"),
)
#: Dates written as one number, which is no Unix time: digits and format.
_COMPACT = ((10, "%Y%m%d%H"), (12, "%Y%m%d%H%M"), (14, "%Y%m%d%H%M%S"))
_LAST = 7_289_654_400_000_000  # 2201, microseconds: times are of the years 1970 to 2200
_OLDEST_UNIX = 10**8  # 1973: smaller numbers are no Unix times but hours or days from somewhere
_PARQUET, _CSV = (".parquet", ".pq"), (".csv", ".tsv", ".txt")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_FRACTION = ("FLOAT", "DOUBLE", "DECIMAL")
_NO_FRACTION = "text or a whole number; put measurements into a few named bins first"
_LISTED, _SHOWN = 20, 60  # columns named in a message, characters of each


class Coded(NamedTuple):
    """A column of text: its distinct values ascending, and per row the place of its value, -1 where absent."""

    levels: tuple[str, ...]
    codes: NDArray[np.int64]


@dataclass
class OpenTable:
    """The wanted columns of a table, copied in order into a DuckDB of their own.

    Attributes:
        what: how messages call it, a path or a word.
        names: wanted column -> its name here.
        kinds: wanted column -> SQL type.
    """

    connection: duckdb.DuckDBPyConnection
    what: str
    names: Mapping[str, str]
    kinds: Mapping[str, str]

    def __contains__(self, name: object) -> bool:
        """Whether the table has this column."""
        return name in self.names

    def refuse_first(self, name: str, bad: str, right: str) -> None:
        """Refuse the first row for which the SQL condition ``bad`` holds.

        Raises:
            InputError: there is one; names table, row (from 1), column and value.
        """
        query = f"SELECT n, CAST({self.names[name]} AS VARCHAR) FROM raw WHERE {bad} ORDER BY n LIMIT 1"
        row = self.connection.execute(query).fetchone()
        if row is not None:
            shown = "empty" if row[1] in (None, "") else repr(row[1])
            raise InputError(f"{self.what}: row {row[0]}: {name} is {shown}; it must be {right}")

    def time(self, name: str) -> str:
        """SQL of the column as microseconds UTC.

        Timestamps and dates (without zone: UTC), ISO text, or Unix times, all of one unit (s, ms, us or ns), which
        their size tells. Years 1970 to 2200.

        Raises:
            InputError: a value that is none of these, of another unit than most, or none at all.
        """
        column, kind = self.names[name], self.kinds[name]
        right = "a time: a timestamp, ISO text such as 2024-01-31T12:00:00Z, or a Unix time, in the years 1970 to 2200"
        if kind.startswith(("TIMESTAMP", "DATE")):
            made = f"CASE WHEN isfinite({column}) THEN epoch_us(CAST({column} AS TIMESTAMPTZ)) END"
        elif kind == "VARCHAR" and not self._all_numbers(column):
            cast = f"TRY_CAST({column} AS TIMESTAMPTZ)"
            made = f"CASE WHEN isfinite({cast}) THEN epoch_us({cast}) END"
        else:
            made = self._unix(name, right)
        self.refuse_first(name, f"coalesce(({made}) NOT BETWEEN 0 AND {_LAST - 1}, true)", right)
        return made

    def _all_numbers(self, column: str) -> bool:
        query = f"SELECT count({column}) = count(TRY_CAST({column} AS DOUBLE)) AND count({column}) > 0 FROM raw"
        found = self.connection.execute(query).fetchone()
        return bool(found and found[0])

    def _unix(self, name: str, right: str) -> str:
        number = self.number(name, right)
        small = f"abs({number}) < {_OLDEST_UNIX}"
        self.refuse_first(name, small, f"{right} (from 1973 on; turn hours or days into timestamps first)")
        self._refuse_compact(name, number)
        place = "CASE " + " ".join(
            f"WHEN abs({number}) >= {_UNITS[i][1]} THEN {i}" for i in reversed(range(len(_UNITS)))
        )
        place += " END"
        counted = f"SELECT {place} AS place FROM raw GROUP BY place ORDER BY count(*) DESC, place LIMIT 1"
        found = self.connection.execute(counted).fetchone()
        unit, _, factor = _UNITS[found[0] if found and found[0] is not None else 0]
        self.refuse_first(name, f"{place} != {_UNITS.index((unit, _, factor))}", f"in {unit} like most other rows")
        made = f"{number} * {factor}"
        return f"CASE WHEN {made} BETWEEN 0 AND {_LAST} THEN CAST({made} AS BIGINT) END"

    def _refuse_compact(self, name: str, number: str) -> None:
        """Refuse a column of dates written as one number, such as 202401311200."""
        text = f"CAST(TRY_CAST({number} AS BIGINT) AS VARCHAR)"
        dated = " OR ".join(
            f"(length({text}) = {digits} AND year(try_strptime({text}, '{form}')) BETWEEN 1900 AND 2200)"
            for digits, form in _COMPACT
        )
        found = self.connection.execute(f"SELECT count(*) = 0 FROM raw WHERE NOT coalesce({dated}, false)").fetchone()
        if found and found[0]:
            self.refuse_first(name, "true", "ISO text such as 2024-01-31T12:00:00Z, not a date written as one number")

    def number(self, name: str, right: str, *, optional: bool = False) -> str:
        """SQL of the column as a finite DOUBLE; NULL only where ``optional``.

        Raises:
            InputError: a value that is no finite number.
        """
        column, kind = self.names[name], self.kinds[name]
        if kind not in ("VARCHAR", "BOOLEAN") and not kind.startswith((*_WHOLE, *_FRACTION)):
            if not self._all_null(column):
                raise InputError(f"{self.what}: column {name} is of type {kind}; it must be {right}")
            kind = "VARCHAR"
        made = f"TRY_CAST({column} AS DOUBLE)"
        absent = f"{column} IS NULL OR CAST({column} AS VARCHAR) IN ('', 'nan', 'NaN')"
        self.refuse_first(name, f"NOT coalesce(isfinite({made}), false) AND NOT ({optional} AND ({absent}))", right)
        return f"CASE WHEN isfinite({made}) THEN {made} END"

    def _all_null(self, column: str) -> bool:
        found = self.connection.execute(f"SELECT count({column}) FROM raw").fetchone()
        return found is not None and found[0] == 0

    def text(self, name: str, *, measured: bool = True) -> str:
        """SQL of the column as text, NULL where it is empty or ``Unknown`` (domain/scope.py).

        Whole numbers are written without a point (``1.0`` is ``1``, ``-0`` is ``0``) and truth as ``true`` and
        ``false``, whatever type holds them, so that files and frames agree.

        Args:
            measured: whether text that is all numbers, some with fractions, passes too.

        Raises:
            InputError: numbers with fractions, times or nested values.
        """
        column, kind = self.names[name], self.kinds[name]
        if kind.startswith(_FRACTION):
            bad = f"isfinite({column}) AND {column} != trunc({column}) OR isinf({column})"
            self.refuse_first(name, bad, _NO_FRACTION)
            written = f"CAST(CASE WHEN isfinite({column}) THEN CAST({column} AS HUGEINT) END AS VARCHAR)"
        elif kind == "BOOLEAN" or kind.startswith(_WHOLE) or self._all_null(column):
            written = f"CAST({column} AS VARCHAR)"
        elif kind == "VARCHAR":
            if not measured:
                self._refuse_fractions(name, column)
            whole = f"regexp_replace(regexp_replace({column}, '^(-?(?:0|[1-9][0-9]*))\\.0+$', '\\1'), '^-0$', '0')"
            written = f"CASE WHEN lower({column}) IN ('true', 'false') THEN lower({column}) ELSE {whole} END"
        else:
            raise InputError(f"{self.what}: column {name} is of type {kind}; it must be text or whole numbers")
        return f"CASE WHEN lower({written}) NOT IN ('', 'unknown') THEN {written} END"

    def _refuse_fractions(self, name: str, column: str) -> None:
        """Refuse text that is all numbers, some with fractions: a file's way to hold a measurement."""
        number = f"TRY_CAST({column} AS DOUBLE)"
        query = f"SELECT count(*) FROM raw WHERE lower({column}) NOT IN ('', 'unknown') AND {number} IS NULL"
        found = self.connection.execute(query).fetchone()
        if found and not found[0]:
            self.refuse_first(name, f"isfinite({number}) AND {number} != trunc({number})", _NO_FRACTION)

    def coded(self, columns: Mapping[str, str], table: str) -> dict[str, Coded]:
        """Text columns of ``table`` (name -> column in it) as codes, in row order."""
        if not columns:
            return {}
        levels: dict[str, tuple[str, ...]] = {}
        parts = []
        for i, (name, column) in enumerate(columns.items()):
            distinct = f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY 1"
            levels[name] = tuple(row[0] for row in self.connection.execute(distinct).fetchall())
            if levels[name]:
                self.connection.execute(f"CREATE TYPE level{i} AS ENUM ({distinct})")
                code = f"coalesce(CAST(enum_code(CAST({column} AS level{i})) AS BIGINT), -1)"
            else:
                code = "CAST(-1 AS BIGINT)"
            parts.append(f"{code} AS code{i}")
        query = f"SELECT {', '.join(parts)} FROM {table} ORDER BY n"
        fetched = self.connection.execute(query).fetchnumpy()
        return {
            name: Coded(levels[name], np.ascontiguousarray(fetched[f"code{i}"], dtype=np.int64))
            for i, name in enumerate(columns)
        }


class _Stream:
    """An object that only speaks the Arrow C stream, so that DuckDB asks for nothing else."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._source.__arrow_c_stream__(requested_schema)


@contextmanager
def open_table(source: Any, what: str, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[OpenTable]:
    """Copy the wanted columns of ``source`` for the length of a block.

    Args:
        source: path of a Parquet or CSV file, dict of columns, or an object with ``__arrow_c_stream__`` or
            ``__arrow_c_array__``; pandas frames need nothing else installed.
        what: how messages call it where it is no file.
        required, optional: columns; others are not read.

    Raises:
        InputError: not a table, unreadable, or a required column is missing.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = true")
        if isinstance(source, str | Path):
            what = str(source)
        try:
            if isinstance(source, Mapping):
                _require(required, source, what)
                source = {name: source[name] for name in (*required, *optional) if name in source}
            scan = _scan(connection, source, what)
            described = connection.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()
            kinds = {str(row[0]): str(row[1]) for row in described}
            _require(required, kinds, what)
            wanted = [name for name in dict.fromkeys((*required, *optional)) if name in kinds]
            names = {name: f"c{i}" for i, name in enumerate(wanted)}
            enums = [name for name in wanted if kinds[name].startswith("ENUM")]
            chosen = [
                f"CAST({quoted(name)} AS VARCHAR) AS {names[name]}"
                if name in enums
                else f"{quoted(name)} AS {names[name]}"
                for name in wanted
            ]
            listed = "".join(f", {one}" for one in chosen)
            connection.execute(f"CREATE TEMP TABLE raw AS SELECT row_number() OVER () AS n{listed} FROM {scan}")
            kinds |= dict.fromkeys(enums, "VARCHAR")
            yield OpenTable(connection, what, names, {name: kinds[name] for name in wanted})
        except duckdb.Error as error:
            if isinstance(source, str | Path):
                _require_utf8(Path(source))
            raise InputError(f"{what}: cannot be read: {str(error).splitlines()[0]}") from error


def _require_utf8(path: Path) -> None:
    """Name the encoding where it is what makes a CSV file unreadable."""
    if path.suffix.lower() not in _CSV:
        return
    right = "save it as UTF-8"
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError(f"{path}: it is encoded as UTF-16; {right}")
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}: line {number} is not UTF-8 ({error.reason}); {right}") from error


def _require(required: Sequence[str], present: Mapping[str, Any], what: str) -> None:
    missing = [name for name in required if name not in present]
    if missing:
        listed = ", ".join(str(name)[:_SHOWN] for name in list(present)[:_LISTED]) or "none"
        listed += f" and {len(present) - _LISTED} more" if len(present) > _LISTED else ""
        raise InputError(f"{what}: column {missing[0]} is missing; it has {listed}")


def _scan(connection: duckdb.DuckDBPyConnection, source: Any, what: str) -> str:
    """What stands after FROM to read ``source``."""
    if isinstance(source, str | Path):
        return _file(Path(source))
    if isinstance(source, Mapping):
        connection.register("given", _arrays(source, what))
    elif type(source).__module__.partition(".")[0] == "pandas":
        connection.register("given", _own(source))
    elif hasattr(source, "__arrow_c_stream__"):
        connection.register("given", _Stream(source))
    elif hasattr(source, "__arrow_c_array__"):
        connection.register("given", source)
    else:
        raise InputError(
            f"{what} must be a Parquet or CSV file, a dict of columns or an Arrow table such as a polars, pandas or "
            f"pyarrow one; was {type(source).__name__}"
        )
    return "given"


def _file(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    text = "'" + str(path).replace("'", "''") + "'"
    if suffix in _PARQUET:
        return f"read_parquet({text})"
    if suffix in _CSV:
        return f"read_csv({text}, header = true, all_varchar = true)"
    raise InputError(f"{path}: not a table; give {', '.join((*_PARQUET, *_CSV[:2]))}")


def _arrays(columns: Mapping[str, Any], what: str) -> dict[str, NDArray[Any]]:
    """A dict of columns as arrays of equal length. Text becomes objects, so that DuckDB need not guess."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise InputError(f"{what}: column {name} must be a sequence of values, was {values!r}")
        try:
            array = _plain(values)
        except (ValueError, TypeError) as error:
            raise InputError(f"{what}: column {name} must have one value per row ({error})") from error
        if array.ndim != 1:
            raise InputError(f"{what}: column {name} must have one value per row, was {array.ndim}-dimensional")
        arrays[str(name)] = array
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise InputError(f"{what}: columns differ in length: {told}")
    return arrays


def _own(frame: Any) -> Any:
    """A pandas frame whose columns each lie in one piece of memory, first row first, as DuckDB needs them: those of a
    reversed frame do not."""
    order = np.arange(len(frame))
    made = frame.iloc[:, :0].reset_index(drop=True)
    for place, name in enumerate(frame.columns):
        made.insert(place, name, frame.iloc[:, place].array.take(order), allow_duplicates=True)
    return made


def _plain(values: Any) -> NDArray[Any]:
    """Values as an array of a type and layout that DuckDB reads; masked ones are absent.

    >>> _plain(np.array([1, 2, 3], dtype=">i4")[::-1]), _plain([True, None]), _plain(["a", 1.0, float("nan")])
    (array([3, 2, 1], dtype=int32), array(['true', None], dtype=object), array(['a', '1.0', None], dtype=object))
    """
    if isinstance(values, np.ma.MaskedArray):
        array = _guess(values.tolist())
    elif isinstance(values, np.ndarray):
        array = _guess(values.tolist()) if values.dtype == object and values.ndim == 1 else values
    else:
        array = _guess(list(values))
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype.kind == "M" and np.datetime_data(array.dtype) not in _DUCK_TIMES:
        return array.astype("datetime64[us]")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


_DUCK_TIMES = (("s", 1), ("ms", 1), ("us", 1), ("ns", 1))


def _absent(value: Any) -> bool:
    """None, NaN, or what pandas writes for them."""
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float | np.floating) and bool(np.isnan(value)))
    )


def _guess(values: list[Any]) -> NDArray[Any]:
    """A list as an array that keeps None apart from text; numbers with gaps stay numbers."""
    there = [value for value in values if not _absent(value)]
    texts = any(isinstance(value, str) for value in there)
    if not texts and len(there) == len(values):
        return np.asarray(values)
    if not texts and any(isinstance(value, float | np.floating) for value in there):
        return np.array([np.nan if _absent(value) else value for value in values], dtype=float)
    if not texts and not any(value is None for value in values):
        return np.asarray(values)
    made = np.empty(len(values), dtype=object)
    made[:] = [None if _absent(value) else _written(value) for value in values]
    return made


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


# ------------------------------------------------------------------------------------------------------------ out


def relation(connection: duckdb.DuckDBPyConnection, columns: Mapping[str, NDArray[Any]]) -> duckdb.DuckDBPyRelation:
    """Columns of equal length as a DuckDB relation; object columns are text with None."""
    connection.execute("SET preserve_insertion_order = true")
    connection.register("made", dict(columns))
    parts = [
        f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" if array.dtype == object else quoted(name)
        for name, array in columns.items()
    ]
    return connection.sql(f"SELECT {', '.join(parts)} FROM made")


def arrow_stream(columns: Mapping[str, NDArray[Any]], requested_schema: object = None) -> object:
    """Columns as an Arrow C stream capsule."""
    capsule: object = relation(duckdb.connect(), columns).__arrow_c_stream__(requested_schema)
    return capsule


def to_frame(columns: Mapping[str, NDArray[Any]], library: str) -> Any:
    """Columns as a ``pandas`` frame or a ``pyarrow`` table.

    Raises:
        InputError: that library is not installed.
    """
    with duckdb.connect() as connection:
        made = relation(connection, columns)
        try:
            return made.df() if library == "pandas" else made.to_arrow_table()
        except (ImportError, duckdb.Error) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"a {library} table needs {library} to be installed: {reason}") from error


def write_table(path: Path, columns: Mapping[str, NDArray[Any]]) -> Path:
    """Write columns to a ``.parquet`` (zstd) or ``.csv`` file; an existing file is replaced whole or not at all.

    Raises:
        InputError: another ending, a folder that does not exist, or a name that is a folder's.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_PARQUET, ".csv"):
        raise InputError(f"{path}: a table ends in .parquet or .csv")
    form = "FORMAT csv, HEADER" if suffix == ".csv" else "FORMAT parquet, COMPRESSION zstd"
    with replacing(path) as part, duckdb.connect() as connection:
        target = "'" + str(part).replace("'", "''") + "'"
        relation(connection, columns).create_view("written")
        connection.execute(f"COPY written TO {target} ({form})")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write, which takes its place at the end of the block, or is gone if it fails.

    Raises:
        InputError: the folder does not exist, ``path`` is a folder, or it cannot be written.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise InputError(f"{path}: it is a folder; give the name of a file")
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    except (OSError, duckdb.Error) as error:
        raise InputError(f"{path}: cannot be written: {str(error).splitlines()[0]}") from error
    finally:
        part.unlink(missing_ok=True)


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
