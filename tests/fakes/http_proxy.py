"""An HTTP proxy that passes on what it is asked to: by CONNECT, or in absolute form."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

BLOCK_BYTES = 65_536


class HTTPProxy:
    """Runs on the loop of the test. ``wants`` is the value of ``proxy-authorization`` without which it refuses;
    ``answer`` is said to every CONNECT instead of making a tunnel.
    """

    def __init__(self, *, wants: str = "", answer: bytes = b"") -> None:
        self.wants = wants
        self.answer = answer
        self.heads: list[str] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[str]:
        """The first line of each request."""
        return [head.partition("\r\n")[0] for head in self.heads]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        method, target, _ = head.partition("\r\n")[0].split(" ")
        told = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("proxy-authorization: ")]
        if self.wants and told != [self.wants]:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            return
        if method == "CONNECT":
            if self.answer:
                writer.write(self.answer)
                await reader.read()
                return
            host, _, port = target.rpartition(":")
            there = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")
        else:
            parts = urlsplit(target)
            there = await asyncio.open_connection(parts.hostname, parts.port or 80)
            lines = [line for line in head.split("\r\n") if not line.startswith("proxy-authorization: ")]
            lines[0] = f"{method} {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1"
            there[1].write("\r\n".join(lines).encode("latin-1"))
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(BLOCK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
