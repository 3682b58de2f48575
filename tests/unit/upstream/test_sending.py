"""Bodies that stream upward, on a transport that only records, and what becomes of the connection."""

from __future__ import annotations

import asyncio

import pytest

from app.core.errors import Headers
from app.core.exchange import ClientGone
from app.settings import Timeouts
from app.upstream.client import Answer, Client, ConnectionBroken
from app.upstream.connection import Connection
from app.upstream.sending import Upload
from tests.unit.upstream.test_client import OK, Pool, Transport

PIECE = b"x" * 1000


class Source:
    """A body whose pieces come when they are let go."""

    def __init__(self, *pieces: bytes | Exception, length: int | None = None) -> None:
        self.length = length
        self.asked = 0
        self.cancelled = 0
        self._pieces = [*pieces, b""]
        self._ready = asyncio.Semaphore(0)

    def let(self, count: int) -> None:
        for _ in range(count):
            self._ready.release()

    async def read(self) -> bytes:
        self.asked += 1
        try:
            await self._ready.acquire()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece


class Wire:
    def __init__(self, body: Source) -> None:
        self.pool = Pool()
        self.transport = Transport()
        self.connection = Connection(self.pool, asyncio.get_running_loop())
        self.connection.connection_made(self.transport)
        self.answer = Answer(self.connection)
        self.task = asyncio.ensure_future(self.connection.exchange(self.answer, b"HEAD", body, is_head=False))

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def answers(self, data: bytes) -> None:
        self.connection.data_received(data)
        await asyncio.wait_for(self.task, 30)


async def test_pieces_go_out_as_they_come_and_the_connection_is_kept():
    body = Source(PIECE, b"end", length=1003)
    wire = Wire(body)
    await wire.settle()
    assert (wire.transport.writes, body.asked) == ([b"HEAD"], 1)
    body.let(1)
    await wire.settle()
    assert wire.transport.writes == [b"HEAD", PIECE]
    body.let(2)
    await wire.settle()
    assert wire.transport.writes == [b"HEAD", PIECE, b"end"]
    await wire.answers(OK + b"content-length: 0\r\n\r\n")
    assert (wire.answer.status, wire.pool.released) == (200, 1)


async def test_without_a_length_the_pieces_are_chunks():
    body = Source(b"hello", b"you")
    wire = Wire(body)
    body.let(3)
    await wire.settle()
    assert b"".join(wire.transport.writes) == b"HEAD5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"
    await wire.answers(OK + b"content-length: 0\r\n\r\n")
    assert wire.pool.released == 1


async def test_nothing_is_asked_for_while_the_transport_is_paused():
    body = Source(PIECE, PIECE, length=2000)
    wire = Wire(body)
    body.let(3)
    wire.connection.pause_writing()
    await wire.settle()
    assert body.asked <= 1
    wire.connection.resume_writing()
    await wire.settle()
    assert b"".join(wire.transport.writes) == b"HEAD" + 2 * PIECE
    await wire.answers(OK + b"content-length: 0\r\n\r\n")


@pytest.mark.parametrize("paused", [False, True])
async def test_a_refusal_ends_the_upload_and_the_connection(paused):
    body = Source(PIECE, PIECE, length=2000)
    wire = Wire(body)
    body.let(1)
    await wire.settle()
    if paused:
        wire.connection.pause_writing()
    await wire.answers(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno")
    assert (wire.answer.status, await wire.answer.read_any()) == (413, b"no")
    await wire.settle()
    assert wire.transport.aborted
    assert wire.pool.released == 0
    assert b"".join(wire.transport.writes) == b"HEAD" + PIECE


async def test_an_upstream_that_dies_ends_the_upload():
    body = Source(PIECE, PIECE, length=2000)
    wire = Wire(body)
    body.let(1)
    await wire.settle()
    wire.connection.connection_lost(None)
    with pytest.raises(ConnectionBroken):
        await wire.task
    await wire.settle()
    assert body.cancelled == 1


@pytest.mark.parametrize("length", [None, 2000])
async def test_what_the_client_broke_off_is_never_whole(length):
    body = Source(PIECE, ClientGone(), length=length)
    wire = Wire(body)
    body.let(2)
    with pytest.raises(ClientGone):
        await wire.task
    assert wire.transport.aborted
    assert not wire.transport.writes[-1].endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("length", [999, 1001])
async def test_a_body_of_another_length_than_declared_is_never_whole(length):
    body = Source(PIECE, length=length)
    wire = Wire(body)
    body.let(2)
    with pytest.raises(ValueError, match="as long as it said"):
        await wire.task
    assert wire.transport.aborted
    assert sum(map(len, wire.transport.writes)) < 4 + length


async def test_a_cancelled_upload_stops_reading():
    body = Source(PIECE, length=1000)
    wire = Wire(body)
    await wire.settle()
    wire.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wire.task
    await wire.settle()
    assert (body.cancelled, wire.transport.aborted) == (1, True)


async def test_a_failure_that_nobody_waits_for_any_more_is_no_warning():
    body = Source(ClientGone(), length=1000)
    wire = Wire(body)
    await wire.settle()
    body.let(1)
    wire.connection.connection_lost(None)
    with pytest.raises((ConnectionBroken, ClientGone)):
        await wire.task


@pytest.mark.parametrize(("length", "line"), [(7, b"content-length: 7\r\n"), (None, b"transfer-encoding: chunked\r\n")])
async def test_the_head_says_how_the_body_ends(length, line):
    client = Client(
        host="u",
        port=80,
        tls=None,
        base_path="",
        connect_timeout_s=1,
        keepalive_timeout_s=1,
        connections_max=1,
    )
    headers: Headers = [(b"x-a", b"1")]
    assert line in client._head(b"POST", b"/files", headers, Source(length=length))


async def test_each_wait_of_an_upload_is_bounded_by_whose_it_is():
    watched: list[float] = []
    body = Source(PIECE, length=1000)
    upload = Upload(body, Timeouts(idle_s=5, first_byte_s=7), watched.append)
    body.let(2)
    assert await upload.read() == PIECE
    assert watched == [float("inf"), 5]
    assert not upload.ended
    assert await upload.read() == b""
    assert watched[2:] == [float("inf"), 7]
    assert upload.ended
