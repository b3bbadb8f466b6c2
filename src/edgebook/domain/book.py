"""Rows of the trading book. ``Position``, ``Order``, ``Trade``, ``Decision``, ``Curator``, ``TokenIntents`` and
``Account`` are projections: they are
folded from strands only, so a rebuild from the log finds them equal. ``PmMemory`` is a checkpoint of work in progress
(the open episode with its samples), not a projection.

Money and quantities are Decimal (USD to 1e-6, quantities to 1e-9); prices are floats as recorded; times are
microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from edgebook.domain.mentions import token_key
from edgebook.domain.scope import ScopeValue
from edgebook.domain.strands import LeverEvidence, ScopeDict, TradeAction, WindowSample

ZERO = Decimal(0)
Context = Mapping[str, str | int | float | None]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Average-cost ledger of one trade, fees included (trading.md 4.3).

    Law: ``realised + (quantity * mark - cost) == quantity * mark + extracted - invested`` for every mark.
    """

    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    invested: Decimal = ZERO
    extracted: Decimal = ZERO
    realised: Decimal = ZERO
    fees: Decimal = ZERO
    bought: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Pool:
    """Trim proceeds that may be spent again: on one S2 retest or on up to three DX rungs (trading.md 3.4)."""

    basis: Decimal = ZERO
    recovery: bool = False
    dx_count: int = 0
    next_arm: float | None = None


@dataclass(frozen=True, slots=True)
class Emergency:
    """State of the emergency exit and its one rebuy (trading.md 3.4 rules 2 and 4)."""

    filled: bool = False
    exit_value: Decimal = ZERO
    rebuy_used: bool = True


@dataclass(frozen=True, slots=True)
class Terms:
    """Optional rules a trade was opened under (``trading.terms``); each is off at its default.

    Attributes:
        stop_atr: ATRs at entry below the average cost; a close below that ends the trade.
        most_bars: bars since the first fill after which the trade ends.
        timeout_bars: bars since an emergency exit after which the flat trade is closed.
        blocks: whether its loss may bar the next entries.
        attempt_id: attempt it was ordered in, "" where its start was not seen.
    """

    stop_atr: float = 0.0
    most_bars: int = 0
    timeout_bars: int = 0
    blocks: bool = False
    attempt_id: str = ""

    @property
    def ends_early(self) -> bool:
        """Whether the trade may end on a bar on which nothing else happens."""
        return bool(self.stop_atr or self.most_bars or self.timeout_bars)


@dataclass(frozen=True, slots=True)
class Unsold:
    """A small rest whose sale was refused, and what of the open trade was given up because no sale of it was taken.

    Attributes:
        price: decision price of the refused sale.
        usd: worth of all that was given up, each rest at the price of its sale; no money, nobody paid it.
        ts: when the last rest was given up, microseconds UTC; 0: none so far.
    """

    price: float
    usd: Decimal = ZERO
    ts: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """What an attempt has come to so far: profit of its closed trades in USD, whether one bought in S1, whether one was
    opened in S2."""

    attempt_id: str
    pnl_usd: Decimal = ZERO
    s1_entry: bool = False
    s2_entry: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """The action that waits for its fill, and what the fill must know of its plan (memory changes on fills only).

    Attributes:
        action: the action as learning will read it; quantity, price and fee are 0 until the fill.
        state: engine state it was planned in.
        atr: ATR of the decision bar, a price distance.
        level_price: the level a trim was taken at.
        step: distance below its fill at which the next DX rung may be bought, a price distance.
        clears_pool: whether the fill uses the trim pool up.
        notional_usd, quantity: what was ordered, USD of a buy or tokens of a sale.
        complete_by: last bar close at which what a partial fill left may be ordered, microseconds UTC; 0: it may not.
        completes: whether the action orders what a partial fill left.
        terms: optional rules the trade will be opened under; None for none, and where a trade is open.
        price: decision price of a sale; 0 of a buy.
    """

    action: TradeAction
    state: str
    atr: float
    level_price: float | None = None
    step: float = 0.0
    clears_pool: bool = False
    notional_usd: Decimal | None = None
    quantity: Decimal | None = None
    complete_by: int = 0
    completes: bool = False
    terms: Terms | None = None
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class Pending:
    """What a partial fill left to order while the signal holds (trading.md 4.3, ``pending_completion``).

    Attributes:
        action: the action that filled in part, as learning reads it; the rest belongs to it.
        state, atr: engine state and ATR it was planned in.
        notional_usd, quantity: what is left, USD of a buy or tokens of a trim.
        deadline: last bar close at which the rest may be ordered, microseconds UTC.
    """

    action: TradeAction
    state: str
    atr: float
    notional_usd: Decimal | None
    quantity: Decimal | None
    deadline: int


