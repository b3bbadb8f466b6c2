"""What each channel of learning earns on recorded bars, walk-forward, and what channel 1 finds out about the curators.

Each set of bars is walked by the whole system with learning on, with learning off, and with one channel neutral for
each channel that moved anything (a channel that moved nothing has its twin in the walk itself). What is learnt at a
bar moves later bars only. A channel is compared twice: with the twin that lacks it, and inside the walk with its
holdout, the stable tenth of decisions or attempts that run without it, from its first override on. Told are rr,
weighted by what was invested, and pnl per 100 USD invested (equal capital); 90 % intervals are bootstraps of whole
calendar weeks.

The signals of these sets were made with curators of known skill (`truth.json`): one is early, one a fader. Told is when
the DM family first acts, what is then said of each curator, and what multiplier each one's decisions really got.

A walk takes one to three minutes and leaves its database in the folder of books, where it is found the next time.

Run: ``python -m tools.uplift_on_real_bars [--books DIR] [--set NAME] [--plot FILE] [--json]``
"""

from __future__ import annotations

import edgebook.cli  # noqa: F401  (one thread for small matrices; before numpy)

# isort: split
import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from tools.tuning_on_real_bars import DATA, SETS

from edgebook.domain.strands import DecisionLowcap
from edgebook.learning.observe import in_holdout
from edgebook.ports import UnitOfWork
from edgebook.runtime import backtest as engine
from edgebook.runtime import bootstrap
from edgebook.runtime.lesson_money import Closed, first_in_force, money
from edgebook.runtime.settings import Settings
from edgebook.runtime.uplift import BOOTSTRAP_DRAWS, WEEK

CHANNELS = ("dm", "strength", "tuning")
#: What decisions 50 expects of channel 1: R per trade at kappa 1, and closed trades until the family acts.
EXPECTED = {"coins 2021-23": (0.006, 1_100), "coins 2025q1": (0.015, 600)}


def arm_settings(arm: str) -> dict[str, Any]:
    """Settings of an arm.

    >>> arm_settings("on"), arm_settings("off"), arm_settings("no-dm")
    ({}, {'learning_enabled': False}, {'neutral_channels': ('dm',)})
    """
    if arm in ("on", "off"):
        return {} if arm == "on" else {"learning_enabled": False}
    return {"neutral_channels": (arm.removeprefix("no-"),)}


