"""The lattice on Spark: the rows of `learning.lattice` for trades beyond one machine (learning.md 3, 9.1, 9.8).

Cluster sums do not roll up, so there are two levels: GROUPING SETS over scope subsets within each cluster, then each
cell over its clusters. Sums of rr and of its square are also formed in whole ten-thousandths of an R, where the order
of adding cannot matter: these are equal to the bit on every engine, the others to rounding. Needs Java 17 and the extra
``[spark]``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError
from edgebook.domain.scope import ScopeValue
from edgebook.learning.lattice import HALF_LIVES_DAYS, column_names

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FAMILY = ("module", "pattern_key", "action_category")
CLUSTER = ("token", "entry_day")
FURTHER = ("roi", "pnl_usd", "hold_days", "time_efficiency")
PSEUDO_TRADES = 10.0
"""Trades at break-even that a family's baseline is shrunk with: the learning settings' default."""
SCALE = 10_000
"""Parts of an R that whole sums count. Up to 10 R, doubles hold sums of 900,000 squares of them exactly."""

_MOST_COLUMNS = 63  # Spark numbers grouping sets with one bit per grouped column
_WHOLE = ("bigint", "int", "smallint", "tinyint")


class SparkRow(NamedTuple):
    """One cell: its family, mask, scope, and sums and statistics by column name; NULL is None."""

    family: dict[str, Any]
    mask: int
    scope: dict[str, ScopeValue]
    sums: dict[str, Any]


def whole(y: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Columns ``rr`` and ``rr2``, ten-thousandths of an R and their squares, as further sums of a `Coded`: the lattice
    then sums the same whole numbers as `spark_lattice`.

    >>> whole(np.array([1.23456, -0.5]))
    {'rr': array([12346., -5000.]), 'rr2': array([1.52423716e+08, 2.50000000e+07])}
    """
    parts = np.rint(y * SCALE)
    return {"rr": parts, "rr2": parts * parts}


def read_observations(path: str, session: SparkSession | None = None) -> DataFrame:
    """The units of evidence of a folder that ``edgebook export`` wrote, on any file system Spark reads.

    Raises:
        InputError: pyspark is not installed, or the folder has no manifest or other rows than that says.
    """
    spark = session or _session()
    folder = path.rstrip("/")
    wanted = _manifest(spark, folder)["datasets"]["observations"]["rows"]
    if not wanted:
        raise InputError(f"{path} holds no observations: there is nothing to learn from yet")
    found = spark.read.parquet(f"{folder}/observations")
    if (rows := found.count()) != wanted:
        raise InputError(f"{path} holds {rows} observations, its manifest says {wanted}: export it again")
    return found


def spark_lattice(
    source: str | DataFrame,
    dims: Sequence[str],
    depth: int = 3,
    half_lives_days: Sequence[float] = HALF_LIVES_DAYS,
    *,
    at: int | None = None,
    support: int = 1,
    by: Sequence[str] = FAMILY,
    cluster: Sequence[str] = CLUSTER,
    further: Sequence[str] = FURTHER,
    pseudo_trades: float = PSEUDO_TRADES,
    session: SparkSession | None = None,
) -> DataFrame:
    """Statistics of every scope subset of at most ``depth`` dims, the root included, per family.

    Args:
        source: folder of an export, or a data frame with columns ``y`` (R), ``ts`` (closing, microseconds UTC),
            ``dim_<name>`` (text or whole numbers) and those of ``by``, ``cluster`` and ``further``.
        dims: names, in bit order of the masks; a value that is NULL, "" or "Unknown" forms no slice.
        at: moment the decayed moments are for; by default the last ``ts`` of all families.
        support: cells with fewer trades are left out.
        by: columns that make a family.
        cluster: columns that make a cluster; none: each trade its own.
        further: columns that are summed as well; with ``time_efficiency`` the edge counts it.

    Returns:
        One row per cell, in no order: the columns of ``by``, ``mask``, ``dim_<name>`` (NULL outside the mask), ``n``,
        ``n_win``, ``sum_y``, ``sum_y2``, whole ``sum_rr``, ``sum_rr2``, the further sums, W, W2, S1, S2 per half-life
        (``w_10d`` ...), ``clusters``, ``sum_aa``, ``sum_ab``, ``sum_bb``, and ``mean``, ``variance``,
        ``cluster_variance`` (NULL for fewer than two clusters), ``edge_raw``.

    Raises:
        InputError: columns that are missing or of another type, a row without family or cluster, a y that is not
            finite, a trade after ``at``, or an argument out of range.
    """
    _check_arguments(dims, depth, half_lives_days, support, (*by, *cluster))
    frame = read_observations(source, session) if isinstance(source, str) else source
    _check_columns(frame, dims, further, (*by, *cluster))
    moment = _check_rows(frame, (*by, *cluster), further, at)
    work = _Work(tuple(dims), min(depth, len(dims)), tuple(half_lives_days), tuple(by), tuple(cluster), tuple(further))
    rows = _prepared(frame, work, moment)
    return _finished(_cells(rows, work), rows, work, support, pseudo_trades)


