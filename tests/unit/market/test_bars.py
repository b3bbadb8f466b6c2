"""Bars are believed only when they are possible, and never show the future."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.domain.errors import MarketDataError
from edgebook.domain.timeframe import TIMEFRAMES, micros, nearest, seconds
from edgebook.market.bars import Bar, BarSeries, from_bars, resample

HOUR = 3_600_000_000


def series(count=8, timeframe="1h", start=0, drop=()):
    """Rising bars on the grid, with chosen rows left out."""
    keep = np.array([i for i in range(count) if i not in drop], dtype=np.int64)
    close = 100.0 + keep
    return BarSeries(
        "X", timeframe, start + keep * micros(timeframe), close - 0.5, close + 1, close - 1, close, keep + 1.0
    )


def test_a_bar_is_stamped_with_its_close():
    """Open time plus the timeframe is the moment a bar may be acted on."""
    bars = series(3)
    assert bars.close_ts.tolist() == [HOUR, 2 * HOUR, 3 * HOUR]
    assert bars.bar(-1) == Bar("X", "1h", 2 * HOUR, 101.5, 103.0, 101.0, 102.0, 3.0)
    assert bars.bar(-1).ts == 3 * HOUR


@pytest.mark.parametrize(
    ("field", "row", "value", "right"),
    [
        ("close", 2, float("nan"), "positive finite price"),
        ("low", 1, 0.0, "positive finite price"),
        ("high", 3, 50.0, "at least the open and the close"),
        ("low", 3, 103.5, "at most the open and the close"),
        ("volume", 4, -1.0, "finite and not negative"),
        ("volume", 0, float("inf"), "finite and not negative"),
        ("ts_open", 5, 4 * HOUR, "later than the row before"),
        ("ts_open", 5, 5 * HOUR + 1, "a multiple of 3600000000"),
    ],
)
def test_an_impossible_bar_is_refused_with_its_place(field, row, value, right):
    """The error names the symbol, the row, the field and what would be right."""
    good = series(6)
    columns = {name: np.array(getattr(good, name)) for name in ("ts_open", "open", "high", "low", "close", "volume")}
    columns[field][row] = value

    with pytest.raises(MarketDataError, match=rf"X 1h: row {row}: {field} is .*{right}"):
        BarSeries("X", "1h", **columns)


def test_columns_of_unequal_length_are_refused():
    """A missing value is an error, not a shift."""
    good = series(4)
    with pytest.raises(MarketDataError, match="volume has shape"):
        BarSeries("X", "1h", good.ts_open, good.open, good.high, good.low, good.close, good.volume[:3])


def test_bars_cannot_be_changed_after_they_were_checked():
    """Arrays are read-only, and the caller's own array is not the one inside."""
    close = np.array([1.0, 2.0])
    bars = BarSeries("X", "1h", np.array([0, HOUR]), close, close, close, close, close)
    close[0] = 99.0
    assert bars.close.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        bars.close[0] = 5.0


@given(count=st.integers(0, 30), drop=st.sets(st.integers(0, 29)), ts=st.integers(-2, 34), want=st.integers(0, 12))
def test_a_window_ends_before_the_decision(count, drop, ts, want):
    """Every bar of a window closed at or before the decision, and no later closed bar was left out."""
    bars = series(count, drop=drop)
    window = bars.window_before(ts * HOUR, want)

    known = [t for t in bars.close_ts.tolist() if t <= ts * HOUR]
    assert window.close_ts.tolist() == (known[-want:] if want else [])


def test_slices_are_by_opening_time_and_half_open():
    """From is in, to is out."""
    bars = series(8, drop={3})
    assert bars.slice(2 * HOUR, 6 * HOUR).ts_open.tolist() == [2 * HOUR, 4 * HOUR, 5 * HOUR]
    assert len(bars.slice(6 * HOUR, 2 * HOUR)) == 0


def test_gaps_count_missing_bars():
    """Two missing rows are a gap of two before the next row."""
    assert series(6, drop={2, 3}).gaps().tolist() == [0, 0, 2, 0]


def test_resampled_bars_hold_what_their_source_held():
    """Open of the first, close of the last, extreme of all, sum of volumes."""
    four, coverage = resample(series(8), "4h")
    assert four.ts_open.tolist() == [0, 4 * HOUR]
    assert (four.open.tolist(), four.close.tolist()) == ([99.5, 103.5], [103.0, 107.0])
    assert (four.high.tolist(), four.low.tolist()) == ([104.0, 108.0], [99.0, 103.0])
    assert four.volume.tolist() == [10.0, 26.0]
    assert coverage.tolist() == [1.0, 1.0]


def test_thin_and_unfinished_buckets_do_not_exist():
    """Under half the source bars, or a bucket whose close was not reached: no bar."""
    four, coverage = resample(series(15, drop={1, 2, 3, 5}), "4h")
    assert four.ts_open.tolist() == [4 * HOUR, 8 * HOUR]  # first too thin, last unfinished
    assert coverage.tolist() == [0.75, 1.0]


@given(count=st.integers(0, 40), drop=st.sets(st.integers(0, 39)), cut=st.integers(0, 40))
def test_a_resampled_bar_never_changes(count, drop, cut):
    """Resampling what was known earlier gives the beginning of resampling everything."""
    bars = series(count, drop=drop)
    early, _ = resample(bars.window_before(cut * HOUR, 1000), "4h")
    full, _ = resample(bars, "4h")
    n = len(early)
    assert early.ts_open.tolist() == full.ts_open[:n].tolist()
    assert early.close.tolist() == full.close[:n].tolist()
    assert early.high.tolist() == full.high[:n].tolist()


def test_only_whole_multiples_can_be_built():
    """4h bars cannot become 1h bars."""
    with pytest.raises(MarketDataError, match="whole multiple of 4h"):
        resample(series(4, "4h"), "1h")


def test_single_bars_make_a_series():
    """A feed's bars and a recorded series are the same thing."""
    bars = series(5)
    again = from_bars("X", "1h", list(bars))
    assert again.close.tolist() == bars.close.tolist()
    with pytest.raises(MarketDataError, match="row 1 is a bar of Y 1h"):
        from_bars("X", "1h", [bars.bar(0), Bar("Y", "1h", HOUR, 1, 1, 1, 1, 0)])


def test_timeframes_are_ordered_and_unknown_ones_named():
    """Finest first; an unknown name is answered with the allowed ones."""
    assert [seconds(t) for t in TIMEFRAMES] == sorted(seconds(t) for t in TIMEFRAMES)
    with pytest.raises(MarketDataError, match="unknown timeframe '2h'; use one of 1m, 5m"):
        micros("2h")


def test_nearest_timeframe_in_log_duration_ties_to_the_coarser():
    """5m lies nearer 15m than 1m; 1h halves the way from 15m to 4h exactly."""
    assert nearest("5m", ("1m", "15m", "1h", "4h")) == "15m"
    assert nearest("1h", ("15m", "4h")) == "4h"
    assert nearest("30m", ("1m", "15m", "1h", "4h")) == "1h"
    with pytest.raises(MarketDataError, match="at least one"):
        nearest("1h", ())
