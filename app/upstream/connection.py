"""One connection to an upstream: a request out, its answer in, and then the next one.

llhttp tokenizes each head with a fresh parser, and only once the whole head is here and its size is known;
the same parser then takes a chunked body apart. Other bodies are delimited here: llhttp does not know an
answer to a HEAD, and would read bytes after an answer as another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import ssl
from functools import lru_cache
from typing import Protocol, cast

import httptools

from app.core.errors import Headers
from app.core.exchange import BodyStream
from app.upstream.sending import PART_BYTES, send_body

HEAD_BYTES_MAX = 64 * 1024
HEADER_LINE_BYTES_MAX = 32 * 1024
HEADERS_MAX = 128
INFORMATIONAL_MAX = 16
UNREAD_BYTES_HIGH = 32 * 1024
"""With more than this of an answer waiting to be taken, the upstream is not read."""
READ_BYTES = 32 * 1024
"""The most that is read at once."""

# What is awaited of the upstream.
_HEAD, _BY_LENGTH, _BY_CHUNKS, _BY_CLOSE = range(4)

_VERSION = b"HTTP/1."
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})[ \r]")
_HEAD_END = b"\r\n\r\n"
_READ = frozenset((b"content-length", b"transfer-encoding", b"connection", b"content-type", b"content-encoding"))


class ClientError(Exception):
    """A call that brought no whole answer.

    ClientError
    ├── NotConnected            nothing was written: refused, no such host, TLS, the time to connect is over
    │   └── TooManyConnections  as many connections are in use as there may be
    ├── ConnectionBroken        lost after something was written (before the head, or in the body): perhaps billed
    └── BadAnswer               what came is no HTTP/1.x answer, or has more of a head than is read
    """


class NotConnected(ClientError):
    pass


class TooManyConnections(NotConnected):
    pass


class ConnectionBroken(ClientError):
    pass


class BadAnswer(ClientError):
    pass


class Pool(Protocol):
    """What a connection needs of the pool that it is in."""

    def release(self, connection: Connection) -> None:
        """The connection may carry the next request."""

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""


class Incoming:
    """An answer as far as it has come: the connection's to fill, one reader's to take."""

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: Headers = []
        """Names in lower case, values as they came, in order."""
        self.content_type = ""
        """The media type alone, in lower case; empty where none is told."""
        self.content_encoding = ""
        """In lower case; empty or ``identity`` where there is none."""
        self.is_delimited = True
        """Whether the upstream told where the body ends, or closes the connection for that."""
        # None once the answer has ended, properly or not.
        self.connection: Connection | None = connection
        self.failure: ClientError | None = None
        self.parts: list[bytes] = []
        # Bytes of the wire since the parts were last taken: never less than what they hold.
        self.unread = 0
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Waits for anything to happen to the answer or its connection."""
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def raise_failure(self) -> None:
        if self.failure is not None:
            # Another one each time: with a traceback, the one that is kept would be a reference cycle.
            raise type(self.failure)(*self.failure.args)


class _Head:
    """An answer's head, and what llhttp tells of it and of a chunked body after it."""

    __slots__ = ("began", "closes", "complete", "headers", "in_head", "on_body", "read")

    def __init__(self, parts: list[bytes]) -> None:
        self.began = self.closes = self.complete = False
        self.in_head = True
        self.headers: Headers = []
        self.read: dict[bytes, bytes] = {}
        """The headers that the client itself reads."""
        self.on_body = parts.append

    def on_message_begin(self) -> None:
        if self.began:
            # Bytes after the answer, about to be taken for another one.
            raise ValueError
        self.began = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            # Trailers go nowhere.
            return
        name = name.lower()
        value = value.rstrip(b" \t")
        self.headers.append((name, value))
        if name in _READ:
            self.read[name] = value if name not in self.read else self.read[name] + b", " + value

    def on_message_complete(self) -> None:
        self.complete = True


