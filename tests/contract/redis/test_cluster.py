"""A cluster whose slots move and whose nodes hang: each call goes where its key is, or fails in time."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from app.store.redis import ClusterClient, RedisError, RedisReplyError, RedisUnavailable, connect
from app.store.redis import cluster as cluster_client
from tests.contract.redis.harness import (
    APPEND,
    ECHO,
    FAIL,
    TWO_KEYS,
    Posts,
    States,
    certificate,
    eventually,
    needs_tls,
    outcome,
    run_id,
)
from tests.fakes.valkey import DEBIAN_REDIS_SERVER, ValkeyCluster, ValkeyServer, free_ports, key_slot


@pytest.fixture
def states() -> States:
    return States()


@pytest.fixture
async def client(cluster: ValkeyCluster, states: States) -> AsyncIterator[ClusterClient]:
    client = connect(cluster.url, on_state=states)
    assert isinstance(client, ClusterClient)
    await client.start()
    yield client
    for node in cluster.nodes:
        node.resume()
    await client.close()


def keys_by_owner(cluster: ValkeyCluster) -> dict[int, str]:
    """A key for each node, by the node's port."""
    keys: dict[int, str] = {}
    for number in range(100):
        key = f"hg:{{team{number}}}:list"
        keys.setdefault(cluster.owner(key).port, key)
    assert len(keys) == 3
    return keys


def maps_told(cluster: ValkeyCluster) -> int:
    """How often all nodes together were asked for the map since their statistics were reset."""
    stats = "".join(node.execute("INFO", "commandstats").decode() for node in cluster.nodes)
    return sum(int(calls) for calls in re.findall(r"cmdstat_cluster\|slots:calls=(\d+)", stats))


async def test_each_call_goes_to_the_node_of_its_key(
    client: ClusterClient, cluster: ValkeyCluster, states: States
) -> None:
    for node in cluster.nodes:
        node.execute("CONFIG", "RESETSTAT")
    keys = [f"hg:{{team{number}}}:list" for number in range(60)]
    assert await asyncio.gather(*(client.call(APPEND, [key], ["x"]) for key in keys)) == [1] * 60
    posts = Posts(client)
    for key in keys:
        posts.append(key, f"post {key}")
    assert await client.drain(20)
    assert set(posts.answers.values()) == {2}
    for node in cluster.nodes:
        assert "MOVED" not in node.execute("INFO", "errorstats").decode()
    for key in keys:
        node = cluster.owner(key)
        assert client.run_id_for(key) == run_id(node)
        assert await client.command(key, "LRANGE", key, 0, -1) == [b"x", f"post {key}".encode()]
    assert Counter(cluster.owner(key).port for key in keys).keys() == {node.port for node in cluster.nodes}
    assert states.ups == [True]
    assert "nodes 3, in flight 0, posts kept 0, posts dropped 0" in repr(client)


async def test_slots_are_computed_as_the_server_does(client: ClusterClient, cluster: ValkeyCluster) -> None:
    for key in ("plain", "{tag}rest", "a{}b{c}", "}{", "{{x}}", "ünï{cödé}", "", "{a}{b}"):
        assert cluster.nodes[0].execute("CLUSTER", "KEYSLOT", key) == key_slot(key)
        assert await client.call(ECHO, [key], ["x"]) == b"x"


async def test_keys_of_several_tags_are_refused(client: ClusterClient) -> None:
    for keys in (["{a}", "{b}"], []):
        with pytest.raises(ValueError, match="in a cluster"):
            client.call(TWO_KEYS, keys, ["x"])
        with pytest.raises(ValueError, match="in a cluster"):
            client.post(TWO_KEYS, keys, ["x"])
    assert client.posts_dropped == 0


async def test_a_refused_script_is_its_callers_error(client: ClusterClient) -> None:
    await client.command("text", "SET", "text", "no number")
    with pytest.raises(RedisReplyError, match="not an integer"):
        await client.call(FAIL, ["text"], [])
    posts = Posts(client)
    posts.append("text", "bad", FAIL)
    assert await client.drain(20)
    assert posts.lost == ["bad"]
    assert client.up


