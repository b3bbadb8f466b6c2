"""Laws of the learning half of the loop through its real jobs: what is planted is found and acts, noise does not
(decisions 22)."""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.adapters.memory import MemoryStore
from edgebook.desk import Desk
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.levers import LEGACY_NEUTRAL, LEVERS
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY
from edgebook.domain.scope import DM_SCHEMA, PM_SCHEMA, make_scope
from edgebook.domain.strands import PositionClosed, Strand, TradeAction, TradeSummary
from edgebook.jobs import JOBS, REQUIRED_JOBS, build_lessons_from_pattern_scope_stats, run_aggregator, run_materializer
from edgebook.learning.config import LearningConfig
from edgebook.overrides import (
    ConfigHistory,
    apply_allocation_overrides,
    apply_pattern_execution_overrides,
    apply_pattern_strength_overrides,
)
from edgebook.ports import MarketReader
from edgebook.runtime.timetable import Timetable
from edgebook.trading.rules import TradingRules

START = 19_700 * DAY
BUCKETS = ("micro", "small", "mid", "big", "large", "mega")
MODES = ("patient", "normal", "aggressive")
FAMILIES = ("alts", "memes", "majors", "stables")


def closed(number: int, rr: float, at: int, scope: dict[str, str]) -> Strand:
    """A trade entered on an S1 flag and closed ten hours later with ``rr``; its roi is a hundredth of it."""
    exit_ts, invested = at + 10 * HOUR, Decimal(1_000)
    pnl = (invested * Decimal(repr(round(rr / 100, 8)))).quantize(Decimal("0.000001"))
    summary = TradeSummary(
        entry_ts=at, exit_ts=exit_ts, entry_price=100.0, exit_price=100.0 + rr, invested_usd=invested,
        extracted_usd=invested + pnl, pnl_usd=pnl, fees_usd=Decimal(0), roi=rr / 100, rr=rr, rr_raw=rr,
        rr_clipped=False,
        r_floor=0.01, price_return=rr / 100, max_drawdown=0.01, max_gain=0.05, outcome_class="", hold_bars=10,
        hold_days=10 / 24, hold_class="short", time_to_s3_days=None, time_efficiency=0.5, best_entry_price=99.0,
        best_exit_price=105.0, missed_entry_r=0.0, missed_exit_r=0.0, cf_entry_bucket="none", cf_exit_bucket="none",
    )  # fmt: skip
    key, category = S1_ENTRY
    action = TradeAction(
        f"a{number}", at, "entry", 5, key, category, scope, "", 0, Decimal(10), 100.0, Decimal(0), 1.0, 1.0
    )
    payload = PositionClosed(
        "exchange", f"T{number % 12}", "", "", False, 5.0, "s1_to_s0", "exit", {}, summary, (action,)
    )
    return Strand(
        f"closed-{number}",
        payload,
        exit_ts,
        exit_ts,
        "pm",
        f"T{number % 12}",
        "1h",
        f"position-{number % 12}",
        f"trade-{number}",
        scope=scope,
    )


def trades(seed: int, effect: float) -> list[Strand]:
    """600 trades over 150 days, rr sd 1.3; the 100 of bucket micro have ``effect`` R more."""
    rng = np.random.default_rng(seed)
    hours = np.sort(rng.uniform(0, 150 * 24, 600))
    chosen = set(rng.permutation(600)[:100].tolist())
    found = []
    for i in range(600):
        scope = {
            "bucket": "micro" if i in chosen else BUCKETS[1 + int(rng.integers(5))],
            "market_family": FAMILIES[int(rng.integers(4))],
            "A_mode": MODES[int(rng.integers(3))],
            "timeframe": "1h",
        }
        rr = float(np.clip(rng.normal(0, 1.3) + (effect if i in chosen else 0.0), -3, 10))
        found.append(closed(i, rr, START + int(hours[i] * HOUR), scope))
    return sorted(found, key=lambda s: s.ts_event)


def taught(seed: int, effect: float) -> ConfigHistory:
    """The config history after the jobs have read these trades, month by month, and then once built and
    materialised."""
    with MemoryStore().writer() as uow:
        desk = Desk(uow, cast(MarketReader, None), PaperBroker(), {}, TradingRules(), LearningConfig())
        strands = trades(seed, effect)
        for first in range(0, 600, 120):
            uow.log.append(strands[first : first + 120])
            run_aggregator(desk, strands[min(599, first + 119)].ts_event)
        now = strands[-1].ts_event // HOUR * HOUR + HOUR
        build_lessons_from_pattern_scope_stats(desk, now, "pm")
        build_lessons_from_pattern_scope_stats(desk, now + 60_000_000, "dm")
        run_materializer(desk, now + 120_000_000)
        return desk.history


