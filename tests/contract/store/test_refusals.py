"""The last refusals of each team, kept for a day."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import select

from app.store import refusals as stored
from app.store.database import Database
from app.store.errors import RowsRefused
from app.store.refusals import KEPT_MS, RefusalRow, find_refusal, forget_refusals, keep_refusals, recent_refusals
from app.store.tables import refusals
from tests.contract.store.samples import NOON_MS

DECISION = {"limit": {"scope": "key", "name": "requests_per_minute", "maximum": 5}, "retry_after_ms": 900}


def refusal(number, *, team="t1", at_ms=NOON_MS, **changes):
    given = {"key_id": "k1", "status": 429, "code": "rate_limit_exceeded", "decision": DECISION, **changes}
    return RefusalRow(request_id=f"{team}-{number:06d}", team_id=team, at_ms=at_ms, **given)


async def kept(database, team="t1"):
    """All that there are, newest first."""
    asked = select(refusals.c.request_id).where(refusals.c.team_id == team)
    async with database.read() as connection:
        found = await connection.execute(asked.order_by(refusals.c.at_ms.desc(), refusals.c.request_id.desc()))
        return list(found.scalars())


async def test_a_refusal_is_found_as_it_was_kept(database):
    row = refusal(1)
    await keep_refusals(database, [row], NOON_MS)
    await keep_refusals(database, [refusal(1, code="other")], NOON_MS)
    async with database.read() as connection:
        assert await find_refusal(connection, row.request_id) == row
        assert await find_refusal(connection, "unknown") is None
        assert await recent_refusals(connection, "t1") == [row]
        assert await recent_refusals(connection, "t2") == []


async def test_the_newest_of_each_team_remain(database, monkeypatch):
    monkeypatch.setattr(stored, "KEPT_PER_TEAM", 10)
    rows = [refusal(number, at_ms=NOON_MS + number // 3) for number in range(25)]
    random.Random(1).shuffle(rows)
    for start in range(0, 25, 7):
        await keep_refusals(database, [*rows[start : start + 7], refusal(start, team="t2")], NOON_MS)
    assert await kept(database) == [f"t1-{number:06d}" for number in range(24, 14, -1)]
    assert len(await kept(database, "t2")) == 4


async def test_a_day_later_they_are_gone(database):
    await keep_refusals(database, [refusal(1), refusal(2, at_ms=NOON_MS + 5), refusal(1, team="quiet")], NOON_MS)
    await keep_refusals(database, [refusal(3, at_ms=NOON_MS + KEPT_MS)], NOON_MS + KEPT_MS + 1)
    assert await kept(database) == ["t1-000003", "t1-000002"]
    assert await kept(database, "quiet") == ["quiet-000001"]
    assert await forget_refusals(database, NOON_MS + 5) == 1
    assert await kept(database, "quiet") == []


async def test_a_decision_that_is_too_long_is_cut(database):
    decision = {"limit": "requests_per_minute", "message": "x" * 5000, "retry_after_ms": 7}
    await keep_refusals(database, [refusal(1, decision=decision)], NOON_MS)
    async with database.read() as connection:
        row = await find_refusal(connection, "t1-000001")
    assert row.decision == {"cut": True, "limit": "requests_per_minute", "retry_after_ms": 7}


@pytest.mark.parametrize("fault", [{"code": "\ud800"}, {"decision": {"x": "\ud800"}}, {"status": 2**70}])
async def test_what_is_no_row_is_refused_and_nothing_kept(database, fault):
    with pytest.raises(RowsRefused):
        await keep_refusals(database, [refusal(1), refusal(2, **fault)], NOON_MS)
    assert await kept(database) == []


async def test_gateways_keep_theirs_side_by_side(database_url, monkeypatch):
    monkeypatch.setattr(stored, "KEPT_PER_TEAM", 50)
    databases = [await Database.open(database_url) for _ in range(4)]

    async def keep(number):
        for start in range(0, 100, 5):
            rows = [refusal(start + step, team=f"t{(start + number) % 2}", at_ms=NOON_MS + start) for step in range(5)]
            await keep_refusals(databases[number], rows, NOON_MS)

    async with asyncio.timeout(30):
        await asyncio.gather(*map(keep, range(4)))
    for team in ("t0", "t1"):
        assert await kept(databases[0], team) == [f"{team}-{number:06d}" for number in range(99, 49, -1)]
    for database in databases:
        await database.close()
