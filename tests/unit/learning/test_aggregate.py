"""What a strand adds to the statistics, against a naive recomputation."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest

from edgebook.domain.decay import DAY
from edgebook.domain.evidence import family_key
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY
from edgebook.domain.scope import DM_SCHEMA, PM_SCHEMA, scope_hash
from edgebook.learning.config import LearningConfig

FAMILY = family_key("pm", S1_ENTRY.key, "entry")
PHASES = ["Good", "Dip", "Chop"]

DEEP = LearningConfig(trade_depth_dims=3, tuning_depth_dims=2)


def _random_closes(make, seed, count):
    draw = random.Random(seed)
    strands = []
    for i in range(count):
        scope = {
            "macro_phase": draw.choice(PHASES),
            "bucket": draw.choice(["micro", "mid"]),
            "bucket_rank_position": draw.randint(1, 3),
            "timeframe": draw.choice(["1h", "4h"]),
            "A_mode": "normal",
        }
        acts = (make.action(scope=scope), make.action("exit", "module=pm|pattern_key=uptrend.S0.exit", scope))
        strands.append(make.closed(f"t{i}", round(draw.gauss(0, 1.2), 3), actions=acts, day=i // 3, position=f"p{i}"))
    return strands


def test_incremental_equals_batch_over_all_subsets(make):
    """Every slice of at most three dims holds exactly the trades whose scope contains it, counted the slow way."""
    strands = _random_closes(make, 1, 40)
    store = make.Store()
    for strand in strands:
        store.run([strand], config=DEEP)

    seen = 0
    for size in range(6):
        for dims in combinations(PM_SCHEMA.dims, size):
            groups = {}
            for s in strands:
                scope = s.payload.actions[0].scope
                if all(d in scope for d in dims):
                    groups.setdefault(tuple((d, scope[d]) for d in dims), []).append(s.payload.summary)
            for items, trades in groups.items():
                row = store.stats.get(f"{FAMILY}|{scope_hash(items)}")
                if size > 3:
                    assert row is None
                    continue
                seen += 1
                rr = [t.rr for t in trades]
                assert row.n == len(rr) == row.stats["n"]
                assert row.stats["sum_rr"] == pytest.approx(sum(rr), abs=1e-9)
                assert row.stats["sum_rr_squared"] == pytest.approx(sum(v * v for v in rr), abs=1e-9)
                assert row.stats["n_win"] == sum(v > 0 for v in rr)
                assert row.stats["pnl_usd"] == pytest.approx(sum(float(t.pnl_usd) for t in trades), abs=1e-9)
                assert row.stats["last_ts"] == max(t.exit_ts for t in trades)
                assert row.scope_values == dict(items)
                assert row.scope_mask == sum(1 << PM_SCHEMA.dims.index(d) for d in dims)
    assert seen == sum(r.family == FAMILY for r in store.stats.values())


def test_edge_follows_the_published_formula_on_the_current_root_baseline(make):
    """edge_raw of a slice uses the family's shrunken mean at the time the slice was last touched."""
    store = make.Store()
    store.run(_random_closes(make, 2, 30))
    root = store.stats[f"{FAMILY}|{scope_hash(())}"].stats
    base = root["sum_rr"] / (30 + 10)
    mean, var = root["sum_rr"] / 30, root["sum_rr_squared"] / 30 - (root["sum_rr"] / 30) ** 2
    t = 0.5 + 0.5 * root["time_efficiency"]

    expected = (mean - base) / (1 + var) * math.log(31) * (t + 1.0 + 0.5) / 3 / (1 + var)
    assert root["edge_raw"] == pytest.approx(expected, abs=1e-12)
    assert root["baseline"] == pytest.approx(base, abs=1e-12)


