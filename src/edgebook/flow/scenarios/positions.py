"""Questions about the 1h position of one token that several trading scenarios ask, and the sizes of trading.md 3.3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgebook.flow.check import Expected, Flow, exactly, that
from edgebook.flow.running import Running
from edgebook.flow.story import Story, Tale, signal

Moments = list[tuple[int, Callable[[Flow], None]]]
"""When something can be seen, and what is asked then."""
#: Units traded per bar of a token that is traded a lot.
LIVELY = 1_000_000.0

POSITION = "symbol = :symbol AND timeframe = '1h'"
#: Knots of A and E, and what a patient, a normal and an aggressive book takes (trading.md 3.3).
KNOTS = (0.15, 0.5, 0.85)
SIZES = {
    "s1": (0.10, 0.30, 0.50),
    "add": (0.05, 0.15, 0.25),
    "pool": (0.10, 0.30, 0.60),
    "dx": (0.0333, 0.10, 0.20),
    "reclaim": (0.10, 0.30, 0.60),
    "trim": (0.15, 0.30, 0.60),
}


def tale_of(story: Story, symbol: str, hours: float = 2.0, volume: float = LIVELY) -> Tale:
    """Begin to tell of a new token on 1h."""
    return story.tale(story.token(symbol, volume=volume), "1h", hours)


def about(flow: Flow, symbol: str) -> str:
    """Speak of a token's packet from now on; the token."""
    flow.about(packet_of(symbol))
    return symbol


def packet_of(symbol: str) -> str:
    """The id of the one signal a token gets.

    >>> packet_of("RETUSDT")
    'packet-ret'
    """
    return f"packet-{symbol.removesuffix('USDT').lower()}"


def follow(flow: Flow, system: Running, symbols: Sequence[str], moments: Moments) -> None:
    """Inject one signal per token, then let time pass from moment to moment and ask at each."""
    flow.inject(system, *(signal(packet_of(symbol), symbol) for symbol in symbols))
    for symbol in symbols:
        _arrives(flow, about(flow, symbol))
    for at, ask in sorted(moments, key=lambda moment: moment[0]):
        system.pass_until(at)
        ask(flow)


def _arrives(flow: Flow, symbol: str) -> None:
    flow.check(
        "ingest",
        "SELECT symbol FROM ad_strands WHERE kind = 'social_lowcap' AND $text(content, signal_id) = :packet",
        exactly(symbol),
        packet=flow.packet,
    )
    flow.check(
        "DM",
        "SELECT $text(content, action) FROM ad_strands WHERE kind = 'decision_lowcap' AND symbol = :symbol",
        exactly("approve"),
        symbol=symbol,
    )
    flow.check(
        "DM fan-out",
        "SELECT timeframe, status FROM positions WHERE symbol = :symbol ORDER BY timeframe",
        exactly(("1h", "watchlist"), ("4h", "watchlist")),
        symbol=symbol,
    )


def of(alias: str) -> str:
    """Condition that a strand is of the 1h position of ``:symbol``."""
    return f"{alias}.position_id = (SELECT p1.key FROM positions p1 WHERE p1.symbol = :symbol AND p1.timeframe = '1h')"


def walked(flow: Flow, symbol: str, *states: str) -> None:
    """The states its trend has come to so far, from S0 on, as the tick has noted them."""
    flow.check(
        "transitions",
        "SELECT $text(a.content, from_state), $text(a.content, to_state) FROM ad_strands a"
        f" WHERE a.kind = 'uptrend_stage_transition' AND {of('a')} ORDER BY a.seq",
        _in_words(" -> ".join(("S0", *states)), *zip(("S0", *states), states, strict=False)),
        symbol=symbol,
    )


