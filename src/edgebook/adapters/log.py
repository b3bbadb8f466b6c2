"""The append-only log: numbers and hashes strands as they are appended, keeps the recent ones in memory, asks the shelf
for the older ones; and ``verify``, which recomputes the whole chain from what is stored.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from edgebook.adapters import codec
from edgebook.adapters.shelf import Shelf, StrandQuery
from edgebook.adapters.tables import SPECS
from edgebook.domain.errors import PortError, StrandError
from edgebook.domain.strands import Strand

KEEP = 16_384
"""Committed strands that stay in memory; up to twice as many before the older half is dropped."""


class Log:
    """The writer's log: ``ports.StrandLog`` over a shelf plus what is not yet committed."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._seq, self._hash = shelf.head()
        self._base = self._seq  # everything after it is in _recent
        self._committed = (self._seq, self._hash)
        self._recent: list[Strand] = []
        self._pending: list[codec.Encoded] = []
        self._ids = set(shelf.ids())
        self._by_id: dict[str, Strand] = {}
        self._counts = Counter(shelf.counts())
        self._index: dict[tuple[str, str], list[Strand]] = {}
        self._indexed = 0

    def append(self, strands: Sequence[Strand]) -> Sequence[Strand]:
        """See ``ports.StrandLog``; when one strand is refused, none of the call is appended."""
        mark = self._seq, self._hash
        try:
            return [self._append(strand) for strand in strands]
        except BaseException:
            self.undo(mark)
            raise

    def read(self, after_seq: int, kinds: Iterable[str] | None = None, limit: int | None = None) -> Iterator[Strand]:
        """See ``ports.StrandLog``; reads up to the head of the moment of the call."""
        wanted = None if kinds is None else tuple(kinds)
        recent = self._recent[max(0, after_seq - self._base) :]
        found: Iterator[Strand] = iter(recent) if wanted is None else (s for s in recent if s.kind in wanted)
        if after_seq < self._base:
            found = self._older_first(StrandQuery(after_seq, self._base, wanted, limit), found)
        return found if limit is None else islice(found, max(0, limit))

    def get(self, strand_id: str) -> Strand | None:
        """See ``ports.StrandLog``."""
        if strand_id not in self._ids:
            return None
        return self._by_id.get(strand_id) or self._shelf.strand(strand_id)

    def find(self, *, correlation_id: str = "", position_id: str = "", trade_id: str = "") -> Iterator[Strand]:
        """See ``ports.StrandLog``; several conditions must all hold.

        Raises:
            PortError: no condition.
        """
        query = find_query(self._seq, correlation_id, position_id, trade_id)
        self._update_index()
        field, value = next((f, v) for f in _FOUND_BY if (v := getattr(query, f)))
        recent = [s for s in self._index.get((field, value), ()) if query.admits(s)]
        if self._base == 0:
            return iter(recent)
        return self._older_first(StrandQuery(0, self._base, None, None, correlation_id, position_id, trade_id), recent)

    @property
    def head(self) -> tuple[int, str]:
        """See ``ports.StrandLog``."""
        return self._seq, self._hash

    def counts(self) -> dict[str, int]:
        """See ``ports.StrandLog``; kinds ascending."""
        return {kind: n for kind, n in sorted(self._counts.items()) if n}

    def pending(self) -> list[tuple[Strand, codec.Encoded]]:
        """What the next commit will append."""
        fresh = self._recent[self._committed[0] - self._base :]
        return list(zip(fresh, self._pending, strict=True))

    def committed(self) -> None:
        """The pending strands are durable now."""
        self._committed = self._seq, self._hash
        self._pending.clear()
        if len(self._recent) > 2 * KEEP:
            dropped = self._recent[:-KEEP]
            del self._recent[:-KEEP]
            self._base += len(dropped)
            for strand in dropped:
                del self._by_id[strand.id]
            self._index, self._indexed = {}, 0

    def rollback(self) -> None:
        """Forget the pending strands."""
        self.undo(self._committed)

    def _append(self, strand: Strand) -> Strand:
        if strand.id in self._ids:
            return self._again(strand)
        form = codec.encode_strand(strand)
        digest = hashlib.sha256(self._hash.encode() + form.canonical).hexdigest()
        placed = codec.stamp(strand, self._seq + 1, digest)
        self._seq, self._hash = placed.seq, digest
        self._recent.append(placed)
        self._pending.append(form)
        self._ids.add(strand.id)
        self._by_id[strand.id] = placed
        self._counts[strand.payload.kind] += 1
        return placed

    def _again(self, strand: Strand) -> Strand:
        """The stored strand of the same id, if it says the same."""
        stored = self.get(strand.id)
        if stored is None:
            raise StrandError(f"strand {strand.id} is known to the log but cannot be read from it: run verify")
        if codec.strand_bytes(stored) != codec.strand_bytes(strand) and (different := _differences(stored, strand)):
            message = f"strand {strand.id} is already in the log (seq {stored.seq}) with other {', '.join(different)}"
            raise StrandError(message, correlation_id=strand.correlation_id)
        return stored

    def undo(self, mark: tuple[int, str]) -> None:
        """Forget the pending strands after ``mark``, a former head."""
        seq, digest = mark
        undone = self._recent[seq - self._base :]
        del self._recent[seq - self._base :]
        del self._pending[seq - self._committed[0] :]
        for strand in undone:
            self._ids.discard(strand.id)
            del self._by_id[strand.id]
            self._counts[strand.kind] -= 1
        if undone:
            self._index, self._indexed = {}, 0
        self._seq, self._hash = seq, digest

    def _older_first(self, query: StrandQuery, recent: Iterable[Strand]) -> Iterator[Strand]:
        yield from self._shelf.strands(query)
        yield from recent

    def _update_index(self) -> None:
        for strand in self._recent[self._indexed :]:
            for field in _FOUND_BY:
                if value := getattr(strand, field):
                    self._index.setdefault((field, value), []).append(strand)
        self._indexed = len(self._recent)


