from __future__ import annotations

import asyncio
import random
import time

import pytest
from sqlalchemy import select

from app.core.clock import SystemClock
from app.core.ids import new_request_id
from app.core.records import BudgetWindow, Record
from app.core.usage import Usage
from app.ledger import commit, writer
from app.ledger.recovery import recover
from app.ledger.slots import take_slot
from app.store.database import Database
from app.store.errors import DatabaseUnavailable
from app.store.objects import owner_of
from app.store.records import find_record
from app.store.tables import poison
from tests.contract.ledger.gateways import Gateway, totals
from tests.contract.store.samples import NOON_MS, entry_of, opened, opening_of, owned_of, record_of


@pytest.fixture
async def gateway_of(tmp_path, database):
    made = []

    def make(**changes):
        gateway = Gateway(tmp_path / "journal", changes.pop("database", database), **changes)
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        await gateway.end()


async def test_a_record_is_in_sql_soon_and_its_journal_gone(gateway_of):
    gateway = gateway_of()
    record = record_of()
    gateway.serve(record, owned_of(record.request_id))
    assert gateway.writer.queued == 2
    async with asyncio.timeout(30):
        while gateway.journal.records_pending:
            await asyncio.sleep(0.005)
    async with gateway.database.read() as connection:
        view = await find_record(connection, record.request_id)
        assert len(await owner_of(connection, f"resp_{record.request_id}")) == 1
    assert view is not None and view.cost_nanousd == 61_000
    assert (gateway.written, gateway.states, gateway.writer.queued) == ([(1, 1)], [], 0)
    assert repr(gateway.writer) == "LedgerWriter(up, queued=0, spilled=0)"


async def test_a_record_submitted_twice_is_one_row_and_counts_once(gateway_of):
    gateway = gateway_of()
    record = record_of()
    for _ in range(2):
        gateway.serve(record)
        assert await gateway.writer.drain(30) == 0
    gateway.serve(record)
    gateway.serve(record)
    assert await gateway.writer.drain(30) == 0
    proof, row = await totals(gateway.database)
    assert (proof.records, proof.entries, row.requests, row.cost_nanousd) == (1, 1, 1, 61_000)
    assert [new for _, new in gateway.written] == [1, 0, 0]


async def test_batches_are_bounded(gateway_of):
    gateway = gateway_of(batch_items_max=100)
    for _ in range(450):
        gateway.serve(record_of())
    assert await gateway.writer.drain(30) == 0
    assert [records for records, _ in gateway.written] == [100, 100, 100, 100, 50]
    assert (await totals(gateway.database))[1].requests == 450


async def test_a_full_batch_does_not_wait_for_the_interval(gateway_of):
    gateway = gateway_of(batch_items_max=10, flush_interval_s=60)
    for _ in range(10):
        gateway.serve(record_of())
    async with asyncio.timeout(30):
        while not gateway.written:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("waits", [False, True])
async def test_who_hurries_it_does_not_wait_for_the_interval(gateway_of, waits):
    gateway = gateway_of(flush_interval_s=60)
    gateway.serve(record_of())
    if waits:
        # It has begun to wait for more.
        await asyncio.sleep(0.05)
    gateway.writer.hurry()
    async with asyncio.timeout(30):
        while not gateway.written:
            await asyncio.sleep(0.005)
    gateway.serve(record_of())
    await asyncio.sleep(0.3)
    assert len(gateway.written) == 1


class Switch:
    """A database that can be away."""

    def __init__(self, monkeypatch):
        self.away = False
        self.items = []
        real = commit.write_batch

        async def write(database, records, objects):
            self.items.append(len(records) + len(objects))
            if self.away:
                raise DatabaseUnavailable("it is away")
            return await real(database, records, objects)

        monkeypatch.setattr(commit, "write_batch", write)


@pytest.fixture
def switch(monkeypatch):
    return Switch(monkeypatch)


async def test_while_the_database_is_away_nothing_is_lost_and_it_is_told_once(gateway_of, switch):
    gateway = gateway_of(batch_items_max=50)
    switch.away = True
    for _ in range(300):
        gateway.serve(record_of())
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while len(switch.items) < 4:
            await asyncio.sleep(0.005)
    assert gateway.states == [(False, "it is away")]
    assert not gateway.writer.up
    assert gateway.writer.lag_s == pytest.approx(time.time() - (NOON_MS + 900) / 1000, abs=5), "of the oldest"
    assert await gateway.writer.drain(0.05) == 300
    switch.away = False
    assert await gateway.writer.drain(30) == 0
    assert gateway.states == [(False, "it is away"), (True, "")]
    assert gateway.writer.lag_s == 0
    assert max(switch.items) <= 50
    assert (await totals(gateway.database))[1].requests == 300
    assert gateway.journal.records_pending == 0


