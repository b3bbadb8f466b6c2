"""F8: what trims bring, and what it may buy back: the pool, the DX ladder, the size of the next trim (trading.md 3.3,
3.4; decisions 57)."""

from __future__ import annotations

from typing import Any

from edgebook.flow.check import Flow, exactly, scenario, that
from edgebook.flow.scenarios.positions import (
    Moments,
    about,
    booked,
    executed,
    follow,
    fraction,
    of,
    planned,
    standing,
    tale_of,
    walked,
)
from edgebook.flow.story import Story

SYMBOLS = ("SUMUSDT", "LADUSDT", "NEWUSDT", "EXTUSDT")
#: A rung lies so many ATR below the fill of the one before; the ATR of a scripted bar is 1 % of its close.
STEP_ATR = 0.5
#: A trim takes this much of its size while the payback of the trade is below so much, and a tenth beyond.
MULTIPLIERS = ((0.5, 1.5), (1.0, 1.0), (3.0, 0.3), (float("inf"), 0.1))
#: Every fill: side, rule, quantity, price, fee, size without learning, E, ATR of the decision bar.
_FILLS = (
    "SELECT $text(f.content, side), $num(f.content, rule), $num(f.content, quantity), $num(f.content, price),"
    " $num(f.content, fee_usd), $num(a.content, base_size_frac), $num(a.content, e_value), $num(a.content, atr)"
    " FROM ad_strands f JOIN ad_strands a ON a.id = f.causation_id"
    f" WHERE f.kind = 'order_filled' AND {of('f')} ORDER BY f.seq"
)


def _story() -> tuple[Story, Moments]:
    story, seen = Story(3.0), Moments()
    tale = tale_of(story, "SUMUSDT")
    seen.append((tale.state("S1").chance().state("S2", 104).trim(108).last, _one_trim))
    seen.append((tale.calm(3).trim(112).last, _two_trims))
    seen.append((tale.calm().retest(price=104).last, _spent))
    tale = tale_of(story, "LADUSDT")
    tale.state("S1").chance().state("S2", 104).state("S3", 106).trim(110).calm()
    seen.append((tale.dip(price=100).last, _first_rung))
    seen.append((tale.dip(price=99.7).last, _too_near))
    seen.append((tale.dip(price=99.3).last, _second_rung))
    seen.append((tale.dip(price=98.7).last, _third_rung))
    seen.append((tale.dip(price=98).dip(price=97).last, _after_the_ladder))
    tale = tale_of(story, "NEWUSDT")
    tale.state("S1").chance().state("S2", 104).state("S3", 106).trim(110).calm()
    seen.append((tale.dip(price=105).last, _recovering))
    seen.append((tale.calm(3).trim(112).last, _fresh_pool))
    tale = tale_of(story, "EXTUSDT", 14)
    tale.state("S1").chance().state("S2", 104).state("S3", 106)
    for price in (130, 200, 300, 1_000, 5_000, 6_000, 7_000, 8_000):
        tale.calm(3).trim(price)
    seen.append((tale.last, _payback))
    return story, seen


@scenario("F8", "trim pool: proceeds add up, are bought back once or on three rungs, and trims shrink with payback")
def pool(flow: Flow) -> None:
    """One token per law of the pool."""
    story, seen = _story()
    with flow.system(story) as system:
        follow(flow, system, SYMBOLS, seen)


def _brought(fill: tuple[Any, ...]) -> float:
    """Net proceeds of a sale, USD."""
    return float(fill[2] * fill[3] - fill[4])


def _basis(flow: Flow, symbol: str, *trims: int) -> None:
    """The pool holds the net proceeds of these trims, counted from 0, and nothing of it was taken away."""
    fills = flow.ask(_FILLS, symbol=symbol)
    sold = [_brought(fill) for fill in fills if fill[1] == 3]
    total = sum(sold[i] for i in trims)
    standing(
        flow,
        "pool",
        symbol,
        "$num(content, pool.basis)",
        that(
            f"{total:.2f} USD, the net proceeds of {len(trims)} trim{'s' * (len(trims) > 1)}",
            lambda found: abs(found[0][0] - total) < 1e-4 and total > 0,
        ),
    )


# ---------------------------------------------------------------- proceeds


def _one_trim(flow: Flow) -> None:
    symbol = about(flow, "SUMUSDT")
    walked(flow, symbol, "S1", "S2")
    planned(flow, "PM trim", symbol, ("entry", 5), ("trim", 3))
    executed(flow, symbol, "order_filled", "order_filled")
    booked(flow, symbol)
    _basis(flow, symbol, 0)


def _two_trims(flow: Flow) -> None:
    symbol = about(flow, "SUMUSDT")
    planned(flow, "PM trim", symbol, ("entry", 5), ("trim", 3), ("trim", 3))
    executed(flow, symbol, *["order_filled"] * 3)
    booked(flow, symbol)
    _basis(flow, symbol, 0, 1)


def _spent(flow: Flow) -> None:
    """A retest in S2 is paid from the pool, and leaves none."""
    symbol = about(flow, "SUMUSDT")
    planned(flow, "PM S2", symbol, ("entry", 5), ("trim", 3), ("trim", 3), ("add", 6))
    flow.check(
        "PM S2",
        "SELECT $num(a.content, notional_usd), $num(a.content, a_value), $num(p.content, ledger.extracted)"
        " FROM ad_strands a JOIN positions p ON p.key = a.position_id WHERE a.kind = 'pm_action'"
        f" AND $num(a.content, rule) = 6 AND {of('a')}",
        that(
            "of both proceeds, the share that A asks for",
            lambda found: abs(found[0][0] - found[0][2] * fraction("pool", found[0][1])) < 1e-4,
        ),
        symbol=symbol,
    )
    executed(flow, symbol, *["order_filled"] * 4)
    booked(flow, symbol)
    standing(flow, "pool", symbol, "$num(content, pool.basis)", exactly(0.0))


