"""A flow on somebody's own system, read-only: where each of the last packets is, or at which stage it died.

Nothing is started, injected or written. A packet is ``arrived`` when a trade of it stands in the statistics,
``rejected`` when the decision maker said no, ``waiting`` when the next stage may still come (the trend has not begun, a
trade is open, a job's slot is ahead), ``superseded`` when a newer packet about its token has its place, or its
positions were paused when it came, and ``died`` when a stage that is behind it left nothing: then something is broken,
and the query shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import DBAPIError

from edgebook.adapters.database import open_engine, parse_address, require_schema
from edgebook.domain.errors import InputError, PortError
from edgebook.flow.book import Book, Rows
from edgebook.flow.story import iso


@dataclass(slots=True)
class Fate:
    """One packet: the last stage it reached, the next one, and what is known of that.

    Attributes:
        packet: strand id of the signal; ``name`` is the id its sender gave it.
        verdict: ``arrived``, ``rejected``, ``waiting``, ``superseded`` or ``died``.
        at: the stage it waits for, was rejected, superseded or died at; "" when it arrived.
        why: in words; ``query`` shows what was asked there.
        found: rows seen at each stage it passed.
    """

    packet: str
    name: str
    ts: int
    curator: str
    symbol: str
    seq: int
    verdict: str = ""
    reached: str = "signal"
    at: str = ""
    why: str = ""
    query: str = ""
    found: dict[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Plain values."""
        names = ("packet", "name", "curator", "symbol", "verdict", "reached", "at", "why", "query", "found")
        return {"ts": iso(self.ts), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class Health:
    """How the system itself is: its clock, jobs whose last run failed, dead letters by stage."""

    clock: int
    failed_jobs: Rows
    dead_letters: Rows


class _StoppedError(Exception):
    """The packet goes no further, for now or for good."""

    def __init__(self, verdict: str, at: str, why: str) -> None:
        self.verdict, self.at, self.why = verdict, at, why


def observe(url: str, last: int = 10) -> tuple[Health, list[Fate]]:
    """The system's health, and the fate of its last packets, newest first.

    Raises:
        InputError: the database cannot be read, is none of edgebook's, or has another schema revision.
    """
    book = Book(url)
    try:
        _check_schema(url)
        marks = {name: (seq, at) for name, seq, at in book.ask("SELECT key, seq, at FROM watermarks")}
        failed = book.ask(
            "SELECT r.name, r.error FROM job_runs r WHERE r.status = 'failed' AND r.slot ="
            " (SELECT max(o.slot) FROM job_runs o WHERE o.name = r.name) ORDER BY r.name"
        )
        dead = book.ask("SELECT stage, count(*) FROM dead_letters GROUP BY stage ORDER BY stage")
        signals = book.ask(
            "SELECT id, $text(content, signal_id), ts_event, $text(content, curator), symbol, seq FROM ad_strands"
            " WHERE kind = 'social_lowcap' ORDER BY seq DESC LIMIT :last",
            last=last,
        )
    except (PortError, DBAPIError) as error:
        said = error.message if isinstance(error, PortError) else str(error.orig).strip()
        raise InputError(f"no edgebook database to observe: {said}") from error
    clock = int(marks.get("clock", (0, 0))[1])
    seen = {name: int(seq) for name, (seq, _) in marks.items()}
    fates = [_Follower(book, clock, seen, Fate(*map(_plain, row))).follow() for row in signals]
    return Health(clock, failed, dead), fates


def _check_schema(url: str) -> None:
    address = parse_address(url)
    with open_engine(address, read_only=True).connect() as connection:
        require_schema(connection, address)


def _plain(value: Any) -> Any:
    return "" if value is None else value


class _Follower:
    """One packet, asked stage by stage."""

    def __init__(self, book: Book, clock: int, marks: dict[str, int], fate: Fate) -> None:
        self._book, self._clock, self._marks, self._fate = book, clock, marks, fate
        self._query: tuple[str, dict[str, Any]] = ("", {})

    def follow(self) -> Fate:
        """Go as far as the packet went."""
        fate = self._fate
        stages: tuple[Callable[[], int], ...] = (
            self._decision, self._positions, self._transition, self._action, self._fill, self._close, self._evidence,
            self._statistics,
        )  # fmt: skip
        try:
            for stage in stages:
                name = stage.__name__.removeprefix("_")
                fate.found[name] = stage()
                fate.reached = name
            fate.verdict, fate.why = "arrived", "a trade of it stands in the statistics"
        except _StoppedError as stop:
            fate.verdict, fate.at, fate.why = stop.verdict, stop.at, stop.why
            fate.query = self._book.spelt(self._query[0], **self._query[1])
        return fate

    def _ask(self, query: str, **values: Any) -> Rows:
        given = {"packet": self._fate.packet} if ":packet" in query else {}
        self._query = (query, values | given)
        return self._book.ask(query, **values, **given)

    def _decision(self) -> int:
        found = self._ask(
            "SELECT $text(content, action), $text(content, reasoning) FROM ad_strands"
            " WHERE kind = 'decision_lowcap' AND causation_id = :packet"
        )
        if not found:
            if self._marks.get("decision_maker", 0) < self._fate.seq:
                raise _StoppedError("waiting", "DM", "the decision maker has not read it yet")
            letter = self._ask("SELECT reason FROM dead_letters WHERE correlation_id = :packet")
            raise _StoppedError("died", "DM", f"read, but not decided{': ' + letter[0][0] if letter else ''}")
        action, reasoning = found[0]
        if action != "approve":
            raise _StoppedError("rejected", "DM gate", str(reasoning))
        return len(found)

    def _positions(self) -> int:
        found = self._ask(
            "SELECT p.timeframe, p.status FROM ad_strands s, $each(s.content, position_ids, i), positions p"
            f" WHERE s.kind = 'decision_lowcap' AND s.causation_id = :packet AND p.key = {self._element('i')}"
            " ORDER BY p.timeframe"
        )
        if not found:
            barred = self._ask(
                "SELECT w.kind FROM ad_strands s, ad_strands w WHERE s.kind = 'decision_lowcap'"
                " AND s.causation_id = :packet AND $len(s.content, position_ids) = 0 AND w.symbol = s.symbol"
                " AND w.seq < s.seq AND w.id <> :packet AND ((w.kind = 'position_status'"
                " AND $text(w.content, status) = 'paused') OR (w.kind = 'social_lowcap' AND w.ts_event >= :at))",
                at=self._fate.ts,
            )
            if barred:
                why = "approved, but every position of its token was paused, or had an answer to a newer message"
                raise _StoppedError("superseded", "DM fan-out", why)
            raise _StoppedError("died", "DM fan-out", "approved, but no position stands behind it")
        return len(found)

    def _element(self, name: str) -> str:
        return f"{name}.value" if self._book.dialect == "sqlite" else f"({name}.value #>> '{{}}')"

    def _transition(self) -> int:
        found = self._ask(
            "SELECT DISTINCT timeframe, $text(content, to_state) FROM ad_strands"
            " WHERE kind IN ('uptrend_stage_transition', 'pm_action') AND correlation_id = :packet"
        )
        if not found:
            self._stop_if_superseded("S0->S1")
            raise _StoppedError("waiting", "S0->S1", self._positions_said() + "; the trend has not moved since")
        return len(found)

    def _stop_if_superseded(self, at: str) -> None:
        """Stop where no position acts, or is going to act, on its decision."""
        found = self._ask(
            "SELECT p.timeframe, p.decision_id = s.id OR p.pending_decision_id = s.id FROM ad_strands s, positions p"
            " WHERE s.kind = 'decision_lowcap' AND s.causation_id = :packet AND p.symbol = s.symbol"
        )
        if found and not any(mine for _, mine in found):
            raise _StoppedError("superseded", at, "a later decision on its token has taken its place")

    def _positions_said(self) -> str:
        found = self._ask(
            "SELECT DISTINCT p.timeframe, p.status, p.pending_decision_id FROM ad_strands s, positions p"
            " WHERE s.kind = 'decision_lowcap' AND s.causation_id = :packet AND p.symbol = s.symbol"
            " ORDER BY p.timeframe"
        )
        pending = sum(bool(waits) for _, _, waits in found)
        text = ", ".join(f"{timeframe} {status}" for timeframe, status, _ in found)
        return text + (f"; {pending} wait behind an open trade" if pending else "")

    def _action(self) -> int:
        found = self._ask("SELECT id FROM ad_strands WHERE kind = 'pm_action' AND correlation_id = :packet")
        if not found:
            said = self._ask(
                "SELECT kind, content FROM ad_strands WHERE kind = 'pm_skipped' AND correlation_id = :packet"
                " ORDER BY seq DESC LIMIT 1"
            )
            self._stop_if_superseded("PM plan")
            windows = self._ask(
                "SELECT id FROM ad_strands WHERE kind = 'uptrend_buy_window' AND correlation_id = :packet"
            )
            why = f"{len(windows)} windows closed without an entry" + (f"; last skip: {said[0][1]}" if said else "")
            raise _StoppedError("waiting", "PM plan", why)
        return len(found)

    def _fill(self) -> int:
        lost = self._ask(
            "SELECT a.id FROM ad_strands a LEFT JOIN ad_strands f ON f.causation_id = a.id"
            " AND f.kind IN ('order_filled', 'order_rejected', 'order_expired')"
            " LEFT JOIN orders o ON o.action_id = a.id AND o.status = 'planned'"
            " WHERE a.kind = 'pm_action' AND a.correlation_id = :packet AND f.id IS NULL AND o.key IS NULL"
        )
        if lost:
            raise _StoppedError("died", "executor", f"{len(lost)} actions have neither an open order nor an end of it")
        late = self._ask(
            "SELECT o.key FROM orders o JOIN ad_strands a ON a.id = o.action_id WHERE a.correlation_id = :packet"
            " AND o.status = 'planned' AND o.expires_ts + 86400000000 < :clock",
            clock=self._clock,
        )
        if late:
            raise _StoppedError("died", "executor", f"{len(late)} orders are open a day after they had to end")
        found = self._ask(
            "SELECT f.id FROM ad_strands f JOIN ad_strands a ON f.causation_id = a.id WHERE f.kind = 'order_filled'"
            " AND a.kind = 'pm_action' AND a.correlation_id = :packet"
        )
        if not found:
            raise _StoppedError("waiting", "executor", "no order of it was filled so far")
        return len(found)

    def _close(self) -> int:
        found = self._ask("SELECT trade_id FROM ad_strands WHERE kind = 'position_closed' AND correlation_id = :packet")
        if not found:
            raise _StoppedError("waiting", "closure", "its trade is open: " + self._positions_said())
        return len(found)

    def _evidence(self) -> int:
        missing = self._ask(
            "SELECT c.trade_id, c.seq FROM ad_strands c LEFT JOIN learning_observations o ON o.unit_id = c.trade_id"
            " AND o.module = 'pm' WHERE c.kind = 'position_closed' AND c.correlation_id = :packet AND o.key IS NULL"
        )
        read = self._marks.get("pattern_scope_aggregator", 0)
        lost = [trade for trade, seq in missing if seq <= read]
        if lost:
            raise _StoppedError("died", "aggregator", f"{len(lost)} closed trades were read, but are no evidence")
        if missing:
            raise _StoppedError("waiting", "aggregator", "closed; its slot (every 5 minutes) is ahead")
        return int(self._fate.found["close"])

    def _statistics(self) -> int:
        found = self._ask(
            "SELECT DISTINCT s.key FROM ad_strands c JOIN learning_observations o ON o.unit_id = c.trade_id"
            " JOIN pattern_scope_stats s ON s.module = o.module AND s.pattern_key = o.pattern_key"
            " AND s.action_category = o.action_category AND s.scope_mask = 0 AND s.n > 0"
            " WHERE c.kind = 'position_closed' AND c.correlation_id = :packet AND o.module = 'pm'"
        )
        if not found:
            raise _StoppedError("died", "aggregator", "its trade is evidence, but no statistics stand for it")
        return len(found)
