"""The money of estimates comes onto rollups that have none of it, from the entries there are."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, text

from app.store import migrate
from app.store.database import Database
from app.store.flatten import entry_row
from app.store.proof import prove
from app.store.records import find_record
from app.store.tables import entries, rollups
from tests.contract.store.databases import empty_url, forget
from tests.contract.store.samples import NOON_MS, entry_of, record_of

PLACE = "team000001', 'key0000001', 'gpt-4.1-mini', 'openai'"
ROLLUPS = """
INSERT INTO rollups (quarter_ms, team_id, key_id, model, upstream, requests, failed, input_tokens, cached_tokens,
  cache_write_tokens, output_tokens, reasoning_tokens, cost_nanousd, saved_nanousd, unpriced, estimated) VALUES
"""
RECORDS = """
INSERT INTO records (request_id, admitted_at_ms, quarter_ms, ended_at_ms, team_id, key_id, secret_id, endpoint,
  stream, model_requested, model, upstream, outcome, attempts, tags, cache, saved_nanousd, suspect, decision, budgets)
VALUES
"""


def entry(request_id, **changes):
    """With the correction's own place and moment."""
    columns = [column.name for column in entries.columns]
    return dict(zip(columns, entry_row(record_of(request_id), entry_of(request_id, **changes)), strict=True))


@pytest.fixture
async def old(kind, tmp_path):
    url = await empty_url(kind, tmp_path)
    database = await Database.open(url)
    assert await migrate.upgrade(database, "0004") == "0004"
    rows = [
        entry("r1", kind="estimate", cost_nanousd=50),
        entry("r2", kind="estimate", cost_nanousd=70),
        entry("r2", kind="adjust", reason="exact", cost_nanousd=-20),
        entry("r3", kind="estimate", cost_nanousd=None),
        entry("r3", kind="adjust", reason="reprice", cost_nanousd=9),
        entry("r4", cost_nanousd=1000),
    ]
    async with database.maintenance() as connection:
        await connection.execute(insert(entries), rows)
        for request_id in ("r1", "r2", "r3", "r4"):
            await connection.execute(
                text(
                    f"{RECORDS} ('{request_id}', {NOON_MS}, {NOON_MS}, {NOON_MS}, 'team000001', 'key0000001',"
                    " 'key0000001', 'responses', 0, 'm', 'gpt-4.1-mini', 'openai', 'completed', 1, '{}', 'miss', 0, 0,"
                    " '{}', '[]')"
                )
            )
        units = "600, 240, 30, 120, 42"
        await connection.execute(text(f"{ROLLUPS} ({NOON_MS}, '{PLACE}, 4, 0, {units}, 1109, 0, 0, 2)"))
        # Its entries were pruned.
        await connection.execute(text(f"{ROLLUPS} (0, '{PLACE}, 4, 0, {units}, 1109, 0, 0, 2)"))
        await connection.execute(text(f"INSERT INTO meta (key, value) VALUES ('pruned_before_ms', '{NOON_MS}')"))
    yield database
    await database.close()
    await forget(kind, url)


async def test_what_estimates_cost_is_found_again(old):
    assert await migrate.upgrade(old) == migrate.head_revision()
    async with old.read() as connection:
        asked = select(rollups.c.estimated_nanousd).order_by(rollups.c.quarter_ms)
        assert list((await connection.execute(asked)).scalars()) == [0, 59]
        proof = await prove(connection)
        record = await find_record(connection, "r1")
    assert proof.holds, proof
    assert record.cost_nanousd == 50
