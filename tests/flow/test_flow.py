"""The whole loop, watched from outside: a signal goes in, and every later stage is asked for in the database (mission
6.1)."""

from __future__ import annotations

import json
import math

import pytest
from tests.flow import world

from edgebook.adapters.memory import MemoryStore
from edgebook.domain.scope import DM_SCHEMA, PM_SCHEMA
from edgebook.flow.observe import observe
from edgebook.learning.config import LearningConfig
from edgebook.runtime import views
from edgebook.runtime.bootstrap import trading_rules
from edgebook.runtime.replay import rebuild
from edgebook.runtime.report.run import report
from edgebook.trading.curators import evolve_curator

ONLY_DM = set(DM_SCHEMA.dims) - set(PM_SCHEMA.dims)
ONLY_PM = set(PM_SCHEMA.dims) - set(DM_SCHEMA.dims)


@pytest.fixture(scope="module")
def uow(flow):
    """A reader of the flow run."""
    with flow.store.reader() as reader:
        yield reader


# ------------------------------------------------------------------ packets


def test_every_kind_of_strand_that_the_slice_emits_is_in_the_log(flow):
    """Signals, decisions, positions, actions, fills, closes, episodes, learning: nothing of the catalogue stays
    unwritten."""
    kinds = {kind for (kind,) in world.ask(flow.path, "SELECT DISTINCT kind FROM ad_strands")}

    assert world.FULL_CYCLE - kinds == set()


def test_packets_arrive_at_statistics_and_none_dies(flow):
    """Signal -> decision -> positions -> transition -> action -> fill -> close -> evidence -> statistics, in rows
    alone, as an operator would look."""
    health, fates = observe(f"sqlite:///{flow.path}", last=10_000)

    assert sum(fate.verdict == "arrived" for fate in fates) >= 5
    assert [fate.row() for fate in fates if fate.verdict == "died"] == []
    assert health.failed_jobs == []
    assert len(fates) == world.ask(flow.path, "SELECT count(*) FROM ad_strands WHERE kind = 'social_lowcap'")[0][0]


def test_no_packet_dies_between_signal_and_decision(flow):
    """Every signal has exactly one decision, caused by it."""
    rows = world.ask(
        flow.path,
        "SELECT s.id, count(d.id) FROM ad_strands s LEFT JOIN ad_strands d"
        " ON d.causation_id = s.id AND d.kind = 'decision_lowcap'"
        " WHERE s.kind = 'social_lowcap' GROUP BY s.id",
    )

    assert {count for _, count in rows} == {1}


def test_a_mention_that_asks_for_no_buy_is_kept_and_rejected(flow):
    """F3: a signal strand without the tag dm_candidate, and a reject whose failed gate is intent_buy; buys have the
    tag."""
    rows = world.ask(
        flow.path,
        "SELECT json_extract(s.content, '$.intent') IN ('mention_only', 'mock'), s.tags LIKE '%dm_candidate%',"
        " json_extract(d.content, '$.action'), instr(json_extract(d.content, '$.reasoning'), 'intent_buy') > 0"
        " FROM ad_strands s JOIN ad_strands d ON d.causation_id = s.id AND d.kind = 'decision_lowcap'"
        " WHERE s.kind = 'social_lowcap'",
    )
    silent = [row for row in rows if row[0]]

    assert len(silent) >= 3
    assert {row[1:] for row in silent} == {(0, "reject", 1)}
    assert {row[1] for row in rows if not row[0]} == {1}


def test_the_registry_is_in_the_log_and_in_the_book(flow):
    """The first strand is what the registry says; the curator's row says it too, and counts its signals."""
    first = world.ask(flow.path, "SELECT kind, content FROM ad_strands WHERE seq = 1")[0]
    row = json.loads(world.ask(flow.path, "SELECT content FROM curators WHERE key = 'early'")[0][0])
    others = world.ask(flow.path, "SELECT content FROM curators WHERE key <> 'early'")

    assert first[0] == "curator_registered"
    assert json.loads(first[1])["handles"] == row["handles"] == ["twitter:early"]
    assert (row["status"], row["base_weight"], row["registered"]) == ("active", 0.7, 1)
    assert row["signals"] > 0
    assert {(json.loads(text)["status"], json.loads(text)["registered"]) for (text,) in others} == {("testing", 0)}


CHANNEL = dict.fromkeys(("adding_to_position", "new_discovery"), (0.25, -0.10))
CHANNEL |= dict.fromkeys(("research_positive", "comparison_highlighted", "other_positive"), (0.15, -0.05))
CHANNEL |= {"mock": (-0.30, 0.50)}