def test_one_observation_per_pattern_and_category_however_many_actions(make):
    """Five trims of one trade are one unit of evidence, under the scope of the first."""
    other = {**make.PM_SCOPE, "macro_phase": "Dip"}
    trim = "module=pm|pattern_key=uptrend.S3.trim"
    acts = (make.action(), *(make.action("trim", trim, make.PM_SCOPE if i == 0 else other) for i in range(5)))
    store = make.Store()
    out = store.run([make.closed("t", 2.0, actions=acts)])

    assert {(o.action_category, o.n_actions) for o in out.observations} == {("entry", 1), ("trim", 5)}
    assert all(o.scope["macro_phase"] == "Good" for o in out.observations)
    assert out.counts == {"read": 1, "applied": 1, "skipped": 0}
    assert {f.family: (f.n, f.acts) for f in out.fits} == {
        FAMILY: (0, False),
        family_key("pm", trim, "trim"): (0, False),
    }


def test_duplicate_delivery_changes_nothing(make):
    """The same strand again, in the same call or a later one, is skipped."""
    store = make.Store()
    store.decisions["d1"] = make.decision("d1")
    strand = make.closed("t", 1.0, decision="d1")
    store.run([strand, strand])
    before = dict(store.stats)
    again = store.run([strand], now=99)

    assert again.stats == ()
    assert again.observations == ()
    assert again.fits == ()
    assert again.counts == {"read": 1, "applied": 0, "skipped": 1}
    assert store.stats == before
    assert store.stats[f"{FAMILY}|{scope_hash(())}"].n == 1


def test_decision_is_one_observation_updated_by_its_siblings(make):
    """y is the allocation-weighted mean rr; n stays 1 and the sums move by the difference in every slice."""
    store = make.Store()
    store.decisions["d1"] = make.decision("d1", allocation=4.0)
    store.run([make.closed("t1", 2.0, decision="d1", position="p1", allocation=1.0)])
    store.run([make.closed("t2", -1.0, decision="d1", position="p2", allocation=3.0)])
    (row,) = [o for o in store.observations.values() if o.module == "dm"]

    assert row.y == pytest.approx((2.0 * 1 - 1.0 * 3) / 4)
    assert row.weight == 1.0
    assert row.parts == {"p1": (1.0, 2.0), "p2": (3.0, -1.0)}
    dm_rows = [r for r in store.stats.values() if r.module == "dm"]
    assert len(dm_rows) == 8  # root, three dims, three pairs, all three
    for r in dm_rows:
        assert r.n == 1
        assert r.stats["sum_rr"] == pytest.approx(row.y, abs=1e-12)
        assert r.stats["sum_rr_squared"] == pytest.approx(row.y**2, abs=1e-12)
        assert r.stats["n_win"] == 0
        assert r.pattern_key == DM_ALLOCATION.key
        assert r.action_category == "allocation"


def test_only_first_trades_count_for_the_decision(make):
    """A later trade of the same position feeds pm only (decisions 41)."""
    store = make.Store()
    store.decisions["d1"] = make.decision("d1")
    out = store.run([make.closed("t2", 1.0, decision="d1", first=False)])

    assert {o.module for o in out.observations} == {"pm"}


def test_missing_decision_and_leaks_are_problems_that_change_nothing(make):
    """A close whose decision is unknown, or whose scope leaks, is reported with its reason and not half counted."""
    store = make.Store()
    leak = make.closed("leak", 1.0, actions=(make.action(scope={"curator": "x"}),))
    out = store.run([make.closed("t", 1.0, decision="gone"), leak])

    assert [reason for _, reason in out.problems] == [
        "decision gone of trade t is not in the log",
        "dimension curator does not belong to a pm scope; it has " + ", ".join(PM_SCHEMA.dims),
    ]
    assert store.stats == {}
    assert store.observations == {}
    assert out.counts == {"read": 2, "applied": 0, "skipped": 0}


def test_no_dm_dim_in_pm_rows_and_the_other_way_round(make):
    """Rows of a module hold dims of that module only (mission 5.3)."""
    store = make.Store()
    for i in range(5):
        store.decisions[f"d{i}"] = make.decision(f"d{i}")
        store.run([make.closed(f"t{i}", 1.0, decision=f"d{i}", position=f"p{i}")])
    schemas = {"pm": PM_SCHEMA, "dm": DM_SCHEMA}

    assert {r.module for r in store.stats.values()} == {"pm", "dm"}
    for row in store.stats.values():
        assert set(row.scope_values) <= set(schemas[row.module].dims)


