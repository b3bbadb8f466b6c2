"""The engine takes back what a late or corrected bar has changed, and goes on as if it had known."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest

from edgebook.domain.errors import EngineError, MarketDataError
from edgebook.engine.columns import EngineConfig, advance, reading
from edgebook.engine.revise import RevisingStream
from edgebook.market.bars import BarSeries, from_bars
from edgebook.market.intake import Arrival

STEP = 900_000_000


def market(seed, count):
    """Bars of a market with trends both ways."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(count) / rng.integers(500, 900)
    close = 40.0 * np.exp(np.cumsum(-0.0028 * np.cos(phase) + rng.normal(0, 0.009, count)))
    opened = np.r_[close[:1], close[:-1]]
    high, low = np.maximum(opened, close) * 1.004, np.minimum(opened, close) * 0.996
    return list(BarSeries("X", "15m", np.arange(count) * STEP, opened, high, low, close, rng.lognormal(4, 1, count)))


def whole(bars, config=None):
    """Columns and memory of one run over the whole series."""
    return advance(None, from_bars("X", "15m", bars), config=config)


def fed(bars, memory=None, config=None):
    """A stream that has taken these bars as they closed."""
    stream = RevisingStream("X", "15m", memory, config)
    for bar in bars:
        stream.take(Arrival("new", bar))
    return stream


def doubled(bar):
    """The bar with another close, high and volume."""
    return dataclasses.replace(bar, close=bar.high, high=bar.high * 1.3, volume=2 * bar.volume + 1)


def with_bar(bars, index, bar):
    """A copy of the bars with another one at ``index``."""
    return [*bars[:index], bar, *bars[index + 1 :]]


def assert_same_memory(a, b):
    """All that later bars need is equal, numbers to 1e-12."""
    assert (a.symbol, a.timeframe, a.last_ts_open, a.count) == (b.symbol, b.timeframe, b.last_ts_open, b.count)
    arrays = [(a.rows, b.rows), *zip(a.carried.levels, b.carried.levels, strict=True)]
    arrays += [(getattr(a.carried, n), getattr(b.carried, n)) for n in ("sums", "state", "s3", "zigzag", "pivots")]
    for left, right in arrays:
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


def assert_same_reading(made, expected):
    """Equal words, counters and flags; equal numbers to 1e-12."""
    for field in dataclasses.fields(expected):
        ours, theirs = getattr(made, field.name), getattr(expected, field.name)
        if isinstance(theirs, float):
            assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12, nan_ok=True), field.name
        else:
            assert ours == theirs, field.name


def test_new_bars_give_the_readings_of_the_whole_series():
    """Checkpoints on the way change nothing."""
    bars = market(20, 1500)
    columns, memory = whole(bars)
    stream = RevisingStream("X", "15m")

    for i, bar in enumerate(bars):
        assert_same_reading(stream.take(Arrival("new", bar)), reading(columns, i))
    assert set(columns.state.tolist()) >= {0, 1, 2, 3}
    assert_same_memory(stream.memory(), memory)


@pytest.mark.parametrize("back", [1, 2, 100, 255, 256, 257, 512])
@pytest.mark.parametrize("count", [700, 768, 769, 1100])
def test_a_correction_up_to_512_bars_back_moves_the_next_reading(back, count):
    """It gives no reading itself; the next bar's is that of a run over the corrected series."""
    bars = market(2, count + 1)
    corrected = with_bar(bars, count - back, doubled(bars[count - back]))
    stream = fed(bars[:count])

    assert stream.take(Arrival("corrected", corrected[count - back])) is None
    assert_same_memory(stream.memory(), whole(corrected[:count])[1])
    assert_same_reading(stream.take(Arrival("new", bars[-1])), reading(whole(corrected)[0], count))
    assert stream.too_late == 0


def test_a_hole_filled_late_is_no_gap_for_the_bars_after_it():
    """Five missing bars void an episode on the first bar behind them; once they have come, nothing is missing."""
    bars = market(3, 620)
    stream = fed(bars[:600])

    assert stream.take(Arrival("new", bars[605])).gap_bars == 5
    for late in (603, 600, 604, 601):
        assert stream.take(Arrival("late", bars[late])) is None
    after = stream.take(Arrival("new", bars[607]))
    assert (after.gap_bars, after.bar_index) == (1, 605)
    assert stream.take(Arrival("late", bars[602])) is None
    assert stream.take(Arrival("late", bars[606])) is None
    columns, _ = whole(bars)
    for i in range(608, 620):
        made = stream.take(Arrival("new", bars[i]))
        assert made.gap_bars == 0
        assert_same_reading(made, reading(columns, i))


