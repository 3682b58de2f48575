"""What both stores do, word for word."""

from __future__ import annotations

import asyncio

import pytest

from app.cache.entry import JSON_FORM, STREAM_FORM, Look
from app.cache.memory import LEASE_S
from app.cache.redis import LEASE_MS
from app.core.usage import Usage
from tests.contract.cache.harness import HOUR_MS, START_MS, Driver, address, entry

WHERE = address(1)
OTHER_FORM = address(1, STREAM_FORM)


def test_leases_are_equally_long_in_both() -> None:
    assert LEASE_MS == LEASE_S * 1000 == 1500


# -- entries ------------------------------------------------------------------------------------


async def test_nothing_is_found_where_nothing_was_kept(driver: Driver) -> None:
    assert await driver.store.look(WHERE) == Look()
    assert await driver.store.look(WHERE, also=STREAM_FORM) == Look()


@pytest.mark.parametrize("size", [0, 1, 1000, 4095, 4096, 70_000, 1_000_000])
async def test_an_entry_is_found_as_it_was_kept(driver: Driver, size: int) -> None:
    kept = entry(bytes(number * number % 251 for number in range(size)))
    driver.store.keep(WHERE, kept)
    assert await driver.store.look(WHERE) == Look(kept, JSON_FORM)


async def test_an_entry_of_which_little_is_known(driver: Driver) -> None:
    kept = entry(
        headers=[],
        model_served=None,
        service_tier=None,
        response_id=None,
        usage=Usage(),
        usage_raw=None,
        cost_nanousd=None,
        price_source=None,
        price_version=None,
        request_digest=b"",
    )
    driver.store.keep(WHERE, kept)
    assert await driver.store.look(WHERE) == Look(kept, JSON_FORM)


async def test_an_entry_is_found_only_where_it_was_kept(driver: Driver) -> None:
    driver.store.keep(WHERE, entry())
    for elsewhere in (address(2), OTHER_FORM, address(1, "jso"), address(1, "json.0f3a")):
        assert await driver.store.look(elsewhere) == Look()


async def test_the_other_form_is_found_where_it_is_asked_for(driver: Driver) -> None:
    told = entry(b"data: {}\n\n")
    driver.store.keep(OTHER_FORM, told)
    assert await driver.store.look(WHERE) == Look()
    assert await driver.store.look(WHERE, also=STREAM_FORM) == Look(told, STREAM_FORM)
    assert await driver.store.look(WHERE, also=STREAM_FORM, token="a") == Look(told, STREAM_FORM)
    assert await driver.store.look(address(2), also=STREAM_FORM) == Look()


async def test_the_form_that_was_asked_for_goes_first(driver: Driver) -> None:
    driver.store.keep(OTHER_FORM, entry(b"data: {}\n\n"))
    driver.store.keep(WHERE, kept := entry())
    assert await driver.store.look(WHERE, also=STREAM_FORM) == Look(kept, JSON_FORM)


async def test_a_later_entry_takes_the_place_of_an_earlier_one(driver: Driver) -> None:
    driver.store.keep(WHERE, entry(b"1"))
    driver.store.keep(WHERE, second := entry(b"2"))
    assert await driver.store.look(WHERE) == Look(second, JSON_FORM)


async def test_an_entry_ends_with_its_time(driver: Driver) -> None:
    driver.store.keep(WHERE, kept := entry(ttl_ms=60_000))
    driver.advance(59_999)
    assert await driver.store.look(WHERE) == Look(kept, JSON_FORM)
    driver.advance(1)
    assert await driver.store.look(WHERE) == Look()
    assert await driver.store.look(WHERE, token="a") == Look(holder="a")


async def test_an_entry_whose_time_is_over_does_not_hide_the_other_form(driver: Driver) -> None:
    driver.store.keep(WHERE, entry(ttl_ms=60_000))
    driver.store.keep(OTHER_FORM, told := entry(b"data: {}\n\n"))
    driver.advance(60_000)
    assert await driver.store.look(WHERE, also=STREAM_FORM) == Look(told, STREAM_FORM)
    driver.advance(HOUR_MS)
    assert await driver.store.look(WHERE, also=STREAM_FORM) == Look()
    assert await driver.store.look(WHERE, also=STREAM_FORM, token="a") == Look(holder="a")


