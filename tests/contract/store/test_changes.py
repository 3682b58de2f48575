from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from app.store.changes import current_change, find_secret, rows_since
from app.store.keys import add_secret, create_key, revoke_key
from app.store.limits import PlainLimit
from app.store.teams import TeamChanges, create_team, update_team


async def new_key(connection, team_id, secret_id):
    return await create_key(
        connection,
        team_id=team_id,
        name=secret_id,
        secret_id=secret_id,
        digest=hashlib.sha256(secret_id.encode()).digest(),
        now_ms=1,
    )


async def test_the_feed_gives_what_changed_and_its_number(database):
    async with database.read() as connection:
        start = await current_change(connection)
        assert (await rows_since(connection, 0)).teams == []
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        key = await new_key(connection, team.id, "secret0001")
    async with database.read() as connection:
        changes = await rows_since(connection, start)
        assert (changes.teams, changes.keys) == ([team], [key])
        assert [secret.id for secret in changes.secrets] == ["secret0001"]
        assert changes.change == await current_change(connection) == key.changed
    async with database.transaction() as connection:
        await update_team(connection, team.id, TeamChanges(limits=(PlainLimit("concurrency", "", 1),)), now_ms=2)
    async with database.read() as connection:
        changes = await rows_since(connection, changes.change)
        assert ([each.id for each in changes.teams], changes.keys, changes.secrets) == ([team.id], [], [])
    async with database.transaction() as connection:
        await update_team(connection, team.id, TeamChanges(endpoints=("files",)), now_ms=3)
    async with database.read() as connection:
        changes = await rows_since(connection, changes.change)
        assert [each.endpoints for each in changes.teams] == [("files",)]
        found = await find_secret(connection, "secret0001")
        assert found is not None
        assert found[2] == changes.teams[0]


async def test_a_changed_secret_comes_with_its_key_and_its_siblings(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        key = await new_key(connection, team.id, "secret0001")
        await new_key(connection, team.id, "secret0002")
        change = await current_change(connection)
        await add_secret(connection, key_id=key.id, secret_id="secret0003", digest=b"3", now_ms=1)
        changes = await rows_since(connection, change)
    assert [each.id for each in changes.keys] == ["secret0001"]
    assert [each.id for each in changes.secrets] == ["secret0001", "secret0003"]


async def test_a_change_that_is_undone_leaves_no_number(database):
    async with database.read() as connection:
        before = await current_change(connection)
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await create_team(connection, name="search", now_ms=1)
            raise RuntimeError
    async with database.read() as connection:
        assert await current_change(connection) == before


async def test_a_reader_misses_no_change_that_commits_late(database):
    """Writers dawdle between their change and its commit; a follower that has seen N has all up to N."""
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
    chance = random.Random(7)
    done = asyncio.Event()
    known: dict[str, int | None] = {}

    async def write(number):
        for turn in range(4):
            secret_id = f"w{number:02}t{turn:06}"
            async with database.transaction() as connection:
                await asyncio.sleep(chance.random() * 0.004)
                key = await new_key(connection, team.id, secret_id)
                await asyncio.sleep(chance.random() * 0.004)
            if chance.random() < 0.5:
                async with database.transaction() as connection:
                    await revoke_key(connection, key.id, now_ms=5)
                    await asyncio.sleep(chance.random() * 0.004)

    async def follow():
        change = 0
        teams: set[str] = set()
        while True:
            last = done.is_set()
            async with database.read() as connection:
                if await current_change(connection) > change:
                    changes = await rows_since(connection, change)
                    change = changes.change
                    teams |= {each.id for each in changes.teams}
                    for key in changes.keys:
                        assert key.team_id in teams
                        known[key.id] = key.revoked_at_ms
                    assert {each.key_id for each in changes.secrets} <= set(known)
            if last:
                return
            await asyncio.sleep(0.001)

    follower = asyncio.create_task(follow())
    await asyncio.gather(*[write(number) for number in range(6)])
    done.set()
    await follower
    async with database.read() as connection:
        everything = await rows_since(connection, 0)
    assert {key.id: key.revoked_at_ms for key in everything.keys} == known
    assert len(known) == 24
