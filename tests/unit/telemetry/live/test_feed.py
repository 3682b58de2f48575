"""It looks while somebody does, and no longer."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from app.core.errors import Draining
from app.telemetry.live import LiveFeed, Scope, TooManyViewers
from app.telemetry.live.board import FINISHED_KEPT, FINISHED_KEPT_WATCHED
from app.telemetry.live.feed import OF_KEYS_MAX, OF_ONE_KEY_MAX, VIEWERS_MAX
from app.telemetry.live.viewer import TICK_S
from tests.unit.telemetry.live.stage import Process


class Alone:
    """A feed of one process without others."""

    def __init__(self) -> None:
        self.stage = Process()
        self.draining = False
        self.feed = LiveFeed(
            self.stage.board, process="p1", worker="host/0", is_over=lambda: self.draining, sharing=None
        )


async def test_it_looks_from_the_first_viewer_to_the_last():
    alone = Alone()
    assert alone.stage.board.finished.maxlen == FINISHED_KEPT
    first, second = alone.feed.open(Scope()), alone.feed.open(Scope())
    assert alone.stage.board.finished.maxlen == FINISHED_KEPT_WATCHED
    alone.feed.first(second)
    alone.feed.close_viewer(first)
    await asyncio.sleep(2 * TICK_S)
    request_id = alone.stage.begin()
    await asyncio.sleep(2 * TICK_S)
    assert ("started", request_id) in [
        (name, getattr(data, "request_id", "")) for name, data in alone.feed.next(second)
    ]
    alone.feed.close_viewer(second)
    alone.feed.close_viewer(second)
    await asyncio.sleep(2 * TICK_S)
    assert alone.stage.board.finished.maxlen == FINISHED_KEPT
    assert [task for task in asyncio.all_tasks() if task.get_name() == "live feed"] == []
    assert not alone.feed.is_degraded


async def test_a_look_that_fails_is_not_the_last(monkeypatch):
    """A bug in one look: it begins again, with all that there is."""
    alone = Alone()
    viewer = alone.feed.open(Scope())
    alone.feed.first(viewer)
    request_id = alone.stage.begin()
    failing = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failing.set_result(context))

    def break_down() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(alone.stage.flights[request_id], "sighting", break_down)
    await asyncio.sleep(2 * TICK_S)
    gc.collect()
    assert "never retrieved" in (await failing)["message"]
    monkeypatch.undo()
    alone.feed.next(viewer)
    await asyncio.sleep(2 * TICK_S)
    assert request_id in [
        getattr(data, "request_id", "") for name, data in alone.feed.next(viewer) if name == "started"
    ]
    await alone.feed.close()
    alone.feed.wake()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "live feed"] == []


async def test_a_viewer_that_comes_later_begins_with_how_things_stand():
    alone = Alone()
    running = alone.stage.begin()
    (ended,) = alone.stage.serve(1)
    viewer = alone.feed.open(Scope())
    (name, data), (_, count) = alone.feed.first(viewer)
    assert name == "snapshot"
    assert [row.request_id for row in data["in_flight"]] == [running]
    assert [row.request_id for row in data["finished"]] == [ended]
    assert count == {"in_flight": 1, "degraded": False, "processes": 1}
    await alone.feed.close()


async def test_so_many_may_watch_and_keys_do_not_keep_others_out():
    alone = Alone()
    for number in range(OF_KEYS_MAX):
        alone.feed.open(Scope(key_id=f"key{number // OF_ONE_KEY_MAX}", is_own=True))
    with pytest.raises(TooManyViewers) as refused:
        alone.feed.open(Scope(key_id="another", is_own=True))
    assert refused.value.retry_after_ms
    for _ in range(VIEWERS_MAX - OF_KEYS_MAX):
        last = alone.feed.open(Scope())
    with pytest.raises(TooManyViewers):
        alone.feed.open(Scope())
    alone.feed.close_viewer(last)
    alone.feed.open(Scope())
    await alone.feed.close()


async def test_one_key_has_a_few_places():
    alone = Alone()
    for _ in range(OF_ONE_KEY_MAX):
        alone.feed.open(Scope(key_id="key", is_own=True))
    with pytest.raises(TooManyViewers):
        alone.feed.open(Scope(key_id="key", is_own=True))
    alone.feed.open(Scope(key_id="another", is_own=True))
    await alone.feed.close()


async def test_nobody_comes_in_while_it_drains():
    alone = Alone()
    alone.draining = True
    with pytest.raises(Draining):
        alone.feed.open(Scope())


async def test_a_look_at_a_full_house_takes_a_few_milliseconds():
    alone = Alone()
    alone.stage.board.keep(FINISHED_KEPT_WATCHED)
    viewer = alone.feed.open(Scope())
    for number in range(2000):
        alone.stage.begin(f"a{number % 50}", "a")
    alone.stage.serve(400)
    began_s = time.thread_time()
    alone.feed._look()
    alone.feed.next(viewer)
    assert time.thread_time() - began_s < 0.15, "measured: 3 ms"
    await alone.feed.close()
