"""The loop on one page: every step of the system, in the order the data travels, and the JOBS table that schedules
them.

Each job has three paragraphs: gather through ports, call a pure function that decides, apply (append strands, put
rows). No rule lives here. All of a job's writes belong to one transaction; running any of them twice changes nothing.

    ingest_signal -> decision_maker -> pm_core_tick -> settle_orders -> (strands)
    (strands) -> run_aggregator -> build_lessons_from_pattern_scope_stats -> run_materializer -> overrides, at the
    next tick
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from edgebook.desk import AGGREGATED, LEARNER, OPERATOR, Desk
from edgebook.domain.book import Order, PmMemory, Position, Shadow
from edgebook.domain.errors import EdgebookError, InputError, TradingError
from edgebook.domain.evidence import ConfigVersion, FamilyFit, StatRow, Watermark, family_key
from edgebook.domain.ids import stable_id
from edgebook.domain.mentions import token_key
from edgebook.domain.pattern import EPISODE_PATTERN, Pattern
from edgebook.domain.reading import MarketReading
from edgebook.domain.scope import root_key
from edgebook.domain.steering import ConfigSteered
from edgebook.domain.strands import ConfigChanged, CuratorRegistered, JobCompleted, PositionClosed, SocialLowcap
from edgebook.domain.timeframe import micros
from edgebook.domain.values import replace
from edgebook.learning.acts import Steered, steer
from edgebook.learning.aggregate import aggregate
from edgebook.learning.lessons import Built, build_lessons, due
from edgebook.learning.materialize import materialize
from edgebook.learning.tuning import build_tuning, tuning_due
from edgebook.trading.curators import registration_strand
from edgebook.trading.decision import decide, signal_cap_class
from edgebook.trading.lifecycle import awake_strand, retire, turn
from edgebook.trading.outcome import HINDSIGHT_BARS, NEAR_ENTRY_BARS, hindsight
from edgebook.trading.protections import review, switch
from edgebook.trading.settle import closure, fill
from edgebook.trading.shadows import close_shadows, follow, open_shadow
from edgebook.trading.signals import ACCEPTED, REFUSED, Receipt, parse_signal, receive, signal_strand
from edgebook.trading.tick import TickInput, tick

Counts = dict[str, int]
MICROS = 1_000_000
ENTRY_MARGIN_BARS = 11
#: What one signal or one position may fail with, without holding the others up: it goes to the dead letters.
POISON = (EdgebookError, ArithmeticError, LookupError, TypeError, ValueError)


def _known(error: Exception) -> EdgebookError:
    """The error as one of ours, for the dead letters."""
    return error if isinstance(error, EdgebookError) else TradingError(f"{type(error).__name__}: {error}")


# ---- LIVE: signal -> decision -> position -> actions -> fills -> outcome
# ----------------------------------------------------


def register_curators(desk: Desk, registry: Iterable[CuratorRegistered], now: int) -> Counts:
    """Write what the registry file says of each curator into the log, where the book does not know just that yet; at
    the start (trading.md 1.1)."""
    counts = {"read": 0, "applied": 0}
    for entry in registry:
        counts["read"] += 1
        strand = registration_strand(entry, desk.uow.curators.get(entry.curator), now)
        if strand is not None:
            desk.record([strand])
            counts["applied"] += 1
    return counts


def ingest_signal(desk: Desk, line: str, now: int) -> Receipt:
    """Write one social signal into the log, once; what is no signal, or says otherwise than it did when it was
    delivered before, goes to dead letters (trading.md 1.3)."""
    try:
        signal = parse_signal(line, resolve=desk.resolver.resolve if desk.resolver else None)
        strand = signal_strand(signal.by(desk.curator_id(signal.payload.handle)), now)

        receipt = receive(desk.uow.log.get(strand.id), strand)

        if receipt.status == ACCEPTED:
            desk.record([strand])
        elif receipt.status == REFUSED:
            raise InputError(receipt.reason, correlation_id=strand.id)
    except EdgebookError as error:
        desk.bury(error, content=line, stage="ingest", now=now)
        return Receipt(REFUSED, error.message)
    return receipt


def decision_maker(desk: Desk, now: int) -> Counts:
    """Decide every signal after the watermark, also those that ask for no buy (a reject says so); decision, positions
    and watermark in one transaction (trading.md 1.5, 1.7)."""
    counts = {"read": 0, "applied": 0, "failed": 0}
    mark = desk.watermark("decision_maker")
    for signal in desk.uow.log.read(mark, ["social_lowcap"]):
        counts["read"] += 1
        said = signal.payload
        assert isinstance(said, SocialLowcap)
        regime = desk.market.regime(desk.rules.timeframes[-1], signal_cap_class(said, desk.tokens), now)
        positions = desk.positions_of(said.chain, said.contract)
        try:
            decided = decide(
                signal,
                curator=desk.uow.curators.get(said.curator),
                coefficient=desk.uow.coefficients.get,
                positions=positions,
                answered=desk.answered(positions),
                regime=regime,
                tokens=desk.tokens,
                bars_count={tf: desk.ready_bars(said.symbol, tf, now) for tf in desk.rules.timeframes},
                history=desk.history,
                rules=desk.rules,
                now=now,
                active_positions=desk.active_positions,
            )
            desk.snapshot(regime)
            desk.record(decided.strands)
            counts["applied"] += 1
        except POISON as error:
            desk.bury(_known(error), content=signal.id, stage="decision", now=now, correlation_id=signal.correlation_id)
            counts["failed"] += 1
        mark = signal.seq
    desk.uow.watermarks.put(Watermark("decision_maker", mark, now))
    return counts


def check_protections(desk: Desk, now: int) -> Counts:
    """Turn protections on and off as the book stands at ``now``; they forbid buys and nothing else (trading.md 3.6)."""
    rows, rules = desk.to_review(), desk.rules.protections
    nav = desk.nav(now) if rules.watches_nav else None

    told = review(rows, rules, now, nav)

    desk.record(told)
    return {"read": len(rows), "applied": len(told)}


def turn_kill_switch(desk: Desk, scope: str, on: bool, now: int, note: str = OPERATOR) -> Counts:
    """An operator turns the kill switch of the book or of one channel; it stays so until it is turned back
    (decisions 39). ``note`` says who and why."""
    row = desk.protection(scope)
    nav = desk.nav(now) if row.block("drawdown") else None

    told = switch(row, on, now, nav, note)

    desk.record(told)
    return {"read": 1, "applied": len(told)}


def pm_core_tick(desk: Desk, timeframe: str, now: int) -> Counts:
    """One closed bar for every position of ``timeframe`` that has something to look at (trading.md 3.1)."""
    counts = {"read": 0, "applied": 0, "failed": 0}
    for position, memory in desk.due(timeframe, now):
        reading = desk.market.reading(position.symbol, timeframe, now)
        if reading is None:
            continue
        counts["read"] += 1
        try:
            with desk.uow.attempt():
                counts["applied"] += _tick_one(desk, position, memory, reading, now)
        except POISON as error:
            desk.reset()
            desk.bury(_known(error), content=f"{position.id} at {now}", stage="pm_core_tick", now=now)
            counts["failed"] += 1
    return counts


def _tick_one(desk: Desk, position: Position, memory: PmMemory, reading: MarketReading, now: int) -> bool:
    """One bar of one position, whole or not at all; whether it led to an order."""
    regime = desk.market.regime(position.timeframe, position.cap_class, now)
    decision = desk.decision(position.decision_id)

    result = tick(
        TickInput(
            position=position,
            memory=memory,
            reading=reading,
            regime=regime,
            history=desk.history,
            rules=desk.rules,
            book=partial(desk.book_view, position, now),
            bar_volume_usd=reading.volume * reading.price,
            liquidity_usd=partial(desk.market.volume_24h_usd, position.symbol, now),
            correlation_id=decision.signal_id if decision else "",
            guard=desk.guard(position),
            intent=desk.intent(position, now),
            exposure=desk.exposure(regime, decision, now),
        )
    )

    if result.memory is None:
        return False
    if result.strands:
        desk.snapshot(regime)
        desk.record(result.strands)
    if result.close_reason:
        _close(desk, position.id, result.close_reason, now, regime.snapshot_id)
    desk.uow.memory.put(result.memory)
    return result.order is not None


def follow_shadows(desk: Desk, timeframe: str, now: int) -> Counts:
    """Lead every shadow of ``timeframe`` over the bar that has just closed; where its attempt has ended, tell what
    each chance was worth (trading.md 5). Nothing of the book changes."""
    counts = {"read": 0, "applied": 0, "failed": 0}
    for window in desk.stage.fresh_windows():
        try:
            shadow = open_shadow(window, desk.position(window.position_id).chain, desk.rules)
        except POISON as error:
            desk.bury(_known(error), content=window.id, stage="follow_shadows", now=now)
            counts["failed"] += 1
            continue
        if shadow is not None:
            desk.stage.keep(shadow)
    for reading, shadows in desk.stage.due(timeframe, now):
        counts["read"] += len(shadows)
        try:
            with desk.uow.attempt():
                counts["applied"] += _follow(desk, reading, shadows)
        except POISON as error:
            desk.stage.drop(shadows)
            desk.bury(_known(error), content=f"shadows at {now}", stage="follow_shadows", now=now)
            counts["failed"] += 1
    return counts


def _follow(desk: Desk, reading: MarketReading, shadows: Sequence[Shadow]) -> int:
    """One bar of one position's shadows; how many outcomes it gave. What happened in a gap is not guessed."""
    if reading.gap_bars > desk.rules.episodes.void_gap_bars:
        desk.stage.drop(shadows)
        return 0

    led = follow(shadows, reading, desk.stage.rules)

    if reading.state != "S0":
        for before, after in zip(shadows, led, strict=True):
            if after is not before:
                desk.stage.keep(after)
        return 0
    begin = min(shadow.twin.entry_ts for shadow in led) - ENTRY_MARGIN_BARS * micros(reading.timeframe)
    path = desk.market.path(reading.symbol, reading.timeframe, begin, reading.ts)
    closed = close_shadows(led, reading, path, desk.rules)
    desk.stage.drop(shadows)
    desk.record([closed] if closed else [])
    return len(led)


