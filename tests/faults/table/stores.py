"""Rows of Redis and of SQL, and of both at once."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import asyncpg

from tests.fakes.proxy import BOTH, ChaosProxy
from tests.faults.table.rows import Ask, Gets, Row, degraded, down_and_up
from tests.faults.table.worlds import SharedWorld, World

Making = Callable[[SharedWorld], AbstractContextManager[None]]

LATE_S = 0.7
"""What a busy machine may take beyond what is promised."""
REDIS_S = 0.3 + LATE_S
REQUEST_S = 1.0 + LATE_S
"""F9: a second, and the upstream's time, which is none here."""
FROZEN_S = 2.5

REFUSED = Gets(503, "limits_unavailable", {"retry-after": "[23]", "x-should-retry": None}, within_s=REDIS_S)
CHARGED = Gets(200, kinds=("charge",), within_s=REDIS_S)
ALL_CHARGED = tuple((Ask(who), CHARGED) for who in ("free", "protective", "strict", "budget"))
STRICT_REFUSED = (
    (Ask("strict"), REFUSED),
    (Ask("free"), CHARGED),
    (Ask("protective"), CHARGED),
    (Ask("budget"), REFUSED),
    (Ask("strict", stream=True), REFUSED),
)
SPENT_STILL = (Ask("spent", model="paid", more={"max_output_tokens": 7}), Gets(429, "insufficient_quota"))
RUNNING = (
    (Ask("running", play="held"), Gets(200, kinds=("charge",))),
    (Ask("running", play="held stream", stream=True), Gets(200, kinds=("charge",))),
)
WAITING = "headgate_journal_records"
"""What runs, and what SQL does not have yet."""
LIMITED_AWAY = 'headgate_refused_total{code="limits_unavailable"}'


# -- Redis ------------------------------------------------------------------------------------


@contextmanager
def started_without_redis(world: SharedWorld) -> Iterator[None]:
    world.valkey.kill()
    world.gateway.stop()
    world.gateway.start()
    yield
    world.valkey.start()


def refused(proxy_of: Callable[[SharedWorld], ChaosProxy]) -> Making:
    """The server is away: its address refuses, its connections are gone."""

    @contextmanager
    def refuse(world: SharedWorld) -> Iterator[None]:
        proxy = proxy_of(world)
        proxy.refuse()
        proxy.reset()
        yield
        proxy.accept()

    return refuse


def stalled(proxy_of: Callable[[SharedWorld], ChaosProxy]) -> Making:
    """A black hole in the network."""

    @contextmanager
    def stall(world: SharedWorld) -> Iterator[None]:
        proxy_of(world).stalled = BOTH
        yield
        proxy_of(world).stalled = None

    return stall


def reset(proxy_of: Callable[[SharedWorld], ChaosProxy]) -> Making:
    """Its connections end again and again."""

    @contextmanager
    def flap(world: SharedWorld) -> Iterator[None]:
        for _ in range(6):
            proxy_of(world).reset()
            time.sleep(0.05)
        yield

    return flap


def redis(world: SharedWorld) -> ChaosProxy:
    return world.redis


def sql(world: SharedWorld) -> ChaosProxy:
    return world.sql


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
        gauges=degraded("redis"),
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
        gauges=degraded("redis"),
        told=down_and_up("redis"),
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
        gauges=degraded("redis"),
        told=down_and_up("redis"),
    ),
    Row(
        "Redis",
        "a black hole on the way to it",
        "shared",
        STRICT_REFUSED,
        stalled(redis),
        running=RUNNING,
        then=ALL_CHARGED,
        gauges=degraded("redis"),
        told=down_and_up("redis"),
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
        gauges=degraded("redis"),
        told=down_and_up("redis"),
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
        told=down_and_up("redis", "limits"),
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
        gauges=degraded("redis"),
        told=down_and_up("redis"),
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
        told=("redis_script_refused",),
    ),
)


# -- SQL --------------------------------------------------------------------------------------


def cold(make: Making) -> Making:
    """Some are known, and their budgets are asked for the first time while it lasts."""

    @contextmanager
    def made(world: SharedWorld) -> Iterator[None]:
        world.add_cold()
        with make(world):
            yield

    return made


