"""F10 in the real system: the phase and the flag-only model trade, tell why, and leave the regime to the market."""

from __future__ import annotations

import dataclasses

import pytest
from tests.flow import world

from edgebook.adapters.memory import MemoryStore
from edgebook.market.appetite_models import Exposure, exposed
from edgebook.runtime.bootstrap import trading_rules
from edgebook.runtime.replay import rebuild
from edgebook.runtime.scheduler import run_simulated

TOLD = ("active_trades", "cut_pressure", "token_age_hours", "token_mcap_usd")


def run(days=2.0, stops=(), **change):
    """(strands, snapshots, differences of a rebuild) of some days under these settings, interrupted at ``stops``."""
    settings, store = world.settings_for("memory", **change), MemoryStore()
    for stop in (*stops, days):
        with world.opened(store, settings, world.sim_feed()) as system:
            run_simulated(system, system.tape.start + int(stop * world.DAY))
            system.commit()
    with store.reader() as uow:
        different = rebuild(uow, trading_rules(settings, ["1m"]), world.EAGER).differences
        return list(uow.log.read(0)), {s.id: dict(s.content) for s in uow.snapshots.values()}, different


@pytest.fixture(scope="module")
def phased():
    """Two days under the phase model."""
    return run(appetite_model="phases")


def test_the_phase_model_tells_what_it_was_told_of_the_book_and_token(phased):
    """Every action has the four inputs; A and E follow from them, the snapshot and the intent."""
    strands, snapshots, different = phased
    actions = [s for s in strands if s.kind == "pm_action"]
    assert len({s.payload.reasons["active_trades"] for s in actions}) > 2
    assert len({round(s.payload.reasons["cut_pressure"], 6) for s in actions}) > 10
    for strand in actions:
        reasons = strand.payload.reasons
        exposure = Exposure(*(reasons[name] for name in TOLD))
        assert 0.0 <= exposure.cut_pressure <= 1.0
        assert reasons["a_regime"] == snapshots[strand.regime_snapshot_id]["a_base"]
        calm = dataclasses.replace(exposure, cut_pressure=0.0)
        assert exposed((0.5, 0.5), exposure, (0.0, 0.0), 1.0)[0] <= exposed((0.5, 0.5), calm, (0.0, 0.0), 1.0)[0]
    assert different == ()


def test_the_regime_knows_nothing_of_the_book(phased):
    """Another book (a tenth of the money, nothing learned): where both keep a snapshot of one moment it is the same."""
    _, other, _ = run(appetite_model="phases", starting_cash_usd=10_000, learning_enabled=False)
    shared = phased[1].keys() & other.keys()
    assert len(shared) > 50
    assert all(phased[1][ident] == other[ident] for ident in shared)
    assert not any("pressure" in name or "active" in name for content in other.values() for name in content)


def test_interrupted_or_not_the_phase_model_trades_the_same(phased):
    """Cut pressure looks two days back: a restart finds it from the tables."""
    assert [s.hash for s in run(appetite_model="phases", stops=(0.6, 1.1))[0]] == [s.hash for s in phased[0]]


def test_the_flag_model_trades_and_asks_nothing_of_the_book(short_run):
    """Its log differs from the default's, its actions name no cut pressure."""
    strands, _, different = run(appetite_model="flags")
    assert strands[-1].hash != short_run.head
    actions = [s for s in strands if s.kind == "pm_action"]
    assert len({s.payload.a_base for s in actions}) > 3
    assert not any("cut_pressure" in s.payload.reasons for s in actions)
    assert different == ()


def test_the_default_is_the_driver_model(short_run):
    """Named or not: one log."""
    assert run(appetite_model="driver")[0][-1].hash == short_run.head
