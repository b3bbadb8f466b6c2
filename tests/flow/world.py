"""A small world for flow tests: the real system on a small simulated market, and the only ways of looking at it.

Signals go in through the feed or the ingress, time passes through the scheduler, everything else is a query. Nothing
here
calls a job, a rule or a fold by itself.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import numpy as np

from edgebook.adapters.feeds.sim import SimSource
from edgebook.adapters.tables import TABLES
from edgebook.domain.decay import DAY
from edgebook.domain.strands import PAYLOADS
from edgebook.learning.config import LearningConfig
from edgebook.market.bars import BarSeries
from edgebook.ports import Store, TokenInfo, UnitOfWork
from edgebook.runtime import bootstrap
from edgebook.runtime.scheduler import run_simulated
from edgebook.runtime.settings import Settings
from edgebook.runtime.system import System
from edgebook.trading.signals import ACCEPTED, KNOWN, REFUSED, Receipt

MINUTE = 60_000_000
TOKENS, PREHISTORY = 4, 2
#: A learner that believes after a handful of trades: in a few simulated days every part of learning has to move.
EAGER = LearningConfig(
    fit_min_observations=6, gate_on_nats=0.0, gate_off_nats=-1.0, cell_gate_on_nats=9.0, refit_min_new=2,
    level_min_observations=2, tau_prior_levels=0.1, tuning_min_episodes=4, tuning_min_support=1.0,
)  # fmt: skip
#: Kinds a small run need not have: paper orders are rarely refused or late, protections are off, nobody steers.
NOT_EVERY_RUN = {"order_rejected", "order_expired", "protection_changed", "nav_marked", "config_steered"}
FULL_CYCLE = set(PAYLOADS) - NOT_EVERY_RUN
#: Tables that tell what happened; ``runs`` tell how often somebody looked.
FACTS = tuple(spec.name for spec in TABLES if spec.name not in ("runs", "meta"))


# ------------------------------------------------------------------ markets


def sim_feed(
    seed: int = 2, *, tokens: int = TOKENS, prehistory: int = PREHISTORY, chunk_days: int = 1
) -> bootstrap.Feed:
    """The simulated market with little history, so that 1 m positions wake at once and loading is quick."""
    source = SimSource(seed, tokens, prehistory=prehistory)
    return bootstrap.Feed(source, start=source.start, chunk_days=chunk_days)


class BentSource:
    """Another source up to ``at``, another market afterwards: prices half as high again, three times the volume.

    The bar that opens at ``at`` keeps its open, which is known then; all that comes later differs. With ``at`` None
    nothing
    is bent. Finite: ends at ``end``, so that a tape may read it whole.
    """

    def __init__(self, source: SimSource, end: int, at: int | None) -> None:
        self._source, self._end, self._at = source, end, at

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._source.symbols

    @property
    def base_timeframe(self) -> str:
        return self._source.base_timeframe

    @property
    def span(self) -> tuple[int, int | None]:
        return self._source.span[0], self._end

    def bars(self, symbol: str, start: int, end: int) -> BarSeries:
        bars = self._source.bars(symbol, start, min(end, self._end))
        if self._at is None or not len(bars):
            return bars
        later = np.where(bars.ts_open >= self._at, 1.5, 1.0)
        opened = bars.open * np.where(bars.ts_open > self._at, 1.5, 1.0)
        return dataclasses.replace(
            bars,
            open=opened,
            high=np.maximum(bars.high * later, opened),
            low=np.minimum(bars.low * later, opened),
            close=bars.close * later,
            volume=bars.volume * np.where(later > 1, 3.0, 1.0),
        )

    def signals(self, start: int, end: int) -> Sequence[str]:
        return self._source.signals(start, end)

    def tokens(self) -> dict[str, TokenInfo]:
        return self._source.tokens()


def write_bars(directory: Path, days: int, *, seed: int = 2, tokens: int = TOKENS) -> list[str]:
    """``SYMBOL-1m.parquet`` of the simulated market, as a recorder would have written them; returns its signal lines.

    Recorded bars start with the pre-history; signals begin ``PREHISTORY`` days later.
    """
    source = SimSource(seed, tokens, prehistory=PREHISTORY)
    end = source.start + days * DAY
    directory.mkdir(parents=True, exist_ok=True)
    for symbol in source.symbols:
        write_parquet(directory / f"{symbol}-1m.parquet", columns_of(source.bars(symbol, 0, end)))
    return list(source.signals(source.start, end))


def columns_of(bars: BarSeries) -> dict[str, Any]:
    """Columns of a bar file, milliseconds."""
    names = ("open", "high", "low", "close", "volume")
    return {"timestamp": bars.ts_open // 1000, **{name: getattr(bars, name) for name in names}}


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    """A Parquet file of these columns."""
    with duckdb.connect() as connection:
        connection.register("source", {name: np.asarray(values) for name, values in columns.items()})
        connection.execute(f"COPY (SELECT * FROM source) TO '{path}' (FORMAT parquet)")
    return path


# ------------------------------------------------------------------ running


def settings_for(url: str, **change: Any) -> Settings:
    """Settings of the small world."""
    return Settings(**{"db": url, "feed": "sim", "seed": 2, "sim_tokens": TOKENS, "timeframes": "1m", **change})


@contextmanager
def opened(
    store: Store, settings: Settings, feed: bootstrap.Feed, *, learning: LearningConfig = EAGER, strict: bool = True
) -> Iterator[System]:
    """The assembled system, as the composition root makes it, with other learning constants."""
    with (
        mock.patch.object(bootstrap, "LearningConfig", return_value=learning),
        bootstrap.system(store, settings, feed, strict=strict) as system,
    ):
        yield system


def run_days(
    store: Store, days: float, *, feed: bootstrap.Feed | None = None, settings: Settings | None = None, **how: Any
) -> str:
    """Walk so many days of the small market; returns the head of the log."""
    with opened(store, settings or settings_for("memory"), feed or sim_feed(), **how) as system:
        run_simulated(system, system.tape.start + int(days * DAY))
        return system.desk.uow.log.head[1]


# ------------------------------------------------------------------ looking


def facts(uow: UnitOfWork) -> dict[str, dict[str, Any]]:
    """Every row of every table that tells what happened, by table and key."""
    return {name: {row.key: row for row in getattr(uow, name).values()} for name in FACTS}


def known_at(uow: UnitOfWork, moment: int) -> list[tuple[int, str, str]]:
    """(seq, id, hash) of everything recorded up to ``moment``; the hash is of the whole chain so far."""
    return [(s.seq, s.id, s.hash) for s in uow.log.read(0) if s.ts_recorded <= moment]


def ask(database: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a query, from outside."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return connection.execute(query, values).fetchall()


def counted(receipts: Sequence[Receipt]) -> dict[str, int]:
    """How many lines of a delivery were accepted, known and refused."""
    return {status: sum(r.status == status for r in receipts) for status in (ACCEPTED, KNOWN, REFUSED)}


def signal_line(ident: str, ts: str, symbol: str, **change: Any) -> str:
    """One social signal as JSONL."""
    token = {"symbol": symbol, "ticker": symbol.removesuffix("USDT"), "chain": "exchange"}
    said = {
        "id": ident,
        "ts": ts,
        "curator": "ann",
        "token": token,
        "intent": "new_discovery",
        "mapping_confidence": 0.95,
    }
    return json.dumps({**said, **change})
