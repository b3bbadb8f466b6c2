"""The table behind docs/rules_on_real_bars.md: each rule, gate, limit, protection and reason to skip acts where its
need is met and does not where it is missing; of several rules that match, the first of the table wins.

The ids of these tests are the names on that page.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from itertools import product

import pytest

from edgebook.domain.book import Curator, Emergency, Ledger, Pool
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.protection import BOOK, REASONS, Losses, NavMarks, Protection, pattern_scope, token_scope
from edgebook.domain.reading import EXIT_REASONS
from edgebook.engine.gates import BASE_GATES, Flags, GateReport, evaluate
from edgebook.overrides.combine import apply_pattern_execution_overrides
from edgebook.overrides.history import ConfigHistory
from edgebook.trading import actions, terms
from edgebook.trading.actions import PlannedAction, Situation, Skip, first_match, plan_action, standing_blocks
from edgebook.trading.decision import decide
from edgebook.trading.protections import OPEN, Guard, review, switch
from edgebook.trading.risk import BookView
from edgebook.trading.rules import PmRules, ProtectionRules, RiskRules

D = Decimal
HELD = {"ledger": Ledger(D(10), D(1000), D(1000), bought=D(10)), "trade_id": "trade-1", "status": "active"}
LEVEL = {"trim_flag": True, "nearest_level_price": 110.0, "nearest_level_distance_atr": 0.2}
DX = {"price": 96.0, "ts_score": 0.7, "dx": 0.9}
BUY = {"ts_score": 0.7}
FREE = BookView(D(100_000), D(100_000))


@pytest.fixture
def at(w):
    """Builds the situation of one bar: ``at(position fields, state, reading fields, pm switches, ...)``."""

    def build(held=None, state="S1", bar=None, pm=None, *, book=FREE, volume=1e9, guard=OPEN, report=None):
        reading = w.reading(state, w.T0, **(bar or {}))
        history = ConfigHistory()
        return Situation(
            position=w.position(**({"attempt_id": "attempt-1"} | (held or {}))),
            reading=reading,
            report=report or evaluate(reading, BASE_GATES),
            controls=apply_pattern_execution_overrides(history, state, (), reading.ts, "1h"),
            regime=w.regime(),
            scope=(),
            history=history,
            rules=replace(w.PLAIN, pm=PmRules(**(pm or {}))),
            book=lambda: book,
            bar_volume_usd=volume,
            guard=guard,
        )

    return build


# ---------------------------------------------------------------- rules, through ticks and fills


def holding(world):
    """An S1 entry, filled."""
    world.s1_buy()
    world.bar("S1", 99.0)


def holding_in_s3(world):
    """The same trade, carried into S3."""
    world.s1_buy()
    world.bar("S2", 104.0)
    world.bar("S3", 105.0)


def flat_in_s3(world):
    """S3 reached without a trade."""
    world.bar("S1", 90.0)
    world.bar("S2", 104.0)
    world.bar("S3", 105.0)


def after_a_trim(world):
    """Holding in S3 with the proceeds of one trim in the pool."""
    holding_in_s3(world)
    world.trim(110.0)
    world.bar("S3", 105.0)
    assert world.position.pool.basis > 0


def after_an_emergency(world):
    """Everything sold below EMA333, the trade open."""
    holding_in_s3(world)
    world.emergency()
    world.bar("S3", 94.5, emergency_exit=True)
    assert world.position.emergency.exit_value > 0


def flat_in_s2(world):
    """S2 reached without a trade: armed."""
    world.bar("S1", 90.0)
    world.bar("S2", 104.0)


ACTS = {
    # rule: (switches, what goes before, the bar it acts on)
    1: ({}, holding, lambda world: world.over("S1", 96.0)),
    2: ({}, holding_in_s3, lambda world: world.emergency()),
    3: ({}, holding_in_s3, lambda world: world.trim(110.0)),
    4: ({"reclaim_enabled": True}, after_an_emergency, lambda world: world.bar("S3", 99.0, reclaimed_ema333=True)),
    5: ({}, lambda world: world.bar("S0"), lambda world: world.s1_buy()),
    6: ({}, flat_in_s2, lambda world: world.bar("S2", 95.2, ts_score=0.7)),
    7: ({}, after_a_trim, lambda world: world.dx_buy(96.0)),
    8: ({}, flat_in_s3, lambda world: world.dx_buy(96.0)),
    9: ({}, flat_in_s3, lambda world: world.bar("S3", 101.0, first_dip=True)),
}

SILENT = {
    # rule: (switches, what goes before, the bar it does not act on); one need is missing
    1: ({}, lambda world: world.bar("S1", 90.0), lambda world: world.over("S1", 96.0)),
    2: ({}, flat_in_s3, lambda world: world.emergency()),
    3: ({}, holding_in_s3, lambda world: world.bar("S3", 110.0, trim_flag=True, ox=0.8)),
    4: ({"reclaim_enabled": False}, *ACTS[4][1:]),
    5: ({}, lambda world: world.bar("S0"), lambda world: world.bar("S1", 100.0, ts_score=0.59)),
    6: ({}, flat_in_s2, lambda world: world.bar("S2", 95.51, ts_score=0.7)),
    7: ({}, after_a_trim, lambda world: world.dx_buy(98.1)),
    8: ({}, lambda world: (flat_in_s3(world), world.dx_buy(96.0), world.bar("S3", 105.0)), ACTS[8][2]),
    9: ({"first_dip_enabled": False}, *ACTS[9][1:]),
}


def told(w, case):
    """Rules of the actions before and on the last bar of a case."""
    switches, before, bar = case
    world = w.World(rules=replace(w.PLAIN, pm=PmRules(**switches)))
    before(world)
    earlier = len(world.actions)
    bar(world)
    return [rule for rule, _ in world.actions[earlier:]]


@pytest.mark.parametrize("rule", sorted(ACTS))
def test_a_rule_acts_on_its_bar(w, rule):
    """From ticks and fills alone, the rule plans the one action of its bar."""
    assert told(w, ACTS[rule]) == [rule]


@pytest.mark.parametrize("rule", sorted(SILENT))
def test_a_rule_is_silent_without_its_need(w, rule):
    """Nothing held (1, 2), no level (3), a switch off (4, 9), TS, halo or hallway missed (5, 6, 7), arming used (8)."""
    assert told(w, SILENT[rule]) == []


def test_the_tables_hold_every_rule_of_the_code():
    """A new rule needs a case that reaches it and one that does not."""
    assert sorted(ACTS) == sorted(SILENT) == sorted(actions._SPECS)


POOLS = {
    "empty": Pool(),
    "fresh": Pool(D(900)),
    "next rung": Pool(D(900), True, 1, 96.0),
    "above the next rung": Pool(D(900), True, 1, 95.9),
    "rungs used": Pool(D(900), True, 3, 96.0),
}


HOLDINGS = {
    "nothing": {},
    "a crumb": {"ledger": Ledger(D("0.05"), D(5), D(5), bought=D("0.05")), "trade_id": "trade-1", "status": "active"},
    "much": HELD,
}


def rules_met(state, leaves, emergency, trims, reclaims, buys, dips, holds, closing, pool, sold, fresh):
    """Numbers of the rules whose needs are met, in words of trading.md 3.4 and not of the code."""
    held, rung_is_due = holds != "nothing", pool in ("fresh", "next rung")
    hallway = state == "S3" and buys and not emergency
    table = {
        1: held and (leaves or state == "S0" or closing),
        2: held and state == "S3" and emergency and not sold,
        3: held and state in ("S2", "S3") and trims,
        4: state == "S3" and reclaims and sold,
        5: state == "S1" and buys and fresh,
        6: state == "S2" and buys and ((not held and fresh) or pool == "fresh"),
        7: hallway and rung_is_due,
        8: hallway and pool == "empty" and fresh,
        9: state == "S3" and dips and fresh,
    }
    return [rule for rule, met in table.items() if met and (rule <= 3 or not closing)]


def winner(met, holds):
    """The lowest number, or the next one where that is a trim of a crumb, which no venue would take."""
    gives_way = met[:1] == [3] and holds == "a crumb" and len(met) > 1
    return next(iter(met[1:] if gives_way else met), 0)


def test_of_the_rules_that_match_the_first_wins(at):
    """On each of 38,400 combinations of needs the lowest number acts; a trim too small to be ordered gives way to the
    next. Every rule wins and, but for 1, also loses."""
    yes_no = (False, True)
    won, lost, given_way = Counter(), Counter(), Counter()
    for case in product(("S0", "S1", "S2", "S3", "S4"), *[yes_no] * 6, HOLDINGS, yes_no, POOLS, yes_no, yes_no):
        state, leaves, emergency, trims, reclaims, buys, dips, holds, closing, pool, sold, fresh = case
        flags = Flags(buys and state == "S1", buys and state in ("S2", "S3"))
        bar = {"price": 96.0, "exit_position": leaves, "emergency_exit": emergency, "reclaimed_ema333": reclaims}
        bar |= {"first_dip": dips} | (LEVEL | {"trim_flag": trims})
        position = HOLDINGS[holds] | {"status": "closing" if closing else "active", "pool": POOLS[pool]}
        position |= {"s1_used": not fresh, "armed_s2": fresh, "armed_s3": fresh, "first_dip_used": not fresh}
        position |= {"emergency": Emergency(True, D(500), False) if sold else Emergency()}
        report = GateReport(state, BASE_GATES, flags, flags)
        met = rules_met(*case)
        first = winner(met, holds)
        assert first_match(at(position, state, bar, {"reclaim_enabled": True}, report=report)) == first
        won.update([first] if first else [])
        lost.update(rule for rule in met if rule > first)
        given_way.update([first] if met[:1] == [3] and first > 3 else [])
    assert sum(won.values()) > 1_000
    assert set(won) == set(ACTS)
    assert set(lost) == set(ACTS) - {1}
    assert set(given_way) == {4, 6, 7, 8, 9}


# ---------------------------------------------------------------- reasons a trade is closed for


def flat_after_an_emergency(world):
    """The emergency exit has filled at the open of this bar."""
    holding_in_s3(world)
    world.emergency()
    world.bar("S3", 94.5, emergency_exit=True)


EXITS = {
    # reason: (switches, what goes before, the bar that leads to it)
    "s1_to_s0_bearish_order": ({}, holding, lambda world: world.over("S1", 96.0)),
    "all_emas_below_333": ({}, holding_in_s3, lambda world: world.over("S3", 93.0)),
    "fast_band_at_bottom": (
        {}, holding, lambda world: world.bar("S0", 96.0, exit_position=True, exit_reason="fast_band_at_bottom")
    ),
    "attempt_over": ({}, flat_after_an_emergency, lambda world: world.bar("S0", 93.0)),
    "disaster_stop": ({"disaster_stop_atr": 3.0}, holding, lambda world: world.bar("S1", 96.99)),
    "time_stop": ({"max_bars_in_attempt": 2}, holding, lambda world: world.bar("S1", 99.0)),
    "emergency": ({"emergency_timeout_bars": 2}, flat_after_an_emergency, lambda world: world.bar("S3", 94.0)),
}  # fmt: skip
STAYS = {
    # reason: (switches, what goes before, the bar that does not); a hair short of it
    "s1_to_s0_bearish_order": ({}, holding, lambda world: world.bar("S1", 96.0)),
    "all_emas_below_333": ({}, holding_in_s3, lambda world: world.bar("S3", 95.1)),
    "fast_band_at_bottom": ({}, holding, lambda world: world.bar("S1", 96.0)),
    "attempt_over": ({}, flat_after_an_emergency, lambda world: world.bar("S3", 93.0)),
    "disaster_stop": ({"disaster_stop_atr": 3.0}, holding, lambda world: world.bar("S1", 97.0)),
    "time_stop": ({"max_bars_in_attempt": 3}, holding, lambda world: world.bar("S1", 99.0)),
    "emergency": ({"emergency_timeout_bars": 3}, flat_after_an_emergency, lambda world: world.bar("S3", 94.0)),
}


def closed_for(w, case):
    """Reasons of the trades closed once the order of the last bar of a case has filled."""
    switches, before, bar = case
    world = w.World(rules=replace(w.PLAIN, pm=PmRules(**switches)))
    before(world)
    assert world.position.trade_id
    bar(world)
    world.settle(world.price, world.now)
    return [strand.payload.exit_reason for strand in world.kinds("position_closed")]


@pytest.mark.parametrize("reason", sorted(EXITS))
def test_an_exit_closes_the_trade_for_its_cause(w, reason):
    """From ticks and fills alone: one trade closed, for this."""
    assert closed_for(w, EXITS[reason]) == [reason]


@pytest.mark.parametrize("reason", sorted(STAYS))
def test_no_exit_closes_the_trade_without_the_cause(w, reason):
    """A hair short of it, and with the rule off where it has a switch, the trade stays open."""
    assert closed_for(w, STAYS[reason]) == []
    if EXITS[reason][0]:
        assert closed_for(w, ({}, *EXITS[reason][1:])) == []


def test_the_tables_hold_every_exit_of_the_code():
    """A new reason needs a case that leads to it and one that does not."""
    assert sorted(EXITS) == sorted(STAYS) == sorted((*EXIT_REASONS[1:], "attempt_over", *terms.CUTS, "emergency"))


# ---------------------------------------------------------------- approval gates


class Token:
    """A row of the token table."""

    ticker, mcap_usd = "TOK", 9e9


GATES = {
    # gate: what it acts on, whether that passes, what it says
    "supported_chain": ({"chain": "tron"}, {}, False, "tron is not one of"),
    "curator_score": ({}, {"curator": Curator("ann", "active", 0.6, 0.0999)}, False, "score 0.0999, needs 0.1"),
    "intent_buy": ({"intent": "profit_taking"}, {}, False, "does not ask for a buy"),
    "known_token": ({"symbol": "WHO"}, {}, False, "WHO is not in the token table"),
    "not_already_holding": ({}, {"held": True}, True, "held on 1h"),
    "portfolio_capacity": ({}, {"active_positions": 69}, True, "69 active positions, warning"),
    "market_cap": ({"mcap_usd": 9_999.0}, {}, False, "below the floor of 10000"),
    "liquidity": ({"liquidity_usd": 4_999.0}, {}, False, "below the floor of 5000"),
    "volume": ({"vol24h_usd": 99_999.0}, {}, True, "note: below 100000"),
    "age": ({"age_days": 10.0}, {}, True, "10 days"),
}

CALM = {
    # gate: what it has nothing to say of, and how that passes
    "supported_chain": ({"chain": "solana"}, {}, True),
    "curator_score": ({}, {"curator": Curator("ann", "active", 0.6, 0.1)}, True),
    "intent_buy": ({"intent": "research_positive"}, {}, True),
    "known_token": ({}, {}, True),
    "not_already_holding": ({}, {}, True),
    "portfolio_capacity": ({}, {"active_positions": 68}, True),
    "market_cap": ({"mcap_usd": 10_000.0}, {}, True),
    "liquidity": ({"liquidity_usd": 5_000.0}, {}, True),
    "volume": ({"vol24h_usd": 100_000.0}, {}, True),
    "age": ({"age_days": None}, {}, None),
}


@pytest.fixture
def decided(w):
    """``decided(signal fields, decide arguments)``: the decision's payload, everything else plain."""

    def build(signal, given):
        kw = dict(given)
        positions = {"1h": w.position(trade_id="t", status="active")} if kw.pop("held", False) else {}
        plain = {"curator": Curator("ann", "active", 0.6, 0.6), "active_positions": 3}
        found = decide(
            w.social(**signal),
            positions=positions,
            regime=w.regime(),
            tokens={"TOKUSDT": Token()},
            bars_count={"1h": 333, "4h": 333},
            history=ConfigHistory(),
            rules=w.PLAIN,
            now=w.T0,
            **(plain | kw),
        )
        return found.strands[0].payload

    return build


