"""What every limiter promises, whatever keeps its counters."""

from __future__ import annotations

import asyncio
import random

import pytest

from app.limits.limiter import AMOUNT_MAX, Claim, Grant, Limit, Refusal
from tests.contract.limits.harness import (
    MINUTE_MS,
    START_MS,
    Driver,
    concurrency,
    new_id,
    requests,
    team_requests,
    tokens,
)


async def test_a_claim_without_limits_is_granted_with_the_time(driver: Driver) -> None:
    grant = await driver.grant(tokens=10**9)
    assert grant.standings == ()
    assert grant.admitted_at_ms == START_MS
    driver.limiter.settle(grant, 5)
    driver.limiter.release(grant)


async def test_requests_up_to_the_limit_and_not_one_more(driver: Driver) -> None:
    limit = requests(3)
    assert [(await driver.grant(limit)).standings[0].remaining for _ in range(3)] == [2, 1, 0]
    refusal = await driver.refuse(limit)
    assert refusal.limit is limit
    assert refusal.standings[0].remaining == 0
    # Admitted at .123 of their second: that second is outside of every window 61 seconds after it began.
    assert refusal.retry_after_ms == 61_000 - 123


async def test_a_refused_request_is_not_counted(driver: Driver) -> None:
    limit = requests(1)
    await driver.grant(limit)
    for _ in range(20):
        driver.clock.advance(1000)
        await driver.refuse(limit)
    driver.clock.advance(61_000 - 123 - 20_000)
    await driver.grant(limit)


async def test_retry_after_is_the_first_moment_at_which_it_fits(driver: Driver) -> None:
    source = random.Random(7)
    limits = (tokens(1000), requests(40), tokens(2500, key="key_2"))
    waits = 0
    while waits < 60:
        amount = source.randrange(1, 900)
        decision = await driver.reserve(*limits, tokens=amount)
        if isinstance(decision, Grant):
            driver.clock.advance(source.randrange(0, 3000))
            if source.random() < 0.7:
                driver.limiter.settle(decision, source.randrange(0, 1200))
            continue
        waits += 1
        assert decision.retry_after_ms is not None
        driver.clock.advance(decision.retry_after_ms - 1)
        again = await driver.refuse(*limits, tokens=amount)
        assert again.retry_after_ms == 1
        driver.clock.advance(1)
        await driver.grant(*limits, tokens=amount)


async def test_never_more_than_the_limit_in_any_sixty_seconds(driver: Driver) -> None:
    source = random.Random(11)
    limit = requests(50)
    admitted: list[int] = []
    while driver.clock.now_ms() < START_MS + 4 * MINUTE_MS:
        # Bursts at every phase of a second, with the pauses that would catch a window of whole minutes.
        burst = [await driver.reserve(limit) for _ in range(source.choice((1, 2, 30)))]
        admitted += [driver.clock.now_ms() for decision in burst if isinstance(decision, Grant)]
        driver.clock.advance(source.choice((1, 7, 333, 999, 1000, 2501, 20_000)))
    for index, at_ms in enumerate(admitted):
        in_window = [other for other in admitted[index:] if other < at_ms + MINUTE_MS]
        assert len(in_window) <= 50
    assert len(admitted) > 150  # the limit is used, not merely kept


async def test_steady_traffic_gets_all_but_a_sixtieth(driver: Driver) -> None:
    limit = requests(61)
    granted = 0
    for _ in range(61 * 4):
        granted += isinstance(await driver.reserve(limit), Grant)
        driver.clock.advance(1000)
    assert granted == 61 * 4  # one a second is 61 in 61 slots


async def test_a_request_larger_than_the_limit_never_fits(driver: Driver) -> None:
    refusal = await driver.refuse(requests(5), tokens(100), tokens=101)
    assert refusal.retry_after_ms is None
    assert refusal.limit == tokens(100)
    assert [standing.remaining for standing in refusal.standings] == [5, 100]
    for limit in (requests(0), concurrency(0)):
        assert (await driver.refuse(limit)).retry_after_ms is None


