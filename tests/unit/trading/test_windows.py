"""Sampling: what a window keeps when it may not keep everything."""

from __future__ import annotations

from dataclasses import replace

from edgebook.domain.strands import WindowSample
from edgebook.trading.windows import keep_samples, lever_evidence


def sample(ts, u, blocked=("ts_min",)):
    return WindowSample(ts, False, 100.0, {"ts_with_boost": 0.6 + 0.1 * u}, {"ts_min": u}, blocked)


def test_first_last_entry_and_the_deciding_sample_are_kept():
    """Room for four: first, last, entry bar, and the one closest to the gate."""
    samples = [sample(i, u) for i, u in enumerate((-5, -4, -0.1, -4, -4, -4, -5))]
    assert [s.ts for s in keep_samples(samples, 4, entry_ts=4)] == [0, 2, 4, 6]


def test_knot_crossings_come_before_the_rest():
    """Where |u| crosses .25, .5, .75 or 1 is kept before plain repetition."""
    us = (-2.0, -2.0, -2.0, -0.9, -0.9, -0.6, -0.6, -0.6)
    kept = keep_samples([sample(i, u) for i, u in enumerate(us)], 4)
    assert [s.ts for s in kept] == [0, 3, 5, 7]


def test_pruning_bar_by_bar_never_loses_the_deciding_sample():
    """Law: the closest sample with all other gates passed survives every prefix."""
    us = [-2 + 0.37 * (i * 7 % 11) for i in range(60)]
    kept: tuple[WindowSample, ...] = ()
    for i, u in enumerate(us):
        kept = keep_samples((*kept, sample(i, u)), 5)
        best = min(abs(v) for v in us[: i + 1])
        assert min(abs(s.margins["ts_min"]) for s in kept) == best
        assert (kept[0].ts, kept[-1].ts) == (0, i)


def test_a_sample_blocked_by_another_gate_does_not_decide():
    """Decisions 28: u counts only where all other gates pass."""
    samples = [sample(0, -0.1, ("ts_min", "halo")), sample(1, -0.8)]
    (evidence,) = lever_evidence(samples, "s1_entry", "1h")
    assert evidence.margin == -0.8
    assert lever_evidence(samples[:1], "s1_entry", "1h") == ()


def test_robustness_is_the_share_on_the_same_side():
    """Three of four samples fail: confidence .75."""
    samples = [sample(0, -0.2), sample(1, 0.5, ()), sample(2, -0.9), sample(3, -0.3)]
    (evidence,) = lever_evidence(samples, "s1_entry", "1h")
    assert (evidence.margin, evidence.confidence) == (-0.2, 0.75)


def test_the_first_bar_that_the_gates_let_pass_is_kept():
    """It is the one a shadow buys on; with four samples too, and pruned bar by bar."""
    samples = [sample(ts, -0.5) for ts in range(1, 25)]
    samples[3] = replace(samples[3], flag_on=True, blocked_by=())
    samples[20] = replace(samples[20], flag_on=True, blocked_by=())
    assert 4 in [s.ts for s in keep_samples(samples, 4)]
    step = ()
    for one in samples:
        step = keep_samples((*step, one), 4)
    assert 4 in [s.ts for s in step]
