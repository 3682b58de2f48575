"""HTTP/1.1 requests as bytes, without I/O: what a head must be, and how a chunked body is taken apart.

llhttp tokenizes a head, a fresh parser for each, and only once the whole head is here and its size is
known: its buffers cannot grow and it carries nothing from one request to the next. What it lets pass is
refused here. Bodies are delimited here too, because a server that is to stop reading must know where a
request ends: llhttp tells neither that, nor a trailer from a header, nor what a chunk extension cost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

import httptools

from app.core.errors import (
    BodyTooLarge,
    GatewayError,
    Headers,
    HeadersTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    URITooLong,
)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a client may ask of the server before anyone knows who it is."""

    head_timeout_s: float = 5
    body_timeout_s: float = 60
    keepalive_timeout_s: float = 75
    slow_client_s: float = 60
    linger_s: float = 2
    header_bytes_max: int = 32 * 1024
    headers_max: int = 100
    target_bytes_max: int = 16 * 1024
    body_bytes_max: int = 1024 * 1024 * 1024
    """Of a body of any kind; the application has a narrower bound for those that it reads whole."""
    pipelined_bytes_max: int = 64 * 1024
    connections_max: int = 10_000


@dataclass(slots=True)
class Head:
    """A request's head that is fit to be served."""

    method: str
    raw_path: bytes
    path: str
    query: bytes
    minor_version: int
    headers: Headers
    content_length: int
    chunked: bool
    keep_alive: bool
    expects_continue: bool


METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
HEAD_END = b"\r\n\r\n"
REQUEST_LINE_REST_BYTES = 64
"""What a request line has beside its target: room for a method and a version."""

_REQUEST_LINE = re.compile(rb"([A-Z]+) (/[!\"$-~]*) HTTP/1\.([01])\r\n")
_ANY_REQUEST_LINE = re.compile(rb"([!-~]+) ([!-~]+) HTTP/([0-9]\.[0-9])\r\n")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LENGTH_DIGITS_MAX = 18

# Headers of which a second one would let two readers see two requests.
_ONCE = frozenset(
    (
        b"host",
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
    )
)
_READ = _ONCE | {b"connection", b"expect"}


class _Collector:
    """Takes header fields from llhttp."""

    __slots__ = ("headers", "heads")

    def __init__(self) -> None:
        self.headers: Headers = []
        self.heads = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.heads += 1


