"""WebSocket messages over a stream of bytes, frame for frame as they came (RFC 6455).

The framing is ``websockets``' own, without its I/O. Pings are answered here, and are nobody else's; nothing is
compressed, so that what one side sends is what the other gets.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import deque
from typing import Literal, Protocol

import msgspec
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, State
from websockets.protocol import Protocol as Framing

from app.core.errors import Overloaded

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
FRAMES_MAX = 10_000
"""Of one message."""
PARSED_AT_ONCE_BYTES = 8192
"""Of what has come: it may be a thousand frames, and others have their turn between."""
AHEAD_BYTES_MAX = 64 * 1024
"""What is parsed before anybody takes it."""
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

GOING_AWAY, PROTOCOL_ERROR, POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR = 1001, 1002, 1008, 1009, 1011
SERVICE_RESTART, TRY_AGAIN_LATER = 1012, 1013
NO_STATUS = 1005
"""Is never sent: it stands for a close that says nothing."""
REASON_BYTES_MAX = 120


class ByteStream(Protocol):
    """A connection whose protocol was switched. Read by one task."""

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more, or nobody is listened to."""
        ...

    @property
    def write_paused(self) -> bool: ...

    async def read(self) -> bytes:
        """What has come, b"" once the other side has gone."""
        ...

    def write(self, data: bytes) -> None: ...
    async def drained(self, timeout_s: float | None) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Budget(Protocol):
    """What all that is being received may hold."""

    def take(self, size: int) -> None:
        """Raises Overloaded where it is used up."""

    def give_back(self, size: int) -> None: ...


class Message(msgspec.Struct, frozen=True):
    """One message: its frames as they came, and what they hold together."""

    frames: tuple[Frame, ...]
    data: bytes
    is_text: bool


class FrameStream:
    """One side of a WebSocket. Read by one task; ``send`` and ``close`` do not wait.

    A client that does not read what it is sent is not read either: else its pings alone, and what it is told of its
    bad frames, would pile up here.
    """

    def __init__(
        self,
        stream: ByteStream,
        side: Literal["client", "server"],
        subprotocol: str | None = None,
        *,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        budget: Budget | None = None,
    ) -> None:
        """``side`` is which side we are on. A message counts in ``budget`` while it comes, and until the next is asked
        for.
        """
        self.subprotocol = subprotocol
        self.close_code: int | None = None
        self.close_reason = ""
        self._stream = stream
        self._framing = Framing(SERVER if side == "server" else CLIENT, state=OPEN, max_size=message_bytes_max)
        self._message_bytes_max = message_bytes_max
        self._budget = budget
        self._held = 0
        self._unparsed = memoryview(b"")
        self._waiting: deque[Frame] = deque()
        self._partial: list[Frame] = []
        self._size = self._size_waiting = self._size_taken = 0
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
    def gone(self) -> bool:
        """Whether the other side has gone, or is not listened to any more."""
        return self._stream.gone

    @property
    def has_closed(self) -> bool:
        """Whether the other side has said that nothing more comes; what came before may be waiting."""
        return self._ended

    @property
    def write_paused(self) -> bool:
        return self._stream.write_paused

    async def drained(self, timeout_s: float | None) -> bool:
        """Whether more may be written; False where the other side reads nothing for so long, or has gone."""
        return await self._stream.drained(timeout_s)

    async def receive(self, timeout_s: float) -> Message | None:
        """The next message; None once the other side has closed, or has gone. Raises TimeoutError, after which it may
        be called again.
        """
        self._size_taken = 0
        self._account()
        async with asyncio.timeout(timeout_s):
            while True:
                if self._framing.side is SERVER and self._stream.write_paused:
                    await self._stream.drained(None)
                if self._waiting:
                    await asyncio.sleep(0)
                    message = self._message()
                    if message is not None:
                        return message
                if self._ended:
                    return None
                await self._parse_more()
                self._account()

    async def attend(self) -> None:
        """Until the other side has closed, or has sent what is enough to wait: meanwhile its pings are answered."""
        while not self._ended and self._size_waiting + len(self._waiting) < AHEAD_BYTES_MAX:
            if self._framing.side is SERVER and self._stream.write_paused:
                await self._stream.drained(None)
            await self._parse_more()
            self._account()

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
        """Whoever is there answers; who has not read what was sent before need not be asked."""
        if self._framing.state is OPEN and not self._stream.write_paused:
            self._framing.send_ping(b"")
            self._flush()

    def close(self, code: int, reason: str = "") -> None:
        """Say that nothing more comes, and why, and end. Nothing happens where it was said."""
        if self._framing.state is OPEN:
            told = reason.encode()[:REASON_BYTES_MAX].decode("utf-8", "ignore")
            if code == NO_STATUS:
                self._framing.send_close()
            else:
                self._framing.send_close(code if _may_be_sent(code) else INTERNAL_ERROR, told)
            self._flush()
        self._stream.close()
        self._forget()

    def abort(self) -> None:
        """End without a word."""
        self._stream.abort()
        self._forget()

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

    async def _parse_more(self) -> None:
        if self._unparsed:
            await asyncio.sleep(0)
        else:
            self._unparsed = memoryview(await self._stream.read())
            self.heard = True
        part, self._unparsed = self._unparsed[:PARSED_AT_ONCE_BYTES], self._unparsed[PARSED_AT_ONCE_BYTES:]
        if part:
            self._framing.receive_data(bytes(part))
        else:
            self._framing.receive_eof()
            self._ended = True
        self._take()
        self._flush()

    def _account(self) -> None:
        """Have the budget know what is held here, as far as it may be."""
        if self._budget is None:
            return
        unparsed = len(self._unparsed) + len(self._framing.reader.buffer)
        size = unparsed + self._size_waiting + self._size + self._size_taken
        try:
            if size > self._held:
                self._budget.take(size - self._held)
            else:
                self._budget.give_back(self._held - size)
            self._held = size
        except Overloaded:
            self.close(TRY_AGAIN_LATER, "overloaded")
            self._ended = True

    def _forget(self) -> None:
        """What has come and was not taken is nobody's."""
        self._unparsed = memoryview(b"")
        self._waiting.clear()
        self._partial.clear()
        if self._budget is not None:
            self._budget.give_back(self._held)
        self._budget = None

    def _take(self) -> None:
        """What was parsed, and what that means."""
        for event in self._framing.events_received():
            if isinstance(event, Frame) and event.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
                self._waiting.append(event)
                self._size_waiting += len(event.data)
        if self._framing.state is not OPEN or self._framing.parser_exc is not None:
            received = self._framing.close_rcvd
            if received is not None:
                self.close_code, self.close_reason = received.code, received.reason
            self._ended = True

    def _message(self) -> Message | None:
        while self._waiting:
            frame = self._waiting.popleft()
            self._partial.append(frame)
            self._size += len(frame.data)
            self._size_waiting -= len(frame.data)
            if self._size > self._message_bytes_max or len(self._partial) > FRAMES_MAX:
                self.close(TOO_BIG)
                self._ended = True
                return None
            if frame.fin:
                frames, self._partial, self._size, self._size_taken = tuple(self._partial), [], 0, self._size
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
