from __future__ import annotations

import asyncio
import contextlib
import random

import asyncpg
import pytest
from sqlalchemy import func, select, text, update

from app.core.ids import new_request_id
from app.core.money import NANOUSD_MAX
from app.core.records import BudgetWindow, OwnedObject
from app.core.usage import Usage
from app.store import batch
from app.store.batch import PoisonRow, keep_poison, write_batch
from app.store.database import Database
from app.store.errors import DatabaseUnavailable, RowsRefused
from app.store.objects import owner_of
from app.store.proof import prove
from app.store.records import find_record
from app.store.tables import budgets, poison, rollups
from app.store.usage import usage
from tests.contract.store.databases import empty_url, forget
from tests.contract.store.samples import NOON_MS, entry_of, owned_of, record_of


async def total(database):
    async with database.read() as connection:
        (row,) = (await usage(connection, (), 0, 2 * NOON_MS)).rows
        assert (await prove(connection)).holds
    return row


async def test_a_record_written_twice_is_one_row_and_counts_once(database):
    record = record_of()
    assert (await write_batch(database, [record])).new_records == 1
    once = await total(database)
    assert (await write_batch(database, [record])).new_records == 0
    assert (await write_batch(database, [record, record, record_of()])).new_records == 1
    assert await total(database) == await total(database)
    assert (once.requests, (await total(database)).requests) == (1, 2)


@pytest.mark.parametrize("size", [0, 1, 7, 128, 333])
async def test_batches_of_any_size_are_whole(database, size):
    records = [record_of(at_ms=NOON_MS + number * 60_000) for number in range(size)]
    random.Random(size).shuffle(records)
    assert (await write_batch(database, records)).new_records == size
    assert (await write_batch(database, [*records, record_of()])).new_records == 1
    assert (await total(database)).requests == size + 1


async def test_a_batch_that_was_partly_written_adds_only_what_is_new(database):
    records = [record_of() for _ in range(50)]
    await write_batch(database, records[10:30])
    assert (await write_batch(database, records)).new_records == 30
    row = await total(database)
    assert (row.requests, row.cost_nanousd) == (50, 50 * 61_000)


async def test_the_second_writer_of_an_attempt_does_nothing_whatever_its_kind(database):
    request_id = new_request_id(1)
    charged = record_of(request_id)
    estimate = entry_of(request_id, kind="estimate", cost_nanousd=5_000_000)
    await write_batch(database, [charged])
    await write_batch(database, [record_of(request_id, outcome="interrupted", entries=(estimate,))])
    row = await total(database)
    assert (row.requests, row.failed, row.estimated, row.cost_nanousd) == (1, 0, 0, 61_000)
    async with database.read() as connection:
        view = await find_record(connection, request_id)
    assert view is not None
    assert [entry.kind for entry in view.entries] == ["charge"]


async def test_a_new_entry_of_a_known_record_counts_alone(database):
    request_id = new_request_id(1)
    await write_batch(database, [record_of(request_id)])
    await write_batch(database, [record_of(request_id, entries=(entry_of(request_id, 1), entry_of(request_id, 2)))])
    row = await total(database)
    assert (row.requests, row.cost_nanousd) == (1, 122_000)


async def test_objects_come_with_the_batch(database):
    record = record_of()
    mine = owned_of(record.request_id)
    await write_batch(database, [record], [mine, OwnedObject(mine.object_id, "openai", "thief", "response", "x", 1)])
    await write_batch(database, [], [owned_of("other", mine.object_id, team_id="thief"), owned_of("other")])
    async with database.read() as connection:
        assert await owner_of(connection, mine.object_id) == [mine]
        assert len(await owner_of(connection, "resp_other")) == 1


async def test_large_amounts_are_exact(database):
    big = NANOUSD_MAX // 4 + 1
    for _ in range(3):
        request_id = new_request_id(1)
        usage_of = Usage(input_tokens=2**53 + 1)
        await write_batch(
            database, [record_of(request_id, entries=(entry_of(request_id, cost_nanousd=big, usage=usage_of),))]
        )
    row = await total(database)
    assert (row.cost_nanousd, row.input_tokens) == (3 * big, 3 * (2**53 + 1))


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1])
async def test_numbers_beyond_64_bits_are_refused_and_nothing_is_written(database, number):
    bad = record_of(entries=(entry_of("x", cost_nanousd=number),))
    with pytest.raises(RowsRefused):
        await write_batch(database, [record_of(), bad, record_of()])
    async with database.read() as connection:
        proof = await prove(connection)
    assert (proof.records, proof.entries, proof.rollups) == (0, 0, 0)


