"""Orders that come to nothing or fill in part, for F4 (trading.md 4.2-4.4).

They are made to fail from outside: a thin day slips 10 bps where 8 are allowed, a bar that never opens lets a buy
expire, a bar on which little is traded fills a sale in part. A buy is planned no larger than such a bar allows, so it
never fills in part on paper.
"""

from __future__ import annotations

from edgebook.domain.decay import HOUR
from edgebook.flow.check import Flow, exactly, that
from edgebook.flow.scenarios.positions import (
    LIVELY,
    Moments,
    about,
    booked,
    closed,
    executed,
    flat,
    of,
    planned,
    standing,
    tale_of,
    walked,
)
from edgebook.flow.story import Story, iso

#: Basis points of slippage that are allowed here: a lively token has 5, one whose day is worth less than 10 M USD 10.
SLIPPAGE_BPS = 8
THIN = 1_000.0
#: Units of a bar of which an order may take a twentieth: less than is to be sold.
FEW = 40.0
SYMBOLS = ("PARUSDT", "LAPUSDT", "REFUSDT", "EXPUSDT", "EXFUSDT", "LEFUSDT")


def tell_orders(story: Story, seen: Moments, hours: float) -> None:
    """An entry refused, one expired, an exit refused for hours, one in two parts, and two trims that fill in part."""
    tale = tale_of(story, "REFUSDT", hours, THIN)
    seen.append((tale.state("S1").chance().last, _refused))
    seen.append((tale.chance(volume=LIVELY).last, _retried))
    seen.append((tale.state("S0", 99).last, _entered_late))
    tale = tale_of(story, "EXPUSDT", hours)
    sent = tale.state("S1").chance().last
    story.line(symbol="EXPUSDT", missing=[iso(sent), iso(sent + HOUR)])
    seen.append((tale.calm().last, _expired))
    seen.append((tale.chance().last, _bought))
    tale.state("S0", 99)
    tale = tale_of(story, "EXFUSDT", hours)
    tale.state("S1").chance().bar(volume=THIN).calm(26)
    seen.append((tale.state("S0", 99).calm(2).last, _stuck))
    seen.append((tale.bar(volume=LIVELY).last, _sold))
    tale = tale_of(story, "LEFUSDT", hours)
    seen.append((tale.state("S1").chance().calm(2).state("S0", 99, volume=FEW / 4).last, _left))
    seen.append((tale.bar(volume=LIVELY).last, _gone))

    for symbol, goes_on in (("PARUSDT", True), ("LAPUSDT", False)):
        tale = tale_of(story, symbol, hours)
        tale.state("S1").chance().state("S2", 104).state("S3", 106).trim(110, volume=FEW)
        if goes_on:
            seen += [(tale.last, _half), (tale.trim(volume=LIVELY).last, _completed)]
        else:
            seen.append((tale.bar(volume=LIVELY).last, _lapsed))
        tale.state("S0", 108)


def _half(flow: Flow) -> None:
    """A trim on a bar of which only a part of it may be sold."""
    symbol = about(flow, "PARUSDT")
    walked(flow, symbol, "S1", "S2", "S3")
    planned(flow, "PM trim", symbol, ("entry", 5), ("trim", 3))
    flow.check(
        "executor",
        "SELECT $flag(f.content, partial), $num(f.content, quantity) * 110, $num(o.content, bar_volume_usd)"
        " FROM orders o JOIN ad_strands f ON f.causation_id = o.action_id WHERE o.symbol = :symbol"
        " AND o.decision_type = 'trim'",
        that(
            f"partial, worth a twentieth of the bar's {FEW:g} units at 110",
            lambda f: f[0][0] and abs(f[0][1] - 0.05 * FEW * 110) < 0.01 and abs(f[0][2] - FEW * 110) < 1e-6,
        ),
        symbol=symbol,
    )
    booked(flow, symbol)
    flow.check(
        "PM memory",
        "SELECT $num(p.content, pending.quantity), $num(a.content, quantity) - $num(f.content, quantity)"
        " FROM positions p JOIN ad_strands a ON a.position_id = p.key AND a.kind = 'pm_action'"
        " JOIN ad_strands f ON f.causation_id = a.id AND f.kind = 'order_filled'"
        f" WHERE $text(a.content, decision_type) = 'trim' AND {of('a')}",
        that("twice the same: what waits, and what was ordered less what was sold", lambda f: _close(f[0]) > 0),
        symbol=symbol,
    )


def _close(pair: tuple[float, float]) -> float:
    """The first of two numbers that agree, else 0."""
    return pair[0] if abs(pair[0] - pair[1]) < 1e-8 else 0.0


def _completed(flow: Flow) -> None:
    """On the next bar the signal still holds: the rest is sold, as the same trim."""
    symbol = about(flow, "PARUSDT")
    planned(flow, "PM completion", symbol, ("entry", 5), ("trim", 3), ("trim", 3))
    flow.check(
        "PM completion",
        "SELECT $text(b.content, flag), $num(a.content, quantity) - $num(f.content, quantity),"
        " $num(b.content, quantity) FROM ad_strands b JOIN ad_strands a ON a.id = $text(b.content, reasons.completes)"
        f" JOIN ad_strands f ON f.causation_id = a.id WHERE b.kind = 'pm_action' AND {of('b')}",
        that("the rest of the trim", lambda f: f[0][0] == "pending_completion" and _close(f[0][1:]) > 0),
        symbol=symbol,
    )
    executed(flow, symbol, *["order_filled"] * 3)
    booked(flow, symbol)
    standing(
        flow,
        "pool",
        symbol,
        "$text(content, pending), $num(content, pool.basis), $num(content, ledger.extracted)",
        that("nothing waits; the proceeds of both sales", lambda f: f[0][0] is None and _close(f[0][1:]) > 0),
    )


