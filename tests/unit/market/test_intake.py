"""A live source repeats, corrects and delays its bars; the intake says what is news, once."""

from __future__ import annotations

import dataclasses
import tracemalloc

import pytest

from edgebook.domain.errors import MarketDataError
from edgebook.market.bars import Bar, from_bars, resample
from edgebook.market.intake import Arrival, BarIntake

QUARTER = 900_000_000
HOUR = 4 * QUARTER


def bar(i, price=None, **changed):
    """The 15m bar number ``i``, which closes at ``price``, rising unless told otherwise."""
    price = 100.0 + i if price is None else price
    made = Bar("X", "15m", i * QUARTER, price - 0.5, price + 1.0, price - 1.0, price, 10.0 + i)
    return dataclasses.replace(made, **changed)


def intake(*timeframes, **options):
    """An intake of 15m bars."""
    return BarIntake("X", "15m", timeframes, **options)


def offered(taker, bars, now=None):
    """Everything told while these bars were offered, each at its own close unless told otherwise."""
    return [arrival for each in bars for arrival in taker.offer(each, each.ts if now is None else now)]


def shape(arrivals):
    """Kind, timeframe and number of each arrival."""
    return [(a.kind, a.bar.timeframe, a.bar.ts_open // (a.bar.ts - a.bar.ts_open)) for a in arrivals]


def test_a_bar_is_news_only_once():
    """The second delivery of the same bar is counted and nothing follows."""
    taker = intake()

    assert taker.offer(bar(0), QUARTER) == [Arrival("new", bar(0))]
    assert taker.offer(bar(0), 2 * QUARTER) == []
    assert taker.counts == {"new": 1, "late": 0, "corrected": 0, "same": 1, "open": 0, "too_late": 0}


def test_an_open_bar_is_not_taken_before_its_close():
    """Its values up to then leave no trace; the moment of its close is early enough."""
    taker = intake()

    assert taker.offer(bar(0, 77.0), QUARTER - 1) == []
    assert taker.offer(bar(0), QUARTER) == [Arrival("new", bar(0))]
    assert (taker.counts["open"], taker.counts["corrected"]) == (1, 0)


def test_other_values_of_a_known_bar_are_a_correction():
    """They are stored: the same values once more are known, the first ones would be a correction again."""
    taker = intake()
    offered(taker, [bar(0), bar(1)])

    assert taker.offer(bar(0, volume=3.0), HOUR) == [Arrival("corrected", bar(0, volume=3.0))]
    assert taker.offer(bar(0, volume=3.0), HOUR) == []
    assert taker.offer(bar(0), HOUR) == [Arrival("corrected", bar(0))]


def test_a_bar_between_or_before_known_ones_is_late():
    """Only a bar after all others is new."""
    taker = intake()

    assert shape(offered(taker, [bar(4), bar(6), bar(5), bar(2)], HOUR * 2)) == [
        ("new", "15m", 4),
        ("new", "15m", 6),
        ("late", "15m", 5),
        ("late", "15m", 2),
    ]


def test_a_bar_older_than_what_is_kept_is_refused_and_counted():
    """It changes nothing: neither the base bars nor an hour; the oldest bar kept can still be corrected."""
    taker = intake("1h", keep_bars=4)
    offered(taker, map(bar, range(16)))

    assert taker.offer(bar(11, 50.0), 4 * HOUR) == []
    assert taker.close(4 * HOUR) == []
    assert taker.counts["too_late"] == 1
    assert shape(taker.offer(bar(12, 50.0), 4 * HOUR)) == [("corrected", "15m", 12), ("corrected", "1h", 3)]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"open": 0.0}, "open is 0.0; it must be a positive finite price"),
        ({"close": float("nan")}, "close is nan; it must be a positive finite price"),
        ({"high": float("inf")}, "high is inf; it must be a positive finite price"),
        ({"low": 102.8}, "low is 102.8; it must be at most the open and the close"),
        ({"high": 102.8}, "high is 102.8; it must be at least the open and the close"),
        ({"volume": -1.0}, "volume is -1.0; it must be finite and not negative"),
        ({"volume": float("nan")}, "volume is nan; it must be finite and not negative"),
        ({"ts_open": 3 * QUARTER + 1}, "ts_open is 2700000001; it must be a multiple of 900000000 us"),
        ({"symbol": "Y"}, "is of Y 15m; each symbol and timeframe has its own intake"),
        ({"timeframe": "1h"}, "is of X 1h; each symbol and timeframe has its own intake"),
    ],
)
def test_an_impossible_bar_is_refused_with_its_place(changed, complaint):
    """The error names symbol, time and field and says what would be right; the intake goes on as before."""
    taker = intake("1h")
    offered(taker, map(bar, range(3)))
    before = taker.counts

    with pytest.raises(MarketDataError, match=r"^X 15m: bar that opens at 270000000[01]:? ") as caught:
        taker.offer(bar(3, **changed), 2 * HOUR)
    assert str(caught.value).endswith(complaint)
    assert taker.counts == before
    assert shape(taker.offer(bar(3), 2 * HOUR)) == [("new", "15m", 3), ("new", "1h", 0)]


