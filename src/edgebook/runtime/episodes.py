"""Episodes of a database, read back: what each was, its windows, and what their shadows brought.

Closed episodes come from the log, open ones from the memory of their positions. Everything here only reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgebook.domain.book import ClosedWindow, OpenEpisode, Position, Shadow
from edgebook.domain.errors import InputError
from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.shadow import ShadowOutcome, ShadowsClosed
from edgebook.domain.strands import BuyWindow, EpisodeSummary, LeverEvidence, OrderFilled, PmAction, WindowOutcome
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.episodes import ENGINE_BLOCKS, OUTCOMES, blocked_by_rule, window_evidence
from edgebook.ports import UnitOfWork
from edgebook.trading.windows import close_window, window_payload

#: Outcome of an episode that has not closed.
OPEN = "open"
EPISODE_OUTCOMES = (*OUTCOMES, "void", OPEN)
EPISODE_TYPES = tuple(GATE_LEVERS)
#: A beginning of an id must have this many letters.
SHORTEST_ID = 4


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode, closed or open.

    Attributes:
        outcome: ``open`` while it is.
        ended_at: close of its last bar, microseconds UTC; 0 while open.
        bars: how many bars it lasted; 0 while open.
        windows: in order; those of an open episode may have no outcome yet, and the last may have no end.
    """

    id: str
    symbol: str
    timeframe: str
    position_id: str
    episode_type: str
    outcome: str
    entered: bool
    partial: bool
    started_at: int
    ended_at: int
    bars: int
    windows: tuple[WindowOutcome, ...]


@dataclass(frozen=True, slots=True)
class Fill:
    """The buy that entered a window: when it was filled (microseconds UTC), and at which price."""

    ts: int
    price: float


@dataclass(frozen=True, slots=True)
class Chance:
    """One window with everything that is known of it.

    Attributes:
        result: its outcome, and each gate's evidence with the direction it pulls.
        told: the window as its strand tells it, samples and thresholds in it; None if that strand is missing.
        shadow: what its shadow brought; None while that runs, or where there is none.
        running: the shadow while it runs.
        fill: the buy that entered it.
    """

    result: WindowOutcome
    told: BuyWindow | None
    shadow: ShadowOutcome | None
    running: Shadow | None
    fill: Fill | None


# ---------------------------------------------------------------- reading


def read_episodes(uow: UnitOfWork) -> list[Episode]:
    """Every episode, those that began last first."""
    found = []
    for strand in uow.log.read(0, [EpisodeSummary.kind]):
        payload = strand.payload
        assert isinstance(payload, EpisodeSummary)
        found.append(_closed(strand.episode_id, strand.symbol, strand.timeframe, strand.position_id, payload))
    for memory in uow.memory.values():
        position = uow.positions.get(memory.position_id)
        if position is not None:
            found += [_open(episode, position) for episode in memory.episodes]
    return sorted(found, key=lambda e: (-e.started_at, e.symbol, e.timeframe, e.id))


def _closed(ident: str, symbol: str, timeframe: str, position_id: str, summary: EpisodeSummary) -> Episode:
    return Episode(
        id=ident,
        symbol=symbol,
        timeframe=timeframe,
        position_id=position_id,
        episode_type=summary.episode_type,
        outcome=summary.outcome,
        entered=summary.entered,
        partial=summary.partial,
        started_at=summary.started_at,
        ended_at=summary.ended_at,
        bars=summary.bars,
        windows=summary.windows,
    )


def _open(episode: OpenEpisode, position: Position) -> Episode:
    windows = _windows(episode, position.timeframe)
    return Episode(
        id=episode.id,
        symbol=position.symbol,
        timeframe=position.timeframe,
        position_id=position.id,
        episode_type=episode.episode_type,
        outcome=OPEN,
        entered=any(w.entered for w in windows),
        partial=episode.partial,
        started_at=episode.started_at,
        ended_at=0,
        bars=0,
        windows=tuple(_result(w) for w in windows),
    )


def _windows(episode: OpenEpisode, timeframe: str) -> tuple[ClosedWindow, ...]:
    """Windows of an open episode; the open one as it would close, without an end."""
    if episode.window is None:
        return episode.windows
    return (*episode.windows, close_window(episode.window, episode.episode_type, timeframe, 0))


def _result(w: ClosedWindow) -> WindowOutcome:
    kind, blocked = w.window_kind, w.blocked_by
    return WindowOutcome(w.id, kind, w.started_at, w.ended_at, w.entered, w.outcome, blocked, w.scope, w.levers)


