"""Every table of the database, once: the log ``ad_strands``, one projection table per row class, and operations' own.

A projection table has ``key`` (the row's own key), ``row_no`` (order of first insertion), the columns a person would
query, and ``content``: the canonical JSON of the whole row, from which it is read back. Adding a table is one entry in
``TABLES`` and one migration. Times are BIGINT microseconds UTC, money is text, scopes and mappings are canonical JSON.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter
from types import UnionType
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

from edgebook.adapters.codec import encode
from edgebook.domain.book import (
    Account,
    Curator,
    Decision,
    Order,
    PmMemory,
    Position,
    RegimeSnapshot,
    Shadow,
    TokenIntents,
    Trade,
)
from edgebook.domain.coefficient import Coefficient
from edgebook.domain.evidence import (
    ConfigRow,
    ConfigVersion,
    DeadLetter,
    Fact,
    FamilyFit,
    JobRun,
    Lesson,
    Observation,
    StatRow,
    Watermark,
)
from edgebook.domain.pattern import CATEGORIES
from edgebook.domain.protection import Protection

REVISION = "0005"
"""Newest schema revision this release knows: the head of ``migrations/versions``."""

REVISION_TABLE = "edgebook_revision"
"""Alembic's version table, under a name that no other program's database has."""

metadata = MetaData()
_Big = BigInteger().with_variant(Integer, "sqlite")

ad_strands = Table(
    "ad_strands",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("module", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("timeframe", Text, nullable=False),
    Column("position_id", Text, nullable=False),
    Column("trade_id", Text, nullable=False),
    Column("episode_id", Text, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("causation_id", Text, nullable=False),
    Column("ts_event", _Big, nullable=False),
    Column("ts_recorded", _Big, nullable=False),
    Column("config_version", _Big, nullable=False),
    Column("arm", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("regime_snapshot_id", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("ix_ad_strands_kind_seq", "kind", "seq"),
    Index("ix_ad_strands_correlation_id", "correlation_id"),
    Index("ix_ad_strands_position_id", "position_id"),
    Index("ix_ad_strands_trade_id", "trade_id"),
    Index("ix_ad_strands_episode_id", "episode_id"),
)
job_leases = Table(
    "job_leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next_due", _Big, nullable=False),
    Column("lease_until", _Big, nullable=False),
    Column("fence", _Big, nullable=False),
    Column("holder", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class TableSpec:
    """How the rows of one class are stored.

    Attributes:
        name: attribute of the unit of work, e.g. ``"stats"``.
        row: the frozen dataclass.
        table: the SQL table.
        key: its primary key column, which holds ``row.key``.
        promoted: (column, value of a row) of the columns beside key, row_no and content.
    """

    name: str
    row: type[Any]
    table: Table
    key: str
    promoted: tuple[tuple[str, Callable[[Any], Any]], ...]

    def record(self, row: Any, row_no: int, content: bytes) -> tuple[Any, ...]:
        """The SQL record of ``row``, whose canonical JSON is ``content``, in the order of ``columns``."""
        return (row.key, row_no, *(value(row) for _, value in self.promoted), content.decode())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns in the order of ``record``."""
        return tuple(column.name for column in self.table.columns)


def _spec(
    name: str,
    table: str,
    row: type[Any],
    fields: str = "",
    *,
    key: str = "key",
    unique: Sequence[str] = (),
    check: CheckConstraint | None = None,
    index: Sequence[str] = (),
) -> TableSpec:
    """A table whose promoted columns are ``fields`` of ``row`` (dots lead into a nested one), typed by annotation."""
    columns, promoted = [], []
    for path in fields.split():
        column, kind, nullable = path.replace(".", "_"), *_column_type(row, path)
        columns.append(Column(column, kind(), nullable=nullable))
        promoted.append((column, _value(path, kind)))
    extra: list[Any] = [Index(f"ix_{table}_{column}", column) for column in index]
    if unique:
        extra.append(UniqueConstraint(*unique, name=f"uq_{table}"))
    if check is not None:
        extra.append(check)
    sql = Table(
        table,
        metadata,
        Column(key, Text, primary_key=True),
        Column("row_no", _Big, nullable=False),
        *columns,
        Column("content", Text, nullable=False),
        *extra,
    )
    return TableSpec(name, row, sql, key, tuple(promoted))


def _column_type(row: type[Any], path: str) -> tuple[Callable[[], TypeEngine[Any]], bool]:
    """SQL type and nullability of the field at ``path``."""
    kind: Any = row
    for field in path.split("."):
        kind = typing.get_type_hints(kind)[field]
    options = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, UnionType) else (kind,)
    first = next(o for o in options if o is not type(None))
    types: dict[Any, Callable[[], TypeEngine[Any]]] = {
        str: Text,
        Decimal: Text,
        int: lambda: _Big,
        float: Float,
        bool: Boolean,
    }
    return types.get(first, _Json), type(None) in options


class _Json(Text):
    """Text that holds canonical JSON."""


def _value(path: str, kind: Callable[[], TypeEngine[Any]]) -> Callable[[Any], Any]:
    get = attrgetter(path)
    if kind is _Json:
        return lambda row: encode(get(row)).decode()
    if kind is Text:
        return lambda row: None if (value := get(row)) is None else str(value)
    return get


_CATEGORY_CHECK = "action_category IN ({})".format(", ".join(f"'{c}'" for c in CATEGORIES))

