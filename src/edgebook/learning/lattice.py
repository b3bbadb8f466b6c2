"""The lattice: statistics of every scope subset of at most ``depth`` dims, from codes (learning.md 3, 9.1, 9.8).

Rows are not read once per subset. A greedy cover picks a few wide sets of dims (blocks) whose dense table fits the
cache and that together contain every subset; rows fill the blocks, and each subset is rolled up from the smallest
table that contains it (cascading re-aggregation). Subsets too large for a dense table number only the combinations
that occur. Cluster sums do not roll up, a cluster may lie in several cells: each subset gets one pass over the rows
of clusters with more than one trade, sorted by cluster, with an open accumulator per cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.decay import DAY
from edgebook.domain.errors import LearningError
from edgebook.kernels import kernel
from edgebook.learning.cells import BASIC, N_WIN, SUM_Y, SUM_Y2, Cells, N, cluster_variance, column_names, edges
from edgebook.learning.coded import Coded, Codes, Floats, Ints, encode

__all__ = ["HALF_LIVES_DAYS", "Cells", "Coded", "cluster_variance", "column_names", "edges", "encode", "lattice"]

#: ``map``, or the ``map`` of a pool.
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

HALF_LIVES_DAYS = (10.0, 40.0, math.inf)

# Cells of a block: few enough to stay in cache, and no more than rows, or rolling up costs more than reading rows.
_BLOCK_VALUES = 1 << 17
_SMALLEST_BLOCK = 512
# Cells a single subset may have as a dense table: twice the rows, within these bounds.
_DENSE_LEAST, _DENSE_MOST = 1 << 14, 1 << 20
# With more subsets than this none are bundled: planning would cost more than it saves.
_MOST_BUNDLED = 1200
_CHUNK = 1024
_NO_ROWS = np.empty(0, dtype=np.int64)


class Paired(NamedTuple):
    """The rows of clusters with several trades, in a row: positions, digits, y and rank of the cluster."""

    rows: Ints
    digits: Codes
    y: Floats
    cluster: Codes


class Table(NamedTuple):
    """Rows ready for kernels, sorted by cluster where clusters count."""

    digits: Codes  # (d, n) codes, one higher where the dim has absent values
    shifts: Ints  # (d) 1 where the dim has absent values: digit 0 means absent
    widths: tuple[int, ...]  # digits per dim
    y: Floats
    more: Floats  # (n, e) further columns
    weights: Floats  # (n, h) of the finite half-lives
    cluster: Codes  # (n) rank of the row's cluster; empty without clusters of several trades
    paired: Paired | None  # the rows whose cluster has another trade


class _Grid(NamedTuple):
    """A dense table over some dims: mixed radix, the last dim running fastest."""

    mask: int
    dims: Ints
    widths: Ints
    strides: Ints
    size: int


class _Step(NamedTuple):
    """A table, and the mask of the one it is rolled up from, where each level of the dim to lose is ``inner`` cells.

    Not ``asked``: a stop on the way from the block to subsets that are.
    """

    grid: _Grid
    parent: int
    inner: int
    asked: bool


class _Way(NamedTuple):
    """The steps of a block as the kernel wants them; their tables lie one after the other."""

    masks: Ints
    parents: Ints  # steps they are rolled up from; the first step, the block, from itself
    inner: Ints
    asked: NDArray[np.bool_]
    bounds: Ints  # table k has cells bounds[k]..bounds[k + 1] - 1


class _Block(NamedTuple):
    grid: _Grid
    steps: tuple[_Step, ...]  # the block itself, then each after the table it comes from
    way: _Way


def lattice(
    coded: Coded,
    depth: int = 3,
    support: int = 1,
    half_lives_days: Sequence[float] = HALF_LIVES_DAYS,
    at: int | None = None,
    clusters: bool = True,
    run: Run = map,
) -> Cells:
    """Every cell of every subset of at most ``depth`` dims, the root included, with ``support`` trades or more.

    Args:
        half_lives_days: of the decayed moments, infinity allowed; none for the plain sums only.
        at: moment the decayed moments are for; by default that of the last trade.
        clusters: whether to form the cluster sums.
        run: how to apply a function to independent parts, e.g. ``map`` of a pool of threads; kernels do not hold the
            interpreter's lock. The cells are the same.

    Raises:
        LearningError: a trade that closes after ``at``, or a depth, support or half-life out of range.

    >>> coded = encode({"a": ["x", "x", "y"]}, [1.0, 2.0, 4.0], [0, 0, 0])
    >>> [(mask, scope, sums["n"], sums["sum_y"]) for mask, scope, sums in lattice(coded).rows()]
    [(0, {}, 3.0, 7.0), (1, {'a': 'x'}, 2.0, 3.0), (1, {'a': 'y'}, 1.0, 4.0)]
    """
    if depth < 0:
        raise LearningError(f"depth must be 0 or more, was {depth}")
    moment = checked(coded, support, half_lives_days, at)
    return lattice_at(coded, depth, support, half_lives_days, moment, clusters, run)


def lattice_at(
    coded: Coded,
    depth: int,
    support: int,
    half_lives_days: Sequence[float],
    moment: int,
    clusters: bool,
    run: Run = map,
) -> Cells:
    """`lattice` without a look at the arguments: a trade that closes after ``moment`` weighs more than 1."""
    table = table_of(coded, half_lives_days, moment, clusters)
    d, n = len(coded.dims), len(coded)
    columns = BASIC + table.more.shape[1] + 4 * table.weights.shape[1]
    width = columns + 4 * (table.paired is not None)
    budget = max(_SMALLEST_BLOCK, 1 << (min(n, _BLOCK_VALUES // width) | 1).bit_length() - 1)
    dense = min(max(_DENSE_LEAST, 2 * n), _DENSE_MOST)
    blocks, sparse = _plan(table.widths, min(depth, d), budget, 1 << dense.bit_length() - 1)
    found: list[tuple[int, Codes, Floats]] = []
    if n:
        for cells in run(lambda block: _of_block(block, table, width, support), blocks):
            found.extend(cells)
        found.extend(_of_sparse(mask, table, coded.codes, width, support) for mask in sparse)
    found.sort(key=lambda part: part[0])
    codes = np.concatenate([part[1] for part in found] or [np.empty((0, d), np.int32)])
    raw = np.concatenate([part[2] for part in found] or [np.empty((0, width))])
    halves, further = tuple(half_lives_days), tuple(coded.further)
    sums = finished(raw, len(further), halves, clusters, table.paired is not None)
    return Cells(coded.dims, coded.levels, further, halves, clusters, moment, support, codes, sums)


def checked(coded: Coded, support: int, half_lives_days: Sequence[float], at: int | None) -> int:
    """The moment to decay to, after a look at the arguments."""
    if support < 1:
        raise LearningError(f"support must be 1 or more, was {support}")
    if any(not h > 0 for h in half_lives_days) or len(set(half_lives_days)) != len(half_lives_days):
        raise LearningError(f"half-lives must be different positive days, were {tuple(half_lives_days)}")
    last = int(coded.ts.max()) if len(coded) else 0
    if at is not None and len(coded) and last > at:
        row = int(np.argmax(coded.ts))
        raise LearningError(f"row {row} closes at {last}, after the moment {at} the cells are for")
    return last if at is None else at


def table_of(coded: Coded, half_lives_days: Sequence[float], at: int, clusters: bool) -> Table:
    """The rows as the kernels want them."""
    n = len(coded)
    codes, y, ts = coded.codes, coded.y, coded.ts
    more = np.empty((n, len(coded.further)))
    for e, column in enumerate(coded.further.values()):
        more[:, e] = column
    rank, positions = np.empty(0, np.int32), np.empty(0, np.int64)
    if clusters and n:
        order, number = _by_cluster(coded.cluster)
        same = number[1:] == number[:-1]
        positions = np.flatnonzero(np.r_[False, same] | np.r_[same, False])
        if len(positions):
            codes, y, ts, more, rank = codes[order], y[order], ts[order], more[order], number
    finite = [h for h in half_lives_days if math.isfinite(h)]
    weights = np.empty((n, len(finite)))
    for h, half_life in enumerate(finite):
        weights[:, h] = np.exp2((ts - at) / (half_life * DAY))
    columns = np.ascontiguousarray(codes.T, dtype=np.int32)
    shifts = (columns.min(1) < 0).astype(np.int64) if n else np.zeros(len(coded.dims), np.int64)
    digits = columns + shifts[:, None].astype(np.int32) if shifts.any() else columns
    widths = tuple(len(levels) + int(shift) for levels, shift in zip(coded.levels, shifts, strict=True))
    paired = None
    if len(positions) == n > 0:
        paired = Paired(positions, digits, y, rank)
    elif len(positions):
        paired = Paired(positions, digits[:, positions], y[positions], rank[positions])
    return Table(digits, shifts, widths, y, more, weights, rank, paired)


def _by_cluster(cluster: Ints) -> tuple[NDArray[np.int64], Codes]:
    """Row order by cluster, and the rank of each row's cluster in that order."""
    order = np.argsort(cluster, kind="stable")
    ordered = cluster[order]
    return order, np.cumsum(np.r_[False, ordered[1:] != ordered[:-1]], dtype=np.int32)


