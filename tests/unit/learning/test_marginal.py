"""The marginal value of a gate: planted edges move it the right way, noise does not, and one gate moves at a time."""

from __future__ import annotations

import math
import random

import pytest
from tests.chances import SCOPE, attempt, chance

from edgebook.domain.evidence import family_key
from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.pattern import EPISODE_PATTERN, S1_ENTRY
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.episodes import BANDS
from edgebook.learning.marginal import BAND_CAPS, below_zero, best_move, marginal_shifts, moves
from edgebook.learning.margins import add_worth, worth_of
from edgebook.learning.tuning import build_tuning
from edgebook.learning.verdict import stands

FAMILY = family_key("pm", S1_ENTRY.key, "entry")
EVERY_GATE = [(kind, name) for kind in EPISODE_PATTERN for name in GATE_LEVERS[kind]]
PHASES = ("Good", "Dip", "Chop", "Recover", "Euphoria")


def block(n=(), y=(), y2=(), inside=(0, 0.0, 0.0)):
    """Bands by hand; what is not given is empty."""
    return {
        "inside": list(inside),
        "n": [dict(n).get(i, 0) for i in range(BANDS)],
        "y": [dict(y).get(i, 0.0) for i in range(BANDS)],
        "y2": [dict(y2).get(i, 0.0) for i in range(BANDS)],
    }


def strange(draw):
    """Bands of any worth."""
    return block(
        [(i, draw.randint(1, 400)) for i in range(BANDS)],
        [(i, draw.gauss(0, 400)) for i in range(BANDS)],
        [(i, draw.uniform(0, 50)) for i in range(BANDS)],
        (draw.randint(10, 400), draw.gauss(0, 400), draw.uniform(0, 50)),
    )


def grown(seed, count, worth, name="ts_min", kind="s1_entry", low=-1.0, high=1.0, sd=1.2):
    """Tuning of a root after attempts of one chance each, worth ``worth(u)`` R and noise."""
    draw, tuning = random.Random(seed), {}
    for i in range(count):
        u = draw.uniform(low, high)
        one = chance({name: u}, kind, values={name: worth(u) + draw.gauss(0, sd)})
        tuning = add_worth(tuning, kind, worth_of([one], kind, "1h"), i)
    return {(): tuning[kind]}


def shift_of(blocks, name="ts_min", kind="s1_entry", items=()):
    return marginal_shifts(kind, blocks).get(items, {}).get(name, (0.0, None))[0]


# ------------------------------------------------------------------ moves


def below_zero_by_hand(mean, sd):
    """Expectation and variance of the lower of 0 and a normal number, by adding up its density."""
    xs = [mean + sd * (i / 2000.0 - 6.0) for i in range(24_001)]
    weights = [math.exp(-0.5 * ((x - mean) / sd) ** 2) for x in xs]
    low = [min(0.0, x) for x in xs]
    expected = math.fsum(w * v for w, v in zip(weights, low, strict=True)) / math.fsum(weights)
    return expected, math.fsum(w * (v - expected) ** 2 for w, v in zip(weights, low, strict=True)) / math.fsum(weights)


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (0.5, 0.4), (-0.5, 0.4), (3.0, 0.5), (-3.0, 0.5), (-0.1, 0.03)])
def test_the_hurdle_is_the_expected_lower_of_nothing_and_what_is_kept(mean, sd):
    expected, variance = below_zero_by_hand(mean, sd)
    assert below_zero(mean, sd) == (pytest.approx(expected, abs=1e-4), pytest.approx(variance, abs=1e-4))
    assert below_zero(mean, 0.0) == (min(0.0, mean), 0.0)


def test_moves_are_sums_over_the_bands_they_flip():
    """Against sums by hand: loosening takes what lies below the base in, tightening gives what lies above it up, as far
    as it is worse than what the tighter gate keeps."""
    draw = random.Random(3)
    bands = strange(draw)
    found = {m.bands: m for m in moves(bands)}

    assert sorted(found) == [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]
    for k in range(1, 6):
        below, above = range(5 - k, 5), range(5, 5 + k)
        assert found[-k].gain == pytest.approx(sum(bands["y"][i] for i in below))
        kept = [sum(bands[p][5 + k :]) + bands["inside"][j] for j, p in enumerate(("n", "y", "y2"))]
        flipped = sum(bands["n"][i] for i in above)
        spread = math.sqrt(2.0 * kept[2]) / kept[0]
        hurdle, doubt = below_zero_by_hand(kept[1] / kept[0], spread)
        assert found[k].gain == pytest.approx(flipped * hurdle - sum(bands["y"][i] for i in above), rel=1e-3, abs=1e-3)
        own = 2.0 * sum(bands["y2"][i] for i in above)
        assert found[k].variance == pytest.approx(own + flipped**2 * doubt, rel=1e-3, abs=1e-3)
        assert found[-k].variance == pytest.approx(2.0 * sum(bands["y2"][i] for i in below))
        assert (found[k].flipped, found[-k].flipped) == (flipped, sum(bands["n"][i] for i in below))


