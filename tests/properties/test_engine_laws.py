"""Laws of the engine: chunking, restart, no look-ahead, no units, and gates that only ever close when tightened."""

from __future__ import annotations

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.domain.levers import LEVERS as LEVER_TABLE
from edgebook.engine.columns import EngineColumns, EngineConfig, advance, reading
from edgebook.engine.gates import BASE_GATES, LEVERS, Gates, evaluate, flags_over
from edgebook.market.bars import BarSeries

STEP = 900_000_000


def market(seed, count, *, scale=1.0, missing=0.0):
    """Bars of a market with trends both ways, on a tick grid, with holes and bars without volume."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(count) / rng.integers(500, 900)
    close = 40.0 * np.exp(np.cumsum(-0.0028 * np.cos(phase) + rng.normal(0, 0.009, count)))
    close = np.round(close / 2**-10) * 2**-10
    opened = np.r_[close[:1], close[:-1]]
    high = np.maximum(opened, close) * (1 + rng.integers(0, 8, count) / 1024)
    low = np.minimum(opened, close) * (1 - rng.integers(0, 8, count) / 1024)
    volume = rng.lognormal(4, 1, count) * (rng.random(count) > 0.05)
    keep = np.flatnonzero(rng.random(count) >= missing)
    prices = [(a * scale)[keep] for a in (opened, high, low, close)]
    return BarSeries("X", "15m", (keep * STEP).astype(np.int64), *prices, volume[keep])


def in_chunks(bars, cuts, config=None, pickled=False):
    """The engine over the bars between consecutive cuts; optionally through stored bytes at each cut."""
    memory, parts = None, []
    edges = sorted({0, len(bars), *(c for c in cuts if c < len(bars))})
    for start, stop in itertools.pairwise(edges):
        columns, memory = advance(memory, bars.rows(start, stop), config=config)
        memory = pickle.loads(pickle.dumps(memory)) if pickled else memory
        parts.append(columns)
    joined = [np.concatenate([getattr(p, name) for p in parts]) for name in ("values", "counters", "flags")]
    return EngineColumns(bars.symbol, bars.timeframe, *joined), memory


def assert_same(a, b):
    """Equal states, counters and flags; equal numbers to 1e-12."""
    np.testing.assert_array_equal(a.counters, b.counters)
    np.testing.assert_array_equal(a.flags, b.flags)
    np.testing.assert_allclose(a.values, b.values, rtol=1e-12, atol=1e-12, equal_nan=True)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 500),
    cuts=st.sets(st.integers(0, 1800), max_size=12),
    pickled=st.booleans(),
    config=st.sampled_from([EngineConfig(), EngineConfig(global_exit=True, bootstrap_s3=True)]),
)
def test_any_chunking_gives_the_same_columns(seed, cuts, pickled, config):
    """Whole, in pieces, or in pieces through a restart: the same engine."""
    bars = market(seed, 1800, missing=0.02)
    whole, _ = advance(None, bars, config=config)
    assert_same(in_chunks(bars, cuts, config, pickled)[0], whole)


def test_one_bar_at_a_time_is_the_whole_series():
    """The live way of running, bar by bar through 1500 bars."""
    bars = market(20, 1500)
    whole, _ = advance(None, bars)
    assert set(whole.state.tolist()) >= {0, 1, 2, 3}
    single, memory = in_chunks(bars, range(1500))
    assert_same(single, whole)
    assert memory.last_ts_open == bars.ts_open[-1]


@settings(max_examples=25)
@given(seed=st.integers(0, 500), cut=st.integers(1, 1600))
def test_the_future_changes_nothing(seed, cut):
    """Columns up to a bar are the same whether or not later bars exist."""
    bars = market(seed, 1600)
    whole, _ = advance(None, bars)
    early, _ = advance(None, bars.rows(0, cut))
    assert_same(early, whole.rows(0, cut))


def test_a_memory_is_a_value():
    """Advancing twice from one memory gives the same twice: nothing inside it was changed."""
    bars = market(3, 1200)
    _, memory = advance(None, bars.rows(0, 900))
    first, _ = advance(memory, bars.rows(900, 1200))
    second, _ = advance(memory, bars.rows(900, 1200))
    assert_same(first, second)


@settings(max_examples=20)
@given(seed=st.integers(0, 500), power=st.integers(-20, 12))
def test_states_and_scores_have_no_currency(seed, power):
    """Prices times a constant (a power of two, so rounding cannot differ) change no state, flag or score."""
    plain, _ = advance(None, market(seed, 1500))
    scaled, _ = advance(None, market(seed, 1500, scale=2.0**power))
    np.testing.assert_array_equal(plain.counters, scaled.counters)
    np.testing.assert_array_equal(plain.flags, scaled.flags)
    for name in ("ts_score", "ox", "edx", "dx", "ti", "sr_strength_anchor", "rsi", "adx", "ema60_slope"):
        np.testing.assert_allclose(plain.floats(name), scaled.floats(name), rtol=1e-9, atol=1e-12)


GATES = st.builds(
    Gates,
    ts_min=st.floats(0.4, 0.8),
    sr_boost=st.floats(0.0, 0.4),
    halo=st.floats(0.2, 2.0),
    slope_min=st.floats(-0.003, 0.003),
    slow_slope_min=st.floats(-0.002, 0.002),
    dx_min=st.floats(0.3, 0.8),
    edx_supp_mult=st.floats(0.0, 2.0),
)


@pytest.fixture(scope="module")
def columns():
    """Readings of a market with every state."""
    made, _ = advance(None, market(20, 4000))
    return made


@settings(max_examples=40)
@given(gates=GATES, lever=st.sampled_from(LEVERS), by=st.floats(0.0, 0.5))
def test_tightening_a_gate_never_turns_a_flag_on(columns, gates, lever, by):
    """For every lever, in the direction the lever table calls tighter."""
    tighter = dataclasses.replace(gates, **{lever: getattr(gates, lever) + LEVER_TABLE[lever].polarity * by})
    for loose, tight in zip(flags_over(columns, gates), flags_over(columns, tighter), strict=True):
        assert not (tight & ~loose).any()


@settings(max_examples=15)
@given(gates=GATES, offset=st.integers(0, 12))
def test_whole_series_and_single_readings_agree(columns, gates, offset):
    """The vectorised flags are those of `evaluate`, and blocked_by is empty exactly on a buy."""
    signal, flag = flags_over(columns, gates)
    base = flags_over(columns, BASE_GATES)
    for i in range(333 + offset, len(columns), 13):
        r = reading(columns, i)
        report = evaluate(r, gates)
        assert report.flags == (signal[i], flag[i])
        assert report.flags_base == (base[0][i], base[1][i])
        assert any(report.flags) == (r.state in ("S1", "S2", "S3") and not report.blocked_by)
        assert all(c.passed == (c.margin >= 0) for c in report.checks if c.name in ("ts_min", "halo", "zone", "dx_min"))
