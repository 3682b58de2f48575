"""One WebSocket connection: its handshake, its frames, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.channel import TRANSPORT_EXTENSION
from app.simulator.errors import RequestRefused
from app.simulator.routes import JSON

if TYPE_CHECKING:
    from app.simulator.channel import Receive, Scope, Send

GOING_AWAY = 1012
"""The close code of a server that stops."""
NOT_TEXT = "Only text frames that hold a JSON object are understood."


class SocketGone(Exception):
    """The connection has ended, by whomever."""


class Socket:
    """Frames as the API has them: JSON objects in text. ``stopped`` where the server ended it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.stopped = False

    async def refuse(self, refusal: RequestRefused) -> None:
        """Answer the handshake with an error."""
        body = refusal.body()
        head = [(b"content-type", JSON), (b"content-length", b"%d" % len(body))]
        await self._receive()
        await self._send({"type": "websocket.http.response.start", "status": refusal.status, "headers": head})
        await self._send({"type": "websocket.http.response.body", "body": body})

    async def accept(self, request_id: bytes) -> None:
        await self._receive()
        await self._send({"type": "websocket.accept", "headers": [(b"x-request-id", request_id)]})

    async def read(self) -> bytes:
        """The next text frame. Raises SocketGone at the end, RequestRefused for a frame that is no text."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.stopped = message.get("code") == GOING_AWAY
            raise SocketGone
        text: str | None = message.get("text")
        if text is None:
            raise RequestRefused(400, NOT_TEXT)
        return text.encode()

    async def write(self, data: bytes) -> None:
        """One text frame; it waits for a client that is slow. Raises SocketGone."""
        try:
            await self._send({"type": "websocket.send", "text": data.decode()})
        except OSError as error:
            raise SocketGone from error

    async def write_object(self, value: dict[str, Any]) -> None:
        await self.write(msgspec.json.encode(value))

    def cut(self) -> None:
        """End the connection without a closing handshake."""
        transport = self._scope.get("extensions", {}).get(TRANSPORT_EXTENSION, {}).get("transport")
        if transport is None:
            raise ConnectionAbortedError("steered: the connection is cut")
        transport.abort()

    def __repr__(self) -> str:
        return f"Socket({self._scope['path']}, stopped={self.stopped})"
