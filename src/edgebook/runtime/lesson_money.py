"""What lessons moved, and what that earned: nudges of decisions and actions, and the holdout arm to compare with.

Moved: every decision and action carries its nudges with the overrides that matched. An action that learning made ``f``
times its size moved ``usd * (1 - 1 / f)`` USD of its fill; a decision moves that of what its closed trades invested.

Earned: a stable tenth of decisions and attempts runs without overrides (decisions 6, 46). Learning moves capital, so
both arms are weighted by it: rr per USD of risk capital, and pnl per 100 USD invested (decisions 54). Trades share
shocks, so intervals count weeks, or days where there are too few weeks, not trades.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.domain.decay import DAY
from edgebook.domain.evidence import ScopeDict, family_key
from edgebook.domain.levers import LESSON_TYPES, LEVERS, LessonType
from edgebook.domain.scope import contains
from edgebook.domain.strands import DecisionLowcap, Nudge, OrderFilled, PmAction, PositionClosed, Strand
from edgebook.learning.observe import in_holdout
from edgebook.overrides.record import LISTS
from edgebook.ports import UnitOfWork
from edgebook.runtime.lesson_words import CHANNEL_OF
from edgebook.runtime.report.metrics import MIN_WEEKS, student_quantile, verdict, week_of

Json = Any
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_HOLDOUT_TRADES = 5
TOO_FEW = "too few to say"
_KINDS = ("decision_lowcap", "pm_action", "order_filled", "position_closed")
_UNMOVED = 1e-12


@dataclass(frozen=True, slots=True)
class Closed:
    """One closed trade: when, what was invested and won (USD), rr (R), of which channels it is a holdout, and where it
    belongs: the scope of its first action in each pm family, and that of its decision."""

    opened_at: int
    closed_at: int
    invested_usd: float
    pnl_usd: float
    rr: float
    holdout: frozenset[str]
    scopes: Mapping[str, ScopeDict]


@dataclass(slots=True)
class Moved:
    """What one lesson or channel moved.

    ``nudged`` decisions or actions; ``log_applied`` sums the logs of the multipliers they got, ``log_own`` those of the
    lesson's own decayed pull; ``usd`` is the net of what was moved (more is positive), ``usd_turned`` without signs;
    ``first_at`` is the first nudge, microseconds UTC.
    """

    nudged: int = 0
    log_applied: float = 0.0
    log_own: float = 0.0
    usd: float = 0.0
    usd_turned: float = 0.0
    first_at: int = 0

    def facts(self) -> dict[str, Json]:
        """As plain values; mean multipliers are geometric means, None where nothing was nudged.

        >>> Moved(2, math.log(4.0), math.log(4.0), 5.0, 7.0).facts()["mean_multiplier"]
        2.0
        """
        n = self.nudged
        return {
            "nudged": n,
            "mean_multiplier": math.exp(self.log_applied / n) if n else None,
            "own_multiplier": math.exp(self.log_own / n) if n else None,
            "moved_usd": self.usd,
            "turned_usd": self.usd_turned,
        }


@dataclass(slots=True)
class Money:
    """All that was moved and closed in one database."""

    closed: list[Closed] = field(default_factory=list)
    lessons: dict[str, Moved] = field(default_factory=dict)
    channels: dict[str, Moved] = field(default_factory=lambda: {channel: Moved() for channel in CHANNEL_OF.values()})
    asked: Counter[str] = field(default_factory=Counter)


def money(uow: UnitOfWork) -> Money:
    """Reads the log once: nudges with what was filled under them, and closed trades with their arms."""
    decisions: dict[str, Strand] = {}
    actions: dict[str, tuple[int, PmAction]] = {}
    filled: defaultdict[str, float] = defaultdict(float)
    closes: list[tuple[Strand, PositionClosed]] = []
    for strand in uow.log.read(0, _KINDS):
        payload = strand.payload
        if isinstance(payload, DecisionLowcap) and payload.action == "approve":
            decisions[strand.id] = strand
        elif isinstance(payload, PmAction):
            actions[strand.id] = strand.ts_event, payload
        elif isinstance(payload, OrderFilled):
            filled[payload.action_id] += float(payload.quantity) * payload.price
        elif isinstance(payload, PositionClosed):
            closes.append((strand, payload))
    invested: defaultdict[str, float] = defaultdict(float)
    for _, payload in closes:
        invested[payload.decision_id] += float(payload.summary.invested_usd)
    found = Money([_closed(strand, payload, decisions) for strand, payload in closes])
    for ident, strand in decisions.items():
        made = strand.payload
        if isinstance(made, DecisionLowcap):
            found.asked["dm"] += 1
            _count(found, "dm", strand.ts_event, made.nudges, made.alloc_mult, invested[ident])
    for ident, (at, action) in actions.items():
        grown = action.size_frac / action.base_size_frac if action.base_size_frac > 0 < action.size_frac else 1.0
        found.asked["strength"] += action.action_category != "exit"
        found.asked["tuning"] += action.side == "buy"
        for channel in ("strength", "tuning"):
            nudges = tuple(n for n in action.nudges if CHANNEL_OF[_kind(n)] == channel)
            _count(found, channel, at, nudges, grown if channel == "strength" else 1.0, filled[ident])
    return found


def _kind(nudge: Nudge) -> LessonType:
    return LEVERS[nudge.lever].lesson_type


def _closed(strand: Strand, payload: PositionClosed, decisions: Mapping[str, Strand]) -> Closed:
    scopes: dict[str, ScopeDict] = {}
    for action in payload.actions:
        scopes.setdefault(family_key("pm", action.pattern_key, action.action_category), action.scope)
    decision = decisions.get(payload.decision_id)
    arms = {channel for channel in ("strength", "tuning") if in_holdout(strand.arm, channel)}
    if decision is not None and isinstance(decision.payload, DecisionLowcap):
        asked = decision.payload
        scopes[family_key("dm", asked.pattern_key, asked.action_category)] = decision.scope
        arms |= {"dm"} if in_holdout(decision.arm, "dm") else set()
    summary = payload.summary
    return Closed(
        summary.entry_ts,
        summary.exit_ts,
        float(summary.invested_usd),
        float(summary.pnl_usd),
        summary.rr,
        frozenset(arms),
        scopes,
    )


def _count(found: Money, channel: str, at: int, nudges: Sequence[Nudge], factor: float, usd: float) -> None:
    """Count the nudges of one decision or action that learning made ``factor`` times its size."""
    if not any(abs(nudge.applied - nudge.base) > _UNMOVED for nudge in nudges):
        return
    own: dict[str, float] = {}
    for nudge in nudges:
        multiplies = LEVERS[nudge.lever].log_blend
        for item in nudge.matched:
            pull = item.decay * math.log(item.targets[nudge.lever]) if multiplies else 0.0
            own[item.lesson_id] = own.get(item.lesson_id, 0.0) + pull
    applied = math.log(factor)
    moved = usd * (1.0 - 1.0 / factor)
    _add(found.channels[channel], applied, applied, moved)
    for lesson_id, share in shares(own, applied).items():
        row = found.lessons.setdefault(lesson_id, Moved(first_at=at))
        _add(row, applied, own[lesson_id], moved * share)


def _add(row: Moved, applied: float, own: float, usd: float) -> None:
    row.nudged += 1
    row.log_applied += applied
    row.log_own += own
    row.usd += usd
    row.usd_turned += abs(usd)


def shares(pulls: Mapping[str, float], applied: float) -> dict[str, float]:
    """How much of an applied log change each lesson answers for; opposite pulls have opposite shares.

    ``share_i = pull_i * r / applied`` with ``r = clip(applied / sum of pulls, 0, 1)``: a change that went the whole way
    is shared out in full, one that was clamped or is still on its way in the same proportions.

    >>> shares({"a": 0.75, "b": -0.25}, 0.25), shares({"a": 1.0}, 0.5)
    ({'a': 1.5, 'b': -0.5}, {'a': 1.0})
    >>> shares({"a": 0.1}, 0.0)
    {'a': 0.0}
    """
    total = math.fsum(pulls.values())
    if abs(applied) < _UNMOVED or abs(total) < _UNMOVED:
        return dict.fromkeys(pulls, 0.0)
    ratio = min(1.0, max(0.0, applied / total))
    return {ident: pull * ratio / applied for ident, pull in pulls.items()}


# ------------------------------------------------------------------ against the holdout


def first_in_force(uow: UnitOfWork) -> dict[str, int]:
    """Per channel, since when there have been overrides, microseconds UTC; channels without any are left out."""
    found: dict[str, int] = {}
    for version in sorted(uow.config_versions.values(), key=lambda row: row.version):
        for kind in LESSON_TYPES:
            module, name = LISTS[kind]
            if CHANNEL_OF[kind] not in found and (version.dm if module == "dm" else version.pm).get(name):
                found[CHANNEL_OF[kind]] = version.in_force_from
        if len(found) == len(LESSON_TYPES):
            break
    return found


def inside(family: str, scope: ScopeDict, start: int, end: int) -> Callable[[Closed], bool]:
    """Whether a trade was opened in ``[start, end]`` under a lesson's scope."""

    def holds(trade: Closed) -> bool:
        where = trade.scopes.get(family)
        return where is not None and start <= trade.opened_at <= end and contains(where, scope)

    return holds


