"""What becomes of a node's word: played nodes say what real ones say only at the worst moments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.store.redis import ClusterClient, RedisUnavailable, connect
from tests.contract.redis.harness import ECHO, PlayedServer, Posts, eventually
from tests.fakes.valkey import SLOTS, key_in


class PlayedNode(PlayedServer):
    """A primary. ``slots`` is the map that it tells, as (first, last, port); scripts are answered in turn."""

    def __init__(self) -> None:
        super().__init__(self._say)
        self.state = "ok"
        self.slots: list[tuple[int, int, int]] = []
        self.scripts: list[Any] = []
        self.said: list[str] = []

    def _say(self, words: list[str]) -> Any:
        self.said.append(words[0])
        match words:
            case ["ROLE"]:
                return ["master", 0, []]
            case ["INFO", *_]:
                return f"# Server\r\nrun_id:run-of-{self.port}\r\n"
            case ["CLUSTER", "INFO"]:
                return f"cluster_state:{self.state}\r\n"
            case ["CLUSTER", "SLOTS"]:
                return [[first, last, ["127.0.0.1", port, "id"]] for first, last, port in self.slots]
            case ["EVALSHA", *_]:
                return self.scripts.pop(0) if self.scripts else f"by {self.port}"
        return "OK"


LOW, HIGH = key_in(0), key_in(SLOTS - 1)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[PlayedNode, PlayedNode]]:
    """Two nodes that share the slots evenly, and say so."""
    low, high = PlayedNode(), PlayedNode()
    await low.start()
    await high.start()
    low.slots = high.slots = [(0, SLOTS // 2 - 1, low.port), (SLOTS // 2, SLOTS - 1, high.port)]
    yield low, high
    await low.stop()
    await high.stop()


@pytest.fixture
async def client(pair: tuple[PlayedNode, PlayedNode]) -> AsyncIterator[ClusterClient]:
    client = connect(f"redis+cluster://127.0.0.1:{pair[0].port}")
    assert isinstance(client, ClusterClient)
    await client.start()
    yield client
    await client.close(drain_s=0.1)


async def look(client: ClusterClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the client ask for the map once more, from the beginning to the end."""
    looked = asyncio.Event()
    real = client._nodes._look

    async def counted() -> None:
        await real()
        looked.set()

    with monkeypatch.context() as patch:
        patch.setattr(client._nodes, "_look", counted)
        client._nodes.want_map()
        async with asyncio.timeout(30):
            await looked.wait()


