"""Hand-made strands, observations and lookups for the learning tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.evidence import Observation
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY
from edgebook.domain.scope import ScopeSchema
from edgebook.domain.strands import (
    DecisionLowcap,
    EpisodeSummary,
    LeverEvidence,
    PositionClosed,
    Strand,
    TradeAction,
    TradeSummary,
    WindowOutcome,
)
from edgebook.learning.aggregate import aggregate
from edgebook.learning.design import Design, make_design
from edgebook.learning.table import TradeTable

SUMMARY = TradeSummary(
    entry_ts=0, exit_ts=DAY, entry_price=100.0, exit_price=110.0, invested_usd=Decimal(100), extracted_usd=Decimal(110),
    pnl_usd=Decimal(10), fees_usd=Decimal(0), roi=0.1, rr=1.0, rr_raw=1.0, rr_clipped=False, r_floor=0.01,
    price_return=0.1, max_drawdown=0.1, max_gain=0.2, outcome_class="small_win", hold_bars=24, hold_days=1.0,
    hold_class="short", time_to_s3_days=None, time_efficiency=0.5, best_entry_price=99.0, best_exit_price=120.0,
    missed_entry_r=0.0, missed_exit_r=0.0, cf_entry_bucket="none", cf_exit_bucket="none",
)  # fmt: skip
PM_SCOPE = {"macro_phase": "Good", "bucket": "micro", "timeframe": "1h", "A_mode": "normal"}
DM_SCOPE = {"curator": "early", "chain": "exchange", "macro_phase": "Good"}


def action(
    category: str = "entry", key: str = S1_ENTRY.key, scope: Mapping[str, Any] = PM_SCOPE, **change: Any
) -> TradeAction:
    made = TradeAction(
        "a", 0, category, 5, key, category, dict(scope), "", 0, Decimal(1), 100.0, Decimal(0), 1.0, 1.0
    )  # fmt: skip
    return replace(made, **change)


def closed(
    trade: str,
    rr: float,
    *,
    actions: tuple[TradeAction, ...] | None = None,
    position: str = "p1",
    decision: str = "",
    first: bool = True,
    allocation: float = 1.0,
    day: int = 0,
    arm: str = "",
    symbol: str = "SOL",
) -> Strand:
    summary = replace(
        SUMMARY,
        rr=rr,
        roi=rr / 10,
        pnl_usd=Decimal(str(round(rr * 10, 6))),
        entry_ts=day * DAY,
        exit_ts=(day + 1) * DAY,
    )
    payload = PositionClosed(
        "exchange", symbol, decision, "early", first, allocation, "s1_to_s0", "exit", {}, summary,
        actions if actions is not None else (action(),),
    )  # fmt: skip
    return Strand(
        f"s-{trade}",
        payload,
        summary.exit_ts,
        summary.exit_ts,
        "pm",
        symbol,
        "1h",
        position,
        trade,
        arm=arm,
        scope=PM_SCOPE,
    )


def decision(
    identity: str = "d1", allocation: float = 10.0, scope: Mapping[str, Any] = DM_SCOPE, arm: str = ""
) -> Strand:
    payload = DecisionLowcap(
        "sig", "early", "SOL", "exchange", "SOL", "approve", allocation, allocation, 1.0, 1.0, 1.0, 0.6, (), "",
        DM_ALLOCATION.key, "allocation", (), {}, {},
    )  # fmt: skip
    return Strand(identity, payload, 0, 0, "dm", scope=dict(scope), arm=arm)


def lever(name: str, u: float, *, alone: bool = True, confidence: float = 1.0, value: float = 0.6) -> LeverEvidence:
    return LeverEvidence(name, value, value - u * 0.1, u * 0.1, u, min(1.0, abs(u)), confidence, "", alone)


def window(outcome: str, levers: tuple[LeverEvidence, ...], **change: Any) -> WindowOutcome:
    entered = outcome in ("success", "failure")
    made = WindowOutcome("w", "signal", 0, HOUR, entered, outcome, (), dict(PM_SCOPE), levers)
    return replace(made, **change)


def episode(
    identity: str, windows: tuple[WindowOutcome, ...], outcome: str = "", episode_type: str = "s1_entry", **change: Any
) -> Strand:
    key = S1_ENTRY
    payload = EpisodeSummary(
        episode_type, outcome or windows[0].outcome, any(w.entered for w in windows), False, 0, 5 * HOUR, 5, key.key,
        key.category, windows,
    )  # fmt: skip
    return Strand(
        identity, replace(payload, **change), 5 * HOUR, 5 * HOUR, "pm", episode_id=identity, scope=dict(PM_SCOPE)
    )


class Store:
    """Dictionaries behind the aggregator's lookups; what a transaction would keep."""

    def __init__(self) -> None:
        self.stats: dict[str, Any] = {}
        self.observations: dict[str, Any] = {}
        self.fits: dict[str, Any] = {}
        self.decisions: dict[str, Strand] = {}

    def run(self, strands: list[Strand], now: int = 1, **config: Any) -> Any:
        out = aggregate(
            strands,
            stat=self.stats.get,
            observation=self.observations.get,
            decision=self.decisions.get,
            fit=self.fits.get,
            now=now,
            **config,
        )
        self.stats.update({r.key: r for r in out.stats})
        self.observations.update({r.key: r for r in out.observations})
        self.fits.update({r.key: r for r in out.fits})
        return out


