"""One connection to an upstream: a request out, its answer in, and then the next one.

llhttp tokenizes each head with a fresh parser, and only once the whole head is here and its size is known;
the same parser then takes a chunked body apart. Bodies with a length, and those that the end of the
connection ends, are delimited here: llhttp knows of no answer to a HEAD, and would read the bytes after an
answer as another one.
"""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from typing import Protocol

import httptools

from app.core.errors import Headers

HEAD_BYTES_MAX = 64 * 1024
HEADER_LINE_BYTES_MAX = 32 * 1024
HEADERS_MAX = 128
INFORMATIONAL_MAX = 16
UNREAD_BYTES_HIGH = 64 * 1024
"""More than this of an answer waiting to be taken, and the upstream is not read on."""
FRAMING_BYTES_MAX = 64 * 1024
"""What chunk extensions and trailers may come to without a byte of body among them."""
PART_BYTES = 64 * 1024
"""A body up to this size is copied to stand beside its head in one write; a larger one goes out in such parts."""

# What is awaited of the connection.
_HEAD, _BY_LENGTH, _BY_CHUNKS, _BY_CLOSE = range(4)

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})[ \r]")
_VERSION = b"HTTP/1."
_HEAD_END = b"\r\n\r\n"
_READ = frozenset((b"content-length", b"transfer-encoding", b"connection", b"content-type", b"content-encoding"))


class ClientError(Exception):
    """A call that brought no whole answer.

    ClientError
    ├── NotConnected            nothing was written: refused, no such host, TLS, the time to connect is over
    │   └── TooManyConnections  all connections are in use
    ├── ConnectionBroken        lost after something was written: before the head, or in the body
    └── BadAnswer               what came is no HTTP/1.x answer
    """


class NotConnected(ClientError):
    """Nothing was written."""


class TooManyConnections(NotConnected):
    """As many connections are in use as there may be."""


class ConnectionBroken(ClientError):
    """The connection was lost after something was written; the call may have been billed."""


class BadAnswer(ClientError):
    """What came is not an answer of HTTP/1.x, or more of a head than is read."""


class Pool(Protocol):
    """What a connection needs of the pool that it is in."""

    def release(self, connection: Connection) -> None:
        """The connection may carry the next request."""
        ...

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        ...


