"""The lattice on Spark: the same rows as ``learning.lattice``, whole numbers to the bit, the others to 1e-9."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict

import numpy as np
import pytest
from tests.contracts.units import DAY, random_units
from tests.spark_session import spark

from edgebook.adapters.export_log import export_log
from edgebook.adapters.spark import PSEUDO_TRADES, cells_in_order, read_observations, spark_lattice, whole
from edgebook.adapters.sql import SqlStore
from edgebook.domain.errors import InputError
from edgebook.domain.scope import DM_SCHEMA, PM_SCHEMA
from edgebook.learning.config import DEFAULT
from edgebook.learning.lattice import cluster_variance, edges, encode, lattice

__all__ = ["spark"]

WHOLE = ("n", "n_win", "sum_rr", "sum_rr2", "clusters", "sum_bb")
FAMILY = ("module", "pattern_key", "action_category")


def our_rows(trades, dims, further, *, by=FAMILY, cluster=("token", "entry_day"), **asked):
    """Every cell of the lattice: (family, mask, scope) and its sums and statistics, family by family."""
    families = defaultdict(list)
    for trade in trades:
        families[tuple(trade[name] for name in by)].append(trade)
    at = asked.pop("at", None) or max(trade["ts"] for trade in trades)
    found = []
    for family, own in sorted(families.items()):
        numbers = {key: i for i, key in enumerate({tuple(t[name] for name in cluster) for t in own})}
        y = np.array([t["y"] for t in own])
        coded = encode(
            {dim: [t[f"dim_{dim}"] for t in own] for dim in dims},
            y,
            [t["ts"] for t in own],
            [numbers[tuple(t[name] for name in cluster)] for t in own] if cluster else None,
            {name: [t[name] for t in own] for name in further} | whole(y),
        )
        everything = lattice(coded, **asked | {"support": 1}, at=at)
        base = everything.sum_y[0] / (everything.n[0] + DEFAULT.baseline_pseudo_trades)
        cells = everything.at_least(asked.get("support", 1))
        variance = cluster_variance(cells)[0]
        derived = zip(
            cells.mean.tolist(), cells.variance.tolist(), variance.tolist(), edges(cells, base).tolist(), strict=True
        )
        for (mask, scope, sums), (mean, spread, robust, edge) in zip(cells.rows(), derived, strict=True):
            robust = None if math.isnan(robust) else robust
            more = {"mean": mean, "variance": spread, "cluster_variance": robust, "edge_raw": edge}
            found.append((family, mask, scope, sums | more))
    return found


def assert_equal(cells, ours):
    """Same cells in the same order; whole numbers equal, others to 1e-9, the same columns."""
    theirs = list(cells_in_order(cells))
    assert [(tuple(r.family.values()), r.mask, list(r.scope.items())) for r in theirs] == [
        (family, mask, list(scope.items())) for family, mask, scope, _ in ours
    ]
    for got, (family, _, scope, sums) in zip(theirs, ours, strict=True):
        assert got.sums.keys() == sums.keys()
        for name, want in sums.items():
            value, where = got.sums[name], f"{family} {scope} {name}"
            if name in WHOLE:
                assert type(value) is int, where
                assert value == want, where
            elif want is None or value is None:
                assert value is want, where
            else:
                assert value == pytest.approx(want, rel=1e-9, abs=1e-9), where


def random_trades(count, seed):
    """Trades of two families under five dims: texts and whole numbers, every sort of absence, clusters of several."""
    rng = random.Random(seed)
    return [
        {
            "family": rng.choice("ab"),
            "token": rng.choice("xyz"),
            "entry_day": rng.randrange(9),
            "y": rng.choice([0.0, rng.gauss(0.2, 1.5), round(rng.gauss(0, 1), 3)]),
            "ts": rng.randrange(400 * DAY),
            "roi": rng.gauss(0, 1),
            "time_efficiency": rng.random(),
            "dim_a": rng.choice(["x", "y", "z", "", "Unknown", "UNKNOWN", None]),
            "dim_b": rng.choice([-1, 0, 7, 10, None]),
            "dim_c": rng.choice(["10", "9", "é", "~", "it's"]),
            "dim_d": None,
            "dim_e": f"level {rng.randrange(60)}",
        }
        for _ in range(count)
    ]


_SCHEMA = (
    "family string, token string, entry_day bigint, y double, ts bigint, roi double, time_efficiency double,"
    " dim_a string, dim_b int, dim_c string, dim_d string, dim_e string"
)
DIMS = ("a", "b", "c", "d", "e")
FURTHER = ("roi", "time_efficiency")


def frame(spark, trades):
    return spark.createDataFrame([tuple(trade.values()) for trade in trades], _SCHEMA)


@pytest.mark.parametrize(
    ("count", "asked"),
    [
        (500, {}),
        (300, {"depth": 5, "support": 3, "half_lives_days": (3.5,), "at": 500 * DAY}),
        (40, {"depth": 1, "half_lives_days": ()}),
        (1, {"depth": 0}),
    ],
)
def test_spark_and_the_lattice_give_equal_rows_on_random_trades(spark, count, asked):
    trades = random_trades(count, seed=count)

    cells = spark_lattice(frame(spark, trades), DIMS, by=("family",), further=FURTHER, **asked)

    assert_equal(cells, our_rows(trades, DIMS, FURTHER, by=("family",), **asked))


def test_without_clusters_each_trade_is_its_own(spark):
    trades = random_trades(200, seed=3)
    asked = {"by": (), "cluster": (), "depth": 2}

    cells = spark_lattice(frame(spark, trades), DIMS, further=(), **asked)

    assert_equal(cells, our_rows(trades, DIMS, (), **asked))


def test_no_trades_give_no_cells(spark):
    cells = spark_lattice(frame(spark, []), DIMS, by=(), cluster=(), further=())

    assert list(cells_in_order(cells)) == []


def test_without_dims_there_is_the_root_alone(spark):
    trades = random_trades(20, seed=6)

    cells = spark_lattice(frame(spark, trades), (), by=(), cluster=(), further=("roi",))

    assert_equal(cells, our_rows(trades, (), ("roi",), by=(), cluster=()))


def test_rows_and_order_of_trades_do_not_matter_to_whole_sums(spark):
    trades = random_trades(300, seed=4)
    other = random.Random(5).sample(trades, len(trades))
    rows = [
        [(r.mask, r.scope, [r.sums[name] for name in WHOLE]) for r in cells_in_order(cells)]
        for cells in (
            spark_lattice(frame(spark, trades), DIMS, by=(), further=()),
            spark_lattice(frame(spark, other).repartition(7), DIMS, by=(), further=()),
        )
    ]

    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A folder that an export of a book with units of evidence wrote, and the units."""
    folder, units = tmp_path_factory.mktemp("export"), random_units(400, seed=9)
    url = f"sqlite:///{folder / 'book.db'}"
    with SqlStore(url).writer() as uow:
        for unit in units:
            uow.observations.put(unit)
        uow.commit()
    export_log(url, folder / "out")
    return folder / "out", units


