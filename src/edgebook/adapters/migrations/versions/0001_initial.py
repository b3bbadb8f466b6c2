"""The first schema: the log, the projections of the book and of learning, and the tables of operations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CATEGORIES = "action_category IN ('entry', 'add', 'trim', 'exit', 'allocation')"
TYPES = {"text": sa.Text(), "big": BIG, "real": sa.Float(), "flag": sa.Boolean()}


def columns(line: str) -> list[sa.Column]:
    """Columns from ``"name:type name:type?"``; no type is text, a question mark means nullable."""
    made = []
    for word in line.split():
        name, _, kind = word.partition(":")
        made.append(sa.Column(name, TYPES[kind.rstrip("?") or "text"], nullable=kind.endswith("?")))
    return made


def projection(
    table: str, line: str, *extra: sa.schema.SchemaItem, key: str = "key", index: tuple[str, ...] = ()
) -> None:
    """One projection table: its key, the order of first insertion, what a person would query, the whole row."""
    op.create_table(
        table,
        sa.Column(key, sa.Text(), primary_key=True),
        sa.Column("row_no", BIG, nullable=False),
        *columns(line),
        sa.Column("content", sa.Text(), nullable=False),
        *extra,
    )
    for column in index:
        op.create_index(f"ix_{table}_{column}", table, [column])


def upgrade() -> None:
    log()
    book()
    learning()
    operations()


def log() -> None:
    op.create_table(
        "ad_strands",
        sa.Column("seq", BIG, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text(), nullable=False, unique=True),
        *columns(
            "kind module symbol timeframe position_id trade_id episode_id correlation_id causation_id ts_event:big"
            " ts_recorded:big config_version:big arm scope regime_snapshot_id tags content hash"
        ),
    )
    op.create_index("ix_ad_strands_kind_seq", "ad_strands", ["kind", "seq"])
    for column in ("correlation_id", "position_id", "trade_id", "episode_id"):
        op.create_index(f"ix_ad_strands_{column}", "ad_strands", [column])


def book() -> None:
    projection(
        "positions",
        "symbol chain contract timeframe book status created_at:big cap_class decision_id pending_decision_id"
        " allocation_pct:real trade_id ledger_quantity ledger_cost ledger_realised entry_ts:big entry_price:real"
        " trades_closed:big last_seq:big",
        sa.UniqueConstraint("contract", "chain", "timeframe", "book", name="uq_positions"),
    )
    projection("pm_memory", "last_bar_ts:big last_bar_index:big")
    projection(
        "orders",
        "action_id position_id symbol timeframe side decision_type rule:big notional_usd:text? quantity:text?"
        " planned_ts:big expires_ts:big status",
        index=("position_id",),
    )
    projection(
        "trades",
        "position_id symbol chain timeframe decision_id curator_id opened_at:big closed_at:big pnl_usd invested_usd"
        " fees_usd roi:real rr:real exit_reason actions:big strand_id",
        index=("position_id",),
    )
    projection(
        "decisions",
        "ts:big signal_id symbol chain contract curator_id allocation_pct:real timeframe_splits entry_context"
        " cap_class",
    )
    projection(
        "curators",
        "status base_weight:real score:real signals:big trades:big wins:big pnl_sum:real first_seen:big"
        " last_signal_at:big",
    )
    projection("accounts", "cash_usd")
    projection("regime_snapshots", "ts:big")


def learning() -> None:
    projection(
        "learning_observations",
        "module pattern_key action_category unit_id ts:big opened_at:big y:real roi:real pnl_usd:real weight:real token"
        " day:big scope holdout:flag",
    )
    projection(
        "pattern_scope_stats",
        "module pattern_key action_category scope_mask:big scope_hash scope_values n:big stats created_at:big"
        " updated_at:big",
        sa.UniqueConstraint(
            "module", "pattern_key", "action_category", "scope_mask", "scope_hash", name="uq_pattern_scope_stats"
        ),
        sa.CheckConstraint(CATEGORIES, name="ck_pattern_scope_stats_category"),
    )
    projection("learning_fits", "fitted_at:big n:big acts:flag mean:real detail")
    projection(
        "learning_lessons",
        "module lesson_type pattern_key action_category scope_values effect stats lesson_strength:real"
        " decay_halflife_hours:real status reason created_at:big last_validated:big evidence_at:big lesson_version:big",
        sa.CheckConstraint(CATEGORIES, name="ck_learning_lessons_category"),
    )
    projection("learning_configs", "config_data config_version:big updated_at:big updated_by", key="module_id")
    projection(
        "learning_config_versions",
        "version:big in_force_from:big content_hash",
        sa.UniqueConstraint("version", name="uq_learning_config_versions"),
    )
    projection("watermarks", "seq:big at:big")


def operations() -> None:
    projection("job_runs", "name slot:big status counts error idle_slots:big last_slot:big")
    projection("dead_letters", "stage reason ts:big correlation_id")
    projection("meta", "value")
    op.create_table(
        "job_leases",
        sa.Column("name", sa.Text(), primary_key=True),
        *columns("next_due:big lease_until:big fence:big holder"),
    )


def downgrade() -> None:
    raise NotImplementedError("schemas only move forward: restore the copy made before the upgrade")
