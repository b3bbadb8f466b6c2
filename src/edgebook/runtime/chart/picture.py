"""A chart as one PNG, drawn with matplotlib: the same panels, colours and rules as the page, without a read-out."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

from edgebook.engine.gates import BASE_GATES
from edgebook.engine.signals import OX_TRIM
from edgebook.engine.states import S3, STATE_NAMES
from edgebook.runtime.chart import layout as lay
from edgebook.runtime.chart.facts import FLAGS, PERIODS, Chart, moment_text, notes

Floats = NDArray[np.float64]

_SIZE, _DPI = (16.0, 10.0), 120
_LEFT, _RIGHT = 0.095, 0.945
_HEIGHTS = (0.32, 8.0, 1.7, 2.3, 1.0)  # strip of states, prices, flag lanes, scores, volume
_INK, _SOFT, _UP, _DOWN = "#1d2939", "#475467", "#12826a", "#c03a36"
_BOLD: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "fontweight": "bold"}
_MARKERS = {"up": "^", "down": "v", "diamond": "D", "square": "s", "cross": "X", "ring": "o"}


def picture(chart: Chart) -> bytes:
    """The PNG file as bytes."""
    place = lay.slots(chart)
    drawn = lay.candles(chart, place)
    figure = Figure(figsize=_SIZE, dpi=_DPI, facecolor="white")
    told = [*notes(chart), *lay.reading_notes(chart)]
    grid = figure.add_gridspec(5, 1, height_ratios=_HEIGHTS, hspace=0.035)
    grid.update(left=_LEFT, right=_RIGHT, bottom=0.062, top=0.945 - 0.018 * len(told))
    strip, prices, lanes, scores, volume = panels = [figure.add_subplot(grid[row]) for row in range(5)]
    _heading(figure, strip, chart, told)
    _draw_bands(panels, chart, place)
    _draw_strip(strip, chart, place)
    _draw_prices(prices, chart, place, drawn)
    _draw_lanes(lanes, chart, place)
    _draw_scores(scores, chart, drawn)
    _draw_volume(volume, place, drawn)
    _draw_holes(panels, chart, place)
    _finish_axes(panels, chart, place, drawn)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a symbol's own script may not be in the font
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _heading(figure: Figure, strip: Axes, chart: Chart, told: list[str]) -> None:
    bars = chart.bars
    span = f"{moment_text(int(bars.ts_open[0]))} to {moment_text(int(bars.close_ts[-1]))} UTC"
    text = f"{span} · {lay.size_text(chart)}"
    name = f"{bars.symbol} {bars.timeframe}"
    title = figure.text(0.012, 0.968, name, fontsize=17, fontweight="bold", color=_INK, parse_math=False)
    strip.annotate(
        text,
        *((1, 0.12), (14, 0)),
        xycoords=title,
        textcoords="offset points",
        fontsize=11,
        color=_SOFT,
        annotation_clip=False,
    )
    for i, note in enumerate(told):
        figure.text(0.012, 0.948 - 0.018 * i, note, fontsize=9.5, color="#8a5a00")
    figure.text(0.012, 0.014, lay.EXPLANATION, fontsize=9, color=_SOFT)


def _edges(place: lay.Slots, first: int, last: int) -> tuple[int, int]:
    """Left edge and width of bars ``first`` to ``last``, in slots."""
    return int(place.left[first]), int(place.left[last]) + 1 - int(place.left[first])


def _draw_bands(panels: list[Axes], chart: Chart, place: lay.Slots) -> None:
    """Background by state: full in the strip, pale below."""
    spans: dict[str, list[tuple[int, int]]] = {name: [] for name in STATE_NAMES}
    for code, first, last in lay.state_runs(chart):
        spans[STATE_NAMES[code]].append(_edges(place, first, last))
    for name, found in spans.items():
        for i, panel in enumerate(panels):
            alpha = 1.0 if i == 0 else 0.45
            colour = lay.STATE_COLOURS[name]
            panel.broken_barh(
                found, (0, 1), transform=panel.get_xaxis_transform(), facecolor=colour, alpha=alpha, lw=0, zorder=0
            )


def _draw_strip(strip: Axes, chart: Chart, place: lay.Slots) -> None:
    strip.set_ylim(0, 1)
    strip.set_yticks([])
    for code, first, last in lay.state_runs(chart):
        left, width = _edges(place, first, last)
        share, name = width / place.total, STATE_NAMES[code]
        text = f"{name} {lay.STATE_WORDS[name]}" if share > 0.075 else name
        if share > 0.015:
            strip.text(left + width / 2, 0.45, text, color=lay.STATE_INKS[name], zorder=9, **_BOLD)


def _draw_prices(panel: Axes, chart: Chart, place: lay.Slots, drawn: lay.Candles) -> None:
    emas = chart.emas[drawn.last]
    bottom, top = lay.price_range(drawn.low, drawn.high, emas)
    panel.set_yscale("log")
    panel.set_ylim(bottom, top)
    fast, slow = emas[:, PERIODS.index(144)], emas[:, PERIODS.index(333)]
    for first, last in lay.runs(chart.state[drawn.last] == S3):
        part = slice(first, last + 1)
        panel.fill_between(
            drawn.middle[part], fast[part], slow[part], color=lay.EMA_COLOURS[-1], alpha=0.1, lw=0, zorder=1
        )
    _draw_windows(panel, chart, place)
    _draw_levels(panel, chart, place)
    for k in range(len(PERIODS)):
        panel.plot(drawn.middle, emas[:, k], color=lay.EMA_COLOURS[k], lw=lay.EMA_WIDTHS[k] * 0.9, zorder=4)
    _draw_candles(panel, place, drawn)
    _draw_marks(panel, chart, place)
    ticks = lay.price_ticks(bottom, top)
    panel.set_yticks(ticks, [lay.tick_text(price) for price in ticks])
    panel.set_yticks([], minor=True)
    panel.legend(handles=list(_legend()), **_legend_style(1.0))


def _draw_windows(panel: Axes, chart: Chart, place: lay.Slots) -> None:
    """Boxes over the bars of each buy window: full outline where the flag came up, dotted where it did not."""
    boxes: dict[tuple[str, bool], list[ArrayLike]] = {}
    for window in chart.windows:
        part = slice(window.first, window.last + 1)
        left, width = _edges(place, window.first, window.last)
        low, high, right = chart.bars.low[part].min() * 0.999, chart.bars.high[part].max() * 1.001, left + width
        corners = [(left, low), (right, low), (right, high), (left, high)]
        boxes.setdefault((window.state, window.bought), []).append(corners)
    for (state, bought), found in sorted(boxes.items()):
        ink, fill, style = lay.STATE_INKS[state], 0.22 if bought else 0.1, "-" if bought else ":"
        shapes = PolyCollection(found, facecolors=[(ink, fill)], edgecolors=[ink], lw=0.9, ls=style, zorder=2)
        panel.add_collection(shapes, autolim=False)


def _draw_levels(panel: Axes, chart: Chart, place: lay.Slots) -> None:
    for is_range, style in ((False, "-"), (True, (0, (5, 3)))):
        pieces = [piece for piece in chart.levels if (piece.source != "swing") == is_range]
        edges = [_edges(place, piece.first, piece.last) for piece in pieces]
        lines = [[(x, p.price), (x + w, p.price)] for p, (x, w) in zip(pieces, edges, strict=True)]
        colours = [(lay.LEVEL_COLOUR, lay.level_opacity(piece.strength)) for piece in pieces]
        panel.add_collection(LineCollection(lines, colors=colours, lw=0.8, linestyle=style, zorder=3), autolim=False)


def _draw_candles(panel: Axes, place: lay.Slots, d: lay.Candles) -> None:
    half = (place.left[d.last] + 1 - place.left[d.first]) * 0.35
    up = d.close >= d.open
    for chosen, colour in ((up, _UP), (~up, _DOWN)):
        x, w = d.middle[chosen], half[chosen]
        wicks = np.stack([np.column_stack((x, d.low[chosen])), np.column_stack((x, d.high[chosen]))], axis=1)
        panel.add_collection(LineCollection(list(wicks), color=colour, lw=0.7, zorder=5), autolim=False)
        corners = [(x - w, d.open), (x + w, d.open), (x + w, d.close), (x - w, d.close)]
        boxes = np.stack([np.column_stack((side, price[chosen])) for side, price in corners], axis=1)
        panel.add_collection(
            PolyCollection(list(boxes), facecolor=colour, edgecolor=colour, lw=0.4, zorder=5), autolim=False
        )


def _draw_marks(panel: Axes, chart: Chart, place: lay.Slots) -> None:
    found = lay.marks(chart)
    if len(found) > lay.MAX_MARKERS:
        return
    for name in FLAGS:
        look = lay.FLAG_LOOKS[name]
        prices = chart.bars.high if look.above else chart.bars.low
        for rank in {mark.rank for mark in found if mark.flag == name}:
            at = [mark.bar for mark in found if (mark.flag, mark.rank) == (name, rank)]
            shift = (8 + 9 * rank) * (1 if look.above else -1)
            where = panel.transData + ScaledTranslation(0, shift / 72, panel.figure.dpi_scale_trans)
            panel.scatter(place.left[at] + 0.5, prices[at], transform=where, zorder=6, **_marker(look))


def _marker(look: lay.Look) -> dict[str, Any]:
    """How matplotlib draws a flag; the ring is hollow."""
    ring = look.shape == "ring"
    size = 34 if look.shape in ("diamond", "square", "ring") else 52
    face, edge, width = ("none", look.colour, 1.6) if ring else (look.colour, "white", 0.6)
    return {"marker": _MARKERS[look.shape], "s": size, "facecolor": face, "edgecolor": edge, "linewidth": width}


def _legend() -> Iterator[Any]:
    for name in STATE_NAMES:
        yield Patch(facecolor=lay.STATE_COLOURS[name], label=f"{name} {lay.STATE_WORDS[name]}")
    for period, colour, width in zip(PERIODS, lay.EMA_COLOURS, lay.EMA_WIDTHS, strict=True):
        yield Line2D([], [], color=colour, lw=width, label=f"EMA {period}")
    yield Patch(facecolor=lay.EMA_COLOURS[-1], alpha=0.13, label="hallway of S3")
    yield Line2D([], [], color=lay.LEVEL_COLOUR, lw=1.2, label="S/R level")
    yield Line2D([], [], color=lay.LEVEL_COLOUR, lw=1.0, ls="--", label="range high, low")
    for state, text in lay.WINDOW_WORDS.items():
        ink = lay.STATE_INKS[state]
        yield Patch(facecolor=(ink, 0.15), edgecolor=ink, label=text)


def _legend_style(top: float) -> dict[str, Any]:
    place = {"loc": "upper left", "bbox_to_anchor": (-0.111, top), "borderaxespad": 0.0, "labelspacing": 0.55}
    return place | {"frameon": False, "fontsize": 9, "labelcolor": _SOFT, "handlelength": 1.7}


def _draw_lanes(panel: Axes, chart: Chart, place: lay.Slots) -> None:
    """One lane per flag, every bar that carries it; how many on the right."""
    rows = np.arange(len(FLAGS))[::-1]
    panel.set_ylim(-0.6, len(FLAGS) - 0.4)
    for row, name in zip(rows.tolist(), FLAGS, strict=True):
        look = lay.FLAG_LOOKS[name]
        panel.axhspan(row - 0.42, row + 0.42, color="white", alpha=0.5, lw=0, zorder=1)
        found = [_edges(place, first, last) for first, last in lay.runs(chart.flags[name])]
        panel.broken_barh(found, (row - 0.3, 0.6), color=look.colour, lw=0.5, zorder=3)
        panel.scatter(
            [-0.105], [row], transform=panel.get_yaxis_transform(), clip_on=False, **(_marker(look) | {"s": 32})
        )
        panel.text(-0.096, row, look.label, transform=panel.get_yaxis_transform(), va="center", fontsize=9, color=_SOFT)
    carried = [int(chart.flags[name].sum()) for name in FLAGS]
    panel.set_yticks(rows, [f"{n:,} bar{'' if n == 1 else 's'}" for n in carried])


def _draw_scores(panel: Axes, chart: Chart, drawn: lay.Candles) -> None:
    panel.set_ylim(-0.03, 1.06)
    width = 1.1 if drawn.bars_each == 1 else 0.6
    for name, (label, colour, dash) in lay.SCORE_LOOKS.items():
        values, style = chart.scores[name][drawn.last], "--" if dash else "-"
        panel.plot(drawn.middle, values, color=colour, lw=width, ls=style, label=label, zorder=3)
    for value in (BASE_GATES.ts_min, OX_TRIM):
        panel.axhline(value, color=_INK, alpha=0.35, lw=0.7, ls=(0, (4, 3)), zorder=1)
    panel.set_yticks([0.0, BASE_GATES.ts_min, OX_TRIM, 1.0], ["0", "", "", "1"])
    side = panel.get_yaxis_transform()
    for value, text, va in ((BASE_GATES.ts_min, "buy: TS", "top"), (OX_TRIM, "trim: OX", "bottom")):
        panel.text(1.003, value, f"{value:.2f} {text}", transform=side, va=va, fontsize=8.5, color=_SOFT)
    panel.legend(**_legend_style(0.95))


def _draw_volume(panel: Axes, place: lay.Slots, d: lay.Candles) -> None:
    width = (place.left[d.last] + 1 - place.left[d.first]) * 0.7
    colours = np.where(d.close >= d.open, _UP, _DOWN)
    panel.bar(d.middle, d.volume, width=width, color=colours.tolist(), alpha=0.75, lw=0, zorder=3)
    panel.set_ylim(0, float(d.volume.max() or 1.0) * 1.05)
    panel.set_yticks([])
    panel.text(-0.096, 0.5, "volume", transform=panel.transAxes, va="center", fontsize=9, color=_SOFT)


def _draw_holes(panels: list[Axes], chart: Chart, place: lay.Slots) -> None:
    for left, width, missing in place.holes(chart):
        for panel in panels:
            box = Rectangle((left, 0), width, 1, transform=panel.get_xaxis_transform(), zorder=7)
            box.set(facecolor="#f8f9fb", edgecolor="#98a2b3", hatch="////", linewidth=0.5)
            panel.add_patch(box)
        if width / place.total > 0.012:
            text, where = lay.hole_text(missing, chart.bars.timeframe), panels[1].get_xaxis_transform()
            label = panels[1].text(left + width / 2, 0.5, text, transform=where, zorder=8, rotation=90, **_BOLD)
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})


def _finish_axes(panels: list[Axes], chart: Chart, place: lay.Slots, drawn: lay.Candles) -> None:
    ticks = lay.time_ticks(chart.bars.ts_open[drawn.first], drawn.middle, place.total)
    at = [float(drawn.middle[i]) for i, _ in ticks]
    for panel in panels:
        panel.set_xlim(0, place.total)
        panel.set_xticks(at, [""] * len(at))
        panel.tick_params(length=0, labelsize=9, labelcolor=_SOFT, labelleft=False, labelright=True, pad=4)
        panel.spines[:].set_visible(False)
        panel.set_axisbelow(True)
        if panel is not panels[0]:
            panel.grid(axis="x", color=_INK, alpha=0.1, lw=0.7)
    panels[1].grid(axis="y", color=_INK, alpha=0.1, lw=0.7)
    panels[1].spines["bottom"].set(visible=True, alpha=0.3)
    panels[-1].spines["bottom"].set(visible=True, alpha=0.3)
    panels[-1].set_xticks(at, [text for _, text in ticks])
