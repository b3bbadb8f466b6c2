"""The marginal-value estimate of a gate: move it only past chances whose own outcomes say so (learning.md 9.14;
decisions 61).

The ten margin bands of a lever hold what its chances were worth, taken or not, each against the base threshold
(`learning.margins`): a chance stands in a band only if no other gate kept it out. A move of the gate by k bands
(``k * .2`` caps) flips exactly the chances between the base and there, so

    gain(loosen by k)  = sum of y over the k bands below the base
    gain(tighten by k) = -(sum of y over the k bands above it)

in R, fees in, hurdle 0. Its variance, were the chances worth nothing, is the sum of the squares of the attempts' sums,
times the design effect of a shared market. The move is the one of largest ``gain - sd`` among those that stand clear of
zero at every look (`learning.verdict`); where none does, the gate stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.scope import ScopeItems
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.episodes import BANDS
from edgebook.learning.verdict import Score, stands

HALF = BANDS // 2
#: One move in caps: the width of a band.
BAND_CAPS = 2.0 / BANDS


@dataclass(frozen=True, slots=True)
class Move:
    """A move of one gate by ``bands`` (> 0 tightens): its gain in R, the variance of that, the chances it flips."""

    bands: int
    gain: float
    variance: float
    flipped: int


def moves(marginal: Mapping[str, Any], config: LearningConfig = DEFAULT) -> tuple[Move, ...]:
    """Every move of a gate there is evidence on: up to five bands each way.

    >>> moves({"n": [0] * 4 + [2] + [1] + [0] * 4, "y": [0.0] * 4 + [3.0, -1.0] + [0.0] * 4,
    ...        "y2": [0.0] * 4 + [5.0, 1.0] + [0.0] * 4})[0]
    Move(bands=-1, gain=3.0, variance=10.0, flipped=2)
    """
    found = []
    for sign in (-1, 1):
        gain, variance, flipped = 0.0, 0.0, 0
        for k in range(1, HALF + 1):
            band = HALF - k if sign < 0 else HALF + k - 1
            gain -= sign * marginal["y"][band]
            variance += config.tuning_design_effect * marginal["y2"][band]
            flipped += marginal["n"][band]
            if flipped:
                found.append(Move(sign * k, gain, variance, flipped))
    return tuple(found)


def best_move(marginal: Mapping[str, Any], config: LearningConfig = DEFAULT, tests: int = 1) -> Move | None:
    """The move of largest ``gain - sd`` among those that stand; None where the gate should stay.

    Args:
        tests: how many slices are looked at beside this one; each has ten moves.
    """
    standing = [m for m in moves(marginal, config) if _stands(m, config, tests)]
    return max(standing, key=lambda m: (m.gain - math.sqrt(m.variance), -abs(m.bands)), default=None)


def _stands(move: Move, config: LearningConfig, tests: int) -> bool:
    """Whether a gain is clear of zero at every look, among all moves of a gate (they hold one another: ten count as
    three) and all slices."""
    if move.gain <= 0 or move.flipped < config.marginal_min_flipped:
        return False
    return _clear(move.gain, move.variance, config, tests * config.marginal_tests_per_gate)


def _clear(gain: float, variance: float, config: LearningConfig, tests: float) -> bool:
    unit = config.marginal_sd_r
    return stands(gain / unit, variance / (unit * unit), config, tests, config.marginal_boundary_chances)


def marginal_shifts(
    episode_type: str, blocks: Mapping[ScopeItems, Mapping[str, Any]], config: LearningConfig = DEFAULT
) -> dict[ScopeItems, dict[str, tuple[float, Score]]]:
    """Increment of each gate per slice, parents first; only what stands.

    Args:
        blocks: ``stats['tuning'][episode_type]`` per slice, the root under ``()``.

    A slice adds to what its parents already ask only where its own chances stand, and differ from those of the rest of
    the key between the same margins.
    """
    out: dict[ScopeItems, dict[str, tuple[float, Score]]] = {}
    whole = blocks.get(())
    for items in sorted(blocks, key=lambda k: (len(k), k)):
        for name in GATE_LEVERS[episode_type]:
            own = _bands(blocks[items], name)
            if items and own == _bands(whole, name):
                continue  # all chances of the key are of this slice: it has nothing to add
            tests = _looks(blocks, name, len(items))
            move = best_move(own, config, tests) if own else None
            if move is None or (items and not _differs(move, own, _bands(whole, name), config, tests)):
                continue
            row = LEVERS[name]
            target = row.base + row.polarity * move.bands * BAND_CAPS * row.cap
            implied = sum(parts[name][0] for scope, parts in out.items() if name in parts and set(scope) <= set(items))
            shift = min(row.hi, max(row.lo, target)) - row.base - implied
            if shift:
                out.setdefault(items, {})[name] = (shift, _score(move, shift))
    return out


def _looks(blocks: Mapping[ScopeItems, Mapping[str, Any]], name: str, depth: int) -> int:
    """How many slices of as many dims have evidence of their own on a gate."""
    whole = _bands(blocks.get(()), name)
    told = (_bands(block, name) for items, block in blocks.items() if items and len(items) == depth)
    return max(1, sum(bool(own) and own != whole for own in told))


def _bands(block: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = block["levers"].get(name, {}).get("marginal", {}) if block else {}
    return found


def _score(move: Move, shift: float) -> Score:
    sign = 1 if move.bands > 0 else -1
    return Score(sign * move.gain / move.flipped, float(move.flipped), sign * move.gain, move.variance, shift)


def _differs(move: Move, own: Mapping[str, Any], whole: Mapping[str, Any], config: LearningConfig, tests: int) -> bool:
    """Whether the chances a move flips in a slice are worth something else than those it would flip in the rest."""
    other = next((m for m in moves(_rest(own, whole), config) if m.bands == move.bands), None)
    if other is None:
        return True
    ratio = move.flipped / other.flipped
    gap = move.gain - ratio * other.gain
    variance = move.variance + ratio * ratio * other.variance
    return gap > 0 and _clear(gap, variance, config, tests)


def _rest(own: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Bands of the chances of the key that are not of a slice.

    An attempt with chances on both sides is one draw in the whole: where they cancel out, the squares of the slice are
    more than those of the whole. There the rest is held to be as spread as the slice.
    """
    n, y, y2 = ([w - o for w, o in zip(whole[part], own[part], strict=True)] for part in ("n", "y", "y2"))
    for band, left in enumerate(y2):
        if left < 0:
            y2[band] = own["y2"][band] * n[band] / own["n"][band]
    return {"n": n, "y": y, "y2": y2}
