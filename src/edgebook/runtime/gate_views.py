"""What ``edgebook episodes --gates`` says: what the chances at each distance from a gate were worth, what the estimate
makes of them, and which gates are in force where.

Plain JSON-able values. Bands are counted from the base threshold, a tenth of the way from -1 to 1 severity cap each;
values are in R. What was set aside when another gate of the key moved is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from edgebook.domain.evidence import family_key
from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.pattern import EPISODE_PATTERN
from edgebook.domain.protection import CHANNEL
from edgebook.domain.scope import PM_SCHEMA, ScopeItems, make_scope
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.episodes import BANDS
from edgebook.learning.marginal import BAND_CAPS, Move, best_move, marginal_shifts, moves
from edgebook.learning.margins import NO_BANDS
from edgebook.learning.one_gate import beside, standing
from edgebook.learning.verdict import Shifts
from edgebook.overrides.combine import apply_pattern_execution_overrides
from edgebook.overrides.history import ConfigHistory
from edgebook.overrides.record import CHANNELS, Family
from edgebook.ports import UnitOfWork

Json = Any
Blocks = Mapping[ScopeItems, Mapping[str, Any]]
#: Engine state whose gates an episode type is about.
STATE_OF = {"s1_entry": "S1", "s3_retest": "S3"}


def gates_view(uow: UnitOfWork, config: LearningConfig = DEFAULT) -> dict[str, Json]:
    """Per key and gate: bands, the move the estimate would make or why it makes none, slices that differ, and the
    gates in force at the database's clock."""
    history, clock = _history(uow), uow.watermarks.get("clock")
    return {
        "config_version": history.current_version,
        "keys": [
            _key(episode_type, _seen(uow, episode_type), history, clock.at if clock else 0, config)
            for episode_type in EPISODE_PATTERN
        ],
    }


def _history(uow: UnitOfWork) -> ConfigHistory:
    """The versions of the database, under the kill switches that are on."""
    versions = sorted(uow.config_versions.values(), key=lambda v: v.version)
    off = [row.scope.removeprefix(CHANNEL) for row in uow.protections.values() if row.blocks]
    return ConfigHistory.from_versions(versions, neutral_channels=[name for name in off if name in CHANNELS])


class _Seen(NamedTuple):
    """What the estimate sees of a key: evidence per slice, what stands, which levers are judged from there."""

    blocks: Blocks
    before: Shifts
    anew: tuple[str, ...]


def _seen(uow: UnitOfWork, episode_type: str) -> _Seen:
    family = family_key("pm", *EPISODE_PATTERN[episode_type])
    rows = ((make_scope(PM_SCHEMA, r.scope_values), r.stats.get("tuning", {})) for r in uow.stats.values(family + "|"))
    blocks = {items: tuning[episode_type] for items, tuning in rows if episode_type in tuning}
    fit = uow.fits.get(family)
    since = fit.detail.get("tuning_since", {}) if fit else {}
    lessons = (x for x in uow.lessons.values() if x.family == family and x.lesson_type == "pm_tuning")
    return _Seen(beside(blocks, since), standing(lessons), tuple(since))


def _key(episode_type: str, seen: _Seen, history: ConfigHistory, at: int, config: LearningConfig) -> dict[str, Json]:
    pattern, blocks = EPISODE_PATTERN[episode_type], seen.blocks
    root, shifts = blocks.get(()), marginal_shifts(episode_type, blocks, config, seen.before, seen.anew)
    return {
        "episode_type": episode_type,
        "pattern_key": pattern.key,
        "action_category": pattern.category,
        "outcomes": dict(root["outcomes"]) if root else {},
        "slices": len(blocks),
        "levers": [
            lever_view(name, bands_of(root, name), config, _place(name, seen)) for name in GATE_LEVERS[episode_type]
        ],
        "shifts": [
            {"scope": dict(items), "lever": name, "shift": shift, "target": LEVERS[name].base + shift}
            for items, levers in shifts.items()
            for name, (shift, _) in levers.items()
        ],
        "in_force": _in_force(episode_type, history, at),
    }


