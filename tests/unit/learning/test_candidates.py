"""Single slices against brute force: where cells lie, their information, their Bayes factor, their prior share."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.learning import candidates
from edgebook.learning.candidates import SLABS, Candidates, inside, log_bayes_factor
from edgebook.learning.config import LearningConfig
from edgebook.learning.design import Component, Design
from edgebook.learning.shocks import Shocks, column_sums


@st.composite
def designs(draw):
    """Up to four dims of one to four levels, values absent, empty days, weeks of one day, some dims market-wide."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n = draw(st.integers(1, 50))
    widths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    day_of = np.sort(rng.integers(0, draw(st.sampled_from([1, 5, 30, 200])), n))
    days, day = np.unique(day_of, return_inverse=True)
    week = np.unique((days + 3) // 7, return_inverse=True)[1]
    blocks = tuple(
        Component(
            f"d{k}",
            (f"d{k}",),
            rng.integers(-draw(st.integers(0, 1)), m, n),
            tuple(((f"d{k}", f"v{v}"),) for v in range(m)),
            draw(st.booleans()),
        )
        for k, m in enumerate(widths)
    )
    ts = day_of.astype(np.int64) * 86_400_000_000
    return Design(rng.normal(0, 1, n), ts + 1, ts, day, days, week, blocks)


ratios = st.tuples(st.sampled_from([0.0, 0.05, 0.5, 4.0]), st.sampled_from([0.0, 0.1, 1.5]))


def _cells(design):
    """Every scope of one to three dims, with its trades."""
    for size in (1, 2, 3):
        for members in combinations(design.components, size):
            scopes = [()]
            for block in members:
                scopes = [(*scope, *items) for scope in scopes for items in block.levels]
            for scope in scopes:
                hit = np.ones(design.n, dtype=bool)
                for block, item in zip(members, scope, strict=True):
                    hit &= block.codes == [items[0] for items in block.levels].index(item)
                yield scope, hit, any(block.market for block in members)


@settings(max_examples=80, deadline=None)
@given(designs(), ratios)
def test_counts_information_and_sums_equal_the_dense_ones(make, design, shares):
    """Of every cell: x'x, x' V0^-1 x with V0 written out, x' rows, and whether a market-wide dim takes part."""
    known = Candidates.of(design, Shocks.of(column_sums(design, ()), *shares))
    inverse = np.linalg.inv(make.dense(design, *shares))
    rows = inverse @ design.y
    sums = known.sums(rows)
    with mock.patch.object(candidates, "_MOST_PLACES", 0):  # as in a table too long to keep them
        long = Candidates.of(design, Shocks.of(column_sums(design, ()), *shares))
    assert long.places.size == 0
    assert long.sums(rows) == pytest.approx(sums, abs=1e-12)
    seen = set()
    for scope, hit, market in _cells(design):
        cell = known.cell(scope)
        x = hit.astype(float)
        assert cell is not None
        assert known.items(cell) == scope
        assert known.count[cell] == hit.sum()
        assert known.q[cell] == pytest.approx(x @ inverse @ x, abs=1e-9)
        assert sums[cell] == pytest.approx(x @ inverse @ design.y, abs=1e-8)
        assert known.market[cell] == market
        assert known.single[cell] == (len(scope) == 1)
        assert np.array_equal(inside(known.components, scope), hit)
        assert np.array_equal(known.component(cell).codes, np.where(hit, 0, -1))
        seen.add(cell)
    assert seen == set(range(len(known.count)))


@settings(max_examples=80, deadline=None)
@given(designs(), st.integers(1, 6))
def test_the_prior_is_one_unit_shared_by_order_subset_and_cell(design, fewest):
    """Shares sum to 1; thin or all-embracing cells get none; cells of a subset get equal parts, subsets of one order
    as well, each order half of the one before it."""
    known = Candidates.of(design, Shocks.of(column_sums(design, ()), 0.1, 0.1), LearningConfig(cell_min_trades=fewest))
    share = np.exp(known.log_prior)
    live = (known.count >= fewest) & (known.count <= design.n - fewest)

    assert np.array_equal(share > 0, live)
    if live.any():
        assert share.sum() == pytest.approx(1.0)
    order = (known.dims[known.subset] >= 0).sum(axis=1)
    total = {}
    for k in (1, 2, 3):
        subsets = [share[(known.subset == s) & live] for s in np.unique(known.subset[(order == k) & live])]
        for part in subsets:
            assert part == pytest.approx(part[0])
            assert part.sum() == pytest.approx(subsets[0].sum())
        total[k] = sum(part.sum() for part in subsets)
    present = [k for k in (1, 2, 3) if total[k] > 0]
    for k, deeper in pairwise(present):
        assert total[deeper] == pytest.approx(total[k] * 0.5 ** (deeper - k))


def test_unknown_slices_have_no_cell(make):
    """A dim or level that is not there, and the order of the dims of a scope does not matter."""
    design = make.design(*make.trades(1, n=200, dims=3))
    known = Candidates.of(design, Shocks.of(column_sums(design, ()), 0.0, 0.0))

    assert known.cell((("d9", "v0"),)) is None
    assert known.cell((("d0", "v9"),)) is None
    assert known.cell((("d1", "v0"), ("d0", "v2"))) == known.cell((("d0", "v2"), ("d1", "v0")))


def test_subsets_with_too_many_cells_are_left_out(make):
    """Pairs of dims with 100 levels each: 10,000 cells are more than max(4096, 2n); the dims alone stay."""
    rng = np.random.default_rng(0)
    n = 1000
    table = make.columns({"a": rng.permutation(n) % 100, "b": rng.permutation(n) % 100, "c": rng.integers(0, 2, n)},
                         rng.normal(0, 1, n))  # fmt: skip
    design = make.design(*table)
    known = Candidates.of(design, Shocks.of(column_sums(design, ()), 0.0, 0.0))
    kept = {tuple(j for j in row if j >= 0) for row in known.dims.tolist()}

    assert kept == {(0,), (1,), (2,), (0, 2), (1, 2)}
    assert known.cell((("a", "v1"), ("b", "v1"))) is None


# ------------------------------------------------------------------ the Bayes factor


def _log_normal_density(y, covariance):
    return -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(covariance)[1] + len(y) * math.log(2 * np.pi))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.floats(0.2, 3.0), st.floats(-2.0, 2.0), ratios)
