"""Trades by id and the cells they add up to, kept equal while trades come, come late, or are corrected.

All sums add over clusters. So an update costs what it touches: the cells of the touched clusters as they are now, minus
the cells of the same clusters as they were (learning.md 9.1, 9.8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgebook.domain.decay import DAY
from edgebook.domain.errors import LearningError
from edgebook.domain.scope import ScopeValue
from edgebook.kernels import kernel
from edgebook.learning.cells import BASIC, N_WIN, SUM_Y, SUM_Y2, Cells, N, canonical_order, column_names, fading
from edgebook.learning.coded import Coded, Codes, Column, Floats, Ints, check_columns, is_absent, level_order, plain
from edgebook.learning.lattice import HALF_LIVES_DAYS, lattice_at

A = TypeVar("A", bound=NDArray[Any])
# Up to this many rows (times subsets: cells to find one by one) are added row by row; more go through the lattice.
_FEW = 96


class _Rows(NamedTuple):
    """Trades of an update under the book's codes; the columns of ``values`` are y and the further ones."""

    codes: Codes
    values: Floats
    ts: Ints
    cluster: Ints

    def take(self, rows: NDArray[Any]) -> _Rows:
        return _Rows(self.codes[rows], self.values[rows], self.ts[rows], self.cluster[rows])


