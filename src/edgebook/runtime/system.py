"""The assembled system: one writer, one tape, one broker, one table of jobs, and the order in which a moment
happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import structlog

from edgebook.desk import Desk
from edgebook.domain.errors import EdgebookError
from edgebook.domain.evidence import JobRun, Watermark
from edgebook.domain.steering import operator_note
from edgebook.domain.timeframe import micros
from edgebook.jobs import (
    Counts,
    Job,
    check_protections,
    decision_maker,
    follow_shadows,
    ingest_signal,
    pm_core_tick,
    settle_order,
    settle_orders,
    steer_config,
    turn_kill_switch,
    turn_position,
)
from edgebook.learning.acts import Steered
from edgebook.runtime.market import Tape
from edgebook.runtime.timetable import Timetable
from edgebook.trading.signals import Receipt, reading_order

log = structlog.get_logger()


class System:
    """Everything switched on. ``step`` is one moment; what happens in it is the same live and in a backtest.

    Args:
        desk: what jobs work with.
        tape: the market reader, which also knows the grid of moments.
        signals: (time, raw line) of recorded signals, ascending; a source's own signals are added to them.
        commit_every: strands after which a group is committed by `step`.
        strict: raise when a job fails (backtests) instead of recording it and going on.
        at_venue: orders go to a venue: `settle` sends them, not `step`.
    """

    def __init__(
        self,
        desk: Desk,
        tape: Tape,
        signals: Sequence[tuple[int, str]] = (),
        *,
        commit_every: int = 4_000,
        strict: bool = False,
        at_venue: bool = False,
    ) -> None:
        self.desk, self.tape, self.strict, self.at_venue = desk, tape, strict, at_venue
        self._signals, self._next_signal = signals, 0
        self._commit_every, self._committed = commit_every, desk.uow.log.head[0]
        self._last_runs: dict[str, JobRun] = {}
        self._idle: dict[str, list[int]] = {}
        clock = desk.uow.watermarks.get("clock")
        self.clock = clock.at if clock else tape.start
        if tape.live:
            self.clock = max(self.clock, tape.start)
        self.moments_done = self.bars = 0
        while self._next_signal < len(signals) and signals[self._next_signal][0] <= self.clock:
            self._next_signal += 1

    @property
    def exhausted(self) -> bool:
        """Whether a finite tape has been walked to its end."""
        return self.tape.end is not None and self.clock >= self.tape.end

    def moments(self, until: int) -> Iterator[int]:
        """Moments after the clock, up to ``until``: bar closes and recorded signals, ascending."""
        while self.clock < until:
            self.tape.load(self.clock)
            end = (
                min(until, self.tape.loaded_until)
                if self.tape.end is None or self.tape.loaded_until < self.tape.end
                else until
            )
            grid = self.tape.closes(self.clock, end).tolist()
            if not grid:
                return
            for close in grid:
                while self._next_signal < len(self._signals) and self._signals[self._next_signal][0] < close:
                    yield self._signals[self._next_signal][0]
                yield close

    def step(self, now: int, timetable: Timetable) -> None:
        """One moment: bars, signals, jobs, fills; then the clock moves and a full group is committed."""
        desk = self.desk
        self.tape.load(now)
        if desk.unsettled:
            self._do("check_protections", now, lambda: check_protections(desk, now))
        self._walk_bars(now)
        self._take_signals(now)
        for slot, job in timetable.until(now):
            self.run_job(job, slot)
        if desk.orders and not self.at_venue and not self.tape.live:
            self._do("settle_orders", now, lambda: settle_orders(desk, now))
        self.clock = now
        self.moments_done += 1
        if desk.uow.log.head[0] - self._committed >= self._commit_every:
            self.commit()

    def _walk_bars(self, now: int) -> None:
        desk = self.desk
        for timeframe in self.tape.timeframes:
            if self.tape.due(timeframe, now) or desk.watchful(timeframe):
                self._do("pm_core_tick", now, lambda tf=timeframe: pm_core_tick(desk, tf, now))
            if desk.rules.shadows.enabled and (self.tape.due(timeframe, now) or desk.stage.restless):
                self._do("follow_shadows", now, lambda tf=timeframe: follow_shadows(desk, tf, now))

    def take_up(self, moment: int) -> None:
        """Walk the bars of a moment gone by that have come late; those that were seen then are not seen again.

        On paper, orders planned before that moment are filled first, as they would have been.
        """
        desk, before = self.desk, moment - micros(self.tape.base)
        for order in desk.open_orders() if not self.at_venue else ():
            if order.planned_ts < moment:
                self._do("settle_orders", before, lambda one=order: settle_order(desk, one, before))
        self._walk_bars(moment)

    def settle_on_paper(self) -> None:
        """On a live tape: fill paper orders at the open of the bar that began at the clock; it has closed by now.

        To be called before the next moment, so that what follows sees what a walk over recorded bars would.
        """
        desk, now = self.desk, self.clock
        if desk.orders and self.tape.live and not self.at_venue:
            self._do("settle_orders", now, lambda: settle_orders(desk, now))

    def settle(self, now: int) -> None:
        """Send open orders to the venue, or ask what became of them, at the real time ``now``.

        What is planned is committed before anything is sent, and what became of each order before the next: whenever
        the process dies, an order that may have been sent is in the book. An order that cannot be booked goes to the
        dead letters, is tried again next time, and keeps none of the others back.
        """
        desk, now = self.desk, max(now, self.clock)
        if not self.at_venue or not desk.orders:
            return
        self.commit()
        for order in desk.open_orders():
            run = self._do("settle_orders", now, lambda one=order: settle_order(desk, one, now))
            if run.status == "failed":
                desk.bury(EdgebookError(run.error), content=order.client_id, stage="settle_orders", now=now)
            if run.status == "failed" or desk.uow.log.head[0] != self._committed:
                self.commit()

    def run_job(self, job: Job, slot: int) -> None:
        """Run a job for its slot, once; a slot with nothing to read is counted on the previous run (decisions 35)."""
        if job.name in self._last_runs and not job.ready(self.desk):
            idle = self._idle[job.name]
            idle[0] += 1
            idle[1] = slot
            return
        self._note_idle(job.name)
        run = self._do(job.name, slot, lambda: job.run(self.desk, slot))
        if run.status == "failed":
            self.desk.rouse(job.name)
        self._last_runs[job.name], self._idle[job.name] = run, [0, slot]
        self.desk.uow.runs.put(run)

    def _note_idle(self, name: str) -> None:
        """Write the slots that found nothing to read onto the run before them."""
        count, slot = self._idle.get(name, (0, 0))
        last = self._last_runs.get(name)
        if count and last is not None:
            self.desk.uow.runs.put(replace(last, idle_slots=count, last_slot=slot))

    def take(self, lines: Sequence[str]) -> list[Receipt]:
        """Signals that came in from outside, at the clock's time; what became of each, in the order they were given.

        They are ingested in the order of their messages, so that one delivery leads to one log, however it is shuffled.
        """
        return self._ingest(lines, self.clock)

    def turn(self, scope: str, on: bool, who: str = "", why: str = "") -> bool:
        """The kill switch of a scope (`domain.protection`), turned at the clock's time; whether that changed
        anything."""
        return bool(turn_kill_switch(self.desk, scope, on, self.clock, operator_note(who, why))["applied"])

    def steer(self, act: str, target: str, who: str, why: str) -> Steered:
        """An operator's act on what was learnt (`domain.steering`), at the clock's time.

        Raises:
            InputError: there is no such lesson or version, or it cannot be done now.
        """
        return steer_config(self.desk, act, target, who, why, self.clock)

    def turn_position(self, ident: str, wish: str) -> bool:
        """A position paused, resumed or archived at the clock's time; whether that changed anything.

        Raises:
            InputError: there is no such position, or it cannot be turned so now.
        """
        return bool(turn_position(self.desk, ident, wish, self.clock)["applied"])

    def commit(self) -> None:
        """Make everything up to the clock durable, the clock with it."""
        seq = self.desk.uow.log.head[0]
        for name in self._last_runs:
            self._note_idle(name)
        self.desk.note_stale_marks(self.clock)
        self.desk.uow.watermarks.put(Watermark("clock", seq, self.clock))
        self.desk.uow.commit()
        self._committed = seq

    def _take_signals(self, now: int) -> None:
        lines = []
        while self._next_signal < len(self._signals) and self._signals[self._next_signal][0] <= now:
            lines.append(self._signals[self._next_signal][1])
            self._next_signal += 1
        lines.extend(self.tape.source.signals(self.clock, now))
        if lines:
            self._ingest(lines, now)

    def _ingest(self, lines: Sequence[str], now: int) -> list[Receipt]:
        order = reading_order(lines)
        found = {i: ingest_signal(self.desk, lines[i], now) for i in order}
        self._do("decision_maker", now, lambda: decision_maker(self.desk, now))
        return [found[i] for i in range(len(lines))]

    def _do(self, name: str, slot: int, work: object) -> JobRun:
        """Run one job's work. A failure undoes all it wrote, is recorded on its run and shown, never swallowed (law
        7)."""
        assert callable(work)
        if not self.strict:
            self.desk.uow.savepoint()
        try:
            counts: Counts = work()
        except Exception as error:
            if self.strict:
                raise
            self.desk.uow.undo()
            self.desk.reset()
            log.error(
                "job failed", job=name, slot=slot, error=str(error), exc_info=not isinstance(error, EdgebookError)
            )
            failed = JobRun(name, slot, "failed", {"failed": 1}, f"{type(error).__name__}: {error}", 0, slot)
            self.desk.uow.runs.put(failed)
            return failed
        status = "failed" if counts.get("failed") else "ok"
        return JobRun(name, slot, status, counts, "", 0, slot)
