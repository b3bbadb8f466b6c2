"""The columnar trade table gives the statistics exactly what a row-by-row reading would."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.scope import ScopeSchema, scope_hash
from edgebook.learning.lessons import FamilyInput, build_lessons
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


@given(tables)
def test_observations_say_what_the_columns_say(rows):
    """One a row, absent dims left out, a trade without a token standing for itself."""
    found = make(rows).observations("pm", KEY, "entry")

    assert [dict(o.scope) for o in found] == naive(rows)
    assert [o.y for o in found] == [row[0] for row in rows]
    assert [o.token for o in found] == ["" if row[2] < 0 else str(row[2]) for row in rows]
    assert [(o.opened_at, o.ts, o.day) for o in found] == [
        (i * 5 * HOUR, i * 5 * HOUR + int(row[1] * HOUR), i * 5 * HOUR // DAY) for i, row in enumerate(rows)
    ]
    assert [o.hold_days for o in found] == pytest.approx([int(row[1] * HOUR) / DAY for row in rows])


@given(tables)
def test_statistics_are_those_counted_row_by_row(rows):
    """n, mean, variance, win rate and time efficiency of every slice of at most two dims, five trades or more."""
    stat = make(rows).statistics("pm", KEY, "entry")
    scopes = naive(rows)
    slices = {frozenset(part) for scope in scopes for k in (0, 1, 2) for part in combinations(scope.items(), k)}
    for part in slices | {frozenset()}:
        inside = [row for row, scope in zip(rows, scopes, strict=True) if part <= set(scope.items())]
        row = stat(f"pm|{KEY}|entry|{scope_hash(dict(part))}")
        if len(inside) < 5 and part:
            assert row is None
            continue
        assert row is not None
        assert row.n == len(inside)
        assert dict(row.scope_values) == dict(part)
        if inside:
            y = np.array([r[0] for r in inside])
            efficiency = [1 / (1 + int(r[1] * HOUR) / DAY) for r in inside]
            assert row.stats["avg_rr"] == pytest.approx(y.mean(), abs=1e-9)
            assert row.stats["sum_rr"] == pytest.approx(y.sum(), abs=1e-9)
            assert row.stats["variance"] == pytest.approx(y.var(), abs=1e-9)
            assert row.stats["win_rate"] == pytest.approx((y > 0).mean())
            assert row.stats["time_efficiency"] == pytest.approx(np.mean(efficiency))
    assert stat("another family") is None


def planted(n=400, seed=3):
    """Rows whose first dim is worth 1.5 R where it is ``a``."""
    rng = np.random.default_rng(seed)
    made = rng.integers(-1, 3, (n, 3))
    return [
        (float(rng.normal() + 1.5 * (c[0] == 0)), 2.0, int(rng.integers(0, 5)), *c.tolist()) for c in made
    ]  # fmt: skip


def test_lessons_do_not_depend_on_who_counted():
    """With the table's statistics and with those counted from observations, the lessons are the same."""
    table, schema = make(planted()), {"pm": ScopeSchema("user", NAMES)}
    family = table.family("pm", KEY, "entry")
    counted = FamilyInput("pm", KEY, "entry", family.observations, lambda key: None)

    one, other = (build_lessons("pm", {"f": f}, {}, [], 0, schemas=schema).lessons for f in (family, counted))

    assert len(one) >= 3
    assert [lesson.id for lesson in one] == [lesson.id for lesson in other]
    for a, b in zip(one, other, strict=True):
        assert a.stats.keys() == b.stats.keys()
        for name in ("n", "avg_rr", "variance", "win_rate", "time_efficiency", "baseline", "edge_raw", "effect"):
            assert a.stats[name] == pytest.approx(b.stats[name], abs=1e-9), name


def test_taking_rows_takes_all_columns():
    """By mask and by place."""
    table = make(planted(20))

    mask = np.arange(20) % 3 == 0
    assert table.take(mask).unit_id.tolist() == [f"t{i}" for i in range(0, 20, 3)]
    back = table.take(np.array([5, 2]))
    assert len(back) == 2
    assert [o.unit_id for o in back.observations("pm", KEY, "entry")] == ["t5", "t2"]
    assert [dict(o.scope) for o in back.observations("pm", KEY, "entry")] == [
        dict(table.observations("pm", KEY, "entry")[i].scope) for i in (5, 2)
    ]
