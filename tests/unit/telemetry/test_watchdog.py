"""An event loop that does not move is told, once, with the place where it stands."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pytest

from app.telemetry.logs import LogWriter
from app.telemetry.watchdog import Watchdog


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = LogWriter(descriptor)

    def lines():
        writer._flush()
        return [json.loads(line) for line in path.read_text().splitlines()]

    writer.lines = lines
    yield writer
    os.close(descriptor)


def stand_still(seconds):
    time.sleep(seconds)


async def test_a_blocked_loop_is_told_once_with_its_stack_and_when_it_goes_on(log):
    watchdog = Watchdog(log, beat_s=0.01, blocked_s=1)
    watchdog.start()
    await asyncio.sleep(0.05)
    assert watchdog.lag_s < 1
    stand_still(2)
    async with asyncio.timeout(30):
        while "event_loop_resumed" not in [line["event"] for line in log.lines()]:
            await asyncio.sleep(0.01)
    assert 1.5 < watchdog.lag_s < 10
    watchdog.close()
    blocked, resumed = log.lines()
    assert (blocked["event"], blocked["level"]) == ("event_loop_blocked", "error")
    assert any(place.endswith(":stand_still") for place in blocked["stack"])
    assert "test_watchdog.py:" in " ".join(blocked["stack"])
    assert resumed["event"] == "event_loop_resumed"
    assert 0.9 < resumed["blocked_s"] < 10


async def test_a_loop_that_runs_is_not_mentioned_and_not_late(log):
    watchdog = Watchdog(log, beat_s=0.01, blocked_s=5)
    watchdog.start()
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert watchdog.lag_s < 5 and "Watchdog" in repr(watchdog)
    watchdog.close()
    assert log.lines() == []


async def test_the_lag_of_a_loop_that_stands_still_is_seen_from_another_thread(log):
    watchdog = Watchdog(log, beat_s=0.01, blocked_s=10)
    watchdog.start()
    await asyncio.sleep(0.02)
    asked = asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.2), watchdog.lag_s)[1])
    stand_still(0.3)
    assert await asked > 0.15
    watchdog.close()
