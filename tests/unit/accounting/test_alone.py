"""A gateway that is one process: limits in memory, budgets from a real ledger when they are first used."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from app.accounting.alone import Alone, token_of
from app.core.errors import LimitsUnavailable
from app.core.records import BudgetWindow
from app.limits.hot import Look
from app.limits.limiter import Claim, Grant, MoneyWindow, Outcome, Refusal
from app.store.batch import write_batch
from app.store.posting import Written
from tests.unit.accounting.samples import (
    BUDGET,
    NOW_MS,
    TEAM,
    TestClock,
    claim_of,
    concurrency,
    exact,
    free_claim,
    money,
    never_remade,
    protective,
    record_of,
    requests,
)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine may take long to read a ledger that is there."""
    monkeypatch.setattr("app.accounting.alone.REQUEST_LEDGER_S", 30)


@contextlib.asynccontextmanager
async def busy(ledger, monkeypatch):
    """While somebody else writes, nothing can be read, and soon nobody waits for it."""
    with monkeypatch.context() as patch:
        patch.setattr("app.accounting.alone.REQUEST_LEDGER_S", 0.5)
        async with ledger.transaction():
            yield


@pytest.fixture
def clock():
    return TestClock()


@pytest.fixture
async def alone(clock, ledger):
    alone = Alone(clock, ledger)
    await alone.start()
    yield alone
    await alone.close()


async def grant(alone, claim, remake=never_remade):
    decided = await alone.admit(claim, remake)
    assert isinstance(decided, Grant), decided
    return decided


async def refuse(alone, claim):
    decided = await alone.admit(claim, never_remade)
    assert isinstance(decided, Refusal), decided
    return decided


async def write(alone, database, *records):
    """As the ledger's writer does."""
    token = alone.before_write()
    written = await write_batch(database, records)
    alone.after_write(records, written, token)
    return written


def left(decided):
    return decided.standings[0].remaining


# -- admission ----------------------------------------------------------------------------------


async def test_a_request_that_nothing_limits_costs_nothing(alone):
    claim = free_claim()
    assert await alone.admit(claim, never_remade) == Grant(claim, NOW_MS)
    alone.settle(claim, exact(0))
    alone.void(claim)
    assert repr(alone) == "Alone(MemoryHot(tags=0, reservations=0))"


async def test_a_budget_is_read_from_the_ledger_on_its_first_use(alone, ledger):
    await write_batch(ledger, [record_of("before", 300)])
    decided = await grant(alone, claim_of("r1", money(1000), bound=100))
    assert decided.claim == claim_of("r1", money(1000), bound=100)
    assert (left(decided), decided.is_held, decided.admitted_at_ms) == (600, True, NOW_MS)
    assert repr(alone) == "Alone(MemoryHot(tags=1, reservations=1))"


async def test_it_is_read_once(alone, ledger):
    await grant(alone, claim_of("r1", money(1000), bound=100))
    # What others write is not known here: there are no others.
    await write_batch(ledger, [record_of("unheard of", 300)])
    assert left(await grant(alone, claim_of("r2", money(1000), bound=100))) == 800


async def test_where_others_may_have_spent_it_is_read_again_and_what_runs_stays_held(alone, ledger):
    await grant(alone, claim_of("r1", money(1000), bound=100))
    await write_batch(ledger, [record_of("another's", 300)])
    await alone.read_again()
    assert left(await grant(alone, claim_of("r2", money(1000), bound=100))) == 500
    assert (await refuse(alone, claim_of("r3", money(1000), bound=600))).is_held


async def test_while_another_gateway_counts_on_the_ledger_strict_limits_are_not_decided(clock, ledger):
    alone = Alone(clock, ledger, lambda: False)
    with pytest.raises(LimitsUnavailable):
        await alone.admit(claim_of("r1", money(1000), bound=100), never_remade)
    await grant(alone, protective(free_claim("r2", requests(2))))
    await grant(alone, free_claim("r3"))


async def test_what_does_not_fit_is_refused(alone):
    await grant(alone, claim_of("r1", money(1000), bound=700))
    assert (await refuse(alone, claim_of("r2", money(1000), bound=400))).is_held
    assert (await refuse(alone, claim_of("r3", money(100), bound=400))).retry_after_ms is None


async def test_requests_and_calls_at_once_are_limited_without_the_ledger(alone, clock):
    limits = (requests(2), concurrency(1))
    first = free_claim("r1", *limits)
    await grant(alone, first)
    assert (await refuse(alone, free_claim("r2", *limits))).limit.kind == "concurrency"
    alone.settle(first, exact(0))
    second = free_claim("r3", *limits)
    await grant(alone, second)
    alone.settle(second, exact(0))
    assert (await refuse(alone, free_claim("r4", *limits))).retry_after_ms == 61_000
    clock.at_ms += 61_000
    await grant(alone, free_claim("r5", *limits))


