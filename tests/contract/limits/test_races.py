"""Owners, reapers and SQL in every order that the protocol has to survive, step by step.

SQL is played by the numbers that a test gives: what a batch would have found there.
"""

from __future__ import annotations

import pytest

from app.limits.hot import (
    Beat,
    Beaten,
    BudgetValue,
    Confirm,
    Confirmed,
    Done,
    InSQL,
    Known,
    Lost,
    NotDue,
    OpenTag,
    Reserve,
    Restore,
    Seed,
    Seen,
    StandIn,
    Void,
    Voided,
)
from app.limits.limiter import Claim
from tests.contract.limits.harness import BUDGET, TEAM, Driver, claim, concurrency, money, requests, tokens

CHANGED, UNCHANGED = Done(), Done(changed=False)
LEASE_MS, DONE_LEASE_MS, TAKE_OVER_MS = 15_000, 60_000, 5_000


def spent(nanousd: int, version: int) -> BudgetValue:
    return BudgetValue(BUDGET, nanousd, version)


def a_call(bound: int = 100) -> Claim:
    return claim(requests(10), tokens(1000), concurrency(5), money(1000), tokens=50, bound=bound)


@pytest.fixture
async def store(driver: Driver) -> Driver:
    """A store in which the budget has been seeded: nothing is spent."""
    await driver.seed(0, 1)
    return driver


async def known(store: Driver, call: Claim) -> tuple[str, int, int] | None:
    """State, rank and amount."""
    found = await store.look(call)
    return None if found is None else (found.state, found.rank, found.nanousd)


# -- reapers and races --------------------------------------------------------------------------