def settle_orders(desk: Desk, now: int) -> Counts:
    """Fill, refuse or expire all open orders in one transaction: what a paper broker allows (trading.md 4)."""
    counts = {"read": 0, "applied": 0}
    for order in desk.open_orders():
        counts["read"] += 1
        counts["applied"] += settle_order(desk, order, now)["applied"]
    return counts


def settle_order(desk: Desk, order: Order, now: int) -> Counts:
    """Fill, refuse or expire one open order; a trade whose exit filled is closed here, with its outcome."""
    execution = desk.broker.execute(order, desk.market.quote(order.symbol, order.planned_ts, now), now)
    position = desk.position(order.position_id)
    decision = desk.decision(position.decision_id)

    settled = fill(
        position,
        order,
        execution,
        now=now,
        correlation_id=decision.signal_id if decision else "",
        config_version=desk.history.current_version,
        pending=desk.decision(position.pending_decision_id),
    )

    desk.record(settled.strands)
    if settled.close_reason:
        _close(desk, position.id, settled.close_reason, now, cause_id=settled.strands[-1].id)
    return {"read": 1, "applied": int(bool(settled.strands))}


def _close(desk: Desk, ident: str, reason: str, now: int, snapshot_id: str = "", cause_id: str = "") -> None:
    """Close the finished trade of a flat position."""
    position = desk.position(ident)
    margin = ENTRY_MARGIN_BARS * micros(position.timeframe)
    desk.record(
        closure(
            position,
            desk.market.path(position.symbol, position.timeframe, position.entry_ts - margin, now),
            reason=reason,
            now=now,
            decision=desk.decision(position.decision_id),
            pending=desk.decision(position.pending_decision_id),
            rules=desk.rules,
            cause_id=cause_id,
            config_version=desk.history.current_version,
            regime_snapshot_id=snapshot_id,
        )
    )
    if desk.unsettled:
        check_protections(desk, now)


