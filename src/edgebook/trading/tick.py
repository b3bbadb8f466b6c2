"""One bar, one position: the stages in order, no rule of its own (trading.md 3.1).

transition -> A and E with the token's intents -> gates resolved -> flags -> episodes and windows -> plan -> risk ->
action and its order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgebook.domain.book import Order, PmMemory, Position
from edgebook.domain.ids import stable_id
from edgebook.domain.reading import AFTER, DIP, EMERGENCY, MOVE, RETEST, TRIM, WINDOW, MarketReading
from edgebook.domain.regime import Regime
from edgebook.domain.strands import PmAction, PmSkipped, StageTransition, Strand
from edgebook.domain.timeframe import micros
from edgebook.domain.values import replace
from edgebook.engine.gates import BASE_GATES, Gates, evaluate
from edgebook.market.appetite import Pair, leaning
from edgebook.market.appetite_models import Exposure
from edgebook.overrides.combine import PlanControls, apply_pattern_execution_overrides
from edgebook.overrides.history import ConfigHistory
from edgebook.trading.actions import PlannedAction, Reason, Situation, Skip
from edgebook.trading.completion import completable, lapse, plan_bar
from edgebook.trading.envelope import Envelope, arms_of, pm_scope
from edgebook.trading.episodes import note_planned, note_skipped, open_window_id, track
from edgebook.trading.position import attempt_id, evolve
from edgebook.trading.projections import order_of
from edgebook.trading.protections import OPEN, Guard
from edgebook.trading.risk import BookView
from edgebook.trading.rules import TradingRules
from edgebook.trading.settle import closure as closure
from edgebook.trading.settle import fill as fill
from edgebook.trading.settle import over
from edgebook.trading.settle import restless as restless

#: A paused position is ticked too: its exits go on, and its attempts are followed.
LIVE = ("watchlist", "active", "closing", "paused")
_SECOND = 1_000_000


@dataclass(slots=True)
class TickInput:
    """Everything one tick may look at.

    Attributes:
        reading: the engine's reading of the bar that has just closed.
        book, liquidity_usd: asked only when an order is planned; liquidity is the trailing 24 h USD volume where no
            pool is known.
        bar_volume_usd: traded USD of the decision bar.
        correlation_id: the signal of the position's decision.
        guard: what forbids the token's buys now; exits are always allowed (`trading.protections`).
        intent: what the token's mentions add to A and E (`trading.intents`).
        exposure: what the phase model of A and E must know of book and token; None under the other models.
    """

    position: Position
    memory: PmMemory | None
    reading: MarketReading
    regime: Regime
    history: ConfigHistory
    rules: TradingRules
    book: Callable[[], BookView]
    bar_volume_usd: float
    liquidity_usd: Callable[[], float]
    correlation_id: str = ""
    guard: Guard = OPEN
    intent: Pair = (0.0, 0.0)
    exposure: Exposure | None = None


@dataclass(slots=True)
class TickResult:
    """What a bar led to.

    Attributes:
        strands: in the order they are to be appended; empty for a hold.
        memory: the checkpoint after the bar; None if the bar was not this position's business (seen before, or not
            trading).
        order: the order of the planned action.
        close_reason: not empty when a flat position's trade must be closed now with `closure`.
        skipped: reasons a rule that matched could not be carried out.
    """

    strands: tuple[Strand, ...]
    memory: PmMemory | None
    order: Order | None = None
    close_reason: str = ""
    skipped: tuple[str, ...] = ()


NOTHING = TickResult((), None)


def awake(position: Position, memory: PmMemory, events: int, now: int, rules: TradingRules) -> bool:
    """Whether a bar with these ``events`` can mean anything to the position; a tick on any other bar would change
    nothing.

    Moves, windows, retests and first dips concern everybody. A trim or an emergency concerns who holds, or has a
    skipped
    retest waiting for its outcome; a trim inside the cooldown of the last one does not. The bar after an event matters
    only while a window is open or an entry is pending. Every bar concerns a trade that may end on any bar.
    """
    if events & (MOVE | WINDOW | RETEST | DIP) or (position.terms is not None and position.terms.ends_early):
        return True
    episode = memory.episodes[0] if memory.episodes else None
    if episode is not None:
        if events & AFTER and (episode.window is not None or memory.pending_entries):
            return True
        if any(not window.outcome for window in episode.windows) and episode.episode_type == "s3_retest":
            return True
    if not position.holding:
        return False
    cooled = now - position.last_trim_ts >= rules.pm.trim_cooldown_bars * micros(position.timeframe)
    return bool(events & EMERGENCY) or bool(events & TRIM and cooled)


def tick(t: TickInput) -> TickResult:
    """One bar of one position. The same input gives the same strands; a bar that was seen before gives none."""
    reading, position, memory = t.reading, t.position, t.memory or PmMemory(t.position.id)
    if reading.ts <= max(memory.last_bar_ts, position.created_at) or position.status not in LIVE:
        return NOTHING
    arms = arms_of(position.attempt_id or _new_attempt(position, reading), t.rules.holdout)
    regime = leaning(t.regime, t.intent, t.exposure)
    items = pm_scope(regime.scope, t.rules.pm.market_family, position.cap_class, position.timeframe)
    controls = apply_pattern_execution_overrides(
        t.history, reading.state, items, reading.ts, position.timeframe, holdout=arms.tuning
    )
    envelope = _envelope(t, dict(items), controls.config_version, arms.text)
    strands: list[Strand] = []
    if reading.transition or _missed_the_end(position, reading):
        strands.append(_transition(t, envelope))
        position = evolve(position, strands[0])
    situation = Situation(
        position=position,
        reading=reading,
        report=evaluate(reading, gates_of(controls)),
        controls=controls,
        regime=regime,
        scope=items,
        history=t.history,
        rules=t.rules,
        book=t.book,
        bar_volume_usd=t.bar_volume_usd,
        guard=t.guard,
        holdout_strength=arms.strength,
    )
    told = "" if reading.transition == "S0->S1" else memory.told_skip
    tracked = track(situation, memory, envelope)
    strands += tracked.strands
    planned = plan_bar(situation)
    if not isinstance(planned, PlannedAction):
        strands += lapse(position, envelope)
        skipped = _skipped(t, planned, told, envelope)
        memory = replace(note_skipped(tracked.memory, planned), told_skip=_text(planned) if skipped else told)
        return TickResult((*strands, *skipped), memory, None, over(position, reading), planned.reasons)
    action = _action(t, situation, planned, open_window_id(tracked.memory), envelope)
    memory = tracked.memory
    if isinstance(action.payload, PmAction) and action.payload.window_id:
        memory = note_planned(memory, action.id, reading.ts)
    return TickResult((*strands, action), memory, order_of(action))


def gates_of(controls: PlanControls) -> Gates:
    """The thresholds of a plan as the engine's gates; base itself when nothing moved them."""
    return Gates(**controls.signal_thresholds) if controls.nudges else BASE_GATES


