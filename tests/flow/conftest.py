"""One small run of the real system, made once and asked many times."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

if (root := str(Path(__file__).resolve().parents[2])) not in sys.path:
    sys.path.insert(0, root)  # pytest alone, unlike python -m pytest, does not put the repository on the path

from tests.flow import world
from tests.pg import _pg_book, pg_server, pg_url

from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore

__all__ = ["_pg_book", "pg_server", "pg_url"]

FLOW_DAYS = 4.0
SHORT_DAYS = 2.0


@pytest.fixture(scope="session")
def flow(tmp_path_factory):
    """Four days of four tokens on 1 m under an eager learner, in a database file; closed, only to be asked."""
    path = tmp_path_factory.mktemp("flow") / "book.db"
    url = f"sqlite:///{path}"
    registry = path.with_name("curators.toml")
    registry.write_text('[[curators]]\nid = "early"\nbase_weight = 0.7\nhandles = { twitter = "@Early" }\n')
    head = world.run_days(SqlStore(url), FLOW_DAYS, settings=world.settings_for(url, curators=str(registry)))
    return SimpleNamespace(path=path, url=url, head=head, store=SqlStore(url))


@pytest.fixture(scope="session")
def short_run():
    """Two days in memory under an eager learner: what every variation of it must come to."""
    store = MemoryStore()
    head = world.run_days(store, SHORT_DAYS)
    with store.reader() as uow:
        nudged = [s for s in uow.log.read(0) if any(n.applied != n.base for n in getattr(s.payload, "nudges", ()))]
        assert nudged, "nothing is nudged in the short run, so it could not tell a lawful learner from a lawless one"
        return SimpleNamespace(head=head, facts=world.facts(uow), seq=uow.log.head[0], kinds=uow.log.counts())
