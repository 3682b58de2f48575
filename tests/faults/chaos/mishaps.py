"""What happens to a world, each as a coroutine that ends when it is over. What it did is told in words."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import asyncpg

from tests.faults.chaos.gateways import Gateway
from tests.faults.chaos.world import Span, World

Mishap: TypeAlias = Callable[[World, random.Random], Awaitable[None]]


def _any(world: World, draw: random.Random) -> Gateway | None:
    up = [gateway for gateway in world.gateways if gateway.is_up and gateway.frozen_until_s < time.monotonic()]
    return draw.choice(up) if up else None


# -- gateways ---------------------------------------------------------------------------------


async def kill_gateway(world: World, draw: random.Random) -> None:
    gateway = _any(world, draw)
    if gateway is not None:
        down_s = draw.uniform(0, 2.5)
        world.tell(f"kill -9 {gateway.name}, down for {down_s:.1f} s")
        await gateway.kill()
        await asyncio.sleep(down_s)
        gateway.start()


async def lose_node(world: World, draw: random.Random) -> None:
    """Its host is gone with its disk; another one comes in its place."""
    gateway = _any(world, draw)
    if gateway is not None:
        world.tell(f"lose {gateway.name} with its disk")
        await gateway.kill()
        world.lost_lives[f"{gateway.name}.{gateway.lives}"] = time.monotonic()
        world.lost_processes += _process_ids(gateway)
        gateway.lose_disk()
        await asyncio.sleep(draw.uniform(0, 2))
        gateway.start()


def _process_ids(gateway: Gateway) -> list[str]:
    found: list[str] = []
    for path in (gateway.data_dir / "journal").glob("slot-*/processes"):
        found += path.read_text().split()
    return found


async def freeze_gateway(world: World, draw: random.Random) -> None:
    gateway = _any(world, draw)
    if gateway is not None:
        for_s = draw.choice([1.0, 2.0, 5.0, 7.0, 12.0, 20.0])
        world.tell(f"SIGSTOP {gateway.name} for {for_s:.0f} s")
        began_s = time.monotonic()
        gateway.frozen_until_s = began_s + for_s
        gateway.freeze()
        await asyncio.sleep(for_s)
        gateway.resume()
        world.silent.append((began_s, time.monotonic()))
        world.mute.append(world.silent[-1])


# -- Valkey -----------------------------------------------------------------------------------


async def flush(world: World, draw: random.Random) -> None:
    async with world.of_hot:
        world.tell("FLUSHALL")
        world.losses.append(time.monotonic())
        world.hot.execute("FLUSHALL")
        now_s = time.time()
        world.outages.append(Span(now_s, now_s))


async def kill_valkey(world: World, draw: random.Random) -> None:
    await _kill_valkey(world, draw.choice([0.0, 0.3, 2.0]))


async def bounce_valkey(world: World, draw: random.Random) -> None:
    """It is back at once, as another server."""
    await _kill_valkey(world, 0.0)


async def _kill_valkey(world: World, down_s: float) -> None:
    async with world.of_hot:
        world.tell(f"kill -9 valkey ({world.hot.persistence}), down for {down_s} s")
        began_s = time.monotonic()
        if not world.hot.keeps_data:
            world.losses.append(began_s)
        await asyncio.to_thread(world.hot.kill)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(world.hot.start)
        now_s = time.time()
        world.outages.append(Span(now_s - (time.monotonic() - began_s), now_s))
        world.silent.append((began_s, time.monotonic()))


async def freeze_valkey(world: World, draw: random.Random) -> None:
    async with world.of_hot:
        for_s = draw.uniform(0.5, 4)
        world.tell(f"SIGSTOP valkey for {for_s:.1f} s")
        began_s = time.monotonic()
        world.hot.freeze()
        await asyncio.sleep(for_s)
        world.hot.restore()
        world.silent.append((began_s, time.monotonic()))


# -- PostgreSQL -------------------------------------------------------------------------------


async def stop_postgres(world: World, draw: random.Random) -> None:
    async with world.of_ledger:
        down_s = draw.uniform(0, 4)
        world.tell(f"immediate stop of PostgreSQL, down for {down_s:.1f} s")
        await world.ledger.stop_at_once()
        await asyncio.sleep(down_s)
        await world.ledger.start()


async def freeze_postgres(world: World, draw: random.Random) -> None:
    async with world.of_ledger:
        for_s = draw.uniform(0.5, 5)
        world.tell(f"SIGSTOP PostgreSQL for {for_s:.1f} s")
        server = world.ledger.server
        server.freeze()
        await asyncio.sleep(for_s)
        server.resume()


async def end_sessions(world: World, draw: random.Random) -> None:
    """As an administrator does, or a failover."""
    async with world.of_ledger:
        world.tell("all sessions of PostgreSQL terminated")
        try:
            connection = await asyncpg.connect(world.ledger.server.url(), timeout=2)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", world.ledger.name
            )
            await connection.close()
        except (OSError, asyncpg.PostgresError, TimeoutError):
            world.tell("(it was down)")


# -- the network ------------------------------------------------------------------------------


async def _cut(world: World, draw: random.Random, what: str, for_s: float) -> None:
    gateway = draw.choice(world.gateways)
    wire = getattr(world.wires[gateway.name], what)
    how = draw.choice(["refused", "stalled", "answers stalled"])
    world.tell(f"{gateway.name} cut off from {what} for {for_s:.1f} s ({how})")
    began_s = time.monotonic()
    if how == "refused":
        await asyncio.to_thread(wire.refuse)
        await asyncio.to_thread(wire.reset)
        await asyncio.sleep(for_s)
        await asyncio.to_thread(wire.accept)
    else:
        wire.stalled = "both" if how == "stalled" else "down"
        await asyncio.sleep(for_s)
        wire.stalled = None
    if what == "redis":
        world.silent.append((began_s, time.monotonic()))
        world.mute.append(world.silent[-1])


async def cut_redis(world: World, draw: random.Random) -> None:
    await _cut(world, draw, "redis", draw.choice([0.5, 2.0, 5.0, 18.0]))


async def cut_sql(world: World, draw: random.Random) -> None:
    await _cut(world, draw, "sql", draw.choice([0.5, 2.0, 6.0]))


async def slow_redis(world: World, draw: random.Random) -> None:
    gateway = draw.choice(world.gateways)
    wire = world.wires[gateway.name].redis
    latency_s = draw.choice([0.05, 0.14, 0.2])
    world.tell(f"{gateway.name} has {latency_s * 1000:.0f} ms each way to redis for 3 s")
    began_s = time.monotonic()
    wire.latency_s, wire.jitter_s = latency_s, latency_s / 2
    await asyncio.sleep(3)
    wire.latency_s = wire.jitter_s = 0.0
    world.silent.append((began_s, time.monotonic()))
    world.mute.append(world.silent[-1])


async def reset_redis(world: World, draw: random.Random) -> None:
    gateway = draw.choice(world.gateways)
    world.tell(f"{gateway.name}'s connections to redis reset, five times")
    began_s = time.monotonic()
    for _ in range(5):
        await asyncio.to_thread(world.wires[gateway.name].redis.reset)
        await asyncio.sleep(draw.uniform(0.05, 0.5))
    world.silent.append((began_s, time.monotonic()))
    world.mute.append(world.silent[-1])


# -- the upstream -----------------------------------------------------------------------------


async def kill_upstream(world: World, draw: random.Random) -> None:
    async with world.of_upstream:
        down_s = draw.uniform(0, 1.5)
        world.tell(f"kill -9 the upstream, down for {down_s:.1f} s")
        world.upstream.kill()
        await asyncio.sleep(down_s)
        await world.upstream.start()


# -- a disk -----------------------------------------------------------------------------------


async def fill_disk(world: World, draw: random.Random) -> None:
    """The first gateway's, which is small."""
    gateway = world.gateways[0]
    for_s = draw.uniform(2, 5)
    world.tell(f"{gateway.name}'s disk full for {for_s:.1f} s")
    await asyncio.to_thread(gateway.fill_disk)
    await asyncio.sleep(for_s)
    gateway.empty_disk()


