"""F4: the portfolio manager at its edges: retests, cooldowns, caps, two attempts in a row, orders that come to nothing
(trading.md 3.4, 3.6, 4.2-4.5)."""

from __future__ import annotations

from edgebook.flow.check import Flow, every, exactly, none, scenario, that
from edgebook.flow.scenarios import pm_orders
from edgebook.flow.scenarios.pm_orders import SLIPPAGE_BPS, tell_orders
from edgebook.flow.scenarios.positions import (
    Moments,
    about,
    booked,
    closed,
    executed,
    flat,
    follow,
    fraction,
    of,
    planned,
    skipped,
    standing,
    tale_of,
    walked,
)
from edgebook.flow.story import Story, Tale

PER_TOKEN = 0.02
LEVEL_110, LEVEL_130 = 110.0, 130.0
#: Hours until the first bars of those that come after the caps.
LATER = 12.0


def _story() -> tuple[Story, Moments]:
    """One token per edge; the caps come first, while nothing else is held."""
    story, seen = Story(4.0), Moments()
    caps = tale_of(story, "CAPUSDT")
    seen.append((caps.state("S1").chance().last, _entered))
    seen.append((caps.calm().state("S2").state("S3").dip().first_dip().last, _capped))
    caps.state("S0")
    _tell_retest(tale_of(story, "RETUSDT", LATER), seen)
    _tell_trims(story, seen)
    _tell_reclaim(tale_of(story, "RECUSDT", LATER), seen)
    tell_orders(story, seen, LATER)
    tale_of(story, "NONUSDT", LATER).state("S1").calm().state("S0").calm()
    two = tale_of(story, "TWOUSDT", LATER)
    two.state("S1").chance().bar("", 104).bar("", 108).state("S0", 109)
    seen.append((two.last, _first))
    two.calm(2).state("S1").chance().calm().state("S0", 105)
    seen.append((two.last, _second))
    return story, seen


def _tell_retest(tale: Tale, seen: Moments) -> None:
    seen.append((tale.state("S1").state("S2", 104).retest().last, _retest))
    seen.append((tale.retest().last, _again))
    seen.append((tale.calm().trim(106).last, _trimmed))
    seen.append((tale.calm().retest(price=104).last, _pooled))
    seen.append((tale.retest().last, _spent))
    tale.state("S0", 104)


def _tell_trims(story: Story, seen: Moments) -> None:
    """Trims at bars 0, 4 and 16 may be; those at bars 1 to 3 and 15 come too soon."""
    tale = tale_of(story, "TRMUSDT", LATER)
    tale.state("S1").chance().state("S2", 104).state("S3", 106).trim(110, level=LEVEL_110)
    seen.append((tale.trim(level=LEVEL_130).trim(level=LEVEL_130).trim(level=LEVEL_110).last, _too_soon))
    seen.append((tale.trim(level=LEVEL_130).last, _another_level))
    seen.append((tale.calm(10).trim(level=LEVEL_130).last, _same_level))
    seen.append((tale.trim(level=LEVEL_130).last, _cooled))
    tale.state("S0", 108)


def _tell_reclaim(tale: Tale, seen: Moments) -> None:
    """A fall below EMA333 and back above it; then a second pulse, on which nothing may be bought."""
    seen.append((tale.state("S1").chance().state("S2", 104).state("S3", 106).emergency(100).last, _fled))
    seen.append((tale.reclaim(103).last, _back))
    seen.append((tale.calm().reclaim(103, reclaimed_ema333=True).last, _once))
    seen.append((tale.calm().state("S0", 105).last, _over))


SYMBOLS = ("CAPUSDT", "RETUSDT", "TRMUSDT", "RECUSDT", "NONUSDT", "TWOUSDT", *pm_orders.SYMBOLS)


@scenario("F4", "PM edges: retests, reclaims, trims too soon, caps, failed and partial orders, exits that take long")
def pm_edges(flow: Flow) -> None:
    """One token per edge in one market; every moment at which something can be seen is asked about when it comes."""
    story, seen = _story()
    with flow.system(story, per_token=PER_TOKEN, max_slippage_bps=SLIPPAGE_BPS, reclaim=True) as system:
        follow(flow, system, SYMBOLS, seen)
        _nothing(flow)


