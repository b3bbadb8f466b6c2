"""Settings: one source of truth per number, unknown keys refused, machine facts out of the hash (decisions 33)."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal

import pytest

from edgebook.domain.errors import InputError
from edgebook.runtime.bootstrap import paper_broker, trading_rules
from edgebook.runtime.settings import Settings, load_settings
from edgebook.trading.rules import PmRules, ProtectionRules, RiskRules, SkewRules


def test_command_line_wins_over_environment_wins_over_file(tmp_path, monkeypatch):
    """File < environment < command line, and what nobody gives keeps its default."""
    file = tmp_path / "settings.toml"
    file.write_text('seed = 5\nspeed = 7.0\nbook = "file"\n')
    monkeypatch.setenv("EDGEBOOK_SPEED", "8")
    monkeypatch.setenv("EDGEBOOK_BOOK", "environment")

    found = load_settings(file, book="command")

    assert (found.seed, found.speed, found.book, found.feed) == (5, 8.0, "command", "sim")


@pytest.mark.parametrize(
    "change",
    [{"db": "sqlite:///x.db"}, {"port": 9}, {"speed": 2.0}, {"commit_every_strands": 3}, {"curators": "x.toml"}],
)
def test_facts_of_the_machine_are_not_hashed(change):
    """Where and how fast it runs changes nothing that is hashed."""
    assert Settings(**change).settings_hash == Settings().settings_hash


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"timeframes": ("1h",)},
        {"starting_cash_usd": 5},
        {"book": "b"},
        {"sim_tokens": 3},
        {"learning_enabled": False},
        {"feed": "parquet:x"},
        {"daily_loss_stop": 0.1},
        {"drawdown_stop": 0.2},
        {"cooldown_hours": 6},
        {"loss_streak": 3, "loss_streak_hours": 24},
        {"stop_buy": True},
        {"fill_on": "close"},
        {"failure_probability": 0.1},
        {"dm_coefficients": "all"},
        {"pool_only": True},
        {"trade_mid_attempt": True},
        {"episode_block": True},
        {"disaster_stop_atr": 5.0},
        {"max_bars_in_attempt": 500},
        {"emergency_timeout_bars": 50},
    ],
    ids=str,
)
def test_what_changes_results_is_hashed(change):
    """Each of these makes another run, so another hash."""
    assert Settings(**change).settings_hash != Settings().settings_hash


def test_timeframes_are_put_in_order_and_once():
    """However they are given."""
    assert load_settings(timeframes=" 4h,1m , 1h,4h").timeframes == ("1m", "1h", "4h")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"seed": -1}, "seed"), ({"speed": 0}, "speed"), ({"speed": float("nan")}, "speed"), ({"port": 65536}, "port"),
        ({"timeframes": "2h"}, "2h"), ({"timeframes": ""}, "timeframe"), ({"sped": 1}, "sped"),
        ({"sim_tokens": 1}, "sim_tokens"),
        ({"starting_cash_usd": 0}, "starting_cash_usd"), ({"commit_every_strands": 0}, "commit_every_strands"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_setting_is_named_in_one_line(given, named):
    """The error says which setting, what was wrong with it and what it was."""
    with pytest.raises(InputError) as refused:
        load_settings(**given)
    assert named in refused.value.message
    assert "\n" not in refused.value.message


def test_a_wrong_number_of_simulated_tokens_is_an_input_error():
    """What the settings allow the simulator takes: no setting passes here and fails there."""
    from edgebook.runtime.bootstrap import open_feed

    for tokens in (2, 3, 24, 25, 200):
        try:
            settings = load_settings(sim_tokens=tokens)
        except InputError:
            assert not 3 <= tokens <= 24
            continue
        assert open_feed(settings).source.symbols


PROTECTIONS = {
    "daily_loss_stop": 0.1, "drawdown_stop": 0.25, "cooldown_hours": 6.0, "loss_streak": 3, "loss_streak_hours": 24.0,
    "stop_buy": True,
}  # fmt: skip


def test_a_book_may_be_run_under_other_protections_but_not_under_other_fills():
    """Limits an operator tightens need no new database; what the broker does makes another book."""
    assert Settings(**PROTECTIONS).book_hash == Settings().book_hash
    assert Settings(fill_on="close").book_hash != Settings().book_hash
    assert Settings(failure_probability=0.1).book_hash != Settings().book_hash


def test_settings_of_a_later_release_leave_the_hash_of_a_database_alone_at_their_defaults():
    """The hash over the settings of the first release, written out: databases that hold it can still be opened."""
    first = {
        "feed": "sim", "seed": 1, "timeframes": ["1m", "15m", "1h", "4h"], "sim_tokens": 24,
        "starting_cash_usd": 100_000, "book": "main", "learning_enabled": True, "global_exit": False,
        "s1_policy": "on_primer", "first_dip": True, "reclaim": False,
    }  # fmt: skip
    expected = hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()[:16]

    assert Settings().settings_hash == Settings().book_hash == expected


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"daily_loss_stop": 10}, "daily_loss_stop"), ({"daily_loss_stop": -0.1}, "daily_loss_stop"),
        ({"drawdown_stop": 1}, "drawdown_stop"), ({"drawdown_stop": float("nan")}, "drawdown_stop"),
        ({"cooldown_hours": -1}, "cooldown_hours"), ({"cooldown_hours": float("inf")}, "cooldown_hours"),
        ({"loss_streak": 2.5, "loss_streak_hours": 1}, "loss_streak"), ({"loss_streak": -1}, "loss_streak"),
        ({"loss_streak_hours": 1e9, "loss_streak": 2}, "loss_streak_hours"), ({"stop_buy": "perhaps"}, "stop_buy"),
        ({"fill_on": "open"}, "fill_on"), ({"failure_probability": 1.5}, "failure_probability"),
        ({"loss_streak": 3}, "loss_streak is 3 and loss_streak_hours is 0; set both above 0, or neither"),
        ({"loss_streak_hours": 6}, "loss_streak is 0 and loss_streak_hours is 6; set both above 0, or neither"),
        ({"daily_loss_stop": 0.2, "drawdown_stop": 0.2}, "the daily stop must be the smaller one"),
        ({"daily_loss_stop": 0.3, "drawdown_stop": 0.2}, "daily_loss_stop is 0.3 and drawdown_stop is 0.2"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_and_contradictory_protections_are_refused_in_one_line(given, named):
    """A share is below 1, hours are finite, a streak needs its pause, the daily stop is below the drawdown stop."""
    with pytest.raises(InputError) as refused:
        load_settings(**given)
    assert named in refused.value.message
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 200


def test_protections_reach_the_rules_and_are_all_off_by_default(tmp_path, monkeypatch):
    """From a file or the environment; hours as microseconds, shares exact."""
    from edgebook.runtime.bootstrap import trading_rules

    file = tmp_path / "settings.toml"
    file.write_text("daily_loss_stop = 0.1\ndrawdown_stop = 0.25\ncooldown_hours = 0.5\nloss_streak = 3\n")
    monkeypatch.setenv("EDGEBOOK_LOSS_STREAK_HOURS", "24")
    monkeypatch.setenv("EDGEBOOK_STOP_BUY", "true")

    assert trading_rules(load_settings(file), ["1h"]).protections == ProtectionRules(
        Decimal("0.1"), Decimal("0.25"), 1_800_000_000, 3, 86_400_000_000, True
    )
    monkeypatch.delenv("EDGEBOOK_LOSS_STREAK_HOURS")
    monkeypatch.delenv("EDGEBOOK_STOP_BUY")
    off = trading_rules(Settings(), ["1h"]).protections
    assert off == ProtectionRules()
    assert (off.watches_nav, off.watches_trades, off.stop_buy) == (False, False, False)


OPTIONS = {
    "pool_only": True, "trade_mid_attempt": True, "episode_block": True, "disaster_stop_atr": 4.5,
    "max_bars_in_attempt": 500, "emergency_timeout_bars": 50,
}  # fmt: skip


def test_optional_rules_reach_the_book_and_are_all_off_by_default(tmp_path):
    """Each under its own name; they make another book, unlike a protection."""
    from edgebook.runtime.bootstrap import trading_rules

    file = tmp_path / "settings.toml"
    file.write_text("\n".join(f"{name} = {str(value).lower()}" for name, value in OPTIONS.items()))

    assert trading_rules(load_settings(file), ["1h"]).pm == PmRules(**OPTIONS)
    assert trading_rules(Settings(), ["1h"]).pm == PmRules()
    for name, value in OPTIONS.items():
        assert Settings(**{name: value}).book_hash != Settings().book_hash


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"disaster_stop_atr": -1}, "disaster_stop_atr"), ({"disaster_stop_atr": float("nan")}, "disaster_stop_atr"),
        ({"disaster_stop_atr": 101}, "disaster_stop_atr"), ({"max_bars_in_attempt": -1}, "max_bars_in_attempt"),
        ({"max_bars_in_attempt": 1.5}, "max_bars_in_attempt"),
        ({"emergency_timeout_bars": -1}, "emergency_timeout_bars"),
        ({"episode_block": "perhaps"}, "episode_block"), ({"pool_only": 7}, "pool_only"),
        (
            {"emergency_timeout_bars": 50, "max_bars_in_attempt": 40},
            "emergency_timeout_bars is 50 and max_bars_in_attempt is 40; the timeout must be the smaller one",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_optional_rules_that_make_no_sense_are_refused_in_one_line(given, named):
    """The setting, its value and what would be right."""
    with pytest.raises(InputError) as refused:
        load_settings(**given)
    assert named in refused.value.message
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 200


def test_an_emergency_timeout_alone_is_no_contradiction():
    """It needs no other rule; nor does it where it is the smaller one."""
    assert load_settings(emergency_timeout_bars=50).emergency_timeout_bars == 50
    assert load_settings(emergency_timeout_bars=50, max_bars_in_attempt=51).max_bars_in_attempt == 51


LIMITS = {
    "min_notional_usd": 25.0, "cash_reserve": 0.1, "max_exposure": 0.6, "per_token": 0.3, "participation": 0.02,
    "fee_reserve_bps": 60.0,
}  # fmt: skip


def test_every_limit_of_a_buy_is_a_setting_and_the_defaults_are_those_of_the_rules(tmp_path, monkeypatch):
    """From a file or the environment, exact; what is not given is what it was."""
    file = tmp_path / "settings.toml"
    file.write_text("".join(f"{name} = {value}\n" for name, value in LIMITS.items() if name != "per_token"))
    monkeypatch.setenv("EDGEBOOK_PER_TOKEN", "0.3")
    monkeypatch.setenv("EDGEBOOK_CANARY", "AUSDT, 0xb")
    found = trading_rules(load_settings(file), ["1h"]).risk
    assert found == RiskRules(
        *map(Decimal, ("25", "0.1", "0.6", "0.3", "0.02", "60")), canary=frozenset({"AUSDT", "0xb"})
    )
    monkeypatch.delenv("EDGEBOOK_PER_TOKEN")
    monkeypatch.delenv("EDGEBOOK_CANARY")
    plain = trading_rules(Settings(), ["1h"])
    assert (plain.risk, plain.skew, plain.dm.warn_positions) == (RiskRules(), SkewRules(), 69)
    assert not plain.skew.enabled


def test_the_number_of_a_crowded_book_and_the_skew_are_settings():
    """On and off by word; the exponent with it."""
    rules = trading_rules(load_settings(max_active=7, exposure_skew="on", exposure_skew_alpha=2.0), ["1h"])
    assert (rules.dm.warn_positions, rules.skew) == (7, SkewRules(enabled=True, alpha=2.0))
    assert not trading_rules(load_settings(exposure_skew="off"), ["1h"]).skew.enabled


def test_limits_make_another_book_and_what_only_forbids_does_not():
    """Sizes depend on the limits; the list of tokens and the farthest price may be changed at any restart."""
    for change in (*({name: value} for name, value in LIMITS.items()), {"max_active": 7}, {"exposure_skew": True}):
        assert Settings(**change).book_hash != Settings().book_hash, change
    for change in ({"canary": ("AUSDT",)}, {"max_slippage_bps": 400.0}):
        assert Settings(**change).book_hash == Settings().book_hash, change
        assert Settings(**change).settings_hash != Settings().settings_hash, change


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"min_notional_usd": -1}, "min_notional_usd"), ({"min_notional_usd": float("nan")}, "min_notional_usd"),
        ({"cash_reserve": 1}, "cash_reserve"), ({"cash_reserve": -0.1}, "cash_reserve"),
        ({"max_exposure": 0}, "max_exposure"), ({"max_exposure": 1.1}, "max_exposure"), ({"per_token": 0}, "per_token"),
        ({"per_token": 20}, "per_token"), ({"participation": 0}, "participation"),
        ({"participation": 5}, "participation"),
        ({"fee_reserve_bps": -1}, "fee_reserve_bps"), ({"max_active": 0}, "max_active"),
        ({"exposure_skew": "perhaps"}, "exposure_skew"), ({"exposure_skew_alpha": -1}, "exposure_skew_alpha"),
        ({"max_slippage_bps": 0}, "max_slippage_bps"), ({"max_slippage_bps": 10_000}, "max_slippage_bps"),
        (
            {"min_notional_usd": 25_000, "per_token": 0.2},
            "cash_reserve, max_exposure and per_token leave 20000 for an order; it must not be more",
        ),
        ({"max_slippage_bps": 400, "ladder_bps": "100,600"}, "ladder_bps goes up to 600 and max_slippage_bps is 400"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_and_contradictory_limits_are_refused_in_one_line(given, named):
    """The setting, its value and what would be right."""
    with pytest.raises(InputError) as refused:
        load_settings(**given)
    assert named in refused.value.message
    assert "\n" not in refused.value.message


AT_VENUE = {"feed": "ccxt:binance", "symbols": "SOLUSDT", "live_books": "main"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({**AT_VENUE, "broker": "live", "fill_on": "close"}, "fill_on is close and broker is live; it is for broker"),
        ({**AT_VENUE, "broker": "dry", "fill_on": "close"}, "fill_on is close and broker is dry; it is for broker"),
        (
            {**AT_VENUE, "broker": "live", "failure_probability": 0.5},
            "failure_probability is 0.5 and broker is live; it is for broker paper",
        ),
        ({**AT_VENUE, "broker": "dry", "failure_probability": 1}, "failure_probability is 1 and broker is dry"),
        ({"speed": float("inf")}, "setting speed: Input should be a finite number (was inf)"),
        ({"speed": float("nan")}, "setting speed"),
        ({"starting_cash_usd": True}, "a whole number of USD above 0 is needed, such as 100000 (was True)"),
        ({"starting_cash_usd": False}, "a whole number of USD above 0 is needed"),
        ({"book": ""}, "a name is needed, such as main (was '')"),
        ({"book": "  "}, "a name is needed, such as main"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line(given, named):
    """What only the paper broker does, a speed without end, a switch for a sum, a book without a name."""
    with pytest.raises(InputError) as refused:
        load_settings(**given)
    assert named in refused.value.message
    assert "\n" not in refused.value.message


def test_what_the_paper_broker_does_is_taken_there_and_its_defaults_everywhere():
    assert load_settings(fill_on="close", failure_probability=0.5).failure_probability == 0.5
    for broker in ("dry", "live"):
        assert load_settings(**AT_VENUE, broker=broker, fill_on="next_open", failure_probability=0).broker == broker
    assert load_settings(speed=1e9, starting_cash_usd="5000", book="b").starting_cash_usd == 5000


def test_limits_that_just_agree_are_taken():
    """An order as large as the largest there can be; a ladder up to the farthest price."""
    assert load_settings(min_notional_usd=20_000, per_token=0.2).min_notional_usd == 20_000
    assert load_settings(max_slippage_bps=400, ladder_bps="100,400").ladder == (100.0, 400.0)


def test_one_number_says_how_far_any_broker_goes():
    """The ladder nobody wrote is cut to it; the paper broker is given it."""
    assert Settings().ladder == (100.0, 300.0, 600.0)
    near = load_settings(max_slippage_bps=200)
    assert near.ladder == (100.0, 200.0, 200.0)
    assert paper_broker(near, {}, trading_rules(near, ["1h"])).costs.max_slippage_bps == 200.0
    assert paper_broker(Settings(), {}, trading_rules(Settings(), ["1h"])).costs.max_slippage_bps == 600.0


def test_neutral_channels_are_a_set():
    """In any order and however often: the same book."""
    one, two = (Settings(neutral_channels=text) for text in ("strength,dm,dm", "dm,strength"))
    assert one.neutral_channels == ("dm", "strength")
    assert one.book_hash == two.book_hash != Settings().book_hash


def test_marginal_gates_need_shadows():
    with pytest.raises(ValueError, match="set tuning_method to votes"):
        Settings(shadows=False)
    assert Settings(shadows=False, tuning_method="votes").shadows is False
