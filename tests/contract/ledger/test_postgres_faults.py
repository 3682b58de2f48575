"""A real PostgreSQL that is killed, slow, cut off or flapping: nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time
from urllib.parse import urlsplit

import msgspec
import pytest
from sqlalchemy import select

from app.core.ids import new_request_id
from app.core.records import BudgetWindow
from app.store import migrate
from app.store.database import Database
from app.store.tables import budgets
from tests.contract.ledger.gateways import Gateway, totals
from tests.contract.store.samples import entry_of, record_of
from tests.fakes.postgres import PostgresServer
from tests.fakes.proxy import BOTH, ChaosProxy

pytestmark = pytest.mark.skipif("HEADGATE_TEST_DATABASE_URL" in os.environ, reason="that server is not ours to stop")

WINDOWS = (BudgetWindow("b-day", 5), BudgetWindow("b-total", 0))
COMMIT = b"COMMIT\0"
"""As it is said on the wire, in the clear: there is no TLS on loopback."""


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def url(server):
    if not server.running:
        server.start()
    server.resume()
    url = await server.create_database()
    database = await Database.open(url)
    await migrate.upgrade(database)
    await database.close()
    yield url
    server.resume()


@pytest.fixture
async def direct(server, url):
    """Around all faults, to see what is there."""
    database = await Database.open(url)
    yield database
    await database.close()


@pytest.fixture
async def proxied(server, url):
    """A database behind a network that can be broken: the proxy and the URL."""
    with ChaosProxy(server.socket_path) as proxy:
        yield proxy, through(proxy, url)


def through(proxy, url):
    return f"postgresql://postgres@127.0.0.1:{proxy.port}{urlsplit(url).path}"


@contextlib.asynccontextmanager
async def gateway_on(url, root, *, command_timeout_s=0.5, **changes):
    database = await Database.open(url, command_timeout_s=command_timeout_s)
    gateway = Gateway(root, database, batch_items_max=40, **changes)
    try:
        yield gateway
    finally:
        await gateway.end()
        await database.close()


async def spent(database):
    async with database.read() as connection:
        rows = (await connection.execute(select(budgets.c.spent_nanousd, budgets.c.seeded_nanousd))).all()
    assert len(set(rows)) == 1 and rows[0][1] == 0
    return rows[0][0]


async def assert_whole(database, served):
    proof, row = await totals(database)
    assert (proof.records, row.requests, proof.poison) == (served, served, 0), msgspec.to_builtins(proof)
    assert row.cost_nanousd == await spent(database)
    return row


def serve(gateway, count):
    for _ in range(count):
        gateway.serve(record_of(budgets=WINDOWS))
    return count


@pytest.mark.parametrize("seed", range(3))
async def test_a_server_that_is_killed_in_the_middle_of_batches(server, url, direct, tmp_path, seed):
    """Its processes are gone at once, whatever they did; what it had committed is there after its recovery."""
    chance = random.Random(seed)
    served = 0
    async with gateway_on(url, tmp_path) as gateway:
        for _ in range(4):
            for _ in range(chance.randrange(20, 60)):
                served += serve(gateway, chance.randrange(1, 12))
                await asyncio.sleep(0)
            await asyncio.sleep(chance.random() * 0.05)
            # In a thread: the writer goes on meanwhile.
            await asyncio.to_thread(server.stop, immediate=True)
            served += serve(gateway, 10)
            await asyncio.to_thread(server.start)
        assert await gateway.writer.drain(30) == 0
        assert gateway.journal.records_pending == 0
        assert gateway.states[-1] == (True, "")
    row = await assert_whole(direct, served)
    assert row.cost_nanousd == served * 61_000


async def test_a_server_that_stops_freezes_and_comes_back(server, url, direct, tmp_path):
    served = 0
    async with gateway_on(url, tmp_path) as gateway:
        for act in (lambda: server.stop(immediate=True), server.start, server.freeze, server.resume):
            act()
            for _ in range(20):
                served += serve(gateway, 5)
                await asyncio.sleep(0.02)
        assert await gateway.writer.drain(30) == 0
        assert [up for up, _ in gateway.states][:2] == [False, True]
        assert gateway.states[-1] == (True, "")
        assert gateway.journal.records_pending == 0
    await assert_whole(direct, served)


async def test_an_answer_to_commit_that_is_lost_is_written_again_and_counts_once(proxied, direct, tmp_path):
    """The server has committed, and the writer cannot know: it gives the same batch again, and is told then."""
    proxy, url = proxied
    told = []
    async with gateway_on(
        url, tmp_path, after_write=lambda records, written, _: told.append((records, written))
    ) as gateway:
        for turn in range(1, 9):
            proxy.cut_answer_to(COMMIT)
            serve(gateway, 15)
            async with asyncio.timeout(30):
                assert await gateway.writer.drain(30) == 0
            assert proxy.cut == turn
            records, written = told[-1]
            # Committed before, so nothing of it is new; what is there now is told all the same.
            assert (len(told), len(records), written.new_records) == (turn, 15, 0)
            assert set(written.ranks.values()) == {2}
            assert written.budgets[WINDOWS[0]] == (turn * 15 * 61_000, turn)
        assert [up for up, _ in gateway.states] == [False, True] * 8
    row = await assert_whole(direct, 120)
    assert row.cost_nanousd == 120 * 61_000


async def test_an_answer_to_the_commit_of_a_correction_that_is_lost(proxied, direct, tmp_path):
    proxy, url = proxied
    async with gateway_on(url, tmp_path) as gateway:
        request_ids = [new_request_id(number) for number in range(20)]
        for request_id in request_ids:
            estimate = entry_of(request_id, kind="estimate", cost_nanousd=5_000_000)
            gateway.serve(record_of(request_id, budgets=WINDOWS, entries=(estimate,)))
        assert await gateway.writer.drain(30) == 0
        proxy.cut_answer_to(COMMIT)
        for request_id in request_ids:
            gateway.serve(record_of(request_id, budgets=WINDOWS))
        assert await gateway.writer.drain(30) == 0
        assert proxy.cut == 1
    row = await assert_whole(direct, 20)
    assert (row.cost_nanousd, row.estimated) == (20 * 61_000, 0)


async def test_a_black_hole_is_left_after_the_time_of_a_command(proxied, direct, tmp_path):
    proxy, url = proxied
    async with gateway_on(url, tmp_path) as gateway:
        served = serve(gateway, 30)
        assert await gateway.writer.drain(30) == 0
        proxy.stalled = BOTH
        served += serve(gateway, 100)
        async with asyncio.timeout(30):
            while gateway.writer.up:
                await asyncio.sleep(0.01)
        # Nothing waits for the old connections: new ones are asked for, and are as mute.
        await asyncio.sleep(0.5)
        assert not gateway.writer.up
        proxy.stalled = None
        assert await gateway.writer.drain(30) == 0
    await assert_whole(direct, served)


async def test_a_slow_network_is_slow_and_nothing_else(proxied, direct, tmp_path):
    proxy, url = proxied
    async with gateway_on(url, tmp_path, command_timeout_s=60) as gateway:
        proxy.latency_s, proxy.jitter_s = 0.01, 0.01
        served = serve(gateway, 200)
        assert await gateway.writer.drain(30) == 0
        assert gateway.states == []
    await assert_whole(direct, served)


@pytest.mark.parametrize("seed", range(3))
async def test_two_writers_of_the_same_attempts_through_flapping_networks(server, url, direct, tmp_path, seed):
    """Estimates by one, exact outcomes by the other, each behind a network of its own that comes and goes."""
    chance = random.Random(seed)
    path = server.socket_path
    with ChaosProxy(path) as first, ChaosProxy(path) as second:
        owned, reaped = gateway_on(through(first, url), tmp_path), gateway_on(through(second, url), tmp_path)
        async with owned as owner, reaped as reaper:
            costs = {}
            deadline = time.monotonic() + 120
            # A slow machine notices less of each minute's faults: it goes on until there were enough of them.
            for turn in itertools.count():
                if turn >= 60 and (len(owner.states) + len(reaper.states) >= 8 or time.monotonic() > deadline):
                    break
                for _ in range(6):
                    request_id = new_request_id(turn)
                    costs[request_id] = chance.randrange(1_000_000)
                    estimate = entry_of(request_id, kind="estimate", cost_nanousd=5_000_000)
                    exact = entry_of(request_id, cost_nanousd=costs[request_id])
                    reaper.serve(record_of(request_id, budgets=WINDOWS, entries=(estimate,), outcome="interrupted"))
                    owner.serve(record_of(request_id, budgets=WINDOWS, entries=(exact,)))
                if turn % 10 == 9:
                    await _mend(first, second)
                    await asyncio.sleep(0.15)
                await _break(chance, chance.choice((first, second)))
                await asyncio.sleep(0.01)
            await _mend(first, second)
            assert await owner.writer.drain(30) == 0
            assert await reaper.writer.drain(30) == 0
            assert first.cut + second.cut > 0
            assert len(owner.states) + len(reaper.states) >= 8
    row = await assert_whole(direct, len(costs))
    assert (row.cost_nanousd, row.estimated) == (sum(costs.values()), 0)


async def _mend(*proxies):
    for proxy in proxies:
        proxy.stalled, proxy.reset_after_bytes = None, {}
        await asyncio.to_thread(proxy.accept)


async def _break(chance, proxy):
    act = chance.randrange(8)
    if act == 0:
        await asyncio.to_thread(proxy.reset)
    elif act == 1:
        await asyncio.to_thread(proxy.refuse)
    elif act in {2, 3}:
        await asyncio.to_thread(proxy.accept)
        proxy.stalled = None
    elif act == 4:
        proxy.cut_answer_to(COMMIT)
    elif act == 5:
        proxy.stalled = BOTH
    elif act == 6:
        proxy.reset_after_bytes = {"up": chance.randrange(1_000, 60_000)} if chance.random() < 0.5 else {}