async def test_a_moved_slot_is_followed_at_once_and_remembered(client: ClusterClient, cluster: ValkeyCluster) -> None:
    key = "{moving}:list"
    source = cluster.owner(key)
    target = cluster.other(source)
    await client.call(APPEND, [key], ["before"])
    before = client.run_id_for(key)
    cluster.move(key_slot(key), target)
    posts = Posts(client)
    posts.append(key, "post")
    assert await client.call(APPEND, [key], ["after"]) == 3
    assert posts.answers == {"post": 2}
    assert before == run_id(source)
    assert client.run_id_for(key) == run_id(target)
    source.execute("CONFIG", "RESETSTAT")
    await asyncio.sleep(0.5)  # the map has been asked for again
    assert await client.call(APPEND, [key], ["again"]) == 4
    assert "MOVED" not in source.execute("INFO", "errorstats").decode()
    assert client.run_id_for(key) == run_id(target)
    assert client.up
    cluster.move(key_slot(key), source)
    assert await client.call(APPEND, [key], ["back"]) == 5


async def test_the_node_that_knows_of_a_move_is_asked_for_the_map(
    client: ClusterClient, cluster: ValkeyCluster
) -> None:
    """Others may go on for long with what they have last heard."""
    new, other, old = cluster.nodes
    key = next(f"{{late{n}}}" for n in range(50) if cluster.owner(f"{{late{n}}}") is old)
    for node in (new, old):
        node.execute("CLUSTER", "SETSLOT", key_slot(key), "NODE", cluster.node_id(new))
    assert await client.call(ECHO, [key], ["x"]) == b"x"
    old.execute("CONFIG", "RESETSTAT")
    for _ in range(5):
        # However soon it hears of it.
        other.execute("CLUSTER", "SETSLOT", key_slot(key), "NODE", cluster.node_id(old))
        client._nodes.want_map()
        await asyncio.sleep(0.22)
        assert client.run_id_for(key) == run_id(new)
        assert await client.call(ECHO, [key], ["x"]) == b"x"
    assert "MOVED" not in old.execute("INFO", "errorstats").decode()
    new.execute("CLUSTER", "BUMPEPOCH")  # whom the others believe then, of two who claim a slot
    cluster.wait_until_ok()
    cluster.move(key_slot(key), old)
    for node in (other, old):
        node.execute("CLUSTER", "BUMPEPOCH")
    cluster.wait_until_ok()


async def test_while_a_slot_moves_its_keys_are_found_on_either_side(
    client: ClusterClient, cluster: ValkeyCluster
) -> None:
    tag, slot = "{half}", key_slot("{half}")
    source = cluster.owner(tag)
    target = cluster.other(source)
    await client.call(APPEND, [f"{tag}:old"], ["1"])
    cluster.begin_move(slot, source, target)
    try:
        assert await client.call(APPEND, [f"{tag}:old"], ["2"]) == 2
        assert await client.call(APPEND, [f"{tag}:new"], ["1"]) == 1
        assert await client.command(f"{tag}:new", "RPUSH", f"{tag}:new", "2") == 2
        posts = Posts(client)
        posts.append(f"{tag}:new", "3")
        posts.append(f"{tag}:old", "3")
        assert await client.drain(20)
        assert posts.answers == {"3": 3}
        assert source.execute("EXISTS", f"{tag}:old") == 1
        # A script that the other node has never seen, over the same connection.
        assert await client.call(ECHO, [f"{tag}:none"], ["x"]) == b"x"
        assert run_id(source) == client.run_id_for(tag)
    finally:
        cluster.move_keys(slot, source, target)
        cluster.end_move(slot, source, target)
    assert await client.call(APPEND, [f"{tag}:new"], ["4"]) == 4
    assert target.execute("LLEN", f"{tag}:old") == 3
    cluster.move(slot, source)


