"""Reads a request's body, whole or as it comes, under a bound for each and one for all together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, Protocol, TypeAlias

from app.core.errors import BodyTooLarge, Headers, Overloaded, UnsupportedContentEncoding, UnsupportedMediaType
from app.core.exchange import ClientGone
from app.edge.decoding import BodyDecoder, encodings_of

Media: TypeAlias = Literal["", "json", "form", "upload"]

_LENGTHS = (b"content-length", b"transfer-encoding")
_UTF_8 = (b"utf-8", b"utf8", b"")
_WORDS = {"form": "multipart/form-data", "json form": "application/json or multipart/form-data"}

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

PIECE_BYTES_MAX = 64 * 1024
"""What a body that streams hands on at once."""

DECODED_AT_ONCE_BYTES = 1024 * 1024
"""What is decoded of a body before it is counted."""


class Bringing(Protocol):
    """The connection that brings the body."""

    body_length: int | None

    def expect_upload(self) -> None: ...


class BodyBudget:
    """What the bodies of all requests together may hold."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0

    def __repr__(self) -> str:
        return f"BodyBudget(held={self.held}, bytes_max={self.bytes_max})"

    def take(self, size: int) -> None:
        """Raises Overloaded where it is used up."""
        if self.held + size > self.bytes_max:
            raise Overloaded("The gateway is at its limit of request bodies in flight.")
        self.held += size

    def count(self, size: int) -> None:
        """Take without being refused: for the little that is held of a body half of which is upstream already."""
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size


class BodyReader:
    """The body of one request; ``close`` gives back what it holds."""

    __slots__ = ("_budget", "_bytes_max", "_connection", "_held", "_receive", "_upload_bytes_max", "encodings")

    def __init__(
        self, receive: Receive, budget: BodyBudget, connection: Bringing, *, bytes_max: int, upload_bytes_max: int
    ) -> None:
        self._receive = receive
        self._budget = budget
        self._connection = connection
        self._bytes_max = bytes_max
        self._upload_bytes_max = upload_bytes_max
        self._held = 0
        self.encodings: tuple[str, ...] = ()
        """How the body is encoded, in the order in which that was done."""

    def check_length(self, *, streams: bool) -> None:
        """Raises BodyTooLarge where the client has declared more than may come. Nothing is read for that."""
        declared = self._connection.body_length
        if declared is not None and declared > (self._upload_bytes_max if streams else self._bytes_max):
            raise BodyTooLarge

    async def read(self) -> bytes:
        """The whole body, decoded.

        Raises BodyTooLarge, Overloaded, ClientGone where it stays incomplete, InvalidRequest where it is broken.
        """
        body = await self._read_whole()
        return await self._decode(body) if self.encodings else body

    async def _read_whole(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            part: bytes = message.get("body", b"")
            if part:
                if self._held + len(part) > self._bytes_max:
                    raise BodyTooLarge
                self._budget.take(len(part))
                self._held += len(part)
                parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _decode(self, encoded: bytes) -> bytes:
        """What is decoded counts as held from then on.

        Off the event loop however small it is: 67 bytes of br can take 10 ms.
        """
        decoder = BodyDecoder(self.encodings, encoded, bytes_max=self._bytes_max)
        parts: list[bytes] = []
        while not decoder.ended:
            parts.append(await asyncio.to_thread(decoder.take, DECODED_AT_ONCE_BYTES))
            self.hold(self._held + len(parts[-1]), may_refuse=True)
        self.hold(self._held - len(encoded), may_refuse=False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def stream(self) -> StreamedBody:
        """The body as it comes, in place of ``read``."""
        return StreamedBody(self, self._receive, self._connection, self._upload_bytes_max)

    def hold(self, size: int, *, may_refuse: bool) -> None:
        """Hold so much in all. Raises Overloaded where there is no room and it may be refused."""
        if size > self._held and may_refuse:
            self._budget.take(size - self._held)
        else:
            self._budget.count(size - self._held)
        self._held = size

    def close(self) -> None:
        self._budget.give_back(self._held)
        self._held = 0


class StreamedBody:
    """A body that is handed on piece by piece: a ``BodyStream``.

    It counts in the budget with what has been taken from the connection and not been handed on. The connection
    is read no further while that is more than a little, so that the client waits for whoever reads here.
    """

    __slots__ = (
        "_at",
        "_begun",
        "_bytes_max",
        "_connection",
        "_ended",
        "_reader",
        "_receive",
        "_rest",
        "_size",
        "length",
    )

    def __init__(self, reader: BodyReader, receive: Receive, connection: Bringing, bytes_max: int) -> None:
        self.length = connection.body_length
        self._reader = reader
        self._receive = receive
        self._connection = connection
        self._bytes_max = bytes_max
        self._begun = self._ended = False
        self._size = 0
        self._rest = b""
        self._at = 0

    def __repr__(self) -> str:
        return f"StreamedBody(length={self.length}, size={self._size}, ended={self._ended})"

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises ClientGone, BodyTooLarge, and Overloaded before the first one."""
        if self._at >= len(self._rest):
            await self._refill()
        piece = self._rest[self._at : self._at + PIECE_BYTES_MAX]
        self._at += len(piece)
        return piece

    async def _refill(self) -> None:
        self._rest = b""
        self._at = 0
        self._reader.hold(0, may_refuse=False)
        if not self._begun:
            # Not before: until somebody reads, the client may be waiting for 100 Continue.
            self._connection.expect_upload()
        while not (self._rest or self._ended):
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            part: bytes = message.get("body", b"")
            self._size += len(part)
            if self._size > self._bytes_max:
                raise BodyTooLarge
            self._reader.hold(len(part), may_refuse=not self._begun)
            self._begun = True
            self._rest = part
            self._ended = not message.get("more_body", False)


def check_media(headers: Headers, accepts: str) -> tuple[Media, tuple[str, ...]]:
    """What kind of body comes with a request, "" for none, and how it is encoded. ``accepts``: what the endpoint takes
    of ``json`` and ``form``. Raises UnsupportedMediaType or UnsupportedContentEncoding.
    """
    kind = encoding = length = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding":
            encoding = value
        elif name in _LENGTHS:
            length = value
    encodings = encodings_of(encoding) if encoding else ()
    if kind == b"application/json" and "json" in accepts:
        return "json", encodings
    if not kind and length in {b"", b"0"}:
        return "", ()
    media, _, parameters = kind.partition(b";")
    media = media.strip().lower()
    if media == b"multipart/form-data" and "form" in accepts:
        return "form", encodings
    if media != b"application/json" or "json" not in accepts:
        raise UnsupportedMediaType(
            None if accepts == "json" else f"The content type must be {_WORDS[accepts]}.",
        )
    for parameter in parameters.lower().split(b";") if parameters else ():
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip(b'" \t') not in _UTF_8:
            raise UnsupportedMediaType("The body must be UTF-8.")
    return "json", encodings


def check_upload_media(headers: Headers, *, is_form: bool) -> None:
    """Raise UnsupportedMediaType or UnsupportedContentEncoding where the body does not come plain, or is no form where
    it ``is_form``.
    """
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise UnsupportedContentEncoding("An upload must come without content-encoding.")
    if is_form and kind.partition(b";")[0].strip().lower() != b"multipart/form-data":
        raise UnsupportedMediaType("The content type must be multipart/form-data.")
