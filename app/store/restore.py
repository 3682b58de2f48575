"""Restores a backup: all of it or nothing, and nothing before all of the file was checked."""

from __future__ import annotations

import asyncio
import tempfile
import time
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import LargeBinary, MetaData, delete, exc, func, insert, literal_column, select, update

from app.store import migrate
from app.store.backup import PART_ROWS, back_up
from app.store.backup_file import NOT_JSON, VERSION, BackupReader, Header
from app.store.cache import CACHE_SECRET_FACT
from app.store.database import Database, is_unavailable, reason_of
from app.store.epochs import force_epoch
from app.store.errors import BackupRefused
from app.store.running import SEEN_S, other_sessions, running_nodes
from app.store.tables import change_counter, epoch, meta, metadata

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection

SESSIONS_TRIES = 20
SESSIONS_PAUSE_S = 0.1

OF_RUNNING = frozenset({"processes", "marks", "tag_epochs", "leases", "upstream_sights"})
"""What gateways say of themselves while they run: of no use where none does."""

NOT_A_LEDGER = OF_RUNNING | {"meta", "change_counter", "epoch", "cache_clears", "folds"}
"""Tables in which a ledger that nobody has used has rows too, or may have."""


class Restored(msgspec.Struct, frozen=True):
    """``schema`` is the revision of the file; the database is at this version's. ``rows`` as restored."""

    schema: str
    created_at_ms: int
    rows: dict[str, int]


def check_backup(path: Path) -> Header:
    """Reads all of the file. Raises BackupRefused where it is damaged, cut, or of a newer version; OSError."""
    with path.open("rb") as file:
        reader = BackupReader(file)
        header = reader.header
        if header.version > VERSION or header.schema not in migrate.known_revisions():
            raise BackupRefused(
                f"The backup was made by a newer Headgate (schema {header.schema}), this one knows schemas up to"
                f" {migrate.head_revision()}: restore it with that version or a newer one."
            )
        while reader.next_table() is not None:
            while reader.next_rows(PART_ROWS):
                pass
        return header


async def restore(database: Database, path: Path, *, replace: bool = False, force: bool = False) -> Restored:
    """Puts the content of the backup ``path`` in place of what ``database`` holds.

    Raises BackupRefused, with the database as it was, where the file is not whole or too new, a gateway
    runs on it (unless ``force``), or there is a ledger already (unless ``replace``). On SQLite the caller
    holds the data dir, so that none runs.
    """
    header = await asyncio.to_thread(check_backup, path)
    if header.schema == migrate.head_revision():
        return await _restore(database, path, replace=replace, force=force)
    # An older file goes by way of a database of its own schema, which is migrated and backed up again.
    with tempfile.TemporaryDirectory(prefix="headgate-restore-") as folder:
        newer = Path(folder) / "newer"
        await _migrated(path, header, Path(folder), newer)
        restored = await _restore(database, newer, replace=replace, force=force)
    return msgspec.structs.replace(restored, schema=header.schema)


async def _migrated(path: Path, header: Header, folder: Path, newer: Path) -> None:
    """Writes to ``newer`` what the backup ``path`` is after the migrations since it was made."""
    scratch = await Database.open(f"sqlite:///{folder / 'scratch.db'}")
    try:
        await migrate.upgrade(scratch, header.schema)
        async with scratch.maintenance() as connection:
            found = MetaData()
            await connection.run_sync(found.reflect)
            tables = [table for table in found.sorted_tables if table.name != "alembic_version"]
            await _clear(connection, tables)
            await _load(connection, path, tables)
        await migrate.upgrade(scratch)
        await back_up(scratch, newer, header.created_at_ms)
    finally:
        await scratch.close()


async def _restore(database: Database, path: Path, *, replace: bool, force: bool) -> Restored:
    await migrate.upgrade(database)
    # Its own connections are not to be taken for a gateway's.
    await database.close()
    async with database.maintenance() as connection:
        if database.dialect == "postgresql":
            # A gateway that starts now waits for the end of this, as it would for a migration.
            await connection.execute(select(func.pg_advisory_xact_lock(migrate.POSTGRES_LOCK)))
            if not force:
                await _require_none_running(connection)
        tables = metadata.sorted_tables
        if not replace:
            await _require_unused(connection, tables)
        change, number = await _numbers(connection)
        await _clear(connection, tables)
        header, rows = await _load(connection, path, [table for table in tables if table.name not in OF_RUNNING])
        await _go_beyond(connection, change, number)
    return Restored(header.schema, header.created_at_ms, rows)


