"""The unit of work: every table as an identity map in memory, with a journal that can undo to the last commit.

There is one writer, so what is in memory stays true; a commit hands the changed rows and the new strands to a backend,
which makes them durable in one transaction. The same workspace without a database is ``memory.MemoryStore``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, TypeVar

from edgebook.adapters.codec import encode_row
from edgebook.adapters.log import Log, ReadLog
from edgebook.adapters.shelf import Backend, Changes, Shelf, TableChanges
from edgebook.adapters.stat_table import StatTable
from edgebook.adapters.tables import SPECS, TableSpec
from edgebook.domain.book import (
    Account,
    Curator,
    Decision,
    Order,
    PmMemory,
    Position,
    RegimeSnapshot,
    Shadow,
    TokenIntents,
    Trade,
)
from edgebook.domain.coefficient import Coefficient
from edgebook.domain.errors import PortError
from edgebook.domain.evidence import (
    ConfigRow,
    ConfigVersion,
    DeadLetter,
    Fact,
    FamilyFit,
    JobRun,
    Lesson,
    Observation,
    StatRow,
    Watermark,
)
from edgebook.domain.protection import Protection
from edgebook.ports import StatTable as Stats
from edgebook.ports import StrandLog, Table

R = TypeVar("R")


class Attempt:
    """What all tables have changed since an attempt began: (table, key, row before, its number); None outside one."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        self.changes: list[tuple[RowTable[Any], str, Any, int]] | None = None


class RowTable(Generic[R]):
    """``ports.Table`` in memory, loaded at first use.

    Rows also lie in buckets by the part of their key up to the last ``|``, so that ``values(family)`` does not look at
    every row of the table. ``row_no`` is the order of first insertion; it is stored, so the order outlives the process.
    """

    def __init__(self, spec: TableSpec, shelf: Shelf, attempt: Attempt | None = None) -> None:
        self._spec = spec
        self._shelf = shelf
        self._attempt = attempt or Attempt()
        self._loaded = False
        self._rows: dict[str, R] = {}
        self._numbers: dict[str, int] = {}
        self._buckets: dict[str, dict[str, None]] = {}
        self._homes: dict[str, list[str]] = {}  # buckets that may hold keys of a prefix, until there are others
        self._next = 1
        self._before: dict[str, tuple[R | None, int]] = {}
        self._next_before = 1
        self._moved = False
        self._since: dict[str, tuple[R | None, int]] | None = None

    def get(self, key: str) -> R | None:
        """The row, or None."""
        if not self._loaded:
            self._load()
        return self._rows.get(key)

    def put(self, row: R) -> None:
        """Insert or replace by key.

        Raises:
            PortError: a row of another table.
        """
        if type(row) is not self._spec.row:
            wanted, given = self._spec.row.__name__, type(row).__name__
            raise PortError(f"table {self._spec.name} holds {wanted} rows, was given a {given}")
        if not self._loaded:
            self._load()
        key: str = row.key  # type: ignore[attr-defined]
        old = self._rows.get(key)
        if old is row:
            return
        if key not in self._before:
            self._before[key] = old, self._numbers.get(key, 0)
        self._note(key, old)
        if old is None:
            self._numbers[key] = self._next
            self._next += 1
            self._place(key, row)
        else:
            self._rows[key] = row

    def delete(self, key: str) -> None:
        """Remove; absent keys are ignored."""
        if not self._loaded:
            self._load()
        if (old := self._rows.pop(key, None)) is None:
            return
        self._before.setdefault(key, (old, self._numbers[key]))
        self._note(key, old)
        del self._numbers[key]
        parent = key[: key.rfind("|") + 1]
        bucket = self._buckets[parent]
        del bucket[key]
        if not bucket:
            del self._buckets[parent]
            self._homes.clear()
        self._moved = True

    def values(self, prefix: str = "") -> Iterable[R]:
        """Rows whose key starts with ``prefix``, in order of first insertion; safe against changes while being read."""
        if not self._loaded:
            self._load()
        if not prefix:
            return list(self._rows.values())
        homes = self._homes.get(prefix)
        if homes is None:
            homes = self._homes[prefix] = [parent for parent in self._buckets if _may_hold(parent, prefix)]
        keys: Iterable[str] = [key for parent in homes for key in self._buckets[parent] if key.startswith(prefix)]
        if len(homes) > 1:
            keys = sorted(keys, key=self._numbers.__getitem__)
        return [self._rows[key] for key in keys]

    def __len__(self) -> int:
        if not self._loaded:
            self._load()
        return len(self._rows)

    def changes(self) -> TableChanges | None:
        """What the next commit must write, encoded; None if nothing differs from the last commit.

        Raises:
            StrandError: a row holds a value that cannot be stored.
        """
        if not self._before:
            return None
        deletes, puts = [], []
        for key, (old, number) in self._before.items():
            row = self._rows.get(key)
            if row is None:
                if old is not None:
                    deletes.append(key)
            elif old is None or number != self._numbers[key] or old != row:
                puts.append((row, self._numbers[key], encode_row(row, self._spec.name)))
        return TableChanges(self._spec, deletes, puts) if deletes or puts else None

    def committed(self) -> None:
        """The changes are durable now."""
        self._before.clear()
        self._next_before, self._moved = self._next, False

    def rollback(self) -> None:
        """Back to the last commit."""
        for key, (old, number) in self._before.items():
            if old is None:
                self._remove(key)
            else:
                self._numbers[key] = number
                self._place(key, old)
        self._next = self._next_before
        if self._moved:
            self._reorder()
        self._before.clear()
        self._moved = False

    def mark(self) -> None:
        """Remember this moment, for `undo`; an earlier mark is forgotten."""
        self._since = {}

    def undo(self) -> None:
        """Back to the last `mark`."""
        since, self._since = self._since or {}, None
        self.restore(since)

    def _note(self, key: str, old: R | None) -> None:
        if self._since is not None:
            self._since.setdefault(key, (old, self._numbers.get(key, 0)))
        if (changes := self._attempt.changes) is not None:
            changes.append((self, key, old, self._numbers.get(key, 0)))

    def restore(self, since: Mapping[str, tuple[R | None, int]]) -> None:
        """Put rows back as they were: (row, number) by key, None where there was none."""
        for key, (old, number) in since.items():
            if old is None:
                self._remove(key)
            else:
                self._numbers[key] = number
                self._place(key, old)
        if since:
            self._reorder()

    def _load(self) -> None:
        for number, row in self._shelf.rows(self._spec):
            self._numbers[row.key] = number
            self._next = number + 1
            self._place(row.key, row)
        self._next_before = self._next
        self._loaded = True

    def _place(self, key: str, row: R) -> None:
        self._rows[key] = row
        parent = key[: key.rfind("|") + 1]
        bucket = self._buckets.get(parent)
        if bucket is None:
            bucket = self._buckets[parent] = {}
            self._homes.clear()
        bucket[key] = None

    def _remove(self, key: str) -> None:
        if self._rows.pop(key, None) is not None:
            del self._numbers[key]
            del self._buckets[key[: key.rfind("|") + 1]][key]

    def _reorder(self) -> None:
        rows = self._rows
        self._rows, self._buckets = {}, {}
        self._homes.clear()
        for key in sorted(rows, key=self._numbers.__getitem__):
            self._place(key, rows[key])


