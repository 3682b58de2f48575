"""Rows of Redis."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.fakes.people import rule
from tests.fakes.proxy import ChaosProxy
from tests.faults.table.rows import Ask, Gets, Row, degraded, down_and_up
from tests.faults.table.stores import (
    ALL_CHARGED,
    CHARGED,
    LIMITED_AWAY,
    REFUSED,
    RUNNING,
    SPENT_STILL,
    STRICT_REFUSED,
    refused,
    reset,
    stalled,
)
from tests.faults.table.worlds import SharedWorld

FROZEN_S = 2.5
COUNTED_S = 3.0
"""Each process counts the others so often."""


@contextmanager
def started_without_redis(world: SharedWorld) -> Iterator[None]:
    world.valkey.kill()
    world.gateway.stop()
    world.gateway.start()
    yield
    world.valkey.start()


def redis(world: SharedWorld) -> ChaosProxy:
    return world.redis


@contextmanager
def frozen_redis(world: SharedWorld) -> Iterator[None]:
    began_s = time.monotonic()
    world.valkey.freeze()
    yield
    time.sleep(max(0.0, began_s + FROZEN_S - time.monotonic()))
    world.valkey.resume()


@contextmanager
def slow_redis(world: SharedWorld) -> Iterator[None]:
    world.redis.latency_s = 0.04
    yield
    world.redis.latency_s = 0.0


@contextmanager
def garbage_redis(world: SharedWorld) -> Iterator[None]:
    """Something else listens there."""
    listener = socket.create_server(("127.0.0.1", 0))
    target, world.redis.target = world.redis.target, listener.getsockname()

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            except OSError:
                return

    threading.Thread(target=answer, daemon=True).start()
    world.redis.reset()
    yield
    world.redis.target = target
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    world.redis.reset()


@contextmanager
def wrong_type(world: SharedWorld) -> Iterator[None]:
    """Somebody else has written to our names: a script fails in its middle."""
    name = world.hot_keys + "due"
    world.valkey.execute("DEL", name)
    world.valkey.execute("SET", name, "nonsense")
    yield
    world.valkey.execute("DEL", name)


@contextmanager
def restarted(world: SharedWorld) -> Iterator[None]:
    world.valkey.kill()
    world.valkey.start()
    yield


@contextmanager
def gone_for_all(world: SharedWorld) -> Iterator[None]:
    """Two gateways without it, some seconds after the second one has come."""
    assert world.other.process is not None
    time.sleep(COUNTED_S)
    few = rule("requests", 5, "minute", policy="protective")
    world.keys["few"] = world.people.key(few)
    for url in (world.gateway.url, world.other.url):
        httpx.get(f"{url}/v1/models", headers=world.keys["few"].headers).raise_for_status()
    world.valkey.kill()
    yield
    world.valkey.start()


@contextmanager
def flushed(world: SharedWorld) -> Iterator[None]:
    world.valkey.execute("FLUSHALL")
    yield


@contextmanager
def without_scripts(world: SharedWorld) -> Iterator[None]:
    world.valkey.execute("SCRIPT", "FLUSH", "SYNC")
    yield


@contextmanager
def full(world: SharedWorld) -> Iterator[None]:
    world.valkey.execute("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
    yield
    world.valkey.execute("CONFIG", "SET", "maxmemory", "0")


REDIS = (
    Row(
        "Redis",
        "down at start",
        "shared",
        STRICT_REFUSED,
        started_without_redis,
        then=(*ALL_CHARGED, SPENT_STILL),
        gauges=degraded("redis", "cache"),
        told=None,
        failing=("limits",),
    ),
    Row(
        "Redis",
        "down while it runs",
        "shared",
        STRICT_REFUSED,
        refused(redis),
        running=RUNNING,
        then=(*ALL_CHARGED, SPENT_STILL),
        counts={LIMITED_AWAY: 3},
        gauges=degraded("redis", "cache"),
        told=down_and_up("redis", "cache"),
    ),
    Row(
        "Redis",
        "slow (SIGSTOP 2.5 s)",
        "shared",
        STRICT_REFUSED,
        frozen_redis,
        running=RUNNING,
        then=(*ALL_CHARGED, SPENT_STILL),
        counts={LIMITED_AWAY: 3},
        gauges=degraded("redis", "cache"),
        told=down_and_up("redis", "cache"),
    ),
    Row(
        "Redis",
        "a black hole on the way to it",
        "shared",
        STRICT_REFUSED,
        stalled(redis),
        running=RUNNING,
        then=ALL_CHARGED,
        gauges=degraded("redis", "cache"),
        told=down_and_up("redis", "cache"),
    ),
    Row("Redis", "slow, and in time", "shared", ALL_CHARGED, slow_redis, counts={LIMITED_AWAY: 0}),
    Row(
        "Redis",
        "flapping",
        "shared",
        ((Ask("free"), CHARGED), (Ask("protective"), CHARGED)),
        reset(redis),
        running=RUNNING,
        then=ALL_CHARGED,
        told=None,
    ),
    Row(
        "Redis",
        "garbage (another server listens there)",
        "shared",
        STRICT_REFUSED,
        garbage_redis,
        then=ALL_CHARGED,
        gauges=degraded("redis", "cache"),
        told=down_and_up("redis", "cache"),
    ),
    Row(
        "Redis",
        "wrong type (a script fails)",
        "shared",
        ((Ask("strict"), REFUSED), (Ask("protective"), CHARGED), (Ask("free"), CHARGED)),
        wrong_type,
        then=ALL_CHARGED,
        told=("redis_script_refused",),
    ),
    Row(
        "Redis",
        "restart, its data lost",
        "shared",
        ((Ask("free"), Gets(200, kinds=("charge",))), (Ask("protective"), Gets(200, kinds=("charge",)))),
        restarted,
        running=RUNNING,
        then=(*ALL_CHARGED, SPENT_STILL),
        told=down_and_up("redis", "limits", "cache"),
    ),
    Row(
        "Redis",
        "down for two gateways: each has its share of a protective limit",
        "shared",
        tuple(
            (Ask("few", at_other=at_other), gets)
            for at_other in (False, True)
            for gets in (CHARGED, CHARGED, Gets(429, "rate_limit_exceeded"))
        ),
        gone_for_all,
        then=ALL_CHARGED,
        told=down_and_up("redis", "limits", "cache"),
    ),
    Row(
        "Redis",
        "FLUSHALL",
        "shared",
        ((Ask("strict"), REFUSED), (Ask("free"), CHARGED), (Ask("protective"), CHARGED), (Ask("budget"), REFUSED)),
        flushed,
        running=RUNNING,
        then=(*ALL_CHARGED, SPENT_STILL),
        gauges=degraded("limits"),
        told=down_and_up("limits"),
    ),
    Row("Redis", "SCRIPT FLUSH", "shared", ALL_CHARGED, without_scripts, counts={LIMITED_AWAY: 0}),
    Row(
        "Redis",
        "partition of one replica",
        "shared",
        ((Ask("strict"), REFUSED), (Ask("strict", at_other=True), CHARGED), (Ask("free"), CHARGED)),
        refused(redis),
        running=RUNNING,
        then=ALL_CHARGED,
        gauges=degraded("redis", "cache"),
        told=down_and_up("redis", "cache"),
    ),
    Row(
        "Redis",
        "full (noeviction)",
        "shared",
        ((Ask("strict"), REFUSED), (Ask("free"), CHARGED), (Ask("protective"), CHARGED), (Ask("budget"), REFUSED)),
        full,
        running=RUNNING,
        then=(*ALL_CHARGED, SPENT_STILL),
        counts={LIMITED_AWAY: 2},
        # Whether a post is refused depends on what is new: an owner that is known is not told again.
        told=None,
    ),
)
