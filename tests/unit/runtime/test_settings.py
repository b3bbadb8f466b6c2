"""Settings: one source of truth per number, unknown keys refused, machine facts out of the hash (decisions 33)."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal

import pytest

from edgebook.domain.errors import InputError
from edgebook.runtime.settings import Settings, load_settings
from edgebook.trading.rules import ProtectionRules


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
