"""What ``edgebook episodes`` says: a table of episodes with what their chances brought, and one episode in full.

Plain JSON-able values; commands print them. Times are text, UTC; ``rr`` and values are in R; margins ``u`` in severity
caps, 0 or more passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgebook.domain.codec import to_json
from edgebook.domain.errors import InputError
from edgebook.domain.shadow import ShadowOutcome
from edgebook.domain.strands import BuyWindow
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.episodes import blocked_by_rule
from edgebook.ports import UnitOfWork
from edgebook.runtime.episodes import (
    EPISODE_OUTCOMES,
    EPISODE_TYPES,
    Chance,
    Episode,
    chance_group,
    chances,
    find_episode,
    read_episodes,
    read_shadows,
    vote_of,
)
from edgebook.runtime.views import when
from edgebook.trading.shadows import deciding_sample

Json = Any
GROUPS = ("entered", "skipped", "blocked")


def episodes_view(
    uow: UnitOfWork,
    *,
    episode_type: str | None = None,
    outcome: str | None = None,
    symbol: str | None = None,
    timeframe: str | None = None,
    limit: int | None = None,
) -> dict[str, Json]:
    """Episodes, newest first, at most ``limit`` of them; counts and shadows are those of all that match.

    Raises:
        InputError: no such type or outcome, or a limit below 1.
    """
    _known("--type", episode_type, EPISODE_TYPES)
    _known("--outcome", outcome, EPISODE_OUTCOMES)
    if limit is not None and limit < 1:
        raise InputError(f"--limit was {limit}; it must be at least 1", stage="views")
    wanted = {"episode_type": episode_type, "outcome": outcome, "symbol": symbol, "timeframe": timeframe}
    given = {name: value for name, value in wanted.items() if value is not None}
    found = [e for e in read_episodes(uow) if all(getattr(e, name) == value for name, value in given.items())]
    shadows = read_shadows(uow)
    windows = {w.window_id for e in found for w in e.windows}
    own = [outcome for ident, outcome in shadows.items() if ident in windows]
    running = sum(shadow.window_id in windows for shadow in uow.shadows.values())
    return {
        "total": len(found),
        "episodes": [_row(episode, shadows) for episode in found[:limit]],
        "counts": _counts(found),
        "shadows": {**_shadow_means(own), "running": running},
    }


def _known(option: str, value: str | None, names: Sequence[str]) -> None:
    if value is not None and value not in names:
        raise InputError(f"{option} was {value!r}; it must be one of {', '.join(names)}", stage="views")


def _row(episode: Episode, shadows: Mapping[str, ShadowOutcome]) -> dict[str, Json]:
    windows = episode.windows
    brought = [shadows[w.window_id].rr for w in windows if w.window_id in shadows]
    return {
        **_head(episode),
        "windows": len(windows),
        "near_misses": sum(w.window_kind == "near_miss" for w in windows),
        "blocked_windows": sum(blocked_by_rule(w) for w in windows),
        "best_shadow_rr": max(brought, default=None),
    }


def _head(episode: Episode) -> dict[str, Json]:
    return {
        "id": episode.id,
        "started_at": when(episode.started_at),
        "ended_at": when(episode.ended_at),
        "symbol": episode.symbol,
        "timeframe": episode.timeframe,
        "episode_type": episode.episode_type,
        "outcome": episode.outcome,
        "entered": episode.entered,
        "partial": episode.partial,
    }


def _counts(episodes: Iterable[Episode]) -> dict[str, dict[str, int]]:
    """Type -> outcome -> episodes, in the settled order of outcomes."""
    found: dict[str, Counter[str]] = {}
    for episode in episodes:
        found.setdefault(episode.episode_type, Counter())[episode.outcome] += 1
    return {t: {o: found[t][o] for o in EPISODE_OUTCOMES if found[t][o]} for t in EPISODE_TYPES if t in found}


def _shadow_means(outcomes: Sequence[ShadowOutcome]) -> dict[str, Json]:
    """How many shadows have ended, and their mean rr, by what became of the chance."""
    groups: dict[str, list[float]] = {name: [] for name in GROUPS}
    for outcome in outcomes:
        groups[chance_group(outcome.entered, outcome.blocked_by)].append(outcome.rr)
    return {
        "n": len(outcomes),
        **{name: {"n": len(rr), "mean_rr": sum(rr) / len(rr) if rr else None} for name, rr in groups.items()},
    }


# ---------------------------------------------------------------- one episode


def episode_view(uow: UnitOfWork, ident: str, config: LearningConfig = DEFAULT) -> dict[str, Json]:
    """One episode with its windows: samples, evidence, votes and shadows.

    Raises:
        InputError: no such episode, or an id that is not clear.
    """
    episode = find_episode(uow, ident)
    return {
        **_head(episode),
        "position": episode.position_id,
        "bars": episode.bars,
        "windows": [_window(episode, chance, config) for chance in chances(uow, episode)],
    }


def _window(episode: Episode, chance: Chance, config: LearningConfig) -> dict[str, Json]:
    w, told = chance.result, chance.told
    fill = chance.fill
    return {
        "id": w.window_id,
        "kind": w.window_kind,
        "started_at": when(w.started_at),
        "ended_at": when(w.ended_at),
        "bars": told.bars if told is not None else None,
        "entered": w.entered,
        "outcome": w.outcome,
        "blocked_by": list(w.blocked_by),
        "scope": dict(w.scope),
        "fill": {"ts": when(fill.ts), "price": fill.price} if fill is not None else None,
        "thresholds": dict(told.thresholds_effective) if told is not None else {},
        "samples": _samples(told) if told is not None else [],
        "levers": _levers(episode, chance, config),
        "shadow": _shadow(chance),
        "no_shadow": _no_shadow(chance),
    }


def _samples(told: BuyWindow) -> list[dict[str, Json]]:
    return [
        {
            "ts": when(s.ts),
            "price": s.price,
            "flag_on": s.flag_on,
            "flag_base": s.flag_base,
            "blocked_by": list(s.blocked_by),
            "values": dict(s.values),
            "margins": dict(s.margins),
        }
        for s in told.samples
    ]


def _levers(episode: Episode, chance: Chance, config: LearningConfig) -> list[dict[str, Json]]:
    rows = []
    for evidence in chance.result.levers:
        vote, why = vote_of(episode, chance.result, evidence, config)
        rows.append({**to_json(evidence), "vote": vote, "no_vote": why})
    return rows


def _no_shadow(chance: Chance) -> str:
    """Why a window has no shadow; "" where it has one."""
    if chance.shadow is not None or chance.running is not None:
        return ""
    if not chance.result.ended_at:
        return "the window is open"
    if chance.told is None or deciding_sample(chance.told) is None:
        return "no bar was a buy, or one gate short of it by less than its cap"
    return "it was given up, or shadows are off"


def _shadow(chance: Chance) -> dict[str, Json] | None:
    """What the shadow brought, or that it still runs; None where the window has none."""
    done, running = chance.shadow, chance.running
    if done is None and running is None:
        return None
    if done is None:
        assert running is not None
        return {"running": True, "entry_at": when(running.twin.entry_ts), "margins": dict(running.margins)}
    return {
        "running": False,
        "entry_at": when(done.entry_ts),
        "entry_price": done.entry_price,
        "exit_at": when(done.exit_ts),
        "exit_price": done.exit_price,
        "roi": done.roi,
        "rr": done.rr,
        "actions": done.actions,
        "margins": dict(done.margins),
        "values": dict(done.values),
    }
