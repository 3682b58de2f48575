"""Reads a request's body whole, under a bound for each and one for all together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, TypeAlias

from app.core.errors import BodyTooLarge, Headers, Overloaded, UnsupportedContentEncoding, UnsupportedMediaType
from app.core.exchange import ClientGone

Media: TypeAlias = Literal["", "json", "form", "upload"]

_LENGTHS = (b"content-length", b"transfer-encoding")
_WORDS = {"form": "multipart/form-data", "json form": "application/json or multipart/form-data"}

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


def check_media(headers: Headers, accepts: str) -> Media:
    """What kind of body comes with a request, "" for none, to an endpoint that ``accepts`` some of ``json``, ``form``
    and ``upload``. Raises UnsupportedMediaType or UnsupportedContentEncoding.
    """
    kind = length = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name in _LENGTHS:
            length = value
        elif name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise UnsupportedContentEncoding
    if accepts == "upload":
        return "upload"
    if kind == b"application/json" and "json" in accepts:
        return "json"
    if not kind and length in {b"", b"0"}:
        return ""
    media, _, parameters = kind.partition(b";")
    media = media.strip().lower()
    if media == b"multipart/form-data" and "form" in accepts:
        return "form"
    if media != b"application/json" or "json" not in accepts:
        raise UnsupportedMediaType(
            None if accepts == "json" else f"The content type must be {_WORDS[accepts]}.",
        )
    charset = parameters.strip().lower().partition(b"charset=")[2].strip(b'" ')
    if charset and charset not in {b"utf-8", b"utf8"}:
        raise UnsupportedMediaType("The body must be UTF-8.")
    return "json"
