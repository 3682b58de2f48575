"""Limits as rows: what may be set beside what, what keeps its id, and that running gateways hear of it."""

from __future__ import annotations

import asyncio
import hashlib

import msgspec
import pytest

from app.core.identity import LimitRule
from app.store.changes import current_change, find_secret, rows_since
from app.store.database import Database
from app.store.errors import LimitInvalid, LimitTaken, NoSuchKey, NoSuchLimit, NoSuchTeam, TooManyLimits
from app.store.keys import KeyChanges, add_secret, create_key, find_key, list_keys, revoke_secret, update_key
from app.store.limits import (
    LIMITS_OF_OWNER_MAX,
    LimitChanges,
    PlainLimit,
    add_limit,
    find_limit,
    list_limits,
    remove_limit,
    update_limit,
)
from app.store.teams import TeamChanges, create_team, find_team, list_teams, update_team

TOKENS = LimitRule("", "tokens", 1000, "hour")
BUDGET = LimitRule("", "money", 5_000_000_000, "month", time_zone="Europe/Berlin", bound="estimate")


@pytest.fixture
async def connection(database):
    async with database.transaction() as opened:
        yield opened


async def team_of(connection, name="search", limits=()):
    return await create_team(connection, name=name, now_ms=1, limits=limits)


async def key_of(connection, team, key_id="key0000001", limits=()):
    digest = hashlib.sha256(key_id.encode()).digest()
    return await create_key(
        connection, team_id=team.id, name=key_id, secret_id=key_id, digest=digest, now_ms=2, limits=limits
    )


async def test_a_rule_comes_back_as_it_was_set(connection):
    team = await team_of(connection)
    rule = LimitRule("", "money", 7, "day", "gpt-*", "env", "prod", "Asia/Kolkata", "protective", "observe", "estimate")
    added = await add_limit(connection, rule, team_id=team.id, key_id=None, now_ms=9)
    assert added.rule == msgspec.structs.replace(rule, id=added.rule.id)
    assert (len(added.rule.id), added.team_id, added.key_id, added.created_at_ms) == (12, team.id, None, 9)
    assert await find_limit(connection, added.rule.id) == added
    assert (await find_team(connection, team.id)).limits == (added.rule,)


async def test_teams_and_keys_come_with_their_own_limits_and_with_no_others(connection):
    team = await team_of(connection, limits=[PlainLimit("requests", "minute", 60)])
    other = await team_of(connection, "other")
    key = await key_of(connection, team, limits=[PlainLimit("concurrency", "", 3), PlainLimit("requests", "day", 10)])
    bare = await key_of(connection, team, "key0000002")
    assert [rule.maximum for rule in team.limits] == [60]
    assert [(rule.kind, rule.maximum) for rule in key.limits] == [("requests", 10), ("concurrency", 3)]
    assert (other.limits, bare.limits) == ((), ())
    assert await list_teams(connection) == [other, await find_team(connection, "search")]
    assert await list_keys(connection) == await list_keys(connection, team.id) == [key, bare]
    found = await find_secret(connection, key.id)
    assert found is not None
    assert found[1:] == (key, await find_team(connection, team.id))


async def test_a_changed_limit_keeps_its_id(connection):
    """What was spent of a budget hangs on it."""
    team = await team_of(connection)
    added = await add_limit(connection, BUDGET, team_id=team.id, key_id=None, now_ms=9)
    changes = LimitChanges(maximum=1, mode="observe", policy="protective", bound="maximum")
    changed = await update_limit(connection, added.rule.id, changes)
    assert changed.rule == msgspec.structs.replace(
        added.rule, maximum=1, mode="observe", policy="protective", bound="maximum"
    )
    assert await find_limit(connection, added.rule.id) == changed
    assert await update_limit(connection, added.rule.id, LimitChanges()) == changed
    await update_team(connection, team.id, TeamChanges(limits=(PlainLimit("money", "month", 2),)), now_ms=10)
    assert (await find_limit(connection, added.rule.id)).rule == msgspec.structs.replace(changed.rule, maximum=2)


async def test_a_rotated_key_keeps_its_limits(connection):
    team = await team_of(connection)
    key = await key_of(connection, team, limits=[PlainLimit("money", "day", 5)])
    await add_secret(connection, key_id=key.id, secret_id="secret0002", digest=b"2", now_ms=3)
    await revoke_secret(connection, key.id, now_ms=4)
    assert (await find_key(connection, key.id)).limits == key.limits


