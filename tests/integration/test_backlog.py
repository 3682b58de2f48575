"""An hour of a busy gateway while PostgreSQL is away: all of it is in the ledger minutes after it is back."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from app.core.clock import SystemClock
from app.core.ids import new_request_id
from app.core.records import BudgetWindow
from app.ledger.journal import Journal
from app.ledger.recovery import recover
from app.ledger.slots import take_slot
from app.ledger.writer import QUEUE_ITEMS_MAX, LedgerWriter
from app.store import migrate
from app.store.database import Database
from app.store.proof import prove
from app.store.usage import usage
from tests.contract.store.samples import NOON_MS, opened, opening_of, record_of
from tests.fakes.postgres import PostgresServer

pytestmark = pytest.mark.skipif("HEADGATE_TEST_DATABASE_URL" in os.environ, reason="that server is not ours to stop")

KEYS = 20
DRAIN_S_MAX = 300.0
SIZES = [pytest.param(5_000, id="5000"), pytest.param(180_000, id="180000", marks=pytest.mark.long)]


@pytest.fixture
async def server():
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def url(server):
    url = await server.create_database()
    database = await Database.open(url)
    await migrate.upgrade(database)
    await database.close()
    return url


def record_number(number):
    """Each counts in three budgets: of its key, of its team, and of its team for ever."""
    at_ms = NOON_MS + number * 20
    key = f"k{number % KEYS}"
    windows = (BudgetWindow(key, NOON_MS), BudgetWindow("day", NOON_MS), BudgetWindow("total", 0))
    return record_of(new_request_id(at_ms), at_ms=at_ms, key_id=key, budgets=windows)


async def serve(journal, count, submit):
    for number in range(count):
        record = record_number(number)
        journal.open(*opened(opening_of(record.request_id, at_ms=record.admitted_at_ms, budgets=record.budgets)))
        journal.close(record)
        submit(record)
        if number % 50 == 0:
            await asyncio.sleep(0)


async def assert_whole(url, count):
    database = await Database.open(url)
    async with database.read() as connection:
        proof = await prove(connection)
        (row,) = (await usage(connection, (), 0, 2 * NOON_MS)).rows
    await database.close()
    assert proof.holds
    assert (proof.records, proof.entries, proof.budgets, proof.poison) == (count, count, KEYS + 2, 0)
    assert (row.requests, row.cost_nanousd) == (count, count * 61_000)


@pytest.mark.parametrize("count", SIZES)
async def test_a_backlog_is_drained_in_minutes(server, url, tmp_path, count):
    database = await Database.open(url)
    slot = take_slot(tmp_path / "journal")
    journal = Journal(slot, SystemClock())
    writer = LedgerWriter(database, journal, SystemClock())
    server.stop(immediate=True)
    writer.start()
    try:
        await serve(journal, count, writer.submit)
        assert (writer.queued, journal.records_pending) == (count, count)
        assert len(writer._queue) <= QUEUE_ITEMS_MAX
        server.start()
        before = time.monotonic()
        assert await writer.drain(DRAIN_S_MAX) == 0
        took_s = time.monotonic() - before
        assert (journal.records_pending, writer.up) == (0, True)
    finally:
        await writer.stop()
        journal.stop()
        slot.release()
        await database.close()
    print(f"{count} records in {took_s:.1f} s")
    await assert_whole(url, count)


@pytest.mark.parametrize("count", SIZES)
async def test_a_backlog_that_outlived_its_process_is_replayed_in_minutes(url, tmp_path, count):
    root = tmp_path / "journal"
    slot = take_slot(root)
    journal = Journal(slot, SystemClock())
    await serve(journal, count, lambda record: None)
    journal.stop()
    database = await Database.open(url)
    before = time.monotonic()
    async with asyncio.timeout(DRAIN_S_MAX):
        report = await recover(root, slot, database, SystemClock())
    took_s = time.monotonic() - before
    slot.release()
    await database.close()
    assert (report.closed, report.interrupted, report.torn) == (count, 0, 0)
    print(f"{count} records replayed in {took_s:.1f} s")
    await assert_whole(url, count)
