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

#: Numbers as times: largest absolute value below which they are s, ms, us (else ns), and microseconds per unit.
_UNITS = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))
_OLDEST_UNIX = 10**8  # 1973: smaller numbers are no Unix times but hours or days from somewhere
_PARQUET, _CSV = (".parquet", ".pq"), (".csv", ".tsv", ".txt")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_FRACTION = ("FLOAT", "DOUBLE", "DECIMAL")


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

        Timestamps and dates (without zone: UTC), ISO text, or Unix times in s, ms, us or ns, told apart by size.

        Raises:
            InputError: a value that is none of these, or none at all.
        """
        column, kind = self.names[name], self.kinds[name]
        right = "a time: a timestamp, ISO text such as 2024-01-31T12:00:00Z, or a Unix time"
        if kind.startswith(("TIMESTAMP", "DATE")):
            made = f"CASE WHEN isfinite({column}) THEN epoch_us(CAST({column} AS TIMESTAMPTZ)) END"
        elif kind == "VARCHAR" and not self._all_numbers(column):
            cast = f"TRY_CAST({column} AS TIMESTAMPTZ)"
            made = f"CASE WHEN isfinite({cast}) THEN epoch_us({cast}) END"
        else:
            made = self._unix(name, right)
        self.refuse_first(name, f"({made}) IS NULL", right)
        return made

    def _all_numbers(self, column: str) -> bool:
        query = f"SELECT count({column}) = count(TRY_CAST({column} AS DOUBLE)) AND count({column}) > 0 FROM raw"
        found = self.connection.execute(query).fetchone()
        return bool(found and found[0])

    def _unix(self, name: str, right: str) -> str:
        number = self.number(name, right)
        found = self.connection.execute(f"SELECT max(abs({number})) FROM raw").fetchone()
        largest = float(found[0]) if found and found[0] is not None else 0.0
        small = f"abs({number}) < {_OLDEST_UNIX}"
        self.refuse_first(name, small, f"{right} (from 1973 on; turn hours or days into timestamps first)")
        factor = next((str(f) for bound, f in _UNITS if largest < bound), "0.001")
        return f"CAST({number} * {factor} AS BIGINT)"

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

    def text(self, name: str) -> str:
        """SQL of the column as text, NULL where it is empty or ``Unknown`` (domain/scope.py). Whole numbers are written
        without a point, whatever type holds them, so that files and frames agree.

        Raises:
            InputError: numbers with fractions, times or nested values.
        """
        column, kind = self.names[name], self.kinds[name]
        if kind.startswith(_FRACTION):
            bad = f"isfinite({column}) AND {column} != trunc({column}) OR isinf({column})"
            self.refuse_first(name, bad, "text or a whole number; put measurements into a few named bins first")
            written = f"CAST(CASE WHEN isfinite({column}) THEN CAST({column} AS HUGEINT) END AS VARCHAR)"
        elif kind in ("VARCHAR", "BOOLEAN") or kind.startswith(_WHOLE) or self._all_null(column):
            written = f"CAST({column} AS VARCHAR)"
        else:
            raise InputError(f"{self.what}: column {name} is of type {kind}; it must be text or whole numbers")
        return f"CASE WHEN lower({written}) NOT IN ('', 'unknown') THEN {written} END"

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
            raise InputError(f"{what}: cannot be read: {str(error).splitlines()[0]}") from error


def _require(required: Sequence[str], present: Mapping[str, Any], what: str) -> None:
    missing = [name for name in required if name not in present]
    if missing:
        listed = ", ".join(map(str, present)) or "none"
        raise InputError(f"{what}: column {missing[0]} is missing; it has {listed}")


def _scan(connection: duckdb.DuckDBPyConnection, source: Any, what: str) -> str:
    """What stands after FROM to read ``source``."""
    if isinstance(source, str | Path):
        return _file(Path(source))
    if isinstance(source, Mapping):
        connection.register("given", _arrays(source, what))
    elif type(source).__module__.partition(".")[0] == "pandas":
        connection.register("given", source)
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
        array = values if isinstance(values, np.ndarray) else _guess(list(values))
        if array.ndim != 1:
            raise InputError(f"{what}: column {name} must have one value per row, was {array.ndim}-dimensional")
        arrays[str(name)] = array.astype(object) if array.dtype.kind in "US" else array
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise InputError(f"{what}: columns differ in length: {told}")
    return arrays


def _guess(values: list[Any]) -> NDArray[Any]:
    """A list as an array that keeps None apart from text."""
    if any(value is None or isinstance(value, str) for value in values):
        made = np.empty(len(values), dtype=object)
        made[:] = [value if value is None else str(value) for value in values]
        return made
    return np.asarray(values)


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
        InputError: another ending, or a folder that does not exist.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_PARQUET, ".csv"):
        raise InputError(f"{path}: a table ends in .parquet or .csv")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    form = "FORMAT csv, HEADER" if suffix == ".csv" else "FORMAT parquet, COMPRESSION zstd"
    part = path.with_name(path.name + ".part")
    target = "'" + str(part).replace("'", "''") + "'"
    with duckdb.connect() as connection:
        relation(connection, columns).create_view("written")
        connection.execute(f"COPY written TO {target} ({form})")
    part.replace(path)
    return path


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
