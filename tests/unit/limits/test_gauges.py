"""The arithmetic of windows and leases by itself; what it does in a store is in ``tests/contract/limits``."""

from __future__ import annotations

import pytest

from app.limits.gauges import LIFETIME_MS_MIN, NEVER_MS, Leases, SlidingWindow, lifetime_ms
from tests.contract.limits.harness import concurrency, money, requests, tokens


def test_a_window_forgets_a_slot_sixty_one_slots_later() -> None:
    window = SlidingWindow(1000)
    assert window.take(3, 5_999) == 5
    window.take(4, 6_000)
    assert window.held() == 7
    for now_ms, held in ((65_999, 7), (66_000, 4), (66_999, 4), (67_000, 0)):
        window.wait_ms(0, 10, now_ms)
        assert window.held() == held


def test_a_window_says_when_enough_has_left() -> None:
    window = SlidingWindow(1000)
    for second, amount in ((0, 5), (10, 3), (20, 2)):
        window.take(amount, 1000 * second)
    waits = {amount: window.wait_ms(amount, 10, 20_500) for amount in (0, 1, 5, 6, 8, 9, 10, 11)}
    assert waits == {
        0: 0,
        1: 61_000 - 20_500,
        5: 61_000 - 20_500,
        6: 71_000 - 20_500,
        8: 71_000 - 20_500,
        9: 81_000 - 20_500,
        10: 81_000 - 20_500,
        11: NEVER_MS,
    }


@pytest.mark.parametrize(("difference", "held"), [(-3, 4), (5, 12), (-7, 0), (-100, 0), (0, 7)])
def test_a_correction_is_bounded_by_what_is_there(difference: int, held: int) -> None:
    window = SlidingWindow(1000)
    slot = window.take(7, 0)
    window.correct(slot, difference)
    window.correct(slot + 1, 50)  # a slot that was never counted
    assert window.held() == held


def test_an_idle_window_is_one_that_a_new_one_would_equal() -> None:
    window = SlidingWindow(1000)
    assert window.is_idle(0)
    window.take(1, 0)
    assert not window.is_idle(60_999)
    assert window.is_idle(61_000)
    assert window.reset_ms(0) == 61_000


def test_leases_end_and_are_prolonged() -> None:
    leases = Leases()
    leases.prolong("a", 100)
    leases.prolong("b", 200)
    assert leases.wait_ms(1, 2, 99) == 1000
    assert leases.wait_ms(0, 2, 99) == 0
    assert leases.wait_ms(1, 0, 99) == NEVER_MS
    leases.prolong("a", 300)
    assert leases.wait_ms(1, 2, 200) == 0
    assert leases.held() == 1
    leases.free("a")
    leases.free("a")
    assert leases.is_idle(200)
    assert leases.reset_ms(200) == 0


def test_what_was_counted_matters_for_as_long_as_the_longest_window() -> None:
    assert lifetime_ms(()) == LIFETIME_MS_MIN
    assert lifetime_ms((concurrency(1), money(1), requests(1, window_ms=6000))) == LIFETIME_MS_MIN
    assert lifetime_ms((requests(1), tokens(1, window_ms=3_600_000))) == 3_660_000