async def test_never_goes_before_every_wait(driver: Driver) -> None:
    await driver.grant(requests(1))
    refusal = await driver.refuse(requests(1), tokens(100), tokens=101)
    assert (refusal.limit.kind, refusal.retry_after_ms) == ("tokens", None)


async def test_all_or_nothing(driver: Driver) -> None:
    full = requests(1, key="key_full")
    await driver.grant(full)
    others = (requests(9), tokens(100), concurrency(2), team_requests(9))
    for place in range(5):
        refusal = await driver.refuse(*others[:place], full, *others[place:], tokens=60)
        assert refusal.limit is full
    assert [standing.remaining for standing in (await driver.grant(*others, tokens=60)).standings] == [8, 40, 1, 8]


async def test_the_limit_that_waits_longest_is_named(driver: Driver) -> None:
    first, second, running = requests(1), tokens(100), concurrency(1)
    await driver.grant(first, running)
    driver.clock.advance(5000)
    await driver.grant(second, tokens=100)
    refusal = await driver.refuse(running, first, second, tokens=1)
    assert refusal.limit is second
    assert refusal.retry_after_ms == 61_000 - 123
    assert (await driver.refuse(running, first)).limit is first
    assert (await driver.refuse(running)).retry_after_ms == 1000


async def test_of_limits_that_wait_alike_the_first_is_named(driver: Driver) -> None:
    first, second = requests(1, key="key_1"), requests(1, key="key_2")
    await driver.grant(first, second)
    assert (await driver.refuse(first, second)).limit is first
    assert (await driver.refuse(second, first)).limit is second


async def test_a_refund_frees_what_was_reserved(driver: Driver) -> None:
    limit = tokens(1000)
    grant = await driver.grant(limit, tokens=900)
    assert (await driver.refuse(limit, tokens=200)).standings[0].remaining == 100
    driver.limiter.settle(grant, 50)
    assert await driver.remaining(limit) == 950
    driver.limiter.settle(await driver.grant(limit, tokens=950), 950)
    assert await driver.remaining(limit) == 0


async def test_what_is_owed_may_exceed_the_limit_and_later_requests_wait(driver: Driver) -> None:
    limit = tokens(1000)
    grant = await driver.grant(limit, tokens=10)
    driver.clock.advance(2000)
    later = await driver.grant(limit, tokens=600)
    driver.limiter.settle(grant, 5000)
    refusal = await driver.refuse(limit, tokens=1)
    assert refusal.standings[0].remaining == 0
    assert refusal.retry_after_ms == 59_000 - 123  # the debt leaves with the slot of its admission
    driver.clock.advance(59_000 - 123)
    assert (await driver.grant(limit, tokens=1)).standings[0].remaining == 399
    driver.limiter.settle(later, 600)


async def test_a_settlement_belongs_to_the_second_of_admission(driver: Driver) -> None:
    limit = tokens(1000)
    grant = await driver.grant(limit, tokens=1000)
    driver.clock.advance(58_000)
    driver.limiter.settle(grant, 1000)
    assert (await driver.refuse(limit, tokens=1)).retry_after_ms == 3000 - 123
    driver.clock.advance(3000 - 123)
    assert await driver.remaining(limit) == 1000


@pytest.mark.parametrize("used", [0, 500, 10**6])
async def test_a_settlement_whose_slot_has_left_changes_nothing(driver: Driver, used: int) -> None:
    limit = tokens(1000)
    grant = await driver.grant(limit, tokens=700)
    driver.clock.advance(61_000)
    await driver.grant(limit, tokens=400)
    driver.limiter.settle(grant, used)
    assert await driver.remaining(limit) == 600


async def test_a_settlement_long_after_everything_was_forgotten(driver: Driver) -> None:
    limit, running = tokens(1000), concurrency(1)
    grant = await driver.grant(limit, running, tokens=700)
    driver.clock.advance(20 * MINUTE_MS)
    driver.limiter.settle(grant, 900)
    assert [standing.remaining for standing in (await driver.grant(limit, running, tokens=1)).standings] == [999, 0]


