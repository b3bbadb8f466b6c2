"""Fresh databases for scenarios, of both sorts, and nothing left of them."""

from __future__ import annotations

import psycopg
import pytest

from edgebook.adapters.sql import SqlStore
from edgebook.domain.errors import InputError
from edgebook.flow.databases import databases_of


def made_on(server):
    """Names of the campaign's databases on a server."""
    with psycopg.connect(server.url("postgres")) as connection:
        query = b"SELECT datname FROM pg_database WHERE datname LIKE 'edgebook_flow%'"
        return {name for (name,) in connection.execute(query)}


def test_sqlite_files_are_the_campaigns_own_and_gone_afterwards(tmp_path, monkeypatch):
    """Two of them do not meet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with databases_of("sqlite") as databases:
        first, second = databases.fresh(), databases.fresh()
        assert first != second
        with SqlStore(first).writer():
            """The writer makes the file."""
        assert len(list(tmp_path.rglob("*.db"))) == 1
        databases.dropped()
        assert not list(tmp_path.rglob("*.db"))
    assert not list(tmp_path.iterdir())


@pytest.mark.postgres
def test_databases_on_a_server_are_fresh_and_dropped_even_after_a_failure(pg_server):
    """And while somebody is still connected."""

    def fails():
        with databases_of(pg_server.url("postgres")) as databases:
            first, second = databases.fresh(), databases.fresh()
            assert databases.kind == "postgresql"
            assert len(made_on(pg_server)) == 2
            with SqlStore(first).writer():
                """The schema fits."""
            databases.dropped()
            assert not made_on(pg_server)
            kept.append(psycopg.connect(databases.fresh()))
            raise RuntimeError(second)

    kept: list[psycopg.Connection] = []
    with pytest.raises(RuntimeError):
        fails()
    assert not made_on(pg_server)
    kept[0].close()


@pytest.mark.parametrize("db", ["mysql://here", "sqlite:///my.db", "sqlite:", "nowhere"])
def test_what_is_no_place_for_databases_is_refused(db):
    """A file of the user's own is never touched."""
    with pytest.raises(InputError), databases_of(db):
        pass


def test_a_server_that_is_not_there_is_named_without_its_password():
    """Nobody reads it in a log."""
    with (
        databases_of("postgresql://me:secret@127.0.0.1:1/none") as databases,
        pytest.raises(InputError, match=r"flow needs databases of its own on postgresql.*127") as error,
    ):
        databases.fresh()
    assert "secret" not in error.value.message
