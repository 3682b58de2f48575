"""The ledger's database: one writer at a time on SQLite, a pool on PostgreSQL, one door to both."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import exc

from app.store.engines import (
    POSTGRES_COMMAND_TIMEOUT_S,
    SQLITE_READERS_MAX,
    PostgresAddress,
    SQLiteAddress,
    check_sqlite_version,
    driver,
    make_private,
    parse_url,
    postgres_engine,
    sqlite_engine,
)
from app.store.errors import DatabaseUnavailable
from app.store.zones import INFO, ZonesAsked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

T = TypeVar("T")

POSTGRES_CONNECTIONS_MAX = 10

REASON_CHARS_MAX = 200
LATE_S_MAX = 2.0

# While connecting, whatever the server answers means that it is not to be had.
UNREACHABLE: tuple[type[BaseException], ...] = (exc.DBAPIError, exc.TimeoutError, OSError)
if driver is not None:
    UNREACHABLE = (*UNREACHABLE, driver.PostgresError, driver.InterfaceError)


def reason_of(error: BaseException) -> str:
    """A short text for logs: the driver's first line, without the statement."""
    cause = getattr(error, "orig", None) or error
    text = str(cause).partition("\n")[0].strip()[:REASON_CHARS_MAX]
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def is_unavailable(error: Exception) -> bool:
    """Whether a running statement failed because of its database, not because of what it asked."""
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        return True
    if isinstance(error, exc.DBAPIError):
        # Shutdowns, deadlocks and limits have no class of their own in DB-API; bad values (22) neither.
        state = getattr(error.orig, "sqlstate", None) or ""
        return error.connection_invalidated or (type(error) is exc.DBAPIError and state[:2] not in {"22", "23"})
    # TimeoutError is also the driver's own limit.
    return isinstance(error, TimeoutError | ConnectionError)


