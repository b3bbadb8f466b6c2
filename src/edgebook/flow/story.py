"""Writing a market down: what each token's trend does, bar by bar, as a script the system can run on.

A `Story` holds tokens and bars. A `Tale` writes one token on one timeframe, each call one or more bars further, so that
a scenario reads like what happens: ``tale.state("S1").chance().state("S2").state("S3").trim().state("S0")``.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.timeframe import TIMEFRAMES, micros

#: Where stories begin: 2024-01-01, midnight UTC.
START = round(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def iso(at: int) -> str:
    """A time in microseconds UTC as text.

    >>> iso(START)
    '2024-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Story:
    """A written market.

    Args:
        days: how long it goes on.
        base: timeframe of its bars; none finer can be traded.
        history_days: days of bars before the start; 70 are enough for 4h.
    """

    def __init__(self, days: float, *, base: str = "1h", history_days: float = 70.0) -> None:
        self.start, self.end, self.base = START, START + round(days * DAY), base
        self._lines: list[dict[str, Any]] = [
            {"script": 1, "start": iso(self.start), "end": iso(self.end), "base": base, "history_days": history_days}
        ]
        self._price: dict[str, float] = {}

    def token(self, symbol: str, *, price: float = 100.0, **info: Any) -> str:
        """A token, silent on every timeframe until a tale says otherwise; other fields as the script has them."""
        self._lines.append({"token": symbol, "price": price, **info})
        self._price[symbol] = price
        for timeframe in TIMEFRAMES:
            if micros(timeframe) >= micros(self.base):
                first = self.start + micros(timeframe)
                self._lines.append({"symbol": symbol, "timeframe": timeframe, "ts": iso(first), "state": "S0"})
        return symbol

    def tale(self, symbol: str, timeframe: str, after_hours: float = 1.0) -> Tale:
        """Begin to tell of a token on a timeframe; its first bar closes at least so many hours after the start."""
        step = micros(timeframe)
        first = -(-(self.start + round(after_hours * HOUR)) // step) * step
        return Tale(self, symbol, timeframe, max(first, self.start + 2 * step), self._price.get(symbol, 100.0))

    def line(self, **row: Any) -> None:
        """One line of the script as it is."""
        self._lines.append(row)

    def driver(self, name: str, timeframe: str, at: int, state: str, **scores: Any) -> None:
        """What the engine is to say of a regime driver (``btc``, ``alt``, ``bucket:micro``) on the bar closing then."""
        self.line(symbol=name, timeframe=timeframe, ts=iso(at), state=state, **scores)

    def write(self, path: Path) -> Path:
        """The script file."""
        path.write_text("".join(json.dumps(line) + "\n" for line in self._lines), encoding="utf-8")
        return path


class Tale:
    """One token on one timeframe; every call writes the next bars. Prices are what the bars close at.

    Attributes:
        at: close of the next bar, microseconds UTC.
        price: the last close.
    """

    def __init__(self, story: Story, symbol: str, timeframe: str, at: int, price: float) -> None:
        self.story, self.symbol, self.timeframe, self.at, self.price = story, symbol, timeframe, at, price

    @property
    def last(self) -> int:
        """Close of the last bar written (or passed), microseconds UTC."""
        return self.at - micros(self.timeframe)

    def bar(self, state: str = "", price: float | None = None, **scores: Any) -> Tale:
        """One bar: a new state or the old one, a close, any scores."""
        row: dict[str, Any] = {"symbol": self.symbol, "timeframe": self.timeframe, "ts": iso(self.at)}
        if state:
            row["state"] = state
        if price is not None:
            row["price"], self.price = price, price
        self.story.line(**row, **scores)
        self.at += micros(self.timeframe)
        return self

    def state(self, state: str, price: float | None = None, **scores: Any) -> Tale:
        """The bar on which the trend changes to ``state``, far from every zone."""
        return self.bar(state, price, **scores)

    def calm(self, bars: int = 1) -> Tale:
        """So many bars on which nothing is said."""
        self.at += bars * micros(self.timeframe)
        return self

    def until(self, at: int) -> Tale:
        """Nothing is said until the bar that closes at ``at`` or first after it."""
        step = micros(self.timeframe)
        self.at = max(self.at, -(-at // step) * step)
        return self

    def chance(self, ts_score: float = 0.7, price: float | None = None, **scores: Any) -> Tale:
        """An S1 bar in the entry zone (the close at EMA60) with this TS; 0.6 is the base gate."""
        close = self.price if price is None else price
        return self.bar("", price, **{"ts_score": ts_score, "ema60": close, **scores})

    def retest(self, ts_score: float = 0.7, price: float | None = None, **scores: Any) -> Tale:
        """An S2 bar at EMA333."""
        close = self.price if price is None else price
        return self.bar("", price, **{"ts_score": ts_score, "ema333": close, **scores})

    def dip(self, dx: float = 0.9, ts_score: float = 0.8, price: float | None = None, **scores: Any) -> Tale:
        """An S3 bar in the hallway between EMA144 and EMA333, a third of the way down: there 0.6 is the base gate."""
        close = self.price if price is None else price
        band = {"ema144": close * 1.004, "ema333": close * 0.992}
        return self.bar("", price, **{"dx": dx, "ts_score": ts_score, **band, **scores})

    def trim(self, price: float | None = None, *, level: float | None = None, **scores: Any) -> Tale:
        """An S2 or S3 bar that is overextended at a level (its own close, if not said otherwise)."""
        close = self.price if price is None else price
        near = {"nearest_level_price": close if level is None else level, "nearest_level_distance_atr": 0.0}
        return self.bar("", price, **{"ox": 0.8, **near, **scores})

    def emergency(self, price: float | None = None, **scores: Any) -> Tale:
        """An S3 bar that closes below EMA333."""
        close = self.price if price is None else price
        return self.bar("", price, **{"ema144": close * 1.02, "ema333": close * 1.01, **scores})

    def reclaim(self, price: float | None = None, **scores: Any) -> Tale:
        """An S3 bar back above EMA333; a reclaim when the bar before was an emergency."""
        close = self.price if price is None else price
        return self.bar("", price, **{"ema144": close * 1.01, "ema333": close * 0.995, "dx": 0.0, **scores})

    def first_dip(self, price: float | None = None, **scores: Any) -> Tale:
        """An S3 bar that the engine calls the first dip."""
        return self.bar("", price, **{"first_dip": True, **scores})


def signal(ident: str, symbol: str, at: int = START, **change: Any) -> str:
    """One social signal that asks for a buy, as a line for the ingress; ``change`` replaces its fields."""
    said = {
        "id": ident,
        "ts": iso(at),
        "curator": "ann",
        "token": {"symbol": symbol, "chain": "exchange"},
        "intent": "new_discovery",
        "mapping_confidence": 0.95,
    }
    return json.dumps(said | change)
