"""The engine over a series equals a plain second implementation written from the specification, list by list."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from edgebook.domain.errors import EngineError
from edgebook.domain.reading import AFTER, MarketReading
from edgebook.engine.columns import EngineConfig, advance, events, reading
from edgebook.market.bars import BarSeries
from edgebook.market.indicators import indicators
from edgebook.market.levels import levels_at, levels_over

STEP = 3_600_000_000


def market(seed, count=2600, *, noise=0.01, drop=()):
    """Bars of a market that falls, turns, trends up with pullbacks and falls again."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(count) / rng.integers(700, 1000)
    close = 50.0 * np.exp(np.cumsum(-0.0022 * np.cos(phase) + rng.normal(0, noise, count)))
    opened = np.r_[close[:1], close[:-1]]
    wick = np.exp(np.abs(rng.normal(0, noise / 2, (2, count))))
    volume = rng.lognormal(4, 1, count) * (rng.random(count) > 0.05)
    keep = np.setdiff1d(np.arange(count), drop)
    high, low = np.maximum(opened, close) * wick[0], np.minimum(opened, close) / wick[1]
    return BarSeries("X", "1h", (keep * STEP).astype(np.int64), *(a[keep] for a in (opened, high, low, close, volume)))


def sig(x):
    return 1 / (1 + math.exp(-x))


def clip(x, lo=0.0, hi=1.0):
    return max(lo, min(hi, x))


def plain_zigzag(bars):
    """Pivots (bar, close) of a list of (high, low, close, atr), the open end included (engine.md 3.4)."""
    pivots, side, ext = [], 0, 0
    close = [b[2] for b in bars]
    for t, (high, low, c, _) in enumerate(bars):
        small = sum(b[3] / b[2] for b in bars[: t + 1]) / (t + 1) < 0.003
        lam = 1.4 if small else 1.2
        if side == 0:
            if abs(c - close[0]) >= lam * bars[0][3]:
                side, ext = (1 if c > close[0] else -1), t
                pivots.append((0, close[0]))
            continue
        if (c > close[ext]) if side == 1 else (c < close[ext]):
            ext = t
            continue
        reach = lam * bars[ext][3]
        pierce = (lam - 0.25) * bars[ext][3]
        if side == 1:
            turned = close[ext] - c >= reach or close[ext] - low >= pierce
        else:
            turned = c - close[ext] >= reach or high - close[ext] >= pierce
        if turned and t - ext >= 3 and ext - pivots[-1][0] >= 4:
            pivots.append((ext, close[ext]))
            since = range(ext + 1, t + 1)
            ext = min(since, key=lambda j: close[j]) if side == 1 else max(since, key=lambda j: close[j])
            side = -side
    if side and len(bars) - 1 - ext >= 3 and ext - pivots[-1][0] >= 4:
        pivots.append((ext, close[ext]))
    return pivots


def plain_struct(pivots, start):
    inside = [c for at, c in pivots if at >= start]
    if len(inside) < 4:
        return 0.5
    up = sum(b > a for a, b in zip(inside, inside[2:], strict=False))
    down = sum(b < a for a, b in zip(inside, inside[2:], strict=False))
    return 1 - up / (up + down) if up + down else 0.5


def plain_fit(values):
    return float(np.polyfit(np.arange(10.0), values[-10:], 1)[0])


