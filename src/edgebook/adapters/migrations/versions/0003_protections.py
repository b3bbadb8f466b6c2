"""What forbids new buys, and what that follows from: the projection ``protections``.

It is empty in a database from before; the next writer folds it from the log.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "protections",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("row_no", BIG, nullable=False),
        sa.Column("losses_in_a_row", BIG, nullable=False),
        sa.Column("losses_at", BIG, nullable=False),
        sa.Column("blocks", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("schemas only move forward: restore the copy made before the upgrade")
