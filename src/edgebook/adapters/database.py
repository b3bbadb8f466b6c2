"""Reaching a database: its address, connection, single writer's lock and schema, and its errors in one line.

SQLite: WAL, ``synchronous=FULL``, transactions begun explicitly; readers open ``mode=ro``. PostgreSQL: psycopg 3;
readers are ``REPEATABLE READ, READ ONLY``. Both refuse a second writer: by a lock file, by an advisory lock.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from edgebook.adapters.tables import REVISION, REVISION_TABLE, append_only_triggers, metadata
from edgebook.domain.errors import InputError, PortError
from edgebook.domain.masking import masked

WRITER_LOCK = int.from_bytes(b"edgebook")
"""Advisory lock of the single writer on PostgreSQL; ``APPEND_LOCK`` is the one taken by each commit."""
APPEND_LOCK = WRITER_LOCK + 1
BUSY_SECONDS = 10
CACHE_KIB = 65_536
MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is: ``path`` for SQLite, ``url`` for PostgreSQL; ``label`` names it without its password."""

    dialect: str
    label: str
    path: Path | None = None
    url: str = ""


def parse_address(url: str) -> Address:
    """The address behind ``sqlite:///file.db``, ``postgresql://...`` or ``postgres://...``.

    Raises:
        InputError: anything else.

    >>> parse_address("sqlite:///book.db").path
    PosixPath('book.db')
    >>> parse_address("postgres://me:secret@db.example/book").label
    'postgresql://me:***@db.example/book'
    >>> parse_address("mysql://db/book")
    Traceback (most recent call last):
    ...
    edgebook.domain.errors.InputError: database 'mysql://db/book': use sqlite:///FILE or postgresql://USER@HOST/NAME
    """
    wanted = "use sqlite:///FILE or postgresql://USER@HOST/NAME"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise InputError(f"database {masked(url)!r}: {wanted}") from None
    name = parsed.drivername.partition("+")[0]
    if name == "sqlite":
        file = url.partition(":///")[2]  # as written: a percent sign in a file name is a percent sign
        if file in ("", ":memory:"):
            raise InputError(f"database {url!r}: {wanted}; a book in memory is MemoryStore")
        return Address("sqlite", file, path=Path(file))
    if name not in ("postgresql", "postgres"):
        raise InputError(f"database {masked(url)!r}: {wanted}")
    label = "postgresql://" + masked(url).partition("://")[2]
    full = parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    return Address("postgresql", label, url=full)


def open_engine(address: Address, *, read_only: bool) -> Engine:
    """An engine that opens a new connection each time (the store keeps the ones it needs).

    Raises:
        InputError: a SQLite file that is missing (reader), or whose directory is (writer).
    """
    if address.path is not None:
        return _sqlite_engine(address.path, read_only=read_only)
    options: dict[str, Any] = {}
    if read_only:
        options["execution_options"] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    role = "reader" if read_only else "writer"
    name = f"edgebook {role}, process {os.getpid()} on {socket.gethostname()}"
    return create_engine(address.url, poolclass=NullPool, connect_args={"application_name": name[:63]}, **options)


