"""What each command does to a reservation and its budgets, alone and repeated."""

from __future__ import annotations

import msgspec
import pytest

from app.core.records import BudgetWindow
from app.limits.hot import (
    Beat,
    Beaten,
    BudgetValue,
    Cold,
    Confirm,
    Confirmed,
    Done,
    Due,
    FindDue,
    Granted,
    InSQL,
    Known,
    Look,
    Lost,
    NotDue,
    OpenTag,
    OutOfWindow,
    Refused,
    Reserve,
    Restore,
    Seed,
    Seen,
    Settle,
    StandIn,
    TakeOver,
    Void,
    Voided,
)
from app.limits.limiter import MAXIMUM_MAX, Claim, MoneyWindow, Outcome
from tests.contract.limits.harness import (
    BUDGET,
    DAY_MS,
    FOREVER_MS,
    LIGHT,
    START_MS,
    TEAM,
    Driver,
    claim,
    concurrency,
    money,
    requests,
    tokens,
)

CHANGED, UNCHANGED = Done(), Done(changed=False)
OTHER = BudgetWindow("budget_2", 0)
TOMORROW_MS = START_MS - START_MS % DAY_MS + DAY_MS


def a_call(*, bound: int = 100, likely: int = 0, tag: str = TEAM) -> Claim:
    """A call that every kind of limit binds."""
    limits = (requests(10), tokens(1000), concurrency(5), money(1000))
    return claim(*limits, tokens=50, bound=bound, likely=likely, tag=tag)


@pytest.fixture
async def warm(driver: Driver) -> Driver:
    """A store in which the budget's value is known: 200 of it are spent."""
    await driver.seed(200, 1)
    return driver


# -- admission ----------------------------------------------------------------------------------


async def test_a_budget_admits_what_fits_behind_spent_settled_and_held(warm: Driver) -> None:
    limit = money(1000)
    settled = await warm.take(limit, bound=300)
    await warm.settle(settled, nanousd=250)
    assert (await warm.grant(claim(limit, bound=400))).standings == ((150, FOREVER_MS - START_MS),)
    assert (await warm.grant(claim(limit, bound=150))).standings[0][0] == 0
    assert await warm.refuse(limit, bound=1) == Refused(0, 2000, ((0, FOREVER_MS - START_MS),), is_held=True)


async def test_a_refusal_tells_spent_money_from_held(warm: Driver) -> None:
    limit = money(1000)
    await warm.take(limit, bound=500)
    held = await warm.refuse(limit, bound=800)  # 200 + 800 would fit, were nothing held
    assert (held.retry_after_ms, held.is_held) == (2000, True)
    spent = await warm.refuse(limit, bound=801)
    assert (spent.retry_after_ms, spent.is_held) == (None, False)
    assert spent.standings == ((300, FOREVER_MS - START_MS),)


async def test_what_costs_nothing_fits_into_a_budget_that_is_over(warm: Driver) -> None:
    await warm.settle(await warm.take(money(1000), bound=800), nanousd=5000)
    assert (await warm.grant(claim(money(1000)))).standings[0][0] == 0
    assert await warm.left(1000) == -4200


async def test_a_budget_holds_the_bound_or_what_is_likely(warm: Driver) -> None:
    await warm.grant(claim(money(1000, bound="estimate"), bound=700, likely=30))
    assert await warm.left(1000) == 770
    await warm.grant(claim(money(1000), bound=700, likely=30))
    assert await warm.left(1000) == 70


async def test_several_budgets_are_taken_together_or_not_at_all(warm: Driver) -> None:
    await warm.seed(0, 1, OTHER)
    both = (money(1000), money(300, budget=OTHER))
    refused = await warm.refuse(*both, bound=400)
    assert (refused.index, refused.retry_after_ms) == (1, None)
    assert (await warm.left(1000), await warm.left(300, OTHER)) == (800, 300)
    await warm.take(*both, bound=200)
    assert (await warm.left(1000), await warm.left(300, OTHER)) == (600, 100)


async def test_an_observed_budget_counts_and_does_not_refuse(warm: Driver) -> None:
    limit = money(250, mode="observe")
    assert (await warm.grant(claim(limit, bound=40))).observed == ()
    assert (await warm.grant(claim(limit, bound=40))).observed == (0,)
    assert await warm.left(1000) == 720


