"""Episodes and windows over hand-built bar sequences: all outcomes, void, partial, near misses, blocked, who
entered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgebook.trading.rules import EpisodeRules


def summaries(world):
    return [s.payload for s in world.kinds("uptrend_episode_summary")]


def windows(world):
    return [s.payload for s in world.kinds("uptrend_buy_window")]


def near_miss(world, **kw):
    """S1, in the zone, TS .55: .05 short of the gate."""
    return world.bar("S1", 100.0, **({"ts_score": 0.55} | kw))


def to_s3(world):
    world.bar("S2", 110.0)
    world.bar("S3", 112.0)


# ---------------------------------------------------------------- s1_entry


def test_entered_and_reached_s3_is_a_success(world):
    world.s1_buy()
    to_s3(world)
    (s1,) = summaries(world)
    assert (s1.episode_type, s1.outcome, s1.entered) == ("s1_entry", "success", True)
    assert windows(world)[0].entry_strand_id == world.kinds("pm_action")[0].id


def test_entered_and_fallen_back_is_a_failure(world):
    world.s1_buy()
    world.bar("S1", 97.0)
    world.over("S1")
    assert summaries(world)[0].outcome == "failure"


def test_a_near_miss_that_reached_s3_was_missed(world):
    """F6: zone touched, TS too low, later S3: missed, and the window says ts_min was .5 caps short and alone in the
    way."""
    near_miss(world)
    to_s3(world)
    (s1,) = summaries(world)
    assert (s1.outcome, s1.entered) == ("missed", False)
    (window,) = s1.windows
    assert (window.window_kind, window.outcome, window.blocked_by) == ("near_miss", "missed", ())
    evidence = {e.lever: e for e in window.levers}
    assert set(evidence) == {"ts_min"}
    ts = evidence["ts_min"]
    assert (ts.margin, ts.delta, ts.severity) == pytest.approx((-0.5, -0.05, 0.5))
    assert (ts.value, ts.threshold) == pytest.approx((0.55, 0.60))
    assert (ts.direction, ts.sole_blocker, ts.confidence) == ("loosen", True, 1.0)


def test_a_near_miss_that_fell_back_was_rightly_skipped(world):
    near_miss(world)
    world.bar("S1", 90.0)
    world.over("S1")
    (s1,) = summaries(world)
    assert (s1.outcome, s1.windows[0].outcome, s1.windows[0].levers[0].direction) == (
        "correct_skip",
        "correct_skip",
        "hold",
    )


def test_an_entry_just_inside_the_gate_that_failed_pulls_it_tighter(world):
    """Failure with 0 <= u < 1 tightens; u is taken at the entry bar."""
    world.bar("S1", 100.3, ts_score=0.62)
    world.bar("S1", 97.0)
    world.over("S1")
    evidence = {e.lever: e for e in summaries(world)[0].windows[0].levers}
    assert evidence["ts_min"].margin == pytest.approx(0.2)
    assert evidence["ts_min"].direction == "tighten"
    assert evidence["halo"].margin == pytest.approx(3.5)
    assert evidence["halo"].direction == "hold"


def test_s1_s2_flips_close_the_window_not_the_episode(world):
    """Inside an attempt the episode goes on; only S3 or S0 ends it."""
    near_miss(world)
    world.bar("S2", 110.0)
    near_miss(world)
    world.bar("S2", 110.0)
    assert (len(windows(world)), summaries(world)) == (2, [])
    world.bar("S3", 112.0)
    assert [w.index for w in windows(world)] == [0, 1]
    assert len(summaries(world)[0].windows) == 2


def test_the_zone_decides_when_a_window_is_open(world):
    """Decisions 28: |p - e60| <= 1.5 ATR, whatever the gates say."""
    world.bar("S1", 101.5)
    world.bar("S1", 101.51)
    world.bar("S1", 98.5)
    world.bar("S1", 98.49)
    assert [(w.bars, w.window_kind) for w in windows(world)] == [(1, "near_miss"), (1, "near_miss")]


def test_a_window_is_told_once_with_no_outcome_while_none_is_known(world):
    near_miss(world)
    world.bar("S1", 105.0)
    (window,) = windows(world)
    assert window.outcome == ""
    to_s3(world)
    assert len(windows(world)) == 1


def test_windows_after_the_entry_are_blocked_by_the_rule(world):
    """The attempt's one entry is used: later windows say so and do not vote."""
    world.s1_buy()
    world.bar("S1", 105.0)
    near_miss(world)
    to_s3(world)
    first, second = summaries(world)[0].windows
    assert (first.entered, first.blocked_by) == (True, ())
    assert (second.entered, second.blocked_by, second.outcome) == (False, ("s1_used",), "success")