class Answer:
    """An answer whose head has come. Read by one task."""

    __slots__ = (
        "_waiter",
        "connection",
        "content_encoding",
        "content_type",
        "failure",
        "headers",
        "parts",
        "status",
        "unread",
    )

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: Headers = []
        """Names in lower case, values as they came, in order."""
        self.content_type = ""
        """The media type alone, in lower case; empty where none is told."""
        self.content_encoding = ""
        """In lower case; empty or ``identity`` where there is none."""
        self.connection: Connection | None = connection
        self.failure: ClientError | None = None
        self.parts: list[bytes] = []
        # Bytes of the wire since the last take: never less than what the parts hold.
        self.unread = 0
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = "failed" if self.failure is not None else "open" if self.connection is not None else "complete"
        return f"Answer(status={self.status}, {state}, unread={sum(map(len, self.parts))})"

    async def read_any(self) -> bytes:
        """What has come since, b"" at the proper end of the body.

        Raises ConnectionBroken where the body ended early or is not delimited as HTTP asks. May be
        cancelled and called again: nothing is lost by that.
        """
        parts = self.parts
        while not parts:
            if self.connection is None:
                if self.failure is not None:
                    # Another one each time: a traceback on the one that is held would be a cycle.
                    raise type(self.failure)(*self.failure.args)
                return b""
            await self.wait(self.connection.loop)
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.unread = 0
        if self.connection is not None:
            self.connection.read_on()
        return body

    def close(self) -> None:
        """Gives up an answer whose body has not come to its end: its connection is closed."""
        if self.connection is not None:
            self.fail(ConnectionBroken("The answer was given up."))

    # For the connection.

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Waits for anything to happen to the answer or to its connection."""
        self._waiter = waiter = loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fail(self, failure: ClientError) -> None:
        connection, self.connection = self.connection, None
        self.failure = failure
        if connection is not None:
            connection.answer = None
            connection.drop()
        self.wake()


class _Tokens:
    """Takes from llhttp the header fields of one answer, and the body if it is chunked."""

    __slots__ = ("began", "complete", "headers", "on_body")

    def __init__(self, parts: list[bytes]) -> None:
        self.began = False
        self.complete = False
        self.headers: Headers = []
        self.on_body = parts.append

    def on_message_begin(self) -> None:
        if self.began:
            # Bytes after the answer, which would be read as another one.
            raise ValueError
        self.began = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.complete = True


class _Head:
    """An answer's head that HTTP allows."""

    __slots__ = ("chunked", "closes", "content_encoding", "content_type", "headers", "length", "parser", "status", "tokens")

    def __init__(self, head: bytes, parts: list[bytes]) -> None:
        """``head`` runs from the status line to its empty line. Raises BadAnswer."""
        line = _STATUS_LINE.match(head)
        if line is None:
            raise BadAnswer("The status line is not one of HTTP/1.x.")
        self.status = int(line[2])
        fields = head.count(b"\n") - 2
        if fields > HEADERS_MAX:
            raise BadAnswer("The answer has too many headers.")
        if len(head) > HEADER_LINE_BYTES_MAX and max(map(len, head.split(b"\r\n"))) > HEADER_LINE_BYTES_MAX:
            raise BadAnswer("A header of the answer is too long.")
        self.tokens = _Tokens(parts)
        self.parser = httptools.HttpResponseParser(self.tokens)
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            raise BadAnswer("The upstream switches protocols, which nobody asked for.") from None
        except httptools.HttpParserError as error:
            # llhttp's reasons are constant texts.
            raise BadAnswer(f"The answer's head is not valid HTTP: {error}.") from None
        self.headers = self.tokens.headers
        if len(self.headers) != fields or not 100 <= self.status <= 599:
            raise BadAnswer("The answer's head is not valid HTTP.")
        if b" \r" in head or b"\t" in head:
            self.headers = [(name, value.rstrip(b" \t")) for name, value in self.headers]
        # Trailers go nowhere.
        self.tokens.headers = []
        self._interpret(minor_version=line[1])

    def _interpret(self, *, minor_version: bytes) -> None:
        read: dict[bytes, bytes] = {}
        for name, value in self.headers:
            if name in _READ:
                read[name] = value if name not in read else read[name] + b", " + value
        encoding = read.get(b"transfer-encoding")
        # A second content-length, and one beside a transfer-encoding, are refused by llhttp.
        self.length = int(read.get(b"content-length", -1))
        self.chunked = encoding is not None
        if encoding is not None and (encoding.lower() != b"chunked" or minor_version == b"0"):
            raise BadAnswer("The only transfer-encoding is chunked, in HTTP/1.1.")
        connection = read.get(b"connection")
        self.closes = minor_version == b"0" or (connection is not None and _closes(connection))
        self.content_type = _media_type(read.get(b"content-type", b""))
        self.content_encoding = _lower(read.get(b"content-encoding", b""))


@lru_cache(maxsize=64)
def _closes(connection: bytes) -> bool:
    return b"close" in [token.strip() for token in connection.lower().split(b",")]


@lru_cache(maxsize=64)
def _media_type(content_type: bytes) -> str:
    return content_type.partition(b";")[0].strip().lower().decode("latin-1")


@lru_cache(maxsize=64)
def _lower(value: bytes) -> str:
    return value.lower().decode("latin-1")


