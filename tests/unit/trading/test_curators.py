"""Curators are folded from the registry, from their signals and from the trades that closed under them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgebook.domain.decay import DAY
from edgebook.domain.errors import TradingError
from edgebook.domain.strands import CuratorRegistered, Strand
from edgebook.trading.curators import (
    addresses,
    curator_score,
    evolve_curator,
    registration,
    registration_strand,
    written,
)


@pytest.fixture
def closed(w, world):
    """A position_closed strand with a given roi and time."""
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    world.bar("S0", 95.0)
    strand = world.kinds("position_closed")[0]

    def at(roi, day):
        payload = replace(strand.payload, summary=replace(strand.payload.summary, roi=roi))
        return replace(strand, payload=payload, ts_event=w.T0 + day * DAY)

    return at


def test_an_unregistered_curator_begins_as_testing(w):
    """Decisions 40: testing, score .6; signals are counted."""
    ann = evolve_curator(evolve_curator(None, w.social()), w.social())
    assert (ann.id, ann.status, ann.score, ann.signals, ann.first_seen) == ("ann", "testing", 0.6, 2, w.T0)


def test_the_score_follows_the_formula(w, closed):
    """Two wins of 10 %: win 7/12, pnl .1*2/12; .6 + .5*(.5*7/12 + .5*(.5 + .1/6) - .5)."""
    ann = evolve_curator(None, w.social())
    for day in (0, 0):
        ann = evolve_curator(ann, closed(0.10, day))
    assert (ann.trades, ann.wins) == (2, 2)
    assert ann.score == pytest.approx(0.6 + 0.5 * (0.5 * 7 / 12 + 0.5 * (0.5 + 0.1 / 6) - 0.5))


def test_old_returns_fade_by_half_in_thirty_days(w, closed):
    """EW mean of ROI with half-life 30 d: (.5*.3 + 0)/(1.5) = .1."""
    ann = evolve_curator(None, w.social())
    ann = evolve_curator(evolve_curator(ann, closed(0.30, 0)), closed(0.0, 30))
    assert ann.pnl_sum / ann.pnl_weight == pytest.approx(0.1)


def test_the_order_of_closes_does_not_matter(w, closed):
    """Late news of an old trade counts as old as it is."""
    start = evolve_curator(None, w.social())
    trades = [(0.30, 0), (-0.10, 40), (0.05, 10)]
    scores = []
    for order in (trades, trades[::-1], [trades[1], trades[2], trades[0]]):
        ann = start
        for roi, day in order:
            ann = evolve_curator(ann, closed(roi, day))
        scores.append(ann.score)
    assert scores == pytest.approx([scores[0]] * 3)


def test_losers_sink_and_winners_rise():
    """Monotone in wins and in return, inside [0, 1]."""
    assert curator_score(0.6, 0, 30, -0.05) < 0.55 < 0.6 < curator_score(0.6, 20, 30, 0.05)
    assert 0.0 <= curator_score(0.0, 0, 1000, -9.0) <= curator_score(1.0, 1000, 1000, 9.0) <= 1.0


def entry(**kw):
    """What a registry says of ann."""
    said = {
        "curator": "ann", "name": "Ann", "enabled": True, "status": "active", "base_weight": 0.8,
        "handles": ("twitter:ann",), "tags": ("solana",), "notes": "",
    }  # fmt: skip
    return CuratorRegistered(**(said | kw))


def registered(seq=5, **kw):
    return Strand(f"registration-{seq}", entry(**kw), 0, 0, seq=seq)


def test_a_registration_says_who_somebody_is():
    """Every field of the entry is in the row; without trades the score is the base weight."""
    ann = evolve_curator(None, registered(notes="quiet"))
    assert registration(ann) == entry(notes="quiet")
    assert (ann.score, ann.registered, ann.signals, ann.followed) == (0.8, 5, 0, True)


@pytest.mark.parametrize(
    ("kw", "followed"),
    [
        ({}, True),
        ({"status": "testing"}, True),
        ({"enabled": False}, False),
        ({"status": "inactive"}, False),
        ({"status": "suspended"}, False),
    ],
)
def test_who_is_followed(kw, followed):
    """Enabled, and active or testing."""
    assert evolve_curator(None, registered(**kw)).followed is followed


def test_a_registration_keeps_what_was_earned(w, closed):
    """Registering somebody known moves the base of the score, not the trades it was learnt from."""
    ann = evolve_curator(evolve_curator(None, w.social()), closed(0.10, 0))
    before, after = ann.score - 0.6, evolve_curator(ann, registered()).score - 0.8
    assert after == pytest.approx(before)
    later = evolve_curator(evolve_curator(ann, registered()), w.social())
    assert (later.signals, later.trades, later.wins, later.name) == (2, 1, 1, "Ann")


def test_the_log_is_told_what_is_new_and_only_that():
    """Unknown -> a strand; the same again -> none; changed -> another; back again -> yet another, ids all different."""
    first = registration_strand(entry(), None, 7)
    ann = evolve_curator(None, replace(first, seq=3))
    assert registration_strand(entry(), ann, 8) is None
    second = registration_strand(entry(enabled=False), ann, 7)
    ann = evolve_curator(ann, replace(second, seq=4))
    third = registration_strand(entry(), ann, 7)
    assert len({first.id, second.id, third.id}) == 3
    assert (first.kind, first.ts_event, first.payload) == ("curator_registered", 7, entry())


def test_somebody_who_only_spoke_is_not_registered(w):
    """So registering them is news, even with the numbers a stranger has."""
    stranger = evolve_curator(None, w.social())
    assert registration(stranger) is None
    plain = entry(name="", status="testing", base_weight=0.6, handles=(), tags=())
    assert registration_strand(plain, stranger, 0) is not None


def test_a_handle_belongs_to_whom_the_registry_gave_it_last():
    """Also while the former owner's row still lists it; who was never registered has none."""
    ann = evolve_curator(None, registered(5))
    bob = evolve_curator(None, registered(6, curator="bob", handles=("twitter:ann", "telegram:bob")))
    ids = {"ann": "ann", "bob": "bob"}
    assert addresses([bob, ann]) == addresses([ann, bob]) == ids | {"twitter:ann": "bob", "telegram:bob": "bob"}
    assert addresses([replace(ann, registered=0)]) == {}


def test_ids_that_differ_in_case_are_one_curator():
    """The spelling the registry gave last is the one: it owns the id and the handles of both."""
    ann = evolve_curator(None, registered(5))
    loud = evolve_curator(None, registered(6, curator="ANN", handles=("telegram:ann",)))
    assert addresses([ann]) == {"ann": "ann", "twitter:ann": "ann"}
    assert addresses([loud, ann]) == {"ann": "ANN", "twitter:ann": "ANN", "telegram:ann": "ANN"}
    assert written(" Ann\t") == "ann"


def test_first_and_last_signal_do_not_depend_on_the_order(w):
    """Signals of three times in any order: first seen is the earliest, last the latest."""
    said = [replace(w.social(), ts_event=w.T0 + day * DAY) for day in (2, 0, 1)]
    rows = []
    for order in (said, said[::-1]):
        ann = None
        for strand in order:
            ann = evolve_curator(ann, strand)
        rows.append(ann)
    assert rows[0] == rows[1]
    assert (rows[0].first_seen, rows[0].last_signal_at) == (w.T0, w.T0 + 2 * DAY)


def test_a_trade_of_nobody_is_an_error(closed):
    with pytest.raises(TradingError, match="gave no signal"):
        evolve_curator(None, closed(0.1, 0))
