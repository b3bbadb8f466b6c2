"""Intent metrics of a token: what is kept of its mentions, and what they come to (trading.md 1.4)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import pytest

from edgebook.domain.book import Curator
from edgebook.domain.decay import HOUR
from edgebook.domain.errors import TradingError
from edgebook.trading.intents import CHANNELS, evolve_intents, intent_of, intent_scores
from edgebook.trading.rules import BUY_INTENTS, INTENTS

CURATORS = {
    "sure": Curator("sure", "active", 1.0, 1.0, registered=1),
    "half": Curator("half", "testing", 0.5, 0.5),
    "off": Curator("off", "active", 1.0, 1.0, enabled=False, registered=1),
    "barred": Curator("barred", "suspended", 1.0, 1.0, registered=1),
}


@pytest.fixture
def say(w):
    """``say(intent, hours, curator)``: a mention that many hours after T0."""

    def build(intent, hours=0.0, curator="sure", ident="", heard=None, **kw):
        ts = w.T0 + round(hours * HOUR)
        said = w.social(intent=intent, curator=curator, signal_id=ident or f"{intent}{hours}{curator}", **kw)
        return replace(said, ts_event=ts, ts_recorded=ts if heard is None else w.T0 + round(heard * HOUR))

    return build


def told(*mentions):
    """The row after these mentions."""
    row = None
    for mention in mentions:
        row = evolve_intents(row, mention)
    return row


def scores(row, now):
    return intent_scores(row, CURATORS.get, now)


def test_every_intent_has_the_channel_of_the_map():
    """Buy intents are hi_buy or med_buy and nothing else is; profit taking, selling and mocking have their own."""
    assert {intent for intent, channel in CHANNELS.items() if channel.endswith("_buy")} == BUY_INTENTS
    assert {i for i, c in CHANNELS.items() if c == "hi_buy"} == {"adding_to_position", "new_discovery"}
    assert {i: c for i, c in CHANNELS.items() if not c.endswith("_buy")} == {
        "profit_taking": "profit", "sell": "sell", "mock": "mock",
    }  # fmt: skip


def test_one_mention_by_a_sure_curator_is_half(say, w):
    """min(1, (1 * 2^0) / 1 * (1 + ln 1) / 2) = 1/2; a curator of score .5 gives a quarter."""
    assert scores(told(say("new_discovery")), w.T0) == {"hi_buy": 0.5}
    assert scores(told(say("new_discovery", curator="half")), w.T0) == {"hi_buy": 0.25}


def test_a_mention_halves_in_three_days(say, w):
    """Half-life 72 h."""
    row = told(say("mock"))
    assert scores(row, w.T0 + 72 * HOUR)["mock"] == pytest.approx(0.25)
    assert scores(row, w.T0 + 144 * HOUR)["mock"] == pytest.approx(0.125)


def test_more_mentions_weigh_more_and_their_mean_is_taken(say, w):
    """Two curators, 0 and 72 h old: mean (.5 + .5)/2 = .5, times (1 + ln 2)/2."""
    row = told(say("other_positive", 0.0, "sure"), say("research_positive", 72.0, "half"))
    assert scores(row, w.T0 + 72 * HOUR) == {"med_buy": pytest.approx(0.5 * (1 + math.log(2)) / 2)}


def test_a_score_is_at_most_one(say, w):
    """e^2 mentions would be 1.5: clipped; so hi_buy 1 adds +.25 and -.10, mock 1 adds -.30 and +.50 clipped to .40."""
    crowd = [say("new_discovery", 0.0, "sure", f"m{i}") for i in range(8)]
    row = told(*crowd)
    assert scores(row, w.T0) == {"hi_buy": 1.0}
    assert intent_of(row, CURATORS.get, w.T0) == (0.25, -0.10)
    mocked = told(*(replace(s, payload=replace(s.payload, intent="mock")) for s in crowd))
    assert intent_of(mocked, CURATORS.get, w.T0) == (-0.30, 0.40)


def test_channels_add_up(say, w):
    """One fresh discovery and one fresh sell call by a sure curator: .5*.25 - .5*.25 and -.5*.10 + .5*.35."""
    row = told(say("new_discovery"), say("sell"))
    assert intent_of(row, CURATORS.get, w.T0) == pytest.approx((0.0, 0.125))


def test_old_mentions_are_dropped_from_the_mean(say, w):
    """2^(-h/72) < .01 from 478.4 h on: a mention as old as that no longer drags the mean down."""
    assert pytest.approx(478.35, abs=0.01) == INTENTS.horizon_hours
    row = told(say("new_discovery", 0.0), say("new_discovery", 478.0))
    assert scores(row, w.T0 + 478 * HOUR)["hi_buy"] == pytest.approx((1 + 2 ** (-478 / 72)) / 2 * (1 + math.log(2)) / 2)
    assert scores(row, w.T0 + 479 * HOUR)["hi_buy"] == pytest.approx(2 ** (-1 / 72) / 2)


@pytest.mark.parametrize("curator", ["off", "barred", "nobody"])
def test_who_is_not_followed_has_no_weight(say, w, curator):
    """A disabled, suspended or unknown curator counts neither in the sum nor in the count."""
    row = told(say("new_discovery", 0.0, curator), say("new_discovery", 0.0, "sure"))
    assert scores(row, w.T0) == {"hi_buy": 0.5}
    assert intent_of(told(say("mock", 0.0, curator)), CURATORS.get, w.T0) == (0.0, 0.0)


def test_the_weight_is_the_curators_score_of_the_moment(say, w):
    """A score learnt after the mention counts: nothing is frozen with it."""
    row = told(say("new_discovery"))
    assert intent_scores(row, {"sure": replace(CURATORS["sure"], score=0.2)}.get, w.T0) == {"hi_buy": 0.1}


def test_a_mention_without_a_channel_is_counted_and_moves_nothing(say, w):
    """mention_only and names nobody knows."""
    row = told(say("mention_only"), say("whatever"))
    assert (row.total, row.mentions, row.last_at) == (2, (), 0)
    assert intent_of(row, CURATORS.get, w.T0) == intent_of(None, CURATORS.get, w.T0) == (0.0, 0.0)


def test_a_row_keeps_only_what_can_still_count(say):
    """Mentions older than 478.4 h before the newest are gone, and never more than 256 are kept: the newest."""
    row = told(say("mock", 0.0), say("mock", 400.0), say("mock", 500.0))
    assert (len(row.mentions), row.total) == (2, 3)
    crowd = told(*(say("mock", i / 10, ident=f"m{i}") for i in range(300)))
    assert len(crowd.mentions) == INTENTS.max_mentions == 256
    assert crowd.mentions[0].ts == say("mock", 4.4).ts_event


def test_a_message_dated_ahead_counts_from_when_it_was_heard(say, w):
    """A year-3000 date neither stays fresh for ever nor pushes the other mentions out."""
    row = told(say("new_discovery", 0.0), say("new_discovery", 8_000_000.0, heard=1.0))
    assert [m.ts for m in row.mentions] == [w.T0, w.T0 + HOUR]
    assert scores(row, w.T0 + 72 * HOUR)["hi_buy"] < 0.5


def test_the_order_of_mentions_does_not_matter(say):
    """All orders of five mentions, three of them of one moment and one too old to stay, give one row."""
    mentions = [
        say("mock", 0.0), say("new_discovery", 500.0, "half"), say("sell", 500.0), say("mock", 500.0, "half"),
        say("mention_only", 510.0),
    ]  # fmt: skip
    rows = {told(*order) for order in permutations(mentions)}
    assert len(rows) == 1
    assert len(rows.pop().mentions) == 3


def test_another_kind_of_strand_is_an_error(w):
    with pytest.raises(TradingError, match="is no mention"):
        evolve_intents(None, w.status_strand())