async def test_a_budget_whose_value_is_not_known_is_cold_not_zero(driver: Driver) -> None:
    limits = (requests(5), money(1000), money(1000, budget=OTHER))
    assert await driver.reserve(claim(*limits, bound=1)) == Cold((1, 2))
    await driver.seed(0, 1, OTHER)
    assert await driver.reserve(claim(*limits, bound=1)) == Cold((1,))
    await driver.seed(999, 1)
    asked = claim(*limits, bound=1)
    assert (await driver.grant(asked)).standings[0][0] == 4  # the questions were not counted
    assert (await driver.refuse(*limits, bound=1)).index == 1


async def test_a_settlement_does_not_warm_a_budget(driver: Driver) -> None:
    late = claim(money(1000), bound=10)
    assert await driver.settle(late, nanousd=10) == CHANGED
    assert await driver.reserve(claim(money(1000), bound=1)) == Cold((0,))
    await driver.seed(200, 1)
    assert await driver.left(1000) == 790


async def test_a_budget_is_refused_outside_of_its_window(driver: Driver) -> None:
    today = BudgetWindow("daily", TOMORROW_MS - DAY_MS)
    tomorrow = BudgetWindow("daily", TOMORROW_MS)
    for budget in (today, tomorrow):
        await driver.seed(0, 0, budget)

    async def ask(budget: BudgetWindow) -> object:
        windows = (MoneyWindow(budget, budget.start_ms + DAY_MS),)
        return await driver.reserve(claim(money(1000, budget=budget), bound=10, windows=windows))

    assert await ask(tomorrow) == OutOfWindow(START_MS)
    driver.clock.advance(TOMORROW_MS - 1 - START_MS)
    assert await ask(tomorrow) == OutOfWindow(TOMORROW_MS - 1)
    assert await ask(today) == Granted(TOMORROW_MS - 1, ((990, 1),))
    driver.clock.advance(1)
    assert await ask(today) == OutOfWindow(TOMORROW_MS)
    assert await ask(tomorrow) == Granted(TOMORROW_MS, ((990, DAY_MS),))


async def test_it_is_out_of_its_window_before_it_is_cold(driver: Driver) -> None:
    over = claim(money(1000), bound=1, windows=(MoneyWindow(BUDGET, START_MS),))
    assert await driver.reserve(over) == OutOfWindow(START_MS)


async def test_the_same_claim_again_is_granted_whatever_has_become_of_its_budget(warm: Driver) -> None:
    asked = claim(money(1000), bound=800, windows=(MoneyWindow(BUDGET, START_MS + 1),))
    first = await warm.grant(asked)
    warm.clock.advance(60_000)
    again = await warm.grant(asked)
    assert (again.admitted_at_ms, again.standings) == (first.admitted_at_ms, ((0, 0),))
    assert await warm.left(1000) == 0


async def test_money_is_exact_up_to_the_largest_limit(driver: Driver) -> None:
    await driver.seed(MAXIMUM_MAX - 3, 1)
    limit = money(MAXIMUM_MAX)
    first, second = await driver.take(limit, bound=1), await driver.take(limit, bound=1)
    assert await driver.left(MAXIMUM_MAX) == 1
    await driver.settle(first, nanousd=2)
    assert await driver.left(MAXIMUM_MAX) == 0
    assert (await driver.refuse(limit, bound=1)).is_held
    await driver.settle(second, nanousd=0)
    assert await driver.left(MAXIMUM_MAX) == 1


# -- the end of a call --------------------------------------------------------------------------


async def test_a_settlement_corrects_everything_and_stays_until_sql_has_it(warm: Driver) -> None:
    call = a_call()
    await warm.grant(call)
    assert await warm.settle(call, tokens=20, nanousd=70) == CHANGED
    assert await warm.look(call) == Known("done", 1, 2, "gateway-1", b'{"the":"opening"}', b"record of 2", nanousd=70)
    standings = (await warm.grant(a_call(bound=0))).standings
    assert [remaining for remaining, _ in standings] == [8, 930, 4, 730]
    warm.clock.advance(59_999)
    assert call.request_id not in await warm.due()
    warm.clock.advance(1)
    assert call.request_id in await warm.due()


async def test_a_settlement_of_nothing_gives_everything_back(warm: Driver) -> None:
    call = a_call()
    await warm.grant(call)
    await warm.settle(call, tokens=0, nanousd=0)
    known = await warm.look(call)
    assert known is not None
    assert known.nanousd == 0
    assert await warm.left(1000) == 800