async def test_a_dead_owners_hold_is_charged_and_never_released(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    store.clock.advance(LEASE_MS)
    assert await store.due() == (call.request_id,)
    assert isinstance(await store.take_over(call), Known)
    assert await store.left(1000) == 900
    assert await store.confirm(call, 1, 100, spent(100, 2)) == ()
    assert await store.left(1000) == 900
    assert await store.due() == ()


async def test_the_second_of_two_reapers_comes_too_late(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    store.clock.advance(LEASE_MS)
    assert isinstance(await store.take_over(call), Known)
    assert await store.take_over(call) == NotDue()
    assert await store.due() == ()


async def test_of_two_reapers_that_both_wrote_the_second_changes_nothing(store: Driver) -> None:
    """The first stalls for more than its five seconds; both write the same row."""
    call = a_call()
    await store.grant(call)
    store.clock.advance(LEASE_MS)
    await store.take_over(call)
    store.clock.advance(TAKE_OVER_MS)
    assert await store.due() == (call.request_id,)
    assert await known(store, call) == ("done", 1, 100)
    assert isinstance(await store.take_over(call), Known)
    for version in (2, 2):
        assert await store.confirm(call, 1, 100, spent(100, version)) == ()
        assert await store.left(1000) == 900


async def test_an_owners_heartbeat_keeps_reapers_away_from_what_sql_has_not(store: Driver) -> None:
    running, settled = a_call(), a_call()
    for call in (running, settled):
        await store.grant(call)
    await store.settle(settled, nanousd=10)
    for _ in range(30):
        store.clock.advance(LEASE_MS - 1)
        assert await store.do(Beat(TEAM, "1", (Seen(running),), (settled.request_id,))) == Beaten()
        assert isinstance(await store.take_over(running), NotDue)
        assert isinstance(await store.take_over(settled), NotDue)


async def test_an_owner_that_was_paused_finds_its_call_charged_and_corrects_it(store: Driver) -> None:
    """The reaper's estimate has not reached SQL when the exact outcome replaces it."""
    call = a_call()
    await store.grant(call)
    store.clock.advance(LEASE_MS)
    await store.take_over(call)
    assert await store.do(Beat(TEAM, "1", (Seen(call),))) == Beaten()
    assert await store.settle(call, tokens=20, nanousd=30) == CHANGED
    assert await known(store, call) == ("done", 2, 30)
    assert await store.left(1000) == 970
    # The reaper writes its estimate and cannot confirm the exact outcome away.
    assert await store.confirm(call, 1, 100, spent(100, 2)) == (call.request_id,)
    assert await known(store, call) == ("done", 2, 30)
    assert await store.left(1000) == 870  # too high, until the owner's adjustment is in SQL
    assert await store.confirm(call, 2, 30, spent(30, 3)) == ()
    assert await store.left(1000) == 970
    assert await store.due() == ()


async def test_an_exact_outcome_behind_a_confirmed_estimate_counts_only_what_exceeds_it(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    store.clock.advance(LEASE_MS)
    await store.take_over(call)
    await store.confirm(call, 1, 100, spent(100, 2))
    assert await store.settle(call, nanousd=130) == CHANGED
    assert await known(store, call) == ("done", 2, 30)
    assert await store.left(1000) == 870
    assert await store.confirm(call, 1, 100) == (call.request_id,)  # the reaper once more
    assert await store.confirm(call, 2, 130, spent(130, 3)) == ()
    assert await store.left(1000) == 870
    assert await store.settle(call, nanousd=130) == UNCHANGED


async def test_an_exact_outcome_below_a_confirmed_estimate_frees_nothing_before_sql_knows(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    store.clock.advance(LEASE_MS)
    await store.take_over(call)
    await store.confirm(call, 1, 100, spent(100, 2))
    assert await store.settle(call, nanousd=30) == CHANGED
    assert await known(store, call) == ("done", 2, 0)
    assert await store.left(1000) == 900
    assert await store.confirm(call, 2, 30, spent(30, 3)) == ()
    assert await store.left(1000) == 970


async def test_an_estimate_behind_an_estimate_changes_nothing(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    store.clock.advance(LEASE_MS)
    await store.take_over(call)
    assert await store.settle(call, nanousd=60, rank=1) == UNCHANGED
    assert await known(store, call) == ("done", 1, 100)
    await store.confirm(call, 1, 100, spent(100, 2))
    assert await store.settle(call, nanousd=60, rank=1) == UNCHANGED
    assert await store.look(call) is None
    assert await store.left(1000) == 900


async def test_a_row_whose_settlement_never_came_releases_the_hold(store: Driver) -> None:
    """The owner's row is in SQL, its post was lost: the reservation is open still."""
    call = a_call()
    await store.grant(call)
    assert await store.confirm(call, 2, 40, spent(40, 2)) == ()
    assert await store.look(call) is None
    assert await store.left(1000) == 960
    assert await store.settle(call, nanousd=40) == UNCHANGED
    assert await store.left(1000) == 960


async def test_a_settlement_sent_twice_counts_once(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    for _ in range(3):
        await store.settle(call, tokens=20, nanousd=30)
    assert await store.left(1000) == 970
    assert await store.remaining(tokens(1000)) == 980


async def test_a_reserve_sent_twice_counts_once(store: Driver) -> None:
    call = a_call()
    for _ in range(3):
        await store.grant(call)
    assert await store.left(1000) == 900
    await store.do(Void(call))
    assert await store.left(1000) == 1000
    assert await store.reserve(call) == Voided()


async def test_a_taken_over_call_is_not_voided_by_its_late_owner(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    store.clock.advance(LEASE_MS)
    await store.take_over(call)
    assert await store.do(Void(call)) == UNCHANGED
    assert await store.left(1000) == 900


async def test_a_settled_call_whose_owner_died_is_brought_into_sql_by_a_reaper(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    await store.settle(call, nanousd=30)
    store.clock.advance(DONE_LEASE_MS)
    taken = await store.take_over(call)
    assert isinstance(taken, Known)
    assert (taken.rank, taken.record, taken.nanousd) == (2, b"record of 2", 30)
    assert await store.confirm(call, 2, 30, spent(30, 2)) == ()
    assert await store.left(1000) == 970


async def test_values_of_an_older_version_do_not_lower_what_is_known(store: Driver) -> None:
    """Two writers commit in one order and confirm in the other."""
    first, second = a_call(), a_call()
    for call in (first, second):
        await store.grant(call)
        await store.settle(call, nanousd=100)
    assert await store.confirm(second, 2, 100, spent(200, 3)) == ()
    assert await store.left(1000) == 700  # the first counts twice until its writer confirms it
    assert await store.confirm(first, 2, 100, spent(100, 2)) == ()
    assert await store.left(1000) == 800


async def test_a_clock_that_jumps_turns_holds_into_estimates_that_owners_correct(store: Driver) -> None:
    calls = [a_call() for _ in range(3)]
    for call in calls:
        await store.grant(call)
    store.clock.advance(3_600_000)
    assert set(await store.due()) == {call.request_id for call in calls}
    for call in calls:
        assert isinstance(await store.take_over(call), Known)
    assert await store.left(1000) == 700
    for call in calls:
        assert await store.settle(call, nanousd=10) == CHANGED
    assert await store.left(1000) == 970


# -- rebuild ------------------------------------------------------------------------------------


async def next_epoch(store: Driver, number: str = "2") -> None:
    await store.open(number)


async def test_a_lost_store_refuses_until_an_epoch_has_begun(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    store.flush()
    assert await store.reserve(a_call()) == Lost(None)
    assert await store.settle(call, nanousd=5) == Lost(None)
    assert await store.seed(0, 1) == Lost(None)
    await next_epoch(store)
    assert await store.look(call) is None
    assert await store.do(Reserve(call, "1")) == Lost("2")


async def test_owners_put_back_what_they_hold_and_what_sql_has_not(store: Driver) -> None:
    running, settled = a_call(), a_call(bound=300)
    for call in (running, settled):
        await store.grant(call)
    await store.settle(settled, nanousd=250)
    store.flush()
    await next_epoch(store)
    for _ in range(2):
        await store.do(Restore(running, "2"))
        await store.settle(settled, nanousd=250)
    await store.seed(100, 7)
    assert await store.left(1000) == 1000 - 100 - 100 - 250
    await store.settle(running, nanousd=40)
    assert await store.confirm(settled, 2, 250, spent(350, 8)) == ()
    assert await store.confirm(running, 2, 40, spent(390, 9)) == ()
    assert await store.left(1000) == 610
    assert await store.due() == ()


async def test_what_an_old_epoch_counted_is_nothing_until_it_is_counted_again_once(store: Driver) -> None:
    """The epoch ends while the data is still there, as after a restart with its file."""
    running, settled, silent = a_call(), a_call(bound=300), a_call(bound=50)
    for call in (running, settled, silent):
        await store.grant(call)
    await store.settle(settled, nanousd=250)
    await next_epoch(store)
    await store.seed(0, 1)
    assert await store.left(1000) == 1000
    assert await store.do(Beat(TEAM, "2", (Seen(running), Seen(settled)))) == Beaten((running.request_id,))
    assert await store.do(Restore(running, "2")) == CHANGED
    assert await store.do(Restore(running, "2")) == UNCHANGED
    assert await store.left(1000) == 900
    assert await store.settle(settled, nanousd=250) == UNCHANGED  # of the same rank, but counted now
    assert await store.left(1000) == 650
    assert await store.settle(settled, nanousd=250) == UNCHANGED
    assert await store.do(Restore(settled, "2")) == UNCHANGED
    assert await store.left(1000) == 650
    store.clock.advance(LEASE_MS)
    assert isinstance(await store.take_over(silent), Known)
    assert await store.left(1000) == 600


async def test_a_reaper_counts_what_an_old_epoch_had_settled(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    await store.settle(call, nanousd=30)
    await next_epoch(store)
    await store.seed(0, 1)
    store.clock.advance(DONE_LEASE_MS)
    for _ in range(2):
        taken = await store.take_over(call)
        assert isinstance(taken, Known)
        assert (taken.record, taken.nanousd) == (b"record of 2", 30)
        assert await store.left(1000) == 970
        store.clock.advance(TAKE_OVER_MS)
    assert await store.confirm(call, 2, 30, spent(30, 2)) == ()
    assert await store.left(1000) == 970


async def test_a_restore_counts_what_an_old_epoch_had_settled(store: Driver) -> None:
    call = a_call()
    await store.settle(call, nanousd=30)
    await next_epoch(store)
    await store.seed(0, 1)
    assert await store.do(Restore(call, "2")) == CHANGED
    assert await store.left(1000) == 970


async def test_a_settlement_in_a_new_epoch_takes_nothing_from_the_old_one(store: Driver) -> None:
    open_still, estimated = a_call(), a_call()
    for call in (open_still, estimated):
        await store.grant(call)
    await store.settle(estimated, nanousd=100, rank=1)
    await next_epoch(store)
    await store.seed(0, 1)
    assert await store.settle(open_still, nanousd=30) == CHANGED
    assert await store.settle(estimated, nanousd=50) == CHANGED
    assert await store.left(1000) == 920
    for call, nanousd, value in ((open_still, 30, spent(30, 2)), (estimated, 50, spent(80, 3))):
        assert await store.confirm(call, 2, nanousd, value) == ()
    assert await store.left(1000) == 920


async def test_a_confirmation_in_a_new_epoch_takes_nothing_from_it(store: Driver) -> None:
    """What was confirmed had been counted in the epoch before, and never again since."""
    settled, open_still, counting = a_call(), a_call(), a_call()
    for call in (settled, open_still):
        await store.grant(call)
    await store.settle(settled, nanousd=70)
    await next_epoch(store)
    await store.seed(170, 5)
    await store.grant(counting)
    assert await store.confirm(settled, 2, 70) == ()
    assert await store.confirm(open_still, 1, 100) == ()
    assert await store.left(1000) == 730


async def test_a_void_in_a_new_epoch_takes_nothing_from_it(store: Driver) -> None:
    given_up, counting = a_call(), a_call()
    await store.grant(given_up)
    await next_epoch(store)
    await store.seed(0, 1)
    await store.grant(counting)
    assert await store.do(Void(given_up)) == CHANGED
    assert await store.left(1000) == 900


async def test_a_value_read_before_the_loss_is_not_believed_after_it(store: Driver) -> None:
    """Else 500 would be admitted with 900 of 1,000 spent: the late value is older than the new epoch."""
    call = a_call()
    await store.settle(call, nanousd=10)
    store.flush()
    await next_epoch(store)
    late = Confirm(TEAM, "1", (), (spent(10, 2),))
    assert await store.do(late) == Lost("2")
    assert await store.do(Seed(TEAM, "1", (spent(10, 2),))) == Lost("2")
    assert await store.seed(900, 9) == CHANGED
    assert (await store.refuse(money(1000), bound=500)).retry_after_ms is None


async def test_versions_begin_again_with_an_epoch(store: Driver) -> None:
    """After SQL was restored from a backup they are lower than before."""
    await store.seed(500, 40)
    await next_epoch(store)
    assert await store.seed(300, 12) == CHANGED
    assert await store.left(1000) == 700


async def test_a_reserve_of_the_old_epoch_is_taken_anew_in_this_one(store: Driver) -> None:
    call, full = a_call(bound=600), a_call(bound=300)
    for each in (call, full):
        await store.grant(each)
    store.clock.advance(1000)
    await next_epoch(store)
    await store.seed(0, 1)
    assert (await store.grant(call)).admitted_at_ms == store.clock.now_ms()
    assert await store.left(1000) == 400
    await store.seed(200, 2)
    refused = await store.do(Reserve(full, "2"))
    assert getattr(refused, "is_held", None) is True
    await store.do(Void(full))  # nothing of it stays
    assert await store.left(1000) == 200


async def test_stand_ins_belong_to_their_epoch(store: Driver) -> None:
    hold = StandIn(TEAM, "1", "gateway-2", BUDGET, 300)
    await store.do(hold)
    await store.do(StandIn(TEAM, "1", "gateway-3", BUDGET, 0))
    assert await store.left(1000) == 700
    await next_epoch(store)
    await store.seed(0, 1)
    assert await store.left(1000) == 1000
    assert await store.do(hold) == Lost("2")
    assert await store.do(StandIn(TEAM, "2", "gateway-3", BUDGET, 250)) == CHANGED
    assert await store.left(1000) == 750


async def test_a_paused_process_cannot_be_overtaken_near_the_limit(store: Driver) -> None:
    """The flush with a silent process: what it declared is held until it has put its own holds back."""
    silent = [a_call(bound=200) for _ in range(4)]
    for call in silent:
        await store.grant(call)
    store.flush()
    await next_epoch(store)
    await store.do(StandIn(TEAM, "2", "gateway-1", BUDGET, 1200))
    await store.seed(0, 1)
    assert (await store.refuse(money(1000), bound=100)).is_held
    for call in silent:
        await store.do(Restore(call, "2"))
    await store.do(StandIn(TEAM, "2", "gateway-1", BUDGET, 0))
    assert await store.left(1000) == 200


async def test_a_server_that_went_back_in_time_counts_too_much_and_then_right(store: Driver) -> None:
    """A replica without the last moments: what was gone is done there, what was done is open."""
    was_gone, was_done = a_call(), a_call()
    for call in (was_gone, was_done):
        await store.grant(call)
    await store.settle(was_gone, nanousd=70)
    # Here it forgets: the confirmation of the one, the settlement of the other.
    assert await store.do(OpenTag(TEAM, "2")) == CHANGED
    store.epoch = "2"
    await store.seed(140, 3)  # SQL has both
    assert await store.settle(was_done, nanousd=70) == CHANGED
    store.clock.advance(DONE_LEASE_MS)
    for call in (was_gone, was_done):
        assert isinstance(await store.take_over(call), Known)
    assert await store.left(1000) == 1000 - 140 - 140
    for call in (was_gone, was_done):
        assert await store.confirm(call, 2, 70, spent(140, 3)) == ()
    assert await store.left(1000) == 860


async def test_confirmations_of_many_keep_only_what_sql_does_not_know(store: Driver) -> None:
    known_there, better_here = a_call(), a_call()
    await store.settle(known_there, nanousd=10, rank=1)
    await store.settle(better_here, nanousd=20, rank=2)
    store.clock.advance(1)
    answer = await store.do(
        Confirm(TEAM, "1", tuple(_in_sql(call, 1) for call in (known_there, better_here)), (spent(110, 2),))
    )
    assert answer == Confirmed((better_here.request_id,))
    assert await store.left(1000) == 870


def _in_sql(call: Claim, rank: int) -> InSQL:
    return InSQL(call.request_id, rank, 100, tuple(window.budget for window in call.money))
