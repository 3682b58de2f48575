"""Which handler answers a method and a path, and what a handler is given and gives back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from app.simulator.errors import RequestRefused, refuse_value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.simulator.channel import Channel, Scope

    Handler = Callable[..., Awaitable["Reply | None"]]

BODY_BYTES_MAX = 64 * 1024 * 1024
JSON = b"application/json"


class Reply(NamedTuple):
    """A whole answer. A handler that has answered by itself gives None instead."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON


def json_reply(value: object, status: int = 200) -> Reply:
    """``value`` as an answer."""
    return Reply(msgspec.json.encode(value), status)


class Request:
    """A request that is no generation."""

    def __init__(self, scope: Scope, channel: Channel) -> None:
        self.method: str = scope.get("method", "GET")
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.channel = channel
        self._query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)

    def text(self, name: str) -> str | None:
        """The query's first value of ``name``."""
        values = self._query.get(name)
        return values[0] if values else None

    def flag(self, name: str) -> bool:
        """Whether the query says that ``name`` is true."""
        return self.text(name) in ("true", "True", "1")

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """The query's ``name`` as a whole number from ``low`` to ``high``."""
        told = self.text(name)
        if told is None:
            return default
        if not told.isascii() or not told.isdigit() or not low <= int(told[:18]) <= high:
            refuse_value(name, f"Invalid '{name}': expected an integer from {low} to {high}, but got {told!r}.")
        return int(told)

    async def body(self) -> bytes:
        """The request's whole body."""
        data = await self.channel.read_body(BODY_BYTES_MAX)
        if data is None:
            raise RequestRefused(413, f"The request body is longer than {BODY_BYTES_MAX} bytes.")
        return data

    async def members(self) -> dict[str, Any]:
        """The request's body as a JSON object; an absent one is empty."""
        return msgspec.json.decode(await self.body() or b"{}", type=dict[str, Any])

    def __repr__(self) -> str:
        return f"Request({self.method} {self.path})"


class Routes:
    """Handlers by method and pattern; ``{}`` in a pattern stands for an id."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str, int], list[tuple[tuple[str, ...], Handler]]] = {}

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Later patterns give way to earlier ones."""
        parts = tuple(pattern.split("/"))
        self._routes.setdefault((method, parts[0], len(parts)), []).append((parts, handler))

    def find(self, method: str, path: str) -> tuple[Handler, list[str]] | None:
        """The handler of ``path``, with the ids in it."""
        parts = path.removeprefix("/v1").removeprefix("/").split("/")
        for pattern, handler in self._routes.get((method, parts[0], len(parts)), ()):
            pairs = list(zip(pattern, parts, strict=True))
            if all(wanted == part or (wanted == "{}" and part) for wanted, part in pairs):
                return handler, [part for wanted, part in pairs if wanted == "{}"]
        return None

    def __repr__(self) -> str:
        return f"Routes({sum(map(len, self._routes.values()))})"
