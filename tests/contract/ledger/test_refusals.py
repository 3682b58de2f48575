"""Refusals on their way into SQL: bounded, never waiting, never failing."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from app.core.clock import SystemClock
from app.ledger import refusals as module
from app.ledger.refusals import RefusalLog
from app.store.errors import DatabaseUnavailable
from app.store.refusals import KEPT_MS, RefusalRow, keep_refusals, recent_refusals

CLOCK = SystemClock()


def refusal(number, team="t1", **changes):
    given = {"key_id": "k", "at_ms": CLOCK.now_ms(), "status": 429, "code": "rate_limit_exceeded", **changes}
    return RefusalRow(request_id=f"{team}-{number:06d}", team_id=team, **given)


@contextlib.asynccontextmanager
async def running(database, **options):
    log = RefusalLog(database, CLOCK, flush_interval_s=0.01, **options)
    log.start()
    yield log
    await log.close()


async def kept(database, team="t1"):
    async with database.read() as connection:
        return sorted(row.request_id for row in await recent_refusals(connection, team, limit=1000))


async def until(true, timeout_s=30.0):
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


async def test_what_is_added_is_in_sql_soon(database):
    async with running(database) as log:
        for number in range(3):
            log.add(refusal(number))
            log.add(refusal(number))
        await until(lambda: not log.waiting)
        assert await kept(database) == [f"t1-{number:06d}" for number in range(3)]
        assert log.dropped == 0


async def test_closing_writes_what_waits(database):
    async with running(database) as log:
        await asyncio.sleep(0.05)
        for number in range(1500):
            log.add(refusal(number, team=f"t{number % 3}"))
    assert sum([len(await kept(database, f"t{team}")) for team in range(3)]) == 1500


async def test_the_oldest_go_first_by_team_and_in_all(database):
    log = RefusalLog(database, CLOCK, waiting_max=10, waiting_per_team_max=4)
    for number in range(6):
        log.add(refusal(number, "busy"))
    assert (log.waiting, log.dropped) == (4, 2)
    for number in range(12):
        log.add(refusal(number, f"team{number}"))
    assert (log.waiting, log.dropped) == (10, 8)
    log.start()
    await until(lambda: not log.waiting)
    await log.close()
    assert await kept(database, "busy") == []
    assert await kept(database, "team11") == ["team11-000011"]
    assert await kept(database, "team1") == []
    assert await kept(database, "team2") == ["team2-000002"]


async def test_adding_goes_on_while_the_database_is_away(database, monkeypatch):
    """The rows stay, the oldest go for newer ones, and all that is left is written once it is back."""
    away = True

    async def keep(*arguments):
        if away:
            raise DatabaseUnavailable("gone")
        await keep_refusals(*arguments)

    monkeypatch.setattr(module, "keep_refusals", keep)
    async with running(database, waiting_max=20) as log:
        for number in range(50):
            log.add(refusal(number))
            await asyncio.sleep(0.002)
        assert (log.waiting, log.dropped) == (20, 30)
        away = False
        await until(lambda: not log.waiting)
    assert await kept(database) == [f"t1-{number:06d}" for number in range(30, 50)]


async def test_a_database_that_hangs_holds_up_nobody(database, monkeypatch):
    hung = asyncio.Event()

    async def keep(*_arguments):
        hung.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(module, "keep_refusals", keep)
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.1)
    async with asyncio.timeout(30), running(database, waiting_per_team_max=5) as log:
        log.add(refusal(0))
        await hung.wait()
        for number in range(1, 20):
            log.add(refusal(number))
        assert log.waiting == 5


async def test_rows_dropped_while_they_are_written_do_no_harm(database, monkeypatch):
    """The batch in hand is pushed out by newer ones before its commit."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def keep(*arguments):
        begun.set()
        await go_on.wait()
        await keep_refusals(*arguments)

    monkeypatch.setattr(module, "keep_refusals", keep)
    async with running(database, waiting_per_team_max=5) as log:
        for number in range(5):
            log.add(refusal(number))
        await begun.wait()
        for number in range(5, 12):
            log.add(refusal(number))
        go_on.set()
        await until(lambda: not log.waiting)
        log.add(refusal(99))
        await until(lambda: not log.waiting)
    assert await kept(database) == [f"t1-{number:06d}" for number in (*range(5), *range(7, 12), 99)]


async def test_a_row_that_is_refused_does_not_take_others_with_it(database):
    async with running(database) as log:
        for number in range(9):
            log.add(refusal(number, code="\ud800" if number == 4 else "rate_limit_exceeded"))
        await until(lambda: not log.waiting)
        assert log.dropped == 1
    assert await kept(database) == [f"t1-{number:06d}" for number in range(9) if number != 4]


async def test_old_ones_of_quiet_teams_are_forgotten(database):
    await keep_refusals(database, [refusal(1, "quiet", at_ms=CLOCK.now_ms() - KEPT_MS + 1)], CLOCK.now_ms())
    await asyncio.sleep(0.01)
    async with running(database) as log:
        log.add(refusal(1))
        await until(lambda: not log.waiting)
    assert await kept(database, "quiet") == []


@pytest.mark.parametrize("started", [True, False])
async def test_it_may_be_closed_at_any_time(database, started):
    log = RefusalLog(database, CLOCK)
    if started:
        log.start()
    await log.close()
    await log.close()
    assert "waiting=0" in repr(log)
