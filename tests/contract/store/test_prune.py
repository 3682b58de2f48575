"""Pruning: records go when somebody asks, sums stay, and the proof holds at every step."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from app.core.clock import QUARTER_MS, quarter_of
from app.core.ids import new_request_id
from app.store import prune as pruning
from app.store.batch import write_batch
from app.store.database import Database
from app.store.objects import owner_of
from app.store.proof import prove
from app.store.prune import Pruned, prunable, prune
from app.store.records import count_records, find_record
from app.store.refusals import RefusalRow, keep_refusals
from app.store.tables import entries, rollups
from app.store.usage import usage
from tests.contract.store.samples import NOON_MS, entry_of, owned_of, record_of

CUT_MS = quarter_of(NOON_MS)


async def total(database):
    async with database.read() as connection:
        (row,) = (await usage(connection, (), 0, 2 * NOON_MS)).rows
        assert (await prove(connection)).holds
    return row


def records_around(cut_ms, count):
    """``count`` records before the cut, and as many from it on, five minutes apart."""
    return [record_of(at_ms=cut_ms + number * 300_000) for number in range(-count, count)]


async def test_records_before_the_cut_go_and_everything_else_stays(database):
    rows = records_around(CUT_MS, 7)
    owned = [owned_of(row.request_id) for row in rows]
    await write_batch(database, rows, owned)
    await keep_refusals(
        database,
        [RefusalRow(f"r{number}", "t", "k", CUT_MS + number, 429, "code") for number in (-1, 0)],
        CUT_MS,
    )
    before = await total(database)
    async with database.read() as connection:
        assert await prunable(connection, CUT_MS) == Pruned(7, 7, 1)
    assert await prune(database, CUT_MS, batch_rows=3) == Pruned(7, 7, 1)
    assert await total(database) == before
    async with database.read() as connection:
        assert [await find_record(connection, row.request_id) is None for row in rows] == [True] * 7 + [False] * 7
        assert await owner_of(connection, owned[0].object_id) == [owned[0]]
        assert len((await connection.execute(select(rollups))).all()) == 6
        assert await prunable(connection, CUT_MS) == Pruned(0, 0, 0)
    assert await prune(database, CUT_MS) == Pruned(0, 0, 0)


async def test_the_cut_never_goes_back(database):
    """An earlier day asked for later must not make the proof look for what is gone."""
    await write_batch(database, records_around(CUT_MS, 4))
    await prune(database, CUT_MS)
    await prune(database, CUT_MS - 4 * QUARTER_MS)
    await total(database)


async def test_the_proof_holds_between_any_two_steps(database, database_url, monkeypatch):
    """Beside writers, and looked at all the time."""
    rows = records_around(CUT_MS, 60)
    await write_batch(database, rows)
    monkeypatch.setattr(pruning, "PAUSE_MIN_S", 0.001)
    other = await Database.open(database_url)
    proofs = 0
    task = asyncio.create_task(prune(database, CUT_MS, batch_rows=4))
    while not task.done():
        await write_batch(other, [record_of(at_ms=CUT_MS + QUARTER_MS)])
        async with other.read() as connection:
            assert (await prove(connection)).holds
        proofs += 1
    assert (await task).records == 60
    assert proofs >= 2
    await other.close()


async def test_several_at_once_prune_each_row_once(database_url):
    databases = [await Database.open(database_url) for _ in range(3)]
    await write_batch(databases[0], records_around(CUT_MS, 50))
    async with asyncio.timeout(30):
        cuts = (CUT_MS, CUT_MS - QUARTER_MS, CUT_MS)
        done = await asyncio.gather(
            *[prune(each, cut_ms, batch_rows=7) for each, cut_ms in zip(databases, cuts, strict=True)]
        )
    assert sum(each.records for each in done) == sum(each.entries for each in done) == 50
    await total(databases[0])
    for each in databases:
        await each.close()


async def test_cut_short_it_leaves_whole_requests(database, monkeypatch):
    monkeypatch.setattr(pruning, "PAUSE_MIN_S", 3600)
    await write_batch(database, records_around(CUT_MS, 20))
    task = asyncio.create_task(prune(database, CUT_MS, batch_rows=5))
    async with asyncio.timeout(30):
        while True:
            async with database.read() as connection:
                if await count_records(connection) < 40:
                    break
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    async with database.read() as connection:
        assert await count_records(connection) == 35
        assert len((await connection.execute(select(entries))).all()) == 35
    await total(database)


async def test_an_entry_whose_record_is_gone_goes_too(database):
    request_id = new_request_id(1)
    old = record_of(request_id, at_ms=CUT_MS - 1, entries=(entry_of(request_id, 1), entry_of(request_id, 2)))
    await write_batch(database, [old])
    async with database.transaction() as connection:
        await connection.execute(entries.update().values(request_id="gone"))
    assert await prune(database, CUT_MS) == Pruned(1, 2, 0)


async def test_only_whole_quarters_can_be_pruned(database):
    with pytest.raises(ValueError, match="quarters"):
        await prune(database, CUT_MS + 1)
