"""Phases: where relative strength stands, from hourly log-price streams (trading.md 3.8).

A stream is a log index or a log ratio of two indices, one value per hour. Its lens is a mix of z-scored slope,
curvature, change and level; a horizon's score mixes the lenses of its streams; its phase is a label of the score with
dwell and hysteresis. Everything is causal and can be continued from any hour: the value at an hour never depends on
later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebook.kernels import kernel

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]

#: Labels by code 0..5, worst first; code -1 is "Unknown".
PHASES: tuple[str, ...] = ("Oh-Shit", "Double-Dip", "Dip", "Recover", "Good", "Euphoria")
#: Lower edges of the labels 1..5.
EDGES: tuple[float, ...] = (-1.3, -0.9, -0.2, 0.4, 1.2)
#: Recover and Good change places here, in both directions.
RECOVER_GOOD_EDGE = 0.20
_CONFIDENCE_SPAN = 0.8
# The band of each label, with the place where Recover and Good change.
_BANDS: tuple[float, ...] = (-np.inf, -1.3, -0.9, -0.2, RECOVER_GOOD_EDGE, 1.2, np.inf)


@dataclass(frozen=True, slots=True)
class Preset:
    """Lengths of one horizon in hours: EMA, slope window, change distance, z-score window, least time in a phase."""

    ema: int
    slope: int
    delta: int
    z: int
    dwell: int

    @property
    def warmup(self) -> int:
        """Hours of a stream before its lens exists."""
        return self.slope + self.delta + self.z


PRESETS: Mapping[str, Preset] = {
    "macro": Preset(7, 20, 24, 60, 72),
    "meso": Preset(5, 12, 6, 30, 12),
    "micro": Preset(3, 8, 2, 14, 1),
}
#: Weight of each stream in a horizon's score; a missing stream's weight is shared out among the others.
STREAM_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "macro": {"btc": 0.55, "rotation": 0.35, "port_btc": 0.05, "port_alt": 0.05},
    "meso": {"port_btc": 0.50, "port_alt": 0.30, "rotation": 0.15, "btc": 0.05},
    "micro": {"port_btc": 0.70, "port_alt": 0.30},
}


def phase_name(code: int) -> str:
    """Label of a phase code; "Unknown" below 0.

    >>> phase_name(4), phase_name(-1)
    ('Good', 'Unknown')
    """
    return PHASES[code] if code >= 0 else "Unknown"


def blend_scores(lenses: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """Weighted mean of lenses, hour by hour; NaN lenses share their weight out; NaN where all are missing."""
    length = max((len(lens) for lens in lenses.values()), default=0)
    total, mass = np.zeros(length), np.zeros(length)
    for name, weight in weights.items():
        if name in lenses:
            there = np.isfinite(lenses[name])
            total += np.where(there, lenses[name], 0.0) * weight
            mass += np.where(there, weight, 0.0)
    mixed: Floats = np.divide(total, mass, out=np.full(length, np.nan), where=mass > 0)
    return mixed


class Lens:
    """The lens of one stream on one horizon, continued hour by hour.

    ``lens = .5 z(slope) + .3 z(curvature) + .2 z(change) + .1 z(level)`` where level is the EMA of the stream, slope
    its least-squares slope, curvature the change of the slope and change that of the level, each over the preset's
    distance; z over the last ``preset.z`` hours, limited to +-3. NaN until warm and at hours without data.
    """

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        #: rows: level, slope, curvature, change, lens
        self._rows: Floats = np.full((5, 0), np.nan)
        self._hours = 0
        self._age = 0

    def extend(self, stream: Floats, present: NDArray[np.bool_]) -> None:
        """Append hours: the stream's values (held flat where absent) and whether there was data."""
        start, end = self._hours, self._hours + len(stream)
        if end > self._rows.shape[1]:
            grown = np.full((5, max(2 * self._rows.shape[1], end, 256)), np.nan)
            grown[:, :start] = self._rows[:, :start]
            self._rows = grown
        p = self.preset
        self._age = _advance_lens(self._rows, start, stream, present, self._age, p.ema, p.slope, p.delta, p.z)
        self._hours = end

    def values(self, start: int = 0) -> Floats:
        """Lens values from hour ``start`` on."""
        lens: Floats = self._rows[4, start : self._hours]
        return lens

    def slope(self, start: int = 0) -> Floats:
        """Least-squares slope of the smoothed stream, log units per hour, from hour ``start`` on."""
        slope: Floats = self._rows[1, start : self._hours]
        return slope


