"""Event boundaries and events, against slow readers that go byte by byte."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.sse import Event, EventReader, EventSplitter

RECORDINGS = Path(os.environ.get("HEADGATE_RECORDINGS", Path(__file__).resolve().parents[4] / "shared" / "recordings"))
LINE_ENDS = [b"\n", b"\r\n", b"\r"]


# The judges.


def lines_of(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Each line of ``data`` that has certainly ended, and where it ends with its line end."""
    start = at = 0
    while at < len(data):
        if data[at : at + 1] == b"\r" and at + 1 == len(data):
            return
        size = 2 if data[at : at + 2] == b"\r\n" else 1 if data[at : at + 1] in (b"\r", b"\n") else 0
        if size:
            yield data[start:at], at + size
            start = at + size
        at += size or 1


def boundaries_of(data: bytes) -> list[int]:
    return [0] + [end for line, end in lines_of(data) if not line]


def events_of(data: bytes) -> list[Event]:
    events = []
    values: list[bytes] = []
    name = b""
    # Without more to come, a CR at the end does end its line.
    closed = data + b"\n" if data.endswith(b"\r") else data
    for line, _ in lines_of(closed.removeprefix(b"\xef\xbb\xbf")):
        if not line:
            if values:
                events.append(Event(b"\n".join(values), name))
            values, name = [], b""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            values.append(value)
        elif field == b"event":
            name = value
    return events


PIECES = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n"])
    | st.sampled_from([b"data: x", b"data:y", b"data", b"event: e", b": ping", b"id: 1", b"da", b"ta: ", b" ", b":"])
    | st.sampled_from([b"x" * 30, b"\xef\xbb\xbf", b"\xff", b'data: {"a":1}\n\n', b"event: a\r\ndata: b\r\n\r\n"])
    | st.just(b"event: response.created\ndata: {}\n\n"),
    max_size=30,
)


def sliced(data: bytes, dice: random.Random) -> list[bytes]:
    largest = dice.choice([1, 2, 3, 7, 40, 1000])
    chunks = []
    at = 0
    while at < len(data):
        size = dice.randint(1, largest)
        chunks.append(data[at : at + size])
        at += size
    return chunks


# The splitter.


@settings(max_examples=200, deadline=None)
@given(PIECES, st.randoms(use_true_random=False))
def test_the_longest_prefix_that_ends_on_a_boundary_is_released_at_once(pieces, dice):
    data = b"".join(pieces)
    splitter = EventSplitter()
    came = released = b""
    for chunk in sliced(data, dice):
        came += chunk
        released += splitter.feed(chunk)
        assert released == came[: boundaries_of(came)[-1]]
        assert splitter.held == len(came) - len(released)
        assert splitter.aligned
    assert released + splitter.flush() == data
    assert splitter.held == 0
    assert splitter.aligned is (len(data) in boundaries_of(data) or len(data) in boundaries_of(data + b"x"))


@settings(max_examples=200, deadline=None)
@given(PIECES, st.randoms(use_true_random=False), st.integers(0, 60))
def test_too_much_held_passes_until_the_next_boundary(pieces, dice, hold_bytes_max):
    splitter = EventSplitter(hold_bytes_max)
    came = released = b""
    for chunk in sliced(b"".join(pieces), dice):
        came += chunk
        released += splitter.feed(chunk)
        assert splitter.held <= hold_bytes_max
        assert came == released + bytes(splitter._held)
        if splitter.aligned:
            assert len(released) in boundaries_of(came + b"x")
        else:
            # Only while nothing held could have ended on a boundary.
            assert len(released) > boundaries_of(came)[-1]
    assert released + splitter.flush() == came


@settings(max_examples=150, deadline=None)
@given(PIECES, st.randoms(use_true_random=False))
def test_no_byte_is_lost_or_moved_whatever_is_asked(pieces, dice):
    splitter = EventSplitter(dice.choice([5, 100]))
    came = released = b""
    for chunk in sliced(b"".join(pieces), dice):
        came += chunk
        released += splitter.feed(chunk)
        if dice.random() < 0.2:
            line = splitter.release_complete_line()
            assert line == b"" or line.endswith((b"\n", b"\r"))
            assert splitter.held == 0 or not came.endswith((b"\n", b"\r"))
            released += line
        if splitter.aligned:
            assert len(released) in boundaries_of(came + b"x") + boundaries_of(came + b"\n")
    assert released + splitter.flush() == came


