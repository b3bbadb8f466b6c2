"""The log and the units of evidence as Parquet files, one a day, for whoever counts them elsewhere.

``strands/day=2026-01-01/part-0.parquet`` has every column of ``ad_strands``, by the UTC day of ``ts_event``;
``observations/`` one row per family and unit, by the day of entry, each scope dimension a column ``dim_<name>``.
``manifest.json`` says which days are there, each complete as of the strand it was written at. Rows pass through a file
of DuckDB's in the folder, so memory stays bounded however large the log; a day is moved into place whole, the manifest
last.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from sqlalchemy import BigInteger, Column, Connection, Select, func, select

from edgebook.adapters import codec, database
from edgebook.adapters.tables import REVISION, SPECS, ad_strands
from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError
from edgebook.domain.evidence import Observation
from edgebook.domain.scope import SCHEMAS, ScopeValue

FORMAT = 2
"""Version of the folder's layout."""
MANIFEST = "manifest.json"
CHUNK = 4_000
MEMORY = "512MB"
"""What DuckDB may take; beyond it it uses the folder's own scratch space."""

#: Dimensions whose values are whole numbers; all others are text.
WHOLE_DIMS = frozenset({"bucket_rank_position"})
DIMS = tuple(dict.fromkeys(dim for schema in SCHEMAS.values() for dim in schema.dims))

_LOCK, _STAGING = ".export.lock", ".export.staging"
_OBSERVATION = {
    "module": "VARCHAR",
    "pattern_key": "VARCHAR",
    "action_category": "VARCHAR",
    "unit_id": "VARCHAR",
    "ts": "BIGINT",
    "opened_at": "BIGINT",
    "y": "DOUBLE",
    "roi": "DOUBLE",
    "pnl_usd": "DOUBLE",
    "weight": "DOUBLE",
    "token": "VARCHAR",
    "entry_day": "BIGINT",
    "hold_days": "DOUBLE",
    "time_efficiency": "DOUBLE",
    "n_actions": "BIGINT",
    "holdout": "BOOLEAN",
    "exit_y": "DOUBLE",
}
_NUMPY: Mapping[str, Any] = {"VARCHAR": object, "BIGINT": np.int64, "DOUBLE": np.float64, "BOOLEAN": np.bool_}


