"""What a person may ask of a database: status, lessons, overrides, jobs, one packet's way, one decision's reasons.

Every view only reads, through the read-only side of the store, and returns plain JSON-able values; commands print them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from edgebook.desk import STALE_MARKS
from edgebook.domain.codec import to_json
from edgebook.domain.errors import InputError
from edgebook.domain.evidence import Lesson, family_key
from edgebook.domain.levers import LEVERS
from edgebook.domain.protection import BOOK, CHANNEL
from edgebook.domain.scope import contains, scope_hash
from edgebook.domain.strands import (
    BuyWindow,
    DecisionLowcap,
    EpisodeSummary,
    Nudge,
    PmAction,
    PositionClosed,
    SocialLowcap,
    Strand,
)
from edgebook.ports import UnitOfWork

Json = Any
#: Facts that a run at a venue leaves in its database.
RECONCILED, TROUBLES = "venue_reconciled", "venue_troubles"
STAGES = ("signal", "decision", "position", "action", "fill", "close", "statistics")


def when(ts: int) -> str:
    """A time in microseconds as text, UTC.

    >>> when(1_600_000_000_000_000)
    '2020-09-13 12:26:40'
    """
    return datetime.fromtimestamp(ts / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S") if ts else ""


def lessons_view(uow: UnitOfWork) -> list[dict[str, Json]]:
    """All lessons: within their type those that act first, then the silent, then the given up; the strongest first
    (decisions: rows of ``lessons --json``)."""

    def order(row: Lesson) -> tuple[Any, ...]:
        size = abs(row.stats.get("log_target", 0.0)) or row.lesson_strength
        return (row.lesson_type, not acts(row), row.status == "deprecated", bool(row.scope_values), -size, row.id)

    rows = sorted(uow.lessons.values(), key=order)
    return [
        {
            "id": row.id,
            "lesson_type": row.lesson_type,
            "module": row.module,
            "pattern_key": row.pattern_key,
            "action_category": row.action_category,
            "scope": dict(row.scope_values),
            "levers": levers_of(row),
            "stats": to_json(row.stats),
            "status": row.status,
            "reason": row.reason,
        }
        for row in rows
    ]


def acts(lesson: Lesson) -> bool:
    """Whether a lesson asks for anything: a candidate or a claim with a lever that is not neutral."""
    moved = any(name not in LEVERS or value != LEVERS[name].base for name, value in levers_of(lesson).items())
    return lesson.status in ("candidate", "active") and moved


def levers_of(lesson: Lesson) -> dict[str, float]:
    """Lever targets in a lesson's effect, capital or gates alike."""
    capital = lesson.effect.get("capital_levers", {})
    gates = lesson.effect.get("execution_levers", {}).get("signal_thresholds", {})
    return {**capital, **gates}


def overrides_view(uow: UnitOfWork) -> dict[str, Json]:
    """The documents of ``learning_configs`` in force, with their version."""
    rows = {row.module_id: row for row in uow.configs.values()}
    return {
        "config_version": max((row.config_version for row in rows.values()), default=0),
        "updated_at": when(max((row.updated_at for row in rows.values()), default=0)),
        **{name: to_json(row.config_data) for name, row in sorted(rows.items())},
    }


def override_counts(uow: UnitOfWork) -> dict[str, int]:
    """Overrides in force per lesson type."""
    lists = {
        "dm_alloc": ("dm", "alloc_overrides"),
        "pm_strength": ("pm", "pattern_strength_overrides"),
        "pm_tuning": ("pm", "pattern_overrides"),
    }
    counts = {}
    for name, (module, field) in lists.items():
        row = uow.configs.get(module)
        counts[name] = len(row.config_data.get(field, ())) if row else 0
    return counts


def jobs_view(uow: UnitOfWork) -> list[dict[str, Json]]:
    """Per job: runs, failures, last slot, counts summed over all runs, idle slots."""
    jobs: dict[str, dict[str, Json]] = {}
    for run in uow.runs.values():
        row = jobs.setdefault(
            run.name,
            {
                "job": run.name,
                "runs": 0,
                "failed": 0,
                "idle_slots": 0,
                "last_slot": 0,
                "counts": Counter(),
                "error": "",
            },
        )
        row["runs"] += 1
        row["failed"] += run.status != "ok"
        row["idle_slots"] += run.idle_slots
        row["last_slot"] = max(row["last_slot"], run.last_slot, run.slot)
        row["counts"].update(run.counts)
        row["error"] = run.error or row["error"]
    return [
        {**row, "last_slot": when(row["last_slot"]), "counts": dict(row["counts"])} for _, row in sorted(jobs.items())
    ]


