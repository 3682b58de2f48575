from __future__ import annotations

import asyncio

from app.store.colors import BOUND_AT_ONCE_MAX, bind_colors, colors_of


async def test_slots_go_round_in_the_order_of_first_use(database):
    names = [f"team{number}" for number in range(10)]
    assert await bind_colors(database, "team", names) == dict(zip(names, [1, 2, 3, 4, 5, 6, 7, 8, 1, 2], strict=True))


async def test_a_newcomer_recolours_nobody(database):
    before = await bind_colors(database, "team", ["m", "z"])
    after = await bind_colors(database, "team", ["a", "m", "z"])
    assert after == {**before, "a": 3}
    async with database.read() as connection:
        assert await colors_of(connection, "team", ["z", "nobody"]) == {"z": 2}


async def test_dimensions_are_apart(database):
    await bind_colors(database, "team", ["a", "b"])
    assert await bind_colors(database, "model", ["b"]) == {"b": 1}


async def test_two_who_bind_at_once_agree(database):
    names = [f"m{number}" for number in range(8)]
    found = await asyncio.gather(*(bind_colors(database, "model", names[::step]) for step in (1, -1, 1, -1)))
    assert all(each == found[0] for each in found)


async def test_no_more_than_so_many_at_once(database):
    names = [f"v{number}" for number in range(BOUND_AT_ONCE_MAX + 5)]
    assert list(await bind_colors(database, "tag.x", names)) != names
    assert await bind_colors(database, "tag.x", []) == {}
