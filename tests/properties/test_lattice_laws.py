"""Laws of the lattice: equal to brute force, whatever the order, the cut, the corrections and the route of the sums."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.lattice_oracle import DAY, Trade, disagreements, sandwich, slices, sums

from edgebook.learning import cell_book as cell_book_module
from edgebook.learning import lattice as lattice_module
from edgebook.learning.cell_book import CellBook
from edgebook.learning.edge import baseline, edge_raw
from edgebook.learning.iceberg import expanded, iceberg
from edgebook.learning.lattice import cluster_variance, edges, encode, lattice

DIMS = ("phase", "rank", "bucket", "mode", "twin")
HALVES = (10.0, 40.0, float("inf"))
AT = 8000 * DAY  # some 22 years after the first trade

outcome = st.integers(-3000, 10_000).map(lambda v: v / 1000)
values = {
    "phase": st.sampled_from(["Good", "Dip", "Chop", "Unknown", "", None]),
    "rank": st.sampled_from([1, 2, 3, None]),
    "bucket": st.sampled_from(["nano", "micro", 1, "1"]),
    "mode": st.just("normal"),
}


@st.composite
def trade(draw):
    """A trade of few levels, so that cells fill; ``twin`` is a function of the phase; old and new ones."""
    raw = {dim: draw(column) for dim, column in values.items()}
    raw["twin"] = {"Good": "up", "Dip": "down"}.get(raw["phase"])
    scope = {dim: value for dim, value in raw.items() if value not in (None, "", "Unknown")}
    day = draw(st.sampled_from([0, 7000, 7900, 7960, 7999]))
    ts = day * DAY + draw(st.integers(0, DAY))
    return Trade(scope, draw(outcome), ts, draw(st.integers(-2, 5)), draw(outcome))


many = st.lists(trade(), min_size=1, max_size=25)


def coded(trades):
    columns = {dim: [t.scope.get(dim, "Unknown") for t in trades] for dim in DIMS}
    y, ts, cluster, roi = ([getattr(t, name) for t in trades] for name in ("y", "ts", "cluster", "roi"))
    return encode(columns, y, ts, cluster, {"roi": roi})


def expectation(trades, depth, support=1, at=AT):
    found = slices(DIMS, trades, depth)
    return {key: sums(members, at, HALVES) for key, members in found.items() if len(members) >= support}


@pytest.fixture(scope="module", params=["dense", "bundled small", "numbered"])
def route(request):
    """The ways a subset can take: one block for all, a block each, or numbering the combinations that occur."""
    limits = {"dense": (512, 1 << 14, 1 << 20), "bundled small": (1, 1 << 14, 1 << 20), "numbered": (1, 1, 3)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("_SMALLEST_BLOCK", "_DENSE_LEAST", "_DENSE_MOST"), limits[request.param], strict=True):
            patch.setattr(lattice_module, name, value)
        yield request.param


@given(trades=many, depth=st.integers(0, 5), support=st.integers(1, 3))
def test_the_lattice_is_the_brute_force(route, trades, depth, support):
    """Every sum of every cell, on every route through the engine."""
    cells = lattice(coded(trades), depth, support, HALVES, AT)

    assert not disagreements(cells, expectation(trades, depth, support))


@given(trades=many, support=st.integers(1, 4))
def test_the_iceberg_is_the_brute_force_at_full_depth(trades, support):
    """All cells, found directly and through the closed ones; and the closed ones are exactly the closed ones."""
    rows = coded(trades)
    expected = expectation(trades, None, support)
    closed = iceberg(rows, support, HALVES, AT)
    members = {key: {id(t) for t in found} for key, found in slices(DIMS, trades).items()}
    wider = [(mask, items, members[mask, items]) for mask, items in expected]

    assert not disagreements(iceberg(rows, support, HALVES, AT, closed=False), expected)
    assert not disagreements(iceberg(rows, support, HALVES, AT, clusters=False, closed=False), expected)
    assert not disagreements(expanded(closed), expected)
    assert {(mask, tuple(scope.items())) for mask, scope, _ in closed.rows()} == {
        (mask, items)
        for mask, items, own in wider
        if not any(set(items) < set(other) and own == theirs for _, other, theirs in wider)
    }


@given(trades=many, parts=st.integers(2, 4), seed=st.randoms(use_true_random=False))
def test_order_and_cut_change_nothing(trades, parts, seed):
    """Shuffled trades give the same cells; cells of disjoint clusters merge, in any order, at any moment."""
    expected = expectation(trades, 3)
    shuffled = list(trades)
    seed.shuffle(shuffled)
    assert not disagreements(lattice(coded(shuffled), 3, 1, HALVES, AT), expected)

    cuts = [[t for t in shuffled if t.cluster % parts == k] for k in range(parts)]
    pieces = [lattice(coded(cut), 3, 1, HALVES, max(t.ts for t in cut)) for cut in cuts if cut]
    seed.shuffle(pieces)
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole.merged(piece)

    assert not disagreements(whole.decayed_to(AT), expected)


@given(trades=many)
def test_variance_and_edge_are_those_of_the_textbook(trades):
    """Robust variance from residuals; the edge by the scalar formula; from the root's baseline."""
    rows = coded(trades)
    rows = dataclasses.replace(rows, further={"time_efficiency": np.abs(rows.further["roi"]) / 10})
    cells = lattice(rows, 3, 1, HALVES, AT)
    variance, df = cluster_variance(cells)
    edge = edges(cells)
    base = baseline(sum(t.y for t in trades), len(trades))
    found = slices(DIMS, trades, 3)

    for i, (mask, scope, row) in enumerate(cells.rows()):
        members = found[mask, tuple(scope.items())]
        assert df[i] == len({t.cluster for t in members}) - 1
        if df[i]:
            assert variance[i] == pytest.approx(sandwich(members), rel=1e-9, abs=1e-9)
        else:
            assert np.isnan(variance[i])
        efficiency = row["sum_time_efficiency"] / row["n"]
        scalar = edge_raw(cells.mean[i], cells.variance[i], int(row["n"]), base, efficiency)
        assert edge[i] == pytest.approx(scalar, rel=1e-9, abs=1e-12)


