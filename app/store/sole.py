"""A ledger for one process alone: what is counted in the memory of each of several would be counted by none.

On SQLite that is a lock beside the file, on PostgreSQL one of the database's own, held by a session of its own;
either is free again the moment its process is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.store.errors import LedgerTaken, StoreError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.database import Database

LOOK_EVERY_S = 2.0
LOOK_S_MAX = 5.0
# The number is HEAD in ASCII.
TRY = text("SELECT pg_try_advisory_lock(1212498244), pg_backend_pid()")
HOLDER = text(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = 1212498244"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
LOOK = text("SELECT 1")
NOBODY = 0
TAKEN = (
    "another gateway without a Redis runs on this ledger, and limits that each counts in its own memory would hold for"
    " neither: give both the same HEADGATE_REDIS_URL, or stop the other"
)


class SoleWriter:
    """Holds the ledger, as soon as nobody else does. ``on_state(held, reason)`` is called where it cannot be held at
    once, and once for each change.
    """

    def __init__(self, database: Database, on_state: Callable[[bool, str], None]) -> None:
        self._database = database
        self._on_state = on_state
        self._file = contextlib.ExitStack()
        self._session = contextlib.AsyncExitStack()
        self._connection: AsyncConnection | None = None
        self._pid = 0
        self._on_taken: Callable[[], Awaitable[None]]
        self._keeper: asyncio.Task[None] | None = None
        self.is_held = False

    def __repr__(self) -> str:
        return f"SoleWriter(held={self.is_held})"

    async def start(self, on_taken: Callable[[], Awaitable[None]]) -> None:
        """Take it, or wait for it from now on. Raises DatabaseUnavailable.

        ``on_taken`` is awaited before it is held where it could not be at once, or had been lost: somebody else may
        have changed what the ledger says. Where it raises StoreError it is tried again.
        """
        self._on_taken = on_taken
        self.is_held = await self._try()
        if not self.is_held:
            self._on_state(False, TAKEN)
        if not self.is_held or self._database.file is None:
            self._keeper = asyncio.create_task(self._keep(), name="sole writer")

    async def close(self) -> None:
        """Let it go."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._hang_up()
        self._file.close()

    async def _try(self) -> bool:
        """Whether it could be taken."""
        if (path := self._database.file) is not None:
            with contextlib.suppress(LedgerTaken):
                self._file.enter_context(hold_file(path))
                return True
            return False
        if self._connection is None:
            self._connection = await self._session.enter_async_context(self._database.apart())
        has_lock, pid = (await self._connection.execute(TRY)).one()
        if has_lock:
            self._pid = pid
        return bool(has_lock)

    async def _keep(self) -> None:
        """On PostgreSQL the lock is the session's: where that is lost (the server was started again) it is taken anew.
        While the server is away nobody else can take it.
        """
        has_lock, is_read = self.is_held, self.is_held
        while not (self.is_held and self._database.file is not None):
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                async with asyncio.timeout(LOOK_S_MAX):
                    if has_lock and self._connection is not None:
                        await self._connection.execute(LOOK)
                    elif not has_lock and await self._try_again():
                        has_lock, is_read = True, False
                    if has_lock and not is_read:
                        await self._on_taken()
                        is_read = True
                    # A session of our own that the server has not given up yet is nobody else's.
                    held = has_lock or (self.is_held and await self._holder() == self._pid)
            except (StoreError, SQLAlchemyError, OSError):
                # The lock of a file stays; that of a session goes with it.
                has_lock = has_lock and self._database.file is not None
                await self._hang_up()
                continue
            if held != self.is_held:
                self.is_held = held
                self._on_state(held, "" if held else TAKEN)

    async def _try_again(self) -> bool:
        """Whether it could be taken, also from a holder that goes between the try and the look at who it is."""
        return await self._try() or (await self._holder() == NOBODY and await self._try())

    async def _holder(self) -> int | None:
        """The server's process that has it, NOBODY, or None where there is no server to ask."""
        if self._connection is None:
            return None
        return (await self._connection.execute(HOLDER)).scalar_one_or_none() or NOBODY

    async def _hang_up(self) -> None:
        session, self._session, self._connection = self._session, contextlib.AsyncExitStack(), None
        with contextlib.suppress(StoreError, SQLAlchemyError, OSError):
            async with asyncio.timeout(LOOK_S_MAX):
                await session.aclose()


@contextlib.contextmanager
def hold_file(path: Path) -> Iterator[None]:
    """The lock of a database file, for this process. Raises LedgerTaken."""
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerTaken(TAKEN) from error
        yield
    finally:
        os.close(descriptor)
