"""Coefficients are folded from first trades, speak only from what has closed, stay in bounds, and never say twice what
alloc_mult says."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import pytest

from edgebook.domain.book import Curator
from edgebook.domain.coefficient import Coefficient, CoefficientPart
from edgebook.domain.decay import DAY
from edgebook.domain.errors import TradingError
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.pattern import DM_ALLOCATION
from edgebook.overrides.history import ConfigHistory
from edgebook.overrides.record import Override, dump_documents
from edgebook.trading.coefficients import (
    NEUTRAL,
    beside,
    evolve_coefficients,
    no_coefficient,
    static_multipliers,
    weigh,
)
from edgebook.trading.decision import decide
from edgebook.trading.rules import COEFFICIENTS, DecisionRules, timeframe_splits

BOTH = COEFFICIENTS.pair
CONTEXT = {
    "curator": "ann", "chain": "exchange", "mcap_bucket": "2m-5m", "vol_bucket": None, "age_bucket": "7-14d",
    "intent": "new_discovery", "mapping_confidence": "high", "mcap_vol_ratio_bucket": None, "allocation_pct": 8.0,
}  # fmt: skip
SCOPE = (("curator", "ann"), ("chain", "exchange"), ("mcap_bucket", "2m-5m"))
PAIR_KEY = "pair|curator=ann|mcap_bucket=2m-5m"


@pytest.fixture
def closed(w, world):
    """``closed(rr, day, ...)``: a close of ann's, of a position that had ``share`` of its decision's 8 %."""
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    world.bar("S0", 95.0)
    strand = world.kinds("position_closed")[0]

    def build(rr, day=0.0, *, share=1.0, timeframe="1h", first=True, **context):
        payload = replace(
            strand.payload,
            summary=replace(strand.payload.summary, rr=rr),
            entry_context=CONTEXT | context,
            allocation_pct=8.0 * share,
            first_under_decision=first,
        )
        return replace(strand, payload=payload, timeframe=timeframe, ts_event=w.T0 + round(day * DAY))

    return build


def folded(*strands):
    rows = {}
    for strand in strands:
        rows |= {row.key: row for row in evolve_coefficients(rows.get, strand)}
    return rows


def table(**rows):
    """A book at ``ts`` 0 with (n, sum of rr) per key; ``_`` in a name stands for its ``|``."""
    made = [Coefficient(*name.split("__"), n=n, sum_r=total) for name, (n, total) in rows.items()]
    return {row.key: row for row in made}.get


# ---------------------------------------------------------------- the fold


def test_a_decision_counts_one_with_the_allocation_weighted_rr_of_its_first_trades(closed):
    """Decisions 41: 85 % of the allocation at +1 R and 15 % at -1 R is one decision at +.7 R, in every row it has."""
    rows = folded(closed(1.0, share=0.85), closed(-1.0, share=0.15, timeframe="4h"))
    expected = {"all|", "curator|ann", "chain|exchange", "mcap_bucket|2m-5m", "age_bucket|7-14d"}
    expected |= {"intent|new_discovery", "mapping_confidence|high", PAIR_KEY}
    assert set(rows) == expected | {"timeframe|1h", "timeframe|4h"}
    for key in expected:
        assert (rows[key].n, rows[key].sum_r) == (pytest.approx(1.0), pytest.approx(0.7))
    assert (rows["timeframe|1h"].n, rows["timeframe|1h"].sum_r) == (1.0, 1.0)
    assert (rows["timeframe|4h"].n, rows["timeframe|4h"].sum_r) == (1.0, -1.0)


def test_evidence_counts_half_after_sixty_days(closed, w):
    """Half-life 1,440 h, 60 days: (.5 * 2 + 1 * -1) over (.5 + 1)."""
    row = folded(closed(2.0), closed(-1.0, 60))["curator|ann"]
    assert (row.n, row.sum_r, row.anchor_ts) == (pytest.approx(1.5), pytest.approx(0.0), w.T0 + 60 * DAY)


def test_the_order_of_closes_does_not_matter(closed):
    """A late report of an old trade counts as old as it is; equal up to rounding."""
    closes = [closed(2.0, 0), closed(-1.0, 45), closed(0.5, 20, share=0.3), closed(3.0, 45, curator="bob")]
    first = folded(*closes)
    for order in permutations(closes):
        rows = folded(*order)
        assert rows.keys() == first.keys()
        for key, row in rows.items():
            assert row.anchor_ts == first[key].anchor_ts
            assert (row.n, row.sum_r) == (pytest.approx(first[key].n), pytest.approx(first[key].sum_r))


def test_a_later_trade_under_the_same_decision_says_nothing(closed):
    """Decisions 41: later trades are the portfolio manager's; nor does one count whose decision is not known."""
    assert folded(closed(5.0, first=False)) == {}
    assert folded(closed(5.0, allocation_pct=None)) == {}
    assert folded(closed(5.0, allocation_pct=0.0)) == {}


