"""Dominances: percentages that drive the regime, each on its own, and are no token (trading.md 3.2, 3.8)."""

from __future__ import annotations

import numpy as np
import pytest
from tests.flow.world import columns_of, write_parquet

from edgebook.domain.errors import InputError
from edgebook.market.bars import BarSeries
from edgebook.market.composite import dominance_of, driver_members
from edgebook.runtime import bootstrap
from edgebook.runtime.market import Tape

HOUR = 3_600_000_000
T0 = 1_704_067_200_000_000
HOURS = 620
#: Weight of the 1 h horizon for trades on 1 h bars: .40 * .55.
MESO = 0.22
#: What a driver in a downtrend says about (A, E), one in an uptrend about A, and what a trim adds there.
DOWN, UP, TRIM = (-0.30, 0.30), 0.20, -0.25


def bars(symbol, drift, seed, wave=0.0):
    """Hourly bars with a steady drift per bar, a little noise and a wave of two days, the same for the same
    arguments."""
    noise = np.random.default_rng(seed).normal(0, 0.0004, HOURS)
    close = 50.0 * np.exp(np.cumsum(drift + noise) + wave * np.sin(np.arange(HOURS) * np.pi / 24))
    opened = np.r_[close[0], close[:-1]]
    top, bottom = np.maximum(opened, close), np.minimum(opened, close)
    ts = T0 + HOUR * np.arange(HOURS)
    return BarSeries(symbol, "1h", ts, opened, top * 1.0005, bottom * 0.9995, close, np.full(HOURS, 1000.0))


def write(directory, series):
    directory.mkdir()
    for one in series:
        write_parquet(directory / f"{one.symbol}-1h.parquet", columns_of(one))
    return directory


@pytest.fixture
def tape(tmp_path):
    """A tape over four traded tokens, BTC as a driver, and the dominances asked for with their drift per hour."""

    def build(wave=0.0, **drifts):
        where = tmp_path / ("-".join(drifts) or "plain")
        where.mkdir()
        tokens = [bars(f"{name}USDT", 0.0, seed) for seed, name in enumerate(("ETH", "AAA", "BBB", "CCC"))]
        names = {"usdtd": "USDT.D", "btcd": "BTC.D", "plain_usdtd": "USDTD"}
        extra = [bars(names[driver], drift, 7, wave) for driver, drift in drifts.items()]
        traded = write(where / "bars", tokens)
        drivers = write(where / "drivers", [bars("BTCUSDT", 0.0, 5), *extra])
        feed = bootstrap.parquet_feed(traded, None, drivers)
        made = Tape(feed.source, ("1h",), drivers=feed.drivers)
        made.load(made.start)
        return made

    return build


def appetite(tape, hours_from_end=3):
    regime = tape.regime("1h", "", T0 + (HOURS - hours_from_end) * HOUR)
    return regime.a_base, regime.e_base


# ------------------------------------------------------------------ which series


@pytest.mark.parametrize(
    ("symbol", "driver"),
    [("BTC.D", "btcd"), ("BTCD", "btcd"), ("USDT.D", "usdtd"), ("USDTD", "usdtd"), ("usdt.d", "usdtd"),
     ("BTCUSDT", ""), ("BTCDUSDT", ""), ("USDT", ""), ("ETH.D", "")],
)  # fmt: skip
def test_a_dominance_is_known_by_its_bare_name(symbol, driver):
    """The four names in use, in any case; a token that merely starts like one is a token."""
    assert dominance_of(symbol) == driver


def test_a_dominance_is_a_driver_of_its_own_and_in_no_index():
    """Not in BTC, ALT or a bucket, even if a token table gives it a market cap; BTC without bars stays the universe."""
    classes = dict.fromkeys(("AUSDT", "BUSDT", "CUSDT", "BTC.D", "USDT.D"), "mid")

    assert driver_members(classes, classes) == {
        "btc": ("AUSDT", "BUSDT", "CUSDT"),
        "alt": ("AUSDT", "BUSDT", "CUSDT"),
        "bucket:mid": ("AUSDT", "BUSDT", "CUSDT"),
        "btcd": ("BTC.D",),
        "usdtd": ("USDT.D",),
    }


# ------------------------------------------------------------------ what it does


@pytest.mark.parametrize(("driver", "weight"), [("usdtd", -3.0), ("btcd", -1.0), ("plain_usdtd", -3.0)])
def test_a_falling_dominance_raises_appetite_by_its_weight(tape, driver, weight):
    """Money leaving USDT or BTC is risk on: a downtrend of the dominance moves A up and E down, by weight x horizon."""
    before, after = appetite(tape()), appetite(tape(**{driver: -0.002}))

    assert after[0] - before[0] == pytest.approx(weight * MESO * DOWN[0], abs=1e-9)
    assert after[1] - before[1] == pytest.approx(weight * MESO * DOWN[1], abs=1e-9)
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_a_rising_dominance_lowers_appetite(tape):
    """Money fleeing into USDT is risk off: an uptrend lowers A by weight x horizon; while the uptrend is overextended
    (a trim of the driver) that is taken back, as for every driver; on average A falls."""
    plain, fleeing = tape(), tape(usdtd=0.001, wave=0.015)
    hours = range(1, 101)
    gains = np.array([appetite(fleeing, h)[0] - appetite(plain, h)[0] for h in hours])
    states = {fleeing.regime("1h", "", T0 + (HOURS - h) * HOUR).snapshot["usdtd_meso"] for h in hours}

    assert states == {"S3"}
    assert {round(gain, 9) for gain in gains.tolist()} == {round(-3.0 * MESO * delta, 9) for delta in (UP, UP + TRIM)}
    assert gains.mean() < 0


def test_its_state_is_in_the_snapshot_that_strands_refer_to(tape):
    """The snapshot names the driver's state per horizon; without bars of a dominance it says nothing of one."""
    at = T0 + (HOURS - 3) * HOUR

    assert tape(usdtd=-0.002).regime("1h", "", at).snapshot["usdtd_meso"] == "S0"
    assert not [name for name in tape().regime("1h", "", at).snapshot if "usdtd" in name or "btcd" in name]


def test_it_moves_no_index(tape):
    """Phases come from the portfolio, BTC and ALT: with and without dominances they and their scores are equal."""
    at = T0 + (HOURS - 3) * HOUR
    with_, without = tape(usdtd=-0.002, btcd=0.002).regime("1h", "", at), tape().regime("1h", "", at)

    found = {name: value for name, value in without.snapshot.items() if name.endswith(("_phase", "_score"))}
    assert found
    assert {name: with_.snapshot[name] for name in found} == found


def test_it_is_not_tradable(tape, tmp_path):
    """Regime bars are never traded; among the traded bars a dominance is refused with one line that says where it
    belongs."""
    assert "USDT.D" not in tape(usdtd=-0.002).symbols

    directory = write(tmp_path / "mixed", [bars("AAAUSDT", 0.0, 1), bars("USDT.D", 0.0, 2)])
    with pytest.raises(InputError, match=r"USDT\.D is a dominance.*regime bars"):
        Tape(bootstrap.parquet_feed(directory).source, ("1h",))
