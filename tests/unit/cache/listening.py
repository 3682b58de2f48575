"""Clients of a shared answer: connections whose reading the test controls, riders, and the two together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from app.cache.listening import Listener
from app.cache.sharing import Held, SharedAnswer
from app.core.errors import GatewayError, Headers

HEADERS: Headers = [(b"content-type", b"text/event-stream"), (b"x-mine", b"1")]
COMMON = HEADERS[:1]
LARGE = 10_000


class Client:
    """A client's connection, as strict as the real one. It takes ``room`` bytes before it has to read (None: any
    number). ``told`` is what happened, in order; a rider writes there too.
    """

    def __init__(self, room: int | None = None) -> None:
        self.told: list[Any] = []
        self.disconnected = False
        self.response_started = False
        self.complete = False
        self.room = room
        self.unread = 0
        self.gave_up = False
        self._callback: Callable[[], None] | None = None
        self._moved = asyncio.Event()

    @property
    def write_paused(self) -> bool:
        return self.room is not None and self.unread > self.room

    @property
    def body(self) -> bytes:
        return b"".join(piece for piece in self.told if isinstance(piece, bytes))

    # -- what the client does -------------------------------------------------------------------

    def read(self, size: int | None = None) -> None:
        self.unread = 0 if size is None else max(0, self.unread - size)
        self._moved.set()

    def stall(self) -> None:
        """It has read nothing for too long."""
        self.gave_up = True
        self._moved.set()

    def leave(self) -> None:
        if self.disconnected or self.complete:
            return
        self.disconnected = True
        self._moved.set()
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    # -- the connection -------------------------------------------------------------------------

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        if self.disconnected:
            callback()
        else:
            self._callback = callback

    def abort(self) -> None:
        if self.complete:
            return
        self.told.append("abort")
        self.disconnected = True
        self._moved.set()
        if self._callback is not None:
            # The loss of a connection is told by the loop's own call.
            asyncio.get_running_loop().call_soon(self._callback)
            self._callback = None

    async def drained(self, timeout_s: float) -> bool:
        assert timeout_s > 0
        while self.write_paused and not self.disconnected:
            if self.gave_up:
                return False
            self._moved.clear()
            await self._moved.wait()
        return not self.disconnected

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.start(status, headers)
        self.write(body)
        self.finish()

    def start(self, status: int, headers: Headers) -> None:
        assert not self.response_started
        self.response_started = True
        if not self.disconnected:
            self.told.append((status, headers))

    def write(self, data: bytes) -> None:
        assert self.response_started
        assert not self.complete
        if data and not self.disconnected:
            self.told.append(data)
            self.unread += len(data)

    def write_all(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    def finish(self, last: bytes = b"") -> None:
        self.write(last)
        if not self.disconnected:
            self.told.append("finish")
            self.complete = True


class Rider:
    """Who listens with a ``Client``: it adds a header of its own, or refuses."""

    def __init__(self, client: Client, refusal: GatewayError | None = None) -> None:
        self.told = client.told
        self.refusal = refusal
        self.settled = 0
        self.lefts = 0

    def headers_for(self, shared: Headers, *, stream: bool) -> Headers:
        if self.refusal is not None:
            raise self.refusal
        return [*shared, (b"own", b"stream" if stream else b"json")]

    def settle(self) -> None:
        self.settled += 1
        self.told.append("settle")

    def left(self) -> None:
        self.lefts += 1


class Seat:
    """A client, its rider and its listener."""

    def __init__(self, answer: SharedAnswer, room: int | None, refusal: GatewayError | None) -> None:
        self.client = Client(room)
        self.rider = Rider(self.client, refusal)
        self.listener: Listener = answer.join(self.client, self.rider)

    @property
    def how(self) -> str:
        """How it ended, so far."""
        return self.listener.ended.result() if self.listener.ended.done() else ""

    @property
    def told(self) -> list[Any]:
        """What happened behind the head."""
        return [one for one in self.client.told if not isinstance(one, tuple)]


def new_answer(bytes_max: int = LARGE, held: Held | None = None) -> SharedAnswer:
    answer = SharedAnswer(bytes_max=bytes_max, held=held or Held(10 * LARGE), slow_client_s=1)
    answer.common_of = lambda headers: [header for header in headers if header[0] != b"x-mine"]
    return answer


def seat(answer: SharedAnswer, room: int | None = None, *, begun: bool = True, refusal: Any = None) -> Seat:
    taken = Seat(answer, room, refusal)
    if begun:
        taken.listener.begin()
    return taken


async def turn() -> None:
    for _ in range(6):
        await asyncio.sleep(0)
