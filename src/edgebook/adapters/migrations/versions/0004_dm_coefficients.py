"""What closed trades say of each value of a decision's dimensions: the projection ``dm_coefficients``.

It is empty in a database from before; the next writer folds it from the log.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "dm_coefficients",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("row_no", BIG, nullable=False),
        sa.Column("dim", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("n", sa.Float(), nullable=False),
        sa.Column("sum_r", sa.Float(), nullable=False),
        sa.Column("anchor_ts", BIG, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("schemas only move forward: restore the copy made before the upgrade")
