"""What requests see when the store of limits fails, and that nothing stays wrong afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.core.errors import LimitsUnavailable
from app.limits.limiter import Claim, Grant
from app.limits.redis import RedisLimiter
from app.store.redis import RedisClient, RedisUnavailable
from tests.contract.limits.harness import Driver, TestClock, concurrency, eventually, new_id, requests, tokens
from tests.fakes.valkey import ValkeyServer

FAST_MS = 150
"""Far below the timeout, and far above what a loaded machine adds."""
LIMITS = (requests(1000), tokens(100_000), concurrency(50))


class Gateway(Driver):
    def __init__(self, server: ValkeyServer) -> None:
        self.states: list[tuple[bool, str]] = []
        self.client = RedisClient(server.url, on_state=lambda up, reason: self.states.append((up, reason)))
        self.limiter: RedisLimiter
        super().__init__(RedisLimiter(self.client, heartbeat_s=0.1), TestClock(), server)

    async def unavailable(self) -> float:
        """Milliseconds until a reserve was refused for want of the store."""
        began = time.monotonic()
        with pytest.raises(LimitsUnavailable) as caught:
            await self.reserve(*LIMITS, tokens=10)
        assert isinstance(caught.value.__cause__, RedisUnavailable)
        return (time.monotonic() - began) * 1000

    async def standings(self) -> list[int]:
        """Requests, tokens and running calls left, besides the one that asks."""
        grant = await self.grant(*LIMITS)
        self.limiter.settle(grant, 0)
        left = [standing.remaining for standing in grant.standings]
        return [left[0] + 1, left[1], left[2] + 1]


@pytest.fixture
async def gateway(server: ValkeyServer) -> AsyncIterator[Gateway]:
    gateway = Gateway(server)
    await gateway.client.start()
    await gateway.limiter.start()
    yield gateway
    server.restore()
    await gateway.limiter.close()
    await gateway.client.close()


async def test_a_killed_store_refuses_at_once_and_comes_back(gateway: Gateway, server: ValkeyServer) -> None:
    grant = await gateway.grant(*LIMITS, tokens=100)
    server.kill()
    await eventually(lambda: not gateway.client.up)
    for _ in range(100):
        assert await gateway.unavailable() < FAST_MS
    gateway.limiter.settle(grant, 20)
    server.start()
    await eventually(lambda: gateway.client.up)
    assert await gateway.standings() == [1000, 100_000, 50]  # nothing was kept there, nothing was invented
    assert [up for up, _ in gateway.states] == [True, False, True]


async def test_a_frozen_store_costs_one_timeout_and_then_nothing(gateway: Gateway, server: ValkeyServer) -> None:
    server.freeze()
    took_ms = await asyncio.gather(*(gateway.unavailable() for _ in range(50)))
    assert all(250 < took < 700 for took in took_ms)
    for _ in range(100):
        assert await gateway.unavailable() < FAST_MS
    server.resume()
    await eventually(lambda: gateway.client.up)
    # The server came to the fifty reserves after all: each was voided, so none of them holds anything.
    assert await gateway.client.drain(1)
    assert await gateway.standings() == [1000, 100_000, 50]
    assert [up for up, _ in gateway.states] == [True, False, True]
    assert "300 ms" in gateway.states[1][1]


async def test_settlements_of_an_outage_are_made_up_for(gateway: Gateway, server: ValkeyServer) -> None:
    grants = [await gateway.grant(*LIMITS, tokens=100) for _ in range(20)]
    server.freeze()
    for grant in grants[:10]:
        gateway.limiter.settle(grant, 30)  # in flight when the connection is given up
    await eventually(lambda: not gateway.client.up)
    for grant in grants[10:]:
        gateway.limiter.settle(grant, 30)  # made while there is none
    server.resume()
    await eventually(lambda: gateway.client.up)
    assert await gateway.client.drain(1)
    assert await gateway.standings() == [980, 100_000 - 20 * 30, 50]
    assert gateway.client.posts_dropped == 0


async def test_a_store_that_forgot_its_scripts_is_told_them_again(gateway: Gateway, server: ValkeyServer) -> None:
    async def request() -> None:
        grant = await gateway.grant(*LIMITS, tokens=10)
        gateway.limiter.settle(grant, 10)

    for _ in range(10):
        await asyncio.gather(*(request() for _ in range(20)))
        server.execute("SCRIPT", "FLUSH")
    await request()
    assert await gateway.client.drain(1)
    assert await gateway.standings() == [1000 - 201, 100_000 - 2010, 50]
    assert gateway.client.posts_dropped == 0


async def test_restarts_under_load_leave_no_lease_behind(gateway: Gateway, server: ValkeyServer) -> None:
    stop = asyncio.Event()
    counted = {"granted": 0, "unavailable": 0}

    async def traffic() -> None:
        while not stop.is_set():
            try:
                decision = await gateway.reserve(*LIMITS[1:], tokens=1)
            except LimitsUnavailable:
                counted["unavailable"] += 1
                await asyncio.sleep(0.002)
                continue
            assert isinstance(decision, Grant)
            counted["granted"] += 1
            await asyncio.sleep(0.001)
            gateway.limiter.settle(decision, 1)

    running = [asyncio.create_task(traffic()) for _ in range(20)]
    for _ in range(3):
        await asyncio.sleep(0.15)
        server.kill()
        await asyncio.sleep(0.05)
        server.start()
        await eventually(lambda: gateway.client.up)
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.gather(*running)
    assert await gateway.client.drain(1)
    assert min(counted.values()) > 20
    assert (await gateway.standings())[2] == 50


async def test_close_waits_for_settlements_within_a_bound(server: ValkeyServer) -> None:
    gateway = Gateway(server)
    await gateway.client.start()
    await gateway.limiter.start()
    grant = await gateway.grant(*LIMITS, tokens=100)
    gateway.limiter.settle(grant, 40)
    await gateway.limiter.close()
    await gateway.client.close()
    assert server.execute("HGET", "hg:{team_1}:key:key_1:tokens_per_minute", "total") == b"40"

    gateway = Gateway(server)
    await gateway.client.start()
    gateway.limiter = RedisLimiter(gateway.client, close_s_max=0.2)
    grant = await gateway.grant(*LIMITS, tokens=100)
    server.kill()
    gateway.limiter.settle(grant, 40)
    began = time.monotonic()
    await gateway.limiter.close()
    await gateway.client.close(drain_s=0.1)
    assert time.monotonic() - began < 2


async def test_a_store_that_is_away_at_the_start_is_found_later(server: ValkeyServer) -> None:
    server.stop()
    gateway = Gateway(server)
    await gateway.client.start()
    await gateway.limiter.start()
    assert [up for up, _ in gateway.states] == [False]
    assert await gateway.unavailable() < FAST_MS
    assert isinstance(await gateway.limiter.reserve(Claim(new_id(), "team_1", (), 0)), Grant)
    server.start()
    await eventually(lambda: gateway.client.up)
    await gateway.grant(*LIMITS)
    await gateway.limiter.close()
    await gateway.client.close()