def intent_by_hand(said, score, now):
    """Terms of trading.md 1.4 and 3.2 from (time, terms of its channel, curator) of each mention of a token."""
    sums = [0.0, 0.0]
    for terms in set(CHANNEL.values()):
        parts = [2 ** (-(now - ts) / 3.6e9 / 72) * score[who] for ts, channel, who in said if channel == terms]
        if parts:
            level = min(1.0, sum(parts) / len(parts) * (1 + math.log(len(parts))) / 2)
            sums = [total + level * term for total, term in zip(sums, terms, strict=True)]
    return tuple(min(0.4, max(-0.4, total)) for total in sums)


def test_the_intent_of_every_action_is_what_the_log_before_it_says(uow):
    """Recomputed by hand from mentions and curators' scores up to each action: the same terms, and A and E hold them
    (trading.md 9, row 19: what is produced is consumed)."""
    said, curators, moved = {}, {}, []
    for strand in uow.log.read(0):
        payload = strand.payload
        if strand.kind in ("social_lowcap", "curator_registered", "position_closed"):
            who = payload.curator_id if strand.kind == "position_closed" else payload.curator
            curators[who] = evolve_curator(curators.get(who), strand)
        if strand.kind == "social_lowcap" and payload.intent in CHANNEL:
            told = (strand.ts_event, CHANNEL[payload.intent], payload.curator)
            said.setdefault(strand.symbol, []).append(told)
        if strand.kind == "pm_action":
            score = {name: curator.score for name, curator in curators.items()}
            found = payload.reasons
            wanted = intent_by_hand(said.get(strand.symbol, ()), score, strand.ts_event)
            assert (found["intent_a"], found["intent_e"]) == pytest.approx(wanted, abs=1e-12)
            snapshot = uow.snapshots.get(strand.regime_snapshot_id).content
            assert (found["a_regime"], found["e_regime"]) == (snapshot["a_base"], snapshot["e_base"])
            moved.append((found["intent_a"], payload.a_base - found["a_regime"]))

    assert len(moved) > 100
    assert sum(intent != 0 and change != 0 for intent, change in moved) > 50
    assert all(change * intent >= 0 for intent, change in moved)


def test_no_packet_dies_between_close_and_evidence(flow):
    """Every closed trade but those after the last slot is an observation under each of its (pattern key, category)."""
    (last,) = world.ask(flow.path, "SELECT seq FROM watermarks WHERE key = 'pattern_scope_aggregator'")[0]
    closed = world.ask(
        flow.path,
        "SELECT c.trade_id, (SELECT count(DISTINCT json_extract(a.value, '$.pattern_key')"
        " || json_extract(a.value, '$.action_category'))"
        " FROM json_each(c.content, '$.actions') a),"
        " (SELECT count(*) FROM learning_observations o WHERE o.module = 'pm' AND o.unit_id = c.trade_id)"
        " FROM ad_strands c WHERE c.kind = 'position_closed' AND c.seq <= ?",
        last,
    )

    assert len(closed) >= 20
    assert [row for row in closed if row[1] != row[2]] == []


def test_every_strand_but_the_first_of_its_packet_has_its_cause_before_it(flow):
    """causation_id names a strand with a smaller seq, and of the same packet; only signals and jobs have none."""
    causeless = world.ask(flow.path, "SELECT DISTINCT kind FROM ad_strands WHERE causation_id = ''")
    wrong = world.ask(
        flow.path,
        "SELECT s.seq, s.kind, c.kind FROM ad_strands s LEFT JOIN ad_strands c ON c.id = s.causation_id"
        " WHERE s.causation_id <> '' AND (c.id IS NULL OR c.seq >= s.seq)",
    )

    assert wrong == []
    assert not {kind for (kind,) in causeless} & {"decision_lowcap", "order_filled", "position_closed"}


def test_every_fill_was_planned_and_every_plan_was_settled(flow):
    """pm_action and what became of its order are one to one; only orders of the last minutes may still be open."""
    settled = world.ask(
        flow.path,
        "SELECT a.id, count(f.id), min(f.ts_event) - a.ts_event FROM ad_strands a LEFT JOIN ad_strands f"
        " ON f.causation_id = a.id AND f.kind IN ('order_filled', 'order_rejected', 'order_expired')"
        " WHERE a.kind = 'pm_action' GROUP BY a.id",
    )
    (open_orders,) = world.ask(flow.path, "SELECT count(*) FROM orders WHERE status = 'planned'")[0]

    assert {count for _, count, _ in settled} <= {0, 1}
    assert sum(count == 0 for _, count, _ in settled) == open_orders
    assert all(wait >= 0 for _, count, wait in settled if count)