def size_in(history: ConfigHistory, bucket: str, epochs: int) -> float:
    """Size multiplier of a matching S1 entry so many epochs after the version came into force."""
    scope = make_scope(PM_SCHEMA, {"bucket": bucket, "market_family": "alts", "A_mode": "normal", "timeframe": "1h"})
    return apply_pattern_strength_overrides(history, S1_ENTRY, scope, history.in_force_from + epochs * HOUR).size_mult


def test_a_planted_edge_enlarges_the_next_matching_trade_within_a_day():
    """+1.0 R on 100 of 600 trades: size_mult >= 1.05 within 24 epochs of the first config, in at least nine of ten
    seeds."""
    sizes = [size_in(taught(seed, 1.0), "micro", 24) for seed in range(10)]

    assert sum(size >= 1.05 for size in sizes) >= 9, sizes


def test_a_planted_fault_makes_the_next_matching_trade_smaller():
    """-1.0 R on the same slice: size_mult below 1, in at least nine of ten seeds."""
    sizes = [size_in(taught(seed, -1.0), "micro", 24) for seed in range(10)]

    assert sum(size < 1 for size in sizes) >= 9, sizes


def test_noise_moves_next_to_nothing():
    """Without an effect the mean of |ln size_mult| over buckets and ten seeds stays below .01, even at full
    displacement."""
    moved = []
    for seed in range(10):
        history = taught(seed, 0.0)
        moved += [abs(math.log(size_in(history, bucket, 100))) for bucket in BUCKETS]

    assert sum(moved) / len(moved) < 0.01, moved


def test_a_config_moves_a_multiplier_by_one_step_an_epoch_and_never_at_once():
    """A lesson built at t moves nothing at t, and 2 % an hour from then on (decisions 1 and 15)."""
    history = taught(0, 1.0)
    sizes = [size_in(history, "micro", epoch) for epoch in range(80)]

    assert sizes[0] == 1.0
    assert all(b / a <= 1.02 + 1e-12 for a, b in pairwise(sizes))
    assert max(sizes) <= LEVERS["size_mult"].hi


def test_the_jobs_run_twice_at_a_slot_write_nothing_twice():
    """Aggregator, builder and materializer again at the same slot, and at the next: same head, same rows."""
    with MemoryStore().writer() as uow:
        desk = Desk(uow, cast(MarketReader, None), PaperBroker(), {}, TradingRules(), LearningConfig())
        uow.log.append(trades(1, 1.0))
        now = START + 200 * DAY
        jobs = [(job.run, now + job.offset_seconds * 1_000_000) for job in JOBS if job.name in REQUIRED_JOBS]
        for run, slot in jobs:
            run(desk, slot)
        head = uow.log.head
        rows = [
            list(t.values())
            for t in (uow.observations, uow.stats, uow.fits, uow.lessons, uow.configs, uow.config_versions)
        ]
        assert head[0] > 600
        for later in (0, 0, HOUR):
            for run, slot in jobs:
                run(desk, slot + later)

        assert uow.log.head == head
        assert rows == [
            list(t.values())
            for t in (uow.observations, uow.stats, uow.fits, uow.lessons, uow.configs, uow.config_versions)
        ]


def test_how_trades_are_cut_into_runs_does_not_matter():
    """One run over all trades, or one per trade: the same statistics but for the last digits, the same counts
    exactly."""
    found = []
    for step in (600, 1):
        with MemoryStore().writer() as uow:
            desk = Desk(uow, cast(MarketReader, None), PaperBroker(), {}, TradingRules(), LearningConfig())
            strands = trades(2, 0.5)[:200]
            for first in range(0, 200, step):
                uow.log.append(strands[first : first + step])
                run_aggregator(desk, START + 200 * DAY + first * HOUR)
            found.append({row.key: row for row in uow.stats.values()})
    one, many = found

    assert one.keys() == many.keys()
    for key, row in one.items():
        assert row.n == many[key].n
        assert row.stats["avg_rr"] == pytest.approx(many[key].stats["avg_rr"], abs=1e-9)


def test_a_job_that_finds_news_in_a_slot_it_has_run_in_reads_them():
    """A slot is no key of its own: run again there with more trades, all trades count and both runs are told."""
    with MemoryStore().writer() as uow:
        desk = Desk(uow, cast(MarketReader, None), PaperBroker(), {}, TradingRules(), LearningConfig())
        strands, slot = trades(2, 0.5)[:200], START + 400 * DAY
        for part in (strands[:100], strands[100:]):
            uow.log.append(part)
            run_aggregator(desk, slot)
            build_lessons_from_pattern_scope_stats(desk, slot + 1, "pm")
        assert max(row.n for row in uow.stats.values()) == 200
        jobs = [s.payload.job for s in uow.log.read(0, ["job_completed"])]
        assert jobs == 2 * ["pattern_scope_aggregator", "lesson_builder_pm"]


