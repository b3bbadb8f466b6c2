"""Faults of wiring that the flow campaign must name: each breaks one place of the imported system, and nothing else.

They are drawn from the list of what has gone wrong in systems of this kind (trading.md 9, learning.md).
A fault is put in after import and before the command line starts, so that everything around it is the real system. Its
scenarios are those that must catch it; its stages are right answers to the question where the packet died.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Break = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        broken: what is broken, in one sentence.
        stages: stages at which a packet may be said to have died; usually one.
        scenarios: scenarios of which each must catch it.
        put_in: breaks the imported system.
        says: a text that the sentence must hold, "" for none.
    """

    name: str
    broken: str
    stages: frozenset[str]
    scenarios: tuple[str, ...]
    put_in: Break
    says: str = ""


FAULTS: dict[str, Fault] = {}


def fault(broken: str, scenarios: str, *stages: str, says: str = "") -> Callable[[Break], Break]:
    """Register a fault under the name of its function; scenarios are separated by spaces."""

    def register(put_in: Break) -> Break:
        name = put_in.__name__
        assert name not in FAULTS, f"{name} is there twice"
        FAULTS[name] = Fault(name, broken, frozenset(stages), tuple(scenarios.split()), put_in, says)
        return put_in

    return register


def swap(place: str, made: Callable[[Any], Any]) -> None:
    """Put ``made(old)`` in the place of ``module:name`` or ``module:Class.name``; the package's name is left out.

    Raises:
        AttributeError: there is nothing at that place.
    """
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(f"edgebook.{module}")
    *owners, name = path.split(".")
    for step in owners:
        owner = getattr(owner, step)
    setattr(owner, name, made(getattr(owner, name)))


def after(place: str, change: Callable[[Any], Any]) -> None:
    """Whatever the function at ``place`` gives back is changed."""
    swap(place, lambda old: lambda *args, **kwargs: change(old(*args, **kwargs)))


def instead(place: str, result: Any) -> None:
    """The function at ``place`` does nothing and gives back ``result``."""
    swap(place, lambda old: lambda *args, **kwargs: result)


def altered(row: Any, **changes: Any) -> Any:
    """A frozen row with other values."""
    from edgebook.domain.values import replace

    return replace(row, **changes)


def _never_due(*names: str) -> None:
    """The jobs stand in the table, and their slots never come."""

    def quiet(old: Callable[..., Iterable[Any]]) -> Callable[..., Iterable[Any]]:
        return lambda self, end: (pair for pair in old(self, end) if pair[1].name not in names)

    swap("runtime.timetable:Timetable.until", quiet)


# ---------------------------------------------------------------- jobs, log, database


@fault("the aggregator is missing in the table of jobs", "F0", "system", says="pattern_scope_aggregator")
def job_missing() -> None:
    """The system must refuse to start."""

    def without(old: Callable[..., Any]) -> Callable[..., Any]:
        from edgebook.jobs import JOBS

        return lambda at: old(at, tuple(job for job in JOBS if job.name != "pattern_scope_aggregator"))

    swap("runtime.scheduler:start_pm_jobs", without)


@fault("the slots of the aggregator never come", "F0", "scheduler", says="pattern_scope_aggregator")
def aggregator_unscheduled() -> None:
    """A job that is in the table and is not run."""
    _never_due("pattern_scope_aggregator")


@fault("the slots of the DM's lesson builder never come", "F0", "scheduler", says="lesson_builder_dm")
def dm_builder_unscheduled() -> None:
    """One of four learning jobs is not run."""
    _never_due("lesson_builder_dm")


@fault("the aggregator raises on every strand", "F0", "scheduler", says="failed")
def aggregator_raises() -> None:
    """A job that fails must be seen as failed."""

    def raises(*_: Any, **__: Any) -> None:
        raise RuntimeError("planted: the aggregator cannot read")

    swap("jobs:aggregate", lambda old: raises)


