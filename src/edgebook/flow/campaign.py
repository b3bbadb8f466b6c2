"""The whole campaign: every scenario on every database asked for, each on a fresh one, and what became of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebook.domain.errors import EdgebookError, InputError
from edgebook.flow.check import SCENARIOS, Finding, Flow, Moved, PacketDiedError, Scenario, clocks_text, required
from edgebook.flow.databases import Databases, databases_of
from edgebook.flow.running import COMMAND, SystemDiedError
from edgebook.flow.scenarios import (
    appetite,
    blocks,
    bring_up,
    crash,
    data,
    dm_gates,
    exposure,
    full_system,
    learning_pass,
    long_run,
    missed,
    one_packet,
    parity,
    pm_edges,
    pool,
    replay,
    telemetry,
    tuning_flips,
)

#: Modules whose scenarios are run, in the order of trading.md 8.
MODULES = (
    bring_up,
    one_packet,
    learning_pass,
    dm_gates,
    pm_edges,
    tuning_flips,
    missed,
    full_system,
    pool,
    blocks,
    appetite,
    exposure,
    telemetry,
    replay,
    data,
    crash,
    parity,
    long_run,
)


@dataclass(slots=True)
class Outcome:
    """What became of one scenario on one database.

    Attributes:
        verdict: ``arrived`` or ``died``; died_at names the stage, ``why`` says packet, query and answer.
        last_stage: the last stage that answered as expected.
        jobs: (name, runs, failed) at the end.
        wall_s: seconds of wall time.
    """

    scenario: str
    title: str
    db: str
    packets: list[str]
    last_stage: str
    verdict: str
    died_at: str
    why: str
    wall_s: float
    findings: list[Finding] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    clocks: str = ""
    jobs: list[tuple[str, int, int]] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """The row that scripts rely on (decisions.md)."""
        names = ("scenario", "db", "packets", "last_stage", "verdict", "died_at", "why")
        return {name: getattr(self, name) for name in names} | {"wall_s": round(self.wall_s, 2)}


_JOBS = (
    "SELECT name, count(*), sum(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) FROM job_runs"
    " GROUP BY name ORDER BY name"
)


def run_campaign(
    names: Sequence[str],
    db: str,
    *,
    command: Sequence[str] = COMMAND,
    told: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run scenarios by name (all without names).

    Args:
        db: ``sqlite`` for temporary files, or the address of a PostgreSQL server on which databases may be made.
        command: what starts edgebook.
        told: called with each outcome as it comes.

    Raises:
        InputError: no such scenario, or the database cannot be reached.
    """
    chosen = chosen_scenarios(names)
    found = []
    with databases_of(db) as databases:
        for one in chosen:
            outcome = run_scenario(one, databases, command)
            found.append(outcome)
            if told is not None:
                told(outcome)
    return found


def chosen_scenarios(names: Sequence[str]) -> list[Scenario]:
    """Scenarios by name, all without names.

    Raises:
        InputError: there is no such scenario; one line with those there are.
    """
    order = {module.__name__: place for place, module in enumerate(MODULES)}
    sorted_ones = sorted(SCENARIOS.values(), key=lambda one: order.get(one.run.__module__, len(order)))
    known = {one.name: one for one in sorted_ones}
    try:
        return required(known, names)
    except KeyError as error:
        raise InputError(f"no scenario {error}; there are {', '.join(known)}") from error


def run_scenario(one: Scenario, databases: Databases, command: Sequence[str] = COMMAND) -> Outcome:
    """One scenario on fresh databases."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgebook-flow-") as folder:
        flow = Flow(databases.fresh, Path(folder), command)
        stage = why = ""
        try:
            one.run(flow)
            if not flow.findings:
                stage, why = "scenario", f"{one.name} asked nothing, so it has shown nothing"
        except PacketDiedError as death:
            stage, why = death.stage, str(death)
        except SystemDiedError as death:
            stage, why = "system", f"packet {flow.packet or '-'} died at stage system: {death}"
        except EdgebookError as error:
            stage, why = "scenario", f"packet {flow.packet or '-'} died at stage scenario: {error.message}"
        passed = [finding.stage for finding in flow.findings if finding.passed]
        jobs = [(str(a), int(b), int(c or 0)) for a, b, c in _asked(flow, _JOBS)]
        databases.dropped()
    return Outcome(
        scenario=one.name,
        title=one.title,
        db=databases.kind,
        packets=list(dict.fromkeys(flow.packets)),
        last_stage=passed[-1] if passed else "",
        verdict="died" if stage else "arrived",
        died_at=stage,
        why=why,
        wall_s=time.monotonic() - began,
        findings=flow.findings,
        moved=flow.moved,
        commands=flow.commands,
        clocks=clocks_text(flow.clocks),
        jobs=jobs,
    )


def _asked(flow: Flow, query: str) -> list[tuple[Any, ...]]:
    try:
        return flow.ask(query) if flow.book is not None else []
    except EdgebookError:  # a system that never came up has no tables; the verdict says why
        return []