class BookAgainstRebuild(RuleBasedStateMachine):
    """A book that is told of trades in any way, against the trades it should hold."""

    def __init__(self):
        super().__init__()
        self.book = CellBook(DIMS, 3, HALVES, further=("roi",))
        self.trades = {}
        self.at = 7000 * DAY

    def tell(self, pairs):
        """One update; the number of trades that differ from what was there."""
        ids, trades = [name for name, _ in pairs], [t for _, t in pairs]
        columns = {dim: [t.scope.get(dim) for t in trades] for dim in DIMS}
        y, ts, cluster, roi = ([getattr(t, name) for t in trades] for name in ("y", "ts", "cluster", "roi"))
        self.at = max([self.at, *ts])
        before = dict(self.trades)
        self.trades.update(pairs)
        told = self.book.update(self.at, ids, columns, y, ts, cluster, {"roi": roi})
        assert told == sum(before.get(name) != t for name, t in self.trades.items())

    @rule(pairs=st.lists(st.tuples(st.sampled_from([f"t{i}" for i in range(30)]), trade()), max_size=12))
    def trades_come_late_or_are_corrected(self, pairs):
        self.tell(pairs)

    @rule(data=st.data())
    def known_trades_come_again(self, data):
        if self.trades:
            names = data.draw(st.lists(st.sampled_from(sorted(self.trades)), min_size=1, max_size=8))
            self.tell([(name, self.trades[name]) for name in names])

    @rule(data=st.data(), y=outcome)
    def one_outcome_is_corrected(self, data, y):
        if self.trades:
            name = data.draw(st.sampled_from(sorted(self.trades)))
            self.tell([(name, self.trades[name]._replace(y=y))])

    @rule(days=st.integers(0, 400))
    def time_passes(self, days):
        self.at += days * DAY
        self.tell([])

    @invariant()
    def the_cells_are_those_of_a_rebuild(self):
        assert len(self.book) == len(self.trades)
        expected = expectation(list(self.trades.values()), 3, at=self.at)
        assert not disagreements(self.book.cells(), expected)
        if self.trades:
            rebuilt = lattice(coded(list(self.trades.values())), 3, 1, HALVES, self.at)
            assert self.book.cells().levels == rebuilt.levels
            assert (self.book.cells().codes == rebuilt.codes).all()
            assert len(self.book.cells(support=2)) == int((rebuilt.n >= 2).sum())


class BookThroughTheLattice(BookAgainstRebuild):
    """The same with every update through the lattice, as updates of many trades go."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(cell_book_module, "_FEW", 0)

    def teardown(self):
        self.patch.undo()


TestBook = BookAgainstRebuild.TestCase
TestBookThroughTheLattice = BookThroughTheLattice.TestCase
TestBook.settings = TestBookThroughTheLattice.settings = settings(max_examples=40, stateful_step_count=12)
