"""An upstream that plays bytes: what it is told to write, when, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Self

JSON_HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM_HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"

Step = bytes | float | str
"""Bytes to write, seconds to wait, or "reset" / "close" / "hang"."""


class SeenRequest:
    """One request as it arrived."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = lines[0].split(" ", 2)
        self.headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        self.body = body


class PlayedUpstream:
    """A server on a thread of its own. ``play`` decides the steps of each answer from the request."""

    def __init__(self, play: Callable[[SeenRequest], Iterable[Step]]) -> None:
        self.play = play
        self.requests: list[SeenRequest] = []
        self.connections = 0
        self.lost = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        seen = SeenRequest(head.removesuffix(b"\r\n\r\n"), b"")
        seen.body = await reader.readexactly(int(seen.headers.get("content-length", 0)))
        self.requests.append(seen)
        for step in self.play(seen):
            if isinstance(step, bytes):
                writer.write(step)
                try:
                    await writer.drain()
                except ConnectionError:
                    self.lost += 1
                    return False
            elif step == "reset":
                writer.transport.abort()
                return False
            elif step == "close":
                return False
            elif step == "hang":
                rest = await reader.read(1)
                self.lost += rest == b""
                return False
            else:
                await asyncio.sleep(float(step))
        return True


def whole(body: bytes, head: str = JSON_HEAD) -> list[Step]:
    """An answer with its length."""
    return [head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body]


def chunked(pieces: Sequence[bytes], head: str = STREAM_HEAD, pause_s: float = 0.001) -> list[Step]:
    """An answer in HTTP chunks, each piece a write of its own."""
    steps: list[Step] = [head.encode() + b"transfer-encoding: chunked\r\n\r\n"]
    for piece in pieces:
        steps += [pause_s, b"%x\r\n%s\r\n" % (len(piece), piece)]
    return [*steps, pause_s, b"0\r\n\r\n"]


def config_for(*upstreams: str, extra: str = "", **settings: str) -> str:
    """A configuration whose models all go to the first of ``upstreams`` (base URLs)."""
    lines = ["upstreams:"]
    for number, url in enumerate(upstreams):
        more = "".join(f", {name}: {value}" for name, value in settings.items())
        lines.append(f"  u{number}: {{base_url: '{url}', api_key: sk-canary-upstream-{number}{more}}}")
    lines += ["models:", "  - {match: '*', upstream: u0}", "server: {drain_delay_s: 0}"]
    return "\n".join(lines) + "\n" + extra
