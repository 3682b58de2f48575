"""Thousands of random steps, compared with a model that keeps every request in a list."""

from __future__ import annotations

import random

import pytest

from app.limits.limiter import Claim, Grant, Limit, Refusal, Standing
from app.limits.memory import MemoryLimiter
from app.limits.redis import RedisLimiter
from app.store.redis import RedisClient
from tests.contract.limits.harness import (
    MINUTE_MS,
    Driver,
    TestClock,
    concurrency,
    new_id,
    requests,
    team_requests,
    tokens,
)
from tests.fakes.valkey import ValkeyServer

STEPS = 4000
PAUSES_MS = (0, 0, 0, 1, 13, 250, 999, 1000, 1001, 4000, 15_000, 61_000, 200_000)

CLAIMS: list[tuple[Limit, ...]] = [
    (requests(12), tokens(2000), concurrency(4)),
    (requests(12), tokens(2000), concurrency(4), team_requests(25)),
    (requests(9, key="key_2"), team_requests(25)),
    (tokens(500, key="key_2"), team_requests(25)),
    (concurrency(3, key="key_3"), tokens(900, key="key_3", window_ms=6000)),
    (tokens(3000, key="key_4", window_ms=3_600_000), requests(100, key="key_4", window_ms=600)),
]


class Counted:
    """One amount in a window, in the slot of its admission."""

    def __init__(self, slot: int, amount: int) -> None:
        self.slot = slot
        self.amount = amount