@fault("the aggregator raises, and the failure is swallowed", "F1", "aggregator")
def failure_swallowed() -> None:
    """trading.md 9.3: handlers that return neutral values."""

    def swallowed(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda desk, slot: {}

    swap("runtime.system:System.run_job", lambda old: _swallowing(old, swallowed))


def _swallowing(old: Callable[..., Any], made: Callable[..., Any]) -> Callable[..., Any]:
    import dataclasses

    def run_job(self: Any, job: Any, slot: int) -> None:
        if job.name == "pattern_scope_aggregator":
            job = dataclasses.replace(job, run=made(job.run))
        old(self, job, slot)

    return run_job


@fault("the hash of the settings is not written", "F0", "config")
def settings_not_written() -> None:
    """A database that does not say under which settings it was written."""
    instead("runtime.bootstrap:_same_settings", None)


@fault("commits write nothing", "F1", "ingest")
def commit_lost() -> None:
    """Everything stays in the process's memory."""
    instead("adapters.sql:_SqlBackend.save", None)


# ---------------------------------------------------------------- signal and decision


@fault("signals lose the tag dm_candidate", "F1", "ingest")
def candidate_tag_dropped() -> None:
    """The mark by which the DM knows what asks for a buy."""
    after("jobs:signal_strand", lambda strand: altered(strand, tags=()))


@fault("nobody decides a signal after it was ingested", "F1", "DM")
def signals_not_decided() -> None:
    """The call of the decision maker is missing."""
    instead("runtime.system:decision_maker", {})


@fault("an appetite mode of the PM slips into the scope of decisions", "F1", "DM")
def pm_dims_leak() -> None:
    """Module labels are there so that neither half learns from the other's circumstances."""
    after("jobs:decide", lambda made: altered(made, strands=(_leaky(made.strands[0]), *made.strands[1:])))


def _leaky(strand: Any) -> Any:
    return altered(strand, scope={**strand.scope, "A_mode": "normal"})


@fault("a decision reaches the position of one timeframe only", "F1", "DM fan-out")
def one_timeframe_only() -> None:
    """The other positions are never made."""
    after("trading.decision:_open_to_it", lambda timeframes: timeframes[:1])


@fault("each position is given the whole allocation of its decision", "F1", "DM fan-out")
def splits_not_applied() -> None:
    """The splits of the timeframes never reach the positions."""
    after("trading.decision:timeframe_splits", lambda splits: dict.fromkeys(splits, 1.0))


@fault("approved decisions are not kept as rows", "F1", "DM fan-out")
def decision_row_lost() -> None:
    """A strand without its projection."""

    def without(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda uow, strand, opening: None if strand.kind == "decision_lowcap" else old(uow, strand, opening)

    swap("desk:project", without)


@fault("what the PM does no longer says which signal it comes from", "F1", "telemetry")
def packet_lost() -> None:
    """The correlation id is dropped on the way from position to strand."""
    after("trading.tick:_envelope", lambda envelope: _without_packet(envelope))


def _without_packet(envelope: Any) -> Any:
    envelope.correlation_id = ""
    return envelope


# ---------------------------------------------------------------- engine reading and episodes


@fault("changes of state are not told", "F1", "episode open")
def transition_dropped() -> None:
    """The tick sees them, and its strands do not arrive."""
    after("jobs:tick", lambda result: _without(result, "uptrend_stage_transition"))


def _without(result: Any, kind: str) -> Any:
    result.strands = tuple(strand for strand in result.strands if strand.kind != kind)
    return result


@fault("episodes are never opened", "F1", "episode open")
def episodes_not_opened() -> None:
    """The code of episodes is there and never called, as in the reference."""
    instead("trading.episodes:_open_episode", None)


@fault("the action does not know of the window it enters", "F1", "windows")
def window_not_entered() -> None:
    """A window that was entered counts as skipped."""
    swap("trading.tick:note_planned", lambda old: lambda memory, action_id, ts: memory)


@fault("an episode never sees that S3 was reached", "F1", "episode close")
def outcome_blind() -> None:
    """Every entered episode is a failure."""
    swap("trading.episodes:_verdict", lambda old: lambda entered, reached: old(entered, False))


# ---------------------------------------------------------------- actions, orders, money


@fault("the S1 buy signal never becomes a plan", "F1", "PM plan")
def s1_never_planned() -> None:
    """Rule 5 is not asked."""
    instead("trading.actions:wants_s1", False)


@fault("actions are written under an empty pattern key", "F1", "PM plan")
def pattern_key_dropped() -> None:
    """Learning could not tell one action from another."""
    after("trading.tick:_action", lambda strand: altered(strand, payload=altered(strand.payload, pattern_key="")))


@fault("open orders are never settled", "F1", "executor")
def orders_not_settled() -> None:
    """The call of the broker is missing."""
    instead("runtime.system:settle_orders", {})


@fault("fills do not reach the position", "F1", "ledger")
def fill_not_booked() -> None:
    """The order is filled, the ledger does not know."""
    swap("projections:POSITION_KINDS", lambda kinds: kinds - {"order_filled"})


@fault("fills do not move the cash", "F1", "ledger")
def cash_not_booked() -> None:
    """Tokens for nothing."""
    swap("projections:evolve_account", lambda old: lambda account, strand: account)


@fault("a trim's proceeds do not reach the pool", "F1", "PM trim")
def trim_pool_lost() -> None:
    """What was taken out cannot be bought back."""
    swap("trading.position:_sold", _without_pool)


def _without_pool(old: Callable[..., Any]) -> Callable[..., Any]:
    def sold(position: Any, fill: Any, *rest: Any) -> Any:
        found = old(position, fill, *rest)
        return altered(found, pool=position.pool) if fill.rule == 3 else found

    return sold


@fault("the zone of DX buys is turned round", "F1", "PM S3")
def dx_zone_inverted() -> None:
    """trading.md 9.17: above EMA144 instead of below."""

    def outside(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda reading, report: report.flags.buy_flag and reading.price > reading.ema144

    swap("trading.actions:in_dx_zone", outside)


@fault("an add begins a trade of its own", "F1", "PM S3")
def add_leaves_trade() -> None:
    """The trade id of the position is not passed on."""
    after("trading.tick:_action", lambda strand: _tradeless(strand))


def _tradeless(strand: Any) -> Any:
    return altered(strand, trade_id="") if strand.payload.decision_type == "add" else strand


@fault("the memory of an emergency exit is written at planning, not at its fill", "F1", "exit")
def emergency_forgotten() -> None:
    """trading.md 9.5: what was stamped is overwritten, so nothing can be bought back."""

    def forgets(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda position, fill, *rest: position if fill.rule == 2 else old(position, fill, *rest)

    swap("trading.position:_sold", forgets)


@fault("emergency exits are never planned", "F1", "exit")
def no_emergency_exit() -> None:
    """Rule 2 is not asked."""
    instead("trading.actions:wants_emergency", False)


@fault("the closing action is missing from the closed trade", "F1", "closure")
def closing_action_missing() -> None:
    """trading.md 9.10: closed before the last strand was written."""

    def early(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda position, *args, **kw: old(altered(position, actions=position.actions[:-1]), *args, **kw)

    swap("jobs:closure", early)


@fault("a finished trade is never closed", "F1", "closure")
def never_closed() -> None:
    """The call of the closing is missing."""
    instead("jobs:_close", None)


@fault("fees are left out of the profit of a trade", "F1", "ledger")
def fees_left_out() -> None:
    """trading.md 9.14: the learned edge is too high."""
    after("trading.settle:close_trade", lambda summary: altered(summary, pnl_usd=summary.pnl_usd + summary.fees_usd))


# ---------------------------------------------------------------- the gates of the DM (F3)


@fault("the registry of curators is not read", "F3", "registry")
def registry_not_read() -> None:
    """Nobody is known, everybody is testing."""
    instead("runtime.bootstrap:register_curators", {})


@fault("ids of signals are made anew at each delivery", "F3", "ingest")
def signal_ids_by_count() -> None:
    """trading.md 9.7: the same message twice is two signals."""
    numbers = itertools.count()
    after("jobs:signal_strand", lambda strand: altered(strand, id=f"{strand.id}-{next(numbers)}"))


@fault("signals of chains nobody can trade on pass", "F3", "DM gate supported_chain")
def chain_gate_open() -> None:
    """The gate is evaluated and never closes."""
    after("trading.decision:approval_gates", lambda gates: (altered(gates[0], passed=True), *gates[1:]))


@fault("what is known of a curator does not reach the decision", "F3", "DM gate curator_score")
def curator_not_passed_on() -> None:
    """trading.md 9.19: a learning input that never reaches its consumer."""
    swap("jobs:decide", lambda old: lambda signal, **kw: old(signal, **{**kw, "curator": None}))


@fault("the DM does not see that a token is held", "F3", "DM gate not_already_holding")
def holding_not_seen() -> None:
    """A second decision takes over a running trade."""
    instead("trading.decision:_occupied", False)


@fault("open positions are not counted", "F3", "DM gate portfolio_capacity")
def capacity_not_counted() -> None:
    """A full book looks empty."""
    swap("desk:Desk.active_positions", lambda old: property(lambda self: 0))


@fault("a decision that waited is forgotten when the trade closes", "F3", "DM pending")
def pending_forgotten() -> None:
    """Decided, and never taken up."""
    swap("jobs:closure", lambda old: lambda position, path, **kw: old(position, path, **{**kw, "pending": None}))


@fault("closed trades do not count for their curators", "F3", "curators")
def curators_frozen() -> None:
    """trading.md 1.1: every score stays what it was at first."""

    def frozen(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda row, strand: row if strand.kind == "position_closed" else old(row, strand)

    swap("projections:evolve_curator", frozen)


# ---------------------------------------------------------------- edges of the PM (F4, F8, F9)


@fault("limits are not applied to buys", "F4", "risk caps")
def caps_not_applied() -> None:
    """Learning or a large allocation could spend the whole book."""

    def uncapped(old: Callable[..., Any]) -> Callable[..., Any]:
        def limit(wanted: Any, *rest: Any) -> Any:
            return altered(old(wanted, *rest), notional_usd=wanted, caps=())

        return limit

    swap("trading.actions:limit_buy", uncapped)


@fault("the memory of an S1 entry is written when it is planned", "F4", "PM memory")
def memory_before_fill() -> None:
    """trading.md 9.5: an order that came to nothing uses up the attempt."""

    def early(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda position, strand: altered(old(position, strand), s1_used=strand.payload.rule == 5)

    _fold("PmAction", early)


def _fold(payload: str, made: Callable[[Any], Any]) -> None:
    """Another fold of one kind of strand into a position."""
    from edgebook.domain import strands

    kind = getattr(strands, payload)
    swap("trading.position:_FOLDS", lambda folds: {**folds, kind: made(folds[kind])})


@fault("trims never cool down", "F4", "PM trim")
def trim_cooldown_dead() -> None:
    """trading.md 9.17: a rule that exists only on paper."""
    instead("trading.actions:trim_cooled", True)


@fault("what a partial fill left is forgotten", "F4", "PM memory")
def rest_forgotten() -> None:
    """trading.md 9.11: sold counts as requested."""
    instead("trading.position:_left", None)


@fault("what a partial fill left is never ordered", "F4", "PM completion")
def rest_never_ordered() -> None:
    """It waits until it lapses."""
    instead("trading.completion:still_wanted", False)


@fault("an exit that failed is not tried again", "F4", "PM exit")
def exit_not_retried() -> None:
    """The position sleeps until something else wakes it."""
    instead("desk:restless", False)


@fault("the S1 entry is used up for the life of a position", "F4", "PM plan")
def s1_once_per_life() -> None:
    """trading.md 9.17: a new attempt does not begin anew."""
    swap("trading.position:_UNTOUCHED", lambda fresh: {k: v for k, v in fresh.items() if k != "s1_used"})


@fault("a reclaim of EMA333 is never bought", "F4", "reclaim")
def reclaim_never_bought() -> None:
    """trading.md 9.5: the gate of the rebuy is dead."""
    swap("trading.actions:wants_reclaim", lambda old: lambda position, reading, rules: False)


@fault("a reclaim is bought as often as it is seen", "F4", "reclaim")
def reclaim_bought_again() -> None:
    """The rebuy does not use itself up."""

    def again(old: Callable[..., Any]) -> Callable[..., Any]:
        def wants(position: Any, reading: Any, rules: Any) -> bool:
            return bool(rules.reclaim_enabled and reading.reclaimed_ema333 and position.emergency.exit_value > 0)

        return wants

    swap("trading.actions:wants_reclaim", again)


@fault("the rungs of a DX ladder have no distance", "F8", "pool")
def rungs_without_distance() -> None:
    """The pool is spent at one price; the place of the next rung is part of the pool."""

    def flat(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda position, fill, planned: old(position, fill, altered(planned, step=0.0))

    swap("trading.position:_RULE_BUYS", lambda rules: {**rules, 7: flat(rules[7])})


@fault("what a trade has paid back does not slow its trims", "F8", "PM trim")
def payback_ignored() -> None:
    """trading.md 9.17: multipliers that are never reached."""
    instead("trading.plan:payback", 0.0)


@fault("a block is never cleared", "F9", "PM block")
def block_never_cleared() -> None:
    """trading.md 9.17: one lost attempt bars a position for ever."""

    def keeps(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda position, strand: altered(old(position, strand), blocked=position.blocked)

    _fold("StageTransition", keeps)
