"""The event catalogue: the strand envelope and one frozen payload per kind (learning.md 1; decisions 31 and 32).

A strand is a fact in the past tense. It is never changed: what becomes known later is a new strand that points back.
``correlation_id`` is the social signal whose packet it belongs to, ``causation_id`` its direct parent.
Money and quantities are ``Decimal``; times are microseconds UTC; scores are in [0, 1]; fractions are of 1, ``*_pct``
of 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar, get_args

from edgebook.domain.codec import from_json, to_json
from edgebook.domain.coefficient import CoefficientPart
from edgebook.domain.errors import StrandError
from edgebook.domain.protection import NavMarked, ProtectionChanged
from edgebook.domain.scope import ScopeValue
from edgebook.domain.shadow import ShadowsClosed
from edgebook.domain.steering import ConfigSteered

Json = Any
ScopeDict = Mapping[str, ScopeValue]


@dataclass(frozen=True, slots=True)
class SocialLowcap:
    """A social signal arrived (trading.md 1.3; decisions 40).

    ``curator`` is the registry's id where the message's own address (``handle``) is one of the registry's, else that
    address. ``mapping_reason`` and ``mapping_status`` say how the token was found (`domain.mentions.TokenMatch`).
    ``allocation_multiplier``, 1 to 2, is how strongly the intent is meant; None where nobody said.
    """

    kind: ClassVar[str] = "social_lowcap"
    signal_id: str
    platform: str
    curator: str
    symbol: str
    ticker: str
    chain: str
    contract: str
    intent: str
    mapping_confidence: str
    mcap_usd: float | None = None
    vol24h_usd: float | None = None
    liquidity_usd: float | None = None
    age_days: float | None = None
    text: str = ""
    handle: str = ""
    mapping_reason: str = ""
    mapping_status: str = ""
    allocation_multiplier: float | None = None


@dataclass(frozen=True, slots=True)
class CuratorRegistered:
    """The registry file says this of a curator from now on (trading.md 1.1); ``handles`` are ``platform:handle``."""

    kind: ClassVar[str] = "curator_registered"
    curator: str
    name: str
    enabled: bool
    status: str
    base_weight: float
    handles: tuple[str, ...]
    tags: tuple[str, ...]
    notes: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """One approval gate of the decision maker; ``passed`` is None when its datum was absent (not evaluated)."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class MatchedOverride:
    """One override that took part in a nudge: what it wanted, how much it counted, where it comes from.

    In the ``incremental`` blend it moves the log of a multiplier by ``decay * conviction * ln target``.
    """

    lesson_id: str
    scope: ScopeDict
    status: str
    targets: Mapping[str, float]
    decay: float
    weight: float
    conviction: float = 1.0


@dataclass(frozen=True, slots=True)
class Nudge:
    """How learning changed one number: base, applied, and why (architecture law 6)."""

    lever: str
    base: float
    applied: float
    blend: float
    matched: tuple[MatchedOverride, ...] = ()


@dataclass(frozen=True, slots=True)
class DecisionLowcap:
    """The decision maker approved or rejected a signal (trading.md 1.7).

    ``allocation_pct = clip(base * coefficient_mult * static_mult * alloc_mult)``; ``coefficients`` are the parts of the
    two in the middle and of ``timeframe_splits``, empty where coefficients are off.
    """

    kind: ClassVar[str] = "decision_lowcap"
    source_strand_id: str
    curator_id: str
    symbol: str
    chain: str
    contract: str
    action: str
    allocation_pct: float
    base_allocation_pct: float
    coefficient_mult: float
    static_mult: float
    alloc_mult: float
    curator_score: float
    gates: tuple[GateResult, ...]
    reasoning: str
    pattern_key: str
    action_category: str
    position_ids: tuple[str, ...]
    timeframe_splits: Mapping[str, float]
    entry_context: Mapping[str, str | int | float | None]
    nudges: tuple[Nudge, ...] = ()
    coefficients: tuple[CoefficientPart, ...] = ()


@dataclass(frozen=True, slots=True)
class PositionStatus:
    """A position was created or changed its status (trading.md 2)."""

    kind: ClassVar[str] = "position_status"
    status: str
    previous: str
    reason: str
    chain: str
    contract: str
    book: str
    decision_id: str
    pending_decision_id: str
    allocation_pct: float
    cap_class: str


