"""Curators and their scores, folded from the registry, signals and closed trades (trading.md 1.1)."""

from __future__ import annotations

from collections.abc import Iterable

from edgebook.domain.book import Curator
from edgebook.domain.decay import HOUR, decay
from edgebook.domain.errors import TradingError
from edgebook.domain.ids import stable_id
from edgebook.domain.strands import CuratorRegistered, PositionClosed, SocialLowcap, Strand
from edgebook.domain.values import replace

PRIOR_WINS = 5
PRIOR_TRADES = 10
ROI_HALF_LIFE_HOURS = 30 * 24.0
NEW_SCORE = 0.6


def evolve_curator(curator: Curator | None, strand: Strand) -> Curator:
    """The curator after ``strand``: a registration says who it is, a signal counts, a closed trade under one of its
    signals moves the score.

    A curator nobody registered begins as ``testing`` with score 0.6 (decisions 40).

    Raises:
        TradingError: a closed trade of a curator that never gave a signal.
    """
    payload = strand.payload
    if isinstance(payload, SocialLowcap):
        return _after_signal(curator or _stranger(payload.curator), strand.ts_event)
    if isinstance(payload, CuratorRegistered):
        return _registered(curator or _stranger(payload.curator), payload, strand.seq)
    if not isinstance(payload, PositionClosed):
        if curator is None:
            raise TradingError(f"strand {strand.id} of kind {strand.kind} says nothing of a curator", stage="curators")
        return curator
    if curator is None:
        raise TradingError(
            f"trade {strand.trade_id} closed for curator {payload.curator_id!r}, who gave no signal", stage="curators"
        )
    return _after_trade(curator, strand.ts_event, payload.summary.roi)


def registration(curator: Curator | None) -> CuratorRegistered | None:
    """What the registry last said of a curator; None for one it never spoke of."""
    if curator is None or not curator.registered:
        return None
    return CuratorRegistered(
        curator=curator.id,
        name=curator.name,
        enabled=curator.enabled,
        status=curator.status,
        base_weight=curator.base_weight,
        handles=curator.handles,
        tags=curator.tags,
        notes=curator.notes,
    )


def registration_strand(entry: CuratorRegistered, known: Curator | None, now: int) -> Strand | None:
    """The ``curator_registered`` strand of a registry's entry, None where the book knows just that already."""
    if registration(known) == entry:
        return None
    return Strand(
        id=stable_id(entry.kind, entry.curator, known.registered if known else 0),
        payload=entry,
        ts_event=now,
        ts_recorded=now,
        module="dm",
        tags=(entry.kind, entry.status),
    )


def addresses(curators: Iterable[Curator]) -> dict[str, str]:
    """Curator id of the registry by `written` id, or ``platform:handle``; one that moved belongs to whom the registry
    gave it last. An id goes before a handle of the same name.

    Ids that differ only in case are one curator, under the spelling the registry gave last.
    """
    known = sorted((curator for curator in curators if curator.registered), key=lambda c: c.registered)
    handles = {written(handle): curator.id for curator in known for handle in curator.handles}
    ids = {written(curator.id): curator.id for curator in known}
    spoken = {handle: ids[written(ident)] for handle, ident in handles.items()}
    return spoken | ids


def written(address: str) -> str:
    """How an id or handle is compared: without blanks around it, case ignored.

    >>> written(" Ann "), written("ANN") == written("ann")
    ('ann', True)
    """
    return address.strip().casefold()


def _stranger(ident: str) -> Curator:
    return Curator(ident, "testing", NEW_SCORE, NEW_SCORE)


def _after_signal(curator: Curator, ts: int) -> Curator:
    return replace(
        curator,
        signals=curator.signals + 1,
        first_seen=min(curator.first_seen, ts) if curator.signals else ts,
        last_signal_at=max(curator.last_signal_at, ts),
    )


def _registered(curator: Curator, entry: CuratorRegistered, seq: int) -> Curator:
    grown = replace(
        curator,
        name=entry.name,
        enabled=entry.enabled,
        status=entry.status,
        base_weight=entry.base_weight,
        handles=entry.handles,
        tags=entry.tags,
        notes=entry.notes,
        registered=seq,
    )
    return _scored(grown)


def _after_trade(curator: Curator, ts: int, roi: float) -> Curator:
    anchor = max(curator.pnl_anchor_ts, ts)
    old = decay((anchor - curator.pnl_anchor_ts) / HOUR, ROI_HALF_LIFE_HOURS) if curator.trades else 0.0
    new = decay((anchor - ts) / HOUR, ROI_HALF_LIFE_HOURS)
    grown = replace(
        curator,
        trades=curator.trades + 1,
        wins=curator.wins + (roi > 0),
        pnl_weight=curator.pnl_weight * old + new,
        pnl_sum=curator.pnl_sum * old + new * roi,
        pnl_anchor_ts=anchor,
    )
    return _scored(grown)


def _scored(curator: Curator) -> Curator:
    mean_roi = curator.pnl_sum / curator.pnl_weight if curator.pnl_weight else 0.0
    return replace(curator, score=curator_score(curator.base_weight, curator.wins, curator.trades, mean_roi))


def curator_score(base: float, wins: int, trades: int, mean_roi: float) -> float:
    """Score in [0, 1] of a curator with ``trades`` closed trades, ``wins`` of them positive.

    ``score = clip(base + (performance - 1/2) / 2)`` with ``performance = clip(win/2 + (1/2 + pnl)/2)``,
    ``win = (wins + 5) / (trades + 10)``, ``pnl = mean_roi * trades / (trades + 10)`` (trading.md 1.1, with performance
    as a deviation from its neutral 1/2, so that a curator without trades keeps its base).

    >>> curator_score(0.6, 0, 0, 0.0)
    0.6
    >>> round(curator_score(0.6, 10, 10, 0.2), 4)
    0.6875
    """
    win = (wins + PRIOR_WINS) / (trades + PRIOR_TRADES)
    pnl = mean_roi * trades / (trades + PRIOR_TRADES)
    performance = _unit(0.5 * win + 0.5 * (0.5 + pnl))
    return _unit(base + 0.5 * (performance - 0.5))


def _unit(x: float) -> float:
    return min(1.0, max(0.0, x))
