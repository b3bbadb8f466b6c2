"""Constants that only matter in S3, against real bars: the EDX knees and the spacing of the DX ladder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.measure import Array, Measured
from calibration.text import Section, count, number, percent, plural, span, table
from edgebook.engine.columns import EngineConfig
from edgebook.engine.signals import EDX_MIN_BARS
from edgebook.engine.states import S3
from edgebook.trading.rules import PmRules

KNEE, FULL = EngineConfig().edx_knee, EngineConfig().edx_full
STEP, MOST_RUNGS = PmRules().dx_step_atr, PmRules().dx_max
#: Spacings compared, in ATR.
SPACINGS = (0.0, 0.25, 0.5, 1.0, 2.0, 6.0)
#: A verdict rests on sets with at least this many S3 bars.
ENOUGH = 10_000
#: A knee stands where this share of S3 bars lies below it; the full point likewise.
KNEE_RANK, FULL_RANK = (0.60, 0.85), (0.97, 0.998)
#: What the prototype before the build found on the coins of 2021-23 and 2025q1.
EARLIER_Q75, EARLIER_Q99, EARLIER_BAND = (0.51, 0.53), (0.61, 0.63), (0.7, 1.6, 2.6)

Sets = Sequence[Measured]


def edx(sets: Sets) -> Section:
    """EDX in S3 against its knees, and how many DX buys the suppression between them costs."""
    rows = []
    for m in sets:
        values = m["edx"][m["state"] == S3]
        if len(values):
            quantiles = (number(q, 3) for q in np.quantile(values, (0.05, 0.25, 0.50, 0.75, 0.95, 0.99)))
            above = (percent(np.mean(values > cut)) for cut in (KNEE, 0.60, FULL, 0.70))
            rows.append((m.label, count(len(values)), *quantiles, *above, *_suppressed(m)))
    head = (
        *("set", "S3 bars", "q05", "q25", "q50", "q75", "q95", "q99"),
        *(f"above {number(KNEE, 2)}, %", "above .60, %", f"above {number(FULL, 2)}, %", "above .70, %"),
        *("DX flags", "lost to suppression, %"),
    )
    large = [m for m in sets if np.sum(m["state"] == S3) >= ENOUGH]
    body = (
        f"EDX adds to the DX threshold from its knee ({KNEE}) on and reaches its full weight at {FULL}. The first "
        f"{EDX_MIN_BARS - 1} bars of an S3 are exactly 0.5 and count as not above. The last column: DX flags there "
        "would be if EDX added nothing, and are not.\n\n"
        + table(head, rows)
        + "\n\n![OX and EDX since the start of S3](img/engine/since_entry.png)\n\n"
        + _knees(large)
    )
    return Section("EDX and its knees", body, _knee_findings(large))


def _suppressed(m: Measured) -> tuple[str, str]:
    flags = int(dx_flags(m).sum())
    free = int(np.sum(m["unsuppressed"] & (m["state"] == S3)))
    return count(flags), percent((free - flags) / free) if free else ""


def _ranks(m: Measured) -> tuple[float, float]:
    values = m["edx"][m["state"] == S3]
    return float(np.mean(values < KNEE)), float(np.mean(values < FULL))


def _quantile(m: Measured, q: float) -> float:
    return float(np.quantile(m["edx"][m["state"] == S3], q))


def _knees(large: Sets) -> str:
    if not large:
        return f"No set has {ENOUGH:,} S3 bars: no verdict."
    knee, full = zip(*map(_ranks, large), strict=True)
    q75, q99 = [_quantile(m, 0.75) for m in large], [_quantile(m, 0.99) for m in large]
    same75 = sum(EARLIER_Q75[0] <= round(q, 2) <= EARLIER_Q75[1] for q in q75)
    same99 = sum(EARLIER_Q99[0] <= round(q, 2) <= EARLIER_Q99[1] for q in q99)
    return (
        f"In the {plural(len(large), 'set')} with at least {ENOUGH:,} S3 bars, {span([100 * r for r in knee], 0)} % of "
        f"them lie below the knee and {span([100 * r for r in full], 1)} % below the full point. The prototype before "
        f"the build found q75 at {span(EARLIER_Q75)} and q99 at {span(EARLIER_Q99)}; here q75 is {span(q75)} "
        f"({same75} of {len(large)} sets inside that range) and q99 {span(q99)} ({same99} of {len(large)})."
    )


def _knee_findings(large: Sets) -> tuple[str, ...]:
    if not large:
        return ()
    found = []
    for name, value, (low, high), ranks in (
        ("EDX knee", KNEE, KNEE_RANK, [_ranks(m)[0] for m in large]),
        ("EDX full point", FULL, FULL_RANK, [_ranks(m)[1] for m in large]),
    ):
        inside = sum(low <= rank <= high for rank in ranks)
        verdict = "stands" if inside > len(ranks) / 2 else "does not stand"
        found.append(
            f"{name} {value} {verdict}: between {percent(low)} and {percent(high)} % of S3 bars lie below it in "
            f"{inside} of {len(ranks)} sets (all: {span([100 * r for r in ranks])} %)."
        )
    return tuple(found)


def ladder(sets: Sets) -> Section:
    """Width of the band between EMA144 and EMA333 in ATR, where in it DX flags stand, and how far a ladder gets."""
    rows = [row for m in sets if (row := _band_row(m))]
    head = (
        *("set", "S3 bars", "width, q25", "median", "q75", *(f"fit at {k:g}" for k in SPACINGS[1:])),
        *("DX flags", "in the band at, median", "above EMA333, median", "q75"),
    )
    large = [m for m in sets if np.sum(m["state"] == S3) >= ENOUGH]
    body = (
        "Width of the band: (EMA144 - EMA333) / ATR on all S3 bars. *Fit*: mean number of rungs, at most "
        f"{MOST_RUNGS}, if the first stood at EMA144. Then the bars with a DX flag: where in the band they are (0 at "
        "EMA144, 1 at EMA333) and how many ATR above EMA333, which is about all the room a second rung has.\n\n"
        + table(head, rows)
        + "\n\nThe ladder as it fills, walked over the flags: a trim starts a new one, the first DX flag after it is "
        "the first rung, a later flag is one if its close is at least k ATR below the last, and there are at most "
        f"{MOST_RUNGS}. Mean rungs per ladder that has any, and in brackets the percentage of those that get a second "
        "(k = 0: any later flag at or below the last).\n\n"
        + _filled(sets)
        + "\n\n![Width of the band, place of the DX flags, rungs filled](img/engine/ladder.png)\n\n"
        + _band_text(large)
    )
    return Section("The DX ladder", body, _ladder_finding(sets, large))


def band(m: Measured) -> Array:
    """Width of the band between EMA144 and EMA333 on every bar, in ATR; negative where it is inverted."""
    return np.asarray((m["ema144"] - m["ema333"]) / m["atr"])


def room(m: Measured) -> Array:
    """Distance of the close above EMA333 on every bar with a DX flag, in ATR."""
    at = dx_flags(m)
    return np.asarray((m["price"][at] - m["ema333"][at]) / m["atr"][at])


def dx_flags(m: Measured) -> Array:
    """Where the S3 buy flag is on."""
    return np.asarray(m["buy_flag"] & (m["state"] == S3))


def _band_row(m: Measured) -> tuple[str, ...] | None:
    width = band(m)[m["state"] == S3]
    if not len(width):
        return None
    at = dx_flags(m)
    place = (m["ema144"][at] - m["price"][at]) / (m["ema144"][at] - m["ema333"][at])
    fits = (number(float(np.mean(_fit(width, k)))) for k in SPACINGS[1:])
    above = np.quantile(room(m), (0.5, 0.75)) if at.any() else (np.nan, np.nan)
    middle = number(float(np.median(place))) if at.any() else ""
    quartiles = (number(q) for q in np.quantile(width, (0.25, 0.5, 0.75)))
    return (m.label, count(len(width)), *quartiles, *fits, count(at.sum()), middle, *map(number, above))


def _fit(width: Array, spacing: float) -> Array:
    return np.where(width >= 0.0, np.minimum(MOST_RUNGS, 1 + np.floor(np.maximum(width, 0.0) / spacing)), 0)


def rungs(m: Measured, spacing: float) -> Array:
    """Rungs filled by every ladder that has any, 1 to `MOST_RUNGS`; fills at the close of the flag's bar."""
    fresh = np.r_[True, m["symbol"][1:] != m["symbol"][:-1]] | (m["bars_since_s3"] == 0) | m["trim_flag"]
    ladder_of = np.cumsum(fresh)
    counts: dict[int, int] = {}
    limits: dict[int, float] = {}
    at = np.flatnonzero(dx_flags(m))
    for key, price, atr in zip(ladder_of[at].tolist(), m["price"][at].tolist(), m["atr"][at].tolist(), strict=True):
        if counts.get(key, 0) < MOST_RUNGS and price <= limits.get(key, np.inf):
            counts[key], limits[key] = counts.get(key, 0) + 1, price - spacing * atr
    return np.array(list(counts.values()), dtype=np.int64)