def finished(raw: Floats, further: int, half_lives_days: Sequence[float], clusters: bool, paired: bool) -> Floats:
    """Columns of ``Cells.sums`` from those the kernels summed.

    An infinite half-life weighs every trade 1: W = W2 = n, S1 = sum y, S2 = sum y^2. A trade alone in its cluster has
    A = y and B = 1; the kernels give what trades that share a cluster add to that.
    """
    take = list(range(BASIC + further))
    done = len(take)
    for half_life in half_lives_days:
        if math.isfinite(half_life):
            take.extend(range(done, done + 4))
            done += 4
        else:
            take.extend((N, N, SUM_Y, SUM_Y2))
    take.extend((N, SUM_Y2, SUM_Y, N) if clusters else ())
    sums = raw if take == [*range(raw.shape[1])] else raw[:, take]
    if clusters and paired:
        sums[:, -4:] += raw[:, done:]
    return sums


@lru_cache(maxsize=64)
def _plan(
    widths: tuple[int, ...], depth: int, budget: int, dense: int
) -> tuple[tuple[_Block, ...], tuple[tuple[int, ...], ...]]:
    """Blocks that together contain every subset with a dense table, and the subsets that have none."""
    d = len(widths)
    subsets = [subset for size in range(depth, -1, -1) for subset in combinations(range(d), size)]
    size_of = {_bits(subset): math.prod(widths[j] for j in subset) for subset in subsets}
    sparse = tuple(subset for subset in subsets if size_of[_bits(subset)] > dense)
    open_ = [mask for mask, size in size_of.items() if size <= dense]
    widest = sorted((m for m in open_ if m.bit_count() == depth), key=lambda m: -size_of[m])
    bundle = budget if len(widest) <= _MOST_BUNDLED else 0
    blocks = []
    while open_:
        block = _grown(widest[0] if widest else open_[0], widest, widths, bundle)
        widest = [mask for mask in widest if mask & ~block]
        inside = [mask for mask in open_ if not mask & ~block]
        open_ = [mask for mask in open_ if mask & ~block]
        steps = tuple(_steps(block, inside, widths))
        blocks.append(_Block(_grid(block, widths), steps, _way(steps)))
    return tuple(blocks), sparse


