"""Gates say yes, no, and why not; base flags never hear of learning."""

from __future__ import annotations

import dataclasses
import math

import pytest

from edgebook.domain.levers import LEVERS as LEVER_TABLE
from edgebook.domain.reading import MarketReading
from edgebook.engine.gates import BASE_GATES, LEVERS, Gates, dx_threshold, evaluate

S1 = MarketReading(
    "X", "1h", "S1", ts=7, prev_state="S1", price=101.0, atr=2.0, ema60=100.0, ema60_slope=0.001, ema144_slope=-0.001,
    ts_score=0.55, sr_strength_anchor=0.375,
)  # fmt: skip
S2 = dataclasses.replace(
    S1, state="S2", prev_state="S2", ema333=100.5, ema250_slope=-0.001, ema333_slope=0.0, ema60_slope=-1.0
)
S3 = dataclasses.replace(
    S2, state="S3", prev_state="S3", ema144=104.0, ema333=100.0, price=102.0, dx=0.7, edx=0.55, edx_suppression=0.0625,
    bars_since_s3=40, s3_start_ts=1,
)  # fmt: skip


def test_base_gates_are_the_lever_table():
    """One table of base values in the system."""
    assert BASE_GATES.to_dict() == {name: LEVER_TABLE[name].base for name in LEVERS} | {"s2_halo": 0.5}
    assert tuple(f.name for f in dataclasses.fields(Gates)) == LEVERS


def test_the_good_readings_are_buys():
    """Each state's flag, and only that one."""
    assert evaluate(S1, BASE_GATES).flags == (True, False)
    assert evaluate(S2, BASE_GATES).flags == (False, True)
    assert evaluate(S3, BASE_GATES).flags == (False, True)
    for r in (S1, S2, S3):
        report = evaluate(r, BASE_GATES)
        assert report.blocked_by == ()
        assert all(c.passed and c.margin >= 0 for c in report.checks)


@pytest.mark.parametrize(
    ("reading", "change", "blocked"),
    [
        (S1, {"price": 102.1}, ("halo",)),
        (S1, {"price": 97.9}, ("halo",)),
        (S1, {"ema60_slope": 0.0}, ("slope_min",)),
        (S1, {"ts_score": 0.5}, ("ts_min",)),
        (S1, {"sr_strength_anchor": 0.0}, ("ts_min",)),
        (S1, {"price": 150.0, "ts_score": 0.0, "ema60_slope": -1.0}, ("halo", "slope_min", "ts_min")),
        (S1, {"atr": 0.0}, ("halo",)),
        (S1, {"atr": float("nan")}, ("missing_input",)),
        (S1, {"ema144_slope": float("nan")}, ("missing_input",)),
        (S1, {"ts_score": float("nan"), "ema60": float("nan")}, ("missing_input",)),
        (S2, {"price": 101.6}, ("zone",)),
        (S2, {"ema333_slope": -1e-9}, ("slow_slope_min",)),
        (S2, {"ts_score": 0.5}, ("ts_min",)),
        (S3, {"price": 104.01, "dx": 0.9}, ("zone",)),
        (S3, {"emergency_exit": True}, ("emergency",)),
        (S3, {"ema333_slope": -1e-9}, ("slow_slope_min",)),
        (S3, {"ts_score": 0.5}, ("ts_min",)),
        (S3, {"dx": 0.63}, ("dx_min",)),
        (S3, {"dx": float("nan")}, ("missing_input",)),
        (S3, {"ema144": 100.0, "price": 99.0, "dx": 0.9}, ("hallway_inverted",)),
    ],
)
def test_each_failed_test_is_named(reading, change, blocked):
    """Levers by their name, the rest by theirs, and a missing input never passes."""
    report = evaluate(dataclasses.replace(reading, **change), BASE_GATES)
    assert report.blocked_by == blocked
    assert report.flags == report.flags_base == (False, False)
    assert [c.name for c in report.checks if not c.passed] == list(blocked) or "missing_input" in blocked


@pytest.mark.parametrize("state", ["S0", "S4"])
def test_without_a_trend_there_is_nothing_to_test(state):
    """No checks, no flags."""
    report = evaluate(dataclasses.replace(S1, state=state), Gates(ts_min=0.0))
    assert (report.flags, report.checks, report.blocked_by) == ((False, False), (), ())