@dataclass(frozen=True, slots=True)
class Position:
    """One position per (contract, chain, timeframe, book); folded from its strands (``trading.position.evolve``).

    ``terms`` are the optional rules of the open trade, ``tally`` what closed trades of an attempt add up to that may
    bar the next one. ``blocked`` says where a lost attempt bars buys: ``S1`` is S1 and S2, ``S2`` is S2, "" nowhere.
    """

    id: str
    symbol: str
    chain: str
    contract: str
    timeframe: str
    book: str
    status: str
    created_at: int
    cap_class: str = ""
    decision_id: str = ""
    decision_used: bool = False
    pending_decision_id: str = ""
    pending_since: int = 0
    allocation_pct: float = 0.0
    attempt_id: str = ""
    s1_used: bool = False
    armed_s2: bool = False
    armed_s3: bool = False
    first_dip_used: bool = False
    last_trim_ts: int = 0
    last_trim_level: float | None = None
    pool: Pool = field(default_factory=Pool)
    emergency: Emergency = field(default_factory=Emergency)
    trade_id: str = ""
    ledger: Ledger = field(default_factory=Ledger)
    entry_ts: int = 0
    entry_price: float = 0.0
    entry_atr: float = 0.0
    s3_reached_ts: int = 0
    pinned_config: int = 0
    actions: tuple[TradeAction, ...] = ()
    planned: Planned | None = None
    pending: Pending | None = None
    exit_reason: str = ""
    trades_closed: int = 0
    last_seq: int = 0
    status_since: int = 0
    terms: Terms | None = None
    tally: Tally | None = None
    blocked: str = ""
    unsold: Unsold | None = None

    @property
    def key(self) -> str:
        """Row key."""
        return self.id

    @property
    def exiting(self) -> bool:
        """Whether a full exit was begun and its trade is still open."""
        return self.status == "closing" or bool(self.exit_reason)

    @property
    def holding(self) -> bool:
        """Whether tokens are held."""
        return self.ledger.quantity > 0


@dataclass(frozen=True, slots=True)
class Order:
    """One order; buys are sized in USD, sells in tokens (trading.md 4.1)."""

    client_id: str
    action_id: str
    position_id: str
    symbol: str
    timeframe: str
    side: str
    decision_type: str
    rule: int
    notional_usd: Decimal | None
    quantity: Decimal | None
    planned_ts: int
    expires_ts: int
    decision_price: float
    bar_volume_usd: float
    liquidity_usd: float
    status: str = "planned"

    @property
    def key(self) -> str:
        """Row key."""
        return self.client_id


@dataclass(frozen=True, slots=True)
class Trade:
    """A closed trade (one row per ``position_closed``)."""

    trade_id: str
    position_id: str
    symbol: str
    chain: str
    timeframe: str
    decision_id: str
    curator_id: str
    opened_at: int
    closed_at: int
    pnl_usd: Decimal
    invested_usd: Decimal
    fees_usd: Decimal
    roi: float
    rr: float
    exit_reason: str
    actions: int
    strand_id: str

    @property
    def key(self) -> str:
        """Row key."""
        return self.trade_id


@dataclass(frozen=True, slots=True)
class Decision:
    """An approved decision, kept so that a holding position can take it up at closure (decisions 41)."""

    id: str
    ts: int
    signal_id: str
    symbol: str
    chain: str
    contract: str
    curator_id: str
    allocation_pct: float
    timeframe_splits: Mapping[str, float]
    entry_context: Context
    cap_class: str

    @property
    def key(self) -> str:
        """Row key."""
        return self.id


@dataclass(frozen=True, slots=True)
class Curator:
    """A signal source and its score, learnt from closed trades (trading.md 1.1).

    ``registered`` is the seq of the strand with the registry's newest word on it, 0 for a curator nobody registered;
    name, enabled, handles, tags and notes are that word.
    """

    id: str
    status: str
    base_weight: float
    score: float
    signals: int = 0
    trades: int = 0
    wins: int = 0
    pnl_weight: float = 0.0
    pnl_sum: float = 0.0
    pnl_anchor_ts: int = 0
    first_seen: int = 0
    last_signal_at: int = 0
    name: str = ""
    enabled: bool = True
    handles: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    notes: str = ""
    registered: int = 0

    @property
    def key(self) -> str:
        """Row key."""
        return self.id

    @property
    def followed(self) -> bool:
        """Whether what it says may count: it is enabled, and neither inactive nor suspended."""
        return self.enabled and self.status not in ("inactive", "suspended")


