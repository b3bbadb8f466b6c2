"""F11: with ``exposure_skew`` on, a buy shrinks where the book holds much of its kind already (trading.md 3.6).

What every buy must have been is worked out here from the fills before it, and compared with what its action says.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from edgebook.domain.decay import HOUR
from edgebook.flow.check import Expected, Flow, every, exactly, scenario, that
from edgebook.flow.scenarios.few_days import SETTINGS, live, market_of
from edgebook.flow.story import Story, signal

CASH, PRICE = 100_000.0, 100.0
#: Tokens bought on 1h one hour after the other: each is like those before it in chain, timeframe, book and state.
PEERS = tuple(f"P{number:02d}USDT" for number in range(13))
#: Bought last: like the others but for state and pattern, only in its chain (on 4h), and in nothing (another chain).
RETEST, COARSE, ELSEWHERE = "RETESTUSDT", "COARSEUSDT", "AWAYUSDT"
LAST = (RETEST, COARSE, ELSEWHERE)
_WHOLE = exactly(1.0).meaning("nothing alike is held")
#: Dimensions of each mask, the whole of which are four.
MASKS = (("chain", "timeframe", "book", "state"), ("chain", "timeframe", "book"), ("chain", "timeframe"), ("chain",))
#: Days of a market that teaches sizes.
DAYS = 6
FLOOR, CEILING, NEUTRAL = 0.33, 1.0, 1.33
REGISTRY = """
[[curators]]
id = "ann"
status = "active"
base_weight = 0.85
"""


@dataclass(frozen=True, slots=True)
class Bought:
    """One entry as the log has it."""

    symbol: str
    dims: dict[str, str]
    pattern: str
    skew: float
    combined: float
    fraction: float
    appetite: float
    quantity: float
    price: float
    fee: float


def _story() -> tuple[Story, int]:
    """Thirteen peers, then one in S2, one on 4h and one on another chain; nothing is sold. And when all are bought."""
    story = Story(3.0)
    for driver in ("btc", "alt"):
        story.driver(driver, "1h", story.start + HOUR, "S1")
    for number, symbol in enumerate(PEERS):
        story.tale(story.token(symbol, price=PRICE), "1h", 3 + number).state("S1").chance()
    story.tale(story.token(RETEST, price=PRICE), "1h", 15).state("S1").state("S2").retest()
    coarse = story.tale(story.token(COARSE, price=PRICE), "4h", 19).state("S1").chance()
    away = story.token(ELSEWHERE, price=PRICE, chain="solana", contract="So11away")
    last = story.tale(away, "1h", 25).state("S1").chance()
    return story, max(coarse.last, last.last)


def _packets() -> list[str]:
    told = [signal(f"skew-{symbol}", symbol) for symbol in (*PEERS, RETEST, COARSE)]
    return [*told, signal(f"skew-{ELSEWHERE}", ELSEWHERE, token={"symbol": ELSEWHERE, "chain": "solana"})]


@scenario("F11", "exposure skew: the first of a kind is bought whole, its peers less, within .33 and 1")
def exposure(flow: Flow) -> None:
    """The same buys with the likeness of a close mask counting somewhat more, the same, and much more."""
    story, last = _story()
    registry = flow.folder / "curators.toml"
    registry.write_text(REGISTRY, encoding="utf-8")
    other: dict[float, float] = {}
    for alpha in (0.0, 0.5, 5.0):
        with flow.system(
            story, exposure_skew=True, exposure_skew_alpha=alpha, curators=registry, timeframes="1h,4h"
        ) as system:
            flow.inject(system, *_packets())
            system.pass_until(last)
            found = _entries(flow)
            _skews(flow, found, alpha)
            _sizes(flow, found)
            other[alpha] = next(one.skew for one in found if one.symbol == RETEST)
            flow.about(f"skew-{RETEST}")
            flow.check(
                "exposure skew",
                "SELECT $num(content, reasons.exposure_skew) FROM ad_strands WHERE kind = 'pm_action'"
                " AND symbol = :symbol",
                _rising(other),
                symbol=RETEST,
            )
    _learnt_too(flow)


def _learnt_too(flow: Flow) -> None:
    """Beside a learned size multiplier: both are written down with their product, which stays within 0 and 1."""
    market = market_of(DAYS)
    with flow.system(market.market.story, exposure_skew=True, **SETTINGS) as system:
        live(flow, system, market, DAYS)
        flow.check(
            "runtime (strength)",
            "SELECT $num(n.value, base), $num(n.value, applied), $num(s.content, reasons.exposure_skew),"
            " $num(s.content, reasons.combined_mult), $num(s.content, base_size_frac), $num(s.content, size_frac),"
            " $num(s.content, a_base), $num(s.content, a_value) FROM ad_strands s, $each(s.content, nudges, n)"
            " WHERE s.kind = 'pm_action' AND $text(n.value, lever) = 'size_mult' AND $num(n.value, applied) <> 1.0"
            " ORDER BY s.seq",
            that(
                "sizes moved up and down, some of them cut for likeness, each by the product of both",
                lambda f: (
                    min(row[1] for row in f) < 1 < max(row[1] for row in f)
                    and min(row[2] for row in f) < 0.9
                    and all(_both(*row) for row in f)
                ),
            ),
        )


def _both(base: float, mult: float, skew: float, both: float, plain: float, size: float, a: float, used: float) -> bool:
    """Whether an action says that its size is the plain one times what was learnt; the skew is in both sizes."""
    product = base == 1.0 and FLOOR <= skew <= CEILING and abs(both - mult * skew) < 1e-12
    return product and 0 <= size <= 1 and (a != used or abs(size - min(1.0, plain * mult)) < 1e-12)


def _rising(other: dict[float, float]) -> Expected:
    """What differs in state and pattern is cut less, the more a close likeness counts."""
    words = "less cut at a larger alpha: " + ", ".join(f"{skew:.4f} at {alpha:g}" for alpha, skew in other.items())
    skews = list(other.values())
    return that(words, lambda f: f == [(skews[-1],)] and all(a < b for a, b in itertools.pairwise(skews)))


def _entries(flow: Flow) -> list[Bought]:
    """All entries with their fills, in order."""
    flow.about(f"skew-{ELSEWHERE}")
    wanted = len(PEERS) + len(LAST)
    flow.check(
        "DM",
        "SELECT count(*) FROM ad_strands WHERE kind = 'decision_lowcap' AND $text(content, action) = 'approve'",
        exactly(wanted).meaning("every packet was approved"),
    )
    rows = flow.check(
        "executor",
        "SELECT a.symbol, p.chain, a.timeframe, p.book, $text(a.content, pattern_key),"
        " $num(a.content, reasons.exposure_skew), $num(a.content, reasons.combined_mult), $num(a.content, size_frac),"
        " $num(a.content, a_value), $num(f.content, quantity), $num(f.content, price), $num(f.content, fee_usd)"
        " FROM ad_strands a JOIN ad_strands f ON f.causation_id = a.id AND f.kind = 'order_filled'"
        " JOIN positions p ON p.key = a.position_id WHERE a.kind = 'pm_action' ORDER BY a.seq",
        that(
            f"{wanted} entries, each filled and each with a skew", lambda f: len(f) == wanted and all(r[5] for r in f)
        ),
    )
    found = []
    for symbol, chain, timeframe, book, pattern, *numbers in rows:
        dims = {"chain": chain, "timeframe": timeframe, "book": book, "state": pattern.split(".")[-2]}
        found.append(Bought(symbol, dims, pattern, *(float(number) for number in numbers)))
    return found


def _wanted(bought: Bought, held: list[Bought], alpha: float) -> float:
    """The skew that follows from what is held: ``clip(1.33 - sum_m w_m (share_m + share_m,pattern / 2))``."""
    weights = [(len(mask) / len(MASKS[0])) ** alpha for mask in MASKS]
    nav = CASH + sum(one.quantity * (PRICE - one.price) - one.fee for one in held)
    likeness = 0.0
    for mask, weight in zip(MASKS, weights, strict=True):
        like = [one for one in held if all(one.dims[dim] == bought.dims[dim] for dim in mask)]
        same = [one for one in like if one.pattern == bought.pattern]
        shares = [sum(one.quantity * one.price + one.fee for one in lots) / nav for lots in (like, same)]
        likeness += weight / sum(weights) * (shares[0] + 0.5 * shares[1])
    return min(CEILING, max(FLOOR, NEUTRAL - min(1.0, likeness)))


def _skews(flow: Flow, found: list[Bought], alpha: float) -> None:
    """Each skew is the one that follows from the fills before it."""
    told = {one.symbol: one.skew for one in found}
    wanted = {one.symbol: _wanted(one, found[:i], alpha) for i, one in enumerate(found)}
    skews = "SELECT $num(content, reasons.exposure_skew) FROM ad_strands WHERE kind = 'pm_action'"
    flow.about(f"skew-{PEERS[0]}")
    flow.check("exposure skew", f"{skews} AND symbol = :symbol", _WHOLE, symbol=PEERS[0])
    flow.about(f"skew-{PEERS[-1]}")
    flow.check(
        "exposure skew",
        f"{skews} AND symbol LIKE 'P%' ORDER BY seq",
        that(
            "never more than the one before, below 1 in the end",
            lambda f: all(b[0] <= a[0] for a, b in itertools.pairwise(f)) and f[-1][0] < 0.7,
        ),
    )
    flow.about(f"skew-{COARSE}")
    flow.check(
        "exposure skew",
        f"{skews} AND symbol = :symbol",
        every("less cut than its last peer was: only its chain is alike", lambda skew: skew > told[PEERS[-1]]),
        symbol=COARSE,
    )
    flow.about(f"skew-{ELSEWHERE}")
    flow.check("exposure skew", f"{skews} AND symbol = :symbol", _WHOLE, symbol=ELSEWHERE)
    flow.check(
        "exposure skew",
        "SELECT symbol, $num(content, reasons.exposure_skew) FROM ad_strands WHERE kind = 'pm_action' ORDER BY seq",
        every(
            f"in [.33, 1] and what the fills before it make it under alpha {alpha:g}",
            lambda symbol, skew: FLOOR <= skew <= CEILING and abs(skew - wanted[symbol]) < 1e-6,
            len(found),
        ),
    )


def _sizes(flow: Flow, found: list[Bought]) -> None:
    """The skew is in the size, beside what appetite and learning make of it."""
    flow.about(f"skew-{PEERS[-1]}")
    flow.check(
        "PM plan",
        "SELECT $num(content, rule), $num(content, size_frac), $num(content, a_value),"
        " $num(content, reasons.exposure_skew), $num(content, reasons.combined_mult) FROM ad_strands"
        " WHERE kind = 'pm_action' ORDER BY seq",
        every(
            "the fraction of its appetite times its skew, which is all that multiplies it",
            lambda rule, size, a, skew, both: abs(size - _fraction(a, rule) * skew) < 1e-9 and abs(both - skew) < 1e-12,
            len(found),
        ),
    )


def _fraction(appetite: float, rule: float) -> float:
    """Share of what remains that a buy takes at appetites .15, .5, .85, linear between: in S1 10, 30, 50 %, in S2 half
    of that."""
    spread = (min(0.85, max(0.15, appetite)) - 0.15) / 0.70
    return (0.10 + 0.40 * spread) * (1.0 if rule == 5 else 0.5)
