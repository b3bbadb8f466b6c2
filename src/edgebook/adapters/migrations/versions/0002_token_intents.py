"""What curators lately want of each token: the projection ``token_intents``.

It starts empty in a database from before: mentions count from the first one recorded after the upgrade.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "token_intents",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("row_no", BIG, nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("total", BIG, nullable=False),
        sa.Column("last_at", BIG, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("schemas only move forward: restore the copy made before the upgrade")
