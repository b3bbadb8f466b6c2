"""Laws of live bars: whatever the order of delivery, the end is that of the whole series, and nothing looks ahead."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.domain.timeframe import micros
from edgebook.engine.columns import advance, reading
from edgebook.engine.revise import RevisingStream
from edgebook.market.bars import BarSeries, from_bars, resample
from edgebook.market.intake import BarIntake

COARSER = ("1h", "4h")
COUNT = 1100  # bars delivered in disorder, ...
TAIL = 40  # ... and in order after them
#: Bars by which a delivery may be late; a correction may be late twice, and 512 bars can be revised.
REACH = 250


def market(seed, count, timeframe, missing):
    """Bars of a market with trends both ways, with holes (one of them long) and bars without volume."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(count) / rng.integers(500, 900)
    close = 40.0 * np.exp(np.cumsum(-0.0028 * np.cos(phase) + rng.normal(0, 0.009, count)))
    opened = np.r_[close[:1], close[:-1]]
    high = np.maximum(opened, close) * (1 + rng.integers(0, 8, count) / 1024)
    low = np.minimum(opened, close) * (1 - rng.integers(0, 8, count) / 1024)
    volume = rng.lognormal(4, 1, count) * (rng.random(count) > 0.05)
    hole = rng.integers(count)
    keep = np.flatnonzero((rng.random(count) >= missing) & (abs(np.arange(count) - hole) > missing * 100))
    return BarSeries("X", timeframe, keep * micros(timeframe), *(a[keep] for a in (opened, high, low, close, volume)))


def other(bar, rng):
    """Possible but different values of the same bar."""
    low, high = sorted((bar.low * rng.uniform(0.97, 1.0), bar.high * rng.uniform(1.0, 1.03)))
    return dataclasses.replace(bar, low=low, high=high, close=rng.uniform(low, high), volume=rng.uniform(0.0, 500.0))


def deliveries(seed, bars, trouble):
    """Answers of a live source, (now, order, bars) at each close: bars late, corrected, repeated and still open.

    Args:
        trouble: share of the bars that are late, and of those that come with wrong values first.
    """
    rng = np.random.default_rng(seed)
    answers = [[] for _ in range(len(bars) + 3 * REACH)]
    for i, bar in enumerate(bars):
        at = i + (rng.integers(1, REACH) if rng.random() < trouble else 0)
        for before in range(max(0, i - 2), i):
            answers[before].append(other(bar, rng))
        if rng.random() < trouble:
            answers[at].append(other(bar, rng))
            at += rng.integers(1, REACH)
        answers[at].append(bar)
        for _ in range(rng.integers(0, 3)):
            answers[at + rng.integers(0, REACH)].append(bar)
    last = len(bars) - 1
    return [(bars.bar(min(i, last)).ts, rng.permutation(len(a)), a) for i, a in enumerate(answers)]


class Follower:
    """An intake and the engine of every timeframe behind it, with all that was told and read."""

    def __init__(self, base):
        self.intake = BarIntake("X", base, COARSER)
        self.streams = {timeframe: RevisingStream("X", timeframe) for timeframe in (base, *COARSER)}
        self.told = defaultdict(dict)
        self.readings = defaultdict(dict)
        self.offers = 0

    def give(self, bars, now):
        """One answer of the source; yields each reading as it is given."""
        self.offers += len(bars)
        for bar in bars:
            yield from self.take(self.intake.offer(bar, now), now)
        yield from self.take(self.intake.close(now), now)

    def take(self, arrivals, now):
        for arrival in arrivals:
            bar = arrival.bar
            assert bar.ts <= now
            told, readings = self.told[bar.timeframe], self.readings[bar.timeframe]
            assert (bar.ts_open in told) == (arrival.kind == "corrected")
            assert told.get(bar.ts_open) != bar
            told[bar.ts_open] = bar
            made = self.streams[bar.timeframe].take(arrival)
            assert (made is not None) == (arrival.kind == "new")
            if made is not None:
                assert made.ts == bar.ts
                assert made.ts not in readings
                readings[made.ts] = made
                yield made

    def known(self, timeframe):
        """The series of a timeframe as it has been told so far."""
        told = self.told[timeframe]
        return from_bars("X", timeframe, [told[ts] for ts in sorted(told)])


def assert_reads(made, columns, index):
    """A reading equals a row of a whole-series run: words, counters and flags equal, numbers to 1e-12."""
    for field, expected in dataclasses.asdict(reading(columns, index)).items():
        if isinstance(expected, float):
            assert getattr(made, field) == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True), field
        else:
            assert getattr(made, field) == expected, field


def assert_same_memory(a, b):
    """All that later bars need is equal, numbers to 1e-12."""
    assert (a.timeframe, a.last_ts_open, a.count) == (b.timeframe, b.last_ts_open, b.count)
    np.testing.assert_allclose(a.rows, b.rows, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(a.carried, b.carried, strict=True):
        pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
        for left, right in pairs:
            np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


DISORDER = {
    "seed": st.integers(0, 10_000),
    "base": st.sampled_from(["1m", "15m"]),
    "missing": st.sampled_from([0.0, 0.02, 0.2]),
    "trouble": st.sampled_from([0.02, 0.1, 0.3]),
}


@settings(max_examples=15)
@given(**DISORDER)
def test_any_order_of_delivery_ends_as_the_whole_series(seed, base, missing, trouble):
    """Bars told and state of every timeframe, and the readings of the bars that follow, are those of the final bars."""
    bars = market(seed, COUNT + TAIL, base, missing)
    start = len(bars) - TAIL
    follower = Follower(base)
    for now, order, answer in deliveries(seed, bars.rows(0, start), trouble):
        list(follower.give([answer[i] for i in order], now))
    for timeframe, stream in follower.streams.items():
        final, _ = resample(bars.rows(0, start), timeframe)
        assert list(follower.known(timeframe)) == list(final)
        assert_same_memory(stream.memory(), advance(None, final)[1])

    for bar in bars.rows(start, len(bars)):
        for made in follower.give([bar], bar.ts):
            columns, _ = advance(None, resample(bars.slice(0, bar.ts_open + 1), made.timeframe)[0])
            assert_reads(made, columns, len(columns) - 1)
    counts = follower.intake.counts
    assert sum(counts.values()) == follower.offers
    assert counts["too_late"] == sum(stream.too_late for stream in follower.streams.values()) == 0


@settings(max_examples=10)
@given(**DISORDER)
def test_a_reading_knows_what_was_told_before_it_and_nothing_else(seed, base, missing, trouble):
    """Every 29th reading equals the last row of a run over the bars told up to that moment, as they then stood."""
    bars = market(seed, COUNT, base, missing)
    follower, given_out = Follower(base), 0
    for now, order, answer in deliveries(seed, bars, trouble):
        for made in follower.give([answer[i] for i in order], now):
            given_out += 1
            if given_out % 29 == 0:
                columns, _ = advance(None, follower.known(made.timeframe))
                assert_reads(made, columns, len(columns) - 1)
    assert given_out > 300