def test_only_a_close_is_folded(w):
    """Another kind of strand is a mistake of the caller."""
    with pytest.raises(TradingError, match="social_lowcap closes no trade"):
        evolve_coefficients(no_coefficient, w.social())


# ---------------------------------------------------------------- what a decision makes of it


def test_weights_follow_the_formula():
    """All: 100 decisions at +.1 R. ann: 20 at +.6 R, believed half: +.25. The cap class: 60 at 0 R, believed 3/4:
    -.075. The pair: 20 at +.8 R, so +.7 over all, less .175 of its two, believed half: +.2625."""
    row = table(all__=(100, 10.0), curator__ann=(20, 12.0), mcap_bucket__x=(60, 0.0), pair__=(0, 0.0))
    pair = Coefficient("pair", "curator=ann|mcap_bucket=x", 20, 16.0)
    scope = (("curator", "ann"), ("chain", "exchange"), ("mcap_bucket", "x"))
    found = weigh(scope, lambda key: pair if key == pair.key else row(key), 0, dims=BOTH)
    assert found.parts == (
        CoefficientPart("curator", "ann", 20.0, pytest.approx(0.25), pytest.approx(math.exp(0.1))),
        CoefficientPart("mcap_bucket", "x", 60.0, pytest.approx(-0.075), pytest.approx(math.exp(-0.03))),
        CoefficientPart("pair", pair.value, 20.0, pytest.approx(0.2625), pytest.approx(math.exp(0.105))),
    )
    assert found.coefficient_mult == pytest.approx(math.exp(0.1 - 0.03 + 0.105))
    assert (found.static_mult, dict(found.timeframes)) == (1.0, {})


def test_without_evidence_everything_is_exactly_neutral():
    """No row, no weight: not nearly one, one."""
    found = weigh(SCOPE, no_coefficient, 0, dims=COEFFICIENTS.dims, timeframes=("1h", "4h"))
    assert (found.coefficient_mult, found.static_mult) == (1.0, 1.0)
    assert dict(found.timeframes) == {"1h": 1.0, "4h": 1.0}
    assert {part.learned for part in found.parts} == {1.0}
    assert weigh((), no_coefficient, 0, dims=BOTH) == NEUTRAL


def test_what_is_not_asked_for_does_not_act():
    """Rows of other dimensions are kept, and do nothing under ``on``."""
    row = table(all__=(100, 0.0), chain__exchange=(100, 300.0), curator__ann=(0, 0.0))
    assert weigh(SCOPE, row, 0, dims=BOTH).coefficient_mult == 1.0
    assert weigh(SCOPE, row, 0, dims=COEFFICIENTS.dims).coefficient_mult == 2.0


def test_evidence_fades_while_nothing_closes(closed, w):
    """Sixty days on, twenty decisions are ten: believed a third, no longer half."""
    found = [Coefficient("all", "", 100, 0.0, w.T0), Coefficient("curator", "ann", 20, 20.0, w.T0)]
    rows = {row.key: row for row in found}
    now, later = (weigh(SCOPE, rows.get, w.T0 + days * DAY, dims=BOTH).parts[0] for days in (0, 60))
    assert (now.n, now.effect_r) == (20.0, 0.5)
    assert (later.n, later.effect_r) == (pytest.approx(10.0), pytest.approx(1 / 3))


