"""A client's connection after its protocol was switched: bytes both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

BUFFER_HIGH_BYTES = 64 * 1024
"""With more than this not taken, the client is not read."""


class RawStream:
    """A ``ByteStream``. Fed by the server's protocol."""

    def __init__(self, transport: asyncio.Transport, flow: FlowControl, end: Callable[[], None]) -> None:
        """``end`` ends our side, once what was written is sent, in a way that the client gets all of it."""
        self._end = end
        self._transport = transport
        self._flow = flow
        self._parts: list[bytes] = []
        self._buffered = 0
        self._gone = self._closed = False
        self._event = asyncio.Event()

    def __repr__(self) -> str:
        return f"RawStream(buffered={self._buffered}, gone={self._gone})"

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more, or nobody is listened to."""
        return self._gone or self._closed

    @property
    def write_paused(self) -> bool:
        return self._flow.write_paused

    async def read(self) -> bytes:
        """What has come, b"" once the client has gone."""
        while not self._parts:
            if self.gone:
                return b""
            self._event.clear()
            await self._event.wait()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._buffered = 0
        self._flow.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        if not self.gone:
            self._transport.write(data)

    async def drained(self, timeout_s: float | None) -> bool:
        """Waits until more may be written; False if the client has gone, or read nothing for ``timeout_s``."""
        while self._flow.write_paused and not self.gone:
            pending = self._transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._flow.drain()
            except TimeoutError:
                if self._transport.get_write_buffer_size() >= pending:
                    return False
        return not self.gone

    def close(self) -> None:
        """Once what was written is sent. What comes from now on is nobody's."""
        if not self._closed:
            self._closed = True
            self._forget()
            self._end()

    def abort(self) -> None:
        self._closed = True
        self._forget()
        self._transport.abort()

    # For the server's protocol.

    def feed(self, data: bytes) -> None:
        if self._closed:
            return
        self._parts.append(data)
        self._buffered += len(data)
        if self._buffered > BUFFER_HIGH_BYTES:
            self._flow.pause_reading()
        self._event.set()

    def _forget(self) -> None:
        self._parts.clear()
        self._buffered = 0
        self._event.set()

    def lost(self) -> None:
        self._gone = True
        self._flow.resume_writing()
        self._event.set()
