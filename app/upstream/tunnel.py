"""A connection to an upstream whose protocol is switched: bytes both ways, behind one head each way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import cast

from app.core.errors import Headers
from app.upstream.connection import BadAnswer, ConnectionBroken

HEAD_BYTES_MAX = 64 * 1024
BUFFER_HIGH_BYTES = 256 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2})(?: [^\r\n]*)?\Z")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\Z")
SWITCHED = 101
CLOSE_S_MAX = 2.0
"""How long the upstream has to close after us: cut off at once, it might lose what it was told last."""


class Tunnel(asyncio.Protocol):
    """A ``ByteStream``. ``head`` is awaited first."""

    def __init__(self, on_lost: Callable[[Tunnel], None]) -> None:
        """``on_lost`` is told once the connection is no more."""
        self._on_lost = on_lost
        self._closing: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._gone = False
        self._paused = False
        self._reading_paused = False
        self._event = asyncio.Event()
        self._writable = asyncio.Event()

    def __repr__(self) -> str:
        return f"Tunnel(buffered={len(self._buffer)}, gone={self._gone})"

    async def head(self, request: bytes) -> tuple[int, Headers]:
        """Send the request's head, and read the answer's. Raises ConnectionBroken, BadAnswer."""
        self.write(request)
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise BadAnswer("The answer's head is too large.")
            if self._gone:
                raise ConnectionBroken("The upstream closed the connection.")
            self._event.clear()
            await self._event.wait()
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        status = _STATUS_LINE.match(lines[0])
        headers = [_HEADER.match(line) for line in lines[1:]]
        if status is None or None in headers:
            raise BadAnswer("The answer's head is not valid HTTP.")
        return int(status[1]), [(found[1].lower(), found[2]) for found in headers if found is not None]

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more, or nobody is listened to."""
        return self._gone or self._closing is not None

    @property
    def write_paused(self) -> bool:
        return self._paused

    async def read(self) -> bytes:
        """What has come, b"" once the upstream has gone."""
        while not self._buffer:
            if self.gone:
                return b""
            self._event.clear()
            await self._event.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        self._read_on()
        return data

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.gone:
            self._transport.write(data)

    async def drained(self, timeout_s: float | None) -> bool:
        """Waits until more may be written; False if the upstream has gone, or reads nothing for ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._paused and not self.gone:
                    self._writable.clear()
                    await self._writable.wait()
        except TimeoutError:
            return False
        return not self.gone

    def close(self) -> None:
        """Once what was written is sent, and the upstream has closed as well. What comes from now on is nobody's."""
        if self._transport is None or self.gone:
            return
        self._closing = asyncio.get_running_loop().call_later(CLOSE_S_MAX, self._transport.abort)
        self._buffer.clear()
        self._read_on()
        self._event.set()
        self._writable.set()

    def _read_on(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # For the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._closing is not None:
            return
        self._buffer += data
        if len(self._buffer) > BUFFER_HIGH_BYTES and self._transport is not None and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._event.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._gone = True
        if self._closing is not None:
            self._closing.cancel()
        self._event.set()
        self._writable.set()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._writable.set()
