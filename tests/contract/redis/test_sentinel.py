"""A master that sentinels name: found, proved, lost and found again elsewhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from app.store.redis import Redis, RedisError, RedisUnavailable, connect
from tests.contract.redis.harness import APPEND, ECHO, Posts, States, eventually, run_id
from tests.fakes.valkey import DEBIAN_REDIS_SERVER, ValkeySentinel

KEY = "{team}:list"
FAILOVER_S_MAX = 20.0


@pytest.fixture
def states() -> States:
    return States()


@pytest.fixture
async def client(sentinels: ValkeySentinel, states: States) -> AsyncIterator[Redis]:
    client = connect(sentinels.url, on_state=states)
    await client.start()
    assert client.up, client
    yield client
    await client.close()


async def test_a_dead_masters_replica_gets_what_was_posted_meanwhile(
    client: Redis, sentinels: ValkeySentinel, states: States
) -> None:
    primary, replica = sentinels.primary, sentinels.replica
    assert await client.call(APPEND, [KEY], ["before"]) == 1
    await eventually(lambda: replica.execute("DBSIZE") == 1)
    first_run = client.run_id_for(KEY)
    assert first_run == run_id(primary)
    posts = Posts(client)
    primary.freeze()
    for n in range(3):
        posts.append(KEY, f"in flight {n}")
    await asyncio.sleep(0.05)
    primary.kill()
    await eventually(lambda: not client.up)
    with pytest.raises(RedisUnavailable):
        client.call(ECHO, [KEY], ["x"])
    for n in range(3):
        posts.append(KEY, f"kept {n}")
    await eventually(lambda: client.up, FAILOVER_S_MAX)
    assert await client.drain(20)
    assert await client.command(KEY, "LRANGE", KEY, 0, -1) == [b"before", *(name.encode() for name in posts.made)]
    assert list(posts.answers) == posts.made
    assert posts.lost == []
    assert client.run_id_for(KEY) == run_id(replica) != first_run
    assert states.ups == [True, False, True]
    assert replica.place in states.seen[-1][1]


async def test_sentinels_that_the_url_does_not_name_are_learnt(sentinels: ValkeySentinel, states: States) -> None:
    """The only one of the URL dies, and then the master: those it told of know the new one."""
    known = sentinels.sentinels[0]
    client = connect(sentinels.url_of([known]), on_state=states)
    await client.start()
    assert client.up, client
    primary, replica = sentinels.primary, sentinels.replica
    known.kill()
    primary.kill()
    await eventually(lambda: not client.up)
    await eventually(lambda: client.up, FAILOVER_S_MAX)
    assert client.run_id_for(KEY) == run_id(replica)
    assert await client.call(ECHO, [KEY], ["x"]) == b"x"
    await client.close()


async def test_an_ordered_handover_is_noticed_while_the_old_master_still_takes_writes(
    client: Redis, sentinels: ValkeySentinel
) -> None:
    """No connection is lost and nobody says READONLY: only the sentinels know that those writes will be gone."""
    old, new = sentinels.primary, sentinels.replica
    counts: Counter[str] = Counter()
    stop = asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            run = client.run_id_for(KEY)
            try:
                await client.call(APPEND, [KEY], ["x"])
            except RedisError:
                counts["failed"] += 1
            else:
                counts[f"done by {run}"] += 1
            await asyncio.sleep(0.002)

    running = [asyncio.create_task(caller()) for _ in range(5)]
    posts = Posts(client)
    new_run = run_id(new)
    await asyncio.sleep(0.1)
    await asyncio.to_thread(sentinels.sentinels[0].execute, "SENTINEL", "FAILOVER", sentinels.master)
    while client.run_id_for(KEY) != new_run:
        posts.append("{team}:posts", f"p{len(posts.made)}")
        await asyncio.sleep(0.01)
    assert old.execute("ROLE")[0] == b"master"
    await asyncio.sleep(0.2)
    stop.set()
    await asyncio.gather(*running)
    assert await client.drain(20)
    assert posts.all_told
    assert posts.lost == []
    assert counts[f"done by {run_id(old)}"] > 20
    assert counts[f"done by {new_run}"] > 20


async def test_a_sentinel_that_names_a_replica_is_passed_over(sentinels: ValkeySentinel) -> None:
    """ROLE decides; and the next sentinel is asked the next time."""
    primary, replica = sentinels.primary, sentinels.replica
    wrong, *right = sentinels.sentinels
    wrong.execute("SENTINEL", "MONITOR", "odd", "127.0.0.1", replica.port, 2)
    for sentinel in right:
        sentinel.execute("SENTINEL", "MONITOR", "odd", "127.0.0.1", primary.port, 2)
    try:
        states = States()
        url = sentinels.url.replace("/gate/", "/odd/")
        client = connect(url, on_state=states)
        await client.start()
        await eventually(lambda: client.up)
        assert "replica" in states.seen[0][1]
        assert states.ups == [False, True]
        assert client.run_id_for(KEY) == run_id(primary)
        await client.close()
    finally:
        for sentinel in sentinels.sentinels:
            sentinel.execute("SENTINEL", "REMOVE", "odd")


async def test_a_server_that_may_not_say_that_it_is_the_master_is_not_used(sentinels: ValkeySentinel) -> None:
    primary = sentinels.primary
    primary.execute("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-role")
    client = connect(sentinels.url.replace("://", "://narrow:pw@"))
    await client.start()
    assert "does not say that it is a master" in repr(client)
    primary.execute("ACL", "SETUSER", "narrow", "+role")
    await eventually(lambda: client.up)
    await client.close()
    primary.execute("ACL", "DELUSER", "narrow")


async def test_a_master_that_nobody_knows(sentinels: ValkeySentinel) -> None:
    for url, reason in (
        (sentinels.url.replace("/gate/", "/other/"), "knows no master other"),
        ("redis+sentinel://127.0.0.1:1,127.0.0.1:2/gate", "127.0.0.1:2"),
        (f"redis+sentinel://{sentinels.primary.place}/gate", "unknown command"),
    ):
        states = States()
        client = connect(url, on_state=states)
        await client.start()
        assert states.ups == [False]
        assert reason in states.seen[0][1]
        with pytest.raises(RedisUnavailable, match="no sentinel names the master"):
            client.call(ECHO, [KEY], ["x"])
        await client.close()


async def test_a_master_that_is_demoted_while_idle_is_noticed(client: Redis, sentinels: ValkeySentinel) -> None:
    """Without a write there is no READONLY to tell: the probe asks for the role."""
    primary = sentinels.primary
    primary.execute("REPLICAOF", "127.0.0.1", "1")
    await eventually(lambda: not client.up)
    assert "replica" in repr(client)
    primary.execute("REPLICAOF", "NO", "ONE")
    await eventually(lambda: client.up)


def test_sentinels_and_servers_with_passwords_of_their_own() -> None:
    """On Debian's server where it is there, and on uvloop."""
    binary = DEBIAN_REDIS_SERVER if Path(DEBIAN_REDIS_SERVER).exists() else None

    async def scenario(group: ValkeySentinel) -> None:
        client = connect(group.url)
        await client.start()
        assert await client.call(ECHO, [KEY], ["x"]) == b"x"
        for secret in ("s3cret", "0ther"):
            assert secret in group.url
            assert secret not in repr(client)
        primary, replica = group.primary, group.replica
        primary.kill()
        await eventually(lambda: not client.up)
        await eventually(lambda: client.up, FAILOVER_S_MAX)
        assert client.run_id_for(KEY) == run_id(replica)
        await client.close()
        for url, reason in (
            (group.url.replace("0ther", "wr0ng"), "WRONGPASS"),
            (group.url.replace("s3cret", "wr0ng"), "WRONGPASS"),
            (group.url.partition("?")[0], "NOAUTH"),
        ):
            refused = connect(url)
            await refused.start()
            assert reason in repr(refused)
            assert "wr0ng" not in repr(refused)
            await refused.close()

    with ValkeySentinel(binary, sentinels=1, password="s3cret", sentinel_password="0ther") as group:
        uvloop.run(scenario(group))
