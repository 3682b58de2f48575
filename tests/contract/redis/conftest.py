"""Servers for the tests of the Redis client, each in the state that a test expects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.valkey import ValkeyServer
from tests.fakes.valkey_fixtures import (
    cluster,
    own_cluster,
    own_replicated_cluster,
    own_sentinels,
    replicated_cluster,
    sentinels,
)

__all__ = ["cluster", "own_cluster", "own_replicated_cluster", "own_sentinels", "replicated_cluster", "sentinels"]


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
