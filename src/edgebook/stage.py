"""The stage: the shadows of running attempts, as a job works with them (`trading.shadows`).

It gathers and applies, as the desk does; the index kept here can be derived from the table ``shadows`` at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgebook.domain.book import Shadow
from edgebook.domain.evidence import Watermark
from edgebook.domain.reading import MarketReading
from edgebook.domain.strands import BuyWindow, Strand
from edgebook.ports import MarketReader, UnitOfWork
from edgebook.trading.rules import TradingRules
from edgebook.trading.shadows import alone, concerns
from edgebook.trading.terms import terms_said

_MARK = "shadows"


class Stage:
    """Shadows by what their bars come from.

    Args:
        uow: the writer's unit of work. In a book that has no shadows yet, windows closed so far are history: nobody
            knows how their attempts went on.
        rules: rules of the book; ``rules`` of the stage are those a shadow is led by.
    """

    def __init__(self, uow: UnitOfWork, market: MarketReader, rules: TradingRules) -> None:
        self.rules = alone(rules)
        self.restless = bool(terms_said(self.rules.pm))
        """Whether a shadow must be led over every bar: a stop of its own may end it on any."""
        self._uow, self._market = uow, market
        self._cast: dict[tuple[str, str], set[str]] = {}
        self._told = True
        if uow.watermarks.get(_MARK) is None:
            uow.watermarks.put(Watermark(_MARK, uow.log.head[0], 0))

    def reset(self) -> None:
        """Derive the index from the table anew."""
        self._cast.clear()
        for shadow in self._uow.shadows.values():
            self._note(shadow)
        self._told = True

    def hear(self, strand: Strand) -> None:
        """A strand has been recorded."""
        self._told |= isinstance(strand.payload, BuyWindow)

    def fresh_windows(self) -> list[Strand]:
        """Windows told since the last time, in order; the watermark ``shadows`` moves past them."""
        if not self._told:
            return []
        self._told = False
        mark = self._uow.watermarks.get(_MARK)
        found = list(self._uow.log.read(mark.seq if mark else 0, [BuyWindow.kind]))
        if found:
            self._uow.watermarks.put(Watermark(_MARK, found[-1].seq, found[-1].ts_event))
        return found

    def keep(self, shadow: Shadow) -> None:
        """Keep a shadow as it stands."""
        self._uow.shadows.put(shadow)
        self._note(shadow)

    def due(self, timeframe: str, now: int) -> Iterator[tuple[MarketReading, list[Shadow]]]:
        """Positions with shadows whose bar at ``now`` may mean something to them: that bar, and the shadows."""
        events = dict(self._market.due(timeframe, now))
        if self.restless:
            events = {symbol: events.get(symbol, 0) for symbol, tf in sorted(self._cast) if tf == timeframe}
        for symbol, bits in events.items():
            idents = self._cast.get((symbol, timeframe))
            reading = self._market.reading(symbol, timeframe, now) if idents else None
            if reading is not None and (self.restless or concerns(reading, bits)):
                for ident in sorted(idents or ()):
                    yield reading, list(self._uow.shadows.values(ident + "|"))

    def drop(self, shadows: Iterable[Shadow]) -> None:
        """Forget all shadows of a position, whose end is known, or will not be."""
        for shadow in shadows:
            self._uow.shadows.delete(shadow.key)
            self._cast.get((shadow.symbol, shadow.timeframe), set()).discard(shadow.position_id)

    def drop_of(self, position_id: str) -> None:
        """Forget the shadows of one position."""
        self.drop(self._uow.shadows.values(position_id + "|"))

    def _note(self, shadow: Shadow) -> None:
        self._cast.setdefault((shadow.symbol, shadow.timeframe), set()).add(shadow.position_id)
