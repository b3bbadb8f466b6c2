"""Indicators equal a plain second implementation and, where definitions agree, TA-Lib."""

from __future__ import annotations

import math

import numpy as np
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgebook.domain.errors import MarketDataError
from edgebook.market.bars import BarSeries
from edgebook.market.indicators import COLUMNS, avwap, ema, indicators, ols_slope


def walk(seed, count, *, price=100.0, flat=0):
    """A random walk as bars; the first ``flat`` bars do not move and have no volume."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0, 0.01, count)
    steps[:flat] = 0.0
    close = price * np.exp(np.cumsum(steps))
    opened = np.r_[close[:1], close[:-1]]
    spread = np.exp(np.abs(rng.normal(0.0, 0.004, count)) * (np.arange(count) >= flat))
    volume = rng.lognormal(5.0, 1.0, count) * (np.arange(count) >= flat)
    ts = np.arange(count, dtype=np.int64) * 3_600_000_000
    return BarSeries(
        "X", "1h", ts, opened, np.maximum(opened, close) * spread, np.minimum(opened, close) / spread, close, volume
    )


def plain_slope(values):
    """Textbook least squares on the last 10 values; None as long as one is missing."""
    last = values[-10:]
    if len(last) < 10 or any(v is None for v in last):
        return None
    mean_x, mean_y = 4.5, sum(last) / 10
    return sum((x - mean_x) * (y - mean_y) for x, y in enumerate(last)) / sum((x - mean_x) ** 2 for x in range(10))


def plain_adx(bars):
    """Lists of ATR and ADX straight from the definition: means of 14, then 13/14 of the past."""
    h, lo, c = bars.high.tolist(), bars.low.tolist(), bars.close.tolist()
    tr, plus, minus = [], [], []
    for i in range(1, len(c)):
        tr.append(max(h[i] - lo[i], abs(h[i] - c[i - 1]), abs(lo[i] - c[i - 1])))
        up, down = h[i] - h[i - 1], lo[i - 1] - lo[i]
        plus.append(up if up > down and up > 0 else 0.0)
        minus.append(down if down > up and down > 0 else 0.0)

    def wilder(values):
        smooth = [sum(values[:14]) / 14]
        for v in values[14:]:
            smooth.append((13 * smooth[-1] + v) / 14)
        return smooth

    atr, plus, minus = wilder(tr), wilder(plus), wilder(minus)
    adx = []
    for t, p, m in zip(atr, plus, minus, strict=True):
        di_up, di_down = (100 * p / t, 100 * m / t) if t else (0.0, 0.0)
        dx = 100 * abs(di_up - di_down) / (di_up + di_down) if di_up + di_down else 0.0
        adx.append(dx if not adx else (13 * adx[-1] + dx) / 14)
    return [None] * 14 + atr, [None] * 15 + adx[1:]


def plain_table(bars):
    """Every indicator by name, one Python list each, None where it does not exist yet."""
    close, out = bars.close.tolist(), {}
    n = len(close)
    for period in (20, 30, 60, 144, 250, 333):
        line = [close[0]]
        for c in close[1:]:
            line.append(2 / (period + 1) * c + (1 - 2 / (period + 1)) * line[-1])
        out[f"ema{period}"] = line
    for period in (20, 60, 144, 250, 333):
        line = out[f"ema{period}"]
        raw = [plain_slope(line[: i + 1]) for i in range(n)]
        out[f"ema{period}_slope"] = [None if s is None else s / e for s, e in zip(raw, line, strict=True)]
    for period in (144, 250, 333):
        s = out[f"ema{period}_slope"]
        out[f"d_ema{period}_slope"] = [None if i < 10 or s[i - 10] is None else s[i] - s[i - 10] for i in range(n)]
    out["atr"], out["adx"] = plain_adx(bars)
    out["adx_slope_10"] = [plain_slope(out["adx"][: i + 1]) for i in range(n)]
    out["atr_mean_20"] = [None if i < 33 else sum(out["atr"][i - 19 : i + 1]) / 20 for i in range(n)]
    rsi = []
    for i in range(n):
        moves = [close[j] - close[j - 1] for j in range(i - 13, i + 1)] if i >= 14 else []
        gain, loss = sum(m for m in moves if m > 0) / 14, -sum(m for m in moves if m < 0) / 14
        rsi.append(50.0 if gain == loss == 0 else 100 - 100 / (1 + gain / (loss or 1e-9 * close[i])))
    out["rsi"] = rsi
    out["rsi_slope_10"] = [plain_slope(rsi[: i + 1]) for i in range(n)]
    for name, fast, slow in (("dsep_fast_5", 20, 60), ("dsep_mid_5", 60, 144)):
        f, s = out[f"ema{fast}"], out[f"ema{slow}"]
        gap = [a / b - 1 for a, b in zip(f, s, strict=True)]
        out[name] = [0.0 if i < 5 else gap[i] - gap[i - 5] for i in range(n)]
    out["vo_z"] = plain_volume(bars.volume.tolist())
    return out


def plain_volume(volumes):
    """Surprise of ln(1+volume); bars without volume are skipped and say 0."""
    mean, var, z = None, 0.0, []
    for v in volumes:
        if v <= 0:
            z.append(0.0)
            continue
        y = math.log(1 + v)
        if mean is None:
            mean = y
            z.append(0.0)
            continue
        var = (1 - 2 / 65) * (var + 2 / 65 * (y - mean) ** 2)
        mean = 2 / 65 * y + (1 - 2 / 65) * mean
        z.append(max(-4.0, min(6.0, (y - mean) / math.sqrt(var))))
    return z


@pytest.mark.parametrize("bars", [walk(1, 420), walk(2, 200, price=3e-6), walk(3, 120, flat=40)], ids=str)
def test_every_indicator_equals_a_plain_second_implementation(bars):
    """Same numbers, and missing at exactly the same bars."""
    table, plain = indicators(bars), plain_table(bars)
    assert set(COLUMNS) - set(plain) == {"open", "high", "low", "close", "volume"}
    for name, expected in plain.items():
        wanted = np.array([np.nan if v is None else v for v in expected])
        np.testing.assert_allclose(table[name], wanted, rtol=1e-8, atol=1e-11, err_msg=name)


def test_wilder_smoothing_agrees_with_talib_once_seeds_have_faded():
    """TA-Lib seeds ADX differently; after 300 bars nothing of a seed is left."""
    bars = walk(4, 700)
    table = indicators(bars)
    atr = talib.ATR(bars.high, bars.low, bars.close, 14)
    adx = talib.ADX(bars.high, bars.low, bars.close, 14)
    np.testing.assert_allclose(table["atr"][14:], atr[14:], rtol=1e-9)
    np.testing.assert_allclose(table["adx"][400:], adx[400:], rtol=1e-6)
    np.testing.assert_allclose(ema(bars.close, 20)[300:], talib.EMA(bars.close, 20)[300:], rtol=1e-9)
    slope = talib.LINEARREG_SLOPE(table["ema60"], 10) / table["ema60"]
    np.testing.assert_allclose(table["ema60_slope"][9:], slope[9:], atol=1e-10)


def test_check_values_of_the_specification():
    """engine.md 9."""
    assert ema(np.array([1.0, 2.0, 3.0]), 3).tolist() == [1.0, 1.5, 2.25]
    assert ols_slope(np.array([1.0, 2.0, 4.0])) == 1.5
    assert ols_slope(np.array([1.0, 2.0])) == 0.0
    with pytest.raises(MarketDataError, match="at least 1"):
        ema(np.array([1.0]), 0)


def test_a_flat_market_has_slope_zero_exactly_and_rsi_fifty():
    """No rounding dust may pass a test for a rising average."""
    table = indicators(walk(5, 400, price=0.1 + 0.2, flat=400))
    assert set(table["ema144_slope"][9:].tolist()) == {0.0}
    assert set(table["rsi"].tolist()) == {50.0}
    assert set(table["vo_z"].tolist()) == {0.0}
    assert table["atr"][-1] == 0.0
    assert table["adx"][-1] == 0.0


@given(
    price=arrays(np.float64, 12, elements=st.floats(0.5, 100)),
    volume=arrays(np.float64, 12, elements=st.just(0.0) | st.floats(1e-3, 50)),
)
def test_avwap_lies_between_the_prices_it_weighs(price, volume):
    """A mean never leaves its data, and without volume it stays where it was."""
    line = avwap(price, volume)
    assert (line >= np.minimum.accumulate(price) - 1e-9).all()
    assert (line <= np.maximum.accumulate(price) + 1e-9).all()
    assert line[0] == pytest.approx(price[0])