class _Dataset(NamedTuple):
    """One folder of days: its columns with DuckDB's types, where rows come from, and their order within a day.

    ``day`` is the position of the column, and the divisor, that give a row's day since 1970.
    """

    name: str
    columns: dict[str, str]
    rows: Select[Any]
    read: Callable[[Sequence[Any]], tuple[Any, ...]]
    day: tuple[int, int]
    order: str


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
        rows, days: written by this run, per dataset.
        removed: days, per dataset, that an earlier run wrote and that have no rows any more.
        manifest: what ``manifest.json`` now says.
    """

    rows: dict[str, int]
    days: dict[str, int]
    removed: dict[str, int]
    manifest: dict[str, Any]


def export_log(url: str, out: Path, first: int | None = None, end: int | None = None) -> Exported:
    """Write the days from ``first`` up to but not including ``end`` (days since 1970) into the folder ``out``.

    The database is read in one read-only snapshot. Days that are there already are replaced, others are left alone.

    Raises:
        InputError: an empty period, no such database, a folder of something else or of another book, or one that
            somebody else is exporting into.
        PortError: the database cannot be reached.
    """
    if first is not None and end is not None and first >= end:
        raise InputError(f"the period from {day_text(first)} to {day_text(end)} is empty; the last day is left out")
    address = database.parse_address(url)
    with ExitStack() as stack:
        engine = database.open_engine(address, read_only=True)
        stack.callback(engine.dispose)
        with database.explained(address):
            connection = stack.enter_context(engine.connect())
            stack.enter_context(connection.begin())
            database.require_schema(connection, address)
            staging = stack.enter_context(_claimed(out))
            with _written(out):
                before = _manifest(out)
                head = _head(connection, before, out)
                period = _Period(first, end)
                fresh = [_export(connection, dataset, period, out, staging) for dataset in _datasets(period)]
                return _finished(out, staging, before, head, period, fresh)


def day_text(day: int) -> str:
    """ISO date of a day since 1970.

    >>> day_text(18739)
    '2021-04-22'
    """
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def day_number(text: str) -> int:
    """Days since 1970 of an ISO date.

    >>> day_number("2021-04-22")
    18739
    """
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


class _Period(NamedTuple):
    """Days from ``first`` up to but not including ``end``; None is open."""

    first: int | None
    end: int | None

    def __contains__(self, day: object) -> bool:
        assert isinstance(day, int)
        return (self.first is None or day >= self.first) and (self.end is None or day < self.end)


class _Head(NamedTuple):
    """Where the log ends: seq and hash of its newest strand; its rows lie on days from ``first`` to before ``end``."""

    seq: int
    hash: str
    first: int
    end: int


class _Span(NamedTuple):
    """Days from ``first`` up to but not including ``end``, complete as of strand ``seq``."""

    first: int
    end: int
    seq: int


class _Fresh(NamedTuple):
    """One dataset as this run left it: rows per day, and days that are gone."""

    name: str
    rows: dict[int, int]
    removed: list[int]


# ---------------------------------------------------------------- what is read


def _datasets(period: _Period) -> tuple[_Dataset, _Dataset]:
    strand_types = {c.name: "BIGINT" if isinstance(c.type, BigInteger) else "VARCHAR" for c in ad_strands.columns}
    strands = select(*(ad_strands.c[name] for name in codec.COLUMNS)).order_by(ad_strands.c.seq)
    table = SPECS["observations"].table
    units = select(table.c.content)
    if period.first is not None:
        strands = strands.where(ad_strands.c.ts_event >= period.first * DAY)
        units = units.where(table.c.day >= period.first)
    if period.end is not None:
        strands = strands.where(ad_strands.c.ts_event < period.end * DAY)
        units = units.where(table.c.day < period.end)
    dims = {f"dim_{dim}": "BIGINT" if dim in WHOLE_DIMS else "VARCHAR" for dim in DIMS}
    ts_event, entry_day = codec.COLUMNS.index("ts_event"), list(_OBSERVATION).index("entry_day")
    return (
        _Dataset(
            "strands", {name: strand_types[name] for name in codec.COLUMNS}, strands, tuple, (ts_event, DAY), "seq"
        ),
        _Dataset(
            "observations",
            _OBSERVATION | dims,
            units,
            _observation,
            (entry_day, 1),
            "module, pattern_key, action_category, ts, unit_id",
        ),
    )


def _observation(row: Sequence[Any]) -> tuple[Any, ...]:
    """The columns of one stored observation."""
    unit = codec.decode_row(Observation, row[0])
    fields = (unit.day if name == "entry_day" else getattr(unit, name) for name in _OBSERVATION)
    return (*fields, *(_scope_value(unit, dim) for dim in DIMS))


def _scope_value(unit: Observation, dim: str) -> ScopeValue | None:
    value = unit.scope.get(dim)
    wanted = int if dim in WHOLE_DIMS else str
    if value is not None and type(value) is not wanted:
        kind = "a whole number" if wanted is int else "text"
        raise InputError(f"observation {unit.key}: {dim} is {value!r}, a column of {kind} cannot hold it")
    return value


def _head(connection: Connection, before: dict[str, Any] | None, out: Path) -> _Head:
    """Where this log ends, once the strand an earlier export ended at is found in it."""
    strands = select(ad_strands.c.seq, ad_strands.c.hash)
    if before is not None and before["seq"]:
        known = connection.execute(strands.where(ad_strands.c.seq == before["seq"])).first()
        if known is None or known[1] != before["log_head"]:
            raise InputError(f"{out} holds the export of another book (or of a newer copy of it): name another folder")
    newest = connection.execute(strands.order_by(ad_strands.c.seq.desc()).limit(1)).first()
    seq, log_head = newest or (0, codec.GENESIS)
    entry_day = SPECS["observations"].table.c.day
    days = [
        *(day // DAY for day in _ends(connection, ad_strands.c.ts_event)),
        *_ends(connection, entry_day),
    ]
    return _Head(int(seq), str(log_head), min(days, default=0), max(days, default=-1) + 1)


def _ends(connection: Connection, column: Column[Any]) -> list[int]:
    """Least and greatest value of a column; nothing where it has none."""
    found = connection.execute(select(func.min(column), func.max(column))).one()
    return [int(value) for value in found if value is not None]


# ---------------------------------------------------------------- the folder


@contextmanager
def _claimed(out: Path) -> Iterator[Path]:
    """Be the only export into ``out``; gives an empty scratch folder in it, which is removed at the end."""
    with _written(out):
        if out.is_dir() and any(out.iterdir()) and not (out / _LOCK).exists():
            raise InputError(f"{out} holds files that are no export: name an empty or a new folder")
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    staging = out / _STAGING
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: another export is writing here; wait for its end") from None
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        with _written(out):
            staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(lock)


@contextmanager
def _written(out: Path) -> Iterator[None]:
    """Errors of the file system and of DuckDB, in one line that names the folder."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write into {out}: {error.strerror or error}") from error
    except duckdb.Error as error:
        raise InputError(f"cannot write into {out}: {str(error).splitlines()[0]}") from error


