"""A load balancer of TCP connections: asks each gateway whether it is ready, and sends it no more if it is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

PROBE_INTERVAL_S = 0.1
PROBE_TIMEOUT_S = 1.0
PROBE = b"GET /readyz HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n"


class Balancer:
    """On a thread of its own, over gateways on loopback."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.port = 0
        self.refused = 0
        """Connections for which no gateway was ready."""
        self._ports = ports
        self._ready: set[int] = set()
        self._open = dict.fromkeys(ports, 0)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        probes = [asyncio.create_task(self._probe(port)) for port in self._ports]
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        while not self._ready:
            await asyncio.sleep(PROBE_INTERVAL_S)
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in (*probes, *self._tasks):
            task.cancel()
        await asyncio.gather(*probes, *self._tasks, return_exceptions=True)

    async def _probe(self, port: int) -> None:
        while True:
            if await self._is_ready(port):
                self._ready.add(port)
            else:
                self._ready.discard(port)
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _is_ready(self, port: int) -> bool:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(PROBE)
                    return (await reader.readline()).split()[1:2] == [b"200"]
                finally:
                    await _close(writer)
        except (OSError, TimeoutError):
            return False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            for port in sorted(self._ready, key=self._open.__getitem__):
                with suppress(OSError):
                    ours = await asyncio.open_connection("127.0.0.1", port)
                    break
            else:
                self.refused += 1
                return
            self._open[port] += 1
            try:
                await self._relay((reader, writer), ours)
            finally:
                self._open[port] -= 1
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            await _close(writer)

    async def _relay(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        gateway: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        ways = [
            asyncio.create_task(_copy(client[0], gateway[1])),
            asyncio.create_task(_copy(gateway[0], client[1])),
        ]
        try:
            # Who ends one way has nothing more to say on the other: an HTTP connection is over.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _close(gateway[1])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
