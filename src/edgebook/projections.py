"""The one fold from strand to rows of the book: live and rebuild both use it, so they cannot differ (architecture law
1)."""

from __future__ import annotations

from edgebook.domain.book import Account
from edgebook.domain.mentions import token_key
from edgebook.domain.strands import (
    CuratorRegistered,
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
from edgebook.trading.coefficients import evolve_coefficients
from edgebook.trading.curators import evolve_curator
from edgebook.trading.decision import decision_row
from edgebook.trading.intents import evolve_intents
from edgebook.trading.position import evolve, evolve_account
from edgebook.trading.projections import evolve_order, trade_of
from edgebook.trading.protections import evolve_protection, scopes_of

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


PROTECTION_KINDS = frozenset({"protection_changed", "nav_marked", "position_closed"})


def project(uow: UnitOfWork, strand: Strand, opening: Account) -> None:
    """Apply one appended strand to positions, orders, accounts, trades, decisions, curators, coefficients, intents and
    protections.

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
        uow.intents.put(evolve_intents(uow.intents.get(token_key(payload.chain, payload.contract)), strand))
    elif isinstance(payload, CuratorRegistered):
        uow.curators.put(evolve_curator(uow.curators.get(payload.curator), strand))
    elif isinstance(payload, DecisionLowcap) and payload.action == "approve":
        uow.decisions.put(decision_row(strand))
    elif isinstance(payload, PositionClosed):
        uow.trades.put(trade_of(strand))
        if payload.curator_id:
            uow.curators.put(evolve_curator(uow.curators.get(payload.curator_id), strand))
        _weigh(uow, strand)
    _protect(uow, strand)


def refold_protections(uow: UnitOfWork) -> None:
    """Fold the rows of ``protections`` where there is none yet: in a database from before there were any."""
    if not len(uow.protections):
        for strand in uow.log.read(0, PROTECTION_KINDS):
            _protect(uow, strand)


def refold_coefficients(uow: UnitOfWork) -> None:
    """Fold the rows of ``dm_coefficients`` where there is none yet: in a database from before there were any."""
    if not len(uow.coefficients):
        for strand in uow.log.read(0, ["position_closed"]):
            _weigh(uow, strand)


def _weigh(uow: UnitOfWork, strand: Strand) -> None:
    for row in evolve_coefficients(uow.coefficients.get, strand):
        uow.coefficients.put(row)


def _protect(uow: UnitOfWork, strand: Strand) -> None:
    for scope in scopes_of(strand):
        uow.protections.put(evolve_protection(uow.protections.get(scope), strand, scope))
