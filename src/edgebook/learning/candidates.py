"""Single slices that stand out from what their wider slices already say (learning.md 9.2, 9.3).

Every cell of at most three dims is a candidate. Its evidence is a Bayes factor of a normal effect against none::

    BF = mean over tau of (1 + Q tau^2)^(-1/2) * exp(z^2/2 * Q tau^2 / (1 + Q tau^2)),   z = S / (sigma sqrt(Q))

with ``S = x' V0^-1 e`` the cell's share of the residual and ``Q = x' V0^-1 x`` its information. Without an effect its
expectation is 1, however often it is looked at: an e-value. The cells share one unit of prior mass: each order gets
half of what the order before it got, its subsets equal parts, the cells of a subset equal parts. So ``sum prior * BF``
is an e-value too, and on pure noise it ever exceeds 1/alpha with probability at most alpha (Ville 1939; Vovk & Wang
2021), which guards an hourly rebuild against peeking. Effects are added one at a time, each spread over the cells that
explain it about equally well (sum of single effects: Wang, Sarkar, Carbonetto & Stephens 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.scope import ScopeItems
from edgebook.kernels import inlined, kernel
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.design import Component, Design
from edgebook.learning.shocks import Shocks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Standard deviations of a cell's effect that are tried, in residual standard deviations.
SLABS = np.array([0.1, 0.2, 0.4])
#: Places that are kept, four bytes each: 100 MB.
_MOST_PLACES = 25_000_000


def log_bayes_factor(s: Floats, q: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Log Bayes factor of an effect against none, and the prior variance (over sigma squared) the data would have.

    Args:
        s: ``x' V0^-1 e`` per cell, R.
        q: ``x' V0^-1 x`` per cell, at least 0.

    >>> nats, _ = log_bayes_factor(np.array([0.0, 60.0]), np.array([100.0, 100.0]), 1.0)
    >>> bool(nats[0] < 0), bool(nats[1] > 10)
    (True, True)
    """
    z2 = s * s / (sigma * sigma * np.maximum(q, 1e-12))
    grown = q * (SLABS**2)[:, None]
    terms = 0.5 * z2 * grown / (1.0 + grown) - 0.5 * np.log1p(grown)
    top = terms.max(axis=0)
    weight = np.exp(terms - top)
    nats: Floats = top + np.log(weight.mean(axis=0))
    variance: Floats = (weight * (SLABS**2)[:, None]).sum(axis=0) / weight.sum(axis=0)
    return nats, variance