@pytest.mark.parametrize("name", sorted(GATES))
def test_a_gate_acts(decided, name):
    """It says what it found and, where it may refuse, refuses alone: the decision is a reject."""
    signal, given, passes, says = GATES[name]
    decision = decided(signal, given)
    gate = next(gate for gate in decision.gates if gate.name == name)
    assert gate.passed is passes
    assert says in gate.detail
    assert [g.name for g in decision.gates if g.passed is False] == ([] if passes else [name])
    assert decision.action == ("approve" if passes else "reject")


@pytest.mark.parametrize("name", sorted(CALM))
def test_a_gate_lets_pass(decided, name):
    """At the very edge of its threshold it passes, or is not evaluated, and does not say what it says when it acts."""
    signal, given, passes = CALM[name]
    decision = decided(signal, given)
    gate = next(gate for gate in decision.gates if gate.name == name)
    assert gate.passed is passes
    assert GATES[name][3] not in gate.detail
    assert decision.action == "approve"


def test_the_tables_hold_every_gate_of_the_code(decided):
    """A new gate needs a case it acts on and one it lets pass."""
    assert sorted(GATES) == sorted(CALM) == sorted(gate.name for gate in decided({}, {}).gates)


# ---------------------------------------------------------------- limits

POOLED = (HELD | {"pool": Pool(D(900))}, "S2", {"price": 95.2, "ts_score": 0.7})
ENTRY = ({}, "S1", BUY)

