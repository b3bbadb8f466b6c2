"""Regime: appetite check values, cap classes, composites, phases, and a timeline that is causal and cuts anywhere."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.domain.errors import MarketDataError
from edgebook.domain.reading import DriverReading
from edgebook.domain.regime import Regime
from edgebook.market.appetite import (
    bounded,
    bucket_multiplier,
    driver_delta,
    horizon_weights,
    intent_terms,
    leaning,
    raw_appetite,
)
from edgebook.market.appetite_models import Exposure, exposed, market_pressure, phase_appetite
from edgebook.market.bars import BarSeries
from edgebook.market.composite import CompositeMemory, cap_class, composite, driver_members, extend_composite
from edgebook.market.phases import PRESETS, Lens, PhaseTrack, blend_scores, phase_name
from edgebook.market.regime import HOUR, DriverTrack, RegimeTimeline

T0 = 1_704_067_200_000_000
RISK = ("btc", "alt", "bucket")
DOMINANCES = ("btcd", "usdtd")
HORIZONS = ("macro", "meso", "micro")


def reading(driver, horizon, state, **flags):
    defaults = {"buy_flag": False, "buy_signal": False, "first_dip": False, "trim_flag": False, "fell_to_s0_from": ""}
    return DriverReading(driver, horizon, 0, state, state, **(defaults | flags))


def everywhere(risk, dominance):
    names = [(d, risk) for d in RISK] + [(d, dominance) for d in DOMINANCES]
    return [reading(driver, horizon, state) for driver, state in names for horizon in HORIZONS]


# ---- appetite: the check values of trading.md 3.2


def appetite(readings, timeframe, multiplier=1.0):
    """A and E of the market as a regime has them."""
    return bounded(raw_appetite(readings, timeframe), multiplier)


def test_no_drivers_is_neutral():
    assert appetite([], "1h") == (0.5, 0.5)


def test_risk_on_check_value():
    """Risk drivers S3 and both dominances S0 at 1h give 1.3855 / -.0679 before the clamp, 1 / 0 after."""
    readings = everywhere("S3", "S0")
    assert raw_appetite(readings, "1h") == pytest.approx((1.3855, -0.067875), abs=1e-9)
    assert appetite(readings, "1h") == (1.0, 0.0)


def test_mirror_image_is_risk_off():
    assert appetite(everywhere("S0", "S3"), "1h") == (0.0, 1.0)


@pytest.mark.parametrize(("timeframe", "expected"), [("1h", (0.597, 0.4565)), ("4h", (0.471, 0.49325))])
def test_mixed_check_value(timeframe, expected):
    """BTC 1h S1, bucket 1h S3, USDT.d 1d S3."""
    readings = [reading("btc", "meso", "S1"), reading("bucket", "meso", "S3"), reading("usdtd", "macro", "S3")]
    assert appetite(readings, timeframe) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("state", "flags", "expected"),
    [
        ("S0", {"fell_to_s0_from": "S3"}, (-0.80, 0.80)),
        ("S0", {"fell_to_s0_from": "S1"}, (-0.70, 0.70)),
        ("S0", {"fell_to_s0_from": "S2"}, (-0.65, 0.65)),
        ("S1", {"buy_signal": True}, (0.45, -0.25)),
        ("S1", {"buy_flag": True, "trim_flag": True}, (0.25, -0.15)),
        ("S2", {"buy_flag": True, "trim_flag": True}, (0.0, 0.25)),
        ("S3", {"buy_flag": True, "first_dip": True}, (0.40, -0.20)),
        ("S3", {"trim_flag": True}, (-0.05, 0.25)),
        ("S4", {"buy_flag": True, "trim_flag": True}, (0.0, 0.0)),
    ],
)
def test_each_row_of_the_state_table(state, flags, expected):
    assert driver_delta(reading("btc", "meso", state, **flags)) == pytest.approx(expected)


@pytest.mark.parametrize(("timeframe", "total"), [("1m", 0.225), ("15m", 0.325), ("1h", 0.385), ("4h", 0.440)])
def test_horizon_weights_sum_as_in_the_table(timeframe, total):
    assert sum(horizon_weights(timeframe).values()) == pytest.approx(total)
    assert sum(horizon_weights(timeframe, normalise=True).values()) == pytest.approx(0.385)


def test_timeframe_without_a_row_takes_the_nearest():
    assert horizon_weights("5m") == horizon_weights("15m")
    assert horizon_weights("1d") == horizon_weights("4h")


def test_bucket_multiplier_raises_appetite_and_lowers_exit():
    assert bucket_multiplier(1, 0.5, 1.0) == pytest.approx(1.3)
    assert bucket_multiplier(6, -1.0, 1.0) == pytest.approx(0.7)
    assert bucket_multiplier(None, 1.0, 1.0) == 1.0
    assert appetite([], "1h", 1.25) == pytest.approx((0.625, 0.4))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({}, (0.0, 0.0)),
        ({"hi_buy": 1.0}, (0.25, -0.10)),
        ({"med_buy": 1.0}, (0.15, -0.05)),
        ({"profit": 1.0}, (-0.15, 0.15)),
        ({"sell": 1.0}, (-0.25, 0.35)),
        ({"mock": 1.0}, (-0.30, 0.40)),
        ({"sell": 1.0, "mock": 1.0}, (-0.40, 0.40)),
        ({"hi_buy": 1.0, "med_buy": 1.0}, (0.40, -0.15)),
        ({"hi_buy": 0.5, "sell": 0.2}, (0.125 - 0.05, -0.05 + 0.07)),
    ],
)
def test_intent_terms_by_hand(scores, expected):
    """F10: hi_buy 1 is +.25/-.10, mock 1 is -.30/+.50 clipped to +.40; channels add up and each sum is clipped."""
    assert intent_terms(scores) == pytest.approx(expected)


SPOKEN_OF = Regime(7, 0.5, 0.5, (("macro_phase", "Good"), ("A_mode", "normal"), ("E_mode", "normal")), "id", {"x": 1})


def test_nobody_speaking_of_a_token_leaves_the_regime_as_it_is():
    assert leaning(SPOKEN_OF, (0.0, 0.0)) is SPOKEN_OF


def test_intent_moves_appetite_and_modes_but_not_the_snapshot():
    """A and E lean, their modes follow, everything else of the regime (its snapshot's id first) stays."""
    lean = leaning(SPOKEN_OF, (0.25, -0.20))
    assert (lean.a_base, lean.e_base) == pytest.approx((0.75, 0.30))
    assert dict(lean.scope) == {"macro_phase": "Good", "A_mode": "aggressive", "E_mode": "patient"}
    assert (lean.ts, lean.snapshot_id, lean.snapshot) == (7, "id", {"x": 1})


def test_intent_is_clipped():
    assert leaning(SPOKEN_OF, (9.0, -9.0)).a_base == pytest.approx(0.9)
    assert leaning(SPOKEN_OF, (9.0, -9.0)).e_base == pytest.approx(0.1)


def test_intent_joins_the_sum_before_it_is_clamped_and_multiplied():
    """trading.md 3.2: A = clamp(clamp(1.3855 - .25) * .8) = .8, not .8 - .25; E = clamp((-.1 + .35) / .8)."""
    market = Regime(0, 0.8, 0.0, (), "id", {}, 1.3855, -0.1, 0.8)
    lean = leaning(market, (-0.25, 0.35))
    assert (lean.a_base, lean.e_base) == pytest.approx((0.8, 0.25 / 0.8))


def test_a_regime_keeps_the_sums_it_was_made_of():
    """What a timeline answers is what `bounded` makes of the sums and the multiplier it hands on."""
    found = [regime for regime in answers(fed(3, [])) if regime.a_sum != 0.5 and regime.multiplier != 1.0]
    assert len(found) > 10
    for regime in found:
        assert bounded((regime.a_sum, regime.e_sum), regime.multiplier) == (regime.a_base, regime.e_base)


# ---- cap classes and members


def test_cap_class_bounds_belong_to_the_upper_class():
    bounds = [0, 99_999.9, 1e5, 5e6, 5e7, 5e8, 1e9, 1e13]
    assert [cap_class(x) for x in bounds] == ["nano", "nano", "micro", "mid", "big", "large", "xl", "xl"]
    with pytest.raises(MarketDataError, match="must be a number of USD"):
        cap_class(-1.0)


def test_without_btc_the_universe_stands_in():
    members = driver_members(["AUSDT", "BUSDT", "USDCUSDT"])
    assert members == {"btc": ("AUSDT", "BUSDT", "USDCUSDT"), "alt": ("AUSDT", "BUSDT")}


def test_alt_is_the_usual_four_when_there():
    assert driver_members(["BTCUSDT", "ETHUSDT", "SOLUSDT", "XUSDT"])["alt"] == ("ETHUSDT", "SOLUSDT")
    assert driver_members(["BTCUSDT", "XUSDT"])["alt"] == ("XUSDT",)


def test_a_bucket_needs_three_tokens():
    classes = {"A": "mid", "B": "mid", "C": "big", "D": "big", "E": "big"}
    assert [name for name in driver_members(classes, classes) if ":" in name] == ["bucket:big"]


# ---- composite


def series(symbol, closes, start=0, opens=None):
    closes = np.asarray(closes, dtype=float)
    opens = closes if opens is None else np.asarray(opens, dtype=float)
    top, bottom = np.maximum(opens, closes), np.minimum(opens, closes)
    ts = T0 + (start + np.arange(len(closes))) * HOUR
    return BarSeries(symbol, "1h", ts, opens, top * 1.01, bottom * 0.99, closes, np.ones(len(closes)))


def test_composite_of_one_keeps_its_returns():
    index = composite([series("A", [10.0, 11.0, 9.9])])
    assert index.close / index.close[0] == pytest.approx([1.0, 1.1, 0.99])


def test_composite_is_blind_to_price_scale_and_means_log_returns():
    index = composite([series("A", [1.0, 2.0]), series("B", [1e6, 0.5e6])])
    assert index.close == pytest.approx([100.0, 100.0])
    assert index.volume == pytest.approx([1_000_001.0, 500_002.0])


def test_a_return_over_a_gap_does_not_count():
    """A jumps fivefold while it is absent; the index must not."""
    a = series("A", [1.0, 1.0, 5.0, 5.0])
    gappy = BarSeries(
        "A", "1h", *(getattr(a, n)[[0, 1, 3]] for n in ("ts_open", "open", "high", "low", "close", "volume"))
    )
    index = composite([gappy, series("B", [2.0] * 4)])
    assert index.close == pytest.approx([100.0] * 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 59), max_size=4))
