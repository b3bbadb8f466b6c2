"""Settings: one source of truth per number, unknown keys refused, machine facts out of the hash (decisions 33)."""

from __future__ import annotations

import pytest

from edgebook.domain.errors import InputError
from edgebook.runtime.settings import Settings, load_settings


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
