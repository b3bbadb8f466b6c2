"""What a partial fill left: ordered on the next bar while the signal still holds, else given up (trading.md 4.3).

The first fill uses up what its rule may use once (the S1 entry, the arming, the rung); the rest only adds to it. Exits
need none of this: they are tried again on every bar until nothing is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from edgebook.domain.book import Pending, Position
from edgebook.domain.pattern import ActionCategory, Pattern
from edgebook.domain.reading import MarketReading
from edgebook.domain.strands import Strand, TradeAction
from edgebook.domain.timeframe import micros
from edgebook.trading.actions import (
    PlannedAction,
    Reason,
    Situation,
    Skip,
    first_match,
    in_dx_zone,
    plan_action,
    refusals_of,
)
from edgebook.trading.envelope import Envelope
from edgebook.trading.plan import Size
from edgebook.trading.position import LAPSED, gross
from edgebook.trading.risk import limit_buy, usd_remaining
from edgebook.trading.rules import PmRules
from edgebook.trading.status import status_payload


def plan_bar(s: Situation) -> PlannedAction | Skip:
    """The one action of this bar: the rest of a partial fill where its signal still holds, else what the rules say.

    Exits and emergency exits come before any rest, a trim before the rest of a buy.
    """
    pending = s.position.pending
    if pending is None or s.position.planned is not None or not still_wanted(pending, s):
        return plan_action(s)
    rule = first_match(s)
    if rule in (1, 2) or (rule == 3 and pending.action.rule != 3):
        return plan_action(s)
    return _trim_rest(s, pending) if pending.quantity is not None else _buy_rest(s, pending)


def still_wanted(pending: Pending, s: Situation) -> bool:
    """Whether the signal of a partly filled action is still there, in time and in the state it was planned in."""
    reading, flags = s.reading, s.report.flags
    if reading.ts > pending.deadline or reading.state != pending.state:
        return False
    signals: Mapping[int, bool] = {
        3: reading.trim_flag,
        4: not reading.emergency_exit,
        5: flags.buy_signal,
        6: flags.buy_flag,
        7: in_dx_zone(reading, s.report),
        8: flags.buy_flag and not reading.emergency_exit,
        9: reading.first_dip,
    }
    return signals.get(pending.action.rule, False)


def completable(plan: PlannedAction, reading: MarketReading, rules: PmRules) -> dict[str, Reason]:
    """What the action's strand says of completing it: the deadline, one bar on; nothing for exits and for a rest."""
    if plan.rule < 3 or plan.completes or not rules.complete_partials:
        return {}
    return {"complete_by": reading.ts + micros(reading.timeframe)}


def lapse(position: Position, envelope: Envelope) -> tuple[Strand, ...]:
    """The strand that gives up what a partial fill left; none where nothing was."""
    if position.pending is None:
        return ()
    payload = status_payload(position, position.status, LAPSED)
    return (envelope.strand(payload, position.id, position.pending.action.strand_id, LAPSED),)


def _buy_rest(s: Situation, pending: Pending) -> PlannedAction | Skip:
    action, wanted = pending.action, pending.notional_usd
    assert wanted is not None
    refusals = refusals_of(s, action.pattern_key)
    if refusals:
        return Skip(0, refusals)
    book = s.book()
    allowance = usd_remaining(book, s.position.allocation_pct)
    capped = limit_buy(wanted, book, allowance, s.bar_volume_usd, s.rules.risk)
    if capped.notional_usd <= 0:
        return Skip(0, tuple(f"caps.{name}" for name in capped.caps))
    size = Size(1.0, 1.0, s.regime.a_base, s.regime.e_base, wanted)
    return PlannedAction(
        rule=action.rule,
        pattern=_pattern(action),
        decision_type=action.decision_type,
        side="buy",
        flag="pending_completion",
        size=size,
        notional_usd=capped.notional_usd,
        quantity=None,
        caps=capped.caps,
        nudges=(),
        config_version=action.config_version,
        reasons=_reasons(pending),
        completes=action.strand_id,
    )


def _trim_rest(s: Situation, pending: Pending) -> PlannedAction | Skip:
    action, wanted = pending.action, pending.quantity
    assert wanted is not None
    quantity = min(wanted, s.position.ledger.quantity)
    if gross(quantity, s.reading.price) < s.rules.risk.min_notional_usd:
        return Skip(0, ("min_notional",))
    return PlannedAction(
        rule=action.rule,
        pattern=_pattern(action),
        decision_type=action.decision_type,
        side="sell",
        flag="pending_completion",
        size=Size(1.0, 1.0, s.regime.a_base, s.regime.e_base, wanted),
        notional_usd=None,
        quantity=quantity,
        caps=(),
        nudges=(),
        config_version=action.config_version,
        reasons=_reasons(pending),
        completes=action.strand_id,
    )


def _pattern(action: TradeAction) -> Pattern:
    return Pattern(action.pattern_key, cast(ActionCategory, action.action_category))


def _reasons(pending: Pending) -> dict[str, Reason]:
    return {"size_kind": "completion", "completes": pending.action.strand_id}
