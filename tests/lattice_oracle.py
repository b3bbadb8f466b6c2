"""Slice statistics by brute force: every subset of every scope, lists of trades, textbook sums. Slow and plain."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

DAY = 86_400_000_000


class Trade(NamedTuple):
    """One closed trade; ``scope`` leaves absent dims out."""

    scope: Mapping[str, str | int]
    y: float
    ts: int
    cluster: int
    roi: float = 0.0


def slices(dims: Sequence[str], trades: Iterable[Trade], depth: int | None = None) -> dict[tuple, list[Trade]]:
    """The trades of every cell, by ``(mask, ((dim, value), ...))``."""
    found = defaultdict(list)
    for trade in trades:
        items = [(dim, trade.scope[dim]) for dim in dims if dim in trade.scope]
        for size in range(min(len(items), len(items) if depth is None else depth) + 1):
            for part in combinations(items, size):
                mask = sum(2 ** dims.index(dim) for dim, _ in part)
                found[mask, part].append(trade)
    return dict(found)


def sums(trades: Sequence[Trade], at: int, half_lives: Sequence[float]) -> dict[str, float]:
    """Every sum of one cell by its column name."""
    ys = [trade.y for trade in trades]
    out = {
        "n": len(ys),
        "n_win": sum(y > 0 for y in ys),
        "sum_y": math.fsum(ys),
        "sum_y2": math.fsum(y * y for y in ys),
    }
    out["sum_roi"] = math.fsum(trade.roi for trade in trades)
    for half_life in half_lives:
        weights = [0.5 ** ((at - trade.ts) / DAY / half_life) for trade in trades]
        out[f"w_{half_life:g}d"] = math.fsum(weights)
        out[f"w2_{half_life:g}d"] = math.fsum(w**2 for w in weights)
        out[f"s1_{half_life:g}d"] = math.fsum(w * y for w, y in zip(weights, ys, strict=True))
        out[f"s2_{half_life:g}d"] = math.fsum(w * y**2 for w, y in zip(weights, ys, strict=True))
    groups = defaultdict(list)
    for trade in trades:
        groups[trade.cluster].append(trade.y)
    pairs = [(math.fsum(group), len(group)) for group in groups.values()]
    out["clusters"] = len(pairs)
    out["sum_aa"] = math.fsum(a * a for a, _ in pairs)
    out["sum_ab"] = math.fsum(a * b for a, b in pairs)
    out["sum_bb"] = math.fsum(b * b for _, b in pairs)
    return out


def sandwich(trades: Sequence[Trade]) -> float:
    """Robust variance of the mean from residuals: ``G/(G-1) * sum over clusters of (sum of residuals)^2 / n^2``."""
    n = len(trades)
    mean = math.fsum(trade.y for trade in trades) / n
    residuals = defaultdict(float)
    for trade in trades:
        residuals[trade.cluster] += trade.y - mean
    g = len(residuals)
    return g / (g - 1) * math.fsum(r * r for r in residuals.values()) / n**2


def disagreements(cells, expected: Mapping[tuple, Mapping[str, float]], tolerance: float = 1e-9) -> list[str]:
    """How ``cells`` differ from ``expected``: cells missing or too many, out of order, sums too far apart."""
    got = {(mask, tuple(scope.items())): row for mask, scope, row in cells.rows()}
    out = [f"missing {key}" for key in expected.keys() - got.keys()]
    out += [f"too many {key}" for key in got.keys() - expected.keys()]
    order = [(mask, [(isinstance(v, str), v) for _, v in items]) for mask, items in got]
    if order != sorted(order):
        out.append("not in canonical order")
    for key in got.keys() & expected.keys():
        for name, value in got[key].items():
            want = expected[key][name]
            if not abs(value - want) <= tolerance * max(1.0, abs(want)):
                out.append(f"{key} {name}: {value!r}, expected {want!r}")
    return out
