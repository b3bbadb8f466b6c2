"""The live stream: the same engine, one bar at a time, and clear words for a bar that cannot be taken."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest
from tests.properties.test_engine_laws import market

from edgebook.domain.errors import EngineError
from edgebook.engine.columns import EngineConfig, advance, reading
from edgebook.engine.machine import SCORES
from edgebook.engine.stream import EngineStream


@pytest.fixture(scope="module")
def bars():
    """A market that visits every state, with holes."""
    return market(20, 2600, missing=0.01)


def same(a, b):
    """Equal readings, where NaN equals NaN."""
    left, right = dataclasses.astuple(a), dataclasses.astuple(b)
    return all(x == y or (x != x and y != y) for x, y in zip(left, right, strict=True))


@pytest.mark.parametrize("config", [EngineConfig(), EngineConfig(global_exit=True, bootstrap_s3=True)])
def test_every_reading_is_that_of_the_whole_series(bars, config):
    """Bar by bar through all states, further than any of its buffers is long."""
    whole, _ = advance(None, bars, config=config)
    stream = EngineStream("X", "15m", config=config)
    for i, bar in enumerate(bars):
        assert same(stream.push(bar), reading(whole, i)), i
    assert stream.count == len(bars)
    assert stream.last_ts_open == bars.ts_open[-1]


@pytest.mark.parametrize("cut", [1, 15, 333, 1000, 1999, 2001, 2500])
def test_a_stream_goes_on_from_any_memory_and_gives_one_back(bars, cut):
    """From batch to stream and back to batch, through stored bytes, at bars where buffers turn over."""
    whole, _ = advance(None, bars)
    _, memory = advance(None, bars.rows(0, cut))
    stream = EngineStream("X", "15m", pickle.loads(pickle.dumps(memory)))
    end = min(len(bars), cut + 300)
    for i in range(cut, end):
        assert same(stream.push(bars.bar(i)), reading(whole, i)), i
    rest, _ = advance(stream.memory(), bars.rows(end, len(bars)))
    np.testing.assert_array_equal(rest.counters, whole.counters[end:])
    np.testing.assert_array_equal(rest.values, whole.values[end:])


def test_a_memory_given_or_taken_does_not_move_with_the_stream(bars):
    """Values: the one a stream began with, and the one it gave, stay what they were."""
    _, memory = advance(None, bars.rows(0, 1200))
    before = pickle.dumps(memory)
    stream = EngineStream("X", "15m", memory)
    taken = stream.memory()
    for i in range(1200, 1500):
        stream.push(bars.bar(i))
    assert pickle.dumps(memory) == before
    again, _ = advance(taken, bars.rows(1200, 1500))
    whole, _ = advance(None, bars.rows(0, 1500))
    np.testing.assert_array_equal(again.values, whole.values[1200:])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"symbol": "Y"}, "a bar of Y 15m"),
        ({"timeframe": "1h"}, "a bar of X 1h"),
        ({"ts_open": 0}, "have been taken"),
        ({"ts_open": 999_000_000_001}, "multiple of"),
        ({"close": -1.0}, "positive"),
        ({"high": math.nan}, "positive"),
        ({"close": math.nan}, "positive"),
        ({"open": math.nan}, "positive"),
        ({"low": math.nan}, "positive"),
        ({"low": 1e9}, "low <= open"),
        ({"high": math.inf}, "finite"),
        ({"volume": -1.0}, "volume"),
        ({"volume": math.nan}, "volume"),
    ],
)
def test_a_bar_that_cannot_be_taken_is_named_and_changes_nothing(bars, change, said):
    """The error names series and time; the next good bar reads as if nothing had happened."""
    stream = EngineStream("X", "15m")
    for i in range(400):
        stream.push(bars.bar(i))
    with pytest.raises(EngineError, match=r"X 15m: bar that opens at \d+: ") as caught:
        stream.push(dataclasses.replace(bars.bar(400), **change))
    assert said in str(caught.value)
    whole, _ = advance(None, bars.rows(0, 401))
    assert same(stream.push(bars.bar(400)), reading(whole, 400))


def test_a_memory_of_another_series_is_refused():
    """A stream of X does not go on from the memory of Y."""
    _, memory = advance(None, market(1, 50))
    with pytest.raises(EngineError, match="X 15m given to a stream of Y 15m"):
        EngineStream("Y", "15m", memory)


def test_nothing_is_known_before_it_can_be(bars):
    """In the first bars what is not yet known is NaN, no gate passes, and there is no state before bar 333."""
    stream = EngineStream("X", "15m")
    readings = [stream.push(bars.bar(i)) for i in range(340)]
    assert all(math.isnan(getattr(readings[0], name)) for name in SCORES if name != "sr_raw_e333")
    assert math.isnan(readings[8].ema20_slope)
    assert not math.isnan(readings[9].ema20_slope)
    assert math.isnan(readings[13].atr)
    assert not math.isnan(readings[14].atr)
    assert {r.state for r in readings[:333]} == {"S4"}
