"""The match index and the match weight."""

from __future__ import annotations

import math

import pytest

from edgebook.domain.decay import HOUR
from edgebook.overrides.match import MatchIndex, conviction, group, overlap_shares, weight
from edgebook.overrides.record import Override

KEY = "module=pm|pattern_key=uptrend.S1.buy_flag"


def rule(lesson_id, scope=(), **fields):
    given = {"lesson_type": "pm_strength", "pattern_key": KEY, "action_category": "entry", **fields}
    return Override(
        lesson_id,
        given.pop("lesson_type"),
        given.pop("pattern_key"),
        given.pop("action_category"),
        scope,
        given.pop("targets", {"size_mult": 1.1}),
        given.pop("half_life_hours", 720.0),
        given.pop("evidence_at", 0),
        **given,
    )


def test_every_rule_inside_the_scope_matches():
    """No most-specific-wins: root, one dim and two dims all match; a missing dim or another value does not."""
    index = MatchIndex(
        [
            rule("root"),
            rule("one", (("bucket", "nano"),)),
            rule("two", (("bucket", "nano"), ("timeframe", "1h"))),
            rule("other", (("bucket", "mega"),)),
            rule("absent", (("A_mode", "normal"),)),
        ]
    )
    found = index.matches((("bucket", "nano"), ("timeframe", "1h")))
    assert sorted(o.lesson_id for o in found) == ["one", "root", "two"]
    assert [o.lesson_id for o in index.matches(())] == ["root"]


@pytest.mark.parametrize("value", ["1", True, 1.0])
def test_values_match_with_their_type(value):
    """Rank 1 is not rank "1", True or 1.0."""
    index = MatchIndex([rule("l", (("bucket_rank_position", 1),))])
    assert index.matches((("bucket_rank_position", value),)) == []
    assert len(index.matches((("bucket_rank_position", 1),))) == 1


def test_muted_rules_never_match():
    """``enabled`` false takes an override out."""
    assert MatchIndex([rule("l", enabled=False)]).matches(()) == []


def test_an_empty_index_matches_nothing():
    """No overrides, no matches, in any scope."""
    assert MatchIndex([]).matches((("bucket", "nano"),)) == []


def test_families_do_not_mix():
    """Lesson type, key and category each separate."""
    rules = [
        rule("a"),
        rule("b", action_category="add"),
        rule("c", pattern_key=KEY + "x"),
        rule("d", lesson_type="pm_tuning"),
    ]
    assert {family: [o.lesson_id for o in members] for family, members in group(rules).items()} == {
        ("pm_strength", KEY, "entry"): ["a"],
        ("pm_strength", KEY, "add"): ["b"],
        ("pm_strength", KEY + "x", "entry"): ["c"],
        ("pm_tuning", KEY, "entry"): ["d"],
    }


def test_weight_counts_evidence_and_breadth():
    """tanh(.5/.25) * (1 - e^-2) / (1 + 3) * (3/11)^.5, and half of it after one half-life."""
    stats = {"effect_total": -0.5, "n": 50, "variance": 3.0}
    o = rule("l", (("bucket", "nano"), ("timeframe", "1h")), stats=stats)
    expected = math.tanh(2) * (1 - math.exp(-2)) / 4 * math.sqrt(3 / 11)
    assert weight(o) == pytest.approx(expected, rel=1e-12)
    assert weight(o, 720 * HOUR) == pytest.approx(expected / 2, rel=1e-12)


def test_dm_weight_is_relative_to_thirteen_dims():
    """The specificity term uses the module's own number of dims."""
    stats = {"effect_total": 0.5, "n": 50}
    dm = rule("l", lesson_type="dm_alloc", stats=stats)
    assert weight(dm) / weight(rule("l", stats=stats)) == pytest.approx(math.sqrt(11 / 14), rel=1e-12)


def test_tuning_weight_uses_its_own_evidence():
    """A tuning lesson weighs by tuning_n and tuning_score; a standalone one has no variance."""
    stats = {"effect_total": 9.0, "n": 9999, "variance": 1.0, "tuning_n": 25, "tuning_score": 0.25}
    expected = math.tanh(1) * (1 - math.exp(-1)) * math.sqrt(1 / 11)
    assert weight(rule("l", lesson_type="pm_tuning", stats=stats)) == pytest.approx(expected / 2, rel=1e-12)
    alone = {**stats, "tuning_standalone": True}
    assert weight(rule("l", lesson_type="pm_tuning", stats=alone)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("stats", [{}, {"n": "x", "effect_total": None}, {"n": 10**400, "effect_total": float("nan")}])
def test_unreadable_statistics_weigh_nothing(stats):
    """P5: a weight is a number whatever the stats say."""
    assert weight(rule("l", stats=stats)) == 0.0


def test_lessons_of_the_same_trades_share_one_vote():
    """Two identical signatures halve each other, a half-overlapping pair gives 1 / 1.5, no signature no discount."""
    same, half = rule("a", stats={"overlap": [1, 2, 3, 4]}), rule("b", stats={"overlap": [1, 2, 9, 9]})
    assert overlap_shares([same, same]) == [0.5, 0.5]
    assert overlap_shares([same, half]) == pytest.approx([1 / 1.5] * 2)
    assert overlap_shares([same, rule("c")]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("told", "counts"),
    [({}, 1.0), (1.0, 1.0), (3.5, 3.5), (10.0, 10.0), (11.0, 10.0), (0.2, 1.0), (-4.0, 1.0), (7, 7.0),
     (float("nan"), 1.0), (float("inf"), 1.0), ("3", 1.0), (True, 1.0), (None, 1.0)],
)  # fmt: skip
def test_conviction_is_read_within_its_bounds(told, counts):
    """1 to 10 as the lesson says; what is missing or no number counts as 1."""
    assert conviction(rule("l", stats={} if told == {} else {"conviction": told})) == counts


def test_gates_have_no_conviction():
    """A threshold lesson counts once, whatever it says."""
    gate = rule("l", lesson_type="pm_tuning", targets={"ts_min": 0.7}, stats={"conviction": 5.0})
    assert conviction(gate) == 1.0
