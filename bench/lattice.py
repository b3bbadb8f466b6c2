"""The lattice engine against databases, data frames and pattern miners on the same trades.

Trades under 10 dims of 4, 8, 6, 4, 3, 3, 3, 7, 6 and 2 levels, skewed (level k has weight 1/k), outcomes t-distributed
and clipped to [-3, 10], three years, clusters of (token, entry day). Peers count n, sum and sum of squares per cell;
ours count wins as well. Where two count the same thing the results are asserted equal before anything is timed. DuckDB
and polars have their tables loaded (with squares for polars) and two threads. Ours runs on one thread unless the work
says "two threads", and goes from codes to sorted cells unless it says "from texts". A peer that is not installed is
left out, with a line on the error stream.

Run: ``python bench/lattice.py [--json] [--rounds N] [--only WORD]``; one object per work; seconds, best of the rounds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from edgebook.domain.decay import DAY
from edgebook.learning.cell_book import CellBook
from edgebook.learning.cells import canonical_order
from edgebook.learning.iceberg import expanded, iceberg
from edgebook.learning.lattice import Cells, Coded, encode, lattice

_LEVELS = (4, 8, 6, 4, 3, 3, 3, 7, 6, 2)
_DIMS = tuple(f"d{j}" for j in range(len(_LEVELS)))
_SUBSETS = [part for size in range(4) for part in combinations(range(len(_DIMS)), size)]
_PLAIN: dict[str, Any] = {"half_lives_days": (), "clusters": False}
_SUPPORT = 33


def _trades(n: int, seed: int = 1) -> Coded:
    rng = np.random.default_rng(seed)
    codes = np.empty((n, len(_DIMS)), np.int32, order="F")
    for j, count in enumerate(_LEVELS):
        weight = 1.0 / np.arange(1, count + 1)
        codes[:, j] = rng.choice(count, size=n, p=weight / weight.sum())
    y = rng.standard_t(4, n).clip(-3, 10)
    ts = np.sort(rng.integers(0, 3 * 365 * DAY, n))
    cluster = rng.integers(0, max(20, n // 3000), n) * 10_000 + ts // DAY
    levels = tuple(tuple(f"level {k}" for k in range(count)) for count in _LEVELS)
    return Coded(_DIMS, levels, codes, y, ts, cluster, {})


def _texts(trades: Coded) -> dict[str, list[Any]]:
    names = [np.array(levels, dtype=object) for levels in trades.levels]
    return {dim: names[j][trades.codes[:, j]].tolist() for j, dim in enumerate(_DIMS)}


def _peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"peer {name} is left out: {error}", file=sys.stderr)
        return None


def _best(call: Callable[[], Any], rounds: int) -> float:
    """Seconds: the best of ``rounds``."""
    best = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def _score(work: str, ours: float, peers: dict[str, float], **more: Any) -> dict[str, Any]:
    better = {name: float(f"{figure / ours:.3g}") for name, figure in peers.items()}
    score = {"name": "lattice", "work": work, "unit": "s", "ours": float(f"{ours:.4g}")}
    score |= {"peer": {name: float(f"{figure:.4g}") for name, figure in peers.items()}, "times_better": better}
    return score | more


def _same(who: str, cells: Cells, codes: np.ndarray[Any, Any], sums: np.ndarray[Any, Any]) -> None:
    """End the run if another's cells (n, sum, sum of squares) are not ours."""
    order = canonical_order(codes)
    ours = cells.sums[:, [0, 2, 3]]
    if not np.array_equal(codes[order], cells.codes):
        raise SystemExit(f"{who} has other cells: {len(codes)} against {len(cells)}")
    if not np.allclose(sums[order], ours, rtol=1e-9, atol=1e-9):
        raise SystemExit(f"{who} has other sums: off by {np.abs(sums[order] - ours).max()}")


# ------------------------------------------------------------------ the peers


