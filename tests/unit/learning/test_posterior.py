"""The fit against a dense oracle, on planted structure, and on worlds without any."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import FamilyFit
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.design import is_market_wide, make_design, winsorise
from edgebook.learning.posterior import _loglik, _solve, fit_family
from edgebook.learning.shocks import column_sums, null_shocks, whitened

SLICE = (("d0", "v0"),)


def _dense(design, blocks, t, a, b):
    """V0, the columns and V of the model, written out in full."""
    week = design.week_of_day[design.day]
    v0 = np.eye(design.n) + a * (design.day[:, None] == design.day) + b * (week[:, None] == week)
    columns = [np.ones(design.n)]
    v = v0.copy()
    for block, ratio in zip(blocks, t, strict=True):
        hot = (block.codes[:, None] == np.arange(len(block.levels))).astype(float)
        columns += list(hot.T)
        v += ratio * hot @ hot.T
    return v0, np.array(columns).T, v


def test_shock_algebra_equals_the_dense_inverse(make):
    """X' V0^-1 X and log det V0 from day sums equal numpy on the full matrix."""
    observations, schema = make.planted(3, n=80, per_day=3.0)
    design = make_design(observations, schema)
    v0, x, _ = _dense(design, design.components, [0] * len(design.components), 0.4, 0.2)
    x = np.column_stack([x, design.y])

    gram, log_det = whitened(column_sums(design, design.components), 0.4, 0.2)

    assert gram == pytest.approx(x.T @ np.linalg.inv(v0) @ x, abs=1e-9)
    assert log_det == pytest.approx(np.linalg.slogdet(v0)[1], abs=1e-9)


def test_posterior_equals_the_dense_mixed_model(make):
    """Effects, mean and restricted likelihood equal generalised least squares with BLUPs on the full covariance."""
    observations, schema = make.planted(4, n=90, effect=0.5, size=20)
    design = make_design(observations, schema)
    t = np.array([0.1, 0.02, 0.3, 0.01])
    _, x, v = _dense(design, design.components, t, 0.3, 0.1)
    inverse, one = np.linalg.inv(v), np.ones(design.n)
    mean = one @ inverse @ design.y / (one @ inverse @ one)
    residual = inverse @ (design.y - mean)
    blup = np.repeat(t, [len(c.levels) for c in design.components]) * (x[:, 1:].T @ residual)
    rss = (design.y - mean) @ residual
    loglik = -0.5 * ((design.n - 1) * math.log(rss) + np.linalg.slogdet(v)[1] + math.log(one @ inverse @ one))

    sums = column_sums(design, design.components)
    model = _solve(sums, design.components, t, (0.3, 0.1))

    assert model.mean == pytest.approx(mean, abs=1e-9)
    assert model.alpha == pytest.approx(blup, abs=1e-9)
    assert model.sigma == pytest.approx(math.sqrt(rss / (design.n - 1)), abs=1e-9)
    assert model.loglik == pytest.approx(loglik, abs=1e-8)
    assert _loglik(sums, design.components, t, 0.3, 0.1) == pytest.approx(loglik, abs=1e-6)


def test_shock_variances_are_recovered(make):
    """A day shock of half the residual sd is found, none is not."""
    with_shock, schema = make.planted(5, n=1500, size=0, sd=1.0, day_sd=0.7, per_day=6.0)
    without, _ = make.planted(5, n=1500, size=0, sd=1.0, per_day=6.0)

    day, _ = null_shocks(make_design(with_shock, schema))
    assert 0.3 < day < 0.75, "true ratio .49"
    assert sum(null_shocks(make_design(without, schema))) < 0.05


def test_planted_edge_moves_capital(make):
    """600 trades, sd 1.3, +1 R on 100 of them: the total multiplier is at least 1.05 in 90 % of seeds (decisions
    22)."""
    theta = [fit_family(*make.planted(seed, effect=1.0)).effects.get(SLICE) for seed in range(40)]

    assert sum(e is not None and e.theta >= math.log(1.05) for e in theta) >= 36


def test_negative_edge_is_learnt_too(make):
    """-1 R on a slice gives a negative increment in nearly every seed."""
    theta = [fit_family(*make.planted(seed, effect=-1.0)).effects.get(SLICE) for seed in range(20)]

    assert sum(e is not None and e.theta <= -math.log(1.05) for e in theta) >= 18


def test_nothing_is_learnt_from_noise(make):
    """Without structure at most a tenth of families act, and capital hardly moves."""
    fits = [fit_family(*make.planted(1000 + seed, dims=6, size=0)) for seed in range(30)]

    assert sum(f.acts for f in fits) <= 3
    assert np.mean([sum(abs(e.theta) for e in f.effects.values()) / max(1, len(f.effects)) for f in fits]) <= 0.02


@pytest.mark.parametrize("hours", [6, 24, 168])
def test_market_labels_of_chance_are_not_admitted(make, hours):
    """In a world of day shocks, a label that is the same for all tokens for 6 h, a day or a week passes at most 10
    %."""
    admitted = 0
    for seed in range(40):
        observations, schema = make.planted(
            2000 + seed, n=1200, dims=1, size=0, sd=1.0, day_sd=0.64, market_hours=hours, per_day=6.0
        )
        admitted += any(g.startswith("market") for g in fit_family(observations, schema).groups)

    assert admitted <= 4


