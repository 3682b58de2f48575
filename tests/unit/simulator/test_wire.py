from __future__ import annotations

import zlib

import pytest

from app.simulator.events import DONE, KEEP_ALIVE, Event
from app.simulator.steering import Steering
from app.simulator.wire import Wire, frame

EVENTS = [Event(b"a.b", b'{"x":1}', 0, 0), Event(b"", b'{"y":2}', 0, 0), KEEP_ALIVE, DONE]
PLAIN = b'event: a.b\ndata: {"x":1}\n\ndata: {"y":2}\n\n: keep-alive\n\ndata: [DONE]\n\n'


def writes(**steering):
    wire = Wire(Steering(**steering))
    found = [write for event in EVENTS for write in wire.feed(event)]
    return found + wire.flush()


def test_an_event_is_written_as_the_provider_writes_it():
    assert b"".join(map(frame, EVENTS)) == PLAIN
    assert writes() == [frame(event) for event in EVENTS]


def test_line_ends_may_be_others():
    assert b"".join(writes(framing="crlf")) == PLAIN.replace(b"\n", b"\r\n")
    assert b"".join(writes(framing="cr")) == PLAIN.replace(b"\n", b"\r")


def test_lines_may_come_one_by_one():
    found = writes(framing="line")
    assert b"".join(found) == PLAIN
    assert all(write.count(b"\n") == 1 for write in found)


def test_the_blank_line_may_come_apart():
    found = writes(framing="split")
    assert b"".join(found) == PLAIN
    assert found[1::2] == [b"\n"] * 4


def test_everything_may_come_at_once():
    assert writes(framing="one") == [PLAIN]


@pytest.mark.parametrize("size", [1, 2, 7, 37, 1000])
def test_the_whole_may_be_sliced(size):
    found = writes(chunk=size)
    assert b"".join(found) == PLAIN
    assert all(len(write) == size for write in found[:-1])
    assert len(found[-1]) <= size


def test_slices_and_other_line_ends_go_together():
    found = writes(chunk=1, framing="crlf", bom=True)
    assert b"".join(found) == b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n")


def test_event_lines_may_be_left_out():
    assert b"".join(writes(no_event_lines=True)) == PLAIN.replace(b"event: a.b\n", b"")


@pytest.mark.parametrize("more", [{}, {"chunk": 5}, {"framing": "one"}, {"framing": "line"}])
def test_the_body_may_be_compressed(more):
    found = writes(content_encoding="gzip", **more)
    assert zlib.decompress(b"".join(found), 31) == PLAIN


def test_compressed_events_arrive_one_by_one():
    wire = Wire(Steering(content_encoding="gzip"))
    inflate = zlib.decompressobj(31)
    for event in EVENTS:
        assert inflate.decompress(b"".join(wire.feed(event))) == frame(event)


def test_only_what_is_cut_waits_between_writes():
    assert Wire(Steering()).between_s == 0
    assert Wire(Steering(chunk=5)).between_s == 0.001
    assert Wire(Steering(framing="line", chunk_ms=20)).between_s == 0.02
