"""Laws of the coefficients over random trades: order, bounds, what is compared, and what is never said twice."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.domain.decay import DAY
from edgebook.trading.coefficients import Weighing, beside, evolve_coefficients, weigh
from edgebook.trading.rules import COEFFICIENTS, timeframe_splits


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
NOW = W.T0 + 400 * DAY
TIMEFRAMES = ("1h", "4h")
CAPS, CURATORS = ("2m-5m", "5b+"), ("ann", "bob", "cat=|")
scopes = st.tuples(st.sampled_from(CURATORS), st.sampled_from(CAPS), st.sampled_from(["exchange", "base"]))
trades = st.lists(
    st.tuples(
        scopes, st.floats(-3.0, 10.0), st.floats(0.0, 1.0), st.integers(0, 400), st.sampled_from(TIMEFRAMES),
        st.booleans(),
    ),
    max_size=30,
)  # fmt: skip
statics = st.dictionaries(st.sampled_from(["chain", "mcap_bucket", "intent"]), st.floats(0.1, 2.0))
multipliers = st.floats(0.5, 2.0)


@cache
def a_close():
    world = W.World()
    world.s1_buy()
    world.over("S1", 96.0)
    world.bar("S0", 95.0)
    return world.kinds("position_closed")[0]


def close(scope, rr, share, day, timeframe, first):
    """The close of a position that had ``share`` of a decision of 10 %."""
    known = dict(zip(("curator", "mcap_bucket", "chain"), scope, strict=True)) | {"allocation_pct": 10.0}
    said = a_close().payload
    payload = replace(
        said, summary=replace(said.summary, rr=rr), entry_context=known, allocation_pct=10.0 * share,
        first_under_decision=first,
    )  # fmt: skip
    return replace(a_close(), payload=payload, timeframe=timeframe, ts_event=W.T0 + day * DAY)


def folded(some):
    rows = {}
    for trade in some:
        rows |= {row.key: row for row in evolve_coefficients(rows.get, close(*trade))}
    return rows


def asked(rows, scope, static=None) -> Weighing:
    items = tuple(zip(("curator", "mcap_bucket", "chain"), scope, strict=True))
    return weigh(items, rows.get, NOW, dims=COEFFICIENTS.dims, timeframes=TIMEFRAMES, static=static or {})


@given(trades, st.randoms(use_true_random=False))
def test_the_fold_does_not_depend_on_the_order_of_closes(some, random):
    """Any order gives the same rows, up to rounding, and so the same weights."""
    shuffled = list(some)
    random.shuffle(shuffled)
    one, other = folded(some), folded(shuffled)
    assert one.keys() == other.keys()
    for key, row in one.items():
        assert row.anchor_ts == other[key].anchor_ts
        assert (row.n, row.sum_r) == (pytest.approx(other[key].n), pytest.approx(other[key].sum_r, abs=1e-9))


@given(trades)
def test_what_a_row_says_is_the_decayed_sum_of_its_closes(some):
    """Against a plain sum over all first trades: curator rows, with each close decayed to the newest one of its row."""
    rows = folded(some)
    for curator in CURATORS:
        mine = [(W.T0 + d * DAY, share, rr) for (c, *_), rr, share, d, _, first in some if first and c == curator]
        mine = [one for one in mine if one[1] > 0]
        if not mine:
            assert f"curator|{curator}" not in rows
            continue
        newest = max(ts for ts, _, _ in mine)
        weights = [share * 2.0 ** (-(newest - ts) / DAY / 60) for ts, share, _ in mine]
        row = rows[f"curator|{curator}"]
        assert row.n == pytest.approx(math.fsum(weights))
        total = math.fsum(weight * rr for weight, (_, _, rr) in zip(weights, mine, strict=True))
        assert row.sum_r == pytest.approx(total, abs=1e-9)


@given(trades, scopes, statics)
def test_no_evidence_pushes_a_weight_out_of_its_bounds(some, scope, static):
    """Every part and the product in [1/2, 2], the product with the static ones at most 2, splits whole and positive."""
    found = asked(folded(some), scope, static)
    for value in (found.coefficient_mult, *(part.learned for part in found.parts)):
        assert 0.5 - 1e-12 <= value <= 2.0 + 1e-12
    assert found.static_mult > 0.0
    assert found.coefficient_mult * found.static_mult <= 2.0 + 1e-12
    splits = timeframe_splits(TIMEFRAMES, weights=found.timeframes)
    assert sum(splits.values()) == pytest.approx(1.0)
    assert min(splits.values()) > 0.0


@given(trades, scopes, st.floats(-2.0, 2.0))
def test_only_differences_count(some, scope, shift):
    """A market in which every trade is worth so much more or less moves no weight."""
    moved = [(s, rr + shift, share, day, tf, first) for s, rr, share, day, tf, first in some]
    one, other = asked(folded(some), scope), asked(folded(moved), scope)
    assert one.coefficient_mult == pytest.approx(other.coefficient_mult)
    assert dict(one.timeframes) == pytest.approx(dict(other.timeframes))


@given(trades, scopes)
def test_a_curator_without_trades_has_no_weight(some, scope):
    """Neither its own nor that of the pair moves before something of its own has closed."""
    rows = folded(trade for trade in some if trade[0][0] != scope[0])
    weights = {part.dim: part.learned for part in asked(rows, scope).parts}
    assert weights["curator"] == 1.0


@given(multipliers, st.floats(0.7, 1.3))
def test_coefficient_and_alloc_mult_together_say_no_more_than_the_stronger(coefficient, alloc_mult):
    """|ln total| <= max(|ln coefficient|, |ln alloc_mult|); of one direction it is exactly that; neither is turned
    round."""
    left = beside(coefficient, alloc_mult)
    own, said, total = math.log(coefficient), math.log(alloc_mult), math.log(left * alloc_mult)
    stronger = max(abs(own), abs(said))
    assert abs(total) <= stronger + 1e-12
    if own * said > 0:
        assert abs(total) == pytest.approx(stronger)
    assert math.log(left) * own >= 0.0
