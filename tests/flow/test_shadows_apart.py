"""Shadows stand apart: the running system with them and without them writes the same book."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.flow import world

from edgebook.adapters.memory import MemoryStore
from edgebook.domain.decay import DAY
from edgebook.runtime.replay import rebuild
from edgebook.runtime.scheduler import run_simulated
from edgebook.trading.rules import ShadowRules

DAYS = 2.0
#: What learning writes: it reads shadows, and may.
LEARNING = {"job_completed", "config_changed"}
BOOK = (
    "positions", "memory", "orders", "trades", "decisions", "curators", "coefficients", "intents", "accounts",
    "protections", "snapshots", "observations",
)  # fmt: skip


def run(enabled):
    """The small market under a learner that gathers evidence and moves nothing: (strands, rows of the book)."""
    store = MemoryStore()
    settings = world.settings_for("memory", learning_enabled=False)
    with world.opened(store, settings, world.sim_feed()) as system:
        rules = replace(system.desk.rules, shadows=ShadowRules(enabled=enabled))
        system.desk.rules = rules
        run_simulated(system, system.tape.start + int(DAYS * DAY))
    with store.reader() as uow:
        log = list(uow.log.read(0))
        rows = {name: [numberless(row) for row in getattr(uow, name).values()] for name in BOOK}
        assert rebuild(uow, rules, world.EAGER).differences == ()
        return log, rows


def numberless(thing):
    """A strand or row without its place in the log, and without the number of a config that moves nothing."""
    fields = {"seq": 0, "hash": "", "last_seq": 0, "config_version": 0, "pinned_config": 0}
    known = {name: value for name, value in fields.items() if hasattr(thing, name)}
    changed = replace(thing, **known)
    if getattr(changed, "actions", None) and not isinstance(changed.actions, int):
        changed = replace(changed, actions=tuple(numberless(action) for action in changed.actions))
    if hasattr(changed, "payload"):
        changed = replace(changed, payload=numberless(changed.payload))
    return changed


@pytest.fixture(scope="module")
def runs():
    return {enabled: run(enabled) for enabled in (True, False)}


def test_every_other_strand_is_the_same(runs):
    """Whatever is not learning's own: as many, in the same order, with the same content."""
    logs = {on: [numberless(s) for s in log if s.kind not in LEARNING] for on, (log, _) in runs.items()}
    told = [s for s in logs[True] if s.kind == "shadows_closed"]
    rest = [s for s in logs[True] if s.kind != "shadows_closed"]

    assert len(told) > 5
    assert {"position_closed", "uptrend_buy_window", "uptrend_episode_summary"} <= {s.kind for s in rest}
    assert rest == logs[False]


@pytest.mark.parametrize("table", BOOK)
def test_every_table_of_the_book_is_the_same(runs, table):
    """Money, positions, trades, orders, curators, coefficients, observations: a shadow touches none of them."""
    assert runs[True][1][table] == runs[False][1][table]


def test_the_tables_are_not_empty(runs):
    filled = {name for name in BOOK if runs[True][1][name]}
    assert {"positions", "memory", "orders", "trades", "decisions", "curators", "accounts", "observations"} <= filled
