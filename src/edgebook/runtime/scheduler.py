"""The drivers of the JOBS table: a simulated clock, one paced by the wall clock, one that moves when it is told to.

Order at equal times (decisions 34): bars that close (timeframes, then symbols, ascending), signals, jobs by offset,
and last the
fills of orders planned at that moment. All drivers call `System.step`; they differ only in who says what time it is.
"""

from __future__ import annotations

import gc
import math
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edgebook.domain.errors import InputError
from edgebook.jobs import MICROS
from edgebook.runtime.ingress import Inbox, Move, Pass, Steer, Turn
from edgebook.runtime.live import VenueEnd
from edgebook.runtime.system import System
from edgebook.runtime.timetable import Timetable, start_pm_jobs
from edgebook.runtime.views import protections_view

PACE_SECONDS = 0.1
#: How often a held clock looks for what was posted, and how long it walks before it answers.
HELD_SECONDS, PASS_SECONDS = 0.005, 5.0
#: How often a venue is asked about open orders between bars.
SETTLE_SECONDS = 3.0
Watch = Callable[[System, int], bool]


@contextmanager
def patient_gc() -> Iterator[None]:
    """Collect garbage rarely: the tables in memory are large, long-lived and without cycles, and every full pass
    walks them."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def run_simulated(system: System, until: int, watch: Watch | None = None) -> None:
    """Walk every moment up to ``until`` as fast as the machine can, then commit (backtests)."""
    timetable = start_pm_jobs(system.clock)
    with patient_gc():
        for moment in system.moments(until):
            _happen(system, timetable, moment)
            if watch is not None and not watch(system, moment):
                break
    system.commit()


def run_paced(
    system: System,
    speed: float,
    until: int | None,
    inbox: Inbox,
    watch: Watch | None = None,
) -> None:
    """Walk the same moments, no faster than ``speed`` simulated seconds per wall second, taking deliveries between
    steps.

    A machine that cannot keep up falls behind its pace; nothing is skipped. Every beat ends in a commit, so other
    processes see at most a beat of delay.
    """
    timetable = start_pm_jobs(system.clock)
    origin, began = system.clock, time.monotonic()
    running = True
    while running and not _reached(system, until):
        target = origin + int((time.monotonic() - began) * speed * 1_000_000)
        target = target if until is None else min(target, until)
        beat = time.monotonic() + PACE_SECONDS
        _pass_time(system, timetable, target, beat)
        _deliver(system, inbox)
        system.commit()
        running = watch is None or watch(system, system.clock)
        if system.exhausted:
            break
        time.sleep(max(0.0, min(PACE_SECONDS, beat - time.monotonic())))


def run_held(system: System, until: int | None, inbox: Inbox, watch: Watch | None = None) -> None:
    """Hold the clock, and walk up to a moment as fast as the machine can when the ingress is told to let time pass.

    What is posted in between happens at the clock's time, so a run that is told the same things writes the same log.
    """
    timetable = start_pm_jobs(system.clock)
    walls = [end for end in (until, system.tape.end) if end is not None]
    while not system.exhausted and not _reached(system, until):
        _deliver(
            system,
            inbox,
            lambda to: _pass_time(system, timetable, min((to, *walls)), time.monotonic() + PASS_SECONDS),
        )
        if watch is not None and not watch(system, system.clock):
            break
        time.sleep(HELD_SECONDS if inbox.empty() else 0.0)


def _reached(system: System, until: int | None) -> bool:
    """Whether no moment up to ``until`` is left, also where it lies between two bars."""
    return until is not None and next(system.moments(until), None) is None


def _pass_time(system: System, timetable: Timetable, until: int, beat: float) -> None:
    """Walk towards ``until``, no longer than up to ``beat`` on the wall clock; the system's clock says how far."""
    for moment in system.moments(until):
        _happen(system, timetable, moment)
        if time.monotonic() > beat:
            return


def _happen(system: System, timetable: Timetable, moment: int) -> None:
    """One moment: what was due before it, then the moment itself."""
    for slot, job in timetable.until(moment - 1):
        system.run_job(job, slot)
    system.step(moment, timetable)


