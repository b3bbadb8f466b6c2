"""Votes on gates: silence on noise, the right direction where the margin really matters, nothing but active gates."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from edgebook.domain.evidence import Lesson, family_key
from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.pattern import S1_ENTRY
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.episodes import BANDS
from edgebook.learning.tuning import Payoff, build_tuning, episodes, score_lever, stands, tuning_due

FAMILY = family_key("pm", S1_ENTRY.key, "entry")
VOTES = LearningConfig(tuning_method="votes")


def _side(us, confidence=1.0):
    votes = [max(0.0, 1 - abs(u)) * confidence for u in us]
    return {"count": len(us), "votes": len(us), "vote": sum(votes), "vote2": sum(v * v for v in votes)}


def _world(seed, n, success, win_r, loss_r, spread=(-1.0, 1.0)):
    """Margins of a known spread, outcomes that do not depend on them; the sums and payoff a builder would see."""
    draw = random.Random(seed)
    us = {"success": [], "failure": [], "missed": [], "correct_skip": []}
    for _ in range(n):
        u, good = draw.uniform(*spread), draw.random() < success
        us[("success" if good else "failure") if u >= 0 else ("missed" if good else "correct_skip")].append(u)
    block = {
        "payoff": {
            "win": [len(us["success"]), win_r * len(us["success"])],
            "loss": [len(us["failure"]), -loss_r * len(us["failure"])],
        }
    }
    return {name: _side(v) for name, v in us.items()}, Payoff.of(block)


@pytest.mark.parametrize("success", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("spread", [(-1.0, 1.0), (-2.0, 0.5), (-0.3, 2.0)])
def test_outcome_independent_of_the_margin_scores_nothing(success, spread):
    """Expected value 0 at any success rate and any spread of margins: |score| below .05 (decisions 29)."""
    by_outcome, payoff = _world(1, 20_000, success, (1 - success) * 2, success * 2, spread)

    assert abs(score_lever("ts_min", by_outcome, payoff).score) < 0.05


@pytest.mark.parametrize("success", [0.1, 0.4, 0.9])
def test_a_losing_or_winning_market_moves_no_gate(success):
    """Expected value far from 0 but the same at every margin is the market's doing, not the gate's (decisions 61)."""
    by_outcome, payoff = _world(2, 20_000, success, 2.0, 1.0)

    assert abs(score_lever("ts_min", by_outcome, payoff).score) < 0.05


@pytest.mark.parametrize("lever", sorted(set(GATE_LEVERS["s1_entry"]) | set(GATE_LEVERS["s3_retest"])))
def test_failures_at_the_gate_tighten_and_missed_chances_loosen(lever):
    """Tightening is up for polarity +1 and down for -1; the target stays within cap and bounds."""
    payoff = Payoff(4 / 3, 2 / 3)
    far_wins, near_losses = _side([1.5] * 60), _side([0.1] * 60)
    tight = score_lever(lever, {"success": far_wins, "failure": near_losses}, payoff)
    loose = score_lever(
        lever, {"success": _side([0.5] * 10), "failure": _side([0.5] * 20), "missed": _side([-0.1] * 60)}, payoff
    )
    row = LEVERS[lever]

    assert tight.score > 0.3
    assert loose.score < -0.3
    assert tight.shift * row.polarity > 0
    assert loose.shift * row.polarity < 0
    assert all(abs(s.shift) <= row.cap + 1e-12 and row.lo <= row.base + s.shift <= row.hi for s in (tight, loose))


def test_far_evidence_has_no_voice():
    """Failures beyond the cap say nothing about the gate."""
    score = score_lever("ts_min", {"failure": _side([1.5] * 500)}, Payoff(4 / 3, 2 / 3))

    assert (score.score, score.support, score.shift) == (0.0, 0.0, 0.0)


def test_payoff_weights_sum_to_two_and_shrink_to_the_prior():
    """Ten pseudo-windows at 2 and 1: with 10 wins of 4 R, W = 3; with 30 losses of 1 R, L = 1."""
    payoff = Payoff.of({"payoff": {"win": [10, 40.0], "loss": [30, -30.0]}})

    assert (payoff.win, payoff.loss) == (pytest.approx(1.5), pytest.approx(0.5))


def test_the_guard_holds_at_every_look():
    """Votes of pure chance, looked at after each of 1,500: at most a tenth of 150 runs ever stand."""
    crossed = 0
    for seed in range(150):
        draw = random.Random(seed)
        gap = variance = 0.0
        for _ in range(1500):
            vote = draw.random()
            gap += vote * draw.choice((-1, 1))
            variance += vote * vote
            if stands(gap, variance):
                crossed += 1
                break
    assert crossed <= 15


def _store(make, seed, n, chance, scopes=({"macro_phase": "Good"},), levers=("ts_min", "halo")):
    """Episodes of one window each; ``chance(u, scope)`` is the probability of a good end."""
    draw = random.Random(seed)
    store, strands = make.Store(), []
    for i in range(n):
        scope = {**make.PM_SCOPE, **draw.choice(scopes)}
        u = draw.uniform(-1.0, 2.0)
        good = draw.random() < chance(u, scope)
        outcome = ("success" if good else "failure") if u >= 0 else ("missed" if good else "correct_skip")
        evidence = tuple(make.lever(name, u if name == "ts_min" else 1.5) for name in levers)
        strands.append(replace(make.episode(f"e{i}", (make.window(outcome, evidence, scope=scope),)), scope=scope))
    store.run(strands)
    return store


def _build(store, lessons=(), now=10, **kwargs):
    """What the method of votes makes of a store; the marginal one is in test_marginal.py."""
    return build_tuning([r for r in store.stats.values() if r.family == FAMILY], lessons, now, VOTES, **kwargs)


def test_a_gate_set_too_low_is_raised(make):
    """Passing windows near the gate fail, those far above succeed: one root lesson tightens ts_min and nothing else."""
    built = _build(_store(make, 1, 900, lambda u, scope: 0.75 if u > 0.9 else 0.05))
    root = next(x for x in built.lessons if not x.scope_values)
    targets = root.effect["execution_levers"]["signal_thresholds"]

    assert set(targets) == {"ts_min"}
    assert 0.6 < targets["ts_min"] <= 0.7
    assert (root.lesson_type, root.status, root.module) == ("pm_tuning", "active", "pm")
    assert root.stats["tuning_standalone"]
    assert root.stats["variance"] == 0.0
    assert root.stats["tuning_n"] == 900
    assert root.stats["tuning_score"] > 0.05
    assert root.evidence_at > 0
    assert root.decay_halflife_hours == 1080.0


def test_slices_do_not_repeat_what_the_root_says(make):
    """The same effect everywhere: the blend of all emitted increments is about the root's own shift, not many times
    it."""
    built = _build(
        _store(
            make, 1, 900, lambda u, scope: 0.75 if u > 0.9 else 0.05, ({"macro_phase": "Good"}, {"macro_phase": "Dip"})
        )
    )
    shifts = {
        tuple(x.scope_values.items()): x.effect["execution_levers"]["signal_thresholds"]["ts_min"] - 0.6
        for x in built.lessons
    }

    assert () in shifts
    assert sum(abs(v) for k, v in shifts.items() if k) <= 0.02


def test_an_effect_of_one_phase_stays_in_that_phase(make):
    """Marginal windows fail in Dip only: Dip tightens; Good, as a whole, does not end up tightened."""
    scopes = ({"macro_phase": "Good"}, {"macro_phase": "Dip"})
    chance = lambda u, s: (0.8 if u > 0.9 else 0.02) if s["macro_phase"] == "Dip" else 0.4  # noqa: E731
    built = _build(_store(make, 3, 3000, chance, scopes))

    def blend(**scope):
        matches = [x for x in built.lessons if x.scope_values.items() <= {**make.PM_SCOPE, **scope}.items()]
        return sum(x.effect["execution_levers"]["signal_thresholds"].get("ts_min", 0.6) - 0.6 for x in matches)

    assert blend(macro_phase="Dip") > 0.025
    assert blend(macro_phase="Dip") > 2 * abs(blend(macro_phase="Good"))


def test_noise_is_met_with_silence(make):
    """Outcomes that ignore the margin: no lesson in at least 18 of 20 worlds, slices and levers included."""
    scopes = tuple({"macro_phase": p, "timeframe": t} for p in ("Good", "Dip", "Chop") for t in ("1h", "4h"))
    spoken = sum(
        any(_targets(x) for x in _build(_store(make, 100 + seed, 250, lambda u, s: 0.33, scopes)).lessons)
        for seed in range(20)
    )

    assert spoken <= 2


def test_too_few_episodes_are_not_enough(make):
    """Nine perfect episodes move nothing, and the key says so in one row without targets."""
    (row,) = _build(_store(make, 1, 9, lambda u, scope: float(u > 0.9))).lessons

    assert (_targets(row), row.status, row.reason, row.scope_values) == ({}, "candidate", "too_few_episodes", {})


def _targets(lesson):
    return lesson.effect["execution_levers"]["signal_thresholds"]


def test_only_active_gates_are_emitted(make):
    """Whatever the statistics hold, a lesson names gates of its episode type only (mission 5.2)."""
    store = _store(make, 1, 900, lambda u, scope: 0.75 if u > 0.9 else 0.05)
    for key, row in list(store.stats.items()):
        block = row.stats["tuning"]["s1_entry"]
        block["levers"]["trail_mult"] = block["levers"]["dx_min"] = block["levers"]["ts_min"]
        store.stats[key] = row
    built = _build(store)

    assert built.lessons
    for lesson in built.lessons:
        assert set(lesson.effect["execution_levers"]["signal_thresholds"]) <= set(GATE_LEVERS["s1_entry"])


def test_rebuilding_updates_and_evidence_that_goes_deprecates(make):
    """Same id, older created_at, higher version; once the votes are balanced the lesson is deprecated."""
    store = _store(make, 1, 900, lambda u, scope: 0.75 if u > 0.9 else 0.05)
    first = _build(store, now=10)
    second = _build(store, first.lessons, now=20)
    silent = _build(_store(make, 5, 300, lambda u, scope: 0.33), first.lessons, now=30)

    assert [(x.id, x.created_at, x.lesson_version) for x in second.lessons] == [(x.id, 10, 2) for x in first.lessons]
    assert {x.status for x in silent.lessons} == {"deprecated"}
    assert len(silent.lessons) == len(first.lessons)


def test_a_strength_lesson_makes_it_a_companion(make):
    """With a live strength lesson of the same slice the tuning lesson is its companion and carries the trades'
    variance."""
    store = _store(make, 1, 900, lambda u, scope: 0.75 if u > 0.9 else 0.05)
    store.run([make.closed("t1", 2.0), make.closed("t2", -1.0, position="p2")])
    strength = Lesson("x", "pm", "pm_strength", S1_ENTRY.key, "entry", {}, {}, {}, 0.0, 720.0, "candidate", "", 0, 0, 0)
    root = next(x for x in _build(store, [strength]).lessons if not x.scope_values)

    assert not root.stats["tuning_standalone"]
    assert root.stats["n"] == 2
    assert root.stats["variance"] == pytest.approx(2.25)


def test_due_counts_new_episodes_through_the_fit(make):
    """The builder notes how many episodes it saw; five and 5 % more make the next look due."""
    store = _store(make, 1, 40, lambda u, scope: 0.33)
    root = next(r for r in store.stats.values() if not r.scope_values)
    built = _build(store, fits=store.fits)
    (fit,) = built.fits

    assert episodes(root) == 40
    assert tuning_due(store.fits[FAMILY], root)
    assert fit.detail["tuning_episodes"] == 40
    assert not tuning_due(fit, root)
    assert not tuning_due(None, None)


def test_bands_hold_every_vote():
    """Ten bands on [-1, 1]: settings and storage agree."""
    assert BANDS == 10
    assert DEFAULT.tuning_pseudo_votes == 5.0