@pytest.mark.parametrize("late_ms", [0, 1, HOUR_MS])
async def test_what_is_over_already_is_not_kept(driver: Driver, late_ms: int) -> None:
    driver.store.keep(WHERE, entry(b"1"))
    driver.store.keep(WHERE, entry(b"2", expires_at_ms=START_MS - late_ms))
    assert await driver.store.look(WHERE) == Look()


# -- the derived one ----------------------------------------------------------------------------


async def test_the_derived_one_is_kept_too(driver: Driver) -> None:
    kept, told = entry(), entry(b"data: {}\n\n", ttl_ms=60_000)
    driver.store.keep(WHERE, kept, derived=(OTHER_FORM, told))
    assert await driver.store.look(WHERE) == Look(kept, JSON_FORM)
    assert await driver.store.look(OTHER_FORM) == Look(told, STREAM_FORM)
    driver.advance(60_000)
    assert await driver.store.look(OTHER_FORM) == Look()


async def test_the_derived_one_takes_the_place_of_an_earlier_one(driver: Driver) -> None:
    driver.store.keep(OTHER_FORM, entry(b"told by the upstream", ttl_ms=2 * HOUR_MS))
    driver.store.keep(WHERE, entry(), derived=(OTHER_FORM, derived := entry(b"derived", ttl_ms=60_000)))
    assert await driver.store.look(OTHER_FORM) == Look(derived, STREAM_FORM)
    driver.advance(60_000)
    assert await driver.store.look(OTHER_FORM) == Look()


async def test_where_none_is_derived_an_earlier_one_goes(driver: Driver) -> None:
    third = address(1, f"{STREAM_FORM}.0f3a")
    for where in (OTHER_FORM, third, address(2, STREAM_FORM)):
        driver.store.keep(where, entry(b"told before"))
    driver.store.keep(WHERE, kept := entry(), derived=(OTHER_FORM, None))
    assert await driver.store.look(WHERE) == Look(kept, JSON_FORM)
    assert await driver.store.look(OTHER_FORM) == Look()
    assert await driver.store.look(OTHER_FORM, also=JSON_FORM) == Look(kept, JSON_FORM)
    for where in (third, address(2, STREAM_FORM)):
        assert (await driver.store.look(where)).entry is not None
    driver.store.keep(WHERE, again := entry(b"again"), derived=(OTHER_FORM, None))  # there is nothing to take away
    assert await driver.store.look(OTHER_FORM, also=JSON_FORM) == Look(again, JSON_FORM)


async def test_a_derived_one_whose_time_is_over_takes_an_earlier_one_away(driver: Driver) -> None:
    driver.store.keep(OTHER_FORM, entry(b"told before"))
    driver.store.keep(WHERE, kept := entry(), derived=(OTHER_FORM, entry(b"derived", expires_at_ms=START_MS)))
    assert await driver.store.look(OTHER_FORM) == Look()
    assert await driver.store.look(WHERE) == Look(kept, JSON_FORM)


async def test_without_a_derived_one_the_other_form_stays(driver: Driver) -> None:
    driver.store.keep(OTHER_FORM, told := entry(b"told before"))
    driver.store.keep(WHERE, entry())
    assert await driver.store.look(OTHER_FORM) == Look(told, STREAM_FORM)


async def test_the_derived_one_leaves_the_lease_on_its_form_alone(driver: Driver) -> None:
    await driver.store.look(WHERE, token="a")
    await driver.store.look(OTHER_FORM, token="a")
    for derived in (None, entry(b"derived")):
        driver.store.keep(WHERE, entry(), token="a", derived=(OTHER_FORM, derived))
        assert await driver.store.look(OTHER_FORM, token="b", lease_only=True) == Look(holder="a")
    assert await driver.store.look(WHERE, token="b", lease_only=True) == Look(holder="b")


