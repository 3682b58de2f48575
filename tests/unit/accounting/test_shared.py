"""One process of many, driven by asyncio over a real ledger: what it starts, survives and leaves behind."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from app.accounting import accounts, ports
from app.accounting.accounts import Shared
from app.accounting.holdings import Progress
from app.core.errors import LimitsUnavailable
from app.core.records import BudgetWindow
from app.limits.hot import Known, Look, Reserve, StoreAway, Void
from app.limits.limiter import Claim, Grant, MoneyWindow, Refusal
from app.store import epochs, processes
from app.store.batch import write_batch
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
    opening_of,
    opening_payload,
    protective,
    record_of,
    requests,
)
from tests.unit.accounting.stores import HotInMemory, LedgerOnCall

AWAY = StoreAway(sent=False)
UPSTREAM = Claim("r1", "up:x", (concurrency(1),))


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    for name in ("FOLLOW_EVERY_S", "BEAT_EVERY_S", "REAP_EVERY_S", "TIDY_EVERY_S"):
        monkeypatch.setattr(accounts, name, 0.01)
    monkeypatch.setattr(accounts, "OPENING_S_MAX", 0.3)


@pytest.fixture
def clock():
    return TestClock()


@pytest.fixture
def hot(clock):
    return HotInMemory(clock)


@pytest.fixture
def flaky(ledger):
    return LedgerOnCall(ledger)


@pytest.fixture
async def launch(clock, hot, flaky):
    """Starts a process; all of them are closed at the end."""
    started = []

    async def launch(process_id="p1", **changes):
        shared = Shared(
            process_id,
            hot,
            flaky,
            clock,
            node="host",
            slot=3,
            on_state=lambda *state: shared.states.append(state),
            **changes,
        )
        shared.states = []
        await shared.start()
        started.append(shared)
        return shared

    yield launch
    for shared in started:
        await shared.close()


@pytest.fixture
async def shared(launch):
    return await launch()


async def eventually(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.005)


async def grant(shared, claim):
    decided = await shared.admit(claim, never_remade)
    assert isinstance(decided, Grant), decided
    return decided.claim


async def write(shared, ledger, *records):
    token = shared.before_write()
    shared.after_write(records, await write_batch(ledger, records), token)


async def process_of(ledger, process_id):
    async with ledger.read() as connection:
        return await processes.find_process(connection, process_id)


def known(hot, request_id="r1", tag=TEAM):
    answer = hot.memory.apply(Look(tag, request_id))
    return answer if isinstance(answer, Known) else None


# -- its life -----------------------------------------------------------------------------------


async def test_it_registers_and_opens(shared, ledger):
    row = await process_of(ledger, "p1")
    assert (row.node, row.slot, row.started_at_ms, row.closed) == ("host", 3, NOW_MS, False)
    assert (shared.is_open, shared.has_opened, shared.held) == (True, True, 0)
    assert shared.states == [(True, "")]
    assert repr(shared) == ("Shared(Accountant('p1', Epochs(number=1, open=True), Holdings(0)), Reaper(taken_over=0))")


async def test_a_request_from_its_admission_to_the_ledger(shared, hot, ledger):
    claim = await grant(shared, claim_of("r1", money(1000), bound=400))
    assert shared.held == 1
    assert known(hot).state == "open"
    shared.settle(claim, exact(70))
    assert (known(hot).state, known(hot).nanousd) == ("done", 70)
    await write(shared, ledger, record_of("r1", 70))
    await eventually(lambda: not shared.held)
    assert known(hot) is None
    decided = await shared.admit(claim_of("r2", money(1000), bound=0), never_remade)
    assert decided.standings[0].remaining == 930


async def test_its_name_stands_on_what_it_reserves(shared, hot):
    """Whoever names himself in the claim: else a reaper would charge what nobody holds any more."""
    await grant(shared, claim_of("r1", owner=""))
    assert known(hot).owner == "p1"


async def test_a_claim_made_anew_has_its_name_too(shared, hot, clock):
    old, new = (MoneyWindow(BudgetWindow("budget_1", start), start + 9) for start in (NOW_MS - 9, NOW_MS))
    claim = claim_of("r1", windows=(new,), owner="")
    decided = await shared.admit(claim_of("r1", windows=(old,), owner=""), lambda _at_ms: claim)
    assert decided.claim == msgspec.structs.replace(claim, owner="p1")
    assert known(hot).owner == "p1"


async def test_what_came_to_nothing_is_voided(shared, hot):
    claim = await grant(shared, claim_of("r1", money(1000), bound=1000))
    shared.void(claim)
    assert (shared.held, known(hot)) == (0, None)
    await grant(shared, claim_of("r2", money(1000), bound=1000))


async def test_it_ends_closed(launch, ledger):
    shared = await launch()
    await grant(shared, claim_of("r1", money(1000), bound=400))
    await eventually(lambda: shared._ports._marks)
    shared.settle(claim_of("r1"), exact(70))
    await write(shared, ledger, record_of("r1", 70))
    await shared.close()
    assert (await process_of(ledger, "p1")).closed
    async with ledger.read() as connection:
        assert await processes.marks_of(connection, "p1") == []


async def test_while_it_holds_something_it_is_not_closed(launch, ledger):
    """Its journal is replayed by another, who closes it then."""
    shared = await launch()
    await grant(shared, claim_of("r1", money(9000), bound=400))
    await shared.close()
    assert not (await process_of(ledger, "p1")).closed
    async with ledger.read() as connection:
        assert [mark.nanousd for mark in await processes.marks_of(connection, "p1")] == [2000]


async def test_it_ends_without_the_ledger_too(launch, flaky, ledger):
    shared = await launch()
    flaky.go()
    await shared.close()
    flaky.error = None
    assert not (await process_of(ledger, "p1")).closed


# -- an admission that is given up --------------------------------------------------------------


async def test_an_admission_that_is_cancelled_is_voided(shared, hot):
    await grant(shared, claim_of("r0"))
    hot.held = asyncio.Event()
    asked = asyncio.create_task(shared.admit(claim_of("r1", bound=30), never_remade))
    await eventually(lambda: known(hot) is not None)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    hot.held.set()
    assert (shared.held, known(hot)) == (1, None)
    assert hot.memory._tags[TEAM].budgets[BUDGET].held == 100


async def test_it_is_voided_in_the_windows_that_were_asked_for_last(shared, hot):
    """Midnight has passed: its hold is in the new day's budget."""
    old, new = (MoneyWindow(BudgetWindow("budget_1", start), start + 9) for start in (NOW_MS - 9, NOW_MS))
    await grant(shared, claim_of("r0", windows=(new,)))
    hot.held = asyncio.Event()
    claim = claim_of("r1", windows=(new,), bound=30)
    asked = asyncio.create_task(shared.admit(claim_of("r1", windows=(old,), bound=30), lambda _at_ms: claim))
    await asyncio.sleep(0.02)
    hot.held.set()
    hot.held = asyncio.Event()
    await eventually(lambda: known(hot) is not None)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    hot.held.set()
    assert hot.memory._tags[TEAM].budgets[new.budget].held == 100