def run_live(
    system: System,
    venue: VenueEnd,
    until: int | None,
    inbox: Inbox,
    watch: Watch | None = None,
    *,
    pace_seconds: float = PACE_SECONDS,
) -> None:
    """Walk moments as they happen, by the clock of ``venue``; orders are sent and followed between them, too.

    What was planned before this process began is looked up first, and booked before any bar is walked. Bars older than
    an order lives are walked without buying: those from before the start, and those that a venue kept back for a while.
    Orders that are open are sent and asked about all the same, whatever the bars and the clock do.
    """
    timetable = start_pm_jobs(system.clock)
    venue.reconcile(system)
    settled, running = -math.inf, True
    while running and (until is None or system.clock < until):
        now = venue.moment(system.clock)
        late = venue.poll(system, now)
        now = venue.moment(system.clock)  # the answers may have taken their time
        if venue.monotonic() - settled >= SETTLE_SECONDS and venue.heard(system):
            system.settle(now)
            settled = venue.monotonic()
        if _catch_up(system, late, now):
            system.settle(now)
        if _walk(system, timetable, now if until is None else min(now, until), now) or late:
            system.settle(now)
            settled = venue.monotonic()
        _deliver(system, inbox)
        venue.note(system, now)
        system.commit()
        running = watch is None or watch(system, system.clock)
        time.sleep(pace_seconds)


def _catch_up(system: System, late: Sequence[int], now: int) -> int:
    """Walk moments gone by whose bars have come late; how many there were."""
    for count, moment in enumerate(late):
        if count:
            system.settle(now)  # an order of one bar must not stand in the way of what the next one asks for
        system.desk.catching_up = _old(system, moment, now)
        system.take_up(moment)
    return len(late)


def _walk(system: System, timetable: Timetable, until: int, now: int) -> int:
    """Walk moments up to ``until`` for a beat; how many."""
    before, beat = system.moments_done, time.monotonic() + PACE_SECONDS
    for moment in system.moments(until):
        if system.moments_done > before:
            system.settle(now)
        system.desk.catching_up = _old(system, moment, now)
        system.settle_on_paper()
        _happen(system, timetable, moment)
        if time.monotonic() > beat:
            break
    return system.moments_done - before


def _old(system: System, moment: int, now: int) -> bool:
    """Whether an order planned at ``moment`` would have expired by ``now``."""
    return moment + system.desk.rules.pm.order_ttl_seconds * MICROS <= now


def _deliver(system: System, inbox: Inbox, let_pass: Callable[[int], None] | None = None) -> None:
    """Do what was posted; ``let_pass`` lets time pass where the clock is held."""
    while True:
        try:
            posted = inbox.get_nowait()
        except queue.Empty:
            return
        if isinstance(posted, Turn):
            posted.changed = system.turn(posted.scope, posted.on, posted.who, posted.why)
            posted.in_force = protections_view(system.desk.uow)
        elif isinstance(posted, Move):
            _move(system, posted)
        elif isinstance(posted, Steer):
            _steer(system, posted)
        elif isinstance(posted, Pass):
            if let_pass is None:
                posted.refused = "its clock runs by itself; start it with --held to move it"
            else:
                let_pass(posted.until)
            posted.clock, posted.ended = system.clock, system.exhausted
        else:
            posted.receipts = system.take(posted.lines)
        system.commit()
        posted.done.set()


def _move(system: System, move: Move) -> None:
    """Turn a position, or note why it cannot be."""
    try:
        move.changed = system.turn_position(move.position_id, move.wish)
        move.status = system.desk.position(move.position_id).status
    except InputError as error:
        move.refused = error.message


def _steer(system: System, asked: Steer) -> None:
    """Do an operator's act on what was learnt, or note why it cannot be done."""
    try:
        found = system.steer(asked.act, asked.target, asked.who, asked.why)
        asked.target, asked.changed = found.target, found.result is not None
        asked.version = system.desk.history.current_version
    except InputError as error:
        asked.refused = error.message
