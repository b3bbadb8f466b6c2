"""Channel 3 end to end on a market with a known answer (trading.md 8, F5 and F6): the real system, its jobs, its log;
only states and scores are scripted, through the one seam (decisions 37)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from bench.planted_gates import DAY, HOUR, Market, World, gates_of, run

from edgebook.domain.levers import LEVERS
from edgebook.learning.config import LearningConfig

DAYS = 30


@dataclass(frozen=True)
class FarWorld(World):
    """Chances differ only where they are farther from the gate than its cap."""

    def success(self, u: float, regime: str) -> float:
        return (0.9 if u > 0 else 0.05) if abs(u) > 1.0 else 0.343


@pytest.fixture(scope="module")
def learnt():
    """Thirty days in which TS should be a cap lower in Good and a cap higher in Dip, steeply."""
    market = Market(World("ts_min", (-1.0, 1.0), steep=0.5), 3, DAYS)
    return market, run(market, LearningConfig())


def windows(desk, phase):
    return [s.payload for s in desk.uow.log.read(0, ["uptrend_buy_window"]) if s.scope["macro_phase"] == phase]


def test_missed_winners_loosen_the_gate_and_losers_near_it_tighten_it(learnt):
    """F6: the gate in force goes down where chances below it won, up where chances above it lost."""
    market, desk = learnt
    good, dip = gates_of(desk, "ts_min", market.end)
    assert good < 0.58
    assert dip > 0.62


def test_learned_gates_flip_the_flag_both_ways_and_leave_the_base_flag(learnt):
    """F5: in Dip bars with the base flag up were not bought, in Good bars with the base flag down were."""
    _, desk = learnt
    shut = [w for w in windows(desk, "Dip") if not w.entered and any(s.flag_base and not s.flag_on for s in w.samples)]
    let_in = [w for w in windows(desk, "Good") if w.entered and any(s.flag_on and not s.flag_base for s in w.samples)]
    assert len(shut) > 10
    assert len(let_in) > 10
    assert all(w.blocked_by == () and w.thresholds_effective["ts_min"] > 0.6 for w in shut)
    assert all(w.thresholds_effective["ts_min"] < 0.6 for w in let_in)


def test_the_actions_that_a_learned_gate_let_through_say_so(learnt):
    """Every entry below the base threshold names the override that moved it, and its version."""
    _, desk = learnt
    bought = [
        s for s in desk.uow.log.read(0, ["pm_action"]) if s.payload.rule == 5 and not s.payload.reasons["flag_base"]
    ]
    assert len(bought) > 10
    for strand in bought:
        (nudge,) = [n for n in strand.payload.nudges if n.lever == "ts_min"]
        assert nudge.applied < nudge.base == 0.6
        assert nudge.matched
        assert strand.config_version > 0


def test_an_open_trade_keeps_what_it_was_opened_with_and_the_ledger_holds(learnt):
    """Nothing else was moved: all trades closed or open, no dead letter, no failed job."""
    _, desk = learnt
    assert len(desk.uow.dead_letters) == 0
    assert {run.status for run in desk.uow.runs.values()} == {"ok"}
    assert all(s.payload.thresholds_effective["halo"] == 1.0 for s in desk.uow.log.read(0, ["pm_action"]))


def test_evidence_far_from_the_gate_moves_nothing():
    """F6: chances beyond the cap win or lose as they may; the gate stays at its base in both regimes."""
    market = Market(FarWorld("ts_min", (0.0, 0.0)), 4, DAYS)
    assert gates_of(run(market, LearningConfig()), "ts_min", market.end) == (0.6, 0.6)


class TurningMarket(Market):
    """After twenty days the other way round."""

    def world_at(self, now):
        return self.world if now < self.start + 20 * DAY else World("ts_min", (1.0, -1.0), steep=0.5)


def test_a_gate_whose_evidence_has_turned_goes_back():
    """F5: once what had moved it is outweighed, the lesson moves less or is deprecated, and the gate relaxes to its
    base (or beyond), a step at a time."""
    market = TurningMarket(World("ts_min", (-1.0, 1.0), steep=0.5), 3, 60)
    desk = run(market, LearningConfig())
    dip = [gates_of(desk, "ts_min", market.start + day * DAY)[1] for day in range(1, 61)]
    assert max(dip[:25]) > 0.62
    assert dip[-1] <= 0.6
    hourly = [gates_of(desk, "ts_min", market.start + hour * HOUR)[1] for hour in range(24, 60 * 24)]
    assert max(abs(b - a) for a, b in pairwise(hourly)) <= LEVERS["ts_min"].step + 1e-9
