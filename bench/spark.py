"""The lattice on Spark against the lattice on one machine, from the same Parquet file, results checked equal.

Trades as in lattice.py: 10 dims of 4, 8, 6, 4, 3, 3, 3, 7, 6 and 2 levels, skewed, as texts; three years, clusters of
(token, entry day). All subsets of at most three dims; n, wins, sums, sums in whole ten-thousandths of an R, three
half-lives, cluster sums. Spark has two threads of this machine, is up (its start is told apart) and has done the work
on 1,000 trades before anything is timed, once per size. Ours has one thread for the statistics and two for reading,
best of three, and starts from the file, too ("from codes" is without reading and coding); it runs in a process of its
own, so that its memory can be told.

Run: ``python bench/spark.py [--json] [--sizes N,N]``; needs the extra [spark] and Java 17; one object per work.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from edgebook.adapters.spark import SparkRow, cells_in_order, spark_lattice, whole
from edgebook.domain.decay import DAY
from edgebook.learning.lattice import Cells, Coded, encode, lattice

_LEVELS = (4, 8, 6, 4, 3, 3, 3, 7, 6, 2)
_DIMS = tuple(f"d{j}" for j in range(len(_LEVELS)))
_SIZES = (10_000, 100_000, 1_000_000)
_MEMORY_GB = 16
_EXACT = ("n", "n_win", "sum_rr", "sum_rr2", "clusters", "sum_bb")


def _write(n: int, path: Path, seed: int = 1) -> None:
    """A file of ``n`` trades."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for j, count in enumerate(_LEVELS):
        weight = 1.0 / np.arange(1, count + 1)
        columns[f"dim_{_DIMS[j]}"] = rng.choice(count, size=n, p=weight / weight.sum())
    columns["y"] = rng.standard_t(4, n).clip(-3, 10)
    columns["ts"] = np.sort(rng.integers(0, 3 * 365 * DAY, n))
    columns["token"] = rng.integers(0, max(20, n // 3000), n)
    columns["entry_day"] = columns["ts"] // DAY
    texts = ", ".join(f"'level ' || dim_{dim} AS dim_{dim}" for dim in _DIMS)
    with duckdb.connect() as connection:
        connection.register("trades", columns)
        connection.execute(f"COPY (SELECT * REPLACE ({texts}, 'token ' || token AS token) FROM trades) TO '{path}'")


def _coded(path: Path) -> Coded:
    with duckdb.connect() as connection:
        connection.execute("SET threads TO 2")
        found = connection.execute(
            f"SELECT * EXCLUDE (token), dense_rank() OVER (ORDER BY token) AS token FROM '{path}' ORDER BY ts"
        ).fetchnumpy()
    y, cluster = np.asarray(found["y"]), found["token"] * 100_000 + found["entry_day"]
    return encode({dim: found[f"dim_{dim}"] for dim in _DIMS}, y, found["ts"], cluster, whole(y))


def _ours(path: Path, rounds: int) -> dict[str, float]:
    """Seconds from the file and from codes, best of ``rounds``, and peak memory of this process."""
    lattice(_coded(path))  # compiles what is not yet compiled
    best = {"file": math.inf, "codes": math.inf}
    for _ in range(rounds):
        start = time.perf_counter()
        coded = _coded(path)
        middle = time.perf_counter()
        lattice(coded)
        end = time.perf_counter()
        best = {"file": min(best["file"], end - start), "codes": min(best["codes"], end - middle)}
    return best | {"rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _in_child(path: Path, rounds: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--ours", str(path), "--rounds", str(rounds)], check=True, stdout=subprocess.PIPE
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _session() -> tuple[Any, float]:
    """A Spark session on two threads, and how long it took to be of use."""
    from pyspark.sql import SparkSession

    start = time.perf_counter()
    options = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "16",
        "spark.driver.memory": "8g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.log.level": "ERROR",
    }
    session = SparkSession.builder.master("local[2]").appName("bench").config(map=options).getOrCreate()
    session.range(1).count()
    return session, time.perf_counter() - start


def _asked(session: Any, path: Path) -> Any:
    return spark_lattice(session.read.parquet(str(path)), _DIMS, by=(), further=())


def _same(cells: Cells, rows: list[SparkRow]) -> None:
    """End the run if Spark's cells are not ours: whole numbers to the bit, the others to 1e-9."""
    if len(rows) != len(cells):
        raise SystemExit(f"Spark has {len(rows)} cells, ours are {len(cells)}")
    for (mask, scope, sums), row in zip(cells.rows(), rows, strict=True):
        if (mask, scope) != (row.mask, row.scope):
            raise SystemExit(f"Spark has another cell: {row.scope} against {scope}")
        for name, value in sums.items():
            tolerance = 0.0 if name in _EXACT else 1e-9
            if not math.isclose(value, row.sums[name], rel_tol=tolerance, abs_tol=tolerance):
                raise SystemExit(f"Spark has another {name} at {scope}: {row.sums[name]!r} against {value!r}")


def _measured(session: Any, n: int, folder: Path) -> dict[str, Any]:
    path = folder / f"{n}.parquet"
    _write(n, path)
    ours = _in_child(path, 3)
    start = time.perf_counter()
    rows = list(cells_in_order(_asked(session, path)))
    theirs = time.perf_counter() - start
    cells = lattice(_coded(path))
    _same(cells, rows)
    return {
        "name": "spark",
        "work": f"k<=3, all moments and clusters, from Parquet, {n} trades",
        "unit": "s",
        "ours": float(f"{ours['file']:.4g}"),
        "peer": {"Spark local[2]": float(f"{theirs:.4g}")},
        "times_better": {"Spark local[2]": float(f"{theirs / ours['file']:.3g}")},
        "ours_from_codes": float(f"{ours['codes']:.4g}"),
        "ours_rss_mb": round(ours["rss_mb"]),
        "cells_equal": len(cells),
        "trades": n,
    }


def _extrapolated(scores: list[dict[str, Any]], started: float) -> dict[str, Any]:
    """Straight lines through the two largest sizes: where ours needs too much memory, and where times would meet."""
    (n0, a), (n1, b) = ((score["trades"], score) for score in scores[-2:])
    step = n1 - n0
    memory = (b["ours_rss_mb"] - a["ours_rss_mb"]) / step
    seconds = (b["ours"] - a["ours"]) / step
    spark = (b["peer"]["Spark local[2]"] - a["peer"]["Spark local[2]"]) / step
    limit = n1 + (_MEMORY_GB * 1024 - b["ours_rss_mb"]) / memory
    return {
        "name": "spark",
        "work": f"extrapolated from {n0} and {n1} trades: trades at which ours needs {_MEMORY_GB} GB",
        "unit": "million trades",
        "ours": float(f"{limit / 1e6:.3g}"),
        "peer": {},
        "times_better": {},
        "ours_seconds_there": round(b["ours"] + seconds * (limit - n1)),
        "spark_two_core_seconds_there": round(b["peer"]["Spark local[2]"] + spark * (limit - n1)),
        "spark_cores_to_be_as_fast": math.ceil(2 * spark / seconds),
        "spark_start_up_seconds": float(f"{started:.3g}"),
        "bytes_per_trade": round(memory * 2**20),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per line")
    parser.add_argument("--sizes", default=_SIZES, type=_whole_numbers, help="numbers of trades, ascending")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ours:
        print(json.dumps(_ours(asked.ours, asked.rounds)))
        return
    try:
        session, started = _session()
    except ImportError as error:
        print(f"nothing is measured: {error}; pip install 'edgebook[spark]'", file=sys.stderr)
        return
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        _write(1_000, Path(folder) / "warm.parquet")
        list(cells_in_order(_asked(session, Path(folder) / "warm.parquet")))
        for n in asked.sizes:
            scores.append(_measured(session, n, Path(folder)))
            print(_line(scores[-1], asked.json), flush=True)
    if len(scores) > 1:
        print(_line(_extrapolated(scores, started), asked.json))
    session.stop()


def _whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted(map(int, text.split(","))))


def _line(score: dict[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps(score)
    told = {name: value for name, value in score.items() if name not in ("name", "work") and value not in ({}, None)}
    return f"{score['work']}\n  " + ", ".join(f"{name} {value}" for name, value in told.items())


if __name__ == "__main__":
    main()