CUTS = {
    # limit: (bar, what is short, USD left)
    "allocation": (POOLED, {"book": replace(FREE, open_cost_position=D(9_800))}, 200),
    "cash_reserve": (ENTRY, {"book": BookView(D(100_000), D(6_003))}, 1_000),
    "exposure": (ENTRY, {"book": replace(FREE, open_cost_total=D(98_000))}, 2_000),
    "per_token": (ENTRY, {"book": replace(FREE, open_cost_token=D(18_000))}, 2_000),
    "participation": (ENTRY, {"volume": 50_000.0}, 2_500),
}
JUST_INSIDE = {
    # limit: (bar, enough of it, USD wanted)
    "allocation": (POOLED, {"book": replace(FREE, open_cost_position=D(9_730))}, 270),
    "cash_reserve": (ENTRY, {"book": BookView(D(100_000), D(8_009))}, 3_000),
    "exposure": (ENTRY, {"book": replace(FREE, open_cost_total=D(97_000))}, 3_000),
    "per_token": (ENTRY, {"book": replace(FREE, open_cost_token=D(17_000))}, 3_000),
    "participation": (ENTRY, {"volume": 60_000.0}, 3_000),
    "min_notional": (({"allocation_pct": 0.017}, "S1", BUY), {}, "5.1"),
}
USED_UP = {
    # limit: (bar, nothing of it left, what the skip says)
    "allocation": (POOLED, {"book": replace(FREE, open_cost_position=D(10_000))}, ("allocation", "min_notional")),
    "cash_reserve": (ENTRY, {"book": BookView(D(100_000), D(5_000))}, ("cash_reserve", "min_notional")),
    "exposure": (ENTRY, {"book": replace(FREE, open_cost_total=D(100_000))}, ("exposure", "min_notional")),
    "per_token": (ENTRY, {"book": replace(FREE, open_cost_token=D(20_000))}, ("per_token", "min_notional")),
    "participation": (ENTRY, {"volume": 99.0}, ("participation", "min_notional")),
    "min_notional": (({"allocation_pct": 0.0166}, "S1", BUY), {}, ("min_notional",)),
}


