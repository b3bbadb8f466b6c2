"""The look-ahead analysis: clean where nothing looks ahead, and it names what does, in the engine, the tape or the
log."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from tests.flow import world

from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError
from edgebook.domain.strands import PAYLOADS
from edgebook.domain.timeframe import micros
from edgebook.engine import columns as engine_columns
from edgebook.engine.columns import EngineConfig, advance
from edgebook.market.bars import BarSeries, resample
from edgebook.market.regime import RegimeTimeline
from edgebook.runtime import bootstrap
from edgebook.runtime import market as runtime_market
from edgebook.runtime.backtest import Span, backtest
from edgebook.runtime.lookahead import check, warmup
from edgebook.runtime.lookahead import engine as on_engine
from edgebook.runtime.lookahead import system as on_system
from edgebook.runtime.lookahead.cut import CutSource, Findings, bars_until, cut_feed, equal, unequal
from edgebook.runtime.lookahead.system import Entry, compare_logs, known_at
from edgebook.runtime.market import Tape
from edgebook.runtime.settings import Settings

SETTINGS = Settings(timeframes="1m,15m", feed="parquet:bars")


@pytest.fixture(scope="module")
def feed(tmp_path_factory):
    """Three days of recorded 1 m bars of seven symbols, signals on the last."""
    directory = tmp_path_factory.mktemp("market")
    lines = world.write_bars(directory / "bars", 1)
    (directory / "signals.jsonl").write_text("\n".join(lines) + "\n")
    return bootstrap.parquet_feed(directory / "bars", directory / "signals.jsonl")


@pytest.fixture(scope="module")
def tape(feed):
    """The tape over all of it."""
    return on_system.open_tape(SETTINGS, cut_feed(feed, feed.source.span[1]), None)


@pytest.fixture(scope="module")
def line(tape):
    """The 1 m series of one symbol."""
    return next(one for one in on_engine.lines(tape, EngineConfig()) if one.timeframe == "1m")


def analyse(feed, span=None, settings=SETTINGS):
    return check.check_lookahead(settings, feed, span or Span(), lambda text: None)


# ------------------------------------------------------------------ cutting and comparing


def test_a_cut_feed_holds_nothing_later(feed):
    """Bars close at or before the cut, signals come at or before it, and the arrays are copies: behind their end lies
    no future."""
    cut = feed.source.span[1] - DAY // 2 + 30_000_000
    short = cut_feed(feed, cut)
    symbol = feed.source.symbols[0]
    bars = short.source.bars(symbol, 0, 1 << 62)

    assert cut - 60_000_000 < bars.close_ts[-1] <= cut == short.source.span[1]
    assert 0 < len(short.signals) < len(feed.signals)
    assert max(ts for ts, _ in short.signals) <= cut
    assert not np.shares_memory(bars.close, feed.source.bars(symbol, 0, 1 << 62).close)


def test_numbers_are_equal_to_a_trillionth_and_everything_else_exactly():
    """One rule for single facts and for columns: NaN is NaN, infinity is infinity, 1e-12 of the larger is nothing."""
    nan, inf = float("nan"), float("inf")
    pairs = [(1.0, 1.0), (1e6, 1e6 * (1 + 1e-13)), (1e-9, 1.0001e-9), (nan, nan), (nan, 1.0), (inf, inf), (inf, -inf)]
    expected = [False, False, True, False, True, False, True]

    assert unequal(*(np.array(side) for side in zip(*pairs, strict=True))).tolist() == expected
    assert [not equal(a, b) for a, b in pairs] == expected
    assert not equal(1, 2)
    assert not equal("absent", nan)


# ------------------------------------------------------------------ a clean market


def test_nothing_looks_ahead_on_the_small_market(feed):
    """Engine, tape and log compare a great deal and find no difference."""
    found = analyse(feed)

    assert found["clean"]
    assert [found[part]["differences"] for part in ("engine", "tape", "log")] == [0, 0, 0]
    assert found["engine"]["comparisons"] > 1_000_000
    assert found["tape"]["comparisons"] > 10_000
    assert all(run["equal"] and run["strands"] > 50 for run in found["log"]["runs"])


def test_every_column_of_every_bar_before_each_cut_is_compared(line):
    """Comparisons are the columns there are times the bars before the cut and the 100 after it, summed over the
    cuts."""
    findings = Findings()
    on_engine.compare_line(line, EngineConfig(), findings)
    bars = sum(min(len(line.bars), (line.columns.ts <= cut).sum() + 100) for cut in on_engine.cuts_of(line))

    numbers = len(line.columns.values[0]) + len(line.columns.counters[0]) + len(line.columns.flags[0])
    assert findings.comparisons == bars * (numbers + 3)
    assert findings.cuts == len(on_engine.cuts_of(line)) >= 6


@pytest.mark.parametrize("global_exit", [False, True])
def test_the_series_analysed_are_those_the_system_trades_on(feed, global_exit):
    """The engine's columns and the tape's readings of the same bar are equal, under the settings of the run."""
    settings = SETTINGS.model_copy(update={"global_exit": global_exit})
    tape = on_system.open_tape(settings, feed, None)
    config = EngineConfig(global_exit=global_exit)
    found = list(on_engine.lines(tape, config))

    assert {(one.symbol, one.timeframe) for one in found} == {(s, tf) for s in tape.symbols for tf in tape.timeframes}
    for one in found:
        for i in range(0, len(one.columns), 97):
            read = tape.reading(one.symbol, one.timeframe, int(one.columns.ts[i]))
            assert repr(read) == repr(engine_columns.reading(one.columns, i))


def test_a_line_is_cut_before_state_changes(line):
    """Some cuts leave the bar before a change as the last one: there a column that knows the next bar shows it."""
    state, ts = line.columns.state, line.columns.ts
    before = {int(t) for t, (a, b) in zip(ts, pairwise(state), strict=False) if a != b}

    assert len(before & set(on_engine.cuts_of(line))) >= 3


def test_the_whole_run_of_the_analysis_is_the_backtest(feed):
    """The log it cuts is the one a backtest of the same options writes."""
    from edgebook.adapters.memory import MemoryStore

    found = backtest(MemoryStore(), SETTINGS, feed, Span())

    assert analyse(feed)["log"]["log_head"] == found["log_head"]


def test_the_span_is_respected(feed):
    """From and to are those asked for; no bars in between is one clear line."""
    first, last = feed.source.span
    found = analyse(feed, Span(last - DAY, last - DAY // 2), SETTINGS.model_copy(update={"timeframes": ("15m",)}))

    assert (found["from"], found["to"]) == ("2024-01-01 00:00:00", "2024-01-01 12:00:00")
    assert found["timeframes"] == ["15m"]
    with pytest.raises(InputError, match="no bars between --from and --to"):
        analyse(feed, Span(last + DAY))
    with pytest.raises(InputError, match="no bars between --from and --to"):
        analyse(feed, Span(None, first - DAY))


# ------------------------------------------------------------------ planted cheats


def cheat(monkeypatch, spoil):
    """Every engine pass, in the analysis and in the tape, has its columns spoilt."""

    def spoilt(memory, bars, *, config=None):
        columns, after = advance(memory, bars, config=config)
        spoil(columns)
        return columns, after

    monkeypatch.setattr(engine_columns, "advance", spoilt)
    monkeypatch.setattr(runtime_market, "advance", spoilt)


def peek(name):
    """A column that shows the next bar's value."""

    def spoil(columns):
        column = columns[name]
        column[:-1] = column[1:].copy()

    return spoil