def planted(
    seed: int,
    *,
    n: int = 600,
    sd: float = 1.3,
    effect: float = 0.0,
    size: int = 100,
    dims: int = 4,
    day_sd: float = 0.0,
    market_hours: int = 0,
    per_day: float = 4.0,
    levels: int = 5,
) -> tuple[list[Observation], ScopeSchema]:
    """Trades whose only structure is ``effect`` R on ``d0=v0`` (``size`` of them), a shock per day, a market label of
    chance."""
    rng = np.random.default_rng(seed)
    hours = np.sort(rng.uniform(0, n / per_day * 24, n))
    day = (hours // 24).astype(int)
    y = rng.normal(0, sd, n) + rng.normal(0, day_sd, day.max() + 1)[day]
    codes = rng.integers(0, levels, (n, dims))
    codes[:, 0] = np.maximum(codes[:, 0], 1)
    chosen = rng.permutation(n)[:size]
    codes[chosen, 0] = 0
    y[chosen] += effect
    columns = {f"d{k}": codes[:, k] for k in range(dims)}
    if market_hours:
        labels = rng.integers(0, 4, int(hours.max() // market_hours) + 1)
        columns["market"] = labels[(hours // market_hours).astype(int)]
    token = rng.integers(0, 12, n)
    observations = [
        Observation(
            "pm", S1_ENTRY.key, "entry", f"t{i}", int((hours[i] + 10) * HOUR), int(hours[i] * HOUR), float(y[i]), 0.0,
            0.0, 1.0, f"s{token[i]}", int(day[i]), {name: f"v{values[i]}" for name, values in columns.items()}, 1.0,
            0.5,
        )
        for i in range(n)
    ]  # fmt: skip
    return observations, ScopeSchema("test", tuple(columns))


def trades(*args: Any, **options: Any) -> tuple[TradeTable, ScopeSchema]:
    """What `planted` gives, as a table."""
    observations, schema = planted(*args, **options)
    return TradeTable.of(observations, schema), schema


def columns(
    dims: Mapping[str, Any], y: Any, *, day: Any = None, opened: Any = None, token: Any = None
) -> tuple[TradeTable, ScopeSchema]:
    """A table of given codes per dim (-1 absent) with levels v0, v1 ...; four trades a day unless ``day`` says, held
    for an hour, each of its own token unless ``token`` says."""
    y = np.asarray(y, dtype=float)
    n = len(y)
    day = np.arange(n) // 4 if day is None else np.asarray(day)
    opened = day * DAY + np.arange(n) % 24 * HOUR // 2 if opened is None else np.asarray(opened)
    coded = {}
    for name, values in dims.items():
        codes = np.asarray(values, dtype=np.int64)
        coded[name] = (tuple(f"v{k}" for k in range(int(codes.max(initial=0)) + 1)), codes)
    table = TradeTable(
        np.array([f"t{i:05d}" for i in range(n)], dtype=object),
        opened.astype(np.int64),
        (opened + HOUR).astype(np.int64),
        y,
        np.full(n, -1, dtype=np.int64) if token is None else np.asarray(token, dtype=np.int64),
        day.astype(np.int64),
        coded,
    )
    return table, ScopeSchema("test", tuple(dims))


def dense(design: Design, a: float, b: float) -> np.ndarray:
    """``V0 = I + a*(same day) + b*(same week)`` written out in full, (n, n)."""
    week = design.week_of_day[design.day]
    return np.eye(design.n) + a * (design.day[:, None] == design.day) + b * (week[:, None] == week)


def one_hot(blocks: Any) -> np.ndarray:
    """The columns of blocks, (n, levels of all)."""
    return np.column_stack([(b.codes[:, None] == np.arange(len(b.levels))).astype(float) for b in blocks])


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The builders above, by name."""
    return SimpleNamespace(
        action=action, closed=closed, decision=decision, lever=lever, window=window, episode=episode, Store=Store,
        planted=planted, trades=trades, columns=columns, design=make_design, dense=dense, one_hot=one_hot,
        PM_SCOPE=PM_SCOPE, DM_SCOPE=DM_SCOPE, SUMMARY=SUMMARY,
    )  # fmt: skip
