"""A WebSocket that is passed on as it is: one upstream socket per client socket, every frame as it came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.core.errors import GatewayError, InvalidAPIKey
from app.upstream.frames import GOING_AWAY, INTERNAL_ERROR, POLICY_VIOLATION, FrameStream

TICK_S = 1.0
PING_EVERY_TICKS = 20
SILENT_TICKS_MAX = 60
"""A side that answers no ping for so many ticks is gone."""


class PlainSocket:
    """One connection. What passes is nobody's to read."""

    def __init__(
        self,
        client: FrameStream,
        upstream: FrameStream,
        *,
        slow_s: float,
        is_draining: Callable[[], bool],
        check: Callable[[], None],
    ) -> None:
        """``check`` raises GatewayError once the key that it was opened with may not go on."""
        self._client = client
        self._upstream = upstream
        self._slow_s = slow_s
        self._is_draining = is_draining
        self._check = check
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"PlainSocket({self._client!r}, {self._upstream!r})"

    async def run(self) -> None:
        """Until either side has gone."""
        self._tasks = [
            asyncio.create_task(self._carry(self._client, self._upstream), name="websocket up"),
            asyncio.create_task(self._carry(self._upstream, self._client), name="websocket down"),
            asyncio.create_task(self._watch_key(), name="websocket key"),
        ]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for one, other in ((self._client, self._upstream), (self._upstream, self._client)):
                one.close(other.close_code or GOING_AWAY, other.close_reason)

    def revoke(self) -> None:
        """The key is revoked."""
        self._client.close(POLICY_VIOLATION, InvalidAPIKey.code)
        for task in self._tasks:
            task.cancel()

    async def _watch_key(self) -> None:
        """Until the key has ended: a session has no requests of which the next would be refused."""
        while True:
            try:
                self._check()
            except GatewayError as error:
                self._client.close(POLICY_VIOLATION, error.code)
                return
            await asyncio.sleep(TICK_S)

    async def _carry(self, one: FrameStream, other: FrameStream) -> None:
        ticks = silent = 0
        while not one.ended:
            try:
                message = await one.receive(TICK_S)
            except TimeoutError:
                ticks += 1
                silent = 0 if one.heard else silent + 1
                one.heard = False
                if ticks % PING_EVERY_TICKS == 0:
                    one.ping()
                if silent > SILENT_TICKS_MAX or self._is_draining():
                    return
                continue
            if message is None:
                return
            silent = 0
            other.send(message)
            if other.write_paused and not await other.drained(self._slow_s):
                one.close(INTERNAL_ERROR, "too slow")
                return
            # It is not to be held until the next one comes.
            message = None
