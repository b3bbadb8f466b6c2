"""The payload of a bar: every name of the specification, plain JSON, and numbers that fit together."""

from __future__ import annotations

import json

import pytest
from tests.unit.engine.test_columns import market

from edgebook.engine.columns import advance, reading
from edgebook.engine.gates import BASE_GATES, Gates, evaluate
from edgebook.engine.payload import payload

NAMES = {
    "": "engine_version instrument timeframe ts bar_index state prev_state transition bars_in_state price atr "
    "ema20 ema30 ema60 ema144 ema250 ema333 vo_z exit_reason",
    "slopes": "ema20_slope ema60_slope ema144_slope ema250_slope ema333_slope d_ema144_slope",
    "momentum": "rsi rsi_slope_10 adx adx_slope_10",
    "flags": "buy_signal buy_flag first_dip_buy_flag trim_flag emergency_exit reclaimed_ema333 fakeout_recovery "
    "exit_position watch_only",
    "flags_base": "buy_signal buy_flag",
    "scores": "ts sr_boost ts_with_boost ox dx edx ti",
    "meta": "s3_start_ts bars_since_s3 first_dip_taken prev_emergency",
    "levels": "nearest_price nearest_distance_atr near_sr count",
    "gates": "ts_min sr_boost halo s2_halo slope_min slow_slope_min dx_min edx_supp_mult",
}
ORDER = "fast_up s0_order s3_order all_below_333 fast_bottom"
ZONE = (
    "anchor anchor_price price atr halo halo_mult halo_distance_atr entry_zone_ok slope_ok ts_score sr_boost "
    "ts_with_boost ts_ok margins blocked_by buy"
)
BY_STATE = {
    "S1": {"buy_check": f"{ZONE} ema60_slope ema144_slope"},
    "S2": {
        "s2_retest_check": f"{ZONE} ema250_slope ema333_slope",
        "ox": "rail_fast rail_mid rail_144 rail_250 exp_fast exp_mid atr_surge fragility ox_base edx_boost",
    },
    "S3": {
        "ox": "rail_fast rail_mid rail_144 rail_250 exp_fast exp_mid atr_surge fragility ox_base edx_boost",
        "dx": "dx_x dx_location comp_mult exhaustion relief curl dx_undamped",
        "edx": "edx_slow edx_struct edx_part edx_geom window1_bars window2_bars window3_bars reason",
        "s3_buy_check": "price ema144 ema333 price_in_discount_zone price_pos dx dx_threshold_base edx_suppression "
        "price_position_boost dx_threshold_final dx_ok slope_ok ema250_slope ema333_slope ts_ok ts_score ts_with_boost "
        "sr_boost emergency_exit margins blocked_by buy_flag",
        "first_dip_check": "bars_since_entry option1 option2 dist_ema20 dist_ema30 dist_ema60 halo slope_ok ts_ok "
        "reason",
    },
}
MARGINS = {"S1": {"halo", "slope", "ts"}, "S2": {"halo", "slope", "ts"}}
MARGINS["S3"] = {"zone", "emergency", "slope", "ts", "dx", "hallway"}


@pytest.fixture(scope="module")
def readings():
    """Every bar of a market that visits all states."""
    columns, _ = advance(None, market(11))
    return [reading(columns, i) for i in range(len(columns))]


def told(reading, gates=BASE_GATES, before=None):
    """The payload through JSON, which refuses NaN."""
    earlier = (before, evaluate(before, gates)) if before is not None else None
    return json.loads(json.dumps(payload(reading, evaluate(reading, gates), earlier), allow_nan=False))


def test_every_name_is_there_in_every_state_and_no_empty_diagnostics(readings):
    """The names of engine.md 6; a state's own diagnostics and no other's."""
    seen = set()
    for r in readings[::7]:
        said = told(r)
        for part, names in NAMES.items():
            assert set(names.split()) <= set(said[part] if part else said), part
        assert set(ORDER.split()) == set(said["diagnostics"]["order"])
        wanted = {"order": ORDER} | BY_STATE.get(r.state, {})
        assert set(said["diagnostics"]) == set(wanted)
        for part, names in wanted.items():
            assert set(names.split()) <= set(said["diagnostics"][part]), part
        seen.add(r.state)
    assert seen == {"S0", "S1", "S2", "S3", "S4"}


def test_margins_have_the_names_and_signs_of_the_checks(readings):
    """Positive or zero margins everywhere, or blocked; and the flag is up exactly where nothing blocks."""
    flags = 0
    for r in readings[333::5]:
        said = told(r, Gates(ts_min=0.5, dx_min=0.5))
        check = next((said["diagnostics"][n] for n in ("buy_check", "s2_retest_check", "s3_buy_check")
                      if n in said["diagnostics"]), None)  # fmt: skip
        if check is None:
            continue
        assert set(check["margins"]) == MARGINS[r.state]
        up = check.get("buy", check.get("buy_flag"))
        assert up == (not check["blocked_by"]) == (said["flags"]["buy_signal"] or said["flags"]["buy_flag"])
        assert all(value is not None for value in check["margins"].values())
        flags += up
    assert flags > 0


def test_the_dx_parts_make_up_dx(readings):
    """DX is its undamped mix, damped by EDX (engine.md 3.5), and the threshold is the sum of its parts (3.6)."""
    checked = 0
    for r in (r for r in readings if r.state == "S3" and r.ema144 > r.ema333):
        said = told(r)
        dx, buy = said["diagnostics"]["dx"], said["diagnostics"]["s3_buy_check"]
        raw = 0.45 * dx["dx_location"] + 0.25 * dx["exhaustion"] + 0.25 * dx["relief"] + 0.05 * dx["curl"]
        assert dx["dx_undamped"] == pytest.approx(min(1.0, max(0.0, raw)))
        damped = raw * (1 - 0.5 * min(0.4, max(0.0, r.edx - 0.6)))
        assert said["scores"]["dx"] == pytest.approx(min(1.0, max(0.0, damped)))
        threshold = buy["dx_threshold_base"] + buy["edx_suppression"] - buy["price_position_boost"]
        assert buy["dx_threshold_final"] == pytest.approx(max(0.0, threshold))
        checked += 1
    assert checked > 100


def test_the_bar_that_leaves_a_state_tells_its_last_check(readings):
    """On an exit the check of S1 or S3 that is being left comes along; on other bars it does not."""
    exits = [i for i, r in enumerate(readings) if r.exit_position]
    assert exits
    for i in exits:
        said = told(readings[i], before=readings[i - 1])
        name = {"S1": "last_buy_check", "S3": "last_s3_buy_check"}[readings[i].prev_state]
        assert said["diagnostics"][name]["price"] == readings[i - 1].price
    calm = next(i for i, r in enumerate(readings) if r.state == "S2" and not r.transition)
    assert not any(name.startswith("last_") for name in told(readings[calm], before=readings[calm - 1])["diagnostics"])


def test_nothing_is_guessed_where_nothing_is_known(readings):
    """The first bar: no ATR, no score, no state; null, never zero."""
    said = told(readings[0])
    assert said["state"] == "S4"
    assert said["flags"]["watch_only"]
    assert said["atr"] is None
    assert set(said["scores"].values()) == {None} | {said["scores"]["sr_boost"]}
    assert said["exit_reason"] is None