def test_holdout_is_read_from_the_arm(make):
    """A decision in the dm arm marks its observation; a pm trade is marked by the strength arm."""
    store = make.Store()
    store.decisions["d1"] = make.decision("d1", arm="dm")
    acts = (make.action(arm="strength,tuning"),)
    out = store.run([make.closed("t", 1.0, decision="d1", actions=acts), make.closed("u", 1.0, position="p2")])

    assert {(o.module, o.unit_id): o.holdout for o in out.observations} == {
        ("pm", "t"): True,
        ("dm", "d1"): True,
        ("pm", "u"): False,
    }


def test_trim_outcome_compares_with_what_the_rest_brought(make):
    """Trimmed at 120 what later went for 110, at a risk of 10: +1 R; without a trim there is none."""
    from decimal import Decimal

    trim = make.action("trim", "module=pm|pattern_key=uptrend.S3.trim", decision_type="trim", price=120.0)
    out = make.action("exit", "module=pm|pattern_key=uptrend.S0.exit", decision_type="exit", price=110.0)
    store = make.Store()
    store.run([make.closed("t", 1.0, actions=(make.action(), trim, out, make.action(quantity=Decimal(2))))])
    found = {o.action_category: o.exit_y for o in store.observations.values()}

    assert found == {"entry": None, "trim": pytest.approx(1.0), "exit": None}


# ---------------------------------------------------------------- episodes
def _root(store, episode_type="s1_entry"):
    return store.stats[f"{FAMILY}|{scope_hash(())}"].stats["tuning"][episode_type]


def test_episode_adds_outcomes_and_votes(make):
    """A taken window votes where its gate passed, with prox times confidence; a skipped one where it alone failed."""
    store = make.Store()
    failed = make.window("failure", (make.lever("ts_min", 0.25, confidence=0.5), make.lever("halo", 3.0)))
    missed = make.window("missed", (make.lever("ts_min", -0.5), make.lever("halo", -0.2, alone=False)))
    store.run([make.episode("e1", (failed, missed), outcome="failure")])
    block = _root(store)

    assert block["outcomes"] == {"success": 0, "failure": 1, "missed": 0, "correct_skip": 0}
    ts = block["levers"]["ts_min"]
    assert ts["count"] == 2
    assert ts["sum_delta"] == pytest.approx(0.025 - 0.05)
    assert ts["by_outcome"]["failure"]["vote"] == pytest.approx(0.75 * 0.5)
    assert ts["by_outcome"]["missed"]["vote"] == pytest.approx(0.5)
    assert ts["by_outcome"]["missed"]["band_pass"] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    halo = block["levers"]["halo"]["by_outcome"]
    assert halo["failure"]["vote"] == 0.0
    assert halo["failure"]["votes"] == 1
    assert halo["missed"]["votes"] == 0
    assert sum(halo["missed"]["band_pass"]) == 0


def test_windows_a_rule_blocked_do_not_vote(make):
    """blocked_by a rule (not by levers): counted in the episode, silent in the levers (decisions 28)."""
    store = make.Store()
    levers = (make.lever("ts_min", -0.5),)
    store.run(
        [
            make.episode("e1", (make.window("missed", levers, blocked_by=("s1_used",)),)),
            make.episode("e2", (make.window("missed", levers, blocked_by=("ts_min",)),)),
        ]
    )

    assert _root(store)["outcomes"]["missed"] == 2
    assert _root(store)["levers"]["ts_min"]["count"] == 1