class _Duck:
    """GROUPING SETS or CUBE over a table of small whole numbers, or of texts."""

    def __init__(self, duckdb: Any, columns: dict[str, Any], y: Any) -> None:
        import pandas as pd

        self.con = duckdb.connect()
        self.con.execute("SET threads TO 2")
        frame = pd.DataFrame({**columns, "y": y})
        self.con.execute("CREATE TABLE t AS SELECT * FROM frame")
        del frame
        self.values = f"{', '.join(_DIMS)}, count(*) AS n, sum(y) AS s, sum(y * y) AS q"

    def capped(self) -> Any:
        sets = ", ".join("(" + ", ".join(_DIMS[j] for j in part) + ")" for part in _SUBSETS)
        return self.con.execute(f"SELECT {self.values} FROM t GROUP BY GROUPING SETS ({sets})").fetchnumpy()

    def cube(self) -> Any:
        query = f"SELECT {self.values} FROM t GROUP BY CUBE ({', '.join(_DIMS)}) HAVING count(*) >= {_SUPPORT}"
        return self.con.execute(query).fetchnumpy()


def _duck_cells(found: Any) -> tuple[Any, Any]:
    codes = np.stack([np.ma.filled(np.ma.asarray(found[dim]).astype(np.int32), -1) for dim in _DIMS], axis=1)
    return codes, np.stack([np.asarray(found[name], dtype=np.float64) for name in ("n", "s", "q")], axis=1)


class _Polars:
    """One group_by per subset: one after the other, or all in one lazy plan."""

    def __init__(self, pl: Any, columns: dict[str, Any], y: Any) -> None:
        self.pl = pl
        self.frame = pl.DataFrame({**columns, "y": y, "q": y * y})
        self.sums = [pl.len().alias("n"), pl.col("y").sum(), pl.col("q").sum()]

    def eager(self) -> list[Any]:
        return [self._of(self.frame, part) for part in _SUBSETS]

    def lazy(self) -> list[Any]:
        found: list[Any] = self.pl.collect_all([self._of(self.frame.lazy(), part) for part in _SUBSETS])
        return found

    def _of(self, frame: Any, part: tuple[int, ...]) -> Any:
        return frame.group_by([_DIMS[j] for j in part]).agg(self.sums) if part else frame.select(self.sums)


class _Pandas:
    """One groupby per subset."""

    def __init__(self, pd: Any, columns: dict[str, Any], y: Any) -> None:
        self.frame = pd.DataFrame({**columns, "y": y, "q": y * y})

    def eager(self) -> list[Any]:
        found = []
        for part in _SUBSETS:
            if part:
                grouped = self.frame.groupby([_DIMS[j] for j in part], sort=False)
                found.append(grouped.agg(n=("y", "size"), y=("y", "sum"), q=("q", "sum")).reset_index())
            else:
                row = {"n": [len(self.frame)], "y": [self.frame["y"].sum()], "q": [self.frame["q"].sum()]}
                found.append(type(self.frame)(row))
        return found


def _frame_cells(frames: list[Any]) -> tuple[Any, Any]:
    parts = []
    for part, frame in zip(_SUBSETS, frames, strict=True):
        codes = np.full((len(frame), len(_DIMS)), -1, np.int32)
        for j in part:
            codes[:, j] = frame[_DIMS[j]].to_numpy()
        parts.append((codes, np.stack([frame[name].to_numpy().astype(float) for name in ("n", "y", "q")], axis=1)))
    return np.concatenate([codes for codes, _ in parts]), np.concatenate([sums for _, sums in parts])


def _naive(frame: Any, last: int) -> dict[tuple[Any, ...], tuple[int, float, float]]:
    """The reference's way for one new trade: for each subset, filter all trades so far and work out the statistics."""
    so_far = frame.iloc[: last + 1]
    scope = so_far.iloc[-1]
    stats = {}
    for part in _SUBSETS:
        rows = so_far
        for j in part:
            rows = rows[rows[_DIMS[j]] == scope[_DIMS[j]]]
        stats[tuple((_DIMS[j], int(scope[_DIMS[j]])) for j in part)] = (
            len(rows), float(rows["y"].sum()), float((rows["y"] ** 2).sum()),
        )  # fmt: skip
    return stats


