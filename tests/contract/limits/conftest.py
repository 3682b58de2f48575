"""One suite for every store: memory, Redis on Valkey, and Redis on Debian's server where it is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.limits.memory import MemoryLimiter
from app.limits.redis import RedisLimiter
from app.store.redis import RedisClient
from tests.contract.limits.harness import Driver, TestClock
from tests.fakes.valkey import DEBIAN_REDIS_SERVER, ValkeyServer

LEASE_MS = 24 * 3_600_000
"""In memory a lease lasts until it is settled; here it outlasts every scenario. Leases: test_redis_leases."""


def _server(name: str) -> ValkeyServer:
    if name == "valkey":
        return ValkeyServer()
    if not Path(DEBIAN_REDIS_SERVER).exists():
        pytest.skip(f"no {DEBIAN_REDIS_SERVER} here")
    return ValkeyServer(DEBIAN_REDIS_SERVER)


@pytest.fixture(scope="session", params=["valkey", "redis-server"])
def shared_server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    """A server for tests that only write to it."""
    with _server(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, ValkeyServer]]:
    started: dict[str, ValkeyServer] = {}
    yield started
    for server in started.values():
        server.close()


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


@pytest.fixture(params=["memory", "valkey", "redis-server"])
async def driver(request: pytest.FixtureRequest, servers: dict[str, ValkeyServer]) -> AsyncIterator[Driver]:
    clock = TestClock()
    if request.param == "memory":
        yield Driver(MemoryLimiter(clock), clock)
        return
    if request.param not in servers:
        servers[request.param] = _server(request.param).start()
    server = servers[request.param]
    server.flush()
    client = RedisClient(server.url)
    limiter = RedisLimiter(client, clock=clock, time_from_clock=True, lease_ms=LEASE_MS)
    await client.start()
    await limiter.start()
    yield Driver(limiter, clock, server)
    await limiter.close()
    assert client.posts_dropped == 0
    await client.close()
