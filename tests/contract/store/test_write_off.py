"""A process that is lost with its disk: what it declared is free again, also where it stands in for it by now."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from app.core.records import BudgetWindow
from app.store.epochs import read_epoch
from app.store.errors import NoSuchProcess, ProcessRuns
from app.store.processes import find_process, marks_of, raise_marks, register_process
from app.store.running import write_off
from app.store.tables import processes


async def lost(connection, process_id):
    await register_process(connection, process_id, "host", 0, 1)
    await connection.execute(update(processes).where(processes.c.id == process_id).values(seen_at_ms=1))


async def test_what_stands_in_for_it_ends_with_its_epoch(database):
    async with database.transaction() as connection:
        await lost(connection, "p1")
        await raise_marks(connection, "p1", {("t", BudgetWindow("b", 0)): 5})
        before = await read_epoch(connection)
        await write_off(connection, "p1")
        after = await read_epoch(connection)
        assert await find_process(connection, "p1") is None
        assert await marks_of(connection, "p1") == []
    assert after.number > before.number
    assert (after.state, after.leader) == ("warming", None)


async def test_one_that_held_nothing_leaves_the_epoch_open(database):
    async with database.transaction() as connection:
        await lost(connection, "p1")
        before = await read_epoch(connection)
        await write_off(connection, "p1")
        assert await read_epoch(connection) == before


async def test_one_that_may_run_and_one_that_nobody_knows_are_refused(database):
    async with database.transaction() as connection:
        await register_process(connection, "p1", "host", 0, 1)
        with pytest.raises(ProcessRuns):
            await write_off(connection, "p1")
        with pytest.raises(NoSuchProcess):
            await write_off(connection, "nobody")
