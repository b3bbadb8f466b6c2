"""Indices of several symbols: cap classes, driver members, equal-weight log-return composites (trading.md 3.8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.errors import MarketDataError
from edgebook.market.bars import BarSeries

#: The one table of cap classes: name and upper bound in USD, smallest first (decisions 45).
CAP_CLASSES: tuple[tuple[str, float], ...] = (
    ("nano", 1e5),
    ("micro", 5e6),
    ("mid", 5e7),
    ("big", 5e8),
    ("large", 1e9),
    ("xl", float("inf")),
)
#: Members of the ALT driver while BTC itself is there.
ALT_TICKERS: frozenset[str] = frozenset({"SOL", "ETH", "BNB", "HYPE"})
STABLE_TICKERS: frozenset[str] = frozenset(
    {"USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USDP", "DAI", "USD", "USDE", "PYUSD"}
)
#: Series of a market's share in the total, in percent, and the driver each one is (trading.md 3.2, 3.8).
DOMINANCES: Mapping[str, str] = {"BTC.D": "btcd", "BTCD": "btcd", "USDT.D": "usdtd", "USDTD": "usdtd"}
#: A bucket with fewer members present has no index, no phase and no rank (decisions 45).
MIN_BUCKET_POPULATION = 3

_QUOTES = ("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USD", "BTC")


def cap_class(mcap_usd: float | None) -> str:
    """Cap class of a market cap in USD; "" when unknown. Intervals are [lower, upper) (decisions 45).

    Raises:
        MarketDataError: the cap is negative or not a number.

    >>> cap_class(99_999), cap_class(100_000), cap_class(2e9), cap_class(None)
    ('nano', 'micro', 'xl', '')
    """
    if mcap_usd is None:
        return ""
    if not mcap_usd >= 0:
        raise MarketDataError(f"market cap was {mcap_usd}; it must be a number of USD, 0 or more", stage="market")
    return next(name for name, upper in CAP_CLASSES if mcap_usd < upper or upper == float("inf"))


def ticker_of(symbol: str) -> str:
    """The traded asset of a symbol: its quote currency and contract suffix taken off.

    >>> [ticker_of(s) for s in ("SOLUSDT", "BTC-PERP", "ADABTC", "ETH/USDC", "BTC", "7bqJG2Zd")]
    ['SOL', 'BTC', 'ADA', 'ETH', 'BTC', '7bqJG2Zd']
    """
    head = re.split(r"[-/_:]", symbol, maxsplit=1)[0]
    for quote in _QUOTES:
        if head.endswith(quote) and len(head) > len(quote):
            return head[: -len(quote)]
    return head


def dominance_of(symbol: str) -> str:
    """The driver a dominance series is, ``btcd`` or ``usdtd``; "" for everything else.

    Only the bare names count: ``BTCDUSDT`` is a token.

    >>> [dominance_of(s) for s in ("BTC.D", "usdt.d", "USDTD", "BTCUSDT", "BTCDUSDT")]
    ['btcd', 'usdtd', 'usdtd', '', '']
    """
    return DOMINANCES.get(symbol.upper(), "")


def driver_members(symbols: Iterable[str], classes: Mapping[str, str] | None = None) -> dict[str, tuple[str, ...]]:
    """Members of every driver index: ``btc``, ``alt``, one ``bucket:<class>`` per class with enough tokens, and
    ``btcd`` and ``usdtd`` where there are bars of a dominance (decisions 45).

    With BTC bars, BTC is BTC and ALT the usual four (without any of them: everything but BTC and stables). Without BTC
    bars, BTC is the index of all tokens, ALT the same without BTC and stables. A dominance is a percentage, no token:
    it is a driver of its own and in no other index.

    >>> driver_members(["BTCUSDT", "ETHUSDT", "A", "B", "C"], {"A": "mid", "B": "mid", "C": "mid"})
    {'btc': ('BTCUSDT',), 'alt': ('ETHUSDT',), 'bucket:mid': ('A', 'B', 'C')}
    >>> driver_members(["BTCUSDT", "BTC.D", "SOLUSDT", "USDT.D"])
    {'btc': ('BTCUSDT',), 'alt': ('SOLUSDT',), 'btcd': ('BTC.D',), 'usdtd': ('USDT.D',)}
    """
    given = sorted(set(symbols))
    ordered = [symbol for symbol in given if not dominance_of(symbol)]
    btc = tuple(symbol for symbol in ordered if ticker_of(symbol) == "BTC")
    rest = tuple(symbol for symbol in ordered if ticker_of(symbol) not in STABLE_TICKERS | {"BTC"})
    usual = tuple(symbol for symbol in rest if ticker_of(symbol) in ALT_TICKERS)
    members = {"btc": btc or tuple(ordered), "alt": (usual or rest) if btc else rest}
    for name, _ in CAP_CLASSES:
        bucket = tuple(symbol for symbol in ordered if (classes or {}).get(symbol) == name)
        if len(bucket) >= MIN_BUCKET_POPULATION:
            members[f"bucket:{name}"] = bucket
    for driver in sorted(set(DOMINANCES.values())):
        members[driver] = tuple(symbol for symbol in given if dominance_of(symbol) == driver)
    return {name: names for name, names in members.items() if names}


@dataclass(frozen=True, slots=True)
class CompositeMemory:
    """What an index carries between chunks of bars: its log level and each member's last (ts_open, close)."""

    log_level: float = float(np.log(100.0))
    last: Mapping[str, tuple[int, float]] = field(default_factory=dict)


