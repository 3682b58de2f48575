"""What has changed in a process between two looks."""

from __future__ import annotations

import msgspec

from app.telemetry.live.board import FINISHED_KEPT
from app.telemetry.live.deltas import (
    FINISHED_MAX,
    FINISHED_OF_KEY_MAX,
    FLIGHTS_MAX,
    RECENT_MAX,
    TOKENS_EVERY,
    Count,
    Delta,
)
from app.telemetry.live.rows import record_row
from tests.contract.store.samples import NOON_MS, entry_of, record_of
from tests.unit.telemetry.live.stage import Process, principal_of


def test_nothing_changes_where_nothing_happens():
    process = Process()
    process.begin()
    assert not process.watch.look().is_empty
    assert process.watch.look().is_empty


def test_a_request_begins_streams_and_ends():
    process = Process()
    request_id = process.begin()
    begun = process.watch.look()
    assert [(row.request_id, row.state, row.worker) for row in begun.started] == [(request_id, "waiting", "host/p1")]
    assert begun.counts == [Count("team-a", "key-a1", 1)]
    process.flights[request_id].streams = True
    assert [(step.request_id, step.state) for step in process.watch.look().steps] == [(request_id, "streaming")]
    process.end(request_id)
    ended = process.watch.look()
    assert ended.ended == [request_id]
    assert [row.request_id for row in ended.finished] == [request_id]
    assert ended.counts == [Count("team-a", "key-a1", 0)]


def test_growing_answers_are_told_of_every_few_looks_only():
    process = Process()
    request_id = process.begin()
    told = []
    for look in range(1, 2 * TOKENS_EVERY + 1):
        process.flights[request_id].tokens = look
        told += [step.output_tokens for step in process.watch.look().steps]
    assert told == [TOKENS_EVERY, 2 * TOKENS_EVERY]


def test_one_that_leaves_without_a_record_is_gone_and_not_finished():
    process = Process()
    request_id = process.begin()
    process.watch.look()
    process.vanish(request_id)
    delta = process.watch.look()
    assert (delta.ended, delta.finished) == ([request_id], [])


def test_what_began_and_ended_between_two_looks_is_only_finished():
    process = Process()
    ids = process.serve(3)
    delta = process.watch.look()
    assert (delta.started, delta.ended) == ([], [])
    assert [row.request_id for row in delta.finished] == ids


def test_a_look_is_bounded_and_counts_what_it_does_not_show():
    process = Process()
    for _ in range(FLIGHTS_MAX + 5):
        process.begin("a1")
    process.serve(FINISHED_OF_KEY_MAX + 9, "b1", "b")
    for number in range(FINISHED_MAX):
        process.serve(1, f"c{number}", "c")
    process.board.keep(10_000)
    delta = process.watch.look()
    assert len(delta.started) == FLIGHTS_MAX
    assert Count("team-a", "key-a1", FLIGHTS_MAX + 5) in delta.counts
    assert len(delta.finished) == FINISHED_MAX
    assert sum(count.number for count in delta.totals) == FINISHED_MAX + FINISHED_OF_KEY_MAX + 9


def test_one_key_does_not_crowd_out_the_others():
    process = Process()
    (early,) = process.serve(1, "b1", "b")
    process.board.keep(10_000)
    process.serve(500, "a1", "a")
    delta = process.watch.look()
    assert early in [row.request_id for row in delta.finished]
    assert len(delta.finished) == FINISHED_OF_KEY_MAX + 1
    assert set(delta.totals) == {Count("team-a", "key-a1", 500), Count("team-b", "key-b1", 1)}


def test_what_the_board_has_let_go_of_is_counted_too():
    process = Process()
    process.serve(FINISHED_KEPT + 30)
    delta = process.watch.look()
    assert Count("", "", 30) in delta.totals


def test_the_whole_has_all_that_the_looks_before_have_told():
    process = Process()
    running = process.begin()
    old = process.serve(2)
    process.watch.look()
    new = process.serve(1)
    whole = process.whole()
    assert whole.whole
    assert [row.request_id for row in whole.started] == [running]
    assert [row.request_id for row in whole.recent] == [*old, *new]
    assert [row.request_id for row in whole.finished] == new
    assert whole.counts == [Count("team-a", "key-a1", 1)]
    assert whole.totals == [Count("team-a", "key-a1", 3)]
    process.serve(2 * RECENT_MAX)
    assert len(process.whole().recent) == RECENT_MAX


def test_it_comes_through_the_wire_as_it_was():
    process = Process()
    process.begin()
    process.serve(2)
    whole = process.whole()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=Delta) == whole


def test_a_row_has_the_figures_of_the_record_and_nothing_else_of_it():
    entries = (entry_of("r1", 1, kind="void", cost_nanousd=0), entry_of("r1", 2))
    record = record_of(
        "r1",
        entries=entries,
        attempts=2,
        first_byte_at_ms=NOON_MS + 310,
        decision={"limits": "not to be seen"},
        usage_raw='{"prompt": 1}',
        tags={"app": "x"},
        end_user="u\x00ser",
    )
    row = msgspec.to_builtins(record_row(principal_of(), record))
    assert row == {
        "request_id": "r1",
        "started_at": "2026-11-20T12:00:00.000Z",
        "ended_at": "2026-11-20T12:00:00.900Z",
        "team": {"id": "team000001", "name": "Team a"},
        "key": {"id": "key0000001", "name": "Key a1"},
        "secret_id": "key0000001",
        "endpoint": "/v1/responses",
        "stream": True,
        "model_requested": "gpt-4.1-mini",
        "model": "gpt-4.1-mini",
        "model_served": None,
        "upstream": "openai",
        "status": 200,
        "outcome": "completed",
        "error_code": None,
        "cache": "miss",
        "attempts": 2,
        "input_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 20,
        "reasoning_tokens": 7,
        "first_byte_ms": 310,
        "took_ms": 900,
        "cost_usd": "0.000061",
        "saved_usd": "0",
        "estimated": False,
        "unpriced": False,
        "tags": {"app": "x"},
        "end_user": "u�ser",
        "response_id": "resp_r1",
    }
    unpriced = record_of(entries=(entry_of("r2", cost_nanousd=None, kind="estimate"),))
    assert record_row(principal_of(), unpriced).cost_usd is None
    assert record_row(principal_of(), unpriced).estimated