def test_void_partial_and_repeated_episodes_are_skipped(make):
    """An episode that was not seen whole says nothing; the same strand twice in one call counts once."""
    store = make.Store()
    windows = (make.window("success", (make.lever("ts_min", 0.5),)),)
    whole = make.episode("e1", windows)
    out = store.run(
        [whole, whole, make.episode("e2", windows, outcome="void"), make.episode("e3", windows, partial=True)]
    )

    assert out.counts == {"read": 4, "applied": 1, "skipped": 3}
    assert _root(store)["outcomes"]["success"] == 1


def test_only_gates_of_the_episode_type_are_kept(make):
    """A DX margin inside an S1 episode, or a legacy knob, leaves no trace."""
    store = make.Store()
    levers = tuple(make.lever(name, 0.5) for name in ("ts_min", "dx_min", "trail_mult", "price_band_bias"))
    store.run([make.episode("e1", (make.window("failure", levers),))])

    assert set(_root(store)["levers"]) == {"ts_min"}


def test_each_window_counts_under_its_own_scope_and_the_outcome_under_the_episodes(make):
    """Two dims deep at most; outcome counts follow the envelope's scope (decisions 30)."""
    store = make.Store()
    dip = {**make.PM_SCOPE, "macro_phase": "Dip"}
    good = make.window("success", (make.lever("ts_min", 0.5),))
    store.run(
        [make.episode("e1", (good, make.window("success", (make.lever("ts_min", 0.5),), scope=dip)))], config=DEEP
    )
    blocks = {tuple(r.scope_values.items()): r.stats["tuning"]["s1_entry"] for r in store.stats.values()}

    assert max(map(len, blocks)) == 2
    assert blocks[("macro_phase", "Dip"),]["levers"]["ts_min"]["count"] == 1
    assert sum(blocks[("macro_phase", "Dip"),]["outcomes"].values()) == 0
    assert sum(blocks[("macro_phase", "Good"),]["outcomes"].values()) == 1
    assert blocks[()]["levers"]["ts_min"]["count"] == 2
    assert blocks[()]["levers"]["ts_min"]["by_outcome"]["success"]["vote2"] == pytest.approx(1.0), "one cluster"


def test_tuning_survives_trades_and_trades_survive_tuning(make):
    """Neither writer erases what the other wrote into the same row."""
    store = make.Store()
    strands = [make.closed("t1", 1.0), make.episode("e1", (make.window("failure", (make.lever("ts_min", 0.5),)),))]
    store.run(strands[:1])
    store.run(strands[1:])
    after_episode = dict(store.stats[f"{FAMILY}|{scope_hash(())}"].stats)
    store.run([make.closed("t2", 2.0, position="p2", day=1)])
    root = store.stats[f"{FAMILY}|{scope_hash(())}"].stats

    assert after_episode["n"] == 1
    assert after_episode["sum_rr"] == 1.0
    assert root["n"] == 2
    assert root["tuning"] == after_episode["tuning"]
    assert root["tuning"]["s1_entry"]["outcomes"]["failure"] == 1


def test_rows_of_earlier_calls_are_never_changed_in_place(make):
    """A row handed out keeps its content: a rolled back transaction must not leak into it."""
    import copy

    store = make.Store()
    strands = [make.episode(f"e{i}", (make.window("failure", (make.lever("ts_min", 0.5),)),)) for i in range(3)]
    store.run([make.closed("t0", 1.0), strands[0]])
    kept, frozen = dict(store.stats), copy.deepcopy(store.stats)
    store.run([make.closed("t1", 1.0, day=1), *strands[1:]])

    assert kept == frozen


