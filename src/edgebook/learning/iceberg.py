"""Every cell of any depth that has enough trades (an iceberg cube), by bottom-up partitioning.

BUC (Beyer & Ramakrishnan, SIGMOD 1999) splits the rows by one dim after the other, widest first, and follows only the
parts with enough rows. As soon as every cell over the dims left fits a small table, the rows are not split further:
they fill the table once, and the levels of each dim in turn are added up (array cube: Zhao, Deshpande & Naughton,
SIGMOD 1997).

When a dim is a function of others, the same rows come back under many names; so by default only closed cells are given:
cells to which no dim can be added without losing a trade. Each is reached once, by prefix-preserving closure extension
(LCM: Uno, Asai, Uchida & Arimura, 2004). `expanded` names all cells that the closed ones stand for. What rows agree on
does not add up, and neither do sums of clusters: for these the rows are split to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.errors import LearningError
from edgebook.kernels import kernel
from edgebook.learning.cells import BASIC, N_WIN, SUM_Y, SUM_Y2, Cells, N, canonical_order
from edgebook.learning.coded import Coded, Codes, Floats, Ints
from edgebook.learning.lattice import HALF_LIVES_DAYS, Run, Table, checked, finished, table_of

Positions = NDArray[np.uint32]

# Most cells of a cube, in all and per row that fills it: beyond, splitting the rows once more is cheaper.
_MOST_CELLS, _CELLS_PER_ROW = 2048, 4


class _Cubes(NamedTuple):
    """Dense tables over the last dims of the search, cube t over dims t..d-1: mixed radix, the last running fastest.

    Digit 0 of a dim means all its levels, and is where a row without a value goes; digit k + 1 is level k. So a cell
    has the same number in every cube it is in.
    """

    sizes: Ints  # (d + 1) cells of each cube; 0 where there is none
    keys: Positions  # (d + 1, n) the cell each row fills
    scopes: Codes  # (cells, d) codes of the cells of the largest cube


def iceberg(
    coded: Coded,
    support: int = 33,
    half_lives_days: Sequence[float] = HALF_LIVES_DAYS,
    at: int | None = None,
    clusters: bool = True,
    closed: bool = True,
    run: Run = map,
) -> Cells:
    """Cells of every depth with ``support`` trades or more; other arguments and errors as in `lattice`.

    Args:
        closed: only the closed cells; False for all of them.

    >>> from edgebook.learning.coded import encode
    >>> coded = encode({"a": ["x", "x", "y"], "b": [1, 1, 1]}, [1.0, 2.0, 4.0], [0, 0, 0])
    >>> [(scope, sums["n"]) for _, scope, sums in iceberg(coded, support=2).rows()]
    [({'b': 1}, 3.0), ({'a': 'x', 'b': 1}, 2.0)]
    >>> len(iceberg(coded, support=2, closed=False))
    4
    """
    moment = checked(coded, support, half_lives_days, at)
    table = table_of(coded, half_lives_days, moment, clusters)
    order = np.argsort([-width for width in table.widths], kind="stable")  # of the search
    digits = table.digits[order].astype(np.uint32)  # unsigned: kernels need not look for negative positions
    shifts, widths = table.shifts[order], np.array(table.widths, dtype=np.int64)[order]
    to_the_end = closed or table.paired is not None
    cubes = _cubes(digits, shifts, widths, 1 if to_the_end else min(_MOST_CELLS, _CELLS_PER_ROW * len(coded)))
    rows = digits, _values(table), table.cluster
    firsts = range(int(np.argmax(cubes.sizes > 0)) + 1)  # the last stands for the root's own cube
    parts = list(run(lambda first: _search(order, shifts, widths, cubes, *rows, support, closed, first), firsts))
    codes, raw = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    ranked = canonical_order(codes)
    codes, raw = codes.take(ranked, axis=0), raw.take(ranked, axis=0)
    halves, further = tuple(half_lives_days), tuple(coded.further)
    sums = finished(raw, len(further), halves, clusters, table.paired is not None)
    return Cells(coded.dims, coded.levels, further, halves, clusters, moment, support, codes, sums, closed)


def expanded(cells: Cells, most: int = 10_000_000) -> Cells:
    """All cells that closed ``cells`` stand for: a cell has the sums of the closed cell with the same trades.

    That is, of all closed cells that name its values, the one with the most trades.

    Raises:
        LearningError: more than ``most`` cells, or more combinations of levels than 63 bits can number; ``iceberg``
            with ``closed=False`` has no such limit.
    """
    order = np.argsort(-cells.sums[:, N], kind="stable")
    codes = np.ascontiguousarray(cells.codes[order])
    strides, size = np.empty(len(cells.dims), dtype=np.int64), 1
    for j, width in enumerate((codes.max(0) + 2).tolist() if len(codes) else []):
        strides[j] = size
        size *= width
    if size >= 1 << 63:
        raise LearningError(f"{size} combinations of levels are too many to number; use iceberg with closed=False")
    source, parts = _subsets(codes, strides, most)
    if len(source) > most:
        raise LearningError(f"the closed cells stand for more than {most} cells")
    bits = np.arange(len(cells.dims), dtype=np.int64)
    named = np.where(parts[:, None] >> bits & 1, codes[source], np.int32(-1)).astype(np.int32)
    canonical = canonical_order(named)
    sums = cells.sums[order][source[canonical]]
    return replace(cells, codes=named[canonical], sums=sums, closed=False)


def _values(table: Table) -> Floats:
    """(n, c) what each row adds to the sums: 1, win, y, y^2, the further columns, w, w^2, w y, w y^2 per half-life."""
    y, first = table.y, BASIC + table.more.shape[1]
    values = np.empty((len(y), first + 4 * table.weights.shape[1]))
    values[:, N], values[:, N_WIN], values[:, SUM_Y], values[:, SUM_Y2] = 1.0, y > 0.0, y, y * y
    values[:, BASIC:first] = table.more
    for k, w in enumerate(table.weights.T):
        values[:, first + 4 * k : first + 4 * k + 4] = np.stack([w, w * w, w * y, w * y * y], axis=1)
    return values


def _cubes(digits: Positions, shifts: Ints, widths: Ints, most: int) -> _Cubes:
    """The cubes of at most ``most`` cells; that of no dims, one cell, is always there."""
    d, n = digits.shape
    sizes, keys = np.zeros(d + 1, dtype=np.int64), np.zeros((d + 1, n), dtype=np.uint32)
    sizes[d], t = 1, d
    while t > 0 and sizes[t] * (widths[t - 1] - shifts[t - 1] + 1) <= most:
        t -= 1
        sizes[t] = sizes[t + 1] * (widths[t] - shifts[t] + 1)
        keys[t] = keys[t + 1] + (digits[t] + np.uint32(1 - shifts[t])) * np.uint32(sizes[t + 1])
    scopes = np.full((sizes[t], d), -1, dtype=np.int32)
    for s in range(t, d):
        scopes[:, s] = np.arange(len(scopes)) % sizes[s] // sizes[s + 1] - 1
    return _Cubes(sizes, keys, scopes)


@kernel
def _search(
    order: Ints,
    shifts: Ints,
    widths: Ints,
    cubes: _Cubes,
    digits: Positions,
    values: Floats,
    cluster: Codes,
    support: int,
    closed: bool,
    first: int,
) -> tuple[Codes, Floats]:
    """Codes and sums of the cells whose first dim is ``first``, in the order they are found.

    Dims are in the order of the search. Level L of it splits its rows by ``dim[L]``, one dim after the other, until a
    cube takes the dims left; the root's cube belongs to the dim it starts with.
    """
    d, n = digits.shape
    most = max(1, widths.max()) if d > 0 else 1
    parts = min(most, n // support) + 1
    rows = np.empty((d + 1, n), dtype=np.uint32)
    rows[0] = np.arange(n)
    bounds = np.zeros((d + 1, 2), dtype=np.int64)
    bounds[0, 1] = n
    dim, turn, live = np.full(d + 1, first - 1), np.zeros(d + 1, dtype=np.int64), np.zeros(d + 1, dtype=np.int64)
    found, ends = np.empty((d + 1, parts), dtype=np.int64), np.empty((d + 1, parts), dtype=np.int64)
    slots, counts = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    added, cell = np.zeros(d + 1, dtype=np.int64), np.full(d, -1, dtype=np.int32)
    cube = np.empty((cubes.sizes.max(), values.shape[1] + (4 if len(cluster) > 0 else 0)))
    codes, kept, count = np.empty((1024, d), dtype=np.int32), np.empty((1024, cube.shape[1])), 0
    level = 0 if n >= support else -1
    if closed and n > 0:
        _named(digits, shifts, rows[0], -1, cell)
    while level >= 0:
        if turn[level] < live[level]:
            t, k = dim[level], turn[level]
            turn[level] += 1
            start = bounds[level, 0] if k == 0 else ends[level, k - 1]
            cell[t], added[level + 1] = found[level, k] - shifts[t], 1 << t
            if closed:
                added[level + 1] = _named(digits, shifts, rows[level + 1, start : ends[level, k]], t, cell)
            if added[level + 1] != 0:
                level += 1
                bounds[level, 0], bounds[level, 1] = start, ends[level - 1, k]
                dim[level], turn[level], live[level] = t, 0, 0
            continue
        dim[level] += 1
        t, segment = dim[level], rows[level, bounds[level, 0] : bounds[level, 1]]
        if level == 0 and t > first:
            break
        if t == d or 0 < cubes.sizes[t] <= _CELLS_PER_ROW * len(segment):
            size = cubes.sizes[t]
            if size > 1:
                _cubed(segment, cubes.sizes[t:], cubes.keys[t], values, cube[:size])
            else:
                _summed(segment, values, cluster, cube[0])
            while count + size > len(codes):
                codes, kept = _doubled(codes, kept)
            count += _taken(cube[:size], cubes.scopes, order, cell, support, codes[count:], kept[count:])
            for s in range(d):
                if added[level] >> s & 1:
                    cell[s] = -1
            level -= 1
        elif cell[t] < 0:
            turn[level] = 0
            live[level] = _counted(digits[t], widths[t], shifts[t], segment, support, slots, counts, found[level])
            if live[level] > 0:
                _split(
                    digits[t], segment, slots, counts, found[level, : live[level]], ends[level], bounds[level, 0],
                    rows[level + 1],
                )  # fmt: skip
    return codes[:count], kept[:count]


@kernel
def _counted(
    column: Positions, width: int, shift: int, rows: Positions, support: int, slots: Ints, counts: Ints, values: Ints
) -> int:
    """Find the values of a dim with enough of ``rows``: list them, and give each a slot (-1 for the others)."""
    if width < len(rows):
        counts[:width] = 0
        slots[:width] = -1
    else:
        for i in rows:
            counts[column[i]] = 0
            slots[column[i]] = -1
    live = 0
    for i in rows:
        value = column[i]
        counts[value] += 1
        if counts[value] == support and value >= shift:
            slots[value] = live
            values[live] = value
            live += 1
    return live


@kernel
def _split(
    column: Positions,
    rows: Positions,
    slots: Ints,
    counts: Ints,
    values: Ints,
    ends: Ints,
    start: int,
    below: Positions,
) -> None:
    """Write the rows of each listed value to ``below``, value by value, in the order they have."""
    place = start
    for k in range(len(values)):
        ends[k] = place  # moves on as rows are written
        place += counts[values[k]]
    for i in rows:
        k = slots[column[i]]
        if k >= 0:
            below[ends[k]] = i
            ends[k] += 1


@kernel
def _cubed(rows: Positions, sizes: Ints, keys: Positions, values: Floats, cube: Floats) -> None:
    """Fill a cube with ``rows``, then add the levels of each dim to the cells of all its levels."""
    columns = values.shape[1]
    cube[:] = 0.0
    for i in rows:
        to, row = cube[keys[i]], values[i]
        for c in range(columns):
            to[c] += row[c]
    for t in range(len(sizes) - 1):
        split = cube.reshape(sizes[0] // sizes[t], sizes[t] // sizes[t + 1], sizes[t + 1] * columns)
        for k in range(split.shape[0]):
            for level in range(1, split.shape[1]):
                for i in range(split.shape[2]):
                    split[k, 0, i] += split[k, level, i]


@kernel
def _summed(rows: Positions, values: Floats, cluster: Codes, sums: Floats) -> None:
    """The sums of ``rows``, which are sorted by cluster; four columns at a time, the last may overlap those before."""
    columns = values.shape[1]
    for column in range(0, columns, 4):
        c = min(column, columns - 4)
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for i in rows:
            s0 += values[i, c]
            s1 += values[i, c + 1]
            s2 += values[i, c + 2]
            s3 += values[i, c + 3]
        sums[c], sums[c + 1], sums[c + 2], sums[c + 3] = s0, s1, s2, s3
    if len(cluster) > 0:  # as in the lattice: what a row adds to the sums of the cluster it joins
        last, a, b, lost, aa, ab, bb = -1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in rows:
            same, value = 1.0 if cluster[i] == last else 0.0, values[i, SUM_Y]
            last = cluster[i]
            a, b = a * same, b * same
            lost, aa, ab, bb = lost - same, aa + 2.0 * a * value, ab + (a + b * value), bb + 2.0 * b
            a, b = a + value, b + 1.0
        sums[columns], sums[columns + 1], sums[columns + 2], sums[columns + 3] = lost, aa, ab, bb


@kernel
def _taken(cube: Floats, scopes: Codes, order: Ints, cell: Codes, support: int, codes: Codes, kept: Floats) -> int:
    """Copy the cells of a cube with enough rows to ``codes`` and ``kept``; how many there are."""
    count = 0
    for key in range(len(cube)):
        if cube[key, N] >= support:
            for t in range(len(order)):
                codes[count, order[t]] = max(cell[t], scopes[key, t])
            for c in range(cube.shape[1]):
                kept[count, c] = cube[key, c]
            count += 1
    return count


@kernel
def _named(digits: Positions, shifts: Ints, rows: Positions, dim: int, cell: Codes) -> int:
    """Name in ``cell`` every dim on which all ``rows`` agree; bits of these and of ``dim``, which it names already.

    0, and ``dim`` no longer named, when they agree on a dim before it that the cell does not name: another way leads
    here. For the root ``dim`` is -1.
    """
    added = 1 << dim if dim >= 0 else 0
    for t in range(digits.shape[0]):
        first = digits[t, rows[0]]
        if cell[t] >= 0 or first < shifts[t]:
            continue
        equal = True
        for i in rows:
            if digits[t, i] != first:
                equal = False
                break
        if equal and t < dim:
            cell[dim] = -1
            return 0
        if equal:
            cell[t] = first - shifts[t]
            added |= 1 << t
    return added


@kernel
def _doubled(codes: Codes, kept: Floats) -> tuple[Codes, Floats]:
    """Copies with room for twice as many cells."""
    n = len(codes)
    more_codes, more_kept = np.empty((2 * n, codes.shape[1]), dtype=np.int32), np.empty((2 * n, kept.shape[1]))
    more_codes[:n] = codes
    more_kept[:n] = kept
    return more_codes, more_kept


@kernel
def _subsets(codes: Codes, strides: Ints, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Different subsets of the cells: the first cell each occurs in, and its mask. Stops beyond ``most``.

    The subsets of a subset that is known are known, or wait to be looked at: there is no need to go there again.
    """
    d = codes.shape[1]
    size, count = 1 << 12, 0
    slots, keys = np.full(size, -1, dtype=np.int64), np.empty(size // 2, dtype=np.int64)
    source, masks = np.empty(size // 2, dtype=np.int64), np.empty(size // 2, dtype=np.int64)
    waiting = np.empty((d * (d + 1) // 2 + 1, 2), dtype=np.int64)  # masks and keys of subsets to look at
    for cell in range(len(codes)):
        waiting[0] = 0
        for j in range(d):
            if codes[cell, j] >= 0:
                waiting[0, 0] |= 1 << j
                waiting[0, 1] += (codes[cell, j] + 1) * strides[j]
        depth = 1
        while depth > 0:
            depth -= 1
            part, key = waiting[depth, 0], waiting[depth, 1]
            slot = (key * 0x1E3779B97F4A7C15 >> 20) & (size - 1)
            while slots[slot] >= 0 and keys[slots[slot]] != key:
                slot = (slot + 1) & (size - 1)
            if slots[slot] >= 0:
                continue
            slots[slot] = count
            keys[count], source[count], masks[count] = key, cell, part
            count += 1
            if count > most:
                return source[:count], masks[:count]
            if 2 * count == size:
                size *= 2
                keys, source, masks = _longer(keys), _longer(source), _longer(masks)
                slots = _slotted(keys, count, size)
            for j in range(d):
                if part >> j & 1:
                    waiting[depth, 0] = part & ~(1 << j)
                    waiting[depth, 1] = key - (codes[cell, j] + 1) * strides[j]
                    depth += 1
    return source[:count], masks[:count]


@kernel
def _longer(values: Ints) -> Ints:
    out = np.empty(2 * len(values), dtype=np.int64)
    out[: len(values)] = values
    return out


@kernel
def _slotted(keys: Ints, count: int, size: int) -> Ints:
    """A hash table of ``size`` slots for the first ``count`` keys."""
    slots = np.full(size, -1, dtype=np.int64)
    for k in range(count):
        slot = (keys[k] * 0x1E3779B97F4A7C15 >> 20) & (size - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = k
    return slots