def test_an_order_that_came_to_nothing_blocks_the_window(world):
    """Entered is a fact of the fill: a refused order leaves the window unentered and says why."""
    world.refuse = "rejected"
    world.s1_buy()
    world.bar("S1", 105.0)
    (window,) = windows(world)
    assert (window.entered, window.window_kind, window.blocked_by) == (False, "signal", ("order_failed",))


def test_confidence_is_shared_among_the_windows_of_an_episode(world):
    """Robustness times the share of the episode's bars: 1 of 4 and 3 of 4."""
    near_miss(world)
    world.bar("S1", 105.0)
    for ts in (0.55, 0.58, 0.57):
        near_miss(world, ts_score=ts)
    to_s3(world)
    first, second = (w.levers[0] for w in summaries(world)[0].windows)
    assert (first.confidence, second.confidence) == (0.25, 0.75)
    assert second.margin == pytest.approx(-0.2)


# ---------------------------------------------------------------- s3_retest


def in_s3(world):
    near_miss(world)
    to_s3(world)


def test_entered_then_trimmed_is_a_success(world):
    in_s3(world)
    world.dx_buy()
    world.bar("S3", 105.0)
    world.trim(110.0)
    world.bar("S3", 108.0)
    world.over("S3")
    s3 = summaries(world)[1]
    assert (s3.episode_type, s3.outcome, s3.windows[0].outcome) == ("s3_retest", "success", "success")


def test_entered_then_emergency_is_a_failure(world):
    in_s3(world)
    world.dx_buy()
    world.emergency()
    world.bar("S3", 99.0)
    world.trim(110.0)
    world.over("S3")
    s3 = summaries(world)[1]
    assert (s3.outcome, s3.windows[0].outcome) == ("failure", "failure")


def test_entered_then_s0_is_a_failure(world):
    in_s3(world)
    world.dx_buy()
    world.bar("S3", 105.0)
    world.over("S3")
    assert summaries(world)[1].outcome == "failure"


def test_skipped_then_a_virtual_trim_was_missed(world):
    """A trim nobody held tokens for still shows what the dip was worth."""
    in_s3(world)
    world.bar("S3", 96.0, ts_score=0.7, dx=0.50)
    world.bar("S3", 105.0)
    world.trim(110.0)
    assert world.actions == []
    world.over("S3")
    s3 = summaries(world)[1]
    assert (s3.outcome, s3.windows[0].outcome) == ("missed", "missed")
    evidence = {e.lever: e for e in s3.windows[0].levers}
    required = 0.60 - (0.15 * (98 - 96) / 3 - 0.05)
    assert evidence["dx_min"].threshold == pytest.approx(required)
    assert evidence["dx_min"].margin == pytest.approx((0.50 - required) / 0.10)


def test_skipped_then_emergency_or_s0_was_rightly_skipped(world):
    in_s3(world)
    world.bar("S3", 96.0, dx=0.3)
    world.emergency()
    world.bar("S3", 99.0)
    world.trim(110.0)
    world.bar("S3", 97.0, dx=0.3)
    world.over("S3")
    s3 = summaries(world)[1]
    assert [w.outcome for w in s3.windows] == ["correct_skip", "correct_skip"]
    assert s3.outcome == "correct_skip"


def test_two_virtual_trims_need_the_trim_rules_distance(world):
    """Virtual trims obey the cooldown: after one has judged a skipped window, the next flag at its level judges
    nothing."""
    in_s3(world)
    world.bar("S3", 97.0, dx=0.3)
    world.trim(110.0)
    world.bar("S3", 97.0, dx=0.3)
    world.trim(110.0)
    world.over("S3")
    assert [w.outcome for w in summaries(world)[1].windows] == ["missed", "correct_skip"]


def test_a_trim_before_the_window_is_no_virtual_trim(world):
    """Who skipped a window holds nothing before it: an earlier trim flag neither judges it nor starts its cooldown."""
    in_s3(world)
    world.trim(110.0)
    world.bar("S3", 97.0, dx=0.3)
    world.trim(110.0)
    world.over("S3")
    assert summaries(world)[1].windows[0].outcome == "missed"


def test_the_hallway_is_the_zone(world):
    """S3: e333 <= p <= e144."""
    in_s3(world)
    for price in (98.0, 98.01, 95.0, 100.0):
        world.bar("S3", price, dx=0.3)
    assert [w.bars for w in windows(world)[1:]] == [1, 1]


def test_s3_windows_say_what_rule_was_missing(w):
    """Armed and pool empty is takeable; once used up, not_armed."""
    world = w.World()
    in_s3(world)
    world.dx_buy()
    world.bar("S3", 105.0)
    world.bar("S3", 96.0, dx=0.3)
    world.over("S3")
    first, second = summaries(world)[1].windows
    assert first.blocked_by == ()
    assert second.blocked_by == ("no_pool", "not_armed")


# ---------------------------------------------------------------- void, partial, margins


