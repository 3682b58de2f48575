"""The ledger that one process has for itself, and what becomes of that when the server of it is started again."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.store import sole
from app.store.database import Database
from app.store.errors import LedgerTaken
from app.store.sole import SoleWriter
from tests.contract.store.databases import fresh_url
from tests.fakes.postgres import PostgresServer


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(sole, "TAKE_S_MAX", 0.3)
    monkeypatch.setattr(sole, "TRY_EVERY_S", 0.05)
    monkeypatch.setattr(sole, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(sole, "LOST_AFTER_S", 0.3)


async def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_a_ledger_is_held_by_one_until_it_lets_go(dialect, tmp_path):
    url = await fresh_url(dialect, tmp_path)
    databases = [await Database.open(url) for _ in range(2)]
    told: list[tuple[bool, str]] = []
    first, second = (SoleWriter(database, lambda *state: told.append(state)) for database in databases)
    try:
        await first.take()
        assert (first.is_held, repr(first)) == (True, "SoleWriter(held=True)")
        with pytest.raises(LedgerTaken, match="HEADGATE_REDIS_URL"):
            await second.take()
        await first.close()
        await second.take()
        await asyncio.sleep(0.2)
        assert (second.is_held, told) == (True, [])
    finally:
        for writer in (first, second):
            await writer.close()
        for database in databases:
            await database.close()


async def test_whoever_waits_gets_it_when_the_other_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(sole, "TAKE_S_MAX", 5.0)
    database = await Database.open(await fresh_url("sqlite", tmp_path))
    first, second = (SoleWriter(database, lambda *_: None) for _ in range(2))
    await first.take()
    waiting = asyncio.create_task(second.take())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await first.close()
    await waiting
    await second.close()
    await database.close()


async def test_a_server_that_is_started_again_is_asked_again_and_somebody_else_may_have_been_faster():
    server = PostgresServer()
    await asyncio.to_thread(server.start)
    try:
        url = await server.create_database()
        mine, theirs = [await Database.open(url) for _ in range(2)]
        told: list[tuple[bool, str]] = []
        keeper = SoleWriter(mine, lambda *state: told.append(state))
        await keeper.take()
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.3)
        assert (keeper.is_held, told) == (True, []), "while it is away nobody else can have it"
        await asyncio.to_thread(server.start)
        await until(lambda: keeper._connection is not None)
        with pytest.raises(LedgerTaken):
            await SoleWriter(theirs, lambda *_: None).take()
        assert told == []

        # Its session goes, and before it is back another one has the lock.
        async with theirs.apart() as session:
            await session.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            )
            while not (await session.execute(sole.TRY)).scalar_one():
                await asyncio.sleep(0)
            await until(lambda: not keeper.is_held)
            assert [state[0] for state in told] == [False]
        await until(lambda: keeper.is_held)
        assert [state[0] for state in told] == [False, True]
        await keeper.close()
        for database in (mine, theirs):
            await database.close()
    finally:
        await asyncio.to_thread(server.remove)
