"""Scores give the check values of the specification and move the way their names say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.engine.signals import (
    decay,
    discount,
    edx_suppression,
    edx_windows,
    first_dip,
    ox_base,
    ox_in_s3,
    ox_parts,
    sigmoid,
    trend_strength,
)
from edgebook.market.indicators import COLUMNS


def row(**values):
    """An indicator row in which nothing moves, with some values set."""
    quiet = dict.fromkeys(COLUMNS, 0.0) | {n: 100.0 for n in COLUMNS if n.startswith("ema") and "slope" not in n}
    quiet |= {"close": 100.0, "high": 100.0, "low": 100.0, "atr": 2.0, "atr_mean_20": 2.0, "rsi": 50.0, "adx": 20.0}
    return np.array(list((quiet | values).values()))


def test_trend_strength():
    """engine.md 9: slopes (1, .5) give .6125; no slope is neutral; the ends are clamped."""
    assert trend_strength(1.0, 0.5) == pytest.approx(0.6125)
    assert trend_strength(0.0, 0.0) == 0.5
    assert trend_strength(99.0, 99.0) == 1.0
    assert trend_strength(-99.0, -99.0) == 0.0
    assert math.isnan(trend_strength(float("nan"), 0.0))


def test_overextension_is_one_half_when_nothing_moves():
    """engine.md 9: price on every EMA, nothing expanding: OX .5."""
    assert ox_base(row()) == pytest.approx(0.5)
    assert ox_parts(row(atr=0.0))[:4] == (0.0, 0.0, 0.0, 0.0)


@given(a=st.floats(80, 120), b=st.floats(80, 120))
def test_a_higher_price_is_more_extended(a, b):
    """OX never falls when only the price rises, and stays in [0, 1]."""
    low, high = ox_base(row(close=min(a, b))), ox_base(row(close=max(a, b)))
    assert 0.0 <= low <= high <= 1.0


def test_decay_boosts_overextension_by_a_sixth_at_most():
    """OX in S3: 1 + .33 * (EDX - .5) above .5, nothing below."""
    assert ox_in_s3(0.6, 0.4) == 0.6
    assert ox_in_s3(0.6, 0.7) == pytest.approx(0.6 * 1.066)
    assert ox_in_s3(0.6, 1.0) == pytest.approx(0.6 * 1.165)
    assert ox_in_s3(0.99, 1.0) == 1.0


def test_discount_at_the_floor_of_the_hallway():
    """engine.md 9: p at EMA333, band .03, everything else quiet: .8151."""
    quiet = row(close=100.0, ema333=100.0, ema144=103.0)
    dx, x, location, exhaustion, relief, curl = discount(quiet, 0.5)
    assert dx == pytest.approx(0.8151, abs=5e-5)
    assert (x, exhaustion, curl) == (0.0, 0.5, 0.0)
    assert location == pytest.approx(1.15)
    assert relief == pytest.approx(0.5 * sigmoid(2.0) + 0.25)
    damped = discount(quiet, 0.9)[0]
    assert damped == pytest.approx(dx * 0.85)


def test_discount_has_no_location_in_an_inverted_hallway():
    """EMA144 below EMA333: no place to buy in, x unknown."""
    _, x, location, *_ = discount(row(ema144=99.0), 0.5)
    assert location == 0.0
    assert math.isnan(x)


def test_a_weak_trend_gives_no_relief_from_its_slope():
    """ADX under 18 counts as no trend at all."""
    strong, weak = discount(row(ema144=103.0, adx=18.0), 0.5)[4], discount(row(ema144=103.0, adx=17.9), 0.5)[4]
    assert strong - weak == pytest.approx(0.125)


def test_edx_suppression_ramps_between_its_knees():
    """.15 from .62 on (decisions.md 57); with the knees .5 and .7 of the specification .60 gives .075."""
    assert [edx_suppression(e, 0.5, 0.62) for e in (0.3, 0.5, 0.62, 0.9)] == [0.0, 0.0, 0.15, 0.15]
    assert edx_suppression(0.56, 0.5, 0.62) == pytest.approx(0.075)
    assert edx_suppression(0.60, 0.5, 0.7) == pytest.approx(0.075)


def test_edx_windows():
    """engine.md 9."""
    assert edx_windows(29) == (29, 19, 0)
    assert edx_windows(30) == (30, 20, 10)
    assert edx_windows(14) == (14, 0, 0)
    assert edx_windows(15) == (15, 10, 0)


def test_edx_is_neutral_for_a_young_trend():
    """Nine bars say nothing."""
    empty = np.empty((9, 6))
    assert decay(8, empty, np.zeros(9), np.empty((0, 4))) == (0.5, 0.5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("age", "near", "expected"),
    [(0, 20, True), (6, 30, True), (7, 20, False), (7, 60, True), (12, 60, True), (13, 60, False)],
)
def test_the_first_dip_is_early_and_close(age, near, expected):
    """Six bars for EMA20/30, twelve for EMA60, half an ATR each."""
    emas = {"ema20": 110.0, "ema30": 110.0, "ema60": 110.0} | {f"ema{near}": 101.0}
    dip = row(close=100.0, ema333=95.0, ema144_slope=0.001, **emas)
    assert first_dip(dip, age, 0.5, 0.0) is expected


@pytest.mark.parametrize(
    "broken",
    [
        {"close": 94.9, "ema20": 94.9},
        {"ema144_slope": 0.0, "ema250_slope": -0.001},
        {"ema20": 101.01},
        {"atr": 0.0},
    ],
)
def test_the_first_dip_needs_all_its_conditions(broken):
    """Above EMA333, a slow EMA rising, near, and an ATR to measure with."""
    good = {"close": 100.0, "ema20": 101.0, "ema30": 110.0, "ema60": 110.0, "ema333": 95.0, "ema144_slope": 0.001}
    assert first_dip(row(**good), 3, 0.45, 0.2)
    assert not first_dip(row(**good), 3, 0.44, 0.2)
    assert not first_dip(row(**(good | broken)), 3, 0.45, 0.2)


@given(x=st.floats(-1e6, 1e6))
def test_sigmoid_is_symmetric(x):
    """sigmoid(x) + sigmoid(-x) = 1, without overflow."""
    assert sigmoid(x) + sigmoid(-x) == pytest.approx(1.0)