def test_the_ledger_follows_from_the_fills(flow):
    """Cash is the opening cash less every buy, plus every sell, less every fee; each booking is rounded to a
    millionth."""
    fills = world.ask(flow.path, "SELECT content FROM ad_strands WHERE kind = 'order_filled' ORDER BY seq")
    (cash,) = world.ask(flow.path, "SELECT cash_usd FROM accounts")[0]
    expected = 100_000.0
    for (content,) in fills:
        fill = json.loads(content)
        sign = -1 if fill["side"] == "buy" else 1
        expected += sign * float(fill["quantity"]) * fill["price"] - float(fill["fee_usd"])

    assert len(fills) > 100
    assert float(cash) == pytest.approx(expected, abs=1e-6 * len(fills))


def test_lessons_and_configs_follow_from_statistics(flow):
    """Lessons name families that have statistics; each config version has its strand, and the rows hold the newest."""
    orphans = world.ask(
        flow.path,
        "SELECT l.key FROM learning_lessons l WHERE NOT EXISTS (SELECT 1 FROM pattern_scope_stats s"
        " WHERE s.module = l.module"
        " AND s.pattern_key = l.pattern_key AND s.action_category = l.action_category)",
    )
    versions = [v for (v,) in world.ask(flow.path, "SELECT version FROM learning_config_versions ORDER BY version")]
    announced = world.ask(
        flow.path,
        "SELECT json_extract(content, '$.version') FROM ad_strands WHERE kind = 'config_changed' ORDER BY seq",
    )
    current = world.ask(flow.path, "SELECT module_id, config_version FROM learning_configs ORDER BY module_id")

    assert orphans == []
    assert versions == [v for (v,) in announced] == list(range(1, len(versions) + 1))
    assert current == [("dm", versions[-1]), ("pm", versions[-1])]


def test_both_channels_that_have_evidence_act(uow):
    """After a few simulated days learning has moved allocations and sizes; nothing died and nothing was buried."""
    found = report(uow, bars=0, wall_s=1.0, starting_cash=100_000)

    assert found["nudged"]["allocations"] > 0
    assert found["nudged"]["sizes"] > 0
    assert found["dead_letters"] == 0


def test_failed_runs_are_none(uow):
    """No job failed during the flow run."""
    assert [run for run in uow.runs.values() if run.status != "ok"] == []


# ------------------------------------------------------------------ leaks (mission 5.3, P9)


def keys_of(value):
    """Every key of a JSON value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


@pytest.mark.parametrize(("module", "foreign"), [("pm", ONLY_DM), ("dm", ONLY_PM)])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("pattern_scope_stats", "scope_values"),
        ("learning_lessons", "scope_values"),
        ("learning_observations", "scope"),
        ("ad_strands", "scope"),
    ],
)
def test_no_dimension_of_the_other_module_is_in_any_scope(flow, table, column, module, foreign):
    """Statistics, lessons, observations and strands of one module never hold a dimension of the other."""
    scopes = world.ask(flow.path, f"SELECT DISTINCT {column} FROM {table} WHERE module = ?", module)
    dims = {dim for (text,) in scopes for dim in json.loads(text)}

    assert dims, f"{table} has no {module} rows"
    assert dims & foreign == set()


@pytest.mark.parametrize(("module", "foreign"), [("pm", ONLY_DM), ("dm", ONLY_PM)])
def test_no_dimension_of_the_other_module_is_in_any_config(flow, module, foreign):
    """No version of a module's document mentions a dimension of the other, at any depth."""
    documents = world.ask(flow.path, f"SELECT json_extract(content, '$.{module}') FROM learning_config_versions")
    keys = {key for (text,) in documents for key in keys_of(json.loads(text))}
    dims = {dim for (text,) in documents for o in list_of(json.loads(text)) for dim in (*o["scope"], *o["scope_dims"])}

    assert keys & foreign == set()
    assert dims & foreign == set()


def list_of(document):
    """All overrides of a document."""
    return [
        o
        for name in ("alloc_overrides", "pattern_strength_overrides", "pattern_overrides")
        for o in document.get(name, ())
    ]


