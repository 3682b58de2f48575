"""One request and its answer on a connection: ASGI's two callables, and a cheaper way beside them."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.core.errors import Draining, GatewayError, Headers, InternalError, render
from app.core.ids import new_request_id
from app.edge.protocol import Head
from app.edge.raw import RawStream

logger = logging.getLogger("headgate.edge")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

READ_BUFFER_HIGH_BYTES = 64 * 1024
ONE_WRITE_BYTES_MAX = 64 * 1024
"""A body up to this size is copied to stand beside its head in one write."""

# How the body of a response is delimited.
_NO_BODY, _BY_LENGTH, _BY_CHUNKS, _BY_CLOSE = range(4)
# Headers of a response that are read here, and those of them that are written here too.
_OURS = frozenset((b"content-length", b"connection", b"date", b"transfer-encoding"))
_DELIMITERS = frozenset((b"content-length", b"transfer-encoding"))


class Connection(Protocol):
    """What a cycle needs of the connection that it is on."""

    transport: asyncio.Transport
    flow: FlowControl

    def default_block(self, *, has_date: bool) -> bytes:
        """The header lines that every response has."""
        ...

    def rest_is_small(self, *, expects_continue: bool) -> bool:
        """Whether the unread rest of the request may be read away after the answer."""
        ...

    def want_body(self) -> None:
        """Reads on, if reading was paused for a body that nobody took."""
        ...

    def expect_upload(self) -> None:
        """From now on the body must keep a pace, in place of the time that a whole one has."""
        ...

    def switch(self) -> RawStream:
        """What comes from now on is the application's, as it comes."""
        ...

    def answered(self, cycle: Cycle) -> None:
        """The whole answer has been written."""
        ...

    def cut(self, *, reset: bool) -> None:
        """Closes at once; with a reset where a plain end would look like a whole answer."""
        ...