async def test_keys_on_both_sides_at_once_wait_for_the_move_to_end(
    client: ClusterClient, cluster: ValkeyCluster
) -> None:
    tag, slot = "{both}", key_slot("{both}")
    keys = [f"{tag}:a", f"{tag}:b"]
    source = cluster.owner(tag)
    target = cluster.other(source)
    await client.command(keys[0], "SET", keys[0], "old")
    cluster.begin_move(slot, source, target)
    try:
        began = time.monotonic()
        with pytest.raises(RedisUnavailable):
            await client.call(TWO_KEYS, keys, ["new"])
        assert time.monotonic() - began < 5
        assert client.up
        told: list[object] = []
        client.post(TWO_KEYS, keys, ["post"], told.append)
        patient = connect(cluster.url, timeout_s=30)
        await patient.start()
        call = patient.call(TWO_KEYS, keys, ["in time"])
        await asyncio.sleep(0.1)
        assert not call.done()
    finally:
        cluster.move_keys(slot, source, target)
        cluster.end_move(slot, source, target)
    assert await call == b"in time"
    await patient.close()
    assert await client.drain(20)
    assert told == [b"post"]
    cluster.move(slot, source)


async def test_nodes_that_send_a_call_to_each_other_for_ever_are_not_believed(
    client: ClusterClient, cluster: ValkeyCluster
) -> None:
    key = "{pingpong}"
    slot = key_slot(key)
    source = cluster.owner(key)
    target = cluster.other(source)
    source.execute("CLUSTER", "SETSLOT", slot, "NODE", cluster.node_id(target))
    posts = Posts(client)
    try:
        with pytest.raises(RedisUnavailable, match="redirected more than 3 times") as caught:
            await client.call(ECHO, [key], ["x"])
        assert not caught.value.sent
        for node in cluster.nodes:
            node.execute("CONFIG", "RESETSTAT")
        began = time.monotonic()
        posts.append(key, "kept")
        await asyncio.sleep(0.5)
        assert posts.answers == {}
        await eventually(lambda: maps_told(cluster) > 0)
        # Though the map is wanted all the time, it is asked for five times a second at most.
        assert 1 <= maps_told(cluster) <= (time.monotonic() - began) / 0.2 + 1
    finally:
        target.execute("CLUSTER", "SETSLOT", slot, "NODE", cluster.node_id(target))
    assert await client.drain(20)
    assert posts.answers == {"kept": 1}
    await eventually(lambda: client.up)
    assert await client.call(ECHO, [key], ["x"]) == b"x"
    cluster.restore()
    cluster.move(slot, source)


async def test_a_frozen_node_fails_its_own_calls_in_time_and_nobody_elses(
    client: ClusterClient, cluster: ValkeyCluster, states: States
) -> None:
    keys = keys_by_owner(cluster)
    frozen = cluster.nodes[1]
    frozen.freeze()
    began = time.monotonic()
    while time.monotonic() - began < 0.8:
        outcomes = dict(zip(keys, await asyncio.gather(*(outcome(client, key) for key in keys.values())), strict=True))
        assert isinstance(outcomes.pop(frozen.port), RedisUnavailable)
        assert list(outcomes.values()) == [b"x", b"x"]
        await asyncio.sleep(0.01)
    assert not client.up
    assert client.run_id_for(keys[frozen.port]) is None
    assert client.run_id_for(keys[cluster.nodes[0].port]) is not None
    posts = Posts(client)
    for key in keys.values():
        posts.append(key, f"post {key}")
    frozen.resume()
    await eventually(lambda: client.up)
    assert await client.drain(20)
    assert posts.all_told
    assert posts.lost == []
    assert states.ups == [True, False, True]
    assert frozen.place in states.seen[1][1]


async def test_scripts_that_were_flushed_are_loaded_again_on_each_node(
    client: ClusterClient, cluster: ValkeyCluster
) -> None:
    keys = list(keys_by_owner(cluster).values())
    for _ in range(3):
        assert await asyncio.gather(*(client.call(ECHO, [key], [n]) for n in range(50) for key in keys)) == [
            str(n).encode() for n in range(50) for _ in keys
        ]
        for node in cluster.nodes:
            node.execute("SCRIPT", "FLUSH")