async def test_tokens_without_an_estimate_are_owed_in_full(driver: Driver) -> None:
    limit = tokens(100)
    grant = await driver.grant(limit, tokens=0)
    driver.limiter.settle(grant, 70)
    assert await driver.remaining(limit) == 30


async def test_a_claim_of_no_tokens_passes_a_token_limit_that_is_over(driver: Driver) -> None:
    limit = tokens(100)
    driver.limiter.settle(await driver.grant(limit, tokens=100), 500)
    await driver.refuse(limit, tokens=1)
    assert (await driver.grant(limit, tokens=0)).standings[0].remaining == 0


async def test_settling_twice_changes_nothing(driver: Driver) -> None:
    limit, running = tokens(1000), concurrency(2)
    grant = await driver.grant(limit, running, tokens=600)
    other = await driver.grant(limit, running, tokens=100)
    for _ in range(3):
        driver.limiter.settle(grant, 200)
    driver.limiter.settle(grant, 900)
    driver.limiter.release(grant)
    refusal = await driver.refuse(limit, running, tokens=701)
    assert [standing.remaining for standing in refusal.standings] == [700, 1]
    driver.limiter.release(other)


async def test_the_same_claim_again_is_granted_and_not_counted_twice(driver: Driver) -> None:
    limits = (requests(1), tokens(100), concurrency(1))
    first = await driver.grant(*limits, tokens=80, request_id="again")
    driver.clock.advance(3000)
    second = await driver.grant(*limits, tokens=80, request_id="again")
    assert [standing.remaining for standing in second.standings] == [0, 20, 0]
    assert second.admitted_at_ms == first.admitted_at_ms == START_MS
    driver.limiter.settle(second, 30)
    refusal = await driver.refuse(*limits, tokens=10)
    assert [standing.remaining for standing in refusal.standings] == [0, 70, 1]


async def test_the_same_claim_again_shows_the_window_of_now(driver: Driver) -> None:
    limit = tokens(100)
    await driver.grant(limit, tokens=60, request_id="long")
    driver.clock.advance(61_000)
    again = await driver.grant(limit, tokens=60, request_id="long")
    assert (again.standings[0].remaining, again.standings[0].reset_ms) == (100, 0)


async def test_concurrency_comes_free_at_settlement(driver: Driver) -> None:
    limit = concurrency(2)
    first, second = await driver.grant(limit), await driver.grant(limit)
    refusal = await driver.refuse(limit)
    assert (refusal.retry_after_ms, refusal.standings[0].remaining) == (1000, 0)
    driver.clock.advance(10 * MINUTE_MS)
    await driver.refuse(limit)
    driver.limiter.settle(first, 0)
    third = await driver.grant(limit)
    await driver.refuse(limit)
    driver.limiter.release(second)
    driver.limiter.release(third)
    assert (await driver.grant(limit)).standings[0].remaining == 1


async def test_a_released_request_stays_counted_and_gives_back_the_rest(driver: Driver) -> None:
    limits = (requests(5), tokens(100), concurrency(5))
    grant = await driver.grant(*limits, tokens=90)
    driver.limiter.release(grant)
    assert [s.remaining for s in (await driver.grant(*limits, tokens=0)).standings] == [3, 100, 4]


async def test_reset_says_when_nothing_is_held_any_more(driver: Driver) -> None:
    limit = requests(5)
    first = await driver.grant(limit)
    assert first.standings[0].reset_ms == 61_000 - 123
    driver.clock.advance(10_000)
    assert (await driver.grant(limit)).standings[0].reset_ms == 61_000 - 123
    untouched = (await driver.refuse(tokens(10), tokens=11)).standings[0]
    assert (untouched.remaining, untouched.reset_ms) == (10, 0)


async def test_keys_and_scopes_have_counters_of_their_own(driver: Driver) -> None:
    await driver.grant(requests(1, key="key_1"), team_requests(2))
    await driver.grant(requests(1, key="key_2"), team_requests(2))
    refusal = await driver.refuse(requests(1, key="key_3"), team_requests(2))
    assert refusal.limit.scope == "team"
    await driver.grant(requests(1, key="team_1"))  # a key with the id of a team
    other = await driver.limiter.reserve(Claim(new_id(), "team_2", (requests(1, key="key_9"),), 0))
    assert isinstance(other, Grant)