def cells_in_order(cells: DataFrame) -> Iterator[SparkRow]:
    """The cells family by family in the lattice's order: mask, then level values dim by dim."""
    names = cells.columns
    place = names.index("mask")
    family = names[:place]
    dims = [name for name in names[place + 1 :] if name.startswith("dim_")]
    sums = names[place + 1 + len(dims) :]
    for row in cells.orderBy(*map(_q, (*family, "mask", *dims))).toLocalIterator():
        scope = {dim.removeprefix("dim_"): row[dim] for dim in dims if row[dim] is not None}
        yield SparkRow({n: row[n] for n in family}, row["mask"], scope, {n: row[n] for n in sums})


class _Work(NamedTuple):
    """What is asked for; ``depth`` is at most the number of dims."""

    dims: tuple[str, ...]
    depth: int
    half_lives_days: tuple[float, ...]
    by: tuple[str, ...]
    cluster: tuple[str, ...]
    further: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """Names of the dims' columns."""
        return [f"dim_{dim}" for dim in self.dims]

    @property
    def subsets(self) -> list[tuple[str, ...]]:
        """Columns of every subset of dims, the empty one first."""
        return [part for size in range(self.depth + 1) for part in combinations(self.columns, size)]

    @property
    def finite(self) -> list[float]:
        """Half-lives that are not infinite."""
        return [h for h in self.half_lives_days if math.isfinite(h)]

    @property
    def summed(self) -> list[str]:
        """Names of the sums that add over clusters."""
        names = column_names(self.further, tuple(self.finite), False)
        return [*names[:4], "sum_rr", "sum_rr2", *names[4:]]


# ---------------------------------------------------------------- checks


