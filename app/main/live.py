"""The live feed, shared by way of Redis where there is one: only then are there other processes."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack

from app.core.ids import random_base62
from app.ledger.slots import Slot
from app.settings import ConfigurationError, Environment
from app.store.database import Database
from app.store.live import RedisSharing
from app.store.meta import fact_or
from app.store.redis import connect
from app.telemetry.live import LiveBoard, LiveFeed

LIVE_SECRET_FACT = "live_secret"  # noqa: S105 - where it is
SECRET_BYTES = 32
PROCESS_ID_CHARS = 16
TIMEOUT_S = 1.0
"""Nobody waits for it."""


async def open_live(
    stack: AsyncExitStack,
    environment: Environment,
    database: Database,
    slot: Slot,
    is_over: Callable[[], bool],
) -> LiveFeed:
    """Connections of its own: what people watch must not hold up the limits."""
    board = LiveBoard()
    process = random_base62(PROCESS_ID_CHARS)
    worker = f"{platform.node()[:64]}/{slot.number}"
    if environment.redis is None:
        feed = LiveFeed(board, process=process, worker=worker, is_over=is_over, sharing=None)
        stack.push_async_callback(feed.close)
        return feed
    async with database.transaction() as connection:
        secret = bytes.fromhex(await fact_or(connection, LIVE_SECRET_FACT, secrets.token_hex(SECRET_BYTES)))
    try:
        # That it is away, the limits tell.
        client = connect(environment.redis, timeout_s=TIMEOUT_S)
        sharing = RedisSharing(client, environment.redis, secret, process=process)
    except ValueError as error:
        raise ConfigurationError(f"HEADGATE_REDIS_URL: {error}") from error
    await client.start()
    stack.push_async_callback(client.close)
    stack.push_async_callback(sharing.close)
    feed = LiveFeed(board, process=process, worker=worker, is_over=is_over, sharing=sharing)
    stack.push_async_callback(feed.close)
    sharing.start(feed.wake)
    return feed
