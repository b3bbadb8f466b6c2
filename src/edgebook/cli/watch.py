"""``edgebook run``: the system under a paced clock, with a live screen or plain lines."""

from __future__ import annotations

import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from edgebook.cli.show import console, levers_text, scope_text, short, table
from edgebook.cli.times import moment
from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError
from edgebook.domain.masking import masked
from edgebook.domain.strands import DecisionLowcap, Nudge, PmAction, Strand
from edgebook.runtime import bootstrap, views
from edgebook.runtime.ingress import listening
from edgebook.runtime.scheduler import run_held, run_live, run_paced
from edgebook.runtime.settings import Settings
from edgebook.runtime.system import System

PLAIN_EVERY_SECONDS = 2.0
SHOWN = 6


def watch_run(
    settings: Settings,
    *,
    signals: Path | None,
    regime_bars: Path | None,
    until: str | None,
    plain: bool,
    held: bool = False,
) -> None:
    """Turn the system on and show it until the end of the feed, ``until``, or Ctrl-C."""
    out = console()
    feed = bootstrap.open_feed(settings, signals, regime_bars)
    if held and feed.venue is not None:
        raise InputError(f"feed {settings.feed} runs as fast as time does; --held is for the others")
    begin = feed.start if feed.start is not None else feed.source.span[0]
    end = _until(until, begin)
    with bootstrap.system(bootstrap.open_store(settings.db), settings, feed) as system:
        if system.tape.dropped:
            out.print(
                f"left out: {', '.join(system.tape.dropped)} (finer than the {system.tape.base} bars of this feed)"
            )
        stop = _stop_on_signals()
        with listening(settings.db, settings.port) as (inbox, port):
            out.print(
                f"edgebook on {settings.feed}, database {masked(settings.db)}, ingress 127.0.0.1:{port}, "
                f"from {views.when(system.clock)} UTC"
            )
            screen = _Lines(out, stop) if plain else _Screen(out, settings, stop)
            with screen:
                if feed.venue is not None:
                    run_live(system, feed.venue, end, inbox, screen.beat)
                elif held:
                    run_held(system, end, inbox, screen.beat)
                else:
                    run_paced(system, settings.speed, end, inbox, screen.beat)
        _farewell(out, system)


def _until(text: str | None, begin: int) -> int | None:
    if text is None:
        return None
    if text.endswith("d") and text[:-1].replace(".", "", 1).isdigit():
        return begin + int(float(text[:-1]) * DAY)
    found = moment(text, "--until")
    if found is not None and found <= begin:
        raise InputError(f"--until {text} is not after the start of the feed, {views.when(begin)}")
    return found


def _stop_on_signals() -> Callable[[], bool]:
    """Ctrl-C and SIGTERM end the run between two beats, after a commit; a second Ctrl-C ends it at once."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        if asked:
            signal.default_int_handler(number, None)
        asked.append(number)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return lambda: bool(asked)


class _Follower:
    """What has happened since the last beat, read from the log."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop
        self._seq = -1
        self.nudged: Counter[str] = Counter()
        self.last: dict[str, Strand] = {}
        self.began = time.monotonic()
        self.clock0 = 0

    def follow(self, system: System) -> list[Strand]:
        """New nudged decisions, oldest first."""
        log = system.desk.uow.log
        if self._seq < 0:
            self._seq, self.clock0 = log.head[0], system.clock
        found = []
        for strand in log.read(self._seq, ("decision_lowcap", "pm_action", "uptrend_buy_window")):
            for channel in _channels(strand):
                self.nudged[channel] += 1
                self.last[channel] = strand
                found.append(strand)
        self._seq = log.head[0]
        return found

    def pace(self, system: System) -> float:
        """Simulated seconds per wall second so far."""
        return (system.clock - self.clock0) / 1e6 / max(1e-9, time.monotonic() - self.began)


def _channels(strand: Strand) -> set[str]:
    channels = set()
    for nudge in getattr(strand.payload, "nudges", ()):
        if abs(nudge.applied - nudge.base) > 1e-12:
            channels.add(
                "allocations"
                if nudge.lever == "alloc_mult"
                else "sizes"
                if nudge.lever.endswith("_mult") and nudge.lever != "edx_supp_mult"
                else "gates"
            )
    return channels


def _nudge_text(nudge: Nudge) -> str:
    lesson = max(nudge.matched, key=lambda m: abs(sum(m.targets.values()) - len(m.targets)), default=None)
    why = f", most by {scope_text(lesson.scope)} -> {levers_text(lesson.targets)} ({lesson.status})" if lesson else ""
    return f"{nudge.lever} {nudge.base:.4g} -> {nudge.applied:.4f} by {len(nudge.matched)} overrides{why}"


def _decision_text(strand: Strand) -> list[str]:
    payload = strand.payload
    head = f"{strand.kind} {strand.id[:8]} {strand.symbol} {strand.timeframe} at {views.when(strand.ts_event)}"
    if isinstance(payload, DecisionLowcap):
        head += f": {payload.curator_id}, {payload.base_allocation_pct:.3g} % -> {payload.allocation_pct:.4g} %"
    elif isinstance(payload, PmAction):
        size = f"size {payload.base_size_frac:.4f} -> {payload.size_frac:.4f}"
        head += f": {payload.decision_type} rule {payload.rule}, {size}"
    nudges = [n for n in getattr(payload, "nudges", ()) if abs(n.applied - n.base) > 1e-12]
    return [head, *(f"  {_nudge_text(n)}" for n in nudges)]


