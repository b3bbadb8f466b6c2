"""The store without a database: the same workspace, the same promises but durability; for tests, trials and advice.

What only SQL constraints check (a category outside the list, two positions of one contract) is not refused here.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from edgebook.adapters import codec
from edgebook.adapters.shelf import Changes, StrandQuery
from edgebook.adapters.tables import SPECS, TableSpec
from edgebook.adapters.workspace import ReadOnly, Workspace
from edgebook.domain.errors import PortError
from edgebook.domain.strands import Strand


def _empty() -> dict[str, dict[str, tuple[int, Any]]]:
    return {name: {} for name in SPECS}


@dataclass(slots=True)
class _Shelf:
    """One committed state; the log only grows, so a snapshot is the list and how far it may be read."""

    log: list[Strand] = field(default_factory=list)
    by_id: dict[str, Strand] = field(default_factory=dict)
    length: int = 0
    tables: dict[str, dict[str, tuple[int, Any]]] = field(default_factory=_empty)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def head(self) -> tuple[int, str]:
        return (self.length, self.log[self.length - 1].hash) if self.length else (0, codec.GENESIS)

    def counts(self) -> dict[str, int]:
        return dict(Counter(s.kind for s in islice(self.log, self.length)))

    def ids(self) -> Iterable[str]:
        return [s.id for s in islice(self.log, self.length)]

    def strand(self, strand_id: str) -> Strand | None:
        found = self.by_id.get(strand_id)
        return found if found is not None and found.seq <= self.length else None

    def strands(self, query: StrandQuery) -> Iterator[Strand]:
        start = bisect_right(self.log, query.after, hi=self.length, key=lambda s: s.seq)
        found = (s for s in islice(self.log, start, self.length) if query.admits(s))
        return found if query.limit is None else islice(found, max(0, query.limit))

    def stored(self) -> Iterator[Sequence[Any]]:
        for strand in islice(self.log, self.length):
            yield codec.strand_row(strand, codec.encode_strand(strand))

    def row(self, spec: TableSpec, key: str) -> Any | None:
        numbered = self.tables[spec.name].get(key)
        return None if numbered is None else numbered[1]

    def rows(self, spec: TableSpec, prefix: str = "") -> Iterator[tuple[int, Any]]:
        found = [numbered for key, numbered in self.tables[spec.name].items() if key.startswith(prefix)]
        return iter(sorted(found, key=lambda numbered: numbered[0]))

    def count(self, spec: TableSpec) -> int:
        return len(self.tables[spec.name])

    def save(self, changes: Changes) -> None:
        with self.lock:
            for change in changes.tables:
                table = self.tables[change.spec.name]
                for key in change.deletes:
                    table.pop(key, None)
                for row, number, _ in change.puts:
                    table[row.key] = number, row
            for strand, _ in changes.strands:
                self.log.append(strand)
                self.by_id[strand.id] = strand
            self.length = len(self.log)

    def snapshot(self) -> _Shelf:
        with self.lock:
            tables = {name: dict(rows) for name, rows in self.tables.items()}
            return _Shelf(self.log, self.by_id, self.length, tables)


class MemoryStore:
    """``ports.Store`` in memory, shared between one writer and any readers of this process."""

    def __init__(self) -> None:
        self._state = _Shelf()
        self._writing = threading.Lock()

    @contextmanager
    def writer(self) -> Iterator[Workspace]:
        """The single writer's unit of work.

        Raises:
            PortError: there is a writer already.
        """
        if not self._writing.acquire(blocking=False):
            raise PortError(f"this memory store already has a writer, in process {os.getpid()}")
        try:
            workspace = Workspace(self._state)
            try:
                yield workspace
            finally:
                workspace.close()
        finally:
            self._writing.release()

    @contextmanager
    def reader(self) -> Iterator[ReadOnly]:
        """A read-only view of the last commit."""
        yield ReadOnly(self._state.snapshot())

    @contextmanager
    def shelf(self) -> Iterator[_Shelf]:
        """The committed state as stored, for ``log.verify``."""
        yield self._state.snapshot()