def status_view(uow: UnitOfWork) -> dict[str, Json]:
    """One page about a database: clock, log, book, learning, what died."""
    seq, head = uow.log.head
    clock = uow.watermarks.get("clock")
    aggregated = uow.watermarks.get("pattern_scope_aggregator")
    trades = list(uow.trades.values())
    lessons = Counter(f"{x.lesson_type}:{x.status}" for x in uow.lessons.values())
    in_force = protections_view(uow)
    return {
        "clock": when(clock.at if clock else 0),
        "strands": seq,
        "log_head": head,
        "strands_by_kind": uow.log.counts(),
        "strands_not_aggregated": seq - (aggregated.seq if aggregated else 0),
        "positions": dict(sorted(Counter(p.status for p in uow.positions.values()).items())),
        "open_positions": open_positions_view(uow),
        "trades": len(trades),
        "pnl_usd": str(sum((t.pnl_usd for t in trades), start=type(trades[0].pnl_usd)(0))) if trades else "0",
        "lessons": dict(sorted(lessons.items())),
        "overrides": override_counts(uow),
        "config_version": max((row.config_version for row in uow.configs.values()), default=0),
        "newest_lesson": when(max((x.last_validated for x in uow.lessons.values()), default=0)),
        "dead_letters": len(uow.dead_letters),
        "kill_switch": _kill_switch(in_force),
        "protections": in_force,
        "venue": venue_view(uow),
    }


def open_positions_view(uow: UnitOfWork) -> list[dict[str, Json]]:
    """Every position with an open trade, by symbol and timeframe; ``stale_mark`` says that the price it is valued at is
    more than three of its bars old."""
    fact = uow.meta.get(STALE_MARKS)
    stale = set(json.loads(fact.value)) if fact is not None else set()
    trading = (p for p in uow.positions.values() if p.trade_id)
    return [
        {
            "position": p.id,
            "symbol": p.symbol,
            "timeframe": p.timeframe,
            "status": p.status,
            "quantity": f"{p.ledger.quantity:f}",
            "cost_usd": str(p.ledger.cost),
            "opened_at": when(p.entry_ts),
            "stale_mark": p.id in stale,
        }
        for p in sorted(trading, key=lambda p: (p.symbol, p.timeframe, p.id))
    ]


def venue_view(uow: UnitOfWork) -> dict[str, Json]:
    """What the last run found at its venue, and what goes wrong there; empty for a book that knows none."""
    facts = {"reconciled": uow.meta.get(RECONCILED), "troubles": uow.meta.get(TROUBLES)}
    return {name: json.loads(fact.value) for name, fact in facts.items() if fact is not None}


def _kill_switch(in_force: list[dict[str, Json]]) -> str:
    """``off``, ``on``, or the learning channels it holds neutral.

    >>> _kill_switch([{"reason": "kill_switch", "scope": "channel|dm"}])
    'on for channel dm'
    """
    scopes = [str(one["scope"]) for one in in_force if one["reason"] == "kill_switch"]
    channels = [scope.removeprefix(CHANNEL) for scope in scopes if scope.startswith(CHANNEL)]
    parts = (["on"] if BOOK in scopes else []) + [f"on for channel {channel}" for channel in channels]
    return ", ".join(parts) or "off"


def protections_view(uow: UnitOfWork) -> list[dict[str, Json]]:
    """Every protection that is on, the kill switch among them: reason, scope, since when, until when ("" for open
    end)."""
    return [
        {"reason": block.reason, "scope": row.scope, "since": when(block.since), "until": when(block.until)}
        for row in sorted(uow.protections.values(), key=lambda row: row.scope)
        for block in row.blocks
    ]