def test_composite_is_the_same_in_any_chunks(seed, cuts):
    rng = np.random.default_rng(seed)
    members = []
    for name in "ABC":
        keep = np.flatnonzero(rng.random(60) < 0.8)
        closes = np.exp(rng.normal(0, 0.02, 60).cumsum())
        whole = series(name, closes, opens=closes * np.exp(rng.normal(0, 0.005, 60)))
        columns = (getattr(whole, n)[keep] for n in ("ts_open", "open", "high", "low", "close", "volume"))
        members.append(BarSeries(name, "1h", *columns))
    whole = composite(members)
    memory, parts = CompositeMemory(), []
    for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True):
        chunk = [m.slice(T0 + low * HOUR, T0 + high * HOUR) for m in members]
        if any(len(m) for m in chunk):
            part, memory = extend_composite(memory, chunk)
            parts.append(part)
    for name in ("ts_open", "open", "high", "low", "close", "volume"):
        assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


# ---- phases


def naive_lens(x, p):
    """The lens from its definition, every hour anew."""
    level = [x[0]]
    for value in x[1:]:
        level.append(level[-1] + 2 / (p.ema + 1) * (value - level[-1]))
    level = np.array(level)
    n = len(x)
    slope, curve, change, lens = (np.full(n, np.nan) for _ in range(4))
    for i in range(n):
        if i >= p.slope - 1:
            slope[i] = np.polyfit(np.arange(p.slope), level[i - p.slope + 1 : i + 1], 1)[0]
        if i >= p.delta:
            change[i], curve[i] = level[i] - level[i - p.delta], slope[i] - slope[i - p.delta]
        if i + 1 >= p.warmup:
            parts = []
            for values in (slope, curve, change, level):
                window = values[i - p.z + 1 : i + 1]
                parts.append(np.clip((window[-1] - window.mean()) / window.std(), -3, 3))
            lens[i] = np.dot(parts, (0.5, 0.3, 0.2, 0.1))
    return lens


