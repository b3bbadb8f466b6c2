"""The settings: splits per timeframe, and values that make no sense."""

from __future__ import annotations

import pytest

from edgebook.domain.errors import TradingError
from edgebook.trading.rules import PmRules, TradingRules, timeframe_splits


def test_the_default_splits():
    """5, 12.5, 70 and 12.5 %."""
    assert timeframe_splits(TradingRules().timeframes) == {"1m": 0.05, "15m": 0.125, "1h": 0.70, "4h": 0.125}


@pytest.mark.parametrize(
    ("timeframes", "shares"),
    [
        (["1h", "4h"], {"1h": 0.70 / 0.825, "4h": 0.125 / 0.825}),
        (["5m", "15m", "1h"], {"5m": 0.125 / 0.95, "15m": 0.125 / 0.95, "1h": 0.70 / 0.95}),
        (["30m"], {"30m": 1.0}),
        (["1h", "1d"], {"1h": 0.70 / 0.825, "1d": 0.125 / 0.825}),
    ],
)
def test_splits_are_shared_out_over_the_timeframes_present(timeframes, shares):
    """Decisions 8 and 44: renormalised; a timeframe without a row takes the nearest in log duration, ties to the
    coarser."""
    assert timeframe_splits(timeframes) == pytest.approx(shares)


def test_no_timeframe_is_an_error():
    with pytest.raises(TradingError, match="at least one timeframe"):
        timeframe_splits([])


def test_an_unknown_policy_is_an_error():
    with pytest.raises(TradingError, match="s1_policy"):
        PmRules(s1_policy="whenever")


def test_the_values_of_the_settled_decisions():
    """Decisions 43, 57, 58, 59 and 9, each as written."""
    rules = TradingRules()
    assert (rules.starting_cash_usd, rules.risk.min_notional_usd) == (100_000, 5)
    assert (rules.pm.dx_step_atr, rules.pm.dx_max) == (0.5, 3)
    assert (rules.pm.reclaim_enabled, rules.pm.first_dip_enabled, rules.pm.s1_policy) == (False, True, "on_primer")
    assert (rules.pm.trim_cooldown_bars, rules.pm.same_level_bars, rules.pm.same_level_atr) == (3, 12, 0.5)
    assert (rules.holdout, rules.outcome.r_floor, rules.outcome.r_floor_fine) == (0.10, 0.01, 0.005)
