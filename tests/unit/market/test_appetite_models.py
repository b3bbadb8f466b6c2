"""The flag-only and the phase model of A and E against the check values of trading.md 3.2, both written out by hand."""

from __future__ import annotations

import math
from itertools import product

import pytest

from edgebook.domain.reading import DriverReading
from edgebook.domain.regime import Regime
from edgebook.market.appetite import leaning
from edgebook.market.appetite_models import (
    Exposure,
    cut_pressure,
    exposed,
    flag_appetite,
    market_pressure,
    phase_appetite,
)

POLICY = {
    "Dip": (0.2, 0.8), "Double-Dip": (0.4, 0.7), "Oh-Shit": (0.9, 0.8), "Recover": (1.0, 0.5), "Good": (0.5, 0.3),
    "Euphoria": (0.4, 0.5),
}  # fmt: skip
MACRO = {
    "Dip": (0.6, 1.4), "Double-Dip": (0.8, 1.2), "Oh-Shit": (1.2, 0.8), "Recover": (1.3, 1.0), "Good": (1.1, 1.1),
    "Euphoria": (1.0, 1.4),
}  # fmt: skip
NOTHING = (0.0, 0.0)


def reading(driver, horizon="meso", state="S3", **flags):
    """A driver's reading with these flags up."""
    base = {"buy_flag": False, "buy_signal": False, "first_dip": False, "trim_flag": False, "fell_to_s0_from": ""}
    return DriverReading(driver, horizon, 0, state, state, **(base | flags))


# ---------------------------------------------------------------- phases


@pytest.mark.parametrize(("meso", "macro"), list(product(POLICY, MACRO)))
def test_each_pair_of_phases_by_hand(meso, macro):
    """36 pairs: policy times factors; with nine trades open, no pressure and no boost, clamped, that is A and E."""
    a, e = POLICY[meso][0] * MACRO[macro][0], POLICY[meso][1] * MACRO[macro][1]
    assert phase_appetite(meso, macro) == pytest.approx((a, e), abs=1e-12)
    assert exposed(phase_appetite(meso, macro), Exposure(9, 0.0), NOTHING, 1.0) == pytest.approx(
        (min(a, 1.0), min(e, 1.0)), abs=1e-12
    )


@pytest.mark.parametrize("macro", ["Unknown", *MACRO])
def test_an_unknown_phase_is_neutral(macro):
    """No meso phase: .5 and .5; no macro phase: no factor."""
    assert phase_appetite("Unknown", macro) == pytest.approx(tuple(0.5 * x for x in MACRO.get(macro, (1.0, 1.0))))
    assert phase_appetite("Good", "Unknown") == (0.5, 0.3)


@pytest.mark.parametrize(("pressure", "expected"), [(0.0, (0.5, 0.3)), (0.5, (0.4175, 0.3495)), (1.0, (0.335, 0.399))])
def test_cut_pressure_lowers_appetite_and_raises_exit(pressure, expected):
    """.5 (1 - .33 cp) and .3 (1 + .33 cp)."""
    assert exposed((0.5, 0.3), Exposure(9, pressure), NOTHING, 1.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("active", "expected"),
    [(5, (0.6, 0.24)), (9, (0.5, 0.3)), (15, (0.5 * math.exp(-0.6), 0.3 * math.exp(0.6)))],
)
def test_open_trades_crowd_out_appetite(active, expected):
    """n 5: A 1.20, E .80; n 9: nothing; n 15: e^-.6 and e^.6."""
    assert exposed((0.5, 0.3), Exposure(active), NOTHING, 1.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("age_hours", "factor"),
    [(5.9, 1.15), (6.0, 1.10), (11.9, 1.10), (12.0, 1.05), (71.9, 1.05), (72.0, 1.0), (None, 1.0)],
)
def test_young_tokens_are_boosted_on_both_sides(age_hours, factor):
    """Below 6, 12 and 72 hours; an unknown age boosts nothing."""
    found = exposed((0.5, 0.3), Exposure(age_hours=age_hours), NOTHING, 1.0)
    assert found == pytest.approx((0.5 * factor, 0.3 * factor), abs=1e-12)


@pytest.mark.parametrize(("mcap", "factor"), [(99_999, 1.15), (1e5, 1.10), (5e5, 1.05), (1e6, 1.0), (None, 1.0)])
def test_small_tokens_are_boosted_on_both_sides(mcap, factor):
    """Below 100k, 500k and 1M; the two boosts multiply."""
    assert exposed((0.5, 0.3), Exposure(mcap_usd=mcap), NOTHING, 1.0) == pytest.approx((0.5 * factor, 0.3 * factor))
    both = exposed((0.5, 0.3), Exposure(age_hours=1.0, mcap_usd=mcap), NOTHING, 1.0)
    assert both == pytest.approx((0.5 * factor * 1.15, 0.3 * factor * 1.15))