# ---------------------------------------------------------------- caps and retests


def _entered(flow: Flow) -> None:
    symbol = about(flow, "CAPUSDT")
    walked(flow, symbol, "S1")
    planned(flow, "PM plan", symbol, ("entry", 5))
    flow.check(
        "PM plan",
        "SELECT $num(a.content, size_frac), $num(a.content, a_value), $text(a.content, reasons.size_kind)"
        f" FROM ad_strands a WHERE a.kind = 'pm_action' AND {of('a')}",
        every("the S1 size that A asks for", lambda size, a, kind: _sized(size, kind, a, "s1")),
        symbol=symbol,
    )
    executed(flow, symbol, "order_filled")
    booked(flow, symbol)


def _capped(flow: Flow) -> None:
    """2 % of the book for one token: the add is cut to what is left of it, the first dip finds nothing left."""
    symbol = about(flow, "CAPUSDT")
    walked(flow, symbol, "S1", "S2", "S3")
    planned(flow, "risk caps", symbol, ("entry", 5), ("add", 8))
    flow.check(
        "risk caps",
        "SELECT $num(a.content, rule), $num(a.content, notional_usd), $num(a.content, size_frac), c.value"
        f" FROM ad_strands a, $each(a.content, caps, c) WHERE a.kind = 'pm_action' AND {of('a')} ORDER BY a.seq",
        that(
            "only the add is cut, and only by per_token",
            lambda found: [(int(row[0]), row[3]) for row in found] == [(8, "per_token")],
        ),
        symbol=symbol,
    )
    executed(flow, symbol, "order_filled", "order_filled")
    booked(flow, symbol)
    standing(
        flow,
        "risk caps",
        symbol,
        "$num(content, ledger.cost)",
        that(f"{PER_TOKEN:.0%} of 100,000 USD, to 5 USD", lambda found: abs(found[0][0] - PER_TOKEN * 1e5) < 5),
    )
    skipped(flow, "risk caps", symbol, (9, "caps.per_token"), (9, "caps.min_notional"))
    standing(flow, "PM memory", symbol, "$flag(content, first_dip_used)", exactly(False))
    flow.check(
        "executor", "SELECT key FROM orders WHERE symbol = :symbol AND status <> 'filled'", none(), symbol=symbol
    )


def _retest(flow: Flow) -> None:
    symbol = about(flow, "RETUSDT")
    walked(flow, symbol, "S1", "S2")
    planned(flow, "PM S2", symbol, ("entry", 6))
    flow.check(
        "PM S2",
        "SELECT $num(a.content, size_frac), $num(a.content, a_value), $text(a.content, reasons.size_kind)"
        f" FROM ad_strands a WHERE a.kind = 'pm_action' AND {of('a')}",
        every("an add of the size that A asks for", lambda size, a, kind: _sized(size, kind, a, "add")),
        symbol=symbol,
    )
    executed(flow, symbol, "order_filled")
    booked(flow, symbol)
    standing(flow, "PM memory", symbol, "$flag(content, armed_s2)", exactly(False))


def _sized(size: float, kind: str, appetite: float, wanted: str) -> bool:
    return kind == wanted and abs(size - fraction(wanted, appetite)) < 1e-9


def _again(flow: Flow) -> None:
    """The second retest of the same S2, without a trim between."""
    planned(flow, "PM S2", about(flow, "RETUSDT"), ("entry", 6))


def _trimmed(flow: Flow) -> None:
    symbol = about(flow, "RETUSDT")
    planned(flow, "PM trim", symbol, ("entry", 6), ("trim", 3))
    standing(
        flow,
        "pool",
        symbol,
        "$num(content, pool.basis), $num(content, ledger.extracted), $flag(content, armed_s2)",
        that("the trim's proceeds, and armed again", lambda f: f[0][0] == f[0][1] > 0 and f[0][2]),
    )


