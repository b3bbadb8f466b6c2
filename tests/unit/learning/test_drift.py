"""Following effects through the days against a plain recursion, and what is forgotten how fast."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.drift import HALF_LIVES_DAYS, _follow, follow, half_life_chances


def naive(days, info, total, half_life, tau2, sigma2):
    """Evidence so far counts 2^(-age/H); prior N(0, tau^2); each day's own value is judged before it is believed."""
    seen, score = [], 0.0
    for day, i, t in zip(days, info, total, strict=True):
        if i <= 0:
            continue
        value, noise = t / i, sigma2 / i
        old = [(i0 / sigma2 * 0.5 ** ((day - d0) / half_life), x0) for d0, i0, x0 in seen]
        precision = 1 / tau2 + sum(p for p, _ in old)
        mean = sum(p * x for p, x in old) / precision
        spread = 1 / precision + noise
        score += -0.5 * math.log(spread) - 0.5 * (value - mean) ** 2 / spread
        seen.append((day, i, value))
    last = seen[-1][0] if seen else 0
    new = [(i0 / sigma2 * 0.5 ** ((last - d0) / half_life), x0) for d0, i0, x0 in seen]
    precision = 1 / tau2 + sum(p for p, _ in new)
    return sum(p * x for p, x in new) / precision, 1 / precision, score


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 25),
    st.integers(1, 3),
    st.floats(0.01, 2.0),
    st.floats(0.1, 4.0),
)
def test_following_equals_the_plain_recursion(seed, bins, width, tau2, sigma2):
    """Mean, variance and score per column and half-life, with days on which a column has no trade; what forgets has at
    least the least prior variance."""
    rng = np.random.default_rng(seed)
    days = np.cumsum(rng.integers(1, 12, bins)).astype(float)
    info = rng.integers(0, 4, (width, bins)) * rng.uniform(0.3, 1.0, (width, bins))
    total = info * rng.normal(0.3, 1.5, (width, bins))
    shape = (width, len(HALF_LIVES_DAYS))
    mean, variance, score = np.zeros(shape), np.zeros(shape), np.zeros(shape)

    least = 0.3
    _follow(days, info, total, HALF_LIVES_DAYS, np.full(width, tau2), least, sigma2, mean, variance, score)

    for j in range(width):
        for h, half_life in enumerate(HALF_LIVES_DAYS.tolist()):
            prior = tau2 if math.isinf(half_life) else max(tau2, least)
            wanted = naive(days.tolist(), info[j].tolist(), total[j].tolist(), half_life, prior, sigma2)
            assert (mean[j, h], variance[j, h], score[j, h]) == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 2.0), st.floats(0.1, 4.0))
def test_what_never_forgets_is_the_conjugate_posterior(seed, tau2, sigma2):
    """Half-life inf: the normal posterior of all values at once; its score is the joint density up to a constant."""
    rng = np.random.default_rng(seed)
    info = rng.uniform(0.5, 3.0, (1, 30))
    x = rng.normal(0.2, 1.0, 30)
    mean, variance, score = np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1))

    _follow(np.arange(30.0), info, info * x, np.array([np.inf]), np.array([tau2]), 9.0, sigma2, mean, variance, score)

    weight = info[0] / sigma2
    assert variance[0, 0] == pytest.approx(1 / (1 / tau2 + weight.sum()))
    assert mean[0, 0] == pytest.approx((weight @ x) / (1 / tau2 + weight.sum()))
    joint = np.diag(1 / weight) + tau2
    density = -0.5 * (x @ np.linalg.solve(joint, x) + np.linalg.slogdet(joint)[1])
    assert score[0, 0] == pytest.approx(density, abs=1e-8)


def test_without_other_half_lives_nothing_shifts():
    """All prior weight on "never": no shift, the stationary spread, whatever the data say."""
    rng = np.random.default_rng(0)
    info = np.full((3, 60), 4.0)
    total = info * rng.normal(0, 1, (3, 60))
    never = LearningConfig(drift_pseudo_columns=0.0)

    found = follow(np.arange(60), info, total, np.full(3, 0.1), 1.0, np.ones(3), never)

    assert found.shift == pytest.approx(np.zeros(3), abs=1e-12)
    assert found.ratio == pytest.approx(np.ones(3))
    assert found.half_life_days.tolist() == [np.inf] * 3


def _flip(seed, until, per_day=4, sd=1.3):
    """Days of four trades, +1 R for a hundred days, then -1 R: information and totals of one column."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, sd / math.sqrt(per_day), 220)[:until] + np.where(np.arange(until) < 100, 1.0, -1.0)
    info = np.full((1, until), float(per_day))
    return np.arange(until), info, info * x


def _now(seed, until, sd=1.3, tau2=0.3):
    """The effect as of day ``until``, and the half-life chosen then."""
    days, info, total = _flip(seed, until)
    found = follow(days, info, total, np.array([tau2]), sd**2, np.ones(1))
    precision = 1 / tau2 + info.sum() / sd**2
    return total.sum() / sd**2 / precision + float(found.shift[0]), float(found.half_life_days[0])


def test_a_flipped_effect_is_forgotten_within_two_half_lives():
    """+1 R for 100 days, then -1 R: at two half-lives of the chosen one after the flip the sign is right, in at least
    90 % of 40 seeds, and the flip is noticed within a month."""
    right = 0
    for seed in range(40):
        for after in range(1, 31):
            effect, half_life = _now(seed, 100 + after)
            if after >= 2 * half_life:
                right += effect < 0
                break

    assert right >= 36


def test_a_standing_effect_is_kept_whole():
    """+1 R throughout: no half-life in nearly all of 40 seeds, and the effect is what all the data say."""
    kept = 0
    for seed in range(40):
        days, info, total = _flip(seed, 100)
        found = follow(days, info, total, np.array([0.3]), 1.69, np.ones(1))
        kept += math.isinf(found.half_life_days[0]) and abs(found.shift[0]) < 0.1

    assert kept >= 38


def test_half_life_chances_are_a_posterior_under_a_shared_prior():
    """Rows sum to 1, scores may be shifted by column, and columns without weight do not move the shared prior."""
    rng = np.random.default_rng(4)
    score = rng.normal(0, 3, (6, 4))
    prior, weight = np.array([0.3, 0.3, 0.3, 30.0]), np.array([1.0, 0.5, 0.0, 1.0, 0.0, 0.2])

    p = half_life_chances(score, prior, weight)

    assert p.sum(axis=1) == pytest.approx(np.ones(6))
    assert half_life_chances(score + np.arange(6.0)[:, None], prior, weight) == pytest.approx(p)
    alone = half_life_chances(score[weight > 0], prior, weight[weight > 0])
    assert p[weight > 0] == pytest.approx(alone)
    share = prior + (p * weight[:, None]).sum(axis=0)
    like = np.exp(score - score.max(axis=1, keepdims=True)) * share / share.sum()
    assert p == pytest.approx(like / like.sum(axis=1, keepdims=True), abs=1e-3), "a fixed point of EM"


def test_columns_that_drift_together_persuade_each_other():
    """Many columns that flipped lower the bar for one that is in doubt."""
    score = np.zeros((21, 2))
    score[:20, 0] = 6.0
    prior = np.array([DEFAULT.drift_pseudo_columns, DEFAULT.stationary_pseudo_columns])

    assert (
        half_life_chances(score, prior, np.ones(21))[20, 0]
        > 10 * half_life_chances(score[20:], prior, np.ones(1))[0, 0]
    )
