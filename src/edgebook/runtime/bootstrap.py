"""The composition root: the only place that knows which adapters stand behind the ports."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from edgebook.adapters.brokers.paper import PaperBroker, PaperCosts
from edgebook.adapters.feeds.curators import read_curators
from edgebook.adapters.feeds.parquet import ParquetSource
from edgebook.adapters.feeds.script import ScriptSource
from edgebook.adapters.feeds.signals import TableResolver, read_signals, read_tokens
from edgebook.adapters.feeds.sim import SimSource
from edgebook.adapters.sql import SqlStore
from edgebook.desk import Desk
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import InputError
from edgebook.domain.evidence import Fact
from edgebook.domain.masking import masked
from edgebook.engine.columns import EngineConfig
from edgebook.jobs import register_curators
from edgebook.learning.config import LearningConfig
from edgebook.overrides.record import CHANNELS
from edgebook.ports import BarSource, Store, TokenInfo, UnitOfWork
from edgebook.runtime.live import VenueEnd, open_venue
from edgebook.runtime.live_tape import LiveTape
from edgebook.runtime.logs import plain_log
from edgebook.runtime.market import Tape
from edgebook.runtime.scripted import NOT_SCRIPTED, Script
from edgebook.runtime.settings import Settings
from edgebook.runtime.system import System
from edgebook.trading.rules import (
    DecisionRules,
    PmRules,
    ProtectionRules,
    RiskRules,
    ShadowRules,
    SkewRules,
    TradingRules,
)
from edgebook.trading.signals import parse_signal

_SETTINGS = "settings_hash"


@dataclass(frozen=True, slots=True)
class Feed:
    """Where bars and signals come from, and what is said in the engine's place (nothing as a rule)."""

    source: BarSource
    drivers: BarSource | None = None
    signals: Sequence[tuple[int, str]] = ()
    start: int | None = None
    chunk_days: int | None = None
    venue: VenueEnd | None = None
    script: Script = NOT_SCRIPTED


def open_feed(settings: Settings, signals: Path | None = None, regime_bars: Path | None = None) -> Feed:
    """The feed a setting names: ``sim``, ``parquet:DIR`` with signals and drivers from files, ``script:FILE`` or
    ``ccxt:EXCHANGE``.

    Raises:
        InputError: an unknown feed, or files that cannot be read; names the file, row and field.
    """
    kind, _, place = settings.feed.partition(":")
    if kind == "sim" and not place:
        sim = SimSource(settings.seed, settings.sim_tokens)
        return Feed(sim, start=sim.start, chunk_days=1)
    if kind == "parquet" and place:
        return parquet_feed(Path(place), signals, regime_bars)
    if kind == "script" and place:
        if signals is not None or regime_bars is not None:
            raise InputError(f"feed {settings.feed} takes no recorded signals or regime bars: they are in the script")
        return script_feed(Path(place))
    if kind == "ccxt" and place:
        if signals is not None or regime_bars is not None:
            raise InputError(
                f"feed {settings.feed} takes no recorded signals or regime bars: post signals with edgebook inject"
            )
        return exchange_feed(settings, *open_venue(settings, clock_of(open_store(settings.db))))
    raise InputError(
        f"feed {settings.feed!r} is not one of: sim, parquet:DIR, script:FILE, ccxt:EXCHANGE", stage="settings"
    )


def script_feed(file: Path) -> Feed:
    """A written market (`adapters.feeds.script`).

    Raises:
        InputError: a line is broken; names file, line and field.
    """
    source = ScriptSource(file)
    return Feed(source, source.dominances, start=source.start, script=Script(source.readings))


def exchange_feed(settings: Settings, venue: VenueEnd, start: int) -> Feed:
    """Bars of an exchange from ``start`` on, as they happen."""
    return Feed(venue.source, start=start, venue=venue)


def clock_of(store: Store) -> int | None:
    """Where a database stands, microseconds UTC; None for one that has not been written yet."""
    try:
        with store.reader() as uow:
            mark = uow.watermarks.get("clock")
    except InputError:
        return None
    return mark.at if mark else None


def parquet_feed(bars: Path, signals: Path | None = None, regime_bars: Path | None = None) -> Feed:
    """Recorded bars of a directory; the token table is ``tokens.csv`` beside the signals, when it is there.

    Raises:
        InputError: a file is missing or unreadable, or a signal line is broken; names the file and line.
    """
    table = signals.parent / "tokens.csv" if signals is not None else None
    tokens = read_tokens(table) if table is not None and table.exists() else None
    source = ParquetSource(bars, tokens=tokens)
    drivers = ParquetSource(regime_bars) if regime_bars is not None else None
    return Feed(source, drivers, _ordered(signals, tokens, source.symbols) if signals is not None else ())


def _ordered(path: Path, tokens: Mapping[str, TokenInfo] | None, symbols: Container[str]) -> list[tuple[int, str]]:
    """(time, line) of recorded signals; every one must mean a token of the table, or without a table one with bars."""
    lines: list[tuple[int, str, str]] = []
    resolver = TableResolver(tokens, TradingRules().dm.chains) if tokens is not None else None
    for number, text in read_signals(path):
        where = f"{path}:{number}"
        signal = parse_signal(text, resolve=resolver.resolve if resolver else None, where=where)
        if resolver is None and signal.payload.symbol not in symbols:
            raise InputError(f"{where}: token.symbol {signal.payload.symbol!r} has no bars", stage="ingest")
        lines.append((signal.ts, signal.payload.signal_id, text))
    return [(ts, text) for ts, _, text in sorted(lines)]


