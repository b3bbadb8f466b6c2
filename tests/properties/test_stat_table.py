"""The statistics table in columns, against rows added to one by one in a plain dict, through every way back."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgebook.adapters.codec import encode_row
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.tables import SPECS
from edgebook.domain.errors import PortError, StrandError
from edgebook.domain.evidence import StatRow
from edgebook.domain.scope import PM_SCHEMA, scope_hash
from edgebook.learning.slices import slice_of

FAMILIES = (("pm", "module=pm|pattern_key=a", "entry"), ("pm", "module=pm|pattern_key=a", "add"))
SPEC = SPECS["stats"]
reals = st.floats(-5, 5).map(lambda v: round(v, 3))
scopes = st.fixed_dictionaries(
    {},
    optional={
        "macro_phase": st.sampled_from(["Good", "Dip"]),
        "bucket_rank_position": st.integers(1, 2),
        "timeframe": st.sampled_from(["1h", "4h"]),
        "A_mode": st.just("normal"),
    },
).map(lambda scope: tuple((dim, scope[dim]) for dim in PM_SCHEMA.dims if dim in scope))
changes = st.tuples(
    st.just(1), reals, reals.map(abs), st.integers(0, 1), reals, reals, reals, reals, st.integers(0, 99)
)


def naive(past, change, base):
    """One row's statistics with one change added, by the book."""
    n = past["n"] + change[0]
    sums = dict(
        zip(
            ("sum_rr", "sum_rr_squared", "n_win", "sum_roi", "pnl_usd", "sum_time_efficiency", "sum_hold_days"),
            change[1:8],
            strict=True,
        )
    )
    stats = {name: past[name] + value for name, value in sums.items()}
    mean = stats["sum_rr"] / n
    variance = max(0.0, stats["sum_rr_squared"] / n - mean * mean)
    pace = stats["sum_time_efficiency"] / n
    shrink = 1.0 / (1.0 + variance)
    edge = (mean - base) * shrink * shrink * math.log1p(n) * (0.5 + 0.5 * pace + 1.0 + 0.5) / 3.0
    return stats | {
        "n": n, "avg_rr": mean, "variance": variance, "win_rate": stats["n_win"] / n, "avg_roi": stats["sum_roi"] / n,
        "time_efficiency": pace, "avg_hold_days": stats["sum_hold_days"] / n, "edge_raw": edge, "baseline": base,
        "last_ts": max(past["last_ts"], change[8]), "tuning": past["tuning"],
    }  # fmt: skip


ONE = (1, 1.0, 1.0, 1, 0.0, 0.0, 0.0, 0.0, 1)
ZERO = {
    "n": 0, "sum_rr": 0.0, "sum_rr_squared": 0.0, "avg_rr": 0.0, "variance": 0.0, "n_win": 0, "win_rate": 0.0,
    "sum_roi": 0.0, "avg_roi": 0.0, "pnl_usd": 0.0, "sum_time_efficiency": 0.0, "time_efficiency": None,
    "sum_hold_days": 0.0, "avg_hold_days": 0.0, "edge_raw": 0.0, "baseline": 0.0, "last_ts": 0, "tuning": {},
}  # fmt: skip


def row_of(family, items, stats, created, updated):
    part = slice_of("pm", items)
    return StatRow(*family, part.mask, part.hash, dict(items), stats["n"], stats, created, updated)


