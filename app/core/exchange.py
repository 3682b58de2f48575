"""One request and its answer, as every stage sees them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

import msgspec

from app.core.errors import Headers

Dialect = Literal["responses", "chat", "embeddings", "other"]
"""Which shape a body and its answer have, as far as the gateway must read them."""


class Endpoint(msgspec.Struct, frozen=True):
    """One row of the endpoint table: what the gateway knows of a method and a path.

    ``family`` is what keys are given, and what records and metrics call it. ``path`` is the upstream's, below its
    base URL; of ``{kind}`` in it the object must be the team's, while ``<name>`` belongs to the object before it.
    ``metered``: a request costs, and leaves a record. ``body`` says what is read of a request: ``json`` and ``form``
    whole, ``upload`` as it comes. ``creates`` is the kind of the object that an answer's ``id`` names, ``lists`` that
    of a list of the team's own objects, and ``learns`` that of what an answer lists and the upstream made.
    ``unbilled``: it costs at the provider, and what it costs is on no bill here. ``known``: ids in body and answer are
    looked at; False only for a path that is in no table.
    """

    family: str
    method: str
    path: str
    metered: bool = False
    dialect: Dialect = "other"
    body: Literal["", "json", "form", "json form", "upload"] = ""
    creates: str = ""
    lists: str = ""
    learns: str = ""
    filters: tuple[str, ...] = ()
    cacheable: bool = False
    unbilled: bool = False
    known: bool = True


class BodyStream(Protocol):
    """A request's body that is handed on as it comes. Read by one task."""

    length: int | None
    """What was declared; None where the body's end tells it."""

    async def read(self) -> bytes:
        """The next piece, b"" at the end.

        Raises ClientGone where the client left before that, BodyTooLarge, and Overloaded before the first piece.
        What was handed on until then is not to be taken for a whole body.
        """
        ...


class Connection(Protocol):
    """The client's side of an exchange, as the server gives it.

    ``respond``, or ``start``, any number of ``write`` and ``finish``; ``write_all`` is many of them at once. None
    of them waits, and all do nothing once the client has gone: whoever writes a lot asks ``write_paused`` and
    waits for ``drained``.
    """

    disconnected: bool
    response_started: bool

    @property
    def write_paused(self) -> bool: ...

    def on_disconnect(self, callback: Callable[[], None]) -> None: ...
    def abort(self) -> None: ...
    async def drained(self, timeout_s: float) -> bool: ...
    def respond(self, status: int, headers: Headers, body: bytes) -> None: ...
    def start(self, status: int, headers: Headers) -> None: ...
    def write(self, data: bytes) -> None: ...
    def write_all(self, pieces: Sequence[bytes]) -> None: ...
    def finish(self, last: bytes = b"") -> None: ...


class Exchange:
    """A request on its way through the pipeline. ``started_s`` is of the monotonic clock.

    ``path`` is what the upstream is asked for, below its base URL; ``ids`` are the objects that it names, each with
    its kind. ``media`` is the kind of its body: ``json``, ``form``, ``upload`` or "" for none. ``read_body`` reads the
    body whole, ``open_body`` as it comes: one of them, once.
    ``forget_body`` is called once nobody holds the body any more: it no longer counts as in flight.
    """

    __slots__ = (
        "connection",
        "credential",
        "endpoint",
        "forget_body",
        "headers",
        "ids",
        "media",
        "method",
        "open_body",
        "path",
        "peer",
        "query",
        "read_body",
        "received_ms",
        "request_id",
        "started_s",
        "wants_socket",
    )

    def __init__(
        self,
        *,
        request_id: str,
        received_ms: int,
        started_s: float,
        endpoint: Endpoint,
        query: bytes,
        headers: Headers,
        credential: str | None,
        peer: str,
        connection: Connection,
        read_body: Callable[[], Awaitable[bytes]],
        open_body: Callable[[], BodyStream],
        forget_body: Callable[[], None],
        method: str = "",
        path: str = "",
        media: str = "json",
        ids: tuple[tuple[str, str], ...] = (),
        wants_socket: bool = False,
    ) -> None:
        self.request_id = request_id
        self.received_ms = received_ms
        self.started_s = started_s
        self.endpoint = endpoint
        self.query = query
        self.headers = headers
        self.credential = credential
        self.peer = peer
        self.connection = connection
        self.read_body = read_body
        self.open_body = open_body
        self.forget_body = forget_body
        self.method = method or endpoint.method
        self.media = media
        self.path = path or endpoint.path
        self.ids = ids
        self.wants_socket = wants_socket

    def __repr__(self) -> str:
        return f"Exchange(request_id={self.request_id!r}, endpoint={self.endpoint.family!r})"


class ClientGone(Exception):
    """The client left before its request was complete: nothing to answer, nothing to account."""
