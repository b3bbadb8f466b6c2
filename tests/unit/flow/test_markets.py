"""Markets that the learning scenarios plant: scripts that can be read, the same for a seed, and true to their odds."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.adapters.feeds.script import ScriptSource
from edgebook.domain.decay import DAY
from edgebook.domain.timeframe import micros
from edgebook.flow.scenarios.markets import Chance, Habits, Market, Truth, planted, shuffled, turns
from edgebook.flow.story import Story
from edgebook.runtime.scripted import Script

FLAT = Truth({("", "S1"): 0.0, ("", "S3"): 0.0}, inside=0.9, outside=0.1)


def written(seed, *, days=3.0, timeframes=("1h",), habits=None, truth=FLAT, **kw):
    story = Story(days, base=timeframes[0], history_days=1)
    return story, planted(
        story, seed, truth, {"AAAUSDT": "micro", "BBBUSDT": "big"}, timeframes=timeframes, habits=habits, **kw
    )


def lines(story, tmp_path, name="script.jsonl"):
    return story.write(tmp_path / name).read_text()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    low=st.floats(-1.5, 0.0),
    high=st.floats(0.1, 1.5),
    rest=st.tuples(st.integers(1, 4), st.integers(4, 9)),
    dips=st.booleans(),
    lever=st.sampled_from(["ts_min", "halo"]),
)
def test_what_is_written_can_be_read_and_is_a_walk_of_the_engine(seed, low, high, rest, dips, lever, tmp_path_factory):
    """On two timeframes of one token: one price per bar, and only changes of state that an engine makes."""
    span = (low, high)
    habits = Habits(rest=rest, entries=span, dips=span if dips else None, lever=lever)
    story, _ = written(seed, timeframes=("15m", "1h"), habits={"15m": habits, "1h": habits})
    source = ScriptSource(story.write(tmp_path_factory.mktemp("story") / "script.jsonl"))
    Script(source.readings)
    assert {reading.symbol for reading in source.readings if reading.state == "S1"} == {"AAAUSDT", "BBBUSDT"}
    bars = source.bars("AAAUSDT", *source.span)
    assert 60 < bars.close.min() <= bars.close.max() < 160


def test_a_seed_is_a_market(tmp_path):
    """The same seed writes the same lines, another one others."""
    texts = [lines(written(seed)[0], tmp_path) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_market_is_over_when_it_should_be(tmp_path):
    """The last attempt has ended by then, with the price back where it began."""
    story = Story(3.0, history_days=1)
    end = story.start + 2 * DAY
    planted(story, 3, FLAT, {"AAAUSDT": "micro"}, until=end)
    source = ScriptSource(story.write(tmp_path / "script.jsonl"))
    own = [reading for reading in source.readings if reading.symbol == "AAAUSDT" and reading.timeframe == "1h"]
    assert end - DAY < own[-1].ts <= end
    assert own[-1].state == "S0"
    assert source.bars("AAAUSDT", *source.span).close[-1] == pytest.approx(100.0)


def test_chances_succeed_as_often_as_is_said(tmp_path):
    """Three in four: of the attempts of twenty tokens so many reach S3, the others never do."""
    story = Story(20.0, history_days=1)
    market = Market(story, 1)
    for i in range(20):
        market.live(story.token(f"T{i}USDT"), ("1h",), lambda chance: 0.75, {"1h": Habits(dips=None)})
    rows = [json.loads(line) for line in lines(story, tmp_path).splitlines()]
    begun = sum(a.get("state") == "S1" and b.get("state") == "S0" for b, a in pairwise(rows))
    reached = sum(row.get("state") == "S2" for row in rows)
    assert begun > 600
    assert reached / begun == pytest.approx(0.75, abs=0.06)  # 3.5 standard deviations of 700 draws


def test_the_truth_is_by_place_class_and_caller():
    """Inside and outside the true place of the gate of that day, more or less by class and caller, .03 to .97."""
    truth = Truth({("good", "S1"): -1.0, ("bad", "S1"): 1.0}, 0.9, 0.1, classes={"micro": 0.2}, curators={"ann": -0.05})
    story = Story(2.0, history_days=1)
    market = Market(story, 1, ("good", "bad"))
    found = planted(story, 1, FLAT, {})
    found.market, found.truth = market, truth
    found.classes, found.callers = {"A": "micro", "B": "big"}, {("B", 1): "ann"}

    def odds(symbol, day, u):
        return found.odds(Chance(symbol, "1h", story.start + day * DAY + micros("1h"), "S1", u))

    assert odds("B", 0, -0.5) == pytest.approx(0.9)
    assert odds("B", 0, -1.5) == pytest.approx(0.1)
    assert odds("B", 1, 0.5) == pytest.approx(0.05)
    assert odds("B", 1, 1.2) == pytest.approx(0.85)
    assert odds("A", 0, 0.0) == pytest.approx(0.97)


def test_each_token_is_called_once_a_day():
    """By one of the curators, at the beginning of the day."""
    _, found = written(5, truth=Truth(FLAT.places, curators={"ann": 0.1, "bob": 0.0}))
    said = [json.loads(line) for day in range(3) for line in found.calls(day)]
    assert len({one["id"] for one in said}) == len(said) == 6
    assert {one["curator"] for one in said} == {"ann", "bob"}
    assert [one["ts"][:10] for one in said[::2]] == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_days_turn_the_drivers(tmp_path):
    """As many good days as bad ones; a driver changes where the day does, and where it may."""
    days = shuffled(3, 8)
    assert days.count("good") == days.count("bad") == 4
    story = Story(8.0, history_days=1)
    turns(story, days, ("btc",))
    rows = [json.loads(line) for line in lines(story, tmp_path).splitlines()]
    told = [(row["ts"][8:10], row["state"]) for row in rows if row.get("symbol") == "btc" and row["timeframe"] == "1h"]
    changes = [(f"{i + 1:02}", d) for i, d in enumerate(days) if d != (days[i - 1] if i else "bad")]
    assert told == [(day, {"good": "S1", "bad": "S0"}[d]) for day, d in changes]
