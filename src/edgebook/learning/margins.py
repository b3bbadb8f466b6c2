"""From the outcomes of an attempt's shadows to ten margin bands per gate in ``stats['tuning']`` (learning.md 4, 9.14).

A band holds what the chances at that distance from the BASE threshold were worth: against the base, so that what was
seen stays true when the gate has moved. Shape: ``{episode_type: {"levers": {lever: {"marginal": {"n": [10], "y": [10],
"y2": [10], "inside": [n, y, y2]}}}}}``; ``y`` sums R, ``y2`` the squares of each attempt's sum: an attempt is one draw.
``inside`` are the chances that passed by more than a cap: no move flips them, they are what a tighter gate keeps.
Everything adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgebook.domain.levers import GATE_LEVERS, LEVERS, lever
from edgebook.domain.shadow import ShadowOutcome
from edgebook.learning.episodes import BANDS, NO_LEVER, band_of, block_of

#: Levers that act through another gate: their margin is that gate's, as it stood.
INDIRECT = frozenset({"sr_boost", "edx_supp_mult"})

NO_BANDS: Mapping[str, Any] = {"n": [0] * BANDS, "y": [0.0] * BANDS, "y2": [0.0] * BANDS, "inside": [0, 0.0, 0.0]}
INSIDE = BANDS
Worth = Mapping[str, Mapping[int, tuple[int, float]]]
"""Lever -> band (`INSIDE` for beyond the last) -> (chances, sum of their values in R), of one attempt in one slice."""


def base_margin(name: str, margin: float, thresholds: Mapping[str, float], timeframe: str) -> float:
    """``u`` against the base threshold, from ``u`` against the one in force: ``u + polarity * (t - base) / cap``.

    >>> round(base_margin("ts_min", -0.5, {"ts_min": 0.65}, "1h"), 6)
    0.0
    >>> base_margin("sr_boost", 0.2, {"sr_boost": 0.4}, "1h")
    0.2
    """
    if name in INDIRECT or name not in thresholds:
        return margin
    row = lever(name, timeframe)
    return margin + row.polarity * (thresholds[name] - row.base) / row.cap


def worth_of(outcomes: Iterable[ShadowOutcome], episode_type: str, timeframe: str) -> Worth:
    """What the chances of one attempt and type add, lever by lever and band by band."""
    found: dict[str, dict[int, tuple[int, float]]] = {}
    for outcome in outcomes:
        if outcome.episode_type != episode_type:
            continue
        for name, margin in outcome.margins.items():
            if name not in GATE_LEVERS[episode_type] or name not in LEVERS:
                continue
            from_base = base_margin(name, margin, outcome.thresholds, timeframe)
            band = INSIDE if from_base > 1.0 else band_of(from_base)
            if band is not None:
                n, y = found.setdefault(name, {}).get(band, (0, 0.0))
                found[name][band] = (n + 1, y + outcome.values[name])
    return found


def add_worth(tuning: Mapping[str, Any], episode_type: str, worth: Worth, ended_at: int) -> dict[str, Any]:
    """``tuning`` with one attempt's chances added; parts that stay the same are shared with it."""
    block = block_of(tuning, episode_type)
    levers = dict(block["levers"])
    for name, bands in worth.items():
        old = levers.get(name, NO_LEVER)
        levers[name] = {**old, "marginal": _with(old.get("marginal", NO_BANDS), bands)}
    return {**tuning, episode_type: {**block, "levers": levers, "last_ts": max(block["last_ts"], ended_at)}}


def _with(past: Mapping[str, Any], bands: Mapping[int, tuple[int, float]]) -> dict[str, Any]:
    n, y, y2, inside = past["n"][:], past["y"][:], past["y2"][:], past["inside"]
    for band, (count, total) in bands.items():
        if band == INSIDE:
            inside = [inside[0] + count, inside[1] + total, inside[2] + total * total]
        else:
            n[band] += count
            y[band] += total
            y2[band] += total * total
    return {"n": n, "y": y, "y2": y2, "inside": inside}