async def test_many_callers_while_slots_move_lose_nothing(client: ClusterClient, cluster: ValkeyCluster) -> None:
    """Every call is executed once or fails; every post is executed; the counts in the cluster agree."""
    tags = [f"{{load{number}}}" for number in range(6)]
    homes = {tag: cluster.owner(tag) for tag in tags}
    done: Counter[str] = Counter()
    posts = Posts(client)
    stop = asyncio.Event()

    async def caller(tag: str) -> None:
        while not stop.is_set():
            try:
                await client.call(APPEND, [f"{tag}:calls"], ["x"])
            except RedisError as error:
                done[f"{tag} failed {type(error).__name__}"] += 1
            else:
                done[tag] += 1
            posts.append(f"{tag}:posts", f"{tag} {done[tag]} {len(posts.made)}")
            await asyncio.sleep(0.002)

    running = [asyncio.create_task(caller(tag)) for tag in tags for _ in range(3)]
    for tag in tags:
        await asyncio.to_thread(cluster.move, key_slot(tag), cluster.other(homes[tag]))
        await asyncio.sleep(0.05)
    stop.set()
    await asyncio.gather(*running)
    assert await client.drain(20)
    assert not [name for name in done if "failed" in name], done
    for tag in tags:
        assert await client.command(tag, "LLEN", f"{tag}:calls") == done[tag] > 10
        assert await client.command(tag, "LLEN", f"{tag}:posts") == sum(name.startswith(tag) for name in posts.made)
        cluster.move(key_slot(tag), homes[tag])
    assert posts.all_told
    assert posts.lost == []


async def test_a_password_goes_to_every_node(cluster: ValkeyCluster) -> None:
    keys = list(keys_by_owner(cluster).values())
    for node in cluster.nodes:
        node.execute("CONFIG", "SET", "requirepass", "s3cret/w")
        node.password = "s3cret/w"
    try:
        client = connect(cluster.url.replace("://", "://:s3cret%2Fw@"))
        await client.start()
        assert [await client.call(ECHO, [key], ["x"]) for key in keys] == [b"x"] * 3
        assert "s3cret" not in repr(client)
        await client.close()
        for url, reason in (
            (cluster.url, "NOAUTH"),
            (cluster.url.replace("://", "://:wr0ng@"), "WRONGPASS"),
        ):
            states = States()
            refused = connect(url, on_state=states)
            await refused.start()
            assert states.ups == [False]
            assert reason in repr(refused)
            assert reason in states.seen[0][1]
            assert "wr0ng" not in repr(refused) + repr(states.seen)
            await refused.close()
    finally:
        for node in cluster.nodes:
            node.execute("CONFIG", "SET", "requirepass", "")
            node.password = None


