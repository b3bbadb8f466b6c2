"""The lattice engine by hand: codes, cells, what follows from the sums, the cover of subsets, refusals."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
from tests.lattice_oracle import Trade, disagreements, slices, sums

from edgebook.domain.decay import DAY, decay
from edgebook.domain.errors import LearningError
from edgebook.domain.scope import ScopeSchema, make_scope
from edgebook.learning import iceberg as iceberg_module
from edgebook.learning import lattice as lattice_module
from edgebook.learning.cell_book import CellBook
from edgebook.learning.coded import Coded, encode, is_absent
from edgebook.learning.iceberg import expanded, iceberg
from edgebook.learning.lattice import cluster_variance, edges, lattice

TWO = {"phase": ["Good", "Good", "Dip"], "rank": [1, 2, None]}


def by_scope(cells):
    return {tuple(scope.values()): row for _, scope, row in cells.rows()}


def random_rows(n, cards, seed=3, absent=0.1):
    """Rows with skewed levels and some absent values, and the trades they stand for."""
    rng = np.random.default_rng(seed)
    columns = {}
    for j, card in enumerate(cards):
        level = np.minimum(rng.geometric(min(0.4, 3 / card), n), card)
        columns[f"d{j}"] = [None if rng.random() < absent else int(v) for v in level]
    y, ts = rng.normal(0.1, 1.5, n).round(4), rng.integers(0, 400 * DAY, n)
    cluster = rng.integers(0, n // 2, n)
    trades = [
        Trade({d: c[i] for d, c in columns.items() if c[i] is not None}, float(y[i]), int(ts[i]), int(cluster[i]))
        for i in range(n)
    ]
    return encode(columns, y, ts, cluster, {"roi": np.zeros(n)}), trades


@pytest.mark.parametrize("value", [None, "", "Unknown", "unknown", "UNKNOWN", "Good", 0, 1, "0"])
def test_absent_is_what_a_scope_leaves_out(value):
    """The coder and ``make_scope`` agree on every kind of value."""
    assert is_absent(value) == (make_scope(ScopeSchema("x", ("a",)), {"a": value}) == ())


def test_numbers_and_texts_are_different_levels():
    """1 and "1" are two levels, numbers first; the columns may be arrays."""
    assert encode({"a": ["1", 1]}, [0, 0], [0, 0]).levels == ((1, "1"),)
    assert encode({"a": np.array([3, 2])}, [0, 0], [0, 0]).codes.tolist() == [[1], [0]]


@pytest.mark.parametrize("value", [True, 1.0, ("x",)])
def test_other_types_are_refused_with_their_row(value):
    """A truth value or a fraction is no scope value; the error names row and dim."""
    with pytest.raises(LearningError, match="row 1: scope value of a must be text or a whole number"):
        encode({"a": ["x", value]}, [0, 0], [0, 0])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"y": np.array([1.0, math.nan])}, "row 1: y must be a finite number"),
        ({"further": {"roi": np.array([math.inf, 0.0])}}, "row 0: roi must be a finite number"),
        ({"ts": np.zeros(3, np.int64)}, "column ts must have 2 values"),
        ({"codes": np.array([[0], [2]], np.int32)}, r"codes of a must lie in -1\.\.1"),
        ({"codes": np.zeros((2, 2), np.int32)}, r"codes must have shape \(2, 1\)"),
        ({"levels": (("y", "x"),)}, "levels of a must be in canonical order"),
        ({"dims": ("a", "a")}, "different names"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(change, complaint):
    """Shapes, ranges, order and finiteness, each with a message that says where."""
    good = {
        "dims": ("a",), "levels": (("x", "y"),), "codes": np.zeros((2, 1), np.int32), "y": np.zeros(2),
        "ts": np.zeros(2, np.int64), "cluster": np.zeros(2, np.int64),
    }  # fmt: skip
    Coded(**good)

    with pytest.raises(LearningError, match=complaint):
        Coded(**(good | change))


def test_cells_by_hand():
    """Three trades, two dims, one absent value: every cell, in order, with its sums."""
    cells = lattice(encode(TWO, [1.0, -2.0, 4.0], [0, 0, 0]))

    assert [(mask, scope) for mask, scope, _ in cells.rows()] == [
        (0, {}), (1, {"phase": "Dip"}), (1, {"phase": "Good"}), (2, {"rank": 1}), (2, {"rank": 2}),
        (3, {"phase": "Good", "rank": 1}), (3, {"phase": "Good", "rank": 2}),
    ]  # fmt: skip
    assert cells.n.tolist() == [3, 1, 2, 1, 1, 1, 1]
    assert cells.n_win.tolist() == [2, 1, 1, 1, 0, 1, 0]
    assert cells.sum_y.tolist() == [3.0, 4.0, -1.0, 1.0, -2.0, 1.0, -2.0]
    assert cells.sum_y2[0] == 21.0
    assert cells.mask.tolist() == [0, 1, 1, 2, 2, 3, 3]


def test_decayed_moments_by_hand():
    """A trade ten days old weighs half at a half-life of ten days; no trade ever loses weight without one."""
    cells = lattice(encode({}, [4.0, 2.0], [0, 10 * DAY]), half_lives_days=(10, math.inf))

    assert cells.decayed(10).tolist() == [[1.5, 1.25, 4.0, 12.0]]
    assert cells.decayed(math.inf).tolist() == [[2.0, 2.0, 6.0, 20.0]]
    assert cells.decayed_mean(10)[0] == pytest.approx(4.0 / 1.5)
    assert cells.n_eff(10)[0] == pytest.approx(1.5**2 / 1.25)
    assert cells.decayed_to(20 * DAY).decayed(10).tolist() == [[0.75, 0.3125, 2.0, 6.0]]
    assert cells.decayed(10)[0, 0] == decay(240, 240) + decay(0, 240)


def test_twenty_years_at_a_half_life_of_ten_days():
    """Nothing overflows; what has lost all weight has no mean, and says so."""
    coded = encode({"a": ["old", "new"]}, [4.0, 2.0], [0, 7305 * DAY])
    cells = lattice(coded, at=14_610 * DAY)
    new, old, root = (by_scope(cells)[key] for key in (("new",), ("old",), ()))

    assert new["w_10d"] == pytest.approx(2.0**-730.5)
    assert (old["w_10d"], old["w_40d"]) == (0.0, pytest.approx(2.0**-365.25))
    assert root["s1_infd"] == 6.0
    assert np.isnan(cells.decayed_mean(10.0)[list(by_scope(cells)).index(("old",))])
    assert cells.n_eff(10.0)[list(by_scope(cells)).index(("old",))] == 0.0


def test_robust_variance_by_hand():
    """Clusters {1, 3} and {-1}: mean 1, residual sums 2 and -2, V = 2/1 * (4 + 4) / 9; one cluster has none."""
    cells = lattice(encode({"a": ["x", "x", "y"]}, [1.0, 3.0, -1.0], [0, 0, 0], [7, 7, 8]))
    variance, df = cluster_variance(cells)

    assert cells.cluster_sums.tolist() == [[2, 17, 7, 5], [1, 16, 8, 4], [1, 1, -1, 1]]
    assert variance[0] == pytest.approx(16 / 9)
    assert df.tolist() == [1, 0, 0]
    assert np.isnan(variance[1:]).all()


def test_clusters_of_one_give_the_usual_variance_of_a_mean():
    """Without shared clusters V is s^2 / n."""
    y = np.array([1.0, 4.0, -2.0, 0.5])

    assert cluster_variance(lattice(encode({}, y, np.zeros(4))))[0][0] == pytest.approx(y.var(ddof=1) / 4)


@pytest.mark.parametrize("limits", [(512, 1 << 14), (1, 64)])
@pytest.mark.parametrize("absent", [0.0, 0.1])
def test_many_rows_and_wide_dims_are_the_brute_force(monkeypatch, limits, absent):
    """More rows than one stretch, dims with hundreds of levels; dense and numbered tables side by side."""
    monkeypatch.setattr(lattice_module, "_SMALLEST_BLOCK", limits[0])
    monkeypatch.setattr(lattice_module, "_DENSE_LEAST", limits[1])
    monkeypatch.setattr(lattice_module, "_DENSE_MOST", limits[1])
    coded, trades = random_rows(2500, (300, 4, 90, 3, 2), absent=absent)
    at = int(coded.ts.max())
    found = slices(coded.dims, trades, 3)
    expected = {key: sums(members, at, (10.0, 40.0)) for key, members in found.items() if len(members) >= 3}

    assert not disagreements(lattice(coded, 3, 3, (10.0, 40.0)), expected)


def test_a_deep_lattice_is_the_iceberg():
    """Full depth with support 1, and icebergs of a few hundred rows, agree with each other and with brute force."""
    coded, trades = random_rows(1500, (5, 4, 3, 6, 2, 2))
    found = slices(coded.dims, trades)
    expected = {key: sums(members, int(coded.ts.max()), (10.0,)) for key, members in found.items()}
    large = {key: row for key, row in expected.items() if row["n"] >= 12}

    assert not disagreements(lattice(coded, 6, 1, (10.0,)), expected)
    assert not disagreements(iceberg(coded, 12, (10.0,), closed=False), large)
    assert not disagreements(expanded(iceberg(coded, 12, (10.0,))), large)


@pytest.mark.parametrize("most", [1, 40, 2048])
@pytest.mark.parametrize("absent", [0.0, 0.1])
def test_an_iceberg_through_cubes_is_the_brute_force(monkeypatch, most, absent):
    """Rows split to the end, cubes over the last few dims only, and cubes of many dims give the same cells."""
    monkeypatch.setattr(iceberg_module, "_MOST_CELLS", most)
    coded, trades = random_rows(1500, (5, 4, 3, 6, 2, 40), absent=absent)
    found = {
        key: sums(members, int(coded.ts.max()), (10.0, 40.0)) for key, members in slices(coded.dims, trades).items()
    }
    for support in (1, 12, 2000):
        large = {key: row for key, row in found.items() if row["n"] >= support}

        assert not disagreements(iceberg(coded, support, (10.0, 40.0), clusters=False, closed=False), large)


@pytest.mark.parametrize("closed", [True, False])
def test_threads_give_the_same_cells(closed):
    """Parts that run side by side, in any order, add up to the bytes of one run."""
    coded, _ = random_rows(1500, (5, 4, 3, 6, 2, 2))
    with ThreadPoolExecutor(2) as pool:
        pairs = [(iceberg(coded, 12, closed=closed), iceberg(coded, 12, closed=closed, run=pool.map))]
        plain = [iceberg(coded, 12, clusters=False, closed=closed, run=run) for run in (map, pool.map)]
        pairs.append((plain[0], plain[1]))
        pairs.append((lattice(coded, 4), lattice(coded, 4, run=pool.map)))

    for one, two in pairs:
        assert one.codes.tobytes() == two.codes.tobytes()
        assert one.sums.tobytes() == two.sums.tobytes()


def test_dims_that_say_the_same_do_not_explode():
    """Twenty copies of one dim are one closed cell per level; the 2^20 names each stands for are refused beyond a
    limit."""
    column = ["x", "y"] * 20
    coded = encode({f"d{j}": column for j in range(20)}, np.ones(40), np.zeros(40))
    closed = iceberg(coded, 5)

    assert closed.n.tolist() == [40, 20, 20]
    with pytest.raises(LearningError, match="more than 100000 cells"):
        expanded(closed, most=100_000)


def test_a_dim_with_one_level_is_in_every_closed_cell():
    """The root is not closed when all trades agree on a dim; expanding brings it back."""
    closed = iceberg(encode({"family": ["lowcaps"] * 3, "a": ["x", "x", "y"]}, np.ones(3), np.zeros(3)), 1)

    assert next(scope for _, scope, _ in closed.rows()) == {"family": "lowcaps"}
    assert len(expanded(closed)) == 6


def test_the_cover_has_every_subset_once():
    """Each subset of at most three of twelve dims is in one block, and rolled up from a table that contains it."""
    widths = (4, 9, 6, 40, 3, 3, 3, 7, 6, 2, 1, 200)
    blocks, sparse = lattice_module._plan(widths, 3, 4096, 16_384)
    planned = [step.grid.mask for block in blocks for step in block.steps if step.asked] + [
        sum(1 << j for j in s) for s in sparse
    ]
    every = [sum(1 << j for j in part) for size in range(4) for part in combinations(range(12), size)]

    assert sorted(planned) == sorted(every)
    assert all(math.prod(widths[j] for j in subset) > 16_384 for subset in sparse)
    for block in blocks:
        assert block.grid.size <= 16_384
        known = {block.grid.mask}
        for step in block.steps:
            assert step.parent in known
            assert step.parent & step.grid.mask == step.grid.mask
            known.add(step.grid.mask)


def test_no_trades_no_cells():
    """An empty history has no cells, not even a root; and it merges with anything of its kind."""
    empty, one = encode({"a": []}, [], []), encode({"a": ["x"]}, [1.0], [5])

    assert len(lattice(empty)) == len(iceberg(empty)) == len(expanded(iceberg(empty))) == 0
    assert len(CellBook(("a",)).cells()) == 0
    assert by_scope(lattice(empty).merged(lattice(one))) == by_scope(lattice(one))


def test_levels_of_merged_cells_are_sorted_again():
    """Cells under other levels merge by value, not by code."""
    one = lattice(encode({"a": ["b", 2]}, [1.0, 2.0], [0, 0], [0, 1]))
    two = lattice(encode({"a": ["a", "b"]}, [4.0, 8.0], [0, 0], [2, 3]))
    both = one.merged(two)

    assert both.levels == ((2, "a", "b"),)
    assert {key: row["sum_y"] for key, row in by_scope(both).items()} == {(): 15, (2,): 2, ("a",): 4, ("b",): 9}


REFUSALS = [
    ("row 2 closes at 9, after the moment 5", lambda coded, cells: lattice(coded, at=5)),
    ("row 2 closes at 9, after the moment 5", lambda coded, cells: iceberg(coded, at=5)),
    ("depth must be 0 or more", lambda coded, cells: lattice(coded, depth=-1)),
    ("support must be 1 or more", lambda coded, cells: iceberg(coded, support=0)),
    ("half-lives must be different positive days", lambda coded, cells: lattice(coded, half_lives_days=(10, 10))),
    ("half-lives must be different positive days", lambda coded, cells: lattice(coded, half_lives_days=(math.nan,))),
    ("cannot be moved back", lambda coded, cells: cells.decayed_to(8)),
    ("half-life 7 days was not kept; kept are 10, 40, inf", lambda coded, cells: cells.decayed(7)),
    ("pnl was not summed; the further sums are none", lambda coded, cells: cells.sum_of("pnl")),
    ("no cluster sums", lambda coded, cells: lattice(coded, clusters=False).cluster_sums),
    ("of different kinds", lambda coded, cells: cells.merged(lattice(coded, clusters=False))),
    ("only when all are there", lambda coded, cells: cells.merged(lattice(coded, support=2))),
    ("only when all are there", lambda coded, cells: cells.merged(iceberg(coded, support=1))),
    ("no root cell", lambda coded, cells: edges(cells.at_least(4))),
    ("column rank must have 3 values", lambda coded, cells: encode(TWO | {"rank": [1]}, [0, 0, 0], [0, 0, 0])),
]


@pytest.mark.parametrize(("complaint", "call"), REFUSALS)
def test_what_cannot_be_is_refused(complaint, call):
    """Every refusal says what was wrong and what would be right."""
    coded = encode(TWO, [1.0, -2.0, 4.0], [0, 0, 9])

    with pytest.raises(LearningError, match=complaint):
        call(coded, lattice(coded))


def test_a_correction_moves_a_trade_and_empty_cells_vanish():
    """Another scope under the same id: the old cells lose the trade, and are gone with their levels if it was alone."""
    book = CellBook(("a",))
    assert book.update(0, ["t", "u"], {"a": ["x", "y"]}, [1.0, 2.0], [0, 0], [0, 1]) == 2
    assert book.update(0, ["t"], {"a": ["z"]}, [3.0], [0], [0]) == 1
    assert book.update(0, ["t"], {"a": ["z"]}, [3.0], [0], [0]) == 0

    assert book.cells().levels == (("y", "z"),)
    assert {key: row["sum_y"] for key, row in by_scope(book.cells()).items()} == {(): 5, ("y",): 2, ("z",): 3}


def test_a_book_forgets_cells_nobody_is_in():
    """Many trades moved into one scope: dead cells are cleared away and the rest is still found."""
    n, names = 200, [f"t{i}" for i in range(200)]
    book = CellBook(("a", "b"))
    book.update(0, names, {"a": list(range(n)), "b": ["s"] * n}, np.ones(n), np.zeros(n), np.arange(n))
    book.update(
        0, names[1:], {"a": [0] * (n - 1), "b": ["s"] * (n - 1)}, np.ones(n - 1), np.zeros(n - 1), np.arange(1, n)
    )
    book.update(0, ["v"], {"a": [0], "b": ["r"]}, [1.0], [0], [n])

    found = {key: row["n"] for key, row in by_scope(book.cells()).items()}
    assert found == {(): 201, (0,): 201, ("r",): 1, ("s",): 200, (0, "r"): 1, (0, "s"): 200}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"at": 3}, "the book is at moment 5; an update cannot be at 3"),
        ({"ts": [9]}, r"row 0 \(id t\) closes at 9, after the moment 7"),
        ({"ids": []}, "0 ids were given for 1 trades"),
        ({"columns": {"b": ["x"]}}, "the update has dims b and further columns none; the book has a and none"),
        ({"columns": {"a": ["x", "y"]}}, "column a must have 1 values"),
        ({"y": [math.nan]}, "row 0: y must be a finite number"),
    ],
)
def test_an_update_that_is_refused_changes_nothing(change, complaint):
    """The book after a refusal is the book before it."""
    book = CellBook(("a",))
    book.update(5, ["t"], {"a": ["x"]}, [1.0], [5], [0])
    before = list(book.cells().rows())
    good = {"at": 7, "ids": ["t"], "columns": {"a": ["q"]}, "y": [2.0], "ts": [6], "cluster": [0]}

    with pytest.raises(LearningError, match=complaint):
        book.update(**(good | change))
    assert list(book.cells().rows()) == before
    assert book.at == 5


def test_a_book_of_forty_years_does_not_overflow():
    """At a half-life of ten days the weights would pass any number, were they not moved along."""
    book = CellBook(("a",))
    for day in (0, 5, 12, 7305, 14_610):
        book.update(day * DAY, [str(day)], {"a": ["x"]}, [float(day % 7)], [day * DAY], [day])
    days = (0, 5, 12, 7305, 14_610)
    whole = lattice(encode({"a": ["x"] * 5}, [float(d % 7) for d in days], [d * DAY for d in days]))

    assert book.cells().sums == pytest.approx(whole.sums, rel=1e-9, abs=1e-9)
    assert np.isfinite(book.cells(at=20_000 * DAY).sums).all()
