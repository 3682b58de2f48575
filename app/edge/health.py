"""Alive and ready: answered without a dependency, so that they answer when everything else hangs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.core.exchange import Connection

LIVE_PATHS = frozenset({"/healthz", "/livez", "/health/liveliness", "/health/liveness"})
READY_PATHS = frozenset({"/readyz", "/health/readiness"})
HEALTH_PATHS = LIVE_PATHS | READY_PATHS

Readiness = Callable[[], list[str]]
"""The names of what stands in the way of admitting requests; empty when ready."""


def answer_health(connection: Connection, path: str, method: str, readiness: Readiness) -> None:
    """200, or 503 with the names of the parts that fail; never an address or an error text."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if method not in {"GET", "HEAD"}:
        connection.respond(405, [*headers, (b"allow", b"GET, HEAD")], b'{"status":"method_not_allowed"}')
        return
    if path in LIVE_PATHS:
        connection.respond(200, headers, b'{"status":"ok"}')
        return
    failing = readiness()
    body = msgspec.json.encode({"status": "not_ready" if failing else "ready", "failing": failing})
    connection.respond(503 if failing else 200, headers, body)
