"""What the engine says on recorded bars: data sets, states, scores, flags and gates, each as a section of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from calibration.measure import GATES, Array, Measured
from calibration.text import Section, count, fold, listed, number, percent, plural, table
from edgebook.domain.levers import LEVERS
from edgebook.domain.reading import EXIT_REASONS, WARM_BARS
from edgebook.engine.states import S0, S1, S2, S3, S4, STATE_NAMES

Sets = Sequence[Measured]
Mask = Callable[[Measured], Array]

#: The transitions of the state machine, in the order an attempt meets them.
WAYS: tuple[tuple[int, int], ...] = ((S4, S0), (S0, S1), (S1, S0), (S1, S2), (S2, S1), (S2, S3), (S3, S0))
#: Scores by name: column, and the states in which they are due.
SCORES: dict[str, tuple[str, tuple[int, ...]]] = {
    "TS": ("ts_score", (S1, S2, S3)),
    "ts_with_boost": ("ts_with_boost", (S1, S2, S3)),
    "sr_boost": ("sr_boost", (S1, S2, S3)),
    "OX": ("ox", (S2, S3)),
    "DX": ("dx", (S3,)),
    "EDX": ("edx", (S3,)),
    "edx_suppression": ("edx_suppression", (S3,)),
    "TI": ("ti", (S3,)),
}
QUANTILES = (0.01, 0.05, 0.25, 0.50, 0.75, 0.95, 0.99)


def _in(state: int, mask: Mask) -> Mask:
    return lambda m: np.asarray((m["state"] == state) & mask(m))


def _exit(code: int) -> Mask:
    return lambda m: np.asarray(m["exit_reason"] == code)


#: Flags by name: the state whose bars they are counted against, and where they fire.
FLAGS: dict[str, tuple[int, Mask]] = {
    "S1 buy_signal": (S1, lambda m: m["buy_signal"]),
    "S2 buy_flag": (S2, _in(S2, lambda m: m["buy_flag"])),
    "S3 buy_flag (DX)": (S3, _in(S3, lambda m: m["buy_flag"])),
    "first_dip": (S3, lambda m: m["first_dip"]),
    "S2 trim_flag": (S2, _in(S2, lambda m: m["trim_flag"])),
    "S3 trim_flag": (S3, _in(S3, lambda m: m["trim_flag"])),
    "emergency_exit, episodes": (S3, _in(S3, lambda m: m["emergency_exit"] & ~m["prev_emergency"])),
    "reclaimed_ema333": (S3, lambda m: m["reclaimed_ema333"]),
    "fakeout_recovery": (S3, lambda m: m["fakeout_recovery"]),
    **{f"exit: {EXIT_REASONS[code]}": (left, _exit(code)) for code, left in ((1, S1), (2, S3), (3, S3))},
    "watch_only": (S4, lambda m: np.asarray(m["state"] == S4)),
}
#: Where the price stands on a bar of S3.
PLACES: dict[str, Mask] = {
    "above EMA144": lambda m: np.asarray((m["state"] == S3) & (m["price"] > m["ema144"])),
    "in the band": lambda m: np.asarray((m["state"] == S3) & m["window"]),
    "below EMA333": lambda m: np.asarray((m["state"] == S3) & (m["price"] < m["ema333"]) & (m["price"] <= m["ema144"])),
}
#: Flags that a switch keeps silent by default.
SWITCHED_OFF = {f"exit: {EXIT_REASONS[3]}": "`global_exit` is off"}
#: Gates that are asked on the zone bars of a state (what makes a zone bar is passed there by definition).
ASKED: dict[int, tuple[str, ...]] = {
    S1: ("halo", "slope_min", "ts_min"),
    S2: ("slow_slope_min", "ts_min"),
    S3: ("slow_slope_min", "ts_min", "dx_min"),
}
ZONE = (
    "A zone bar is one that may open an entry window under base gates: S1 within 1.5 ATR of EMA60, S2 within half an "
    "ATR of EMA333, S3 between EMA333 and EMA144. Percent of zone bars on which a gate fails; in brackets, on which it "
    "is the only one that fails."
)


def data_sets(sets: Sets) -> Section:
    """Which bars were read, and how many are left after the warm-up."""
    rows = [
        (
            f"`{m.folder}`",
            f"{m.name} {m.timeframe}",
            f"{len(m.symbols)} ({m.warm_symbols})",
            count(m.bars),
            count(len(m)),
            percent(len(m) / m.bars) if m.bars else "",
            _period(m),
        )
        for m in sets
    ]
    head = (
        "folder",
        "name here",
        "symbols (warm)",
        "bars",
        "after warm-up",
        "%",
        "close of the first and the last bar after it",
    )
    text = (
        f"A state exists once {WARM_BARS} bars of a series were seen; in brackets the symbols that get there. Every "
        "figure below counts bars after the warm-up. Coarser timeframes are resampled from the files' own; a set's "
        "symbols are pooled, each bar counting once.\n\n"
    )
    total = sum(m.bars for m in sets)
    return Section(
        "Data sets",
        text + table(head, rows, 2),
        (f"{plural(total, 'bar')} were read in {plural(len(sets), 'set')}, counting each timeframe of a folder.",),
    )


def _period(m: Measured) -> str:
    if not len(m):
        return ""
    days = [datetime.fromtimestamp(int(ts) // 1_000_000, UTC).date() for ts in (m["ts"].min(), m["ts"].max())]
    return f"{days[0]} to {days[1]}"


def states(sets: Sets) -> Section:
    """Share of bars per state, transitions per 1,000 bars, and how long a finished S3 lasts."""
    shares, moves, unknown = [], [], 0
    for m in sets:
        bars = max(1, len(m))
        shares.append((m.label, *(percent(np.mean(m["state"] == code) if len(m) else math.nan) for code in range(5))))
        changed = transitions(m)
        unknown += sum(n for way, n in changed.items() if way not in WAYS)
        numbers = (f"{number(1000 * changed.get(way, 0) / bars)} ({count(changed.get(way, 0))})" for way in WAYS)
        lengths = spells(m["state"], m["prev_state"], S3)
        moves.append((m.label, *numbers, count(np.median(lengths)) if len(lengths) else ""))
    ways = [f"{STATE_NAMES[a]}→{STATE_NAMES[b]}" for a, b in WAYS]
    body = (
        "Percent of bars in each state: S0 downtrend, S1 primer, S2 defensive, S3 full trend, S4 no state yet.\n\n"
        + table(("set", *STATE_NAMES), shares)
        + "\n\n![Share of bars in each state](img/engine/states.png)\n\n"
        + "Transitions per 1,000 bars (and how many), and the median length in bars of the S3 spells that ended.\n\n"
        + table(("set", *ways, "S3 bars, median"), moves)
        + f"\n\nTransitions outside this table: {count(unknown)}."
    )
    finding = f"Every change of state is one of the {len(WAYS)} the state machine knows."
    return Section("States and transitions", body, () if unknown else (finding,))


def transitions(m: Measured) -> dict[tuple[int, int], int]:
    """Number of changes by (from, to)."""
    before, after = m["prev_state"].astype(int), m["state"].astype(int)
    pairs = np.bincount((before * 5 + after)[before != after], minlength=25)
    return {divmod(int(i), 5): int(pairs[i]) for i in np.flatnonzero(pairs)}


def spells(state: Array, before: Array, code: int) -> Array:
    """Lengths in bars of the stays in ``code`` that ended, in order; a stay cut off by the end of its series is left
    out."""
    starts = np.flatnonzero((state == code) & (before != code))
    ends = np.flatnonzero((state != code) & (before == code))
    after = np.searchsorted(ends, starts)
    following = np.r_[starts[1:], len(state)]
    done = after < len(ends)
    done[done] = ends[after[done]] < following[done]
    return ends[after[done]] - starts[done]


def due(m: Measured, name: str) -> Array:
    """Values of a score on the bars where it is due."""
    column, where = SCORES[name]
    return np.asarray(m[column][np.isin(m["state"], where)])


def scores(sets: Sets) -> Section:
    """Quantiles of every score, pooled and per set."""
    head = ("", "states", "bars", *(f"q{100 * q:02.0f}" for q in QUANTILES))
    pooled, folds, missing = [], [], 0
    for name, (_, where) in SCORES.items():
        values = np.concatenate([due(m, name) for m in sets])
        missing += int(np.isnan(values).sum())
        inside = ", ".join(STATE_NAMES[code] for code in where)
        pooled.append((name, inside, count(len(values)), *_quantiles(values)))
        rows = [(m.label, inside, count(len(due(m, name))), *_quantiles(due(m, name))) for m in sets]
        folds.append(fold(f"{name}, set by set", table(("set", *head[1:]), rows, 2)))
    body = (
        "Quantiles over all sets together, then the spread within each set; the tables behind the plot are folded.\n\n"
        + table(("score", *head[1:]), pooled, 2)
        + "\n\n![Spread of every score in every set](img/engine/scores.png)\n\n"
        + "\n".join(folds)
        + "\n\n![Scores against the thresholds they meet](img/engine/histograms.png)\n\n"
        + _dx_by_place(sets)
        + f"\n\nScores missing on a bar where they are due: {count(missing)}."
    )
    return Section("Scores", body)


def _dx_by_place(sets: Sets) -> str:
    """DX by where the price stands, and how many bars a learned ``dx_min`` could turn."""
    least, cap = LEVERS["dx_min"].base, LEVERS["dx_min"].cap
    rows = []
    for place, where in PLACES.items():
        values = np.concatenate([m["dx"][where(m)] for m in sets])
        if len(values):
            quantiles = (number(q, 3) for q in np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)))
            near = percent(float(np.mean(np.abs(values - least) <= cap)))
            rows.append((place, count(len(values)), *quantiles, percent(float(np.mean(values >= least))), near))
    head = ("price", "S3 bars", "q05", "q25", "q50", "q75", "q95", f"at least {least}, %", f"within {cap} of it, %")
    text = (
        "DX by where the price stands, every set together. Below EMA333 the emergency bars every DX buy, whatever DX "
        "says; the last column counts the bars near enough to the threshold for a moved `dx_min` to turn them.\n\n"
    )
    return text + table(head, rows)


def _quantiles(values: Array) -> list[str]:
    known = values[~np.isnan(values)]
    found = np.quantile(known, QUANTILES) if len(known) else np.full(len(QUANTILES), np.nan)
    return [number(value, 3) for value in found]


def flags(sets: Sets) -> Section:
    """How often every flag fires, which never do, and what the global exit would change."""
    counts = {m.label: {name: int(mask(m).sum()) for name, (_, mask) in FLAGS.items()} for m in sets}
    base = {m.label: {name: _bars(m, state) for name, (state, _) in FLAGS.items()} for m in sets}
    never = [name for name in FLAGS if not any(found[name] for found in counts.values())]
    dead = [name for name in never if name not in SWITCHED_OFF]
    head = ("set", *(f"{name}" for name in FLAGS))
    per_state = [(k, *(_rate(n, base[k][name]) for name, n in found.items())) for k, found in counts.items()]
    per_bar = [(m.label, *(_rate(n, len(m)) for n in counts[m.label].values())) for m in sets]
    body = (
        "Times per 1,000 bars of the flag's own state (exits: of the state that is left; emergency exits are counted "
        "once per stay below EMA333, not per bar; watch_only against all bars).\n\n"
        + table(head, per_state)
        + "\n\n"
        + fold("Times per 1,000 bars of any state", table(head, per_bar))
        + "\n"
        + fold("Counts", table(head, [(k, *map(count, found.values())) for k, found in counts.items()]))
        + f"\n\n**Flags that fire in no set:** {_named(never)}.\n\n"
        + _silent_table(sets, counts, base)
        + "\n\n### With the global exit switched on\n\n"
        + _global_exit(sets)
    )
    alive = f"Of {len(FLAGS)} flags {'none is dead' if not dead else 'these never fire: ' + listed(dead)}"
    off = [f"`{name}` ({SWITCHED_OFF[name]})" for name in never if name in SWITCHED_OFF]
    return Section("Flags", body, (alive + (f"; silent by a switch: {listed(off)}." if off else "."),))


def _bars(m: Measured, state: int) -> int:
    return len(m) if state == S4 else int(np.sum(m["state"] == state))


def _rate(times: int, bars: int) -> str:
    return number(1000 * times / bars) if bars else ""


def _named(never: list[str]) -> str:
    return listed([f"`{n}`" + (f" ({SWITCHED_OFF[n]})" if n in SWITCHED_OFF else "") for n in never]) or "none"


def _silent_table(sets: Sets, counts: dict[str, dict[str, int]], base: dict[str, dict[str, int]]) -> str:
    """Flags that are silent in a set without being switched off: how surprising that is, and what stood in the way."""
    rows = []
    for name in (name for name in FLAGS if name not in SWITCHED_OFF):
        everywhere = sum(found[name] for found in counts.values())
        pooled = everywhere / max(1, sum(bars[name] for bars in base.values()))
        for m in sets:
            bars = base[m.label][name]
            if bars and not counts[m.label][name]:
                chance = percent(math.exp(-pooled * bars)) if everywhere else ""
                rows.append((name, m.label, count(bars), number(pooled * bars, 1), chance, _obstacles(m, name)))
    if not rows:
        return "Every other flag fires in every set that has bars of its state."
    head = ("flag", "silent in", "bars of its state", "expected at the pooled rate", "chance of none, %", "in the way")
    return "Single sets in which another flag is silent:\n\n" + table(head, rows, 2)


def _obstacles(m: Measured, name: str) -> str:
    """What kept a flag silent: for a buy the gates that fail most on its state's bars, else its other conditions."""
    state, _ = FLAGS[name]
    if "buy" in name:
        fails = {gate: float(m.failed(gate)[m["state"] == state].mean()) for gate in GATES}
        worst = sorted(fails, key=lambda gate: -fails[gate])[:2]
        return ", ".join(f"`{gate}` fails on {percent(fails[gate])} %" for gate in worst)
    if name == "fakeout_recovery":
        at = m["reclaimed_ema333"]
        low = [count(int(np.sum(m[score][at] < 0.5))) for score in ("ti", "ts_score")]
        return f"{count(int(at.sum()))} reclaims: TI below 0.5 on {low[0]}, TS on {low[1]}"
    return ""


