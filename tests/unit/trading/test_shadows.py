"""Shadows: which bar decides a chance, what it speaks about, and that its outcome is that of a real trade, alone."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scripted import ModelVenue, ScriptedMarket, signal_line

from edgebook.adapters.memory import MemoryStore
from edgebook.desk import Desk
from edgebook.domain.decay import HOUR
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.levers import GATE_LEVERS
from edgebook.domain.pattern import S1_ENTRY, S3_RETEST
from edgebook.domain.reading import AFTER, DIP, EMERGENCY, MOVE, RETEST, TRIM, WINDOW
from edgebook.domain.strands import BuyWindow, PositionStatus, Strand, WindowSample
from edgebook.jobs import decision_maker, follow_shadows, ingest_signal, pm_core_tick, settle_orders
from edgebook.learning.config import LearningConfig
from edgebook.overrides.history import ConfigHistory
from edgebook.overrides.record import Override, dump_documents
from edgebook.stage import Stage
from edgebook.trading.position import position_id
from edgebook.trading.protections import Guard
from edgebook.trading.rules import PmRules, ShadowRules, TradingRules
from edgebook.trading.shadows import _values as shadow_values
from edgebook.trading.shadows import alone, close_shadows, concerns, deciding_sample, follow, open_shadow

D = Decimal
FREE = ShadowRules(exchange_fee_bps=D(0), exchange_slippage_bps=D(0))
#: Costs of the small world: a fee of a thousandth, fills at the price of the decision.
FEE = ShadowRules(exchange_fee_bps=D(10), exchange_slippage_bps=D(0))
CLOSED = Guard(("protection.stop_buy",))


# ------------------------------------------------------------------ windows written by hand


def sample(ts, *blocked_by, flag=None, price=100.0, **margins):
    values = {"a_base": 0.5, "e_base": 0.5, "atr": 1.0}
    return WindowSample(ts, not blocked_by if flag is None else flag, price, values, margins, blocked_by, False)


def buy_window(samples, ident="win-1", kind="s1_entry", entry_ts=0, thresholds=None):
    pattern = S1_ENTRY if kind == "s1_entry" else S3_RETEST
    payload = BuyWindow(
        window_id=ident, episode_type=kind, window_kind="signal", index=0, started_at=samples[0].ts,
        ended_at=samples[-1].ts, bars=len(samples), entered=entry_ts > 0, entry_strand_id="", trimmed=False,
        blocked_by=(), outcome="", pattern_key=pattern.key, action_category=pattern.category,
        thresholds_effective=thresholds or {}, samples=tuple(samples), summary={}, levers=(), entry_ts=entry_ts,
    )  # fmt: skip
    return Strand(f"told-{ident}", payload, samples[-1].ts, samples[-1].ts, symbol="TOKUSDT", timeframe="1h",
                  position_id="position-1")  # fmt: skip


def decided(*samples, **how):
    found = deciding_sample(buy_window(samples, **how).payload)
    return None if found is None else found.ts


def test_a_bought_window_is_decided_on_its_entry_bar():
    assert decided(sample(1), sample(2), sample(3), entry_ts=2) == 2


def test_a_window_that_passed_and_was_not_bought_is_decided_on_the_first_bar_that_passed():
    """Whether it was blocked by a rule or an order of it failed: the gates had let it through."""
    assert decided(sample(1, "ts_min", ts_min=-0.1), sample(2), sample(3)) == 2


def test_a_near_miss_is_decided_on_the_bar_nearest_to_its_one_gate():
    bars = [sample(1, "ts_min", ts_min=-0.5), sample(2, "halo", halo=-0.2), sample(3, "ts_min", ts_min=-0.3)]
    assert decided(*bars) == 2


def test_of_two_bars_equally_near_the_first_decides():
    assert decided(sample(1, "ts_min", ts_min=-0.3), sample(2, "halo", halo=-0.3)) == 1


def test_two_gates_short_is_no_chance_of_either():
    assert decided(sample(1, "halo", "ts_min", halo=-0.1, ts_min=-0.1)) is None


@pytest.mark.parametrize(("u", "seen"), [(-0.999, 1), (-1.0, 1), (-1.001, None)])
def test_a_gate_missed_by_more_than_its_cap_is_no_chance(u, seen):
    assert decided(sample(1, "ts_min", ts_min=u)) == seen


@pytest.mark.parametrize("name", ["zone", "missing_input", "emergency", "dx_min"])
def test_what_is_no_gate_of_the_episode_leaves_no_chance(name):
    """An S1 window knows no DX, and no gate opens what a missing number or the zone has closed."""
    assert decided(sample(1, name, ts_min=-0.1, dx_min=-0.1)) is None


@pytest.mark.parametrize("kind", ["s1_entry", "s3_retest"])
def test_every_gate_can_be_the_one_that_was_short(kind):
    for name in GATE_LEVERS[kind]:
        check = {"sr_boost": "ts_min", "edx_supp_mult": "dx_min"}.get(name, name)
        shadow = open_shadow(buy_window([sample(1, check, **{name: -0.4, check: -0.4})], kind=kind), "exchange", RULES)
        assert shadow is not None, name
        assert shadow.margins[name] == -0.4
        assert set(shadow.margins) <= set(GATE_LEVERS[kind])


def test_a_retest_short_of_ts_alone_speaks_for_the_boost_only_where_there_was_one():
    """TS has no lever of its own in S3; a larger boost could have let the bar through, if a level was in reach."""
    near = sample(1, "ts_min", sr_boost=-0.2, dx_min=0.4, slow_slope_min=0.1)
    shadow = open_shadow(buy_window([near], kind="s3_retest"), "exchange", RULES)
    assert shadow is not None
    assert shadow.margins == {"sr_boost": -0.2}
    assert decided(sample(1, "ts_min", sr_boost=None, dx_min=0.4), kind="s3_retest") is None


def test_a_bar_that_passed_speaks_of_every_gate_it_knows():
    bar = sample(1, ts_min=0.4, sr_boost=None, halo=0.0, slope_min=2.0, dx_min=0.3)
    shadow = open_shadow(buy_window([bar]), "exchange", RULES)
    assert shadow is not None
    assert shadow.margins == {"ts_min": 0.4, "halo": 0.0, "slope_min": 2.0}


def test_a_bar_one_gate_short_speaks_of_that_gate_and_of_what_works_through_it():
    short = sample(1, "ts_min", ts_min=-0.4, sr_boost=-0.4, halo=0.7, slope_min=0.2)
    shadow = open_shadow(buy_window([short]), "exchange", RULES)
    assert shadow is not None
    assert shadow.margins == {"ts_min": -0.4, "sr_boost": -0.4}
    wide = open_shadow(buy_window([replace(short, blocked_by=("halo",), margins={"halo": -0.2, "ts_min": 0.1})]),
                       "exchange", RULES)  # fmt: skip
    assert wide is not None
    assert wide.margins == {"halo": -0.2}


def test_a_window_that_says_nothing_has_no_shadow():
    assert open_shadow(buy_window([sample(1, "halo", "ts_min", halo=-3.0, ts_min=-0.1)]), "exchange", RULES) is None


# ------------------------------------------------------------------ a world with shadows


RULES = TradingRules(holdout=0.0, timeframes=("1h", "4h"), shadows=FEE)


@cache
def stage(w):
    """A `World` whose windows are followed as shadows, by plain calls on every bar; ``told`` holds what they gave."""

    class Stage(w.World):
        def __post_init__(self):
            super().__post_init__()
            self.shadows, self.told = [], []

        def bar(self, *args, **kw):
            before = len(self.log)
            result = super().bar(*args, **kw)
            for strand in self.log[before:]:
                shadow = open_shadow(strand, "exchange", self.rules) if strand.kind == "uptrend_buy_window" else None
                self.shadows += [shadow] if shadow else []
            self.lead()
            return result

        def lead(self):
            self.shadows = follow(self.shadows, self.bars[-1], alone(self.rules))
            if self.bars[-1].state == "S0":
                closed = close_shadows(self.shadows, self.bars[-1], self.path(), self.rules)
                self.told += [closed] if closed else []
                self.shadows = []

    return Stage


def made(w, **kw):
    kw = {"rules": RULES, "fee_rate": D("0.001")} | kw
    return stage(w)(**kw)


def outcomes(world):
    return [outcome for strand in world.told for outcome in strand.payload.windows]


def trade(world):
    """Summary of the only trade that closed, and how many actions it took."""
    (closed,) = world.kinds("position_closed")
    return closed.payload.summary, len(closed.payload.actions)


def retest(world, price=104.0, **kw):
    return world.bar("S2", price, ts_score=0.7, ema333=price, **kw)


def straight(world, ts):
    """Bought in S1, sold when the trend order turns."""
    world.bar("S1", 100.0, ts_score=ts)
    world.bar("S1", 101.0, low=99.0)
    world.bar("S1", 99.0, low=97.5)
    world.over("S1", 98.0)
    world.bar("S0", 98.0)


def trimmed(world, ts):
    """Trims in S2 and S3, then the end."""
    world.bar("S1", 100.0, ts_score=ts, low=99.0)
    world.bar("S2", 106.0)
    world.trim(108.0, state="S2")
    world.trim(109.0, state="S2")
    world.bar("S3", 111.0)
    world.bar("S3", 112.0)
    world.trim(114.0)
    world.over("S3", 103.0)
    world.bar("S0", 103.0)


def rebought(world, ts):
    """A trim's proceeds go back in on the S2 retest, and on the DX ladder of a later trim's."""
    world.bar("S1", 100.0, ts_score=ts)
    world.bar("S2", 106.0)
    world.trim(108.0, state="S2")
    retest(world)
    world.bar("S3", 110.0)
    world.trim(115.0)
    for price in (97.0, 95.5):
        world.bar("S3", price, ts_score=0.62, dx=0.66)
    world.bar("S3", 104.0)
    world.over("S3", 102.0)
    world.bar("S0", 102.0)


def panicked(world, ts):
    """Out below EMA333 in S3; the trade stays open till the attempt ends."""
    world.bar("S1", 100.0, ts_score=ts)
    world.bar("S2", 104.0)
    world.bar("S3", 105.0)
    world.emergency(94.0)
    world.bar("S3", 99.0)
    world.over("S3", 90.0)
    world.bar("S0", 90.0)


STORIES = {"straight": (straight, 2), "trimmed": (trimmed, 4), "rebought": (rebought, 7), "panicked": (panicked, 2)}


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("why", ["one gate short", "buys are off"])
def test_a_skipped_window_is_worth_what_the_same_trade_was_worth(w, story, why):
    """The same bars twice: once the entry bar passes and is bought, once it is not. The shadow of the second has the
    return, risk and number of actions of the first, prices and times as well."""
    play, actions = STORIES[story]
    real = made(w)
    play(real, 0.7)
    summary, count = trade(real)
    skipped = made(w) if why == "one gate short" else made(w, guard=CLOSED)
    play(skipped, 0.55 if why == "one gate short" else 0.7)

    found = next(o for o in outcomes(skipped) if o.episode_type == "s1_entry")
    assert (5, "entry") not in skipped.actions
    assert (found.actions, count) == (actions, actions)
    assert found.roi == pytest.approx(summary.roi, rel=1e-3, abs=1e-6)
    assert found.rr == pytest.approx(summary.rr, rel=1e-3, abs=1e-6)
    assert (found.entry_ts, found.exit_ts) == (summary.entry_ts, summary.exit_ts)
    assert found.entry_price == pytest.approx(summary.entry_price, rel=1e-6)
    assert (found.entered, found.flag_on) == (False, why == "buys are off")
    assert found.blocked_by == (() if why == "one gate short" else ("protection.stop_buy",))
    assert set(found.margins) == ({"ts_min"} if why == "one gate short" else {"ts_min", "halo", "slope_min"})


@pytest.mark.parametrize("story", STORIES)
def test_a_bought_window_has_a_shadow_of_the_same_worth(w, story):
    real = made(w)
    STORIES[story][0](real, 0.7)
    summary, _ = trade(real)
    found = next(o for o in outcomes(real) if o.episode_type == "s1_entry")

    assert found.entered
    assert found.rr == pytest.approx(summary.rr, rel=1e-3, abs=1e-6)


def test_costs_by_hand(w):
    """3,000 of 10,000 bought at 100 and sold at 105, 5 bps against each and a fee of a thousandth on each, ATR 1.

    Bought at 100.05 for 3,003 with the fee, sold at 104.9475. roi = 104.9475 / 100.05 * .999 / 1.001 - 1 = .046855;
    the lowest low of the bars that open after the one it is bought on is 99, so risk = (100.05 - 99) / 100.05 =
    1.0495 %, more than 1 % and more than an ATR, and rr = 4.4646.
    """
    world = made(w, rules=replace(RULES, shadows=ShadowRules()))
    world.bar("S1", 100.0, ts_score=0.55)
    world.bar("S1", 104.0, low=90.0)
    world.bar("S1", 104.0, low=99.0)
    world.over("S1", 105.0)
    (found,) = outcomes(world)

    roi = 104.9475 / 100.05 * 0.999 / 1.001 - 1
    assert found.entry_price == pytest.approx(100.05)
    assert found.exit_price == pytest.approx(104.9475)
    assert found.roi == pytest.approx(roi, abs=1e-8)
    assert found.rr == pytest.approx(roi / ((100.05 - 99.0) / 100.05), rel=1e-6)
    assert (found.actions, found.exit_ts - found.entry_ts) == (2, 3 * HOUR)


def test_a_dex_costs_what_a_dex_costs(w):
    world = made(w, rules=replace(RULES, shadows=ShadowRules()))
    strand = buy_window([sample(1, "ts_min", ts_min=-0.5)])
    shadow = open_shadow(strand, "solana", world.rules)
    assert shadow is not None
    (bought,) = shadow.twin.actions
    assert bought.price == pytest.approx(100.5)
    assert float(shadow.twin.ledger.fees) == pytest.approx(9.0, abs=1e-3)


def test_a_bar_that_was_seen_changes_nothing(w):
    world = made(w)
    world.bar("S1", 100.0, ts_score=0.55)
    world.bar("S2", 106.0)
    world.trim(108.0, state="S2")
    again = follow(world.shadows, world.bars[-1], alone(world.rules))
    assert again == world.shadows
    assert follow(again, world.bars[0], alone(world.rules)) == again


def test_a_bar_that_nothing_follows_from_leaves_the_shadow_itself(w):
    """So it need not be written again, and may be asked again, whatever quiet bars came since."""
    world = made(w)
    world.bar("S1", 100.0, ts_score=0.55)
    world.bar("S2", 106.0)
    (before,) = world.shadows
    for price in (106.5, 107.0, 106.8):
        world.bar("S2", price)
        assert world.shadows[0] is before
    for bar in world.bars[-3:]:
        assert follow(world.shadows, bar, alone(world.rules))[0] is before
    world.trim(108.0, state="S2")
    assert world.shadows[0].seen_ts == world.bars[-1].ts > before.seen_ts


def test_quiet_bars_may_be_left_out(w):
    """Bars without an event lead to the same outcome whether a shadow is shown them or not."""
    every, few = made(w), made(w)
    rebought(every, 0.55)
    lead, few.lead = few.lead, lambda: None
    rest = [lead] * 20

    def bar(*args, **kw):
        result = type(few).bar(few, *args, **kw)
        if few.bars[-1].transition or few.bars[-1].trim_flag or few.bars[-1].ts_score > 0.6:
            rest[0]()
        return result

    few.bar = bar
    rebought(few, 0.55)
    assert [o.rr for o in outcomes(few)] == [o.rr for o in outcomes(every)]


@pytest.mark.parametrize(
    ("state", "events", "meant"),
    [
        ("S1", WINDOW, False),
        ("S1", AFTER, False),
        ("S1", MOVE, True),
        ("S0", MOVE, True),
        ("S2", RETEST, True),
        ("S2", TRIM, True),
        ("S3", WINDOW, True),
        ("S3", TRIM, True),
        ("S3", EMERGENCY, True),
        ("S3", DIP, True),
        ("S3", AFTER, False),
        ("S3", 0, False),
    ],
)
def test_which_bars_mean_something_to_a_shadow(w, state, events, meant):
    """All on which a rule may act for who holds; an entry in S1 it has behind it."""
    assert concerns(w.reading(state), events) == meant


# ------------------------------------------------------------------ what it was worth over leaving it


def two_windows(w, first_ts, second_ts, **kw):
    """Two S1 windows of one attempt, at 100 and at 97; the price ends at 103."""
    world = made(w, rules=replace(RULES, shadows=FREE), fee_rate=D(0), **kw)
    world.bar("S1", 100.0, ts_score=first_ts)
    world.bar("S1", 104.0, low=96.0)
    world.bar("S1", 97.0, ts_score=second_ts, ema60=97.0)
    world.bar("S1", 104.0, low=95.0)
    world.over("S1", 103.0)
    return world, outcomes(world)


def test_the_first_chance_is_worth_what_it_adds_to_the_second(w):
    """An attempt has one S1 entry: without the first the second would have been it, so it is what the first costs."""
    _, (first, second) = two_windows(w, 0.62, 0.72)

    assert (first.entered, second.entered) == (True, False)
    assert second.blocked_by == ("s1_used",)
    assert first.values["ts_min"] == pytest.approx(first.rr - second.rr)
    assert second.values["ts_min"] == second.rr
    assert second.rr > first.rr > 0 > first.values["ts_min"]


def test_a_later_chance_that_the_same_move_would_close_is_no_alternative(w):
    """Tightened past the first, TS also keeps the second out; and wherever TS stands, the second is never the entry, so
    it says nothing."""
    _, (first, second) = two_windows(w, 0.72, 0.62)

    assert first.values["ts_min"] == first.rr
    assert second.flag_on
    assert (second.margins, second.values) == ({}, {})


def test_a_chance_just_missed_after_one_that_was_taken_says_nothing(w):
    """However far the gate is loosened, the first is the entry."""
    _, (_, second) = two_windows(w, 0.62, 0.57)

    assert not second.flag_on
    assert (second.margins, second.values) == ({}, {})


def test_of_two_chances_just_missed_the_nearer_first_is_the_one_that_counts(w):
    """Loosened past the first, it is the entry; the second, farther from the gate, never is."""
    _, (first, second) = two_windows(w, 0.58, 0.55)
    assert (set(first.values), set(second.values)) == ({"ts_min"}, set())
    _, (first, second) = two_windows(w, 0.55, 0.58)
    assert first.values["ts_min"] == pytest.approx(first.rr - second.rr)
    assert second.values["ts_min"] == second.rr


def entry_at(rows, name, place):
    """Worth of the first chance that passes with one gate moved to ``place`` (in margins; 0 is where it stood)."""
    for flag_on, margins, rr in rows:
        asked = margins.get(name)
        if (flag_on and asked is None) or (asked is not None and asked >= place):
            return rr
    return 0.0


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_values_add_up_to_what_each_place_of_a_gate_would_have_brought(seed):
    """Against trying: for random chances of one attempt, each gate and each place of it, the values of all chances
    that the move lets in (or keeps out) are the difference it makes to the attempt."""
    dice = Random(seed)
    rows = []
    for _ in range(dice.randint(1, 5)):
        flag_on = dice.random() < 0.6
        if flag_on:
            margins = {name: dice.choice((0.0, 0.3, 0.7, 1.4, 3.0)) for name in ("ts_min", "halo", "slope_min")}
            margins |= {"sr_boost": margins["ts_min"]} if dice.random() < 0.5 else {}
        else:
            margins = {dice.choice(("ts_min", "halo")): dice.choice((-0.9, -0.5, -0.1))}
        rows.append((flag_on, margins, round(dice.uniform(-3, 5), 2)))
    told = valued(rows)
    for name in ("ts_min", "halo", "slope_min", "sr_boost"):
        stood = entry_at(rows, name, 0.0)
        for place in (-1.0, -0.5, -0.05, 0.1, 0.5, 1.0, 2.0, 9.0):
            flipped = [(m[name], v[name]) for m, v in told if name in v]
            let_in = sum(v for u, v in flipped if place <= u < 0)
            kept_out = sum(v for u, v in flipped if 0 <= u < place)
            assert entry_at(rows, name, place) - stood == pytest.approx(let_in - kept_out, abs=1e-9), (name, place)


def valued(rows):
    """(margins, values) that the end of an attempt tells of chances in this order, each with the rr given."""
    shadows, worth = [], {}
    for i, (flag_on, margins, rr) in enumerate(rows):
        blocked = () if flag_on else ("ts_min" if "ts_min" in margins else "halo",)
        shadow = open_shadow(buy_window([sample(i + 1, *blocked, **margins)], ident=f"w{i}"), "exchange", RULES)
        shadows.append(replace(shadow, margins=margins))
        worth[f"w{i}"] = rr
    found = [shadow_values(shadow, shadows, worth) for shadow in shadows]
    return [({n: s.margins[n] for n in values}, values) for s, values in zip(shadows, found, strict=True)]


def test_a_chance_just_missed_gives_up_the_one_that_passed_later(w):
    _, (first, second) = two_windows(w, 0.55, 0.62)

    assert (first.flag_on, second.entered) == (False, True)
    assert first.values == {"ts_min": pytest.approx(first.rr - second.rr)}


def test_a_later_chance_that_was_missed_too_is_no_alternative(w):
    _, (first, second) = two_windows(w, 0.62, 0.57)

    assert not second.flag_on
    assert first.values["ts_min"] == first.rr


def test_a_gate_that_does_not_speak_of_the_later_chance_does_not_close_it(w):
    """``sr_boost`` has no margin where there is no level: moving it leaves the later chance as it was."""
    world = made(w, rules=replace(RULES, shadows=FREE), fee_rate=D(0))
    world.bar("S1", 100.0, ts_score=0.58, sr_strength_anchor=0.2)
    world.bar("S1", 104.0, low=96.0)
    world.bar("S1", 97.0, ts_score=0.61, ema60=97.0)
    world.over("S1", 103.0)
    first, second = outcomes(world)

    assert first.margins["sr_boost"] > 0
    assert "sr_boost" not in second.margins
    assert first.values["sr_boost"] == pytest.approx(first.rr - second.rr)


def retests_of(w, *bars):
    """Chances of one S3; a bar is "on", "short" or "trim"."""
    world = made(w, rules=replace(RULES, shadows=FREE), fee_rate=D(0))
    for state, price in (("S1", 105.0), ("S2", 106.0), ("S3", 107.0)):
        world.bar(state, price)
    for bar in bars:
        if bar == "trim":
            world.trim(110.0)
        elif bar == "on":
            world.dx_buy(97.0)
        else:
            world.bar("S3", 96.0, ts_score=0.7, dx=0.5)
        world.bar("S3", 104.0)
    world.over("S3", 100.0)
    return [o for o in outcomes(world) if o.episode_type == "s3_retest"]


def test_of_retests_without_a_trim_between_only_the_first_could_be_bought(w):
    """One per arming: the short one before it would have taken its place, the short one after it never would."""
    short, bought, late = retests_of(w, "short", "on", "short")

    assert [o.flag_on for o in (short, bought, late)] == [False, True, False]
    assert short.values["dx_min"] == pytest.approx(short.rr - bought.rr)
    assert bought.values["dx_min"] == bought.rr
    assert late.values == {}


def test_after_a_trim_a_retest_can_be_bought_again(w):
    """The trim arms anew: each is worth its own rr."""
    first, second = retests_of(w, "on", "trim", "on")

    assert first.values["dx_min"] == first.rr
    assert second.values["dx_min"] == second.rr


def test_a_window_of_an_attempt_nobody_saw_begin_has_no_shadow():
    window = buy_window([sample(1, ts_min=0.4)])
    unseen = replace(window, payload=replace(window.payload, blocked_by=("no_attempt",)))
    assert open_shadow(window, "exchange", RULES) is not None
    assert open_shadow(unseen, "exchange", RULES) is None


def test_the_thresholds_of_a_chance_are_those_of_its_own_bar():
    """The gate moved inside the window: the bar that decided it was held against .70, not against what the window
    began with."""
    late = replace(sample(2, "ts_min", ts_min=-0.4), moved={"ts_min": 0.70})
    shadow = open_shadow(buy_window([sample(1, "halo", "ts_min", ts_min=-1.5), late]), "exchange", RULES)
    assert (shadow.thresholds["ts_min"], shadow.thresholds["halo"]) == (0.70, 1.0)


def test_outcomes_come_in_the_order_of_their_entries_once(w):
    world, found = two_windows(w, 0.62, 0.72)

    assert [o.entry_ts for o in found] == sorted(o.entry_ts for o in found)
    (strand,) = world.told
    assert strand.payload.exit_reason == "s1_to_s0_bearish_order"
    assert (strand.position_id, strand.symbol, strand.timeframe, strand.module) == (
        "position-1", "TOKUSDT", "1h", "pm",
    )  # fmt: skip
    assert strand.correlation_id == "signal-1"
    assert not strand.trade_id


# ------------------------------------------------------------------ nothing learned moves it


def learned(*overrides):
    dm, pm = dump_documents(overrides)
    return ConfigHistory.from_versions([ConfigVersion(1, 400_000 * HOUR, dm, pm, "")])


def lesson(kind, pattern, targets, ident):
    return Override(ident, kind, *pattern, (("timeframe", "1h"),), targets, 1e12, 0)


def test_learned_gates_and_sizes_move_no_outcome(w):
    """The same bars with and without learned numbers: bars, prices, rr and actions of each shadow are equal; only the
    margin is told against the gate in force."""
    history = learned(
        lesson("pm_tuning", S3_RETEST, {"dx_min": 0.75, "slow_slope_min": 0.001}, "a"),
        lesson("pm_tuning", S1_ENTRY, {"ts_min": 0.65}, "b"),
        lesson("pm_strength", S1_ENTRY, {"size_mult": 1.5, "entry_aggression_mult": 1.2}, "c"),
        lesson("pm_strength", ("module=pm|pattern_key=uptrend.S3.trim", "trim"), {"exit_aggression_mult": 1.2}, "d"),
    )
    plain, taught = made(w), made(w, history=history)
    for world in (plain, taught):
        rebought(world, 0.62)
    assert plain.actions != taught.actions

    def told(world):
        return [(o.entry_ts, o.exit_ts, o.entry_price, o.exit_price, o.rr, o.roi, o.actions) for o in outcomes(world)]

    s1 = [[row for row, o in zip(told(x), outcomes(x), strict=True) if o.episode_type == "s1_entry"]
          for x in (plain, taught)]  # fmt: skip
    assert s1[0] == s1[1] != []
    assert outcomes(plain)[0].margins["ts_min"] == pytest.approx(0.2)
    assert outcomes(taught)[0].margins["ts_min"] == pytest.approx(-0.3)
    assert outcomes(taught)[0].thresholds["ts_min"] == pytest.approx(0.65)


def test_what_else_the_book_holds_moves_no_outcome(w):
    """A rich book, a poor one, one whose orders are refused: the shadows end the same."""
    books = [
        made(w),
        made(w, refuse="rejected"),
        made(w, guard=CLOSED),
        made(w, rules=replace(RULES, starting_cash_usd=D(100))),
        made(w, volume_usd=0.0),
    ]
    for book in books:
        rebought(book, 0.7)
    results = [[(o.entry_ts, o.rr, o.actions) for o in outcomes(book) if o.flag_on][:1] for book in books]

    assert results[0]
    assert all(result == results[0] for result in results)


# ------------------------------------------------------------------ through the jobs


class Book:
    """A book in memory with its market, walked by the real jobs."""

    def __init__(self, **rules):
        self.market = ScriptedMarket(("AUSDT",))
        self.rules = replace(TradingRules(holdout=0.0, timeframes=("1h",)), **rules)
        self.uow = MemoryStore().writer().__enter__()
        self.desk = self.start()
        ingest_signal(self.desk, signal_line("one", "AUSDT", self.market.now), self.market.now)
        decision_maker(self.desk, self.market.now)
        self.id = position_id("exchange", "AUSDT", "1h", self.rules.book)

    def start(self):
        return Desk(self.uow, self.market, ModelVenue(self.market), {}, self.rules, LearningConfig())

    def bar(self, move="same", price=100.0, flavour="plain", **kw):
        self.market.bar("AUSDT", move, price, flavour)
        self.market.pass_hour()
        if kw:
            bars = self.market._readings["AUSDT", "1h"]
            bars[self.market.now] = replace(bars[self.market.now], **kw)
        settle_orders(self.desk, self.market.now)
        pm_core_tick(self.desk, "1h", self.market.now)
        if self.rules.shadows.enabled:
            follow_shadows(self.desk, "1h", self.market.now)

    @property
    def shadows(self):
        return list(self.uow.shadows.values())

    def told(self):
        return [o for s in self.uow.log.read(0, ["shadows_closed"]) for o in s.payload.windows]


def attempt(book, end=98.0):
    """An attempt bought in S1, with a window of another S1 after it, and its end."""
    book.bar("on", 100.0, "buy")
    book.bar("same", 105.0)
    book.bar("same", 96.5, "buy")
    book.bar("on", 106.0)
    book.bar("back", 103.0)
    book.bar("back", end)


def test_each_window_of_an_attempt_has_one_outcome_and_its_shadow_is_gone():
    book = Book()
    attempt(book)
    windows = [s.payload.window_id for s in book.uow.log.read(0, ["uptrend_buy_window"])]

    assert len(windows) == 2
    assert sorted(o.window_id for o in book.told()) == sorted(windows)
    assert book.shadows == []
    attempt(book, 97.0)
    assert len(book.told()) == 4


def test_a_long_gap_voids_a_shadow_and_a_short_one_does_not():
    """What happened in more than three missing bars is not guessed (trading.md 5)."""
    for missing, left in ((4, 0), (3, 2)):
        book = Book()
        book.bar("on", 100.0, "buy")
        book.bar("same", 105.0)
        assert len(book.shadows) == 1
        for _ in range(missing):
            book.market.pass_hour()
        book.bar("on", 106.0, gap_bars=missing)
        assert len(book.shadows) == (1 if left else 0)
        book.bar("back", 105.0)
        book.bar("back", 98.0)
        assert len(book.told()) == (1 if left else 0)


def test_an_archived_position_drops_its_shadows():
    """It is not ticked any more, so how its chances end will not be seen."""
    book = Book()
    book.bar("on", 105.0)
    book.bar("same", 100.0, "buy")
    book.bar("same", 105.0)
    assert len(book.shadows) == 1
    position = book.uow.positions.get(book.id)
    status = PositionStatus("archived", position.status, "archived", "exchange", "AUSDT", position.book,
                            position.decision_id, "", position.allocation_pct, position.cap_class)  # fmt: skip
    book.desk.record([Strand("gone", status, book.market.now, book.market.now, symbol="AUSDT", timeframe="1h",
                             position_id=book.id)])  # fmt: skip
    book.desk.lay_down(book.id)

    assert book.shadows == []
    book.bar("back", 98.0)
    assert book.told() == []


def test_laying_down_a_position_that_lives_leaves_its_shadows():
    book = Book()
    book.bar("on", 100.0, "buy")
    book.bar("same", 105.0)
    book.desk.lay_down(book.id)
    assert len(book.shadows) == 1


def test_shadows_change_no_book():
    """The same market with and without shadows: every strand of another kind and every row of the book is equal."""
    pm = PmRules(reclaim_enabled=True)
    kept, kinds = [], set()
    for enabled in (True, False):
        book = Book(shadows=ShadowRules(enabled=enabled), pm=pm)
        for end in (98.0, 110.0, 94.0):
            attempt(book, end)
        book.bar("on", 100.0, "buy")
        book.bar("on", 106.0)
        book.bar("same", 110.0, "trim")
        book.bar("on", 112.0)
        book.bar("same", 96.5, "buy")
        book.bar("same", 94.0, "emergency")
        book.bar("back", 92.0)
        log = [s for s in book.uow.log.read(0) if s.kind != "shadows_closed"]
        kinds |= {s.kind for s in book.uow.log.read(0)}
        tables = ("positions", "orders", "trades", "decisions", "curators", "coefficients", "intents", "accounts",
                  "protections", "observations", "snapshots", "memory")  # fmt: skip
        rows = {
            name: [replace(r, last_seq=0) if hasattr(r, "last_seq") else r for r in getattr(book.uow, name).values()]
            for name in tables
        }
        kept.append(([replace(s, seq=0, hash="") for s in log], rows))

    assert "shadows_closed" in kinds
    assert kept[0][0] == kept[1][0]
    assert kept[0][1] == kept[1][1]
    assert kept[0][1]["trades"]


def test_a_window_delivered_late_ends_the_same(monkeypatch):
    """A window that is read some quiet bars after it was told, by which its trend has not moved."""
    told = []
    for late in (False, True):
        book = Book()
        book.bar("on", 100.0, "buy")
        with monkeypatch.context() as patch:
            if late:
                patch.setattr(Stage, "fresh_windows", lambda stage: [])
            book.bar("same", 105.0)
            book.bar("same", 106.0)
            assert len(book.shadows) == (0 if late else 1)
        book.bar("same", 107.0)
        assert len(book.shadows) == 1
        book.bar("on", 109.0)
        book.bar("same", 111.0, "trim")
        book.bar("back", 104.0)
        book.bar("back", 98.0)
        told.append(book.told())
    assert told[0] == told[1]
    assert [o.actions for o in told[0]] == [3]


def test_a_shadow_that_cannot_be_led_goes_to_the_dead_letters_and_keeps_nobody_back(monkeypatch):
    book = Book()
    book.bar("on", 100.0, "buy")
    book.bar("same", 105.0)

    def broken(*args):
        raise ArithmeticError("no number")

    monkeypatch.setattr("edgebook.jobs.follow", broken)
    book.bar("on", 106.0)
    monkeypatch.undo()

    assert book.shadows == []
    assert [d.stage for d in book.uow.dead_letters.values()] == ["follow_shadows"]
    book.bar("back", 105.0)
    book.bar("back", 98.0)
    attempt(book)
    assert len(book.told()) == 2


def test_shadows_are_on_at_costs_by_venue():
    """Without a setting there are shadows, and what they pay is what is paid there (decisions 55)."""
    rules = TradingRules().shadows
    assert rules.enabled
    assert (rules.costs("exchange"), rules.costs("base")) == ((D(10), D(5)), (D(30), D(50)))


# ------------------------------------------------------------------ what a review found


def test_a_book_from_before_shadows_does_not_follow_attempts_long_over():
    """An upgraded database has windows in its log and no mark of shadows: its old windows are history."""
    book = Book(shadows=ShadowRules(enabled=False))
    attempt(book)
    attempt(book)
    assert book.uow.log.counts()["uptrend_buy_window"] > 1
    book.rules = replace(book.rules, shadows=ShadowRules())
    book.uow.watermarks.delete("shadows")
    book.desk = book.start()
    book.bar("on", 105.0)
    assert list(book.uow.shadows.values()) == []
    assert book.uow.log.counts().get("shadows_closed", 0) == 0


def test_the_stops_of_a_trade_are_those_of_its_shadow(w):
    """With a disaster stop on, the shadow of a bought window leaves where the trade does, on a bar without events."""
    world = made(w, rules=replace(RULES, pm=PmRules(disaster_stop_atr=2.0)))
    world.bar("S1", 100.0, ts_score=0.7)
    for price in (97.5, 96.5, 120.0):
        world.bar("S1", price)
    world.over("S1", 119.0)
    world.bar("S0", 119.0)
    summary, _ = trade(world)
    (one,) = outcomes(world)
    assert summary.rr < 0
    assert one.rr == pytest.approx(summary.rr, rel=1e-3)


def test_one_window_that_cannot_be_followed_keeps_no_other_back(monkeypatch):
    """It goes to the dead letters once; the job does not fail on every bar."""
    book = Book()
    book.bar("on", 100.0, "buy")

    def broken(*given):
        raise ArithmeticError("no number")

    monkeypatch.setattr("edgebook.jobs.open_shadow", broken)
    book.bar("same", 105.0)
    book.bar("same", 105.0)
    assert [letter.stage for letter in book.uow.dead_letters.values()] == ["follow_shadows"]
