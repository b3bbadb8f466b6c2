"""The decision maker: a social signal becomes an approved or rejected decision, and positions to watch (trading.md
1.5-1.7).

Every gate is evaluated and logged; a datum that is absent makes its gate ``passed=None`` (not evaluated), never a
silent pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgebook.domain.book import Context, Curator, Decision, Position
from edgebook.domain.ids import hash_share, stable_id
from edgebook.domain.pattern import DM_ALLOCATION
from edgebook.domain.regime import Regime
from edgebook.domain.scope import DM_SCHEMA, ScopeItems, ScopeValue, make_scope
from edgebook.domain.strands import DecisionLowcap, GateResult, SocialLowcap, Strand
from edgebook.market.composite import cap_class
from edgebook.overrides.combine import Applied, apply_allocation_overrides
from edgebook.overrides.history import ConfigHistory
from edgebook.trading.coefficients import NEUTRAL, Lookup, Weighing, beside, no_coefficient, static_multipliers, weigh
from edgebook.trading.position import position_id
from edgebook.trading.rules import BUY_INTENTS, COEFFICIENTS, DecisionRules, TradingRules, interpolate, timeframe_splits
from edgebook.trading.signals import message_order
from edgebook.trading.status import status_strand

MARKET_CAPS = (
    (5e5, "<500k"), (1e6, "500k-1m"), (2e6, "1m-2m"), (5e6, "2m-5m"), (1e7, "5m-10m"), (5e7, "10m-50m"),
    (5e8, "50m-500m"), (1e9, "500m-1b"), (5e9, "1b-5b"), (float("inf"), "5b+"),
)  # fmt: skip
VOLUMES = (
    (1e4, "<10k"), (5e4, "10k-50k"), (1e5, "50k-100k"), (2.5e5, "100k-250k"), (5e5, "250k-500k"), (1e6, "500k-1m"),
    (1e7, "1m-10m"), (5e7, "10m-50m"), (2.5e8, "50m-250m"), (float("inf"), "250m+"),
)  # fmt: skip
AGES = (
    (1, "<1d"), (3, "1-3d"), (7, "3-7d"), (14, "7-14d"), (30, "14-30d"), (90, "30-90d"), (float("inf"), "90d+"),
)  # fmt: skip
RATIOS = (
    (0.1, "<0.1"), (0.5, "0.1-0.5"), (1.0, "0.5-1.0"), (2.0, "1.0-2.0"), (5.0, "2.0-5.0"), (20.0, "5.0-20"),
    (50.0, "20-50"), (100.0, "50-100"), (float("inf"), "100+"),
)  # fmt: skip


class TokenFacts(Protocol):
    """What the token table says of a symbol."""

    @property
    def ticker(self) -> str:
        """Short name."""
        ...

    @property
    def mcap_usd(self) -> float | None:
        """Market cap in USD where known."""
        ...


@dataclass(frozen=True, slots=True)
class Decided:
    """What a signal led to: the decision strand first, then one status strand per position it touches.

    ``decision`` is the row of an approved decision, None when rejected.
    """

    strands: tuple[Strand, ...]
    decision: Decision | None


def bucket(table: Sequence[tuple[float, str]], value: float | None) -> str | None:
    """Name of the interval [lo, hi) that holds ``value``; None when there is no value (decisions 60).

    >>> bucket(MARKET_CAPS, 499_999), bucket(MARKET_CAPS, 500_000), bucket(MARKET_CAPS, 7e9), bucket(MARKET_CAPS, None)
    ('<500k', '500k-1m', '5b+', None)
    """
    return None if value is None else next(name for upper, name in table if value < upper or upper == float("inf"))


def market_cap(signal: SocialLowcap, tokens: Mapping[str, TokenFacts]) -> float | None:
    """Market cap in USD: the signal's, else the token table's, else None."""
    if signal.mcap_usd is not None:
        return signal.mcap_usd
    token = tokens.get(signal.symbol)
    return token.mcap_usd if token else None


def signal_cap_class(signal: SocialLowcap, tokens: Mapping[str, TokenFacts]) -> str:
    """Cap class of the signal's token, "" when its market cap is not known; frozen at the decision (decisions 45)."""
    return cap_class(market_cap(signal, tokens))


