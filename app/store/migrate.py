"""Brings a database's schema up to this version's, once, whoever else starts at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, inspect, select

from app.store.errors import SchemaUnknown

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"

POSTGRES_LOCK = 0x68656164_67617465
"""Any number that is ours: "headgate" in ASCII."""


async def upgrade(database: Database, revision: str = "head") -> str:
    """Runs what is missing, in one transaction; returns the revision reached.

    An older ``revision`` than the newest is for an empty database, into which an older backup goes.

    Raises SchemaUnknown where the database is newer than this version, or is not Headgate's.
    """
    async with database.maintenance() as connection:
        if database.dialect == "postgresql":
            # Others that start now wait here, and then find nothing to do.
            await connection.execute(select(func.pg_advisory_xact_lock(POSTGRES_LOCK)))
        return await connection.run_sync(_upgrade, revision)


async def current_revision(database: Database) -> str | None:
    """The revision that the database is at, None where it is empty."""
    async with database.read() as connection:
        return await revision_of(connection)


async def revision_of(connection: AsyncConnection) -> str | None:
    """The revision that a transaction sees, None where the database is empty."""
    return await connection.run_sync(_current)


def known_revisions() -> set[str]:
    """Every revision that this version can bring up to its own."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def head_revision() -> str:
    """The revision that this version needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise SchemaUnknown("This installation of Headgate has lost its migrations.")
    return head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection, revision: str) -> str:
    head = head_revision() if revision == "head" else revision
    current = _current(connection)
    if current == head:
        return head
    config = _config()
    if current is not None and current not in known_revisions():
        raise SchemaUnknown(
            f"The database is at schema {current}, this Headgate knows schemas up to {head}: the database"
            " was used by a newer version. Run that version or a newer one, or restore a backup."
        )
    if current is None and inspect(connection).has_table("records"):
        raise SchemaUnknown("The database has a table `records` that Headgate did not make; use an empty one.")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    return head