# ---- LEARN: strands -> statistics -> lessons -> overrides
# -------------------------------------------------------------------


def run_aggregator(desk: Desk, slot: int) -> Counts:
    """Fold closed trades and episodes after the watermark into ``pattern_scope_stats`` (mission 4; every 5 minutes)."""
    mark = desk.watermark("pattern_scope_aggregator")
    strands = list(desk.uow.log.read(mark, AGGREGATED))
    if not strands:
        return {"read": 0}

    result = aggregate(
        strands,
        stat=desk.uow.stats.get,
        observation=desk.uow.observations.get,
        decision=desk.uow.log.get,
        fit=desk.uow.fits.get,
        now=slot,
        config=desk.learning,
        into=desk.uow.stats,
    )

    for strand, reason in result.problems:
        desk.bury(EdgebookError(reason, stage="aggregator"), content=strand.id, stage="aggregator", now=slot)
    for observation in result.observations:
        desk.uow.observations.put(observation)
    for fit in result.fits:
        desk.uow.fits.put(fit)
    desk.uow.watermarks.put(Watermark("pattern_scope_aggregator", strands[-1].seq, slot))
    return _completed(desk, "pattern_scope_aggregator", slot, strands[-1].seq, result.counts)


def build_lessons_from_pattern_scope_stats(desk: Desk, slot: int, module: str) -> Counts:
    """Turn statistics into lessons of one module; families without enough new evidence keep theirs (mission 4;
    hourly)."""
    fits = {fit.family: fit for fit in desk.families(module)}
    roots = {key: desk.uow.stats.get(root_key(key)) for key in fits}
    families = {key: desk.family_input(key) for key, fit in fits.items() if due(fit, _count(roots[key]), desk.learning)}
    gates = [p for p in EPISODE_PATTERN.values() if module == "pm" and _gates_due(desk, p, fits, roots)]
    if not families and not gates:
        return {"read": 0}

    built = build_lessons(module, families, fits, desk.lessons_of(families), slot, desk.learning)
    counts = dict(built.counts)
    _put_lessons(desk, built)
    if gates:
        keys = [family_key("pm", *pattern) for pattern in gates]
        rows = [row for key in keys for row in desk.uow.stats.tuned(key)]
        now_fits = {key: fit for key in keys if (fit := desk.uow.fits.get(key)) is not None}
        tuned = build_tuning(rows, desk.lessons_of(keys), slot, desk.learning, now_fits)
        _put_lessons(desk, tuned)
        counts |= {f"tuning_{name}": count for name, count in tuned.counts.items()}

    return _completed(desk, f"lesson_builder_{module}", slot, desk.watermark("pattern_scope_aggregator"), counts)


