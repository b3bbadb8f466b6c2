"""Regime: what the market at large says, for one (moment, timeframe, cap class) (trading.md 3.2, 3.8; decisions 36,
45).

A `RegimeTimeline` is fed with facts in time order and asked at any moment from then on:

- hourly closes of the universe become indices (portfolio, BTC, ALT, one per cap class), streams, phases and bucket
    ranks;
- driver tracks (states and flags of the driver indices, run through the engine elsewhere) become appetite A and E.

Everything known at ``now`` comes from bars that closed at or before ``now``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.errors import MarketDataError
from edgebook.domain.ids import stable_id
from edgebook.domain.reading import DriverReading
from edgebook.domain.regime import Regime
from edgebook.domain.scope import PM_SCHEMA, ScopeItems, make_scope
from edgebook.domain.timeframe import micros
from edgebook.market.appetite import DRIVER_WEIGHTS, HORIZONS, bounded, bucket_multiplier, mode, raw_appetite
from edgebook.market.appetite_models import Exposure, exposed, flag_appetite, market_pressure, phase_appetite
from edgebook.market.composite import CAP_CLASSES, MIN_BUCKET_POPULATION, driver_members
from edgebook.market.phases import PRESETS, STREAM_WEIGHTS, Lens, PhaseTrack, blend_scores, phase_name

HOUR = micros("1h")
#: A driver reading older than this many bars of its horizon is no data.
MAX_AGE_BARS = 2

_STATES = ("S0", "S1", "S2", "S3", "S4")
_CACHE_LIMIT = 50_000
_RISING = {"S0": -1, "S1": 1, "S2": 1, "S3": 1}

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Content = dict[str, str | int | float | None]


@dataclass(frozen=True, slots=True, eq=False)
class DriverTrack:
    """States and flags of one driver on one horizon, one entry per closed bar, as the engine's columns have them.

    Attributes:
        ts: close times, microseconds UTC, strictly increasing.
        state, prev_state: codes 0..4 for S0..S4.
        buy_flag, buy_signal, first_dip, trim_flag: base-gate flags of the bar.
        emergency: whether the close was below EMA333 in S3; all off where the model of A and E does not ask.
    """

    ts: Ints
    state: NDArray[np.int8]
    prev_state: NDArray[np.int8]
    buy_flag: Flags
    buy_signal: Flags
    first_dip: Flags
    trim_flag: Flags
    emergency: Flags


@dataclass(frozen=True, slots=True)
class BucketReading:
    """One cap class at one hour: its phase and how many of its tokens were there."""

    name: str
    phase: str
    score: float
    slope: float
    confidence: float
    population: int


@lru_cache(maxsize=4096)
def _scope(values: tuple[tuple[str, str | int | None], ...]) -> ScopeItems:
    return make_scope(PM_SCHEMA, dict(values))


class _Snapshot(Mapping[str, str | int | float | None]):
    """The content of a regime snapshot, put together when somebody looks: most regimes are only traded upon."""

    __slots__ = ("_build", "_content")

    def __init__(self, build: Callable[[], Content]) -> None:
        self._build = build
        self._content: Content | None = None

    def _all(self) -> Content:
        if self._content is None:
            self._content = self._build()
        return self._content

    def __getitem__(self, name: str) -> str | int | float | None:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


class _Segments:
    """A driver track as stretches of equal readings, so that a moment finds its reading by bisection."""

    def __init__(self, driver: str, horizon: str, timeframe: str) -> None:
        self.driver, self.horizon, self.step = driver, horizon, micros(timeframe)
        self.starts: list[int] = []
        self.readings: list[DriverReading | None] = []
        self.last_ts = 0
        self._last_row: tuple[int, ...] = ()

    def extend(self, track: DriverTrack) -> None:
        if not len(track.ts):
            return
        if track.ts[0] <= self.last_ts or (np.diff(track.ts) <= 0).any():
            raise MarketDataError(
                f"driver {self.driver} {self.horizon}: bars must come in time order, after {self.last_ts}; "
                f"the new ones start at {int(track.ts[0])}",
                stage="regime",
            )
        fell = np.where((track.state == 0) & (track.prev_state > 0) & (track.prev_state < 4), track.prev_state, 0)
        flags = [track.buy_flag, track.buy_signal, track.first_dip, track.trim_flag, track.emergency]
        rows = np.column_stack([track.state, fell, *flags]).astype(np.int64)
        gap = np.diff(track.ts, prepend=self.last_ts or track.ts[0]) > MAX_AGE_BARS * self.step
        changed = np.r_[True, (rows[1:] != rows[:-1]).any(axis=1)] | gap
        for i in np.flatnonzero(changed).tolist():
            row = tuple(rows[i].tolist())
            if i == 0 and row == self._last_row and not gap[0]:
                continue
            if gap[i]:
                before = int(track.ts[i - 1]) if i else self.last_ts
                self._append(before + MAX_AGE_BARS * self.step, None)
            self._append(int(track.ts[i]), self._reading(int(track.ts[i]), row, int(track.prev_state[i])))
        self.last_ts = int(track.ts[-1])
        self._last_row = tuple(rows[-1].tolist())

    def at(self, now: int) -> tuple[int, DriverReading | None]:
        """Since when the reading at ``now`` holds, and the reading (None: no data, or too old)."""
        if now >= self.last_ts + MAX_AGE_BARS * self.step and self.starts:
            return self.last_ts + MAX_AGE_BARS * self.step, None
        i = bisect_right(self.starts, now) - 1
        return (self.starts[i], self.readings[i]) if i >= 0 else (0, None)

    def _append(self, start: int, reading: DriverReading | None) -> None:
        self.starts.append(start)
        self.readings.append(reading)

    def _reading(self, ts: int, row: Sequence[int], previous: int) -> DriverReading:
        state, fell, buy_flag, buy_signal, first_dip, trim_flag, emergency = row
        return DriverReading(
            self.driver,
            self.horizon,
            ts,
            _STATES[state],
            _STATES[previous],
            bool(buy_flag),
            bool(buy_signal),
            bool(first_dip),
            bool(trim_flag),
            _STATES[fell] if fell else "",
            bool(emergency),
        )


class _Streams:
    """Streams of one index (the portfolio or a bucket) against BTC and ALT, and their score on given horizons."""

    def __init__(self, horizons: Sequence[str], *, has_btc: bool) -> None:
        names = ("port_btc", "port_alt", "rotation", "btc") if has_btc else ("btc",)
        self.lenses = {
            horizon: {name: Lens(PRESETS[horizon]) for name in names if name in STREAM_WEIGHTS[horizon]}
            for horizon in horizons
        }
        self.phases = {horizon: PhaseTrack(PRESETS[horizon].dwell) for horizon in horizons}

    def extend(self, streams: Mapping[str, Floats], present: Mapping[str, Flags]) -> None:
        count = len(next(iter(streams.values())))
        for horizon, lenses in self.lenses.items():
            for name, lens in lenses.items():
                lens.extend(streams[name], present[name])
            done = len(self.phases[horizon].score)
            values = {name: lens.values(done) for name, lens in lenses.items()}
            scores = blend_scores(values, STREAM_WEIGHTS[horizon]) if values else np.full(count, np.nan)
            self.phases[horizon].extend(scores)


class RegimeTimeline:
    """The regime at any moment from facts given so far; asking never changes an answer.

    Args:
        classes: cap class of every member ("" when unknown: the token counts for the portfolio, not for a bucket).
        horizons: timeframe of each driver horizon; leave ``micro`` out when the finest bars are coarser than 15 m.
        normalise_h: scale driver horizon weights to the same sum on every timeframe (trading.md 3.2).
        model: of A and E: ``driver``, ``flags`` or ``phases`` (`market.appetite_models`).
    """

    def __init__(
        self,
        classes: Mapping[str, str],
        horizons: Mapping[str, str] | None = None,
        *,
        normalise_h: bool = False,
        model: str = "driver",
    ) -> None:
        self.model = model
        self.members = driver_members(classes, classes)
        self._horizons = dict(horizons if horizons is not None else {"macro": "1d", "meso": "1h"})
        self._normalise = normalise_h
        self._symbols = tuple(sorted(classes))
        self._last: dict[str, tuple[int, float]] = {}
        self._index = {"port": self._symbols, **self.members}
        self._level = dict.fromkeys(self._index, 0.0)
        self._population: dict[str, list[int]] = {name: [] for name in self._index}
        self._start = self._hours = 0
        has_btc = self.members.get("btc") != self._symbols
        phased = [horizon for horizon in HORIZONS if horizon in self._horizons]
        self._market = _Streams(phased, has_btc=has_btc)
        self._classes = [name for name, _ in CAP_CLASSES if f"bucket:{name}" in self.members]
        self._buckets = {name: _Streams(("meso",), has_btc=True) for name in self._classes}
        self._moves = {name: Lens(PRESETS["meso"]) for name in self._classes}
        self._tracks: dict[tuple[str, str], _Segments] = {}
        self._ranks: dict[int, tuple[BucketReading, ...]] = {}
        self._known: dict[tuple[int, str, str], Regime] = {}
        self._now = -1
        self._at_now: dict[tuple[str, str], Regime] = {}

    @property
    def until(self) -> int:
        """Close of the last hour that has been fed, microseconds UTC; 0 before the first."""
        return self._start + (self._hours - 1) * HOUR if self._hours else 0

    def extend(self, closes: Mapping[str, tuple[Ints, Floats]], until: int) -> None:
        """Append all hours up to and including ``until``.

        Args:
            closes: per symbol the (close times, closes) of its 1 h bars of those hours; hours without a bar are left
                out.
            until: last hour close, microseconds UTC; every bar that closed by then must be in ``closes`` or before.

        Raises:
            MarketDataError: an unknown symbol, a time off the hour grid, or hours that have been fed before.
        """
        first = (
            self.until + HOUR
            if self._hours
            else min((int(ts[0]) for ts, _ in closes.values() if len(ts)), default=until + HOUR)
        )
        count = (until - first) // HOUR + 1
        if count <= 0:
            return
        if not self._hours:
            self._start = first
        moves, there = self._moves_of(closes, first, count)
        levels: dict[str, Floats] = {}
        present: dict[str, Flags] = {}
        row = {symbol: i for i, symbol in enumerate(self._symbols)}
        for name, names in self._index.items():
            picked = [row[symbol] for symbol in names]
            levels[name], population = _index(moves[picked], there[picked], self._level[name])
            self._level[name] = float(levels[name][-1])
            self._population[name] += population.tolist()
            present[name] = population > 0
        self._extend_phases(levels, present)
        self._hours += count
        self._forget()

    def extend_driver(self, driver: str, horizon: str, track: DriverTrack) -> None:
        """Append closed bars of one driver on one horizon.

        Args:
            driver: ``btc``, ``alt``, ``btcd``, ``usdtd`` or ``bucket:<class>``.
            horizon: ``macro``, ``meso`` or ``micro``.

        Raises:
            MarketDataError: an unknown driver or horizon, or bars out of order.
        """
        role = driver.partition(":")[0]
        if role not in DRIVER_WEIGHTS or horizon not in self._horizons:
            raise MarketDataError(
                f"unknown driver track {driver} {horizon}; drivers are {', '.join(DRIVER_WEIGHTS)}, "
                f"horizons here {', '.join(self._horizons)}",
                stage="regime",
            )
        key = (driver, horizon)
        if key not in self._tracks:
            self._tracks[key] = _Segments(role, horizon, self._horizons[horizon])
            self._tracks = dict(sorted(self._tracks.items()))
        self._tracks[key].extend(track)
        self._forget()

    def at(self, now: int, timeframe: str, cap_class: str) -> Regime:
        """The regime at ``now`` for trades on ``timeframe`` in a token of ``cap_class`` ("" when unknown).

        ``Regime.ts`` is the moment since when this reading has held; its snapshot id is a function of that moment, the
        timeframe and the cap class, so equal content is stored once.
        """
        if now != self._now:
            self._now = now
            self._at_now.clear()
        cached = self._at_now.get((timeframe, cap_class))
        if cached is None:
            cached = self._at_now[timeframe, cap_class] = self._read(now, timeframe, cap_class)
        return cached

    def buckets(self, now: int) -> tuple[BucketReading, ...]:
        """Cap classes with enough tokens and a phase at ``now``, strongest first (ties: smaller class first)."""
        hour = self._hour(now)
        if hour < 0:
            return ()
        if hour not in self._ranks:
            found = [self._bucket(name, hour) for name in self._classes]
            ranked = [one for one in found if one.population >= MIN_BUCKET_POPULATION and not math.isnan(one.score)]
            self._ranks[hour] = tuple(sorted(ranked, key=lambda one: -one.score))
        return self._ranks[hour]

    def _hour(self, now: int) -> int:
        return min((now - self._start) // HOUR, self._hours - 1) if self._hours and now >= self._start else -1

    def _read(self, now: int, timeframe: str, cap_class: str) -> Regime:
        hour = self._hour(now)
        since = self._start + hour * HOUR if hour >= 0 else 0
        readings: list[DriverReading] = []
        for (driver, _), segments in self._tracks.items():
            if driver.startswith("bucket:") and driver != f"bucket:{cap_class}":
                continue
            start, reading = segments.at(now)
            since = max(since, start)
            if reading is not None:
                readings.append(reading)
        key = (since, timeframe, cap_class)
        if key not in self._known:
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            self._known[key] = self._compose(since, hour, readings, timeframe, cap_class)
        return self._known[key]

    def _compose(
        self, since: int, hour: int, readings: Sequence[DriverReading], timeframe: str, cap_class: str
    ) -> Regime:
        ranking = self.buckets(self._start + hour * HOUR) if hour >= 0 else ()
        rank = next((i + 1 for i, one in enumerate(ranking) if one.name == cap_class), None)
        own = ranking[rank - 1] if rank else None
        boost = bucket_multiplier(rank, own.slope, own.confidence) if own else 1.0
        sums = self._sums(readings, timeframe, hour)
        pressure = self._pressure(hour, readings) if self.model == "phases" else None
        a, e = bounded(sums, boost) if pressure is None else exposed(sums, Exposure(), (0.0, 0.0), boost)
        scope: dict[str, str | int | None] = {"A_mode": mode(a), "E_mode": mode(e), "bucket_rank_position": rank}
        for horizon, track in self._market.phases.items():
            scope[f"{horizon}_phase"] = phase_name(track.code[hour] if hour >= 0 else -1)
        scope["bucket_leader"] = ranking[0].name if ranking else None
        facts: Content = {"timeframe": timeframe, "cap_class": cap_class, "bucket_multiplier": round(boost, 6)}
        facts |= {"a_base": a, "e_base": e}
        snapshot = _Snapshot(partial(self._content, facts, hour, readings, ranking))
        identity = stable_id("regime", since, timeframe, cap_class)
        return Regime(since, a, e, _scope(tuple(scope.items())), identity, snapshot, *sums, boost, pressure)

    def _sums(self, readings: Sequence[DriverReading], timeframe: str, hour: int) -> tuple[float, float]:
        """The market's (A, E) under the chosen model, before clamping and bucket."""
        if self.model == "flags":
            return flag_appetite(readings)
        if self.model == "phases":
            meso, macro = (self._phase(horizon, hour) for horizon in ("meso", "macro"))
            return phase_appetite(meso, macro)
        return raw_appetite(readings, timeframe, normalise=self._normalise)

    def _phase(self, horizon: str, hour: int) -> str:
        track = self._market.phases.get(horizon)
        return phase_name(track.code[hour] if track is not None and hour >= 0 else -1)

    def _pressure(self, hour: int, readings: Sequence[DriverReading]) -> float:
        """What the market adds to cut pressure: the meso score, its curvature over two changes, and whether dominances
        stand in an uptrend (1), in S0 (-1), or neither."""
        track, apart = self._market.phases.get("meso"), PRESETS["meso"].delta
        scores = [track.score[h] if track is not None and h >= 0 else math.nan for h in (hour, hour - apart)]
        oldest = track.score[hour - 2 * apart] if track is not None and hour >= 2 * apart else math.nan
        rising = [_RISING.get(r.state, 0) for r in readings if r.driver in ("btcd", "usdtd") and r.horizon == "meso"]
        dominance = sum(rising) / len(rising) if rising else 0.0
        return market_pressure(scores[0], scores[0] - 2 * scores[1] + oldest, dominance)

    def _content(
        self, facts: Content, hour: int, readings: Sequence[DriverReading], ranking: Sequence[BucketReading]
    ) -> Content:
        """What a snapshot says: phases with scores, driver states, buckets in order of rank."""
        content = dict(facts)
        for horizon, track in self._market.phases.items():
            code = track.code[hour] if hour >= 0 else -1
            content[f"{horizon}_phase"] = phase_name(code)
            content[f"{horizon}_score"] = round(track.score[hour], 6) if code >= 0 else None
            content[f"{horizon}_confidence"] = round(track.confidence[hour], 6) if code >= 0 else None
        for reading in readings:
            content[f"{reading.driver}_{reading.horizon}"] = reading.state
        for one in ranking:
            content[f"bucket_{one.name}_phase"] = one.phase
            content[f"bucket_{one.name}_score"] = round(one.score, 6)
            content[f"bucket_{one.name}_slope"] = round(one.slope, 6)
            content[f"bucket_{one.name}_confidence"] = round(one.confidence, 6)
            content[f"bucket_{one.name}_population"] = one.population
        content["bucket_rank"] = ",".join(one.name for one in ranking)
        return content

    def _bucket(self, name: str, hour: int) -> BucketReading:
        track = self._buckets[name].phases["meso"]
        slope = float(self._moves[name].slope()[hour]) * PRESETS["meso"].slope
        return BucketReading(
            name,
            phase_name(track.code[hour]),
            track.score[hour],
            0.0 if math.isnan(slope) else slope,
            track.confidence[hour],
            self._population[f"bucket:{name}"][hour],
        )

    def _extend_phases(self, levels: Mapping[str, Floats], present: Mapping[str, Flags]) -> None:
        btc, alt = levels["btc"], levels.get("alt", levels["btc"])
        has_btc, has_alt = present["btc"], present.get("alt", np.zeros_like(present["btc"]))
        shared = {"btc": btc, "rotation": alt - btc}
        there = {"btc": has_btc, "rotation": has_btc & has_alt}
        groups = [(self._market, "port"), *((self._buckets[name], f"bucket:{name}") for name in self._classes)]
        for group, name in groups:
            own, mine = levels[name], present[name]
            group.extend(
                shared | {"port_btc": own - btc, "port_alt": own - alt},
                there | {"port_btc": mine & has_btc, "port_alt": mine & has_alt},
            )
        for name, lens in self._moves.items():
            lens.extend(levels[f"bucket:{name}"], present[f"bucket:{name}"])

    def _moves_of(self, closes: Mapping[str, tuple[Ints, Floats]], first: int, count: int) -> tuple[Floats, Flags]:
        """Log returns per (symbol, hour) over consecutive hours (NaN elsewhere), and where a close is there."""
        moves = np.full((len(self._symbols), count), np.nan)
        there = np.zeros((len(self._symbols), count), dtype=bool)
        unknown = sorted(set(closes) - set(self._symbols))
        if unknown:
            raise MarketDataError(
                f"regime: {unknown[0]} is not a member; members are fixed at creation", stage="regime"
            )
        for row, symbol in enumerate(self._symbols):
            ts, close = closes.get(symbol, (np.zeros(0, dtype=np.int64), np.zeros(0)))
            if not len(ts):
                continue
            at, off = np.divmod(np.asarray(ts) - first, HOUR)
            if off.any() or at[0] < 0 or at[-1] >= count or (np.diff(at) <= 0).any():
                raise MarketDataError(
                    f"regime: hourly closes of {symbol} must lie on whole hours from {first} to "
                    f"{first + (count - 1) * HOUR}, ascending; they span {int(ts[0])} to {int(ts[-1])}",
                    stage="regime",
                )
            there[row, at] = True
            follows = np.flatnonzero(np.diff(at) == 1) + 1
            moves[row, at[follows]] = np.log(close[follows] / close[follows - 1])
            last = self._last.get(symbol)
            if last is not None and int(ts[0]) - last[0] == HOUR:
                moves[row, at[0]] = np.log(close[0] / last[1])  # as above: math.log may differ in the last digit
            self._last[symbol] = (int(ts[-1]), float(close[-1]))
        return moves, there

    def _forget(self) -> None:
        """Drop cached answers: a later chunk may add facts to moments beyond the former end."""
        self._now = -1
        self._ranks.clear()
        self._known.clear()


def _index(moves: Floats, there: Flags, level: float) -> tuple[Floats, Ints]:
    """Log level after each hour and how many members were present.

    The level moves by the mean log return of the members that have one: a member that has just come, or come back, has
    none yet and must not dilute the others.
    """
    population = np.zeros(moves.shape[1], dtype=np.int64)
    moved = np.zeros(moves.shape[1], dtype=np.int64)
    total = np.zeros(moves.shape[1])
    for row in range(len(moves)):
        has_return = there[row] & ~np.isnan(moves[row])
        population += there[row]
        moved += has_return
        total += np.where(has_return, moves[row], 0.0)
    mean = total / np.maximum(moved, 1)
    return np.cumsum(np.r_[level, mean])[1:], population
