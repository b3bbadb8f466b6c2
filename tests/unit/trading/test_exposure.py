"""What the phase model is told of the book: open trades by moment, cut pressure by hour, the token's age since."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgebook.market.appetite_models import Exposure, cut_pressure
from edgebook.trading.exposure import OpenTrades, exposure_of

HOUR = 3_600_000_000


def trades(w, spans):
    """Open trades (end None) and closed ones, told in that order."""
    found = OpenTrades()
    for name, (start, end) in spans.items():
        found.opened(w.position(trade_id=name, entry_ts=start * HOUR))
        if end is not None:
            found.closed(
                type("Row", (), {"trade_id": name, "opened_at": start * HOUR, "closed_at": end * HOUR})()  # a trade row
            )
    return found


def test_trades_count_from_after_their_entry_until_their_close(w):
    """A tick sees what was open before it: not the fill of its own moment."""
    found = trades(w, {"a": (10, 20), "b": (15, None)})
    assert [found.count(h * HOUR) for h in (10, 11, 15, 16, 20, 21)] == [0, 1, 1, 2, 2, 1]


def test_cut_pressure_is_folded_over_two_days_of_hours_and_held_within_the_hour(w):
    """48 hourly targets from what the market adds and the trades open then; asked in the middle: that of the hour."""
    spans = {f"t{k}": (100 + k, 140 + k if k % 2 else None) for k in range(20)}
    market = lambda at: (at // HOUR % 7) / 10  # noqa: E731
    now = 150
    wanted = cut_pressure(
        [
            (market(h * HOUR), sum(s < h and (e is None or h <= e) for s, e in spans.values()))
            for h in range(now - 47, now + 1)
        ]
    )
    assert 0.1 < wanted < 0.9
    found = trades(w, spans)
    assert found.pressure(now * HOUR, market) == pytest.approx(wanted)
    assert found.pressure(now * HOUR + 59, lambda at: 9.0) == pytest.approx(wanted)
    assert found.pressure((now + 1) * HOUR, market) != pytest.approx(wanted)


def test_a_restart_finds_the_same(w):
    """Told in another order, and long-closed trades too: the same pressure."""
    spans = {"old": (1, 2), "a": (100, 140), "b": (120, None)}
    again = trades(w, dict(reversed(spans.items())))
    for hour in (130, 131, 150):
        assert trades(w, spans).pressure(hour * HOUR, lambda at: 0.2) == again.pressure(hour * HOUR, lambda at: 0.2)


def test_the_token_is_as_its_decision_knew_it_and_ages(w):
    """Five hours old at the decision, an hour later six; unknown stays unknown."""
    row = replace(w.decision(), entry_context={"age_at_entry": 5 / 24, "mcap_at_entry": 4e5})
    found = exposure_of(OpenTrades(), lambda at: 0.0, row, w.T0 + HOUR)
    assert (found.active, found.mcap_usd) == (0, 4e5)
    assert found.age_hours == pytest.approx(6.0)
    for decision in (None, w.decision()):
        unknown = exposure_of(OpenTrades(), lambda at: 0.0, decision, w.T0)
        assert (unknown.age_hours, unknown.mcap_usd) == (None, None)


def test_an_action_tells_what_the_model_was_told(w):
    """reasons: open trades, cut pressure, age and cap; nothing of it under the other models."""
    said = []
    for exposure in (Exposure(15, 0.4, 7.0, 2e5), None):
        world = w.World()
        plain = world.input
        world.input = lambda bar, plain=plain, exposure=exposure: _with(plain(bar), exposure)
        world.bar("S0")
        world.s1_buy()
        said.append(world.kinds("pm_action")[0].payload.reasons)
    assert {k: said[0][k] for k in ("active_trades", "cut_pressure", "token_age_hours", "token_mcap_usd")} == {
        "active_trades": 15, "cut_pressure": 0.4, "token_age_hours": 7.0, "token_mcap_usd": 2e5,
    }  # fmt: skip
    assert "cut_pressure" not in said[1]


def _with(found, exposure):
    """The tick's input, told of the book."""
    found.exposure = exposure
    return found
