"""F6: chances that were not taken. Each is judged by what came of it, and enough of them move the gate."""

from __future__ import annotations

from edgebook.domain.decay import DAY, HOUR
from edgebook.flow.check import Flow, exactly, none, scenario, that
from edgebook.flow.scenarios.learned import GATES, LOOSER, TIGHTER, gate_acts, learnt_gate, saw_gate
from edgebook.flow.scenarios.markets import Chance, Habits, Market
from edgebook.flow.story import Story, signal

#: Trends that never enter, and what has to be said of each: symbol, episode type, outcome, what the gate is told.
_SKIPPED = (
    ("MISSUSDT", "s1_entry", "missed", "ts_min", "loosen"),
    ("SKIPUSDT", "s1_entry", "correct_skip", "ts_min", "hold"),
    ("DIPAUSDT", "s3_retest", "missed", "dx_min", "loosen"),
    ("DIPBUSDT", "s3_retest", "correct_skip", "dx_min", "hold"),
)
_DAYS = 5
_CROWD = tuple(f"{kind}{i:02d}USDT" for kind in ("LOW", "DIP") for i in range(12))
_WINDOWS = (
    "SELECT count(*) FROM ad_strands s, $each(s.content, windows, w) WHERE s.kind = 'uptrend_episode_summary'"
    " AND $text(s.content, episode_type) = :episode AND $text(w.value, outcome) = :outcome"
)


def _story() -> tuple[Story, int]:
    """Four trends nobody enters, then a crowd: winners just outside ``ts_min``, losers just inside ``dx_min``."""
    story = Story(_DAYS, history_days=16)
    tales = {symbol: story.tale(story.token(symbol, mcap_usd=2_000_000), "1h", 3) for symbol, *_ in _SKIPPED}
    tales["MISSUSDT"].state("S1").chance(0.55).calm().state("S2", 103).state("S3", 106).calm().state("S0", 108)
    tales["SKIPUSDT"].state("S1").chance(0.55).bar(price=98).state("S0", 97)
    for symbol in ("DIPAUSDT", "DIPBUSDT"):
        tales[symbol].state("S1").state("S2", 103).state("S3", 104).dip(0.55)
    tales["DIPAUSDT"].bar(price=108).trim(108).state("S0", 108)
    tales["DIPBUSDT"].emergency(100).state("S0", 99)
    market = Market(story, 6)
    entries, dips = Habits(dips=None), Habits(entries=(1.1, 1.4), dips=(0.0, 1.4))
    for symbol in _CROWD:
        story.token(symbol, mcap_usd=2_000_000)
        market.live(symbol, ("1h",), _odds, {"1h": dips if symbol.startswith("DIP") else entries})
    return story, max(tale.last for tale in tales.values())


def _odds(chance: Chance) -> float:
    """In S1 nearly all win; in S3 only those far inside the gate do."""
    return 0.97 if chance.state == "S1" or chance.u > 1.0 else 0.03


@scenario("F6", "chances not taken: missed, correctly skipped, and what many of them do to the gate")
def missed(flow: Flow) -> None:
    """Four single trends, then a crowd whose winners stay outside TS and whose losers stand inside DX."""
    story, judged = _story()
    with flow.system(story, timeframes="1h", starting_cash_usd=10_000_000) as system:
        flow.inject(system, *(signal(symbol.lower(), symbol) for symbol, *_ in _SKIPPED))
        flow.inject(system, *(signal(symbol.lower(), symbol) for symbol in _CROWD))
        system.pass_until(judged)
        for symbol, episode, outcome, lever, pull in _SKIPPED:
            flow.about(symbol.lower())
            _one(flow, symbol, episode, outcome, lever, pull)
        system.pass_until(story.start + _DAYS * DAY - HOUR)
        flow.about("low00usdt")
        _many(flow, "s1_entry", "missed", "ts_min", LOOSER)
        flow.about("dip00usdt")
        _many(flow, "s3_retest", "failure", "dx_min", TIGHTER)


def _one(flow: Flow, symbol: str, episode: str, outcome: str, lever: str, pull: str) -> None:
    """One trend that offered one chance just outside the gate."""
    flow.check(
        "PM plan", "SELECT id FROM ad_strands WHERE kind = 'pm_action' AND symbol = :symbol", none(), symbol=symbol
    )
    flow.check(
        "window log",
        "SELECT $flag(content, entered), $text(content, window_kind), $text(content, levers.0.lever),"
        " $num(content, levers.0.delta) FROM ad_strands WHERE kind = 'uptrend_buy_window' AND symbol = :symbol"
        " AND $text(content, episode_type) = :episode",
        that(
            f"one window, not entered, a near miss of .05 on {lever}",
            lambda f: len(f) == 1 and not f[0][0] and f[0][1:3] == ("near_miss", lever) and abs(f[0][3] + 0.05) < 1e-9,
        ),
        symbol=symbol,
        episode=episode,
    )
    flow.check(
        "episode close",
        "SELECT $text(content, outcome), $text(content, windows.0.outcome), $text(content, windows.0.levers.0.lever),"
        " $text(content, windows.0.levers.0.direction) FROM ad_strands WHERE kind = 'uptrend_episode_summary'"
        " AND symbol = :symbol AND $text(content, episode_type) = :episode",
        exactly((outcome, outcome, lever, pull)),
        symbol=symbol,
        episode=episode,
    )
    won = outcome == "missed"
    flow.check(
        "shadows",
        f"SELECT $flag(w.value, entered), $num(w.value, values.{lever}) FROM ad_strands s, $each(s.content, windows, w)"
        " WHERE s.kind = 'shadows_closed' AND s.symbol = :symbol AND $text(w.value, episode_type) = :episode",
        that(
            f"one shadow, not entered, worth {'more than .5 R' if won else 'less than 0 R'}",
            lambda f: len(f) == 1 and not f[0][0] and (f[0][1] > 0.5 if won else f[0][1] < 0),
        ),
        symbol=symbol,
        episode=episode,
    )


def _many(flow: Flow, episode: str, outcome: str, lever: str, way: int) -> None:
    """What at least 20 of a kind do to the gate: looser or tighter, from the windows to the next action."""
    flow.check(
        "window log",
        _WINDOWS,
        that("at least 20", lambda found: found[0][0] >= 20),
        episode=episode,
        outcome=outcome,
    )
    band, where, worth = (4, "outside", ">") if way == LOOSER else (5, "inside", "<")
    flow.check(
        "aggregator",
        f"SELECT $num(stats, tuning.{episode}.levers.{lever}.marginal.n.{band}),"
        f" $num(stats, tuning.{episode}.levers.{lever}.marginal.y.{band}) FROM pattern_scope_stats"
        " WHERE scope_mask = 0 AND pattern_key = :key AND action_category = :category",
        that(
            f"chances in the band just {where} the gate, worth {worth} 0 R in all",
            lambda found: len(found) == 1 and found[0][0] >= 5 and found[0][1] * way < 0,
        ),
        key=GATES[lever].key,
        category=GATES[lever].category,
    )
    gate_acts(flow, lever, way, learnt_gate(flow, lever, way))
    saw_gate(flow, lever)
