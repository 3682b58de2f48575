"""How each database is connected: addresses, pragmas, time limits."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import msgspec
from sqlalchemy import URL, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.store.errors import DatabaseUnavailable, DatabaseURLInvalid, DriverMissing

driver: ModuleType | None
try:
    import asyncpg  # type: ignore[import-untyped] # it ships no types
except ImportError:
    driver = None
else:
    driver = asyncpg

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

SQLITE_BUSY_TIMEOUT_S = 5.0
SQLITE_READERS_MAX = 4
SQLITE_STATEMENTS_KEPT = 256
POSTGRES_CONNECT_TIMEOUT_S = 5.0
POSTGRES_COMMAND_TIMEOUT_S = 30.0
POOL_WAIT_S = 10.0


class SQLiteAddress(msgspec.Struct, frozen=True):
    """A database file."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


class PostgresAddress(msgspec.Struct, frozen=True):
    """A server. ``dsn`` may hold a password: it is handed to the driver and to nobody else."""

    dsn: str
    shown: str

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"PostgresAddress({self.shown!r})"


def parse_url(url: str) -> SQLiteAddress | PostgresAddress:
    """The address in ``sqlite:///path`` or ``postgresql://…``; nothing of a wrong one is repeated."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "sqlite":
        path = rest.removeprefix("/")
        if not path or path == rest or path.startswith(":memory:"):
            raise DatabaseURLInvalid("The database URL must be sqlite:///relative/path or sqlite:////absolute/path.")
        return SQLiteAddress(Path(path))
    if separator and scheme in {"postgresql", "postgres"}:
        try:
            parts = urlsplit(url)
            shown = _shown(parts)
        except ValueError:
            raise DatabaseURLInvalid(
                "The PostgreSQL URL is not valid; special characters in its password must be"
                " percent-encoded. (Its text is not shown, since it may hold a password.)"
            ) from None
        if "@" in parts.path + parts.query + parts.fragment or parts.fragment:
            raise DatabaseURLInvalid(
                "The PostgreSQL URL is not valid: / ? # and @ in its password must be percent-encoded."
            )
        return PostgresAddress(url, shown)
    raise DatabaseURLInvalid("The database URL must begin with sqlite:/// or postgresql://.")


def _shown(parts: SplitResult) -> str:
    hosts = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", []))
    # Several hosts are several ports, which urlsplit does not take apart; one is checked here.
    if "," not in hosts:
        _ = parts.port
    return f"postgresql://{hosts}{parts.path}"


def sqlite_engine(path: Path, *, readers_max: int | None) -> AsyncEngine:
    """An engine of ``readers_max`` reading connections, or of the one writing connection (None)."""
    begin = "BEGIN IMMEDIATE" if readers_max is None else "BEGIN"
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        # Transactions are begun here, not by the driver, which would begin them as readers.
        connect_args={
            "timeout": SQLITE_BUSY_TIMEOUT_S,
            "isolation_level": None,
            "cached_statements": SQLITE_STATEMENTS_KEPT,
        },
        pool_size=readers_max or 1,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        # The journal drops a segment once its rows are committed, so a commit must be on the disk.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        # 16 MiB, less than the ballast that is kept for a full disk; a pragma takes no bound parameter.
        cursor.execute("PRAGMA journal_size_limit = 16777216")
        # 16 MiB of pages, so that a batch finds the ends of its indexes in memory.
        cursor.execute("PRAGMA cache_size = -16384")
        if readers_max is not None:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def make_private(path: Path) -> None:
    """Creates the database file where there is none, readable by its owner only; -wal and -shm follow it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseUnavailable(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        os.fchmod(fd, 0o600)
    except OSError as error:
        raise DatabaseUnavailable(f"{path} cannot be made private: {error.strerror}.") from error
    finally:
        os.close(fd)


def check_sqlite_version() -> None:
    """STRICT tables need SQLite 3.37."""
    if sqlite3.sqlite_version_info < (3, 37):
        raise DatabaseUnavailable(f"This Python has SQLite {sqlite3.sqlite_version}; Headgate needs 3.37 or newer.")


def postgres_engine(address: PostgresAddress, *, pool_size: int, command_timeout_s: float | None) -> AsyncEngine:
    """An engine of up to ``pool_size`` connections; 0 keeps none (each use connects)."""
    if driver is None:
        raise DriverMissing("PostgreSQL needs the extra `postgres`: pip install 'headgate[postgres]'.")

    async def connect() -> Any:
        try:
            connection = await asyncpg.connect(
                address.dsn,
                timeout=POSTGRES_CONNECT_TIMEOUT_S,
                command_timeout=command_timeout_s,
                server_settings={"application_name": "headgate"},
            )
        except ValueError:
            # The driver repeats what it could not read, and that may be a part of a password.
            raise DatabaseURLInvalid("The PostgreSQL URL is not valid.") from None
        try:
            # The journal drops a segment once its rows are committed, so a commit must be on the disk.
            await connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'"
            )
        except BaseException:
            connection.terminate()
            raise
        return connection

    if not pool_size:
        return create_async_engine(
            "postgresql+asyncpg://", async_creator=connect, poolclass=NullPool, hide_parameters=True
        )
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def check(connection: DBAPIConnection, _entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        # The driver knows when the server has hung up; asking the server would take three round trips.
        raw: Any = engine.dialect.get_driver_connection(connection)
        if raw.is_closed():
            raise DisconnectionError

    return engine