@pytest.mark.parametrize(("first", "second", "counted"), [(1, 1, 70), (2, 1, 70), (2, 2, 70), (1, 2, 90)])
async def test_only_a_higher_rank_replaces_an_outcome(warm: Driver, first: int, second: int, counted: int) -> None:
    call = a_call()
    await warm.grant(call)
    await warm.settle(call, tokens=20, nanousd=70, rank=first)
    changed = second > first
    assert await warm.settle(call, tokens=500, nanousd=90, rank=second) == Done(changed=changed)
    known = await warm.look(call)
    assert known is not None
    assert (known.rank, known.nanousd, known.record) == (
        max(first, second),
        counted,
        b"record of %d" % max(first, second),
    )
    assert await warm.left(1000) == 800 - counted
    assert await warm.remaining(tokens(1000)) == 980  # tokens are settled once


async def test_a_settlement_that_finds_nothing_becomes_done(warm: Driver) -> None:
    """Its record is all that anybody needs of it then; without one that is its opening."""
    call, other = a_call(), a_call()
    assert await warm.settle(call, tokens=20, nanousd=70) == CHANGED
    known = await warm.look(call)
    assert known is not None
    assert (known.state, known.opening, known.nanousd) == ("done", b"", 70)
    await warm.do(Settle(other, "1", Outcome(1, 0, 0)))
    known = await warm.look(other)
    assert known is not None
    assert (known.state, known.opening, known.record) == ("done", other.opening, b"")
    assert await warm.left(1000) == 730
    assert await warm.remaining(tokens(1000)) == 1000  # windows begin afresh


async def test_a_confirmed_exact_outcome_is_not_settled_again(warm: Driver) -> None:
    call = a_call()
    await warm.grant(call)
    await warm.settle(call, nanousd=70)
    assert await warm.confirm(call, 2, 70, BudgetValue(BUDGET, 270, 2)) == ()
    assert await warm.look(call) is None
    assert await warm.settle(call, nanousd=70) == UNCHANGED
    assert await warm.reserve(call) == Voided()
    assert await warm.left(1000) == 730
    assert await warm.due() == ()


async def test_what_is_gone_is_forgotten_after_a_minute(warm: Driver) -> None:
    call = a_call()
    await warm.settle(call, nanousd=70)
    await warm.confirm(call, 2, 70, BudgetValue(BUDGET, 270, 2))
    warm.clock.advance(59_999)
    assert await warm.settle(call, nanousd=70) == UNCHANGED
    warm.clock.advance(1)
    # Too high until SQL has said once more that it knows: then right again.
    assert await warm.settle(call, nanousd=70) == CHANGED
    assert await warm.left(1000) == 660
    assert await warm.confirm(call, 2, 70, BudgetValue(BUDGET, 270, 2)) == ()
    assert await warm.left(1000) == 730


# -- void ---------------------------------------------------------------------------------------


async def test_a_voided_call_leaves_nothing(warm: Driver) -> None:
    call = a_call()
    await warm.grant(call)
    assert await warm.do(Void(call)) == CHANGED
    assert await warm.do(Void(call)) == UNCHANGED
    assert await warm.look(call) is None
    standings = (await warm.grant(a_call(bound=0))).standings
    assert [remaining for remaining, _ in standings] == [9, 950, 4, 800]
    assert call.request_id not in await warm.due()


async def test_a_reserve_that_comes_after_its_void_is_refused_for_a_minute(warm: Driver) -> None:
    call = a_call()
    assert await warm.do(Void(call)) == UNCHANGED
    warm.clock.advance(59_999)
    assert await warm.reserve(call) == Voided()
    warm.clock.advance(1)
    await warm.grant(call)


async def test_a_void_does_not_touch_what_has_been_settled(warm: Driver) -> None:
    call = a_call()
    await warm.grant(call)
    await warm.settle(call, nanousd=70)
    assert await warm.do(Void(call)) == UNCHANGED
    assert await warm.left(1000) == 730


async def test_a_voided_call_that_ran_all_the_same_is_settled_and_restored(warm: Driver) -> None:
    settled, restored = a_call(), a_call()
    for call in (settled, restored):
        await warm.do(Void(call))
    assert await warm.settle(settled, nanousd=70) == CHANGED
    assert await warm.do(Restore(restored, "1")) == CHANGED
    assert await warm.left(1000) == 630
    warm.clock.advance(14_000)
    assert await warm.grant(restored)
    warm.clock.advance(50_000)  # what remembered the void is over, and took nothing with it
    assert await warm.look(settled) is not None
    assert await warm.look(restored) is not None