class CellBook:
    """The cells of every trade told so far, one version of each trade by id.

    Args:
        dims, depth, half_lives_days, clusters: as in `lattice`.
        further: names of the further columns that every update brings.

    Sums differ from a rebuild by rounding only: about 1e-16 of the largest value a cell has held, per update. That is
    absolute for decayed moments, whose weights are at most 1: a cell that loses its young trades to a correction keeps
    of the old ones what stands above that.
    """

    def __init__(
        self,
        dims: Sequence[str],
        depth: int = 3,
        half_lives_days: Sequence[float] = HALF_LIVES_DAYS,
        clusters: bool = True,
        further: Sequence[str] = (),
    ) -> None:
        self.dims, self.further = tuple(dims), tuple(further)
        self.depth, self.half_lives_days, self.clusters = depth, tuple(half_lives_days), clusters
        self.at: int | None = None
        d, e = len(self.dims), len(self.further)
        self._numbers: list[dict[ScopeValue, int]] = [{} for _ in self.dims]  # code of each level, as they came
        self._slots: dict[str, int] = {}
        self._clusters: dict[int, int] = {}
        # One row per trade: codes, y and further values, time, number of its cluster, next trade of that cluster.
        self._codes, self._values = np.empty((0, d), np.int32), np.empty((0, 1 + e))
        self._ts, self._cluster, self._next = (np.empty(0, np.int64) for _ in range(3))
        self._heads = np.empty(0, np.int64)  # first trade of each cluster, -1 for none
        # One row per cell that was ever counted (all zeros when it has no trade any more), found by hash.
        width = len(column_names(self.further, self.half_lives_days, clusters))
        self._cells, self._sums, self._count = np.empty((0, d), np.int32), np.empty((0, width)), 0
        self._table = np.full(8, -1, np.int64)
        self._origin = 0  # the moment the weights are for
        every = (part for size in range(min(depth, d) + 1) for part in combinations(range(d), size))
        self._subsets = np.array([sum(1 << j for j in part) for part in every], dtype=np.int64)

    def __len__(self) -> int:
        """Trades."""
        return len(self._slots)

    def update(
        self,
        at: int,
        ids: Sequence[str],
        columns: Mapping[str, Column],
        y: ArrayLike,
        ts: ArrayLike,
        cluster: ArrayLike,
        further: Mapping[str, ArrayLike] | None = None,
    ) -> int:
        """Take trades in, in any order; how many were new or differ from what the book had.

        Args:
            at: moment of the update, microseconds: not before the last update, no trade closes after it.
            ids: one per trade. A known id replaces its trade; of the same id twice the last counts.
            columns, y, ts, cluster, further: as in ``encode``; the cluster has to be told.

        Raises:
            LearningError: dims or further columns that are not the book's, an earlier moment, or what `Coded` refuses.
                The book is then as before.
        """
        new = self._rows(columns, y, ts, cluster, further or {})
        if len(ids) != len(new.ts):
            raise LearningError(f"{len(ids)} ids were given for {len(new.ts)} trades")
        if self.at is not None and at < self.at:
            raise LearningError(f"the book is at moment {self.at}; an update cannot be at {at}, before it")
        if len(ids) and int(new.ts.max()) > at:
            row = int(np.argmax(new.ts))
            raise LearningError(f"row {row} (id {ids[row]}) closes at {new.ts[row]}, after the moment {at}")
        last = {name: row for row, name in enumerate(ids)}
        rows = np.fromiter(last.values(), np.int64, len(last))
        slots = np.fromiter((self._slots.get(name, -1) for name in last), np.int64, len(last))
        number = self._clusters
        own = [number.setdefault(c, len(number)) for c in new.cluster[rows].tolist()]
        new = new.take(rows)._replace(cluster=np.array(own, dtype=np.int64))
        changed = slots < 0
        old = np.flatnonzero(~changed)
        s = slots[old]
        changed[old] = (self._codes[s] != new.codes[old]).any(1) | (self._values[s] != new.values[old]).any(1)
        changed[old] |= (self._ts[s] != new.ts[old]) | (self._cluster[s] != new.cluster[old])
        self._move_to(at)
        if changed.any():
            names = [name for name, differs in zip(last, changed.tolist(), strict=True) if differs]
            self._replace(names, slots[changed], new.take(changed))
        return int(changed.sum())

    def cells(self, support: int = 1, at: int | None = None) -> Cells:
        """The cells with ``support`` trades or more, equal to `lattice` over the trades of the book.

        Args:
            at: moment of the decayed moments; by default that of the last update, never before it.
        """
        live = self._sums[: self._count, N] > 0
        codes, sums = self._cells[: self._count][live], self._sums[: self._count][live]
        numbers = [np.unique(column[column >= 0]) for column in codes.T]
        names = [list(known) for known in self._numbers]
        levels = tuple(
            tuple(sorted((name[code] for code in own.tolist()), key=level_order))
            for own, name in zip(numbers, names, strict=True)
        )
        for j, (own, name) in enumerate(zip(numbers, names, strict=True)):
            place = {value: code for code, value in enumerate(levels[j])}
            table = np.full(len(name) + 1, -1, dtype=np.int32)
            table[own] = [place[name[code]] for code in own.tolist()]
            codes[:, j] = table[codes[:, j]]
        order = canonical_order(codes)
        moment = self.at or 0
        if at is not None and at < moment:
            raise LearningError(f"the book is at moment {moment}; its cells cannot be for {at}, before it")
        made = Cells(
            self.dims,
            levels,
            self.further,
            self.half_lives_days,
            self.clusters,
            self._origin,
            1,
            codes[order],
            sums[order],
        ).decayed_to(moment if at is None else at)
        return made.at_least(support) if support > 1 else made

    def _rows(
        self,
        columns: Mapping[str, Column],
        y: ArrayLike,
        ts: ArrayLike,
        cluster: ArrayLike,
        further: Mapping[str, ArrayLike],
    ) -> _Rows:
        """The trades under the book's codes; a value not seen before gets the next code of its dim."""
        if set(columns) != set(self.dims) or set(further) != set(self.further):
            told = f"dims {', '.join(columns)} and further columns {', '.join(further) or 'none'}"
            kept = f"{', '.join(self.dims)} and {', '.join(self.further) or 'none'}"
            raise LearningError(f"the update has {told}; the book has {kept}")
        outcome, times = np.asarray(y, dtype=np.float64), np.asarray(ts, dtype=np.int64)
        own = np.asarray(cluster, dtype=np.int64)
        sums = {name: np.asarray(further[name], dtype=np.float64) for name in self.further}
        check_columns(outcome, times, own, sums)
        codes = np.empty((len(outcome), len(self.dims)), dtype=np.int32)
        for j, dim in enumerate(self.dims):
            cells, numbers = plain(dim, columns[dim]), self._numbers[j]
            if len(cells) != len(outcome):
                raise LearningError(f"column {dim} must have {len(outcome)} values, one per y, had {len(cells)}")
            number: dict[ScopeValue | None, int] = {}
            for value in dict.fromkeys(cells):
                number[value] = -1 if value is None or is_absent(value) else numbers.setdefault(value, len(numbers))
            codes[:, j] = np.fromiter(map(number.__getitem__, cells), np.int32, len(cells))
        return _Rows(codes, np.column_stack([outcome, *sums.values()]), times, own)

    def _move_to(self, at: int) -> None:
        """Let time pass. The weights stay those of an earlier moment, as long as none grows beyond 2."""
        shortest = min(self.half_lives_days, default=math.inf)
        if self.at is None or (at - self._origin) / DAY > shortest:
            for h, half_life in enumerate(self.half_lives_days):
                first = BASIC + len(self.further) + 4 * h
                self._sums[: self._count, first : first + 4] *= fading(at - self._origin, half_life)
            self._origin = at
        self.at = at

    def _replace(self, names: list[str], slots: Ints, new: _Rows) -> None:
        """Put trades in the place of those in ``slots`` (-1: none) and the difference into the cells."""
        self._heads = _room(self._heads, len(self._clusters), -1)
        known = slots[slots >= 0]
        touched = np.unique(np.concatenate([new.cluster, self._cluster[known]]))
        found = self._add(_members(self._heads, self._next, touched), -1.0)
        _unlink(self._heads, self._next, self._cluster, known)
        fresh = np.flatnonzero(slots < 0)
        slots[fresh] = len(self._slots) + np.arange(len(fresh))
        self._slots.update((names[i], slot) for i, slot in zip(fresh.tolist(), slots[fresh].tolist(), strict=True))
        rows = len(self._slots)
        self._codes, self._values = _room(self._codes, rows, -1), _room(self._values, rows, 0)
        self._ts, self._cluster = _room(self._ts, rows, 0), _room(self._cluster, rows, 0)
        self._next = _room(self._next, rows, -1)
        self._codes[slots], self._values[slots], self._ts[slots], self._cluster[slots] = new
        _link(self._heads, self._next, self._cluster, slots)
        self._add(_members(self._heads, self._next, touched), 1.0)
        gone = found[self._sums[found, N] == 0]
        if len(gone):
            self._sums[gone] = 0.0
            live = self._sums[: self._count, N] > 0
            if 2 * int(live.sum()) < self._count:
                self._compact(live)

    def _add(self, slots: Ints, sign: float) -> Ints:
        """Add the cells of the trades in ``slots``, whole clusters, to the book, or take them away; the cells' rows."""
        if len(slots) <= _FEW:
            self._reserve(len(slots) * len(self._subsets))
            values, age = self._values[slots], (self._ts[slots] - self._origin) / DAY
            weights = np.exp2(age[:, None] / np.array(self.half_lives_days))
            found, self._count = _touch(
                self._table, self._cells, self._sums, self._count, self._subsets, self._codes[slots],
                values, weights, self._cluster[slots], self.clusters, sign,
            )  # fmt: skip
            return found
        values, levels = self._values[slots], tuple(tuple(range(len(numbers))) for numbers in self._numbers)
        further = {name: values[:, 1 + e] for e, name in enumerate(self.further)}
        codes = np.asfortranarray(self._codes[slots])
        coded = Coded(self.dims, levels, codes, values[:, 0], self._ts[slots], self._cluster[slots], further)
        part = lattice_at(coded, self.depth, 1, self.half_lives_days, self._origin, self.clusters)
        self._reserve(len(part))
        found, self._count = _locate(self._table, self._cells, self._count, part.codes)
        self._sums[found] += sign * part.sums
        return found

    def _reserve(self, more: int) -> None:
        """Room for ``more`` cells; the hash table stays at most half full."""
        size = self._count + more
        self._cells, self._sums = _room(self._cells, size, -1), _room(self._sums, size, 0)
        if 2 * size > len(self._table):
            self._table = np.full(1 << (4 * size).bit_length(), -1, np.int64)
            _locate(self._table, self._cells, 0, self._cells[: self._count])

    def _compact(self, live: NDArray[np.bool_]) -> None:
        cells, sums = self._cells[: self._count][live], self._sums[: self._count][live]
        self._table = np.full(1 << (4 * len(cells) + 4).bit_length(), -1, np.int64)
        self._cells, self._sums = np.empty_like(self._cells), np.zeros_like(self._sums)
        self._sums[: len(sums)] = sums
        _, self._count = _locate(self._table, self._cells, 0, cells)