def against_holdout(trades: Iterable[Closed], channel: str) -> dict[str, Json]:
    """The nudged arm of a channel against its holdout, in rr and in pnl per 100 USD invested, each with a 90 %
    interval.

    ``rr = sum(invested * rr) / sum(invested)`` in each arm. Intervals are None, and the verdict ``too few to say``,
    with fewer than five holdout trades, or holdout trades in fewer than five days.
    """
    rows = [trade for trade in trades if trade.invested_usd > 0]
    held = np.array([channel in trade.holdout for trade in rows], dtype=bool)
    weight = np.array([trade.invested_usd for trade in rows], dtype=float)
    rr = np.array([trade.rr for trade in rows], dtype=float)
    per_100 = np.array([100.0 * trade.pnl_usd / trade.invested_usd for trade in rows], dtype=float)
    name, blocks = _blocks(np.array([trade.closed_at for trade in rows], dtype=np.int64), held)
    enough = bool(name) and int(held.sum()) >= MIN_HOLDOUT_TRADES and not held.all()
    found: dict[str, Json] = {
        "trades": int((~held).sum()),
        "holdout_trades": int(held.sum()),
        "invested_usd": float(weight[~held].sum()),
        "holdout_invested_usd": float(weight[held].sum()),
        "clusters": name,
    }
    for label, values in (("rr", rr), ("pnl_per_100", per_100)):
        arms = [_mean(values[arm], weight[arm]) for arm in (~held, held)]
        gap = difference(values, weight, held, blocks) if enough else None
        interval = gap[1:] if gap is not None else None
        found[label] = {
            "nudged": arms[0],
            "holdout": arms[1],
            "difference": arms[0] - arms[1] if arms[0] is not None and arms[1] is not None else None,
            "ci90": list(interval) if interval is not None else None,
            "verdict": verdict(interval) if interval is not None else TOO_FEW,
        }
    gain = found["pnl_per_100"]["difference"]
    found["earned_usd"] = gain * found["invested_usd"] / 100.0 if enough and gain is not None else None
    return found


