"""What may be said of a slice: contrasts, spread, evidence, confirmation, calibration, clusters, claims."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.learning.candidates import SLABS, Candidates
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.drift import follow
from edgebook.learning.effects import Effect, Halves, calibration, claimed, effects_of, rejected_effects
from edgebook.learning.model import fitted, residual, solve
from edgebook.learning.posterior import _calibrated
from edgebook.learning.shocks import column_sums

#: All prior weight on effects that stand.
STANDING = LearningConfig(drift_pseudo_columns=0.0)


def _solved(design, blocks, t, ratios=(0.0, 0.0)):
    return solve(column_sums(design, blocks), blocks, np.asarray(t, dtype=float), ratios)


def _effects(design, model, known, config=DEFAULT):
    return effects_of(design, model, known, Halves.of(design, model), config)


def _slope(design, model):
    return calibration(design, Halves.of(design, model))


def _known(design, model, config=DEFAULT):
    return Candidates.of(design, model.shocks, config)


def _with_cells(design, cells, ratios=(0.2, 0.1)):
    """The model of two dims (the third at zero variance) and of single cells beside them."""
    known = _known(design, _solved(design, (), [], ratios))
    extra = tuple(known.component(known.cell(items)) for items in cells)
    blocks = (*design.components[:3], *extra)
    model = _solved(design, blocks, [0.1, 0.05, 0.0, *[0.08] * len(extra)], ratios)
    return model, known


CELLS = ((("d0", "v1"), ("d1", "v2")), (("d2", "v0"),), (("d0", "v0"),))


@pytest.fixture
def world(make):
    """Trades with an effect on one level of d0 and days that share a shock, winsorised and sorted."""
    return make.design(*make.trades(21, n=240, dims=3, size=60, effect=0.8, day_sd=0.4))


@pytest.mark.parametrize("config", [DEFAULT, STANDING])
def test_contrasts_of_a_dim_cancel_over_its_trades(world, config):
    """Weighted by their trades the levels of a dim sum to zero; a dim at zero variance says nothing."""
    model, known = _with_cells(world, ())
    effects = _effects(world, model, known, config)

    for dim in ("d0", "d1"):
        own = [e for items, e in effects.items() if items[0][0] == dim]
        assert len(own) == 5
        assert sum(e.n * e.theta for e in own) == pytest.approx(0.0, abs=1e-9)
        assert max(abs(e.theta) for e in own) > 0.01
    assert {items[0][0] for items in effects} == {"d0", "d1"}
    assert () not in effects


@pytest.mark.parametrize("config", [DEFAULT, STANDING])
def test_the_root_takes_back_what_cells_take_from_the_mean(world, config):
    """theta of the root is minus the share-weighted sum of the cells; so all effects together leave the family's mean
    where it was, a cell that is also a level of a dim included."""
    model, known = _with_cells(world, CELLS)
    effects = _effects(world, model, known, config)
    pure = [CELLS[0], CELLS[1]]
    plain, _ = _with_cells(world, ())
    assert len(plain.blocks) == 3

    assert sum(e.n * e.theta for e in effects.values()) == pytest.approx(0.0, abs=1e-9)
    assert effects[()].n == world.n
    level = sum(e.n * e.theta for items, e in effects.items() if len(items) == 1 and items[0][0] == "d0") / world.n
    taken = sum(effects[c].n * effects[c].theta for c in pure) / world.n + level
    assert effects[()].theta == pytest.approx(-taken, abs=1e-9)
    assert abs(taken) > 1e-3


def test_spread_and_precision_equal_the_dense_posterior(make, world):
    """theta, se and n_eff of every contrast, by conditioning normal vectors on the full covariance."""
    ratios = (0.2, 0.1)
    model, known = _with_cells(world, CELLS, ratios)
    effects = _effects(world, model, known, STANDING)
    z, one = make.one_hot(model.blocks), np.ones(world.n)
    prior = np.diag(np.repeat(model.t, [len(b.levels) for b in model.blocks]))
    v = make.dense(world, *ratios) + z @ prior @ z.T
    inverse = np.linalg.inv(v)
    p = inverse - np.outer(inverse @ one, one @ inverse) / (one @ inverse @ one)
    sigma = math.sqrt(world.y @ p @ world.y / (world.n - 1))
    mean, cov = prior @ z.T @ p @ world.y, prior - prior @ z.T @ p @ z @ prior

    columns = [items for block in model.blocks for items in block.levels]
    assert model.sigma == pytest.approx(sigma)
    for items, effect in effects.items():
        c = np.zeros(len(columns))
        for k, name in enumerate(columns):
            block = next(b for b in model.blocks if name in b.levels) if k < 15 else None
            if name == items:
                c[k] += 1.0
            if block is not None and k < 10 and items and block.levels[0][0][0] == items[0][0] and len(items) == 1:
                c[k] -= np.mean(block.codes[block.codes >= 0] == block.levels.index(name))
        if items == ():
            c[15:] = [-np.mean(b.codes == 0) for b in model.blocks[3:]]
        if len(items) == 1 and items[0][0] == "d2":
            c[10:15] = 0.0
        variance = c @ cov @ c
        assert effect.theta == pytest.approx(c @ mean, abs=1e-8)
        assert effect.se == pytest.approx(sigma * math.sqrt(variance), rel=1e-6)
        known_of = max(0.0, 1 / variance - 1 / (c @ prior @ c))
        assert effect.n_eff == pytest.approx(min(known_of, effect.n), abs=1e-4), "a slice is worth its trades at most"
        assert effect.lfsr == pytest.approx(0.5 * math.erfc(abs(effect.theta) / effect.se / math.sqrt(2)), abs=1e-9)


def test_effects_are_told_as_of_now(make):
    """An effect that turned: theta, se and half-life are those of following each column's daily residual sums, the
    information of a trade as x' V0^-1 x per trade by the dense V0."""
    ratios = (0.2, 0.1)
    table, schema = make.trades(23, n=400, dims=2, size=100, day_sd=0.4)
    turned = np.where(np.arange(400) < 300, 1.2, -1.2) * table.inside((("d0", "v0"),))
    design = make.design(replace(table, y=table.y + turned), schema)
    model = _solved(design, design.components, [0.2, 0.05], ratios)
    inverse, z = np.linalg.inv(make.dense(design, *ratios)), make.one_hot(design.components)
    rest = inverse @ (design.y - model.mean - z @ model.alpha)
    by_day = np.array([design.day == day for day in range(len(design.days))], dtype=float)
    worth = np.diag(z.T @ inverse @ z) / z.sum(axis=0)
    info = (by_day @ z * worth).T
    total = (by_day @ (z * rest[:, None])).T + info * model.alpha[:, None]
    prior = np.repeat(model.t, 5) * model.sigma**2
    weight = np.clip((model.alpha / model.sigma) ** 2 / np.diag(model.h)[1:], 0.0, 1.0)
    found = follow(design.days, info, total, prior, model.sigma**2, weight)

    effects = _effects(design, model, _known(design, model))

    now, spread = model.alpha + found.shift, model.h[1:, 1:] * np.outer(found.ratio, found.ratio)
    for start, block in ((0, design.components[0]), (5, design.components[1])):
        share = np.bincount(block.codes, minlength=5) / design.n
        for level, items in enumerate(block.levels):
            c = np.zeros(10)
            c[start : start + 5] -= share
            c[start + level] += 1.0
            assert effects[items].theta == pytest.approx(c @ now, abs=1e-8)
            assert effects[items].se == pytest.approx(model.sigma * math.sqrt(c @ spread @ c), rel=1e-8)
            assert effects[items].half_life_hours == 24.0 * found.half_life_days[start + level]
    flipped = effects[("d0", "v0"),]
    assert found.ratio[0] > 1.2, "what is forgotten is known less well"
    assert flipped.theta < 0 < model.alpha[0]
    assert math.isfinite(flipped.half_life_hours)