def test_a_gate_that_does_not_separate_is_not_tightened():
    """Every chance loses half an R, whatever its margin: not one gate moves. Once those far inside win, it tightens."""
    losing = block(
        [(i, 60) for i in range(5, 10)], [(i, -30.0) for i in range(5, 10)], [(i, 60.0) for i in range(5, 10)]
    )
    assert best_move({**losing, "inside": [300, -150.0, 300.0]}) is None
    assert best_move({**losing, "inside": [300, 150.0, 300.0]}).tightens
    assert best_move({**losing, "inside": [0, 0.0, 0.0]}) is None


def test_a_move_that_flips_nothing_is_none():
    found = moves(block(n=[(2, 4)], y=[(2, 1.0)], y2=[(2, 1.0)]))
    assert [m.bands for m in found] == [-3, -4, -5]
    assert moves(block()) == ()


def test_the_best_move_is_the_largest_sure_gain():
    """Among those that stand, by gain less one spread; equal ones by the smaller step."""
    good = block(n=[(4, 60), (3, 60)], y=[(4, 80.0), (3, 0.0)], y2=[(4, 90.0), (3, 20.0)])
    assert best_move(good).bands == -1
    deep = block(n=[(4, 60), (3, 60)], y=[(4, 80.0), (3, 70.0)], y2=[(4, 90.0), (3, 80.0)])
    assert best_move(deep).bands == -2
    flat = block(n=[(4, 60)], y=[(4, 80.0)], y2=[(4, 90.0)])
    assert best_move(flat).bands == -1


def test_few_chances_move_nothing_however_good_they_are():
    """Nine chances worth 100 R each are not enough, ten are."""
    for n, moved in ((9, False), (10, True)):
        assert (best_move(block(n=[(4, n)], y=[(4, 100.0 * n)], y2=[(4, 10.0 * n)])) is not None) == moved


def test_more_slices_beside_it_make_a_move_harder():
    bands = block(n=[(4, 40)], y=[(4, 60.0)], y2=[(4, 90.0)])
    assert best_move(bands) is not None
    assert best_move(bands, tests=500) is None


# ------------------------------------------------------------------ planted


@pytest.mark.parametrize(("kind", "name"), EVERY_GATE)
def test_good_chances_below_the_base_loosen_and_bad_ones_above_tighten(kind, name):
    """+1 R for what was kept out, -1 R for what just passed: for either polarity the gate moves to let the former in
    and to keep the latter out, by no more than a cap, within its bounds, by whole bands."""
    row = LEVERS[name]
    for seed in range(5):
        loose = shift_of(grown(seed, 400, lambda u: 1.0 if u < 0 else 0.0, name, kind), name, kind)
        tight = shift_of(grown(seed, 800, lambda u: -1.2 if 0 <= u < 0.6 else 0.1, name, kind, high=2.5), name, kind)
        assert loose * row.polarity < 0 < tight * row.polarity
        for shift in (loose, tight):
            assert abs(shift) <= row.cap + 1e-12
            assert row.lo <= row.base + shift <= row.hi
            steps = shift / (BAND_CAPS * row.cap)
            assert steps == pytest.approx(round(steps)) or row.base + shift in (row.lo, row.hi)
            assert abs(steps) >= 2


@pytest.mark.parametrize(("kind", "name"), EVERY_GATE)
def test_chances_that_are_rightly_where_they_are_move_nothing(kind, name):
    """Bad below the base, good above it: the gate stands where it should."""
    for seed in range(5):
        assert shift_of(grown(seed, 400, lambda u: -1.0 if u < 0 else 1.0, name, kind), name, kind) == 0.0


def test_a_gate_moves_to_where_the_worth_changes_its_sign():
    """Worth 1 R down to .4 caps below the base and -1 R farther down: it moves by two bands, not by five."""
    for seed in range(5):
        shift = shift_of(grown(seed, 800, lambda u: 1.0 if u >= -0.4 else -1.0))
        assert shift == pytest.approx(-0.04)