def test_depths_are_settings(make):
    """A depth of one keeps the root and single dims only."""
    store = make.Store()
    store.run([make.closed("t", 1.0)], config=LearningConfig(trade_depth_dims=1))

    assert {len(r.scope_values) for r in store.stats.values()} == {0, 1}
    assert store.stats[f"{FAMILY}|{scope_hash(())}"].created_at == 1
    assert [o.day for o in store.observations.values()] == [0 // DAY]


# ---------------------------------------------------------------- corrections and late trades
SUMS = ("n", "sum_rr", "sum_rr_squared", "n_win", "sum_roi", "pnl_usd", "sum_time_efficiency", "sum_hold_days")


def _same_sums(one, other):
    assert one.keys() == other.keys()
    for key, row in one.items():
        assert row.scope_values == other[key].scope_values
        for name in (*SUMS, "avg_rr", "variance", "win_rate", "last_ts"):
            assert row.stats[name] == pytest.approx(other[key].stats[name], abs=1e-9), (key, name)


def test_a_corrected_trade_takes_the_place_of_what_it_said_before(make):
    """The same trade with another rr, in a strand of its own: every row is as if the first had never been."""
    strands = _random_closes(make, 5, 12)
    scope = strands[4].payload.actions[0].scope
    acts = (make.action(scope=scope), make.action("exit", "module=pm|pattern_key=uptrend.S0.exit", scope))
    right = make.closed("t4", 2.5, actions=acts, day=1, position="p4")
    corrected, told_once = make.Store(), make.Store()
    corrected.run([*strands, right])
    told_once.run([*strands[:4], right, *strands[5:]])

    assert corrected.observations.keys() == told_once.observations.keys()
    assert corrected.observations[f"{FAMILY}|t4"] == told_once.observations[f"{FAMILY}|t4"]
    assert corrected.stats[f"{FAMILY}|{scope_hash(())}"].n == 12
    _same_sums(corrected.stats, told_once.stats)


def test_a_corrected_position_takes_its_own_place_in_the_mean_of_its_decision(make):
    """y is the mean over what is known now of each position; n stays 1, and telling it again changes nothing."""
    store = make.Store()
    store.decisions["d1"] = make.decision("d1", allocation=4.0)
    store.run([make.closed("t1", 2.0, decision="d1", position="p1", allocation=1.0)])
    store.run([make.closed("t2", -1.0, decision="d1", position="p2", allocation=3.0)])
    right = make.closed("t2", 1.0, decision="d1", position="p2", allocation=3.0)
    store.run([right])
    (row,) = [o for o in store.observations.values() if o.module == "dm"]

    assert row.y == pytest.approx((2.0 * 1 + 1.0 * 3) / 4)
    assert row.parts == {"p1": (1.0, 2.0), "p2": (3.0, 1.0)}
    for r in store.stats.values():
        if r.module == "dm":
            assert (r.n, r.stats["n_win"]) == (1, 1)
            assert r.stats["sum_rr"] == pytest.approx(row.y, abs=1e-12)
    assert store.run([right]).stats == ()


def test_a_correction_under_another_scope_is_a_problem(make):
    """Evidence does not move between slices unseen: it is reported, and what was counted stays."""
    store = make.Store()
    store.run([make.closed("t", 1.0)])
    before = dict(store.stats)
    moved = make.closed("t", 2.0, actions=(make.action(scope={**make.PM_SCOPE, "macro_phase": "Dip"}),))
    out = store.run([moved])

    ((_, reason),) = out.problems
    assert "came back under another scope" in reason
    assert store.stats == before


def test_a_late_trade_ends_in_the_same_sums_as_an_early_one(make):
    """Whenever a trade arrives, every slice ends with the same sums; last_ts is that of the newest trade."""
    strands = _random_closes(make, 6, 30)
    early, late = make.Store(), make.Store()
    early.run(strands)
    for strand in [*strands[:3], *strands[4:], strands[3]]:
        late.run([strand])

    _same_sums(early.stats, late.stats)


def test_the_edge_of_a_late_trade_compares_with_the_baseline_of_its_arrival(make):
    """baseline and edge_raw are those of a row's last change, so they follow the order of arrival; sums do not."""
    strands = _random_closes(make, 7, 20)
    store = make.Store()
    store.run(strands)
    roots = [r for r in store.stats.values() if not r.scope_values]
    last = strands[-1].payload.actions[0].scope
    touched = [r for r in store.stats.values() if r.scope_values and r.scope_values.items() <= last.items()]

    base = {r.family: r.stats["baseline"] for r in roots}
    assert touched
    assert all(r.stats["baseline"] == base[r.family] for r in touched)