def _place(name: str, seen: _Seen) -> int:
    """Bands from its base at which a gate of the key is judged: where it stands, once older evidence is set aside."""
    stood = seen.before.get((), {}).get(name) if name in seen.anew else None
    row = LEVERS[name]
    return round(stood[0] * row.polarity / (BAND_CAPS * row.cap)) if stood else 0


def bands_of(block: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """The margin bands of one gate in ``stats['tuning'][type]``; empty ones where nothing was seen."""
    found: Mapping[str, Any] = block["levers"].get(name, {}).get("marginal", NO_BANDS) if block else NO_BANDS
    return found


def lever_view(
    name: str, marginal: Mapping[str, Any], config: LearningConfig = DEFAULT, place: int = 0
) -> dict[str, Json]:
    """One gate: its bands, and what the estimate would do.

    >>> found = lever_view("ts_min", bands_of(None, "ts_min"))
    >>> found["move"], found["why_not"]
    (None, 'no chances near it')
    """
    row, move = LEVERS[name], best_move(marginal, config, place=place)
    target = None
    if move is not None:
        target = min(row.hi, max(row.lo, row.base + row.polarity * move.bands * BAND_CAPS * row.cap))
    return {
        "lever": name,
        "base": row.base,
        "cap": row.cap,
        "polarity": row.polarity,
        "bands": [_band(k, marginal, config) for k in range(BANDS)],
        "move": move.bands if move else None,
        "gain_r": move.gain if move else None,
        "target": target,
        "why_not": "" if move else why_not(moves(marginal, config, place), config),
    }


def _band(k: int, marginal: Mapping[str, Any], config: LearningConfig) -> dict[str, Json]:
    """One band: from and to in caps, chances, their mean value, and its standard error were they worth nothing."""
    n = marginal["n"][k]
    spread = math.sqrt(config.tuning_design_effect * marginal["y2"][k])
    low = k * BAND_CAPS - 1.0
    return {
        "from": round(low, 6),
        "to": round(low + BAND_CAPS, 6),
        "n": n,
        "mean_r": marginal["y"][k] / n if n else None,
        "se_r": spread / n if n else None,
    }


def why_not(found: Iterable[Move], config: LearningConfig = DEFAULT) -> str:
    """Why a gate stays: of the moves that would gain something, the one of largest ``gain - sd`` and what it lacks.

    >>> why_not([Move(-1, 3.0, 4.0, 4)])
    'too few: -1 would flip 4 chances, 10 are needed'
    >>> why_not([Move(2, -1.0, 4.0, 40)])
    'no move would gain'
    >>> why_not([Move(2, 1.0, 4.0, 40)])
    'does not stand: +2 would gain 1.00 R, spread 2.00 R'
    """
    known = list(found)
    if not known:
        return "no chances near it"
    gaining = [move for move in known if move.gain > 0]
    if not gaining:
        return "no move would gain"
    enough = [move for move in gaining if move.flipped >= config.marginal_min_flipped]
    best = max(enough or gaining, key=lambda m: m.gain - math.sqrt(m.variance))
    if not enough:
        return f"too few: {best.bands:+d} would flip {best.flipped} chances, {config.marginal_min_flipped} are needed"
    return f"does not stand: {best.bands:+d} would gain {best.gain:.2f} R, spread {math.sqrt(best.variance):.2f} R"


def _in_force(episode_type: str, history: ConfigHistory, at: int) -> list[dict[str, Json]]:
    """Gates at ``at`` everywhere, and in each scope an override of the key names; slopes as on its timeframe."""
    pattern = EPISODE_PATTERN[episode_type]
    version = history.until(at).families.get(Family("pm_tuning", pattern.key, pattern.category))
    scopes: dict[ScopeItems, None] = {(): None}
    if version is not None:
        scopes |= dict.fromkeys(override.scope for override in version.index.overrides)
    rows = []
    for scope in scopes:
        timeframe = str(dict(scope).get("timeframe", "1h"))
        found = apply_pattern_execution_overrides(history, STATE_OF[episode_type], scope, at, timeframe)
        gates = {name: found.signal_thresholds[name] for name in GATE_LEVERS[episode_type]}
        rows.append(
            {
                "scope": dict(scope),
                "gates": gates,
                "moved": sorted(n.lever for n in found.nudges if n.applied != n.base),
            }
        )
    return rows