@dataclass(frozen=True, slots=True)
class Mention:
    """One mention that counts for a token's intent metrics: when (no later than it was heard), how, by whom."""

    ts: int
    channel: str
    curator: str
    signal_id: str


@dataclass(frozen=True, slots=True)
class TokenIntents:
    """What curators lately want of one token (trading.md 1.4): mentions young enough to count, in order of time.

    ``total`` counts all signals about the token ever, ``last_at`` is the time of the newest one that has a channel.
    """

    chain: str
    contract: str
    symbol: str
    total: int = 0
    last_at: int = 0
    mentions: tuple[Mention, ...] = ()

    @property
    def key(self) -> str:
        """Row key."""
        return token_key(self.chain, self.contract)


@dataclass(frozen=True, slots=True)
class Account:
    """Cash of one book; starts at the setting and moves by fills only."""

    book: str
    cash_usd: Decimal

    @property
    def key(self) -> str:
        """Row key."""
        return self.book


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """A gate window that is still open (trading.md 5).

    ``takeable`` says whether on some bar no rule stood in the way; ``blocked_by`` lists the rules that did; ``failed``
    why an order of this window came to nothing; ``entry_ts`` is the bar an entry was planned on.
    """

    id: str
    index: int
    started_at: int
    started_index: int
    scope: ScopeDict
    thresholds: Mapping[str, float]
    bars: int
    signal: bool
    blocked_by: tuple[str, ...]
    samples: tuple[WindowSample, ...]
    config_version: int
    takeable: bool = False
    failed: tuple[str, ...] = ()
    entered: bool = False
    entry_strand_id: str = ""
    entry_ts: int = 0


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """A closed window waiting for its outcome."""

    id: str
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
    scope: ScopeDict
    thresholds: Mapping[str, float]
    samples: tuple[WindowSample, ...]
    levers: tuple[LeverEvidence, ...]
    config_version: int
    entry_ts: int = 0


@dataclass(frozen=True, slots=True)
class OpenEpisode:
    """An S1 or S3 episode that is still open."""

    id: str
    episode_type: str
    started_at: int
    started_index: int
    partial: bool
    scope: ScopeDict
    windows: tuple[ClosedWindow, ...] = ()
    window: OpenWindow | None = None
    windows_opened: int = 0
    last_trim_virtual_index: int = -1
    last_trim_virtual_level: float | None = None


@dataclass(frozen=True, slots=True)
class PmMemory:
    """Checkpoint of one position's work in progress; not a projection.

    ``told_skip`` is the last ``pm_skipped`` of the attempt, as text; "" once an action was planned.
    """

    position_id: str
    last_bar_ts: int = 0
    last_bar_index: int = -1
    episodes: tuple[OpenEpisode, ...] = ()
    pending_entries: Mapping[str, str] = field(default_factory=dict)
    told_skip: str = ""

    @property
    def key(self) -> str:
        """Row key."""
        return self.position_id


@dataclass(frozen=True, slots=True)
class Shadow:
    """One closed gate window of a running attempt, bought on paper of its own (`trading.shadows`); not a projection.

    Attributes:
        window_id, position_id, symbol, timeframe, correlation_id: whose chance it is; how it ends is known when the
            attempt does.
        episode_type, window_kind, entered, flag_on, blocked_by, scope, thresholds, margins: see `ShadowOutcome`.
        a_base, e_base: A and E of the bar it was bought on; they stay.
        seen_ts: close of the last bar that anything followed from for it; it and older ones are not looked at again.
        twin: the position it would be.
    """

    window_id: str
    position_id: str
    symbol: str
    timeframe: str
    correlation_id: str
    episode_type: str
    window_kind: str
    entered: bool
    flag_on: bool
    blocked_by: tuple[str, ...]
    scope: ScopeDict
    thresholds: Mapping[str, float]
    margins: Mapping[str, float]
    a_base: float
    e_base: float
    seen_ts: int
    twin: Position

    @property
    def key(self) -> str:
        """Row key."""
        return f"{self.position_id}|{self.window_id}"


@dataclass(frozen=True, slots=True)
class RegimeSnapshot:
    """Immutable regime context that strands refer to by id (trading.md 3.8)."""

    id: str
    ts: int
    content: Mapping[str, ScopeValue | float | None]

    @property
    def key(self) -> str:
        """Row key."""
        return self.id
