"""Curators are folded from their signals and from the trades that closed under them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgebook.domain.decay import DAY
from edgebook.domain.errors import TradingError
from edgebook.trading.curators import curator_score, evolve_curator


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


def test_a_trade_of_nobody_is_an_error(closed):
    with pytest.raises(TradingError, match="gave no signal"):
        evolve_curator(None, closed(0.1, 0))
