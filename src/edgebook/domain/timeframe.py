"""The timeframes bars come in, and their lengths."""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgebook.domain.errors import MarketDataError

#: Every timeframe the system knows, finest first.
TIMEFRAMES: tuple[str, ...] = ("1m", "5m", "15m", "30m", "1h", "4h", "1d")

_SECONDS: dict[str, int] = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "4h": 14400, "1d": 86400}


def seconds(timeframe: str) -> int:
    """Length of one bar of ``timeframe`` in seconds.

    Raises:
        MarketDataError: the timeframe is unknown; the message names the allowed ones.

    >>> seconds("15m")
    900
    """
    try:
        return _SECONDS[timeframe]
    except KeyError:
        raise MarketDataError(
            f"unknown timeframe {timeframe!r}; use one of {', '.join(TIMEFRAMES)}", stage="market"
        ) from None


def micros(timeframe: str) -> int:
    """Length of one bar of ``timeframe`` in microseconds.

    Raises:
        MarketDataError: the timeframe is unknown.

    >>> micros("1m")
    60000000
    """
    return seconds(timeframe) * 1_000_000


def nearest(timeframe: str, choices: Iterable[str]) -> str:
    """The member of ``choices`` nearest to ``timeframe`` in log duration; ties go to the coarser (decisions.md 44).

    Used for tables with one row per timeframe (splits, horizon weights, costs) when a timeframe has no row of its own.

    Raises:
        MarketDataError: a timeframe is unknown, or there is nothing to choose from.

    >>> nearest("5m", ("1m", "15m", "1h"))
    '15m'
    >>> nearest("1d", ("1m", "15m", "1h", "4h"))
    '4h'
    """
    target = math.log(seconds(timeframe))
    ranked = sorted(choices, key=lambda choice: (round(abs(math.log(seconds(choice)) - target), 9), -seconds(choice)))
    if not ranked:
        raise MarketDataError(
            f"no timeframe to choose from for {timeframe!r}; give at least one of {', '.join(TIMEFRAMES)}",
            stage="market",
        )
    return ranked[0]