@pytest.mark.parametrize("horizon", sorted(PRESETS))
def test_lens_equals_its_definition(horizon):
    preset = PRESETS[horizon]
    x = np.random.default_rng(4).normal(0, 0.01, 200).cumsum()
    lens = Lens(preset)
    for low, high in ((0, 1), (1, 50), (50, 51), (51, 200)):
        lens.extend(x[low:high], np.ones(high - low, dtype=bool))
    np.testing.assert_allclose(lens.values(), naive_lens(x, preset), rtol=1e-6, atol=1e-6)


def test_a_missing_stream_shares_its_weight_out():
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    mixed = blend_scores({"a": np.array([1.0, np.nan]), "b": np.array([3.0, 3.0])}, weights)
    assert mixed == pytest.approx([(0.5 + 0.9) / 0.8, 3.0])
    assert np.isnan(blend_scores({"a": np.array([np.nan])}, weights)).all()


def labels(scores, dwell):
    track = PhaseTrack(dwell)
    track.extend(np.array(scores, dtype=float))
    return [phase_name(code) for code in track.code]


def test_labels_wait_for_their_dwell():
    assert labels([1.5, -2.0, -2.0, -2.0, -2.0], 3) == ["Euphoria"] * 3 + ["Oh-Shit"] * 2


def test_recover_and_good_change_places_at_a_fifth():
    assert labels([0.0, 0.25, 0.25, 0.15], 1) == ["Recover", "Good", "Good", "Recover"]


