"""Scores of the engine (engine.md 3): trend strength TS, overextension OX, decay EDX, discount DX, integrity TI.

All scores lie in [0, 1] and read closed bars only. Row arguments are rows of `edgebook.market.indicators`; an input
that is missing (NaN) makes the score NaN, and every gate on it fails. Inside S3 one row per bar since the entry is kept
(`S3_*` columns, entry bar = row 0), a running zigzag (`ZZ_*`) and its confirmed pivots (`PIVOT_*`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgebook.kernels import inlined, kernel
from edgebook.market.indicators import (
    ADX,
    ADX_SLOPE,
    ATR,
    ATR_MEAN,
    CLOSE,
    D_SLOPE144,
    DSEP_FAST,
    DSEP_MID,
    EMA20,
    EMA30,
    EMA60,
    EMA144,
    EMA250,
    EMA333,
    HIGH,
    LOW,
    RSI_SLOPE,
    SLOPE20,
    SLOPE60,
    SLOPE144,
    SLOPE250,
    SLOPE333,
    VO_Z,
    VOLUME,
    slope10,
)

Floats = NDArray[np.float64]

#: trim_flag needs OX at least this high, and a level within TRIM_REACH ATR of the price.
OX_TRIM = 0.65
TRIM_REACH = 1.0
#: First dip: TS with boost at least this; the boost uses the base gate, so that memory is free of learning.
FIRST_DIP_TS = 0.50
FIRST_DIP_SR_BOOST = 0.25
FIRST_DIP_HALO = 0.5
#: What EDX can add to the DX threshold.
EDX_SUPPRESSION_MAX = 0.15
#: S3 bars before EDX says anything but 0.5.
EDX_MIN_BARS = 10

# Columns of the per-bar record since S3 entry; the last three are running sums.
S3_CLOSE, S3_ATR, S3_AVWAP, S3_SLOW, S3_PART, S3_COMP, S3_COLUMNS = 0, 1, 2, 3, 4, 5, 6
# The running zigzag: direction, its extreme (row, close, ATR), row of the last pivot, pivots so far, sum of ATR/close,
# and the two AVWAP sums.
ZZ_SIDE, ZZ_AT, ZZ_CLOSE, ZZ_ATR, ZZ_PIVOT, ZZ_COUNT, ZZ_RATIO = 0, 1, 2, 3, 4, 5, 6
AV_VALUE, AV_VOLUME, ZZ_SIZE = 7, 8, 9
# Confirmed pivots: row, close, and how many so far were above / below the previous pivot of their kind.
PIVOT_AT, PIVOT_CLOSE, PIVOT_UP, PIVOT_DOWN, PIVOT_COLUMNS = 0, 1, 2, 3, 4


@kernel
def sigmoid(x: float) -> float:
    """1/(1+e^-x), safe for every finite x; NaN stays NaN."""
    return 1.0 / (1.0 + math.exp(-min(700.0, max(-700.0, x)))) if x == x else x


@kernel
def clamp(x: float, low: float, high: float) -> float:
    """x limited to [low, high]; NaN stays NaN."""
    if x < low:
        return low
    return high if x > high else x


@kernel
def trend_strength(rsi_slope: float, adx_slope: float) -> float:
    """TS = clamp01((rsi_slope+5)/10)/2 + clamp01((adx_slope+2)/4)/2 (engine.md 3.1).

    >>> round(trend_strength(1.0, 0.5), 12)
    0.6125
    """
    return 0.5 * clamp((rsi_slope + 5.0) / 10.0, 0.0, 1.0) + 0.5 * clamp((adx_slope + 2.0) / 4.0, 0.0, 1.0)


@kernel
def boosted(ts_score: float, sr_strength: float, sr_boost: float) -> float:
    """min(1, TS + strength * boost) (engine.md 3.2); NaN where either is missing, so that every gate on it fails.

    >>> boosted(0.55, 0.375, 0.25), boosted(0.9, 1.0, 0.25)
    (0.64375, 1.0)
    """
    total = ts_score + sr_strength * sr_boost
    return 1.0 if total > 1.0 else total


@inlined
def ox_parts(row: Floats) -> tuple[float, float, float, float, float, float, float, float]:
    """Rails at EMA20, 60, 144, 250 (0 without ATR), expansion fast and mid, ATR surge, fragility (engine.md 3.3)."""
    p, atr = row[CLOSE], row[ATR]
    r20, r60, r144, r250, surge = 0.0, 0.0, 0.0, 0.0, 0.5
    if atr > 0.0:
        r20 = sigmoid((p - row[EMA20]) / (1.5 * atr))
        r60 = sigmoid((p - row[EMA60]) / (2.0 * atr))
        r144 = sigmoid((p - row[EMA144]) / (1.5 * atr))
        r250 = sigmoid((p - row[EMA250]) / (2.0 * atr))
    if row[ATR_MEAN] > 0.0:
        surge = sigmoid(atr / row[ATR_MEAN] - 1.0)
    fast, mid = sigmoid(row[DSEP_FAST] / 0.0015), sigmoid(row[DSEP_MID] / 0.0010)
    return r20, r60, r144, r250, fast, mid, surge, sigmoid(-row[SLOPE20] / 0.0008)


@inlined
def ox_base(row: Floats) -> float:
    """OX before the EDX boost: the weighted parts, weights summing to 1 (engine.md 3.3)."""
    r20, r60, r144, r250, fast, mid, surge, fragility = ox_parts(row)
    rails = 0.35 * r20 + 0.20 * r60 + 0.10 * r144 + 0.10 * r250
    return rails + 0.10 * fast + 0.05 * mid + 0.05 * surge + 0.05 * fragility


@kernel
def ox_in_s3(base: float, edx: float) -> float:
    """OX in S3 = clamp01(base * (1 + .33 * clamp(EDX - .5, 0, .5))) (engine.md 3.3)."""
    return clamp(base * (1.0 + 0.33 * clamp(edx - 0.5, 0.0, 0.5)), 0.0, 1.0)


@inlined
def discount(row: Floats, edx: float) -> tuple[float, float, float, float, float, float]:
    """(DX, x, location, exhaustion, relief, curl) (engine.md 3.5).

    x = 0 at EMA333, 1 at EMA144; NaN with location 0 when the hallway is inverted (EMA144 <= EMA333).
    """
    p, e144, e333 = row[CLOSE], row[EMA144], row[EMA333]
    x, location = np.nan, 0.0
    if e144 > e333:
        x = clamp((p - e333) / (e144 - e333), 0.0, 1.0)
        location = math.exp(-3.0 * x) * (1.0 + 0.3 * sigmoid((0.03 - (e144 - e333) / p) / 0.02))
    exhaustion = sigmoid(-row[VO_Z])
    heat = row[ATR] / row[ATR_MEAN] if row[ATR_MEAN] > 0.0 else 1.0
    momentum = 0.5 * sigmoid(row[RSI_SLOPE] / 0.5) + 0.5 * (sigmoid(row[ADX_SLOPE] / 0.3) if row[ADX] >= 18.0 else 0.0)
    relief = 0.5 * sigmoid((heat - 0.9) / 0.05) + 0.5 * momentum
    curl = 1.0 if row[D_SLOPE144] > 0.0 else 0.0
    raw = 0.45 * location + 0.25 * exhaustion + 0.25 * relief + 0.05 * curl
    return clamp(raw * (1.0 - 0.5 * clamp(edx - 0.6, 0.0, 0.4)), 0.0, 1.0), x, location, exhaustion, relief, curl


@kernel
def edx_suppression(edx: float, knee: float, full: float) -> float:
    """.15 * clamp01((EDX - knee)/(full - knee)); knees .5 and .62 (engine.md 3.6, decisions.md 57)."""
    return EDX_SUPPRESSION_MAX * clamp((edx - knee) / (full - knee), 0.0, 1.0)


@inlined
def integrity(rows: Floats, i: int) -> float:
    """TI = .55 SP + .35 EA + .10 VC around EMA333 (engine.md 3.7); only fakeout_recovery reads it."""
    row = rows[i]
    p, e333, atr = row[CLOSE], row[EMA333], row[ATR]
    above, wicks, top = 0.0, 0.0, -np.inf
    for k in range(3):
        bar = rows[i - k]
        above += 1.0 if bar[CLOSE] >= bar[EMA333] else 0.0
        wicks += 1.0 if bar[LOW] < bar[EMA333] <= bar[CLOSE] else 0.0
        top = max(top, bar[HIGH])
    reach = clamp((top - e333) / atr, 0.0, 1.0) if atr > 0.0 else 0.0
    near = 1.0 if e333 < p <= e333 + atr else 0.0
    support = 0.40 * above / 3.0 + 0.25 * near + 0.20 * reach + 0.15 * wicks / 3.0
    up, curl = 0.0, 0.0
    for k in range(3):
        slope = SLOPE333 if k == 2 else SLOPE144 + k
        up += 1.0 if row[slope] >= 0.0 else 0.0
        curl += 1.0 if row[D_SLOPE144 + k] > 0.0 else 0.0
    lift = 0.15 if row[SLOPE60] >= 0.0 else 0.0
    fast = 0.20 if row[EMA20] > row[EMA60] else 0.0
    spread = 0.15 * clamp((row[EMA20] - row[EMA60]) / row[EMA60], 0.0, 1.0)
    alignment = 0.50 * (0.6 * up / 3.0 + 0.4 * curl / 3.0) + lift + fast + spread
    calm = sigmoid(-(atr / row[ATR_MEAN] - 1.0) / 0.3) if row[ATR_MEAN] > 0.0 else 0.5
    return 0.55 * support + 0.35 * alignment + 0.10 * calm


@kernel
def first_dip_options(row: Floats, bars_since_s3: int) -> tuple[bool, bool]:
    """Whether the dip is early and near EMA20/30 (n <= 6), or near EMA60 (n <= 12); half an ATR each (engine.md 4)."""
    p, reach = row[CLOSE], FIRST_DIP_HALO * row[ATR]
    if not row[ATR] > 0.0:
        return False, False
    near_fast = min(abs(p - row[EMA20]), abs(p - row[EMA30])) <= reach
    return bars_since_s3 <= 6 and near_fast, bars_since_s3 <= 12 and abs(p - row[EMA60]) <= reach


@inlined
def first_dip(row: Floats, bars_since_s3: int, ts_score: float, sr_raw: float) -> bool:
    """The first-dip test apart from "not taken yet" (engine.md 4): gate-free, it reads the base SR boost."""
    early, later = first_dip_options(row, bars_since_s3)
    rising = row[SLOPE144] > 0.0 or row[SLOPE250] >= 0.0
    strong = boosted(ts_score, sr_raw, FIRST_DIP_SR_BOOST) >= FIRST_DIP_TS
    return (early or later) and row[CLOSE] >= row[EMA333] and rising and strong


@kernel
def edx_windows(bars: int) -> tuple[int, int, int]:
    """Lengths of the EDX windows after ``bars`` bars of S3, the entry bar included; 0: not used (engine.md 3.4)."""
    two, three = 2 * bars // 3, bars // 3
    return bars, (two if two >= EDX_MIN_BARS else 0), (three if three >= EDX_MIN_BARS else 0)


@kernel
def enter_s3(zz: Floats) -> None:
    """Forget the previous S3 episode."""
    for k in range(ZZ_SIZE):
        zz[k] = 0.0


@inlined
def record_s3_bar(rows: Floats, i: int, k: int, s3: Floats, zz: Floats, pivots: Floats) -> None:
    """Add bar ``i`` as S3 bar number ``k``: AVWAP, the per-bar decay parts and the zigzag (engine.md 3.4)."""
    row = rows[i]
    s3[k, S3_CLOSE], s3[k, S3_ATR] = row[CLOSE], row[ATR]
    if row[VOLUME] > 0.0:
        zz[AV_VALUE] += row[CLOSE] * row[VOLUME]
        zz[AV_VOLUME] += row[VOLUME]
    if zz[AV_VOLUME] > 0.0:
        s3[k, S3_AVWAP] = zz[AV_VALUE] / zz[AV_VOLUME]
    else:
        s3[k, S3_AVWAP] = row[CLOSE] if k == 0 else s3[k - 1, S3_AVWAP]
    trend = sigmoid(1000.0 * (row[SLOPE250] + row[SLOPE333]) / 2.0)
    slow = 1.0 - (trend + sigmoid(row[RSI_SLOPE] / 5.0) + sigmoid(row[ADX_SLOPE] / 2.0)) / 3.0
    part = sigmoid(-1000.0 * slope10(s3, k, S3_AVWAP) / s3[k, S3_AVWAP]) if k >= 9 else 0.5
    narrowing = 0.0
    for j in range(5):
        narrowing += (4.5 - j) * (_hallway(rows[i - j]) - _hallway(rows[i - 9 + j]))
    comp = sigmoid(-1000.0 * narrowing / 82.5)
    before = k - 1
    s3[k, S3_SLOW] = slow + (s3[before, S3_SLOW] if k > 0 else 0.0)
    s3[k, S3_PART] = part + (s3[before, S3_PART] if k > 0 else 0.0)
    s3[k, S3_COMP] = comp + (s3[before, S3_COMP] if k > 0 else 0.0)
    _zigzag(row[HIGH], row[LOW], k, s3, zz, pivots)


@kernel
def _hallway(row: Floats) -> float:
    """Mean distance of EMA144 and EMA250 above EMA333, as a fraction of EMA333."""
    width: float = 0.5 * ((row[EMA144] - row[EMA333]) + (row[EMA250] - row[EMA333]))
    return width / float(row[EMA333])


@inlined
def _zigzag(high: float, low: float, k: int, s3: Floats, zz: Floats, pivots: Floats) -> None:
    """One bar of the ATR zigzag over S3 closes (engine.md 3.4); lambda from the mean of ATR/close since S3 entry."""
    close, atr = s3[k, S3_CLOSE], s3[k, S3_ATR]
    zz[ZZ_RATIO] += atr / close
    lam = 1.4 if zz[ZZ_RATIO] / (k + 1) < 0.003 else 1.2
    if zz[ZZ_SIDE] == 0.0:
        move = close - s3[0, S3_CLOSE]
        if k > 0 and abs(move) >= lam * s3[0, S3_ATR] and move != 0.0:
            _push_pivot(0, s3[0, S3_CLOSE], zz, pivots)
            zz[ZZ_SIDE] = 1.0 if move > 0.0 else -1.0
            zz[ZZ_AT], zz[ZZ_CLOSE], zz[ZZ_ATR] = k, close, atr
        return
    side, at = zz[ZZ_SIDE], int(zz[ZZ_AT])
    if side * close > side * zz[ZZ_CLOSE]:
        zz[ZZ_AT], zz[ZZ_CLOSE], zz[ZZ_ATR] = k, close, atr
        return
    back = side * (zz[ZZ_CLOSE] - close)
    pierced = side * (zz[ZZ_CLOSE] - (low if side > 0.0 else high))
    turned = back >= lam * zz[ZZ_ATR] or pierced >= (lam - 0.25) * zz[ZZ_ATR]
    if turned and k - at >= 3 and at - zz[ZZ_PIVOT] >= 4:
        _push_pivot(at, zz[ZZ_CLOSE], zz, pivots)
        best = at + 1  # the new leg starts from the extreme reached since the pivot
        for j in range(at + 2, k + 1):
            if side * s3[j, S3_CLOSE] < side * s3[best, S3_CLOSE]:
                best = j
        zz[ZZ_SIDE] = -side
        zz[ZZ_AT], zz[ZZ_CLOSE], zz[ZZ_ATR] = best, s3[best, S3_CLOSE], s3[best, S3_ATR]


@kernel
def _push_pivot(at: int, close: float, zz: Floats, pivots: Floats) -> None:
    n = int(zz[ZZ_COUNT])
    up, down = 0.0, 0.0
    if n >= 2:
        up = pivots[n - 1, PIVOT_UP] + (1.0 if close > pivots[n - 2, PIVOT_CLOSE] else 0.0)
        down = pivots[n - 1, PIVOT_DOWN] + (1.0 if close < pivots[n - 2, PIVOT_CLOSE] else 0.0)
    pivots[n, PIVOT_AT], pivots[n, PIVOT_CLOSE], pivots[n, PIVOT_UP], pivots[n, PIVOT_DOWN] = at, close, up, down
    zz[ZZ_PIVOT], zz[ZZ_COUNT] = at, n + 1


@inlined
def structure(start: int, k: int, zz: Floats, pivots: Floats) -> float:
    """1 - (HH+HL)/(HH+HL+LH+LL) over the pivots at S3 bars ``start``..``k``; 0.5 with fewer than 4 (engine.md 3.4).

    The unconfirmed extreme counts as a last pivot if it meets both age rules.
    """
    n = int(zz[ZZ_COUNT])
    low, high = 0, n
    while low < high:  # first pivot inside the window
        middle = (low + high) // 2
        if pivots[middle, PIVOT_AT] < start:
            low = middle + 1
        else:
            high = middle
    at = zz[ZZ_AT]
    open_end = zz[ZZ_SIDE] != 0.0 and k - at >= 3 and at - zz[ZZ_PIVOT] >= 4 and at >= start
    if n - low + (1 if open_end else 0) < 4:
        return 0.5
    up = pivots[n - 1, PIVOT_UP] - pivots[low + 1, PIVOT_UP]
    down = pivots[n - 1, PIVOT_DOWN] - pivots[low + 1, PIVOT_DOWN]
    if open_end:
        up += 1.0 if zz[ZZ_CLOSE] > pivots[n - 2, PIVOT_CLOSE] else 0.0
        down += 1.0 if zz[ZZ_CLOSE] < pivots[n - 2, PIVOT_CLOSE] else 0.0
    return 1.0 - up / (up + down) if up + down > 0.0 else 0.5


@inlined
def decay(k: int, s3: Floats, zz: Floats, pivots: Floats) -> tuple[float, float, float, float, float]:
    """(EDX, slow, struct, part, comp) at S3 bar ``k``; all 0.5 before 10 bars of S3 (engine.md 3.4, recommended form).

    EDX = clamp01((.30 slow + .25 struct + .20 part + .10 comp) / .85); each part is the mean over windows of all, the
    last two thirds and the last third of S3, weighted .2/.3/.5 (two windows .3/.7). 0 is healthy, 1 decaying.
    """
    if k + 1 < EDX_MIN_BARS:
        return 0.5, 0.5, 0.5, 0.5, 0.5
    w1, w2, w3 = edx_windows(k + 1)
    slow, struct, part, comp = 0.0, 0.0, 0.0, 0.0
    for window in range(3):
        length = w1 if window == 0 else (w2 if window == 1 else w3)
        if length == 0:
            continue
        if w2 == 0:
            weight = 1.0
        elif w3 == 0:
            weight = 0.3 if window == 0 else 0.7
        else:
            weight = 0.2 if window == 0 else (0.3 if window == 1 else 0.5)
        start = k + 1 - length
        slow_mean, part_mean, comp_mean = _window_means(s3, start, k)
        slow += weight * slow_mean
        part += weight * part_mean
        comp += weight * comp_mean
        struct += weight * structure(start, k, zz, pivots)
    edx = clamp((0.30 * slow + 0.25 * struct + 0.20 * part + 0.10 * comp) / 0.85, 0.0, 1.0)
    return edx, slow, struct, part, comp


@inlined
def _window_means(s3: Floats, start: int, k: int) -> tuple[float, float, float]:
    """Means over bars ``start``..``k`` of slow, part and comp, which are held as running sums."""
    slow, part, comp = s3[k, S3_SLOW], s3[k, S3_PART], s3[k, S3_COMP]
    if start > 0:
        slow -= s3[start - 1, S3_SLOW]
        part -= s3[start - 1, S3_PART]
        comp -= s3[start - 1, S3_COMP]
    bars = k + 1 - start
    return slow / bars, part / bars, comp / bars
