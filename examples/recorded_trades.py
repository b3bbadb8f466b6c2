"""What is there to learn in recorded trades of other people's bots? Mostly nothing, and the lessons say so.

    python examples/recorded_trades.py ../shared/data/labels

Each set is learnt from twice: the whole of it, which is what a user would act on, and its first half alone, whose
advice is then tried on the second half: the mean R of the later trades as they were, and weighed by the multipliers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np

import edgebook


class Recorded(NamedTuple):
    """One recorded set: its file, the dims known at entry, and SQL that says what its columns mean as TRADES."""

    name: str
    dims: tuple[str, ...]
    columns: str
    where: str = "true"


SETS = (
    Recorded(
        "backtest_trades_tpo_v3",
        ("coin", "side", "stop"),
        # Its averages and volume ratio are left out though they look like facts of the entry: they were recorded at the
        # exit (of the longs that won, 0.5 % have ema20 below their entry price; of those that lost, 80 %), and a dim
        # that knows the outcome makes splendid lessons.
        """row_number() OVER () AS trade_id, entry_date AS opened_at, exit_date AS closed_at, r_multiple AS rr,
           pair AS token, pair AS coin, side,
           CASE WHEN abs(entry_price - sl) / entry_price < 0.02 THEN 'near'
                WHEN abs(entry_price - sl) / entry_price < 0.05 THEN 'middle' ELSE 'far' END AS stop""",
    ),
    Recorded(
        "freqtrade_trades_2019",
        ("base", "hour"),
        """row_number() OVER () AS trade_id, open_date AS opened_at, close_date AS closed_at,
           -- neither a stop nor the lowest price was recorded: 1 % stands in for the risk
           greatest(-3, least(10, close_profit / 0.01)) AS rr, pair AS token, split_part(pair, '/', 1) AS base,
           CASE WHEN hour(CAST(open_date AS TIMESTAMP)) < 12 THEN 'morning' ELSE 'evening' END AS hour""",
    ),
    Recorded(
        "solana_memecoin_paper_trades",
        ("tier", "risk_points", "theme"),
        """row_number() OVER () AS trade_id, entry_time AS opened_at, exit_time AS closed_at,
           -- not the drawdown: half of them went straight up, and a gain over next to nothing is no R multiple
           greatest(-3, least(10, pnl_pct / 20)) AS rr, symbol AS token, tier, risk_points, theme""",
    ),
    Recorded(
        "telegram_pump_calls",
        ("channel", "quote"),
        # Calls, not trades: as if each had been bought at the last full hour before it and sold a day later, at
        # a risk of 10 %.
        """row_number() OVER () AS trade_id, timestamp AS opened_at, timestamp + INTERVAL 24 HOUR AS closed_at,
           greatest(-3, least(10, close_24h_ret / 0.10)) AS rr, coin AS token, channel_id AS channel, pair AS quote""",
        "isfinite(close_24h_ret)",
    ),
    Recorded(
        "memecoin_sim_trades_2026",
        ("rating", "recovering"),
        # No lowest price was recorded: 10 % stands in for the risk. Closed trades only.
        """row_number() OVER () AS trade_id, ENTRY_TIME AS opened_at,
           CAST(ENTRY_TIME AS TIMESTAMP)
               + INTERVAL 1 MINUTE * CAST(60 * CAST(replace(AGE_HOURS, 'h', '') AS DOUBLE) AS INT) AS closed_at,
           greatest(-3, least(10, CAST(replace(CURRENT_PNL, '%', '') AS DOUBLE) / 10)) AS rr,
           SYMBOL AS token, RATING AS rating, RECOVERING AS recovering""",
        "STATUS IN ('WIN', 'LOSS')",
    ),
)


def main(folder: Path) -> None:
    """Learn from every set that is there, and say what came of it."""
    for one in SETS:
        path = folder / f"{one.name}.parquet"
        if not path.is_file():
            print(f"{one.name}: skipped, {path} is not there")
            continue
        source = str(path).replace("'", "''")
        report(one, duckdb.sql(f"SELECT {one.columns} FROM '{source}' WHERE {one.where}"))


def report(one: Recorded, trades: duckdb.DuckDBPyRelation) -> None:
    """Lessons of one set, and what advice from its first half was worth in the second."""
    learnt = edgebook.learn(trades, one.dims)
    used = learnt.learnt.trades["used"]
    print(f"{one.name}: {used} trades, dims {', '.join(one.dims)}")
    acting = [row for row in learnt.lessons() if row["stats"]["log_target"]]
    for row in acting[:8]:
        stats, scope = row["stats"], " ".join(f"{dim}={value}" for dim, value in row["scope"].items())
        scope = scope or "everywhere"
        size = row["levers"]["size_mult"]
        print(f"  {scope}: size x{size:.3f} ({stats['effect']:+.3f} R, n {stats['n']}, {row['status']})")
    if len(acting) > 8:
        print(f"  and {len(acting) - 8} smaller ones")
    for family in learnt.families():
        nats = ", ".join(f"{group} {value:.2f}" for group, value in family["nats"].items()) or "none"
        if family["acts"]:
            print(f"  acts; evidence in nats: {nats}")
        else:
            print(f"  nothing is learnable here: {family['reason']}, evidence in nats: {nats}")
    walk_forward(one, trades)


def walk_forward(one: Recorded, trades: duckdb.DuckDBPyRelation) -> None:
    """Mean R of the second half as it was, and weighed by the advice of the first."""
    [(at,)] = trades.aggregate("CAST(median(epoch_us(CAST(closed_at AS TIMESTAMP))) AS BIGINT)").fetchall()
    later = trades.filter(f"epoch_us(CAST(opened_at AS TIMESTAMP)) > {at}")
    rr = np.asarray(later.project("CAST(rr AS DOUBLE) AS rr").fetchnumpy()["rr"])
    if not len(rr):
        print("  no trade of the second half was opened after the first had closed")
        return
    advice = edgebook.learn(trades, one.dims, at=at).advise(later)
    weighed = float(np.average(rr, weights=advice.multiplier))
    moved = int((advice.multiplier != 1).sum())
    print(f"  second half, {len(rr)} trades: mean {rr.mean():+.3f} R, advised {weighed:+.3f} R ({moved} moved)")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/labels"))
