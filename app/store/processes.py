"""The processes that share a Redis, and the most that each may hold of each budget.

A mark is raised in SQL before its process reserves beyond it. Where Redis is lost and a process cannot put
its holds back, because it is paused or gone, its marks stand in for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import case, cast, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.core.records import BudgetWindow
from app.store.now import NowMs
from app.store.tables import INT, marks, processes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncConnection


MARK_KEPT_MS = 40 * 24 * 60 * 60 * 1000
"""Longer than any window but that without an end, and what runs in it."""


class ProcessRow(msgspec.Struct, frozen=True):
    """``acked_epoch`` is the last epoch in which it has put back all that it holds. A process is closed when
    nothing of it is held any more: it ended in order, or its journal was replayed.
    """

    id: str
    node: str
    slot: int
    started_at_ms: int
    seen_at_ms: int
    acked_epoch: int
    closed: bool


class Mark(NamedTuple):
    """The most that a process may hold, or have settled and not confirmed, of a window."""

    process_id: str
    team_id: str
    window: BudgetWindow
    nanousd: int


class Unsettled(NamedTuple):
    """A process that is not closed, and the sum of its marks."""

    process: ProcessRow
    nanousd: int


async def register_process(
    connection: AsyncConnection, process_id: str, node: str, slot: int, now_ms: int, *, acked_epoch: int = 0
) -> None:
    """A process that starts, at ``now_ms`` by its own clock. ``acked_epoch``: it begins with nothing to put
    back, so it may say so of the epoch that it has read.
    """
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    row = insert(processes).values(
        id=process_id,
        node=node,
        slot=slot,
        started_at_ms=now_ms,
        seen_at_ms=NowMs(),
        acked_epoch=acked_epoch,
        closed=0,
    )
    await connection.execute(row.on_conflict_do_nothing())


async def process_seen(connection: AsyncConnection, process_id: str, acked_epoch: int) -> bool:
    """It lives, and has put back what it holds in ``acked_epoch``. False where it is closed or unknown."""
    later = case((processes.c.acked_epoch < acked_epoch, acked_epoch), else_=processes.c.acked_epoch)
    seen = update(processes).where(processes.c.id == process_id, processes.c.closed == 0)
    return bool((await connection.execute(seen.values(seen_at_ms=NowMs(), acked_epoch=later))).rowcount)


async def close_process(connection: AsyncConnection, process_id: str) -> None:
    """Nothing of it is held any more; its marks go."""
    await connection.execute(update(processes).where(processes.c.id == process_id).values(closed=1))
    await drop_marks(connection, process_id)


async def forget_process(connection: AsyncConnection, process_id: str) -> None:
    """It is gone, and whether all that it held is in SQL is not known; its marks go."""
    await drop_marks(connection, process_id)
    await connection.execute(delete(processes).where(processes.c.id == process_id))


async def count_live(connection: AsyncConnection, within_s: int) -> int:
    """How many are not closed and were seen within so many seconds."""
    live = select(func.count()).where(processes.c.closed == 0, processes.c.seen_at_ms > NowMs() - within_s * 1000)
    number: int = (await connection.execute(live)).scalar_one()
    return number


async def count_behind(connection: AsyncConnection, number: int, within_s: int) -> int:
    """How many live, by the same measure, and have not acknowledged epoch ``number``."""
    seen = processes.c.seen_at_ms > NowMs() - within_s * 1000
    behind = select(func.count()).where(processes.c.closed == 0, seen, processes.c.acked_epoch < number)
    counted: int = (await connection.execute(behind)).scalar_one()
    return counted


async def list_processes(connection: AsyncConnection) -> list[ProcessRow]:
    """All that were ever registered and not forgotten, oldest first."""
    return await _rows(connection)


async def find_process(connection: AsyncConnection, process_id: str) -> ProcessRow | None:
    asked = select(processes).where(processes.c.id == process_id)
    row = (await connection.execute(asked)).mappings().one_or_none()
    return None if row is None else _row(row)


async def processes_to_ack(connection: AsyncConnection, epoch: int) -> list[ProcessRow]:
    """Those that may hold something that is not put back in ``epoch`` yet."""
    return await _rows(connection, epoch)


async def raise_marks(
    connection: AsyncConnection, process_id: str, values: Mapping[tuple[str, BudgetWindow], int]
) -> None:
    """Sets marks, by team id and window, to nano-dollars."""
    if not values:
        return
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    rows = [
        {
            "process_id": process_id,
            "budget_id": window.budget_id,
            "start_ms": window.start_ms,
            "team_id": team_id,
            "mark_nanousd": nanousd,
        }
        for (team_id, window), nanousd in sorted(values.items())
    ]
    given = insert(marks)
    upsert = given.on_conflict_do_update(
        index_elements=["process_id", "budget_id", "start_ms"], set_={"mark_nanousd": given.excluded.mark_nanousd}
    )
    await connection.execute(upsert, rows)


async def marks_of_others(connection: AsyncConnection, epoch: int) -> list[Mark]:
    """The marks of processes that may hold something which is not put back in ``epoch``."""
    asked = select(marks).join(processes, processes.c.id == marks.c.process_id)
    return await _marks(connection, asked.where(processes.c.closed == 0, processes.c.acked_epoch < epoch))


async def marks_of(connection: AsyncConnection, process_id: str) -> list[Mark]:
    """The marks of one process."""
    return await _marks(connection, select(marks).where(marks.c.process_id == process_id))


async def list_unsettled(connection: AsyncConnection) -> list[Unsettled]:
    """Processes that are not closed and have marks, oldest first: they run, or were lost with what they held."""
    asked = select(marks.c.process_id, cast(func.sum(marks.c.mark_nanousd), INT)).group_by(marks.c.process_id)
    held: dict[str, int] = {row[0]: row[1] for row in await connection.execute(asked)}
    return [Unsettled(row, held[row.id]) for row in await _rows(connection) if row.id in held and not row.closed]


async def drop_old_marks(connection: AsyncConnection, process_id: str) -> None:
    """Those of windows that are over, whatever their length; one without an end begins at 0."""
    over = marks.c.start_ms.between(1, NowMs() - MARK_KEPT_MS)
    await connection.execute(delete(marks).where(marks.c.process_id == process_id, over))


async def drop_marks(connection: AsyncConnection, process_id: str) -> None:
    await connection.execute(delete(marks).where(marks.c.process_id == process_id))


async def _marks(connection: AsyncConnection, asked: Select[Any]) -> list[Mark]:
    found = await connection.execute(asked.order_by(marks.c.process_id, marks.c.budget_id, marks.c.start_ms))
    return [
        Mark(row["process_id"], row["team_id"], BudgetWindow(row["budget_id"], row["start_ms"]), row["mark_nanousd"])
        for row in found.mappings()
    ]


async def _rows(connection: AsyncConnection, unacked_in: int | None = None) -> list[ProcessRow]:
    asked = select(processes).order_by(processes.c.started_at_ms, processes.c.id)
    if unacked_in is not None:
        asked = asked.where(processes.c.closed == 0, processes.c.acked_epoch < unacked_in)
    return [_row(row) for row in (await connection.execute(asked)).mappings()]


def _row(row: RowMapping) -> ProcessRow:
    return ProcessRow(**{**row, "closed": bool(row["closed"])})