def _may_hold(parent: str, prefix: str) -> bool:
    """Whether a bucket may hold keys that start with ``prefix``; a key in it is ``parent`` and a rest without ``|``."""
    return parent.startswith(prefix) or (prefix.startswith(parent) and "|" not in prefix[len(parent) :])


class ReadTable(Generic[R]):
    """``ports.Table`` of a reader: asks the shelf each time, keeps nothing."""

    def __init__(self, spec: TableSpec, shelf: Shelf) -> None:
        self._spec = spec
        self._shelf = shelf

    def get(self, key: str) -> R | None:
        """The row, or None."""
        row: R | None = self._shelf.row(self._spec, key)
        return row

    def put(self, row: R) -> None:
        """Refused.

        Raises:
            PortError: always.
        """
        raise PortError(f"this is a reader: {self._spec.name} are written by the writer")

    def delete(self, key: str) -> None:
        """Refused.

        Raises:
            PortError: always.
        """
        raise PortError(f"this is a reader: {self._spec.name} are deleted by the writer")

    def values(self, prefix: str = "") -> Iterable[R]:
        """Rows whose key starts with ``prefix``, in order of first insertion."""
        return [row for _, row in self._shelf.rows(self._spec, prefix)]

    def __len__(self) -> int:
        return self._shelf.count(self._spec)


class ReadStats(ReadTable[StatRow]):
    """``ports.StatTable`` of a reader."""

    def tuned(self, family: str) -> Iterable[StatRow]:
        """Rows of a family that hold evidence on gates, in order of first insertion."""
        return [row for row in self.values(family + "|") if row.stats.get("tuning")]

    def tuning(self, key: str) -> Mapping[str, Any]:
        """Evidence on gates of one row; empty where there is none."""
        row = self.get(key)
        found: Mapping[str, Any] = row.stats.get("tuning", {}) if row else {}
        return found

    def add(self, *change: Any) -> None:
        """Refused.

        Raises:
            PortError: always.
        """
        raise PortError("this is a reader: stats are added to by the writer")

    tune = add