async def test_beyond_the_bound_records_wait_on_the_disk_in_their_order(gateway_of, switch):
    gateway = gateway_of(batch_items_max=20, queue_items_max=40)
    switch.away = True
    records = [record_of(at_ms=NOON_MS + number) for number in range(400)]
    for record in records:
        gateway.serve(record, owned_of(record.request_id))
        await asyncio.sleep(0)
    assert len(gateway.writer._queue) <= 40
    assert gateway.writer.queued > 400
    switch.away = False
    # New ones come while the old ones are read back.
    late = []
    for _ in range(50):
        late.append(record_of())
        gateway.serve(late[-1])
        await asyncio.sleep(0.001)
    assert await gateway.writer.drain(30) == 0
    proof, row = await totals(gateway.database)
    assert (proof.records, row.requests, proof.poison) == (450, 450, 0)
    async with gateway.database.read() as connection:
        for record in records:
            assert len(await owner_of(connection, f"resp_{record.request_id}")) == 1
    assert gateway.journal.records_pending == 0
    assert gateway.poisoned == []


async def test_a_record_does_not_overtake_its_objects(gateway_of):
    """Once committed a record lets go of its lines, and an object that waits on the disk is one of them."""
    gateway = gateway_of(queue_items_max=2)
    await gateway.writer.stop()
    gateway.serve(record_of())
    gateway.serve(record_of())
    record = record_of()
    gateway.journal.open(*opened(opening_of(record.request_id)))
    gateway.journal.seen(owned_of(record.request_id))
    gateway.writer.remember(owned_of(record.request_id))
    # Now there is room again in memory.
    gateway.journal.settled([gateway.writer._queue.popleft().request_id])
    gateway.journal.close(record)
    gateway.writer.submit(record)
    gateway.writer.start()
    async with asyncio.timeout(30):
        while gateway.journal.records_pending:
            await asyncio.sleep(0.005)
    async with gateway.database.read() as connection:
        assert len(await owner_of(connection, f"resp_{record.request_id}")) == 1


async def test_what_cannot_be_read_back_stays_in_the_journal_and_is_told(gateway_of, switch, tmp_path):
    gateway = gateway_of(batch_items_max=5, queue_items_max=5)
    switch.away = True
    records = [record_of() for _ in range(20)]
    for record in records:
        gateway.serve(record)
        await asyncio.sleep(0)
    ((path, offset),) = gateway.journal.places_of(records[15].request_id)
    data = bytearray(path.read_bytes())
    data[offset + 60] ^= 1
    path.write_bytes(data)
    switch.away = False
    assert await gateway.writer.drain(30) == 0
    assert gateway.poisoned == [records[15].request_id]
    assert gateway.journal.records_pending == 1
    assert (await totals(gateway.database))[0].records == 19
    await gateway.end()
    slot = take_slot(tmp_path / "journal")
    report = await recover(tmp_path / "journal", slot, gateway.database, SystemClock())
    slot.release()
    # Its end is lost, its beginning is not.
    assert (report.damaged_lines, report.interrupted) == (1, 1)
    assert (await totals(gateway.database))[0].records == 20


async def test_what_the_journal_could_not_write_waits_in_memory(gateway_of, switch, monkeypatch):
    gateway = gateway_of(batch_items_max=5, queue_items_max=5)
    switch.away = True
    records = [record_of() for _ in range(30)]
    for record in records:
        gateway.journal.open(*opened(opening_of(record.request_id)))

    def refuse(self, request_id, line, *, again):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.ledger.segments.Segment.append", refuse)
    for record in records:
        gateway.journal.close(record)
        gateway.writer.submit(record)
    assert gateway.journal.requests_unwritten == 30
    switch.away = False
    assert await gateway.writer.drain(30) == 0
    assert (await totals(gateway.database))[0].records == 30
    assert (gateway.journal.records_pending, gateway.journal.requests_unwritten) == (0, 0)


