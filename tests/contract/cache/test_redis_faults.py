"""What a store's callers see when its server fails: nothing is found, nothing raises, nothing takes long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.cache import redis
from app.cache.entry import JSON_FORM, STREAM_FORM, Look
from app.cache.redis import RedisStore
from app.store.redis import RedisClient, Script
from tests.contract.cache.harness import SECRET, TestClock, address, entry, eventually
from tests.fakes.valkey import ValkeyServer

WHERE = address(1)
AWAY = Look(away=True)
FAST_MS = 150
"""Far below the timeout, and far above what a loaded machine adds."""
ONE_TIMEOUT_MS_MAX = 5_000
"""One of 300 ms, and not one for each who asks, on a busy machine."""
PUSH = Script("push", "return redis.call('RPUSH', KEYS[1], ARGV[1])")


@pytest.fixture
async def client(server: ValkeyServer) -> AsyncIterator[RedisClient]:
    client = RedisClient(server.url)
    await client.start()
    yield client
    server.restore()
    await client.close()


@pytest.fixture
async def store(client: RedisClient, clock: TestClock) -> AsyncIterator[RedisStore]:
    store = RedisStore(client, clock, SECRET)
    store.start()
    yield store
    await store.close()
    assert client.posts_dropped == 0


async def timed(store: RedisStore, token: str = "a") -> tuple[Look, float]:
    """What a look came to, and after how many milliseconds."""
    began = time.monotonic()
    look = await store.look(WHERE, also=STREAM_FORM, token=token)
    return look, (time.monotonic() - began) * 1000


def tell_all(store: RedisStore, number: int = 1) -> None:
    """Everything that nobody waits for."""
    where = address(number)
    store.keep(where, entry(), token="a", derived=(address(number, STREAM_FORM), entry()))
    store.renew(where, "a")
    store.release(where, "a")


async def is_away_fast(store: RedisStore, *, tell: bool = False) -> None:
    """Nobody waits for it; a busy machine may hold up a few of those who ask."""
    took: list[float] = []
    for _ in range(100):
        look, took_ms = await timed(store)
        assert look == AWAY
        took.append(took_ms)
        if tell:
            tell_all(store)
    assert sorted(took)[89] < FAST_MS


async def works(store: RedisStore) -> None:
    """It does all that it did before."""
    where = address(77)
    assert await store.look(where, token="w") == Look(holder="w")
    store.keep(where, told := entry(b"works"), token="w")
    assert await store.look(where) == Look(told, JSON_FORM)


async def test_a_killed_server_is_away_at_once_and_empty_afterwards(
    store: RedisStore, client: RedisClient, server: ValkeyServer
) -> None:
    tell_all(store)
    assert (await store.look(WHERE)).entry is not None
    server.kill()
    await eventually(lambda: not client.up)
    await is_away_fast(store, tell=True)
    assert await store.look(WHERE, token="a", lease_only=True) == AWAY
    assert await store.look(WHERE, lease_only=True) == Look()
    assert store.lost == 100
    assert not store._unanswered
    server.start()
    await eventually(lambda: client.up)
    # What was told meanwhile is not sent again: it is lost.
    assert await store.look(WHERE, also=STREAM_FORM) == Look()
    await works(store)


async def test_a_frozen_server_costs_one_timeout_and_then_nothing(
    store: RedisStore, client: RedisClient, server: ValkeyServer
) -> None:
    server.freeze()
    for number in range(20):
        tell_all(store, number)
    for look, took_ms in await asyncio.gather(*(timed(store) for _ in range(50))):
        assert look == AWAY
        assert took_ms < ONE_TIMEOUT_MS_MAX
    await is_away_fast(store)
    assert store.lost == 20
    assert (store._unanswered, store._unanswered_bytes) == ({}, 0)
    server.resume()
    await eventually(lambda: client.up)
    await works(store)


async def test_entries_on_their_way_do_not_stand_before_what_has_to_arrive(
    store: RedisStore, client: RedisClient, server: ValkeyServer
) -> None:
    """A settlement is sent again; the entries that were in flight with it are not."""
    server.freeze()
    for number in range(6000):
        store.release(address(number), "a")
    store.keep(address(2), entry(bytes(3_000_000)))
    client.post(PUSH, ["list"], ["settled"])
    await eventually(lambda: not client.up)
    for number in range(6000):
        tell_all(store, number)
    client.post(PUSH, ["list"], ["settled too"])
    await eventually(lambda: "posts kept 2," in repr(client))
    server.resume()
    await eventually(lambda: client.up)
    assert await client.drain(20)
    assert set(server.execute("LRANGE", "list", 0, -1)) == {b"settled", b"settled too"}


async def test_a_connection_that_breaks_under_way_is_away(
    store: RedisStore, client: RedisClient, server: ValkeyServer
) -> None:
    server.freeze()
    looks = [asyncio.create_task(store.look(WHERE, token="a")) for _ in range(20)]
    tell_all(store)
    await asyncio.sleep(0.02)
    server.kill()
    assert await asyncio.gather(*looks) == [AWAY] * 20
    assert store.lost == 1
    server.start()
    await eventually(lambda: client.up)
    await works(store)


async def test_a_server_that_was_emptied_has_nothing(store: RedisStore, server: ValkeyServer) -> None:
    tell_all(store)
    assert await store.look(address(2), token="a") == Look(holder="a")
    server.flush()
    assert await store.look(WHERE, also=STREAM_FORM) == Look()
    assert await store.look(address(2), token="b") == Look(holder="b")
    store.renew(address(2), "a")
    store.release(address(2), "a")
    assert await store.look(address(2), token="a") == Look(holder="b")
    server.flush()
    store.renew(address(2), "b")  # still at work, and nobody else has come
    assert await store.look(address(2), token="a") == Look(holder="b")
    await works(store)
    assert store.lost == 0


async def test_a_server_that_forgot_its_scripts_is_told_them_again(store: RedisStore, server: ValkeyServer) -> None:
    for number in range(40):
        if number % 2:
            server.execute("SCRIPT", "FLUSH")
        told = entry(b"%d" % number)
        where = address(number)
        looks = await asyncio.gather(*(store.look(where, token=f"t{n}") for n in range(5)))
        assert {look.holder for look in looks} <= {"t0", "t1", "t2", "t3", "t4"}
        assert len({look.holder for look in looks}) == 1
        server.execute("SCRIPT", "FLUSH")
        store.keep(where, told, token=looks[0].holder)
        assert await store.look(where) == Look(told, JSON_FORM)
    assert store.lost == 0


async def test_a_server_that_cannot_write_is_away_or_has_hits(store: RedisStore, server: ValkeyServer) -> None:
    """Too few replicas: no script that writes is run."""
    tell_all(store)
    assert (await store.look(WHERE)).entry is not None
    server.execute("CONFIG", "SET", "min-replicas-to-write", 1)
    try:
        assert await store.look(address(2), token="a") == AWAY
        tell_all(store, 2)
        await asyncio.sleep(0.05)
        assert store.lost == 1
    finally:
        server.execute("CONFIG", "SET", "min-replicas-to-write", 0)
    await works(store)


async def test_a_store_whose_server_is_away_at_the_start(server: ValkeyServer, clock: TestClock) -> None:
    server.stop()
    client = RedisClient(server.url)
    await client.start()
    store = RedisStore(client, clock, SECRET)
    store.start()
    await is_away_fast(store)
    tell_all(store)
    server.start()
    await eventually(lambda: client.up)
    await works(store)
    await store.close()
    await client.close()


async def test_a_closed_client_is_away(store: RedisStore, client: RedisClient) -> None:
    await client.close()
    assert await store.look(WHERE, token="a") == AWAY
    tell_all(store)
    await store.close()


async def test_restarts_under_load(
    store: RedisStore, client: RedisClient, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found is what was kept there, whatever happens meanwhile."""
    monkeypatch.setattr(redis, "ROOM_EVERY_S", 0.01)
    stop = asyncio.Event()
    counted = {"hit": 0, "held": 0, "away": 0}

    async def traffic(name: str) -> None:
        number = 0
        while not stop.is_set():
            number = (number + 7) % 50
            where = address(number)
            look = await store.look(where, token=name)
            counted["away" if look.away else "hit" if look.entry else "held"] += 1
            if look.entry is not None:
                assert look.entry.body == b"%d" % number
            elif look.holder == name:
                store.keep(where, entry(b"%d" % number), token=name)
            await asyncio.sleep(0.002 if look.away else 0)

    running = [asyncio.create_task(traffic(f"t{n}")) for n in range(10)]
    for _ in range(3):
        await asyncio.sleep(0.1)
        server.kill()
        await eventually(lambda: not client.up)
        await asyncio.sleep(0.03)
        server.start()
        await eventually(lambda: client.up)
        await asyncio.sleep(0.05)
        server.execute("SCRIPT", "FLUSH")
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.gather(*running)
    assert min(counted.values()) > 20, counted
    assert store.corrupt == 0
    await works(store)
