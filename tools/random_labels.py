"""How often the learner believes a label that means nothing (decisions 52).

The closed trades of a real backtest keep their outcomes, tokens and times; each gets a random label of four levels that
all tokens share for 6 hours, a day or a week. 200 draws each, per family: ``alone`` in the schema, and ``beside`` the
family's real dims. Told is the share of draws in which the group that the label belongs to is admitted; beside real
dims that group may be admitted without the label, so the share in which the label itself moves a size by 5 % or more is
told too. For the DM family also the share in which the label is admitted at any of ten looks while trades come in.
Intervals are exact binomial, 95 %. The line is 7 %.

The trades come from databases that `edgebook backtest --db` leaves behind:

    edgebook backtest --bars ../shared/data/binance_spot_1h_2021_2023 --timeframes 1h,4h \\
        --signals ../shared/data/signals/binance_spot_1h_2021_2023/signals.jsonl \\
        --regime-bars ../shared/data/binance_spot_1h_majors --db sqlite:////tmp/books/coins-2021-23-on.db
    python -m tools.random_labels /tmp/books/coins-2021-23-on.db /tmp/books/coins-2025q1-on.db [--draws 200] [--json]

``--neighbour-hours 2 --constant-for "6 h"`` asks what a narrower look at neighbours in time would change.
"""

from __future__ import annotations

import edgebook.cli  # noqa: F401  (one thread for small matrices; before numpy)

# isort: split
import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from edgebook.domain.decay import HOUR
from edgebook.domain.errors import EdgebookError
from edgebook.domain.evidence import split_family
from edgebook.domain.scope import SCHEMAS, ScopeSchema
from edgebook.learning.config import DEFAULT, LearningConfig
from edgebook.learning.design import make_design
from edgebook.learning.posterior import Fit, fit_family
from edgebook.learning.table import TradeTable
from edgebook.runtime import bootstrap

LENGTHS = {"6 h": 6, "day": 24, "week": 168}
LEVELS = ("a", "b", "c", "d")
LINE = 0.07
LOOKS = 10
MOVES_LOG = 0.05
LABEL = "label"


def largest_families(book: Path, pm: int) -> Iterator[tuple[str, TradeTable]]:
    """The DM family and the ``pm`` largest PM families that have a lever, as the fits read them."""
    with bootstrap.open_store(f"sqlite:///{book}").reader() as uow:
        rows = list(uow.observations.values())
    count = Counter(row.family for row in rows if row.action_category != "exit")
    ranked = [name for name, _ in count.most_common()]
    chosen = [name for name in ranked if name.startswith("dm|")]
    chosen += [name for name in ranked if name.startswith("pm|")][:pm]
    for name in chosen:
        module, _, category = split_family(name)
        table = TradeTable.of([row for row in rows if row.family == name], SCHEMAS[module])
        yield name, with_lever_outcome(table, category)


def with_lever_outcome(table: TradeTable, category: str) -> TradeTable:
    """Trims are fitted on their own outcome where it is known (decisions 21)."""
    if category != "trim" or table.exit_y is None:
        return table
    known = np.isfinite(table.exit_y)
    part = table.take(known)
    return replace(part, y=table.exit_y[known])


def labelled(table: TradeTable, hours: int, seed: int, beside: bool) -> TradeTable:
    """The table with a random label that is constant for ``hours`` over all tokens."""
    run = table.opened_at // (hours * HOUR)
    codes = np.random.default_rng([seed, hours]).integers(0, len(LEVELS), int(run.max() - run.min()) + 1)[
        run - run.min()
    ]
    return replace(table, dims={**(table.dims if beside else {}), LABEL: (LEVELS, codes.astype(np.int64))})


def with_label(schema: ScopeSchema, beside: bool) -> ScopeSchema:
    """The schema of such a table; whether the label is market-wide is left to the data."""
    if not beside:
        return ScopeSchema("user", (LABEL,))
    return ScopeSchema("user", (*schema.dims, LABEL), market_wide=schema.market_wide)


def label_group(table: TradeTable, schema: ScopeSchema, config: LearningConfig) -> str:
    """The group of dims that the label is put into, by what the data say of it."""
    label = next((part for part in make_design(table, schema, config).components if part.name == LABEL), None)
    return "market_dims" if label is not None and label.market else "dims"


def moved(fit: Fit) -> bool:
    """Whether some lesson about the label moves a size by 5 % or more."""
    return any(
        any(dim == LABEL for dim, _ in items) and abs(DEFAULT.kappa(False, effect.lfsr) * effect.theta) >= MOVES_LOG
        for items, effect in fit.effects.items()
    )