@pytest.mark.parametrize("name", ["rsi", "state", "trim_flag", "ema333"])
def test_a_column_one_bar_ahead_is_named(line, monkeypatch, name):
    """A number, a state, a flag: the finding names series and column, on the last bar known, with both values."""
    cheat(monkeypatch, peek(name))
    spoilt = dataclasses.replace(line, columns=on_engine.run(line.bars, EngineConfig()))
    findings = Findings()
    on_engine.compare_line(spoilt, EngineConfig(), findings)

    first = next(one for one in findings.first if one.column == name)
    i = int(line.columns.ts.searchsorted(first.ts))
    assert (first.symbol, first.timeframe) == (line.symbol, line.timeframe)
    assert line.columns.ts[i + 1] > first.cut >= first.ts
    assert first.whole == line.columns[name][i + 1].item()
    assert first.short == line.columns[name][i].item()


@pytest.mark.parametrize("name", ["first_dip", "exit_position", "reclaimed_ema333"])
def test_a_flag_that_changes_seldom_is_caught_by_the_bars_given_one_at_a_time(tape, monkeypatch, name):
    """No cut need lie beside such a flag: the stretches after the cuts hold some, and each bar there is the last."""
    cheat(monkeypatch, peek(name))
    findings = Findings()
    for spoilt in on_engine.lines(tape, EngineConfig()):
        on_engine.compare_line(spoilt, EngineConfig(), findings)

    assert {name} <= {one.column for one in findings.first} <= {name, "events"}


