"""The look every few seconds: what it does, and that nothing it meets ends it."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from app.ledger.recovery import Recovered
from app.ledger.space import Space
from app.main.upkeep import Upkeep
from app.store.errors import DatabaseUnavailable
from app.telemetry.logs import LogWriter


class FakeDatabase:
    def __init__(self):
        self.truncated = 0

    async def truncate_log(self):
        self.truncated += 1


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = LogWriter(descriptor)

    def events():
        writer._flush()
        return [json.loads(line)["event"] for line in path.read_text().splitlines()]

    writer.events = events
    yield writer
    os.close(descriptor)


async def looks(log, space, outcomes):
    """Runs an upkeep until each of ``outcomes`` was met."""
    database, met, done = FakeDatabase(), iter(outcomes), asyncio.Event()

    async def recover_dead():
        outcome = next(met, None)
        if outcome is None:
            done.set()
            return Recovered()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    upkeep = Upkeep(recover_dead, database, space, log, interval_s=0.001)
    upkeep.start()
    async with asyncio.timeout(30):
        await done.wait()
    await upkeep.close()
    await upkeep.close()
    return database


async def test_what_was_recovered_is_told_and_what_was_not_is_not(log, tmp_path):
    await looks(log, Space(tmp_path), [Recovered(), Recovered(slots=1, segments=2, interrupted=3), Recovered()])
    assert log.events() == ["journal_recovered"]


async def test_neither_a_database_that_is_away_nor_a_bug_ends_it(log, tmp_path):
    outcomes = [DatabaseUnavailable("away"), ZeroDivisionError(), ZeroDivisionError(), Recovered(segments=1)]
    await looks(log, Space(tmp_path), [*outcomes, OSError(5, "Input/output error")])
    assert log.events() == ["upkeep_failed", "journal_recovered", "upkeep_failed"], "once for each change"


async def test_the_log_of_the_database_is_cut_while_there_is_little_room(log, tmp_path):
    space = Space(tmp_path)
    assert (await looks(log, space, [Recovered()] * 3)).truncated == 0
    space.short = True
    assert (await looks(log, space, [Recovered()] * 3)).truncated >= 3
