"""Any sequence of puts, deletes, appends, commits, rollbacks and reopenings: memory, SQLite and a plain dict agree."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.contracts.examples import strand

from edgebook.adapters.log import verify
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.domain.evidence import StatRow

FAMILIES = ("a", "ab", "b")
families, numbers, contents = st.sampled_from(FAMILIES), st.integers(0, 5), st.integers(0, 3)


def row(family: str, number: int, n: int = 0) -> StatRow:
    return StatRow("pm", family, "entry", 1, str(number), {}, n, {}, 1, 2)


class Stores(RuleBasedStateMachine):
    """The model is two dicts of rows and two lists of ids: what is committed, and what is in the works."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="edgebook-model-"))
        self.stores = [MemoryStore(), SqlStore(f"sqlite:///{self.folder}/book.db")]
        self.committed: tuple[dict[str, StatRow], list[str]] = ({}, [])
        self.rows: dict[str, StatRow] = {}
        self.ids: list[str] = []

    @initialize()
    def open(self) -> None:
        self.stack = ExitStack()
        self.uows = [self.stack.enter_context(store.writer()) for store in self.stores]

    @rule(family=families, number=numbers, n=contents)
    def put(self, family: str, number: int, n: int) -> None:
        self.rows[row(family, number).key] = row(family, number, n)
        for uow in self.uows:
            uow.stats.put(row(family, number, n))

    @rule(family=families, number=numbers)
    def delete(self, family: str, number: int) -> None:
        self.rows.pop(row(family, number).key, None)
        for uow in self.uows:
            uow.stats.delete(row(family, number).key)

    @rule(wanted=st.lists(st.integers(0, 30), max_size=4))
    def append(self, wanted: list[int]) -> None:
        strands = [strand(number) for number in wanted]
        for one in strands:
            if one.id not in self.ids:
                self.ids.append(one.id)
        for uow in self.uows:
            stored = uow.log.append(strands)
            assert [s.seq for s in stored] == [self.ids.index(s.id) + 1 for s in strands]

    @rule()
    def commit(self) -> None:
        self.committed = dict(self.rows), list(self.ids)
        for uow in self.uows:
            uow.commit()

    @rule()
    def rollback(self) -> None:
        self.rows, self.ids = dict(self.committed[0]), list(self.committed[1])
        for uow in self.uows:
            uow.rollback()

    @rule()
    def reopen(self) -> None:
        self.rows, self.ids = dict(self.committed[0]), list(self.committed[1])
        self.stack.close()
        self.open()

    @rule(prefix=st.sampled_from(["", "pm|", "pm|a", "pm|a|entry|", "pm|ab|entry|3", "x"]))
    def values(self, prefix: str) -> None:
        expected = [r for key, r in self.rows.items() if key.startswith(prefix)]
        for uow in self.uows:
            assert list(uow.stats.values(prefix)) == expected

    @rule()
    def look_as_a_reader(self) -> None:
        for store in self.stores:
            with store.reader() as uow:
                assert list(uow.stats.values()) == list(self.committed[0].values())
                assert [s.id for s in uow.log.read(0)] == self.committed[1]

    @invariant()
    def the_same_everywhere(self) -> None:
        if not hasattr(self, "uows"):
            return
        heads = {uow.log.head for uow in self.uows}
        assert len(heads) == 1
        for uow in self.uows:
            assert list(uow.stats.values()) == list(self.rows.values())
            assert len(uow.stats) == len(self.rows)
            assert [s.id for s in uow.log.read(0)] == self.ids

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()
            for store in self.stores:
                report = verify(store)
                assert (report.count, report.problems) == (len(self.committed[1]), ())
        shutil.rmtree(self.folder)


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
