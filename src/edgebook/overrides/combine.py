"""Overrides to numbers: blend all matches, then slew along the version history, and say why (decisions 13-15, 26, 46).

Everything is computed as a displacement from base: logs for multipliers, differences for gates. For the versions k of a
family, in force from epoch e_k, with T_k the clamped blend of the matching targets::

    T_k = clip(sum of d_i * c_i * x_i, bounds)          x_i = ln target_i, or target_i - base
    v   = v + clip(T_k - v, ± (e_{k+1} - e_k) * step)

The last interval ends now; v starts at 0. d_i = 2^(-age / half_life), taken at the end of the interval; from a pin on
it stays what it was in the hour of the pin. c_i is the conviction of a lesson that asks for more than its bound (1 for
all others). What is muted counts in no interval (`history`). An epoch is one hour, and
time enters only through it, so a question asked once or a thousand times within the hour has one answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from edgebook.domain.decay import HOUR, decay
from edgebook.domain.errors import OverrideError
from edgebook.domain.levers import LEGACY_NEUTRAL, Lever
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY, S3_RETEST, Pattern
from edgebook.domain.scope import ScopeItems
from edgebook.domain.strands import MatchedOverride, Nudge
from edgebook.overrides.history import ConfigHistory, FamilyVersion
from edgebook.overrides.match import conviction, overlap_shares, weight
from edgebook.overrides.record import Family, Override, levers_of

#: Epochs after which any lever has reached its target: ln 3 / ln 1.02 = 55.5 (decisions 15).
RESTART_EPOCHS = 56
_SNAP = 1e-12  # displacement below which opposite lessons have cancelled
_MEMO_LIMIT = 20_000

_S1 = Family("pm_tuning", S1_ENTRY.key, S1_ENTRY.category)
_S3 = Family("pm_tuning", S3_RETEST.key, S3_RETEST.category)
_ALLOCATION = Family("dm_alloc", DM_ALLOCATION.key, DM_ALLOCATION.category)
_GATE_FAMILY: dict[str, Family] = {"S1": _S1, "S3": _S3}
_BASE_THRESHOLDS: dict[str, float] = {
    row.name: row.base for family in (_S1, _S3) for row in levers_of(family.lesson_type, family.action_category)
}
_LEGACY: Mapping[str, float] = MappingProxyType(dict(LEGACY_NEUTRAL))


@dataclass(frozen=True, slots=True)
class Applied:
    """Allocation multiplier in [.7, 1.3], and why."""

    alloc_mult: float = 1.0
    nudges: tuple[Nudge, ...] = ()
    config_version: int = 0


@dataclass(frozen=True, slots=True)
class Strength:
    """Size multiplier in [.5, 1.5], aggression multipliers in [.8, 1.2], and why."""

    size_mult: float = 1.0
    entry_aggression_mult: float = 1.0
    exit_aggression_mult: float = 1.0
    nudges: tuple[Nudge, ...] = ()
    config_version: int = 0


@dataclass(frozen=True, slots=True)
class PlanControls:
    """What the plan of one bar is held to (mission 3 and 5.2).

    Attributes:
        signal_thresholds: every gate in its natural unit at the bar's timeframe, those at base included (read-only).
        legacy: retired knobs, neutral whatever a config says (read-only).
    """

    signal_thresholds: Mapping[str, float]
    legacy: Mapping[str, float] = field(default_factory=lambda: _LEGACY)
    nudges: tuple[Nudge, ...] = ()
    config_version: int = 0


def apply_allocation_overrides(history: ConfigHistory, scope: ScopeItems, at: int, *, holdout: bool = False) -> Applied:
    """The allocation multiplier of a decision (mission 1; decisions 13-15).

    Args:
        history: config versions; later ones than ``at`` are not looked at.
        scope: DM scope as made by ``make_scope``.
        at: time of the decision, microseconds UTC.
        holdout: True leaves the decision exactly neutral (decisions 6).

    >>> apply_allocation_overrides(ConfigHistory(), (("curator", "x"),), 0)
    Applied(alloc_mult=1.0, nudges=(), config_version=0)
    """
    history = history.until(at)
    version = history.families.get(_ALLOCATION)
    if holdout or version is None or "dm" in history.neutral_channels:
        return _neutral_allocation(history.current_version)
    key = ("dm", scope, at // HOUR)
    found: Applied | None = history.memo.get(key)
    if found is None:
        if history.flags.allow("dm", _checked(scope)):
            values, nudges = _resolve(history, version, scope, at // HOUR, "1h")
            found = Applied(values["alloc_mult"], nudges, history.current_version)
        else:
            found = _neutral_allocation(history.current_version)
        _remember(history, key, found)
    return found


def apply_pattern_strength_overrides(
    history: ConfigHistory, pattern: Pattern, scope: ScopeItems, at: int, *, holdout: bool = False
) -> Strength:
    """Size and aggression multipliers of an action (mission 2; decisions 13-15, 21).

    Which multipliers can move depends on the category: ``size_mult`` and ``entry_aggression_mult`` for entry and add,
    ``exit_aggression_mult`` for trim, none for exit.

    Args:
        history: config versions; an open trade's exits pass ``history.as_of(pinned version)``.
        pattern: pattern key and category of the action.
        scope: PM scope as made by ``make_scope``.
        at: close of the bar, microseconds UTC.
        holdout: True leaves the action exactly neutral.
    """
    history = history.until(at)
    version = history.families.get(Family("pm_strength", pattern[0], pattern[1]))
    if holdout or version is None or "strength" in history.neutral_channels:
        return _neutral_strength(history.current_version)
    key = (pattern, scope, at // HOUR)
    found: Strength | None = history.memo.get(key)
    if found is None:
        if history.flags.allow("pm", _checked(scope)):
            values, nudges = _resolve(history, version, scope, at // HOUR, "1h")
            found = Strength(**values, nudges=nudges, config_version=history.current_version)
        else:
            found = _neutral_strength(history.current_version)
        _remember(history, key, found)
    return found


def apply_pattern_execution_overrides(
    history: ConfigHistory, state: str, scope: ScopeItems, at: int, timeframe: str, *, holdout: bool = False
) -> PlanControls:
    """The gates of a bar, to be resolved before the engine evaluates them (mission 3; decisions 7, 26).

    S1 reads the tuning of (``uptrend.S1.buy_flag``, entry), S3 that of (``uptrend.S3.dx``, add); every other state is
    at base.

    Args:
        history: config versions; later ones than ``at`` are not looked at.
        state: engine state after this bar's transition, ``"S0"``..``"S4"``.
        scope: PM scope as made by ``make_scope``.
        at: close of the bar, microseconds UTC.
        timeframe: timeframe of the bar; slope gates scale with sqrt(timeframe / 1h).
        holdout: True leaves every gate at base.

    >>> apply_pattern_execution_overrides(ConfigHistory(), "S1", (), 0, "4h").signal_thresholds["ts_min"]
    0.6
    """
    history = history.until(at)
    family = _GATE_FAMILY.get(state)
    version = history.families.get(family) if family is not None else None
    if holdout or version is None or "tuning" in history.neutral_channels:
        return _neutral_controls(history.current_version)
    key = (state, timeframe, scope, at // HOUR)
    found: PlanControls | None = history.memo.get(key)
    if found is None:
        if history.flags.allow("pm", _checked(scope)):
            values, nudges = _resolve(history, version, scope, at // HOUR, timeframe)
            thresholds = MappingProxyType({**_BASE_THRESHOLDS, **values})
            found = PlanControls(thresholds, nudges=nudges, config_version=history.current_version)
        else:
            found = _neutral_controls(history.current_version)
        _remember(history, key, found)
    return found


# ------------------------------------------------------------------------------------------------------------ neutral


@lru_cache(maxsize=256)
def _neutral_allocation(version: int) -> Applied:
    return Applied(config_version=version)


@lru_cache(maxsize=256)
def _neutral_strength(version: int) -> Strength:
    return Strength(config_version=version)


@lru_cache(maxsize=256)
def _neutral_controls(version: int) -> PlanControls:
    return PlanControls(MappingProxyType(dict(_BASE_THRESHOLDS)), config_version=version)


def _checked(scope: ScopeItems) -> ScopeItems:
    for dim, value in scope:
        if type(value) is not str and type(value) is not int:
            raise OverrideError(f"scope value of {dim} must be text or a whole number, was {value!r}; use make_scope")
    return scope


def _remember(history: ConfigHistory, key: tuple[object, ...], result: object) -> None:
    if len(history.memo) >= _MEMO_LIMIT:
        history.memo.clear()
    history.memo[key] = result


# ---------------------------------------------------------------------------------------------------- blend, then slew


class _Derived:
    """Per-override numbers of a family version, in the order of its index."""

    __slots__ = (
        "convictions",
        "frozen",
        "half_lives",
        "levers",
        "limits",
        "pulls",
        "scopes",
        "seen_at",
        "steps",
        "weights",
    )

    def __init__(self, version: FamilyVersion) -> None:
        overrides = version.index.overrides
        self.levers: tuple[Lever, ...] = levers_of(version.family.lesson_type, version.family.action_category)
        self.limits = tuple((_displacement(row, row.lo), _displacement(row, row.hi)) for row in self.levers)
        self.steps = tuple(row.step for row in self.levers)
        self.pulls = [tuple(_pull(row, override) for row in self.levers) for override in overrides]
        self.convictions = [conviction(override) for override in overrides]
        self.half_lives = [override.half_life_hours for override in overrides]
        self.seen_at = [override.evidence_at / HOUR for override in overrides]
        self.weights = [weight(override) for override in overrides]
        self.scopes = [dict(override.scope) for override in overrides]
        #: Position of each pinned override -> epoch of its pin.
        self.frozen = {i: o.pinned_at // HOUR for i, o in enumerate(overrides) if o.pinned_at is not None}


def _displacement(row: Lever, value: float) -> float:
    return math.log(value) if row.log_blend else value - row.base


def _pull(row: Lever, override: Override) -> float | None:
    target = override.targets.get(row.name)
    if target is None:
        return None
    if row.log_blend:
        return math.log(target)
    return target - override.base_at_fit.get(row.name, row.base)


def _derived(version: FamilyVersion) -> _Derived:
    found: _Derived | None = version.derived
    if found is None:
        found = version.derived = _Derived(version)
    return found


def _matched(version: FamilyVersion, scope: ScopeItems) -> tuple[int, ...]:
    found = version.matched.get(scope)
    if found is None:
        if len(version.matched) >= _MEMO_LIMIT:
            version.matched.clear()
        found = version.matched[scope] = tuple(version.index.positions(scope))
    return found


def _decays(derived: _Derived, positions: Sequence[int], epoch: int) -> list[float]:
    seen_at, half_lives, frozen = derived.seen_at, derived.half_lives, derived.frozen
    if frozen:
        return [decay(min(epoch, frozen.get(i, epoch)) - seen_at[i], half_lives[i]) for i in positions]
    return [decay(epoch - seen_at[i], half_lives[i]) for i in positions]


def _blend(version: FamilyVersion, positions: Sequence[int], decays: Sequence[float]) -> tuple[float, ...]:
    """T: the clamped blend of the matches, one displacement per lever.

    Sums are exactly rounded (``fsum``), so the order of matches cannot show; what is left of opposite lessons is 0.
    """
    derived = _derived(version)
    if version.blend == "average":
        sums = _averages(version, positions, decays)
    else:
        pulls, sure = derived.pulls, derived.convictions
        pairs = list(zip(positions, decays, strict=True))
        sums = [
            math.fsum([d * sure[i] * (pulls[i][lever] or 0.0) for i, d in pairs])
            for lever in range(len(derived.levers))
        ]
    clamped: list[float] = []
    for total, (lo, hi) in zip(sums, derived.limits, strict=True):
        clamped.append(0.0 if -_SNAP < total < _SNAP else min(max(total, lo), hi))
    return tuple(clamped)


def _averages(version: FamilyVersion, positions: Sequence[int], decays: Sequence[float]) -> list[float]:
    """Decisions 14: ``sum w_i d_i x_i / sum w_i`` over the overrides that name the lever, w discounted for overlap."""
    derived = _derived(version)
    sums: list[float] = []
    for lever in range(len(derived.levers)):
        having = [(i, d) for i, d in zip(positions, decays, strict=True) if derived.pulls[i][lever] is not None]
        shares = overlap_shares([version.index.overrides[i] for i, _ in having])
        weights = [derived.weights[i] * share for (i, _), share in zip(having, shares, strict=True)]
        total = math.fsum(weights)
        pulled = math.fsum(w * d * (derived.pulls[i][lever] or 0.0) for w, (i, d) in zip(weights, having, strict=True))
        sums.append(pulled / total if total > 0 else 0.0)
    return sums


def blended(version: FamilyVersion, scope: ScopeItems, epoch: int) -> tuple[float, ...]:
    """The target T of each lever of the family in ``scope``, decayed to ``epoch``, before any slew; a displacement
    from base.
    """
    positions = _matched(version, scope)
    return _blend(version, positions, _decays(_derived(version), positions, epoch))


def _slew(start: Sequence[float], target: Sequence[float], steps: Sequence[float], epochs: int) -> tuple[float, ...]:
    """``start`` moved toward ``target`` by at most ``epochs`` steps; exactly the target where that suffices."""
    moved: list[float] = []
    for v, t, step in zip(start, target, steps, strict=True):
        most = epochs * step
        moved.append(t if abs(t - v) <= most else v + math.copysign(most, t - v))
    return tuple(moved)


def _entered(version: FamilyVersion, scope: ScopeItems) -> tuple[float, ...]:
    """Displacement at the moment ``version`` came into force.

    The slew never lets a higher value fall below a lower one, so where the paths from both bounds have met, every path
    has: walking back some 56 epochs usually decides it exactly, however often the config changed before.
    """
    known = version.entered.get(scope)
    if known is not None:
        return known
    limits, steps, span = _derived(version).limits, _derived(version).steps, RESTART_EPOCHS
    while True:
        chain, start = _walk_back(version, scope, span)
        low = start if start is not None else tuple(lo for lo, _ in limits)
        high = start if start is not None else tuple(hi for _, hi in limits)
        for before, later in reversed(chain):
            target, epochs = blended(before, scope, later.epoch), later.epoch - before.epoch
            met = low == high
            low = _slew(low, target, steps, epochs)
            high = low if met else _slew(high, target, steps, epochs)
        if low == high:
            break
        span *= 2
    if len(version.entered) >= _MEMO_LIMIT:
        version.entered.clear()
    version.entered[scope] = low
    return low


def _walk_back(
    version: FamilyVersion, scope: ScopeItems, span: int
) -> tuple[list[tuple[FamilyVersion, FamilyVersion]], tuple[float, ...] | None]:
    """Pairs (before, later), newest first, over at least ``span`` epochs or back to a known displacement, and that."""
    chain: list[tuple[FamilyVersion, FamilyVersion]] = []
    current = version
    while current.previous is not None:
        before = current.previous
        chain.append((before, current))
        known = before.entered.get(scope)
        if known is not None or version.epoch - before.epoch >= span:
            return chain, known
        current = before
    return chain, (0.0,) * len(_derived(version).levers)


def _resolve(
    history: ConfigHistory, version: FamilyVersion, scope: ScopeItems, epoch: int, timeframe: str
) -> tuple[dict[str, float], tuple[Nudge, ...]]:
    """Applied value of every lever of the family, and a nudge for each lever that is matched or still on its way to
    base.
    """
    derived = _derived(version)
    positions = _matched(version, scope)
    decays = _decays(derived, positions, epoch)
    target = _blend(version, positions, decays)
    epochs = epoch - version.epoch
    if history.mode.step_mode == "displacement":
        applied = _slew((0.0,) * len(target), target, derived.steps, 1)
    elif epochs >= RESTART_EPOCHS:
        applied = target
    else:
        applied = _slew(_entered(version, scope), target, derived.steps, epochs)
    values: dict[str, float] = {}
    nudges: list[Nudge] = []
    for lever, row in enumerate(derived.levers):
        values[row.name] = _natural(row, applied[lever], timeframe)
        matched = _because(version, lever, positions, decays, timeframe)
        if matched or applied[lever]:
            base = _natural(row, 0.0, timeframe)
            nudges.append(Nudge(row.name, base, values[row.name], _natural(row, target[lever], timeframe), matched))
    return values, tuple(nudges)


def _because(
    version: FamilyVersion, lever: int, positions: Sequence[int], decays: Sequence[float], timeframe: str
) -> tuple[MatchedOverride, ...]:
    """The matches that name the lever, with their target at ``timeframe``, decay and weight."""
    derived, overrides = _derived(version), version.index.overrides
    name, scale = derived.levers[lever].name, _scale(derived.levers[lever], timeframe)
    found: list[MatchedOverride] = []
    for i, decayed in zip(positions, decays, strict=True):
        if derived.pulls[i][lever] is not None:
            o = overrides[i]
            targets = {name: o.targets[name] * scale}
            found.append(
                MatchedOverride(
                    o.lesson_id,
                    derived.scopes[i],
                    o.status,
                    targets,
                    decayed,
                    derived.weights[i],
                    derived.convictions[i],
                )
            )
    return tuple(found)


def _natural(row: Lever, displacement: float, timeframe: str) -> float:
    """The lever's value in its own unit at ``timeframe``; exactly base for displacement 0, never outside the bounds."""
    if displacement == 0.0:
        return row.base * _scale(row, timeframe)
    value = math.exp(displacement) if row.log_blend else row.base + displacement
    return min(max(value, row.lo), row.hi) * _scale(row, timeframe)


def _scale(row: Lever, timeframe: str) -> float:
    """sqrt(timeframe / 1h) for scaled levers, else 1: the ratio of the table's steps, so table and targets cannot
    disagree.
    """
    return row.at(timeframe).step / row.step if row.scaled else 1.0
