"""WebSocket messages over a stream of bytes, frame for frame as they came (RFC 6455).

The framing is ``websockets``' own, without its I/O. Pings are answered here, and are nobody else's; nothing is
compressed, so that what one side sends is what the other gets.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import Literal, Protocol

import msgspec
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, State
from websockets.protocol import Protocol as Framing

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
FRAMES_MAX = 10_000
"""Of one message."""
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

GOING_AWAY, PROTOCOL_ERROR, POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR = 1001, 1002, 1008, 1009, 1011
REASON_BYTES_MAX = 120


class ByteStream(Protocol):
    """A connection whose protocol was switched. Read by one task."""

    @property
    def write_paused(self) -> bool: ...

    async def read(self) -> bytes:
        """What has come, b"" once the other side has gone."""
        ...

    def write(self, data: bytes) -> None: ...
    async def drained(self, timeout_s: float) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Message(msgspec.Struct, frozen=True):
    """One message: its frames as they came, and what they hold together."""

    frames: tuple[Frame, ...]
    data: bytes
    is_text: bool


class FrameStream:
    """One side of a WebSocket. Read by one task; ``send`` and ``close`` do not wait."""

    def __init__(self, stream: ByteStream, side: Literal["client", "server"], subprotocol: str | None = None) -> None:
        """``side`` is which side we are on."""
        self.subprotocol = subprotocol
        self.close_code: int | None = None
        self.close_reason = ""
        self._stream = stream
        self._framing = Framing(SERVER if side == "server" else CLIENT, state=OPEN, max_size=MESSAGE_BYTES_MAX)
        self._waiting: list[Frame] = []
        self._partial: list[Frame] = []
        self._size = 0
        self._ended = False
        self.heard = True
        """Whether anything has come since this was last set to False."""

    def __repr__(self) -> str:
        return f"FrameStream(ended={self._ended}, close_code={self.close_code})"

    @property
    def ended(self) -> bool:
        """Whether nothing more comes from the other side."""
        return self._ended and not self._waiting

    @property
    def write_paused(self) -> bool:
        return self._stream.write_paused

    async def drained(self, timeout_s: float) -> bool:
        """Whether more may be written; False where the other side reads nothing for so long, or has gone."""
        return await self._stream.drained(timeout_s)

    async def receive(self, timeout_s: float) -> Message | None:
        """The next message; None once the other side has closed, or has gone. Raises TimeoutError, after which it may
        be called again.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                message = self._message()
                if message is not None:
                    return message
                if self._ended:
                    return None
                data = await self._stream.read()
                self.heard = True
                if data:
                    self._framing.receive_data(data)
                else:
                    self._framing.receive_eof()
                    self._ended = True
                self._take()
                self._flush()

    def send(self, message: Message) -> None:
        """The frames of a message, as they came."""
        for frame in message.frames:
            self._send(frame)
        self._flush()

    def send_text(self, data: bytes) -> None:
        """A message of one frame."""
        self._send(Frame(Opcode.TEXT, data))
        self._flush()

    def ping(self) -> None:
        """Whoever is there answers."""
        if self._framing.state is OPEN:
            self._framing.send_ping(b"")
            self._flush()

    def close(self, code: int, reason: str = "") -> None:
        """Say that nothing more comes, and why, and end. Nothing happens where it was said."""
        if self._framing.state is OPEN:
            told = reason.encode()[:REASON_BYTES_MAX].decode("utf-8", "ignore")
            self._framing.send_close(code if _may_be_sent(code) else INTERNAL_ERROR, told)
            self._flush()
        self._stream.close()

    # -- inside ---------------------------------------------------------------------------------

    def _send(self, frame: Frame) -> None:
        if self._framing.state is not OPEN:
            return
        try:
            if frame.opcode is Opcode.TEXT:
                self._framing.send_text(frame.data, frame.fin)
            elif frame.opcode is Opcode.BINARY:
                self._framing.send_binary(frame.data, frame.fin)
            else:
                self._framing.send_continuation(frame.data, frame.fin)
        except ProtocolError:
            # A message that began before the other side was there.
            self.close(PROTOCOL_ERROR)

    def _take(self) -> None:
        """What was parsed, and what that means."""
        for event in self._framing.events_received():
            if isinstance(event, Frame) and event.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
                self._waiting.append(event)
        if self._framing.state is not OPEN or self._framing.parser_exc is not None:
            received = self._framing.close_rcvd
            if received is not None:
                self.close_code, self.close_reason = received.code, received.reason
            self._ended = True

    def _message(self) -> Message | None:
        while self._waiting:
            frame = self._waiting.pop(0)
            self._partial.append(frame)
            self._size += len(frame.data)
            if self._size > MESSAGE_BYTES_MAX or len(self._partial) > FRAMES_MAX:
                self.close(TOO_BIG)
                self._ended = True
                self._waiting.clear()
                return None
            if frame.fin:
                frames, self._partial, self._size = tuple(self._partial), [], 0
                data = frames[0].data if len(frames) == 1 else b"".join(bytes(each.data) for each in frames)
                return Message(frames, bytes(data), frames[0].opcode is Opcode.TEXT)
        return None

    def _flush(self) -> None:
        for data in self._framing.data_to_send():
            if data:
                self._stream.write(data)
        if self._framing.state is State.CLOSED:
            self._stream.close()


def accept_of(key: bytes) -> bytes | None:
    """What answers a handshake's ``sec-websocket-key``; None where that is none."""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())


def text_message(data: bytes) -> Message:
    """A message of one frame of text."""
    return Message((Frame(Opcode.TEXT, data),), data, is_text=True)


def _may_be_sent(code: int) -> bool:
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