def read_shadows(uow: UnitOfWork) -> dict[str, ShadowOutcome]:
    """Outcomes of all shadows whose attempt has ended, by window id."""
    found: dict[str, ShadowOutcome] = {}
    for strand in uow.log.read(0, [ShadowsClosed.kind]):
        assert isinstance(strand.payload, ShadowsClosed)
        found.update((outcome.window_id, outcome) for outcome in strand.payload.windows)
    return found


def find_episode(uow: UnitOfWork, ident: str) -> Episode:
    """The episode with this id, or the only one whose id begins so.

    Raises:
        InputError: none, or several, or fewer than four letters of an id.
    """
    if len(ident) < SHORTEST_ID:
        raise InputError(f"episode {ident!r}: at least {SHORTEST_ID} letters of an id are needed", stage="views")
    found = [episode for episode in read_episodes(uow) if episode.id.startswith(ident)]
    if not found:
        raise InputError(f"no episode has the id {ident!r}; 'edgebook episodes' prints the ids", stage="views")
    if len(found) > 1:
        ids = ", ".join(episode.id for episode in found[:3]) + (", ..." if len(found) > 3 else "")
        raise InputError(
            f"{len(found)} episodes have an id that begins with {ident!r}: {ids}; give more", stage="views"
        )
    return found[0]


def chances(uow: UnitOfWork, episode: Episode) -> list[Chance]:
    """The windows of an episode, each with its samples, its shadow and its fill."""
    told: dict[str, BuyWindow] = {}
    shadows: dict[str, ShadowOutcome] = {}
    planned: dict[str, str] = {}
    fills: dict[str, Fill] = {}
    for strand in uow.log.find(position_id=episode.position_id):
        payload = strand.payload
        if isinstance(payload, BuyWindow):
            told[payload.window_id] = payload
        elif isinstance(payload, ShadowsClosed):
            shadows.update((outcome.window_id, outcome) for outcome in payload.windows)
        elif isinstance(payload, PmAction) and payload.window_id:
            planned[strand.id] = payload.window_id
        elif isinstance(payload, OrderFilled) and payload.action_id in planned:
            fills.setdefault(planned[payload.action_id], Fill(strand.ts_event, payload.price))
    told |= _open_told(uow, episode)
    running = {shadow.window_id: shadow for shadow in uow.shadows.values(episode.position_id + "|")}
    return [
        Chance(
            result=w,
            told=told.get(w.window_id),
            shadow=shadows.get(w.window_id),
            running=running.get(w.window_id),
            fill=fills.get(w.window_id) if w.entered else None,
        )
        for w in episode.windows
    ]


def _open_told(uow: UnitOfWork, episode: Episode) -> Mapping[str, BuyWindow]:
    """The window of the episode that is open now, as it would be told."""
    memory = uow.memory.get(episode.position_id)
    for one in memory.episodes if memory is not None else ():
        if one.id == episode.id and one.window is not None:
            window = close_window(one.window, one.episode_type, episode.timeframe, 0)
            return {window.id: window_payload(window, one.episode_type)}
    return {}


# ---------------------------------------------------------------- judging


def chance_group(entered: bool, blocked_by: Iterable[str]) -> str:
    """What became of a chance: ``entered``, ``blocked`` by a rule, or ``skipped`` for its gates.

    >>> chance_group(True, ("s1_used",)), chance_group(False, ("s1_used",)), chance_group(False, ("ts_min",))
    ('entered', 'blocked', 'skipped')
    """
    if entered:
        return "entered"
    return "blocked" if any(name not in LEVERS and name not in ENGINE_BLOCKS for name in blocked_by) else "skipped"


def vote_of(
    episode: Episode, window: WindowOutcome, evidence: LeverEvidence, config: LearningConfig = DEFAULT
) -> tuple[float | None, str]:
    """The vote a window casts on one gate (weight in 0 to 1), and why there is none ("" where there is).

    See `learning.episodes.window_evidence`: taken windows vote where the gate passed, skipped ones where it was the
    only thing that failed; the nearer to the gate, the more.
    """
    if episode.partial:
        return None, "its beginning was not seen"
    if window.outcome not in OUTCOMES:
        return None, "void" if window.outcome == "void" else "no outcome yet"
    if blocked_by_rule(window):
        return None, "blocked by a rule"
    found = window_evidence(window, episode.episode_type, config)
    vote = next((one.vote for one in found if one.lever == evidence.lever), None)
    if vote:
        return vote, ""
    if abs(evidence.margin) >= 1:
        return None, "far away"
    if window.entered:
        return None, "taken below the gate"
    return None, "it had passed" if evidence.margin >= 0 else "not the sole blocker"
