"""A client that sees the bytes: each HTTP chunk as it stands on the wire, and whether the end was clean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

RESPONSES, CHAT, EMBEDDINGS = "/v1/responses", "/v1/chat/completions", "/v1/embeddings"
BOUNDARIES = (b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\r", b"\r\r\n")
ASK_S_MAX = 60.0
_LINE_BYTES_MAX = 2**20


@dataclass
class Told:
    """One answer. ``chunks`` are its HTTP chunks; a body that has a length is one of them."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes] = field(default_factory=list)
    is_whole: bool = False
    took_s: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cache(self) -> str:
        return self.headers["x-headgate-cache"]

    @property
    def detail(self) -> str:
        """What ``Cache-Status`` says behind the gateway's name."""
        return self.headers["cache-status"].removeprefix("headgate; ")

    @property
    def request_id(self) -> str:
        return self.headers["x-headgate-request-id"]

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events' data, of a stream whose lines end in LF."""
        lines = self.body.decode().splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    @property
    def response(self) -> dict[str, Any]:
        """The response, or the chat completion as far as its first chunk has it."""
        if not self.is_stream:
            return self.json
        events = self.events
        return events[-1]["response"] if "response" in events[-1] else events[0]

    @property
    def id(self) -> str:
        """Of the response."""
        return self.response["id"]

    @property
    def code(self) -> str | None:
        """Of an error."""
        return None if self.status < 400 else self.json["error"]["code"]

    def check_boundaries(self) -> None:
        """Each chunk ends where an event does."""
        assert not [chunk[-20:] for chunk in self.chunks if not chunk.endswith(BOUNDARIES)]


class Visit:
    """One request on a connection of its own, from which its client may go at any time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._began_s = asyncio.get_running_loop().time()
        self.told: Told | None = None

    @classmethod
    async def begin(
        cls, port: int, key: str, body: Mapping[str, Any], *, path: str = RESPONSES, headers: Sequence[str] = ()
    ) -> Self:
        """``headers`` are whole lines."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LINE_BYTES_MAX)
        raw = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "host: gateway",
            f"authorization: Bearer {key}",
            "content-type: application/json",
            f"content-length: {len(raw)}",
            *headers,
        ]
        visit = cls(reader, writer)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
        return visit

    async def head(self) -> Told:
        """Wait for the answer's head. ConnectionError where there is none."""
        if self.told is None:
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                raise ConnectionResetError("there was no answer") from error
            first, *rest = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            self.told = Told(int(first.split()[1]), headers)
        return self.told

    async def chunk(self) -> bytes:
        """Wait for one more chunk; empty at the clean end. IncompleteReadError, ConnectionError where it is cut."""
        told = await self.head()
        if "content-length" in told.headers:
            told.chunks.append(await self._reader.readexactly(int(told.headers["content-length"])))
            told.is_whole = True
            return b""
        size = int((await self._reader.readuntil(b"\r\n")).rstrip(), 16)
        data = await self._reader.readexactly(size)
        await self._reader.readexactly(2)
        if data:
            told.chunks.append(data)
        told.is_whole = not data
        return data

    async def rest(self) -> Told:
        """All of it, or what there is of it."""
        try:
            async with asyncio.timeout(ASK_S_MAX):
                told = await self.head()
                try:
                    while await self.chunk():
                        pass
                except (asyncio.IncompleteReadError, ConnectionError):
                    told.is_whole = False
                told.took_s = asyncio.get_running_loop().time() - self._began_s
                return told
        finally:
            self.leave()

    def leave(self) -> None:
        """Close the connection, whatever it is waiting for."""
        self._writer.close()


async def ask(
    port: int, key: str, body: Mapping[str, Any], *, path: str = RESPONSES, headers: Sequence[str] = ()
) -> Told:
    """The answer to one request."""
    return await (await Visit.begin(port, key, body, path=path, headers=headers)).rest()
