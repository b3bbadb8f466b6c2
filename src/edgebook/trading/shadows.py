"""Shadows: every chance of an attempt, taken or not, bought once on paper of its own and followed to the attempt's end
(trading.md 5, 9.16; learning.md 9.12).

A gate window that was skipped, blocked or bought gets a twin position when it closes: bought at the close of the bar
that decided it, led by the same rules (`trading.actions`), booked by the same fold (`trading.position`) and judged by
the same outcome (`trading.outcome`) as a real one, but alone, with a stake of its own, on base gates, A and E of its
first bar, and no learned number. So what was skipped has an outcome as true as what was taken, and learning cannot
move the measure it is fed by. Fills are at the close they are decided on, with slippage and fee.

Nothing here moves money, and no shadow is a trade.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_DOWN, Decimal

from edgebook.domain.book import Position, Shadow
from edgebook.domain.ids import stable_id
from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.reading import DIP, EMERGENCY, MOVE, RETEST, TRIM, WINDOW, MarketReading
from edgebook.domain.regime import Regime
from edgebook.domain.shadow import ShadowOutcome, ShadowsClosed
from edgebook.domain.strands import BuyWindow, OrderFilled, PmAction, StageTransition, Strand, WindowSample
from edgebook.domain.values import replace
from edgebook.engine.gates import BASE_GATES, GateReport, evaluate
from edgebook.market.bars import BarSeries
from edgebook.overrides.combine import PlanControls
from edgebook.overrides.history import ConfigHistory
from edgebook.trading.actions import PlannedAction, Situation, any_match, plan_action
from edgebook.trading.outcome import close_trade
from edgebook.trading.plan import size_fraction
from edgebook.trading.position import QUANTITY_GRAIN, evolve, gross, usd
from edgebook.trading.risk import BookView
from edgebook.trading.rules import RiskRules, TradingRules
from edgebook.trading.terms import terms_said
from edgebook.trading.windows import judged_by

#: Rule, size kind and state a chance of each kind is bought under.
_ENTRY = {"s1_entry": (5, "s1", "S1"), "s3_retest": (8, "add", "S3")}
_NO_LIMITS = RiskRules(Decimal(0), Decimal(0), Decimal(1), Decimal(1), Decimal(1))
_CONTROLS = PlanControls({})
_HISTORY = ConfigHistory()
_BPS = Decimal(10_000)
_ENDLESS = 1e18
_BASE = {name: LEVERS[name].base for names in GATE_LEVERS.values() for name in names}


def deciding_sample(window: BuyWindow) -> WindowSample | None:
    """The bar on which the window's chance was decided; None where no single gate stood between it and a buy.

    The entry bar if bought; else the first that the gates let pass; else the one nearest to passing of those that
    exactly one gate held back, by at most its severity cap.
    """
    if window.entered:
        entry = next((s for s in window.samples if s.ts == window.entry_ts), None)
        if entry is not None:
            return entry
    passed = next((s for s in window.samples if s.flag_on), None)
    if passed is not None:
        return passed
    near = [(-u, i) for i, s in enumerate(window.samples) if (u := _shortfall(s, window.episode_type)) is not None]
    return window.samples[min(near)[1]] if near else None


def _shortfall(sample: WindowSample, episode_type: str) -> float | None:
    """``u`` of the one gate that held a bar back, in [-1, 0); None if there was more than one, or it was farther.

    A gate without a lever of its own (TS in S3) counts where a lever works through it (``sr_boost``).
    """
    if len(sample.blocked_by) != 1:
        return None
    levers = (name for name in GATE_LEVERS[episode_type] if judged_by(name) == sample.blocked_by[0])
    u = next((u for name in levers if (u := sample.margins.get(name)) is not None), None)
    return u if u is not None and -1.0 <= u < 0.0 else None


def open_shadow(strand: Strand, chain: str, rules: TradingRules) -> Shadow | None:
    """The shadow of a closed window (an ``uptrend_buy_window`` strand); None where it says nothing about any gate, or
    the beginning of its attempt was not seen: then no place of a gate would have made it a buy.

    Args:
        chain: of the position; the costs follow from it.
        rules: sizes and stake.
    """
    window = strand.payload
    assert isinstance(window, BuyWindow)
    sample = deciding_sample(window)
    if sample is None or "no_attempt" in window.blocked_by:
        return None
    rule, kind, state = _ENTRY[window.episode_type]
    a_base, e_base = (float(sample.values.get(name) or 0.0) for name in ("a_base", "e_base"))
    shadow = Shadow(
        window_id=window.window_id,
        position_id=strand.position_id,
        symbol=strand.symbol,
        timeframe=strand.timeframe,
        correlation_id=strand.correlation_id,
        episode_type=window.episode_type,
        window_kind=window.window_kind,
        entered=window.entered,
        flag_on=sample.flag_on,
        blocked_by=window.blocked_by,
        scope=strand.scope,
        thresholds={**_BASE, **sample.moved},
        margins=_margins(sample, window.episode_type),
        a_base=a_base,
        e_base=e_base,
        seen_ts=sample.ts,
        twin=_flat(strand, window, chain, sample.ts),
    )
    stake = rules.shadows.stake_usd * Decimal(repr(size_fraction(kind, a_base, rules.sizes)))
    deed = _deed(rule, "entry", "buy", state, sample.price, float(sample.values.get("atr") or 0.0))
    deed = replace(deed, notional_usd=usd(stake), reasons=terms_said(alone(rules).pm))
    return replace(shadow, twin=_book(shadow.twin, deed, sample.ts, rules))


def _margins(sample: WindowSample, episode_type: str) -> dict[str, float]:
    """Margins of the levers the bar speaks about: all known ones if it passed, else those of the gate that held it."""
    levers = GATE_LEVERS[episode_type]
    if not sample.flag_on:
        levers = tuple(name for name in levers if (judged_by(name),) == sample.blocked_by)
    return {name: u for name in levers if (u := sample.margins.get(name)) is not None}


def _flat(strand: Strand, window: BuyWindow, chain: str, ts: int) -> Position:
    """The twin before its first buy: it stands in the attempt, with its whole stake to spend."""
    return Position(
        id=stable_id("shadow", window.window_id),
        symbol=strand.symbol,
        chain=chain,
        contract=strand.symbol,
        timeframe=strand.timeframe,
        book="shadow",
        status="watchlist",
        created_at=ts,
        allocation_pct=100.0,
        attempt_id=window.window_id,
        armed_s3=window.episode_type == "s3_retest",
    )


# ---------------------------------------------------------------- bar by bar


def concerns(reading: MarketReading, events: int) -> bool:
    """Whether a bar with these events may mean anything to a shadow: it has bought, so an entry in S1 does not."""
    if events & (MOVE | TRIM | EMERGENCY | DIP):
        return True
    return bool(events & (RETEST | WINDOW)) and reading.state != "S1"


def follow(shadows: Iterable[Shadow], reading: MarketReading, rules: TradingRules) -> list[Shadow]:
    """Shadows of one position after one more bar; one for which nothing follows from it is given back as it is.

    Args:
        rules: as `alone` makes them.
    """
    report = evaluate(reading, BASE_GATES)
    return [_follow(shadow, reading, report, rules) for shadow in shadows]


def _follow(shadow: Shadow, reading: MarketReading, report: GateReport, rules: TradingRules) -> Shadow:
    """The shadow after one more bar. What nothing followed from may be asked again: the twin is what it was."""
    if reading.ts <= shadow.seen_ts:
        return shadow
    twin = shadow.twin
    if reading.transition:
        change = StageTransition(reading.prev_state, reading.state, reading.price, twin.attempt_id)
        twin = evolve(twin, _strand(twin, "moved", change, reading.ts))
    if any_match(twin, reading, report, rules.pm):
        planned = plan_action(_situation(shadow, twin, reading, report, rules))
        if isinstance(planned, PlannedAction):
            twin = _book(twin, _deed_of(planned, reading), reading.ts, rules)
    return shadow if twin is shadow.twin else replace(shadow, twin=twin, seen_ts=reading.ts)


def _situation(
    shadow: Shadow, twin: Position, reading: MarketReading, report: GateReport, rules: TradingRules
) -> Situation:
    """What the rules may look at for the twin: its own wallet and nothing else of the book."""
    return Situation(
        position=twin,
        reading=reading,
        report=report,
        controls=_CONTROLS,
        regime=Regime(reading.ts, shadow.a_base, shadow.e_base, (), "", {}),
        scope=(),
        history=_HISTORY,
        rules=rules,
        book=lambda: _wallet(twin, rules),
        bar_volume_usd=_ENDLESS,
    )


def alone(rules: TradingRules) -> TradingRules:
    """The rules a shadow is led by: those of the book without what depends on the rest of it."""
    pm = replace(rules.pm, complete_partials=False, episode_block=False)
    return replace(rules, risk=_NO_LIMITS, pm=pm, holdout=0.0)


def _wallet(twin: Position, rules: TradingRules) -> BookView:
    stake, cost = rules.shadows.stake_usd, twin.ledger.cost
    return BookView(stake, stake, open_cost_total=cost, open_cost_token=cost, open_cost_position=cost)


def _deed_of(plan: PlannedAction, reading: MarketReading) -> PmAction:
    deed = _deed(plan.rule, plan.decision_type, plan.side, reading.state, reading.price, reading.atr)
    return replace(
        deed,
        notional_usd=plan.notional_usd,
        quantity=plan.quantity,
        level_price=plan.level_price,
        reasons=plan.reasons,
    )


def _deed(rule: int, decision_type: str, side: str, state: str, price: float, atr: float) -> PmAction:
    """An action as far as the fold reads it."""
    return PmAction(
        decision_type=decision_type,
        rule=rule,
        flag="",
        state=state,
        pattern_key="",
        action_category=decision_type,
        side=side,
        size_frac=0.0,
        base_size_frac=0.0,
        notional_usd=None,
        quantity=None,
        a_base=0.0,
        e_base=0.0,
        a_value=0.0,
        e_value=0.0,
        price=price,
        atr=atr if atr == atr else 0.0,
        client_id="",
        window_id="",
        level_price=None,
        thresholds_effective={},
        reasons={},
    )


def _book(twin: Position, deed: PmAction, ts: int, rules: TradingRules) -> Position:
    """The twin after an action that fills at once: at the close, the slippage against it, the fee on top."""
    fee_bps, slippage_bps = rules.shadows.costs(twin.chain)
    worse = 1.0 + float(slippage_bps / _BPS) * (1.0 if deed.side == "buy" else -1.0)
    price = deed.price * worse
    quantity = deed.quantity
    if quantity is None:
        assert deed.notional_usd is not None
        quantity = (deed.notional_usd / Decimal(repr(price))).quantize(QUANTITY_GRAIN, rounding=ROUND_DOWN)
    if quantity <= 0 or gross(quantity, price) <= 0:
        return twin
    action = _strand(twin, "action", deed, ts)
    fee = usd(gross(quantity, price) * fee_bps / _BPS)
    filled = OrderFilled(
        "", action.id, deed.side, deed.decision_type, deed.rule, quantity, price, fee, float(slippage_bps), False, ts
    )
    return evolve(evolve(twin, action), _strand(twin, "filled", filled, ts))


def _strand(twin: Position, what: str, payload: PmAction | OrderFilled | StageTransition, ts: int) -> Strand:
    """A strand for the fold alone: it is never written."""
    ident = f"{twin.id}:{what}:{ts}"
    return Strand(ident, payload, ts, ts, position_id=twin.id, trade_id=twin.trade_id or twin.id)


# ---------------------------------------------------------------- the end


def close_shadows(
    shadows: Iterable[Shadow], reading: MarketReading, path: BarSeries, rules: TradingRules
) -> Strand | None:
    """What the chances of an attempt were worth, once it has ended on the bar of ``reading``; None without any.

    Args:
        shadows: of one position, led over that bar.
        path: bars of the position's timeframe from 10 bars before the first entry to the end.
    """
    done = (s for s in shadows if s.twin.actions and not s.twin.holding)
    ended = sorted(done, key=lambda s: (s.twin.entry_ts, s.key))
    if not ended:
        return None
    summaries = {s.window_id: close_trade(s.twin, path, rules.outcome) for s in ended}
    worth = {ident: summary.rr for ident, summary in summaries.items()}
    outcomes = []
    for shadow in ended:
        summary, values = summaries[shadow.window_id], _values(shadow, ended, worth)
        outcomes.append(
            ShadowOutcome(
                window_id=shadow.window_id,
                episode_type=shadow.episode_type,
                window_kind=shadow.window_kind,
                entered=shadow.entered,
                flag_on=shadow.flag_on,
                blocked_by=shadow.blocked_by,
                entry_ts=summary.entry_ts,
                exit_ts=summary.exit_ts,
                entry_price=summary.entry_price,
                exit_price=summary.exit_price,
                roi=summary.roi,
                rr=summary.rr,
                actions=len(shadow.twin.actions),
                scope=shadow.scope,
                margins={name: shadow.margins[name] for name in values},
                thresholds=shadow.thresholds,
                values=values,
            )
        )
    first = ended[0]
    return Strand(
        id=stable_id(ShadowsClosed.kind, first.position_id, reading.ts),
        payload=ShadowsClosed(reading.exit_reason or "attempt_over", tuple(outcomes)),
        ts_event=reading.ts,
        ts_recorded=reading.ts,
        module="pm",
        symbol=first.symbol,
        timeframe=first.timeframe,
        position_id=first.position_id,
        correlation_id=first.correlation_id,
        tags=(ShadowsClosed.kind, "shadow"),
    )


def _values(shadow: Shadow, ended: Sequence[Shadow], worth: Mapping[str, float]) -> dict[str, float]:
    """Per lever, rr of taking the chance less that of the one that would have been taken instead (0 if none).

    An attempt has one S1 entry, the first chance that passes; an S3 one retest per arming, which lasts until a trim. So
    had the gate kept this one out, the first later one of a larger margin would have been it. Where an earlier one
    has at least its margin, no place of the gate makes this one the entry: it says nothing about that gate.
    """
    own = worth[shadow.window_id]
    alike = [other for other in ended if other.episode_type == shadow.episode_type]
    place = next(i for i, other in enumerate(alike) if other.window_id == shadow.window_id)
    before = [other for other in alike[:place] if _bars_out(other, shadow)]
    after = [other for other in alike[place + 1 :] if _bars_out(shadow, other)]
    found = {}
    for name, u in shadow.margins.items():
        if _first_beyond(before, name, u, or_at=True) is None:
            instead = _first_beyond(after, name, u)
            found[name] = own - (worth[instead.window_id] if instead else 0.0)
    return found


def _bars_out(first: Shadow, later: Shadow) -> bool:
    """Whether taking the first chance leaves no room for a later one: always in S1, in S3 until its first trim."""
    if first.episode_type == "s1_entry":
        return True
    trims = (action.ts for action in first.twin.actions if action.decision_type == "trim")
    return not any(ts < later.twin.entry_ts for ts in trims)


def _first_beyond(chances: Iterable[Shadow], name: str, margin: float, *, or_at: bool = False) -> Shadow | None:
    """The first chance that a gate still lets pass when it has been moved past ``margin`` (or to it, with ``or_at``).

    One that passed without asking the gate passes wherever it stands, one that another gate held back never.
    """
    for chance in chances:
        u = chance.margins.get(name, math.inf if chance.flag_on else -math.inf)
        if u > margin or (or_at and u == margin):
            return chance
    return None