async def test_a_sum_beyond_64_bits_is_refused_not_rounded(database):
    def costing(amount):
        request_id = new_request_id(1)
        return record_of(request_id, entries=(entry_of(request_id, cost_nanousd=amount),))

    await write_batch(database, [costing(2**63 - 1)])
    with pytest.raises(RowsRefused):
        await write_batch(database, [costing(1)])
    assert (await total(database)).cost_nanousd == 2**63 - 1


async def test_text_that_a_database_does_not_take_does_not_keep_a_request_off_the_bill(database):
    request_id = new_request_id(1)
    record = record_of(
        request_id,
        model_requested="gpt\0",
        model="m" * 5000,
        end_user="日本" * 3000,
        response_id="r\0",
        tags={"a\0": "\0"},
        entries=(entry_of(request_id, model="m" * 5000),),
    )
    assert (await write_batch(database, [record])).new_records == 1
    async with database.read() as connection:
        view = await find_record(connection, request_id)
    assert view is not None
    assert (view.model_requested, view.response_id, view.tags) == ("gpt\N{REPLACEMENT CHARACTER}", "r�", {"a\0": "\0"})
    assert len(view.model) == len(view.end_user or "") == 512
    assert (await total(database)).requests == 1


async def test_refused_rows_are_put_aside_once(database):
    row = PoisonRow("request", "", "{}", "why", 1)
    await keep_poison(database, [row, PoisonRow("request", "resp_1", "{}", "why", 1)])
    await keep_poison(database, [row])
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(poison))).scalar() == 2
        assert (await prove(connection)).poison == 2


async def test_writers_with_overlapping_batches_neither_lose_nor_double_nor_deadlock(database_url, conflicts):
    """Twenty gateways replay the same records, each in another order and other parts."""
    databases = [await Database.open(database_url, connections_max=4) for _ in range(5)]
    keys = [f"key{number}" for number in range(4)]
    records = []
    for number in range(240):
        request_id = new_request_id(1)
        model = f"model{number % 3}"
        entries = (
            entry_of(request_id, 1, kind="void", usage=Usage(), cost_nanousd=0, model=model),
            entry_of(request_id, 2, model=model, cost_nanousd=number),
        )
        records.append(record_of(request_id, key_id=keys[number % 4], model=model, entries=entries))
    new = 0

    async def replay(number):
        nonlocal new
        chance = random.Random(number)
        for _ in range(6):
            batch = chance.sample(records, 60)
            objects = [owned_of(record.request_id, team_id=f"t{number}") for record in batch[:20]]
            written = await write_batch(databases[number % 5], batch, objects)
            new += written.new_records

    async with asyncio.timeout(30):
        await asyncio.gather(*[replay(number) for number in range(20)])
        written = await write_batch(databases[0], records)
    new += written.new_records
    assert (new, conflicts) == (len(records), [])
    row = await total(databases[0])
    assert (row.requests, row.cost_nanousd) == (240, sum(range(240)))
    assert row.input_tokens == 240 * 100
    async with databases[0].read() as connection:
        assert (await connection.execute(select(func.count()).select_from(rollups))).scalar() == 12
    for database in databases:
        await database.close()


async def test_a_cancelled_batch_is_written_whole_or_not_at_all(database):
    for step in range(12):
        records = [record_of() for _ in range(3)]
        task = asyncio.create_task(write_batch(database, records))
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(30):
            assert (await write_batch(database, [record_of()])).new_records == 1
        async with database.read() as connection:
            proof = await prove(connection)
        assert proof.holds
        assert proof.records == proof.entries


