"""Strands to statistics: what a closed trade or episode adds to every slice it belongs to (learning.md 3; mission
section 4).

Pure: rows come through small callables, changed rows go back as values; a caller with a table of statistics may have
them changed in it at once (`Rows`). Sums depend on the order of strands only through rounding; ``baseline`` and
``edge_raw`` are those of the moment a row was last touched. Nothing depends on how strands are cut into calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgebook.domain.errors import LearningError, StrandError
from edgebook.domain.evidence import FamilyFit, Observation, StatRow, family_key
from edgebook.domain.pattern import EPISODE_PATTERN
from edgebook.domain.shadow import ShadowOutcome, ShadowsClosed
from edgebook.domain.strands import EpisodeSummary, PositionClosed, Strand
from edgebook.learning.config import DEFAULT, LearningConfig
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
from edgebook.learning.margins import add_worth, worth_of
from edgebook.learning.observe import dm_observation, pm_observations
from edgebook.learning.sheet import Rows, Sheet
from edgebook.learning.slices import Slice, canonical, row_keys

Lookup = Callable[[str], StatRow | None]


@dataclass(frozen=True, slots=True)
class Aggregated:
    """What changed. ``counts`` has read, applied and skipped strands; ``problems`` go to the dead letters; ``stats`` is
    empty when the rows were changed in place."""

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
    into: Rows | None = None,
) -> Aggregated:
    """Fold closed trades and episode summaries into observations and ``pattern_scope_stats`` rows.

    Args:
        strands: new strands in log order (after the caller's watermark); kinds other than ``position_closed`` and
            ``uptrend_episode_summary`` are skipped.
        stat, observation, decision, fit: current row or strand by key, None when absent.
        now: moment of the run, microseconds; becomes created_at or updated_at.
        into: the table behind ``stat``: its rows are changed at once, and ``stats`` of the result stays empty.

    A trade or decision that is already counted with equal content changes nothing. A family seen for the first time
    comes back as a fit with n = 0 that does not act. A strand that contradicts itself is a problem and changes nothing.
    """
    own = Sheet(stat)
    fold = _Fold(own if into is None else into, observation, decision, fit, now, config)
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
        tuple(own.rows(own.changed()[1])),
        tuple(fold.fits.values()),
        {"read": len(strands), "applied": applied, "skipped": skipped},
        tuple(problems),
    )


class _Fold:
    """State of one call: what was touched so far shadows what is stored."""

    def __init__(
        self,
        rows: Rows,
        observation: Callable[[str], Observation | None],
        decision: Callable[[str], Strand | None],
        fit: Callable[[str], FamilyFit | None],
        now: int,
        config: LearningConfig,
    ) -> None:
        self._rows, self._observation, self._decision, self._fit = rows, observation, decision, fit
        self._now, self._config = now, config
        self.observations: dict[str, Observation] = {}
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
        self._family(new.family)
        self._rows.add(
            (new.module, new.pattern_key, new.action_category),
            canonical(new.module, new.scope),
            self._config.trade_depth_dims,
            _Change.of(new, old),
            self._now,
            self._config.baseline_pseudo_trades,
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
            tuning = add_outcome(self._rows.tuning(key), kind, episode.outcome, episode.ended_at)
            changed[key] = (part, tuning if part.items else dict(add_payoff(tuning, kind, episode.windows)))
        shared: dict[tuple[int, ...], tuple[Sums, ...]] = {}
        for key, (part, windows) in per_slice.items():
            which = tuple(windows)
            if which not in shared:
                shared[which] = summed([item for i in which for item in evidence[i]])
            past = changed[key][1] if key in changed else self._rows.tuning(key)
            changed[key] = (part, add_evidence(past, kind, shared[which], episode.ended_at))
        for part, tuning in changed.values():
            self._rows.tune((module, episode.pattern_key, episode.action_category), part, tuning, self._now)

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
                tuning = add_worth(self._rows.tuning(key), kind, worth, strand.ts_event)
                self._rows.tune(("pm", *pattern), part, tuning, self._now)


class _Change(NamedTuple):
    """What an observation moves the sums by, in the order of `learning.sheet.Sheet.add`."""

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