def on_server(work: Callable[[asyncpg.Connection], object], url: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await work(connection)
        finally:
            await connection.close()

    asyncio.run(run())


@contextmanager
def stopped(world: World) -> Iterator[None]:
    """As in a crash, in the middle of what it did."""
    world.servers.postgres.stop(immediate=True)
    yield
    world.servers.postgres.start()


@contextmanager
def frozen_sql(world: World) -> Iterator[None]:
    world.servers.postgres.freeze()
    try:
        yield
    finally:
        world.servers.postgres.resume()


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Somebody holds the table of records."""
    is_locked, release = threading.Event(), threading.Event()

    async def lock(connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await connection.execute("LOCK TABLE records IN ACCESS EXCLUSIVE MODE")
            is_locked.set()
            await asyncio.to_thread(release.wait, 30)

    thread = threading.Thread(target=on_server, args=(lock, world.people.url))
    thread.start()
    assert is_locked.wait(10)
    yield
    release.set()
    thread.join()


@contextmanager
def full_sql(world: World) -> Iterator[None]:
    """What PostgreSQL says when its own disk is full."""
    on_server(
        lambda connection: connection.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END$$;"
            " CREATE TRIGGER no_room BEFORE INSERT ON records EXECUTE FUNCTION no_room()"
        ),
        world.people.url,
    )
    yield
    on_server(lambda connection: connection.execute("DROP FUNCTION no_room CASCADE"), world.people.url)


UNKNOWN = (Ask("unknown"), Gets(401, "invalid_api_key", within_s=REQUEST_S))
COLD = (Ask("cold"), Gets(503, "limits_unavailable", within_s=REQUEST_S))
COLD_PROTECTIVE = (Ask("cold, protective"), Gets(200, kinds=("charge",), within_s=REQUEST_S))
STORED = (
    Ask(more={"previous_response_id": "resp_unknown"}),
    Gets(503, "ledger_unavailable", {"retry-after": "[1-5]"}, within_s=REQUEST_S),
)
LEDGER_AWAY = down_and_up("ledger", "ledger_reads")
FAR = (Ask("budget", more={"max_output_tokens": 100_000}), Gets(200, kinds=("charge",), within_s=REQUEST_S))
"""It takes more of a budget than this process has told others of."""

SQL = (
    Row(
        "SQL",
        "down",
        "shared",
        (*ALL_CHARGED, UNKNOWN, COLD, COLD_PROTECTIVE, STORED, FAR),
        cold(refused(sql)),
        running=RUNNING,
        then=(SPENT_STILL, (Ask("cold"), CHARGED)),
        gauges={**degraded("ledger", "ledger_reads"), WAITING: 8},
        told=LEDGER_AWAY,
    ),
    Row(
        "SQL",
        "frozen (SIGSTOP)",
        "shared",
        (*ALL_CHARGED, UNKNOWN, COLD, COLD_PROTECTIVE, STORED, FAR),
        cold(frozen_sql),
        running=RUNNING,
        then=(SPENT_STILL, (Ask("cold"), CHARGED)),
        gauges={WAITING: 8},
        told=None,
    ),
    Row(
        "SQL",
        "a black hole on the way to it",
        "shared",
        (*ALL_CHARGED, UNKNOWN, COLD, COLD_PROTECTIVE, STORED),
        cold(stalled(sql)),
        running=RUNNING,
        then=((Ask("cold"), CHARGED),),
        told=None,
    ),
    Row(
        "SQL",
        "frozen, and limits are in memory",
        "alone",
        (*ALL_CHARGED, UNKNOWN, COLD, COLD_PROTECTIVE, STORED, FAR),
        cold(frozen_sql),
        then=(SPENT_STILL, (Ask("cold"), CHARGED)),
        told=None,
    ),
    Row(
        "SQL",
        "a lock on what is to be written",
        "shared",
        ALL_CHARGED,
        locked,
        running=RUNNING,
        gauges={WAITING: 6},
    ),
    Row("SQL", "flapping", "shared", ALL_CHARGED, reset(sql), running=RUNNING, told=None),
    Row(
        "SQL",
        "its disk is full",
        "shared",
        ALL_CHARGED,
        full_sql,
        running=RUNNING,
        gauges=degraded("ledger"),
        told=down_and_up("ledger"),
    ),
    Row(
        "SQL",
        "stopped in the middle of what it does",
        "shared",
        ALL_CHARGED,
        stopped,
        running=RUNNING,
        then=(SPENT_STILL,),
        gauges=degraded("ledger", "ledger_reads"),
        told=LEDGER_AWAY,
    ),
)


# -- both -------------------------------------------------------------------------------------


@contextmanager
def nothing_left(world: SharedWorld) -> Iterator[None]:
    with refused(sql)(world):
        world.valkey.execute("FLUSHALL")
        yield


BOTH_AWAY = (
    Row(
        "two faults",
        "SQL down and FLUSHALL",
        "shared",
        (
            (Ask("strict"), Gets(503, "limits_unavailable", within_s=REQUEST_S)),
            (Ask("free"), CHARGED),
            (Ask("protective"), CHARGED),
        ),
        nothing_left,
        running=RUNNING,
        then=(*ALL_CHARGED, SPENT_STILL),
        gauges=degraded("ledger", "limits"),
        told=down_and_up("ledger", "ledger_reads", "limits"),
    ),
)