def _mean(values: Floats, weight: Floats) -> float | None:
    return float(np.average(values, weights=weight)) if len(values) else None


def _blocks(closed: Ints, held: NDArray[np.bool_]) -> tuple[str, Ints]:
    """Weeks of closing where the holdout has trades in at least five of them, else days, else nothing."""
    for name, blocks in (("week", week_of(closed)), ("day", closed // DAY)):
        if len(np.unique(blocks[held])) >= MIN_WEEKS:
            return name, np.asarray(blocks)
    return "", np.zeros_like(closed)


def difference(
    values: Floats, weight: Floats, held: NDArray[np.bool_], blocks: Ints
) -> tuple[float, float, float] | None:
    """Weighted mean of the nudged arm less that of the holdout, with a 90 % interval over blocks.

    ``var = G / (G - 1) * sum_g (u_g - v_g)^2`` where ``u_g`` is the sum over block g of ``w * (y - mean) / sum(w)`` in
    the nudged arm, ``v_g`` in the holdout, so that what both arms share in a block cancels; G counts blocks with
    holdout trades, and Student's t has G - 1 degrees of freedom. None with an arm that is empty or a holdout in one
    block.

    >>> arms, weeks = np.array([False, False, True, True]), np.array([0, 1, 0, 1])
    >>> difference(np.array([1.0, 3.0, 0.0, 2.0]), np.ones(4), arms, weeks)[0]
    1.0
    """
    if held.all() or not held.any():
        return None
    names, row = np.unique(blocks, return_inverse=True)
    few = len(np.unique(blocks[held]))
    if few < 2:
        return None
    spread, means = np.zeros(len(names)), []
    for arm, sign in ((~held, 1.0), (held, -1.0)):
        total = float(weight[arm].sum())
        means.append(float((weight[arm] * values[arm]).sum()) / total)
        np.add.at(spread, row[arm], sign * weight[arm] * (values[arm] - means[-1]) / total)
    gap = means[0] - means[1]
    half = student_quantile(0.95, few - 1) * math.sqrt(few / (few - 1) * float((spread**2).sum()))
    return gap, gap - half, gap + half
