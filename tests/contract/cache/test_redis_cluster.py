"""The store on the nodes of a cluster: one request's keys are on one, a team's are on all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.cache import redis
from app.cache.entry import JSON_FORM, STREAM_FORM, Address, Entry, Look
from app.cache.redis import RedisStore
from app.store.redis import Redis, connect
from tests.contract.cache.harness import SECRET, TestClock, entry, eventually, key
from tests.fakes.valkey import ValkeyCluster, ValkeyServer, key_slot

PLACES = [Address(bytes([number]) * 32, JSON_FORM) for number in range(30)]


@pytest.fixture
async def client(cluster: ValkeyCluster) -> AsyncIterator[Redis]:
    client = connect(cluster.url)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def store(client: Redis, clock: TestClock) -> AsyncIterator[RedisStore]:
    store = RedisStore(client, clock, SECRET)
    yield store
    await store.close()


def other_form(where: Address) -> Address:
    return Address(where.digest, STREAM_FORM)


async def test_every_step_on_every_node(store: RedisStore, cluster: ValkeyCluster) -> None:
    nodes = set()
    for where in PLACES:
        assert await store.look(where, also=STREAM_FORM, token="a") == Look(holder="a")
        store.renew(where, "a")
        store.release(where, "a")
        assert await store.look(where, token="b") == Look(holder="b")
        store.keep(where, entry(), token="b", derived=(other_form(where), told := entry(b"data: {}\n\n")))
        assert await store.look(where) == Look(entry(), JSON_FORM)
        assert await store.look(other_form(where)) == Look(told, STREAM_FORM)
        assert await store.look(Address(where.digest, "stream.1"), also=STREAM_FORM) == Look(told, STREAM_FORM)
        assert await store.look(where, token="a", lease_only=True) == Look(holder="a")
        node = cluster.owner(key(where))
        assert node.execute("EXISTS", key(where), key(other_form(where))) == 2
        store.keep(where, told, derived=(other_form(where), None))
        assert await store.look(where) == Look(told, JSON_FORM)
        assert await store.look(other_form(where)) == Look()
        nodes.add(node.port)
    assert len(nodes) == 3
    assert (store.corrupt, store.lost) == (0, 0)


async def test_entries_move_with_their_slot(store: RedisStore, cluster: ValkeyCluster) -> None:
    where = PLACES[0]
    store.keep(where, entry())
    assert (await store.look(where)).entry is not None
    cluster.move(key_slot(key(where)), cluster.other(cluster.owner(key(where))))
    assert (await store.look(where)).entry is not None
    store.keep(where, told := entry(b"anew"))
    assert await store.look(where) == Look(told, JSON_FORM)


async def test_a_node_that_hangs_takes_only_its_own_entries_away(store: RedisStore, cluster: ValkeyCluster) -> None:
    for where in PLACES:
        store.keep(where, entry())
        assert (await store.look(where)).entry is not None
    owners = {where: cluster.owner(key(where)) for where in PLACES}
    frozen = owners[PLACES[0]]
    frozen.freeze()
    try:
        looks = await asyncio.gather(*(store.look(where) for where in PLACES))
        for where, look in zip(PLACES, looks, strict=True):
            assert look.away is (owners[where] is frozen)
            assert (look.entry is None) is look.away
    finally:
        frozen.resume()


async def test_each_node_is_watched_for_itself(
    store: RedisStore, cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "ROOM_EVERY_S", 0.05)
    store.start()
    owners = {where: cluster.owner(key(where)) for where in PLACES}
    full = owners[PLACES[0]]
    for where in PLACES:
        store.keep(where, entry(b"1"))
        assert (await store.look(where)).entry is not None
    full.execute("CONFIG", "SET", "maxmemory", used_memory(full))
    try:
        await eventually(lambda: not store._guard.has_room(key(PLACES[0])))
        lost = 0
        for where in PLACES:
            store.keep(where, told := entry(b"2"), token="a")
            found = await store.look(where)
            assert (found == Look(told, JSON_FORM)) is (owners[where] is not full)
            lost += owners[where] is full
        assert store.lost == lost > 3
    finally:
        full.execute("CONFIG", "SET", "maxmemory", 0)
    await eventually(lambda: store._guard.has_room(key(PLACES[0])))
    store.keep(PLACES[0], told := entry(b"3"))
    assert await store.look(PLACES[0]) == Look(told, JSON_FORM)


async def test_a_node_that_was_started_again_is_watched_as_another(
    store: RedisStore, client: Redis, cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "ROOM_EVERY_S", 0.05)
    store.start()
    for where in PLACES:
        store.keep(where, entry())
        await store.look(where)
    assert len(store._guard._nodes) == 3
    ended = cluster.owner(key(PLACES[0]))
    run_id = client.run_id_for(key(PLACES[0]))
    ended.kill()
    await eventually(lambda: client.run_id_for(key(PLACES[0])) is None)
    assert await store.look(PLACES[0], token="a") == Look(away=True)
    store.keep(PLACES[0], entry())
    ended.start()
    cluster.wait_until_ok()
    await eventually(lambda: client.up and run_id not in store._guard._nodes)
    store.keep(PLACES[0], entry())
    assert (await store.look(PLACES[0])).entry is not None
    assert len(store._guard._nodes) == 3


@pytest.mark.parametrize("derived", [entry(), None])
async def test_the_derived_one_has_the_same_digest(store: RedisStore, derived: Entry | None) -> None:
    with pytest.raises(ValueError, match="share one hash tag"):
        store.keep(PLACES[0], entry(), derived=(other_form(PLACES[1]), derived))


def used_memory(server: ValkeyServer) -> int:
    lines = server.execute("INFO", "memory").decode().splitlines()
    return int(next(line for line in lines if line.startswith("used_memory:")).partition(":")[2])