def test_totals_counts_and_times_are_those_of_the_slice(make, world):
    """total: the mean expectation of the slice's trades over that of all; n and last_ts by looking."""
    model, known = _with_cells(world, CELLS)
    expected = fitted(world, model)
    for items, effect in _effects(world, model, known, STANDING).items():
        hit = np.ones(world.n, dtype=bool)
        for item in items:
            block = next(b for b in world.components if b.name == item[0])
            hit &= block.codes == block.levels.index((item,))
        assert effect.n == hit.sum()
        assert effect.last_ts == world.ts[hit].max()
        assert effect.total == pytest.approx(expected[hit].mean() - expected.mean(), abs=1e-9)


def test_evidence_of_a_cell_is_its_bayes_factor_given_all_else(make):
    """log_e of a cell of two dims: prior share times the Bayes factor of its column beside the other blocks, by dense
    densities of the outcome with sigma as fitted."""
    design = make.design(*make.trades(22, n=150, dims=2, size=40, effect=0.8, levels=3))
    items = (("d0", "v0"), ("d1", "v1"))
    known = _known(design, _solved(design, (), []))
    cell = known.cell(items)
    blocks = (*design.components, known.component(cell))
    model = _solved(design, blocks, [0.1, 0.1, 0.16])
    z, x = make.one_hot(design.components), (known.component(cell).codes == 0).astype(float)
    v = np.eye(design.n) + 0.1 * z @ z.T
    inverse, one = np.linalg.inv(v), np.ones(design.n)
    p = inverse - np.outer(inverse @ one, one @ inverse) / (one @ inverse @ one)
    q, s = x @ p @ x, x @ p @ design.y
    grown = 1 + q * SLABS**2
    factor = np.mean(grown**-0.5 * np.exp(0.5 * s * s / (q * model.sigma**2) * (1 - 1 / grown)))

    found = _effects(design, model, known, STANDING)[items]

    assert found.n_eff == pytest.approx(q, rel=1e-6)
    assert found.log_e == pytest.approx(math.log(factor) + known.log_prior[cell], abs=1e-6)


