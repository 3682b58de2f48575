"""One suite for every store: memory, Lua on Valkey, and Lua on Debian's Redis where it is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.limits.memory import MemoryHot
from tests.contract.limits.harness import Driver, TestClock, connected
from tests.fakes.valkey import DEBIAN_REDIS_SERVER, ValkeyServer
from tests.fakes.valkey_fixtures import cluster, own_cluster

__all__ = ["cluster", "own_cluster"]

REDIS = ("valkey", "redis-server")


class Servers:
    """Servers that are started when a test first asks for them."""

    def __init__(self) -> None:
        self._started: dict[str, ValkeyServer] = {}

    def get(self, name: str) -> ValkeyServer:
        """An empty one."""
        if name not in self._started:
            if name == "redis-server" and not Path(DEBIAN_REDIS_SERVER).exists():
                pytest.skip(f"no {DEBIAN_REDIS_SERVER} here")
            binary = DEBIAN_REDIS_SERVER if name == "redis-server" else None
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
    """A server for tests that only write to it."""
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


@pytest.fixture(params=["memory", *REDIS])
async def driver(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Driver]:
    """A store with one team, whose first epoch has begun."""
    clock = TestClock()
    if request.param == "memory":
        driver = Driver(MemoryHot(clock), clock)
        await driver.open()
        yield driver
        return
    driver, client = await connected(servers.get(request.param), clock)
    await driver.open()
    yield driver
    assert client.posts_dropped == 0
    await client.close()