class _Lines(_Follower):
    """Plain lines: one every two seconds, and one for the first of everything."""

    def __init__(self, out: Console, stop: Callable[[], bool]) -> None:
        super().__init__(stop)
        self._out, self._next, self._seen = out, 0.0, set[str]()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def beat(self, system: System, now: int) -> bool:
        """Print what is new; False ends the run."""
        for strand in self.follow(system):
            for channel in sorted(_channels(strand) - self._seen):
                self._seen.add(channel)
                self._out.print(f"first nudge of {channel}:", *_decision_text(strand), sep="\n  ")
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_EVERY_SECONDS
            self._out.print(_headline(system, self), soft_wrap=True)
        return not self.stop()


class _Screen(_Follower):
    """The live screen."""

    def __init__(self, out: Console, settings: Settings, stop: Callable[[], bool]) -> None:
        super().__init__(stop)
        self._settings = settings
        self._live = Live(console=out, refresh_per_second=4, screen=False)
        self._recent: deque[Strand] = deque(maxlen=3)

    def __enter__(self) -> _Screen:
        self._live.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self._live.stop()

    def beat(self, system: System, now: int) -> bool:
        """Draw; False ends the run."""
        self._recent.extend(self.follow(system))
        self._live.update(self._draw(system))
        return not self.stop()

    def _draw(self, system: System) -> Group:
        uow = system.desk.uow
        return Group(
            Panel(_headline(system, self), title="edgebook", title_align="left"),
            _positions(system),
            _trades(system),
            _lessons(system),
            Panel(
                "\n".join(line for s in self._recent for line in _decision_text(s)) or "no override has matched yet",
                title="latest nudged decisions",
                title_align="left",
            ),
            f"overrides in force: {_counts(views.override_counts(uow))}   Ctrl-C stops",
        )


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


def _headline(system: System, follower: _Follower) -> str:
    uow = system.desk.uow
    trades = list(uow.trades.values())
    pnl = sum(float(t.pnl_usd) for t in trades)
    holding = sum(1 for p in uow.positions.values() if p.holding)
    lessons = Counter(x.lesson_type for x in uow.lessons.values() if views.acts(x))
    parts = [
        f"{views.when(system.clock)}",
        f"x{follower.pace(system):,.0f}",
        f"{uow.log.head[0]:,} strands",
        f"{len(uow.positions)} positions ({holding} holding)",
        f"{len(trades)} trades closed, pnl {pnl:+,.0f} USD",
        "lessons " + (_counts(lessons) or "none yet"),
        f"config v{system.desk.history.current_version}",
        "nudged " + (_counts(follower.nudged) or "nothing yet"),
    ]
    if len(uow.dead_letters):
        parts.append(f"{len(uow.dead_letters)} dead letters")
    return " | ".join(parts)


def _positions(system: System) -> Table:
    held = [p for p in system.desk.uow.positions.values() if p.holding]
    held.sort(key=lambda p: -p.ledger.cost)
    rows = []
    for p in held[:SHOWN]:
        mark = system.tape.mark(p.symbol, system.clock) or 0.0
        value = float(p.ledger.quantity) * mark
        total = value + float(p.ledger.extracted - p.ledger.invested)
        rows.append(
            (
                p.symbol,
                p.timeframe,
                f"{float(p.ledger.cost):,.2f}",
                f"{value:,.2f}",
                f"{total:+,.2f}",
                len(p.actions),
                views.when(p.entry_ts)[5:16],
            )
        )
    return table(f"open positions ({len(held)})", ("symbol", "tf", "cost", "value", "pnl", "actions", "since"), rows)


def _trades(system: System) -> Table:
    trades = list(system.desk.uow.trades.values())[-SHOWN:]
    rows = [
        (
            t.symbol,
            t.timeframe,
            t.curator_id,
            f"{t.rr:+.2f}",
            f"{float(t.pnl_usd):+,.2f}",
            t.exit_reason,
            views.when(t.closed_at)[5:16],
        )
        for t in reversed(trades)
    ]
    return table("closed trades", ("symbol", "tf", "curator", "rr", "pnl", "exit", "closed"), rows)


def _lessons(system: System) -> Table:
    acting = [x for x in system.desk.uow.lessons.values() if views.acts(x)]
    best: list[tuple[str, ...]] = []
    for kind in ("dm_alloc", "pm_strength", "pm_tuning"):
        some = sorted((x for x in acting if x.lesson_type == kind), key=lambda x: -x.lesson_strength)[:3]
        best += [
            (
                x.lesson_type,
                x.status,
                short(x.pattern_key),
                scope_text(x.scope_values),
                levers_text(views.levers_of(x)),
                str(x.stats.get("n", "-")),
            )
            for x in some
        ]
    return table("strongest lessons", ("type", "status", "pattern", "scope", "target", "n"), best)


def _farewell(out: Console, system: System) -> None:
    uow = system.desk.uow
    acting = sum(map(views.acts, uow.lessons.values()))
    out.print(
        f"stopped at {views.when(system.clock)} UTC; {len(uow.trades)} trades closed, {acting} lessons act, "
        f"config version {system.desk.history.current_version}"
    )