def trading_rules(settings: Settings, timeframes: Sequence[str]) -> TradingRules:
    """Trading rules of these settings on the timeframes that can be built."""
    return TradingRules(
        book=settings.book,
        starting_cash_usd=Decimal(settings.starting_cash_usd),
        timeframes=tuple(timeframes),
        dm=DecisionRules(coefficients=settings.dm_coefficients, warn_positions=settings.max_active),
        pm=PmRules(
            s1_policy=settings.s1_policy,
            first_dip_enabled=settings.first_dip,
            reclaim_enabled=settings.reclaim,
            complete_partials=settings.complete_partials,
            archive_after=round(settings.archive_days * DAY),
            pool_only=settings.pool_only,
            trade_mid_attempt=settings.trade_mid_attempt,
            episode_block=settings.episode_block,
            disaster_stop_atr=settings.disaster_stop_atr,
            max_bars_in_attempt=settings.max_bars_in_attempt,
            emergency_timeout_bars=settings.emergency_timeout_bars,
        ),
        risk=_risk_rules(settings),
        skew=SkewRules(enabled=settings.exposure_skew, alpha=settings.exposure_skew_alpha),
        protections=ProtectionRules(
            daily_loss=Decimal(repr(settings.daily_loss_stop)),
            drawdown=Decimal(repr(settings.drawdown_stop)),
            cooldown=round(settings.cooldown_hours * HOUR),
            loss_streak=settings.loss_streak,
            loss_streak_pause=round(settings.loss_streak_hours * HOUR),
            stop_buy=settings.stop_buy,
        ),
        shadows=ShadowRules(enabled=settings.shadows),
    )


def _risk_rules(settings: Settings) -> RiskRules:
    return RiskRules(
        min_notional_usd=_exact(settings.min_notional_usd),
        cash_reserve=_exact(settings.cash_reserve),
        max_exposure=_exact(settings.max_exposure),
        per_token=_exact(settings.per_token),
        participation=_exact(settings.participation),
        fee_bps=_exact(settings.fee_reserve_bps),
        canary=frozenset(settings.canary),
    )


def _exact(number: float) -> Decimal:
    """A setting as it was written: 5, and not 5.0."""
    return Decimal(f"{number:.15g}")


def learning_rules(settings: Settings) -> LearningConfig:
    """Constants of learning under these settings."""
    return LearningConfig(tuning_method=settings.tuning_method)


def paper_broker(settings: Settings, tokens: Mapping[str, TokenInfo], rules: TradingRules) -> PaperBroker:
    """The paper broker of these settings; costs follow each token's chain, the share of a bar it fills the rules."""
    return PaperBroker(
        PaperCosts(
            symbols={symbol: token.chain for symbol, token in tokens.items()},
            participation=float(rules.risk.participation),
            max_slippage_bps=settings.max_slippage_bps,
            fill_on=settings.fill_on,
            failure_probability=settings.failure_probability,
        )
    )


def open_store(url: str, *, durable: bool = True) -> SqlStore:
    """The database a URL names.

    Args:
        durable: False for a database that is thrown away after the run: its commits do not wait for the disk.

    Raises:
        InputError: not a URL edgebook knows.
    """
    return SqlStore(url, durable=durable)


@contextmanager
def system(
    store: Store,
    settings: Settings,
    feed: Feed,
    *,
    start: int | None = None,
    end: int | None = None,
    strict: bool = False,
) -> Iterator[System]:
    """A system ready to step, on the single writer of ``store``.

    What the registry of curators says is written into the log first, where the book does not know it yet.

    Raises:
        InputError: the database was written under other settings, or the registry of curators cannot be read.
        PortError: somebody else is writing to it.
    """
    plain_log()
    registry = read_curators(settings.curators) if settings.curators else ()
    tape = _tape(settings, feed, start)
    if end is not None:
        tape.end = min(end, tape.end) if tape.end is not None else end
    if tape.end is not None and tape.end <= tape.start:
        raise InputError("no bars between --from and --to: the feed has none in that span", stage="boot")
    tape.load(tape.start)
    broker = feed.venue.broker if feed.venue is not None else None
    with store.writer() as uow:
        _same_settings(uow, settings)
        rules = trading_rules(settings, tape.timeframes)
        resolver = TableResolver(tape.tokens, rules.dm.chains) if tape.tokens else None
        desk = Desk(
            uow,
            tape,
            broker or paper_broker(settings, tape.tokens, rules),
            tape.tokens,
            rules,
            learning_rules(settings),
            neutral=settings.neutral_channels if settings.learning_enabled else tuple(CHANNELS),
            resolver=resolver,
        )
        found = System(
            desk,
            tape,
            feed.signals,
            commit_every=settings.commit_every_strands,
            strict=strict,
            at_venue=broker is not None,
        )
        register_curators(desk, registry, found.clock)
        yield found


def _tape(settings: Settings, feed: Feed, start: int | None) -> Tape:
    config = EngineConfig(global_exit=settings.global_exit)
    if feed.venue is not None:
        return LiveTape(
            feed.venue.source,
            settings.timeframes,
            start=feed.start or 0,
            config=config,
            normalise_h=settings.normalise_h,
            appetite_model=settings.appetite_model,
        )
    return Tape(
        feed.source,
        settings.timeframes,
        drivers=feed.drivers,
        start=start if start is not None else feed.start,
        chunk_days=feed.chunk_days,
        config=config,
        normalise_h=settings.normalise_h,
        appetite_model=settings.appetite_model,
        script=feed.script,
    )


def _same_settings(uow: UnitOfWork, settings: Settings) -> None:
    known = uow.meta.get(_SETTINGS)
    if known is None:
        uow.meta.put(Fact(_SETTINGS, settings.book_hash))
    elif known.value != settings.book_hash:
        raise InputError(
            f"database {masked(settings.db)} was written under other settings (feed, seed, timeframes, cash, book, "
            "switches): use them again, or another --db",
            stage="boot",
        )
