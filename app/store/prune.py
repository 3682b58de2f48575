"""Removes old records, when somebody asks for it. Rollups, sums, budgets and who owns what stay.

It goes in small transactions, with a pause after each that is as long, so that gateways go on writing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import cast, delete, exists, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from app.core.clock import QUARTER_MS
from app.store.folding import ALWAYS, fold_all, keep_fold
from app.store.meta import PRUNED_FACT
from app.store.refusals import forget_refusals
from app.store.tables import INT, entries, meta, records, refusals

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.database import Database

BATCH_ROWS = 2000
PAUSE_MIN_S = 0.02


class Pruned(msgspec.Struct, frozen=True):
    """How many rows went, or would go."""

    records: int
    entries: int
    refusals: int


async def prunable(connection: AsyncConnection, before_ms: int) -> Pruned:
    """What ``prune`` would remove now."""

    async def count(table: Table, column: str) -> int:
        asked = select(func.count(type_=INT)).select_from(table).where(table.c[column] < before_ms)
        number: int = (await connection.execute(asked)).scalar_one()
        return number

    return Pruned(
        await count(records, "admitted_at_ms"), await count(entries, "quarter_ms"), await count(refusals, "at_ms")
    )


async def prune(database: Database, before_ms: int, *, batch_rows: int = BATCH_ROWS) -> Pruned:
    """Removes records admitted before ``before_ms`` (a whole quarter of an hour), their entries, and refusals.

    Cut short, it leaves whole requests, and may be run again. Raises DatabaseUnavailable.
    """
    if before_ms % QUARTER_MS:
        raise ValueError("records are pruned by whole quarters of an hour")
    # Sums by tag are made of records.
    for period, zone in ALWAYS:
        await keep_fold(database, period, zone, 0)
    await fold_all(database, before_ms)
    async with database.transaction() as connection:
        # First of all: what is gone from here on is nothing that the proof looks for.
        await _keep_cut(connection, before_ms)

    async def requests(connection: AsyncConnection) -> _Step:
        oldest = select(records.c.request_id).where(records.c.admitted_at_ms < before_ms)
        found = await connection.execute(oldest.order_by(records.c.admitted_at_ms).limit(batch_rows))
        request_ids = sorted(found.scalars())
        of_entries = await connection.execute(delete(entries).where(entries.c.request_id.in_(request_ids)))
        of_records = await connection.execute(delete(records).where(records.c.request_id.in_(request_ids)))
        return _Step(len(request_ids), of_records.rowcount, of_entries.rowcount)

    async def corrections(connection: AsyncConnection) -> _Step:
        """Entries that came after their record had gone."""
        columns = [entries.c[name] for name in ("attempt_id", "reason", "number")]
        of_record = select(records.c.request_id).where(records.c.request_id == entries.c.request_id)
        oldest = select(*columns).where(entries.c.quarter_ms < before_ms, ~exists(of_record)).limit(batch_rows)
        keys = [tuple(row) for row in await connection.execute(oldest)]
        of_entries = await connection.execute(delete(entries).where(tuple_(*columns).in_(keys)))
        return _Step(len(keys), 0, of_entries.rowcount)

    of_requests = await _repeated(database, requests)
    of_corrections = await _repeated(database, corrections)
    return Pruned(
        of_requests.records,
        of_requests.entries + of_corrections.entries,
        await forget_refusals(database, before_ms),
    )


class _Step(msgspec.Struct, frozen=True):
    """What one transaction found, and what it removed of it: another may have been faster."""

    found: int
    records: int
    entries: int


async def _repeated(database: Database, remove: Callable[[AsyncConnection], Awaitable[_Step]]) -> _Step:
    """Runs ``remove`` in a transaction of its own until it finds nothing; the sums."""
    total = _Step(0, 0, 0)
    while True:
        begun_s = time.monotonic()
        async with database.transaction() as connection:
            step = await remove(connection)
        if not step.found:
            return total
        total = _Step(total.found + step.found, total.records + step.records, total.entries + step.entries)
        # SQLite has no queue for its writers: one that never pauses would keep the others out.
        await asyncio.sleep(max(time.monotonic() - begun_s, PAUSE_MIN_S))


async def _keep_cut(connection: AsyncConnection, before_ms: int) -> None:
    """Notes the latest cut there was: another may be made at the same time."""
    inserting = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    given = inserting(meta).values(key=PRUNED_FACT, value=str(before_ms))
    is_later = cast(meta.c.value, INT) < before_ms
    await connection.execute(
        given.on_conflict_do_update(index_elements=["key"], set_={"value": given.excluded.value}, where=is_later)
    )
