"""A chart shows what the engine said, bar by bar, and says on its face what it leaves out."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import fields, replace
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from edgebook.adapters.feeds.sim import SimSource
from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError
from edgebook.engine.columns import advance, reading
from edgebook.engine.gates import BASE_GATES, evaluate
from edgebook.market.bars import BarSeries, resample
from edgebook.market.levels import levels_at, levels_over
from edgebook.runtime.chart import layout as lay
from edgebook.runtime.chart.facts import FLAGS, PERIODS, Chart, counts, gather, notes
from edgebook.runtime.chart.page import page
from edgebook.runtime.chart.picture import picture
from edgebook.trading.rules import EpisodeRules
from edgebook.trading.windows import zone

MINUTE = 60_000_000
FIRST, LAST = 1500, 2700


@pytest.fixture(scope="module")
def series():
    """Three days of 1 m bars of a simulated token."""
    source = SimSource(2, 4, prehistory=2)
    symbol = next(s for s in source.symbols if not s.startswith(("BTC", "ETH", "SOL")))
    return source.bars(symbol, 0, source.start + DAY)


@pytest.fixture(scope="module")
def chart(series):
    """The chart of bars 1500 to 2699, which hold every state but S4."""
    found = gather(series, int(series.ts_open[FIRST]), int(series.close_ts[LAST - 1]))
    assert set(found.state.tolist()) >= {0, 1, 2, 3}
    return found


@pytest.fixture(scope="module")
def said(series):
    """(reading, report) of the same bars, each bar given to the engine on its own, as a live process would."""
    memory, found = None, []
    for i in range(LAST):
        columns, memory = advance(memory, series.rows(i, i + 1))
        one = reading(columns, 0)
        found.append((one, evaluate(one, BASE_GATES)))
    return found[FIRST:]


def without(series, start, stop):
    """The series with bars ``start`` to ``stop`` missing."""
    keep = np.r_[0:start, stop : len(series)]
    names = ("ts_open", "open", "high", "low", "close", "volume")
    return BarSeries(series.symbol, series.timeframe, *(getattr(series, name)[keep] for name in names))


# ------------------------------------------------------------------ facts


def test_states_scores_and_reasons_are_those_of_a_live_engine(chart, said):
    """Fed one bar at a time the engine says the same state, EMAs, scores and blocking checks as the chart shows."""
    for i, (one, report) in enumerate(said):
        assert f"S{chart.state[i]}" == one.state
        assert chart.emas[i].tolist() == [getattr(one, f"ema{n}") for n in PERIODS]
        shown = [chart.scores[name][i] for name in ("ts", "ox", "dx", "dx_threshold", "edx")]
        told = [report.ts_with_boost, one.ox, one.dx, report.dx_threshold_final, one.edx]
        np.testing.assert_array_equal(shown, told)
        assert chart.blocked_by[i] == " ".join(report.blocked_by)


def test_flags_are_those_of_the_base_gates(chart, said):
    """Each flag is up on exactly the bars on which the reading or the base gates say so, and some are up at all."""
    told = {
        "buy_signal_s1": [report.flags.buy_signal for _, report in said],
        "buy_flag_s2": [report.flags.buy_flag and one.state == "S2" for one, report in said],
        "buy_flag_s3": [report.flags.buy_flag and one.state == "S3" for one, report in said],
        "first_dip": [one.first_dip for one, _ in said],
        "trim": [one.trim_flag for one, _ in said],
        "emergency_exit": [one.emergency_exit for one, _ in said],
        "reclaim": [one.reclaimed_ema333 for one, _ in said],
        "exit": [one.exit_position for one, _ in said],
    }

    assert {name: chart.flags[name].tolist() for name in FLAGS} == told
    assert sum(map(sum, told.values())) > 50


def test_windows_are_the_runs_of_bars_on_which_a_buy_was_near(chart, said):
    """S1 and S3: the portfolio manager's zone; S2: half an ATR around EMA333; bought where the buy flag is up."""
    near = []
    for one, _ in said:
        retest = one.state == "S2" and abs(one.price - one.ema333) <= 0.5 * one.atr
        near.append(one.state if retest or zone(one, EpisodeRules()) else "")
    runs = [i for i in range(len(near)) if near[i] and (i == 0 or near[i] != near[i - 1])]

    assert [(w.state, w.first) for w in chart.windows] == [(near[i], i) for i in runs]
    for window in chart.windows:
        inside = range(window.first, window.last + 1)
        assert {near[i] for i in inside} == {window.state}
        assert window.last + 1 == len(near) or near[window.last + 1] != window.state
        assert window.bought == any(said[i][1].flags.buy_signal or said[i][1].flags.buy_flag for i in inside)
    assert {w.state for w in chart.windows} == {"S1", "S2", "S3"}