def test_recover_never_falls_straight_into_double_dip():
    assert labels([0.0, -1.0, -1.0], 1) == ["Recover", "Dip", "Double-Dip"]


def test_no_score_is_unknown_and_forgets():
    assert labels([0.0, math.nan, 1.5], 12) == ["Recover", "Unknown", "Euphoria"]


def test_confidence_is_the_distance_to_the_edge_of_the_labels_own_band():
    """Recover ends at .2, where Good begins; far inside is 1."""
    track = PhaseTrack(1)
    track.extend(np.array([0.0, 0.4, 3.0]))
    assert track.confidence == pytest.approx([0.25, 0.25, 1.0])


def test_a_label_that_only_dwell_still_holds_has_no_confidence():
    """The score has left its band: whoever trusts the label must not."""
    track = PhaseTrack(3)
    track.extend(np.array([1.5, -2.0, -2.0, -2.0]))
    assert track.confidence == pytest.approx([0.375, 0.0, 0.0, 0.875])


# ---- timeline


def regime_timeline(closes, classes, tracks, horizons=None, model="driver"):
    """A timeline from whole arrays: hourly closes per symbol, cap class per symbol, one track per (driver, horizon)."""
    timeline = RegimeTimeline(classes, horizons, model=model)
    ends = [int(ts[-1]) for ts, _ in closes.values() if len(ts)]
    if ends:
        timeline.extend(closes, max(ends))
    for (driver, horizon), driven in tracks.items():
        timeline.extend_driver(driver, horizon, driven)
    return timeline


CLASSES = {"BTCUSDT": "xl", "ETHUSDT": "xl", "SOLUSDT": "xl", **{f"M{i}": "micro" for i in range(3)}}
CLASSES |= {f"B{i}": "big" for i in range(4)}


