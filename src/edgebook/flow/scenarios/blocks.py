"""F9: an attempt that was entered and lost bars the next entries, where that is switched on (trading.md 3.4)."""

from __future__ import annotations

from edgebook.domain.decay import HOUR
from edgebook.flow.check import Flow, exactly, scenario, that
from edgebook.flow.scenarios.positions import (
    Moments,
    about,
    booked,
    closed,
    executed,
    follow,
    of,
    planned,
    skipped,
    standing,
    tale_of,
    walked,
)
from edgebook.flow.story import Story

SYMBOLS = ("LOSUSDT", "WINUSDT", "RETUSDT", "NEARUSDT")


def _story() -> tuple[Story, Moments]:
    """A lost S1 entry, a won one, a lost S2 entry, and a chance that only its TS let go by."""
    story, seen = Story(2.0), Moments()
    tale = tale_of(story, "LOSUSDT")
    seen.append((tale.state("S1").chance().calm().state("S0", 97).calm().last, _lost))
    tale.state("S1").chance().calm().chance(0.57).calm()
    seen.append((tale.state("S2", 99).retest().last, _barred))
    seen.append((tale.calm().state("S3", 102).last, _lifted))
    seen.append((tale.calm().state("S0", 101).calm().state("S1").chance().last, _allowed_again))
    tale = tale_of(story, "WINUSDT")
    seen.append((tale.state("S1").chance().calm().state("S0", 104).calm().last, _won))
    seen.append((tale.state("S1").chance().last, _goes_on))
    tale = tale_of(story, "RETUSDT")
    seen.append((tale.state("S1").state("S2", 104).retest().calm().state("S0", 101).calm().last, _lost_in_s2))
    seen.append((tale.state("S1").state("S2", 104).retest().last, _barred_in_s2))
    seen.append((tale.calm().state("S1", 103).chance().last, _free_in_s1))
    seen.append((tale.calm().state("S2", 104).state("S3", 105).last, _lifted_in_s2))
    tale = tale_of(story, "NEARUSDT")
    tale.state("S1").chance(0.57).calm().state("S2", 104).state("S3", 106)
    end = max(at for at, _ in seen)
    seen.append((end + HOUR, _votes))
    return story, seen


@scenario("F9", "blocks: a lost attempt bars S1 and S2 until an S3 is seen, a won one nothing; no vote meanwhile")
def blocks(flow: Flow) -> None:
    """The switch is on; everything else as ever."""
    story, seen = _story()
    with flow.system(story, episode_block=True) as system:
        follow(flow, system, SYMBOLS, seen)


def _block(flow: Flow, symbol: str, wanted: str) -> None:
    standing(
        flow,
        "PM block",
        symbol,
        "$text(content, blocked), trade_id",
        that(
            f"{'S1 and S2' if wanted == 'S1' else wanted or 'nothing'} barred",
            lambda found: len(found) == 1 and found[0][0] == wanted,
        ),
    )


def _ended(flow: Flow, symbol: str, category: str, rule: int, reason: str, *, lost: bool) -> None:
    """The first attempt was entered, left and closed, at a loss or not."""
    planned(flow, "PM plan", symbol, (category, rule), ("exit", 1))
    executed(flow, symbol, "order_filled", "order_filled")
    booked(flow, symbol)
    closed(flow, symbol, (reason, 2))
    flow.check(
        "closure",
        f"SELECT $num(a.content, summary.pnl_usd) FROM ad_strands a WHERE a.kind = 'position_closed' AND {of('a')}",
        that("a loss" if lost else "a profit", lambda found: found[0][0] != 0 and (found[0][0] < 0) == lost),
        symbol=symbol,
    )


# ---------------------------------------------------------------- a lost S1 entry


def _lost(flow: Flow) -> None:
    symbol = about(flow, "LOSUSDT")
    walked(flow, symbol, "S1", "S0")
    _ended(flow, symbol, "entry", 5, "s1_to_s0_bearish_order", lost=True)
    _block(flow, symbol, "S1")


def _barred(flow: Flow) -> None:
    """In the next attempt an S1 chance and an S2 retest are told as skipped, and nothing is bought; both windows in S1,
    that of a chance below the gate too, say what barred them."""
    symbol = about(flow, "LOSUSDT")
    walked(flow, symbol, "S1", "S0", "S1", "S2")
    planned(flow, "PM block", symbol, ("entry", 5), ("exit", 1))
    skipped(flow, "PM block", symbol, (5, "episode_block"), (6, "episode_block"))
    flow.check(
        "windows",
        "SELECT $text(a.content, window_kind), $flag(a.content, entered), $text(a.content, blocked_by.0) FROM"
        f" ad_strands a WHERE a.kind = 'uptrend_buy_window' AND {of('a')} ORDER BY a.seq",
        exactly(("signal", True, None), ("signal", False, "episode_block"), ("near_miss", False, "episode_block")),
        symbol=symbol,
    )
    _block(flow, symbol, "S1")