# -- restore ------------------------------------------------------------------------------------


async def test_a_running_call_is_put_back_whatever_the_limits(warm: Driver) -> None:
    warm.clock.advance(5)
    call = a_call(bound=5000)
    assert await warm.do(Restore(call, "1")) == CHANGED
    assert await warm.do(Restore(call, "1")) == UNCHANGED
    assert await warm.left(1000) == 800 - 5000
    assert (await warm.grant(claim(concurrency(5)))).standings[0][0] == 3
    known = await warm.look(call)
    assert known is not None
    assert (known.state, known.opening, known.owner) == ("open", call.opening, "gateway-1")
    warm.clock.advance(15_000)
    assert call.request_id in await warm.due()


async def test_a_restored_call_settles_without_touching_windows_that_began_afresh(warm: Driver) -> None:
    call = a_call()
    await warm.do(Restore(call, "1"))
    await warm.settle(call, tokens=900, nanousd=70)
    assert await warm.remaining(tokens(1000)) == 1000
    assert await warm.left(1000) == 730


async def test_a_restore_prolongs_what_is_open(warm: Driver) -> None:
    call = a_call()
    await warm.grant(call)
    warm.clock.advance(14_000)
    assert await warm.do(Restore(call, "1")) == UNCHANGED
    warm.clock.advance(14_000)
    assert await warm.due() == ()
    assert (await warm.grant(claim(concurrency(5)))).standings[0][0] == 3


async def test_a_restore_does_not_reopen_what_is_settled(warm: Driver) -> None:
    call = a_call()
    await warm.settle(call, nanousd=70)
    assert await warm.do(Restore(call, "1")) == UNCHANGED
    await warm.confirm(call, 2, 70, BudgetValue(BUDGET, 270, 2))
    assert await warm.do(Restore(call, "1")) == UNCHANGED
    assert await warm.left(1000) == 730


# -- heartbeats and reapers ---------------------------------------------------------------------


async def test_a_heartbeat_prolongs_what_runs_and_what_waits_for_sql(warm: Driver) -> None:
    running, settled, silent = a_call(), a_call(), a_call()
    for call in (running, settled, silent):
        await warm.grant(call)
    await warm.settle(settled, nanousd=1)
    for _ in range(10):
        warm.clock.advance(10_000)
        assert await warm.do(Beat(TEAM, "1", (Seen(running),), (settled.request_id,))) == Beaten()
    assert await warm.due() == (silent.request_id,)
    assert (await warm.grant(claim(concurrency(5)))).standings[0][0] == 3  # that of the silent one has ended


async def test_a_heartbeat_carries_what_has_been_seen(warm: Driver) -> None:
    call = a_call()
    await warm.grant(call)
    await warm.do(Beat(TEAM, "1", (Seen(call, 3, 40),)))
    await warm.do(Beat(TEAM, "1", (Seen(call, 7, 90),)))
    known = await warm.look(call)
    assert known is not None
    assert (known.state, known.output_tokens, known.lower_nanousd) == ("open", 7, 90)
    warm.clock.advance(15_000)
    taken = await warm.take_over(call)
    assert isinstance(taken, Known)
    assert (taken.output_tokens, taken.lower_nanousd) == (7, 90)


async def test_a_heartbeat_names_what_is_not_counted_here(warm: Driver) -> None:
    known, unknown, void, done = a_call(), a_call(), a_call(), a_call()
    await warm.grant(known)
    await warm.do(Void(void))
    await warm.settle(done)
    beat = Beat(TEAM, "1", tuple(map(Seen, (known, unknown, void, done))), ("never heard of",))
    assert await warm.do(beat) == Beaten((unknown.request_id, void.request_id))
    warm.clock.advance(60_000)
    assert set(await warm.due()) == {known.request_id, done.request_id}


async def test_a_lease_that_was_lost_is_taken_again_by_the_heartbeat(warm: Driver) -> None:
    limit = concurrency(1)
    slow = await warm.take(limit)
    warm.clock.advance(20_000)
    await warm.take(limit)
    await warm.do(Beat(TEAM, "1", (Seen(slow),)))  # two run now: that is the truth, above the limit
    assert (await warm.grant(claim(concurrency(5)))).standings[0][0] == 2


