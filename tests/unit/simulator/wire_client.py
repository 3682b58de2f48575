"""A client that sees each HTTP chunk: what was one write on the server is one chunk here."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reply:
    """``whole`` is False where the connection ended before the message did."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    whole: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[dict[str, Any]]:
        return events_in(self.body)


def events_in(body: bytes) -> list[dict[str, Any]]:
    """The data of every whole event, whatever its line ends; ``[DONE]`` left out."""
    text = body.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    data = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(item) for item in data if item != "[DONE]"]


class Connection:
    """One connection to the simulator, over TCP or a unix socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, address: tuple[str, int] | str) -> Connection:
        if isinstance(address, str):
            return cls(*await asyncio.open_unix_connection(address))
        return cls(*await asyncio.open_connection(*address))

    async def send(
        self, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1",
            "host: simulator",
            f"content-length: {len(data)}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        await self.writer.drain()

    async def read_head(self) -> Reply:
        reply = Reply()
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return reply
        reply.status = int(head[0].split()[1])
        for line in head[1:]:
            name, colon, value = line.partition(": ")
            if colon:
                reply.headers[name.lower()] = value
        return reply

    async def read_chunk(self) -> bytes | None:
        """One chunk of a chunked body; None at its proper end. Raises where it ends improperly."""
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        data = (await self.reader.readexactly(size + 2))[:-2]
        return data or None

    async def read(self) -> Reply:
        reply = await self.read_head()
        if not reply.status:
            return reply
        try:
            if "content-length" in reply.headers:
                left = int(reply.headers["content-length"])
                while left and (data := await self.reader.read(left)):
                    reply.chunks.append(data)
                    left -= len(data)
                reply.whole = left == 0
            else:
                while (chunk := await self.read_chunk()) is not None:
                    reply.chunks.append(chunk)
                reply.whole = True
        except (asyncio.IncompleteReadError, ConnectionResetError):
            reply.whole = False
        return reply

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionResetError):
            await self.writer.wait_closed()