@pytest.mark.parametrize(
    ("chunks", "outputs"),
    [
        ([b"data: 1\n\n"], [b"data: 1\n\n"]),
        ([b"data: 1\n", b"\n"], [b"", b"data: 1\n\n"]),
        ([b"data: 1\n\ndata: 2", b"\n\n"], [b"data: 1\n\n", b"data: 2\n\n"]),
        ([b"data: 1\r\n\r", b"\ndata: 2"], [b"", b"data: 1\r\n\r\n"]),
        ([b"data: 1\r\n", b"\r\n"], [b"", b"data: 1\r\n\r\n"]),
        ([b"data: 1\r\r", b"data: 2\r\r"], [b"", b"data: 1\r\r"]),
        ([b"data: 1\r\r", b"\ndata: 2"], [b"", b"data: 1\r\r\n"]),
        ([b"data: 1\n\r", b"\n"], [b"", b"data: 1\n\r\n"]),
        ([b"data: 1\n\r", b"x"], [b"", b"data: 1\n\r"]),
        ([b"data: 1\r\n\n"], [b"data: 1\r\n\n"]),
        ([b"data: 1\n\n", b"\n"], [b"data: 1\n\n", b"\n"]),
        ([b"\n", b"data: 1"], [b"\n", b""]),
        ([b": ping\n\n"], [b": ping\n\n"]),
    ],
)
def test_boundaries_across_chunks(chunks, outputs):
    splitter = EventSplitter()
    assert [splitter.feed(chunk) for chunk in chunks] == outputs


def test_after_a_silence_a_complete_line_goes_out_and_the_next_boundary_aligns_again():
    splitter = EventSplitter()
    assert splitter.feed(b"event: x\nda") == b""
    assert splitter.release_complete_line() == b""
    assert splitter.feed(b"ta: 1\n") == b""
    assert splitter.release_complete_line() == b"event: x\ndata: 1\n"
    assert not splitter.aligned
    assert splitter.feed(b"data: 2") == b""
    assert splitter.feed(b"\n\n") == b"data: 2\n\n"
    assert splitter.aligned


def test_a_line_end_cut_in_two_by_a_silence_is_no_empty_line():
    splitter = EventSplitter()
    splitter.feed(b"data: 1\r")
    assert splitter.release_complete_line() == b"data: 1\r"
    assert splitter.feed(b"\ndata: 2") == b""
    assert splitter.feed(b"\r\n\r\n") == b"\ndata: 2\r\n\r\n"


def test_many_small_pieces_are_split_in_linear_time():
    stream = (b"data: " + b"x" * 200_000 + b"\n\n") * 5
    splitter = EventSplitter()
    started = time.process_time()
    released = b"".join(splitter.feed(stream[at : at + 7]) for at in range(0, len(stream), 7))
    assert released == stream
    assert time.process_time() - started < 2


# The reader.


@settings(max_examples=250, deadline=None)
@given(PIECES, st.randoms(use_true_random=False))
def test_events_are_read_as_the_slow_reader_reads_them(pieces, dice):
    data = b"".join(pieces)
    reader = EventReader()
    events = [event for chunk in sliced(data, dice) for event in reader.feed(chunk)]
    assert events == events_of(data)
    assert not reader.overflowed


@settings(max_examples=200, deadline=None)
@given(PIECES, st.randoms(use_true_random=False))
def test_events_are_read_from_what_the_splitter_releases(pieces, dice):
    data = b"".join(pieces)
    splitter, reader = EventSplitter(dice.choice([3, 50, 1000])), EventReader()
    events = [event for chunk in sliced(data, dice) for event in reader.feed(splitter.feed(chunk))]
    events += reader.feed(splitter.flush())
    assert events == events_of(data)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"event: a\ndata: 1\n\n", [(b"1", b"a")]),
        (b"data: 1\nevent: a\n\n", [(b"1", b"a")]),
        (b"data: 1\ndata: 2\n\n", [(b"1\n2", b"")]),
        (b"data:1\n\ndata:  1\n\n", [(b"1", b""), (b" 1", b"")]),
        (b"data\n\ndata:\n\ndata\ndata\n\n", [(b"", b""), (b"", b""), (b"\n", b"")]),
        (b": comment\n\n: data: x\ndata: 1\n\n", [(b"1", b"")]),
        (b"event: a\n\ndata: 1\n\n", [(b"1", b"")]),
        (b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n", [(b"1", b"")]),
        (b"id: 5\nretry: 10\ndata: [DONE]\n\n", [(b"[DONE]", b"")]),
        (b"data: 1\r\n\r\ndata: 2\r\rdata: 3\n\n", [(b"1", b""), (b"2", b""), (b"3", b"")]),
        (b"data: not ended\n", []),
        (b'data: {"x":"data: {}\\n\\n"}\n\n', [(b'{"x":"data: {}\\n\\n"}', b"")]),
    ],
)
def test_fields_and_line_ends(stream, events):
    expected = [Event(*event) for event in events]
    assert EventReader().feed(stream) == expected
    reader = EventReader()
    assert [event for byte in stream for event in reader.feed(bytes([byte]))] == expected


