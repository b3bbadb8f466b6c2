"""A simulated market whose structure is known: the default feed of ``edgebook run`` and the ground of learning tests.

Low caps (24 by default, three cap classes in turn) and three drivers (BTC, ETH, SOL) on 1 m bars, endless, after 75
days of pre-history so that 4 h has its 333 bars. Prices are script (`sim_script`) + market factor + noise: volatility
clusters, jumps, bounce within the bar, volume that follows moves; a pull towards home keeps them in a plausible range
for years. Everything is a pure function of (seed, token, day) and the state of the day before, whatever is asked in
whatever order.

Planted truth (`SimSource.truth`), all of it through the fate of attempts, never by touching a result:

1. Curators. ``early`` and ``patient`` call tokens before attempts that will run, ``fader`` before those that will fail,
   ``micro_scout`` is good on micro caps and bad elsewhere, ``late`` calls after the run began, three are noise.
2. Buckets. Attempts of micro caps run more often (.72 against .48 for mid and .16 for big), and the legs of their runs
   climb 1.9 times as fast as those of mid and 3.5 times as fast as those of big caps.
3. Gates. Wide-ranging pops mostly run, quiet grinds nearly always fail, in every class. A grind is entered while EMA60
   is all but flat, a pop while it is steep: windows just above the S1 slope gate lose, those far above it win, so the
   right ``slope_min`` is higher than its base of 0.

Measured with the whole system on seeds 1-5, 14 days, default settings: about 1,130 closed trades (nine in ten on 1 m)
and 125 signals a day, win rate .40-.42, mean rr .30-.49 (sd 1.8-2.1). Mean rr of first S1 entries: micro +1.1, mid +.3,
big -.2; of decisions after a call of ``early`` and ``patient`` +1.0, noise +.1, ``fader`` -.2. S1 entries on 1 m by
slope in severity caps above the gate (seeds 6 and 7): 0-.5 rr -.43 (win .15), .5-1 +.09, over 1 +1.33 (win .64). Daily
volatility of low caps is .21-.27.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from edgebook.adapters.feeds.sim_script import (
    ATTEMPT,
    DAY_MINUTES,
    DRAWS,
    KINDS,
    RUN,
    ClassTruth,
    Floats,
    fresh_state,
    play_day,
)
from edgebook.adapters.feeds.sim_signals import CURATORS, Call, calls_of_day
from edgebook.domain.errors import InputError, MarketDataError
from edgebook.domain.timeframe import micros
from edgebook.kernels import kernel
from edgebook.market.bars import BarSeries
from edgebook.ports import TokenInfo

MINUTE = micros("1m")
DAY = micros("1d")
#: Days of bars before the trading start: 4 h needs 333 bars.
PREHISTORY_DAYS = 75
#: 2024-01-01T00:00:00Z
DEFAULT_START = 1_704_067_200_000_000

#: The slow layer of the script runs this many times slower than the fast one.
SLOW = 15.0
#: Days of bars kept in memory, over all tokens; older ones are generated again when asked for.
_KEPT_BLOCKS = 4_000
#: A call may come this many days after the script event it follows from (a slow base lasts up to 18 hours).
_CALL_REACH_DAYS = 1
_SIGNAL_STREAM = 7_919

#: What is true of the three cap classes.
TRUTHS: tuple[ClassTruth, ...] = (
    ClassTruth("micro", 0.0042, 3_000.0, (0.74, 0.24, 0.02), (0.97, 0.01, 0.0), 2.1, -0.2),
    ClassTruth("mid", 0.0038, 8_000.0, (0.54, 0.44, 0.02), (0.88, 0.01, 0.0), 1.1),
    ClassTruth("big", 0.0034, 25_000.0, (0.34, 0.64, 0.02), (0.46, 0.01, 0.0), 0.6, 0.3),
)
_DRIVER = ClassTruth("xl", 0.0006, 2_000_000.0, (0.7, 0.2, 0.1), (0.5, 0.5, 0.0), 1.0)
_DRIVERS = (
    ("BTCUSDT", "BTC", 8.0e11, 42_000.0),
    ("ETHUSDT", "ETH", 2.7e11, 2_250.0),
    ("SOLUSDT", "SOL", 4.5e10, 101.0),
)
_NAMES = (
    "ACORN", "BADGER", "CEDAR", "DINGO", "EMBER", "FALCON", "GINKGO", "HERON", "IBIS", "JUNIPER", "KOALA", "LYNX",
    "MAPLE", "NEWT", "OTTER", "PUFFIN", "QUOKKA", "RAVEN", "SEQUOIA", "TAPIR", "URCHIN", "VOLE", "WILLOW", "YAK",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SimToken:
    """One simulated token and what is true of it."""

    symbol: str
    ticker: str
    truth: ClassTruth
    price: float
    mcap_usd: float
    beta: float

    @property
    def driver(self) -> bool:
        """Whether it drives the market instead of being traded."""
        return self.truth.name == "xl"


@dataclass(slots=True)
class _State:
    """What one token carries from day to day."""

    fast: Floats
    slow: Floats
    walk: Floats

    def copy(self) -> _State:
        return _State(self.fast.copy(), self.slow.copy(), self.walk.copy())


@dataclass(frozen=True, slots=True)
class _Day:
    """One token's day: 1440 rows of open, high, low, close, volume, and the script's events per layer."""

    bars: Floats
    returns: Floats
    fast_events: Floats
    slow_events: Floats


class SimSource:
    """Endless seeded market; implements `edgebook.ports.BarSource`.

    Args:
        seed: everything follows from it.
        tokens: tradable tokens, 3 to 24; the three drivers come on top and get no signals.
        start: start of trading, midnight UTC in microseconds; signals begin here.
        prehistory: days of bars before it.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(
        self, seed: int = 1, tokens: int = 16, *, start: int = DEFAULT_START, prehistory: int = PREHISTORY_DAYS
    ) -> None:
        if not 3 <= tokens <= len(_NAMES):
            raise InputError(f"tokens was {tokens}; the simulated market has 3 to {len(_NAMES)}")
        if start % DAY or seed < 0 or prehistory < 0:
            raise InputError(
                f"start ({start}) must be midnight UTC, seed ({seed}) and prehistory ({prehistory}) not negative"
            )
        self.seed, self.start, self._prehistory = seed, start, prehistory
        self._tokens = {token.symbol: token for token in _cast(seed, tokens)}
        self._number = {symbol: i for i, symbol in enumerate(self._tokens)}
        self._states: dict[str, list[_State]] = {
            symbol: [_first_state(token, seed, self._number[symbol])] for symbol, token in self._tokens.items()
        }
        self._days: OrderedDict[tuple[str, int], _Day] = OrderedDict()
        self._lines: dict[int, list[tuple[int, str, str]]] = {}

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols, ascending; the three drivers included."""
        return tuple(sorted(self._tokens))

    @property
    def base_timeframe(self) -> str:
        """1m."""
        return "1m"

    @property
    def span(self) -> tuple[int, int | None]:
        """From the start of the pre-history, without end."""
        return self.start - self._prehistory * DAY, None

    def tokens(self) -> dict[str, TokenInfo]:
        """The token table; every token is on chain ``exchange``."""
        return {
            symbol: TokenInfo(symbol, self._tokens[symbol].ticker, "exchange", self._tokens[symbol].mcap_usd)
            for symbol in self.symbols
        }

    def bars(self, symbol: str, start: int, end: int) -> BarSeries:
        """1 m bars with ``ts_open >= start`` that close at or before ``end``; generated day by day as needed.

        Raises:
            MarketDataError: an unknown symbol.
        """
        if symbol not in self._tokens:
            raise MarketDataError(f"no simulated token {symbol}; there are {', '.join(self.symbols)}", stage="feed")
        origin = self.span[0]
        first = -(-(max(start, origin) - origin) // MINUTE)
        last = max(first, (end - origin) // MINUTE)
        days = range(first // DAY_MINUTES, -(-last // DAY_MINUTES))
        blocks = [self._day(symbol, day).bars for day in days]
        rows = np.concatenate(blocks) if blocks else np.zeros((0, 5))
        offset = first // DAY_MINUTES * DAY_MINUTES
        rows = rows[first - offset : last - offset]
        columns = [rows[:, i] for i in range(5)]
        return BarSeries(symbol, "1m", origin + MINUTE * np.arange(first, last, dtype=np.int64), *columns)

    def signals(self, start: int, end: int) -> Sequence[str]:
        """JSONL lines of calls with ``start < ts <= end``, by time then id; none before the trading start."""
        first, last = max(start, self.start), end
        if last <= first:
            return ()
        origin = self.span[0]
        days = range(max(0, (first - origin) // DAY - _CALL_REACH_DAYS), (last - origin) // DAY + 1)
        found = [line for day in days for line in self._calls(day) if first < line[0] <= last]
        return tuple(text for _, _, text in sorted(found))

    def truth(self) -> dict[str, Any]:
        """What has been planted: tokens and attempts per class, curators' skill, where each channel should go."""
        tradable = [token for token in self._tokens.values() if not token.driver]
        return {
            "seed": self.seed,
            "tokens": {t.name: [one.symbol for one in tradable if one.truth is t] for t in TRUTHS},
            "attempts": {
                t.name: {kind: {"share": t.mix[i], "becomes_run": t.odds[i]} for i, kind in enumerate(KINDS)}
                for t in TRUTHS
            },
            "good": [c.name for c in CURATORS if c.skill == "good"] + ["micro_scout on micro"],
            "bad": [c.name for c in CURATORS if c.skill == "bad"] + ["micro_scout elsewhere"],
            "neutral": [c.name for c in CURATORS if c.skill == "none"],
            "sizes": {"micro": "up", "big": "down"},
            "gates": {"slope_min": "tighten"},
        }

    def _calls(self, day: int) -> list[tuple[int, str, str]]:
        """(ts, id, line) of every call that follows from one day's script, over all tokens."""
        if day not in self._lines:
            lines: list[tuple[int, str, str]] = []
            for symbol, token in self._tokens.items():
                if token.driver:
                    continue
                block = self._day(symbol, day)
                rng = np.random.default_rng([self.seed, self._number[symbol], day, _SIGNAL_STREAM])
                for n, call in enumerate(calls_of_day(rng, token.truth.name, (block.fast_events, block.slow_events))):
                    ts = self.span[0] + day * DAY + (call.minute + 1) * MINUTE
                    identity = f"sim-{day:05d}-{token.ticker}-{n:02d}"
                    lines.append((ts, identity, self._line(token, call, ts, identity)))
            self._lines[day] = lines
            for old in [known for known in self._lines if known < day - 8 * _CALL_REACH_DAYS]:
                del self._lines[old]
        return self._lines[day]

    def _line(self, token: SimToken, call: Call, ts: int, identity: str) -> str:
        """The call as one JSON line (decisions 40), with the market data of its minute."""
        day = self.bars(token.symbol, ts - DAY, ts)
        signal = {
            "id": identity,
            "ts": datetime.fromtimestamp(ts // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "curator": call.curator,
            "token": {"symbol": token.symbol, "ticker": token.ticker, "chain": "exchange"},
            "intent": call.intent,
            "mapping_confidence": call.mapping_confidence,
            "market": {
                "mcap_usd": round(token.mcap_usd * float(day.close[-1]) / token.price, 2),
                "vol24h_usd": round(float(day.close @ day.volume), 2),
                "age_days": round(self._prehistory + (ts - self.start) / DAY, 2),
            },
        }
        return json.dumps(signal)

    def _day(self, symbol: str, day: int) -> _Day:
        """The token's day, counted from the start of the pre-history; a pure function of seed, token and day."""
        key = (symbol, day)
        if key in self._days:
            self._days.move_to_end(key)
            return self._days[key]
        states = self._states[symbol]
        for missing in range(min(day, len(states) - 1), day + 1):
            state = states[missing].copy()
            block = self._play(symbol, missing, state)
            if missing + 1 == len(states):
                states.append(state)
            self._days[symbol, missing] = block
        while len(self._days) > _KEPT_BLOCKS:
            self._days.popitem(last=False)
        return self._days[key]

    def _play(self, symbol: str, day: int, state: _State) -> _Day:
        token = self._tokens[symbol]
        rng = np.random.default_rng([self.seed, self._number[symbol], day])
        market = np.zeros(DAY_MINUTES) if symbol == "BTCUSDT" else self._day("BTCUSDT", day).returns
        table = token.truth.table()
        stretch = 4.0 if token.driver else 1.0
        fast, calm, phase, fast_events = play_day(state.fast, rng.random(DRAWS), table, stretch)
        slow, _, _, slow_events = play_day(state.slow, rng.random(DRAWS), table, SLOW * stretch)
        busy = 1.0 + 0.9 * (phase == ATTEMPT) + 0.4 * (phase == RUN)
        normals = rng.standard_normal((DAY_MINUTES, 5))
        jumps = rng.random((DAY_MINUTES, 2))
        bars, returns = np.empty((DAY_MINUTES, 5)), np.empty(DAY_MINUTES)
        usd = token.truth.usd_per_minute
        drift = (fast + 0.5 * slow) * token.truth.sigma + token.beta * market
        _walk(state.walk, drift, calm, busy, normals, jumps, token.truth.sigma, usd, bars, returns)
        return _Day(bars, returns, fast_events, slow_events)


def _cast(seed: int, tokens: int) -> list[SimToken]:
    """Drivers, then tokens dealt over the three classes in turn; caps, prices and betas are drawn from the seed."""
    rng = np.random.default_rng([seed, 999_983])
    cast = [
        SimToken(s, ticker, _DRIVER, price, cap, 0.0 if ticker == "BTC" else 1.0) for s, ticker, cap, price in _DRIVERS
    ]
    caps = {"micro": (8e5, 4e6), "mid": (8e6, 4e7), "big": (7e7, 2.2e8)}
    for i in range(tokens):
        truth = TRUTHS[i % len(TRUTHS)]
        low, high = caps[truth.name]
        cap = round(float(np.exp(rng.uniform(np.log(low), np.log(high)))), -3)
        price = float(f"{np.exp(rng.uniform(np.log(1e-3), np.log(5.0))):.4g}")
        cast.append(SimToken(f"{_NAMES[i]}USDT", _NAMES[i], truth, price, cap, round(float(rng.uniform(0.3, 0.7)), 3)))
    return cast


def _first_state(token: SimToken, seed: int, number: int) -> _State:
    rng = np.random.default_rng([seed, number, 1_000_003])
    level = np.log(token.price)
    walk = np.array([level, level + token.truth.home, 0.0, 0.0, level])
    return _State(fresh_state(float(rng.uniform(20, 200))), fresh_state(float(rng.uniform(20, 200)) * SLOW), walk)


@kernel
def _walk(
    state: Floats,
    drift: Floats,
    calm: Floats,
    busy: Floats,
    normals: Floats,
    jumps: Floats,
    sigma: float,
    usd: float,
    bars: Floats,
    returns: Floats,
) -> None:
    """Bars from drift and noise. State: log price, home level, log volatility, transitory noise, last log close."""
    for t in range(len(drift)):
        state[2] = 0.985 * state[2] + 0.05 * normals[t, 1]
        scale = sigma * calm[t] * np.exp(state[2])
        jump = 0.0
        if jumps[t, 0] < 0.0004:
            jump = sigma * (3.0 + 5.0 * jumps[t, 1]) * (1.0 if normals[t, 2] > 0.0 else -1.0)
        move = drift[t] + scale * 0.8 * normals[t, 0] + jump - 4e-5 * (state[0] - state[1])
        returns[t] = move
        state[0] += move
        state[3] = 0.3 * state[3] + 0.8 * scale * normals[t, 2]
        opened, closed = state[4], state[0] + state[3]
        state[4] = closed
        bars[t, 0], bars[t, 3] = np.exp(opened), np.exp(closed)
        bars[t, 1] = np.exp(max(opened, closed) + 1.2 * scale * abs(normals[t, 3]))
        bars[t, 2] = np.exp(min(opened, closed) - 1.2 * scale * abs(normals[t, 4]))
        size = abs(closed - opened) / sigma
        bars[t, 4] = usd * busy[t] * (0.5 + 0.5 * size) * np.exp(0.5 * normals[t, 1]) / bars[t, 3]
