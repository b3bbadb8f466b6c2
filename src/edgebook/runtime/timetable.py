"""When each job of the JOBS table is due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edgebook.domain.errors import PortError
from edgebook.jobs import JOBS, MICROS, REQUIRED_JOBS, Job


@dataclass(slots=True)
class Timetable:
    """When each scheduled job is due. Slots come from the clock by arithmetic, never from sleeping."""

    jobs: tuple[Job, ...]
    due: list[int] = field(default_factory=list)

    def start(self, at: int) -> None:
        """First slots strictly after ``at``; jobs stand in order of their offsets, so the first of equals is next."""
        self.jobs = tuple(sorted(self.jobs, key=lambda job: job.offset_seconds))
        self.due = [job.next_slot(at) for job in self.jobs]

    def until(self, end: int) -> Iterator[tuple[int, Job]]:
        """Slots ``<= end`` in time order (ties by offset), each given once."""
        due = self.due
        while (slot := min(due)) <= end:
            first = due.index(slot)
            job = self.jobs[first]
            due[first] = slot + job.every_seconds * MICROS
            yield slot, job


def start_pm_jobs(at: int, jobs: tuple[Job, ...] = JOBS) -> Timetable:
    """Launch every scheduled job, all learning jobs among them (mission 5.1).

    Args:
        at: moment after which the first slots lie, microseconds UTC.

    Raises:
        PortError: a required learning job is missing: the system does not start without its learning.
    """
    missing = [name for name in REQUIRED_JOBS if name not in {job.name for job in jobs}]
    if missing:
        raise PortError(
            f"the job table lacks {', '.join(missing)}: learning would not be live, so nothing starts", stage="boot"
        )
    timetable = Timetable(jobs)
    timetable.start(at)
    return timetable