def test_the_levels_drawn_over_a_bar_are_the_levels_of_that_bar(chart, series):
    """No level is drawn where it does not exist, none is left out, and one that goes on moves at most half an ATR."""
    atr = advance(None, series.rows(0, LAST))[0].floats("atr")
    table = levels_over(series.close[:LAST], atr, FIRST)
    for i in range(len(chart)):
        drawn = sorted((p.price, p.strength, p.source) for p in chart.levels if p.first <= i <= p.last)
        assert drawn == sorted((v.price, v.strength, v.source) for v in levels_at(table, i, "X", "1m"))
    for level in {p.level for p in chart.levels}:
        pieces = [p for p in chart.levels if p.level == level]
        for old, new in pairwise(pieces):
            assert new.first == old.last + 1
            assert abs(new.price - old.price) <= 0.5 * atr[FIRST + new.first]


def test_bars_after_the_span_change_nothing(series, chart):
    """A chart up to a moment is the same whether later bars exist or not."""
    cut = gather(series.rows(0, LAST), int(series.ts_open[FIRST]))

    for field in fields(Chart):
        ours, theirs = getattr(chart, field.name), getattr(cut, field.name)
        if field.name == "bars":
            np.testing.assert_array_equal(ours.close, theirs.close)
        elif isinstance(ours, dict):
            np.testing.assert_equal(ours, theirs)
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_a_span_holds_bars_that_open_and_close_inside_it(series):
    """--from keeps bars that open at or after it, --to those that close at or before it."""
    start, end = int(series.ts_open[900]) + 1, int(series.close_ts[1000]) - 1
    found = gather(series, start, end)

    assert (found.bars.ts_open[0], found.bars.ts_open[-1]) == (series.ts_open[901], series.ts_open[999])
    assert found.history == 901


def test_a_span_without_bars_is_refused_and_told_where_the_bars_are(series):
    """One line that names the symbol and the first and last moment of the file."""
    after = int(series.close_ts[-1])
    with pytest.raises(InputError, match=rf"{series.symbol} 1m: no bars in the span; the file has .* to .* UTC"):
        gather(series, after, None)
    with pytest.raises(InputError, match="no bars in the span"):
        gather(series, None, int(series.ts_open[0]))


def test_counts_add_up(chart):
    """States add up to the bars; flags, windows and levels are counted from the chart; all of it is JSON."""
    found = json.loads(json.dumps(counts(chart)))

    assert sum(found["states"].values()) == found["bars"] == len(chart) == LAST - FIRST
    assert found["history"] == FIRST
    assert sum(w["n"] for w in found["windows"].values()) == len(chart.windows)
    assert sum(found["levels"].values()) == len({p.level for p in chart.levels})
    assert found["flags"]["exit"] == int(chart.flags["exit"].sum())
    assert found["notes"] == []


def test_little_history_is_said(series):
    """With fewer than 333 bars before the span the first note says when states begin, or that none is in it."""
    begun = gather(series, int(series.ts_open[100]))
    never = gather(series.rows(0, 200))

    assert "No state before bar 333" in next(notes(begun))
    assert "100 bars of history" in next(notes(begun))
    assert (begun.state[: 333 - 100] == 4).all()
    assert "none is in this span" in next(notes(never))
    assert set(never.state.tolist()) == {4}