class Database:
    """Opened once per process. Its repr, errors and logs never hold credentials."""

    __slots__ = ("_address", "_late", "_reader", "_write_lock", "_writer", "dialect", "zones")

    def __init__(self, address: SQLiteAddress | PostgresAddress, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._address = address
        self._writer = writer
        self._reader = reader
        self._write_lock = asyncio.Lock()
        self._late: set[asyncio.Future[Any]] = set()
        self.zones = ZonesAsked()
        self.dialect: Literal["sqlite", "postgresql"] = "sqlite" if isinstance(address, SQLiteAddress) else "postgresql"

    def __repr__(self) -> str:
        return f"Database({str(self._address)!r})"

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        connections_max: int = POSTGRES_CONNECTIONS_MAX,
        command_timeout_s: float = POSTGRES_COMMAND_TIMEOUT_S,
    ) -> Database:
        """Connects once, so that a wrong address is known now. The schema is ``migrate.upgrade``'s."""
        address = parse_url(url)
        if isinstance(address, SQLiteAddress):
            check_sqlite_version()
            await asyncio.to_thread(make_private, address.path)
            writer = sqlite_engine(address.path, readers_max=None)
            database = cls(address, writer, sqlite_engine(address.path, readers_max=SQLITE_READERS_MAX))
        else:
            engine = postgres_engine(address, pool_size=connections_max, command_timeout_s=command_timeout_s)
            database = cls(address, engine, engine)
        try:
            async with database._checkout(database._writer):
                pass
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Closes every connection that is not in use."""
        if self._late:
            # The driver for SQLite stops its thread twice where what closes a connection is cancelled once more, as
            # it would be at the end of the event loop, and then waits for ever.
            await asyncio.wait(self._late, timeout=LATE_S_MAX)
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction: committed at the end, rolled back on an error."""
        if self.dialect == "sqlite":
            # Waiting here costs nothing; waiting inside SQLite would hold its only writing thread.
            async with self._write_lock, self._begun(self._writer) as connection:
                yield connection
        else:
            async with self._begun(self._writer) as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A reading transaction: one snapshot, in which every statement sees the same moment.

        Whatever the database refuses to read (a table that a restore has taken away, a damaged page) is for
        its readers as if it did not answer: DatabaseUnavailable.
        """
        try:
            async with self._begun(self._reader, reads=True) as connection:
                yield connection
        except exc.SQLAlchemyError as error:
            raise DatabaseUnavailable(reason_of(error)) from error

    async def within(self, seconds: float, work: Awaitable[T]) -> T:
        """What ``work`` on this database returns. Raises TimeoutError after ``seconds``, also where the server is
        mute: to be cancelled, a statement first waits for an answer, and a connection for its end.
        """
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task}, timeout=seconds)
            if task.done():
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                self._late.add(task)
                task.add_done_callback(self._ended_late)
        raise TimeoutError(f"no answer within {seconds} s")

    def _ended_late(self, task: asyncio.Future[Any]) -> None:
        """Nobody waits for it; its error is looked at here, so that it is not reported as forgotten."""
        self._late.discard(task)
        if not task.cancelled():
            task.exception()

    @property
    def file(self) -> Path | None:
        """SQLite's file; None on PostgreSQL."""
        return self._address.path if isinstance(self._address, SQLiteAddress) else None

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[AsyncConnection]:
        """A session on PostgreSQL that nobody else uses, for what a session holds; each statement is a transaction."""
        if isinstance(self._address, SQLiteAddress):
            raise TypeError("SQLite has no sessions")
        engine = postgres_engine(self._address, pool_size=0, command_timeout_s=POSTGRES_COMMAND_TIMEOUT_S)
        try:
            async with self._checkout(engine) as connection:
                yield await connection.execution_options(isolation_level="AUTOCOMMIT")
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def maintenance(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction without a time limit on its commands, for changes of the schema."""
        if isinstance(self._address, SQLiteAddress):
            async with self.transaction() as connection:
                yield connection
            return
        engine = postgres_engine(self._address, pool_size=0, command_timeout_s=None)
        try:
            async with self._begun(engine) as connection:
                yield connection
        finally:
            await engine.dispose()

    async def run_in_sqlite(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs ``work`` in the writing connection's thread, as the only writer. It begins and ends its own
        transaction, so that one that has started is finished whatever becomes of the task that waits.
        """
        async with self._write_lock, self._checkout(self._writer) as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            try:
                # One hop to the thread for a whole batch; the public methods take one for each statement.
                result: T = await raw._execute(work, raw._conn)  # noqa: SLF001 - the reason is above
            except ValueError as error:
                # The driver's word for a connection that was closed.
                await connection.invalidate()
                raise DatabaseUnavailable(reason_of(error)) from error
            return result

    async def truncate_log(self) -> None:
        """Where there is little room: SQLite's write-ahead log goes into the file, and is cut to nothing."""
        if self.dialect == "sqlite":
            await self.run_in_sqlite(_truncate_log)

    @asynccontextmanager
    async def postgres_transaction(self) -> AsyncIterator[Any]:
        """A transaction on the driver's own connection; what is done is committed when this returns.

        BEGIN and COMMIT are said in words. The driver's transaction object, cut short in BEGIN by a
        cancellation or a time limit, stays behind on its connection: the next one is then a savepoint
        inside of it, and a batch that seems committed is lost with it.
        """
        async with self._checkout(self._writer) as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            try:
                await _begin(raw)
                yield raw
                await _commit(raw)
            except BaseException as error:
                await _leave(raw, answered=driver is not None and isinstance(error, driver.PostgresError))
                raise

    @asynccontextmanager
    async def _begun(self, engine: AsyncEngine, *, reads: bool = False) -> AsyncIterator[AsyncConnection]:
        async with self._checkout(engine) as connection:
            if reads:
                connection.info[INFO] = self.zones
                if self.dialect == "postgresql":
                    await connection.execution_options(isolation_level="REPEATABLE READ")
            try:
                async with connection.begin():
                    yield connection
            except Exception as error:
                if is_unavailable(error):
                    if self.dialect == "postgresql":
                        # After a time limit the driver may take its next transaction for a savepoint.
                        await connection.invalidate()
                    raise DatabaseUnavailable(reason_of(error)) from error
                raise

    @asynccontextmanager
    async def _checkout(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        connection = engine.connect()
        try:
            await connection.start()
        except UNREACHABLE as error:
            raise DatabaseUnavailable(reason_of(error)) from error
        try:
            yield connection
        finally:
            # Shielded: a task that is cancelled here would leave the connection in nobody's hands.
            await asyncio.shield(connection.close())


def _truncate_log(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        raise DatabaseUnavailable(reason_of(error)) from error


async def _begin(raw: Any) -> None:
    if raw.is_in_transaction():
        raise DatabaseUnavailable("a connection was left inside of a transaction")
    await raw.execute("BEGIN ISOLATION LEVEL READ COMMITTED")


async def _commit(raw: Any) -> None:
    # COMMIT of a transaction that has failed is answered, without an error, by ROLLBACK.
    if await raw.execute("COMMIT") != "COMMIT":
        raise DatabaseUnavailable("the transaction was not committed")


async def _leave(raw: Any, *, answered: bool) -> None:
    """Ends a transaction that failed. Only where the server has ``answered`` is it known in which state the
    connection is; any other is closed, and the pool replaces it.
    """
    usable = False
    try:
        if answered:
            await raw.execute("ROLLBACK")
            usable = True
    finally:
        if not usable:
            raw.terminate()
