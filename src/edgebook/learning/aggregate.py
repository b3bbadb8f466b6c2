"""Strands to statistics: what a closed trade or episode adds to every slice it belongs to (learning.md 3; mission
section 4).

Pure: rows come through small callables, changed rows go back as values. Results depend on the order of strands only
through rounding, never on how they are cut into calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgebook.domain.errors import LearningError, StrandError
from edgebook.domain.evidence import FamilyFit, Observation, StatRow, family_key
from edgebook.domain.pattern import EPISODE_PATTERN
from edgebook.domain.shadow import ShadowOutcome, ShadowsClosed
from edgebook.domain.strands import EpisodeSummary, PositionClosed, Strand
from edgebook.domain.values import maker
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.edge import baseline, edge_raw
from edgebook.learning.episodes import (
    Evidence,
    Sums,
    add_evidence,
    add_outcome,
    add_payoff,
    counts,
    summed,
    window_evidence,
)
from edgebook.learning.slices import Slice, canonical, row_keys
from edgebook.learning.margins import add_worth, worth_of
from edgebook.learning.observe import dm_observation, pm_observations

Lookup = Callable[[str], StatRow | None]
_stat_row = maker(StatRow)


@dataclass(frozen=True, slots=True)
class Aggregated:
    """What changed. ``counts`` has read, applied and skipped strands; ``problems`` go to the dead letters."""

    observations: tuple[Observation, ...]
    stats: tuple[StatRow, ...]
    fits: tuple[FamilyFit, ...]
    counts: dict[str, int]
    problems: tuple[tuple[Strand, str], ...]


def aggregate(
    strands: Sequence[Strand],
    *,
    stat: Lookup,
    observation: Callable[[str], Observation | None],
    decision: Callable[[str], Strand | None],
    fit: Callable[[str], FamilyFit | None],
    now: int,
    config: LearningConfig = DEFAULT,
) -> Aggregated:
    """Fold closed trades and episode summaries into observations and ``pattern_scope_stats`` rows.

    Args:
        strands: new strands in log order (after the caller's watermark); kinds other than ``position_closed`` and
            ``uptrend_episode_summary`` are skipped.
        stat, observation, decision, fit: current row or strand by key, None when absent.
        now: moment of the run, microseconds; becomes created_at or updated_at.

    A trade or decision that is already counted with equal content changes nothing. A family seen for the first time
    comes back as a fit with n = 0 that does not act. A strand that contradicts itself is a problem and changes nothing.
    """
    fold = _Fold(stat, observation, decision, fit, now, config)
    applied = 0
    problems: list[tuple[Strand, str]] = []
    for strand in strands:
        try:
            applied += fold.take(strand)
        except (LearningError, StrandError) as error:
            problems.append((strand, error.message))
    skipped = len(strands) - applied - len(problems)
    return Aggregated(
        tuple(fold.observations.values()),
        tuple(fold.stats.values()),
        tuple(fold.fits.values()),
        {"read": len(strands), "applied": applied, "skipped": skipped},
        tuple(problems),
    )


class _Fold:
    """State of one call: rows touched so far shadow the stored ones."""

    def __init__(
        self,
        stat: Lookup,
        observation: Callable[[str], Observation | None],
        decision: Callable[[str], Strand | None],
        fit: Callable[[str], FamilyFit | None],
        now: int,
        config: LearningConfig,
    ) -> None:
        self._stat, self._observation, self._decision, self._fit = stat, observation, decision, fit
        self._now, self._config = now, config
        self.observations: dict[str, Observation] = {}
        self.stats: dict[str, StatRow] = {}
        self.fits: dict[str, FamilyFit] = {}
        self._episodes: set[str] = set()

    def take(self, strand: Strand) -> bool:
        payload = strand.payload
        if isinstance(payload, PositionClosed):
            return self._close(strand, payload)
        if isinstance(payload, EpisodeSummary) and counts(payload) and strand.id not in self._episodes:
            self._episodes.add(strand.id)
            self._episode(strand, payload)
            return True
        if isinstance(payload, ShadowsClosed) and strand.id not in self._episodes:
            self._episodes.add(strand.id)
            self._shadows(strand, payload)
            return True
        return False

    def observation(self, key: str) -> Observation | None:
        return self.observations.get(key) or self._observation(key)

    def _close(self, strand: Strand, closed: PositionClosed) -> bool:
        found = pm_observations(strand, closed)
        decided = dm_observation(strand, closed, self._decision, self.observation)
        if decided is not None:
            found.append(decided)
        changed = False
        for new in found:
            key = new.key
            old = self.observation(key)
            if old == new:
                continue
            if old is not None and old.scope != new.scope:
                raise LearningError(
                    f"observation {key} came back under another scope: {dict(old.scope)} then {dict(new.scope)}"
                )
            changed = True
            self._count(new, old)
            self.observations[key] = new
        return changed

    def _count(self, new: Observation, old: Observation | None) -> None:
        """Add ``new`` to every slice of its scope, in place of ``old`` where given."""
        family, change = new.family, _Change.of(new, old)
        self._family(family)
        module, pattern_key, category, now = new.module, new.pattern_key, new.action_category, self._now
        items, rows, stored = canonical(module, new.scope), self.stats, self._stat
        base: float | None = None
        for key, part in row_keys(family, module, items, self._config.trade_depth_dims):
            row = rows.get(key) or stored(key)
            past = row.stats if row is not None else _EMPTY
            n, total = past["n"] + change.n, past["sum_rr"] + change.y
            if base is None:  # the root comes first
                base = baseline(total, n, self._config.baseline_pseudo_trades)
            stats = _with_trade(past, change, n, total, base)
            created = row.created_at if row is not None else now
            rows[key] = _stat_row(
                module, pattern_key, category, part.mask, part.hash, part.values, n, stats, created, now
            )

    def _family(self, family: str) -> None:
        if family not in self.fits and self._fit(family) is None:
            self.fits[family] = FamilyFit(family, self._now, 0, False, 0.0, {})

    def _episode(self, strand: Strand, episode: EpisodeSummary) -> None:
        module, kind = strand.module or "pm", episode.episode_type
        family = family_key(module, episode.pattern_key, episode.action_category)
        depth = self._config.tuning_depth_dims
        evidence: list[list[Evidence]] = []
        per_slice: dict[str, tuple[Slice, list[int]]] = {}
        for window in episode.windows:
            found = list(window_evidence(window, kind, self._config))
            if not found:
                continue
            for key, part in row_keys(family, module, canonical(module, window.scope), depth):
                per_slice.setdefault(key, (part, []))[1].append(len(evidence))
            evidence.append(found)
        changed: dict[str, tuple[Slice, dict[str, Any]]] = {}
        self._family(family)
        for key, part in row_keys(family, module, canonical(module, strand.scope), depth):
            tuning = add_outcome(self._tuning(key), kind, episode.outcome, episode.ended_at)
            changed[key] = (part, tuning if part.items else dict(add_payoff(tuning, kind, episode.windows)))
        shared: dict[tuple[int, ...], tuple[Sums, ...]] = {}
        for key, (part, windows) in per_slice.items():
            which = tuple(windows)
            if which not in shared:
                shared[which] = summed([item for i in which for item in evidence[i]])
            past = changed[key][1] if key in changed else self._tuning(key)
            changed[key] = (part, add_evidence(past, kind, shared[which], episode.ended_at))
        pattern = episode.pattern_key, episode.action_category
        for key, (part, tuning) in changed.items():
            self._put(key, part, pattern, module, tuning)

    def _shadows(self, strand: Strand, closed: ShadowsClosed) -> None:
        """What an attempt's chances were worth goes into the margin bands of every slice each was seen in."""
        for kind, pattern in EPISODE_PATTERN.items():
            family = family_key("pm", *pattern)
            per_slice: dict[str, tuple[Slice, list[ShadowOutcome]]] = {}
            for outcome in closed.windows:
                if outcome.episode_type == kind:
                    items = canonical("pm", outcome.scope)
                    for key, part in row_keys(family, "pm", items, self._config.tuning_depth_dims):
                        per_slice.setdefault(key, (part, []))[1].append(outcome)
            if per_slice:
                self._family(family)
            for key, (part, outcomes) in per_slice.items():
                worth = worth_of(outcomes, kind, strand.timeframe)
                self._put(key, part, pattern, "pm", add_worth(self._tuning(key), kind, worth, strand.ts_event))

    def _tuning(self, key: str) -> Mapping[str, Any]:
        row = self.stats.get(key) or self._stat(key)
        tuning: Mapping[str, Any] = row.stats.get("tuning", {}) if row else {}
        return tuning

    def _put(self, key: str, part: Slice, pattern: tuple[str, str], module: str, tuning: dict[str, Any]) -> None:
        row = self.stats.get(key) or self._stat(key)
        stats = dict(row.stats if row else _EMPTY)
        stats["tuning"] = tuning
        created = row.created_at if row else self._now
        self.stats[key] = _stat_row(
            module,
            *pattern,
            part.mask,
            part.hash,
            part.values,
            stats["n"],
            stats,
            created,
            self._now,
        )


_EMPTY: Mapping[str, Any] = {
    "n": 0,
    "sum_rr": 0.0,
    "sum_rr_squared": 0.0,
    "avg_rr": 0.0,
    "variance": 0.0,
    "n_win": 0,
    "win_rate": 0.0,
    "sum_roi": 0.0,
    "avg_roi": 0.0,
    "pnl_usd": 0.0,
    "sum_time_efficiency": 0.0,
    "time_efficiency": None,
    "sum_hold_days": 0.0,
    "avg_hold_days": 0.0,
    "edge_raw": 0.0,
    "baseline": 0.0,
    "last_ts": 0,
    "tuning": {},
}


class _Change(NamedTuple):
    """What an observation moves the sums by."""

    n: int
    y: float
    y2: float
    wins: int
    roi: float
    pnl: float
    efficiency: float
    hold: float
    ts: int

    @classmethod
    def of(cls, new: Observation, old: Observation | None) -> _Change:
        if old is None:
            wins = int(new.y > 0)
            return cls(1, new.y, new.y**2, wins, new.roi, new.pnl_usd, new.time_efficiency, new.hold_days, new.ts)
        return cls(
            0,
            new.y - old.y,
            new.y**2 - old.y**2,
            int(new.y > 0) - int(old.y > 0),
            new.roi - old.roi,
            new.pnl_usd - old.pnl_usd,
            new.time_efficiency - old.time_efficiency,
            new.hold_days - old.hold_days,
            new.ts,
        )


def _with_trade(past: Mapping[str, Any], change: _Change, n: int, total: float, base: float) -> dict[str, Any]:
    """``past`` with ``change`` added: ``n`` and ``total`` are the new count and sum of rr."""
    sum2, wins, roi = past["sum_rr_squared"] + change.y2, past["n_win"] + change.wins, past["sum_roi"] + change.roi
    efficiency, hold = past["sum_time_efficiency"] + change.efficiency, past["sum_hold_days"] + change.hold
    mean, last = total / n, past["last_ts"]
    variance = sum2 / n - mean * mean
    if variance < 0.0:
        variance = 0.0
    return {
        "n": n,
        "sum_rr": total,
        "sum_rr_squared": sum2,
        "avg_rr": mean,
        "variance": variance,
        "n_win": wins,
        "win_rate": wins / n,
        "sum_roi": roi,
        "avg_roi": roi / n,
        "pnl_usd": past["pnl_usd"] + change.pnl,
        "sum_time_efficiency": efficiency,
        "time_efficiency": efficiency / n,
        "sum_hold_days": hold,
        "avg_hold_days": hold / n,
        "edge_raw": edge_raw(mean, variance, n, base, efficiency / n),
        "baseline": base,
        "last_ts": last if last > change.ts else change.ts,
        "tuning": past["tuning"],
    }