def test_a_column_scaled_by_the_whole_series_is_found(line, monkeypatch):
    """Normalising by what is only known at the end changes bars long before the cut, not just the last."""

    def scale(columns):
        columns["vo_z"][:] /= columns["high"].max() / columns["high"].min()

    cheat(monkeypatch, scale)
    spoilt = dataclasses.replace(line, columns=on_engine.run(line.bars, EngineConfig()))
    findings = Findings()
    on_engine.compare_line(spoilt, EngineConfig(), findings)

    assert {one.column for one in findings.first} == {"vo_z"}
    assert findings.differences > 100 * len(findings.first)


def test_a_half_made_bar_is_found(tape, monkeypatch):
    """A coarser bar that exists before it has closed: it differs in number, or in what it says, once it has."""

    def hasty(series, timeframe, *, until):
        built, coverage = resample(series, timeframe, until=until)
        begun = int(series.ts_open[-1]) // built.step * built.step
        if len(built) and built.ts_open[-1] == begun:
            return built, coverage
        rest = series.slice(begun, 1 << 62)
        columns = (np.r_[getattr(built, n), getattr(rest, n)[-1]] for n in ("open", "high", "low", "close", "volume"))
        return BarSeries(built.symbol, timeframe, np.r_[built.ts_open, begun], *columns), coverage

    monkeypatch.setattr(on_engine, "resample", hasty)
    findings = Findings()
    for one in on_engine.lines(tape, EngineConfig()):
        if one.timeframe == "15m":
            on_engine.compare_line(one, EngineConfig(), findings)

    assert "bars" in {one.column for one in findings.first}


def test_a_bar_that_owes_its_existence_to_what_follows_a_hole_is_found(line, monkeypatch):
    """A quarter whose last minute is missing has to exist at its close or never; built only once a later bar is there,
    it is missing where the feed ends at its close."""
    keep = np.ones(len(line.base), dtype=bool)
    at = np.flatnonzero(line.base.ts_open % (15 * 60_000_000) == 14 * 60_000_000)[[60, 200]]
    keep[np.r_[at, at + 1, at + 2]] = False
    names = ("ts_open", "open", "high", "low", "close", "volume")
    base = BarSeries(line.symbol, "1m", *(getattr(line.base, name)[keep] for name in names))
    bars = resample(base, "15m")[0]
    holed = on_engine.Line(line.symbol, "15m", base, bars, on_engine.run(bars, EngineConfig()))
    known, hidden = Findings(), Findings()

    on_engine.compare_line(holed, EngineConfig(), known)
    monkeypatch.setattr(on_engine, "resample", lambda series, timeframe, *, until: resample(series, timeframe))
    on_engine.compare_line(holed, EngineConfig(), hidden)

    assert set(line.base.close_ts[at]) <= set(on_engine.cuts_of(holed))
    assert known.differences == 0
    assert {one.ts for one in hidden.first if one.column == "bars"} == set(line.base.close_ts[at])


def test_a_regime_that_knows_the_next_hour_is_named(feed, tape, monkeypatch):
    """The tape's answers differ before the cut, and the appetite is among what differs."""
    asked = RegimeTimeline.at
    monkeypatch.setattr(RegimeTimeline, "at", lambda self, now, *more: asked(self, now + 3_600_000_000, *more))
    findings = on_system.check_tape(SETTINGS, cut_feed(feed, feed.source.span[1]), tape, lambda text: None)

    assert findings.differences
    assert {"ts", "a_base"} <= {one.column.rpartition(" ")[2] for one in findings.first}
    assert all(one.ts <= one.cut for one in findings.first)


def test_a_tape_that_reads_the_next_bar_is_found_in_what_it_says_and_in_the_log(feed, monkeypatch):
    """Trading on the next bar changes the log before the cut: the strand is named."""
    asked = Tape.reading

    def ahead(self, symbol, timeframe, now):
        found = asked(self, symbol, timeframe, now + micros(timeframe)) or asked(self, symbol, timeframe, now)
        return found and dataclasses.replace(found, ts=now)

    monkeypatch.setattr(Tape, "reading", ahead)
    found = analyse(feed)

    assert "price" in {one["column"] for one in found["tape"]["first_differences"]}
    assert not all(run["equal"] for run in found["log"]["runs"])
    assert found["log"]["first_differences"][0]["column"] in PAYLOADS


# ------------------------------------------------------------------ what of a log is comparable


def entries(*rows):
    return [Entry(seq, f"id{seq}", f"hash{seq}", kind, "X", "1h", ts) for seq, (ts, kind) in enumerate(rows, 1)]