def _grown(block: int, widest: list[int], widths: tuple[int, ...], budget: int) -> int:
    """``block`` with the dims that cover the most subsets still open, within ``budget`` cells."""
    size = math.prod(width for j, width in enumerate(widths) if block >> j & 1)
    while True:
        best, gain, cost = -1, 0, 0
        for j, width in enumerate(widths):
            if block >> j & 1 or size * width > budget:
                continue
            covered = sum(1 for mask in widest if mask >> j & 1 and not mask & ~(block | 1 << j))
            if (covered, -width) > (gain, -cost):
                best, gain, cost = j, covered, width
        if best < 0:
            return block
        block |= 1 << best
        size *= cost


def _bits(subset: Iterable[int]) -> int:
    return sum(1 << j for j in subset)


def _grid(mask: int, widths: tuple[int, ...]) -> _Grid:
    dims = [j for j in range(len(widths)) if mask >> j & 1]
    own = [widths[j] for j in dims]
    strides = [math.prod(own[i + 1 :]) for i in range(len(own))]
    return _Grid(mask, _whole(dims), _whole(own), _whole(strides), math.prod(own))


def _whole(values: Iterable[int]) -> Ints:
    return np.array(list(values), dtype=np.int64)


def _steps(block: int, asked: list[int], widths: tuple[int, ...]) -> Iterator[_Step]:
    """The way from a block to subsets of it: each is rolled up from the table with its narrowest missing dim more."""
    yield _Step(_grid(block, widths), block, 1, block in asked)
    known = {block}
    for goal in asked:
        way = [goal]
        while way[-1] not in known:
            missing = block & ~way[-1]
            way.append(way[-1] | min((1 << j for j in range(len(widths)) if missing >> j & 1), key=_wide(widths)))
        for mask, parent in zip(way[-2::-1], way[:0:-1], strict=True):
            known.add(mask)
            inner = math.prod(width for j, width in enumerate(widths) if mask >> j & 1 and 1 << j > parent ^ mask)
            yield _Step(_grid(mask, widths), parent, inner, mask in asked)


