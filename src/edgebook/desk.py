"""The desk: what a job works with. It gathers inputs through ports and applies results; it decides nothing.

Everything durable goes through ``uow``. The indices kept here (open orders, positions that need a look, what is
fresh) can be derived from the tables at any time and are, when the desk is set up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypedDict

from edgebook.domain.book import ZERO, Account, Decision, Order, PmMemory, Position, RegimeSnapshot
from edgebook.domain.errors import EdgebookError, PortError
from edgebook.domain.evidence import (
    ConfigRow,
    ConfigVersion,
    DeadLetter,
    Fact,
    FamilyFit,
    Lesson,
    split_family,
)
from edgebook.domain.ids import stable_id
from edgebook.domain.mentions import token_key
from edgebook.domain.protection import BOOK, CHANNEL, PATTERN, Protection, ProtectionChanged, token_scope
from edgebook.domain.regime import Regime
from edgebook.domain.scope import SCHEMAS
from edgebook.domain.steering import ConfigSteered
from edgebook.domain.strands import (
    ConfigChanged,
    JobCompleted,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    PmAction,
    Strand,
    TradeCounterfactual,
)
from edgebook.domain.timeframe import micros
from edgebook.domain.values import replace
from edgebook.learning.config import LearningConfig
from edgebook.learning.lessons import FamilyInput
from edgebook.learning.table import TradeTable
from edgebook.overrides.history import ConfigHistory
from edgebook.ports import Broker, MarketReader, TokenInfo, TokenResolver, UnitOfWork
from edgebook.projections import project, refold_coefficients, refold_protections
from edgebook.stage import Stage
from edgebook.trading.curators import addresses, written
from edgebook.trading.exposure import Exposure, OpenTrades, exposure_of
from edgebook.trading.intents import intent_of
from edgebook.trading.position import position_id, usd
from edgebook.trading.protections import OPEN, Guard, guard_of, scopes_of
from edgebook.trading.risk import BookView, with_fee
from edgebook.trading.rules import TradingRules
from edgebook.trading.settle import restless
from edgebook.trading.skew import Lot, lots_of
from edgebook.trading.tick import awake

LEARNER, OPERATOR = "learning_system", "operator"
"""Who makes config versions: ``updated_by`` of their rows and strands."""
AGGREGATED = frozenset({"position_closed", "uptrend_episode_summary", "shadows_closed"})
"""Kinds of strand that learning folds into statistics."""
_NEXT = {
    "pattern_scope_aggregator": ("lesson_builder_pm", "lesson_builder_dm"),
    "lesson_builder_pm": ("override_materializer",),
    "lesson_builder_dm": ("override_materializer",),
}


STALE_MARKS = "stale_marks"
"""Fact that holds the positions valued at an old price, a JSON list of ids."""
STALE_BARS = 3
"""Bars of a position's timeframe after which the price it is valued at is old (trading.md 4.2)."""


class NewestVersion(TypedDict):
    """What the materializer must know of the version in force and of those before it."""

    after: int
    previous_hash: str
    documents_of: Callable[[int], tuple[Mapping[str, Any], Mapping[str, Any]] | None]


CATCHING_UP = Guard(("catching_up",))
"""Bars of a time when the system was off, or heard nothing, are bought on no more; exits are."""


