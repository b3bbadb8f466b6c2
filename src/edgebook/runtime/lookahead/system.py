"""Look-ahead in the system: what the tape says at a moment, and the log, with and without the bars after a cut.

The tape (`check_tape`): regime, readings, events, marks, volumes and bar counts at moments up to the cut.

The log (`check_log`) of the whole run is compared with two others.

A run that is given its bars a day or a few days at a time has to write the same log to the last strand: at the end of
each piece it knows nothing of the next, and decides.

A run whose feed ends at T has to write the log of the whole run up to T, ids and hashes, but for one thing: orders
planned by T are filled at the open of the bar that opens at T, which a feed that ends at T does not have. Fills are the
last step of a moment (`runtime.scheduler`), so what has to be equal is everything recorded before T and everything
recorded at T before the first fill, refusal or expiry: bars, signals, decisions, plans, jobs.

Every hash is over all strands before it, so equal hashes at the end are equal logs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.adapters.memory import MemoryStore
from edgebook.domain.decay import DAY
from edgebook.domain.reading import MarketReading
from edgebook.domain.regime import Regime
from edgebook.domain.strands import Strand
from edgebook.domain.timeframe import micros
from edgebook.market.composite import cap_class
from edgebook.runtime import bootstrap
from edgebook.runtime.backtest import GROUP_STRANDS
from edgebook.runtime.bootstrap import Feed
from edgebook.runtime.lookahead.cut import Difference, Findings, cut_feed, spread
from edgebook.runtime.market import Tape
from edgebook.runtime.scheduler import run_simulated
from edgebook.runtime.settings import Settings

Json = Any
Note = Callable[[str], None]

TAPE_SHARES = (0.2, 0.4, 0.6, 0.8)
CHANGE_SHARES = (0.3, 0.5, 0.7)
LOG_SHARES = (1 / 3, 2 / 3)
#: Moments before a cut at which the tape is asked: so many just before it, and so many over all time.
NEAR, FAR = 48, 200
#: Bars of each timeframe before a cut whose readings are compared.
NEAR_BARS = 3
#: A run in pieces has about so many, of whole days.
PIECES = 200
#: How far along the tape a change of appetite is looked for.
SEARCH = 2_000
_SETTLED = ("order_filled", "order_rejected", "order_expired")
_TICKED = ("pm_action", "pm_skipped", "uptrend_stage_transition", "uptrend_buy_window", "uptrend_episode_summary")


# ------------------------------------------------------------------ the tape


def open_tape(settings: Settings, feed: Feed, start: int | None) -> Tape:
    """The tape a run over ``feed`` reads, loaded to its end.

    Raises:
        InputError: no bars after ``start``.
    """
    with bootstrap.system(MemoryStore(), settings, feed, start=start, strict=True) as system:
        return system.tape


def check_tape(settings: Settings, feed: Feed, whole: Tape, note: Note) -> Findings:
    """Ask the whole tape and tapes cut at several moments the same questions about the time before each cut."""
    findings = Findings()
    cuts = tape_cuts(whole)
    for number, cut in enumerate(cuts, 1):
        note(f"regime and readings, cut {number} of {len(cuts)}")
        findings.cuts += 1
        _compare_tapes(whole, open_tape(settings, cut_feed(feed, cut), whole.start), cut, findings)
    return findings


def tape_cuts(tape: Tape) -> list[int]:
    """Moments to cut a tape at, ascending: quantiles of its time, and the last moment before appetite changes."""
    grid = _grid(tape)
    found = {int(grid[i]) for i in spread(len(grid), TAPE_SHARES)}
    for i in spread(len(grid), CHANGE_SHARES):
        found |= _before_change(tape, grid[i : i + SEARCH].tolist())
    return sorted(found)


def _grid(tape: Tape) -> NDArray[np.int64]:
    """All moments after the start and before the end: there must be something to cut off."""
    return tape.closes(tape.start, tape.loaded_until - 1)


def _before_change(tape: Tape, moments: Sequence[int]) -> set[int]:
    """The last of ``moments`` before A or E of the finest timeframe changes, if they do."""
    said = None
    for before, now in zip([None, *moments], moments, strict=False):
        regime = tape.regime(tape.timeframes[0], "", now)
        if before is not None and said != (regime.a_base, regime.e_base):
            return {before}
        said = regime.a_base, regime.e_base
    return set()


def _compare_tapes(whole: Tape, short: Tape, cut: int, findings: Findings) -> None:
    moments = _grid(whole)
    moments = moments[moments <= cut]
    far = moments[np.unique(np.linspace(0, len(moments) - 1, FAR).astype(np.int64))]
    classes = sorted({cap_class(token.mcap_usd) for token in whole.tokens.values()} | {""})
    for timeframe in whole.timeframes:
        for now in np.union1d(far, moments[-NEAR:]).tolist():
            for name in classes:
                where = ("", timeframe, now, cut)
                findings.compare(_regime(whole, timeframe, name, now), _regime(short, timeframe, name, now), where)
        for now in moments[-NEAR:].tolist():
            findings.compare(_due(whole, timeframe, now), _due(short, timeframe, now), ("", timeframe, now, cut))
        for symbol in whole.symbols:
            for now in (cut // micros(timeframe) - np.arange(NEAR_BARS)).tolist():
                where = (symbol, timeframe, now * micros(timeframe), cut)
                findings.compare(_seen(whole, *where[:3]), _seen(short, *where[:3]), where)


def _regime(tape: Tape, timeframe: str, name: str, now: int) -> dict[str, Json]:
    """Everything a regime says for tokens of one cap class."""
    regime = tape.regime(timeframe, name, now)
    prefix = f"{name} " if name else ""
    plain = (field for field in Regime.__slots__ if field not in ("scope", "snapshot"))
    facts: dict[str, Json] = {field: getattr(regime, field) for field in plain}
    facts |= {f"scope {dim}": value for dim, value in regime.scope}
    facts |= {f"snapshot {fact}": value for fact, value in regime.snapshot.items()}
    return {prefix + fact: value for fact, value in facts.items()}


def _due(tape: Tape, timeframe: str, now: int) -> dict[str, Json]:
    """The events of the bars that close at ``now``, by symbol."""
    return {f"events of {symbol}": bits for symbol, bits in tape.due(timeframe, now)}


def _seen(tape: Tape, symbol: str, timeframe: str, now: int) -> dict[str, Json]:
    """What a tick sees of one symbol at a bar's close."""
    reading = tape.reading(symbol, timeframe, now)
    facts: dict[str, Json] = {
        "bars_count": tape.bars_count(symbol, timeframe, now),
        "mark": tape.mark(symbol, now),
        "volume_24h_usd": tape.volume_24h_usd(symbol, now),
    }
    if reading is not None:
        facts |= {name: getattr(reading, name) for name in MarketReading.__slots__}
    return facts


