"""The live feed on its way to one client, as Server-Sent Events.

It ends when the client leaves, when the gateway drains, and within seconds of whatever let the client in having ended.
A client that does not read is sent nothing new, and cut off after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from app.core.errors import GatewayError, TooManyFailedKeys, Unavailable
from app.store.errors import StoreError
from app.telemetry.live import Event, LiveFeed, Viewer
from app.telemetry.live import Scope as LiveScope
from app.telemetry.live.viewer import TICK_S

PING_S = 15
SEND_S_MAX = 30.0
LOOK_EVERY_S = 0.2
CHECK_EVERY_S = 5.0
UNCHECKED_S_MAX = 60.0
"""How long it goes on where the ledger does not say whether it still may."""
END_S_MAX = 1.0

_encoder = msgspec.json.Encoder()


class Cuttable(Protocol):
    """The connection that a response goes out on."""

    def abort(self) -> None: ...


class LiveStream(EventSourceResponse):
    """One who watches ``feed``, in a place that is given back whatever happens."""

    def __init__(self, feed: LiveFeed, scope: LiveScope, check: Callable[[], Awaitable[bool]]) -> None:
        """``check`` says whether the client may still watch; what it raises of the ledger leaves that open.

        Raises TooManyViewers, Draining.
        """
        self._feed = feed
        self._viewer: Viewer = feed.open(scope)
        self._check = check
        self._over = asyncio.Event()
        self._connection: Cuttable | None = None
        super().__init__(
            self._events(),
            ping=PING_S,
            ping_message_factory=_ping,
            send_timeout=SEND_S_MAX,
            data_sender_callable=self._look_after,
            sep="\n",
        )
        # Whether it is kept is the server's to say.
        del self.headers["connection"]

    def __repr__(self) -> str:
        return f"LiveStream({self._viewer!r}, over={self._over.is_set()})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._connection = scope.get("headgate.connection")
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            # Nobody reads it.
            self._cut()
        finally:
            self._feed.close_viewer(self._viewer)

    async def _events(self) -> AsyncIterator[bytes]:
        yield encoded(self._feed.first(self._viewer))
        while not self._over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._over.wait()
                break
            events = self._feed.next(self._viewer)
            if events:
                yield encoded(events)

    async def _look_after(self) -> None:
        """Until it is to end; also where it waits for its client."""
        loop = asyncio.get_running_loop()
        known_s = checked_s = loop.time()
        while not self._feed.is_over and loop.time() - known_s < UNCHECKED_S_MAX:
            await asyncio.sleep(LOOK_EVERY_S)
            if loop.time() - checked_s < CHECK_EVERY_S:
                continue
            checked_s = loop.time()
            may = await self._may_go_on()
            if may is False:
                break
            if may:
                known_s = checked_s
        self._over.set()
        await asyncio.sleep(END_S_MAX)
        self._cut()

    async def _may_go_on(self) -> bool | None:
        """None where that cannot be told now."""
        try:
            return await self._check()
        except (StoreError, Unavailable, TooManyFailedKeys):
            return None
        except GatewayError:
            return False

    def _cut(self) -> None:
        if self._connection is not None:
            self._connection.abort()


def encoded(events: Sequence[Event]) -> bytes:
    """As they go over the wire, all in one piece."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (name.encode(), _encoder.encode(data)) for name, data in events)


def _ping() -> ServerSentEvent:
    return ServerSentEvent(comment="ping", sep="\n")