async def test_an_upstreams_limits_are_voided_too(shared, hot):
    hot.held = asyncio.Event()
    asked = asyncio.create_task(shared.admit(UPSTREAM, never_remade))
    await eventually(lambda: known(hot, tag="up:x") is not None)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    hot.held.set()
    hot.held = None
    assert hot.posted == [Void(UPSTREAM)]
    await grant(shared, msgspec.structs.replace(UPSTREAM, request_id="r2"))


# -- failures -----------------------------------------------------------------------------------


async def test_what_cannot_be_confirmed_at_once_is_confirmed_later(shared, hot, ledger):
    claim = await grant(shared, claim_of("r1", money(1000), bound=400))
    shared.settle(claim, exact(70))
    hot.away = AWAY
    await write(shared, ledger, record_of("r1", 70))
    await asyncio.sleep(0.05)
    assert shared.held == 1
    hot.come_back()
    await eventually(lambda: not shared.held)
    assert hot.memory._tags[TEAM].budgets[BUDGET].confirmed == 70


async def test_what_was_replayed_before_it_started_is_confirmed_afterwards(clock, hot, flaky, ledger):
    shared = Shared("p1", hot, flaky, clock, node="host", slot=3, on_state=lambda *_state: None)
    assert shared.before_write() == 0
    await write(shared, ledger, record_of("of another life", 70))
    await eventually(lambda: not shared._confirming)
    await shared.start()
    await eventually(lambda: TEAM in hot.memory._tags and hot.memory._tags[TEAM].budgets)
    assert hot.memory._tags[TEAM].budgets[BUDGET].confirmed == 70
    assert shared.before_write() == 1
    await shared.close()


