"""From a closed trade to its units of evidence (decisions 5, 21, 41; learning.md 9.1, 9.10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgebook.domain.decay import DAY
from edgebook.domain.errors import LearningError
from edgebook.domain.evidence import Observation, family_key
from edgebook.domain.strands import DecisionLowcap, PositionClosed, Strand, TradeAction, TradeSummary
from edgebook.domain.values import replace
from edgebook.learning.slices import canonical

RR_MIN, RR_MAX = -3.0, 10.0
#: Channels whose holdout arm marks an observation, by module (decisions 46).
HOLDOUT_CHANNEL = {"dm": "dm", "pm": "strength"}
_SELLS = ("trim", "emergency_exit", "exit")


def in_holdout(arm: str, channel: str) -> bool:
    """Whether ``arm`` (channels joined by comma, ``|`` or ``+``) names ``channel``.

    >>> in_holdout("dm,strength", "dm"), in_holdout("", "dm"), in_holdout("tuning", "dm")
    (True, False, False)
    """
    return channel in arm.replace("|", ",").replace("+", ",").split(",")


def exit_outcome(actions: tuple[TradeAction, ...], summary: TradeSummary) -> float | None:
    """What trimming was worth against holding on, in R (learning.md 9.10).

    Per trim: (its price - quantity-weighted price of all later sells) / risk, with risk = entry price *
    max(max_drawdown, r_floor); averaged by trimmed quantity, clipped to [-3, 10]. None without a trim that a later
    sell follows.
    """
    risk = summary.entry_price * max(summary.max_drawdown, summary.r_floor)
    if risk <= 0:
        return None
    gained = trimmed = later_quantity = later_value = 0.0
    for action in reversed(actions):
        if action.decision_type not in _SELLS:
            continue
        quantity = float(action.quantity)
        if action.action_category == "trim" and later_quantity > 0:
            gained += quantity * (action.price - later_value / later_quantity) / risk
            trimmed += quantity
        later_quantity += quantity
        later_value += quantity * action.price
    return min(RR_MAX, max(RR_MIN, gained / trimmed)) if trimmed > 0 else None


def pm_observations(strand: Strand, closed: PositionClosed) -> list[Observation]:
    """One observation per distinct (pattern key, category) of the trade, under the scope of the first such action.

    Raises:
        StrandError: an action's scope holds a DM dimension.
    """
    first: dict[tuple[str, str], TradeAction] = {}
    count: dict[tuple[str, str], int] = {}
    for action in closed.actions:
        kind = (action.pattern_key, action.action_category)
        first.setdefault(kind, action)
        count[kind] = count.get(kind, 0) + 1
    summary, found = closed.summary, []
    for (pattern_key, category), action in first.items():
        found.append(
            Observation(
                module="pm",
                pattern_key=pattern_key,
                action_category=category,
                unit_id=strand.trade_id,
                ts=summary.exit_ts,
                opened_at=summary.entry_ts,
                y=summary.rr,
                roi=summary.roi,
                pnl_usd=float(summary.pnl_usd),
                weight=1.0,
                token=strand.symbol,
                day=summary.entry_ts // DAY,
                scope=dict(canonical("pm", action.scope)),
                hold_days=summary.hold_days,
                time_efficiency=summary.time_efficiency,
                n_actions=count[pattern_key, category],
                holdout=in_holdout(action.arm, HOLDOUT_CHANNEL["pm"]),
                exit_y=exit_outcome(closed.actions, summary) if category == "trim" else None,
            )
        )
    return found


def dm_observation(
    strand: Strand,
    closed: PositionClosed,
    decision: Callable[[str], Strand | None],
    observation: Callable[[str], Observation | None],
) -> Observation | None:
    """The decision's observation with this close merged in; None when the close is not its position's first under the
    decision.

    ``y`` is the allocation-weighted mean rr over the positions that have closed so far. A close that is already part
    of it gives back the stored observation unchanged; one whose rr was corrected since takes the former one's place in
    ``y``, and in nothing else: what it said of roi, pnl and time is not kept apart.

    Raises:
        LearningError: the decision is not in the log.
        StrandError: the decision's scope holds a PM dimension.
    """
    if not closed.first_under_decision or not closed.decision_id:
        return None
    made = decision(closed.decision_id)
    if made is None or not isinstance(made.payload, DecisionLowcap):
        raise LearningError(f"decision {closed.decision_id} of trade {strand.trade_id} is not in the log")
    asked = made.payload
    key = f"{family_key('dm', asked.pattern_key, asked.action_category)}|{closed.decision_id}"
    old = observation(key)
    part = (closed.allocation_pct, closed.summary.rr)
    if old is not None and strand.position_id in old.parts:
        parts = {**old.parts, strand.position_id: part}
        return old if parts == old.parts else replace(old, y=_mean(parts), parts=parts)
    return _merged(old, strand, closed, made, asked, part)


def _mean(parts: Mapping[str, tuple[float, float]]) -> float:
    """Mean rr by allocation; by count where nothing was allocated."""
    total = sum(a for a, _ in parts.values())
    if total > 0:
        return sum(a * rr for a, rr in parts.values()) / total
    return sum(rr for _, rr in parts.values()) / len(parts)


def _merged(
    old: Observation | None,
    strand: Strand,
    closed: PositionClosed,
    made: Strand,
    asked: DecisionLowcap,
    part: tuple[float, float],
) -> Observation:
    summary, share = closed.summary, part[0]
    parts = {**(old.parts if old else {}), strand.position_id: part}
    total = sum(a for a, _ in parts.values())
    before = (total - share) / total if total > 0 else 1 - 1 / len(parts)

    def blend(past: float, new: float) -> float:
        return new if old is None else before * past + (1 - before) * new

    opened = min(summary.entry_ts, old.opened_at) if old else summary.entry_ts
    return Observation(
        module="dm",
        pattern_key=asked.pattern_key,
        action_category=asked.action_category,
        unit_id=closed.decision_id,
        ts=max(summary.exit_ts, old.ts) if old else summary.exit_ts,
        opened_at=opened,
        y=_mean(parts),
        roi=blend(old.roi if old else 0.0, summary.roi),
        pnl_usd=float(summary.pnl_usd) + (old.pnl_usd if old else 0.0),
        weight=min(1.0, total / asked.allocation_pct) if asked.allocation_pct > 0 else 1.0,
        token=strand.symbol,
        day=opened // DAY,
        scope=dict(canonical("dm", made.scope)),
        hold_days=blend(old.hold_days if old else 0.0, summary.hold_days),
        time_efficiency=blend(old.time_efficiency if old else 0.0, summary.time_efficiency),
        n_actions=len(parts),
        holdout=in_holdout(made.arm, HOLDOUT_CHANNEL["dm"]),
        parts=parts,
    )