class _Tables:
    """The log and every table of ``ports.UnitOfWork``, and ``meta``: facts about the database itself."""

    def __init__(self, log: StrandLog, table: Callable[[TableSpec], Table[Any]], stats: Stats) -> None:
        self.log = log
        self.positions: Table[Position] = table(SPECS["positions"])
        self.memory: Table[PmMemory] = table(SPECS["memory"])
        self.shadows: Table[Shadow] = table(SPECS["shadows"])
        self.orders: Table[Order] = table(SPECS["orders"])
        self.trades: Table[Trade] = table(SPECS["trades"])
        self.decisions: Table[Decision] = table(SPECS["decisions"])
        self.curators: Table[Curator] = table(SPECS["curators"])
        self.coefficients: Table[Coefficient] = table(SPECS["coefficients"])
        self.intents: Table[TokenIntents] = table(SPECS["intents"])
        self.accounts: Table[Account] = table(SPECS["accounts"])
        self.protections: Table[Protection] = table(SPECS["protections"])
        self.snapshots: Table[RegimeSnapshot] = table(SPECS["snapshots"])
        self.observations: Table[Observation] = table(SPECS["observations"])
        self.stats = stats
        self.fits: Table[FamilyFit] = table(SPECS["fits"])
        self.lessons: Table[Lesson] = table(SPECS["lessons"])
        self.configs: Table[ConfigRow] = table(SPECS["configs"])
        self.config_versions: Table[ConfigVersion] = table(SPECS["config_versions"])
        self.watermarks: Table[Watermark] = table(SPECS["watermarks"])
        self.runs: Table[JobRun] = table(SPECS["runs"])
        self.dead_letters: Table[DeadLetter] = table(SPECS["dead_letters"])
        self.meta: Table[Fact] = table(SPECS["meta"])


class Workspace(_Tables):
    """``ports.UnitOfWork`` of the single writer. Not for several threads at once."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._log = Log(backend)
        self._attempt = Attempt()
        self._stats = StatTable(SPECS["stats"], backend)
        self._tables: list[RowTable[Any] | StatTable] = [self._stats]
        self._closed = False
        self._mark = self._log.head
        super().__init__(self._log, self._table, self._stats)

    def commit(self) -> None:
        """Make everything since the last commit durable, atomically.

        Raises:
            StrandError: a row holds a value that cannot be stored; nothing was written, the changes are still pending.
            PortError: the database refused; nothing was written, the changes are still pending.
        """
        if self._closed:
            raise PortError("this unit of work is closed: open the writer again")
        tables = [changes for table in self._tables if (changes := table.changes())]
        strands = self._log.pending()
        if tables or strands:
            self._backend.save(Changes(strands, tables))
        self._log.committed()
        for table in self._tables:
            table.committed()

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        self._log.rollback()
        for table in self._tables:
            table.rollback()

    def savepoint(self) -> None:
        """Remember this moment, for `undo`; the one before is forgotten."""
        self._mark = self._log.head
        for table in self._tables:
            table.mark()

    def undo(self) -> None:
        """Forget everything since the last `savepoint`; there must have been no commit in between."""
        self._log.undo(self._mark)
        for table in self._tables:
            table.undo()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What fails inside leaves nothing behind; not to be nested, no commit inside."""
        mark, stats, self._attempt.changes = self._log.head, self._stats.moment(), []
        try:
            yield
        except BaseException:
            self._log.undo(mark)
            changes, self._attempt.changes = self._attempt.changes, None
            for table, key, old, number in reversed(changes):
                table.restore({key: (old, number)})
            self._stats.restore(stats)
            raise
        finally:
            self._attempt.changes = None

    def close(self) -> None:
        """Undo what is not committed and refuse further commits."""
        self.rollback()
        self._closed = True

    def _table(self, spec: TableSpec) -> RowTable[Any]:
        table: RowTable[Any] = RowTable(spec, self._backend, self._attempt)
        self._tables.append(table)
        return table


class ReadOnly(_Tables):
    """``ports.UnitOfWork`` of a reader: the commit that was the last when it was opened."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(ReadLog(shelf), lambda spec: ReadTable(spec, shelf), ReadStats(SPECS["stats"], shelf))

    def commit(self) -> None:
        """Refused.

        Raises:
            PortError: always.
        """
        raise PortError("this is a reader: only the writer commits")

    def rollback(self) -> None:
        """Nothing to forget."""

    def savepoint(self) -> None:
        """Nothing to remember: a reader changes nothing."""

    def undo(self) -> None:
        """Nothing to forget."""

    def attempt(self) -> AbstractContextManager[None]:
        """Nothing to leave behind."""
        return nullcontext()