@dataclass(frozen=True, slots=True)
class Candidates:
    """All cells of a design: where they lie, how many trades and how much information each has, its prior share.

    Cells lie subset after subset in mixed radix: cell ``offset + (x * width_b + y) * width_c + z``.

    Attributes:
        codes: level per (dim, trade), -1 where absent.
        dims, widths, offsets: per subset, padded with -1 and 1.
        places: cell of every trade per (subset, trade), -1 where absent; empty for long tables, where it is computed
            each time.
        subset: subset of each cell.
        count, q: trades and information ``x' V0^-1 x`` per cell.
        log_prior: log share of the prior mass; -inf for cells with too few trades inside or outside.
        market: whether a market-wide dim takes part.
    """

    codes: Ints
    dims: Ints
    widths: Ints
    offsets: Ints
    places: NDArray[np.int32]
    subset: Ints
    count: Floats
    q: Floats
    log_prior: Floats
    market: NDArray[np.bool_]
    components: tuple[Component, ...]

    @classmethod
    def of(cls, design: Design, shocks: Shocks, config: LearningConfig = DEFAULT) -> Candidates:
        """The candidates of ``design``.

        Subsets of several dims with more possible cells than ``max(4096, 2n)`` are left out: they could hold no cell
        that says anything, and their number must not grow faster than the trades.
        """
        components = design.components
        levels = np.array([*(len(c.levels) for c in components), 1], dtype=np.int64)
        dims = subsets_of(len(components), config.cell_depth_dims)
        widths = levels[dims]  # -1 takes the 1 at the end
        orders = np.count_nonzero(dims >= 0, axis=1)
        sizes = np.prod(widths, axis=1, dtype=np.int64)
        kept = (orders == 1) | (sizes <= max(4096, 2 * design.n))
        dims, widths, orders, sizes = dims[kept], widths[kept], orders[kept], sizes[kept]
        offsets = np.cumsum(sizes) - sizes
        subset = np.repeat(np.arange(len(dims)), sizes)
        codes = np.stack([c.codes for c in components]) if components else np.zeros((0, design.n), dtype=np.int64)
        count, q = np.zeros(len(subset)), np.zeros(len(subset))
        small = design.n * len(dims) <= _MOST_PLACES
        places = np.empty((len(dims), design.n), dtype=np.int32) if small else np.empty((0, 0), dtype=np.int32)
        _information(
            codes, dims, widths, offsets, design.day, design.week_of_day,
            shocks.day_weight, shocks.day_factor, shocks.week_factor, count, q, places,
        )  # fmt: skip
        alive = (count >= config.cell_min_trades) & (count <= design.n - config.cell_min_trades)
        market = np.array([*(c.market for c in components), False])[dims].any(axis=1)
        return cls(
            codes,
            dims,
            widths,
            offsets,
            places,
            subset,
            count,
            np.maximum(q, 0.0),
            _log_prior(subset, alive, orders),
            market[subset],
            components,
        )

    def sums(self, rows: Floats) -> Floats:
        """Sum of ``rows`` (one value a trade) inside every cell."""
        out = np.zeros(len(self.count))
        if self.places.size:
            _sums_by_place(self.places, rows, out)
        else:
            _sums(self.codes, self.dims, self.widths, self.offsets, rows, out)
        return out

    def agreement(self, cell: int, rows: Floats, total: float, sigma: float, least_runs: int = 8) -> float:
        """How much of a market-wide cell's evidence its own runs bear out, in [0, 1].

        A run is a stretch of trades, in time, over which the cell's market-wide dims stay what they are. The cell's
        ``z^2`` with one value a run, ``(sum S_r)^2 / sum S_r^2 * (G - 1) / G``, over its ``z^2`` with one value a
        trade; 0 with fewer than ``least_runs`` runs.

        Args:
            rows: whitened residual of every trade, R; ``total`` their sum inside the cell.
        """
        members = [j for j in self.dims[self.subset[cell]].tolist() if j >= 0]
        shared = np.stack([self.codes[j] for j in members if self.components[j].market])
        turn = np.concatenate(([False], (shared[:, 1:] != shared[:, :-1]).any(axis=0)))
        hit = inside(self.components, self.items(cell))
        by_run = np.bincount(np.cumsum(turn)[hit], weights=rows[hit])
        by_run = by_run[by_run != 0]
        plain = total * total / (sigma * sigma * max(float(self.q[cell]), 1e-12))
        if len(by_run) < least_runs or plain <= 0:
            return 0.0
        clustered = total * total / float(by_run @ by_run) * (len(by_run) - 1) / len(by_run)
        return min(1.0, clustered / plain)

    @property
    def single(self) -> NDArray[np.bool_]:
        """Cells of one dim."""
        return np.asarray(self.dims[self.subset, 1] < 0)

    def items(self, cell: int) -> ScopeItems:
        """The cell's scope."""
        subset = int(self.subset[cell])
        rest, found = cell - int(self.offsets[subset]), []
        for j, width in reversed(list(zip(self.dims[subset].tolist(), self.widths[subset].tolist(), strict=True))):
            if j >= 0:
                found.append(self.components[j].levels[rest % width][0])
                rest //= width
        return tuple(reversed(found))

    def cell(self, items: ScopeItems) -> int | None:
        """The cell of a scope; None where it has none (a subset that was left out, a thin level)."""
        by_name = {component.name: j for j, component in enumerate(self.components)}
        if any(dim not in by_name for dim, _ in items):
            return None
        members = sorted((by_name[dim], item) for item in items for dim in item[:1])
        wanted = np.array([*(j for j, _ in members), *[-1] * (3 - len(members))])
        rows = np.flatnonzero((self.dims == wanted).all(axis=1))
        if len(rows) == 0:
            return None
        at = 0
        for (j, item), width in zip(members, self.widths[rows[0]].tolist(), strict=False):
            if (item,) not in self.components[j].levels:
                return None
            at = at * width + self.components[j].levels.index((item,))
        return int(self.offsets[rows[0]]) + at

    def component(self, cell: int) -> Component:
        """The cell as a block of one level."""
        items = self.items(cell)
        hit = inside(self.components, items)
        name = "*".join(f"{dim}={value}" for dim, value in items)
        dims = tuple(dim for dim, _ in items)
        return Component(name, dims, np.where(hit, 0, -1), (items,), bool(self.market[cell]))


@lru_cache(maxsize=64)
def subsets_of(count: int, depth: int) -> Ints:
    """Every subset of at most ``depth`` (up to 3) of ``count`` dims, by size, padded with -1; read-only.

    >>> subsets_of(2, 3).tolist()
    [[0, -1, -1], [1, -1, -1], [0, 1, -1]]
    """
    found = [members for size in range(1, depth + 1) for members in combinations(range(count), size)]
    made = np.full((len(found), 3), -1, dtype=np.int64)
    for row, members in enumerate(found):
        made[row, : len(members)] = members
    made.flags.writeable = False
    return made


