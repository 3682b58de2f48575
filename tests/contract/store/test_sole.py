"""The ledger that one process has for itself, and what becomes of that when the server of it is started again."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.store import sole
from app.store.database import Database
from app.store.errors import LedgerTaken
from app.store.sole import TAKEN, SoleWriter, hold_file
from tests.contract.store.databases import fresh_url
from tests.fakes.postgres import PostgresServer


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(sole, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(sole, "LOST_AFTER_S", 0.3)


async def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


class Keeper(SoleWriter):
    """One that keeps what it was told."""

    def __init__(self, database: Database) -> None:
        self.told: list[tuple[bool, str]] = []
        super().__init__(database, lambda *state: self.told.append(state))


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_a_ledger_is_held_by_one_and_then_by_whoever_waits(dialect, tmp_path):
    url = await fresh_url(dialect, tmp_path)
    databases = [await Database.open(url) for _ in range(2)]
    first, second = map(Keeper, databases)
    try:
        await first.start()
        assert (first.is_held, repr(first)) == (True, "SoleWriter(held=True)")
        await second.start()
        await asyncio.sleep(0.2)
        assert (second.is_held, second.told) == (False, [(False, TAKEN)])
        await first.close()
        await until(lambda: second.is_held)
        assert second.told == [(False, TAKEN), (True, "")]
        assert first.told == []
    finally:
        for writer in (first, second):
            await writer.close()
        for database in databases:
            await database.close()


async def test_the_file_of_a_gateway_that_runs_is_taken(tmp_path):
    database = await Database.open(await fresh_url("sqlite", tmp_path))
    keeper = Keeper(database)
    await keeper.start()
    with pytest.raises(LedgerTaken), hold_file(database.file):
        pass
    await keeper.close()
    with hold_file(database.file):
        pass
    await database.close()


async def test_a_server_that_is_started_again_is_asked_again_and_somebody_else_may_have_been_faster():
    server = PostgresServer()
    await asyncio.to_thread(server.start)
    try:
        url = await server.create_database()
        mine, theirs = [await Database.open(url) for _ in range(2)]
        keeper = Keeper(mine)
        await keeper.start()
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.3)
        assert (keeper.is_held, keeper.told) == (True, []), "while it is away nobody else can have it"
        await asyncio.to_thread(server.start)
        await until(lambda: keeper._connection is not None)
        async with theirs.apart() as session:
            await until_held(session)
            assert keeper.told == []

            # Its session goes, and before it is back another one has the lock.
            await session.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            )
            while not (await session.execute(sole.TRY)).scalar_one():
                await asyncio.sleep(0)
            await until(lambda: not keeper.is_held)
            assert keeper.told == [(False, TAKEN)]
        await until(lambda: keeper.is_held)
        assert keeper.told == [(False, TAKEN), (True, "")]
        await keeper.close()
        for database in (mine, theirs):
            await database.close()
    finally:
        await asyncio.to_thread(server.remove)


async def until_held(session) -> None:
    """Somebody has the lock."""
    async with asyncio.timeout(10):
        while not (
            await session.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        ).scalar_one():
            await asyncio.sleep(0.02)
