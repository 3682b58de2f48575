"""Run by alembic for every command: on a connection that is given to it, inside of its transaction."""

from __future__ import annotations

from alembic import context

from app.store.tables import metadata

connection = context.config.attributes["connection"]
# SQLite rolls back changes of the schema too, once the driver's own BEGIN is out of the way.
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
