"""What a gateway answers while it waits for room on its disk: alive, not ready, and nothing is served."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app.core.errors import LedgerUnavailable, render
from app.core.exchange import Connection
from app.core.ids import new_request_id
from app.edge.health import HEALTH_PATHS, answer_health

Message = MutableMapping[str, Any]


def _failing() -> list[str]:
    return ["disk"]


async def wait_for_room(
    scope: MutableMapping[str, Any],
    _receive: Callable[[], Awaitable[Message]],
    _send: Callable[[Message], Awaitable[None]],
) -> None:
    """The ASGI application."""
    connection: Connection = scope["headgate.connection"]
    path: str = scope["path"]
    if path in HEALTH_PATHS:
        answer_health(connection, path, scope["method"], _failing)
    else:
        connection.respond(*render(LedgerUnavailable(), new_request_id(time.time_ns() // 1_000_000)))