def dm_scope(signal: SocialLowcap, mcap: float | None, regime: ScopeItems) -> ScopeItems:
    """The decision's scope: who, what, how sure, and the market (13 dims; learning.md 2).

    PM dims of ``regime`` (A_mode, E_mode) are left out: they are no business of an allocation.
    """
    volume = signal.vol24h_usd
    ratio = None if mcap is None or volume is None else (mcap / volume if volume > 0 else float("inf"))
    values: dict[str, ScopeValue | None] = {
        "curator": signal.curator,
        "chain": signal.chain,
        "mcap_bucket": bucket(MARKET_CAPS, mcap),
        "vol_bucket": bucket(VOLUMES, volume),
        "age_bucket": bucket(AGES, signal.age_days),
        "intent": signal.intent,
        "mapping_confidence": signal.mapping_confidence,
        "mcap_vol_ratio_bucket": bucket(RATIOS, ratio),
    }
    values.update((dim, value) for dim, value in regime if dim in DM_SCHEMA.dims)
    return make_scope(DM_SCHEMA, values)


# ---------------------------------------------------------------- allocation


def base_allocation(score: float, rules: DecisionRules) -> float:
    """Base allocation in percent of the book by curator score (decisions 42).

    >>> [round(base_allocation(s, DecisionRules()), 6) for s in (0.3, 0.55, 0.6, 0.9)]
    [4.0, 5.0, 6.0, 15.0]
    """
    return interpolate(rules.score_knots, score)


def allocation(base: float, coefficient: float, static: float, alloc_mult: float, rules: DecisionRules) -> float:
    """Allocation in percent: ``clip(base * coefficient * static * alloc_mult, min, max)`` (trading.md 1.6).

    >>> round(allocation(15.0, 1.2, 1.0, 1.1, DecisionRules()), 6)
    19.8
    >>> allocation(15.0, 2.0, 1.0, 1.3, DecisionRules())
    20.0
    """
    return min(rules.max_pct, max(rules.min_pct, base * coefficient * static * alloc_mult * rules.test_mult))


# ---------------------------------------------------------------- gates


def approval_gates(
    signal: SocialLowcap,
    curator: Curator | None,
    mcap: float | None,
    *,
    known: bool | None,
    holding: Sequence[str],
    active: int | None,
    rules: DecisionRules,
) -> tuple[GateResult, ...]:
    """All gates of trading.md 1.5, each with ``passed`` (None: not evaluated, its datum is absent) and a detail.

    Args:
        known: whether the token table has the symbol; None when there is no table.
        holding: timeframes on which the token is held; informative (decisions 41 decides again when flat).
        active: positions of the book that have a trade open; from ``warn_positions`` on a warning, never a refusal;
            None when not counted.
    """
    chain = signal.chain in rules.chains
    buy = signal.intent in BUY_INTENTS
    held = f"held on {', '.join(holding)}: the decision waits for those" if holding else "not held"
    crowded = active is not None and active >= rules.warn_positions
    return (
        GateResult(
            "supported_chain",
            chain,
            f"{signal.chain} {'is' if chain else 'is not'} one of {', '.join(sorted(rules.chains))}",
        ),
        _curator_gate(curator, rules),
        GateResult("intent_buy", buy, f"intent {signal.intent} {'asks' if buy else 'does not ask'} for a buy"),
        GateResult("known_token", known, _known_detail(signal.symbol, known)),
        GateResult("not_already_holding", True, held),
        GateResult("portfolio_capacity", None if active is None else True, _capacity_detail(active, crowded, rules)),
        _floor("market_cap", mcap, rules.floor_mcap_usd, 0.0),
        _floor("liquidity", signal.liquidity_usd, rules.floor_liquidity_usd, rules.note_liquidity_usd),
        _floor("volume", signal.vol24h_usd, 0.0, rules.note_volume_usd),
        GateResult(
            "age",
            None if signal.age_days is None else True,
            "age unknown" if signal.age_days is None else f"{signal.age_days:g} days",
        ),
    )


def _curator_gate(curator: Curator | None, rules: DecisionRules) -> GateResult:
    if curator is None:
        detail = f"unregistered: testing, score {rules.new_curator_score:g}"
        return GateResult("curator_score", rules.unregistered_passes, detail)
    if not curator.followed:
        return GateResult("curator_score", False, f"curator is {curator.status if curator.enabled else 'disabled'}")
    allowed = bool(curator.registered) or rules.unregistered_passes
    passed = allowed and curator.score >= rules.min_curator_score
    standing = curator.status if curator.registered else f"unregistered: {curator.status}"
    return GateResult(
        "curator_score", passed, f"{standing}, score {curator.score:.4f}, needs {rules.min_curator_score:g}"
    )


def _known_detail(symbol: str, known: bool | None) -> str:
    if known is None:
        return "no token table to look in"
    return f"{symbol} {'is' if known else 'is not'} in the token table"


