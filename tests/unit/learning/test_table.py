"""The columnar trade table says exactly what a row-by-row reading would, and so do the statistics made from it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.evidence import Observation, StatRow
from edgebook.domain.scope import ScopeSchema, scope_hash
from edgebook.learning.config import DEFAULT
from edgebook.learning.lessons import FamilyInput, build_lessons, slice_stats
from edgebook.learning.table import TradeTable

KEY = "module=pm|pattern_key=a.b.c"
NAMES = ("first", "second", "third")


def make(rows):
    """A table of rows (rr, hours held, token code, code per dim)."""
    n = len(rows)
    opened = np.arange(n, dtype=np.int64) * 5 * HOUR
    closed = opened + np.array([int(held * HOUR) for _, held, *_ in rows], dtype=np.int64)
    levels = ("a", "b", "c")
    dims = {name: (levels, np.array([row[3 + i] for row in rows], dtype=np.int64)) for i, name in enumerate(NAMES)}
    return TradeTable(
        np.array([f"t{i}" for i in range(n)], dtype=object), opened, closed,
        np.array([row[0] for row in rows], dtype=float), np.array([row[2] for row in rows], dtype=np.int64),
        opened // DAY, dims,
    )  # fmt: skip


def naive(rows):
    """The scope of each row, as a dict."""
    return [{name: "abc"[code] for name, code in zip(NAMES, row[3:], strict=True) if code >= 0} for row in rows]


codes = st.integers(-1, 2)
tables = st.lists(st.tuples(st.floats(-3, 10), st.floats(0, 100), st.integers(-1, 3), codes, codes, codes), max_size=60)


def same(one, other):
    """Whether two tables say the same row by row, whatever the numbers of their levels."""
    assert [decoded(one, i) for i in range(len(one))] == [decoded(other, i) for i in range(len(other))]


def decoded(table, i):
    """One row, levels and tokens in words."""
    dims = {name: levels[codes[i]] for name, (levels, codes) in table.dims.items() if codes[i] >= 0}
    return (table.unit_id[i], table.opened_at[i], table.closed_at[i], table.y[i], table.day[i], dims)


def observations(rows):
    """The rows as the log's projection keeps them."""
    return [
        Observation(
            "pm", KEY, "entry", f"t{i}", i * 5 * HOUR + int(row[1] * HOUR), i * 5 * HOUR, row[0], 0.0, 0.0, 1.0,
            "" if row[2] < 0 else f"s{row[2]}", i * 5 * HOUR // DAY, scope, int(row[1] * HOUR) / DAY,
            1 / (1 + int(row[1] * HOUR) / DAY), exit_y=None if i % 2 else row[0] / 2,
        )
        for i, (row, scope) in enumerate(zip(rows, naive(rows), strict=True))
    ]  # fmt: skip


@given(tables)
def test_observations_become_columns(rows):
    """Row by row what each observation says: absent dims and unknown tokens are -1, unknown exit outcomes NaN."""
    table = TradeTable.of(observations(rows), ScopeSchema("user", NAMES))

    same(table, make(rows))
    assert list(table.dims) == list(NAMES)
    assert len(table) == len(rows)
    tokens = table.token.tolist()
    for i, row in enumerate(rows):
        assert (tokens[i] < 0) == (row[2] < 0)
        for j in range(i):
            assert row[2] < 0 or (tokens[i] == tokens[j]) == (row[2] == rows[j][2])
        assert (math.isnan(table.exit_y[i])) == bool(i % 2)
        assert i % 2 or table.exit_y[i] == row[0] / 2
    assert table.efficiency == pytest.approx(make(rows).efficiency)
    assert table.efficiency == pytest.approx([1 / (1 + int(row[1] * HOUR) / DAY) for row in rows])


def test_values_keep_their_type():
    """Rank 1 and rank "1" are two levels; a dim of the schema that no trade has is there, without levels."""
    made = observations([(0.0, 1.0, 0, 0, 0, 0)] * 3)
    scopes = [{"first": 1}, {"first": "1"}, {}]
    typed = [replace(o, scope=scope) for o, scope in zip(made, scopes, strict=True)]
    table = TradeTable.of(typed, ScopeSchema("user", ("first", "second")))

    assert table.dims["first"][0] == (1, "1")
    assert [code.tolist() for _, code in table.dims.values()] == [[0, 1, -1], [-1, -1, -1]]
    assert table.inside((("first", 1),)).tolist() == [True, False, False]
    assert table.dims["second"][0] == ()