class StatTableAgainstRows(RuleBasedStateMachine):
    """Keys in order of first insertion, rows equal to the last bit, whatever is undone in between."""

    @initialize()
    def open(self):
        self.store, self.clock = MemoryStore(), 0
        self.context = self.store.writer()
        self.uow = self.context.__enter__()
        self.model, self.kept, self.marked = {}, {}, None

    def teardown(self):
        self.context.__exit__(None, None, None)

    def _add(self, family, items, change):
        self.clock += 1
        self.uow.stats.add(family, items, 3, change, self.clock, 10.0)
        base = None
        for size in range(min(3, len(items)) + 1):
            for subset in combinations(items, size):
                row = row_of(family, subset, ZERO, self.clock, self.clock)
                old = self.model.get(row.key, row)
                if base is None:
                    base = (old.stats["sum_rr"] + change[1]) / (old.n + change[0] + 10.0)
                stats = naive(old.stats, change, base)
                self.model[row.key] = row_of(family, subset, stats, old.created_at, self.clock)

    def _tune(self, family, items, value):
        self.clock += 1
        self.uow.stats.tune(family, slice_of("pm", items), {"s1_entry": {"x": value}}, self.clock)
        row = row_of(family, items, ZERO, self.clock, self.clock)
        old = self.model.get(row.key, row)
        stats = {**old.stats, "tuning": {"s1_entry": {"x": value}}}
        self.model[row.key] = replace(old, stats=stats, updated_at=self.clock)

    @rule(family=st.sampled_from(FAMILIES), items=scopes, change=changes)
    def add(self, family, items, change):
        self._add(family, items, change)

    @rule(family=st.sampled_from(FAMILIES), items=scopes, value=reals)
    def tune(self, family, items, value):
        self._tune(family, items, value)

    @rule(data=st.data())
    def put_of_another_release(self, data):
        """Statistics with a name of their own are kept, and can be added to."""
        if self.model:
            key = data.draw(st.sampled_from(sorted(self.model)))
            row = replace(self.model[key], stats={**self.model[key].stats, "edge_raw": 7.5, "more": [1]})
            self.uow.stats.put(row)
            self.model[key] = row

    @rule(data=st.data())
    def delete(self, data):
        if self.model:
            key = data.draw(st.sampled_from(sorted(self.model)))
            self.uow.stats.delete(key)
            del self.model[key]

    @rule()
    def commit(self):
        changes = self.uow.stats.changes()
        if changes is not None:
            assert list(changes.records) == [SPEC.record(r, no, encode_row(r)) for r, no, _ in changes.puts]
        self.uow.commit()
        self.kept, self.marked = dict(self.model), None

    @rule()
    def rollback(self):
        self.uow.rollback()
        self.model, self.marked = dict(self.kept), None

    @rule()
    def savepoint(self):
        self.uow.savepoint()
        self.marked = dict(self.model)

    @rule()
    def undo(self):
        if self.marked is not None:
            self.uow.undo()
            self.model, self.marked = self.marked, None

    @rule(family=st.sampled_from(FAMILIES), items=scopes, change=changes)
    def fail(self, family, items, change):
        before = dict(self.model)
        with pytest.raises(ZeroDivisionError):
            self._fail_after_writing(family, items, change)
        self.model = before

    def _fail_after_writing(self, family, items, change):
        with self.uow.attempt():
            self._add(family, items, change)
            self._tune(family, items, 1.0)
            raise ZeroDivisionError

    @rule()
    def reopen(self):
        """What is not committed is lost; the order outlives the process."""
        self.context.__exit__(None, None, None)
        self.context = self.store.writer()
        self.uow = self.context.__enter__()
        self.model, self.marked = dict(self.kept), None

    @invariant()
    def same_rows_in_the_same_order(self):
        table = self.uow.stats
        assert list(table.values()) == list(self.model.values())
        assert len(table) == len(self.model)
        for family in FAMILIES:
            prefix = "|".join(family)
            mine = [row for key, row in self.model.items() if key.startswith(prefix + "|")]
            assert list(table.values(prefix + "|")) == mine
            assert list(table.tuned(prefix)) == [row for row in mine if row.stats["tuning"]]
        for key, row in self.model.items():
            assert table.get(key) == row
            assert table.tuning(key) == row.stats["tuning"]
        with self.store.reader() as reader:
            assert list(reader.stats.values()) == list(self.kept.values())
            assert [r.key for r in reader.stats.tuned("|".join(FAMILIES[0]))] == [
                key for key, row in self.kept.items() if row.family == "|".join(FAMILIES[0]) and row.stats["tuning"]
            ]


StatTableAgainstRows.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStatTableAgainstRows = StatTableAgainstRows.TestCase


@pytest.mark.parametrize("way", ["rollback", "undo"])
def test_what_was_deleted_comes_back_in_its_place(way):
    """Deleted, put again at the end, and undone: the old row stands where it stood."""
    with MemoryStore().writer() as uow:
        for number in range(3):
            uow.stats.add((*FAMILIES[0][:1], f"k{number}", "entry"), (), 3, ONE, 1, 10.0)
        uow.commit()
        rows = list(uow.stats.values())
        uow.savepoint()
        uow.stats.delete(rows[0].key)
        uow.stats.put(replace(rows[0], updated_at=5))
        uow.stats.delete(rows[1].key)
        assert [row.pattern_key for row in uow.stats.values()] == ["k2", "k0"]
        getattr(uow, way)()
        assert list(uow.stats.values()) == rows
        uow.stats.add(("pm", "k1", "entry"), (), 3, ONE, 2, 10.0)
        assert [row.n for row in uow.stats.values()] == [1, 2, 1]


def test_a_reader_adds_nothing():
    """Statistics are added to by the writer; a reader says so."""
    with MemoryStore().reader() as uow:
        assert uow.stats.tuning("pm|x|entry|" + scope_hash(())) == {}
        with pytest.raises(PortError, match="this is a reader"):
            uow.stats.add(FAMILIES[0], (), 3, (1, 1.0, 1.0, 1, 0.0, 0.0, 0.0, 0.0, 1), 1, 10.0)


def test_a_sum_beyond_all_numbers_is_refused_with_the_row_and_the_field():
    """Nothing is written, and the message names where it is; the sums themselves were finite."""
    with MemoryStore().writer() as uow:
        uow.stats.add(FAMILIES[0], (), 3, (1, 1e200, math.inf, 1, 0.0, 0.0, 0.0, 0.0, 1), 1, 10.0)
        with pytest.raises(
            StrandError, match=r"stats row 'pm\|module=pm\|pattern_key=a\|entry\|.*stats\..* is (inf|nan)"
        ):
            uow.commit()
