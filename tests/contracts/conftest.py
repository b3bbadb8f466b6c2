"""The three stores the contract suite runs on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

if (root := str(Path(__file__).resolve().parents[2])) not in sys.path:
    sys.path.insert(0, root)  # pytest alone, unlike python -m pytest, does not put the repository on the path

from tests.pg import _pg_book, pg_server, pg_url

from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore

__all__ = ["_pg_book", "pg_server", "pg_url"]

STORES = ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory):
    """A SQLite database with the schema in it; every test's database is a copy of it."""
    path = tmp_path_factory.mktemp("template") / "book.db"
    with SqlStore(f"sqlite:///{path}").writer():
        """The writer makes the schema."""
    return path


@pytest.fixture
def sqlite_url(sqlite_template, tmp_path):
    """A SQLite database of the test's own, with the schema, empty."""
    path = tmp_path / "book.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=DATABASES)
def url(request):
    """Address of a database of each sort, with the schema, empty."""
    return request.getfixturevalue("pg_url" if request.param == "postgres" else "sqlite_url")


@pytest.fixture(params=STORES)
def store(request):
    """An empty store of each sort."""
    if request.param == "memory":
        return MemoryStore()
    return SqlStore(request.getfixturevalue("pg_url" if request.param == "postgres" else "sqlite_url"))
