"""Tables as Parquet files, written through DuckDB, for whoever wants to read them elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

#: SQL from a column of text to the column that is written.
_WRITTEN = {
    "text": "CAST({0} AS VARCHAR)",
    "integer": "CAST({0} AS BIGINT)",
    "float": "CAST({0} AS DOUBLE)",
    "flag": "CAST({0} AS BOOLEAN)",
    "time": "make_timestamptz(CAST({0} AS BIGINT))",
    "decimal": "CAST({0} AS DECIMAL(38, 9))",
}


class ExportColumn(NamedTuple):
    """One column: its kind (``text``, ``integer``, ``float``, ``flag``, ``time`` in microseconds UTC, or ``decimal``
    with nine digits after the point) and its values; None is a null."""

    kind: str
    values: Sequence[Any]


def write_parquet(path: Path, columns: Mapping[str, ExportColumn]) -> Path:
    """Write columns of equal length to ``path``, in their order, zstd-compressed; an existing file is replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_parquet(Path(folder) / "x.parquet", {"opened": ExportColumn("time", [5, None])})
    ...     duckdb.sql(f"SELECT epoch_us(opened) FROM '{path}'").fetchall()
    [(5,), (None,)]
    """
    source = {name: _handed(column) for name, column in columns.items()}
    chosen = ", ".join(
        f"{_WRITTEN[column.kind].format(_quoted(name))} AS {_quoted(name)}" for name, column in columns.items()
    )
    with duckdb.connect() as connection:
        connection.register("source", source)
        connection.execute("SET preserve_insertion_order = true")
        target = str(path).replace("'", "''")
        connection.execute(f"COPY (SELECT {chosen} FROM source) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
    return path


def _handed(column: ExportColumn) -> Any:
    """Values as an array DuckDB reads without guessing: text, with None where there is none."""
    return np.array([None if value is None else str(value) for value in column.values], dtype=object)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