def test_what_is_far_beyond_says_nothing():
    """However good, what is more than a cap away moves no gate."""
    draw, tuning = random.Random(1), {}
    for i in range(500):
        one = chance({"ts_min": draw.uniform(-3.0, -1.01)}, values={"ts_min": 5.0})
        tuning = add_worth(tuning, "s1_entry", worth_of([one], "s1_entry", "1h"), i)
    assert marginal_shifts("s1_entry", {(): tuning["s1_entry"]}) == {}


def added(parts):
    return {part: [sum(column) for column in zip(*(p[part] for p in parts), strict=True)] for part in parts[0]}


def test_no_move_leaves_the_table_whatever_was_seen():
    """Root and two slices of random worth: what a scope is asked in all stays in the table and within a cap."""
    draw, seen = random.Random(7), 0
    slices = ((("macro_phase", "Dip"),), (("macro_phase", "Good"),))
    for _ in range(100):
        kind = draw.choice(sorted(EPISODE_PATTERN))
        parts = {name: [strange(draw) for _ in range(3)] for name in GATE_LEVERS[kind]}
        levers = {(): {name: {"marginal": added(parts[name])} for name in parts}}
        for i, items in enumerate(slices):
            levers[items] = {name: {"marginal": parts[name][i]} for name in parts}
        found = marginal_shifts(kind, {items: {"levers": block} for items, block in levers.items()})
        for items, moved in found.items():
            for name, (shift, score) in moved.items():
                row = LEVERS[name]
                whole = shift + (found[()][name][0] if items and name in found.get((), {}) else 0.0)
                assert row.lo - 1e-12 <= row.base + whole <= row.hi + 1e-12
                assert abs(whole) <= row.cap + 1e-12
                assert math.isfinite(score.score)
                seen += bool(items)
    assert seen > 100


def test_an_attempt_with_chances_in_two_phases_is_no_trouble():
    """Sixty attempts with a chance worth +2 R in Dip and one worth -2 R in Good come to nothing each, so the squares of
    Dip are more than those of the key; Dip is loosened all the same."""
    tuning = {items: {} for items in ((), (("macro_phase", "Dip"),), (("macro_phase", "Good"),))}
    for i in range(360):
        dip, good = (chance({"ts_min": -0.1}, values={"ts_min": v}) for v in (2.0, -2.0))
        seen = {(("macro_phase", "Dip"),): [dip], (("macro_phase", "Good"),): [good] if i < 60 else []}
        seen[()] = [c for part in list(seen.values()) for c in part]
        for items, chances in seen.items():
            tuning[items] = add_worth(tuning[items], "s1_entry", worth_of(chances, "s1_entry", "1h"), i)
    found = marginal_shifts("s1_entry", {items: t["s1_entry"] for items, t in tuning.items()})

    moved = [found.get(items, {}).get("ts_min", (0.0,))[0] for items in ((), (("macro_phase", "Dip"),))]
    assert sum(moved) == pytest.approx(-0.02)


def test_slices_of_the_same_chances_move_a_gate_once():
    """In a bad market A is patient and E aggressive: one set of losers, seen under both dims. What a bar is asked in
    all is where the losers end, not twice as far from where the key stands."""
    bad, good = (("A_mode", "patient"), ("E_mode", "aggressive")), (("A_mode", "aggressive"), ("E_mode", "patient"))
    draw, tuning = random.Random(5), {items: {} for items in ((), *((dim,) for dim in (*bad, *good)))}
    for i in range(1500):
        dims, place = (bad, 1.0) if i % 3 == 0 else (good, -1.0)
        u = draw.uniform(-1.4, 1.4)
        one = chance({"ts_min": u}, values={"ts_min": 2.3 if u > place else -1.1})
        for items in ((), *((dim,) for dim in dims)):
            tuning[items] = add_worth(tuning[items], "s1_entry", worth_of([one], "s1_entry", "1h"), i)
    found = marginal_shifts("s1_entry", {items: t["s1_entry"] for items, t in tuning.items()})

    def asked(dims):
        return 0.6 + sum(parts["ts_min"][0] for items, parts in found.items() if set(items) <= set(dims))

    assert asked(bad) == pytest.approx(0.7)
    assert asked(good) == pytest.approx(0.5)


# ------------------------------------------------------------------ noise