def _parse_head(data: bytes, head: _Head) -> tuple[httptools.HttpResponseParser, int]:
    """The parser for a body after ``data``, and the status. Raises BadAnswer."""
    line = _STATUS_LINE.match(data)
    if line is None:
        raise BadAnswer("The status line is not one of HTTP/1.x.")
    fields = data.count(b"\n") - 2
    if fields > HEADERS_MAX or len(data) > HEAD_BYTES_MAX:
        raise BadAnswer("The answer's head is too large.")
    if len(data) > HEADER_LINE_BYTES_MAX and max(map(len, data.split(b"\r\n"))) > HEADER_LINE_BYTES_MAX:
        raise BadAnswer("A header of the answer is too long.")
    parser = httptools.HttpResponseParser(head)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        raise BadAnswer("The upstream switches protocols, which nobody asked for.") from None
    except httptools.HttpParserError as error:
        # llhttp's reasons are constant texts.
        raise BadAnswer(f"The answer's head is not valid HTTP: {error}.") from None
    head.in_head = False
    is_http10 = line[1] == b"0"
    encoding = head.read.get(b"transfer-encoding")
    # A second content-length, and one beside a transfer-encoding, are refused by llhttp.
    if len(head.headers) != fields or (encoding is not None and (is_http10 or encoding.lower() != b"chunked")):
        raise BadAnswer("The answer's head is not valid HTTP, or its transfer-encoding is not plain chunked.")
    head.closes = is_http10 or _has_close(head.read.get(b"connection", b""))
    return parser, int(line[2])


def _check_partial_head(held: bytes | bytearray, fresh_at: int) -> None:
    """Refuses at once what can no longer become a good head; it was checked before up to ``fresh_at``."""
    if held[:7] != _VERSION[: len(held)] or len(held) > HEAD_BYTES_MAX:
        raise BadAnswer("What came is not HTTP/1.x, or its head is too large.")
    if fresh_at and held[fresh_at - 1] == ord("\r"):
        fresh_at -= 1
    if held.count(b"\n", fresh_at) != held.count(b"\r\n", fresh_at):
        raise BadAnswer("Lines of the answer's head do not end in CR LF.")


@lru_cache(maxsize=64)
def _media_type(content_type: bytes) -> str:
    return content_type.partition(b";")[0].strip().lower().decode("latin-1")


@lru_cache(maxsize=64)
def _has_close(connection: bytes) -> bool:
    return b"close" in [token.strip() for token in connection.lower().split(b",")]


_read_view = memoryview(bytearray(READ_BYTES))