async def test_a_budget_in_another_time_zone_is_another_budget(connection):
    team = await team_of(connection, limits=[PlainLimit("money", "month", 5)])
    (first,) = team.limits
    await update_limit(connection, first.id, LimitChanges(mode="observe"))
    moved = PlainLimit("money", "month", 6, "Asia/Tokyo")
    changed = await update_team(connection, team.id, TeamChanges(limits=(moved,)), now_ms=2)
    (second,) = changed.limits
    assert second.id != first.id
    assert (second.maximum, second.time_zone, second.mode) == (6, "Asia/Tokyo", "observe")
    again = PlainLimit("money", "month", 7)
    kept = await update_team(connection, team.id, TeamChanges(limits=(again,)), now_ms=2)
    assert kept.limits == (msgspec.structs.replace(second, maximum=7),)


async def test_plain_limits_are_set_changed_and_taken_away_one_by_one(connection):
    team = await team_of(connection)
    key = await key_of(connection, team, limits=[PlainLimit("requests", "minute", 5), PlainLimit("tokens", "day", 9)])
    narrow = msgspec.structs.replace(TOKENS, window="day", model="gpt-*")
    added = await add_limit(connection, narrow, team_id=team.id, key_id=key.id, now_ms=3)
    limits = (
        PlainLimit("requests", "minute", None),
        PlainLimit("requests", "hour", 50),
        PlainLimit("tokens", "day", 8),
        PlainLimit("concurrency", "", None),
    )
    changed = await update_key(connection, key.id, KeyChanges(limits=limits), now_ms=4)
    told = [(rule.kind, rule.window, rule.maximum, rule.model) for rule in changed.limits]
    assert told == [("requests", "hour", 50, None), ("tokens", "day", 8, None), ("tokens", "day", 1000, "gpt-*")]
    assert added.rule in changed.limits
    assert changed.limits[1].id == key.limits[1].id


async def test_two_rules_cannot_count_the_same_requests(connection):
    team = await team_of(connection)
    key = await key_of(connection, team)
    for key_id in (None, key.id):
        for narrowed in (
            {},
            {"model": "gpt-*"},
            {"tag_name": "env"},
            {"tag_name": "env", "tag_value": "prod"},
            {"tag_name": "env", "model": "gpt-*"},
        ):
            rule = msgspec.structs.replace(TOKENS, **narrowed)
            first = await add_limit(connection, rule, team_id=team.id, key_id=key_id, now_ms=1)
            again = msgspec.structs.replace(rule, maximum=5, mode="observe")
            with pytest.raises(LimitTaken, match=f"tokens_per_hour.*{first.rule.id}"):
                await add_limit(connection, again, team_id=team.id, key_id=key_id, now_ms=1)
    listed = await list_limits(connection, team.id)
    assert [row.key_id for row in listed] == [None] * 5 + [key.id] * 5
    assert await list_limits(connection, key_id=key.id) == listed[5:]
    assert await list_limits(connection) == listed
    assert await list_limits(connection, "nobody") == []


async def test_two_who_add_the_same_limit_at_once_add_it_once(database, database_url):
    other = await Database.open(database_url)
    async with database.transaction() as connection:
        team = await team_of(connection)

    async def add(through):
        async with through.transaction() as connection:
            await add_limit(connection, TOKENS, team_id=team.id, key_id=None, now_ms=1)

    results = await asyncio.gather(*[add(each) for each in (database, other) * 4], return_exceptions=True)
    await other.close()
    assert sorted(type(result).__name__ for result in results) == ["LimitTaken"] * 7 + ["NoneType"]


async def test_a_removed_limit_is_gone(connection):
    team = await team_of(connection)
    added = await add_limit(connection, TOKENS, team_id=team.id, key_id=None, now_ms=1)
    assert await remove_limit(connection, added.rule.id) == added
    assert (await find_team(connection, team.id)).limits == ()
    for work in (remove_limit, find_limit):
        with pytest.raises(NoSuchLimit, match=added.rule.id):
            await work(connection, added.rule.id)
    with pytest.raises(NoSuchLimit):
        await update_limit(connection, added.rule.id, LimitChanges(maximum=1))


@pytest.mark.parametrize(
    "rule",
    [
        msgspec.structs.replace(TOKENS, window="month"),
        msgspec.structs.replace(TOKENS, maximum=-1),
        msgspec.structs.replace(BUDGET, time_zone="Mars/Phobos"),
        msgspec.structs.replace(BUDGET, maximum=2**53),
    ],
)
async def test_what_cannot_be_counted_is_not_stored(connection, rule):
    team = await team_of(connection)
    with pytest.raises(LimitInvalid, match=r"^[A-Z].*\.$"):
        await add_limit(connection, rule, team_id=team.id, key_id=None, now_ms=1)
    assert (await find_team(connection, team.id)).limits == ()