async def test_tls_and_a_node_that_does_not_know_its_own_name(tmp_path: Path) -> None:
    """A lone node has no address to tell: it is where it was reached, under the name of the certificate."""
    needs_tls()
    key, chain = certificate(tmp_path)
    port, bus_port = free_ports(2)
    options = ["--tls-port", str(port), "--tls-cert-file", chain, "--tls-key-file", key, "--tls-auth-clients", "no"]
    options += ["--tls-ca-cert-file", chain, "--tls-cluster", "yes"]
    options += ["--cluster-enabled", "yes", "--cluster-port", str(bus_port)]
    with ValkeyServer(DEBIAN_REDIS_SERVER, *options) as node:
        node.execute("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        client = connect(f"rediss+cluster://localhost:{port}?ssl_ca_certs={chain}")
        await client.start()
        await eventually(lambda: client.up)
        assert node.execute("CLUSTER", "SLOTS")[0][2][0] == b""
        assert await client.call(ECHO, ["key"], ["x"]) == b"x"
        await client.close()
        doubting = connect(f"rediss+cluster://localhost:{port}")
        await doubting.start()
        assert "certificate" in repr(doubting)
        await doubting.close()


async def test_a_user_needs_no_more_than_the_operations_manual_says(cluster: ValkeyCluster) -> None:
    rights = "~hg:* -@all +asking +auth +client +cluster +evalsha +info +ping +role +script +rpush +llen"
    for node in cluster.nodes:
        node.execute("ACL", "SETUSER", "narrow", "on", ">pw", *rights.split())
    client = connect(cluster.url.replace("://", "://narrow:pw@"))
    await client.start()
    assert client.up
    key = "hg:{narrow}:list"
    source = cluster.owner(key)
    target = cluster.other(source)
    cluster.begin_move(key_slot(key), source, target)
    assert await client.call(APPEND, [key], ["x"]) == 1
    assert target.execute("CLUSTER", "COUNTKEYSINSLOT", key_slot(key)) == 1
    cluster.move_keys(key_slot(key), source, target)
    cluster.end_move(key_slot(key), source, target)
    assert await client.call(APPEND, [key], ["x"]) == 2
    await client.close()
    cluster.move(key_slot(key), source)
    for node in cluster.nodes:
        node.execute("ACL", "DELUSER", "narrow")


async def test_any_node_of_the_url_will_do(cluster: ValkeyCluster) -> None:
    client = connect(f"redis+cluster://127.0.0.1:1,{cluster.nodes[2].place},127.0.0.1:2")
    await client.start()
    assert client.up, client
    assert await client.call(ECHO, ["key"], ["x"]) == b"x"
    await client.close()


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    states = States()
    client = connect("redis+cluster://127.0.0.1:1,127.0.0.1:2", on_state=states)
    posts = Posts(client)
    posts.append("key", "early")
    with pytest.raises(RedisUnavailable, match="not started"):
        client.call(ECHO, ["key"], ["x"])
    await client.start()
    assert states.ups == [False]
    assert "127.0.0.1:1" in states.seen[0][1]
    assert "posts kept 1" in repr(client)
    with pytest.raises(RedisUnavailable) as caught:
        client.call(ECHO, ["key"], ["x"])
    assert not caught.value.sent
    monkeypatch.setattr(cluster_client, "POST_AGE_S_MAX", 0.0)
    await eventually(lambda: posts.lost == ["early"])  # whoever waits for word of it does not wait for a node
    monkeypatch.setattr(cluster_client, "POSTS_MAX", 2)
    monkeypatch.setattr(cluster_client, "POST_AGE_S_MAX", 60.0)
    for n in range(3):
        posts.append("key", f"p{n}")
    assert posts.lost == ["early", "p0"]
    await client.close(drain_s=0.05)
    assert posts.lost == ["early", "p0", "p1", "p2"]
    assert client.posts_dropped == 4
    await client.close()


async def test_a_server_that_is_no_cluster_says_so() -> None:
    with ValkeyServer(port=free_ports(1)[0]) as plain:
        client = connect(f"redis+cluster://{plain.place}")
        await client.start()
        assert not client.up
        assert "cluster support disabled" in repr(client)
        await client.close()


async def test_a_close_at_any_moment_ends_everything(cluster: ValkeyCluster) -> None:
    for turns in range(0, 60, 3):
        client = connect(cluster.url)
        starting = asyncio.create_task(client.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await client.close()
        starting.cancel()
        await asyncio.wait((starting,))
        assert len(asyncio.all_tasks()) == 1


async def test_after_close_nothing_is_taken(cluster: ValkeyCluster) -> None:
    client = connect(cluster.url)
    await client.start()
    cluster.owner("key").freeze()
    waiting = client.call(ECHO, ["key"], ["x"])
    await client.close()
    cluster.restore()
    with pytest.raises(RedisUnavailable, match="closed"):
        await waiting
    with pytest.raises(RedisUnavailable, match="closed"):
        client.call(ECHO, ["key"], ["x"])
    posts = Posts(client)
    posts.append("key", "late")
    assert posts.lost == ["late"]
    assert client.run_id_for("key") is None
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


def test_the_same_on_uvloop(own_cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        client = connect(own_cluster.url)
        await client.start()
        keys = [f"{{uv{number}}}" for number in range(50)]
        assert await asyncio.gather(*(client.call(ECHO, [key], [key]) for key in keys)) == [
            key.encode() for key in keys
        ]
        slot, source = key_slot(keys[0]), own_cluster.owner(keys[0])
        own_cluster.move(slot, own_cluster.other(source))
        assert await client.call(ECHO, [keys[0]], ["x"]) == b"x"
        own_cluster.move(slot, source)
        own_cluster.nodes[0].freeze()
        outcomes = await asyncio.gather(*(outcome(client, key) for key in keys))
        own_cluster.nodes[0].resume()
        assert {type(one) for one in outcomes} == {bytes, RedisUnavailable}
        await eventually(lambda: client.up)
        await client.close()

    uvloop.run(scenario())
