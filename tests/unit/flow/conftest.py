"""Databases of both sorts, with the schema, empty."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if (root := str(Path(__file__).resolve().parents[3])) not in sys.path:
    sys.path.insert(0, root)  # pytest alone, unlike python -m pytest, does not put the repository on the path

from tests.pg import _pg_book, pg_server, pg_url

from edgebook.adapters.sql import SqlStore

__all__ = ["_pg_book", "pg_server", "pg_url"]


@pytest.fixture
def sqlite_url(tmp_path):
    """An SQLite database."""
    url = f"sqlite:///{tmp_path}/book.db"
    with SqlStore(url).writer():
        """The writer makes the schema."""
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request):
    """Address of a database of each sort."""
    return request.getfixturevalue("pg_url" if request.param == "postgres" else "sqlite_url")