@pytest.mark.parametrize(("mean", "mult"), [(9.0, 2.0), (-9.0, 0.5)])
def test_a_part_and_the_product_stay_between_a_half_and_two(mean, mult):
    """Decisions 42: however good or bad; three parts at their bound are no more than one."""
    row = table(all__=(1e6, 0.0), curator__ann=(1e4, mean * 1e4), chain__exchange=(1e4, mean * 1e4))
    found = weigh(SCOPE, row, 0, dims=COEFFICIENTS.dims)
    assert found.coefficient_mult == pytest.approx(mult)
    assert [part.learned for part in found.parts if part.n > 1] == pytest.approx([mult, mult])


# ---------------------------------------------------------------- static multipliers


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mcap_usd": 9e4, "age_days": 0.5}, {"chain": 1.0, "mcap_bucket": 0.33, "age_bucket": 0.5}),
        ({"mcap_usd": 1e5, "age_days": 1.0}, {"chain": 1.0, "mcap_bucket": 0.5, "age_bucket": 0.6}),
        ({"mcap_usd": 1e6, "age_days": 2.0}, {"chain": 1.0, "mcap_bucket": 1.0, "age_bucket": 0.9}),
        ({"mcap_usd": 1e7, "age_days": 3.0}, {"chain": 1.0, "mcap_bucket": 1.33, "age_bucket": 1.0}),
        ({"mcap_usd": 1e8, "chain": "base"}, {"chain": 2.0, "mcap_bucket": 1.5, "age_bucket": 1.0}),
        ({"mcap_usd": None, "age_days": None, "allocation_multiplier": 1.7}, {"chain": 1.0, "intent": 1.7}),
        ({"chain": "exchange", "allocation_multiplier": 1.7}, {}),
    ],
)
def test_static_multipliers_are_those_of_the_table(w, change, expected):
    """trading.md 1.6: cap, age, chain, intent; what is not known has none, and an exchange has none at all."""
    signal = w.social(**({"chain": "solana"} | change)).payload
    assert static_multipliers(signal, signal.mcap_usd) == expected


def test_a_static_multiplier_gives_way_to_evidence_on_its_own_value():
    """trading.md 1.6: m = l * learned + (1 - l) * static in logs, l = n / (n + 30); at n = 30 half of each."""
    row = table(all__=(1000, 0.0), mcap_bucket__x=(30, 30.0))
    scope, static = (("curator", "ann"), ("mcap_bucket", "x")), {"mcap_bucket": 0.5}
    found = weigh(scope, row, 0, dims=BOTH, static=static)
    assert found.coefficient_mult == pytest.approx(math.exp(0.5 * 0.4 * 30 / 50))
    assert found.static_mult == pytest.approx(math.sqrt(0.5))
    assert weigh(scope, no_coefficient, 0, dims=BOTH, static=static).static_mult == 0.5


def test_a_static_multiplier_fades_also_where_its_dimension_does_not_act():
    """The age of a token has no coefficient under ``on``; with thirty decisions its static multiplier counts half."""
    row = table(all__=(1000, 0.0), age_bucket__x=(30, 90.0))
    found = weigh((("age_bucket", "x"),), row, 0, dims=BOTH, static={"age_bucket": 0.25})
    assert (found.coefficient_mult, found.static_mult) == (1.0, pytest.approx(0.5))
    assert [(part.dim, part.learned) for part in found.parts] == [("age_bucket", 1.0)]


