"""What only a shared store has to promise: leases that expire, scripts sent twice, nothing that piles up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.core.errors import LimitsUnavailable
from app.limits.limiter import Claim, Grant, Refusal
from app.limits.redis import RedisLimiter
from app.store.redis import RedisClient
from tests.contract.limits.harness import (
    Driver,
    TestClock,
    concurrency,
    eventually,
    new_id,
    requests,
    team_requests,
    tokens,
)
from tests.fakes.valkey import ValkeyServer


class Replica(Driver):
    """One of several gateways on one server."""

    def __init__(self, server: ValkeyServer, clock: TestClock, **options: object) -> None:
        self.client = RedisClient(server.url)
        self.limiter: RedisLimiter
        limiter = RedisLimiter(self.client, clock=clock, time_from_clock=True, **options)  # type: ignore[arg-type]
        super().__init__(limiter, clock, server)

    async def start(self) -> None:
        await self.client.start()
        await self.limiter.start()

    async def close(self) -> None:
        await self.limiter.close()
        await self.client.close()


@pytest.fixture
async def replicas(shared_server: ValkeyServer) -> AsyncIterator[tuple[Replica, Replica]]:
    shared_server.flush()
    clock = TestClock()
    pair = (Replica(shared_server, clock), Replica(shared_server, clock))
    for replica in pair:
        await replica.start()
    yield pair
    for replica in pair:
        await replica.close()
        assert replica.client.posts_dropped == 0


async def settled(replica: Replica) -> None:
    assert await replica.client.drain(1)


async def test_replicas_share_their_counters(replicas: tuple[Replica, Replica]) -> None:
    limits = (requests(10), tokens(1000), concurrency(4))
    decisions = await asyncio.gather(*(replicas[n % 2].reserve(*limits, tokens=10) for n in range(20)))
    grants = [decision for decision in decisions if isinstance(decision, Grant)]
    assert len(grants) == 4
    replicas[1].limiter.settle(grants[0], 500)  # of the other one
    await settled(replicas[1])
    assert (await replicas[0].grant(*limits, tokens=1)).standings[1].remaining == 1000 - 500 - 30 - 1


async def test_a_lease_without_a_heartbeat_ends_after_fifteen_seconds(replicas: tuple[Replica, Replica]) -> None:
    dead, living = replicas
    limit = concurrency(1)
    await dead.grant(limit)
    living.clock.advance(14_999)
    await living.refuse(limit)
    living.clock.advance(1)
    await living.grant(limit)


async def test_a_heartbeat_prolongs_what_runs_and_nothing_else(replicas: tuple[Replica, Replica]) -> None:
    first, other = replicas
    limit = concurrency(2)
    ended, running = await first.grant(limit), await first.grant(limit)
    for _ in range(10):
        first.clock.advance(10_000)
        await first.limiter.heartbeat()
        await other.refuse(limit)
    first.limiter.settle(ended, 0)
    await first.limiter.heartbeat()
    assert (await other.grant(limit)).standings[0].remaining == 0
    first.limiter.release(running)
    first.clock.advance(15_000)
    await first.limiter.heartbeat()
    assert (await other.grant(limit)).standings[0].remaining == 1


async def test_a_lease_that_was_lost_is_taken_again_by_the_heartbeat(replicas: tuple[Replica, Replica]) -> None:
    slow, other = replicas
    limit = concurrency(1)
    await slow.grant(limit)
    slow.clock.advance(20_000)
    await other.grant(limit)
    await slow.limiter.heartbeat()  # two run now: that is the truth, above the limit
    slow.clock.advance(14_000)
    assert (await other.refuse(limit)).standings[0].remaining == 0
    other.server.flush()
    await slow.limiter.heartbeat()
    await other.refuse(limit)


async def test_a_heartbeat_of_many_calls_on_many_keys(replicas: tuple[Replica, Replica]) -> None:
    first, other = replicas
    limits = [concurrency(800, key=f"key_{n}") for n in range(3)]
    for limit in limits:
        for _ in range(700):
            await first.grant(limit)
    first.clock.advance(14_000)
    await first.limiter.heartbeat()
    first.clock.advance(14_000)
    for limit in limits:
        assert (await other.grant(limit)).standings[0].remaining == 800 - 701


async def test_the_heart_beats_by_itself(shared_server: ValkeyServer) -> None:
    shared_server.flush()
    client = RedisClient(shared_server.url)
    limiter = RedisLimiter(client, lease_ms=250, heartbeat_s=0.05)
    await client.start()
    await limiter.start()
    limit = concurrency(1)
    grant = await limiter.reserve(Claim("one", "team_1", (limit,), 0))
    assert isinstance(grant, Grant)
    await asyncio.sleep(0.6)
    assert isinstance(await limiter.reserve(Claim("two", "team_1", (limit,), 0)), Refusal)
    await limiter.close()
    await asyncio.sleep(0.3)
    assert isinstance(await limiter.reserve(Claim("three", "team_1", (limit,), 0)), Grant)
    await client.close()


async def test_a_settlement_sent_twice_counts_once(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    limits = (requests(5), tokens(1000), concurrency(3))
    grant = await replica.grant(*limits, tokens=600)
    for _ in range(3):
        replica.limiter.settle(grant, 100)
        replica.limiter.settle(grant, 900)
    await settled(replica)
    assert [standing.remaining for standing in (await replica.grant(*limits)).standings] == [3, 900, 2]


async def test_a_reserve_that_was_given_up_is_undone(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    limits = (requests(5), tokens(1000), concurrency(1))
    claim = Claim("late", "team_1", limits, 600)
    waiting = asyncio.create_task(replica.limiter.reserve(claim))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [standing.remaining for standing in (await replica.grant(*limits)).standings] == [4, 1000, 0]


async def test_a_reserve_that_comes_after_it_was_given_up_is_refused(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    limits = (requests(5), tokens(1000), concurrency(1))
    claim = Claim("late", "team_1", limits, 600)
    replica.limiter._void(claim)
    with pytest.raises(LimitsUnavailable):
        await replica.limiter.reserve(claim)
    replica.limiter.settle(Grant(claim, 0, ()), 50)  # changes nothing, and leaves the mark
    with pytest.raises(LimitsUnavailable):
        await replica.limiter.reserve(claim)
    assert [standing.remaining for standing in (await replica.grant(*limits)).standings] == [4, 1000, 0]


async def test_cancelled_at_any_moment_nothing_stays_held(replicas: tuple[Replica, Replica]) -> None:
    replica, other = replicas
    limits = (requests(1000), tokens(10_000), concurrency(100))
    waiting = [asyncio.create_task(replica.reserve(*limits, tokens=10)) for _ in range(100)]
    for turns, task in enumerate(waiting):
        if turns % 10 == 0:
            await asyncio.sleep(0)
        task.cancel()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    grants = [decision for decision in done if isinstance(decision, Grant)]
    await settled(replica)
    standings = (await other.grant(*limits)).standings
    assert [standing.remaining for standing in standings] == [
        1000 - len(grants) - 1,
        10_000 - 10 * len(grants),
        100 - len(grants) - 1,
    ]


async def test_no_limits_no_call(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    grant = await replica.grant(tokens=5)
    replica.limiter.settle(grant, 5)
    replica.limiter.release(grant)
    await settled(replica)
    assert replica.server.execute("DBSIZE") == 0
    await replica.close()
    assert isinstance(await replica.limiter.reserve(Claim(new_id(), "team_1", (), 0)), Grant)


async def test_all_keys_are_in_the_teams_slot_and_expire(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    hourly = tokens(100, key="key_2", window_ms=3_600_000)
    grant = await replica.grant(requests(5), tokens(1000), concurrency(2), team_requests(7), tokens=10)
    await replica.grant(hourly, tokens=5, request_id="hour")
    server = replica.server
    leases = "hg:{team_1}:key:key_1:concurrency"
    assert 14_000 < server.execute("PTTL", leases) <= 15_000
    server.execute("PERSIST", leases)
    await replica.limiter.heartbeat()
    replica.limiter._void(Claim("void", "team_1", (), 0))
    await settled(replica)
    keys = server.execute("KEYS", "*")
    assert sorted(keys) == sorted(
        [
            f"hg:{{team_1}}:reservation:{grant.claim.request_id}".encode(),
            b"hg:{team_1}:reservation:hour",
            b"hg:{team_1}:reservation:void",
            b"hg:{team_1}:key:key_1:requests_per_minute",
            b"hg:{team_1}:key:key_1:tokens_per_minute",
            b"hg:{team_1}:key:key_1:concurrency",
            b"hg:{team_1}:key:key_2:tokens_per_minute",
            b"hg:{team_1}:team:team_1:requests_per_minute",
        ]
    )
    for key in keys:
        remaining_ms = server.execute("PTTL", key)
        hour = b"key_2" in key or b"hour" in key
        shortest_ms = 3_600_000 if hour else 14_000 if key == leases.encode() else 55_000
        assert shortest_ms < remaining_ms <= (3_720_000 if hour else 62_000)
    replica.limiter.settle(grant, 10)
    await settled(replica)
    left = server.execute("KEYS", "*")
    assert f"hg:{{team_1}}:reservation:{grant.claim.request_id}".encode() not in left
    assert b"hg:{team_1}:key:key_1:concurrency" not in left


async def test_a_window_holds_no_more_than_its_slots(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    limit = tokens(10**9)
    for _ in range(300):
        replica.limiter.settle(await replica.grant(limit, tokens=7), 5)
        replica.clock.advance(1000)
    await settled(replica)
    fields = replica.server.execute("HGETALL", "hg:{team_1}:key:key_1:tokens_per_minute")
    held = dict(zip(fields[::2], fields[1::2], strict=True))
    total, first, last = (int(held.pop(name)) for name in (b"total", b"first", b"last"))
    assert len(held) == 61
    assert (last - first, total) == (60, 61 * 5)


async def test_numbers_are_written_without_an_exponent(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    limit = tokens(10**15)
    grants = []
    for _ in range(200):
        grants.append(await replica.grant(limit, concurrency(500), tokens=10**12))
        replica.clock.advance(50)
    replica.limiter.settle(grants[0], 10**12)  # a difference of nothing
    await settled(replica)
    held = replica.server.execute("HVALS", "hg:{team_1}:key:key_1:tokens_per_minute")
    held += replica.server.execute("ZRANGE", "hg:{team_1}:key:key_1:concurrency", 0, -1, "WITHSCORES")[1::2]
    assert all(number.isdigit() for number in held)
    assert str(200 * 10**12).encode() in held


async def test_a_flush_starts_afresh_and_late_settlements_change_nothing(
    replicas: tuple[Replica, Replica],
) -> None:
    replica, _ = replicas
    limits = (tokens(1000), concurrency(1))
    before = await replica.grant(*limits, tokens=900)
    replica.server.flush()
    after = await replica.grant(*limits, tokens=900)
    replica.limiter.settle(before, 0)
    await settled(replica)
    assert [standing.remaining for standing in (await replica.refuse(*limits, tokens=200)).standings] == [100, 0]
    replica.limiter.settle(after, 900)


async def test_an_evicted_window_is_never_negative(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    limit = tokens(1000)
    grant = await replica.grant(limit, tokens=900)
    replica.server.execute("DEL", "hg:{team_1}:key:key_1:tokens_per_minute")
    await replica.grant(limit, tokens=100)
    replica.limiter.settle(grant, 0)
    assert (await replica.grant(limit)).standings[0].remaining == 1000


async def test_the_servers_clock_decides(shared_server: ValkeyServer) -> None:
    shared_server.flush()
    wrong = TestClock(5)
    client = RedisClient(shared_server.url)
    limiter = RedisLimiter(client, clock=wrong)
    await client.start()
    limits = (requests(1), concurrency(5))
    grant = await limiter.reserve(Claim("one", "team_1", limits, 0))
    assert isinstance(grant, Grant)
    now_ms = time.time_ns() // 1_000_000
    assert abs(grant.admitted_at_ms - now_ms) < 5000
    refusal = await limiter.reserve(Claim("two", "team_1", limits, 0))
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after_ms is not None
    assert 59_000 < refusal.retry_after_ms <= 61_000
    await limiter.heartbeat()
    expiry = shared_server.execute("ZSCORE", "hg:{team_1}:key:key_1:concurrency", "one")
    assert abs(int(expiry) - 15_000 - now_ms) < 5000
    await client.close()


async def test_foreign_data_under_a_key_is_an_outage_of_that_key_only(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    replica.server.execute("SET", "hg:{team_1}:key:key_bad:requests_per_minute", "garbage")
    with pytest.raises(LimitsUnavailable):
        await replica.reserve(tokens(100), requests(5, key="key_bad"), tokens=60)
    assert (await replica.grant(tokens(100), requests(5), tokens=60)).standings[0].remaining == 40


async def test_the_printed_limiter_tells_how_it_is(replicas: tuple[Replica, Replica]) -> None:
    replica, _ = replicas
    grant = await replica.grant(concurrency(3))
    assert "up" in repr(replica.limiter)
    assert "leased 1" in repr(replica.limiter)
    replica.limiter.settle(grant, 0)
    assert "leased 0" in repr(replica.limiter)
    await eventually(lambda: "in flight 0" in repr(replica.limiter))