def test_a_gap_voids_the_episode(world):
    """More than 3 missing bars: closed as void, windows too, and not reopened within the attempt."""
    near_miss(world)
    world.bar("S1", 100.0, gap=4)
    (s1,) = summaries(world)
    assert (s1.outcome, s1.windows[0].outcome, windows(world)[0].outcome) == ("void", "void", "void")
    near_miss(world)
    to_s3(world)
    assert len(summaries(world)) == 1
    world.over("S3")
    assert [s.episode_type for s in summaries(world)] == ["s1_entry", "s3_retest"]


def test_a_gap_of_three_bars_is_bridged(world):
    near_miss(world)
    near_miss(world, gap=3)
    to_s3(world)
    assert summaries(world)[0].outcome == "missed"


def test_an_episode_whose_start_was_not_seen_is_partial(w):
    """Created in S3: partial, and the next one is whole."""
    world = w.World()
    world.bars.append(w.reading("S3", w.T0))
    world.bar("S3", 97.0, dx=0.3)
    world.over("S3")
    (s3,) = summaries(world)
    assert s3.partial
    near_miss(world)
    world.bar("S1", 90.0)
    world.over("S1")
    assert not summaries(world)[1].partial


def test_sr_boost_votes_only_where_a_boost_decides(world):
    """TS .5 + .4*.25 = .6 passes by the boost: its margin is that of TS with boost; without a boost it has none."""
    world.bar("S1", 100.0, ts_score=0.52, sr_strength_anchor=0.4)
    world.bar("S1", 105.0)
    margins = windows(world)[0].samples[0].margins
    assert margins["sr_boost"] == margins["ts_min"] == pytest.approx(0.2)
    near_miss(world)
    world.bar("S1", 105.0)
    assert windows(world)[1].samples[0].margins["sr_boost"] is None


def test_edx_votes_only_where_there_is_suppression(world):
    in_s3(world)
    world.bar("S3", 96.0, ts_score=0.7, dx=0.6, edx_suppression=0.05)
    world.bar("S3", 96.0, ts_score=0.7, dx=0.6)
    world.bar("S3", 105.0)
    first, second = windows(world)[1].samples
    assert first.margins["edx_supp_mult"] == first.margins["dx_min"]
    assert second.margins["edx_supp_mult"] is None


def test_missing_inputs_say_nothing(world):
    """A NaN slope blocks with missing_input and gives no evidence about any gate."""
    world.bar("S1", 100.0, ts_score=0.7, ema60_slope=float("nan"))
    world.bar("S1", 105.0)
    (window,) = windows(world)
    assert window.samples[0].margins["slope_min"] is None
    assert window.levers == ()
    assert window.samples[0].values["slope"] is None


def test_slope_margins_scale_with_the_timeframe(w, world):
    """Caps of slope gates are per sqrt(timeframe): .002 at 1h."""
    world.bar("S1", 100.0, ema60_slope=-0.001, ema144_slope=-0.002, ts_score=0.7)
    world.bar("S1", 105.0)
    assert windows(world)[0].samples[0].margins["slope_min"] == pytest.approx(-0.5)


def test_windows_keep_twelve_samples(world):
    """Thirty bars in the zone: 12 samples, first and last among them, bars counted in full."""
    for i in range(30):
        near_miss(world, ts_score=0.30 + 0.005 * i)
    world.bar("S1", 105.0)
    (window,) = windows(world)
    assert (window.bars, len(window.samples)) == (30, 12)
    first, last = window.samples[0].values["ts_score"], window.samples[-1].values["ts_score"]
    assert (first, last) == pytest.approx((0.30, 0.445))
    assert window.summary["ts_with_boost"]["max"] == pytest.approx(0.445)
    assert window.levers[0].margin == pytest.approx(-1.55)


def test_fewer_samples_are_a_setting(w):
    world = w.World(rules=replace(w.PLAIN, episodes=EpisodeRules(max_samples=4)))
    for _ in range(9):
        near_miss(world)
    world.bar("S1", 105.0)
    assert len(windows(world)[0].samples) == 4


def test_window_scope_is_the_scope_at_its_start(w, world):
    """Decisions 30: windows carry their own scope, the summary the scope at opening."""
    near_miss(world)
    world.bar("S1", 105.0)
    strand = world.kinds("uptrend_buy_window")[0]
    assert strand.scope["timeframe"] == "1h"
    assert (strand.payload.pattern_key, strand.payload.action_category) == (
        "module=pm|pattern_key=uptrend.S1.buy_flag",
        "entry",
    )
    assert strand.episode_id


def test_memory_drops_samples_once_told(world):
    """The checkpoint stays small: closed windows keep their evidence, not their samples."""
    near_miss(world)
    world.bar("S1", 105.0)
    (episode,) = world.memory.episodes
    assert episode.windows[0].samples == ()
    assert episode.windows[0].levers
