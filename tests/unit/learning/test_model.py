"""The shared shocks and the joint mixed model against dense matrices."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.learning.design import Component, Design
from edgebook.learning.model import T_MAX, fit_blocks, fitted, loglik, residual, solve
from edgebook.learning.shocks import column_sums, null_loglik, null_shocks, whitened


def _design(rng, n, days, levels):
    """Random days with gaps, values absent now and then."""
    day_of = np.sort(rng.integers(0, days, n))
    present, day = np.unique(day_of, return_inverse=True)
    week = np.unique((present + 3) // 7, return_inverse=True)[1]
    blocks = tuple(
        Component(f"d{k}", (f"d{k}",), rng.integers(-1, m, n), tuple(((f"d{k}", f"v{v}"),) for v in range(m)), False)
        for k, m in enumerate(levels)
    )
    ts = day_of.astype(np.int64) * 86_400_000_000
    return Design(rng.normal(0.3, 1.2, n), ts + 1, ts, day, present, week, blocks)


worlds = st.tuples(
    st.integers(0, 10**6),
    st.integers(2, 60),
    st.integers(1, 40),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.05, 0.4, 3.0]),
    st.sampled_from([0.0, 0.2, 2.0]),
)


@settings(max_examples=60, deadline=None)
@given(worlds)
def test_the_likelihood_without_dims_equals_the_dense_one(make, world):
    """``-((n - 1) ln y'Py + ln det V0 + ln 1'V0^-1 1) / 2`` with ``P`` the projection off the mean under ``V0``."""
    seed, n, days, levels, a, b = world
    design = _design(np.random.default_rng(seed), n, days, levels)
    inverse, ones = np.linalg.inv(make.dense(design, a, b)), np.ones(n)
    total = ones @ inverse @ ones
    rss = design.y @ inverse @ design.y - (ones @ inverse @ design.y) ** 2 / total
    expected = -0.5 * ((n - 1) * math.log(rss) - np.linalg.slogdet(inverse)[1] + math.log(total))

    sums = column_sums(design, ())
    found = null_loglik(a, b, sums.day_n, sums.by_day[:, 1].copy(), sums.gram[1, 1], sums.week_starts)

    assert found == pytest.approx(expected, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(worlds)
def test_shock_algebra_equals_the_dense_inverse(make, world):
    """X' V0^-1 X, log det V0 and V0^-1 (y - fit) from day sums equal numpy on the full matrix."""
    seed, n, days, levels, a, b = world
    design = _design(np.random.default_rng(seed), n, days, levels)
    v0 = make.dense(design, a, b)
    x = np.column_stack([np.ones(n), make.one_hot(design.components), design.y])

    sums = column_sums(design, design.components)
    gram, log_det = whitened(sums, a, b)
    model = solve(sums, design.components, np.full(len(levels), 0.2), (a, b))

    assert gram == pytest.approx(x.T @ np.linalg.solve(v0, x), abs=1e-8)
    assert log_det == pytest.approx(np.linalg.slogdet(v0)[1], abs=1e-9)
    fit = model.mean + make.one_hot(design.components) @ model.alpha
    assert fitted(design, model) + model.mean == pytest.approx(fit, abs=1e-9)
    assert residual(design, model) == pytest.approx(np.linalg.solve(v0, design.y - fit), abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(worlds, st.data())
def test_posterior_equals_the_dense_mixed_model(make, world, data):
    """Effects, mean, their covariance and the restricted likelihood equal generalised least squares with BLUPs on the
    full covariance ``V = V0 + sum t Z Z'``."""
    seed, n, days, levels, a, b = world
    design = _design(np.random.default_rng(seed), n, days, levels)
    t = np.array([data.draw(st.sampled_from([0.0, 0.01, 0.3, 2.0])) for _ in levels])
    z, one = make.one_hot(design.components), np.ones(n)
    spread = np.diag(np.repeat(t, levels))
    v = make.dense(design, a, b) + z @ spread @ z.T
    inverse = np.linalg.inv(v)
    weight = one @ inverse @ one
    mean = one @ inverse @ design.y / weight
    p = inverse - np.outer(inverse @ one, one @ inverse) / weight
    rss = design.y @ p @ design.y
    wanted = -0.5 * ((n - 1) * math.log(rss) + np.linalg.slogdet(v)[1] + math.log(weight))

    sums = column_sums(design, design.components)
    model = solve(sums, design.components, t, (a, b))

    assert model.mean == pytest.approx(mean, abs=1e-8)
    assert model.alpha == pytest.approx(spread @ z.T @ p @ design.y, abs=1e-8)
    assert model.h[1:, 1:] == pytest.approx(spread - spread @ z.T @ p @ z @ spread, abs=1e-8)
    assert model.sigma == pytest.approx(math.sqrt(rss / (n - 1)), abs=1e-8)
    assert model.loglik == pytest.approx(wanted, abs=1e-6)
    assert loglik(sums, design.components, t, a, b) == pytest.approx(wanted, abs=1e-5)


def test_the_sums_of_some_rows_are_those_of_a_design_of_these_rows(make):
    """Half a history gives the numbers a history that ended there would."""
    design = _design(np.random.default_rng(3), 80, 50, (3, 2))
    rows = design.day > 12
    v0, x = make.dense(design, 0.3, 0.2), np.column_stack([np.ones(80), make.one_hot(design.components), design.y])

    gram, _ = whitened(column_sums(design, design.components, rows), 0.3, 0.2)

    part = v0[np.ix_(rows, rows)]
    assert gram == pytest.approx(x[rows].T @ np.linalg.solve(part, x[rows]), abs=1e-8)


def test_shock_variances_are_recovered(make):
    """A day shock of half the residual sd is found, none is not."""
    with_shock = make.design(*make.trades(5, n=1500, size=0, sd=1.0, day_sd=0.7, per_day=6.0))
    without = make.design(*make.trades(5, n=1500, size=0, sd=1.0, per_day=6.0))

    day, _ = null_shocks(with_shock)
    assert 0.3 < day < 0.75, "true ratio .49"
    assert sum(null_shocks(without)) < 0.05


def test_the_spread_of_a_dim_is_recovered():
    """Twelve levels with effects of sd .5 beside a dim that says nothing: the first tau is about right, the second
    small, no t above its cap."""
    rng = np.random.default_rng(1)
    design = _design(rng, 3000, 700, (12, 12))
    effects = rng.normal(0, 0.5, 12)
    has = design.components[0].codes >= 0
    y = rng.normal(0, 1.0, design.n)
    y[has] += effects[design.components[0].codes[has]]
    design = replace(design, y=y)

    model = fit_blocks(design, design.components, (0.0, 0.0), 0.5)

    tau = np.sqrt(model.t) * model.sigma
    assert tau[0] == pytest.approx(np.std(effects), rel=0.25)
    assert tau[1] < 0.1
    assert model.t.max() <= T_MAX
    assert model.alpha[:12] - model.alpha[:12].mean() == pytest.approx(effects - effects.mean(), abs=0.25)


def test_a_huge_effect_stops_at_the_cap():
    """Effects of ten standard deviations do not drive the variance past its bound."""
    design = _design(np.random.default_rng(2), 200, 50, (2,))
    design = replace(design, y=design.y + 50.0 * (design.components[0].codes == 1))

    assert fit_blocks(design, design.components, (0.0, 0.0), 0.5).t.max() <= T_MAX
