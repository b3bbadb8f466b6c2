"""Ports: what the loop needs from the world outside, as Protocols. Adapters keep these promises; one contract suite
tests them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, TypeVar

from edgebook.domain.book import (
    Account,
    Curator,
    Decision,
    Order,
    PmMemory,
    Position,
    RegimeSnapshot,
    Shadow,
    TokenIntents,
    Trade,
)
from edgebook.domain.coefficient import Coefficient
from edgebook.domain.evidence import (
    ConfigRow,
    ConfigVersion,
    DeadLetter,
    Fact,
    FamilyFit,
    JobRun,
    Lesson,
    Observation,
    StatRow,
    Watermark,
)
from edgebook.domain.mentions import TokenMatch, TokenMention
from edgebook.domain.protection import Protection
from edgebook.domain.reading import MarketReading
from edgebook.domain.regime import Regime
from edgebook.domain.strands import Strand
from edgebook.learning.sheet import Rows
from edgebook.market.bars import BarSeries

R = TypeVar("R")


class Table(Protocol[R]):
    """Rows of one kind by their ``key``. Writes are visible at once inside the unit of work, durable at its commit."""

    def get(self, key: str) -> R | None:
        """The row, or None."""
        ...

    def put(self, row: R) -> None:
        """Insert or replace by key."""
        ...

    def delete(self, key: str) -> None:
        """Remove; absent keys are ignored."""
        ...

    def values(self, prefix: str = "") -> Iterable[R]:
        """Rows whose key starts with ``prefix``, in order of first insertion."""
        ...

    def __len__(self) -> int:
        """How many rows."""
        ...


class StatTable(Table[StatRow], Rows, Protocol):
    """The statistics, to which a trade is added in all its slices at once."""


class StrandLog(Protocol):
    """The append-only log. Appends are serialised; ``seq`` has no gaps; every strand carries the hash of the chain up
    to it."""

    def append(self, strands: Sequence[Strand]) -> Sequence[Strand]:
        """Append in order; returns them with ``seq`` and ``hash``.

        A strand whose id is already there is returned as stored and not written again; the same id with other content
        raises StrandError.
        """
        ...

    def read(self, after_seq: int, kinds: Iterable[str] | None = None, limit: int | None = None) -> Iterator[Strand]:
        """Strands with ``seq > after_seq`` in order, optionally of some kinds."""
        ...

    def get(self, strand_id: str) -> Strand | None:
        """One strand by id."""
        ...

    def find(self, *, correlation_id: str = "", position_id: str = "", trade_id: str = "") -> Iterator[Strand]:
        """Strands of one packet, position or trade, in order of seq."""
        ...

    @property
    def head(self) -> tuple[int, str]:
        """Last seq and the hash of the chain there; (0, 64 zeros) when empty."""
        ...

    def counts(self) -> dict[str, int]:
        """Strands per kind."""
        ...


class UnitOfWork(Protocol):
    """Everything durable, in one transaction. ``commit`` makes all of it durable at once; leaving without commit
    undoes all."""

    log: StrandLog
    positions: Table[Position]
    memory: Table[PmMemory]
    shadows: Table[Shadow]
    orders: Table[Order]
    trades: Table[Trade]
    decisions: Table[Decision]
    curators: Table[Curator]
    coefficients: Table[Coefficient]
    intents: Table[TokenIntents]
    accounts: Table[Account]
    protections: Table[Protection]
    snapshots: Table[RegimeSnapshot]
    observations: Table[Observation]
    stats: StatTable
    fits: Table[FamilyFit]
    lessons: Table[Lesson]
    configs: Table[ConfigRow]
    config_versions: Table[ConfigVersion]
    watermarks: Table[Watermark]
    runs: Table[JobRun]
    dead_letters: Table[DeadLetter]
    meta: Table[Fact]

    def commit(self) -> None:
        """Make everything since the last commit durable, atomically."""
        ...

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        ...

    def savepoint(self) -> None:
        """Remember this moment; there is one savepoint at a time."""
        ...

    def undo(self) -> None:
        """Forget everything since the savepoint: what a failed job wrote."""
        ...

    def attempt(self) -> AbstractContextManager[None]:
        """What fails inside leaves nothing behind, and nothing else is lost; not to be nested."""
        ...


class Store(Protocol):
    """One database."""

    def writer(self) -> AbstractContextManager[UnitOfWork]:
        """The single writer's unit of work; a second writer is refused with a PortError that says who holds it."""
        ...

    def reader(self) -> AbstractContextManager[UnitOfWork]:
        """A read-only view of the last commit; put, append and commit raise PortError."""
        ...