def trace(uow: UnitOfWork, signal: str) -> dict[str, Json]:
    """One packet's way through the system: every strand it caused, the stage it reached, and where it died if it did.

    Raises:
        InputError: no such signal.
    """
    first = _find_signal(uow, signal)
    strands = list(uow.log.find(correlation_id=first.correlation_id or first.id))
    reached = {"signal"}
    reason = ""
    for strand in strands:
        payload = strand.payload
        if isinstance(payload, DecisionLowcap):
            reached.add("decision")
            reason = payload.reasoning if payload.action != "approve" else ""
        elif strand.kind == "position_status":
            reached.add("position")
        elif isinstance(payload, PmAction):
            reached.add("action")
        elif strand.kind == "order_filled":
            reached.add("fill")
        elif isinstance(payload, PositionClosed):
            reached.add("close")
            first_action = payload.actions[0]
            family = family_key("pm", first_action.pattern_key, first_action.action_category)
            if uow.observations.get(f"{family}|{strand.trade_id}"):
                reached.add("statistics")
    last = max(reached, key=STAGES.index)
    missing = next((s for s in STAGES if s not in reached), "")
    return {
        "signal": first.id,
        "stage": last,
        "verdict": "arrived" if not missing else ("died" if reason else "waiting"),
        "at": missing,
        "why": reason,
        "strands": [_line(s) for s in strands],
    }


def explain(uow: UnitOfWork, ident: str) -> dict[str, Json]:
    """Why a decision or action had its numbers: multiplier -> override -> lesson -> statistics -> trades.

    Args:
        ident: a strand id, a signal id, a lesson id or a trade id.

    Raises:
        InputError: nothing has this id.
    """
    lesson = uow.lessons.get(ident)
    if lesson is not None:
        return {"lesson": _lesson(uow, lesson)}
    strand = uow.log.get(ident)
    if strand is None:
        closes = [s for s in uow.log.find(trade_id=ident) if isinstance(s.payload, PmAction | PositionClosed)]
        if closes:
            return {"trade": ident, "actions": [explain(uow, s.id) for s in closes if isinstance(s.payload, PmAction)]}
        strand = _find_signal(uow, ident)
    if isinstance(strand.payload, SocialLowcap):
        decided = [
            s
            for s in uow.log.find(correlation_id=strand.correlation_id or strand.id)
            if isinstance(s.payload, DecisionLowcap)
        ]
        strand = decided[0] if decided else strand
    payload = strand.payload
    nudges: tuple[Nudge, ...] = getattr(payload, "nudges", ())
    return {
        "strand": _line(strand),
        "scope": dict(strand.scope),
        "config_version": strand.config_version,
        "arm": strand.arm or "learning on",
        "numbers": _numbers(payload),
        "coefficients": to_json(payload.coefficients) if isinstance(payload, DecisionLowcap) else [],
        "nudges": [_nudge(uow, n) for n in nudges],
    }


def _numbers(payload: object) -> dict[str, Json]:
    names: tuple[str, ...] = ()
    if isinstance(payload, DecisionLowcap):
        names = (
            "base_allocation_pct",
            "coefficient_mult",
            "static_mult",
            "alloc_mult",
            "allocation_pct",
            "action",
            "reasoning",
        )
    elif isinstance(payload, PmAction):
        names = (
            "decision_type",
            "rule",
            "base_size_frac",
            "size_frac",
            "notional_usd",
            "quantity",
            "a_base",
            "a_value",
            "e_base",
            "e_value",
            "caps",
            "thresholds_effective",
        )
    elif isinstance(payload, BuyWindow | EpisodeSummary):
        names = ("episode_type", "outcome", "entered")
    return {name: to_json(getattr(payload, name)) for name in names}


def _nudge(uow: UnitOfWork, nudge: Nudge) -> dict[str, Json]:
    matched = []
    for item in nudge.matched:
        lesson = uow.lessons.get(item.lesson_id)
        matched.append({**to_json(item), "lesson": _lesson(uow, lesson) if lesson else "no longer kept"})
    return {
        "lever": nudge.lever,
        "base": nudge.base,
        "applied": nudge.applied,
        "blend": nudge.blend,
        "overrides": matched,
    }


