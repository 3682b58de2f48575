"""Fixtures of several servers. A conftest takes those it needs: ``from tests.fakes.valkey_fixtures import …``.

Each starts within a few seconds, once a module, and is as at the start before each test: that is what the
fixtures ``cluster``, ``replicated_cluster`` and ``sentinels`` see to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.valkey import DEBIAN_REDIS_SERVER, ValkeyCluster, ValkeySentinel


@pytest.fixture(scope="module", params=["valkey", "redis-server"])
def own_cluster(request: pytest.FixtureRequest) -> Iterator[ValkeyCluster]:
    if request.param == "redis-server" and not Path(DEBIAN_REDIS_SERVER).exists():
        pytest.skip(f"no {DEBIAN_REDIS_SERVER} here")
    with ValkeyCluster(DEBIAN_REDIS_SERVER if request.param == "redis-server" else None) as cluster:
        yield cluster


@pytest.fixture
def cluster(own_cluster: ValkeyCluster) -> Iterator[ValkeyCluster]:
    """Three primaries without replicas, empty; none is given up within five seconds."""
    own_cluster.flush()
    yield own_cluster
    own_cluster.restore()


@pytest.fixture(scope="module")
def own_replicated_cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster(replicas=1, node_timeout_ms=1000) as cluster:
        yield cluster


@pytest.fixture
def replicated_cluster(own_replicated_cluster: ValkeyCluster) -> Iterator[ValkeyCluster]:
    """Three primaries, each with a replica that takes its place about two seconds after its death."""
    own_replicated_cluster.flush()
    yield own_replicated_cluster
    own_replicated_cluster.restore()


@pytest.fixture(scope="module")
def own_sentinels() -> Iterator[ValkeySentinel]:
    with ValkeySentinel() as sentinels:
        yield sentinels


@pytest.fixture
def sentinels(own_sentinels: ValkeySentinel) -> Iterator[ValkeySentinel]:
    """A master and its replica, empty, and three sentinels; a failover takes about two seconds."""
    own_sentinels.primary.execute("FLUSHALL")
    yield own_sentinels
    own_sentinels.restore()
