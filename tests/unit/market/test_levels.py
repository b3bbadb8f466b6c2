"""Levels equal a plain reading of the specification, know nothing of the future, and stay within their bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.market.levels import SLOTS, SOURCES, anchor_strength, levels_at, levels_over


def walk(seed, count, tick=0.0):
    """Closes of a mean-reverting walk, so that prices come back to their levels; optionally on a tick grid."""
    rng = np.random.default_rng(seed)
    x, out = 0.0, []
    for step in rng.normal(0, 0.01, count):
        x = 0.995 * x + step
        out.append(100 * np.exp(x))
    close = np.array(out)
    return np.round(close / tick) * tick if tick else close


def plain_levels(closes, atr):
    """Set of (price, strength, touches, source) straight from engine.md 5, from the closes known at one bar."""
    window = closes[-1000:]
    if len(window) < 50 or not atr > 0:
        return []
    pivots = []
    for i in range(5, len(window) - 5):
        near = window[i - 5 : i] + window[i + 1 : i + 6]
        if window[i] > max(near) and window[i] - min(near) >= 2 * atr:
            pivots.append(window[i])
        if window[i] < min(near) and max(near) - window[i] >= 2 * atr:
            pivots.append(window[i])
    clusters = []
    for price in sorted(pivots):
        if clusters and price - sum(clusters[-1]) / len(clusters[-1]) <= 0.5 * atr:
            clusters[-1].append(price)
        else:
            clusters.append([price])
    found = [(sum(c) / len(c), min(1.0, len(c) / 6), len(c), "swing") for c in clusters if len(c) >= 3]
    best = sorted(found, key=lambda lv: (-lv[1], abs(lv[0] - window[-1]), -lv[0]))[:8]
    for price, source in ((max(window), "range_high"), (min(window), "range_low")):
        if not any(lv[1] >= 1.0 and abs(lv[0] - price) <= 0.5 * atr for lv in best):
            best = sorted([*best, (price, 1.0, 0, source)], key=lambda lv: (-lv[1], abs(lv[0] - window[-1]), -lv[0]))[
                :8
            ]
    return sorted(best, reverse=True)


@pytest.mark.parametrize(("seed", "tick"), [(1, 0.0), (2, 0.0), (3, 0.25)])
def test_levels_equal_a_plain_reading_of_the_specification(seed, tick):
    """Price, strength, touches and source of every level, at bars before and after the window is full."""
    close = walk(seed, 1400, tick)
    atr = np.random.default_rng(seed).uniform(0.6, 1.4, len(close))
    table = levels_over(close, atr)
    seen = set()
    for i in [30, 48, 49, 60, 200, *range(300, 1400, 61), *range(1000, 1070), 1399]:
        expected = plain_levels(close[: i + 1].tolist(), atr[i])
        found = levels_at(table, i, "X", "1h")
        assert [(lv.touches, lv.source) for lv in found] == [(e[2], e[3]) for e in expected], i
        np.testing.assert_allclose([lv.price for lv in found], [e[0] for e in expected], rtol=1e-12)
        np.testing.assert_allclose([lv.strength for lv in found], [e[1] for e in expected], rtol=1e-12)
        seen |= {lv.source for lv in found} | {f"count {len(found)}"}
    assert {"swing", "range_high", "range_low"} <= seen
    assert table.count[48] == 0


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 1200), start=st.integers(0, 1200))
def test_levels_neither_look_ahead_nor_back_beyond_their_window(seed, cut, start):
    """Cutting the future, or everything older than 1000 closes, changes no level."""
    close = walk(seed, 1300)
    atr = np.full(len(close), 0.9)
    full = levels_over(close, atr)
    short = levels_over(close[:cut], atr[:cut])
    np.testing.assert_array_equal(full.price[:cut], short.price)
    np.testing.assert_array_equal(full.source[:cut], short.source)
    begin = max(0, start - 999)
    late = levels_over(close[begin:], atr[begin:], start - begin)
    np.testing.assert_array_equal(full.price[start:], late.price)
    np.testing.assert_array_equal(full.touches[start:], late.touches)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), atr=st.floats(0.05, 5.0))
def test_levels_stay_within_their_bounds(seed, atr):
    """At most 8, prices descending and inside the window's closes, strength in (0, 1]."""
    close = walk(seed, 600)
    table = levels_over(close, np.full(600, atr))
    for i in (100, 350, 599):
        levels = levels_at(table, i, "X", "1h")
        prices = [lv.price for lv in levels]
        assert 1 <= len(levels) <= SLOTS
        assert prices == sorted(prices, reverse=True)
        assert all(close[: i + 1].min() - 1e-9 <= p <= close[: i + 1].max() + 1e-9 for p in prices)
        assert all(0 < lv.strength <= 1 and lv.source in SOURCES for lv in levels)
        assert len({lv.id for lv in levels}) == len(levels)


def test_without_volatility_there_are_no_levels():
    """An ATR that is zero or missing makes every level test false."""
    table = levels_over(walk(1, 200), np.r_[np.full(100, np.nan), np.zeros(100)])
    assert table.count.sum() == 0


def test_support_of_an_anchor_fades_linearly_within_one_atr():
    """Strength .5 at a quarter ATR under the base boost .25 gives .09375 (engine.md 9); beyond one ATR nothing."""
    levels = np.array([[103.0, 1.0, 0.0, 2.0], [100.5, 0.5, 3.0, 1.0], [97.0, 1.0, 6.0, 1.0]])
    assert 0.25 * anchor_strength(levels, 2, 100.0, 2.0) == pytest.approx(0.09375)
    assert anchor_strength(levels, 2, 97.0, 2.0) == 0.0
    assert anchor_strength(levels, 3, 97.0, 2.0) == 1.0
    assert anchor_strength(levels, 2, 103.0, 2.0) == 1.0
    assert anchor_strength(levels, 2, 103.0, 0.0) == 0.0