def _pooled(flow: Flow) -> None:
    symbol = about(flow, "RETUSDT")
    planned(flow, "PM S2", symbol, ("entry", 6), ("trim", 3), ("add", 6))
    flow.check(
        "PM S2",
        "SELECT $num(a.content, size_frac), $num(a.content, a_value), $text(a.content, reasons.size_kind),"
        " $num(a.content, notional_usd), $num(p.content, ledger.extracted) FROM ad_strands a JOIN positions p"
        " ON p.key = a.position_id WHERE a.kind = 'pm_action' AND $text(a.content, decision_type) = 'add'"
        f" AND {of('a')}",
        every(
            "a share of the pool as A asks for, paid from what the trim brought",
            lambda size, a, kind, usd, pool: _sized(size, kind, a, "pool") and abs(usd - size * pool) < 1e-5,
        ),
        symbol=symbol,
    )
    executed(flow, symbol, "order_filled", "order_filled", "order_filled")
    booked(flow, symbol)
    standing(flow, "pool", symbol, "$num(content, pool.basis), $flag(content, armed_s2)", exactly((0.0, False)))


def _spent(flow: Flow) -> None:
    """A third retest, with the pool used up."""
    planned(flow, "PM S2", about(flow, "RETUSDT"), ("entry", 6), ("trim", 3), ("add", 6))


# ---------------------------------------------------------------- trims


def _trims(flow: Flow, count: int) -> None:
    walked(flow, about(flow, "TRMUSDT"), "S1", "S2", "S3")
    planned(flow, "PM trim", "TRMUSDT", ("entry", 5), *[("trim", 3)] * count)


def _too_soon(flow: Flow) -> None:
    """Two bars at another level within 3 bars, and the same level after 3."""
    _trims(flow, 1)


def _another_level(flow: Flow) -> None:
    _trims(flow, 2)
    flow.check(
        "PM trim",
        "SELECT $num(a.content, level_price) FROM ad_strands a WHERE a.kind = 'pm_action' AND"
        f" $text(a.content, decision_type) = 'trim' AND {of('a')} ORDER BY a.seq",
        exactly(LEVEL_110, LEVEL_130),
        symbol="TRMUSDT",
    )
    standing(flow, "PM memory", "TRMUSDT", "$num(content, last_trim_level)", exactly(LEVEL_130))


def _same_level(flow: Flow) -> None:
    """The same level after 11 bars."""
    _trims(flow, 2)


def _cooled(flow: Flow) -> None:
    """The same level after 12 bars."""
    _trims(flow, 3)
    executed(flow, "TRMUSDT", *["order_filled"] * 4)
    booked(flow, "TRMUSDT")


# ---------------------------------------------------------------- reclaims

_FLED = (("entry", 5), ("emergency_exit", 2))
_EMERGENCY = "status, $num(content, ledger.quantity), $num(content, emergency.exit_value)"


def _fled(flow: Flow) -> None:
    """Sold whole, and the trade is still open."""
    symbol = about(flow, "RECUSDT")
    walked(flow, symbol, "S1", "S2", "S3")
    planned(flow, "exit", symbol, *_FLED)
    executed(flow, symbol, *["order_filled"] * 2)
    standing(
        flow,
        "exit",
        symbol,
        f"{_EMERGENCY}, $flag(content, emergency.rebuy_used)",
        that(
            "active, no tokens, the proceeds kept, not bought back",
            lambda f: f[0][:2] == ("active", 0.0) and f[0][2] > 0 and not f[0][3],
        ),
    )