@pytest.mark.parametrize("schema", [PM_SCHEMA, DM_SCHEMA], ids=["pm", "dm"])
def test_spark_and_the_lattice_give_equal_rows_on_an_exported_book(spark, export, schema):
    out, units = export
    further = ("roi", "pnl_usd", "hold_days", "time_efficiency")
    trades = [
        {name: getattr(unit, name) for name in (*FAMILY, "token", "y", "ts", *further)}
        | {"entry_day": unit.day, **{f"dim_{dim}": unit.scope.get(dim) for dim in schema.dims}}
        for unit in units
        if unit.module == schema.name
    ]

    cells = spark_lattice(read_observations(str(out), spark).where(f"module = '{schema.name}'"), schema.dims, depth=2)

    assert_equal(cells, our_rows(trades, schema.dims, further, depth=2))


def test_a_folder_is_read_directly(spark, export):
    out, units = export

    cells = spark_lattice(str(out), ["chain", "timeframe"], depth=1, session=spark)

    roots = [row.sums["n"] for row in cells_in_order(cells) if row.mask == 0]
    assert sum(roots) == len(units)


def test_the_baseline_is_that_of_learning():
    assert DEFAULT.baseline_pseudo_trades == PSEUDO_TRADES


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y": float("nan")}, r"column y lacks a finite number in 1 rows"),
        ({"y": None}, r"column y lacks a finite number in 1 rows"),
        ({"roi": float("inf")}, r"column roi lacks a finite number in 1 rows"),
        ({"token": None}, r"column token lacks a value in 1 rows"),
        ({"family": None}, r"column family lacks a value in 1 rows"),
        ({"ts": None}, r"column ts lacks a value in 1 rows"),
        ({"ts": 900 * DAY}, r"closes at 77760000000000, after the moment 43200000000000"),
    ],
)
def test_a_bad_row_is_refused(spark, change, said):
    trades = random_trades(20, seed=1)
    trades[7] |= change

    with pytest.raises(InputError, match=said):
        spark_lattice(frame(spark, trades), DIMS, by=("family",), further=("roi",), at=500 * DAY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dims": ("a", "f")}, "no column dim_f; they have family, token"),
        ({"dims": ("a", "a")}, "must differ"),
        ({"cluster": ("contract",)}, "no column contract"),
        ({"further": ("token",)}, "column token is string; it must be double or"),
        ({"depth": -1}, "depth must be 0 or more"),
        ({"support": 0}, "support 1 or more"),
        ({"half_lives_days": (10.0, 10.0)}, "different positive days"),
        ({"dims": tuple(f"d{i}" for i in range(61))}, "at most 63"),
    ],
)
def test_a_bad_argument_is_refused(spark, change, said):
    asked = {"dims": DIMS, "by": ("family",), "further": FURTHER} | change

    with pytest.raises(InputError, match=said):
        spark_lattice(frame(spark, random_trades(5, seed=1)), **asked)


def test_a_folder_that_is_no_whole_export_is_refused(spark, export, tmp_path):
    out, _ = export
    with pytest.raises(InputError, match=r"no manifest\.json"):
        spark_lattice(str(tmp_path), DIMS, session=spark)

    (tmp_path / "manifest.json").write_text("")
    with pytest.raises(InputError, match="not the manifest of an export"):
        spark_lattice(str(tmp_path), DIMS, session=spark)

    (tmp_path / "observations").symlink_to(out / "observations")
    manifest = json.loads((out / "manifest.json").read_text())
    for rows, said in ((401, "holds 400 observations, its manifest says 401"), (0, "holds no observations")):
        manifest["datasets"]["observations"]["rows"] = rows
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=said):
            spark_lattice(str(tmp_path), DIMS, session=spark)