async def test_a_heartbeat_of_many_calls(warm: Driver) -> None:
    calls = [await warm.take(concurrency(800), money(10**6), bound=1) for _ in range(700)]
    for _ in range(3):
        warm.clock.advance(14_000)
        assert await warm.do(Beat(TEAM, "1", tuple(map(Seen, calls)))) == Beaten()
    assert await warm.due() == ()
    assert (await warm.grant(claim(concurrency(800)))).standings[0][0] == 99


async def test_the_longest_silent_are_found_first(warm: Driver) -> None:
    calls = []
    for _ in range(5):
        calls.append(a_call())
        await warm.grant(calls[-1])
        warm.clock.advance(1)
    assert await warm.due() == ()
    warm.clock.advance(15_000 - 3)
    assert await warm.due() == tuple(call.request_id for call in calls[:3])
    assert await warm.do(FindDue(TEAM, "1", 2)) == Due(tuple(call.request_id for call in calls[:2]))


async def test_open_money_is_charged_at_its_bound(warm: Driver) -> None:
    limits = (money(1000, bound="estimate"), concurrency(1))
    call = claim(*limits, bound=300, likely=20)
    await warm.grant(call)
    assert await warm.take_over(call) == NotDue()
    warm.clock.advance(15_000)
    assert await warm.take_over(call) == Known("done", 1, 1, "gateway-1", call.opening, b"", nanousd=300)
    assert await warm.left(1000) == 500
    assert (await warm.grant(claim(concurrency(1)))).standings[0][0] == 0  # its lease is over
    assert await warm.look(call) is not None


async def test_what_was_settled_is_told_with_its_outcome(warm: Driver) -> None:
    call = a_call()
    await warm.grant(call)
    await warm.settle(call, nanousd=70)
    warm.clock.advance(60_000)
    assert await warm.take_over(call) == Known("done", 1, 2, "gateway-1", call.opening, b"record of 2", nanousd=70)
    assert await warm.left(1000) == 730


async def test_what_is_gone_is_nobodys(warm: Driver) -> None:
    call = a_call()
    assert await warm.take_over(call) == UNCHANGED
    await warm.settle(call)
    await warm.confirm(call, 2, 0)
    warm.clock.advance(60_000)
    assert await warm.take_over(call) == UNCHANGED
    assert await warm.do(Look(TEAM, call.request_id)) == UNCHANGED
    assert await warm.do(Look("team_without_anything", "x")) == UNCHANGED


# -- what SQL knows -----------------------------------------------------------------------------


async def test_values_are_assigned_where_they_are_newer(warm: Driver) -> None:
    assert await warm.seed(900, 1) == UNCHANGED
    assert await warm.left(1000) == 800
    assert await warm.seed(900, 3) == CHANGED
    assert await warm.seed(400, 2) == UNCHANGED
    assert await warm.left(1000) == 100
    assert await warm.seed(100, 4) == CHANGED  # a correction may lower it
    assert await warm.left(1000) == 900


async def test_a_window_that_has_not_begun_is_warm_with_version_zero(driver: Driver) -> None:
    assert await driver.seed(0, 0) == CHANGED
    assert await driver.seed(0, 0) == UNCHANGED
    assert await driver.left(1000) == 1000
    assert await driver.seed(5, 1) == CHANGED


async def test_one_seed_for_several_budgets(driver: Driver) -> None:
    values = (BudgetValue(BUDGET, 10, 1), BudgetValue(OTHER, 20, 1))
    assert await driver.do(Seed(TEAM, "1", values)) == CHANGED
    assert await driver.do(Seed(TEAM, "1", values)) == UNCHANGED
    assert await driver.do(Seed(TEAM, "1", ())) == UNCHANGED
    assert (await driver.left(100), await driver.left(100, OTHER)) == (90, 80)


async def test_a_confirmation_takes_away_what_it_brings(warm: Driver) -> None:
    calls = [a_call() for _ in range(3)]
    for call in calls:
        await warm.grant(call)
        await warm.settle(call, nanousd=70)
    assert await warm.left(1000) == 590
    rows = tuple(InSQL(call.request_id, 2, 70, (BUDGET,)) for call in calls)
    confirm = Confirm(TEAM, "1", rows, (BudgetValue(BUDGET, 410, 2),))
    for _ in range(3):
        assert await warm.do(confirm) == Confirmed()
        assert await warm.left(1000) == 590
    assert await warm.due() == ()


