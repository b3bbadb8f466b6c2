"""Candles of an exchange, page by page, checked.

A candle counts once it has closed by the venue's own clock and its numbers make sense. What is missing is asked for a
second time; what is missing then is a gap for good where a later candle has closed, and else may still come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgebook.adapters.venue import Market, NoAnswerError, Venue
from edgebook.domain.timeframe import micros
from edgebook.market.bars import BarSeries

_COLUMNS = ("ts_open", "open", "high", "low", "close", "volume")

Row = tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Page:
    """Closed candles by open time, ascending; complete up to ``until``; ``faults`` says what was wrong with others."""

    rows: Mapping[int, Row]
    until: int
    faults: Mapping[int, str]


def read_page(venue: Venue, market: Market, timeframe: str, begin: int, end: int, now: int) -> Page:
    """The candles after ``begin`` that fit into one answer of the venue.

    Args:
        begin: open time of the first candle, on the grid, microseconds UTC.
        end: no candle closes after this, nor after ``now``.
        now: the venue's time, read before this call.

    Raises:
        PortError: the venue did not answer, refused, or sent nonsense; nothing is lost, ask again.
    """
    step = micros(timeframe)
    closed = min(end, now) // step * step
    stop = min(closed, begin + venue.dialect.candles * step)
    rows, faults, beyond = _ask(venue, market, timeframe, begin, stop, now)
    missing = [ts for ts in range(begin, stop, step) if ts not in rows]
    if missing:
        again, more, beyond = _ask(venue, market, timeframe, missing[0], missing[-1] + step, now)
        rows = dict(sorted((rows | {ts: again[ts] for ts in missing if ts in again}).items()))
        faults = {ts: reason for ts, reason in (faults | more).items() if ts not in rows}
    last = max(rows, default=begin - step) + step
    if last >= stop:
        return Page(rows, max(begin, stop), faults)
    return Page(rows, max([last, *faults]) if beyond is None else min(closed, beyond), faults)


def _ask(
    venue: Venue, market: Market, timeframe: str, begin: int, stop: int, now: int
) -> tuple[dict[int, Row], dict[int, str], int | None]:
    """Good candles in [begin, stop), faults of others, and the first closed candle after them that the venue showed."""
    step, rows, faults, beyond = micros(timeframe), dict[int, Row](), dict[int, str](), None
    at = begin
    while at < stop:
        seen = at - step
        for raw in venue.candles(market, timeframe, at, (stop - at) // step):
            ts = _open_time(venue, market, raw, step)
            if stop <= ts <= now - step:
                beyond = ts if beyond is None else min(beyond, ts)
            elif at <= ts < stop:
                row = _numbers(raw)
                reason = _fault(*row)
                faults |= {ts: reason} if reason else {}
                rows |= {} if reason else {ts: row}
            seen = max(seen, ts)
        if seen < at:
            break
        at = seen + step
    return rows, faults, beyond


def _open_time(venue: Venue, market: Market, raw: Sequence[Any], step: int) -> int:
    ts = raw[0] * 1000 if raw and isinstance(raw[0], int) else -1
    if ts < 0 or ts % step:
        raise NoAnswerError("nonsense", f"{venue.name} sent a candle of {market.symbol} that opens at {raw[:1]}")
    return ts


def _numbers(raw: Sequence[Any]) -> Row:
    o, h, low, c, v = (float(x) if isinstance(x, int | float) else math.nan for x in (*raw[1:6], *[None] * 5)[:5])
    return o, h, low, c, v


def _fault(o: float, h: float, low: float, c: float, v: float) -> str:
    """What is wrong with a candle, "" if nothing."""
    if not all(math.isfinite(price) and price > 0 for price in (o, h, low, c)):
        return f"prices {o:g} {h:g} {low:g} {c:g}; they must be positive and finite"
    if h < max(o, c) or low > min(o, c):
        return f"high {h:g} and low {low:g} must enclose open {o:g} and close {c:g}"
    if not (math.isfinite(v) and v >= 0):
        return f"volume {v:g}; it must be finite and not negative"
    return ""


def series_of(symbol: str, timeframe: str, rows: Mapping[int, Row]) -> BarSeries:
    """Bars from rows by open time, ascending."""
    values = np.array(list(rows.values()), dtype=np.float64).reshape(-1, 5)
    return BarSeries(symbol, timeframe, np.array(list(rows), dtype=np.int64), *values.T)


def joined(symbol: str, timeframe: str, parts: Sequence[BarSeries]) -> BarSeries:
    """One series from parts in the order of time."""
    if not parts:
        return series_of(symbol, timeframe, {})
    if len(parts) == 1:
        return parts[0]
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS)
    return BarSeries(symbol, timeframe, *columns)