@pytest.mark.parametrize("name", sorted(CUTS))
def test_a_limit_cuts_the_order_and_is_named(at, name):
    """The planned order is what the limit leaves, and no other limit is named."""
    bar, short, left = CUTS[name]
    plan = plan_action(at(*bar, **short))
    assert isinstance(plan, PlannedAction)
    assert (plan.notional_usd, plan.caps) == (left, (name,))


@pytest.mark.parametrize("name", sorted(JUST_INSIDE))
def test_an_order_just_inside_a_limit_is_whole(at, name):
    """An order that takes all the limit has is not cut."""
    bar, enough, wanted = JUST_INSIDE[name]
    plan = plan_action(at(*bar, **enough))
    assert isinstance(plan, PlannedAction)
    assert (plan.notional_usd, plan.caps) == (D(wanted), ())


@pytest.mark.parametrize("name", sorted(USED_UP))
def test_a_limit_that_is_used_up_skips_the_buy(at, name):
    """Nothing is planned, and the skip names every limit on the way."""
    bar, nothing, names = USED_UP[name]
    assert plan_action(at(*bar, **nothing)).reasons == tuple(f"caps.{one}" for one in names)


# ---------------------------------------------------------------- reasons to skip, and to block a window

TINY = HELD | {"ledger": Ledger(D("0.05"), D(5), D(5), bought=D("0.05"))}
STOPS = {
    # reason: (situation it stops, the same without it)
    "order_open": (({"order": True}, "S1", BUY), ({}, "S1", BUY)),
    "no_attempt": (({"attempt_id": ""}, "S1", BUY), ({"attempt_id": "attempt-1"}, "S1", BUY)),
    "not_trading": (({"status": "dormant"}, "S1", BUY), ({"status": "active"}, "S1", BUY)),
    "paused": (({"status": "paused"}, "S1", BUY), ({"status": "active"}, "S1", BUY)),
    "min_notional": ((TINY, "S3", LEVEL), (HELD, "S3", LEVEL)),
    "canary": (({"listed": "OTHER"}, "S1", BUY), ({"listed": "TOKUSDT"}, "S1", BUY)),
    "episode_block": (({"blocked": "S1"}, "S1", BUY), ({"blocked": "S2"}, "S1", BUY)),
}
BLOCKS = {
    # reason: (situation it blocks, one it does not); both with the flag off or on, it does not matter
    "no_attempt": (({"attempt_id": ""}, "S1", {}), ({}, "S1", {})),
    "not_trading": (({"status": "closing"}, "S1", {}), ({"status": "active"}, "S1", {})),
    "paused": (({"status": "paused"}, "S1", {}), ({"status": "active"}, "S1", {})),
    "order_open": (({"order": True}, "S1", {}), ({}, "S1", {})),
    "canary": (({"listed": "OTHER"}, "S1", {}), ({"listed": "TOKUSDT"}, "S1", {})),
    "episode_block": (({"blocked": "S1"}, "S1", {}), ({"blocked": "S2"}, "S1", {})),
    "s1_used": (({"s1_used": True}, "S1", {}), ({"s1_used": False}, "S1", {})),
    "dx_spacing": ((HELD | {"pool": POOLS["above the next rung"]}, "S3", DX), (HELD | {"pool": Pool(D(9))}, "S3", DX)),
    "no_pool": (({}, "S3", DX), (HELD | {"pool": Pool(D(9))}, "S3", DX)),
    "not_armed": (({}, "S3", DX), ({"armed_s3": True}, "S3", DX)),
    "flat_required": (
        (HELD | {"armed_s3": True}, "S3", DX, {"pool_only": True}),
        ({"armed_s3": True}, "S3", DX, {"pool_only": True}),
    ),
}