def book_of(name: str, arm: str, folder: Path) -> Path:
    """The database of a walk; walked where it is not there yet."""
    path = folder / f"{name.replace(' ', '-')}-{arm}.db"
    if path.exists():
        return path
    began, draft = time.perf_counter(), path.with_suffix(".part")
    for old in folder.glob(draft.name + "*"):
        old.unlink()
    bars, timeframes = SETS[name]
    url = f"sqlite:///{draft}"
    settings = Settings(db=url, feed=f"parquet:{DATA / bars}", timeframes=timeframes, **arm_settings(arm))
    signals, majors = DATA / "signals" / bars / "signals.jsonl", DATA / "binance_spot_1h_majors"
    feed = bootstrap.parquet_feed(DATA / bars, signals, majors)
    engine.backtest(bootstrap.open_store(url, durable=False), settings, feed, engine.Span())
    draft.rename(path)
    for rest in folder.glob(draft.name + "*"):
        rest.unlink()
    print(f"walked {path.name} in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return path


@dataclass(frozen=True)
class Curator:
    """What was said of one curator, and done.

    Attributes:
        first_trades, first_at, first_effect: trades closed, date and effect (R) at the first lesson about it alone.
        last_effect: effect of the newest one, R.
        steady_trades, steady_at: the same of the run of lessons that lasts to the end; None where none does.
        told_share: share of the time since the first lesson in which there was one.
        ever_active: whether one was ever claimed. ``above_1``: share of versions with a lesson in which it favours.
        decisions, mean_multiplier: what its decisions got since the family first acts, holdout left out.
    """

    first_trades: int | None
    first_at: str | None
    first_effect: float | None
    last_effect: float | None
    steady_trades: int | None
    steady_at: str | None
    told_share: float | None
    ever_active: bool
    above_1: float | None
    decisions: int
    mean_multiplier: float | None


@dataclass(frozen=True)
class Walked:
    """What is read of one book."""

    closed: tuple[Closed, ...]
    nudged: Mapping[str, int]
    asked: Mapping[str, int]
    since: Mapping[str, int]
    admitted_trades: int | None
    admitted_at: str | None
    acting_share: float | None
    curators: Mapping[str, Curator]
    tracks: Mapping[str, list[tuple[int, float]]]


def read(path: Path) -> Walked:
    """Read a book."""
    with bootstrap.open_store(f"sqlite:///{path}").reader() as uow:
        found, since = money(uow), first_in_force(uow)
        closes = sorted(trade.closed_at for trade in found.closed)
        first = since.get("dm")
        tracks = _tracks(uow)
        return Walked(
            tuple(found.closed),
            {channel: moved.nudged for channel, moved in found.channels.items()},
            dict(found.asked),
            since,
            int(np.searchsorted(closes, first, side="right")) if first is not None else None,
            _date(first),
            _acting_share(uow, closes[-1]) if first is not None else None,
            _curators(uow, closes, first),
            tracks,
        )


def _date(moment: int | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment / 1e6, UTC).date().isoformat()


def _about(item: Mapping[str, Any]) -> str | None:
    """The curator a lesson is about, where it is about nothing else."""
    scope = item["scope"]
    return str(scope["curator"]) if set(scope) == {"curator"} else None


def _acting_share(uow: UnitOfWork, end: int) -> float:
    """Share of the time since the first DM override in which there was one."""
    versions = sorted(uow.config_versions.values(), key=lambda row: row.version)
    times = [row.in_force_from for row in versions] + [end]
    spans = [(times[i + 1] - times[i], bool(row.dm.get("alloc_overrides"))) for i, row in enumerate(versions)]
    first = next(i for i, (_, acts) in enumerate(spans) if acts)
    total = sum(length for length, _ in spans[first:])
    return sum(length for length, acts in spans[first:] if acts) / total if total else 1.0


def _tracks(uow: UnitOfWork) -> dict[str, list[tuple[int, float]]]:
    """Per curator and config version: since when, and the multiplier that the lesson about it alone asks for."""
    versions = sorted(uow.config_versions.values(), key=lambda row: row.version)
    names = sorted({name for row in versions for item in row.dm.get("alloc_overrides", ()) if (name := _about(item))})
    asked = [
        (row.in_force_from, {_about(item): item["levers"]["alloc_mult"] for item in row.dm["alloc_overrides"]})
        for row in versions
        if "alloc_overrides" in row.dm
    ]
    return {name: [(at, by_curator.get(name, 1.0)) for at, by_curator in asked] for name in names}


def _steady(spans: Sequence[tuple[int, bool]], end: int) -> tuple[int | None, float | None]:
    """Start of the run of lessons that lasts to the end, and the share of the time since the first that had one.

    >>> _steady([(0, False), (10, True), (20, False), (30, True)], 40)
    (30, 0.6666666666666666)
    """
    steady, first, told = None, None, 0
    for (at, speaks), until in zip(spans, [*(at for at, _ in spans[1:]), end], strict=True):
        steady = (at if steady is None else steady) if speaks else None
        first = at if first is None and speaks else first
        told += until - at if speaks else 0
    return steady, told / (end - first) if first is not None and end > first else None


def _curators(uow: UnitOfWork, closes: Sequence[int], first: int | None) -> dict[str, Curator]:
    said: dict[str, list[tuple[int, float, str]]] = {}
    versions = sorted(uow.config_versions.values(), key=lambda row: row.version)
    for row in versions:
        for item in row.dm.get("alloc_overrides", ()):
            name = _about(item)
            if name is not None:
                said.setdefault(name, []).append((row.in_force_from, item["stats"]["effect"], item["status"]))
    logs: dict[str, list[float]] = {}
    for strand in uow.log.read(0, ["decision_lowcap"]):
        made = strand.payload
        if isinstance(made, DecisionLowcap) and made.action == "approve":
            rows = logs.setdefault(str(strand.scope.get("curator", "")), [])
            if first is not None and strand.ts_event >= first and not in_holdout(strand.arm, "dm"):
                rows.append(float(np.log(made.alloc_mult)))
    found = {}
    for name in sorted({*said, *logs} - {""}):
        lessons, given = said.get(name, []), logs.get(name, [])
        at, spoken = lessons[0][0] if lessons else None, {moment for moment, _, _ in lessons}
        steady, told = _steady([(row.in_force_from, row.in_force_from in spoken) for row in versions], closes[-1])
        found[name] = Curator(
            int(np.searchsorted(closes, at, side="right")) if at is not None else None,
            _date(at),
            lessons[0][1] if lessons else None,
            lessons[-1][1] if lessons else None,
            int(np.searchsorted(closes, steady, side="right")) if steady is not None else None,
            _date(steady),
            told,
            any(status == "active" for _, _, status in lessons),
            fmean(effect > 0 for _, effect, _ in lessons) if lessons else None,
            len(given),
            float(np.exp(fmean(given))) if given else None,
        )
    return found


def gap(one: Sequence[Closed], other: Sequence[Closed]) -> dict[str, Any]:
    """``one`` less ``other`` in capital-weighted rr and in pnl per 100 USD invested, each with a 90 % interval from a
    bootstrap of whole weeks; None where an arm is empty.

    >>> trade = lambda rr: Closed(0, 0, 100.0, rr, rr, frozenset(), {})
    >>> gap([trade(2.0)], [trade(0.5)])["rr"]
    1.5
    """
    found: dict[str, Any] = {"trades": [len(one), len(other)], "rr": None, "rr_ci90": None, "pnl_per_100": None,
                             "pnl_per_100_ci90": None}  # fmt: skip
    weeks = sorted({trade.closed_at // WEEK for trade in (*one, *other)})
    row = {week: i for i, week in enumerate(weeks)}
    sums = np.zeros((len(weeks), 2, 3))
    for arm, trades in enumerate((one, other)):
        for trade in trades:
            sums[row[trade.closed_at // WEEK], arm] += (
                trade.invested_usd * trade.rr, 100.0 * trade.pnl_usd, trade.invested_usd
            )  # fmt: skip
    total = sums.sum(axis=0)
    if not weeks or not (total[:, 2] > 0).all():
        return found
    draws = np.random.default_rng(0).integers(0, len(weeks), (BOOTSTRAP_DRAWS, len(weeks)))
    drawn = sums[draws].sum(axis=1)
    for name, column in (("rr", 0), ("pnl_per_100", 1)):
        with np.errstate(invalid="ignore", divide="ignore"):
            means = drawn[:, :, column] / drawn[:, :, 2]
        low, high = np.nanquantile(means[:, 0] - means[:, 1], [0.05, 0.95]).tolist()
        found[name] = float(total[0, column] / total[0, 2] - total[1, column] / total[1, 2])
        found[f"{name}_ci90"] = [low, high]
    return found


def against_holdout(walked: Walked, channel: str) -> dict[str, Any] | None:
    """A channel against its holdout, over trades opened since its first override; None where it never had one."""
    since = walked.since.get(channel)
    if since is None:
        return None
    trades = [trade for trade in walked.closed if trade.opened_at >= since]
    return gap([t for t in trades if channel not in t.holdout], [t for t in trades if channel in t.holdout])


def measure(name: str, folder: Path) -> tuple[dict[str, Any], Walked]:
    """Everything about one set."""
    on = read(book_of(name, "on", folder))
    off = read(book_of(name, "off", folder))
    channels: dict[str, Any] = {}
    for channel in CHANNELS:
        moved = on.nudged.get(channel, 0)
        twin = gap(on.closed, read(book_of(name, f"no-{channel}", folder)).closed) if moved else None
        channels[channel] = {
            "asked": on.asked.get(channel, 0),
            "nudged": moved,
            "since": _date(on.since.get(channel)),
            "twin": twin,
            "holdout": against_holdout(on, channel) if moved else None,
        }
    rr, trades = EXPECTED[name]
    return {
        "name": "uplift_on_real_bars",
        "set": name,
        "trades": len(on.closed),
        "all": gap(on.closed, off.closed),
        "pnl_usd": [round(sum(t.pnl_usd for t in walked.closed), 2) for walked in (on, off)],
        "channels": channels,
        "dm": {
            "admitted_after_trades": on.admitted_trades,
            "admitted_at": on.admitted_at,
            "acting_share": on.acting_share,
            "curators": {curator: vars(found) for curator, found in on.curators.items()},
            "truth": _truth(name),
            "expected_rr": rr,
            "expected_trades": trades,
        },
    }, on


def _truth(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((DATA / "signals" / SETS[name][0] / "truth.json").read_text())
    return {kind: told[kind] for kind in ("good", "bad", "neutral")}


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """One set for people."""
    yield f"{told['set']}: {told['trades']} trades; learning on less off {_gap(told['all'])}"
    for channel, row in told["channels"].items():
        yield f"  {channel}: {row['nudged']} of {row['asked']} moved, since {row['since']}"
        for other in ("twin", "holdout"):
            yield f"    against the {other}: {_gap(row[other])}"
    dm = told["dm"]
    yield (
        f"  DM family acts after {dm['admitted_after_trades']} closed trades ({dm['admitted_at']}; expected about "
        f"{dm['expected_trades']})"
    )
    for curator, row in dm["curators"].items():
        yield f"    {curator}: {json.dumps(row)}"


def _gap(row: Mapping[str, Any] | None) -> str:
    if row is None or row["rr"] is None:
        return "nothing to compare"
    (a, b), (c, d) = row["rr_ci90"], row["pnl_per_100_ci90"]
    return f"rr {row['rr']:+.4f} [{a:+.4f}, {b:+.4f}], pnl per 100 USD {row['pnl_per_100']:+.3f} [{c:+.3f}, {d:+.3f}]"


def plot(walks: Mapping[str, Walked], path: Path) -> None:
    """What the lesson about each curator alone asks for, over time."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(walks), figsize=(5.2 * len(walks), 3.4), squeeze=False)
    for axis, (name, walked) in zip(axes[0], walks.items(), strict=True):
        for curator, track in walked.tracks.items():
            loud = curator in ("early", "fader")
            when = [datetime.fromtimestamp(at / 1e6, UTC) for at, _ in track]
            colour = {"early": "tab:green", "fader": "tab:red"}.get(curator, "0.75")
            axis.step(when, [value for _, value in track], where="post", color=colour, lw=1.8 if loud else 0.9,
                      label=curator if loud else None, zorder=3 if loud else 1)  # fmt: skip
        axis.axhline(1.0, color="black", lw=0.6)
        axis.set_title(name)
        axis.set_ylabel("alloc_mult asked for")
        axis.tick_params(axis="x", rotation=30)
        axis.legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Date" if path.suffix == ".svg" else "Software": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS), action="append")
    parser.add_argument("--books", type=Path, help="folder of databases; a temporary one unless given")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not DATA.exists():
        sys.exit("the recorded bars are not here: nothing to measure")
    walks = {}
    with tempfile.TemporaryDirectory(prefix="edgebook-") as scratch:
        folder = given.books or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.set or SETS:
            told, walks[name] = measure(name, folder)
            print(json.dumps(told) if given.json else "\n".join(lines(told)), flush=True)
    if given.plot is not None:
        plot(walks, given.plot)


if __name__ == "__main__":
    main()
