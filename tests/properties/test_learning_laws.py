"""Laws of the learning side: order, partition and repetition of strands, symmetry and scale of fits."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.evidence import Observation
from edgebook.domain.levers import LEVERS
from edgebook.domain.pattern import S1_ENTRY, S3_RETEST
from edgebook.domain.scope import ScopeSchema
from edgebook.domain.strands import (
    DecisionLowcap,
    EpisodeSummary,
    LeverEvidence,
    PositionClosed,
    Strand,
    TradeAction,
    TradeSummary,
    WindowOutcome,
)
from edgebook.learning.aggregate import aggregate
from edgebook.learning.edge import capital_levers, total_log
from edgebook.learning.posterior import fit_family
from edgebook.learning.table import TradeTable

DM_KEY = "module=dm|pattern_key=dm_pattern.allocation.allocation"
SCHEMA = ScopeSchema("law", ("d0", "d1"))
SUMMARY = TradeSummary(
    0, 0, 1.0, 1.0, Decimal(1), Decimal(1), Decimal(0), Decimal(0), 0.0, 0.0, 0.0, False, 0.01, 0.0, 0.1, 0.1, "x", 1,
    1.0, "short", None, 0.5, 1.0, 1.0, 0.0, 0.0, "none", "none",
)  # fmt: skip
rr = st.floats(-3, 10, allow_nan=False).map(lambda v: round(v, 6))
phase = st.sampled_from(["Good", "Dip", "Chop"])


def _trade(i, y, first, macro):
    scope = {"macro_phase": macro, "timeframe": "1h"}
    done = TradeAction("a", 0, "entry", 5, S1_ENTRY.key, "entry", scope, "", 0, Decimal(1), 1.0, Decimal(0), 1.0, 1.0)
    summary = replace(SUMMARY, rr=y, roi=y / 10, entry_ts=i * HOUR, exit_ts=i * HOUR + DAY, hold_days=1.0 + i % 3)
    payload = PositionClosed("c", "k", f"d{i % 3}", "cur", first, 1.0 + i % 2, "exit", "exit", {}, summary, (done,))
    return Strand(f"s{i}", payload, 0, 0, "pm", "SOL", "1h", f"p{i}", f"t{i}")


def _episode(i, u, macro):
    scope = {"macro_phase": macro, "timeframe": "4h"}
    kinds = ("success", "failure") if u >= 0 else ("missed", "correct_skip")
    evidence = tuple(LeverEvidence(n, 0.6, 0.6 - u / 10, u / 10, u, abs(u), 0.5, "", True) for n in ("ts_min", "halo"))
    window = WindowOutcome("w", "signal", 0, 1, u >= 0, kinds[i % 2], (), scope, evidence)
    payload = EpisodeSummary("s1_entry", kinds[i % 2], u >= 0, False, 0, i, 1, S1_ENTRY.key, "entry", (window,))
    return Strand(f"e{i}", payload, 0, 0, "pm", scope=scope)


DECISIONS = {
    f"d{k}": Strand(
        f"d{k}",
        DecisionLowcap(
            "s", "c", "S", "c", "k", "approve", 6.0, 6.0, 1.0, 1.0, 1.0, 0.5, (), "", DM_KEY, "allocation", (), {}, {}
        ),
        0,
        0,
        "dm",
        scope={"curator": f"c{k}", "chain": "exchange"},
    )
    for k in range(3)
}


def _run(calls):
    stats, observations, fits = {}, {}, {}
    for strands in calls:
        out = aggregate(
            strands, stat=stats.get, observation=observations.get, decision=DECISIONS.get, fit=fits.get, now=1
        )
        assert not out.problems
        stats.update({r.key: r for r in out.stats})
        observations.update({r.key: r for r in out.observations})
        fits.update({r.key: r for r in out.fits})
    return stats, observations


@st.composite
def histories(draw):
    """A handful of trades (some under shared decisions) and episodes."""
    trades = draw(st.lists(st.tuples(rr, st.booleans(), phase), min_size=1, max_size=9))
    looks = draw(st.lists(st.tuples(st.floats(-1.5, 1.5).map(lambda v: round(v, 4)), phase), max_size=6))
    return [_trade(i, *t) for i, t in enumerate(trades)] + [_episode(i, *e) for i, e in enumerate(looks)]


@settings(max_examples=60, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_delivery_order_does_not_change_the_sums(history, draw):
    """Any order of strands gives the same sums in every row, to 1e-8 after rounding."""
    shuffled = list(history)
    draw.shuffle(shuffled)
    (one, seen), (other, again) = _run([history]), _run([shuffled])

    assert one.keys() == other.keys()
    assert seen.keys() == again.keys()
    for key, row in one.items():
        for name in ("n", "sum_rr", "sum_rr_squared", "sum_hold_days", "pnl_usd", "n_win", "last_ts"):
            assert math.isclose(row.stats[name], other[key].stats[name], abs_tol=1e-9)
        assert _close(row.stats["tuning"], other[key].stats["tuning"])


def _close(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_close, a, b))
    return math.isclose(a, b, abs_tol=1e-9)


@settings(max_examples=40, deadline=None)
@given(histories(), st.data())
def test_partition_into_calls_does_not_change_a_bit(history, data):
    """One call, or any cut into calls, gives identical rows: results depend on the log, not on the schedule."""
    cut = data.draw(st.integers(0, len(history)))

    assert _run([history]) == _run([history[:cut], history[cut:]]) == _run([[s] for s in history])


@settings(max_examples=40, deadline=None)
@given(histories())
def test_trades_delivered_twice_change_nothing(history):
    """A second delivery of every closed trade leaves all rows as they were."""
    trades = [s for s in history if s.kind == "position_closed"]

    assert _run([history]) == _run([history, trades, trades])


@given(st.floats(-20, 20), st.sampled_from([1.0, 2.0]), st.sampled_from(["allocation", "entry", "add", "trim"]))
def test_levers_stay_in_bounds_and_follow_the_sign(theta, kappa, category):
    """Any effect: every lever inside its table bounds, the total with the sign of the effect, 0 exactly neutral."""
    levers = capital_levers(category, theta, kappa)

    assert all(LEVERS[name].lo - 1e-12 <= value <= LEVERS[name].hi + 1e-12 for name, value in levers.items())
    assert total_log(levers) * theta >= 0
    assert total_log(capital_levers(category, 0.0, kappa)) == 0.0


@st.composite
def streams(draw):
    """60 observations with a strong effect of d0, at random days."""
    n = 60
    noise = draw(st.lists(st.floats(-1, 1).map(lambda v: round(v, 4)), min_size=n, max_size=n))
    days = sorted(draw(st.lists(st.integers(0, 40), min_size=n, max_size=n)))
    return [
        Observation(
            "pm", S3_RETEST.key, "add", f"t{i}", (days[i] + 1) * DAY, days[i] * DAY, noise[i] + 2.0 * (i % 3 == 0),
            0.0, 0.0, 1.0, f"s{i % 5}", days[i], {"d0": f"v{int(i % 3 == 0)}", "d1": f"v{i % 2}"}, 1.0, 0.5,
        )
        for i in range(n)
    ]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(streams())
def test_fits_are_symmetric_and_shrink(observations):
    """Mirrored outcomes mirror every effect; no slice is believed beyond what its own mean shows; shifts move only the
    mean."""
    fit, mirrored, moved = (
        fit_family(TradeTable.of([replace(o, y=sign * o.y + shift) for o in observations], SCHEMA), SCHEMA)
        for sign, shift in ((1, 0.0), (-1, 0.0), (1, 3.0))
    )

    assert fit.acts
    assert fit.groups == mirrored.groups == moved.groups
    for other in (mirrored, moved):
        assert other.lr == pytest.approx(fit.lr, abs=1e-6)
        assert other.effects.keys() == fit.effects.keys()
    for items, effect in fit.effects.items():
        assert math.isclose(effect.theta, -mirrored.effects[items].theta, abs_tol=1e-6)
        assert math.isclose(effect.theta, moved.effects[items].theta, abs_tol=1e-6)
        assert 0.0 <= effect.lfsr <= 0.5
        assert effect.se > 0
        assert abs(effect.theta) < 2.5
    assert math.isclose(fit.mean + 3.0, moved.mean, abs_tol=1e-6)