class PhaseTrack:
    """Phase of one score series: code, confidence and score per hour, with dwell and hysteresis."""

    def __init__(self, dwell: int) -> None:
        self._dwell = dwell
        self._state = np.array([-1, 0], dtype=np.int64)
        self.code: list[int] = []
        self.confidence: list[float] = []
        self.score: list[float] = []

    def extend(self, scores: Floats) -> None:
        """Append hours."""
        codes, confidence = np.empty(len(scores), dtype=np.int8), np.empty(len(scores))
        _advance_labels(scores, codes, confidence, self._state, self._dwell)
        self.code += codes.tolist()
        self.confidence += confidence.tolist()
        self.score += scores.tolist()


@kernel
def _advance_lens(
    rows: Floats,
    start: int,
    stream: Floats,
    present: NDArray[np.bool_],
    age: int,
    n: int,
    k: int,
    d: int,
    z: int,
) -> int:
    alpha = 2.0 / (n + 1.0)
    middle = (k - 1) / 2.0
    spread = k * (k * k - 1) / 12.0
    for j in range(len(stream)):
        i = start + j
        if age == 0 and not present[j]:
            continue
        rows[0, i] = stream[j] if age == 0 else rows[0, i - 1] + alpha * (stream[j] - rows[0, i - 1])
        age += 1
        if age >= k:
            slope = 0.0
            for m in range(k):
                slope += (m - middle) * rows[0, i - k + 1 + m]
            rows[1, i] = slope / spread
        if age >= k + d:
            rows[2, i] = rows[1, i] - rows[1, i - d]
        if age > d:
            rows[3, i] = rows[0, i] - rows[0, i - d]
        if age >= k + d + z and present[j]:
            total = 0.0
            for row, weight in ((1, 0.5), (2, 0.3), (3, 0.2), (0, 0.1)):
                mean = 0.0
                for m in range(i - z + 1, i + 1):
                    mean += rows[row, m]
                mean /= z
                var = 0.0
                for m in range(i - z + 1, i + 1):
                    var += (rows[row, m] - mean) ** 2
                deviation = np.sqrt(var / z)
                if deviation > 1e-12:
                    total += weight * min(3.0, max(-3.0, (rows[row, i] - mean) / deviation))
            rows[4, i] = total
    return age


@kernel
def _advance_labels(scores: Floats, codes: Codes, confidence: Floats, state: NDArray[np.int64], dwell: int) -> None:
    """Label and confidence per hour: how far inside its label's band a score lies, 0 where dwell holds the label of a
    band that the score has left."""
    edges, bands = EDGES, _BANDS
    for i in range(len(scores)):
        score = scores[i]
        if np.isnan(score):
            state[0], state[1] = -1, 0
            codes[i], confidence[i] = -1, 0.0
            continue
        wanted = 0
        for edge in edges:
            wanted += score >= edge
        now = state[0]
        if (now == 3 and wanted <= 4 and score >= RECOVER_GOOD_EDGE) or (
            now == 4 and wanted == 3 and score >= RECOVER_GOOD_EDGE
        ):
            wanted = 4
        elif now == 3 and wanted == 1:
            wanted = 2
        if now < 0 or (wanted != now and state[1] >= dwell):
            state[0], state[1] = wanted, 0
        state[1] += 1
        codes[i] = state[0]
        inside = min(score - bands[state[0]], bands[state[0] + 1] - score)
        confidence[i] = min(1.0, max(0.0, inside / _CONFIDENCE_SPAN))
