"""The state machine is the table of engine.md 2, and nothing else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.domain.reading import EXIT_REASONS
from edgebook.engine.states import STATE_NAMES, next_state, order_flags

# EMA20, 30, 60, 144, 250, 333 in some telling orders
FALLING = (90.0, 91.0, 92.0, 93.0, 94.0, 95.0)
RISING = (110.0, 109.0, 108.0, 107.0, 106.0, 105.0)
FAST_UP_SLOW_DOWN = (100.0, 99.0, 98.0, 103.0, 104.0, 105.0)
ALL_BELOW_UNORDERED = (93.0, 92.0, 91.0, 94.0, 92.5, 95.0)
FAST_AT_BOTTOM = (90.0, 90.5, 96.0, 97.0, 95.0, 94.0)


def step(state, price, emas, *, global_exit=False, bootstrap_s3=False):
    """(state name, exit reason) after one bar."""
    code, reason = next_state(
        STATE_NAMES.index(state), price, emas[2], emas[5], order_flags(*emas), global_exit, bootstrap_s3
    )
    return STATE_NAMES[code], EXIT_REASONS[reason]


@pytest.mark.parametrize(
    ("state", "price", "emas", "after", "reason"),
    [
        ("S4", 80.0, FALLING, "S0", ""),
        ("S4", 120.0, RISING, "S4", ""),
        ("S4", 100.0, FAST_UP_SLOW_DOWN, "S4", ""),
        ("S0", 99.0, FAST_UP_SLOW_DOWN, "S1", ""),
        ("S0", 98.0, FAST_UP_SLOW_DOWN, "S0", ""),  # price == EMA60
        ("S0", 120.0, FALLING, "S0", ""),
        ("S0", 200.0, RISING, "S1", ""),  # never straight to S2
        ("S1", 120.0, FALLING, "S0", "s1_to_s0_bearish_order"),  # before the test against EMA333
        ("S1", 106.0, FAST_UP_SLOW_DOWN, "S2", ""),
        ("S1", 105.0, FAST_UP_SLOW_DOWN, "S1", ""),  # price == EMA333
        ("S1", 120.0, RISING, "S2", ""),  # never straight to S3
        ("S2", 104.0, RISING, "S1", ""),  # price before order
        ("S2", 105.0, RISING, "S3", ""),
        ("S2", 105.0, FAST_UP_SLOW_DOWN, "S2", ""),
        ("S2", 96.0, FALLING, "S2", ""),  # S2 never falls to S0
        ("S3", 80.0, ALL_BELOW_UNORDERED, "S0", "all_emas_below_333"),
        ("S3", 80.0, FAST_UP_SLOW_DOWN, "S0", "all_emas_below_333"),
        ("S3", 80.0, RISING, "S3", ""),  # a close below EMA333 alone is an emergency, not a change
        ("S1", 90.0, FAST_AT_BOTTOM, "S1", ""),  # the zombie primer
    ],
)
def test_each_line_of_the_table(state, price, emas, after, reason):
    """First hit wins; one transition per bar."""
    assert step(state, price, emas) == (after, reason)


@pytest.mark.parametrize("state", ["S1", "S2", "S3"])
def test_the_global_exit_is_a_switch_that_goes_before_everything(state):
    """Off, the fast band at the bottom changes nothing; on, it ends the attempt."""
    assert step(state, 94.5, FAST_AT_BOTTOM)[1] == ""
    assert step(state, 94.5, FAST_AT_BOTTOM, global_exit=True) == ("S0", "fast_band_at_bottom")
    assert step("S0", 94.5, FAST_AT_BOTTOM, global_exit=True) == ("S0", "")
    assert step("S4", 94.5, FAST_AT_BOTTOM, global_exit=True) == ("S4", "")


def test_drivers_may_start_in_a_running_trend():
    """bootstrap_s3 opens S4 -> S3 on full order, and only that."""
    assert step("S4", 120.0, RISING, bootstrap_s3=True) == ("S3", "")
    assert step("S4", 120.0, FAST_UP_SLOW_DOWN, bootstrap_s3=True) == ("S4", "")
    assert step("S4", 120.0, FALLING, bootstrap_s3=True) == ("S0", "")


ALLOWED = {("S4", "S0"), ("S0", "S1"), ("S1", "S0"), ("S1", "S2"), ("S2", "S1"), ("S2", "S3"), ("S3", "S0")}


@given(
    state=st.sampled_from(STATE_NAMES),
    price=st.floats(50, 150),
    emas=st.tuples(*[st.integers(90, 110).map(float)] * 6),
)
def test_no_other_transition_exists(state, price, emas):
    """Whatever the averages, a state changes along the table or stays; an exit reason means S0."""
    after, reason = step(state, price, emas)
    assert after == state or (state, after) in ALLOWED
    assert bool(reason) == (after == "S0" and state in ("S1", "S3"))


@given(emas=st.tuples(*[st.integers(95, 105).map(float)] * 6))
def test_order_predicates_are_strict_and_consistent(emas):
    """Plain re-statement of engine.md 2; full orders imply their parts and exclude each other."""
    e20, e30, e60, e144, e250, e333 = emas
    fast_up, s0_order, s3_order, all_below, bottom = order_flags(*emas)
    slow = [e60, e144, e250, e333]
    assert fast_up == (min(e20, e30) > e60)
    assert s0_order == (max(e20, e30) < e60 and all(a < b for a, b in itertools.pairwise(slow)))
    assert s3_order == (min(e20, e30) > e60 and all(a > b for a, b in itertools.pairwise(slow)))
    assert all_below == (max(emas[:5]) < e333)
    assert bottom == (max(e20, e30) < min(slow))
    assert not (s0_order and s3_order)
    assert not s0_order or (all_below and bottom)