class ReadLog:
    """A reader's log: the last commit, nothing else."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._head = shelf.head()

    def append(self, strands: Sequence[Strand]) -> Sequence[Strand]:
        """Refused.

        Raises:
            PortError: always.
        """
        raise PortError("this is a reader: strands are appended by the writer")

    def read(self, after_seq: int, kinds: Iterable[str] | None = None, limit: int | None = None) -> Iterator[Strand]:
        """See ``ports.StrandLog``."""
        wanted = None if kinds is None else tuple(kinds)
        return self._shelf.strands(StrandQuery(after_seq, self._head[0], wanted, limit))

    def get(self, strand_id: str) -> Strand | None:
        """See ``ports.StrandLog``."""
        return self._shelf.strand(strand_id)

    def find(self, *, correlation_id: str = "", position_id: str = "", trade_id: str = "") -> Iterator[Strand]:
        """See ``ports.StrandLog``."""
        return self._shelf.strands(find_query(self._head[0], correlation_id, position_id, trade_id))

    @property
    def head(self) -> tuple[int, str]:
        """See ``ports.StrandLog``."""
        return self._head

    def counts(self) -> dict[str, int]:
        """See ``ports.StrandLog``; kinds ascending."""
        return dict(sorted(self._shelf.counts().items()))


_FOUND_BY = ("trade_id", "position_id", "correlation_id")


def find_query(upto: int, correlation_id: str, position_id: str, trade_id: str) -> StrandQuery:
    """The query of ``StrandLog.find``.

    Raises:
        PortError: no condition.
    """
    if not (correlation_id or position_id or trade_id):
        raise PortError("find needs a correlation_id, a position_id or a trade_id; read gives the whole log")
    return StrandQuery(0, upto, None, None, correlation_id, position_id, trade_id)


def _differences(stored: Strand, strand: Strand) -> list[str]:
    """Names of the fields in which two strands of one id differ, as they would read once stored."""
    before, now = (codec.decode(codec.strand_bytes(s)) for s in (stored, strand))
    names = [name for name in before if name != "payload" and before[name] != now[name]]
    old, new = before["payload"], now["payload"]
    return names + [f"payload.{n}" for n in sorted({*old, *new}) if n not in old or n not in new or old[n] != new[n]]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What ``verify`` found: strands counted, the recomputed head, one line per problem."""

    count: int
    head: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems


class Verifiable(Protocol):
    """A store whose last commit can be looked at as it is stored."""

    def shelf(self) -> AbstractContextManager[Shelf]:
        """The committed state, read-only."""
        ...


def verify(store: Verifiable) -> VerifyReport:
    """Recompute the hash chain from the stored rows and check that nothing is missing.

    A changed strand is named by its seq; where its hash was recomputed too, the next one is, for it no longer follows.
    A log cut off at its end is seen only where a watermark points past the end: keep the head elsewhere to be sure.
    ``ts_recorded`` is not part of the chain.
    """
    problems: list[str] = []
    with store.shelf() as shelf:
        count, seq, digest = 0, 0, codec.GENESIS
        for row in shelf.stored():
            count += 1
            problems += _check_place(seq, row)
            seq = row[0]
            digest = _check_hash(digest, row, problems)
        head = digest
        problems += [
            f"watermark of {mark.consumer} is at seq {mark.seq}, but the log ends at {seq}: its end is missing"
            for _, mark in shelf.rows(SPECS["watermarks"])
            if mark.seq > seq
        ]
    return VerifyReport(count, head, tuple(problems))


def _check_place(last: int, row: Sequence[Any]) -> list[str]:
    if row[0] == last + 1:
        return []
    missing = f"{last + 1}" if row[0] == last + 2 else f"{last + 1} to {row[0] - 1}"
    return [f"seq {missing} missing" if row[0] > last else f"seq {row[0]} follows {last}: out of order"]


def _check_hash(previous: str, row: Sequence[Any], problems: list[str]) -> str:
    """The hash the next row must follow from: this row's stored one, so that one changed row is one problem."""
    stored = str(row[-1])
    try:
        right = codec.chain_hash(previous, codec.row_bytes(row))
    except StrandError as error:
        problems.append(f"seq {row[0]} ({row[1]}): {error.message}")
        return stored
    if right != stored:
        problems.append(f"seq {row[0]} ({row[1]}): the stored hash is not that of its content and its predecessor")
    return stored