def inside(components: tuple[Component, ...], items: ScopeItems) -> NDArray[np.bool_]:
    """The trades in the slice of ``items``, which are levels of ``components``."""
    by_name = {component.name: component for component in components}
    hit = np.ones(len(components[0].codes), dtype=bool)
    for item in items:
        component = by_name[item[0]]
        hit &= component.codes == component.levels.index((item,))
    return hit


def _log_prior(subset: Ints, alive: NDArray[np.bool_], orders: Ints) -> Floats:
    """Log prior share of each cell: half the mass for each order more, then equal parts."""
    cells = np.bincount(subset[alive], minlength=len(orders)).astype(float)
    share = np.zeros(len(orders))
    for order in np.unique(orders).tolist():
        live = (orders == order) & (cells > 0)
        if live.any():
            share[live] = 0.5**order / np.count_nonzero(live)
    out = np.full(len(subset), -np.inf)
    if share.sum() > 0:
        each = share / share.sum() / np.maximum(cells, 1.0)
        out[alive] = np.log(each[subset[alive]])
    return out


@inlined
def _cell(codes: Ints, dims: Ints, widths: Ints, s: int, i: int) -> int:
    """Cell of trade i in subset s, counted from the subset's first; -1 where a dim is absent."""
    cell = codes[dims[s, 0], i]
    if cell < 0:
        return -1
    for k in range(1, 3):
        if dims[s, k] < 0:
            break
        code = codes[dims[s, k], i]
        if code < 0:
            return -1
        cell = cell * widths[s, k] + code
    return int(cell)


@kernel
def _sums_by_place(places: NDArray[np.int32], rows: Floats, out: Floats) -> None:
    for s in range(places.shape[0]):
        for i in range(places.shape[1]):
            cell = places[s, i]
            if cell >= 0:
                out[cell] += rows[i]


@kernel
def _sums(codes: Ints, dims: Ints, widths: Ints, offsets: Ints, rows: Floats, out: Floats) -> None:
    """The same without places: each number of dims has a loop of its own, which is several times quicker."""
    n = codes.shape[1]
    for s in range(dims.shape[0]):
        first, second, third = codes[dims[s, 0]], codes[max(dims[s, 1], 0)], codes[max(dims[s, 2], 0)]
        start, wide, wider = offsets[s], widths[s, 1], widths[s, 2]
        if dims[s, 1] < 0:
            for i in range(n):
                if first[i] >= 0:
                    out[start + first[i]] += rows[i]
        elif dims[s, 2] < 0:
            for i in range(n):
                if first[i] >= 0 and second[i] >= 0:
                    out[start + first[i] * wide + second[i]] += rows[i]
        else:
            for i in range(n):
                if first[i] >= 0 and second[i] >= 0 and third[i] >= 0:
                    out[start + (first[i] * wide + second[i]) * wider + third[i]] += rows[i]


@kernel
def _information(
    codes: Ints,
    dims: Ints,
    widths: Ints,
    offsets: Ints,
    day: Ints,
    week: Ints,
    day_weight: Floats,
    day_factor: Floats,
    week_factor: Floats,
    count: Floats,
    q: Floats,
    places: NDArray[np.int32],
) -> None:
    """``count = x'x`` and ``q = x' V0^-1 x`` of every cell, in one pass: trades ascend by day. ``places`` is filled
    where it is not empty."""
    keep = places.shape[0] > 0
    open_day = np.full(len(count), -1, np.int64)
    in_day, in_week = np.zeros(len(count)), np.zeros(len(count))
    for s in range(dims.shape[0]):
        for i in range(codes.shape[1]):
            at = _cell(codes, dims, widths, s, i)
            if keep:
                places[s, i] = offsets[s] + at if at >= 0 else -1
            if at < 0:
                continue
            cell, today = offsets[s] + at, day[i]
            last = open_day[cell]
            if last != today:
                if last >= 0:
                    q[cell] -= day_factor[last] * in_day[cell] * in_day[cell]
                    in_week[cell] += day_weight[last] * in_day[cell]
                    if week[last] != week[today]:
                        q[cell] -= week_factor[week[last]] * in_week[cell] * in_week[cell]
                        in_week[cell] = 0.0
                open_day[cell], in_day[cell] = today, 0.0
            in_day[cell] += 1.0
            count[cell] += 1.0
            q[cell] += 1.0
    for cell in range(len(count)):
        last = open_day[cell]
        if last >= 0:
            q[cell] -= day_factor[last] * in_day[cell] * in_day[cell]
            in_week[cell] += day_weight[last] * in_day[cell]
            q[cell] -= week_factor[week[last]] * in_week[cell] * in_week[cell]
