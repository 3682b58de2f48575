"""Backups: every table, as it was at one moment, in one file that any database Headgate knows can take.

No secret is in it: keys are in it by their digests, as they are in the ledger.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from sqlalchemy import select, text

from app.store.backup_file import FORMAT, VERSION, BackupWriter, Header, Section, is_backup
from app.store.errors import BackupRefused, SchemaUnknown
from app.store.migrate import head_revision, revision_of
from app.store.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.database import Database

PART_ROWS = 1000


class Backup(msgspec.Struct, frozen=True):
    """A backup that is on the disk, with the number of rows of each table."""

    path: Path
    size_bytes: int
    schema: str
    rows: dict[str, int]


async def back_up(database: Database, path: Path, now_ms: int) -> Backup:
    """Writes one snapshot of ``database`` to ``path``, which is there only once it is whole.

    Gateways may go on writing meanwhile. Raises BackupRefused where something else than a backup is at ``path``,
    SchemaUnknown where the schema is not this version's, DatabaseUnavailable, OSError.
    """
    await asyncio.to_thread(_check_target, path)
    with _arriving(path) as file:
        async with _snapshot(database) as connection:
            schema = await revision_of(connection)
            if schema is None or schema != head_revision():
                raise SchemaUnknown("The database has another schema than this version of Headgate: migrate it first.")
            writer = BackupWriter(file, Header(FORMAT, VERSION, schema, now_ms))
            for table in metadata.sorted_tables:
                await _write_table(connection, table, writer)
        writer.close()
        size_bytes = file.tell()
    return Backup(path, size_bytes, schema, writer.rows)


def _check_target(path: Path) -> None:
    """Only a backup, or an empty file, is replaced by one: the ledger itself, a device or the journal would be lost."""
    if not path.name or path.name == "..":
        raise BackupRefused("A backup is a file: its name is missing.")
    if not path.exists():
        return
    if not path.is_file():
        raise BackupRefused(f"{path} is there and is no file: it is left as it is.")
    if path.stat().st_size and not is_backup(path):
        raise BackupRefused(f"{path} is there and is no backup: it is left as it is.")


@contextmanager
def _arriving(path: Path) -> Iterator[BinaryIO]:
    """A file, for its owner only, that takes the name ``path`` once all of it is on the disk."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@asynccontextmanager
async def _snapshot(database: Database) -> AsyncIterator[AsyncConnection]:
    """A reading transaction in which every statement sees the same moment."""
    async with database.read() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        yield connection


async def _write_table(connection: AsyncConnection, table: Table, writer: BackupWriter) -> None:
    columns = list(table.columns)
    # SQLAlchemy's names are strings of a kind of their own.
    writer.begin_table(Section(str(table.name), tuple(str(column.name) for column in columns)))
    asked = select(*columns).execution_options(yield_per=PART_ROWS)
    async with connection.stream(asked) as found:
        async for part in found.partitions():
            await asyncio.to_thread(writer.write_rows, [tuple(row) for row in part])