def planned(flow: Flow, stage: str, symbol: str, *wanted: tuple[str, int]) -> None:
    """Every action planned so far, in order: (type, rule of trading.md 3.4)."""
    flow.check(
        stage,
        "SELECT $text(a.content, decision_type), $num(a.content, rule) FROM ad_strands a"
        f" WHERE a.kind = 'pm_action' AND {of('a')} ORDER BY a.seq",
        _in_words(", ".join(f"{kind} by rule {rule}" for kind, rule in wanted), *wanted),
        symbol=symbol,
    )


def _in_words(words: str, *wanted: tuple[Any, ...]) -> Expected:
    return Expected(words or "no row", exactly(*wanted).holds)


def executed(flow: Flow, symbol: str, *wanted: str, stage: str = "executor") -> None:
    """What became of every order so far, in order."""
    flow.check(
        stage,
        "SELECT f.kind FROM ad_strands f JOIN ad_strands a ON a.id = f.causation_id"
        " WHERE a.kind = 'pm_action' AND f.kind IN ('order_filled', 'order_rejected', 'order_expired')"
        f" AND {of('a')} ORDER BY f.seq",
        exactly(*wanted),
        symbol=symbol,
    )


def booked(flow: Flow, symbol: str) -> None:
    """The ledger holds what the fills add up to."""
    flow.check(
        "ledger",
        "SELECT $num(p.content, ledger.quantity), sum(CASE WHEN $text(f.content, side) = 'buy'"
        " THEN $num(f.content, quantity) ELSE -$num(f.content, quantity) END)"
        " FROM positions p JOIN ad_strands f ON f.position_id = p.key AND f.kind = 'order_filled'"
        " WHERE p.symbol = :symbol AND p.timeframe = '1h' GROUP BY p.key, p.content",
        that(
            "twice the same: what is held, and buys less sales of all fills",
            lambda found: len(found) == 1 and abs(found[0][0] - found[0][1]) < 1e-6,
        ),
        symbol=symbol,
    )


def standing(flow: Flow, stage: str, symbol: str, columns: str, expected: Expected) -> None:
    """Columns of the position's row."""
    flow.check(stage, f"SELECT {columns} FROM positions WHERE {POSITION}", expected, symbol=symbol)


def closed(flow: Flow, symbol: str, *wanted: tuple[str, int]) -> None:
    """Every closed trade in order: (exit reason, actions that were filled)."""
    flow.check(
        "closure",
        f"SELECT exit_reason, actions FROM trades WHERE {POSITION} ORDER BY closed_at",
        _in_words(", ".join(f"{reason} after {actions} actions" for reason, actions in wanted), *wanted),
        symbol=symbol,
    )


def flat(flow: Flow, symbol: str, trades: int) -> None:
    """Nothing is held, no trade is open, so many were closed."""
    standing(
        flow,
        "closure",
        symbol,
        "status, trade_id, $num(content, ledger.quantity), trades_closed",
        exactly(("watchlist", "", 0.0, trades)),
    )


def skipped(flow: Flow, stage: str, symbol: str, *wanted: tuple[int, str]) -> None:
    """Every rule that matched and could not be carried out, in order: (rule, one reason)."""
    flow.check(
        stage,
        "SELECT $num(a.content, rule), r.value FROM ad_strands a, $each(a.content, reasons, r)"
        f" WHERE a.kind = 'pm_skipped' AND {of('a')} ORDER BY a.seq",
        that(
            ", ".join(f"rule {rule}: {reason}" for rule, reason in wanted) or "no row",
            lambda found: sorted((int(rule), why) for rule, why in found) == sorted(wanted),
        ),
        symbol=symbol,
    )


def fraction(kind: str, appetite: float) -> float:
    """Share of its basis that an action takes at A or E: linear between the knots, flat outside.

    >>> fraction("s1", 0.325), fraction("trim", 1.0)
    (0.2, 0.6)
    """
    values: Sequence[float] = SIZES[kind]
    low, middle, high = KNOTS
    if appetite <= middle:
        share = max(0.0, (appetite - low) / (middle - low))
        return values[0] + (values[1] - values[0]) * share
    return values[1] + (values[2] - values[1]) * min(1.0, (appetite - middle) / (high - middle))