def _back(flow: Flow) -> None:
    """Bought back on the bar of the reclaim, under the same trade."""
    symbol = about(flow, "RECUSDT")
    planned(flow, "reclaim", symbol, *_FLED, ("add", 4))
    flow.check(
        "reclaim",
        "SELECT $num(a.content, notional_usd), $num(a.content, a_value), $text(a.content, reasons.size_kind),"
        " $num(f.content, quantity) * $num(f.content, price) - $num(f.content, fee_usd), a.trade_id = f.trade_id"
        " FROM ad_strands a JOIN ad_strands f ON f.position_id = a.position_id AND f.kind = 'order_filled'"
        " AND $text(f.content, decision_type) = 'emergency_exit'"
        f" WHERE a.kind = 'pm_action' AND $num(a.content, rule) = 4 AND {of('a')}",
        that(
            "of the exit's net proceeds, the share that A asks for, under the trade that was left",
            lambda f: (
                len(f) == 1
                and f[0][2] == "reclaim"
                and abs(f[0][0] - f[0][3] * fraction("reclaim", f[0][1])) < 1e-4
                and f[0][4]
            ),
        ),
        symbol=symbol,
    )
    executed(flow, symbol, *["order_filled"] * 3)
    booked(flow, symbol)
    standing(flow, "PM memory", symbol, "$flag(content, emergency.rebuy_used)", exactly(True))


def _once(flow: Flow) -> None:
    """The engine says so again: nothing is bought a second time."""
    planned(flow, "reclaim", about(flow, "RECUSDT"), *_FLED, ("add", 4))


def _over(flow: Flow) -> None:
    symbol = about(flow, "RECUSDT")
    planned(flow, "PM exit", symbol, *_FLED, ("add", 4), ("exit", 1))
    flat(flow, symbol, 1)


# ---------------------------------------------------------------- attempts


def _first(flow: Flow) -> None:
    """The price never fell below the entry: the risk of the trade is its floor, and rr a number."""
    symbol = about(flow, "TWOUSDT")
    walked(flow, symbol, "S1", "S0")
    planned(flow, "PM plan", symbol, ("entry", 5), ("exit", 1))
    executed(flow, symbol, "order_filled", "order_filled")
    closed(flow, symbol, ("s1_to_s0_bearish_order", 2))
    flow.check(
        "closure",
        "SELECT $num(a.content, summary.max_drawdown), $num(a.content, summary.roi), $num(a.content, summary.r_floor),"
        f" $num(a.content, summary.rr) FROM ad_strands a WHERE a.kind = 'position_closed' AND {of('a')}",
        that(
            "drawdown 0, rr = roi / floor of 1 %",
            lambda f: f[0][0] == 0.0 and f[0][2] >= 0.01 and abs(f[0][3] - f[0][1] / f[0][2]) < 1e-9 and f[0][3] < 10,
        ),
        symbol=symbol,
    )
    standing(flow, "PM memory", symbol, "status, $text(content, attempt_id)", exactly(("watchlist", "")))


def _second(flow: Flow) -> None:
    """The next attempt has an S1 entry of its own."""
    symbol = about(flow, "TWOUSDT")
    walked(flow, symbol, "S1", "S0", "S1", "S0")
    planned(flow, "PM plan", symbol, ("entry", 5), ("exit", 1), ("entry", 5), ("exit", 1))
    executed(flow, symbol, *["order_filled"] * 4)
    closed(flow, symbol, *[("s1_to_s0_bearish_order", 2)] * 2)
    flow.check(
        "PM memory",
        "SELECT count(DISTINCT $text(a.content, attempt_id)) FROM ad_strands a WHERE a.kind ="
        f" 'uptrend_stage_transition' AND $text(a.content, to_state) = 'S1' AND {of('a')}",
        exactly(2),
        symbol=symbol,
    )


def _nothing(flow: Flow) -> None:
    """S0 without a trade: the attempt is noted, nothing is ordered and nothing closed."""
    symbol = about(flow, "NONUSDT")
    walked(flow, symbol, "S1", "S0")
    planned(flow, "PM plan", symbol)
    skipped(flow, "PM plan", symbol)
    closed(flow, symbol)
    flat(flow, symbol, 0)
    flow.check("dead letters", "SELECT key FROM dead_letters", none().meaning("nothing was refused"))
    flow.check("scheduler", "SELECT name FROM job_runs WHERE status = 'failed'", none().meaning("no job failed"))
