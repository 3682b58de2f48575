"""Reads a request's body whole, under a bound for each and one for all together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app.core.errors import BodyTooLarge, Headers, Overloaded, UnsupportedContentEncoding, UnsupportedMediaType
from app.core.exchange import ClientGone

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class BodyBudget:
    """What the bodies of all requests together may hold."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._held = 0

    def __repr__(self) -> str:
        return f"BodyBudget(held={self._held}, bytes_max={self.bytes_max})"

    def take(self, size: int) -> None:
        """Raises Overloaded where it is used up."""
        if self._held + size > self.bytes_max:
            raise Overloaded("The gateway is at its limit of request bodies in flight.")
        self._held += size

    def give_back(self, size: int) -> None:
        self._held -= size


class BodyReader:
    """The body of one request; ``close`` gives back what it holds."""

    __slots__ = ("_budget", "_bytes_max", "_held", "_receive")

    def __init__(self, receive: Receive, budget: BodyBudget, bytes_max: int) -> None:
        self._receive = receive
        self._budget = budget
        self._bytes_max = bytes_max
        self._held = 0

    async def read(self) -> bytes:
        """The whole body. Raises BodyTooLarge, Overloaded, or ClientGone where it stays incomplete."""
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

    def close(self) -> None:
        self._budget.give_back(self._held)
        self._held = 0


def check_media(headers: Headers) -> None:
    """Raise UnsupportedMediaType or UnsupportedContentEncoding where the body is not plain JSON."""
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise UnsupportedContentEncoding
    if kind == b"application/json":
        return
    media, _, parameters = kind.partition(b";")
    if media.strip().lower() != b"application/json":
        raise UnsupportedMediaType
    charset = parameters.strip().lower().partition(b"charset=")[2].strip(b'" ')
    if charset and charset not in {b"utf-8", b"utf8"}:
        raise UnsupportedMediaType("The body must be UTF-8.")