def alone_row(table: TradeTable, hours: int, draws: int, looks: int, config: LearningConfig) -> dict[str, Any]:
    """Draws in which a schema of the label alone is admitted, at the end and at any look."""
    schema = with_label(SCHEMAS["pm"], beside=False)
    order = np.argsort(table.closed_at, kind="stable")
    admitted = ever = market = 0
    for seed in range(draws):
        trades = labelled(table, hours, seed, beside=False)
        fit = fit_family(trades, schema, None, config)
        market += "market_dims" in fit.lr
        admitted += fit.acts
        if looks:
            parts = (len(order) * (i + 1) // looks for i in range(looks - 1))
            ever += fit.acts or any(fit_family(trades.take(order[:n]), schema, None, config).acts for n in parts)
    return {
        "admitted": share(admitted, draws),
        "seen_as_market_wide": round(market / draws, 3),
        **({"ever_admitted": share(ever, draws), "looks": looks} if looks else {}),
    }


def beside_row(table: TradeTable, module: str, hours: int, draws: int, config: LearningConfig) -> dict[str, Any]:
    """Draws in which the label's group is admitted beside the real dims, and in which the label itself moves sizes."""
    schema = with_label(SCHEMAS[module], beside=True)
    without = fit_family(table, SCHEMAS[module], None, config)
    group = moves = added = market = 0
    for seed in range(draws):
        trades = labelled(table, hours, seed, beside=True)
        fit, own = fit_family(trades, schema, None, config), label_group(trades, schema, config)
        market += own == "market_dims"
        group += own in fit.groups
        added += own in fit.groups and own not in without.groups
        moves += moved(fit)
    return {
        "admitted": share(group, draws),
        "admitted_where_it_was_not_without": share(added, draws),
        "label_moves_5_percent": share(moves, draws),
        "groups_without_label": list(without.groups),
        "nats_without_label": {name: round(nats, 2) for name, nats in without.lr.items() if np.isfinite(nats)},
        "seen_as_market_wide": round(market / draws, 3),
    }


def share(hits: int, n: int) -> dict[str, Any]:
    """A share with its exact 95 % interval.

    >>> share(14, 200)
    {'hits': 14, 'of': 200, 'share': 0.07, 'ci95': [0.0388, 0.1147]}
    """
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return {"hits": hits, "of": n, "share": round(hits / n, 4), "ci95": [round(low, 4), round(high, 4)]}


def rows_of(
    book: Path, draws: int, pm: int, beside_families: int, lengths: Sequence[str], config: LearningConfig
) -> Iterator[dict[str, Any]]:
    """All rows of one book."""
    for place, (name, table) in enumerate(largest_families(book, pm)):
        module, key, category = split_family(name)
        for length in lengths:
            hours = LENGTHS[length]
            about = {
                "name": "random_labels",
                "book": book.stem,
                "module": module,
                "family": f"{key.rpartition('=')[2]} {category}",
                "trades": len(table),
                "constant_for": length,
                "neighbour_hours": config.market_neighbour_hours,
                "line": LINE,
            }
            began = time.perf_counter()
            found = alone_row(table, hours, draws, LOOKS if module == "dm" else 0, config)
            yield {**about, "schema": "alone", **found, "wall_s": round(time.perf_counter() - began, 1)}
            if place < beside_families:
                began = time.perf_counter()
                found = beside_row(table, module, hours, draws, config)
                yield {**about, "schema": "beside", **found, "wall_s": round(time.perf_counter() - began, 1)}


def line(row: Mapping[str, Any]) -> str:
    """One row for people."""
    told = row["admitted"]
    text = (
        f"{row['book']:18} {row['family']:38} {row['trades']:5} trades, constant for {row['constant_for']:4} "
        f"{row['schema']:6}: admitted {told['share']:.1%} [{told['ci95'][0]:.1%}, {told['ci95'][1]:.1%}]"
    )
    if row["schema"] == "beside":
        text += f"; the label moves 5 %: {row['label_moves_5_percent']['share']:.1%}"
    elif "ever_admitted" in row:
        text += f"; at any of {row['looks']} looks {row['ever_admitted']['share']:.1%}"
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", nargs="+", type=Path, metavar="BOOK.db")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--pm", type=int, default=3, help="how many PM families, the largest first")
    parser.add_argument("--beside", type=int, default=2, help="for how many families the real dims are kept, too")
    parser.add_argument("--constant-for", choices=list(LENGTHS), action="append")
    parser.add_argument(
        "--neighbour-hours",
        type=float,
        default=DEFAULT.market_neighbour_hours,
        help="what if entries only so near in time are compared to tell market-wide dims",
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    config, lengths = (
        replace(DEFAULT, market_neighbour_hours=given.neighbour_hours),
        given.constant_for or list(LENGTHS),
    )
    try:
        for book in given.books:
            for row in rows_of(book, given.draws, given.pm, given.beside, lengths, config):
                print(json.dumps(row) if given.json else line(row), flush=True)
    except EdgebookError as error:
        sys.exit(f"random_labels: {error.message}")


if __name__ == "__main__":
    main()
