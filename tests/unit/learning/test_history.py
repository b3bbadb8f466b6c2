"""Edge history: what a slice's row said at the end of each day, against rows that an aggregator held then."""

from __future__ import annotations

import random

import pytest

from edgebook.domain.decay import DAY
from edgebook.domain.errors import LearningError
from edgebook.domain.evidence import family_key
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY
from edgebook.domain.scope import scope_hash
from edgebook.learning.config import LearningConfig
from edgebook.learning.history import Snapshot, edge_history

FAMILY = family_key("pm", S1_ENTRY.key, "entry")


def _closes(make, seed, days):
    draw = random.Random(seed)
    made = []
    for day in range(days):
        for i in range(draw.choice((0, 1, 1, 4))):
            scope = {
                "macro_phase": draw.choice(("Good", "Dip")),
                "bucket": draw.choice(("micro", "mid")),
                "bucket_rank_position": draw.randint(1, 2),
                "timeframe": draw.choice(("1h", "4h")),
            }
            name = f"t{day}.{i}"
            rr = round(draw.gauss(0.1, 1.2), 3)
            made.append(make.closed(name, rr, actions=(make.action(scope=scope),), day=day, position=name))
    return made


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("config", [LearningConfig(), LearningConfig(baseline_pseudo_trades=3.0)])
def test_a_history_is_the_rows_that_were_held_at_the_end_of_each_day(make, seed, config):
    """Every slice of every day it changed on, bit for bit: count, edge against the baseline known then, mean."""
    store, held = make.Store(), {}
    for strand in _closes(make, seed, 25):
        for row in store.run([strand], config=config).stats:
            day = strand.ts_event // DAY
            said = Snapshot(day, row.n, row.stats["edge_raw"], row.stats["avg_rr"])
            held.setdefault(tuple(row.scope_values.items()), {})[day] = said

    assert len(held) > 50
    for items, by_day in held.items():
        assert edge_history(store.observations.values(), items, config) == tuple(by_day.values())


def test_a_slice_without_trades_has_no_history(make):
    """Nothing is known of it on any day."""
    store = make.Store()
    store.run(_closes(make, 9, 5))

    assert edge_history(store.observations.values(), (("timeframe", "15m"),)) == ()
    assert edge_history((), ()) == ()


def test_a_late_trade_counts_on_the_day_it_closed(make):
    """As known now: the days after it are told with it, and days come in order."""
    store = make.Store()
    days = (0, 5, 2)
    store.run([make.closed(f"t{day}", float(day), day=day, position=f"p{day}") for day in days])
    found = edge_history(store.observations.values(), ())

    assert [(s.day, s.n, s.avg_rr) for s in found] == [(1, 1, 0.0), (3, 2, 1.0), (6, 3, pytest.approx(7 / 3))]


def test_a_decision_is_told_once_as_its_positions_are_known_now(make):
    """Two positions of one decision, closed on two days: one observation, on the day of the later."""
    store = make.Store()
    store.decisions["d1"] = make.decision("d1", allocation=4.0)
    for day, rr, position in ((0, 2.0, "p1"), (3, -1.0, "p2")):
        store.run([make.closed(f"t{day}", rr, decision="d1", position=position, allocation=2.0, day=day)])
    family = family_key("dm", DM_ALLOCATION.key, "allocation")
    found = edge_history([o for o in store.observations.values() if o.family == family], ())
    row = store.stats[f"{family}|{scope_hash(())}"]

    assert found == (Snapshot(4, 1, row.stats["edge_raw"], 0.5),)


def test_two_families_have_no_common_history(make):
    """The baseline is a family's own."""
    exits = make.action("exit", "module=pm|pattern_key=uptrend.S0.exit")
    store = make.Store()
    store.run([make.closed("t", 1.0, actions=(make.action(), exits))])

    with pytest.raises(LearningError, match="of one family"):
        edge_history(store.observations.values(), ())
