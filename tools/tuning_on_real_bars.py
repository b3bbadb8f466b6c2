"""Gates learnt on real bars: episodes, chances and shadows counted, what was learnt, and the walk forward with the
tuning channel on against off.

Each set of recorded bars is walked three times by the whole system: gates learnt by the marginal value of shadows, by
votes of outcomes, and with the tuning channel neutral (``neutral_channels=tuning``); the other channels learn in all
three. A walk is its own walk forward: what is learnt at a bar moves later bars only. The difference in rr and in money
has a 90 % interval from a bootstrap of whole weeks.

Run: ``python tools/tuning_on_real_bars.py [--set NAME] [--out docs/tuning_on_real_bars.md]``
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from edgebook.domain.book import Trade
from edgebook.domain.shadow import ShadowsClosed
from edgebook.domain.strands import BuyWindow
from edgebook.ports import UnitOfWork
from edgebook.runtime import backtest as engine
from edgebook.runtime import bootstrap
from edgebook.runtime.settings import Settings
from edgebook.runtime.uplift import uplift

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {
    "coins 2021-23": ("binance_spot_1h_2021_2023", ("1h", "4h")),
    "coins 2025q1": ("binance_spot_5m_2025q1", ("5m", "15m", "1h", "4h")),
}
ARMS: dict[str, dict[str, Any]] = {
    "marginal": {},
    "votes": {"tuning_method": "votes"},
    "off": {"neutral_channels": ("tuning",)},
}


_ARMS_HEAD = "| tuning | trades | nudged | lessons | rr | pnl USD | rr against off [90 %] | pnl against off [90 %] |"


@dataclass
class Walk:
    """What one walk left behind."""

    found: dict[str, Any]
    trades: tuple[Trade, ...]
    windows: Counter[tuple[str, str, bool, bool]]
    shadows: dict[str, list[float]]
    lessons: list[dict[str, Any]]
    seconds: float


def walk(bars: str, timeframes: Sequence[str], given: dict[str, Any]) -> Walk:
    """One backtest of the whole system in a database of its own."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edgebook-") as scratch:
        url = f"sqlite:///{scratch}/walk.db"
        settings = Settings(db=url, feed=f"parquet:{DATA / bars}", timeframes=tuple(timeframes), **given)
        signals, majors = DATA / "signals" / bars / "signals.jsonl", DATA / "binance_spot_1h_majors"
        feed = bootstrap.parquet_feed(DATA / bars, signals, majors)
        store = bootstrap.open_store(url, durable=False)
        found = engine.backtest(store, settings, feed, engine.Span())
        with store.reader() as uow:
            return Walk(found, tuple(uow.trades.values()), _windows(uow), _shadows(uow), list(_lessons(uow)),
                        time.perf_counter() - began)  # fmt: skip


def _windows(uow: UnitOfWork) -> Counter[tuple[str, str, bool, bool]]:
    """(episode type, kind, entered, blocked by a rule) of all windows."""
    found: Counter[tuple[str, str, bool, bool]] = Counter()
    for strand in uow.log.read(0, [BuyWindow.kind]):
        window = strand.payload
        assert isinstance(window, BuyWindow)
        found[window.episode_type, window.window_kind, window.entered, bool(window.blocked_by)] += 1
    return found


def _shadows(uow: UnitOfWork) -> dict[str, list[float]]:
    """rr of shadows by what became of their windows."""
    found: dict[str, list[float]] = {}
    for strand in uow.log.read(0, [ShadowsClosed.kind]):
        closed = strand.payload
        assert isinstance(closed, ShadowsClosed)
        for chance in closed.windows:
            fate = "entered" if chance.entered else "blocked" if chance.blocked_by else "skipped"
            found.setdefault(f"{chance.episode_type} {fate}", []).append(chance.rr)
    return found


def _lessons(uow: UnitOfWork) -> Iterator[dict[str, Any]]:
    """Tuning lessons that move or moved something."""
    for lesson in uow.lessons.values():
        targets = lesson.effect.get("execution_levers", {}).get("signal_thresholds")
        if lesson.lesson_type == "pm_tuning" and targets:
            yield {"key": lesson.pattern_key, "scope": dict(lesson.scope_values), "targets": dict(targets),
                   "status": lesson.status, "n": lesson.stats.get("tuning_n"),
                   "score": lesson.stats.get("tuning_score")}  # fmt: skip