def _room(values: A, rows: int, blank: int) -> A:
    """``values`` with room for ``rows`` rows, and for half as many again when it was short."""
    if rows <= len(values):
        return values
    out = np.full((rows + rows // 2, *values.shape[1:]), blank, dtype=values.dtype)
    out[: len(values)] = values
    return cast(A, out)


@kernel
def _members(heads: Ints, following: Ints, clusters: Ints) -> Ints:
    """Slots of the trades of ``clusters``, cluster by cluster."""
    count = 0
    for c in clusters:
        slot = heads[c]
        while slot >= 0:
            count += 1
            slot = following[slot]
    out = np.empty(count, dtype=np.int64)
    count = 0
    for c in clusters:
        slot = heads[c]
        while slot >= 0:
            out[count] = slot
            count += 1
            slot = following[slot]
    return out


@kernel
def _link(heads: Ints, following: Ints, cluster: Ints, slots: Ints) -> None:
    """Put trades at the head of their clusters' chains."""
    for slot in slots:
        following[slot] = heads[cluster[slot]]
        heads[cluster[slot]] = slot


@kernel
def _unlink(heads: Ints, following: Ints, cluster: Ints, slots: Ints) -> None:
    """Take trades out of their clusters' chains."""
    for slot in slots:
        here = heads[cluster[slot]]
        if here == slot:
            heads[cluster[slot]] = following[slot]
            continue
        while following[here] != slot:
            here = following[here]
        following[here] = following[slot]


@kernel
def _locate(table: Ints, cells: Codes, count: int, codes: Codes) -> tuple[Ints, int]:
    """Row of each of ``codes`` among the first ``count`` of ``cells``; those not there are added. Also the new count.

    ``table`` is an open-addressing hash table of rows, -1 where free; it and ``cells`` must have room.
    """
    found = np.empty(len(codes), dtype=np.int64)
    for i in range(len(codes)):
        key = 0
        for j in range(codes.shape[1]):
            if codes[i, j] >= 0:
                key += _part(j, codes[i, j])
        found[i] = _row(table, cells, codes[i], -1, key)
        if found[i] < 0:
            cells[count] = codes[i]
            table[-1 - found[i]] = count
            found[i] = count
            count += 1
    return found, count


@kernel
def _part(dim: int, code: int) -> int:
    """What a level adds to the hash of a cell: mixed so that sums over dims seldom meet."""
    key = (code * 64 + dim + 1) * 0x1E3779B97F4A7C15
    key = (key ^ (key >> 29)) * 0x3F58476D1CE4E5B9
    return key ^ (key >> 32)


@kernel
def _row(table: Ints, cells: Codes, codes: Codes, mask: int, key: int) -> int:
    """Row of the cell with ``codes`` in the dims of ``mask`` and no others; -1 - (its free place in ``table``)."""
    size = len(table)
    slot = (key ^ (key >> 20)) & (size - 1)
    while table[slot] >= 0:
        row = int(table[slot])
        equal = True
        for j in range(len(codes)):
            if cells[row, j] != (codes[j] if mask >> j & 1 else -1):
                equal = False
                break
        if equal:
            return row
        slot = (slot + 1) & (size - 1)
    return -1 - slot


@kernel
def _touch(
    table: Ints,
    cells: Codes,
    sums: Floats,
    count: int,
    subsets: Ints,
    codes: Codes,
    values: Floats,
    weights: Floats,
    cluster: Ints,
    clusters: bool,
    sign: float,
) -> tuple[Ints, int]:
    """Add a few rows, sorted by cluster, to every cell they lie in; the cells' rows and the new number of cells."""
    n, d = codes.shape
    parts, found = np.empty((n, d), dtype=np.int64), np.empty(n * len(subsets), dtype=np.int64)
    present, rows, done = np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64), 0
    for i in range(n):
        for j in range(d):
            parts[i, j] = _part(j, codes[i, j])
            present[i] |= (1 << j) if codes[i, j] >= 0 else 0
    for mask in subsets:
        for i in range(n):
            rows[i] = -1
            if mask & ~present[i]:
                continue
            key = 0
            for j in range(d):
                key += parts[i, j] if mask >> j & 1 else 0
            rows[i] = _row(table, cells, codes[i], mask, key)
            if rows[i] < 0:
                for j in range(d):
                    cells[count, j] = codes[i, j] if mask >> j & 1 else -1
                table[-1 - rows[i]] = count
                rows[i] = count
                count += 1
            _add_row(sums[rows[i]], values[i], weights[i], sign)
            found[done] = rows[i]
            done += 1
        if clusters:
            _add_clusters(sums, rows, values, cluster, sign)
    return found[:done], count


@kernel
def _add_row(cell: Floats, values: Floats, weights: Floats, sign: float) -> None:
    y, e = values[0], len(values) - 1
    cell[N] += sign
    cell[N_WIN] += sign if y > 0.0 else 0.0
    cell[SUM_Y] += sign * y
    cell[SUM_Y2] += sign * y * y
    for k in range(e):
        cell[BASIC + k] += sign * values[1 + k]
    for k in range(len(weights)):
        w, first = weights[k], BASIC + e + 4 * k
        cell[first] += sign * w
        cell[first + 1] += sign * w * w
        cell[first + 2] += sign * w * y
        cell[first + 3] += sign * w * y * y


@kernel
def _add_clusters(sums: Floats, rows: Ints, values: Floats, cluster: Ints, sign: float) -> None:
    """Cluster sums of one subset; ``rows`` are the cells of the trades, -1 for trades already looked at or in none."""
    g = sums.shape[1] - 4
    for i in range(len(rows)):
        row, a, b = rows[i], 0.0, 0.0
        if row < 0:
            continue
        k = i
        while k < len(rows) and cluster[k] == cluster[i]:
            if rows[k] == row:
                a += values[k, 0]
                b += 1.0
                rows[k] = -1
            k += 1
        sums[row, g] += sign
        sums[row, g + 1] += sign * a * a
        sums[row, g + 2] += sign * a * b
        sums[row, g + 3] += sign * b * b