async def test_a_node_that_takes_itself_for_cut_off_is_believed_only_alone(
    client: ClusterClient, pair: tuple[PlayedNode, PlayedNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    low, high = pair
    low.state = "fail"
    low.slots = [(0, SLOTS - 1, low.port)]
    for _ in range(3):
        await look(client, monkeypatch)
        assert client.up
        assert client.run_id_for(HIGH) == f"run-of-{high.port}"
    high.state = "fail"
    await look(client, monkeypatch)
    assert not client.up
    assert "cluster_state" in repr(client)
    low.state = high.state = "ok"
    low.slots = high.slots
    await eventually(lambda: client.up)


async def test_a_cluster_with_a_gap_is_down(
    client: ClusterClient, pair: tuple[PlayedNode, PlayedNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    low, high = pair
    low.slots = high.slots = [(0, 99, low.port), (101, SLOTS - 1, high.port)]
    await look(client, monkeypatch)
    assert not client.up
    assert "some slots" in repr(client)
    posts = Posts(client)
    posts.append(key_in(100), "homeless")
    with pytest.raises(RedisUnavailable) as caught:
        client.call(ECHO, [key_in(100)], ["x"])
    assert not caught.value.sent
    assert await client.call(ECHO, [LOW], ["x"]) == f"by {low.port}".encode()
    low.slots = high.slots = [(0, 99, low.port), (100, SLOTS - 1, high.port)]
    assert await client.drain(20)
    assert posts.answers == {"homeless": f"by {high.port}".encode()}


async def test_a_node_that_says_that_all_is_down_is_believed_until_it_is_asked(
    client: ClusterClient, pair: tuple[PlayedNode, PlayedNode]
) -> None:
    low, _ = pair
    low.scripts = [ValueError("CLUSTERDOWN The cluster is down"), ValueError("CLUSTERDOWN The cluster is down")]
    told: list[Any] = []
    client.post(ECHO, [LOW], ["x"], told.append)
    with pytest.raises(RedisUnavailable, match="CLUSTERDOWN") as caught:
        await client.call(ECHO, [LOW], ["x"])
    assert not caught.value.sent
    assert not client.up
    assert told == []
    await eventually(lambda: client.up)
    assert await client.drain(20)
    assert told == [f"by {low.port}".encode()]


async def test_a_script_is_loaded_on_every_node_that_a_call_comes_to(
    client: ClusterClient, pair: tuple[PlayedNode, PlayedNode]
) -> None:
    """Each may have forgotten it, and each is told it once more."""
    low, high = pair
    low.scripts = [ValueError("NOSCRIPT"), ValueError(f"MOVED 0 127.0.0.1:{high.port}")]
    high.scripts = [ValueError("NOSCRIPT"), "done"]
    assert await client.call(ECHO, [LOW], ["x"]) == b"done"
    assert low.said.count("SCRIPT") == 2
    assert high.said.count("SCRIPT") == 2


async def test_asking_goes_right_before_its_call(client: ClusterClient, pair: tuple[PlayedNode, PlayedNode]) -> None:
    low, high = pair
    low.scripts = [ValueError(f"ASK 0 127.0.0.1:{high.port}")] * 2
    high.said.clear()
    first, second = client.call(ECHO, [LOW], ["x"]), client.call(ECHO, [HIGH], ["x"])
    third = client.call(ECHO, [LOW], ["x"])
    assert await asyncio.gather(first, second, third) == [f"by {high.port}".encode()] * 3
    assert [word for word in high.said if word in {"SCRIPT", "ASKING", "EVALSHA"}] == [
        *("SCRIPT", "EVALSHA"),
        *("ASKING", "EVALSHA") * 2,
    ]
    assert client.run_id_for(LOW) == f"run-of-{low.port}"


@pytest.mark.parametrize("text", ["MOVED", "MOVED 99999 127.0.0.1:1", "MOVED 0 nowhere", "ASK 0"])
async def test_a_redirection_that_is_none_is_no_answer(
    client: ClusterClient, pair: tuple[PlayedNode, PlayedNode], text: str
) -> None:
    pair[0].scripts = [ValueError(text + " ")]
    with pytest.raises(RedisUnavailable) as caught:
        await client.call(ECHO, [LOW], ["x"])
    assert not caught.value.sent
    assert client.up


async def test_a_redirection_to_a_node_that_is_not_there_ends_in_time(
    client: ClusterClient, pair: tuple[PlayedNode, PlayedNode]
) -> None:
    """Well, where the next look at the map leads elsewhere in time."""
    low, high = pair
    patient = connect(f"redis+cluster://127.0.0.1:{low.port}", timeout_s=20)
    await patient.start()
    low.scripts = [ValueError("MOVED 0 127.0.0.1:1")]
    assert await patient.call(ECHO, [LOW], ["x"]) == f"by {low.port}".encode()
    await patient.close()
    low.slots = high.slots = [(0, 0, 1), (1, SLOTS - 2, low.port), (SLOTS - 1, SLOTS - 1, high.port)]
    low.scripts = [ValueError("MOVED 0 127.0.0.1:1")]
    async with asyncio.timeout(10):
        with pytest.raises(RedisUnavailable, match="300 ms"):
            await client.call(ECHO, [LOW], ["x"])
    await eventually(lambda: not client.up)
    assert "127.0.0.1:1: " in repr(client)


async def test_the_map_goes_where_the_cluster_goes(
    client: ClusterClient, pair: tuple[PlayedNode, PlayedNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that leaves is left, and its connection closed; a new one is met."""
    low, high = pair
    low.slots = high.slots = [(0, SLOTS - 1, low.port)]
    await look(client, monkeypatch)
    assert await client.call(ECHO, [HIGH], ["x"]) == f"by {low.port}".encode()
    assert len(list(client._nodes.links)) == 1
    low.slots = high.slots = [(0, SLOTS - 1, high.port)]
    await look(client, monkeypatch)
    await eventually(lambda: client.up)
    assert client.run_id_for(LOW) == f"run-of-{high.port}"