class _Dicts:
    """Running sums in a dict, one row update per subset and trade, in plain Python."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], list[float]] = {}

    def add(self, scope: tuple[int, ...], y: float) -> None:
        rows = self.rows
        for part in _SUBSETS:
            row = rows.setdefault((part, *[scope[j] for j in part]), [0, 0.0, 0.0])
            row[0] += 1
            row[1] += y
            row[2] += y * y


# ------------------------------------------------------------------ the works


def _capped(n: int, rounds: int) -> Iterator[dict[str, Any]]:
    """At most three dims."""
    trades = _trades(n)
    small = {dim: trades.codes[:, j].astype(np.int8) for j, dim in enumerate(_DIMS)}
    cells = lattice(trades, **_PLAIN)
    peers: dict[str, float] = {}
    theirs = max(1, rounds // 2) if n <= 100_000 else 1
    if duckdb := _peer("duckdb"):
        duck = _Duck(duckdb, small, trades.y)
        _same("DuckDB", cells, *_duck_cells(duck.capped()))
        peers["DuckDB GROUPING SETS"] = _best(duck.capped, theirs)
    if pl := _peer("polars"):
        polars = _Polars(pl, small, trades.y)
        _same("polars", cells, *_frame_cells(polars.eager()))
        _same("polars lazy", cells, *_frame_cells(polars.lazy()))
        peers["polars per subset"] = min(_best(polars.eager, theirs), _best(polars.lazy, theirs))
    if (pd := _peer("pandas")) and n <= 100_000:
        pandas = _Pandas(pd, small, trades.y)
        _same("pandas", cells, *_frame_cells(pandas.eager()))
        peers["pandas per subset"] = _best(pandas.eager, theirs)
    yield _score(f"k<=3, n sum sum2, {n} trades", _best(lambda: lattice(trades, **_PLAIN), rounds), peers)
    lattice(trades)
    yield _score(f"k<=3, all moments and clusters, {n} trades", _best(lambda: lattice(trades), rounds), {})
    texts = _texts(trades)
    peers = {}
    if duckdb:
        duck = _Duck(duckdb, texts, trades.y)
        peers["DuckDB GROUPING SETS"] = _best(duck.capped, theirs)
    if pl:
        polars = _Polars(pl, texts, trades.y)
        peers["polars per subset"] = min(_best(polars.eager, theirs), _best(polars.lazy, theirs))

    def whole() -> None:
        lattice(encode(texts, trades.y, trades.ts, trades.cluster), **_PLAIN)

    yield _score(f"k<=3, n sum sum2, from texts, {n} trades", _best(whole, rounds), peers)


def _full_depth(n: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Every depth with support 33."""
    trades = _trades(n)
    every = iceberg(trades, _SUPPORT, closed=False, **_PLAIN)
    closed = iceberg(trades, _SUPPORT, **_PLAIN)
    named = expanded(closed)
    _same("closed cells, expanded,", every, named.codes, named.sums[:, [0, 2, 3]])
    peers: dict[str, float] = {}
    if duckdb := _peer("duckdb"):
        small = {dim: trades.codes[:, j].astype(np.int8) for j, dim in enumerate(_DIMS)}
        duck = _Duck(duckdb, small, trades.y)
        _same("DuckDB CUBE", every, *_duck_cells(duck.cube()))
        peers["DuckDB CUBE(10)"] = _best(duck.cube, 3)
    if (miner := _peer("divexplorer")) and (pd := _peer("pandas")):
        frame = pd.DataFrame({**{dim: trades.codes[:, j] for j, dim in enumerate(_DIMS)}, "y": trades.y})

        def mine() -> Any:
            explorer = miner.DivergenceExplorer(frame)
            return explorer.get_pattern_divergence((_SUPPORT - 0.5) / n, quantitative_outcomes=["y"])

        _same_patterns(every, mine(), n)
        peers["DivExplorer"] = _best(mine, 2)
    direct = _best(lambda: iceberg(trades, _SUPPORT, closed=False, **_PLAIN), rounds)
    yield _score(f"full depth, support 33, all cells, {n} trades", direct, peers, cells=len(every))
    both = _best(lambda: expanded(iceberg(trades, _SUPPORT, **_PLAIN)), rounds)
    yield _score(f"full depth, support 33, closed cells then expanded, {n} trades", both, peers, closed=len(closed))
    iceberg(trades, _SUPPORT)
    with ThreadPoolExecutor(2) as pool:
        iceberg(trades, _SUPPORT, closed=False, run=pool.map, **_PLAIN)
        double = _best(lambda: iceberg(trades, _SUPPORT, closed=False, run=pool.map, **_PLAIN), rounds)
    yield _score(f"full depth, support 33, all cells, two threads, {n} trades", double, peers)
    moments = _best(lambda: iceberg(trades, _SUPPORT), rounds)
    yield _score(f"full depth, support 33, all moments and clusters, {n} trades", moments, {})