def null_history(seed, attempts, shock=0.0):
    """Attempts of one to three chances in five phases, worth nothing on average: lose 1 R three times, win 3 R once."""
    draw = random.Random(seed)
    day = 0.0
    for i in range(attempts):
        if i % 5 == 0:
            day = draw.gauss(0, shock)
        scope = {**SCOPE, "macro_phase": draw.choice(PHASES)}
        chances = []
        for _ in range(draw.choice((1, 1, 2, 3))):
            rr = (3.0 if draw.random() < 0.25 else -1.0) + day
            if draw.random() < 0.5:
                margins = {draw.choice(GATE_LEVERS["s1_entry"]): draw.uniform(-1.0, 0.0)}
            else:
                margins = {name: draw.uniform(0.0, 1.5) for name in GATE_LEVERS["s1_entry"]}
            chances.append(chance(margins, values=dict.fromkeys(margins, rr), scope=scope))
        yield attempt(f"a{i}", chances, i)


def looks(make, strands, every=25):
    """What the builder says after each ``every`` attempts: the targets of all its lessons."""
    store, lessons, waiting = make.Store(), (), []
    for i, strand in enumerate(strands, 1):
        waiting.append(strand)
        if i % every == 0:
            store.run(waiting)
            waiting = []
            lessons = build(store, lessons, i).lessons
            yield {tuple(x.scope_values.items()): targets(x) for x in lessons if x.status != "deprecated"}


def build(store, lessons=(), now=10, config=DEFAULT):
    return build_tuning([r for r in store.stats.values() if r.family == FAMILY], lessons, now, config)


def targets(lesson):
    return lesson.effect["execution_levers"]["signal_thresholds"]


def test_noise_moves_nothing_at_any_look(make):
    """A hundred histories of 300 attempts without an edge, in five phases, looked at after every 25: in at most ten of
    them a gate of any slice ever moves."""
    moved = sum(any(any(found.values()) for found in looks(make, null_history(seed, 300))) for seed in range(100))
    assert moved <= 10


def test_the_boundary_holds_at_every_look():
    """The worth of single chances, looked at after each of 400, in units of the spread of one: at most a tenth."""
    crossed = 0
    for seed in range(200):
        draw = random.Random(seed)
        gap = variance = 0.0
        for _ in range(400):
            value = (3.0 if draw.random() < 0.25 else -1.0) / DEFAULT.marginal_sd_r
            gap += value
            variance += DEFAULT.tuning_design_effect * value * value
            if stands(gap, variance):
                crossed += 1
                break
    assert crossed <= 20


# ------------------------------------------------------------------ slices and builds


def fed(make, seed, count, worth, names=("ts_min",), phases=("Good",)):
    """A store that has read attempts of one chance each: ``worth(name, u, phase)`` R and noise."""
    draw, store, strands = random.Random(seed), make.Store(), []
    for i in range(count):
        name, phase, u = draw.choice(names), draw.choice(phases), draw.uniform(-1, 1)
        value = worth(name, u, phase) + draw.gauss(0, 1.2)
        scope = {**SCOPE, "macro_phase": phase}
        strands.append(attempt(f"{seed}-{i}", [chance({name: u}, values={name: value}, scope=scope)], i + 1))
    store.run(strands)
    return store


def moved(built):
    return {tuple(x.scope_values.items()): targets(x) for x in built.lessons if targets(x) and x.status == "active"}


def test_an_edge_of_the_whole_key_is_said_once(make):
    """The same edge in every phase moves the root, and no slice repeats it."""
    store = fed(make, 1, 800, lambda name, u, phase: 1.0 if u < 0 else 0.3, phases=("Good", "Dip"))
    found = moved(build(store))
    assert set(found) == {()}
    assert found[()]["ts_min"] < 0.6


def test_an_edge_of_one_phase_stays_in_that_phase(make):
    """What was kept out is worth 1.5 R in Dip and -.8 R in Good: in Dip the gate goes down, in Good it does not."""
    worth = lambda name, u, phase: (1.5 if phase == "Dip" else -0.8) if u < 0 else 0.0  # noqa: E731
    found = moved(build(fed(make, 2, 1200, worth, phases=("Good", "Dip", "Good"))))

    def total(phase):
        return sum(t["ts_min"] - 0.6 for items, t in found.items() if set(items) <= {("macro_phase", phase)})

    assert total("Dip") < -0.01
    assert total("Good") >= -1e-9


