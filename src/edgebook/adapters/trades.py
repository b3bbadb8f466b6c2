"""TRADES and CONTEXTS: anyone's closed trades, and the circumstances somebody wants levers for, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebook.adapters.frames import Coded, OpenTable, open_table
from edgebook.domain.errors import InputError
from edgebook.domain.pattern import CATEGORIES

#: An R multiple of this size is none: it is money, or a price.
RR_LIMIT = 1_000_000

REQUIRED = ("trade_id", "opened_at", "closed_at", "rr")
OPTIONAL = ("pattern_key", "action_category", "token", "pnl", "roi")
#: Columns of answers, which a dim may not be called either.
ANSWER = ("context_id", "multiplier", "because", "holdout")
#: Categories whose outcome is a trade's rr; allocation belongs to module dm.
TRADE_CATEGORIES = tuple(category for category in CATEGORIES if category != "allocation")


class TradeColumns(NamedTuple):
    """Checked columns of closed trades, one row per trade, by time of closing, then id.

    Times are microseconds UTC; ``pnl`` and ``roi`` are NaN where unknown; ``duplicates`` counts equal rows left out.
    """

    trade_id: NDArray[np.object_]
    opened_at: NDArray[np.int64]
    closed_at: NDArray[np.int64]
    rr: NDArray[np.float64]
    pnl: NDArray[np.float64] | None
    roi: NDArray[np.float64] | None
    pattern_key: Coded
    action_category: Coded
    token: Coded
    dims: dict[str, Coded]
    duplicates: int


class ContextColumns(NamedTuple):
    """Circumstances to advise on, in the order given; ``ids`` is None where there is no ``context_id``."""

    n: int
    dims: dict[str, Coded]
    ids: NDArray[np.object_] | None


def check_dims(dims: Any) -> tuple[str, ...]:
    """The dims as a tuple.

    Raises:
        InputError: none, one twice, one that is no text or named like a fixed column; case tells no two names apart.
    """
    if isinstance(dims, str | set | frozenset) or not isinstance(dims, Iterable):
        raise InputError(f"dims must be a list of column names, was {dims!r}")
    checked = tuple(str(dim) if isinstance(dim, str) else dim for dim in dims)
    if not checked:
        raise InputError("dims were empty; name at least one column that was known when the trade was opened")
    fixed = (*REQUIRED, *OPTIONAL, *ANSWER)
    seen: dict[str, str] = {name: name for name in fixed}
    for dim in checked:
        if not isinstance(dim, str) or not dim:
            raise InputError(f"a dim must be the name of a column, was {dim!r}")
        if dim in fixed:
            raise InputError(f"dim {dim!r} has the name of a fixed column ({', '.join(fixed)}); copy it under another")
        if checked.count(dim) > 1:
            raise InputError(f"dim {dim!r} stands twice")
        other = seen.setdefault(dim.casefold(), dim)
        if other != dim:
            raise InputError(f"dim {dim!r} differs from column {other!r} in case alone; rename one of the two")
    return checked


def read_trades(source: Any, dims: Sequence[str]) -> TradeColumns:
    """Closed trades from a file, a dict of columns or an Arrow table.

    Required columns: ``trade_id``, ``opened_at``, ``closed_at`` (times, see :meth:`OpenTable.time`), ``rr`` and the
    dims (text, truth or whole numbers; empty or Unknown is absent). Optional: ``pattern_key``, ``action_category``,
    ``token``, ``pnl``, ``roi``. Rows that are equal in all of these count once.

    Raises:
        InputError: names table, row (from 1) and column, and what would be right.
    """
    dims = check_dims(dims)
    with open_table(source, "trades", (*REQUIRED, *dims), OPTIONAL) as table:
        columns = {
            "trade_id": table.text("trade_id"),
            "opened_at": table.time("opened_at"),
            "closed_at": table.time("closed_at"),
            "rr": table.number("rr", "a finite number"),
        }
        size = f"an R multiple (profit over what was at risk), smaller than {RR_LIMIT:,} in size"
        table.refuse_first("rr", f"abs({columns['rr']}) >= {RR_LIMIT}", size)
        table.refuse_first("trade_id", f"({columns['trade_id']}) IS NULL", "an id of its own")
        late = f"({columns['closed_at']}) < ({columns['opened_at']})"
        table.refuse_first("closed_at", late, "at or after opened_at")
        for name in ("pnl", "roi"):
            if name in table:
                columns[name] = table.number(name, "a number or empty", optional=True)
        texts = [name for name in ("pattern_key", "action_category", "token", *dims) if name in table]
        columns |= {name: table.text(name, measured=name not in dims) for name in texts}
        if "action_category" in table:
            listed = ", ".join(f"'{category}'" for category in TRADE_CATEGORIES)
            bad = f"({columns['action_category']}) NOT IN ({listed})"
            table.refuse_first("action_category", bad, f"one of {', '.join(TRADE_CATEGORIES)}")
        return _fetch(table, columns, texts, dims)


def _fetch(table: OpenTable, columns: dict[str, str], texts: list[str], dims: Sequence[str]) -> TradeColumns:
    made = {name: f"m{i}" for i, name in enumerate(columns)}
    parts = ", ".join(f"{sql} AS {made[name]}" for name, sql in columns.items())
    table.connection.execute(f"CREATE TEMP TABLE checked AS SELECT n, {parts} FROM raw ORDER BY n")
    duplicates = _drop_duplicates(table, made)
    place = f"row_number() OVER (ORDER BY {made['closed_at']}, {made['trade_id']})"
    table.connection.execute(f"CREATE TEMP TABLE placed AS SELECT * REPLACE ({place} AS n) FROM checked ORDER BY n")
    plain = [name for name in ("trade_id", "opened_at", "closed_at", "rr", "pnl", "roi") if name in made]
    query = f"SELECT {', '.join(made[name] for name in plain)} FROM placed ORDER BY n"
    fetched = table.connection.execute(query).fetchnumpy()
    coded = table.coded({name: made[name] for name in texts}, "placed")
    n = len(fetched[made["rr"]])
    nothing = Coded((), np.full(n, -1, dtype=np.int64))

    def numbers(name: str) -> NDArray[np.float64] | None:
        return np.ma.filled(np.ma.asarray(fetched[made[name]], dtype=float), np.nan) if name in made else None

    return TradeColumns(
        np.asarray(fetched[made["trade_id"]], dtype=object),
        np.ascontiguousarray(fetched[made["opened_at"]], dtype=np.int64),
        np.ascontiguousarray(fetched[made["closed_at"]], dtype=np.int64),
        np.ascontiguousarray(fetched[made["rr"]], dtype=np.float64),
        numbers("pnl"),
        numbers("roi"),
        coded.get("pattern_key", nothing),
        coded.get("action_category", nothing),
        coded.get("token", nothing),
        {dim: coded[dim] for dim in dims},
        duplicates,
    )


def _drop_duplicates(table: OpenTable, made: dict[str, str]) -> int:
    """Keep the first of equal rows, refuse a trade id with two contents; how many were left out."""
    trade, content = made["trade_id"], ", ".join(made.values())
    counted = table.connection.execute(f"SELECT count(*), count(DISTINCT {trade}) FROM checked").fetchone()
    if counted is None or counted[0] == counted[1]:
        return 0
    differing = table.connection.execute(
        f"SELECT list(first ORDER BY first) AS firsts, {trade} FROM "
        f"(SELECT {trade}, min(n) AS first FROM checked GROUP BY {content}) GROUP BY {trade} "
        f"HAVING count(*) > 1 ORDER BY firsts LIMIT 1"
    ).fetchone()
    if differing is not None:
        one, other = differing[0][:2]
        raise InputError(
            f"{table.what}: row {other}: trade_id {differing[1]!r} stands in row {one} already with other content; "
            f"a trade has one row"
        )
    table.connection.execute(f"DELETE FROM checked WHERE n NOT IN (SELECT min(n) FROM checked GROUP BY {trade})")
    return int(counted[0] - counted[1])


def read_contexts(source: Any, dims: Sequence[str]) -> ContextColumns:
    """Contexts from a file, a dict of columns or an Arrow table: a column per dim, ``context_id`` if there is one.

    Raises:
        InputError: a dim without a column (give an empty one where it is unknown), or of another type.
    """
    with open_table(source, "contexts", dims, ("context_id",)) as table:
        names = [*dims, "context_id"] if "context_id" in table else list(dims)
        made = {name: f"m{i}" for i, name in enumerate(names)}
        parts = "".join(f", {table.text(name)} AS {made[name]}" for name in names)
        table.connection.execute(f"CREATE TEMP TABLE checked AS SELECT n{parts} FROM raw ORDER BY n")
        counted = table.connection.execute("SELECT count(*) FROM checked").fetchone()
        ids = None
        if "context_id" in table:
            table.refuse_first("context_id", f"({table.text('context_id')}) IS NULL", "an id")
            fetched = table.connection.execute(f"SELECT {made['context_id']} AS id FROM checked ORDER BY n")
            ids = np.asarray(fetched.fetchnumpy()["id"], dtype=object)
        coded = table.coded({dim: made[dim] for dim in dims}, "checked")
        return ContextColumns(int(counted[0]) if counted else 0, coded, ids)
