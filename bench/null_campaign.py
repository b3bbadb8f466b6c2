"""Does the learner stay silent on noise, and does it find what is there? Through the public way: `edgebook.learn`
after each 100 trades, `Overrides.advise` for the next 100.

Null: histories of 1,500 trades without any effect, twelve kinds in turn: outcomes t-distributed (4 degrees) or skewed
(38 % winners); without shocks or with day and week shocks that all tokens share; dims independent, correlated with one
another, or with market-wide ones that hold for 6 hours, a day, a week. Told: the share of histories in which a lesson
is ever claimed (``active``), in which a family ever acts, and mean abs(ln multiplier) of the advice.

Planted: +.5 R on 60 of 600 trades (a row of the right sign), on 250 of 2,500 (acts; is claimed), sd 1.3, one look, the
slice a value of one dim or of a pair. Flipped: a fifth of the trades pays +.6 R, from the middle on -.6 R; how long the
advice keeps the old sign. Intervals are exact binomial, 95 %.

Run: ``python bench/null_campaign.py [--histories 200] [--first-seed 0] [--only null|planted|flipped] [--quick]
[--json]``
"""

from __future__ import annotations

import edgebook.cli  # noqa: F401  (one thread for small matrices; before numpy)

# isort: split
import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from edgebook import Overrides, learn
from edgebook.domain.decay import HOUR
from edgebook.learning.config import DEFAULT

Floats = NDArray[np.float64]
Codes = dict[str, NDArray[np.int64]]
#: Dims of the judge's planted streams (levels), and how the phases stay from trade to trade.
DIMS = {"macro_phase": 6, "meso_phase": 6, "micro_phase": 6, "bucket_leader": 5, "bucket_rank_position": 5,
        "bucket": 5, "timeframe": 4, "A_mode": 3, "E_mode": 3}  # fmt: skip
STAY = {"macro_phase": 0.995, "meso_phase": 0.98, "micro_phase": 0.9}
OUTCOMES, SHOCKS, KINDS = (
    ("t4", "skewed"),
    ("no shocks", "day and week shocks"),
    ("independent", "correlated", "market"),
)
MARKET_HOURS = {"six_hours": 6, "day_long": 24, "week_long": 168}
SD, BASE, TOKENS, HOURS_APART = 1.3, 0.1, 20, 2.0
DAY_SD, WEEK_SD = 0.6, 0.35
START = 450_000  # hours since 1970
BLOCK, TRADES = 100, 1_500
LINES = {"ever active": 0.10, "row of the right sign": 0.80, "acts": 0.70, "claimed": 0.55}
HALF_LIFE_HOURS = DEFAULT.pm_strength_half_life_hours


# ---- worlds


