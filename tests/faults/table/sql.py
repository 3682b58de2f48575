"""Rows of SQL, and of SQL and Redis at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg

from tests.fakes.proxy import ChaosProxy
from tests.faults.table.rows import Ask, Gets, Row, degraded, down_and_up
from tests.faults.table.stores import (
    ALL_CHARGED,
    CHARGED,
    REQUEST_S,
    RUNNING,
    SPENT_STILL,
    WAITING,
    Making,
    refused,
    reset,
    stalled,
)
from tests.faults.table.worlds import SharedWorld, World


def sql(world: SharedWorld) -> ChaosProxy:
    return world.sql


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


@contextmanager
def all_frozen(world: SharedWorld) -> Iterator[None]:
    world.valkey.freeze()
    with frozen_sql(world):
        yield
    world.valkey.resume()


BOTH_AWAY = (
    Row(
        "two faults",
        "SQL and Redis frozen",
        "shared",
        (
            *((Ask(who), Gets(503, "limits_unavailable", within_s=REQUEST_S)) for who in ("strict", "budget", "cold")),
            *((Ask(who), Gets(200, kinds=("charge",), within_s=REQUEST_S)) for who in ("free", "protective")),
            COLD_PROTECTIVE,
            UNKNOWN,
            STORED,
        ),
        cold(all_frozen),
        running=RUNNING,
        then=(*ALL_CHARGED, SPENT_STILL),
        told=None,
    ),
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
        gauges=degraded("ledger", "ledger_reads", "limits"),
        told=down_and_up("ledger", "ledger_reads", "limits"),
    ),
)
