"""The board: what is in flight, bounded and cheap."""

from __future__ import annotations

import timeit

from app.telemetry.live.board import FINISHED_KEPT, LiveBoard
from tests.contract.store.samples import record_of
from tests.unit.telemetry.live.stage import FakeFlight, principal_of

PER_REQUEST_S_MAX = 3e-6
"""Measured: 0.3 µs. A busy machine may take longer."""


def test_whoever_has_left_is_not_in_flight_however_often_it_leaves():
    board = LiveBoard()
    board.begin("r1", FakeFlight(principal_of(), None))
    board.begin("r2", FakeFlight(principal_of(), None))
    board.leave("r1")
    board.leave("r1")
    assert list(board.flights) == ["r2"]
    assert board.ended == 0


def test_it_keeps_the_last_and_counts_all():
    board = LiveBoard()
    for _ in range(FINISHED_KEPT + 7):
        board.finish(principal_of(), record_of())
    assert board.ended == FINISHED_KEPT + 7
    assert len(board.finished) == FINISHED_KEPT
    last = board.finished[-1]
    board.keep(3)
    assert board.finished[-1] is last
    assert len(board.finished) == 3


def test_a_request_costs_next_to_nothing_while_nobody_looks():
    board, flight, principal, record = LiveBoard(), FakeFlight(principal_of(), None), principal_of(), record_of()
    ids = [f"request {number}" for number in range(1000)]

    def serve() -> None:
        for request_id in ids:
            board.begin(request_id, flight)
            board.finish(principal, record)
            board.leave(request_id)

    assert min(timeit.repeat(serve, number=20, repeat=5)) / 20 / len(ids) < PER_REQUEST_S_MAX
