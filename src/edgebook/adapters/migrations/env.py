"""Alembic's environment: migrate on the connection the store hands over, inside the store's own transaction.

There is no alembic.ini: ``edgebook.adapters.database.migrate`` sets everything. Batch mode is on for SQLite; the store
makes the append-only triggers anew after every upgrade, because a batch migration copies a table without its triggers.
"""

from __future__ import annotations

from alembic import context

from edgebook.adapters.tables import REVISION_TABLE, metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=REVISION_TABLE,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