def parse_head(head: bytes, limits: ServerLimits) -> Head:
    """The request that ``head`` asks for; it runs from the request line to its empty line.

    Raises the GatewayError to answer with.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise _request_line_error(head)
    method, target, minor = line.groups()
    if len(target) > limits.target_bytes_max:
        raise URITooLong
    method_name = METHODS.get(method)
    if method_name is None:
        raise MethodNotAllowed(headers=_allow())
    fields = head.count(b"\n") - 2
    if fields > limits.headers_max or len(head) - line.end() > limits.header_bytes_max:
        raise HeadersTooLarge
    headers = _tokenize(head, fields)
    read = _read_once(headers)
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    minor_version = 1 if minor == b"1" else 0
    content_length, chunked = _framing(read, minor_version, limits)
    _check_host(read.get(b"host"), minor_version)
    connection = read.get(b"connection", b"keep-alive")
    return Head(
        method_name,
        raw_path,
        unquote(path) if "%" in path else path,
        query,
        minor_version,
        headers,
        content_length,
        chunked,
        minor_version == 1 and (connection == b"keep-alive" or not _has_token(connection, b"close")),
        minor_version == 1 and b"expect" in read and _has_token(read[b"expect"], b"100-continue"),
    )


def _tokenize(head: bytes, fields: int) -> Headers:
    if not head.isascii():
        raise InvalidRequest("The request head has bytes outside ASCII.")
    collector = _Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(head)
    except httptools.HttpParserUpgrade:
        # Said after a good head with Upgrade. Nothing is upgraded here, and the body stays a body.
        pass
    except httptools.HttpParserError as error:
        # llhttp's reasons are constant texts.
        raise InvalidRequest(f"The request head is not valid HTTP/1.1: {error}.") from None
    headers = collector.headers
    if len(headers) != fields or collector.heads != 1:
        raise InvalidRequest("The request head is not valid HTTP/1.1.")
    if b" \r" in head or b"\t" in head:
        headers = [(name, value.rstrip(b" \t")) for name, value in headers]
    if b"_" in head:
        # Many servers read a name with an underscore as its double with a hyphen.
        headers = [header for header in headers if b"_" not in header[0]]
    return headers


def _read_once(headers: Headers) -> dict[bytes, bytes]:
    """The headers that the server itself reads."""
    read: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name not in read:
                read[name] = value
            elif name in _ONCE:
                raise InvalidRequest(f"The request has two {name.decode()} headers.")
            else:
                read[name] += b"," + value
    return read


def _framing(read: dict[bytes, bytes], minor_version: int, limits: ServerLimits) -> tuple[int, bool]:
    """How the body is delimited: its length, and whether it is chunked instead."""
    length = read.get(b"content-length")
    encoding = read.get(b"transfer-encoding")
    if encoding is not None:
        if length is not None or minor_version == 0 or encoding.lower() != b"chunked":
            raise InvalidRequest("The only transfer-encoding is chunked, in HTTP/1.1, without content-length.")
        return 0, True
    if length is None:
        return 0, False
    if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
        raise InvalidRequest("The content-length is not a length.")
    if int(length) > limits.body_bytes_max:
        raise BodyTooLarge
    return int(length), False


def _check_host(host: bytes | None, minor_version: int) -> None:
    if host is None:
        if minor_version == 1:
            raise InvalidRequest("The request has no host header.")
    elif _HOST.fullmatch(host) is None:
        raise InvalidRequest("The host header is not a host.")


def _has_token(value: bytes, token: bytes) -> bool:
    return token in [part.strip(b" \t") for part in value.lower().split(b",")]


def _allow() -> Headers:
    return [(b"allow", b", ".join(METHODS))]


def _request_line_error(head: bytes) -> GatewayError:
    line = _ANY_REQUEST_LINE.match(head)
    if line is None:
        return InvalidRequest("The request line is not valid HTTP/1.1.")
    method, _, version = line.groups()
    if version not in (b"1.0", b"1.1"):
        return InvalidRequest("The only versions are HTTP/1.1 and HTTP/1.0.")
    if method not in METHODS:
        return MethodNotAllowed(headers=_allow())
    return InvalidRequest("The request target is not a path.")


def check_partial_head(held: bytes, fresh_at: int, limits: ServerLimits) -> None:
    """Refuses at once what can no longer become a good head.

    ``held`` has no empty line yet; it was checked before up to ``fresh_at``.
    """
    if fresh_at and held[fresh_at - 1] == ord("\r"):
        fresh_at -= 1
    if held.count(b"\n", fresh_at) != held.count(b"\r\n", fresh_at):
        raise InvalidRequest("Lines of the request head do not end in CR LF.")
    line_end = held.find(b"\r\n", 0, limits.target_bytes_max + REQUEST_LINE_REST_BYTES)
    if line_end < 0:
        if len(held) >= limits.target_bytes_max + REQUEST_LINE_REST_BYTES:
            raise URITooLong
        if not held[:1].isalpha():
            # TLS on the plain port, for one: it need not wait for the timeout.
            raise InvalidRequest("The request line is not valid HTTP/1.1.")
    elif _REQUEST_LINE.match(held) is None:
        raise _request_line_error(held)
    elif len(held) - line_end > limits.header_bytes_max:
        raise HeadersTooLarge


_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t -~]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*")
CHUNK_LINE_BYTES_MAX = 4096
FRAMING_BYTES_MAX = 16 * 1024
"""What a chunked body may spend on sizes, extensions and trailers, beside twice its own length."""


class ChunkedBody:
    """A chunked body being read. Extensions and trailers are checked for form and size, then dropped."""

    __slots__ = ("_body_bytes_max", "_framing_left", "_held", "_in_trailer", "_left", "_size", "done")

    def __init__(self, body_bytes_max: int) -> None:
        self.done = False
        self._body_bytes_max = body_bytes_max
        self._size = 0
        # Bytes of the current chunk still to come, its final CR LF included.
        self._left = 0
        self._in_trailer = False
        self._held = b""
        self._framing_left = FRAMING_BYTES_MAX

    def feed(self, data: bytes, parts: list[bytes]) -> bytes:
        """Appends to ``parts`` what ``data`` has of the body; returns what follows the body's end.

        Raises InvalidRequest or BodyTooLarge.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        at = 0
        while at < len(data) and not self.done:
            following = self._chunk(data, at, parts) if self._left else self._line(data, at)
            if following == at:
                self._held = data[at:]
                return b""
            at = following
        return data[at:]

    def _chunk(self, data: bytes, at: int, parts: list[bytes]) -> int:
        if self._left > 2:
            piece = data[at : at + self._left - 2]
            parts.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        end = data[at : at + 2]
        if not b"\r\n".startswith(end):
            raise InvalidRequest("A chunk does not end in CR LF.")
        if len(end) < 2:
            return at
        self._left = 0
        return at + 2

    def _line(self, data: bytes, at: int) -> int:
        line_end = data.find(b"\r\n", at, at + CHUNK_LINE_BYTES_MAX + 2)
        if line_end < 0:
            if len(data) - at > CHUNK_LINE_BYTES_MAX or b"\n" in data[at:]:
                raise InvalidRequest("A line of the chunked body is too long or does not end in CR LF.")
            return at
        line = data[at:line_end]
        self._framing_left -= len(line) + 2
        if self._in_trailer:
            if line and _TRAILER.fullmatch(line) is None:
                raise InvalidRequest("A trailer is not valid.")
            self.done = not line
        else:
            self._begin_chunk(line)
        if self._framing_left < 0:
            raise InvalidRequest("The chunked body is more framing than body.")
        return line_end + 2

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise InvalidRequest("A chunk's size is not valid.")
        size = int(match[1], 16)
        if size == 0:
            self._in_trailer = True
            return
        self._size += size
        if self._size > self._body_bytes_max:
            raise BodyTooLarge
        # Less the CR LF after the chunk.
        self._framing_left += 2 * size - 2
        self._left = size + 2
