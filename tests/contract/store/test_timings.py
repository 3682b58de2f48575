from __future__ import annotations

import pytest

from app.core.clock import QUARTER_MS
from app.store.batch import write_batch
from app.store.timings import timings
from tests.contract.store.samples import NOON_MS, record_of

HOUR_MS = 4 * QUARTER_MS


async def told(database, start_ms=NOON_MS - HOUR_MS, end_ms=NOON_MS + 3 * HOUR_MS, **options):
    async with database.read() as connection:
        return await timings(connection, start_ms, end_ms, **{"step_ms": HOUR_MS, **options})


def took(ms, at_ms=NOON_MS, own_us=None, **changes):
    return record_of(at_ms=at_ms, first_byte_at_ms=at_ms + ms, own_us=own_us, **changes)


async def test_steps_have_the_percentiles_of_what_they_hold(database):
    await write_batch(database, [took(100, own_us=900) for _ in range(95)] + [took(4000) for _ in range(5)])
    await write_batch(database, [took(100, at_ms=NOON_MS + HOUR_MS + QUARTER_MS), took(100)])
    # Twice is once.
    again = took(70_000)
    await write_batch(database, [again])
    await write_batch(database, [again])
    found = await told(database)
    steps = found.by_step()
    assert list(steps) == [NOON_MS, NOON_MS + HOUR_MS]
    first, second = steps.values()
    assert (first.first_byte_requests, first.overhead_requests) == (102, 95)
    assert first.first_byte_p50_ms == pytest.approx(100, rel=0.2)
    assert first.first_byte_p95_ms == pytest.approx(4000, rel=0.25)
    assert first.overhead_p95_ms == pytest.approx(0.9, rel=0.2)
    assert (second.first_byte_requests, second.overhead_p50_ms) == (1, None)
    assert found.whole().first_byte_requests == 103
    at_once = await told(database, step_ms=4 * HOUR_MS)
    assert at_once.by_step() == {NOON_MS - HOUR_MS: found.whole()}


async def test_by_upstream_and_of_some_teams(database):
    await write_batch(
        database,
        [took(100), took(200, upstream="azure"), took(300, upstream="azure", team_id="t2"), took(400, team_id="t3")],
    )
    rows = (await told(database)).by_upstream()
    assert {name: row.first_byte_requests for name, row in rows.items()} == {"azure": 2, "openai": 2}
    rows = (await told(database, only_team_ids=("t2", "t3"))).by_upstream()
    assert {name: row.first_byte_requests for name, row in rows.items()} == {"azure": 1, "openai": 1}
    for nothing in (await told(database, only_team_ids=("nobody",)), await told(database, end_ms=NOON_MS)):
        assert (nothing.by_step(), nothing.whole().first_byte_p95_ms) == ({}, None)
