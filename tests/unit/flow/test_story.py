"""Writing a market down: what a tale tells is what the system's feed reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebook.adapters.feeds.script import ScriptSource
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.timeframe import micros
from edgebook.engine.columns import advance, reading
from edgebook.engine.gates import BASE_GATES, evaluate
from edgebook.flow.story import START, Story, iso, signal
from edgebook.market.bars import resample
from edgebook.runtime.scripted import Script
from edgebook.trading.signals import parse_signal


def read(story, folder):
    """The source of a story."""
    return ScriptSource(story.write(folder / "script.jsonl"))


def readings(story, folder, symbol="AAAUSDT", timeframe="1h"):
    """What the system reads of a token by close time, with the script in the engine's place."""
    source = read(story, folder)
    bars, _ = resample(source.bars(symbol, *source.span), timeframe, until=source.span[1])
    columns = Script(source.readings).over(advance(None, bars)[0])
    return {int(ts): reading(columns, i) for i, ts in enumerate(columns.ts)}


def tale_of(story):
    """A tale of one token, two hours after the start."""
    return story.tale(story.token("AAAUSDT"), "1h", 2)


def test_a_story_says_when_it_begins_ends_and_of_which_bars_it_is(tmp_path):
    """The header of the script."""
    story = Story(2.5, base="15m", history_days=3)
    story.token("AAAUSDT", chain="solana")
    source = read(story, tmp_path)

    assert (source.start, source.span, source.base_timeframe) == (START, (START - 3 * DAY, START + 5 * DAY // 2), "15m")
    assert source.tokens()["AAAUSDT"].chain == "solana"


def test_a_token_is_silent_on_every_timeframe_until_a_tale_says_otherwise(tmp_path):
    """S0 and calm on each that its bars can build."""
    story = Story(1.0)
    story.token("AAAUSDT")
    assert sorted({r.timeframe for r in read(story, tmp_path).readings}) == ["1d", "1h", "4h"]
    for timeframe in ("1h", "4h"):
        found = readings(story, tmp_path, timeframe=timeframe)
        assert {r.state for r in found.values()} == {"S0"}
        assert not any(evaluate(r, BASE_GATES).flags.buy_signal for r in found.values())


@given(after=st.floats(0.0, 40.0), timeframe=st.sampled_from(["1h", "4h"]))
def test_a_tale_begins_on_a_close_and_not_before_the_token_has_spoken(after, timeframe):
    """The first bar says S0, so a tale begins on the second at the earliest."""
    story = Story(3.0)
    tale = story.tale(story.token("AAAUSDT"), timeframe, after)

    assert tale.at % micros(timeframe) == 0
    assert tale.at >= max(START + 2 * micros(timeframe), START + after * HOUR - 1)
    assert tale.last == tale.at - micros(timeframe)


def test_each_call_is_one_bar_and_calm_passes_over_so_many(tmp_path):
    """States stay, prices stay, scores do not."""
    story = Story(2.0)
    tale = tale_of(story).state("S1").chance(0.7).calm(2).state("S2", 104).until(START + 12 * HOUR).state("S1")
    found = readings(story, tmp_path)
    told = [found[START + hour * HOUR] for hour in range(1, 13)]

    assert tale.last == START + 12 * HOUR
    assert [r.state for r in told] == ["S0", "S1", "S1", "S1", "S1", "S2", "S2", "S2", "S2", "S2", "S2", "S1"]
    assert [r.price for r in told] == [100.0] * 5 + [104.0] * 7
    assert [r.ts_score for r in told[1:5]] == [0.3, 0.7, 0.3, 0.3]


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (lambda t: t.state("S1").chance(0.61), lambda r: evaluate(r, BASE_GATES).flags.buy_signal),
        (lambda t: t.state("S1").chance(0.59), lambda r: not evaluate(r, BASE_GATES).flags.buy_signal),
        (lambda t: t.state("S1").state("S2").retest(), lambda r: evaluate(r, BASE_GATES).flags.buy_flag),
        (lambda t: t.state("S1").state("S2").state("S3").dip(0.61), lambda r: evaluate(r, BASE_GATES).flags.buy_flag),
        (
            lambda t: t.state("S1").state("S2").state("S3").dip(0.59),
            lambda r: not evaluate(r, BASE_GATES).flags.buy_flag,
        ),
        (lambda t: t.state("S1").state("S2").trim(105), lambda r: r.trim_flag and r.nearest_level_price == 105),
        (lambda t: t.state("S1").state("S2").state("S3").emergency(), lambda r: r.emergency_exit),
        (lambda t: t.state("S1").state("S2").state("S3").emergency().reclaim(), lambda r: r.reclaimed_ema333),
        (lambda t: t.state("S1").state("S2").state("S3").first_dip(), lambda r: r.first_dip),
        (lambda t: t.state("S1").state("S0"), lambda r: r.exit_position and r.emergency_exit),
    ],
)
def test_a_word_means_what_the_engine_and_its_base_gates_make_of_it(tmp_path, words, holds):
    """Each word on its last bar, and on no bar before it."""
    story = Story(2.0)
    tale = tale_of(story)
    words(tale)
    found = readings(story, tmp_path)

    assert holds(found[tale.last])


def test_a_driver_is_scripted_under_its_name(tmp_path):
    """It is no token."""
    story = Story(3.0)
    story.token("AAAUSDT")
    story.driver("btc", "1d", START + DAY, "S1", ts_score=0.9)
    source = read(story, tmp_path)

    assert source.symbols == ("AAAUSDT",)
    assert [(r.symbol, r.timeframe, r.state) for r in source.readings if r.symbol == "btc"] == [("btc", "1d", "S1")]


def test_a_signal_is_one_the_ingress_takes_and_its_fields_can_be_replaced():
    """One line of JSON."""
    line = signal("s-1", "AAAUSDT", START + HOUR, curator="bob", intent="mock")
    parsed = parse_signal(line)

    assert "\n" not in line
    assert json.loads(line)["ts"] == iso(START + HOUR) == "2024-01-01T01:00:00Z"
    assert (parsed.payload.signal_id, parsed.payload.symbol, parsed.payload.intent) == ("s-1", "AAAUSDT", "mock")