MAX_SLIPPAGE_BPS = 600.0
"""Slippage beyond which no broker fills an order unless the settings say otherwise, one side (trading.md 4.2)."""


@dataclass(frozen=True, slots=True)
class Quote:
    """The first bar that opened at or after an order was planned."""

    ts_open: int
    price: float


@dataclass(frozen=True, slots=True)
class Execution:
    """What became of an order: filled (maybe partly), rejected, or nothing yet (status ``open``)."""

    status: str
    quantity: Decimal
    price: float
    fee_usd: Decimal
    slippage_bps: float
    ts: int
    reason: str = ""
    too_small: bool = False
    """Rejected because the whole of it is less than the venue takes."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What the token table says of one symbol; market cap is a proxy in USD where known.

    ``contract`` is the token's address on its chain; "" means that the symbol stands for it.
    """

    symbol: str
    ticker: str
    chain: str
    mcap_usd: float | None = None
    contract: str = ""


class TokenResolver(Protocol):
    """Who finds the one token a message means (trading.md 1.2)."""

    def resolve(self, mention: TokenMention) -> TokenMatch:
        """The token, with how it was found.

        Raises:
            InputError: no such token, or more than one that could be meant; one line with what would tell them apart.
        """
        ...


class BarSource(Protocol):
    """Where bars (and, for a simulator, signals) come from. Asking again for the same span gives the same bars."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols, ascending; regime drivers included."""
        ...

    @property
    def base_timeframe(self) -> str:
        """Finest timeframe the source has; coarser ones are resampled from it."""
        ...

    @property
    def span(self) -> tuple[int, int | None]:
        """First moment with bars, and the last (None: endless)."""
        ...

    def bars(self, symbol: str, start: int, end: int) -> BarSeries:
        """Base bars with ``ts_open >= start`` and close ``<= end``; may be empty."""
        ...

    def signals(self, start: int, end: int) -> Sequence[str]:
        """Raw JSONL lines of social signals with ``start < ts <= end``, in order; most sources have none."""
        ...

    def tokens(self) -> dict[str, TokenInfo]:
        """The token table."""
        ...


class Broker(Protocol):
    """Where orders go. Never raises for venue reasons, never sleeps, never touches the database."""

    def execute(self, order: Order, quote: Quote | None, now: int) -> Execution:
        """Try to fill ``order`` at ``quote``; with no quote the order stays open or expires."""
        ...


class MarketReader(Protocol):
    """What the tape says. Everything returned for time T is known at T."""

    def due(self, timeframe: str, now: int) -> Sequence[tuple[str, int]]:
        """Symbols whose bar of ``timeframe`` closes at ``now``, each with the bar's events (bits of
        `domain.reading`)."""
        ...

    def reading(self, symbol: str, timeframe: str, now: int) -> MarketReading | None:
        """The engine's reading of the bar that closes exactly at ``now``; None if there is none or it is partial."""
        ...

    def bars_count(self, symbol: str, timeframe: str, now: int) -> int:
        """Closed bars known at ``now``."""
        ...

    def contiguous_bars(self, symbol: str, timeframe: str, now: int, max_hole: int) -> int:
        """Closed bars known at ``now`` since the last hole of more than ``max_hole`` missing bars."""
        ...

    def mark(self, symbol: str, now: int) -> float | None:
        """Close of the latest closed bar of the finest timeframe, None when there is no bar yet."""
        ...

    def mark_at(self, symbol: str, now: int) -> int | None:
        """When the bar of that mark closed, microseconds UTC; None when there is no bar yet."""
        ...

    def quote(self, symbol: str, planned: int, now: int) -> Quote | None:
        """Open of the first finest bar with ``planned <= ts_open <= now``."""
        ...

    def volume_24h_usd(self, symbol: str, now: int) -> float:
        """Traded USD in the 24 h before ``now``; 0 when unknown."""
        ...

    def path(self, symbol: str, timeframe: str, start: int, end: int) -> BarSeries:
        """Bars of ``timeframe`` that open at or after ``start`` and close at or before ``end``."""
        ...

    def regime(self, timeframe: str, cap_class: str, now: int) -> Regime:
        """Appetite and scope values at ``now``."""
        ...
