"""What one who looks is told, under a clock of the test's own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from app.telemetry.live.scene import Scene
from app.telemetry.live.viewer import EVENTS_PER_TICK, TICK_S, Event, Scope, Viewer
from tests.unit.telemetry.live.stage import Process

PER_SECOND_MAX = 50


class Screen:
    """What a client knows by the events that it was told."""

    def __init__(self, scope: Scope | None = None, *processes: Process) -> None:
        self.processes = processes or (Process(),)
        self.scene = Scene()
        for process in self.processes:
            self.scene.take(process.whole(), 0)
        self.now_s = 100.0
        self.viewer = Viewer(self.scene, scope or Scope())
        self.in_flight: dict[str, Any] = {}
        self.finished: list[str] = []
        self.dropped = 0
        self.count: dict[str, Any] = {}
        self.sent: list[tuple[float, str]] = []
        self._take(self.viewer.snapshot(self.now_s))

    def look(self) -> None:
        for process in self.processes:
            self.scene.take(process.watch.look(), self.now_s)

    def tick(self, **more: bool) -> list[Event]:
        self.look()
        self.now_s += TICK_S
        events = self.viewer.tick(self.now_s, **more)
        assert len(events) <= EVENTS_PER_TICK
        self._take(events)
        return events

    def settle(self) -> None:
        for _ in range(200):
            self.tick()

    def _take(self, events: list[Event]) -> None:
        for name, data in events:
            self.sent.append((self.now_s, name))
            if name == "snapshot":
                self.in_flight = {row.request_id: row.state for row in data["in_flight"]}
                self.finished = [row.request_id for row in reversed(data["finished"])]
            elif name == "started":
                assert data.request_id not in self.in_flight
                self.in_flight[data.request_id] = data.state
            elif name == "progress":
                assert data["request_id"] in self.in_flight
                self.in_flight[data["request_id"]] = data["state"]
            elif name == "finished":
                self.in_flight.pop(data.request_id, None)
                self.finished.append(data.request_id)
            elif name == "ended":
                for request_id in data["request_ids"]:
                    del self.in_flight[request_id]
            elif name == "dropped":
                self.dropped += data["events"]
            else:
                assert name == "count"
                self.count = data

    @property
    def busiest_second(self) -> int:
        times = [at_s for at_s, _ in self.sent]
        return max(sum(1 for at_s in times if begin <= at_s < begin + 1) for begin in times)


def test_a_request_is_seen_to_begin_to_stream_and_to_end():
    process = Process()
    screen = Screen(None, process)
    request_id = process.begin()
    screen.tick()
    assert screen.in_flight == {request_id: "waiting"}
    process.flights[request_id].streams = True
    screen.tick()
    assert screen.in_flight == {request_id: "streaming"}
    process.end(request_id)
    screen.settle()
    assert screen.in_flight == {}
    assert screen.finished == [request_id]
    assert screen.count == {"in_flight": 0, "degraded": False, "processes": 1}
    assert screen.dropped == 0
    assert screen.tick() == []


def test_the_snapshot_has_what_runs_and_what_has_ended_newest_first():
    process = Process()
    ended = process.serve(3)
    running = [process.begin() for _ in range(2)]
    screen = Screen(None, process)
    assert list(screen.in_flight) == running
    assert screen.finished == ended
    assert screen.count["in_flight"] == 2


def test_one_that_leaves_without_a_record_is_taken_away():
    process = Process()
    screen = Screen(None, process)
    request_id = process.begin()
    screen.tick()
    process.vanish(request_id)
    assert ("ended", {"request_ids": [request_id]}) in screen.tick()
    assert screen.in_flight == {}


@pytest.mark.parametrize("per_tick", [30, 100, 400])
def test_a_burst_is_at_most_fifty_events_a_second_and_nothing_is_lost_from_the_count(per_tick):
    process = Process()
    process.board.keep(4096)
    screen = Screen(None, process)
    for _ in range(25):
        process.serve(per_tick)
        screen.tick()
    screen.settle()
    assert screen.busiest_second <= PER_SECOND_MAX
    assert len(screen.finished) + screen.dropped == 25 * per_tick
    assert screen.dropped > 0
    assert len(set(screen.finished)) == len(screen.finished)


def test_what_a_second_can_tell_is_told_even_where_it_comes_at_once():
    process = Process()
    screen = Screen(None, process)
    ids = process.serve(30)
    screen.settle()
    assert screen.finished == ids
    assert screen.dropped == 0


def test_many_long_requests_are_all_shown_in_the_end_and_all_taken_away():
    process = Process()
    screen = Screen(None, process)
    ids = [process.begin() for _ in range(150)]
    screen.settle()
    assert set(screen.in_flight) == set(ids)
    for request_id in ids:
        process.flights[request_id].streams = True
    screen.settle()
    assert set(screen.in_flight.values()) == {"streaming"}
    for request_id in ids:
        process.end(request_id)
    screen.settle()
    assert screen.in_flight == {}
    assert len(screen.finished) + screen.dropped == 150
    assert screen.busiest_second <= PER_SECOND_MAX


def test_requests_begin_to_show_while_others_end_in_masses():
    process = Process()
    screen = Screen(None, process)
    long = process.begin()
    process.serve(100)
    screen.tick()
    assert long in screen.in_flight


def test_a_viewer_that_does_not_read_misses_some_and_is_told_how_many():
    process = Process()
    process.board.keep(4096)
    screen = Screen(None, process)
    for _ in range(30):
        process.serve(100)
        screen.look()
    screen.settle()
    assert len(screen.finished) + screen.dropped == 3000
    assert len(screen.finished) < 100


def test_a_lead_sees_its_team_and_no_trace_of_another():
    process = Process()
    process.serve(2, "b1", "b")
    screen = Screen(Scope(teams=frozenset({"team-a"})), process)
    own = process.begin("a1", "a")
    process.begin("b1", "b")
    process.serve(300, "b1", "b")
    ended = process.serve(2, "a2", "a")
    screen.settle()
    assert set(screen.in_flight) == {own}
    assert screen.finished == ended
    assert screen.count["in_flight"] == 1
    assert screen.dropped == 0


def test_a_key_sees_itself_alone_and_no_name_of_a_process():
    process = Process()
    screen = Screen(Scope(key_id="key-a1", is_own=True), process)
    own = process.begin("a1", "a")
    process.begin("a2", "a")
    ((name, row), *_) = [event for event in screen.tick() if event[0] == "started"]
    assert (name, row.request_id, row.worker) == ("started", own, None)
    process.serve(400, "a2", "a")
    screen.settle()
    assert screen.count["in_flight"] == 1
    process.end(own)
    screen.settle()
    assert screen.finished == [own]
    assert (screen.in_flight, screen.dropped, screen.count["in_flight"]) == ({}, 0, 0)


def test_that_others_cannot_be_heard_is_said_at_once():
    screen = Screen()
    assert screen.tick(degraded=True) == [("count", {"in_flight": 0, "degraded": True, "processes": 1})]
    assert screen.tick(degraded=True) == []
    assert screen.tick(degraded=False) == [("count", {"in_flight": 0, "degraded": False, "processes": 1})]


def test_a_process_that_is_heard_later_is_shown_by_a_snapshot():
    one, other = Process("p1"), Process("p2")
    screen = Screen(None, one)
    mine = one.begin()
    screen.tick()
    theirs, ended = other.begin(), other.serve(1)
    screen.scene.take(other.whole(), screen.now_s)
    for _ in range(6):
        screen.tick()
    assert set(screen.in_flight) == {mine, theirs}
    assert screen.finished == ended
    assert Counter(name for _, name in screen.sent)["snapshot"] == 2
    screen.scene.expire(screen.now_s + 60)
    screen.processes = ()
    screen.tick()
    assert screen.in_flight == {}
