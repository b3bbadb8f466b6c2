"""Fresh databases for scenarios: files in a temporary folder, or databases on a PostgreSQL server, gone afterwards."""

from __future__ import annotations

import itertools
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from edgebook.adapters.database import parse_address
from edgebook.domain.errors import InputError


class Databases(Protocol):
    """Where fresh databases come from."""

    kind: str

    def fresh(self) -> str:
        """The URL of an empty database."""
        ...

    def dropped(self) -> None:
        """Remove all that were made."""
        ...


class Files:
    """SQLite files in a folder."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count(1)

    def fresh(self) -> str:
        """The URL of a file that is not there yet."""
        return f"sqlite:///{self._folder}/book{next(self._numbers)}.db"

    def dropped(self) -> None:
        """Remove every file."""
        for path in self._folder.iterdir():
            path.unlink()


class Server:
    """Databases ``edgebook_flow_...`` on a PostgreSQL server.

    Args:
        url: of any database on it, with a user who may create databases.
    """

    kind = "postgresql"

    def __init__(self, url: str) -> None:
        self._url, self._numbers, self._made = make_url(parse_address(url).url), itertools.count(1), list[str]()
        self._run_of = f"{os.getpid()}_{secrets.token_hex(4)}"  # two machines may have one process number

    def fresh(self) -> str:
        """The URL of an empty database.

        Raises:
            InputError: the server cannot be reached, or the user may not create one.
        """
        name = f"edgebook_flow_{self._run_of}_{next(self._numbers)}"
        self._made.append(name)  # before it is there: what is interrupted meanwhile is dropped, too
        try:
            self._run(f'CREATE DATABASE "{name}" ENCODING UTF8 TEMPLATE template0')
        except InputError:
            self._made.remove(name)
            raise
        bare = self._url.set(drivername="postgresql", database=name)
        return bare.render_as_string(hide_password=False)

    def dropped(self) -> None:
        """Drop every database that was made."""
        while self._made:
            self._run(f'DROP DATABASE IF EXISTS "{self._made.pop()}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        engine = create_engine(self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        except DBAPIError as error:
            place = self._url.render_as_string(hide_password=True)
            raise InputError(f"flow needs databases of its own on {place}: {str(error.orig).strip()}") from error
        finally:
            engine.dispose()


@contextmanager
def databases_of(db: str) -> Iterator[Databases]:
    """Databases of ``sqlite``, or of the PostgreSQL server at an address; all are gone afterwards.

    Raises:
        InputError: another word, or the address of an SQLite file (flow makes its own).
    """
    if db == "sqlite":
        with tempfile.TemporaryDirectory(prefix="edgebook-flow-db-") as scratch:
            yield Files(Path(scratch))
        return
    if db.startswith("sqlite:") or parse_address(db).dialect != "postgresql":
        raise InputError(f"flow was given {db}; it takes sqlite (files of its own) or postgresql://USER@HOST/NAME")
    server = Server(db)
    try:
        yield server
    finally:
        server.dropped()