async def test_another_takes_the_place_of_the_derived_one(driver: Driver) -> None:
    driver.store.keep(WHERE, entry(), derived=(OTHER_FORM, entry(b"derived")))
    driver.store.keep(OTHER_FORM, told := entry(b"told by the upstream"))
    assert await driver.store.look(OTHER_FORM) == Look(told, STREAM_FORM)


# -- leases -------------------------------------------------------------------------------------


async def test_the_first_to_ask_has_the_lease(driver: Driver) -> None:
    assert await driver.store.look(WHERE, token="a") == Look(holder="a")
    assert await driver.store.look(WHERE, also=STREAM_FORM, token="b") == Look(holder="a")
    assert await driver.store.look(WHERE, token="a") == Look(holder="a")


async def test_who_asks_for_no_lease_hears_of_none_and_takes_none(driver: Driver) -> None:
    assert await driver.store.look(WHERE) == Look()
    assert await driver.store.look(WHERE, token="a") == Look(holder="a")
    assert await driver.store.look(WHERE) == Look()


async def test_a_lease_is_on_one_address(driver: Driver) -> None:
    for number, where in enumerate((WHERE, OTHER_FORM, address(2))):
        assert await driver.store.look(where, token=f"t{number}") == Look(holder=f"t{number}")


async def test_an_entry_comes_before_the_lease(driver: Driver) -> None:
    assert await driver.store.look(WHERE, token="a") == Look(holder="a")
    driver.store.keep(WHERE, kept := entry())
    assert await driver.store.look(WHERE, token="a") == Look(kept, JSON_FORM)


async def test_one_of_many_has_the_lease(driver: Driver) -> None:
    looks = await asyncio.gather(*(driver.store.look(WHERE, token=f"t{number}") for number in range(100)))
    assert looks == [Look(holder="t0")] * 100


async def test_keeping_gives_the_lease_back(driver: Driver) -> None:
    await driver.store.look(WHERE, token="a")
    driver.store.keep(WHERE, entry(ttl_ms=60_000), token="a", derived=(OTHER_FORM, entry(ttl_ms=60_000)))
    driver.advance(60_000)
    assert await driver.store.look(WHERE, token="b") == Look(holder="b")
    await driver.store.look(WHERE, token="b")
    driver.store.keep(WHERE, kept := entry(), token="a")
    assert await driver.store.look(WHERE) == Look(kept, JSON_FORM)
    driver.advance(LEASE_MS - 500)
    driver.store.keep(WHERE, entry(expires_at_ms=0), token="")
    assert await driver.store.look(WHERE, token="c") == Look(holder="b")


async def test_a_lease_is_given_back_by_its_holder_only(driver: Driver) -> None:
    await driver.store.look(WHERE, token="a")
    driver.store.release(WHERE, "b")
    driver.store.release(OTHER_FORM, "a")
    assert await driver.store.look(WHERE, token="b") == Look(holder="a")
    driver.store.release(WHERE, "a")
    driver.store.release(WHERE, "a")
    assert await driver.store.look(WHERE, token="b") == Look(holder="b")


async def test_a_lease_ends_unless_it_is_renewed(driver: Driver) -> None:
    await driver.store.look(WHERE, token="a")
    for _ in range(4):
        driver.advance(1000)
        driver.store.renew(WHERE, "a")
        driver.store.renew(WHERE, "b")
        assert await driver.store.look(WHERE, token="b") == Look(holder="a")
    driver.advance(LEASE_MS)
    assert await driver.store.look(WHERE, token="b") == Look(holder="b")
    driver.store.renew(WHERE, "a")  # too late
    assert await driver.store.look(WHERE, token="a") == Look(holder="b")


async def test_who_is_still_at_work_puts_a_lease_back_that_has_lapsed(driver: Driver) -> None:
    await driver.store.look(WHERE, token="a")
    driver.advance(LEASE_MS)
    driver.store.renew(WHERE, "a")
    assert await driver.store.look(WHERE, token="b") == Look(holder="a")
    driver.advance(1000)
    assert await driver.store.look(WHERE, token="b") == Look(holder="a")
    driver.advance(500)
    assert await driver.store.look(WHERE, token="b") == Look(holder="b")