def _manifest(out: Path) -> dict[str, Any] | None:
    """The manifest of an earlier export into ``out``."""
    path = out / MANIFEST
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        layout = found["format"], found["schema"]
        _ = found["seq"], found["log_head"], found["covered"], found["datasets"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the manifest of an export ({error}): name another folder") from error
    if layout != (FORMAT, REVISION):
        raise InputError(f"{out} was exported as format {layout[0]}, schema {layout[1]}; this release writes format "
                         f"{FORMAT}, schema {REVISION}: name another folder")  # fmt: skip
    return found


def _export(connection: Connection, dataset: _Dataset, period: _Period, out: Path, staging: Path) -> _Fresh:
    """Bring one dataset's days up to date."""
    folder = out / dataset.name
    folder.mkdir(exist_ok=True)
    with duckdb.connect(str(staging / f"{dataset.name}.duckdb")) as scratch:
        scratch.execute(f"SET memory_limit = '{MEMORY}'")
        scratch.execute("SET temp_directory = '{}'".format(str(staging).replace("'", "''")))
        _collect(connection, dataset, scratch)
        counted = scratch.execute("SELECT day, count(*) FROM rows GROUP BY day ORDER BY day").fetchall()
        rows = {int(day): int(n) for day, n in counted}
        for day in rows:
            _place(scratch, dataset, day, folder, staging)
    there = [day_number(path.name.removeprefix("day=")) for path in folder.glob("day=????-??-??")]
    removed = sorted(day for day in there if day in period and day not in rows)
    for day in removed:
        shutil.rmtree(folder / f"day={day_text(day)}")
    return _Fresh(dataset.name, rows, removed)


def _collect(connection: Connection, dataset: _Dataset, scratch: duckdb.DuckDBPyConnection) -> None:
    """Copy the rows of a snapshot into the scratch table ``rows``, a chunk at a time."""
    names = ["day", *dataset.columns]
    types = dict(zip(names, ["BIGINT", *dataset.columns.values()], strict=True))
    scratch.execute("CREATE TABLE rows ({})".format(", ".join(f'"{name}" {kind}' for name, kind in types.items())))
    listed = ", ".join(f'CAST("{name}" AS {kind})' for name, kind in types.items())
    position, divisor = dataset.day
    for part in connection.execution_options(yield_per=CHUNK).execute(dataset.rows).partitions():
        read = [dataset.read(row) for row in part]
        values = [[row[position] // divisor for row in read], *zip(*read, strict=True)]
        chunk = {name: _array(kind, column) for (name, kind), column in zip(types.items(), values, strict=True)}
        scratch.register("chunk", chunk)
        scratch.execute(f"INSERT INTO rows SELECT {listed} FROM chunk")
        scratch.unregister("chunk")


def _array(kind: str, values: Sequence[Any]) -> Any:
    """Values as an array that DuckDB reads without guessing; None is masked, or stays as it is in text."""
    if kind == "VARCHAR":
        return np.array(values, dtype=object)
    absent = [value is None for value in values]
    filled = np.array([0 if value is None else value for value in values], dtype=_NUMPY[kind])
    return np.ma.MaskedArray(filled, mask=absent) if any(absent) else filled


def _place(scratch: duckdb.DuckDBPyConnection, dataset: _Dataset, day: int, folder: Path, staging: Path) -> None:
    """Write one day beside its place, to the disk, and move it there."""
    part = staging / "part-0.parquet"
    target = str(part).replace("'", "''")
    scratch.execute(f"COPY (SELECT * EXCLUDE (day) FROM rows WHERE day = {day} ORDER BY {dataset.order})"
                    f" TO '{target}' (FORMAT parquet, COMPRESSION zstd)")  # fmt: skip
    _synced(part)
    place = folder / f"day={day_text(day)}"
    place.mkdir(exist_ok=True)
    part.replace(place / part.name)


def _synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


# ---------------------------------------------------------------- the manifest


def _finished(
    out: Path,
    staging: Path,
    before: dict[str, Any] | None,
    head: _Head,
    period: _Period,
    fresh: Sequence[_Fresh],
) -> Exported:
    """Write the manifest; it comes last, so that what it says is there."""
    datasets = {one.name: _days_of(before, one, head.seq) for one in fresh}
    manifest = {
        "format": FORMAT,
        "schema": REVISION,
        "seq": head.seq,
        "log_head": head.hash,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "covered": _covered(before, period, head),
        "datasets": datasets,
    }
    part = staging / MANIFEST
    part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _synced(part)
    part.replace(out / MANIFEST)
    return Exported(
        {one.name: sum(one.rows.values()) for one in fresh},
        {one.name: len(one.rows) for one in fresh},
        {one.name: len(one.removed) for one in fresh},
        manifest,
    )


def _days_of(before: dict[str, Any] | None, fresh: _Fresh, seq: int) -> dict[str, Any]:
    """Rows in all, and per day its rows and the newest seq of the log when it was written."""
    days = {} if before is None else dict(before["datasets"].get(fresh.name, {}).get("days", {}))
    for day in fresh.removed:
        days.pop(day_text(day), None)
    days |= {day_text(day): {"rows": n, "seq": seq} for day, n in fresh.rows.items()}
    return {"rows": sum(day["rows"] for day in days.values()), "days": dict(sorted(days.items()))}


def _covered(before: dict[str, Any] | None, period: _Period, head: _Head) -> list[dict[str, Any]]:
    """Spans of days, in order, as ``from``, ``to`` (the first day after) and the ``seq`` they are complete as of.

    Days of an earlier run keep the seq they were written at. The days of this run have that of the log's newest
    strand, as far as the log reaches: what lies ahead of its end is not complete. Days without rows may lie within.
    """
    first = head.first if period.first is None else max(period.first, head.first)
    end = head.end if period.end is None else min(period.end, head.end)
    spans = [part for span in _spans(before) for part in _outside(span, period)]
    if first < end:
        spans.append(_Span(first, end, head.seq))
    merged: list[_Span] = []
    for span in sorted(spans):
        if merged and (merged[-1].end, merged[-1].seq) == (span.first, span.seq):
            span = merged.pop()._replace(end=span.end)
        merged.append(span)
    return [{"from": day_text(span.first), "to": day_text(span.end), "seq": span.seq} for span in merged]


def _spans(before: dict[str, Any] | None) -> list[_Span]:
    rows = [] if before is None else before["covered"]
    return [_Span(day_number(row["from"]), day_number(row["to"]), row["seq"]) for row in rows]


def _outside(span: _Span, period: _Period) -> list[_Span]:
    """What is left of a span without the days of a period."""
    parts = []
    if period.first is not None:
        parts.append(span._replace(end=min(span.end, period.first)))
    if period.end is not None:
        parts.append(span._replace(first=max(span.first, period.end)))
    return [part for part in parts if part.first < part.end]
