"""What the last commit holds and what the next one will change: the narrow waist between workspace and database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgebook.adapters.codec import Encoded
from edgebook.adapters.tables import TableSpec
from edgebook.domain.strands import Strand


@dataclass(frozen=True, slots=True)
class StrandQuery:
    """Strands with ``after < seq <= upto`` in order of seq; empty conditions do not filter."""

    after: int = 0
    upto: int = 0
    kinds: tuple[str, ...] | None = None
    limit: int | None = None
    correlation_id: str = ""
    position_id: str = ""
    trade_id: str = ""

    def admits(self, strand: Strand) -> bool:
        """Whether ``strand`` meets every condition but the limit."""
        return (
            self.after < strand.seq <= self.upto
            and (self.kinds is None or strand.kind in self.kinds)
            and self.correlation_id in ("", strand.correlation_id)
            and self.position_id in ("", strand.position_id)
            and self.trade_id in ("", strand.trade_id)
        )


@dataclass(frozen=True, slots=True)
class TableChanges:
    """What one commit changes in one table.

    Attributes:
        puts: (row, row_no, canonical JSON).
        records: the same as SQL records, where they were made along with the JSON.
        keyed: columns that follow from the key, so that an update leaves them (and their index) alone.
    """

    spec: TableSpec
    deletes: Sequence[str] = ()
    puts: Sequence[tuple[Any, int, bytes]] = ()
    records: Sequence[tuple[Any, ...]] | None = None
    keyed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything one commit makes durable, together or not at all."""

    strands: Sequence[tuple[Strand, Encoded]] = ()
    tables: Sequence[TableChanges] = field(default_factory=tuple)


class Shelf(Protocol):
    """The committed state, as of now for a writer and as of its opening for a reader."""

    def head(self) -> tuple[int, str]:
        """Last seq and its hash; (0, 64 zeros) when the log is empty."""
        ...

    def counts(self) -> dict[str, int]:
        """Strands per kind."""
        ...

    def ids(self) -> Iterable[str]:
        """Ids of all strands."""
        ...

    def strand(self, strand_id: str) -> Strand | None:
        """One strand by id."""
        ...

    def strands(self, query: StrandQuery) -> Iterator[Strand]:
        """The strands of a query."""
        ...

    def stored(self) -> Iterator[Sequence[Any]]:
        """Every log row as stored, in the order of ``codec.COLUMNS``, by seq."""
        ...

    def row(self, spec: TableSpec, key: str) -> Any | None:
        """One row by key."""
        ...

    def rows(self, spec: TableSpec, prefix: str = "") -> Iterator[tuple[int, Any]]:
        """(row_no, row) of rows whose key starts with ``prefix``, by row_no."""
        ...

    def count(self, spec: TableSpec) -> int:
        """How many rows."""
        ...


class Backend(Shelf, Protocol):
    """A shelf that can take changes; held by the single writer."""

    def save(self, changes: Changes) -> None:
        """Make ``changes`` durable in one transaction, or raise PortError and change nothing."""
        ...