def contexts(rng: np.random.Generator, n: int, kind: str, hours: Floats) -> Codes:
    """Codes of all dims of ``n`` trades at ``hours``; ``kind`` as in the head of this file."""
    made: Codes = {}
    driver = rng.integers(0, 6, n)
    for name, card in DIMS.items():
        share = 1.0 / np.arange(1, card + 1) ** 0.8
        share = rng.permutation(share / share.sum())
        drawn = rng.choice(card, size=n, p=share)
        if name in STAY:
            renewed = rng.random(n) > STAY[name]
            renewed[0] = True
            drawn = drawn[np.maximum.accumulate(np.where(renewed, np.arange(n), 0))]
        if kind == "correlated":
            drawn = np.where(rng.random(n) < 0.6, driver % card, drawn)
        made[name] = drawn
    if kind == "market":
        for name, length in MARKET_HOURS.items():
            run = ((hours - hours[0]) // length).astype(np.int64)
            made[name] = rng.integers(0, 4, int(run[-1]) + 1)[run]
    return made


def outcomes(rng: np.random.Generator, n: int, kind: str) -> Floats:
    """Outcomes in R with mean 0 and standard deviation 1.3."""
    if kind == "t4":
        drawn: Floats = rng.standard_t(4, n) * (SD / np.sqrt(2.0))
        return drawn
    win = rng.random(n) < 0.38
    gain, loss = rng.exponential(2.2, n), -np.clip(rng.normal(1.0, 0.2, n), 0.3, 1.6)
    skewed: Floats = (np.where(win, gain, loss) - (0.38 * 2.2 - 0.62)) * (SD / 2.05)
    return skewed


def shared_shocks(rng: np.random.Generator, hours: Floats) -> Floats:
    """What all trades of a day and of a week have in common, R."""
    day, week = (hours // 24).astype(np.int64), (hours // 168).astype(np.int64)
    of_day = rng.normal(0.0, DAY_SD, int(day[-1] - day[0]) + 1)
    of_week = rng.normal(0.0, WEEK_SD, int(week[-1] - week[0]) + 1)
    both: Floats = of_day[day - day[0]] + of_week[week - week[0]]
    return both


def columns(codes: Codes, rr: Floats, hours: Floats, tokens: NDArray[np.int64]) -> dict[str, Any]:
    """TRADES as anyone would hand them over; a trade closes a fifth of an hour after it opened."""

    def moments(at: Floats) -> Any:
        return np.rint(at * HOUR).astype("datetime64[us]")

    return {
        "trade_id": np.char.mod("t%05d", np.arange(len(rr))),
        "opened_at": moments(hours),
        "closed_at": moments(hours + 0.2),
        "rr": rr,
        "token": np.char.mod("k%d", tokens),
        **{name: np.char.mod("v%d", values) for name, values in codes.items()},
    }


def clock(rng: np.random.Generator, n: int, hours_apart: float = HOURS_APART) -> Floats:
    """Times of entry, hours since 1970."""
    drawn: Floats = START + np.cumsum(rng.exponential(hours_apart, n))
    return drawn


def null_history(seed: int, n: int = TRADES) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """A history without any effect, its dims, and its kind on each axis."""
    kind = {
        "outcomes": OUTCOMES[seed % 2],
        "shocks": SHOCKS[seed // 2 % 2],
        "dims": KINDS[seed // 4 % 3],
    }
    rng = np.random.default_rng([seed, 1])
    hours = clock(rng, n)
    codes = contexts(rng, n, kind["dims"], hours)
    rr = BASE + outcomes(rng, n, kind["outcomes"])
    if kind["shocks"] != SHOCKS[0]:
        rr = rr + shared_shocks(rng, hours)
    return columns(codes, rr, hours, rng.integers(0, TOKENS, n)), list(codes), kind


def planted_history(seed: int, n: int, inside: int, pair: bool) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """``inside`` of ``n`` trades pay +.5 R: those of one value of ``bucket``, or of a pair with ``timeframe``."""
    rng = np.random.default_rng([seed, 2, n, pair])
    hours = clock(rng, n)
    codes = contexts(rng, n, "independent", hours)
    chosen = np.zeros(n, dtype=bool)
    chosen[rng.choice(n, inside, replace=False)] = True
    scope = {"bucket": "v0"} | ({"timeframe": "v0"} if pair else {})
    if pair:
        both = (codes["bucket"] == 0) & (codes["timeframe"] == 0) & ~chosen
        codes["timeframe"][both] = rng.integers(1, 4, int(both.sum()))
        codes["timeframe"][chosen] = 0
    else:
        outside = (codes["bucket"] == 0) & ~chosen
        codes["bucket"][outside] = rng.integers(1, 5, int(outside.sum()))
    codes["bucket"][chosen] = 0
    rr = BASE + outcomes(rng, n, OUTCOMES[seed % 2]) + 0.5 * chosen
    return columns(codes, rr, hours, rng.integers(0, TOKENS, n)), list(codes), scope


def flipped_history(seed: int, n: int, hours_apart: float) -> tuple[dict[str, Any], list[str]]:
    """One value of ``bucket`` (a fifth of the trades) pays +.6 R, from the middle on -.6 R."""
    rng = np.random.default_rng([seed, 3])
    hours = clock(rng, n, hours_apart)
    codes = contexts(rng, n, "independent", hours)
    codes["bucket"] = rng.integers(0, 5, n)
    sign = np.where(np.arange(n) < n // 2, 1.0, -1.0)
    rr = BASE + outcomes(rng, n, OUTCOMES[seed % 2]) + 0.6 * sign * (codes["bucket"] == 0)
    return columns(codes, rr, hours, rng.integers(0, TOKENS, n)), list(codes)


# ---- the public way


def first(columns: Mapping[str, Any], n: int) -> dict[str, Any]:
    """The first ``n`` rows."""
    return {name: values[:n] for name, values in columns.items()}


def walk(trades: Mapping[str, Any], dims: Sequence[str], every: int, seen: Callable[[Overrides, int], None]) -> None:
    """Learn after each ``every`` trades, each time on top of what was learnt before; ``seen`` is told each time."""
    before: Overrides | None = None
    for n in range(every, len(trades["rr"]) + 1, every):
        before = learn(first(trades, n), dims, previous=before)
        seen(before, n)


def moves(overrides: Overrides) -> bool:
    """Whether any version asks for anything; otherwise every multiplier is exactly 1 and need not be asked for."""
    return any(version.pm["pattern_strength_overrides"] for version in overrides.learnt.versions)


def null_row(seed: int, every: int) -> dict[str, Any]:
    """What happened on one null history."""
    trades, dims, kind = null_history(seed)
    found: dict[str, Any] = {"seed": seed, **kind, "active": False, "acts": False, "groups": [], "acted_looks": 0}
    logs: list[float] = []

    def seen(overrides: Overrides, n: int) -> None:
        found["active"] |= any(row["status"] == "active" for row in overrides.lessons())
        acting = [fit for fit in overrides.learnt.fits if fit.acts]
        found["acts"] |= bool(acting)
        found["acted_looks"] += bool(acting)
        found["groups"] = sorted({*found["groups"], *(g for fit in acting for g in fit.detail["groups"])})
        if n >= TRADES:
            return
        if not moves(overrides):
            logs.append(0.0)
            return
        block = {name: trades[name][n : n + every] for name in dims}
        middle = trades["closed_at"][n + every // 2]
        logs.append(float(np.abs(np.log(overrides.advise(block, at=middle).multiplier)).mean()))

    walk(trades, dims, every, seen)
    return {**found, "abs_ln": statistics.fmean(logs)}


def planted_row(seed: int, n: int, inside: int, pair: bool) -> dict[str, bool]:
    """Whether the planted slice has a row of the right sign, advice above 1, and a claim of its own, after one look."""
    trades, dims, scope = planted_history(seed, n, inside, pair)
    learnt = learn(trades, dims)
    row = next((row for row in learnt.lessons() if dict(row["scope"]) == scope), None)
    effect = row["stats"].get("effect", 0.0) if row else 0.0
    advice = float(np.log(learnt.advise(dict.fromkeys(dims, "") | scope).multiplier[0]))
    return {
        "row": effect > 0,
        "acts": advice >= DEFAULT.min_log_target,
        "claimed": effect > 0 and row is not None and row["status"] == "active",
    }


def flipped_row(seed: int, n: int, hours_apart: float, every: int) -> dict[str, Any]:
    """Trades and half-lives from the flip until the advice for the slice is below 1; None where it never is."""
    trades, dims = flipped_history(seed, n, hours_apart)
    flip = n // 2
    if flip % every:
        raise ValueError(f"the flip after {flip} trades must fall on a look; they come every {every}")
    found: dict[str, Any] = {"learnt": False, "trades": None, "half_lives": None}
    found |= {"neutral_trades": None, "neutral_half_lives": None}
    context = dict.fromkeys(dims, "") | {"bucket": "v0"}

    def seen(overrides: Overrides, at: int) -> None:
        if at < flip or found["trades"] is not None:
            return
        log = float(
            np.log(overrides.advise(context, at=trades["closed_at"][min(at + every // 2, n - 1)]).multiplier[0])
        )
        since = (trades["closed_at"][at - 1] - trades["closed_at"][flip]) / np.timedelta64(1, "h")
        if at == flip:
            found["learnt"] = log > 0
        elif log <= 1e-9 and found["neutral_trades"] is None:
            found["neutral_trades"], found["neutral_half_lives"] = at - flip, float(since) / HALF_LIFE_HOURS
        if at > flip and log < -1e-9:
            found["trades"], found["half_lives"] = at - flip, float(since) / HALF_LIFE_HOURS

    walk(trades, dims, every, seen)
    return found


# ---- what it says


def share(hits: int, n: int) -> dict[str, Any]:
    """A share with its exact 95 % interval.

    >>> share(0, 10)
    {'hits': 0, 'of': 10, 'share': 0.0, 'ci95': [0.0, 0.3085]}
    """
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return {"hits": hits, "of": n, "share": round(hits / n, 4) if n else None, "ci95": [round(low, 4), round(high, 4)]}


def result(work: str, figure: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The form every bench prints; there is no peer."""
    return {"name": "null_campaign", "work": work, "unit": "share", "ours": figure["share"], **figure, **more}


def null_results(first_seed: int, histories: int, every: int) -> list[dict[str, Any]]:
    """The null part."""
    rows = [null_row(seed, every) for seed in range(first_seed, first_seed + histories)]
    about = f"null, {histories} histories of {TRADES} trades, rebuilt after each {every}"
    per_kind = {}
    for axis in ("outcomes", "shocks", "dims"):
        for value in sorted({row[axis] for row in rows}):
            part = [row for row in rows if row[axis] == value]
            per_kind[value] = {
                "active": share(sum(row["active"] for row in part), len(part)),
                "acts": share(sum(row["acts"] for row in part), len(part)),
                "abs_ln": round(statistics.fmean(row["abs_ln"] for row in part), 5),
            }
    groups = Counter(group for row in rows for group in row["groups"])
    looks = sum(row["acted_looks"] for row in rows)
    mean = round(statistics.fmean(row["abs_ln"] for row in rows), 5)
    told = {"name": "null_campaign", "work": f"{about}: mean abs(ln multiplier) of advice", "unit": "nats",
            "ours": mean, "worst_history": round(max(row["abs_ln"] for row in rows), 5)}  # fmt: skip
    return [
        result(f"{about}: ever active", share(sum(row["active"] for row in rows), histories),
               limit=LINES["ever active"], per_kind=per_kind),
        result(f"{about}: ever acts", share(sum(row["acts"] for row in rows), histories), groups=dict(groups),
               looks=share(looks, histories * (TRADES // every))),
        told,
    ]  # fmt: skip


def planted_results(seeds: int) -> list[dict[str, Any]]:
    """The planted part."""
    made = []
    for n, inside, wanted in ((600, 60, ("row of the right sign",)), (2_500, 250, ("acts", "claimed"))):
        for pair in (False, True):
            rows = [planted_row(seed, n, inside, pair) for seed in range(seeds)]
            about = f"planted, +.5 R on {inside} of {n} trades, {'a pair' if pair else 'one dim'}, {seeds} seeds"
            for name, key in (("row of the right sign", "row"), ("acts", "acts"), ("claimed", "claimed")):
                limit = {"at_least": LINES[name]} if name in wanted and not pair else {}
                made.append(result(f"{about}: {name}", share(sum(row[key] for row in rows), seeds), **limit))
    return made


def flipped_results(seeds: int, every: int) -> list[dict[str, Any]]:
    """The flipped part: at a trade each hour and each three hours."""
    made = []
    for n, hours_apart in ((3_000, 1.0), (1_800, 3.0)):
        rows = [flipped_row(seed, n, hours_apart, every) for seed in range(seeds)]
        rows = [row for row in rows if row["learnt"]]
        within, not_wrong = (
            sum(row[name] is not None and row[name] <= 2.0 for row in rows)
            for name in ("half_lives", "neutral_half_lives")
        )
        about = f"flipped, +.6 R then -.6 R, {n} trades, one each {hours_apart:g} h, {seeds} seeds"
        times = {
            f"{name}_{word}": _quantile([row[name] for row in rows], q)
            for name in ("trades", "half_lives", "neutral_trades")
            for word, q in (("median", 0.5), ("p90", 0.9))
        }
        work = f"{about}: sign right within two half-lives of {HALF_LIFE_HOURS:g} h"
        more = {"not_wrong": share(not_wrong, len(rows)), **times, "learnt_first": len(rows)}
        made.append(result(work, share(within, len(rows)), **more))
    return made


def _quantile(values: Sequence[float | None], q: float) -> float | None:
    """Quantile where None (never) is beyond all others; None where it falls there."""
    ranked = sorted(float("inf") if value is None else float(value) for value in values)
    found = ranked[min(len(ranked) - 1, int(q * len(ranked)))] if ranked else float("inf")
    return round(found, 3) if found < float("inf") else None


def line(told: Mapping[str, Any]) -> str:
    """One result for people."""
    if "ci95" not in told:
        return f"{told['work']}: {told['ours']} (the worst history {told['worst_history']})"
    low, high = told["ci95"]
    more = {k: v for k, v in told.items() if k not in ("name", "work", "unit", "ours", "hits", "of", "share", "ci95")}
    text = f"{told['work']}: {told['hits']} of {told['of']} = {told['ours']:.1%} [{low:.1%}, {high:.1%}]"
    return f"{text} {json.dumps(more)}" if more else text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=100, help="of each planted slice; flipped takes a fifth")
    parser.add_argument("--only", choices=["null", "planted", "flipped"])
    parser.add_argument("--quick", action="store_true", help="10 histories, rebuilt after each 300 trades; 10 seeds")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.histories, given.seeds = min(given.histories, 10), min(given.seeds, 10)
    every = 300 if given.quick else BLOCK
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "null": lambda: null_results(given.first_seed, given.histories, every),
        "planted": lambda: planted_results(given.seeds),
        "flipped": lambda: flipped_results(max(1, given.seeds // 5), every if given.quick else BLOCK),
    }
    for name, run in parts.items():
        if given.only in (None, name):
            began = time.perf_counter()
            told = run()
            told[-1]["wall_s"] = round(time.perf_counter() - began, 1)
            for one in told:
                print(json.dumps(one) if given.json else line(one), flush=True)


if __name__ == "__main__":
    main()
