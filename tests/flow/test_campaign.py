"""The flow campaign in the gate: every scenario of `edgebook flow`, on both databases, against a started system.

A red test says what an operator would read: "packet ... died at stage ...", with the query that shows it.
"""

from __future__ import annotations

import pytest
from tests.pg import Server

from edgebook.flow.campaign import SCENARIOS, run_scenario
from edgebook.flow.databases import databases_of


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_packet_arrives_on_sqlite(name: str):
    with databases_of("sqlite") as databases:
        outcome = run_scenario(SCENARIOS[name], databases)
    assert outcome.verdict == "arrived", outcome.why
    assert outcome.findings
    assert all(job[2] == 0 for job in outcome.jobs)


@pytest.mark.postgres
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "LONG"])  # a month once is enough for a gate
def test_every_packet_arrives_on_postgresql(name: str, pg_server: Server):
    with databases_of(pg_server.url("postgres")) as databases:
        outcome = run_scenario(SCENARIOS[name], databases)
    assert outcome.verdict == "arrived", outcome.why
    assert outcome.findings