def _global_exit(sets: Sets) -> str:
    rows = []
    for m in sets:
        off, on = m.columns, m.global_exit
        exits = [count(np.sum(side["exit_reason"] == code)) for code in (1, 2, 3) for side in (off, on)]
        lengths = [spells(side["state"], side["prev_state"], S3) for side in (off, on)]
        medians = [count(np.median(found)) if len(found) else "" for found in lengths]
        below = [side["emergency_exit"][side["state"] == S3] for side in (off, on)]
        rows.append((m.label, *exits, *medians, *(percent(found.mean()) if len(found) else "" for found in below)))
    names = [f"{EXIT_REASONS[code]}, {side}" for code in (1, 2, 3) for side in ("off", "on")]
    head = ("set", *names, "S3 bars, median, off", "on", "% of S3 below EMA333, off", "on")
    others = sum(int(np.isin(m.global_exit["exit_reason"], (1, 2)).sum()) for m in sets)
    fast = sum(int(np.sum(m.global_exit["exit_reason"] == 3)) for m in sets)
    return (
        "The same bars with `global_exit` on: exits by reason, length of a finished S3, and the share of S3 bars below "
        f"EMA333. Switched on, it is the reason of {count(fast)} exits and leaves {count(others)} to the other two.\n\n"
        + table(head, rows)
    )


