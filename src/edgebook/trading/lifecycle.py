"""Waking, pausing, resuming and archiving positions: by bars, by an operator, or for want of signals (trading.md 2).

| to | from | means |
|---|---|---|
| ``paused`` | watchlist, active, closing | nothing is bought; exits, trims and emergency exits go on |
| ``archived`` | watchlist, dormant, paused; flat | not ticked; bars and history stay; a new decision wakes it |
| back | paused | active where a trade is open, else watchlist; an exit that was begun goes on |
| back | archived | watchlist, or dormant while it lacks bars; it waits for the start of an attempt |
"""

from __future__ import annotations

from edgebook.domain.book import Decision, Position, TokenIntents
from edgebook.domain.errors import InputError
from edgebook.domain.strands import Strand
from edgebook.trading.rules import TradingRules
from edgebook.trading.status import status_of_its_own, status_payload

WISHES = ("pause", "resume", "archive")
_PAUSABLE = ("watchlist", "active", "closing")


def awake_strand(
    position: Position, bars: int, now: int, rules: TradingRules, correlation_id: str = ""
) -> Strand | None:
    """The strand that wakes a dormant position once it has ``bars_threshold`` closed bars; None while it sleeps on."""
    if position.status != "dormant" or bars < rules.dm.bars_threshold:
        return None
    payload = status_payload(position, "watchlist", "enough_bars")
    return status_of_its_own(position, payload, now, "enough_bars", now=now, correlation_id=correlation_id)


def turn(position: Position, wish: str, *, bars: int, now: int, rules: TradingRules, signal_id: str) -> Strand | None:
    """What an operator's wish does to a position; None where it stands so already.

    Args:
        wish: ``pause``, ``resume`` or ``archive``.
        bars: closed bars that count for waking it.
        signal_id: the signal of the position's decision.

    Raises:
        InputError: the position cannot be given that status now; says why and what would do.
    """
    if wish == "resume":
        status = _resumed(position, bars, rules)
    else:
        status = _paused(position) if wish == "pause" else _archived(position)
    return None if status == position.status else _strand(position, status, "operator", now, signal_id)


def retire(
    position: Position, said: TokenIntents | None, decision: Decision | None, now: int, rules: TradingRules
) -> Strand | None:
    """The strand that archives a flat position nobody has spoken of for ``archive_after``; None while it stays.

    The time runs from the newest of: a mention of the token that has a channel, the position's decision, and the last
    change of its status.
    """
    if not rules.pm.archive_after or position.status not in ("watchlist", "dormant") or not _flat(position):
        return None
    last = max(position.status_since, said.last_at if said else 0, decision.ts if decision else 0)
    if now - last < rules.pm.archive_after:
        return None
    return _strand(position, "archived", "no_signal", now, decision.signal_id if decision else "")


def _flat(position: Position) -> bool:
    return not (position.holding or position.trade_id or position.planned)


def _paused(position: Position) -> str:
    if position.status not in (*_PAUSABLE, "paused"):
        raise InputError(f"position {position.id} is {position.status}: nothing is bought there; archive or leave it")
    return "paused"


def _archived(position: Position) -> str:
    if not _flat(position):
        what = "an order open" if position.planned else "a trade open"
        raise InputError(f"position {position.id} has {what}; pause it now, and archive it once it is flat")
    return "archived"


def _resumed(position: Position, bars: int, rules: TradingRules) -> str:
    if position.status == "archived":
        return "watchlist" if bars >= rules.dm.bars_threshold else "dormant"
    if position.status != "paused":
        return position.status
    if position.exit_reason:
        return "closing"
    return "active" if position.trade_id else "watchlist"


def _strand(position: Position, status: str, reason: str, now: int, signal_id: str) -> Strand:
    return status_of_its_own(
        position,
        status_payload(position, status, reason),
        status,
        position.last_seq,
        now=now,
        correlation_id=signal_id,
        causation_id=position.decision_id,
        trade_id=position.trade_id,
    )