def _check_partial_head(held: bytes | bytearray, fresh_at: int) -> None:
    """Refuses at once what can no longer become a good head; it was checked before up to ``fresh_at``."""
    if held[:7] != _VERSION[: len(held)]:
        raise BadAnswer("What came is not HTTP/1.x.")
    if len(held) > HEAD_BYTES_MAX:
        raise BadAnswer("The answer's head is too long.")
    if fresh_at and held[fresh_at - 1] == ord("\r"):
        fresh_at -= 1
    if held.count(b"\n", fresh_at) != held.count(b"\r\n", fresh_at):
        raise BadAnswer("Lines of the answer's head do not end in CR LF.")


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time, again and again."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answer: Answer | None = None
        self.closed = False
        self.idle_since_s = 0.0
        """When it was last given back; the pool's to set."""
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._awaited = _HEAD
        self._left = 0
        self._closes = False
        self._is_head = False
        self._sending = False
        self._informational = 0
        self._held: bytearray | None = None
        self._tokens: _Tokens | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._reading_paused = False
        self._writing_paused = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self.answer is None else "in use"
        return f"Connection({state}, sending={self._sending}, reading_paused={self._reading_paused})"

    # For the client.

    async def exchange(self, head: bytes, body: bytes | None, *, is_head: bool) -> Answer:
        """Sends a request and waits for the head of its answer. Raises ConnectionBroken or BadAnswer.

        Where it does not return an answer, cancelled or not, the connection is closed.
        """
        transport = self._transport
        if transport is None or self.closed:
            raise NotConnected("The upstream closed the connection at once.")
        self.answer = answer = Answer(self)
        self._awaited = _HEAD
        self._is_head = is_head
        self._informational = 0
        try:
            if body is None:
                transport.write(head)
            elif len(body) <= PART_BYTES:
                transport.write(head + body)
            else:
                await self._send(transport, answer, head, body)
            while answer.status == 0 and answer.failure is None:
                await answer.wait(self.loop)
        except BaseException:
            answer.close()
            raise
        if answer.status == 0 and answer.failure is not None:
            raise answer.failure
        return answer

    async def _send(self, transport: asyncio.Transport, answer: Answer, head: bytes, body: bytes) -> None:
        """A large body, part by part; the rest stays unsent once the upstream has refused it or gone."""
        self._sending = True
        transport.write(head + body[:PART_BYTES])
        rest = memoryview(body)
        for at in range(PART_BYTES, len(body), PART_BYTES):
            while self._writing_paused and answer.connection is not None and answer.status < 300:
                await answer.wait(self.loop)
            if answer.connection is None or answer.status >= 300:
                return
            transport.write(rest[at : at + PART_BYTES])
        self._sending = False

    def read_on(self) -> None:
        """What was waiting has been taken."""
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def drop(self) -> None:
        """Closes at once; the pool knows before this returns."""
        if self.closed:
            return
        self.closed = True
        self._parser = self._tokens = self._held = None
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()

    # For the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            # Nobody asked, so whatever it is, the next request must not take it for its answer.
            self.drop()
            return
        try:
            if self._awaited == _HEAD:
                self._take_head(answer, data)
            else:
                self._take_body(answer, data)
        except BadAnswer as error:
            answer.fail(error)
            return
        answer.wake()

    def eof_received(self) -> None:
        answer = self.answer
        if answer is not None and self._awaited == _BY_CLOSE:
            self._end(answer)
        self._lose("The upstream closed the connection.")

    def connection_lost(self, exc: Exception | None) -> None:
        # Without an end of file before it, a body that the end delimits was cut: by a reset, or under TLS.
        self._lose("The connection was lost.")
        self._transport = None

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self.answer is not None:
            self.answer.wake()

    def _lose(self, text: str) -> None:
        if self.answer is not None:
            self.answer.fail(ConnectionBroken(text))
        self.drop()

    # The answer.

    def _take_head(self, answer: Answer, data: bytes) -> None:
        """The answer's head out of what came, after any informational ones."""
        while True:
            end = self._end_of_head(data)
            if end < 0:
                return
            if self._held is not None:
                data = bytes(self._held)
                self._held = None
            if end > HEAD_BYTES_MAX:
                raise BadAnswer("The answer's head is too long.")
            head = _Head(data[:end], answer.parts)
            data = data[end:]
            if head.status >= 200:
                break
            self._informational += 1
            if head.status == 101 or self._informational > INFORMATIONAL_MAX:
                raise BadAnswer("The answer is informational only.")
            if not data:
                return
        answer.headers = head.headers
        answer.content_type = head.content_type
        answer.content_encoding = head.content_encoding
        self._delimit(answer, head)
        answer.status = head.status
        if data or (self._awaited == _BY_LENGTH and not self._left):
            self._take_body(answer, data)

    def _end_of_head(self, data: bytes) -> int:
        """Where the head ends that ``data`` begins or goes on with; -1 where its end has not come."""
        held = self._held
        if held is None:
            end = data.find(_HEAD_END)
            if end < 0 and data:
                _check_partial_head(data, 0)
                self._held = bytearray(data)
        else:
            fresh_at = len(held)
            held += data
            end = held.find(_HEAD_END, max(fresh_at - 3, 0))
            if end < 0:
                _check_partial_head(held, fresh_at)
        return end + 4 if end >= 0 else -1

    def _delimit(self, answer: Answer, head: _Head) -> None:
        self._closes = head.closes
        if self._is_head or head.status in (204, 304):
            self._awaited = _BY_LENGTH
            self._left = 0
        elif head.chunked:
            self._awaited = _BY_CHUNKS
            self._parser = head.parser
            self._tokens = head.tokens
        elif head.length >= 0:
            self._awaited = _BY_LENGTH
            self._left = head.length
        else:
            self._awaited = _BY_CLOSE

    def _take_body(self, answer: Answer, data: bytes) -> None:
        ...