def gates(sets: Sets) -> Section:
    """Which gate blocks how often, on zone bars and on all bars of a state, and by what margin when it blocks alone."""
    parts = [ZONE]
    for state, asked in ASKED.items():
        rows = [row for m in sets if (row := _gate_row(m, (m["state"] == state) & m["window"], asked))]
        head = ("set", "zone bars", "flag on, %", *asked, "exactly one fails, %")
        parts.append(f"**{STATE_NAMES[state]}**\n\n" + table(head, rows))
    parts.append("![Which gate blocks on zone bars](img/engine/gates.png)")
    parts.append(fold("All bars of a state, every set together", _all_bars(sets)))
    parts.append(
        "How far the gate was missed on zone bars where it alone failed (natural units: a score, ATR, or a fraction "
        "per bar). Within the cap, the distance still says something about the gate (`domain/levers.py`).\n\n"
        + _margins(sets)
    )
    missing = sum(int(m.failed("missing_input").sum()) for m in sets)
    parts.append(f"Checks that failed for want of an input: {count(missing)}.")
    worst = {STATE_NAMES[s]: _most_alone(sets, s) for s in ASKED}
    finding = "The gate that most often stands alone between a zone bar and a buy: " + ", ".join(
        f"`{gate}` in {state} ({percent(share)} % of zone bars)" for state, (gate, share) in worst.items() if gate
    )
    return Section("Gates", "\n\n".join(parts), (finding + ".",))


