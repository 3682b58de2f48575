"""Limits that were columns become rules that mean the same; what was on the bill stays as it was."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import text

from app.core.identity import LimitRule
from app.store import migrate
from app.store.database import Database
from app.store.keys import KeyChanges, find_key, list_keys, update_key
from app.store.limits import PlainLimit
from app.store.teams import find_team, list_teams
from tests.contract.store.databases import empty_url, forget

PEOPLE = """
INSERT INTO teams (id, name, requests_per_minute, tokens_per_minute, concurrency, created_at_ms, changed) VALUES
  ('team_a', 'all', 60, 1000000000000000, 5, 10, 1),
  ('team_b', 'one', NULL, 200, NULL, 11, 2),
  ('team_c', 'none', NULL, NULL, NULL, 12, 3);
INSERT INTO keys (id, team_id, name, requests_per_minute, tokens_per_minute, concurrency, models, endpoints,
                  expires_at_ms, revoked_at_ms, created_at_ms, changed) VALUES
  ('key_a', 'team_a', 'k', 1, 2, 3, '["gpt-*"]', NULL, 99, NULL, 20, 4),
  ('key_b', 'team_b', 'k', NULL, NULL, 1, NULL, NULL, NULL, 50, 21, 5),
  ('key_c', 'team_b', 'l', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 22, 6);
UPDATE change_counter SET value = 6;
INSERT INTO records (request_id, admitted_at_ms, quarter_ms, ended_at_ms, team_id, key_id, secret_id, endpoint,
                     stream, model_requested, model, upstream, outcome, attempts, tags, cache, saved_nanousd,
                     suspect, decision) VALUES
  ('r1', 1, 0, 2, 'team_a', 'key_a', 'key_a', 'responses', 0, 'm', 'm', 'u', 'completed', 1, '{}', 'bypass', 0, 0, '{}');
INSERT INTO entries (attempt_id, reason, number, kind, request_id, team_id, key_id, upstream, model, quarter_ms,
                     created_at_ms, input_tokens, cached_tokens, cache_write_tokens, input_audio_tokens, output_tokens,
                     reasoning_tokens, output_audio_tokens, web_searches, file_searches, cost_nanousd) VALUES
  ('r1.1', '', 0, 'charge', 'r1', 'team_a', 'key_a', 'u', 'm', 0, 2, 7, 1, 0, 0, 5, 0, 0, 0, 0, 123)
"""


@pytest.fixture
async def old(kind, tmp_path):
    """A database of the version before, with people and a bill."""
    url = await empty_url(kind, tmp_path)
    database = await Database.open(url)

    def make(connection):
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    async with database.maintenance() as connection:
        await connection.run_sync(make)
        for statement in PEOPLE.split(";"):
            await connection.execute(text(statement))
    yield database
    await database.close()
    await forget(kind, url)


def told(rules: tuple[LimitRule, ...]):
    return [(rule.id, rule.kind, rule.window, rule.maximum) for rule in rules]


async def test_the_limits_of_teams_and_keys_are_kept_as_rules(old):
    assert await migrate.upgrade(old) == migrate.head_revision()
    async with old.read() as connection:
        teams = {team.id: team for team in await list_teams(connection)}
        keys = {key.id: key for key in await list_keys(connection)}
    assert told(teams["team_a"].limits) == [
        ("team_a.requests_per_minute", "requests", "minute", 60),
        ("team_a.tokens_per_minute", "tokens", "minute", 10**15),
        ("team_a.concurrency", "concurrency", "", 5),
    ]
    assert told(teams["team_b"].limits) == [("team_b.tokens_per_minute", "tokens", "minute", 200)]
    assert teams["team_c"].limits == keys["key_c"].limits == ()
    assert told(keys["key_a"].limits) == [
        ("key_a.requests_per_minute", "requests", "minute", 1),
        ("key_a.tokens_per_minute", "tokens", "minute", 2),
        ("key_a.concurrency", "concurrency", "", 3),
    ]
    assert keys["key_b"].limits == (LimitRule("key_b.concurrency", "concurrency", 1),)


async def test_people_stay_as_they_were_and_their_limits_can_be_changed(old):
    await migrate.upgrade(old)
    async with old.transaction() as connection:
        key = await find_key(connection, "key_a")
        assert (key.name, key.models, key.expires_at_ms, key.created_at_ms, key.changed) == ("k", ("gpt-*",), 99, 20, 4)
        assert (await find_key(connection, "key_b")).revoked_at_ms == 50
        assert (await find_team(connection, "one")).created_at_ms == 11
        limits = (PlainLimit("requests", "minute", 9), PlainLimit("concurrency", "", None))
        changed = await update_key(connection, "key_a", KeyChanges(limits=limits), now_ms=1)
    assert told(changed.limits) == [
        ("key_a.requests_per_minute", "requests", "minute", 9),
        ("key_a.tokens_per_minute", "tokens", "minute", 2),
    ]


async def test_the_bill_has_the_new_columns_and_its_old_values(old):
    await migrate.upgrade(old)
    async with old.read() as connection:
        entry = (await connection.execute(text("SELECT * FROM entries"))).mappings().one()
        record = (await connection.execute(text("SELECT * FROM records"))).mappings().one()
        epoch = (await connection.execute(text("SELECT * FROM epoch"))).mappings().all()
    assert (entry["input_tokens"], entry["output_tokens"], entry["cost_nanousd"]) == (7, 5, 123)
    assert (entry["cached_audio_tokens"], entry["code_sessions"], entry["unknown_units"]) == (0, 0, 0)
    assert (record["model_requested"], record["budgets"]) == ("m", "[]")
    assert [(row["number"], row["state"], row["leader"]) for row in epoch] == [(1, "open", None)]