async def test_a_row_that_the_database_refuses_is_put_aside_and_holds_up_nobody(gateway_of):
    gateway = gateway_of()
    records = [record_of() for _ in range(120)]
    for number in (7, 60, 61):
        bad = entry_of(records[number].request_id, usage=Usage(input_tokens=2**70), cost_nanousd=1)
        records[number] = record_of(records[number].request_id, entries=(bad,))
    for record in records:
        gateway.serve(record)
    assert await gateway.writer.drain(30) == 0
    proof, row = await totals(gateway.database)
    assert (proof.records, row.requests, proof.poison) == (117, 117, 3)
    assert sorted(gateway.poisoned) == sorted(records[number].request_id for number in (7, 60, 61))
    async with gateway.database.read() as connection:
        rows = (await connection.execute(select(poison))).mappings().all()
    assert all(str(2**70) in row["payload"] and row["error"] for row in rows)
    assert gateway.journal.records_pending == 0
    # The same again, as a replay would.
    gateway.serve(records[7])
    await gateway.writer.drain(30)
    assert (await totals(gateway.database))[0].poison == 3


async def test_an_object_that_the_database_refuses_is_put_aside_beside_its_record(gateway_of):
    gateway = gateway_of()
    record = record_of()
    gateway.serve(record, owned_of(record.request_id, "o", created_at_ms=2**64))
    assert await gateway.writer.drain(30) == 0
    proof, _ = await totals(gateway.database)
    assert (proof.records, proof.poison) == (1, 1)


async def test_half_a_surrogate_pair_is_mended_not_put_aside(gateway_of):
    gateway = gateway_of()
    request_id = new_request_id(NOON_MS)
    gateway.serve(record_of(request_id, end_user="ann\ud83d", tags={"a": "\udc00"}))
    assert await gateway.writer.drain(30) == 0
    async with gateway.database.read() as connection:
        view = await find_record(connection, request_id)
    assert view is not None and (view.end_user or "").startswith("ann\N{REPLACEMENT CHARACTER}")
    assert (await totals(gateway.database))[0].poison == 0


async def test_each_commit_is_told_with_the_token_from_right_before_it(gateway_of):
    told, tokens = [], iter(range(100))
    window = BudgetWindow("b", 0)
    gateway = gateway_of(
        batch_items_max=10,
        before_write=lambda: next(tokens),
        after_write=lambda records, written, token: told.append((records, written, token)),
    )
    records = [record_of(budgets=(window,)) for _ in range(25)]
    for record in records:
        gateway.serve(record, owned_of(record.request_id))
    assert await gateway.writer.drain(30) == 0
    assert [token for _, _, token in told] == list(range(len(told)))
    assert [record for each, _, _ in told for record in each] == records
    assert sum(written.new_records for _, written, _ in told) == 25
    assert all(written.ranks == {each.request_id: 2 for each in records} for records, written, _ in told)
    assert [written.budgets[window][0] for each, written, _ in told if each][-1] == 25 * 61_000
    versions = [written.budgets[window][1] for each, written, _ in told if each]
    assert versions == sorted(set(versions))


async def test_parts_of_a_batch_with_a_refused_row_are_told_each_with_its_own(gateway_of):
    told, tokens = [], iter(range(100))
    gateway = gateway_of(
        before_write=lambda: next(tokens),
        after_write=lambda records, written, token: told.append((records, written, token)),
    )
    records = [record_of() for _ in range(12)]
    bad = entry_of(records[5].request_id, usage=Usage(input_tokens=2**70))
    records[5] = record_of(records[5].request_id, entries=(bad,))
    surrogate = records[7] = record_of(records[7].request_id, end_user="ann\ud83d")
    for record in records:
        gateway.serve(record)
    assert await gateway.writer.drain(30) == 0
    poisoned = [written.poisoned for _, written, _ in told if written.poisoned]
    assert poisoned == [(records[5].request_id,)]
    assert gateway.poisoned == [records[5].request_id]
    ranks = {request_id: rank for _, written, _ in told for request_id, rank in written.ranks.items()}
    assert ranks == {record.request_id: 2 for record in records if record is not records[5]}
    # Each was told once, whether it was written, mended or put aside.
    names = [each.request_id for part, _, _ in told for each in part]
    assert sorted(names) == sorted(record.request_id for record in records)
    assert surrogate.request_id in ranks
    used = [token for _, _, token in told]
    assert used == sorted(set(used))


