"""Streaming equals batch on every recorded file: one bar at a time, through restarts, to 1e-12."""

from __future__ import annotations

import pickle
from operator import attrgetter

import numpy as np
import pytest

from edgebook.adapters.feeds.parquet import ParquetSource
from edgebook.engine.columns import advance
from edgebook.engine.machine import COUNTERS, FLAGS, SCORES
from edgebook.engine.stream import EngineStream
from edgebook.market.indicators import COLUMNS

SETS = (
    "binance_spot_15m_short_lived",
    "binance_spot_1h_2021_2023",
    "binance_spot_1h_majors",
    "binance_spot_30m_2023_2025q1",
    "binance_spot_5m_2025q1",
    "bittrex_btcpairs_1m_2021",
    "ftx_perp_1m_2022",
    "solana_dex_1h",
    "solana_dex_1m",
    "solana_dex_5m",
)
RESTARTS = 4
STATES = {f"S{code}": code for code in range(5)}

values_of = attrgetter(*(name if name != "close" else "price" for name in COLUMNS), *SCORES)
counters_of = attrgetter(*(name for name in COUNTERS if name not in ("state", "prev_state", "exit_reason")))
flags_of = attrgetter(*FLAGS)


def streamed(bars, restarts):
    """Values, counters, flags and states of every bar, from one bar at a time, through stored bytes at ``restarts``."""
    stream = EngineStream(bars.symbol, bars.timeframe)
    values, counters, flags, states = [], [], [], []
    for i, bar in enumerate(bars):
        if i in restarts:
            stream = EngineStream(bars.symbol, bars.timeframe, pickle.loads(pickle.dumps(stream.memory())))
        r = stream.push(bar)
        values.append(values_of(r))
        counters.append(counters_of(r))
        flags.append(flags_of(r))
        states.append((STATES[r.state], STATES[r.prev_state]))
    return np.array(values), np.array(counters), np.array(flags), np.array(states)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_streaming_equals_batch_on_every_recorded_file(real_data, name):
    """All bars of all symbols of a set, with restarts at bars drawn per file."""
    folder = real_data / name
    if not folder.is_dir():
        pytest.skip(f"the recorded data has no {name}")
    source = ParquetSource(folder)
    assert len(source.symbols) == len(list(folder.glob("*.parquet")))
    for number, symbol in enumerate(source.symbols):
        bars = source.bars(symbol, 0, 1 << 62)
        restarts = set(np.random.default_rng(number).integers(0, len(bars), RESTARTS).tolist())
        whole, after = advance(None, bars)
        values, counters, flags, states = streamed(bars, restarts)
        np.testing.assert_allclose(values, whole.values, rtol=1e-12, atol=1e-12, equal_nan=True, err_msg=symbol)
        np.testing.assert_array_equal(counters, whole.counters[:, : counters.shape[1]], err_msg=symbol)
        np.testing.assert_array_equal(flags, whole.flags, err_msg=symbol)
        np.testing.assert_array_equal(states, np.c_[whole.state, whole.prev_state], err_msg=symbol)
        assert after.count == len(bars)
