"""Thousands of random steps, compared with a model of windows that keeps every request in a list."""

from __future__ import annotations

import random

import pytest

from app.limits.hot import Answer, Beat, Granted, Refused, Seen, Voided
from app.limits.limiter import Claim, Limit
from tests.contract.limits.harness import (
    MINUTE_MS,
    TEAM,
    Driver,
    claim,
    concurrency,
    requests,
    tokens,
)

STEPS = 2000
PAUSES_MS = (0, 0, 0, 1, 13, 250, 999, 1000, 1001, 4000, 14_000)

LIMITS: list[tuple[Limit, ...]] = [
    (requests(12), tokens(2000), concurrency(4)),
    (requests(12), tokens(2000), concurrency(4), requests(25, key=TEAM)),
    (requests(9, key="key_2"), requests(25, key=TEAM)),
    (tokens(500, key="key_2"), requests(25, key=TEAM)),
    (concurrency(3, key="key_3"), tokens(900, key="key_3", window_ms=6000)),
    (tokens(3000, key="key_4", window_ms=3_600_000), requests(100, key="key_4", window_ms=6000)),
]


class Counted:
    """One amount in a window, in the slot of its admission."""

    def __init__(self, slot: int, amount: int) -> None:
        self.slot = slot
        self.amount = amount


class Model:
    """Every question is answered by going through everything that was ever admitted."""

    def __init__(self) -> None:
        self.counted: dict[str, list[Counted]] = {}
        self.running: dict[str, set[str]] = {}
        self.open: dict[str, tuple[Claim, int, list[Counted | None]]] = {}
        self.admissions: dict[str, list[tuple[int, Limit]]] = {}

    def reserve(self, asked: Claim, now_ms: int) -> Granted | Refused:
        is_held = asked.request_id in self.open
        amounts = [0 if is_held else asked.amount_of(limit) for limit in asked.limits]
        waits = [self.wait_ms(limit, amount, now_ms) for limit, amount in zip(asked.limits, amounts, strict=True)]
        longest = max(waits)
        if longest:
            retry = None if longest == float("inf") else int(longest)
            return Refused(waits.index(longest), retry, self.standings(asked, now_ms))
        if not is_held:
            self.take(asked, now_ms)
        return Granted(self.open[asked.request_id][1], self.standings(asked, now_ms))

    def settle(self, request_id: str, used: int) -> None:
        if request_id not in self.open:
            return
        ended, _, counted = self.open.pop(request_id)
        for limit, event in zip(ended.limits, counted, strict=True):
            if limit.kind == "concurrency":
                self.running[limit.counter].discard(request_id)
            elif limit.kind == "tokens" and event is not None:
                event.amount = used

    def take(self, asked: Claim, now_ms: int) -> None:
        events: list[Counted | None] = []
        for limit in asked.limits:
            if limit.kind == "concurrency":
                self.running.setdefault(limit.counter, set()).add(asked.request_id)
                events.append(None)
                continue
            event = Counted(now_ms // limit.slot_ms, asked.amount_of(limit))
            self.counted.setdefault(limit.counter, []).append(event)
            self.admissions.setdefault(limit.counter, []).append((now_ms, limit))
            events.append(event)
        self.open[asked.request_id] = (asked, now_ms, events)

    def wait_ms(self, limit: Limit, amount: int, now_ms: int) -> float:
        if amount == 0:
            return 0
        if amount > limit.maximum:
            return float("inf")
        if self.held(limit, now_ms) + amount <= limit.maximum:
            return 0
        if limit.kind == "concurrency":
            return 1000
        moments = sorted({(event.slot + 61) * limit.slot_ms for event in self.counted[limit.counter]})
        return next(at - now_ms for at in moments if at > now_ms and self.held(limit, at) + amount <= limit.maximum)

    def held(self, limit: Limit, at_ms: int) -> int:
        if limit.kind == "concurrency":
            return len(self.running.get(limit.counter, ()))
        oldest = at_ms // limit.slot_ms - 60
        return sum(event.amount for event in self.counted.get(limit.counter, ()) if event.slot >= oldest)

    def standings(self, asked: Claim, now_ms: int) -> tuple[tuple[int, int], ...]:
        standings: list[tuple[int, int]] = []
        for limit in asked.limits:
            held = self.held(limit, now_ms)
            reset_ms = 0
            if held and limit.kind == "concurrency":
                reset_ms = 1000
            elif held:
                newest = max(event.slot for event in self.counted[limit.counter])
                reset_ms = (newest + 61) * limit.slot_ms - now_ms
            standings.append((max(0, limit.maximum - held), reset_ms))
        return tuple(standings)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_answer_is_the_models(driver: Driver, seed: int) -> None:
    source = random.Random(seed)
    model = Model()
    settled: list[Claim] = []
    open_claims: dict[str, Claim] = {}
    answers: dict[type[Answer], int] = {Granted: 0, Refused: 0}
    for _ in range(STEPS):
        if source.random() < 0.3:
            driver.clock.advance(source.choice(PAUSES_MS))
            await driver.do(Beat(TEAM, driver.epoch, tuple(map(Seen, open_claims.values()))))
        now_ms = driver.clock.now_ms()
        dice = source.random()
        if dice < 0.6 or not open_claims:
            asked = claim(*source.choice(LIMITS), tokens=source.choice((0, 1, 50, 300, 700, 2001)))
            if dice < 0.05 and open_claims:
                asked = source.choice(list(open_claims.values()))  # a re-sent one
            answer = await driver.reserve(asked)
            assert answer == model.reserve(asked, now_ms)
            answers[type(answer)] += 1
            if isinstance(answer, Granted):
                open_claims[asked.request_id] = asked
        elif dice < 0.95:
            ended = open_claims.pop(source.choice(list(open_claims)))
            used = source.choice((0, 1, 49, 50, 300, 5000))
            await driver.settle(ended, used)
            model.settle(ended.request_id, used)
            settled.append(ended)
        elif settled:
            await driver.settle(source.choice(settled), 777)
    assert min(answers.values()) > STEPS / 20, answers
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


async def test_the_model_can_fail(driver: Driver) -> None:
    """The comparison would notice a refund in the wrong second."""
    model = Model()
    asked = claim(tokens(100), tokens=60)
    answer = await driver.reserve(asked)
    assert (
        answer == model.reserve(asked, driver.clock.now_ms()) == Granted(driver.clock.now_ms(), ((40, 61_000 - 123),))
    )
    await driver.settle(asked, 10)
    other = claim(tokens(100), tokens=60)
    assert await driver.reserve(other) != model.reserve(other, driver.clock.now_ms())
    assert not isinstance(await driver.reserve(asked), Voided)
    assert driver.clock.now_ms() % MINUTE_MS
