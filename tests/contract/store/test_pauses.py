"""Paused upstreams in SQL, and how the change feed tells of them."""

from __future__ import annotations

from app.store.changes import current_change, rows_since
from app.store.pauses import Pause, list_pauses, set_paused


async def put(database, name, *, is_paused, by="ada", now_ms=1000):
    async with database.transaction() as connection:
        return await set_paused(connection, name, is_paused=is_paused, actor_name=by, now_ms=now_ms)


async def paused_since(database, change):
    async with database.read() as connection:
        return (await rows_since(connection, change)).paused


async def now(database):
    async with database.read() as connection:
        return await current_change(connection)


async def test_a_pause_is_told_until_it_ends(database):
    begun = await now(database)
    assert await paused_since(database, begun) is None
    assert await put(database, "openai", is_paused=True) is None
    assert await put(database, "azure", is_paused=True, by="bob", now_ms=2000) is None
    async with database.read() as connection:
        assert await list_pauses(connection) == [Pause("azure", 2000, "bob"), Pause("openai", 1000, "ada")]
    assert await paused_since(database, begun) == {"openai", "azure"}
    reached = await now(database)
    assert await paused_since(database, reached) is None
    assert await put(database, "openai", is_paused=False, now_ms=3000) == Pause("openai", 1000, "ada")
    assert await paused_since(database, reached) == {"azure"}, "what has ended is a change too"
    assert await put(database, "azure", is_paused=False) == Pause("azure", 2000, "bob")
    assert await paused_since(database, reached) == frozenset()
    assert await paused_since(database, -1) == frozenset(), "whoever starts is told that there is none"


async def test_once_more_changes_nothing(database):
    await put(database, "openai", is_paused=True)
    reached = await now(database)
    assert await put(database, "openai", is_paused=True, by="bob", now_ms=9000) == Pause("openai", 1000, "ada")
    assert await paused_since(database, reached) is None
    assert await put(database, "other", is_paused=False) is None
    assert await paused_since(database, reached) is None
    async with database.read() as connection:
        assert await list_pauses(connection) == [Pause("openai", 1000, "ada")]