@given(tables)
def test_slices_and_their_statistics_are_those_counted_row_by_row(rows):
    """Trades inside, n, mean, variance, win rate, time efficiency and baseline of every slice of at most two dims, and
    of one that no trade is in."""
    table, scopes = make(rows), naive(rows)
    family = FamilyInput("pm", KEY, "entry", table)
    slices = {part for scope in scopes for k in (0, 1, 2) for part in combinations(scope.items(), k)}
    for part in slices | {(), (("first", "nowhere"),), (("unknown", "x"),)}:
        hit = [set(part) <= set(scope.items()) for scope in scopes]
        inside = [row for row, one in zip(rows, hit, strict=True) if one]
        stats = slice_stats(f"pm|{KEY}|entry", family, part, DEFAULT)
        assert table.inside(part).tolist() == hit
        assert stats["n"] == len(inside)
        assert stats["baseline"] == pytest.approx(sum(row[0] for row in rows) / (len(rows) + 10))
        if inside:
            y = np.array([row[0] for row in inside])
            efficiency = np.mean([1 / (1 + int(row[1] * HOUR) / DAY) for row in inside])
            assert stats["avg_rr"] == pytest.approx(y.mean(), abs=1e-9)
            assert stats["variance"] == pytest.approx(y.var(), abs=1e-9)
            assert stats["win_rate"] == pytest.approx((y > 0).mean())
            assert stats["time_efficiency"] == pytest.approx(efficiency)
            delta, calm = y.mean() - stats["baseline"], 1 / (1 + y.var())
            seed = delta * calm * math.log(1 + len(y)) * ((0.5 + 0.5 * efficiency) + 1 + 0.5) / 3 * calm
            assert stats["edge_raw"] == pytest.approx(seed, abs=1e-9)
        else:
            assert (stats["avg_rr"], stats["edge_raw"], stats["time_efficiency"]) == (0.0, 0.0, None)


def planted(n=400, seed=3):
    """Rows whose first dim is worth 1.5 R where it is ``a``."""
    rng = np.random.default_rng(seed)
    made = rng.integers(-1, 3, (n, 3))
    return [
        (float(rng.normal() + 1.5 * (c[0] == 0)), 2.0, int(rng.integers(0, 5)), *c.tolist()) for c in made
    ]  # fmt: skip


def _rows(table):
    """The statistics rows of root and of slices of one and two dims, as the aggregator stores them."""
    made = {}
    codes = [table.dims[name][1].tolist() for name in NAMES]
    found = {
        part
        for i in range(len(table))
        for k in (0, 1, 2, 3)
        for part in combinations([(n, "abc"[c[i]]) for n, c in zip(NAMES, codes, strict=True) if c[i] >= 0], k)
    }
    for part in found:
        hit = table.inside(part)
        y = table.y[hit]
        stats = {
            "sum_rr": y.sum(),
            "avg_rr": y.mean(),
            "variance": y.var(),
            "win_rate": (y > 0).mean(),
            "time_efficiency": table.efficiency[hit].mean(),
        }
        row = StatRow("pm", KEY, "entry", 0, scope_hash(dict(part)), dict(part), len(y), stats, 0, 0)
        made[row.key] = row
    return made


def test_lessons_do_not_depend_on_who_counted():
    """With stored statistics, with those counted from the table, from columns or observations: the same lessons."""
    rows, schema = planted(), ScopeSchema("user", NAMES)
    table = make(rows)
    ways = [
        FamilyInput("pm", KEY, "entry", table),
        FamilyInput("pm", KEY, "entry", table, _rows(table).get),
        FamilyInput("pm", KEY, "entry", TradeTable.of(observations(rows), schema)),
    ]

    one, *others = (
        build_lessons("pm", {f"pm|{KEY}|entry": f}, {}, [], 0, schemas={"pm": schema}).lessons for f in ways
    )

    assert len(one) >= 3
    for other in others:
        assert [lesson.id for lesson in one] == [lesson.id for lesson in other]
        for a, b in zip(one, other, strict=True):
            assert a.stats.keys() == b.stats.keys()
            for name in ("n", "avg_rr", "variance", "win_rate", "time_efficiency", "baseline", "edge_raw", "effect"):
                assert a.stats[name] == pytest.approx(b.stats[name], abs=1e-9), name


def test_taking_rows_takes_all_columns():
    """By mask and by place; levels stay, and what is not there stays away."""
    rows = planted(20)
    table = make(rows)
    full = TradeTable.of(observations(rows), ScopeSchema("user", NAMES))

    mask = np.arange(20) % 3 == 0
    assert table.take(mask).unit_id.tolist() == [f"t{i}" for i in range(0, 20, 3)]
    for one in (table, full):
        back = one.take(np.array([5, 2]))
        assert len(back) == 2
        assert [decoded(back, 0), decoded(back, 1)] == [decoded(one, 5), decoded(one, 2)]
        assert back.token.tolist() == one.token[[5, 2]].tolist()
        assert {name: levels for name, (levels, _) in back.dims.items()} == {
            name: levels for name, (levels, _) in one.dims.items()
        }
    assert table.take(mask).exit_y is None
    assert full.take(np.array([5, 2])).exit_y[1] == full.exit_y[2]
    assert full.take(np.array([5, 2])).efficiency.tolist() == full.efficiency[[5, 2]].tolist()
