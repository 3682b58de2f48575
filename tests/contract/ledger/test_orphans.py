"""Workers that die while others live: their journals are replayed by whoever looks next, and by nobody twice."""

from __future__ import annotations

import asyncio

import pytest

from app.core.clock import SystemClock
from app.ledger.journal import Journal
from app.ledger.recovery import Recovered, recover_dead
from app.ledger.slots import take_slot
from app.store.errors import DatabaseUnavailable
from app.store.proof import prove
from tests.contract.store.samples import opened, opening_of, record_of


@pytest.fixture
def root(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def living(root):
    """This worker, with a journal of its own that is in use."""
    slot = take_slot(root)
    journal = Journal(slot, SystemClock(), sync_interval_s=3600)
    journal.open(*opened(opening_of("alive")))
    yield journal
    journal.stop()
    slot.release()


def die(root, *request_ids):
    """A worker that is killed with requests under way."""
    slot = take_slot(root)
    journal = Journal(slot, SystemClock(), sync_interval_s=3600)
    for request_id in request_ids:
        journal.open(*opened(opening_of(request_id)))
    journal.stop()
    slot.release()
    return slot


async def look(root, database):
    return await recover_dead(root, database, SystemClock())


async def records_in(database):
    async with database.read() as connection:
        proof = await prove(connection)
    assert proof.holds
    return proof.records


async def test_where_nobody_has_died_there_is_nothing_to_do(root, database, living):
    assert await look(root, database) == Recovered()
    assert living.records_pending == 1
    assert await records_in(database) == 0


async def test_the_dead_are_settled_while_the_living_go_on(root, database, living):
    dead = die(root, "r1", "r2")
    found = await look(root, database)
    assert (found.slots, found.interrupted) == (1, 2)
    assert dead.segments() == []
    assert await records_in(database) == 2
    living.close(record_of("alive"))
    assert living.holds("alive"), "its own lines were not touched"
    assert await look(root, database) == Recovered()


async def test_a_slot_is_free_again_after_its_dead_were_settled(root, database, living):
    dead = die(root, "r1")
    await look(root, database)
    again = take_slot(root)
    assert again.number == dead.number
    again.release()


async def test_several_that_look_at_once_settle_each_request_once(root, database, living):
    for number in range(3):
        die(root, f"r{number}")
    found = await asyncio.gather(*(look(root, database) for _ in range(4)))
    assert sum(each.interrupted for each in found) >= 1
    while await records_in(database) < 3:
        await look(root, database)
    assert await records_in(database) == 3


async def test_where_the_database_is_away_they_stay_for_the_next_look(root, database, living, monkeypatch):
    dead = die(root, "r1")

    async def refuse(*_args, **_more):
        raise DatabaseUnavailable("away")

    monkeypatch.setattr("app.ledger.recovery.commit", refuse)
    with pytest.raises(DatabaseUnavailable):
        await look(root, database)
    assert len(dead.segments()) == 1
    monkeypatch.undo()
    assert (await look(root, database)).interrupted == 1