TABLES: tuple[TableSpec, ...] = (
    _spec(
        "positions",
        "positions",
        Position,
        "symbol chain contract timeframe book status created_at cap_class decision_id pending_decision_id"
        " allocation_pct trade_id ledger.quantity ledger.cost ledger.realised entry_ts entry_price trades_closed"
        " last_seq",
        unique=("contract", "chain", "timeframe", "book"),
    ),
    _spec("memory", "pm_memory", PmMemory, "last_bar_ts last_bar_index"),
    _spec("shadows", "shadows", Shadow, "position_id symbol timeframe episode_type entered seen_ts"),
    _spec(
        "orders",
        "orders",
        Order,
        "action_id position_id symbol timeframe side decision_type rule notional_usd quantity planned_ts expires_ts"
        " status",
        index=("position_id",),
    ),
    _spec(
        "trades",
        "trades",
        Trade,
        "position_id symbol chain timeframe decision_id curator_id opened_at closed_at pnl_usd invested_usd fees_usd"
        " roi rr exit_reason actions strand_id",
        index=("position_id",),
    ),
    _spec(
        "decisions",
        "decisions",
        Decision,
        "ts signal_id symbol chain contract curator_id allocation_pct timeframe_splits entry_context cap_class",
    ),
    _spec(
        "curators",
        "curators",
        Curator,
        "status base_weight score signals trades wins pnl_sum first_seen last_signal_at",
    ),
    _spec("coefficients", "dm_coefficients", Coefficient, "dim value n sum_r anchor_ts"),
    _spec("intents", "token_intents", TokenIntents, "chain contract symbol total last_at"),
    _spec("accounts", "accounts", Account, "cash_usd"),
    _spec("protections", "protections", Protection, "losses.in_a_row losses.at blocks"),
    _spec("snapshots", "regime_snapshots", RegimeSnapshot, "ts"),
    _spec(
        "observations",
        "learning_observations",
        Observation,
        "module pattern_key action_category unit_id ts opened_at y roi pnl_usd weight token day scope holdout",
    ),
    _spec(
        "stats",
        "pattern_scope_stats",
        StatRow,
        "module pattern_key action_category scope_mask scope_hash scope_values n stats created_at updated_at",
        unique=("module", "pattern_key", "action_category", "scope_mask", "scope_hash"),
        check=CheckConstraint(_CATEGORY_CHECK, name="ck_pattern_scope_stats_category"),
    ),
    _spec("fits", "learning_fits", FamilyFit, "fitted_at n acts mean detail"),
    _spec(
        "lessons",
        "learning_lessons",
        Lesson,
        "module lesson_type pattern_key action_category scope_values effect stats lesson_strength decay_halflife_hours"
        " status reason created_at last_validated evidence_at lesson_version",
        check=CheckConstraint(_CATEGORY_CHECK, name="ck_learning_lessons_category"),
    ),
    _spec(
        "configs",
        "learning_configs",
        ConfigRow,
        "config_data config_version updated_at updated_by",
        key="module_id",
    ),
    _spec(
        "config_versions",
        "learning_config_versions",
        ConfigVersion,
        "version in_force_from content_hash",
        unique=("version",),
    ),
    _spec("watermarks", "watermarks", Watermark, "seq at"),
    _spec("runs", "job_runs", JobRun, "name slot status counts error idle_slots last_slot"),
    _spec("dead_letters", "dead_letters", DeadLetter, "stage reason ts correlation_id"),
    _spec("meta", "meta", Fact, "value"),
)
SPECS: Mapping[str, TableSpec] = {spec.name: spec for spec in TABLES}
"""The registry: unit-of-work attribute -> how it is stored."""


_REFUSAL = "ad_strands is append-only: strands never change"


def append_only_triggers(dialect: str) -> tuple[str, ...]:
    """Statements that make ``ad_strands`` append-only on ``"sqlite"`` or ``"postgresql"``; older forms are dropped.

    To be run again after every migration: a batch migration copies a table on SQLite and loses its triggers.
    """
    if dialect != "sqlite":
        body = f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
        return (
            f"CREATE OR REPLACE FUNCTION ad_strands_append_only() RETURNS trigger LANGUAGE plpgsql AS {body}",
            "DROP TRIGGER IF EXISTS ad_strands_no_change ON ad_strands",
            (
                "CREATE TRIGGER ad_strands_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON ad_strands"
                " FOR EACH STATEMENT EXECUTE FUNCTION ad_strands_append_only()"
            ),
        )
    # INSERT OR REPLACE deletes without asking the delete trigger, so the insert itself is watched: only the next seq,
    # only a new id. FAIL, and INSERT OR FAIL by the writer, spare SQLite a copy of every page it touches (half the time
    # of an insert); nothing has been changed yet when a trigger runs before the row.
    at_end = "NEW.seq = (SELECT coalesce(max(seq), 0) + 1 FROM ad_strands)"
    new_id = "NOT EXISTS (SELECT 1 FROM ad_strands WHERE id = NEW.id)"
    events = {
        "ad_strands_no_update": ("UPDATE ON ad_strands", "ABORT"),
        "ad_strands_no_delete": ("DELETE ON ad_strands", "ABORT"),
        "ad_strands_at_end": (f"INSERT ON ad_strands WHEN NOT ({at_end} AND {new_id})", "FAIL"),
    }
    statements = []
    for name, (event, reaction) in events.items():
        body = f"BEGIN SELECT RAISE({reaction}, '{_REFUSAL}'); END"
        statements += [f"DROP TRIGGER IF EXISTS {name}", f"CREATE TRIGGER {name} BEFORE {event} {body}"]
    return tuple(statements)