def test_market_wide_dims_need_trades_and_episodes(make):
    """A strong market label acts only with 300 trades and 8 episodes; short of that the fit says so."""
    observations, schema = make.planted(7, n=260, dims=1, size=0, sd=0.5, market_hours=48, per_day=6.0)
    labelled = [_shifted(o, 2.0 if o.scope["market"] == "v0" else 0.0) for o in observations]
    few = fit_family(labelled, schema)
    enough = fit_family(labelled, schema, config=LearningConfig(market_min_trades=200))

    assert (few.acts, few.reason) == (False, "market_wide_too_few")
    assert "market_dims" in enough.groups


def _shifted(observation, by):
    from dataclasses import replace

    return replace(observation, y=observation.y + by)


def test_pairs_are_found_where_neither_dim_matters_alone(make):
    """A crossed effect (+ on equal, - on different halves) shows as a pair, with the right sign in its cells."""
    draw = random.Random(3)
    observations, schema = make.planted(11, n=1500, dims=3, size=0, sd=1.0)
    twisted = []
    for o in observations:
        sign = 1 if (o.scope["d1"] in ("v0", "v1")) == (o.scope["d2"] in ("v0", "v1")) else -1
        twisted.append(_shifted(o, 0.4 * sign))
    draw.shuffle(twisted)
    fit = fit_family(twisted, schema)

    assert "pairs" in fit.groups
    assert fit.effects[("d1", "v0"), ("d2", "v1")].theta > 0.15
    assert fit.effects[("d1", "v0"), ("d2", "v4")].theta < -0.15


def test_order_of_observations_does_not_matter(make):
    """Shuffled input gives the identical fit."""
    observations, schema = make.planted(12, effect=1.0)
    shuffled = list(observations)
    random.Random(1).shuffle(shuffled)

    assert fit_family(shuffled, schema) == fit_family(observations, schema)


def test_a_family_that_acts_stays_on_until_the_lower_gate(make):
    """Evidence between the gates acts only if it acted before (hysteresis)."""
    observations, schema = make.planted(13, effect=0.7)
    nats = fit_family(observations, schema).lr["dims"]
    between = LearningConfig(gate_on_nats=nats + 0.1, gate_off_nats=nats - 0.1, pair_gate_on_nats=99.0)
    past = FamilyFit("f", 0, 500, True, 0.0, {"groups": ["dims"]})

    assert nats > 0.2
    assert not fit_family(observations, schema, None, between).acts
    assert fit_family(observations, schema, past, between).acts


def test_increments_shrink_and_know_their_precision(make):
    """The planted slice: shrunk towards 0, covering the truth, small sign risk, confirmed in both halves of time."""
    observations, schema = make.planted(14, effect=1.0)
    effect = fit_family(observations, schema).effects[SLICE]
    inside = np.array([o.y for o in observations if o.scope["d0"] == "v0"])
    outside = np.array([o.y for o in observations if o.scope["d0"] != "v0"])
    raw = inside.mean() - outside.mean()

    assert 0 < effect.theta < raw
    assert effect.lfsr < 1e-3
    assert effect.confirmed
    assert effect.n == 100
    assert 10 < effect.n_eff <= 140
    assert effect.last_ts == max(o.ts for o in observations if o.scope["d0"] == "v0")


def test_too_few_observations_say_so(make):
    """Below the minimum nothing is fitted; nothing at all is fine too."""
    observations, schema = make.planted(15, n=19, size=3)

    assert fit_family(observations, schema).reason == "too_few"
    assert fit_family([], schema).n == 0


def test_degenerate_worlds_do_not_break_the_fit(make):
    """All equal outcomes, or a scope without any varying dim: silent, finite."""
    observations, schema = make.planted(16, n=60, size=5)
    flat = [_shifted(o, -o.y) for o in observations]
    from dataclasses import replace

    bare = [replace(o, scope={"d0": "v1"}) for o in observations]

    assert not fit_family(flat, schema).acts
    assert not fit_family(bare, schema).acts
    assert fit_family(bare, schema).effects == {}


def test_market_wide_is_recognised_from_the_data():
    """Labels that neighbours in time share are market-wide; labels of the token are not; rare labels do not fool it."""
    n = 400
    opened = np.arange(n, dtype=np.int64) * HOUR
    tokens = np.arange(n, dtype=np.int64) % 7
    rng = np.random.default_rng(0)
    slow = (np.arange(n) // 40) % 3
    rare = (rng.random(n) < 0.02).astype(np.int64)

    assert is_market_wide(slow, opened, tokens)
    assert not is_market_wide(tokens % 3, opened, tokens)
    assert not is_market_wide(rare, opened, tokens)


def test_winsorising_caps_the_tails_only():
    """Values beyond the 1 % and 99 % quantiles become them; the middle is untouched."""
    y = np.arange(1001.0)
    out = winsorise(y, DEFAULT.winsor_share)

    assert (out.min(), out.max()) == (10.0, 990.0)
    assert np.array_equal(out[10:991], y[10:991])
