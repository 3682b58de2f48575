"""Windows of requests and tokens, and running calls: what every store promises of them."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from app.limits.hot import Granted, Refused
from app.limits.limiter import AMOUNT_MAX, Claim, Limit
from tests.contract.limits.harness import (
    LIGHT,
    MINUTE_MS,
    START_MS,
    TEAM,
    Driver,
    claim,
    concurrency,
    requests,
    tokens,
)


def left(answer: Granted | Refused) -> list[int]:
    return [remaining for remaining, _ in answer.standings]


async def test_a_claim_without_limits_is_granted_with_the_time(driver: Driver) -> None:
    granted = await driver.grant(claim(tokens=10**9))
    assert granted == Granted(START_MS, ())


async def test_requests_up_to_the_limit_and_not_one_more(driver: Driver) -> None:
    limit = requests(3)
    assert [left(await driver.grant(claim(limit))) for _ in range(3)] == [[2], [1], [0]]
    # Admitted at .123 of their second: that second is outside of every window 61 seconds after it began.
    assert await driver.refuse(limit) == Refused(0, 61_000 - 123, ((0, 61_000 - 123),))


async def test_a_refused_request_is_not_counted(driver: Driver) -> None:
    limit = requests(1)
    await driver.take(limit)
    for _ in range(20):
        driver.clock.advance(1000)
        await driver.refuse(limit)
    driver.clock.advance(61_000 - 123 - 20_000)
    await driver.take(limit)


async def test_retry_after_is_the_first_moment_at_which_it_fits(driver: Driver) -> None:
    source = random.Random(7)
    limits = (tokens(1000), requests(40), tokens(2500, key="key_2"))
    waits = 0
    while waits < 60:
        amount = source.randrange(1, 900)
        asked = claim(*limits, tokens=amount)
        answer = await driver.reserve(asked)
        if isinstance(answer, Granted):
            driver.clock.advance(source.randrange(0, 3000))
            if source.random() < 0.7:
                await driver.settle(asked, source.randrange(0, 1200))
            continue
        waits += 1
        assert isinstance(answer, Refused)
        assert answer.retry_after_ms is not None
        driver.clock.advance(answer.retry_after_ms - 1)
        assert (await driver.refuse(*limits, tokens=amount)).retry_after_ms == 1
        driver.clock.advance(1)
        await driver.take(*limits, tokens=amount)


async def test_never_more_than_the_limit_in_any_sixty_seconds(driver: Driver) -> None:
    source = random.Random(11)
    limit = requests(50)
    admitted: list[int] = []
    while driver.clock.now_ms() < START_MS + 4 * MINUTE_MS:
        # Bursts at every phase of a second, with the pauses that would catch a window of whole minutes.
        burst = [await driver.reserve(claim(limit)) for _ in range(source.choice((1, 2, 30)))]
        admitted += [driver.clock.now_ms() for answer in burst if isinstance(answer, Granted)]
        driver.clock.advance(source.choice((1, 7, 333, 999, 1000, 2501, 20_000)))
    for index, at_ms in enumerate(admitted):
        in_window = [other for other in admitted[index:] if other < at_ms + MINUTE_MS]
        assert len(in_window) <= 50
    assert len(admitted) > 150  # the limit is used, not merely kept


async def test_steady_traffic_gets_all_but_a_sixtieth(driver: Driver) -> None:
    limit = requests(61)
    for _ in range(61 * 4):
        await driver.take(limit)  # one a second is 61 in 61 slots
        driver.clock.advance(1000)


async def test_a_request_larger_than_the_limit_never_fits(driver: Driver) -> None:
    refused = await driver.refuse(requests(5), tokens(100), tokens=101)
    assert (refused.index, refused.retry_after_ms, left(refused)) == (1, None, [5, 100])
    for limit in (requests(0), concurrency(0)):
        assert (await driver.refuse(limit)).retry_after_ms is None


async def test_never_goes_before_every_wait(driver: Driver) -> None:
    await driver.take(requests(1))
    refused = await driver.refuse(requests(1), tokens(100), tokens=101)
    assert (refused.index, refused.retry_after_ms) == (1, None)


async def test_all_or_nothing(driver: Driver) -> None:
    full = requests(1, key="key_full")
    await driver.take(full)
    others = (requests(9), tokens(100), concurrency(2), requests(9, key=TEAM))
    for place in range(5):
        refused = await driver.refuse(*others[:place], full, *others[place:], tokens=60)
        assert refused.index == place
    assert left(await driver.grant(claim(*others, tokens=60))) == [8, 40, 1, 8]


async def test_the_limit_that_waits_longest_is_named(driver: Driver) -> None:
    first, second, running = requests(1), tokens(100), concurrency(1)
    await driver.take(first, running)
    driver.clock.advance(5000)
    await driver.take(second, tokens=100)
    refused = await driver.refuse(running, first, second, tokens=1)
    assert (refused.index, refused.retry_after_ms) == (2, 61_000 - 123)
    assert (await driver.refuse(running, first)).index == 1
    assert (await driver.refuse(running)).retry_after_ms == 1000


async def test_of_limits_that_wait_alike_the_first_is_named(driver: Driver) -> None:
    first, second = requests(1, key="key_1"), requests(1, key="key_2")
    await driver.take(first, second)
    assert (await driver.refuse(first, second)).index == 0
    assert (await driver.refuse(second, first)).index == 0


async def test_a_refund_frees_what_was_reserved(driver: Driver) -> None:
    limit = tokens(1000)
    taken = await driver.take(limit, tokens=900)
    assert left(await driver.refuse(limit, tokens=200)) == [100]
    await driver.settle(taken, 50)
    assert await driver.remaining(limit) == 950
    await driver.settle(await driver.take(limit, tokens=950), 950)
    assert await driver.remaining(limit) == 0


async def test_what_is_owed_may_exceed_the_limit_and_later_requests_wait(driver: Driver) -> None:
    limit = tokens(1000)
    taken = await driver.take(limit, tokens=10)
    driver.clock.advance(2000)
    await driver.take(limit, tokens=600)
    await driver.settle(taken, 5000)
    refused = await driver.refuse(limit, tokens=1)
    # The debt leaves with the slot of its admission.
    assert (left(refused), refused.retry_after_ms) == ([0], 59_000 - 123)
    driver.clock.advance(59_000 - 123)
    assert left(await driver.grant(claim(limit, tokens=1))) == [399]


async def test_a_settlement_belongs_to_the_second_of_admission(driver: Driver) -> None:
    limit = tokens(1000)
    taken = await driver.take(limit, tokens=1000)
    driver.clock.advance(58_000)
    await driver.settle(taken, 1000)
    assert (await driver.refuse(limit, tokens=1)).retry_after_ms == 3000 - 123
    driver.clock.advance(3000 - 123)
    assert await driver.remaining(limit) == 1000


@pytest.mark.parametrize("used", [0, 500, 10**6])
async def test_a_settlement_whose_slot_has_left_changes_nothing(driver: Driver, used: int) -> None:
    limit = tokens(1000)
    taken = await driver.take(limit, tokens=700)
    driver.clock.advance(61_000)
    await driver.take(limit, tokens=400)
    await driver.settle(taken, used)
    assert await driver.remaining(limit) == 600


async def test_a_settlement_long_after_everything_was_forgotten(driver: Driver) -> None:
    limit, running = tokens(1000), concurrency(1)
    taken = await driver.take(limit, running, tokens=700)
    driver.clock.advance(20 * MINUTE_MS)
    await driver.settle(taken, 900)
    assert left(await driver.grant(claim(limit, running, tokens=1))) == [999, 0]


async def test_tokens_without_an_estimate_are_owed_in_full(driver: Driver) -> None:
    limit = tokens(100)
    await driver.settle(await driver.take(limit, tokens=0), 70)
    assert await driver.remaining(limit) == 30


async def test_a_claim_of_no_tokens_passes_a_token_limit_that_is_over(driver: Driver) -> None:
    limit = tokens(100)
    await driver.settle(await driver.take(limit, tokens=100), 500)
    await driver.refuse(limit, tokens=1)
    assert left(await driver.grant(claim(limit))) == [0]


async def test_settling_twice_changes_nothing(driver: Driver) -> None:
    limit, running = tokens(1000), concurrency(2)
    taken = await driver.take(limit, running, tokens=600)
    await driver.take(limit, running, tokens=100)
    for used in (200, 200, 900):
        await driver.settle(taken, used)
    assert left(await driver.refuse(limit, running, tokens=701)) == [700, 1]


async def test_the_same_claim_again_is_granted_and_not_counted_twice(driver: Driver) -> None:
    limits = (requests(1), tokens(100), concurrency(1))
    asked = claim(*limits, tokens=80)
    await driver.grant(asked)
    driver.clock.advance(3000)
    again = await driver.grant(asked)
    assert (again.admitted_at_ms, left(again)) == (START_MS, [0, 20, 0])
    await driver.settle(asked, 30)
    assert left(await driver.refuse(*limits, tokens=10)) == [0, 70, 1]


async def test_the_same_claim_again_shows_the_window_of_now(driver: Driver) -> None:
    asked = claim(tokens(100), tokens=60)
    await driver.grant(asked)
    driver.clock.advance(61_000)
    assert (await driver.grant(asked)).standings == ((100, 0),)


async def test_a_lease_ends_where_no_heartbeat_prolongs_it(driver: Driver) -> None:
    limit = concurrency(1)
    await driver.take(limit)
    driver.clock.advance(14_999)
    refused = await driver.refuse(limit)
    assert (refused.retry_after_ms, refused.standings) == (1000, ((0, 1000),))
    driver.clock.advance(1)
    await driver.take(limit)


async def test_concurrency_comes_free_at_settlement(driver: Driver) -> None:
    limit = concurrency(2)
    first, second = await driver.take(limit), await driver.take(limit)
    await driver.refuse(limit)
    await driver.settle(first)
    third = await driver.take(limit)
    await driver.refuse(limit)
    for ended in (second, third):
        await driver.settle(ended)
    assert left(await driver.grant(claim(limit))) == [1]


async def test_reset_says_when_nothing_is_held_any_more(driver: Driver) -> None:
    limit = requests(5)
    assert (await driver.grant(claim(limit))).standings == ((4, 61_000 - 123),)
    driver.clock.advance(10_000)
    assert (await driver.grant(claim(limit))).standings == ((3, 61_000 - 123),)
    assert (await driver.refuse(tokens(10), tokens=11)).standings == ((10, 0),)


async def test_counters_and_tags_are_apart(driver: Driver) -> None:
    await driver.open(tag="team_2")
    await driver.take(requests(1, key="key_1"), requests(2, key=TEAM))
    await driver.take(requests(1, key="key_2"), requests(2, key=TEAM))
    assert (await driver.refuse(requests(1, key="key_3"), requests(2, key=TEAM))).index == 1
    other = claim(requests(1, key="key_1"), tag="team_2")
    assert left(await driver.grant(other)) == [0]
    light = claim(requests(1, key="key_1"), tag=LIGHT)
    assert left(await driver.grant(light)) == [0]


async def test_a_changed_maximum_holds_at_once_and_keeps_what_was_counted(driver: Driver) -> None:
    for _ in range(5):
        await driver.take(requests(5))
    assert left(await driver.grant(claim(requests(7)))) == [1]
    refused = await driver.refuse(requests(2))
    assert (left(refused), refused.retry_after_ms) == ([0], 61_000 - 123)


async def test_what_is_observed_is_counted_and_named_and_refuses_nothing(driver: Driver) -> None:
    limits = (
        requests(1, mode="observe"),
        tokens(100, mode="observe"),
        concurrency(1, mode="observe"),
        requests(9, key=TEAM),
    )
    first = await driver.grant(claim(*limits, tokens=60))
    assert (first.observed, left(first)) == ((), [0, 40, 0, 8])
    second = await driver.grant(claim(*limits, tokens=60))
    assert (second.observed, left(second)) == ((0, 1, 2), [0, 0, 0, 7])
    enforced = tuple(msgspec.structs.replace(limit, mode="enforce") for limit in limits)
    assert (await driver.refuse(*enforced, tokens=60)).index == 0
    assert (await driver.grant(claim(*limits))).observed == (0, 2)  # of no tokens, any number fits


async def test_a_refusal_names_an_enforced_limit_though_an_observed_one_waits_longer(driver: Driver) -> None:
    observed, enforced = tokens(10, mode="observe"), requests(1)
    await driver.take(enforced)
    refused = await driver.refuse(observed, enforced, tokens=11)
    assert (refused.index, refused.retry_after_ms) == (1, 61_000 - 123)


@pytest.mark.parametrize("window_ms", [6000, MINUTE_MS, 3_600_000, 86_400_000])
async def test_windows_of_any_length(driver: Driver, window_ms: int) -> None:
    slot_ms = window_ms // 60
    limit = requests(2, window_ms=window_ms)
    first = await driver.grant(claim(limit))
    driver.clock.advance(window_ms // 2)
    await driver.take(limit)
    refused = await driver.refuse(limit)
    leaves_at_ms = (first.admitted_at_ms // slot_ms + 61) * slot_ms
    assert refused.retry_after_ms == leaves_at_ms - driver.clock.now_ms()
    driver.clock.advance(refused.retry_after_ms)
    await driver.take(limit)


async def test_large_amounts_stay_exact(driver: Driver) -> None:
    limit = tokens(10**15)
    taken = [await driver.take(limit, tokens=AMOUNT_MAX - 1) for _ in range(900)]
    assert await driver.remaining(limit) == 10**15 - 900 * (AMOUNT_MAX - 1)
    for each in taken:
        await driver.settle(each, 1)
    assert await driver.remaining(limit) == 10**15 - 900


async def test_absurd_amounts_are_cut_to_what_can_be_counted(driver: Driver) -> None:
    limit = tokens(10**15)
    await driver.settle(await driver.take(limit, tokens=10**30), 10**30)
    assert await driver.remaining(limit) == 10**15 - AMOUNT_MAX
    await driver.settle(await driver.take(limit, tokens=-5), -(10**30))
    assert await driver.remaining(limit) == 10**15 - AMOUNT_MAX


async def test_a_clock_set_back_a_little_counts_on(driver: Driver) -> None:
    limit = requests(2)
    await driver.take(limit)
    driver.clock.advance(-5000)
    await driver.take(limit)
    refused = await driver.refuse(limit)
    assert refused.retry_after_ms == 61_000 - 123 + 5000
    driver.clock.advance(refused.retry_after_ms - 1)
    await driver.refuse(limit)
    driver.clock.advance(1)
    await driver.take(limit)


async def test_a_clock_set_back_by_hours_does_not_lock_the_limit(driver: Driver) -> None:
    limit = tokens(10)
    taken = await driver.take(limit, tokens=10)
    driver.clock.advance(-3_600_000)
    await driver.take(limit, tokens=10)
    await driver.refuse(limit, tokens=1)
    await driver.settle(taken, 0)  # of a slot that is not held any more
    await driver.refuse(limit, tokens=1)


async def test_many_at_once_never_pass_the_limit(driver: Driver) -> None:
    limits = (requests(100), concurrency(30), tokens(10_000))

    async def at_once() -> list[Claim]:
        asked = [claim(*limits, tokens=50) for _ in range(200)]
        answers = await asyncio.gather(*map(driver.reserve, asked))
        return [each for each, answer in zip(asked, answers, strict=True) if isinstance(answer, Granted)]

    granted = await at_once()
    assert len(granted) == 30
    for each in granted:
        await driver.settle(each, 50)
    assert len(await at_once()) == 30


def test_a_limit_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        requests(-1)
    with pytest.raises(ValueError, match="slots"):
        requests(1, window_ms=1001)
    with pytest.raises(ValueError, match="slots"):
        requests(1, window_ms=0)
    with pytest.raises(ValueError, match="a budget needs a window"):
        Limit(scope="key", scope_id="key_1", name="budget", kind="money", maximum=1, counter="b")