@dataclass(frozen=True, slots=True)
class PmAction:
    """The portfolio manager planned an action; its execution is a later strand (trading.md 3.7; decisions 31)."""

    kind: ClassVar[str] = "pm_action"
    decision_type: str
    rule: int
    flag: str
    state: str
    pattern_key: str
    action_category: str
    side: str
    size_frac: float
    base_size_frac: float
    notional_usd: Decimal | None
    quantity: Decimal | None
    a_base: float
    e_base: float
    a_value: float
    e_value: float
    price: float
    atr: float
    client_id: str
    window_id: str
    level_price: float | None
    thresholds_effective: Mapping[str, float]
    reasons: Mapping[str, str | int | float | bool | None]
    caps: tuple[str, ...] = ()
    nudges: tuple[Nudge, ...] = ()


@dataclass(frozen=True, slots=True)
class PmSkipped:
    """A rule of the portfolio manager matched, but nothing could be done; told once per attempt until the reasons
    change or an action is planned (trading.md 3.6).

    ``reasons``: limits that left nothing (``caps.*``), protections, or why the position may not act.
    """

    kind: ClassVar[str] = "pm_skipped"
    rule: int
    side: str
    state: str
    price: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OrderFilled:
    """An order was filled, wholly or in part, at once final (paper); amounts are what really happened."""

    kind: ClassVar[str] = "order_filled"
    client_id: str
    action_id: str
    side: str
    decision_type: str
    rule: int
    quantity: Decimal
    price: float
    fee_usd: Decimal
    slippage_bps: float
    partial: bool
    bar_ts_open: int


@dataclass(frozen=True, slots=True)
class OrderRejected:
    """An order was refused by the venue or by a limit; nothing was booked."""

    kind: ClassVar[str] = "order_rejected"
    client_id: str
    action_id: str
    side: str
    decision_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrderExpired:
    """An order found no price within its time to live; nothing was booked."""

    kind: ClassVar[str] = "order_expired"
    client_id: str
    action_id: str
    side: str
    decision_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class TradeAction:
    """One executed action of a trade, as learning reads it."""

    strand_id: str
    ts: int
    decision_type: str
    rule: int
    pattern_key: str
    action_category: str
    scope: ScopeDict
    arm: str
    config_version: int
    quantity: Decimal
    price: float
    fee_usd: Decimal
    size_mult: float
    aggression_mult: float


@dataclass(frozen=True, slots=True)
class TradeSummary:
    """Outcome of a closed trade (trading.md 4.5; decisions 56).

    ``rr = clip(roi / max(max_drawdown, r_floor), -3, 10)`` with ``roi`` = realised / invested net of fees; a rest that
    no sale was taken of counts there at its price, and as nothing in ``pnl_usd`` (`trading.outcome.close_trade`).
    """

    entry_ts: int
    exit_ts: int
    entry_price: float
    exit_price: float
    invested_usd: Decimal
    extracted_usd: Decimal
    pnl_usd: Decimal
    fees_usd: Decimal
    roi: float
    rr: float
    rr_raw: float
    rr_clipped: bool
    r_floor: float
    price_return: float
    max_drawdown: float
    max_gain: float
    outcome_class: str
    hold_bars: int
    hold_days: float
    hold_class: str
    time_to_s3_days: float | None
    time_efficiency: float
    best_entry_price: float
    best_exit_price: float
    missed_entry_r: float
    missed_exit_r: float
    cf_entry_bucket: str
    cf_exit_bucket: str


@dataclass(frozen=True, slots=True)
class PositionClosed:
    """A trade closed, with everything that was done in it, the closing action included (trading.md 4.6)."""

    kind: ClassVar[str] = "position_closed"
    chain: str
    contract: str
    decision_id: str
    curator_id: str
    first_under_decision: bool
    allocation_pct: float
    exit_reason: str
    decision_type: str
    entry_context: Mapping[str, str | int | float | None]
    summary: TradeSummary
    actions: tuple[TradeAction, ...]


@dataclass(frozen=True, slots=True)
class TradeCounterfactual:
    """What the bars after a close showed about the exit (completed later; decisions 31)."""

    kind: ClassVar[str] = "trade_counterfactual"
    best_entry_price: float
    best_exit_price: float
    missed_entry_r: float
    missed_exit_r: float
    cf_entry_bucket: str
    cf_exit_bucket: str


@dataclass(frozen=True, slots=True)
class StageTransition:
    """The engine changed state on a position's series (audit; learning.md 1).

    ``from_state`` is "" where the bar of the change was not walked, so that only its result is known.
    """

    kind: ClassVar[str] = "uptrend_stage_transition"
    from_state: str
    to_state: str
    price: float
    attempt_id: str