async def fail_syncs(world: World, draw: random.Random) -> None:
    """By the tracer that the first gateway runs under, from its start on."""
    world.tell(f"fdatasync fails with EIO now and then on {world.gateways[0].name}")


def can_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


def can_trace() -> bool:
    return shutil.which("strace") is not None


OF_ALL: dict[str, Mishap] = {
    "kill": kill_gateway,
    "freeze": freeze_gateway,
    "freeze-valkey": freeze_valkey,
    "stop-postgres": stop_postgres,
    "freeze-postgres": freeze_postgres,
    "end-sessions": end_sessions,
    "cut-redis": cut_redis,
    "cut-sql": cut_sql,
    "slow-redis": slow_redis,
    "reset-redis": reset_redis,
    "kill-upstream": kill_upstream,
    "restart-valkey": kill_valkey,
}
"""What loses nothing for good, whatever else happens."""

OF_LOST_DATA: dict[str, Mishap] = {"flush": flush, "kill-valkey": kill_valkey}
OF_LOST_DISKS: dict[str, Mishap] = {"lose-node": lose_node}
OF_A_SMALL_DISK: dict[str, Mishap] = {"fill-disk": fill_disk}
OF_A_TRACER: dict[str, Mishap] = {"fail-syncs": fail_syncs}

DIRECTED: dict[str, Mishap] = {"bounce-valkey": bounce_valkey}

MISHAPS: dict[str, Mishap] = OF_ALL | OF_LOST_DATA | OF_LOST_DISKS | OF_A_SMALL_DISK | OF_A_TRACER | DIRECTED
