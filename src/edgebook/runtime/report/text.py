"""The trade report in words: its headline figures and what they do and do not say. Page and terminal share them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edgebook.runtime.report.metrics import MIN_DAYS, MIN_DAYS_YEARLY, MIN_WEEKS, UNTOLD

Json = Any
MISSING = "–"
_HUGE = 1e15  # told with a power of ten from here on


class Headline(NamedTuple):
    """One figure: its name, its value, what belongs beside it, and its verdict where it has an interval."""

    name: str
    value: str
    note: str = ""
    verdict: str = ""


def headlines(metrics: Mapping[str, Json]) -> list[Headline]:
    """The figures a reader looks for first."""
    return [*_account(metrics), *_trades(metrics["trades"]), *_exposure(metrics)]


def _account(metrics: Mapping[str, Json]) -> list[Headline]:
    account, days = metrics["account"], metrics["period"]["days"]
    fall = account["drawdown"]
    when = (
        f"{fall['peak_at'][:10]} to {fall['trough_at'][:10]}, {_recovery(fall)}"
        if fall
        else "no moment below an earlier one"
    )
    short = _why_no_ratio(metrics)
    yearly = f"fewer than {MIN_DAYS_YEARLY} days" if days < MIN_DAYS_YEARLY else "per year"
    return [
        Headline(
            "Total return",
            percent(account["total_return"], signed=True),
            f"{number(account['start_usd'], 0)} to {number(account['end_usd'], 0)} USD; {_market(metrics['market'])}",
        ),
        Headline("CAGR", percent(account["cagr"], signed=True), yearly),
        Headline("Maximum drawdown", percent(account["max_drawdown"]), when),
        Headline(
            "Volatility", percent(account["volatility"]), "per year" if account["volatility"] is not None else short
        ),
        Headline(
            "Sharpe",
            number(account["sharpe"], 2, signed=True),
            spread(account["sharpe_ci90"], 2) if account["sharpe"] is not None else short,
            account["verdict"],
        ),
        Headline("Sortino", number(account["sortino"], 2, signed=True), "downside below 0"),
        Headline("Calmar", number(account["calmar"], 2, signed=True), "CAGR over maximum drawdown"),
    ]


def _trades(trades: Mapping[str, Json]) -> list[Headline]:
    wins = f"{trades['wins']:,} of {trades['n']:,}"
    rate = trades["win_rate_ci95"]
    if rate:
        wins += f", 95 %: {percent(rate[0], 0)} to {percent(rate[1], 0)}"
    gain, loss = number(trades["mean_gain_usd"], 1), number(trades["mean_loss_usd"], 1)
    return [
        Headline("Profit factor", number(trades["profit_factor"], 2), f"mean gain {gain}, mean loss {loss} USD"),
        Headline("Win rate", percent(trades["win_rate"]), wins),
        Headline(
            "Mean rr", number(trades["mean_rr"], 3, signed=True, unit="R"), spread(trades["rr_ci90"], 3),
            trades["verdict"],
        ),
        Headline(
            "Expectancy", number(trades["expectancy_usd"], 2, signed=True, unit="USD"),
            spread(trades["expectancy_ci90"], 2), trades["expectancy_verdict"],
        ),
        Headline(
            "Hold", number(trades["median_hold_days"], 1, unit="days"),
            f"median; mean {number(trades['mean_hold_days'], 1)}",
        ),
    ]  # fmt: skip


def _exposure(metrics: Mapping[str, Json]) -> list[Headline]:
    exposure, costs, trades = metrics["exposure"], metrics["costs"], metrics["trades"]
    turned = costs["turnover_per_year"]
    return [
        Headline(
            "Closed trades", f"{trades['n']:,}",
            f"{exposure['open_trades']:,} open at the end, worth {number(exposure['open_value_usd'], 0)} USD",
        ),
        Headline(
            "Exposure", percent(exposure["time_with_open_trade"]),
            f"of the time; {percent(exposure['mean_invested'])} invested, at most {percent(exposure['max_invested'])} "
            "at midnights, fills and closes",
        ),
        Headline(
            "Turnover", number(turned, 1, unit="× a year"),
            f"{number(costs['traded_usd'], 0)} USD traded" + ("" if turned else f", fewer than {MIN_DAYS_YEARLY} days"),
        ),
        Headline(
            "Costs", number(costs["fees_usd"] + costs["slippage_usd"], 0, unit="USD"),
            f"fees {number(costs['fees_usd'], 0)}, slippage {number(costs['slippage_usd'], 0)}",
        ),
    ]  # fmt: skip


def findings(metrics: Mapping[str, Json]) -> list[str]:
    """What the figures with an interval say, one plain sentence each."""
    trades, account = metrics["trades"], metrics["account"]
    if not trades["n"]:
        return ["No trade closed, so there is nothing to judge."]
    weeks = f"over {trades['weeks']} calendar weeks"
    found = [
        _finding("The mean reward to risk (rr)", number(trades["mean_rr"], 3, signed=True, unit="R"),
                 spread(trades["rr_ci90"], 3), trades["verdict"], weeks),
        _finding("The mean profit of a trade", number(trades["expectancy_usd"], 2, signed=True, unit="USD"),
                 spread(trades["expectancy_ci90"], 2), trades["expectancy_verdict"], weeks),
    ]  # fmt: skip
    if account["sharpe"] is None:
        return [*found, f"The account has no Sharpe ratio: {_why_no_ratio(metrics)}."]
    ratio, interval = number(account["sharpe"], 2, signed=True), spread(account["sharpe_ci90"], 2)
    return [*found, _finding("The Sharpe ratio", ratio, interval, account["verdict"], "over calendar weeks")]


def _why_no_ratio(metrics: Mapping[str, Json]) -> str:
    return f"fewer than {MIN_DAYS} days" if metrics["account"]["volatility"] is None else "it never moved"


def _finding(what: str, value: str, interval: str, verdict: str, weeks: str) -> str:
    if not interval:
        return f"{what} is {value}; there is too little to say how sure that is."
    told = verdict if verdict == UNTOLD else f"is {verdict}"
    return f"{what} is {value}, with a {interval.replace(':', ' interval from')} {weeks}: it {told}."


def chance_note(groups: Mapping[str, Sequence[Mapping[str, Json]]], names: Sequence[str]) -> str:
    """How many groups would stand out by chance alone."""
    judged = [row for name in names for row in groups[name] if row["rr_ci90"] is not None]
    if not judged:
        return f"No group has trades in {MIN_WEEKS} calendar weeks: too little for an interval."
    clear = sum(row["verdict"] != UNTOLD for row in judged)
    return (
        f"{clear} of these {len(judged)} intervals lie clear of zero; if nothing were there, about "
        f"{len(judged) / 10:.0f} would by chance alone. They are questions, not findings."
    )


def _market(market: Mapping[str, Json]) -> str:
    """The median, because the mean belongs to whoever was listed at a token price and rose a hundredfold that day."""
    return f"the median token, held: {percent(market['median_return'], 0, signed=True)}"


def _recovery(fall: Mapping[str, Json]) -> str:
    days = f"{fall['days']:,.0f} days"
    return f"recovered after {days}" if fall["recovered_at"] else f"not recovered in {days}"


def percent(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A share as a percentage.

    >>> percent(-0.0215), percent(0.0215, 2, signed=True), percent(None)
    ('−2.1 %', '+2.15 %', '–')
    """
    return number(None if value is None else 100 * value, digits, signed=signed, unit="%")


def number(value: float | None, digits: int = 2, *, signed: bool = False, unit: str = "") -> str:
    """A number with separators, a real minus sign and its unit; a dash where there is none.

    >>> number(-1234.5, 1), number(0.5, 2, signed=True, unit="R"), number(-0.001, 1)
    ('−1,234.5', '+0.50 R', '0.0')
    >>> number(1.5e200, 3), number(float("nan"))
    ('1.5e+200', '–')
    """
    if value is None or math.isnan(value):
        return MISSING
    rounded = round(value, digits) + 0.0
    form = f",.{digits}f" if abs(rounded) < _HUGE else ".4g"
    text = f"{rounded:{'+' if signed and rounded else ''}{form}}".replace("-", "−")
    return f"{text} {unit}" if unit else text


def spread(interval: Sequence[float] | None, digits: int) -> str:
    """A 90 % interval in words; nothing where there is none.

    >>> spread((-0.05, 0.2), 2), spread(None, 2)
    ('90 %: −0.05 to +0.20', '')
    """
    if interval is None:
        return ""
    low, high = (number(x, digits, signed=True) for x in interval)
    return f"90 %: {low} to {high}"