def _way(steps: Sequence[_Step]) -> _Way:
    masks = [step.grid.mask for step in steps]
    return _Way(
        _whole(masks),
        _whole(masks.index(step.parent) for step in steps),
        _whole(step.inner for step in steps),
        np.array([step.asked for step in steps], dtype=np.bool_),
        _whole(accumulate((step.grid.size for step in steps), initial=0)),
    )


def _wide(widths: tuple[int, ...]) -> Callable[[int], int]:
    return lambda bit: widths[bit.bit_length() - 1]


def _of_block(block: _Block, table: Table, width: int, support: int) -> list[tuple[int, Codes, Floats]]:
    """Cells of every subset that is rolled up from one block."""
    grid, way = block.grid, block.way
    sums = np.empty((way.bounds[-1], width))
    sums[: grid.size] = 0.0
    _fill(table.digits, grid.dims, grid.strides, table.y, table.more, table.weights, sums)
    paired = table.paired or Paired(_NO_ROWS, table.digits[:, :0], table.y[:0], table.cluster[:0])
    codes, kept, ends = _rolled(sums, way, _whole(table.widths), table.shifts, support, len(table.y), *paired[1:])
    bounds = pairwise([0, *ends.tolist()])
    return [(mask, codes[a:b], kept[a:b]) for mask, (a, b) in zip(way.masks.tolist(), bounds, strict=True) if b > a]


def _of_sparse(
    subset: tuple[int, ...], table: Table, codes: Codes, width: int, support: int
) -> tuple[int, Codes, Floats]:
    """Cells of one subset with more combinations than a dense table may have: only those that occur are numbered."""
    n = len(table.y)
    ids, bound = np.zeros(n, dtype=np.int64), 1
    for j in subset:
        ids, bound = ids * table.widths[j] + table.digits[j], bound * table.widths[j]
        if bound > 2 * n:
            ids = _numbered(ids)
            bound = int(ids.max()) + 1
    digits = ids.astype(np.int32)[None, :]
    sums = np.zeros((bound, width))
    dims, strides = np.zeros(1, np.int64), np.ones(1, np.int64)
    _fill(digits, dims, strides, table.y, table.more, table.weights, sums)
    if table.paired is not None:
        _pair(digits[:, table.paired.rows], dims, strides, table.paired.y, table.paired.cluster, sums)
    first = np.zeros(bound, dtype=np.int64)
    first[ids[::-1]] = np.arange(n - 1, -1, -1)
    scopes = np.full((bound, len(table.widths)), -1, dtype=np.int32)
    scopes[:, subset] = (table.digits[list(subset)][:, first] - table.shifts[list(subset), None]).T
    keep = np.flatnonzero((sums[:, N] >= support) & (scopes[:, subset] >= 0).all(1))
    keep = keep[np.lexsort([scopes[keep, j] for j in reversed(subset)])]
    return _bits(subset), scopes[keep], sums[keep]