def market(seed, hours=160, start=T0):
    rng = np.random.default_rng(seed)
    ts = start + HOUR * np.arange(1, hours + 1)
    return {s: (ts, np.exp(rng.normal(0, 0.01, hours).cumsum())) for s in sorted(CLASSES)}


def track(states, step, start=T0, trims=()):
    states = np.array(states, dtype=np.int8)
    off = np.zeros(len(states), dtype=bool)
    trim = off.copy()
    trim[list(trims)] = True
    ts = start + step * np.arange(1, len(states) + 1)
    return DriverTrack(ts, states, np.r_[states[:1], states[:-1]], off, off, off, trim, off)


def answers(timeline, hours=range(1, 161, 7)):
    asked = [
        (T0 + h * HOUR + 60_000_000, tf, c) for h in hours for tf in ("1m", "1h", "4h") for c in ("micro", "big", "")
    ]
    return [timeline.at(*question) for question in asked]


def fed(seed, cuts):
    """A timeline of ten tokens and three driver tracks, fed in pieces cut at these hours."""
    closes, timeline = market(seed), RegimeTimeline(CLASSES)
    rng = np.random.default_rng(seed + 1)
    tracks = {name: track(rng.integers(0, 5, 160), HOUR) for name in ("btc", "alt", "bucket:micro")}
    for low, high in zip([0, *cuts], [*cuts, 160], strict=True):
        part = {s: (ts[low:high], c[low:high]) for s, (ts, c) in closes.items()}
        timeline.extend(part, T0 + high * HOUR)
        for driver, whole in tracks.items():
            columns = (getattr(whole, n)[low:high] for n in DriverTrack.__dataclass_fields__)
            timeline.extend_driver(driver, "meso", DriverTrack(*columns))
    return timeline


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 159), min_size=1, max_size=5, unique=True))
def test_timeline_is_the_same_in_any_chunks(seed, cuts):
    assert answers(fed(seed, sorted(cuts))) == answers(fed(seed, []))


def test_the_future_changes_nothing_before_it():
    """No look-ahead: with everything after hour 100 replaced, every answer up to hour 100 is the same."""
    one, other = market(1), market(2)
    ts = next(iter(one.values()))[0]
    bent = {s: (ts, np.r_[one[s][1][:100], other[s][1][100:]]) for s in one}
    state = np.random.default_rng(3).integers(0, 5, 160)
    first = regime_timeline(one, CLASSES, {("btc", "meso"): track(state, HOUR)})
    second = regime_timeline(bent, CLASSES, {("btc", "meso"): track(np.r_[state[:100], 4 - state[100:]], HOUR)})
    assert answers(first, range(1, 100, 3)) == answers(second, range(1, 100, 3))
    assert answers(first, range(101, 160, 3)) != answers(second, range(101, 160, 3))


def test_a_driver_bar_counts_from_its_close_on():
    timeline = regime_timeline({}, CLASSES, {("btc", "meso"): track([0, 3], HOUR)})
    assert timeline.at(T0 + HOUR - 1, "1h", "").a_base == 0.5
    assert timeline.at(T0 + HOUR, "1h", "").a_base == pytest.approx(0.5 - 0.3 * 0.22)
    assert timeline.at(T0 + 2 * HOUR, "1h", "").a_base == pytest.approx(0.5 + 0.2 * 0.22)


