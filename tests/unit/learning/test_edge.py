"""Edge and lever formulas against hand-computed numbers."""

from __future__ import annotations

import math

import pytest

from edgebook.domain.errors import LearningError
from edgebook.domain.levers import LEVERS
from edgebook.learning.config import LearningConfig
from edgebook.learning.edge import capital_levers, edge_raw, log_target, total_log


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        # delta .5, var 1: .5 * .5 * .5 * ln 11 * (1 + 1 + .5)/3
        ({"avg_rr": 0.6, "variance": 1.0, "n": 10, "base": 0.1}, 0.125 * math.log(11) * 2.5 / 3),
        # time efficiency .4 -> t .7; field coherence .2 -> f .6; recurrence 1 -> r .5 + .5 tanh 1
        (
            {
                "avg_rr": -1.0,
                "variance": 0.0,
                "n": 1,
                "base": 0.0,
                "time_efficiency": 0.4,
                "field_coherence": 0.2,
                "recurrence": 1.0,
            },
            -math.log(2) * (0.7 + 0.6 + 0.5 + 0.5 * math.tanh(1.0)) / 3,
        ),
        ({"avg_rr": 5.0, "variance": 0.0, "n": 0, "base": 0.0}, 0.0),
    ],
)
def test_edge_raw_is_the_reference_formula(inputs, expected):
    """delta * coherence * support * (t+f+r)/3 * var_mult (learning.md 3)."""
    assert edge_raw(**inputs) == pytest.approx(expected, abs=1e-12)


def test_a_true_lesson_visibly_moves_its_lever():
    """+.2 R is x1.22 in all, -.2 R x.82 (facts 4): no dead lever, and bounds are reachable."""
    up, down = (capital_levers("allocation", t, 1.0)["alloc_mult"] for t in (0.2, -0.2))

    assert (up, down) == (pytest.approx(1.2214, abs=1e-4), pytest.approx(0.8187, abs=1e-4))
    assert capital_levers("allocation", 0.5, 1.0)["alloc_mult"] == pytest.approx(1.3)
    assert capital_levers("allocation", -0.5, 1.0)["alloc_mult"] == pytest.approx(0.7)


@pytest.mark.parametrize("theta", [-9.0, -0.3, -0.01, 0.0, 0.05, 0.4, 9.0])
@pytest.mark.parametrize("category", ["entry", "add"])
def test_size_and_aggression_share_one_total(category, theta):
    """Three quarters of the log to size, a quarter to entry aggression; together the clipped total, inside their
    bounds."""
    levers = capital_levers(category, theta, 2.0)
    total = min(math.log(1.5), max(math.log(0.5), 2.0 * theta))

    assert total_log(levers) == pytest.approx(total)
    assert math.log(levers["size_mult"]) == pytest.approx(0.75 * total)
    assert levers["exit_aggression_mult"] == 1.0
    assert all(LEVERS[k].lo - 1e-12 <= v <= LEVERS[k].hi + 1e-12 for k, v in levers.items())


def test_trim_moves_only_exit_aggression_and_exits_have_no_lever():
    """A trim never changes size; a full exit reads no lever, so asking for one is an error (decisions 21)."""
    levers = capital_levers("trim", 0.1, 1.0)

    assert levers["exit_aggression_mult"] == pytest.approx(math.exp(0.1))
    assert levers["size_mult"] == levers["entry_aggression_mult"] == 1.0
    with pytest.raises(LearningError, match="category 'exit' has no lever"):
        capital_levers("exit", 0.1, 1.0)


def test_kappa_doubles_once_claimed():
    """1 per R for candidates, 2 once claimed (decisions 51)."""
    config = LearningConfig()

    assert log_target(0.1, "size_mult", config.kappa(True)) == 2 * log_target(0.1, "size_mult", config.kappa(False))
