"""Cutting the future off: feeds that end at a moment, and how what they give is compared with the whole.

Whatever is known at a moment must be the same whether or not there is anything after it. So everything is made twice,
once from all bars and once from the bars that closed by the cut, and must be equal up to the cut. A cut feed hands out
copies: an index that runs past the end of an array must not find the future in memory behind it.

Truncation cannot see what is the same in both: the token table, the choice of symbols, the signals themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.reading import finite_or_none
from edgebook.market.bars import BarSeries
from edgebook.ports import BarSource, TokenInfo
from edgebook.runtime.bootstrap import Feed

Json = Any
#: Two numbers are equal if they differ by at most this share of the larger one; NaN equals NaN.
TOLERANCE = 1e-12
#: Differences kept with their values; all are counted.
KEPT = 20
_ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not what it was: something before ``cut`` depends on something after it.

    Attributes:
        symbol, timeframe: the series ("" where the fact belongs to none).
        ts: close of the bar, or the moment of the reading, microseconds UTC.
        column: name of the column or fact.
        whole, short: its value with all bars, and with the bars up to ``cut`` only; "absent" where there is none.
        cut: last moment the short one knew, microseconds UTC.
    """

    symbol: str
    timeframe: str
    ts: int
    column: str
    whole: Json
    short: Json
    cut: int


@dataclass(slots=True)
class Findings:
    """Comparisons of one part of the analysis: how many were made, from how many cuts, and what differed."""

    cuts: int = 0
    comparisons: int = 0
    differences: int = 0
    first: list[Difference] = field(default_factory=list)

    def differ(self, found: Difference, times: int = 1) -> None:
        """Note a difference that stands for ``times`` of its kind."""
        self.differences += times
        if len(self.first) < KEPT:
            self.first.append(found)

    def compare(self, whole: Mapping[str, Json], short: Mapping[str, Json], where: tuple[str, str, int, int]) -> None:
        """Compare two mappings of facts about ``where`` (symbol, timeframe, moment, cut)."""
        symbol, timeframe, ts, cut = where
        for name in dict.fromkeys((*whole, *short)):
            self.comparisons += 1
            a, b = whole.get(name, _ABSENT), short.get(name, _ABSENT)
            if not equal(a, b):
                self.differ(Difference(symbol, timeframe, ts, name, finite_or_none(a), finite_or_none(b), cut))


def equal(a: Json, b: Json) -> bool:
    """Whether two facts are the same: numbers to 1e-12 of the larger, NaN equals NaN, all else exactly.

    >>> equal(1.0, 1.0 + 1e-13), equal(1.0, 1.0 + 1e-11), equal(float("nan"), float("nan")), equal("S1", "S2")
    (True, False, True, False)
    """
    if a == b:
        return True
    if not (isinstance(a, float) and isinstance(b, float)):
        return False
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=TOLERANCE)


def unequal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Where two columns of equal length differ; `equal` for arrays."""
    if a.dtype.kind != "f":
        return np.asarray(a != b)
    with np.errstate(invalid="ignore"):
        away = np.abs(a - b)
        near = np.isfinite(away) & (away <= TOLERANCE * np.maximum(np.abs(a), np.abs(b)))
    return np.asarray(~((a == b) | near | (np.isnan(a) & np.isnan(b))))


def spread(count: int, shares: Sequence[float]) -> list[int]:
    """Positions at these shares of ``count`` places, ascending, each once; none of an empty series.

    >>> spread(10, (0.2, 0.5, 0.55)), spread(0, (0.5,))
    ([2, 5], [])
    """
    return sorted({min(count - 1, int(count * share)) for share in shares}) if count else []


def bars_until(series: BarSeries, cut: int) -> BarSeries:
    """A copy of the bars that closed at or before ``cut``."""
    kept = series.slice(0, cut - series.step + 1)
    names = ("ts_open", "open", "high", "low", "close", "volume")
    return BarSeries(series.symbol, series.timeframe, *(np.array(getattr(kept, name)) for name in names))


class CutSource:
    """Another source of bars up to ``cut``: nothing that closes later is in it; implements `ports.BarSource`.

    Args:
        source: where the bars come from.
        cut: last moment, microseconds UTC.
    """

    def __init__(self, source: BarSource, cut: int) -> None:
        self._source, self._cut = source, cut

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols of the source."""
        return tuple(self._source.symbols)

    @property
    def base_timeframe(self) -> str:
        """Timeframe of the bars."""
        return self._source.base_timeframe

    @property
    def span(self) -> tuple[int, int | None]:
        """First moment of the source, and the cut or the source's own end, whichever is earlier."""
        first, last = self._source.span
        return first, self._cut if last is None else min(last, self._cut)

    def bars(self, symbol: str, start: int, end: int) -> BarSeries:
        """Copies of the bars with ``ts_open >= start`` that close at or before ``end`` and the cut."""
        last = min(end, self._cut)
        return bars_until(self._source.bars(symbol, start, last), last)

    def signals(self, start: int, end: int) -> Sequence[str]:
        """Signals of the source up to the cut."""
        return self._source.signals(start, min(end, self._cut))

    def tokens(self) -> dict[str, TokenInfo]:
        """The token table of the source: it is the same at every cut."""
        return self._source.tokens()


def cut_feed(feed: Feed, cut: int) -> Feed:
    """``feed`` as it was at ``cut``: bars, drivers and signals up to there."""
    drivers = CutSource(feed.drivers, cut) if feed.drivers is not None else None
    signals = [one for one in feed.signals if one[0] <= cut]
    return Feed(CutSource(feed.source, cut), drivers, signals, feed.start, feed.chunk_days)