def test_a_hole_is_counted_shown_and_ends_a_window(series):
    """Bars cut out of the middle of a window split it, and appear as one hole with their number."""
    whole = gather(series)
    window = next(w for w in whole.windows if w.last - w.first >= 8)
    middle = window.first + 3
    found = gather(without(series, middle, middle + 4))

    assert counts(found)["gaps"] == {"n": 1, "bars": 4, "longest": 4}
    assert [w.last for w in found.windows if w.first == window.first] == [middle - 1]
    place = lay.slots(found)
    assert list(place.holes(found)) == [(middle, 4, 4)]
    assert place.total == len(found) + 4


# ------------------------------------------------------------------ layout


def test_a_long_hole_is_cut_but_named(series):
    """A hole of 800 bars takes a fortieth of the picture, keeps its number, and the page says that it was cut."""
    found = gather(without(series, 1000, 1800))
    place = lay.slots(found)
    (left, width, missing), *more = place.holes(found)

    assert (left, width, missing, more) == (1000, len(found) // 40, 800, [])
    assert place.left[1000] == left + width
    assert "800 bars missing · 13 h" in page(found)


def test_many_bars_are_drawn_as_fewer_candles_that_say_so(series, monkeypatch):
    """Candles of several bars hold their extremes and sums, none spans a hole, and the page says how many bars each."""
    monkeypatch.setattr(lay, "MAX_CANDLES", 600)
    found = gather(without(series, 1003, 1010))
    place = lay.slots(found)
    drawn = lay.candles(found, place)
    bars = found.bars

    assert drawn.bars_each == -(-len(found) // 600)
    assert drawn.last[drawn.first.tolist().index(1003) - 1] == 1002
    for k, (first, last) in enumerate(zip(drawn.first, drawn.last, strict=True)):
        part = slice(first, last + 1)
        assert (drawn.high[k], drawn.low[k]) == (bars.high[part].max(), bars.low[part].min())
        assert (drawn.open[k], drawn.close[k]) == (bars.open[first], bars.close[last])
        assert drawn.volume[k] == pytest.approx(bars.volume[part].sum())
    assert f"each candle stands for {drawn.bars_each} bars" in page(found)


@pytest.mark.parametrize(("bottom", "top"), [(0.9, 1.1), (6.1, 7.7), (0.004, 0.03), (0.0001, 130.0), (4e-9, 5e-9)])
def test_price_ticks_are_few_round_and_inside(bottom, top):
    """Three to ten ticks, inside the range, each with at most two or three significant digits."""
    ticks = lay.price_ticks(bottom, top)

    assert 3 <= len(ticks) <= 10
    assert all(bottom <= tick <= top * (1 + 1e-9) for tick in ticks)
    assert all(float(f"{tick:.3g}") == tick for tick in ticks)


@pytest.mark.parametrize(("step", "n"), [("1m", 90), ("1m", 3000), ("1h", 400), ("1h", 23000), ("4h", 9000)])
def test_time_ticks_stand_on_the_first_bar_of_a_round_moment(step, n):
    """Few ticks, each where the label's unit begins, with the year said once."""
    length = {"1m": MINUTE, "1h": 60 * MINUTE, "4h": 240 * MINUTE}[step]
    ts = 1_640_000_000_000_000 // length * length + np.arange(n) * length
    ticks = lay.time_ticks(ts, np.arange(n) + 0.5, n)

    assert 2 <= len(ticks) <= 12
    assert sum("202" in text for _, text in ticks) >= 1
    for i, text in ticks:
        moment = np.datetime64(int(ts[i]), "us")
        if ":" not in text:
            assert (moment - moment.astype("datetime64[D]")) == np.timedelta64(0, "us")
        if re.fullmatch(r"[A-Z][a-z]{2} \d{4}", text):
            assert moment.astype("datetime64[M]") == moment.astype("datetime64[D]")


# ------------------------------------------------------------------ the page


@pytest.fixture(scope="module")
def html(chart):
    """The page of the chart."""
    return page(chart)


@pytest.fixture(scope="module")
def svg(html):
    """Its drawing, parsed."""
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", html, re.DOTALL).group())


@pytest.fixture(scope="module")
def facts(html):
    """What its script reads."""
    return json.loads(re.search(r'<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL).group(1))


def test_the_page_needs_nothing_but_itself(html):
    """No address, no import, no file: all that is referred to stands in the page."""
    assert not re.search(r"https?:|//[a-z]|@import|<link|<img|\bsrc\s*=|fetch\(|XMLHttpRequest|import\(", html)
    assert all(ref.startswith("#") for ref in re.findall(r'href="([^"]*)"', html))
    assert all(ref.startswith("#") for ref in re.findall(r"url\(([^)]*)\)", html))


def test_the_script_reads_what_the_chart_holds(facts, chart):
    """One entry per bar in every column; states, blocking checks and flags decode to those of the chart."""
    n = len(chart)
    assert {len(facts[name]) for name in ("ts", "until", "middle", "open", "close", "state", "up", "why")} == {n}
    assert facts["state"] == chart.state.tolist()
    assert tuple(facts["blocked"][k] for k in facts["why"]) == chart.blocked_by
    for k, name in enumerate(FLAGS):
        assert [bool(up >> k & 1) for up in facts["up"]] == chart.flags[name].tolist()
    assert facts["close"] == pytest.approx(chart.bars.close.tolist(), rel=1e-6)
    assert facts["scores"]["edx"] == [None if v != v else pytest.approx(v, abs=1e-4) for v in chart.scores["edx"]]


def test_markers_point_at_the_first_bar_of_each_run(svg, facts, chart):
    """One marker per run of each flag: buys under the low, trims and exits over the high of its bar."""
    tall = facts["ln_top"] - facts["ln_bottom"]
    found = [use for use in svg.iter("use") if use.get("class") == "pin"]
    bars = [facts["middle"].index(float(use.get("data-x"))) for use in found]
    runs = [first for name in FLAGS for first, _ in lay.runs(chart.flags[name])]

    assert bars == runs
    for bar, use in zip(bars, found, strict=True):
        side = chart.bars.low if float(use.get("data-d")) > 0 else chart.bars.high
        assert np.exp(facts["ln_top"] - float(use.get("data-u")) / 1000 * tall) == pytest.approx(side[bar], rel=1e-4)


def test_the_background_tells_every_stay_in_a_state(svg, chart):
    """Two rectangles per stay, strip and panels, that cover the picture without overlap."""
    group = next(g for g in svg.iter("g") if g.get("class") == "across")
    rects = [(int(r.get("x")), int(r.get("width")), r.get("fill")) for r in group.iter("rect")]
    stays = list(lay.state_runs(chart))

    assert len(rects) == 2 * len(stays)
    for (code, first, last), strip, panel in zip(stays, rects[::2], rects[1::2], strict=True):
        assert strip == panel == (first, last - first + 1, lay.STATE_COLOURS[f"S{code}"])
    assert stays[-1][2] == len(chart) - 1


def test_candles_are_drawn_at_their_prices(svg, facts, chart):
    """The wick of a bar runs from its high to its low in the drawing's own units."""
    price = next(g for g in svg.iter("g") if g.get("id") == "price")
    paths = [p.get("d") for p in price.iter("path") if p.get("stroke") in ("#12826a", "#c03a36")]
    wicks = {
        float(x): (float(high), float(low))
        for path in paths
        for x, high, low in re.findall(r"M([\d.]+) ([-\d.]+)V([-\d.]+)(?=M|$)", path)
    }
    tall = facts["ln_top"] - facts["ln_bottom"]

    assert len(wicks) == len(chart)
    for i in range(0, len(chart), 50):
        ends = [np.exp(facts["ln_top"] - u / 1000 * tall) for u in wicks[i + 0.5]]
        assert ends == pytest.approx([chart.bars.high[i], chart.bars.low[i]], rel=1e-4)


def test_the_page_is_the_same_every_time(series, html):
    """The same bars give the same page to the byte."""
    assert page(gather(series, int(series.ts_open[FIRST]), int(series.close_ts[LAST - 1]))) == html


def test_a_symbol_cannot_break_the_page(chart):
    """Names from outside are text, not markup, in the title, the heading and the script's facts."""
    odd = BarSeries("<b>&</script>", "1m", *(getattr(chart.bars, f.name) for f in fields(BarSeries)[2:]))
    html = page(replace(chart, bars=odd))

    assert "<b>&</script>" not in html
    assert html.count("</script>") == 2
    assert "&lt;b&gt;&amp;&lt;/script&gt; 1m" in html


def test_too_many_markers_are_hidden_until_zoomed(chart, monkeypatch):
    """Above the limit the group of markers starts hidden; the lanes still show every bar."""
    monkeypatch.setattr(lay, "MAX_MARKERS", 3)
    html = page(chart)

    assert '<g id="marks" display="none">' in html
    assert '"most_marks":3' in html


def test_resampled_bars_say_so(series):
    """A chart of built bars names the timeframe they were built from."""
    found = gather(resample(series, "5m")[0], base="1m")

    assert any("5m bars built from 1m bars" in note for note in notes(found))
    assert counts(found)["base_timeframe"] == "1m"


# ------------------------------------------------------------------ the picture


def test_the_picture_is_a_png_and_the_same_every_time(chart):
    """1920 x 1200 pixels, and no date or version that would make two runs differ."""
    content = picture(chart)

    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1920, 1200)
    assert picture(chart) == content


@pytest.mark.parametrize("symbol", ["$WIF$", "币安人生USDT", "A_B^C"])
def test_the_picture_takes_any_symbol(series, symbol):
    """Dollar signs are no formula and letters the font lacks are no error; a hole and little history are drawn too."""
    cut = without(series.rows(0, 500), 200, 300)
    named = BarSeries(symbol, "1m", *(getattr(cut, f.name) for f in fields(BarSeries)[2:]))

    assert len(picture(gather(named))) > 20_000


def test_one_bar_and_a_flat_price_can_be_drawn(series):
    """The smallest chart, and one whose price never moves and never trades, are drawn without an error."""
    one = gather(series, int(series.ts_open[-1]))
    flat = np.full(400, 5.0)
    still = gather(BarSeries("FLAT", "1m", np.arange(400) * MINUTE, flat, flat, flat, flat, np.zeros(400)))

    for found in (one, still):
        assert "<svg" in page(found)
        assert picture(found)[:4] == b"\x89PNG"


# ------------------------------------------------------------------ recorded bars


def test_a_recorded_trend_shows_its_retests(real_data):
    """UNIUSDT, February 2023: from S0 to S3 and back, with a buy flag in some window of S1, of S2 and of S3."""
    from edgebook.cli.times import moment
    from edgebook.runtime.chart.facts import read_bars

    bars = read_bars(real_data / "binance_spot_1h_2021_2023" / "UNIUSDT-1h.parquet")
    found = counts(gather(bars, moment("2023-02-13", "--from"), moment("2023-03-04", "--to")))

    assert found["bars"] == 456
    assert all(found["states"][name] > 30 for name in ("S0", "S1", "S2", "S3"))
    assert all(found["windows"][name]["bought"] >= 1 for name in ("S1", "S2", "S3"))


def test_a_recorded_hole_of_311_days_stays_visible(real_data):
    """FTTUSDT was not traded for 7,467 hours: the page hatches the hole and names it."""
    from edgebook.cli.times import moment
    from edgebook.runtime.chart.facts import read_bars

    bars = read_bars(real_data / "binance_spot_1h_2021_2023" / "FTTUSDT-1h.parquet")
    found = gather(bars, moment("2022-11-01", "--from"), moment("2023-10-10", "--to"))

    assert counts(found)["gaps"]["longest"] == 7467
    assert "7,467 bars missing · 311 d" in page(found)
