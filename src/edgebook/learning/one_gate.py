"""One gate of a key moves per build, and the others are judged anew beside it (learning.md 9.14).

The same chances stand in the bands of several gates: what one move has shut out, the next must not be credited with.
So when a gate has moved, what the others' bands held by then is set aside (``tuning_since`` of the family's fit), and
they speak again from the chances seen since, under the gate where it now stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from edgebook.domain.evidence import Lesson
from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.scope import PM_SCHEMA, ScopeItems, make_scope, scope_hash
from edgebook.learning.margins import INDIRECT, NO_BANDS
from edgebook.learning.verdict import Score, Shifts

Blocks = Mapping[ScopeItems, Mapping[str, Any]]
Since = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Lever -> hash of the slice -> bands that are set aside."""


def beside(blocks: Blocks, since: Since) -> dict[ScopeItems, Mapping[str, Any]]:
    """``blocks`` without what is set aside."""
    if not since:
        return dict(blocks)
    found: dict[ScopeItems, Mapping[str, Any]] = {}
    for items, block in blocks.items():
        key, levers = scope_hash(items), dict(block["levers"])
        for name, aside in since.items():
            if key in aside and "marginal" in levers.get(name, {}):
                levers[name] = {**levers[name], "marginal": _less(levers[name]["marginal"], aside[key])}
        found[items] = {**block, "levers": levers}
    return found


def _less(bands: Mapping[str, Any], aside: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Bands less others that are part of them."""
    left = {part: [a - b for a, b in zip(bands[part], aside[part], strict=True)] for part in NO_BANDS}
    n, y, y2 = left["inside"]
    return {**left, "y2": [max(0.0, square) for square in left["y2"]], "inside": [n, y, max(0.0, y2)]}


def standing(lessons: Iterable[Lesson]) -> dict[ScopeItems, Mapping[str, tuple[float, Score]]]:
    """What stored lessons of a key move now, slice by slice."""
    found: dict[ScopeItems, Mapping[str, tuple[float, Score]]] = {}
    for lesson in lessons:
        levers = {} if lesson.status == "deprecated" else _shifts_in(lesson)
        if levers:
            found[make_scope(PM_SCHEMA, lesson.scope_values)] = levers
    return found


def one_gate(
    episode_type: str, found: Shifts, before: Shifts, blocks: Blocks, since: Since
) -> tuple[Shifts, dict[str, Mapping[str, Any]]]:
    """``found``, but for what would move a second gate of the key in one build: that stays as it stood ``before``.

    The gate of the clearest evidence moves; of equals one that works through another (the boost before TS).

    Returns:
        The shifts to be in force, and what is set aside from now on.
    """
    names = sorted({name for levers in (*found.values(), *before.values()) for name in levers})
    changed = [name for name in names if _column(found, name) != _column(before, name)]
    if not changed:
        return found, dict(since)
    moved = max(changed, key=lambda name: (_clarity(found, name), name in INDIRECT))
    out: dict[ScopeItems, dict[str, tuple[float, Score]]] = {}
    for name in names:
        for items, levers in (found if name == moved or name not in changed else before).items():
            if name in levers:
                out.setdefault(items, {})[name] = levers[name]
    others = [name for name in GATE_LEVERS[episode_type] if name != moved]
    return out, {**since, **{name: _bands_of(blocks, name) for name in others}}


def _bands_of(blocks: Blocks, name: str) -> dict[str, Any]:
    bands = ((items, block["levers"].get(name, {}).get("marginal")) for items, block in blocks.items())
    return {scope_hash(items): found for items, found in bands if found}


def _shifts_in(lesson: Lesson) -> dict[str, tuple[float, Score]]:
    """What a stored lesson moves, lever by lever."""
    targets, stats = lesson.effect["execution_levers"]["signal_thresholds"], lesson.stats
    support = float(stats.get("tuning_support", 0.0))
    return {
        name: (shift, Score(float(stats["scores"].get(name, 0.0)), support, 0.0, 0.0, shift))
        for name, target in targets.items()
        if (shift := target - stats["base_at_fit"][name])
    }


def _column(shifts: Shifts, name: str) -> dict[ScopeItems, float]:
    """Shift of one lever per slice, as it would read back from a lesson."""
    base = LEVERS[name].base
    return {items: base + levers[name][0] for items, levers in shifts.items() if name in levers}


def _clarity(shifts: Shifts, name: str) -> float:
    """Largest gap in its own spread that a lever has in any slice; 0 for one that has lost its evidence."""
    scores = [levers[name][1] for levers in shifts.values() if name in levers]
    return max((abs(s.gap) / math.sqrt(s.variance) for s in scores if s.variance > 0), default=0.0)