def test_an_event_that_is_too_large_is_skipped_and_freed():
    reader = EventReader(event_bytes_max=1000)
    assert reader.feed(b"data: first\n\ndata: ") == [Event(b"first")]
    largest = 0
    for _ in range(100):
        assert reader.feed(b"x" * 100) == []
        largest = max(largest, reader.buffered_bytes)
    assert largest <= 1000
    assert reader.buffered_bytes == 0
    assert reader.overflowed
    assert reader.feed(b"\ndata: rest of it\n") == []
    assert reader.feed(b"\ndata: next\n\n") == [Event(b"next")]


@pytest.mark.parametrize("line", [b"data: xxxxxxxx\n", b"data:\n", b"event: xxxxxxxx\n"])
def test_many_lines_count_as_well(line):
    reader = EventReader(event_bytes_max=1000)
    for _ in range(200):
        reader.feed(line)
        assert reader.buffered_bytes <= 1000
    assert reader.overflowed is not line.startswith(b"event")
    assert reader.feed(b"\ndata: next\n\n") == [Event(b"next")]


def test_an_event_too_large_in_one_block_is_skipped():
    reader = EventReader(event_bytes_max=1000)
    big = b"data: " + b"x" * 2000 + b"\n\n"
    assert reader.feed(big + b"data: next\n\n") == [Event(b"next")]
    assert reader.overflowed


def test_the_caller_may_end_the_buffering():
    reader = EventReader()
    reader.feed(b"data: 1\ndata: 2")
    assert reader.buffered_bytes > 8
    reader.overflow()
    assert (reader.buffered_bytes, reader.overflowed) == (0, True)
    assert reader.feed(b"\n\ndata: 3\n\n") == [Event(b"3")]
    calm = EventReader()
    calm.overflow()
    assert not calm.overflowed
    assert calm.feed(b"data: 1\n\n") == [Event(b"1")]


def test_a_large_event_in_small_pieces_is_read_in_linear_time():
    stream = b"event: image\ndata: " + b"x" * 5_000_000 + b"\n\n"
    reader = EventReader()
    started = time.process_time()
    events = [event for at in range(0, len(stream), 37) for event in reader.feed(stream[at : at + 37])]
    assert [(event.event, len(event.data)) for event in events] == [(b"image", 5_000_000)]
    assert time.process_time() - started < 2


# Real streams.


def recordings() -> list[Path]:
    return sorted(RECORDINGS.glob("*.sse"))


@pytest.mark.skipif(not recordings(), reason="the recordings of real streams are not here: set HEADGATE_RECORDINGS")
@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
def test_real_streams_pass_unchanged_and_are_read_whole(line_end, comments):
    dice = random.Random(7)
    for path in recordings():
        lines = path.read_bytes().split(b"\n")
        if comments:
            lines = [line for each in lines for line in ([each, b": keepalive", b""] if not each else [each])]
        stream = line_end.join(lines)
        splitter, reader = EventSplitter(), EventReader()
        released: list[bytes] = []
        events: list[Event] = []
        for chunk in sliced(stream, dice):
            released.append(splitter.feed(chunk))
            events += reader.feed(released[-1])
            assert splitter.aligned
            assert not released[-1] or released[-1].endswith(line_end * 2) or not released[-1].strip()
        released.append(splitter.flush())
        events += reader.feed(released[-1])
        assert b"".join(released) == stream
        assert len(stream) > 100_000 or events == events_of(stream)
        documents = [json.loads(event.data) for event in events if event.data != b"[DONE]"]
        # One of the servers names no events.
        assert all(event.event in (b"", json.loads(event.data)["type"].encode()) for event in events[: len(documents)])
        assert len(documents) > 5