# ------------------------------------------------------------------ whatever stands in a config (P5, P8)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from([*LEVERS, *LEGACY_NEUTRAL, "leverage", "signal_thresholds", ""])
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LEVER_SETS = st.dictionaries(NAMES, SCALARS | st.dictionaries(NAMES, SCALARS, max_size=3), max_size=4)
DIMS = st.sampled_from(["bucket", "timeframe", "curator", "chain", "moon"])
ITEM = st.fixed_dictionaries(
    {
        "pattern_key": st.sampled_from([S1_ENTRY.key, DM_ALLOCATION.key]) | SCALARS,
        "action_category": st.sampled_from(["entry", "allocation", "trim"]) | SCALARS,
        "scope": st.dictionaries(DIMS, st.sampled_from(["micro", "1h", "ann"]) | SCALARS, max_size=2),
        "levers": LEVER_SETS,
        "stats": st.just({}) | SCALARS,
        "status": st.sampled_from(["active", "candidate", "retired"]),
        "lesson": st.fixed_dictionaries(
            {
                "id": st.text(max_size=3),
                "enabled": st.booleans() | SCALARS,
                "decay_halflife_hours": st.floats() | st.just(720.0),
                "created_at": st.just(0) | SCALARS,
                "evidence_at": st.just(0) | SCALARS,
            }
        ),
    }
)
LISTS = (
    "alloc_overrides",
    "pattern_strength_overrides",
    "pattern_overrides",
    "pattern_tuning_overrides",
    "feature_flags",
)
DOCUMENT = (
    st.dictionaries(st.sampled_from(LISTS), st.lists(ITEM | ANYTHING, max_size=4) | ANYTHING, max_size=4) | ANYTHING
)


@settings(max_examples=300)
@given(dm=DOCUMENT, pm=DOCUMENT)
def test_no_document_can_break_bounds_or_crash_a_decision(dm: Any, pm: Any):
    """Any JSON at all as learning_configs: decisions get finite numbers inside the table's bounds, legacy knobs
    neutral."""
    history = ConfigHistory.from_versions([ConfigVersion(1, 0, dm, pm, "")])
    at = 500_000 * HOUR
    dm_scope = make_scope(DM_SCHEMA, {"curator": "ann", "chain": "exchange"})
    pm_scope = make_scope(PM_SCHEMA, {"bucket": "micro", "timeframe": "1h"})

    allocation = apply_allocation_overrides(history, dm_scope, at)
    strength = apply_pattern_strength_overrides(history, S1_ENTRY, pm_scope, at)
    controls = apply_pattern_execution_overrides(history, "S1", pm_scope, at, "1h")

    applied = {
        "alloc_mult": allocation.alloc_mult,
        "size_mult": strength.size_mult,
        "entry_aggression_mult": strength.entry_aggression_mult,
        "exit_aggression_mult": strength.exit_aggression_mult,
        **controls.signal_thresholds,
    }
    for name, value in applied.items():
        if name in LEVERS:
            assert math.isfinite(value)
            assert LEVERS[name].lo <= value <= LEVERS[name].hi, name
    assert dict(controls.legacy) == LEGACY_NEUTRAL


@given(st.integers(0, 10**16), st.integers(0, 20 * DAY))
def test_each_slot_comes_once_and_in_order_however_time_is_cut(start: int, length: int):
    """Slots of the timetable from a start to an end are the same whether asked at once or in pieces, and lie on the
    grid."""
    length = min(length, 2 * DAY)
    whole, pieces = Timetable(JOBS), Timetable(JOBS)
    whole.start(start)
    pieces.start(start)

    at_once = [(slot, job.name) for slot, job in whole.until(start + length)]
    in_pieces = [(s, j.name) for k in range(1, 8) for s, j in pieces.until(start + length * k // 7)]

    assert at_once == in_pieces
    assert len(set(at_once)) == len(at_once)
    assert [slot for slot, _ in at_once] == sorted(slot for slot, _ in at_once)
    every = {job.name: job for job in JOBS}
    for slot, name in at_once:
        assert start < slot <= start + length
        assert (slot // 1_000_000 - every[name].offset_seconds) % every[name].every_seconds == 0
    for job in JOBS:
        count = sum(name == job.name for _, name in at_once)
        assert abs(count - length / (job.every_seconds * 1e6)) <= 1