def test_evidence_of_all_slices_together_is_an_e_value(make):
    """On pure noise the sum over slices of exp(log_e) has mean 1 at most, within 3 standard errors of 500 draws: two
    dims of ten levels of six trades, a cell chosen beforehand."""
    rng = np.random.default_rng(9)
    a, b = rng.permutation(60) % 10, rng.permutation(60) % 10
    design = make.design(*make.columns({"a": a, "b": b, "c": a // 5}, rng.normal(0, 1, 60)))
    known = _known(design, _solved(design, (), []))
    blocks = (*design.components[:2], known.component(known.cell((("a", "v3"), ("c", "v0")))))
    total = []
    for _ in range(500):
        noise = replace(design, y=rng.normal(0, 1, 60))
        effects = _effects(noise, _solved(noise, blocks, [0.1, 0.1, 0.1]), known)
        total.append(sum(math.exp(e.log_e) for e in effects.values()))

    assert len(effects) == 22
    assert 0.1 < np.mean(total) <= 1.0 + 3 * np.std(total) / math.sqrt(len(total))


# ------------------------------------------------------------------ confirmation and calibration


def _halves(make, early, late, n=400, seed=1, days=None):
    """d0=v0 is worth ``early`` R in the first half of the time and ``late`` R after it."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, n)
    y = rng.normal(0, 1.0, n) + np.where(np.arange(n) < n // 2, early, late) * (codes == 0)
    return make.design(*make.columns({"d0": codes, "d1": rng.integers(0, 3, n)}, y, day=days))


def _confirmed(design, config=DEFAULT):
    model = _solved(design, design.components, [0.1] * len(design.components))
    return _effects(design, model, _known(design, model), config)[("d0", "v0"),].confirmed


def test_later_trades_must_say_the_same(make):
    """A standing effect of either sign is confirmed; one that turned, ended or was never there before is not."""
    seeds = range(20)

    def share(early, late):
        return np.mean([_confirmed(_halves(make, early, late, seed=s)) for s in seeds])

    assert share(0.8, 0.8) == 1.0
    assert share(-0.8, -0.8) == 1.0
    assert share(0.8, -0.8) == 0.0
    assert share(-0.8, 0.8) == 0.0
    assert share(0.8, 0.0) <= 0.4, "by chance at most 20 % and the sign"


def test_confirmation_needs_days(make):
    """Many later trades within fewer than five entry days confirm nothing."""
    n = 400
    days = np.concatenate([np.arange(200) // 4, np.full(199, 0) + 100, [101]])
    few = _halves(make, 1.0, 1.0, n, days=np.sort(days))

    assert not _confirmed(few)
    assert _confirmed(few, LearningConfig(confirm_min_days=1))


def test_a_trade_open_over_the_middle_belongs_to_neither_half(make):
    """Trades entered before the middle and closed after it are not counted on either side: making them absurd changes
    neither confirmation nor calibration."""
    design = _halves(make, 0.8, 0.8)
    middle = design.opened[design.n // 2]
    across = np.arange(design.n) < design.n // 2
    across &= design.components[0].codes == 0
    across &= np.arange(design.n) >= design.n // 2 - 40
    ts = np.where(across, middle + 1, design.ts)
    wild = replace(design, ts=ts, y=np.where(across, -50.0, design.y))
    calm = replace(design, ts=ts)
    model = _solved(calm, calm.components, [0.1, 0.1])
    assert across.sum() > 5
    loud = replace(model, sums=column_sums(wild, wild.components))

    assert _slope(wild, loud) == pytest.approx(_slope(calm, model))
    for given_design, solved in ((calm, model), (wild, loud)):
        assert _effects(given_design, solved, _known(given_design, solved))[("d0", "v0"),].confirmed


def test_predictions_are_right_in_size_where_the_model_is(make):
    """Effects drawn from the prior: later outcomes on earlier predictions have slope 1 on average; its se is that of a
    plain regression."""
    slopes = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 8, 600)
        y = rng.normal(0, 1.0, 600) + rng.normal(0, 0.4, 8)[codes]
        design = make.design(*make.columns({"d0": codes}, y))
        model = _solved(design, design.components, [0.16])
        slopes.append(_slope(design, model))

    mean = np.mean([s["slope"] for s in slopes])
    assert abs(mean - 1.0) < 3 * np.std([s["slope"] for s in slopes]) / math.sqrt(60) + 0.02
    assert np.std([s["slope"] for s in slopes]) == pytest.approx(np.mean([s["se"] for s in slopes]), rel=0.4)
    assert {s["n"] for s in slopes} <= {299.0, 300.0}


def test_too_large_effects_are_found_out(make):
    """An effect that ended at the middle has a slope near 0."""
    design = _halves(make, 1.0, 0.0, n=2400)
    model = _solved(design, design.components, [0.3, 0.01])
    slope = _slope(design, model)

    assert abs(slope["slope"]) < 3 * slope["se"]
    assert slope["slope"] + 1.645 * slope["se"] < 0.5


def test_too_few_later_trades_give_no_slope(make):
    """Fewer than 20: nothing is said."""
    design = _halves(make, 1.0, 1.0, n=38)

    assert _slope(design, _solved(design, design.components, [0.1, 0.1])) == {}


@given(
    st.floats(-3, 5),
    st.floats(0, 3),
    st.sampled_from([100.0, 999.0, 1000.0, 5000.0]),
    st.floats(-2, 2),
    st.floats(-2, 2),
)
def test_calibration_never_enlarges(slope, se, n, theta, total):
    """Effects keep their sign and never grow; they shrink only where the slope is below 1 beyond doubt, on 1,000 later
    trades or more."""
    before = Effect(theta, 0.1, 90, 80.0, 0.1, total)
    after = _calibrated({(("d", "v"),): before}, {"slope": slope, "se": se, "n": n}, DEFAULT)[("d", "v"),]

    assert abs(after.theta) <= abs(theta)
    assert abs(after.total) <= abs(total)
    assert after.theta * theta >= 0
    assert replace(after, theta=theta, total=total) == before
    if n < 1000 or slope + 1.645 * se >= 1:
        assert after == before
    else:
        assert after.theta == pytest.approx(theta * max(0.0, slope + 1.645 * se))
    assert _calibrated({(("d", "v"),): before}, {}, DEFAULT) == {(("d", "v"),): before}


# ------------------------------------------------------------------ clusters, claims, rejected slices


def test_slices_of_the_same_trades_are_one_cluster(make):
    """Two dims that always agree share a cluster; a third that does not stands alone."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 300)
    nearly = np.where(rng.random(300) < 0.05, (codes + 1) % 3, codes)
    table = make.columns({"a": codes, "b": nearly, "c": rng.integers(0, 3, 300)}, rng.normal(0, 1, 300))
    design = make.design(*table)
    model = _solved(design, design.components, [0.1, 0.1, 0.1])
    factor = {items: e.factor for items, e in _effects(design, model, _known(design, model)).items()}

    for value in ("v0", "v1", "v2"):
        assert factor[("a", value),] == factor[("b", value),] >= 0
        assert factor[("c", value),] == -1
    assert len({factor[("a", v),] for v in ("v0", "v1", "v2")}) == 3


@st.composite
def evidence(draw):
    values = draw(st.lists(st.tuples(st.integers(-20, 70), st.booleans()), max_size=12))
    return {
        (("d", k),): Effect(0.1, 0.05, 9, 9.0, 0.1, 0.1, log_e=0.1 * e, confirmed=c) for k, (e, c) in enumerate(values)
    }


@given(evidence(), st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_claims_are_e_bh_and_confirmed(effects, alpha):
    """Against the definition: the largest k with at least k values of e >= 1/(alpha k); those, if confirmed."""
    e = {items: math.exp(one.log_e) for items, one in effects.items()}
    best = max((k for k in range(1, len(e) + 1) if sum(v * alpha * k >= 1 for v in e.values()) >= k), default=0)
    wanted = {items for items, v in e.items() if best and v * alpha * best >= 1 and effects[items].confirmed}

    assert claimed(effects, alpha) == wanted


def test_a_root_is_never_claimed(world):
    """It only gives back."""
    model, known = _with_cells(world, CELLS)
    effects = _effects(world, model, known)

    assert (effects[()].log_e, effects[()].confirmed) == (-math.inf, False)
    assert () not in claimed(effects, 0.9)


def test_rejected_slices_are_those_that_stood_out_most(make):
    """By prior-weighted evidence: two thirds single dims, the rest deeper; effect and spread as if each were real, by
    hand from its mean."""
    design = make.design(*make.trades(31, n=200, dims=4, size=0))
    model = _solved(design, (), [])
    known = _known(design, model)
    found = rejected_effects(design, model, known, replace(DEFAULT, rejected_rows=9))
    alone = [e.log_e for items, e in found.items() if len(items) == 1]
    deeper = [e.log_e for items, e in found.items() if len(items) > 1]
    rest = residual(design, model)

    assert (len(alone), len(deeper)) == (6, 3)
    assert alone == sorted(alone, reverse=True)
    singles = {known.items(c): c for c in np.flatnonzero(known.single & np.isfinite(known.log_prior)).tolist()}
    assert len(singles) == 19
    for items, effect in found.items():
        hit = known.component(known.cell(items)).codes == 0
        s, q = rest[hit].sum(), float(hit.sum())
        grown = 1 + q * SLABS**2
        z2 = s * s / (q * model.sigma**2)
        weight = grown**-0.5 * np.exp(0.5 * z2 * (1 - 1 / grown))
        t = np.sum(weight * SLABS**2) / weight.sum()
        assert effect.theta == pytest.approx(s / (q + 1 / t), abs=1e-9)
        assert effect.se == pytest.approx(model.sigma / math.sqrt(q + 1 / t), abs=1e-9)
        assert effect.log_e == pytest.approx(math.log(weight.mean()) + known.log_prior[known.cell(items)], abs=1e-9)
        assert abs(effect.theta) < abs(s / q), "shrunk"
        assert not effect.confirmed
    means = {
        items: abs(design.y[known.component(c).codes == 0].mean() - design.y.mean()) for items, c in singles.items()
    }
    assert max(means, key=means.get) in found