async def test_a_changed_maximum_holds_at_once_and_keeps_what_was_counted(driver: Driver) -> None:
    for _ in range(5):
        await driver.grant(requests(5))
    assert (await driver.grant(requests(7))).standings[0].remaining == 1
    refusal = await driver.refuse(requests(2))
    assert refusal.standings[0].remaining == 0
    assert refusal.retry_after_ms == 61_000 - 123


@pytest.mark.parametrize("window_ms", [60, 600, 3_600_000, 86_400_000])
async def test_windows_of_any_length(driver: Driver, window_ms: int) -> None:
    slot_ms = window_ms // 60
    limit = requests(2, window_ms=window_ms)
    first = await driver.grant(limit)
    driver.clock.advance(window_ms // 2)
    await driver.grant(limit)
    refusal = await driver.refuse(limit)
    leaves_at_ms = (first.admitted_at_ms // slot_ms + 61) * slot_ms
    assert refusal.retry_after_ms == leaves_at_ms - driver.clock.now_ms()
    driver.clock.advance(refusal.retry_after_ms)
    await driver.grant(limit)


async def test_large_amounts_stay_exact(driver: Driver) -> None:
    limit = tokens(10**15)
    grants = [await driver.grant(limit, tokens=AMOUNT_MAX - 1) for _ in range(900)]
    assert await driver.remaining(limit) == 10**15 - 900 * (AMOUNT_MAX - 1)
    for grant in grants:
        driver.limiter.settle(grant, 1)
    assert await driver.remaining(limit) == 10**15 - 900


async def test_absurd_amounts_are_cut_to_what_can_be_counted(driver: Driver) -> None:
    limit = tokens(10**15)
    driver.limiter.settle(await driver.grant(limit, tokens=10**30), 10**30)
    assert await driver.remaining(limit) == 10**15 - AMOUNT_MAX
    driver.limiter.settle(await driver.grant(limit, tokens=-5), -(10**30))
    assert await driver.remaining(limit) == 10**15 - AMOUNT_MAX


async def test_a_clock_set_back_a_little_counts_on(driver: Driver) -> None:
    limit = requests(2)
    await driver.grant(limit)
    driver.clock.advance(-5000)
    await driver.grant(limit)
    refusal = await driver.refuse(limit)
    assert refusal.retry_after_ms == 61_000 - 123 + 5000
    driver.clock.advance(refusal.retry_after_ms - 1)
    await driver.refuse(limit)
    driver.clock.advance(1)
    await driver.grant(limit)


async def test_a_clock_set_back_by_hours_does_not_lock_the_limit(driver: Driver) -> None:
    limit = tokens(10)
    grant = await driver.grant(limit, tokens=10)
    driver.clock.advance(-3_600_000)
    await driver.grant(limit, tokens=10)
    await driver.refuse(limit, tokens=1)
    driver.limiter.settle(grant, 0)  # of a slot that is not held any more
    await driver.refuse(limit, tokens=1)


async def test_many_at_once_never_pass_the_limit(driver: Driver) -> None:
    limits = (requests(100), concurrency(30), tokens(10_000))

    async def one() -> Grant | Refusal:
        return await driver.reserve(*limits, tokens=50)

    decisions = await asyncio.gather(*(one() for _ in range(200)))
    grants = [decision for decision in decisions if isinstance(decision, Grant)]
    assert len(grants) == 30
    for grant in grants:
        driver.limiter.settle(grant, 50)
    decisions = await asyncio.gather(*(one() for _ in range(200)))
    assert sum(isinstance(decision, Grant) for decision in decisions) == 30


def test_a_limit_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        requests(-1)
    with pytest.raises(ValueError, match="slots"):
        requests(1, window_ms=1001)
    with pytest.raises(ValueError, match="slots"):
        Limit("key", "key_1", "requests_per_minute", "requests", 1)
