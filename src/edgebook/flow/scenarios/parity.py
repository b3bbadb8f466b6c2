"""F17: the same bars and packets through a backtest, a paced run and a held run leave the same log."""

from __future__ import annotations

import json
import random
from pathlib import Path

import duckdb

from edgebook.domain.decay import DAY, HOUR
from edgebook.flow.book import Book, Rows
from edgebook.flow.check import Flow, exactly, same, scenario, some
from edgebook.flow.running import Running
from edgebook.flow.scenarios.walks import walk
from edgebook.flow.story import START, signal

SYMBOLS = ("PARUSDT", "EVENUSDT", "LEVELUSDT", "SAMEUSDT", "TWINUSDT")
DAYS = 130
END = START + DAYS * DAY
#: When the first packets come: on the close of a bar, so that an ingress can be told at the same moment.
FIRST = START + 20 * DAY + 6 * HOUR
#: When the later ones come, between two bars.
LATER = tuple(START + day * DAY + 10 * HOUR + 17 * 60_000_000 for day in (31, 60, 90))
INTENTS = ("adding_to_position", "profit_taking", "research_positive", "new_discovery", "mock")
TIMEFRAMES = "1h,4h"
HEAD = "SELECT seq, hash FROM ad_strands ORDER BY seq DESC LIMIT 1"
LOG = "SELECT kind, count(*) FROM ad_strands GROUP BY kind ORDER BY kind"
TABLES = {
    "ledger": "SELECT key, status, ledger_quantity, ledger_realised FROM positions ORDER BY key",
    "closure": "SELECT key, pnl_usd, rr FROM trades ORDER BY key",
    "aggregator": "SELECT key, n, stats FROM pattern_scope_stats ORDER BY key",
}
#: Simulated seconds per second of the paced run.
SPEED = "8000000"


def _bars(folder: Path) -> Path:
    """``SYMBOL-1h.parquet`` of seeded walks, as a recorder would have written them: times in milliseconds."""
    folder.mkdir(parents=True)
    for number, symbol in enumerate(SYMBOLS):
        text, before = ["timestamp,open,high,low,close,volume"], 100.0
        for i, close in enumerate(walk(random.Random(number + 11), DAYS * 24)):
            at = (START + i * HOUR) // 1000
            text.append(f"{at},{before},{max(before, close)},{min(before, close)},{close},{50_000 + i % 7 * 1_000}")
            before = close
        plain = folder / f"{symbol}.csv"
        plain.write_text("\n".join(text) + "\n", encoding="utf-8")
        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (SELECT * FROM read_csv('{plain}', header = true, types = {{'open': 'DOUBLE', 'high': 'DOUBLE',"
                f" 'low': 'DOUBLE', 'close': 'DOUBLE', 'volume': 'DOUBLE'}}))"
                f" TO '{folder / f'{symbol}-1h.parquet'}' (FORMAT parquet)"
            )
        plain.unlink()
    return folder


def _packets() -> tuple[list[str], list[str]]:
    """The first packets, one per token, and the later ones of other people."""
    first = [signal(f"par-{symbol}", symbol, FIRST) for symbol in SYMBOLS]
    later = [
        signal(f"par-{at}-{symbol}", symbol, at, curator=f"c{i}", intent=intent)
        for i, at in enumerate(LATER)
        for symbol, intent in zip(SYMBOLS, INTENTS, strict=True)
    ]
    return first, later


@scenario("F17", "parity: backtest, paced run and held run of the same bars and packets leave identical strands")
def parity(flow: Flow) -> None:
    """The held run hears its first packets at the ingress, the others read all of them from a file."""
    bars, (first, later) = _bars(flow.folder / "bars"), _packets()
    told, rest = flow.folder / "signals.jsonl", flow.folder / "later.jsonl"
    told.write_text("\n".join([*first, *later]) + "\n", encoding="utf-8")
    rest.write_text("\n".join(later) + "\n", encoding="utf-8")
    feed = f"parquet:{bars}"
    with flow.system(feed, options=("--held", "--signals", str(rest)), timeframes=TIMEFRAMES) as system:
        flow.about(f"par-{SYMBOLS[0]}")
        system.pass_until(FIRST)
        flow.inject(system, *first)
        flow.check("DM", "SELECT count(*) FROM decisions", exactly(len(SYMBOLS)).meaning("one per packet"))
        system.pass_until(END)
        held = flow.book
        _traded(flow)
        wanted = {name: flow.ask(query) for name, query in ({"log": LOG, "head": HEAD} | TABLES).items()}
        tested = _backtest(flow, system, bars, told, wanted["head"])
        paced = _paced(flow, system, feed, told)
    for words, book in (("backtest", tested), ("paced run", paced)):
        flow.book = book
        _same(flow, words, wanted)
    flow.book = held


def _traded(flow: Flow) -> None:
    """There is something to compare."""
    flow.check("executor", "SELECT id FROM ad_strands WHERE kind = 'order_filled'", some(20).meaning("fills"))
    flow.check("closure", "SELECT key FROM trades", some(5).meaning("closed trades"))
    flow.check("aggregator", "SELECT key FROM pattern_scope_stats", some(20).meaning("statistics"))


def _backtest(flow: Flow, system: Running, bars: Path, told: Path, head: Rows) -> Book:
    """A backtest by its user's command; the report names the head of its log, too."""
    url = flow.fresh()
    words = ("backtest", "--bars", str(bars), "--signals", str(told), "--timeframes", TIMEFRAMES, "--json")
    code, out, err = system.call(*words, db=url)
    found = json.loads(out)["log_head"] if code == 0 else err
    flow.note(
        "backtest",
        "edgebook backtest --bars bars --signals signals.jsonl --timeframes 1h,4h --json",
        f"exit code 0 and log_head {head[0][1]}, as in the held run",
        (code, found) == (0, head[0][1]),
        f"exit code {code}: {found}",
    )
    return Book(url)


def _paced(flow: Flow, system: Running, feed: str, told: Path) -> Book:
    """A run paced by the wall clock to the end of its feed."""
    url = flow.fresh()
    words = ("run", "--feed", feed, "--signals", str(told), "--speed", SPEED, "--plain")
    code, out, err = system.call(*words, db=url)
    flow.note(
        "scheduler",
        f"edgebook run --feed parquet:bars --signals signals.jsonl --speed {SPEED} --plain",
        "exit code 0 at the end of the feed",
        code == 0,
        f"exit code {code}: {(err or out).strip()[-200:]}",
    )
    return Book(url)


def _same(flow: Flow, words: str, wanted: dict[str, Rows]) -> None:
    flow.check("parity", LOG, same(f"{words}: as many strands of each kind as the held run", wanted["log"]))
    for stage, query in TABLES.items():
        flow.check(stage, query, same(f"{words}: as in the held run", wanted[stage]))
    flow.check("parity", HEAD, same(f"{words}: the hash of the held run, so every strand is the same", wanted["head"]))
