"""Every number of the trading rules, once, frozen, with its unit in its name (trading.md 7, with the values of
decisions.md).

Learned numbers are not here: they live in learning's configs and reach the rules as multipliers and gates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType

from edgebook.domain.errors import TradingError
from edgebook.domain.timeframe import nearest
from edgebook.engine.columns import MAX_GAP_BARS, S1_WINDOW_HALO
from edgebook.engine.gates import BASE_GATES

#: A rest worth less than this, or less than this share of what was bought, is dust: written off, not sold (trading.md
#: 4.3). These two are laws of the ledger, not settings: the log must fold to the same book under any settings.
DUST_USD = Decimal(1)
DUST_SHARE = Decimal("0.001")
#: A rest that the venue takes no order for is dust too, but never more than this, whatever the venue says.
WRITE_OFF_MOST_USD = Decimal(20)

BUY_INTENTS: frozenset[str] = frozenset(
    {"adding_to_position", "research_positive", "new_discovery", "comparison_highlighted", "other_positive"}
)
"""Intents that ask for a buy (trading.md 1.4); all others are stored and rejected."""

DEFAULT_SPLITS: Mapping[str, float] = MappingProxyType({"1m": 0.05, "15m": 0.125, "1h": 0.70, "4h": 0.125})


@dataclass(frozen=True, slots=True)
class DecisionRules:
    """Numbers of the decision maker (trading.md 1.5, 1.6; decisions 40, 42).

    Attributes:
        chains: supported chains.
        min_curator_score: scores below are rejected.
        unregistered_passes: whether a curator nobody registered may pass, as ``testing``.
        score_knots: (score, base allocation in percent), linear between, flat outside.
        min_pct, max_pct: clamp of the allocation, percent of the book.
        floor_mcap_usd, floor_liquidity_usd: hard floors; a datum that is present and below blocks.
        note_volume_usd, note_liquidity_usd: below these the gate passes with a note.
        splits: share of the allocation per timeframe.
        pending_days: how long a decision waits for a holding position to close.
        warn_positions: from so many positions with an open trade on, a decision carries a warning.
        bars_threshold: closed bars a position needs before it is watched.
        max_hole_bars: a hole of more missing bars than this starts that count anew; a tenth of the threshold.
        test_mult: factor of the allocation in test mode.
        coefficients: which coefficients multiply an allocation: ``off``, ``on`` or ``all`` (`CoefficientRules`).
    """

    chains: frozenset[str] = frozenset({"exchange", "solana", "ethereum", "base", "bsc"})
    min_curator_score: float = 0.1
    new_curator_score: float = 0.6
    unregistered_passes: bool = True
    score_knots: tuple[tuple[float, float], ...] = ((0.5, 4.0), (0.6, 6.0), (0.8, 15.0))
    min_pct: float = 0.1
    max_pct: float = 20.0
    floor_mcap_usd: float = 10_000.0
    floor_liquidity_usd: float = 5_000.0
    note_volume_usd: float = 100_000.0
    note_liquidity_usd: float = 20_000.0
    splits: Mapping[str, float] = field(default_factory=lambda: DEFAULT_SPLITS)
    pending_days: float = 7.0
    warn_positions: int = 69
    bars_threshold: int = 333
    max_hole_bars: int = 33
    test_mult: float = 1.0
    coefficients: str = "on"

    def __post_init__(self) -> None:
        if self.coefficients not in ("off", "on", "all"):
            raise TradingError(f"coefficients must be off, on or all, was {self.coefficients!r}", stage="settings")


@dataclass(frozen=True, slots=True)
class SizeRules:
    """Size fractions for a patient, a normal and an aggressive book, linear between ``knots`` and flat outside
    (trading.md 3.3)."""

    knots: tuple[float, float, float] = (0.15, 0.5, 0.85)
    s1: tuple[float, float, float] = (0.10, 0.30, 0.50)
    add: tuple[float, float, float] = (0.05, 0.15, 0.25)
    pool: tuple[float, float, float] = (0.10, 0.30, 0.60)
    dx: tuple[float, float, float] = (0.0333, 0.10, 0.20)
    reclaim: tuple[float, float, float] = (0.10, 0.30, 0.60)
    trim: tuple[float, float, float] = (0.15, 0.30, 0.60)
    max_trim: float = 0.9
    entry_mult_after_payback: float = 0.3
    trim_mult_steps: tuple[tuple[float, float], ...] = ((0.5, 1.5), (1.0, 1.0), (3.0, 0.3))
    trim_mult_beyond: float = 0.1


@dataclass(frozen=True, slots=True)
class PmRules:
    """Switches and cooldowns of the portfolio manager's rules (trading.md 3.4; decisions 9, 57-59).

    ``complete_partials``: what a partial fill left is ordered on the next bar while the signal holds (trading.md 4.3).
    ``archive_after``: time without a signal after which a flat position is archived, microseconds; 0 is never.
    ``pool_only``: rule 8 buys only when flat. ``trade_mid_attempt``: an attempt whose start was not seen is bought too.
    ``episode_block``, ``disaster_stop_atr`` (ATRs), ``max_bars_in_attempt`` and ``emergency_timeout_bars`` (bars) are
    the rules of `trading.terms`, off at False and 0.
    """

    s1_policy: str = "on_primer"
    first_dip_enabled: bool = True
    reclaim_enabled: bool = False
    pool_only: bool = False
    trade_mid_attempt: bool = False
    dx_step_atr: float = 0.5
    dx_max: int = 3
    trim_cooldown_bars: int = 3
    same_level_bars: int = 12
    same_level_atr: float = 0.5
    market_family: str = "lowcaps"
    order_ttl_seconds: int = 60
    complete_partials: bool = True
    archive_after: int = 0
    episode_block: bool = False
    disaster_stop_atr: float = 0.0
    max_bars_in_attempt: int = 0
    emergency_timeout_bars: int = 0

    def __post_init__(self) -> None:
        for name in ("disaster_stop_atr", "max_bars_in_attempt", "emergency_timeout_bars"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TradingError(f"{name} must be 0 (off) or more, was {getattr(self, name)}", stage="settings")
        if 0 < self.max_bars_in_attempt <= self.emergency_timeout_bars:
            raise TradingError(
                f"emergency_timeout_bars is {self.emergency_timeout_bars} and max_bars_in_attempt is "
                f"{self.max_bars_in_attempt}; the timeout must be the smaller one, or it can never be the first",
                stage="settings",
            )
        if self.s1_policy not in ("on_primer", "after_breakout"):
            raise TradingError(
                f"s1_policy must be on_primer or after_breakout, was {self.s1_policy!r}", stage="settings"
            )


@dataclass(frozen=True, slots=True)
class RiskRules:
    """Hard caps after learning, which learning never widens (trading.md 3.6; decisions 11, 43). Shares are of NAV.

    Attributes:
        min_notional_usd: smallest order.
        cash_reserve: share that stays cash.
        max_exposure, per_token: cost of all that is held, and of one token on all its timeframes, at most.
        participation: largest share of the decision bar's USD volume that one order may take.
        fee_bps: fee a buy pays on top of its USD at most; so much cash is kept free for it.
        canary: contracts or symbols that may be bought; empty for all.
    """

    min_notional_usd: Decimal = Decimal(5)
    cash_reserve: Decimal = Decimal("0.05")
    max_exposure: Decimal = Decimal(1)
    per_token: Decimal = Decimal("0.20")
    participation: Decimal = Decimal("0.05")
    fee_bps: Decimal = Decimal(30)
    canary: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("cash_reserve", "max_exposure", "per_token", "participation"):
            if not 0 <= getattr(self, name) <= 1:
                raise TradingError(f"{name} must be a share from 0 to 1, was {getattr(self, name)}", stage="settings")
        for name in ("min_notional_usd", "fee_bps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TradingError(f"{name} must be 0 or more, was {getattr(self, name)}", stage="settings")

    def may_buy(self, symbol: str, contract: str) -> bool:
        """Whether a token is one that may be bought.

        >>> RiskRules(canary=frozenset({"AUSDT"})).may_buy("BUSDT", "0xb"), RiskRules().may_buy("BUSDT", "0xb")
        (False, True)
        """
        return not self.canary or symbol in self.canary or contract in self.canary


@dataclass(frozen=True, slots=True)
class SkewRules:
    """How much less is bought of what the book holds much of already (trading.md 3.6); see `trading.skew`.

    Attributes:
        enabled: whether buys are skewed at all.
        alpha: exponent of a mask's share of the dimension weights, 0 or more; 0 weighs all masks alike.
        scope_weight, pattern_weight: what a share under a mask counts, and that of the same pattern under it.
        masks: sets of dimensions that holdings are compared in.
        dim_weights: weight of each dimension, 0 or more; 1 where none is given.
        neutral: skew of a token that the book holds nothing like, before the ceiling.
        floor, ceiling: bounds of the skew, from 0 to 1: nothing is ever bought more of.
    """

    enabled: bool = False
    alpha: float = 0.5
    scope_weight: float = 1.0
    pattern_weight: float = 0.5
    masks: tuple[tuple[str, ...], ...] = (
        ("chain", "timeframe", "book", "state"), ("chain", "timeframe", "book"), ("chain", "timeframe"), ("chain",),
    )  # fmt: skip
    dim_weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    neutral: float = 1.33
    floor: float = 0.33
    ceiling: float = 1.0

    def __post_init__(self) -> None:
        numbers = {"exposure_skew_alpha": self.alpha, "scope_weight": self.scope_weight}
        numbers |= {"pattern_weight": self.pattern_weight, **self.dim_weights}
        for name, value in numbers.items():
            if not 0 <= value < math.inf:
                raise TradingError(f"{name} must be 0 or more, was {value}", stage="settings")
        if not 0 <= self.floor <= self.ceiling <= 1:
            raise TradingError(
                f"a skew is from 0 to 1, its floor was {self.floor} and its ceiling {self.ceiling}", stage="settings"
            )


@dataclass(frozen=True, slots=True)
class ProtectionRules:
    """When new buys are forbidden for a while; each is off at 0 (trading.md 3.6; decisions 43).

    Attributes:
        daily_loss: share of the book's value lost since 00:00 UTC, below 1.
        drawdown: share below the peak of the book's value, below 1.
        cooldown: after a losing trade of a token, microseconds.
        loss_streak: losing trades in a row of one token, or entered under one pattern.
        loss_streak_pause: how long that bars the token or the pattern after the last of them, microseconds.
        stop_buy: nothing is bought at all.
    """

    daily_loss: Decimal = Decimal(0)
    drawdown: Decimal = Decimal(0)
    cooldown: int = 0
    loss_streak: int = 0
    loss_streak_pause: int = 0
    stop_buy: bool = False

    @property
    def watches_nav(self) -> bool:
        """Whether the value of the book has to be known at every moment."""
        return bool(self.daily_loss or self.drawdown)

    @property
    def watches_trades(self) -> bool:
        """Whether a closed trade may bar its token or its pattern."""
        return bool(self.cooldown or self.loss_streak)


@dataclass(frozen=True, slots=True)
class EpisodeRules:
    """Numbers of episodes and windows (trading.md 5; decisions 28). Distances in ATR, gaps in bars.

    Windows no rule could have taken (the S1 entry is used, no pool) have no vote and keep ``max_samples_blocked``.
    """

    max_samples: int = 12
    max_samples_blocked: int = 4
    s1_halo_extra_atr: float = S1_WINDOW_HALO - BASE_GATES.halo
    void_gap_bars: int = MAX_GAP_BARS
    virtual_trims: bool = True

    def __post_init__(self) -> None:
        if self.s1_halo_extra_atr > S1_WINDOW_HALO - BASE_GATES.halo or self.void_gap_bars < MAX_GAP_BARS:
            raise TradingError(
                f"s1_halo_extra_atr {self.s1_halo_extra_atr} or void_gap_bars {self.void_gap_bars} asks for bars the "
                f"engine does not mark: at most {S1_WINDOW_HALO - BASE_GATES.halo} and at least {MAX_GAP_BARS}",
                stage="settings",
            )


@dataclass(frozen=True, slots=True)
class ShadowRules:
    """Numbers of shadows (`trading.shadows`): whether there are any, what each may spend, and its costs, one side, in
    basis points (decisions 55)."""

    enabled: bool = True
    stake_usd: Decimal = Decimal(10_000)
    exchange_fee_bps: Decimal = Decimal(10)
    exchange_slippage_bps: Decimal = Decimal(5)
    dex_fee_bps: Decimal = Decimal(30)
    dex_slippage_bps: Decimal = Decimal(50)

    def costs(self, chain: str) -> tuple[Decimal, Decimal]:
        """(fee, slippage) on a chain.

        >>> ShadowRules().costs("exchange"), ShadowRules().costs("solana")
        ((Decimal('10'), Decimal('5')), (Decimal('30'), Decimal('50')))
        """
        if chain == "exchange":
            return self.exchange_fee_bps, self.exchange_slippage_bps
        return self.dex_fee_bps, self.dex_slippage_bps


@dataclass(frozen=True, slots=True)
class IntentRules:
    """Numbers of the intent metrics of a token (trading.md 1.4).

    Attributes:
        half_life_hours: age at which a mention counts half.
        min_decay: a mention that counts less than this share is dropped.
        max_mentions: newest mentions kept per token, so that nobody can make a row grow without end.
    """

    half_life_hours: float = 72.0
    min_decay: float = 0.01
    max_mentions: int = 256

    @property
    def horizon_hours(self) -> float:
        """Age beyond which a mention counts less than ``min_decay``; about 20 days."""
        return -self.half_life_hours * math.log2(self.min_decay)


#: A law of the book, not a setting: the log must fold to the same rows under any settings.
INTENTS = IntentRules()


@dataclass(frozen=True, slots=True)
class CoefficientRules:
    """Numbers of the coefficients of an allocation (trading.md 1.6; decisions 42).

    Attributes:
        dims: dimensions of a DM scope that have evidence each; all of them act under ``all``.
        pair: the two that act under ``on``, and whose interaction has evidence of its own.
        half_life_hours: age at which a closed trade counts half; a law of the book, like `INTENTS`.
        kappa: log weight per R of shrunk effect.
        prior_n: closed decisions at which an effect is believed half.
        bound: largest weight of one part and of the product; the least is its inverse.
        static_n: closed decisions under a value at which its static multiplier counts half.
        static_chains: chains that static multipliers are for.
        caps, ages: (upper end in USD or days, static multiplier), intervals [lo, hi), ascending.
        chain_mults: static multiplier of a chain; 1 for others.
    """

    dims: tuple[str, ...] = (
        "curator", "chain", "mcap_bucket", "vol_bucket", "age_bucket", "intent", "mapping_confidence",
        "mcap_vol_ratio_bucket",
    )  # fmt: skip
    pair: tuple[str, str] = ("curator", "mcap_bucket")
    half_life_hours: float = 1440.0
    kappa: float = 0.4
    prior_n: float = 20.0
    bound: float = 2.0
    static_n: float = 30.0
    static_chains: frozenset[str] = frozenset({"solana", "ethereum", "base", "bsc"})
    caps: tuple[tuple[float, float], ...] = ((1e5, 0.33), (1e6, 0.5), (1e7, 1.0), (1e8, 1.33), (math.inf, 1.5))
    ages: tuple[tuple[float, float], ...] = ((1.0, 0.5), (2.0, 0.6), (3.0, 0.9), (math.inf, 1.0))
    chain_mults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"ethereum": 2.0, "base": 2.0}))


COEFFICIENTS = CoefficientRules()


@dataclass(frozen=True, slots=True)
class OutcomeRules:
    """Numbers of the outcome of a trade (trading.md 4.5; decisions 56)."""

    rr_lo: float = -3.0
    rr_hi: float = 10.0
    r_floor: float = 0.01
    r_floor_fine: float = 0.005
    fine_below: str = "15m"
    entry_neighbourhood_bars: int = 10


@dataclass(frozen=True, slots=True)
class TradingRules:
    """All rules of one book. ``holdout`` is the share of decisions or attempts that run without overrides (decisions 6,
    46)."""

    book: str = "paper"
    starting_cash_usd: Decimal = Decimal(100_000)
    timeframes: tuple[str, ...] = ("1m", "15m", "1h", "4h")
    holdout: float = 0.10
    dm: DecisionRules = field(default_factory=DecisionRules)
    sizes: SizeRules = field(default_factory=SizeRules)
    pm: PmRules = field(default_factory=PmRules)
    risk: RiskRules = field(default_factory=RiskRules)
    skew: SkewRules = field(default_factory=SkewRules)
    protections: ProtectionRules = field(default_factory=ProtectionRules)
    episodes: EpisodeRules = field(default_factory=EpisodeRules)
    shadows: ShadowRules = field(default_factory=ShadowRules)
    outcome: OutcomeRules = field(default_factory=OutcomeRules)


def timeframe_splits(
    timeframes: Iterable[str], table: Mapping[str, float] = DEFAULT_SPLITS, weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Share of an allocation per timeframe, renormalised over ``timeframes`` (decisions 8); sums to 1.

    A timeframe without its own row takes the nearest row in log duration, ties to the coarser (decisions 44). A learned
    weight multiplies its share (trading.md 1.6); without one it is 1.

    Raises:
        TradingError: no timeframe, or all their shares are 0.

    >>> timeframe_splits(["1m", "15m", "1h", "4h"])
    {'1m': 0.05, '15m': 0.125, '1h': 0.7, '4h': 0.125}
    >>> timeframe_splits(["5m", "15m"])
    {'5m': 0.5, '15m': 0.5}
    """
    known = weights or {}
    raw = {tf: table[tf if tf in table else nearest(tf, table)] * known.get(tf, 1.0) for tf in timeframes}
    total = sum(raw.values())
    if total <= 0:
        raise TradingError("an allocation needs at least one timeframe with a share above 0", stage="dm")
    return {tf: share / total for tf, share in raw.items()}


def interpolate(knots: Iterable[tuple[float, float]], x: float) -> float:
    """Piecewise linear through ascending ``(x, y)`` knots, flat outside them.

    >>> interpolate([(0.5, 4.0), (1.0, 6.0), (2.0, 16.0)], 1.5)
    11.0
    >>> interpolate([(0.5, 4.0), (0.6, 6.0)], 0.1), interpolate([(0.5, 4.0), (0.6, 6.0)], 1.0)
    (4.0, 6.0)
    """
    previous: tuple[float, float] | None = None
    y = 0.0
    for knot_x, y in knots:
        if x <= knot_x:
            if previous is None:
                return y
            x0, y0 = previous
            return y0 + (y - y0) * (x - x0) / (knot_x - x0)
        previous = (knot_x, y)
    return y