class Model:
    """Every question is answered by going through everything that was ever admitted."""

    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], list[Counted]] = {}
        self.running: dict[tuple[str, str], set[str]] = {}
        self.open: dict[str, tuple[Claim, int, list[Counted | None]]] = {}
        self.admissions: dict[tuple[str, str], list[tuple[int, Limit]]] = {}

    def reserve(self, claim: Claim, now_ms: int) -> tuple[object, ...]:
        held = claim.request_id in self.open
        amounts = [0 if held else claim.amount_of(limit) for limit in claim.limits]
        waits = [
            (self.wait_ms(limit, amount, now_ms), limit) for limit, amount in zip(claim.limits, amounts, strict=True)
        ]
        longest = max(wait for wait, _ in waits)
        if longest:
            named = next(limit for wait, limit in waits if wait == longest)
            retry = None if longest == float("inf") else longest
            return ("refused", named, retry, self.standings(claim, now_ms))
        if not held:
            self.take(claim, now_ms)
        return ("granted", self.open[claim.request_id][1], self.standings(claim, now_ms))

    def settle(self, request_id: str, used: int) -> None:
        if request_id not in self.open:
            return
        claim, _, counted = self.open.pop(request_id)
        for limit, event in zip(claim.limits, counted, strict=True):
            if limit.kind == "concurrency":
                self.running[_key(limit)].discard(request_id)
            elif limit.kind == "tokens" and event is not None:
                event.amount = used

    def take(self, claim: Claim, now_ms: int) -> None:
        events: list[Counted | None] = []
        for limit in claim.limits:
            if limit.kind == "concurrency":
                self.running.setdefault(_key(limit), set()).add(claim.request_id)
                events.append(None)
                continue
            event = Counted(now_ms // limit.slot_ms, claim.amount_of(limit))
            self.counted.setdefault(_key(limit), []).append(event)
            self.admissions.setdefault(_key(limit), []).append((now_ms, limit))
            events.append(event)
        self.open[claim.request_id] = (claim, now_ms, events)

    def wait_ms(self, limit: Limit, amount: int, now_ms: int) -> float:
        if amount == 0:
            return 0
        if amount > limit.maximum:
            return float("inf")
        if self.held(limit, now_ms) + amount <= limit.maximum:
            return 0
        if limit.kind == "concurrency":
            return 1000
        moments = sorted({(event.slot + 61) * limit.slot_ms for event in self.counted[_key(limit)]})
        return next(at - now_ms for at in moments if at > now_ms and self.held(limit, at) + amount <= limit.maximum)

    def held(self, limit: Limit, at_ms: int) -> int:
        if limit.kind == "concurrency":
            return len(self.running.get(_key(limit), ()))
        oldest = at_ms // limit.slot_ms - 60
        return sum(event.amount for event in self.counted.get(_key(limit), ()) if event.slot >= oldest)

    def standings(self, claim: Claim, now_ms: int) -> list[tuple[int, int]]:
        standings: list[tuple[int, int]] = []
        for limit in claim.limits:
            held = self.held(limit, now_ms)
            reset_ms = 0
            if held and limit.kind == "concurrency":
                reset_ms = 1000
            elif held:
                newest = max(event.slot for event in self.counted[_key(limit)])
                reset_ms = (newest + 61) * limit.slot_ms - now_ms
            standings.append((max(0, limit.maximum - held), reset_ms))
        return standings


def _key(limit: Limit) -> tuple[str, str]:
    return limit.scope_id, limit.name


def _plain(decision: Grant | Refusal) -> tuple[object, ...]:
    standings = [(standing.remaining, standing.reset_ms) for standing in decision.standings]
    if isinstance(decision, Grant):
        return ("granted", decision.admitted_at_ms, standings)
    return ("refused", decision.limit, decision.retry_after_ms, standings)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_answer_is_the_models(driver: Driver, seed: int) -> None:
    source = random.Random(seed)
    model = Model()
    settled: list[Grant] = []
    open_grants: list[Grant] = []
    verdicts = {"granted": 0, "refused": 0}
    for _ in range(STEPS):
        driver.clock.advance(source.choice(PAUSES_MS) if source.random() < 0.3 else 0)
        now_ms = driver.clock.now_ms()
        dice = source.random()
        if dice < 0.6 or not open_grants:
            claim = Claim(new_id(), "team_1", source.choice(CLAIMS), source.choice((0, 1, 50, 300, 700, 2001)))
            if dice < 0.05 and open_grants:
                claim = source.choice(open_grants).claim  # a re-sent one
            decision = await driver.limiter.reserve(claim)
            expected = model.reserve(claim, now_ms)
            assert _plain(decision) == expected
            verdicts[str(expected[0])] += 1
            if isinstance(decision, Grant):
                open_grants.append(decision)
        elif dice < 0.95:
            grant = open_grants.pop(source.randrange(len(open_grants)))
            used = source.choice((0, 1, 49, 50, 300, 5000))
            driver.limiter.settle(grant, used)
            model.settle(grant.claim.request_id, used)
            settled.append(grant)
        elif settled:
            driver.limiter.settle(source.choice(settled), 777)
    assert min(verdicts.values()) > STEPS / 20, verdicts
    _assert_no_window_above_its_limit(model)


def _assert_no_window_above_its_limit(model: Model) -> None:
    for admissions in model.admissions.values():
        limit = admissions[0][1]
        if limit.kind != "requests":
            continue
        times = [at_ms for at_ms, _ in admissions]
        first = 0
        for last, at_ms in enumerate(times):
            while times[first] <= at_ms - limit.window_ms:
                first += 1
            assert last - first + 1 <= limit.maximum


@pytest.mark.parametrize("seed", range(3))
async def test_memory_and_redis_agree_also_when_the_clock_goes_back(shared_server: ValkeyServer, seed: int) -> None:
    shared_server.flush()
    clock = TestClock()
    client = RedisClient(shared_server.url)
    await client.start()
    redis = RedisLimiter(client, clock=clock, time_from_clock=True, lease_ms=10**9)
    memory = MemoryLimiter(clock)
    source = random.Random(seed)
    limits = (requests(30), tokens(4000), concurrency(8))
    grants: list[tuple[Grant, Grant]] = []
    for _ in range(2000):
        if source.random() < 0.4:
            clock.advance(source.choice((1, 500, 1000, 7000, 61_000, -1, -900, -3000, -30_000, -MINUTE_MS, -200_000)))
        if source.random() < 0.7 or not grants:
            claim = Claim(new_id(), "team_1", limits, source.randrange(0, 1500))
            left, right = await memory.reserve(claim), await redis.reserve(claim)
            assert left == right
            if isinstance(left, Grant) and isinstance(right, Grant):
                grants.append((left, right))
        else:
            mine, theirs = grants.pop(source.randrange(len(grants)))
            used = source.randrange(0, 3000)
            memory.settle(mine, used)
            redis.settle(theirs, used)
    await client.close()


async def test_the_model_can_fail(driver: Driver) -> None:
    """The comparison would notice a refund in the wrong second."""
    model = Model()
    claim = Claim("one", "team_1", (tokens(100),), 60)
    decision = await driver.limiter.reserve(claim)
    assert _plain(decision) == model.reserve(claim, driver.clock.now_ms())
    assert isinstance(decision, Grant)
    driver.limiter.settle(decision, 10)
    other = Claim("two", "team_1", (tokens(100),), 60)
    assert _plain(await driver.limiter.reserve(other)) != model.reserve(other, driver.clock.now_ms())
    assert decision.standings == (Standing(tokens(100), 40, 61_000 - 123),)
