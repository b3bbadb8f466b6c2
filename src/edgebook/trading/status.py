"""``position_status``: the one strand that gives a position a status, a decision, or takes a waiting one away.

Everything it does not change it repeats, so that the fold needs no second source.
"""

from __future__ import annotations

from edgebook.domain.book import Decision, Position
from edgebook.domain.ids import stable_id
from edgebook.domain.strands import PositionStatus, Strand
from edgebook.trading.envelope import about


def status_payload(
    position: Position, status: str, reason: str, *, decision: Decision | None = None, pending_id: str | None = None
) -> PositionStatus:
    """What the strand says.

    Args:
        decision: decision taken up now (its allocation and cap class come with it); None keeps the present one.
        pending_id: decision that waits for this position to close, "" for none; None keeps the present one.
    """
    share = position.allocation_pct
    if decision is not None:
        share = decision.allocation_pct * decision.timeframe_splits[position.timeframe]
    return PositionStatus(
        status=status,
        previous=position.status,
        reason=reason,
        chain=position.chain,
        contract=position.contract,
        book=position.book,
        decision_id=decision.id if decision else position.decision_id,
        pending_decision_id=position.pending_decision_id if pending_id is None else pending_id,
        allocation_pct=share,
        cap_class=decision.cap_class if decision else position.cap_class,
    )


def status_of_its_own(
    position: Position,
    payload: PositionStatus,
    *key: str | int,
    now: int,
    correlation_id: str = "",
    causation_id: str = "",
    trade_id: str = "",
) -> Strand:
    """The strand of a change that no other strand caused: ``key`` and the position make its id."""
    return about(
        position,
        payload,
        stable_id("position_status", position.id, *key),
        now,
        now,
        trade_id=trade_id,
        correlation_id=correlation_id,
        causation_id=causation_id,
        tags=("position_status", payload.status),
    )


def status_strand(
    position: Position,
    *,
    status: str,
    reason: str,
    cause: Strand,
    decision: Decision | None = None,
    pending_id: str = "",
) -> Strand:
    """The strand of a change that follows from another.

    Args:
        cause: the strand it follows from; gives time, packet, config version and the rest of its id.
        decision, pending_id: as in `status_payload`; by default no decision waits any longer.
    """
    return about(
        position,
        status_payload(position, status, reason, decision=decision, pending_id=pending_id),
        stable_id("position_status", position.id, cause.id, reason),
        cause.ts_event,
        cause.ts_recorded,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        config_version=cause.config_version,
        tags=("position_status", status),
    )