def _gates_due(
    desk: Desk, pattern: Pattern, fits: Mapping[str, FamilyFit], roots: Mapping[str, StatRow | None]
) -> bool:
    key = family_key("pm", *pattern)
    return key in fits and tuning_due(fits[key], roots[key], desk.learning)


def _count(row: StatRow | None) -> int:
    return row.n if row else 0


def _put_lessons(desk: Desk, built: Built) -> None:
    for lesson in built.lessons:
        desk.uow.lessons.put(lesson)
    for fit in built.fits:
        desk.uow.fits.put(fit)


def run_materializer(desk: Desk, slot: int) -> Counts:
    """Write the lessons that act into ``learning_configs``; a changed document is a new version, in force at once
    (mission 4; hourly)."""
    result = materialize(desk.uow.lessons.values(), desk.documents(), slot, **desk.newest_version())
    if not result.changed:
        return {"read": sum(result.counts.values())}

    desk.install(ConfigVersion(result.version, slot, result.dm, result.pm, result.content_hash))
    change = ConfigChanged(result.version, result.counts, result.content_hash, LEARNER)
    desk.record([desk.strand(change, slot, result.version)])
    return _completed(desk, "override_materializer", slot, desk.watermark("pattern_scope_aggregator"), result.counts)


def steer_config(desk: Desk, act: str, target: str, who: str, why: str, now: int) -> Steered:
    """An operator mutes or pins a lesson, lifts that, or reverts to an older config version (decisions 39); a new
    version, in force at once, that a rebuild makes again.

    Raises:
        InputError: there is no such lesson or version, or it cannot be done now; nothing has changed.
    """
    steered = steer(act, target, list(desk.uow.lessons.values()), desk.documents(), now, **desk.newest_version())
    result = steered.result
    if result is None:
        return steered

    desk.install(ConfigVersion(result.version, now, result.dm, result.pm, result.content_hash), OPERATOR)
    told = ConfigSteered(act, steered.target, who, why, result.version)
    changed = ConfigChanged(result.version, result.counts, result.content_hash, OPERATOR)
    cause, effect = desk.strand(told, now, result.version), desk.strand(changed, now, result.version)
    desk.record([cause, replace(effect, causation_id=cause.id)])
    return steered


def count_bars(desk: Desk, slot: int) -> Counts:
    """Wake positions whose timeframe has gathered enough bars since its last long hole (trading.md 2: dormant ->
    watchlist at 333)."""
    counts = {"read": 0, "applied": 0}
    for position in list(desk.uow.positions.values()):
        if position.status != "dormant":
            continue
        counts["read"] += 1
        bars = desk.ready_bars(position.symbol, position.timeframe, slot)
        awake = awake_strand(position, bars, slot, desk.rules)
        if awake is not None:
            desk.record([awake])
            counts["applied"] += 1
    return counts


def turn_position(desk: Desk, ident: str, wish: str, now: int) -> Counts:
    """An operator pauses, resumes or archives a position (trading.md 2).

    Raises:
        InputError: there is no such position, or it cannot be turned so now.
    """
    position = desk.uow.positions.get(ident)
    if position is None:
        raise InputError(f"no position {ident!r} in this book; its id stands in the table positions")
    decision = desk.decision(position.decision_id)
    bars = desk.ready_bars(position.symbol, position.timeframe, now)

    told = turn(position, wish, bars=bars, now=now, rules=desk.rules, signal_id=decision.signal_id if decision else "")

    desk.record([told] if told else [])
    desk.lay_down(position.id)
    return {"read": 1, "applied": int(told is not None)}