def _missed_the_end(position: Position, reading: MarketReading) -> bool:
    """Whether the attempt that the position believes in is over, by a bar that nobody walked."""
    return reading.state == "S0" and bool(position.attempt_id)


def _new_attempt(position: Position, reading: MarketReading) -> str:
    return attempt_id(position.id, reading.ts) if reading.transition == "S0->S1" else ""


def _envelope(t: TickInput, scope: dict[str, str | int], version: int, arm: str) -> Envelope:
    p = t.position
    return Envelope(
        position_id=p.id,
        symbol=p.symbol,
        timeframe=p.timeframe,
        ts=t.reading.ts,
        correlation_id=t.correlation_id,
        causation_id=p.decision_id,
        trade_id=p.trade_id,
        config_version=version,
        arm=arm,
        scope=scope,
        regime_snapshot_id=t.regime.snapshot_id,
    )


def _transition(t: TickInput, envelope: Envelope) -> Strand:
    reading, position = t.reading, t.position
    payload = StageTransition(
        from_state=reading.prev_state if reading.transition else "",
        to_state=reading.state,
        price=reading.price,
        attempt_id=_new_attempt(position, reading) or position.attempt_id,
    )
    change = reading.transition or f"?->{reading.state}"
    return envelope.strand(payload, position.id, reading.ts, tags=(payload.kind, change))


def _action(t: TickInput, s: Situation, plan: PlannedAction, window_id: str, envelope: Envelope) -> Strand:
    reading, size = t.reading, plan.size
    action_id = stable_id(PmAction.kind, s.position.id, reading.ts, plan.decision_type)
    payload = PmAction(
        decision_type=plan.decision_type,
        rule=plan.rule,
        flag=plan.flag,
        state=reading.state,
        pattern_key=plan.pattern.key,
        action_category=plan.pattern.category,
        side=plan.side,
        size_frac=size.fraction,
        base_size_frac=size.base_fraction,
        notional_usd=plan.notional_usd,
        quantity=plan.quantity,
        a_base=s.regime.a_base,
        e_base=s.regime.e_base,
        a_value=size.a_value,
        e_value=size.e_value,
        price=reading.price,
        atr=reading.atr,
        client_id=stable_id("order", action_id),
        window_id=window_id if plan.takes_window else "",
        level_price=plan.level_price,
        thresholds_effective=dict(s.controls.signal_thresholds),
        reasons={
            **plan.reasons,
            "a_regime": t.regime.a_base,
            "e_regime": t.regime.e_base,
            "intent_a": t.intent[0],
            "intent_e": t.intent[1],
            **_exposed(t.exposure),
            "bar_volume_usd": t.bar_volume_usd,
            "liquidity_usd": t.liquidity_usd(),
            "expires_ts": reading.ts + t.rules.pm.order_ttl_seconds * _SECOND,
            **completable(plan, reading, t.rules.pm),
        },
        caps=plan.caps,
        nudges=plan.nudges,
    )
    return envelope.strand(
        payload,
        s.position.id,
        reading.ts,
        plan.decision_type,
        config_version=plan.config_version,
        tags=(payload.kind, plan.decision_type),
    )


def _skipped(t: TickInput, skip: Skip, told: str, envelope: Envelope) -> list[Strand]:
    """The strand that says why a rule that matched led to nothing, unless that was the last thing told."""
    if not skip.rule or _text(skip) == told:
        return []
    reading = t.reading
    payload = PmSkipped(skip.rule, "sell" if skip.rule <= 3 else "buy", reading.state, reading.price, skip.reasons)
    return [envelope.strand(payload, t.position.id, reading.ts, tags=(payload.kind, *skip.reasons))]


def _text(skip: Skip) -> str:
    return f"{skip.rule}: {', '.join(skip.reasons)}"


def _exposed(exposure: Exposure | None) -> dict[str, Reason]:
    if exposure is None:
        return {}
    return {
        "active_trades": exposure.active,
        "cut_pressure": exposure.cut_pressure,
        "token_age_hours": exposure.age_hours,
        "token_mcap_usd": exposure.mcap_usd,
    }