class Connection(asyncio.BufferedProtocol):
    """Carries one request at a time, again and again.

    A buffered protocol, since uvloop would otherwise read up to 256 KiB at once, which a slow client makes
    us hold. What is read is copied out before the next read, so one buffer serves every connection.
    """

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answer: Incoming | None = None
        self.closed = False
        self.idle_since_s = 0.0
        """When it was last given back; the pool's to set."""
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._awaited = _HEAD
        self._left = 0
        self._informational = 0
        self._closes = self._is_head = self._sending = False
        self._reading_paused = self.writing_paused = False
        self._held: bytearray | None = None
        self._head: _Head | None = None
        self._parser: httptools.HttpResponseParser | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self.answer is None else "in use"
        return f"Connection({state}, sending={self._sending}, reading_paused={self._reading_paused})"

    # For the client.

    def is_quiet(self) -> bool:
        """Whether nothing has come from the upstream, not even an end that the event loop has not seen yet."""
        if self._poll is None and self._transport is not None:
            self._poll = select.poll()
            # An end or a reset can be read too.
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return self._poll is not None and not self._poll.poll(0)

    async def exchange(self, answer: Incoming, head: bytes, body: bytes | BodyStream | None, *, is_head: bool) -> None:
        """Sends a request and waits for the head of its answer. Raises ClientError, and what ``body`` raises.

        Where that does not come, be it by cancellation, the connection is closed.
        """
        transport = self._transport
        if transport is None or self.closed:
            raise NotConnected("The upstream closed the connection at once.")
        self.answer = answer
        self._awaited = _HEAD
        self._is_head = is_head
        self._informational = 0
        try:
            if body is None:
                transport.write(head)
            elif isinstance(body, bytes) and len(body) <= PART_BYTES:
                transport.write(head + body)
            else:
                self._sending = True
                self._sending = not await send_body(self, transport, answer, head, body)
            while answer.status == 0:
                answer.raise_failure()
                await answer.wait(self.loop)
        except BaseException:
            if answer.connection is not None:
                self.abandon("The request was given up.")
            raise

    def read_on(self) -> None:
        """What was waiting has been taken."""
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def abandon(self, reason: str) -> None:
        """Closes at once, whatever is on it."""
        self._fail(ConnectionBroken(reason))

    def _fail(self, failure: ClientError) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.connection = None
            answer.failure = failure
            answer.wake()
        if not self.closed:
            self.closed = True
            self._parser = self._head = self._held = None
            self._pool.forget(self)
            if self._transport is not None:
                self._transport.abort()

    # For the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return _read_view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_read_view[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """The next bytes of the wire."""
        answer = self.answer
        if answer is None:
            # Nobody asked: the next request must not take it for its answer.
            self.abandon("The upstream sent more than its answer.")
            return
        try:
            if self._awaited == _HEAD:
                self._take_head(answer, data)
            else:
                self._take_body(answer, data)
        except BadAnswer as error:
            self._fail(ConnectionBroken(*error.args) if answer.status else error)
        answer.wake()

    def eof_received(self) -> None:
        if self.answer is not None and self._awaited == _BY_CLOSE and self._is_true_end():
            self.answer.wake()
            self._end(self.answer, reusable=False)
        self.abandon("The upstream closed the connection.")

    def _is_true_end(self) -> bool:
        """Whether TLS, where it is used, has said the end: anyone on the way can end a TCP connection."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        with contextlib.suppress(ssl.SSLError):
            return tls is None or tls.read(1) == b""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.abandon("The connection was lost.")
        self._transport = self._poll = None

    def pause_writing(self) -> None:
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.answer is not None:
            self.answer.wake()

    # The answer.

    def _take_head(self, answer: Incoming, data: bytes) -> None:
        """The answer's head out of what came, after any informational ones."""
        while data:
            end = data.find(_HEAD_END) if self._held is None else -1
            if end < 0:
                data, end = self._hold(data)
                if end < 0:
                    return
            head = _Head(answer.parts)
            parser, status = _parse_head(data[: end + 4], head)
            data = data[end + 4 :]
            if status >= 200:
                self._begin_body(answer, head, parser, status)
                if data or not self._left:
                    self._take_body(answer, data)
                return
            self._informational += 1
            if status == 101 or self._informational > INFORMATIONAL_MAX:
                raise BadAnswer("The upstream gives informational answers only, or switches protocols.")

    def _hold(self, data: bytes) -> tuple[bytes, int]:
        """Keeps a part of a head; returns all that is kept once the end of the head is in it, and where."""
        held = self._held = self._held or bytearray()
        fresh_at = len(held)
        held += data
        end = held.find(_HEAD_END, max(fresh_at - 3, 0))
        if end < 0:
            _check_partial_head(held, fresh_at)
            return b"", end
        self._held = None
        return bytes(held), end

    def _begin_body(self, answer: Incoming, head: _Head, parser: httptools.HttpResponseParser, status: int) -> None:
        read = head.read
        answer.status = status
        answer.headers = head.headers
        answer.content_type = _media_type(read.get(b"content-type", b""))
        answer.content_encoding = read.get(b"content-encoding", b"").lower().decode("latin-1")
        self._closes = head.closes
        self._left = -1
        if self._is_head or status in (204, 304):
            self._awaited = _BY_LENGTH
            self._left = 0
        elif b"content-length" in read:
            self._awaited = _BY_LENGTH
            self._left = int(read[b"content-length"])
        elif b"transfer-encoding" in read:
            self._awaited = _BY_CHUNKS
            self._head = head
            self._parser = parser
        else:
            self._awaited = _BY_CLOSE
            answer.is_delimited = False

    def _take_body(self, answer: Incoming, data: bytes) -> None:
        parts = answer.parts
        complete = surplus = False
        if self._awaited == _BY_LENGTH:
            self._left -= len(data)
            complete, surplus = self._left <= 0, self._left < 0
            data = data[: self._left] if surplus else data
            if data:
                parts.append(data)
        elif self._awaited == _BY_CLOSE:
            parts.append(data)
        elif self._head is not None and self._parser is not None:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                surplus = self._head.complete
                if not surplus:
                    raise BadAnswer(f"The chunked body is not valid HTTP: {error}.") from None
            complete = self._head.complete
        if complete:
            self._end(answer, reusable=not (surplus or self._closes))
            return
        answer.unread += len(data)
        if answer.unread > UNREAD_BYTES_HIGH and not self._reading_paused and self._transport is not None:
            if not parts:
                raise BadAnswer("The chunked body is more framing than body.")
            self._reading_paused = True
            self._transport.pause_reading()

    def _end(self, answer: Incoming, *, reusable: bool) -> None:
        """The answer is whole. A connection with unsent bytes of the request cannot take the next one."""
        self.answer = answer.connection = self._parser = self._head = None
        if reusable and not self._sending and self._transport and not self._transport.get_write_buffer_size():
            self.read_on()
            self._pool.release(self)
        else:
            self.abandon("It cannot be used again.")
