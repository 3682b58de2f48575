"""Nodes of a cluster that die: their replicas take over, and what was posted reaches them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from app.store.redis import ClusterClient, RedisError, RedisUnavailable, connect, nodes
from tests.contract.redis.harness import APPEND, ECHO, Posts, States, eventually, outcome, run_id
from tests.fakes.valkey import ValkeyCluster, key_slot

KEY = "{team}:list"
FAILOVER_S_MAX = 15.0


@pytest.fixture
def states() -> States:
    return States()


@pytest.fixture
async def client(replicated_cluster: ValkeyCluster, states: States) -> AsyncIterator[ClusterClient]:
    client = connect(replicated_cluster.url, on_state=states)
    assert isinstance(client, ClusterClient)
    await client.start()
    assert client.up, client
    yield client
    await client.close()


async def test_a_dead_nodes_replica_gets_what_was_posted_meanwhile(
    client: ClusterClient, replicated_cluster: ValkeyCluster, states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = replicated_cluster
    primary = cluster.owner(KEY)
    moved = next(f"{{moved{n}}}" for n in range(50) if cluster.owner(f"{{moved{n}}}") is not primary)
    cluster.move(key_slot(moved), primary)
    assert await client.call(ECHO, [moved], ["x"]) == b"x"  # a node that was redirected to is kept for a while
    replica = cluster.replica_of(primary)
    elsewhere = next(f"{{team{n}}}" for n in range(50) if cluster.owner(f"{{team{n}}}") is not primary)
    assert await client.call(APPEND, [KEY], ["before"]) == 1
    await eventually(lambda: replica.execute("DBSIZE") == 1)  # what was not replicated would be lost, rightly
    assert client.run_id_for(KEY) == run_id(primary)
    posts = Posts(client)
    primary.freeze()
    for n in range(3):
        posts.append(KEY, f"in flight {n}")
    await asyncio.sleep(0.05)
    primary.kill()
    await eventually(lambda: not client.up)
    assert client.run_id_for(KEY) is None
    for n in range(3):
        posts.append(KEY, f"kept {n}")
    # The others serve on until they agree that it is dead, and refuse all until its replica has been voted for.
    assert await outcome(client, elsewhere) == b"x"
    await eventually(lambda: client.up, FAILOVER_S_MAX)
    assert await client.drain(20)
    assert await client.command(KEY, "LRANGE", KEY, 0, -1) == [b"before", *(name.encode() for name in posts.made)]
    assert list(posts.answers) == posts.made
    assert posts.lost == []
    assert cluster.owner(KEY) is replica
    assert client.run_id_for(KEY) == run_id(replica)
    assert await client.call(ECHO, [moved], ["x"]) == b"x"
    monkeypatch.setattr(nodes, "GUEST_S", 0.0)
    client._nodes.want_map()
    await eventually(lambda: len(list(client._nodes.links)) == 3)  # nobody tries to reach the dead one for ever
    assert states.ups[:2] == [True, False]
    assert states.ups[-1] is True
    assert primary.place in states.seen[1][1]


async def test_an_ordered_handover_loses_no_call(client: ClusterClient, replicated_cluster: ValkeyCluster) -> None:
    cluster = replicated_cluster
    primary = cluster.owner(KEY)
    replica = cluster.replica_of(primary)
    counts: Counter[str] = Counter()
    stop = asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            try:
                await client.call(APPEND, [KEY], ["x"])
            except RedisError as error:
                counts["maybe" if isinstance(error, RedisUnavailable) and error.sent else "refused"] += 1
            else:
                counts["done"] += 1
            await asyncio.sleep(0.002)

    running = [asyncio.create_task(caller()) for _ in range(5)]
    await asyncio.sleep(0.1)
    await asyncio.to_thread(replica.execute, "CLUSTER", "FAILOVER")
    await eventually(lambda: client.run_id_for(KEY) == run_id(replica), FAILOVER_S_MAX)
    await asyncio.sleep(0.2)
    stop.set()
    await asyncio.gather(*running)
    length = await client.command(KEY, "LLEN", KEY)
    assert counts["done"] <= length <= counts["done"] + counts["maybe"]
    assert counts["done"] > 50
    await eventually(lambda: client.up)


async def test_slots_that_nobody_serves_are_refused_until_their_node_is_back(
    client: ClusterClient, replicated_cluster: ValkeyCluster
) -> None:
    cluster = replicated_cluster
    primary = cluster.owner(KEY)
    elsewhere = next(f"{{team{n}}}" for n in range(50) if cluster.owner(f"{{team{n}}}") is not primary)
    cluster.replica_of(primary).kill()
    primary.kill()
    await eventually(lambda: not client.up)
    deadline = time.monotonic() + FAILOVER_S_MAX
    while not isinstance(refused := await outcome(client, elsewhere), RedisUnavailable):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert "CLUSTERDOWN" in str(refused)
    assert not refused.sent
    posts = Posts(client)
    posts.append(elsewhere, "to a node that refuses all")
    posts.append(KEY, "to a node that is dead")
    await asyncio.sleep(0.3)
    assert posts.answers == {}
    assert await outcome(client, KEY) != b"x"
    primary.start()
    await eventually(lambda: client.up, FAILOVER_S_MAX)
    assert await client.drain(20)
    assert posts.answers == dict.fromkeys(posts.made, 1)
    assert client.run_id_for(KEY) == run_id(primary)
    assert await client.call(ECHO, [elsewhere], ["x"]) == b"x"
    assert posts.lost == []
