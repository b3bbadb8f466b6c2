"""The marginal-value estimate of a gate: move it only past chances whose own outcomes say so (learning.md 9.14;
decisions 61).

The ten margin bands of a lever hold what its chances were worth, taken or not, each against the base threshold
(`learning.margins`): a chance stands in a band only if no other gate kept it out. A move of the gate by k bands
(``k * .2`` caps) flips exactly the chances between the base and there:

    gain(loosen by k)  = sum of y over the k bands below the base
    gain(tighten by k) = sum of (h - y) over the k bands above it

in R, fees in. ``h`` is the hurdle: 0, or the mean of the chances further inside where that is lower (`below_zero`). A
gate that does not separate is not moved: where all chances lose alike, whatever their margin, that is the market's
doing, and the sizes' business (decisions 61). The variance, were the chances worth nothing, is the sum of the squares
of the attempts' sums times the design effect of a shared market, and that of the hurdle. The move is the one of largest
``gain - sd`` among those that stand clear of zero at every look (`learning.verdict`); where none does, the gate stays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.scope import ScopeItems
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.episodes import BANDS
from edgebook.learning.verdict import NO_SHIFTS, Score, Shifts, stands

HALF = BANDS // 2
#: One move in caps: the width of a band.
BAND_CAPS = 2.0 / BANDS


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """A gate moved to ``bands`` bands off its base (> 0 is tighter): gain in R, its variance, chances flipped."""

    bands: int
    gain: float
    variance: float
    flipped: int
    tightens: bool = False


def moves(marginal: Mapping[str, Any], config: LearningConfig = DEFAULT, place: int = 0) -> tuple[Move, ...]:
    """Every move of a gate that flips chances, up to five bands from the base each way, the tightest first.

    Args:
        place: where the gate stands, in bands from its base.

    >>> bands = {"n": [0] * 4 + [2, 1] + [0] * 4, "y": [0.0] * 4 + [3.0, -1.0] + [0.0] * 4}
    >>> bands |= {"y2": [0.0] * 4 + [5.0, 1.0] + [0.0] * 4, "inside": [20, -10.0, 20.0]}
    >>> moves(bands)[-1]
    Move(bands=-5, gain=3.0, variance=10.0, flipped=2, tightens=False)
    >>> tight = moves(bands)[0]
    >>> dataclasses.replace(tight, gain=round(tight.gain, 3), variance=round(tight.variance, 3))
    Move(bands=5, gain=0.492, variance=2.09, flipped=1, tightens=True)
    """
    found = []
    for to in range(HALF, -HALF - 1, -1):
        between = range(HALF + min(place, to), HALF + max(place, to))
        flipped = sum(marginal["n"][band] for band in between)
        if not flipped:
            continue
        worth = math.fsum(marginal["y"][band] for band in between)
        variance = config.tuning_design_effect * math.fsum(marginal["y2"][band] for band in between)
        if to > place:
            hurdle = _hurdle(marginal, HALF + to, config)
            if hurdle is None:
                continue
            gain = flipped * hurdle.mean - worth
            variance += flipped * flipped * hurdle.variance
        else:
            gain = worth
        found.append(Move(to, gain, variance, flipped, to > place))
    return tuple(found)


class Hurdle(NamedTuple):
    """What a chance must be worse than to be shut out, R: its expectation, at most 0, and its variance."""

    mean: float
    variance: float


def _hurdle(marginal: Mapping[str, Any], first: int, config: LearningConfig) -> Hurdle | None:
    """The hurdle of a gate that keeps the chances from band ``first`` inwards, those beyond the bands included; None
    where those are too few to tell."""
    n, y, y2 = marginal["inside"]
    n += sum(marginal["n"][first:])
    if n < config.marginal_min_flipped:
        return None
    y, y2 = y + math.fsum(marginal["y"][first:]), y2 + math.fsum(marginal["y2"][first:])
    return below_zero(y / n, math.sqrt(config.tuning_design_effect * y2) / n)


def below_zero(mean: float, sd: float) -> Hurdle:
    """Expectation and variance of ``min(0, M)`` for ``M ~ N(mean, sd**2)``.

    With ``a = -mean / sd``: ``E = mean * Phi(a) - sd * phi(a)``, ``E2 = (mean**2 + sd**2) * Phi(a) - mean * sd *
    phi(a)``, variance ``E2 - E**2``. So a mean that is surely above 0 makes a hurdle of 0, one that is surely below is
    the hurdle itself, and in between its doubt counts.

    >>> [round(abs(x), 4) for x in below_zero(1.0, 0.1)], [round(x, 4) for x in below_zero(-1.0, 0.1)]
    ([0.0, 0.0], [-1.0, 0.01])
    >>> [round(x, 4) for x in below_zero(0.0, 1.0)]
    [-0.3989, 0.3408]
    """
    if sd <= 0.0:
        return Hurdle(min(0.0, mean), 0.0)
    a = -mean / sd
    share, density = 0.5 * (1.0 + math.erf(a / math.sqrt(2.0))), math.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)
    expected = mean * share - sd * density
    square = (mean * mean + sd * sd) * share - mean * sd * density
    return Hurdle(expected, max(0.0, square - expected * expected))


def best_move(
    marginal: Mapping[str, Any], config: LearningConfig = DEFAULT, tests: int = 1, place: int = 0
) -> Move | None:
    """The move of largest ``gain - sd`` among those that stand, of equals the nearer; None where the gate should stay.

    Args:
        tests: how many slices are looked at beside this one; each has ten moves.
        place: where the gate stands, in bands from its base.
    """
    standing = [m for m in moves(marginal, config, place) if _stands(m, config, tests)]
    return max(standing, key=lambda m: (m.gain - math.sqrt(m.variance), -abs(m.bands - place)), default=None)


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
    episode_type: str,
    blocks: Mapping[ScopeItems, Mapping[str, Any]],
    config: LearningConfig = DEFAULT,
    before: Shifts = NO_SHIFTS,
    anew: Container[str] = (),
) -> dict[ScopeItems, dict[str, tuple[float, Score]]]:
    """Increment of each gate per slice, parents first; only what stands.

    Args:
        blocks: ``stats['tuning'][episode_type]`` per slice, the root under ``()``.
        before: increments that stand now.
        anew: levers whose older evidence is set aside: they are judged from where they stand, and stay there without
            evidence; the others from their base.

    A slice starts from where its parents put the gate. It moves it on, or back, only where its own chances say so
    beyond noise and differ from those of the rest of the key between the same margins. Of slices that hold the very
    same chances (A patient and E aggressive are often one market) the first speaks for all: their moves would add.
    """
    out: dict[ScopeItems, dict[str, tuple[float, Score]]] = {}
    for items in sorted(blocks, key=lambda k: (len(k), k)):
        for name in GATE_LEVERS[episode_type]:
            if _said(items, name, blocks, out):
                continue
            row = LEVERS[name]
            implied = sum(parts[name][0] for scope, parts in out.items() if name in parts and set(scope) <= set(items))
            stood = before.get(items, {}).get(name) if name in anew else None
            start = implied + (stood[0] if stood else 0.0)
            place = max(-HALF, min(HALF, round(start * row.polarity / (BAND_CAPS * row.cap))))
            move = _move_of(items, name, blocks, config, place)
            if move is not None:
                target = row.base + row.polarity * move.bands * BAND_CAPS * row.cap
                shift = min(row.hi, max(row.lo, target)) - row.base - implied
                out.setdefault(items, {})[name] = (shift, _score(move, shift))
            elif stood is not None:
                out.setdefault(items, {})[name] = stood
    return out


def _said(
    items: ScopeItems,
    name: str,
    blocks: Mapping[ScopeItems, Mapping[str, Any]],
    out: Mapping[ScopeItems, Mapping[str, Any]],
) -> bool:
    """Whether another slice that holds the same chances has moved the gate."""
    own = _bands(blocks[items], name)
    return any(name in parts and _bands(blocks[other], name) == own for other, parts in out.items() if other)


def _move_of(
    items: ScopeItems, name: str, blocks: Mapping[ScopeItems, Mapping[str, Any]], config: LearningConfig, place: int
) -> Move | None:
    """The move a slice asks for from ``place``; one that holds all chances of the key has nothing to add to it."""
    own, whole = _bands(blocks[items], name), _bands(blocks.get(()), name)
    if not own or (items and own == whole):
        return None
    tests = _looks(blocks, name, len(items))
    move = best_move(own, config, tests, place)
    if move is None or (items and not _differs(move, own, whole, config, tests, place)):
        return None
    return move


def _looks(blocks: Mapping[ScopeItems, Mapping[str, Any]], name: str, depth: int) -> int:
    """How many slices of as many dims have evidence of their own on a gate."""
    whole = _bands(blocks.get(()), name)
    told = (_bands(block, name) for items, block in blocks.items() if items and len(items) == depth)
    return max(1, sum(bool(own) and own != whole for own in told))


def _bands(block: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = block["levers"].get(name, {}).get("marginal", {}) if block else {}
    return found


def _score(move: Move, shift: float) -> Score:
    sign = 1 if move.tightens else -1
    return Score(sign * move.gain / move.flipped, float(move.flipped), sign * move.gain, move.variance, shift)


def _differs(
    move: Move, own: Mapping[str, Any], whole: Mapping[str, Any], config: LearningConfig, tests: int, place: int
) -> bool:
    """Whether the chances a move flips in a slice are worth something else than those it would flip in the rest."""
    other = next((m for m in moves(_rest(own, whole), config, place) if m.bands == move.bands), None)
    if other is None:
        return True
    ratio = move.flipped / other.flipped
    gap = move.gain - ratio * other.gain
    variance = move.variance + ratio * ratio * other.variance
    return gap > 0 and _clear(gap, variance, config, tests)


def _rest(own: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Bands of the chances of the key that are not of a slice.

    An attempt with chances on both sides is one draw in the whole: where they cancel out, the squares of the slice are
    more than those of the whole. There the rest is held to be as spread as the slice.
    """
    n, y, y2 = ([w - o for w, o in zip(whole[part], own[part], strict=True)] for part in ("n", "y", "y2"))
    for band, left in enumerate(y2):
        if left < 0:
            y2[band] = own["y2"][band] * n[band] / own["n"][band]
    inside = [w - o for w, o in zip(whole["inside"], own["inside"], strict=True)]
    return {"n": n, "y": y, "y2": y2, "inside": [*inside[:2], max(0.0, inside[2])]}
