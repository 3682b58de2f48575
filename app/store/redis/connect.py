"""The client that a URL asks for."""

from __future__ import annotations

from app.store.redis.address import ClusterAddress, parse_url
from app.store.redis.calls import OnRefused
from app.store.redis.client import TIMEOUT_S, RedisClient
from app.store.redis.cluster import ClusterClient
from app.store.redis.protocol import OnState, Redis


def connect(
    url: str,
    *,
    timeout_s: float = TIMEOUT_S,
    on_state: OnState | None = None,
    on_refused: OnRefused | None = None,
) -> Redis:
    """A client that is not started yet; ValueError, without the URL, if that is none."""
    address = parse_url(url)
    if isinstance(address, ClusterAddress):
        return ClusterClient(address, timeout_s=timeout_s, on_state=on_state, on_refused=on_refused)
    return RedisClient(url, timeout_s=timeout_s, on_state=on_state, on_refused=on_refused)