@pytest.fixture
def with_order(at, world):
    """`at`, where the position field ``order`` stands for an order that waits, ``listed`` for the one token that may be
    bought."""
    world.s1_buy()
    waiting = {"planned": world.position.planned}

    def build(held, *rest):
        fields = {name: value for name, value in held.items() if name not in ("order", "listed")}
        s = at(fields | (waiting if held.get("order") else {}), *rest)
        listed = frozenset({held["listed"]}) if "listed" in held else frozenset()
        s.rules = replace(s.rules, risk=RiskRules(canary=listed))
        return s

    return build


@pytest.mark.parametrize("reason", sorted(STOPS))
def test_a_reason_to_skip_stops_the_action(with_order, reason):
    """A rule matches, nothing is planned, and this alone is the reason."""
    s = with_order(*STOPS[reason][0])
    assert plan_action(s) == Skip(first_match(s), (reason,))
    assert first_match(s) > 0


@pytest.mark.parametrize("reason", sorted(STOPS))
def test_without_the_reason_to_skip_the_action_is_planned(with_order, reason):
    """The same rule on the same bar."""
    plan = plan_action(with_order(*STOPS[reason][1]))
    assert isinstance(plan, PlannedAction)
    assert plan.rule == first_match(with_order(*STOPS[reason][0]))


