"""The tape: a reader that never tells more than is known at the moment asked about (architecture law 5)."""

from __future__ import annotations

import numpy as np
import pytest
from tests.flow.world import MINUTE

from edgebook.adapters.feeds.sim import SimSource
from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError
from edgebook.market.bars import BarSeries
from edgebook.runtime.market import Tape


@pytest.fixture(scope="module")
def source():
    """Two days of history, three tokens."""
    return SimSource(1, 3, prehistory=2)


@pytest.fixture(scope="module")
def tape(source):
    """The tape with a day loaded ahead."""
    found = Tape(source, ("1m", "15m"), start=source.start, chunk_days=1)
    found.load(source.start)
    return found


def token(source):
    """A token that may be traded."""
    return next(s for s in source.symbols if not s.startswith(("BTC", "ETH", "SOL")))


def test_mark_is_the_close_of_the_last_closed_bar(source, tape):
    """At T: the bar that opened a minute before; inside a minute: the same one; never the bar that is open."""
    symbol, at = token(source), source.start + 100 * MINUTE
    bars = source.bars(symbol, at - MINUTE, at + MINUTE)

    assert tape.mark(symbol, at) == bars.close[0]
    assert tape.mark(symbol, at + MINUTE // 2) == bars.close[0]
    assert tape.mark(symbol, at + MINUTE) == bars.close[1]
    assert tape.mark("NOSUCH", at) is None


def test_a_mark_is_as_old_as_the_close_of_its_bar(source, tape):
    """At T the bar has just closed; half a minute later it is half a minute old."""
    symbol, at = token(source), source.start + 100 * MINUTE
    assert tape.mark_at(symbol, at) == tape.mark_at(symbol, at + MINUTE // 2) == at
    assert tape.mark_at(symbol, at + MINUTE) == at + MINUTE
    assert tape.mark_at("NOSUCH", at) is None


def test_quote_is_the_open_of_the_first_bar_at_or_after_the_plan_and_known_now(source, tape):
    """Planned at T: the open of the bar that opens at T; not before it has opened."""
    symbol, at = token(source), source.start + 100 * MINUTE
    bars = source.bars(symbol, at, at + 2 * MINUTE)

    assert tape.quote(symbol, at, at).price == bars.open[0]
    assert tape.quote(symbol, at + 1, at + 1) is None
    assert tape.quote(symbol, at + 1, at + MINUTE).price == bars.open[1]


def test_a_reading_is_of_the_bar_that_closes_exactly_then(source, tape):
    """15 m readings at quarters only, with the price of the last minute of the quarter; none in between."""
    symbol, at = token(source), source.start + 30 * MINUTE

    assert tape.reading(symbol, "15m", at).price == tape.mark(symbol, at)
    assert tape.reading(symbol, "15m", at + MINUTE) is None
    assert tape.reading(symbol, "1m", at + MINUTE).ts == at + MINUTE


def test_a_bar_asked_for_before_it_was_loaded_is_there_afterwards(source):
    fresh = Tape(source, ("1m",), start=source.start, chunk_days=1)
    fresh.load(source.start)
    symbol, at = token(source), fresh.loaded_until + MINUTE

    assert fresh.reading(symbol, "1m", at) is None
    fresh.load(at)
    assert fresh.reading(symbol, "1m", at).ts == at


def test_volume_of_a_day_is_the_sum_over_its_closed_bars(source, tape):
    """24 h of USD volume against a plain sum."""
    symbol, at = token(source), source.start + 77 * MINUTE
    bars = source.bars(symbol, at - DAY, at)

    assert tape.volume_24h_usd(symbol, at) == pytest.approx(float(np.sum(bars.close * bars.volume)), rel=1e-12)
    assert tape.volume_24h_usd("NOSUCH", at) == 0.0


def test_path_holds_whole_bars_between_two_moments(source, tape):
    """Bars that open at or after the start and close at or before the end, over the border of two chunks too."""
    symbol, begin, end = token(source), source.start - 20 * MINUTE, source.start + 40 * MINUTE
    path = tape.path(symbol, "15m", begin, end)

    assert path.ts_open.tolist() == [source.start + k * 15 * MINUTE for k in (-1, 0, 1)]
    assert len(tape.path(symbol, "15m", end, end)) == 0


def test_bars_are_counted_as_they_close(source, tape):
    """Closed bars at a moment; 1,000 of history at most."""
    symbol, at = token(source), source.start

    assert tape.bars_count(symbol, "1m", at) == 1_000
    assert tape.bars_count(symbol, "1m", at + 7 * MINUTE) == 1_007
    assert tape.bars_count(symbol, "15m", at) == 192
    assert tape.bars_count(symbol, "15m", at + 14 * MINUTE) == 192


class HoledSource(SimSource):
    """The simulated market, of which some minutes before ``until`` are missing."""

    missing, until = 0, 0

    def bars(self, symbol, begin, end):
        bars = super().bars(symbol, begin, end)
        kept = (bars.ts_open < self.until - self.missing * MINUTE) | (bars.ts_open >= self.until)
        names = ("ts_open", "open", "high", "low", "close", "volume")
        return BarSeries(bars.symbol, bars.timeframe, *(getattr(bars, name)[kept] for name in names))


@pytest.mark.parametrize(("missing", "counted"), [(0, 1_000), (33, 967), (34, 100), (400, 100)])
def test_a_long_hole_starts_the_count_that_wakes_a_position_anew(missing, counted):
    """Holes of up to 33 missing bars are bridged, as a maintenance leaves them; a longer one starts at 0 again, and
    the count goes on from there, over the border of two chunks too."""
    source = HoledSource(1, 3, prehistory=2)
    source.missing, source.until = missing, source.start - 100 * MINUTE
    tape = Tape(source, ("1m",), start=source.start, chunk_days=1)
    at, symbol = source.start, token(source)
    tape.load(at)

    assert tape.contiguous_bars(symbol, "1m", at, 33) == counted
    assert tape.bars_count(symbol, "1m", at) == 1_000 - missing
    later = at + DAY + 7 * MINUTE
    tape.load(later)
    assert tape.contiguous_bars(symbol, "1m", later, 33) == counted + DAY // MINUTE + 7
    assert tape.contiguous_bars("NOSUCH", "1m", at, 33) == 0


def test_timeframes_that_cannot_be_built_are_dropped_or_refused():
    """Finer than the feed: dropped and named; nothing left: one clear line (decisions 8)."""

    class Hourly(SimSource):
        @property
        def base_timeframe(self) -> str:
            return "1h"

    assert Tape(Hourly(1, 3, prehistory=0), ("1m", "15m", "4h"), chunk_days=1).dropped == ("1m", "15m")
    with pytest.raises(InputError, match="1m"):
        Tape(Hourly(1, 3, prehistory=0), ("1m",), chunk_days=1)