def _session() -> SparkSession:
    """The running session, or a new one."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise InputError("Spark needs pyspark, which is not installed: pip install 'edgebook[spark]'") from None
    found: SparkSession = SparkSession.builder.appName("edgebook").getOrCreate()
    return found


def _manifest(spark: SparkSession, folder: str) -> dict[str, Any]:
    from pyspark.errors import AnalysisException

    try:
        row = spark.read.text(f"{folder}/manifest.json", wholetext=True).head()
        found: dict[str, Any] = json.loads(row[0] if row is not None else "")
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        raise InputError(f"{folder} has no manifest.json: it is no export, or none that came to its end") from error
    except ValueError as error:
        raise InputError(f"{folder}/manifest.json is not the manifest of an export ({error})") from error
    return found


def _check_arguments(
    dims: Sequence[str], depth: int, half_lives_days: Sequence[float], support: int, grouped: Sequence[str]
) -> None:
    if depth < 0 or support < 1:
        raise InputError(f"depth must be 0 or more and support 1 or more, were {depth} and {support}")
    if any(not h > 0 for h in half_lives_days) or len(set(half_lives_days)) != len(half_lives_days):
        raise InputError(f"half-lives must be different positive days, were {tuple(half_lives_days)}")
    if len(set(dims)) != len(dims) or len(set(grouped)) != len(grouped):
        raise InputError(f"dims, and columns of family and cluster, must differ, were {', '.join([*dims, *grouped])}")
    if len(dims) + len(grouped) > _MOST_COLUMNS:
        raise InputError(f"dims, family and cluster have {len(dims) + len(grouped)} columns; at most {_MOST_COLUMNS}")


def _check_columns(frame: DataFrame, dims: Sequence[str], further: Sequence[str], grouped: Sequence[str]) -> None:
    types = dict(frame.dtypes)
    number = ("double", "float", *_WHOLE)
    wanted: dict[str, tuple[str, ...]] = {"y": ("double",), "ts": ("bigint",), **dict.fromkeys(further, number)}
    wanted |= {f"dim_{dim}": ("string", *_WHOLE) for dim in dims}
    for name in (*wanted, *grouped):
        if name not in types:
            raise InputError(f"the trades have no column {name}; they have {', '.join(types)}")
        if name in wanted and types[name] not in wanted[name]:
            raise InputError(f"column {name} is {types[name]}; it must be {' or '.join(wanted[name])}")


def _check_rows(frame: DataFrame, present: Sequence[str], further: Sequence[str], at: int | None) -> int:
    """The moment to decay to, after one look at every row."""
    finite = [f"coalesce(abs(CAST({_q(name)} AS DOUBLE)) < double('Infinity'), false)" for name in ("y", *further)]
    given = [f"{_q(name)} IS NOT NULL" for name in ("ts", *present)]
    counts = [f"count_if(NOT ({fine}))" for fine in (*finite, *given)]
    found = frame.selectExpr("max(ts)", *counts).head()
    assert found is not None  # an aggregate over everything is one row
    for name, n, fine in zip(("y", *further, "ts", *present), found[1:], (*finite, *given), strict=True):
        if n:
            right = "a finite number" if fine in finite else "a value"
            raise InputError(f"column {name} lacks {right} in {n} rows")
    last = int(found[0] or 0)
    if at is not None and last > at:
        raise InputError(f"a trade closes at {last}, after the moment {at} the cells are for")
    return last if at is None else at


# ---------------------------------------------------------------- the statistics


def _prepared(frame: DataFrame, work: _Work, at: int) -> DataFrame:
    """Rows with what is summed of each: absent dim values NULL, weights, whole rr."""
    types = dict(frame.dtypes)
    dims = [
        f"CASE WHEN lower({_q(name)}) NOT IN ('', 'unknown') THEN {_q(name)} END AS {_q(name)}"
        if types[name] == "string"
        else f"CAST({_q(name)} AS BIGINT) AS {_q(name)}"
        for name in work.columns
    ]
    finite = work.finite
    weights = [f"pow(2D, CAST(ts - {at} AS DOUBLE) / {h * DAY!r}D) AS w{i}" for i, h in enumerate(finite)]
    # Each once per row, not once per row and subset.
    first = ["y", f"CAST(rint(y * {SCALE}D) AS BIGINT) AS rr", *weights, *map(_q, work.further)]
    kept = [_q(name) for name in (*work.by, *work.cluster)]
    values = ["1L", "CAST(y > 0 AS BIGINT)", "y", "y * y", "rr", "rr * rr"]
    values += [f"CAST({_q(name)} AS DOUBLE)" for name in work.further]
    for i in range(len(finite)):
        values += [f"w{i}", f"w{i} * w{i}", f"w{i} * y", f"w{i} * y * y"]
    named = [f"{value} AS {_q(name)}" for value, name in zip(values, work.summed, strict=True)]
    return frame.selectExpr(*kept, *dims, *first).selectExpr(*kept, *map(_q, work.columns), *named)


def _cells(rows: DataFrame, work: _Work) -> DataFrame:
    """Everything that is summed, per family and subset.

    What adds is summed at once, a few values per cell to send about. Cluster sums need the sums of each cluster in each
    cell, nearly as many groups as trades times subsets, so nothing but A and B goes that way. Both meet in a union.
    """
    added = _grouping_sets(rows, work, work.by, work.summed)
    if not work.cluster:  # a trade alone in its cluster has A = y and B = 1
        alone = ("n AS clusters", "sum_y2 AS sum_aa", "sum_y AS sum_ab", "n AS sum_bb")
        return added.selectExpr("*", *alone)
    keys = ", ".join(map(_q, (*work.by, "mask", *work.columns)))
    parts = _grouping_sets(rows, work, (*work.by, *work.cluster), ("n", "sum_y"))
    squares = "sum(sum_y * sum_y) AS sum_aa, sum(sum_y * n) AS sum_ab, sum(n * n) AS sum_bb"
    query = f"SELECT {keys}, count(*) AS clusters, {squares} FROM {{parts}} GROUP BY {keys}"
    squared = rows.sparkSession.sql(query, parts=parts)
    both = added.unionByName(squared, allowMissingColumns=True)
    names = (*work.summed, "clusters", "sum_aa", "sum_ab", "sum_bb")
    sums = ", ".join(f"sum({_q(name)}) AS {_q(name)}" for name in names)
    return rows.sparkSession.sql(f"SELECT {keys}, {sums} FROM {{both}} GROUP BY {keys}", both=both)


def _grouping_sets(rows: DataFrame, work: _Work, always: Sequence[str], summed: Sequence[str]) -> DataFrame:
    """Sums by ``always`` and each subset of dims; a group whose dim has no value is no slice."""
    sets = ", ".join("({})".format(", ".join(map(_q, (*always, *part)))) for part in work.subsets)
    bits = [f"shiftleft(CAST(1 - grouping({_q(name)}) AS BIGINT), {i})" for i, name in enumerate(work.columns)]
    slices = [f"(grouping({_q(name)}) = 1 OR {_q(name)} IS NOT NULL)" for name in work.columns]
    grouped = ", ".join(map(_q, (*always, *work.columns)))
    columns = [
        *map(_q, always),
        f"{' + '.join(['0L', *bits])} AS mask",
        *map(_q, work.columns),
        *(f"sum({_q(name)}) AS {_q(name)}" for name in summed),
    ]
    query = f"""
        SELECT {", ".join(columns)} FROM {{rows}}
        GROUP BY {grouped} GROUPING SETS ({sets})
        HAVING {" AND ".join(["true", *slices])}"""
    return rows.sparkSession.sql(query, rows=rows)


def _finished(cells: DataFrame, rows: DataFrame, work: _Work, support: int, pseudo_trades: float) -> DataFrame:
    """Mean, variances and edge of each cell (the formulas of `Cells`, `cluster_variance` and `edge_raw`)."""
    by = [_q(name) for name in work.by]
    bases = (
        f"SELECT {''.join(f'{name}, ' for name in by)} sum(sum_y) / (sum(n) + {pseudo_trades!r}D) AS base FROM {{rows}}"
    )
    bases += f" GROUP BY {', '.join(by)}" if by else ""
    found = rows.sparkSession.sql(bases, rows=rows).hint("broadcast")
    kept = cells.where(f"n >= {support}")
    joined = kept.join(found, list(work.by)) if by else kept.crossJoin(found)
    time = "0.5D + 0.5D * sum_time_efficiency / n" if "time_efficiency" in work.further else "1D"
    spread = "greatest(0D, sum_aa - 2D * mean * sum_ab + mean * mean * sum_bb)"
    steps = {
        "mean": "sum_y / n",
        "variance": "greatest(0D, sum_y2 / n - mean * mean)",
        "cluster_variance": f"CASE WHEN clusters > 1 THEN clusters / (clusters - 1D) * {spread} / n / n END",
        "edge_raw": f"(mean - base) / (1D + variance) / (1D + variance) * log1p(n) * ({time} + 1.5D) / 3D",
    }
    timeless = {"w": "CAST(n AS DOUBLE)", "w2": "CAST(n AS DOUBLE)", "s1": "sum_y", "s2": "sum_y2"}
    if math.inf in work.half_lives_days:  # every trade weighs 1
        steps |= {f"{name}_infd": value for name, value in timeless.items()}
    for name, value in steps.items():
        joined = joined.selectExpr("*", f"{value} AS {name}")
    names = column_names(work.further, work.half_lives_days, True)
    sums = [*names[:4], "sum_rr", "sum_rr2", *names[4:]]
    ordered = [*work.by, "mask", *work.columns, *sums, "mean", "variance", "cluster_variance", "edge_raw"]
    return joined.select(*map(_q, ordered))


def _q(name: str) -> str:
    """A column's name in Spark SQL."""
    return "`" + name.replace("`", "``") + "`"
