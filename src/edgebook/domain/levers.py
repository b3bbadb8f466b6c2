"""THE lever table (decisions 24): every learned number, its neutral value, bounds, step and severity cap, once.

Units: multipliers are factors; ``ts_min``, ``dx_min``, ``sr_boost`` are scores in [0, 1]; ``halo`` is in ATR; slope
minima are fractions
per bar, given for 1h bars and scaled by sqrt(timeframe / 1h); ``edx_supp_mult`` is a factor that blends additively.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgebook.domain.errors import OverrideError
from edgebook.domain.timeframe import seconds

LessonType = Literal["dm_alloc", "pm_strength", "pm_tuning"]
LESSON_TYPES: tuple[LessonType, ...] = ("dm_alloc", "pm_strength", "pm_tuning")
EPOCH_SECONDS = 3600
MULTIPLIER_STEP = math.log(1.02)


@dataclass(frozen=True, slots=True)
class Lever:
    """One row of the table.

    Attributes:
        base: neutral value; an override equal to it changes nothing.
        lo, hi: hard bounds of the applied value (for scaled levers: at 1h).
        step: largest move of the applied value in one epoch of one hour (logs for multipliers).
        cap: severity cap: the distance from the gate beyond which evidence says nothing about it (gates only).
        polarity: +1 where raising the gate tightens it, -1 where lowering does, 0 for multipliers.
        log_blend: multipliers blend in log space, gates additively.
        scaled: bounds, step and cap scale with sqrt(timeframe / 1h).
    """

    name: str
    lesson_type: LessonType
    categories: tuple[str, ...]
    base: float
    lo: float
    hi: float
    step: float
    cap: float = 0.0
    polarity: int = 0
    episodes: tuple[str, ...] = ()
    scaled: bool = False

    @property
    def log_blend(self) -> bool:
        """Whether overrides of this lever blend in log space."""
        return self.lesson_type != "pm_tuning"

    def at(self, timeframe: str) -> Lever:
        """This lever with bounds, step and cap scaled to ``timeframe``; itself when not a scaled lever."""
        if not self.scaled or timeframe == "1h":
            return self
        k = math.sqrt(seconds(timeframe) / 3600)
        return Lever(
            self.name,
            self.lesson_type,
            self.categories,
            self.base,
            self.lo * k,
            self.hi * k,
            self.step * k,
            self.cap * k,
            self.polarity,
            self.episodes,
            True,
        )


_S1, _S3 = "s1_entry", "s3_retest"
_ROWS = (
    Lever("alloc_mult", "dm_alloc", ("allocation",), 1.0, 0.7, 1.3, MULTIPLIER_STEP),
    Lever("size_mult", "pm_strength", ("entry", "add"), 1.0, 0.5, 1.5, MULTIPLIER_STEP),
    Lever("entry_aggression_mult", "pm_strength", ("entry", "add"), 1.0, 0.8, 1.2, MULTIPLIER_STEP),
    Lever("exit_aggression_mult", "pm_strength", ("trim",), 1.0, 0.8, 1.2, MULTIPLIER_STEP),
    Lever("ts_min", "pm_tuning", ("entry",), 0.60, 0.45, 0.75, 0.05, 0.10, +1, (_S1,)),
    Lever("sr_boost", "pm_tuning", ("entry", "add"), 0.25, 0.10, 0.40, 0.05, 0.10, -1, (_S1, _S3)),
    Lever("halo", "pm_tuning", ("entry",), 1.0, 0.5, 1.5, 0.05, 0.20, -1, (_S1,)),
    Lever("slope_min", "pm_tuning", ("entry",), 0.0, -0.003, 0.003, 0.0005, 0.002, +1, (_S1,), True),
    Lever("dx_min", "pm_tuning", ("add",), 0.60, 0.45, 0.75, 0.05, 0.10, +1, (_S3,)),
    Lever("edx_supp_mult", "pm_tuning", ("add",), 1.0, 0.5, 1.5, 0.02, 0.20, +1, (_S3,)),
    Lever("slow_slope_min", "pm_tuning", ("add",), 0.0, -0.002, 0.002, 0.00025, 0.001, +1, (_S3,), True),
)
LEVERS: dict[str, Lever] = {lever.name: lever for lever in _ROWS}

GATE_LEVERS: dict[str, tuple[str, ...]] = {
    _S1: tuple(r.name for r in _ROWS if _S1 in r.episodes),
    _S3: tuple(r.name for r in _ROWS if _S3 in r.episodes),
}

LEGACY_NEUTRAL: dict[str, float] = {
    "entry_delay_bars": 0.0,
    "phase1_frac_mult": 1.0,
    "trim_delay_mult": 1.0,
    "trail_mult": 1.0,
    "panic_trigger": 1.0,
    "wait_n_after_trim": 0.0,
}
"""Knobs of older designs: hard-coded neutral whatever a config says (mission 5.2)."""


def lever(name: str, timeframe: str = "1h") -> Lever:
    """The table row of ``name``, scaled to ``timeframe``.

    Raises:
        OverrideError: no such lever (legacy knobs included: they are not levers).
    """
    if name not in LEVERS:
        raise OverrideError(f"unknown lever {name!r}; the table has {', '.join(LEVERS)}")
    return LEVERS[name].at(timeframe)
