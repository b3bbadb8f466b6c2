"""Windows of running attempts, each bought on paper of its own: the checkpoint ``shadows``.

It is empty in a database from before: attempts that run at the upgrade have no shadows of the windows closed so far.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "shadows",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("row_no", BIG, nullable=False),
        sa.Column("position_id", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("episode_type", sa.Text(), nullable=False),
        sa.Column("entered", sa.Boolean(), nullable=False),
        sa.Column("seen_ts", BIG, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("schemas only move forward: restore the copy made before the upgrade")