def plain_edx(table, entry, i):
    """EDX of bar i in an S3 that began at bar entry, from scratch."""
    count = i - entry + 1
    if count < 10:
        return 0.5
    slow, part, comp, line, paid, traded = [], [], [], [], 0.0, 0.0
    for j in range(entry, i + 1):
        trend = sig(1000 * (table["ema250_slope"][j] + table["ema333_slope"][j]) / 2)
        slow.append(1 - (trend + sig(table["rsi_slope_10"][j] / 5) + sig(table["adx_slope_10"][j] / 2)) / 3)
        paid, traded = paid + table["close"][j] * table["volume"][j], traded + table["volume"][j]
        line.append(paid / traded if traded else (line[-1] if line else table["close"][j]))
        part.append(sig(-1000 * plain_fit(line) / line[-1]) if len(line) >= 10 else 0.5)
        e333 = table["ema333"][j - 9 : j + 1]
        slopes = [plain_fit((table[f"ema{n}"][j - 9 : j + 1] - e333) / e333) for n in (144, 250)]
        comp.append(sig(-1000 * sum(slopes) / 2))
    window = slice(entry, i + 1)
    pivots = plain_zigzag(
        list(
            zip(table["high"][window], table["low"][window], table["close"][window], table["atr"][window], strict=True)
        )
    )
    lengths = [n for n in (count, 2 * count // 3, count // 3) if n >= 10]
    weights = {1: [1.0], 2: [0.3, 0.7], 3: [0.2, 0.3, 0.5]}[len(lengths)]

    def mix(measure):
        return sum(w * measure(n) for w, n in zip(weights, lengths, strict=True))

    total = 0.30 * mix(lambda n: sum(slow[-n:]) / n) + 0.25 * mix(lambda n: plain_struct(pivots, count - n))
    total += 0.20 * mix(lambda n: sum(part[-n:]) / n) + 0.10 * mix(lambda n: sum(comp[-n:]) / n)
    return clip(total / 0.85)


def plain_states(table, n):
    """Lists of (state, exit reason, emergency, reclaimed) from the table of engine.md 2."""
    state, emergency, out = "S4", False, []
    for i in range(n):
        p, e20, e30, e60, e144, e250, e333 = (
            table[k][i] for k in ("close", "ema20", "ema30", "ema60", "ema144", "ema250", "ema333")
        )
        was, reason = state, ""
        bear = max(e20, e30) < e60 < e144 < e250 < e333
        bull = min(e20, e30) > e60 > e144 > e250 > e333
        if i < 333:
            state = "S4"
        elif was == "S4":
            state = "S0" if bear else "S4"
        elif was == "S0":
            state = "S1" if min(e20, e30) > e60 and p > e60 else "S0"
        elif was == "S1":
            state, reason = ("S0", "s1_to_s0_bearish_order") if bear else (("S2" if p > e333 else "S1"), "")
        elif was == "S2":
            state = "S1" if p < e333 else ("S3" if bull else "S2")
        elif max(e20, e30, e60, e144, e250) < e333:
            state, reason = "S0", "all_emas_below_333"
        reclaimed = state == "S3" and emergency and p >= e333
        emergency = (state == "S3" and p < e333) or reason == "s1_to_s0_bearish_order"
        out.append((state, reason, emergency, reclaimed))
    return out


@pytest.fixture(scope="module")
def run():
    """A market that visits every state, its columns, readings and raw indicators."""
    bars = market(20)
    columns, _ = advance(None, bars)
    return bars, columns, [reading(columns, i) for i in range(len(bars))], indicators(bars)


def test_states_exits_and_emergencies_follow_the_table(run):
    """Every bar's state, exit reason, emergency and reclaim, by a second implementation; and each of them happens."""
    bars, _, readings, table = run
    expected = plain_states(table, len(bars))
    assert [(r.state, r.exit_reason, r.emergency_exit, r.reclaimed_ema333) for r in readings] == expected
    assert {r.state for r in readings[333:]} >= {"S0", "S1", "S2", "S3"}
    assert {r.transition for r in readings} >= {"S0->S1", "S1->S2", "S2->S3", "S3->S0"}
    assert any(r.reclaimed_ema333 for r in readings)


def test_counters_are_counted_by_bars(run):
    """Bars in a state start at 0; S3 keeps the close time of its first bar; no state before 333 bars."""
    bars, _, readings, _ = run
    assert {r.state for r in readings[:333]} == {"S4"}
    for before, r in itertools.pairwise(readings):
        assert r.prev_state == before.state
        assert r.bars_in_state == (0 if r.transition else before.bars_in_state + 1)
        assert r.transition == ("" if r.state == r.prev_state else f"{r.prev_state}->{r.state}")
        assert r.exit_position == (r.state == "S0" and r.prev_state in ("S1", "S3"))
        assert r.bars_since_s3 == (r.bars_in_state if r.state == "S3" else -1)
        entry = readings[r.bar_index - r.bars_in_state].ts if r.state == "S3" else -1
        assert r.s3_start_ts == entry
    assert readings[-1].ts == bars.close_ts[-1]


def test_decay_equals_a_recomputation_from_scratch(run):
    """EDX carried bar by bar is EDX of the whole episode, early, middle and late."""
    _, _, readings, table = run
    episode = [r for r in readings if r.state == "S3"]
    assert max(r.bars_since_s3 for r in episode) > 60
    checked = [r for r in episode if r.bars_since_s3 < 60 or r.bars_since_s3 % 23 == 0]
    expected = [plain_edx(table, r.bar_index - r.bars_since_s3, r.bar_index) for r in checked]
    np.testing.assert_allclose([r.edx for r in checked], expected, rtol=0, atol=1e-9)
    assert len({round(e, 3) for e in expected}) > 20
    assert any(r.edx_struct not in (0.5, float("nan")) for r in checked)


def test_scores_equal_the_formulas(run):
    """TS, OX and DX of every bar that has them, by the formulas of engine.md 3."""
    _, _, readings, _ = run
    for r in readings:
        if r.state in ("S0", "S4"):
            assert math.isnan(r.ts_score)
            continue
        ts = 0.5 * clip((r.rsi_slope_10 + 5) / 10) + 0.5 * clip((r.adx_slope_10 + 2) / 4)
        assert r.ts_score == pytest.approx(ts, abs=1e-12)
        if r.state == "S1":
            assert math.isnan(r.ox)
            continue
        ox = 0.35 * sig((r.price - r.ema20) / (1.5 * r.atr)) + 0.20 * sig((r.price - r.ema60) / (2 * r.atr))
        ox += 0.10 * sig((r.price - r.ema144) / (1.5 * r.atr)) + 0.10 * sig((r.price - r.ema250) / (2 * r.atr))
        ox += 0.10 * sig(r.dsep_fast_5 / 0.0015) + 0.05 * sig(r.dsep_mid_5 / 0.001)
        ox += 0.05 * sig(r.atr / r.atr_mean_20 - 1) + 0.05 * sig(-r.ema20_slope / 0.0008)
        if r.state == "S3":
            ox = clip(ox * (1 + 0.33 * clip(r.edx - 0.5, 0, 0.5)))
            assert r.dx == pytest.approx(plain_dx(r), abs=1e-12)
            assert r.edx_suppression == pytest.approx(0.15 * clip((r.edx - 0.5) / 0.12), abs=1e-12)
            assert 0 <= r.ti <= 1
        assert r.ox == pytest.approx(ox, abs=1e-12)
        near = r.nearest_level_distance_atr <= 1.0
        assert r.trim_flag == (r.ox >= 0.65 and near)


def plain_dx(r):
    location = 0.0
    if r.ema144 > r.ema333:
        x = clip((r.price - r.ema333) / (r.ema144 - r.ema333))
        location = math.exp(-3 * x) * (1 + 0.3 * sig((0.03 - (r.ema144 - r.ema333) / r.price) / 0.02))
    heat = sig((r.atr / r.atr_mean_20 - 0.9) / 0.05)
    momentum = 0.5 * sig(r.rsi_slope_10 / 0.5) + (0.5 * sig(r.adx_slope_10 / 0.3) if r.adx >= 18 else 0.0)
    raw = 0.45 * location + 0.25 * sig(-r.vo_z) + 0.25 * (0.5 * heat + 0.5 * momentum)
    raw += 0.05 if r.d_ema144_slope > 0 else 0.0
    return clip(raw * (1 - 0.5 * clip(r.edx - 0.6, 0, 0.4)))


def test_levels_reach_the_reading(run):
    """Nearest level, its distance, the count and the support of the anchors come from the level table of that bar."""
    bars, _, readings, table = run
    levels = levels_over(bars.close, table["atr"])
    for r in readings[333::17]:
        found = levels_at(levels, r.bar_index, "X", "1h")
        assert r.level_count == len(found) > 0
        nearest = min(found, key=lambda lv: abs(lv.price - r.price))
        assert r.nearest_level_price == nearest.price
        assert r.nearest_level_distance_atr == pytest.approx(abs(nearest.price - r.price) / r.atr)
        anchor = {"S1": r.ema60, "S2": r.ema333, "S3": r.ema333}.get(r.state)
        for price, got in ((anchor, r.sr_strength_anchor), (r.ema333, r.sr_raw_e333)):
            if price is None:
                assert math.isnan(got)
            else:
                reach = [lv.strength * (1 - abs(lv.price - price) / r.atr) for lv in found]
                assert got == pytest.approx(max([0.0, *reach]), abs=1e-12)


def test_a_first_dip_is_taken_once_per_trend(run):
    """At most one per S3; taken is remembered until the trend ends; the conditions hold where it fires."""
    _, _, readings, _ = run
    taken = False
    fired = 0
    for r in readings:
        if r.state != "S3" or r.transition:
            taken = False
        close_by = r.bars_since_s3 <= 6 and min(abs(r.price - r.ema20), abs(r.price - r.ema30)) <= 0.5 * r.atr
        close_by = close_by or (r.bars_since_s3 <= 12 and abs(r.price - r.ema60) <= 0.5 * r.atr)
        good = r.price >= r.ema333 and (r.ema144_slope > 0 or r.ema250_slope >= 0)
        strong = min(1.0, r.ts_score + 0.25 * r.sr_raw_e333) >= 0.5
        expected = r.state == "S3" and not taken and close_by and good and strong
        assert r.first_dip == expected
        taken = taken or r.first_dip
        fired += r.first_dip
        assert r.first_dip_taken == (taken and r.state == "S3")
    assert fired > 0


def test_events_miss_nothing(run):
    """Every bar anything can follow from is marked, and the bar after it; nothing before there is a state."""
    _, columns, readings, _ = run
    marks = events(columns) != 0
    for before, r, marked in zip(readings, readings[1:], marks[1:], strict=False):
        wanted = r.warm and (might_matter(r) or (before.warm and might_matter(before)))
        assert bool(marked) == wanted, r.bar_index
    assert 0.05 < marks.mean() < 0.7


@pytest.mark.parametrize("chunk", [1, 24, 500])
def test_events_are_the_same_in_chunks(run, chunk):
    """The bar after an event is marked even where a chunk ends between the two."""
    _, columns, _, _ = run
    parts, after = [], False
    for start in range(0, len(columns), chunk):
        found = events(columns.rows(start, min(len(columns), start + chunk)), after=after)
        after = bool(found[-1] & ~np.uint8(AFTER))
        parts.append(found)
    np.testing.assert_array_equal(np.concatenate(parts), events(columns))


def might_matter(r):
    window = (
        (r.state == "S1" and abs(r.price - r.ema60) <= 1.5 * r.atr)
        or (r.state == "S2" and abs(r.price - r.ema333) <= 0.5 * r.atr)
        or (r.state == "S3" and r.ema333 <= r.price <= r.ema144)
    )
    pulse = r.emergency_exit or r.reclaimed_ema333 or r.exit_position or r.trim_flag or r.first_dip
    return bool(window or pulse or r.transition or r.gap_bars > 3)


def test_a_reading_is_an_ordinary_frozen_value(run):
    """The fast way of making readings gives the same value as the constructor, and nobody can change it."""
    _, columns, readings, _ = run
    r = readings[1500]
    again = MarketReading(**{f.name: getattr(r, f.name) for f in dataclasses.fields(r)})
    assert type(r) is MarketReading
    assert repr(again) == repr(r)
    assert dataclasses.replace(r, state="S0").state == "S0"
    with pytest.raises(dataclasses.FrozenInstanceError):
        r.state = "S1"
    for name in ("price", "close", "ema60", "edx", "bars_in_state", "trim_flag", "ts"):
        assert columns[name][1500] == getattr(r, name) or math.isnan(getattr(r, name))
    with pytest.raises(EngineError, match="no engine column 'emma60'"):
        columns["emma60"]


def test_missing_bars_are_counted_and_marked():
    """A hole is a number on the next bar; more than three missing bars are worth a look even in S4."""
    bars = market(7, 600, drop=range(400, 405))
    columns, memory = advance(None, bars.rows(0, 400))
    later, _ = advance(memory, bars.rows(400, len(bars)))
    assert columns["gap_bars"].sum() == 0
    assert later["gap_bars"].tolist()[:2] == [5, 0]
    assert events(later)[0]


def test_bars_must_follow_the_memory():
    """Another symbol, or bars already seen, are refused."""
    bars = market(7, 50)
    _, memory = advance(None, bars)
    with pytest.raises(EngineError, match="give only later bars"):
        advance(memory, bars.rows(40, 50))
    other = BarSeries("Y", "1h", bars.ts_open + 50 * STEP, bars.open, bars.high, bars.low, bars.close, bars.volume)
    with pytest.raises(EngineError, match="bars of Y 1h given to the memory of X 1h"):
        advance(memory, other)


def test_switches_reach_the_machine():
    """Bootstrap lets a running trend be S3 at once; knees out of order are refused."""
    count = 800
    rng = np.random.default_rng(3)
    close = 10 * np.exp(np.cumsum(0.004 + rng.normal(0, 0.004, count)))
    ts = np.arange(count, dtype=np.int64) * STEP
    rising = BarSeries("B", "1h", ts, close, close * 1.002, close * 0.998, close, np.ones(count))
    plain, _ = advance(None, rising)
    driver, _ = advance(None, rising, config=EngineConfig(bootstrap_s3=True))
    assert set(plain.state.tolist()) == {4}
    assert reading(driver, 333).transition == "S4->S3"
    with pytest.raises(EngineError, match="edx_knee"):
        EngineConfig(edx_knee=0.7)