# ---------------------------------------------------------------- the ladder


def _rungs(flow: Flow, symbol: str, rungs: int) -> None:
    planned(flow, "PM DX", symbol, ("entry", 5), ("trim", 3), *[("add", 7)] * rungs)
    flow.check(
        "PM DX",
        "SELECT $num(a.content, notional_usd), $num(a.content, a_value), $num(t.content, quantity) *"
        " $num(t.content, price) - $num(t.content, fee_usd) FROM ad_strands a JOIN ad_strands t"
        " ON t.position_id = a.position_id AND t.kind = 'order_filled' AND $text(t.content, decision_type) = 'trim'"
        f" WHERE a.kind = 'pm_action' AND $num(a.content, rule) = 7 AND {of('a')} ORDER BY a.seq",
        that(
            f"{rungs} of the share of the trim's proceeds that A asks for",
            lambda f: len(f) == rungs and all(abs(usd - of_it * fraction("dx", a)) < 1e-4 for usd, a, of_it in f),
        ),
        symbol=symbol,
    )
    executed(flow, symbol, *["order_filled"] * (2 + rungs))
    booked(flow, symbol)


def _armed(flow: Flow, symbol: str, rungs: int) -> None:
    """The pool is being spent, and the next rung lies half an ATR below the last fill."""
    fills = flow.ask(_FILLS, symbol=symbol)
    price, atr = fills[-1][3], fills[-1][7]
    standing(
        flow,
        "pool",
        symbol,
        "$flag(content, pool.recovery), $num(content, pool.dx_count), $num(content, pool.next_arm)",
        exactly((True, rungs, price - STEP_ATR * atr)),
    )
    _basis(flow, symbol, 0)


def _first_rung(flow: Flow) -> None:
    symbol = about(flow, "LADUSDT")
    walked(flow, symbol, "S1", "S2", "S3")
    _rungs(flow, symbol, 1)
    _armed(flow, symbol, 1)


def _too_near(flow: Flow) -> None:
    """0.3 below the first fill: half an ATR is 0.5."""
    _rungs(flow, about(flow, "LADUSDT"), 1)


def _second_rung(flow: Flow) -> None:
    symbol = about(flow, "LADUSDT")
    _rungs(flow, symbol, 2)
    _armed(flow, symbol, 2)


def _third_rung(flow: Flow) -> None:
    """The last rung uses the pool up."""
    symbol = about(flow, "LADUSDT")
    _rungs(flow, symbol, 3)
    standing(
        flow,
        "pool",
        symbol,
        "$num(content, pool.basis), $flag(content, pool.recovery), $num(content, pool.dx_count),"
        " $num(content, pool.next_arm)",
        exactly((0.0, False, 0, None)),
    )


def _after_the_ladder(flow: Flow) -> None:
    """No fourth rung: the next dip is an add without a pool, which the trim has armed once."""
    symbol = about(flow, "LADUSDT")
    planned(flow, "PM DX", symbol, ("entry", 5), ("trim", 3), *[("add", 7)] * 3, ("add", 8))
    standing(flow, "PM memory", symbol, "$flag(content, armed_s3)", exactly(False))


def _recovering(flow: Flow) -> None:
    symbol = about(flow, "NEWUSDT")
    walked(flow, symbol, "S1", "S2", "S3")
    _rungs(flow, symbol, 1)
    _armed(flow, symbol, 1)


def _fresh_pool(flow: Flow) -> None:
    """A trim after the first rung begins a pool of its own."""
    symbol = about(flow, "NEWUSDT")
    planned(flow, "PM trim", symbol, ("entry", 5), ("trim", 3), ("add", 7), ("trim", 3))
    executed(flow, symbol, *["order_filled"] * 4)
    booked(flow, symbol)
    _basis(flow, symbol, 1)
    standing(
        flow,
        "pool",
        symbol,
        "$flag(content, pool.recovery), $num(content, pool.dx_count), $num(content, pool.next_arm)",
        exactly((False, 0, None)),
    )


# ---------------------------------------------------------------- payback


def _payback(flow: Flow) -> None:
    """Trims of a trade that pays for itself again and again."""
    symbol = about(flow, "EXTUSDT")
    walked(flow, symbol, "S1", "S2", "S3")
    planned(flow, "PM trim", symbol, ("entry", 5), *[("trim", 3)] * 8)
    executed(flow, symbol, *["order_filled"] * 9)
    booked(flow, symbol)
    flow.check(
        "PM trim",
        _FILLS,
        that(
            "each trim is what E asks for times 1.5 below a payback of .5, 1 below 1, .3 below 3, .1 from there on;"
            " all four were seen",
            lambda found: _multipliers(found) == {1.5, 1.0, 0.3, 0.1},
        ),
        symbol=symbol,
    )
    standing(
        flow,
        "ledger",
        symbol,
        "$num(content, ledger.extracted) / $num(content, ledger.invested)",
        that("3 times over", lambda found: found[0][0] > 3),
    )


def _multipliers(found: list[tuple[Any, ...]]) -> set[float]:
    """Multipliers of the trims whose size is right by the fills before them; none where one is not."""
    invested = extracted = 0.0
    seen = set()
    for fill in found:
        worth = fill[2] * fill[3]
        if fill[0] == "buy":
            invested += worth + fill[4]
            continue
        multiplier = next(factor for below, factor in MULTIPLIERS if extracted / invested < below)
        if abs(fill[5] - min(0.9, fraction("trim", fill[6]) * multiplier)) > 1e-9:
            return set()
        seen.add(multiplier)
        extracted += worth - fill[4]
    return seen