def composite(series: Sequence[BarSeries], *, name: str = "INDEX", min_members: int = 1) -> BarSeries:
    """Equal-weight log-return index of ``series`` over the members present, bar by bar, starting at 100 (trading.md
    3.8).

    ``log index_t = log index_(t-1) + mean_m ln(close_m,t / base_m,t)``; a member's base is its previous close, or its
    own open when it was absent on the bar before (so a return over a gap does not count). Open, high and low are the
    means of the members' log moves from the same bases, volume is the sum of quote volumes (close * volume).

    Raises:
        MarketDataError: no series, or series of different timeframes.
    """
    return extend_composite(CompositeMemory(), series, name=name, min_members=min_members)[0]


def extend_composite(
    memory: CompositeMemory, series: Sequence[BarSeries], *, name: str = "INDEX", min_members: int = 1
) -> tuple[BarSeries, CompositeMemory]:
    """`composite` over the next chunk: the same numbers whatever the chunks, given all members' bars of each."""
    timeframes = sorted({member.timeframe for member in series})
    if len(timeframes) != 1:
        raise MarketDataError(
            f"{name}: an index needs series of one timeframe, it got {', '.join(timeframes) or 'none'}", stage="market"
        )
    ts = np.unique(np.concatenate([member.ts_open for member in series]))
    sums, count = np.zeros((5, len(ts))), np.zeros(len(ts))
    last = dict(memory.last)
    for member in sorted(series, key=lambda one: one.symbol):
        if len(member):
            at = np.searchsorted(ts, member.ts_open)
            base = _bases(member, last.get(member.symbol))
            for row, values in enumerate((member.open, member.high, member.low, member.close)):
                sums[row, at] += np.log(values / base)
            sums[4, at] += member.close * member.volume
            count[at] += 1.0
            last[member.symbol] = (int(member.ts_open[-1]), float(member.close[-1]))
    keep = count >= max(1, min_members)
    moves = sums[:4, keep] / count[keep]
    levels = np.cumsum(np.r_[memory.log_level, moves[3]])
    prices = np.exp(levels[:-1] + moves)
    prices[3] = np.exp(levels[1:])
    top, bottom = np.maximum(prices[0], prices[3]), np.minimum(prices[0], prices[3])
    built = BarSeries(
        name,
        timeframes[0],
        ts[keep],
        prices[0],
        np.maximum(prices[1], top),
        np.minimum(prices[2], bottom),
        prices[3],
        sums[4, keep],
    )
    return built, CompositeMemory(float(levels[-1]), last)


def _bases(member: BarSeries, last: tuple[int, float] | None) -> NDArray[np.float64]:
    """Per bar: the close one bar earlier, or the bar's own open when that bar is missing."""
    base = member.open.copy()
    follows = np.flatnonzero(np.diff(member.ts_open) == member.step) + 1
    base[follows] = member.close[follows - 1]
    if last is not None and member.ts_open[0] - last[0] == member.step:
        base[0] = last[1]
    return base
