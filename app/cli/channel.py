"""What a supervisor and its children say to one another: lines of JSON over a pair of sockets.

The end of it is a message too: a child whose supervisor is gone ends in order.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TypeAlias

import msgspec

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""A configuration of 1 MiB, every byte of it escaped."""
CLOSE_TIMEOUT_S = 1.0


class Begin(msgspec.Struct, frozen=True, tag=True):
    """To a worker, first of all: the configuration in force and where it was read, and what is shared."""

    configuration: str
    path: str
    base_url: str
    metrics_dir: str
    simulator_socket: str


class Reload(msgspec.Struct, frozen=True, tag=True):
    """To a worker: this configuration from now on. It is answered by Reloaded."""

    configuration: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """From a child: it serves."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """From a child: it cannot start, and why."""

    sentence: str


class Reloaded(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it is in force there, or why it is not."""

    refusal: str | None


Message: TypeAlias = Begin | Reload | Ready | Failed | Reloaded

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encoded(message: Message) -> bytes:
    return msgspec.json.encode(message) + b"\n"


class Channel:
    """One end, in an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Channel:
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MESSAGE_BYTES_MAX))

    def send(self, message: Message) -> None:
        """What cannot be sent any more has nobody who waits for it."""
        if not self._writer.is_closing():
            self._writer.write(encoded(message))

    async def receive(self) -> Message | None:
        """The next one; None: the other end is gone."""
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            return None
        return _decoder.decode(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """What was sent is written first."""
        self._writer.close()

    async def closed(self) -> None:
        """Waits for that, unless the other end is gone."""
        with suppress(OSError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()


def receive_blocking(end: socket.socket) -> Message | None:
    """The first message, before there is an event loop. Nothing follows until it is answered."""
    line = b""
    while not line.endswith(b"\n"):
        part = end.recv(65536)
        if not part:
            return None
        line += part
    return _decoder.decode(line)
