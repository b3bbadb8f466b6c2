"""The decision maker: gates with detail, scope, allocation, holdout, and what positions make of a decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgebook.domain.book import Curator
from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.ids import hash_share
from edgebook.domain.pattern import DM_ALLOCATION
from edgebook.domain.scope import DM_SCHEMA, PM_SCHEMA
from edgebook.overrides.history import ConfigHistory
from edgebook.overrides.record import Override, dump_documents
from edgebook.trading.decision import allocation, bucket, decide
from edgebook.trading.lifecycle import awake_strand
from edgebook.trading.position import evolve
from edgebook.trading.rules import DecisionRules, TradingRules, timeframe_splits

PM_ONLY = set(PM_SCHEMA.dims) - set(DM_SCHEMA.dims)


class Token:
    ticker = "TOK"
    mcap_usd = 9e9


@pytest.fixture
def run(w):
    """``run(signal fields, decide arguments)`` with everything else plain."""

    def build(signal=None, **kw):
        defaults = {
            "curator": Curator("ann", "testing", 0.6, 0.6),
            "positions": {},
            "regime": w.regime(scope=(("macro_phase", "Good"), ("bucket_rank_position", 2), ("A_mode", "normal"))),
            "tokens": {"TOKUSDT": Token()},
            "bars_count": {"1h": 333, "4h": 332},
            "history": ConfigHistory(),
            "rules": w.PLAIN,
            "now": w.T0,
            "active_positions": 3,
        }
        return decide(w.social(**(signal or {})), **(defaults | kw))

    return build


def gates(decided):
    return {g.name: g for g in decided.strands[0].payload.gates}


def test_a_good_signal_is_approved_and_watched_on_every_timeframe(run, w):
    """F1: one approval, one position per timeframe, shares that sum to the allocation, status by bars known."""
    decided = run()
    first, *statuses = decided.strands
    assert (first.payload.action, first.payload.allocation_pct) == ("approve", 6.0)
    assert [(s.timeframe, s.payload.status) for s in statuses] == [("1h", "watchlist"), ("4h", "dormant")]
    assert sum(s.payload.allocation_pct for s in statuses) == pytest.approx(6.0)
    assert [s.position_id for s in statuses] == list(first.payload.position_ids)
    assert {s.correlation_id for s in decided.strands} == {"signal-s1"}
    assert {s.causation_id for s in statuses} == {first.id}
    assert (first.payload.pattern_key, first.payload.action_category) == tuple(DM_ALLOCATION)
    position = evolve(None, statuses[0])
    assert (position.decision_id, position.cap_class, position.decision_used) == (first.id, "micro", False)


def test_the_scope_is_the_decision_makers_alone(run):
    """13 dims at most; A_mode of the regime stays out (mission 5.3)."""
    scope = dict(run().strands[0].scope)
    assert scope == {
        "curator": "ann", "chain": "exchange", "mcap_bucket": "2m-5m", "vol_bucket": "1m-10m", "age_bucket": "7-14d",
        "intent": "new_discovery", "mapping_confidence": "high", "mcap_vol_ratio_bucket": "2.0-5.0",
        "macro_phase": "Good", "bucket_rank_position": 2,
    }  # fmt: skip
    assert not PM_ONLY & set(scope)


@pytest.mark.parametrize(
    ("name", "signal", "kw", "detail"),
    [
        ("supported_chain", {"chain": "tron"}, {}, "tron is not one of"),
        ("curator_score", {}, {"curator": Curator("ann", "testing", 0.6, 0.05)}, "score 0.0500, needs 0.1"),
        ("curator_score", {}, {"curator": Curator("ann", "suspended", 0.6, 0.9)}, "suspended"),
        ("curator_score", {}, {"curator": Curator("ann", "inactive", 0.6, 0.9, registered=1)}, "inactive"),
        ("curator_score", {}, {"curator": Curator("ann", "active", 0.6, 0.9, enabled=False)}, "curator is disabled"),
        ("intent_buy", {"intent": "mock"}, {}, "mock does not ask"),
        ("known_token", {"symbol": "WHO"}, {}, "WHO is not in the token table"),
        ("market_cap", {"mcap_usd": 9_999.0}, {}, "below the floor of 10000"),
        ("liquidity", {"liquidity_usd": 4_999.0}, {}, "below the floor of 5000"),
    ],
)
def test_every_gate_can_refuse_and_says_why(run, name, signal, kw, detail):
    """F3: a reject carries all gates, the failing one with its detail, key and scope, allocation 0, and no
    positions."""
    decided = run(signal, **kw)
    (strand,) = decided.strands
    failing = {g.name for g in strand.payload.gates if g.passed is False}
    assert failing == {name}
    assert detail in gates(decided)[name].detail
    assert name in strand.payload.reasoning
    assert (strand.payload.action, strand.payload.allocation_pct, strand.payload.position_ids) == ("reject", 0.0, ())
    assert strand.payload.pattern_key == DM_ALLOCATION.key
    assert strand.scope["curator"] == "ann"
    assert decided.decision is None


@pytest.mark.parametrize(
    ("name", "signal", "kw"),
    [
        ("liquidity", {}, {}),
        ("market_cap", {"mcap_usd": None, "symbol": "BARE"}, {"tokens": {}}),
        ("volume", {"vol24h_usd": None}, {}),
        ("age", {"age_days": None}, {}),
        ("known_token", {}, {"tokens": {}}),
        ("portfolio_capacity", {}, {"active_positions": None}),
    ],
)
def test_an_absent_datum_is_not_evaluated_and_does_not_block(run, name, signal, kw):
    """Decisions 40: absent is None, never a pass, never a refusal."""
    decided = run(signal, **kw)
    assert gates(decided)[name].passed is None
    assert decided.decision is not None


def test_an_unregistered_curator_passes_as_testing_unless_the_policy_says_no(run, w):
    """F3: unknown curator per policy."""
    stranger, ann = Curator("ann", "testing", 0.6, 0.6), Curator("ann", "active", 0.6, 0.6, registered=1)
    strict = replace(w.PLAIN, dm=DecisionRules(unregistered_passes=False))
    for curator in (None, stranger):
        assert "unregistered: testing, score 0.6" in gates(run(curator=curator))["curator_score"].detail
        assert run(curator=curator).decision is not None
        assert run(curator=curator, rules=strict).decision is None
    assert "unregistered" not in gates(run(curator=ann, rules=strict))["curator_score"].detail
    assert run(curator=ann, rules=strict).decision is not None


def test_a_full_book_only_warns(run):
    """F3: capacity full -> approve with a warning."""
    decided = run(active_positions=69)
    assert decided.decision is not None
    assert "warning" in gates(decided)["portfolio_capacity"].detail


def test_a_missing_market_cap_is_taken_from_the_token_table(run):
    decided = run({"mcap_usd": None})
    assert decided.strands[0].scope["mcap_bucket"] == "5b+"
    assert decided.decision.cap_class == "xl"


def test_the_allocation_example_splits_as_specified():
    """trading.md 1.6: 15 * 1.2 * 1.1 = 19.8 -> .99, 2.475, 13.86, 2.475."""
    total = allocation(15.0, 1.2, 1.0, 1.1, DecisionRules())
    shares = [total * s for s in timeframe_splits(TradingRules().timeframes).values()]
    assert shares == pytest.approx([0.99, 2.475, 13.86, 2.475])


@pytest.mark.parametrize(
    ("score", "pct"), [(0.0, 4.0), (0.5, 4.0), (0.55, 5.0), (0.6, 6.0), (0.7, 10.5), (0.8, 15.0), (1.0, 15.0)]
)
def test_the_base_is_interpolated_between_the_tiers(run, score, pct):
    """Decisions 42; a score of 0 fails its gate but keeps its base for the record."""
    payload = run(curator=Curator("ann", "active", 0.6, score)).strands[0].payload
    assert payload.base_allocation_pct == pytest.approx(pct)


def learned(target=1.3):
    """A dm_alloc lesson on the curator, in force long enough to have its full value."""
    lesson = Override("lesson-1", "dm_alloc", *DM_ALLOCATION, (("curator", "ann"),), {"alloc_mult": target}, 1e12, 0)
    dm, pm = dump_documents([lesson])
    return ConfigHistory.from_versions([ConfigVersion(4, 100 * HOUR, dm, pm, "")])


def test_learning_multiplies_the_allocation_and_says_so(run):
    """alloc_mult 1.3 -> 7.8 %, with the override in the nudge and the config version on the strand."""
    strand = run(history=learned()).strands[0]
    assert strand.payload.alloc_mult == pytest.approx(1.3)
    assert strand.payload.allocation_pct == pytest.approx(7.8)
    assert [m.lesson_id for m in strand.payload.nudges[0].matched] == ["lesson-1"]
    assert (strand.config_version, strand.arm) == (4, "")


def test_a_holdout_decision_is_exactly_neutral(run, w):
    """Decisions 6, 46: by decision id, marked on the strand."""
    strand = run(history=learned(), rules=replace(w.PLAIN, holdout=1.0)).strands[0]
    assert (strand.payload.alloc_mult, strand.payload.allocation_pct, strand.arm) == (1.0, 6.0, "dm")


def test_the_holdout_share_is_about_its_setting(run, w):
    """One decision in ten, the same ones every time."""
    rules = replace(w.PLAIN, holdout=0.10)
    arms = [run({"signal_id": f"s{i}"}, rules=rules).strands[0] for i in range(300)]
    held = [s.id for s in arms if s.arm == "dm"]
    assert 15 <= len(held) <= 47
    assert held == [s.id for s in arms if hash_share(s.id, "dm") < 0.10]


def test_learning_cannot_push_an_allocation_over_its_clamp(run):
    """Law: 15 % * 1.3 is 19.5, and 20 % is never passed."""
    decided = run(history=learned(), curator=Curator("ann", "active", 0.6, 1.0))
    assert decided.strands[0].payload.allocation_pct == pytest.approx(19.5)
    assert allocation(15.0, 2.0, 2.0, 1.3, DecisionRules()) == 20.0


def test_a_flat_position_takes_a_new_decision_at_once(run, w):
    """Decisions 41: same row, new decision and allocation, first trade under it still to come."""
    flat = w.position(timeframe="1h", decision_id="old", decision_used=True, allocation_pct=1.0)
    decided = run(positions={"1h": flat})
    strand = next(s for s in decided.strands[1:] if s.timeframe == "1h")
    after = evolve(flat, strand)
    assert (after.decision_id, after.decision_used, after.status) == (decided.decision.id, False, "watchlist")
    assert after.allocation_pct == pytest.approx(6.0 * 0.70 / 0.825)


def test_a_holding_position_keeps_its_own_and_remembers_the_newest(run, w):
    """Decisions 41; F3 already holding -> approve, no new rows."""
    held = w.position(timeframe="1h", decision_id="old", trade_id="t", status="active", allocation_pct=1.0)
    decided = run(positions={"1h": held})
    assert "held on 1h" in gates(decided)["not_already_holding"].detail
    after = evolve(held, next(s for s in decided.strands[1:] if s.timeframe == "1h"))
    assert (after.decision_id, after.pending_decision_id, after.allocation_pct) == ("old", decided.decision.id, 1.0)
    assert (after.pending_since, after.status) == (w.T0, "active")


def test_a_position_whose_first_buy_is_on_the_way_keeps_its_decision(run, w, world):
    """Decisions 41: the order was placed on the word of the first; the new decision waits, and the gate says so."""
    world.s1_buy()
    decided = run(positions={"1h": world.position})
    assert "held on 1h" in gates(decided)["not_already_holding"].detail
    told = next(s for s in decided.strands[1:] if s.timeframe == "1h")
    after = evolve(world.position, told)
    assert told.payload.reason == "decision_waits"
    assert (after.decision_id, after.pending_decision_id) == ("decision-1", decided.decision.id)
    assert (after.allocation_pct, after.planned) == (10.0, world.position.planned)


def test_a_decision_lists_the_positions_it_reaches(run, w):
    """A paused one and one that answers to a newer message are not touched, so they are not named."""
    flat, paused = w.position(timeframe="1h", decision_id="newer"), w.position(timeframe="4h", status="paused")
    newer = replace(w.social(signal_id="s2"), ts_event=w.T0 + 1, ts_recorded=w.T0 + 1)
    every, none = run(), run(positions={"1h": flat, "4h": paused}, answered={"1h": newer})
    assert len(every.strands[0].payload.position_ids) == 2
    assert every.strands[0].payload.position_ids == tuple(s.position_id for s in every.strands[1:])
    assert none.decision is not None
    assert (none.strands[0].payload.position_ids, none.strands[1:]) == ((), ())


def test_a_message_dated_ahead_does_not_bar_later_ones(run, w):
    """What was heard before counts as no newer than when it was heard, whatever date it bears."""
    flat = w.position(timeframe="1h", decision_id="ahead")
    ahead = replace(w.social(signal_id="s0"), ts_event=w.T0 + 1000, ts_recorded=w.T0 - 1)
    decided = run(positions={"1h": flat}, answered={"1h": ahead})
    assert [s.timeframe for s in decided.strands[1:]] == ["1h", "4h"]


def test_an_older_message_does_not_take_over_from_a_newer_one(run, w):
    """Decisions 41: per timeframe; the decision itself is recorded and approved, the position answers to the newer."""
    flat = w.position(timeframe="1h", decision_id="newer")
    newer = replace(w.social(signal_id="s2"), ts_event=w.T0 + 1, ts_recorded=w.T0 + 1)
    decided = run(positions={"1h": flat}, answered={"1h": newer})
    assert decided.decision is not None
    assert [s.timeframe for s in decided.strands[1:]] == ["4h"]


@pytest.mark.parametrize(("ident", "takes"), [("s0", True), ("s2", False)])
def test_of_two_messages_of_one_moment_the_greater_id_is_the_newer(run, w, ident, takes):
    """Signals at one moment count in order of id (decisions 34), however they were delivered; this one is s1."""
    flat = w.position(timeframe="1h", decision_id="other")
    decided = run(positions={"1h": flat}, answered={"1h": w.social(signal_id=ident)})
    assert ("1h" in [s.timeframe for s in decided.strands[1:]]) is takes


def test_paused_positions_are_left_alone(run, w):
    """Who paused a position wants nothing new there."""
    decided = run(positions={"1h": w.position(timeframe="1h", status="paused")})
    assert [s.timeframe for s in decided.strands[1:]] == ["4h"]


def test_an_approved_decision_wakes_archived_positions_which_may_have_to_gather_bars(run, w):
    """With enough bars it is watched again, without it is dormant; it answers to the new decision in both cases."""
    asleep = {tf: w.position(id=tf, timeframe=tf, status="archived", decision_id="old") for tf in ("1h", "4h")}
    decided = run(positions=asleep)
    woken = {s.timeframe: evolve(asleep[s.timeframe], s) for s in decided.strands[1:]}
    assert {tf: p.status for tf, p in woken.items()} == {"1h": "watchlist", "4h": "dormant"}
    assert {p.decision_id for p in woken.values()} == {decided.decision.id}
    assert {s.payload.reason for s in decided.strands[1:]} == {"woken"}


def test_the_same_signal_twice_is_one_decision(run):
    """F3: ids are functions of facts."""
    assert [s.id for s in run().strands] == [s.id for s in run().strands]


def test_buckets_reach_up_to_exchange_tokens():
    """Decisions 60: intervals are [lo, hi), zero volume has the top ratio."""
    from edgebook.trading.decision import MARKET_CAPS, RATIOS, VOLUMES

    assert [bucket(VOLUMES, v) for v in (9_999, 1e6, 2.5e8)] == ["<10k", "1m-10m", "250m+"]
    assert [bucket(MARKET_CAPS, v) for v in (5e7, 1e9)] == ["50m-500m", "1b-5b"]
    assert bucket(RATIOS, float("inf")) == "100+"


def test_a_dormant_position_wakes_with_enough_bars(w):
    asleep = w.position(status="dormant")
    assert awake_strand(asleep, 332, w.T0, w.PLAIN) is None
    woken = evolve(asleep, awake_strand(asleep, 333, w.T0, w.PLAIN))
    assert woken == replace(asleep, status="watchlist", status_since=w.T0)
    assert awake_strand(woken, 400, w.T0, w.PLAIN) is None
