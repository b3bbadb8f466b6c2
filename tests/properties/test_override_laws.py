"""Laws of the override combiner, against an oracle that scans all overrides and simulates the slew hour by hour."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.levers import LEGACY_NEUTRAL, LEVERS, lever
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY, S3_RETEST, Pattern
from edgebook.domain.scope import DM_SCHEMA, PM_SCHEMA, contains, make_scope
from edgebook.overrides import (
    ConfigHistory,
    MatchIndex,
    Override,
    apply_allocation_overrides,
    apply_pattern_execution_overrides,
    apply_pattern_strength_overrides,
    dump_documents,
    parse_documents,
)

START = 400_000  # epoch (hours since 1970) of the first version
NO_DECAY = 1e15  # hours
CONVICTIONS = st.sampled_from(
    [{}, {}, {"conviction": 0.0}, {"conviction": 1.7}, {"conviction": 6.0}, {"conviction": 40.0}]
)
FOREVER = st.just(NO_DECAY)
FAMILIES = {
    "dm_alloc": DM_ALLOCATION,
    "pm_strength": Pattern("module=pm|pattern_key=uptrend.S2.buy_flag", "entry"),
    "trim": Pattern("module=pm|pattern_key=uptrend.S3.trim", "trim"),
    "s1": S1_ENTRY,
    "s3": S3_RETEST,
}
TYPES = {
    "dm_alloc": "dm_alloc",
    "pm_strength": "pm_strength",
    "trim": "pm_strength",
    "s1": "pm_tuning",
    "s3": "pm_tuning",
}
DIMS = {
    "dm": {"curator": ["early", "fader"], "chain": ["base", "solana"], "bucket_rank_position": [1, 2]},
    "pm": {"macro_phase": ["Good", "Dip"], "timeframe": ["1h", "4h"], "bucket_rank_position": [1, 2]},
}


# ---------------------------------------------------------------------------------------------------- the oracle


def naive_levers(family):
    return [
        row
        for row in LEVERS.values()
        if row.lesson_type == TYPES[family] and FAMILIES[family].category in row.categories
    ]


def naive_pull(row, override):
    return math.log(override.targets[row.name]) if row.log_blend else override.targets[row.name] - row.base


def naive_conviction(override):
    """How far beyond its bound a multiplier lesson goes: as it says, 1 to 10; a gate's lesson has none."""
    return 1.0 if override.lesson_type == "pm_tuning" else min(10.0, max(1.0, override.stats.get("conviction", 1.0)))


