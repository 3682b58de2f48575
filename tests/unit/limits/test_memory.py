from __future__ import annotations

from app.limits.limiter import Claim, Grant, Limit
from app.limits.memory import MemoryLimiter
from tests.contract.limits.harness import MINUTE_MS, TestClock, concurrency, new_id, requests, tokens


def claim(*limits: Limit, amount: int = 5) -> Claim:
    return Claim(new_id(), "team_1", limits, amount)


async def test_idle_state_is_dropped() -> None:
    clock = TestClock()
    limiter = MemoryLimiter(clock)
    for n in range(1000):
        limits = (requests(5, key=f"k{n}"), tokens(100, key=f"k{n}"), concurrency(2, key=f"k{n}"))
        decision = await limiter.reserve(claim(*limits))
        assert isinstance(decision, Grant)
        limiter.settle(decision, 3)
    assert len(limiter._gauges) > 1000
    clock.advance(61_000)
    for _ in range(1100):
        clock.advance(1)
        await limiter.reserve(claim(requests(10**6, key="busy"), tokens(10**9, key="busy")))
    assert len(limiter._gauges) <= 2 + 1000  # the leases went at once, a third of the sweep went to the busy
    for _ in range(1100):
        await limiter.reserve(claim(requests(10**6, key="busy"), tokens(10**9, key="busy")))
    assert len(limiter._gauges) == 2


async def test_what_is_held_is_not_dropped() -> None:
    clock = TestClock()
    limiter = MemoryLimiter(clock)
    running = await limiter.reserve(claim(concurrency(1, key="long")))
    assert isinstance(running, Grant)
    for _ in range(300):
        clock.advance(MINUTE_MS)
        await limiter.reserve(claim(requests(5, key=new_id())))
    assert not isinstance(await limiter.reserve(claim(concurrency(1, key="long"))), Grant)
    limiter.settle(running, 0)
    assert isinstance(await limiter.reserve(claim(concurrency(1, key="long"))), Grant)


async def test_new_keys_all_the_time_do_not_pile_up() -> None:
    clock = TestClock()
    limiter = MemoryLimiter(clock)
    most = 0
    for _ in range(5000):
        clock.advance(1000)
        decision = await limiter.reserve(claim(requests(5, key=new_id()), concurrency(1, key=new_id())))
        assert isinstance(decision, Grant)
        limiter.settle(decision, 0)
        most = max(most, len(limiter._gauges))
    assert most < 4 * 61
    assert repr(limiter).startswith("MemoryLimiter(open 0, gauges ")


async def test_refused_requests_leave_nothing() -> None:
    limiter = MemoryLimiter(TestClock())
    for _ in range(100):
        await limiter.reserve(claim(tokens(1, key=new_id()), concurrency(5, key=new_id())))
    assert len(limiter._gauges) <= 4
    assert limiter._open == {}


async def test_start_and_close_ask_nothing() -> None:
    limiter = MemoryLimiter()
    await limiter.start()
    assert isinstance(await limiter.reserve(claim()), Grant)
    await limiter.close()