async def test_a_call_runs_as_long_as_it_takes(alone, clock):
    """No lease ends: calls end with their process."""
    await grant(alone, free_claim("r1", concurrency(1)))
    clock.at_ms += 10**10
    await refuse(alone, free_claim("r2", concurrency(1)))


async def test_a_claim_of_another_day_is_made_anew(alone, clock):
    old = MoneyWindow(BudgetWindow("budget_1", 0), NOW_MS)
    new = MoneyWindow(BudgetWindow("budget_1", NOW_MS), NOW_MS + 1000)
    asked_for = []

    def remake(at_ms):
        asked_for.append(at_ms)
        return claim_of("r1", windows=(new,))

    decided = await grant(alone, claim_of("r1", windows=(old,)), remake)
    assert (decided.claim, asked_for) == (claim_of("r1", windows=(new,)), [NOW_MS])


async def test_the_next_day_does_not_need_the_ledger(alone, clock, ledger, monkeypatch):
    today = MoneyWindow(BudgetWindow("budget_1", NOW_MS), NOW_MS + 1000)
    tomorrow = MoneyWindow(BudgetWindow("budget_1", NOW_MS + 1000), NOW_MS + 2000)
    await grant(alone, claim_of("r1", windows=(today,)))
    async with busy(ledger, monkeypatch):
        clock.at_ms += 1000
        await grant(alone, claim_of("r2", windows=(tomorrow,)))


async def test_an_end_of_all_time_ends_the_asking(alone):
    """Whatever stands in the way, an admission comes to an end."""
    over = MoneyWindow(BudgetWindow("budget_1", 0), NOW_MS)
    asked_for = []

    def remake(at_ms):
        asked_for.append(at_ms)
        return claim_of("r1", windows=(over,))

    with pytest.raises(LimitsUnavailable):
        await alone.admit(claim_of("r1", windows=(over,)), remake)
    assert len(asked_for) == 5


async def test_without_the_ledger_a_budgets_first_use_is_unavailable(alone, ledger, monkeypatch):
    async with busy(ledger, monkeypatch):
        with pytest.raises(LimitsUnavailable):
            await alone.admit(claim_of("r1"), never_remade)
    await grant(alone, claim_of("r2"))


async def test_without_the_ledger_a_protective_budget_goes_on(alone, ledger, monkeypatch):
    """As one of which nothing was spent, until the ledger says what was."""
    await write_batch(ledger, [record_of("before", 300)])
    claim = protective(claim_of("r1", money(1000), bound=100))
    async with busy(ledger, monkeypatch):
        assert left(await grant(alone, claim)) == 900
    alone.settle(claim, exact(70))
    await write(alone, ledger, record_of("r1", 70))
    assert left(await grant(alone, protective(claim_of("r2", money(1000), bound=0)))) == 630


async def test_the_first_value_that_the_ledger_tells_counts(alone, ledger, monkeypatch):
    claim = protective(claim_of("r1", money(1000), bound=100))
    async with busy(ledger, monkeypatch):
        await grant(alone, claim)
    alone.settle(claim, exact(70))
    written = await write(alone, ledger, record_of("r1", 70))
    assert written.budgets == {BUDGET: (70, 1)}
    assert left(await grant(alone, protective(claim_of("r2", money(1000), bound=0)))) == 930


async def test_the_next_day_of_a_protective_budget_goes_on_too(alone, clock, ledger, monkeypatch):
    windows = [MoneyWindow(BudgetWindow("budget_1", start), start + 1000) for start in (NOW_MS, NOW_MS + 1000)]
    async with busy(ledger, monkeypatch):
        await grant(alone, protective(claim_of("r1", windows=windows[:1])))
        clock.at_ms += 1000
        # Whoever asked the ledger now waited for long.
        monkeypatch.setattr("app.accounting.alone.REQUEST_LEDGER_S", 900)
        async with asyncio.timeout(30):
            await grant(alone, protective(claim_of("r2", windows=windows[1:])))


async def test_a_strict_one_that_only_observes_goes_on_too(alone, ledger, monkeypatch):
    async with busy(ledger, monkeypatch):
        await grant(alone, claim_of("r1", money(mode="observe")))