def test_fills_at_the_cut_are_the_one_thing_a_short_run_need_not_have():
    """All before the cut counts, fills among it; at the cut, what was recorded before the first fill, refusal or
    expiry."""
    log = entries(
        (5, "order_filled"), (9, "pm_action"), (9, "order_expired"), (9, "position_closed"), (10, "pm_action")
    )

    assert [entry.seq for entry in known_at(log, 9)] == [1, 2]
    assert [entry.seq for entry in known_at(log, 8)] == [1]
    assert [entry.seq for entry in known_at(log, 10)] == [1, 2, 3, 4, 5]


def test_a_missing_an_extra_or_another_strand_is_a_difference():
    """Whichever log is longer, and wherever they part: the first strand that differs is named."""
    log = entries((5, "pm_action"), (6, "order_filled"), (9, "pm_action"))
    other = [*log[:2], *entries((9, "config_changed"))]
    findings = Findings()

    assert compare_logs(log, list(log), 9, findings)
    assert not any(compare_logs(a, b, 9, findings) for a, b in ((log, log[:1]), (log[:1], log), (log, other)))
    assert [one.column for one in findings.first] == ["order_filled", "order_filled", "pm_action"]
    assert [findings.first[0].short, findings.first[1].whole] == ["absent", "absent"]


def test_runs_are_cut_where_most_was_decided(tape):
    """Cuts lie about a third and two thirds along what ticks wrote, at the busiest moment there; without any, in
    time."""
    start, minute = tape.start, 60_000_000
    plans = [(start + k * minute, "pm_action") for k in range(1, 61)]
    busy = [(start + 20 * minute, "pm_action"), (start + 41 * minute, "pm_action")]

    assert on_system.log_cuts(entries(*sorted(plans + busy)), tape) == [ts for ts, _ in busy]
    thirds = on_system.log_cuts([], tape)
    assert len(thirds) == 2
    assert start < thirds[0] < thirds[1] < tape.loaded_until


# ------------------------------------------------------------------ warm-up


def test_trend_strength_is_the_engines_own_where_it_gives_one(line):
    """The state-free form equals the score of every bar that has a state."""
    score = line.columns.floats("ts_score")
    there = ~np.isnan(score)

    assert there.sum() > 1_000
    np.testing.assert_allclose(warmup.trend_strength(line.columns)[there], score[there], atol=1e-12)


def test_averages_agree_when_the_weight_of_their_start_has_decayed(line):
    """An EMA started later differs by its first difference times (1 - alpha)^k; it agrees for good once that is below a
    tenth of an ATR."""
    starts = warmup.starts_of(line, EngineConfig())
    offsets = [i for i in (int(len(line.bars) * share) for share in warmup.OFFSET_SHARES)
               if len(line.bars) - i >= warmup.LEAST_BARS]  # fmt: skip
    expected = []
    for offset in offsets:
        atr = line.columns.floats("atr")[offset:]
        age = np.arange(len(atr))
        wrong = [0]
        for n in (20, 30, 60, 144, 250, 333):
            gap = abs(line.columns.floats(f"ema{n}")[offset] - line.bars.close[offset])
            far = np.flatnonzero(gap * (1 - 2 / (n + 1)) ** age > 0.1 * atr)
            wrong.append(int(far[-1]) + 1 if len(far) else 0)
        expected.append(max(wrong))

    assert [start.until["emas"] for start in starts] == expected
    assert max(expected) > 333


def test_a_late_start_has_no_state_before_its_first_downtrend(line):
    """Not before bar 333, and then at the first bar on which its own averages are in S0 order."""
    for start in warmup.starts_of(line, EngineConfig()):
        bars = line.bars.rows(len(line.bars) - start.bars, len(line.bars))
        ordered = np.flatnonzero(advance(None, bars)[0]["s0_order"][333:]) + 333
        assert start.left_s4 == (int(ordered[0]) if len(ordered) else None)


def test_quantiles_count_a_start_that_never_agreed_as_the_longest():
    """Ten starts, two of which never came to rest: the 90th percentile is unknown, the shares count them against."""
    found = warmup._quantiles([100, 200, 300, 400, 500, 600, 700, 1_200, None, None])

    assert found == {"median": 600, "p90": None, "max": 1_200, "by_333": 0.3, "by_1000": 0.7, "never": 2}


def test_bars_until_and_source_agree(feed):
    """Cutting a series and asking a cut source give the same bars."""
    symbol, (first, last) = feed.source.symbols[0], feed.source.span
    cut = last - DAY
    whole = feed.source.bars(symbol, first, last)

    given = CutSource(feed.source, cut).bars(symbol, first, last)
    assert given.ts_open.tolist() == bars_until(whole, cut).ts_open.tolist()
    assert CutSource(feed.source, first - DAY).bars(symbol, 0, last).ts_open.tolist() == []