def test_static_multipliers_cannot_push_the_product_over_two():
    """Ethereum, a large cap and an emphatic intent would be 6 together: nothing but rules of thumb."""
    scope = (("chain", "ethereum"), ("mcap_bucket", "x"), ("intent", "new_discovery"))
    found = weigh(scope, no_coefficient, 0, dims=BOTH, static={"chain": 2.0, "mcap_bucket": 1.5, "intent": 2.0})
    assert found.static_mult == pytest.approx(2.0)
    assert weigh(
        scope, no_coefficient, 0, dims=BOTH, static={"chain": 0.33, "intent": 0.5}
    ).static_mult == pytest.approx(0.165)


# ---------------------------------------------------------------- the split over timeframes


def test_the_split_is_proportional_to_default_times_weight():
    """trading.md 1.6: one weight of 1.2 leaves 68 % on 1h; normalised weights alone would have left 24 %."""
    splits = timeframe_splits(("1m", "15m", "1h", "4h"), weights={"4h": 1.2})
    assert round(100 * splits["1h"]) == 68
    assert sum(splits.values()) == pytest.approx(1.0)
    assert splits["4h"] / splits["15m"] == pytest.approx(1.2)
    assert timeframe_splits(("1h", "4h"), weights={"1h": 1.0, "4h": 1.0}) == timeframe_splits(("1h", "4h"))


def test_the_weight_of_a_timeframe_is_its_own_trades_against_all():
    """20 trades on 4h at +1 R against 0 R of all decisions, believed half: exp(.4 * .5)."""
    row = table(all__=(100, 0.0), timeframe__4h=(20, 20.0))
    found = weigh((), row, 0, dims=(), timeframes=("1h", "4h"))
    assert dict(found.timeframes) == {"1h": 1.0, "4h": pytest.approx(math.exp(0.2))}
    assert found.coefficient_mult == 1.0
    assert [part.dim for part in found.parts] == ["timeframe", "timeframe"]


# ---------------------------------------------------------------- beside alloc_mult


@pytest.mark.parametrize(
    ("coefficient", "alloc_mult", "left"),
    [
        (1.2, 1.0, 1.2),
        (1.2, 1.1, 1.2 / 1.1),
        (1.1, 1.3, 1.0),
        (0.8, 0.9, 0.8 / 0.9),
        (0.9, 0.7, 1.0),
        (0.8, 1.3, 0.8),
        (1.3, 0.7, 1.3),
        (1.0, 1.3, 1.0),
    ],
)
def test_a_coefficient_does_not_repeat_what_alloc_mult_says(coefficient, alloc_mult, left):
    """Decisions 51: of two of one direction the stronger one, of two that disagree both."""
    assert beside(coefficient, alloc_mult) == pytest.approx(left)


# ---------------------------------------------------------------- in a decision


def learned(w, target):
    """An override of ann's allocations that has been in force long enough to have its full value."""
    lesson = Override("lesson-1", "dm_alloc", *DM_ALLOCATION, (("curator", "ann"),), {"alloc_mult": target}, 1e12, 0)
    dm, pm = dump_documents([lesson])
    return ConfigHistory.from_versions([ConfigVersion(4, w.T0 - 100 * DAY, dm, pm, "")])


@pytest.fixture
def decided(w):
    """``decided(mode, ...)``: the strand of a decision on ann, whose twenty decisions were worth +1 R each."""
    rows = [Coefficient("all", "", 1000, 0.0, w.T0), Coefficient("curator", "ann", 20, 20.0, w.T0)]
    rows.append(Coefficient("timeframe", "4h", 20, 20.0, w.T0))
    known = {row.key: row for row in rows}

    def build(mode, *, row=known.get, signal=None, holdout=0.0, alloc_mult=None):
        return decide(
            w.social(**(signal or {})),
            curator=Curator("ann", "testing", 0.6, 0.6),
            positions={},
            regime=w.regime(),
            tokens={},
            bars_count={},
            history=learned(w, alloc_mult) if alloc_mult else ConfigHistory(),
            rules=replace(w.PLAIN, holdout=holdout, dm=DecisionRules(coefficients=mode)),
            now=w.T0,
            coefficient=row,
        ).strands[0]

    return build


