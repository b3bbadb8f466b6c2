"""Everything the engine says of one bar, as plain JSON (engine.md 6): states, scores, flags, and why each flag is as it
is. NaN becomes None; what a state does not have is left out of ``diagnostics``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.reading import ENGINE_VERSION, MarketReading, finite_or_none
from edgebook.engine import signals as sg
from edgebook.engine.columns import S2_HALO
from edgebook.engine.gates import GateReport
from edgebook.market.indicators import COLUMNS

#: What a margin is called in the payload, by the check it belongs to.
_MARGINS = {
    "halo": "halo",
    "zone": "zone",
    "slope_min": "slope",
    "slow_slope_min": "slope",
    "ts_min": "ts",
    "dx_min": "dx",
    "emergency": "emergency",
    "hallway_inverted": "hallway",
}
Json = dict[str, Any]


def payload(reading: MarketReading, report: GateReport, before: tuple[MarketReading, GateReport] | None = None) -> Json:
    """The complete payload of a bar.

    Args:
        report: what the gates said of it.
        before: the bar before it, where there is one: on the bar that leaves S0, and on a bar that exits, its check is
            the last of the state that is being left.
    """
    values = _Values(reading)
    return {
        "engine_version": ENGINE_VERSION,
        "instrument": reading.symbol,
        **values.of("timeframe ts bar_index gap_bars state prev_state bars_in_state"),
        "transition": reading.transition or None,
        "exit_reason": reading.exit_reason or None,
        **values.of("price open high low volume atr atr_mean_20"),
        **values.of("ema20 ema30 ema60 ema144 ema250 ema333 vo_z"),
        "slopes": values.of("ema20_slope ema60_slope ema144_slope ema250_slope ema333_slope")
        | values.of("d_ema144_slope d_ema250_slope d_ema333_slope"),
        "momentum": values.of("rsi rsi_slope_10 adx adx_slope_10 dsep_fast_5 dsep_mid_5"),
        "flags": {
            **report.flags._asdict(),
            **values.of("trim_flag emergency_exit reclaimed_ema333 fakeout_recovery exit_position"),
            "first_dip_buy_flag": reading.first_dip,
            "watch_only": reading.state == "S4",
        },
        "flags_base": report.flags_base._asdict(),
        "scores": {
            "ts": finite_or_none(reading.ts_score),
            "sr_boost": finite_or_none(report.sr_boost),
            "ts_with_boost": finite_or_none(report.ts_with_boost),
            **values.of("ox dx edx ti"),
        },
        "meta": {
            "s3_start_ts": reading.s3_start_ts if reading.s3_start_ts >= 0 else None,
            "bars_since_s3": reading.bars_since_s3 if reading.bars_since_s3 >= 0 else None,
            **values.of("first_dip_taken prev_emergency"),
        },
        "levels": {
            "nearest_price": finite_or_none(reading.nearest_level_price),
            "nearest_distance_atr": finite_or_none(reading.nearest_level_distance_atr),
            "near_sr": reading.nearest_level_distance_atr <= sg.TRIM_REACH,
            "count": reading.level_count,
            **values.of("sr_strength_anchor sr_raw_e333"),
        },
        "gates": report.gates.to_dict(),
        "diagnostics": _diagnostics(reading, report, before),
    }


class _Values:
    """Fields of a reading by name, None for what is not known."""

    def __init__(self, reading: MarketReading) -> None:
        self._reading = reading

    def of(self, names: str) -> Json:
        return {name: finite_or_none(getattr(self._reading, name)) for name in names.split()}


def _diagnostics(reading: MarketReading, report: GateReport, before: tuple[MarketReading, GateReport] | None) -> Json:
    said: Json = {"order": _Values(reading).of("fast_up s0_order s3_order all_below_333 fast_bottom")}
    said |= _check_of(reading, report)
    if reading.state in ("S2", "S3"):
        said["ox"] = _ox(reading)
    if reading.state == "S3":
        said |= {"dx": _dx(reading), "edx": _edx(reading), "first_dip_check": _first_dip(reading)}
    if before is not None and (reading.transition == "S0->S1" or reading.exit_position):
        left = _check_of(*before)
        said |= {f"last_{name}": check for name, check in left.items()}
    return said


def _check_of(reading: MarketReading, report: GateReport) -> Json:
    if reading.state == "S1":
        return {"buy_check": _zone_check(reading, report, "ema60", ("ema60_slope", "ema144_slope"), "slope_min")}
    if reading.state == "S2":
        slopes = ("ema250_slope", "ema333_slope")
        return {"s2_retest_check": _zone_check(reading, report, "ema333", slopes, "slow_slope_min")}
    return {"s3_buy_check": _s3_check(reading, report)} if reading.state == "S3" else {}


def _passed(report: GateReport, name: str) -> bool:
    return any(check.passed for check in report.checks if check.name == name)


def _common(report: GateReport) -> Json:
    return {
        "ts_ok": _passed(report, "ts_min"),
        "sr_boost": finite_or_none(report.sr_boost),
        "ts_with_boost": finite_or_none(report.ts_with_boost),
        "margins": {_MARGINS[check.name]: finite_or_none(check.margin) for check in report.checks},
        "blocked_by": list(report.blocked_by),
    }


def _zone_check(
    reading: MarketReading, report: GateReport, anchor: str, slopes: tuple[str, str], slope_gate: str
) -> Json:
    """The S1 and S2 tests: near an anchor, a slope that rises, trend strength."""
    s1 = reading.state == "S1"
    halo = report.gates.halo if s1 else S2_HALO
    said = _common(report)
    if not s1:  # the retest has a halo too; its check is called zone because no lever moves it
        said["margins"] = {("halo" if name == "zone" else name): value for name, value in said["margins"].items()}
    return {
        "anchor": anchor,
        "anchor_price": finite_or_none(getattr(reading, anchor)),
        **_Values(reading).of(f"price atr {' '.join(slopes)}"),
        "halo": finite_or_none(halo * reading.atr),
        "halo_mult": halo,
        "halo_distance_atr": finite_or_none(report.halo_distance_atr),
        "entry_zone_ok": _passed(report, "halo" if s1 else "zone"),
        "slope_ok": _passed(report, slope_gate),
        "ts_score": finite_or_none(reading.ts_score),
        **said,
        "buy": any(report.flags),
    }


def _s3_check(reading: MarketReading, report: GateReport) -> Json:
    position = report.price_pos
    return {
        **_Values(reading).of("price ema144 ema333 dx ts_score ema250_slope ema333_slope emergency_exit"),
        "price_in_discount_zone": reading.ema333 <= reading.price <= reading.ema144,
        "price_pos": finite_or_none(position),
        "dx_threshold_base": report.gates.dx_min,
        "edx_suppression": finite_or_none(report.edx_suppression),
        "price_position_boost": finite_or_none(0.15 * position - 0.05),
        "dx_threshold_final": finite_or_none(report.dx_threshold_final),
        "dx_ok": _passed(report, "dx_min"),
        "slope_ok": _passed(report, "slow_slope_min"),
        **_common(report),
        "buy_flag": report.flags.buy_flag,
    }


def _ox(reading: MarketReading) -> Json:
    row = _row_of(reading)
    names = ("rail_fast", "rail_mid", "rail_144", "rail_250", "exp_fast", "exp_mid", "atr_surge", "fragility")
    parts = {name: finite_or_none(float(value)) for name, value in zip(names, sg.ox_parts(row), strict=True)}
    edx = reading.edx if reading.edx == reading.edx else 0.5
    boost = 1.0 + 0.33 * min(0.5, max(0.0, edx - 0.5))
    return parts | {"ox_base": finite_or_none(float(sg.ox_base(row))), "edx_boost": boost}


def _dx(reading: MarketReading) -> Json:
    undamped = float(sg.discount(_row_of(reading), 0.0)[0])
    band = (reading.ema144 - reading.ema333) / reading.price
    return {
        **_Values(reading).of("dx_x dx_location exhaustion relief curl edx_suppression"),
        "comp_mult": finite_or_none(1.0 + 0.3 * float(sg.sigmoid((0.03 - band) / 0.02)) if band > 0.0 else 0.0),
        "dx_undamped": finite_or_none(undamped),
    }


def _edx(reading: MarketReading) -> Json:
    bars = reading.bars_since_s3 + 1
    return {
        **_Values(reading).of("edx_slow edx_struct edx_part"),
        "edx_geom": finite_or_none(reading.edx_comp),
        **{f"window{i}_bars": int(length) for i, length in enumerate(sg.edx_windows(bars), start=1)},
        "reason": "insufficient_s3_bars" if bars < sg.EDX_MIN_BARS else None,
    }


def _first_dip(reading: MarketReading) -> Json:
    early, later = sg.first_dip_options(_row_of(reading), reading.bars_since_s3)
    slope_ok = reading.ema144_slope > 0.0 or reading.ema250_slope >= 0.0
    strong = bool(sg.boosted(reading.ts_score, reading.sr_raw_e333, sg.FIRST_DIP_SR_BOOST) >= sg.FIRST_DIP_TS)
    away = {
        f"dist_ema{n}": finite_or_none(abs(reading.price - getattr(reading, f"ema{n}")) / reading.atr)
        if reading.atr > 0.0
        else None
        for n in (20, 30, 60)
    }
    failed = (
        ("taken_before", not reading.first_dip_taken or reading.first_dip),
        ("below_ema333", reading.price >= reading.ema333),
        ("no_dip_in_time", bool(early or later)),
        ("slope", slope_ok),
        ("ts", strong),
    )
    return {
        "bars_since_entry": reading.bars_since_s3,
        "option1": bool(early),
        "option2": bool(later),
        **away,
        "halo": sg.FIRST_DIP_HALO,
        "slope_ok": slope_ok,
        "ts_ok": strong,
        "reason": next((name for name, passed in failed if not passed), "ok"),
    }


def _row_of(reading: MarketReading) -> NDArray[np.float64]:
    """The indicator row a reading was made from."""
    return np.array([getattr(reading, name) for name in COLUMNS], dtype=np.float64)
