"""What the store's callers see when it fails, and that nothing stays wrong afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.core.errors import LimitsUnavailable
from app.limits.hot import Done, Granted, Lost, OpenTag, Reserve, Settle, StoreAway, Void
from app.limits.limiter import Claim, Outcome
from app.limits.redis import RedisHot
from app.store.redis import RedisClient
from tests.contract.limits.harness import TEAM, claim, concurrency, eventually, requests, tokens
from tests.fakes.valkey import ValkeyServer

FAST_MS = 150
"""Far below the timeout, and far above what a loaded machine adds."""
LIMITS = (requests(1000), tokens(100_000), concurrency(50))


class Gateway:
    """One process: what was sent and not answered is voided, as its core does."""

    def __init__(self, server: ValkeyServer) -> None:
        self.states: list[bool] = []
        self.client = RedisClient(server.url, on_state=lambda up, _reason: self.states.append(up))
        self.hot = RedisHot(self.client)
        self.epoch = "1"

    async def start(self) -> None:
        await self.client.start()
        await self.hot.do(OpenTag(TEAM, self.epoch))

    async def reserve(self, asked: Claim) -> object:
        try:
            return await self.hot.do(Reserve(asked, self.epoch))
        except StoreAway as away:
            if away.sent:
                self.hot.post(Void(asked))
            raise

    async def take(self) -> Claim:
        asked = claim(*LIMITS, tokens=100)
        assert isinstance(await self.reserve(asked), Granted)
        return asked

    def settle(self, ended: Claim, used: int) -> None:
        self.hot.post(Settle(ended, self.epoch, Outcome(2, 0, used)))

    async def unavailable(self) -> float:
        """Milliseconds until a reserve was refused for want of the store."""
        began = time.monotonic()
        with pytest.raises(StoreAway):
            await self.reserve(claim(*LIMITS, tokens=10))
        return (time.monotonic() - began) * 1000

    async def left(self) -> list[int]:
        """Requests, tokens and running calls, besides the one that asks."""
        asked = claim(*LIMITS)
        granted = await self.reserve(asked)
        assert isinstance(granted, Granted), granted
        await self.hot.do(Void(asked))
        return [granted.standings[0][0] + 1, granted.standings[1][0], granted.standings[2][0] + 1]


async def refuses_fast(gateway: Gateway) -> None:
    """Whoever comes is refused without a wait; a busy machine may hold up a few of them."""
    took_ms = sorted([await gateway.unavailable() for _ in range(100)])
    assert took_ms[89] < FAST_MS


@pytest.fixture
async def gateway(server: ValkeyServer) -> AsyncIterator[Gateway]:
    gateway = Gateway(server)
    await gateway.start()
    yield gateway
    server.restore()
    await gateway.client.close()


def test_without_the_store_the_answer_is_one_for_clients() -> None:
    away = StoreAway("no answer within 300 ms", sent=True)
    assert isinstance(away, LimitsUnavailable)
    assert (away.status, away.code, away.sent) == (503, "limits_unavailable", True)
    assert "300 ms" not in away.message


async def test_a_killed_store_refuses_at_once_and_is_lost_when_it_comes_back(
    gateway: Gateway, server: ValkeyServer
) -> None:
    taken = await gateway.take()
    server.kill()
    await eventually(lambda: not gateway.client.up)
    await refuses_fast(gateway)
    answers: list[object] = []
    gateway.hot.post(Settle(taken, "1", Outcome(2, 0, 20)), answers.append)
    server.start()
    await eventually(lambda: bool(answers))
    assert answers == [Lost(None)]
    assert await gateway.reserve(claim(*LIMITS)) == Lost(None)
    gateway.epoch = "2"
    assert await gateway.hot.do(OpenTag(TEAM, "2")) == Done()
    assert await gateway.left() == [1000, 100_000, 50]  # nothing was kept there, nothing was invented
    assert gateway.states == [True, False, True]


async def test_a_frozen_store_costs_one_timeout_and_then_nothing(gateway: Gateway, server: ValkeyServer) -> None:
    server.freeze()
    took_ms = await asyncio.gather(*(gateway.unavailable() for _ in range(50)))
    assert all(250 < took < 5000 for took in took_ms)
    await refuses_fast(gateway)
    server.resume()
    await eventually(lambda: gateway.client.up)
    # The server came to the fifty reserves after all: each was voided, so none of them holds anything.
    assert await gateway.client.drain(20)
    assert await gateway.left() == [1000, 100_000, 50]
    assert gateway.states == [True, False, True]


async def test_settlements_of_an_outage_are_made_up_for(gateway: Gateway, server: ValkeyServer) -> None:
    taken = [await gateway.take() for _ in range(20)]
    server.freeze()
    for each in taken[:10]:
        gateway.settle(each, 30)  # in flight when the connection is given up
    await eventually(lambda: not gateway.client.up)
    for each in taken[10:]:
        gateway.settle(each, 30)  # made while there is none
    server.resume()
    await eventually(lambda: gateway.client.up)
    assert await gateway.client.drain(20)
    assert await gateway.left() == [980, 100_000 - 20 * 30, 50]
    assert gateway.client.posts_dropped == 0


async def test_a_store_that_forgot_its_scripts_is_told_them_again(gateway: Gateway, server: ValkeyServer) -> None:
    async def call() -> None:
        gateway.settle(await gateway.take(), 10)

    for _ in range(10):
        await asyncio.gather(*(call() for _ in range(20)))
        server.execute("SCRIPT", "FLUSH")
    await call()
    assert await gateway.client.drain(20)
    assert await gateway.left() == [1000 - 201, 100_000 - 2010, 50]
    assert gateway.client.posts_dropped == 0


async def test_restarts_under_load_leave_nothing_behind(gateway: Gateway, server: ValkeyServer) -> None:
    stop = asyncio.Event()
    counted = {"granted": 0, "away": 0, "lost": 0}

    async def traffic() -> None:
        while not stop.is_set():
            asked = claim(*LIMITS[1:], tokens=1)
            try:
                answer = await gateway.reserve(asked)
            except StoreAway:
                counted["away"] += 1
                await asyncio.sleep(0.002)
                continue
            if isinstance(answer, Lost):
                counted["lost"] += 1
                await asyncio.sleep(0.002)
                continue
            assert isinstance(answer, Granted)
            counted["granted"] += 1
            await asyncio.sleep(0.001)
            gateway.settle(asked, 1)

    running = [asyncio.create_task(traffic()) for _ in range(20)]
    for number in range(2, 5):
        await asyncio.sleep(0.15)
        server.kill()
        await eventually(lambda: not gateway.client.up)
        server.start()
        await eventually(lambda: gateway.client.up)
        await asyncio.sleep(0.05)
        gateway.epoch = str(number)
        assert await gateway.hot.do(OpenTag(TEAM, gateway.epoch)) == Done()
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.gather(*running)
    assert await gateway.client.drain(20)
    assert min(counted.values()) > 20, counted
    assert (await gateway.left())[2] == 50


async def test_a_store_that_is_away_at_the_start_is_found_later(server: ValkeyServer) -> None:
    server.stop()
    gateway = Gateway(server)
    await gateway.client.start()
    await refuses_fast(gateway)
    server.start()
    await eventually(lambda: gateway.client.up)
    assert await gateway.hot.do(OpenTag(TEAM, "1")) == Done()
    await gateway.take()
    await gateway.client.close()


async def test_a_caller_that_goes_away_has_its_reserve_carried_out_and_voided(gateway: Gateway) -> None:
    asked = claim(*LIMITS, tokens=600)
    waiting = asyncio.create_task(gateway.reserve(asked))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gateway.hot.post(Void(asked))
    assert await gateway.client.drain(20)
    assert await gateway.left() == [1000, 100_000, 50]