@kernel
def _fill(digits: Codes, dims: Ints, strides: Ints, y: Floats, more: Floats, weights: Floats, sums: Floats) -> None:
    """Add every row to its cell; keys are formed a stretch of rows at a time."""
    n, e, h = len(y), more.shape[1], weights.shape[1]
    keys = np.empty(_CHUNK, dtype=np.uint32)  # unsigned: no look for negative positions
    for start in range(0, n, _CHUNK):
        count = min(_CHUNK, n - start)
        _keys(digits, dims, strides, start, count, keys)
        outcomes = y[start : start + count]
        for i in range(count):
            key, value = keys[i], outcomes[i]
            trades, wins = sums[key, N] + 1.0, sums[key, N_WIN] + (1.0 if value > 0.0 else 0.0)
            total, squares = sums[key, SUM_Y] + value, sums[key, SUM_Y2] + value * value
            sums[key, N], sums[key, N_WIN], sums[key, SUM_Y], sums[key, SUM_Y2] = trades, wins, total, squares
            for k in range(e):
                sums[key, BASIC + k] += more[start + i, k]
            for k in range(h):
                w, first = weights[start + i, k], BASIC + e + 4 * k
                sums[key, first] += w
                sums[key, first + 1] += w * w
                sums[key, first + 2] += w * value
                sums[key, first + 3] += w * value * value