async def test_a_confirmation_of_many_with_several_budgets(warm: Driver) -> None:
    await warm.seed(0, 1, OTHER)
    both = (money(10**6), money(10**6, budget=OTHER, bound="estimate"))
    calls = [claim(*both, bound=7, likely=3) for _ in range(400)]
    for call in calls[:200]:
        await warm.grant(call)
    for call in calls[100:]:
        await warm.settle(call, nanousd=5)
    # A hundred are open, a hundred settled, two hundred were never reserved.
    assert (await warm.left(10**4), await warm.left(10**4, OTHER)) == (9800 - 700 - 1500, 10**4 - 300 - 1500)
    rows = tuple(InSQL(call.request_id, 2, 5, (BUDGET, OTHER)) for call in calls)
    values = (BudgetValue(BUDGET, 2200, 2), BudgetValue(OTHER, 2000, 2))
    assert await warm.do(Confirm(TEAM, "1", rows, values)) == Confirmed()
    assert (await warm.left(10**4), await warm.left(10**4, OTHER)) == (7800, 8000)


async def test_values_come_without_requests_and_requests_without_values(warm: Driver) -> None:
    call = a_call()
    await warm.settle(call, nanousd=70)
    assert await warm.do(Confirm(TEAM, "1", (), (BudgetValue(BUDGET, 270, 2),))) == Confirmed()
    assert await warm.left(1000) == 660  # too high for a moment, never too low
    assert await warm.confirm(call, 2, 70) == ()
    assert await warm.left(1000) == 730


async def test_a_stand_in_holds_until_it_is_ended_and_does_not_come_back(warm: Driver) -> None:
    def stand_in(nanousd: int, process: str = "gateway-2", budget: BudgetWindow = BUDGET) -> StandIn:
        return StandIn(TEAM, "1", process, budget, nanousd)

    assert await warm.do(stand_in(300)) == CHANGED
    assert await warm.do(stand_in(300)) == UNCHANGED
    assert await warm.do(stand_in(100, "gateway-3")) == CHANGED
    assert await warm.left(1000) == 400
    assert (await warm.refuse(money(1000), bound=500)).is_held
    assert await warm.do(stand_in(250)) == CHANGED
    assert await warm.left(1000) == 450
    assert await warm.do(stand_in(0)) == CHANGED
    assert await warm.do(stand_in(0)) == UNCHANGED
    assert await warm.do(stand_in(300)) == UNCHANGED  # sent before it was ended
    assert await warm.left(1000) == 700
    assert await warm.do(stand_in(0, "gateway-4")) == CHANGED  # ended before it has come
    assert await warm.do(stand_in(300, "gateway-4")) == UNCHANGED
    assert await warm.left(1000) == 700
    assert await warm.do(stand_in(40, budget=OTHER)) == CHANGED
    await warm.seed(0, 1, OTHER)
    assert await warm.left(1000, OTHER) == 960


# -- epochs -------------------------------------------------------------------------------------


async def test_a_tag_without_an_epoch_or_of_another_does_nothing(driver: Driver) -> None:
    call = a_call()
    row = InSQL(call.request_id, 2, 0, (BUDGET,))
    commands = {
        "1": "team_2",  # a tag that has none
        "0": TEAM,  # one that has a later one
        "2": TEAM,
    }
    for token, tag in commands.items():
        found = "1" if tag == TEAM else None
        theirs = msgspec.structs.replace(call, tag=tag)
        for command in (
            Reserve(theirs, token),
            Settle(theirs, token, Outcome(2, 5, 5)),
            Restore(theirs, token),
            Beat(tag, token, (Seen(theirs),)),
            FindDue(tag, token),
            TakeOver(tag, token, call.request_id, (BUDGET,)),
            Confirm(tag, token, (row,), (BudgetValue(BUDGET, 5, 5),)),
            Seed(tag, token, (BudgetValue(BUDGET, 5, 5),)),
            StandIn(tag, token, "gateway-2", BUDGET, 5),
        ):
            assert await driver.do(command) == Lost(found), command
        assert await driver.look(theirs) is None
    await driver.seed(0, 1)
    assert await driver.left(1000) == 1000


