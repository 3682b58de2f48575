"""Kept turns in SQL."""

from __future__ import annotations

import pytest

from app.store.turns import (
    TurnRow,
    chain_to,
    empty_turn,
    keep_turns,
    last_of,
    newest_of,
    payloads_of,
    remove_expired,
    reseal,
    sealed_after,
)

DAY = 86_400_000


def row(turn_id, previous=None, *, chain=None, response_id=None, team="t", at=1000, upstream="u"):
    return TurnRow(
        turn_id,
        team,
        response_id or f"resp_{turn_id}",
        upstream,
        previous,
        chain or turn_id,
        10,
        b"sealed " + turn_id.encode(),
        at,
    )


async def keep(database, *rows):
    async with database.transaction() as connection:
        await keep_turns(connection, rows)


async def ask(database, what, *arguments):
    async with database.read() as connection:
        return await what(connection, *arguments)


async def change(database, what, *arguments, **more):
    async with database.transaction() as connection:
        return await what(connection, *arguments, **more)


async def chain_ids(database, turn_id, team="t", turns_max=1000):
    return [found.turn_id for found in await ask(database, chain_to, team, turn_id, turns_max)]


async def test_a_chain_is_walked_to_its_beginning_and_no_branch_of_it(database):
    await keep(database, row("a"), row("b", "a", chain="a"), row("c", "b", chain="a"), row("x", "a", chain="a"))
    assert await chain_ids(database, "c") == ["c", "b", "a"]
    assert await chain_ids(database, "x") == ["x", "a"]
    # One more than it may have says that it is too long.
    assert await chain_ids(database, "c", turns_max=1) == ["c", "b"]


async def test_another_teams_turns_are_never_seen(database):
    await keep(
        database, row("a", response_id="resp_1"), row("b", response_id="resp_1", team="other"), row("c", "b", chain="b")
    )
    assert (await ask(database, newest_of, "t", "resp_1")).turn_id == "a"
    assert (await ask(database, newest_of, "other", "resp_1")).turn_id == "b"
    assert await ask(database, newest_of, "third", "resp_1") is None
    assert await chain_ids(database, "b") == []
    # Whatever a row says came before it.
    assert await chain_ids(database, "c") == ["c"]
    await change(database, empty_turn, "t", "b")
    assert await ask(database, payloads_of, ["a", "b"]) == {"a": b"sealed a", "b": b"sealed b"}


async def test_an_id_that_comes_again_names_the_newest_and_breaks_no_chain(database):
    await keep(database, row("a", response_id="resp_1"), row("b", "a", chain="a"))
    await keep(database, row("c", response_id="resp_1", at=2000))
    assert (await ask(database, newest_of, "t", "resp_1")).turn_id == "c"
    assert await chain_ids(database, "b") == ["b", "a"]
    await change(database, empty_turn, "t", "c")
    # What was deleted does not uncover what is older.
    newest = await ask(database, newest_of, "t", "resp_1")
    assert (newest.turn_id, newest.sealed_bytes) == ("c", None)
    assert [found.sealed_bytes for found in await ask(database, chain_to, "t", "b", 9)] == [8, 8]


async def test_what_is_kept_twice_is_there_once(database):
    await keep(database, row("a"))
    await keep(database, row("a", at=5000), row("b", "a", chain="a", at=3000))
    assert await chain_ids(database, "b") == ["b", "a"]
    assert (await ask(database, newest_of, "t", "resp_a")).created_at_ms == 1000


async def test_a_chain_goes_once_its_last_turn_is_too_old_and_goes_whole(database):
    await keep(database, row("a", at=0), row("b", "a", chain="a", at=0), row("x", at=0))
    await keep(database, row("c", "b", chain="a", at=3 * DAY))
    assert await ask(database, last_of, "a") == ("u", 3 * DAY)

    async def remove(now_ms, **ttl_ms):
        return await change(database, remove_expired, now_ms, ttl_ms, 30 * DAY, limit=2)

    assert await remove(DAY - 1, u=DAY) == 0
    assert await remove(DAY, u=DAY) == 1
    assert await ask(database, newest_of, "t", "resp_x") is None
    assert await remove(4 * DAY - 1, u=DAY) == 0
    # In parts, the first of a chain last: what is left of it is found again.
    assert await remove(4 * DAY, u=DAY) == 2
    assert await chain_ids(database, "a") == ["a"]
    assert await remove(4 * DAY, u=DAY) == 1
    assert await remove(4 * DAY, u=DAY) == 0


async def test_each_upstream_has_a_period_and_one_that_is_gone_the_usual_one(database):
    await keep(
        database, row("a", upstream="short", at=0), row("b", upstream="long", at=0), row("c", upstream="gone", at=0)
    )

    async def left(days):
        periods = {"short": DAY, "long": 100 * DAY}
        await change(database, remove_expired, days * DAY, periods, 30 * DAY, limit=10)
        return {turn_id for turn_id, _ in await ask(database, sealed_after, "", 10)}

    assert await left(1) == {"b", "c"}
    assert await left(29) == {"b", "c"}
    assert await left(30) == {"b"}
    assert await left(100) == set()
    assert await change(database, remove_expired, DAY, {}, 30 * DAY, limit=10) == 0


async def test_a_turn_whose_chain_was_removed_meanwhile_is_removed_too(database):
    await keep(database, row("b", "a", chain="a", at=1000))
    assert await ask(database, last_of, "a") is None
    assert await change(database, remove_expired, 1000 + DAY, {"u": DAY}, DAY, limit=10) == 1


async def test_all_are_gone_through_once_and_what_was_deleted_stays_so(database):
    await keep(database, row("a"), row("b"), row("c"))
    await change(database, empty_turn, "t", "b")
    first = await ask(database, sealed_after, "", 1)
    assert first == [("a", b"sealed a")]
    assert await ask(database, sealed_after, "a", 5) == [("c", b"sealed c")]
    await change(database, reseal, "a", b"new")
    await change(database, reseal, "b", b"new")
    assert await ask(database, payloads_of, ["a", "b"]) == {"a": b"new"}


@pytest.mark.parametrize("turns", [1000])
async def test_the_longest_chain(database, turns):
    rows = [row(f"{number:05}", f"{number - 1:05}" if number else None, chain="00000") for number in range(turns)]
    await keep(database, *rows)
    found = await chain_ids(database, f"{turns - 1:05}")
    assert (len(found), found[-1]) == (turns, "00000")
    assert len(await ask(database, payloads_of, found)) == turns