async def test_after_any_cancellation_what_is_committed_is_there_for_others(database, database_url):
    """A driver that is cut short in BEGIN may take the next COMMIT for the end of a savepoint."""
    chance = random.Random(5)
    other = await Database.open(database_url)
    for turn in range(60):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.random() * 0.004):
                await write_batch(database, [record_of() for _ in range(3)])
        record = record_of()
        assert (await write_batch(database, [record])).new_records == 1
        async with other.read() as connection:
            assert await find_record(connection, record.request_id) is not None, turn
    await total(other)
    await other.close()


async def test_a_connection_that_was_closed_is_unavailable_once_and_blames_no_row(database, kind, monkeypatch):
    if kind == "sqlite":
        async with database._checkout(database._writer) as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            await raw.close()
    else:
        monkeypatch.setattr(batch, "_write_postgres", close_first)
    with pytest.raises(DatabaseUnavailable):
        await write_batch(database, [record_of()])
    monkeypatch.undo()
    assert (await write_batch(database, [record_of()])).new_records == 1


async def close_first(connection, _batch):
    connection.terminate()
    return await connection.fetch("SELECT 1")


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_connection_that_was_left_in_a_transaction_is_not_used(database, kind):
    async with database._checkout(database._writer) as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.execute("BEGIN")
    with pytest.raises(DatabaseUnavailable, match="left inside"):
        await write_batch(database, [record_of()])
    assert (await write_batch(database, [record_of()])).new_records == 1


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_commit_that_the_server_turned_into_a_rollback_is_told(database, kind, monkeypatch):
    real = batch._write_postgres

    async def fail_quietly(connection, rows):
        new = await real(connection, rows)
        with contextlib.suppress(asyncpg.PostgresError):
            await connection.execute("SELECT 1 / 0")
        return new

    monkeypatch.setattr(batch, "_write_postgres", fail_quietly)
    with pytest.raises(DatabaseUnavailable, match="was not committed"):
        await write_batch(database, [record_of()])
    monkeypatch.undo()
    assert (await write_batch(database, [record_of()])).new_records == 1


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_deadlock_with_somebody_else_is_tried_again_at_once(database, kind, conflicts):
    """A person at a console takes rows in the other order; the server ends one of the two."""
    window = BudgetWindow("b", 0)
    await write_batch(database, [record_of(budgets=(window,))])
    async with asyncio.timeout(30):
        async with database.transaction() as connection:
            await connection.execute(text("SET LOCAL deadlock_timeout = '60s'"))
            await connection.execute(update(budgets).values(version=budgets.c.version))
            task = asyncio.create_task(write_batch(database, [record_of(budgets=(window,))]))
            while not await is_waiting(database):
                await asyncio.sleep(0.01)
            # The writer has these rows, and waits for the counter.
            await connection.execute(update(rollups).values(requests=rollups.c.requests))
        written = await task
    assert [each.sqlstate for each in conflicts] == ["40P01"]
    assert written.budgets == {window: (122_000, 2)}
    assert (await total(database)).requests == 2


async def is_waiting(database):
    async with database.read() as connection:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return (await connection.execute(text(waiting))).scalar_one() > 0


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_conflicts_without_end_are_told_as_a_database_that_is_away(database, kind, monkeypatch):
    tries = []

    async def conflict(_connection, _batch):
        tries.append(1)
        raise asyncpg.SerializationError("could not serialize access")

    monkeypatch.setattr(batch, "_write_postgres", conflict)
    with pytest.raises(DatabaseUnavailable, match="could not serialize"):
        await write_batch(database, [record_of()])
    assert len(tries) == batch.CONFLICT_TRIES_MAX


async def test_poison_that_cannot_be_kept_is_told(database):
    with pytest.raises(RowsRefused):
        await keep_poison(database, [PoisonRow("request", "", "{}", "why", 2**64)])
    assert (await total_or_none(database)) is None


async def total_or_none(database):
    async with database.read() as connection:
        assert (await prove(connection)).poison == 0
        rows = (await usage(connection, (), 0, 2 * NOON_MS)).rows
    return rows[0] if rows else None


async def test_a_database_without_the_schema_is_unavailable_and_blames_no_row(kind, tmp_path):
    url = await empty_url(kind, tmp_path)
    database = await Database.open(url)
    with pytest.raises(DatabaseUnavailable, match="limits"):
        await write_batch(database, [record_of()])
    await database.close()
    await forget(kind, url)
