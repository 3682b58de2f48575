from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import time

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError

from app.store import engines, migrate
from app.store.database import Database
from app.store.errors import DatabaseUnavailable, DatabaseURLInvalid, DriverMissing
from app.store.meta import find_fact, keep_fact
from app.store.tables import change_counter, meta
from tests.contract.store.databases import fresh_url
from tests.fakes.postgres import PostgresServer


async def test_a_transaction_is_kept_at_its_end_and_an_error_undoes_it(database):
    async with database.transaction() as connection:
        await keep_fact(connection, "kept", "1")
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await keep_fact(connection, "undone", "1")
            raise RuntimeError
    async with database.read() as connection:
        assert await find_fact(connection, "kept") == "1"
        assert await find_fact(connection, "undone") is None


async def test_a_fact_is_replaced(database):
    for value in ("1", "2"):
        async with database.transaction() as connection:
            await keep_fact(connection, "fact", value)
    async with database.read() as connection:
        assert await find_fact(connection, "fact") == "2"


async def test_writers_wait_for_each_other_and_lose_nothing(database):
    async def add(number):
        async with database.transaction() as connection:
            await connection.execute(insert(meta).values(key=f"key{number}", value=""))

    await asyncio.gather(*[add(number) for number in range(30)])
    async with database.read() as connection:
        assert len((await connection.execute(select(meta))).all()) == 30


async def test_a_cancelled_transaction_is_undone_and_the_next_one_works(database):
    started = asyncio.Event()

    async def hang():
        async with database.transaction() as connection:
            await keep_fact(connection, "undone", "1")
            started.set()
            await asyncio.sleep(60)

    for _ in range(3):
        started.clear()
        task = asyncio.create_task(hang())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with database.transaction() as connection:
        assert await find_fact(connection, "undone") is None


async def test_tasks_cancelled_at_any_point_leave_the_database_usable(database):
    async def write():
        async with database.transaction() as connection:
            await keep_fact(connection, "fact", "1")

    for step in range(25):
        task = asyncio.create_task(write())
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.timeout(30), database.transaction() as connection:
        await keep_fact(connection, "fact", "2")
    async with database.read() as connection:
        assert await find_fact(connection, "fact") == "2"


async def test_after_any_cancellation_what_is_committed_is_there_for_others(database, database_url):
    chance = random.Random(5)
    other = await Database.open(database_url)

    async def write(value):
        async with database.transaction() as connection:
            await keep_fact(connection, "fact", value)

    for turn in range(60):
        task = asyncio.create_task(write("cancelled"))
        await asyncio.sleep(chance.random() * 0.004)
        task.cancel()
        await asyncio.wait([task])
        await write(str(turn))
        async with other.read() as connection:
            assert await find_fact(connection, "fact") == str(turn)
    await other.close()


async def test_a_missing_table_is_not_taken_for_success(database):
    with pytest.raises((DatabaseUnavailable, DBAPIError)):
        async with database.read() as connection:
            await connection.execute(text("SELECT * FROM no_such_table"))


async def test_the_counter_of_changes_has_one_row(database):
    with pytest.raises(DBAPIError):
        async with database.transaction() as connection:
            await connection.execute(insert(change_counter).values(id=2, value=0))


async def test_whole_numbers_do_not_become_floats(database):
    """A sum that overflows is refused, on SQLite too."""
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE change_counter SET value = 9223372036854775807"))
    with pytest.raises((DatabaseUnavailable, DBAPIError)):
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE change_counter SET value = value + 1"))


