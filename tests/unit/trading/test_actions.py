"""Each numbered rule of trading.md 3.4: reachable, silent when one of its needs is missing, and first match wins."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from edgebook.domain.book import Emergency, Ledger, Pool
from edgebook.engine.gates import BASE_GATES, evaluate
from edgebook.overrides.combine import apply_pattern_execution_overrides
from edgebook.overrides.history import ConfigHistory
from edgebook.trading.actions import PlannedAction, Situation, Skip, first_match, plan_action, standing_blocks
from edgebook.trading.protections import Guard
from edgebook.trading.risk import BookView
from edgebook.trading.rules import PmRules

D = Decimal
HELD = {"ledger": Ledger(D(10), D(1000), D(1000), bought=D(10)), "trade_id": "trade-1", "status": "active"}
LEVEL = {"trim_flag": True, "nearest_level_price": 110.0, "nearest_level_distance_atr": 0.2}
DX = {"price": 96.0, "ts_score": 0.7, "dx": 0.9}


@pytest.fixture
def at(w):
    """Builds the situation of one bar: ``at(position fields, state, reading fields, PmRules fields)``."""

    def build(held=None, state="S1", bar=None, pm=None, **situation):
        position = w.position(**({"attempt_id": "attempt-1"} | (held or {})))
        reading = w.reading(state, w.T0, **(bar or {}))
        history = ConfigHistory()
        return Situation(
            position=position,
            reading=reading,
            report=evaluate(reading, BASE_GATES),
            controls=apply_pattern_execution_overrides(history, state, (), reading.ts, "1h"),
            regime=w.regime(),
            scope=(),
            history=history,
            rules=replace(w.PLAIN, pm=PmRules(**(pm or {}))),
            book=lambda: BookView(D(100_000), D(100_000)),
            bar_volume_usd=1e9,
            **situation,
        )

    return build


REACHED = {
    1: (HELD, "S0", {"exit_position": True, "exit_reason": "all_emas_below_333", "prev_state": "S3"}, {}),
    2: (HELD, "S3", {"emergency_exit": True, "price": 94.0}, {}),
    3: (HELD, "S3", LEVEL, {}),
    4: (
        {"trade_id": "t", "status": "active", "emergency": Emergency(True, D(500), False)},
        "S3",
        {"reclaimed_ema333": True},
        {"reclaim_enabled": True},
    ),
    5: ({}, "S1", {"ts_score": 0.7}, {}),
    6: ({"armed_s2": True}, "S2", {"price": 95.2, "ts_score": 0.7}, {}),
    7: (HELD | {"pool": Pool(D(900))}, "S3", DX, {}),
    8: ({"armed_s3": True}, "S3", DX, {}),
    9: ({}, "S3", {"first_dip": True, "price": 99.0}, {}),
}

EXPECTED = {
    # rule: (key, category, decision type, side)
    1: ("uptrend.S3.exit", "exit", "exit", "sell"),
    2: ("uptrend.S3.panic_exit", "exit", "emergency_exit", "sell"),
    3: ("uptrend.S3.trim", "trim", "trim", "sell"),
    4: ("uptrend.S3.reclaimed_ema333", "add", "add", "buy"),
    5: ("uptrend.S1.buy_flag", "entry", "entry", "buy"),
    6: ("uptrend.S2.buy_flag", "entry", "entry", "buy"),
    7: ("uptrend.S3.dx", "add", "add", "buy"),
    8: ("uptrend.S3.buy_flag", "entry", "entry", "buy"),
    9: ("uptrend.S3.first_dip_buy", "entry", "entry", "buy"),
}


@pytest.mark.parametrize("rule", sorted(REACHED))
def test_every_rule_is_reachable_with_its_own_pattern(at, rule):
    """Decisions 25: key, category and decision type per rule."""
    s = at(*REACHED[rule])
    assert first_match(s) == rule
    plan = plan_action(s)
    assert isinstance(plan, PlannedAction)
    key, category, decision_type, side = EXPECTED[rule]
    assert (plan.pattern.key, plan.pattern.category) == (f"module=pm|pattern_key={key}", category)
    assert (plan.decision_type, plan.side) == (decision_type, side)
    assert plan.takes_window == (rule in (5, 7, 8))
    assert (plan.notional_usd is None) == (side == "sell")


@pytest.mark.parametrize("rule", [5, 6, 7, 8, 9])
def test_with_an_open_trade_every_buy_is_an_add(at, rule):
    """Category is entry without, add with an open trade."""
    held, state, bar, pm = REACHED[rule]
    plan = plan_action(at(held | {"trade_id": "t", "status": "active"}, state, bar, pm))
    assert isinstance(plan, PlannedAction)
    assert (plan.rule, plan.pattern.category, plan.decision_type) == (rule, "add", "add")


WITHOUT = [
    (1, {"ledger": Ledger()}, {}, {}),
    (1, {}, {"state": "S2", "exit_position": False}, {}),
    (2, {"ledger": Ledger()}, {}, {}),
    (2, {}, {"emergency_exit": False}, {}),
    (3, {"ledger": Ledger()}, {}, {}),
    (3, {}, {"trim_flag": False}, {}),
    (3, {}, {"nearest_level_price": float("nan")}, {}),
    (4, {}, {}, {"reclaim_enabled": False}),
    (4, {}, {"reclaimed_ema333": False}, {}),
    (4, {"emergency": Emergency(True, D(500), True)}, {}, {}),
    (4, {"emergency": Emergency(True, D(0), False)}, {}, {}),
    (5, {"s1_used": True}, {}, {}),
    (5, {}, {"ts_score": 0.59}, {}),
    (5, {}, {}, {"s1_policy": "after_breakout"}),
    (6, {"armed_s2": False}, {}, {}),
    (6, {}, {"price": 95.6}, {}),
    (6, HELD, {}, {}),
    (6, HELD | {"pool": Pool(D(5), recovery=True)}, {}, {}),
    (7, {"pool": Pool(D(900), next_arm=95.9)}, {}, {}),
    (7, {"pool": Pool(D(900), dx_count=3)}, {}, {}),
    (7, {}, {"dx": 0.5}, {}),
    (7, {}, {"price": 98.1}, {}),
    (8, {"armed_s3": False}, {}, {}),
    (8, HELD, {}, {"pool_only": True}),
    (8, {}, {"emergency_exit": True}, {}),
    (9, {"first_dip_used": True}, {}, {}),
    (9, {}, {}, {"first_dip_enabled": False}),
    (9, {}, {"first_dip": False}, {}),
]


@pytest.mark.parametrize(("rule", "held", "bar", "pm"), WITHOUT)
def test_a_rule_is_silent_without_one_of_its_needs(at, rule, held, bar, pm):
    """Taking one need away silences the rule."""
    base_held, state, base_bar, base_pm = REACHED[rule]
    bar = base_bar | bar
    state = bar.pop("state", state)
    assert first_match(at(base_held | held, state, bar, base_pm | pm)) != rule


def test_the_first_match_wins(at):
    """Exit before emergency before trim before any buy; one action per bar."""
    everything = LEVEL | DX | {"first_dip": True, "emergency_exit": True, "exit_position": True}
    held = HELD | {"pool": Pool(D(900)), "armed_s3": True}
    assert first_match(at(held, "S3", everything)) == 1
    assert first_match(at(held, "S3", everything | {"exit_position": False})) == 2
    calm = everything | {"exit_position": False, "emergency_exit": False}
    assert first_match(at(held, "S3", calm)) == 3
    assert first_match(at(held, "S3", calm | {"trim_flag": False})) == 7
    assert first_match(at(held | {"pool": Pool()}, "S3", calm | {"trim_flag": False})) == 8
    assert first_match(at(held | {"pool": Pool(), "armed_s3": False}, "S3", calm | {"trim_flag": False})) == 9


@pytest.mark.parametrize("state", ["S0", "S4"])
def test_nothing_is_bought_in_s0_and_s4(at, state):
    """S0 only closes, S4 only watches."""
    bar = {"ts_score": 0.9, "first_dip": True, "trim_flag": True}
    assert first_match(at({"armed_s2": True, "armed_s3": True}, state, bar)) == 0


@pytest.mark.parametrize(
    ("bars", "level", "trims"),
    [(2, 105.0, False), (3, 105.0, True), (3, 110.5, False), (3, 110.51, True), (11, 110.0, False), (12, 110.0, True)],
)
def test_trim_cooldown(at, w, bars, level, trims):
    """Decisions 59: 3 bars at a level more than .5 ATR away, 12 bars at the same one."""
    held = HELD | {"last_trim_ts": w.T0 - bars * w.HOUR, "last_trim_level": level}
    assert (first_match(at(held, "S3", LEVEL)) == 3) is trims


def test_a_retest_is_paid_from_the_pool_when_holding_and_from_the_allowance_when_flat(at):
    """Rule 6: flat and armed 15 % of the allowance; holding 30 % of the pool, which is then used up."""
    flat = plan_action(at(*REACHED[6]))
    assert isinstance(flat, PlannedAction)
    assert (flat.notional_usd, flat.reasons.get("clears_pool")) == (D(1500), None)
    _held, state, bar, pm = REACHED[6]
    pooled = plan_action(at(HELD | {"pool": Pool(D(900))}, state, bar, pm))
    assert isinstance(pooled, PlannedAction)
    assert (pooled.notional_usd, pooled.reasons["clears_pool"]) == (D(270), True)


def test_the_third_rung_uses_the_pool_up(at):
    """Rule 7: at most three rungs; each knows how far below its fill the next one is."""
    held, state, bar, pm = REACHED[7]
    rungs = [plan_action(at(held | {"pool": Pool(D(900), True, n)}, state, bar | {"atr": 0.8}, pm)) for n in (0, 1, 2)]
    assert [r.reasons["clears_pool"] for r in rungs] == [False, False, True]
    assert rungs[0].reasons["dx_step"] == 0.4


def test_s1_after_breakout_waits_for_s2(at):
    """The other S1 policy: only once the attempt has seen S2."""
    pm = {"s1_policy": "after_breakout"}
    assert first_match(at({}, "S1", {"ts_score": 0.7}, pm)) == 0
    assert first_match(at({"armed_s2": True}, "S1", {"ts_score": 0.7}, pm)) == 5


def test_an_open_order_blocks_the_next_action(at, world):
    """Nothing is planned on top of an order that waits."""
    world.s1_buy()
    assert plan_action(at({"planned": world.position.planned}, "S1", {"ts_score": 0.7})) == Skip(5, ("order_open",))


def test_a_trim_below_the_smallest_order_is_skipped(at):
    """Trims have a smallest order too; exits do not."""
    tiny = HELD | {"ledger": Ledger(D("0.05"), D(5), D(5), bought=D("0.05"))}
    assert plan_action(at(tiny, "S3", LEVEL)) == Skip(3, ("min_notional",))
    assert isinstance(plan_action(at(tiny, *REACHED[1][1:])), PlannedAction)


CRUMB = HELD | {"ledger": Ledger(D("0.05"), D(5), D(5), bought=D("0.05"))}
LOWER = {
    # rule: what a crumb's trim meets on the same bar
    4: ({"emergency": Emergency(False, D(500), False)}, "S3", {"reclaimed_ema333": True}, {"reclaim_enabled": True}),
    6: ({"pool": Pool(D(900))}, "S2", {"price": 95.2, "ts_score": 0.7}, {}),
    7: ({"pool": Pool(D(900))}, "S3", DX, {}),
    8: ({"armed_s3": True}, "S3", DX, {}),
    9: ({}, "S3", {"first_dip": True, "price": 99.0}, {}),
}


@pytest.mark.parametrize("rule", sorted(LOWER))
def test_a_trim_below_the_smallest_order_gives_way_to_the_next_rule_that_matches(at, rule):
    """A crumb is not trimmed but the buy is made; where there is enough to trim, the trim comes first."""
    held, state, bar, pm = LOWER[rule]
    plan = plan_action(at(CRUMB | held, state, LEVEL | bar, pm))
    assert isinstance(plan, PlannedAction)
    assert (plan.rule, plan.side) == (rule, "buy")
    first = plan_action(at(HELD | held, state, LEVEL | bar, pm))
    assert isinstance(first, PlannedAction)
    assert first.rule == 3


def test_a_buy_that_a_small_trim_gave_way_to_gives_its_own_reasons(at, world):
    """It is the rule of the bar, so what stops it is told; the bar is not searched any further."""
    held, state, bar, pm = LOWER[9]
    barred = at(CRUMB | held | {"armed_s3": True}, state, LEVEL | bar, pm, guard=Guard(("protection.stop_buy",)))
    assert plan_action(barred) == Skip(9, ("protection.stop_buy",))
    world.s1_buy()
    waiting = at(CRUMB | held | {"planned": world.position.planned}, state, LEVEL | bar, pm)
    assert plan_action(waiting) == Skip(9, ("order_open",))


@pytest.mark.parametrize(
    ("blocked", "rules"), [("", {5, 6, 7, 8, 9}), ("S2", {5, 7, 8, 9}), ("S1", {7, 8, 9})], ids=["free", "S2", "S1"]
)
def test_a_lost_attempt_bars_its_own_states_alone(at, blocked, rules):
    """Exits, trims and S3 are never barred; a retest from the pool is a buy in S2 as well."""
    for rule, (held, state, bar, pm) in REACHED.items():
        plan = plan_action(at(held | {"blocked": blocked}, state, bar, pm))
        if rule <= 4 or rule in rules:
            assert isinstance(plan, PlannedAction)
        else:
            assert plan == Skip(rule, ("episode_block",))
    pooled = plan_action(at(HELD | {"pool": Pool(D(900)), "blocked": blocked}, "S2", {"price": 95.2, "ts_score": 0.7}))
    assert isinstance(pooled, PlannedAction) is (6 in rules)


@pytest.mark.parametrize(
    ("held", "state", "bar", "pm", "more", "blocks"),
    [
        ({}, "S1", {}, {}, {}, ()),
        ({"s1_used": True}, "S1", {}, {}, {}, ("s1_used",)),
        ({}, "S1", {}, {"s1_policy": "after_breakout"}, {}, ("not_armed",)),
        ({"attempt_id": ""}, "S1", {}, {}, {}, ("no_attempt",)),
        ({"attempt_id": ""}, "S1", {}, {"trade_mid_attempt": True}, {}, ()),
        ({"blocked": "S1"}, "S1", {}, {}, {}, ("episode_block",)),
        ({"blocked": "S2"}, "S1", {}, {}, {}, ()),
        ({"blocked": "S1", "armed_s3": True}, "S3", DX, {}, {}, ()),
        ({}, "S1", {}, {}, {"guard": Guard(("protection.stop_buy",))}, ("protection.stop_buy",)),
        ({}, "S3", DX, {}, {}, ("no_pool", "not_armed")),
        ({"armed_s3": True}, "S3", DX, {}, {}, ()),
        (HELD | {"armed_s3": True}, "S3", DX, {"pool_only": True}, {}, ("no_pool", "flat_required")),
        (HELD | {"pool": Pool(D(5), True, 1, 95.0)}, "S3", DX, {}, {}, ("dx_spacing",)),
        (HELD | {"pool": Pool(D(5), True, 1, 96.0)}, "S3", DX, {}, {}, ()),
    ],
)
def test_standing_blocks_name_the_rule_in_the_way(at, held, state, bar, pm, more, blocks):
    """Decisions 28: a window the rules could not take says which one stood in the way."""
    assert standing_blocks(at(held, state, bar, pm, **more)) == blocks


@pytest.mark.parametrize("rule", [5, 7, 8])
def test_blocks_and_rules_agree(at, rule):
    """Law: when a gate rule fires, nothing blocks; when something blocks, no gate rule can be carried out."""
    s = at(*REACHED[rule])
    assert standing_blocks(s) == ()
    assert isinstance(plan_action(s), PlannedAction)


GUARDS = {
    f"protection.{reason}": Guard((f"protection.{reason}",))
    for reason in ("kill_switch", "stop_buy", "daily_loss", "drawdown", "cooldown", "loss_streak")
}


@pytest.mark.parametrize("name", GUARDS)
@pytest.mark.parametrize("rule", REACHED)
def test_a_protection_bars_every_buy_and_no_exit_trim_or_emergency(at, rule, name):
    """Rules 4 to 9 are skipped with its name; rules 1 to 3 plan what they would without it."""
    held, state, bar, pm = REACHED[rule]
    free, barred = at(held, state, bar, pm), at(held, state, bar, pm, guard=GUARDS[name])
    if rule <= 3:
        assert plan_action(barred) == plan_action(free)
    else:
        assert isinstance(plan_action(free), PlannedAction)
        assert plan_action(barred) == Skip(rule, (name,))


@pytest.mark.parametrize("rule", [4, 5, 6, 7, 8, 9])
def test_a_pattern_that_is_barred_bars_its_own_rule_alone(at, rule):
    """A losing pattern: its rule is skipped, every other rule buys; a window says so where it is the gate's rule."""
    key = EXPECTED[rule][0]
    guard = Guard(patterns={f"pattern|{key}": ("protection.loss_streak",)})
    for other, situation in REACHED.items():
        s = at(*situation, guard=guard)
        found = plan_action(s)
        if other == rule:
            assert found == Skip(rule, ("protection.loss_streak",))
            if rule in (5, 7, 8):
                assert standing_blocks(s) == ("protection.loss_streak",)
        else:
            assert isinstance(found, PlannedAction)
            if other in (5, 7, 8):
                assert standing_blocks(s) == ()