async def test_a_call_that_was_given_up_is_not_admitted_again(alone):
    claim = claim_of("r1", requests())
    await grant(alone, claim)
    alone.void(claim)
    with pytest.raises(LimitsUnavailable):
        await alone.admit(claim, never_remade)


async def test_what_came_to_nothing_counts_nothing(alone):
    claim = claim_of("r1", money(1000), requests(1), bound=1000)
    await grant(alone, claim)
    alone.void(claim)
    await grant(alone, claim_of("r2", money(1000), requests(1), bound=1000))


async def test_only_what_the_process_itself_needs_is_kept(alone):
    """Bodies of records would fill the memory."""
    claim = claim_of("r1")
    await grant(alone, claim)
    known = alone._hot.apply(Look(TEAM, "r1"))
    assert (known.opening, known.record) == (b"", b"")
    alone.settle(claim, Outcome(2, 70, 0, b"a long record"))
    known = alone._hot.apply(Look(TEAM, "r1"))
    assert (known.state, known.rank, known.record, known.nanousd) == ("done", 2, b"", 70)


# -- settled and written ------------------------------------------------------------------------


async def test_what_is_settled_counts_as_it_was_until_sql_has_it(alone, ledger):
    claim = claim_of("r1", money(1000), bound=500)
    await grant(alone, claim)
    alone.settle(claim, exact(70))
    assert left(await grant(alone, claim_of("r2", money(1000), bound=0))) == 930
    await write(alone, ledger, record_of("r1", 70))
    assert left(await grant(alone, claim_of("r3", money(1000), bound=0))) == 930
    assert alone._hot.apply(Look(TEAM, "r1")).changed is False


async def test_teams_are_told_of_their_own_records(alone, ledger):
    other = claim_of("r2", money(1000, counter="budget_2"), tag="team_2", bound=500)
    await grant(alone, claim_of("r1", money(1000), bound=500))
    await grant(alone, other)
    windows = (BudgetWindow("budget_2", 0),)
    await write(alone, ledger, record_of("r1", 70), record_of("r2", 30, budgets=windows, team_id="team_2"))
    assert left(await grant(alone, claim_of("r3", money(1000), bound=0))) == 930
    asked = claim_of("r4", money(1000, counter="budget_2"), tag="team_2", bound=0)
    assert left(await grant(alone, asked)) == 970


async def test_what_could_not_be_written_yet_is_held_on(alone):
    claim = claim_of("r1", money(1000), bound=500)
    await grant(alone, claim)
    alone.settle(claim, exact(70))
    alone.after_write([record_of("r1", 70)], Written(0, {}, {}), alone.before_write())
    assert alone._hot.apply(Look(TEAM, "r1")).state == "done"


async def test_the_journal_of_an_earlier_process_is_in_the_ledger_before_anything_is_read(alone, ledger):
    """It is replayed before anything is admitted: there is nothing to tell then."""
    await write(alone, ledger, record_of("of another life", 300))
    assert repr(alone) == "Alone(MemoryHot(tags=0, reservations=0))"
    assert left(await grant(alone, claim_of("r1", money(1000), bound=0))) == 700


async def test_two_first_uses_at_once_count_both(alone, ledger):
    await write_batch(ledger, [record_of("before", 300)])
    claims = [claim_of(f"r{number}", money(1000), bound=300) for number in range(3)]
    decided = await asyncio.gather(*[alone.admit(claim, never_remade) for claim in claims])
    assert sorted(isinstance(each, Grant) for each in decided) == [False, True, True]


async def test_a_value_read_before_a_newer_one_was_told_changes_nothing(alone, ledger):
    claim = claim_of("r1", money(1000), bound=500)
    await grant(alone, claim)
    await write(alone, ledger, record_of("r1", 70))
    await write(alone, ledger, record_of("r2", 30))
    assert left(await grant(alone, claim_of("r3", money(1000), bound=0))) == 900


# -- limits that protect an upstream ------------------------------------------------------------


async def test_limits_of_an_upstream_belong_to_no_epoch(alone):
    claim = Claim("r1", "up:x", (concurrency(1), requests(10)))
    assert (token_of(claim), token_of(free_claim())) == ("", "1")
    await grant(alone, claim)
    await refuse(alone, Claim("r2", "up:x", (concurrency(1), requests(10))))
    alone.settle(claim, exact(0))
    assert repr(alone) == "Alone(MemoryHot(tags=1, reservations=0))"
    await grant(alone, Claim("r3", "up:x", (concurrency(1), requests(10))))


async def test_nobody_else_has_to_be_told_what_is_seen(alone):
    await grant(alone, claim_of("r1"))
    alone.watch("r1", lambda: pytest.fail("nobody asks"))