def _lapsed(flow: Flow) -> None:
    """On the next bar the signal is gone: the rest is given up."""
    symbol = about(flow, "LAPUSDT")
    planned(flow, "PM completion", symbol, ("entry", 5), ("trim", 3))
    flow.check(
        "PM completion",
        "SELECT $text(a.content, reason) FROM ad_strands a WHERE a.kind = 'position_status'"
        f" AND {of('a')} ORDER BY a.seq",
        exactly("created", "completion_lapsed"),
        symbol=symbol,
    )
    standing(flow, "PM memory", symbol, "$text(content, pending)", exactly(None))
    booked(flow, symbol)


# ---------------------------------------------------------------- orders that come to nothing


def _untouched(flow: Flow, symbol: str, kind: str, reason: str) -> None:
    """An entry that came to nothing has changed nothing."""
    walked(flow, symbol, "S1")
    planned(flow, "PM plan", symbol, ("entry", 5))
    flow.check(
        "executor",
        "SELECT f.kind, $text(f.content, reason) FROM ad_strands f WHERE f.kind LIKE 'order%'"
        f" AND {of('f')} ORDER BY f.seq",
        exactly((kind, reason)),
        symbol=symbol,
    )
    standing(
        flow,
        "ledger",
        symbol,
        "status, trade_id, $num(content, ledger.quantity), $num(content, ledger.cost)",
        exactly(("watchlist", "", 0.0, 0.0)),
    )
    standing(flow, "PM memory", symbol, "$flag(content, s1_used), $text(content, planned)", exactly((False, None)))


def _tried_again(flow: Flow, symbol: str, first: str) -> None:
    planned(flow, "PM plan", symbol, ("entry", 5), ("entry", 5))
    executed(flow, symbol, first, "order_filled")
    booked(flow, symbol)
    standing(flow, "PM memory", symbol, "status, $flag(content, s1_used)", exactly(("active", True)))


def _refused(flow: Flow) -> None:
    _untouched(flow, about(flow, "REFUSDT"), "order_rejected", "slippage 10 bps above the limit of 8")


def _retried(flow: Flow) -> None:
    _tried_again(flow, about(flow, "REFUSDT"), "order_rejected")


def _entered_late(flow: Flow) -> None:
    """The window of both bars counts as entered, by the order that was filled."""
    flow.check(
        "windows",
        "SELECT $flag(a.content, entered), $len(a.content, blocked_by), $text(a.content, entry_strand_id) ="
        " f.causation_id FROM ad_strands a JOIN ad_strands f ON f.position_id = a.position_id"
        " AND f.kind = 'order_filled' AND $text(f.content, side) = 'buy'"
        f" WHERE a.kind = 'uptrend_buy_window' AND {of('a')}",
        exactly((True, 0, True)),
        symbol=about(flow, "REFUSDT"),
    )


def _expired(flow: Flow) -> None:
    _untouched(flow, about(flow, "EXPUSDT"), "order_expired", "no bar opened before the order expired")


def _bought(flow: Flow) -> None:
    _tried_again(flow, about(flow, "EXPUSDT"), "order_expired")


def _unsold(flow: Flow, symbol: str) -> None:
    standing(
        flow,
        "closure",
        symbol,
        "status, trade_id, $num(content, ledger.quantity), trades_closed",
        that(
            "closing, the trade open, tokens held",
            lambda f: f[0][0] == "closing" and f[0][1] and f[0][2] > 0 == f[0][3],
        ),
    )


def _stuck(flow: Flow) -> None:
    """S0 on a thin day: the exit is refused, and ordered again on every bar."""
    symbol = about(flow, "EXFUSDT")
    walked(flow, symbol, "S1", "S0")
    planned(flow, "PM exit", symbol, ("entry", 5), *[("exit", 1)] * 3)
    executed(flow, symbol, "order_filled", *["order_rejected"] * 3)
    booked(flow, symbol)
    _unsold(flow, symbol)


def _sold(flow: Flow) -> None:
    symbol = about(flow, "EXFUSDT")
    planned(flow, "PM exit", symbol, ("entry", 5), *[("exit", 1)] * 4)
    executed(flow, symbol, "order_filled", *["order_rejected"] * 3, "order_filled")
    closed(flow, symbol, ("s1_to_s0_bearish_order", 2))
    flat(flow, symbol, 1)


def _left(flow: Flow) -> None:
    """S0 on a bar of which only a part may be sold."""
    symbol = about(flow, "LEFUSDT")
    walked(flow, symbol, "S1", "S0")
    planned(flow, "PM exit", symbol, ("entry", 5), ("exit", 1))
    executed(flow, symbol, "order_filled", "order_filled")
    booked(flow, symbol)
    _unsold(flow, symbol)


def _gone(flow: Flow) -> None:
    symbol = about(flow, "LEFUSDT")
    planned(flow, "PM exit", symbol, ("entry", 5), ("exit", 1), ("exit", 1))
    executed(flow, symbol, *["order_filled"] * 3)
    closed(flow, symbol, ("s1_to_s0_bearish_order", 3))
    flow.check(
        "closure",
        "SELECT $text(b.value, decision_type), $num(b.value, quantity) FROM ad_strands a, $each(a.content, actions, b)"
        f" WHERE a.kind = 'position_closed' AND {of('a')}",
        that(
            "one entry and two exits; what was bought was sold",
            lambda f: (
                sorted(kind for kind, _ in f) == ["entry", "exit", "exit"]
                and abs(sum(q if kind == "entry" else -q for kind, q in f)) < 1e-8
            ),
        ),
        symbol=symbol,
    )
    flat(flow, symbol, 1)
