"""Messages of a WebSocket over a stream that the test plays."""

from __future__ import annotations

import asyncio

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from app.core.errors import Overloaded
from app.edge.body import BodyBudget
from app.upstream.frames import NO_STATUS, FrameStream


class Stream:
    """Whatever is put in is read; what is written is kept."""

    def __init__(self) -> None:
        self.data: asyncio.Queue[bytes] = asyncio.Queue()
        self.written = b""
        self.write_paused = self.gone = False
        self.resumed = asyncio.Event()

    async def read(self) -> bytes:
        return b"" if self.gone else await self.data.get()

    def write(self, data: bytes) -> None:
        self.written += data

    async def drained(self, timeout_s: float | None) -> bool:
        async with asyncio.timeout(timeout_s):
            await self.resumed.wait()
        return True

    def close(self) -> None:
        self.gone = True

    abort = close


def frames_of(*frames: Frame, masked: bool = True) -> bytes:
    return b"".join(frame.serialize(mask=masked) for frame in frames)


def text(data: bytes, *, fin: bool = True) -> Frame:
    return Frame(Opcode.TEXT, data, fin)


def closes(written: bytes) -> list[tuple[int, str]]:
    """The close frames in what a server has written."""
    reader = Protocol(CLIENT)
    reader.receive_data(written)
    found = reader.close_rcvd
    return [] if found is None else [(found.code, found.reason)]


async def test_who_does_not_read_is_neither_read_nor_answered():
    stream = Stream()
    one = FrameStream(stream, "server")
    stream.data.put_nowait(frames_of(*[Frame(Opcode.PING, b"x" * 100)] * 50, text(b"hi")))
    stream.write_paused = True
    with pytest.raises(TimeoutError):
        await one.receive(0.05)
    one.ping()
    assert (stream.written, stream.data.qsize()) == (b"", 1)
    stream.write_paused = False
    stream.resumed.set()
    message = await one.receive(1)
    assert message is not None and message.data == b"hi"
    assert len(stream.written) == 50 * 102


async def test_many_small_frames_leave_others_their_turn():
    stream = Stream()
    one = FrameStream(stream, "server")
    count = 20_000
    stream.data.put_nowait(frames_of(text(b"junk")) * count)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    for _ in range(count):
        assert (await one.receive(1)) is not None
    task.cancel()
    assert turns >= count


async def test_pings_alone_leave_others_their_turn():
    stream = Stream()
    one = FrameStream(stream, "server")
    stream.data.put_nowait(frames_of(Frame(Opcode.PING, b"")) * 40_000 + frames_of(text(b"end")))
    task = asyncio.create_task(one.receive(5))
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 20


async def test_what_comes_of_a_message_counts_until_the_next_is_asked_for():
    budget, stream = BodyBudget(10_000), Stream()
    one = FrameStream(stream, "server", budget=budget)
    data = frames_of(text(b"x" * 3000, fin=False), Frame(Opcode.CONT, b"x" * 3000))
    stream.data.put_nowait(data[:5000])
    with pytest.raises(TimeoutError):
        await one.receive(0.05)
    assert 4900 < budget.held <= 5000
    stream.data.put_nowait(data[5000:])
    message = await one.receive(1)
    assert message is not None and len(message.data) == budget.held == 6000
    with pytest.raises(TimeoutError):
        await one.receive(0.05)
    # Also where the next one does not come.
    assert budget.held == 0
    stream.data.put_nowait(frames_of(text(b"ok")))
    assert await one.receive(1) is not None
    assert budget.held == 2
    one.close(1000)
    assert budget.held == 0


async def test_where_the_budget_is_used_up_it_is_closed_and_gives_back():
    budget, stream = BodyBudget(10_000), Stream()
    budget.take(8000)
    one = FrameStream(stream, "server", budget=budget)
    stream.data.put_nowait(frames_of(text(b"x" * 9000))[:5000])
    assert await one.receive(1) is None
    assert closes(stream.written) == [(1013, "overloaded")]
    assert (budget.held, one.ended) == (8000, True)
    with pytest.raises(Overloaded):
        budget.take(3000)


async def test_a_message_has_the_bound_that_it_is_given():
    stream = Stream()
    one = FrameStream(stream, "server", message_bytes_max=1000)
    stream.data.put_nowait(frames_of(text(b"x" * 600, fin=False), Frame(Opcode.CONT, b"x" * 600)))
    assert await one.receive(1) is None
    assert [code for code, _ in closes(stream.written)] == [1009]


async def test_a_close_without_a_status_is_passed_on_as_one():
    above, below = Stream(), Stream()
    upstream, client = FrameStream(above, "client"), FrameStream(below, "server")
    server = Protocol(SERVER)
    server.send_close()
    above.data.put_nowait(b"".join(server.data_to_send()))
    assert await upstream.receive(1) is None
    assert upstream.close_code == NO_STATUS
    client.close(upstream.close_code, upstream.close_reason)
    assert closes(below.written) == [(NO_STATUS, "")]


async def test_what_waits_is_bounded_and_pings_are_answered_meanwhile():
    stream = Stream()
    one = FrameStream(stream, "server")
    for _ in range(20):
        stream.data.put_nowait(frames_of(text(b"x" * 8000), Frame(Opcode.PING, b"there?")))
    async with asyncio.timeout(30):
        await one.attend()
    assert (stream.data.qsize(), one.has_closed) == (11, False)
    assert stream.written.count(b"there?") == 9
    for _ in range(20):
        message = await one.receive(1)
        assert message is not None and len(message.data) == 8000
    stream.data.put_nowait(frames_of(text(b"last"), Frame(Opcode.CLOSE, b"")))
    await one.attend()
    assert (one.has_closed, one.ended) == (True, False)
    message = await one.receive(1)
    assert message is not None and message.data == b"last"
    assert await one.receive(1) is None