async def test_sqlite_files_are_private_and_the_commit_is_durable(tmp_path):
    path = tmp_path / "headgate.db"
    path.touch(0o644)
    database = await Database.open(f"sqlite:///{path}")
    await migrate.upgrade(database)
    async with database.transaction() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await connection.execute(text("PRAGMA synchronous"))).scalar() == 2
        assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar() == 1
        assert (await connection.execute(text("PRAGMA journal_size_limit"))).scalar() == 16 * 1024 * 1024
    for name in ("headgate.db", "headgate.db-wal", "headgate.db-shm"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    await database.close()


async def test_a_reader_on_sqlite_cannot_write(tmp_path):
    database = await Database.open(await fresh_url("sqlite", tmp_path))
    with pytest.raises(DatabaseUnavailable, match="readonly"):
        async with database.read() as connection:
            await keep_fact(connection, "fact", "1")
    await database.close()


async def test_a_reader_on_sqlite_sees_one_moment(tmp_path):
    database = await Database.open(await fresh_url("sqlite", tmp_path))
    async with database.read() as connection:
        assert await find_fact(connection, "fact") is None
        async with database.transaction() as writing:
            await keep_fact(writing, "fact", "1")
        assert await find_fact(connection, "fact") is None
    await database.close()


async def test_sqlite_does_not_block_the_event_loop(tmp_path):
    """While another process holds the lock, waiting for it is done elsewhere."""
    url = await fresh_url("sqlite", tmp_path)
    database = await Database.open(url)
    other = sqlite3.connect(tmp_path / "headgate.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    async def write():
        async with database.transaction() as connection:
            await keep_fact(connection, "fact", "1")

    task = asyncio.create_task(write())
    slowest = 0.0
    for _ in range(20):
        before = time.monotonic()
        await asyncio.sleep(0.01)
        slowest = max(slowest, time.monotonic() - before)
    assert not task.done()
    other.execute("ROLLBACK")
    other.close()
    await task
    assert slowest < 2, "whoever waits on the loop waits for five seconds"
    await database.close()


async def test_sqlite_in_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DatabaseUnavailable, match="cannot be opened"):
        await Database.open(f"sqlite:///{tmp_path}/nowhere/headgate.db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://headgate:pa/ss?word@canary@db/ledger",
        "postgresql://headgate:canary#1@db/ledger",
        "postgresql://headgate:x@db:canary/ledger",
        "mysql://headgate:canary@db/ledger",
        "sqlite://canary.db",
        "sqlite:///:memory:canary",
        "canary",
    ],
)
async def test_a_wrong_url_is_refused_without_repeating_it(url):
    with pytest.raises(DatabaseURLInvalid) as caught:
        await Database.open(url)
    error: BaseException | None = caught.value
    assert "canary" not in repr(error) + str(error)
    assert (error.__cause__ is None and error.__suppress_context__) or error.__context__ is None


async def test_credentials_are_in_no_repr_and_no_error(tmp_path):
    url = f"postgresql://headgate:canary@/ledger?host={tmp_path}"
    address = engines.parse_url(url)
    assert "canary" not in repr(address) + str(address)
    with pytest.raises(DatabaseUnavailable) as caught:
        await Database.open(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in repr(error) + str(error)
        error = error.__cause__ or error.__context__


async def test_the_repr_names_the_database(database, database_url, kind):
    assert repr(database).startswith(f"Database('{kind}://")
    assert "postgres@" not in repr(database)


async def test_without_its_driver_postgresql_is_refused_with_the_command_to_run(monkeypatch):
    monkeypatch.setattr(engines, "driver", None)
    with pytest.raises(DriverMissing, match=r"headgate\[postgres\]"):
        await Database.open("postgresql://db/ledger")


@pytest.fixture(scope="module")
def own_server():
    if "HEADGATE_TEST_DATABASE_URL" in os.environ:
        pytest.skip("that server is not ours to stop")
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


async def test_postgresql_comes_back_after_a_restart_and_a_freeze_is_bounded(own_server):
    url = await own_server.create_database()
    database = await Database.open(url, command_timeout_s=0.3)
    await migrate.upgrade(database)

    async def write(value):
        async with database.transaction() as connection:
            await keep_fact(connection, "fact", value)

    async with database.read() as connection:
        commits = (await connection.execute(text("SHOW synchronous_commit"))).scalar()
        reading = (await connection.execute(text("SHOW transaction_isolation"))).scalar()
    async with database.transaction() as connection:
        writing = (await connection.execute(text("SHOW transaction_isolation"))).scalar()
    # What is read is of one moment; a batch that waited has to see what it waited for.
    assert (commits, reading, writing) == ("on", "repeatable read", "read committed")

    own_server.stop(immediate=True)
    with pytest.raises(DatabaseUnavailable):
        await write("1")
    own_server.start()
    await write("2")

    # A connection that nobody used meanwhile is not handed out.
    own_server.stop(immediate=True)
    own_server.start()
    await asyncio.sleep(0.05)
    await write("2")

    own_server.freeze()
    before = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await write("3")
    assert time.monotonic() - before < 20
    own_server.resume()
    await write("4")
    await database.close()
    # Asked by another: a connection sees what it has not committed.
    database = await Database.open(url)
    async with database.read() as connection:
        assert await find_fact(connection, "fact") == "4"
    await database.close()


async def test_commits_are_durable_where_the_server_says_otherwise(own_server):
    url = await own_server.create_database()
    database = await Database.open(url)
    async with database.transaction() as connection:
        await connection.execute(text("ALTER ROLE postgres SET synchronous_commit = off"))
    await database.close()
    database = await Database.open(url)
    async with database.read() as connection:
        assert (await connection.execute(text("SHOW synchronous_commit"))).scalar() == "on"
    await database.close()