def test_intent_comes_before_boosts_and_bucket_and_the_clamp_is_last():
    """(.5 + .25) 1.15 .8 and (.3 - .1) 1.15 / .8; a strong bucket cannot lift above 1, a weak one divides by .2 at
    least."""
    exposure = Exposure(age_hours=1.0)
    assert exposed((0.5, 0.3), exposure, (0.25, -0.10), 0.8) == pytest.approx((0.75 * 1.15 * 0.8, 0.2 * 1.15 / 0.8))
    assert exposed((1.3, 0.5), Exposure(), NOTHING, 1.3)[0] == 1.0
    assert exposed((0.5, 0.1), Exposure(), NOTHING, 0.1) == pytest.approx((0.05, 0.5))


def test_what_depends_on_the_book_joins_at_the_tick_and_not_in_the_snapshot():
    """The regime keeps its id and content; A, E and the modes follow book and token."""
    market = Regime(
        0, 0.5, 0.3, (("A_mode", "normal"), ("E_mode", "patient")), "id", {"a_base": 0.5}, 0.5, 0.3, 1.0, 0.2
    )
    found = leaning(market, NOTHING, Exposure(15, 1.0))
    assert (found.snapshot_id, found.snapshot) == ("id", {"a_base": 0.5})
    assert (found.a_base, found.e_base) == pytest.approx((0.335 * math.exp(-0.6), 0.399 * math.exp(0.6)))
    assert dict(found.scope) == {"A_mode": "patient", "E_mode": "aggressive"}
    assert leaning(market, NOTHING) is market


# ---------------------------------------------------------------- cut pressure


@pytest.mark.parametrize(
    ("score", "curvature", "dominance"), [(0.0, 0.0, 0), (2.0, -1.0, 1), (-2.0, 1.0, -1), (1.0, 0.5, 0)]
)
def test_what_the_market_adds_by_hand(score, curvature, dominance):
    """.55 clip(.6 s(S) + .4 s(S) s(-C) - .6 s(-S) s(C)) and .1 per dominance direction."""
    s = lambda x: 1 / (1 + math.exp(-1.2 * x))  # noqa: E731
    tension = 0.6 * s(score) + 0.4 * s(score) * s(-curvature) - 0.6 * s(-score) * s(curvature)
    wanted = 0.55 * min(1.0, max(0.0, tension)) + 0.1 * dominance
    assert market_pressure(score, curvature, dominance) == pytest.approx(wanted, abs=1e-12)


def test_unknown_scores_count_as_zero():
    """Before the phases are warm the market adds what a score of 0 adds."""
    assert market_pressure(math.nan, math.nan, 0) == market_pressure(0.0, 0.0, 0)


def test_cut_pressure_is_an_ema_with_bounded_steps():
    """Starts at the first hour's target, moves 15 % of the way per hour, and by .20 at most."""
    crowd = lambda n: 0.25 * (0.5 + 0.5 * math.tanh((n - 12) / 4))  # noqa: E731
    assert cut_pressure([]) == 0.0
    assert cut_pressure([(0.3, 12)]) == pytest.approx(0.3 + 0.125)
    first, second = 0.3 + crowd(5), 0.5 + crowd(15)
    assert cut_pressure([(0.3, 5), (0.5, 15)]) == pytest.approx(first + 0.15 * (second - first))
    assert cut_pressure([(-9.0, 0), (9.0, 99)]) == pytest.approx(0.15)


# ---------------------------------------------------------------- flags


def test_no_flag_is_neutral():
    """States alone say nothing under this model."""
    assert flag_appetite([reading(d, state=s) for d in ("btc", "usdtd") for s in ("S0", "S3")]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("driver", "flag", "lean"),
    [
        (driver, flag, (-size if driver.endswith("d") and flag != "emergency" else size) * weight)
        for driver, weight in {"usdtd": 1.0, "bucket": 0.9, "btcd": 0.7, "alt": 0.5, "btc": 0.3}.items()
        for flag, size in {"buy_flag": 0.15, "trim_flag": -0.20, "emergency": -0.40}.items()
    ],
)
def test_each_flag_of_each_driver(driver, flag, lean):
    """Buy .15 and trim .20, reversed for dominances; emergency .40, always risk-off; A one way, E the other."""
    assert flag_appetite([reading(driver, **{flag: True})]) == pytest.approx((0.5 + lean, 0.5 - lean), abs=1e-12)


def test_a_flag_counts_once_however_many_horizons_show_it():
    """The model has no horizon weights."""
    once = flag_appetite([reading("btc", buy_flag=True)])
    assert flag_appetite([reading("btc", horizon, buy_flag=True) for horizon in ("macro", "meso")]) == once
    assert flag_appetite([reading("btc", state="S1", buy_signal=True)]) == once
    assert flag_appetite([reading("btc", state="S1", buy_flag=True)]) == (0.5, 0.5)
