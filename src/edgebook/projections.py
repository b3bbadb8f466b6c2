"""The one fold from strand to rows of the book: live and rebuild both use it, so they cannot differ (architecture law
1)."""

from __future__ import annotations

from edgebook.domain.book import Account
from edgebook.domain.strands import (
    DecisionLowcap,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    PmAction,
    PositionClosed,
    SocialLowcap,
    Strand,
)
from edgebook.ports import UnitOfWork
from edgebook.trading.curators import evolve_curator
from edgebook.trading.decision import decision_row
from edgebook.trading.position import evolve, evolve_account
from edgebook.trading.projections import evolve_order, trade_of

POSITION_KINDS = frozenset(
    {
        "position_status",
        "pm_action",
        "order_filled",
        "order_rejected",
        "order_expired",
        "uptrend_stage_transition",
        "position_closed",
    }
)


def project(uow: UnitOfWork, strand: Strand, opening: Account) -> None:
    """Apply one appended strand to positions, orders, accounts, trades, decisions and curators.

    Args:
        opening: the account of the book before its first fill.
    """
    payload = strand.payload
    if strand.position_id and strand.kind in POSITION_KINDS:
        uow.positions.put(evolve(uow.positions.get(strand.position_id), strand))
    if isinstance(payload, PmAction | OrderFilled | OrderRejected | OrderExpired):
        uow.orders.put(evolve_order(uow.orders.get(payload.client_id), strand))
    if isinstance(payload, OrderFilled):
        uow.accounts.put(evolve_account(uow.accounts.get(opening.book) or opening, strand))
    elif isinstance(payload, SocialLowcap):
        uow.curators.put(evolve_curator(uow.curators.get(payload.curator), strand))
    elif isinstance(payload, DecisionLowcap) and payload.action == "approve":
        uow.decisions.put(decision_row(strand))
    elif isinstance(payload, PositionClosed):
        uow.trades.put(trade_of(strand))
        if payload.curator_id:
            uow.curators.put(evolve_curator(uow.curators.get(payload.curator_id), strand))
