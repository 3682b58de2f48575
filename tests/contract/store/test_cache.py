"""Clearings of the response cache, how gateways hear of them, and what the cache was good for."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import select

from app.store.batch import write_batch
from app.store.cache import CLEARS_KEPT_MS, CacheClear, CacheStatsRow, cache_stats, clear_cache
from app.store.changes import current_change, rows_since
from app.store.database import Database
from app.store.meta import fact_or, find_fact, keep_fact
from app.store.prune import prune
from app.store.tables import cache_clears
from app.store.teams import create_team
from tests.contract.store.samples import NOON_MS, record_of


async def cleared(database, team_id=None, model=None, now_ms=1) -> CacheClear:
    async with database.transaction() as connection:
        return await clear_cache(connection, team_id=team_id, model=model, now_ms=now_ms)


async def kept(database, change=-1) -> list[CacheClear]:
    async with database.read() as connection:
        return (await rows_since(connection, change)).cache_clears


async def extents(database) -> set[tuple[str, str]]:
    return {(clear.team_id, clear.model) for clear in await kept(database)}


# -- clearings --------------------------------------------------------------------------------


async def test_a_clearing_is_a_change_that_the_feed_gives(database):
    first = await cleared(database, "t1", "gpt-*", 5)
    second = await cleared(database, "t2", None, 6)
    assert (first, second) == (CacheClear("t1", "gpt-*", 1, 5), CacheClear("t2", "", 2, 6))
    assert await kept(database) == [first, second]
    assert await kept(database, 1) == [second]
    assert await kept(database, 2) == []
    async with database.read() as connection:
        assert await current_change(connection) == 2
        assert (await rows_since(connection, 0)).teams == []


async def test_the_same_clearing_again_takes_the_place_of_the_one_before(database):
    for team_id in (None, "t1"):
        for model in (None, "gpt-*"):
            await cleared(database, team_id, model, 1)
            again = await cleared(database, team_id, model, 2)
            assert [clear for clear in await kept(database) if clear.change >= again.change - 1] == [again]


@pytest.mark.parametrize(
    ("team_id", "model", "left"),
    [
        (None, None, set()),
        ("t1", None, {("t2", ""), ("t2", "a"), ("", "a"), ("", "b")}),
        (None, "a", {("t1", ""), ("t1", "b"), ("t2", ""), ("", "b")}),
        ("t1", "a", {("t1", ""), ("t1", "b"), ("t2", ""), ("t2", "a"), ("", "a"), ("", "b")}),
    ],
)
async def test_what_a_clearing_implies_goes_and_all_else_stays(database, team_id, model, left):
    # The wide ones first: each of them takes narrower ones away.
    for extent in ((None, "a"), (None, "b"), ("t1", None), ("t2", None), ("t1", "a"), ("t1", "b"), ("t2", "a")):
        await cleared(database, *extent)
    before = {clear.change for clear in await kept(database)}
    made = await cleared(database, team_id, model)
    assert await extents(database) == left | {(team_id or "", model or "")}
    assert {clear.change for clear in await kept(database)} <= before | {made.change}


async def test_a_pattern_is_not_taken_for_what_it_matches(database):
    """What is implied goes by equal extents alone: a pattern that matches another one's text says nothing of it."""
    await cleared(database, "t1", "gpt-4*")
    await cleared(database, "t1", "gpt-*")
    await cleared(database, "t1", "'; DELETE FROM cache_clears; --")
    assert len(await kept(database)) == 3


async def test_a_clearing_that_nothing_can_be_left_of_goes_with_the_next_one(database):
    await cleared(database, "t1", None, 1_000)
    await cleared(database, "t2", None, 1_001)
    await cleared(database, "t3", None, 1_001 + CLEARS_KEPT_MS)
    assert await extents(database) == {("t2", ""), ("t3", "")}


async def test_a_clearing_that_is_undone_was_none(database):
    await cleared(database, "t1")
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await clear_cache(connection, team_id=None, model=None, now_ms=1)
            raise RuntimeError
    assert await extents(database) == {("t1", "")}
    async with database.read() as connection:
        assert await current_change(connection) == 1


async def test_a_follower_misses_no_clearing_that_commits_late(database):
    """Whoever has been told number N has been told of every clearing up to N that a later one does not imply."""
    chance = random.Random(3)
    done = asyncio.Event()
    told: dict[tuple[str, str], int] = {}

    async def clear(number):
        for turn in range(6):
            async with database.transaction() as connection:
                await asyncio.sleep(chance.random() * 0.004)
                await clear_cache(connection, team_id=f"t{number}", model=f"m{turn % 4}", now_ms=1)
                await asyncio.sleep(chance.random() * 0.004)

    async def follow():
        change = -1
        while True:
            last = done.is_set()
            async with database.read() as connection:
                changes = await rows_since(connection, change)
            change = changes.change
            told.update({(each.team_id, each.model): each.change for each in changes.cache_clears})
            if last:
                return
            await asyncio.sleep(0.001)

    follower = asyncio.create_task(follow())
    await asyncio.gather(*[clear(number) for number in range(5)])
    done.set()
    await follower
    assert told == {(clear.team_id, clear.model): clear.change for clear in await kept(database)}
    assert len(told) == 20


