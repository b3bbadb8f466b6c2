"""The value of an account day by day, from its fills and the closes of the tape.

Marked to market rather than summed at closes: a trade here lasts days to weeks, and a curve that moves only when trades
close hides the drawdowns inside them and puts whole trends on single days. Cash and tokens follow from the fills
alone, prices are the last close known at each moment (a token without new bars keeps its last one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.book import ZERO
from edgebook.domain.decay import DAY
from edgebook.domain.errors import PortError
from edgebook.domain.strands import OrderFilled, PositionClosed, Strand
from edgebook.trading.position import gross

#: Close of the latest closed bar of a symbol at a moment; None before its first.
Mark = Callable[[str, int], float | None]


class Fill(NamedTuple):
    """One fill, as its strand tells it; money in USD, times in microseconds UTC."""

    ts: int
    trade_id: str
    position_id: str
    symbol: str
    timeframe: str
    side: str
    decision_type: str
    rule: int
    quantity: Decimal
    price: float
    fee_usd: Decimal
    slippage_bps: float
    partial: bool
    strand_id: str

    @property
    def gross_usd(self) -> Decimal:
        """``quantity * price``, to 1e-6."""
        return gross(self.quantity, self.price)

    @property
    def slippage_usd(self) -> float:
        """What the fill lost against its quote: quantity times the distance of price and quote."""
        share = self.slippage_bps / 1e4
        return float(self.gross_usd) * share / (1.0 + share if self.side == "buy" else 1.0 - share)


class Close(NamedTuple):
    """A trade closed: when (microseconds UTC), whose, and the pattern of its first action."""

    ts: int
    trade_id: str
    position_id: str
    pattern: str


@dataclass(slots=True)
class Journal:
    """Every fill and every close of a run, in the order of the log."""

    events: list[Fill | Close] = field(default_factory=list)

    def add(self, strand: Strand) -> None:
        """Take note of one strand, if it is a fill or a close."""
        payload = strand.payload
        if isinstance(payload, OrderFilled):
            self.events.append(fill_of(strand))
        elif isinstance(payload, PositionClosed):
            self.events.append(Close(strand.ts_event, strand.trade_id, strand.position_id, pattern_label(payload)))

    @property
    def fills(self) -> list[Fill]:
        """The fills alone."""
        return [event for event in self.events if isinstance(event, Fill)]

    @property
    def closes(self) -> list[Close]:
        """The closes alone."""
        return [event for event in self.events if isinstance(event, Close)]


def fill_of(strand: Strand) -> Fill:
    """The row of an ``order_filled`` strand."""
    filled = strand.payload
    assert isinstance(filled, OrderFilled)
    return Fill(
        strand.ts_event,
        strand.trade_id,
        strand.position_id,
        strand.symbol,
        strand.timeframe,
        filled.side,
        filled.decision_type,
        filled.rule,
        filled.quantity,
        filled.price,
        filled.fee_usd,
        filled.slippage_bps,
        filled.partial,
        strand.id,
    )


def pattern_label(closed: PositionClosed) -> str:
    """Rule and pattern of a trade's first action, e.g. ``rule 5 uptrend.S1.buy_flag``."""
    first = closed.actions[0]
    return f"rule {first.rule} {first.pattern_key.rpartition('pattern_key=')[2]}"


@dataclass(frozen=True, slots=True, eq=False)
class Equity:
    """Value of the account at the start, at every midnight (UTC) and at the end.

    Attributes:
        ts: moments, microseconds UTC, strictly increasing.
        usd: cash plus tokens at their marks.
        invested: the part of it that is tokens.
        between: the same account with the moments of every fill and close added; None: nobody looked there.
    """

    ts: NDArray[np.int64]
    usd: NDArray[np.float64]
    invested: NDArray[np.float64]
    between: Equity | None = None

    @property
    def closest(self) -> Equity:
        """The account at as many moments as are known."""
        return self.between or self


def daily_equity(journal: Journal, mark: Mark, start: int, end: int, cash: Decimal) -> Equity:
    """The account from ``start``, when it held ``cash`` and nothing else, to ``end`` (microseconds UTC, start < end).

    A fill at a moment is in the value of that moment. What a trade leaves unsold (`trading.position.is_dust`) counts
    until the trade closes and is then given up, as the ledger does.

    Raises:
        PortError: a token is held of which there is no bar.
    """
    days = np.unique(np.r_[start, np.arange(start // DAY * DAY + DAY, end, DAY), end])
    events = sorted(journal.events, key=lambda event: event.ts)
    told = np.array([event.ts for event in events if start <= event.ts <= end], dtype=np.int64)
    between = _valued(events, mark, np.unique(np.r_[days, told]), cash)
    daily = np.isin(between.ts, days)
    return Equity(between.ts[daily], between.usd[daily], between.invested[daily], between)


def _valued(events: Sequence[Fill | Close], mark: Mark, ts: NDArray[np.int64], cash: Decimal) -> Equity:
    """The account at each of ``ts``, from its events in order of time."""
    held: dict[str, tuple[str, Decimal]] = {}
    usd, invested, done = [], [], 0
    for moment in ts.tolist():
        while done < len(events) and events[done].ts <= moment:
            cash += _apply(events[done], held)
            done += 1
        tokens = sum(float(quantity) * _price(mark, symbol, moment) for symbol, quantity in held.values())
        usd.append(float(cash) + tokens)
        invested.append(tokens)
    return Equity(ts, np.array(usd), np.array(invested, dtype=np.float64))


def _apply(event: Fill | Close, held: dict[str, tuple[str, Decimal]]) -> Decimal:
    """Book one event into what each position holds; returns the change of cash."""
    if isinstance(event, Close):
        held.pop(event.position_id, None)
        return ZERO
    before = held.get(event.position_id, (event.symbol, ZERO))[1]
    bought = event.side == "buy"
    held[event.position_id] = (event.symbol, before + event.quantity if bought else before - event.quantity)
    return (-event.gross_usd if bought else event.gross_usd) - event.fee_usd


def _price(mark: Mark, symbol: str, moment: int) -> float:
    price = mark(symbol, moment)
    if price is None:
        raise PortError(f"{symbol} is held, but no bar of it has closed by {moment}", stage="report")
    return price