@dataclass(frozen=True, slots=True)
class WindowSample:
    """One bar inside a window: the scores and each gate's margin ``u`` (positive passed; in severity caps).

    ``moved`` holds the thresholds in force on the bar that differ from their base.
    """

    ts: int
    flag_on: bool
    price: float
    values: Mapping[str, float | None]
    margins: Mapping[str, float | None]
    blocked_by: tuple[str, ...]
    flag_base: bool = False
    moved: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeverEvidence:
    """What one window says about one gate (learning.md 4).

    ``margin`` u = polarity * (observed - threshold) / cap; ``delta`` = observed - threshold; ``severity`` = min(1,
    abs(delta) / cap).
    """

    lever: str
    value: float
    threshold: float
    delta: float
    margin: float
    severity: float
    confidence: float
    direction: str
    sole_blocker: bool


@dataclass(frozen=True, slots=True)
class BuyWindow:
    """A gate window closed (trading.md 5): contiguous bars on which a buy was near.

    ``entry_ts`` is the close of the bar an entry that filled was planned on, 0 without one.
    """

    kind: ClassVar[str] = "uptrend_buy_window"
    window_id: str
    episode_type: str
    window_kind: str
    index: int
    started_at: int
    ended_at: int
    bars: int
    entered: bool
    entry_strand_id: str
    trimmed: bool
    blocked_by: tuple[str, ...]
    outcome: str
    pattern_key: str
    action_category: str
    thresholds_effective: Mapping[str, float]
    samples: tuple[WindowSample, ...]
    summary: Mapping[str, Mapping[str, float]]
    levers: tuple[LeverEvidence, ...]
    entry_ts: int = 0


@dataclass(frozen=True, slots=True)
class WindowOutcome:
    """One window inside an episode summary: its own scope, outcome and evidence."""

    window_id: str
    window_kind: str
    started_at: int
    ended_at: int
    entered: bool
    outcome: str
    blocked_by: tuple[str, ...]
    scope: ScopeDict
    levers: tuple[LeverEvidence, ...]
    rr: float | None = None


@dataclass(frozen=True, slots=True)
class EpisodeSummary:
    """An S1 or S3 episode closed; outcome success, failure, missed, correct_skip or void (learning.md 4)."""

    kind: ClassVar[str] = "uptrend_episode_summary"
    episode_type: str
    outcome: str
    entered: bool
    partial: bool
    started_at: int
    ended_at: int
    bars: int
    pattern_key: str
    action_category: str
    windows: tuple[WindowOutcome, ...]


@dataclass(frozen=True, slots=True)
class JobCompleted:
    """A learning job changed something; ``rebuild`` replays learning at these points (decisions 31)."""

    kind: ClassVar[str] = "job_completed"
    job: str
    slot: int
    watermark: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """A new version of the learning configs is in force from this moment (decisions 33)."""

    kind: ClassVar[str] = "config_changed"
    version: int
    counts: Mapping[str, int]
    content_hash: str
    updated_by: str


Payload = (
    SocialLowcap
    | CuratorRegistered
    | DecisionLowcap
    | PositionStatus
    | PmAction
    | PmSkipped
    | OrderFilled
    | OrderRejected
    | OrderExpired
    | PositionClosed
    | TradeCounterfactual
    | StageTransition
    | BuyWindow
    | EpisodeSummary
    | ShadowsClosed
    | ProtectionChanged
    | NavMarked
    | JobCompleted
    | ConfigChanged
    | ConfigSteered
)
PAYLOADS: dict[str, type[Payload]] = {kind.kind: kind for kind in get_args(Payload)}


@dataclass(frozen=True, slots=True)
class Strand:
    """The envelope around one fact.

    ``seq`` and ``hash`` are given by the log on append (0 and "" before). ``arm`` names the channels of which this
    decision is a holdout ("" = none). ``scope`` is the PM or DM scope at the time, ``{}`` where none applies.
    """

    id: str
    payload: Payload
    ts_event: int
    ts_recorded: int
    module: str = ""
    symbol: str = ""
    timeframe: str = ""
    position_id: str = ""
    trade_id: str = ""
    episode_id: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    config_version: int = 0
    arm: str = ""
    scope: ScopeDict = field(default_factory=dict)
    regime_snapshot_id: str = ""
    tags: tuple[str, ...] = ()
    seq: int = 0
    hash: str = ""

    @property
    def kind(self) -> str:
        """Kind of the payload, e.g. ``"pm_action"``."""
        return self.payload.kind


def payload_to_json(payload: Payload) -> dict[str, Json]:
    """Plain JSON object of a payload."""
    data: dict[str, Json] = to_json(payload)
    return data


def payload_from_json(kind: str, data: Json) -> Payload:
    """The payload of ``kind`` from its JSON object.

    Raises:
        StrandError: unknown kind, or a field that is missing, unknown or of the wrong type.
    """
    if kind not in PAYLOADS:
        raise StrandError(f"unknown strand kind {kind!r}; the catalogue has {', '.join(sorted(PAYLOADS))}")
    payload: Payload = from_json(PAYLOADS[kind], data)
    return payload