def test_one_gate_moves_in_a_build_and_the_other_in_the_next(make):
    """Two gates with an edge each: the clearer moves first, then the other, and then nothing more."""
    worth = lambda name, u, phase: 0.0 if u >= 0 else 1.5 if name == "halo" else 0.8  # noqa: E731
    store = fed(make, 3, 1200, worth, names=("ts_min", "halo"))
    first = build(store, now=1)
    second = build(store, first.lessons, now=2)
    third = build(store, second.lessons, now=3)

    assert {name for t in moved(first).values() for name in t} == {"halo"}
    assert {name for t in moved(second).values() for name in t} == {"halo", "ts_min"}
    assert moved(second)[()]["halo"] == moved(first)[()]["halo"]
    assert moved(third) == moved(second)


@pytest.mark.parametrize(("kind", "name"), EVERY_GATE)
def test_a_lesson_reads_back_as_what_was_found(make, kind, name):
    """A build on its own lessons with the same evidence changes nothing, for any gate and number of bands: else a
    rounding would count as a second lever that moves."""
    pattern = EPISODE_PATTERN[kind]
    family = family_key("pm", *pattern)
    for k in range(1, 6):
        for sign in (-1, 1):
            store, strands = make.Store(), []
            for band in range(k):
                u = sign * (0.1 + 0.2 * band)
                strands += [
                    attempt(f"far-{band}-{i}", [chance({name: 2.0}, kind, values={name: 0.1})]) for i in range(60)
                ]
                strands += [
                    attempt(f"{band}-{i}", [chance({name: u}, kind, values={name: -sign * 2.0})]) for i in range(60)
                ]
            store.run(strands)
            rows = [r for r in store.stats.values() if r.family == family and not r.scope_values]
            first = build_tuning(rows, (), 1)
            second = build_tuning(rows, first.lessons, 2)
            (one,), (two,) = first.lessons, second.lessons
            row = LEVERS[name]
            bound = min(row.hi, max(row.lo, row.base + row.polarity * sign * k * BAND_CAPS * row.cap))
            assert targets(one)[name] == pytest.approx(bound)
            assert targets(two) == targets(one)
            assert two.stats["tuning_score"] == one.stats["tuning_score"]


def test_a_gate_comes_back_when_the_evidence_turns(make):
    """A thousand good chances below the base loosen it; two thousand bad ones later it is back, the lesson
    deprecated."""
    store = fed(make, 4, 500, lambda name, u, phase: 1.0 if u < 0 else 0.2)
    first = build(store, now=1)
    assert moved(first)[()]["ts_min"] < 0.6
    turned = fed(make, 5, 1, lambda name, u, phase: 0.0)
    turned.stats, turned.fits = dict(store.stats), dict(store.fits)
    draw = random.Random(6)
    turned.run([
        attempt(f"later-{i}", [chance({"ts_min": u}, values={"ts_min": (-1.0 if u < 0 else 0.2) + draw.gauss(0, 1.2)})])
        for i, u in enumerate(draw.uniform(-1, 1) for _ in range(1000))
    ])  # fmt: skip
    second = build(turned, first.lessons, now=2)

    assert moved(second) == {}
    (root,) = (x for x in second.lessons if not x.scope_values)
    assert (root.status, targets(root)) == ("deprecated", {})
    assert {x.status for x in second.lessons} <= {"deprecated", "candidate"}


def test_the_method_of_votes_does_not_listen_to_shadows(make):
    """``tuning_method`` chooses: votes ask episodes, marginal asks what chances were worth."""
    store = fed(make, 7, 500, lambda name, u, phase: 1.0 if u < 0 else 0.2)
    assert moved(build(store))
    assert moved(build(store, config=LearningConfig(tuning_method="votes"))) == {}


def test_a_lesson_says_what_it_rests_on(make):
    store = fed(make, 8, 500, lambda name, u, phase: 1.0 if u < 0 else 0.2)
    (lesson,) = (x for x in build(store).lessons if not x.scope_values)
    bands = store.stats[next(k for k, r in store.stats.items() if not r.scope_values)].stats["tuning"]["s1_entry"]
    steps = round((0.6 - targets(lesson)["ts_min"]) / 0.02)
    marginal = bands["levers"]["ts_min"]["marginal"]

    assert steps > 0
    assert lesson.stats["tuning_support"] == sum(marginal["n"][5 - steps : 5])
    worth = sum(marginal["y"][5 - steps : 5]) / lesson.stats["tuning_support"]
    assert lesson.stats["tuning_score"] == pytest.approx(-worth)
    assert lesson.evidence_at == 500
