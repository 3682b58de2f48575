"""The cache's mode comes onto keys that have none yet; people, limits and the bill stay as they were."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.core.identity import LimitRule
from app.store import migrate
from app.store.cache import CacheClear, clear_cache
from app.store.changes import rows_since
from app.store.database import Database
from app.store.keys import KeyChanges, find_key, list_keys, update_key
from tests.contract.store.databases import empty_url, forget

ROWS = """
INSERT INTO teams (id, name, created_at_ms, changed) VALUES ('team_a', 'search', 10, 1);
INSERT INTO keys (id, team_id, name, models, endpoints, expires_at_ms, revoked_at_ms, created_at_ms, changed) VALUES
  ('key_a', 'team_a', 'k', '["gpt-*"]', '[]', 99, NULL, 20, 2),
  ('key_b', 'team_a', 'l', NULL, NULL, NULL, 50, 21, 3);
INSERT INTO limits (id, team_id, key_id, kind, "window", maximum, time_zone, policy, mode, bound, created_at_ms) VALUES
  ('limit_a', 'team_a', 'key_a', 'concurrency', '', 3, 'UTC', 'strict', 'enforce', 'maximum', 20);
UPDATE change_counter SET value = 3;
INSERT INTO meta (key, value) VALUES ('pruned_before_ms', '0');
INSERT INTO records (request_id, admitted_at_ms, quarter_ms, ended_at_ms, team_id, key_id, secret_id, endpoint,
                     stream, model_requested, model, upstream, outcome, attempts, tags, cache, saved_nanousd,
                     suspect, decision, budgets) VALUES
  ('r1', 1, 0, 2, 'team_a', 'key_a', 'key_a', 'responses', 0, 'm', 'm', 'u', 'completed', 1, '{}', 'bypass', 0, 0,
   '{}', '[["limit_a", 0]]')
"""


@pytest.fixture
async def old(kind, tmp_path):
    """A database of the version before, with people and a bill."""
    url = await empty_url(kind, tmp_path)
    database = await Database.open(url)
    assert await migrate.upgrade(database, "0002") == "0002"
    async with database.maintenance() as connection:
        for statement in ROWS.split(";"):
            await connection.execute(text(statement))
    yield database
    await database.close()
    await forget(kind, url)


async def test_keys_stay_as_they_were_and_have_no_mode_until_one_is_set(old):
    assert await migrate.upgrade(old) == migrate.head_revision()
    async with old.transaction() as connection:
        first, second = await list_keys(connection)
        assert (first.name, first.models, first.endpoints, first.expires_at_ms) == ("k", ("gpt-*",), (), 99)
        assert first.limits == (LimitRule("limit_a", "concurrency", 3),)
        assert (second.revoked_at_ms, second.created_at_ms, second.changed) == (50, 21, 3)
        assert (first.cache_mode, second.cache_mode) == (None, None)
        await update_key(connection, "key_b", KeyChanges(cache_mode="shadow"), now_ms=1)
        assert (await find_key(connection, "key_b")).cache_mode == "shadow"
        assert (await find_key(connection, "key_a")).cache_mode is None


async def test_nothing_was_cleared_and_clearings_go_on_from_the_last_change(old):
    await migrate.upgrade(old)
    async with old.transaction() as connection:
        assert (await rows_since(connection, -1)).cache_clears == []
        assert await clear_cache(connection, team_id="team_a", model=None, now_ms=7) == CacheClear("team_a", "", 4, 7)
        assert (await rows_since(connection, 3)).cache_clears == [CacheClear("team_a", "", 4, 7)]


async def test_the_bill_and_the_facts_stay_as_they_were(old):
    await migrate.upgrade(old)
    async with old.read() as connection:
        record = (await connection.execute(text("SELECT * FROM records"))).mappings().one()
        fact = (await connection.execute(text("SELECT value FROM meta"))).scalar_one()
    assert (record["request_id"], record["cache"], record["budgets"]) == ("r1", "bypass", '[["limit_a", 0]]')
    assert fact == "0"