def _same_patterns(cells: Cells, found: Any, n: int) -> None:
    """End the run if the miner's item sets are not our cells, with the same n and mean."""
    ours = {
        frozenset(f"{dim}={cells.levels[_DIMS.index(dim)].index(value)}" for dim, value in scope.items()): row
        for _, scope, row in cells.rows()
    }
    theirs = dict(zip(map(frozenset, found["itemset"]), zip(found["support"], found["y"], strict=True), strict=True))
    if ours.keys() != theirs.keys():
        raise SystemExit(f"DivExplorer has other cells: {len(theirs)} against {len(ours)}")
    for items, (support, mean) in theirs.items():
        row = ours[items]
        if abs(support * n - row["n"]) > 1e-6 or abs(mean - row["sum_y"] / row["n"]) > 1e-9:
            raise SystemExit(f"DivExplorer has other sums at {set(items)}")


def _reference(n: int, rounds: int, sample: int = 24) -> Iterator[dict[str, Any]]:
    """Rows read again per trade and per subset; and one trade at a time."""
    trades = _trades(n)
    texts = _texts(trades)
    peers: dict[str, float] = {}
    if pd := _peer("pandas"):
        frame = pd.DataFrame({**{dim: trades.codes[:, j] for j, dim in enumerate(_DIMS)}, "y": trades.y})
        ours = {
            tuple((dim, trades.levels[_DIMS.index(dim)].index(value)) for dim, value in scope.items()): row
            for _, scope, row in lattice(trades, **_PLAIN).rows()
        }
        for key, (count, total, squares) in _naive(frame, n - 1).items():
            row = ours[key]
            if count != row["n"] or abs(total - row["sum_y"]) > 1e-9 or abs(squares - row["sum_y2"]) > 1e-9:
                raise SystemExit(f"the reference's way has other sums at {key}")
        start = time.perf_counter()
        for last in np.linspace(0, n - 1, sample).astype(int).tolist():
            _naive(frame, last)
        peers["pandas, per trade and subset"] = (time.perf_counter() - start) / sample * n
    how = {"extrapolated": f"pandas measured on {sample} of {n} trades, evenly spread"}
    batch = _best(lambda: lattice(trades, **_PLAIN), rounds)
    yield _score(f"learn {n} trades in one go, k<=3, n sum sum2", batch, peers, **how)
    at = int(trades.ts.max())
    scopes, y = [tuple(row) for row in trades.codes.tolist()], trades.y.tolist()
    singles = [
        (at, [str(i)], {dim: [column[i]] for dim, column in texts.items()}, trades.y[i : i + 1], trades.ts[i : i + 1],
         trades.cluster[i : i + 1])
        for i in range(n)
    ]  # fmt: skip

    def one_by_one() -> CellBook:
        book = CellBook(_DIMS)
        for single in singles:
            book.update(*single)
        return book

    def dicts() -> None:
        sums = _Dicts()
        for scope, value in zip(scopes, y, strict=True):
            sums.add(scope, value)

    _equal_books(one_by_one(), trades, at)
    peers["dict of n, sum, sum2"] = _best(dicts, 1)
    yield _score(f"learn {n} trades one by one, k<=3, all moments and clusters", _best(one_by_one, 1), peers, **how)


def _equal_books(book: CellBook, trades: Coded, at: int) -> None:
    """End the run if a book is not the lattice of its trades to 1e-9."""
    got, want = book.cells(), lattice(trades, at=at)
    if got.levels != want.levels or not np.array_equal(got.codes, want.codes):
        raise SystemExit("the book has other cells than the lattice of its trades")
    error = float((np.abs(got.sums - want.sums) / np.maximum(1.0, np.abs(want.sums))).max())
    if not error <= 1e-9:
        raise SystemExit(f"the book is off by {error} from the lattice of its trades")


