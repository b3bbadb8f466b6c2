"""The table ``pattern_scope_stats`` of the writer: `learning.sheet.Sheet` under the transaction of the workspace.

It is the one table of which a single trade changes hundreds of rows, so they are summed in columns, and made and
written as JSON once a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, overload

import orjson

from edgebook.adapters.codec import encode, encode_row
from edgebook.adapters.shelf import Shelf, TableChanges
from edgebook.adapters.tables import TableSpec
from edgebook.domain.errors import PortError, StrandError
from edgebook.domain.evidence import StatRow
from edgebook.domain.scope import ScopeItems
from edgebook.learning.sheet import CREATED, UPDATED, Family, Moment, Sheet, Slice, stats_of

_KEYED = ("module", "pattern_key", "action_category", "scope_mask", "scope_hash", "scope_values")
_ROW = (
    b'{"action_category":%b,"created_at":%d,"module":%b,"n":%d,"pattern_key":%b,%b,"stats":%b,"updated_at":%d}'
)  # fmt: skip


class StatTable:
    """``ports.StatTable`` of the writer, loaded at first use."""

    def __init__(self, spec: TableSpec, shelf: Shelf) -> None:
        self._spec = spec
        self._shelf = shelf
        self._mark: Moment | None = None
        self._loaded: Sheet | None = None
        self._start = Moment(0, 0)
        self._texts: dict[str, tuple[Slice, bytes, str]] = {}

    @property
    def _sheet(self) -> Sheet:
        if self._loaded is None:
            self._loaded = Sheet()
            for number, row in self._shelf.rows(self._spec):
                self._loaded.load(number, row)
            self.committed()
        return self._loaded

    def get(self, key: str) -> StatRow | None:
        """The row, or None."""
        return self._sheet.get(key)

    def put(self, row: StatRow) -> None:
        """Insert or replace by key.

        Raises:
            PortError: a row of another table.
        """
        if type(row) is not StatRow:
            raise PortError(f"table {self._spec.name} holds StatRow rows, was given a {type(row).__name__}")
        self._sheet.put(row)

    def delete(self, key: str) -> None:
        """Remove; absent keys are ignored."""
        self._sheet.delete(key)

    def values(self, prefix: str = "") -> Iterable[StatRow]:
        """Rows whose key starts with ``prefix``, in order of first insertion; safe against changes while being read."""
        return self._sheet.rows(self._sheet.indices(prefix))

    def __len__(self) -> int:
        return len(self._sheet)

    def tuned(self, family: str) -> Iterable[StatRow]:
        """Rows of a family that hold evidence on gates, in order of first insertion."""
        return self._sheet.tuned(family)

    def add(
        self, family: Family, items: ScopeItems, depth: int, change: Sequence[float], now: int, pseudo_trades: float
    ) -> None:
        """As `Sheet.add`."""
        self._sheet.add(family, items, depth, change, now, pseudo_trades)

    def tuning(self, key: str) -> Mapping[str, Any]:
        """As `Sheet.tuning`."""
        return self._sheet.tuning(key)

    def tune(self, family: Family, part: Slice, tuning: Mapping[str, Any], now: int) -> None:
        """As `Sheet.tune`."""
        self._sheet.tune(family, part, tuning, now)

    # ---- the transaction

    def changes(self) -> TableChanges | None:
        """What the next commit must write, encoded; None if nothing has changed.

        Raises:
            StrandError: a row holds a value that cannot be stored.
        """
        if self._loaded is None:
            return None
        sheet = self._loaded
        deletes, which = sheet.changed()
        if not deletes and not which:
            return None
        records = [self._record(at, cells) for at, cells in zip(which, sheet.cells(which), strict=True)]
        return TableChanges(self._spec, deletes, _Puts(sheet, which), records, _KEYED)

    def committed(self) -> None:
        """The changes are durable now."""
        if self._loaded is not None:
            self._loaded.settle()
            self._start, self._mark = self._loaded.moment(), None

    def rollback(self) -> None:
        """Back to the last commit."""
        self.restore(self._start)

    def mark(self) -> None:
        """Remember this moment, for `undo`; an earlier mark is forgotten."""
        self._mark = self.moment()

    def undo(self) -> None:
        """Back to the last `mark`."""
        if self._mark is not None:
            self.restore(self._mark)
        self._mark = None

    def moment(self) -> Moment:
        """Now, for `restore`; not behind a commit."""
        return self._start if self._loaded is None else self._loaded.moment()

    def restore(self, moment: Moment) -> None:
        """Everything as it was at ``moment``."""
        if self._loaded is not None:
            self._loaded.restore(moment)

    def _record(self, at: int, cells: list[float]) -> tuple[Any, ...]:
        """The SQL record of a row, canonical JSON included: what ``spec.record`` makes of it, several times quicker."""
        sheet = self._sheet
        if sheet.odd(at):
            return self._slow_record(at)
        family, part = sheet.place(at)
        stats, created, updated = stats_of(cells, sheet.tuning_at(at)), int(cells[CREATED]), int(cells[UPDATED])
        try:
            data = _stats_json(stats)
            known = self._texts.get(part.hash)
            if known is None or known[0] is not part:
                known = self._texts[part.hash] = part, *_slice_json(part)
        except StrandError:  # said again, with the row's key and the field
            return self._slow_record(at)
        _, identity, values = known
        module, pattern_key, category = _family_json(family)
        content = _ROW % (category, created, module, stats["n"], pattern_key, identity, data, updated)
        return (
            sheet.keys[at], sheet.numbers[at], *family, part.mask, part.hash, values, stats["n"], data.decode(),
            created, updated, content.decode(),
        )  # fmt: skip

    def _slow_record(self, at: int) -> tuple[Any, ...]:
        (row,) = self._sheet.rows([at])
        return self._spec.record(row, self._sheet.numbers[at], encode_row(row, self._spec.name))


class _Puts(Sequence[tuple[StatRow, int, bytes]]):
    """The rows of a commit, made when somebody asks for them: a database takes the records instead."""

    def __init__(self, sheet: Sheet, which: list[int]) -> None:
        self._sheet, self._which = sheet, which

    def __len__(self) -> int:
        return len(self._which)

    @overload
    def __getitem__(self, index: int) -> tuple[StatRow, int, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[StatRow, int, bytes]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return _Puts(self._sheet, self._which[index])
        (row,) = self._sheet.rows([self._which[index]])
        return row, self._sheet.numbers[self._which[index]], encode_row(row)


def _stats_json(stats: dict[str, Any]) -> bytes:
    """Canonical JSON of what `stats_of` makes: names in order, and null for what is not finite.

    Raises:
        StrandError: something in it cannot be stored.
    """
    if stats["n"] and not stats["tuning"]:
        data = orjson.dumps(stats)
        if b"null" not in data:
            return data
    return encode(stats)


def _slice_json(part: Slice) -> tuple[bytes, str]:
    """The fields of a row that say which slice it is, as JSON, and the scope's values alone."""
    values = encode(part.values)
    identity = b'"scope_hash":%b,"scope_mask":%d,"scope_values":%b' % (encode(part.hash), part.mask, values)
    return identity, values.decode()


@cache
def _family_json(family: Family) -> list[bytes]:
    return [encode(text) for text in family]
