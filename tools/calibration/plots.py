"""Plots of the page: states, scores, gates, S3 over time, the DX ladder, policies, and one stretch of real bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from calibration import trend
from calibration.measure import Array, Measured
from calibration.policies import BEYOND, POLICIES, Comparison
from calibration.sections import ASKED, FLAGS, PLACES, SCORES, Mask, due
from edgebook.engine.columns import EngineConfig
from edgebook.engine.gates import BASE_GATES
from edgebook.engine.signals import OX_TRIM
from edgebook.engine.states import S0, S1, S2, S3, S4, STATE_NAMES

Sets = Sequence[Measured]

STATE_COLOURS = ("#c0564b", "#e3b04b", "#6ba3d0", "#3f8f63", "#c9c9c9")
STATE_WORDS = ("downtrend", "primer", "defensive", "full trend", "no state yet")
INK, SOFT, ACCENT = "#333333", "#9a9a9a", "#1f5fa8"
PLACE_COLOURS = {"above EMA144": "#6ba3d0", "in the band": "#3f8f63", "below EMA333": "#c0564b"}
STYLE: Any = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
}


def draw_all(sets: Sets, found: Sequence[Comparison], directory: Path) -> list[str]:
    """Draw every plot there is something for into ``directory``; returns the names drawn."""
    directory.mkdir(parents=True, exist_ok=True)
    filled = [m for m in sets if len(m)]
    plots: dict[str, Callable[[], Figure | None]] = {
        "states.png": lambda: states(filled),
        "scores.png": lambda: scores(filled),
        "histograms.png": lambda: histograms(filled),
        "gates.png": lambda: gates(filled),
        "since_entry.png": lambda: since_entry(filled),
        "ladder.png": lambda: ladder(filled),
        "stretch.png": lambda: stretch(filled),
        "policies.png": lambda: policies(found),
    }
    drawn = []
    with mpl.rc_context(STYLE):
        for name, plot in plots.items():
            figure = plot()
            if figure is not None:
                figure.savefig(directory / name, dpi=105, pil_kwargs={"optimize": True})
                drawn.append(name)
    return drawn


def states(sets: Sets) -> Figure | None:
    """Share of bars per state, one bar a set."""
    if not sets:
        return None
    figure = Figure(figsize=(8, 1.0 + 0.27 * len(sets)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(sets))
    rows = np.arange(len(sets))[::-1]
    for code in range(5):
        share = np.array([100 * np.mean(m["state"] == code) for m in sets])
        axes.barh(rows, share, left=left, height=0.74, color=STATE_COLOURS[code], edgecolor="white", linewidth=0.6)
        for row, width, start in zip(rows, share, left, strict=True):
            if width >= 4:
                axes.text(start + width / 2, row, f"{width:.0f}", ha="center", va="center", fontsize=7.5,
                          color=INK if code == S4 else "white")  # fmt: skip
        left += share
    axes.set(xlim=(0, 100), ylim=(-0.6, len(sets) - 0.4), xlabel="% of bars after the warm-up")
    axes.set_yticks(rows, [m.label for m in sets])
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)
    keys = [Patch(color=c, label=f"{STATE_NAMES[i]} {STATE_WORDS[i]}") for i, c in enumerate(STATE_COLOURS)]
    figure.legend(handles=keys, loc="outside upper center", ncols=5, fontsize=8, handlelength=1.0)
    return figure


def scores(sets: Sets) -> Figure | None:
    """Small multiples: per score, the 1-99, 5-95 and 25-75 % spans and the median in every set."""
    if not sets:
        return None
    figure = Figure(figsize=(9.2, 1.2 + 0.42 * len(sets)), layout="constrained")
    grid = figure.subplots(2, 4, sharey=True, sharex=False)
    rows = np.arange(len(sets))[::-1]
    for axes, name in zip(grid.flat, SCORES, strict=True):
        for row, m in zip(rows, sets, strict=True):
            values = due(m, name)
            if len(values):
                _spread(axes, row, values)
        axes.set_title(name)
        top = {"sr_boost": 0.25, "edx_suppression": 0.15}.get(name, 1.0)
        axes.set(xlim=(0, top), xticks=np.linspace(0, top, 6 if top == 0.25 else 4 if top == 0.15 else 5))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.2f}".rstrip("0").rstrip("."))
        axes.grid(axis="x")
        axes.tick_params(left=False)
    for axes in grid[:, 0]:
        axes.set_yticks(rows, [m.label for m in sets], fontsize=7.5)
    figure.supxlabel("pale: 1 to 99 %   middle: 5 to 95 %   dark: 25 to 75 %   white: median", fontsize=8)
    return figure


def _spread(axes: Axes, row: int, values: Array) -> None:
    q = np.quantile(values, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99))
    for low, high, colour, height in ((0, 6, "#d5e3f1", 0.34), (1, 5, "#8fb7dc", 0.5), (2, 4, ACCENT, 0.66)):
        axes.barh(row, q[high] - q[low], left=q[low], height=height, color=colour)
    axes.plot([q[3], q[3]], [row - 0.33, row + 0.33], color="white", lw=1.4)


def histograms(sets: Sets) -> Figure | None:
    """Densities of the four scores that meet a threshold, by state or by place, every set together."""
    if not sets:
        return None
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    knees, least = EngineConfig(), BASE_GATES
    by_state = {f"{STATE_NAMES[code]}": (_state(code), STATE_COLOURS[code]) for code in (S1, S2, S3)}
    panels = (
        ("ts_with_boost", by_state, {"ts_min": least.ts_min}),
        ("OX", {name: by_state[name] for name in ("S2", "S3")}, {"trim": OX_TRIM}),
        ("DX", {f"S3, {k}": (PLACES[k], c) for k, c in PLACE_COLOURS.items()}, {"dx_min": least.dx_min}),
        ("EDX", {"S3": by_state["S3"]}, {"knee": knees.edx_knee, "full": knees.edx_full}),
    )
    for axes, (name, groups, lines) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for label, (where, colour) in groups.items():
            values = np.concatenate([m[SCORES[name][0]][where(m)] for m in sets])
            if len(values):
                heights, edges = np.histogram(values, bins=100, range=(0.0, 1.0), density=True)
                axes.stairs(heights, edges, color=colour, lw=1.4, label=label)
                axes.stairs(heights, edges, color=colour, fill=True, alpha=0.13)
        axes.set(title=name, xlim=(0, 1), ylim=(0, axes.get_ylim()[1] * 1.22), yticks=[])
        axes.spines["left"].set_visible(False)
        for word, at in lines.items():
            _line(axes, at, f"{word} {at:g}")
        axes.legend(loc="upper left", fontsize=7.5, handlelength=1.2)
    return figure


def _state(code: int) -> Mask:
    return lambda m: np.asarray(m["state"] == code)


def _line(axes: Axes, at: float, text: str) -> None:
    """A dashed line at a value, with its name at the top."""
    axes.axvline(at, color=INK, lw=0.9, ls=(0, (4, 2)))
    axes.annotate(text, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 0), textcoords="offset points",
                  va="top", fontsize=7.5)  # fmt: skip


def gates(sets: Sets) -> Figure | None:
    """Per state, how often each gate fails on zone bars, and how often it alone, every set together."""
    zones = {state: [(m["state"] == state) & m["window"] for m in sets] for state in ASKED}
    if not any(w.any() for found in zones.values() for w in found):
        return None
    figure = Figure(figsize=(9.2, 2.4), layout="constrained")
    for axes, (state, asked) in zip(figure.subplots(1, 3, sharex=True), ASKED.items(), strict=True):
        bars = max(1, sum(int(w.sum()) for w in zones[state]))
        pairs = list(zip(sets, zones[state], strict=True))
        fails = [100 * sum(int(m.failed(g)[w].sum()) for m, w in pairs) / bars for g in asked]
        alone = [100 * sum(int(m.fails_alone(g)[w].sum()) for m, w in pairs) / bars for g in asked]
        on = 100 * sum(int((m["buy_signal"] | m["buy_flag"])[w].sum()) for m, w in pairs) / bars
        rows = np.arange(len(asked))[::-1]
        colour = STATE_COLOURS[state]
        axes.barh(rows, fails, height=0.62, color=colour, alpha=0.35, label="fails")
        axes.barh(rows, alone, height=0.62, color=colour, label="fails alone")
        for row, value in zip(rows, fails, strict=True):
            axes.text(value + 1.5, row, f"{value:.0f}", va="center", fontsize=7.5)
        axes.set_yticks(rows, asked)
        axes.set(title=f"{STATE_NAMES[state]}: flag on {on:.0f} %", xlim=(0, 100))
        axes.set_xlabel(f"% of {bars:,} zone bars")
        axes.tick_params(left=False)
    keys = [Patch(color=INK, alpha=0.3, label="gate fails"), Patch(color=INK, alpha=0.85, label="it alone fails")]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, fontsize=8, handlelength=1.0)
    return figure


def since_entry(sets: Sets) -> Figure | None:
    """OX and EDX by bars since S3 began, medians with quartiles, in the two sets with most S3 bars; S3 still alive."""
    chosen = sorted(sets, key=lambda m: -int(np.sum(m["state"] == S3)))[:2]
    chosen = [m for m in chosen if np.any(m["state"] == S3)]
    if not chosen:
        return None
    edges = np.unique(np.round(np.geomspace(1, 1500, 34)).astype(int)) - 1
    figure = Figure(figsize=(9.2, 2.9), layout="constrained")
    panels = figure.subplots(1, 3)
    for m, colour in zip(chosen, (ACCENT, "#d07a2d"), strict=False):
        here = m["state"] == S3
        age = m["bars_since_s3"][here]
        cell = np.digitize(age, edges) - 1
        middle = edges[:-1] + np.diff(edges) / 2 + 0.5
        for axes, name in zip(panels, ("ox", "edx"), strict=False):
            cells = [m[name][here][cell == i] for i in range(len(edges) - 1)]
            q = np.array([np.quantile(v, (0.25, 0.5, 0.75)) if len(v) >= 30 else [np.nan] * 3 for v in cells])
            axes.plot(middle, q[:, 1], color=colour, lw=1.5, label=m.label)
            axes.fill_between(middle, q[:, 0], q[:, 2], color=colour, alpha=0.16, lw=0)
        starts = max(1, int(np.sum(age == 0)))
        panels[2].plot(edges + 1, [100 * np.sum(age == e) / starts for e in edges], color=colour, lw=1.5, label=m.label)
    for axes, title, line in zip(panels, ("OX", "EDX", "S3 still alive, %"), (OX_TRIM, trend.KNEE, None), strict=True):
        axes.set(title=title, xscale="log", xlabel="bars since S3 began, from 1", xlim=(1, 1500))
        axes.grid()
        if line is not None:
            axes.axhline(line, color=INK, lw=0.9, ls=(0, (4, 2)))
    panels[2].set_ylim(0, 103)
    panels[2].legend(fontsize=7.5, loc="lower left")
    return figure


def ladder(sets: Sets) -> Figure | None:
    """Width of the band, place of the DX flags, and second rungs by spacing, every set together."""
    widths = np.concatenate([trend.band(m)[m["state"] == S3] for m in sets]) if sets else np.zeros(0)
    rooms = np.concatenate([trend.room(m) for m in sets]) if sets else np.zeros(0)
    if not len(widths) or not len(rooms):
        return None
    figure = Figure(figsize=(9.2, 2.7), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    green = STATE_COLOURS[S3]
    for axes, values, title in (
        (left, widths, "Width of the DX band, ATR"),
        (middle, rooms, "DX flag above EMA333, ATR"),
    ):
        axes.hist(values, bins=np.linspace(-2, 8, 101) if axes is left else np.linspace(0, 2, 61), color=green)
        at = float(np.median(values))
        _line(axes, at, f"median {at:.2f}")
        axes.set(title=title, yticks=[])
        axes.spines["left"].set_visible(False)
    shares = [100 * np.mean(np.concatenate([trend.rungs(m, k) for m in sets]) > 1) for k in trend.SPACINGS]
    names = [f"{k:g}" for k in trend.SPACINGS]
    colours = [green if k == trend.STEP else "#b9d6c5" for k in trend.SPACINGS]
    bars = right.bar(names, shares, color=colours, width=0.7)
    right.bar_label(bars, fmt="%.1f", fontsize=7.5, padding=2)
    right.set_ylim(0, max(shares) * 1.15 + 1)
    right.set(title="Ladders with a second rung, %", xlabel="spacing k in ATR (dark: the default)", yticks=[])
    right.spines["left"].set_visible(False)
    return figure


def policies(found: Sequence[Comparison]) -> Figure | None:
    """Every policy against the defaults: three measures, whole runs, with two standard errors."""
    whole = [c for c in found if c.timeframe == "all"]
    if not whole:
        return None
    walks = list(dict.fromkeys(c.walk for c in whole))
    figure = Figure(figsize=(9.2, 2.8), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    rows = {policy: len(POLICIES) - 1 - i for i, policy in enumerate(POLICIES)}
    measures = (("pnl, % of cash", "cash"), ("pnl, % of invested", "invested"), ("rr per trade", "rr"))
    for axes, (title, name) in zip(panels, measures, strict=True):
        axes.axvline(0, color=SOFT, lw=0.9)
        for c in whole:
            d, i = getattr(c, name), walks.index(c.walk)
            y, colour = rows[c.policy] + 0.14 * (1 - 2 * i), (ACCENT, "#d07a2d")[i % 2]
            axes.errorbar(d.value, y, xerr=BEYOND * d.error, fmt="o", color=colour, ms=6 if d.beyond else 4.5,
                          mfc=colour if d.beyond else "white", lw=1.4, label=c.walk)  # fmt: skip
        axes.set(title=title, ylim=(-0.6, len(POLICIES) - 0.4))
        axes.grid(axis="x")
        axes.tick_params(left=False)
    panels[0].set_yticks(list(rows.values()), list(rows))
    handles, labels = panels[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(
        f"Difference to the defaults, ± {BEYOND:g} standard errors by week; filled: beyond them", fontsize=8.5
    )
    return figure


def stretch(sets: Sets) -> Figure | None:
    """One whole attempt on real bars: price and EMAs over the states, the flags, and the scores below."""
    chosen = _attempt(sets)
    if chosen is None:
        return None
    m, start, stop = chosen
    part = slice(start, stop)
    times = m["ts"][part].astype("datetime64[us]")
    figure = Figure(figsize=(9.2, 5.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    _shade(top, times, m["state"][part])
    _shade(bottom, times, m["state"][part])
    price = m["price"][part]
    top.plot(times, price, color=INK, lw=0.9, label="close")
    for name, colour in (("ema60", "#e3b04b"), ("ema144", ACCENT), ("ema333", "#7a4fa3")):
        top.plot(times, m[name][part], color=colour, lw=1.1, label=name.upper())
    for name, marker, colour in MARKS:
        at = np.flatnonzero(FLAGS[name][1](m)[part])
        top.plot(times[at], price[at], marker, ms=6, color=colour, mec="white", mew=0.6, ls="none", label=name)
    name = m.symbols[int(m["symbol"][start])]
    top.set(title=f"One attempt on {name}, {m.label}: {len(times):,} bars", yscale="log", xlim=(times[0], times[-1]))
    top.yaxis.set_major_formatter("{x:g}")
    top.yaxis.set_minor_formatter("{x:g}")
    top.tick_params(which="minor", labelsize=7)
    figure.legend(handles=top.get_legend_handles_labels()[0], fontsize=7.5, ncols=5, loc="outside upper center")
    for name, colour in (("ox", "#b5483a"), ("edx", ACCENT), ("dx", "#3f8f63")):
        bottom.plot(times, m[name][part], color=colour, lw=0.9, label=name.upper())
    bottom.set(ylim=(0, 1))
    bottom.legend(fontsize=7, ncols=3, loc="upper left", handlelength=1.4)
    return figure


#: What `stretch` marks: flag, marker, colour.
MARKS = (
    ("S1 buy_signal", "^", "#d98c00"),
    ("S2 buy_flag", "^", "#1f77b4"),
    ("S3 buy_flag (DX)", "^", "#2c6e49"),
    ("first_dip", "D", "#2c6e49"),
    ("emergency_exit, episodes", "v", "#b5483a"),
)


def _shade(axes: Axes, times: Array, state: Array) -> None:
    cuts = [0, *(np.flatnonzero(np.diff(state)) + 1).tolist(), len(state)]
    for a, b in pairwise(cuts):
        end = times[min(b, len(times) - 1)]
        axes.axvspan(times[a], end, color=STATE_COLOURS[int(state[a])], alpha=0.16, lw=0)


def _attempt(sets: Sets) -> tuple[Measured, int, int] | None:
    """An attempt that reached S3 and ended, 250 to 900 bars long with a margin: the one with most kinds of marked
    flags, then most flags."""
    for m in sets:
        begin = np.flatnonzero((m["state"] == S1) & (m["prev_state"] == S0))
        end = np.flatnonzero((m["state"] == S0) & (m["prev_state"] == S3))
        totals = [np.r_[0, np.cumsum(FLAGS[name][1](m))] for name, _, _ in MARKS]
        best: tuple[tuple[int, int], int, int] | None = None
        for stop in end.tolist():
            start = int(begin[np.searchsorted(begin, stop) - 1])
            counts = [int(t[stop] - t[start]) for t in totals]
            rank = (sum(n > 0 for n in counts), sum(min(n, 12) for n in counts))
            if 250 <= stop - start <= 900 and (best is None or rank > best[0]):
                best = (rank, start, stop)
        if best is not None:
            same = np.flatnonzero(m["symbol"] == m["symbol"][best[1]])
            return m, max(int(same[0]), best[1] - 30), min(int(same[-1]), best[2] + 30)
    return None
