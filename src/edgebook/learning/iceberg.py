"""Every cell of any depth that has enough trades (an iceberg cube), by bottom-up partitioning.

BUC (Beyer & Ramakrishnan, SIGMOD 1999) splits the rows by one dim after the other, widest first, and follows only the
parts with enough rows. When a dim is a function of others, the same rows come back under many names; so by default
only closed cells are given: cells to which no dim can be added without losing a trade. Each is reached once, by
prefix-preserving closure extension (LCM: Uno, Asai, Uchida & Arimura, 2004). `expanded` names all cells that the closed
ones stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.errors import LearningError
from edgebook.kernels import kernel
from edgebook.learning.cells import BASIC, N_WIN, SUM_Y, SUM_Y2, Cells, N, canonical_order
from edgebook.learning.coded import Coded, Codes, Floats, Ints
from edgebook.learning.lattice import HALF_LIVES_DAYS, Run, checked, finished, table_of

Positions = NDArray[np.uint32]


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
    d, n = len(coded.dims), len(coded)
    paired = table.paired is not None
    width = BASIC + table.more.shape[1] + 4 * table.weights.shape[1] + 4 * paired
    widest = np.argsort([-width for width in table.widths], kind="stable")
    # Dim 0 of the search has one level that every row has: its cell is the root.
    digits = np.zeros((d + 1, n), dtype=np.uint32)  # unsigned: kernels need not look for negative positions
    digits[1:] = table.digits[widest]
    shifts = np.r_[0, table.shifts[widest]]
    widths = np.array([1, *(table.widths[j] for j in widest)], dtype=np.int64)
    rows = table.y, table.more, table.weights, table.cluster
    spans = [(1, d + 1)] if run is map or d == 0 else [(j, j + 1) for j in range(1, d + 1)]
    parts = list(run(lambda span: _search(digits, shifts, widths, *rows, support, closed, width, *span), spans))
    found, raw = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    codes = np.empty((len(found), d), dtype=np.int32)
    codes[:, widest] = found[:, 1:]
    order = canonical_order(codes)
    halves, further = tuple(half_lives_days), tuple(coded.further)
    sums = finished(raw[order], len(further), halves, clusters, paired)
    return Cells(coded.dims, coded.levels, further, halves, clusters, moment, support, codes[order], sums, closed)


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


@kernel
def _search(
    digits: Positions,
    shifts: Ints,
    widths: Ints,
    y: Floats,
    more: Floats,
    weights: Floats,
    cluster: Codes,
    support: int,
    closed: bool,
    width: int,
    first: int,
    end: int,
) -> tuple[Codes, Floats]:
    """Codes and sums of the cells, in the order they are found. Level L splits its rows by ``dim[L]``.

    Only cells whose first dim, in the order of the search, is in ``first..end-1``; the root belongs to ``first = 1``.
    """
    d, n = digits.shape
    most = widths.max()
    parts = min(most, n // support) + 1
    rows = np.empty((d + 1, n), dtype=np.uint32)
    rows[0] = np.arange(n)
    bounds = np.zeros((d + 1, 2), dtype=np.int64)
    bounds[0, 1] = n
    dim, turn, live = np.full(d + 1, -1), np.zeros(d + 1, dtype=np.int64), np.zeros(d + 1, dtype=np.int64)
    values, ends = np.empty((d + 1, parts), dtype=np.int64), np.empty((d + 1, parts), dtype=np.int64)
    slots, counts = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    added, cell = np.zeros(d + 1, dtype=np.int64), np.full(d, -1, dtype=np.int32)
    codes, kept, count, level = np.empty((1024, d), dtype=np.int32), np.empty((1024, width)), 0, 0
    while level >= 0:
        if turn[level] < live[level]:
            k = turn[level]
            turn[level] += 1
            start = bounds[level, 0] if k == 0 else ends[level, k - 1]
            segment = rows[level + 1, start : ends[level, k]]
            added[level + 1] = _named(digits, shifts, segment, dim[level], values[level, k], closed, cell)
            if added[level + 1] == 0:
                continue
            if level > 0 or first == 1:
                if count == len(codes):
                    codes, kept = _doubled(codes, kept)
                codes[count] = cell
                _summed(segment, y, more, weights, cluster, kept[count])
                count += 1
            level += 1
            bounds[level, 0], bounds[level, 1] = start, ends[level - 1, k]
            dim[level], turn[level], live[level] = dim[level - 1] if level > 1 else first - 1, 0, 0
            continue
        dim[level] += 1
        while dim[level] < d and cell[dim[level]] >= 0:
            dim[level] += 1
        if dim[level] >= (1 if level == 0 else end if level == 1 else d):
            for t in range(d):
                if added[level] >> t & 1:
                    cell[t] = -1
            level -= 1
            continue
        segment = rows[level, bounds[level, 0] : bounds[level, 1]]
        column, shift = digits[dim[level]], shifts[dim[level]]
        turn[level] = 0
        live[level] = _counted(column, widths[dim[level]], shift, segment, support, slots, counts, values[level])
        if live[level] > 0:
            _split(
                column, segment, slots, counts, values[level, : live[level]], ends[level], bounds[level, 0],
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
def _summed(rows: Positions, y: Floats, more: Floats, weights: Floats, cluster: Codes, sums: Floats) -> None:
    """The sums of ``rows``, which are sorted by cluster."""
    e, g = more.shape[1], sums.shape[0] - 4
    sums[:] = 0.0
    wins, total, squares = 0, 0.0, 0.0
    for i in rows:
        value = y[i]
        wins += value > 0.0
        total += value
        squares += value * value
    sums[N], sums[N_WIN], sums[SUM_Y], sums[SUM_Y2] = len(rows), wins, total, squares
    for k in range(e):
        for i in rows:
            sums[BASIC + k] += more[i, k]
    for k in range(weights.shape[1]):
        first, w1, w2, s1, s2 = BASIC + e + 4 * k, 0.0, 0.0, 0.0, 0.0
        for i in rows:
            w, value = weights[i, k], y[i]
            w1 += w
            w2 += w * w
            s1 += w * value
            s2 += w * value * value
        sums[first], sums[first + 1], sums[first + 2], sums[first + 3] = w1, w2, s1, s2
    if len(cluster) > 0:  # as in the lattice: what a row adds to the sums of the cluster it joins
        last, a, b = -1, 0.0, 0.0
        for i in rows:
            same = 1.0 if cluster[i] == last else 0.0
            last = cluster[i]
            a, b, value = a * same, b * same, y[i]
            sums[g] -= same
            sums[g + 1] += 2.0 * a * value
            sums[g + 2] += a + b * value
            sums[g + 3] += 2.0 * b
            a += value
            b += 1.0


@kernel
def _named(digits: Positions, shifts: Ints, rows: Positions, dim: int, value: int, closed: bool, cell: Codes) -> int:
    """Put ``value`` into ``cell``, and for closed cells every dim on which all ``rows`` agree; bits of what was put.

    0, and nothing put, when they agree on a dim before ``dim`` that the cell does not name: another way leads here.
    """
    cell[dim] = value - shifts[dim]
    added = 1 << dim
    if not closed:
        return added
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
