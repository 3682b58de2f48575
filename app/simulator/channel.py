"""The way back to one client: writes, waits, and notices when the client has gone."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

TRANSPORT_EXTENSION = "headgate.simulator"
"""Where the server's protocol puts the transport, so that a connection can be cut."""
DRAIN_S_MAX = 5.0
DRAIN_STEP_S = 0.002
_LINGER_NOT = struct.pack("ii", 1, 0)


class ClientGone(Exception):
    """The client left before its request was complete."""


class Channel:
    """One request's connection. ``gone`` is only ever true while somebody watches."""

    __slots__ = ("_read", "_receive", "_scope", "_send", "_waiter", "_watcher", "gone")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._read = False
        self._waiter: asyncio.Future[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False

    async def read_body(self, bytes_max: int) -> bytes | None:
        """The request's body, or None if it is longer than ``bytes_max``."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body if len(body) <= bytes_max else None
        parts = [body]
        size = len(body)
        while message.get("more_body"):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            size += len(message.get("body", b""))
            if size > bytes_max:
                return None
            parts.append(message.get("body", b""))
        return b"".join(parts)

    async def read_piece(self) -> bytes | None:
        """The next bytes of the request's body as they came, or None after the last."""
        if self._read:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._read = not message.get("more_body")
        piece: bytes = message.get("body", b"")
        return piece

    def watch(self) -> None:
        """From now on notice that the client leaves. Without this nobody would be told."""
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._wait_for_leave())

    async def _wait_for_leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.wake()

    def wake(self) -> None:
        """End a pause: there is something to write."""
        if self._waiter is not None:
            _wake(self._waiter)

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than the client does."""
        self.watch()
        if self.gone:
            return
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        # A timer of our own: asyncio.wait_for costs several times as much, and this runs for every token.
        timer = loop.call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    async def start(self, status: int, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def cut(self, *, reset: bool) -> None:
        """End the connection without ending the message, once what was written has left.

        Only a server that puts its transport in the scope can do that; any other must take the
        exception for it, and closes in its own manner.
        """
        self.close()
        transport = self._scope.get("extensions", {}).get(TRANSPORT_EXTENSION, {}).get("transport")
        if transport is None:
            raise ConnectionAbortedError("steered: the connection is cut")
        left_s = DRAIN_S_MAX
        await asyncio.sleep(0)
        while transport.get_write_buffer_size() and left_s > 0:
            await asyncio.sleep(DRAIN_STEP_S)
            left_s -= DRAIN_STEP_S
        raw = transport.get_extra_info("socket")
        if reset and raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
        # Until the server knows: it would complain of an answer without an end.
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def __repr__(self) -> str:
        return f"Channel(watched={self._watcher is not None}, gone={self.gone})"


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