def test_an_hour_is_told_with_its_last_quarter():
    """Open of the first, close of the last, extremes and volume of all; finer timeframes are told first."""
    taker = intake("4h", "1h", "15m")
    told = offered(taker, [bar(i, high=200.0) if i == 1 else bar(i) for i in range(16)])

    hour = next(a for a in told if a.bar.timeframe == "1h")
    assert hour == Arrival("new", Bar("X", "1h", 0, 99.5, 200.0, 99.0, 103.0, 46.0))
    assert shape(told)[-3:] == [("new", "15m", 15), ("new", "1h", 3), ("new", "4h", 0)]


def test_an_hour_of_a_batch_is_told_once_and_whole():
    """Bars of a batch that all closed long ago do not tell the hour until its last quarter is there."""
    assert shape(offered(intake("1h"), map(bar, range(6)), 9 * HOUR)) == [
        *(("new", "15m", i) for i in range(4)),
        ("new", "1h", 0),
        ("new", "15m", 4),
        ("new", "15m", 5),
    ]


def test_an_hour_with_a_hole_is_told_if_half_of_it_is_there():
    """Two quarters of four are enough, one is not, as in `resample`."""
    assert shape(offered(intake("1h"), [bar(0), bar(3)]))[-1] == ("new", "1h", 0)
    assert shape(offered(intake("1h"), [bar(3)])) == [("new", "15m", 3)]


def test_an_hour_that_was_too_thin_is_told_when_a_late_quarter_fills_it():
    """It is late itself if a later hour has been told."""
    early, passed = intake("1h"), intake("1h")
    offered(early, [bar(3)])
    offered(passed, [bar(3), *map(bar, range(4, 8))])

    assert shape(early.offer(bar(1), 2 * HOUR)) == [("late", "15m", 1), ("new", "1h", 0)]
    assert shape(passed.offer(bar(1), 2 * HOUR)) == [("late", "15m", 1), ("late", "1h", 0)]


def test_an_hour_without_its_last_quarter_waits_for_close():
    """`close` tells it once, not before the hour has ended; whatever quarter comes after that corrects it."""
    taker = intake("1h")
    offered(taker, map(bar, range(3)))

    assert taker.close(HOUR - 1) == []
    assert taker.close(HOUR) == [Arrival("new", Bar("X", "1h", 0, 99.5, 103.0, 99.0, 102.0, 33.0))]
    assert taker.close(HOUR) == []
    assert taker.offer(bar(0, volume=1.0), HOUR + 4)[1:] == [
        Arrival("corrected", Bar("X", "1h", 0, 99.5, 103.0, 99.0, 102.0, 24.0)),
    ]
    assert taker.offer(bar(3), HOUR + 5) == [
        Arrival("new", bar(3)),
        Arrival("corrected", Bar("X", "1h", 0, 99.5, 104.0, 99.0, 103.0, 37.0)),
    ]