def test_bars_before_the_first_one_can_come_late():
    """A stream that started with the newest bar ends where one that started with the oldest does."""
    bars = market(4, 400)
    stream = fed(bars[200:300])
    for bar in reversed(bars[:200]):
        assert stream.take(Arrival("late", bar)) is None

    assert_same_memory(stream.memory(), whole(bars[:300])[1])


@pytest.mark.parametrize("kind", ["late", "corrected", "new"])
def test_what_is_too_old_is_refused_and_counted(kind):
    """Nothing changes, and nobody is told a reading."""
    bars = market(5, 1500)
    stream = fed(bars)

    assert stream.take(Arrival(kind, doubled(bars[1500 - 512 - 257]))) is None
    assert stream.too_late == 1
    assert_same_memory(stream.memory(), whole(bars)[1])


def test_a_bar_taken_before_is_never_read_again():
    """A bar called new by an intake that started afresh replays instead, and leaves the same state."""
    bars = market(6, 500)
    stream = fed(bars)

    assert [stream.take(Arrival("new", bar)) for bar in bars[300:]] == [None] * 200
    assert_same_memory(stream.memory(), whole(bars)[1])


def test_it_goes_on_from_a_memory_and_back_to_it_only():
    """Bars up to the memory's last one are too late, those after it are not; the memory itself stays as it was."""
    bars = market(7, 901)
    corrected = with_bar(bars, 600, doubled(bars[600]))
    _, memory = whole(bars[:600])
    stream = fed(bars[600:900], memory)

    stream.take(Arrival("corrected", doubled(bars[599])))
    stream.take(Arrival("corrected", corrected[600]))
    assert stream.too_late == 1
    assert_same_reading(stream.take(Arrival("new", bars[900])), reading(whole(corrected)[0], 900))
    assert_same_memory(memory, whole(bars[:600])[1])


def test_a_replay_runs_under_the_same_switches():
    """A configured stream stays configured, in the replay and after it."""
    config = EngineConfig(global_exit=True, bootstrap_s3=True)
    bars = market(210, 1500)
    corrected = with_bar(bars, 700, doubled(bars[700]))
    columns, _ = whole(corrected, config)
    _, before = whole(corrected[:1200], config)
    stream = fed(bars[:1200], config=config)
    stream.take(Arrival("corrected", corrected[700]))

    assert_same_memory(stream.memory(), before)
    for i in range(1200, 1500):
        assert_same_reading(stream.take(Arrival("new", bars[i])), reading(columns, i))
    unset, _ = whole(corrected)
    assert columns.state[1199] != unset.state[1199]
    assert (advance(before, from_bars("X", "15m", bars[1200:]))[0].state != columns.state[1200:]).any()


@pytest.mark.parametrize("kind", ["new", "late", "corrected"])
@pytest.mark.parametrize("changed", [{"low": 0.0}, {"open": float("nan")}, {"symbol": "Y"}])
def test_an_impossible_bar_changes_nothing(kind, changed):
    """It is refused before anything is stored, and the stream goes on."""
    bars = market(9, 401)
    stream = fed(bars[:400])

    with pytest.raises((EngineError, MarketDataError), match="X 15m: "):
        stream.take(Arrival(kind, dataclasses.replace(bars[400 if kind == "new" else 390], **changed)))
    stream.take(Arrival("corrected", bars[399]))
    assert_same_reading(stream.take(Arrival("new", bars[400])), reading(whole(bars)[0], 400))


def test_a_memory_of_another_series_is_refused():
    """Each symbol and timeframe has its own stream."""
    with pytest.raises(EngineError, match="a memory of X 15m given to a stream of Y 15m"):
        RevisingStream("Y", "15m", whole(market(10, 30))[1])


def test_memory_stays_bounded():
    """After every bar and revision, near and far, and in an S3 of 900 bars, a stream holds less than 800 kB."""
    bars = market(11, 6000)
    fed(bars[:300]).take(Arrival("corrected", doubled(bars[200])))  # compiled code is not counted
    held = []
    tracemalloc.start()
    try:
        stream = RevisingStream("X", "15m")
        for i, bar in enumerate(bars):
            stream.take(Arrival("new", bar))
            for back in (1, 500) if i % 97 == 96 else ():
                stream.take(Arrival("corrected", doubled(bars[max(0, i - back)])))
                held.append(tracemalloc.get_traced_memory()[0])
            if i % 31 == 0:
                stream.take(Arrival("corrected", doubled(bar)))
    finally:
        tracemalloc.stop()

    assert stream.too_late == 0
    assert max(held) < 800_000