def test_a_coefficient_multiplies_the_allocation_and_is_told(decided):
    """6 % times exp(.4 * .5); the pair and the cap class have no evidence; the splits are the default ones."""
    said = decided("on").payload
    assert said.coefficient_mult == pytest.approx(math.exp(0.2))
    assert said.allocation_pct == pytest.approx(6.0 * math.exp(0.2))
    assert (said.base_allocation_pct, said.static_mult, said.alloc_mult) == (6.0, 1.0, 1.0)
    assert [(p.dim, p.value, p.n) for p in said.coefficients] == [
        ("curator", "ann", 20.0),
        ("mcap_bucket", "2m-5m", 0.0),
        ("pair", "curator=ann|mcap_bucket=2m-5m", 0.0),
    ]
    assert [p.learned for p in said.coefficients] == [pytest.approx(math.exp(0.2)), 1.0, 1.0]
    assert said.timeframe_splits == timeframe_splits(("1h", "4h"))


def test_all_also_weighs_the_split(decided):
    """Under ``all`` a timeframe's share goes with its own trades: 4h was worth +1 R twenty times."""
    said = decided("all").payload
    assert said.timeframe_splits == pytest.approx(timeframe_splits(("1h", "4h"), weights={"4h": math.exp(0.2)}))
    assert [part.dim for part in said.coefficients] == [
        "curator", "chain", "mcap_bucket", "vol_bucket", "age_bucket", "intent", "mapping_confidence",
        "mcap_vol_ratio_bucket", "pair", "timeframe", "timeframe",
    ]  # fmt: skip


def test_off_is_what_it_was_before_there_were_coefficients(decided):
    """Whatever the rows say, both multipliers are exactly 1 and no part is told."""
    said = decided("off").payload
    assert (said.coefficient_mult, said.static_mult, said.allocation_pct, said.coefficients) == (1.0, 1.0, 6.0, ())
    assert said.timeframe_splits == timeframe_splits(("1h", "4h"))


def test_the_same_evidence_is_not_counted_twice(decided):
    """Decisions 51: ann's lesson asks for 1.1 and the coefficient for 1.2214; together they are 1.2214, not 1.34."""
    said = decided("on", alloc_mult=1.1).payload
    assert said.alloc_mult == pytest.approx(1.1)
    assert said.coefficient_mult * said.alloc_mult == pytest.approx(math.exp(0.2))
    assert said.allocation_pct == pytest.approx(6.0 * math.exp(0.2))
    stronger = decided("on", alloc_mult=1.3).payload
    assert (stronger.coefficient_mult, stronger.allocation_pct) == (1.0, pytest.approx(7.8))


def test_a_holdout_decision_keeps_its_coefficient(decided):
    """Decisions 46: the arm has no overrides; the coefficient is the base they multiply, so both arms have it."""
    held = decided("on", holdout=1.0, alloc_mult=1.3)
    assert (held.arm, held.payload.alloc_mult) == ("dm", 1.0)
    assert held.payload.coefficient_mult == pytest.approx(math.exp(0.2))


def test_a_token_of_a_chain_has_static_multipliers_until_there_is_evidence(decided):
    """A token on base of 3 M USD, ten days old, meant emphatically: chain 2, cap 1, age 1, intent 1.5, together at most
    2. On an exchange none of it."""
    said = decided("on", row=no_coefficient, signal={"chain": "base", "allocation_multiplier": 1.5}).payload
    assert (said.coefficient_mult, said.static_mult) == (1.0, pytest.approx(2.0))
    assert said.allocation_pct == pytest.approx(12.0)
    assert {part.dim: part.static for part in said.coefficients if part.static != 1.0} == {"chain": 2.0, "intent": 1.5}
    assert decided("on", row=no_coefficient, signal={"allocation_multiplier": 1.5}).payload.static_mult == 1.0


# ---------------------------------------------------------------- settings


def test_a_mode_nobody_knows_is_refused():
    """The rules name the modes there are."""
    with pytest.raises(TradingError, match="off, on or all, was 'yes'"):
        DecisionRules(coefficients="yes")