async def test_epochs_only_go_up(driver: Driver) -> None:
    assert await driver.do(OpenTag(TEAM, "1")) == UNCHANGED
    assert await driver.do(OpenTag(TEAM, "9")) == CHANGED
    assert await driver.do(OpenTag(TEAM, "10")) == CHANGED  # numbers, not text
    assert await driver.do(OpenTag(TEAM, "9")) == Lost("10")
    assert await driver.do(OpenTag("team_2", "3")) == CHANGED


# -- tags without epochs ------------------------------------------------------------------------


def light(*, amount: int = 50) -> Claim:
    return claim(requests(2), tokens(100), concurrency(2), tokens=amount, tag=LIGHT)


def lefts(granted: Granted) -> list[int]:
    return [remaining for remaining, _ in granted.standings]


async def test_limits_of_an_upstream_need_no_epoch_and_leave_nothing_due(driver: Driver) -> None:
    call = light()
    await driver.grant(call)
    assert lefts(await driver.grant(call)) == [1, 50, 1]
    assert (await driver.look(call)) is not None
    assert await driver.settle(call, tokens=10) == CHANGED
    assert await driver.settle(call, tokens=90) == UNCHANGED
    assert await driver.look(call) is None
    assert lefts(await driver.grant(light(amount=0))) == [0, 90, 1]
    driver.clock.advance(10**7)
    assert await driver.do(FindDue(LIGHT, "")) == Due(())


async def test_what_a_team_refuses_is_released_upstream(driver: Driver) -> None:
    call = light()
    await driver.grant(call)
    assert await driver.do(Void(call)) == CHANGED
    assert lefts(await driver.grant(light(amount=0))) == [1, 100, 1]
    assert await driver.reserve(call) == Voided()
    assert await driver.settle(call, tokens=10) == UNCHANGED
    assert await driver.reserve(call) == Voided()


async def test_a_reservation_upstream_is_forgotten_with_its_window(driver: Driver) -> None:
    call = light()
    await driver.grant(call)
    for _ in range(6):
        driver.clock.advance(10_000)
        assert await driver.do(Beat(LIGHT, "", (Seen(call, 5, 9),))) == Beaten()
        known = await driver.look(call)
        assert known is not None
        assert (known.output_tokens, known.lower_nanousd) == (5, 9)
    driver.clock.advance(1000)
    assert await driver.look(call) is None
    assert await driver.do(Beat(LIGHT, "", (Seen(call),))) == Beaten()  # its lease is kept all the same
    assert lefts(await driver.grant(light())) == [1, 50, 0]
    assert await driver.settle(call, tokens=10) == UNCHANGED
    assert lefts(await driver.grant(light())) == [0, 0, 0]


async def test_a_long_window_upstream_is_remembered_for_as_long(driver: Driver) -> None:
    call = claim(tokens(100, window_ms=3_600_000), tokens=80, tag=LIGHT)
    await driver.grant(call)
    driver.clock.advance(3_000_000)
    assert await driver.settle(call, tokens=10) == CHANGED
    assert lefts(await driver.grant(claim(tokens(100, window_ms=3_600_000), tag=LIGHT))) == [90]


async def test_what_is_put_back_has_the_opening_of_its_owner(warm: Driver) -> None:
    """An owner that makes a further attempt says so: who takes the call over has to know of each."""
    call = a_call()
    await warm.grant(call)
    more = msgspec.structs.replace(call, opening=call.opening + b"\nmore")
    assert await warm.do(Restore(more, "1")) == UNCHANGED
    known = await warm.do(Look(TEAM, call.request_id))
    assert isinstance(known, Known)
    assert (known.state, known.opening) == ("open", more.opening)
    await warm.do(Settle(more, "1", Outcome(2, 40, 10, b"record")))
    assert await warm.do(Restore(call, "1")) == UNCHANGED
    known = await warm.do(Look(TEAM, call.request_id))
    assert isinstance(known, Known)
    assert (known.state, known.opening) == ("done", more.opening)


async def test_an_opening_goes_with_its_reservation_into_another_epoch(warm: Driver) -> None:
    call = a_call()
    await warm.grant(call)
    assert await warm.do(OpenTag(TEAM, "2")) == CHANGED
    await warm.do(Seed(TEAM, "2", (BudgetValue(BUDGET, 0, 1),)))
    more = msgspec.structs.replace(call, opening=call.opening + b"\nmore")
    assert await warm.do(Restore(more, "2")) == CHANGED
    known = await warm.do(Look(TEAM, call.request_id))
    assert isinstance(known, Known)
    assert (known.state, known.epoch, known.opening) == ("open", 2, more.opening)
