"""Optional rules that end a trade early or bar the next entry (trading.md 3.4, 4.4); each is off by default.

| rule | does |
|---|---|
| disaster_stop_atr | a close too far below the average cost of what is held is a full exit that closes the trade |
| max_bars_in_attempt | a trade that has lasted so many bars is left by a full exit, or closed where it is flat |
| emergency_timeout_bars | so many bars after an emergency exit the flat trade is closed; the attempt goes on |
| episode_block | an attempt that was entered and lost bars entries in S1 and S2 until an S3 is seen |

The strand of an entry names those that are on, and the fold keeps them as the position's `Terms`. So an open trade
keeps the rules it was opened under (decisions 11), a rebuild finds the same memory whatever the settings say, and a
position knows by itself whether it must look at every bar.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgebook.domain.book import ZERO, Position, Tally, Terms
from edgebook.domain.reading import MarketReading
from edgebook.domain.strands import PositionClosed
from edgebook.domain.timeframe import micros
from edgebook.domain.values import replace
from edgebook.trading.rules import PmRules

#: Exit reasons of a trade that is left although its attempt goes on.
CUTS = ("disaster_stop", "time_stop")


def terms_said(rules: PmRules) -> dict[str, float | int | bool]:
    """What the strand of an entry says of these rules: those that are on, by the name of their setting.

    >>> terms_said(PmRules()), terms_said(PmRules(max_bars_in_attempt=40))
    ({}, {'max_bars_in_attempt': 40})
    """
    every: dict[str, float | int | bool] = {
        "disaster_stop_atr": rules.disaster_stop_atr,
        "max_bars_in_attempt": rules.max_bars_in_attempt,
        "emergency_timeout_bars": rules.emergency_timeout_bars,
        "episode_block": rules.episode_block,
    }
    return {name: value for name, value in every.items() if value}


def terms_of(reasons: Mapping[str, str | int | float | bool | None], attempt_id: str) -> Terms | None:
    """The terms an entry's strand names, ordered in ``attempt_id``; None where all rules are off and the start of the
    attempt was seen (it is "" where it was not, which `trade_mid_attempt` allows).

    >>> terms_of({"ts_score": 0.7}, "a") is None
    True
    >>> terms_of({"max_bars_in_attempt": 40, "episode_block": True}, "a")
    Terms(stop_atr=0.0, most_bars=40, timeout_bars=0, blocks=True, attempt_id='a')
    """
    terms = Terms(
        stop_atr=float(reasons.get("disaster_stop_atr") or 0.0),
        most_bars=int(reasons.get("max_bars_in_attempt") or 0),
        timeout_bars=int(reasons.get("emergency_timeout_bars") or 0),
        blocks=bool(reasons.get("episode_block")),
        attempt_id=attempt_id,
    )
    return terms if terms.blocks or terms.ends_early or not attempt_id else None


# ---------------------------------------------------------------- the end of a trade


def stop_price(position: Position) -> float:
    """Close below which the disaster stop sells: average cost of what is held, fees included, less ``stop_atr`` times
    the ATR at entry. Minus infinity where the rule is off or nothing is held.

    >>> from decimal import Decimal
    >>> from edgebook.domain.book import Ledger
    >>> held = Ledger(quantity=Decimal(10), cost=Decimal(1000))
    >>> at = ("position", "TOK", "exchange", "TOK", "1h", "main", "active", 0)
    >>> stop_price(Position(*at, ledger=held, entry_atr=1.5, terms=Terms(stop_atr=2.0)))
    97.0
    """
    terms, ledger = position.terms, position.ledger
    if terms is None or not terms.stop_atr or ledger.quantity <= 0:
        return float("-inf")
    return float(ledger.cost / ledger.quantity) - terms.stop_atr * position.entry_atr


def cut_reason(position: Position, reading: MarketReading) -> str:
    """Why what is held must be sold on this bar although the attempt goes on, "" if it need not: one of `CUTS`."""
    if position.terms is None or not position.holding:
        return ""
    if reading.price < stop_price(position):
        return "disaster_stop"
    return "time_stop" if outlived(position, reading.ts) else ""


def outlived(position: Position, now: int) -> bool:
    """Whether the open trade has lasted ``most_bars`` whole bars of time since its first fill (the position knows its
    attempt by name, not by age; and a trade opened late in an attempt must have its time too). Missing bars count."""
    terms = position.terms
    if terms is None or not terms.most_bars:
        return False
    return _bars(position, position.entry_ts, now) >= terms.most_bars


def attempt_runs(position: Position) -> bool:
    """Whether the attempt of an open trade may still run on a bar outside S0: it has not ended, or its start was not
    seen, so that nothing but S0 tells its end.

    >>> at = ("position", "TOK", "exchange", "TOK", "1h", "main", "active", 0)
    >>> [attempt_runs(Position(*at, **known)) for known in ({"attempt_id": "a"}, {}, {"terms": Terms()})]
    [True, False, True]
    """
    return bool(position.attempt_id) or (position.terms is not None and not position.terms.attempt_id)


def timed_out(position: Position, now: int) -> str:
    """Why a flat position's open trade must be closed at ``now`` although its attempt goes on, "" if it need not:
    ``emergency`` so many bars after the last fill of an emergency exit, ``time_stop`` once the trade has outlived
    itself."""
    terms = position.terms
    if terms is None or not position.actions:
        return ""
    last = position.actions[-1]
    if terms.timeout_bars and last.rule == 2 and _bars(position, last.ts, now) >= terms.timeout_bars:
        return "emergency"
    return "time_stop" if outlived(position, now) else ""


def _bars(position: Position, since: int, now: int) -> int:
    return (now - since) // micros(position.timeframe)


# ---------------------------------------------------------------- the block


def barred(position: Position, state: str) -> bool:
    """Whether a lost attempt bars buys in engine state ``state``: an S1 entry bars S1 and S2, an S2 entry S2 alone.

    >>> at = ("position", "TOK", "exchange", "TOK", "1h", "main", "watchlist", 0)
    >>> lost = Position(*at, blocked="S2")
    >>> [barred(lost, state) for state in ("S1", "S2", "S3")]
    [False, True, False]
    """
    if state == "S1":
        return position.blocked == "S1"
    return state == "S2" and bool(position.blocked)


def trade_counted(position: Position, closed: PositionClosed) -> Position:
    """The position with a closed trade in the tally of its attempt; where that attempt is over, it is judged.

    An attempt whose start was not seen has no name to wait for: it is judged at every close.
    """
    terms = position.terms
    if terms is None or not terms.blocks:
        return position
    tally = position.tally
    if tally is None or tally.attempt_id != terms.attempt_id:
        tally = Tally(terms.attempt_id)
    rules = [action.rule for action in closed.actions]
    tally = Tally(
        tally.attempt_id,
        tally.pnl_usd + closed.summary.pnl_usd,
        tally.s1_entry or 5 in rules,
        tally.s2_entry or rules[:1] == [6],
    )
    counted = replace(position, tally=tally)
    runs = bool(position.attempt_id) and position.attempt_id == tally.attempt_id
    return counted if runs else _judged(counted)


def attempt_ended(position: Position) -> Position:
    """The position at the end of an attempt: judged, unless a trade of that attempt is still to be closed."""
    tally, terms = position.tally, position.terms
    if tally is None or (terms is not None and terms.attempt_id == tally.attempt_id):
        return position
    return _judged(position)


def _judged(position: Position) -> Position:
    tally, blocked = position.tally, position.blocked
    if tally is not None and tally.pnl_usd < ZERO:
        if tally.s1_entry:
            blocked = "S1"
        elif tally.s2_entry:
            blocked = blocked or "S2"
    return replace(position, blocked=blocked, tally=None)
