"""Looking at what is counted: the same as a reservation would say, and nothing is changed by it."""

from __future__ import annotations

import random

from app.limits.hot import Counted, Peek, Reserve, Settle
from app.limits.limiter import Limit, Outcome
from tests.contract.limits.harness import LIGHT, MINUTE_MS, TEAM, Driver, claim, concurrency, requests, tokens


async def counted(driver: Driver, *limits: Limit, tag: str = TEAM) -> tuple[tuple[int, int], ...]:
    return (await driver.expect(Counted, Peek(tag, limits))).counts


async def test_nothing_is_counted_where_nobody_asked(driver: Driver) -> None:
    assert await counted(driver, requests(3), concurrency(2)) == ((0, 0), (0, 0))
    assert await counted(driver, requests(3), tag="team_of_nobody") == ((0, 0),)


async def test_requests_tokens_and_running_calls(driver: Driver) -> None:
    limits = requests(3), tokens(1000), concurrency(2)
    taken = await driver.take(*limits, tokens=400)
    assert await counted(driver, *limits) == ((1, 61_000 - 123), (400, 61_000 - 123), (1, 1000))
    await driver.settle(taken, tokens=250)
    assert await counted(driver, *limits) == ((1, 61_000 - 123), (250, 61_000 - 123), (0, 0))
    driver.clock.advance(61_000 - 123)
    assert await counted(driver, *limits) == ((0, 0), (0, 0), (0, 0))


async def test_a_lease_that_has_ended_is_not_counted(driver: Driver) -> None:
    limit = concurrency(2)
    await driver.take(limit)
    driver.clock.advance(20_000)
    assert await counted(driver, limit) == ((0, 0),)


async def test_limits_of_an_upstream(driver: Driver) -> None:
    limit = requests(5)
    asked = claim(limit, tag=LIGHT)
    await driver.grant(asked)
    await driver.do(Settle(asked, "", Outcome(2, 0, 0)))
    assert (await counted(driver, limit, tag=LIGHT))[0][0] == 1


async def test_it_says_what_a_reservation_says_and_changes_nothing(driver: Driver) -> None:
    """Peeks at random moments; the granted standings that follow are those of a store that was never looked at."""
    source = random.Random(5)
    limits = requests(10**6), tokens(10**9), tokens(10**9, key="key_2", window_ms=60 * MINUTE_MS)
    for _ in range(150):
        asked = claim(*limits, tokens=source.randrange(0, 900))
        before = await counted(driver, *limits)
        granted = await driver.grant(asked)
        after = await counted(driver, *limits)
        amounts = [asked.amount_of(limit) for limit in limits]
        assert [held for held, _ in after] == [held + amount for (held, _), amount in zip(before, amounts, strict=True)]
        assert granted.standings == tuple(
            (limit.maximum - held, reset_ms) for limit, (held, reset_ms) in zip(limits, after, strict=True)
        )
        if source.random() < 0.6:
            await driver.settle(asked, source.randrange(0, 900))
        driver.clock.advance(source.choice((0, 3, 700, 9000, 70_000)))


async def test_it_may_be_asked_between_a_claim_and_its_repetition(driver: Driver) -> None:
    asked = claim(requests(3))
    await driver.grant(asked)
    await counted(driver, *asked.limits)
    await driver.do(Reserve(asked, "1"))
    assert (await counted(driver, *asked.limits))[0][0] == 1