def test_a_fall_pulse_holds_for_one_bar_of_its_horizon():
    timeline = regime_timeline({}, CLASSES, {("btc", "meso"): track([3, 0, 0], HOUR)})
    pulse, after = (timeline.at(T0 + h * HOUR + HOUR // 2, "1h", "").a_base for h in (2, 3))
    assert pulse == pytest.approx(0.5 - 0.8 * 0.22)
    assert after == pytest.approx(0.5 - 0.3 * 0.22)


def test_old_driver_readings_are_no_data():
    """At the end of a track and in a hole inside it, a reading dies two bars after its close."""
    hole = track([3] * 8, HOUR)
    keep = [0, 1, 6, 7]
    timeline = regime_timeline(
        {}, CLASSES, {("btc", "meso"): DriverTrack(*(getattr(hole, n)[keep] for n in DriverTrack.__dataclass_fields__))}
    )
    held = 0.5 + 0.2 * 0.22
    expected = {3: held, 4: 0.5, 6: 0.5, 7: held, 9: held, 10: 0.5}
    assert {h: timeline.at(T0 + h * HOUR, "1h", "").a_base for h in expected} == pytest.approx(expected)


def test_only_the_own_bucket_drives():
    timeline = regime_timeline({}, CLASSES, {("bucket:micro", "meso"): track([3], HOUR)})
    assert timeline.at(T0 + HOUR, "1h", "micro").a_base == pytest.approx(0.5 + 3 * 0.2 * 0.22)
    assert timeline.at(T0 + HOUR, "1h", "big").a_base == 0.5


def test_the_bucket_that_rises_leads():
    closes = market(5)
    ts = closes["M0"][0]
    ramp = np.where(np.arange(160) < 140, 0.0, 0.01 * (np.arange(160) - 139))
    for name in ("M0", "M1", "M2"):
        closes[name] = (ts, closes[name][1] * np.exp(ramp))
    regime = regime_timeline(closes, CLASSES, {}).at(T0 + 160 * HOUR, "1h", "big")
    scope = dict(regime.scope)
    assert scope["bucket_leader"] == "micro"
    assert scope["bucket_rank_position"] >= 2
    assert regime.snapshot["bucket_rank"].split(",")[0] == "micro"


def test_a_bucket_with_two_tokens_left_is_not_ranked():
    closes = market(5)
    closes["M0"] = tuple(values[:100] for values in closes["M0"])
    timeline = regime_timeline(closes, CLASSES, {})
    assert "micro" in [one.name for one in timeline.buckets(T0 + 100 * HOUR)]
    assert "micro" not in [one.name for one in timeline.buckets(T0 + 120 * HOUR)]


def test_before_any_data_all_dims_but_the_modes_are_absent():
    regime = RegimeTimeline(CLASSES).at(T0, "1h", "micro")
    assert regime.scope == (("A_mode", "normal"), ("E_mode", "normal"))


def test_without_btc_only_the_market_stream_is_left():
    """The universe stands in for BTC, so ratios to it are void and their weight goes to the market stream itself."""
    closes = {s: c for s, c in market(6).items() if s[0] in "MB" and s != "BTCUSDT"}
    classes = {s: CLASSES[s] for s in closes}
    regime = regime_timeline(closes, classes, {}).at(T0 + 160 * HOUR, "1h", "micro")
    dims = dict(regime.scope)
    assert {"macro_phase", "meso_phase"} <= set(dims)
    assert "micro_phase" not in dims


def test_snapshot_id_stands_for_its_content():
    """Equal ids carry equal content, and the id moves when the content may have moved."""
    regimes = answers(fed(9, []), range(1, 160))
    by_id = {}
    for regime in regimes:
        assert by_id.setdefault(regime.snapshot_id, regime.snapshot) == regime.snapshot
    assert len({r.snapshot_id for r in regimes}) == len(
        {(r.ts, r.snapshot["timeframe"], r.snapshot["cap_class"]) for r in regimes}
    )


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda t: t.extend({"NEW": (np.array([T0 + HOUR]), np.array([1.0]))}, T0 + HOUR), "NEW is not a member"),
        (lambda t: t.extend({"M0": (np.array([T0 + 7]), np.array([1.0]))}, T0 + HOUR), "whole hours"),
        (lambda t: t.extend_driver("gold", "meso", track([1], HOUR)), "unknown driver track gold"),
        (lambda t: t.extend_driver("btc", "micro", track([1], HOUR)), "unknown driver track btc micro"),
        (lambda t: [t.extend_driver("btc", "meso", track([1], HOUR)) for _ in range(2)], "time order"),
    ],
)
def test_bad_facts_are_refused(break_it, message):
    timeline = RegimeTimeline(CLASSES)
    timeline.extend({"B0": (np.array([T0]), np.array([1.0]))}, T0)
    with pytest.raises(MarketDataError, match=message):
        break_it(timeline)


