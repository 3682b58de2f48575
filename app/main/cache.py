"""The response cache: in memory, or in Redis where there is one."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack

from app.cache.cache import ResponseCache
from app.cache.entry import CacheStore
from app.cache.memory import MemoryStore
from app.cache.redis import RedisStore
from app.core.clock import SystemClock
from app.main.states import States
from app.settings import Configuration, ConfigurationError, Environment
from app.store.cache import CACHE_SECRET_FACT
from app.store.database import Database
from app.store.meta import fact_or
from app.store.redis import connect
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics

SECRET_BYTES = 32


async def open_cache(
    stack: AsyncExitStack,
    environment: Environment,
    configuration: Configuration,
    database: Database,
    metrics: Metrics,
    log: LogWriter,
    states: States,
) -> ResponseCache:
    """A connection of its own where it is in Redis: large values must not hold up the limits."""
    clock = SystemClock()
    async with database.transaction() as connection:
        secret = bytes.fromhex(await fact_or(connection, CACHE_SECRET_FACT, secrets.token_hex(SECRET_BYTES)))
    url = environment.cache_redis
    if url is None:
        store: CacheStore = _in_memory(clock, configuration, metrics)
    else:
        store = await _in_redis(stack, url, clock, secret, metrics, log, states)
    cache = ResponseCache(store, secret, clock, is_local=url is None)
    cache.start()
    stack.push_async_callback(cache.close)
    return cache


def _in_memory(clock: SystemClock, configuration: Configuration, metrics: Metrics) -> MemoryStore:
    store = MemoryStore(clock, configuration.cache.memory_bytes_max)
    metrics.watch("headgate_cache_entries", "Answers kept in memory.", lambda: store.entries)
    metrics.watch("headgate_cache_bytes", "What they take.", lambda: store.bytes)
    return store


async def _in_redis(
    stack: AsyncExitStack,
    url: str,
    clock: SystemClock,
    secret: bytes,
    metrics: Metrics,
    log: LogWriter,
    states: States,
) -> RedisStore:
    def on_refused(script: str, reason: str) -> None:
        log.error("redis_script_refused", script=script, reason=reason)

    try:
        client = connect(url, on_state=states.reporter("cache"), on_refused=on_refused)
    except ValueError as error:
        raise ConfigurationError(f"HEADGATE_CACHE_REDIS_URL: {error}") from error
    await client.start()
    stack.push_async_callback(client.close)
    store = RedisStore(client, clock, secret)
    store.start()
    metrics.watch("headgate_cache_corrupt_entries", "Entries that did not match their checksum.", lambda: store.corrupt)
    return store