def _incremental(n: int, rounds: int, more: int = 1000) -> Iterator[dict[str, Any]]:
    """New trades, and corrections of old ones, into a book of ``n``; the whole way from texts."""
    trades = _trades(n + rounds * more)
    texts, at = _texts(trades), int(trades.ts.max())
    ids = [f"trade {i}" for i in range(len(trades))]

    def part(rows: Any) -> tuple[Any, ...]:
        columns = {dim: [column[i] for i in rows] for dim, column in texts.items()}
        index = np.asarray(rows)
        return [ids[i] for i in rows], columns, trades.y[index], trades.ts[index], trades.cluster[index]

    first = part(range(n))
    at_first = int(trades.ts[n - 1])

    def rebuilt() -> CellBook:
        book = CellBook(_DIMS)
        book.update(at_first, *first)
        return book

    small = CellBook(_DIMS)
    small.update(at_first, *part(range(2000)))
    book = rebuilt()
    whole = _best(rebuilt, 2)
    counted = _best(lambda: lattice(trades.take(np.arange(n))), 2)
    peers = {"rebuild of the book": whole, "lattice of all trades, from codes": counted}
    figures = []
    for k in range(rounds):
        rows = part(range(n + k * more, n + (k + 1) * more))
        start = time.perf_counter()
        book.update(int(rows[3].max()), *rows)
        figures.append(time.perf_counter() - start)
    _equal_books(book, trades, at)
    yield _score(f"{more} new trades into a book of {n}", sorted(figures)[rounds // 2], peers, figure="median")
    figures, y = [], trades.y.copy()
    rng = np.random.default_rng(7)
    for _ in range(rounds):
        rows = rng.choice(n, more, replace=False)
        names, columns, values, ts, cluster = part(rows.tolist())
        y[rows] = values = values + 0.25
        trades = Coded(_DIMS, trades.levels, trades.codes, y, trades.ts, trades.cluster, {})
        start = time.perf_counter()
        book.update(at, names, columns, values, ts, cluster)
        figures.append(time.perf_counter() - start)
    _equal_books(book, trades, at)
    yield _score(f"{more} corrections all over a book of {n}", sorted(figures)[rounds // 2], peers, figure="median")
    figures = []
    for i in rng.choice(n, 200, replace=False).tolist():
        names, columns, values, ts, cluster = part([i])
        start = time.perf_counter()
        book.update(at, names, columns, values + 0.5, ts, cluster)
        figures.append(time.perf_counter() - start)
    yield _score(f"one correction in a book of {n}", sorted(figures)[100], peers, figure="median of 200")


def _memory(n: int) -> Iterator[dict[str, Any]]:
    """Peak resident memory of a fresh process that makes the trades and their lattice, data included."""
    for kind in ("basic", "full"):
        done = subprocess.run(
            [sys.executable, __file__, "--peak", kind, str(n)], check=True, capture_output=True, text=True
        )
        peak, seconds = map(float, done.stdout.split())
        yield {
            "name": "lattice", "work": f"peak memory, {kind} moments, k<=3, {n} trades", "unit": "MB",
            "ours": round(peak), "peer": {}, "times_better": {}, "seconds": round(seconds, 3),
        }  # fmt: skip


def _peak(kind: str, n: int) -> None:
    options: dict[str, Any] = _PLAIN if kind == "basic" else {}
    lattice(_trades(2000), **options)
    trades = _trades(n)
    start = time.perf_counter()
    lattice(trades, **options)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a child may be that of its parent
        peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / 1024, seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per figure, the best counts (default 5)")
    parser.add_argument("--only", default="", help="only the groups whose name contains this")
    parser.add_argument("--peak", nargs=2, metavar=("KIND", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        _peak(options.peak[0], int(options.peak[1]))
        return
    rounds = options.rounds
    groups: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "capped 100k": lambda: _capped(100_000, rounds),
        "capped 1M": lambda: _capped(1_000_000, max(1, rounds // 2)),
        "memory": lambda: _memory(1_000_000),
        "depth": lambda: _full_depth(10_000, rounds),
        "reference": lambda: _reference(5_000, rounds),
        "incremental": lambda: _incremental(1_000_000, rounds),
    }
    for name, group in groups.items():
        if options.only not in name:
            continue
        for score in group():
            if options.json:
                print(json.dumps(score), flush=True)
            else:
                better = ", ".join(f"{x:g}x {peer}" for peer, x in score["times_better"].items())
                print(f"{score['work']:66s} {score['ours']:9.4g} {score['unit']}   {better}", flush=True)


if __name__ == "__main__":
    main()