@kernel
def _rolled(
    tables: Floats,
    way: _Way,
    widths: Ints,
    shifts: Ints,
    support: int,
    n: int,
    digits: Codes,
    y: Floats,
    cluster: Codes,
) -> tuple[Codes, Floats, Ints]:
    """Go all steps from the table of a block, which is filled; the rest of ``tables`` is room for those of the steps.

    Codes and sums of the cells kept, and their number after each step.
    """
    most, width = 0, tables.shape[1]
    for step in range(len(way.masks)):
        if way.asked[step]:
            most += min(way.bounds[step + 1] - way.bounds[step], n // support)
    codes, kept = np.empty((most, len(widths)), dtype=np.int32), np.empty((most, width))
    count, counts = 0, np.zeros(len(way.masks), dtype=np.int64)
    for step in range(len(way.masks)):
        parent = way.parents[step]
        sums = tables[way.bounds[step] : way.bounds[step + 1]]
        if parent != step:
            source = tables[way.bounds[parent] : way.bounds[parent + 1]]
            _roll(source.reshape(-1), way.inner[step] * width, sums.reshape(-1))
        if way.asked[step]:
            dims, strides = _layout(way.masks[step], widths)
            if len(y) > 0:
                _pair(digits, dims, strides, y, cluster, sums)
            count += _emitted(sums, dims, widths, shifts, support, codes[count:], kept[count:])
        counts[step] = count
    return codes[:count], kept[:count], counts


@kernel
def _layout(mask: int, widths: Ints) -> tuple[Ints, Ints]:
    """Dims of a mask, and their strides in its table."""
    dims, strides, k, size = np.empty(len(widths), dtype=np.int64), np.empty(len(widths), dtype=np.int64), 0, 1
    for j in range(len(widths)):
        if mask >> j & 1:
            dims[k] = j
            k += 1
    for t in range(k - 1, -1, -1):
        strides[t] = size
        size *= widths[dims[t]]
    return dims[:k], strides[:k]


@kernel
def _roll(source: Floats, part: int, sums: Floats) -> None:
    """Add up the levels of a dim, each a stretch of ``part`` values of ``source``, to a table without it."""
    groups = len(sums) // part
    wide, narrow = source.reshape(groups, -1, part), sums.reshape(groups, part)
    for k in range(groups):
        for i in range(part):
            narrow[k, i] = wide[k, 0, i]
        for level in range(1, wide.shape[1]):
            for i in range(part):
                narrow[k, i] += wide[k, level, i]


@kernel
def _pair(digits: Codes, dims: Ints, strides: Ints, y: Floats, cluster: Codes, sums: Floats) -> None:
    """What trades that share a cluster and a cell add to G, sum A^2, sum A B, sum B^2 of trades that share nothing.

    A row joining a cluster with sums A, B: G - 1; ``(A+y)^2 - A^2 - y^2 = 2 A y``; ``(A+y)(B+1) - A B - y = A + B y``;
    ``(B+1)^2 - B^2 - 1 = 2 B``. All four are added without a branch: a row that opens a cluster adds zeros.
    """
    n, cells, g = len(y), sums.shape[0], sums.shape[1] - 4
    last = np.full(cells, -1, dtype=np.int32)
    held = np.zeros((cells, 6))  # A, B of the open cluster, then the four sums
    keys = np.empty(_CHUNK, dtype=np.uint32)  # unsigned: no look for negative positions
    for start in range(0, n, _CHUNK):
        count = min(_CHUNK, n - start)
        _keys(digits, dims, strides, start, count, keys)
        outcomes, numbers = y[start : start + count], cluster[start : start + count]
        for i in range(count):
            key, value = keys[i], outcomes[i]
            same = 1.0 if last[key] == numbers[i] else 0.0
            last[key] = numbers[i]
            a, b = held[key, 0] * same, held[key, 1] * same
            lost, aa = held[key, 2] - same, held[key, 3] + 2.0 * a * value
            ab, bb = held[key, 4] + (a + b * value), held[key, 5] + 2.0 * b
            held[key, 0], held[key, 1], held[key, 2] = a + value, b + 1.0, lost
            held[key, 3], held[key, 4], held[key, 5] = aa, ab, bb
    sums[:, g:] = held[:, 2:]


@kernel
def _keys(digits: Codes, dims: Ints, strides: Ints, start: int, count: int, keys: NDArray[np.uint32]) -> None:
    """Cells of ``count`` rows from ``start`` on."""
    keys[:] = 0
    for t in range(len(dims)):
        column, stride = digits[dims[t], start : start + count], np.uint32(strides[t])
        for i in range(count):
            keys[i] += np.uint32(column[i]) * stride


@kernel
def _emitted(sums: Floats, dims: Ints, widths: Ints, shifts: Ints, support: int, codes: Codes, kept: Floats) -> int:
    """Copy the cells with enough trades and no absent value to ``codes`` and ``kept``, in key order; their number."""
    k, count = len(dims), 0
    digits = np.zeros(k, dtype=np.int64)
    for cell in range(len(sums)):
        present = sums[cell, N] >= support
        for t in range(k):
            present &= digits[t] >= shifts[dims[t]]
        if present:
            codes[count] = -1
            for t in range(k):
                codes[count, dims[t]] = digits[t] - shifts[dims[t]]
            for c in range(sums.shape[1]):
                kept[count, c] = sums[cell, c]
            count += 1
        t = k - 1
        while t >= 0:
            digits[t] += 1
            if digits[t] < widths[dims[t]]:
                break
            digits[t] = 0
            t -= 1
    return count


@kernel
def _numbered(keys: Ints) -> Ints:
    """Numbers 0.. of the different keys, in the order they first occur (open addressing, never more than half full)."""
    n, size = len(keys), 4
    while size < 2 * n:
        size *= 2
    slots = np.full(size, -1, dtype=np.int64)
    own = np.empty(n, dtype=np.int64)
    out = np.empty(n, dtype=np.int64)
    count = 0
    for i in range(n):
        slot = (keys[i] * 0x1E3779B97F4A7C15 >> 20) & (size - 1)
        while slots[slot] >= 0 and own[slots[slot]] != keys[i]:
            slot = (slot + 1) & (size - 1)
        if slots[slot] < 0:
            slots[slot] = count
            own[count] = keys[i]
            count += 1
        out[i] = slots[slot]
    return out