async def test_a_change_to_what_cannot_be_counted_changes_nothing(connection):
    team = await team_of(connection)
    added = await add_limit(connection, BUDGET, team_id=team.id, key_id=None, now_ms=1)
    with pytest.raises(LimitInvalid):
        await update_limit(connection, added.rule.id, LimitChanges(maximum=-1))
    assert await find_limit(connection, added.rule.id) == added


async def test_a_limit_needs_an_owner_that_is_there(connection):
    team, other = await team_of(connection), await team_of(connection, "other")
    key = await key_of(connection, team)
    with pytest.raises(NoSuchTeam):
        await add_limit(connection, TOKENS, team_id="nobody", key_id=None, now_ms=1)
    for team_id, key_id in ((team.id, "nobody"), (other.id, key.id)):
        with pytest.raises(NoSuchKey):
            await add_limit(connection, TOKENS, team_id=team_id, key_id=key_id, now_ms=1)


async def test_an_owner_has_a_bounded_number_of_limits(connection):
    team = await team_of(connection)
    for number in range(LIMITS_OF_OWNER_MAX):
        rule = msgspec.structs.replace(TOKENS, model=f"m{number}")
        await add_limit(connection, rule, team_id=team.id, key_id=None, now_ms=1)
    with pytest.raises(TooManyLimits, match=str(LIMITS_OF_OWNER_MAX)):
        await add_limit(connection, TOKENS, team_id=team.id, key_id=None, now_ms=1)
    await add_limit(connection, TOKENS, team_id=team.id, key_id=(await key_of(connection, team)).id, now_ms=1)


async def test_the_feed_carries_every_change_of_a_limit(connection):
    team = await team_of(connection)
    key = await key_of(connection, team)
    change = await current_change(connection)

    async def news():
        nonlocal change
        changes = await rows_since(connection, change)
        change = changes.change
        return {each.id: each.limits for each in (*changes.teams, *changes.keys)}

    of_team = await add_limit(connection, TOKENS, team_id=team.id, key_id=None, now_ms=1)
    assert await news() == {team.id: (of_team.rule,)}
    of_key = await add_limit(connection, BUDGET, team_id=team.id, key_id=key.id, now_ms=1)
    assert await news() == {key.id: (of_key.rule,)}
    changed = await update_limit(connection, of_key.rule.id, LimitChanges(maximum=1))
    assert await news() == {key.id: (changed.rule,)}
    await remove_limit(connection, of_key.rule.id)
    assert await news() == {key.id: ()}
    await update_team(connection, team.id, TeamChanges(limits=(PlainLimit("tokens", "hour", 2),)), now_ms=2)
    assert await news() == {team.id: (msgspec.structs.replace(of_team.rule, maximum=2),)}
    assert await news() == {}
    everything = await rows_since(connection, 0)
    assert [each.limits for each in (*everything.teams, *everything.keys)] == [
        (msgspec.structs.replace(of_team.rule, maximum=2),),
        (),
    ]


class Interrupted:
    """A connection before whose ``nth`` statement somebody else does ``work``."""

    def __init__(self, connection, nth, work):
        self._connection = connection
        self._left = nth
        self._work = work

    async def execute(self, statement):
        self._left -= 1
        if not self._left:
            await self._work()
        return await self._connection.execute(statement)


async def test_a_reader_never_sees_an_owner_without_the_limits_it_has(database):
    """A change between the feed's statements must not show a limited key as an unlimited one."""
    async with database.transaction() as connection:
        team = await team_of(connection, limits=[PlainLimit("requests", "hour", 1)])
        key = await key_of(connection, team, limits=[PlainLimit("requests", "minute", 5)])

    async def change_both():
        async with database.transaction() as connection:
            await update_key(connection, key.id, KeyChanges(models=("gpt-*",)), now_ms=1)
            await update_team(connection, team.id, TeamChanges(), now_ms=1)

    seen = 0
    for nth in range(1, 7):
        async with database.read() as connection:
            change = await current_change(connection)
            changes = await rows_since(Interrupted(connection, nth, change_both), change)
        # One reading is one moment: what it does not see yet comes with the next.
        async with database.read() as connection:
            following = await rows_since(connection, change)
        assert len(following.keys) == len(following.teams) == 1
        for found in (*changes.keys, *changes.teams, *following.keys, *following.teams):
            assert len(found.limits) == 1
            seen += 1
    assert seen