async def test_a_flush_is_survived(shared, hot):
    claim = await grant(shared, claim_of("r1", money(1000), bound=400))
    hot.memory.flush()
    with pytest.raises(LimitsUnavailable):
        await shared.admit(claim_of("r2", money(1000), bound=400), never_remade)
    assert (shared.is_open, shared.before_write()) == (False, 0)
    await eventually(lambda: shared.is_open)
    assert [is_open for is_open, _ in shared.states] == [True, False, True]
    assert known(hot).epoch == 2
    assert isinstance(await shared.admit(claim_of("r3", money(1000), bound=601), never_remade), Refusal)
    shared.settle(claim, exact(70))
    assert known(hot).nanousd == 70


async def test_protective_limits_go_on_with_a_share_of_those_that_live(launch, hot, monkeypatch):
    monkeypatch.setattr(ports, "SEEN_EVERY_S", 0.01)
    shared, _ = await launch("p1"), await launch("p2")
    await eventually(lambda: shared._ports.processes == 2)
    await asyncio.sleep(0.05)
    hot.away = AWAY
    limit = concurrency(2, policy="protective")
    await grant(shared, free_claim("r1", limit))
    assert isinstance(await shared.admit(free_claim("r2", limit), never_remade), Refusal)
    with pytest.raises(LimitsUnavailable):
        await shared.admit(claim_of("r3"), never_remade)


async def test_what_was_admitted_while_the_hot_state_was_away_is_put_there(shared, hot):
    hot.away = AWAY
    claim = await grant(shared, protective(claim_of("r1", money(1000), bound=400)))
    hot.come_back()
    await eventually(lambda: known(hot) is not None)
    assert (known(hot).state, known(hot).owner) == ("open", "p1")
    shared.settle(claim, exact(70))
    assert known(hot).state == "done"


async def test_where_the_epoch_cannot_be_opened_it_says_so_and_goes_on(launch, ledger):
    async with ledger.transaction() as connection:
        await epochs.advance_epoch(connection, 1, "somebody", 60_000)
    shared = await launch()
    assert shared.states == [(False, "the hot state or the ledger does not answer, or an epoch is being opened")]
    assert (shared.is_open, shared.has_opened) == (False, False)
    async with ledger.transaction() as connection:
        await epochs.open_epoch(connection, 2, "somebody")
    await eventually(lambda: shared.is_open)
    assert shared.states[1:] == [(True, "")]


async def test_a_process_that_sql_has_not_heard_of_registers_later(launch, flaky, ledger):
    """Else nobody would ever hold anything for it."""
    flaky.go()
    shared = await launch()
    assert not shared.is_open
    flaky.error = None
    await eventually(lambda: shared.is_open)
    row = await process_of(ledger, "p1")
    assert (row.node, row.slot, row.acked_epoch) == ("host", 3, 1)


async def test_a_loop_survives_what_nobody_has_thought_of(shared, flaky):
    """Without heartbeats all that runs would be charged at its bound."""
    flaky.go(ZeroDivisionError("a bug"))
    await eventually(lambda: len(shared.states) > 1)
    assert shared.states[1] in {(False, "ZeroDivisionError, follow"), (False, "ZeroDivisionError, reap")}
    flaky.error = None
    await eventually(lambda: shared.states[-1] == (True, "a loop had failed"))
    await grant(shared, claim_of("r1"))


async def test_a_failure_while_confirming_is_told(shared, ledger, monkeypatch):
    def confirm(*_given):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(shared._accountant, "_confirm", confirm)
    claim = await grant(shared, claim_of("r1"))
    shared.settle(claim, exact(70))
    await write(shared, ledger, record_of("r1", 70))
    await eventually(lambda: (False, "ZeroDivisionError while confirming") in shared.states)


# -- heartbeats ---------------------------------------------------------------------------------


async def test_a_running_call_is_kept_alive_and_tells_what_was_seen(shared, hot, clock):
    await grant(shared, claim_of("r1"))
    shared.watch("r1", lambda: Progress(42, 17))
    shared.watch("nobody", lambda: Progress(1, 1))
    await eventually(lambda: known(hot).output_tokens == 42)
    assert known(hot).lower_nanousd == 17
    clock.at_ms += 10_000
    await asyncio.sleep(0.05)
    clock.at_ms += 10_000
    await asyncio.sleep(0.05)
    assert known(hot).state == "open"