def _filled(sets: Sets) -> str:
    rows = []
    for m in sets:
        filled = [rungs(m, k) for k in SPACINGS]
        if len(filled[0]):
            shown = (f"{number(float(np.mean(r)))} ({percent(float(np.mean(r > 1)))})" for r in filled)
            rows.append((m.label, count(len(filled[0])), *shown))
    return table(("set", "ladders", *(f"k = {k:g}" for k in SPACINGS)), rows)


def _band_text(large: Sets) -> str:
    if not large:
        return f"No set has {ENOUGH:,} S3 bars: no verdict."
    q25, q50, q75 = zip(*(np.quantile(band(m)[m["state"] == S3], (0.25, 0.5, 0.75)) for m in large), strict=True)
    low, middle, high = EARLIER_BAND
    return (
        f"In the {plural(len(large), 'set')} with at least {ENOUGH:,} S3 bars the median width is {span(q50)} ATR and "
        f"the quartiles are {span(q25)} and {span(q75)}; the prototype before the build found {middle} with {low} and "
        f"{high}."
    )


def _ladder_finding(sets: Sets, large: Sets) -> tuple[str, ...]:
    filled = {k: np.concatenate([rungs(m, k) for m in sets]) for k in SPACINGS}
    if not large or not len(filled[STEP]):
        return ()
    widths = [float(np.median(band(m)[m["state"] == S3])) for m in large]
    rooms = [float(np.median(room(m))) for m in large if dx_flags(m).any()]
    shares = ", ".join(f"{percent(float(np.mean(filled[k] > 1)))} % at k = {k:g}" for k in SPACINGS)
    finding = (
        f"The DX band is {span(widths, 1)} ATR wide (medians of {plural(len(large), 'set')}), but DX flags stand only "
        f"{span(rooms)} ATR above EMA333 (medians): of {plural(len(filled[STEP]), 'ladder')} a second rung comes in "
        f"{shares}; the default is k = {STEP:g}."
    )
    return (finding,)