def _gate_row(m: Measured, where: Array, asked: Sequence[str]) -> tuple[str, ...] | None:
    bars = int(where.sum())
    if not bars:
        return None
    on = (m["buy_signal"] | m["buy_flag"])[where].mean()
    shares = (f"{percent(m.failed(g)[where].mean())} ({percent(m.fails_alone(g)[where].mean())})" for g in asked)
    return (m.label, count(bars), percent(on), *shares, percent(_one_fails(m)[where].mean()))


def _one_fails(m: Measured) -> Array:
    failed = m["failed"]
    return np.asarray((failed != 0) & (failed & (failed - np.uint16(1)) == 0))


def _all_bars(sets: Sets) -> str:
    rows = []
    for state in ASKED:
        where = [m["state"] == state for m in sets]
        bars = max(1, sum(int(w.sum()) for w in where))
        fails = [sum(int(m.failed(g)[w].sum()) for m, w in zip(sets, where, strict=True)) for g in GATES]
        alone = [sum(int(m.fails_alone(g)[w].sum()) for m, w in zip(sets, where, strict=True)) for g in GATES]
        shown = (f"{percent(a / bars)} ({percent(b / bars)})" if a else "" for a, b in zip(fails, alone, strict=True))
        rows.append((STATE_NAMES[state], count(bars), *shown))
    return table(("state", "bars", *GATES), rows)


