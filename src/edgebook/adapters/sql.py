"""The store in SQLite or PostgreSQL: one file and no server for one trader, a server by its URL beyond that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import Connection, Executable, Select, func, select, text

from edgebook.adapters import codec, database
from edgebook.adapters.shelf import Changes, StrandQuery, TableChanges
from edgebook.adapters.tables import TableSpec, ad_strands
from edgebook.adapters.workspace import ReadOnly, Workspace
from edgebook.domain.errors import InputError, PortError
from edgebook.domain.strands import Strand

CHUNK = 2_000
"""Log rows fetched at a time, so that a long read neither fills memory nor keeps a cursor open across commits."""

_STRAND_ROW = select(*(ad_strands.c[name] for name in codec.COLUMNS))


class _SqlShelf:
    """The committed state of a database: for a reader one snapshot, for the writer what it last committed."""

    def __init__(self, connection: Connection, address: database.Address) -> None:
        self._connection = connection
        self._address = address

    def head(self) -> tuple[int, str]:
        rows = self._fetch(select(ad_strands.c.seq, ad_strands.c.hash).order_by(ad_strands.c.seq.desc()).limit(1))
        return (rows[0][0], rows[0][1]) if rows else (0, codec.GENESIS)

    def counts(self) -> dict[str, int]:
        rows = self._fetch(select(ad_strands.c.kind, func.count()).group_by(ad_strands.c.kind))
        return {row[0]: row[1] for row in rows}

    def ids(self) -> Iterable[str]:
        return [row[0] for row in self._fetch(select(ad_strands.c.id))]

    def strand(self, strand_id: str) -> Strand | None:
        rows = self._fetch(_STRAND_ROW.where(ad_strands.c.id == strand_id))
        return codec.strand_from_row(rows[0]) if rows else None

    def strands(self, query: StrandQuery) -> Iterator[Strand]:
        statement = _STRAND_ROW.where(ad_strands.c.seq <= query.upto)
        if query.kinds is not None:
            statement = statement.where(ad_strands.c.kind.in_(query.kinds))
        for name in ("correlation_id", "position_id", "trade_id"):
            if value := getattr(query, name):
                statement = statement.where(ad_strands.c[name] == value)
        for row in self._log_rows(statement, query.after, query.limit):
            yield codec.strand_from_row(row)

    def stored(self) -> Iterator[Sequence[Any]]:
        return self._log_rows(_STRAND_ROW, None, None)

    def row(self, spec: TableSpec, key: str) -> Any | None:
        rows = self._fetch(select(spec.table.c.content).where(spec.table.c[spec.key] == key))
        return codec.decode_row(spec.row, rows[0][0]) if rows else None

    def rows(self, spec: TableSpec, prefix: str = "") -> Iterator[tuple[int, Any]]:
        table = spec.table
        statement = select(table.c.row_no, table.c.content).order_by(table.c.row_no)
        if prefix:
            statement = statement.where(func.substr(table.c[spec.key], 1, len(prefix)) == prefix)
        for number, content in self._fetch(statement):
            yield number, codec.decode_row(spec.row, content)

    def count(self, spec: TableSpec) -> int:
        return int(self._fetch(select(func.count()).select_from(spec.table))[0][0])

    def _log_rows(self, statement: Select[Any], after: int | None, limit: int | None) -> Iterator[Sequence[Any]]:
        """Rows by seq, a chunk at a time; from the very first one, wherever it stands, when ``after`` is None."""
        left = limit
        while left is None or left > 0:
            size = CHUNK if left is None else min(CHUNK, left)
            chunk = statement.order_by(ad_strands.c.seq).limit(size)
            rows = self._fetch(chunk if after is None else chunk.where(ad_strands.c.seq > after))
            yield from rows
            if len(rows) < size:
                return
            after = rows[-1][0]
            left = None if left is None else left - size

    def _fetch(self, statement: Executable) -> Sequence[Sequence[Any]]:
        """All rows of one statement; outside the snapshot of a reader it is a transaction of its own."""
        if self._connection.closed:
            raise PortError(f"{self._address.label}: this unit of work is closed: open another")
        with database.explained(self._address):
            if self._connection.in_transaction():
                return self._connection.execute(statement).fetchall()
            with self._connection.begin():
                return self._connection.execute(statement).fetchall()


class _SqlBackend(_SqlShelf):
    """The writer's side."""

    def save(self, changes: Changes) -> None:
        """One transaction with everything in it."""
        connection = self._connection
        if connection.closed or connection.invalidated:
            raise PortError(f"{self._address.label}: the writer's connection, and its lock, is lost: open it again")
        with database.explained(self._address), connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": database.APPEND_LOCK})
            if changes.strands:
                rows = [codec.strand_row(strand, form) for strand, form in changes.strands]
                verb = "INSERT OR FAIL" if connection.dialect.name == "sqlite" else "INSERT"
                connection.exec_driver_sql(self._insert("ad_strands", codec.COLUMNS, verb), rows)
            for change in changes.tables:
                self._save_table(change)

    def _save_table(self, change: TableChanges) -> None:
        spec = change.spec
        if change.deletes:
            mark = self._mark()
            statement = f'DELETE FROM "{spec.table.name}" WHERE "{spec.key}" = {mark}'
            self._connection.exec_driver_sql(statement, [(key,) for key in change.deletes])
        if change.puts:
            rest = (column for column in spec.columns if column != spec.key and column not in change.keyed)
            update = ", ".join(f'"{column}" = excluded."{column}"' for column in rest)
            insert = self._insert(spec.table.name, spec.columns)
            statement = f'{insert} ON CONFLICT ("{spec.key}") DO UPDATE SET {update}'
            records = change.records
            if records is None:
                records = [spec.record(*put) for put in change.puts]
            self._connection.exec_driver_sql(statement, list(records))

    def _insert(self, table: str, columns: Sequence[str], verb: str = "INSERT") -> str:
        names = ", ".join(f'"{column}"' for column in columns)
        marks = ", ".join([self._mark()] * len(columns))
        return f'{verb} INTO "{table}" ({names}) VALUES ({marks})'

    def _mark(self) -> str:
        return "?" if self._connection.dialect.name == "sqlite" else "%s"


