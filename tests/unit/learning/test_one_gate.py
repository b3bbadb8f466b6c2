"""One gate per build, and no chance moves two of them: what one move has shut out is not the next one's credit."""

from __future__ import annotations

import pytest
from tests.chances import SCOPE, attempt, chance

from edgebook.domain.evidence import family_key
from edgebook.domain.pattern import S1_ENTRY
from edgebook.learning.tuning import build_tuning

FAMILY = family_key("pm", S1_ENTRY.key, "entry")


class Key:
    """A key with its statistics, its lessons and its fit, built again and again as the job does it."""

    def __init__(self, make):
        self.store, self.lessons, self.fits, self.builds, self.seen = make.Store(), {}, {}, 0, 0

    def see(self, count, margins, value, phase="Good"):
        """So many attempts of one chance each, worth ``value`` by each of its gates."""
        scope = {**SCOPE, "macro_phase": phase}
        one = chance(margins, values=dict.fromkeys(margins, value), scope=scope)
        self.store.run([attempt(f"a{self.seen + i}", [one], self.seen + i + 1) for i in range(count)])
        self.seen += count

    def build(self):
        """One build; targets per slice that is not deprecated."""
        self.builds += 1
        rows = [row for row in self.store.stats.values() if row.family == FAMILY]
        built = build_tuning(rows, self.lessons.values(), self.builds, fits=self.store.fits | self.fits)
        self.lessons |= {lesson.id: lesson for lesson in built.lessons}
        self.fits |= {fit.family: fit for fit in built.fits}
        return {
            tuple(lesson.scope_values.items()): targets
            for lesson in self.lessons.values()
            if lesson.status == "active" and (targets := lesson.effect["execution_levers"]["signal_thresholds"])
        }


@pytest.fixture
def key(make):
    return Key(make)


def test_the_same_losers_tighten_one_gate_however_often_it_is_built(key):
    """300 chances worth -1 R just inside three gates: one move keeps them out, the other gates have no cause."""
    key.see(60, dict.fromkeys(("ts_min", "halo", "slope_min"), 2.0), 0.1)
    key.see(300, {"ts_min": 0.1, "halo": 0.1, "slope_min": 0.1}, -1.0)
    found = [key.build() for _ in range(4)]
    assert len(found[0][()]) == 1
    assert found == [found[0]] * 4


def test_what_is_seen_beside_the_moved_gate_moves_the_next(key):
    """After the first move 300 more losers come that only the other gate could have kept out."""
    key.see(60, dict.fromkeys(("ts_min", "halo"), 2.0), 0.1)
    key.see(300, {"ts_min": 0.1, "halo": 0.1}, -1.0)
    (first,) = key.build()[()]
    (other,) = {"ts_min", "halo"} - {first}
    key.see(60, {other: 2.0}, 0.1)
    key.see(300, {other: 0.1}, -1.0)
    assert set(key.build()[()]) == {first, other}


def test_a_gate_stays_where_it_stands_when_another_has_moved(key):
    """Its older evidence is set aside; new evidence moves it on from there, or back."""
    key.see(60, dict.fromkeys(("ts_min", "halo"), 2.0), 0.1)
    key.see(300, {"ts_min": 0.1}, -1.0)
    stood = key.build()[()]["ts_min"]
    key.see(60, {"halo": 2.0}, 0.1)
    key.see(300, {"halo": 0.1}, -1.0)
    both = key.build()[()]
    assert both["ts_min"] == stood > 0.6
    assert both["halo"] < 1.0
    key.see(300, {"ts_min": 0.1}, 2.0)
    assert key.build().get((), {}).get("ts_min", 0.6) == pytest.approx(0.6)


def test_of_equal_evidence_the_boost_of_a_level_moves_before_ts(key):
    """Missed chances with a level near, TS barely short: the ceiling of the boost goes up first (learning.md 4)."""
    key.see(300, {"ts_min": -0.1, "sr_boost": -0.1}, 1.0)
    found = [key.build() for _ in range(3)]
    assert found[0][()]["sr_boost"] > 0.25
    assert found == [found[0]] * 3


def test_a_slice_refuses_what_its_root_asks(key):
    """300 chances below the base worth +2 R in Dip, 100 worth -2 R in Good: the root loosens, and Good stays."""
    key.see(60, {"ts_min": 2.0}, 0.1, "Dip")
    key.see(60, {"ts_min": 2.0}, 0.1, "Good")
    key.see(300, {"ts_min": -0.1}, 2.0, "Dip")
    key.see(100, {"ts_min": -0.1}, -2.0, "Good")
    found = key.build()

    def total(phase):
        return sum(t.get("ts_min", 0.6) - 0.6 for items, t in found.items() if set(items) <= {("macro_phase", phase)})

    assert total("Dip") < -0.01
    assert total("Good") == pytest.approx(0.0)


def test_a_build_that_moves_nothing_sets_nothing_aside(key):
    """Too few chances: nothing moves, and all of them still count later."""
    key.see(9, {"ts_min": 0.1}, -1.0)
    assert key.build() == {}
    assert "tuning_since" not in key.fits[FAMILY].detail
    key.see(60, {"ts_min": 2.0}, 0.1)
    key.see(291, {"ts_min": 0.1}, -1.0)
    assert set(key.build()[()]) == {"ts_min"}