def _lesson(uow: UnitOfWork, lesson: Lesson) -> dict[str, Json]:
    row = uow.stats.get(f"{lesson.family}|{scope_hash(lesson.scope_values)}")
    units = [o.unit_id for o in uow.observations.values(lesson.family + "|") if contains(o.scope, lesson.scope_values)]
    statistics: dict[str, Json] = {}
    if row is not None:
        kept = ("avg_rr", "variance", "win_rate", "edge_raw", "avg_roi", "time_efficiency", "baseline")
        statistics = {"n": row.n, **{k: row.stats[k] for k in kept if k in row.stats}}
        if lesson.lesson_type == "pm_tuning":
            statistics["tuning"] = {t: block.get("outcomes") for t, block in row.stats.get("tuning", {}).items()}
    return {
        "id": lesson.id,
        "type": lesson.lesson_type,
        "pattern_key": lesson.pattern_key,
        "action_category": lesson.action_category,
        "scope": dict(lesson.scope_values),
        "status": lesson.status,
        "reason": lesson.reason,
        "levers": levers_of(lesson),
        "stats": to_json(lesson.stats),
        "created_at": when(lesson.created_at),
        "evidence_at": when(lesson.evidence_at),
        "statistics": statistics,
        "evidence": "decisions" if lesson.module == "dm" else "trades",
        "evidence_ids": units,
    }


def _find_signal(uow: UnitOfWork, ident: str) -> Strand:
    direct = uow.log.get(ident)
    if direct is not None:
        return direct
    for strand in uow.log.read(0, ["social_lowcap"]):
        if isinstance(strand.payload, SocialLowcap) and strand.payload.signal_id == ident:
            return strand
    raise InputError(
        f"nothing in this database has the id {ident!r}; ids are printed by 'edgebook status', 'lessons' and 'trace'",
        stage="views",
    )


def _line(strand: Strand) -> dict[str, Json]:
    payload = strand.payload
    text = {
        "decision_lowcap": lambda p: f"{p.action} {p.allocation_pct:.3g} % (alloc_mult {p.alloc_mult:.4f})",
        "position_status": lambda p: f"{p.previous or 'new'} -> {p.status} ({p.reason})",
        "pm_action": lambda p: (
            f"{p.decision_type} rule {p.rule} {p.side} size {p.size_frac:.4f} (base {p.base_size_frac:.4f})"
        ),
        "pm_skipped": lambda p: f"rule {p.rule} could not {p.side}: {', '.join(p.reasons)}",
        "order_filled": lambda p: f"{p.side} {p.quantity} at {p.price:.6g}, fee {p.fee_usd}",
        "position_closed": lambda p: f"rr {p.summary.rr:+.3f}, pnl {p.summary.pnl_usd} ({p.exit_reason})",
        "uptrend_stage_transition": lambda p: f"{p.from_state} -> {p.to_state}",
        "uptrend_buy_window": lambda p: (
            f"{p.window_kind} window, entered {p.entered}"
            + (f", blocked by {', '.join(p.blocked_by)}" if p.blocked_by else "")
        ),
        "protection_changed": lambda p: f"{p.reason} {'on' if p.on else 'off'} for {p.scope} ({p.detail})",
        "config_steered": lambda p: f"{p.who}: {p.act} {p.target}" + (f" ({p.why})" if p.why else ""),
        "nav_marked": lambda p: f"the book is worth {p.nav_usd} USD",
        "uptrend_episode_summary": lambda p: f"{p.episode_type}: {p.outcome}",
        "social_lowcap": lambda p: f"{p.curator} on {p.symbol}: {p.intent}",
    }.get(strand.kind, lambda p: "")(payload)
    return {
        "seq": strand.seq,
        "id": strand.id,
        "ts": when(strand.ts_event),
        "kind": strand.kind,
        "symbol": strand.symbol,
        "timeframe": strand.timeframe,
        "text": text,
    }


def largest_nudge(strand: Strand) -> float:
    """Largest absolute log change (multipliers) or difference (gates) among a strand's nudges; 0 without any."""
    nudges: tuple[Nudge, ...] = getattr(strand.payload, "nudges", ())
    sizes = [
        abs(math.log(n.applied / n.base))
        if n.lever.endswith("_mult") and n.base > 0 < n.applied
        else abs(n.applied - n.base)
        for n in nudges
    ]
    return max(sizes, default=0.0)