def test_close_never_tells_an_hour_that_is_too_thin():
    """One quarter of four is no hour, however long one waits."""
    taker = intake("1h")
    offered(taker, [bar(0)])

    assert taker.close(10 * HOUR) == []


def test_a_correction_inside_the_hour_leaves_the_hour_alone():
    """Only what changes a bar tells it again."""
    taker = intake("1h")
    offered(taker, map(bar, range(4)))

    assert shape(taker.offer(bar(1, high=102.5), HOUR)) == [("corrected", "15m", 1)]
    assert shape(taker.offer(bar(1, high=500.0), HOUR)) == [("corrected", "15m", 1), ("corrected", "1h", 0)]


def test_what_was_told_is_what_resample_builds():
    """To the bit and over holes, up to a last hour whose last quarter is missing, which only `close` can tell."""
    bars = [bar(i, 50.0 + (i * 7919 % 101) / 7, volume=0.1 * i) for i in range(999) if i % 11 and i % 17 > 5]
    series, now = from_bars("X", "15m", bars), bars[-1].ts + HOUR
    taker = intake("1h", "4h", "1d")
    told = offered(taker, bars) + taker.close(now)

    for timeframe in ("1h", "4h", "1d"):
        built = {a.bar.ts_open: a.bar for a in told if a.bar.timeframe == timeframe}
        expected, _ = resample(series, timeframe, until=now)
        assert len(expected) >= 10
        assert [built[key] for key in sorted(built)] == list(expected)
    assert ("new", "1h", 249) in shape(told)
    assert resample(series, "1h")[0].bar(-1).ts_open < 249 * HOUR


def test_what_leaves_the_store_has_been_told():
    """An hour that nobody closed is told when its quarters are about to be forgotten."""
    taker = intake("1h", keep_bars=4)
    offered(taker, [*map(bar, range(3)), *map(bar, range(4, 7))])

    assert shape(taker.offer(bar(7), 2 * HOUR)) == [("new", "15m", 7), ("new", "1h", 1), ("late", "1h", 0)]
    assert taker.close(2 * HOUR) == []


@pytest.mark.parametrize(("base", "coarsest", "kept"), [("1m", "4h", 2880), ("1m", "1d", 4320), ("15m", "4h", 2880)])
def test_two_days_of_minutes_or_three_of_the_coarsest_are_kept(base, coarsest, kept):
    """The whole of that can be corrected, and what lies more than one coarsest bar further back cannot."""
    taker = BarIntake("X", base, [coarsest])
    step = 60_000_000 if base == "1m" else QUARTER
    length = bar(0, timeframe=coarsest).ts
    count = 2 * kept + 7
    minutes = [Bar("X", base, i * step, 1.0, 1.0, 1.0, 1.0, 1.0) for i in range(count)]
    now = minutes[-1].ts
    offered(taker, minutes)

    assert taker.offer(dataclasses.replace(minutes[-kept], volume=2.0), now) != []
    assert taker.offer(dataclasses.replace(minutes[-kept - length // step], volume=2.0), now) == []
    assert taker.counts["too_late"] == 1


def test_memory_stays_bounded():
    """Five days of minutes on four timeframes, of which two are kept, take no more than half a megabyte."""
    minutes = (Bar("X", "1m", i * 60_000_000, 1.0, 1.0 + i % 7, 1.0, 1.0, 1.0) for i in range(7200))
    tracemalloc.start()
    try:
        taker = BarIntake("X", "1m", ("5m", "15m", "1h", "4h"))
        for minute in minutes:
            taker.offer(minute, minute.ts)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert taker.counts["new"] == 7200
    assert held < 500_000


def test_a_finer_timeframe_or_an_empty_store_is_refused():
    """The error says what to give instead."""
    with pytest.raises(MarketDataError, match="cannot build 1m from 15m; use 15m or a coarser timeframe"):
        intake("1h", "1m")
    with pytest.raises(MarketDataError, match="keep_bars is 0; it must be at least 1"):
        intake("1h", keep_bars=0)