def blocked_by(w, with_order, reason, *, there):
    """What a window is blocked by where the reason is there, or is not."""
    if reason != "order_failed":
        return standing_blocks(with_order(*BLOCKS[reason][0 if there else 1]))
    world = w.World(refuse="rejected" if there else "")
    world.s1_buy()
    world.bar("S1", 90.0)
    (window,) = world.kinds("uptrend_buy_window")
    return window.payload.blocked_by


@pytest.mark.parametrize("reason", sorted((*BLOCKS, "order_failed")))
def test_a_window_is_blocked_by_the_reason(w, with_order, reason):
    """No gate rule could buy on this bar, whatever the gates say, or its order came to nothing; the reason is named."""
    assert reason in blocked_by(w, with_order, reason, there=True)


@pytest.mark.parametrize("reason", sorted((*BLOCKS, "order_failed")))
def test_a_window_is_not_blocked_without_the_reason(w, with_order, reason):
    """Nothing stands in the way."""
    assert blocked_by(w, with_order, reason, there=False) == ()


# ---------------------------------------------------------------- protections

S1_KEY = "module=pm|pattern_key=uptrend.S1.buy_flag"
TOKEN = token_scope("exchange", "TOKUSDT")
NOW = 20_000 * DAY + HOUR
MARKS = NavMarks(20_000, D(1_000), D(1_000), NOW)
CAUSES = {
    # protection: (settings, its cause at its edge, the same a hair short of it); each (row, value of the book)
    "kill_switch": ({}, (Protection(BOOK), True), (Protection(BOOK), False)),
    "stop_buy": ({"stop_buy": True}, (Protection(BOOK), None), (Protection(TOKEN), None)),
    "daily_loss": ({"daily_loss": D("0.1")}, (Protection(BOOK, nav=MARKS), 900), (Protection(BOOK, nav=MARKS), 901)),
    "drawdown": ({"drawdown": D("0.1")}, (Protection(BOOK, nav=MARKS), 900), (Protection(BOOK, nav=MARKS), 901)),
    "cooldown": (
        {"cooldown": HOUR},
        (Protection(TOKEN, Losses(1, NOW - HOUR + 1)), None),
        (Protection(TOKEN, Losses(1, NOW - HOUR)), None),
    ),
    "loss_streak": (
        {"loss_streak": 3, "loss_streak_pause": DAY},
        (Protection(pattern_scope(S1_KEY), Losses(3, NOW - HOUR)), None),
        (Protection(pattern_scope(S1_KEY), Losses(2, NOW - HOUR)), None),
    ),
}


