"""The pages of episodes and of keys and scope: their tables and examples are those of the code."""

from __future__ import annotations

import inspect
import json
import re

import pytest

from edgebook.domain.levers import GATE_LEVERS, LEVERS
from edgebook.domain.pattern import DM_ALLOCATION, EPISODE_PATTERN, generate_canonical_pattern_key
from edgebook.domain.scope import DM_SCHEMA, PM_SCHEMA, SCHEMAS, canonical_json, make_scope, scope_hash
from edgebook.domain.strands import PAYLOADS, LeverEvidence, payload_from_json, payload_to_json
from edgebook.learning import episodes as sums
from edgebook.learning.config import DEFAULT
from edgebook.learning.margins import NO_BANDS
from edgebook.market.appetite import mode
from edgebook.market.composite import CAP_CLASSES
from edgebook.market.phases import PHASES
from edgebook.overrides.record import levers_of
from edgebook.runtime.episodes import EPISODE_OUTCOMES, OPEN
from edgebook.trading import actions, decision, windows
from edgebook.trading.rules import EpisodeRules, PmRules, ShadowRules


@pytest.fixture(scope="module")
def episodes(repo):
    return (repo / "docs" / "episodes.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def keys(repo):
    return (repo / "docs" / "pattern_keys_and_scope.md").read_text(encoding="utf-8")


def table(page, heading, nth=0):
    """Rows of the n-th table whose first heading is this, each a list of cells."""
    lines = page.splitlines()
    at = [i for i, line in enumerate(lines) if line.startswith(f"| {heading} |")][nth]
    found = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
        found.append([cell.strip() for cell in cells])
    return found


def named(cell):
    """Words in code marks."""
    return re.findall(r"`([^`]+)`", cell)


def example(page, kind):
    """The JSON example that follows the name of a strand kind."""
    return json.loads(re.search(rf"^`{kind}`[^`]*```json\n(.*?)```", page, flags=re.MULTILINE | re.DOTALL)[1])


# ---------------------------------------------------------------- episodes


def test_the_table_of_gates_is_the_lever_table(episodes):
    """Base, bounds, step, cap and side of every gate, no gate more or less."""
    expected = []
    for row in LEVERS.values():
        if row.lesson_type == "pm_tuning":
            check, observed, _ = windows._JUDGED[row.name]
            expected.append(
                [
                    f"`{row.name}`" + (" (scaled)" if row.scaled else ""),
                    ", ".join(f"`{name}`" for name in row.episodes),
                    f"{row.base:g}",
                    f"{row.lo:g} to {row.hi:g}",
                    f"{row.step:g}",
                    f"{row.cap:g}",
                    "raise" if row.polarity > 0 else "lower",
                    f"`{check}`",
                    f"`{observed}`",
                ]
            )
    assert table(episodes, "gate") == expected


def test_outcomes_evidence_and_types_are_those_of_the_code(episodes):
    """First cells of their tables."""
    assert [named(row[0])[0] for row in table(episodes, "outcome")] == [o for o in EPISODE_OUTCOMES if o != OPEN]
    fields = [name for row in table(episodes, "field") for name in named(row[0])]
    assert sorted(fields) == sorted(LeverEvidence.__dataclass_fields__)
    rows = table(episodes, "episode type")
    assert [named(row[0])[0] for row in rows] == list(GATE_LEVERS)
    for row in rows:
        pattern = EPISODE_PATTERN[named(row[0])[0]]
        assert row[4] == f"`{pattern.key.partition('pattern_key=')[2]}`, {pattern.category}"


def test_every_word_a_window_can_be_blocked_by_is_there(episodes):
    """The engine's own, and every reason that ``standing_blocks`` and its helpers can give."""
    engine, rules, _ = (set(named(row[1])) for row in table(episodes, "said by"))
    assert engine == sums.ENGINE_BLOCKS
    source = inspect.getsource(actions.standing_blocks) + inspect.getsource(actions._not_buying)
    literals = set(re.findall(r'"([a-z_0-9]+)"', source.replace(inspect.getdoc(actions.standing_blocks) or "", "")))
    said = {word for word in literals if word not in ("watchlist", "active", "after_breakout")}
    assert said | {"protection.<reason>", "catching_up"} == rules


def test_the_shape_of_the_statistics_is_that_of_the_code(episodes):
    """Names in the example of ``stats['tuning']``."""
    shape = json.loads(re.search(r'```json\n(\{"s1_entry".*?)```', episodes, flags=re.DOTALL)[1])["s1_entry"]
    assert set(shape) == set(sums.block_of({}, "s1_entry"))
    lever = shape["levers"]["halo"]
    assert set(lever) == {*sums.NO_LEVER, "marginal"}
    assert set(lever["by_outcome"]["missed"]) == set(sums._NO_SIDE)
    assert set(lever["marginal"]) == set(NO_BANDS)
    assert {name: len(bins) for name, bins in lever["marginal"].items()} == {
        name: len(b) for name, b in NO_BANDS.items()
    }


def test_numbers_in_the_text_are_the_settled_ones(episodes):
    """Samples, stake, holes, and the constants of the estimate."""
    rules, learning = EpisodeRules(), DEFAULT
    assert f"at most {rules.max_samples} samples, {rules.max_samples_blocked} where" in episodes
    assert (rules.void_gap_bars, ShadowRules().stake_usd) == (3, 10_000)
    assert f"{ShadowRules().stake_usd:,} USD" in episodes
    assert f"flips at least {learning.marginal_min_flipped} chances" in episodes
    assert f"units of {learning.marginal_sd_r:g} R" in episodes
    assert f"α = {learning.tuning_alpha:.2f}" in episodes
    prior = f"{learning.marginal_boundary_chances:g}"
    assert f"gain² ≥ (V + {prior}) · ln((V + {prior}) / ({prior} · α²))" in episodes
    assert f"count as {learning.marginal_tests_per_gate:g}," in episodes
    assert f"variance       = {learning.tuning_design_effect:g} ·" in episodes
    assert learning.tuning_method == "marginal"
    assert (learning.tuning_pseudo_votes, learning.tuning_full_support) == (5, 25)
    least = f"{learning.tuning_min_episodes} episodes, |score| ≥ .05, N ≥ {learning.tuning_min_support:g}"
    assert f"Emitted with {least}" in episodes


@pytest.mark.parametrize(
    "kind", ["uptrend_stage_transition", "uptrend_buy_window", "uptrend_episode_summary", "shadows_closed"]
)
def test_each_strand_has_an_example_that_can_be_read(episodes, kind):
    """It is a payload of that kind with every field, and reads back as it stands."""
    shown = example(episodes, kind)
    payload = payload_from_json(kind, shown)
    assert payload_to_json(payload) == shown
    assert set(shown) == set(PAYLOADS[kind].__dataclass_fields__) - {"kind"}


# ---------------------------------------------------------------- keys and scope


def test_every_rule_has_its_key_and_categories(keys):
    """Rows 1 to 9 from the table of rules, the last from the decision maker."""
    rows = {row[0]: row for row in table(keys, "rule")}
    assert list(rows) == [*(str(n) for n in sorted(actions._SPECS)), "DM"]
    for number, spec in actions._SPECS.items():
        key, categories = rows[str(number)][2:]
        state = spec.state or {"exit": "<state left>", "trim": "<state>"}[spec.motif]
        assert named(key)[0] == f"uptrend.{state}.{spec.motif}"
        given = categories.split(", ")
        assert given == (["trim"] if number == 3 else ["exit"] if number < 3 else ["entry", "add"])
        for category in given:
            made = generate_canonical_pattern_key("pm", spec.state or "S2", spec.motif, category)
            assert made.key == f"module=pm|pattern_key=uptrend.{spec.state or 'S2'}.{spec.motif}"
    assert f"`{DM_ALLOCATION.key}`" in keys
    assert rows["DM"][2:] == [f"`{DM_ALLOCATION.key.partition('pattern_key=')[2]}`", DM_ALLOCATION.category]


def test_levers_per_category_are_those_of_the_code(keys):
    """Capital levers; a category without any says none."""
    for category, levers, _ in table(keys, "category"):
        lesson = "dm_alloc" if category == "allocation" else "pm_strength"
        assert named(levers) == [row.name for row in levers_of(lesson, category)]


@pytest.mark.parametrize(("nth", "schema"), [(0, PM_SCHEMA), (1, DM_SCHEMA)])
def test_dimensions_stand_in_the_order_of_their_bits(keys, nth, schema):
    """As many as the schema has, each with its bit."""
    rows = table(keys, "bit", nth)
    assert [(int(row[0]), named(row[1])[0]) for row in rows] == list(enumerate(schema.dims))
    assert f"{schema.name.upper()}, {len(schema.dims)} dimensions" in keys


def test_values_of_dimensions_are_those_of_the_code(keys):
    """Phases, cap classes, modes and buckets, in order."""
    pm = {named(row[1])[0]: row[2] for row in table(keys, "bit")}
    dm = {named(row[1])[0]: row[2] for row in table(keys, "bit", 1)}
    caps = ", ".join(name for name, _ in CAP_CLASSES)
    assert pm["macro_phase"] == ", ".join(PHASES)
    assert (pm["bucket_leader"], pm["bucket"]) == (caps, caps)
    assert pm["A_mode"] == ", ".join(mode(v) for v in (0.32, 0.33, 0.67))
    assert pm["market_family"] == PmRules().market_family
    tables = {
        "mcap_bucket": decision.MARKET_CAPS,
        "vol_bucket": decision.VOLUMES,
        "age_bucket": decision.AGES,
        "mcap_vol_ratio_bucket": decision.RATIOS,
    }
    assert {name: dm[name] for name in tables} == {
        name: ", ".join(value for _, value in bounds) for name, bounds in tables.items()
    }


def test_masks_and_hashes_of_the_examples_are_right(keys):
    """Computed anew from the scope that is shown."""
    rows = table(keys, "module")
    for module, text, mask, digest in rows:
        schema = SCHEMAS[module]
        items = make_scope(schema, json.loads(named(text)[0]))
        assert canonical_json(items) == named(text)[0]
        assert schema.mask(dim for dim, _ in items) == int(mask)
        assert scope_hash(items) == named(digest)[0]
    assert len(rows) == 2


def test_what_may_never_leak_is_what_only_the_other_module_has(keys):
    """The two schemas less what they share."""
    found = {row[0]: set(named(row[1])) for row in table(keys, "module", 1)}
    assert found == {
        "pm": set(DM_SCHEMA.dims) - set(PM_SCHEMA.dims),
        "dm": set(PM_SCHEMA.dims) - set(DM_SCHEMA.dims),
    }