def page(walks: dict[str, dict[str, Walk]]) -> str:
    """The page that tells all of it."""
    parts = [__doc__ or "", ""]
    lines = ["# Gates on real bars", "", *(line for line in parts[0].splitlines() if not line.startswith("Run:")), ""]
    for name, arms in walks.items():
        base = arms["marginal"]
        lines += [f"## {name}", "", _scale(base), "", "| episode | success | failure | missed | correct_skip | void |",
                  "| --- | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
        for kind, outcomes in base.found["episodes"].items():
            counts = [outcomes.get(o, 0) for o in ("success", "failure", "missed", "correct_skip", "void")]
            lines.append(f"| {kind} | " + " | ".join(f"{c:,}" for c in counts) + " |")
        lines += [
            "",
            *_window_lines(base),
            "",
            "| shadows | n | mean rr | standard error |",
            "| --- | ---: | ---: | ---: |",
        ]
        for fate, rr in sorted(base.shadows.items()):
            error = (fmean(x * x for x in rr) - fmean(rr) ** 2) ** 0.5 / len(rr) ** 0.5
            lines.append(f"| {fate} | {len(rr):,} | {fmean(rr):+.3f} | {error:.3f} |")
        lines += ["", _ARMS_HEAD, "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |"]
        lines += [_arm_line(arm, walk, arms["off"]) for arm, walk in arms.items()]
        lines += ["", *_lesson_lines(arms), ""]
    return "\n".join(lines).rstrip() + "\n"


def _scale(walk: Walk) -> str:
    return (
        f"{walk.found['bars']:,} bars, {walk.found['signals']:,} signals, {len(walk.trades):,} trades; "
        f"{sum(walk.windows.values()):,} windows; {walk.seconds:.0f} seconds."
    )


def _window_lines(walk: Walk) -> list[str]:
    lines = [
        "| windows | kind | bought | skipped by a gate | blocked by a rule |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for kind in ("s1_entry", "s3_retest"):
        for what in ("signal", "near_miss"):
            cells = [walk.windows[kind, what, True, False], walk.windows[kind, what, False, False],
                     walk.windows[kind, what, False, True]]  # fmt: skip
            lines.append(f"| {kind} | {what} | " + " | ".join(f"{c:,}" for c in cells) + " |")
    return lines


def _arm_line(arm: str, walk: Walk, off: Walk) -> str:
    gain = uplift(walk.trades, off.trades)
    targets = sum(lesson["status"] != "deprecated" for lesson in walk.lessons)
    rr = f"{gain['rr_per_trade']:+.4f} [{gain['ci90'][0]:+.4f}, {gain['ci90'][1]:+.4f}]"
    pnl = f"{gain['pnl']:+.0f} [{gain['pnl_ci90'][0]:+.0f}, {gain['pnl_ci90'][1]:+.0f}]"
    trades = walk.found["trades"]
    return (
        f"| {arm} | {len(walk.trades):,} | {walk.found['nudged']['gates']:,} | {targets} | {trades['avg_rr']:+.4f} | "
        f"{trades['pnl_usd']:+,.0f} | " + (f"{rr} | {pnl} |" if arm != "off" else "- | - |")
    )


def _lesson_lines(arms: dict[str, Walk]) -> list[str]:
    told = [(arm, lesson) for arm, walk in arms.items() if arm != "off" for lesson in walk.lessons]
    if not told:
        return ["No gate was moved: nothing stood clear of noise."]
    lines = [
        "| learnt by | key | scope | targets | status | episodes | score |",
        "| --- | --- | --- | --- | --- | ---: | ---: |",
    ]
    for arm, lesson in told:
        scope = ", ".join(f"{k}={v}" for k, v in lesson["scope"].items()) or "all"
        targets = ", ".join(f"{k} {v:.4g}" for k, v in lesson["targets"].items())
        key = lesson["key"].rpartition("pattern_key=")[2]
        lines.append(
            f"| {arm} | {key} | {scope} | {targets} | {lesson['status']} | {lesson['n']:,} | {lesson['score']:+.3f} |"
        )
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS), action="append")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    if not DATA.exists():
        sys.exit("the recorded bars are not here: nothing to measure")
    walks = {name: {arm: walk(*SETS[name], settings) for arm, settings in ARMS.items()} for name in given.set or SETS}
    text = page(walks)
    if given.out is not None:
        given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