def test_bayes_factor_is_the_ratio_of_marginal_likelihoods(make, seed, n, sigma, effect, shares):
    """Against densities of y ~ N(0, sigma^2 (V0 + tau^2 x x')) averaged over tau, and N(0, sigma^2 V0)."""
    rng = np.random.default_rng(seed)
    day = np.sort(rng.integers(0, 20, n))
    week = day // 7
    v0 = np.eye(n) + shares[0] * (day[:, None] == day) + shares[1] * (week[:, None] == week)
    x = (rng.random(n) < 0.5).astype(float)
    x[0] = 1.0
    y = rng.normal(0, sigma, n) + effect * x
    inverse = np.linalg.inv(v0)
    under = [_log_normal_density(y, sigma**2 * (v0 + tau**2 * np.outer(x, x))) for tau in SLABS.tolist()]
    null = _log_normal_density(y, sigma**2 * v0)
    odds = np.exp(np.array(under) - null)

    nats, variance = log_bayes_factor(np.array([x @ inverse @ y]), np.array([x @ inverse @ x]), sigma)

    assert nats[0] == pytest.approx(math.log(np.mean(odds)), abs=1e-8)
    assert variance[0] == pytest.approx(np.sum(odds * SLABS**2) / np.sum(odds), abs=1e-8)


@pytest.mark.parametrize("information", [1.0, 5.0])
def test_bayes_factor_has_mean_one_without_an_effect(information):
    """An e-value: over 200,000 draws of S ~ N(0, sigma^2 Q) the mean is 1 within 3 standard errors (above Q tau^2 = 1
    its variance is infinite, so for more information see the integral)."""
    s = np.random.default_rng(7).normal(0, 1.7 * math.sqrt(information), 200_000)
    factor = np.exp(log_bayes_factor(s, np.full(len(s), information), 1.7)[0])

    assert abs(factor.mean() - 1.0) < 3.0 * factor.std() / math.sqrt(len(s))


@pytest.mark.parametrize("information", [0.5, 8.0, 40.0, 1000.0])
def test_bayes_factor_integrates_to_one(information):
    """The integral of BF(z) phi(z) over z, by trapezoids, is 1."""
    z = np.linspace(-150.0, 150.0, 60_001)
    nats, _ = log_bayes_factor(0.8 * math.sqrt(information) * z, np.full(len(z), information), 0.8)
    density = np.exp(nats - 0.5 * z * z) / math.sqrt(2 * math.pi)

    assert np.trapezoid(density, z) == pytest.approx(1.0, abs=1e-9)


def test_the_prior_weighted_sum_has_mean_one_on_noise(make):
    """Over cells of five trades that overlap, two of the dims the same: the mean of sum prior * BF over 20,000 outcomes
    is 1 within 3 standard errors."""
    rng = np.random.default_rng(3)
    dims = {f"d{k}": rng.permutation(30) % 6 for k in range(3)}
    design = make.design(*make.columns({**dims, "copy": dims["d0"]}, rng.normal(0, 1, 30)))
    known = Candidates.of(design, Shocks.of(column_sums(design, ()), 0.0, 0.0))
    total = []
    for _ in range(20_000):
        nats, _ = log_bayes_factor(known.sums(rng.normal(0, 1, design.n)), known.q, 1.0)
        total.append(float(np.exp(known.log_prior + nats).sum()))

    assert np.isfinite(known.log_prior).sum() > 24, "pairs take part"
    assert abs(np.mean(total) - 1.0) < 3.0 * np.std(total) / math.sqrt(len(total))


def test_nothing_known_is_no_evidence():
    """A cell without information has a Bayes factor of 1, whatever its sum."""
    nats, _ = log_bayes_factor(np.array([0.0]), np.array([0.0]), 1.0)

    assert nats.tolist() == [0.0]
