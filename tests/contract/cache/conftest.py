"""One suite for both stores: memory, Lua on Valkey, and Lua on Debian's Redis where it is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.cache.memory import MemoryStore
from app.cache.redis import RedisStore
from app.store.redis import RedisClient
from tests.contract.cache.harness import SECRET, Driver, TestClock, connected
from tests.fakes import valkey
from tests.fakes.valkey import ValkeyServer
from tests.fakes.valkey_fixtures import cluster, own_cluster

__all__ = ["cluster", "own_cluster"]

REDIS = ("valkey", "redis-server")
BYTES_MAX = 10_000_000


class Servers:
    """Servers that are started when a test first asks for them."""

    def __init__(self) -> None:
        self._started: dict[str, ValkeyServer] = {}

    def get(self, name: str) -> ValkeyServer:
        """An empty one."""
        if name not in self._started:
            binary = valkey.DEBIAN_REDIS_SERVER if name == "redis-server" else None
            if binary is not None and not Path(binary).exists():
                pytest.skip(f"no {binary} here")
            self._started[name] = ValkeyServer(binary).start()
        self._started[name].flush()
        return self._started[name]

    def close(self) -> None:
        for server in self._started.values():
            server.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture(params=REDIS)
def shared_server(request: pytest.FixtureRequest, servers: Servers) -> ValkeyServer:
    """A server for tests that only write to it, or put back what they set."""
    return servers.get(request.param)


@pytest.fixture(scope="module")
def own_server() -> Iterator[ValkeyServer]:
    """A server that a test may kill and freeze; see ``server``."""
    with ValkeyServer() as server:
        if not server.owned:
            pytest.skip("an external server is not killed or frozen")
        yield server


@pytest.fixture
def server(own_server: ValkeyServer) -> Iterator[ValkeyServer]:
    """An empty server that runs, and does so again afterwards."""
    own_server.flush()
    yield own_server
    own_server.restore()


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
async def client(shared_server: ValkeyServer) -> AsyncIterator[RedisClient]:
    """Of ``shared_server``."""
    client = RedisClient(shared_server.url)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def store(client: RedisClient, clock: TestClock) -> AsyncIterator[RedisStore]:
    """On ``shared_server``."""
    store = RedisStore(client, clock, SECRET)
    yield store
    await store.close()


@pytest.fixture(params=["memory", *REDIS])
async def driver(request: pytest.FixtureRequest, servers: Servers, clock: TestClock) -> AsyncIterator[Driver]:
    if request.param == "memory":
        yield Driver(MemoryStore(clock, BYTES_MAX), clock)
        return
    server = servers.get(request.param)
    store, client = await connected(server, clock)
    yield Driver(store, clock, server)
    await store.close()
    assert store.corrupt == store.lost == client.posts_dropped == 0
    await client.close()
