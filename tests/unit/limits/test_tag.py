"""Edges of what memory counts under a tag, which a suite for every store does not come by."""

from __future__ import annotations

import pytest

from app.core.records import BudgetWindow
from app.limits.gauges import SlidingWindow
from app.limits.hot import (
    Answer,
    BudgetValue,
    Command,
    Done,
    Granted,
    Known,
    Look,
    Lost,
    OpenTag,
    Reserve,
    Restore,
    Seed,
    Settle,
    StoreAway,
    TakeOver,
)
from app.limits.limiter import Limit, Outcome
from app.limits.memory import SWEPT_AT_ONCE, MemoryHot
from app.limits.tag import Budget
from tests.contract.limits.harness import BUDGET, START_MS, TEAM, TestClock, claim, concurrency, money, requests

LEASE_MS = 15_000


class Store(MemoryHot):
    def __init__(self) -> None:
        self.clock = TestClock()
        super().__init__(self.clock)
        self.apply(OpenTag(TEAM, "1"))
        self.apply(Seed(TEAM, "1", (BudgetValue(BUDGET, 0, 1),)))

    def expect(self, kind: type[Answer], command: Command) -> Answer:
        answer = self.apply(command)
        assert isinstance(answer, kind), answer
        return answer


@pytest.fixture
def store() -> Store:
    return Store()


# -- reservations -------------------------------------------------------------------------------


def test_a_call_that_was_put_back_is_charged_at_its_bound(store: Store) -> None:
    call = claim(money(1000), bound=100)
    store.expect(Done, Restore(call, "1"))
    store.clock.advance(LEASE_MS)
    taken = store.expect(Known, TakeOver(TEAM, "1", call.request_id, (BUDGET,)))
    assert (taken.state, taken.rank, taken.nanousd, taken.owner) == ("done", 1, 100, call.owner)
    assert store._tags[TEAM].budgets[BUDGET].unconfirmed == 100


def test_a_call_that_was_put_back_counts_from_then(store: Store) -> None:
    call = claim(money(1000), bound=100)
    store.apply(Restore(call, "1"))
    store.clock.advance(5)
    assert store.expect(Granted, Reserve(call, "1")).admitted_at_ms == START_MS


def test_an_end_without_a_beginning_says_whose_it_was(store: Store) -> None:
    call = claim(money(1000), bound=100)
    store.apply(Settle(call, "1", Outcome(2, 70, 0, b"record")))
    known = store.expect(Known, Look(TEAM, call.request_id))
    assert (known.owner, known.opening, known.record) == (call.owner, b"", b"record")


# -- epochs -------------------------------------------------------------------------------------


def test_another_server_does_not_go_on_with_an_epoch(store: Store) -> None:
    store.apply(OpenTag(TEAM, "2:a"))
    assert store.apply(OpenTag(TEAM, "2:b")) == Lost("2:a")
    assert store.apply(OpenTag(TEAM, "2:a")) == Done(changed=False)
    assert store.apply(OpenTag(TEAM, "3:b")) == Done()


# -- budgets ------------------------------------------------------------------------------------


def test_a_budget_is_cold_until_it_is_assigned() -> None:
    budget = Budget(7)
    assert (budget.epoch, budget.is_warm, budget.version, budget.taken) == (7, False, 0, 0)
    assert budget.assign(0, 0, 5)
    assert (budget.is_warm, budget.touched_ms) == (True, 5)


def test_a_budget_takes_only_what_is_newer() -> None:
    budget = Budget(1)
    assert [budget.assign(spent, version, 0) for spent, version in [(5, 1), (9, 1), (7, 3), (6, 2)]] == [
        True,
        False,
        True,
        False,
    ]
    budget.held, budget.unconfirmed = 10, 100
    assert (budget.confirmed, budget.version, budget.taken) == (7, 3, 117)


# -- windows ------------------------------------------------------------------------------------


def test_a_wait_of_a_millisecond_is_observed(store: Store) -> None:
    limit = requests(1, mode="observe")
    store.apply(Reserve(claim(limit), "1"))
    store.clock.advance(61_000 - START_MS % 1000 - 1)
    assert store.expect(Granted, Reserve(claim(limit), "1")).observed == (0,)
    store.clock.advance(61_000)
    store.apply(Reserve(claim(limit), "1"))
    store.clock.advance(61_000)
    assert store.expect(Granted, Reserve(claim(limit), "1")).observed == ()


def test_a_clock_set_back_by_a_whole_window_stands_still() -> None:
    window = SlidingWindow(1000)
    window.take(1, 100_000)
    assert window.wait_ms(1, 1, 40_000) == 161_000 - 40_000
    assert window.wait_ms(1, 1, 39_999) == 0


def test_a_clock_set_back_by_hours_goes_on_counting() -> None:
    """What was counted is forgotten, and what comes then is not."""
    window = SlidingWindow(1000)
    window.take(1, 10_000_000)
    assert window.take(1, 1_000) == 1
    assert window.wait_ms(1, 1, 1_000) == 61_000
    assert window.held() == 1


# -- what is swept ------------------------------------------------------------------------------


def test_no_request_sweeps_more_than_a_few(store: Store) -> None:
    """However much has become idle: a request must not wait for all of it."""
    for number in range(100):
        store.apply(Reserve(claim(concurrency(1, key=f"k{number}")), "1"))
        store.apply(Seed(TEAM, "1", (BudgetValue(BudgetWindow("budget_1", number), 0, 1),)))
    tag = store._tags[TEAM]
    store.clock.advance(3 * 86_400_000)
    store.apply(Reserve(claim(), "1"))
    assert (len(tag.gauges), len(tag.budgets)) == (100 - SWEPT_AT_ONCE, 100 - SWEPT_AT_ONCE)


# -- limits that cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["requests", "tokens"])
@pytest.mark.parametrize("window_ms", [-60, 0, 1, 59, 61])
def test_a_window_divides_into_its_slots(kind: str, window_ms: int) -> None:
    with pytest.raises(ValueError, match="does not divide into 60 slots"):
        Limit(scope="key", scope_id="k", name="n", kind=kind, maximum=1, counter="c", window_ms=window_ms)


@pytest.mark.parametrize("window", ["day", "week", "month", "total"])
def test_a_budget_has_a_window_of_the_calendar(window: str) -> None:
    limit = Limit(scope="key", scope_id="k", name="n", kind="money", maximum=1, counter="c", window=window)
    assert limit.window == window


@pytest.mark.parametrize("window", ["", "minute"])
def test_a_budget_without_one_cannot_be(window: str) -> None:
    with pytest.raises(ValueError, match="a budget needs a window"):
        Limit(scope="key", scope_id="k", name="n", kind="money", maximum=1, counter="c", window=window)


def test_a_store_that_does_not_answer_says_why_and_whether_it_was_asked() -> None:
    away = StoreAway("timeout", sent=True)
    assert (away.reason, away.sent, away.code) == ("timeout", True, "limits_unavailable")
    assert StoreAway(sent=False).reason == ""