def _margins(sets: Sets) -> str:
    rows = []
    for state, asked in ASKED.items():
        for gate in asked:
            missed, caps = [], []
            for m in sets:
                found = -m.margin(gate)[(m["state"] == state) & m["window"] & m.fails_alone(gate)].astype(np.float64)
                missed.append(found)
                caps.append(found <= LEVERS[gate].at(m.timeframe).cap)
            values, near = np.concatenate(missed), np.concatenate(caps)
            if not len(values):
                continue
            digits = 5 if "slope" in gate else 3
            quartiles = (number(q, digits) for q in np.quantile(values, (0.25, 0.5, 0.75)))
            cap = number(LEVERS[gate].cap, 3) + (" at 1h" if LEVERS[gate].scaled else "")
            rows.append((f"{STATE_NAMES[state]} `{gate}`", count(len(values)), *quartiles, cap, percent(near.mean())))
    head = ("gate", "bars", "missed by, q25", "median", "q75", "cap", "within cap, %")
    return table(head, rows)


def _most_alone(sets: Sets, state: int) -> tuple[str, float]:
    """The gate that most often fails alone on the zone bars of a state, and how often; no name without such bars."""
    where = [(m["state"] == state) & m["window"] for m in sets]
    bars = sum(int(w.sum()) for w in where)
    if not bars:
        return "", math.nan
    shares = {
        gate: sum(int(m.fails_alone(gate)[w].sum()) for m, w in zip(sets, where, strict=True)) / bars
        for gate in ASKED[state]
    }
    gate = max(shares, key=lambda name: shares[name])
    return gate, shares[gate]
