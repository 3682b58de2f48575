"""A network that misbehaves: a TCP proxy on loopback, in front of any server, that is told what to break.

>>> with ChaosProxy(("127.0.0.1", 5432)) as proxy:
...     proxy.latency_s = 0.05  # each way
...     proxy.stalled = BOTH  # a black hole; what was sent comes once it ends
...     proxy.reset()  # every connection there is
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self

UP = "up"
"""From the client to the server."""
DOWN = "down"
BOTH = "both"

CHUNK_BYTES = 65_536
CHUNKS_MAX = 64
POLL_S = 0.002
SETTLE_S = 0.02
ACT_S_MAX = 20.0

Target = str | tuple[str, int]


class ChaosProxy:
    """``target`` is a host and port, or the path of a unix socket. It runs on a thread of its own, so that
    tests with and without a loop may use it.

    Faults that last, for connections there are and those to come: ``latency_s`` and ``jitter_s`` of each way,
    ``bytes_per_s`` (None: no bound), ``stalled`` (UP, DOWN, BOTH or None). Of connections yet to come:
    ``reset_after_bytes``, by direction. All else is done once, by calling it.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.port = 0
        self.latency_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s: int | None = None
        self.stalled: str | None = None
        self.reset_after_bytes: dict[str, int] = {}
        self.accepted = 0
        self.cut = 0
        self._pattern = b""
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos proxy", daemon=True)

    def __repr__(self) -> str:
        return f"ChaosProxy({self.target!r}, port={self.port}, open={len(self._links)})"

    @property
    def open(self) -> int:
        """Connections that pass bytes now."""
        return len(self._links)

    def start(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def close(self) -> None:
        self.refuse()
        self.reset()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ACT_S_MAX)
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def refuse(self) -> None:
        """New connections are refused, as by a host on which nothing listens."""
        self._act(self._refuse)

    def accept(self) -> None:
        """New connections are taken again, on the same port."""
        self._act(self._accept)

    def reset(self) -> int:
        """Ends all connections with a reset, towards both sides; how many."""
        return self._act(self._reset)

    def half_close(self, direction: str) -> None:
        """Ends one direction of all connections as if its sender had; the other one goes on."""
        self._act(lambda: self._half_close(direction))

    def cut_answer_to(self, pattern: bytes) -> None:
        """The next time that a client sends ``pattern`` the server gets it, and its answer is lost: once it has
        begun, the connection is reset. ``cut`` counts.
        """
        self._pattern = pattern

    def _act(self, act: Callable[[], Awaitable[Any]]) -> Any:
        async def acted() -> Any:
            return await act()

        return asyncio.run_coroutine_threadsafe(acted(), self._loop).result(ACT_S_MAX)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=CHUNK_BYTES)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _reset(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        await asyncio.gather(*[link.ended.wait() for link in links])
        return len(links)

    async def _half_close(self, direction: str) -> None:
        for link in list(self._links):
            await link.flows[direction].end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            if isinstance(self.target, str):
                far = await asyncio.open_unix_connection(self.target, limit=CHUNK_BYTES)
            else:
                far = await asyncio.open_connection(*self.target, limit=CHUNK_BYTES)
        except OSError:
            # A server that is away: through a proxy, that can only be told by a reset.
            _reset(writer)
            return
        link = _Link(self, (reader, writer), far)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    def take_pattern(self, data: bytes) -> bool:
        """Whether ``data`` has the pattern that is waited for; only the first one to see it is told so."""
        found = bool(self._pattern) and self._pattern in data
        if found:
            self._pattern = b""
        return found

    @property
    def pattern_bytes(self) -> int:
        return len(self._pattern)

    def is_stalled(self, direction: str) -> bool:
        return self.stalled in {direction, BOTH}


class _Link:
    """One connection of a client and the one that it has to the server."""

    def __init__(self, proxy: ChaosProxy, near: tuple[Any, Any], far: tuple[Any, Any]) -> None:
        self.proxy = proxy
        self.loses_answer = False
        self.ended = asyncio.Event()
        self._writers = (near[1], far[1])
        self.flows = {UP: _Flow(self, UP, near[0], far[1]), DOWN: _Flow(self, DOWN, far[0], near[1])}
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        self._tasks = [asyncio.ensure_future(part()) for flow in self.flows.values() for part in (flow.take, flow.give)]
        try:
            # A side that is gone ends its flow with an error; a flow that ends in order leaves the other be.
            await asyncio.gather(*self._tasks)
        except (OSError, asyncio.CancelledError):
            self.reset()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._writers:
                writer.close()
            self.ended.set()

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)
        for task in self._tasks:
            task.cancel()


class _Flow:
    """One direction: taken as it comes, given when it is due, so that latency does not slow down a stream."""

    def __init__(self, link: _Link, direction: str, reader: Any, writer: Any) -> None:
        self._link = link
        self._proxy = link.proxy
        self._direction = direction
        self._reader = reader
        self._writer = writer
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)
        self._bytes_left = link.proxy.reset_after_bytes.get(direction)
        self._seen = b""
        self._over = False

    async def take(self) -> None:
        proxy = self._proxy
        while True:
            data = await self._reader.read(CHUNK_BYTES)
            delay_s = proxy.latency_s + proxy.jitter_s * random.random()
            await self._queue.put((time.monotonic() + delay_s, data))
            if not data:
                return

    async def give(self) -> None:
        proxy = self._proxy
        while True:
            due_s, data = await self._queue.get()
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            while proxy.is_stalled(self._direction):
                await asyncio.sleep(POLL_S)
            if self._over:
                continue
            if not data:
                await self.end()
                return
            await self._pass_on(data)
            if proxy.bytes_per_s is not None:
                await asyncio.sleep(len(data) / proxy.bytes_per_s)

    async def end(self) -> None:
        """Tells the receiver that nothing more comes."""
        if not self._over:
            self._over = True
            with suppress(OSError):
                self._writer.write_eof()

    async def _pass_on(self, data: bytes) -> None:
        link, proxy = self._link, self._proxy
        if self._direction == DOWN and link.loses_answer:
            proxy.cut += 1
            raise ConnectionResetError
        if self._direction == UP:
            seen = self._seen + data
            # Before it is sent, so that no answer can be faster.
            link.loses_answer = link.loses_answer or proxy.take_pattern(seen)
            self._seen = seen[-max(proxy.pattern_bytes - 1, 0) :] if proxy.pattern_bytes > 1 else b""
        if self._bytes_left is not None:
            data, self._bytes_left = data[: self._bytes_left], self._bytes_left - len(data)
        self._writer.write(data)
        await self._writer.drain()
        if self._bytes_left is not None and self._bytes_left <= 0:
            # A reset overtakes what its receiver has not read yet.
            await asyncio.sleep(SETTLE_S)
            proxy.cut += 1
            raise ConnectionResetError


def _reset(writer: Any) -> None:
    """Ends a TCP connection with a reset; on a unix socket there is no such thing, and it is closed."""
    transport = writer.transport
    used = transport.get_extra_info("socket")
    with suppress(OSError):
        if used is not None and used.family != socket.AF_UNIX:
            used.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