def archive_idle(desk: Desk, slot: int) -> Counts:
    """Archive flat positions of tokens nobody speaks of any more (trading.md 2; daily, off by default)."""
    counts = {"read": 0, "applied": 0}
    for position in list(desk.uow.positions.values()):
        counts["read"] += 1
        said = desk.uow.intents.get(token_key(position.chain, position.contract))

        told = retire(position, said, desk.decision(position.decision_id), slot, desk.rules)

        if told is not None:
            desk.record([told])
            desk.lay_down(position.id)
            counts["applied"] += 1
    return counts


def complete_counterfactuals(desk: Desk, slot: int) -> Counts:
    """Once the bars after an exit are known, say what a better entry or exit would have brought (trading.md 4.5;
    daily)."""
    counts = {"read": 0, "applied": 0}
    mark, waiting = desk.watermark("counterfactuals"), False
    for closed in desk.uow.log.read(mark, ["position_closed"]):
        step, payload = micros(closed.timeframe), closed.payload
        assert isinstance(payload, PositionClosed)
        if closed.ts_event + HINDSIGHT_BARS * step > slot:
            waiting = True
            continue
        counts["read"] += 1
        begin, end = payload.summary.entry_ts - NEAR_ENTRY_BARS * step, closed.ts_event + HINDSIGHT_BARS * step

        found = hindsight(payload, closed.timeframe, desk.market.path(closed.symbol, closed.timeframe, begin, end))

        if desk.uow.log.get(late := stable_id(found.kind, closed.trade_id)) is None:
            desk.record([desk.afterthought(late, found, closed, slot)])
            counts["applied"] += 1
        mark = mark if waiting else closed.seq
    desk.uow.watermarks.put(Watermark("counterfactuals", mark, slot))
    return counts


def _completed(desk: Desk, job: str, slot: int, watermark: int, counts: Mapping[str, int]) -> Counts:
    """Append ``job_completed`` where a learning job changed something: the points at which a rebuild replays learning.

    Its counts tell what was made, not what was read.
    """
    made = {name: count for name, count in counts.items() if name not in ("read", "skipped", "inactive", "neutral")}
    desk.record([desk.strand(JobCompleted(job, slot, watermark, made), slot, job, slot, watermark)])
    desk.stir(job)
    return dict(counts)


# ---- THE TABLE
# --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the schedule. Slots are all times ``t`` with ``t = offset (mod every)``, UTC (trading.md 6).

    Attributes:
        name: name of its runs.
        every_seconds, offset_seconds: cadence.
        run: the job, given the desk and its slot.
        ready: whether there is anything to read; when not, the slot is counted, not run.
    """

    name: str
    every_seconds: int
    offset_seconds: int
    run: Callable[[Desk, int], Counts]
    ready: Callable[[Desk], bool]

    def next_slot(self, at: int) -> int:
        """First slot strictly after ``at`` (microseconds UTC).

        >>> job = Job("x", 300, 120, lambda desk, slot: {}, lambda desk: True)
        >>> job.next_slot(0) // MICROS, job.next_slot(120 * MICROS) // MICROS
        (120, 420)
        """
        every, offset = self.every_seconds * MICROS, self.offset_seconds * MICROS
        return (at - offset) // every * every + every + offset


def _builder(module: str) -> Callable[[Desk, int], Counts]:
    return lambda desk, slot: build_lessons_from_pattern_scope_stats(desk, slot, module)


def _stirred(job: str) -> Callable[[Desk], bool]:
    return lambda desk: desk.fresh(job)


JOBS: tuple[Job, ...] = (
    Job("pattern_scope_aggregator", 300, 120, run_aggregator, _stirred("pattern_scope_aggregator")),
    Job("count_bars", 3600, 420, count_bars, lambda desk: desk.has_dormant),
    Job("lesson_builder_pm", 3600, 480, _builder("pm"), _stirred("lesson_builder_pm")),
    Job("lesson_builder_dm", 3600, 540, _builder("dm"), _stirred("lesson_builder_dm")),
    Job("override_materializer", 3600, 600, run_materializer, _stirred("override_materializer")),
    Job("archive_idle", 86_400, 3_300, archive_idle, lambda desk: bool(desk.rules.pm.archive_after)),
    Job("counterfactuals", 86_400, 3_600, complete_counterfactuals, lambda desk: True),
)
REQUIRED_JOBS = ("pattern_scope_aggregator", "lesson_builder_pm", "lesson_builder_dm", "override_materializer")
