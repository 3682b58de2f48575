"""Which processes of the ledger run, and those of which an operator says that they never will again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select, text

from app.store.epochs import force_epoch
from app.store.errors import NoSuchProcess, ProcessRuns
from app.store.now import NowMs
from app.store.processes import forget_process
from app.store.tables import marks, processes

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

SEEN_S = 30
"""A process tells every few seconds that it lives; one that has not for so long is taken for gone."""

OTHER_SESSIONS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'headgate'"
    " AND datname = current_database() AND pid <> pg_backend_pid()"
)


async def running_nodes(connection: AsyncConnection) -> list[str]:
    """The hosts of processes that were seen lately, by the database's clock."""
    lately = processes.c.seen_at_ms > NowMs() - SEEN_S * 1000
    asked = select(processes.c.node).distinct().where(processes.c.closed == 0, lately).order_by(processes.c.node)
    return list((await connection.execute(asked)).scalars())


async def other_sessions(connection: AsyncConnection) -> int:
    """How many other connections of Headgate's there are to this database, on PostgreSQL."""
    # Else every look in a transaction is the first one again.
    await connection.execute(text("SELECT pg_stat_clear_snapshot()"))
    number: int = (await connection.execute(OTHER_SESSIONS)).scalar_one()
    return number


async def most_held(connection: AsyncConnection) -> dict[str, int]:
    """By process, its highest mark: it may hold so many nano-dollars of one budget, and of no other more."""
    asked = select(marks.c.process_id, func.max(marks.c.mark_nanousd)).group_by(marks.c.process_id)
    return {row.process_id: row[1] for row in await connection.execute(asked)}


async def write_off(connection: AsyncConnection, process_id: str) -> None:
    """Declares that a process is lost, and its journal with it: what it held is free again.

    Raises NoSuchProcess; ProcessRuns where it was seen lately.
    """
    lately = processes.c.seen_at_ms > NowMs() - SEEN_S * 1000
    asked = select(processes.c.closed, lately).where(processes.c.id == process_id)
    found = (await connection.execute(asked)).one_or_none()
    if found is None:
        raise NoSuchProcess(f"There is no process {process_id!r}.")
    closed, seen = found
    if seen and not closed:
        raise ProcessRuns(f"The process {process_id!r} was seen within the last {SEEN_S} seconds: stop it first.")
    is_held_for = process_id in await most_held(connection)
    # Not closed, which would say that all it ever held is in SQL: what a reaper still finds of it is charged.
    await forget_process(connection, process_id)
    if is_held_for:
        # What stands in for it in the hot state is known to nobody any more, and ends with its epoch.
        await force_epoch(connection)
