"""Margin bands of a gate: what the chances at each distance from the base were worth, against a count by hand."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from tests.chances import BASE, SCOPE, attempt, chance

from edgebook.domain.levers import GATE_LEVERS, lever
from edgebook.domain.pattern import EPISODE_PATTERN
from edgebook.learning.episodes import BANDS
from edgebook.learning.margins import INDIRECT, INSIDE, NO_BANDS, add_worth, base_margin, worth_of

EDGES = [-1 + i / 5 for i in range(BANDS + 1)]


def band_by_hand(u):
    """Which fifth of a cap a distance lies in, by looking at each; None outside. The last holds its upper end."""
    for i in range(BANDS):
        if EDGES[i] <= u < EDGES[i + 1] or (i == BANDS - 1 and u == 1.0):
            return i
    return None


def history(seed, attempts=120, kind="s1_entry"):
    """Attempts of one to three chances, each seen under gates of its own, with what was measured at each gate.

    ``[(strand, [(scope, {lever: (distance from base in caps, worth)})])]``
    """
    draw = random.Random(seed)
    found = []
    for i in range(attempts):
        timeframe = draw.choice(("1h", "4h"))
        chances, seen = [], []
        for _ in range(draw.randint(1, 3)):
            scope = {**SCOPE, "macro_phase": draw.choice(("Good", "Dip")), "timeframe": timeframe}
            margins, values, thresholds, facts = {}, {}, {}, {}
            for name in GATE_LEVERS[kind]:
                row = lever(name, timeframe)
                thresholds[name] = draw.uniform(row.lo, row.hi) if draw.random() < 0.5 else row.base
                if draw.random() < 0.2:
                    continue
                apart = draw.uniform(-1.5, 1.5)
                observed = row.base + row.polarity * apart * row.cap
                held = apart if name in INDIRECT else row.polarity * (observed - thresholds[name]) / row.cap
                margins[name], values[name] = held, draw.gauss(0, 1.3)
                facts[name] = (apart, values[name])
            chances.append(
                chance(margins, kind, values=values, thresholds=thresholds, scope=scope, window_id=f"w{i}-{len(seen)}")
            )
            seen.append((scope, facts))
        found.append((attempt(f"a{i}", chances, 1 + i, timeframe), seen))
    return found


def by_hand(told, keep=lambda scope: True):
    """Bands of one slice, from the facts: {lever: (n, y, y2)}; an attempt is one draw in each band."""
    n = defaultdict(lambda: [0] * BANDS)
    y, y2 = (defaultdict(lambda: [0.0] * BANDS) for _ in range(2))
    for _, seen in told:
        sums = defaultdict(float)
        for scope, facts in seen:
            for name, (apart, worth) in facts.items() if keep(scope) else ():
                band = band_by_hand(apart)
                if band is not None:
                    n[name][band] += 1
                    sums[name, band] += worth
        for (name, band), total in sums.items():
            y[name][band] += total
            y2[name][band] += total**2
    return {name: (n[name], y[name], y2[name]) for name in n}


def bands_of(row, kind):
    levers = row.stats["tuning"][kind]["levers"]
    return {name: levers[name]["marginal"] for name in levers}


def same(block, hand):
    assert set(block) == set(hand)
    for name, (n, y, y2) in hand.items():
        assert block[name]["n"] == n, name
        assert block[name]["y"] == pytest.approx(y, abs=1e-9), name
        assert block[name]["y2"] == pytest.approx(y2, abs=1e-9), name


@pytest.mark.parametrize("kind", EPISODE_PATTERN)
def test_every_slice_holds_what_a_count_by_hand_finds(make, kind):
    """Root and slices of one dimension, gates that stood elsewhere than at the base, two timeframes."""
    told = history(1, kind=kind)
    store = make.Store()
    store.run([strand for strand, _ in told])
    rows = {tuple(row.scope_values.items()): row for row in store.stats.values()}

    same(bands_of(rows[()], kind), by_hand(told))
    for dim, value in (("macro_phase", "Dip"), ("timeframe", "4h"), ("bucket", "micro")):
        hand = by_hand(told, lambda scope, dim=dim, value=value: scope[dim] == value)
        same(bands_of(rows[(dim, value),], kind), hand)


@pytest.mark.parametrize("seed", range(3))
def test_order_and_parts_make_no_difference(make, seed):
    """Attempts added one by one, in any order and in any parts, give the same block, up to rounding."""
    told = [strand for strand, _ in history(2)]
    whole = make.Store()
    whole.run(told)
    draw = random.Random(seed)
    mixed, parts = draw.sample(told, len(told)), make.Store()
    while mixed:
        size = draw.randint(1, 30)
        parts.run(mixed[:size])
        mixed = mixed[size:]
    assert set(parts.stats) == set(whole.stats)
    for key, row in whole.stats.items():
        hand = {name: (b["n"], b["y"], b["y2"]) for name, b in bands_of(row, "s1_entry").items()}
        same(bands_of(parts.stats[key], "s1_entry"), hand)
        last = row.stats["tuning"]["s1_entry"]["last_ts"]
        assert parts.stats[key].stats["tuning"]["s1_entry"]["last_ts"] == last


def test_an_attempt_delivered_twice_in_one_run_counts_once(make):
    told = [strand for strand, _ in history(4, 5)]
    once, twice = make.Store(), make.Store()
    once.run(told)
    found = twice.run([*told, *told[::-1]])
    assert twice.stats == once.stats
    assert (found.counts["applied"], found.counts["skipped"]) == (5, 5)


@pytest.mark.parametrize("name", sorted({*GATE_LEVERS["s1_entry"], *GATE_LEVERS["s3_retest"]} - INDIRECT))
@pytest.mark.parametrize("timeframe", ["15m", "1h", "4h"])
def test_what_was_seen_stays_true_when_the_gate_moves(name, timeframe):
    """The same measurement under any gate in force is at the same distance from the base."""
    row = lever(name, timeframe)
    for apart in (-0.9, -0.1, 0.0, 0.3, 0.99):
        observed = row.base + row.polarity * apart * row.cap
        for held in (row.lo, row.base, (row.base + row.hi) / 2, row.hi):
            margin = row.polarity * (observed - held) / row.cap
            assert base_margin(name, margin, {name: held}, timeframe) == pytest.approx(apart, abs=1e-12)


@pytest.mark.parametrize("name", sorted(INDIRECT))
def test_a_lever_that_works_through_another_keeps_its_margin(name):
    assert base_margin(name, -0.3, {name: 0.1, "ts_min": 0.7, "dx_min": 0.7}, "1h") == -0.3


def test_a_threshold_that_was_not_told_is_the_base():
    assert base_margin("ts_min", -0.3, {}, "1h") == -0.3


def test_far_evidence_has_no_voice():
    """More than a cap away from the base, on either side, a chance is in no band; inside, it is what is kept."""
    assert worth_of([chance({"ts_min": -1.01})], "s1_entry", "1h") == {}
    assert worth_of([chance({"ts_min": u}) for u in (1.01, 7.0)], "s1_entry", "1h") == {"ts_min": {INSIDE: (2, 2.0)}}
    moved = chance({"ts_min": -0.6}, thresholds={**BASE, "ts_min": 0.75})
    assert worth_of([moved], "s1_entry", "1h") == {"ts_min": {9: (1, 1.0)}}
    assert worth_of([chance({"ts_min": 0.4}, thresholds={**BASE, "ts_min": 0.45})], "s1_entry", "1h") == {}


def test_chances_of_one_attempt_in_one_band_are_one_draw():
    """Worth 2 and -1 in one band: n 2, sum 1, square 1; in two attempts the squares would add up to 5."""
    pair = [chance({"ts_min": u}, values={"ts_min": v}) for u, v in ((0.05, 2.0), (0.15, -1.0))]
    together = add_worth({}, "s1_entry", worth_of(pair, "s1_entry", "1h"), 7)
    apart = add_worth({}, "s1_entry", worth_of(pair[:1], "s1_entry", "1h"), 7)
    apart = add_worth(apart, "s1_entry", worth_of(pair[1:], "s1_entry", "1h"), 5)

    def band(tuning):
        bands = tuning["s1_entry"]["levers"]["ts_min"]["marginal"]
        return bands["n"][5], bands["y"][5], bands["y2"][5]

    assert band(together) == (2, 1.0, 1.0)
    assert band(apart) == (2, 1.0, 5.0)
    assert apart["s1_entry"]["last_ts"] == 7


def test_chances_of_the_other_type_are_left_out():
    """A retest adds nothing to the entry gates, and a lever that is no gate of the type is not counted."""
    both = [chance({"dx_min": 0.1}, "s3_retest"), chance({"ts_min": 0.1})]
    assert set(worth_of(both, "s1_entry", "1h")) == {"ts_min"}
    assert set(worth_of(both, "s3_retest", "1h")) == {"dx_min"}


def test_adding_changes_nothing_that_was_there_before():
    """What is shared is not written to: the old block, and the empty one, stay as they were."""
    first = add_worth({}, "s1_entry", worth_of([chance({"ts_min": 0.1})], "s1_entry", "1h"), 1)
    before = repr(first)
    add_worth(first, "s1_entry", worth_of([chance({"ts_min": 0.1, "halo": -0.1})], "s1_entry", "1h"), 2)
    assert repr(first) == before
    nothing = {"n": [0] * BANDS, "y": [0.0] * BANDS, "y2": [0.0] * BANDS, "inside": [0, 0.0, 0.0]}
    assert nothing == NO_BANDS


def test_votes_and_bands_of_one_lever_live_side_by_side(make):
    """Episodes add votes, shadows add bands, in either order; neither erases the other."""
    votes = make.episode("e1", (make.window("success", (make.lever("ts_min", 0.4),)),))
    bands = attempt("a1", [chance({"ts_min": 0.1})], votes.ts_event)
    blocks = []
    for order in ([votes, bands], [bands, votes]):
        store = make.Store()
        store.run(order)
        root = next(r for r in store.stats.values() if not r.scope_values)
        blocks.append(root.stats["tuning"])
    assert blocks[0] == blocks[1]
    lever_block = blocks[0]["s1_entry"]["levers"]["ts_min"]
    assert lever_block["by_outcome"]["success"]["count"] == 1
    assert lever_block["marginal"]["n"][5] == 1