class SqlStore:
    """``ports.Store`` in a database.

    Args:
        url: ``sqlite:///file.db``, ``postgresql://user@host/name`` or ``postgres://...``.

    Raises:
        InputError: an address of another kind.
    """

    def __init__(self, url: str, *, durable: bool = True) -> None:
        self._address = database.parse_address(url)
        self._durable = durable

    @property
    def label(self) -> str:
        """The database's name for messages: its path, or its URL without the password."""
        return self._address.label

    @contextmanager
    def writer(self) -> Iterator[Workspace]:
        """The single writer's unit of work; makes the database or brings its schema up to date first.

        Raises:
            PortError: there is a writer already, or the database cannot be reached.
            InputError: not a database, a damaged one, another program's, or one from a newer release.
        """
        with ExitStack() as stack:
            connection = self._connect(stack, read_only=False)
            backend = _SqlBackend(connection, self._address)
            self._refuse_damaged(backend)
            workspace = Workspace(backend)
            stack.callback(workspace.close)
            yield workspace

    @contextmanager
    def reader(self) -> Iterator[ReadOnly]:
        """A read-only view of the last commit; open a fresh one for each look, and close it soon.

        Raises:
            InputError: missing, not a database, or a schema this release does not read.
            PortError: the database cannot be reached.
        """
        with self.shelf() as shelf:
            yield ReadOnly(shelf)

    @contextmanager
    def shelf(self) -> Iterator[_SqlShelf]:
        """The committed state as stored, for ``log.verify``; raises as ``reader``."""
        with ExitStack() as stack:
            connection = self._connect(stack, read_only=True)
            with database.explained(self._address):
                stack.enter_context(connection.begin())
                database.require_schema(connection, self._address)
            yield _SqlShelf(connection, self._address)

    def _connect(self, stack: ExitStack, *, read_only: bool) -> Connection:
        engine = database.open_engine(self._address, read_only=read_only)
        stack.callback(engine.dispose)
        if not read_only:
            stack.enter_context(database.writer_lock(self._address))
        with database.explained(self._address):
            connection = stack.enter_context(engine.connect())
            if not read_only:
                database.claim_server(connection, self._address)
                database.migrate(connection, self._address)
                database.set_durability(connection, self._address, durable=self._durable)
        return connection

    def _refuse_damaged(self, shelf: _SqlShelf) -> None:
        seq, count = shelf.head()[0], sum(shelf.counts().values())
        if seq != count:
            raise InputError(f"{self.label} is damaged: its log ends at seq {seq} but has {count} strands: run verify")
