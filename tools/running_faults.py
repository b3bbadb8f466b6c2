"""Faults of wiring around the loop: regime and appetite, telemetry, replay, data, restarts (`wiring_faults`)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from tools.wiring_faults import after, altered, fault, instead, swap

# ---------------------------------------------------------------- what A, E and sizes follow from (F10, F11)


@fault("regime drivers are measured and not heard", "F10", "regime")
def drivers_not_heard() -> None:
    """trading.md 9.19: A and E stay .5 for ever."""
    instead("market.regime:RegimeTimeline.extend_driver", None)


@fault("what curators want does not reach A and E", "F10", "intents")
def intents_lost() -> None:
    """trading.md 9.19: intents never reach their consumers."""
    instead("desk:Desk.intent", (0.0, 0.0))


@fault("what the book holds of a kind does not shrink a buy of it", "F11", "exposure skew")
def skew_not_asked() -> None:
    """The skew is always 1."""
    instead("trading.actions:skew_of", 1.0)


@fault("the exposure skew is told and not applied", "F11", "PM plan")
def skew_not_applied() -> None:
    """It stands in the reasons of an action and not in its size."""

    def whole(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: old(*args[:7], 1.0)

    swap("trading.actions:size_of", whole)


# ---------------------------------------------------------------- what is written down (F12, F13)


@fault("the regime a decision was made under is not kept", "F12", "telemetry")
def snapshot_not_kept() -> None:
    """Strands refer to a row that is not there."""
    instead("desk:Desk.snapshot", None)


@fault("actions do not say to which gates they were held", "F12", "telemetry")
def gates_not_said() -> None:
    """Nobody could tell what learning has moved."""

    def silent(strand: Any) -> Any:
        return altered(strand, payload=altered(strand.payload, thresholds_effective={}))

    after("trading.tick:_action", silent)


@fault("the actions of a closed trade lose the multipliers they were made with", "F12", "telemetry")
def trade_multipliers_lost() -> None:
    """Learning could not tell what it has done itself."""
    after("trading.position:_as_learnt", lambda action: altered(action, size_mult=0.0))


@fault("packets that cannot be read are dropped without a word", "F13", "dead letters")
def dead_letters_lost() -> None:
    """trading.md 9.3: packets vanish."""
    instead("desk:Desk.bury", None)


@fault("the log does not say when learning ran", "F13", "replay")
def learning_not_logged() -> None:
    """Statistics no longer follow from the log alone."""

    def silent(old: Callable[..., Any]) -> Callable[..., Any]:
        def completed(desk: Any, job: str, slot: int, watermark: int, counts: Any) -> Any:
            desk.stir(job)
            return dict(counts)

        return completed

    swap("jobs:_completed", silent)


# ---------------------------------------------------------------- bars (F14)


@fault("an episode goes on over missing bars as if nothing were missing", "F14", "engine void rule")
def void_rule_off() -> None:
    """What happened in a gap is guessed."""
    after(
        "runtime.bootstrap:trading_rules",
        lambda rules: altered(rules, episodes=altered(rules.episodes, void_gap_bars=1_000_000)),
    )


@fault("dormant positions are never woken", "F14", "dormant to watchlist")
def dormant_for_ever() -> None:
    """The job that counts bars runs and finds nothing."""
    instead("jobs:awake_strand", None)


@fault("bars before a long hole count for waking a position", "F14", "dormant to watchlist")
def holes_not_seen() -> None:
    """Averages over a hole are no averages."""

    def counted(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, symbol, timeframe, now, hole: self.bars_count(symbol, timeframe, now)

    swap("runtime.market:Tape.contiguous_bars", counted)


@fault("a bar is rolled up from any part of its minutes", "F14", "roll-up")
def torn_bars_pass() -> None:
    """Half a bar looks like a bar."""

    def any_part(old: Callable[..., Any]) -> Callable[..., Any]:
        return lambda series, timeframe, **kw: old(series, timeframe, 0.0, **kw)

    swap("runtime.market:resample", any_part)


@fault("a slope is that of the next bar", "F14", "causality")
def looks_ahead() -> None:
    """Nothing that is asked for now may depend on what comes later."""
    from edgebook.domain.timeframe import micros

    def ahead(old: Callable[..., Any]) -> Callable[..., Any]:
        def find(self: Any, now: int) -> Any:
            here = old(self, now)
            later = old(self, now + micros(here.timeframe)) if here is not None else None
            return altered(here, ema333_slope=later.ema333_slope) if later is not None else here

        return find

    swap("runtime.market:_Line.find", ahead)


@fault("positions on the coarsest timeframe are never made", "F7", "DM fan-out")
def coarsest_left_out() -> None:
    """trading.md 1.6: a decision goes to all four."""
    after("runtime.bootstrap:trading_rules", lambda rules: altered(rules, timeframes=rules.timeframes[:-1]))


# ---------------------------------------------------------------- restarts, other drivers (F15, F17)


@fault("order ids are made anew each time", "F15", "executor")
def order_ids_random() -> None:
    """trading.md 9.7, 9.12: after a restart nobody can ask what became of an order."""

    def fresh(strand: Any) -> Any:
        return altered(strand, payload=altered(strand.payload, client_id=str(uuid.uuid4())))

    after("trading.tick:_action", fresh)


@fault("the clock is written ahead of what has been walked", "F15", "executor")
def clock_ahead() -> None:
    """After a restart a bar is never walked, and its order not filled."""

    def ahead(old: Callable[..., Any]) -> Callable[..., Any]:
        def commit(self: Any) -> None:
            clock = self.clock
            self.clock = clock + 2 * 60_000_000
            old(self)
            self.clock = clock

        return commit

    swap("runtime.system:System.commit", ahead)


@fault("a backtest leaves the learning jobs out", "F17", "backtest")
def backtest_without_learning() -> None:
    """trading.md 9.22: two drivers, two systems."""
    swap("runtime.backtest:run_simulated", _jobless)


@fault("a run paced by the wall clock leaves the learning jobs out", "F17", "parity")
def paced_without_learning() -> None:
    """trading.md 9.23: what is done depends on how the clock is driven."""
    swap("cli.watch:run_paced", _jobless)


def _jobless(old: Callable[..., Any]) -> Callable[..., Any]:
    def run(system: Any, *args: Any) -> None:
        system.run_job = lambda job, slot: None
        old(system, *args)

    return run


@fault("nobody looks whether a database has a writer already", "F15", "one writer")
def lock_not_taken() -> None:
    """trading.md 9.9: two processes take the same slots."""
    swap("adapters.database:writer_lock", lambda old: lambda address: nullcontext())
    instead("adapters.database:claim_server", None)
