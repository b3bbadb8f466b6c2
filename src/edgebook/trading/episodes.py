"""S1 and S3 episodes: a fold over bars that remembers when a buy was near, whether it was taken, and how it ended
(trading.md 5).

An ``s1_entry`` episode runs from S0->S1 to S3 or back to S0; an ``s3_retest`` episode from S2->S3 to S0. At most one is
open at a time. Work per bar: take in fills, close the window, judge outcomes, close the episode, open the next, sample
its window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgebook.domain.book import ClosedWindow, OpenEpisode, OpenWindow, PmMemory, Position
from edgebook.domain.ids import stable_id
from edgebook.domain.pattern import EPISODE_PATTERN
from edgebook.domain.reading import MarketReading
from edgebook.domain.strands import EpisodeSummary, Strand, WindowOutcome
from edgebook.domain.values import replace
from edgebook.trading.actions import GATE_RULES, Situation, Skip, standing_blocks, trim_cooled
from edgebook.trading.envelope import Envelope
from edgebook.trading.rules import EpisodeRules
from edgebook.trading.windows import close_window, keep_samples, sample_of, window_payload, with_outcome, zone

Change = Callable[[OpenWindow], OpenWindow]


@dataclass(slots=True)
class Tracked:
    """Memory after a bar, and the strands the bar gave."""

    memory: PmMemory
    strands: tuple[Strand, ...]


def track(s: Situation, memory: PmMemory, envelope: Envelope) -> Tracked:
    """Fold one bar into the episodes of a position.

    ``s.position`` is the position after this bar's transition. A gap of more than ``void_gap_bars`` missing bars closes
    the episode as ``void``: what happened in it is not guessed. An episode whose start was not seen is ``partial``.
    """
    reading, rules = s.reading, s.rules.episodes
    episode = memory.episodes[0] if memory.episodes else None
    here = zone(reading, rules)
    if episode is None and not reading.transition and not here:
        return Tracked(PmMemory(memory.position_id, reading.ts, reading.bar_index), ())
    pending, strands = memory.pending_entries, []
    if episode is not None:
        if pending:
            episode, pending = _take_in_fills(episode, pending, s.position)
        if reading.gap_bars > rules.void_gap_bars:
            episode, closed = _finish(episode, "void", s, envelope)
        elif _ended(episode, reading):
            episode, closed = _finish(episode, "", s, envelope)
        else:
            episode, closed = _carry_on(episode, here, s, envelope)
        strands += closed
    if episode is None:
        pending = {}
        episode = _open_episode(s, envelope)
    if episode is not None and here == episode.episode_type:
        episode = _sample(episode, s, envelope)
    episodes = () if episode is None else (episode,)
    after = PmMemory(memory.position_id, reading.ts, reading.bar_index, episodes, pending)
    return Tracked(after, tuple(strands))


def open_window_id(memory: PmMemory) -> str:
    """Id of the window that is open now, "" for none."""
    episode = memory.episodes[0] if memory.episodes else None
    return episode.window.id if episode is not None and episode.window is not None else ""


def note_planned(memory: PmMemory, action_id: str, ts: int) -> PmMemory:
    """Remember that ``action_id`` was planned at ``ts`` in the open window: its fill will enter that window."""
    return _with_window(memory, lambda w: replace(w, entry_ts=ts), {action_id: open_window_id(memory)})


def note_skipped(memory: PmMemory, skip: Skip) -> PmMemory:
    """Remember why a gate rule that matched in the open window could not be carried out."""
    if skip.rule not in GATE_RULES or not open_window_id(memory):
        return memory
    return _with_window(memory, lambda w: replace(w, failed=tuple(dict.fromkeys((*w.failed, *skip.reasons)))), {})


def _with_window(memory: PmMemory, change: Change, entries: Mapping[str, str]) -> PmMemory:
    episode = memory.episodes[0]
    assert episode.window is not None
    changed = replace(episode, window=change(episode.window))
    return replace(memory, episodes=(changed,), pending_entries={**memory.pending_entries, **entries})


# ---------------------------------------------------------------- fills


def _take_in_fills(
    episode: OpenEpisode, pending: Mapping[str, str], position: Position
) -> tuple[OpenEpisode, Mapping[str, str]]:
    """Entered is a fact of a fill: windows whose action filled are entered, those whose order came to nothing are
    not."""
    filled = {action.strand_id for action in position.actions}
    waiting = position.planned.action.strand_id if position.planned is not None else ""
    left: dict[str, str] = {}
    for action_id, window_id in pending.items():
        if action_id == waiting:
            left[action_id] = window_id
        else:
            episode = _settle_entry(episode, window_id, action_id, action_id in filled)
    return episode, left


def _settle_entry(episode: OpenEpisode, window_id: str, action_id: str, filled: bool) -> OpenEpisode:
    window = episode.window
    if window is not None and window.id == window_id:
        if filled:
            return replace(
                episode, window=replace(window, entered=True, entry_strand_id=window.entry_strand_id or action_id)
            )
        entry_ts = window.entry_ts if window.entered else 0
        return replace(episode, window=replace(window, entry_ts=entry_ts, failed=(*window.failed, "order_failed")))
    if not filled:
        return episode
    windows = tuple(
        replace(w, entered=True, entry_strand_id=action_id, entry_ts=w.ended_at, blocked_by=())
        if w.id == window_id
        else w
        for w in episode.windows
    )
    return replace(episode, windows=windows)


# ---------------------------------------------------------------- windows


def _sample(episode: OpenEpisode, s: Situation, envelope: Envelope) -> OpenEpisode:
    reading, rules = s.reading, s.rules.episodes
    sample = sample_of(episode.episode_type, reading, s.report, s.regime.a_base, s.regime.e_base)
    blocks = standing_blocks(s)
    window = episode.window
    if window is None:
        window = OpenWindow(
            id=stable_id("window", episode.id, episode.windows_opened),
            index=episode.windows_opened,
            started_at=reading.ts,
            started_index=reading.bar_index,
            scope=envelope.scope,
            thresholds=dict(s.controls.signal_thresholds),
            bars=1,
            signal=sample.flag_on,
            blocked_by=blocks,
            samples=(sample,),
            config_version=s.controls.config_version,
            takeable=not blocks,
        )
        return replace(episode, window=window, windows_opened=episode.windows_opened + 1)
    samples = (*window.samples, sample)
    limit = rules.max_samples if window.takeable or not blocks else rules.max_samples_blocked
    new = blocks and not set(blocks) <= set(window.blocked_by)
    grown = replace(
        window,
        bars=window.bars + 1,
        signal=window.signal or sample.flag_on,
        blocked_by=tuple(dict.fromkeys((*window.blocked_by, *blocks))) if new else window.blocked_by,
        samples=keep_samples(samples, limit, window.entry_ts) if len(samples) > 2 * limit else samples,
        takeable=window.takeable or not blocks,
    )
    return replace(episode, window=grown)


def _shut_window(episode: OpenEpisode, reading: MarketReading, ended_at: int, rules: EpisodeRules) -> OpenEpisode:
    if episode.window is None:
        return episode
    limit = rules.max_samples if episode.window.takeable else rules.max_samples_blocked
    kept = keep_samples(episode.window.samples, limit, episode.window.entry_ts)
    closed = close_window(replace(episode.window, samples=kept), episode.episode_type, reading.timeframe, ended_at)
    return replace(episode, window=None, windows=(*episode.windows, closed))


def _carry_on(episode: OpenEpisode, here: str, s: Situation, envelope: Envelope) -> tuple[OpenEpisode, list[Strand]]:
    before = len(episode.windows)
    if here != episode.episode_type:
        episode = _shut_window(episode, s.reading, s.reading.ts, s.rules.episodes)
    if episode.episode_type == "s3_retest":
        episode = _judge_retests(episode, s)
    return _tell_windows(episode, before, envelope)


def _tell_windows(episode: OpenEpisode, before: int, envelope: Envelope) -> tuple[OpenEpisode, list[Strand]]:
    """Strands of the windows closed on this bar; told once, they no longer need their samples."""
    fresh = episode.windows[before:]
    if not fresh:
        return episode, []
    told = [
        envelope.strand(
            window_payload(w, episode.episode_type),
            w.id,
            episode_id=episode.id,
            scope=w.scope,
            config_version=w.config_version,
        )
        for w in fresh
    ]
    kept = tuple(replace(w, samples=()) for w in fresh)
    return replace(episode, windows=(*episode.windows[:before], *kept)), told


# ---------------------------------------------------------------- outcomes


def _judge_retests(episode: OpenEpisode, s: Situation) -> OpenEpisode:
    """Outcomes of closed S3 windows: entered then trimmed is a success, skipped then (virtually) trimmed a missed
    chance, an emergency before that a failure or a correct skip."""
    if all(w.outcome for w in episode.windows):
        return episode
    reading, position = s.reading, s.position
    emergency = reading.emergency_exit
    trimmed_now = False
    if reading.trim_flag and not emergency and reading.state == "S3" and s.rules.episodes.virtual_trims:
        last = episode.last_trim_virtual_index
        since = reading.bar_index - last if last >= 0 else None
        if trim_cooled(reading, since, episode.last_trim_virtual_level, s.rules.pm):
            trimmed_now = True
            level = reading.nearest_level_price
            episode = replace(episode, last_trim_virtual_index=reading.bar_index, last_trim_virtual_level=level)
    judged = tuple(
        w if w.outcome else _judge_retest(w, position.last_trim_ts, trimmed_now, emergency) for w in episode.windows
    )
    return replace(episode, windows=judged)


def _judge_retest(window: ClosedWindow, last_trim_ts: int, trimmed_now: bool, emergency: bool) -> ClosedWindow:
    if window.entered:
        if last_trim_ts > window.entry_ts:
            return replace(window, outcome="success", trimmed=True)
        return replace(window, outcome="failure") if emergency else window
    if last_trim_ts > window.ended_at or trimmed_now:
        return replace(window, outcome="missed")
    return replace(window, outcome="correct_skip") if emergency else window


def _ended(episode: OpenEpisode, reading: MarketReading) -> bool:
    if episode.episode_type == "s1_entry":
        return reading.state in ("S3", "S0")
    return reading.state != "S3"


def _finish(episode: OpenEpisode, outcome: str, s: Situation, envelope: Envelope) -> tuple[None, list[Strand]]:
    """Close window and episode; ``outcome`` is given for void episodes, else it follows from the state reached."""
    reading = s.reading
    before = len(episode.windows)
    episode = _shut_window(episode, reading, reading.ts, s.rules.episodes)
    if outcome:
        episode = replace(episode, windows=tuple(replace(w, outcome=outcome) for w in episode.windows))
    elif episode.episode_type == "s1_entry":
        entered = any(w.entered for w in episode.windows)
        outcome = _verdict(entered, reading.state == "S3")
        episode = replace(episode, windows=tuple(replace(w, outcome=outcome) for w in episode.windows))
    else:
        episode = _judge_retests(episode, s)
        windows = tuple(w if w.outcome else replace(w, outcome=_verdict(w.entered, False)) for w in episode.windows)
        episode = replace(episode, windows=windows)
        outcome = _retest_outcome(windows)
    episode, strands = _tell_windows(episode, before, envelope)
    summary = _summary(episode, outcome, reading)
    strands.append(envelope.strand(summary, episode.id, episode_id=episode.id, scope=episode.scope))
    return None, strands


def _verdict(entered: bool, reached: bool) -> str:
    """Outcome of a chance: taken or not, and did what it aimed at happen.

    >>> [_verdict(e, r) for e in (True, False) for r in (True, False)]
    ['success', 'failure', 'missed', 'correct_skip']
    """
    if entered:
        return "success" if reached else "failure"
    return "missed" if reached else "correct_skip"


def _retest_outcome(windows: tuple[ClosedWindow, ...]) -> str:
    outcomes = {w.outcome for w in windows}
    return next((o for o in ("success", "failure", "missed") if o in outcomes), "correct_skip")


def _summary(episode: OpenEpisode, outcome: str, reading: MarketReading) -> EpisodeSummary:
    pattern = EPISODE_PATTERN[episode.episode_type]
    total = sum(w.bars for w in episode.windows)
    return EpisodeSummary(
        episode_type=episode.episode_type,
        outcome=outcome,
        entered=any(w.entered for w in episode.windows),
        partial=episode.partial,
        started_at=episode.started_at,
        ended_at=reading.ts,
        bars=reading.bar_index - episode.started_index,
        pattern_key=pattern.key,
        action_category=pattern.category,
        windows=tuple(
            WindowOutcome(
                window_id=w.id,
                window_kind=w.window_kind,
                started_at=w.started_at,
                ended_at=w.ended_at,
                entered=w.entered,
                outcome=w.outcome,
                blocked_by=w.blocked_by,
                scope=w.scope,
                levers=with_outcome(w.levers, w.outcome, w.bars / total),
            )
            for w in episode.windows
        ),
    )


def _open_episode(s: Situation, envelope: Envelope) -> OpenEpisode | None:
    """The episode that begins on this bar; one whose start was not seen begins late and is partial."""
    reading = s.reading
    begins = {"S0->S1": "s1_entry", "S2->S3": "s3_retest"}.get(reading.transition, "")
    partial = False
    if not begins and not s.position.attempt_id:
        begins = {"S1": "s1_entry", "S2": "s1_entry", "S3": "s3_retest"}.get(reading.state, "")
        partial = True
    if not begins:
        return None
    return OpenEpisode(
        id=stable_id("episode", s.position.id, begins, reading.ts),
        episode_type=begins,
        started_at=reading.ts,
        started_index=reading.bar_index,
        partial=partial,
        scope=envelope.scope,
    )
