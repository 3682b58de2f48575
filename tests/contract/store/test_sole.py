"""The ledger that one process has for itself, and what becomes of that when the server of it is started again."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from app.store import sole
from app.store.database import Database
from app.store.errors import DatabaseUnavailable, LedgerTaken
from app.store.sole import TAKEN, SoleWriter, hold_file
from tests.contract.store.databases import fresh_url
from tests.fakes.postgres import PostgresServer


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(sole, "LOOK_EVERY_S", 0.05)


async def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


class Keeper(SoleWriter):
    """One that keeps what it was told; ``taken`` counts how often it was told to read the ledger again."""

    def __init__(self, database: Database) -> None:
        self.told: list[tuple[bool, str]] = []
        self.taken = 0
        super().__init__(database, lambda *state: self.told.append(state))

    async def begin(self) -> None:
        async def on_taken() -> None:
            assert not self.told or not self.is_held
            self.taken += 1

        await self.start(on_taken)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_a_ledger_is_held_by_one_and_then_by_whoever_waits(dialect, tmp_path):
    url = await fresh_url(dialect, tmp_path)
    databases = [await Database.open(url) for _ in range(2)]
    first, second = map(Keeper, databases)
    try:
        await first.begin()
        assert (first.is_held, repr(first)) == (True, "SoleWriter(held=True)")
        await second.begin()
        await asyncio.sleep(0.2)
        assert (second.is_held, second.told) == (False, [(False, TAKEN)])
        await first.close()
        await until(lambda: second.is_held)
        assert (second.told, second.taken) == ([(False, TAKEN), (True, "")], 1)
        assert (first.told, first.taken) == ([], 0)
    finally:
        for writer in (first, second):
            await writer.close()
        for database in databases:
            await database.close()


async def test_the_file_of_a_gateway_that_runs_is_taken(tmp_path):
    database = await Database.open(await fresh_url("sqlite", tmp_path))
    keeper = Keeper(database)
    await keeper.begin()
    with pytest.raises(LedgerTaken), hold_file(database.file):
        pass
    await keeper.close()
    with hold_file(database.file):
        pass
    await database.close()


async def test_it_is_not_held_before_the_ledger_was_read_again(tmp_path):
    url = await fresh_url("sqlite", tmp_path)
    database = await Database.open(url)
    first, second = Keeper(database), Keeper(database)
    await first.begin()
    tries = 0

    async def fails_once() -> None:
        nonlocal tries
        tries += 1
        assert not second.is_held
        if tries == 1:
            raise DatabaseUnavailable("busy")

    await second.start(fails_once)
    await first.close()
    await until(lambda: second.is_held)
    assert tries == 2
    await second.close()
    await database.close()


async def test_a_server_that_is_started_again_is_asked_again_and_somebody_else_may_have_been_faster():
    server = PostgresServer()
    await asyncio.to_thread(server.start)
    try:
        url = await server.create_database()
        mine, theirs = [await Database.open(url) for _ in range(2)]
        keeper, waiting = Keeper(mine), Keeper(theirs)
        await keeper.begin()
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.3)
        assert (keeper.is_held, keeper.told) == (True, []), "while it is away nobody else can have it"
        await asyncio.to_thread(server.start)
        await until(lambda: keeper.taken == 1)
        assert (keeper.is_held, keeper.told) == (True, [])

        # Its session goes, and before it is back another gateway has the lock: no two decide, not for a moment.
        await waiting.begin()
        async with theirs.apart() as session:
            for _ in range(50):
                await session.exec_driver_sql(f"SELECT pg_terminate_backend({keeper._pid})")
                await asyncio.sleep(0.06)
                if waiting.is_held:
                    break
        assert waiting.is_held
        await until(lambda: not keeper.is_held)
        assert keeper.told == [(False, TAKEN)]
        await waiting.close()
        await until(lambda: keeper.is_held)
        assert (keeper.told, keeper.taken >= 2) == ([(False, TAKEN), (True, "")], True)
        await keeper.close()
        for database in (mine, theirs):
            await database.close()
    finally:
        await asyncio.to_thread(server.remove)


class Broken:
    async def execute(self, _statement):
        raise ConnectionResetError


async def test_a_session_of_its_own_that_the_server_has_not_given_up_is_nobody_elses():
    """A connection that broke on the way may be alive at the server for minutes."""
    server = PostgresServer()
    await asyncio.to_thread(server.start)
    try:
        database = await Database.open(await server.create_database())
        keeper = Keeper(database)
        await keeper.begin()
        # The connection breaks here, and at the server it is still open.
        before, keeper._session, keeper._connection = keeper._session, contextlib.AsyncExitStack(), Broken()
        await until(lambda: not isinstance(keeper._connection, Broken | None))
        await asyncio.sleep(0.3)
        assert (keeper.is_held, keeper.told, keeper.taken) == (True, [], 0)
        await before.aclose()
        await until(lambda: keeper.taken == 1)
        assert (keeper.is_held, keeper.told) == (True, [])
        await keeper.close()
        await database.close()
    finally:
        await asyncio.to_thread(server.remove)
