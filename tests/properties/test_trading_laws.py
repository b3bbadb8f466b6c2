"""Laws of the trading side over random histories: the ledger identity, the fold, limits, and silence."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from random import Random
from types import ModuleType

from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.domain.book import Account, Ledger
from edgebook.domain.codec import from_json, to_json
from edgebook.domain.strands import OrderFilled, PmAction, payload_from_json, payload_to_json
from edgebook.overrides.combine import Strength
from edgebook.trading.plan import KINDS, size_of
from edgebook.trading.position import apply_buy, apply_sell, evolve, evolve_account, is_dust, unrealised, write_off
from edgebook.trading.risk import BookView, limit_buy
from edgebook.trading.rules import PmRules, RiskRules, SizeRules
from edgebook.trading.terms import CUTS, stop_price


def _world() -> ModuleType:
    name = "edgebook_trading_world"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "unit" / "trading" / "world.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


W = _world()
D = Decimal
prices = st.floats(1e-6, 1e5, allow_nan=False)
fees = st.decimals(0, 100, places=6)
quantities = st.decimals("0.000000001", 1_000_000, places=9)
fills = st.lists(st.tuples(st.booleans(), quantities, st.floats(0.01, 1.0), prices, fees), max_size=25)


@given(fills, prices)
def test_the_ledger_identity_holds_exactly_after_any_fills(fills, mark):
    """realised + unrealised == quantity * mark + extracted - invested, to the last digit, for every mark."""
    ledger = Ledger()
    for buy, quantity, share, price, fee in fills:
        sold = (ledger.quantity * D(repr(share))).quantize(D("0.000000001"))
        if buy or sold <= 0:
            ledger = apply_buy(ledger, quantity, price, fee)
        else:
            ledger = apply_sell(ledger, sold, price, fee)
            if is_dust(ledger, price):
                ledger = write_off(ledger)
        value = unrealised(ledger, mark) + ledger.cost
        assert ledger.realised + unrealised(ledger, mark) == value + ledger.extracted - ledger.invested
        assert ledger.quantity >= 0
        assert ledger.cost >= 0


bars = st.lists(
    st.tuples(
        st.sampled_from(["same", "same", "same", "on", "back"]),
        st.floats(90, 112).map(lambda x: round(x, 2)),
        st.floats(0.4, 0.8),
        st.floats(0.3, 0.9),
        st.booleans(),
        st.sampled_from([0, 0, 0, 0, 5]),
        st.sampled_from(["", "", "", "rejected", "expired"]),
        st.sampled_from([1.0, 1.0, 0.5]),
    ),
    min_size=5,
    max_size=60,
)
ON = {"S0": "S1", "S1": "S2", "S2": "S3", "S3": "S3"}
BACK = {"S0": "S0", "S1": "S0", "S2": "S1", "S3": "S0"}


def one_bar(world, before, step):
    """One bar of a script after state ``before``: the state it leads to, and what the tick said."""
    move, price, ts, dx, trim, gap, refuse, share = step
    state = {"same": before, "on": ON[before], "back": BACK[before]}[move]
    world.refuse, world.share = refuse, share
    over = state == "S0" and before in ("S1", "S3")
    kw = {"exit_position": over, "exit_reason": "all_emas_below_333" if over else ""}
    if state == "S3" and trim:
        kw |= {"trim_flag": True, "nearest_level_price": price, "nearest_level_distance_atr": 0.0}
    kw |= {"emergency_exit": state == "S3" and price < 95.0, "first_dip": state == "S3" and trim and price > 100}
    return state, world.bar(state, price, ts_score=ts, dx=dx, gap=gap, **kw)


def live(script, start="S0", **pm):
    """A world driven through a script of legal states with random prices, scores, gaps and execution luck, from a state
    on and under the optional rules given."""
    world = W.World(fee_rate=D("0.001"), rules=replace(W.PLAIN, pm=PmRules(**pm)))
    state = start
    results = []
    for step in script:
        state, result = one_bar(world, state, step)
        results.append(result)
    return world, results


@settings(max_examples=60)
@given(bars)
def test_the_fold_of_the_strands_is_the_position_and_the_account(script):
    """Refolding the log from nothing finds the same position and the same cash (architecture law 1)."""
    world, _ = live(script)
    position, account = None, Account("paper", W.PLAIN.starting_cash_usd)
    for strand in world.log:
        position, account = evolve(position, strand), evolve_account(account, strand)
    assert position == world.position
    assert account == world.account


@settings(max_examples=60)
@given(bars)
def test_money_is_conserved(script):
    """Cash equals starting cash plus the profit of closed trades plus what the open one has extracted and invested."""
    world, _ = live(script)
    closed = sum((s.payload.summary.pnl_usd for s in world.kinds("position_closed")), D(0))
    ledger = world.position.ledger
    assert world.account.cash_usd == W.PLAIN.starting_cash_usd + closed + ledger.extracted - ledger.invested


@settings(max_examples=60)
@given(bars)
def test_a_trade_holds_each_of_its_fills_once(script):
    """position_closed lists exactly the fills of its trade; every trade closes at most once."""
    world, _ = live(script)
    closes = world.kinds("position_closed")
    assert len({s.trade_id for s in closes}) == len(closes)
    for strand in closes:
        fills = [s for s in world.log if isinstance(s.payload, OrderFilled) and s.trade_id == strand.trade_id]
        assert [s.payload.action_id for s in fills] == [a.strand_id for a in strand.payload.actions]
        assert -3.0 <= strand.payload.summary.rr <= 10.0


@settings(max_examples=60)
@given(bars)
def test_bars_are_silent_unless_something_happened(script):
    """A bar gives at most one action, unique ids, and no strand at all without a transition, a window's end, an action,
    or the rest of a partial fill that lapses."""
    world, results = live(script)
    assert len({s.id for s in world.log}) == len(world.log)
    for result in results:
        kinds = [s.kind for s in result.strands]
        assert kinds.count("pm_action") <= 1
        lapsed = [s for s in result.strands if s.kind == "position_status" and s.payload.reason == "completion_lapsed"]
        assert kinds.count("position_status") == len(lapsed) <= 1
        told = {"pm_action", "uptrend_stage_transition", "uptrend_buy_window", "uptrend_episode_summary"}
        assert set(kinds) - {"position_status"} <= told
        assert (result.order is not None) == ("pm_action" in kinds)


@settings(max_examples=60)
@given(bars)
def test_episodes_and_windows_are_told_once_and_small(script):
    """Each window is told once, with at most 12 samples, and appears in exactly one summary or in the open episode."""
    world, _ = live(script)
    told = [s.payload.window_id for s in world.kinds("uptrend_buy_window")]
    assert len(told) == len(set(told))
    assert all(1 <= len(s.payload.samples) <= 12 for s in world.kinds("uptrend_buy_window"))
    summed = [w.window_id for s in world.kinds("uptrend_episode_summary") for w in s.payload.windows]
    still = [w.id for episode in world.memory.episodes for w in episode.windows] if world.memory else []
    assert sorted(summed + still) == sorted(told)
    for strand in world.kinds("uptrend_episode_summary"):
        assert all(w.outcome for w in strand.payload.windows)
        assert strand.payload.outcome in ("success", "failure", "missed", "correct_skip", "void")


@settings(max_examples=30)
@given(bars)
def test_what_is_written_can_be_read(script):
    """Every strand and row survives its JSON round trip unchanged, and no number in it is NaN or infinite."""
    world, _ = live(script)
    for strand in world.log:
        data = payload_to_json(strand.payload)
        assert payload_from_json(strand.kind, json.loads(json.dumps(data, allow_nan=False))) == strand.payload
    assert from_json(type(world.position), to_json(world.position)) == world.position
    if world.memory is not None:
        assert from_json(type(world.memory), to_json(world.memory)) == world.memory


def test_the_random_scripts_reach_the_interesting_places():
    """The laws above are not empty: two hundred fixed scripts buy, trim, exit, close, refuse and void."""
    dice = Random(7)
    kinds, rules = set(), set()
    for _ in range(200):
        script = [
            (
                dice.choice(["same", "same", "on", "on", "back"]), round(dice.uniform(90, 112), 2),
                dice.uniform(0.4, 0.8), dice.uniform(0.3, 0.9), dice.random() < 0.3, dice.choice([0, 0, 0, 0, 5]),
                dice.choice(["", "", "", "rejected"]), dice.choice([1.0, 0.5]),
            )
            for _ in range(40)
        ]  # fmt: skip
        world, _ = live(script)
        kinds |= {s.kind for s in world.log} | {s.payload.outcome for s in world.kinds("uptrend_episode_summary")}
        rules |= {rule for rule, _ in world.actions}
    assert {"position_closed", "order_rejected", "order_filled", "uptrend_buy_window"} <= kinds
    assert {"success", "failure", "missed", "correct_skip", "void"} <= kinds
    assert rules == {1, 2, 3, 5, 6, 7, 8, 9}


@settings(max_examples=60)
@given(bars)
def test_one_entry_per_attempt(script):
    """No attempt has two filled S1 entries."""
    world, _ = live(script)
    entries = 0
    for strand in world.log:
        if strand.kind == "uptrend_stage_transition" and strand.payload.from_state == "S0":
            entries = 0
        if isinstance(strand.payload, OrderFilled) and strand.payload.rule == 5:
            entries += 1
            assert entries <= 1


multiplier = st.floats(0.5, 1.5)
aggression = st.floats(0.8, 1.2)


@given(st.sampled_from(KINDS), st.floats(0, 1), st.floats(0, 1), multiplier, aggression, aggression)
def test_sizes_stay_fractions_whatever_is_learned(kind, a, e, size_mult, entry, leave):
    """0 <= fraction <= 1, trims at most nine tenths, exits always whole."""
    held = W.position(ledger=Ledger(D(100), D(100), D(100), D(30)))
    size = size_of(kind, held, a, e, Strength(size_mult, entry, leave), SizeRules(), D(1000))
    assert 0.0 <= size.fraction <= (0.9 if kind == "trim" else 1.0)
    assert 0 <= size.amount <= size.basis
    if kind == "exit":
        assert size.amount == size.basis


money = st.decimals(0, 200_000, places=2)


@given(money, money, money, money, money, st.floats(0, 1e7), st.decimals("0.5", "1.5", places=3))
def test_learning_never_widens_a_limit(nav, cash, total, allowance, wanted, volume, mult):
    """Whatever a multiplier asks for, what is left keeps every limit (decisions 11)."""
    rules = RiskRules()
    book = BookView(nav, cash, total, total)
    for order in (wanted, wanted * mult):
        left = limit_buy(order, book, allowance, volume, rules).notional_usd
        assert left == 0 or left >= rules.min_notional_usd
        assert left <= order
        assert left <= allowance
        assert left == 0 or left <= cash - rules.cash_reserve * nav
        assert left == 0 or total + left <= min(rules.max_exposure, rules.per_token) * nav
        assert left <= rules.participation * D(repr(volume))


@settings(max_examples=30)
@given(bars)
def test_the_same_script_gives_the_same_strands(script):
    """Time, ids and randomness are arguments: two runs are equal strand by strand."""
    first, second = live(script)[0], live(script)[0]
    assert first.log == second.log
    assert [s.payload.client_id for s in first.log if isinstance(s.payload, PmAction)] == [
        s.payload.client_id for s in second.log if isinstance(s.payload, PmAction)
    ]


# ---------------------------------------------------------------- optional rules

OPTIONS = {
    "episode_block": {"episode_block": True},
    "disaster_stop_atr": {"disaster_stop_atr": 2.0},
    "max_bars_in_attempt": {"max_bars_in_attempt": 6},
    "emergency_timeout_bars": {"emergency_timeout_bars": 3, "reclaim_enabled": True},
    "pool_only": {"pool_only": True},
    "trade_mid_attempt": {"trade_mid_attempt": True},
}
EVERY = {name: value for switches in OPTIONS.values() for name, value in switches.items()}
options = st.sampled_from([*OPTIONS.values(), EVERY])


def followed(script, pm):
    """After each bar: the position, the reading, and what was written."""
    world = W.World(fee_rate=D("0.001"), rules=replace(W.PLAIN, pm=PmRules(**pm)))
    state = "S0"
    for step in script:
        before = len(world.log)
        state, _ = one_bar(world, state, step)
        yield world.position, world.bars[-1], world.log[before:]


@settings(max_examples=120)
@given(bars, options, st.sampled_from(["S0", "S2", "S3"]))
def test_the_laws_of_the_ledger_hold_under_every_optional_rule(script, pm, start):
    """The fold is the position and the account, money is conserved, each trade holds its fills once, and a bar has at
    most one action; what is remembered survives JSON."""
    world, results = live(script, start, **pm)
    position, account = None, Account("paper", W.PLAIN.starting_cash_usd)
    for strand in world.log:
        position, account = evolve(position, strand), evolve_account(account, strand)
    assert (position, account) == (world.position, world.account)
    assert from_json(type(position), json.loads(json.dumps(to_json(position), allow_nan=False))) == position
    closes = world.kinds("position_closed")
    closed = sum((s.payload.summary.pnl_usd for s in closes), D(0))
    ledger = position.ledger
    assert account.cash_usd == W.PLAIN.starting_cash_usd + closed + ledger.extracted - ledger.invested
    assert len({s.trade_id for s in closes}) == len(closes)
    for strand in closes:
        fills = [s for s in world.log if isinstance(s.payload, OrderFilled) and s.trade_id == strand.trade_id]
        assert [s.payload.action_id for s in fills] == [a.strand_id for a in strand.payload.actions]
    assert all([s.kind for s in result.strands].count("pm_action") <= 1 for result in results)


@settings(max_examples=120)
@given(bars, options)
def test_what_an_optional_rule_forbids_never_happens(script, pm):
    """A close below the stop, or a trade whose time is up, is followed by a full exit on that very bar; a flat trade
    does not outlive its timeout; nothing is bought in a barred state."""
    for position, reading, said in followed(script, pm):
        terms, planned = position.terms, position.planned
        for strand in said:
            if isinstance(strand.payload, PmAction) and strand.payload.side == "buy" and pm.get("episode_block"):
                assert not (strand.payload.state == "S1" and position.blocked == "S1")
                assert not (strand.payload.state == "S2" and position.blocked)
        if terms is None:
            continue
        age = (reading.ts - position.entry_ts) // W.HOUR
        if position.holding and (reading.price < stop_price(position) or (terms.most_bars and age >= terms.most_bars)):
            assert planned is not None
            assert planned.action.rule == 1
        last = position.actions[-1]
        if terms.timeout_bars and not position.holding and last.rule == 2 and planned is None:
            assert (reading.ts - last.ts) // W.HOUR < terms.timeout_bars


def test_the_random_scripts_reach_every_optional_rule():
    """The laws above are not empty: fixed scripts close by each reason, block and skip; off, they do none of it."""
    dice = Random(11)
    reasons, blocks, skipped, plain = set(), set(), set(), set()
    for _ in range(200):
        script = [
            (
                dice.choice(["same", "same", "on", "on", "back"]), round(dice.uniform(90, 112), 2),
                dice.uniform(0.4, 0.8), dice.uniform(0.3, 0.9), dice.random() < 0.3, dice.choice([0, 0, 0, 0, 5]),
                dice.choice(["", "", "", "rejected"]), dice.choice([1.0, 0.5]),
            )
            for _ in range(40)
        ]  # fmt: skip
        for pm in OPTIONS.values():
            world, results = live(script, **pm)
            reasons |= {s.payload.exit_reason for s in world.kinds("position_closed")}
            blocks.add(world.position.blocked)
            skipped |= {reason for result in results for reason in result.skipped}
        plain |= {s.payload.exit_reason for s in live(script)[0].kinds("position_closed")}
    assert {*CUTS, "emergency"} <= reasons
    assert not {*CUTS, "emergency"} & plain
    assert blocks == {"", "S1", "S2"}
    assert "episode_block" in skipped
