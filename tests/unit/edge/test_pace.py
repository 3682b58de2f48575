"""When an upload is too slow."""

from __future__ import annotations

from app.edge.pace import UPLOAD_BYTES_PER_S_MIN, UPLOAD_WINDOW_S, ReadPace, UploadPace

ENOUGH = int(UPLOAD_BYTES_PER_S_MIN * UPLOAD_WINDOW_S)


def test_less_than_the_least_in_a_window_is_too_slow():
    pace = UploadPace(100)
    pace.arrived(ENOUGH - 1)
    assert not pace.is_too_slow(100 + UPLOAD_WINDOW_S - 0.1, held_up=False)
    assert pace.is_too_slow(100 + UPLOAD_WINDOW_S, held_up=False)


def test_each_window_is_counted_by_itself():
    pace = UploadPace(0)
    pace.arrived(50 * ENOUGH)
    assert not pace.is_too_slow(UPLOAD_WINDOW_S, held_up=False)
    pace.arrived(ENOUGH - 1)
    assert pace.is_too_slow(2 * UPLOAD_WINDOW_S, held_up=False)


def test_a_client_that_is_not_read_is_not_to_blame():
    pace = UploadPace(0)
    assert not pace.is_too_slow(500, held_up=True)
    assert not pace.is_too_slow(500 + UPLOAD_WINDOW_S - 0.1, held_up=False)
    assert pace.is_too_slow(500 + UPLOAD_WINDOW_S, held_up=False)


def test_only_what_was_sent_is_a_readers_progress():
    pace = ReadPace()
    pace.begin(100)
    assert not pace.is_too_slow(101, 5000, 10)
    # More to read is no progress.
    assert not pace.is_too_slow(105, 6000, 10)
    assert pace.is_too_slow(111, 7000, 10)
    assert not pace.is_too_slow(112, 6999, 10)
    assert not pace.is_too_slow(121, 6999, 10)
    assert pace.is_too_slow(122, 6999, 10)
