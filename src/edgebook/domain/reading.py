"""What the engine says about one closed bar, before any gate is asked (engine.md 6).

`MarketReading` holds states, scores and every measured input of the gates; learned thresholds cannot move any of it.
The flags that do depend on thresholds (``buy_signal``, ``buy_flag``) come from `edgebook.engine.gates.evaluate`. A
scripted
feed replaces readings, never flags, and needs to fill only the fields its story is about: the rest have neutral
defaults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

#: Bars that must have been seen before a state exists (engine.md 1).
WARM_BARS = 333

#: Reasons of ``exit_position``, by code.
EXIT_REASONS: tuple[str, ...] = ("", "s1_to_s0_bearish_order", "all_emas_below_333", "fast_band_at_bottom")

#: Events of a bar, as bits: what may follow from it. MOVE: a state change, an exit, a reclaim or a gap; WINDOW:
#: inside a gate
#: window's zone; RETEST: S2 near EMA333; AFTER: the bar after one with events.
MOVE, WINDOW, RETEST, TRIM, EMERGENCY, DIP, AFTER = (1 << i for i in range(7))

ENGINE_VERSION = "edgebook.engine/1"

_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class MarketReading:
    """The engine's payload of one closed bar before gates. NaN means "not known or not computed in this state".

    Attributes:
        ts: CLOSE time of the bar, microseconds UTC.
        state, prev_state: ``S0`` .. ``S4``; ``transition`` is ``"S1->S2"`` on the bar of a change, else ``""``.
        bars_in_state: 0 on the bar that entered the state. bars_since_s3: the same for S3, -1 outside S3.
        s3_start_ts: close time of the bar that entered S3, -1 outside S3.
        gap_bars: bars missing directly before this one.
        price: the close. atr and the EMAs are prices, slopes fractions per bar, rsi and adx points.
        ts_score: trend strength TS in [0, 1] (S1-S3). ox: S2, S3. dx, edx, ti: S3.
        edx_suppression: what EDX adds to the DX threshold before ``edx_supp_mult``, in [0, 0.15].
        sr_strength_anchor: max of strength*(1 - distance/ATR) over the levels near the state's anchor (EMA60 in S1,
            EMA333 in S2 and S3): times ``sr_boost`` it is the boost of TS. sr_raw_e333: the same for EMA333 in every
            state.
        nearest_level_distance_atr: distance of the nearest level from the close, in ATR.
        first_dip: the first-dip buy flag, which reads base gates only, so learning cannot move engine memory.
    """

    symbol: str
    timeframe: str
    state: str
    ts: int
    prev_state: str = "S4"
    transition: str = ""
    exit_reason: str = ""
    bar_index: int = WARM_BARS
    bars_in_state: int = 0
    bars_since_s3: int = -1
    s3_start_ts: int = -1
    gap_bars: int = 0
    level_count: int = 0
    open: float = _NAN
    high: float = _NAN
    low: float = _NAN
    price: float = _NAN
    volume: float = 0.0
    atr: float = _NAN
    atr_mean_20: float = _NAN
    ema20: float = _NAN
    ema30: float = _NAN
    ema60: float = _NAN
    ema144: float = _NAN
    ema250: float = _NAN
    ema333: float = _NAN
    ema20_slope: float = _NAN
    ema60_slope: float = _NAN
    ema144_slope: float = _NAN
    ema250_slope: float = _NAN
    ema333_slope: float = _NAN
    d_ema144_slope: float = _NAN
    d_ema250_slope: float = _NAN
    d_ema333_slope: float = _NAN
    rsi: float = _NAN
    rsi_slope_10: float = _NAN
    adx: float = _NAN
    adx_slope_10: float = _NAN
    vo_z: float = _NAN
    dsep_fast_5: float = _NAN
    dsep_mid_5: float = _NAN
    ts_score: float = _NAN
    ox: float = _NAN
    dx: float = _NAN
    edx: float = _NAN
    ti: float = _NAN
    edx_suppression: float = _NAN
    dx_x: float = _NAN
    dx_location: float = _NAN
    exhaustion: float = _NAN
    relief: float = _NAN
    curl: float = _NAN
    edx_slow: float = _NAN
    edx_struct: float = _NAN
    edx_part: float = _NAN
    edx_comp: float = _NAN
    sr_strength_anchor: float = 0.0
    sr_raw_e333: float = 0.0
    nearest_level_price: float = _NAN
    nearest_level_distance_atr: float = _NAN
    emergency_exit: bool = False
    prev_emergency: bool = False
    reclaimed_ema333: bool = False
    fakeout_recovery: bool = False
    exit_position: bool = False
    trim_flag: bool = False
    first_dip: bool = False
    first_dip_taken: bool = False
    fast_up: bool = False
    s0_order: bool = False
    s3_order: bool = False
    all_below_333: bool = False
    fast_bottom: bool = False

    @property
    def close(self) -> float:
        """The close, which is the price every test uses."""
        return self.price

    @property
    def warm(self) -> bool:
        """Whether enough bars were seen before this one for states to exist."""
        return self.bar_index >= WARM_BARS


@dataclass(frozen=True, slots=True)
class DriverReading:
    """What the regime needs to know of one driver on one horizon (decisions.md 36; flags read base gates)."""

    driver: str
    horizon: str
    ts: int
    state: str
    prev_state: str
    buy_flag: bool
    buy_signal: bool
    first_dip: bool
    trim_flag: bool
    fell_to_s0_from: str
    emergency: bool = False


def finite_or_none(value: Any) -> Any:
    """``value``, or None if it is a float that is not finite.

    >>> finite_or_none(float("nan")) is None, finite_or_none(0.5), finite_or_none("S1")
    (True, 0.5, 'S1')
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value