async def test_a_lease_that_somebody_else_gave_back_is_there_for_who_is_still_at_work(driver: Driver) -> None:
    await driver.store.look(WHERE, token="a")
    driver.advance(LEASE_MS)
    await driver.store.look(WHERE, token="b")
    driver.store.renew(WHERE, "a")
    driver.store.release(WHERE, "b")
    driver.store.renew(WHERE, "a")
    assert await driver.store.look(WHERE, token="c") == Look(holder="a")
    driver.store.release(WHERE, "a")
    assert await driver.store.look(WHERE, token="c") == Look(holder="c")


async def test_renewing_one_lease_renews_no_other(driver: Driver) -> None:
    await driver.store.look(WHERE, token="a")
    await driver.store.look(address(2), token="b")
    driver.advance(1000)
    driver.store.renew(WHERE, "a")
    await driver.store.look(WHERE)
    driver.advance(500)
    assert await driver.store.look(address(2), token="c") == Look(holder="c")
    assert await driver.store.look(WHERE, token="c") == Look(holder="a")


async def test_nobody_renews_the_lease_of_another(driver: Driver) -> None:
    await driver.store.look(WHERE, token="a")
    driver.advance(1000)
    driver.store.renew(WHERE, "b")
    driver.advance(500)
    assert await driver.store.look(WHERE, token="b") == Look(holder="b")


async def test_a_holder_that_asks_again_has_it_for_another_while(driver: Driver) -> None:
    await driver.store.look(WHERE, token="a")
    driver.advance(1000)
    await driver.store.look(WHERE, token="a")
    driver.advance(1000)
    assert await driver.store.look(WHERE, token="b") == Look(holder="a")
    driver.advance(500)
    assert await driver.store.look(WHERE, token="b") == Look(holder="b")


# -- the lease only -----------------------------------------------------------------------------


async def test_the_lease_is_given_whatever_is_kept(driver: Driver) -> None:
    driver.store.keep(WHERE, kept := entry())
    driver.store.keep(OTHER_FORM, entry(b"data: {}\n\n"))
    assert await driver.store.look(WHERE, also=STREAM_FORM, token="a", lease_only=True) == Look(holder="a")
    assert await driver.store.look(WHERE, token="b", lease_only=True) == Look(holder="a")
    assert await driver.store.look(OTHER_FORM, token="b", lease_only=True) == Look(holder="b")
    assert await driver.store.look(WHERE, token="b") == Look(kept, JSON_FORM)
    driver.store.keep(WHERE, kept, token="a")
    assert await driver.store.look(WHERE, token="b", lease_only=True) == Look(holder="b")


async def test_the_lease_only_is_the_lease_of_every_look(driver: Driver) -> None:
    assert await driver.store.look(WHERE, token="a") == Look(holder="a")
    assert await driver.store.look(WHERE, token="b", lease_only=True) == Look(holder="a")
    driver.advance(1000)
    assert await driver.store.look(WHERE, token="a", lease_only=True) == Look(holder="a")
    driver.advance(1000)
    assert await driver.store.look(WHERE, token="b") == Look(holder="a")
    driver.advance(500)
    assert await driver.store.look(WHERE, token="b", lease_only=True) == Look(holder="b")
    assert await driver.store.look(WHERE, token="a") == Look(holder="b")


async def test_the_lease_only_and_without_a_token_is_nothing(driver: Driver) -> None:
    assert await driver.store.look(WHERE, lease_only=True) == Look()
    driver.store.keep(WHERE, kept := entry())
    assert await driver.store.look(WHERE, also=STREAM_FORM, lease_only=True) == Look()
    await driver.store.look(WHERE, token="a", lease_only=True)
    assert await driver.store.look(WHERE, lease_only=True) == Look()
    assert await driver.store.look(WHERE) == Look(kept, JSON_FORM)


async def test_closing_twice_is_no_mistake(driver: Driver) -> None:
    driver.store.keep(WHERE, entry())
    await driver.store.close()
    await driver.store.close()
