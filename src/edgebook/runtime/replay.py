"""Rebuild: every projection refolded from the log alone, and compared with what is stored (architecture law 1).

Learning is replayed at the points where its jobs changed something: each ``job_completed`` and ``config_changed``
strand makes the job run again on the rebuilt tables, each ``config_steered`` the operator's act. The rebuilt log must
reach the same hash.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.adapters.memory import MemoryStore
from edgebook.desk import LEARNER, Desk
from edgebook.domain.errors import StrandError
from edgebook.domain.steering import ConfigSteered
from edgebook.domain.strands import ConfigChanged, JobCompleted, Strand
from edgebook.jobs import JOBS, Job, run_materializer, steer_config
from edgebook.learning.config import LearningConfig
from edgebook.ports import MarketReader, UnitOfWork
from edgebook.trading.rules import TradingRules

TABLES = (
    "positions",
    "orders",
    "trades",
    "decisions",
    "curators",
    "coefficients",
    "intents",
    "accounts",
    "protections",
    "observations",
    "stats",
    "fits",
    "lessons",
    "configs",
    "config_versions",
)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Result of a rebuild: rows compared per table, differences in words, and the heads of both logs."""

    strands: int
    rows: Mapping[str, int]
    differences: tuple[str, ...]
    head: str

    @property
    def equal(self) -> bool:
        """Whether everything was found equal."""
        return not self.differences


def rebuild(stored: UnitOfWork, rules: TradingRules, learning: LearningConfig) -> Rebuilt:
    """Refold ``stored``'s log into an empty book and compare every projection, row by row.

    Args:
        stored: a reader of the database.
        rules: the rules it was written under (opening cash and book name matter).
        learning: the constants learning ran with.
    """
    learners = {job.name: job for job in JOBS}
    with MemoryStore().writer() as fresh:
        desk = Desk(fresh, cast(MarketReader, None), PaperBroker(), {}, rules, learning)
        count, stopped = 0, []
        for strand in stored.log.read(0):
            count += 1
            try:
                _replay(desk, strand, learners)
            except StrandError as error:
                stopped.append(f"log: the rebuild parts from it at seq {strand.seq}: {error.message}")
                break
        differences = stopped + [text for name in TABLES for text in _compare(name, stored, fresh)]
        if fresh.log.head != stored.log.head:
            differences.append(f"log: rebuilt head is {fresh.log.head}, stored head is {stored.log.head}")
        rows = {name: len(getattr(stored, name)) for name in TABLES}
    return Rebuilt(count, rows, tuple(differences), stored.log.head[1])


def _replay(desk: Desk, strand: Strand, learners: Mapping[str, Job]) -> None:
    """Learning runs again where it changed something; every other strand is folded as it is."""
    payload = strand.payload
    if isinstance(payload, ConfigSteered):
        steer_config(desk, payload.act, payload.target, payload.who, payload.why, strand.ts_event)
    elif isinstance(payload, ConfigChanged) and payload.updated_by == LEARNER:
        run_materializer(desk, strand.ts_event)
    elif isinstance(payload, JobCompleted) and payload.job != "override_materializer":
        learners[payload.job].run(desk, payload.slot)
    desk.record([dataclasses.replace(strand, seq=0, hash="")])


def _compare(name: str, stored: UnitOfWork, fresh: UnitOfWork) -> list[str]:
    old = {row.key: row for row in getattr(stored, name).values()}
    new = {row.key: row for row in getattr(fresh, name).values()}
    found = [f"{name}: {key} is stored but does not follow from the log" for key in old if key not in new]
    found += [f"{name}: {key} follows from the log but is not stored" for key in new if key not in old]
    for key, row in old.items():
        if key in new and new[key] != row:
            fields = [f.name for f in dataclasses.fields(row) if getattr(row, f.name) != getattr(new[key], f.name)]
            found.append(f"{name}: {key} differs in {', '.join(fields)}")
    return found
