"""From an episode summary to sums in ``stats['tuning']`` (learning.md 4; decisions 28-30).

Shape: ``{episode_type: {"outcomes": {outcome: n}, "payoff": {"win": [n, sum], "loss": [n, sum]}, "last_ts": us,
"levers": {lever: {sum_delta, sum_severity, sum_confidence, count, by_outcome: {outcome: {count, sum_delta,
sum_severity, sum_confidence, votes, vote, vote2, band_pass[10], band_y[10], band_y2[10]}}}}}}``. Everything adds;
nothing is a ratio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.strands import EpisodeSummary, WindowOutcome
from edgebook.learning.config import LearningConfig

OUTCOMES = ("success", "failure", "missed", "correct_skip")
BANDS = 10
#: What the engine's own checks may name beside the levers; anything else in ``blocked_by`` is a rule (decisions 28).
ENGINE_BLOCKS = frozenset({"zone", "emergency", "hallway_inverted", "missing_input"})


class Evidence(NamedTuple):
    """What one window adds to one lever."""

    lever: str
    outcome: str
    delta: float
    severity: float
    confidence: float
    vote: float | None
    band: int | None
    y: float


def blocked_by_rule(window: WindowOutcome) -> bool:
    """Whether a rule, not a gate, kept the window from being taken: it does not vote (decisions 28)."""
    return not window.entered and any(name not in LEVERS and name not in ENGINE_BLOCKS for name in window.blocked_by)


def band_of(margin: float) -> int | None:
    """Which of ten bins on [-1, 1] a margin falls in; None outside.

    >>> band_of(-1.0), band_of(0.0), band_of(0.999), band_of(1.0), band_of(1.2)
    (0, 5, 9, 9, None)
    """
    if not -1.0 <= margin <= 1.0:
        return None
    return min(BANDS - 1, int((margin + 1.0) * BANDS / 2))


def window_evidence(window: WindowOutcome, episode_type: str, config: LearningConfig) -> Iterator[Evidence]:
    """What a window adds, lever by lever; nothing for unknown outcomes and windows a rule blocked.

    A taken window votes where the gate passed (u >= 0), a skipped one where the gate failed and was the only thing
    that did. ``prox = max(0, 1 - abs(u))`` so that only evidence near the gate moves it.
    """
    if window.outcome not in OUTCOMES or blocked_by_rule(window):
        return
    good = window.outcome in ("success", "missed")
    y = window.rr if window.rr is not None else (config.payoff_prior_win_r if good else -config.payoff_prior_loss_r)
    for evidence in window.levers:
        if evidence.lever not in GATE_LEVERS.get(episode_type, ()):
            continue
        margin = evidence.margin
        votes = margin >= 0 if window.entered else margin < 0 and evidence.sole_blocker
        yield Evidence(
            evidence.lever,
            window.outcome,
            evidence.delta,
            evidence.severity,
            evidence.confidence,
            max(0.0, 1.0 - abs(margin)) * evidence.confidence if votes else None,
            band_of(margin) if votes else None,
            y,
        )


def add_outcome(tuning: Mapping[str, Any], episode_type: str, outcome: str, ended_at: int) -> dict[str, Any]:
    """``tuning`` with one more episode of ``outcome``."""
    block = block_of(tuning, episode_type)
    outcomes = dict(block["outcomes"])
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    last = max(block["last_ts"], ended_at)
    return {**tuning, episode_type: {**block, "outcomes": outcomes, "last_ts": last}}


def add_payoff(tuning: Mapping[str, Any], episode_type: str, windows: tuple[WindowOutcome, ...]) -> Mapping[str, Any]:
    """``tuning`` with the known rr of taken windows: what a success and a failure of this key are worth."""
    known = [w for w in windows if w.entered and w.rr is not None and w.outcome in ("success", "failure")]
    if not known:
        return tuning
    block = block_of(tuning, episode_type)
    payoff = {side: list(pair) for side, pair in block["payoff"].items()}
    for window in known:
        pair = payoff["win" if window.outcome == "success" else "loss"]
        pair[0] += 1
        pair[1] += window.rr or 0.0
    return {**tuning, episode_type: {**block, "payoff": payoff}}


class Sums(NamedTuple):
    """What one episode adds to one (lever, outcome); ``bands`` holds (bin, count, sum y, sum y squared)."""

    lever: str
    outcome: str
    n: int
    delta: float
    severity: float
    confidence: float
    votes: int
    vote: float
    bands: tuple[tuple[int, int, float, float], ...]


def summed(found: Sequence[Evidence]) -> tuple[Sums, ...]:
    """Evidence of one episode added up by (lever, outcome), so that many slices can share the result."""
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for item in found:
        groups.setdefault((item.lever, item.outcome), []).append(item)
    out = []
    for (lever, outcome), items in groups.items():
        bands: dict[int, tuple[int, float, float]] = {}
        for item in items:
            if item.band is not None:
                n, y, y2 = bands.get(item.band, (0, 0.0, 0.0))
                bands[item.band] = (n + 1, y + item.y, y2 + item.y * item.y)
        votes = [item.vote for item in items if item.vote is not None]
        out.append(
            Sums(
                lever,
                outcome,
                len(items),
                sum(item.delta for item in items),
                sum(item.severity for item in items),
                sum(item.confidence for item in items),
                len(votes),
                sum(votes),
                tuple((band, *values) for band, values in sorted(bands.items())),
            )
        )
    return tuple(out)


def add_evidence(tuning: Mapping[str, Any], episode_type: str, found: Sequence[Sums], ended_at: int) -> dict[str, Any]:
    """``tuning`` with one episode's evidence added; an episode's votes are one cluster (``vote2``: their squared sum).

    Nothing of ``tuning`` is changed in place: parts that stay the same are shared with the result.
    """
    block = block_of(tuning, episode_type)
    levers = dict(block["levers"])
    touched: set[str] = set()
    for item in found:
        lever = {**NO_LEVER, **levers.get(item.lever, {})}
        by_outcome = lever["by_outcome"] if item.lever in touched else dict(lever["by_outcome"])
        touched.add(item.lever)
        by_outcome[item.outcome] = _with_sums(by_outcome.get(item.outcome, _NO_SIDE), item)
        levers[item.lever] = {
            **lever,
            "sum_delta": lever["sum_delta"] + item.delta,
            "sum_severity": lever["sum_severity"] + item.severity,
            "sum_confidence": lever["sum_confidence"] + item.confidence,
            "count": lever["count"] + item.n,
            "by_outcome": by_outcome,
        }
    last = max(block["last_ts"], ended_at)
    return {**tuning, episode_type: {**block, "levers": levers, "last_ts": last}}


NO_LEVER: Mapping[str, Any] = {
    "sum_delta": 0.0,
    "sum_severity": 0.0,
    "sum_confidence": 0.0,
    "count": 0,
    "by_outcome": {},
}
_NO_SIDE: Mapping[str, Any] = {
    "count": 0,
    "sum_delta": 0.0,
    "sum_severity": 0.0,
    "sum_confidence": 0.0,
    "votes": 0,
    "vote": 0.0,
    "vote2": 0.0,
    "band_pass": [0] * BANDS,
    "band_y": [0.0] * BANDS,
    "band_y2": [0.0] * BANDS,
}


def _with_sums(side: Mapping[str, Any], item: Sums) -> dict[str, Any]:
    counts_, ys, y2s = side["band_pass"], side["band_y"], side["band_y2"]
    if item.bands:
        counts_, ys, y2s = counts_[:], ys[:], y2s[:]
        for band, n, y, y2 in item.bands:
            counts_[band] += n
            ys[band] += y
            y2s[band] += y2
    return {
        "count": side["count"] + item.n,
        "sum_delta": side["sum_delta"] + item.delta,
        "sum_severity": side["sum_severity"] + item.severity,
        "sum_confidence": side["sum_confidence"] + item.confidence,
        "votes": side["votes"] + item.votes,
        "vote": side["vote"] + item.vote,
        "vote2": side["vote2"] + item.vote * item.vote,
        "band_pass": counts_,
        "band_y": ys,
        "band_y2": y2s,
    }


def block_of(tuning: Mapping[str, Any], episode_type: str) -> Mapping[str, Any]:
    """The part of ``tuning`` for one episode type, an empty one if there is none yet."""
    found: Mapping[str, Any] | None = tuning.get(episode_type)
    if found is not None:
        return found
    return {
        "outcomes": dict.fromkeys(OUTCOMES, 0),
        "payoff": {"win": [0, 0.0], "loss": [0, 0.0]},
        "levers": {},
        "last_ts": 0,
    }


def counts(episode: EpisodeSummary) -> bool:
    """Whether an episode enters the statistics: its outcome is known and it was seen whole."""
    return episode.outcome in OUTCOMES and not episode.partial
