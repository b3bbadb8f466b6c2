"""Faults of wiring on the way from closed trades to changed decisions (`wiring_faults`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tools.wiring_faults import after, altered, fault, instead, swap

# ---------------------------------------------------------------- evidence and statistics


@fault("closed trades are no business of the aggregator", "F1", "aggregator")
def closes_not_read() -> None:
    """The kind is missing in the list of what is read."""
    swap("jobs:AGGREGATED", lambda kinds: kinds - {"position_closed"})


@fault("the label of the DM's module is dropped from its evidence", "F1", "aggregator")
def module_label_dropped() -> None:
    """Evidence of allocations goes under the PM's label."""
    after("learning.aggregate:dm_observation", lambda made: altered(made, module="pm") if made else made)


@fault("the aggregator's watermark runs ahead of the log", "F1", "aggregator")
def watermark_ahead() -> None:
    """What was closed before the slot is never read."""

    def ahead(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, name: self.uow.log.head[0] if name == "pattern_scope_aggregator" else old(self, name)

    swap("desk:Desk.watermark", ahead)


@fault("statistics are folded into a table that nobody keeps", "F1", "aggregator")
def statistics_not_kept() -> None:
    """The evidence is written, its sums are not."""

    def apart(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda strands, *, into, **kwargs: altered(old(strands, **kwargs), stats=())

    swap("jobs:aggregate", apart)


@fault("windows that were not entered leave no trace", "F6", "window log")
def misses_not_logged() -> None:
    """learning.md 4: what was skipped although slightly below a threshold could never be observed."""

    def signals_only(old: Callable[..., Any]) -> Callable[..., Any]:
        def told(episode: Any, before: int, envelope: Any) -> Any:
            after_it, strands = old(episode, before, envelope)
            return after_it, [strand for strand in strands if strand.payload.entered]

        return told

    swap("trading.episodes:_tell_windows", signals_only)


@fault("no shadow is opened for a closed window", "F6", "shadows")
def shadows_not_opened() -> None:
    """What a skipped chance would have brought is not known."""
    instead("jobs:open_shadow", None)


@fault("what chances were worth does not reach the statistics of gates", "F6", "aggregator")
def worth_not_folded() -> None:
    """stats['tuning'] stays without its bands."""
    instead("learning.aggregate:_Fold._shadows", None)


# ---------------------------------------------------------------- lessons and documents


@fault("gate lessons are never built", "F6", "lesson builder")
def tuning_not_built() -> None:
    """The third channel is dead."""

    def nothing(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda rows, *rest: old([], *rest)

    swap("jobs:build_tuning", nothing)


@fault("gate lessons do not get into the configuration", "F6", "materializer")
def tuning_not_materialized() -> None:
    """One of three lists is written empty."""

    def without(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda lessons, *args, **kw: old([one for one in lessons if one.lesson_type != "pm_tuning"], *args, **kw)

    swap("jobs:materialize", without)


# ---------------------------------------------------------------- lessons in force


@fault("a new config version is written and not put in force", "F6", "gate resolution")
def cache_never_cleared() -> None:
    """What was read at the start is used for ever."""

    def unread(old: Callable[..., Any]) -> Callable[..., Any]:
        def install(self: Any, version: Any, *args: Any) -> None:
            history = self.history
            old(self, version, *args)
            stale[id(self)] = stale.get(id(self), history)

        return install

    stale: dict[int, Any] = {}
    swap("desk:Desk.install", unread)
    swap("jobs:TickInput", lambda old: lambda **kw: old(**{**kw, "history": _first(stale, kw["history"])}))


def _first(stale: dict[int, Any], newest: Any) -> Any:
    return next(iter(stale.values()), newest)


@fault("the tuning wrapper is missing: gates are not asked of what was learnt", "F6", "gate resolution")
def tuning_wrapper_missing() -> None:
    """Every bar is held to the base gates."""
    _neutral("trading.tick:apply_pattern_execution_overrides")


def _neutral(place: str) -> None:
    """The combiner at a place is asked as if its decision were a holdout."""
    swap(place, lambda old: lambda *args, **kw: old(*args, **{**kw, "holdout": True}))


@fault("gates are resolved after the engine has raised its flags", "F6", "engine")
def gates_after_engine() -> None:
    """The learned thresholds are written down, and the flags are those of the base gates."""
    from edgebook.engine.gates import BASE_GATES

    instead("trading.tick:gates_of", BASE_GATES)


@fault("the plan reads the flags of the base gates", "F6", "PM")
def plan_reads_base_flags() -> None:
    """The engine's learned flag is raised and nobody looks at it."""

    def based(old: Callable[..., Any]) -> Callable[..., Any]:
        def wants(position: Any, reading: Any, report: Any, *rest: Any) -> Any:
            return old(position, reading, altered(report, flags=report.flags_base), *rest)

        return wants

    for rule in ("wants_s1", "wants_s2", "wants_dx", "wants_s3"):
        swap(f"trading.actions:{rule}", based)


# ---------------------------------------------------------------- all three channels (F2), and the way back (F5)


@fault("the lesson builder of the DM is called with the PM's module", "F2", "lesson builder")
def builder_of_one_module() -> None:
    """The seed asks for both; one of them is never built."""
    swap("jobs:build_lessons_from_pattern_scope_stats", lambda old: lambda desk, slot, module: old(desk, slot, "pm"))


@fault("allocation lessons do not get into the configuration", "F2", "materializer")
def alloc_not_materialized() -> None:
    """The list of the DM is written empty."""

    def without(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda lessons, *args, **kw: old([one for one in lessons if one.lesson_type != "dm_alloc"], *args, **kw)

    swap("jobs:materialize", without)


@fault("the allocation wrapper is missing: decisions do not ask what was learnt", "F2", "runtime (dm)")
def alloc_wrapper_missing() -> None:
    """alloc_mult stays 1."""
    _neutral("trading.decision:apply_allocation_overrides")


@fault("alloc_mult is told and not applied", "F2", "runtime (dm)")
def alloc_mult_not_applied() -> None:
    """The strand says 1.3, the position is given 1."""
    swap("trading.decision:allocation", lambda old: lambda base, c, s, mult, rules: old(base, c, s, 1.0, rules))


@fault("the strength wrapper is missing: actions do not ask what was learnt", "F2", "runtime (strength)")
def strength_wrapper_missing() -> None:
    """size_mult stays 1."""
    _neutral("trading.actions:apply_pattern_strength_overrides")


@fault("size_mult is told and not applied", "F2", "runtime (strength)")
def size_mult_not_applied() -> None:
    """The nudge stands on the action, the size is that of the base."""
    from edgebook.overrides.combine import Strength

    swap("trading.actions:size_of", lambda old: lambda *args: old(*args[:4], Strength(), *args[5:]))


@fault("a muted lesson goes on acting", "F5", "gate resolution")
def mute_not_heard() -> None:
    """An operator's act changes the documents and nothing else."""

    def deaf(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda overrides: old(tuple(altered(one, enabled=True) for one in overrides))

    swap("overrides.history:MatchIndex", deaf)


@fault("a lesson that was withdrawn stays in the configuration", "F2", "materializer")
def lesson_never_withdrawn() -> None:
    """Nothing relaxes to base."""
    swap("learning.materialize:ACTING", lambda acting: {*acting, "deprecated", "candidate", "retired"})
