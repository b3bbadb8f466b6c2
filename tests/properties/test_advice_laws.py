"""Laws of advice: it is the textbook blend of what matches, row by row, whatever else is asked beside it."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tables import trades

import edgebook
from edgebook.domain.decay import HOUR

DIMS = ("side", "bucket", "mood")
VALUES = {
    "side": ["long", "short", None, "never seen"],
    "bucket": ["micro", "mid", "big", "", "Unknown"],
    "mood": ["0", "1", "2", None],
}
contexts = st.lists(st.tuples(*(st.sampled_from(VALUES[dim]) for dim in DIMS)), max_size=30)


@cache
def learnt() -> edgebook.Overrides:
    """Lessons of one and of two dims and the centre, from 900 trades."""
    made = trades(900, seed=2)
    rng = np.random.default_rng(77)
    made["mood"] = rng.integers(0, 3, 900)
    apart = [(side == "short") != (mood == 1) for side, mood in zip(made["side"], made["mood"], strict=True)]
    made["rr"] = made["rr"] + np.where(apart, 1.0, -1.0)
    found = edgebook.learn(made, DIMS)
    assert {len(row["scope"]) for row in found.lessons()} >= {1, 2}
    return found


def columns(rows):
    """Rows as a dict of columns."""
    return {dim: [row[i] for row in rows] for i, dim in enumerate(DIMS)}


def textbook(found, row, at):
    """exp of the decayed log targets, each by its conviction, of every lesson whose scope the context contains, clipped
    (decisions 13)."""
    present = {dim: value for dim, value in zip(DIMS, row, strict=True) if value not in (None, "", "Unknown")}
    total = 0.0
    for lesson in found.learnt.lessons:
        if all(present.get(dim) == value for dim, value in lesson.scope_values.items()):
            age = max(0.0, at // HOUR - lesson.evidence_at / HOUR)
            asked = lesson.stats["conviction"] * math.log(lesson.effect["capital_levers"]["size_mult"])
            total += asked * 2 ** (-age / lesson.decay_halflife_hours)
    return min(1.5, max(0.5, math.exp(total)))


@given(contexts, st.integers(0, 2000))
@settings(max_examples=60)
def test_advice_is_the_textbook_blend(rows, hours):
    """Every match takes part, evidence fades by its half-life, the bounds hold; many rows or one."""
    found = learnt()
    at = found.at + hours * HOUR

    advice = found.advise(columns(rows), at=at)

    assert len(advice) == len(rows)
    np.testing.assert_allclose(advice.multiplier, [textbook(found, row, at) for row in rows], rtol=1e-9)
    for text, multiplier in zip(advice.because, advice.multiplier, strict=True):
        assert multiplier == 1.0 or text != "no lesson matches"


@given(contexts.filter(bool), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_company_does_not_matter(rows, random):
    """Alone, shuffled or twice: a context has one answer and one because."""
    found = learnt()
    order = [random.randrange(len(rows)) for _ in range(2 * len(rows))]

    whole, mixed = found.advise(columns(rows)), found.advise(columns([rows[i] for i in order]))
    alone = found.advise(dict(zip(DIMS, rows[0], strict=True)))

    assert mixed.multiplier.tolist() == [whole.multiplier[i] for i in order]
    assert mixed.because == [whole.because[i] for i in order]
    assert (alone.multiplier[0], alone.because[0]) == (whole.multiplier[0], whole.because[0])
