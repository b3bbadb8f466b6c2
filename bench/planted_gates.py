"""Planted thresholds: does the system move a gate to where the market says it should be, and only there?

A seeded market in which one gate matters: every attempt offers chances at a random distance from that gate, and how a
chance ends depends on its distance from the gate's true place, which differs by regime (``Good`` and ``Dip`` take
turns). The real system runs over it: signals, decisions, the tick with its gates, orders, fills, episodes, shadows,
aggregator, lesson builder, materializer, overrides; only states and scores are scripted (decisions 37). Afterwards the
gate in force in each regime is compared with the true one, and a fresh market is traded with what was learned and
without.

Worlds: ``split`` (true place looser by one cap in Good, tighter in Dip) and ``default`` (the base is right). Per lever
and method: seeds whose gates are on the right side in both regimes, on the wrong side beyond one step in any, and the
mean change of R per opportunity on fresh data, with a 90 % interval over seeds.

Run: ``python bench/planted_gates.py [--lever ts_min] [--method marginal] [--seeds 20] [--days N] [--json]``
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from edgebook.adapters.brokers.paper import PaperBroker, PaperCosts
from edgebook.adapters.memory import MemoryStore
from edgebook.desk import Desk
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.levers import lever as lever_row
from edgebook.domain.reading import AFTER, EMERGENCY, MOVE, TRIM, WARM_BARS, WINDOW, MarketReading
from edgebook.domain.regime import Regime
from edgebook.domain.scope import PM_SCHEMA, ScopeItems, make_scope
from edgebook.domain.timeframe import micros
from edgebook.learning.config import LearningConfig
from edgebook.market.bars import BarSeries
from edgebook.overrides.combine import apply_pattern_execution_overrides
from edgebook.ports import Quote, TokenInfo
from edgebook.runtime.market import Tape
from edgebook.runtime.scheduler import run_simulated
from edgebook.runtime.system import System
from edgebook.trading.rules import TradingRules

HOUR, DAY = micros("1h"), micros("1d")
T0 = 500_000 * HOUR
SYMBOLS = tuple(f"P{i:02d}USDT" for i in range(24))
REGIMES = ("Good", "Dip")
#: The gates that are planted, and the state their chances are in.
STATE = {"ts_min": "S1", "halo": "S1", "dx_min": "S3"}
#: Days of learning: about five thousand chances; an attempt up to S3 takes longer, and its retests vary more.
DAYS = {"ts_min": 80, "halo": 80, "dx_min": 120}
#: Rise of a chance that succeeds and fall of one that fails, fractions of its price; share that must succeed.
RISE, FALL, EVEN = 0.025, 0.02, 0.343
_CALM: dict[str, Any] = {
    "atr": 1.0, "ema20": 100.0, "ema30": 100.0, "ema60": 100.0, "ema144": 98.0, "ema250": 96.0, "ema333": 95.0,
    "ema60_slope": 0.001, "ema144_slope": 0.001, "ema250_slope": 0.0005, "ema333_slope": 0.0005, "ts_score": 0.3,
    "ox": 0.4, "dx": 0.1, "edx": 0.4, "edx_suppression": 0.0, "volume": 1e7,
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """What is planted: the gate, its true place per regime in caps from the base (positive is tighter), and how steeply
    success falls with each cap of distance."""

    lever: str
    place: tuple[float, float]
    steep: float = 0.3

    def success(self, u: float, regime: str) -> float:
        """Probability that a chance at ``u`` caps inside the base gate succeeds."""
        return min(0.97, max(0.03, EVEN + self.steep * (u - self.place[REGIMES.index(regime)])))


def worlds(name: str) -> dict[str, World]:
    """The worlds of one lever."""
    return {"split": World(name, (-1.0, 1.0)), "default": World(name, (0.0, 0.0))}


class Market:
    """Readings, marks and quotes of a planted market; the twin of a tape over hourly bars."""

    live, timeframes, base = False, ("1h",), "1h"

    def __init__(self, world: World, seed: int, days: int, start: int = T0) -> None:
        self.world, self.start, self.end = world, start, start + days * DAY
        self.loaded_until, self.symbols = self.end, SYMBOLS
        self.tokens: dict[str, TokenInfo] = {}
        self.opportunities = 0
        own = sorted(STATE).index(world.lever)
        rng = np.random.default_rng([seed, own, 99])
        self._phases = [REGIMES[int(rng.integers(2))] for _ in range(days + 1)]
        hours = days * 24
        self.source = SimpleNamespace(signals=self._signals)
        self._bars: dict[str, list[MarketReading]] = {}
        self._due: dict[int, list[tuple[str, int]]] = {}
        for number, symbol in enumerate(SYMBOLS):
            self._bars[symbol] = self._walk(symbol, np.random.default_rng([seed, own, number]), hours)
        for symbol, bars in self._bars.items():
            before = 0
            for bar in bars:
                bits = _events(bar)
                if bits or before:
                    self._due.setdefault(bar.ts, []).append((symbol, bits | (AFTER if before else 0)))
                before = bits

    def phase(self, now: int) -> str:
        """The regime of a day."""
        return self._phases[(now - self.start) // DAY]

    def world_at(self, now: int) -> World:
        """What is planted at a moment; here always the same."""
        return self.world

    def _walk(self, symbol: str, rng: np.random.Generator, hours: int) -> list[MarketReading]:
        bars: list[MarketReading] = []
        state = "S0"
        while len(bars) < hours:
            for to, price, more in self._attempt(rng, self.start + len(bars) * HOUR):
                ts = self.start + (len(bars) + 1) * HOUR
                over = to == "S0" != state
                last = bars[-1].price if bars else price
                values = {
                    **_CALM, "open": last, "high": max(last, price), "low": min(last, price), "price": price,
                    "prev_state": state, "transition": f"{state}->{to}" if to != state else "", "exit_position": over,
                    "exit_reason": {"S1": "s1_to_s0_bearish_order", "S3": "all_emas_below_333"}[state] if over else "",
                    "bar_index": WARM_BARS + len(bars), **more,
                }  # fmt: skip
                bars.append(MarketReading(symbol, "1h", to, ts, **values))
                state = to
        return bars[:hours]

    def _attempt(self, rng: np.random.Generator, now: int) -> list[tuple[str, float, dict[str, Any]]]:
        """Bars of one attempt: (state, close, scores). One chance of two bars, seen at a random distance ``u``."""
        u = float(rng.uniform(-1.5, 1.5))
        good = rng.random() < self.world_at(now).success(u, self.phase(now))
        noise = rng.normal(0, 0.001, 2)
        self.opportunities += 1
        up, down = 100.0 * (1 + RISE + float(noise[0])), 100.0 * (1 - FALL + float(noise[1]))
        far = {"ema60": 90.0}
        calm: list[tuple[str, float, dict[str, Any]]] = [("S0", 100.0, {}) for _ in range(int(rng.integers(2, 6)))]
        if STATE[self.world.lever] == "S1":
            bars = [*calm, ("S1", 100.0, far), *(("S1", 100.0, _scores(self.world.lever, u)) for _ in range(2))]
            if not good:
                return [*bars, ("S1", down, far), ("S0", down, {})]
            return [*bars, ("S1", up - 1, far), ("S2", up, far), ("S3", up, {}), ("S0", up, {})]
        bars = [*calm, ("S1", 100.0, far), ("S2", 101.0, {}), ("S3", 102.0, {})]
        bars += [("S3", 100.0, _scores("dx_min", u)) for _ in range(2)]
        if not good:
            return [*bars, ("S3", down, {"emergency_exit": True, "ema333": 99.7, "ema144": 100.6}), ("S0", down, {})]
        return [
            *bars,
            ("S3", up, {}),
            ("S3", up, {"trim_flag": True, "ox": 0.8, "nearest_level_price": up}),
            ("S0", up, {}),
        ]

    def _signals(self, after: int, until: int) -> list[str]:
        if not after <= self.start + HOUR <= until or after == until:
            return []
        return [
            json.dumps(
                {
                    "id": f"{symbol}-{self.start}",
                    "ts": datetime.fromtimestamp((self.start + HOUR) / 1e6, UTC).isoformat(),
                    "curator": "ann",
                    "token": {"symbol": symbol, "chain": "exchange"},
                    "intent": "new_discovery",
                    "mapping_confidence": 0.95,
                }
            )
            for symbol in SYMBOLS
        ]

    # -- what the system asks

    def load(self, now: int) -> None:
        """Everything is there."""

    def closes(self, after: int, until: int) -> Any:
        """Hours in ``(after, until]``."""
        return np.arange(after // HOUR * HOUR + HOUR, until + 1, HOUR, dtype=np.int64)

    def due(self, timeframe: str, now: int) -> Sequence[tuple[str, int]]:
        """Symbols whose bar at ``now`` may mean something."""
        return self._due.get(now, ())

    def reading(self, symbol: str, timeframe: str, now: int) -> MarketReading | None:
        """The bar that closes at ``now``."""
        i = (now - self.start) // HOUR - 1
        bars = self._bars[symbol]
        return bars[i] if 0 <= i < len(bars) and (now - self.start) % HOUR == 0 else None

    def bars_count(self, symbol: str, timeframe: str, now: int) -> int:
        """Enough for any position to be watched."""
        return WARM_BARS

    def contiguous_bars(self, symbol: str, timeframe: str, now: int, max_hole: int) -> int:
        """The same."""
        return WARM_BARS

    def mark(self, symbol: str, now: int) -> float | None:
        """The last close."""
        i = min(len(self._bars[symbol]), (now - self.start) // HOUR)
        return self._bars[symbol][i - 1].price if i > 0 else None

    def mark_at(self, symbol: str, now: int) -> int | None:
        """When that bar closed."""
        return now // HOUR * HOUR

    def quote(self, symbol: str, planned: int, now: int) -> Quote | None:
        """The next bar opens where the last one closed."""
        price = self.mark(symbol, planned)
        return Quote(planned, price) if price is not None and now >= planned else None

    def volume_24h_usd(self, symbol: str, now: int) -> float:
        """A liquid token."""
        return 1e10

    def path(self, symbol: str, timeframe: str, start: int, end: int) -> BarSeries:
        """Bars in between."""
        first, last = max(0, -(-(start - self.start) // HOUR)), max(0, (end - self.start) // HOUR)
        bars = self._bars[symbol][first:last]
        opens = np.array([b.ts - HOUR for b in bars], dtype=np.int64)
        columns = (np.array([float(getattr(b, n)) for b in bars]) for n in ("open", "high", "low", "price", "volume"))
        return BarSeries(symbol, "1h", opens, *columns)

    def regime(self, timeframe: str, cap_class: str, now: int) -> Regime:
        """The day's phase, known before its first bar."""
        scope = _scope(self.phase(max(self.start, now - 1)))
        return Regime(now, 0.5, 0.5, scope, f"{self.start}-{now // DAY}-{dict(scope)['macro_phase']}", {})