# -- statistics -------------------------------------------------------------------------------


async def stats(database, start_ms=0, end_ms=2 * NOON_MS, **of) -> list[CacheStatsRow]:
    async with database.read() as connection:
        return await cache_stats(connection, start_ms, end_ms, **of)


@pytest.fixture
async def team(database):
    """A team with records of every kind, beside one that is gone."""
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
    given = [
        (team.id, "gpt-4o", "hit", 50),
        (team.id, "gpt-4o", "hit", 5),
        (team.id, "gpt-4o", "joined", 7),
        (team.id, "gpt-4o", "miss", 0),
        (team.id, "gpt-4o", "bypass", 0),
        (team.id, "GPT.5", "bypass", 0),
        ("gone", "gpt-4o", "miss", 0),
    ]
    rows = [
        record_of(at_ms=NOON_MS + number, team_id=team_id, model_requested=model, cache=cache, saved_nanousd=saved)
        for number, (team_id, model, cache, saved) in enumerate(given)
    ]
    await write_batch(database, rows)
    return team


async def test_what_the_cache_did_by_team_and_model(database, team):
    assert await stats(database) == [
        CacheStatsRow("gone", "gone", "gpt-4o", 1, 0, 0, 1, 0, 0),
        CacheStatsRow(team.id, "search", "GPT.5", 1, 0, 0, 0, 1, 0),
        CacheStatsRow(team.id, "search", "gpt-4o", 5, 2, 1, 1, 1, 62),
    ]


async def test_statistics_of_one_team_and_of_some_models(database, team):
    assert [row.model for row in await stats(database, team_id=team.id)] == ["GPT.5", "gpt-4o"]
    assert [row.team for row in await stats(database, model="gpt-4o")] == ["gone", "search"]
    assert [row.model for row in await stats(database, model="gpt*")] == ["gpt-4o", "gpt-4o"]
    assert [row.model for row in await stats(database, model="GPT?5", team_id=team.id)] == ["GPT.5"]
    assert await stats(database, model="gpt-4") == await stats(database, team_id="nobody") == []
    assert await stats(database, model="%") == []


async def test_a_span_begins_with_its_first_millisecond_and_ends_before_its_last(database, team):
    assert sum(row.requests for row in await stats(database, NOON_MS + 1, NOON_MS + 3)) == 2
    assert await stats(database, NOON_MS + 7) == await stats(database, 0, NOON_MS) == []


async def test_sums_are_as_large_as_they_are(database):
    row = record_of(cache="hit", saved_nanousd=4 * 10**18)
    await write_batch(database, [row, record_of(cache="hit", saved_nanousd=4 * 10**18)])
    (found,) = await stats(database)
    assert found.saved_nanousd == 8 * 10**18


async def test_what_was_pruned_is_not_in_the_statistics(database, team):
    await prune(database, NOON_MS + 15 * 60_000)
    assert await stats(database) == []


# -- the secret -------------------------------------------------------------------------------


async def test_a_fact_that_is_there_stays(database):
    async with database.transaction() as connection:
        assert await fact_or(connection, "k", "first") == "first"
        assert await fact_or(connection, "k", "second") == "first"
        await keep_fact(connection, "k", "third")
        assert await fact_or(connection, "k", "fourth") == await find_fact(connection, "k") == "third"
        assert await fact_or(connection, "other", "x") == "x"


async def test_of_many_that_start_at_once_all_have_the_same_fact(database_url):
    databases = [await Database.open(database_url) for _ in range(5)]

    async def start(number):
        async with databases[number].transaction() as connection:
            found = await fact_or(connection, "k", f"of {number}")
            # Whoever was first is still not done when the others ask.
            await asyncio.sleep(0.02)
            return found

    found = await asyncio.gather(*[start(number) for number in range(5)])
    assert len(set(found)) == 1
    async with databases[0].read() as connection:
        assert await find_fact(connection, "k") == found[0]
    for database in databases:
        await database.close()


async def test_a_fact_of_one_that_fails_is_the_next_ones(database_url):
    first, second = await Database.open(database_url), await Database.open(database_url)
    waiting = asyncio.Event()

    async def fail():
        async with first.transaction() as connection:
            assert await fact_or(connection, "k", "of the first") == "of the first"
            waiting.set()
            await asyncio.sleep(0.05)
            raise RuntimeError

    failing = asyncio.create_task(fail())
    await waiting.wait()
    async with second.transaction() as connection:
        assert await fact_or(connection, "k", "of the second") == "of the second"
    with pytest.raises(RuntimeError):
        await failing
    await first.close()
    await second.close()


async def test_clearings_are_rows_without_anything_else(database):
    await cleared(database, "t1", "m", 5)
    async with database.read() as connection:
        assert [tuple(row) for row in await connection.execute(select(cache_clears))] == [("t1", "m", 1, 5)]