async def test_a_dead_processs_call_is_charged(launch, hot, clock):
    dead = await launch("p1")
    opening = opening_of("r1", bound=400)
    claim = msgspec.structs.replace(claim_of("r1", money(1000), bound=400), opening=opening_payload(opening))
    await grant(dead, claim)
    await dead.close()
    submitted = []
    alive = await launch("p2")
    alive.deliver_to(submitted.append)
    clock.at_ms += 15_000
    await eventually(lambda: submitted)
    assert submitted[0].entries[0].cost_nanousd == 400
    assert (submitted[0].error_code, submitted[0].ended_at_ms) == ("gateway_lost", NOW_MS + 15_000)


async def test_what_cannot_be_read_is_told(launch, clock):
    dead, unreadable = await launch("p1"), []
    await grant(dead, claim_of("r1"))
    await dead.close()
    await launch("p2", on_unreadable=unreadable.append)
    clock.at_ms += 15_000
    await eventually(lambda: unreadable)
    await asyncio.sleep(0.05)
    assert unreadable == ["r1"]


# -- the dead -----------------------------------------------------------------------------------


async def test_what_is_held_for_a_replayed_process_ends(launch, hot, ledger):
    dead = await launch("p1")
    claim = await grant(dead, claim_of("r1", money(1000), bound=200))
    dead.settle(claim, exact(70))
    await dead.close()
    alive, forgotten = await launch("p2"), []
    alive.retire("p1", lambda: forgotten.append("p1"))
    alive.retire("p2", lambda: forgotten.append("p2"))
    await eventually(lambda: forgotten)
    assert forgotten == ["p1"]
    assert (await process_of(ledger, "p1")).closed
    assert not (await process_of(ledger, "p2")).closed
    await asyncio.sleep(0.05)
    assert forgotten == ["p1"]


# -- teams that are known beforehand ------------------------------------------------------------


async def test_teams_are_opened_before_their_first_request(launch, hot):
    shared = await launch()
    shared.know_teams(lambda: ["team_8", "team_9"])
    await eventually(lambda: {"team_8", "team_9"} <= set(hot.memory._tags))


# -- limits that protect an upstream ------------------------------------------------------------


async def test_an_upstreams_limits_need_no_epoch(shared, hot):
    await grant(shared, UPSTREAM)
    other = msgspec.structs.replace(UPSTREAM, request_id="r2")
    assert isinstance(await shared.admit(other, never_remade), Refusal)
    assert Reserve(other, "") in hot.done
    shared.settle(UPSTREAM, exact(0))
    await grant(shared, other)
    shared.void(other)
    await grant(shared, msgspec.structs.replace(UPSTREAM, request_id="r3"))
    assert shared.held == 0


async def test_its_leases_are_kept_for_as_long_as_its_calls_run(shared, clock):
    await grant(shared, UPSTREAM)
    other = msgspec.structs.replace(UPSTREAM, request_id="r2")
    for _ in range(2):
        clock.at_ms += 10_000
        await asyncio.sleep(0.05)
        assert isinstance(await shared.admit(other, never_remade), Refusal)
    shared.settle(UPSTREAM, exact(0))
    clock.at_ms += 10_000
    await asyncio.sleep(0.05)
    await grant(shared, other)


@pytest.mark.parametrize("sent", [True, False])
async def test_without_the_hot_state_they_are_shared(shared, hot, sent):
    hot.away = StoreAway(sent=sent)
    limits = (concurrency(1, policy="protective"),)
    first, second = (Claim(name, "up:x", limits) for name in ("r1", "r2"))
    await grant(shared, first)
    assert hot.posted == ([Void(first)] if sent else [])
    assert isinstance(await shared.admit(second, never_remade), Refusal)
    shared.settle(first, exact(0))
    await grant(shared, second)
    shared.void(second)
    await grant(shared, first)


async def test_an_upstreams_call_that_was_given_up_is_refused(shared):
    await grant(shared, UPSTREAM)
    shared.void(UPSTREAM)
    with pytest.raises(LimitsUnavailable):
        await shared.admit(UPSTREAM, never_remade)


async def test_a_team_and_an_upstream_end_the_same_request_each_for_itself(shared, hot):
    team = await grant(shared, claim_of("r1", requests()))
    await grant(shared, UPSTREAM)
    shared.void(UPSTREAM)
    assert shared.held == 1
    shared.settle(team, exact(70))
    assert known(hot).state == "done"
