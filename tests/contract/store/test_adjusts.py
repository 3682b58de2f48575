"""Two writers of one attempt: an estimate and what is known exactly, in any order, at the same time."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
from sqlalchemy import select, update

from app.core.ids import new_request_id
from app.core.records import BudgetWindow
from app.core.usage import Usage
from app.store.batch import write_batch
from app.store.database import Database
from app.store.posting import RANK_ESTIMATE, RANK_EXACT
from app.store.proof import prove
from app.store.records import find_record
from app.store.reprice import Found, reprice
from app.store.tables import budgets, entries, rollups
from tests.contract.store.samples import NOON_MS, entry_of, record_of

DAY = BudgetWindow("b-day", NOON_MS - NOON_MS % 86_400_000)
TOTAL = BudgetWindow("b-total", 0)
WINDOWS = (DAY, TOTAL)

EXACT_USAGE = Usage(input_tokens=100, cached_tokens=40, output_tokens=20, reasoning_tokens=7, web_searches=1)
BOUND_USAGE = Usage(input_tokens=400, output_tokens=1024, unknown_units=2)


def exact_of(request_id, cost=61_000, **changes):
    given = {"usage": EXACT_USAGE, "cost_nanousd": cost, "service_tier": "flex"} | changes
    return record_of(request_id, budgets=WINDOWS, entries=(entry_of(request_id, **given),))


def estimate_of(request_id, cost=1_798_400, lower=20_000, **changes):
    given = {
        "kind": "estimate",
        "usage": BOUND_USAGE,
        "cost_nanousd": cost,
        "cost_lower_nanousd": lower,
        "cost_upper_nanousd": cost,
    } | changes
    entry = entry_of(request_id, **given)
    return record_of(request_id, budgets=WINDOWS, outcome="interrupted", entries=(entry,), response_id=None)


async def proof_of(database):
    async with database.read() as connection:
        proof = await prove(connection)
    assert proof.holds, msgspec.to_builtins(proof)
    return proof


async def view_of(database, request_id):
    async with database.read() as connection:
        view = await find_record(connection, request_id)
    assert view is not None
    return view


async def spent(database):
    """The counters of the two windows, which are alike."""
    async with database.read() as connection:
        found = (
            (await connection.execute(select(budgets.c.spent_nanousd).order_by(budgets.c.budget_id))).scalars().all()
        )
    assert len(set(found)) == 1
    return found[0]


def used(view):
    total = Usage()
    for part in view.entries:
        total = total.plus(Usage(*[getattr(part, name) for name in Usage.__struct_fields__]))
    return total


async def test_what_is_known_exactly_corrects_an_estimate_by_the_difference(database):
    request_id = new_request_id(1)
    first = await write_batch(database, [estimate_of(request_id)])
    assert (first.new_records, first.ranks) == (1, {request_id: RANK_ESTIMATE})
    assert first.budgets == {DAY: (1_798_400, 1), TOTAL: (1_798_400, 1)}
    second = await write_batch(database, [exact_of(request_id)])
    assert (second.new_records, second.ranks) == (0, {request_id: RANK_EXACT})
    assert second.budgets == {DAY: (61_000, 2), TOTAL: (61_000, 2)}
    view = await view_of(database, request_id)
    primary, adjust = view.entries
    assert (primary.kind, adjust.kind, adjust.reason, adjust.number) == ("estimate", "adjust", "exact", 0)
    assert (adjust.cost_nanousd, adjust.output_tokens, adjust.unknown_units) == (61_000 - 1_798_400, 20 - 1024, -2)
    assert used(view) == EXACT_USAGE
    assert (view.cost_nanousd, view.cost_lower_nanousd, view.cost_upper_nanousd) == (61_000, 61_000, 61_000)
    assert (view.estimated, view.outcome) == (False, "interrupted")
    proof = await proof_of(database)
    assert (proof.estimated, proof.unpriced) == (0, 0)


async def test_an_estimate_after_the_exact_outcome_does_nothing(database):
    request_id = new_request_id(1)
    await write_batch(database, [exact_of(request_id)])
    late = await write_batch(database, [estimate_of(request_id)])
    assert (late.new_records, late.ranks) == (0, {request_id: RANK_EXACT})
    assert late.budgets == {DAY: (61_000, 1), TOTAL: (61_000, 1)}
    assert [entry.kind for entry in (await view_of(database, request_id)).entries] == ["charge"]
    await proof_of(database)


async def test_an_estimate_is_corrected_once(database):
    request_id = new_request_id(1)
    await write_batch(database, [estimate_of(request_id)])
    await write_batch(database, [exact_of(request_id)])
    for cost in (61_000, 70_000):
        again = await write_batch(database, [exact_of(request_id, cost)])
        assert (again.ranks, again.budgets[DAY]) == ({request_id: RANK_EXACT}, (61_000, 2))
    again = await write_batch(database, [estimate_of(request_id)])
    assert again.ranks == {request_id: RANK_EXACT}
    assert len((await view_of(database, request_id)).entries) == 2
    await proof_of(database)


async def test_an_estimate_that_turns_out_to_be_unbilled_becomes_nothing(database):
    request_id = new_request_id(1)
    await write_batch(database, [estimate_of(request_id)])
    void = entry_of(request_id, kind="void", usage=Usage(), cost_nanousd=0, price_source=None)
    written = await write_batch(database, [record_of(request_id, budgets=WINDOWS, entries=(void,))])
    assert (written.ranks[request_id], written.budgets[DAY]) == (RANK_EXACT, (0, 2))
    view = await view_of(database, request_id)
    assert (view.cost_nanousd, used(view), view.estimated) == (0, Usage(), False)
    await proof_of(database)


async def test_the_rank_of_a_request_is_the_least_of_its_attempts(database):
    request_id = new_request_id(1)
    bound = {"kind": "estimate", "usage": BOUND_USAGE, "cost_nanousd": 5_000}
    both = (entry_of(request_id, 1, **bound), entry_of(request_id, 2, **bound))
    await write_batch(database, [record_of(request_id, entries=both)])
    first = await write_batch(database, [record_of(request_id, entries=(entry_of(request_id, 1),))])
    assert first.ranks == {request_id: RANK_ESTIMATE}
    assert (await view_of(database, request_id)).estimated
    second = await write_batch(database, [record_of(request_id, entries=(entry_of(request_id, 2),))])
    assert second.ranks == {request_id: RANK_EXACT}
    # One that is given is exact, another in SQL is not.
    third = new_request_id(1)
    await write_batch(database, [record_of(third, entries=(entry_of(third, 1, **bound),))])
    written = await write_batch(database, [record_of(third, entries=(entry_of(third, 2),)), record_of(request_id)])
    assert written.ranks == {third: RANK_ESTIMATE, request_id: RANK_EXACT}
    assert (await proof_of(database)).estimated == 1


async def test_in_one_batch_the_exact_outcome_goes_before_the_estimate(database):
    """As a replay may give them: both journals of a request that moved on after its process died."""
    first, second = new_request_id(1), new_request_id(2)
    given = [estimate_of(first), exact_of(first), exact_of(second), estimate_of(second)]
    written = await write_batch(database, given)
    assert (written.new_records, written.ranks) == (2, {first: RANK_EXACT, second: RANK_EXACT})
    for request_id in (first, second):
        view = await view_of(database, request_id)
        assert ([part.kind for part in view.entries], view.outcome) == (["charge"], "completed")
    assert await spent(database) == 122_000
    await proof_of(database)


@pytest.mark.parametrize(
    ("estimated", "exact", "cost", "shown", "unpriced"),
    [
        (None, 61_000, 61_000, 61_000, 0),
        (None, None, 0, None, 1),
        # Nobody knows the price of what was served: the money of the estimate stays, and is flagged.
        (1_798_400, None, 1_798_400, 1_798_400, 1),
        (1_798_400, 61_000, 61_000, 61_000, 0),
    ],
)
async def test_without_a_price_before_or_after(database, estimated, exact, cost, shown, unpriced):
    request_id = new_request_id(1)
    await write_batch(database, [estimate_of(request_id, estimated, None if estimated is None else 9)])
    written = await write_batch(database, [exact_of(request_id, exact)])
    assert written.ranks == {request_id: RANK_EXACT}
    view = await view_of(database, request_id)
    assert (view.cost_nanousd, view.unpriced, view.estimated, used(view)) == (shown, bool(unpriced), False, EXACT_USAGE)
    assert await spent(database) == cost
    proof = await proof_of(database)
    assert (proof.unpriced, proof.estimated) == (unpriced, 0)
    async with database.read() as connection:
        found = (
            await connection.execute(select(rollups.c.cost_nanousd, rollups.c.unpriced, rollups.c.estimated))
        ).all()
    assert found == [(cost, unpriced, 0)]


@pytest.mark.parametrize("exact_first", [False, True])
async def test_a_price_given_later_and_an_exact_outcome_come_to_the_same_sum(database, exact_first):
    request_id = new_request_id(1)

    def price_of(asked):
        return Found(asked.usage.input_tokens * 10, "configured", "2")

    await write_batch(database, [estimate_of(request_id, None, None)])
    if exact_first:
        await write_batch(database, [exact_of(request_id, None)])
        done = await reprice(database, price_of, 0, 2 * NOON_MS, NOON_MS)
        assert (done.attempts, await spent(database)) == (1, 1_000)
    else:
        await reprice(database, price_of, 0, 2 * NOON_MS, NOON_MS)
        assert await spent(database) == 4_000
        assert (await view_of(database, request_id)).cost_nanousd == 4_000
        await write_batch(database, [exact_of(request_id, 1_000)])
    view = await view_of(database, request_id)
    assert (view.cost_nanousd, view.estimated, used(view)) == (1_000, False, EXACT_USAGE)
    assert await spent(database) == 1_000
    assert (await proof_of(database)).unpriced == 0


async def test_a_correction_counts_where_the_estimate_does(database):
    """Whatever another writer says of team, hour or model by then."""
    request_id = new_request_id(1)
    await write_batch(database, [estimate_of(request_id)])
    entry = entry_of(request_id, model="another", upstream="other", usage=EXACT_USAGE)
    await write_batch(database, [record_of(request_id, team_id="t2", at_ms=NOON_MS + 10**9, entries=(entry,))])
    assert await spent(database) == 61_000
    proof = await proof_of(database)
    assert (proof.rollups, proof.entries) == (1, 2)


async def test_a_correction_inside_of_a_record_is_refused(database):
    """Only this module writes them, as the difference to what is there."""
    request_id = new_request_id(1)
    bad = entry_of(request_id, kind="adjust", reason="exact")
    with pytest.raises(Exception, match="primary entries"):
        await write_batch(database, [record_of(request_id, entries=(bad,))])
    assert (await proof_of(database)).records == 0


async def test_a_lost_answer_makes_the_same_batch_be_written_again_without_effect(database):
    request_ids = [new_request_id(1) for _ in range(40)]
    estimates = [estimate_of(each) for each in request_ids[:30]]
    exact = [exact_of(each) for each in request_ids[10:]]
    await write_batch(database, estimates)
    first = await write_batch(database, exact)
    proof, money = await proof_of(database), await spent(database)
    second = await write_batch(database, exact)
    third = await write_batch(database, estimates)
    assert (first.new_records, second.new_records, third.new_records) == (10, 0, 0)
    assert second.ranks == first.ranks
    assert (second.budgets, third.budgets) == (first.budgets, first.budgets)
    assert (await proof_of(database), await spent(database)) == (proof, money)
    assert money == 30 * 61_000 + 10 * 1_798_400


async def test_tampering_with_a_correction_is_found(database):
    request_id = new_request_id(1)
    await write_batch(database, [estimate_of(request_id)])
    await write_batch(database, [exact_of(request_id)])
    async with database.transaction() as connection:
        adjust = (entries.c.request_id == request_id) & (entries.c.kind == "adjust")
        await connection.execute(update(entries).where(adjust).values(cost_nanousd=0))
    async with database.read() as connection:
        proof = await prove(connection)
    assert (proof.holds, proof.rollups_different, proof.budgets_different) == (False, 1, 2)
    async with database.transaction() as connection:
        await connection.execute(update(entries).where(adjust).values(attempt_id="nothing.1"))
    async with database.read() as connection:
        assert (await prove(connection)).adjusts_without_entry == 1


class Rivals:
    """Writers with connections of their own, as the processes of several hosts."""

    def __init__(self, databases):
        self.databases = databases

    async def race(self, chance, *batches):
        """All at once, begun within a few milliseconds, in any order."""

        async def write(number, records):
            await asyncio.sleep(chance.random() * 0.004)
            return await write_batch(self.databases[number % len(self.databases)], records)

        return await asyncio.gather(*[write(number, records) for number, records in enumerate(batches)])


@pytest.fixture
async def rivals(database_url):
    databases = [await Database.open(database_url, connections_max=4) for _ in range(3)]
    yield Rivals(databases)
    for each in databases:
        await each.close()


@pytest.mark.parametrize("seed", range(4))
async def test_an_estimate_and_the_exact_outcome_at_the_same_time_are_the_exact_outcome(database, rivals, seed):
    """Owner, reaper and replay: fifty races for each seed, and whoever wins, the sums are the exact ones."""
    chance = random.Random(seed)
    orders = set()
    for turn in range(50):
        request_id = new_request_id(turn)
        written = await rivals.race(
            chance, [estimate_of(request_id)], [exact_of(request_id)], [estimate_of(request_id, 2_000_000)]
        )
        assert sum(each.new_records for each in written) == 1
        assert written[-1].budgets.keys() == set(WINDOWS)
        view = await view_of(database, request_id)
        orders.add(tuple(part.kind for part in view.entries))
        assert (view.cost_nanousd, view.estimated, used(view)) == (61_000, False, EXACT_USAGE)
        assert await spent(database) == 61_000 * (turn + 1)
    proof = await proof_of(database)
    assert (proof.records, proof.estimated) == (50, 0)
    assert orders == {("charge",), ("estimate", "adjust")}, "a race that one side always wins is none"


@pytest.mark.parametrize("seed", range(4))
async def test_batches_that_overlap_in_any_way_come_to_the_exact_sums(database, rivals, conflicts, seed):
    """Two reapers, two replays and the owners, each with a part of the same requests, some of them again."""
    chance = random.Random(100 + seed)
    costs = {new_request_id(number): 1_000 + number for number in range(150)}
    request_ids = list(costs)
    known = set()
    async with asyncio.timeout(60):
        for _ in range(12):
            batches = []
            for number in range(5):
                part = chance.sample(request_ids, 40)
                exact = number < 2
                known |= set(part) if exact else set()
                batches.append([exact_of(each, costs[each]) if exact else estimate_of(each) for each in part])
            ranks = [each.ranks for each in await rivals.race(chance, *batches)]
            assert all(len(each) == 40 for each in ranks)
            assert {rank for each in ranks[:2] for rank in each.values()} == {RANK_EXACT}
            await proof_of(database)
    assert conflicts == []
    estimated = 0
    for request_id, cost in costs.items():
        async with database.read() as connection:
            view = await find_record(connection, request_id)
        if view is None:
            assert request_id not in known
        elif request_id in known:
            assert (view.cost_nanousd, view.estimated, used(view)) == (cost, False, EXACT_USAGE)
        else:
            estimated += view.cost_nanousd
    exact = sum(cost for request_id, cost in costs.items() if request_id in known)
    assert await spent(database) == exact + estimated