@pytest.mark.parametrize("kind", ["pm_action", "position_closed", "uptrend_buy_window", "uptrend_episode_summary"])
def test_no_dm_dimension_is_in_a_scope_inside_a_pm_payload(flow, kind):
    """Scopes of actions, windows and matched overrides inside PM payloads hold PM dimensions only."""
    payloads = [
        json.loads(text) for (text,) in world.ask(flow.path, "SELECT content FROM ad_strands WHERE kind = ?", kind)
    ]
    scopes = [scope for payload in payloads for scope in scopes_of(payload)]

    assert payloads
    assert {dim for scope in scopes for dim in scope} & ONLY_DM == set()


def scopes_of(value):
    """Every value under a key ``scope``, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "scope" and isinstance(inner, dict):
                yield inner
            else:
                yield from scopes_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scopes_of(inner)


# ------------------------------------------------------------------ explanations (P15)


def test_explain_walks_a_nudged_decision_down_to_its_trades(uow):
    """Multiplier -> override -> lesson -> statistics -> evidence ids, and each id is an observation of that family."""
    found = _nudged(uow, "pm_action") + _nudged(uow, "decision_lowcap")
    assert found, "no decision was nudged"

    for strand in found[-5:] + found[:5]:
        answer = views.explain(uow, strand.id)
        for nudge in answer["nudges"]:
            assert nudge["applied"] != nudge["base"] or nudge["overrides"]
            assert nudge["overrides"], "a nudge without an override"
            for item in nudge["overrides"]:
                lesson = item["lesson"]
                assert lesson != "no longer kept"
                assert lesson["statistics"]["n"] > 0
                assert len(lesson["evidence_ids"]) == len(set(lesson["evidence_ids"])) > 0
                assert all(dict(strand.scope).get(dim) == value for dim, value in item["scope"].items())


def test_explained_evidence_is_as_much_as_the_statistics_count(uow):
    """n of a slice's statistics is the number of trades that explain lists under it."""
    lessons = [x for x in uow.lessons.values() if x.lesson_type == "pm_strength"]
    assert lessons
    for lesson in lessons:
        told = views.explain(uow, lesson.id)["lesson"]
        assert told["statistics"]["n"] == len(told["evidence_ids"]), told["scope"]


def test_trace_agrees_with_what_is_observed(flow, uow):
    """The trace of a packet names the same last stage as the SQL does."""
    same = {"positions": "position", "transition": "position", "evidence": "close"}
    for fate in observe(f"sqlite:///{flow.path}", last=10_000)[1]:
        told = views.trace(uow, fate.packet)
        assert (told["verdict"] == "arrived") == (fate.verdict == "arrived"), fate
        if fate.verdict == "rejected":
            assert (told["stage"], told["verdict"]) == ("decision", "died"), fate
        elif fate.reached not in ("decision", "positions"):  # a queued decision has no position of its own
            assert told["stage"] == same.get(fate.reached, fate.reached), fate


def test_a_rejected_packet_says_why(uow):
    """A signal that asked for no buy is traced to its decision, with the reason."""
    rejected = [s for s in uow.log.read(0, ["decision_lowcap"]) if s.payload.action == "reject"]
    assert rejected
    told = views.trace(uow, rejected[0].correlation_id)

    assert (told["stage"], told["verdict"]) == ("decision", "died")
    assert told["why"]


def _nudged(uow, kind):
    return [s for s in uow.log.read(0, [kind]) if any(n.applied != n.base for n in s.payload.nudges)]


# ------------------------------------------------------------------ the log is the truth


def test_every_projection_refolds_equal(flow, uow):
    """Positions, trades, decisions, curators, accounts, observations, stats, lessons, configs follow from the log
    alone."""
    found = rebuild(uow, trading_rules(world.settings_for(flow.url), ["1m"]), world.EAGER)

    assert found.differences == ()
    assert found.head == flow.head
    assert min(found.rows.values()) > 0, found.rows


def test_a_rebuild_with_another_learner_is_found_different(flow, uow):
    """The comparison can fail: refolded under other learning constants, stored lessons no longer follow."""
    found = rebuild(uow, trading_rules(world.settings_for(flow.url), ["1m"]), LearningConfig())

    assert not found.equal


def test_settled_learning_constants_run_the_loop_too():
    """With the settled constants two days trade and gather statistics, and nothing that small is believed."""
    store = MemoryStore()
    world.run_days(store, 2.0, learning=LearningConfig())
    with store.reader() as uow:
        assert len(uow.trades) > 0
        assert len(uow.stats) > 0
        assert len(uow.config_versions) == 0
