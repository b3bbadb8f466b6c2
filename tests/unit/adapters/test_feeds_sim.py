"""SimSource: the same market however it is asked, plausible prices, and the planted truth visible from outside."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.adapters.feeds import sim
from edgebook.adapters.feeds.sim import DAY, MINUTE, SimSource
from edgebook.domain.errors import InputError, MarketDataError
from edgebook.engine.columns import advance
from edgebook.engine.gates import BASE_GATES, flags_over
from edgebook.market.composite import cap_class

FIELDS = ("ts_open", "open", "high", "low", "close", "volume")
DAYS = 14


@pytest.fixture(scope="module")
def source():
    return SimSource(seed=5, prehistory=5)


@pytest.fixture(scope="module")
def calls(source):
    """(ts, symbol, curator) of every buy call in the trading days."""
    found = []
    for line in source.signals(source.start, source.start + DAYS * DAY):
        signal = json.loads(line)
        ts = int(datetime.fromisoformat(signal["ts"]).timestamp()) * 1_000_000
        found.append((ts, signal["token"]["symbol"], signal["curator"], signal))
    return found


def small(seed=3):
    return SimSource(seed=seed, tokens=3, prehistory=1)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4 * 1440), st.integers(0, 2000)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_bars_do_not_depend_on_what_was_asked_before(spans, order):
    """Any spans in any order are cuts of the one market that a fresh source gives in one piece."""
    asked = small()
    whole = small()
    order.shuffle(spans)
    for number, first, length in spans:
        symbol = asked.symbols[number]
        start = asked.span[0] + first * MINUTE
        part = asked.bars(symbol, start, start + length * MINUTE)
        everything = whole.bars(symbol, whole.span[0], whole.span[0] + 6 * DAY).slice(start, start + length * MINUTE)
        for name in FIELDS:
            assert np.array_equal(getattr(part, name), getattr(everything, name))


def test_forgotten_days_come_back_the_same(monkeypatch):
    monkeypatch.setattr(sim, "_KEPT_BLOCKS", 2)
    tight, roomy = small(), SimSource(seed=3, tokens=3, prehistory=1)
    end = tight.start + 3 * DAY
    for _ in range(2):
        for symbol in tight.symbols:
            assert np.array_equal(tight.bars(symbol, 0, end).close, roomy.bars(symbol, 0, end).close)


def test_only_closed_bars_inside_the_span_are_given():
    source = small()
    bars = source.bars("BTCUSDT", source.start + 1, source.start + 10 * MINUTE - 1)
    assert bars.ts_open.tolist() == [source.start + m * MINUTE for m in range(1, 9)]
    assert len(source.bars("BTCUSDT", 0, source.span[0])) == 0
    assert len(source.bars("BTCUSDT", source.start + DAY, source.start)) == 0


def test_every_minute_has_a_bar_that_opens_where_the_last_closed(source):
    bars = source.bars("ACORNUSDT", source.start, source.start + 2 * DAY)
    assert len(bars) == 2880
    assert not bars.gaps().any()
    assert np.array_equal(bars.open[1:], bars.close[:-1])


def test_seeds_make_different_markets():
    one, other = small(1), small(2)
    assert (
        one.bars("BTCUSDT", one.start, one.start + DAY).close[-1]
        != other.bars("BTCUSDT", other.start, other.start + DAY).close[-1]
    )


def test_prices_stay_plausible_for_months():
    """Over 200 days nobody leaves 1/20 to 20 times the first price; daily moves suit low caps and majors."""
    source = SimSource(seed=11, tokens=6, prehistory=100)
    for symbol, token in source.tokens().items():
        daily = source.bars(symbol, 0, source.start + 100 * DAY).close[1439::1440]
        spread = np.log(daily / daily[0])
        vol = np.diff(np.log(daily)).std()
        major = cap_class(token.mcap_usd) == "xl"
        assert abs(spread).max() < np.log(20), symbol
        assert (0.01 if major else 0.05) < vol < (0.08 if major else 0.32), symbol


def test_tokens_move_with_the_market(source):
    def hourly(symbol):
        return np.diff(np.log(source.bars(symbol, source.start, source.start + DAYS * DAY).close[59::60]))

    btc = hourly("BTCUSDT")
    assert np.corrcoef(btc, hourly("ETHUSDT"))[0, 1] > 0.3
    assert np.mean([np.corrcoef(btc, hourly(s))[0, 1] for s in source.truth()["tokens"]["big"]]) > 0.03


def test_cap_classes_have_enough_tokens_to_be_ranked(source):
    classes = [cap_class(token.mcap_usd) for token in source.tokens().values()]
    assert {name: classes.count(name) for name in sorted(set(classes))} == {"big": 5, "micro": 6, "mid": 5, "xl": 3}


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 3 * 1440), min_size=2, max_size=5))
def test_signals_are_cut_without_loss_or_repeat(minutes):
    """signals(a, b) + signals(b, c) = signals(a, c), whatever was asked before."""
    source, whole = small(), small()
    moments = [source.start + m * MINUTE for m in sorted(minutes)]
    parts = [line for low, high in pairwise(moments) for line in source.signals(low, high)]
    assert parts == list(whole.signals(moments[0], moments[-1]))


def test_signals_are_in_order_and_only_of_tradable_tokens_after_the_start(source, calls):
    times = [call[0] for call in calls]
    assert times == sorted(times)
    assert min(times) > source.start
    assert source.signals(0, source.start) == ()
    traded = {symbol for names in source.truth()["tokens"].values() for symbol in names}
    assert {call[1] for call in calls} == traded
    assert len({call[3]["id"] for call in calls}) == len(calls)
    assert 45 <= len(calls) / DAYS <= 100


def test_a_signal_quotes_the_market_of_its_minute(source, calls):
    for ts, symbol, _, signal in calls[:20]:
        day = source.bars(symbol, ts - DAY, ts)
        assert signal["market"]["vol24h_usd"] == pytest.approx(float((day.close * day.volume).sum()), abs=0.01)
        cap = source.tokens()[symbol].mcap_usd
        assert 0.05 < signal["market"]["mcap_usd"] / cap < 20


def test_good_curators_come_before_rises_and_bad_ones_before_falls(source, calls):
    """Mean log return from the call over 150 minutes (base, attempt, and what came of it): early > noise > fader."""
    after = defaultdict(list)
    for ts, symbol, curator, _ in calls:
        closes = source.bars(symbol, ts - MINUTE, ts + 150 * MINUTE).close
        after[curator[:5]].append(np.log(closes[-1] / closes[0]))
    early, noise, fader = (np.array(after[name]) for name in ("early", "noise", "fader"))
    assert early.mean() > noise.mean() + 0.01
    assert fader.mean() < min(0.0, noise.mean())
    assert early.mean() > fader.mean() + 0.02
    assert set(after) == {"early", "patie", "fader", "micro", "late", "noise"}


#: `SLOPE_CAP` is the slope gate's severity cap on 1 m bars.
SLOPE_CAP = 0.002 / 60**0.5


def attempts(source, symbol):
    """(reached S3, slope in caps at the first buy signal or None) per engine attempt."""
    bars = source.bars(symbol, source.start - 2 * DAY, source.start + DAYS * DAY)
    columns, _ = advance(None, bars)
    state = np.asarray(columns.state)
    buy, _ = flags_over(columns, BASE_GATES)
    slope = np.maximum(columns["ema60_slope"], columns["ema144_slope"]) / SLOPE_CAP
    for begin in np.flatnonzero((state[1:] == 1) & (state[:-1] == 0)) + 1:
        end = begin + int(np.argmax(~np.isin(state[begin:], (1, 2))))
        if begin < 2880 or state[end] in (1, 2):
            continue
        entries = np.flatnonzero(buy[begin:end] & (state[begin:end] == 1))
        yield state[end] == 3, float(slope[begin + entries[0]]) if len(entries) else None


@pytest.fixture(scope="module")
def seen(source):
    return {
        name: [one for symbol in symbols for one in attempts(source, symbol)]
        for name, symbols in source.truth()["tokens"].items()
    }


def test_the_engine_finds_many_attempts_and_takes_a_good_part(source, seen):
    for name, found in seen.items():
        tokens = len(source.truth()["tokens"][name])
        assert 3.0 < len(found) / tokens / DAYS < 8.0, name
        assert 0.3 < np.mean([slope is not None for _, slope in found]) < 0.8, name


def test_attempts_of_micro_caps_run_more_often_than_those_of_big_caps(seen):
    share = {name: float(np.mean([reached for reached, _ in found])) for name, found in seen.items()}
    assert share["micro"] > share["mid"] > share["big"]
    assert share["micro"] > share["big"] + 0.15


def test_entries_just_above_the_slope_gate_fail_and_steep_ones_run(seen):
    """In every class: within half a cap of the slope gate S3 follows .2 less often than beyond one cap."""
    for name, found in seen.items():
        flat = [reached for reached, slope in found if slope is not None and slope < 0.5]
        steep = [reached for reached, slope in found if slope is not None and slope >= 1.0]
        assert min(len(flat), len(steep)) >= 20, name
        assert np.mean(steep) > np.mean(flat) + 0.2, name
        assert np.mean(flat) < 1 / 3, name


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="tokens was 2"):
        SimSource(tokens=2)
    with pytest.raises(InputError, match="midnight"):
        SimSource(start=sim.DEFAULT_START + 1)
    with pytest.raises(MarketDataError, match="no simulated token DOGE"):
        small().bars("DOGE", 0, DAY)