# ------------------------------------------------------------------ the log


@dataclass(frozen=True, slots=True)
class Entry:
    """What is compared of a strand: its place, its identity, the hash of the log up to it."""

    seq: int
    ident: str
    hash: str
    kind: str
    symbol: str
    timeframe: str
    ts: int


@dataclass(frozen=True, slots=True)
class LogCut:
    """One comparison of the log of the whole run with another.

    Attributes:
        cut: where the other's feed ended, microseconds UTC; 0 for the run that was given all bars, but in pieces.
        days: length of a piece; 0 for a run that was not given its bars in pieces.
        strands: strands that had to be equal.
        left_out: fills, refusals and expiries at the cut itself and what followed from them, in the whole log.
        equal: whether all of them were.
    """

    cut: int
    days: int
    strands: int
    left_out: int
    equal: bool


def write_log(settings: Settings, feed: Feed, start: int | None) -> list[Entry]:
    """Walk a finite ``feed`` to its end in a store that is thrown away; every strand in order."""
    entries: list[Entry] = []

    def listen(strand: Strand) -> None:
        where = (strand.kind, strand.symbol, strand.timeframe, strand.ts_recorded)
        entries.append(Entry(strand.seq, strand.id, strand.hash, *where))

    grouped = settings.model_copy(update={"commit_every_strands": GROUP_STRANDS})
    with bootstrap.system(MemoryStore(), grouped, feed, start=start, strict=True) as system:
        assert system.tape.end is not None
        system.desk.listener = listen
        run_simulated(system, system.tape.end)
    return entries


def check_log(settings: Settings, feed: Feed, whole: Tape, note: Note) -> tuple[Findings, list[LogCut], str]:
    """Run to the end, once more piece by piece, and again to each cut, and compare the logs.

    Returns:
        The findings, one row per comparison, and the last hash of the whole log ("" if it is empty).
    """
    note("the whole run")
    findings, rows = Findings(), []
    log = write_log(settings, feed, whole.start)
    days = 1 + (whole.loaded_until - whole.start) // DAY // PIECES
    note(f"the run in pieces of {days} days")
    pieces = write_log(settings, replace(feed, chunk_days=days), whole.start)
    rows.append(LogCut(0, days, len(log), 0, equal=compare_logs(log, pieces, 0, findings)))
    cuts = log_cuts(log, whole)
    for number, cut in enumerate(cuts, 1):
        note(f"the run cut short, {number} of {len(cuts)}")
        short = write_log(settings, cut_feed(feed, cut), whole.start)
        known = known_at(log, cut)
        left_out = sum(entry.ts <= cut for entry in log) - len(known)
        same = compare_logs(known, known_at(short, cut), cut, findings)
        rows.append(LogCut(cut, 0, len(known), left_out, equal=same))
    findings.cuts = len(rows)
    return findings, rows, log[-1].hash if log else ""


def log_cuts(log: Sequence[Entry], tape: Tape) -> list[int]:
    """Moments to end runs at, ascending: of those about a third and two thirds along the log, the ones at which ticks
    wrote most (actions, transitions, windows, episodes), since there most depends on what was known.

    Without any such strand it is thirds of the time.
    """
    ticks = [entry.ts for entry in log if entry.kind in _TICKED and entry.ts < tape.loaded_until]
    moments = ticks or _grid(tape).tolist()
    found: set[int] = set()
    for i in spread(len(moments), LOG_SHARES):
        reach = max(1, len(moments) // 20)
        counts = Counter(moments[max(0, i - reach) : i + reach])
        found.add(max(sorted(counts), key=lambda ts: counts[ts]))
    return sorted(found)


def known_at(log: Sequence[Entry], cut: int) -> list[Entry]:
    """What a run that ends at ``cut`` has to have: all before it, and what was recorded at it before the first fill."""
    known = [entry for entry in log if entry.ts <= cut]
    at = next((i for i, entry in enumerate(known) if entry.ts == cut and entry.kind in _SETTLED), len(known))
    return known[:at]


def compare_logs(whole: Sequence[Entry], other: Sequence[Entry], cut: int, findings: Findings) -> bool:
    """Compare two logs strand by strand; the first difference is noted, the hashes carry it to the end.

    Args:
        cut: as in `LogCut`.

    Returns:
        Whether they are equal.
    """
    findings.comparisons += len(whole)
    for one, two in zip_longest(whole, other):
        if one != two:
            first = min((entry for entry in (one, two) if entry is not None), key=lambda entry: entry.ts)
            before, after = (asdict(entry) if entry else "absent" for entry in (one, two))
            findings.differ(Difference(first.symbol, first.timeframe, first.ts, first.kind, before, after, cut))
            return False
    return True
