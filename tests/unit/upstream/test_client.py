"""What is taken for an answer, and what becomes of the connection, on a transport that only records."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstream.client import Answer, BadAnswer, Client, ConnectionBroken, NotConnected
from app.upstream.connection import (
    HEAD_BYTES_MAX,
    HEADER_LINE_BYTES_MAX,
    HEADERS_MAX,
    INFORMATIONAL_MAX,
    UNREAD_BYTES_HIGH,
    Connection,
)
from app.upstream.sending import PART_BYTES

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.aborted = False
        self.paused = False
        self.pending = 0

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return self.pending


class Pool:
    def __init__(self) -> None:
        self.released = 0
        self.forgotten = 0

    def release(self, connection: Connection) -> None:
        self.released += 1

    def forget(self, connection: Connection) -> None:
        self.forgotten += 1


class Wire:
    """A connection with one request on it, and what it is given to read."""

    def __init__(self, *, is_head: bool = False, body: bytes | None = None) -> None:
        self.pool = Pool()
        self.transport = Transport()
        self.connection = Connection(self.pool, asyncio.get_running_loop())
        self.connection.connection_made(self.transport)
        self._is_head = is_head
        self._body = body

    async def answer(self, *pieces: bytes, end: str = "") -> Answer:
        task = asyncio.ensure_future(self.exchange())
        await asyncio.sleep(0)
        for piece in pieces:
            self.connection.data_received(piece)
        self.end(end)
        return await task

    async def exchange(self) -> Answer:
        answer = Answer(self.connection)
        await self.connection.exchange(answer, b"REQUEST", self._body, is_head=self._is_head)
        return answer

    def end(self, end: str) -> None:
        if end == "eof":
            self.connection.eof_received()
        if end:
            self.connection.connection_lost(None)

    @property
    def kept(self) -> bool:
        assert self.pool.released + self.pool.forgotten <= 1 or self.transport.aborted
        return self.pool.released == 1 and not self.transport.aborted


async def body_of(answer: Answer) -> bytes:
    body = b""
    while piece := await answer.read_any():
        body += piece
    assert await answer.read_any() == b""
    return body


# What an answer is.


async def test_a_whole_answer_in_one_piece():
    wire = Wire()
    answer = await wire.answer(
        OK + b"Content-Type: Application/JSON; charset=utf-8\r\nX-A:  1 \t\r\nx-a: 2\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert answer.status == 200
    assert answer.headers == [
        (b"content-type", b"Application/JSON; charset=utf-8"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"content-length", b"2"),
    ]
    assert answer.content_type == "application/json"
    assert answer.content_encoding == ""
    assert wire.kept
    assert await body_of(answer) == b"{}"
    answer.close()
    assert wire.kept


async def test_absent_types_are_empty_and_two_encodings_are_seen():
    answer = await Wire().answer(OK + b"content-length: 0\r\n\r\n")
    assert (answer.content_type, answer.content_encoding) == ("", "")
    answer = await Wire().answer(OK + b"content-encoding: Identity\r\ncontent-length: 0\r\n\r\n")
    assert answer.content_encoding == "identity"
    answer = await Wire().answer(
        OK + b"content-encoding: identity\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n"
    )
    assert answer.content_encoding == "identity, gzip"


@pytest.mark.parametrize("status", [204, 304])
async def test_no_body_where_http_says_so(status):
    wire = Wire()
    answer = await wire.answer(b"HTTP/1.1 %d Empty\r\ncontent-length: 9\r\n\r\n" % status)
    assert await body_of(answer) == b""
    assert wire.kept


@pytest.mark.parametrize("framing", [b"content-length: 9", b"transfer-encoding: chunked", b"x: y"])
async def test_an_answer_to_head_has_no_body(framing):
    wire = Wire(is_head=True)
    answer = await wire.answer(OK + framing + b"\r\n\r\n")
    assert await body_of(answer) == b""
    assert wire.kept


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
        b'3;name=value;other="a;b\\"c"\r\nabc\r\n04\r\ndefg\r\n000;last\r\n\r\n',
        b"7\r\nabcdefg\r\n0\r\nX-Trailer: 1\r\nServer-Timing: 2\r\n\r\n",
    ],
)
async def test_chunks_extensions_and_trailers(body):
    wire = Wire()
    answer = await wire.answer(CHUNKED + body)
    assert await body_of(answer) == b"abcdefg"
    assert answer.headers == [(b"transfer-encoding", b"chunked")]
    assert wire.kept


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"fffffffffffffffff\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\ncontent-length: 3\r\n\r\n",
        b"1;" + b"x" * UNREAD_BYTES_HIGH,
        b"0\r\nx: " + b"x" * UNREAD_BYTES_HIGH,
    ],
)
async def test_a_bad_chunk_breaks_the_body(body):
    wire = Wire()
    answer = await wire.answer(CHUNKED + b"3\r\nabc\r\n")
    assert await answer.read_any() == b"abc"
    wire.connection.data_received(body)
    with pytest.raises(ConnectionBroken):
        await body_of(answer)
    with pytest.raises(ConnectionBroken):
        await answer.read_any()
    assert wire.transport.aborted
    assert not wire.kept


async def test_a_body_with_no_length_ends_with_the_connection():
    wire = Wire()
    answer = await wire.answer(OK + b"\r\nabc", b"def", end="eof")
    assert await body_of(answer) == b"abcdef"
    assert not wire.kept
    assert wire.pool.forgotten == 1


async def test_a_body_with_no_length_that_is_cut_is_broken():
    answer = await Wire().answer(OK + b"\r\nabc", end="lost")
    assert await answer.read_any() == b"abc"
    with pytest.raises(ConnectionBroken):
        await answer.read_any()


@pytest.mark.parametrize("end", ["eof", "lost"])
@pytest.mark.parametrize(
    "head", [OK + b"content-length: 9\r\n\r\nabc", CHUNKED + b"9\r\nabc", CHUNKED + b"3\r\nabc\r\n"]
)
async def test_what_came_is_read_before_the_break_is_told(head, end):
    wire = Wire()
    answer = await wire.answer(head, end=end)
    assert await answer.read_any() == b"abc"
    with pytest.raises(ConnectionBroken):
        await answer.read_any()
    assert wire.pool.forgotten == 1


@pytest.mark.parametrize("start", [b"", b"HTTP", OK, OK + b"content-length: 3\r\n"])
@pytest.mark.parametrize("end", ["eof", "lost"])
async def test_a_connection_lost_before_the_head_is_broken(start, end):
    wire = Wire()
    with pytest.raises(ConnectionBroken):
        await wire.answer(start, end=end) if start else await wire.answer(end=end)
    assert wire.pool.forgotten == 1


async def test_informational_answers_are_skipped():
    wire = Wire()
    answer = await wire.answer(
        b"HTTP/1.1 100 Continue\r\n\r\n" * (INFORMATIONAL_MAX - 1) + b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n",
        b"\r\n" + OK + b"content-length: 2\r\n",
        b"\r\nab",
    )
    assert answer.headers == [(b"content-length", b"2")]
    assert await body_of(answer) == b"ab"
    assert wire.kept


async def test_each_request_may_have_its_own_informational_answers():
    wire = Wire()
    for _ in range(3):
        await wire.answer(b"HTTP/1.1 100 Continue\r\n\r\n" * INFORMATIONAL_MAX + OK + b"content-length: 0\r\n\r\n")
    assert wire.pool.released == 3


BAD_HEADS = {
    "another protocol": b"SSH-2.0-OpenSSH\r\n",
    "the beginning of another": b"HTTX",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "an empty line first": b"\r\n" + OK + b"\r\n",
    "a status of two digits": b"HTTP/1.1 99 No\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 No\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 No\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "bare LF, whole": b"HTTP/1.1 200 OK\nx: y\n\n",
    "bare LF in a header": OK + b"x: y\nz: 1\r\n\r\n",
    "bare CR in a header": OK + b"x: y\rz: 1\r\n\r\n",
    "a folded header": OK + b"x: y\r\n z\r\ncontent-length: 0\r\n\r\n",
    "NUL": OK + b"x: y\0z\r\n\r\n",
    "a control character": OK + b"x: y\x01z\r\n\r\n",
    "a space before the colon": OK + b"x : y\r\n\r\n",
    "no name": OK + b": y\r\n\r\n",
    "no colon": OK + b"xy\r\n\r\n",
    "length and chunks": OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunks and length": OK + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
    "two lengths": OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\n",
    "a list of lengths": OK + b"content-length: 3, 4\r\n\r\n",
    "no length in content-length": OK + b"content-length: \r\n\r\n",
    "a signed length": OK + b"content-length: +3\r\n\r\n",
    "a huge length": OK + b"content-length: 99999999999999999999\r\n\r\n",
    "a coding over chunks": OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
    "chunks twice": OK + b"transfer-encoding: chunked, chunked\r\n\r\n",
    "chunks in two headers": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "another coding": OK + b"transfer-encoding: xchunked\r\n\r\n",
    "no coding": OK + b"transfer-encoding:\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "switching to nothing": b"HTTP/1.1 101 Switching\r\n\r\n",
    "too many informational": b"HTTP/1.1 100 Continue\r\n\r\n" * (INFORMATIONAL_MAX + 1),
    "a head too long": OK + b"x: %s\r\n" % (b"y" * 900) * 73 + b"\r\n",
    "a head without end": OK + b"x: %s\r\n" % (b"y" * 900) * 73,
    "a line too long": OK + b"x: %s\r\n\r\n" % (b"y" * HEADER_LINE_BYTES_MAX),
    "too many headers": OK + b"x: y\r\n" * (HEADERS_MAX + 1) + b"\r\n",
}


@pytest.mark.parametrize("piece_bytes", [1_000_000, 1])
@pytest.mark.parametrize("head", BAD_HEADS.values(), ids=BAD_HEADS)
async def test_a_bad_head_is_a_bad_answer(head, piece_bytes):
    wire = Wire()
    with pytest.raises(BadAnswer):
        await wire.answer(*[head[at : at + piece_bytes] for at in range(0, len(head), piece_bytes)])
    assert wire.transport.aborted
    assert wire.pool.forgotten == 1


async def test_a_head_at_its_limits_is_read():
    fields = [b"x: %s\r\n" % (b"y" * (HEADER_LINE_BYTES_MAX - 3))] + [b"x: y\r\n"] * (HEADERS_MAX - 2)
    head = OK + b"".join(fields) + b"content-length: 0\r\n\r\n"
    assert len(head) < HEAD_BYTES_MAX
    answer = await Wire().answer(head)
    assert len(answer.headers) == HEADERS_MAX


async def test_bytes_beyond_ascii_stay_as_they_are():
    answer = await Wire().answer(b"HTTP/1.1 200 \xc3\xa9\r\nx-\x7e: \xff\xc3\xa9\r\ncontent-length: 0\r\n\r\n")
    assert answer.headers[0] == (b"x-\x7e", b"\xff\xc3\xa9")


# What becomes of the connection.


@pytest.mark.parametrize(
    "head",
    [
        OK + b"connection: close\r\ncontent-length: 1\r\n\r\na",
        OK + b"connection: foo, CLOSE\r\ncontent-length: 1\r\n\r\na",
        OK + b"connection: foo\r\nconnection: close\r\ncontent-length: 1\r\n\r\na",
        OK + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na",
        OK + b"content-length: 1\r\n\r\nab",
        OK + b"content-length: 1\r\n\r\na" + OK + b"content-length: 1\r\n\r\nb",
        CHUNKED + b"1\r\na\r\n0\r\n\r\n" + OK + b"content-length: 1\r\nx: y\r\n\r\nb",
        CHUNKED + b"1\r\na\r\n0\r\n\r\nrubbish",
    ],
)
async def test_what_may_not_be_used_again_is_closed(head):
    wire = Wire()
    answer = await wire.answer(head)
    assert await body_of(answer) == b"a"
    assert (b"x", b"y") not in answer.headers
    assert wire.transport.aborted
    assert (wire.pool.released, wire.pool.forgotten) == (0, 1)


async def test_no_request_goes_after_one_that_is_not_all_out():
    wire = Wire()
    wire.transport.pending = 1
    answer = await wire.answer(OK + b"content-length: 1\r\n\r\na")
    assert await body_of(answer) == b"a"
    assert wire.transport.aborted


@pytest.mark.parametrize("event", ["data", "eof", "lost"])
async def test_an_idle_connection_that_stirs_is_forgotten_at_once(event):
    wire = Wire()
    await wire.answer(OK + b"content-length: 0\r\n\r\n")
    if event == "data":
        wire.connection.data_received(b"\r\n")
    else:
        wire.end(event)
    assert wire.connection.closed
    assert wire.transport.aborted
    assert wire.pool.forgotten == 1
    with pytest.raises(NotConnected):
        await wire.answer()
    assert wire.transport.writes == [b"REQUEST"]


async def test_closing_an_unfinished_answer_closes_its_connection():
    wire = Wire()
    answer = await wire.answer(OK + b"content-length: 9\r\n\r\nabc")
    answer.close()
    answer.close()
    assert wire.transport.aborted
    assert wire.pool.forgotten == 1
    wire.connection.data_received(b"defghi")
    assert await answer.read_any() == b"abc"
    with pytest.raises(ConnectionBroken):
        await answer.read_any()


async def test_a_cancelled_wait_for_the_head_closes_the_connection():
    wire = Wire()
    task = asyncio.ensure_future(wire.answer())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)


async def test_a_head_that_comes_with_the_cancellation_closes_nothing_twice():
    wire = Wire()
    task = asyncio.ensure_future(wire.exchange())
    await asyncio.sleep(0)
    wire.connection.data_received(OK + b"content-length: 3\r\n\r\n")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.transport.aborted
    assert wire.pool.forgotten == 1


async def test_a_whole_answer_that_comes_with_the_cancellation_keeps_the_connection():
    wire = Wire()
    task = asyncio.ensure_future(wire.exchange())
    await asyncio.sleep(0)
    wire.connection.data_received(OK + b"content-length: 0\r\n\r\n")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.kept


async def test_a_cancelled_read_loses_nothing():
    wire = Wire()
    answer = await wire.answer(OK + b"content-length: 6\r\n\r\n")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await answer.read_any()
    reading = asyncio.ensure_future(answer.read_any())
    await asyncio.sleep(0)
    wire.connection.data_received(b"abc")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    wire.connection.data_received(b"def")
    assert await body_of(answer) == b"abcdef"
    assert wire.kept


# Flow control.


async def test_reading_pauses_while_much_is_waiting():
    wire = Wire()
    answer = await wire.answer(OK + b"content-length: 999999\r\n\r\n", b"x" * UNREAD_BYTES_HIGH)
    assert not wire.transport.paused
    wire.connection.data_received(b"x")
    assert wire.transport.paused
    assert len(await answer.read_any()) == UNREAD_BYTES_HIGH + 1
    assert not wire.transport.paused


async def test_reading_goes_on_once_the_end_has_come():
    wire = Wire()
    answer = await wire.answer(CHUNKED, b"11000\r\n" + b"x" * 0x11000 + b"\r\n")
    assert wire.transport.paused
    # What the event loop had read already.
    wire.connection.data_received(b"0\r\n\r\n")
    assert not wire.transport.paused
    assert wire.kept
    assert len(await body_of(answer)) == 0x11000


async def test_a_body_up_to_the_limit_goes_out_in_one_write_with_its_head():
    for body in (b"", b"x" * PART_BYTES):
        wire = Wire(body=body)
        await wire.answer(OK + b"content-length: 0\r\n\r\n")
        assert wire.transport.writes == [b"REQUEST" + body]


async def test_a_large_body_waits_for_the_transport():
    wire = Wire(body=b"x" * (3 * PART_BYTES + 1))
    wire.connection.pause_writing()
    task = asyncio.ensure_future(wire.answer())
    await asyncio.sleep(0.01)
    assert [len(data) for data in wire.transport.writes] == [7 + PART_BYTES]
    wire.connection.resume_writing()
    wire.connection.pause_writing()
    await asyncio.sleep(0.01)
    assert len(wire.transport.writes) == 1
    wire.connection.resume_writing()
    await asyncio.sleep(0.01)
    assert [len(data) for data in wire.transport.writes] == [7 + PART_BYTES, PART_BYTES, PART_BYTES, 1]
    wire.connection.data_received(OK + b"content-length: 0\r\n\r\n")
    await task
    assert wire.kept


@pytest.mark.parametrize("rest", [b"", b"abc"])
async def test_a_refusal_stops_a_large_body(rest):
    wire = Wire(body=b"x" * (3 * PART_BYTES))
    wire.connection.pause_writing()
    answer = await wire.answer(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\n" + rest)
    assert answer.status == 413
    assert len(wire.transport.writes) == 1
    if not rest:
        wire.connection.data_received(b"abc")
    assert await body_of(answer) == b"abc"
    assert wire.transport.aborted
    assert wire.pool.released == 0


async def test_an_early_answer_that_is_no_refusal_lets_the_body_finish():
    wire = Wire(body=b"x" * (2 * PART_BYTES))
    wire.connection.pause_writing()
    task = asyncio.ensure_future(wire.answer(OK + b"content-length: 3\r\n\r\n", b"a"))
    await asyncio.sleep(0.01)
    assert not task.done()
    wire.connection.resume_writing()
    answer = await task
    assert len(wire.transport.writes) == 2
    wire.connection.data_received(b"bc")
    assert await body_of(answer) == b"abc"
    assert wire.kept


async def test_a_connection_lost_while_sending_is_broken():
    wire = Wire(body=b"x" * (3 * PART_BYTES))
    wire.connection.pause_writing()
    with pytest.raises(ConnectionBroken):
        await wire.answer(end="lost")


# Any slicing.

PARTS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@st.composite
def wires(draw):
    """An answer's bytes, its body, whether the connection's end ends it, and the pieces in which it comes."""
    parts = draw(PARTS)
    body = b"".join(parts)
    framing = draw(st.sampled_from(["length", "chunks", "close"]))
    start = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 2)) + OK + b"x-a: b\r\n"
    if framing == "length":
        data = start + b"content-length: %d\r\n\r\n" % len(body) + body
    elif framing == "close":
        data = start + b"\r\n" + body
    else:
        extension = draw(st.sampled_from([b"", b";a", b';a="b\\"c"']))
        trailers = draw(st.sampled_from([b"", b"x-b: c\r\n", b"x-b: c\r\nx-d:\r\n"]))
        data = start + b"transfer-encoding: chunked\r\n\r\n"
        data += b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
        data += b"0\r\n" + trailers + b"\r\n"
    cuts = sorted(draw(st.sets(st.integers(1, len(data) - 1), max_size=20)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return body, framing == "close", pieces


@given(wires())
def test_an_answer_is_the_same_however_it_is_sliced(case):
    body, by_close, pieces = case

    async def scenario() -> None:
        wire = Wire()
        answer = await wire.answer(*pieces, end="eof" if by_close else "")
        assert answer.status == 200
        assert answer.headers[0] == (b"x-a", b"b")
        assert len(answer.headers) == (1 if by_close else 2)
        assert await body_of(answer) == body
        assert wire.kept is not by_close

    asyncio.run(scenario())


@given(wires(), st.integers(0, 1_000_000))
def test_an_answer_that_is_cut_anywhere_is_never_whole(case, at):
    body, _, pieces = case
    data = b"".join(pieces)
    data = data[: at % len(data)]

    async def scenario() -> None:
        wire = Wire()
        with pytest.raises(ConnectionBroken):
            got = await body_of(await wire.answer(*[data] if data else [], end="lost"))
            assert got != body
        assert not wire.kept or not wire.pool.released

    asyncio.run(scenario())


@given(st.binary(max_size=200), st.integers(0, 200))
def test_rubbish_is_refused_and_never_crashes(rubbish, at):
    data = OK[:at] + rubbish

    async def scenario() -> None:
        wire = Wire()
        with pytest.raises((BadAnswer, ConnectionBroken)):
            await body_of(await wire.answer(*[data] if data else [], end="lost"))

    asyncio.run(scenario())


# What is sent.


def client(**settings) -> Client:
    return Client(
        **{
            "host": "api.example",
            "port": 443,
            "tls": None,
            "base_path": "/v1",
            "connect_timeout_s": 1,
            "keepalive_timeout_s": 4,
            "connections_max": 8,
            **settings,
        }
    )


def head_of(headers=(), body=None, *, method=b"POST", target=b"/responses", **settings) -> bytes:
    return client(**settings)._head(method, target, list(headers), body)


def test_nothing_is_added_but_host_and_length():
    assert head_of([(b"x-a", b"1"), (b"x-a", b"2")], b"abc") == (
        b"POST /v1/responses HTTP/1.1\r\nhost: api.example:443\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 3\r\n\r\n"
    )
    assert head_of(method=b"GET", port=80) == b"GET /v1/responses HTTP/1.1\r\nhost: api.example\r\n\r\n"
    assert b"content-length: 0\r\n" in head_of(body=b"")
    assert b"\r\nhost: [::1]:8080\r\n" in head_of(host="::1", port=8080)


def test_the_target_is_not_quoted_again():
    assert head_of(target=b"/a%7E%2F..//b?q=%20+&x[]=1").startswith(b"POST /v1/a%7E%2F..//b?q=%20+&x[]=1 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nb: c"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x\r\ny", b"a"),
        (b"host", b"other"),
        (b"content-length", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
    ],
)
def test_a_header_that_could_split_a_request_is_refused(header):
    with pytest.raises(ValueError, match="header"):
        head_of([header])


@pytest.mark.parametrize(
    "line", [{"target": b"/a b"}, {"target": b"/\xe9"}, {"method": b"GET "}, {"method": b""}, {"target": b"\t"}]
)
def test_a_request_line_that_is_none_is_refused(line):
    with pytest.raises(ValueError, match="request line"):
        head_of(**line)


def test_a_repr_tells_the_truth_and_no_secret():
    assert repr(client()) == "Client(in_use=0, idle=0, max=8, closed=False)"