def _scope(phase: str) -> ScopeItems:
    return make_scope(PM_SCHEMA, {"macro_phase": phase, "A_mode": "normal", "E_mode": "normal"})


def _scores(lever: str, u: float) -> dict[str, Any]:
    """Scores of a chance ``u`` caps inside one gate, far inside all others."""
    row = lever_row(lever)
    at = row.base + row.polarity * u * row.cap
    if lever == "ts_min":
        return {"ts_score": at}
    if lever == "halo":
        return {"ts_score": 0.9, "ema60": 100.0 - at}
    # price a third of the way from EMA144 to EMA333: no boost of the DX threshold
    return {"ts_score": 0.9, "dx": at, "ema144": 100.3, "ema333": 99.4}


def _events(bar: MarketReading) -> int:
    reach = abs(bar.price - bar.ema60) <= 1.6 if bar.state == "S1" else bar.price <= bar.ema144
    near = reach and bar.state in ("S1", "S3")
    return (
        (MOVE if bar.transition or bar.exit_position else 0)
        | (WINDOW if near else 0)
        | (TRIM if bar.trim_flag else 0)
        | (EMERGENCY if bar.emergency_exit else 0)
    )


# ---------------------------------------------------------------- one run


def run(market: Market, learning: LearningConfig, given: Sequence[ConfigVersion] = (), learn: bool = True) -> Desk:
    """The system over a market; ``given`` configs are in force from the start, ``learn``: whether more may follow."""
    rules = TradingRules(timeframes=("1h",), holdout=0.0, starting_cash_usd=Decimal(10_000_000))
    with MemoryStore().writer() as uow:
        for version in given:
            uow.config_versions.put(version)
        broker = PaperBroker(PaperCosts(symbols=dict.fromkeys(SYMBOLS, "exchange")))
        desk = Desk(uow, cast(Any, market), broker, {}, rules, learning)
        system = System(desk, cast(Tape, market), strict=True)
        if learn:
            run_simulated(system, market.end)
        else:
            idle = SimpleNamespace(until=lambda end: iter(()))
            for moment in system.moments(market.end):
                system.step(moment, cast(Any, idle))
            system.commit()
        return desk