async def test_what_was_not_committed_is_not_told(gateway_of, switch):
    told = []
    gateway = gateway_of(after_write=lambda records, written, token: told.append(written))
    switch.away = True
    gateway.serve(record_of())
    async with asyncio.timeout(30):
        while not gateway.states:
            await asyncio.sleep(0.005)
    assert told == []
    switch.away = False
    assert await gateway.writer.drain(30) == 0
    assert [written.new_records for written in told] == [1]


async def test_two_writers_of_one_attempt_tell_its_rank(gateway_of):
    """A reaper's estimate, then the owner's exact outcome: the owner learns that it is exact now."""
    ranks = []
    gateway = gateway_of(after_write=lambda records, written, token: ranks.append(written.ranks))
    request_id = new_request_id(NOON_MS)
    estimate = entry_of(request_id, kind="estimate", cost_nanousd=9)
    gateway.serve(record_of(request_id, entries=(estimate,)))
    assert await gateway.writer.drain(30) == 0
    gateway.serve(record_of(request_id))
    assert await gateway.writer.drain(30) == 0
    assert ranks == [{request_id: 1}, {request_id: 2}]
    assert (await totals(gateway.database))[1].cost_nanousd == 61_000


async def test_a_bug_in_a_batch_is_told_and_tried_again(gateway_of, monkeypatch):
    gateway = gateway_of()
    calls = []
    real = writer.commit

    async def fail_twice(*args):
        calls.append(args)
        if len(calls) < 3:
            raise ZeroDivisionError
        return await real(*args)

    monkeypatch.setattr(writer, "commit", fail_twice)
    gateway.serve(record_of())
    assert await gateway.writer.drain(30) == 0
    assert gateway.states == [(False, "ZeroDivisionError in the ledger writer"), (True, "")]
    assert (await totals(gateway.database))[0].records == 1


async def test_what_a_stop_cuts_short_is_there_after_the_next_start(gateway_of, tmp_path):
    """Tasks are cancelled at any moment of a commit."""
    root = tmp_path / "journal"
    chance = random.Random(3)
    count = 0
    for _ in range(6):
        gateway = gateway_of(batch_items_max=20, flush_interval_s=0)
        for _ in range(60):
            gateway.serve(record_of())
            count += 1
        await asyncio.sleep(chance.random() * 0.02)
        await gateway.end()
        slot = take_slot(root)
        await recover(root, slot, gateway.database, SystemClock())
        slot.release()
        assert (await totals(gateway.database))[0].records == count


async def test_a_drain_of_nothing_returns_at_once(gateway_of):
    gateway = gateway_of()
    before = time.monotonic()
    assert await gateway.writer.drain(30) == 0
    assert time.monotonic() - before < 10
    await gateway.writer.stop()
    await gateway.writer.stop()


async def test_several_gateways_on_one_database(tmp_path, database_url):
    databases = [await Database.open(database_url) for _ in range(3)]
    gateways = [Gateway(tmp_path / "journal", database) for database in databases]
    records = [record_of(key_id=f"k{number % 3}") for number in range(300)]
    for number, record in enumerate(records):
        # Two of them get each record, as after a replay beside a living writer.
        gateways[number % 3].serve(record, owned_of(record.request_id))
        gateways[(number + 1) % 3].serve(record)
        if number % 25 == 0:
            await asyncio.sleep(0.002)
    for gateway in gateways:
        assert await gateway.writer.drain(30) == 0
        await gateway.end()
    proof, row = await totals(databases[0])
    assert (proof.records, row.requests, row.cost_nanousd) == (300, 300, 300 * 61_000)
    assert sum(new for gateway in gateways for _, new in gateway.written) == 300
    for database in databases:
        await database.close()


async def test_submitting_is_cheap(gateway_of):
    """It is done on the event loop, for every request. (About a microsecond; the bound is for busy machines.)"""
    gateway = gateway_of(flush_interval_s=60, batch_items_max=10**6, queue_items_max=10**6)
    records = [record_of() for _ in range(2000)]
    before = time.process_time()
    for record in records:
        gateway.writer.submit(record)
    assert (time.process_time() - before) / len(records) < 20e-6
    assert isinstance(records[0], Record)
    gateway.writer._queue.clear()
