"""Several processes put together."""

from __future__ import annotations

from app.telemetry.live.deltas import Delta
from app.telemetry.live.scene import ALL, SILENCE_S_MAX, Scene, place_of_key, place_of_team
from tests.unit.telemetry.live.stage import Process


def ids(scene: Scene) -> set[str]:
    return {row.request_id for row in scene.flights()}


def test_it_counts_for_all_for_each_team_and_for_each_key():
    scene, one, other = Scene(), Process("p1"), Process("p2")
    one.begin("a1", "a")
    one.begin("a2", "a")
    other.begin("a1", "a")
    running = other.begin("b1", "b")
    scene.take(one.watch.look(), 0)
    scene.take(other.watch.look(), 0)
    assert scene.in_flight == {
        ALL: 4,
        place_of_team("team-a"): 3,
        place_of_team("team-b"): 1,
        place_of_key("key-a1"): 2,
        place_of_key("key-a2"): 1,
        place_of_key("key-b1"): 1,
    }
    other.end(running)
    scene.take(other.watch.look(), 0)
    assert scene.in_flight[ALL] == 3
    assert place_of_team("team-b") not in scene.in_flight
    assert [row.request_id for row in scene.finished] == [running]


def test_a_gap_is_seen_and_the_whole_mends_it():
    scene, process = Scene(), Process()
    gone, stays = process.begin(), process.begin()
    assert scene.take(process.whole(), 0)
    process.end(gone)
    lost = process.watch.look()
    came = process.begin()
    assert not scene.take(process.watch.look(), 0)
    assert ids(scene) == {gone, stays, came}
    before = scene.version
    assert scene.take(process.whole(), 0)
    assert ids(scene) == {stays, came}
    assert scene.in_flight[ALL] == 2
    assert scene.version == before
    # What was missed is counted, once.
    assert len(lost.finished) == scene.skipped[ALL] == scene.skipped[place_of_key("key-a1")] == 1
    assert scene.ended == 0


def test_one_that_is_heard_half_way_has_to_tell_all():
    scene, process = Scene(), Process()
    process.watch.look()
    process.begin()
    assert not scene.take(process.watch.look(), 0)


def test_a_process_that_ends_or_falls_silent_takes_its_requests_along():
    scene, one, other = Scene(), Process("p1"), Process("p2")
    one.begin()
    other.begin()
    scene.take(one.whole(), 0)
    scene.take(other.whole(), 0)
    scene.take(Delta("p1", 0, over=True), 0)
    assert scene.in_flight[ALL] == 1
    scene.expire(SILENCE_S_MAX)
    assert scene.processes == 1
    scene.expire(SILENCE_S_MAX + 0.1)
    assert (scene.processes, ids(scene), dict(scene.in_flight)) == (0, set(), {})


def test_the_history_of_a_process_that_is_heard_for_the_first_time_is_put_in_order():
    scene, one, other = Scene(), Process("p1"), Process("p2")
    ended = [process.end(process.begin()).request_id for process in (one, other) for _ in range(2)]
    # The two clocks run alike: the first of each has ended before the second of each.
    in_order = [ended[0], ended[2], ended[1], ended[3]]
    for process in (one, other):
        process.watch_again()
        scene.take(process.whole(), 0)
    assert [row.request_id for row in scene.finished] == in_order
    assert scene.ended == 0
    scene.take(other.whole(), 0)
    assert [row.request_id for row in scene.finished] == in_order