class Cycle:
    """One request and its answer; an application finds it in ``scope["headgate.connection"]``.

    Beside ASGI's ``receive`` and ``send`` it offers the same answer by plain calls: ``respond``, or
    ``start``, ``write`` and ``finish``. Their header names must be in lower case. After the client has
    gone all of them do nothing. ``request_id`` and ``route`` are the application's to set: they are what
    the log says of a request that failed.
    """

    __slots__ = (
        "_body_done",
        "_body_told",
        "_buffered",
        "_callback",
        "_connection",
        "_event",
        "_expects_continue",
        "_flow",
        "_framing",
        "_held_head",
        "_http10",
        "_is_head",
        "_left",
        "_parts",
        "_transport",
        "body_length",
        "bytes_written",
        "disconnected",
        "keep_alive",
        "request_id",
        "response_complete",
        "response_started",
        "route",
    )

    def __init__(self, connection: Connection, head: Head, *, has_body: bool) -> None:
        self.request_id = ""
        self.route = ""
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.bytes_written = 0
        self.body_length = None if head.chunked else head.content_length
        """What the client declared; None where the body is chunked."""
        self.keep_alive = head.keep_alive
        self._connection = connection
        self._transport = connection.transport
        self._flow = connection.flow
        self._is_head = head.method == "HEAD"
        self._http10 = head.minor_version == 0
        self._expects_continue = has_body and head.expects_continue
        self._event: asyncio.Event | None = None
        self._callback: Callable[[], None] | None = None
        self._parts: list[bytes] = []
        self._buffered = 0
        self._body_done = not has_body
        self._body_told = False
        self._framing = _NO_BODY
        self._left = 0
        self._held_head = b""

    def __repr__(self) -> str:
        state = "complete" if self.response_complete else "started" if self.response_started else "open"
        return f"Cycle({state}, disconnected={self.disconnected}, bytes_written={self.bytes_written})"

    # The client.

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Has ``callback`` called once, from the event loop's own call, if the client goes before the end.

        At once, if it has already gone. A later callback replaces an earlier one.
        """
        if self.disconnected:
            callback()
        else:
            self._callback = callback

    def expect_upload(self) -> None:
        """The body is going to be taken as it comes: it may last, but must keep a pace."""
        self._connection.expect_upload()

    def abort(self) -> None:
        """Cuts the connection, so that no client takes what it has for a whole answer.

        The callback of ``on_disconnect`` is called as for any other loss. Nothing happens after the end.
        """
        if self.response_complete:
            return
        self.disconnected = True
        self._wake()
        self._connection.cut(reset=self._framing == _BY_CLOSE)

    @property
    def write_paused(self) -> bool:
        """Whether more than 32 KiB wait to be sent: write no more until ``drained``."""
        return self._flow.write_paused

    @property
    def bytes_pending(self) -> int:
        """What is written and not yet with the kernel. With ``bytes_written`` it tells a slow client."""
        return self._transport.get_write_buffer_size()

    async def drained(self, timeout_s: float | None = None) -> bool:
        """Waits until more may be written; False if the client has gone, or read nothing for ``timeout_s``."""
        while self._flow.write_paused and not self.disconnected:
            pending = self.bytes_pending
            try:
                async with asyncio.timeout(timeout_s):
                    await self._flow.drain()
            except TimeoutError:
                if self.bytes_pending >= pending:
                    return False
        return not self.disconnected

    # The answer, by plain calls.

    def respond(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """The whole answer, in one write; ``content-length`` is counted here."""
        head = self._begin(status, headers, body)
        if self.disconnected:
            return
        if self._framing == _NO_BODY or not body:
            self._send(head)
        elif len(body) <= ONE_WRITE_BYTES_MAX:
            self._send(head + body)
        else:
            self._send(head)
            self._send(body)
        self._end()

    def start(self, status: int, headers: Headers, first: bytes = b"") -> None:
        """The head, and ``first`` of the body, in one write.

        The body is delimited by a ``content-length`` in ``headers``, else by chunks.
        """
        head = self._begin(status, headers, None)
        if not self.disconnected:
            self._send(head + self._framed(first) if first else head)

    def switch(self, headers: Headers) -> RawStream:
        """The protocol is switched, as the client has asked (RFC 9110, 15.2.2)."""
        if self.response_started or not self._body_done:
            raise RuntimeError("The protocol cannot be switched now.")
        block = b"".join([b"%b: %b\r\n" % header for header in headers])
        self.response_started = self.response_complete = True
        self._callback = None
        if not self.disconnected:
            self._send(b"HTTP/1.1 101 Switching Protocols\r\n" + block + b"\r\n")
        return self._connection.switch()

    def write(self, data: bytes) -> None:
        """More of the body: one HTTP chunk, in one write."""
        if not self.response_started or self.response_complete:
            raise RuntimeError("There is no response to write to.")
        if data and not self.disconnected:
            self._send(self._framed(data))

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """More of the body: one HTTP chunk for each of the pieces, all in one write."""
        if not self.response_started or self.response_complete:
            raise RuntimeError("There is no response to write to.")
        if not self.disconnected:
            self._send(b"".join([self._framed(piece) for piece in pieces if piece]))

    def finish(self, last: bytes = b"") -> None:
        """The end of the body, with the ``last`` of it."""
        if not self.response_started or self.response_complete:
            raise RuntimeError("There is no response to finish.")
        if self.disconnected:
            return
        data = self._framed(last) if last else b""
        if self._framing == _BY_CHUNKS:
            data += b"0\r\n\r\n"
        elif self._framing == _BY_LENGTH and self._left:
            self.abort()
            raise RuntimeError("The response is shorter than its content-length.")
        if data or self._held_head:
            self._send(data)
        self._end()

    def _begin(self, status: int, headers: Headers, body: bytes | None) -> bytes:
        """Settles how the body is delimited and whether the connection is kept; returns the head."""
        if self.response_started:
            raise RuntimeError("The response has started.")
        lines: list[bytes] = []
        ours: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _OURS:
                ours[name] = value
                if name in _DELIMITERS:
                    continue
            lines += (name, b": ", value, b"\r\n")
        block = b"".join(lines)
        if len(block.splitlines()) * 4 != len(lines):
            raise ValueError("A response header has a line break.")
        delimiter = self._delimit(status, ours.get(b"content-length"), body)
        if not (self._body_done or self._connection.rest_is_small(expects_continue=self._expects_continue)):
            self.keep_alive = False
        if b"connection" in ours and ours[b"connection"].lower() == b"close":
            self.keep_alive = False
        elif not self.keep_alive:
            delimiter += b"connection: close\r\n"
        self.response_started = True
        status_line = STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status
        defaults = self._connection.default_block(has_date=b"date" in ours)
        return b"".join((status_line, defaults, block, delimiter, b"\r\n"))

    def _delimit(self, status: int, declared: bytes | None, body: bytes | None) -> bytes:
        """Settles how the body is delimited; returns the header line that says so."""
        length = None if body is None else len(body)
        if declared is not None and (body is None or self._is_head or status == 304):
            # A HEAD's answer and a 304 tell the length of a body that they do not have.
            length = int(declared)
        if self._is_head or status < 200 or status in (204, 304):
            self._framing = _NO_BODY
            if length is None or status < 200 or status == 204:
                return b""
        elif length is not None:
            self._framing = _BY_LENGTH
            self._left = length
        elif self._http10:
            self._framing = _BY_CLOSE
            return b""
        else:
            self._framing = _BY_CHUNKS
            return b"transfer-encoding: chunked\r\n"
        return b"content-length: %d\r\n" % length

    def _framed(self, chunk: bytes) -> bytes:
        if self._framing == _BY_CHUNKS:
            return b"".join((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
        if self._framing == _NO_BODY:
            return b""
        if self._framing == _BY_LENGTH:
            self._left -= len(chunk)
            if self._left < 0:
                self.abort()
                raise RuntimeError("The response is longer than its content-length.")
        return chunk

    def _send(self, data: bytes) -> None:
        if self._held_head:
            data = self._held_head + data
            self._held_head = b""
        self.bytes_written += len(data)
        self._transport.write(data)

    def _send_held_head(self) -> None:
        if self._held_head and not self.disconnected:
            self._send(b"")

    def _end(self) -> None:
        self.response_complete = True
        self._callback = None
        self._parts.clear()
        self._wake()
        self._connection.answered(self)

    # ASGI.

    async def run(self, app: App, scope: Scope) -> None:
        """Runs ``app``, and sees to it that the client never waits for an answer that will not come."""
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            # uvicorn cancels what outlasts the shutdown's grace.
            self._give_up(Draining())
            raise
        except Exception as error:  # noqa: BLE001 - the last line of defence for any bug of the application
            self._log(type(error).__name__, _where(error))
        else:
            if not self.response_complete and not self.disconnected:
                self._log("no complete response", "-")
        # Out of the handler: an error in here must not carry the application's along into a log.
        if not self.response_complete:
            self._give_up(InternalError())

    def _give_up(self, error: GatewayError) -> None:
        if self.response_complete or self.disconnected:
            return
        if self.response_started:
            self.abort()
        else:
            self.respond(*render(error, self._some_request_id()))

    def _some_request_id(self) -> str:
        self.request_id = self.request_id or new_request_id(time.time_ns() // 1_000_000)
        return self.request_id

    def _log(self, what: str, where: str) -> None:
        """Nothing of the request but its id and route: a message of an exception may quote a secret."""
        route = self.route or "-"
        logger.error("request failed: %s at %s, route %s, id %s", what, where, route, self._some_request_id())

    async def receive(self) -> Message:
        """ASGI's receive: the body as it comes, then, once it is known, the disconnect."""
        if self._expects_continue and not self.response_started:
            self._expects_continue = False
            if not self.disconnected:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.disconnected or self.response_complete):
            if self._parts or (self._body_done and not self._body_told):
                return self._take_body()
            self._connection.want_body()
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            await self._event.wait()
        return {"type": "http.disconnect"}

    def _take_body(self) -> Message:
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self._buffered = 0
        self._body_told = self._body_done
        return {"type": "http.request", "body": body, "more_body": not self._body_done}

    async def send(self, message: Message) -> None:
        """ASGI's send."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        kind = message["type"]
        if kind == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            self._held_head = self._begin(message["status"], headers, None)
            # Two writes cost twice a request's system calls; the body mostly follows at once.
            asyncio.get_running_loop().call_soon(self._send_held_head)
        elif kind != "http.response.body":
            raise RuntimeError(f"The ASGI message {kind!r} is not known here.")
        elif message.get("more_body", False):
            self.write(message.get("body", b""))
        else:
            self.finish(message.get("body", b""))

    # What the connection tells.

    def body_arrived(self, parts: list[bytes], *, done: bool) -> bool:
        """Takes more of the request's body; True if enough is waiting for the application to take."""
        self._expects_continue = False
        self._body_done = done
        if self.response_complete:
            return False
        self._parts += parts
        for part in parts:
            self._buffered += len(part)
        self._wake()
        return self._buffered > READ_BUFFER_HIGH_BYTES and not done

    def lost(self) -> None:
        """The client has gone, or its request was refused half-way."""
        if self.response_complete:
            return
        self.disconnected = True
        self._parts.clear()
        self._wake()
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()


def _where(error: BaseException) -> str:
    """File and line where ``error`` was raised, from our own code's innermost frame where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if "/app/" in frame.filename), frames[-1])
    return f"{frame.filename.rpartition('/app/')[2]}:{frame.lineno}"