def naive_target(row, overrides, scope, epoch):
    total = 0.0
    for override in overrides:
        if override.enabled and row.name in override.targets and contains(dict(scope), dict(override.scope)):
            until = epoch if override.pinned_at is None else min(epoch, override.pinned_at // HOUR)
            age = max(0.0, until - override.evidence_at / HOUR)
            total += naive_pull(row, override) * naive_conviction(override) * 0.5 ** (age / override.half_life_hours)
    lo, hi = (math.log(row.lo), math.log(row.hi)) if row.log_blend else (row.lo - row.base, row.hi - row.base)
    return min(max(total, lo), hi)


def pairwise_mutes(versions):
    """(epoch, lessons that acted in the version before and are muted in this one)."""
    for (_, before), (epoch, now) in pairwise(versions):
        acted = {o.lesson_id for o in before if o.enabled}
        yield epoch, {o.lesson_id for o in now if not o.enabled} & acted


def naive_value(row, versions, scope, now):
    """Hour by hour: each hour moves one step toward the target of the version then in force, decayed to that version's
    end. A lesson muted later counts in none before.
    """
    spans = []
    for epoch, overrides in versions:
        if epoch > now:
            break
        if not spans or spans[-1][1] != overrides:
            spans.append((epoch, overrides))
    for number, (epoch, overrides) in enumerate(spans):
        gone = {name for _, late in pairwise_mutes(spans[number:]) for name in late}
        spans[number] = (epoch, tuple(replace(o, enabled=o.enabled and o.lesson_id not in gone) for o in overrides))
    displacement = 0.0
    for number, (epoch, overrides) in enumerate(spans):
        end = spans[number + 1][0] if number + 1 < len(spans) else now
        target = naive_target(row, overrides, scope, end)
        for _ in range(end - epoch):
            displacement += min(max(target - displacement, -row.step), row.step)
    return math.exp(displacement) if row.log_blend else row.base + displacement


# ---------------------------------------------------------------------------------------------------- strategies


@st.composite
def scopes(draw, module, full=False):
    values = {}
    for dim, choices in DIMS[module].items():
        if full or draw(st.booleans()):
            values[dim] = draw(st.sampled_from(choices))
    return make_scope(DM_SCHEMA if module == "dm" else PM_SCHEMA, values)


@st.composite
def overrides_of(draw, family, half_lives=FOREVER, size=5):
    found = []
    rows = naive_levers(family)
    for number in range(draw(st.integers(0, size))):
        chosen = draw(st.lists(st.sampled_from(rows), min_size=1, max_size=len(rows), unique=True))
        targets = {row.name: draw(st.floats(row.lo, row.hi)) for row in rows if row in chosen}
        found.append(
            Override(
                lesson_id=f"lesson-{number}",
                lesson_type=TYPES[family],
                pattern_key=FAMILIES[family].key,
                action_category=FAMILIES[family].category,
                scope=draw(scopes("dm" if family == "dm_alloc" else "pm")),
                targets=targets,
                half_life_hours=draw(half_lives),
                evidence_at=(START - draw(st.integers(0, 200))) * HOUR,
                enabled=draw(st.integers(0, 9)) > 0,
                pinned_at=draw(st.none() | st.integers(START * HOUR, (START + 99) * HOUR)),
                stats=draw(CONVICTIONS),
            )
        )
    return tuple(found)


@st.composite
def histories(draw, family, half_lives=FOREVER):
    """``[(epoch, overrides)]`` of up to 6 versions, gaps of 0 to 70 epochs, repeats and empty ones included."""
    epoch, versions = START, []
    for _ in range(draw(st.integers(1, 6))):
        again = versions and draw(st.integers(0, 4)) == 0
        versions.append((epoch, versions[-1][1] if again else draw(overrides_of(family, half_lives))))
        epoch += draw(st.sampled_from([0, 1, 2, 5, 13, 30, 55, 56, 57, 70]))
    return versions, epoch


def built(versions, **modes):
    rows = []
    for number, (epoch, overrides) in enumerate(versions, 1):
        dm, pm = dump_documents(overrides)
        rows.append(ConfigVersion(number, epoch * HOUR + 17 * number, dm, pm, str(number)))
    return ConfigHistory.from_versions(rows, **modes)


def values_at(history, family, scope, at):
    """Applied value of every lever of the family, by name."""
    if family == "dm_alloc":
        return {"alloc_mult": apply_allocation_overrides(history, scope, at).alloc_mult}
    if TYPES[family] == "pm_strength":
        result = apply_pattern_strength_overrides(history, FAMILIES[family], scope, at)
    else:
        state = "S1" if family == "s1" else "S3"
        return apply_pattern_execution_overrides(history, state, scope, at, "1h").signal_thresholds
    return {row.name: getattr(result, row.name) for row in naive_levers(family)}


def blend_space(row, value):
    return math.log(value) if row.log_blend else value


EVERY_FAMILY = st.sampled_from(sorted(FAMILIES))


# ---------------------------------------------------------------------------------------------------- laws


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_epoch_moves_at_most_one_step_whatever_lessons_come_go_or_change(data):
    """P4: over the whole life of 300 random histories, no lever moves more than its step from one hour to the next,
    but for the hour in which a lesson is muted (decisions 15: at once)."""
    family = data.draw(EVERY_FAMILY)
    versions, end = data.draw(histories(family))
    muted = {epoch for epoch, lessons in pairwise_mutes(versions) if lessons}
    history = built(versions)
    scope = data.draw(scopes("dm" if family == "dm_alloc" else "pm", full=True))
    before = None
    for epoch in range(START - 1, end + 60):
        now = values_at(history, family, scope, (epoch + 1) * HOUR - 1)
        for row in naive_levers(family):
            assert row.lo <= now[row.name] <= row.hi
            if before is not None and epoch not in muted:
                moved = abs(blend_space(row, now[row.name]) - blend_space(row, before[row.name]))
                assert moved <= row.step * (1 + 1e-9) + 1e-15
        before = now


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_closed_form_equals_the_hour_by_hour_simulation(data):
    """The combiner's chain over versions is the simulation of one step per hour, decay included, for every lever."""
    family = data.draw(EVERY_FAMILY)
    versions, end = data.draw(histories(family, st.sampled_from([72.0, 720.0, NO_DECAY])))
    history = built(versions)
    module = "dm" if family == "dm_alloc" else "pm"
    asked = [data.draw(scopes(module, full=True)), data.draw(scopes(module)), ()]
    for epoch in sorted({START, *(epoch + 1 for epoch, _ in versions), end, end + 3, end + 60}):
        # Asked at the last moment of the hour, every version that starts in it is in force.
        for scope in asked:
            now = values_at(history, family, scope, (epoch + 1) * HOUR - 1)
            for row in naive_levers(family):
                assert now[row.name] == pytest.approx(naive_value(row, versions, scope, epoch), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("strength", [0.05, 1.0])
def test_a_config_that_changes_every_few_hours_is_still_the_simulation(seed, strength):
    """Hundreds of short-lived versions, mild or swinging from bound to bound: the walk back must not cut memory off."""
    rng = random.Random(seed)
    versions, epoch = [], START
    for _ in range(250):
        target = math.exp(rng.uniform(math.log(0.5), math.log(1.5)) * strength)
        rule = Override("l", "pm_strength", *FAMILIES["pm_strength"], (), {"size_mult": target}, 720.0, epoch * HOUR)
        versions.append((epoch, (rule,)))
        epoch += rng.randint(1, 4)
    row = LEVERS["size_mult"]
    for asked in rng.sample(range(START, epoch), 12):
        expected = naive_value(row, versions, (), asked)
        history = built(versions)  # afresh, so that nothing is remembered from the question before
        assert values_at(history, "pm_strength", (), (asked + 1) * HOUR - 1)["size_mult"] == pytest.approx(
            expected, abs=1e-12
        )


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_decay_is_the_only_thing_outside_the_step(data):
    """With finite half-lives an hour moves a lever by at most its step plus the slow motion of its own target."""
    family = data.draw(EVERY_FAMILY)
    versions, end = data.draw(histories(family, st.sampled_from([72.0, 168.0, 720.0])))
    history = built(versions)
    scope = data.draw(scopes("dm" if family == "dm_alloc" else "pm", full=True))
    last = versions[-1][1]
    for epoch in range(end, end + 5):
        now, then = (values_at(history, family, scope, (e + 1) * HOUR - 1) for e in (epoch, epoch + 1))
        for row in naive_levers(family):
            slow = abs(naive_target(row, last, scope, epoch + 1) - naive_target(row, last, scope, epoch))
            moved = abs(blend_space(row, then[row.name]) - blend_space(row, now[row.name]))
            assert moved <= row.step * (1 + 1e-9) + slow + 1e-12


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_asking_often_changes_nothing(data):
    """One call in an hour or a thousand at other moments, scopes and versions: the same answer, to the bit; where a
    mute falls into that hour, from then on."""
    family = data.draw(EVERY_FAMILY)
    versions, end = data.draw(histories(family, st.just(720.0)))
    module = "dm" if family == "dm_alloc" else "pm"
    scope = data.draw(scopes(module, full=True))
    muted = any(epoch == end and lessons for epoch, lessons in pairwise_mutes(versions))
    first = 17 * len(versions) if muted else 0
    once = values_at(built(versions), family, scope, end * HOUR + first)
    busy = built(versions)
    rng = random.Random(7)
    others = [data.draw(scopes(module, full=True)) for _ in range(3)]
    for _ in range(100):
        at = rng.randrange(START * HOUR, (end + 90) * HOUR)
        values_at(busy.as_of(rng.randrange(len(versions) + 1)), family, rng.choice([scope, *others]), at)
    assert [values_at(busy, family, scope, end * HOUR + minute) for minute in (first, first + 1, HOUR - 1)] == [
        once
    ] * 3


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_restart_from_a_truncated_chain_equals_the_full_chain(data):
    """Versions before the newest one that was in force for 56 epochs cannot be seen any more."""
    family = data.draw(EVERY_FAMILY)
    old, middle = data.draw(histories(family, st.just(720.0)))
    new, _ = data.draw(histories(family, st.just(720.0)))
    anchor = data.draw(overrides_of(family))
    late = [(middle + 56 + epoch - START, overrides) for epoch, overrides in new]
    tail = [(middle, anchor), *late]
    scope = data.draw(scopes("dm" if family == "dm_alloc" else "pm", full=True))
    full, short = built(old + tail), built(tail)
    for epoch in range(late[0][0], late[-1][0] + 60, 7):
        expected = values_at(full, family, scope, (epoch + 1) * HOUR - 1)
        actual = values_at(short, family, scope, (epoch + 1) * HOUR - 1)
        for row in naive_levers(family):
            assert actual[row.name] == pytest.approx(expected[row.name], abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_later_version_changes_nothing_earlier(data):
    """No look-ahead: the full history answers for the past what the history of that time answered."""
    family = data.draw(EVERY_FAMILY)
    versions, end = data.draw(histories(family, st.just(720.0)))
    scope = data.draw(scopes("dm" if family == "dm_alloc" else "pm", full=True))
    full = built(versions)
    for count in range(1, len(versions)):
        at = versions[count][0] * HOUR  # just before the next one comes into force
        assert values_at(full, family, scope, at) == values_at(built(versions[:count]), family, scope, at)
        pinned = full.as_of(count)
        muted = {o.lesson_id for o in versions[-1][1] if not o.enabled}  # of today: they act on open trades, too
        if any(o.enabled and o.lesson_id in muted for _, overrides in versions[:count] for o in overrides):
            continue
        assert values_at(pinned, family, scope, end * HOUR) == values_at(
            built(versions[:count]), family, scope, end * HOUR
        )


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["incremental", "average"]))
def test_the_order_of_lessons_cannot_be_seen(data, blend):
    """P7: any permutation of the config lists gives bit-identical values and the same explanation."""
    family = data.draw(EVERY_FAMILY)
    overrides = data.draw(overrides_of(family, st.just(720.0), size=8))
    overrides = tuple(replace(o, stats={"effect_total": 0.2, "n": 30, "variance": 1.0, **o.stats}) for o in overrides)
    dm, pm = dump_documents(overrides)
    shuffled = []
    for document in (dm, pm):
        copy = dict(document)
        for name, value in document.items():
            if isinstance(value, list):
                copy[name] = data.draw(st.permutations(value))
        shuffled.append(copy)
    scope = data.draw(scopes("dm" if family == "dm_alloc" else "pm", full=True))
    rows = [ConfigVersion(1, START * HOUR, *documents, "") for documents in ((dm, pm), tuple(shuffled))]
    one, other = (ConfigHistory.from_versions([row], blend=blend) for row in rows)
    for later in (0, 3, 80):
        at = (START + later) * HOUR
        assert values_at(one, family, scope, at) == values_at(other, family, scope, at)
    assert one.overrides == other.overrides


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(["incremental", "average"]))
def test_opposite_lessons_cancel_to_exactly_base(data, blend):
    """P6: pairs of equal and opposite lessons, of whatever conviction, leave every lever at exactly its base."""
    family = data.draw(EVERY_FAMILY)
    pairs = []
    for number in range(data.draw(st.integers(1, 4))):
        targets, mirror = {}, {}
        for row in naive_levers(family):
            room = math.log(row.hi) if row.log_blend else row.hi - row.base
            pull = data.draw(st.floats(-room, room))
            targets[row.name] = math.exp(pull) if row.log_blend else row.base + pull
            mirror[row.name] = 1 / targets[row.name] if row.log_blend else row.base - pull
        stats = {"effect_total": 0.3, "n": 40, "variance": 1.0, **data.draw(CONVICTIONS)}
        plain = Override(
            f"{number}+", TYPES[family], *FAMILIES[family], (), targets, 720.0, (START - 100) * HOUR, stats=stats
        )
        pairs += [plain, replace(plain, lesson_id=f"{number}-", targets=mirror)]
    history = built([(START, tuple(pairs))], blend=blend)
    for later in (1, 10, 100):
        values = values_at(history, family, (), (START + later) * HOUR)
        for row in naive_levers(family):
            assert values[row.name] == row.base


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bitmap_index_finds_what_a_scan_finds(data):
    """The index equals a plain scan with strict types, for rules and scopes of any width."""
    value = st.sampled_from(["a", "b", "1", 1, 2])
    rules = data.draw(st.lists(st.dictionaries(st.sampled_from("pqrs"), value, max_size=4), max_size=40))
    current = data.draw(st.dictionaries(st.sampled_from("pqrst"), st.one_of(value, st.booleans()), max_size=5))
    overrides = [
        Override(
            f"{i:03d}",
            "pm_strength",
            "module=pm|pattern_key=k",
            "entry",
            tuple(rule.items()),
            {"size_mult": 1.1},
            720.0,
            0,
        )
        for i, rule in enumerate(rules)
    ]
    found = MatchIndex(data.draw(st.permutations(overrides))).matches(tuple(current.items()))
    assert [o.lesson_id for o in found] == [o.lesson_id for o in overrides if contains(current, dict(o.scope))]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_documents_round_trip(data):
    """What is dumped is parsed as it was, without problems, and dumps to the same documents again."""
    overrides = [o for family in sorted(FAMILIES) for o in data.draw(overrides_of(family, st.floats(1, 5000), size=3))]
    overrides = [replace(o, lesson_id=f"{i}", stats={"n": i, "se": 0.1}) for i, o in enumerate(overrides)]
    dm, pm = dump_documents(overrides, updated_at=5, version=3)
    parsed, problems = parse_documents(dm, pm)
    assert problems == ()
    assert sorted(parsed, key=lambda o: o.lesson_id) == sorted(overrides, key=lambda o: o.lesson_id)
    assert dump_documents(reversed(parsed), updated_at=5, version=3) == (dm, pm)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_corrupt_config_is_never_a_crash_and_never_leaves_the_bounds(data):
    """P5: any JSON in place of any part of a document is skipped and reported; values stay inside the table, scopes
    unleaked.
    """
    overrides = [o for family in sorted(FAMILIES) for o in data.draw(overrides_of(family, st.just(720.0), size=2))]
    overrides = [
        replace(o, lesson_id=f"{i}", stats={"n": 20, "variance": 1.0, "effect_total": 0.2})
        for i, o in enumerate(overrides)
    ]
    documents = list(dump_documents(overrides))
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, 1))
        documents[which] = corrupted(data, documents[which])
    history = ConfigHistory.from_versions([ConfigVersion(1, START * HOUR, *documents, "")])
    for override in history.overrides:
        assert {dim for dim, _ in override.scope} <= set(
            (DM_SCHEMA if override.lesson_type == "dm_alloc" else PM_SCHEMA).dims
        )
    for family in sorted(FAMILIES):
        scope = data.draw(scopes("dm" if family == "dm_alloc" else "pm", full=True))
        values = values_at(history, family, scope, (START + 80) * HOUR)
        for row in naive_levers(family):
            assert row.lo <= values[row.name] <= row.hi