def _sqlite_engine(path: Path, *, read_only: bool) -> Engine:
    if read_only and not path.exists():
        raise InputError(f"{path}: there is no such database; the writer makes it")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no directory {path.parent}")
    if path.is_dir():
        raise InputError(f"{path} is a directory, not a database file")
    target = f"file:{quote(str(path.resolve()))}?mode={'ro' if read_only else 'rwc'}"
    if read_only and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        target += "&immutable=1"  # nobody can be writing, and SQLite could not make its shared memory file here

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(target, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def set_durability(connection: Connection, address: Address, *, durable: bool = True) -> None:
    """WAL and a sync at every commit on SQLite (PostgreSQL's own default is that), and room for the log's indexes.

    Args:
        durable: False leaves out the syncs, for a database that is thrown away after the run.
    """
    if address.path is not None:
        raw: Any = connection.connection.dbapi_connection
        raw.execute(f"PRAGMA journal_mode={'WAL' if durable else 'MEMORY'}")
        raw.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        raw.execute(f"PRAGMA cache_size={-CACHE_KIB}")


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Database errors as ours, in one line that names the database.

    Raises:
        InputError: the file is not a database or is damaged; the server has no such database, user or password.
        PortError: everything else.
    """
    try:
        yield
    except DBAPIError as error:
        raise _explain(address, error.orig or error) from error
    except (sqlite3.Error, OverflowError) as error:
        raise _explain(address, error) from error


_BAD_INPUT = (
    ("file is not a database", "is not a database file"),
    ("malformed", "is damaged: restore a copy"),
    ("does not exist", "cannot be opened"),
    ("authentication failed", "cannot be opened"),
)


def _explain(address: Address, error: BaseException) -> InputError | PortError:
    reason = " ".join(str(error).split())
    if getattr(error, "sqlstate", None) is None:  # a statement refused by PostgreSQL is never the user's address
        for sign, meaning in _BAD_INPUT:
            if sign in reason:
                return InputError(f"{address.label} {meaning} ({reason})")
    return PortError(f"{address.label}: {reason}")


@contextmanager
def writer_lock(address: Address) -> Iterator[None]:
    """Be the only writer of a SQLite file; the lock dies with the process. On PostgreSQL see ``claim_server``.

    Raises:
        PortError: there is a writer already; names its process.
    """
    if address.path is None:
        yield
        return
    place = Path(f"{address.path.resolve()}.lock")
    try:
        handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise PortError(f"{place}: cannot make the writer's lock file ({error.strerror})") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(handle, 20, 0).decode().strip() or "unknown"
            raise PortError(
                f"{address.label} already has a writer, process {pid}: stop it or read only;"
                " for several programs on one book use PostgreSQL, postgresql://USER@HOST/NAME"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def claim_server(connection: Connection, address: Address) -> None:
    """Be the only writer of a PostgreSQL database; the lock dies with the connection.

    Raises:
        PortError: there is a writer already; names its process.
    """
    if address.path is not None:
        return
    with connection.begin():
        if connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": WRITER_LOCK}):
            return
        holder = connection.execute(
            text(
                "SELECT a.application_name, a.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
                " WHERE l.locktype = 'advisory' AND l.granted AND l.classid = :high AND l.objid = :low"
                " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ),
            {"high": WRITER_LOCK >> 32, "low": WRITER_LOCK & 0xFFFFFFFF},
        ).first()
    name = f"{holder[0]} (server process {holder[1]})" if holder else "gone this moment: try again"
    raise PortError(
        f"{address.label} already has a writer, {name}: stop it or read only; this release takes one at a time"
    )


def schema_revision(connection: Connection, address: Address) -> str | None:
    """The schema revision of a database, None where nothing of ours is yet.

    Raises:
        InputError: tables of another program, or a schema newer than this release knows.
    """
    tables = set(inspect(connection).get_table_names())
    if REVISION_TABLE not in tables:
        foreign = tables if address.path is not None else tables & set(metadata.tables)
        if foreign:
            names = ", ".join(sorted(foreign)[:3])
            raise InputError(f"{address.label} holds tables of another program ({names}): name a database of its own")
        return None
    revision = connection.scalar(text(f"SELECT version_num FROM {REVISION_TABLE}"))
    if revision is not None and revision > REVISION:
        raise InputError(
            f"{address.label} has schema revision {revision}, the newest this release knows is {REVISION}:"
            " use the release that wrote it"
        )
    return None if revision is None else str(revision)


def migrate(connection: Connection, address: Address) -> None:
    """Bring the schema to the newest revision, all of it or nothing, and make the append-only triggers.

    Raises:
        InputError: as ``schema_revision``.
    """
    with connection.begin():
        if schema_revision(connection, address) == REVISION:
            return
        _upgrade(connection)
        for statement in append_only_triggers(connection.dialect.name):
            connection.exec_driver_sql(statement)


def _upgrade(connection: Connection) -> None:
    from alembic import command  # a third of a second that most openings do not need
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    upgrade: Callable[[Config, str], None] = command.upgrade
    upgrade(config, "head")


def require_schema(connection: Connection, address: Address) -> None:
    """A reader's check that the schema is the one it knows.

    Raises:
        InputError: no tables yet, an older or a newer schema, or another program's tables.
    """
    revision = schema_revision(connection, address)
    if revision is None:
        raise InputError(f"{address.label} holds no book yet: the writer makes it")
    if revision != REVISION:
        raise InputError(
            f"{address.label} has schema revision {revision}, this release reads {REVISION}:"
            " open it once with the writer, which brings it up to date"
        )
