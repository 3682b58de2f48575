"""The same over a real Valkey and a real PostgreSQL: what the doubles of the other tests might get wrong."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.accounting.accounts import Shared
from app.core.clock import SystemClock
from app.core.errors import LimitsUnavailable
from app.limits.hot import Done, Known, Look
from app.limits.limiter import Claim, Grant, Refusal
from app.limits.redis import RedisHot
from app.store import processes
from app.store.batch import write_batch
from app.store.database import Database
from app.store.redis import RedisClient
from tests.contract.store.databases import fresh_url
from tests.fakes.valkey import ValkeyServer
from tests.unit.accounting.samples import (
    TEAM,
    claim_of,
    concurrency,
    exact,
    money,
    never_remade,
    protective,
    record_of,
    requests,
)

LIMITS = (money(1000), concurrency(5), requests(100))


@pytest.fixture(scope="module")
def server():
    with ValkeyServer() as server:
        yield server


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(await fresh_url("postgresql", tmp_path))
    yield database
    await database.close()


@pytest.fixture
async def launch(server, database):
    server.flush()
    started, clients = [], []

    async def launch(process_id):
        client = RedisClient(server.url)
        await client.start()
        clients.append(client)
        hot = RedisHot(client)
        shared = Shared(process_id, hot, database, SystemClock(), node="host", slot=0, on_state=lambda *_state: None)
        shared.hot = hot
        await shared.start()
        started.append(shared)
        return shared

    yield launch
    for shared in started:
        await shared.close()
    for client in clients:
        await client.close()


async def eventually(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.01)


async def grant(shared, claim):
    decided = await shared.admit(claim, never_remade)
    assert isinstance(decided, Grant), decided
    return decided


async def test_a_request_from_its_admission_to_its_confirmation(launch, database):
    shared = await launch("p1")
    assert shared.is_open
    granted = await grant(shared, claim_of("r1", *LIMITS, bound=400))
    assert [standing.remaining for standing in granted.standings] == [600, 4, 99]
    shared.settle(granted.claim, exact(70))
    token = shared.before_write()
    shared.after_write([record_of("r1", 70)], await write_batch(database, [record_of("r1", 70)]), token)
    await eventually(lambda: not shared.held)
    assert await shared.hot.do(Look(TEAM, "r1")) == Done(changed=False)
    decided = await grant(shared, claim_of("r2", *LIMITS, bound=0))
    assert [standing.remaining for standing in decided.standings] == [930, 4, 98]
    shared.void(decided.claim)
    await shared.close()
    async with database.read() as connection:
        assert (await processes.find_process(connection, "p1")).closed
        assert await processes.marks_of(connection, "p1") == []


async def test_two_processes_share_a_budget_and_a_flush_frees_none_of_it(launch, server):
    first, second = await launch("p1"), await launch("p2")
    held = await grant(first, claim_of("r1", money(1000), bound=700))
    decided = await second.admit(claim_of("r2", money(1000), bound=400), never_remade)
    assert isinstance(decided, Refusal)
    assert decided.is_held
    server.flush()
    with pytest.raises(LimitsUnavailable):
        await second.admit(claim_of("r3", money(1000), bound=400), never_remade)
    await eventually(lambda: first.is_open and second.is_open)
    assert isinstance(await second.admit(claim_of("r4", money(1000), bound=301), never_remade), Refusal)
    known = await second.hot.do(Look(TEAM, "r1"))
    assert isinstance(known, Known)
    assert (known.owner, known.epoch, known.state) == ("p1", 2, "open")
    first.settle(held.claim, exact(70))
    # Nobody waits for a settlement, and the other process has a connection of its own.
    async with asyncio.timeout(30):
        while (await second.hot.do(Look(TEAM, "r1"))).state != "done":
            await asyncio.sleep(0.01)
    await grant(second, claim_of("r5", money(1000), bound=900))


async def test_limits_of_an_upstream_are_counted_without_an_epoch(launch):
    shared = await launch("p1")
    claims = [Claim(name, "up:x", (concurrency(1),)) for name in ("r1", "r2")]
    await grant(shared, claims[0])
    assert isinstance(await shared.admit(claims[1], never_remade), Refusal)
    shared.settle(claims[0], exact(0))
    await grant(shared, claims[1])


async def test_without_the_server_protective_limits_go_on_and_are_told_later(launch, server):
    if not server.owned:
        pytest.skip("an external server is not stopped")
    shared = await launch("p1")
    await grant(shared, claim_of("r0", money(1000), bound=100))
    server.stop()
    try:
        with pytest.raises(LimitsUnavailable):
            await shared.admit(claim_of("r1", money(1000)), never_remade)
        assert not (await grant(shared, protective(claim_of("r2", money(1000), bound=300)))).is_held
    finally:
        server.restore()
    # It is another run of the server: an epoch of its own, in which both are held.
    await eventually(lambda: shared._epochs.number > 1 and shared.is_open)
    left = (await grant(shared, claim_of("r3", money(1000), bound=0))).standings[0].remaining
    assert left == 600