def _lifted(flow: Flow) -> None:
    symbol = about(flow, "LOSUSDT")
    walked(flow, symbol, "S1", "S0", "S1", "S2", "S3")
    _block(flow, symbol, "")
    flow.check(
        "episode close",
        "SELECT $text(a.content, episode_type), $text(a.content, outcome), $flag(a.content, entered) FROM ad_strands a"
        f" WHERE a.kind = 'uptrend_episode_summary' AND {of('a')} ORDER BY a.seq",
        exactly(("s1_entry", "failure", True), ("s1_entry", "missed", False)),
        symbol=symbol,
    )


def _allowed_again(flow: Flow) -> None:
    symbol = about(flow, "LOSUSDT")
    walked(flow, symbol, "S1", "S0", "S1", "S2", "S3", "S0", "S1")
    planned(flow, "PM plan", symbol, ("entry", 5), ("exit", 1), ("entry", 5))
    executed(flow, symbol, *["order_filled"] * 3)


# ---------------------------------------------------------------- a won one


def _won(flow: Flow) -> None:
    """It never saw S2, and still it paid: nothing is barred."""
    symbol = about(flow, "WINUSDT")
    walked(flow, symbol, "S1", "S0")
    _ended(flow, symbol, "entry", 5, "s1_to_s0_bearish_order", lost=False)
    _block(flow, symbol, "")


def _goes_on(flow: Flow) -> None:
    symbol = about(flow, "WINUSDT")
    planned(flow, "PM plan", symbol, ("entry", 5), ("exit", 1), ("entry", 5))
    executed(flow, symbol, *["order_filled"] * 3)
    skipped(flow, "PM block", symbol)


# ---------------------------------------------------------------- a lost S2 entry


def _lost_in_s2(flow: Flow) -> None:
    symbol = about(flow, "RETUSDT")
    walked(flow, symbol, "S1", "S2", "S0")
    _ended(flow, symbol, "entry", 6, "fast_band_at_bottom", lost=True)
    _block(flow, symbol, "S2")


def _barred_in_s2(flow: Flow) -> None:
    symbol = about(flow, "RETUSDT")
    walked(flow, symbol, "S1", "S2", "S0", "S1", "S2")
    planned(flow, "PM block", symbol, ("entry", 6), ("exit", 1))
    skipped(flow, "PM block", symbol, (6, "episode_block"))


def _free_in_s1(flow: Flow) -> None:
    """A lost S2 entry bars S2 alone."""
    symbol = about(flow, "RETUSDT")
    _block(flow, symbol, "S2")
    planned(flow, "PM block", symbol, ("entry", 6), ("exit", 1), ("entry", 5))
    executed(flow, symbol, *["order_filled"] * 3)


def _lifted_in_s2(flow: Flow) -> None:
    _block(flow, about(flow, "RETUSDT"), "")


# ---------------------------------------------------------------- no vote


def _votes(flow: Flow) -> None:
    """Of three chances that went by before an S3, the two that a rule barred say nothing about a gate."""
    about(flow, "NEARUSDT")
    flow.check(
        "windows",
        "SELECT s.symbol, $text(w.value, window_kind), $text(w.value, blocked_by.0) FROM ad_strands s,"
        " $each(s.content, windows, w) WHERE s.kind = 'uptrend_episode_summary' AND $text(w.value, outcome) = 'missed'"
        " ORDER BY s.symbol, $num(w.value, started_at)",
        exactly(
            ("LOSUSDT", "signal", "episode_block"),
            ("LOSUSDT", "near_miss", "episode_block"),
            ("NEARUSDT", "near_miss", None),
        ),
    )
    flow.check(
        "aggregator",
        "SELECT $num(stats, tuning.s1_entry.outcomes.missed), $num(stats,"
        " tuning.s1_entry.levers.ts_min.by_outcome.missed.count), $num(stats,"
        " tuning.s1_entry.levers.ts_min.by_outcome.missed.votes) FROM pattern_scope_stats WHERE module = 'pm'"
        " AND pattern_key = 'module=pm|pattern_key=uptrend.S1.buy_flag' AND action_category = 'entry'"
        " AND scope_mask = 0",
        exactly((2, 1, 1)),
    )