def gates_of(desk: Desk, lever: str, now: int) -> tuple[float, float]:
    """The gate in force in each regime at ``now``."""
    found = []
    for phase in REGIMES:
        scope = make_scope(PM_SCHEMA, {**dict(_scope(phase)), "market_family": "lowcaps", "timeframe": "1h"})
        controls = apply_pattern_execution_overrides(desk.history, STATE[lever], scope, now, "1h")
        found.append(controls.signal_thresholds[lever])
    return found[0], found[1]


def r_per_opportunity(desk: Desk, market: Market) -> float:
    """R of all closed trades over chances offered."""
    return sum(trade.rr for trade in desk.uow.trades.values()) / market.opportunities


def judge(world: World, seed: int, days: int, learning: LearningConfig) -> dict[str, Any]:
    """One seed: gates after learning, and a fresh market traded with them and without."""
    market = Market(world, seed, days)
    desk = run(market, learning)
    row = lever_row(world.lever)
    gates = gates_of(desk, world.lever, market.end)
    moved = [row.polarity * (gate - row.base) for gate in gates]
    versions = sorted(desk.uow.config_versions.values(), key=lambda v: v.version)
    gained = 0.0
    if any(abs(m) > 1e-12 for m in moved):
        fresh = Market(world, seed + 1_000, max(7, days // 2), market.end)
        learned, base = run(fresh, learning, versions, learn=False), run(fresh, learning, learn=False)
        gained = r_per_opportunity(learned, fresh) - r_per_opportunity(base, fresh)
    wrong = [m * p <= 0 and abs(m) > row.step + 1e-12 for m, p in zip(moved, world.place, strict=True)]
    right = [m * p > 0 for m, p in zip(moved, world.place, strict=True) if p]
    return {"seed": seed, "gates": gates, "right": bool(right) and all(right), "wrong": any(wrong), "gained_r": gained,
            "opportunities": market.opportunities}  # fmt: skip


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the seeds say together."""
    gains = [row["gained_r"] for row in rows]
    mean = statistics.fmean(gains)
    half = 1.645 * statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
    return {
        "seeds": len(rows),
        "right": sum(row["right"] for row in rows),
        "wrong": sum(row["wrong"] for row in rows),
        "gates": [statistics.median(row["gates"][i] for row in rows) for i in (0, 1)],
        "gained_r": mean,
        "gained_r_ci90": [mean - half, mean + half],
        "opportunities": statistics.fmean(row["opportunities"] for row in rows),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lever", choices=[*STATE, "all"], default="all")
    parser.add_argument("--method", choices=["marginal", "votes", "all"], default="all")
    parser.add_argument("--world", choices=["split", "default", "all"], default="all")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--days", type=int, default=None, help="Days of learning; about 5,000 chances by default.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = []
    for lever in STATE if given.lever == "all" else (given.lever,):
        for name, world in worlds(lever).items():
            if given.world not in ("all", name):
                continue
            for method in ("marginal", "votes") if given.method == "all" else (given.method,):
                began = time.perf_counter()
                learning = replace(LearningConfig(), tuning_method=method)
                with ProcessPoolExecutor() as pool:
                    jobs = [
                        pool.submit(judge, world, seed, given.days or DAYS[lever], learning)
                        for seed in range(1, given.seeds + 1)
                    ]
                    rows = [job.result() for job in jobs]
                told = {"name": "planted_gates", "lever": lever, "world": name, "method": method, **summary(rows),
                        "wall_s": round(time.perf_counter() - began, 1)}  # fmt: skip
                found.append(told)
                print(json.dumps(told) if given.json else _line(told), flush=True)
    sys.exit(0 if found else 1)


def _line(told: dict[str, Any]) -> str:
    lo, hi = told["gained_r_ci90"]
    return (
        f"{told['lever']:7} {told['world']:8} {told['method']:9} right {told['right']:2}/{told['seeds']} "
        f"wrong {told['wrong']:2}/{told['seeds']}  gates Good {told['gates'][0]:.3f} Dip {told['gates'][1]:.3f}  "
        f"R per opportunity {told['gained_r']:+.4f} [{lo:+.4f}, {hi:+.4f}]  "
        f"({told['opportunities']:.0f} chances, {told['wall_s']} s)"
    )


if __name__ == "__main__":
    main()