async def _require_none_running(connection: AsyncConnection) -> None:
    """Gateways that share a Redis tell that they run; any other is known by its connections only."""
    nodes = await running_nodes(connection)
    if nodes:
        raise BackupRefused(
            f"A gateway ran on this database within the last {SEEN_S} seconds, on {', '.join(nodes)}:"
            " stop every gateway, wait as long, and restore then."
        )
    for _ in range(SESSIONS_TRIES):
        if not await other_sessions(connection):
            return
        # One that has just been closed is seen for a moment longer.
        await asyncio.sleep(SESSIONS_PAUSE_S)
    raise BackupRefused(
        "A gateway, or a command, is connected to this database: stop every gateway, and restore then."
        " (Where it is a connection pooler that keeps old connections, --force passes this over.)"
    )


async def _require_unused(connection: AsyncConnection, tables: Sequence[Table]) -> None:
    for table in tables:
        if table.name in NOT_A_LEDGER:
            continue
        if (await connection.execute(select(literal_column("1")).select_from(table).limit(1))).first() is not None:
            raise BackupRefused(
                f"There is a ledger already (its table {table.name} has rows):"
                " restore into an empty database, or give --replace to lose what is there."
            )


async def _numbers(connection: AsyncConnection) -> tuple[int, int]:
    """The last change and the epoch of what is about to be replaced."""
    change = (await connection.execute(select(func.max(change_counter.c.value)))).scalar() or 0
    number = (await connection.execute(select(func.max(epoch.c.number)))).scalar() or 0
    return change, number


async def _go_beyond(connection: AsyncConnection, change: int, number: int) -> None:
    """Nothing that anybody remembers of the ledger before may pass for true of this one."""
    restored_change, restored_number = await _numbers(connection)
    await connection.execute(update(change_counter).values(value=max(change, restored_change) + 1))
    # Redis may remember an epoch that neither the file nor this database has seen. Epochs are seconds
    # apart, so the time in seconds is beyond them all.
    beyond = max(number, restored_number, int(time.time()))
    await connection.execute(update(epoch).values(number=beyond))
    await force_epoch(connection)
    # Clearings after the backup are not in it: with another secret no answer that was kept before is found.
    await connection.execute(delete(meta).where(meta.c.key == CACHE_SECRET_FACT))


async def _clear(connection: AsyncConnection, tables: Sequence[Table]) -> None:
    for table in reversed(tables):
        await connection.execute(delete(table))


async def _load(connection: AsyncConnection, path: Path, tables: Sequence[Table]) -> tuple[Header, dict[str, int]]:
    """Inserts the rows of ``tables``; what the file has of others is passed over."""
    wanted = {table.name: table for table in tables}
    with path.open("rb") as file:
        reader = BackupReader(file)
        while (section := reader.next_table()) is not None:
            table = wanted.pop(section.table, None)
            rows = None if table is None else _Rows(connection, table, section.columns)
            while lines := await asyncio.to_thread(reader.next_rows, PART_ROWS):
                if rows is not None:
                    await rows.insert(lines)
    if wanted:
        raise BackupRefused(f"The backup has no table {min(wanted)}, which its schema {reader.header.schema} has.")
    return reader.header, {table.name: reader.rows[table.name] for table in tables}


class _Rows:
    """Rows of one table on their way into it. They go as tuples, past all that SQLAlchemy does for each value."""

    def __init__(self, connection: AsyncConnection, table: Table, columns: tuple[str, ...]) -> None:
        names = [str(column.name) for column in table.columns]
        if sorted(columns) != sorted(names):
            raise BackupRefused(f"The backup's table {table.name} has other columns than its schema.")
        self._connection = connection
        self._table = table.name
        self._text = str(insert(table).compile(dialect=connection.dialect))
        self._places = [columns.index(name) for name in names]
        self._binary = [
            place
            for place, column in zip(self._places, table.columns, strict=True)
            if isinstance(column.type, LargeBinary)
        ]
        self._decode = msgspec.json.Decoder(list[str | int | None]).decode

    async def insert(self, lines: Sequence[bytes]) -> None:
        rows = self._decoded(lines)
        try:
            await self._connection.exec_driver_sql(self._text, rows)
        except (exc.SQLAlchemyError, OverflowError, ValueError) as error:
            if isinstance(error, exc.DBAPIError) and is_unavailable(error):
                raise
            raise BackupRefused(
                f"The database does not take what the backup has in its table {self._table}: {reason_of(error)}"
            ) from error

    def _decoded(self, lines: Sequence[bytes]) -> list[tuple[Any, ...]]:
        try:
            found: list[list[Any]] = [self._decode(line) for line in lines]
            for place in self._binary:
                for row in found:
                    # A kept turn that was deleted holds nothing.
                    row[place] = None if row[place] is None else b64decode(row[place], validate=True)
            return [self._in_order(row) for row in found]
        except (*NOT_JSON, ValueError, TypeError, IndexError) as error:
            raise BackupRefused(f"The backup's table {self._table} has a row that is none.") from error

    def _in_order(self, row: list[Any]) -> tuple[Any, ...]:
        if len(row) != len(self._places):
            raise ValueError(f"{len(row)} values for {len(self._places)} columns")
        return tuple([row[place] for place in self._places])
