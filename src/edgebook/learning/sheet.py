"""The rows of ``pattern_scope_stats`` in columns: what a trade adds goes into all its slices at once.

One trade belongs to every subset of its scope, 176 slices at depth 3 of 10 dims, and moves the same sums by the same
amount in each. So the sums of all rows lie in one array of shape (rows, 12), and means, variance and edge are worked
out when somebody reads a row. The additions are those of a row by itself, in the same order: the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.evidence import StatRow, family_key
from edgebook.domain.scope import ScopeItems, ScopeValue
from edgebook.domain.values import maker
from edgebook.learning.edge import baseline, edge_raw
from edgebook.learning.slices import Slice as Slice
from edgebook.learning.slices import slice_of

Family = tuple[str, str, str]
"""Module, pattern key, action category."""

_SUMS = (
    "n", "sum_rr", "sum_rr_squared", "n_win", "sum_roi", "pnl_usd", "sum_time_efficiency", "sum_hold_days"
)  # fmt: skip
_WIDTH = len(_SUMS) + 4
_BASE, _LAST, CREATED, UPDATED = range(len(_SUMS), _WIDTH)
_START = 64
_NO_TUNING: Mapping[str, Any] = {}
_stat_row = maker(StatRow)


class Rows(Protocol):
    """Statistics rows that can be added to in place; `Sheet` says what each does."""

    def add(
        self, family: Family, items: ScopeItems, depth: int, change: Sequence[float], now: int, pseudo_trades: float
    ) -> None:
        """Add ``change`` to every slice of ``items``."""
        ...

    def tuning(self, key: str) -> Mapping[str, Any]:
        """Evidence on gates of one row."""
        ...

    def tune(self, family: Family, part: Slice, tuning: Mapping[str, Any], now: int) -> None:
        """Set the evidence on gates of one slice."""
        ...

    def tuned(self, family: str) -> Iterable[StatRow]:
        """The rows of a family key that hold evidence on gates, in order of first insertion."""
        ...


class Moment(NamedTuple):
    """A moment to go back to: how much of the journal there was, and how many rows."""

    entries: int
    size: int


class _Whole(NamedTuple):
    """A row as it was: its sums, its gate evidence and, if it is none of ours, all of it."""

    at: int
    cells: NDArray[np.float64]
    tuning: Mapping[str, Any]
    odd: StatRow | None


class _Added(NamedTuple):
    """The sums of rows as they were."""

    at: NDArray[np.intp]
    cells: NDArray[np.float64]


class _Deleted(NamedTuple):
    """A row that was there."""

    at: int


class Sheet:
    """Statistics rows by key, in order of first insertion, with a journal that leads back to an earlier `Moment`.

    Whole numbers are exact up to 2**53: counts, and microseconds until the year 2255. A row whose statistics do not
    follow from its sums (another release's) is kept as it is until something is added to it.

    Args:
        lookup: where a row that is not here yet is looked for, by key; it comes in unchanged.
    """

    def __init__(self, lookup: Callable[[str], StatRow | None] | None = None) -> None:
        self._lookup = lookup
        self._cells: NDArray[np.float64] = np.zeros((_START, _WIDTH))
        self._saved: NDArray[np.int64] = np.full(_START, -1, dtype=np.int64)  # epoch of the row's last journal entry
        self._epoch = 0
        self._now: Moment | None = None  # the last moment asked for, until something changes
        self._at: dict[str, int] = {}
        self.keys: list[str] = []
        self.numbers: list[int] = []
        self._families: list[Family] = []
        self._slices: list[Slice] = []
        self._tunings: list[Mapping[str, Any]] = []
        self._odd: dict[int, StatRow] = {}
        self._parents: dict[str, list[int]] = {}
        self._journal: list[_Whole | _Added | _Deleted] = []
        # What only saves time: whole rows asked for since the last change, and where the slices of a scope lie.
        self._made: dict[int, StatRow] = {}
        self._codes: dict[tuple[str, ScopeValue], int] = {}
        self._pairs: list[tuple[str, ScopeValue]] = []
        self._slots: dict[Family, dict[tuple[int, ...], int]] = {}

    def __len__(self) -> int:
        return len(self._at)

    # ---- reading

    def get(self, key: str) -> StatRow | None:
        """The row, or None."""
        at = self._find(key)
        if at is None:
            return None
        row = self._made.get(at)
        if row is None:
            row = self._made[at] = self._row(at, self._cells[at].tolist())
        return row

    def rows(self, which: Iterable[int]) -> list[StatRow]:
        """The rows at the indices ``which``."""
        chosen = list(which)
        return [self._row(at, cells) for at, cells in zip(chosen, self.cells(chosen), strict=True)]

    def indices(self, prefix: str = "") -> list[int]:
        """Where the rows lie whose key starts with ``prefix``, in order of first insertion."""
        if not prefix:
            return sorted(self._at.values())
        found: list[int] = []
        for parent, held in self._parents.items():
            if parent.startswith(prefix):
                found += held
            elif prefix.startswith(parent) and "|" not in prefix[len(parent) :]:
                found += [at for at in held if self.keys[at].startswith(prefix)]
        return sorted(at for at in found if self._at.get(self.keys[at]) == at)

    def tuned(self, family: str) -> list[StatRow]:
        """The rows of a family key that hold evidence on gates, in order of first insertion."""
        held = self._parents.get(family + "|", ())
        return self.rows(at for at in held if self._at.get(self.keys[at]) == at and self.tuning_at(at))

    def tuning(self, key: str) -> Mapping[str, Any]:
        """``stats["tuning"]`` of a row; empty where there is none."""
        at = self._find(key)
        return _NO_TUNING if at is None else self.tuning_at(at)

    def cells(self, which: list[int]) -> list[list[float]]:
        """The sums of the rows at the indices ``which``, for `stats_of`."""
        found: list[list[float]] = self._cells[which].tolist()
        return found

    def place(self, at: int) -> tuple[Family, Slice]:
        """Family and slice of the row at an index."""
        return self._families[at], self._slices[at]

    def odd(self, at: int) -> bool:
        """Whether the row at an index is kept as it came, because its statistics do not follow from its sums."""
        return at in self._odd

    def tuning_at(self, at: int) -> Mapping[str, Any]:
        """``stats["tuning"]`` of the row at an index."""
        odd = self._odd.get(at) if self._odd else None
        return self._tunings[at] if odd is None else odd.stats.get("tuning", _NO_TUNING)

    # ---- writing

    def add(
        self, family: Family, items: ScopeItems, depth: int, change: Sequence[float], now: int, pseudo_trades: float
    ) -> None:
        """Add ``change`` to every slice of ``items`` with at most ``depth`` dims, new slices included.

        Args:
            change: what n, rr, rr squared, wins, roi, pnl, time efficiency and hold days grow by, and when the trade
                closed.
            now: becomes ``updated_at``, and ``created_at`` of new rows; microseconds.
            pseudo_trades: of the baseline, which is that of the root after the change.
        """
        self._now = None
        which = self._lattice(family, items, depth, now)
        if self._odd:
            for at in which.tolist():
                if at in self._odd:
                    self._note(at)
                    self._adopt(at, self._odd.pop(at))
        unsaved = which[self._saved[which] < self._epoch]
        if unsaved.size:
            self._journal.append(_Added(unsaved, self._cells[unsaved]))
            self._saved[unsaved] = self._epoch
        cells = self._cells[which]
        cells[:, : len(_SUMS)] += change[: len(_SUMS)]
        cells[:, _BASE] = baseline(float(cells[0, 1]), int(cells[0, 0]), pseudo_trades)  # the root comes first
        np.maximum(cells[:, _LAST], change[-1], out=cells[:, _LAST])
        cells[:, UPDATED] = now
        self._cells[which] = cells
        self._made.clear()

    def tune(self, family: Family, part: Slice, tuning: Mapping[str, Any], now: int) -> None:
        """Set the evidence on gates of one slice; ``now`` becomes ``updated_at``."""
        at = self._slot(family, part, now)
        self._note(at)
        if (odd := self._odd.pop(at, None)) is not None:
            self._odd[at] = _stat_row(
                *family, odd.scope_mask, odd.scope_hash, odd.scope_values, odd.n, {**odd.stats, "tuning": tuning},
                odd.created_at, now,
            )  # fmt: skip
        self._tunings[at] = tuning
        self._cells[at, UPDATED] = now

    def put(self, row: StatRow) -> None:
        """Insert or replace by key."""
        at = self._at.get(row.key)
        if at is None:
            at = self._insert(row.key, (row.module, row.pattern_key, row.action_category), _slice(row), row.created_at)
        elif self.get(row.key) == row:
            return
        self._note(at)
        self._take(at, row)

    def load(self, number: int, row: StatRow) -> None:
        """Take in a stored row with its ``row_no``; rows come in the order of their numbers."""
        at = self._insert(row.key, (row.module, row.pattern_key, row.action_category), _slice(row), row.created_at)
        self.numbers[at] = number
        self._take(at, row)

    def delete(self, key: str) -> None:
        """Remove; absent keys are ignored."""
        at = self._at.pop(key, None)
        if at is not None:
            self._now = None
            self._journal.append(_Deleted(at))
            self._slots.clear()
            self._made.clear()

    # ---- going back

    def moment(self) -> Moment:
        """Now, to go back to with `restore`."""
        if self._now is None:
            self._epoch += 1
            self._now = Moment(len(self._journal), len(self.keys))
        return self._now

    def settle(self) -> None:
        """What has changed is no news any more; there is no way back behind this moment."""
        self._journal.clear()
        self._now = None
        self._epoch += 1

    def changed(self) -> tuple[list[str], list[int]]:
        """Keys that are gone and indices of rows that are new or differ, since the last `settle`."""
        gone = {self.keys[entry.at]: None for entry in self._journal if isinstance(entry, _Deleted)}
        touched: set[int] = set()
        for entry in self._journal:
            touched.update(entry.at.tolist() if isinstance(entry, _Added) else (entry.at,))
        return [key for key in gone if key not in self._at], sorted(
            at for at in touched if self._at.get(self.keys[at]) == at
        )

    def restore(self, moment: Moment) -> None:
        """Everything as it was at ``moment``, which is not older than the last `settle`."""
        while len(self._journal) > moment.entries:
            entry = self._journal.pop()
            if isinstance(entry, _Added):
                self._cells[entry.at] = entry.cells
            elif isinstance(entry, _Deleted):
                self._at[self.keys[entry.at]] = entry.at
            else:
                self._cells[entry.at], self._tunings[entry.at] = entry.cells, entry.tuning
                self._odd.pop(entry.at, None)
                if entry.odd is not None:
                    self._odd[entry.at] = entry.odd
        for at in reversed(range(moment.size, len(self.keys))):
            if self._at.get(self.keys[at]) == at:
                del self._at[self.keys[at]]
            self._odd.pop(at, None)
            self._parents[_parent(self.keys[at])].pop()
        for column in (self.keys, self.numbers, self._families, self._slices, self._tunings):
            del column[moment.size :]
        self._saved[moment.size :] = -1
        self._slots.clear()
        self._made.clear()
        self._now = None
        self._epoch += 1  # what was undone is to be noted again

    # ---- inside

    def _find(self, key: str) -> int | None:
        at = self._at.get(key)
        if at is None and self._lookup is not None and (row := self._lookup(key)) is not None:
            family = row.module, row.pattern_key, row.action_category
            at = self._insert(key, family, _slice(row), row.created_at)
            self._take(at, row)
        return at

    def _lattice(self, family: Family, items: ScopeItems, depth: int, now: int) -> NDArray[np.intp]:
        """Indices of all slices of ``items``, the root first; new ones get a row."""
        known, slots = self._codes, self._slots.setdefault(family, {})
        codes = []
        for pair in items:
            code = known.get(pair)
            if code is None:
                code = known[pair] = len(known)
                self._pairs.append(pair)
            codes.append(code)
        subsets = [found for size in range(min(depth, len(codes)) + 1) for found in combinations(codes, size)]
        which = [slots.get(subset) for subset in subsets]
        if None in which:
            for k, subset in enumerate(subsets):
                if which[k] is None:
                    part = slice_of(family[0], tuple(self._pairs[code] for code in subset))
                    which[k] = slots[subset] = self._slot(family, part, now)
        return np.array(which, dtype=np.intp)

    def _slot(self, family: Family, part: Slice, now: int) -> int:
        key = f"{family_key(*family)}|{part.hash}"
        at = self._find(key)
        return self._insert(key, family, part, now) if at is None else at

    def _insert(self, key: str, family: Family, part: Slice, now: int) -> int:
        at, self._now = len(self.keys), None
        if at == len(self._cells):
            self._cells = np.concatenate([self._cells, np.zeros_like(self._cells)])
            self._saved = np.concatenate([self._saved, np.full_like(self._saved, -1)])
        self._cells[at], self._cells[at, CREATED] = 0.0, now
        self._at[key] = at
        self.numbers.append(self.numbers[-1] + 1 if self.numbers else 1)
        self.keys.append(key)
        self._families.append(family)
        self._slices.append(part)
        self._tunings.append(_NO_TUNING)
        self._parents.setdefault(_parent(key), []).append(at)
        return at

    def _take(self, at: int, row: StatRow) -> None:
        """Make the row at ``at`` equal to ``row``."""
        self._odd.pop(at, None)
        try:
            self._adopt(at, row)
            same = self._row(at, self._cells[at].tolist()) == row
        except (KeyError, TypeError, ValueError, ArithmeticError):
            same = False
        if not same:
            self._odd[at] = row

    def _adopt(self, at: int, row: StatRow) -> None:
        stats = row.stats
        sums = [stats[name] for name in _SUMS]
        self._cells[at] = [*sums, stats["baseline"], stats["last_ts"], row.created_at, row.updated_at]
        self._tunings[at] = stats["tuning"]

    def _note(self, at: int) -> None:
        """Into the journal, before a whole row changes."""
        self._now = None
        self._journal.append(_Whole(at, self._cells[at].copy(), self._tunings[at], self._odd.get(at)))
        self._made.clear()

    def _row(self, at: int, cells: list[float]) -> StatRow:
        if self._odd and (odd := self._odd.get(at)) is not None:
            return odd
        part, stats = self._slices[at], stats_of(cells, self._tunings[at])
        return _stat_row(
            *self._families[at],
            part.mask,
            part.hash,
            part.values,
            stats["n"],
            stats,
            int(cells[CREATED]),
            int(cells[UPDATED]),
        )


def stats_of(cells: Sequence[float], tuning: Mapping[str, Any]) -> dict[str, Any]:
    """The ``stats`` of a row from its cells: the sums, what follows from them, and the evidence on gates.

    ``variance = sum_rr_squared / n - avg_rr**2``, at least 0; ``edge_raw`` as `learning.edge` says. All 0, and no time
    efficiency, where n is 0. Names in alphabetical order.

    >>> found = stats_of([2, 3.0, 5.0, 2, 0.2, 4.0, 1.0, 3.0, 0.25, 7, 1, 1], {})
    >>> found["avg_rr"], found["variance"], found["win_rate"], found["time_efficiency"], found["avg_hold_days"]
    (1.5, 0.25, 1.0, 0.5, 1.5)
    """
    count, total, sum2, wins, roi, pnl, efficiency, hold, base, last, _, _ = cells
    n, won = int(count), int(wins)
    if n:
        mean = total / n
        variance = sum2 / n - mean * mean
        if variance < 0.0:
            variance = 0.0
        paced = efficiency / n
        edge, win_rate, avg_roi, avg_hold = edge_raw(mean, variance, n, base, paced), won / n, roi / n, hold / n
    else:
        mean = variance = edge = win_rate = avg_roi = avg_hold = 0.0
        paced = None
    return {
        "avg_hold_days": avg_hold,
        "avg_roi": avg_roi,
        "avg_rr": mean,
        "baseline": base,
        "edge_raw": edge,
        "last_ts": int(last),
        "n": n,
        "n_win": won,
        "pnl_usd": pnl,
        "sum_hold_days": hold,
        "sum_roi": roi,
        "sum_rr": total,
        "sum_rr_squared": sum2,
        "sum_time_efficiency": efficiency,
        "time_efficiency": paced,
        "tuning": tuning,
        "variance": variance,
        "win_rate": win_rate,
    }


def _slice(row: StatRow) -> Slice:
    return Slice(row.scope_hash, row.scope_mask, tuple(row.scope_values.items()), dict(row.scope_values))


def _parent(key: str) -> str:
    return key[: key.rfind("|") + 1]
