"""Envelopes of strands about a position: of one bar, and of what happens between bars."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from edgebook.domain.book import Position
from edgebook.domain.ids import hash_share, stable_id
from edgebook.domain.scope import PM_SCHEMA, ScopeItems, make_scope
from edgebook.domain.strands import Payload, ScopeDict, Strand
from edgebook.domain.values import maker

_strand = maker(Strand)


@dataclass(slots=True)
class Envelope:
    """What every strand of one bar of one position carries (decisions 32)."""

    position_id: str
    symbol: str
    timeframe: str
    ts: int
    correlation_id: str
    causation_id: str
    trade_id: str
    config_version: int
    arm: str
    scope: ScopeDict
    regime_snapshot_id: str

    def strand(
        self,
        payload: Payload,
        *key: str | int,
        episode_id: str = "",
        scope: ScopeDict | None = None,
        config_version: int | None = None,
        tags: tuple[str, ...] = (),
    ) -> Strand:
        """A strand of this bar whose id is the stable id of its kind and ``key``."""
        return _strand(
            id=stable_id(payload.kind, *key),
            payload=payload,
            ts_event=self.ts,
            ts_recorded=self.ts,
            module="pm",
            symbol=self.symbol,
            timeframe=self.timeframe,
            position_id=self.position_id,
            trade_id=self.trade_id,
            episode_id=episode_id,
            correlation_id=self.correlation_id,
            causation_id=self.causation_id,
            config_version=self.config_version if config_version is None else config_version,
            arm=self.arm,
            scope=self.scope if scope is None else scope,
            regime_snapshot_id=self.regime_snapshot_id,
            tags=tags or (payload.kind,),
        )


def about(
    position: Position,
    payload: Payload,
    ident: str,
    ts: int,
    recorded: int,
    *,
    trade_id: str = "",
    correlation_id: str = "",
    causation_id: str = "",
    config_version: int = 0,
    arm: str = "",
    scope: ScopeDict = MappingProxyType({}),
    regime_snapshot_id: str = "",
    tags: tuple[str, ...] = (),
) -> Strand:
    """A strand about a position that belongs to no bar of its own: an order's fate, a close, a status.

    Args:
        ts, recorded: when it happened, and when it was written down, microseconds UTC.
    """
    return Strand(
        id=ident,
        payload=payload,
        ts_event=ts,
        ts_recorded=recorded,
        module="pm",
        symbol=position.symbol,
        timeframe=position.timeframe,
        position_id=position.id,
        trade_id=trade_id,
        correlation_id=correlation_id,
        causation_id=causation_id,
        config_version=config_version,
        arm=arm,
        scope=scope,
        regime_snapshot_id=regime_snapshot_id,
        tags=tags,
    )


@dataclass(frozen=True, slots=True)
class Arms:
    """Which channels an attempt is a holdout of (decisions 46)."""

    strength: bool
    tuning: bool

    @property
    def text(self) -> str:
        """Envelope form: the channels, comma separated; "" for none."""
        return ",".join(name for name, on in (("strength", self.strength), ("tuning", self.tuning)) if on)


@lru_cache(maxsize=4096)
def arms_of(attempt: str, share: float) -> Arms:
    """The arms of an attempt: each channel draws its own stable ``share`` of attempts; no attempt, no holdout."""
    if not attempt:
        return Arms(False, False)
    return Arms(hash_share(attempt, "strength") < share, hash_share(attempt, "tuning") < share)


@lru_cache(maxsize=65_536)
def pm_scope(regime: ScopeItems, market_family: str, cap_class: str, timeframe: str) -> ScopeItems:
    """The PM scope: the regime's dims with A_mode and E_mode before overrides, and what the position is (learning.md
    2).

    >>> pm_scope((("macro_phase", "Good"), ("A_mode", "normal")), "lowcaps", "micro", "1h")[-2:]
    (('timeframe', '1h'), ('A_mode', 'normal'))
    """
    return make_scope(
        PM_SCHEMA, {**dict(regime), "market_family": market_family, "bucket": cap_class, "timeframe": timeframe}
    )