def turned_on(settings, row, value):
    """Reasons that go on at ``NOW``."""
    if value in (True, False):
        strands = switch(row, value, NOW)
    else:
        strands = review([row], ProtectionRules(**settings), NOW, None if value is None else D(value))
    return [strand.payload.reason for strand in strands if strand.kind == "protection_changed"]


@pytest.mark.parametrize("reason", REASONS)
def test_a_protection_goes_on_with_its_cause(reason):
    """At the very edge of its cause it is on."""
    settings, cause, _ = CAUSES[reason]
    assert turned_on(settings, *cause) == [reason]


@pytest.mark.parametrize("reason", REASONS)
def test_a_protection_stays_off_without_its_cause(reason):
    """A hair short of its cause it is off, and so it is with the cause where the setting is off."""
    settings, cause, short = CAUSES[reason]
    assert turned_on(settings, *short) == []
    assert reason == "kill_switch" or turned_on({}, *cause) == []


@pytest.mark.parametrize("reason", REASONS)
def test_a_protection_bars_buys(at, reason):
    """A buy is skipped with the protection's name, the window is blocked by it, and an exit does not ask."""
    name = f"protection.{reason}"
    everything = Guard((name,))
    assert plan_action(at({}, "S1", BUY, guard=everything)) == Skip(5, (name,))
    assert standing_blocks(at({}, "S1", {}, guard=everything)) == (name,)
    leaving = plan_action(at(HELD, "S0", {"exit_position": True}, guard=everything))
    assert isinstance(leaving, PlannedAction)
    assert (leaving.rule, leaving.quantity) == (1, D(10))


@pytest.mark.parametrize("reason", REASONS)
def test_a_protection_of_one_pattern_lets_others_buy(at, reason):
    """Only the pattern that is barred is skipped."""
    one = Guard((), {pattern_scope(S1_KEY): (f"protection.{reason}",)})
    assert plan_action(at({}, "S1", BUY, guard=one)) == Skip(5, (f"protection.{reason}",))
    assert isinstance(plan_action(at({"armed_s2": True}, *POOLED[1:], guard=one)), PlannedAction)
