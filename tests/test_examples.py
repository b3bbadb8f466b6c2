"""The examples run, and say what they should; the planted adapter is the public way."""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from tests.tables import trades

import edgebook
from edgebook.planted import policy

NOW = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
CALL = {"current_rate": 1.0, "proposed_stake": 100.0, "min_stake": 10.0, "max_stake": 130.0, "leverage": 1.0}


@pytest.fixture(scope="module")
def stake_class(repo):
    """The mixin of the freqtrade example."""
    spec = importlib.util.spec_from_file_location("freqtrade_stake", repo / "examples" / "freqtrade_stake.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AdvisedStake


def teach(path, effect, *, seed=0):
    """Write overrides whose only lesson is on the side, ``effect`` R for longs."""
    given = trades(500, seed, effect=effect)
    del given["bucket"]
    edgebook.learn(given, ["side"]).save(path)


def stake(strategy, side="long", when=NOW, **change):
    """What freqtrade would be told."""
    return strategy.custom_stake_amount("ETH/USDT", when, entry_tag="dip", side=side, **{**CALL, **change})


def test_the_stake_follows_the_lessons(stake_class, tmp_path):
    """Better trades get more, worse ones less, within minimum and maximum."""
    teach(tmp_path / "o.json", 1.2)
    strategy = stake_class()
    strategy.edgebook_file = str(tmp_path / "o.json")

    assert 100 < stake(strategy) <= 130
    assert 50 <= stake(strategy, "short") < 100
    assert stake(strategy, "short", min_stake=95.0) == 95.0
    assert stake(strategy, max_stake=101.0) == 101.0
    assert stake(strategy, "sideways") == pytest.approx(100.0, abs=1.0), "only what keeps the average where it is"


def test_a_trade_before_the_learning_gets_what_was_proposed(stake_class, tmp_path):
    """A backtest over the trades that taught the lessons does not look ahead."""
    teach(tmp_path / "o.json", 1.2)
    strategy = stake_class()
    strategy.edgebook_file = str(tmp_path / "o.json")

    assert stake(strategy, when=dt.datetime(2024, 2, 1, tzinfo=dt.UTC)) == 100.0


def test_a_changed_file_is_read_again_and_a_bad_one_is_not_used(stake_class, tmp_path, caplog):
    """No file: the stake proposed. A new file: the new lessons. A damaged one: the last good ones, and a warning."""
    path = tmp_path / "o.json"
    strategy = stake_class()
    strategy.edgebook_file = str(path)
    assert stake(strategy) == 100.0

    teach(path, 1.2)
    better = stake(strategy)
    assert better > 100.0

    teach(path, -1.2)
    os.utime(path, ns=(1, 1))
    assert stake(strategy) < 100.0
    worse = stake(strategy)

    path.write_text("{")
    assert stake(strategy) == worse
    assert "o.json is not used" in caplog.text
    path.unlink()
    assert stake(strategy) == worse


def test_recorded_trades_runs_without_any_data(repo, tmp_path):
    """Each set that is not there is named."""
    done = run(repo, tmp_path)

    assert done.stdout.splitlines() == [
        f"{name}: skipped, {tmp_path / name}.parquet is not there"
        for name in (
            "backtest_trades_tpo_v3",
            "freqtrade_trades_2019",
            "solana_memecoin_paper_trades",
            "telegram_pump_calls",
            "memecoin_sim_trades_2026",
        )
    ]


def test_recorded_trades_says_where_there_is_nothing_to_learn(repo, real_data):
    """On recorded trades: the backtest of 1,480 trades teaches nothing, and its second half is left as it was."""
    done = run(repo, real_data / "labels")

    lines = done.stdout.splitlines()
    assert lines[0] == "backtest_trades_tpo_v3: 1480 trades, dims coin, side, stop"
    assert lines[1].startswith("  nothing is learnable here: no_variance")
    assert lines[2].endswith("(0 moved)")
    assert "skipped" not in done.stdout


def run(repo, folder):
    """The first example on a folder, in a process of its own."""
    command = [sys.executable, str(repo / "examples" / "recorded_trades.py"), str(folder)]
    env = {**os.environ, "PYTHONPATH": str(repo / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_the_planted_adapter_is_learn_and_advise():
    """Hours become moments, nothing else happens: the same numbers as the public call."""
    given = trades(300)
    hours = np.arange(300) * 6.0
    history = {**given, "opened_at": hours, "closed_at": hours + 3}
    asked = {"side": np.array(["long", "short"]), "bucket": np.array(["mid", "mid"])}

    found = policy(history, asked, 249 * 6.0 + 3)

    epoch = np.datetime64("1970-01-01", "us")
    moments = {n: epoch + (history[n] * 3_600_000_000).astype("timedelta64[us]") for n in ("opened_at", "closed_at")}
    early = {name: values[:250] for name, values in {**given, **moments}.items()}
    assert found.tolist() == edgebook.learn(early, tuple(asked)).advise(asked).multiplier.tolist()
    assert found[0] > 1 > found[1]
