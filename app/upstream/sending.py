"""Request bodies that do not go out in one write: large ones, and those that stream.

No more of a body is written than the transport takes, and a body that streams is not asked for more meanwhile, so
that what a fast client sends waits in the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Protocol

from app.core.exchange import BodyStream
from app.settings import Timeouts

PART_BYTES = 64 * 1024
"""A body up to this size is copied to stand beside its head in one write; a larger one goes out in such parts."""

LAST_CHUNK = b"0\r\n\r\n"


class Upload:
    """A body that streams, on its way up.

    The time that the client takes is the server's to bound; the upstream must take each piece within ``idle_s``,
    and the time to its first byte begins with the end of the body.
    """

    def __init__(self, body: BodyStream, timeouts: Timeouts, watch: Callable[[float], None]) -> None:
        self.length = body.length
        self.ended = False
        self._body = body
        self._timeouts = timeouts
        self._watch = watch

    def __repr__(self) -> str:
        return f"Upload(length={self.length}, ended={self.ended})"

    async def read(self) -> bytes:
        self._watch(inf)
        piece = await self._body.read()
        self.ended = not piece
        self._watch(self._timeouts.first_byte_s if self.ended else self._timeouts.idle_s)
        return piece


class Awaited(Protocol):
    """The answer that is awaited meanwhile."""

    status: int

    @property
    def connection(self) -> object | None:
        """None once the connection is lost, or the answer has ended."""

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def wake(self) -> None: ...


class Outgoing(Protocol):
    """The connection that it goes out on."""

    loop: asyncio.AbstractEventLoop
    writing_paused: bool


async def send_body(
    connection: Outgoing, transport: asyncio.Transport, answer: Awaited, head: bytes, body: bytes | BodyStream
) -> bool:
    """Head and body; False where the rest stays unsent, since the upstream has refused it or gone.

    Raises what ``body`` raises, and ValueError where it is not as long as it said: the connection is then to be
    closed, so that the upstream takes nothing for whole.
    """
    if isinstance(body, bytes):
        return await _send_parts(connection, transport, answer, head, body)
    transport.write(head)
    left = body.length
    while await _may_write(connection, answer):
        piece = await _next_of(body, connection, answer)
        if piece is None:
            return False
        if left is None:
            transport.write(b"".join((b"%x\r\n" % len(piece), piece, b"\r\n")) if piece else LAST_CHUNK)
        else:
            left -= len(piece)
            if left < 0 or (left and not piece):
                raise ValueError("The body is not as long as it said.")
            if piece:
                transport.write(piece)
        if not piece:
            return True
    return False


async def _send_parts(
    connection: Outgoing, transport: asyncio.Transport, answer: Awaited, head: bytes, body: bytes
) -> bool:
    transport.write(head + body[:PART_BYTES])
    rest = memoryview(body)
    for at in range(PART_BYTES, len(body), PART_BYTES):
        if not await _may_write(connection, answer):
            return False
        transport.write(rest[at : at + PART_BYTES])
    return True


async def _may_write(connection: Outgoing, answer: Awaited) -> bool:
    """Waits until the transport takes more; False once no more is wanted."""
    while connection.writing_paused and _is_wanted(answer):
        await answer.wait(connection.loop)
    return _is_wanted(answer)


def _is_wanted(answer: Awaited) -> bool:
    return answer.connection is not None and answer.status < 300


async def _next_of(body: BodyStream, connection: Outgoing, answer: Awaited) -> bytes | None:
    """The next piece of ``body``; None where the upstream wants no more before it has come."""

    def come(task: asyncio.Task[bytes]) -> None:
        if not task.cancelled():
            # Asked for here, since nobody else does where the upstream was quicker.
            task.exception()
        answer.wake()

    reading = connection.loop.create_task(body.read())
    reading.add_done_callback(come)
    try:
        while not reading.done():
            await answer.wait(connection.loop)
            if not _is_wanted(answer):
                return None
        return reading.result()
    finally:
        reading.cancel()