def _capacity_detail(active: int | None, crowded: bool, rules: DecisionRules) -> str:
    if active is None:
        return "active positions not counted"
    return f"{active} active positions" + (f", warning: {rules.warn_positions} or more" if crowded else "")


def _floor(name: str, value: float | None, floor: float, note: float) -> GateResult:
    if value is None:
        return GateResult(name, None, f"{name} unknown, not evaluated")
    if value < floor:
        return GateResult(name, False, f"{value:g} USD is below the floor of {floor:g}")
    return GateResult(name, True, f"{value:g} USD" + (f", note: below {note:g}" if value < note else ""))


# ---------------------------------------------------------------- decide


def decide(
    signal: Strand,
    *,
    curator: Curator | None,
    positions: Mapping[str, Position],
    regime: Regime,
    tokens: Mapping[str, TokenFacts],
    bars_count: Mapping[str, int],
    history: ConfigHistory,
    rules: TradingRules,
    now: int,
    active_positions: int | None = None,
    answered: Mapping[str, Strand] | None = None,
    coefficient: Lookup = no_coefficient,
) -> Decided:
    """Approve or reject a signal, size the approval, and hand it to one position per timeframe.

    Args:
        signal: a ``social_lowcap`` strand.
        curator: row of the signal's curator, None if nobody knows it.
        positions: the token's existing positions by timeframe.
        regime: the market at ``now``; only its DM dims enter the scope.
        active_positions: positions of the book that have a trade open.
        bars_count: closed bars per timeframe; a new position is watched from ``bars_threshold`` on, dormant below.
        now: microseconds UTC.
        answered: per timeframe the newest signal the position there answers to already.
        coefficient: row of a coefficient by key; asked only where the rules have coefficients on.

    A flat position takes the decision up at once, an archived one wakes for it. One that holds, or whose first buy is
    on the way, keeps its own and remembers this one as pending (decisions 41). Paused ones are left alone, and so are
    those that answer to a newer message: late and shuffled deliveries end where ordered ones do. The decision lists
    the positions it reaches, no others. The same signal always gives the same ids.
    """
    said = signal.payload
    assert isinstance(said, SocialLowcap)
    mcap = market_cap(said, tokens)
    scope = dm_scope(said, mcap, regime.scope)
    gates = approval_gates(
        said,
        curator,
        mcap,
        known=said.symbol in tokens if tokens else None,
        holding=[tf for tf in rules.timeframes if tf in positions and _occupied(positions[tf])],
        active=active_positions,
        rules=rules.dm,
    )
    failed = [gate for gate in gates if gate.passed is False]
    decision_id = stable_id("decision_lowcap", signal.id)
    holdout = hash_share(decision_id, "dm") < rules.holdout
    applied = apply_allocation_overrides(history, scope, now, holdout=holdout)
    weighing = _weighing(said, mcap, scope, coefficient, rules, now)
    touched = [] if failed else _open_to_it(signal, positions, answered or {}, rules)
    strand = _decision_strand(
        signal, said, curator, scope, gates, failed, touched, applied, weighing, holdout, mcap, regime, rules, now
    )
    if failed:
        return Decided((strand,), None)
    row = decision_row(strand)
    statuses = (_hand_over(strand, row, positions.get(tf), tf, bars_count.get(tf, 0), rules) for tf in touched)
    return Decided((strand, *statuses), row)


def _open_to_it(
    signal: Strand, positions: Mapping[str, Position], answered: Mapping[str, Strand], rules: TradingRules
) -> list[str]:
    """Timeframes whose position takes the decision up or lets it wait: not paused, and no newer message answered."""
    newer = {tf for tf, other in answered.items() if message_order(other) > message_order(signal)}
    paused = {tf for tf, position in positions.items() if position.status == "paused"}
    return [tf for tf in rules.timeframes if tf not in newer | paused]


def _occupied(position: Position) -> bool:
    """Whether a decision is at work there: a trade is open, or its first buy is on the way."""
    return bool(position.trade_id or position.planned)


def _weighing(
    said: SocialLowcap,
    mcap: float | None,
    scope: ScopeItems,
    coefficient: Lookup,
    rules: TradingRules,
    now: int,
) -> Weighing:
    """What the coefficients that the rules have on make of a decision."""
    if rules.dm.coefficients == "off":
        return NEUTRAL
    everything = rules.dm.coefficients == "all"
    return weigh(
        scope,
        coefficient,
        now,
        dims=COEFFICIENTS.dims if everything else COEFFICIENTS.pair,
        timeframes=rules.timeframes if everything else (),
        static=static_multipliers(said, mcap),
    )