def corrupted(data, node):
    """``node`` with one part of it replaced by arbitrary JSON."""
    if isinstance(node, dict) and node and data.draw(st.integers(0, 5)):
        name = data.draw(st.sampled_from(sorted(node)))
        return {**node, name: corrupted(data, node[name])}
    if isinstance(node, list) and node and data.draw(st.integers(0, 5)):
        place = data.draw(st.integers(0, len(node) - 1))
        return [*node[:place], corrupted(data, node[place]), *node[place + 1 :]]
    return data.draw(JSON)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(LEGACY_NEUTRAL)), st.floats(-10, 10), min_size=1),
    st.sampled_from(["S1", "S2", "S3"]),
)
def test_legacy_knobs_stay_neutral_whatever_the_config_says(knobs, state):
    """P8: retired knobs in a tuning item, flat or under signal_thresholds, change nothing but a report."""
    gate = {"S1": "ts_min", "S3": "dx_min"}.get(state, "ts_min")
    pattern = S3_RETEST if state == "S3" else S1_ENTRY
    target = lever(gate).hi
    plain = Override("l", "pm_tuning", *pattern, (), {gate: target}, NO_DECAY, START * HOUR)
    dm, pm = dump_documents([plain])
    item = pm["pattern_overrides"][0]
    item["levers"] = {**knobs, "signal_thresholds": {gate: target, **knobs}}
    history = ConfigHistory.from_versions([ConfigVersion(1, START * HOUR, dm, pm, "")])
    controls = apply_pattern_execution_overrides(history, state, (), (START + 100) * HOUR, "1h")
    assert dict(controls.legacy) == LEGACY_NEUTRAL
    assert {p.kind for p in history.problems} == {"legacy"}
    expected = LEVERS[gate].base if state == "S2" else target
    assert controls.signal_thresholds[gate] == pytest.approx(expected, abs=1e-9)
    assert not set(controls.signal_thresholds) & set(LEGACY_NEUTRAL)