# ---- the other models of A and E


def test_under_the_flag_model_only_flags_move_the_market():
    """BTC trims on one hour: A .44, E .56 there, neutral before and after, whatever its states; an emergency counts."""
    hour = track([3, 3, 0, 3], HOUR, trims=[1])
    emergency = np.array([False, False, False, True])
    tracks = {("btc", "meso"): replace(hour, emergency=emergency)}
    timeline = regime_timeline({}, CLASSES, tracks, model="flags")
    found = [timeline.at(T0 + k * HOUR, "1h", "micro") for k in (1, 2, 3, 4)]
    assert [one.a_base for one in found] == pytest.approx([0.5, 0.44, 0.5, 0.38])
    assert [one.e_base for one in found] == pytest.approx([0.5, 0.56, 0.5, 0.62])
    assert {one.pressure for one in found} == {None}


def test_under_the_phase_model_phases_move_the_market_and_drivers_do_not():
    """At every hour the sums are the table's for the phases in the scope; the pressure is what the meso score makes;
    what the book adds is not in it."""
    hours = market(5)
    timeline = regime_timeline(hours, CLASSES, {("btc", "meso"): track([0] * 160, HOUR)}, model="phases")
    phases = set()
    for at in range(1, 161):
        one = timeline.at(T0 + at * HOUR, "1h", "micro")
        scope = dict(one.scope)
        meso, macro = (scope.get(f"{name}_phase", "Unknown") for name in ("meso", "macro"))
        phases.add(meso)
        assert (one.a_sum, one.e_sum) == phase_appetite(meso, macro)
        assert (one.a_base, one.e_base) == exposed((one.a_sum, one.e_sum), Exposure(), (0.0, 0.0), one.multiplier)
        assert 0.0 <= one.pressure <= 0.65
        assert "pressure" not in one.snapshot
    assert len(phases) > 3


@pytest.mark.parametrize("model", ["flags", "phases"])
def test_the_models_move_nothing_else(model):
    """Phases, buckets and ids are the same under every model; only A, E and their modes differ."""
    modes = {"A_mode", "E_mode"}
    plain, other = (
        regime_timeline(market(5), CLASSES, {("btc", "meso"): track([3] * 160, HOUR)}, model=name)
        for name in ("driver", model)
    )
    for hour in range(1, 161, 7):
        a, b = (timeline.at(T0 + hour * HOUR, "1h", "micro") for timeline in (plain, other))
        assert a.snapshot_id == b.snapshot_id
        assert {k: v for k, v in a.scope if k not in modes} == {k: v for k, v in b.scope if k not in modes}
        assert {k: v for k, v in a.snapshot.items() if k not in ("a_base", "e_base")} == {
            k: v for k, v in b.snapshot.items() if k not in ("a_base", "e_base")
        }


def test_pressure_reads_curvature_and_dominances():
    """Meso score S and C = S - 2 S(6 h ago) + S(12 h ago) of the score track; a dominance in an uptrend adds .1."""
    tracks = {("btcd", "meso"): track([3] * 160, HOUR)}
    plain = regime_timeline(market(5), CLASSES, {}, model="phases")
    risen = regime_timeline(market(5), CLASSES, tracks, model="phases")
    score = {h: plain.at(T0 + h * HOUR, "1h", "").snapshot["meso_score"] for h in (148, 154, 160)}
    at = T0 + 160 * HOUR
    wanted = market_pressure(score[160], score[160] - 2 * score[154] + score[148], 0)
    assert plain.at(at, "1h", "").pressure == pytest.approx(wanted, abs=1e-5)
    assert risen.at(at, "1h", "").pressure == pytest.approx(wanted + 0.1, abs=1e-5)