def _decision_strand(
    signal: Strand,
    said: SocialLowcap,
    curator: Curator | None,
    scope: ScopeItems,
    gates: tuple[GateResult, ...],
    failed: Sequence[GateResult],
    touched: Sequence[str],
    applied: Applied,
    weighing: Weighing,
    holdout: bool,
    mcap: float | None,
    regime: Regime,
    rules: TradingRules,
    now: int,
) -> Strand:
    score = curator.score if curator else rules.dm.new_curator_score
    base = base_allocation(score, rules.dm)
    learned, static = beside(weighing.coefficient_mult, applied.alloc_mult), weighing.static_mult
    total = 0.0 if failed else allocation(base, learned, static, applied.alloc_mult, rules.dm)
    splits = timeframe_splits(rules.timeframes, rules.dm.splits, weighing.timeframes)
    decision_id = stable_id("decision_lowcap", signal.id)
    ids = tuple(position_id(said.chain, said.contract, tf, rules.book) for tf in touched)
    payload = DecisionLowcap(
        source_strand_id=signal.id,
        curator_id=said.curator,
        symbol=said.symbol,
        chain=said.chain,
        contract=said.contract,
        action="reject" if failed else "approve",
        allocation_pct=total,
        base_allocation_pct=base,
        coefficient_mult=learned,
        static_mult=static,
        alloc_mult=applied.alloc_mult,
        curator_score=score,
        gates=gates,
        reasoning="; ".join(f"{gate.name}: {gate.detail}" for gate in failed)
        or "every gate passed or was not evaluated",
        pattern_key=DM_ALLOCATION.key,
        action_category=DM_ALLOCATION.category,
        position_ids=ids,
        timeframe_splits=splits,
        entry_context=_entry_context(said, score, mcap, dict(scope), total, decision_id),
        nudges=applied.nudges,
        coefficients=weighing.parts,
    )
    return Strand(
        id=decision_id,
        payload=payload,
        ts_event=now,
        ts_recorded=now,
        module="dm",
        symbol=said.symbol,
        correlation_id=signal.correlation_id or signal.id,
        causation_id=signal.id,
        config_version=applied.config_version,
        arm="dm" if holdout else "",
        scope=dict(scope),
        regime_snapshot_id=regime.snapshot_id,
        tags=("decision", "rejected" if failed else "approved"),
    )


def _entry_context(
    said: SocialLowcap,
    score: float,
    mcap: float | None,
    scope: Mapping[str, ScopeValue],
    total: float,
    decision_id: str,
) -> Context:
    buckets = ("mcap_bucket", "vol_bucket", "age_bucket", "mcap_vol_ratio_bucket")
    return {
        "curator": said.curator,
        "curator_id": said.curator,
        "curator_score": score,
        "chain": said.chain,
        "token_contract": said.contract,
        "token_ticker": said.ticker,
        "intent": said.intent,
        "mapping_confidence": said.mapping_confidence,
        "mcap_at_entry": mcap,
        "vol_at_entry": said.vol24h_usd,
        "age_at_entry": said.age_days,
        "cap_class": cap_class(mcap),
        "allocation_pct": total,
        "decision_strand_id": decision_id,
        **{name: scope.get(name) for name in buckets},
    }


def decision_row(strand: Strand) -> Decision:
    """The row of an approved ``decision_lowcap`` strand."""
    said = strand.payload
    assert isinstance(said, DecisionLowcap)
    return Decision(
        id=strand.id,
        ts=strand.ts_event,
        signal_id=strand.correlation_id,
        symbol=said.symbol,
        chain=said.chain,
        contract=said.contract,
        curator_id=said.curator_id,
        allocation_pct=said.allocation_pct,
        timeframe_splits=said.timeframe_splits,
        entry_context=said.entry_context,
        cap_class=str(said.entry_context.get("cap_class") or ""),
    )


def _hand_over(
    cause: Strand, row: Decision, position: Position | None, timeframe: str, bars: int, rules: TradingRules
) -> Strand:
    if position is None:
        status = "watchlist" if bars >= rules.dm.bars_threshold else "dormant"
        new = position_id(row.chain, row.contract, timeframe, rules.book)
        blank = Position(new, row.symbol, row.chain, row.contract, timeframe, rules.book, "", row.ts)
        return status_strand(blank, status=status, reason="created", cause=cause, decision=row)
    if position.status == "archived":
        status = "watchlist" if bars >= rules.dm.bars_threshold else "dormant"
        return status_strand(position, status=status, reason="woken", cause=cause, decision=row)
    if _occupied(position):
        return status_strand(position, status=position.status, reason="decision_waits", cause=cause, pending_id=row.id)
    return status_strand(position, status=position.status, reason="decided_again", cause=cause, decision=row)