def _storable(text: str) -> str:
    """``text`` with what no database takes (NUL, half surrogate pairs) written out as escapes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _ignore(strand: Strand) -> None:
    """Nobody listens."""


class Desk:
    """One writer's workbench.

    Args:
        uow: the writer's unit of work.
        market, broker: ports to the world.
        tokens: token table; empty when there is none.
        rules, learning: frozen numbers of trading and learning.
        neutral: channels whose overrides may not act; their evidence is still gathered.
        resolver: finds the token a message means; None takes messages at their word.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        market: MarketReader,
        broker: Broker,
        tokens: Mapping[str, TokenInfo],
        rules: TradingRules,
        learning: LearningConfig,
        *,
        neutral: Sequence[str] = (),
        resolver: TokenResolver | None = None,
    ) -> None:
        self.resolver = resolver
        self.uow, self.market, self.broker, self.tokens = uow, market, broker, tokens
        self.rules, self.learning = rules, learning
        self.stage = Stage(uow, market, rules)
        self._off = tuple(neutral)
        self.listener: Callable[[Strand], None] = _ignore
        self.catching_up = False
        """Whether the bars walked are old news: nothing is bought on them."""
        self.opening = Account(rules.book, rules.starting_cash_usd)
        self.history = ConfigHistory()
        self.orders: dict[str, Order] = {}
        self.attention: dict[str, set[str]] = {}
        self._unsure: dict[str, set[str]] = {}
        self._watched: dict[tuple[str, str], dict[str, None]] = {}
        self._holding: dict[str, None] = {}
        self._trading: set[str] = set()
        self._dormant: set[str] = set()
        self._addresses: dict[str, str] = {}
        self._barred: set[str] = set()
        self._unreviewed: set[str] = set()
        self._stirred = {"pattern_scope_aggregator", *_NEXT, *(job for jobs in _NEXT.values() for job in jobs)}
        self.trades = OpenTrades()
        self._view_at = -1
        self._nav = self._cost = ZERO
        self._costs: dict[str, Decimal] = {}
        self._lots: tuple[Lot, ...] = ()
        refold_protections(uow)
        refold_coefficients(uow)
        self.reset()

    def reset(self) -> None:
        """Derive history and indices from the tables anew: at the start, and after a failed job was undone."""
        versions = sorted(self.uow.config_versions.values(), key=lambda v: v.version)
        rows = list(self.uow.protections.values())
        self._barred = {row.scope for row in rows if row.blocks}
        self._unreviewed = {BOOK, *(row.scope for row in rows)}
        self.history = ConfigHistory.from_versions(versions, neutral_channels=self._neutral())
        self.orders = {o.client_id: o for o in self.uow.orders.values() if o.status == "planned"}
        for index in (self.attention, self._unsure, self._watched, self._holding, self._trading, self._dormant):
            index.clear()
        self.trades.clear()
        for trade in self.uow.trades.values():
            self.trades.closed(trade)
        for position in self.uow.positions.values():
            self._notice(position)
            if position.attempt_id:
                self._unsure.setdefault(position.timeframe, set()).add(position.id)
        self.stage.reset()
        self._addresses = addresses(self.uow.curators.values())
        self._view_at = -1

    # -- the log and its projections

    def record(self, strands: Sequence[Strand]) -> None:
        """Append strands and fold the new ones into the book."""
        if not strands:
            return
        before = self.uow.log.head[0]
        for strand in self.uow.log.append(strands):
            if strand.seq <= before:
                continue
            project(self.uow, strand, self.opening)
            if strand.kind == "position_closed" and (trade := self.uow.trades.get(strand.trade_id)) is not None:
                self.trades.closed(trade)
            self.listener(strand)
            if strand.position_id:
                self._follow(strand)
            if strand.kind == "curator_registered":
                self._addresses = addresses(self.uow.curators.values())
            self.stage.hear(strand)
            if strand.kind in AGGREGATED:
                self._stirred.add("pattern_scope_aggregator")
            self._mind(strand)

    def strand(self, payload: JobCompleted | ConfigChanged | ConfigSteered, now: int, *key: str | int) -> Strand:
        """A strand of the system itself, with an id made of its kind and ``key``."""
        return Strand(
            stable_id(payload.kind, *key),
            payload,
            now,
            now,
            module="learning",
            config_version=self.history.current_version,
        )

    def afterthought(self, ident: str, payload: TradeCounterfactual, closed: Strand, now: int) -> Strand:
        """A strand about a trade that has closed before."""
        told = replace(closed, id=ident, payload=payload, ts_event=now, ts_recorded=now, causation_id=closed.id)
        return replace(told, tags=(payload.kind,), seq=0, hash="")

    def bury(self, error: EdgebookError, *, content: str, stage: str, now: int, correlation_id: str = "") -> None:
        """Keep what could not be processed, with its reason (architecture law 7)."""
        content, reason = _storable(content), _storable(error.message)
        ident = stable_id("dead", stage, content, reason)
        self.uow.dead_letters.put(
            DeadLetter(ident, stage, reason, content, now, correlation_id or error.correlation_id)
        )

    def watermark(self, consumer: str) -> int:
        """How far ``consumer`` has read the log."""
        row = self.uow.watermarks.get(consumer)
        return row.seq if row else 0

    def snapshot(self, regime: Regime) -> None:
        """Keep the regime snapshot that strands refer to."""
        if self.uow.snapshots.get(regime.snapshot_id) is None:
            self.uow.snapshots.put(RegimeSnapshot(regime.snapshot_id, regime.ts, dict(regime.snapshot)))

    # -- who says what

    def curator_id(self, address: str) -> str:
        """The registry's id of a ``platform:handle`` or of an id in other letters; what is none of the registry's
        stands for itself."""
        return self._addresses.get(written(address), address)

    def answered(self, positions: Mapping[str, Position]) -> dict[str, Strand]:
        """Per timeframe the newest signal a position answers to, or will once it has closed."""
        found = {}
        for timeframe, position in positions.items():
            decision = self.decision(position.pending_decision_id or position.decision_id)
            signal = self.uow.log.get(decision.signal_id) if decision else None
            if signal is not None:
                found[timeframe] = signal
        return found

    def intent(self, position: Position, now: int) -> tuple[float, float]:
        """What the mentions of a position's token add to A and E at ``now`` (trading.md 1.4)."""
        row = self.uow.intents.get(token_key(position.chain, position.contract))
        return intent_of(row, self.uow.curators.get, now)

    def exposure(self, regime: Regime, decision: Decision | None, now: int) -> Exposure | None:
        """What the phase model of A and E must know of the book; None where the regime's model does not ask."""
        if regime.pressure is None:
            return None
        return exposure_of(self.trades, lambda hour: self.market.regime("1h", "", hour).pressure or 0.0, decision, now)

    # -- positions and orders

    def position(self, ident: str) -> Position:
        """A position that must exist."""
        found = self.uow.positions.get(ident)
        if found is None:
            raise PortError(f"position {ident} is referred to but not in the book", stage="desk")
        return found

    def decision(self, ident: str) -> Decision | None:
        """An approved decision, None for ""."""
        return self.uow.decisions.get(ident) if ident else None

    def ready_bars(self, symbol: str, timeframe: str, now: int) -> int:
        """Closed bars that count for waking a position at ``now``: those since the last long hole."""
        return self.market.contiguous_bars(symbol, timeframe, now, self.rules.dm.max_hole_bars)

    def positions_of(self, chain: str, contract: str) -> dict[str, Position]:
        """The token's positions by timeframe."""
        found = {}
        for timeframe in self.rules.timeframes:
            position = self.uow.positions.get(position_id(chain, contract, timeframe, self.rules.book))
            if position is not None:
                found[timeframe] = position
        return found

    def lay_down(self, ident: str) -> None:
        """Drop the open episode of a position that has been archived: how it goes on will not be seen."""
        memory = self.uow.memory.get(ident)
        if self.position(ident).status != "archived":
            return
        self.stage.drop_of(ident)
        if memory is not None and memory.episodes:
            self.uow.memory.put(PmMemory(ident, memory.last_bar_ts, memory.last_bar_index))

    def due(self, timeframe: str, now: int) -> Iterator[tuple[Position, PmMemory]]:
        """Positions of ``timeframe`` whose bar closes at ``now`` and that have something to look at, by symbol."""
        events = dict(self.market.due(timeframe, now))
        restless_ids = self.attention.get(timeframe, set()) | self._overtaken(timeframe, now)
        if restless_ids:
            symbols = {self.position(ident).symbol for ident in restless_ids}
            events = {symbol: events.get(symbol, 0) for symbol in sorted({*events, *symbols})}
        for symbol, bits in events.items():
            for ident in tuple(self._watched.get((symbol, timeframe), ())):
                position, memory = self.position(ident), self.uow.memory.get(ident) or PmMemory(ident)
                if ident in restless_ids or awake(position, memory, bits, now, self.rules):
                    yield position, memory

    def watchful(self, timeframe: str) -> bool:
        """Whether some position of ``timeframe`` must be looked at on its next bar, whatever that means."""
        return bool(self.attention.get(timeframe) or self._unsure.get(timeframe))

    def _overtaken(self, timeframe: str, now: int) -> set[str]:
        """Positions whose attempt has ended by a bar that nobody walked: asked once, on the first bar after a start."""
        found = set()
        for ident in tuple(self._unsure.get(timeframe, ())):
            reading = self.market.reading(self.position(ident).symbol, timeframe, now)
            if reading is not None:
                self._unsure[timeframe].discard(ident)
                if reading.state == "S0" and not reading.transition:
                    found.add(ident)
        return found

    def open_orders(self) -> list[Order]:
        """Open orders in the order they were planned."""
        return list(self.orders.values())

    def nav(self, now: int) -> Decimal:
        """Value of the book at ``now``: cash, and what is held at mark (at cost where there is no mark), USD to
        1e-6."""
        self._value(now)
        return usd(self._nav)

    def book_view(self, position: Position, now: int) -> BookView:
        """Money as the risk caps see it at ``now`` (trading.md 3.6)."""
        account = self._value(now)
        reserved, own, token, owed = ZERO, ZERO, ZERO, ZERO
        for order in self.orders.values():
            if order.notional_usd is not None:
                reserved += order.notional_usd
                owed += with_fee(order.notional_usd, self.rules.risk)
                own += order.notional_usd if order.position_id == position.id else ZERO
                same = self.position(order.position_id).contract == position.contract
                token += order.notional_usd if same else ZERO
        return BookView(
            nav=self._nav,
            free_cash=account.cash_usd - owed,
            open_cost_total=self._cost + reserved - own,
            open_cost_token=self._costs.get(position.contract, ZERO) + token - own,
            open_cost_position=position.ledger.cost,
            reserved=own,
            lots=self._lots,
        )

    def _value(self, now: int) -> Account:
        """The account, and what the book holds valued at ``now``; once per moment, and after each order."""
        account = self.uow.accounts.get(self.rules.book) or self.opening
        if self._view_at != now:
            self._view_at = now
            self._costs = {}
            nav = account.cash_usd
            for ident in self._holding:
                held = self.position(ident)
                mark = self.market.mark(held.symbol, now)
                ledger = held.ledger
                nav += ledger.quantity * Decimal(repr(mark)) if mark is not None else ledger.cost
                self._costs[held.contract] = self._costs.get(held.contract, ZERO) + ledger.cost
            self._nav = nav
            self._cost = sum(self._costs.values(), ZERO)
            if self.rules.skew.enabled:
                self._lots = tuple(lot for ident in self._holding for lot in lots_of(self.position(ident)))
        return account

    def note_stale_marks(self, now: int) -> None:
        """Keep which holdings are valued at an old price: their bars stay out, the value stays that of the last one.

        A price is old when its bar closed more than three bars of the position's timeframe ago, or there is none.
        """
        stale = []
        for ident in self._holding:
            held = self.position(ident)
            at = self.market.mark_at(held.symbol, now)
            if at is None or now - at > STALE_BARS * micros(held.timeframe):
                stale.append(ident)
        known, text = self.uow.meta.get(STALE_MARKS), json.dumps(sorted(stale))
        if (known.value if known else "[]") != text:
            self.uow.meta.put(Fact(STALE_MARKS, text))

    @property
    def active_positions(self) -> int:
        """Positions of the book that have a trade open."""
        return len(self._trading)

    # -- protections

    @property
    def unsettled(self) -> bool:
        """Whether some protection may have to go on or off now."""
        return bool(self._unreviewed or self._barred or self.rules.protections.watches_nav)

    def to_review(self) -> list[Protection]:
        """Rows to look at now: all of them after the start, then what is barred, the book, and what has closed."""
        scopes = self._unreviewed | self._barred
        if self.rules.protections.watches_nav:
            scopes.add(BOOK)
        self._unreviewed = set()
        return [self.protection(scope) for scope in sorted(scopes)]

    def protection(self, scope: str) -> Protection:
        """What is known of one scope."""
        return self.uow.protections.get(scope) or Protection(scope)

    def guard(self, position: Position) -> Guard:
        """What forbids buys of the position's token now."""
        if self.catching_up:
            return CATCHING_UP
        if not self._barred:
            return OPEN
        table = self.uow.protections
        token = table.get(token_scope(position.chain, position.contract))
        return guard_of(table.get(BOOK), token, table.values(PATTERN))

    def _mind(self, strand: Strand) -> None:
        """Keep the indices of protections true; a channel becomes neutral, or itself again, at once."""
        if isinstance(strand.payload, ProtectionChanged):
            scope = strand.payload.scope
            (self._barred.add if self.protection(scope).blocks else self._barred.discard)(scope)
            if scope.startswith(CHANNEL):
                self.history = self.history.with_neutral(self._neutral())
        elif strand.kind == "position_closed" and self.rules.protections.watches_trades:
            self._unreviewed.update(scopes_of(strand))

    def _neutral(self) -> tuple[str, ...]:
        switched = sorted(s.removeprefix(CHANNEL) for s in self._barred if s.startswith(CHANNEL))
        return (*self._off, *switched)

    @property
    def has_dormant(self) -> bool:
        """Whether some position still gathers bars."""
        return bool(self._dormant)

    def _follow(self, strand: Strand) -> None:
        position = self.uow.positions.get(strand.position_id)
        if position is not None:
            self._notice(position)
        if isinstance(strand.payload, PmAction | OrderFilled | OrderRejected | OrderExpired):
            order = self.uow.orders.get(strand.payload.client_id)
            if order is not None and order.status == "planned":
                self.orders[order.client_id] = order
            else:
                self.orders.pop(strand.payload.client_id, None)
            self._view_at = -1

    def _notice(self, position: Position) -> None:
        """Keep the indices true for one position."""
        self._watched.setdefault((position.symbol, position.timeframe), {})[position.id] = None
        group = self.attention.setdefault(position.timeframe, set())
        (group.add if restless(position) else group.discard)(position.id)
        self.trades.opened(position)
        (self._trading.add if position.trade_id else self._trading.discard)(position.id)
        if position.holding:
            self._holding[position.id] = None
        else:
            self._holding.pop(position.id, None)
        (self._dormant.add if position.status == "dormant" else self._dormant.discard)(position.id)

    # -- learning

    def fresh(self, job: str) -> bool:
        """Whether ``job`` has something to read; asking clears the mark (the job is about to run)."""
        if job in self._stirred:
            self._stirred.discard(job)
            return True
        return False

    def rouse(self, job: str) -> None:
        """``job`` failed: it has still to read what it was about to."""
        self._stirred.add(job)

    def stir(self, job: str) -> None:
        """``job`` changed something that others read."""
        self._stirred.update(_NEXT.get(job, ()))

    def families(self, module: str) -> list[FamilyFit]:
        """All families of a module, by key."""
        return sorted((f for f in self.uow.fits.values() if f.family.startswith(module + "|")), key=lambda f: f.family)

    def family_input(self, key: str) -> FamilyInput:
        """Everything a fit of one family reads."""
        module, pattern_key, category = split_family(key)
        trades = TradeTable.of(list(self.uow.observations.values(key + "|")), SCHEMAS[module])
        return FamilyInput(module, pattern_key, category, trades, self.uow.stats.get)

    def lessons_of(self, families: Iterable[str]) -> list[Lesson]:
        """Stored lessons of some families, all types."""
        wanted = set(families)
        return [lesson for lesson in self.uow.lessons.values() if lesson.family in wanted]

    def documents(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The (dm, pm) documents in force."""
        rows = [self.uow.configs.get(name) for name in ("dm", "pm")]
        dm, pm = (row.config_data if row else {} for row in rows)
        return dm, pm

    def newest_version(self) -> NewestVersion:
        """Number and content hash of the config version in force, as the materializer asks for them."""
        version = self.history.current_version
        row = self.uow.config_versions.get(f"{version:010d}") if version else None
        known = row.content_hash if row else ""
        return {"after": version, "previous_hash": known, "documents_of": self.documents_of}

    def documents_of(self, version: int) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """The (dm, pm) documents of a config version; None where there is none."""
        row = self.uow.config_versions.get(f"{version:010d}")
        return (row.dm, row.pm) if row else None

    def install(self, version: ConfigVersion, updated_by: str = LEARNER) -> None:
        """Put a new config version in force: rows and history swap together, the next decision reads it."""
        longer = self.history.append(version)
        self.uow.config_versions.put(version)
        for name, document in (("dm", version.dm), ("pm", version.pm)):
            self.uow.configs.put(ConfigRow(name, document, version.version, version.in_force_from, updated_by))
        self.history = longer
