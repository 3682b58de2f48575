"""Servers for the live feed's channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.live.nodes import Fleet
from tests.fakes.valkey import DEBIAN_REDIS_SERVER, ValkeyServer
from tests.fakes.valkey_fixtures import cluster, own_cluster, own_sentinels, sentinels

__all__ = ["cluster", "own_cluster", "own_sentinels", "sentinels"]


@pytest.fixture(scope="module", params=["valkey", "redis-server"])
def own_server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    binary = DEBIAN_REDIS_SERVER if request.param == "redis-server" else None
    if binary is not None and not Path(binary).exists():
        pytest.skip(f"no {binary} here")
    with ValkeyServer(binary) as server:
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
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    yield fleet
    await fleet.close()
