"""Curators and their scores, folded from signals and closed trades (trading.md 1.1)."""

from __future__ import annotations

from edgebook.domain.book import Curator
from edgebook.domain.decay import HOUR, decay
from edgebook.domain.errors import TradingError
from edgebook.domain.strands import PositionClosed, SocialLowcap, Strand
from edgebook.domain.values import replace

PRIOR_WINS = 5
PRIOR_TRADES = 10
ROI_HALF_LIFE_HOURS = 30 * 24.0
NEW_SCORE = 0.6


def evolve_curator(curator: Curator | None, strand: Strand) -> Curator:
    """The curator after ``strand``: a signal counts, a closed trade under one of its signals moves the score.

    A curator nobody registered begins as ``testing`` with score 0.6 (decisions 40).

    Raises:
        TradingError: a closed trade of a curator that never gave a signal.
    """
    payload = strand.payload
    if isinstance(payload, SocialLowcap):
        known = curator or Curator(payload.curator, "testing", NEW_SCORE, NEW_SCORE, first_seen=strand.ts_event)
        return replace(known, signals=known.signals + 1, last_signal_at=max(known.last_signal_at, strand.ts_event))
    if not isinstance(payload, PositionClosed):
        if curator is None:
            raise TradingError(f"strand {strand.id} of kind {strand.kind} says nothing of a curator", stage="curators")
        return curator
    if curator is None:
        raise TradingError(
            f"trade {strand.trade_id} closed for curator {payload.curator_id!r}, who gave no signal", stage="curators"
        )
    return _after_trade(curator, strand.ts_event, payload.summary.roi)


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
    mean_roi = grown.pnl_sum / grown.pnl_weight
    return replace(grown, score=curator_score(grown.base_weight, grown.wins, grown.trades, mean_roi))


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
