"""How fast the log takes strands that must survive a power cut: one per transaction, and in groups.

    python bench/log.py [--strands 20000] [--group 500] [--db URL] [--json [--mode grouped|single]]

Ours encodes each strand canonically, chains its hash, refuses a known id, and commits with a sync. The peers write the
same rows into a table with the same columns and indexes, with the same durability (SQLite, WAL, synchronous=FULL), and
neither hash nor check anything: plain ``sqlite3``, and SQLAlchemy Core. All run in turns; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from sqlalchemy import create_engine, event, insert

from edgebook.adapters import codec
from edgebook.adapters.sql import SqlStore
from edgebook.adapters.tables import ad_strands
from edgebook.domain.codec import to_json
from edgebook.domain.ids import stable_id
from edgebook.domain.strands import OrderFilled, Strand

ROUNDS = 3
Groups = Sequence[Sequence[Strand]]


def make_strands(count: int) -> list[Strand]:
    """Order fills as the loop writes them, about 700 bytes each as stored."""
    return [
        Strand(
            stable_id("strand", n),
            OrderFilled(
                client_id=stable_id("client", n),
                action_id=stable_id("action", n),
                side="buy",
                decision_type="entry",
                rule=5,
                quantity=Decimal("12.500000001"),
                price=1.2345 + n,
                fee_usd=Decimal("0.125"),
                slippage_bps=5.0,
                partial=False,
                bar_ts_open=1_700_000_000_000_000 + n,
            ),
            1_700_000_000_000_000 + n,
            1_700_000_000_000_000 + n,
            module="pm",
            symbol="BTCUSDT",
            timeframe="1h",
            position_id=stable_id("position", n % 100),
            trade_id=stable_id("trade", n % 1000),
            correlation_id=stable_id("signal", n % 500),
            causation_id=stable_id("action", n),
            scope={"macro_phase": "Good", "timeframe": "1h", "bucket": "mid"},
        )
        for n in range(count)
    ]


def ours(url: str, groups: Groups) -> float:
    """Seconds for the store to append and commit each group."""
    with SqlStore(url).writer() as uow:
        salt = f"{uow.log.head[0]}-"  # a server's database may hold earlier rounds
        fresh = [[replace(s, id=salt + s.id) for s in group] for group in groups]
        start = time.perf_counter()
        for group in fresh:
            uow.log.append(group)
            uow.commit()
        return time.perf_counter() - start


def plain_row(strand: Strand, seq: int) -> tuple[object, ...]:
    """The row a hand-written program would make: standard library JSON, no hash."""
    texts = (json.dumps(to_json(part)).encode() for part in (strand.payload, strand.scope, strand.tags))
    content, scope, tags = texts
    row = codec.strand_row(strand, codec.Encoded(b"", content, scope, tags))
    return (seq, *row[1:-1], codec.GENESIS)


def plain_sqlite(path: Path, groups: Groups) -> float:
    """Seconds for ``sqlite3`` with ``executemany`` and one transaction per group."""
    connection = sqlite3.connect(empty_table(path), isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    marks = ", ".join("?" * len(codec.COLUMNS))
    statement = f"INSERT INTO ad_strands ({', '.join(codec.COLUMNS)}) VALUES ({marks})"
    start, seq = time.perf_counter(), 0
    for group in groups:
        connection.execute("BEGIN")
        connection.executemany(statement, [plain_row(s, seq + n) for n, s in enumerate(group, 1)])
        connection.execute("COMMIT")
        seq += len(group)
    elapsed = time.perf_counter() - start
    connection.close()
    return elapsed


def sqlalchemy_core(path: Path, groups: Groups) -> float:
    """Seconds for SQLAlchemy Core, one insert and one transaction per group."""
    engine = create_engine(f"sqlite:///{empty_table(path)}")
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=FULL"))
    statement = insert(ad_strands)
    with engine.connect() as connection:
        start, seq = time.perf_counter(), 0
        for group in groups:
            rows = [plain_row(s, seq + n) for n, s in enumerate(group, 1)]
            with connection.begin():
                connection.execute(statement, [dict(zip(codec.COLUMNS, row, strict=True)) for row in rows])
            seq += len(group)
        elapsed = time.perf_counter() - start
    engine.dispose()
    return elapsed


def empty_table(path: Path) -> Path:
    """A database with the log's table and indexes, in WAL mode, without triggers and chain."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        ad_strands.create(connection)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    engine.dispose()
    return path


def measure(groups: Groups, url: str | None) -> dict[str, float]:
    """Strands per second of each contender: medians of rounds taken in turns."""
    count = sum(len(group) for group in groups)
    contenders: dict[str, Callable[[Path], float]] = {
        "ours": lambda path: ours(url or f"sqlite:///{path}", groups),
        "sqlite3": lambda path: plain_sqlite(path, groups),
        "sqlalchemy core": lambda path: sqlalchemy_core(path, groups),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(run(Path(folder) / "book.db"))
    return {name: round(count / statistics.median(times)) for name, times in seconds.items()}


def report(name: str, work: str, speeds: dict[str, float]) -> dict[str, object]:
    """The form every bench prints."""
    own = speeds.pop("ours")
    better = {peer: round(own / speed, 2) for peer, speed in speeds.items()}
    return {"name": name, "work": work, "unit": "strands/s", "ours": own, "peer": speeds, "times_better": better}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strands", type=int, default=20_000)
    parser.add_argument("--group", type=int, default=500)
    parser.add_argument("--db", help="measure ours on this database (PostgreSQL); the peers stay on SQLite")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--mode", choices=["grouped", "single"], help="default: grouped with --json, else both")
    options = parser.parse_args()

    modes = [options.mode] if options.mode else ["grouped"] if options.json else ["grouped", "single"]
    for mode in modes:
        size = options.group if mode == "grouped" else 1
        strands = make_strands(options.strands if mode == "grouped" else max(1, options.strands // 20))
        stored = statistics.mean(sum(len(str(v)) for v in plain_row(s, 1)) for s in strands[:100])
        work = f"{len(strands)} strands of {stored:.0f} characters, {size} per durable transaction"
        groups = [strands[n : n + size] for n in range(0, len(strands), size)]
        result = report(f"log, {mode}", work, measure(groups, options.db))
        if options.json:
            print(json.dumps(result))
        else:
            print(f"{result['name']}: {work}\n  ours {result['ours']} strands/s; peers {result['peer']};", end=" ")
            print(f"times better {result['times_better']}")


if __name__ == "__main__":
    main()