@pytest.mark.parametrize(
    ("reading", "gates"),
    [
        (S1, Gates(ts_min=0.65)),
        (S1, Gates(sr_boost=0.1)),
        (S1, Gates(halo=0.49)),
        (S1, Gates(slope_min=0.001)),
        (S2, Gates(slow_slope_min=0.0001)),
        (S3, Gates(slow_slope_min=0.0001)),
        (S3, Gates(dx_min=0.70)),
        (S3, Gates(edx_supp_mult=3.0)),
        (S3, Gates(ts_min=0.65)),
    ],
)
def test_every_lever_can_close_its_gate_and_base_flags_do_not_notice(reading, gates):
    """A tightened lever blocks; the counterfactual still says what the base gates would have done."""
    report = evaluate(reading, gates)
    assert report.flags == (False, False)
    assert report.flags_base == evaluate(reading, BASE_GATES).flags != (False, False)
    assert evaluate(reading, BASE_GATES, base=gates).flags_base == (False, False)


def test_a_loosened_gate_opens_and_the_base_stays_shut():
    """The other direction."""
    near_miss = dataclasses.replace(S1, ts_score=0.50)
    report = evaluate(near_miss, Gates(ts_min=0.55))
    assert (report.flags.buy_signal, report.flags_base.buy_signal) == (True, False)


def test_margins_are_distances_in_natural_units():
    """TS in score, halo in ATR, slope per bar, DX against its final threshold."""
    one = evaluate(S1, Gates(halo=0.75))
    assert one.margins == pytest.approx({"halo": 0.25, "slope_min": 0.001, "ts_min": 0.55 + 0.09375 - 0.6})
    assert (one.sr_boost, one.ts_with_boost, one.halo_distance_atr) == (0.09375, 0.64375, 0.5)
    assert math.isnan(one.dx_threshold_final)
    three = evaluate(S3, BASE_GATES)
    assert (three.price_pos, three.edx_suppression) == (0.5, 0.0625)
    assert three.dx_threshold_final == pytest.approx(0.6 + 0.0625 - 0.025)
    assert three.margins["dx_min"] == pytest.approx(0.7 - 0.6375)
    assert three.margins["zone"] == pytest.approx(1.0)


def test_the_dx_threshold_of_the_specification():
    """engine.md 9: dx_min .60, suppression .075 (EDX .60 at knees .5/.7), pos .5: .65; never below 0."""
    assert dx_threshold(0.075, 105.0, 110.0, 100.0, BASE_GATES)[0] == pytest.approx(0.65)
    assert dx_threshold(0.0, 110.0, 110.0, 100.0, BASE_GATES) == (pytest.approx(0.65), 0.0)
    assert dx_threshold(0.0, 90.0, 110.0, 100.0, BASE_GATES) == (pytest.approx(0.50), 1.0)
    assert dx_threshold(0.0, 90.0, 110.0, 100.0, Gates(dx_min=0.05))[0] == 0.0


def test_ts_with_boost_is_capped_at_one():
    """A strong trend at a strong level is 1, not more."""
    assert evaluate(dataclasses.replace(S1, ts_score=0.95, sr_strength_anchor=1.0), BASE_GATES).ts_with_boost == 1.0


@pytest.mark.parametrize("missing", [{"ts_score": math.nan}, {"sr_strength_anchor": math.nan}])
@pytest.mark.parametrize("gates", [BASE_GATES, Gates(ts_min=0.5)])
def test_a_missing_score_fails_under_every_gate(missing, gates):
    """NaN is not enough for anything: neither under the learned gates nor under the base ones beside them."""
    report = evaluate(dataclasses.replace(S1, **missing), gates)
    assert not any(report.flags)
    assert not any(report.flags_base)
    assert "missing_input" in report.blocked_by


def test_without_an_atr_no_zone_is_entered():
    """A price that does not move has no distance to measure with (engine.md 1)."""
    for reading in (S1, S2, S3):
        assert not any(evaluate(dataclasses.replace(reading, atr=0.0), BASE_GATES).flags)
